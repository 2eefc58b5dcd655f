"""From words to lines that can be translated and spoken alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dubbing.lesson import Utterance, Word
from dubbing.segmentation import LONG_PAUSE, LONGEST_LINE, utterances_from


def said(text: str, *, start: float = 0.0, pace: float = 0.4, gap: float = 0.05) -> list[Word]:
    """Words at an even pace. "|" is a pause of a second, "||" of two; from "<Anna>" on it is Anna who speaks, from "<>" on nobody knows."""
    words, at, speaker = [], start, None
    for token in text.split():
        if set(token) == {"|"}:
            at += len(token)
            continue
        if token[0] == "<":
            speaker = token[1:-1] or None
            continue
        words.append(Word(text=token, start=at, end=at + pace - gap, confidence=0.9, speaker=speaker))
        at += pace
    return words


def texts(words: list[Word], language: str = "en") -> list[str]:
    return [line.text for line in utterances_from(words, language)]


tokens = st.sampled_from(
    ["rainbow", "light", "drop", "e.g.", "Dr.", "3.", "5", "end.", "why?", "well,", "—", '"quoted."', " spaced ", "", "…", "и", "水", "。"]
)
speakers = st.none() | st.sampled_from(["Anna", "Boris"])
times = st.floats(-1.0, 2.0) | st.just(0.0) | st.floats(5.0, 30.0)


@st.composite
def recognised(draw: st.DrawFn) -> list[Word]:
    """Words as recognisers give them: of no length, overlapping, going backwards, empty."""
    words, at = [], draw(st.floats(0.0, 5.0))
    for text, step, length, speaker in draw(st.lists(st.tuples(tokens, times, times, speakers), max_size=40)):
        at = max(0.0, at + step)
        words.append(Word(text=text, start=at, end=at + length, confidence=0.5, speaker=speaker))
    return words


@given(recognised(), st.sampled_from(["en", "ru", "zh", "th"]))
@example([Word(text="Ja.", start=0, end=0, confidence=1), Word(text="Ja.", start=0, end=13, confidence=1)], "de")
def test_every_word_is_in_exactly_one_line_in_order(words: list[Word], language: str) -> None:
    lines = utterances_from(words, language)
    kept = [word.text for word in words if word.text.strip()]
    assert [word.text for line in lines for word in line.words] == kept
    joint = "" if language in ("zh", "th") else " "
    assert [line.text for line in lines] == [joint.join(word.text.strip() for word in line.words) for line in lines]


@given(recognised())
@example([Word(text="Ja.", start=0, end=0, confidence=1), Word(text="Ja.", start=0, end=13, confidence=1)])
def test_lines_do_not_overlap_and_each_has_its_own_id(words: list[Word]) -> None:
    lines = utterances_from(words, "en")
    for before, after in pairwise(lines):
        assert before.end <= after.start
    for line in lines:
        assert line.start == line.words[0].start <= line.words[-1].end == line.end
        assert 0.0 <= line.confidence <= 1.0
    assert len({line.id for line in lines}) == len(lines)


@given(st.lists(st.tuples(tokens, st.floats(0.0, 1.0), st.floats(0.1, 0.8)), min_size=1, max_size=120))
def test_no_line_of_ordinary_words_is_longer_than_a_sentence_may_be(steps: list[tuple[str, float, float]]) -> None:
    words, at = [], 0.0
    for text, pause, length in steps:
        words.append(Word(text=text, start=at + pause, end=at + pause + length, confidence=1.0))
        at += pause + length
    assert all(line.end - line.start <= LONGEST_LINE or len(line.words) < 4 for line in utterances_from(words, "en"))


def test_no_words_are_no_lines() -> None:
    assert utterances_from([], "en") == ()
    assert utterances_from([Word(text="  ", start=0, end=1, confidence=1)], "en") == ()


def test_lines_end_where_sentences_end() -> None:
    words = said("Light is white. Or is it red? It is many colours! That is all there is.")
    assert texts(words) == ["Light is white.", "Or is it red?", "It is many colours!", "That is all there is."]


def test_a_closing_quotation_mark_does_not_hide_the_sentence_end() -> None:
    assert texts(said('He said: "Light is white." Then he left us.')) == ['He said: "Light is white."', "Then he left us."]


@pytest.mark.parametrize(
    "sentence",
    [
        "We asked Dr. Smith about the colours.",
        "It was J. R. Miller who saw it.",
        "They met Prof. Lee and Mrs. Jones there.",
        "See the plot in Fig. 5 of the book.",
        "A prism, e.g. of glass, bends the light.",
        "Это сказал А. С. Пушкин в поэме.",
        "Она сделала это т. е. вчера вечером.",
        "Об этом писал проф. Иванов в книге.",
        "It took 3.5 seconds to get there.",
        "Well… it might be red after all.",
    ],
)
def test_a_full_stop_inside_a_sentence_ends_nothing(sentence: str) -> None:
    words = said(sentence + " And then the next one came.")
    assert texts(words) == [sentence, "And then the next one came."]


def test_a_decimal_point_between_two_words_ends_nothing() -> None:
    words = said("It took 3. 5 seconds to get there.", gap=0.0)
    assert texts(words) == ["It took 3. 5 seconds to get there."]


@pytest.mark.parametrize("ending", ["No.", "We chose plan B. |", "That was in 1995.", "Я сказал им."])
def test_a_sentence_may_end_like_an_abbreviation(ending: str) -> None:
    opening = f"This is what they all asked for. {ending}".split(". ", 1)
    words = said(f"{opening[0]}. {opening[1]} So we went home again that night.", pace=0.6)
    assert texts(words)[-1] == "So we went home again that night."


def test_a_long_silence_ends_a_line_without_any_full_stop() -> None:
    assert texts(said("the light goes into the drop || and comes out again as colours")) == [
        "the light goes into the drop",
        "and comes out again as colours",
    ]
    assert LONG_PAUSE < 2.0


def test_a_breath_does_not_end_a_line() -> None:
    assert len(texts(said("the light goes into the drop | and comes out again as colours"))) == 1


def test_a_long_sentence_is_split_at_its_clauses() -> None:
    clauses = [
        "When the light of the sun goes into a drop of water,",
        "it changes its direction a little at the surface,",
        "and because every colour turns by another angle,",
        "the white ray becomes a band of many colours.",
    ]
    lines = texts(said(" ".join(clauses), pace=0.5))
    assert len(lines) > 1
    assert " ".join(lines) == " ".join(clauses)
    assert all(line[-1] in ",." for line in lines)


def test_a_long_sentence_without_any_clause_is_split_at_its_pauses() -> None:
    words = said("one two three four five six seven eight nine ten | eleven twelve thirteen fourteen fifteen sixteen", pace=0.9)
    assert texts(words)[0].endswith("ten")


def test_a_short_line_joins_its_neighbour() -> None:
    assert texts(said("Yes. The light is white in the morning. So?")) == ["Yes. The light is white in the morning. So?"]


def test_a_short_line_far_from_any_other_stays_alone() -> None:
    assert texts(said("Yes. | The light is white in the morning. | So?")) == ["Yes.", "The light is white in the morning.", "So?"]


def test_a_title_is_not_joined_to_the_sentence_before() -> None:
    lines = texts(said("We met in the morning of that day. Dr. Smith said so himself."))
    assert lines == ["We met in the morning of that day.", "Dr. Smith said so himself."]


def test_languages_without_spaces_are_written_without_spaces() -> None:
    words = [Word(text=c, start=0.3 * n, end=0.3 * n + 0.3, confidence=1.0) for n, c in enumerate("光进入水滴。然后变成彩虹。")]
    assert texts(words, "zh") == ["光进入水滴。", "然后变成彩虹。"]
    assert texts(words, "zh-TW") == texts(words, "zh")


def test_words_of_no_length_and_words_that_run_backwards_stay_in_the_order_they_were_said() -> None:
    words = [
        Word(text="Light", start=1.0, end=1.6, confidence=1.0),
        Word(text="is", start=1.5, end=1.4, confidence=1.0),
        Word(text="white.", start=1.2, end=1.2, confidence=1.0),
    ]
    [line] = utterances_from(words, "en")
    assert line.text == "Light is white."
    assert [(word.start, word.end) for word in line.words] == [(1.0, 1.6), (1.6, 1.6), (1.6, 1.6)]


@given(recognised())
def test_a_line_with_a_place_of_its_own_is_one_speaker_s(words: list[Word]) -> None:
    for line in utterances_from(words, "en"):
        assert {word.speaker for word in line.words if word.end > word.start} <= {line.speaker, None}


def test_a_change_of_speaker_ends_a_line_wherever_it_comes() -> None:
    lines = utterances_from(said("<Anna> and what colour is light <Boris> it is white <Anna> Really?"), "en")
    assert [(line.speaker, line.text) for line in lines] == [
        ("Anna", "and what colour is light"),
        ("Boris", "it is white"),
        ("Anna", "Really?"),
    ]


def test_a_word_whose_speaker_nobody_knows_goes_with_those_before_it() -> None:
    lines = utterances_from(said("<Anna> what colour <> is light <Boris> it is <> white"), "en")
    assert [(line.speaker, line.text) for line in lines] == [("Anna", "what colour is light"), ("Boris", "it is white")]


def test_without_speakers_lines_have_none() -> None:
    assert [line.speaker for line in utterances_from(said("Light is white."), "en")] == [None]


def test_an_id_depends_on_the_words_and_their_place_and_on_nothing_else() -> None:
    words = said("Light is white today.", start=2.0)
    [line] = utterances_from(words, "en")
    [same] = utterances_from([word.model_copy(update={"confidence": 0.1}) for word in words], "en")
    [later] = utterances_from(said("Light is white today.", start=2.1), "en")
    [other] = utterances_from(said("Light is bright today.", start=2.0), "en")
    assert line.id == same.id == Utterance.id_of("Light is white today.", 2.0)
    assert len({line.id, later.id, other.id}) == 3


def test_an_edit_elsewhere_leaves_an_id_as_it_is() -> None:
    first, second = utterances_from(said("Light is white today. Drops are round and small."), "en")
    _, again = utterances_from(said("Light was white today. Drops are round and small."), "en")
    assert second.id == again.id
    assert first.id != again.id
