"""Drives the GPU server towards what is wanted of it, a step a pass: lock, look, at most one step, note it.

Any number of keepers may make passes, on any machine: the lock lets one of them act at a time, and all they know is in the leases' database
and in what Nova shows. So one that is killed leaves nothing behind that the next pass doesn't see.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from blocks.gpu_server import GpuServer
from blocks.leases import Leases, Locked
from dubbing.errors import CloudDown, CoursedubError, LeasesDown, NoLease, PersonNeeded, ServerNotReady
from dubbing.power import Decision, Facts, Lease, Look, Outcome, Wanted, corrected, decide, wanted, with_look

LATEST = 30.0  # seconds after its look in which a pass may still ask for a step


class Pass(NamedTuple):
    """What one pass saw and did."""

    look: Look
    wanted: Wanted
    decision: Decision
    outcome: Outcome | None = None  # of the step
    said: str = ""  # by the cloud, about the step


class Keeper:
    def __init__(self, server: GpuServer, leases: Leases | None = None) -> None:
        self.server = server
        self.leases = leases or server.leases()

    def make_pass(self, wakes: bool) -> Pass | None:
        """
        Args:
            wakes: whether it may drive up too. Whoever needs the server does; who cleans up after others only drives down.

        Returns:
            None: another keeper makes one just now.

        Raises:
            CloudDown, LeasesDown, BadSetting
        """
        with self.leases.locked() as locked:
            return None if locked is None else self._pass(locked, wakes)

    def drive(
        self,
        towards: Literal["up", "down"],
        *,
        lease: Lease | None = None,
        within: float | None = None,
        watch: Callable[[Pass], object] = lambda made: None,
    ) -> Pass:
        """Make passes until it is up or down, or somebody wants it otherwise.

        Args:
            lease: whose holder waits. It isn't renewed here.
            within: seconds; None: as the server's settings say.

        Returns:
            The last pass. Driven down, the server may be up in it: for those who need it, or because it isn't idle for long enough.

        Raises:
            NoLease: it is closed, or the lease has ended.
            ServerNotReady: it took too long.
            PersonNeeded: no step leads there.
        """
        if within is None:
            within = 60 * (self.server.up_within_minutes if towards == "up" else self.server.down_within_minutes)
        until = time.monotonic() + within
        last = "no pass was made"
        while True:
            try:
                made = self.make_pass(wakes=towards == "up")
            except (CloudDown, LeasesDown) as error:
                made, last = None, str(error)
            if made is not None:
                watch(made)
                last = made.decision.why
                if towards == "up":
                    if made.wanted.state != "up":
                        raise NoLease(f"GPU server: {made.wanted.why}")
                    if self.leases.may_work(lease) if lease else made.decision.settled:
                        return made
                elif made.look.is_down or made.wanted.state != "down":
                    return made
                if made.decision.hopeless:
                    raise PersonNeeded(f"GPU server: {made.decision.tell}")
            if time.monotonic() + self.server.poll > until:
                raise ServerNotReady(f"GPU server: not {towards} within {within:g} s: {last}")
            time.sleep(self.server.poll)

    def _pass(self, locked: Locked, wakes: bool) -> Pass:
        look = self.server.look()
        began = time.monotonic()
        facts = with_look(locked.facts(), look)
        look = corrected(look, facts)
        want = wanted(facts, self.server.limits)
        decision = self._decided(look, want, facts, wakes)
        failed = self._why_it_never_came_up(look, facts)
        if failed:
            decision = decision._replace(why=f"{decision.why} ({failed})", tell=decision.tell and f"{decision.tell} ({failed})")
        outcome: Outcome | None = None
        said = ""
        if decision.step is not None:
            number = locked.asking(decision.step, self.server.price_per_hour)  # whoever could note this still has the lock
            if (stood_still := time.monotonic() - began) > LATEST:
                locked.answered(number, "refused", "never sent")
                raise LeasesDown(f"GPU server: a pass stood still for {stood_still:.0f} s and went no further")
            outcome, said = self.server.ask(decision.step)
            locked.answered(number, outcome, said)
            if outcome != "accepted":
                decision = decision._replace(why=f"{decision.why}: {outcome} ({said})")
        locked.note(look, want.state, decision, facts, self.server.price_per_hour, failed)
        return Pass(look, want, decision, outcome, said)

    def _decided(self, look: Look, want: Wanted, facts: Facts, wakes: bool) -> Decision:
        decision = decide(look, want.state, facts)
        if want.state == "up" and decision.step is not None and not wakes:
            return Decision(None, f"{look}: {want.why}; left to who needs it", tell=decision.tell)
        return decision

    def _why_it_never_came_up(self, look: Look, facts: Facts) -> str:
        """In the cloud's words, where it took an unshelve and then is shelved again: the server itself shows no fault."""
        if not (look.is_down and facts.up_since and facts.tried and facts.tried[-1].step == "unshelve"):
            return ""
        try:
            return self.server.reason_of_failure("unshelve")
        except CoursedubError:
            return ""
