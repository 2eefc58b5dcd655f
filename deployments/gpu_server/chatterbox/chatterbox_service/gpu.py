"""What NVIDIA's driver says of the GPUs, where there are any."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple


class Gpu(NamedTuple):
    index: int
    name: str
    memory_used: int  # bytes, of all processes
    memory_total: int  # bytes
    load: float | None  # 0 to 1; None: this one doesn't say
    temperature: float | None  # °C


def gpus() -> list[Gpu]:
    """Empty where there is no NVIDIA GPU, or its driver doesn't answer."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no package, no library, no driver: each has errors of its own
        return []
    try:
        return [_read(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _read(pynvml, index: int) -> Gpu:  # type: ignore[no-untyped-def]
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    name = pynvml.nvmlDeviceGetName(handle)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    load = temperature = None
    with suppress(pynvml.NVMLError):
        load = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    with suppress(pynvml.NVMLError):
        temperature = float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
    return Gpu(index, name.decode() if isinstance(name, bytes) else str(name), int(memory.used), int(memory.total), load, temperature)
