"""A chat model in this process, through llama.cpp."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr

from blocks.engine import LocalEngine
from blocks.translator import ChatTranslator, RequestTooLong
from dubbing import weights
from dubbing.errors import EngineRefused
from dubbing.processors import usable_processors
from dubbing.terms import reading_schema
from dubbing.translating import longest_by

_INSTRUCTIONS = 400  # tokens that instructions take, about
_LETTERS_A_TOKEN = 2  # at least, of the scripts that a small model reads well


class LlamaTranslator(ChatTranslator, LocalEngine):
    """A small model run by llama.cpp in this process."""

    _block_type_name = "Coursedub llama.cpp translator"
    _block_type_slug = "coursedub-llama-translator"
    engine_name: ClassVar[str] = "llama"
    packages: ClassVar[tuple[str, ...]] = ("xllamacpp",)
    settings_without_effect: ClassVar[frozenset[str]] = frozenset({"threads", "keep_loaded_for"})
    # Told the budgets of two lines, a 1.5B model was seen to reword the others of the window too, and one of the two lost its sense. A line
    # that turns out too long is shortened by itself.
    heeds_budgets: ClassVar[bool] = False

    model: str = Field(default="qwen2.5-coder-1.5b-instruct-q4_k_m", description="Name in the weights catalogue.")
    context: int = Field(default=4096, ge=512, description="Tokens of request and answer together.")
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    seed: int = Field(default=0)
    threads: int = Field(default=0, ge=0, description="0: all processors this process may use.")

    reads_ahead: bool = Field(default=False, description="Read the whole transcript first, for a summary and a list of terms.")

    _caller: ThreadPoolExecutor = PrivateAttr(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="llama"))

    def weights_names(self) -> tuple[str, ...]:
        return (self.model,)

    @property
    def model_name(self) -> str:
        return f"{self.engine_name} {self.model}"

    def room_to_read(self) -> int:
        answer = min(self.context // 2, longest_by(reading_schema()) // _LETTERS_A_TOKEN)
        return (self.context - answer - _INSTRUCTIONS) * _LETTERS_A_TOKEN

    def _server(self) -> AbstractContextManager[Any]:
        size = weights.find(self.model).size
        return self.loaded(self._load, of=("model", "context", "threads"), device="cpu", size=size)

    def _load(self) -> Any:
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
        return xllamacpp.Server(parameters)

    def ask(self, instructions: str, request: str, schema: dict[str, Any]) -> str:
        # In a thread, since a call into llama.cpp takes seconds in which Ctrl-C is not heard; waiting for a thread hears it.
        with self._server() as server:
            answer = self._caller.submit(
                server.handle_chat_completions,
                {
                    "messages": [{"role": "system", "content": instructions}, {"role": "user", "content": request}],
                    "temperature": self.temperature,
                    "seed": self.seed,
                    "max_tokens": min(self.context // 2, longest_by(schema) + 64),
                    "cache_prompt": False,  # a reused prefix may round differently: the same request must give the same answer
                    "response_format": {"type": "json_schema", "json_schema": {"name": "lines", "schema": schema}},
                },
            ).result()
        if "choices" not in answer:
            error = answer.get("error", {})
            refusal = RequestTooLong if error.get("type") == "exceed_context_size_error" else EngineRefused
            raise refusal(f"llama.cpp: {error.get('message', answer)}")
        return str(answer["choices"][0]["message"]["content"])
