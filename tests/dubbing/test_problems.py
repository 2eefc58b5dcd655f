"""What is wrong with a translated line, and what may be."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dubbing.lesson import Term
from dubbing.problems import COMMENTING, doubts_about, lost_names, names_in, problem_with


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
        ("I'm sorry, but I cannot translate this line.", "Красный свет поворачивает меньше.", COMMENTING),
        ("Sure! Here is the English translation.", "Красный свет поворачивает меньше.", COMMENTING),
        ("```json", "Красный свет.", COMMENTING),
        ("As an AI language model, I can only read.", "Красный свет поворачивает меньше.", COMMENTING),
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
    assert problem_with("Here is the translation.", "Here is the translation, bitte.", "de", "en") is None
    assert problem_with("Here is the translation of this line.", "Вот перевод этой строки.", "ru", "en") is None
    assert problem_with("Here is the translation of the figure.", "Вот параллельный перенос фигуры.", "ru", "en") is None
    assert problem_with("I can't translate this word.", "No puedo traducir esta palabra.", "es", "en") is None


@pytest.mark.parametrize(
    ("source_line", "translated"),
    [
        ("Вот формула энергии.", "Here is the formula for energy."),
        ("Вот три примера.", "Here are three examples."),
        ("Я не могу делить на ноль.", "I can't divide by zero."),
        ("Извините, я ошибся.", "I'm sorry, I made a mistake."),
        ("Конечно, так можно.", "Sure, you can do that."),
        ("Заметьте: знак отрицательный.", "Note: the sign is negative."),
        ("К сожалению, я забыл.", "Unfortunately, I forgot."),
        ("Смещение этого вектора равно нулю.", "The translation of this vector is zero."),
        ("Как исследователь ИИ, я работаю с данными.", "As an AI researcher I work with data."),
        ("Как языковая модель, BERT читает в обе стороны.", "As a language model, BERT reads both ways."),
        ("Множество {1, 2} конечно.", "{1, 2} is a finite set."),
    ],
)
def test_what_lecturers_say_is_no_comment(source_line: str, translated: str) -> None:
    assert problem_with(translated, source_line, "ru", "en") is None
    assert doubts_about(translated, source_line, "ru", "en") == ()


def test_what_may_be_a_refusal_is_a_doubt_and_said() -> None:
    refusal, said = "I'm sorry, but I cannot help with that.", "Красный свет поворачивает меньше."
    assert problem_with(refusal, said, "ru", "en") is None
    assert [(doubt.text, doubt.flagged) for doubt in doubts_about(refusal, said, "ru", "en")] == [
        ("it may comment instead of translating", True)
    ]


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
        ("В 90-х было иначе.", "In the nineties it was different."),
        ("В 1990-х было иначе.", "In the nineties it was different."),
        ("Начало в 14:30.", "It begins at half past two."),
        ("Начало в 2:30.", "It begins at half past two."),
        ("Начало в 14:45.", "It begins at a quarter to three."),
        ("Глава 2.", "Chapter II."),
        ("Глава 5.", "Chapter V."),
        ("В 19 веке было иначе.", "In the XIX century it was different."),
        ("Их было 12.", "There were a dozen of them."),
        ("Это 25 % света.", "That is about a quarter of the light."),
        ("Это 1/4 света.", "That is a quarter of the light."),
        ("Это 2/5 света.", "That is two fifths of the light."),
        ("Это 2,5 метра.", "That is two and a half metres."),
        ("Это H2O2.", "This is hydrogen dioxide."),
        ("Это O2 и водород, 2 части.", "This is hydrogen dioxide."),
        ("Их было 1000 человек.", "There were a thousand people."),
        ("Это в 2 раза больше.", "That is twice as much."),
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
        ("Было 1990 К.", "It was quite cold in those years.", "1990"),
        ("Здесь 5 вольт.", "I have some V here.", "5"),
        ("Их было 2.", "They did it in different ways.", "2"),
        ("Начало в 14:30.", "It begins at two.", "30"),
    ],
)
def test_a_lost_number_is_named(source_line: str, translated: str, lost: str) -> None:
    assert problem_with(translated, source_line, "ru", "en") == f"it lost the number {lost}"


def test_a_number_that_may_be_said_in_another_way_is_a_doubt() -> None:
    for target, source_line, translated in (
        ("en", "Это вода, H2O.", "This is water."),
        ("es", "Их было 12.", "Eran una docena."),
        ("de", "Это 50 % света.", "Das ist die Hälfte des Lichts."),
    ):
        assert problem_with(translated, source_line, "ru", target) is None
        [doubt] = doubts_about(translated, source_line, "ru", target)
        assert doubt.text.startswith("it may have lost the number") and doubt.flagged
    assert doubts_about("Tenían 17 años.", "Им было 17 лет.", "ru", "es") == ()


def test_a_number_has_endings_in_languages_that_inflect() -> None:
    assert problem_with("Мы видели это с пятнадцатью людьми.", "We saw it with 15 people.", "en", "ru") is None
    assert doubts_about("Мы видели это с пятнадцатью людьми.", "We saw it with 15 people.", "en", "ru") == ()
    assert problem_with("Мы видели это со многими людьми.", "We saw it with 17 people.", "en", "ru") == "it lost the number 17"


def test_numbers_are_known_in_other_languages_where_anyone_can_spell_them() -> None:
    assert problem_with("Hacía trescientos grados.", "Было 300 градусов.", "ru", "es") is None
    assert problem_with("Hacía muchos grados.", "Было 300 градусов.", "ru", "es") == "it lost the number 300"
    assert problem_with("温度是三百度。", "Было 300 градусов.", "ru", "zh") is None  # nobody here spells Chinese numbers: not doubted


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(["en", "es", "hi", "ja", "vi", "xx"]))
@example("0,5 1.2.3 ٣", "", "vi")
def test_no_line_is_too_hostile(translated: str, source_line: str, target: str) -> None:
    problem_with(translated, source_line, "ru", target, [translated])


def test_a_line_that_says_the_next_one_too_is_told_so() -> None:
    others = ["Blue light turns more than red."]
    merged = "Red light turns less. Blue light turns more than red."
    assert problem_with(merged, "Красный свет поворачивает меньше.", "ru", "en", others) == "it says another line too"


@pytest.mark.parametrize(
    ("source", "target", "source_line", "translated"),
    [
        ("ru", "es", "Солнечный свет кажется белым.", "The light of the sun looks white to all of us."),
        ("es", "en", "La luz del sol parece blanca a todos nosotros.", "La luz del sol parece muy blanca a nosotros."),
        ("ru", "uk", "Солнечный свет кажется белым.", "Солнечный свет всегда кажется нам белым, но это не так."),
    ],
)
def test_another_language_of_the_same_script_is_noticed(source: str, target: str, source_line: str, translated: str) -> None:
    assert "it is not in" in str(problem_with(translated, source_line, source, target))


def test_a_short_line_with_names_is_not_taken_for_another_language() -> None:
    assert problem_with("Isaac Newton, Opticks, 1704.", "Исаак Ньютон, «Оптика», 1704.", "ru", "es") is None


# Doubts


@pytest.mark.parametrize(
    ("source_line", "translated", "lost"),
    [
        ("Это открыл Исаак Ньютон.", "It was discovered by Isaac Newton.", []),
        ("Это открыл Ньютон.", "The scientist discovered it.", ["Ньютон"]),
        ("Так считал Гюйгенс, а не Ньютон.", "So thought Huygens and not Newton.", []),
        ("Так считал Гюйгенс, а не Ньютон.", "So he thought, and not Newton.", ["Гюйгенс"]),
        ("Потом Больцман ввёл постоянную.", "Then Boltzmann introduced a constant.", []),
        ("Здесь работал Джоуль.", "Joule worked here.", []),
        ("Мы живём на Земле.", "Earth is where we live.", []),  # another word, with a capital
        ("Это ДНК.", "DNA is what it is.", []),
        ("Ньютон это знал.", "He knew that.", []),  # the first word has its capital anyway
        ("Мы видим радугу.", "We see it.", []),
    ],
)
def test_a_name_that_was_lost_is_named(source_line: str, translated: str, lost: list[str]) -> None:
    assert lost_names(source_line, translated, "ru", "en") == lost


def test_a_word_that_the_lesson_writes_small_is_no_name() -> None:
    names = names_in(["Радуга появляется.", "Мы видим Радугу, как видел Ньютон.", "Здесь радуга цветная."])
    assert names == {"Ньютон"}
    assert lost_names("Мы видим Радугу.", "We see the rainbow.", "ru", "en", names) == []
    assert lost_names("Так видел Ньютон.", "He saw it so.", "ru", "en", names) == ["Ньютон"]
    assert lost_names("Мы видим Радугу.", "We see the rainbow.", "ru", "en") == ["Радугу"]
    assert lost_names("Ньютон это знал.", "He knew that.", "ru", "en", names) == ["Ньютон"], "known from elsewhere, though it comes first"


@pytest.mark.parametrize(("source", "target"), [("de", "en"), ("ru", "ja"), ("zh", "en"), ("xx", "en")])
def test_where_capitals_tell_no_names_none_is_missed(source: str, target: str) -> None:
    assert lost_names("Das sagte der Newton.", "he said so", source, target) == []


def test_doubts_are_a_term_not_used_a_name_lost_and_time_exceeded() -> None:
    terms = [Term(source="призма", translation="prism", certain=True), Term(source="луч", translation="ray")]
    doubts = doubts_about("The beam enters the glass.", "Луч Ньютона входит в призму.", "ru", "en", terms, budget=10)
    assert [doubt.flagged for doubt in doubts] == [True, False, True, False]
    assert ["prism" in doubts[0].text, "ray" in doubts[1].text, "name" in doubts[2].text, "time for 10" in doubts[3].text] == [True] * 4
    assert doubts_about("A ray of Newton's enters the prism.", "Луч Ньютона входит в призму.", "ru", "en", terms, budget=33) == ()


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(["en", "es", "ja", "el", "xx"]))
def test_no_doubtful_line_is_too_hostile(translated: str, source_line: str, target: str) -> None:
    doubts_about(translated, source_line, "ru", target, [Term(source="a", translation="b")], 10, names_in([source_line]))
