"""The platform's client for Prefect's API, against a server that misbehaves."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from coursedub_django.prefect_api import (
    AnswerRefused,
    BadParameters,
    BadRequest,
    NotAllowed,
    NotThere,
    PrefectApi,
    PrefectError,
    Refused,
    ServerFault,
    Unreachable,
)

from tests.deployments.played_prefect import Hangs, LosesAnswer, Nonsense, PlayedPrefect, Refuses

GOOD = {"source": "https://example.org/lesson.mp4", "target_language": "en"}


@pytest.fixture
def prefect() -> Iterator[PlayedPrefect]:
    with PlayedPrefect(auth="platform:secret") as played:
        yield played


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def api(prefect: PlayedPrefect, waits: list[float]) -> Iterator[PrefectApi]:
    with PrefectApi(prefect.api, "platform:secret", timeout=30, wait=waits.append) as client:
        yield client


def impatient(prefect: PlayedPrefect) -> PrefectApi:
    """For answers that never come."""
    return PrefectApi(prefect.api, "platform:secret", timeout=0.3, wait=lambda seconds: None)


def test_a_repeated_key_gives_the_same_run(api: PrefectApi, prefect: PlayedPrefect) -> None:
    first = api.create_run(GOOD, "key", "Lesson 1 → en", ["django"])
    again = api.create_run({**GOOD, "target_language": "es"}, "key", "another")
    assert first.id == again.id and api.create_run(GOOD, "other key", "").id != first.id
    assert (first.state.type, prefect.runs[str(first.id)]["parameters"]) == ("SCHEDULED", GOOD)


@pytest.mark.parametrize("fault", [Refuses(503), Refuses(500), Refuses(429), LosesAnswer()], ids=["503", "500", "429", "cut"])
def test_what_passes_is_tried_again_and_done_once(
    fault: Refuses | LosesAnswer, api: PrefectApi, prefect: PlayedPrefect, waits: list[float]
) -> None:
    prefect.moves = [("create_flow_run", fault), ("create_flow_run", fault)]
    assert api.create_run(GOOD, "key", "").id
    assert len(prefect.runs) == 1 and len(waits) == 2 and waits[1] > waits[0] > 0


def test_it_waits_as_long_as_it_is_asked_to_and_no_longer_than_a_person_does(
    api: PrefectApi, prefect: PlayedPrefect, waits: list[float]
) -> None:
    prefect.moves = [
        ("filter", Refuses(429, headers=(("Retry-After", "2"),))),
        ("filter", Refuses(503, headers=(("Retry-After", "3600"),))),
    ]
    assert api.runs([uuid4()]) == {}
    assert waits == [2.0, 5.0]


def test_what_does_not_pass_is_given_up_in_words(api: PrefectApi, prefect: PlayedPrefect, waits: list[float]) -> None:
    prefect.moves = [("filter", Refuses(502, {"detail": "the proxy's"}))] * 3
    with pytest.raises(ServerFault, match=r"tried again by itself. \(502 the proxy's\)"):
        api.runs([uuid4()])
    assert len(waits) == 2


def test_no_answer_in_time(prefect: PlayedPrefect) -> None:
    prefect.moves = [("create_flow_run", Hangs())] * 3
    with impatient(prefect) as api, pytest.raises(Unreachable, match="can't be reached just now"):
        api.create_run(GOOD, "key", "")
    assert len(prefect.runs) == 1, "it was carried out, and the key knows"


def test_nobody_there() -> None:
    with PrefectApi("http://127.0.0.1:9/api", wait=lambda seconds: None) as api, pytest.raises(Unreachable):
        api.runs([uuid4()])


def test_kinds_of_refusal_are_told_apart(api: PrefectApi, prefect: PlayedPrefect) -> None:
    with pytest.raises(BadParameters, match=r"settings were refused.*field 'source'"):
        api.create_run({"target_language": "en"}, "no source", "")
    with pytest.raises(BadRequest, match="too large"):
        api.create_run({**GOOD, "title": "x" * 600_000}, "large", "")
    with pytest.raises(NotThere):
        api.cancel(uuid4())
    with PrefectApi(prefect.api, "platform:wrong") as stranger, pytest.raises(NotAllowed, match="doesn't let this site in"):
        stranger.create_run(GOOD, "key", "")
    with PrefectApi(prefect.api, "platform:secret", deployment="dub-video/gone") as lost, pytest.raises(NotThere, match="not made yet"):
        lost.create_run(GOOD, "key", "")
    assert not [one for one in (BadParameters, BadRequest, NotThere, NotAllowed) if one.passing]
    assert Unreachable.passing and ServerFault.passing


@pytest.mark.parametrize(
    "said", [Nonsense(), Refuses(200, []), Refuses(200, {"id": "no"}), Refuses(200, None)], ids=["html", "list", "odd", "null"]
)
def test_nonsense_is_an_error_like_others(said: Nonsense | Refuses, api: PrefectApi, prefect: PlayedPrefect) -> None:
    prefect.moves = [("create_flow_run", said)]
    with pytest.raises(PrefectError, match="isn't understood"):
        api.create_run(GOOD, "key", "")


def test_cancelling(api: PrefectApi, prefect: PlayedPrefect) -> None:
    waiting, working, ended = (api.create_run(GOOD, key, "").id for key in ("1", "2", "3"))
    prefect.enters(working, "RUNNING")
    prefect.enters(ended, "COMPLETED")
    api.cancel(waiting)
    api.cancel(working)
    with pytest.raises(Refused, match="already in terminal state"):
        api.cancel(ended)
    states = {run: found.state.type for run, found in api.runs([waiting, working, ended]).items()}
    assert states == {waiting: "CANCELLED", working: "CANCELLING", ended: "COMPLETED"}


def test_a_review_is_read_and_answered_once(api: PrefectApi, prefect: PlayedPrefect) -> None:
    run = api.create_run(GOOD, "key", "").id
    assert api.review_request(run) is None
    rows = [{"id": "a", "start": 1, "end": 2.5, "speaker": "", "source": "Свет", "translation": "Light", "flags": "rate; drift"}]
    prefect.asks(run, [{**rows[0], "translation": "of an earlier review"}], {})
    prefect.asks(run, rows, {"original_audio": "s3://lessons/a.m4a"})
    asked = api.review_request(run)
    assert asked is not None
    (line,) = asked.lines
    assert (line.id, line.start, line.end, line.translation, line.flags) == ("a", 1.0, 2.5, "Light", ("rate", "drift"))
    assert asked.files == {"original_audio": "s3://lessons/a.m4a"}
    assert api.runs([run])[run].state.expires

    with pytest.raises(AnswerRefused, match=r"didn't take the answer.*decision"):
        api.answer_review(run, {"decision": "maybe"})
    api.answer_review(run, {"decision": "approve", "edits": []})
    with pytest.raises(Refused, match="moved on"):
        api.answer_review(run, {"decision": "reject"})
    assert prefect.answers[str(run)]["decision"] == "approve"


def test_an_answer_is_never_sent_twice(prefect: PlayedPrefect) -> None:
    with impatient(prefect) as api:
        run = api.create_run(GOOD, "key", "").id
        prefect.asks(run, [])
        prefect.moves = [("resume", LosesAnswer())]
        with pytest.raises(Unreachable):
            api.answer_review(run, {"decision": "approve"})
    assert sum("resume" in request for request in prefect.requests) == 1


def test_progress_is_that_of_stages_by_what_they_usually_take(api: PrefectApi, prefect: PlayedPrefect) -> None:
    run = api.create_run(GOOD, "key", "")
    assert api.progress(run).share == 0 and api.progress(run).eta is None
    done, cached = ("COMPLETED", "Completed"), ("COMPLETED", "Cached")
    begun = [("ingest", *cached), ("extract_audio", *done), ("separate", *done), ("transcribe", *done), ("translate", "RUNNING", "Running")]
    prefect.works(run.id, *begun, translate=50.0)
    prefect.runs[str(run.id)]["estimated_run_time"] = 40.0
    found = api.progress(api.runs([run.id])[run.id])
    assert found.stage == "translate" and found.share == pytest.approx(0.01 + 0.03 + 0.12 + 0.12 + 0.13)
    assert found.eta == pytest.approx(40 / 0.40 * 0.59), "what was cached took no time"
    assert [(stage.name, stage.state) for stage in found.stages][:3] == [
        ("ingest", "cached"),
        ("extract_audio", "done"),
        ("separate", "done"),
    ]
    assert {stage.state for stage in found.stages[5:-1]} == {"waiting"}


def test_work_on_the_gpu_server_counts_for_all_that_is_left(api: PrefectApi, prefect: PlayedPrefect) -> None:
    run = api.create_run(GOOD, "key", "")
    done = ("COMPLETED", "Completed")
    prefect.works(run.id, ("ingest", *done), ("extract_audio", *done), ("gpu_server", "RUNNING", "Running"), gpu_server=25.0)
    found = api.progress(run)
    assert found.stage == "gpu_server" and found.share == pytest.approx(0.04 + 0.96 * 0.25)


def test_a_stage_that_runs_again_is_not_done(api: PrefectApi, prefect: PlayedPrefect) -> None:
    run = api.create_run(GOOD, "key", "")
    prefect.works(run.id, ("synthesize", "COMPLETED", "Completed"), ("fit", "COMPLETED", "Completed"), ("synthesize", "RUNNING", "Running"))
    found = api.progress(run)
    assert (found.stage, found.share) == ("synthesize", pytest.approx(0.02))


def test_a_result_is_read_whatever_is_in_it(api: PrefectApi, prefect: PlayedPrefect) -> None:
    run = api.create_run(GOOD, "key", "").id
    assert api.result(run) is None
    prefect.results_in(
        run, addresses={"video": "s3://lessons/v.mp4", "voice": None}, cost=1.5, kinescope={"video": "abc"}, word_error_rate=0.02
    )
    found = api.result(run)
    assert found and found.addresses == {"video": "s3://lessons/v.mp4"}
    assert found.values == {"cost": 1.5, "kinescope": {"video": "abc"}, "word_error_rate": 0.02}


def test_many_runs_are_asked_for_page_by_page(api: PrefectApi, prefect: PlayedPrefect) -> None:
    run = api.create_run(GOOD, "key", "").id
    assert set(api.runs([*(uuid4() for _ in range(450)), run])) == {run}
    assert prefect.requests.count("POST /flow_runs/filter") == 3


def test_ids_are_those_of_prefect(api: PrefectApi) -> None:
    assert isinstance(api.create_run(GOOD, "key", "").id, UUID)
