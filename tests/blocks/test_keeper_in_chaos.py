"""Keepers, lessons, persons, a cloud and a database that fail at random moments, on a real Nova where the lab with one was lent.

Nova's own log of actions and the history of leases are what is checked.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from blocks.gpu_server import GpuServer
from blocks.keeper import Keeper, Pass
from dubbing.errors import NoLease
from dubbing.power import LONGEST_DELAY, Lease, Need, Tried, delay, shares
from tests import keepers
from tests.nova_lab import QUICK, Action, Lab
from tests.postgres import Postgres, let_pass

TOKEN = 150.0  # seconds; the SDK takes a new one 120 s before the old one's end
LAB = {"LAB_OFFLOAD_TIME": "6", "LAB_TOKEN_TTL": f"{TOKEN:.0f}"}  # the first: seconds that it stays SHELVED

SEEDS = [1]
MOMENTS = 200
SECONDS = 180.0  # after which no moment begins, unless there were few; about what they take where nobody else needs the machine
FEWEST = 40
GRACE = 60.0
LEASE = 300.0
LONGEST_STEP = 60.0  # seconds that pass at once
SLACK = 10 * LONGEST_STEP  # passes until it is seen, and until each of the states on the way is
STILL = 3.0  # seconds in which a request whose asker was killed arrives; MAY_STILL_COME is far longer than that, in the keepers' time too


@pytest.fixture
def server(lab: Lab, database: str) -> Iterator[GpuServer]:
    lab.begins()
    made = lab.server(database=database, poll=0.2, retry_delay=0.05, grace_minutes=GRACE / 60, price_per_hour=3.0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def of_old(lab: Lab) -> Iterator[tuple[GpuServer, float]]:
    """A client with a token from the beginning, and when that was."""
    made = lab.server()
    made.look()
    yield made, time.monotonic()
    made.close()


# Where Nova offloads by a timer of its own.


@pytest.mark.usefixtures("of_old")
def test_from_shelved_it_is_woken(lab: Lab, server: GpuServer) -> None:
    lab.admin.compute.shelve_server(lab.server_id)
    lab.settles()
    before = lab.actions(server)
    keeper = Keeper(server)
    lease = keeper.leases.take("lesson 1", "dub", 3600)
    keeper.drive("up", lease=lease)
    assert keeper.leases.may_work(lease)
    assert lab.actions(server) == [*before, "unshelve"]


def test_shelved_is_down_and_only_nova_offloads_it(lab: Lab, server: GpuServer) -> None:
    before = lab.actions(server)
    keeper = Keeper(server)
    keeper.leases.order("down", "anna")
    assert keeper.drive("down").look.is_down
    (waking,) = keeper.leases.wakings()
    assert waking.down
    made: list[Pass | None] = []

    def offloaded() -> bool:
        made.append(keeper.make_pass(wakes=False))
        return server.look().status == "SHELVED_OFFLOADED"

    lab.wait(offloaded)
    assert lab.actions(server) == [*before, "shelve"]
    steps = [(one.step, one.outcome) for one in keeper.leases.facts().tried]
    assert steps in ([("shelve", "accepted")], [("shelve", "accepted"), ("offload", "forbidden")])


# What must hold, whatever happened. Times are seconds.


class Span(NamedTuple):
    start: float
    end: float


def shelved_under(worked: Sequence[Span], actions: Sequence[Action]) -> list[Action]:
    """What took the server down while somebody worked."""
    down = [one for one in actions if one.what in ("shelve", "stop", "reboot", "shelveOffload")]
    return [one for one in down if any(start < one.at < end for start, end in worked)]


def without_note(actions: Sequence[Action], noted: Sequence[tuple[str, float]]) -> list[Action]:
    """What Nova did that no pass had noted before it: each note is good for one."""
    left = list(noted)
    result = []
    for action in actions:
        notes = [note for note in left if note[0] == action.what and note[1] <= action.at]
        if notes:
            left.remove(notes[-1])
        else:
            result.append(action)
    return result


def idle(needed: Sequence[Span], up: Sequence[Span]) -> list[Span]:
    """When it was up and nobody needed it."""
    result = []
    for start, end in up:
        for span in sorted(needed):
            if start < span.start:
                result.append(Span(start, min(end, span.start)))
            start = max(start, span.end)
        result.append(Span(start, end))
    return [span for span in result if span.start < span.end]


def up_by(actions: Sequence[Action], start: float, end: float) -> list[Span]:
    """When it was up by Nova's own log: from an unshelve that was taken until a shelve that was done."""
    result: list[Span] = []
    since: float | None = start
    for action in actions:
        if action.what == "shelve" and not action.failed and since is not None:
            result.append(Span(since, action.at))
            since = None
        elif action.what == "unshelve" and not action.failed and since is None:
            since = action.at
    return [*result, Span(since, end)] if since is not None else result


