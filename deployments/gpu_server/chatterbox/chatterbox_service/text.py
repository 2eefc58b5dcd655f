"""Text, cut into pieces that the model speaks well.

Where to cut is one small optimisation over the whole text: as few pieces as the limit allows, ended where a sentence ends if possible, else
where a clause does, else between words; none so short that the model makes up words around it; all about as long as each other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import accumulate, pairwise

SHORTEST = 20  # letters: on less the model often goes on speaking words of its own
SYLLABLE = 3  # letters, about, that a character of Chinese, Japanese or Korean takes to say: 5 a second, of others 15

# What a cut costs by where it is. Each is worth more than any number of what follows it.
_WITHIN_A_WORD, _TOO_SHORT, _BETWEEN_WORDS, _AT_A_CLAUSE, _PER_PIECE = 1e13, 1e10, 1e7, 1e5, 1e2
_NEAR = 24  # characters around a place that tell whether a sentence ends there

_ENDERS = ".!?…。！？؟।۔"
_WIDE_ENDERS = "。！？"  # no space follows these
_CLAUSE_ENDERS = ",;:—–，；：、،؛"
_WIDE_CLAUSE_ENDERS = "，；：、"
_CLOSERS = "\"'”’»)]}」』）】"
_OPENERS = "\"'“‘«([{¿¡—–-「『（【"

_ABBREVIATIONS = frozenset(  # a dot after these ends no sentence, nor after single letters
    (
        "abb adm al approx apt art bd bldg bzgl bzw ca cap cf ch chap cm co col corp dept dir doc dott dr dra ed eds eg ej eks etc "
        "evtl ex ext fig figs fr gen gov hon hr hrn hrs ibid ie inc ing jr km lt ltd m mag max mg min mm mme mlle mr mrs ms mt n nb no "
        "nos nr núm op osv pag pág par pf pp pr prof pt rev rt sec sen sig sr sra srta st ste str tab tel univ usw v vgl viz vol vs zb "
        "в вв г гг гл г-н г-жа д др ед им илл кв коп л млн млрд напр обл оз п пер пл пр проф р рис руб с св см соч стр т табл тел тыс "
        "ул упр ф ч шт экз αρ βλ δηλ κ κα λχ π σελ"
    ).split()
)


def normalised(text: str) -> str:
    """One line without control characters, its letters composed; what is counted, spoken and compared."""
    kept = "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs", "Co", "Cn"))
    return " ".join(unicodedata.normalize("NFC", kept).split())


def can_be_said(text: str) -> bool:
    """Whether there is a letter or a digit in it. What has none the model would fill with speech of its own."""
    return any(c.isalnum() for c in text)


def length(text: str) -> int:
    """How much there is to say, in letters."""
    return sum(SYLLABLE if _is_syllable(c) else 1 for c in text)


def cut(text: str, limit: int) -> list[str]:
    """Pieces of at most `limit` letters' length, in order, all words kept.

    Example:
        >>> cut("It costs 3.50 in St. Ives. That is cheap. Is it?", 30)
        ['It costs 3.50 in St. Ives.', 'That is cheap. Is it?']
    """
    text = normalised(text)
    if length(text) <= limit:
        return [text] if text else []
    places = [(0, 0.0), *_places(text, limit), (len(text), 0.0)]
    begins = [at + (text[at : at + 1] == " ") for at, _ in places]
    lengths = [0, *accumulate(SYLLABLE if _is_syllable(c) else 1 for c in text)]  # of the text up to each character
    sayable = [0, *accumulate(c.isalnum() for c in text)]
    short = min(SHORTEST, limit // 2)
    best = [(0.0, 0)]  # for each place: the least cost of the text before it, and where the last piece before it begins
    for end, (at, cost_here) in enumerate(places[1:], start=1):
        options = []
        for start in range(end - 1, -1, -1):
            size = lengths[at] - lengths[begins[start]]
            if size > limit and options:
                break
            bad = size < short or sayable[at] == sayable[begins[start]]
            options.append((best[start][0] + cost_here + _PER_PIECE + bad * _TOO_SHORT + (size / limit) ** 2, start))
        best.append(min(options))
    cuts = [len(places) - 1]
    while cuts[-1]:
        cuts.append(best[cuts[-1]][1])
    cuts.reverse()
    return [text[begins[start] : places[end][0]] for start, end in pairwise(cuts)]


def _places(text: str, limit: int) -> Iterator[tuple[int, float]]:
    """Where the text may be cut, and what that costs. Within a word only where the word is longer than a piece may be."""
    too_long = _word_is_longer(text, 0, limit)
    for at in range(1, len(text)):
        before, after = text[at - 1], text[at]
        if before == " ":
            too_long = _word_is_longer(text, at, limit)
        if after == " ":
            if (sure := _ends_sentence(text, at)) is not False:
                yield at, 0.0 if sure else 3 * _AT_A_CLAUSE
            elif before in _CLAUSE_ENDERS or _is_dash(text, at):
                yield at, _AT_A_CLAUSE
            else:  # what belongs together, as in "Dr. No" and "10 000", stays together if anything else can be cut
                together = before == "." or (before.isdigit() and text[at + 1].isdigit())
                yield at, _BETWEEN_WORDS * (10 if together else 1)
        elif before == " ":
            continue
        elif _ends_wide_sentence(text, at):
            yield at, 0.0
        elif before in _WIDE_CLAUSE_ENDERS and after not in _CLOSERS:
            yield at, _AT_A_CLAUSE
        elif _is_wide(before) and _is_wide(after):  # these scripts have no spaces between words
            yield at, _BETWEEN_WORDS
        elif too_long:
            yield at, _WITHIN_A_WORD * (10 if unicodedata.combining(after) else 1)


def _ends_wide_sentence(text: str, at: int) -> bool:
    """Whether a sentence ends before the character at `at`, in a script that has no spaces after sentences."""
    said = text[max(0, at - _NEAR) : at].rstrip(_CLOSERS)
    return said[-1:] in tuple(_WIDE_ENDERS) and text[at] not in _ENDERS + _CLOSERS


def _word_is_longer(text: str, start: int, limit: int) -> bool:
    end = text.find(" ", start)
    return length(text[start : end if end >= 0 else len(text)]) > limit


def _is_dash(text: str, at: int) -> bool:
    """Whether a dash with spaces around it comes next: a clause ends before it."""
    return text[at + 1 : at + 2] in tuple("—–-") and text[at + 2 : at + 3] == " "


def _is_wide(c: str) -> bool:
    """Whether it is of a script without spaces between words."""
    return "\u3040" <= c <= "\u30ff" or "\u3400" <= c <= "\u9fff"


def _is_syllable(c: str) -> bool:
    return _is_wide(c) or "\uac00" <= c <= "\ud7af"


def _ends_sentence(text: str, at: int) -> bool | None:
    """Whether a sentence ends before the space at `at`; None: perhaps."""
    said = text[max(0, at - _NEAR) : at].rstrip(_CLOSERS)
    if not said or said[-1] not in _ENDERS:
        return False
    follows = text[at + 1 : at + _NEAR].lstrip(_OPENERS + " ")[:1]
    if said[-1] == "." and not said.endswith(".."):
        word = re.split(r"[\s(\[«„“\"']", said[:-1])[-1].lower()
        if word.isdigit() and len(word) <= 2:  # "in room 12. Then", or "am 12. Mai"
            return False if follows.islower() else None
        if word in _ABBREVIATIONS or len(word.rsplit(".", 1)[-1]) <= 1:
            return False
    return not follows.islower()
