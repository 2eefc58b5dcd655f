"""Who says which word: from the turns that a diarisation hears to a speaker for every word.

A diarisation says when somebody speaks, in spans that may overlap and leave gaps; a recogniser says when each word is spoken. Neither knows
of the other, and both are off by tenths of a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dubbing.lesson import Word

LEAST_TURN = 0.6  # seconds: what one speaker says between two words of another is no turn of its own if it is shorter
NEAR = 0.5  # seconds: a pause after which even a short word may be somebody else's


class Turn(NamedTuple):
    """Somebody speaks from `start` to `end`, in seconds."""

    start: float
    end: float
    speaker: str


def with_speakers(words: Iterable[Word], turns: Iterable[Turn]) -> list[Word]:
    """The words in order, each with a speaker: the one who speaks most of its time, else the one whose turn is nearest.

    Speakers are named "speaker 1", "speaker 2" … in the order in which they are first heard. Without turns words stay as they are.
    """
    ordered = sorted(words, key=lambda word: (word.start, word.end))
    labels = _smoothed(ordered, _labels(ordered, sorted(turn for turn in turns if turn.end > turn.start)))
    names: dict[str, str] = {}
    for label in labels:
        if label is not None:
            names.setdefault(label, f"speaker {len(names) + 1}")
    return [
        word if label is None else word.model_copy(update={"speaker": names[label]}) for word, label in zip(ordered, labels, strict=True)
    ]


def _labels(words: Sequence[Word], turns: Sequence[Turn]) -> list[str | None]:
    labels: list[str | None] = []
    speaking: list[Turn] = []  # turns that have begun and are not over yet
    last: Turn | None = None  # of those that are over the one that ended last
    following = 0
    for word in words:
        while following < len(turns) and turns[following].start <= word.end:
            speaking.append(turns[following])
            following += 1
        for turn in speaking:
            if turn.end < word.start and (last is None or turn.end > last.end):
                last = turn
        speaking = [turn for turn in speaking if turn.end >= word.start]
        shares: dict[str, float] = {}
        for turn in speaking:
            shares[turn.speaker] = shares.get(turn.speaker, 0.0) + min(turn.end, word.end) - max(turn.start, word.start)
        if shares:
            # Where two share a word alike, the one who was speaking goes on.
            labels.append(max(shares, key=lambda speaker: (shares[speaker], bool(labels) and speaker == labels[-1])))
            continue
        near = [(word.start - last.end, last.speaker)] if last else []
        if following < len(turns):
            near.append((turns[following].start - word.end, turns[following].speaker))
        labels.append(min(near, key=lambda gap: gap[0])[1] if near else None)
    return labels


def _smoothed(words: Sequence[Word], labels: list[str | None]) -> list[str | None]:
    """Runs of words that are too short for a turn, in the middle of somebody else's, go to the one around them."""
    runs: list[list[int]] = []
    for position, label in enumerate(labels):
        if runs and labels[runs[-1][0]] == label:
            runs[-1].append(position)
        else:
            runs.append([position])
    smoothed = list(labels)
    for before, run, after in zip(runs, runs[1:], runs[2:], strict=False):
        short = words[run[-1]].end - words[run[0]].start < LEAST_TURN
        joined = words[run[0]].start - words[before[-1]].end < NEAR and words[after[0]].start - words[run[-1]].end < NEAR
        if short and joined and smoothed[before[-1]] == labels[after[0]]:
            for position in run:
                smoothed[position] = labels[after[0]]
    return smoothed
