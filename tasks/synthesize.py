"""Stage 6: every line spoken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from blocks.speech import SpeechEngine
from blocks.speech_engine import CLONE, NO_SPEECH, Sample, doubts_of
from blocks.store import Store
from dubbing import audio
from dubbing.edits import spoken_text
from dubbing.errors import EngineRefused, ServiceDown
from dubbing.lesson import Cast, Clip, Clips, Noun, TranslatedLine, Translation, Voice
from tasks.lines import line_by_line
from tasks.stage import stage

VERSION = 3


class _Spoken(Noun):
    """A line's clip, or why there is none, as it is cached."""

    clip: Clip | None = None
    refusal: str | None = None
    revision: str = ""  # of the model behind a service


class _Said(NamedTuple):
    """What became of a line among several engines."""

    spoken: _Spoken
    cloned_from: tuple[float, float] | None
    instead_of: str | None = None


class Speaking:
    """The stage as a story uses it: an engine whose service is down is left out from then on, where another can take its place."""

    def __init__(self, engine: SpeechEngine) -> None:
        self.engine = engine

    def __call__(self, store: Store, translation: Translation, voice: str | Cast, seed: int) -> Clips:
        while True:
            try:
                return synthesize(store, translation=translation, engine=self.engine, voice=voice, seed=seed)
            except ServiceDown as down:
                rest = self.engine.without(down.service, str(down))
                if rest is None or not rest.voices(translation.language):
                    raise
                self.engine = rest


@stage(version=VERSION, returns=Clips, per_line=True)
def synthesize(store: Store, translation: Translation, engine: SpeechEngine, voice: str | Cast, seed: int) -> Clips:
    """Speak each line that has words. A line that can't be spoken has no clip; one that sounds wrong is flagged.

    Of a chain the first engine speaks all lines. Where it refuses one for good and a later engine can say it, that one speaks all lines of
    the same speaker, or where voices may be mixed only those it was needed for. Lines are cached by the engine that spoke them: what is
    spoken and not used is still there when it is wanted again.

    Args:
        voice: of every line; or who says what, and with which voices.

    Raises:
        EngineRefused: no line could be spoken.
        ServiceDown: an engine can't be asked just now; what it spoke before is kept.
    """
    spoken = [line for line in translation.lines if line.text]
    engines = [part for part in engine.engines() if part.voices(translation.language)]

    def by(part: SpeechEngine, lines: Sequence[TranslatedLine]) -> dict[str, _Said]:
        voices = {line.id: _voice_of(part, line, translation.language, voice) for line in lines}
        results = _spoken_by(store, part, lines, voices, translation.language, seed)
        origins = {name: (used.reference.start, used.reference.end) if used.reference else None for name, used in voices.items()}
        return {line.id: _Said(result, origins[line.id]) for line, result in zip(lines, results, strict=True)}

    said = by(engines[0], spoken)
    for other in engines[1:]:
        unsaid = [line for line in spoken if said[line.id].spoken.refusal]
        helped = {name: one for name, one in by(other, unsaid).items() if one.spoken.clip}
        if engine.mixes():
            said |= {name: one._replace(instead_of=said[name].spoken.refusal) for name, one in helped.items()}
            continue
        for speaker in dict.fromkeys(_speaker_of(line, voice) for line in unsaid if line.id in helped):
            lines = [line for line in spoken if _speaker_of(line, voice) == speaker]
            again = by(other, lines)
            refusals = [refusal for line in lines if (refusal := said[line.id].spoken.refusal)]
            if sum(one.spoken.clip is None for one in again.values()) < len(refusals):
                said |= {name: one._replace(instead_of=refusals[0]) for name, one in again.items()}

    left_out = engine.left_out_because()
    clips = []
    refused = {}
    for line in spoken:
        result, cloned_from, instead_of = said[line.id]
        if result.refusal:
            refused[line.id] = result.refusal
        if result.clip:
            # The same words said twice are one cached clip: each line gets it under its own id.
            own = {"id": line.id, "text": line.text, "cloned_from": cloned_from}
            why = "; ".join([*left_out, *([instead_of] if instead_of else [])]) or None
            clips.append(result.clip.model_copy(update={**own, "instead_of": why}))
    if not clips:
        raise EngineRefused(
            f"{' and '.join(part.engine_name for part in engines)} spoke none of {len(spoken)} lines"
            f"{''.join(f': {why}' for why in [*refused.values()][:1])}"
        )
    return Clips(lines=tuple(clips), refused=refused)


def _spoken_by(
    store: Store, engine: SpeechEngine, lines: Sequence[TranslatedLine], voices: Mapping[str, Voice], language: str, seed: int
) -> list[_Spoken]:
    """What one engine makes of these lines."""
    if not lines:
        return []

    def speak(line: TranslatedLine) -> _Spoken:
        text, voice = spoken_text(line.text, line.say, language), voices[line.id]
        try:
            if voice.reference:
                sample = Sample(store.path_of(voice.reference.media), voice.reference.media.sha256, voice.reference.language)
                speech = engine.synthesize_as(text, language, sample, seed)
            else:
                speech = engine.synthesize(text, language, voice.name, seed)
        except EngineRefused as refusal:
            return _Spoken(refusal=str(refusal))
        doubts = dict.fromkeys((*speech.doubts, *doubts_of(text, speech.samples, speech.sample_rate)))
        if none := [doubt for doubt in doubts if doubt in NO_SPEECH]:
            return _Spoken(refusal=f"{engine.engine_name}: {none[0]}")
        samples = audio.trim_silence(speech.samples, speech.sample_rate)
        with store.scratch() as folder:
            audio.write_clip(folder / "clip.wav", samples, speech.sample_rate)
            artifact = store.put_file(folder / "clip.wav", audio.WAV)
        clip = Clip(
            id=line.id,
            text=line.text,
            media=artifact,
            duration=len(samples) / speech.sample_rate,
            engine=engine.engine_name,
            voice=voice.name,
            seed=(seed if speech.seed is None else speech.seed) if engine.seeded else None,
            flags=tuple(f"speech: {doubt}" for doubt in doubts),
        )
        return _Spoken(clip=clip, revision=speech.revision)

    def shaping(line: TranslatedLine) -> dict[str, Any]:
        voice = voices[line.id]
        cloned = {"reference": voice.reference.media, "reference_language": voice.reference.language} if voice.reference else {}
        return {"text": spoken_text(line.text, line.say, language), "voice": voice.name, **cloned}

    def results(common: dict[str, Any]) -> list[_Spoken]:
        wanted = engine.at_once_wanted()
        return line_by_line(store, "synthesize", VERSION, lines, lambda line: [line.id], common, shaping, speak, _Spoken, wanted)

    common = {"language": language, "engine": engine, "seed": seed if engine.seeded else None}
    found = results(common)
    if len({result.revision for result in found if result.revision}) > 1:
        # The service has another model than when the other lines were made: a lesson is spoken by one.
        found = results({**common, "revision": engine.current_revision()})
    return found


def _voice_of(engine: SpeechEngine, line: TranslatedLine, language: str, voice: str | Cast) -> Voice:
    """A person's choice for the line, where the engine has that voice, else what it was cast with."""
    cast = Voice(name=voice) if isinstance(voice, str) else voice.voice(engine.engine_name, line.id)
    if line.voice and line.voice != CLONE and line.voice in engine.voices(language):
        return Voice(name=line.voice)
    return cast


def _speaker_of(line: TranslatedLine, voice: str | Cast) -> str:
    return "" if isinstance(voice, str) else voice.speaker_of.get(line.id, "")
