"""Terms: where they occur, whether they are used, and the table that a person keeps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubbing.errors import BadInput
from dubbing.lesson import Term, Termbase, Utterance
from dubbing.terms import LONGEST_SUMMARY, LONGEST_TERM, as_table, from_table, is_used, occurring, occurs, pieces, understood, with_given

PRISM = Term(source="призма", translation="prism", note="glass", certain=True)
LIGHT = Term(source="белый свет", translation="white light", certain=True)


@pytest.mark.parametrize(
    ("term", "text", "language", "there"),
    [
        ("призма", "Свет проходит через призму.", "ru", True),
        ("призма", "ПРИЗМАМИ", "ru", True),
        ("белый свет", "Смесь белого света и тени.", "ru", True),
        ("белый свет", "Белый, но не свет.", "ru", False),
        ("свет", "Это светофор.", "ru", False),
        ("показатель преломления", "Зависит от показателя преломления.", "ru", True),
        ("матрица", "Здесь нет ничего.", "ru", False),
        ("rainbow", "Two rainbows at once.", "en", True),
        ("C++", "Программа на C++ быстрая.", "ru", True),
        ("300", "Было 3000 градусов.", "ru", False),
        ("棱镜", "光通过棱镜。", "zh", True),
        ("棱镜", "光通过水滴。", "zh", False),
        ("", "Свет.", "ru", False),
    ],
)
def test_a_term_is_found_in_its_inflected_forms(term: str, text: str, language: str, there: bool) -> None:
    assert occurs(term, text, language) is there


@pytest.mark.parametrize(
    ("translation", "line", "language", "used"),
    [
        ("prism", "Light goes through two prisms.", "en", True),
        ("prism", "Light goes through a drop.", "en", False),
        ("white light", "The light that we call white.", "en", True),
        ("índice de refracción", "Los índices de refracción cambian.", "es", True),
        ("棱镜", "光通过棱镜。", "zh", True),
    ],
)
def test_a_translated_line_uses_a_term_in_any_form_and_order(translation: str, line: str, language: str, used: bool) -> None:
    assert is_used(Term(source="x", translation=translation), line, language) is used


def test_only_the_terms_of_a_line_are_its_terms() -> None:
    assert occurring([PRISM, LIGHT], "Через призму.", "ru") == (PRISM,)


# Reading


def lines(*texts: str) -> list[Utterance]:
    return [Utterance(id=f"u{n}", text=text, start=3.0 * n, end=3.0 * n + 2, confidence=1.0) for n, text in enumerate(texts)]


@given(st.lists(st.integers(1, 300), max_size=40), st.integers(1, 400))
def test_pieces_hold_every_line_once_and_no_more_than_can_be_read(lengths: list[int], room: int) -> None:
    said = lines(*("x" * length for length in lengths))
    cut = pieces(said, room)
    assert [line for piece in cut for line in piece] == said
    assert all(len(piece) == 1 or sum(len(line.text) for line in piece) <= room for piece in cut)


TEXT = "Белый свет проходит через призму. Так думал Ньютон."


@pytest.mark.parametrize(
    ("answer", "terms"),
    [
        ({"summary": "", "terms": [{"source": "призма", "translation": "prism", "note": "glass"}]}, ["prism"]),
        ({"terms": [{"source": "Призма", "translation": "prism"}, {"source": "призма", "translation": "prisma"}]}, ["prism"]),
        ({"terms": [{"source": "матрица", "translation": "matrix", "note": ""}]}, []),  # doesn't occur
        ({"terms": [{"source": "призма", "translation": "призма", "note": ""}]}, []),  # isn't translated
        ({"terms": [{"source": "призма", "translation": "...", "note": ""}]}, []),
        ({"terms": [{"source": "призма", "translation": "p" * (LONGEST_TERM + 1), "note": ""}]}, []),
        ({"terms": [{"source": 7, "translation": None}, "prism", None]}, []),
        ({"terms": {"призма": "prism"}}, []),
        ({"terms": "призма"}, []),
        ([], []),
        (None, []),
    ],
)
def test_of_what_a_model_lists_only_terms_of_the_lesson_are_believed(answer: Any, terms: list[str]) -> None:
    assert [term.translation for term in understood(answer, TEXT, "ru", "en").terms] == terms


def test_a_models_terms_are_not_certain() -> None:
    [term] = understood({"terms": [{"source": "призма", "translation": "prism"}]}, TEXT, "ru", "en").terms
    assert not term.certain


@pytest.mark.parametrize(
    ("summary", "believed"),
    [
        ("On light\n and  prisms.", "On light and prisms."),
        ("О свете и призмах.", ""),  # in the wrong language
        ("...", ""),
        ("A sentence. " * 100, ("A sentence. " * 50).strip()),
        (["On light."], ""),
    ],
)
def test_a_summary_is_in_the_target_language_and_short(summary: Any, believed: str) -> None:
    said = understood({"summary": summary, "terms": []}, TEXT, "ru", "en").summary
    assert said == believed
    assert len(said) <= LONGEST_SUMMARY


# A person's table


def test_a_table_is_read_as_it_was_written() -> None:
    terms = (PRISM, LIGHT, Term(source='"кавычки", и', translation="quotes; and", note="два\tслова", certain=True))
    read = from_table(as_table(terms).encode(), "terms.csv")
    assert read == (PRISM, LIGHT, terms[2].model_copy(update={"note": "два слова"}))


@pytest.mark.parametrize(
    "content",
    [
        "source,translation,note\nпризма,prism,glass\n".encode(),
        "\ufeffsource;translation;note\r\nпризма;prism;glass\r\n".encode(),
        "Source\tTranslation\tNote\nпризма\tprism\tglass\n".encode("utf-16"),
        "note,translation,source,checked by\nglass,prism,призма,Anna\n\n".encode(),
        'source,translation,note\n"призма"," prism "," glass"'.encode(),
    ],
    ids=["as written", "semicolons", "tabs, UTF-16", "other columns", "quoted"],
)
def test_a_table_is_read_as_a_spreadsheet_saves_it(content: bytes) -> None:
    assert from_table(content, "terms.csv") == (PRISM,)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "source is missing"),
        (b"term,translation\nx,y\n", "source is missing"),
        (b"source,note\nx,y\n", "translation is missing"),
        (b"source,translation\n,prism\n", "row 2: it has no source term"),
        (b"source,translation\nx,...\n", "row 2: the translation '...' has no letters"),
        (b"source,translation\nx,y\n" + b"x" * 81 + b",y\n", "row 3: source has 81 characters, the limit is 80"),
        (b'source,translation\n"x,y\n', "not a table"),
        (b"source,translation\n\xff\xfe\n", "not UTF-8"),
        (b"source,translation\n" + b"".join(b"x%d,y\n" % n for n in range(5001)), "5001 terms, the limit is 5000"),
        (b"x" * 2_000_001, "2.0 MB"),
    ],
    ids=["empty", "no source", "no translation", "no term", "no letters", "too long", "open quote", "not text", "too many", "too large"],
)
def test_a_table_that_is_none_is_refused_with_file_and_row(content: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=r"^course\.csv") as refused:
        from_table(content, "course.csv")
    assert said in str(refused.value)


@given(st.binary(max_size=200))
def test_no_table_is_too_hostile(content: bytes) -> None:
    try:
        from_table(b"source,translation\n" + content, "terms.csv")
    except BadInput as refused:
        assert str(refused).isprintable()


def test_a_persons_terms_win_and_can_take_the_models_away() -> None:
    read = Termbase(
        summary="On light.",
        terms=(
            Term(source="Призма", translation="wedge"),
            Term(source="угол", translation="corner"),
            Term(source="луч", translation="ray"),
        ),
    )
    given_terms = (PRISM, Term(source="угол", translation="", certain=True))
    merged = with_given(read, given_terms)
    assert [(term.source, term.translation) for term in merged.terms] == [("призма", "prism"), ("луч", "ray")]
    assert merged.summary == "On light."
