"""Languages by tag."""

from __future__ import annotations

import unicodedata

import pytest

from dubbing.languages import LANGUAGES, UNSPACED, base_language, is_tag, iso639_2, letters_and_digits, name_of, share_in_script


def test_every_language_has_a_name_a_code_and_a_script_that_exists() -> None:
    names = {unicodedata.name(chr(c), "").split(" ")[0] for c in range(0x2FA20) if chr(c).isalpha()} | {"IDEOGRAPHIC"}
    for tag, language in LANGUAGES.items():
        assert is_tag(tag)
        assert language.name
        assert len(language.iso639_2) == 3 and language.iso639_2.islower()
        assert language.script and set(language.script) <= names, tag
    assert len({language.iso639_2 for language in LANGUAGES.values()}) == len(LANGUAGES)
    assert set(LANGUAGES) >= UNSPACED


@pytest.mark.parametrize("tag", ["en", "EN", "pt-BR", "zh-Hant-TW", "haw"])
def test_a_tag_of_a_known_language_is_a_tag(tag: str) -> None:
    assert is_tag(tag)


@pytest.mark.parametrize("tag", ["", "english", "xx", "e", "en_US", "en-", "-en", "en us", "en\n", "../en", "rus"])
def test_anything_else_is_not(tag: str) -> None:
    assert not is_tag(tag)


def test_a_region_or_script_changes_neither_name_nor_code() -> None:
    assert base_language("zh-Hant-TW") == "zh"
    assert (name_of("pt-BR"), iso639_2("pt-BR")) == ("Portuguese", "por")
    assert (name_of("xx"), iso639_2("xx")) == ("xx", "und")


@pytest.mark.parametrize(
    ("text", "tag", "share"),
    [
        ("Привет", "ru", 1.0),
        ("Привет", "en", 0.0),
        ("ab вг", "en", 0.5),
        ("123 …", "en", 1.0),
        ("", "ru", 1.0),
        ("नमस्ते", "hi", 1.0),
        ("虹が出るカード", "ja", 1.0),
        ("Привет", "ja", 0.0),
        ("彩虹", "zh", 1.0),
        ("Bela", "sr", 1.0),
        ("Бела", "sr", 1.0),
        ("Привет", "xx", 1.0),
        ("AB虹出", "ja", 0.75),
    ],
)
def test_the_share_of_letters_in_a_languages_script(text: str, tag: str, share: float) -> None:
    assert share_in_script(text, tag) == pytest.approx(share)


@pytest.mark.parametrize(
    "alphabet_of",
    [("en", "Hello"), ("el", "Γειά"), ("he", "שלום"), ("ar", "مرحبا"), ("ka", "გამარჯობა"), ("th", "สวัสดี"), ("ko", "안녕"), ("am", "ሰላም")],
    ids=lambda pair: pair[0],
)
def test_a_word_of_a_language_is_in_its_script(alphabet_of: tuple[str, str]) -> None:
    tag, word = alphabet_of
    assert share_in_script(word, tag) == 1.0


def test_words_keep_their_marks_and_lose_their_joiners() -> None:
    assert letters_and_digits("re\u0301sume\u0301, सत्य!") == "re\u0301sume\u0301  सत्य "
    assert letters_and_digits("क\u200dष") == "कष"
    assert letters_and_digits("it's", besides="'") == "it's"
