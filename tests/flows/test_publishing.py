"""Lessons that are published, and the platform that is told of them: the whole program on stand-in engines, with a platform and a Kinescope
that are played."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Crashed, Failed, Suspended
from pydantic import SecretStr

from blocks.kinescope import Kinescope
from blocks.store import Store, file_digest
from blocks.webhook import Webhook
from dubbing.publishing import lesson_id
from dubbing.webhooks import RETRIES
from flows.deliver_webhook import deliver_webhook
from flows.dub_video import dub_video, tell_failed
from flows.tend_reviews import _tend, waiting
from tasks import announce
from tasks.announce import DEPLOYMENT, Teller, announce_now, announcing
from tasks.progress import TAG
from tests.flows.stand_in_runs import CALM, Done, Run
from tests.kinescope import PROJECT, TOKEN, PlayedKinescope
from tests.lessons import make_lesson
from tests.receiver import SECRET, Receiver

SECONDS = 4.0


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


@pytest.fixture
def platform(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    receiver.start_afresh()
    monkeypatch.setenv("COURSEDUB_WEBHOOK_SECRET", SECRET)
    return receiver


@pytest.fixture(scope="module")
def kinescope(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Iterator[PlayedKinescope]:
    """With a saved block `played`."""
    with PlayedKinescope(tmp_path_factory.mktemp("tus")) as played:
        Kinescope(token=SecretStr(TOKEN), project=PROJECT, api=played.address, uploader=played.address, poll=0.01).save(
            "played", overwrite=True
        )
        yield played


class Lesson:
    """One recording, and the store in which it is dubbed already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = make_lesson(folder / "Урок 1.mp4", SECONDS)
        self.id = lesson_id(self.path.name, file_digest(self.path), "en")

    def dub(self, *options: str | Path, store: str = "store", lesson: Path | None = None) -> Done:
        command = ["dub", lesson or self.path, "--store", self.folder / store, "--output", self.folder / "output", "--json", *options]
        environment = {"COURSEDUB_WEBHOOK_SECRET": SECRET}
        return Run(command, self.folder / "notes", CALM, environment).wait()


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Lesson:
    return Lesson(tmp_path_factory.mktemp("lesson"))


def files_in(folder: Path) -> dict[str, float]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime for path in folder.rglob("*") if path.is_file()}


# --- the files


def test_a_lesson_is_published_and_told_of(lesson: Lesson, platform: Receiver, tmp_path: Path) -> None:
    options = ("--publish-to", tmp_path, "--webhook", platform.url, "--job", "job 7")
    result = lesson.dub(*options).result
    id = lesson.id
    assert re.fullmatch(r"Urok-1-[0-9a-f]{12}\.en", id)
    published = files_in(tmp_path)
    assert set(published) == {
        f"uploads/voiceovers/{id}.m4a",
        f"uploads/renders/{id}.mp4",
        f"uploads/thumbnails/{id}.jpg",
        *(f"uploads/subtitles/{id}.{language}.{kind}" for language in ("en", "ru") for kind in ("srt", "vtt", "ass")),
        *(f"uploads/reports/{id}/{name}" for name in ("timeline.json", "report.json", "index.html")),
    }
    addresses = result["addresses"]
    assert {str(Path(address).relative_to(tmp_path)) for address in addresses.values()} == set(published)
    for what in ("video", "srt_en", "ass_ru", "thumbnail"):
        assert Path(addresses[what]).read_bytes() == Path(result["output_dir"], result["files"][what]).read_bytes()

    voice, completed = platform.taken
    assert (voice.event, completed.event) == ("voiceover_uploaded", "video_completed")
    common = {"job_id": "job 7", "lesson": "Урок 1.mp4", "target_language": "en"}
    assert common.items() <= voice.body.items() and common.items() <= completed.body.items()
    assert voice.body["voice_url"] == completed.body["voice_url"] == addresses["voice"]
    assert completed.body["video_url"] == addresses["video"] and completed.body["subtitles_url"] == addresses["srt_en"]
    assert completed.body["thumbnail_url"] == addresses["thumbnail"] and completed.body["report_url"] == addresses["page"]
    assert completed.body["cost"] is None and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", completed.body["timestamp"])
    assert UUID(voice.delivery) != UUID(completed.delivery)
    assert result["told"] == {"voiceover_uploaded": "delivered", "video_completed": "delivered"}

    again = lesson.dub(*options).result
    assert again["addresses"] == addresses and files_in(tmp_path) == published, "what is there already stays as it is"
    assert len(platform.taken) == 4 and len({one.delivery for one in platform.taken}) == 4


