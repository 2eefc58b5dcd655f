"""A reviewer's edits: applied in order, found again after the lesson has changed, and read from the files of the lesson's folder."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dubbing.edits import (
    LONGEST_TEXT,
    MOST_PARTS,
    Edit,
    Edits,
    Revision,
    check_edit,
    new_edit,
    revised,
    spoken_text,
)
from dubbing.errors import BadInput, BadSetting, CoursedubError
from dubbing.languages import UNSPACED, base_language
from dubbing.lesson import Transcript, TranslatedLine, Translation, Utterance, Word

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


def test_a_check_gives_the_same_edit_again() -> None:
    one = edit(ONE, text="x")
    assert check_edit(one, TRANSCRIPT) == one


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
@settings(max_examples=150)
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
