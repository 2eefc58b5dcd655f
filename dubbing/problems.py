"""What is wrong with a translated line, as a model is told it and a person reads it.

A translation can't be proven right; what is looked for is what models are known to do: leave a line out, answer in another language, talk
about the task, repeat a neighbour, lose a number, a name or a term. What is refused here costs another request and in the end a flag, so
that any reading in which the line is right will do.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from fractions import Fraction
from typing import Any, NamedTuple

from dubbing.languages import LANGUAGES, UNSPACED, base_language, letters_and_digits, name_of, room_of, share_in_script
from dubbing.lesson import Term
from dubbing.placement import ACCEPTABLE_RATE, FREE_RATE
from dubbing.terms import is_used, same_word

LEAST_SCRIPT_SHARE = 0.6  # of a line's letters in the target's script: names and formulas may be in another
LONGEST_RATIO = 2.5  # of a line's length to its source's, beyond which something was added
SHORTEST_RATIO = 0.2  # below which something was lost
SLACK = 25  # characters that short lines may differ by
OVER_BUDGET = ACCEPTABLE_RATE / FREE_RATE  # a budget is for speech at the free rate: up to the acceptable one a line is not worth a request
_MERGED_RATIO = 1.2  # of a line's length to its source's, beyond which another line in it is one too many
COMMENTING = "it comments instead of translating"  # the one problem with which a line is better not said

# Openings of answers that talk about the task instead of doing it. A line with one may end as silence, so there are only such as no
# lecturer says: "Here is the formula", "I'm sorry" and "Note:" are said in every other lesson.
_COMMENT = re.compile(
    r"^\W*(translation\s*:|((sure|certainly|of course)\b\W*)?here(['’]s| is| are) (the|your|my) (\w+ ){0,2}translations?\b|"
    r"as an? (ai|(ai |large )?language model|ai (assistant|model|language model)),? i\b|"
    r"((i['’]m|i am) (sorry|afraid)\W+(but )?)?i (can(['’]|no)t|am unable to|am not able to) "
    r"(translate\b|(help|assist) (you )?with (that|this|your) request\b)|"
    r"(lo siento, pero )?no puedo traducir\b|(je suis désolée?, mais )?je ne peux pas traduire\b)|"
    r"^\s*(\{\s*\"|```)",
    re.IGNORECASE,
)
# Of translating (or of moving in a straight line) a lecturer may speak too; then all that is a translation.
_ON_TRANSLATING = re.compile(
    r"перев[оеё]|перенос|сдвиг|трансляц|перекл|translat|tradu[czk]|traslaci|translac|übersetz|übertrag|verschieb|vertal|tłumacz|przek|"
    r"çevir|översätt|翻|译|訳|平移|並進|번역|अनुवाद|ترجم",
    re.IGNORECASE,
)
# Refusals of models that may be a lecturer's words as well: such a line is said, and a person looks at it.
_PERHAPS_COMMENT = re.compile(
    r"^\W*((i['’]m|i am) (sorry|afraid)\b|i apologi[sz]e\b|unfortunately\b)\W+(but )?i (can(['’]|no)t|am unable|am not able)\b|"
    r"^\W*note\s*:.*\b(translat\w*|original|source text)\b|^\W*lo siento, pero no puedo\b|^\W*je suis désolée?, mais je ne peux\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+(?:[.,' \u00a0\u202f]\d+)*")  # with its decimals or thousands, whatever they are set apart by
_DATE = re.compile(r"\b(\d\d?)\.(?:0?[1-9]|1[0-2])\.(\d{4})\b")  # the month has a name


def problem_with(line: str | None, source_line: str, source: str, target: str, others: Sequence[str] = ()) -> str | None:
    """What is wrong with a translated line, as the model is told it and a person reads it, or None."""
    if not line or not any(c.isalnum() for c in line):
        return "it is missing"
    if share_in_script(line, target) < LEAST_SCRIPT_SHARE:
        return f"it is not in {name_of(target)}"
    foreign = LANGUAGES.get(base_language(source))
    if foreign and "LATIN" not in foreign.script and share_in_script(source_line, target) == 0.0 < share_in_script(line, source):
        return f"it has letters of {name_of(source)} in it"
    telling = len(line.split()) > 3 or (base_language(target) in UNSPACED and len(line) > 6)
    if telling and _plain(line) == _plain(source_line):
        return "it is not translated"
    if _is_in_another_language(line, source, target):
        return f"it is not in {name_of(target)}"
    if _COMMENT.search(line) and not _COMMENT.search(source_line) and not _ON_TRANSLATING.search(source_line):
        return COMMENTING
    if room_of(line) > LONGEST_RATIO * room_of(source_line) + SLACK:
        return f"it is too long ({len(line)} characters for {len(source_line)})"
    if room_of(line) < SHORTEST_RATIO * room_of(source_line) - SLACK / 2:
        return f"it is too short ({len(line)} characters for {len(source_line)})"
    if telling and _plain(line) in {_plain(other) for other in others}:
        return "it repeats another line"
    if any(_holds(line, other) for other in others) and room_of(line) > _MERGED_RATIO * room_of(source_line):
        return "it says another line too"
    lost = [numeral for numeral, certain in _lost_numbers(source_line, line, target) if certain]
    if lost:
        return f"it lost the number {', '.join(lost)}"
    return None


class Doubt(NamedTuple):
    """What may be wrong with a line that can be said: reason to ask once more, and to take the answer then."""

    text: str
    flagged: bool  # whether a person should look at a line that keeps it


def doubts_about(
    line: str,
    source_line: str,
    source: str,
    target: str,
    terms: Sequence[Term] = (),
    budget: int | None = None,
    names: Set[str] | None = None,
) -> tuple[Doubt, ...]:
    """Doubts about a line with which `problem_with` finds nothing wrong.

    Args:
        terms: that occur in the source line.
        budget: characters for which there is time.
        names: of the lesson (`names_in`); None when nothing is known of it.
    """
    doubts = [
        Doubt(f"it does not say “{term.translation}” for “{term.source}”", term.certain)
        for term in terms
        if not is_used(term, line, target)
    ]
    if _PERHAPS_COMMENT.search(line) and not _PERHAPS_COMMENT.search(source_line):
        doubts.append(Doubt("it may comment instead of translating", True))
    if numbers := [numeral for numeral, certain in _lost_numbers(source_line, line, target) if not certain]:
        doubts.append(Doubt(f"it may have lost the number {', '.join(numbers)}", True))
    if lost := lost_names(source_line, line, source, target, names):
        doubts.append(Doubt(f"it lost the name {', '.join(lost)}", True))
    if budget is not None and len(line) > budget * OVER_BUDGET:
        doubts.append(Doubt(f"it is too long ({len(line)} characters, there is time for {budget})", False))
    return tuple(doubts)


def _holds(line: str, other: str) -> bool:
    """Whether a line says another one within it."""
    plain, inner = _plain(line), _plain(other)
    return len(inner.split()) > 3 and plain != inner and f" {inner} " in f" {plain} "


# Languages

_SURE = 0.9  # probability of a language: of short lines with names and formulas the classifier is not sure, and then it isn't believed
_MORE_LIKELY = 20.0  # times as the target, from where the source's language is believed: it is the usual suspect
_FEWEST_LETTERS = 20


def _is_in_another_language(line: str, source: str, target: str) -> bool:
    """Whether a line in the right script is in another language of that script: the source's, or the English that models fall back to."""
    wanted, own = base_language(target), LANGUAGES.get(base_language(target))
    spoken = LANGUAGES.get(base_language(source))
    if own is None or (wanted == "en" and (spoken is None or not set(spoken.script) & set(own.script))):
        return False  # an English line with none of the source's letters: no model was seen to answer in a third language
    if sum(c.isalpha() for c in line) < _FEWEST_LETTERS:
        return False
    likely = dict(_classifier().rank(line))
    if wanted not in likely:
        return False
    other = max((language for language in likely if language in LANGUAGES and language != wanted), key=lambda language: likely[language])
    return likely[other] >= _SURE or likely.get(base_language(source), 0.0) > _MORE_LIKELY * likely[wanted]


