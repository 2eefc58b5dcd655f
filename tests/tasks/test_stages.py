"""Single stages with stand-ins for their engines: what they promise when something goes wrong with a line."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from blocks.speech import Speech, SpeechEngine
from blocks.store import Store
from dubbing.errors import EngineRefused
from dubbing.lesson import Transcript, TranslatedLine, Translation, Utterance
from tasks.fit import fit
from tasks.synthesize import synthesize


class Whistle(SpeechEngine):
    """Whistles a tenth of a second a character; refuses the word "no", says nothing for "hush", drones on for "long"."""

    engine_name: ClassVar[str] = "whistle"
    log: ClassVar[list[str]] = []

    def languages(self) -> list[str]:
        return ["en"]

    def voices(self, language: str) -> list[str]:
        return ["whistle"]

    def synthesize(self, text: str, language: str, voice: str, seed: int) -> Speech:
        self.log.append(text)
        if "no" in text:
            raise EngineRefused("whistle: can't say no")
        seconds = 60.0 if "long" in text else 0.1 * len(text)
        level = 0.0 if "hush" in text else 0.3
        return Speech((level * np.sin(np.arange(round(seconds * 24_000)) / 5)).astype(np.float32), 24_000)


def lesson(*texts: str) -> tuple[Transcript, Translation]:
    utterances = [Utterance(id=f"u{n}", text=f"слово {n}", start=5.0 * n, end=5.0 * n + 4, confidence=1.0) for n in range(len(texts))]
    lines = [TranslatedLine(id=utterance.id, text=text) for utterance, text in zip(utterances, texts, strict=True)]
    return Transcript(language="ru", utterances=tuple(utterances), engine="-"), Translation(language="en", lines=tuple(lines), engine="-")


def test_a_line_that_cannot_be_spoken_has_no_clip_and_says_why(store: Store) -> None:
    transcript, translation = lesson("good words to say", "say no", "more good words")
    clips = synthesize.function(store, translation=translation, engine=Whistle(), voice="whistle", seed=0)
    assert [clip.id for clip in clips.lines] == ["u0", "u2"]
    assert clips.refused == {"u1": "whistle: can't say no"}
    timeline = fit.function(store, transcript=transcript, translation=translation, clips=clips, duration=20.0)
    assert timeline.lines[1].clip is None
    assert timeline.lines[1].text == "say no"
    assert timeline.lines[1].flags == ("speech: whistle: can't say no",)


def test_speech_that_is_silent_is_none_and_far_too_long_is_flagged(store: Store) -> None:
    _, translation = lesson("hush, please, hush", "a long long line")
    clips = synthesize.function(store, translation=translation, engine=Whistle(), voice="whistle", seed=0)
    assert "the clip is silent" in clips.refused["u0"]
    assert clips.lines[0].flags == ("speech: 60.0 s for 16 characters",)


def test_a_lesson_of_which_nothing_can_be_spoken_is_refused(store: Store) -> None:
    _, translation = lesson("no", "no no")
    with pytest.raises(EngineRefused, match="spoke none of 2 lines"):
        synthesize.function(store, translation=translation, engine=Whistle(), voice="whistle", seed=0)


def test_the_same_words_are_spoken_once_and_placed_twice(store: Store) -> None:
    transcript, translation = lesson("thank you all", "thank you all")
    Whistle.log.clear()
    clips = synthesize.function(store, translation=translation, engine=Whistle(), voice="whistle", seed=0)
    assert Whistle.log == ["thank you all"]
    timeline = fit.function(store, transcript=transcript, translation=translation, clips=clips, duration=20.0)
    assert [line.start for line in timeline.lines] == [0.0, 5.0]
    assert timeline.lines[0].clip == timeline.lines[1].clip


def test_a_line_too_long_for_its_place_is_placed_whole_and_flagged(store: Store) -> None:
    transcript, translation = lesson("a long line", "after it")
    clips = synthesize.function(store, translation=translation, engine=Whistle(), voice="whistle", seed=0)
    timeline = fit.function(store, transcript=transcript, translation=translation, clips=clips, duration=10.0)
    first, second = timeline.lines
    assert first.end - first.start == pytest.approx(60.0 / 1.3, abs=0.1)  # the clip of 60 s, nothing cut off
    assert second.start >= first.end
    assert any("longer than its place" in flag for flag in first.flags)
    assert timeline.duration == pytest.approx(second.end)


def test_clips_are_kept_in_the_store_by_content(store: Store) -> None:
    _, translation = lesson("good words to say")
    clips = synthesize.function(store, translation=translation, engine=Whistle(), voice="whistle", seed=0)
    again = synthesize.function(Store(folder=store.folder + "2"), translation=translation, engine=Whistle(), voice="whistle", seed=0)
    assert clips == again
    assert (Path(store.folder) / clips.lines[0].media.address).stat().st_size == clips.lines[0].media.size
