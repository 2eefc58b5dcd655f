"""Translation as text work, whatever the engine: windows of whole lines with their neighbours, requests, and what is wrong with answers."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from dubbing.languages import LANGUAGES, UNSPACED, base_language, letters_and_digits, name_of, room_of, share_in_script
from dubbing.lesson import TranslatedLine, Utterance, Word

WINDOW_LINES = 8  # lines translated in one request: enough to understand each other, few enough that a small model keeps count
WINDOW_CHARACTERS = 900
CONTEXT_LINES = 2  # neighbours on each side that are shown and not translated

LEAST_SCRIPT_SHARE = 0.6  # of a line's letters in the target's script: names and formulas may be in another
LONGEST_RATIO = 2.5  # of a line's length to its source's, beyond which something was added
SHORTEST_RATIO = 0.2  # below which something was lost
HEARD_AT_ONCE = 28.0  # seconds of a window for Whisper's own translation: it hears 30
COMMENTING = "it comments instead of translating"  # the one problem with which a line is better not said
_SHORTEST_CLAUSE = 3  # words: a comma after fewer ends nothing that could be moved
_SLACK = 25  # characters that short lines may differ by

# Openings of answers that talk about the task instead of doing it.
_COMMENT = re.compile(
    r"^\s*(translation\s*:|here (is|are)\b|note\s*:|as an ai\b|i('m| am) sorry\b|i can(no|')t\b|sure[,!]|the translation (is|of)\b|\{|```)",
    re.IGNORECASE,
)
_PAIR = re.compile(r'"(\d+)"\s*:\s*("(?:[^"\\]|\\.)*")')
_NUMBER = re.compile(r"\d+(?:[.,' \u00a0\u202f]\d+)*")  # with its decimals or thousands, whatever they are set apart by
_DATE = re.compile(r"\b(\d\d?)\.(?:0?[1-9]|1[0-2])\.(\d{4})\b")  # the month has a name
_CLOSERS = "\"'»”’)]"


class Window(NamedTuple):
    """Lines to translate together, and neighbours for their meaning."""

    lines: tuple[Utterance, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]


def windows(utterances: Sequence[Utterance]) -> list[Window]:
    """Cut into windows of consecutive lines. Each line is in exactly one window."""
    groups: list[list[Utterance]] = []
    for utterance in utterances:
        full = not groups or len(groups[-1]) >= WINDOW_LINES
        if full or sum(len(line.text) for line in groups[-1]) + len(utterance.text) > WINDOW_CHARACTERS:
            groups.append([])
        groups[-1].append(utterance)
    cut, first = [], 0
    for group in groups:
        last = first + len(group)
        cut.append(neighbourhood(utterances, first, last))
        first = last
    return cut


def neighbourhood(utterances: Sequence[Utterance], first: int, last: int) -> Window:
    """Lines `first` to `last` (exclusive) with their neighbours."""
    return Window(
        tuple(utterances[first:last]),
        tuple(line.text for line in utterances[max(0, first - CONTEXT_LINES) : first]),
        tuple(line.text for line in utterances[last : last + CONTEXT_LINES]),
    )


class Prompt(NamedTuple):
    """What a chat model is told, and what it is asked."""

    instructions: str
    request: str


def prompt(
    window: Window, wanted: Sequence[int], source: str, target: str, problems: Mapping[int, str], budgets: Mapping[int, int]
) -> Prompt:
    """What to say for some lines (1-based numbers) of a window, with what was wrong with the last answers.

    The request is the lines and nothing else: a small model translates whatever stands beside them.
    """
    told = [
        f"You translate a recorded lecture from {name_of(source)} into {name_of(target)} so that a speaker can dub it. "
        f"Translate every numbered line into natural spoken {name_of(target)}: the whole meaning, nothing added, as long as the original. "
        "The text comes from speech recognition: where a word makes no sense, translate what the lecturer must have said. "
        "Keep numbers. Keep the numbering: one translation for each line, never merge lines, never comment. "
        "Answer with JSON only: the line's number as key, its translation as value."
    ]
    around = [*window.before, *(line.text for line in window.lines if len(wanted) < len(window.lines)), *window.after]
    if around:
        told.append("Context (not to be translated): " + " ".join(around))
    limits = [f"line {n} in at most {budgets[n]} characters" for n in wanted if n in budgets]
    if limits:
        told.append("Say it shorter, keep the meaning: " + "; ".join(limits) + ".")
    complaints = [f"line {n}: {problems[n]}" for n in wanted if n in problems]
    if complaints:
        told.append("Your last answer was refused: " + "; ".join(complaints) + ".")
    return Prompt("\n\n".join(told), json.dumps({str(n): window.lines[n - 1].text for n in wanted}, ensure_ascii=False, indent=0))


def longest_answer(source_line: str) -> int:
    """Characters beyond which a translated line is certainly wrong: a model that goes round in circles is stopped there."""
    return round(LONGEST_RATIO * room_of(source_line) + _SLACK)


def answer_schema(window: Window, wanted: Sequence[int]) -> dict[str, Any]:
    """JSON schema of an answer: every wanted line, in order, none endless, and nothing else."""
    return {
        "type": "object",
        "properties": {str(n): {"type": "string", "minLength": 1, "maxLength": longest_answer(window.lines[n - 1].text)} for n in wanted},
        "required": [str(n) for n in wanted],
        "additionalProperties": False,
    }


def parse_answer(text: str, wanted: Sequence[int]) -> dict[int, str]:
    """The lines found in an answer. Never raises: what isn't there is missing, and `problem_with` says so."""
    try:
        answer = json.loads(text[text.index("{") : text.rindex("}") + 1])
    except (ValueError, RecursionError):
        answer = _whole_lines(text)
    if not isinstance(answer, dict):
        return {}
    return {n: _cleaned(answer[str(n)]) for n in wanted if isinstance(answer.get(str(n)), str)}


