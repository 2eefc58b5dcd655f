"""Who speaks in a lesson, and with which voices they are dubbed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from blocks.chatterbox import Chatterbox
from blocks.speech import Kokoro
from blocks.speech_chain import SpeechChain
from blocks.speech_engine import CLONE
from blocks.store import Store
from dubbing import audio
from dubbing.lesson import Recording, Speakers, Stems, Transcript, Utterance, Voice
from tasks.speakers import are_told_apart, cast, speakers

RATE = 48_000


def voice(pitch: float, seconds: float, level: float = 0.1) -> np.ndarray:
    """Pulses with a formant: as periodic as a voice."""
    time = np.arange(round(seconds * RATE)) / RATE
    return level * sum(np.sin(2 * np.pi * pitch * n * time) / n for n in range(1, 12))


def lesson(store: Store, folder: Path, *said: tuple[float, float, str | None, float], seconds: float = 40.0) -> tuple[Stems, Transcript]:
    """Start, end, speaker and pitch of each line."""
    vocals = np.zeros(round(seconds * RATE), dtype=np.float32)
    for start, end, _, pitch in said:
        vocals[round(start * RATE) : round(end * RATE)] = voice(pitch, end - start)[: round(end * RATE) - round(start * RATE)]
    recordings = []
    for samples in (vocals, 0.001 * np.random.default_rng(1).standard_normal(len(vocals)).astype(np.float32)):
        with audio.writer(folder / "stem.wav", 1) as file:
            file.write(samples)
        media = store.put_file(folder / "stem.wav", audio.WAV)
        recordings.append(Recording(media=media, duration=seconds, channels=1, loudness=None))
    utterances = tuple(
        Utterance(id=f"u{number}", text="слово", start=start, end=end, confidence=0.9, speaker=speaker)
        for number, (start, end, speaker, _) in enumerate(said)
    )
    return Stems(vocals=recordings[0], background=recordings[1], pitch=None), Transcript(language="ru", utterances=utterances, engine="-")


TWO = ((1.0, 9.0, "A", 110.0), (10.0, 13.5, "B", 220.0), (14.0, 16.0, "A", 110.0), (17.0, 19.5, "B", 220.0))


def test_each_speaker_has_a_pitch_and_a_recording(store: Store, tmp_path: Path) -> None:
    stems, transcript = lesson(store, tmp_path, *TWO)
    found = speakers.function(store, stems=stems, transcript=transcript, cloned="speakers")
    first, second = found.speakers
    assert (first.name, first.seconds, second.name, second.seconds) == ("A", 10.0, "B", 6.0)
    assert first.pitch == pytest.approx(110, abs=3) and second.pitch == pytest.approx(220, abs=5)
    assert first.reference and second.reference and found.lines == {}
    assert (first.reference.start, first.reference.end) == (0.95, 9.15) and first.reference.language == "ru"
    samples, rate = soundfile.read(store.path_of(second.reference.media))
    assert rate == 24_000 and samples.ndim == 1
    assert len(samples) / rate == pytest.approx(second.reference.end - second.reference.start, abs=0.01)
    assert np.abs(samples).max() > 0.05


def test_where_nobody_is_cloned_there_are_no_recordings(store: Store, tmp_path: Path) -> None:
    stems, transcript = lesson(store, tmp_path, *TWO)
    found = speakers.function(store, stems=stems, transcript=transcript, cloned="nobody")
    assert [speaker.reference for speaker in found.speakers] == [None, None] and found.lines == {}
    assert found.speakers[0].pitch == pytest.approx(110, abs=3)


def test_lines_are_cloned_from_themselves_where_that_is_asked_for_and_can_be(store: Store, tmp_path: Path) -> None:
    stems, transcript = lesson(store, tmp_path, *TWO)
    found = speakers.function(store, stems=stems, transcript=transcript, cloned="lines")
    assert list(found.lines) == ["u0", "u1"], "the others are shorter than 3 s"
    assert (found.lines["u1"].start, found.lines["u1"].end) == (9.95, 13.65)


def test_a_lesson_whose_speakers_were_not_told_apart_has_one(store: Store, tmp_path: Path) -> None:
    stems, transcript = lesson(store, tmp_path, *((start, end, None, pitch) for start, end, _, pitch in TWO))
    found = speakers.function(store, stems=stems, transcript=transcript, cloned="speakers")
    [only] = found.speakers
    assert only.name == "" and only.reference and not are_told_apart(transcript)


def test_a_recording_that_the_service_takes(store: Store, tmp_path: Path) -> None:
    """The service's own check, on what was picked."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[2] / "deployments" / "gpu_server" / "chatterbox"))
    from chatterbox_service.references import checked

    stems, transcript = lesson(store, tmp_path, *TWO)
    for speaker in speakers.function(store, stems=stems, transcript=transcript, cloned="speakers").speakers:
        assert speaker.reference
        assert len(checked(store.read_bytes(speaker.reference.media))) >= 3 * 24_000


