"""Sound in and out of files: extraction, clips, time-stretching. Files are 48 kHz float32 WAV, read and written in blocks."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from dubbing import media
from dubbing.lesson import Sound
from dubbing.media import SAMPLE_RATE

BLOCK_SECONDS = 10  # of sound in memory at a time
WAV = "audio/wav"

SOFT_SYNC = 480  # samples a second by which sound is stretched to stay at its timestamps: 1 %, which nobody hears
HARD_SYNC = 0.02  # seconds that it may be off; more is filled with silence or cut

FADE = 0.004  # seconds at a clip's ends: no click
SPEECH_FLOOR = 10 ** (-45 / 20)  # of the clip's peak: quieter than this at a clip's end is silence
TRIM_MARGIN = 0.03  # seconds kept around the speech: breath and the tails of consonants
STRETCH_TIMEOUT = 120.0  # seconds: Rubber Band runs many times faster than real time

Samples = np.ndarray  # [frames] or [frames, channels], float32


def extract(path: Path, sound: Sound, duration: float, target: Path, progress: Callable[[float], None] | None = None) -> None:
    """Decode the lesson's sound to 48 kHz float, sample 0 at the lesson's start, exactly `duration` seconds.

    A stream that starts late is preceded by silence, a gap in its timestamps is filled, mono stays mono, more than two channels become two.
    Sound whose clock runs against its timestamps is resampled to keep up with them.
    """
    # "+res": the resampler is there from the start. Where stretching has to put it in later, ffmpeg applies `first_pts` once more and
    # fills in as much silence as has been played.
    frames = round(duration * SAMPLE_RATE)
    stream = (
        media.source(path)[str(sound.stream)]
        .filter("aresample", SAMPLE_RATE, **{"async": SOFT_SYNC, "min_hard_comp": HARD_SYNC, "first_pts": 0, "flags": "+res"})
        .filter("apad", whole_len=frames)
        .filter("atrim", end_sample=frames)
    )
    channels = min(sound.channels, 2)
    graph = stream.output(
        media.address(target), format="wav", acodec="pcm_f32le", ac=channels, rf64="auto", fflags="+bitexact", map_metadata=-1
    )
    media.run(graph, target, seconds=duration, progress=progress)


def blocks(path: Path, seconds: float = BLOCK_SECONDS) -> Iterator[Samples]:
    """The file's samples, [frames, channels], a block at a time."""
    with soundfile.SoundFile(path) as file:
        yield from file.blocks(blocksize=round(seconds * file.samplerate), dtype="float32", always_2d=True)


def writer(path: Path, channels: int, sample_rate: int = SAMPLE_RATE) -> soundfile.SoundFile:
    """A float32 WAV open for writing: RF64, since plain WAV ends at 4 GB and libsndfile writes the time of day into it."""
    return soundfile.SoundFile(path, "w", sample_rate, channels, subtype="FLOAT", format="RF64")


def write_clip(path: Path, samples: Samples, sample_rate: int) -> None:
    with writer(path, 1, sample_rate) as file:
        file.write(samples.astype(np.float32))


def frames_of(path: Path) -> int:
    return int(soundfile.info(path).frames)


def peak(path: Path) -> float:
    """Largest absolute sample value."""
    return max((float(np.abs(block).max()) for block in blocks(path) if len(block)), default=0.0)


def trim_silence(samples: Samples, sample_rate: int) -> Samples:
    """A mono clip without the silence at its ends. Silence throughout stays as it is."""
    level = np.abs(samples)
    loud = np.flatnonzero(level > max(float(level.max(initial=0.0)) * SPEECH_FLOOR, 1e-6))
    if not len(loud):
        return samples
    margin = round(TRIM_MARGIN * sample_rate)
    return samples[max(0, loud[0] - margin) : loud[-1] + margin + 1]


