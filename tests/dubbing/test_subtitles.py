"""Captions: every word is shown, in order, in cues that can be read and never overlap; and no text is ever markup."""

from __future__ import annotations

import html
import itertools
import re
from pathlib import Path

import pysubs2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dubbing import subtitles
from dubbing.lesson import PlacedLine, Timeline, Transcript, Utterance, Word
from dubbing.subtitles import Cue, clean, cues_of_texts, cues_of_timeline, cues_of_transcript, word_cues, write

LONG = (
    "Today we will learn how a rainbow appears: sunlight looks white, but it consists of many colours, and when the light enters a drop of "
    "water, it changes direction; red light bends less than violet light. So the white ray turns into a coloured band!"
)
HOSTILE = (
    "a --> b",
    "00:00:01,000 --> 00:00:02,000",
    "<b>bold</b> <script>alert(1)</script> <i",
    "x < y and z > y",
    "& &amp; &lt;b&gt; &nbsp;",
    r"{\an8}{\pos(0,0)}top",
    r"C:\New\hard \N \n \h",
    "{comment} } {",
    "a\u202eb\u2066c\u200bd\ufeffe\u00adf",
    "bell\x07 null\x00 escape\x1b[31m",
    "two\nlines\r\nand\u2028more\x0b.",
    "WEBVTT",
    "NOTE this",
    "1",
)


def line(text: str, start: float, end: float, name: str = "a") -> PlacedLine:
    return PlacedLine(
        id=name,
        source_text="",
        text=text,
        source_start=start,
        source_end=end,
        start=start,
        end=end,
        rate=1.0,
        overflow=0.0,
        engine="kokoro",
        voice="af_heart",
        speaker=None,
        clip=None,
    )


def timeline(*lines: PlacedLine, language: str = "en", duration: float = 60.0) -> Timeline:
    return Timeline(source_language="ru", target_language=language, duration=duration, lines=lines)


def word(text: str, start: float, end: float) -> Word:
    return Word(text=text, start=start, end=end, confidence=0.9)


def utterance(text: str, start: float, end: float, *words: Word) -> Utterance:
    return Utterance(id=Utterance.id_of(text, start), text=text, start=start, end=end, confidence=0.9, words=words)


def letters(text: str) -> str:
    return "".join(clean(text).split())


def shown(cues: list[Cue]) -> str:
    return "".join("".join(cue.text.split()) for cue in cues)


# Cutting


def test_a_short_line_is_one_cue_at_its_placed_time() -> None:
    assert cues_of_timeline(timeline(line("Hello, and welcome.", 2.0, 4.0))) == [Cue(2.0, 4.0, "Hello, and welcome.")]


def test_two_lines_break_at_punctuation() -> None:
    (cue,) = cues_of_timeline(timeline(line("Red light bends less than others, and violet light more.", 2.0, 8.0)))
    assert cue.text == "Red light bends less than others,\nand violet light more."


def test_a_long_line_is_cut_where_sentences_and_clauses_end() -> None:
    cues = cues_of_timeline(timeline(line(LONG, 1.0, 15.0)))
    assert len(cues) > 2
    assert all(cue.text[-1] in ",.:;!" for cue in cues)
    assert (cues[0].start, cues[-1].text) == (1.0, "So the white ray turns\ninto a coloured band!")


def test_parts_of_a_long_line_share_its_time_by_characters() -> None:
    cues = cues_of_timeline(timeline(line(LONG, 0.0, 20.0)))
    total = len(letters(LONG))
    for before, after in itertools.pairwise(cues):
        assert before.end == after.start
    assert cues[0].end == pytest.approx(20.0 * len(letters(cues[0].text)) / total, abs=0.02)


def test_parts_of_a_long_line_begin_with_their_words() -> None:
    words = [word(text, 1.0 + 0.3 * at, 1.2 + 0.3 * at) for at, text in enumerate(LONG.split())]
    cues = cues_of_timeline(timeline(line(LONG, 1.0, 30.0)), {"a": words})
    starts = {round(each.start, 2) for each in words}
    assert all(cue.start in starts for cue in cues)


