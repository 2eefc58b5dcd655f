"""`timeline.json` and `report.json`: complete, JSON by the standard, the same bytes each time."""

from __future__ import annotations

import json
import math

import pytest

from dubbing.documents import as_json, changed_fields, lines_table, report_document, spoken_by, timeline_document
from dubbing.lesson import Artifact, FileChecks, Inspection, Lesson, LineChecks, PlacedLine, Render, Sound, Timeline

FILE = Artifact(sha256="ab" * 32, size=1, media_type="video/mp4")


def line(number: int, *, clip: bool = True, flags: tuple[str, ...] = ()) -> PlacedLine:
    return PlacedLine(
        id=f"line{number}",
        source_text=f"Строка {number}.",
        text=f"Line {number}." if clip else "",
        source_start=5.0 * number,
        source_end=5.0 * number + 3.00049,
        start=5.0 * number + 0.25,
        end=5.0 * number + 3.1234567,
        rate=1.05,
        overflow=0.0,
        engine="kokoro" if clip else "",
        voice="af_heart" if clip else "",
        speaker=None,
        clip=FILE if clip else None,
        said_with=None if clip else "line0",
        flags=flags,
    )


def check(number: int, flags: tuple[str, ...] = ()) -> LineChecks:
    return LineChecks(
        id=f"line{number}", heard="line", word_error_rate=0.5, duration_ratio=0.95, drift=0.25, rate=1.05, reading_speed=12.5, flags=flags
    )


TIMELINE = Timeline(
    source_language="ru",
    target_language="en",
    duration=16.00049,
    lines=(line(0, flags=("translation: it repeats another line",)), line(1), line(2, clip=False)),
)
CHECKS = (check(0, ("speech: 2 of 2 words heard differently",)), check(1), check(2))


def report(file: FileChecks | None = None, lines: tuple[PlacedLine, ...] = TIMELINE.lines) -> dict[str, object]:
    file = file or FileChecks(
        integrated_loudness=-16.1,
        loudness_target=-16.0,
        true_peak=-1.2,
        duration=16.0,
        lesson_duration=16.0,
        overlaps=0,
        word_error_rate=0.1,
        largest_drift=0.25,
        largest_rate=1.05,
    )
    lesson = Lesson(
        media=FILE,
        container="mp4",
        duration=16.0004,
        picture=None,
        sound=Sound(stream=0, codec="aac", channels=2, sample_rate=48_000, start=0.0),
        has_chapters=False,
    )
    inspection = Inspection(lines=CHECKS, file=file, plots={}, table=FILE)
    rendered = Render(media=FILE, container="mp4", original_sound=FILE, thumbnail=None, notes=("a note",))
    timeline = TIMELINE.model_copy(update={"lines": lines})
    return report_document("lesson.mp4", lesson, timeline, inspection, rendered, {"speech": "kokoro"})


def test_the_timeline_says_everything_of_every_line_in_order() -> None:
    document = timeline_document("lesson.mp4", TIMELINE, CHECKS)
    assert [entry["id"] for entry in document["lines"]] == ["line0", "line1", "line2"]
    assert document["duration"] == 16.0
    first = document["lines"][0]
    assert (first["start"], first["end"], first["drift"], first["source_end"]) == (0.25, 3.123, 0.25, 3.0)
    assert first["checks"] == {"heard": "line", "word_error_rate": 0.5, "duration_ratio": 0.95, "reading_speed": 12.5}
    assert first["flags"] == ["translation: it repeats another line", "speech: 2 of 2 words heard differently"]


def test_a_line_as_it_was_written_has_no_changed_fields() -> None:
    for entry in json.loads(as_json(timeline_document("lesson.mp4", TIMELINE, CHECKS)))["lines"]:
        assert changed_fields(entry) == []
        assert changed_fields(json.loads(json.dumps(entry, sort_keys=True).replace("0.0,", "0,"))) == []


@pytest.mark.parametrize(
    ("field", "value", "changed"),
    [
        ("translation", "Line", ["translation"]),
        ("translation", "Line 0. ", ["translation"]),
        ("source_text", "", ["source_text"]),
        ("voice", "am_adam", ["voice"]),
        ("say", {"line": "lain"}, ["say"]),
        ("start", 0.251, [""]),
        ("another", 1, [""]),
        ("checksum", "", ["source_text", "translation", "voice", "say", ""]),
    ],
)
def test_the_checksum_tells_what_was_changed(field: str, value: object, changed: list[str]) -> None:
    assert changed_fields(timeline_document("", TIMELINE, CHECKS)["lines"][0] | {field: value}) == changed


