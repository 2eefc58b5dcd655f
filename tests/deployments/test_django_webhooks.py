"""Webhooks that the platform gets: signed, fresh, once, and never more than true."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from coursedub_django.models import Delivery, Job
from coursedub_django.webhooks import LARGEST
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test import Client

from tests.deployments.django_site import SECRET, a_lesson, clear, coursedub, person, signed, site

State = Job.State
WEBHOOK = "/dubbing/webhook/"


@pytest.fixture(scope="module", autouse=True)
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with site(str(tmp_path_factory.mktemp("django") / "db.sqlite3")):
        yield


@pytest.fixture
def job() -> Any:
    """In work."""
    clear()
    return a_job(a_lesson(person("partner", "partner")))


def a_job(lesson: Any, **more: Any) -> Any:
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    fields = {"run_id": uuid4(), "state": State.RUNNING, "state_at": long_ago, "idempotency_key": str(uuid4()), **more}
    return Job.objects.create(lesson=lesson, target_language="en", **fields)


def event(job: Any, kind: str, seconds: float = 0.0, **more: Any) -> dict[str, Any]:
    at = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    lesson = {"lesson": "lesson.mp4", "target_language": "en"}
    return {"event": kind, "job_id": str(job.pk), "run_id": str(job.run_id), "timestamp": at, **lesson, **more}


def send(given: dict[str, Any], **signing: Any) -> Any:
    return Client(enforce_csrf_checks=True).post(WEBHOOK, **signed(given, **signing))


def now_(job: Any) -> Any:
    return Job.objects.get(pk=job.pk)


def test_a_video_that_is_done(job: Any) -> None:
    urls = {
        "video_url": "s3://lessons/v.mp4",
        "voice_url": "s3://lessons/v.m4a",
        "subtitles_url": None,
        "thumbnail_url": "s3://lessons/t.jpg",
    }
    answer = send(event(job, "video_completed", **urls, report_url="s3://lessons/index.html", cost=0.4))
    assert (answer.status_code, answer.json()) == (200, {"taken": True})
    job = now_(job)
    assert (job.state, job.cost, job.share) == (State.COMPLETED, Decimal("0.4"), 1.0)
    files = {
        "video": "s3://lessons/v.mp4",
        "voice": "s3://lessons/v.m4a",
        "thumbnail": "s3://lessons/t.jpg",
        "page": "s3://lessons/index.html",
    }
    assert job.addresses == files


@pytest.mark.parametrize(("said", "state"), [("Failed", "failed"), ("Crashed", "crashed"), ("Cancelled", "cancelled"), (None, "failed")])
def test_one_that_failed(said: str | None, state: str, job: Any) -> None:
    assert send(event(job, "video_failed", error="lesson.mp4: nobody speaks in it", state=said)).status_code == 200
    assert (now_(job).state, now_(job).error) == (state, "lesson.mp4: nobody speaks in it")


def test_a_review_and_its_reminders(job: Any) -> None:
    until = datetime.now(UTC) + timedelta(days=7)
    send(event(job, "review_requested", stage="translation", expires=until.isoformat(), reminder=0), delivery="first")
    assert (now_(job).state, now_(job).review_deadline, now_(job).review_reminders) == (State.REVIEW, until, 0)
    send(event(job, "review_requested", stage="translation", expires=until.timestamp(), reminder=2), delivery="reminder")
    assert now_(job).review_reminders == 2


def test_a_publication(job: Any) -> None:
    run = uuid4()
    Job.objects.update(state=State.COMPLETED, publication="publishing", publish_run_id=run)
    viewed = {"kinescope_id": "k-1", "kinescope_url": "https://kinescope.io/k-1"}
    send({**event(job, "video_completed"), "run_id": str(uuid4()), **viewed}, delivery="of another run")
    assert now_(job).publication == "publishing"
    send({**event(job, "video_completed"), "run_id": str(run), **viewed}, delivery="its own")
    assert (now_(job).publication, now_(job).kinescope_id, now_(job).kinescope_url) == ("published", *viewed.values())
    send({**event(job, "video_failed"), "run_id": str(run)}, delivery="too late")
    assert now_(job).publication == "published"


def test_a_publication_that_fails(job: Any) -> None:
    run = uuid4()
    Job.objects.update(state=State.COMPLETED, publication="publishing", publish_run_id=run)
    send({**event(job, "video_failed", error="EngineRefused: Kinescope: the token isn't valid"), "run_id": str(run)})
    assert (now_(job).publication, now_(job).publication_error) == ("failed", "Kinescope: the token isn't valid")
    assert now_(job).state == State.COMPLETED


def test_files_that_come_before_the_end(job: Any) -> None:
    send(event(job, "voiceover_uploaded", voice_url="s3://lessons/v.m4a"))
    assert (now_(job).state, now_(job).addresses) == (State.RUNNING, {"voice": "s3://lessons/v.m4a"})


def test_with_or_without_a_slash_at_the_end(job: Any) -> None:
    given = signed(event(job, "video_completed"))
    assert Client().post(WEBHOOK.rstrip("/"), **given).status_code == 200 and now_(job).state == State.COMPLETED


def test_events_of_a_later_version_are_taken_and_change_nothing(job: Any) -> None:
    assert send(event(job, "something_new")).status_code == 200 and now_(job).state == State.RUNNING


# --- What isn't believed


@pytest.mark.parametrize(
    ("signing", "changed"),
    [
        ({"secret": "of somebody else, long enough"}, {}),
        ({}, {"X-Coursedub-Signature": ""}),
        ({}, {"X-Coursedub-Signature": "sha1=00"}),
        ({}, {"X-Coursedub-Signature": "sha256=" + "0" * 64}),
        ({}, {"X-Coursedub-Signature": "sha256=ü"}),
        ({}, {"X-Coursedub-Timestamp": ""}),
        ({}, {"X-Coursedub-Timestamp": "now"}),
        ({}, {"X-Coursedub-Timestamp": "²"}),
        ({}, {"X-Coursedub-Timestamp": str(int(time.time()) + 1)}),
        ({"at": time.time() - 400}, {}),
        ({"at": time.time() + 400}, {}),
    ],
    ids="another-secret none sha1 zeros letters no-time words digits other-time old future".split(),
)
def test_what_is_forged_or_old_is_refused(signing: dict[str, Any], changed: dict[str, str], job: Any) -> None:
    given = signed(event(job, "video_completed"), **signing)
    given["headers"] |= changed
    assert Client().post(WEBHOOK, **given).status_code == 403
    assert now_(job).state == State.RUNNING and not Delivery.objects.exists()


def test_a_changed_body_is_refused(job: Any) -> None:
    given = signed(event(job, "video_completed"))
    given["data"] = given["data"].replace(b"video_completed", b"video_failed   ")
    assert Client().post(WEBHOOK, **given).status_code == 403


def test_a_delivery_counts_once(job: Any) -> None:
    first = signed(event(job, "video_failed", state="Crashed", error="lost"), delivery="once")
    assert Client().post(WEBHOOK, **first).json() == {"taken": True}
    again = send(event(job, "video_completed"), delivery="once")
    assert (again.status_code, again.json()["taken"]) == (200, False)
    copied = {**first, "headers": {**first["headers"], "X-Coursedub-Delivery": "under another name"}}
    assert Client().post(WEBHOOK, **copied).json()["taken"] is False
    assert now_(job).state == State.CRASHED and Delivery.objects.count() == 1


def test_old_deliveries_are_forgotten(job: Any) -> None:
    send(event(job, "voiceover_uploaded"), delivery="old")
    Delivery.objects.update(at=datetime.now(UTC) - timedelta(days=91))
    send(event(job, "voiceover_uploaded", voice_url="s3://lessons/v.m4a"), delivery="new")
    Job.objects.update(state=State.FAILED)
    call_command("sync_jobs", stdout=StringIO())
    assert [one.pk for one in Delivery.objects.all()] == ["new"]


def test_a_delivery_whose_handling_failed_is_taken_when_it_comes_again(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("the database went away")

    with monkeypatch.context() as broken:
        broken.setattr("coursedub_django.webhooks.moved", fails)
        with pytest.raises(RuntimeError):
            send(event(job, "video_completed"))
    assert send(event(job, "video_completed")).json() == {"taken": True} and now_(job).state == State.COMPLETED


def test_late_news_turns_no_finished_job_back(job: Any) -> None:
    send(event(job, "video_completed"), delivery="end")
    for number, kind in enumerate(("review_requested", "video_failed", "voiceover_uploaded")):
        assert send(event(job, kind, seconds=60, error="late", voice_url="s3://lessons/late.m4a"), delivery=str(number)).status_code == 200
    assert (now_(job).state, now_(job).error, now_(job).addresses) == (State.COMPLETED, "", {})


def test_news_of_an_earlier_attempt_is_not_this_ones(job: Any) -> None:
    assert send({**event(job, "video_failed"), "run_id": str(uuid4())}).status_code == 200
    assert now_(job).state == State.RUNNING


@pytest.mark.parametrize("job_id", [str(uuid4()), "7", "", None, "../admin"], ids=["unknown", "number", "empty", "null", "path"])
def test_unknown_jobs(job_id: Any, job: Any) -> None:
    assert send({**event(job, "video_completed"), "job_id": job_id}).status_code == 404
    assert not Delivery.objects.exists()


def test_what_cannot_be_read(job: Any) -> None:
    for body in ([], "x", {"job_id": str(job.pk)}, {"event": 3}):
        assert send(body).status_code in (400, 404)  # type: ignore[arg-type]
    large = signed({**event(job, "video_completed"), "error": "x" * LARGEST})
    assert Client().post(WEBHOOK, **large).status_code == 413
    assert Client().get(WEBHOOK).status_code == 405
    for delivery in ("", "x" * 101, "a\x7f"):
        assert send(event(job, "video_completed"), delivery=delivery).status_code == 400


@pytest.mark.parametrize(
    "timestamp", ["yesterday", 1e300, "2026-13-45T99:00:00", True, {}], ids=["word", "huge", "no-date", "bool", "object"]
)
def test_odd_times_count_as_now(timestamp: Any, job: Any) -> None:
    assert send({**event(job, "video_completed"), "timestamp": timestamp, "cost": "NaN"}).status_code == 200
    assert (now_(job).state, now_(job).cost) == (State.COMPLETED, None)


def test_secrets_can_be_changed_without_a_gap(job: Any) -> None:
    old, new = SECRET, "the secret that comes after"
    with coursedub(WEBHOOK_SECRETS=[new, old]):
        assert send(event(job, "voiceover_uploaded"), secret=old, delivery="1").status_code == 200
        assert send(event(job, "voiceover_uploaded"), secret=new, delivery="2").status_code == 200
    with coursedub(WEBHOOK_SECRETS=[]):
        assert send(event(job, "voiceover_uploaded"), secret=new, delivery="3").status_code == 403
        assert send(event(job, "voiceover_uploaded"), secret="", delivery="4").status_code == 403


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"WEBHOOK_SECRETS": ["short"]}, "at least 16"),
        ({"WEBHOOK_SECRETS": "one long string of a secret"}, "a list"),
        ({"API_URL": "localhost:4200"}, "API_URL: not an http"),
        ({"REVIEW": "sometimes"}, "REVIEW: one of"),
        ({"BUCKET": "lessons"}, "BUCKET: s3://"),
        ({"PUBLIC_URL": ""}, "PUBLIC_URL: needed"),
        ({"TYPO": 1}, "unknown settings TYPO"),
        ({"FILES_ROOT": "relative"}, "absolute"),
    ],
)
def test_settings_are_checked_by_name(changed: dict[str, Any], why: str) -> None:
    from coursedub_django.apps import check_settings
    from coursedub_django.conf import settings

    with coursedub(**changed):
        with pytest.raises(ImproperlyConfigured, match=why):
            settings()
        assert [one.id for one in check_settings()] == ["coursedub.E001"]
