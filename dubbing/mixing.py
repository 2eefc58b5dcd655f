"""Mixing: the placed clips over the ducked background, brought to a loudness, the true peak limited.

Streamed in blocks: memory doesn't grow with the lesson's length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import ffmpeg
import numpy as np
import soundfile

from dubbing import media
from dubbing.audio import BLOCK_SECONDS, blocks, writer
from dubbing.loudness import CONTEXT, LoudnessMeter, decibels, limiter_gains, peaks_near, ratio
from dubbing.media import SAMPLE_RATE

DUCKING = 6.0  # dB the background goes down under speech: there, but never in the way
ATTACK = 0.15  # seconds before a line in which the background goes down
RELEASE = 0.45  # seconds after it
TARGET_LOUDNESS = -16.0  # LUFS: what streaming platforms ask of speech (AES TD1008)
LOUDNESS_RANGE = (-36.0, -8.0)  # LUFS that can be asked for: above it nothing but limiting is left, below it nobody listens
HIGHEST_TRUE_PEAK = -1.0  # dBTP of the delivered file (EBU R128)
CEILING = -2.0  # dBTP before encoding, which adds to peaks; lowered when the encoded track shows that it added more
TRACK_KBPS = 192  # of the encoded track in stereo; half for mono
LARGEST_VOICE_GAIN = 24.0  # dB: more would be lifting noise
_LOUDNESS_TOLERANCE = 0.15  # LU, against the 0.5 that are promised for the delivered file
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
    """Write the finished track, AAC in MP4.

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
                progress(min(1.0, (position + 1) * BLOCK_SECONDS / duration) * 0.4)
    measured = meter.integrated()
    gain = loudness - measured if measured is not None else 0.0
    ceiling, reached, raised = CEILING, None, 0.0
    for _ in range(_PASSES):
        limited = _level(before, target, gain, ceiling, progress)
        earlier, (peak, reached) = reached, measured_track(target, channels)
        missing = loudness - reached if measured is not None and reached is not None else 0.0
        gained = reached - earlier if reached is not None and earlier is not None else 0.0
        if raised > 0 and gained < raised / 2:
            missing = min(missing, 0.0)  # the limiter takes what the gain gives: this is as loud as the sound can be
        excess = peak - HIGHEST_TRUE_PEAK + _PEAK_MARGIN
        if abs(missing) <= _LOUDNESS_TOLERANCE and excess <= 0:
            break
        raised = min(missing, _LARGEST_STEP) if abs(missing) > _LOUDNESS_TOLERANCE else 0.0
        gain += raised  # what the limiter took, and what the encoder changed
        ceiling -= excess + _PEAK_MARGIN if excess > 0 else 0.0  # what the encoder added
    before.unlink()
    return Mixed(gain, limited, reached)


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


def _level(before: Path, target: Path, gain: float, ceiling: float, progress: Callable[[float], None] | None) -> float:
    """Apply a gain and the limiter (both dB) and encode. Returns the largest reduction in dB."""
    lowest = 1.0
    with soundfile.SoundFile(before) as source, _encoder(target, source.channels) as write:
        size = BLOCK_SECONDS * SAMPLE_RATE
        for first in range(0, source.frames, size):
            begin, end = max(0, first - CONTEXT), min(source.frames, first + size + CONTEXT)
            source.seek(begin)
            samples = source.read(end - begin, dtype="float32", always_2d=True) * np.float32(ratio(gain))
            gains = limiter_gains(samples, ratio(ceiling))
            inside = slice(first - begin, first - begin + size)
            if gains is not None:
                samples *= gains.astype(np.float32)[:, None]
                lowest = min(lowest, float(gains[inside].min()))
            write(samples[inside])
            if progress:
                progress(0.4 + 0.5 * min(1.0, (first + size) / source.frames))
    return -decibels(lowest)


@contextmanager
def _encoder(target: Path, channels: int) -> Iterator[Callable[[np.ndarray], None]]:
    """AAC in MP4, fed block by block: ffmpeg encodes in a process of its own while the next block is mixed.

    The coder "fast" takes a third of the default's time. Its stereo tools added peaks of 1.5 dB to the sample, so they are off.
    """
    sound = ffmpeg.input("pipe:0", format="f32le", ar=SAMPLE_RATE, ac=channels)
    encoded = sound.output(
        media.address(target),
        format="mp4",
        acodec="aac",
        aac_coder="fast",
        aac_ms=0,
        aac_is=0,
        fflags="+bitexact",
        **{"b:a": f"{TRACK_KBPS * channels // 2}k", "flags:a": "+bitexact"},
    )
    process = encoded.global_args("-v", "error", "-nostats").run_async(pipe_stdin=True, pipe_stderr=True, overwrite_output=True)
    fed = False
    try:
        with suppress(BrokenPipeError):  # it gave up, and says why
            yield lambda samples: process.stdin.write(samples.astype("<f4").tobytes())
            process.stdin.close()
            fed = True
        said = process.stderr.read().decode("utf-8", "replace")
        media.check_written(target, said, process.wait() or int(not fed))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


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
