"""When the GPU server is to be up, and the next step towards it: decisions alone, from facts that others have looked up.

The wanted state follows from leases (somebody works, or is about to), from a person's order, and from limits. Nova's states are as observed
on a real Nova: `task_state` says that something is under way, whatever the status says, so it is always read first; and a step is never
repeated before a look, since a reply may be lost and its request may still have been heard.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal, NamedTuple

WantedState = Literal["up", "keep", "down"]  # keep: neither woken nor shelved
OrderKind = Literal["up", "down", "forbid", "lift"]
Step = Literal["unshelve", "shelve", "offload", "start", "stop", "unpause", "resume", "unrescue", "reboot"]
Outcome = Literal["accepted", "refused", "forbidden", "unknown"]  # unknown: it got no answer, and may be done or still come

GRACE = 15 * 60.0  # seconds without work until it is shelved: waking takes minutes, so another lesson soon after shall find it up
FIRST_DELAY, LONGEST_DELAY = 30.0, 15 * 60.0  # seconds until the same step is tried again: twice as long each time
STUCK_AFTER = 30 * 60.0  # seconds in one state of transition: a snapshot of 100 GB took Nova 10 minutes
MAY_STILL_COME = 120.0  # seconds in which a request without an answer may yet be carried out: far over every time-out on its way
MANY_TRIES = 4  # after which a person hears of it
DAY = timedelta(days=1)

_TAKES_IT_DOWN = frozenset({"shelve", "stop", "reboot"})
_POWER = frozenset({"shelve", "unshelve", "start", "stop", "reboot"})  # steps that turn the guest on or off
_OFF = frozenset({"shutdown", "crashed"})


class Look(NamedTuple):
    """What Nova says of a server at one moment."""

    status: str  # ACTIVE, SHELVED_OFFLOADED, …; DELETED when there is no such server
    vm_state: str = ""  # active, stopped, …; told by the status where Nova shows none
    task_state: str = ""  # empty: nothing is under way
    power_state: str = ""  # running, paused, shutdown, crashed, suspended; empty: not known
    has_host: bool = True
    locked: bool = False
    fault: str = ""  # Nova's own words

    @property
    def state(self) -> str:
        """The state that steps are chosen by, in Nova's words for `vm_state`."""
        if self.status.upper() in ("DELETED", "SOFT_DELETED"):
            return "deleted"
        state = self.vm_state.lower() or _STATE_OF.get(self.status.upper(), self.status.lower())
        return "error" if self.status.upper() == "ERROR" else state

    @property
    def is_up(self) -> bool:
        """Its guest runs, as far as Nova knows, and nothing is under way. It proves nothing about what runs in the guest."""
        return self.state == "active" and not self.task_state and self.power_state not in _OFF

    @property
    def is_down(self) -> bool:
        """It costs nothing, or there is none."""
        return self.state == "deleted" or (self.state in ("shelved", "shelved_offloaded") and not self.task_state)

    def __str__(self) -> str:
        return f"{self.status}/{self.task_state}" if self.task_state else self.status


_STATE_OF = {
    "ACTIVE": "active",
    "SHUTOFF": "stopped",
    "PAUSED": "paused",
    "SUSPENDED": "suspended",
    "RESCUE": "rescued",
    "BUILD": "building",
    "SHELVED": "shelved",
    "SHELVED_OFFLOADED": "shelved_offloaded",
    "ERROR": "error",
    "REBOOT": "active",
    "HARD_REBOOT": "active",
}


class Lease(NamedTuple):
    """Somebody needs the server until `expires`, unless it is renewed."""

    id: str
    owner: str
    reason: str
    taken: datetime
    expires: datetime
    ended: datetime | None = None

    @property
    def until(self) -> datetime:
        """When it ended, or will."""
        return min(self.ended, self.expires) if self.ended else self.expires


class Order(NamedTuple):
    """What a person ordered. The newest counts.

    `up` keeps it up and `forbid` closes it; `down` has it shelved without waiting for more work, though a new lease may wake it again; each
    until a time, or for good. `lift` takes back the one before.
    """

    kind: OrderKind
    person: str
    reason: str
    given: datetime
    until: datetime | None = None

    def holds_at(self, now: datetime) -> bool:
        return self.kind != "lift" and (self.until is None or now < self.until)


class Tried(NamedTuple):
    """A step that was asked of Nova."""

    step: Step
    asked: datetime
    outcome: Outcome | None  # None: whoever asked was cut off before it could say


class Facts(NamedTuple):
    """What is known of a server at the moment `now`, which is the database's."""

    now: datetime
    leases: tuple[Lease, ...] = ()  # those that hold
    order: Order | None = None  # the newest
    needed_until: datetime | None = None  # when the last lease, or an order to keep it up, ended; None: there was none
    up_since: datetime | None = None  # since when it costs; None: it doesn't
    used: float = 0.0  # seconds that it cost in the last 24 hours
    cost: float = 0.0  # of these
    tried: tuple[Tried, ...] = ()  # in the last 24 hours, oldest first
    failed: str = ""  # why the last waking never came up
    reached: datetime | None = None  # when it was last as it was wanted
    state_since: datetime | None = None  # since when Nova shows the state that it shows


