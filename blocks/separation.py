"""Separators: the lecturer's voice apart from the music and the sounds of the room."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr

from blocks.engine import Engine
from dubbing import weights


class Separator(Engine):
    """Base of the family.

    To add a separator: implement `separate` and enter the class in `SEPARATORS`. Besides what holds for every engine:

    - vocals and background have exactly as many samples as the source, each in its place, and the source's channels;
    - their sum is the source, so that nothing is lost when both are played: compute the voice and subtract it;
    - work in blocks: a lesson may last hours.
    """

    @abstractmethod
    def separate(self, source: Path, vocals: Path, background: Path, progress: Callable[[float], None]) -> None:
        """Write the voice in `source` to `vocals` and the rest to `background`: 48 kHz float WAV, one or two channels.

        `progress` is called with the part done, 0 to 1. After a failure neither file is left.
        """


class SpleeterSeparator(Separator):
    """Spleeter's two stems on ONNX Runtime: some twenty times faster than real time on two cores, without torch."""

    _block_type_name = "Coursedub Spleeter"
    _block_type_slug = "coursedub-spleeter"
    engine_name: ClassVar[str] = "spleeter"
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "scipy", "soxr")
    settings_without_effect: ClassVar[frozenset[str]] = frozenset({"threads"})

    threads: int = Field(default=0, ge=0, description="0: all processors this process may use.")

    _mask: Any = PrivateAttr(default=None)

    def weights_names(self) -> tuple[str, ...]:
        return ("spleeter-2stems",)

    def separate(self, source: Path, vocals: Path, background: Path, progress: Callable[[float], None]) -> None:
        from dubbing import spleeter

        if self._mask is None:
            self._mask = spleeter.load(weights.folder_of("spleeter-2stems"), self.threads)
        spleeter.separate(source, vocals, background, self._mask, progress)

    def close(self) -> None:
        self._mask = None


SEPARATORS: dict[str, type[Separator]] = {engine.engine_name: engine for engine in (SpleeterSeparator,)}
