"""Kokoro, heard again by Whisper: it says what it was given, in every language that it claims. With the real weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from blocks.speech import LOW_VOICE, SPEECH_ENGINES, Kokoro, Speech
from blocks.transcription import RATE, FasterWhisper
from dubbing.audio import trim_silence
from dubbing.errors import BadSetting, EngineRefused, UnsupportedLanguage
from dubbing.pitch import median_pitch
from dubbing.verification import word_errors

SENTENCES = {
    "en": "Sunlight looks white, but it is made of many colours.",
    "es": "La luz del sol parece blanca, pero tiene muchos colores.",
    "fr": "La lumière du soleil paraît blanche, mais elle a plusieurs couleurs.",
    "it": "La luce del sole sembra bianca, ma è fatta di molti colori.",
    "pt": "A luz do sol parece branca, mas tem muitas cores.",
    "hi": "सूरज की रोशनी सफेद दिखती है, लेकिन उसमें कई रंग होते हैं।",
    "ja": "太陽の光は白く見えますが、たくさんの色でできています。",
    "zh": "阳光看起来是白色的，但它由许多颜色组成。",
}
HEARD_AGAIN = ("en", "es", "fr", "it", "pt")


@pytest.fixture(scope="module")
def kokoro() -> Iterator[Kokoro]:
    engine = Kokoro()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def spoken(kokoro: Kokoro) -> dict[str, Speech]:
    """The sentence of each language in its default voice."""
    return {tag: kokoro.synthesize(text, tag, kokoro.default_voice(tag, None), 0) for tag, text in SENTENCES.items()}


@pytest.fixture(scope="module")
def whisper() -> Iterator[FasterWhisper]:
    recogniser = FasterWhisper()
    yield recogniser
    recogniser.close()


def resampled(speech: Speech) -> np.ndarray:
    import soxr

    return soxr.resample(speech.samples, speech.sample_rate, RATE)


def test_there_is_a_sentence_for_every_language_that_it_claims(kokoro: Kokoro) -> None:
    assert {tag.partition("-")[0] for tag in kokoro.languages()} == set(SENTENCES)


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_is_audible_clean_and_of_a_plausible_length(spoken: dict[str, Speech], language: str) -> None:
    speech = spoken[language]
    assert speech.samples.dtype == np.float32 and speech.samples.ndim == 1
    assert np.isfinite(speech.samples).all()
    assert 0.1 < np.abs(speech.samples).max() < 1.5  # float: a little over full scale is lost nowhere
    assert 2.0 < len(trim_silence(speech.samples, speech.sample_rate)) / speech.sample_rate < 8.0


@pytest.mark.parametrize("language", HEARD_AGAIN)
def test_what_was_said_is_heard(spoken: dict[str, Speech], whisper: FasterWhisper, language: str) -> None:
    heard = whisper.hear(resampled(spoken[language]), language)
    assert word_errors(SENTENCES[language], heard, language).rate < 0.35, heard


def test_the_same_line_is_spoken_the_same_to_the_sample_whatever_the_threads(spoken: dict[str, Speech]) -> None:
    again = Kokoro(threads=1)
    speech = again.synthesize(SENTENCES["en"], "en", again.default_voice("en", None), 7)
    again.close()
    np.testing.assert_array_equal(speech.samples, spoken["en"].samples)


def test_a_low_voice_is_dubbed_by_a_low_voice(kokoro: Kokoro) -> None:
    pitches = {}
    for pitch in (110.0, 210.0):
        speech = kokoro.synthesize(SENTENCES["en"], "en", kokoro.default_voice("en", pitch), 0)
        pitches[pitch] = median_pitch([speech.samples], speech.sample_rate)
    assert pitches[110.0] < LOW_VOICE < pitches[210.0]


@pytest.mark.parametrize("engine", SPEECH_ENGINES.values(), ids=lambda engine: engine.engine_name)
def test_every_language_has_voices_and_a_default_among_them(engine: type[Kokoro]) -> None:
    speaker = engine()
    for tag in speaker.languages():
        voices = speaker.voices(tag)
        assert voices and len(set(voices)) == len(voices)
        for pitch in (None, 90.0, 164.9, 165.0, 250.0):
            assert speaker.default_voice(tag, pitch) in voices
        speaker.check(tag, None)
        for voice in voices:
            speaker.check(tag, voice)


def test_without_a_pitch_the_best_voice_speaks() -> None:
    assert Kokoro().default_voice("en", None) == Kokoro().voices("en")[0] == "af_heart"
    assert Kokoro().default_voice("en-GB", 110.0).startswith("bm_")


def test_a_region_that_is_not_listed_is_spoken_as_its_language() -> None:
    assert Kokoro().voices("es-MX") == Kokoro().voices("ES") == Kokoro().voices("es")


def test_a_language_that_it_does_not_speak_is_refused_and_those_it_speaks_are_named() -> None:
    with pytest.raises(UnsupportedLanguage, match=r"target language ru \(Russian\): kokoro doesn't speak it; it speaks en, .*zh"):
        Kokoro().check("ru", None)
    with pytest.raises(UnsupportedLanguage, match="xx"):
        Kokoro().check("xx", None)


@pytest.mark.parametrize(
    ("language", "voice", "has"), [("en", "nobody", "af_heart"), ("es", "af_heart", "ef_dora"), ("fr", "", "ff_siwis")]
)
def test_a_voice_that_it_does_not_have_is_refused_and_those_it_has_are_named(language: str, voice: str, has: str) -> None:
    with pytest.raises(BadSetting, match=f"kokoro has no such voice for {language}; it has .*{has}"):
        Kokoro().check(language, voice)


@pytest.mark.parametrize(
    ("text", "language", "voice"),
    [
        ("...", "en", "af_heart"),
        ("", "en", "af_heart"),
        ("♪ — ♪", "en", "af_heart"),
        ("५", "en", "af_heart"),
        ("Привет", "zh", "zf_xiaobei"),
    ],
)
def test_what_cannot_be_said_is_refused(kokoro: Kokoro, text: str, language: str, voice: str) -> None:
    with pytest.raises(EngineRefused, match="kokoro"):
        kokoro.synthesize(text, language, voice, 0)


def test_a_word_of_another_script_does_not_stop_a_line(kokoro: Kokoro) -> None:
    assert len(kokoro.synthesize("Newton, Ньютон.", "en", "af_heart", 0).samples) > 12_000
