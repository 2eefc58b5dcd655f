"""Profiles: which engine does what in a run, under one name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import httpx
from prefect.blocks.core import Block
from pydantic import Field, ValidationError

from blocks.engine import Engine
from blocks.separation import SEPARATORS, Separator
from blocks.speech import SPEECH_ENGINES, SpeechEngine
from blocks.transcription import RECOGNISERS, Recogniser
from blocks.translation import TRANSLATORS, Translator
from dubbing.errors import BadSetting

Kind = TypeVar("Kind", bound=Engine)

_HOW = "Name of an engine; or a saved block, as its type's slug and its name: "


class Engines(NamedTuple):
    """The engines of a run."""

    separator: Separator
    recogniser: Recogniser
    translator: Translator
    speech: SpeechEngine

    def each(self) -> tuple[Engine, ...]:
        """Every engine that works in the run: of a chain each one."""
        return (self.separator, self.recogniser, self.translator, *self.speech.engines())

    def weights_names(self) -> tuple[str, ...]:
        """Catalogue names of the weights that they load, each once."""
        return tuple(dict.fromkeys(name for engine in self.each() for name in engine.weights_names()))

    def close(self) -> None:
        for engine in self:
            engine.close()


class Profile(Block):
    """An engine for each kind of work. Engines with settings of their own are saved as blocks, and named here."""

    _block_type_name = "Coursedub profile"
    _block_type_slug = "coursedub-profile"

    separator: str = Field(default="spleeter", description=f"{_HOW}coursedub-demucs/mine.")
    recogniser: str = Field(default="faster-whisper", description=f"{_HOW}coursedub-whisperx/mine.")
    translator: str = Field(default="llama", description=f"{_HOW}coursedub-ollama-translator/mine.")
    speech: str = Field(default="kokoro", description=f"{_HOW}coursedub-speech-chain/mine.")
    all_on_gpu_server: bool = Field(
        default=False, description="Where a run has a GPU server, also the engines that need no GPU work there and nowhere else."
    )

    def on_gpu_server(self, engines: Iterable[Engine]) -> bool:
        """Whether a stage that works with these engines is the GPU server's."""
        return any(engine.wants_gpu() or self.all_on_gpu_server for engine in engines)

    def engines(self) -> Engines:
        """
        Raises:
            BadSetting: there is no such engine or block, or one of its settings can't be.
        """
        return Engines(
            _engine(SEPARATORS, "separator", self.separator),
            _engine(RECOGNISERS, "recogniser", self.recogniser),
            _engine(TRANSLATORS, "translator", self.translator),
            _engine(SPEECH_ENGINES, "speech", self.speech),
        )


ENGINES: tuple[type[Engine], ...] = tuple(
    kind for table in (SEPARATORS, RECOGNISERS, TRANSLATORS, SPEECH_ENGINES) for kind in table.values()
)

PROFILES = {
    "cpu": Profile(),
    "gpu": Profile(separator="demucs", recogniser="whisperx", translator="ollama", speech="chain"),
}


def name_of_profile(name: str | None, otherwise: str = "cpu") -> str:
    """The name that is given, else COURSEDUB_PROFILE, else what is taken otherwise."""
    return name or os.environ.get("COURSEDUB_PROFILE") or otherwise


def profile_named(name: str | None, **others: str | None) -> Profile:
    """The profile of this name: `cpu`, `gpu`, or a block saved in Prefect. None is COURSEDUB_PROFILE, else `cpu`.

    Args:
        others: engines in place of the profile's.

    Raises:
        BadSetting: Prefect has no such block, or can't be reached.
    """
    name = name_of_profile(name)
    profile = PROFILES.get(name)
    if profile is None:
        try:
            loaded: Any = Profile.load(name.removeprefix(f"{Profile.get_block_type_slug()}/"))
        except ValueError as error:
            raise BadSetting(f"profile {name}: it is none of {', '.join(PROFILES)}, and Prefect has no such block") from error
        except (httpx.HTTPError, RuntimeError) as error:
            raise BadSetting(f"profile {name}: it is none of {', '.join(PROFILES)}, and Prefect's server can't be reached") from error
        profile = loaded
    return profile.model_copy(update={family: engine for family, engine in others.items() if engine})


def made(family: str, kind: type[Kind]) -> Kind:
    """An engine with its usual settings, which the environment has a part in.

    Raises:
        BadSetting: one of them can't be.
    """
    try:
        return kind()
    except ValidationError as error:
        raise _refusal(f"{family} {kind.engine_name}", error) from None


def _refusal(name: str, error: ValidationError) -> BadSetting:
    """In one line, without what was refused: it may be a secret."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}" for one in found)
    return BadSetting(f"{name}: {said}")


def _engine(table: Mapping[str, type[Engine]], family: str, name: str) -> Any:
    if name in table:
        return made(family, table[name])
    slug, _, saved = name.partition("/")
    kinds: dict[str, Any] = {kind.get_block_type_slug(): kind for kind in table.values()}
    if saved and slug in kinds:
        try:
            return kinds[slug].load(saved)
        except ValidationError as error:
            raise _refusal(f"{family} {name}", error) from None
        except ValueError as error:
            raise BadSetting(f"{family} {name}: Prefect has no such block") from error
        except RuntimeError as error:  # Prefect's own, about settings that its block's class refuses
            if isinstance(error.__cause__, ValidationError):
                raise _refusal(f"{family} {name}", error.__cause__) from None
            raise
    raise BadSetting(f"{family} {name}: it is none of {', '.join(table)}, nor a saved block such as {next(iter(kinds))}/NAME")
