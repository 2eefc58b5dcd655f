"""Which device is taken, and what counts as memory that ran out. The texts are those of the libraries."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from dubbing import devices
from dubbing.errors import BadSetting


def torch_with(monkeypatch: pytest.MonkeyPatch, *there: str) -> None:
    fake = SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: "cuda" in there, mem_get_info=lambda: (3 << 30, 8 << 30)),
        backends=SimpleNamespace(
            mps=SimpleNamespace(is_available=lambda: "mps" in there),
            cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=False)),
            cudnn=SimpleNamespace(allow_tf32=True),
        ),
        mps=SimpleNamespace(recommended_max_memory=lambda: 16 << 30, driver_allocated_memory=lambda: 6 << 30),
    )
    monkeypatch.setitem(sys.modules, "torch", fake)


@pytest.mark.parametrize(("there", "taken"), [(("cuda", "mps"), "cuda"), (("cuda",), "cuda"), (("mps",), "mps"), ((), "cpu")])
def test_the_best_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], taken: str) -> None:
    torch_with(monkeypatch, *there)
    assert devices.for_torch("auto") == taken
    assert devices.for_torch("cpu") == "cpu"


@pytest.mark.parametrize(("threads", "taken"), [(0, 3), (2, 2)])
def test_torch_takes_no_more_threads_than_processors_may_be_used(monkeypatch: pytest.MonkeyPatch, threads: int, taken: int) -> None:
    set_to: list[int] = []
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=set_to.append))
    monkeypatch.setattr(devices, "usable_processors", lambda: 3)  # as under a quota
    devices.set_torch_threads(threads)
    assert set_to == [taken]


@pytest.mark.parametrize("wanted", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch, wanted: devices.Device) -> None:
    torch_with(monkeypatch)
    with pytest.raises(BadSetting, match=rf"^device {wanted}: torch finds none here; there is cpu"):
        devices.for_torch(wanted)


@pytest.mark.parametrize(("gpus", "taken"), [(0, "cpu"), (2, "cuda")])
def test_ctranslate2_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, gpus: int, taken: str) -> None:
    import ctranslate2

    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: gpus)
    assert devices.for_ctranslate2("auto") == taken
    with pytest.raises(BadSetting, match=r"^device mps: CTranslate2 finds none here"):
        devices.for_ctranslate2("mps")


def test_memory_is_asked_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_with(monkeypatch, "cuda", "mps")
    assert devices.free_memory("cuda") == 3 << 30
    assert devices.free_memory("mps") == 10 << 30
    assert (devices.free_memory("cpu") or 0) > 0


def test_a_gpu_s_memory_is_unknown_before_torch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert devices.free_memory("cuda") is None
    devices.release("cuda")


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which 1.2 GiB is free."
        ),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"),
        RuntimeError("CUDA failed with error out of memory"),
        RuntimeError("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB, other allocations: 1.2 GB, max allowed: 18.1 GB)."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        ),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=lambda error: str(error)[:40] or type(error).__name__,
)
def test_memory_that_ran_out_is_recognised(error: Exception) -> None:
    assert devices.is_out_of_memory(error)
    wrapped = ValueError("could not load the model")
    wrapped.__cause__ = error
    assert devices.is_out_of_memory(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        None,
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("Library libcublas.so.12 is not found or cannot be loaded"),
        ValueError("the word memory alone, even out of memory, in another kind of error"),
        KeyError("x"),
    ],
    ids=["nothing", "another CUDA error", "a missing library", "another kind", "a bug"],
)
def test_other_failures_are_not_taken_for_it(error: Exception | None) -> None:
    assert not devices.is_out_of_memory(error)


def test_what_follows_on_memory_that_ran_out_is_recognised_only_then() -> None:
    error = RuntimeError("parallel_for failed: cudaErrorInvalidDevice: invalid device ordinal")
    assert devices.is_out_of_memory(error, again=True)
    assert not devices.is_out_of_memory(error)
    assert not devices.is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"), again=True)


def test_on_a_gpu_torch_computes_with_all_bits_of_its_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_with(monkeypatch, "cuda")
    backends = sys.modules["torch"].backends
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = True
    devices.for_torch("auto")
    assert not backends.cuda.matmul.allow_tf32 and not backends.cudnn.allow_tf32
