"""The keeper on a real Nova, where the lab with one was lent with the checkout: every state it may meet, every fault, and races.

What happened is read from Nova's own log of actions.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from blocks.gpu_server import GpuServer
from blocks.keeper import Keeper, Pass
from dubbing.errors import CloudDown, NoLease, PersonNeeded, ServerNotReady
from dubbing.power import MANY_TRIES, MAY_STILL_COME, STUCK_AFTER, Lease, Outcome, Step
from tests import keepers
from tests.nova_lab import Lab
from tests.postgres import let_pass


class World:
    """A server of the lab that is up, and its leases."""

    def __init__(self, lab: Lab, database: str) -> None:
        self.lab, self.database = lab, database
        self.settings: dict[str, Any] = {"database": database, "poll": 0.2, "price_per_hour": 3.0}
        lab.begins()
        self.follow()

    def follow(self) -> None:
        """Keep the server that the lab has now."""
        self.settings |= self.lab.settings
        self.keeper = Keeper(GpuServer(**self.settings))
        self.keeper.leases.facts()  # the tables
        self._before = len(self.lab.actions(self.keeper.server))

    @property
    def actions(self) -> list[str]:
        """That Nova took from the keepers."""
        return self.lab.actions(self.keeper.server)[self._before :]

    def take(self, owner: str = "lesson 1", seconds: float = 3600) -> Lease:
        return self.keeper.leases.take(owner, "dub", seconds)

    def wanted_otherwise(self, towards: Any) -> Lease | None:
        """It is down and a lesson needs it, or it is up and a person has it shelved. Returns the lesson's lease."""
        if towards == "up":
            self.admin("shelve_server")
            return self.take()
        self.keeper.leases.order("down", "anna")
        return None

    def admin(self, action: str, *arguments: Any) -> None:
        """Done by the cloud's administrator."""
        self.admin_begins(action, *arguments)
        self.lab.settles()

    def admin_begins(self, action: str, *arguments: Any) -> None:
        getattr(self.lab.admin.compute, action)(self.lab.server_id, *arguments)

    def for_a_while(self, knob: str, seconds: float = 3.0) -> None:
        """Whatever the knob is for takes so long, and longer where a look is slow: there are several passes meanwhile."""
        began = time.monotonic()
        self.lab.look()
        self.lab.set(**{knob: max(seconds, 4 * seconds * (time.monotonic() - began))})

    def make_pass(self, wakes: bool = True) -> Pass:
        while (made := self.keeper.make_pass(wakes)) is None:  # one that was killed had the lock
            time.sleep(0.05)
        return made

    def passes_until(self, reached: Callable[[Pass], object], wakes: bool = True, seconds: float = 0.0) -> Pass:
        """Passes, with so much time for leases and back-off between."""
        made: list[Pass] = []

        def once() -> object:
            made.append(self.make_pass(wakes))
            self.later(seconds)
            return reached(made[-1])

        self.lab.wait(once)
        return made[-1]

    def later(self, seconds: float) -> None:
        let_pass(self.database, seconds)


@pytest.fixture
def world(lab: Lab, database: str) -> Iterator[World]:
    made = World(lab, database)
    yield made
    made.keeper.server.close()


def test_it_is_woken_for_a_lease_and_shelved_when_idle(world: World) -> None:
    leases = world.keeper.leases
    lease = world.take()
    world.keeper.drive("up", lease=lease)
    leases.give_back(lease)
    world.make_pass(wakes=False)
    assert world.actions == [], "the grace isn't over"
    world.later(16 * 60)
    assert world.keeper.drive("down").look.status == "SHELVED_OFFLOADED"
    lease = world.take("lesson 2")
    world.keeper.drive("up", lease=lease)
    assert world.actions == ["shelve", "unshelve"]
    leases.give_back(lease)
    leases.order("down", "anna")
    world.keeper.drive("down")
    assert world.actions == ["shelve", "unshelve", "shelve"]
    assert [bool(waking.up and waking.down) for waking in leases.wakings()] == [True, True]