def test_the_published_page_shows_what_is_published(lesson: Lesson, tmp_path: Path) -> None:
    result = lesson.dub("--publish-to", tmp_path).result
    page = Path(result["addresses"]["page"])
    linked = {unquote(link) for link in re.findall(r'(?:src|href)="(\./[^"#]+)"', page.read_text())}
    shown = {str((page.parent / link).resolve()) for link in linked}
    assert result["addresses"]["video"] in shown and result["addresses"]["srt_en"] in shown
    assert all(Path(file).is_file() for file in shown)


def test_a_changed_lesson_takes_its_own_place(lesson: Lesson, tmp_path: Path) -> None:
    before = lesson.dub("--publish-to", tmp_path).result["addresses"]
    video = Path(before["video"]).read_bytes()
    after = lesson.dub("--publish-to", tmp_path, "--seed", "1", "--voice", "viktor").result["addresses"]
    assert after == before and Path(after["video"]).read_bytes() != video


def test_a_track_that_was_cleaned_away_is_made_again_to_be_published(lesson: Lesson, tmp_path: Path) -> None:
    voice = Path(lesson.dub("--publish-to", tmp_path / "first").result["addresses"]["voice"])
    store = Store(folder=str(lesson.folder / "store"))
    digest = file_digest(voice)
    store.files.remove(f"blobs/{digest[:2]}/{digest}")
    again = lesson.dub("--publish-to", tmp_path / "second")
    assert Path(again.result["addresses"]["voice"]).read_bytes() == voice.read_bytes()


# --- Kinescope


def test_a_lesson_is_uploaded_to_kinescope_once(lesson: Lesson, kinescope: PlayedKinescope, platform: Receiver) -> None:
    options = ("--kinescope", "played", "--title", "Lesson 1: light", "--webhook", platform.url)
    result = lesson.dub(*options).result
    video = kinescope.only
    assert video.file == Path(result["output_dir"], result["files"]["video"]).read_bytes()
    assert video.title == "Lesson 1: light"
    assert {track["language"] for track in video.tracks.values()} == {"en", "ru"}
    assert result["kinescope"]["video"] == video.id and result["kinescope"]["uploaded"]
    assert platform.taken[-1].body["kinescope_id"] == video.id
    assert platform.taken[-1].body["kinescope_url"] == result["kinescope"]["address"]
    assert platform.taken[-1].body["video_url"] is None, "it was published nowhere else"
    again = lesson.dub(*options).result
    assert not again["kinescope"]["uploaded"] and kinescope.only is video


def test_what_is_not_approved_is_published_nowhere_and_the_reviewer_is_told(
    lesson: Lesson, kinescope: PlayedKinescope, platform: Receiver, tmp_path: Path
) -> None:
    kinescope.start_afresh()
    options = ("--review", "voiceover", "--publish-to", tmp_path, "--kinescope", "played", "--webhook", platform.url)
    waiting = lesson.dub(*options, store="reviewed").result
    assert waiting["review"]["state"] == "in review" and waiting["addresses"] == {} and "kinescope" not in waiting
    assert {file.split("/")[1] for file in files_in(tmp_path)} == {"reviews"} and not kinescope.videos
    (asked,) = platform.taken
    assert asked.event == "review_requested" and (asked.body["stage"], asked.body["reminder"]) == ("voiceover", 0)
    assert Path(asked.body["video_url"]).is_file() and asked.body["expires"] > asked.body["timestamp"]

    store = ("--store", lesson.folder / "reviewed", "--json")
    assert Run(["review", lesson.path, "--approve", *store], lesson.folder / "notes", CALM, {}).wait().code == 0
    published = lesson.dub(*options, store="reviewed").result
    assert Path(published["addresses"]["video"]).is_file() and published["kinescope"]["video"] == kinescope.only.id
    assert platform.events() == ["review_requested", "voiceover_uploaded", "video_completed"]


# --- what is wrong is said before any work