class TestCasting:
    @pytest.fixture
    def found(self, store: Store, tmp_path: Path) -> tuple[Transcript, Speakers]:
        stems, transcript = lesson(store, tmp_path, *TWO)
        return transcript, speakers.function(store, stems=stems, transcript=transcript, cloned="lines")

    def test_one_engine_and_one_speaker_have_one_voice(self, found: tuple[Transcript, Speakers]) -> None:
        assert cast(Kokoro(), None, "en", found[0], 110.0, None) == "am_michael"
        assert cast(Kokoro(), None, "en", found[0], 220.0, None) == "af_heart"
        assert cast(Kokoro(), "bf_emma", "en", found[0], 110.0, None) == "bf_emma"

    def test_several_speakers_have_voices_of_their_own_pitch(self, found: tuple[Transcript, Speakers]) -> None:
        chosen = cast(Kokoro(), None, "en", found[0], 150.0, found[1])
        assert not isinstance(chosen, str)
        assert [chosen.voice("kokoro", f"u{number}").name for number in range(4)] == ["am_michael", "af_heart"] * 2

    def test_speakers_of_one_pitch_have_different_voices_where_there_are_enough(self) -> None:
        many = Kokoro().voice_each("en", {name: 110.0 for name in "ABC"})
        assert many["A"] == "am_michael" and len(set(many.values())) == 3 and all(voice[1] == "m" for voice in many.values())
        few = Kokoro().voice_each("fr", {name: 110.0 for name in "ABC"})
        assert set(few.values()) == {"ff_siwis"}

    def test_clones_have_their_speakers_recordings(self, found: tuple[Transcript, Speakers]) -> None:
        transcript, people = found
        chosen = cast(Chatterbox(clone=2), None, "en", transcript, None, people)
        assert not isinstance(chosen, str)
        assert [chosen.voice("chatterbox", f"u{number}") for number in range(4)] == [
            Voice(name=CLONE, reference=people.speakers[number % 2].reference) for number in range(4)
        ]

    def test_lines_have_their_own_where_there_is_one(self, found: tuple[Transcript, Speakers]) -> None:
        transcript, people = found
        chosen = cast(Chatterbox(clone=3), None, "en", transcript, None, people)
        assert not isinstance(chosen, str)
        assert chosen.voice("chatterbox", "u1") == Voice(name=CLONE, reference=people.lines["u1"])
        assert chosen.voice("chatterbox", "u3") == Voice(name=CLONE, reference=people.speakers[1].reference)

    def test_who_has_no_recording_is_spoken_by_the_models_own_voice(self, found: tuple[Transcript, Speakers]) -> None:
        transcript, people = found
        silent = people.model_copy(update={"speakers": (people.speakers[0], people.speakers[1].model_copy(update={"reference": None}))})
        chosen = cast(Chatterbox(), None, "en", transcript, None, silent)
        assert not isinstance(chosen, str)
        assert [chosen.voice("chatterbox", name).name for name in ("u0", "u1")] == [CLONE, "default"]

    def test_each_engine_of_a_chain_has_its_own_voices(self, found: tuple[Transcript, Speakers]) -> None:
        transcript, people = found
        chosen = cast(SpeechChain(), None, "en", transcript, None, people)
        assert not isinstance(chosen, str)
        assert [chosen.voice(engine, "u1").name for engine in ("chatterbox", "kokoro")] == [CLONE, "af_heart"]

    def test_a_voice_that_is_asked_for_is_everybodys_in_the_engines_that_have_it(self, found: tuple[Transcript, Speakers]) -> None:
        transcript, people = found
        chosen = cast(SpeechChain(), "bm_lewis", "en", transcript, None, people)
        assert not isinstance(chosen, str)
        assert {chosen.voice("kokoro", line.id).name for line in transcript.utterances} == {"bm_lewis"}
        assert {chosen.voice("chatterbox", line.id).name for line in transcript.utterances} == {CLONE}

    def test_lines_of_nobody_in_particular_are_said_by_who_speaks_most(self, found: tuple[Transcript, Speakers]) -> None:
        transcript, people = found
        chosen = cast(Kokoro(), None, "en", transcript, None, people)
        assert not isinstance(chosen, str) and chosen.voice("kokoro", "merged").name == "am_michael"
