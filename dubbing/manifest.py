"""A course's manifest: which lessons it has, and what is asked for otherwise in some of them.

A table with a header (CSV, as a spreadsheet saves it), JSON, or a list of the media files in a folder. Only its form is looked at here;
what the values may be is for whoever dubs the lessons to say. All that is wrong is told at once, by row and column.
"""

from __future__ import annotations

import io
import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urljoin

from dubbing.errors import BadManifest
from dubbing.sources import is_address, is_in_bucket, name_of

LARGEST = 10_000_000  # bytes of a manifest
MOST_LESSONS = 10_000
LONGEST_TITLE = 200  # characters
LAST = 1_000_000  # priority of lessons that are given none

TEXT_COLUMNS = (
    *("source_language", "voice", "captions", "terms", "output", "profile", "separator", "recogniser", "translator", "speech"),
    *("loudness", "review", "report_language", "publish_to", "kinescope", "webhook", "job"),
)
NUMBER_COLUMNS = ("ducking", "seed", "max_megabytes", "max_hours")
OVERRIDES = (*TEXT_COLUMNS, *NUMBER_COLUMNS)  # of the course's settings, for one lesson
COLUMNS = ("source", "title", "target_language", "lecturer", "priority", *OVERRIDES)
_SEVERAL = re.compile(r"[\s,;|]+")  # between the languages of a cell

MEDIA = frozenset("mp4 m4v mov mkv webm avi mpg mpeg ts mts m2ts flv wmv ogv 3gp mp3 m4a aac wav flac ogg opus wma aiff aif".split())


class Entry(NamedTuple):
    """A lesson as the manifest has it."""

    row: int  # as a spreadsheet counts, the header being 1; in JSON and in a folder, the lesson's number
    source: str
    title: str
    target_languages: tuple[str, ...]  # () for the course's
    lecturer: str
    priority: int  # 1 comes first
    overrides: dict[str, str | float]


def read(content: bytes, name: str, where: str = "", errors: list[str] | None = None) -> list[Entry]:
    """The lessons of a manifest, in its order.

    Args:
        name: of the file, for messages; one that ends in .json is JSON.
        where: the folder or address that sources without one are relative to.
        errors: takes what is wrong with single lessons, which are left out then, for who finds more; None: that is raised.

    Raises:
        BadManifest
    """
    if len(content) > LARGEST:
        raise BadManifest(name, [f"{len(content) / 1e6:.1f} MB, the limit is {LARGEST / 1e6:g} MB"])
    found: list[str] = []
    rows = _of_json(content, name, found) if name.lower().endswith(".json") else _of_table(content, name)
    if not rows:
        raise BadManifest(name, found or ["it has no lessons"])
    if len(rows) > MOST_LESSONS:
        raise BadManifest(name, [f"{len(rows)} lessons, the limit is {MOST_LESSONS}"])
    entries = [entry for number, row in rows if (entry := _entry(number, row, where, found))]
    if errors is not None:
        errors += found
    elif found:
        raise BadManifest(name, found)
    return entries


def of_folder(names: Iterable[str], name: str, where: str) -> list[Entry]:
    """The lessons of a folder without a manifest: its media files by name, numbers in names by size.

    Args:
        names: paths inside the folder.
        name: of the folder, for messages.

    Raises:
        BadManifest: there is no media file.
    """
    media = sorted((path for path in names if is_media(path)), key=_by_number)
    if not media:
        raise BadManifest(name, ["no video or sound files in it"])
    if len(media) > MOST_LESSONS:
        raise BadManifest(name, [f"{len(media)} lessons, the limit is {MOST_LESSONS}"])
    return [Entry(number, _joined(where, path), PurePosixPath(path).stem, (), "", LAST, {}) for number, path in enumerate(media, 1)]


def is_media(path: str) -> bool:
    """Whether a file is a lesson by its name.

    >>> is_media("1 Intro.MP4"), is_media("notes.txt"), is_media(".hidden.mp4")
    (True, False, False)
    """
    file = PurePosixPath(path)
    return not file.name.startswith(".") and file.suffix[1:].lower() in MEDIA


def _by_number(path: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() and part.isascii() else (0, part) for part in re.split(r"([0-9]+)", path.casefold())]


