"""What a person changed in the files of a lesson's folder: found, all of it and nothing else, and refused where it can't be read."""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dubbing import subtitles
from dubbing.changes import CaptionFile, changes_in, is_unmarked, timeline_of
from dubbing.documents import as_json, line_checksum, timeline_document
from dubbing.edits import Edit, Edits, revised
from dubbing.errors import BadInput, CoursedubError
from dubbing.lesson import PlacedLine, Timeline, Transcript, TranslatedLine, Translation, Utterance, Word

NOW = "2026-01-01T00:00:00Z"


def utterance(text: str, start: float, *, step: float) -> Utterance:
    """A word each step."""
    words = tuple(
        Word(text=word, start=start + step * at, end=start + step * at + 0.8 * step, confidence=0.9) for at, word in enumerate(text.split())
    )
    return Utterance(id=Utterance.id_of(text, start), text=text, start=start, end=words[-1].end, confidence=0.9, words=words)


NASTY = (
    "<b>bold</b> & &amp; &lt;",
    r"{\an8}top C:\New\hard \N",
    "مرحبا بالعالم، هذا درس.",
    "Family 👩‍👩‍👧 and 🇪🇺 flags!",
    "今日は天気がいいですね。機械学習について話しましょう。",
    "two\nlines\r\nand\u2028more",
    "It began in\n1945",
    "at 00:00:01,000 --> 00:00:02,000 sharp",
    "a\u202eb\u2066c\u200bd\u00adf\x07 \x00",
    "WEBVTT",
    "1",
    "12",
    "＜already wide＞ 12：30",
    "",
)
Kind = Literal["srt", "vtt", "ass"]
KINDS: tuple[Kind, ...] = ("srt", "vtt", "ass")


class Folder:
    """What was delivered of a lesson, as bytes, and the lesson as the run has it."""

    def __init__(
        self, texts: list[str], language: str = "en", *, by_words: bool = False, crowded: bool = False, spread: float = 3.0
    ) -> None:
        places = [0.4 * at if crowded else 5.0 * at for at in range(len(texts))]
        sources = [f"Строка {at} урока." for at in range(len(texts))]
        self.transcript = Transcript(
            language="ru",
            engine="",
            utterances=tuple(utterance(source, place, step=0.1 if crowded else 0.5) for source, place in zip(sources, places, strict=True)),
        )
        self.translation = Translation(
            language=language,
            engine="",
            lines=tuple(TranslatedLine(id=line.id, text=text) for line, text in zip(self.transcript.utterances, texts, strict=True)),
        )
        placed = tuple(
            PlacedLine(
                id=line.id,
                source_text=line.text,
                text=text,
                source_start=line.start,
                source_end=line.end,
                start=line.start + 0.05,
                end=line.start + 0.05 + (0.0 if not text else 0.3 if crowded else spread),
                rate=1.0,
                overflow=0.0,
                engine="kokoro" if text else "",
                voice="af_heart" if text else "",
                speaker=None,
                clip=None,
            )
            for line, text in zip(self.transcript.utterances, texts, strict=True)
        )
        timeline = Timeline(source_language="ru", target_language=language, duration=places[-1] + 10, lines=placed)
        self.document = timeline_document("урок.mp4", timeline, lesson_sha256="ab")
        cues = subtitles.word_cues(timeline, {}) if by_words else subtitles.cues_of_timeline(timeline)
        with tempfile.TemporaryDirectory() as folder:
            target = subtitles.write(cues, language, Path(folder), "target")
            source = subtitles.write(subtitles.cues_of_transcript(self.transcript, timeline.duration), "ru", Path(folder), "source")
            self.target = {kind: target[kind].read_bytes() for kind in KINDS}
            self.source = {kind: source[kind].read_bytes() for kind in KINDS}

    @property
    def ids(self) -> list[str]:
        return [line["id"] for line in self.document["lines"]]

    def change(self, number: int, **fields: Any) -> None:
        self.document["lines"][number] |= fields

    def rewrite(self, kind: Kind, change: Callable[[str], str], *, source: bool = False) -> None:
        files = self.source if source else self.target
        before = files[kind].decode()
        assert change(before) != before
        files[kind] = change(before).encode()

    def changes(self, kinds: tuple[Kind, ...] = KINDS, timeline: bytes | None = None, lesson: str = "ab") -> list[Edit]:
        return changes_in(
            as_json(self.document).encode() if timeline is None else timeline,
            [CaptionFile(f"lesson.en.{kind}", kind, self.target[kind]) for kind in kinds],
            [CaptionFile(f"lesson.ru.{kind}", kind, self.source[kind]) for kind in kinds],
            transcript=self.transcript,
            translation=self.translation,
            voice="af_heart",
            made=NOW,
            lesson=lesson,
        )


