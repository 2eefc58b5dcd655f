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
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import ArtifactSort
from prefect.states import Cancelling, Pending, Scheduled
from pydantic import SecretStr

from blocks.store import Store, file_digest
from blocks.webhook import Webhook
from dubbing.webhooks import message
from flows.deploy import deploy
from flows.tend_reviews import _tend, tend_reviews, waiting
from tasks import announce, approval
from tasks.history import runs_of
from tasks.progress import result_of, tables_of
from tests.lessons import make_lesson
from tests.postgres import Postgres, programs
from tests.prefect_stack import ROOT, PrefectServer, Worker, ended, prefect_server, processes_of, run_of, soon, state_of, until
from tests.receiver import SECRET, Receiver
from tests.stand_ins import uses

LESSON_SECONDS = 12.0  # six lines
KEEPER = "keep-gpu-server/keep-gpu-server"


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
    for automation in ("coursedub: heartbeat lost", "coursedub: never started"):
        soon(automation)


class Lesson(NamedTuple):
    """One that runs of a test dub, and where they do."""

    path: Path
    store: Store
    folder: Path
    server: PrefectServer

    def start(self, **wishes: object) -> FlowRun:
        here = {"profile": "cpu", "gpu_server": None}
        places = {"source": str(self.path), "store": self.store.folder, "output": str(self.folder / "output")}
        return run_of("dub-video/dub-video", {**here, **places, "captions": "words", **wishes})

    def worker(self, seconds: float = 0.0) -> Worker:
        """
        Args:
            seconds: that each use of an engine takes.
        """
        stand_ins = {"STAND_INS_LOG": str(self.folder / "uses"), "STAND_INS_SECONDS": str(seconds), "PYTHONPATH": str(ROOT)}
        secrets = {"COURSEDUB_WEBHOOK_SECRET": SECRET}
        return Worker(self.server.api, "gpu", self.folder / "worker", {**stand_ins, **secrets})

    def spoken(self) -> int:
        return sum(use.startswith("synthesize ") for use in uses(self.folder / "uses"))

    def begin(self, seconds: float = 0.5, **parameters: str) -> tuple[Worker, FlowRun]:
        """A run of which two lines are spoken and none is finished after."""
        worker, run = self.worker(seconds), self.start(**parameters)
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


def test_a_flow_that_is_killed_has_crashed_and_the_platform_is_told(lesson: Lesson) -> None:
    with Receiver() as platform:
        worker, run = lesson.begin(webhook=platform.url, job="job 7")
        os.kill(flow_process(lesson.server, run), signal.SIGKILL)
        assert ended(run).startswith("Crashed")
        until(slot_is_free)
        until(lambda: platform.taken)
        worker.kill_group()
        (told,) = platform.taken
    assert (told.event, told.body["job_id"], told.body["state"]) == ("video_failed", "job 7", "Crashed") and told.body["error"]
    lesson.goes_on()


def test_a_webhook_that_a_run_could_not_deliver_is_delivered_by_a_worker(server: PrefectServer, tmp_path: Path) -> None:
    with Receiver() as platform, pytest.MonkeyPatch.context() as patch:
        Webhook(url=platform.url, secret=SecretStr(SECRET)).save("platform", overwrite=True)
        patch.setattr(announce, "RETRIES", (0,))
        told = message("video_completed", job="job 7", run="run", lesson="a.mp4", target_language="en")
        assert announce.left_to_a_run("coursedub-webhook/platform", told, attempt=1)
        worker = Worker(server.api, "control", tmp_path / "worker", {"PYTHONPATH": str(ROOT)})
        until(lambda: platform.taken)
        worker.kill_group()
        (taken,) = platform.taken
    assert (taken.delivery, taken.body) == (told.delivery, json.loads(told.body))


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


def test_a_run_that_was_taken_and_never_begun_has_crashed(lesson: Lesson) -> None:
    """Its worker was lost between the two: it sends no heartbeat that could stop."""
    run = lesson.start()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Pending())
    until(lambda: not slot_is_free())
    assert ended(run).startswith("Crashed: Not begun")
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


