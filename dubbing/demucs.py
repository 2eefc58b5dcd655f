"""Hybrid Transformer Demucs: the voice by a network that looks at the waveform and at the spectrum (Rouard, Massa & Défossez, ICASSP 2023).

The network sees seconds at a time. Segments overlap and fade into each other with triangular weights, as in the authors' own
`demucs.apply.apply_model`; here they follow each other while the sound streams by, so memory does not grow with the lesson's length. What
is not voice is the background: their sum is the original.

Where memory runs out the segments are halved, down to `SHORTEST`. A shorter segment costs quality at its ends and nothing else, so what a
device makes of it counts as the same result.

The weights are a pickle, which runs code when loaded: they are loaded only after their digest was found right (`dubbing.weights`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dubbing import audio, devices, stems
from dubbing.errors import WeightsRefused
from dubbing.stems import CHANNELS, Samples

MODEL_RATE = 44_100  # Hz, what the network was trained on
OVERLAP = 0.25  # of a segment, shared with the next one
SHORTEST = 1.0  # seconds: shorter segments have too little to go by, and a network that has no room for one has none at all
STEM = "vocals"
QUIET = 1e-8  # added to the level that sound is divided by: silence stays silence

Network = Callable[[Samples], Samples]
"""A segment of any length up to the network's own, [frames, 2] at 44.1 kHz -> its voice, of the same shape."""


class Level(NamedTuple):
    """Of the recording's mono sum. The network was trained on sound of mean 0 and deviation 1."""

    mean: float
    deviation: float


TRAINED = Level(0.0, 1.0)


def separate(
    source: Path,
    vocals: Path,
    background: Path,
    network: Network,
    segment: float,
    progress: Callable[[float], None],
    warn: Callable[[str], None] = lambda message: None,
) -> None:
    """Write the voice in `source`, and what remains without it (`dubbing.stems.separate`).

    Args:
        segment: seconds the network looks at.
        warn: is told when segments have to be shorter.
    """
    level = level_of(source)
    stems.separate(source, vocals, background, lambda blocks, channels: voice_in(blocks, channels, network, segment, level, warn), progress)


def voice_in(
    blocks: Iterable[Samples],
    channels: int,
    network: Network,
    segment: float,
    level: Level = TRAINED,
    warn: Callable[[str], None] = lambda message: None,
) -> Iterator[Samples]:
    """The voice in 48 kHz sound, block by block: in all exactly as many samples as came in, each at its place."""
    return stems.at_rate(MODEL_RATE, blocks, channels, _Segments(channels, network, round(segment * MODEL_RATE), level, warn))


def level_of(source: Path) -> Level:
    """The recording's mean and standard deviation, from the file in blocks."""
    count, total, squares = 0, 0.0, 0.0
    for block in audio.blocks(source):
        mono = block.mean(axis=1, dtype=np.float64)
        count, total, squares = count + len(mono), total + float(mono.sum()), squares + float(np.square(mono).sum())
    mean = total / max(count, 1)
    return Level(mean, math.sqrt(max(squares / max(count, 1) - mean**2, 0.0)) + QUIET)


