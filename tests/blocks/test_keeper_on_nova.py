"""The keeper on a real Nova, where the lab with one was lent with the checkout: https://opendev.org/openstack/nova on loopback, with an
emulated hypervisor. What happened is read from Nova's own log of actions."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from blocks.gpu_server import GpuServer
from blocks.keeper import Keeper
from dubbing.errors import ServerNotReady
from tests.conftest import ROOT
from tests.postgres import let_pass
from tests.seaweed import free_ports

LAB = Path(os.environ.get("OPENSTACK_LAB") or ROOT.parent / "shared" / "lab" / "openstack") / "lab.sh"
VENV = Path(os.environ.get("LAB_VENV") or Path(tempfile.gettempdir()) / "coursedub-openstack-lab")  # kept: 450 MB, a minute to make
START_TIMEOUT = 900.0  # seconds: it installs itself when first used


class Lab:
    def __init__(self, folder: Path, keystone: int, nova: int) -> None:
        self.folder, self.nova = folder, nova
        self.environment = {**os.environ, "LAB": str(folder), "KS_PORT": str(keystone), "NOVA_PORT": str(nova), "SEED_ARGS": "--rules"}
        self.environment["LAB_VENV"] = str(VENV)

    def run(self, verb: str) -> subprocess.CompletedProcess[str]:
        # Its servers inherit what it was given: a pipe would stay open as long as they live.
        with (self.folder / "said").open("w+") as said:
            done = subprocess.run([LAB, verb], env=self.environment, stdout=said, stderr=said, timeout=START_TIMEOUT, check=False)
            said.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, said.read(), "")

    def set(self, **knobs: float) -> None:
        httpx.post(f"http://127.0.0.1:{self.nova}/lab/knobs", json=knobs, timeout=60, trust_env=False).raise_for_status()

    def server(self, **settings: Any) -> GpuServer:
        """Through the credential that may touch this one server only."""
        cloud = yaml.safe_load((self.folder / "clouds.yaml").read_text())["clouds"]["lab"]
        secret = yaml.safe_load((self.folder / "secure.yaml").read_text())["clouds"]["lab"]["auth"]
        given: dict[str, Any] = {
            "server_id": json.loads((self.folder / "seed.json").read_text())["server"],
            "region": cloud["region_name"],
            **cloud["auth"],
            **secret,
        }
        return GpuServer(**{**given, **settings})


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if not LAB.exists():
        pytest.skip("the lab with a real Nova is not lent with this checkout")
    if not VENV.exists() and "OPENSTACK_LAB" not in os.environ:
        pytest.skip(f"the lab with a real Nova has no environment yet: OPENSTACK_LAB={LAB.parent} makes it (450 MB)")
    keystone, nova = free_ports(2)
    lab = Lab(tmp_path_factory.mktemp("lab"), keystone, nova)
    try:
        try:
            started = lab.run("up")
        except subprocess.TimeoutExpired:
            pytest.skip(f"the lab with a real Nova did not start in {START_TIMEOUT:g} s")
        if started.returncode:
            pytest.skip(f"the lab with a real Nova did not start: {started.stdout.strip()[-300:]}")
        yield lab
    finally:
        lab.run("down")


@pytest.fixture
def keeper(lab: Lab, database: str) -> Iterator[Keeper]:
    server = lab.server(database=database, poll=0.5, price_per_hour=3.0)
    yield Keeper(server)
    server.close()


def actions(server: GpuServer) -> list[str]:
    """Nova's own log, oldest first."""
    listed = server._get(f"/servers/{server.server_id}/os-instance-actions", "2.51").json()["instanceActions"]
    return [action["action"] for action in sorted(listed, key=lambda action: action["start_time"])]


def test_it_is_woken_for_a_lease_and_shelved_when_idle(lab: Lab, keeper: Keeper, database: str) -> None:
    before = len(actions(keeper.server))
    lease = keeper.leases.take("lesson 1", "dub")
    keeper.drive("up", lease=lease)
    keeper.leases.give_back(lease)
    keeper.make_pass(wakes=False)
    assert actions(keeper.server)[before:] == [], "the grace isn't over"
    let_pass(database, 16 * 60)
    assert keeper.drive("down").look.status == "SHELVED_OFFLOADED"
    lease = keeper.leases.take("lesson 2", "dub")
    keeper.drive("up", lease=lease)
    assert actions(keeper.server)[before:] == ["shelve", "unshelve"]
    keeper.leases.give_back(lease)
    keeper.leases.order("down", "anna")
    keeper.drive("down")
    assert actions(keeper.server)[before:] == ["shelve", "unshelve", "shelve"]
    assert [bool(waking.up and waking.down) for waking in keeper.leases.wakings()] == [True, True]


def test_faults_of_the_real_thing_are_lived_through(lab: Lab, keeper: Keeper, database: str) -> None:
    before = len(actions(keeper.server))
    lease = keeper.leases.take("lesson 1", "dub", seconds=3600)
    lab.set(http_503=2, http_drop=1)
    keeper.make_pass(wakes=True)
    lab.set(lose_reply=1)  # of the request that changes something
    until = time.monotonic() + 600
    while not keeper.leases.may_work(lease) and time.monotonic() < until:
        keeper.make_pass(wakes=True)
        time.sleep(0.5)
    assert keeper.leases.may_work(lease)
    assert actions(keeper.server)[before:].count("unshelve") == 1
    keeper.leases.give_back(lease)
    keeper.leases.order("down", "anna")
    lab.set(fail_snapshot=1)
    with pytest.raises(ServerNotReady):  # the next try is 30 s away
        keeper.drive("down", within=8)
    let_pass(database, 60)
    assert keeper.drive("down").look.is_down
    assert actions(keeper.server)[before:].count("shelve") == 2


def test_a_spawn_that_fails_is_tried_again(lab: Lab, keeper: Keeper, database: str) -> None:
    keeper.leases.order("down", "anna")
    keeper.drive("down")
    before = len(actions(keeper.server))
    lease = keeper.leases.take("lesson 1", "dub", seconds=3600)
    lab.set(fail_spawn=1)
    with pytest.raises(ServerNotReady, match=r"unshelve was asked once.*failed"):
        keeper.drive("up", lease=lease, within=10)
    let_pass(database, 60)
    keeper.drive("up", lease=lease)
    assert actions(keeper.server)[before:] == ["unshelve", "unshelve"]
    assert [bool(waking.failed) for waking in keeper.leases.wakings()][-2:] == [True, False]
