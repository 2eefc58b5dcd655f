"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path


def usable_processors() -> int:
    """Processors this process may use: fewer than the machine has when it is pinned, or in a container with a quota."""
    processors = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        processors = min(processors, math.ceil(int(quota) / int(period)))
    return max(1, processors)
