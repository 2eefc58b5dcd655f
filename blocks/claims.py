"""Who computes what, where several processes and machines share a store: a claim is a small file that its holder keeps renewing.

Mutual exclusion from nothing but files that are listed as soon as they are written, which local disks and S3 servers both give: whoever
wants a key writes a claim of its own and then lists all claims on the key. Alone: it holds the key. Not alone: it takes its claim back and
waits. Of two who come at once at least the later to write sees the other, so both never hold it; they try again after pauses of random
length.

A claim that nobody renews for `lease` seconds, by the waiter's own clock, belongs to a process that is dead or stands still, and is
removed. On the machine where it ran a dead process is known at once. A process that stood still and wakes computes what another has
computed: twice the work, the same result, since results are named by content.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from blocks.files import Files
from dubbing.errors import StoreFailed

LEASE = 30.0  # seconds without renewal until a claim is dead: what a machine that vanished delays the others
RENEWALS = 4  # in the time of a lease
_FIRST_POLL, _LONGEST_POLL = 0.1, 2.0  # seconds between two looks at the claims of others


class _Seen(NamedTuple):
    """A claim of another, as it was when its content last changed."""

    content: bytes
    since: float  # monotonic seconds


class Claims:
    """The claims that one process holds."""

    def __init__(self, files: Files, lease: float = LEASE) -> None:
        self._files, self._lease = files, lease
        self._held: dict[str, str] = {}  # names of claims by key
        self._change = threading.Condition()
        self._renewing = False

    def acquire(self, key: str, is_done: Callable[[], bool], waiting: Callable[[], None] = lambda: None) -> bool:
        """Wait until the key is held, or until its work is done by another.

        Args:
            is_done: asked while another holds the key, and once more after it is held.
            waiting: called at each look; what it raises ends the wait.

        Returns:
            Whether the key is held: False when the work turned out to be done.

        Raises:
            StoreFailed
        """
        if key in self._held:
            return True
        folder = f"claims/{hashlib.sha256(key.encode()).hexdigest()[:32]}/"
        name = folder + uuid.uuid4().hex
        seen: dict[str, _Seen] = {}
        poll = _FIRST_POLL
        alone = True  # nobody else is looked for before the first claim is written: mostly there is nobody
        while True:
            if alone:
                self._files.write(name, _claim(0))
                try:
                    alone = not self._alive(folder, name, seen)
                except BaseException:
                    self._forget(name)
                    raise
                if alone:
                    break
                self._files.remove(name)
            waiting()
            time.sleep(poll * random.uniform(0.5, 1.5))
            poll = min(2 * poll, _LONGEST_POLL, self._lease / 4)
            alone = not self._alive(folder, name, seen)
            if is_done():
                return False
        with self._change:
            self._held[key] = name
            if not self._renewing:
                self._renewing = True
                threading.Thread(target=self._renew, name="claims", daemon=True).start()
        try:
            done = is_done()  # another may have finished just before
        except BaseException:
            self.release(key)
            raise
        if done:
            self.release(key)
        return not done

    def holds(self, key: str) -> bool:
        return key in self._held

    def release(self, key: str) -> None:
        """Give a key back. That it may be held until its lease ends, where the store can't be reached, is no fault."""
        with self._change:
            name = self._held.pop(key, None)
            self._change.notify_all()
        if name:
            self._forget(name)

    def release_all(self) -> None:
        for key in list(self._held):
            self.release(key)

    def _forget(self, name: str) -> None:
        with suppress(StoreFailed):
            self._files.remove(name)

    def _alive(self, folder: str, own: str, seen: dict[str, _Seen]) -> bool:
        """Whether another lives that claims the key. Claims of the dead are removed on the way."""
        alive = False
        for claim in list(self._files.found(folder)):
            if claim.name == own:
                continue
            try:
                content = self._files.read(claim.name)
            except FileNotFoundError:
                continue
            if claim.name not in seen or seen[claim.name].content != content:
                seen[claim.name] = _Seen(content, time.monotonic())
            if _is_dead_here(content) or time.monotonic() - seen[claim.name].since > self._lease:
                self._files.remove(claim.name)
            else:
                alive = True
        return alive

    def _renew(self) -> None:
        beat = 0
        while True:
            with self._change:
                self._change.wait(self._lease / RENEWALS)
                if not self._held:
                    self._renewing = False
                    return
                names = list(self._held.values())
            beat += 1
            for name in names:
                if name in self._held.values():
                    try:
                        self._files.write(name, _claim(beat))
                    except (StoreFailed, OSError):
                        continue
                    if name not in self._held.values():  # released while it was written
                        self._forget(name)


def _claim(beat: int) -> bytes:
    """Content of a claim: what tells this process from every other on every machine and after every restart of one."""
    number = os.getpid()
    return json.dumps({"machine": _machine(), "process": number, "born": _birth(number), "beat": beat}).encode()


@cache
def _machine() -> str:
    """This machine since it was started, and the process numbers' name space: containers have their own."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        parts.append(str(uuid.getnode()))
    return " ".join(parts)


def _birth(number: int) -> str:
    """When a process started, in ticks since the machine did; empty when it doesn't live, "?" where that can't be told."""
    try:
        facts = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return "" if Path("/proc/self/stat").exists() else "?"
    except OSError:
        return "?"
    return "" if facts[0] in "ZX" else facts[19]


def _is_dead_here(content: bytes) -> bool:
    """Whether the claim is of a process of this machine that lives no more."""
    try:
        claim = json.loads(content)
        machine, number, born = claim["machine"], int(claim["process"]), claim["born"]
    except (ValueError, KeyError, TypeError):
        return False  # its lease will end
    return bool(machine == _machine() and _birth(number) not in (born, "?"))
