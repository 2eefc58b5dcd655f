"""A request spoken: cut into pieces, each spoken, joined."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import soundfile

from chatterbox_service import text as texts
from chatterbox_service.bounded import Bounded
from chatterbox_service.errors import BadReference, UnknownLanguage
from chatterbox_service.model import Clip, Language, Manner, SpeechModel, Stopped
from chatterbox_service.references import Reference
from chatterbox_service.settings import PAUSE, PIECE_TEXT

VERSION = 1  # of how text is cut and pieces are joined: part of the fingerprint
SEEDS = 2**32
_SMALLEST = 60  # letters: a piece this short that fills the model's 40 s is babble, which smaller pieces don't cure
_PEAK = 0.99  # of full scale, where the model gave more

_SAME_LANGUAGE = {"nb": "no", "nn": "no", "iw": "he", "cmn": "zh"}  # other codes of what the model knows


class Utterance(NamedTuple):
    """What is asked for."""

    text: str  # normalised
    language: str
    reference: Reference | None  # None: the model's own voice
    manner: Manner
    seed: int


class Speech(NamedTuple):
    samples: np.ndarray  # mono, float32
    sample_rate: int
    pieces: int
    cut: tuple[str, ...]  # texts of the pieces that the model did not come to the end of

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.sample_rate

    def wav(self) -> bytes:
        file = io.BytesIO()
        peak = float(np.abs(self.samples).max(initial=0.0))
        samples = self.samples * (_PEAK / peak) if peak > _PEAK else self.samples
        soundfile.write(file, samples, self.sample_rate, format="WAV", subtype="PCM_16")
        return file.getvalue()


class VoiceCache:
    """Conditionals of the voices used lately."""

    def __init__(self, limit: int, count: Callable[[bool], None] = lambda found: None) -> None:
        self._known: Bounded[tuple[str, float], object] = Bounded(limit)
        self._count = count  # told at each use whether it was known

    def of(self, model: SpeechModel, reference: Reference, exaggeration: float) -> object:
        key = (reference.name, exaggeration)
        known = self._known.get(key)
        self._count(known is not None)
        if known is None:
            known = model.conditionals(reference, exaggeration)
            self._known.put(key, known)
        return known

    def __len__(self) -> int:
        return len(self._known)


def known_language(tag: str, model: SpeechModel) -> str:
    """The model's code of a BCP 47 tag.

    Raises:
        UnknownLanguage
    """
    base = tag.lower().replace("_", "-").split("-")[0]
    code = _SAME_LANGUAGE.get(base, base)
    spoken: dict[str, Language] = dict(model.languages())
    if code not in spoken:
        raise UnknownLanguage(f"language {tag[:35]!a}: the model speaks {', '.join(spoken)}")
    return code


def speak(utterance: Utterance, model: SpeechModel, voices: VoiceCache, stop: Callable[[], bool]) -> Speech:
    """All of it, or an error.

    Args:
        stop: whether nobody wants it any more.

    Raises:
        Stopped, ServiceError
    """
    language = known_language(utterance.language, model)
    if stop():
        raise Stopped
    conditionals = None
    if utterance.reference is not None:
        conditionals = voices.of(model, utterance.reference, utterance.manner.exaggeration)
    elif not model.has_own_voice:
        raise BadReference("the model has no voice of its own here: a voice or a reference is needed")
    seeds = itertools.count(utterance.seed)  # each piece has its own, whatever came before it

    def clips(text: str) -> Iterator[tuple[str, Clip]]:
        if stop():
            raise Stopped
        clip = model.speak(text, language, conditionals, utterance.manner, next(seeds) % SEEDS, stop)
        length = texts.length(text)
        if clip.complete or length <= _SMALLEST:
            yield text, clip
            return
        smaller = texts.cut(text, -(-length * 2 // 3))  # mostly two, and room to cut where a sentence or a clause ends
        for piece in smaller:
            yield from clips(piece)

    spoken = [clip for piece in texts.cut(utterance.text, PIECE_TEXT) for clip in clips(piece)]
    pause = np.zeros(round(PAUSE * model.sample_rate), dtype=np.float32)
    parts = [part for _, clip in spoken for part in (pause, clip.samples)][1:]
    return Speech(np.concatenate(parts), model.sample_rate, len(spoken), tuple(text for text, clip in spoken if not clip.complete))