def answer(server: PrefectServer, run: FlowRun, **said: object) -> dict[str, Any]:
    """A reviewer's answer, as the REST API takes it."""
    answered = httpx.post(f"{server.api}/flow_runs/{run.id}/resume", json={"run_input": said}, timeout=60)
    return dict(answered.json())


def test_a_run_under_review_frees_its_worker_and_goes_on_with_the_answer(lesson: Lesson) -> None:
    worker, run = lesson.worker(), lesson.start(review="translation")
    until(lambda: state_of(run) == "Suspended")
    until(slot_is_free)
    assert lesson.spoken() == 0
    rows = tables_of(run.id, "review")[0]
    assert [row["translation"][:7] for row in rows] == ["This is"] * len(rows) and rows[0]["source"].startswith("Это")
    for refused in (
        {},
        {"decision": "perhaps"},
        {"decision": "reject", "reason": "x" * 3000},
        {"decision": "approve", "edits": [{"text": "a"}]},
    ):
        assert answer(lesson.server, run, **refused)["status"] == "REJECT", refused
    assert state_of(run) == "Suspended"
    # What only the run itself can refuse is told to the reviewer, who is asked again.
    assert answer(lesson.server, run, decision="approve", edits=[{"line": "nowhere", "text": "a"}])["status"] == "ACCEPT"
    until(lambda: state_of(run) == "Suspended" and "nowhere" in request_of(run))
    assert answer(lesson.server, run, decision="approve", edits=[{"line": rows[1]["id"], "voice": "nobody"}])["status"] == "ACCEPT"
    until(lambda: state_of(run) == "Suspended" and "no such voice" in request_of(run))
    edits = [{"line": rows[1]["id"], "text": "In the reviewer's words."}, {"line": rows[2]["id"], "silent": True}]
    assert answer(lesson.server, run, decision="approve", reviewer="Anna", edits=edits)["status"] == "ACCEPT"
    assert answer(lesson.server, run, decision="reject")["status"] == "ABORT", "an answer that comes twice does no harm"
    assert ended(run) == "Completed"
    worker.kill_group()
    lines = json.loads((lesson.folder / "output" / "timeline.json").read_text())["lines"]
    assert [line["translation"] for line in lines[1:3]] == ["In the reviewer's words.", ""]
    assert max(Counter(uses(lesson.folder / "uses")).values()) == 1, "nothing was computed twice"
    kept = approval.read(lesson.store, file_digest(lesson.path), "en", "translation")
    assert kept and (kept.decision, kept.reviewer) == ("approve", "Anna")


def request_of(run: FlowRun) -> str:
    with get_client(sync_client=True) as client:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]), key=ArtifactFilterKey(any_=["review-request"]))
        return str(client.read_artifacts(artifact_filter=of_run, sort=ArtifactSort.CREATED_DESC)[0].data)


def test_a_voiceover_is_rejected_with_a_reason(lesson: Lesson) -> None:
    with Receiver() as platform:
        Webhook(url=platform.url, secret=SecretStr(SECRET)).save("platform", overwrite=True)
        _rejected(lesson, webhook="platform")
        last = platform.taken[-1]
    assert (last.event, last.body["state"]) == ("video_failed", "Rejected") and "The second line is wrong" in last.body["error"]


def _rejected(lesson: Lesson, **wishes: Any) -> None:
    worker, run = lesson.worker(), lesson.start(review="voiceover", **wishes)
    until(lambda: state_of(run) == "Suspended")
    assert {row["what"] for row in tables_of(run.id, "review-files")[0]} >= {"video", "page", "original_audio"}
    assert answer(lesson.server, run, decision="reject", reason="The second line is wrong", reviewer="Anna")["status"] == "ACCEPT"
    assert ended(run) == "Rejected"
    worker.kill_group()
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run.id).state
    assert state and "rejected by Anna: The second line is wrong" in str(state.message)
    result = result_of(run.id)
    assert result and result["review"]["state"] == "rejected" and result["lines"] > 0