@functools.cache
def _classifier() -> Any:
    """A naive Bayes classifier over byte n-grams for 97 languages (Lui and Baldwin 2012), in numpy."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


# Names

_CASED = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN")
_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")
_SENTENCE_START = re.compile(r"(?:^|[.?!…:;]|\s[—–-])[\s\"'«»“”„(—–-]*$")
_ALIKE = 60.0  # of 100: similarity of two spellings of a name without their vowels, "Больцман" and "Boltzmann"
_LONG_OPENER = 5  # letters: a shorter first word of a sentence has its capital from there ("This"), a longer one may be a name ("Earth")
_NO_NAMES = frozenset(
    "i i'm i'll i've i'd monday tuesday wednesday thursday friday saturday sunday january february march april may june july august "
    "september october november december".split()
)


def names_in(texts: Iterable[str]) -> frozenset[str]:
    """The names in a lesson: capitalised words inside sentences that are written small nowhere. Recognisers write "Радуга" now and then."""
    small: dict[str, set[str]] = {}
    names: set[str] = set()
    for text in texts:
        names.update(word for word, opens in _capitalised(text) if not opens and len(word) > 2 and word.casefold() not in _NO_NAMES)
        for word in _WORD.findall(text):
            if word.islower():
                small.setdefault(word[:2], set()).add(word)  # words that begin with other letters are never the same
    return frozenset(name for name in names if not any(same_word(name.casefold(), word) for word in small.get(name.casefold()[:2], ())))


def named_in(text: str, names: Set[str]) -> tuple[str, ...]:
    """Which of a lesson's names a text has, in the order of their coming: all of them that `lost_names` looks at for a line."""
    return tuple(dict.fromkeys(word for word in _WORD.findall(text) if word in names))