def test_a_pass_asks_twice_at_most(world: World) -> None:
    """One look and one step, after a token that is good for many."""
    world.make_pass(wakes=False)
    world.keeper.leases.order("down", "anna")
    with keepers.counted() as sent:
        passes: list[Pass] = []
        world.keeper.drive("down", watch=passes.append)
        world.keeper.drive("up", lease=world.take(), watch=passes.append)
    assert sent == {"look": len(passes), "step": 2}


# Start states.


class Start(NamedTuple):
    put: Callable[[World], None]
    up: list[str]  # what is done on the way up, and down
    down: list[str]


def _guest_off(world: World) -> None:
    world.admin("stop_server")
    world.admin("reset_server_state", "active")


def _building(world: World) -> None:
    world.for_a_while("spawn_s", seconds=20)  # to get a credential for it takes a while
    world.lab.replace_server()
    world.follow()


def _busy(action: str, knob: str) -> Callable[[World], None]:
    def put(world: World) -> None:
        world.for_a_while(knob)
        world.admin_begins(action)

    return put


def _unshelving(world: World) -> None:
    world.admin("shelve_server")
    _busy("unshelve_server", "spawn_s")(world)


STARTS = {
    "ACTIVE": Start(lambda world: None, [], ["shelve"]),
    "ACTIVE, guest off": Start(_guest_off, ["reboot"], ["shelve"]),
    "SHUTOFF": Start(lambda world: world.admin("stop_server"), ["start"], ["shelve"]),
    "PAUSED": Start(lambda world: world.admin("pause_server"), ["unpause"], ["shelve"]),
    "SUSPENDED": Start(lambda world: world.admin("suspend_server"), ["resume"], ["shelve"]),
    "RESCUE": Start(lambda world: world.admin("rescue_server"), ["unrescue"], ["unrescue", "shelve"]),
    "SHELVED_OFFLOADED": Start(lambda world: world.admin("shelve_server"), ["unshelve"], []),
    "ERROR with a host": Start(lambda world: world.admin("reset_server_state", "error"), ["stop", "start"], ["stop", "shelve"]),
    "BUILD": Start(_building, [], ["shelve"]),
    "powering off": Start(_busy("stop_server", "power_off_s"), ["start"], ["shelve"]),
    "shelving": Start(_busy("shelve_server", "upload_s"), ["unshelve"], []),
    "unshelving": Start(_unshelving, [], ["shelve"]),
}
BUSY = ("BUILD", "powering off", "shelving", "unshelving")


@pytest.mark.parametrize("towards", ["up", "down"])
@pytest.mark.parametrize("name", STARTS)
def test_from_every_state_it_is_driven_up_and_down(world: World, name: str, towards: Any) -> None:
    start = STARTS[name]
    start.put(world)
    passes: list[Pass] = []
    if towards == "up":
        lease = world.take()
        world.keeper.drive("up", lease=lease, watch=passes.append)
        assert world.keeper.leases.may_work(lease) and world.lab.look().is_up
    else:
        world.keeper.leases.order("down", "anna")
        assert world.keeper.drive("down", watch=passes.append).look.status == "SHELVED_OFFLOADED"
        assert all(waking.down for waking in world.keeper.leases.wakings())
    assert world.actions == getattr(start, towards)
    if name in BUSY:
        assert passes[0].decision.why.endswith("wait")


@pytest.mark.parametrize("towards", ["up", "down"])
def test_a_locked_server_is_told_of_and_left_alone_until_it_is_unlocked(world: World, towards: Any) -> None:
    lease = world.wanted_otherwise(towards)
    world.admin("lock_server")
    with pytest.raises(PersonNeeded, match="unlock"):
        world.keeper.drive(towards, lease=lease)
    assert world.actions == []
    world.admin("unlock_server")
    world.keeper.drive(towards, lease=lease)
    assert world.actions == ["unshelve" if towards == "up" else "shelve"]


