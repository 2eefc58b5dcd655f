"""A chat model on any server that speaks OpenAI's protocol: OpenAI itself, vLLM, llama.cpp, LM Studio and their like."""

from __future__ import annotations

import os
import re
import sys
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr, SecretStr, field_validator

from blocks.answers import HEADERS, NONSENSE, bounds
from blocks.translator import ChatTranslator, RequestTooLong
from dubbing.errors import BadSetting, EngineRefused, PassingFault
from dubbing.services import plain_address
from dubbing.terms import reading_schema
from dubbing.translating import longest_by

LETTERS_A_TOKEN = 2  # at least, of the scripts that models read well
_INSTRUCTIONS = 600  # tokens that instructions take, about

# Ways to have JSON, the strictest first: a server that doesn't know one is asked in the next.
_FORMATS = ("json_schema", "json_schema without limits", "json_object", "text")
_OPTIONAL = ("seed", "temperature")  # that some models don't take
_TOO_LONG = re.compile(r"context.{0,20}(length|size|window)|maximum context|too long|too many tokens|exceed", re.IGNORECASE)


class OpenAITranslator(ChatTranslator):
    """A model on a server that speaks OpenAI's protocol."""

    _block_type_name = "Coursedub OpenAI-compatible translator"
    _block_type_slug = "coursedub-openai-translator"
    engine_name: ClassVar[str] = "openai"
    packages_without_effect: ClassVar[tuple[str, ...]] = ("openai",)
    extra: ClassVar[str] = "openai"
    settings_without_effect: ClassVar[frozenset[str]] = frozenset({"api_key", "timeout", "retries"})

    base_url: str = Field(
        default_factory=lambda: os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1",
        validate_default=True,
        description="Address up to /v1; by default OPENAI_BASE_URL, else OpenAI's.",
    )
    model: str = Field(
        default_factory=lambda: os.environ.get("COURSEDUB_OPENAI_MODEL") or "gpt-4o-mini",
        min_length=1,
        description="The model's name on that server; by default COURSEDUB_OPENAI_MODEL.",
    )
    api_key: SecretStr | None = Field(default=None, description="Empty: OPENAI_API_KEY; a server of one's own mostly wants none.")
    context: int = Field(default=16384, ge=2048, description="Tokens of request and answer together.")
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    seed: int = Field(default=0)
    timeout: float = Field(default=300.0, gt=0, description="Seconds that a request may take; a further try has as many.")
    retries: int = Field(default=4, ge=0, description="Further tries after a fault that may pass, as late as the server asks for.")

    _client: Any = PrivateAttr(default=None)
    _format: str = PrivateAttr(default=_FORMATS[0])
    _refused: set[str] = PrivateAttr(default_factory=set)  # parameters that this server or model doesn't take

    @field_validator("base_url")
    @classmethod
    def _address_is_one(cls, address: str) -> str:
        return plain_address("base_url (or OPENAI_BASE_URL)", address)

    @property
    def model_name(self) -> str:
        return f"{self.engine_name} {self.model}"

    def room_to_read(self) -> int:
        answer = min(self.context // 2, longest_by(reading_schema()) // LETTERS_A_TOKEN)
        return (self.context - answer - _INSTRUCTIONS) * LETTERS_A_TOKEN

    def close(self) -> None:
        super().close()
        if self._client is not None:
            self._client.close()
            self._client = None

    def ask(self, instructions: str, request: str, schema: dict[str, Any]) -> str:
        longest = min(self.context // 2, longest_by(schema) + 64)
        if (len(instructions) + len(request)) // LETTERS_A_TOKEN // 2 + longest // LETTERS_A_TOKEN > self.context:
            raise RequestTooLong(f"openai: the request is longer than a context of {self.context} tokens")
        while True:
            try:
                return self._answer(instructions, request, schema, longest)
            except _Unsupported as unsupported:
                self._do_without(unsupported)

    def _answer(self, instructions: str, request: str, schema: dict[str, Any], longest: int) -> str:
        client = self._connected()
        import openai

        options: dict[str, Any] = {"seed": self.seed, "temperature": self.temperature}
        options = {name: value for name, value in options.items() if name not in self._refused}
        options["max_completion_tokens" if "max_tokens" in self._refused else "max_tokens"] = longest
        if self._format.startswith("json_schema"):
            asked = schema if self._format == _FORMATS[0] else _without_limits(schema)
            options["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": asked}}
        elif self._format == "json_object":
            options["response_format"] = {"type": "json_object"}
        messages = [{"role": "system", "content": instructions}, {"role": "user", "content": request}]
        try:
            answer = client.chat.completions.create(model=self.model, messages=messages, **options)
        except openai.APITimeoutError:
            raise PassingFault(f"{self.base_url}: no answer in {self.timeout:g} s") from None
        except openai.APIConnectionError:
            raise PassingFault(f"{self.base_url}: it can't be reached, or the connection was cut") from None
        except openai.APIStatusError as error:
            raise self._failure(error) from None
        except (openai.OpenAIError, *NONSENSE):
            raise self._senseless() from None
        try:  # the client checks no shapes
            choice = answer.choices[0]
            finished, said = choice.finish_reason, choice.message.content or getattr(choice.message, "refusal", None) or ""
        except NONSENSE:
            raise self._senseless() from None
        if finished == "content_filter":
            raise EngineRefused("openai: a filter for content stopped the answer")
        if not isinstance(said, str):
            raise self._senseless()
        return said

    def _senseless(self) -> PassingFault:
        return PassingFault(f"{self.base_url}: what answers there doesn't speak OpenAI's protocol")

    def _key(self) -> str:
        return (self.api_key.get_secret_value() if self.api_key else os.environ.get("OPENAI_API_KEY")) or ""

    def _connected(self) -> Any:
        if self._client is None:
            self.require_packages()
            import openai

            http = openai.DefaultHttpxClient()
            [library] = {kind.__module__.partition(".")[0] for kind in type(http).__mro__ if kind.__name__ == "Client"}
            http.event_hooks = bounds(sys.modules[library])  # httpx or, of late, its successor
            options: dict[str, Any] = {"timeout": self.timeout, "max_retries": self.retries, "default_headers": HEADERS}
            self._client = openai.OpenAI(base_url=self.base_url, api_key=self._key() or "none", http_client=http, **options)
        return self._client

    def _failure(self, error: Any) -> Exception:
        """What a refusal means. The client has tried again already where that may help."""
        text = str(error.message)
        if key := self._key():  # some servers repeat what they were sent
            text = text.replace(key, "…")
        text = " ".join(text.split())[:200]
        match error.status_code:
            case 401 | 403:
                return BadSetting(f"translator openai: {self.base_url} doesn't take the API key (status {error.status_code})")
            case 404:
                return BadSetting(f"translator openai: {self.base_url} doesn't have the model {self.model}, or isn't such an address")
            case 429:
                return PassingFault(f"{self.base_url}: too many requests, or the account's quota is used up: {text}")
            case 400 | 413 | 422:
                if error.code == "context_length_exceeded" or error.status_code == 413:
                    return RequestTooLong(f"openai: {text}")
                for parameter in ("response_format", "max_tokens", *_OPTIONAL):
                    named = f"{error.param or ''} {text}".replace("json_schema", "response_format")
                    if parameter in named:
                        return _Unsupported(parameter, text)
                return RequestTooLong(f"openai: {text}") if _TOO_LONG.search(text) else EngineRefused(f"openai: {text}")
        return PassingFault(f"{self.base_url}: {text or 'no reason given'} (status {error.status_code})")

    def _do_without(self, unsupported: _Unsupported) -> None:
        if unsupported.parameter == "response_format" and self._format != _FORMATS[-1]:
            self._format = _FORMATS[_FORMATS.index(self._format) + 1]
        elif unsupported.parameter not in ("response_format", *self._refused):
            self._refused.add(unsupported.parameter)
        else:
            raise EngineRefused(f"openai: {unsupported}")


def _without_limits(schema: Any) -> Any:
    """A schema of types and names alone: OpenAI's strict mode takes no lengths."""
    if not isinstance(schema, dict):
        return schema
    return {key: _without_limits(part) for key, part in schema.items() if key not in ("minLength", "maxLength", "maxItems")}


class _Unsupported(Exception):
    """The server or the model doesn't take a parameter."""

    def __init__(self, parameter: str, text: str) -> None:
        super().__init__(text)
        self.parameter = parameter
