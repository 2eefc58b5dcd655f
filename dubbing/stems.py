"""What all separators share: a recording streams through a network, the voice comes out, and what remains without it is the background.

Networks have a sample rate of their own and look at seconds at a time. So sound is resampled on the way in and the voice on the way out,
and what was read waits until its voice is known. Memory does not grow with the lesson's length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
import soxr

from dubbing import audio
from dubbing.errors import BadInput
from dubbing.media import SAMPLE_RATE

CHANNELS = 2  # what the networks were trained on; of our sound the greatest number

Samples = np.ndarray  # [frames, channels], float32


class Voice(Protocol):
    """A network at work: sound goes in piece by piece, its voice comes out later, in all as many samples as went in."""

    def push(self, samples: Samples) -> Iterable[Samples]: ...

    def finish(self) -> Iterable[Samples]: ...


def separate(
    source: Path,
    vocals: Path,
    background: Path,
    voice_in: Callable[[Iterable[Samples], int], Iterable[Samples]],
    progress: Callable[[float], None],
) -> None:
    """Write the voice in `source`, and what remains without it. All three are 48 kHz float WAV of the same length and channels.

    Args:
        voice_in: takes the sound in blocks and the number of its channels, and gives the voice in blocks of any size, in all as long.

    Raises:
        BadInput: the source has another sample rate, or more than two channels.
    """
    with soundfile.SoundFile(source) as file:
        rate, channels, frames = file.samplerate, file.channels, file.frames
    if rate != SAMPLE_RATE or channels > CHANNELS:
        raise BadInput(f"{source.name}: separation takes {SAMPLE_RATE} Hz and one or two channels, this has {rate} Hz and {channels}")
    waiting: deque[Samples] = deque()  # read, but their voice is not known yet: a segment and what the resamplers hold

    def read() -> Iterator[Samples]:
        for block in audio.blocks(source):
            waiting.append(block)
            yield block

    done = 0
    try:
        with audio.writer(vocals, channels) as vocals_file, audio.writer(background, channels) as background_file:
            for voice in voice_in(read(), channels):
                vocals_file.write(voice)
                background_file.write(_take(waiting, len(voice)) - voice)
                done += len(voice)
                progress(done / frames)
    except BaseException:
        for half_written in (vocals, background):
            half_written.unlink(missing_ok=True)
        raise


def _take(waiting: deque[Samples], count: int) -> Samples:
    """Remove the first `count` samples."""
    taken = []
    while count:
        block = waiting.popleft()
        if len(block) > count:
            waiting.appendleft(block[count:])
            block = block[:count]
        taken.append(block)
        count -= len(block)
    return np.concatenate(taken)


def at_rate(rate: int, blocks: Iterable[Samples], channels: int, network: Voice) -> Iterator[Samples]:
    """The voice in 48 kHz sound by a network that works at another rate: in all exactly as many samples as came in, each at its place."""
    down = soxr.ResampleStream(SAMPLE_RATE, rate, channels, dtype="float32")
    up = soxr.ResampleStream(rate, SAMPLE_RATE, channels, dtype="float32")
    nothing = np.zeros((0, channels), np.float32)
    taken = given = 0

    def resampled_voice() -> Iterator[Samples]:
        nonlocal taken
        for block in blocks:
            taken += len(block)
            for voice in network.push(down.resample_chunk(block)):
                yield up.resample_chunk(voice)
        for voice in network.push(down.resample_chunk(nothing, last=True)):
            yield up.resample_chunk(voice)
        for voice in network.finish():
            yield up.resample_chunk(voice)
        yield up.resample_chunk(nothing, last=True)

    for voice in resampled_voice():
        block = voice[: taken - given]  # the two resamplers' rounding may add a sample
        given += len(block)
        if len(block):
            yield block
    if given < taken:  # or lose one
        yield np.zeros((taken - given, channels), np.float32)
