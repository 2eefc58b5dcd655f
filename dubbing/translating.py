"""Translation as text work, whatever the engine: windows of whole sentences with their neighbours, requests, what is in the answers."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

from dubbing import placement
from dubbing.languages import UNSPACED, base_language, name_of, room_of
from dubbing.lesson import Term, TranslatedLine, Utterance, Word
from dubbing.problems import LONGEST_RATIO, SLACK
from dubbing.terms import occurring

WINDOW_LINES = 8  # lines translated in one request: enough to understand each other, few enough that a small model keeps count
WINDOW_CHARACTERS = 900
CONTEXT_LINES = 2  # neighbours on each side that are shown and not translated
ROOMY = 1.25  # of a line's own length: with time for more, no translation was seen to need a limit
VARIANTS = ("short", "normal", "long")  # wordings of a line, where more than one is asked for

# How a line was come by: with its whole window; so again, told what was wrong; with half of the window; alone; from the other model.
RUNGS = ("window", "again", "split", "line", "fallback")

HEARD_AT_ONCE = 28.0  # seconds of a window for Whisper's own translation: it hears 30
_SHORTEST_CLAUSE = 3  # words: a comma after fewer ends nothing that could be moved
_PAIR = re.compile(r'"(\d+)"\s*:\s*("(?:[^"\\]|\\.)*")')
_CLOSERS = "\"'»”’)]」』"
_STOPS = tuple(".?!…。？！")


class Window(NamedTuple):
    """Lines to translate together, and what helps to understand and to say them. Lines have numbers from 1."""

    lines: tuple[Utterance, ...]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    terms: tuple[Term, ...] = ()  # that occur in the lines
    summary: str = ""  # of the whole lesson
    budgets: Mapping[int, int] = {}  # characters for which there is time; a line with time enough has none
    strict: bool = False  # whether a line beyond its budget is of no use
    names: Set[str] | None = None  # that occur in the lines, by what the whole lesson shows; None: it isn't known
    known: Mapping[int, str] = {}  # lines that are translated already: context for the others, and what they must not repeat

    @property
    def wanted(self) -> list[int]:
        """Numbers of the lines to translate."""
        return [n for n in range(1, len(self.lines) + 1) if n not in self.known]

    def shaping(self) -> dict[str, Any]:
        """All of it that shapes a translation, as a key takes it. When and by whom something is said does not."""
        return {
            **self._asdict(),
            "lines": [line.text for line in self.lines],
            "terms": list(self.terms),
            "budgets": {str(n): limit for n, limit in self.budgets.items()},
            "known": {str(n): text for n, text in self.known.items()},
            "names": None if self.names is None else sorted(self.names),
        }


def windows(utterances: Sequence[Utterance]) -> list[Window]:
    """Cut into windows of consecutive lines. Each line is in exactly one window, and a sentence in two where it can't be helped."""
    cut, first = [], 0
    while first < len(utterances):
        last, characters = first + 1, len(utterances[first].text)
        while last < len(utterances) and last - first < WINDOW_LINES and characters + len(utterances[last].text) <= WINDOW_CHARACTERS:
            characters += len(utterances[last].text)
            last += 1
        ends = [at for at in range(first + 1, last + 1) if _ends_sentence(utterances[at - 1].text)]
        if last < len(utterances) and ends:
            last = ends[-1]
        cut.append(neighbourhood(utterances, first, last))
        first = last
    return cut


def _ends_sentence(text: str) -> bool:
    return text.rstrip(_CLOSERS + " ")[-1:] in _STOPS


def neighbourhood(utterances: Sequence[Utterance], first: int, last: int) -> Window:
    """Lines `first` to `last` (exclusive) with their neighbours."""
    return Window(
        tuple(utterances[first:last]),
        tuple(line.text for line in utterances[max(0, first - CONTEXT_LINES) : first]),
        tuple(line.text for line in utterances[last : last + CONTEXT_LINES]),
    )


def budgets(utterances: Sequence[Utterance], pace: float, duration: float, target: str) -> dict[str, int]:
    """Characters for which there is time, by line id; only of lines whose translation could well need more.

    A line has its own time and the pause after it, and may be spoken faster by what nobody hears (`placement.FREE_RATE`).

    Args:
        pace: of the speech engine in the target language, characters a second.
        duration: of the lesson, seconds.
    """
    limits = {}
    a_character = 3 if base_language(target) in UNSPACED else 1  # `room_of` counts letters of an alphabet
    for at, line in enumerate(utterances):
        due = utterances[at + 1].start - placement.GAP if at + 1 < len(utterances) else duration
        limit = (max(due, line.end) - line.start) * placement.FREE_RATE * pace
        length = room_of(line.text) / a_character
        if limit < ROOMY * length:
            limits[line.id] = max(1, round(max(limit, placement.LEAST_KEPT * length)))
    return limits


