"""Names of what is published: the same for the same lesson, never another's, and harmless whatever the recording is called."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubbing.publishing import address_in, lesson_id, media_type_of, place_of

SHA256 = "0123456789abcdef" * 4
FILES = {
    "voice": "x.m4a",
    "video": "lesson.en.mp4",
    "srt_en": "lesson.en.srt",
    "vtt_ru": "lesson.ru.vtt",
    "ass_en": "lesson.en.ass",
    "thumbnail": "lesson.jpg",
    "timeline": "timeline.json",
    "report": "report.json",
    "page": "index.html",
}


@given(name=st.text(min_size=1), language=st.sampled_from(["en", "pt-BR", "zh-Hant"]))
def test_whatever_a_recording_is_called_its_files_lie_under_uploads(name: str, language: str) -> None:
    lesson = lesson_id(name, SHA256, language)
    places = {place_of(what, file, lesson) for what, file in FILES.items()}
    assert len(places) == len(FILES)
    for place in places:
        assert place and re.fullmatch(r"uploads/(voiceovers|subtitles|renders|thumbnails|reports/[\w.-]+)/[\w.-]+", place, re.ASCII)
        assert ".." not in place and len(place) < 200
        assert media_type_of(place) != "application/octet-stream"


def test_lessons_of_one_name_and_languages_of_one_lesson_lie_apart() -> None:
    ids = {lesson_id("lesson.mp4", sha256, language) for sha256 in (SHA256, SHA256[::-1]) for language in ("en", "es")}
    assert len(ids) == 4


def test_what_is_for_the_folder_alone_is_not_published() -> None:
    assert [place_of(what, "x.csv", "a.en") for what in ("terms", "table", "original_audio", "srt")] == [None] * 4


@pytest.mark.parametrize("text", ["", "s3://", "s3://bucket", "s3://bucket/", "https://bucket/key", "s3://key@bucket/key"])
def test_an_address_that_is_none_is_none(text: str) -> None:
    assert address_in(text) is None
