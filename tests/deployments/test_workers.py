"""Real workers of a deployed server: where they find the code, and what becomes of a run when something under it is killed or restarted.

Whatever happens, the run ends in the state that is true, the pool's only slot is free again, and a new run goes on from the cache.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun
from prefect.events.schemas.automations import AutomationCore
from prefect.states import Scheduled

from blocks.store import Store, file_digest
from flows.deploy import deploy
from tasks.history import runs_of
from tests.lessons import make_lesson
from tests.postgres import Postgres, programs
from tests.prefect_stack import ROOT, PrefectServer, Worker, ended, prefect_server, processes_of, run_of, state_of, until
from tests.stand_ins import uses

LESSON_SECONDS = 12.0  # six lines
KEEPER = "keep-gpu-server/keep-gpu-server"
HEARTBEAT_LOST = timedelta(seconds=10)  # the least that Prefect knows


@pytest.fixture(scope="module")
def server(postgres: Postgres) -> Iterator[PrefectServer]:
    """A server on which everything is deployed, with its database in PostgreSQL."""
    found = programs()
    if found is None or not list(found.parent.rglob("pg_trgm.control")):
        pytest.skip("this PostgreSQL has no pg_trgm, which Prefect's server needs")
    folder = parse_qs(urlsplit(postgres.address).query)["host"][0]
    with prefect_server(f"postgresql+asyncpg://coursedub@/postgres?host={folder}") as started:
        with pytest.MonkeyPatch.context() as environment, get_client(sync_client=True) as client:
            environment.setenv("COURSEDUB_GPU_SERVER", "0f7ddbd2-1f4f-4d4f-9d4c-1c54a4b4a001")  # which is nowhere
            for _ in deploy():
                pass
            client.pause_deployment(client.read_deployment_by_name(KEEPER).id)
        yield started


@pytest.fixture(scope="module")
def on_stand_ins(server: PrefectServer) -> None:
    """The flows of a lesson in the pool with one slot, on stand-in engines; their heart beats each second, and may stop for ten."""
    with get_client(sync_client=True) as client:
        for name, flow in (("dub-video/dub-video", "dub_video"), ("plan/plan", "plan")):
            there = DeploymentUpdate(entrypoint=f"tests.deployments.stand_in_flows.{flow}", work_pool_name="gpu", work_queue_name="default")
            client.update_deployment(client.read_deployment_by_name(name).id, there)
        (lost,) = client.read_automations_by_name("coursedub: heartbeat lost")
        soon = lost.trigger.model_copy(update={"within": HEARTBEAT_LOST})
        client.update_automation(
            lost.id, AutomationCore(**{**lost.model_dump(exclude={"id", "trigger", "owner_resource"}), "trigger": soon})
        )


class Lesson(NamedTuple):
    """One that runs of a test dub, and where they do."""

    path: Path
    store: Store
    folder: Path
    server: PrefectServer

    def start(self) -> FlowRun:
        here = {"profile": "cpu", "gpu_server": None}
        places = {"source": str(self.path), "store": self.store.folder, "output": str(self.folder / "output")}
        return run_of("dub-video/dub-video", {**here, **places, "captions": "words"})

    def worker(self, seconds: float = 0.0) -> Worker:
        """
        Args:
            seconds: that each use of an engine takes.
        """
        stand_ins = {"STAND_INS_LOG": str(self.folder / "uses"), "STAND_INS_SECONDS": str(seconds), "PYTHONPATH": str(ROOT)}
        return Worker(self.server.api, "gpu", self.folder / "worker", stand_ins)

    def spoken(self) -> int:
        return sum(use.startswith("synthesize ") for use in uses(self.folder / "uses"))

    def begin(self, seconds: float = 0.5) -> tuple[Worker, FlowRun]:
        """A run of which two lines are spoken and none is finished after."""
        worker, run = self.worker(seconds), self.start()
        until(lambda: self.spoken() >= 2)
        assert state_of(run) == "Running"
        return worker, run

    def is_dubbed(self, run: FlowRun) -> None:
        """The run ends well, and nothing was computed twice."""
        assert ended(run) == "Completed"
        until(slot_is_free)
        assert max(Counter(uses(self.folder / "uses")).values()) == 1
        assert (self.folder / "output" / "index.html").exists()

    def goes_on(self) -> None:
        """A new run, with a new worker, ends well, and nothing that was finished is computed again."""
        records = {entry.name: entry.modified for part in ("records/", "lines/") for entry in self.store.files.found(part)}
        worker, run = self.worker(), self.start()
        try:
            assert ended(run) == "Completed"
        finally:
            worker.kill_group()
        after = {entry.name: entry.modified for part in ("records/", "lines/") for entry in self.store.files.found(part)}
        assert {name: after.get(name) for name in records} == records
        counts = Counter(uses(self.folder / "uses"))
        assert sum(count - 1 for count in counts.values()) <= 1, "at most the line in hand is begun again"
        last = max(runs_of(self.store, file_digest(self.path)), key=lambda kept: kept.started)
        cached = {entry.key for entry in last.stages if entry.state == "cached"}
        assert {name for name in records if name.startswith("records/")} <= cached
        assert (self.folder / "output" / "index.html").exists()


@pytest.fixture
def lesson(on_stand_ins: None, server: PrefectServer, tmp_path: Path) -> Iterator[Lesson]:
    yield Lesson(make_lesson(tmp_path / "lesson.mp4", LESSON_SECONDS), Store(folder=str(tmp_path / "store")), tmp_path, server)
    for process in processes_of(server.api):
        os.kill(process, signal.SIGKILL)


def slot_is_free() -> bool:
    """Of the pool's one slot."""
    with get_client(sync_client=True) as client:
        return client.read_work_pool_concurrency_status("gpu").active_slots == 0


