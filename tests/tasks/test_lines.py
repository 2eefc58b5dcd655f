"""Work line by line, several lines at a time: what is kept, when, and what a failure or an interruption costs."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from blocks.store import Store
from dubbing.lesson import Noun
from tasks import lines
from tasks.lines import line_by_line


class Done(Noun):
    text: str


def work(store: Store, items: list[str], compute: Callable[[str], Done], at_once: int) -> list[str]:
    results = line_by_line(store, "work", 1, items, lambda item: [item], {}, lambda item: {"text": item}, compute, Done, at_once=at_once)
    return [done.text for done in results]


def kept(store: Store) -> int:
    return len(list(store.files.found("lines/")))


ITEMS = [f"item {number}" for number in range(8)]


@pytest.mark.parametrize("at_once", [1, 3, 20])
def test_results_come_in_the_items_order_and_each_is_made_once(store: Store, at_once: int) -> None:
    made: list[str] = []

    def compute(item: str) -> Done:
        made.append(item)
        return Done(text=item.upper())

    assert work(store, [*ITEMS, ITEMS[0]], compute, at_once) == [item.upper() for item in [*ITEMS, ITEMS[0]]]
    assert sorted(made) == ITEMS
    assert work(store, ITEMS, compute, at_once) == [item.upper() for item in ITEMS] and len(made) == len(ITEMS)


def test_an_item_is_kept_while_others_are_still_in_hand(store: Store) -> None:
    first_is_kept = threading.Event()

    def compute(item: str) -> Done:
        if item != ITEMS[0]:
            assert first_is_kept.wait(600)
        return Done(text=item)

    write = store.write_record

    def watched(name: str, value: object) -> None:
        write(name, value)
        first_is_kept.set()

    object.__setattr__(store, "write_record", watched)
    assert work(store, ITEMS, compute, 4) == ITEMS


def test_after_a_failure_nothing_is_begun_and_what_is_in_hand_is_kept(store: Store) -> None:
    begun: list[str] = []
    all_begun, failed = threading.Barrier(3, timeout=600), threading.Event()

    def compute(item: str) -> Done:
        begun.append(item)
        all_begun.wait()
        if item == ITEMS[1]:
            failed.set()
            raise ValueError("no")
        assert failed.wait(600)
        return Done(text=item)

    with pytest.raises(ValueError, match="no"):
        work(store, ITEMS, compute, 3)
    assert sorted(begun) == ITEMS[:3] and kept(store) == 2


def test_who_interrupts_waits_for_nobody(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = threading.Event()
    begun = threading.Barrier(3, timeout=600)

    def compute(item: str) -> Done:
        if item != ITEMS[0]:
            begun.wait()
            may_end.wait(600)
        else:
            begun.wait()
        return Done(text=item)

    def stopped(share: float) -> None:
        if share > 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(lines, "advance", stopped)
    with pytest.raises(KeyboardInterrupt):
        work(store, ITEMS, compute, 3)
    assert not may_end.is_set() and kept(store) == 1, "what was made is kept, what was in hand is lost"
    may_end.set()
