"""Translators: windows of whole lines in, one validated line for each out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr

from blocks.engine import Engine
from blocks.transcription import FasterWhisper
from dubbing import translating, weights
from dubbing.errors import EngineRefused
from dubbing.languages import LANGUAGES, base_language, name_of, share_in_script
from dubbing.lesson import TranslatedLine, Utterance
from dubbing.processors import usable_processors
from dubbing.translating import Window

ATTEMPTS = 2  # for a whole window: once, and once more for the lines that were wrong
LINE_ATTEMPTS = 1  # for a line alone after that


class Translator(Engine):
    """Base of the family.

    To add a translator: a chat model needs only `ChatTranslator.ask`; anything else implements `translate` and `refusal`. Enter the class
    in `TRANSLATORS`. A line that stays wrong is returned with a flag, never raised: one bad line must not stop a lesson.
    """

    listens: ClassVar[bool] = False  # whether it works from the sound, which then is an input of its cache keys
    shortens: ClassVar[bool] = False  # whether it can say a line again in fewer characters

    def refusal(self, source: str, target: str) -> str | None:
        """Why this engine can't translate between two languages, or None."""
        for tag in (source, target):
            if base_language(tag) not in LANGUAGES:
                return f"{self.engine_name} doesn't know the language {tag}"
        return None

    def windows(self, utterances: Sequence[Utterance]) -> list[Window]:
        """How it wants the lines grouped."""
        return translating.windows(utterances)

    @abstractmethod
    def translate(
        self, window: Window, source: str, target: str, recording: Path | None, budgets: Mapping[int, int] | None = None
    ) -> list[TranslatedLine]:
        """One line for each of the window's, in order.

        Args:
            recording: the lesson's sound, for engines that listen.
            budgets: greatest number of characters by line number (from 1), for engines that shorten.
        """


class ChatTranslator(Translator):
    """Any model that answers in JSON as told. Every line is validated; wrong ones are asked for again with what was wrong."""

    shortens: ClassVar[bool] = True

    @abstractmethod
    def ask(self, instructions: str, request: str, schema: dict[str, Any]) -> str:
        """The model's answer to a request, as text that should follow the JSON schema."""

    def translate(
        self, window: Window, source: str, target: str, recording: Path | None, budgets: Mapping[int, int] | None = None
    ) -> list[TranslatedLine]:
        budgets = budgets or {}
        numbers = list(range(1, len(window.lines) + 1))
        best: dict[int, str] = {}
        doubts: dict[int, str] = {}  # about the lines in `best`; `problems` are of the last answers
        problems: dict[int, str] = {}
        attempts = dict.fromkeys(numbers, 0)

        def attempt(wanted: Sequence[int]) -> None:
            prompt = translating.prompt(window, wanted, source, target, problems, budgets)
            try:
                answer = self.ask(prompt.instructions, prompt.request, translating.answer_schema(window, wanted))
            except EngineRefused as refused:
                for n in wanted:
                    attempts[n] += 1
                    problems[n] = str(refused)
                return
            found = translating.parse_answer(answer, wanted)
            for n in wanted:
                attempts[n] += 1
                others = [text for m, text in {**best, **found}.items() if m != n and window.lines[m - 1].text != window.lines[n - 1].text]
                problem = translating.problem_with(found.get(n), window.lines[n - 1].text, source, target, others)
                if problem is None and len(found[n]) > budgets.get(n, len(found[n])):
                    problem = f"it is too long ({len(found[n])} characters)"
                if problem is None:
                    problems.pop(n, None)
                    doubts.pop(n, None)
                    best[n] = found[n]
                else:
                    problems[n] = problem
                    # Of answers that all are wrong the last that can be said is kept: it was given knowing what was wrong before.
                    if problem != translating.COMMENTING and _speakable(found.get(n), target):
                        best[n], doubts[n] = found[n], problem

        attempt(numbers)
        for _ in range(ATTEMPTS - 1):
            if problems:
                attempt(sorted(problems))
        for _ in range(LINE_ATTEMPTS):
            for n in sorted(problems):
                attempt([n])
        return [
            TranslatedLine(
                id=line.id,
                text=best.get(n, ""),
                flags=(f"translation: {doubts.get(n, problems[n])}",) if n in problems else (),
                attempts=attempts[n],
            )
            for n, line in zip(numbers, window.lines, strict=True)
        ]