def test_an_edited_text_keeps_the_times_of_the_words_around_the_edit() -> None:
    said = "well the red light bends less and then the violet light bends more than the red light does"
    words = [word(text, float(at), at + 0.9) for at, text in enumerate(said.split())]
    text = "The red light bends less; quite astonishingly, though, the violet light bends more than the red light does."
    cues = cues_of_timeline(timeline(line(text, 0.0, 18.0)), {"a": words})
    last = cues[-1].text.split()
    assert cues[-1].start == pytest.approx(len(words) - len(last), abs=1.0)


def test_a_line_without_text_has_no_cue() -> None:
    assert cues_of_timeline(timeline(line("", 1.0, 1.0), line(" \u200b\u202e\n", 2.0, 3.0), line("\u200d", 4.0, 5.0))) == []


def test_captions_of_the_source_begin_and_end_with_its_words() -> None:
    words = (word("Здравствуйте!", 0.6, 1.5), word("Начнём.", 1.9, 2.6))
    transcript = Transcript(language="ru", utterances=(utterance("Здравствуйте! Начнём.", 0.6, 2.6, *words),), engine="x")
    assert cues_of_transcript(transcript) == [Cue(0.6, 2.6, "Здравствуйте! Начнём.")]


def test_a_word_longer_than_a_line_is_broken_hard() -> None:
    cues = cues_of_timeline(timeline(line("see " + "x" * 200, 0.0, 20.0)))
    assert shown(cues) == "see" + "x" * 200
    assert max(len(row) for cue in cues for row in cue.text.split("\n")) == subtitles.LINE_LENGTH


def test_unspaced_languages_are_wrapped_by_character_and_no_line_begins_with_a_comma() -> None:
    text = "今天我们来了解彩虹是怎样出现的：阳光看起来是白色的，但它由许多颜色组成（red, green等）。当光进入水滴时，它会改变方向。"
    cues = cues_of_timeline(timeline(line(text, 0.0, 15.0), language="zh-Hans"))
    rows = [row for cue in cues for row in cue.text.split("\n")]
    assert shown(cues) == letters(text)
    assert all(len(row) <= subtitles.UNSPACED_LINE_LENGTH and row[0] not in "，。：）" and row[-1] != "（" for row in rows)
    assert any("green" in row for row in rows)


def test_a_mark_is_never_parted_from_its_letter() -> None:
    cues = cues_of_timeline(timeline(line("ที่" * 60, 0.0, 30.0), language="th"))
    assert all(row.startswith("ท") for cue in cues for row in cue.text.split("\n"))


@pytest.mark.parametrize("length", [7, 81, -1])
def test_a_line_length_out_of_bounds_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="8 to 80"):
        cues_of_timeline(timeline(), line_length=length)


# Times


def test_a_hurried_cue_stays_into_the_silence_but_not_into_the_next() -> None:
    cues = cues_of_timeline(timeline(line("Yes.", 1.0, 1.2, "a"), line("No.", 1.6, 1.8, "b"), line("So it is.", 5.0, 5.3, "c")))
    assert [(cue.start, cue.end) for cue in cues] == [(1.0, 1.6), (1.6, 2.4), (5.0, 5.8)]


def test_a_cue_stays_at_most_a_second_longer_than_its_words() -> None:
    (cue,) = cues_of_timeline(timeline(line("A sentence that was said far too fast to be read.", 1.0, 1.9)))
    assert cue.end == 2.9


def test_no_cue_outlasts_the_lesson() -> None:
    (cue,) = cues_of_timeline(timeline(line("Goodbye.", 9.8, 12.0), duration=10.0))
    assert (cue.start, cue.end) == (9.8, 10.0)


def test_two_who_speak_at_once_are_both_seen_one_after_the_other() -> None:
    transcript = Transcript(
        language="en", utterances=(utterance("I say this.", 1.0, 4.0), utterance("And I say that.", 1.0, 4.0)), engine="x"
    )
    first, second = cues_of_transcript(transcript)
    assert first.end <= second.start
    assert min(first.end - first.start, second.end - second.start) > 0.79


