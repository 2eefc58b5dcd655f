"""`timeline.json` and `report.json`: what was done to every line and to the whole, for machines; the page shows the same to people.

Nothing in them depends on when or where they were written: the same lesson gives the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

from dubbing.lesson import Inspection, Lesson, LineChecks, PlacedLine, Render, Timeline


def timeline_document(name: str, timeline: Timeline, checks: tuple[LineChecks, ...] = ()) -> dict[str, Any]:
    """Every line: texts, times, how it was made, what was measured, what to look at."""
    checks_of = {check.id: check for check in checks}
    return {
        "lesson": name,
        "source_language": timeline.source_language,
        "target_language": timeline.target_language,
        "duration": round(timeline.duration, 3),
        "lines": [_line(line, checks_of.get(line.id)) for line in timeline.lines],
    }


def _line(line: PlacedLine, check: LineChecks | None) -> dict[str, Any]:
    return {
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
    }


def lines_table(document: dict[str, Any]) -> pandas.DataFrame:
    """The timeline document's lines as a table, a row a line, for a spreadsheet or a Prefect artifact."""
    import pandas

    table = pandas.json_normalize(document["lines"])
    table.columns = [column.removeprefix("checks.") for column in table.columns]
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
        "notes": list(rendered.notes),
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
