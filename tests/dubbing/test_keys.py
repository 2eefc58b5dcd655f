"""Keys as the rules in `dubbing.keys` state them: what differs in anything has another key, what is the same has the same."""

from __future__ import annotations

import datetime
import json
import math
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubbing.keys import canonical, digest
from dubbing.lesson import Artifact, Clip, Noun, TranslatedLine, Word

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.text(alphabet="\ud83d\ude00\U0001f600ab"),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=3), values, max_size=4),
    max_leaves=12,
)


def tagged(value: Any) -> Any:
    """The value so that `==` tells apart what keys must tell apart: 1, 1.0 and True; 0.0 and -0.0."""
    match value:
        case dict():
            return "map", frozenset((key, tagged(item)) for key, item in value.items())
        case list() | tuple():
            return "list", tuple(tagged(item) for item in value)
        case float():
            return "float", repr(value)
    return type(value).__name__, value


class Engine:
    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def fingerprint(self) -> dict[str, Any]:
        return {"engine": "Engine", "settings": self.settings}


class Line(Noun):
    text: str
    start: float


class Title(Noun):
    text: str
    start: float


@given(plain_values, plain_values)
def test_two_values_have_one_key_only_if_they_are_the_same(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (tagged(one) == tagged(other))


@given(plain_values)
def test_a_copy_has_the_same_key(value: Any) -> None:
    copy = json.loads(json.dumps(value)) if "\ud83d" not in json.dumps(value, ensure_ascii=False) else value
    assert digest(copy) == digest(value)


@given(st.lists(plain_values, max_size=4), st.lists(plain_values, max_size=4))
def test_where_one_value_ends_and_the_next_begins_counts(some: list[Any], others: list[Any]) -> None:
    assert (digest(*some) == digest(*others)) == (tagged(some) == tagged(others))
    assert digest(*some) != digest(some)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"),
        (1, 1.0),
        (1, True),
        (0, False),
        (0, None),
        ("", None),
        ("None", None),
        ([], {}),
        ([], ""),
        ([1, [2]], [[1], 2]),
        (["a", "b"], ["ab"]),
        ({"a": 1}, [["a", 1]]),
        ({"a": None}, {}),
        (["list"], [["list"]]),
        (["none"], None),
        (["str", "a"], "a"),
        (math.inf, -math.inf),
        (0.1 + 0.2, 0.3),
        ("е", "e"),
        ("é", "e\u0301"),
        ("\ud83d\ude00", "\U0001f600"),
    ],
)
def test_kinds_and_near_misses_do_not_collide(one: Any, other: Any) -> None:
    assert digest(one) != digest(other)


@given(st.dictionaries(st.text(), st.integers(), min_size=2), st.randoms())
def test_the_order_of_a_mapping_does_not_count(mapping: dict[str, int], random: Any) -> None:
    items = list(mapping.items())
    random.shuffle(items)
    assert digest(dict(items)) == digest(mapping)


def test_the_order_of_a_list_counts() -> None:
    assert digest([1, 2]) != digest([2, 1])


@pytest.mark.parametrize("refused", [math.nan, [math.nan], {"a": math.nan}, np.float64("nan")])
def test_nan_is_refused(refused: Any) -> None:
    with pytest.raises(TypeError, match="NaN"):
        digest(refused)


