"""Stages of several lessons take turns with models: one at a time, grouped by model, nobody forgotten."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import groupby

import pytest

from tasks.progress import Event, watched_by
from tasks.turns import Turns, taking_turns, turn

MODELS = ["separator", "recogniser", "translator", "speech"]


def lessons(count: int, stages: Sequence[str]) -> list[str]:
    """The models in the order in which they worked for so many lessons at once."""
    turns, worked, at_work = Turns(), [], threading.Semaphore(1)
    together = threading.Barrier(count)

    def tell() -> None:
        with taking_turns(turns):
            for model in stages:
                together.wait()  # all have come: who goes first is for the turns to say
                with turn("stage", model):
                    assert at_work.acquire(blocking=False), "two at once"
                    worked.append(model)
                    at_work.release()

    threads = [threading.Thread(target=tell) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return worked


def test_stages_come_grouped_by_model() -> None:
    assert [model for model, _ in groupby(lessons(4, MODELS))] == MODELS


def test_who_wants_the_model_that_worked_last_goes_first() -> None:
    turns, order = Turns(), []
    first = threading.Event()

    def want(name: str, model: str) -> threading.Thread:
        def work() -> None:
            with turns.turn("stage", model):
                order.append(name)

        thread = threading.Thread(target=work)
        before = len(turns._waiting)
        thread.start()
        while len(turns._waiting) == before:
            pass
        return thread

    with turns.turn("stage", "speech"):
        threads = [want("a", "translator"), want("b", "speech"), want("c", "translator"), want("d", "recogniser")]
        first.set()
    for thread in threads:
        thread.join(60)
    assert order == ["b", "a", "c", "d"]


def test_a_lesson_that_is_given_up_while_it_waits_gives_up_its_place() -> None:
    class GivenUp(Exception):
        pass

    def stop(event: Event) -> None:
        assert event.kind == "waiting"
        raise GivenUp

    turns = Turns()
    with turns.turn("stage", "speech"), watched_by(stop), pytest.raises(GivenUp), turns.turn("stage", "translator"):
        pass
    with turns.turn("stage", "recogniser"):
        assert not turns._waiting


def test_without_turns_nobody_waits() -> None:
    with turn("stage", "speech"), turn("stage", "speech"):
        pass
    with taking_turns(Turns()), turn("fit", ""), turn("mix", ""):
        pass
