"""What the platform takes Prefect's API to be is what it is: the same questions to a real server and to the one that other tests play."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from coursedub_django.prefect_api import AnswerRefused, BadParameters, BadRequest, NotAllowed, NotThere, PrefectApi, Refused
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

from tests.deployments.played_prefect import PlayedPrefect
from tests.deployments.reviewed_flows import LINES, ReviewAnswer, dub_video
from tests.prefect_stack import PrefectServer, prefect_server

AUTH = "platform:secret"
GOOD = {"source": "https://example.org/lesson.mp4", "target_language": "en"}
ROWS = [dict(zip(("id", "start", "end", "source", "translation", "flags"), line, strict=True)) for line in LINES]


class RealPrefect:
    """A real server, on which a test says what has happened as a run's process would."""

    def __init__(self, server: PrefectServer) -> None:
        self.api = server.api
        self._http = httpx.Client(base_url=server.api, auth=("platform", "secret"), timeout=120, trust_env=False)

    def deploy(self) -> None:
        from prefect.utilities.callables import parameter_schema

        with get_client(sync_client=True) as client:
            schema = parameter_schema(dub_video).model_dump_for_openapi()
            client.create_deployment(
                client.create_flow(dub_video), name="dub-video", parameter_openapi_schema=schema, enforce_parameter_schema=True
            )

    def enters(self, run: object, type_: str, name: str = "", message: str = "", **details: Any) -> None:
        state = {"type": type_, "name": name or type_.capitalize(), "message": message, "state_details": details}
        self._post(f"/flow_runs/{run}/set_state", {"state": state, "force": True})

    def leaves(self, run: object, key: str, table: list[dict[str, Any]]) -> None:
        self._post("/artifacts/", {"key": key, "type": "table", "data": json.dumps(table), "flow_run_id": str(run)})

    def asks(self, run: object, lines: list[dict[str, Any]], files: dict[str, str]) -> None:
        self.leaves(run, "review", lines)
        self.leaves(run, "review-files", [{"what": what, "address": address} for what, address in files.items()])
        self._post(f"/flow_runs/{run}/input", {"key": "the-schema", "value": json.dumps(ReviewAnswer.model_json_schema())})
        keys = {"response": "the-response", "schema": "the-schema", "description": "the-description"}
        self.enters(run, "PAUSED", "Suspended", pause_reschedule=True, pause_timeout="2099-01-01T00:00:00Z", run_input_keyset=keys)

    def works(self, run: object, *tasks: tuple[str, str, str], **shares: float) -> None:
        for name, type_, state in tasks:
            task = {"name": f"{name}-1a2", "task_key": name, "dynamic_key": str(uuid4()), "flow_run_id": str(run)}
            self._post("/task_runs/", {**task, "state": {"type": type_, "name": state}})
        for stage, share in shares.items():
            key = f"{stage.replace('_', '-')}-progress"
            self._post("/artifacts/", {"key": key, "type": "progress", "data": share, "flow_run_id": str(run)})

    def results_in(self, run: object, **values: Any) -> None:
        self.leaves(run, "result", [{"name": name, "value": json.dumps(value)} for name, value in values.items()])
        self.enters(run, "COMPLETED")

    def _post(self, path: str, body: dict[str, Any]) -> None:
        self._http.post(path, json=body).raise_for_status()


