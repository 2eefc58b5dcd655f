"""What a process may use, from control groups as Linux shows them: made files in a folder that stands for the root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dubbing.processors import usable_memory, usable_processors

PROCESSORS = len(os.sched_getaffinity(0))
GIB = 1 << 30


def made(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


V2 = {"proc/self/cgroup": "0::/work.slice/dubbing.service\n"}
OWN = "sys/fs/cgroup/work.slice/dubbing.service"
V1 = {"proc/self/cgroup": "4:cpu,cpuacct:/docker/1f\n7:memory:/docker/1f\n1:name=systemd:/docker/1f\n"}


@pytest.mark.parametrize(
    ("files", "processors"),
    [
        ({}, 8),
        (V2 | {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        (V2 | {f"{OWN}/cpu.max": "250000 100000\n"}, 3),
        (V2 | {f"{OWN}/cpu.max": "max 100000", "sys/fs/cgroup/work.slice/cpu.max": "200000 100000"}, 2),
        (V2 | {f"{OWN}/cpu.max": "400000 100000", "sys/fs/cgroup/work.slice/cpu.max": "200000 100000"}, 2),
        (V2 | {f"{OWN}/cpu.max": "1000 100000\n"}, 1),
        (V2 | {f"{OWN}/cpu.max": "3200000 100000\n"}, 8),
        ({"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/../../host\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        (V2 | {f"{OWN}/cpu.max": "not a number\n"}, 8),
        (V1 | {"sys/fs/cgroup/cpu/docker/1f/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/docker/1f/cpu.cfs_period_us": "100000"}, 8),
        (V1 | {"sys/fs/cgroup/cpu/docker/1f/cpu.cfs_quota_us": "300000", "sys/fs/cgroup/cpu/docker/1f/cpu.cfs_period_us": "100000"}, 3),
        (V1 | {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000"}, 1),
        (V1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000"}, 8),
    ],
    ids=[
        "no groups",
        "v2, no limit",
        "v2, the service's own limit, rounded up",
        "v2, the slice's limit",
        "v2, the smaller of two",
        "v2, less than one",
        "v2, more than there are",
        "v2, a container whose root is its own group",
        "v2, a path from outside the container",
        "v2, nonsense",
        "v1, no limit",
        "v1, a limit",
        "v1, a container, both controllers in one tree",
        "v1, half of a limit",
    ],
)
def test_processors(tmp_path: Path, files: dict[str, str], processors: int) -> None:
    assert usable_processors(made(tmp_path, files)) == processors


MEMINFO = {"proc/meminfo": f"MemTotal: {64 * GIB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {32 * GIB // 1024} kB\n"}


def v2(folder: str, limit: object, used: object, more: str = "") -> dict[str, str]:
    return MEMINFO | V2 | {f"{folder}/memory.max": f"{limit}\n", f"{folder}/memory.current": f"{used}\n", f"{folder}/memory.stat": more}


def v1(folder: str, limit: int, used: int) -> dict[str, str]:
    return MEMINFO | V1 | {f"{folder}/memory.limit_in_bytes": str(limit), f"{folder}/memory.usage_in_bytes": str(used)}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        (MEMINFO, 32 * GIB),
        (v2(OWN, "max", GIB), 32 * GIB),
        (v2(OWN, 4 * GIB, GIB), 3 * GIB),
        (v2(OWN, 4 * GIB, 4 * GIB, f"anon {GIB}\nfile {3 * GIB}\ninactive_file {3 * GIB}\n"), 3 * GIB),
        (v2("sys/fs/cgroup/work.slice", GIB, 2 * GIB), 0),
        (v1("sys/fs/cgroup/memory", (1 << 63) - 4096, 0), 32 * GIB),
        (v1("sys/fs/cgroup/memory/docker/1f", 8 * GIB, 2 * GIB), 6 * GIB),
    ],
    ids=[
        "nobody says",
        "the machine's",
        "v2, no limit",
        "v2, a limit",
        "v2, a cache gives way",
        "v2, over the slice's limit",
        "v1, no limit",
        "v1, a limit",
    ],
)
def test_memory(tmp_path: Path, files: dict[str, str], free: int | None) -> None:
    assert usable_memory(made(tmp_path, files)) == free


def test_this_machine_says_what_it_has() -> None:
    assert usable_processors() >= 1
    assert (usable_memory() or 0) > 0
