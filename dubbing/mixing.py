"""Mixing: the placed clips over the ducked background, brought to a loudness, the true peak limited.

Streamed in blocks: memory doesn't grow with the lesson's length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from dubbing.audio import BLOCK_SECONDS, blocks, writer
from dubbing.loudness import CONTEXT, LoudnessMeter, decibels, limiter_gains, ratio
from dubbing.media import SAMPLE_RATE

DUCKING = 6.0  # dB the background goes down under speech: there, but never in the way
ATTACK = 0.15  # seconds before a line in which the background goes down
RELEASE = 0.45  # seconds after it
TARGET_LOUDNESS = -16.0  # LUFS: what streaming platforms ask of speech (AES TD1008)
LOUDNESS_RANGE = (-36.0, -8.0)  # LUFS that can be asked for: above it nothing but limiting is left, below it nobody listens
CEILING = -2.0  # dBTP before encoding: AAC overshoots, and the delivered file must stay under -1
LARGEST_VOICE_GAIN = 24.0  # dB: more would be lifting noise
_LOUDNESS_TOLERANCE = 0.15  # LU, against the 0.5 that are promised for the delivered file
_PASSES = 4


class Placed(NamedTuple):
    """A clip as it will be heard: mono, 48 kHz."""

    start: int  # sample
    clip: Path


class Mixed(NamedTuple):
    gain: float  # dB over everything
    limited: float  # dB, the largest reduction
    loudness: float | None  # LUFS


def voice_loudness(clips: Sequence[Placed]) -> float | None:
    """Integrated loudness of all clips one after another, LUFS."""
    meter = LoudnessMeter(channels=1)
    for placed in clips:
        meter.add(_read(placed.clip)[:, None])
    return meter.integrated()


def mix(
    background: Path,
    clips: Sequence[Placed],
    duration: float,
    target: Path,
    scratch: Path,
    *,
    voice_gain: float,
    loudness: float,
    ducking: float = DUCKING,
    progress: Callable[[float], None] | None = None,
) -> Mixed:
    """Write the finished track.

    Args:
        background: WAV at 48 kHz, one or two channels; silence follows where it is shorter than `duration`.
        voice_gain: dB on every clip before mixing.
        loudness: LUFS of the result.
        scratch: a folder for the mix before levelling.
    """
    before = scratch / "before_levelling.wav"
    channels = soundfile.info(background).channels
    meter = LoudnessMeter(channels)
    with writer(before, channels) as file:
        for position, block in enumerate(_voice_over(background, clips, duration, ratio(voice_gain), ducking)):
            meter.add(block)
            file.write(block)
            if progress:
                progress(min(1.0, (position + 1) * BLOCK_SECONDS / duration) * 0.5)
    measured = meter.integrated()
    gain = loudness - measured if measured is not None else 0.0
    for _ in range(_PASSES):
        limited, reached = _level(before, target, ratio(gain), progress)
        if measured is None or reached is None or abs(loudness - reached) <= _LOUDNESS_TOLERANCE:
            break
        gain += loudness - reached  # what the limiter took
    before.unlink()
    return Mixed(gain, limited, reached)


def ducking_envelope(clips: Sequence[tuple[int, int]], ducking: float) -> tuple[np.ndarray, np.ndarray]:
    """Breakpoints of the background's gain: samples and decibels, to be joined by straight lines.

    Args:
        clips: first sample and sample after the last, in order, without overlap.
    """
    points: list[tuple[float, float]] = [(0.0, 0.0)]
    attack, release = ATTACK * SAMPLE_RATE, RELEASE * SAMPLE_RATE
    for start, end in clips:
        previous, level = points[-1]
        if level == 0.0 and start - attack < previous and len(points) > 1:
            points.pop()  # the background had not come back yet: it stays down
        else:
            points.append((max(start - attack, previous), 0.0))
            points.append((float(max(start, previous)), -ducking))
        points.append((float(end), -ducking))
        points.append((end + release, 0.0))
    return np.array([at for at, _ in points]), np.array([level for _, level in points])


def _voice_over(background: Path, clips: Sequence[Placed], duration: float, voice: float, ducking: float) -> Iterator[np.ndarray]:
    """Blocks of the mix before levelling."""
    total = round(duration * SAMPLE_RATE)
    lengths = [soundfile.info(placed.clip).frames for placed in clips]
    at, levels = ducking_envelope([(placed.start, placed.start + length) for placed, length in zip(clips, lengths, strict=True)], ducking)
    sound = _padded(background, total)
    first, next_clip = 0, 0
    sounding: list[tuple[int, np.ndarray]] = []  # clips that reach into the current block: start and samples
    for block in sound:
        last = first + len(block)
        gains = np.interp(np.arange(first, last), at, levels)
        block = block * np.power(10.0, gains / 20).astype(np.float32)[:, None]
        while next_clip < len(clips) and clips[next_clip].start < last:
            sounding.append((clips[next_clip].start, _read(clips[next_clip].clip) * np.float32(voice)))
            next_clip += 1
        for start, samples in sounding:
            begin, end = max(start, first), min(start + len(samples), last)
            if end > begin:
                block[begin - first : end - first] += samples[begin - start : end - start, None]
        sounding = [(start, samples) for start, samples in sounding if start + len(samples) > last]
        yield block
        first = last


def _padded(path: Path, total: int) -> Iterator[np.ndarray]:
    """The file's blocks, cut or followed by silence to exactly `total` samples."""
    done, channels = 0, soundfile.info(path).channels
    for block in blocks(path):
        block = block[: total - done]
        if len(block):
            yield block
        done += len(block)
    while done < total:
        length = min(BLOCK_SECONDS * SAMPLE_RATE, total - done)
        yield np.zeros((length, channels), dtype=np.float32)
        done += length


def _level(before: Path, target: Path, gain: float, progress: Callable[[float], None] | None) -> tuple[float, float | None]:
    """Apply the gain and the limiter. Returns the largest reduction in dB and the loudness reached."""
    ceiling, lowest = ratio(CEILING), 1.0
    with soundfile.SoundFile(before) as source, writer(target, source.channels) as file:
        meter = LoudnessMeter(source.channels)
        size = BLOCK_SECONDS * SAMPLE_RATE
        for first in range(0, source.frames, size):
            begin, end = max(0, first - CONTEXT), min(source.frames, first + size + CONTEXT)
            source.seek(begin)
            samples = source.read(end - begin, dtype="float32", always_2d=True) * np.float32(gain)
            gains = limiter_gains(samples, ceiling)
            if gains is not None:
                samples *= gains.astype(np.float32)[:, None]
            samples = samples[first - begin : first - begin + size]
            if gains is not None:
                lowest = min(lowest, float(gains[first - begin : first - begin + size].min()))
            meter.add(samples)
            file.write(samples)
            if progress:
                progress(0.5 + 0.5 * min(1.0, (first + size) / source.frames))
    return -decibels(lowest), meter.integrated()


def _read(clip: Path) -> np.ndarray:
    samples, _ = soundfile.read(clip, dtype="float32")
    return np.asarray(samples)
