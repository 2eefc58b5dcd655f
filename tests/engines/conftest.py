"""Real engines of the GPU server with tiny checkpoints that the tests make, on the CPU and, where there is one, on a GPU.

`make test-engines` has an environment for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Any

import pytest

from blocks.residence import residence
from dubbing import devices

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


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """Each that there may be."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no GPU here")
    return str(request.param)


@pytest.fixture(scope="module")
def gpu() -> str:
    """What is chosen where there is a GPU."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU here")
    return devices.for_torch("auto")


def free() -> int:
    """Bytes that the GPU has left for anybody."""
    import torch

    devices.release("cuda")
    torch.cuda.synchronize()
    return int(torch.cuda.mem_get_info()[0])


SmallGpu = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def small_gpu(gpu: str) -> Iterator[SmallGpu]:
    """Takes all of the GPU's memory but so many bytes, for as long as the `with` lasts."""
    import torch

    @contextmanager
    def small(left: int) -> Iterator[None]:
        residence.make_room(gpu)
        taken: list[Any] = []
        piece = free() - left
        while piece >= 512:
            try:
                taken.append(torch.empty(piece, dtype=torch.uint8, device=gpu))
            except torch.OutOfMemoryError:
                piece //= 2
            else:
                piece = min(piece, int(torch.cuda.mem_get_info()[0]) - left)
        try:
            yield
        finally:
            taken.clear()
            devices.release(gpu)

    yield small
