"""A chat model on an Ollama server, through Ollama's own client."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from pydantic import Field, PrivateAttr, field_validator

from blocks.answers import HEADERS, NONSENSE, bounds
from blocks.translator import ChatTranslator, RequestTooLong
from dubbing.errors import BadSetting, EngineRefused, PassingFault
from dubbing.services import OLLAMA_MODEL, ollama_address, ollama_tag
from dubbing.terms import reading_schema
from dubbing.translating import longest_by

Result = TypeVar("Result")

BYTES_A_TOKEN = 2  # at least: tokenisers take two to four bytes of a language that they know for one
SMALLEST_CONTEXT = 4096  # tokens: the server loads the model anew for another size, so that it grows in few steps
LONGEST_DELAY = 30.0  # seconds between two tries
_INSTRUCTIONS = 600  # tokens that instructions take, about

_log = logging.getLogger(__name__)


class OllamaTranslator(ChatTranslator):
    """A model on an Ollama server.

    The model counts in cache keys by its tag and by `digest`, never by what the server says: a key must be known while the server is off.
    So where a tag is pulled anew now and then, pin the digest: a server that has another model under the tag is refused.
    """

    _block_type_name = "Coursedub Ollama translator"
    _block_type_slug = "coursedub-ollama-translator"
    engine_name: ClassVar[str] = "ollama"
    for_gpu: ClassVar[bool] = True
    packages_without_effect: ClassVar[tuple[str, ...]] = ("ollama",)
    extra: ClassVar[str] = "ollama"
    settings_without_effect: ClassVar[frozenset[str]] = frozenset({"host", "keep_alive", "timeout", "retries", "retry_delay"})

    model: str = Field(
        default_factory=lambda: os.environ.get("COURSEDUB_OLLAMA_MODEL") or OLLAMA_MODEL,
        min_length=1,
        description="Tag of the model, as `ollama list` shows it; by default COURSEDUB_OLLAMA_MODEL.",
    )
    digest: str = Field(default="", description="The first characters, 12 or more, of the model's digest; empty: whatever the tag names.")
    host: str = Field(
        default="", validate_default=True, description="Address of the server; empty: OLLAMA_HOST, else this machine's port 11434."
    )
    context: int = Field(default=16384, ge=2048, description="Largest context in tokens; each request gets what it needs.")
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    seed: int = Field(default=0)
    keep_alive: str = Field(
        default="10m", description="How long the server keeps the model after a request; at the end of a stage it is unloaded."
    )
    timeout: float = Field(default=900.0, gt=0, description="Seconds that a request may take, the loading of the model included.")
    retries: int = Field(default=4, ge=0, description="Further tries after a fault that may pass.")
    retry_delay: float = Field(default=1.0, ge=0, description="Seconds before the first of them; twice as long before each that follows.")

    _client: Any = PrivateAttr(default=None)
    _used: bool = PrivateAttr(default=False)  # since it was unloaded last
    _present: str = PrivateAttr(default="")  # digest of the model, once it was looked for
    _granted: int = PrivateAttr(default=SMALLEST_CONTEXT)  # tokens of context that the model is loaded with

    @field_validator("host")
    @classmethod
    def _host_is_one(cls, host: str) -> str:
        ollama_address(host)  # the environment's too
        return host.strip()

    @field_validator("digest")
    @classmethod
    def _digest_is_one(cls, digest: str) -> str:
        plain = digest.strip().lower().removeprefix("sha256:")
        if plain and (not 12 <= len(plain) <= 64 or set(plain) - set("0123456789abcdef")):
            raise ValueError("digest: 12 to 64 hexadecimal digits, as `ollama list` shows them")
        return plain

    @property
    def model_name(self) -> str:
        return f"{self.engine_name} {self.model}" + (f" ({self._present[:12]})" if self._present else "")

    def room_to_read(self) -> int:
        answer = longest_by(reading_schema()) + 64
        return (self.context - answer - _INSTRUCTIONS) * BYTES_A_TOKEN // 2  # letters of two bytes, as in Russian

    def rest(self) -> None:
        """Have the server unload the model."""
        super().rest()
        if self._used:
            self._used = False
            try:
                self._connected().generate(model=self.model, keep_alive=0)
            except Exception as error:  # it will be unloaded after `keep_alive` anyway
                _log.info("Ollama at %s didn't unload %s: %s", self.address, self.model, error)

    def close(self) -> None:
        super().close()
        self.rest()
        client, self._client, self._present = self._client, None, ""
        if client is not None:
            client.close()

    @property
    def address(self) -> str:
        """Of the server."""
        return ollama_address(self.host)

    def ask(self, instructions: str, request: str, schema: dict[str, Any]) -> str:
        longest = longest_by(schema) + 64
        needed = len((instructions + request).encode()) // BYTES_A_TOKEN + longest
        if needed > self.context:
            raise RequestTooLong(f"ollama: the request takes up to {needed} tokens, the context has {self.context}")
        self._look_for_model()
        self._used = True
        while self._granted < needed:
            self._granted *= 2
        options = {
            "num_ctx": min(self._granted, self.context),
            "num_predict": longest,
            "temperature": self.temperature,
            "seed": self.seed,
        }
        messages = [{"role": "system", "content": instructions}, {"role": "user", "content": request}]

        def chat() -> str:
            # Streamed, so that a server that hangs is told from one that is slow, and Ctrl-C is heard between two tokens.
            said, finished = [], False
            for part in self._connected().chat(
                model=self.model, messages=messages, stream=True, format=schema, options=options, keep_alive=self.keep_alive
            ):
                said.append(part.message.content or "")
                finished = finished or bool(part.done)
            if not finished:
                raise _Cut
            return "".join(said)

        return self._tried(chat)

    def _connected(self) -> Any:
        if self._client is None:
            self.require_packages()
            import httpx
            import ollama

            timeout = httpx.Timeout(self.timeout, connect=min(10.0, self.timeout))
            self._client = ollama.Client(host=self.address, timeout=timeout, headers=HEADERS, event_hooks=bounds())
        return self._client

    def _look_for_model(self) -> None:
        """Have the tag's digest, once.

        Raises:
            BadSetting: the server doesn't have the model, or another one under its tag.
        """
        if self._present:
            return
        tag = ollama_tag(self.model)
        models = self._tried(lambda: self._connected().list()).models
        listed = {entry.model: (entry.digest or "").removeprefix("sha256:") for entry in models}
        if tag not in listed:
            raise self._missing()
        if not listed[tag].startswith(self.digest):
            raise BadSetting(
                f"translator ollama: {self.model} on {self.address} is {listed[tag][:12]}, not {self.digest[:12]}: "
                "pull it again, or change the digest"
            )
        self._present = listed[tag] or "unknown"

    def _missing(self) -> BadSetting:
        return BadSetting(f"translator ollama: {self.address} doesn't have the model {self.model}; run there: ollama pull {self.model}")

    def _tried(self, call: Callable[[], Result]) -> Result:
        """What a call gives, tried again after faults that may pass.

        Raises:
            PassingFault: they didn't.
        """
        self._connected()
        import httpx
        import ollama

        fault = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(min(LONGEST_DELAY, self.retry_delay * 2 ** (attempt - 1)))
            try:
                return call()
            except ollama.ResponseError as error:
                fault = self._fault(error)
            except httpx.ConnectTimeout:
                fault = "it can't be reached"
            except httpx.TimeoutException:  # another try would take as long
                raise PassingFault(f"Ollama at {self.address}: no answer in {self.timeout:g} s") from None
            except (ConnectionError, httpx.TransportError, _Cut) as error:
                fault = "it can't be reached" if isinstance(error, ConnectionError | httpx.ConnectError) else "the connection was cut"
            except (*NONSENSE, httpx.TooManyRedirects):  # pydantic's errors are ValueErrors too
                fault = "what answers there doesn't speak Ollama's protocol"
        raise PassingFault(f"Ollama at {self.address}: {fault}")

    def _fault(self, error: Any) -> str:
        """What a refusal says, when trying again may help.

        Raises:
            BadSetting, EngineRefused: it won't.
        """
        text = str(error.error)
        if key := os.environ.get("OLLAMA_API_KEY"):  # the client sends it, and some servers repeat what they were sent
            text = text.replace(key, "…")
        text = " ".join(text.split())[:200]
        if error.status_code == 404:
            raise self._missing()
        if error.status_code in (401, 403):
            raise BadSetting(f"translator ollama: {self.address} doesn't let us in ({error.status_code}: {text})")
        if error.status_code == 400 and any(word in text.lower() for word in ("context", "too long", "exceeds")):
            raise RequestTooLong(f"ollama: {text}")
        if 400 <= error.status_code < 500 and error.status_code not in (408, 429):
            raise EngineRefused(f"ollama: {text}")
        return text or f"status {error.status_code}"


class _Cut(Exception):
    """An answer that ended before its last part."""
