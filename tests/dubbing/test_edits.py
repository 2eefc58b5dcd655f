"""A reviewer's edits: applied in order, found again after the lesson has changed, and read from the files of the lesson's folder."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dubbing import subtitles
from dubbing.documents import as_json, line_checksum, timeline_document
from dubbing.edits import (
    LONGEST_TEXT,
    MOST_PARTS,
    CaptionFile,
    Edit,
    Edits,
    Revision,
    changes_in,
    check_edit,
    new_edit,
    revised,
    spoken_text,
)
from dubbing.errors import BadInput, BadSetting, CoursedubError
from dubbing.languages import UNSPACED, base_language
from dubbing.lesson import PlacedLine, Timeline, Transcript, TranslatedLine, Translation, Utterance, Word

NOW = "2026-01-01T00:00:00Z"


def utterance(text: str, start: float, *, step: float = 0.5, joint: str = " ") -> Utterance:
    """A word each half second."""
    tokens = text.split() if joint else list(text)
    words = tuple(
        Word(text=token, start=start + step * at, end=start + step * at + 0.8 * step, confidence=0.9) for at, token in enumerate(tokens)
    )
    return Utterance(id=Utterance.id_of(text, start), text=text, start=start, end=words[-1].end, confidence=0.9, words=words)


TRANSCRIPT = Transcript(
    language="ru",
    engine="whisper",
    utterances=(
        utterance("Добрый день всем.", 0),
        utterance("Сегодня мы учим NGINX.", 3),
        utterance("Это сервер.", 8),
        utterance("Ну вот.", 12),
    ),
)
ONE, TWO, THREE, FOUR = (line.id for line in TRANSCRIPT.utterances)
TRANSLATION = Translation(
    language="en",
    engine="llama",
    lines=(
        TranslatedLine(id=ONE, text="Good day to all.", flags=("translation: doubtful",)),
        TranslatedLine(id=TWO, text="Today we learn NGINX."),
        TranslatedLine(id=THREE, text="NGINX is a server."),
        TranslatedLine(id=FOUR, text="", said_with=THREE),
    ),
)


def edited(*edits: Edit, transcript: Transcript = TRANSCRIPT, translation: Translation = TRANSLATION) -> Revision:
    return revised(transcript, translation, Edits(lesson="ab", language="en").with_(*edits))


def edit(line: str, transcript: Transcript = TRANSCRIPT, made: str = NOW, **changes: Any) -> Edit:
    return new_edit(transcript, line, made, **changes)


def line_of(revision: Revision, line: str) -> TranslatedLine:
    return next(one for one in revision.translation.lines if one.id == line)


# Applying


def test_a_new_text_is_said_in_the_persons_words() -> None:
    revision = edited(edit(ONE, text="Hello, everybody."))
    assert line_of(revision, ONE) == TranslatedLine(id=ONE, text="Hello, everybody.", edited=True)
    assert revision.translation.lines[1:] == TRANSLATION.lines[1:]
    assert revision.transcript is TRANSCRIPT
    assert [outcome.became for outcome in revision.outcomes] == ["applied"]


def test_a_line_said_with_another_speaks_for_itself_when_it_gets_words() -> None:
    line = line_of(edited(edit(FOUR, text="So.")), FOUR)
    assert (line.text, line.said_with) == ("So.", None)


def test_a_silenced_line_says_nothing_and_can_speak_again() -> None:
    silent = edit(ONE, silent=True)
    assert line_of(edited(silent), ONE).text == ""
    assert edited(silent, edit(ONE, silent=False)).translation == TRANSLATION
    assert line_of(edited(edit(ONE, text="")), ONE) == line_of(edited(silent), ONE)


def test_a_line_said_with_a_silenced_one_says_so() -> None:
    line = line_of(edited(edit(THREE, silent=True)), FOUR)
    assert line.said_with is None
    assert line.flags == ("edit: the line whose words said this one too says nothing now",)


def test_corrected_words_are_translated_again_unless_a_person_gave_the_translation() -> None:
    correction = edit(TWO, new_source_text="Сегодня мы изучаем NGINX.")
    revision = edited(correction)
    assert revision.to_translate == (TWO,)
    assert revision.transcript.utterances[1].text == "Сегодня мы изучаем NGINX."
    assert [word.text for word in revision.transcript.utterances[1].words] == ["Сегодня", "мы", "изучаем", "NGINX."]
    assert revision.transcript.utterances[1].words[0] == TRANSCRIPT.utterances[1].words[0]
    assert edited(correction, edit(TWO, text="Today: NGINX.")).to_translate == ()
    assert edited(edit(TWO, text="Today: NGINX."), correction).to_translate == ()


def test_a_line_translated_again_keeps_its_voice_and_gets_its_pronunciations() -> None:
    revision = edited(edit(TWO, new_source_text="Об Apache.", voice="am_adam"), edit("", say={"Apache": "a patchy"}))
    done = revision.completed([TranslatedLine(id=TWO, text="About Apache.", attempts=2)])
    assert done.lines[1] == TranslatedLine(id=TWO, text="About Apache.", attempts=2, voice="am_adam", say={"Apache": "a patchy"})
    assert done.lines[2:] == TRANSLATION.lines[2:]


def test_a_line_that_was_not_translated_again_says_so() -> None:
    done = edited(edit(TWO, new_source_text="Об Apache.")).completed([])
    assert done.lines[1].flags == ("edit: its translation is of the words before they were corrected",)


def test_an_edit_after_ones_own_correction_is_no_surprise() -> None:
    correction = edit(TWO, new_source_text="Сегодня мы изучаем NGINX.")
    after = new_edit(edited(correction).transcript, TWO, NOW, voice="am_adam")
    for edits in (Edits(lesson="ab", language="en").with_(correction, after), Edits(lesson="ab", language="en").with_(after, correction)):
        assert [outcome.became for outcome in revised(TRANSCRIPT, TRANSLATION, edits).outcomes] == ["applied", "applied"]
    undone = Edits(lesson="ab", language="en").with_(correction, after).without(edit=correction.id)
    assert [outcome.became for outcome in revised(TRANSCRIPT, TRANSLATION, undone).outcomes] == ["applied"]


def test_an_edit_finds_its_line_after_it_was_recognised_otherwise() -> None:
    said = edit(TWO, text="Now NGINX.")
    other = utterance("Сегодня мы учим Angie.", 3.05)
    transcript = TRANSCRIPT.model_copy(update={"utterances": (TRANSCRIPT.utterances[0], other, *TRANSCRIPT.utterances[2:])})
    lines = (TRANSLATION.lines[0], TranslatedLine(id=other.id, text="Today we learn Angie."), *TRANSLATION.lines[2:])
    revision = edited(said, transcript=transcript, translation=TRANSLATION.model_copy(update={"lines": lines}))
    outcome = revision.outcomes[0]
    assert (outcome.became, outcome.was, outcome.now) == ("applied to a changed line", "Сегодня мы учим NGINX.", "Сегодня мы учим Angie.")
    assert line_of(revision, other.id).text == "Now NGINX."
    assert line_of(revision, other.id).flags == ("edit: the source line under it has changed, it was “Сегодня мы учим NGINX.”",)


def test_an_edit_without_its_line_changes_nothing() -> None:
    said = edit(TWO, text="Now NGINX.")
    transcript = TRANSCRIPT.model_copy(update={"utterances": (TRANSCRIPT.utterances[0],)})
    translation = TRANSLATION.model_copy(update={"lines": TRANSLATION.lines[:1]})
    revision = edited(said, transcript=transcript, translation=translation)
    assert revision.outcomes[0].became == "without a place"
    assert TWO in revision.outcomes[0].reason
    assert (revision.transcript, revision.translation) == (transcript, translation)


def test_merged_lines_are_one_line_in_both_languages() -> None:
    revision = edited(edit(TWO, merge=1))
    source, line = revision.transcript.utterances[1], revision.translation.lines[1]
    assert source.text == "Сегодня мы учим NGINX. Это сервер."
    assert (source.start, source.end) == (3, TRANSCRIPT.utterances[2].end)
    assert source.id == line.id == Utterance.id_of(source.text, 3)
    assert (line.text, line.edited) == ("Today we learn NGINX. NGINX is a server.", True)
    assert line_of(revision, FOUR).said_with == line.id


def test_a_split_cuts_the_source_at_the_pause() -> None:
    words = ("раз", 0.0, 0.4), ("два", 0.5, 0.9), ("три", 2.5, 2.9), ("шесть", 3.0, 3.4)
    text = "раз два три шесть"
    line = Utterance(
        id=Utterance.id_of(text, 0.0),
        text=text,
        start=0.0,
        end=3.4,
        confidence=1,
        words=tuple(Word(text=word, start=start, end=end, confidence=1) for word, start, end in words),
    )
    transcript = Transcript(language="ru", utterances=(line,), engine="")
    translation = Translation(language="en", lines=(TranslatedLine(id=line.id, text="one two three six"),), engine="")
    revision = revised(
        transcript, translation, Edits(lesson="", language="en").with_(edit(line.id, transcript, split=("one two", "three six")))
    )
    assert [(part.text, part.start, part.end) for part in revision.transcript.utterances] == [
        ("раз два", 0.0, 0.9),
        ("три шесть", 2.5, 3.4),
    ]
    assert [part.text for part in revision.translation.lines] == ["one two", "three six"]
    assert all(part.edited for part in revision.translation.lines)


def test_a_line_said_with_a_split_one_is_said_with_its_nearest_part() -> None:
    revision = edited(edit(THREE, split=("NGINX", "is a server.")))
    assert line_of(revision, FOUR).said_with == revision.translation.lines[3].id


def test_a_split_of_one_word_has_no_place() -> None:
    unchecked = Edit(line=THREE, source_text="Это сервер.", split=("a", "b", "c"), made=NOW).with_id()
    revision = edited(unchecked)
    assert revision.outcomes[0].became == "without a place"
    assert revision.translation == TRANSLATION


def test_pronunciations_for_the_lesson_are_kept_with_the_lines_that_have_the_word() -> None:
    revision = edited(edit("", say={"nginx": "engine X", "Apache": "a patchy"}))
    assert [line.say for line in revision.translation.lines] == [{}, {"nginx": "engine X"}, {"nginx": "engine X"}, {}]
    assert revision.translation.lines[0] is TRANSLATION.lines[0]


def test_a_lines_own_pronunciation_comes_first_and_an_empty_one_takes_it_away() -> None:
    everywhere, here = edit("", say={"NGINX": "engine X"}), edit(TWO, say={"nginx": "en jinx"})
    assert line_of(edited(everywhere, here), TWO).say == line_of(edited(here, everywhere), TWO).say == {"nginx": "en jinx"}
    assert line_of(edited(everywhere, edit(TWO, say={"NGINX": ""})), TWO).say == {}
    assert edited(everywhere, edit("", say={"nginx": ""})).translation == TRANSLATION


def test_undone_edits_are_kept_apart() -> None:
    first, second = edit(ONE, text="One."), edit(TWO, text="Two.")
    edits = Edits(lesson="ab", language="en").with_(first, second)
    assert edits.with_(first) == edits
    assert edits.without_last().edits == (first,)
    assert edits.without(line=ONE) == edits.without(edit=first.id) == Edits(lesson="ab", language="en", edits=(second,), undone=(first,))
    assert edits.without_all().undone == (first, second)
    assert edits.without(line=ONE).with_(first).undone == ()
    with pytest.raises(BadInput, match="no such edit"):
        edits.without(edit="zz")
    with pytest.raises(BadInput, match="no edit to undo"):
        edits.without_all().without_last()


@pytest.mark.parametrize(
    ("text", "say", "language", "spoken"),
    [
        ("The cat and the Category.", {"cat": "kat"}, "en", "The kat and the Category."),
        ("New York, york", {"York": "jork", "New York": "nju jork"}, "en", "nju jork, jork"),
        ("C++ (x.y) a.y", {"C++": "see plus", "x.y": "x dot y"}, "en", "see plus (x dot y) a.y"),
        ("हिन्दी हिन्", {"हिन्": "X"}, "hi", "हिन्दी X"),
        ("東京都の東京", {"東京": "とうきょう"}, "ja", "とうきょう都のとうきょう"),
        ("a \\1 b", {"b": "\\g<0>"}, "en", "a \\1 \\g<0>"),
        ("a b", {"a": "b", "b": "a"}, "en", "b a"),
        ("xa-a-a", {"a-a": "!"}, "en", "xa-!"),
        ("none", {"": "x", "none": ""}, "en", "none"),
    ],
)
def test_words_are_respelt(text: str, say: dict[str, str], language: str, spoken: str) -> None:
    assert spoken_text(text, say, language) == spoken


@pytest.mark.parametrize(
    ("line", "changes", "message"),
    [
        (ONE, {}, "changes nothing"),
        (ONE, {"say": {}}, "changes nothing"),
        (ONE, {"text": "x" * (LONGEST_TEXT + 1)}, f"has {LONGEST_TEXT + 1} characters, the limit is {LONGEST_TEXT}"),
        (ONE, {"new_source_text": " \x00"}, "source text is empty"),
        (ONE, {"merge": 4}, "3 lines follow it"),
        (FOUR, {"merge": 1}, "it is the last line"),
        (ONE, {"merge": 0}, "joined with the 0 following"),
        (ONE, {"split": ("x",)}, "in 1 parts"),
        (ONE, {"split": ("x",) * (MOST_PARTS + 1)}, f"2 to {MOST_PARTS}"),
        (ONE, {"split": ("x", "\u200b")}, "part 2 of the split is empty"),
        (ONE, {"split": ("x", "y", "z", "t")}, "its source has 3 words"),
        (ONE, {"split": ("x", "y"), "text": "x"}, "split it alone"),
        (ONE, {"silent": True, "text": "x"}, "silent"),
        (ONE, {"say": {" ": "x"}}, "a word to pronounce is empty"),
        (ONE, {"say": {"x": "y" * 101}}, "the pronunciation of x has 101 characters"),
        (ONE, {"say": {str(n): "x" for n in range(201)}}, "201 pronunciations"),
        (ONE, {"voice": "x" * 101}, "the voice has 101"),
        ("", {"text": "x"}, "only pronunciations"),
    ],
)
def test_an_edit_that_cannot_be_made_is_refused_in_a_line_that_names_it(line: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSetting, match=re.escape(message)) as refusal:
        edit(line, **changes)
    assert (line or "the whole lesson") in str(refusal.value)


def test_an_unknown_line_is_refused_with_the_nearest_ones() -> None:
    with pytest.raises(BadInput, match=f"line {ONE[:-1]}x: there is no such line; the nearest are {ONE}"):
        edit(ONE[:-1] + "x", text="x")
    with pytest.raises(BadInput, match=re.escape("ids are in timeline.json")):
        edit("§§§", text="x")


def test_texts_are_cleaned_and_stay_texts() -> None:
    assert edit(ONE, text="a\x00\u202e<b>\n{\\an8}").text == "a<b> {\\an8}"


# Any edits of any lesson

LANGUAGES = st.sampled_from(["ru", "ja"])
WORDS = st.text(st.sampled_from("abcабв.,!<{&"), min_size=1, max_size=6)


@st.composite
def lessons(draw: st.DrawFn) -> tuple[Transcript, Translation]:
    language = draw(LANGUAGES)
    joint = "" if base_language(language) in UNSPACED else " "
    utterances: list[Utterance] = []
    time = 0.0
    for _ in range(draw(st.integers(1, 6))):
        words = []
        time = round(time + draw(st.sampled_from([0.0, 0.3, 2.0])), 3)
        for text in draw(st.lists(WORDS, min_size=1, max_size=6)):
            end = round(time + draw(st.sampled_from([0.1, 0.5, 1.0])), 3)
            words.append(Word(text=text, start=time, end=end, confidence=draw(st.sampled_from([0.2, 1.0]))))
            time = round(end + draw(st.sampled_from([0.0, 0.0, 0.4])), 3)
        text = joint.join(word.text for word in words)
        start = words[0].start
        utterances.append(
            Utterance(id=Utterance.id_of(text, start), text=text, start=start, end=words[-1].end, confidence=0.5, words=tuple(words))
        )
        time = words[-1].end
    texts = [draw(st.sampled_from(["", "Hello.", "NGINX is a server", "a b c d"])) for _ in utterances]
    spoken = [line.id for line, text in zip(utterances, texts, strict=True) if text]
    lines = tuple(
        TranslatedLine(id=line.id, text=text, said_with=None if text or not spoken else draw(st.sampled_from([None, *spoken])))
        for line, text in zip(utterances, texts, strict=True)
    )
    return Transcript(language=language, utterances=tuple(utterances), engine=""), Translation(language="en", lines=lines, engine="")


def any_edit(draw: st.DrawFn, transcript: Transcript) -> Edit | None:
    line = draw(st.sampled_from([utterance.id for utterance in transcript.utterances]))
    changes = draw(
        st.sampled_from(
            [
                {"text": "New words."},
                {"text": ""},
                {"new_source_text": "совсем другие слова"},
                {"voice": "am_adam"},
                {"silent": True},
                {"silent": False},
                {"say": {"NGINX": "engine X"}},
                {"merge": 1},
                {"merge": 2},
                {"split": ("one", "two")},
                {"split": ("one two three", "four", "five")},
            ]
        )
    )
    try:
        return new_edit(transcript, line, NOW + str(draw(st.integers(0, 10**6))), **changes)
    except CoursedubError:
        return None


@st.composite
def edited_lessons(draw: st.DrawFn) -> tuple[Transcript, Translation, Edits]:
    """Edits as they are made: each on the lesson as the earlier ones left it."""
    transcript, translation = draw(lessons())
    edits = Edits(lesson="ab", language="en")
    for _ in range(draw(st.integers(0, 6))):
        if new := any_edit(draw, revised(transcript, translation, edits).transcript):
            edits = edits.with_(new)
    return transcript, translation, edits


def words_in(transcript: Transcript) -> list[Word]:
    return [word for line in transcript.utterances for word in line.words]


@given(edited_lessons())
@settings(max_examples=150, deadline=None)
def test_edits_leave_a_sound_lesson(lesson: tuple[Transcript, Translation, Edits]) -> None:
    transcript, translation, edits = lesson
    revision = revised(transcript, translation, edits)
    assert len(revision.outcomes) == len(edits.edits)
    lines = revision.transcript.utterances
    assert [line.id for line in lines] == [line.id for line in revision.translation.lines]
    assert len({line.id for line in lines}) == len(lines)
    assert all(line.start <= line.end for line in lines)
    assert all(before.end <= after.start for before, after in itertools.pairwise(lines))
    spoken = {line.id for line in revision.translation.lines if line.text}
    assert all(line.said_with is None or (line.said_with in spoken and not line.text) for line in revision.translation.lines)
    if not any(one.new_source_text for one in edits.edits):
        assert words_in(revision.transcript) == words_in(transcript)
    touched = {line for outcome in revision.outcomes for line in outcome.lines}
    unspoken = {line.said_with for line in translation.lines if line.said_with} - spoken
    before = {line.id: line for line in translation.lines}
    for line in revision.translation.lines:
        if line.id not in touched and before[line.id].said_with not in unspoken:
            assert line == before[line.id] or before[line.id].said_with != line.said_with
    undone = edits.without_all()
    assert revised(transcript, translation, undone).transcript is transcript
    assert revised(transcript, translation, undone).translation is translation


@given(lessons())
def test_no_edits_change_nothing(lesson: tuple[Transcript, Translation]) -> None:
    revision = revised(*lesson, Edits(lesson="ab", language="en"))
    assert (revision.transcript, revision.translation, revision.to_translate) == (*lesson, ())


# The lesson's folder

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


@given(st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=60)), min_size=1, max_size=6), st.booleans(), st.booleans(), LANGUAGES)
@settings(max_examples=120, deadline=None)
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
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
@settings(max_examples=80, deadline=None)
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
@settings(max_examples=100, deadline=None)
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


def test_a_check_gives_the_same_edit_again() -> None:
    one = edit(ONE, text="x")
    assert check_edit(one, TRANSCRIPT) == one