class _Segments:
    """Sound at the model's rate in, its voice out, by overlapping segments."""

    def __init__(self, channels: int, network: Network, length: int, level: Level, warn: Callable[[str], None]) -> None:
        self._channels = channels
        self._network = network
        self._length = length
        self._level = level
        self._warn = warn
        self._before = np.zeros((0, channels), np.float32)  # sound before `_samples`: what a short last segment has to go by
        self._samples = np.zeros((0, channels), np.float32)  # their voice is not complete yet
        self._summed = np.zeros((0, channels), np.float32)  # voice times weight, from the first of `_samples` on
        self._weights = np.zeros(0, np.float32)

    def push(self, samples: Samples) -> Iterator[Samples]:
        self._samples = np.concatenate([self._samples, samples])
        while len(self._samples) >= self._length:
            if self._add(self._samples[: self._length], 0, self._length):
                yield self._complete(self._step())

    def finish(self) -> Iterator[Samples]:
        """The rest. The last segments end with the sound: what they lack they get from before it, else there is silence around them."""
        while left := len(self._samples):
            segment = np.concatenate([self._before, self._samples[: self._length]])[-self._length :]
            lacking = self._length - len(segment)
            segment = np.pad(segment, ((lacking // 2, lacking - lacking // 2), (0, 0)))
            new = min(left, self._length)
            if self._add(segment, len(segment) - (lacking - lacking // 2) - new, new):
                yield self._complete(min(self._step(), left))

    def _step(self) -> int:
        return int((1 - OVERLAP) * self._length)

    def _add(self, segment: Samples, start: int, count: int) -> bool:
        """Add the voice of the next `count` samples, which begin at `start` of the segment, to what is summed.

        False: memory ran out, and segments are shorter from now on.
        """
        ran_out = False
        try:
            voice = self._voice(segment)
        except Exception as error:
            if not devices.is_out_of_memory(error) or self._length // 2 < SHORTEST * MODEL_RATE:
                raise
            ran_out = True
        if ran_out:  # outside, so that the failure's frames, and all they hold, are gone
            before = self._length / MODEL_RATE
            self._length //= 2
            self._warn(f"demucs: out of memory with segments of {before:.1f} s; going on with {self._length / MODEL_RATE:.1f} s")
            return False
        weights = _triangle(self._length)[:count]
        grown = max(0, count - len(self._weights))
        self._summed = np.pad(self._summed, ((0, grown), (0, 0)))
        self._weights = np.pad(self._weights, (0, grown))
        self._summed[:count] += weights[:, None] * voice[start : start + count]
        self._weights[:count] += weights
        return True

    def _voice(self, segment: Samples) -> Samples:
        levelled = (segment - np.float32(self._level.mean)) / np.float32(self._level.deviation)
        voice = self._network(np.repeat(levelled, CHANNELS // self._channels, axis=1))
        if self._channels == 1:
            voice = voice.mean(axis=1, keepdims=True)
        return voice * np.float32(self._level.deviation)

    def _complete(self, count: int) -> Samples:
        """The voice of the next `count` samples, to which no later segment adds."""
        voice = self._summed[:count] / self._weights[:count, None]
        self._before = np.concatenate([self._before, self._samples[:count]])[-self._length :]
        self._samples, self._summed, self._weights = (part[count:].copy() for part in (self._samples, self._summed, self._weights))
        return voice.astype(np.float32)


def _triangle(length: int) -> np.ndarray:
    """Weights that rise to the middle of a segment and fall again."""
    rising = np.arange(1, length // 2 + 1, dtype=np.float32)
    falling = np.arange(length - length // 2, 0, -1, dtype=np.float32)
    return np.concatenate([rising, falling]) / (length - length // 2)


class LoadedNetwork:
    """The network with its weights, on a device."""

    def __init__(self, model: Any, device: str) -> None:
        self._model = model
        self.device = device
        self.segment = float(model.segment)  # seconds, the longest that it takes
        self._stem = model.sources.index(STEM)

    def __call__(self, segment: Samples) -> Samples:
        import torch

        try:
            # A shorter segment than it was trained on is padded to that length, unless it is told another one: nothing would be saved.
            self._model.segment = Fraction(len(segment), MODEL_RATE)
            with torch.no_grad():
                mix = torch.from_numpy(np.ascontiguousarray(segment.T))[None].to(self.device)
                voice = self._model(mix)[0, self._stem]
                return np.asarray(voice.cpu().numpy().T, dtype=np.float32)
        except Exception as error:
            if devices.is_out_of_memory(error):
                devices.release(self.device)
            raise


def load(checkpoint: Path, device: str, threads: int = 0) -> LoadedNetwork:
    """The network in a checkpoint whose digest was verified, by the package's own loading code.

    Raises:
        WeightsRefused: it is no network with a stem for the voice, at 44.1 kHz.
    """
    from demucs.pretrained import get_model
    from demucs.repo import ModelLoadingError

    devices.set_torch_threads(threads)
    try:
        model = get_model(checkpoint.stem.split("-")[0], repo=checkpoint.parent)
    except (ModelLoadingError, KeyError, TypeError, AttributeError) as error:
        raise WeightsRefused(f"{checkpoint.name}: no network of Demucs ({error})") from error
    if STEM not in model.sources or model.samplerate != MODEL_RATE or model.audio_channels != CHANNELS:
        found = f"{', '.join(model.sources)} at {model.samplerate} Hz, {model.audio_channels} channels"
        raise WeightsRefused(f"{checkpoint.name}: separates {found}; {STEM} at {MODEL_RATE} Hz, {CHANNELS} channels, are needed")
    return LoadedNetwork(model.to(device).eval(), device)