class Limits(NamedTuple):
    """What may not be exceeded in any 24 hours. None: no limit."""

    hours: float | None = None
    cost: float | None = None
    grace: float = GRACE  # seconds


NO_LIMITS = Limits()


def with_look(facts: Facts, look: Look) -> Facts:
    """The facts, where somebody else may have started the server: then it costs from now on, and is given as long as every other."""
    return facts if look.is_down or facts.up_since else facts._replace(up_since=facts.now)


def corrected(look: Look, facts: Facts) -> Look:
    """What Nova shows, but for the guest after a shelve whose snapshot failed: it is off, and shown as running until Nova's next comparison
    with its host, up to 10 minutes later."""
    asked = [one for one in facts.tried if one.step in _POWER and one.outcome not in ("refused", "forbidden")]
    newest = asked[-1] if asked else None
    if newest is None or newest.step != "shelve" or newest.outcome != "accepted" or look.state != "active" or look.task_state:
        return look
    seen_down_since = facts.up_since is None or facts.up_since > newest.asked
    return look if seen_down_since else look._replace(power_state="shutdown")


class Wanted(NamedTuple):
    state: WantedState
    why: str
    closed: str = ""  # why no lease is given or renewed; empty: they are


def wanted(facts: Facts, limits: Limits = NO_LIMITS) -> Wanted:
    """What the server is to be.

    A limit, or a person who forbids it, closes the server: leases are neither given nor renewed, and it goes down when the last has ended.
    So nobody who works is cut off without notice, and the time over a limit is that of one lease.
    """
    closed = closed_because(facts, limits)
    if facts.leases:
        owners = ", ".join(dict.fromkeys(lease.owner for lease in facts.leases))
        if closed:
            return Wanted("keep", f"{closed}; {owners} may finish until {_clock(max(lease.expires for lease in facts.leases))}", closed)
        return Wanted("up", f"needed by {owners}")
    if closed:
        return Wanted("down", closed, closed)
    order = facts.order
    if order and order.kind == "up" and order.holds_at(facts.now):
        return Wanted("up", f"{order.person} holds it up" + (f" until {_clock(order.until)}" if order.until else ""))
    idle_since = max((moment for moment in (facts.needed_until, facts.up_since) if moment), default=None)
    if idle_since is None:
        return Wanted("down", "nobody needs it")
    if order and order.kind == "down" and order.holds_at(facts.now) and order.given >= (facts.needed_until or order.given):
        return Wanted("down", f"{order.person} had it shelved")
    idle = (facts.now - idle_since).total_seconds()
    if idle < limits.grace:
        return Wanted("keep", f"idle for {idle:.0f} of {limits.grace:.0f} s")
    return Wanted("down", f"idle since {_clock(idle_since)}")


def closed_because(facts: Facts, limits: Limits) -> str:
    """Why nobody may use the server now; empty when they may."""
    order = facts.order
    if order and order.kind == "forbid" and order.holds_at(facts.now):
        until = f" until {_clock(order.until)}" if order.until else ""
        return f"forbidden by {order.person}{until}" + (f": {order.reason}" if order.reason else "")
    if limits.hours is not None and facts.used >= limits.hours * 3600:
        return f"it was up for {facts.used / 3600:.2f} hours of the last 24, the limit is {limits.hours:g}"
    if limits.cost is not None and facts.cost >= limits.cost:
        return f"it cost {facts.cost:.2f} in the last 24 hours, the limit is {limits.cost:g}"
    return ""


class Decision(NamedTuple):
    """What a pass does."""

    step: Step | None  # None: nothing
    why: str
    settled: bool = False  # it is as it is wanted
    tell: str = ""  # what a person must hear
    hopeless: bool = False  # nothing but that person helps


def decide(look: Look, state: WantedState, facts: Facts) -> Decision:
    """At most one step from what Nova shows towards what is wanted."""
    now = facts.now
    if look.state == "deleted":
        return Decision(
            None, "deleted", tell="the cloud has no such server: create it again and change its id in the settings", hopeless=True
        )
    if look.task_state or look.state == "building":
        waited = (now - facts.state_since).total_seconds() if facts.state_since else 0.0
        tell = f"it has been {look} for {waited / 60:.0f} minutes" if waited > STUCK_AFTER else ""
        return Decision(None, f"{look}: wait", tell=tell)
    step, why = _up(look) if state == "up" else _down(look)
    if state == "keep" and not why:
        return Decision(None, f"{look}: left as it is", settled=True)
    if state == "up" and look.is_up and (doubtful := _may_still_come(facts.tried, now)):
        return Decision(None, f"{look}: a {doubtful.step} without an answer may still be carried out: wait")
    if step is None:
        return Decision(None, f"{look}: {why or 'as it is wanted'}", settled=not why, tell=why, hopeless=bool(why))
    if look.locked:
        return Decision(None, f"{look}, locked", tell=f"the server is locked, so that nobody can {step} it: unlock it", hopeless=True)
    return _tried_again(look, step, facts)