def _whole_lines(text: str) -> dict[str, str]:
    """The lines that are complete in an answer that broke off."""
    try:
        return {found[1]: json.loads(found[2]) for found in _PAIR.finditer(text)}
    except ValueError:
        return {}


def _cleaned(text: str) -> str:
    """One line without control characters and halves of characters, which JSON can hold and no file or voice can."""
    return "".join(c for c in " ".join(text.split()) if unicodedata.category(c) not in ("Cc", "Cs"))


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
    if _COMMENT.search(line) and not _COMMENT.search(source_line):
        return COMMENTING
    if room_of(line) > LONGEST_RATIO * room_of(source_line) + _SLACK:
        return f"it is too long ({len(line)} characters for {len(source_line)})"
    if room_of(line) < SHORTEST_RATIO * room_of(source_line) - _SLACK / 2:
        return f"it is too short ({len(line)} characters for {len(source_line)})"
    if telling and _plain(line) in {_plain(other) for other in others}:
        return "it repeats another line"
    lost = _lost_numbers(source_line, line, target)
    if lost:
        return f"it lost the number {', '.join(lost)}"
    return None


def _plain(text: str) -> str:
    return " ".join(letters_and_digits(text.casefold()).split())


def _lost_numbers(source_line: str, line: str, target: str) -> list[str]:
    """Numbers in digits in the source that the line has neither in digits nor in words.

    A number may be written otherwise ("200 000" or "1.5"; "200,000", "200 thousand" or "1,5"): what is refused here is asked for again and
    flagged, so any way to read it that is in the line will do.
    """
    present = {value for numeral in _NUMBER.findall(line) for value in (*_values(numeral), *map(Fraction, re.findall(r"\d+", numeral)))}
    plain = _without_and(line)

    def is_there(value: Fraction) -> bool:
        if any(value * Fraction(1000) ** power in present for power in range(-3, 4)):  # "200 thousand", "5 million"
            return True
        return any(re.search(_whole_words(spelled, target), plain) for spelled in _spelled(value, target))

    return [
        numeral
        for numeral in _NUMBER.findall(source_line)
        if not any(is_there(value) for value in _values(numeral))
        and not all(is_there(Fraction(part)) for part in re.findall(r"\d+", _DATE.sub(r"\1 \2", numeral)))
        and any(_spelled(value, target) for value in _values(numeral))
    ]


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


def shared_out(words: Sequence[Word], utterances: Sequence[Utterance]) -> list[TranslatedLine]:
    """Words translated from a whole span, shared out among the lines of that span.

    The unit that is moved is the clause: a line that begins in mid-phrase can't be spoken. Clauses keep their order; each goes to the line
    that is nearest in time, at the least cost over all (dynamic programming, as in Gale and Church's sentence alignment, on times instead
    of lengths). A line that gets none is said with the one before it.
    """
    clauses = _clauses(words)
    if not clauses:
        return [TranslatedLine(id=line.id, text="", flags=("translation: it is missing",)) for line in utterances]
    costs = [[_distance(clause, line) * len(clause) for line in utterances] for clause in clauses]
    best: list[list[float]] = [costs[0]]
    chosen: list[list[int]] = []
    for row in costs[1:]:
        previous, step = best[-1], []
        nearest, at = float("inf"), 0
        for column, value in enumerate(previous):
            if value < nearest:
                nearest, at = value, column
            step.append((nearest, at))
        best.append([cost + value for cost, (value, _) in zip(row, step, strict=True)])
        chosen.append([at for _, at in step])
    column = min(range(len(utterances)), key=lambda index: best[-1][index])
    places = [column]
    for back in reversed(chosen):
        column = back[column]
        places.append(column)
    texts = ["" for _ in utterances]
    for clause, place in zip(clauses, reversed(places), strict=True):
        texts[place] = " ".join([texts[place], *(word.text for word in clause)]).strip()
    first_spoken = next(index for index, text in enumerate(texts) if text)
    lines, carrier = [], utterances[first_spoken].id
    for line, text in zip(utterances, texts, strict=True):
        if text:
            carrier = line.id
            lines.append(TranslatedLine(id=line.id, text=text))
        else:
            lines.append(TranslatedLine(id=line.id, text="", said_with=carrier))
    return lines


def _clauses(words: Sequence[Word]) -> list[list[Word]]:
    clauses: list[list[Word]] = [[]]
    for word in words:
        clauses[-1].append(word)
        last = word.text.rstrip(_CLOSERS)[-1:] or " "
        if last in ".?!" or (last in ",;:" and len(clauses[-1]) >= _SHORTEST_CLAUSE):
            clauses.append([])
    return [clause for clause in clauses if clause]


def _distance(clause: Sequence[Word], line: Utterance) -> float:
    """Seconds between a clause's middle and a line, 0 inside it."""
    middle = (clause[0].start + clause[-1].end) / 2
    return max(line.start - middle, middle - line.end, 0.0)