def lost_names(source_line: str, line: str, source: str, target: str, names: Set[str] | None = None) -> list[str]:
    """Names in the source line for which the translated one has nothing that may be them: no word that sounds alike, no other name.

    In German every noun has a capital, and scripts without capitals show no names: nothing is known there. "Земля" is "Earth": any
    capitalised word that isn't another name's counterpart will do.

    Args:
        names: of the lesson (`names_in`); None: the line is all that is known.
    """
    scripts = [LANGUAGES[base_language(tag)].script for tag in (source, target) if base_language(tag) in LANGUAGES]
    if base_language(source) == "de" or len(scripts) < 2 or not all(set(script) & set(_CASED) for script in scripts):
        return []
    kept = names_in([source_line]) if names is None else names
    spare = [word for word, opens in _capitalised(line) if not opens or len(word) >= _LONG_OPENER or word.isupper()]
    words = _WORD.findall(line)
    lost = []
    for name in named_in(source_line, kept):
        if any(_sound_alike(name, word) for word in words):
            spare = [word for word in spare if not _sound_alike(name, word)]
        else:
            lost.append(name)
    return lost[len(spare) :]


def _capitalised(text: str) -> Iterator[tuple[str, bool]]:
    """Capitalised words, and whether each begins a sentence."""
    for found in _WORD.finditer(text):
        if found[0][0].isupper():
            yield found[0], bool(_SENTENCE_START.search(text[: found.start()]))


def _sound_alike(one: str, other: str) -> bool:
    from rapidfuzz.fuzz import ratio

    first, second = _consonants(one), _consonants(other)
    return bool(first) and ratio(first, second) >= _ALIKE


