"""Where the files of a dubbed lesson lie once they are published: names only, in a bucket or in a folder.

    uploads/voiceovers/<id>.m4a
    uploads/subtitles/<id>.<language>.srt, .vtt, .ass
    uploads/renders/<id>.mp4
    uploads/thumbnails/<id>.jpg
    uploads/reports/<id>/timeline.json, report.json, index.html

The id names the recording by content and the language that it was dubbed into, so that a lesson made anew lies in the same place, and none
can take another's.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from text_unidecode import unidecode

from dubbing.sources import file_stem

LONGEST_STEM = 60  # characters: enough to recognise a lesson by
MEDIA_TYPES = {
    "m4a": "audio/mp4",
    "mp4": "video/mp4",
    "mkv": "video/x-matroska",
    "jpg": "image/jpeg",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "ass": "text/x-ssa; charset=utf-8",
    "json": "application/json",
    "html": "text/html; charset=utf-8",
}


class Address(NamedTuple):
    """An object in a bucket."""

    bucket: str
    key: str


def lesson_id(name: str, sha256: str, target_language: str) -> str:
    """
    >>> lesson_id("Урок 1: свет.mp4", "ab" * 32, "en")
    'Urok-1-svet-abababababab.en'

    Args:
        name: of the recording's file.
        sha256: of the recording.
    """
    stem = re.sub(r"[^A-Za-z0-9_]+", "-", unidecode(file_stem(name)))[:LONGEST_STEM].strip("-")
    return f"{stem or 'lesson'}-{sha256[:12]}.{target_language}"


def place_of(what: str, name: str, lesson: str) -> str | None:
    """Where a file of a lesson's folder goes; None: nowhere, it is for whoever has the folder.

    >>> place_of("video", "lesson.en.mp4", "a.en"), place_of("srt_ru", "lesson.ru.srt", "a.en"), place_of("page", "index.html", "a.en")
    ('uploads/renders/a.en.mp4', 'uploads/subtitles/a.en.ru.srt', 'uploads/reports/a.en/index.html')

    Args:
        what: it is, as `tasks.deliver` says; also `voice`, the new track.
        name: in the folder.
        lesson: its id.
    """
    ending = name.rpartition(".")[2]
    kind, _, language = what.partition("_")
    match kind:
        case "voice":
            return f"uploads/voiceovers/{lesson}.{ending}"
        case "video":
            return f"uploads/renders/{lesson}.{ending}"
        case "thumbnail":
            return f"uploads/thumbnails/{lesson}.{ending}"
        case "srt" | "vtt" | "ass" if language:
            return f"uploads/subtitles/{lesson}.{language}.{ending}"
        case "timeline" | "report" | "page":
            return f"uploads/reports/{lesson}/{name}"
    return None


def media_type_of(name: str) -> str:
    return MEDIA_TYPES.get(name.rpartition(".")[2], "application/octet-stream")


def address_in(text: str) -> Address | None:
    """What `s3://bucket/key` names; None where that isn't one.

    >>> address_in("s3://lessons/uploads/renders/a.en.mp4")
    Address(bucket='lessons', key='uploads/renders/a.en.mp4')
    """
    found = re.fullmatch(r"s3://([^/@?#]+)/(.+)", text)
    return Address(found[1], found[2]) if found else None