def _of_table(content: bytes, name: str) -> Sequence[tuple[int, Mapping[str, Any]]]:
    import pandas

    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeError:
        raise BadManifest(name, ["not UTF-8 text"]) from None
    if not text.strip() or "\0" in text:
        raise BadManifest(name, ["it is empty" if not text.strip() else "not a table of comma-separated values"])
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    try:
        # Python's own parser: it tells rows that are too long from short ones.
        table = pandas.read_csv(
            io.StringIO(text, newline=""),
            sep=delimiter,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            engine="python",
            header=None,
        )
    except (pandas.errors.ParserError, ValueError) as error:
        raise BadManifest(name, [f"not a table of comma-separated values ({error})"]) from None
    table = table.fillna("")
    header = [" ".join(str(cell).split()).lower().replace(" ", "_") for cell in table.iloc[0]]
    errors = [
        f"column {column or '(no name)'}: there is no such column; there are {', '.join(COLUMNS)}"
        for column in header
        if column not in COLUMNS
    ]
    errors += [f"column {column}: twice" for column in dict.fromkeys(header) if header.count(column) > 1]
    if "source" not in header:
        errors.append("column source: missing")
    if errors:
        raise BadManifest(name, errors)
    rows = [dict(zip(header, map(str, cells), strict=True)) for cells in table.iloc[1:].itertuples(index=False)]
    return [(number, row) for number, row in enumerate(rows, 2) if any(cell.strip() for cell in row.values())]


def _of_json(content: bytes, name: str, errors: list[str]) -> Sequence[tuple[int, Mapping[str, Any]]]:
    """A list of lessons, or {"lessons": […]}; a lesson is an object, or its source alone.

    Args:
        errors: takes what is wrong with single lessons.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadManifest(name, [f"not JSON ({error})"]) from None
    lessons = document.get("lessons") if isinstance(document, dict) else document
    if not isinstance(lessons, list):
        raise BadManifest(name, ['it must be a list of lessons, or {"lessons": [...]}'])
    rows: list[tuple[int, Mapping[str, Any]]] = []
    for number, lesson in enumerate(lessons, 1):
        lesson = {"source": lesson} if isinstance(lesson, str) else lesson
        if not isinstance(lesson, dict):
            errors.append(f"lesson {number}: must be an object or a source")
            continue
        errors += [
            f"lesson {number}, {key}: there is no such field; there are {', '.join(COLUMNS)}" for key in lesson if key not in COLUMNS
        ]
        rows.append((number, {key: value for key, value in lesson.items() if key in COLUMNS}))
    return rows


def _entry(number: int, row: Mapping[str, Any], where: str, errors: list[str]) -> Entry | None:
    before = len(errors)

    def wrong(column: str, what: str) -> None:
        errors.append(f"row {number}, {column}: {what}")

    said: dict[str, str] = {}
    for column, value in row.items():
        if isinstance(value, list) and column == "target_language" and all(isinstance(part, str) for part in value):
            value = " ".join(value)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            wrong(column, "must be text or a number")
            continue
        text = str(value).strip()
        if not all(character.isprintable() for character in text):
            wrong(column, "has characters that can't be shown")
        elif text:
            said[column] = text
    if "source" not in said:
        wrong("source", "is empty")
    if len(said.get("title", "")) > LONGEST_TITLE:
        wrong("title", f"has {len(said['title'])} characters, the limit is {LONGEST_TITLE}")
    priority = LAST
    if text := said.get("priority", ""):
        if text.isascii() and text.isdigit() and len(text) <= len(str(LAST)) and 1 <= int(text) <= LAST:
            priority = int(text)
        else:
            wrong("priority", f"{text[:20]!r} is no whole number from 1 to {LAST}")
    overrides: dict[str, str | float] = {column: said[column] for column in TEXT_COLUMNS if column in said}
    for column in NUMBER_COLUMNS:
        if text := said.get(column, ""):
            try:
                value = float(text)
            except ValueError:
                wrong(column, f"{text!r} is no number")
            else:
                overrides[column] = int(value) if value.is_integer() else value
    if len(errors) > before:
        return None
    languages = tuple(dict.fromkeys(tag for tag in _SEVERAL.split(said.get("target_language", "")) if tag))
    source = _joined(where, said["source"])
    if "terms" in overrides:
        overrides["terms"] = _joined(where, str(overrides["terms"]))
    title = said.get("title") or PurePosixPath(name_of(source)).stem
    return Entry(number, source, title, languages, said.get("lecturer", ""), priority, overrides)


def _joined(where: str, source: str) -> str:
    """A source as it is meant from where the manifest lies.

    >>> _joined("/courses/physics", "1.mp4"), _joined("https://example.org/c/list.csv", "1.mp4"), _joined("s3://bucket/c", "a/1.mp4")
    ('/courses/physics/1.mp4', 'https://example.org/c/1.mp4', 's3://bucket/c/a/1.mp4')
    >>> _joined("/courses", "s3://bucket/1.mp4"), _joined("/courses", "/data/1.mp4"), _joined("/courses", "~/1.mp4")
    ('s3://bucket/1.mp4', '/data/1.mp4', '~/1.mp4')
    """
    if is_address(source) or not where:
        return source
    if is_in_bucket(where):
        return f"{where.rstrip('/')}/{source.lstrip('/')}"
    if is_address(where):
        return urljoin(where, source)
    return source if source.startswith("~") else posixpath.join(where, source)
