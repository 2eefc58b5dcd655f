"""A cache that never holds more than it may."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

K, V = TypeVar("K"), TypeVar("V")


class Bounded(Generic[K, V]):
    """At most `limit` entries; the one that nobody asked for the longest goes first. Threads may share it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: K, value: V) -> None:
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            while len(self._entries) > self._limit:
                self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)
