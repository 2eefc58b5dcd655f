"""One generation at a time: the others wait in the order they came, and when too many wait the next is sent away."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple, TypeVar

from chatterbox_service.errors import Busy

T = TypeVar("T")

_FIRST_PACE = 0.02  # seconds a letter takes, until it was measured: 300 letters are 20 s of speech, and a good GPU makes 3 to 4 in a second
_NEWEST = 0.3  # weight of the newest measurement
_LONGEST_RETRY = 600  # seconds: what is told to wait at most


class _Job(NamedTuple):
    letters: int
    began: float  # monotonic seconds


class GenerationQueue:
    """Belongs to one event loop; the work is done on the executor's thread."""

    def __init__(self, max_waiting: int, executor: Executor, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_waiting = max_waiting
        self.waiting = 0
        self._executor, self._clock = executor, clock
        self._turn = asyncio.Lock()  # first come, first served
        self._running: _Job | None = None
        self._pace = _FIRST_PACE

    @property
    def running_for(self) -> float | None:
        """Seconds that the generation under way has taken; None when there is none."""
        return None if self._running is None else self._clock() - self._running.began

    def retry_after(self) -> int:
        """Seconds until a place will be free, by what generations took so far."""
        if self._running is None:
            return 1
        left = self._running.letters * self._pace - (self._clock() - self._running.began)
        return min(max(math.ceil(left), 1), _LONGEST_RETRY)

    def check_place(self) -> None:
        """
        Raises:
            Busy: no more may wait.
        """
        if (self._running is not None or self.waiting) and self.waiting >= self.max_waiting:
            raise Busy(f"busy: {self.waiting} requests wait already, at most {self.max_waiting} may", retry_after=self.retry_after())

    async def run(self, letters: int, work: Callable[[Callable[[], bool]], T]) -> T:
        """Do the work when its turn has come. Cancelled while it waits, it gives its place up; while it works, `work` is told to stop.

        Args:
            letters: how much there is to say, by which its time is estimated.
            work: called with a function that says whether to stop.

        Raises:
            Busy, and what the work raises.
        """
        self.check_place()
        self.waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self.waiting -= 1
        try:
            self._running = _Job(letters, self._clock())
            stop = threading.Event()
            done = asyncio.get_running_loop().run_in_executor(self._executor, work, stop.is_set)
            try:
                result = await asyncio.shield(done)
            except asyncio.CancelledError:
                stop.set()
                await asyncio.wait([done])  # until it has stopped nobody else may use the model
                _ = done.cancelled() or done.exception()  # looked at: nobody else will
                raise
            if letters:
                self._pace += _NEWEST * ((self._clock() - self._running.began) / letters - self._pace)
            return result
        finally:
            self._running = None
            self._turn.release()
