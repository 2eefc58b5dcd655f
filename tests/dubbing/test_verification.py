"""What a listener would hear as the same words, and what a person should look at."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dubbing.languages import LANGUAGES
from dubbing.lesson import Artifact, PlacedLine
from dubbing.verification import WordErrors, line_flags, overlaps, spoken_words, word_errors


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("Hello, World!", "en", "hello world"),
        ("It's the lecturer’s well-known prism.", "en", "it's the lecturer's well known prism"),
        ("'Quoted' words", "en", "quoted words"),
        ("300 K", "en", "three hundred k"),
        ("-35 degrees", "en", "minus thirty five degrees"),
        ("the 21st of May", "en", "the twenty first of may"),
        ("20% & more", "en", "twenty percent and more"),
        ("2 + 2 = 4", "en", "two plus two equals four"),
        ("3.5 metres", "en", "three point five metres"),
        ("200,000 people", "en", "two hundred thousand people"),
        ("200 000 people", "en", "two hundred thousand people"),
        ("200.000 personas", "es", "doscientos mil personas"),
        ("3,5 metros", "es", "tres punto cinco metros"),
        ("C'était l’été, 21 jours.", "fr", "c'était l'été vingt et un jours"),
        ("Perché no? 100%", "it", "perché no cento"),
        ("Coração: 8 bits", "pt-BR", "coração oito bits"),
        ("Привет, мир!", "ru", "привет мир"),
        ("हिन्दी में नमस्ते।", "hi", "हिन्दी में नमस्ते"),
        ("彩虹，出现了。", "zh", "彩 虹 出 现 了"),
        ("虹が、出る", "ja", "虹 が 出 る"),
        ("...", "en", ""),
        ("", "en", ""),
    ],
)
def test_a_text_is_compared_as_it_is_said(text: str, language: str, words: str) -> None:
    assert spoken_words(text, language) == words.split()


@pytest.mark.parametrize(
    ("meant", "heard", "language"),
    [
        ("It was 300 K.", "it was three hundred K", "en"),
        ("It's 12:30, isn't it?", "Its 12:30 isn't it".replace("Its", "It's"), "en"),
        ("There were 1,500 of them.", "There were 1500 of them", "en"),
        ("Fueron 1.500 metros.", "fueron mil quinientos metros", "es"),
        ("L’été dura 21 jours.", "l'été dura vingt-et-un jours", "fr"),
        ("雨后出现彩虹。", "雨后出现，彩虹", "zh"),
        ("प्रकाश सफेद है।", "प्रकाश सफेद है", "hi"),
    ],
)
def test_another_way_of_writing_is_no_error(meant: str, heard: str, language: str) -> None:
    assert word_errors(meant, heard, language).errors == 0


def test_errors_are_counted_in_words_of_what_was_meant() -> None:
    assert word_errors("the red light turns", "the light turns less", "en") == WordErrors(2, 4)
    assert word_errors("the red light", "", "en") == WordErrors(3, 3)
    assert word_errors("", "thanks for watching", "en") == WordErrors(3, 0)
    assert word_errors("", "", "en").rate == 0.0
    assert word_errors("彩虹出现", "彩虹出", "zh") == WordErrors(1, 4)


def test_a_wrong_vowel_is_a_wrong_word_in_hindi_too() -> None:
    assert word_errors("किताब यहाँ है", "कताब यहाँ है", "hi") == WordErrors(1, 3)


@given(st.text(max_size=60), st.sampled_from(sorted(LANGUAGES)))
@example("1.2.3 0.5 -7 ٣ 1e999 9999999999999999999999999 0,001", "vi")
def test_any_text_in_any_language_has_no_errors_against_itself(text: str, language: str) -> None:
    assert word_errors(text, text, language).errors == 0


def placed(start: float = 1.0, end: float = 3.0, rate: float = 1.0, clip: bool = True) -> PlacedLine:
    return PlacedLine(
        id="a",
        source_text="Радуга.",
        text="A rainbow.",
        source_start=1.0,
        source_end=3.0,
        start=start,
        end=end,
        rate=rate,
        overflow=0.0,
        engine="kokoro",
        voice="af_heart",
        speaker=None,
        clip=Artifact(sha256="ab" * 32, size=1, media_type="audio/wav") if clip else None,
    )


def test_a_good_line_has_no_flags() -> None:
    assert line_flags(placed(), WordErrors(0, 5), 15.0) == ()
    assert line_flags(placed(rate=1.2, start=2.0), None, 21.0) == ()


def test_one_wrong_word_in_a_short_line_is_not_worth_a_look() -> None:
    assert line_flags(placed(), WordErrors(1, 2), 15.0) == ()


@pytest.mark.parametrize(
    ("line", "errors", "reading", "flag"),
    [
        (placed(), WordErrors(2, 5), 15.0, "speech: 2 of 5 words heard differently"),
        (placed(rate=1.25), WordErrors(0, 5), 15.0, "timing: spoken 1.25 times as fast"),
        (placed(start=2.5), WordErrors(0, 5), 15.0, "timing: 1.5 s late"),
        (placed(start=-0.5), WordErrors(0, 5), 15.0, "timing: 1.5 s early"),
        (placed(), WordErrors(0, 5), 25.0, "subtitle: 25 characters a second to read"),
    ],
)
def test_what_is_over_a_threshold_is_said_in_plain_words(line: PlacedLine, errors: WordErrors, reading: float, flag: str) -> None:
    assert line_flags(line, errors, reading) == (flag,)


def test_only_spoken_lines_can_overlap() -> None:
    assert overlaps([placed(1.0, 3.0), placed(2.9, 4.0)]) == 1
    assert overlaps([placed(1.0, 3.0), placed(2.0, 2.0, clip=False), placed(3.0, 4.0)]) == 0
    assert overlaps([]) == 0
