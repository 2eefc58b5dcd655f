"""Which seconds of a lesson a voice is cloned from: long, clean, of an ordinary level, and of one speaker alone.

Levels are taken once of the whole lesson, a frame at a time; everything after that is arithmetic on them and on the lines' times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dubbing.lesson import Utterance

FRAME = 0.02  # seconds over which a level is taken: what the service takes too
SHORTEST, LONGEST = 3.0, 30.0  # seconds of speech that a voice can be cloned from (limits of the Chatterbox service)
BEST = 10.0  # seconds: all that the model hears of the timbre
QUIETEST = -40.0  # dBFS, mean of the speech; the service refuses -45
CLEAN = 15.0  # dB between speech and what else is there, for a line that is cloned from itself
MOST_CLIPPED = 0.02  # of the frames: a few cut-off peaks aren't heard

_SILENCE = 30.0  # dB below the loudest frame: a pause
_LONGEST_PAUSE = 1.5  # seconds between two lines that are taken together
_BEFORE, _AFTER = 0.05, 0.15  # seconds kept around the words: recognisers end words early rather than late
_AROUND = 1.0  # seconds on both sides in which the quietest moments tell the room's noise
_CLEANEST = 40.0  # dB: cleaner makes no better clone

# What a reference is worth, in dB of cleanness.
_OCTAVE_OFF = 8.0  # each time it is half or twice as long as is best
_LEVEL_OFF = 0.5  # each dB that it is louder or quieter than the speaker mostly is
_UNSURE = 20.0  # that the recogniser knew none of its words: it may be no speech
_CLIPPED = 300.0  # that all frames are clipped


class Levels(NamedTuple):
    """Of a recording, a value a frame."""

    power: np.ndarray  # [frames] mean square
    peak: np.ndarray  # [frames] largest absolute sample

    def between(self, start: float, end: float) -> Levels:
        first, last = max(0, round(start / FRAME)), max(0, round(end / FRAME))
        return Levels(self.power[first:last], self.peak[first:last])


class Span(NamedTuple):
    start: float  # seconds
    end: float
    cleanness: float  # dB between the speech and the loudest of what else is there: noise in its pauses, music and room beside it
    worth: float  # the more the better


def levels(blocks: Iterable[np.ndarray], sample_rate: int) -> Levels:
    """Levels of a recording that comes in blocks [frames, channels]."""
    step = round(FRAME * sample_rate)
    powers, peaks, rest = [], [], None
    for block in blocks:
        samples = block if rest is None else np.concatenate([rest, block])
        count = len(samples) // step
        frames = samples[: count * step].reshape(count, step, samples.shape[1])
        powers.append(np.square(frames.mean(axis=2), dtype=np.float64).mean(axis=1))
        peaks.append(np.abs(frames).max(axis=(1, 2), initial=0.0))
        rest = samples[count * step :]
    if not powers:
        return Levels(np.zeros(0), np.zeros(0))
    return Levels(np.concatenate(powers), np.concatenate(peaks))


def best_span(utterances: Sequence[Utterance], speaker: str | None, voice: Levels, background: Levels) -> Span | None:
    """The part of the lesson to clone a speaker's voice from, or None when there is no part that will do.

    Args:
        utterances: all of the lesson, in order; a part that another speaker's words reach into is never taken.
    """
    candidates = [span for start, end, sure in _stretches(utterances, speaker) if (span := _measured(start, end, sure, voice, background))]
    if not candidates:
        return None
    usual = float(np.median([_level(voice.between(span.start, span.end).power) for span in candidates]))
    worth = [span.worth - _LEVEL_OFF * abs(_level(voice.between(span.start, span.end).power) - usual) for span in candidates]
    return candidates[int(np.argmax(worth))]


def line_span(utterances: Sequence[Utterance], position: int, voice: Levels, background: Levels) -> Span | None:
    """The sound of one line, when it is long and clean enough that its voice can be cloned from it."""
    line = utterances[position]
    if _is_disturbed(line.start, line.end, line.speaker, utterances):
        return None
    span = _measured(line.start, line.end, line.confidence, voice, background)
    return span if span and span.cleanness >= CLEAN else None


def _stretches(utterances: Sequence[Utterance], speaker: str | None) -> list[tuple[float, float, float]]:
    """Start, end and mean confidence of every run of lines of a speaker that is short enough; of a longer line its beginning."""
    found = []
    for first, line in enumerate(utterances):
        if line.speaker != speaker:
            continue
        if line.end - line.start > LONGEST:
            ends = [word.end for word in line.words if SHORTEST <= word.end - line.start <= LONGEST]
            if ends:
                found.append((line.start, min(ends, key=lambda end: abs(end - line.start - BEST)), line.confidence))
            continue
        sure, end = [], line.start
        for following in utterances[first:]:
            if following.speaker != speaker or following.start - end > _LONGEST_PAUSE or following.end - line.start > LONGEST - 1:
                break
            end = following.end
            sure.append(following.confidence)
            found.append((line.start, end, float(np.mean(sure))))
    return [stretch for stretch in found if not _is_disturbed(stretch[0], stretch[1], speaker, utterances)]


def _is_disturbed(start: float, end: float, speaker: str | None, utterances: Sequence[Utterance]) -> bool:
    return any(other.speaker != speaker and other.start < end and start < other.end for other in utterances)


def _measured(start: float, end: float, sure: float, voice: Levels, background: Levels) -> Span | None:
    start, end = max(0.0, start - _BEFORE), end + _AFTER
    here = voice.between(start, end)
    loud = here.power > max(float(here.power.max(initial=0.0)) * 10 ** (-_SILENCE / 10), 1e-9)
    if loud.sum() * FRAME < SHORTEST or end - start > LONGEST:
        return None
    level = _level(here.power[loud])
    clipped = float((here.peak >= 0.999).mean())
    if level < QUIETEST or clipped > MOST_CLIPPED:
        return None
    around = voice.between(start - _AROUND, end + _AROUND).power
    noise = max(_level(np.percentile(around, 5)), _level(background.between(start, end).power))
    cleanness = min(level - noise, _CLEANEST)
    length = abs(float(np.log2((end - start) / BEST)))
    return Span(start, end, cleanness, cleanness - _OCTAVE_OFF * length - _UNSURE * (1 - sure) - _CLIPPED * clipped)


def _level(power: np.ndarray | np.floating) -> float:
    """dBFS of a mean square."""
    return 10 * float(np.log10(max(float(np.mean(power)) if np.size(power) else 0.0, 1e-12)))
