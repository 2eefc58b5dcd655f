"""Lessons whose stages are computed on a GPU server that sleeps until it is needed: a real Prefect server, a real worker that is there only
while the server is up, real PostgreSQL and S3 servers; Nova is played, and engines are stood in for."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL

from blocks.gpu_server import GpuServer
from blocks.keeper import Keeper
from blocks.leases import Leases
from blocks.profiles import Profile
from dubbing.errors import BadSetting, NoLease, NoSpeech, ServerNotReady
from flows.deploy import deploy
from flows.dub_video import let_go
from tasks.hand_over import DEPLOYMENT, spent_before
from tests.conftest import ROOT, Bucket
from tests.flows.stand_in_runs import CALM, LINES_EVERY, LONG_WORDED, Run
from tests.lessons import make_lesson
from tests.nova import ACTIVE, OFFLOADED, SERVER, Nova
from tests.postgres import let_pass
from tests.prefect_stack import Worker, ended, prefect_server, run_of, soon, state_of, until
from tests.seaweed import Seaweed
from tests.stand_ins import uses

PROFILE = "stand-ins"  # a saved block: all of its engines are the GPU server's
GPU_STAGES = ["separate", "transcribe", "translate", "synthesize", "inspect"]


class Place:
    """A control machine, where runs are started, and a GPU server, whose worker is there while Nova says that it is up."""

    def __init__(self, nova: Nova, leases: Leases, bucket: Bucket, common: dict[str, str], folder: Path) -> None:
        self.nova, self.leases, self.bucket, self.folder = nova, leases, bucket, folder
        self.api = PREFECT_API_URL.value() or ""  # which other threads don't know
        self.lesson = make_lesson(folder / "lesson.mp4", 20.0)
        self.here = {**common, "COURSEDUB_WORKING_FOLDER": str(folder / "control-disk")}
        self.there = {
            **common,
            "COURSEDUB_WORKING_FOLDER": str(folder / "gpu-disk"),
            "STAND_INS_SETTINGS": json.dumps({"translator": {"style": LONG_WORDED}}),
            "STAND_INS_LOG": str(folder / "gpu" / "uses"),
            "PYTHONPATH": str(ROOT),
        }
        self.worker: Worker | None = None
        self.boots = threading.Event()  # clear: its worker doesn't come up
        self.boots.set()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._leaving.wait(0.1):
            if self.nova.state == ACTIVE and self.boots.is_set() and self.worker is None:
                self.worker = Worker(self.api, "gpu", self.folder / "gpu", self.there)
            elif self.nova.state.task is None and self.nova.state != ACTIVE:
                self._lose()

    def _lose(self) -> None:
        worker, self.worker = self.worker, None
        if worker:
            worker.lose_host()

    def leave(self) -> None:
        self._leaving.set()
        self._thread.join()
        self._lose()

    def dub(self, *options: str, lesson: Path | None = None) -> Run:
        lesson = lesson or self.lesson
        command = ["dub", str(lesson), "--store", self.bucket.address, "--output", str(self.folder / f"{lesson.stem}.out"), "--json"]
        return Run([*command, "--gpu-server", "played", "--profile", PROFILE, *options], self.folder / "notes", CALM, self.here)

    def uses_here(self) -> list[str]:
        return uses(self.folder / "notes" / "uses")

    def uses_there(self) -> list[str]:
        return uses(self.folder / "gpu" / "uses")

    def said(self) -> str:
        path = self.folder / "gpu" / "worker.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else "its worker never came up"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A server with all its services, on which everything is deployed."""
    database = tmp_path_factory.mktemp("server") / "prefect.db"
    with prefect_server(f"sqlite+aiosqlite:///{database}") as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("PREFECT_API_URL", server.api)
        for _ in deploy():
            pass
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
            client.update_deployment(deployment.id, DeploymentUpdate(entrypoint="tests.deployments.stand_in_flows.compute_stages"))
        yield


@pytest.fixture
def place(deployed: None, database: str, seaweed: Seaweed, bucket: Bucket, tmp_path: Path) -> Iterator[Place]:
    with Nova(OFFLOADED) as nova:
        GpuServer(**nova.settings, database=database, price_per_hour=3.0, poll=0.3).save("played", overwrite=True)
        Profile(all_on_gpu_server=True).save(PROFILE, overwrite=True)
        common = {**seaweed.environment(), "STAND_INS_LINES": str(LINES_EVERY)}
        made = Place(nova, Leases(database, SERVER), bucket, common, tmp_path)
        try:
            yield made
        finally:
            made.leave()