@pytest.fixture(scope="module", params=["played", "real"])
def prefect(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if request.param == "played":
        with PlayedPrefect(auth=AUTH) as played:
            yield played
        return
    folder = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as environment, temporary_settings({PREFECT_API_AUTH_STRING: AUTH}):
        environment.setenv("PREFECT_SERVER_API_AUTH_STRING", AUTH)
        with prefect_server(f"sqlite+aiosqlite:///{folder / 'prefect.db'}") as server:
            real = RealPrefect(server)
            real.deploy()
            yield real


@pytest.fixture
def api(prefect: Any) -> Iterator[PrefectApi]:
    with PrefectApi(prefect.api, AUTH, timeout=120, wait=lambda seconds: None) as client:
        yield client


def a_run(api: PrefectApi) -> UUID:
    return api.create_run(GOOD, str(uuid4()), "Lesson 1 → en", ["django"]).id


def test_a_key_is_a_run(api: PrefectApi) -> None:
    key = str(uuid4())
    first = api.create_run(GOOD, key, "Lesson 1 → en", ["django"])
    assert api.create_run({**GOOD, "target_language": "es"}, key, "").id == first.id
    assert first.state.type == "SCHEDULED" and set(api.runs([first.id, uuid4()])) == {first.id}


def test_refusals(api: PrefectApi, prefect: Any) -> None:
    with pytest.raises(BadParameters, match="source"):
        api.create_run({"target_language": "en"}, str(uuid4()), "")
    with pytest.raises(BadRequest):
        api.create_run({**GOOD, "title": "x" * 600_000}, str(uuid4()), "")
    with pytest.raises(NotThere):
        api.cancel(uuid4())
    with PrefectApi(prefect.api, "platform:wrong", timeout=120) as stranger, pytest.raises(NotAllowed):
        stranger.runs([uuid4()])
    with PrefectApi(prefect.api, AUTH, deployment="dub-video/gone", timeout=120) as lost, pytest.raises(NotThere):
        lost.create_run(GOOD, str(uuid4()), "")


def test_cancelling(api: PrefectApi, prefect: Any) -> None:
    waiting, working, suspended, ended = (a_run(api) for _ in range(4))
    prefect.enters(working, "RUNNING")
    prefect.asks(suspended, ROWS, {})
    prefect.enters(ended, "COMPLETED")
    for run in (waiting, working, suspended):
        api.cancel(run)
    with pytest.raises(Refused):
        api.cancel(ended)
    states = [api.runs([run])[run].state.type for run in (waiting, working, suspended, ended)]
    assert states == ["CANCELLED", "CANCELLING", "CANCELLED", "COMPLETED"]


def test_a_review(api: PrefectApi, prefect: Any) -> None:
    run = a_run(api)
    assert api.review_request(run) is None
    prefect.asks(run, ROWS, {"original_audio": "s3://lessons/a.m4a"})
    state = api.runs([run])[run].state
    assert (state.type, state.name) == ("PAUSED", "Suspended") and state.expires
    asked = api.review_request(run)
    assert asked and [line.id for line in asked.lines] == [row["id"] for row in ROWS]
    assert asked.lines[2].flags == ("rate 1.24", "heard otherwise") and asked.files == {"original_audio": "s3://lessons/a.m4a"}
    with pytest.raises(AnswerRefused):
        api.answer_review(run, {"decision": "maybe"})
    assert api.runs([run])[run].state.type == "PAUSED"
    api.answer_review(run, {"decision": "approve", "reason": "", "reviewer": "rita", "edits": [{"line": "a1", "text": "Better."}]})
    assert api.runs([run])[run].state.type == "SCHEDULED"
    with pytest.raises(Refused):
        api.answer_review(run, {"decision": "approve"})


def test_progress_and_result(api: PrefectApi, prefect: Any) -> None:
    run = a_run(api)
    prefect.enters(run, "RUNNING")
    done = ("COMPLETED", "Completed")
    prefect.works(run, ("ingest", "COMPLETED", "Cached"), ("extract_audio", *done), ("separate", "RUNNING", "Running"), separate=50.0)
    found = api.progress(api.runs([run])[run])
    assert found.stage == "separate" and found.share == pytest.approx(0.1)
    assert [stage.state for stage in found.stages][:3] == ["cached", "done", "running"]
    prefect.results_in(run, addresses={"video": "s3://lessons/v.mp4"}, cost=0.5)
    result = api.result(run)
    assert result and result.addresses == {"video": "s3://lessons/v.mp4"} and result.values == {"cost": 0.5}


def test_states_have_the_names_that_runs_give_them(api: PrefectApi, prefect: Any) -> None:
    run = a_run(api)
    prefect.enters(run, "COMPLETED", "Rejected", "the voice is wrong")
    state = api.runs([run])[run].state
    assert (state.type, state.name, state.message) == ("COMPLETED", "Rejected", "the voice is wrong")
