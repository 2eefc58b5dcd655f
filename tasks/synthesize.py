"""Stage 6: every line spoken."""

from __future__ import annotations

import numpy as np

from blocks.speech import SpeechEngine
from blocks.store import Store
from dubbing import audio
from dubbing.edits import spoken_text
from dubbing.errors import EngineRefused
from dubbing.lesson import Clip, Clips, Noun, TranslatedLine, Translation
from tasks.lines import line_by_line
from tasks.stage import stage

VERSION = 1
SLOWEST = 3.0  # characters a second: slower speech has a hole or a loop in it
FASTEST = 40.0  # faster speech has lost words
FEWEST_CHARACTERS = 15  # that those two rates mean anything for
QUIETEST = 0.01  # peak of a clip: below it nothing was said


class _Spoken(Noun):
    """A line's clip, or why there is none, as it is cached."""

    clip: Clip | None = None
    refusal: str | None = None


@stage(version=VERSION, returns=Clips, per_line=True)
def synthesize(store: Store, translation: Translation, engine: SpeechEngine, voice: str, seed: int) -> Clips:
    """Speak each line that has words. A line that can't be spoken has no clip; one that sounds wrong is flagged."""

    def speak(line: TranslatedLine) -> _Spoken:
        try:
            speech = engine.synthesize(words_of(line), translation.language, line.voice or voice, seed)
        except EngineRefused as refusal:
            return _Spoken(refusal=str(refusal))
        samples = audio.trim_silence(speech.samples, speech.sample_rate)
        with store.scratch() as folder:
            audio.write_clip(folder / "clip.wav", samples, speech.sample_rate)
            artifact = store.put_file(folder / "clip.wav", audio.WAV)
        duration = len(samples) / speech.sample_rate
        clip = Clip(
            id=line.id,
            text=line.text,
            media=artifact,
            duration=duration,
            engine=engine.engine_name,
            voice=line.voice or voice,
            seed=seed if engine.seeded else None,
            flags=_doubts(words_of(line), samples, duration),
        )
        return _Spoken(clip=clip)

    def words_of(line: TranslatedLine) -> str:
        return spoken_text(line.text, line.say, translation.language)

    spoken = [line for line in translation.lines if line.text]
    results = line_by_line(
        store,
        "synthesize",
        VERSION,
        spoken,
        lambda line: [line.id],
        {"language": translation.language, "engine": engine, "seed": seed if engine.seeded else None},
        lambda line: {"text": words_of(line), "voice": line.voice or voice},
        speak,
        _Spoken,
    )
    # The same words said twice are one cached clip: each line gets it under its own id.
    clips = tuple(
        done.clip.model_copy(update={"id": line.id, "text": line.text}) for done, line in zip(results, spoken, strict=True) if done.clip
    )
    refused = {line.id: done.refusal for done, line in zip(results, spoken, strict=True) if done.refusal}
    if not clips:
        raise EngineRefused(
            f"{engine.engine_name} spoke none of {len(spoken)} lines{''.join(f': {why}' for why in [*refused.values()][:1])}"
        )
    return Clips(lines=clips, refused=refused)


def _doubts(text: str, samples: np.ndarray, duration: float) -> tuple[str, ...]:
    if float(np.abs(samples).max(initial=0.0)) < QUIETEST:
        return ("speech: the clip is silent",)
    speed = len(text) / duration
    if len(text) >= FEWEST_CHARACTERS and not SLOWEST <= speed <= FASTEST:
        return (f"speech: {duration:.1f} s for {len(text)} characters",)
    return ()
