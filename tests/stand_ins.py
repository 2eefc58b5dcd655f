"""The whole program with engines that take no time:  python -m tests.stand_ins dub lesson.mp4 …   (any verb of `coursedub`)

The stages, the cache, the store, the flow and the command line are the real ones; what is stood in for is only what the engines compute,
and that depends on their inputs as an engine's does. Every use of an engine is written to a log as soon as it begins, a line each, so
that a test can count what was computed, in whichever process.

Environment:
    STAND_INS_LOG       file that the uses are appended to: "<stage> <what>"
    STAND_INS_DIE       "stage:kind:n": the process kills itself with SIGKILL at the n-th event of that kind of that stage
    STAND_INS_SECONDS   how long each use of an engine takes (default 0)
    STAND_INS_SETTINGS  JSON, settings of the engines: {"translator": {"style": "b"}, …}
    STAND_INS_VERSIONS  JSON, versions of the packages and weights that engines say they are made of: {"speech": "2", …}
    STAND_INS_LINES     seconds between two lines of a lesson (default 2)
"""

from __future__ import annotations

import os

os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")  # before Prefect is imported

import hashlib
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import soundfile

from blocks.separation import SEPARATORS, Separator
from blocks.speech import SPEECH_ENGINES, Speech, SpeechEngine
from blocks.transcription import RECOGNISERS, Recogniser
from blocks.translation import TRANSLATORS, Translator
from dubbing.lesson import Term, Termbase, TranslatedLine, Utterance, Word
from dubbing.translating import Window

VOICES = ["vera", "viktor"]
LOW = 165.0  # Hz, below which a voice is viktor's
RATE = 24_000  # Hz of the clips


def used(stage: str, what: str) -> None:
    """An engine begins to work."""
    if log := os.environ.get("STAND_INS_LOG"):
        with open(log, "a") as file:
            file.write(f"{stage} {what}\n")
    time.sleep(float(os.environ.get("STAND_INS_SECONDS", "0")))


def uses(log: Path) -> list[str]:
    """What was computed so far."""
    return log.read_text().splitlines() if log.exists() else []


class StandInSeparator(Separator):
    """Half of everything is the voice."""

    _block_type_slug = "stand-in-separator"
    engine_name: ClassVar[str] = "stand-in"
    settings_without_effect: ClassVar[frozenset[str]] = frozenset({"threads"})
    style: str = "a"
    note: str = ""  # a setting that happens to change nothing, as every engine here has one
    threads: int = 0

    def separate(self, source: Path, vocals: Path, background: Path, progress: Callable[[float], None]) -> None:
        used("separate", self.style)
        with soundfile.SoundFile(source) as sound:
            facts = {"samplerate": sound.samplerate, "channels": sound.channels, "format": "RF64", "subtype": "FLOAT"}
            with soundfile.SoundFile(vocals, "w", **facts) as voice, soundfile.SoundFile(background, "w", **facts) as rest:
                for block in sound.blocks(1 << 18, dtype="float32", always_2d=True):
                    voice.write(block / 2)
                    rest.write(block - block / 2)
                    progress(min(1.0, sound.tell() / sound.frames))


class StandInRecogniser(Recogniser):
    """Hears a sentence of five words every few seconds, the same in every lesson."""

    _block_type_slug = "stand-in-recogniser"
    engine_name: ClassVar[str] = "stand-in"
    settings_without_effect: ClassVar[frozenset[str]] = frozenset({"threads"})
    style: str = "a"
    note: str = ""
    threads: int = 0

    def detect_language(self, recording: Path) -> str:
        return "ru"

    def transcribe(self, recording: Path, language: str, progress: Callable[[float], None]) -> list[Word]:
        used("transcribe", language)
        every = float(os.environ.get("STAND_INS_LINES", "2"))
        words = []
        for number in range(int(soundfile.info(recording).duration / every)):
            start, step = number * every + 0.1, 0.7 * every / 5
            for place, text in enumerate(["Это", "предложение", f"номер{'' if self.style == 'a' else self.style}", f"{number}", "здесь."]):
                at = start + place * step
                words.append(Word(text=text, start=round(at, 3), end=round(at + step, 3), confidence=0.9))
            progress(number * every / soundfile.info(recording).duration)
        return words

    def hear(self, samples: np.ndarray, language: str) -> str:
        used("inspect", hashlib.sha256(np.ascontiguousarray(samples).tobytes()).hexdigest()[:8])
        return "what was heard"

    def align(self, samples: np.ndarray, text: str, language: str) -> list[Word]:
        used("subtitles", text)
        words = text.split()
        step = len(samples) / self.SAMPLE_RATE / len(words)
        return [Word(text=word, start=n * step, end=(n + 1) * step, confidence=1.0) for n, word in enumerate(words)]


