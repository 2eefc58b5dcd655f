"""The base of all recognisers, and what those that run Whisper share; `blocks/transcription.py` lists them."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import soundfile
from pydantic import PrivateAttr

from blocks.engine import Engine, LocalEngine
from dubbing import hallucinations
from dubbing.audio import chunks_at_silences
from dubbing.hallucinations import LeftOut, Segment
from dubbing.languages import UNSPACED, base_language
from dubbing.lesson import Word

logger = logging.getLogger("coursedub.transcription")

Result = TypeVar("Result")

RATE = 16_000  # Hz, what Whisper hears
WINDOW = 30.0  # seconds Whisper hears at once
CHUNK = 600.0  # seconds of a lesson in memory at a time
SHORTEST_PAUSE = 200  # ms of silence between two spans of speech that words are moved out of
DETECTION_SPANS = 4  # 30 s windows that vote on the language
SPOKEN_SIGNS = frozenset("%‰°&+=<>≤≥±×÷√∞#@§$€£¥")  # said as words, though no letters or digits


class Recogniser(Engine):
    """Base of the family.

    To add a recogniser: implement the methods below and enter the class in `RECOGNISERS`. Times are seconds from
    the start of the recording. Recognise the original mix, not separated vocals: separation costs more words than music does.
    """

    @abstractmethod
    def detect_language(self, recording: Path) -> str:
        """BCP 47 tag of the language spoken."""

    @abstractmethod
    def transcribe(self, recording: Path, language: str, progress: Callable[[float], None]) -> list[Word]:
        """All words with times and confidences, in order. An empty list when nobody speaks."""

    SAMPLE_RATE: ClassVar[int] = RATE  # Hz of the clips that `hear` and `align` take

    @abstractmethod
    def hear(self, samples: np.ndarray, language: str) -> str:
        """The text of one short clip, mono."""

    @abstractmethod
    def align(self, samples: np.ndarray, text: str, language: str) -> list[Word]:
        """When each word of a known text is said in a short clip (forced alignment). Every word of the text comes back, in order."""

    def left_out(self) -> list[LeftOut]:
        """What the last transcription left out as garbage."""
        return []

    def used(self) -> str:
        """The engine's name, and what it had to fall back to in the last transcription."""
        return self.engine_name

    @property
    def tells_speakers_apart(self) -> bool:
        """Whether its words have speakers."""
        return False

    def hinted(self, words: Iterable[str]) -> Recogniser:
        """This engine, told words that the lesson has in it and how they are spelt; itself where it has no use for them."""
        return self


class WhisperRecogniser(Recogniser, LocalEngine):
    """A recogniser whose model is faster-whisper's, or made of it.

    To add one: implement `_by_whisper`, and `transcribe` with the guards below.
    """

    _left_out: list[LeftOut] = PrivateAttr(default_factory=list)

    @abstractmethod
    def _by_whisper(self, work: Callable[[Any], Result]) -> Result:
        """What comes of some work with faster-whisper's `WhisperModel`."""

    def left_out(self) -> list[LeftOut]:
        return list(self._left_out)

    def detect_language(self, recording: Path) -> str:
        spans = []
        for start, samples in chunks_at_silences(recording, RATE, WINDOW):
            # A lesson may open with music or with a quotation: spans with speech in them vote.
            if sum(end - begin for begin, end in speech_in(samples)) > 1.0:
                spans.append(samples)
            if len(spans) == DETECTION_SPANS or start > 20 * WINDOW:
                break
        if not spans:
            return ""
        votes: dict[str, float] = {}
        for _, _, probabilities in self._by_whisper(lambda model: [model.detect_language(samples) for samples in spans]):
            for language, share in probabilities:
                votes[language] = votes.get(language, 0.0) + share
        return max(votes, key=lambda language: votes[language])

    def hear(self, samples: np.ndarray, language: str) -> str:
        def hear(model: Any) -> str:
            segments, _ = model.transcribe(
                samples.astype(np.float32),
                language=base_language(language),
                beam_size=1,
                condition_on_previous_text=False,
                without_timestamps=True,
                vad_filter=False,
            )
            return " ".join(segment.text.strip() for segment in segments)

        return self._by_whisper(hear)

    def align(self, samples: np.ndarray, text: str, language: str) -> list[Word]:
        return self._by_whisper(lambda model: aligned_by_attention(model, samples, text, language))

    def _guarded(self, segments: Sequence[Segment], speech: Sequence[tuple[float, float]]) -> list[list[int]]:
        """Which tokens of each segment stay; the others are told."""
        garbage = hallucinations.garbage_in(segments, speech)
        for one in hallucinations.told(segments, garbage):
            logger.warning("%s: left out at %.1f s: %s (%s)", self.engine_name, one.start, one.text[:200], one.why)
            self._left_out.append(one)
        return [hallucinations.kept(segment.tokens, garbage, number) for number, segment in enumerate(segments)]


