"""Where a model runs: CUDA, then MPS, then the CPU. What memory there is, and what the libraries say when there is none.

A device changes a result a little, and is no part of an engine's fingerprint: the result is as good, and a lesson that moves to another
machine isn't made anew. What a network as large as htdemucs, of random weights, made on an H200 was within 0.5 % of what it made on a CPU.
Torch and CTranslate2 are asked where an engine runs on them;
neither is imported for the other's sake.
"""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from typing import Any, Literal

from dubbing.errors import BadSetting
from dubbing.processors import usable_memory, usable_processors

Device = Literal["auto", "cuda", "mps", "cpu"]

# What out-of-memory errors say that have no class of their own: those of CUDA's driver, cuBLAS and cuDNN through torch and CTranslate2, of
# Apple's Metal, of torch's allocator for the CPU, of C++, and of ONNX Runtime.
_OUT_OF_MEMORY = (
    "out of memory",
    "alloc_failed",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "bad_alloc",
    "bad allocation",
)

# What CTranslate2 says on CUDA when it has just run out of memory and tries again with next to none: seen at the second try, on an H200.
_OUT_OF_MEMORY_AGAIN = ("cudaerrorinvaliddevice",)


def for_torch(wanted: Device) -> str:
    """The device that a torch model is put on.

    Raises:
        BadSetting: the one that is wanted isn't there.
    """
    import torch

    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
    chosen = _chosen(wanted, [name for name, is_there in there.items() if is_there()], "torch")
    if chosen == "cuda":
        # Else torch cuts what goes into convolutions down to 10 bits of mantissa, unless pyannote ran before, which forbids it for good.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return chosen


def set_torch_threads(threads: int) -> None:
    """Threads that torch computes with on the CPU; 0: one for each processor this process may use. Torch itself counts the machine's."""
    import torch

    torch.set_num_threads(threads or usable_processors())


def for_ctranslate2(wanted: Device) -> str:
    """The device that a CTranslate2 model is put on: it knows no MPS.

    Raises:
        BadSetting: the one that is wanted isn't there.
    """
    import ctranslate2

    return _chosen(wanted, ["cuda", "cpu"] if ctranslate2.get_cuda_device_count() else ["cpu"], "CTranslate2")


def _chosen(wanted: Device, there: list[str], library: str) -> str:
    """The first of those there are, best first, or the one that is wanted."""
    if wanted == "auto":
        return there[0]
    if wanted not in there:
        raise BadSetting(f"device {wanted}: {library} finds none here; there is {' and '.join(there)} (auto takes the first)")
    return wanted


def free_memory(device: str) -> int | None:
    """Bytes that a model could take on a device, or None where nobody says so. Only what is loaded already is asked."""
    if device == "cpu":
        return usable_memory()
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return None
    with suppress(RuntimeError, AttributeError):
        if device == "cuda":
            return int(torch.cuda.mem_get_info()[0])
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return None


def release(device: str) -> None:
    """Give back what models that nobody refers to any more have left behind."""
    gc.collect()  # modules of a network refer to each other in circles
    torch: Any = sys.modules.get("torch")
    if torch is not None and device in ("cuda", "mps"):
        with suppress(RuntimeError, AttributeError):
            (torch.cuda if device == "cuda" else torch.mps).empty_cache()


def is_out_of_memory(error: BaseException | None, again: bool = False) -> bool:
    """Whether a failure, or what it was raised from, says that memory ran out.

    Args:
        again: memory ran out just before, and this was another try: then some say it in other words.
    """
    signs = _OUT_OF_MEMORY + _OUT_OF_MEMORY_AGAIN if again else _OUT_OF_MEMORY
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if isinstance(error, RuntimeError | OSError) or type(error).__module__.startswith("onnxruntime"):
            text = str(error).lower()
            if any(sign in text for sign in signs):
                return True
        error = error.__cause__ or error.__context__
    return False
