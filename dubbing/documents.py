"""`timeline.json` and `report.json`: what was done to every line and to the whole, for machines; the page shows the same to people.

Nothing in them depends on when or where they were written: the same lesson gives the same bytes.

A reviewer may change some fields of `timeline.json`. The checksums in it tell what a person changed without any other record of what was
delivered; `dubbing.edits` reads the changes.
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

from dubbing.lesson import Inspection, Lesson, LineChecks, PlacedLine, Render, Timeline
from dubbing.subtitles import clean

EDITABLE = ("source_text", "translation", "voice", "say")  # fields of a line that a reviewer may change

_SPANS = 3  # parts of the lesson that are named as a voice's origin
_SHOWN = ("source_text", "translation")  # fields that are captions too
_DIGEST = 6  # hex digits of a checksum's parts: enough to tell a change, which nobody makes in order to hide it
_PARTS = len(EDITABLE) + len(_SHOWN)

# What captions write for signs that would be markup there (`dubbing.subtitles`), and the signs.
TWINS = {"＜": "<", "＞": ">", "｛": "{", "｝": "}", "＼": "\\", "＆": "&", "：": ":"}
_PLAIN = {ord(twin): sign for twin, sign in TWINS.items()}


def timeline_document(name: str, timeline: Timeline, checks: tuple[LineChecks, ...] = (), lesson_sha256: str = "") -> dict[str, Any]:
    """Every line: texts, times, how it was made, what was measured, what to look at.

    Args:
        lesson_sha256: of the recording; "" when it doesn't matter.
    """
    checks_of = {check.id: check for check in checks}
    document = {
        "lesson": name,
        "lesson_sha256": lesson_sha256,
        "source_language": timeline.source_language,
        "target_language": timeline.target_language,
        "duration": round(timeline.duration, 3),
        "lines": [_line(line, checks_of.get(line.id)) for line in timeline.lines],
    }
    return document | {"checksum": lines_checksum(document)}


def line_checksum(line: Mapping[str, Any]) -> str:
    """Of a line of the document, as `editable-rest`.

    The first part has a digest of each editable field, then digests of the texts as captions show them; the second part is one digest of
    all other fields.
    """
    rest = {field: value for field, value in line.items() if field not in (*EDITABLE, "checksum")}
    shown = [field_digest(in_captions(line[field])) for field in _SHOWN]
    return "".join([*(field_digest(line[field]) for field in EDITABLE), *shown, "-", field_digest(rest)])


def changed_fields(line: Mapping[str, Any]) -> list[str]:
    """The editable fields that are no longer what they were when the line was written; "" among them stands for any other field.

    The line must have its editable fields and a checksum.
    """
    written, found = str(line["checksum"]), line_checksum(line)
    changed = [field for at, field in enumerate(EDITABLE) if _part(written, at) != _part(found, at)]
    rest = _PARTS * _DIGEST
    return changed if written[rest:] == found[rest:] else [*changed, ""]


def written_captions(line: Mapping[str, Any], field: str) -> str:
    """The digest of `in_captions` of one of the line's texts as it was when the line was written."""
    return _part(str(line["checksum"]), len(EDITABLE) + _SHOWN.index(field))


def _part(checksum: str, at: int) -> str:
    return checksum[at * _DIGEST : (at + 1) * _DIGEST]


def in_captions(text: str) -> str:
    """What can be compared of a text that has been through captions: no white space, nothing unseen, plain signs for their twins."""
    shown = clean(text).translate(_PLAIN)
    return "".join(char for char in shown if unicodedata.category(char)[0] not in "CZ")


def lines_checksum(document: Mapping[str, Any]) -> str:
    """Of which lines there are, in their order, and of what they are lines."""
    return field_digest(
        [document[field] for field in ("lesson_sha256", "source_language", "target_language")] + [line["id"] for line in document["lines"]]
    )


def field_digest(value: Any) -> str:
    """Of a JSON value, however it is laid out: 1.0 and 1 are one number, fields have no order."""
    return hashlib.sha256(json.dumps(_plain_numbers(_finite(value)), sort_keys=True).encode()).hexdigest()[:_DIGEST]


def _plain_numbers(value: Any) -> Any:
    match value:
        case bool():
            return value
        case int() | float():
            return float(value) + 0.0  # some editors write 1 for 1.0, and 0 for -0.0
        case dict():
            return {key: _plain_numbers(item) for key, item in value.items()}
        case list():
            return [_plain_numbers(item) for item in value]
    return value