def test_the_ladder_of_translation_is_told_line_by_line_and_on_the_whole() -> None:
    lines = (
        line(0).model_copy(update={"attempts": 1, "rung": "window", "model": "llama"}),
        line(1).model_copy(update={"attempts": 4, "rung": "fallback", "model": "ollama"}),
        line(2).model_copy(update={"attempts": 3, "rung": "window", "model": "llama"}),
    )
    document = timeline_document("lesson.mp4", TIMELINE.model_copy(update={"lines": lines}), CHECKS)
    assert document["lines"][1]["translated"] == {"attempts": 4, "rung": "fallback", "model": "ollama"}
    table = lines_table(document)
    assert list(table["translation_rung"]) == ["window", "fallback", "window"]
    assert list(table["translation_attempts"]) == [1, 4, 3]
    assert report(lines=lines)["translation"] == {
        "attempts": 8,
        "rungs": {"window": 2, "fallback": 1},
        "models": {"llama": 2, "ollama": 1},
    }


def test_the_timeline_names_its_recording_and_says_what_a_reviewer_did() -> None:
    edited = TIMELINE.lines[0].model_copy(update={"say": {"line": "lain"}, "edited": True})
    document = timeline_document("", TIMELINE.model_copy(update={"lines": (edited, *TIMELINE.lines[1:])}), lesson_sha256="ab")
    assert document["lesson_sha256"] == "ab"
    assert [(entry["say"], entry["edited"]) for entry in document["lines"]] == [({"line": "lain"}, True), ({}, False), ({}, False)]
    table = lines_table(document)
    assert not [column for column in table.columns if column.startswith("say.") or column in ("say", "checksum")]
    assert table["edited"].tolist() == [True, False, False]


def test_a_line_that_nobody_says_has_no_checks_and_names_the_line_that_says_it() -> None:
    silent = timeline_document("lesson.mp4", TIMELINE, CHECKS)["lines"][2]
    assert silent["checks"] is None
    assert silent["said_with"] == "line0"


def test_before_the_inspection_a_timeline_has_no_checks() -> None:
    assert {entry["checks"] for entry in timeline_document("lesson.mp4", TIMELINE)["lines"]} == {None}


def test_the_report_counts_the_lines_to_look_at() -> None:
    document = report()
    assert (document["lines"], document["lines_flagged"]) == (3, 1)
    assert document["notes"] == ["a note"]
    assert document["engines"] == {"speech": "kokoro"}


def test_the_table_has_a_row_a_line_and_plain_columns() -> None:
    table = lines_table(timeline_document("lesson.mp4", TIMELINE, CHECKS))
    assert list(table["id"]) == ["line0", "line1", "line2"]
    assert list(table["flags"]) == ["translation: it repeats another line; speech: 2 of 2 words heard differently", "", ""]
    assert table["heard"].isna().tolist() == [False, False, True]
    assert not [column for column in table.columns if column.startswith("checks")]


@pytest.mark.parametrize("lines", [TIMELINE.lines, (line(2, clip=False),)])
def test_a_table_is_made_of_any_lines(lines: tuple[PlacedLine, ...]) -> None:
    assert len(lines_table(timeline_document("", TIMELINE.model_copy(update={"lines": lines})))) == len(lines)


def test_json_is_readable_and_ends_with_a_line_feed() -> None:
    written = as_json(timeline_document("урок.mp4", TIMELINE, CHECKS))
    assert "Строка 1." in written
    assert written.endswith("}\n")
    assert json.loads(written) == timeline_document("урок.mp4", TIMELINE, CHECKS)


def test_the_same_lesson_gives_the_same_bytes() -> None:
    assert as_json(report()) == as_json(report())


def test_the_level_of_silence_does_not_make_the_report_unreadable() -> None:
    silent = FileChecks.model_validate(report()["file"]).model_copy(update={"integrated_loudness": -math.inf, "true_peak": -math.inf})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    file = json.loads(as_json(report(silent)), parse_constant=refuse)["file"]
    assert file["integrated_loudness"] is None


def test_who_speaks_is_told_with_where_clones_come_from_and_who_could_not() -> None:
    clone = {"engine": "chatterbox", "voice": "lecturer", "cloned_from": (12.2, 22.4)}
    lines = (line(0).model_copy(update=clone), line(1).model_copy(update=clone), line(2, clip=False), line(3))
    told = spoken_by(TIMELINE.model_copy(update={"lines": lines}))
    assert told == "chatterbox, voice lecturer, cloned from 0:12-0:22; kokoro, voice af_heart"
    down = tuple(one.model_copy(update={"instead_of": "chatterbox: nobody answers"}) for one in (line(0), line(1)))
    assert spoken_by(TIMELINE.model_copy(update={"lines": down})) == "kokoro, voice af_heart (chatterbox: nobody answers)"
    row = timeline_document("lesson.mp4", TIMELINE.model_copy(update={"lines": (lines[0], down[1])}))["lines"]
    assert [(one["cloned_from"], one["instead_of"]) for one in row] == [("0:12-0:22", None), (None, "chatterbox: nobody answers")]