def test_texts_with_times_are_captioned_like_a_timeline() -> None:
    lines = (line(LONG, 1.0, 15.0), line("", 16.0, 16.0, "b"), line("The end.", 17.0, 18.0, "c"))
    texts = [(each.start, each.end, each.text) for each in lines]
    assert cues_of_texts(texts, "en", 60.0) == cues_of_timeline(timeline(*lines))


# Words


def test_word_level_captions_advance_in_small_groups_with_the_voice() -> None:
    text = "Red light bends less than violet light. So the white ray turns into a coloured band!"
    words = [word(each, 1.0 + at, 1.8 + at) for at, each in enumerate(text.split())]
    cues = word_cues(timeline(line(text, 1.0, 18.0)), {"a": words})
    assert shown(cues) == letters(text)
    assert all(len(cue.text.split()) <= 3 and len(cue.text) <= 24 and "\n" not in cue.text for cue in cues)
    starts = dict(zip(range(len(words)), (each.start for each in words), strict=True))
    said = 0
    for cue in cues:
        assert cue.start == pytest.approx(starts[said], abs=0.01)
        said += len(cue.text.split())
    assert "light." in {cue.text.split()[-1] for cue in cues}


def test_a_pause_begins_a_new_group_of_words() -> None:
    words = [word("one", 1.0, 1.3), word("two", 2.5, 2.8), word("three", 2.8, 3.2)]
    assert [cue.text for cue in word_cues(timeline(line("one two three", 1.0, 4.0)), {"a": words})] == ["one", "two three"]


# Invariants

LANGUAGES = st.sampled_from(["en", "ru", "ar", "zh", "ja", "th", "my", "bo"])
TEXTS = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from([*LONG.split(), "—", "https://example.org/" + "path/" * 20, "虹は", "น้ำ", "👩‍🏫"]), max_size=80).map(" ".join),
    st.sampled_from(HOSTILE),
)
SECONDS = st.floats(min_value=0.0, max_value=50.0)


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    spans = draw(st.lists(st.tuples(SECONDS, st.floats(min_value=0.0, max_value=15.0), TEXTS), max_size=6))
    lines = [line(text, start, start + long, str(at)) for at, (start, long, text) in enumerate(sorted(spans))]
    return timeline(*lines, language=draw(LANGUAGES), duration=draw(st.floats(min_value=0.05, max_value=60.0)))


@st.composite
def words_of(draw: st.DrawFn, of: Timeline) -> dict[str, list[Word]]:
    return {
        each.id: [word(text, draw(SECONDS), draw(SECONDS)) for text in draw(st.sampled_from([each.text.split(), ["other", "words"], []]))]
        for each in of.lines
        if len(each.text) < 60
    }


def assert_sound(cues: list[Cue], of: Timeline, longest: int, rows: int) -> None:
    assert shown(cues) == "".join(letters(each.text) for each in of.lines)
    for cue in cues:
        assert 0 <= cue.start < cue.end <= of.duration
        assert 1 <= len(cue.text.split("\n")) <= rows
        assert all(0 < len(row) <= longest and row == row.strip() for row in cue.text.split("\n"))
    for before, after in itertools.pairwise(cues):
        assert before.end <= after.start


@settings(max_examples=150)
@given(st.data(), st.sampled_from([None, 8, 30, 80]))
def test_captions_are_whole_readable_and_in_order(data: st.DataObject, length: int | None) -> None:
    of = data.draw(timelines())
    cues = cues_of_timeline(of, data.draw(words_of(of)), length)
    assert_sound(cues, of, length or subtitles.LINE_LENGTH, 2)


@settings(max_examples=100)
@given(st.data())
def test_word_level_captions_are_whole_and_in_order(data: st.DataObject) -> None:
    of = data.draw(timelines())
    assert_sound(word_cues(of, data.draw(words_of(of))), of, subtitles.LINE_LENGTH, 1)


