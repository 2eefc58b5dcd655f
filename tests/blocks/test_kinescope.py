"""Kinescope: what is uploaded, once, whatever goes wrong on the way; the server is played, the Tus server under it is real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from blocks import kinescope
from blocks.kinescope import Kinescope, open_kinescope
from blocks.store import Store
from dubbing.errors import BadSetting, CoursedubError, EngineRefused, QuotaReached, ServiceDown, StoreFailed
from dubbing.lesson import Artifact
from tests.conftest import ROOT
from tests.fault_proxy import Fault
from tests.kinescope import INTERNAL_ERROR, PROJECT, TOKEN, Cuts, LosesAnswer, Nonsense, PlayedKinescope, Refuses

SMALL, LARGE = 40_000, 1_000_000  # bytes; the latter goes up in parts
PARTS = {"single_megabytes": 0.1, "part_megabytes": 0.3}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedKinescope]:
    with PlayedKinescope(tmp_path_factory.mktemp("tus")) as server:
        yield server


@pytest.fixture
def there(played: PlayedKinescope) -> PlayedKinescope:
    played.start_afresh()
    return played


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinescope, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(kinescope, "LONGEST_PAUSE", 0.1)


def block(there: PlayedKinescope, **settings: object) -> Kinescope:
    settings = {"token": SecretStr(TOKEN), "patience": 20.0, "poll": 0.01, "settle": 0.05, **PARTS, **settings}
    return Kinescope(project=PROJECT, api=there.address, uploader=there.address, **settings)


def video(store: Store, size: int = SMALL) -> Artifact:
    return store.put_bytes(os.urandom(size), "video/mp4")


def track(store: Store, text: str) -> Artifact:
    return store.put_bytes(f"WEBVTT\n\n00:00.000 --> 00:01.000\n{text}\n".encode(), "text/vtt")


def content(store: Store, artifact: Artifact) -> bytes:
    return store.read_bytes(artifact)


# --- on a good day


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_video_is_uploaded_processed_and_named(there: PlayedKinescope, store: Store, size: int) -> None:
    artifact, shares = video(store, size), []
    published = block(there).publish(store, artifact, "Урок 1: свет", {}, shares.append)
    assert published.uploaded and published.video == there.only.id and published.address.endswith(there.only.id)
    assert there.only.file == content(store, artifact)
    assert there.only.title == "Урок 1: свет"
    assert shares[-1] == 1.0 and shares == sorted(shares) and len(shares) > 3
    assert (there.count("POST", "/v2/video"), there.count("POST", "/v2/init")) == ((1, 0) if size == SMALL else (0, 1))


def test_a_title_that_a_header_garbled_is_set_right(there: PlayedKinescope, store: Store) -> None:
    there.raw_titles = True
    block(there).publish(store, video(store), "Урок\n1\x1b", {})
    assert there.only.title == "Урок1"


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_same_result_is_uploaded_once(there: PlayedKinescope, store: Store, size: int) -> None:
    artifact = video(store, size)
    first = block(there).publish(store, artifact, "lesson", {})
    again = block(there).publish(store, artifact, "another title", {})
    assert (again.video, again.uploaded) == (first.video, False)
    assert there.only.title == "another title"


def test_another_result_is_another_video(there: PlayedKinescope, store: Store) -> None:
    assert block(there).publish(store, video(store), "lesson", {}).video != block(there).publish(store, video(store), "lesson", {}).video


def test_what_another_store_knows_nothing_of_is_found_by_its_mark(there: PlayedKinescope, store: Store, tmp_path: Path) -> None:
    artifact = video(store)
    first = block(there).publish(store, artifact, "lesson", {})
    other = Store(folder=str(tmp_path / "other"))
    other.put_bytes(content(store, artifact), "video/mp4")
    again = block(there).publish(other, artifact, "lesson", {})
    assert (again.video, again.uploaded) == (first.video, False)


def test_what_a_person_deleted_there_is_uploaded_again(there: PlayedKinescope, store: Store) -> None:
    artifact = video(store)
    first = block(there).publish(store, artifact, "lesson", {})
    there.videos.clear()
    assert block(there).publish(store, artifact, "lesson", {}).video != first.video


def test_two_runs_at_once_upload_once(there: PlayedKinescope, store: Store) -> None:
    artifact, published = video(store), []
    stores = [store, Store(folder=store.folder)]
    threads = [
        threading.Thread(target=lambda own=own: published.append(block(there).publish(own, artifact, "lesson", {}))) for own in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.uploaded for one in published) == [False, True]
    assert {one.video for one in published} == {there.only.id}


# --- faults on the way up


@pytest.mark.parametrize("fault", [LosesAnswer(), Nonsense()], ids=["lost", "nonsense"])
@pytest.mark.parametrize("lags", [0, 2], ids=["found at once", "the search lags"])
def test_an_upload_whose_answer_was_lost_is_found_and_not_sent_again(
    there: PlayedKinescope, store: Store, fault: LosesAnswer | Nonsense, lags: int
) -> None:
    artifact = video(store)
    there.moves = [("POST", "/v2/video", fault)]
    there.search_lags = 1 + lags  # the first looks before anything is sent
    assert block(there).publish(store, artifact, "lesson", {}).video == there.only.id
    assert there.count("POST", "/v2/video") == 1


def test_an_upload_that_was_cut_is_sent_again(there: PlayedKinescope, store: Store) -> None:
    artifact = video(store)
    there.moves = [("POST", "/v2/video", Cuts(10_000)), ("POST", "/v2/video", INTERNAL_ERROR)]
    block(there).publish(store, artifact, "lesson", {})
    assert there.only.file == content(store, artifact)
    assert there.count("POST", "/v2/video") == 3


def test_a_dead_upload_of_the_same_result_is_no_hindrance(there: PlayedKinescope, store: Store) -> None:
    """One that another process left half-way, with nothing known of its address."""
    artifact = video(store)
    there.moves = [("POST", "/v2/init", LosesAnswer())]
    published = block(there, single_megabytes=0).publish(store, artifact, "lesson", {})
    assert len(there.videos) == 2 and there.videos[published.video].file == content(store, artifact)


@pytest.mark.parametrize(
    "fault",
    [Fault(cut_request=0.4), Fault(lose_answer=True), Fault(status=503), Fault(status=423), Fault(refuse=True)],
    ids=["cut", "answer lost", "503", "locked", "refused"],
)
def test_a_large_upload_goes_on_after_a_fault(there: PlayedKinescope, store: Store, fault: Fault) -> None:
    artifact = video(store, LARGE)
    faults = iter([fault, fault])
    there.tus.fault = lambda method, path: next(faults, Fault()) if method == "PATCH" else Fault()
    block(there).publish(store, artifact, "lesson", {})
    assert there.only.file == content(store, artifact)
    assert there.count("POST", "/v2/init") == 1


def test_a_large_upload_whose_address_has_expired_begins_again(there: PlayedKinescope, store: Store) -> None:
    artifact = video(store, LARGE)
    there.tus.next(Fault(), Fault(), Fault(), Fault(status=410))  # created, looked at, a part sent, and gone
    published = block(there).publish(store, artifact, "lesson", {})
    assert there.videos[published.video].file == content(store, artifact)
    assert there.count("POST", "/v2/init") == 2


KILLED = """
import os, signal, sys
from tests.blocks import test_kinescope as tests
from blocks.store import Store
from dubbing.lesson import Artifact