@pytest.mark.parametrize(
    "options, words",
    [
        (("--publish-to", "ftp://user:password@bucket"), "publish_to: a folder, s3://bucket/prefix, or"),
        (("--publish-to", "coursedub-publishing/none"), "publish to coursedub-publishing/none: Prefect has no such block"),
        (("--kinescope", "none"), "kinescope none: it is no id of a project, and Prefect has no such block"),
        (("--kinescope", PROJECT), "kinescope: no token"),
        (("--webhook", "none"), "webhook none: it is no address, and Prefect has no such block"),
        (("--webhook", "file:///etc/passwd"), "url: an http or https address is expected"),
        (("--webhook", "http://name:password@host/"), "url: no name, password"),
        (("--job", "x" * 101), "setting job"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_wrong_setting_is_refused_in_one_line_before_any_work(lesson: Lesson, options: tuple[str, ...], words: str) -> None:
    done = lesson.dub(*options, store="untouched")
    assert done.code == 21 and words in done.errors and done.errors.count("\n") == 1
    assert not (lesson.folder / "untouched" / "records").exists()


def test_a_token_that_is_not_taken_is_found_before_any_work(lesson: Lesson, kinescope: PlayedKinescope) -> None:
    Kinescope(token=SecretStr("withdrawn"), project=PROJECT, api=kinescope.address, uploader=kinescope.address).save("old", overwrite=True)
    done = lesson.dub("--kinescope", "old", store="untouched")
    assert done.code == 21 and "the token isn't taken" in done.errors and "withdrawn," not in done.errors
    assert not (lesson.folder / "untouched" / "records").exists()


# --- what goes wrong


def test_a_lesson_that_failed_is_told_of(lesson: Lesson, platform: Receiver, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no lesson")
    done = lesson.dub("--webhook", platform.url, "--job", "job 8", lesson=broken)
    assert done.code == 13
    (failed,) = platform.taken
    assert failed.event == "video_failed" and failed.body["job_id"] == "job 8" and failed.body["state"] == "Failed"
    assert failed.body["error"].startswith("NotMedia: broken.mp4") and "\n" not in failed.body["error"]


def of_a_run(platform: Receiver, **parameters: Any) -> SimpleNamespace:
    return SimpleNamespace(
        id=uuid4(), parameters={"source": "/lessons/a.mp4", "target_language": "en", "webhook": platform.url, **parameters}
    )


def test_a_run_that_was_killed_is_told_of_by_whoever_finds_it_dead(platform: Receiver) -> None:
    run = of_a_run(platform, job=None)
    tell_failed(dub_video, run, Crashed(message="Process for flow run exited with status code: -9\nmore"))
    (failed,) = platform.taken
    assert failed.body["job_id"] == failed.body["run_id"] == str(run.id)
    assert (failed.body["state"], failed.body["error"]) == ("Crashed", "Process for flow run exited with status code: -9")


def test_a_failure_told_twice_is_one_delivery_and_another_failure_another(platform: Receiver) -> None:
    run, state = of_a_run(platform), Failed(message="once")
    for seen in (state, state, Failed(message="again")):
        tell_failed(dub_video, run, seen)
    first, same, other = (one.delivery for one in platform.taken)
    assert first == same != other


@pytest.mark.parametrize("answer", [500, "silence"])
def test_a_platform_that_does_not_take_it_holds_up_and_fails_nothing(lesson: Lesson, platform: Receiver, answer: int | str) -> None:
    platform.always = answer
    Webhook(url=platform.url, secret=SecretStr(SECRET), timeout=0.3).save("impatient", overwrite=True)
    result = lesson.dub("--webhook", "coursedub-webhook/impatient").result
    assert result["told"] == {"video_completed": "given up"}
    assert not platform.taken and set(platform.paths) == {"/webhooks/coursedub"}, "nobody is sent elsewhere"
    assert len({one.delivery for one in platform.come}) == 1


def test_events_that_nobody_wants_are_not_told(lesson: Lesson, platform: Receiver) -> None:
    Webhook(url=platform.url, secret=SecretStr(SECRET), events=["video_failed"]).save("failures", overwrite=True)
    assert lesson.dub("--webhook", "failures").result["told"] == {"video_completed": "not wanted"}
    assert not platform.come


# --- retries


@pytest.fixture
def deployment(prefect_server: None, platform: Receiver) -> Iterator[str]:
    """The deployment that takes over, and a saved webhook. Returns the webhook's name."""
    Webhook(url=platform.url, secret=SecretStr(SECRET), timeout=5.0).save("saved", overwrite=True)
    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("deliver-webhook")
        made = client.create_deployment(flow, "deliver-webhook", entrypoint="flows.deliver_webhook.deliver_webhook")
        yield "coursedub-webhook/saved"
        client.delete_deployment(made)


def handed_over() -> list[Any]:
    """The runs that wait to deliver, latest first."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(DEPLOYMENT)
        runs = [run for run in client.read_flow_runs(limit=200) if run.deployment_id == deployment.id]
    return sorted(runs, key=lambda run: run.parameters["attempt"], reverse=True)


def test_what_was_not_taken_is_left_to_a_run_that_delivers_the_same(lesson: Lesson, platform: Receiver, deployment: str) -> None:
    platform.always = 503
    assert lesson.dub("--webhook", deployment).result["told"] == {"video_completed": "handed over"}
    (waiting,) = handed_over()
    assert waiting.state.is_scheduled() and SECRET not in waiting.model_dump_json()
    platform.always = 200
    state = deliver_webhook(**waiting.parameters, return_state=True)
    assert state.is_completed() and state.message == "Delivered at try 1"
    assert platform.taken[0] == platform.come[0], "the same body under the same id"


def test_each_try_that_fails_leaves_the_next_to_a_later_run_until_the_last(platform: Receiver, deployment: str) -> None:
    platform.always = 500
    with get_client(sync_client=True):
        given = {"webhook": deployment, "event": "video_failed", "delivery": str(uuid4()), "body": "{}"}
        for attempt in (1, 2):
            state = deliver_webhook(**given, attempt=attempt, return_state=True)
            assert state.is_completed() and state.message.startswith("Not delivered: webhook")
        third, second = handed_over()
        assert (second.parameters["attempt"], third.parameters["attempt"]) == (2, 3)
        assert round((third.expected_start_time - second.expected_start_time).total_seconds()) >= RETRIES[2] - RETRIES[1]
        last = deliver_webhook(**given, attempt=len(RETRIES), return_state=True)
    assert last.is_failed() and len(handed_over()) == 2
    assert {one.delivery for one in platform.come} == {given["delivery"]}


def test_a_try_that_is_left_twice_is_one_run(platform: Receiver, deployment: str) -> None:
    platform.always = 500
    teller = Teller(Webhook(url=platform.url, secret=SecretStr(SECRET)), deployment, "job", "run", "a.mp4", "en")
    for _ in range(2):
        assert announce_now(teller, "video_failed", "once") == "handed over"
    assert len(handed_over()) == 1


def test_a_review_whose_webhook_was_deleted_expires_and_holds_up_no_other(prefect_server: None) -> None:
    with get_client(sync_client=True) as client:
        wishes = {"source": "/lessons/a.mp4", "review": "translation", "webhook": "deleted", "review_days": 3}
        run = client.create_flow_run(dub_video, parameters=wishes, state=Suspended(timeout_seconds=9999999), tags=[TAG])
        assert run.id in {one.id for one in waiting(client)}
        asked = run.state.timestamp  # type: ignore[union-attr]
        assert [_tend(client, client.read_flow_run(run.id), asked + timedelta(days=days)) for days in (1.1, 3)] == ["reminded", "expired"]


def test_that_a_review_is_asked_for_is_an_event_of_prefects_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """By which automations tell of one that is not answered; nobody need have a webhook for that."""
    emitted: list[tuple[str, str]] = []
    monkeypatch.setattr(announce, "emit_event", lambda event, resource, payload: emitted.append((event, resource["coursedub.reminder"])))
    teller = Teller(None, "", "job", "run", "a.mp4", "en")
    with announcing(teller):
        announce.announce("review_requested", "translation 1", stage="translation", reminder=0)
        announce.announce("video_completed")
    assert announce_now(teller, "review_requested", "translation 1 2", stage="translation", reminder=2) == "not wanted"
    assert emitted == [("coursedub.lesson.review_requested", "0"), ("coursedub.lesson.review_requested", "2")]


def test_without_a_deployment_the_run_tries_again_while_it_lasts(platform: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announce, "FIRST_PAUSE", 0.01)
    platform.answers = [500, 503, 429]
    teller = Teller(Webhook(url=platform.url, secret=SecretStr(SECRET)), platform.url, "job", "run", "a.mp4", "en")
    with announcing(teller) as announcer:
        announce.announce("review_requested", "translation", stage="translation")
        announce.announce("video_completed", cost=1.5)
        while len(announcer.outcomes) < 2:
            platform._leaving.wait(0.01)
    assert announcer.outcomes == {"review_requested": "delivered", "video_completed": "delivered"}
    assert platform.events() == ["review_requested", "video_completed"] and len(platform.come) == 5
    assert json.dumps(platform.taken[1].body["cost"]) == "1.5"
