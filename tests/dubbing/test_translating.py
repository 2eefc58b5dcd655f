"""Translation as text work: what is asked, what is understood of the answer, what is wrong with a line, what Whisper's words belong to."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dubbing.lesson import Utterance, Word
from dubbing.translating import (
    COMMENTING,
    CONTEXT_LINES,
    WINDOW_CHARACTERS,
    WINDOW_LINES,
    answer_schema,
    parse_answer,
    problem_with,
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


# Requests


def test_a_request_is_the_lines_alone_numbered_from_one() -> None:
    [window] = windows(lines("Красный свет.", "Синий «свет»."))
    asked = prompt(window, [1, 2], "ru", "en", {}, {})
    assert json.loads(asked.request) == {"1": "Красный свет.", "2": "Синий «свет»."}
    assert "from Russian into English" in asked.instructions
    assert "Context" not in asked.instructions


def test_a_prompt_for_some_lines_shows_the_passage_and_what_was_wrong_with_those_lines_only() -> None:
    [window] = windows(lines("Красный свет.", "Синий свет.", "Белый свет."))
    asked = prompt(window, [2], "ru", "en", {2: "it is missing", 3: "it is too long"}, {2: 12, 1: 5})
    assert json.loads(asked.request) == {"2": "Синий свет."}
    assert "Красный свет." in asked.instructions
    assert "line 2: it is missing" in asked.instructions and "it is too long" not in asked.instructions
    assert "line 2 in at most 12 characters" in asked.instructions and "line 1" not in asked.instructions


def test_neighbours_are_shown_and_not_asked_for() -> None:
    _, window = windows(lines(*(f"строка {n}" for n in range(WINDOW_LINES + 2))))
    asked = prompt(window, [1, 2], "ru", "en", {}, {})
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
    assert parse_answer(answer, [1, 2]) == understood


@given(st.text(alphabet='{}[]",:12\\u0 nab\n') | st.text())
def test_no_answer_is_too_hostile(answer: str) -> None:
    for text in parse_answer(answer, [1, 2]).values():
        text.encode()
        assert "\n" not in text


# Problems


@pytest.mark.parametrize(
    ("translated", "source_line", "problem"),
    [
        (None, "Красный свет.", "it is missing"),
        ("", "Красный свет.", "it is missing"),
        ("...!", "Красный свет.", "it is missing"),
        ("Красный свет поворачивает.", "Красный свет.", "it is not in English"),
        ("红色的光", "Красный свет.", "it is not in English"),
        ("Translation: red light.", "Красный свет.", COMMENTING),
        ("Here is the translation of the line.", "Красный свет поворачивает.", COMMENTING),
        ("I'm sorry, but I cannot help with that.", "Красный свет поворачивает меньше.", COMMENTING),
        ("As an AI language model I can only read.", "Красный свет поворачивает меньше.", COMMENTING),
        ('{"text": "Red light."}', "Красный свет.", COMMENTING),
        ("Red light. " * 20, "Красный свет.", "it is too long (220 characters for 13)"),
        ("Red.", "Красный свет поворачивает меньше, чем фиолетовый, потому что " * 2, "it is too short (4 characters for 122)"),
        ("Red light turns less.", "Красный свет поворачивает меньше.", None),
        ("Red.", "Красный.", None),
        ("Ньютон (Newton) wrote Opticks, a book about light.", "Ньютон написал книгу о свете.", "it has letters of Russian in it"),
        ("E = mc²", "E = mc²", None),
    ],
)
def test_a_wrong_line_is_told_what_is_wrong_with_it(translated: str | None, source_line: str, problem: str | None) -> None:
    assert problem_with(translated, source_line, "ru", "en") == problem


def test_a_line_left_as_it_was_is_not_translated() -> None:
    assert problem_with("el arco iris es bonito", "El arco iris es bonito.", "es", "en") == "it is not translated"
    assert problem_with("Isaac Newton.", "Isaac Newton", "es", "en") is None
    assert problem_with("彩虹出现在雨后的天空中", "彩虹出现在雨后的天空中。", "zh", "ja") == "it is not translated"


def test_a_line_that_says_another_one_again_is_told_so() -> None:
    others = ["Red light turns less than violet."]
    assert (
        problem_with("Red light turns less than violet!", "Синий свет поворачивает больше.", "ru", "en", others)
        == "it repeats another line"
    )
    assert problem_with("Yes, of course.", "Да, конечно же.", "ru", "en", ["Yes, of course."]) is None  # short ones may


def test_a_comment_in_the_lesson_itself_is_translated() -> None:
    assert problem_with("Here is the rainbow.", "Here is der Regenbogen.", "de", "en") is None


IN_ENGLISH = (
    "When light enters a drop of water it changes direction, and as every colour turns by another angle, "
    "white light becomes a band of many colours."
)


@pytest.mark.parametrize(
    ("source", "target", "source_line", "translated"),
    [
        ("zh", "en", "光进入水滴的时候会改变方向，不同的颜色转向的角度不同，所以白光变成了彩色的光带。", IN_ENGLISH),
        ("en", "zh", IN_ENGLISH, "光进入水滴时会改变方向，每种颜色转向的角度不同，白光就变成了彩色光带。"),
        ("en", "ja", "We write the program in Python.", "Pythonでプログラムを書きます。"),
        ("ru", "ko", "Солнечный свет кажется белым и состоит из цветов.", "햇빛은 하얗게 보이며 여러 색으로 이루어져 있습니다."),
        ("ru", "hi", "Солнечный свет кажется белым.", "सूर्य का प्रकाश सफेद दिखाई देता है।"),
        ("ru", "sr", "Белый свет.", "Bela svetlost."),
    ],
)
def test_a_good_line_is_good_whatever_the_scripts(source: str, target: str, source_line: str, translated: str) -> None:
    assert problem_with(translated, source_line, source, target) is None


@pytest.mark.parametrize("target", ["ja", "zh", "ko", "hi", "en"])
def test_letters_of_another_script_are_not_the_language(target: str) -> None:
    assert problem_with("Солнечный свет белый.", "Der Sonnenschein ist weiß.", "de", target) is not None


@pytest.mark.parametrize(
    ("source_line", "translated"),
    [
        ("Было 300 К.", "It was 300 K."),
        ("Было 300 К.", "It was three hundred kelvin."),
        ("Было 105 К.", "It was one hundred five kelvin."),
        ("Было 105 К.", "It was one hundred and five kelvin."),
        ("Было 200 000 человек.", "There were 200,000 people."),
        ("Было 200\u00a0000 человек.", "There were 200000 people."),
        ("Было 200 000 человек.", "There were two hundred thousand people."),
        ("Было 200 000 человек.", "There were 200 thousand people."),
        ("Было 200 тысяч человек.", "There were 200,000 people."),
        ("Это 2000000 рублей.", "That is 2 million roubles."),
        ("Это 2,5 тысячи метров.", "That is 2,500 metres."),
        ("Число 2,718 известно.", "The number 2.718 is known."),
        ("Число 2.718 известно.", "The number 2.718 is known."),
        ("Число 3,5 известно.", "The number three point five is known."),
        ("Здесь было 1,000 человек.", "There were 1000 people here."),
        ("Это 1 200,50 рубля.", "That is 1,200.50 roubles."),
        ("Это было в 1961 году.", "It was in nineteen sixty-one."),
        ("Это было 12 апреля 1961 года.", "It was on April 12th, 1961."),
        ("Это было 01.02.2020 утром.", "It was on February 1, 2020, in the morning."),
        ("В 1990-х было иначе.", "In the 1990s it was different."),
        ("Это 2-й закон.", "This is the second law."),
        ("Начало в 10:30 утра.", "It begins at 10:30 in the morning."),
        ("Счёт 5 10 15.", "The count is 5, 10, 15."),
        ("Скидка 20% сегодня.", "A twenty percent discount today."),
        ("Код 12345678901234567890 тут.", "The code is here."),  # longer than anyone says a number
    ],
)
def test_a_number_may_be_written_in_another_way(source_line: str, translated: str) -> None:
    assert problem_with(translated, source_line, "ru", "en") is None


@pytest.mark.parametrize(
    ("source_line", "translated", "lost"),
    [
        ("Было 300 К.", "It was 200 K.", "300"),
        ("Было 300 К.", "It was quite cold.", "300"),
        ("Их было 6 человек.", "There were sixty people.", "6"),
        ("Это 3,5 метра.", "That is 3 metres.", "3,5"),
        ("Это 200 000 рублей.", "That is 20,000 roubles.", "200 000"),
        ("От 7 до 9 дней.", "From many to more days.", "7, 9"),
    ],
)
def test_a_lost_number_is_named(source_line: str, translated: str, lost: str) -> None:
    assert problem_with(translated, source_line, "ru", "en") == f"it lost the number {lost}"


def test_numbers_are_known_in_other_languages_where_anyone_can_spell_them() -> None:
    assert problem_with("Hacía trescientos grados.", "Было 300 градусов.", "ru", "es") is None
    assert problem_with("Hacía muchos grados.", "Было 300 градусов.", "ru", "es") == "it lost the number 300"
    assert problem_with("温度是三百度。", "Было 300 градусов.", "ru", "zh") is None  # nobody here spells Chinese numbers: not doubted


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(["en", "es", "hi", "ja", "vi", "xx"]))
@example("0,5 1.2.3 ٣", "", "vi")
def test_no_line_is_too_hostile(translated: str, source_line: str, target: str) -> None:
    problem_with(translated, source_line, "ru", target, [translated])


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
