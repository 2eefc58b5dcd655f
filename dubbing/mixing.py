"""Mixing: the placed clips over the ducked background, brought to a loudness, the true peak limited.

Streamed in blocks: memory doesn't grow with the lesson's length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import ffmpeg
import numpy as np
import soundfile

from dubbing import encoding, media
from dubbing.audio import BLOCK_SECONDS, blocks, writer
from dubbing.encoding import Piece
from dubbing.loudness import CONTEXT, LoudnessMeter, decibels, limiter_gains, peaks_near, ratio
from dubbing.media import SAMPLE_RATE

DUCKING = 6.0  # dB the background goes down under speech: there, but never in the way
ATTACK = 0.15  # seconds before a line in which the background goes down
RELEASE = 0.45  # seconds after it
TARGET_LOUDNESS = -16.0  # LUFS: what streaming platforms ask of speech (AES TD1008)
LOUDNESS_RANGE = (-36.0, -8.0)  # LUFS that can be asked for: above it nothing but limiting is left, below it nobody listens
HIGHEST_TRUE_PEAK = -1.0  # dBTP of the delivered file (EBU R128)
CEILING = -2.0  # dBTP before encoding, which adds to peaks; lowered when the encoded track shows that it added more
LARGEST_VOICE_GAIN = 24.0  # dB: more would be lifting noise
GAIN_STEP = 0.2  # dB
_LOUDNESS_TOLERANCE = 0.2  # LU, against the 0.5 that are promised for the delivered file
_PEAK_MARGIN = 0.1  # dB
_PASSES = 5
_LARGEST_STEP = 12.0  # dB by which a pass goes over the one before


class Placed(NamedTuple):
    """A clip as it will be heard: mono, 48 kHz."""

    start: int  # sample
    clip: Path


class Mixed(NamedTuple):
    gain: float  # dB over everything
    limited: float  # dB, the largest reduction
    loudness: float | None  # LUFS of the encoded track
    pieces: Mapping[str, Piece]  # that were encoded or found, by digest


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
    kept: Callable[[str], Path | None] = lambda digest: None,
    progress: Callable[[float], None] | None = None,
) -> Mixed:
    """Write the finished track, AAC in MP4.

    Args:
        background: WAV at 48 kHz, one or two channels; silence follows where it is shorter than `duration`.
        voice_gain: dB on every clip before mixing.
        loudness: LUFS of the result.
        scratch: a folder for the mix before levelling, and for pieces of the track.
        kept: pieces that were encoded before, by digest.
    """
    before = scratch / "before_levelling.wav"
    channels = soundfile.info(background).channels
    meter = LoudnessMeter(channels)
    with writer(before, channels) as file:
        for position, block in enumerate(_voice_over(background, clips, duration, ratio(voice_gain), ducking)):
            meter.add(block)
            file.write(block)
            if progress:
                progress(min(1.0, (position + 1) * BLOCK_SECONDS / duration) * 0.4)
    measured = meter.integrated()
    gain = in_steps(loudness - measured) if measured is not None else 0.0
    ceiling, reached, raised = CEILING, None, 0.0
    encoded: dict[str, Piece] = {}
    for _ in range(_PASSES):
        with soundfile.SoundFile(before) as source:
            levelled = _Levelled(source, gain, ceiling, progress)
            pieces = encoding.encode(levelled.read, source.frames, channels, scratch, kept)
            encoding.join([piece.path for piece in pieces], source.frames, channels, target)
        encoded |= {piece.digest: piece for piece in pieces}
        earlier, (peak, reached) = reached, measured_track(target, channels)
        missing = loudness - reached if measured is not None and reached is not None else 0.0
        gained = reached - earlier if reached is not None and earlier is not None else 0.0
        if raised > 0 and gained < raised / 2:
            missing = min(missing, 0.0)  # the limiter takes what the gain gives: this is as loud as the sound can be
        excess = peak - HIGHEST_TRUE_PEAK + _PEAK_MARGIN
        if abs(missing) <= _LOUDNESS_TOLERANCE and excess <= 0:
            break
        raised = in_steps(min(missing, _LARGEST_STEP)) if abs(missing) > _LOUDNESS_TOLERANCE else 0.0
        gain += raised  # what the limiter took, and what the encoder changed
        ceiling -= GAIN_STEP * math.ceil(excess / GAIN_STEP + 1) if excess > 0 else 0.0  # what the encoder added
    before.unlink()
    return Mixed(gain, levelled.limited, reached, encoded)


def in_steps(gain: float) -> float:
    """Gains in dB are chosen in steps no ear can tell, so that a changed line leaves the rest of the mix as it was, to the last bit."""
    return round(gain / GAIN_STEP) * GAIN_STEP


def ducking_envelope(clips: Sequence[tuple[int, int]], ducking: float) -> tuple[np.ndarray, np.ndarray]:
    """Breakpoints of the background's gain: samples and decibels, to be joined by straight lines.

    Args:
        clips: first sample and sample after the last, in order, without overlap.
    """
    points: list[tuple[float, float]] = []
    attack, release = ATTACK * SAMPLE_RATE, RELEASE * SAMPLE_RATE
    for start, end in clips:
        if points and start - attack < points[-1][0]:
            points.pop()  # the background would not have come back yet: it stays down
        else:
            points += [(start - attack, 0.0), (start, -ducking)]  # before the lesson's start too: it begins on its way down
        points += [(end, -ducking), (end + release, 0.0)]
    points = points or [(0.0, 0.0)]
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


class _Levelled:
    """The mix with a gain and the limiter applied (dB), read piece by piece."""

    def __init__(self, before: soundfile.SoundFile, gain: float, ceiling: float, progress: Callable[[float], None] | None) -> None:
        self._before, self._gain, self._ceiling, self._progress = before, np.float32(ratio(gain)), ratio(ceiling), progress
        self._lowest = 1.0

    @property
    def limited(self) -> float:
        """The largest reduction so far, dB."""
        return -decibels(self._lowest)

    def read(self, first: int, last: int) -> np.ndarray:
        begin, end = max(0, first - CONTEXT), min(self._before.frames, last + CONTEXT)
        self._before.seek(begin)
        samples = self._before.read(end - begin, dtype="float32", always_2d=True) * self._gain
        gains = limiter_gains(samples, self._ceiling)
        inside = slice(first - begin, last - begin)
        if gains is not None:
            samples *= gains.astype(np.float32)[:, None]
            self._lowest = min(self._lowest, float(gains[inside].min(initial=1.0)))
        if self._progress:
            self._progress(0.4 + 0.5 * last / max(1, self._before.frames))
        return samples[inside]


def measured_track(track: Path, channels: int) -> tuple[float, float | None]:
    """True peak (dBTP; -6 stands for anything below) and loudness (LUFS) of a track as a player decodes it."""
    decoded = ffmpeg.input(media.address(track)).output("pipe:1", format="f32le", acodec="pcm_f32le", ac=channels, ar=SAMPLE_RATE)
    process = decoded.global_args("-v", "error", "-nostdin").run_async(pipe_stdout=True)
    size = BLOCK_SECONDS * SAMPLE_RATE * channels * 4
    highest, carried, meter = 0.0, np.zeros((0, channels), dtype=np.float32), LoudnessMeter(channels)
    try:
        while content := process.stdout.read(size):
            samples = np.frombuffer(content, dtype="<f4").reshape(-1, channels)
            meter.add(samples)
            samples = np.concatenate([carried, samples])
            highest = max(highest, float(peaks_near(samples, 2 * ratio(HIGHEST_TRUE_PEAK - 3.0)).max(initial=0.0)))
            carried = samples[-CONTEXT:]
        if process.wait():
            raise media.FfmpegFailed("the encoded track can't be decoded")
    finally:
        process.kill()
        process.wait()
    return max(-6.0, decibels(highest)), meter.integrated()


def _read(clip: Path) -> np.ndarray:
    samples, _ = soundfile.read(clip, dtype="float32")
    return np.asarray(samples)
