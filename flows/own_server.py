"""A Prefect server for one run, where none is configured.

Prefect can start a temporary server itself, but imports the whole server into the caller's process to do so, which takes as long as the
server takes to start. Here it starts at once as a process of its own, while the caller imports what it needs, and it ends with its caller
even when that is killed.
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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import prefect
from prefect.context import refresh_global_settings_context
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from dubbing.errors import PassingFault

START_TIMEOUT = 600.0  # seconds: the first start on a machine makes the database, and a busy one may need minutes for it
STOP_TIMEOUT = 5.0
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, linux/prctl.h
_SETTINGS = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",  # only the services that a run needs
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


class Server:
    """A server that is starting, or the one that is configured."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = ExitStack()
        if not PREFECT_API_URL.value():
            self._port = _free_port()
            # What it says is for the message when it doesn't start; at its end, in a hurry, it may print tracebacks of no meaning.
            self._said = self._settings.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            environment = {**os.environ, **_SETTINGS}
            self.process = subprocess.Popen(_command(self._port), env=environment, stderr=self._said, preexec_fn=_end_with_parent)

    def ready(self) -> None:
        """Wait until it answers, and make it the server of this process.

        Raises:
            PassingFault: it ended or did not answer in time.
        """
        if self.process is None:
            return
        address = f"http://127.0.0.1:{self._port}/api"
        until = time.monotonic() + START_TIMEOUT
        with httpx.Client(trust_env=False) as client:
            while True:
                with suppress(httpx.TransportError):
                    if _listens(self._port) and client.get(f"{address}/health").is_success:
                        break
                if self.process.poll() is not None or time.monotonic() > until:
                    self._said.seek(0)
                    said = self._said.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
                    raise PassingFault(
                        f"Prefect's temporary server did not start (exit code {self.process.poll()}, {said or 'it said nothing'}); "
                        "set PREFECT_API_URL to use another"
                    )
                time.sleep(0.05)
        os.environ["PREFECT_API_URL"] = address
        refresh_global_settings_context()
        # A heartbeat tells a server that outlives the run that it lives, and a log is read there later; this one ends with the run.
        self._settings.enter_context(temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_LOGGING_TO_API_ENABLED: False}))

    def stop(self) -> None:
        self._settings.close()
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.environ.pop("PREFECT_API_URL", None)
        refresh_global_settings_context()


@contextmanager
def server() -> Iterator[Server]:
    """Start what is needed now; call `ready()` when the imports are done."""
    started = Server()
    try:
        yield started
    finally:
        started.stop()


def _command(port: int) -> list[str]:
    folder = str(prefect.__module_path__.parent)
    command = [sys.executable, "-m", "uvicorn", "--app-dir", folder, "--factory", "prefect.server.api.server:create_app"]
    return [*command, "--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    """Far cheaper than a request that is refused: the server needs the processor to start."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end_with_parent() -> None:
    """In the child, before it starts: be ended with the parent, and left alone by Ctrl-C, which the parent answers."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)
