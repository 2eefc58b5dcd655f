"""Waiting for the GPU server: what goes away meanwhile. The whole is tried in `tests/flows/test_on_gpu_server.py`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prefect.logging import disable_run_logger

from blocks.jobs import Standing
from dubbing.errors import PassingFault, ServerNotReady
from tasks import hand_over
from tasks.progress import Work

WAITS = Standing(worker="", progress={}, finished=False, failure=None, others_work=False)


def wait(monkeypatch: pytest.MonkeyPatch, standings: list[Standing], within: float) -> Standing:
    """While Prefect's server is down."""

    def away(server: object) -> None:
        raise PassingFault("Prefect's server can't be asked: connection refused")

    monkeypatch.setattr(hand_over, "_see_to_a_run", away)
    monkeypatch.setattr(hand_over, "_wake", lambda keeper, held: True)
    monkeypatch.setattr(hand_over, "_how_the_pool_stands", lambda: "Prefect says nothing of its pool")
    server: Any = SimpleNamespace(poll=0.01, serve_within_minutes=within)
    jobs: Any = SimpleNamespace(standing=lambda lease: standings.pop(0) if len(standings) > 1 else standings[0])
    held: Any = SimpleNamespace(lease=None, check=lambda: None)
    with disable_run_logger():
        return hand_over._done(server, jobs, None, held, Work("gpu_server"))  # type: ignore[arg-type]


def test_whoever_waits_for_the_pools_worker_waits_for_prefects_server_too(monkeypatch: pytest.MonkeyPatch) -> None:
    done = WAITS._replace(finished=True)
    assert wait(monkeypatch, [WAITS, WAITS, done], 20) == done


def test_it_is_waited_for_no_longer_than_for_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerNotReady, match="nothing there took the job: Prefect says nothing"):
        wait(monkeypatch, [WAITS], 0.001)