def speech_in(samples: np.ndarray, shortest_pause: int = 2000, padding: int = 400) -> list[tuple[float, float]]:
    """Where somebody speaks, in seconds: the Silero network that faster-whisper carries.

    Args:
        shortest_pause: ms of silence that end a span.
        padding: ms that a span is longer on both sides.
    """
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    spans = get_speech_timestamps(samples, VadOptions(min_silence_duration_ms=shortest_pause, speech_pad_ms=padding))
    return [(span["start"] / RATE, span["end"] / RATE) for span in spans]


def aligned_by_attention(model: Any, samples: np.ndarray, text: str, language: str) -> list[Word]:
    """When each word of a text is said in a clip of at most 30 s: by Whisper's cross-attention and dynamic time warping (openai/whisper,
    timing.py), which faster-whisper carries."""
    from faster_whisper.audio import pad_or_trim
    from faster_whisper.tokenizer import Tokenizer

    tokenizer = Tokenizer(model.hf_tokenizer, model.model.is_multilingual, task="transcribe", language=base_language(language))
    features = model.feature_extractor(samples.astype(np.float32))
    frames = features.shape[-1]
    [found] = model.find_alignment(tokenizer, [tokenizer.encode(" " + text)], model.encode(pad_or_trim(features)), frames)
    words: list[Word] = []
    for part in found:
        if words and not part["word"].startswith(" ") and base_language(language) not in UNSPACED:
            words[-1] = words[-1].model_copy(update={"text": words[-1].text + part["word"], "end": float(part["end"])})
        elif part["word"].strip():
            words.append(
                Word(text=part["word"].strip(), start=float(part["start"]), end=float(part["end"]), confidence=float(part["probability"]))
            )
    return words


def joint(language: str) -> str:
    """What is written between two words."""
    return "" if base_language(language) in UNSPACED else " "


def probability(log_probability: float) -> float:
    """Of a token, from the mean log-probability."""
    return min(1.0, math.exp(log_probability))


def words_of(segment: Any, offset: float) -> Iterator[Word]:
    """A segment's words. Whisper cuts "все-таки" into "все" and "-таки", "20%" into "20" and "%": what has no space before it and doesn't
    begin with a letter or digit belongs to the word before."""
    pending: Word | None = None
    minus = False
    for word in segment.words or ():
        text = word.word.strip()
        if text and not text.strip("-–—−"):
            minus = True  # a dash alone is said by nobody, unless a number follows: then it is "minus"
            continue
        if minus and text[:1].isdigit():
            text = "-" + text
        minus = False
        if pending and text and not word.word.startswith(" ") and not text[0].isalnum():
            pending = pending.model_copy(update={"text": pending.text + text, "end": offset + word.end})
            continue
        if not any(c.isalnum() or c in SPOKEN_SIGNS for c in text):
            continue
        if pending:
            yield pending
        pending = Word(text=text, start=offset + word.start, end=offset + word.end, confidence=word.probability)
    if pending:
        yield pending


def with_shares(recording: Path) -> Iterator[tuple[float, np.ndarray, tuple[float, float]]]:
    """Chunks with the share of the recording done before and after each."""
    total = soundfile.info(recording).duration
    for start, samples in chunks_at_silences(recording, RATE, CHUNK):
        yield start, samples, (start / total, min(1.0, (start + len(samples) / RATE) / total))