def result_of(run: Run, place: Place) -> dict[str, Any]:
    done = run.wait()
    assert done.code == 0, f"{done.errors}\n{place.said()}"
    return done.result


def test_a_lesson_wakes_the_server_is_computed_there_and_lets_it_go(place: Place, database: str) -> None:
    result = result_of(place.dub(), place)
    assert place.nova.actions == ["unshelve"]
    assert place.uses_here() == [], "nothing was computed with a model here"
    assert {use.split()[0] for use in place.uses_there()} >= set(GPU_STAGES) - {"transcribe"}
    assert Path(result["output_dir"], result["files"]["video"]).stat().st_size > 0
    assert {stage["name"]: stage["state"] for stage in result["stages"] if stage["name"] in GPU_STAGES} == dict.fromkeys(
        GPU_STAGES, "cached"
    )
    assert result["gpu_server"]["seconds"] > 0 and result["gpu_server"]["cost"] > 0
    facts = place.leases.facts()
    assert facts.leases == () and facts.needed_until is not None

    # Again: all is there, nothing wakes it, whether it is up or not.
    keeper = Keeper(GpuServer.load("played"), place.leases)
    keeper.make_pass(wakes=False)
    assert place.nova.actions == ["unshelve"], "there is grace left"
    let_pass(database, 15 * 60)
    keeper.drive("down", within=60)
    assert place.nova.actions == ["unshelve", "shelve"] and place.nova.state == OFFLOADED
    before = place.uses_there()
    again = result_of(place.dub(), place)
    assert again["gpu_server"] == {"seconds": 0, "cost": 0}
    assert place.nova.actions == ["unshelve", "shelve"] and place.uses_there() == before and place.uses_here() == []

    # A change that needs no model is made here.
    quieter = result_of(place.dub("--ducking", "20"), place)
    states = {stage["name"]: stage["state"] for stage in quieter["stages"]}
    assert states["translate"] == "cached" and states["mix"] == "cached" and place.nova.actions[2:] == ["unshelve"], "inspection needs one"