def _speakable(text: str | None, target: str) -> bool:
    """Whether a voice of the target language could say it: a doubtful line is better said than missing."""
    return bool(text) and any(c.isalnum() for c in text or "") and share_in_script(text or "", target) >= translating.LEAST_SCRIPT_SHARE


class LlamaTranslator(ChatTranslator):
    """A small model run by llama.cpp in this process."""

    _block_type_name = "Coursedub llama.cpp translator"
    _block_type_slug = "coursedub-llama-translator"
    engine_name: ClassVar[str] = "llama"
    packages: ClassVar[tuple[str, ...]] = ("xllamacpp",)
    settings_without_effect: ClassVar[frozenset[str]] = frozenset({"threads"})

    model: str = Field(default="qwen2.5-coder-1.5b-instruct-q4_k_m", description="Name in the weights catalogue.")
    context: int = Field(default=4096, ge=512, description="Tokens of request and answer together.")
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    seed: int = Field(default=0)
    threads: int = Field(default=0, ge=0, description="0: all processors this process may use.")

    _server: Any = PrivateAttr(default=None)
    _caller: ThreadPoolExecutor = PrivateAttr(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="llama"))

    def weights_names(self) -> tuple[str, ...]:
        return (self.model,)

    def close(self) -> None:
        self._server = None

    def _loaded(self) -> Any:
        if self._server is None:
            import xllamacpp

            parameters = xllamacpp.CommonParams()
            [file] = weights.folder_of(self.model).glob("*.gguf")
            parameters.model.path = str(file)
            parameters.n_ctx = self.context
            parameters.n_parallel = 1
            parameters.ui = False
            parameters.warmup = False
            parameters.verbosity = -1
            # llama.cpp's threads wait for each other by spinning: where another process takes one processor, two threads were measured to
            # generate at 1 to 2 tokens a second against 30 alone, and one thread at 25 either way. So one processor is left to others.
            processors = self.threads or usable_processors()
            parameters.cpuparams.n_threads = max(1, processors - 1)
            parameters.cpuparams_batch.n_threads = processors
            parameters.cpuparams.poll = parameters.cpuparams_batch.poll = 0
            self._server = xllamacpp.Server(parameters)
        return self._server

    def ask(self, instructions: str, request: str, schema: dict[str, Any]) -> str:
        # In a thread, since a call into llama.cpp takes seconds in which Ctrl-C is not heard; waiting for a thread hears it.
        answer = self._caller.submit(
            self._loaded().handle_chat_completions,
            {
                "messages": [{"role": "system", "content": instructions}, {"role": "user", "content": request}],
                "temperature": self.temperature,
                "seed": self.seed,
                "max_tokens": min(self.context // 2, sum(line["maxLength"] for line in schema["properties"].values()) + 64),
                "cache_prompt": False,  # a reused prefix may round differently: the same request must give the same answer
                "response_format": {"type": "json_schema", "json_schema": {"name": "lines", "schema": schema}},
            },
        ).result()
        if "choices" not in answer:
            raise EngineRefused(f"llama.cpp: {answer.get('error', {}).get('message', answer)}")
        return str(answer["choices"][0]["message"]["content"])


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
        return [Window(tuple(group), (), ()) for group in groups]

    def translate(
        self, window: Window, source: str, target: str, recording: Path | None, budgets: Mapping[int, int] | None = None
    ) -> list[TranslatedLine]:
        assert recording is not None
        start, end = max(0.0, window.lines[0].start - 0.2), window.lines[-1].end + 0.3
        words = self.recogniser.translate(recording, start, end, base_language(source))
        if share_in_script(" ".join(word.text for word in words), target) < translating.LEAST_SCRIPT_SHARE:
            words = []  # it wrote down what it heard instead of translating it
        return translating.shared_out(words, window.lines)


TRANSLATORS: dict[str, type[Translator]] = {LlamaTranslator.engine_name: LlamaTranslator, WhisperTranslator.engine_name: WhisperTranslator}
