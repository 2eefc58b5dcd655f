"""Who says which word."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dubbing.diarisation import Turn, with_speakers
from dubbing.lesson import Word


def word(start: float, end: float, text: str = "word") -> Word:
    return Word(text=text, start=start, end=end, confidence=0.9)


def speakers(words: list[Word], *turns: tuple[float, float, str]) -> list[str | None]:
    return [one.speaker for one in with_speakers(words, [Turn(*turn) for turn in turns])]


def evenly(count: int, pace: float = 0.5, start: float = 0.0) -> list[Word]:
    return [word(start + n * pace, start + n * pace + 0.8 * pace) for n in range(count)]


def test_a_word_is_his_in_whose_turn_it_lies() -> None:
    assert speakers(evenly(4), (0, 1, "B"), (1, 2, "A")) == ["speaker 1", "speaker 1", "speaker 2", "speaker 2"]


def test_speakers_are_named_in_the_order_in_which_they_are_heard() -> None:
    assert speakers(evenly(4), (1, 2, "SPEAKER_00"), (0, 1, "SPEAKER_07")) == ["speaker 1", "speaker 1", "speaker 2", "speaker 2"]


def test_one_speaker_says_everything() -> None:
    assert set(speakers([*evenly(5), *evenly(3, start=20)], (0, 2.5, "A"))) == {"speaker 1"}


def test_without_turns_nobody_is_named() -> None:
    assert speakers(evenly(3)) == [None] * 3
    assert speakers(evenly(3), (1.0, 1.0, "A")) == [None] * 3
    assert with_speakers([], [Turn(0, 1, "A")]) == []


def test_a_word_between_two_turns_goes_to_the_nearer() -> None:
    words = [word(0, 1), word(1.1, 1.3), word(4.7, 4.9), word(5, 6)]
    assert speakers(words, (0, 1, "A"), (5, 6, "B")) == ["speaker 1", "speaker 1", "speaker 2", "speaker 2"]


def test_a_word_on_the_border_is_his_who_speaks_most_of_it() -> None:
    words = [word(0, 1), word(0.9, 1.5), word(2, 3)]
    assert speakers(words, (0, 1.0, "A"), (1.0, 3, "B")) == ["speaker 1", "speaker 2", "speaker 2"]


def test_where_two_speak_at_once_the_one_who_was_speaking_goes_on() -> None:
    words = evenly(6)
    assert speakers(words, (0, 3, "A"), (1, 2, "B")) == ["speaker 1"] * 6
    assert speakers(words, (0, 2, "A"), (1, 3, "B")) == ["speaker 1"] * 4 + ["speaker 2"] * 2


def test_a_word_in_the_middle_of_anothers_sentence_is_no_turn() -> None:
    assert speakers(evenly(5), (0, 1, "A"), (1, 1.5, "B"), (1.5, 3, "A")) == ["speaker 1"] * 5


def test_a_short_answer_after_a_pause_is_one() -> None:
    words = [word(0, 1), word(2, 2.3, "Да."), word(3.2, 4)]
    assert speakers(words, (0, 1, "A"), (2, 2.4, "B"), (3.1, 4, "A")) == ["speaker 1", "speaker 2", "speaker 1"]


def test_words_of_no_length_have_speakers_too() -> None:
    assert speakers([word(0.5, 0.5), word(1.5, 1.5)], (0, 1, "A"), (1, 2, "B")) == ["speaker 1", "speaker 2"]


spans = st.tuples(st.floats(0, 100), st.floats(0, 10)).map(lambda span: (span[0], span[0] + span[1]))


@given(st.lists(spans, max_size=30), st.lists(st.tuples(spans, st.sampled_from("ABC")), min_size=1, max_size=15))
def test_every_word_keeps_all_but_its_speaker_and_has_one_who_was_heard(
    words: list[tuple[float, float]], turns: list[tuple[tuple[float, float], str]]
) -> None:
    given_words = [word(*span, text=str(n)) for n, span in enumerate(words)]
    heard = [Turn(*span, speaker) for span, speaker in turns]
    found = with_speakers(given_words, heard)
    assert sorted((one.text, one.start, one.end) for one in found) == sorted((one.text, one.start, one.end) for one in given_words)
    assert [one.start for one in found] == sorted(one.start for one in found)
    if any(turn.end > turn.start for turn in heard):
        count = len({turn.speaker for turn in heard})
        assert {one.speaker for one in found} <= {f"speaker {n + 1}" for n in range(count)}
        assert found == [] or found[0].speaker == "speaker 1"


@given(st.lists(spans, max_size=20), st.lists(st.tuples(spans, st.sampled_from("AB")), max_size=10), st.randoms())
def test_the_order_of_words_and_turns_makes_no_difference(words: list, turns: list, random: object) -> None:
    given_words = [word(*span, text=str(n)) for n, span in enumerate(dict.fromkeys(words))]
    heard = [Turn(*span, speaker) for span, speaker in turns]
    found = with_speakers(given_words, heard)
    random.shuffle(given_words)  # type: ignore[attr-defined]
    random.shuffle(heard)  # type: ignore[attr-defined]
    assert with_speakers(given_words, heard) == found