PLAIN = [
    "Good day to all.",
    "Today we learn how a rainbow appears, and why sunlight looks white although it is not.",
    "So.",
    "It is a < b & c.",
]


@pytest.mark.parametrize("by_words", [False, True])
@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_folder_as_it_was_delivered_has_no_edits(by_words: bool, crowded: bool, language: str) -> None:
    assert Folder(list(NASTY), language, by_words=by_words, crowded=crowded).changes() == []


@given(
    st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=60)), min_size=1, max_size=6),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["ru", "ja"]),
)
@settings(max_examples=120)
def test_no_text_looks_changed_that_was_not(texts: list[str], by_words: bool, crowded: bool, language: str) -> None:
    assert Folder([subtitles.clean(text) for text in texts], language, by_words=by_words, crowded=crowded).changes() == []


def test_the_lesson_may_have_moved_on_when_nothing_was_changed() -> None:
    folder = Folder(PLAIN)
    lines = tuple(line.model_copy(update={"text": f"Now {line.text}"}) for line in folder.translation.lines[:2])
    folder.translation = folder.translation.model_copy(update={"lines": lines})
    folder.transcript = folder.transcript.model_copy(update={"utterances": folder.transcript.utterances[:2]})
    assert folder.changes() == []


def test_each_changed_field_is_in_the_lines_one_edit() -> None:
    folder = Folder(PLAIN)
    folder.change(1, translation="Rainbows.", voice="am_adam", say={"Rainbows": "rain bows"}, source_text="О радуге.")
    folder.change(2, translation="")
    first, second = folder.changes()
    assert (first.line, first.text, first.voice, first.say, first.new_source_text) == (
        folder.ids[1],
        "Rainbows.",
        "am_adam",
        {"Rainbows": "rain bows"},
        "О радуге.",
    )
    assert (first.source_text, first.start, first.made) == ("Строка 1 урока.", 5.0, NOW)
    assert (second.line, second.silent, second.text) == (folder.ids[2], True, None)


def test_only_the_fields_that_a_person_changed_are_taken_from_an_old_file() -> None:
    folder = Folder(PLAIN)
    lines = (folder.translation.lines[0].model_copy(update={"text": "Newer words.", "edited": True}), *folder.translation.lines[1:])
    folder.translation = folder.translation.model_copy(update={"lines": lines})
    folder.change(0, voice="am_adam")
    (only,) = folder.changes()
    assert (only.text, only.voice) == (None, "am_adam")


def test_what_the_lesson_says_already_is_no_edit() -> None:
    folder = Folder(PLAIN)
    folder.change(0, translation="Hi.", voice="", say={})
    folder.rewrite("vtt", lambda text: text.replace("Good day to all.", "Hi."))
    lines = (folder.translation.lines[0].model_copy(update={"text": "Hi."}), *folder.translation.lines[1:])
    folder.translation = folder.translation.model_copy(update={"lines": lines})
    assert folder.changes() == []


def test_the_runs_voice_and_a_taken_away_pronunciation() -> None:
    folder = Folder(PLAIN)
    lines = (folder.translation.lines[0].model_copy(update={"voice": "am_adam", "say": {"day": "dey"}}), *folder.translation.lines[1:])
    folder.translation = folder.translation.model_copy(update={"lines": lines})
    entry = folder.document["lines"][0]
    entry |= {"voice": "am_adam", "say": {"day": "dey"}}
    entry["checksum"] = line_checksum(entry)
    assert folder.changes() == []
    folder.change(0, voice="af_heart", say={})
    (only,) = folder.changes()
    assert (only.voice, only.say) == ("", {"day": ""})


