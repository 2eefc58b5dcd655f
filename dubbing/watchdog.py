"""What a watchdog of the GPU server knows by itself, and when that is enough to shelve it.

While the database of leases is there, the watchdog is one more keeper, whose limits close the server for everybody by an order. Notes of
its own, from looking at the server each minute, tell it what it needs when the database is not:

- Whoever works renews a lease, and renewing takes the database. So when it has been gone for as long as the longest lease and the grace,
  and the server was up all the while, nobody may be working: it is shelved. A restart of the database takes a minute or two.
- A database that answers, though not to the watchdog (a changed password), may well answer those who work. Then the limits alone count:
  over them nobody is given a lease, and once the longest one must have ended too, the server is shelved, whoever works.

Both are counted without gaps: after a quarter of an hour in which no pass was made, the watchdog knows nothing of before.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from dubbing.power import DAY, Decision, Facts, Limits, Look, Tried, closed_because, decide

LONGEST_GAP = timedelta(minutes=15)  # between two passes that still tell of the time between; they are a minute apart


class Notes(BaseModel):
    """Times are those of the watchdog's machine."""

    model_config = ConfigDict(frozen=True)

    passed: datetime | None = None  # the last pass
    up: tuple[tuple[datetime, datetime], ...] = ()  # when the server was seen to cost, in the last 24 hours, oldest first
    down: bool = False  # when last looked at
    lost_since: datetime | None = None  # since when each pass found the leases out of reach
    tried: tuple[Tried, ...] = ()  # steps asked without them, in the last 24 hours

    def used(self, now: datetime) -> float:
        """Seconds that the server was seen to cost in the last 24 hours."""
        return sum(max(0.0, (end - max(start, now - DAY)).total_seconds()) for start, end in self.up)

    def up_for(self) -> float:
        """Seconds that it was seen up without a gap, until the last pass; 0 when it wasn't up then."""
        if not self.up or self.up[-1][1] != self.passed:
            return 0.0
        start, end = self.up[-1]
        return (end - start).total_seconds()

    def lost_for(self) -> float:
        """Seconds that the leases were out of reach at the last pass, without a gap."""
        return (self.passed - self.lost_since).total_seconds() if self.passed and self.lost_since else 0.0


def noted(notes: Notes, now: datetime, look: Look | None, leases_there: bool, tried: Tried | None = None) -> Notes:
    """The notes after a pass.

    Args:
        look: None: the cloud could not be asked.
    """
    up = tuple(one for one in notes.up if now - DAY < one[1] <= now)  # a clock that was set back leaves nothing of what it said
    if look is not None and not look.is_down:
        goes_on = bool(up) and not notes.down and now - up[-1][1] <= LONGEST_GAP
        up = (*up[:-1], (up[-1][0], now)) if goes_on else (*up, (now, now))
    watched = notes.passed is not None and timedelta(0) <= now - notes.passed <= LONGEST_GAP
    lost_since = None if leases_there else (notes.lost_since if watched and notes.lost_since else now)
    steps = (*notes.tried, tried) if tried else notes.tried
    return Notes(
        passed=now,
        up=up,
        down=notes.down if look is None else look.is_down,
        lost_since=lost_since,
        tried=tuple(one for one in steps if now - DAY < one.asked <= now),
    )


def over_limit(notes: Notes, limits: Limits, price: float) -> str:
    """Which limit the notes show to be exceeded; empty: none."""
    assert notes.passed
    return closed_because(_facts(notes, price), limits)


def without_leases(look: Look, notes: Notes, limits: Limits, price: float, longest_lease: float, answers: bool) -> Decision:
    """What to do while nobody can tell who needs the server.

    Args:
        notes: after this pass's look.
        price: an hour.
        longest_lease: seconds.
        answers: whether the database answers, though not to us.
    """
    if look.is_down:
        return Decision(None, f"{look}: as it shall be", settled=True)
    if answers:
        closed = closed_because(_facts(notes, price, longest_lease), limits)
        if not closed:
            return Decision(None, f"{look}: left as it is, since others may reach the leases")
        return decide(look, "down", _facts(notes, price))
    alone, needed = min(notes.lost_for(), notes.up_for()), longest_lease + limits.grace
    if alone < needed:
        return Decision(None, f"{look}: left for {(needed - alone) / 60:.0f} minutes more, in which a lease may hold")
    return decide(look, "down", _facts(notes, price))


def _facts(notes: Notes, price: float, spared: float = 0.0) -> Facts:
    """What the notes tell, as a keeper's facts; `spared` seconds of use don't count."""
    assert notes.passed
    used = max(0.0, notes.used(notes.passed) - spared)
    return Facts(now=notes.passed, used=used, cost=used / 3600 * price, tried=notes.tried)
