"""A lesson's terms: which occur in a line, whether its translation uses them, and the table that a person edits and a course shares.

Words are compared by their beginnings, since most languages inflect at the end: "призмы" is an occurrence of "призма", "prisms" of "prism".
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from dubbing.errors import BadInput
from dubbing.languages import LANGUAGES, UNSPACED, base_language, letters_and_digits, name_of, share_in_script
from dubbing.lesson import Term, Termbase, Utterance

MOST_TERMS = 200  # that reading a lesson may give: more is a word list
MOST_GIVEN = 5000  # that a course's file may have
LONGEST_TERM = 80  # characters of a term and of its translation
LONGEST_NOTE = 200
LONGEST_SUMMARY = 600
TERMS_A_PIECE = 12  # that a model is asked for at once: asked for more it lists plain words
LARGEST_FILE = 2_000_000  # bytes
COLUMNS = ("source", "translation", "note")

_SHARED = 0.6  # of a word's letters that an inflected form begins with too
_ENDING = 4  # letters that an ending may have: "-tion", "-ами"
_SHORT = 4  # letters: a word of up to so many must be the same but for one letter at its end


def occurring(terms: Iterable[Term], text: str, language: str) -> tuple[Term, ...]:
    """The terms of which the source text has an occurrence, in their order."""
    return tuple(term for term in terms if occurs(term.source, text, language))


def occurs(term: str, text: str, language: str) -> bool:
    """Whether the term's words are in the text one after another, inflected or not.

    >>> occurs("призма", "Свет проходит через призму.", "ru"), occurs("свет", "Это светофор.", "ru")
    (True, False)
    """
    wanted, words = _words(term), _words(text)
    if not wanted:
        return False
    if base_language(language) in UNSPACED:
        return "".join(wanted) in "".join(words)
    return any(
        all(same_word(one, other) for one, other in zip(wanted, words[at:], strict=False)) for at in range(len(words) - len(wanted) + 1)
    )


def is_used(term: Term, line: str, language: str) -> bool:
    """Whether a translated line says the term as it should be said. Word order is the language's affair: each word must be somewhere."""
    if base_language(language) in UNSPACED:
        return occurs(term.translation, line, language)
    words = _words(line)
    return all(any(same_word(wanted, word) for word in words) for wanted in _words(term.translation))


def _words(text: str) -> list[str]:
    return letters_and_digits(text.casefold()).split()