class Prompt(NamedTuple):
    """What a chat model is told, and what it is asked."""

    instructions: str
    request: str


def prompt(
    window: Window, wanted: Sequence[int], source: str, target: str, problems: Mapping[int, str] | None = None, variants: bool = False
) -> Prompt:
    """What to say for some lines of a window, with what was wrong with the last answers.

    The request is the lines and nothing else: a small model translates whatever stands beside them.
    """
    answer = (
        "the line's number as key; as value three translations of it: short with the fewest words, normal, and long with the fullest."
        if variants
        else "the line's number as key, its translation as value."
    )
    told = [
        f"You translate a recorded lecture from {name_of(source)} into {name_of(target)} so that a speaker can dub it. "
        f"Translate every numbered line into natural spoken {name_of(target)}: the whole meaning, nothing added, as long as the original. "
        "The text comes from speech recognition: where a word makes no sense, translate what the lecturer must have said. "
        "Keep numbers. Keep the numbering: one translation for each line, never merge lines, never comment. "
        f"Answer with JSON only: {answer}"
    ]
    if window.summary:
        told.append(f"What the lecture is about: {window.summary}")
    around = [*window.before, *(line.text for line in window.lines if len(wanted) < len(window.lines)), *window.after]
    if around:
        told.append("Context (not to be translated): " + " ".join(around))
    if used := occurring(window.terms, "\n".join(window.lines[n - 1].text for n in wanted), source):
        told.append("Use these terms: " + "; ".join(f"{term.source} = {term.translation}{_noted(term.note)}" for term in used) + ".")
    limits = [f"line {n} in at most {window.budgets[n]} characters" for n in wanted if n in window.budgets]
    if limits and window.strict:
        told.append("Say it shorter, keep the meaning: " + "; ".join(limits) + ".")
    elif limits:
        told.append("There is little time: " + "; ".join(limits) + ".")
    complaints = [f"line {n}: {problems[n]}" for n in wanted if problems and n in problems]
    if complaints:
        told.append("Your last answer was refused: " + "; ".join(complaints) + ".")
    return Prompt("\n\n".join(told), json.dumps({str(n): window.lines[n - 1].text for n in wanted}, ensure_ascii=False, indent=0))


def _noted(note: str) -> str:
    return f" ({note})" if note else ""


def longest_answer(source_line: str) -> int:
    """Characters beyond which a translated line is certainly wrong: a model that goes round in circles is stopped there."""
    return round(LONGEST_RATIO * room_of(source_line) + SLACK)


def answer_schema(window: Window, wanted: Sequence[int], variants: bool = False) -> dict[str, Any]:
    """JSON schema of an answer: every wanted line, in order, none endless, and nothing else."""

    def of(n: int) -> dict[str, Any]:
        line = {"type": "string", "minLength": 1, "maxLength": longest_answer(window.lines[n - 1].text)}
        return _object(dict.fromkeys(VARIANTS, line)) if variants else line

    return _object({str(n): of(n) for n in wanted})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def longest_by(schema: Mapping[str, Any]) -> int:
    """Characters of the longest texts that a schema allows, all together: by them an answer's tokens are limited."""
    match schema.get("type"):
        case "object":
            return sum(len(name) + longest_by(part) for name, part in schema["properties"].items())
        case "array":
            return int(schema["maxItems"]) * longest_by(schema["items"])
    return int(schema["maxLength"])


def parse_object(text: str) -> Any:
    """The JSON object in an answer, whatever is said around it; None when there is none."""
    try:
        return json.loads(text[text.index("{") : text.rindex("}") + 1])
    except (ValueError, RecursionError):
        return None


def parse_answer(text: str, wanted: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """The lines found in an answer, each in the wordings that are there. Never raises: what isn't there is missing."""
    answer = parse_object(text)
    if answer is None:
        answer = _whole_lines(text)
    if not isinstance(answer, dict):
        return {}
    found = {}
    for n in wanted:
        said = answer.get(str(n))
        wordings = [said] if isinstance(said, str) else [said.get(name) for name in VARIANTS] if isinstance(said, dict) else []
        if texts := tuple(_cleaned(wording) for wording in wordings if isinstance(wording, str)):
            found[n] = texts
    return found


def _whole_lines(text: str) -> dict[str, str]:
    """The lines that are complete in an answer that broke off."""
    try:
        return {found[1]: json.loads(found[2]) for found in _PAIR.finditer(text)}
    except ValueError:
        return {}


def _cleaned(text: str) -> str:
    """One line without control characters and halves of characters, which JSON can hold and no file or voice can."""
    return "".join(c for c in " ".join(text.split()) if unicodedata.category(c) not in ("Cc", "Cs"))


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