@pytest.mark.parametrize("towards", ["up", "down"])
def test_of_an_error_without_a_host_a_person_is_told(world: World, towards: Any) -> None:
    world.lab.set(fail_spawn=1)
    world.lab.replace_server()
    world.lab.settles()
    world.follow()
    assert world.lab.look().status == "ERROR"
    lease = world.take() if towards == "up" else None
    if lease is None:
        world.keeper.leases.order("down", "anna")
    with pytest.raises(PersonNeeded, match=r"ERROR \(.*\) without a host"):
        world.keeper.drive(towards, lease=lease)
    seen = world.keeper.leases.seen()
    assert seen and "only the provider" in seen.tell
    assert world.actions == []


def test_a_server_that_was_deleted_ends_its_waking_and_is_told_of(world: World) -> None:
    lease = world.take()
    world.keeper.drive("up", lease=lease)
    world.lab.clear()
    with pytest.raises(PersonNeeded, match="no such server"):
        world.keeper.drive("up", lease=lease)
    assert not world.keeper.leases.may_work(lease)
    (waking,) = world.keeper.leases.wakings()
    assert waking.down
    assert world.keeper.drive("down").look.is_down


def test_what_hangs_is_told_after_half_an_hour(world: World) -> None:
    world.admin("shelve_server")
    world.for_a_while("spawn_s")
    world.take()
    world.make_pass()
    assert world.passes_until(lambda made: made.look.task_state == "spawning").decision.tell == ""
    world.make_pass()
    world.later(STUCK_AFTER + 60)
    made = world.make_pass()
    assert re.search(r"spawning for 3\d minutes", made.decision.tell) and not made.decision.hopeless
    assert world.actions == ["unshelve"]
    world.lab.settles()


# Faults.


@contextmanager
def when_it_asks(world: World, **knobs: float) -> Iterator[list[Step]]:
    """Faults that meet the next step."""
    asked: list[Step] = []
    ask = GpuServer.ask

    def faulty(server: GpuServer, step: Step) -> tuple[Outcome, str]:
        if not asked:
            world.lab.set(**knobs)
        asked.append(step)
        return ask(server, step)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(GpuServer, "ask", faulty)
        yield asked


@pytest.mark.parametrize("fault", ["http_503", "http_drop", "lose_reply"])
@pytest.mark.parametrize("towards", ["up", "down"])
def test_a_step_that_meets_a_fault_is_done_once(world: World, towards: Any, fault: str) -> None:
    lease = world.wanted_otherwise(towards)
    with when_it_asks(world, **{fault: 1}) as asked:
        made = world.make_pass()
        assert made.outcome == "unknown" and len(asked) == 1
        world.passes_until(lambda made: not made.look.task_state)
        world.later(60)  # over the back-off
        world.keeper.drive(towards, lease=lease)
    assert len(asked) == (1 if fault == "lose_reply" else 2)
    assert world.actions == (["unshelve"] if towards == "up" else ["shelve"])


@pytest.mark.parametrize("fault", ["http_503", "http_drop"])
def test_a_look_that_meets_a_fault_is_asked_again(world: World, fault: str) -> None:
    world.lab.set(**{fault: 2})
    assert world.keeper.server.look().is_up
    impatient = world.lab.server(retries=0)
    world.lab.set(**{fault: 1})
    with pytest.raises(CloudDown):
        impatient.look()
    assert impatient.look().is_up
    impatient.close()


def test_a_slow_cloud_is_waited_for(world: World) -> None:
    world.admin("shelve_server")
    world.lab.set(http_delay_s=1)
    world.keeper.drive("up", lease=world.take())
    assert world.actions == ["unshelve"]