@pytest.mark.parametrize(
    "refused",
    [
        b"bytes",
        {1, 2},
        frozenset(),
        Path("lesson.mp4"),
        datetime.date(2020, 1, 1),
        Decimal(1),
        1j,
        np.zeros(2),
        np.int64(1),
        object(),
        Engine,
        digest,
        range(3),
        {1: "a number as a name"},
        [{"deep": {"down": object()}}],
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_kind_without_canonical_form_is_refused(refused: Any) -> None:
    with pytest.raises(TypeError):
        digest(refused)


def test_a_float_of_numpy_is_the_float_that_a_record_gives_back() -> None:
    assert digest(np.float64(0.1)) == digest(0.1)


def test_a_file_is_its_content_wherever_it_lies_and_whatever_its_size_is_said_to_be() -> None:
    file = Artifact(sha256="ab" * 32, size=10, media_type="audio/wav")
    assert digest(file) == digest(file.model_copy(update={"size": 11}))
    assert digest(file) != digest(file.model_copy(update={"sha256": "cd" * 32}))
    assert digest(file) != digest(file.model_copy(update={"media_type": "text/csv"}))


def test_a_noun_is_its_class_and_every_field() -> None:
    line = Line(text="Hello.", start=1.0)
    assert digest(line) == digest(Line(text="Hello.", start=1.0))
    assert digest(line) != digest(Title(text="Hello.", start=1.0))
    assert digest(line) != digest({"text": "Hello.", "start": 1.0})


@pytest.mark.parametrize(
    "noun",
    [
        Word(text="rainbow", start=1.0, end=1.5, confidence=0.9),
        TranslatedLine(id="a", text="A rainbow.", said_with=None, flags=("translation: it is missing",), attempts=1),
        Clip(
            id="a",
            text="A rainbow.",
            media=Artifact(sha256="ab" * 32, size=10, media_type="audio/wav"),
            duration=2.0,
            engine="kokoro",
            voice="af_heart",
            seed=None,
        ),
    ],
    ids=lambda noun: type(noun).__name__,
)
def test_every_field_of_a_noun_counts(noun: Noun) -> None:
    changes = {str: "other", float: 7.25, int: 7, tuple: ("other",), type(None): "other", dict: {"a": "b"}, bool: True}
    seen = {digest(noun)}
    for name in type(noun).model_fields:
        value = getattr(noun, name)
        change = value.model_copy(update={"sha256": "ee" * 32}) if isinstance(value, Artifact) else changes[type(value)]
        seen.add(digest(noun.model_copy(update={name: change})))
    assert len(seen) == 1 + len(type(noun).model_fields)


def test_a_field_that_came_later_counts_once_it_is_set() -> None:
    """What was stored before the field came is still found: this is the digest that a word had then."""
    word = Word(text="rainbow", start=1.0, end=1.5, confidence=0.9)
    assert digest(word) == "8f2acc3b3f3d2998896f1ddcf513f25e857e133929e2a68cd3a34ff82c422e3a"
    speakers = [word.model_copy(update={"speaker": speaker}) for speaker in ("Anna", "Boris", "")]
    assert len({digest(word), *map(digest, speakers)}) == 4


def test_a_file_inside_a_noun_counts_by_its_content_too() -> None:
    class Holder(Noun):
        media: Artifact

    file = Artifact(sha256="ab" * 32, size=10, media_type="audio/wav")
    assert digest(Holder(media=file)) == digest(Holder(media=file.model_copy(update={"size": 11})))


def test_an_engine_counts_by_its_fingerprint() -> None:
    assert digest(Engine(beam=5)) == digest(Engine(beam=5))
    assert digest(Engine(beam=5)) != digest(Engine(beam=4))
    assert digest(Engine(beam=5)) != digest(Engine(beam=5).fingerprint())


def test_a_key_is_sixty_four_hexadecimal_digits_of_any_text() -> None:
    assert all(len(digest(text)) == 64 for text in ("", "радуга", "\ud800", "\x00", "a" * 100_000))


def test_another_process_makes_the_same_key() -> None:
    program = "from dubbing.keys import digest; print(digest({'b': [1, 2.5, None], 'a': 'радуга'}, {'x': True}))"
    root = Path(__file__).parents[2]
    keys = {
        subprocess.run(
            [sys.executable, "-c", program], cwd=root, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert keys == {digest({"a": "радуга", "b": (1, 2.5, None)}, {"x": True}) + "\n"}


def test_the_canonical_form_names_every_kind() -> None:
    assert canonical({"b": [1, None], "a": True}) == ["map", {"a": ["bool", True], "b": ["list", ["int", 1], ["none"]]}]
