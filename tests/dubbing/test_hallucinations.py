"""What is left out of a transcript because nobody said it, and what stays because somebody may have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubbing.hallucinations import Segment, garbage_in, kept, spoken_share, told

SPEECH = [(0.0, 60.0)]
LESSON = "Свет проходит через каплю воды и меняет направление."


def segment(text: str, *, at: float = 0.0, length: float = 5.0, sure: float | None = -0.3, joint: str = " ") -> Segment:
    return Segment(text.split() if joint else list(text), at, at + length, sure, joint)


def left(*segments: Segment, speech: list[tuple[float, float]] = SPEECH) -> list[str]:
    """The text of each segment without garbage."""
    garbage = garbage_in(segments, speech)
    return [one.joint.join(one.tokens[position] for position in kept(one.tokens, garbage, n)) for n, one in enumerate(segments)]


def why(*segments: Segment, speech: list[tuple[float, float]] = SPEECH) -> list[str]:
    return [one.why for one in told(segments, garbage_in(segments, speech))]


def test_a_lesson_stays_as_it_is() -> None:
    assert left(segment(LESSON), segment("Почему? Потому что цвета преломляются по-разному.", at=5)) == [
        LESSON,
        "Почему? Потому что цвета преломляются по-разному.",
    ]


# Where nobody speaks


def test_text_where_nobody_speaks_is_left_out() -> None:
    assert left(segment(LESSON, at=100.0)) == [""]
    assert why(segment(LESSON, at=100.0)) == ["nobody speaks there"]


def test_text_that_is_partly_in_a_pause_stays() -> None:
    assert left(segment(LESSON, at=58.0)) == [LESSON]


@pytest.mark.parametrize(
    ("sure", "spoken", "stays"),
    [(-0.3, 0.3, True), (-1.2, 1.0, True), (-1.2, 0.3, False), (-2.5, 1.0, False), (None, 0.3, True), (-1.9, 0.6, True)],
    ids=["sure", "unsure, but somebody speaks", "unsure, and hardly anybody", "a mere guess", "not told", "very unsure"],
)
def test_what_was_guessed_is_left_out_where_hardly_anybody_speaks(sure: float | None, spoken: float, stays: bool) -> None:
    found = left(segment(LESSON, length=10.0, sure=sure), speech=[(0.0, 10.0 * spoken)])
    assert found == [LESSON if stays else ""]


# Credits


@pytest.mark.parametrize(
    "credit",
    [
        "Субтитры сделал DimaTorzok",
        "Субтитры создавал DimaTorzok",
        "Редактор субтитров А.Семкин Корректор А.Егорова",
        "Редактор субтитров А. Семкин",
        "Subtitles by the Amara.org community",
        "Captioned by a volunteer",
        "Untertitel der Amara.org-Community",
        "Untertitel im Auftrag des ZDF für funk, 2017",
        "Untertitelung des ZDF, 2020",
        "Sous-titres réalisés par la communauté d'Amara.org",
        "Subtítulos realizados por la comunidad de Amara.org",
        "Legendas pela comunidade Amara.org",
        "Sottotitoli creati dalla comunità Amara.org",
        "Napisy stworzone przez społeczność Amara.org",
        "Ondertitels ingediend door de Amara.org gemeenschap",
        "Altyazı M.K.",
    ],
)
def test_credits_of_subtitles_are_left_out_and_the_lesson_around_them_stays(credit: str) -> None:
    assert left(segment(f"{LESSON} {credit}")) == [LESSON]
    assert why(segment(credit)) == ["credits of subtitles"]


@pytest.mark.parametrize("credit", ["字幕由Amara.org社区提供", "请不吝点赞订阅转发打赏支持明镜与点点栏目"])
def test_in_languages_without_spaces_too(credit: str) -> None:
    assert left(segment(f"光进入水滴。{credit}", joint="")) == ["光进入水滴。"]


@pytest.mark.parametrize(
    "goodbye", ["Thanks for watching!", "Продолжение следует...", "Vielen Dank fürs Zuschauen!", "Altogether: subscribe."]
)
def test_a_goodbye_stays_where_the_lecturer_says_it(goodbye: str) -> None:
    assert left(segment(f"{LESSON} {goodbye}")) == [f"{LESSON} {goodbye}"]


@pytest.mark.parametrize(
    ("goodbye", "joint"),
    [
        ("Thanks for watching!", " "),
        ("Продолжение следует...", " "),
        ("Vielen Dank fürs Zuschauen!", " "),
        ("Merci d'avoir regardé cette vidéo !", " "),
        ("ご視聴ありがとうございました。", ""),
        ("谢谢观看", ""),
    ],
)
def test_and_is_left_out_where_hardly_anybody_speaks_or_the_recogniser_guessed(goodbye: str, joint: str) -> None:
    assert left(segment(goodbye, length=10.0, joint=joint), speech=[(0.0, 3.0)]) == [""]
    assert left(segment(goodbye, sure=-1.4, joint=joint)) == [""]


@pytest.mark.parametrize(
    "sentence",
    [
        "Genes are transcribed by RNA polymerase.",
        "The film has subtitles by now.",
        "Legenda por cor: azul é o mar.",
        "Этот корректор ошибок исправляет код.",
        "Subscribers pay a monthly fee.",
        "Спасибо за вопрос, он хороший.",
        "Subtitles by the way are useful here.",
        "Редактор субтитров позволяет менять текст.",
        "Subtitles by themselves are a long story that we will come to in the second half of this lecture about cinema.",
    ],
)
def test_sentences_that_only_look_like_it_stay(sentence: str) -> None:
    assert left(segment(sentence, sure=-1.4)) == [sentence]


CREDIT = "Субтитры создавал Иван Петров."


def test_a_credit_without_a_known_subtitler_is_left_out_only_where_it_stands_alone() -> None:
    before, after = segment(LESSON, length=5.0), segment(LESSON, at=12.0)
    assert left(before, segment(CREDIT, at=5.0, length=7.0), after) == [LESSON, CREDIT, LESSON]
    assert left(before, segment(f"{LESSON} {CREDIT}", at=6.5, length=4.0), after) == [LESSON, f"{LESSON} {CREDIT}", LESSON]
    assert left(before, segment(CREDIT, at=6.5, length=4.0), after) == [LESSON, "", LESSON]
    assert left(before, segment(CREDIT, at=5.0, length=7.0, sure=-1.4), after) == [LESSON, "", LESSON]
    assert left(before, segment(CREDIT, at=5.0)) == [LESSON, ""]
    assert left(before, segment("Субтитры сделал DimaTorzok", at=5.0, length=7.0), after) == [LESSON, "", LESSON]


# Loops


def test_a_phrase_said_again_and_again_is_kept_once() -> None:
    assert left(segment("Итак, " + "и вот это " * 9 + "всё.")) == ["Итак, и вот это всё."]
    assert why(segment("и вот это " * 9)) == ["said 9 times in a row"]


def test_a_loop_over_many_segments_is_one() -> None:
    loop = [segment("Спасибо большое всем.", at=5.0 * n) for n in range(1, 7)]
    assert left(segment(LESSON), *loop, segment("Дальше о радуге.", at=40)) == [
        LESSON,
        "Спасибо большое всем.",
        *[""] * 5,
        "Дальше о радуге.",
    ]


def test_a_loop_in_a_language_without_spaces() -> None:
    assert left(segment("光进入水滴" + "的颜色" * 5 + "。", joint="")) == ["光进入水滴的颜色。"]


def test_punctuation_and_capitals_make_no_difference_to_a_loop() -> None:
    assert left(segment("So we go. So, we go! so we go? So we go...", sure=-1.4)) == ["So we go."]


@pytest.mark.parametrize(
    ("said", "joint"),
    [
        ("ноль " * 8 + "один", " "),
        ("0 " * 12 + "1", " "),
        ("один ноль " * 6, " "),
        ("零一" * 6, ""),
        ("哈" * 9, ""),
        ("раз два три " * 4, " "),
    ],
)
def test_numbers_and_short_words_may_be_repeated_where_there_is_time_to_say_them(said: str, joint: str) -> None:
    said = said.strip()
    assert left(segment(said, joint=joint)) == [said]
    once = left(segment(said, length=0.5, joint=joint))[0]
    assert len(once) < len(said) / 2, "nobody speaks so fast"
    assert left(segment(said, sure=-1.4, joint=joint)) == [once], "the recogniser guessed"


@pytest.mark.parametrize(
    "said",
    [
        "Нет, нет, нет, нет, это не так.",
        "Раз, раз, раз, два, три.",
        "ha ha ha ha ha ha ha, very funny",
        "left foot, right foot, left foot, right foot, and stop",
        "again and again and again and we see it",
        "1 2 3 4 5 6 7 8 9 10 11 12",
    ],
)
def test_what_people_repeat_stays(said: str) -> None:
    assert left(segment(said)) == [said]


words = st.sampled_from(["свет", "капля", "цвет.", "и", "—", "вода,", "это"])


@given(st.lists(st.lists(words, max_size=40), max_size=5), st.floats(-3.0, 0.0))
def test_no_token_is_left_out_twice_and_what_stays_keeps_its_order(texts: list[list[str]], sure: float) -> None:
    segments = [Segment(text, 5.0 * n, 5.0 * n + 5.0, sure) for n, text in enumerate(texts)]
    garbage = garbage_in(segments, SPEECH)
    gone = [(one.segment, token) for one in garbage for token in range(one.first, one.last)]
    assert len(gone) == len(set(gone))
    for number, one in enumerate(segments):
        stay = kept(one.tokens, garbage, number)
        assert stay == sorted(stay)
        assert set(stay) | {token for n, token in gone if n == number} == set(range(len(one.tokens)))


@given(st.lists(st.lists(words, max_size=40), max_size=4))
def test_what_is_clean_is_clean(texts: list[list[str]]) -> None:
    segments = [Segment(text, 5.0 * n, 5.0 * n + 5.0, -0.2) for n, text in enumerate(texts)]
    garbage = garbage_in(segments, SPEECH)
    again = [Segment([one.tokens[p] for p in kept(one.tokens, garbage, n)], one.start, one.end, -0.2) for n, one in enumerate(segments)]
    assert len(garbage_in(again, SPEECH)) <= len(garbage)


def test_what_is_left_out_is_told_with_its_time() -> None:
    [one] = told([segment("Субтитры сделал DimaTorzok", at=12.0)], garbage_in([segment("Субтитры сделал DimaTorzok", at=12.0)], SPEECH))
    assert (one.start, one.end, one.text, one.why) == (12.0, 17.0, "Субтитры сделал DimaTorzok", "credits of subtitles")


def test_how_much_of_a_span_is_spoken() -> None:
    speech = [(0.0, 1.0), (3.0, 4.0)]
    assert spoken_share(0.0, 4.0, speech) == 0.5
    assert spoken_share(0.5, 0.5, speech) == 1.0
    assert spoken_share(2.0, 2.0, speech) == 0.0
    assert spoken_share(5.0, 6.0, []) == 0.0
