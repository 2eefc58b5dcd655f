"""Real engines of the GPU server on the CPU, with tiny checkpoints that the tests make. `make test-engines` has an environment for them."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

NEEDED = ("torch", "whisperx", "demucs", "pyannote.audio")


def missing() -> list[str]:
    found = []
    for package in NEEDED:
        try:
            spec = find_spec(package)
        except ModuleNotFoundError:
            spec = None
        if spec is None:
            found.append(package)
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if lacking := missing():
        skip = pytest.mark.skip(reason=f"not in this environment: {', '.join(lacking)}; `make test-engines` runs these")
        for item in items:
            if "tests/engines/" in item.nodeid:
                item.add_marker(skip)