@pytest.mark.parametrize("by_words", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_words_changed_in_captions_are_the_lines_text(kind: Kind, by_words: bool) -> None:
    folder = Folder(PLAIN, by_words=by_words)
    folder.rewrite(kind, lambda text: text.replace("sunlight", "daylight"))
    (only,) = folder.changes()
    assert only.line == folder.ids[1]
    assert only.text == PLAIN[1].replace("sunlight", "daylight")


@pytest.mark.parametrize("kind", KINDS)
def test_signs_that_captions_write_wide_stay_plain(kind: Kind) -> None:
    folder = Folder(PLAIN)
    folder.rewrite(kind, lambda text: text.replace("It is", "That is"))
    assert [edit.text for edit in folder.changes()] == ["That is a < b & c."]


@pytest.mark.parametrize("kind", KINDS)
def test_words_corrected_in_the_source_captions(kind: Kind) -> None:
    folder = Folder(PLAIN)
    folder.rewrite(kind, lambda text: text.replace("Строка 2 урока", "Строка два урока"), source=True)
    (only,) = folder.changes()
    assert (only.line, only.new_source_text, only.text) == (folder.ids[2], "Строка два урока.", None)


def test_captions_taken_away_silence_the_line_but_only_of_the_translation() -> None:
    folder = Folder(PLAIN)
    folder.rewrite("srt", lambda text: re.sub(r"3\n[^\n]*\nSo\.\n", "", re.sub(r"(?m)^\d+\n(.*\nSo\.)", r"3\n\1", text)))
    (only,) = folder.changes()
    assert (only.line, only.silent) == (folder.ids[2], True)
    folder.rewrite("srt", lambda text: text.replace("Строка 2 урока.", ""), source=True)
    with pytest.raises(BadInput, match=re.escape(f"lesson.ru.srt: line {folder.ids[2]}: its captions were removed")):
        folder.changes()


def test_cues_that_were_moved_a_little_change_nothing() -> None:
    folder = Folder(PLAIN)
    folder.rewrite("srt", lambda text: re.sub(r",(\d)", lambda digit: f",{(int(digit[1]) + 3) % 10}", text))
    folder.rewrite("vtt", lambda text: text.replace("00:00:10", "00:00:11"))
    assert folder.changes() == []


def test_a_cue_where_no_line_is_is_refused() -> None:
    folder = Folder(PLAIN)
    folder.rewrite("srt", lambda text: text + "\n9\n00:10:00,000 --> 00:10:01,000\nAnd more.\n")
    with pytest.raises(BadInput, match=r"^lesson\.en\.srt: cue \d+ \(at 600\.00 s\): there is no line at that time$"):
        folder.changes()


def test_files_that_agree_are_one_edit_and_files_that_do_not_are_refused() -> None:
    folder = Folder(PLAIN)
    folder.change(0, translation="Hello to all.")
    folder.rewrite("srt", lambda text: text.replace("Good day", "Hello"))
    folder.rewrite("ass", lambda text: text.replace("Good day", "Hello"))
    assert [edit.text for edit in folder.changes()] == ["Hello to all."]
    folder.rewrite("vtt", lambda text: text.replace("Good day", "Hi"))
    with pytest.raises(BadInput, match=re.escape(f"line {folder.ids[0]}: timeline.json and lesson.en.vtt give it different translations")):
        folder.changes()


def test_markup_of_a_caption_editor_is_not_spoken() -> None:
    folder = Folder(PLAIN)
    folder.rewrite("srt", lambda text: text.replace("Good day", "{\\an8}<i>Hello</i>"))
    folder.rewrite("vtt", lambda text: text.replace("Good day", "<v Ann>Hello"))
    folder.rewrite("ass", lambda text: text.replace("Good day", r"{\i1}Hello{\i0}"))
    assert [edit.text for edit in folder.changes()] == ["Hello to all."]


def test_an_editor_may_write_the_files_its_own_way() -> None:
    folder = Folder([*PLAIN, "It began in 1945"])
    folder.target["srt"] = b"\xef\xbb\xbf" + folder.target["srt"].replace(b"\n", b"\r\n")
    folder.target["vtt"] = folder.target["vtt"].decode().encode("utf-16")
    numbers = re.sub(r"(\d)\.0\b", r"\1", json.dumps(folder.document, indent=1, sort_keys=True))
    assert folder.changes(timeline=numbers.encode()) == []


def test_a_last_line_of_digits_is_text() -> None:
    folder = Folder(["x" * 41 + " 1945", "So."])
    folder.rewrite("srt", lambda text: text.replace("So.", "x" * 41 + "\n2001"))
    assert [edit.text for edit in folder.changes()] == ["x" * 41 + " 2001"]


def broken(change: Callable[[dict[str, Any]], object]) -> bytes:
    folder = Folder(PLAIN)
    change(folder.document)
    return as_json(folder.document).encode()


@pytest.mark.parametrize(
    ("timeline", "message"),
    [
        (b'{"lines": [\n  nothing]}', "timeline.json: no JSON at line 2, column 3"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"lines":' + b'{"a":' * 400 + b"1" + b"}" * 401, "no lines"),
        (b"\xff\x00\x81", "not UTF-8"),
        (b"[]", "it has no lines"),
        (b"", "no JSON at line 1"),
        (b" " * 50_000_001, "50 MB"),
        (b"1" * 5000, "no JSON"),
        (broken(lambda document: document.pop("checksum")), "the field checksum is missing"),
        (broken(lambda document: document["lines"][1].pop("voice")), "the field voice is missing"),
        (broken(lambda document: document["lines"][1].update(translation=None)), "translation must be text"),
        (broken(lambda document: document["lines"][1].update(say={"a": 1})), "say must be a mapping"),
        (broken(lambda document: document["lines"][1].update(start="soon")), "start must be a number"),
        (
            broken(lambda document: document["lines"][1].update(start=4.0)),
            "only source_text, translation, voice and say can be changed here",
        ),
        (broken(lambda document: document["lines"][1].update(id="another")), "can be changed here"),
        (broken(lambda document: document["lines"].pop(1)), 'set its translation to ""'),
        (broken(lambda document: document["lines"].append(document["lines"][0])), "there more than once"),
        (broken(lambda document: document["lines"].reverse()), "order of the lines"),
        (broken(lambda document: document["lines"][1].update(translation="x" * 1001)), "the translation has 1001 characters"),
    ],
)
def test_a_timeline_that_cannot_be_read_is_refused_in_a_line(timeline: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)) as refusal:
        Folder(PLAIN).changes(timeline=timeline)
    assert "\n" not in str(refusal.value)


def test_another_lessons_folder_is_refused() -> None:
    folder = Folder(PLAIN)
    assert folder.changes(lesson="cd") == []
    folder.change(0, translation="Hello.")
    with pytest.raises(BadInput, match="another lesson"):
        folder.changes(lesson="cd")


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("srt", b"nothing", "lesson.en.srt: not SRT captions"),
        ("srt", b"", "no captions in it"),
        ("vtt", b"hello", "lesson.en.vtt: not VTT captions: it doesn't begin with WEBVTT"),
        ("vtt", b"WEBVTT\n\nnow --> then\nx\n", "no times"),
        ("ass", b"hello", "no [Events] section"),
        ("ass", b"[Events]\nDialogue: 0,now,then,Default,,0,0,0,,x", "lesson.en.ass: not ASS captions"),
        ("srt", b"x" * 20_001, "more than 20000 characters"),
        ("srt", b"\xff\x81", "not UTF-8"),
    ],
)
def test_captions_that_cannot_be_read_are_refused_in_a_line(kind: Kind, content: bytes, message: str) -> None:
    folder = Folder(PLAIN)
    folder.target[kind] = content
    with pytest.raises(BadInput, match=re.escape(message)):
        folder.changes()


