"""The keeper on a real Nova, where the lab with one was lent with the checkout. What happened is read from Nova's own log of actions."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from blocks.keeper import Keeper
from dubbing.errors import ServerNotReady
from tests.nova_lab import Lab, nova_lab, why_not
from tests.postgres import let_pass


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if why := why_not(make="OPENSTACK_LAB" in os.environ):
        pytest.skip(why)
    with nova_lab(tmp_path_factory.mktemp("lab")) as started:
        yield started


@pytest.fixture
def keeper(lab: Lab, database: str) -> Iterator[Keeper]:
    server = lab.server(database=database, poll=0.5, price_per_hour=3.0)
    yield Keeper(server)
    server.close()


def test_it_is_woken_for_a_lease_and_shelved_when_idle(lab: Lab, keeper: Keeper, database: str) -> None:
    before = len(lab.actions(keeper.server))
    lease = keeper.leases.take("lesson 1", "dub")
    keeper.drive("up", lease=lease)
    keeper.leases.give_back(lease)
    keeper.make_pass(wakes=False)
    assert lab.actions(keeper.server)[before:] == [], "the grace isn't over"
    let_pass(database, 16 * 60)
    assert keeper.drive("down").look.status == "SHELVED_OFFLOADED"
    lease = keeper.leases.take("lesson 2", "dub")
    keeper.drive("up", lease=lease)
    assert lab.actions(keeper.server)[before:] == ["shelve", "unshelve"]
    keeper.leases.give_back(lease)
    keeper.leases.order("down", "anna")
    keeper.drive("down")
    assert lab.actions(keeper.server)[before:] == ["shelve", "unshelve", "shelve"]
    assert [bool(waking.up and waking.down) for waking in keeper.leases.wakings()] == [True, True]


def test_faults_of_the_real_thing_are_lived_through(lab: Lab, keeper: Keeper, database: str) -> None:
    before = len(lab.actions(keeper.server))
    lease = keeper.leases.take("lesson 1", "dub", seconds=3600)
    lab.set(http_503=2, http_drop=1)
    keeper.make_pass(wakes=True)
    lab.set(lose_reply=1)  # of the request that changes something
    until = time.monotonic() + 600
    while not keeper.leases.may_work(lease) and time.monotonic() < until:
        keeper.make_pass(wakes=True)
        time.sleep(0.5)
    assert keeper.leases.may_work(lease)
    assert lab.actions(keeper.server)[before:].count("unshelve") == 1
    keeper.leases.give_back(lease)
    keeper.leases.order("down", "anna")
    lab.set(fail_snapshot=1)
    with pytest.raises(ServerNotReady):  # the next try is 30 s away
        keeper.drive("down", within=8)
    let_pass(database, 60)
    assert keeper.drive("down").look.is_down
    assert lab.actions(keeper.server)[before:].count("shelve") == 2


def test_a_spawn_that_fails_is_tried_again(lab: Lab, keeper: Keeper, database: str) -> None:
    keeper.leases.order("down", "anna")
    keeper.drive("down")
    before = len(lab.actions(keeper.server))
    lease = keeper.leases.take("lesson 1", "dub", seconds=3600)
    lab.set(fail_spawn=1)
    with pytest.raises(ServerNotReady, match=r"unshelve was asked once.*failed"):
        keeper.drive("up", lease=lease, within=10)
    let_pass(database, 60)
    keeper.drive("up", lease=lease)
    assert lab.actions(keeper.server)[before:] == ["unshelve", "unshelve"]
    assert [bool(waking.failed) for waking in keeper.leases.wakings()][-2:] == [True, False]
