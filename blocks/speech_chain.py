"""Speech engines one after another: what the first can't do, the next one does."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, field_validator

from blocks.speech_engine import Speech, SpeechEngine
from dubbing.errors import BadSetting, EngineRefused


def _usual() -> list[SpeechEngine]:
    from blocks.speech import SPEECH_ENGINES

    return [SPEECH_ENGINES[name]() for name in ("chatterbox", "kokoro")]


class SpeechChain(SpeechEngine):
    """Chatterbox, and Kokoro where Chatterbox can't be used; or any other engines in their order.

    The stage `synthesize` asks them. An engine that refuses a line for good leaves all lines of that speaker to the next one, unless voices
    may be mixed; what it has spoken already stays cached under its own name. An engine whose service is down is left out until the run ends
    (`without`), and the key of what is made then names the engine that was left out: the next run has another key, and asks it again.
    """

    _block_type_name = "Coursedub speech chain"
    _block_type_slug = "coursedub-speech-chain"
    engine_name: ClassVar[str] = "chain"

    chain: list[SerializeAsAny[SpeechEngine]] = Field(default_factory=_usual, min_length=1, description="Engines, the first choice first.")
    mixing: bool = Field(default=False, description="Whether lines of one speaker may have voices of different engines.")
    left_out: dict[str, str] = Field(default_factory=dict, description="Engines that can't be used just now, and why: a run fills it in.")

    @field_validator("chain", mode="before")
    @classmethod
    def _made(cls, given: Any) -> Any:
        """Engines may be named, or be given as Prefect keeps blocks inside a block."""
        from blocks.speech import SPEECH_ENGINES

        kinds: dict[str, Any] = {engine.get_block_type_slug(): engine for engine in SPEECH_ENGINES.values() if isinstance(engine, type)}
        made = []
        for part in given if isinstance(given, list | tuple) else [given]:
            if isinstance(part, str) and part in SPEECH_ENGINES:
                part = SPEECH_ENGINES[part]()
            elif isinstance(part, dict) and part.get("block_type_slug") in kinds:
                part = kinds[part["block_type_slug"]](**{name: value for name, value in part.items() if name != "block_type_slug"})
            if isinstance(part, SpeechChain) or not isinstance(part, SpeechEngine):
                raise ValueError(f"a speech engine is expected, one of {', '.join(name for name in SPEECH_ENGINES if name != 'chain')}")
            made.append(part)
        names = [part.engine_name for part in made]
        if len(set(names)) < len(names):
            raise ValueError("each engine may be in it once")
        return made

    def engines(self) -> list[SpeechEngine]:
        return [engine for engine in self.chain if engine.engine_name not in self.left_out]

    def without(self, down: str, why: str) -> SpeechEngine | None:
        rest = self.model_copy(update={"left_out": {**self.left_out, down: why}})
        return rest if rest.engines() else None

    def left_out_because(self) -> list[str]:
        return [self.left_out[name] for name in sorted(self.left_out)]

    def mixes(self) -> bool:
        return self.mixing

    def fingerprint(self) -> dict[str, Any]:
        # Those that are left out too: then a plan can say that nothing else differs from the wish.
        return {
            "engine": type(self).__name__,
            "settings": {
                "order": ", ".join(engine.engine_name for engine in self.chain),
                "mixing": self.mixing,
                "left_out": "; ".join(self.left_out_because()) or None,
            },
            "weights": {},
            "packages": {},
            **{engine.engine_name: engine.fingerprint() for engine in self.chain},
        }

    def wants_gpu(self) -> bool:
        return any(engine.wants_gpu() for engine in self.chain)

    def close(self) -> None:
        for engine in self.chain:
            engine.close()

    def languages(self) -> list[str]:
        return list(dict.fromkeys(tag for engine in self.engines() for tag in engine.languages()))

    def voices(self, language: str) -> list[str]:
        return list(dict.fromkeys(voice for engine in self.engines() for voice in engine.voices(language)))

    def suited(self, language: str, pitch: float | None) -> list[str]:
        return next(found for engine in self.engines() if (found := engine.suited(language, pitch)))

    def pace(self, language: str, voice: str) -> float:
        # Of the first choice, whoever is left out just now: a translation stays as it is when a service is down.
        having = [engine for engine in self.chain if voice in engine.voices(language)]
        return (having or self.chain)[0].pace(language, voice)

    def clones(self) -> Literal["nobody", "speakers", "lines"]:
        kinds = {engine.clones() for engine in self.engines()}
        return "lines" if "lines" in kinds else "speakers" if "speakers" in kinds else "nobody"

    def synthesize(self, text: str, language: str, voice: str, seed: int) -> Speech:
        """By the first engine that has the voice and doesn't refuse. `synthesize` the stage knows speakers, and does better."""
        refusals = []
        for engine in self.engines():
            if voice in engine.voices(language):
                try:
                    return engine.synthesize(text, language, voice, seed)
                except EngineRefused as refusal:
                    refusals.append(str(refusal))
        if not refusals:
            raise BadSetting(f"voice {voice}: no engine of the chain has it for {language}")
        raise EngineRefused("; ".join(refusals))