def _up(look: Look) -> tuple[Step | None, str]:
    """Step, or what keeps from one."""
    if look.is_up:
        return None, ""
    steps: dict[str, Step] = {
        "active": "reboot",  # hard: its guest is off
        "stopped": "start",
        "paused": "unpause",
        "suspended": "resume",
        "shelved": "unshelve",
        "shelved_offloaded": "unshelve",
        "rescued": "unrescue",
    }
    return _step(look, steps)


def _down(look: Look) -> tuple[Step | None, str]:
    if look.state == "shelved_offloaded":
        return None, ""
    steps: dict[str, Step] = dict.fromkeys(("active", "stopped", "paused", "suspended"), "shelve")
    return _step(look, steps | {"shelved": "offload", "rescued": "unrescue"})


def _step(look: Look, steps: dict[str, Step]) -> tuple[Step | None, str]:
    if look.state == "error":
        # Only from SHUTOFF, where `stop` leads, do the ways out of an error begin; without a host there is nothing to stop.
        fault = f" ({look.fault})" if look.fault else ""
        return ("stop", "") if look.has_host else (None, f"the server is in ERROR{fault} without a host: only the provider can mend that")
    if look.state in steps:
        return steps[look.state], ""
    return None, f"the server is {look}, which no step leads out of"


def _tried_again(look: Look, step: Step, facts: Facts) -> Decision:
    """The step, unless it was just tried."""
    if step == "offload" and any(one == (step, one.asked, "forbidden") for one in facts.tried):
        return Decision(None, f"{look}: offloaded when Nova's own timer says so", settled=True)
    before = [one for one in facts.tried if one.step == step and not (facts.reached and one.asked < facts.reached)]
    times = "once" if len(before) == 1 else f"{len(before)} times"
    reason = facts.failed if step == "unshelve" and before else look.fault
    why = f"{look}: {step} was asked {times}" + (f" ({reason})" if reason else "")
    tell = f"{why} and didn't help" if len(before) >= MANY_TRIES else ""
    if before and (left := delay(len(before)) - (facts.now - before[-1].asked).total_seconds()) > 0:
        return Decision(None, f"{why}, again in {left:.0f} s", tell=tell)
    return Decision(step, f"{look}: {step}", tell=tell)


def _may_still_come(tried: Sequence[Tried], now: datetime) -> Tried | None:
    """The newest step that takes the server down, if it may yet be carried out."""
    for one in reversed(tried):
        if one.step in _TAKES_IT_DOWN and one.outcome in (None, "unknown") and (now - one.asked).total_seconds() < MAY_STILL_COME:
            return one
    return None


def serves(look: Look, facts: Facts) -> bool:
    """Whether those who hold a lease may take it that the server is up and stays so."""
    return look.is_up and _may_still_come(facts.tried, facts.now) is None


def delay(tries: int) -> float:
    """Seconds from a try until the next.

    >>> [delay(tries) for tries in (0, 1, 2, 3, 9)]
    [0.0, 30.0, 60.0, 120.0, 900.0]
    """
    return 0.0 if tries < 1 else min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(tries - 1, 16))


class Waking(NamedTuple):
    """A time in which the server cost."""

    asked: datetime
    up: datetime | None  # when it was first seen up
    down: datetime | None  # None: it is up
    price: float  # an hour
    failed: str = ""  # why it never came up


class Need(NamedTuple):
    """Somebody needed it for a while."""

    owner: str
    start: datetime
    end: datetime
    lease: str = ""  # its id; empty: it was a person's order


def shares(start: datetime, end: datetime, needs: Iterable[Need]) -> dict[str, float]:
    """Seconds of a waking by owner: every moment counts in equal parts for the needs of then, two of which may be of one owner; the idle
    ones are under "".

    They add up to the seconds of the waking.
    """
    here = [one._replace(start=max(one.start, start), end=min(one.end, end)) for one in needs]
    here = [one for one in here if one.start < one.end]
    moments = sorted({start, end, *(one.start for one in here), *(one.end for one in here)})
    result: dict[str, float] = {}
    for begin, finish in pairwise(moments):
        owners = [one.owner for one in here if one.start <= begin and finish <= one.end]
        for owner in owners or [""]:
            result[owner] = result.get(owner, 0.0) + (finish - begin).total_seconds() / max(1, len(owners))
    return result


def _clock(moment: datetime) -> str:
    return moment.strftime("%d %b %H:%M %Z").strip()
