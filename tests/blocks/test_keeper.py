"""The keeper before a Nova that is played: every state it may meet, every fault, races and crashes. What Nova accepted is checked in its
own log."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from blocks.gpu_server import GpuServer
from blocks.keeper import Keeper, Pass
from dubbing.errors import BadSetting, CloudDown, LeasesDown, NoLease, PersonNeeded, ServerNotReady
from dubbing.power import MAY_STILL_COME, Lease
from tests.conftest import ROOT
from tests.nova import ACTIVE, OFFLOADED, Entry, Nova, State
from tests.postgres import let_pass

GRACE = 15 * 60.0
STARTS = {
    "ACTIVE": ACTIVE,
    "ACTIVE, guest off": State("active", None, 4),
    "SHUTOFF": State("stopped"),
    "PAUSED": State("paused"),
    "SUSPENDED": State("suspended"),
    "RESCUE": State("rescued"),
    "SHELVED": State("shelved"),
    "SHELVED_OFFLOADED": OFFLOADED,
    "shelving": State("active", "shelving"),
    "uploading": State("active", "shelving_image_uploading"),
    "unshelving": State("shelved_offloaded", "unshelving", host=False),
    "BUILD": State("building", "spawning"),
    "ERROR with a host": State("error"),
}
HOPELESS = {
    "ERROR without a host": State("error", host=False),
    "VERIFY_RESIZE": State("resized"),
    "deleted": State("deleted", host=False),
}


class World:
    """A server, its leases, and a clock that only the test moves on."""

    def __init__(self, nova: Nova, database: str) -> None:
        self.nova, self.database = nova, database
        self.passed = 0.0
        nova.clock = self.now
        self.keeper = self.another_keeper()

    def another_keeper(self, **settings: Any) -> Keeper:
        return Keeper(
            GpuServer(**{**self.nova.settings, "database": self.database, "retries": 0, "poll": 0.0, "price_per_hour": 2.0, **settings})
        )

    def now(self) -> float:
        return time.time() + self.passed

    def later(self, seconds: float) -> None:
        self.passed += seconds
        let_pass(self.database, seconds)

    def take(self, owner: str = "lesson 1", seconds: float = 3600) -> Lease:
        return self.keeper.leases.take(owner, "dub", seconds)

    def make_pass(self, wakes: bool = True) -> Pass:
        made = self.keeper.make_pass(wakes)
        assert made is not None
        return made

    def passes(self, count: int, seconds: float = 60.0, wakes: bool = True) -> Pass:
        """So many, with this time between."""
        for _ in range(count):
            made = self.make_pass(wakes)
            self.later(seconds)
        return made


@pytest.fixture
def nova() -> Iterator[Nova]:
    with Nova() as played:
        yield played


@pytest.fixture
def world(nova: Nova, database: str) -> World:
    world = World(nova, database)
    world.keeper.leases.facts()  # the tables
    return world


def starting(world: World, state: State) -> None:
    fresh = Nova(state)
    world.nova.becomes(state)
    world.nova._coming = fresh._coming


@pytest.mark.parametrize("start", STARTS)
def test_from_every_state_it_comes_up_for_a_lease(world: World, start: str) -> None:
    starting(world, STARTS[start])
    lease = world.take()
    world.passes(20)
    assert world.nova.state == ACTIVE
    assert world.keeper.leases.may_work(lease)
    asked = list(world.nova.log)
    world.passes(3)
    assert world.nova.log == asked, "what is up is left alone"


@pytest.mark.parametrize("start", STARTS)
def test_from_every_state_it_is_shelved_when_nobody_needs_it(world: World, start: str) -> None:
    starting(world, STARTS[start])
    world.passes(60, wakes=False)
    assert world.nova.state == OFFLOADED or (start == "SHELVED" and world.nova.state == STARTS[start])
    asked = list(world.nova.requests)
    world.passes(3, wakes=False)
    assert not [path for method, path in world.nova.requests[len(asked) :] if method == "POST"], "what is shelved is left alone"
    assert all(waking.down for waking in world.keeper.leases.wakings())


@pytest.mark.parametrize("start", HOPELESS)
def test_what_no_step_leads_out_of_is_told_and_left_alone(world: World, start: str) -> None:
    starting(world, HOPELESS[start])
    lease = world.take()
    made = world.passes(3)
    assert made.decision.hopeless and made.decision.tell
    with pytest.raises(PersonNeeded):
        world.keeper.drive("up", lease=lease)
    seen = world.keeper.leases.seen()
    assert seen and seen.tell == made.decision.tell
    assert not [method for method, path in world.nova.requests if method == "POST" and "servers" in path]


def test_a_locked_server_is_told_of_and_left_alone(world: World) -> None:
    world.nova.place.locked = True
    made = world.passes(20, wakes=False)
    assert "unlock" in made.decision.tell and not world.nova.actions


def test_it_is_shelved_after_15_idle_minutes_and_no_sooner(world: World) -> None:
    lease = world.take()
    world.passes(3)
    world.keeper.leases.give_back(lease)
    ended = world.now()
    world.passes(14)
    assert not world.nova.actions
    world.passes(10)
    (shelved,) = [entry.at for entry in world.nova.log if entry.what == "shelve"]
    assert GRACE <= shelved - ended <= GRACE + 120


def test_a_lease_that_comes_while_it_is_shelved_wakes_it_again(world: World) -> None:
    while not world.nova.state.task:
        world.passes(1)
    lease = world.take()
    assert not world.keeper.leases.may_work(lease)
    world.passes(15)
    assert world.nova.actions == ["shelve", "unshelve"] and world.keeper.leases.may_work(lease)


def test_who_cleans_up_after_others_wakes_nothing(world: World) -> None:
    world.nova.becomes(OFFLOADED)
    world.take()
    world.passes(5, wakes=False)
    assert not world.nova.actions


@pytest.mark.parametrize(("shows_details", "said"), [(True, "No valid host was found"), (False, "no host has room")])
def test_no_capacity_is_tried_again_with_back_off_and_said(world: World, shows_details: bool, said: str) -> None:
    world.nova.becomes(OFFLOADED)
    world.nova.place.capacity, world.nova.place.shows_details = False, shows_details
    lease = world.take()
    made = world.passes(40, seconds=30)  # 20 minutes
    assert 4 <= len(world.nova.actions) <= 6
    assert said in made.decision.tell
    with pytest.raises(ServerNotReady, match=said):
        world.keeper.drive("up", lease=lease, within=0)
    world.nova.place.capacity = True
    world.passes(12, seconds=120)
    assert world.nova.state == ACTIVE
    assert [bool(waking.failed) for waking in world.keeper.leases.wakings()][-1:] == [False]


def test_after_a_snapshot_that_failed_it_is_shelved_again_or_woken(world: World) -> None:
    world.nova.place.snapshots_work = False
    made = world.passes(40, wakes=False)
    assert world.nova.actions.count("shelve") >= 3 and not made.decision.settled
    world.nova.place.snapshots_work = True
    world.passes(40, wakes=False)
    assert world.nova.state == OFFLOADED


def test_after_a_snapshot_that_failed_the_guest_is_off_whatever_nova_shows(world: World) -> None:
    world.nova.place.snapshots_work = False
    world.keeper.leases.order("down", "anna")
    while world.make_pass(wakes=False).decision.step is not None or world.nova.state != ACTIVE:
        pass
    lease = world.take()
    world.make_pass()
    assert not world.keeper.leases.may_work(lease)
    world.passes(3)
    assert world.nova.actions == ["shelve", "reboot"] and world.keeper.leases.may_work(lease)


def test_where_only_nova_may_offload_it_is_asked_once(world: World) -> None:
    world.nova.place.offloads_at_once = False
    world.passes(40, wakes=False)
    assert world.nova.state == State("shelved")
    asked = [path for method, path in world.nova.requests if method == "POST" and path.endswith("/action")]
    assert len(asked) == 2  # shelve, and offload
    lease = world.take()
    world.passes(6)
    assert world.keeper.leases.may_work(lease)


@pytest.mark.parametrize("fault", ["503", "500 but done", "dropped", "reply lost", "expired", "not Nova"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("towards", ["up", "down"])
def test_a_fault_is_lived_through_and_nothing_is_done_twice(world: World, towards: str, method: str, fault: Any) -> None:
    if towards == "up":
        world.nova.becomes(OFFLOADED)
        world.take()
    else:
        world.keeper.leases.order("down", "anna")
    carried_out = fault in ("500 but done", "reply lost") and method == "POST"
    world.nova.faults = [(method, fault)] * (1 if carried_out else 2)
    for _ in range(20):
        try:
            world.make_pass(wakes=towards == "up")
        except CloudDown:
            assert method == "GET"
        world.later(60)
    assert world.nova.faults == []
    assert world.nova.state == (ACTIVE if towards == "up" else OFFLOADED)
    assert world.nova.actions == (["unshelve"] if towards == "up" else ["shelve"])


def test_a_look_is_asked_again_at_once(world: World) -> None:
    keeper = world.another_keeper(retries=2)
    world.nova.faults = [("GET", "503"), ("GET", "dropped")]
    assert keeper.server.look().status == "ACTIVE"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_cloud_that_says_nothing_is_given_up_on(world: World, method: str) -> None:
    keeper = world.another_keeper(timeout=1.0)
    world.keeper.leases.order("down", "anna")
    keeper.server.look()
    world.nova.faults = [(method, "silent")]
    if method == "GET":
        with pytest.raises(CloudDown):
            keeper.make_pass(wakes=False)
    else:
        made = keeper.make_pass(wakes=False)
        assert made and made.outcome == "unknown"
    assert world.nova.actions == []


def test_wrong_credentials_are_a_setting_to_mend(world: World) -> None:
    with pytest.raises(BadSetting, match="doesn't let us in"):
        world.another_keeper(application_credential_secret="wrong").make_pass(wakes=False)


def test_a_shelve_that_arrives_late_takes_it_from_nobody_who_works(world: World) -> None:
    world.keeper.leases.order("down", "anna")
    world.nova.faults = [("POST", "late")]
    assert world.make_pass(wakes=False).outcome == "unknown"
    lease = world.take()
    for _ in range(5):
        world.make_pass()
        assert not world.keeper.leases.may_work(lease)
        world.later(20)
    world.nova.arrive()
    world.passes(20, seconds=30)
    assert world.nova.actions == ["shelve", "unshelve"] and world.keeper.leases.may_work(lease)


def test_a_shelve_that_never_arrives_delays_work_for_two_minutes(world: World) -> None:
    world.keeper.leases.order("down", "anna")
    world.nova.faults = [("POST", "dropped")]
    world.make_pass(wakes=False)
    lease = world.take()
    world.passes(2)
    assert not world.keeper.leases.may_work(lease)
    world.later(MAY_STILL_COME)
    world.make_pass()
    assert world.keeper.leases.may_work(lease)


def test_the_server_that_was_deleted_ends_its_waking(world: World) -> None:
    world.make_pass()
    world.nova.becomes(HOPELESS["deleted"])
    world.make_pass()
    (waking,) = world.keeper.leases.wakings()
    assert waking.down is not None


def test_a_person_forbids_it_and_who_works_may_finish(world: World) -> None:
    lease = world.take(seconds=300)
    world.passes(2)
    world.keeper.leases.order("forbid", "anna")
    world.passes(2)
    assert not world.nova.actions
    with pytest.raises(NoLease):
        world.keeper.leases.renew(lease)
    world.passes(10)
    assert world.nova.state == OFFLOADED
    with pytest.raises(NoLease):
        world.take()
    with pytest.raises(NoLease):
        world.keeper.drive("up")


@pytest.mark.parametrize("limit", [{"hours_a_day": 2.0}, {"cost_a_day": 4.0}])
def test_over_a_limit_of_the_day_it_goes_down_after_the_last_lease(world: World, limit: dict[str, float]) -> None:
    world.keeper = world.another_keeper(**limit)
    world.keeper.leases.order("up", "anna")
    lease = world.take(seconds=300)
    began = world.now()
    while world.now() - began < 3 * 3600:
        world.make_pass()
        world.later(60)
        try:
            lease = world.keeper.leases.renew(lease)
        except NoLease:
            continue
    (shelved,) = [entry.at for entry in world.nova.log if entry.what == "shelve"]
    assert 2 * 3600 <= shelved - began <= 2 * 3600 + 300 + 120
    assert world.nova.state == OFFLOADED


def test_driven_up_and_down(world: World) -> None:
    world.nova.becomes(OFFLOADED)
    lease = world.take()
    seen: list[str] = []
    world.keeper.drive("up", lease=lease, watch=lambda made: seen.append(str(made.look)))
    assert seen[0] == "SHELVED_OFFLOADED" and seen[-1] == "ACTIVE"
    assert world.keeper.drive("down").wanted.state == "up", "somebody needs it"
    world.keeper.leases.give_back(lease)
    world.keeper.leases.order("down", "anna")
    assert world.keeper.drive("down").look.is_down


def test_a_drive_goes_on_after_faults(world: World) -> None:
    world.nova.becomes(OFFLOADED)
    lease = world.take()
    world.nova.faults = [("GET", "503"), ("GET", "not Nova"), ("GET", "dropped"), ("POST", "reply lost"), ("GET", "reply lost")]
    world.keeper.drive("up", lease=lease)
    assert world.nova.actions == ["unshelve"]


def test_two_keepers_at_once_ask_once(world: World) -> None:
    world.keeper.leases.order("down", "anna")
    made: list[Pass | None] = []
    start = threading.Barrier(6)

    def race(keeper: Keeper) -> None:
        start.wait()
        for _ in range(5):
            made.append(keeper.make_pass(wakes=False))

    threads = [threading.Thread(target=race, args=(world.another_keeper(),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 30 and any(made)
    assert world.nova.actions == ["shelve"]
    posts = [path for method, path in world.nova.requests if method == "POST" and path.endswith("/action")]
    assert len(posts) == 1


@pytest.mark.parametrize("fault", ["reply lost", "silent"])
def test_a_keeper_killed_while_it_asks_leaves_nothing_in_the_way(world: World, fault: Any) -> None:
    """Whether the request was carried out or not."""
    world.keeper.leases.order("down", "anna")
    world.nova.faults = [("POST", "silent")]
    if fault == "reply lost":  # it was, and the asker died before it heard
        world.nova.faults = []
    settings = {**world.nova.settings, "database": world.database, "retries": 0, "timeout": 600.0}
    program = (
        "import os, signal\nfrom blocks.gpu_server import GpuServer\nfrom blocks.keeper import Keeper\nimport blocks.leases\n"
        "blocks.leases.Locked.answered = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"Keeper(GpuServer(**{settings!r})).make_pass(wakes=False)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as killed:
        if fault == "silent":
            assert world.nova.handled.wait(600)
            killed.send_signal(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
    assert [(one.step, one.outcome) for one in world.keeper.leases.facts().tried] == [("shelve", None)]
    lease = world.take()
    while (made := world.keeper.make_pass(wakes=True)) is None:  # until the database has noticed
        time.sleep(0.05)
    assert not world.keeper.leases.may_work(lease)
    world.passes(15)
    assert world.keeper.leases.may_work(lease)
    assert world.nova.actions == ([] if fault == "silent" else ["shelve", "unshelve"]), made


def test_a_pass_whose_lock_is_lost_asks_for_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.keeper.leases.order("down", "anna")
    look = GpuServer.look

    def cut(server: GpuServer) -> Any:
        with psycopg.connect(world.database) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        return look(server)

    monkeypatch.setattr(GpuServer, "look", cut)
    with pytest.raises(LeasesDown):
        world.make_pass(wakes=False)
    assert world.nova.actions == []


def test_a_pass_that_stood_still_asks_for_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.keeper.leases.order("down", "anna")
    monkeypatch.setattr("blocks.keeper.LATEST", 0.0)
    with pytest.raises(LeasesDown, match="stood still"):
        world.make_pass(wakes=False)
    assert world.nova.actions == []
    assert [one.outcome for one in world.keeper.leases.facts().tried] == ["refused"]


# Anything at any time, and what must hold whatever happens.

FAULTS: list[Any] = ["503", "500 but done", "dropped", "reply lost", "late", "expired", "not Nova"]


def chaos(world: World, seed: int, moments: int) -> int:
    """Lessons come and go, persons order, requests fail and arrive late, two keepers make passes. Returns how many passes were made."""
    chance = random.Random(seed)
    keepers = [world.keeper, world.another_keeper()]
    working: dict[str, Lease] = {}
    waiting: dict[str, Lease] = {}
    worked: list[tuple[float, float]] = []
    since: dict[str, float] = {}
    late: list[float] = []
    passes = 0

    def stops(owner: str) -> None:
        worked.append((since.pop(owner), world.now()))
        del working[owner]

    for moment in range(moments):
        event = chance.random()
        if event < 0.15 and len(waiting) + len(working) < 3:
            owner = f"lesson {moment}"
            with suppress(NoLease):
                waiting[owner] = world.take(owner, 300)
        elif event < 0.25 and working:
            owner = chance.choice(sorted(working))
            world.keeper.leases.give_back(working[owner])
            stops(owner)
        elif event < 0.28 and working:  # killed: its work ends, its lease stays
            stops(chance.choice(sorted(working)))
        elif event < 0.36:
            kind: Any = chance.choice(["up", "down", "forbid", "lift", "lift"])
            with suppress(NoLease):
                world.keeper.leases.order(kind, "anna", hours=chance.choice([0.1, 0.5]))
        elif event < 0.55:
            world.nova.faults.append((chance.choice(["GET", "POST"]), chance.choice(FAULTS)))
            world.nova.faults = world.nova.faults[-2:]
        elif event < 0.60:
            world.nova.place.capacity = chance.random() < 0.6
            world.nova.place.snapshots_work = chance.random() < 0.7
        elif event < 0.62 and not working:
            starting(world, STARTS[chance.choice(sorted(STARTS))])
        if world.nova._late and not late:
            late.append(world.now())
        if late and (world.now() - late[0] > 60 or chance.random() < 0.2):
            world.nova.arrive()
            late.clear()
        try:
            made = chance.choice(keepers).make_pass(wakes=bool(waiting) or chance.random() < 0.3)
            passes += made is not None
        except CloudDown:
            pass
        for owner, lease in list(waiting.items()):
            if world.keeper.leases.may_work(lease):
                working[owner] = waiting.pop(owner)
                since[owner] = world.now()
        world.later(chance.choice([5.0, 10.0, 30.0]))
        for group in (waiting, working):
            for owner, lease in list(group.items()):
                try:
                    group[owner] = world.keeper.leases.renew(lease)
                except NoLease:
                    if group is working:
                        stops(owner)
                    else:
                        del group[owner]
    for owner in list(working):
        stops(owner)
    world.nova.arrive()
    assert not shelved_under(worked, world.nova.log), seed
    return passes


def shelved_under(worked: list[tuple[float, float]], log: list[Entry]) -> list[Entry]:
    """What took the server down while somebody worked."""
    down = [entry for entry in log if entry.what in ("shelve", "os-stop", "reboot")]
    return [entry for entry in down if any(start < entry.at < end for start, end in worked)]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_nobody_is_shelved_under_and_it_is_shelved_in_the_end(world: World, seed: int) -> None:
    assert chaos(world, seed, moments=120) > 60
    world.nova.faults.clear()
    world.nova.place.capacity = world.nova.place.snapshots_work = True
    world.keeper.leases.order("lift", "anna")
    ended = world.now()
    shelved = (OFFLOADED, State("shelved"))  # the last is Nova's own to offload
    while world.nova.state not in shelved and world.now() - ended < 4 * 3600:
        world.make_pass(wakes=False)
        world.later(60)
    # The last lease ends after 5 minutes, then the grace; a step that had failed is tried again after a quarter of an hour at most.
    assert world.now() - ended <= 300 + GRACE + 900 + 10 * 60
    world.passes(4, wakes=False)  # an unshelve without an answer counts for two minutes
    assert all(waking.down for waking in world.keeper.leases.wakings())


def test_the_check_of_chaos_can_fail() -> None:
    assert shelved_under([(1.0, 5.0)], [Entry(3.0, "shelve")]) and not shelved_under([(1.0, 5.0)], [Entry(6.0, "shelve")])
