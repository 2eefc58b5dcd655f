"""What an hour costs in fit, mix and render:  python -m tests.benchmarks.hour [minutes]

A lesson of that length is made by repeating the sample, picture and sound; the engines are stood in for: lines every six seconds with clips
of noise between three and eight seconds long, so that the timing has something to solve. Fit, mix and render are the real ones. Prints
seconds and the peak memory of the process that ran each.
"""

from __future__ import annotations

import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from blocks.store import Store
from dubbing import audio, media
from dubbing.lesson import Clip, Clips, Lesson, Noun, Recording, Stems, Transcript, TranslatedLine, Translation, Utterance
from tasks.fit import fit
from tasks.mix import mix
from tasks.render import render
from tasks.subtitles import subtitles

SAMPLE = Path(__file__).parent.parent.parent / "samples" / "lesson_ru.mp4"
LINE_EVERY = 6.0  # seconds
CLIP_RATE = 24_000  # Hz


def repeated_sample(minutes: float, folder: Path) -> Path:
    target = folder / "long.mp4"
    command = ["ffmpeg", "-v", "error", "-stream_loop", "-1", "-i", str(SAMPLE), "-t", str(minutes * 60), "-c", "copy", str(target)]
    subprocess.run(command, check=True)
    return target


def ingested(store: Store, path: Path) -> tuple[Lesson, Stems]:
    facts = media.probe(path, path.name)
    duration = media.measured_extent(path, facts, path.name).end
    lesson = Lesson(
        media=store.put_copy(path, "video/mp4"),
        container=facts.container,
        duration=duration,
        picture=facts.picture,
        sound=facts.sound,
        has_chapters=False,
    )
    with store.scratch() as folder:
        audio.extract(path, facts.sound, duration, folder / "sound.wav")
        sound = Recording(media=store.put_file(folder / "sound.wav", audio.WAV), duration=duration, channels=2, loudness=-20.0)
    return lesson, Stems(vocals=sound, background=sound, pitch=None)


def spoken(store: Store, duration: float) -> tuple[Transcript, Translation, Clips]:
    random = np.random.default_rng(0)
    utterances, lines, clips = [], [], []
    for start in np.arange(0.5, duration - LINE_EVERY, LINE_EVERY):
        text = f"Line at {start:.1f} seconds of a long lesson."
        utterance = Utterance(id=Utterance.id_of(text, start), text=text, start=start, end=start + LINE_EVERY - 0.8, confidence=1.0)
        length = float(random.uniform(3.0, 8.0) if random.random() < 0.3 else random.uniform(3.0, 5.5))
        noise = random.normal(0, 0.1, round(length * CLIP_RATE)).astype(np.float32)
        with store.scratch() as folder:
            audio.write_clip(folder / "clip.wav", noise, CLIP_RATE)
            artifact = store.put_file(folder / "clip.wav", audio.WAV)
        utterances.append(utterance)
        lines.append(TranslatedLine(id=utterance.id, text=text))
        clip_length = len(noise) / CLIP_RATE
        clips.append(Clip(id=utterance.id, text=text, media=artifact, duration=clip_length, engine="noise", voice="-", seed=None))
    transcript = Transcript(language="ru", utterances=tuple(utterances), engine="none")
    return transcript, Translation(language="en", lines=tuple(lines), engine="none"), Clips(lines=tuple(clips), refused={})


def measured(name: str, work: Callable[[], Noun]) -> Noun:
    """Run in a forked process, so that its peak memory is its own; ffmpeg's is counted with it."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def run() -> None:
        started = time.monotonic()
        result = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        sender.send((time.monotonic() - started, peak / 1024, result))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    seconds, peak, result = receiver.recv()
    process.join()
    print(f"{name:10}{seconds:8.1f} s {peak:8.0f} MB", flush=True)
    return result  # type: ignore[no-any-return]


def main(minutes: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        store = Store(folder=f"{name}/store")
        lesson, stems = ingested(store, repeated_sample(minutes, Path(name)))
        transcript, translation, clips = spoken(store, lesson.duration)
        print(f"{lesson.duration / 60:.0f} minutes, {len(clips.lines)} lines")
        timeline = measured(
            "fit",
            lambda: fit.function(store, transcript=transcript, translation=translation, clips=clips, duration=lesson.duration),
        )
        written = subtitles.function(store, transcript=transcript, timeline=timeline, kind="sentences", recogniser=None)
        voices = [(line.start, line.clip) for line in timeline.lines if line.clip]  # type: ignore[attr-defined]
        mixed = measured(
            "mix",
            lambda: mix.function(store, stems=stems, voices=voices, duration=timeline.duration, loudness=-16.0, ducking=6.0),  # type: ignore[attr-defined]
        )
        measured("render", lambda: render.function(store, lesson=lesson, mix=mixed, subtitles=written))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