def test_the_checks_of_chaos_can_fail() -> None:
    shelve, unshelve = Action("shelve", 10.0, "us"), Action("unshelve", 20.0, "us")
    assert shelved_under([Span(5, 15)], [shelve]) == [shelve]
    assert not shelved_under([Span(5, 9), Span(11, 15)], [shelve, unshelve])
    assert without_note([shelve, shelve], [("shelve", 9.0)]) == [shelve]
    assert without_note([shelve], [("shelve", 11.0), ("unshelve", 5.0)]) == [shelve]
    assert not without_note([shelve, unshelve], [("unshelve", 5.0), ("shelve", 5.0)])
    assert up_by([shelve, unshelve], 0.0, 30.0) == [Span(0, 10), Span(20, 30)]
    assert up_by([shelve._replace(failed=True)], 0.0, 30.0) == [Span(0, 30)]
    assert idle([Span(2, 4), Span(3, 6)], [Span(0, 10)]) == [Span(0, 2), Span(6, 10)]


# Anything at any moment.


@dataclass
class Lesson:
    lease: Lease
    since: float | None = None  # when it began to work


class Chaos:
    def __init__(self, lab: Lab, server: GpuServer, postgres: Postgres, seed: int, folder: Path) -> None:
        self.lab, self.server, self.postgres, self.folder = lab, server, postgres, folder
        self.leases = server.leases()
        self.chance = random.Random(seed)
        self.settings = {**lab.settings, "database": postgres.address, "retry_delay": 0.05, "grace_minutes": GRACE / 60}
        self.lessons: dict[str, Lesson] = {}
        self.worked: list[Span] = []
        self.jumps: list[tuple[float, float]] = []  # when the keepers' time went on, and by how much
        self.happened: Counter[str] = Counter()
        self.still_until = 0.0
        self._reports: list[Path] = []
        self._keepers: list[tuple[BaseProcess, bool]] = []

    # Moments.

    def lesson_begins(self) -> None:
        if len(self.lessons) < 3:
            name = f"lesson {self.happened.total()}"
            with suppress(NoLease):
                self.lessons[name] = Lesson(self.leases.take(name, "dub", LEASE))

    def lesson_ends(self) -> None:
        if name := self._any_lesson():
            self._stops(name, time.time())
            self.leases.give_back(self.lessons.pop(name).lease)

    def lesson_is_killed(self) -> None:
        if name := self._any_lesson():  # its lease stays until it expires
            self._stops(name, time.time())
            del self.lessons[name]

    def person_orders(self) -> None:
        kind: Any = self.chance.choice(["up", "down", "down", "forbid", "lift", "lift"])
        hours = self.chance.choice([0.05, 0.2])
        with suppress(NoLease):
            self.leases.order(kind, "anna", hours=hours)

    def person_changes_the_server(self) -> None:
        from keystoneauth1.exceptions import ClientException
        from openstack.exceptions import SDKException

        action = self.chance.choice(["stop_server", "pause_server", "suspend_server"])
        if not self.lessons:
            with suppress(SDKException, ClientException):  # it is shelved, busy, or the cloud fails
                getattr(self.lab.admin.compute, action)(self.lab.server_id)

    def cloud_fails(self) -> None:
        self.lab.set(**{self.chance.choice(["http_503", "http_drop", "lose_reply"]): self.chance.choice([1, 2, 5])})

    def cloud_is_slow(self) -> None:
        self.lab.set(http_delay_s=self.chance.choice([0.0, 0.0, 0.1, 0.3]))

    def hypervisor_fails(self) -> None:
        self.lab.set(**{self.chance.choice(["fail_spawn", "fail_snapshot"]): 1})

    def keeper_is_killed(self) -> None:
        number = self.chance.randrange(len(self._keepers))
        process, wakes = self._keepers[number]
        process.kill()
        process.join()
        self.still_until = time.monotonic() + STILL
        self._keepers[number] = (self._keeper(wakes), wakes)

    def database_restarts(self) -> None:
        self.postgres.stop()
        self.postgres.start()
        self.still_until = time.monotonic() + STILL

    def nothing(self) -> None:
        pass

    def happens(self) -> None:
        moments: dict[Callable[[], None], int] = {
            **{self.lesson_begins: 9, self.lesson_ends: 14, self.lesson_is_killed: 3, self.person_orders: 5},
            **{self.person_changes_the_server: 5, self.cloud_fails: 12, self.cloud_is_slow: 4, self.hypervisor_fails: 6},
            **{self.keeper_is_killed: 6, self.database_restarts: 2, self.nothing: 34},
        }
        began = time.monotonic()
        while self.happened.total() < FEWEST or (self.happened.total() < MOMENTS and time.monotonic() - began < SECONDS):
            (moment,) = self.chance.choices(list(moments), list(moments.values()))
            moment()
            self.happened[moment.__name__] += 1
            for lesson in self.lessons.values():
                if lesson.since is None and self.leases.may_work(lesson.lease):
                    lesson.since = time.time()
            self.goes_on(self.chance.choice([5.0, 20.0, LONGEST_STEP]))

    def calms_down(self) -> None:
        """Nobody comes any more, and nothing fails: in the end it is down. Those that are left abandon their leases."""
        self.lab.set(**QUICK)
        self.leases.order("lift", "anna")
        for name in list(self.lessons):
            self._stops(name, time.time())
            del self.lessons[name]

        def down() -> bool:
            self.goes_on(LONGEST_STEP)
            seen = self.leases.seen()
            return bool(
                seen and seen.state.startswith("SHELVED") and "/" not in seen.state and all(one.down for one in self.leases.wakings())
            )

        self.lab.wait(down)

    def goes_on(self, seconds: float) -> None:
        """Time passes for leases and keepers, and who works renews its lease. No pass is cut in two by that, and one is made before."""
        before = time.time()
        asked = self.leases.facts().now
        until = time.monotonic() + 5
        while time.monotonic() < until and not ((seen := self.leases.seen()) and seen.seen > asked):
            time.sleep(0.05)
        if time.monotonic() < self.still_until:
            return
        while True:
            with self.leases.locked() as locked:
                if locked:
                    let_pass(self.postgres.address, seconds)
                    self.jumps.append((time.time(), seconds))
                    break
            time.sleep(0.01)
        for name, lesson in list(self.lessons.items()):
            try:
                lesson.lease = self.leases.renew(lesson.lease, LEASE)
            except NoLease:  # it may finish until its lease ends
                if self.leases.lease(lesson.lease.id).until <= self.leases.facts().now:
                    self._stops(name, before)
                    del self.lessons[name]

    def _any_lesson(self) -> str | None:
        return self.chance.choice(sorted(self.lessons)) if self.lessons else None

    def _stops(self, name: str, at: float) -> None:
        if (since := self.lessons[name].since) is not None:
            self.worked.append(Span(since, max(since, at)))

    # Keepers.

    @contextmanager
    def kept(self) -> Iterator[None]:
        """By two who drive up and one who only cleans up."""
        self._keepers = [(self._keeper(wakes), wakes) for wakes in (True, True, False)]
        try:
            yield
        finally:
            for process, _ in self._keepers:
                process.kill()
                process.join()

    def _keeper(self, wakes: bool) -> BaseProcess:
        self._reports.append(self.folder / str(len(self._reports)))
        return keepers.start(keepers.keep, self.settings, wakes, self._reports[-1])

    def passes(self) -> list[dict[str, Any]]:
        """What each asked. The one in which a keeper was killed is missing."""
        lines = [line for report in self._reports if report.exists() for line in report.read_text().splitlines(keepends=True)]
        said = [json.loads(line) for line in lines if line.endswith("\n")]
        return [one for one in said if one["said"] != "another has the lock"]

    def steps(self) -> list[Tried]:
        import psycopg

        with psycopg.connect(self.postgres.address) as connection:
            return [Tried(*row) for row in connection.execute("SELECT step, asked, outcome FROM coursedub.step ORDER BY id")]

    # Times of Nova, and of the database as it is now, on the keepers' clock.

    def by_nova(self, at: float) -> float:
        return at + sum(seconds for moment, seconds in self.jumps if moment <= at)

    def by_database(self, at: datetime) -> float:
        return at.timestamp() + sum(seconds for _, seconds in self.jumps)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_nobody_is_shelved_under_and_it_is_shelved_in_the_end(
    lab: Lab, server: GpuServer, postgres: Postgres, seed: int, tmp_path: Path
) -> None:
    began = time.time()
    before = len(lab.log(server))
    chaos = Chaos(lab, server, postgres, seed, tmp_path)
    with chaos.kept():
        chaos.happens()
        chaos.calms_down()
    log = lab.log(server)[before:]
    ours = [one for one in log if one.by == lab.owner.current_user_id]
    on_our_clock = [one._replace(at=chaos.by_nova(one.at)) for one in log]
    end = chaos.by_nova(time.time())
    steps = chaos.steps()
    needed = [Span(chaos.by_database(one.start), chaos.by_database(one.end)) for one in chaos.leases.needs()]
    wakings = chaos.leases.wakings()
    passes = chaos.passes()
    asked = {name: sum(one.get(name, 0) for one in passes) for name in ("look", "step", "token")}
    worked = sum(end - start for start, end in chaos.worked)
    print(f"seed {seed}: {chaos.happened.total()} moments in {time.time() - began:.0f} s ({dict(chaos.happened)}), {len(passes)} passes,")
    print(
        f"{asked} requests, {len(steps)} steps noted, {len(ours)} taken by Nova, {len(wakings)} wakings, {len(chaos.worked)} lessons worked"
    )

    assert not shelved_under(chaos.worked, ours)
    assert max(one.get("step", 0) for one in passes) == 1, "one step a pass at most"
    noted = [(one.step, chaos.by_database(one.asked)) for one in steps]
    assert not without_note([one._replace(at=chaos.by_nova(one.at)) for one in ours], noted)
    taken = Counter(one.what for one in ours)
    for step in {one.step for one in steps}:
        outcomes = Counter(one.outcome for one in steps if one.step == step)
        assert outcomes["accepted"] <= taken[step] <= outcomes["accepted"] + outcomes["unknown"] + outcomes[None], step

    up = up_by(on_our_clock, chaos.by_nova(began), end)
    assert up[-1].end < end, "it is down in the end"
    for span in idle(needed, up):
        failed = [one for one in steps if span.start - 2 * LONGEST_DELAY < chaos.by_database(one.asked) < span.end]
        limit = GRACE + SLACK + sum(delay(number) for number in range(1, len(failed)))
        assert span.end - span.start <= limit, (span, failed)

    recorded = [Span(chaos.by_database(one.asked), chaos.by_database(one.down)) for one in wakings if one.down]
    assert len(recorded) == len(wakings)
    assert all(before.end <= after.start for before, after in pairwise(recorded))
    for one in on_our_clock:
        if one.what == "unshelve":
            assert any(span.start <= one.at <= span.end for span in recorded), "what it cost is recorded"
    needs: list[Need] = chaos.leases.needs()
    for waking in wakings:
        assert waking.down
        parts = shares(waking.asked, waking.down, needs)
        assert sum(parts.values()) == pytest.approx((waking.down - waking.asked).total_seconds())
    assert worked > 0


def test_a_step_with_a_token_that_expired_is_done_once(
    lab: Lab, server: GpuServer, of_old: tuple[GpuServer, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nova says that it has expired where the clock here is behind; otherwise a new one is taken before."""
    from keystoneauth1.access.access import AccessInfo

    client, since = of_old
    time.sleep(max(0.0, since + TOKEN + 5 - time.monotonic()))
    monkeypatch.setattr(AccessInfo, "will_expire_soon", lambda *_, **__: False)
    before = lab.actions(server)
    with keepers.counted() as sent:
        assert client.ask("shelve") == ("accepted", "202")
    assert sent["step"] == 2 and sent["token"] == 1
    assert lab.actions(server) == [*before, "shelve"]
    lab.settles()
