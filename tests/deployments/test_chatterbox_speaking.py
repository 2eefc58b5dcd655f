"""How the Chatterbox service speaks a request: in pieces, joined, with a voice, and what it does when the model is cut off."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from chatterbox_service.errors import BadReference, UnknownLanguage
from chatterbox_service.model import Manner, Stopped
from chatterbox_service.references import References
from chatterbox_service.speaking import Speech, Utterance, VoiceCache, known_language, speak

from tests.deployments.small_service import LETTER, ToneModel, recording

MANNER = Manner(0.5, 0.4, 0.8)
SENTENCE = "This is a sentence of some length, which is said in a lesson."
LONG = " ".join([SENTENCE] * 12)  # 743 letters: three pieces
PAUSE = round(0.35 * 24_000)  # samples


def utterance(text: str = SENTENCE, **more: object) -> Utterance:
    return Utterance(text, "en", None, MANNER, 7)._replace(**more)


def said(model: ToneModel, *asked: Utterance) -> list[Speech]:
    voices = VoiceCache(2)
    return [speak(one, model, voices, lambda: False) for one in asked]


def test_a_line_is_spoken_as_it_is() -> None:
    model = ToneModel()
    [speech] = said(model, utterance())
    assert [spoken.text for spoken in model.spoken] == [SENTENCE]
    assert model.spoken[0].manner == MANNER and model.spoken[0].language == "en" and model.spoken[0].voice is None
    assert speech.pieces == 1 and not speech.cut
    assert speech.duration == pytest.approx(len(SENTENCE) * LETTER)


def test_long_text_is_spoken_in_pieces_with_350_ms_between_them() -> None:
    model = ToneModel()
    [speech] = said(model, utterance(LONG))
    pieces = [spoken.text for spoken in model.spoken]
    assert len(pieces) == speech.pieces == 3 and " ".join(pieces) == LONG
    assert all(piece.endswith(".") and len(piece) <= 300 for piece in pieces)
    at = 0
    for piece in pieces:
        length = round(len(piece) * LETTER * 24_000)
        assert np.abs(speech.samples[at : at + length]).max() > 0.4
        at += length
        assert not speech.samples[at : at + PAUSE].any()
        at += PAUSE
    assert len(speech.samples) == at - PAUSE


def test_the_same_seed_gives_the_same_samples_and_another_does_not() -> None:
    model = ToneModel()
    first, again, other = said(model, utterance(LONG), utterance(LONG), utterance(LONG, seed=8))
    assert np.array_equal(first.samples, again.samples)
    assert not np.array_equal(first.samples, other.samples)


def test_each_piece_has_a_seed_of_its_own_and_the_first_has_the_one_asked_for() -> None:
    model = ToneModel()
    said(model, utterance(LONG, seed=2**32 - 1))
    assert [spoken.seed for spoken in model.spoken] == [2**32 - 1, 0, 1]


def test_a_piece_that_reaches_the_model_s_limit_is_cut_smaller_and_spoken_again() -> None:
    model = ToneModel()
    model.reaches = 200
    [speech] = said(model, utterance(LONG))
    assert not speech.cut
    complete = [spoken.text for spoken in model.spoken if len(spoken.text) <= 200]
    assert " ".join(complete) == LONG and len(complete) == speech.pieces > 3
    # Nothing of the clips that were cut off is heard.
    assert len(speech.samples) == sum(round(len(text) * LETTER * 24_000) for text in complete) + PAUSE * (len(complete) - 1)


def test_a_model_that_never_comes_to_an_end_is_answered_with_a_flag() -> None:
    model = ToneModel()
    model.reaches = 5
    [speech] = said(model, utterance(LONG))
    assert " ".join(speech.cut) == LONG and speech.pieces == len(speech.cut)
    assert len(model.spoken) < 60, "it gives up in the end"


def test_short_text_that_reaches_the_limit_is_spoken_once() -> None:
    model = ToneModel()
    model.reaches = 3
    [speech] = said(model, utterance("Hello there."))
    assert speech.cut == ("Hello there.",) and len(model.spoken) == 1


def test_a_voice_s_conditionals_are_made_once_and_again_when_forgotten() -> None:
    model = ToneModel()
    references = References(8, 2**24)
    one, two, three = (references.add(recording(pitch=pitch)) for pitch in (100, 120, 140))
    counted: list[bool] = []
    voices = VoiceCache(2, counted.append)
    for reference in (one, two, one, one, three, one, two):
        speak(utterance(LONG, reference=reference), model, voices, lambda: False)
        assert model.spoken[-1].voice == reference.name
    assert [name for name, _ in model.made] == [one.name, two.name, three.name, two.name]
    assert counted == [False, False, True, True, False, True, False]
    assert len(voices) == 2


def test_another_exaggeration_is_another_voice() -> None:
    model = ToneModel()
    reference = References(8, 2**24).add(recording())
    said(model, utterance(reference=reference), utterance(reference=reference, manner=Manner(0.7, 0.4, 0.8)))
    assert [exaggeration for _, exaggeration in model.made] == [0.5, 0.7]


def test_without_a_voice_of_its_own_the_model_needs_a_reference() -> None:
    model = ToneModel()
    model.has_own_voice = False
    with pytest.raises(BadReference, match="a reference is needed"):
        said(model, utterance())


@pytest.mark.parametrize(
    ("tag", "code"), [("en", "en"), ("EN", "en"), ("en-US", "en"), ("zh_CN", "zh"), ("zh-Hant-TW", "zh"), ("nb", "no"), ("nn-NO", "no")]
)
def test_languages_are_known_by_all_their_tags(tag: str, code: str) -> None:
    assert known_language(tag, ToneModel()) == code


@pytest.mark.parametrize("tag", ["xx", "english", "e", "", "\0", "../en", "ё" * 3000])
def test_an_unknown_language_is_refused_with_those_it_speaks(tag: str) -> None:
    with pytest.raises(UnknownLanguage, match="speaks en, no, ru, zh") as caught:
        known_language(tag, ToneModel())
    assert str(caught.value).isascii() and len(str(caught.value)) < 400


def test_nothing_more_is_spoken_for_who_has_gone() -> None:
    model = ToneModel()
    with pytest.raises(Stopped):
        speak(utterance(LONG), model, VoiceCache(2), lambda: len(model.spoken) > 1)
    assert len(model.spoken) == 2


@pytest.mark.parametrize(("peak", "expected"), [(0.5, 0.5), (1.7, 0.99)])
def test_sound_louder_than_a_file_can_hold_is_made_quieter_not_clipped(peak: float, expected: float) -> None:
    tone = (peak * np.sin(np.arange(24_000) / 20)).astype(np.float32)
    samples, sample_rate = soundfile.read(io.BytesIO(Speech(tone, 24_000, 1, ()).wav()))
    assert sample_rate == 24_000
    assert np.allclose(samples, tone * expected / peak, atol=1e-3)
