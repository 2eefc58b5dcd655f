"""The base of all separators; `blocks/separation.py` lists them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path

from blocks.engine import Engine


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
