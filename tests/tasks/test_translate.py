"""The stages of translation: what a changed line, term or pace costs, and what stays as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from pydantic import PrivateAttr

from blocks.store import Store
from blocks.translator import ChatTranslator
from dubbing.errors import EngineRefused
from dubbing.lesson import Term, Termbase, Transcript, TranslatedLine, Translation, Utterance
from dubbing.translating import WINDOW_LINES
from tasks.retranslate import retranslate
from tasks.shorten import shorten
from tasks.terms import terms
from tasks.translate import translate


class Model(ChatTranslator):
    """Translates "строка три" as "This is line три in English", without its Russian word; finds the term that it is asked about."""

    engine_name: ClassVar[str] = "model"
    room: int = 1000

    _requests: list[tuple[str, list[str]]] = PrivateAttr(default_factory=list)  # instructions, texts

    def room_to_read(self) -> int:
        return self.room

    def ask(self, instructions: str, request: str, schema: dict[str, Any]) -> str:
        if "terms" in schema["properties"]:
            self._requests.append((instructions, request.split("\n")))
            return json.dumps({"summary": f"On {len(request)} characters.", "terms": [{"source": "призма", "translation": "prism"}]})
        if "summary" in schema["properties"]:
            self._requests.append((instructions, request.split("\n")))
            return json.dumps({"summary": "On all of it."})
        lines = json.loads(request)
        self._requests.append((instructions, list(lines.values())))
        return json.dumps({n: f"This is what line {NAMES[text]} says" for n, text in lines.items()})

    def asked(self) -> list[list[str]]:
        """The texts of each request since the last call."""
        asked, self._requests = [texts for _, texts in self._requests], []
        return asked


TEXTS = [f"Это {word} строка лекции." for word in "первая вторая третья четвёртая пятая шестая седьмая восьмая девятая десятая".split()]
NEW, WITH_TERM = "Это новая строка лекции.", "Это призма из стекла."
NAMES = {text: f"number {n}" for n, text in enumerate([*TEXTS, NEW, WITH_TERM])}


def transcript(texts: list[str], later: float = 0.0) -> Transcript:
    lines = [
        Utterance(id=Utterance.id_of(text, 5.0 * n + later), text=text, start=5.0 * n + later, end=5.0 * n + later + 4, confidence=1.0)
        for n, text in enumerate(texts)
    ]
    return Transcript(language="ru", utterances=tuple(lines), engine="-")


def translated(
    store: Store, model: Model, texts: list[str], termbase: Termbase | None = None, pace: float = 15.0, later: float = 0.0
) -> Translation:
    said = transcript(texts, later)
    base = termbase or Termbase()
    duration = 5.0 * len(texts) + later
    return translate.function(
        store, transcript=said, sound=None, translator=model, target="en", termbase=base, pace=pace, duration=duration
    )


@pytest.fixture
def model(store: Store) -> Iterator[Model]:
    """One that has translated all ten lines."""
    model = Model()
    translated(store, model, TEXTS)
    assert model.asked() == [TEXTS[:WINDOW_LINES], TEXTS[WINDOW_LINES:]]
    yield model


def test_what_was_translated_is_not_translated_again(store: Store, model: Model) -> None:
    before = translated(store, model, TEXTS)
    assert model.asked() == []
    assert [line.text for line in before.lines] == [f"This is what line number {n} says" for n in range(10)]


def test_a_changed_line_costs_the_windows_that_it_is_in_or_beside(store: Store, model: Model) -> None:
    changed = [*TEXTS[:4], NEW, *TEXTS[5:]]
    lines = translated(store, model, changed).lines
    assert model.asked() == [changed[:WINDOW_LINES]]
    assert [line.text for line in lines] == [f"This is what line {NAMES[text]} says" for text in changed]
    assert [line.id for line in lines] == [line.id for line in transcript(changed).utterances]
    translated(store, model, [*TEXTS[:7], NEW, *TEXTS[8:]])  # the last of its window, and shown before the next
    assert len(model.asked()) == 2


@pytest.mark.parametrize("place", [0, 8], ids=["the first window", "the second window"])
def test_a_run_that_stopped_asks_what_it_would_have_asked(store: Store, place: int) -> None:
    """A window is kept whole or not at all: no request depends on where an earlier run ended."""

    class Stopping(Model):
        engine_name: ClassVar[str] = "stopping"

        def ask(self, instructions: str, request: str, schema: dict[str, Any]) -> str:
            if TEXTS[place] in request and stops:
                raise KeyboardInterrupt
            return super().ask(instructions, request, schema)

    stops, model = [True], Stopping()
    with pytest.raises(KeyboardInterrupt):
        translated(store, model, TEXTS)
    stops.clear()
    model.asked()
    translated(store, model, TEXTS)
    assert model.asked() == [TEXTS[:WINDOW_LINES], TEXTS[WINDOW_LINES:]][bool(place) :]


def test_times_do_not_matter_as_long_as_there_is_time(store: Store, model: Model) -> None:
    translated(store, model, TEXTS, later=2.0)
    assert model.asked() == []


def test_the_same_words_in_other_company_are_translated_for_themselves(store: Store, model: Model) -> None:
    translated(store, model, [NEW, TEXTS[4], NEW])
    [[*asked]] = model.asked()
    assert TEXTS[4] in asked


def test_a_term_costs_the_windows_that_it_occurs_in_and_another_summary_all(store: Store, model: Model) -> None:
    texts = [*TEXTS, WITH_TERM]
    translated(store, model, texts)
    model.asked()
    termbase = Termbase(terms=(Term(source="призма", translation="line number"), Term(source="матрица", translation="matrix")))
    translated(store, model, texts, termbase)
    assert model.asked() == [texts[WINDOW_LINES:]]
    translated(store, model, texts, Termbase(terms=termbase.terms[:1]))
    assert model.asked() == []
    translated(store, model, texts, Termbase(summary="Another summary.", terms=termbase.terms))
    assert model.asked() == [texts[:WINDOW_LINES], texts[WINDOW_LINES:]]


def test_what_is_a_name_elsewhere_in_the_lesson_counts_where_it_occurs(store: Store, model: Model) -> None:
    """A word that is written small anywhere is no name."""
    texts = [*TEXTS, "Это сказал Ньютон однажды."]
    NAMES.update({texts[-1]: "eleven, says Newton,", "Это ньютон силы.": "twelve"})
    translated(store, model, texts)
    model.asked()
    translated(store, model, [*texts[:10], texts[10], *TEXTS[:8], "Это ньютон силы."])
    assert [asked for asked in model.asked() if texts[10] in asked]


def test_a_faster_or_slower_voice_costs_only_lines_that_it_leaves_too_little_time(store: Store, model: Model) -> None:
    translated(store, model, TEXTS, pace=20.0)
    assert model.asked() == []
    translated(store, model, TEXTS, pace=4.0)
    assert sorted({text for texts in model.asked() for text in texts}) == sorted(TEXTS)


def test_a_model_that_does_not_heed_budgets_is_told_none(store: Store) -> None:
    class Small(Model):
        engine_name: ClassVar[str] = "small"
        heeds_budgets: ClassVar[bool] = False

    model, small = Model(), Small()
    for translator in (model, small):
        translated(store, translator, TEXTS, pace=4.0)
    assert "There is little time" in model._requests[0][0]
    assert not any("There is little time" in instructions for instructions, _ in small._requests)
    assert len(small.asked()) == 2, "nor is a line asked for again for its length"


def test_another_setting_of_the_translator_translates_all_again(store: Store, model: Model) -> None:
    other = Model(room=500)
    translated(store, other, TEXTS)
    assert other.asked() == [TEXTS[:WINDOW_LINES], TEXTS[WINDOW_LINES:]]


def test_the_same_window_said_twice_is_translated_once_and_keeps_its_places(store: Store) -> None:
    model = Model()
    texts = [TEXTS[0], *[TEXTS[n % WINDOW_LINES] for n in range(3 * WINDOW_LINES)]]
    lines = translated(store, model, texts).lines
    assert [line.id for line in lines] == [line.id for line in transcript(texts).utterances]


def test_a_lesson_of_which_no_line_is_translated_is_refused(store: Store) -> None:
    class Mute(Model):
        engine_name: ClassVar[str] = "mute"

        def ask(self, instructions: str, request: str, schema: dict[str, Any]) -> str:
            return "{}"

    with pytest.raises(EngineRefused, match="none of the 10 lines"):
        translated(store, Mute(), TEXTS)


# Reading


def test_a_lesson_is_read_in_pieces_as_large_as_the_model_can_hold(store: Store) -> None:
    large, small = Model(), Model(room=500)
    texts = [*TEXTS, WITH_TERM] * 4
    said = transcript(texts)
    assert terms.function(store, transcript=said, translator=large, target="en").terms == (Term(source="призма", translation="prism"),)
    few = large.asked()
    whole = terms.function(store, transcript=said, translator=small, target="en")
    many = small.asked()
    assert len(few) < len(many)
    assert [text for texts in many[:-1] for text in texts] == texts
    assert whole.summary == "On all of it."


def test_a_changed_line_costs_its_piece(store: Store) -> None:
    model = Model(room=500)
    texts = [*TEXTS, WITH_TERM] * 4
    terms.function(store, transcript=transcript(texts), translator=model, target="en")
    model.asked()
    terms.function(store, transcript=transcript([*texts[:-1], NEW]), translator=model, target="en")
    read = [asked for asked in model.asked() if NEW in asked or TEXTS[0] in asked]
    assert len(read) == 1 and NEW in read[0]


# One line at a time


def test_a_line_whose_source_was_corrected_is_translated_with_its_terms(store: Store) -> None:
    model = Model()
    said = transcript([TEXTS[0], WITH_TERM, TEXTS[2]])
    termbase = Termbase(summary="On glass.", terms=(Term(source="призма", translation="line number"),))
    again = retranslate.function(
        store, transcript=said, sound=None, translator=model, target="en", termbase=termbase, lines=[said.utterances[1].id]
    )
    assert [line.id for line in again.lines] == [said.utterances[1].id]
    [(instructions, texts)] = model._requests
    assert texts == [WITH_TERM] and "призма = line number" in instructions and "On glass." in instructions


def test_a_line_that_is_too_long_takes_a_wording_that_is_there_before_the_model_is_asked(store: Store) -> None:
    model = Model()
    said = transcript(TEXTS[:2])
    lines = [
        TranslatedLine(id=said.utterances[0].id, text="The whole first line.", variants=("First.", "First line.", "The whole first line.")),
        TranslatedLine(id=said.utterances[1].id, text="A rather long and tiresome second line of the lecture."),
    ]
    translation = Translation(language="en", lines=tuple(lines), engine="-")
    limits = {said.utterances[0].id: 12, said.utterances[1].id: 40}
    shorter = shorten.function(store, transcript=said, translation=translation, translator=model, termbase=Termbase(), budgets=limits)
    assert [line.text for line in shorter.lines] == ["First line.", "This is what line number 1 says"]
    assert model.asked() == [[TEXTS[1]]]
