"""How the Chatterbox service cuts text into pieces."""

from __future__ import annotations

import re

import pytest
from chatterbox_service.text import SHORTEST, can_be_said, cut, length, normalised
from hypothesis import given
from hypothesis import strategies as st

CLAUSE = "Word " * 11 + "end"  # 58 letters


def test_text_within_the_limit_is_one_piece() -> None:
    assert cut("One. Two! Three?", 300) == ["One. Two! Three?"]


def test_nothing_gives_nothing() -> None:
    assert cut(" \n ", 300) == []


def test_pieces_end_where_sentences_end() -> None:
    sentences = [f"{CLAUSE} {n}000." for n in range(1, 8)]
    pieces = cut(" ".join(sentences), 150)
    assert len(pieces) == 4 and all(piece.endswith("000.") for piece in pieces)


def test_pieces_are_about_as_long_as_each_other() -> None:
    pieces = cut(" ".join([f"{CLAUSE}."] * 6), 300)
    assert [piece.count(".") for piece in pieces] == [3, 3]


@pytest.mark.parametrize(
    "sentence",
    [
        "The value of pi is 3.14159 and that of e is 2.71828 in this lecture.",
        "Dr. Smith and Mrs. Jones met at St. Paul's, e.g. on the 3. of May.",
        "Точка т. е. место, см. рис. 5 на стр. 12, где г. Иванов и проф. Н. И. Петров.",
        "Das ist z. B. bzw. Nr. 5 von Hrn. Dr. Müller, siehe Abb. 3 dort.",
        "La Sra. García y el Dr. López viven en la pág. 12 del vol. 3 del libro.",
        "Version 10.2.1 of example.com was 1.000.000 times faster than no. 5.",
    ],
)
def test_a_number_or_an_abbreviation_ends_no_piece(sentence: str) -> None:
    pieces = cut(f"{sentence} {sentence}", len(sentence) + SHORTEST)
    assert pieces == [sentence, sentence]


def test_a_sentence_that_is_too_long_is_cut_at_its_clauses() -> None:
    text = "the first clause is this one, the second clause is that one; the third and last clause is the longest of all of them"
    assert cut(text, 70) == [text[: text.index(";") + 1], text[text.index(";") + 2 :]]


def test_a_clause_that_is_too_long_is_cut_between_words() -> None:
    text = "word " * 100
    pieces = cut(text, 90)
    assert all(set(piece.split()) == {"word"} for piece in pieces)
    assert sum(len(piece.split()) for piece in pieces) == 100


def test_a_word_that_is_too_long_is_cut_anyway() -> None:
    pieces = cut("a" * 1000, 300)
    assert "".join(pieces) == "a" * 1000 and max(map(len, pieces)) <= 300


def test_numbers_in_groups_stay_together_where_something_else_can_be_cut() -> None:
    text = "about 10 000 000 people " * 12
    assert not any(piece.startswith("0") for piece in cut(text, 60))


@pytest.mark.parametrize("short", ["Ok.", "Yes!", "Да.", "!!!"])
@pytest.mark.parametrize("first", [True, False])
def test_a_short_sentence_is_spoken_with_its_neighbour(short: str, first: bool) -> None:
    long = f"{CLAUSE}, {CLAUSE}, {CLAUSE}, {CLAUSE}, {CLAUSE}."  # 299 letters: no room for another sentence
    pieces = cut(f"{short} {long}" if first else f"{long} {short}", 300)
    assert len(pieces) == 2
    assert min(map(len, pieces)) >= SHORTEST


def test_sentences_without_spaces_between_them_are_found() -> None:
    text = "这是第一句话，它有很多字。这是第二句话，它也有很多字！这是第三句话，它更长一些吗？"
    assert [piece[-1] for piece in cut(text, 60)] == ["。", "！", "？"]


def test_a_syllable_counts_for_several_letters_since_it_takes_as_long_to_say() -> None:
    assert length("字") == 3 and length("한") == 3 and length("a") == 1
    assert all(len(piece) <= 120 for piece in cut("这是一句话，" * 100, 300))


def test_the_quote_or_bracket_that_closes_stays_with_its_sentence() -> None:
    text = '"This is the first sentence here." (And this one is the second.) «Третье предложение тут.» The last.'
    for piece in cut(text, 60):
        assert piece[0] in '"(«T' and piece[-1] in '."»)'


def test_control_characters_are_not_spoken() -> None:
    assert normalised("a\0b\x07c\u200b\r\n d\ud800") == "abc\u200b d"
    assert normalised("e\u0301") == "é"


@pytest.mark.parametrize("text", ["", " \t\n", "…!?", "😀 🎉", "—", "\0"])
def test_some_text_has_nothing_to_say(text: str) -> None:
    assert not can_be_said(text)


texts = st.text(alphabet=st.sampled_from(list("aaaeeeiouбвгд      .,!?;:—-\"'()0123456789字句。，한글ñéß\u0301😀\n")), max_size=400)


@given(text=texts | st.text(max_size=200), limit=st.integers(10, 120))
def test_no_letter_is_lost_none_is_doubled_and_no_piece_is_too_long(text: str, limit: int) -> None:
    pieces = cut(text, limit)
    assert re.sub(" ", "", "".join(pieces)) == re.sub(" ", "", normalised(text))
    assert all(length(piece) <= limit and piece == piece.strip() and piece for piece in pieces)


@given(text=texts)
def test_words_stay_whole_where_they_fit(text: str) -> None:
    words = normalised(re.sub("[字句。，]", "", text)).split()
    if all(length(word) <= 40 for word in words):
        assert [word for piece in cut(" ".join(words), 40) for word in piece.split()] == words


@given(text=texts)
def test_cutting_is_repeatable_and_pieces_need_no_cutting(text: str) -> None:
    pieces = cut(text, 50)
    assert pieces == cut(text, 50)
    assert [cut(piece, 50) for piece in pieces] == [[normalised(piece)] for piece in pieces]