class There:
    address = sys.argv[1]

def progress(share):
    if share > 0.3:
        os.kill(os.getpid(), signal.SIGKILL)

artifact = Artifact(sha256=sys.argv[3], size=tests.LARGE, media_type="video/mp4")
tests.block(There()).publish(Store(folder=sys.argv[2]), artifact, "lesson", {}, progress)
"""


def test_a_process_that_was_killed_while_it_uploaded_is_gone_on_from_by_the_next(there: PlayedKinescope, store: Store) -> None:
    artifact = video(store, LARGE)
    command = [sys.executable, "-c", KILLED, there.address, store.folder, artifact.sha256]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == -signal.SIGKILL
    shares: list[float] = []
    published = block(there).publish(store, artifact, "lesson", {}, lambda share: shares.append(share) if share else None)
    assert published.video == there.only.id and there.only.file == content(store, artifact)
    assert there.count("POST", "/v2/init") == 1
    assert shares[0] > 0.2, "what had arrived is not sent again"


# --- refusals


@pytest.mark.parametrize(
    "refusal, kind",
    [
        (Refuses(401, 100102, "unauthorized"), BadSetting),
        (Refuses(400, 100101, "authorization header not found"), BadSetting),
        (Refuses(403, 100103, "access denied"), BadSetting),
        (Refuses(402, 0, "payment required"), QuotaReached),
        (Refuses(400, 100106, "limit reached"), QuotaReached),
        (Refuses(400, 400207, "not enough money"), QuotaReached),
        (Refuses(302, headers={"Location": "http://169.254.169.254/"}), BadSetting),
    ],
    ids=lambda value: "-".join(map(str, value[:2])) if isinstance(value, Refuses) else value.__name__,
)
@pytest.mark.parametrize("size, path", [(SMALL, "/v2/video"), (LARGE, "/v2/init")], ids=["small", "large"])
def test_a_refusal_that_no_retry_helps_is_told_by_its_kind(
    there: PlayedKinescope, store: Store, refusal: Refuses, kind: type[CoursedubError], size: int, path: str
) -> None:
    there.moves = [("POST", path, refusal)]
    with pytest.raises(CoursedubError) as refused:
        block(there).publish(store, video(store, size), "lesson", {})
    assert type(refused.value) is kind
    assert there.count("POST", path) == 1
    assert TOKEN not in str(refused.value) + repr(block(there))


def test_a_project_that_is_not_there_is_a_bad_setting(there: PlayedKinescope, store: Store) -> None:
    elsewhere = block(there).model_copy(update={"project": "0fe408bb-4289-4088-8705-7d5a60b8081c"})
    with pytest.raises(BadSetting, match="no project or folder 0fe408bb"):
        elsewhere.publish(store, video(store), "lesson", {})


def test_a_busy_server_is_waited_for_as_long_as_it_says(there: PlayedKinescope, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(kinescope.time, "sleep", waits.append)
    there.moves = [("POST", "/v2/video", Refuses(429, 0, "too many requests", {"Retry-After": "7"}))]
    assert block(there).publish(store, video(store), "lesson", {}).uploaded
    assert max(waits) == 7.0 and there.count("POST", "/v2/video") == 2


def test_a_server_that_stays_busy_is_given_up(there: PlayedKinescope, store: Store) -> None:
    there.moves = [("POST", "/v2/video", Refuses(429, 0, "too many requests", {"Retry-After": "3600"}))]
    with pytest.raises(ServiceDown, match="429 too many requests"):
        block(there).publish(store, video(store), "lesson", {})


def test_nobody_at_the_address_is_a_service_that_is_down(there: PlayedKinescope, store: Store) -> None:
    nowhere = block(there, patience=0.2).model_copy(update={"api": "http://127.0.0.1:9", "uploader": "http://127.0.0.1:9"})
    with pytest.raises(ServiceDown, match="nobody answers"):
        nowhere.publish(store, video(store), "lesson", {})


def test_a_bad_token_is_found_before_any_work_and_a_server_that_is_away_is_not_minded(there: PlayedKinescope) -> None:
    block(there).check()
    there.moves = [("GET", "/v1/videos", INTERNAL_ERROR)]
    block(there).check()
    for token in ("", "another"):
        with pytest.raises(BadSetting, match="token"):
            block(there, token=SecretStr(token)).check()


# --- processing


def test_a_video_that_is_not_processed_in_time_is_waited_for_by_the_next_run(there: PlayedKinescope, store: Store) -> None:
    artifact, there.looks_until_done = video(store), 10_000
    with pytest.raises(ServiceDown, match=r"'processing' after 0\.005 minutes; the next run waits on"):
        block(there, processed_within_minutes=0.005).publish(store, artifact, "lesson", {})
    there.looks_until_done = 0
    again = block(there).publish(store, artifact, "lesson", {})
    assert again.video == there.only.id and not again.uploaded


def test_a_video_that_can_not_be_processed_is_said_and_tried_anew_by_the_next_run(there: PlayedKinescope, store: Store) -> None:
    artifact, there.ends_in = video(store), "error"
    with pytest.raises(EngineRefused, match="could not be processed"):
        block(there).publish(store, artifact, "lesson", {})
    there.ends_in, failed = "done", there.only
    failed.status = "error"
    published = block(there).publish(store, artifact, "lesson", {})
    assert published.uploaded and published.video != failed.id


def test_faults_while_it_is_processed_are_waited_out(there: PlayedKinescope, store: Store) -> None:
    there.moves = [("GET", "/v1/videos/", fault) for fault in (INTERNAL_ERROR, LosesAnswer(), Nonsense(), Refuses(429))]
    assert block(there).publish(store, video(store), "lesson", {}).uploaded


# --- subtitles


def test_subtitles_are_added_and_those_that_changed_replaced(there: PlayedKinescope, store: Store) -> None:
    artifact, russian = video(store), track(store, "свет")
    first = block(there).publish(store, artifact, "lesson", {"en": track(store, "light"), "ru": russian})
    assert first.subtitles == ("en", "ru")
    before = {one["language"]: one["id"] for one in there.only.tracks.values()}
    block(there).publish(store, artifact, "lesson", {"en": track(store, "a light"), "ru": russian})
    now = {one["language"]: one for one in there.only.tracks.values()}
    assert len(there.only.tracks) == 2 and b"a light" in now["en"]["content"]
    assert now["ru"]["id"] == before["ru"] and now["en"]["id"] != before["en"]
    assert now["en"]["description"] == "English"


def test_a_track_whose_answer_was_lost_is_not_added_twice(there: PlayedKinescope, store: Store) -> None:
    there.moves = [("POST", "/subtitles", LosesAnswer()), ("DELETE", "/subtitles", LosesAnswer())]
    artifact = video(store)
    block(there).publish(store, artifact, "lesson", {"en": track(store, "light")})
    block(there).publish(store, artifact, "lesson", {"en": track(store, "a light")})
    assert len(there.only.tracks) == 1 and there.count("POST", "/subtitles") == 2


@pytest.mark.parametrize(
    "refusal", [Refuses(404), Refuses(400, 402402, "language: unknown"), Refuses(402)], ids=["no such place", "language", "plan"]
)
def test_subtitles_that_are_refused_don_t_stop_the_video(there: PlayedKinescope, store: Store, refusal: Refuses) -> None:
    there.moves = [("POST", "/subtitles", refusal)]
    published = block(there).publish(store, video(store), "lesson", {"en": track(store, "light"), "ru": track(store, "свет")})
    assert published.subtitles == ("ru",) and len(published.refused) == 1 and published.refused[0].startswith("subtitles (en): ")


# --- what is given


def test_the_token_goes_to_no_address_but_kinescope_s(there: PlayedKinescope, store: Store) -> None:
    """The address of a Tus upload is what the server says."""
    heads: list[bytes] = []
    pass_on = there.tus._handle

    def look(client: object, lines: list[bytes], *rest: object) -> None:
        heads.extend(line.lower() for line in lines)
        pass_on(client, lines, *rest)  # type: ignore[arg-type]

    there.tus._handle = look  # type: ignore[method-assign, assignment]
    try:
        block(there).publish(store, video(store, LARGE), "lesson", {})
    finally:
        del there.tus._handle  # type: ignore[method-assign]
    assert any(line.startswith(b"upload-offset") for line in heads)
    assert not any(line.startswith(b"authorization") for line in heads)


def test_a_store_that_is_lost_is_no_reason_to_upload(there: PlayedKinescope, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StoreFailed("store: no space left on the disk")

    artifact = video(store)
    monkeypatch.setattr(Store, "write_record", refuse)
    with pytest.raises(StoreFailed):
        block(there).publish(store, artifact, "lesson", {})
    assert not there.videos, "what can't be noted is not begun"


@pytest.mark.parametrize("settings", [{"project": "lessons"}, {"api": "ftp://x"}, {"uploader": "https://a:b@x"}], ids=str)
def test_a_setting_that_is_wrong_is_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Kinescope(**{"project": PROJECT, **settings})


def test_a_project_s_id_is_enough_where_the_environment_has_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINESCOPE_TOKEN", TOKEN)
    opened = open_kinescope(PROJECT)
    assert (opened.project, opened.token.get_secret_value()) == (PROJECT, TOKEN)
