"""Checks of what was made: words heard against words meant, and the thresholds beyond which a person should look at a line."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from dubbing.languages import UNSPACED, base_language, letters_and_digits
from dubbing.lesson import PlacedLine
from dubbing.placement import ACCEPTABLE_RATE, LATE_DRIFT

DOUBTFUL_ERROR_RATE = 0.25  # of a line's words: a good voice and Whisper base stay under 0.1 (reference figures of both engines)
FEWEST_ERRORS = 2  # words: one wrong word in a short line is the recogniser's as often as the voice's
FASTEST_READING = 21.0  # characters a second: beyond it viewers don't finish reading (Netflix, Timed Text Style Guide: 20)
LOUDNESS_TOLERANCE = 0.5  # LU from the target
LENGTH_TOLERANCE = 0.045  # seconds (two AAC frames, whose padding Matroska counts) between the dubbed track's length and the lesson's

_SPOKEN_SIGNS = {
    "en": {"%": "percent", "°C": "degrees Celsius", "°F": "degrees Fahrenheit", "°": "degrees", "&": "and", "+": "plus", "=": "equals"}
}
_ORDINAL = re.compile(r"\b(\d+)(st|nd|rd|th)\b")
_NUMBER = re.compile(r"\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)|\d+(?:[.,]\d+)*")  # "200 000", "200,000", "3.5"
_COMMA_GROUPS = frozenset({"en", "zh", "ja", "ko", "th", "hi", "he"})  # languages that write 1,000.5; the others write 1.000,5


class WordErrors(NamedTuple):
    errors: int
    words: int  # that should have been heard

    @property
    def rate(self) -> float:
        return self.errors / max(1, self.words)


def spoken_words(text: str, language: str) -> list[str]:
    """The text as a list of words as they are said: numbers in words, no case, no punctuation. Characters where no spaces are written.

    >>> spoken_words("It's 300 K, -35!", "en")
    ["it's", 'three', 'hundred', 'k', 'minus', 'thirty', 'five']
    """
    base = base_language(language)
    for sign, word in _SPOKEN_SIGNS.get(base, {}).items():
        text = text.replace(sign, f" {word} ")
    if base == "en":
        text = re.sub(r"(?<![\w])[-\N{MINUS SIGN}\N{EN DASH}](?=\d)", "minus ", text)
        text = _ORDINAL.sub(lambda found: _in_words(found[1], base, ordinal=True), text)
    text = _NUMBER.sub(lambda found: f" {_in_words(found[0], base)} ", text)
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("-", " ")
    words = [word.strip("'") for word in letters_and_digits(text, besides="'").split() if word.strip("'")]
    return [character for word in words for character in word] if base in UNSPACED else words


def _in_words(number: str, language: str, ordinal: bool = False) -> str:
    from num2words import num2words

    group, point = (",", ".") if language in _COMMA_GROUPS else (".", ",")
    # A single group of three may be decimals written the other way ("3.141" in a language that writes 3,141): only "0" tells.
    plain = re.sub(rf"(?<=\d)[{group} \u00a0\u202f](?=\d{{3}}(\D|$))", "", number) if not number.startswith("0") else number
    plain = plain.replace(point, ".").replace(group, ".")
    try:
        value: int | float = int(plain) if plain.isdecimal() else float(plain)
        return str(num2words(value, lang=language, to="ordinal" if ordinal else "cardinal")).replace(",", " ")
    except (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError):  # not every number in every language
        return number


def word_errors(meant: str, heard: str, language: str) -> WordErrors:
    """Substitutions, deletions and insertions of the heard text against the meant one."""
    import jiwer

    reference, hypothesis = spoken_words(meant, language), spoken_words(heard, language)
    if not reference:
        return WordErrors(len(hypothesis), 0)
    if not hypothesis:
        return WordErrors(len(reference), len(reference))
    measured = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    return WordErrors(measured.substitutions + measured.deletions + measured.insertions, len(reference))


def line_flags(line: PlacedLine, errors: WordErrors | None, reading_speed: float) -> tuple[str, ...]:
    """What a person should look at, besides what was flagged when the line was made."""
    flags = []
    if errors and errors.rate > DOUBTFUL_ERROR_RATE and errors.errors >= FEWEST_ERRORS:
        flags.append(f"speech: {errors.errors} of {errors.words} words heard differently")
    if line.rate > ACCEPTABLE_RATE:
        flags.append(f"timing: spoken {line.rate:.2f} times as fast")
    if abs(line.drift) > LATE_DRIFT:
        flags.append(f"timing: {abs(line.drift):.1f} s {'late' if line.drift > 0 else 'early'}")
    if reading_speed > FASTEST_READING:
        flags.append(f"subtitle: {reading_speed:.0f} characters a second to read")
    return tuple(flags)


def overlaps(lines: Sequence[PlacedLine]) -> int:
    """How many spoken lines start before the one before them has ended."""
    spoken = [line for line in lines if line.clip]
    return sum(after.start < before.end - 1e-6 for before, after in pairwise(spoken))