def same_word(one: str, other: str) -> bool:
    """Whether two words may be forms of one: they begin alike and differ in an ending."""
    if one == other:
        return True
    shorter, longer = sorted((one, other), key=len)
    alike = next((at for at, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(shorter))
    if any(c.isdigit() for c in longer):
        return False
    if len(shorter) <= _SHORT:
        return alike >= max(2, len(shorter) - 1) and len(longer) - len(shorter) <= 2
    return alike >= max(_SHORT - 1, _SHARED * len(shorter)) and len(longer) - alike <= _ENDING


# What a model is asked for, and what is taken of its answer


def pieces(utterances: Sequence[Utterance], characters: int) -> list[tuple[Utterance, ...]]:
    """The transcript in pieces of whole lines, none longer than a model can read at once (a longer line is a piece of its own)."""
    cut: list[list[Utterance]] = []
    length = 0
    for utterance in utterances:
        if not cut or length + len(utterance.text) > characters:
            cut.append([])
            length = 0
        cut[-1].append(utterance)
        length += len(utterance.text) + 1
    return [tuple(piece) for piece in cut]


def reading_instructions(source: str, target: str) -> str:
    """What a model is told that reads a piece of a lesson."""
    return (
        f"You prepare the translation of a recorded lecture from {name_of(source)} into {name_of(target)}. Read this part of its "
        f"transcript, which comes from speech recognition. Answer with JSON only. summary: two sentences in {name_of(target)} on what it "
        f"is about. terms: up to {TERMS_A_PIECE} technical terms and names of people, places and works that occur in it and must be "
        f"translated the same way everywhere: source is the term as a dictionary has it, translation is the usual {name_of(target)} term, "
        "note is a word of explanation or empty. No everyday words."
    )


def condensing_instructions(target: str) -> str:
    """What a model is told that makes one summary of those of a lesson's pieces."""
    return (
        f"These are summaries of the parts of a recorded lecture, in order. Answer with JSON only. summary: three sentences in "
        f"{name_of(target)} on what the whole lecture is about."
    )


def reading_schema() -> dict[str, Any]:
    """JSON schema of the answer to `reading_instructions`."""
    term = {
        "type": "object",
        "properties": {
            "source": {"type": "string", "minLength": 1, "maxLength": LONGEST_TERM},
            "translation": {"type": "string", "minLength": 1, "maxLength": LONGEST_TERM},
            "note": {"type": "string", "maxLength": LONGEST_NOTE},
        },
        "required": ["source", "translation", "note"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "summary": {"type": "string", "maxLength": LONGEST_SUMMARY},
            "terms": {"type": "array", "items": term, "maxItems": TERMS_A_PIECE},
        },
        "required": ["summary", "terms"],
        "additionalProperties": False,
    }


def condensing_schema() -> dict[str, Any]:
    """JSON schema of the answer to `condensing_instructions`."""
    return {
        "type": "object",
        "properties": {"summary": {"type": "string", "maxLength": LONGEST_SUMMARY}},
        "required": ["summary"],
        "additionalProperties": False,
    }


def understood(answer: Any, text: str, source: str, target: str) -> Termbase:
    """What can be believed of a parsed answer: terms that occur in the text, and a summary in the target language. Never raises."""
    if not isinstance(answer, dict):
        return Termbase()
    summary = " ".join(answer["summary"].split()) if isinstance(answer.get("summary"), str) else ""
    if not any(c.isalpha() for c in summary) or share_in_script(summary, target) < 0.5:
        summary = ""
    listed = answer.get("terms")
    found = [term for entry in (listed if isinstance(listed, list) else []) if (term := _term(entry, text, source, target))]
    return Termbase(summary=_shortened(summary), terms=together(found))


def _term(entry: Any, text: str, source: str, target: str) -> Term | None:
    if not isinstance(entry, dict):
        return None
    said = {column: " ".join(str(entry.get(column) or "").split()) for column in COLUMNS}
    wanted, translation = said["source"], said["translation"]
    if not _words(wanted) or not _words(translation) or max(len(wanted), len(translation)) > LONGEST_TERM:
        return None
    # A formula or an abbreviation may stay as it is; a word that was left in another script was not translated.
    script = LANGUAGES.get(base_language(target))
    if script and share_in_script(translation, target) < 0.5 and share_in_script(wanted, target) < 0.5:
        return None
    if not occurs(wanted, text, source):
        return None
    return Term(source=wanted, translation=translation, note=said["note"][:LONGEST_NOTE])


def _shortened(summary: str) -> str:
    """Whole sentences of a summary that a model didn't keep short."""
    if len(summary) <= LONGEST_SUMMARY:
        return summary
    kept = summary[:LONGEST_SUMMARY]
    end = max(kept.rfind(stop) for stop in ".!?。")
    return kept[: end + 1] if end > 0 else kept


def together(*groups: Iterable[Term]) -> tuple[Term, ...]:
    """Terms of several sources as one list: of two for the same words the first stays."""
    merged: dict[str, Term] = {}
    for group in groups:
        for term in group:
            merged.setdefault(" ".join(_words(term.source)), term)
    return tuple(merged.values())


def with_given(read: Termbase, given: Sequence[Term]) -> Termbase:
    """The termbase with a person's terms, which win. One without a translation takes the model's own for these words away."""
    merged = together(given, read.terms[:MOST_TERMS])
    return read.model_copy(update={"terms": tuple(term for term in merged if term.translation)})


# The table


def as_table(terms: Sequence[Term]) -> str:
    """CSV with a header, a row a term."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((term.source, term.translation, term.note) for term in terms)
    return file.getvalue()


def from_table(content: bytes, name: str) -> tuple[Term, ...]:
    """The terms of a table as `as_table` writes it, or as a spreadsheet saves it: with semicolons or tabs, with a byte order mark.

    Args:
        name: of the file, for messages.

    Raises:
        BadInput: no such table; the message names file and row.
    """
    if len(content) > LARGEST_FILE:
        raise BadInput(f"{name}: {len(content) / 1e6:.1f} MB, a list of terms has at most {LARGEST_FILE / 1e6:g} MB")
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeError:
        raise BadInput(f"{name}: not UTF-8 text") from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise BadInput(f"{name}: not a table of comma-separated values ({error})") from None
    header = [column.strip().lower() for column in rows[0]] if rows else []
    if missing := [column for column in COLUMNS[:2] if column not in header]:
        raise BadInput(f"{name}: its first row must name the columns {', '.join(COLUMNS)}; {missing[0]} is missing")
    places = {column: header.index(column) for column in COLUMNS if column in header}
    terms = []
    for number, row in enumerate(rows[1:], 2):
        said = {column: " ".join(row[at].split()) if at < len(row) else "" for column, at in places.items()}
        if not any(said.values()):
            continue
        if not _words(said["source"]):
            raise BadInput(f"{name}: row {number}: it has no source term")
        if said["translation"] and not _words(said["translation"]):
            raise BadInput(f"{name}: row {number}: the translation {said['translation']!r} has no letters")
        for column, limit in zip(COLUMNS, (LONGEST_TERM, LONGEST_TERM, LONGEST_NOTE), strict=True):
            if len(said.get(column, "")) > limit:
                raise BadInput(f"{name}: row {number}: {column} has {len(said[column])} characters, the limit is {limit}")
        terms.append(Term(**said, certain=True))
    if len(terms) > MOST_GIVEN:
        raise BadInput(f"{name}: {len(terms)} terms, the limit is {MOST_GIVEN}")
    return together(terms)
