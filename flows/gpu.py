"""The GPU server for persons: how it stands, holding it up or forbidding it, and what it cost for whom. `coursedub gpu`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from blocks.gpu_server import GpuServer
from blocks.keeper import Keeper, Pass
from blocks.watchdog import PERSON as WATCHDOG
from dubbing.errors import CloudDown
from dubbing.power import Order, OrderKind, decide, shares, wanted, with_look

HOURS = 1.0  # that a person holds it up, unless more are asked for: what is forgotten shall not cost for days
DOWN_COUNTS = 1.0  # hours in which "shelve it now" is no longer meant for somebody who starts it by other means
DAYS = 7.0
LONGEST_AGO = 36525.0  # days: before that was nothing
_WIDE = 160  # characters of a table where nobody's terminal says otherwise


def status(server: GpuServer) -> dict[str, Any]:
    """How it stands and why. Changes nothing, and tells what is known when the cloud can't be asked."""
    leases = server.leases()
    facts, seen = leases.facts(), leases.seen()
    state: str | None
    want = wanted(facts, server.limits)
    try:
        look = server.look()
        facts = with_look(facts, look)
        want = wanted(facts, server.limits)
        decision = decide(look, want.state, facts)
        state, tell = str(look), decision.tell
    except CloudDown as error:
        state, tell = None, str(error)
    return {
        "server": server.server_id,
        "address": server.address,
        "state": state,
        "wanted": want.state,
        "why": want.why,
        "closed": want.closed,
        "tell": tell,
        "last_pass": seen and {"at": _iso(seen.seen), "state": seen.state, "did": seen.why},
        "leases": [
            {"owner": lease.owner, "reason": lease.reason, "taken": _iso(lease.taken), "expires": _iso(lease.expires)}
            for lease in facts.leases
        ],
        "order": _order(facts.order) if facts.order and facts.order.holds_at(facts.now) else None,
        "up_since": _iso(facts.up_since),
        "hours_in_24": round(facts.used / 3600, 4),
        "cost_in_24": round(facts.cost, 4),
        "price_per_hour": server.price_per_hour,
        "hours_a_day": server.hours_a_day,
        "cost_a_day": server.cost_a_day,
    }


def limit_reached(now: dict[str, Any]) -> str:
    """Why the server is closed, where that is no person's wish; else empty.

    Args:
        now: what `status` says.
    """
    forbidden = now["order"] and now["order"]["kind"] == "forbid" and now["order"]["person"] != WATCHDOG
    return "" if forbidden else now["closed"] or ""


def order(
    server: GpuServer,
    kind: OrderKind,
    person: str,
    reason: str = "",
    hours: float | None = None,
    *,
    waits: bool = True,
    within: float | None = None,
    watch: Callable[[Pass], object] = lambda made: None,
) -> dict[str, Any]:
    """Give an order, and, where it waits, drive the server there: up, or down unless somebody needs it.

    Args:
        hours: how long the order holds; None: an hour for `up`, for good for `forbid`.
        within: seconds to get there.

    Returns:
        How it stands then.

    Raises:
        NoLease: it shall be up, and is closed: a person's order must be lifted first.
        ServerNotReady, PersonNeeded
    """
    keeper = Keeper(server)
    if hours is None:
        hours = {"up": HOURS, "down": DOWN_COUNTS}.get(kind)
    keeper.leases.order(kind, person, reason, hours)
    if waits and kind != "lift":
        keeper.drive("up" if kind == "up" else "down", within=within, watch=watch)
    return status(server)


