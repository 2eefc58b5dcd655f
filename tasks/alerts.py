"""What somebody should know of the GPU server, as Prefect's events: `coursedub deploy` makes automations that tell it by chat or e-mail.

A state that lasts is told when it begins, when it becomes another, and once a day after that, whoever looks at it how often.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import httpx
from prefect.events import emit_event
from prefect.variables import Variable

PERSON_NEEDED = "coursedub.gpu-server.person-needed"
NOT_WOKEN = "coursedub.gpu-server.not-woken"  # a lesson needed it
LIMIT_REACHED = "coursedub.gpu-server.limit-reached"
ALERTS = (PERSON_NEEDED, NOT_WOKEN, LIMIT_REACHED)
AGAIN = timedelta(days=1)


def alert(event: str, server: str, text: str) -> bool:
    """Tell it, unless it was told already. Returns whether it was told now.

    Args:
        server: its id in the cloud.
        text: in which numbers may change while it stays the same.
    """
    same, now = re.sub(r"\d+", "#", text), datetime.now(UTC)
    told = _told(event, server)
    if told.get("text") == same and now - datetime.fromisoformat(told["at"]) < AGAIN:
        return False
    emit_event(event, {"prefect.resource.id": f"coursedub.gpu-server.{server}"}, payload={"tell": text})
    _keep(event, server, {"text": same, "at": now.isoformat()})
    return True


def over(event: str, server: str) -> None:
    """It is no longer so: the next time it is new."""
    if _told(event, server):
        _keep(event, server, {})


def _told(event: str, server: str) -> dict[str, str]:
    try:
        told = Variable.get(_variable(event, server))
    except httpx.HTTPError:  # rather told twice than never
        return {}
    return told if isinstance(told, dict) and told.keys() == {"text", "at"} else {}


def _keep(event: str, server: str, told: dict[str, str]) -> None:
    try:
        Variable.set(_variable(event, server), told, overwrite=True)
    except httpx.HTTPError:
        return


def _variable(event: str, server: str) -> str:
    return re.sub(r"[^a-z0-9_]", "_", f"{event}_{server}".lower())