@functools.lru_cache(4096)
def _consonants(word: str) -> str:
    """What a name keeps in any alphabet: "Ньютон" and "Newton" are "ntn"."""
    from text_unidecode import unidecode

    plain = "".join(c for c in unidecode(word).lower() if c.isalpha())
    for spelling, sound in (("ph", "f"), ("ck", "k"), ("x", "ks"), ("c", "k"), ("q", "k"), ("w", "v"), ("ts", "z")):
        plain = plain.replace(spelling, sound)
    kept = [c for c in plain if c not in "aeiouyjh"]
    return "".join(c for at, c in enumerate(kept) if at == 0 or kept[at - 1] != c)


# Numbers


def _plain(text: str) -> str:
    return " ".join(letters_and_digits(text.casefold()).split())


# What English says for a number beside its digits and its name. Two letters of a chemist's prefix alone are no number: "di" is in "did".
_ENGLISH: dict[Fraction | int, str] = {
    0: r"no|none|nothing|nobody|nought",
    Fraction(1, 4): r"quarters?",
    Fraction(1, 2): r"half|halves",
    Fraction(3, 4): r"three quarters",
    1: r"an?|once|single|mono\w+",
    2: r"twice|double[ds]?|pairs?|couples?|both|half|halves|di(ox|chlor|fluor|brom|iod|sul|nitr|pol)\w*|bi(nary|polar|carb)\w*",
    3: r"thrice|triple[ds]?|trio|tri(ox|chlor|fluor|brom|iod|sul|nitr|ang|phosph)\w*",
    4: r"quarters?|tetra\w+|quadr\w+",
    5: r"pent\w+",
    6: r"half a dozen|hexa\w+",
    8: r"octa\w+",
    10: r"decades?",
    12: r"dozens?|noon|midnight",
    15: r"quarter",
    24: r"two dozen",
    25: r"quarters?",
    30: r"half",
    33: r"thirds?",
    45: r"quarter",
    50: r"half|halves",
    75: r"three quarters",
    90: r"right angles?",
    100: r"hundreds|whole|entirely|completely|fully|century|centuries",
    1000: r"thousands|millennium",
}
_CLOCK = re.compile(r"\b(\d\d?)[:.]([0-5]\d)\b")
# Numbers that languages have words of their own for, as "una docena" and "die Hälfte": who doesn't know these can't say that one is lost.
_OWN_WORDS = frozenset(map(Fraction, (*range(13), 15, 20, 24, 25, 30, 33, 40, 45, 50, 60, 70, 75, 80, 90, 100, 1000)))
_INFLECTING = frozenset("bg cs fi hr hu lt lv pl ro ru sk sl sr uk".split())  # "с пятью", "трёх": a number's name has endings


def _lost_numbers(source_line: str, line: str, target: str) -> list[tuple[str, bool]]:
    """Numbers in digits in the source that the line has neither in digits nor in words, and whether that is certain.

    A number may be written otherwise ("200 000" or "1.5"; "200,000", "200 thousand" or "1,5") or said otherwise ("a dozen", "half past
    two", "Chapter II"): any way to read it that is in the line will do. It is not certain that one is lost that belongs to a name
    ("H2O", "water"), nor in languages of which only the plain names of numbers are known here.
    """
    present = {value for numeral in _NUMBER.findall(line) for value in (*_values(numeral), *map(Fraction, re.findall(r"\d+", numeral)))}
    present |= _romans(line)
    plain = _without_and(line)
    english = base_language(target) == "en"
    if english:
        plain = re.sub(r"\ban? (?=hundred|thousand|million|billion)", "one ", plain)
    hours = {Fraction(hour): int(minute) for hour, minute in _CLOCK.findall(source_line)}

    def is_there(value: Fraction) -> bool:
        if any(value * Fraction(1000) ** power in present for power in range(-3, 4)):  # "200 thousand", "5 million"
            return True
        if any(re.search(_whole_words(spelled, target), plain) for spelled in _spelled(value, target)):
            return True
        if english:
            return _is_said_in_english(value, plain)
        return base_language(target) in _INFLECTING and any(_is_inflected(spelled, plain) for spelled in _spelled(value, target))

    def is_told(value: Fraction) -> bool:
        """ "14:45" is "a quarter to three"."""
        if value not in hours:
            return False
        after = value + 1 if hours[value] > 30 else value
        return any(is_there(hour) for hour in (value % 12, value % 12 or Fraction(12), after % 12 or Fraction(12)))

    lost = []
    for found in _NUMBER.finditer(source_line):
        numeral, values = found[0], _values(found[0])
        if any(is_there(value) or is_told(value) for value in values):
            continue
        if all(is_there(Fraction(part)) or is_told(Fraction(part)) for part in re.findall(r"\d+", _DATE.sub(r"\1 \2", numeral))):
            continue
        if any(_spelled(value, target) for value in values):
            in_a_name = source_line[: found.start()][-1:].isalpha()
            lost.append((numeral, not in_a_name and (english or not _OWN_WORDS & set(values))))
    return lost


