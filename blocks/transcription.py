"""Recognisers: what was said, and when. Also Whisper's own translation into English, and hearing a clip again to verify it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import soundfile
from pydantic import Field, PrivateAttr

from blocks.engine import Engine
from dubbing import weights
from dubbing.audio import chunks_at_silences, read_span
from dubbing.languages import UNSPACED, base_language
from dubbing.lesson import Word
from dubbing.processors import usable_processors
from dubbing.segmentation import snapped_to_speech

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


class FasterWhisper(Recogniser):
    """Whisper on CTranslate2: no torch, int8 on the CPU."""

    _block_type_name = "Coursedub faster-whisper"
    _block_type_slug = "coursedub-faster-whisper"
    engine_name: ClassVar[str] = "faster-whisper"
    packages: ClassVar[tuple[str, ...]] = ("faster-whisper", "ctranslate2", "onnxruntime", "tokenizers", "soxr")
    settings_without_effect: ClassVar[frozenset[str]] = frozenset({"threads"})

    model: str = Field(default="whisper-base", description="Name in the weights catalogue.")
    compute_type: str = Field(default="int8", description="CTranslate2's compute type.")
    beam_size: int = Field(default=5, ge=1, le=20)
    seed: int = Field(default=0, description="Of the sampling that Whisper falls back to where a beam goes round in circles.")
    threads: int = Field(default=0, ge=0, description="0: all processors this process may use.")

    _model: Any = PrivateAttr(default=None)

    def weights_names(self) -> tuple[str, ...]:
        return (self.model,)

    def close(self) -> None:
        self._model = None

    def _whisper(self) -> Any:
        if self._model is None:
            from faster_whisper import WhisperModel

            folder = weights.folder_of(self.model)
            threads = self.threads or usable_processors()
            self._model = WhisperModel(str(folder), device="cpu", compute_type=self.compute_type, cpu_threads=threads)
        return self._model

    def _seeded(self) -> Any:
        model = self._whisper()
        import ctranslate2

        ctranslate2.set_random_seed(self.seed)
        return model

    def detect_language(self, recording: Path) -> str:
        model = self._whisper()
        from faster_whisper.vad import get_speech_timestamps

        spans = []
        for start, samples in chunks_at_silences(recording, RATE, WINDOW):
            # A lesson may open with music or with a quotation: spans with speech in them vote.
            spoken = sum(span["end"] - span["start"] for span in get_speech_timestamps(samples)) / RATE
            if spoken > 1.0:
                spans.append(samples)
            if len(spans) == DETECTION_SPANS or start > 20 * WINDOW:
                break
        if not spans:
            return ""
        votes: dict[str, float] = {}
        for samples in spans:
            _, _, probabilities = model.detect_language(samples)
            for language, probability in probabilities:
                votes[language] = votes.get(language, 0.0) + probability
        return max(votes, key=lambda language: votes[language])

    def transcribe(self, recording: Path, language: str, progress: Callable[[float], None]) -> list[Word]:
        from faster_whisper.vad import VadOptions, get_speech_timestamps

        words: list[Word] = []
        for start, samples, share in _with_shares(recording):
            segments, _ = self._seeded().transcribe(
                samples,
                language=base_language(language),
                beam_size=self.beam_size,
                vad_filter=True,
                word_timestamps=True,
                condition_on_previous_text=False,  # else one loop poisons the rest of the lesson
            )
            length = len(samples) / RATE
            found: list[Word] = []
            for segment in segments:
                found.extend(_words(segment, start))
                progress(share[0] + (share[1] - share[0]) * min(1.0, segment.end / length))
            heard = get_speech_timestamps(samples, VadOptions(min_silence_duration_ms=SHORTEST_PAUSE, speech_pad_ms=0))
            words += snapped_to_speech(found, [(start + span["start"] / RATE, start + span["end"] / RATE) for span in heard])
        return words

    def translate(self, recording: Path, start: float, end: float, language: str) -> list[Word]:
        """English words, with rough times, for a span of at most 30 s: whole spans, since single sentences lose their meaning."""
        samples = read_span(recording, start, end, RATE)
        segments, _ = self._seeded().transcribe(
            samples,
            language=language,
            task="translate",
            beam_size=self.beam_size,
            word_timestamps=True,
            condition_on_previous_text=False,
            vad_filter=False,
        )
        return [word for segment in segments for word in _words(segment, start)]

    def hear(self, samples: np.ndarray, language: str) -> str:
        segments, _ = self._seeded().transcribe(
            samples.astype(np.float32),
            language=base_language(language),
            beam_size=1,
            condition_on_previous_text=False,
            without_timestamps=True,
            vad_filter=False,
        )
        return " ".join(segment.text.strip() for segment in segments)

    def align(self, samples: np.ndarray, text: str, language: str) -> list[Word]:
        """By Whisper's cross-attention and dynamic time warping (openai/whisper, timing.py), which faster-whisper carries."""
        from faster_whisper.audio import pad_or_trim
        from faster_whisper.tokenizer import Tokenizer

        model = self._whisper()
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
                    Word(
                        text=part["word"].strip(), start=float(part["start"]), end=float(part["end"]), confidence=float(part["probability"])
                    )
                )
        return words


def _words(segment: Any, offset: float) -> Iterator[Word]:
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


def _with_shares(recording: Path) -> Iterator[tuple[float, np.ndarray, tuple[float, float]]]:
    """Chunks with the share of the recording done before and after each."""
    total = soundfile.info(recording).duration
    for start, samples in chunks_at_silences(recording, RATE, CHUNK):
        yield start, samples, (start / total, min(1.0, (start + len(samples) / RATE) / total))


RECOGNISERS: dict[str, type[Recogniser]] = {FasterWhisper.engine_name: FasterWhisper}