@settings(max_examples=50)
@given(timelines(), st.booleans())
def test_captions_of_the_source_are_whole_and_in_order(of: Timeline, bounded: bool) -> None:
    spoken = tuple(utterance(each.text, each.start, each.end) for each in of.lines)
    cues = cues_of_transcript(Transcript(language="ru", utterances=spoken, engine="x"), of.duration if bounded else None)
    last = max((each.end for each in spoken), default=0.0)
    if bounded or last > 0:
        assert_sound(cues, of if bounded else of.model_copy(update={"duration": last}), subtitles.LINE_LENGTH, 2)


# Files


def blocks(content: str) -> list[list[str]]:
    return [block.split("\n") for block in content.strip("\n").split("\n\n")]


def test_all_formats_are_written_as_utf8_with_line_feeds(tmp_path: Path) -> None:
    paths = write([Cue(1.0, 2.5, "Привет,\nмир!")], "ru", tmp_path / "new", "lesson.ru")
    assert {kind: path.name for kind, path in paths.items()} == {"srt": "lesson.ru.srt", "vtt": "lesson.ru.vtt", "ass": "lesson.ru.ass"}
    for path in paths.values():
        content = path.read_bytes()
        assert b"\r" not in content
        assert not content.startswith(b"\xef\xbb\xbf")
        (event,) = pysubs2.load(str(path))
        assert (event.start, event.end, event.plaintext) == (1000, 2500, "Привет,\nмир!")


def test_ass_names_its_language_and_its_canvas(tmp_path: Path) -> None:
    script = pysubs2.load(str(write([Cue(1.0, 2.0, "Да")], "ru", tmp_path, "lesson")["ass"]))
    assert script.info["Title"] == "lesson (Russian, ru)"
    assert (script.info["PlayResX"], script.info["PlayResY"]) == ("1920", "1080")


def test_no_cues_make_valid_empty_files(tmp_path: Path) -> None:
    paths = write([], "en", tmp_path, "lesson")
    assert paths["vtt"].read_text() == "WEBVTT\n"
    assert paths["srt"].read_text() == ""
    assert len(pysubs2.load(str(paths["ass"]))) == 0


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_shown_and_never_interpreted(text: str, tmp_path: Path) -> None:
    check_literal(text, tmp_path)


@settings(max_examples=100)
@given(st.text(alphabet=st.one_of(st.sampled_from("<>&{}\\Nnhbi-;:0,.\n# \u202e"), st.characters()), min_size=1, max_size=40))
@example("{\\N&amp;<b>-->")
def test_any_text_is_shown_and_never_interpreted(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    check_literal(text, tmp_path_factory.mktemp("captions"))


def check_literal(text: str, folder: Path) -> None:
    """The text between two innocent cues, read back as a browser reads WebVTT and as pysubs2, with its tags, reads SRT and ASS."""
    expected = "\n".join(filter(None, map(clean, text.split("\n"))))
    cues = [Cue(0.0, 1.0, "before"), Cue(1.0, 2.0, text), Cue(2.0, 3.0, "after")]
    paths = write(cues, "en", folder, "hostile")
    texts = ["before", *filter(None, [expected]), "after"]

    head, *shown_by_browser = blocks(paths["vtt"].read_text(encoding="utf-8"))
    assert head == ["WEBVTT"]
    payloads = ["\n".join(rows[1:]) for rows in shown_by_browser]
    assert not any("-->" in payload or re.search(r"[<>]", payload) for payload in payloads)
    assert [html.unescape(payload) for payload in payloads] == texts

    for kind in ("srt", "ass"):
        raw = paths[kind].read_text(encoding="utf-8")
        assert raw.count("-->") == (len(texts) if kind == "srt" else 0)
        events = list(pysubs2.load(str(paths[kind])))
        assert [untwinned(event.plaintext) for event in events] == [untwinned(each) for each in texts]
        assert not any(re.search(r"[{}<>]|\\[^N]", event.text) for event in events)


def untwinned(text: str) -> str:
    return text.translate(str.maketrans("＜＞｛｝＼：＆", "<>{}\\:&"))
