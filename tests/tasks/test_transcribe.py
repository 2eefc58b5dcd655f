"""The stage that writes down what was said, with a recogniser that is played."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from blocks.store import Store
from blocks.transcription import Recogniser
from dubbing import audio
from dubbing.errors import NoSpeech
from dubbing.hallucinations import LeftOut
from dubbing.lesson import Recording, Word
from dubbing.media import SAMPLE_RATE
from tasks import transcribe as module
from tasks.transcribe import transcribe


class Ear(Recogniser):
    """Hears two people, and a subtitler that isn't there; has less memory than it asked for."""

    engine_name: ClassVar[str] = "ear"
    deaf: bool = False

    def detect_language(self, recording: Path) -> str:
        return "" if self.deaf else "ru"

    def transcribe(self, recording: Path, language: str, progress: Callable[[float], None]) -> list[Word]:
        said = [("Что", "Anna"), ("это?", "Anna"), ("Радуга,", "Boris"), ("конечно.", "Boris")]
        return [Word(text=text, start=n, end=n + 0.9, confidence=0.9, speaker=speaker) for n, (text, speaker) in enumerate(said)]

    def left_out(self) -> list[LeftOut]:
        return [LeftOut(5.0, 6.0, "Субтитры сделал DimaTorzok", "credits of subtitles")]

    def used(self) -> str:
        return "ear (small instead of large)"

    def hear(self, samples: np.ndarray, language: str) -> str:
        return ""

    def align(self, samples: np.ndarray, text: str, language: str) -> list[Word]:
        return []


@pytest.fixture
def sound(store: Store, tmp_path: Path) -> Recording:
    audio.write_clip(tmp_path / "sound.wav", np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE)
    return Recording(media=store.put_file(tmp_path / "sound.wav", audio.WAV), duration=1.0, channels=1, loudness=None)


def test_lines_have_speakers_and_the_transcript_says_what_was_used(store: Store, sound: Recording) -> None:
    transcript = transcribe.function(store, sound=sound, recogniser=Ear(), language=None, name="lesson.mp4")
    assert [(line.speaker, line.text) for line in transcript.utterances] == [("Anna", "Что это?"), ("Boris", "Радуга, конечно.")]
    assert transcript.engine == "ear (small instead of large)"
    assert transcript.language == "ru"


def test_what_was_left_out_is_a_table_in_the_ui(store: Store, sound: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    tables: list[tuple[Any, ...]] = []
    monkeypatch.setattr(module, "publish_table", lambda *given: tables.append(given))
    transcribe.function(store, sound=sound, recogniser=Ear(), language="ru", name="lesson.mp4")
    [(key, rows, description)] = tables
    assert key == "left-out" and "ear" in description
    assert rows == [{"start": 5.0, "end": 6.0, "text": "Субтитры сделал DimaTorzok", "why": "credits of subtitles"}]


def test_where_nobody_speaks_nothing_is_published(store: Store, sound: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "publish_table", lambda *given: pytest.fail("a table of nothing"))
    with pytest.raises(NoSpeech, match=r"lesson\.mp4: no speech was found"):
        transcribe.function(store, sound=sound, recogniser=Ear(deaf=True), language=None, name="lesson.mp4")