def _is_said_in_english(value: Fraction, plain: str) -> bool:
    if (own := _ENGLISH.get(value)) and re.search(rf"\b(?:{own})\b", plain):
        return True
    whole = int(value)
    if value - whole == Fraction(1, 2):  # "two and a half"
        return re.search(r"\bhalf\b", plain) is not None and any(name in plain for name in _spelled(Fraction(whole), "en"))
    decade = whole % 100 if 1100 <= whole < 2100 else whole
    if value == whole and decade % 10 == 0 and 20 <= decade < 100:  # "in the nineties"
        name = _spelled(Fraction(decade), "en")[0]
        return re.search(rf"\b{name[:-1]}ies\b|\b{decade}s\b", plain) is not None
    if value == whole and 2 < whole < 100:  # "two fifths"
        return any(re.search(rf"\b{name}s\b", plain) for name in _spelled(value, "en"))
    return False


def _is_inflected(spelled: str, plain: str) -> bool:
    wanted, words = spelled.split(), plain.split()
    return any(all(same_word(a, b) for a, b in zip(wanted, words[at:], strict=False)) for at in range(len(words) - len(wanted) + 1))


_ROMAN = re.compile(r"\b(?=[IVXLCDM])M{0,3}(CM|CD|D?C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})\b")


def _romans(line: str) -> set[Fraction]:
    """Numbers in Roman numerals. A single letter is one only after a name: "Chapter V", and not "I", "V" for volts."""
    letters = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
    found = set()
    for roman in _ROMAN.finditer(line):
        if not roman[0] or (len(roman[0]) == 1 and not re.search(r"\b[^\W\d_a-zа-я]\w{2,} $", line[: roman.start()])):
            continue
        values = [letters[letter] for letter in roman[0]]
        found.add(Fraction(sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True))))
    return found


def _values(numeral: str) -> list[Fraction]:
    """What a numeral may mean: its separators set thousands apart, and perhaps the last one decimals."""
    *whole, last = re.findall(r"\d+", numeral)
    values = [Fraction("".join((*whole, last)))]
    if whole:
        values.append(Fraction(f"{''.join(whole)}.{last}"))
    return values


def _spelled(value: Fraction, language: str) -> list[str]:
    """The ways to say a number in words; none where nobody knows."""
    from num2words import num2words

    if value >= 10**15:
        return []
    number: int | float = int(value) if value.denominator == 1 else float(value)
    spelled = []
    for kind in ("cardinal", "ordinal", "year") if isinstance(number, int) else ("cardinal",):
        try:
            spelled.append(_without_and(str(num2words(number, lang=language, to=kind))))
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            NotImplementedError,
            TypeError,
            ValueError,
        ):  # not every way in every language
            continue
    return spelled


def _without_and(text: str) -> str:
    """Plain words without the "and" of "two hundred and five", which half of the world leaves out."""
    return _plain(text).replace(" and ", " ")


def _whole_words(spelled: str, language: str) -> str:
    """A pattern for the words: "six" is not in "sixty"."""
    return re.escape(spelled) if base_language(language) in UNSPACED else rf"\b{re.escape(spelled)}\b"