class StandInTranslator(Translator):
    """Says which line it is. When told to, it reads ahead and finds two terms in any lesson."""

    _block_type_slug = "stand-in-translator"
    engine_name: ClassVar[str] = "stand-in"
    shortens: ClassVar[bool] = True
    heeds_budgets: ClassVar[bool] = True
    settings_without_effect: ClassVar[frozenset[str]] = frozenset({"threads"})
    style: str = "a"
    note: str = ""
    threads: int = 0

    reads_ahead: bool = False

    @property
    def reads(self) -> bool:
        return self.reads_ahead

    def pieces(self, utterances: Sequence[Utterance]) -> list[tuple[Utterance, ...]]:
        return [tuple(utterances)]

    def read(self, piece: Sequence[Utterance], source: str, target: str) -> Termbase:
        used("terms", str(len(piece)))
        return Termbase(
            summary="Numbered sentences.",
            terms=(Term(source="предложение", translation="clause"), Term(source="номер", translation="number")),
        )

    def translate(self, window: Window, source: str, target: str, recording: Path | None = None) -> list[TranslatedLine]:
        wanted = {n: window.lines[n - 1] for n in window.wanted}
        used("shorten" if window.strict else "translate", ",".join(line.id for line in wanted.values()))
        lines = []
        for line in wanted.values():
            text = f"This is sentence {line.text.split()[3]}" + ("" if window.strict else f" in {target} {self.style}")
            text += ", asked for again" if window.known else ""  # other requests may get other words
            lines.append(TranslatedLine(id=line.id, text=f"{text}."))
        return lines


class StandInSpeech(SpeechEngine):
    """A tone of its own for each text and voice, 50 ms a character."""

    _block_type_slug = "stand-in-speech"
    engine_name: ClassVar[str] = "stand-in"
    seeded: ClassVar[bool] = True
    settings_without_effect: ClassVar[frozenset[str]] = frozenset({"threads"})
    style: str = "a"
    note: str = ""
    threads: int = 0

    def voices(self, language: str) -> list[str]:
        return VOICES

    def languages(self) -> list[str]:
        return ["en", "es"]

    def suited(self, language: str, pitch: float | None) -> list[str]:
        return VOICES[::-1] if pitch and pitch < LOW else VOICES

    def synthesize(self, text: str, language: str, voice: str, seed: int) -> Speech:
        used("synthesize", text)
        number = int.from_bytes(hashlib.sha256(f"{text}|{voice}|{seed}|{self.style}".encode()).digest()[:4], "big")
        seconds = np.arange(round(0.05 * len(text) * RATE)) / RATE
        return Speech((0.2 * np.sin(2 * np.pi * (100 + number % 400) * seconds)).astype(np.float32), RATE)


def stand_in() -> None:
    """Put the stand-ins where the embedded engines are."""
    settings: dict[str, Any] = json.loads(os.environ.get("STAND_INS_SETTINGS", "{}"))

    versions: dict[str, str] = json.loads(os.environ.get("STAND_INS_VERSIONS", "{}"))

    def made(engine: type[Any], family: str) -> Callable[[], Any]:
        if family in versions:
            fingerprint = engine.fingerprint
            changed = {"packages": {"some-package": versions[family]}}
            engine.fingerprint = lambda self: fingerprint(self) | changed
        return lambda: engine(**settings.get(family, {}))

    tables: list[tuple[dict[str, Any], type[Any], str]] = [
        (SEPARATORS, StandInSeparator, "separator"),
        (RECOGNISERS, StandInRecogniser, "recogniser"),
        (TRANSLATORS, StandInTranslator, "translator"),
        (SPEECH_ENGINES, StandInSpeech, "speech"),
    ]
    for table, engine, family in tables:
        for name in table:
            table[name] = made(engine, family)


def die_when_told() -> None:
    """Kill this process as STAND_INS_DIE says."""
    if not (when := os.environ.get("STAND_INS_DIE")):
        return
    from flows import terminal

    stage, kind, number = when.split(":")
    left = [int(number)]
    progress = terminal.Progress.__call__

    def watch(self: terminal.Progress, event: Any) -> None:
        if (event.stage, event.kind) == (stage, kind):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        progress(self, event)

    terminal.Progress.__call__ = watch  # type: ignore[method-assign]


def main(arguments: Sequence[str]) -> int:
    from flows import command_line

    stand_in()
    die_when_told()
    return command_line.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
