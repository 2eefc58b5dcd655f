"""Models take turns, where several lessons are dubbed in one process.

One stage at a time works with models. Whoever wants the one that worked last goes first, so that stages of several lessons come grouped
by model, and each is loaded once for all of them; then whoever waits for longest. What needs no model goes on beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tasks.progress import Event, tell

_LOOK_EVERY = 1.0  # seconds between two looks whether the lesson that waits was given up


class Turns:
    """The turns of one process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[object, str]] = []  # in the order of coming
        self._busy = False
        self._last = ""

    @contextmanager
    def turn(self, stage: str, model: str) -> Iterator[None]:
        """Wait for a turn, and have it inside the block."""
        ticket = object()
        with self._changed:
            self._waiting.append((ticket, model))
            try:
                while not self._changed.wait_for(lambda: self._is_next(ticket), _LOOK_EVERY):
                    tell(Event(stage, "waiting"))
                self._busy, self._last = True, model
            finally:
                self._waiting.remove((ticket, model))
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _is_next(self, ticket: object) -> bool:
        if self._busy:
            return False
        same = [waiting for waiting, model in self._waiting if model == self._last]
        return (same or [waiting for waiting, _ in self._waiting])[0] is ticket


_turns: ContextVar[Turns | None] = ContextVar("turns", default=None)


@contextmanager
def taking_turns(turns: Turns) -> Iterator[None]:
    """Stages of the story inside the block take turns with those of other stories."""
    token = _turns.set(turns)
    try:
        yield
    finally:
        _turns.reset(token)


@contextmanager
def turn(stage: str, model: str) -> Iterator[None]:
    """A turn for a stage that works with this model; at once where nobody takes turns, or it works with none ("")."""
    turns = _turns.get()
    if turns is None or not model:
        yield
        return
    with turns.turn(stage, model):
        yield
