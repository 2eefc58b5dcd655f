"""What requests look like."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from chatterbox_service import text as texts
from chatterbox_service.errors import BadRequest, EmptyText, TextTooLong
from chatterbox_service.model import Manner
from chatterbox_service.settings import MAX_TEXT
from chatterbox_service.speaking import SEEDS

_FAULTS_TOLD = 3  # of a request that has many


class GenerateRequest(BaseModel):
    """One line to speak. The voice is the model's own, unless one of `voice`, `reference` and `reference_audio` gives another."""

    model_config = ConfigDict(extra="forbid", frozen=True)  # a misspelt setting must not go unnoticed

    text: str = Field(description=f"At most {MAX_TEXT} characters.")
    language: str = Field(default="en", min_length=2, max_length=35, description="BCP 47; GET /api/languages lists them.")
    exaggeration: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.5
    cfg_weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, description="0 takes over least of a foreign accent.")] = 0.4
    temperature: Annotated[float, Field(ge=0.05, le=5, allow_inf_nan=False)] = 0.8
    seed: int | None = Field(default=None, ge=0, lt=SEEDS, description="Same seed, same speech. None: any; the answer tells which.")
    voice: str | None = Field(default=None, max_length=200, description="A name that GET /api/voices lists.")
    reference: str | None = Field(default=None, description="SHA-256 of a recording that was sent before.")
    reference_audio: str | None = Field(default=None, description="A recording, in base64.")

    @model_validator(mode="after")
    def _one_voice(self) -> GenerateRequest:
        if sum(given is not None for given in (self.voice, self.reference, self.reference_audio)) > 1:
            raise ValueError("only one of voice, reference and reference_audio may be given")
        return self

    def checked_text(self) -> str:
        """The text as it will be spoken.

        Raises:
            EmptyText, TextTooLong
        """
        text = texts.normalised(self.text)
        if not texts.can_be_said(text):
            raise EmptyText("text: nothing to say in it, no letter and no digit")
        if len(text) > MAX_TEXT:
            raise TextTooLong(f"text: {len(text)} characters, at most {MAX_TEXT}")
        return text

    @property
    def manner(self) -> Manner:
        return Manner(self.exaggeration, self.cfg_weight, self.temperature)

    def chosen_seed(self) -> int:
        return random.randrange(SEEDS) if self.seed is None else self.seed


class BatchRequest(BaseModel):
    """Lines to speak one after the other. Each item is a `GenerateRequest`; a wrong one spoils no other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: list[Any] = Field(min_length=1)


def parsed(data: object) -> GenerateRequest:
    """A request from plain data.

    Raises:
        BadRequest
    """
    try:
        return GenerateRequest.model_validate(data)
    except ValidationError as error:
        raise BadRequest(faults(error.errors(include_input=False, include_url=False, include_context=False))) from None


def faults(errors: list[Any] | tuple[Any, ...]) -> str:
    """Pydantic's errors in one line, without what was sent: that may be long, or not even printable."""
    told = []
    for error in errors[:_FAULTS_TOLD]:
        if error["type"] == "json_invalid":
            return "the body is not valid JSON"
        place = ".".join(ascii(part)[1:-1][:60] if isinstance(part, str) else str(part) for part in error["loc"] if part != "body")
        fault = str(error["msg"]).removeprefix("Value error, ")
        told.append(f"{place}: {fault}" if place else fault)
    more = len(errors) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "")


def from_form(fields: Mapping[str, str]) -> GenerateRequest:
    """A request from a form's text fields; those left empty count as not given.

    Raises:
        BadRequest
    """
    return parsed({name: value for name, value in fields.items() if value or name == "text"})
