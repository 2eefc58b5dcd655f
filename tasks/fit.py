"""Stage 7: clips placed on the timeline, and stretched where they must be."""

from __future__ import annotations

from typing import Any, NamedTuple

from blocks.store import Store
from dubbing import audio, placement
from dubbing.lesson import Artifact, Clip, Clips, Noun, PlacedLine, Timeline, Transcript, TranslatedLine, Translation, Utterance
from dubbing.media import SAMPLE_RATE
from tasks.lines import line_by_line
from tasks.stage import stage

VERSION = 2


class _Fitted(Noun):
    """A stretched clip, as it is cached."""

    media: Artifact
    duration: float


class _Wanted(NamedTuple):
    clip: Clip
    rate: float


@stage(version=VERSION, returns=Timeline)
def fit(store: Store, transcript: Transcript, translation: Translation, clips: Clips, duration: float) -> Timeline:
    """Place all clips at once (`dubbing.placement`) and stretch each to its rate.

    Args:
        duration: of the lesson, seconds.
    """
    clip_of = {clip.id: clip for clip in clips.lines}
    spoken = [utterance for utterance in transcript.utterances if utterance.id in clip_of]
    natural = [placement.Natural(line.start, line.end, clip_of[line.id].duration) for line in spoken]
    place_of = {line.id: place for line, place in zip(spoken, placement.place(natural, duration), strict=True)}

    def stretch(wanted: _Wanted) -> _Fitted:
        samples = audio.fitted(store.path_of(wanted.clip.media), wanted.rate)
        with store.scratch() as folder:
            audio.write_clip(folder / "fitted.wav", samples, SAMPLE_RATE)
            return _Fitted(media=store.put_file(folder / "fitted.wav", audio.WAV), duration=len(samples) / SAMPLE_RATE)

    fitted = line_by_line(
        store,
        "fit",
        VERSION,
        [_Wanted(clip_of[line.id], place_of[line.id].rate) for line in spoken],
        lambda wanted: [wanted.clip.id],
        {},
        lambda wanted: {"clip": wanted.clip.media, "rate": wanted.rate},
        stretch,
        _Fitted,
    )
    fitted_of = {line.id: result for line, result in zip(spoken, fitted, strict=True)}
    translated = {line.id: line for line in translation.lines}
    lines = tuple(
        _spoken_line(utterance, translated[utterance.id], clip_of[utterance.id], place_of[utterance.id], fitted_of[utterance.id])
        if utterance.id in clip_of
        else _silent_line(utterance, translated[utterance.id], clips.refused.get(utterance.id))
        for utterance in transcript.utterances
    )
    return Timeline(
        source_language=transcript.language,
        target_language=translation.language,
        duration=max([duration, *(line.end for line in lines)]),
        lines=lines,
    )


def _spoken_line(utterance: Utterance, translated: TranslatedLine, clip: Clip, place: placement.Place, fitted: _Fitted) -> PlacedLine:
    flags = [*translated.flags, *clip.flags]
    if place.overflow > placement.LATE_DRIFT:
        flags.append(f"timing: {place.overflow:.1f} s longer than its place")
    return _line(
        utterance,
        translated,
        start=place.start,
        end=place.start + fitted.duration,
        rate=place.rate,
        overflow=place.overflow,
        engine=clip.engine,
        voice=clip.voice,
        clip=fitted.media,
        cloned_from=clip.cloned_from,
        instead_of=clip.instead_of,
        flags=tuple(flags),
    )


def _silent_line(utterance: Utterance, translated: TranslatedLine, refusal: str | None) -> PlacedLine:
    return _line(
        utterance,
        translated,
        start=utterance.start,
        end=utterance.end if translated.text else utterance.start,  # what isn't said can still be read
        rate=1.0,
        overflow=0.0,
        engine="",
        voice="",
        clip=None,
        said_with=translated.said_with,
        flags=(*translated.flags, *([f"speech: {refusal}"] if refusal else [])),
    )


def _line(utterance: Utterance, translated: TranslatedLine, **placed: Any) -> PlacedLine:
    """A line with what it has of its source and of its translation, spoken or not."""
    return PlacedLine(
        id=utterance.id,
        source_text=utterance.text,
        text=translated.text,
        source_start=utterance.start,
        source_end=utterance.end,
        speaker=utterance.speaker,
        say=translated.say,
        edited=translated.edited,
        attempts=translated.attempts,
        rung=translated.rung,
        model=translated.model,
        **placed,
    )
