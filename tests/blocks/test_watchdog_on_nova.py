"""The watchdog on a real Nova, where the lab with one was lent with the checkout, while the database of leases is lost."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.gpu_server import GpuServer
from blocks.leases import Leases
from blocks.watchdog import keep
from dubbing.errors import CloudDown, LeasesDown
from dubbing.watchdog import Notes
from tests.nova_lab import Lab, nova_lab, why_not

LIMIT = 600.0  # seconds after which something counts as stuck


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if why := why_not(make="OPENSTACK_LAB" in os.environ):
        pytest.skip(why)
    with nova_lab(tmp_path_factory.mktemp("lab")) as started:
        yield started


def test_without_the_leases_it_is_shelved_when_none_can_hold_whatever_nova_does(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by Nova's own log: asked once, after an hour and the grace, with replies lost and answers of 503 on the way."""
    monkeypatch.setattr(Leases.__init__, "__defaults__", (*(Leases.__init__.__defaults__ or ())[:-1], 0.0))  # no patience
    server = lab.server(database=f"postgresql://nobody@/none?host={tmp_path}", price_per_hour=3.0)
    file, now = tmp_path / "notes.json", datetime.now(UTC)
    began = len(shelved(server))

    def watch(minutes: int) -> None:
        nonlocal now
        for _ in range(0, minutes, 5):
            with pytest.raises((LeasesDown, CloudDown)):
                keep(server, file, now)
            now += timedelta(minutes=5)

    until = time.monotonic() + LIMIT
    while not server.look().is_up:
        assert time.monotonic() < until
        time.sleep(0.5)
    watch(75)
    assert len(shelved(server)) == began
    lab.set(http_503=2, lose_reply=1)
    watch(5)
    while not server.look().is_down:
        assert time.monotonic() < until
        watch(5)
        time.sleep(0.5)
    assert len(shelved(server)) == began + 1
    notes = Notes.model_validate_json(file.read_bytes())
    assert [one.step for one in notes.tried] == ["shelve"] and notes.tried[0].outcome == "unknown"
    server.close()


def shelved(server: GpuServer) -> list[str]:
    """By Nova's own log."""
    listed = server._get(f"/servers/{server.server_id}/os-instance-actions", "2.51").json()["instanceActions"]
    return [action["action"] for action in listed if action["action"] == "shelve"]