def runs_there(*states: StateType) -> list[Any]:
    """Of the deployment, by state."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(DEPLOYMENT)
        return [run for run in client.read_flow_runs() if run.deployment_id == deployment.id and run.state_type in states]


def test_lessons_share_a_waking_and_a_run(place: Place) -> None:
    lessons = [make_lesson(place.folder / f"lesson {number}.mp4", 20.0, rate=number + 1) for number in range(3)]
    before = len(runs_there(StateType.COMPLETED))
    place.boots.clear()
    runs = [place.dub(lesson=lesson) for lesson in lessons]
    until(lambda: len(place.leases.facts().leases) == 3)
    place.boots.set()
    results = [result_of(run, place) for run in runs]
    assert len({result["output_dir"] for result in results}) == 3
    assert place.nova.actions == ["unshelve"]
    assert len(runs_there(StateType.COMPLETED)) == before + 1
    assert len(place.uses_there()) == len(set(place.uses_there())), "nothing was computed twice"
    assert place.leases.facts().leases == ()


def test_a_server_that_is_lost_in_the_middle_comes_back_and_goes_on(place: Place, database: str) -> None:
    soon("coursedub: heartbeat lost")
    run = place.dub()
    until(lambda: any(use.startswith("synthesize") for use in place.uses_there()))
    place.nova.becomes(OFFLOADED)
    until(lambda: place.worker is None)
    before = place.uses_there()
    (vanished,) = runs_there(StateType.RUNNING)
    assert ended(vanished).startswith("Crashed: No heartbeat"), "the automation saw to it"
    with get_client(sync_client=True) as client:
        of_it = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[vanished.id]))
        until(lambda: all(run.state_name == "Crashed" for run in client.read_flow_runs(flow_run_filter=of_it)))
    soon("coursedub: heartbeat lost", 90.0)  # as it was: a busy machine may stand still for ten seconds
    let_pass(database, 61)
    result_of(run, place)
    assert place.nova.actions == ["unshelve", "unshelve"]
    after = place.uses_there()[len(before) :]
    assert len(set(before) & set(after)) <= 1, "at most the line in hand is spoken again"


def test_who_waits_no_more_is_not_worked_for(place: Place) -> None:
    run = place.dub()
    until(lambda: any(use.startswith("translate") for use in place.uses_there()))
    run.send(signal.SIGKILL)
    with get_client(sync_client=True) as client:  # as the worker does for a run that crashed or was cancelled
        (crashed,) = [one for one in client.read_flow_runs() if one.parameters.get("source") == str(place.lesson)]
    let_go(None, crashed, None)
    until(lambda: not runs_there(StateType.RUNNING))
    assert place.leases.facts().leases == ()
    before = place.uses_there()
    result_of(place.dub(), place)
    assert len(set(before) & set(place.uses_there()[len(before) :])) <= 1


def test_a_reviewers_changes_go_with_the_lesson(place: Place) -> None:
    result_of(place.dub(), place)
    before = place.uses_there()
    timeline = place.folder / "lesson.out" / "timeline.json"
    document = json.loads(timeline.read_text())
    document["lines"][2]["translation"] = "Something else here."
    timeline.write_text(json.dumps(document))
    again = result_of(place.dub(), place)
    assert [edit["became"] for edit in again["edits"]] == ["applied"]
    spoken = [use for use in place.uses_there()[len(before) :] if use.startswith("synthesize")]
    assert len(spoken) == 1 and place.uses_here() == []


def test_a_review_lets_the_server_go_and_what_it_cost_before_counts(place: Place) -> None:
    with get_client(sync_client=True) as client:
        there = DeploymentUpdate(entrypoint="tests.deployments.stand_in_flows.dub_video")
        client.update_deployment(client.read_deployment_by_name("dub-video/dub-video").id, there)
    wishes = {"source": str(place.lesson), "store": place.bucket.address, "output": str(place.folder / "out"), "review": "translation"}
    run = run_of("dub-video/dub-video", {**wishes, "gpu_server": "played", "profile": PROFILE})
    worker = Worker(place.api, "control", place.folder / "control", {**place.there, **place.here})
    try:
        until(lambda: state_of(run) == "Suspended")
        assert place.leases.facts().leases == ()
        assert {use.split()[0] for use in place.uses_there()} >= {"separate", "translate"}
        assert not [use for use in place.uses_there() if use.startswith("synthesize")]
        (before,) = spent_before(str(run.id))
        httpx.post(f"{place.api}/flow_runs/{run.id}/resume", json={"run_input": {"decision": "approve"}}, timeout=60)
        assert ended(run) == "Completed"
    finally:
        worker.kill_group()
    visits = spent_before(str(run.id))
    assert len(visits) == 2 and before in visits and min(visit.cost for visit in visits) > 0
    assert len(place.uses_there()) == len(set(place.uses_there())), "nothing was computed twice"


def test_what_fails_there_fails_here_as_it_would_have_here(place: Place) -> None:
    done = place.dub("--voice", "nobody").wait()
    assert done.code == BadSetting.exit_code and place.nova.actions == [], "seen before anything is woken"
    place.there["STAND_INS_LINES"] = "1000"
    done = place.dub().wait()
    assert done.code == NoSpeech.exit_code and "lesson.mp4" in done.errors, done.errors
    assert place.leases.facts().leases == ()


def test_settings_that_differ_between_the_machines_are_told(place: Place) -> None:
    place.there["STAND_INS_SETTINGS"] = json.dumps({"translator": {"style": "another"}})
    done = place.dub().wait()
    assert done.code == BadSetting.exit_code and "translator.settings.style another → " in done.errors, done.errors


def test_without_a_worker_the_run_waits_and_then_says_so(place: Place) -> None:
    place.boots.clear()
    server = GpuServer.load("played")
    server.serve_within_minutes = 0.05
    server.save("played", overwrite=True)
    done = place.dub().wait()
    assert done.code == ServerNotReady.exit_code and "nothing there took the job" in done.errors, done.errors
    assert place.leases.facts().leases == ()


def test_a_server_that_is_forbidden_is_not_woken(place: Place) -> None:
    place.leases.order("forbid", "anna", "holidays")
    done = place.dub().wait()
    assert done.code == NoLease.exit_code and "holidays" in done.errors
    assert place.nova.actions == []


def test_a_store_that_the_server_cant_see_is_refused(place: Place) -> None:
    done = place.dub("--store", str(place.folder / "store")).wait()
    assert done.code == BadSetting.exit_code and "must be a bucket" in done.errors