@pytest.mark.parametrize("filling", ["{", "<", "[", "&", "\n", "\n ", "1", "1:", "--> ", "\\"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(20)
def test_no_file_takes_for_ever(kind: Kind, filling: str) -> None:
    folder = Folder(PLAIN)
    long = (filling * 19_000)[:19_000]
    folder.target[kind] = folder.target[kind].replace(b"Good", (f"{long}x\n" * 40).encode())
    try:
        folder.changes()
    except CoursedubError as refusal:
        assert len(str(refusal)) < 400


SMALL = Folder(PLAIN)


@given(st.data())
@settings(max_examples=400)
def test_no_bytes_are_worse_than_bad_input(data: st.DataObject) -> None:
    whole = {"json": as_json(SMALL.document).encode(), **{kind: SMALL.target[kind] for kind in KINDS}}
    which = data.draw(st.sampled_from(sorted(whole)))
    content = whole[which]
    at, until = sorted(data.draw(st.tuples(st.integers(0, len(content)), st.integers(0, len(content)))))
    junk = data.draw(
        st.one_of(st.binary(max_size=30), st.sampled_from([b"", b"\\ud800", b"-1", b"1e999", b"null", b"{}", b"NaN", b"\n\n", b"0"]))
    )
    whole[which] = data.draw(st.sampled_from([junk, content[:at] + junk + content[until:], content[:at] + junk + content[at:]]))
    try:
        changes_in(
            whole["json"],
            [CaptionFile(f"lesson.{kind}", kind, whole[kind]) for kind in KINDS],
            transcript=SMALL.transcript,
            translation=SMALL.translation,
            voice="af_heart",
            made=NOW,
        )
    except CoursedubError as refusal:
        assert str(refusal).isprintable()


@given(st.data(), st.booleans(), st.sampled_from(["en", "ja"]))
@settings(max_examples=80)
def test_each_changed_line_gives_back_one_edit(data: st.DataObject, crowded: bool, language: str) -> None:
    texts = data.draw(st.lists(st.sampled_from([text for text in NASTY if subtitles.clean(text)]), min_size=1, max_size=8))
    folder = Folder([subtitles.clean(text) for text in texts], language, crowded=crowded)
    chosen = data.draw(st.sets(st.integers(0, len(texts) - 1), min_size=1))
    for number in chosen:
        folder.change(number, translation=f"{number} changed by hand")
    edits = folder.changes()
    assert [edit.line for edit in edits] == [folder.ids[number] for number in sorted(chosen)]
    assert [edit.text for edit in edits] == [f"{number} changed by hand" for number in sorted(chosen)]
    revision = revised(folder.transcript, folder.translation, Edits(lesson="ab", language=language).with_(*edits))
    folder.translation = revision.translation
    assert folder.changes() == []


@given(st.data(), st.booleans(), st.booleans(), st.sampled_from(KINDS), st.booleans())
@settings(max_examples=100)
def test_each_line_changed_in_captions_gives_back_one_edit(
    data: st.DataObject, by_words: bool, crowded: bool, kind: Kind, source: bool
) -> None:
    texts = [
        f"alpha{at} {data.draw(st.sampled_from(['and', 'goes on and on, as long as it may. So', 'So what?']))} omega" for at in range(8)
    ]
    # Words a few hundredths of a second apart lie anywhere: only the words could tell whose they are, and these have been changed.
    folder = Folder(texts, by_words=by_words, crowded=crowded and not by_words)
    chosen = data.draw(st.sets(st.integers(0, 7), min_size=1))
    for number in chosen:
        old, new = (f"Строка {number} ", f"Линия {number} ") if source else (f"alpha{number}", f"quite other {number}")
        folder.rewrite(kind, replacing(old, new), source=source)
    edits = folder.changes()
    assert [edit.line for edit in edits] == [folder.ids[number] for number in sorted(chosen)]
    if source:
        assert [edit.new_source_text for edit in edits] == [f"Линия {number} урока." for number in sorted(chosen)]
    else:
        assert [edit.text for edit in edits] == [texts[number].replace("alpha", "quite other ") for number in sorted(chosen)]


def replacing(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


@pytest.mark.parametrize("kind", KINDS)
def test_words_changed_in_captions_of_a_language_without_spaces(kind: Kind) -> None:
    text = "今日は天気がいいですね。機械学習、deep learning について。"
    folder = Folder(["はい。", text], "ja")
    folder.rewrite(kind, replacing("天気", "気分"))
    (only,) = folder.changes()
    assert only.text is not None and only.text.replace("g に", "gに") == text.replace("天気", "気分").replace("g に", "gに")


def test_a_cue_at_a_silent_line_gives_it_words() -> None:
    folder = Folder(["One.", "", "Three."])
    folder.rewrite("srt", lambda text: text + "\n3\n00:00:05,200 --> 00:00:06,000\nTwo.\n")
    (only,) = folder.changes()
    assert (only.line, only.text) == (folder.ids[1], "Two.")


def test_a_line_that_the_lesson_no_longer_has_cannot_be_changed() -> None:
    folder = Folder(PLAIN)
    folder.change(0, translation="Hello.")
    folder.transcript = folder.transcript.model_copy(update={"utterances": folder.transcript.utterances[1:]})
    with pytest.raises(BadInput, match=f"line {folder.ids[0]}: it was changed, but the lesson has no such line"):
        folder.changes()


@pytest.mark.parametrize("depth", [50, 300, 450, 600, 900, 980, 5000])
def test_nothing_nested_deeply_goes_through(depth: int) -> None:
    timeline = as_json(SMALL.document).replace('"checks": null', '"checks": ' + "[" * depth + "]" * depth, 1)
    with pytest.raises(BadInput, match=r"nested too deeply|can be changed here"):
        SMALL.changes(timeline=timeline.encode())


def test_broken_fields_of_ass_that_show_nothing_are_passed_over_in_silence() -> None:
    folder = Folder(PLAIN)
    folder.rewrite("ass", lambda text: re.sub(r"Dialogue: 0,(.*?),(.*?),Default,,0,0,0,", r"Dialogue: x,\1,\2,Default,,wide,,0,", text))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert folder.changes() == []


def test_an_edit_of_a_line_that_was_recognised_otherwise_since_says_what_the_person_saw() -> None:
    folder = Folder(PLAIN)
    folder.change(0, translation="Hello.")
    other = utterance("Строка ноль урока.", 0.02, step=0.5)
    folder.transcript = folder.transcript.model_copy(update={"utterances": (other, *folder.transcript.utterances[1:])})
    lines = (folder.translation.lines[0].model_copy(update={"id": other.id}), *folder.translation.lines[1:])
    folder.translation = folder.translation.model_copy(update={"lines": lines})
    (only,) = folder.changes()
    assert (only.line, only.source_text, only.start) == (folder.ids[0], "Строка 0 урока.", 0.0)
    revision = revised(folder.transcript, folder.translation, Edits(lesson="ab", language="en").with_(only))
    assert [outcome.became for outcome in revision.outcomes] == ["applied to a changed line"]
    folder.translation = revision.translation
    assert folder.changes() == []


def without_marks(document: dict[str, Any]) -> dict[str, Any]:
    lines = [{field: value for field, value in line.items() if field != "checksum"} for line in document["lines"]]
    return {field: value for field, value in document.items() if field != "checksum"} | {"lines": lines}


def test_a_timeline_of_an_earlier_version_is_told_from_one_that_was_spoilt() -> None:
    document = Folder(PLAIN).document
    assert is_unmarked(as_json(without_marks(document)).encode())
    for content in (document, without_marks(document) | {"checksum": "ab"}, {"lines": 1}, {}, [], 1):
        assert not is_unmarked(as_json(content).encode())
    for raw in (b"", b"{", b"\xff\x81", b"[" * 100_000):
        assert not is_unmarked(raw)


def test_a_timeline_is_read_whatever_was_changed_in_it() -> None:
    folder = Folder(PLAIN)
    folder.change(0, translation="Hello.", start=9.0)
    assert timeline_of(as_json(folder.document).encode()) == folder.document
    with pytest.raises(BadInput, match="no JSON"):
        timeline_of(b"{")
