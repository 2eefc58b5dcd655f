"""The real Prefect worker, started as its unit starts it: whether it lives, and what becomes of the lesson in hand when it is stopped."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL

from dubbing import machine
from dubbing.machine import Finding
from flows.doctor import WORKER_NAME, _prefect
from tests.deployments.bare_server import GPU_SERVER

LIMIT = 600.0  # seconds after which something counts as stuck
FLOW = """\
import pathlib, time
from prefect import flow

@flow
def lesson():
    pathlib.Path("begun").touch()
    while not pathlib.Path("end").exists():
        time.sleep(0.1)
    return "dubbed"
"""


class Worker(NamedTuple):
    process: subprocess.Popen[bytes]
    address: str  # of its health check
    folder: Path  # of the flow


@pytest.fixture
def worker(prefect_server: None, tmp_path: Path) -> Iterator[Worker]:
    unit = (GPU_SERVER / "systemd" / "coursedub-worker.service").read_text()
    started = re.search(r"^ExecStart=/opt/coursedub/pipeline/bin/(.*)$", unit, re.MULTILINE)
    assert started
    program, *arguments = started[1].replace("%H", socket.gethostname()).split()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert "PREFECT_WORKER_WEBSERVER_HOST=127.0.0.1 PREFECT_WORKER_WEBSERVER_PORT=8002" in unit
    environment = os.environ | {
        "PREFECT_API_URL": PREFECT_API_URL.value(),
        "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
        "PREFECT_WORKER_WEBSERVER_PORT": str(port),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    (tmp_path / "lesson.py").write_text(FLOW)
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="gpu", type="process"))
    process = subprocess.Popen(
        [Path(sys.executable).parent / program, *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as systemd starts it, whatever the tests' own shell ignores
    )
    try:
        yield Worker(process, f"http://127.0.0.1:{port}", tmp_path)
    finally:
        (tmp_path / "end").touch()
        process.kill()
        process.wait()
        with get_client(sync_client=True) as client:
            client.delete_work_pool("gpu")


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < end, "stuck"
        time.sleep(0.2)


def in_pool() -> Finding:
    """What the server says of this machine's worker."""
    return next(finding for finding in _prefect(required=True, worker=WORKER_NAME) if finding.name == "worker in pool gpu")


def start_lesson(client: SyncPrefectClient, folder: Path):  # type: ignore[no-untyped-def]
    flow = client.create_flow_from_name("lesson")
    pull = [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}]
    deployment = client.create_deployment(
        flow, "by-hand", entrypoint="lesson.py:lesson", path=str(folder), work_pool_name="gpu", pull_steps=pull
    )
    return client.create_flow_run_from_deployment(deployment).id


def test_a_worker_that_is_stopped_first_ends_its_lesson(worker: Worker) -> None:
    if shutil.which("pgrep") is None:
        pytest.skip("pgrep is not installed")
    until(lambda: machine.worker(worker.address).state == "ok" and in_pool().state == "ok")
    drain = [GPU_SERVER / "drain", str(worker.process.pid)]
    subprocess.run(drain, check=True, timeout=LIMIT)  # with nothing in hand it waits for nothing
    with get_client(sync_client=True) as client:
        run = start_lesson(client, worker.folder)
        until((worker.folder / "begun").exists)
        draining = subprocess.Popen(drain)
        time.sleep(1)
        assert draining.poll() is None, "the lesson isn't ended"
        (worker.folder / "end").touch()
        assert draining.wait(LIMIT) == 0
        worker.process.send_signal(signal.SIGINT)
        assert worker.process.wait(LIMIT) == 0
        state = client.read_flow_run(run).state
        assert state is not None and state.is_completed(), state
    assert machine.worker(worker.address).state == "missing"


def test_a_worker_that_was_never_there_is_missing_in_the_pool(prefect_server: None) -> None:
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="gpu", type="process"))
    try:
        assert in_pool().state == "missing"
    finally:
        with get_client(sync_client=True) as client:
            client.delete_work_pool("gpu")


def test_there_is_nothing_to_wait_for_when_the_worker_has_ended() -> None:
    for arguments in ([], [""]):
        assert subprocess.run([GPU_SERVER / "drain", *arguments], timeout=LIMIT, check=False).returncode == 0