def fade_ends(samples: Samples, sample_rate: int) -> Samples:
    """A copy whose first and last milliseconds rise from and fall to nothing."""
    length = min(round(FADE * sample_rate), len(samples) // 2)
    if not length:
        return samples
    faded = samples.copy()
    ramp = np.linspace(0.0, 1.0, length, dtype=np.float32)
    faded[:length] *= ramp
    faded[-length:] *= ramp[::-1]
    return faded


def fitted(clip: Path, rate: float) -> Samples:
    """The clip as it will be heard: at 48 kHz, `rate` times as fast at the same pitch, its ends faded.

    Rubber Band where ffmpeg has it, else ffmpeg's own atempo. Exactly `round(frames / rate)` samples, so that no neighbour is overlapped.
    """
    samples, sample_rate = soundfile.read(clip, dtype="float32")
    natural = len(samples) / sample_rate
    frames = max(1, round(natural / rate * SAMPLE_RATE))
    stretched = _resampled(samples, sample_rate, SAMPLE_RATE) if rate == 1.0 else _stretch(clip, rate)
    if len(stretched) < frames:
        stretched = np.pad(stretched, (0, frames - len(stretched)))
    elif len(stretched) > frames:
        # What goes beyond is the stretcher's tail: the faded end is moved up to the place's end, no sound is lost but silence.
        stretched = stretched[:frames]
    return fade_ends(stretched.astype(np.float32), SAMPLE_RATE)


def _stretch(clip: Path, rate: float) -> Samples:
    filters = f"aresample={SAMPLE_RATE},apad=pad_dur=0.1," + (f"rubberband=tempo={rate}" if _has_rubberband() else f"atempo={rate}")
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", media.address(clip), "-af", filters, "-f", "f32le", "-ac", "1", "pipe:1"]
    done = subprocess.run(command, capture_output=True, timeout=STRETCH_TIMEOUT, check=False)
    if done.returncode:
        raise media.FfmpegFailed(done.stderr.decode("utf-8", "replace").strip().splitlines()[-1])
    return np.frombuffer(done.stdout, dtype="<f4")


@cache
def _has_rubberband() -> bool:
    if not shutil.which("ffmpeg"):
        return False
    listed = subprocess.run(["ffmpeg", "-hide_banner", "-filters"], capture_output=True, text=True, check=False).stdout
    return " rubberband " in listed


def chunks_at_silences(recording: Path, sample_rate: int, longest: float) -> Iterator[tuple[float, Samples]]:
    """The recording as mono chunks of at most `longest` seconds at another rate, each with its start in seconds.

    A chunk ends at the quietest tenth of a second in its last quarter, so that no word is cut where there is any pause.
    """
    with soundfile.SoundFile(recording) as file:
        start = 0
        while start < file.frames:
            file.seek(start)
            samples = file.read(round(longest * file.samplerate), dtype="float32", always_2d=True).mean(axis=1)
            if start + len(samples) < file.frames:
                samples = samples[: _quietest(samples, file.samplerate)]
            yield start / file.samplerate, _resampled(samples, file.samplerate, sample_rate)
            start += len(samples)


def _quietest(samples: Samples, sample_rate: int) -> int:
    """The middle of the quietest tenth of a second in the last quarter."""
    step = sample_rate // 10
    first = len(samples) * 3 // 4
    count = (len(samples) - first) // step
    energies = np.square(samples[first : first + count * step]).reshape(count, step).sum(axis=1)
    return int(first + (int(energies.argmin()) + 0.5) * step)


def read_span(recording: Path, start: float, end: float, sample_rate: int) -> Samples:
    """A span of the recording, mono, at another rate."""
    with soundfile.SoundFile(recording) as file:
        file.seek(min(file.frames, max(0, round(start * file.samplerate))))
        samples = file.read(max(0, round((end - max(start, 0.0)) * file.samplerate)), dtype="float32", always_2d=True).mean(axis=1)
        return _resampled(samples, file.samplerate, sample_rate)


def _resampled(samples: Samples, sample_rate: int, target: int) -> Samples:
    if sample_rate == target:
        return samples
    import soxr  # imported where it is used: a cached run needs none of this

    return np.asarray(soxr.resample(samples, sample_rate, target), dtype=np.float32)
