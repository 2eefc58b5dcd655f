"""What can be set, each by an environment variable: `CHATTERBOX_` and the setting's name in capitals."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MAX_TEXT = 1024  # characters of a request: the documented limit
PIECE_TEXT = 300  # characters spoken at once: beyond, the model begins to leave out and invent words
PAUSE = 0.35  # seconds between pieces: a speaker's pause after a sentence


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="CHATTERBOX_", frozen=True)

    host: str = Field(default="127.0.0.1", description="The address to listen on. There are no accounts: leave it to this machine.")
    port: int = Field(default=8001, ge=0, le=65535)

    weights: Path | None = Field(default=None, description="Folder of the model's files. None: the hub's, downloaded on first use.")
    revision: str = Field(default="main", description="Of the hub's weights: a commit's name keeps them as they are.")
    device: Literal["auto", "cuda", "mps", "cpu"] = Field(default="auto", description="auto: the first there is of cuda, mps, cpu.")
    max_speech_tokens: int = Field(default=1000, ge=10, le=1000, description="Of one piece. 1000, 40 s, is all that the model gives.")

    voices: Path | None = Field(default=None, description="Folder of recordings that requests may name as voices.")
    max_reference_bytes: int = Field(default=20 * 2**20, ge=1024, description="30 s at 96 kHz, stereo, 24 bits, are 17 MB.")
    remembered_references: int = Field(default=64, ge=1, description="At most 3 MB of memory each.")
    remembered_conditionals: int = Field(default=32, ge=1, description="What the model needs to know of a voice; kept on its device.")

    max_waiting: int = Field(default=16, ge=0, description="Requests that wait while one is worked for. More are sent away.")
    max_batch: int = Field(default=32, ge=1, description="Items of a batch.")