def test_a_review_that_nobody_answers_is_reminded_of_each_day_and_expires(lesson: Lesson) -> None:
    with Receiver() as platform:
        Webhook(url=platform.url, secret=SecretStr(SECRET)).save("platform", overwrite=True)
        worker, run = lesson.worker(), lesson.start(review="translation", review_days=3, webhook="platform", job="job 7")
        until(lambda: state_of(run) == "Suspended")
        until(slot_is_free)
        worker.kill_group()
        with get_client(sync_client=True) as client:
            (waits,) = waiting(client)
            asked = waits.state.timestamp  # type: ignore[union-attr]

            def tended(days: float) -> str:
                (now,) = waiting(client)
                return _tend(client, now, asked + timedelta(days=days))

            assert [tended(days) for days in (0.5, 1.1, 1.2, 2.1, 2.9, 3.0)] == [
                "waits",
                "reminded",
                "waits",
                "reminded",
                "waits",
                "expired",
            ]
            assert waiting(client) == [] and tend_reviews() == {}
        told = [(one.event, one.body.get("reminder"), one.body.get("state")) for one in platform.taken]
        assert told == [
            ("review_requested", 0, None),
            ("review_requested", 1, None),
            ("review_requested", 2, None),
            ("video_failed", None, "Expired"),
        ]
        assert {one.body["job_id"] for one in platform.taken} == {"job 7"}
    assert ended(run) == "Expired"
    assert answer(lesson.server, run, decision="approve")["status"] == "ABORT", "an answer that comes too late does no harm"


@pytest.fixture
def course(lesson: Lesson) -> Iterator[tuple[Path, Worker]]:
    """A manifest of two lessons of which one is none, and a worker for courses."""
    with get_client(sync_client=True) as client:
        there = DeploymentUpdate(entrypoint="tests.deployments.stand_in_flows.dub_course")
        client.update_deployment(client.read_deployment_by_name("dub-course/dub-course").id, there)
    (lesson.folder / "broken.mp4").write_bytes(b"no video")
    manifest = lesson.folder / "physics.csv"
    manifest.write_text("source,title\nlesson.mp4,Light\nbroken.mp4,Waves\n")
    worker = Worker(lesson.server.api, "control", lesson.folder / "control", {"PYTHONPATH": str(ROOT)})
    yield manifest, worker
    worker.kill_group()


def course_of(lesson: Lesson, manifest: Path) -> FlowRun:
    wishes = {"manifest": str(manifest), "store": lesson.store.folder, "output": str(lesson.folder / "course"), "until": None}
    return run_of("dub-course/dub-course", {**wishes, "profile": "cpu", "gpu_server": None})


def lessons_of(run: FlowRun) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return list(client.read_flow_runs(flow_run_filter=FlowRunFilter(tags={"all_": [f"course-{run.id}"]})))


def test_a_course_is_a_run_a_lesson(lesson: Lesson, course: tuple[Path, Worker]) -> None:
    manifest, _ = course
    worker, run = lesson.worker(), course_of(lesson, manifest)
    assert ended(run).startswith("Failed") and "2 lessons: 1 dubbed, 1 failed" in ended(run)
    worker.kill_group()
    lessons = lessons_of(run)
    assert {one.name for one in lessons} == {"Light into en", "Waves into en"}
    assert all(one.parent_task_run_id for one in lessons), "they show as sub-runs"
    light, waves = sorted(tables_of(run.id, "course")[0], key=lambda row: str(row["lesson"]))
    assert (light["state"], light["took"] != "", light["result"].endswith(".mp4")) == ("dubbed", True, True)
    assert (waves["state"], waves["why"]) == (
        "failed",
        "broken.mp4: not a media file that can be read (Invalid data found when processing input)",
    )
    assert (lesson.folder / "course" / "index.html").exists()


def test_a_course_that_is_cancelled_cancels_its_lessons(lesson: Lesson, course: tuple[Path, Worker]) -> None:
    manifest, _ = course
    run = course_of(lesson, manifest)  # nobody takes its lessons
    until(lambda: len(lessons_of(run)) > 0)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Cancelling())
    assert ended(run).startswith("Cancelled")
    until(lambda: all(state_of(one).startswith("Cancel") for one in lessons_of(run)))