def history(server: GpuServer, days: float = DAYS) -> dict[str, Any]:
    """Every waking of the last days: from, to, for whom, and what it cost, idle time by itself."""
    leases = server.leases()
    now = leases.facts().now
    since = now - timedelta(days=min(days, LONGEST_AGO))
    needs = leases.needs(since)
    wakings: list[dict[str, Any]] = []
    costs: dict[str, float] = {}
    for waking in leases.wakings(since):
        divided = shares(waking.asked, waking.down or now, needs)
        price = waking.price / 3600
        parts = {owner: {"seconds": round(seconds, 1), "cost": round(seconds * price, 4)} for owner, seconds in divided.items()}
        for owner, seconds in divided.items():
            costs[owner] = costs.get(owner, 0.0) + seconds * price
        seconds = ((waking.down or now) - waking.asked).total_seconds()
        wakings.append(
            {
                "from": _iso(waking.asked),
                "up": _iso(waking.up),
                "to": _iso(waking.down),
                "failed": waking.failed,
                "seconds": round(seconds, 1),
                "cost": round(seconds * price, 4),
                "price_per_hour": waking.price,
                "idle": parts.pop("", {"seconds": 0.0, "cost": 0.0}),
                "for": parts,
            }
        )
    idle = costs.pop("", 0.0)
    return {
        "server": server.server_id,
        "days": days,
        "wakings": wakings,
        "hours": round(sum(waking["seconds"] for waking in wakings) / 3600, 4),
        "cost": round(sum(costs.values()) + idle, 4),
        "idle_cost": round(idle, 4),
        "cost_by_owner": {owner: round(cost, 4) for owner, cost in sorted(costs.items())},
    }


def history_rows(past: dict[str, Any]) -> list[dict[str, Any]]:
    """A history as the rows of a table, newest first."""
    return [
        {
            "from": _clock(waking["from"]),
            "up": _clock(waking["up"]) if not waking["failed"] else f"never: {waking['failed']}",
            "to": _clock(waking["to"]) or "still up",
            "hours": f"{waking['seconds'] / 3600:.2f}",
            "cost": f"{waking['cost']:.2f}",
            "idle": f"{waking['idle']['cost']:.2f}",
            "for": ", ".join(f"{owner} {part['cost']:.2f}" for owner, part in waking["for"].items()),
        }
        for waking in reversed(past["wakings"])
    ]


def show_status(now: dict[str, Any]) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    lines = {
        "server": f"{now['server']}  {now['address']}".strip(),
        "state": now["state"] or "unknown",
        "wanted": f"{now['wanted']}: {now['why']}",
        "a person": now["tell"],
        "closed": now["closed"],
        "order": now["order"] and _said(now["order"]),
        "leases": "\n".join(f"{one['owner']}: {one['reason']}, until {_clock(one['expires'])}" for one in now["leases"]),
        "up since": _clock(now["up_since"]),
        "in 24 hours": f"{now['hours_in_24']:.2f} h{_of(now['hours_a_day'])}, cost {now['cost_in_24']:.2f}{_of(now['cost_a_day'])}",
        "last pass": now["last_pass"] and f"{_clock(now['last_pass']['at'])}: {now['last_pass']['did']}",
    }
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in lines.items():
        if value:
            table.add_row(name, Text(value, "red" if name in ("a person", "closed") else ""))
    console.print(table)


def show_history(past: dict[str, Any]) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("from", "up", "to", "hours", "cost", "idle", "for"):
        table.add_column(column, overflow="fold", justify="right" if column in ("hours", "cost", "idle") else "left")
    for row in history_rows(past):
        table.add_row(*(Text(row[column]) for column in row))
    console.print(table)
    console.print(f"\n{past['hours']:.2f} hours in {past['days']:g} days, cost {past['cost']:.2f}, of it idle {past['idle_cost']:.2f}")


def _order(given: Order) -> dict[str, Any]:
    return {
        "kind": given.kind,
        "person": given.person,
        "reason": given.reason,
        "given": _iso(given.given),
        "until": _iso(given.until),
    }


def _said(given: dict[str, Any]) -> str:
    until = f" until {_clock(given['until'])}" if given["until"] else ""
    return f"{given['kind']}, by {given['person']}{until}" + (f": {given['reason']}" if given["reason"] else "")


def _of(limit: float | None) -> str:
    return "" if limit is None else f" of {limit:g}"


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None


def _clock(moment: str | None) -> str:
    """In the reader's own time zone."""
    return datetime.fromisoformat(moment).astimezone().strftime("%d %b %H:%M") if moment else ""
