"""Stage 6: every line spoken."""

from __future__ import annotations

import numpy as np

from blocks.speech import SpeechEngine
from blocks.store import Store
from dubbing import audio
from dubbing.errors import EngineRefused
from dubbing.lesson import Clip, Clips, TranslatedLine, Translation
from tasks.stage import line_by_line, stage

VERSION = 1
SLOWEST = 3.0  # characters a second: slower speech has a hole or a loop in it
FASTEST = 40.0  # faster speech has lost words
FEWEST_CHARACTERS = 15  # that those two rates mean anything for
QUIETEST = 0.01  # peak of a clip: below it nothing was said


@stage(version=VERSION, returns=Clips, per_line=True)
def synthesize(store: Store, translation: Translation, engine: SpeechEngine, voice: str, seed: int) -> Clips:
    """Speak each line that has words. A line that can't be spoken has no clip; one that sounds wrong is flagged."""

    def speak(line: TranslatedLine) -> Clip:
        speech = engine.synthesize(line.text, translation.language, voice, seed)
        samples = audio.trim_silence(speech.samples, speech.sample_rate)
        with store.scratch() as folder:
            audio.write_clip(folder / "clip.wav", samples, speech.sample_rate)
            artifact = store.put_file(folder / "clip.wav", audio.WAV)
        duration = len(samples) / speech.sample_rate
        return Clip(
            id=line.id,
            text=line.text,
            media=artifact,
            duration=duration,
            engine=engine.engine_name,
            voice=voice,
            seed=seed if engine.seeded else None,
            flags=_doubts(line.text, samples, duration),
        )

    spoken = [line for line in translation.lines if line.text]
    clips = line_by_line(
        store,
        "synthesize",
        VERSION,
        spoken,
        lambda line: [line.text, translation.language, engine, voice, seed if engine.seeded else None],
        speak,
        Clip,
    )
    if not clips:
        raise EngineRefused(f"{engine.engine_name}: there is no line to speak")
    # The same words said twice are one cached clip: each line gets it under its own id.
    return Clips(lines=tuple(clip.model_copy(update={"id": line.id}) for clip, line in zip(clips, spoken, strict=True)))


def _doubts(text: str, samples: np.ndarray, duration: float) -> tuple[str, ...]:
    if float(np.abs(samples).max(initial=0.0)) < QUIETEST:
        return ("speech: the clip is silent",)
    speed = len(text) / duration
    if len(text) >= FEWEST_CHARACTERS and not SLOWEST <= speed <= FASTEST:
        return (f"speech: {duration:.1f} s for {len(text)} characters",)
    return ()