def _line(line: PlacedLine, check: LineChecks | None) -> dict[str, Any]:
    entry = {
        "id": line.id,
        "speaker": line.speaker,
        "source_text": line.source_text,
        "translation": line.text,
        "source_start": round(line.source_start, 3),
        "source_end": round(line.source_end, 3),
        "start": round(line.start, 3),
        "end": round(line.end, 3),
        "rate": line.rate,
        "drift": round(line.drift, 3),
        "overflow": line.overflow,
        "engine": line.engine,
        "voice": line.voice,
        "cloned_from": None if line.cloned_from is None else _span(*line.cloned_from),
        "instead_of": line.instead_of,
        "said_with": line.said_with,
        "checks": None
        if check is None or line.clip is None
        else {
            "heard": check.heard,
            "word_error_rate": check.word_error_rate,
            "duration_ratio": check.duration_ratio,
            "reading_speed": check.reading_speed,
        },
        "flags": [*line.flags, *(check.flags if check else ())],
        "say": dict(line.say),
        "edited": line.edited,
        "translated": {"attempts": line.attempts, "rung": line.rung, "model": line.model},
    }
    return entry | {"checksum": line_checksum(entry)}


def spoken_by(timeline: Timeline) -> str:
    """Who speaks, in words: engines with their voices, the most used first, and why an engine that should have spoken did not."""
    spoken = [line for line in timeline.lines if line.clip]
    words = []
    for name, _ in Counter(f"{line.engine}, voice {line.voice}" for line in spoken).most_common():
        origins = dict.fromkeys(
            _span(*line.cloned_from) for line in spoken if line.cloned_from and name == f"{line.engine}, voice {line.voice}"
        )
        more = f" and {len(origins) - _SPANS} more" if len(origins) > _SPANS else ""
        words.append(f"{name}, cloned from {', '.join([*origins][:_SPANS])}{more}" if origins else name)
    reasons = dict.fromkeys(line.instead_of for line in spoken if line.instead_of)
    return "; ".join(words) + "".join(f" ({reason})" for reason in reasons)


def _span(start: float, end: float) -> str:
    """
    >>> _span(12.2, 3723.9)
    '0:12-1:02:04'
    """

    def clock(seconds: float) -> str:
        minutes, second = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{second:02}" if minutes >= 60 else f"{minutes}:{second:02}"

    return f"{clock(start)}-{clock(end)}"


def lines_table(document: dict[str, Any]) -> pandas.DataFrame:
    """The timeline document's lines as a table, a row a line, for a spreadsheet or a Prefect artifact."""
    import pandas

    # Pronunciations would be a column a word, checksums are for machines.
    lines = [{field: value for field, value in line.items() if field not in ("say", "checksum")} for line in document["lines"]]
    table = pandas.json_normalize(lines)
    table.columns = [column.removeprefix("checks.").replace("translated.", "translation_") for column in table.columns]
    table = table.drop(columns="checks", errors="ignore")
    table["flags"] = table["flags"].map("; ".join)
    return table


def report_document(
    name: str, lesson: Lesson, timeline: Timeline, inspection: Inspection, rendered: Render, engines: Mapping[str, str]
) -> dict[str, Any]:
    """The whole: what the lesson is, what made it, what was measured."""
    lines = timeline_document(name, timeline, inspection.lines)["lines"]
    return {
        "lesson": {
            "name": name,
            "duration": round(lesson.duration, 3),
            "source_language": timeline.source_language,
            "container": lesson.container,
            "sha256": lesson.media.sha256,
        },
        "target_language": timeline.target_language,
        "engines": dict(engines),
        "file": inspection.file.model_dump(mode="json"),
        "lines": len(lines),
        "lines_flagged": sum(bool(line["flags"]) for line in lines),
        "translation": _translation_summary(timeline),
        "notes": list(rendered.notes),
    }


def _translation_summary(timeline: Timeline) -> dict[str, Any]:
    """How the lines were come by: how many from each rung of the recovery ladder and from each model, in how many requests."""
    translated = [line for line in timeline.lines if line.model]
    return {
        "attempts": sum(line.attempts for line in translated),
        "rungs": dict(Counter(line.rung for line in translated if line.rung)),
        "models": dict(Counter(line.model for line in translated)),
    }


def as_json(document: Any) -> str:
    """JSON as the standard has it: the level of silence, minus infinity, becomes null."""
    return json.dumps(_finite(document), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
    return value
