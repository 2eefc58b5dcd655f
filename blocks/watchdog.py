"""The watchdog: a keeper's pass that needs neither Prefect's server nor, when it comes to that, the database of leases.

It runs each minute from a timer of the machine, with a file of notes, and drives down only. Its limits hold for everybody, whatever limits
those who work have in their settings: over one it forbids the server, so that no lease is given or renewed, and the server is shelved when
the last has ended. What it does without the database is in `dubbing/watchdog.py`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from blocks.gpu_server import GpuServer
from blocks.keeper import Keeper
from blocks.leases import LONGEST_LEASE
from dubbing.errors import BadSetting, CoursedubError, LeasesDown, PersonNeeded
from dubbing.power import Look, Tried, closed_because
from dubbing.watchdog import Notes, noted, over_limit, without_leases

PERSON = "the watchdog"
FORBIDDEN_HOURS = 1.0  # each time that a limit is found exceeded
_AGAIN_BEFORE = timedelta(minutes=10)  # so that no minute is left open between one order and the next


def keep(server: GpuServer, file: Path, now: datetime | None = None) -> str:
    """One pass. Returns what it saw and did, in a line.

    Args:
        file: the notes; made when there are none.
        now: by this machine's clock.

    Raises:
        CloudDown
        LeasesDown: also after a pass that did without them; what it did is in the message.
        PersonNeeded: no step leads on.
        BadSetting: the notes can't be kept, among others. The pass was made all the same.
    """
    now = now or datetime.now(UTC)
    with _alone_with(file) as alone:
        if not alone:
            return "another watchdog makes a pass just now"
        notes = _read(file)
        keeper = Keeper(server)
        look: Look | None = None
        try:
            over = _forbid_over_limit(keeper, noted(notes, now, None, leases_there=True))
            made = keeper.make_pass(wakes=False)
            look = made.look if made else None
        except LeasesDown as error:
            _keep_alone(server, file, notes, now, error)
        except CoursedubError:
            with suppress(BadSetting):  # the other error says more
                _write(file, noted(notes, now, None, leases_there=True))
            raise
        _write(file, noted(notes, now, look, leases_there=True))
    if made is None:
        return "another keeper makes a pass just now"
    if made.decision.hopeless:
        raise PersonNeeded(f"GPU server: {made.decision.tell}")
    return f"forbidden from now on: {over}; {made.decision.why}" if over else f"{made.wanted.why}; {made.decision.why}"


def _forbid_over_limit(keeper: Keeper, notes: Notes) -> str:
    """The limit that is exceeded by the database's history or, should that have been lost, by the notes; empty when there is none, or the
    server is forbidden already."""
    facts, limits = keeper.leases.facts(), keeper.server.limits
    if facts.order and facts.order.kind == "forbid" and facts.order.holds_at(facts.now + _AGAIN_BEFORE):
        return ""
    over = closed_because(facts._replace(order=None), limits) or over_limit(notes, limits, keeper.server.price_per_hour)
    if over:
        keeper.leases.order("forbid", PERSON, over, FORBIDDEN_HOURS)
    return over


def _keep_alone(server: GpuServer, file: Path, notes: Notes, now: datetime, error: LeasesDown) -> None:
    try:
        look = server.look()
    except CoursedubError:
        with suppress(BadSetting):
            _write(file, noted(notes, now, None, leases_there=False))
        raise
    notes = noted(notes, now, look, leases_there=False)
    decision = without_leases(look, notes, server.limits, server.price_per_hour, LONGEST_LEASE, server.leases().answers())
    _write(file, notes)
    done = decision.why
    if decision.step is not None:
        tried = Tried(decision.step, now, None)
        _write(file, noted(notes, now, look, leases_there=False, tried=tried))  # may be the last that is heard of this pass
        outcome, said = server.ask(decision.step)
        _write(file, noted(notes, now, look, leases_there=False, tried=tried._replace(outcome=outcome)))
        done += f": {outcome}" if outcome == "accepted" else f": {outcome} ({said})"
    if decision.hopeless:
        raise PersonNeeded(f"GPU server: {decision.tell}")
    raise LeasesDown(f"{error}; for {notes.lost_for() / 60:.0f} minutes; {done}")


def _read(file: Path) -> Notes:
    """What can't be read counts as never written: then the watchdog begins to know anew."""
    try:
        return Notes.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return Notes()


def _write(file: Path, notes: Notes) -> None:
    part = file.with_name(f"{file.name}.part")
    try:
        part.write_text(notes.model_dump_json())
        part.replace(file)
    except OSError as error:
        raise BadSetting(f"the watchdog's notes {file}: {error.strerror}") from error


@contextmanager
def _alone_with(file: Path) -> Iterator[bool]:
    """Whether nobody else has these notes. Where no file can be made, nobody has."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(file.with_name(f"{file.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        yield True
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(lock)
