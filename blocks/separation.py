"""Separators: the lecturer's voice apart from the music and the sounds of the room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from blocks.demucs import DemucsSeparator
from blocks.engine import LocalEngine
from blocks.separator import Separator
from dubbing import weights

__all__ = ["SEPARATORS", "DemucsSeparator", "Separator", "SpleeterSeparator"]


class SpleeterSeparator(Separator, LocalEngine):
    """Spleeter's two stems on ONNX Runtime: some twenty times faster than real time on two cores, without torch."""

    _block_type_name = "Coursedub Spleeter"
    _block_type_slug = "coursedub-spleeter"
    engine_name: ClassVar[str] = "spleeter"
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "scipy", "soxr")
    settings_without_effect: ClassVar[frozenset[str]] = frozenset({"threads", "keep_loaded_for"})

    threads: int = Field(default=0, ge=0, description="0: all processors this process may use.")

    def weights_names(self) -> tuple[str, ...]:
        return ("spleeter-2stems",)

    def separate(self, source: Path, vocals: Path, background: Path, progress: Callable[[float], None]) -> None:
        from dubbing import spleeter

        def load() -> spleeter.Mask:
            return spleeter.load(weights.folder_of("spleeter-2stems"), self.threads)

        with self.loaded(load, of=("threads",), device="cpu", size=weights.find("spleeter-2stems").size) as mask:
            spleeter.separate(source, vocals, background, mask, progress)


SEPARATORS: dict[str, type[Separator]] = {engine.engine_name: engine for engine in (SpleeterSeparator, DemucsSeparator)}
