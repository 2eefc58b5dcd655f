"""Translation as text work: what is asked, what is understood of the answer, what Whisper's words belong to."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubbing.lesson import Term, Utterance, Word
from dubbing.placement import FREE_RATE, GAP, LEAST_KEPT
from dubbing.translating import (
    CONTEXT_LINES,
    WINDOW_CHARACTERS,
    WINDOW_LINES,
    answer_schema,
    budgets,
    longest_by,
    parse_answer,
    prompt,
    shared_out,
    windows,
)


def line(text: str, start: float = 0.0, end: float = 2.0) -> Utterance:
    return Utterance(id=Utterance.id_of(text, start), text=text, start=start, end=end, confidence=1.0)


def lines(*texts: str) -> list[Utterance]:
    return [line(text, 3.0 * n, 3.0 * n + 2.5) for n, text in enumerate(texts)]


# Windows


@given(st.lists(st.integers(1, 1200), max_size=40))
def test_each_line_is_in_exactly_one_window_in_order(lengths: list[int]) -> None:
    utterances = lines(*("x" * length for length in lengths))
    cut = windows(utterances)
    assert [utterance for window in cut for utterance in window.lines] == utterances
    for window in cut:
        assert 1 <= len(window.lines) <= WINDOW_LINES
        assert len(window.lines) == 1 or sum(len(line.text) for line in window.lines) <= WINDOW_CHARACTERS


def test_a_window_knows_its_neighbours() -> None:
    utterances = lines(*(f"line {n}" for n in range(3 * WINDOW_LINES)))
    first, second, third = windows(utterances)
    assert first.before == () and third.after == ()
    assert second.before == tuple(u.text for u in utterances[WINDOW_LINES - CONTEXT_LINES : WINDOW_LINES])
    assert second.after == tuple(u.text for u in utterances[2 * WINDOW_LINES : 2 * WINDOW_LINES + CONTEXT_LINES])


def test_a_window_ends_with_a_sentence_where_one_ends_in_it() -> None:
    texts = [f"часть {n}," for n in range(3 * WINDOW_LINES)]
    texts[WINDOW_LINES - 3] = "конец."
    first, second, *_ = windows(lines(*texts))
    assert len(first.lines) == WINDOW_LINES - 2
    assert len(second.lines) == WINDOW_LINES  # of a sentence without end no more is asked for at once


# Time


def test_a_line_has_the_time_until_the_next_one_at_a_rate_that_nobody_hears() -> None:
    said = [line("x" * 60, 0.0, 2.0), line("x" * 60, 4.0, 6.0)]
    limits = budgets(said, 10.0, 6.0, "en")
    assert limits[said[0].id] == round((4.0 - GAP) * FREE_RATE * 10)
    assert limits[said[1].id] == round(LEAST_KEPT * 60)  # 2 s would be 22 characters: nobody can say that much in so few


def test_a_line_with_time_enough_has_no_budget() -> None:
    said = [line("x" * 20, 0.0, 2.0), line("x" * 20, 20.0, 22.0)]
    assert budgets(said, 10.0, 60.0, "en") == {}


def test_scripts_of_syllables_have_budgets_in_their_own_characters() -> None:
    said = [line("Солнечный свет кажется белым.", 0.0, 1.0)]
    [limit] = budgets(said, 5.0, 1.0, "zh").values()
    assert limit == round(LEAST_KEPT * len(said[0].text) / 3)


@given(
    st.lists(st.tuples(st.integers(1, 200), st.floats(0.1, 20), st.floats(0, 20)), max_size=20),
    st.floats(1, 30),
    st.sampled_from(["en", "ja"]),
)
def test_every_budget_is_of_a_line_and_can_be_kept(shapes: list[tuple[int, float, float]], pace: float, target: str) -> None:
    said, at = [], 0.0
    for n, (length, duration, pause) in enumerate(shapes):
        said.append(line("x" * length + str(n), at, at + duration))
        at += duration + pause
    limits = budgets(said, pace, at, target)
    assert limits.keys() <= {utterance.id for utterance in said}
    assert all(limit >= 1 for limit in limits.values())


# Requests


def test_a_request_is_the_lines_alone_numbered_from_one() -> None:
    [window] = windows(lines("Красный свет.", "Синий «свет»."))
    asked = prompt(window, [1, 2], "ru", "en")
    assert json.loads(asked.request) == {"1": "Красный свет.", "2": "Синий «свет»."}
    assert "from Russian into English" in asked.instructions
    assert "Context" not in asked.instructions


def test_a_prompt_for_some_lines_shows_the_passage_and_what_was_wrong_with_those_lines_only() -> None:
    [window] = windows(lines("Красный свет.", "Синий свет.", "Белый свет."))
    window = window._replace(budgets={2: 12, 1: 5}, strict=True)
    asked = prompt(window, [2], "ru", "en", {2: "it is missing", 3: "it is too long"})
    assert json.loads(asked.request) == {"2": "Синий свет."}
    assert "Красный свет." in asked.instructions
    assert "line 2: it is missing" in asked.instructions and "it is too long" not in asked.instructions
    assert "line 2 in at most 12 characters" in asked.instructions and "line 1" not in asked.instructions


def test_time_terms_and_what_the_lesson_is_about_are_told() -> None:
    [window] = windows(lines("Красный свет.", "Через призму."))
    terms = (Term(source="призма", translation="prism", note="of glass"), Term(source="луч", translation="ray"))
    told = prompt(window._replace(budgets={2: 20}, terms=terms, summary="On light."), [1, 2], "ru", "en").instructions
    assert "призма = prism (of glass)" in told and "ray" not in told
    assert "There is little time: line 2 in at most 20 characters" in told and "On light." in told
    assert "призма" not in prompt(window._replace(terms=terms), [1], "ru", "en").instructions  # not in line 1


def test_three_wordings_are_asked_for_and_understood() -> None:
    [window] = windows(lines("Красный свет."))
    schema = answer_schema(window, [1], variants=True)
    assert schema["properties"]["1"]["required"] == ["short", "normal", "long"]
    assert "short" in prompt(window, [1], "ru", "en", variants=True).instructions
    answer = {"1": {"short": "Red.", "normal": "Red light.", "long": "The red light."}}
    assert parse_answer(json.dumps(answer), [1]) == {1: ("Red.", "Red light.", "The red light.")}
    assert longest_by(schema) > 3 * longest_by(answer_schema(window, [1])["properties"]["1"])


def test_neighbours_are_shown_and_not_asked_for() -> None:
    _, window = windows(lines(*(f"строка {n}" for n in range(WINDOW_LINES + 2))))
    asked = prompt(window, [1, 2], "ru", "en")
    assert f"not to be translated): строка {WINDOW_LINES - 2} строка {WINDOW_LINES - 1}" in asked.instructions
    assert list(json.loads(asked.request)) == ["1", "2"]


def test_the_schema_wants_every_line_none_endless_and_nothing_else() -> None:
    [window] = windows(lines("Да.", "Красный свет поворачивает меньше, а фиолетовый больше."))
    schema = answer_schema(window, [1, 2])
    assert list(schema["properties"]) == schema["required"] == ["1", "2"]
    assert schema["additionalProperties"] is False
    short, long = (schema["properties"][n]["maxLength"] for n in ("1", "2"))
    assert 3 < short < long < 200


# Answers


@pytest.mark.parametrize(
    ("answer", "understood"),
    [
        ('{"1": "Red light.", "2": "Blue light."}', {1: "Red light.", 2: "Blue light."}),
        ('{"1": "Red light.", "2": "Blue light.", "3": "More.", "note": "!"}', {1: "Red light.", 2: "Blue light."}),
        ('```json\n{"1": "Red light.", "2": "Blue light."}\n```', {1: "Red light.", 2: "Blue light."}),
        ('Here you are: {"1": "Red light."} I hope it helps.', {1: "Red light."}),
        ('{"1": "  Red\\n light.\\t"}', {1: "Red light."}),
        ('{"1": "A {brace} and a } too."}', {1: "A {brace} and a } too."}),
        ('{"1": "a", "1": "b"}', {1: "b"}),
        ('{"1": "Red\\u0000 \\u001b[31mlight."}', {1: "Red [31mlight."}),
        ('{"1": "Light \\ud83d"}', {1: "Light "}),
        ('{"1": "Light \\ud83d\\ude00"}', {1: "Light 😀"}),
        ('{"1": ["Red light."], "2": {"text": "Blue light."}}', {}),
        ('{"1": null, "2": 7}', {}),
        ('{"line 1": "Red light."}', {}),
        ('["Red light.", "Blue light."]', {}),
        ('[{"1": "Red light."}]', {1: "Red light."}),
        ('{"1": "Red light.", "2": "Blue li', {1: "Red light."}),
        ('{"1": "Red \\"light\\".", "2', {1: 'Red "light".'}),
        ('{"1": "Red light."} {"2": "Blue light."}', {1: "Red light.", 2: "Blue light."}),
        ("1. Red light.\n2. Blue light.", {}),
        ('"{}"', {}),
        ("}{", {}),
        ("", {}),
        ("null", {}),
        ('{"a":' * 50_000 + "}", {}),
        ('{"1": ' + "9" * 10_000 + "}", {}),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_of_an_answer_what_is_there_is_taken_and_the_rest_is_missing(answer: str, understood: dict[int, str]) -> None:
    assert parse_answer(answer, [1, 2]) == {n: (text,) for n, text in understood.items()}


@given(st.text(alphabet='{}[]",:12\\u0 nab\n') | st.text())
def test_no_answer_is_too_hostile(answer: str) -> None:
    for texts in parse_answer(answer, [1, 2]).values():
        for text in texts:
            text.encode()
            assert "\n" not in text


# Sharing out


def spoken(text: str, start: float, end: float) -> list[Word]:
    tokens = text.split()
    step = (end - start) / len(tokens)
    return [Word(text=token, start=start + n * step, end=start + (n + 1) * step, confidence=1.0) for n, token in enumerate(tokens)]


def test_sentences_go_to_the_lines_at_whose_time_they_were_heard() -> None:
    said = lines("Белый свет.", "Красный свет.", "Синий свет.")
    words = spoken("White light.", 0.1, 2.4) + spoken("Red light.", 3.1, 5.4) + spoken("Blue light.", 6.1, 8.4)
    assert [shared.text for shared in shared_out(words, said)] == ["White light.", "Red light.", "Blue light."]
    assert [shared.id for shared in shared_out(words, said)] == [utterance.id for utterance in said]


def test_a_line_without_words_is_said_with_the_one_before_it() -> None:
    said = lines("Белый свет", "и красный свет.", "Синий свет.")
    shared = shared_out(spoken("White light and red light.", 0.1, 3.4) + spoken("Blue light.", 6.1, 8.4), said)
    assert [line.text for line in shared] == ["White light and red light.", "", "Blue light."]
    assert [line.said_with for line in shared] == [None, said[0].id, None]


def test_a_first_line_without_words_is_said_with_the_next_that_has_some() -> None:
    said = lines("Итак.", "Вот.", "Синий свет.")
    shared = shared_out(spoken("Blue light.", 6.1, 8.4), said)
    assert [line.said_with for line in shared] == [said[2].id, said[2].id, None]


def test_a_clause_moves_whole() -> None:
    said = lines("Когда свет входит,", "он поворачивает.")
    shared = shared_out(spoken("When the light goes in, it turns.", 0.2, 5.0), said)
    assert [line.text for line in shared] == ["When the light goes in,", "it turns."]


def test_a_quotation_mark_after_the_full_stop_does_not_hide_the_end() -> None:
    said = lines("Он сказал «да».", "И ушёл домой.")
    shared = shared_out(spoken('He said "yes."', 0.2, 2.4) + spoken("And went home.", 3.2, 5.4), said)
    assert [line.text for line in shared] == ['He said "yes."', "And went home."]


def test_without_words_every_line_is_flagged() -> None:
    shared = shared_out([], lines("Белый свет.", "Красный свет."))
    assert [(line.text, line.flags) for line in shared] == [("", ("translation: it is missing",))] * 2


@given(
    st.lists(st.tuples(st.sampled_from(["light", "red,", "blue.", "why?", "and", '"so."']), st.floats(0.0, 3.0)), max_size=40),
    st.lists(st.floats(0.0, 8.0), min_size=1, max_size=12),
)
def test_all_words_are_kept_in_order_and_every_empty_line_names_a_spoken_one(tokens: list[tuple[str, float]], lengths: list[float]) -> None:
    words, at = [], 0.0
    for text, pause in tokens:
        words.append(Word(text=text, start=at + pause, end=at + pause + 0.3, confidence=1.0))
        at += pause + 0.3
    said, at = [], 0.0
    for n, length in enumerate(lengths):
        said.append(line(f"строка {n}", at, at + length))
        at += length
    shared = shared_out(words, said)
    assert [line.id for line in shared] == [utterance.id for utterance in said]
    assert " ".join(line.text for line in shared if line.text).split() == [word.text for word in words]
    spoken_ids = {line.id for line in shared if line.text}
    assert all(line.said_with is None if line.text or not words else line.said_with in spoken_ids for line in shared)
