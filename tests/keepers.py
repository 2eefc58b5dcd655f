"""Keepers in processes of their own, for tests that race and kill them, and a count of what they ask of Nova."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from blocks.gpu_server import GpuServer
from blocks.keeper import Keeper
from blocks.leases import Locked
from dubbing.errors import CloudDown, LeasesDown

PAUSE = 0.05  # seconds between two passes

# Forked from a process that has imported all this, and has no threads: a start of Python for each would take seconds.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.keepers", "psycopg", "openstack.config", "keystoneauth1.adapter"])

Kind = Literal["look", "step", "token", "other"]


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """It ends with the process that started it, whichever way."""
    process = _processes.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


@contextmanager
def counted() -> Iterator[Counter[Kind]]:
    """What is asked of Nova and Keystone by this process."""
    from requests import Session

    sent: Counter[Kind] = Counter()
    send = Session.send

    def count(session: Session, request: Any, **settings: Any) -> Any:
        path = urlsplit(request.url).path
        if path.endswith("/auth/tokens"):
            sent["token"] += 1
        elif path.endswith("/action"):
            sent["step"] += 1
        else:
            sent["look" if "/servers/" in path else "other"] += 1
        return send(session, request, **settings)

    Session.send = count  # type: ignore[method-assign]
    try:
        yield sent
    finally:
        Session.send = send  # type: ignore[method-assign]


def keep(settings: dict[str, Any], wakes: bool, report: Path) -> None:
    """Make passes until killed. What each asked is a line of the report."""
    with counted() as sent:
        keeper = Keeper(GpuServer(**settings))
        while True:
            sent.clear()
            try:
                made = keeper.make_pass(wakes)
                said = "another has the lock" if made is None else str(made.decision.step or "")
            except (CloudDown, LeasesDown) as error:
                said = type(error).__name__
            with report.open("a") as lines:
                lines.write(json.dumps({"said": said, **sent}) + "\n")
            time.sleep(PAUSE)


def take_and_drive_up(settings: dict[str, Any], owner: str) -> None:
    keeper = Keeper(GpuServer(**settings))
    keeper.drive("up", lease=keeper.leases.take(owner, "dub", 3600))


def die(settings: dict[str, Any], wakes: bool, when: Literal["noted", "asked"]) -> None:
    """Make passes until there is a step to ask for, and be killed when it is noted, or asked for."""

    def killed(*_: object) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    if when == "noted":
        GpuServer.ask = killed  # type: ignore[method-assign]
    else:
        Locked.answered = killed  # type: ignore[method-assign]
    keeper = Keeper(GpuServer(**settings))
    while True:
        keeper.make_pass(wakes)
        time.sleep(PAUSE)
