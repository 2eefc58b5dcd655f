"""What a course's manifest may look like, and that everything wrong in it is told at once."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubbing.errors import BadManifest
from dubbing.manifest import COLUMNS, LAST, MOST_LESSONS, Entry, of_folder, read


def entries(text: str, name: str = "course.csv", where: str = "/courses") -> list[Entry]:
    return read(text.encode(), name, where)


def errors_of(text: str, name: str = "course.csv") -> list[str]:
    with pytest.raises(BadManifest) as refused:
        entries(text, name)
    return list(refused.value.errors)


class TestATable:
    def test_has_a_lesson_a_row_with_its_overrides(self) -> None:
        [first, second] = entries(
            'source,title,target_language,lecturer,priority,voice,seed\n1.mp4,Optics,"en, es",Ivanova,1,af_heart,3\nhttps://example.org/2%20b.mp4,,,,,,\n'
        )
        assert first == Entry(2, "/courses/1.mp4", "Optics", ("en", "es"), "Ivanova", 1, {"voice": "af_heart", "seed": 3})
        assert second == Entry(3, "https://example.org/2%20b.mp4", "2 b", (), "", LAST, {})

    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_is_read_as_spreadsheets_save_it(self, delimiter: str, encoding: str) -> None:
        text = delimiter.join(["Source", "Title"]) + "\r\n" + delimiter.join(["урок 1.mp4", '"Свет; волна, частица"']) + "\r\n\r\n"
        [lesson] = read(text.encode(encoding), "course.csv", "/c")
        assert (lesson.source, lesson.title) == ("/c/урок 1.mp4", "Свет; волна, частица")

    def test_counts_rows_as_a_spreadsheet_does(self) -> None:
        assert [lesson.row for lesson in entries("source\na.mp4\n\nb.mp4\n")] == [2, 4]

    def test_tells_everything_that_is_wrong_by_row_and_column(self) -> None:
        assert errors_of("source,title,priority,seed\n,Optics,first,\na.mp4,b,0,x\nb.mp4,,1,1\n") == [
            "row 2, source: is empty",
            "row 2, priority: 'first' is no whole number from 1 to 1000000",
            "row 3, priority: '0' is no whole number from 1 to 1000000",
            "row 3, seed: 'x' is no number",
        ]

    def test_names_columns_that_there_are_not(self) -> None:
        [unknown, twice, missing] = errors_of("sorce,title,title\n1.mp4,a,b\n")
        assert unknown.startswith("column sorce: there is no such column; there are source, title")
        assert (twice, missing) == ("column title: twice", "column source: missing")

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "it is empty"),
            ("source\n", "it has no lessons"),
            ("source,title\na.mp4,b,c\n", "not a table"),
            ("source\nsou\x07rce.mp4\n", "characters that can't be shown"),
            ('source\n"unclosed\n', "not a table"),
            ("\0\0\0", "not a table"),
            (f"source,title\na.mp4,{'x' * 201}\n", "row 2, title: has 201 characters, the limit is 200"),
        ],
        ids=["empty", "header", "long row", "bell", "quote", "zeros", "title"],
    )
    def test_that_is_none_is_refused_in_one_line(self, text: str, said: str) -> None:
        assert said in errors_of(text)[0]

    def test_of_ten_thousand_rows_is_read_and_a_longer_one_refused(self) -> None:
        rows = "".join(f"{number}.mp4\n" for number in range(MOST_LESSONS))
        assert len(entries("source\n" + rows)) == MOST_LESSONS
        assert errors_of("source\n" + rows + "one more.mp4\n") == ["10001 lessons, the limit is 10000"]

    def test_the_message_names_the_first_errors_and_how_many_more_there_are(self) -> None:
        with pytest.raises(BadManifest, match=r"^course\.csv: row 2, source: is empty; .*; and 2 more$"):
            entries("source,title\n" + ",x\n" * 7)


class TestJson:
    def test_is_a_list_of_lessons_or_of_sources(self) -> None:
        document = {"lessons": ["a.mp4", {"source": "b.mp4", "target_language": ["en", "pt-BR"], "seed": 2, "voice": None}]}
        for content in (document, document["lessons"]):
            [first, second] = entries(json.dumps(content), "course.json")
            assert (first.row, first.source, first.title) == (1, "/courses/a.mp4", "a")
            assert (second.target_languages, second.overrides) == (("en", "pt-BR"), {"seed": 2})

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("{", "not JSON"),
            ('{"lesson": []}', "must be a list"),
            ("[]", "it has no lessons"),
            ("[5]", "lesson 1: must be an object or a source"),
            ('[{"source": "a", "voise": 1}]', "lesson 1, voise: there is no such field"),
            ('[{"source": ["a"]}]', "row 1, source: must be text or a number"),
            ('[{"source": true}]', "row 1, source: must be text or a number"),
            ("[" * 100_000, "not JSON"),
        ],
        ids=["cut", "no lessons", "empty", "number", "field", "list", "true", "deep"],
    )
    def test_that_is_no_manifest_is_refused(self, text: str, said: str) -> None:
        assert said in errors_of(text, "course.json")[0]

    def test_everything_that_is_wrong_is_told_at_once(self) -> None:
        text = '[5, {"source": "a", "voise": 1, "priority": 0}, {"title": "b", "seed": "x"}]'
        assert [error.partition(":")[0] for error in errors_of(text, "course.json")] == [
            *("lesson 1", "lesson 2, voise", "row 2, priority", "row 3, source", "row 3, seed")
        ]

    def test_numbers_that_are_too_long_for_anybody_are_refused(self) -> None:
        assert errors_of(f"source,priority\na.mp4,{'1' * 5000}\n")[0].startswith("row 2, priority: '11111111111111111111' is no whole")

    def test_whoever_finds_more_errors_gets_the_others(self) -> None:
        found = ["one"]
        [lesson] = read(b"source,priority\na.mp4,x\nb.mp4,\n", "course.csv", "", found)
        assert lesson.source == "b.mp4" and [error[:5] for error in found] == ["one", "row 2"]


class TestAFolder:
    def test_is_its_media_files_in_the_order_that_people_count(self) -> None:
        lessons = of_folder(["10 b.mp4", "notes.txt", "2 a.MKV", ".hidden.mp4", "1/x.mp3"], "physics", "s3://bucket/physics")
        assert [lesson.source for lesson in lessons] == [f"s3://bucket/physics/{name}" for name in ("1/x.mp3", "2 a.MKV", "10 b.mp4")]

    def test_without_media_is_refused(self) -> None:
        with pytest.raises(BadManifest, match="physics: no video or sound files"):
            of_folder(["notes.txt"], "physics", "/physics")


@given(st.binary(max_size=300), st.sampled_from(["course.csv", "course.json"]))
def test_whatever_the_bytes_it_is_read_or_refused(content: bytes, name: str) -> None:
    try:
        lessons = read(b"source," + content if name == "course.csv" else content, name, "/c")
    except BadManifest as refused:
        assert refused.errors and "\n" not in str(refused)
    else:
        assert all(lesson.source and set(lesson.overrides) <= set(COLUMNS) for lesson in lessons)
