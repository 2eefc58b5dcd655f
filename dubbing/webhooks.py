"""What is told to whoever asked for a lesson: events as JSON, each under an id of its own that stays the same however often it is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, get_args
from uuid import UUID, uuid5

Event = Literal["voiceover_uploaded", "video_completed", "video_failed", "review_requested"]
EVENTS: tuple[Event, ...] = get_args(Event)

# Seconds before each further try, once those of the run itself have failed: over two and a half hours in all.
RETRIES = (15, 30, 60, 120, 240, 480, 900, 1800, 1800, 1800, 1800)
LONGEST_ERROR = 500  # characters

_DELIVERIES = UUID("6f1f3c52-9d0b-5d8e-9a53-4a2c2f0d7e11")  # name space of their ids


class Message(NamedTuple):
    event: Event
    delivery: str  # id
    body: str  # JSON


def message(
    event: Event,
    *,
    job: str,
    run: str,
    lesson: str,
    target_language: str,
    which: str = "",
    moment: datetime | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Message:
    """
    Args:
        job: as whoever asked for the lesson calls it.
        lesson: the recording's name.
        which: of several of this event in one run.
        moment: when it happened; now when None.
        facts: of this event: addresses, cost, error.
    """
    body = {
        "event": event,
        "job_id": job,
        "run_id": run,
        "lesson": lesson,
        "target_language": target_language,
        "timestamp": (moment or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **(facts or {}),
    }
    return Message(event, delivery_id(run, event, which), json.dumps(body, ensure_ascii=False))


def delivery_id(run: str, event: str, which: str = "") -> str:
    """
    >>> delivery_id("a", "video_completed") == delivery_id("a", "video_completed") != delivery_id("b", "video_completed")
    True
    """
    return str(uuid5(_DELIVERIES, "\0".join((run, event, which))))


def in_one_line(error: str) -> str:
    """What went wrong, for a person who has no log beside it.

    >>> in_one_line("Flow run encountered an exception: NoSpeech: talk.mp4: nobody speaks\\nTraceback …")
    'NoSpeech: talk.mp4: nobody speaks'
    """
    line = next((line.strip() for line in error.splitlines() if line.strip()), "")
    line = line.removeprefix("Flow run encountered an exception:").strip()
    return "".join(c if c.isprintable() else " " for c in line)[:LONGEST_ERROR]
