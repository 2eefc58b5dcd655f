"""Translators: windows of whole lines in, one validated line for each out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from blocks.llama import LlamaTranslator
from blocks.ollama import OllamaTranslator
from blocks.openai_server import OpenAITranslator
from blocks.transcription import FasterWhisper
from blocks.translator import ChatTranslator, Translator
from dubbing import translating
from dubbing.languages import base_language, name_of, share_in_script
from dubbing.lesson import TranslatedLine, Utterance
from dubbing.problems import LEAST_SCRIPT_SHARE
from dubbing.translating import Window

__all__ = ["TRANSLATORS", "ChatTranslator", "LlamaTranslator", "OllamaTranslator", "OpenAITranslator", "Translator", "WhisperTranslator"]


class WhisperTranslator(Translator):
    """Whisper's own translation into English, straight from the sound: rougher, and no further weights."""

    _block_type_name = "Coursedub Whisper translator"
    _block_type_slug = "coursedub-whisper-translator"
    engine_name: ClassVar[str] = "whisper"
    listens: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = FasterWhisper.packages

    recogniser: FasterWhisper = Field(default_factory=FasterWhisper)

    def weights_names(self) -> tuple[str, ...]:
        return self.recogniser.weights_names()

    def close(self) -> None:
        self.recogniser.close()

    def refusal(self, source: str, target: str) -> str | None:
        if base_language(target) != "en":
            return f"Whisper translates into English only, not into {name_of(target)}; the translator llama can (--translator llama)"
        return super().refusal(source, target)

    def windows(self, utterances: Sequence[Utterance]) -> list[Window]:
        """As many whole lines as fit in the 30 s that Whisper hears at once."""
        groups: list[list[Utterance]] = []
        for utterance in utterances:
            if not groups or utterance.end - groups[-1][0].start > translating.HEARD_AT_ONCE:
                groups.append([])
            groups[-1].append(utterance)
        return [Window(tuple(group)) for group in groups]

    def translate(self, window: Window, source: str, target: str, recording: Path | None = None) -> list[TranslatedLine]:
        assert recording is not None
        start, end = max(0.0, window.lines[0].start - 0.2), window.lines[-1].end + 0.3
        words = self.recogniser.translate(recording, start, end, base_language(source))
        if share_in_script(" ".join(word.text for word in words), target) < LEAST_SCRIPT_SHARE:
            words = []  # it wrote down what it heard instead of translating it
        lines = translating.shared_out(words, window.lines)
        return [lines[n - 1].model_copy(update={"model": self.model_name}) for n in window.wanted]


TRANSLATORS: dict[str, type[Translator]] = {
    engine.engine_name: engine for engine in (LlamaTranslator, OllamaTranslator, OpenAITranslator, WhisperTranslator)
}
