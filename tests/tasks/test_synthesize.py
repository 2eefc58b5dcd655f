"""Engines one after another: who speaks what when one of them can't, and what is kept."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from pydantic import PrivateAttr

from blocks.speech import Speech, SpeechEngine
from blocks.speech_chain import SpeechChain
from blocks.speech_engine import CLONE, Sample
from blocks.store import Store
from dubbing.errors import EngineRefused, ServiceDown
from dubbing.lesson import Cast, Clips, Reference, TranslatedLine, Translation, Voice
from tasks.synthesize import synthesize


class Player(SpeechEngine):
    """Plays tones, a tenth of a second a character, and notes what it played."""

    engine_name: ClassVar[str] = "player"
    seeded: ClassVar[bool] = True
    settings_without_effect: ClassVar[frozenset[str]] = frozenset({"cannot", "down_after", "at_once", "revision"})
    cannot: tuple[str, ...] = ()  # words
    down_after: int = 10**9  # lines
    at_once: int = 1
    revision: str = ""
    _said: list[str] = PrivateAttr(default_factory=list)

    @property
    def said(self) -> list[str]:
        return self._said

    def languages(self) -> list[str]:
        return ["en"]

    def voices(self, language: str) -> list[str]:
        return ["flute", "horn", CLONE]

    def at_once_wanted(self) -> int:
        return self.at_once

    def current_revision(self) -> str:
        return self.revision

    def clones(self) -> Literal["nobody", "speakers", "lines"]:
        return "speakers"

    def synthesize(self, text: str, language: str, voice: str, seed: int) -> Speech:
        if len(self.said) >= self.down_after:
            raise ServiceDown(self.engine_name, "nobody answers")
        for word in self.cannot:
            if word in text:
                raise EngineRefused(f"{self.engine_name}: can't say {word}")
        self.said.append(f"{voice}: {text}")
        pitch = 100 + sum(map(ord, text + voice + self.engine_name + self.revision)) % 300
        return Speech(
            np.sin(2 * np.pi * pitch * np.arange(2400 * len(text)) / 24_000).astype(np.float32) / 2, 24_000, None, (), self.revision
        )

    def synthesize_as(self, text: str, language: str, sample: Sample, seed: int) -> Speech:
        assert sample.path.read_bytes()
        return self.synthesize(text, language, f"{sample.language} {sample.sha256[:4]}", seed)


class Second(Player):
    engine_name: ClassVar[str] = "second"

    def voices(self, language: str) -> list[str]:
        return ["oboe"]

    def clones(self) -> Literal["nobody", "speakers", "lines"]:
        return "nobody"


LINES = ("one is here", "two is here", "three is here", "four is here")
SPEAKERS = ("A", "B", "A", "B")


def translation(*texts: str, voices: Sequence[str | None] = ()) -> Translation:
    chosen = [*voices, *[None] * len(texts)]
    lines = [TranslatedLine(id=f"u{number}", text=text, voice=chosen[number]) for number, text in enumerate(texts)]
    return Translation(language="en", lines=tuple(lines), engine="-")


def cast(speakers: Sequence[str] = SPEAKERS, **first: Voice) -> Cast:
    names = dict.fromkeys(speakers)
    return Cast(
        speaker_of={f"u{number}": speaker for number, speaker in enumerate(speakers)},
        voices={
            "player": {name: first.get(name, Voice(name="flute")) for name in names},
            "second": {name: Voice(name="oboe") for name in names},
        },
        lines={},
    )


def spoken(store: Store, engine: SpeechEngine, voice: str | Cast | None = None, texts: Sequence[str] = LINES, **more: Any) -> Clips:
    result = synthesize.function(store, translation=translation(*texts, **more), engine=engine, voice=voice or cast(), seed=0)
    assert isinstance(result, Clips)
    return result


def by(clips: Clips) -> str:
    return " ".join(clip.engine[0] for clip in clips.lines)


class TestAChain:
    def test_the_first_engine_speaks_all_it_can(self, store: Store) -> None:
        first, second = Player(), Second()
        clips = spoken(store, SpeechChain(chain=[first, second]))
        assert by(clips) == "p p p p" and second.said == []
        assert {clip.instead_of for clip in clips.lines} == {None}

    def test_where_it_refuses_a_line_the_next_speaks_all_of_that_speaker(self, store: Store) -> None:
        clips = spoken(store, SpeechChain(chain=[Player(cannot=("two",)), Second()]))
        assert by(clips) == "p s p s"
        assert [clip.instead_of for clip in clips.lines] == [None, "player: can't say two"] * 2
        assert [clip.voice for clip in clips.lines] == ["flute", "oboe"] * 2 and clips.refused == {}

    @pytest.mark.parametrize(("sample", "why"), [(np.nan, "the clip has samples that are no numbers"), (0.5, "the clip is silent")])
    def test_what_is_no_speech_is_a_refusal(self, store: Store, sample: float, why: str) -> None:
        class Spoilt(Player):
            def synthesize(self, text: str, language: str, voice: str, seed: int) -> Speech:
                speech = super().synthesize(text, language, voice, seed)
                return speech._replace(samples=np.full_like(speech.samples, sample)) if "two" in text else speech

        clips = spoken(store, SpeechChain(chain=[Spoilt(), Second()]))
        assert [clip.instead_of for clip in clips.lines] == [None, f"player: {why}"] * 2

    def test_where_voices_may_be_mixed_it_speaks_that_line_only(self, store: Store) -> None:
        clips = spoken(store, SpeechChain(chain=[Player(cannot=("two",)), Second()], mixing=True))
        assert by(clips) == "p s p p"
        assert [clip.instead_of for clip in clips.lines] == [None, "player: can't say two", None, None]

    def test_a_line_that_nobody_can_say_changes_nobodys_voice(self, store: Store) -> None:
        clips = spoken(store, SpeechChain(chain=[Player(cannot=("two",)), Second(cannot=("two",))]))
        assert [clip.id for clip in clips.lines] == ["u0", "u2", "u3"] and by(clips) == "p p p"
        assert clips.refused == {"u1": "player: can't say two"}

    def test_an_engine_that_would_lose_another_line_helps_nobody(self, store: Store) -> None:
        clips = spoken(store, SpeechChain(chain=[Player(cannot=("two",)), Second(cannot=("four",))]))
        assert by(clips) == "p p p" and list(clips.refused) == ["u1"]

    def test_what_was_spoken_and_not_used_is_there_when_it_is_wanted(self, store: Store) -> None:
        first, second = Player(cannot=("two",)), Second()
        spoken(store, SpeechChain(chain=[first, second]))
        assert len(first.said) == 3
        again = Player()
        spoken(store, SpeechChain(chain=[again, Second()]), texts=["one is here", "2 is here", "three is here", "four is here"])
        assert again.said == ["flute: 2 is here"]
        alone = Second()
        spoken(store, alone, voice="oboe", texts=["two is here"])
        assert alone.said == [], "lines belong to the engine, however it was asked"

    def test_an_engine_that_does_not_speak_the_language_is_not_asked(self, store: Store) -> None:
        class Mute(Second):
            def voices(self, language: str) -> list[str]:
                return []

        assert by(spoken(store, SpeechChain(chain=[Mute(), Player()]))) == "p p p p"

    def test_one_whose_service_is_down_ends_the_stage_and_keeps_what_it_spoke(self, store: Store) -> None:
        first = Player(down_after=2)
        with pytest.raises(ServiceDown, match="player: nobody answers"):
            spoken(store, SpeechChain(chain=[first, Second()]))
        again = Player()
        assert by(spoken(store, SpeechChain(chain=[again, Second()]))) == "p p p p"
        assert len(again.said) == 2

    def test_left_out_it_is_named_in_every_clip(self, store: Store) -> None:
        rest = SpeechChain(chain=[Player(), Second()]).without("player", "player: nobody answers")
        assert rest is not None
        clips = spoken(store, rest)
        assert by(clips) == "s s s s" and {clip.instead_of for clip in clips.lines} == {"player: nobody answers"}

    def test_a_lesson_that_nobody_can_say_is_refused_by_all(self, store: Store) -> None:
        with pytest.raises(EngineRefused, match="player and second spoke none of 4 lines: player: can't say here"):
            spoken(store, SpeechChain(chain=[Player(cannot=("here",)), Second(cannot=("here",))]))


class TestVoices:
    def test_each_speaker_has_the_voice_that_was_cast(self, store: Store) -> None:
        clips = spoken(store, Player(), cast(B=Voice(name="horn")))
        assert [clip.voice for clip in clips.lines] == ["flute", "horn"] * 2

    def test_a_persons_choice_goes_before_it_where_the_engine_has_it(self, store: Store) -> None:
        clips = spoken(store, Player(), voices=[None, "horn", "oboe"])
        assert [clip.voice for clip in clips.lines] == ["flute", "horn", "flute", "flute"]

    def test_a_clone_says_where_it_comes_from(self, store: Store) -> None:
        first = Player()
        media = store.put_bytes(b"sound", "audio/wav")
        own = Voice(name=CLONE, reference=Reference(media=media, start=12.0, end=22.0, language="ru"))
        clips = spoken(store, first, cast(B=own))
        assert [(clip.voice, clip.cloned_from) for clip in clips.lines] == [("flute", None), (CLONE, (12.0, 22.0))] * 2
        assert first.said[1] == f"ru {media.sha256[:4]}: two is here"

    def test_another_recording_or_its_language_is_another_line(self, store: Store) -> None:
        said = []
        for media, language in ((b"a", "ru"), (b"b", "ru"), (b"b", "de"), (b"b", "de")):
            first = Player()
            reference = Reference(media=store.put_bytes(media, "audio/wav"), start=0.0, end=9.0, language=language)
            spoken(store, first, cast(A=Voice(name=CLONE, reference=reference)))
            said.append(len(first.said))
        assert said == [4, 2, 2, 0]

    def test_where_the_seconds_lie_in_the_lesson_does_not_count(self, store: Store) -> None:
        media = store.put_bytes(b"a", "audio/wav")
        for start, lines in ((0.0, 4), (5.0, 0)):
            first = Player()
            reference = Reference(media=media, start=start, end=9.0, language="ru")
            clips = spoken(store, first, cast(A=Voice(name=CLONE, reference=reference)))
            assert len(first.said) == lines and clips.lines[0].cloned_from == (start, 9.0)


class TestManyAtOnce:
    def test_as_many_lines_are_in_hand_as_the_engine_wants(self, store: Store) -> None:
        together = threading.Barrier(3, timeout=600)

        class Waiting(Player):
            def synthesize(self, text: str, language: str, voice: str, seed: int) -> Speech:
                together.wait()  # passes only when three are here
                return super().synthesize(text, language, voice, seed)

        clips = spoken(store, Waiting(at_once=3), "flute", texts=[f"line {number}" for number in range(6)])
        assert [clip.text for clip in clips.lines] == [f"line {number}" for number in range(6)]

    def test_what_comes_out_is_the_same(self, store: Store, tmp_path_factory: pytest.TempPathFactory) -> None:
        other = Store(folder=str(tmp_path_factory.mktemp("store")))
        assert spoken(store, Player(at_once=4)) == spoken(other, Player(at_once=1))


def test_a_lesson_is_never_spoken_by_two_models(store: Store) -> None:
    spoken(store, Player(revision="old"), texts=LINES[:3])
    new = Player(revision="new")
    spoken(store, new, texts=LINES)
    assert sorted(set(new.said)) == sorted(f"flute: {line}" for line in LINES), "the lines that the old one spoke too"
    later = Player(revision="new")
    spoken(store, later, texts=LINES)
    assert later.said == []