def flow_process(server: PrefectServer, run: FlowRun) -> int:
    """The process that the run's engines work in: the others are its children."""
    (process,) = [process for process in processes_of(server.api, run.id) if os.getsid(process) == process]
    return process


def test_one_deployment_is_found_by_workers_in_different_folders(server: PrefectServer, tmp_path: Path) -> None:
    """As the control machine and the GPU server have nothing at the same place."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("clean-store/clean")
        for pool in ("control", "gpu"):
            client.update_deployment(deployment.id, DeploymentUpdate(work_pool_name=pool))
            Store(folder=str(tmp_path / pool / f"store-of-{pool}")).write_record("figures/stages", {})
            worker = Worker(server.api, pool, tmp_path / pool, {"PYTHONPATH": str(ROOT)})
            # The store's folder is relative: a run works where its worker was started.
            run = run_of("clean-store/clean", {"store": f"store-of-{pool}"})
            assert ended(run) == "Completed"
            worker.kill_group()
        client.update_deployment(deployment.id, DeploymentUpdate(work_pool_name="control"))


def test_a_late_pass_of_the_keeper_is_left_out_and_a_late_order_is_not(server: PrefectServer) -> None:
    """No worker of the pool is there."""
    with get_client(sync_client=True) as client:
        keeper = client.read_deployment_by_name(KEEPER).id
        late = Scheduled(scheduled_time=datetime.now(UTC) - timedelta(minutes=2))
        order = client.create_flow_run_from_deployment(keeper, parameters={"order": "down"}, state=late)
        passing = client.create_flow_run_from_deployment(keeper, state=late, tags=["auto-scheduled"])
        assert ended(passing).startswith("Skipped")
        assert state_of(order) == "Late"
        client.delete_flow_run(order.id)


def test_a_schedule_makes_runs(server: PrefectServer) -> None:
    with get_client(sync_client=True) as client:
        clean = client.read_deployment_by_name("clean-store/clean").id
        of_it = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[clean]))

        def planned() -> list[FlowRun]:
            return [run for run in client.read_flow_runs(flow_run_filter=of_it) if run.auto_scheduled]

        until(planned)
        assert all(run.expected_start_time and run.expected_start_time.hour == 4 for run in planned())


def test_a_flow_that_is_killed_has_crashed(lesson: Lesson) -> None:
    worker, run = lesson.begin()
    os.kill(flow_process(lesson.server, run), signal.SIGKILL)
    assert ended(run).startswith("Crashed")
    until(slot_is_free)
    worker.kill_group()
    lesson.goes_on()


def test_a_run_outlives_its_worker(lesson: Lesson) -> None:
    worker, run = lesson.begin()
    worker.kill_group()
    lesson.is_dubbed(run)


def test_a_run_outlives_restarts_of_the_database_and_of_prefects_server(lesson: Lesson, postgres: Postgres) -> None:
    worker, run = lesson.begin()
    postgres.stop()
    postgres.start()
    lesson.server.kill()
    lesson.server.start()
    lesson.is_dubbed(run)
    worker.kill_group()


def test_a_run_whose_host_is_lost_has_crashed_when_its_heart_has_stopped(lesson: Lesson) -> None:
    """Though Prefect's server was restarted meanwhile."""
    worker, run = lesson.begin(2.0)
    spoken = lesson.spoken()
    lesson.server.kill()
    lesson.server.start()
    until(lambda: lesson.spoken() > spoken)
    worker.lose_host()
    assert not processes_of(lesson.server.api, run.id)
    assert state_of(run) == "Running", "nobody was left to tell"
    assert ended(run).startswith("Crashed: No heartbeat")
    until(slot_is_free)
    lesson.goes_on()


def test_a_plan_is_a_table_and_starts_nothing(lesson: Lesson) -> None:
    wishes = {"source": str(lesson.path), "store": lesson.store.folder, "profile": "cpu", "cost_per_hour": 1.0}
    gpu_server = "0f7ddbd2-1f4f-4d4f-9d4c-1c54a4b4a001"  # which nobody could reach
    run, worker = run_of("plan/plan", {**wishes, "gpu_server": gpu_server}), lesson.worker()
    assert ended(run) == "Completed"
    worker.kill_group()
    with get_client(sync_client=True) as client:
        (table,) = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id])))
        assert len(client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id={"any_": [run.id]}))) == 0
    rows = json.loads(str(table.data))
    assert {"separate", "transcribe", "synthesize", "mix"} <= {row["stage"] for row in rows}
    assert {row["state"] for row in rows} <= {"to compute", "unknown"}
    assert "doesn't wake the GPU server" in str(table.description), "no engine of this profile needs one"
    assert not uses(lesson.folder / "uses") and not list(lesson.store.files.found(""))