def test_a_shelve_that_is_done_after_it_was_given_up_takes_it_from_nobody_who_works(world: World) -> None:
    world.keeper.leases.order("down", "anna")
    world.keeper.server.look()
    with when_it_asks(world, http_delay_s=6):
        world.keeper.server.timeout = 1.0
        assert world.make_pass(wakes=False).outcome == "unknown"
        world.keeper.server.timeout = 20.0
    world.lab.set(http_delay_s=0)
    lease = world.take()
    while not world.actions:
        world.make_pass()
        assert not world.keeper.leases.may_work(lease)
    world.keeper.drive("up", lease=lease)
    assert world.actions == ["shelve", "unshelve"]


def test_a_shelve_that_is_never_done_delays_work_for_two_minutes(world: World) -> None:
    world.keeper.leases.order("down", "anna")
    with when_it_asks(world, http_drop=1):
        world.make_pass(wakes=False)
    lease = world.take()
    world.make_pass()
    assert not world.keeper.leases.may_work(lease)
    world.later(MAY_STILL_COME)
    world.make_pass()
    assert world.keeper.leases.may_work(lease) and world.actions == []


@pytest.fixture
def place_taken(world: World) -> Iterator[Callable[[], None]]:
    """The server is shelved, and another has its place, until this is called."""
    world.admin("shelve_server")
    other = world.lab.create_server("takes its place")
    compute = world.lab.owner.compute

    def leave() -> None:
        compute.delete_server(other, ignore_missing=True)
        world.lab.wait(lambda: all(one.id != other.id for one in compute.servers()))

    world.lab.wait(lambda: compute.get_server(other.id).status == "ACTIVE")
    yield leave
    leave()


def test_no_capacity_is_tried_again_with_back_off_and_said(world: World, place_taken: Callable[[], None]) -> None:
    lease = world.take()
    world.make_pass()
    world.passes_until(lambda made: not made.look.task_state)
    with pytest.raises(ServerNotReady, match="no host has room for it"):
        world.keeper.drive("up", lease=lease, within=0)
    world.passes_until(lambda _: len(world.actions) >= MANY_TRIES, seconds=30)
    world.passes_until(lambda made: not made.look.task_state)
    made = world.make_pass()
    assert "no host has room for it" in made.decision.tell and "didn't help" in made.decision.tell
    assert world.actions == ["unshelve"] * MANY_TRIES, "the next try is minutes away"
    place_taken()
    world.passes_until(lambda _: world.keeper.leases.may_work(lease), seconds=60)
    assert set(world.actions) == {"unshelve"}
    wakings = world.keeper.leases.wakings()
    assert [bool(waking.failed) for waking in wakings] == [True] * (len(wakings) - 1) + [False]
    assert "no host has room for it" in wakings[0].failed


def test_a_spawn_that_fails_is_said_and_tried_again(world: World) -> None:
    world.admin("shelve_server")
    lease = world.take()
    world.lab.set(fail_spawn=1)
    world.make_pass()
    world.passes_until(lambda made: not made.look.task_state)
    with pytest.raises(ServerNotReady, match="its host could not start it"):
        world.keeper.drive("up", lease=lease, within=0)
    world.later(60)
    world.keeper.drive("up", lease=lease)
    assert world.actions == ["unshelve", "unshelve"]
    assert [bool(waking.failed) for waking in world.keeper.leases.wakings()] == [True, False]


@pytest.mark.parametrize("towards", ["up", "down"])
def test_after_a_snapshot_that_failed_it_is_shelved_again_or_woken(world: World, towards: Any) -> None:
    world.keeper.leases.order("down", "anna")
    world.lab.set(fail_snapshot=1)
    assert world.make_pass(wakes=False).outcome == "accepted"
    made = world.passes_until(lambda made: not made.look.task_state, wakes=False)
    assert world.lab.look().is_up and not made.look.is_up, "its guest is off, which Nova doesn't show yet"
    if towards == "up":
        world.keeper.drive("up", lease=world.take())
        assert world.actions == ["shelve", "reboot"]
    else:
        world.later(60)
        assert world.keeper.drive("down").look.is_down
        assert world.actions == ["shelve", "shelve"]


