"""Between separation and speech: who speaks in the lesson, at what pitch, and which seconds of it their voices can be cloned from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from blocks.speech_engine import CLONE, SpeechEngine
from blocks.store import Store
from dubbing import audio, references
from dubbing.lesson import Artifact, Cast, Reference, Speaker, Speakers, Stems, Transcript, Voice
from dubbing.media import SAMPLE_RATE
from dubbing.pitch import median_pitch
from tasks.progress import advance
from tasks.stage import stage

PITCH_RATE = 16_000  # Hz
MOST_HEARD = 120.0  # seconds of a speaker's lines that the pitch is taken from: more doesn't move a median
REFERENCE_RATE = 24_000  # Hz: what a cloned voice is made of
_PEAK = 0.95  # of full scale, where the separated voice goes beyond


@stage(version=1, returns=Speakers, opens=("stems",))
def speakers(store: Store, stems: Stems, transcript: Transcript, cloned: Literal["nobody", "speakers", "lines"]) -> Speakers:
    """Each speaker's pitch and, where voices are cloned, the best part of the lesson to clone them from (`dubbing.references`).

    Args:
        cloned: whose voices; "lines": also each line's own, where it is long and clean enough.
    """
    vocals, lines = store.path_of(stems.vocals.media), transcript.utterances
    names = list(dict.fromkeys(line.speaker for line in lines))
    pitches = {}
    for number, name in enumerate(names):
        advance(0.5 * number / len(names))
        pitches[name] = median_pitch(_heard(store, stems, transcript, name), PITCH_RATE)

    def reference(span: references.Span) -> Reference:
        samples = audio.read_span(vocals, span.start, span.end, REFERENCE_RATE)
        samples = samples * min(1.0, _PEAK / max(float(np.abs(samples).max(initial=0.0)), 1e-9))
        return Reference(media=_stored(store, samples), start=round(span.start, 2), end=round(span.end, 2), language=transcript.language)

    of_speakers: dict[str | None, Reference] = {}
    of_lines: dict[str, Reference] = {}
    if cloned != "nobody":
        voice = references.levels(audio.blocks(vocals), SAMPLE_RATE)
        background = references.levels(audio.blocks(store.path_of(stems.background.media)), SAMPLE_RATE)
        for name in names:
            if span := references.best_span(lines, name, voice, background):
                of_speakers[name] = reference(span)
        for position, line in enumerate(lines if cloned == "lines" else ()):
            advance(0.5 + 0.5 * position / len(lines))
            if span := references.line_span(lines, position, voice, background):
                of_lines[line.id] = reference(span)
    found = [
        Speaker(
            name=name or "",
            seconds=round(sum(line.end - line.start for line in lines if line.speaker == name), 2),
            pitch=None if (pitch := pitches[name]) is None else round(pitch, 1),
            reference=of_speakers.get(name),
        )
        for name in names
    ]
    return Speakers(speakers=tuple(sorted(found, key=lambda speaker: -speaker.seconds)), lines=of_lines)


def _heard(store: Store, stems: Stems, transcript: Transcript, name: str | None) -> Iterable[np.ndarray]:
    heard = 0.0
    for line in transcript.utterances:
        if line.speaker == name and heard < MOST_HEARD:
            heard += line.end - line.start
            yield audio.read_span(store.path_of(stems.vocals.media), line.start, line.end, PITCH_RATE)


def _stored(store: Store, samples: np.ndarray) -> Artifact:
    with store.scratch() as folder:
        audio.write_clip(folder / "reference.wav", samples, REFERENCE_RATE)
        return store.put_file(folder / "reference.wav", audio.WAV)


def are_told_apart(transcript: Transcript) -> bool:
    """Whether more than one speaker is known in the lesson."""
    return len({line.speaker for line in transcript.utterances}) > 1


def cast(
    engine: SpeechEngine,
    wished: str | None,
    language: str,
    transcript: Transcript,
    pitch: float | None,
    found: Speakers | None,
    lecturer: str | None = None,
) -> str | Cast:
    """The voice of all lines; or, where there are several speakers, several engines or clones, who says what with which voices.

    Args:
        wished: a voice that everybody has in the engines that have it.
        pitch: the lecturer's, Hz.
        found: None where nobody needs to be told apart or cloned.
        lecturer: a voice for who speaks most, in the engines that have it; others get others.
    """
    engines = [part for part in engine.engines() if part.voices(language)]
    if found is None and len(engines) == 1:
        if wished is None and lecturer and lecturer in engines[0].voices(language):
            return lecturer
        return wished or engines[0].default_voice(language, pitch)
    people = found.speakers if found else (Speaker(name="", seconds=0.0, pitch=pitch, reference=None),)
    known = {person.name for person in people}
    voices: dict[str, dict[str, Voice]] = {}
    lines: dict[str, dict[str, Voice]] = {}
    for part in engines:
        settled = {people[0].name: lecturer} if lecturer and lecturer in part.voices(language) else {}
        given = part.voice_each(language, {person.name: person.pitch for person in people}, settled)
        everybodys = wished if wished in part.voices(language) else None
        clones = part.clones() != "nobody" and everybodys in (None, CLONE)
        voices[part.engine_name] = {
            person.name: Voice(name=CLONE, reference=person.reference)
            if clones and person.reference
            else Voice(name=everybodys if everybodys and everybodys != CLONE else given[person.name])
            for person in people
        }
        voices[part.engine_name].setdefault("", voices[part.engine_name][people[0].name])
        if clones and part.clones() == "lines" and found:
            lines[part.engine_name] = {name: Voice(name=CLONE, reference=reference) for name, reference in found.lines.items()}
    speaker_of = {line.id: line.speaker or "" for line in transcript.utterances if (line.speaker or "") in known}
    return Cast(speaker_of=speaker_of, voices=voices, lines=lines)


def lecturers_voice(voice: str | Cast) -> str:
    """The voice of who speaks most, where an engine has one for that person; "" where it is a clone everywhere."""
    if isinstance(voice, str):
        return voice if voice != CLONE else ""
    of_most = [next(iter(voices.values())) for voices in voice.voices.values()]  # `cast` begins with who speaks most
    return next((each.name for each in of_most if each.name != CLONE), "")
