"""Demucs: the separator of the GPU server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from blocks.engine import LocalEngine
from blocks.residence import residence
from blocks.separator import Separator
from dubbing import demucs, devices, weights

if TYPE_CHECKING:
    from dubbing.demucs import LoadedNetwork

logger = logging.getLogger("coursedub.demucs")

WEIGHTS = "htdemucs"


class DemucsSeparator(Separator, LocalEngine):
    """Hybrid Transformer Demucs on torch: cleaner than Spleeter, and fast on a GPU. On two cores it takes half the lesson's time.

    Where memory runs out the segments that it looks at are halved, and a warning says so. What comes out then counts as the same result.
    """

    _block_type_name = "Coursedub Demucs"
    _block_type_slug = "coursedub-demucs"
    engine_name: ClassVar[str] = "demucs"
    for_gpu: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("demucs", "torch", "soxr")
    extra: ClassVar[str] = "demucs"
    settings_without_effect: ClassVar[frozenset[str]] = frozenset({"device", "threads", "keep_loaded_for"})

    segment: float = Field(default=7.8, ge=demucs.SHORTEST, le=7.8, description="Seconds it looks at; less takes less memory.")
    device: devices.Device = Field(default="auto", description="auto: CUDA, then MPS, then the CPU.")
    threads: int = Field(default=0, ge=0, description="On the CPU; 0: all processors this process may use.")

    def weights_names(self) -> tuple[str, ...]:
        return (WEIGHTS,)

    def separate(self, source: Path, vocals: Path, background: Path, progress: Callable[[float], None]) -> None:
        self.require_packages()
        device = devices.for_torch(self.device)
        [checkpoint] = [weights.folder_of(WEIGHTS) / file.name for file in weights.find(WEIGHTS).files]

        def load() -> LoadedNetwork:
            return demucs.load(checkpoint, device, self.threads)

        def warn(message: str) -> None:
            logger.warning(message)
            residence.make_room(device)

        with self.loaded(load, of=("threads",), device=device, size=2 * weights.find(WEIGHTS).size) as network:
            demucs.separate(source, vocals, background, network, min(self.segment, network.segment), progress, warn)