# Races.


def test_two_orchestrators_that_drive_at_once_ask_once(world: World) -> None:
    world.admin("shelve_server")
    driving = [keepers.start(keepers.take_and_drive_up, world.settings, f"lesson {number}") for number in (1, 2)]
    for process in driving:
        process.join()
        assert process.exitcode == 0
    assert world.actions == ["unshelve"]
    tried = [(one.step, one.outcome) for one in world.keeper.leases.facts().tried]
    assert tried == [("unshelve", "accepted")]


def test_a_run_that_takes_a_lease_just_when_the_reaper_comes_is_not_shelved_under(world: World, tmp_path: Path) -> None:
    """Again and again, at other moments of the reaper's pass."""
    reaper = keepers.start(keepers.keep, world.settings, False, tmp_path / "said")
    worked: list[tuple[float, float]] = []
    for number in range(6):
        world.keeper.leases.order("down", "anna")
        time.sleep(0.12 * number)
        lease = world.take(f"lesson {number}")
        world.keeper.drive("up", lease=lease)
        start = time.time()
        time.sleep(0.5)
        worked.append((start, time.time()))
        world.keeper.leases.give_back(lease)
    reaper.kill()
    reaper.join()
    down = [one.at for one in world.lab.log(world.keeper.server) if one.what == "shelve"]
    assert not [at for at in down for start, end in worked if start < at < end]
    world.passes_until(lambda made: not made.look.task_state, wakes=False)
    assert world.actions == [("shelve", "unshelve")[number % 2] for number in range(len(world.actions))]


@pytest.mark.parametrize("when", ["noted", "asked"])
@pytest.mark.parametrize("towards", ["up", "down"])
def test_a_keeper_that_is_killed_on_the_way_leaves_nothing_in_the_way(world: World, towards: Any, when: Any) -> None:
    """When it noted the step and didn't ask yet, and when it asked and hadn't heard or noted the answer."""
    step = "unshelve" if towards == "up" else "shelve"
    lease = world.wanted_otherwise(towards)
    killed = keepers.start(keepers.die, world.settings, towards == "up", when)
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert [(one.step, one.outcome) for one in world.keeper.leases.facts().tried] == [(step, None)]
    assert world.actions == ([step] if when == "asked" else [])
    world.passes_until(lambda made: not made.look.task_state)
    world.later(60)
    world.keeper.drive(towards, lease=lease)
    assert world.actions == [step]


def test_a_lease_that_expires_while_it_is_woken_is_no_work_and_the_server_is_shelved(world: World) -> None:
    world.admin("shelve_server")
    world.for_a_while("spawn_s")
    lease = world.take(seconds=300)
    world.make_pass()
    world.later(301)
    with pytest.raises(NoLease):
        world.keeper.drive("up", lease=lease)
    world.passes_until(lambda made: made.look.is_up, wakes=False)
    assert not world.keeper.leases.may_work(lease)
    with pytest.raises(NoLease):
        world.keeper.leases.renew(lease)
    world.passes_until(lambda made: made.look.is_down, wakes=False, seconds=60)
    assert world.actions == ["unshelve", "shelve"]


def test_when_a_person_forbids_it_who_works_may_finish(world: World) -> None:
    lease = world.take(seconds=300)
    world.keeper.drive("up", lease=lease)
    world.keeper.leases.order("forbid", "anna")
    world.make_pass()
    assert world.keeper.leases.may_work(lease) and world.actions == []
    with pytest.raises(NoLease):
        world.keeper.leases.renew(lease)
    with pytest.raises(NoLease):
        world.take("lesson 2")
    world.later(301)
    assert not world.keeper.leases.may_work(lease)
    assert world.keeper.drive("down").look.is_down
    assert world.actions == ["shelve"]
