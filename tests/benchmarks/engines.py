"""What the GPU server's engines cost on this machine:  python -m tests.benchmarks.engines [minutes] [--cpu-minutes 1] [--only demucs …]

Demucs and WhisperX's three models on the GPU, where there is one, and on the CPU. The networks are as large as the published ones and have
random weights, which cost what trained ones cost; but Whisper has to be stopped when it has said as much as a lecturer does. For each:
seconds that a minute of sound takes once the model is loaded, and the most of the GPU's memory that was taken, the model's own included.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import soxr

from blocks.demucs import DemucsSeparator
from blocks.recogniser import RATE, WINDOW
from blocks.whisperx import WhisperX, _Recognised
from dubbing import audio, media, weights
from dubbing.media import SAMPLE_RATE
from dubbing.weights import WeightsFile
from tests.engines import checkpoints

SAMPLE = Path(__file__).parent.parent.parent / "samples" / "lesson_ru.mp4"
SENTENCE = "белый свет состоит из лучей всех цветов и каждый из них преломляется в капле воды по своему "
TOKENS = 150  # that Whisper says in 30 s: a fast speaker of Russian; CTranslate2 stops at half of its limit
Device = Literal["cpu", "cuda"]


def lesson(minutes: float, folder: Path) -> Path:
    """The sample's sound, over and over."""
    target = folder / f"{minutes:g}.wav"
    if not target.exists():
        probed = media.probe(SAMPLE, SAMPLE.name)
        audio.extract(SAMPLE, probed.sound, probed.duration, folder / "sample.wav")
        samples, _ = soundfile.read(folder / "sample.wav", dtype="float32", always_2d=True)
        samples = np.resize(np.repeat(samples, 2 // samples.shape[1], axis=1), (round(minutes * 60 * SAMPLE_RATE), 2))
        with audio.writer(target, 2) as file:
            file.write(samples)
    return target


class Taken:
    """The most of the GPU's memory that was taken meanwhile, by whatever library, in bytes."""

    def __init__(self, device: Device) -> None:
        self.most = 0
        self._device = device

    @contextmanager
    def watched(self) -> Iterator[None]:
        if self._device == "cpu":
            yield
            return
        import torch

        over = threading.Event()
        before = torch.cuda.mem_get_info()[0]

        def watch() -> None:
            while not over.wait(0.01):
                self.most = max(self.most, before - torch.cuda.mem_get_info()[0])

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def measured(name: str, device: Device, minutes: float, warm: Callable[[], object], work: Callable[[], object]) -> float:
    """Seconds a minute of sound takes."""
    taken = Taken(device)
    with taken.watched():
        started = time.monotonic()
        warm()
        loading = time.monotonic() - started
        started = time.monotonic()
        work()
        seconds = time.monotonic() - started
    memory = f"{taken.most / 1e6:8.0f} MB" if device == "cuda" else " " * 11
    print(f"{name:34}{device:5}{seconds / minutes:9.2f} s a minute {memory}  first use {loading:6.1f} s, {minutes:g} minutes", flush=True)
    return seconds / minutes


def separation(device: Device, minutes: float, folder: Path) -> float:
    checkpoint = folder / "htdemucs"
    if not checkpoint.exists():
        checkpoints.demucs(checkpoint, **checkpoints.HTDEMUCS)
    [file] = checkpoint.iterdir()
    content = file.read_bytes()
    entry = weights.find("htdemucs")
    pinned = entry.model_copy(
        update={"files": (WeightsFile(name=file.name, size=len(content), sha256=hashlib.sha256(content).hexdigest()),)}
    )
    os.environ["COURSEDUB_WEIGHTS_DIR_HTDEMUCS"] = str(checkpoint)
    catalogue, weights.catalogue = weights.catalogue, lambda: (pinned,)
    separator = DemucsSeparator(device=device)
    try:
        short, whole = lesson(0.5, folder), lesson(minutes, folder)
        voice = folder / f"voice by {device}.wav"

        def separate(recording: Path, voice: Path) -> None:
            separator.separate(recording, voice, folder / "background.wav", lambda share: None)

        name = "Demucs (htdemucs)"
        return measured(name, device, minutes, lambda: separate(short, voice), lambda: separate(whole, folder / "voice.wav"))
    finally:
        weights.catalogue = catalogue
        separator.close()


def difference(folder: Path) -> float:
    """Of the voices that both devices gave for the same half minute, as a share of their level."""
    ours, theirs = (soundfile.read(folder / f"voice by {device}.wav", dtype="float32")[0] for device in ("cuda", "cpu"))
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def recognition(device: Device, minutes: float, folder: Path) -> float:
    if not (folder / "whisper").exists():
        checkpoints.whisper(folder / "whisper", **checkpoints.WHISPER_LARGE)
    compute_type = "float16" if device == "cuda" else "int8"
    engine = WhisperX(model=str(folder / "whisper"), compute_type=compute_type, device=device, aligned=False)
    samples = heard(minutes, folder)
    with engine._pipeline(compute_type, device) as pipeline:
        pipeline.model.max_length = 2 * TOKENS
    work = lambda: engine._recognised(samples, 0.0, "ru")  # noqa: E731
    try:
        name = f"WhisperX: Whisper large, {compute_type}"
        return measured(name, device, minutes, lambda: engine._recognised(samples[: RATE * 30], 0.0, "ru"), work)
    finally:
        engine.close()


def alignment(device: Device, minutes: float, folder: Path) -> float:
    if not (folder / "aligner").exists():
        checkpoints.aligner(folder / "aligner", **checkpoints.WAV2VEC2_LARGE)
    engine = WhisperX(device=device, aligners={"ru": str(folder / "aligner")})
    samples = heard(minutes, folder)
    starts = np.arange(0.0, minutes * 60 - WINDOW + 1, WINDOW)
    spans = [_Recognised(4 * SENTENCE.split(), start, start + WINDOW, -0.1) for start in starts]

    def align(spans: list[_Recognised]) -> None:
        sound_of = lambda span: samples[round(span.start * RATE) : round(span.end * RATE)]  # noqa: E731
        found = engine._by_network(spans, sound_of, "ru", str(folder / "aligner"), lambda share: None)
        assert all(found)

    try:
        return measured("WhisperX: alignment, large wav2vec2", device, minutes, lambda: align(spans[:1]), lambda: align(spans))
    finally:
        engine.close()


def speakers(device: Device, minutes: float, folder: Path) -> float:
    if not (folder / "diariser").exists():
        checkpoints.diariser(folder / "diariser", batch=32, step=0.1, **checkpoints.PYANNET_3)
    engine = WhisperX(device=device, aligned=False, diarised=True, diariser=str(folder / "diariser"))
    short, whole = lesson(0.5, folder), lesson(minutes, folder)
    try:
        turns = lambda recording: engine._turns(recording, lambda share: None)  # noqa: E731
        return measured("WhisperX: speakers, pyannote 4", device, minutes, lambda: turns(short), lambda: turns(whole))
    finally:
        engine.close()


def heard(minutes: float, folder: Path) -> np.ndarray:
    """Mono, as Whisper hears it."""
    samples, _ = soundfile.read(lesson(minutes, folder), dtype="float32")
    return soxr.resample(samples.mean(axis=1), SAMPLE_RATE, RATE).astype(np.float32)


ENGINES = {"demucs": separation, "whisper": recognition, "alignment": alignment, "speakers": speakers}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("minutes", type=float, nargs="?", default=10.0, help="of sound on a GPU")
    parser.add_argument("--cpu-minutes", type=float, default=1.0, help="of sound on the CPU; 0: not there")
    parser.add_argument("--only", nargs="+", choices=ENGINES, default=list(ENGINES))
    options = parser.parse_args()

    import torch

    logging.basicConfig(level=logging.WARNING)
    devices: list[tuple[Device, float]] = [("cuda", options.minutes)] if torch.cuda.is_available() else []
    devices += [("cpu", options.cpu_minutes)] if options.cpu_minutes else []
    print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU", f"torch {torch.__version__}", sep=", ", flush=True)
    with tempfile.TemporaryDirectory() as name:
        for only in options.only:
            taken = [ENGINES[only](device, minutes, Path(name)) for device, minutes in devices]
            if len(taken) == 2:
                print(f"{'':34}the CPU takes {taken[1] / taken[0]:.0f} times as long", flush=True)
            if len(taken) == 2 and only == "demucs":
                print(f"{'':34}the voices differ by {difference(Path(name)):.1e} of their level", flush=True)


if __name__ == "__main__":
    main()
