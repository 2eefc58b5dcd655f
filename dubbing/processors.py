"""How many processors, and how much memory, this process may use: what the machine has, less what a container or a service is held to.

The limits are those of the process's control group and of all groups above it (Linux: cgroups(7)). In version 2 they are files of one tree,
in version 1 each controller has a tree of its own. Inside a container the tree often begins at the container's own group, while
/proc/self/cgroup still tells the path from the host's root: so a path that isn't there stands for the root.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
_NO_LIMIT = 1 << 60  # bytes: version 1 writes a number near 2^63 for "none"


def usable_processors(root: Path = ROOT) -> int:
    """Processors this process may use: fewer than the machine has when it is pinned, or in a group with a quota. At least one.

    Args:
        root: where /proc and /sys are looked for.
    """
    processors = len(os.sched_getaffinity(0))
    for quota, period in _processor_quotas(root):
        processors = min(processors, math.ceil(quota / period))
    return max(1, processors)


def usable_memory(root: Path = ROOT) -> int | None:
    """Bytes of memory this process could still take, or None where nobody says so (no Linux)."""
    free: int | None = None
    with suppress(OSError, ValueError, StopIteration):
        line = next(line for line in (root / "proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable:"))
        free = int(line.split()[1]) * 1024
    for limit, used, cache in memory_limits(root):
        if limit < _NO_LIMIT:
            room = max(0, limit - max(0, used - cache))
            free = room if free is None else min(free, room)
    return free


def _processor_quotas(root: Path) -> Iterator[tuple[int, int]]:
    """Microseconds of processor time, and in how many microseconds."""
    groups = _groups(root)
    for folder in _upwards(root / "sys/fs/cgroup", groups.unified):
        with suppress(OSError, ValueError):  # "max" is no number: no limit
            quota, period = map(int, (folder / "cpu.max").read_text().split())
            yield quota, period
    for controller in ("cpu", "cpu,cpuacct"):
        for folder in _upwards(root / "sys/fs/cgroup" / controller, groups.cpu):
            with suppress(OSError, ValueError):
                quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
                if quota > 0:  # -1: no limit
                    yield quota, period


def memory_limits(root: Path) -> Iterator[tuple[int, int, int]]:
    """Bytes: the limit, what is used of it, and what of that is a cache of files which gives way."""
    groups = _groups(root)
    for folder in _upwards(root / "sys/fs/cgroup", groups.unified):
        with suppress(OSError, ValueError):
            limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
            yield limit, used, _counted(folder / "memory.stat", "inactive_file")
    for folder in _upwards(root / "sys/fs/cgroup/memory", groups.memory):
        with suppress(OSError, ValueError):
            limit, used = (int((folder / f"memory.{name}_in_bytes").read_text()) for name in ("limit", "usage"))
            yield limit, used, _counted(folder / "memory.stat", "total_inactive_file")


def _counted(statistics: Path, name: str) -> int:
    with suppress(OSError, ValueError):
        for line in statistics.read_text().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    return 0


class _Groups(NamedTuple):
    """Paths of this process's control groups, from the root of their tree."""

    unified: str = "/"
    cpu: str = "/"
    memory: str = "/"


def _groups(root: Path) -> _Groups:
    groups = _Groups()
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                groups = groups._replace(unified=path)
            for controller in set(controllers.split(",")) & {"cpu", "memory"}:
                groups = groups._replace(**{controller: path})
    return groups


def _upwards(tree: Path, path: str) -> Iterator[Path]:
    """The folder of the group, and of every group above it."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for length in range(len(parts), -1, -1):
        yield tree.joinpath(*parts[:length])
