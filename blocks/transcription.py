"""Recognisers: what was said, and when. Also Whisper's own translation into English, and hearing a clip again to verify it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from blocks.recogniser import RATE, SHORTEST_PAUSE, Recogniser, Result, WhisperRecogniser, joint, speech_in, with_shares, words_of
from blocks.whisperx import WhisperX
from dubbing import devices, weights
from dubbing.audio import read_span
from dubbing.hallucinations import Segment
from dubbing.languages import base_language
from dubbing.lesson import Word
from dubbing.processors import usable_processors
from dubbing.segmentation import snapped_to_speech

__all__ = ["RATE", "RECOGNISERS", "FasterWhisper", "Recogniser", "WhisperX"]


class FasterWhisper(WhisperRecogniser):
    """Whisper on CTranslate2: no torch, int8 on the CPU."""

    _block_type_name = "Coursedub faster-whisper"
    _block_type_slug = "coursedub-faster-whisper"
    engine_name: ClassVar[str] = "faster-whisper"
    packages: ClassVar[tuple[str, ...]] = ("faster-whisper", "ctranslate2", "onnxruntime", "tokenizers", "soxr")
    settings_without_effect: ClassVar[frozenset[str]] = frozenset({"device", "threads", "keep_loaded_for"})

    model: str = Field(default="whisper-base", description="Name in the weights catalogue.")
    compute_type: str = Field(default="int8", description="CTranslate2's compute type.")
    beam_size: int = Field(default=5, ge=1, le=20)
    seed: int = Field(default=0, description="Of the sampling that Whisper falls back to where a beam goes round in circles.")
    device: devices.Device = Field(default="auto", description="auto: CUDA, else the CPU; there is no MPS for it.")
    threads: int = Field(default=0, ge=0, description="On the CPU; 0: all processors this process may use.")

    def weights_names(self) -> tuple[str, ...]:
        return (self.model,)

    def _by_whisper(self, work: Callable[[Any], Result]) -> Result:
        import ctranslate2

        with self._whisper() as model:
            ctranslate2.set_random_seed(self.seed)
            return work(model)

    def _whisper(self) -> AbstractContextManager[Any]:
        device = devices.for_ctranslate2(self.device)

        def load() -> Any:
            from faster_whisper import WhisperModel

            folder = weights.folder_of(self.model)
            threads = self.threads or usable_processors()
            return WhisperModel(str(folder), device=device, compute_type=self.compute_type, cpu_threads=threads)

        return self.loaded(load, of=("model", "compute_type", "threads"), device=device, size=weights.find(self.model).size)

    def transcribe(self, recording: Path, language: str, progress: Callable[[float], None]) -> list[Word]:
        words: list[Word] = []
        self._left_out.clear()
        for start, samples, (before, after) in with_shares(recording):
            done = partial(_within, progress, before, after)
            heard = self._by_whisper(partial(self._listened, samples=samples, start=start, language=language, progress=done))
            speech = [(start + begin, start + end) for begin, end in speech_in(samples, SHORTEST_PAUSE, padding=0)]
            kept = self._guarded([segment for segment, _ in heard], speech)
            spoken = [said[position] for (_, said), positions in zip(heard, kept, strict=True) for position in positions]
            words += snapped_to_speech(spoken, speech)
        return words

    def _listened(
        self, model: Any, samples: np.ndarray, start: float, language: str, progress: Callable[[float], None]
    ) -> list[tuple[Segment, list[Word]]]:
        segments, _ = model.transcribe(
            samples,
            language=base_language(language),
            beam_size=self.beam_size,
            vad_filter=True,
            word_timestamps=True,
            condition_on_previous_text=False,  # else one loop poisons the rest of the lesson
        )
        heard = []
        for segment in segments:
            said = list(words_of(segment, start))
            tokens = [word.text for word in said]
            heard.append((Segment(tokens, start + segment.start, start + segment.end, segment.avg_logprob, joint(language)), said))
            progress(min(1.0, segment.end * RATE / len(samples)))
        return heard

    def translate(self, recording: Path, start: float, end: float, language: str) -> list[Word]:
        """English words, with rough times, for a span of at most 30 s: whole spans, since single sentences lose their meaning."""
        samples = read_span(recording, start, end, RATE)

        def listen(model: Any) -> list[Word]:
            segments, _ = model.transcribe(
                samples,
                language=language,
                task="translate",
                beam_size=self.beam_size,
                word_timestamps=True,
                condition_on_previous_text=False,
                vad_filter=False,
            )
            return [word for segment in segments for word in words_of(segment, start)]

        return self._by_whisper(listen)


def _within(progress: Callable[[float], None], before: float, after: float, share: float) -> None:
    """Progress within a part of the work."""
    progress(before + (after - before) * share)


RECOGNISERS: dict[str, type[Recogniser]] = {engine.engine_name: engine for engine in (FasterWhisper, WhisperX)}
