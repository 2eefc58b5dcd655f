"""A Prefect server with all its services, and process workers, for tests: the real programs, which can be killed and started again.

They end with the process that started them, even when that is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events.schemas.automations import AutomationCore
from prefect.settings import PREFECT_API_URL, temporary_settings

ROOT = Path(__file__).parent.parent
LIMIT = 600.0  # seconds after which something counts as stuck
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, linux/prctl.h
_SERVER = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",  # how often an automation looks whether something didn't happen
    "PREFECT__SERVER_FINAL": "1",
}


def until(what: Callable[[], object], seconds: float = LIMIT) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "stuck"
        time.sleep(0.1)


class PrefectServer:
    """On a port of its own, which it keeps."""

    def __init__(self, database: str, folder: Path) -> None:
        """
        Args:
            database: its address, for SQLAlchemy.
            folder: for its home and its log.
        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.api = f"http://127.0.0.1:{self._port}/api"
        self._log = folder / "server.log"
        self._environment = {**os.environ, **_SERVER, "PREFECT_HOME": str(folder), "PREFECT_API_DATABASE_CONNECTION_URL": database}
        self._environment.pop("PREFECT_API_URL", None)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
        command += ["--host", "127.0.0.1", "--port", str(self._port), "--log-level", "error", "--lifespan", "on"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, cwd=self._log.parent, preexec_fn=_end_with_parent
            )
        with httpx.Client(trust_env=False) as client:
            until(lambda: self._answers(client))

    def _answers(self, client: httpx.Client) -> bool:
        assert self._process is not None and self._process.poll() is None, self._log.read_text()[-2000:]
        with suppress(httpx.TransportError):
            return client.get(f"{self.api}/health").is_success
        return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Worker:
    """A process worker of a pool, started in a folder."""

    def __init__(self, api: str, pool: str, folder: Path, environment: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._api = folder, api
        command = [str(Path(sys.executable).with_name("prefect")), *f"worker start --pool {pool} --type process --name {pool}-test".split()]
        settings = {"PREFECT_API_URL": api, "PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_WORKER_HEARTBEAT_SECONDS": "2"}
        with (folder / "worker.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **settings, **environment},
                cwd=folder,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,
            )

    def kill_group(self) -> None:
        """As a terminal does that is closed, or a supervisor: its runs have groups of their own and live on."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def lose_host(self) -> None:
        """All at once, as when the machine loses its power."""
        runs = processes_of(self._api)
        self.process.send_signal(signal.SIGSTOP)  # it shall see nobody die
        for process in runs:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.kill_group()


def processes_of(api: str, run: object = "") -> list[int]:
    """Processes of runs on this server, or of one run."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit():
                environment = (folder / "environ").read_bytes().split(b"\0")
                wanted = f"PREFECT__FLOW_RUN_ID={run}".encode()
                if f"PREFECT_API_URL={api}".encode() in environment and any(one.startswith(wanted) for one in environment):
                    found.append(int(folder.name))
    return found


@contextmanager
def prefect_server(database: str) -> Iterator[PrefectServer]:
    """A server that is started, and is this process's own."""
    with tempfile.TemporaryDirectory(prefix="coursedub-prefect-", ignore_cleanup_errors=True) as folder:
        server = PrefectServer(database, Path(folder))
        try:
            server.start()
            with temporary_settings({PREFECT_API_URL: server.api}):
                yield server
        finally:
            for process in processes_of(server.api):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            server.kill()


def soon(automation: str, seconds: float = 10.0) -> None:
    """Have an automation that waits for something end its waiting after so long; ten seconds are the least that Prefect knows."""
    with get_client(sync_client=True) as client:
        (found,) = client.read_automations_by_name(automation)
        trigger = found.trigger.model_copy(update={"within": timedelta(seconds=seconds)})
        core = AutomationCore(**{**found.model_dump(exclude={"id", "trigger", "owner_resource"}), "trigger": trigger})
        client.update_automation(found.id, core)


def run_of(deployment: str, parameters: Mapping[str, object]) -> FlowRun:
    """Start one, as the REST API does it."""
    with get_client(sync_client=True) as client:
        return client.create_flow_run_from_deployment(client.read_deployment_by_name(deployment).id, parameters=dict(parameters))


def state_of(run: FlowRun) -> str:
    """Name of its state now."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run.id).state
        return (state.name or "") if state else ""


def ended(run: FlowRun) -> str:
    """Name of the state that it comes to, with its message where that isn't "Completed"."""
    with get_client(sync_client=True) as client:
        until(lambda: (found := client.read_flow_run(run.id).state) is not None and found.is_final())
        state = client.read_flow_run(run.id).state
        assert state is not None and state.name
        return state.name if state.is_completed() else f"{state.name}: {state.message}"


def _prepared() -> Callable[[], None]:
    """Nothing may be imported between fork and exec."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def end_with_parent() -> None:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # which the tests' own shell may ignore
        if libc is not None:
            libc.prctl(_DEATH_SIGNAL, signal.SIGKILL)

    return end_with_parent


_end_with_parent = _prepared()
