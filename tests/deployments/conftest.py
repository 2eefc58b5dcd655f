"""The Chatterbox service, running on a port of this machine, with a small model behind it; and Django set up, for the tests of its app."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

sys.path.insert(0, str(Path(__file__).parents[2] / "deployments" / "gpu_server" / "chatterbox"))

from chatterbox_service.app import create_app
from chatterbox_service.gpu import Gpu
from chatterbox_service.model import SpeechModel
from chatterbox_service.settings import Settings

from tests.deployments import django_site  # noqa: F401  # before tests import the app's models
from tests.deployments.small_service import PATIENCE, Running, ToneModel, until


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    """Starts services; settings as keywords."""
    with services() as start:
        yield start


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    with services() as start:
        yield start()


@pytest.fixture
def running(shared: Running) -> Running:
    """A service as if it had just been started, with no settings."""
    shared.start_afresh()
    return shared


@contextmanager
def services() -> Iterator[Callable[..., Running]]:
    started: list[tuple[uvicorn.Server, threading.Thread, Running]] = []

    def start(
        model: ToneModel | None = None,
        loader: Callable[[], SpeechModel] | None = None,
        read_gpus: Callable[[], list[Gpu]] = list,
        ready: bool = True,
        **settings: Any,
    ) -> Running:
        model = model or ToneModel()
        app = create_app(Settings(**settings), loader or (lambda: model), read_gpus)
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        address = f"http://127.0.0.1:{port}"
        # A connection that is kept for the next request is closed by the server any time where the machine stands still.
        client = httpx.Client(base_url=address, timeout=PATIENCE, limits=httpx.Limits(max_keepalive_connections=0))
        running = Running(model, address, client, app.state.service)
        started.append((server, thread, running))
        if ready:
            until(lambda: running.client.get("/health").json()["status"] != "loading")
        return running

    yield start
    for server, thread, running in started:
        running.model.open.set()
        running.client.close()
        server.should_exit = True
        thread.join(PATIENCE)
