"""Placement as a listener judges it: no overlap ever, speech at its own speed where there is a pause to borrow, little drift."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dubbing import placement
from dubbing.placement import (
    ACCEPTABLE_RATE,
    FREE_RATE,
    GAP,
    HIGHEST_RATE,
    LEAD,
    LEAST_KEPT,
    LOWEST_RATE,
    Natural,
    Place,
    budgets,
    place,
)

seconds = st.floats(0.0, 15.0).map(lambda value: round(value, 4))
pauses = st.sampled_from([0.0, 0.0, 0.3]) | st.floats(0.0, 20.0)
clips = st.floats(0.05, 30.0) | st.floats(1e-5, 0.05) | st.floats(30.0, 4000.0)


@st.composite
def lessons(draw: st.DrawFn) -> tuple[list[Natural], float]:
    """Lines in order, 1 to 60, and the lesson's length: generous, exact, or too short for its last lines."""
    lines, at = [], draw(st.floats(0.0, 3.0))
    for spoken, pause, clip, together in draw(st.lists(st.tuples(seconds, pauses, clips, st.booleans()), min_size=1, max_size=60)):
        lines.append(Natural(at, at + spoken, clip))
        at += 0.0 if together and spoken < 2 else spoken + pause
    return lines, draw(st.sampled_from([at, at + 30.0, at / 2, 0.0]))


@st.composite
def plausible_lessons(draw: st.DrawFn) -> tuple[list[Natural], float]:
    """Clips from two thirds to one and a half of what they replace."""
    lines, at = [], draw(st.floats(0.0, 3.0))
    for spoken, pause, ratio in draw(
        st.lists(st.tuples(st.floats(1.0, 12.0), st.sampled_from([0.0, 0.2, 0.6, 3.0]), st.floats(0.67, 1.5)), min_size=1, max_size=20)
    ):
        lines.append(Natural(at, at + spoken, spoken * ratio))
        at += spoken + pause
    return lines, at


def price(lines: list[Natural], starts: list[float], durations: list[float], lesson: float) -> float:
    """The objective of the module's docstring."""
    total = placement._OVERRUN * max(0.0, starts[-1] + durations[-1] - lesson)
    for line, start, duration in zip(lines, starts, durations, strict=True):
        stretch = duration / line.duration
        total += (start - line.source_start) ** 2 + placement._NATURAL * (1 - stretch) ** 2
        total += placement._BEYOND_FREE * max(0.0, 1 - FREE_RATE * stretch)
        total += placement._BEYOND_ACCEPTABLE * max(0.0, 1 - ACCEPTABLE_RATE * stretch)
    return total


def price_of(lines: list[Natural], places: list[Place], lesson: float) -> float:
    return price(lines, [line.start for line in places], [line.end - line.start for line in places], lesson)


@given(lessons())
@example(([Natural(1 / 3, 2.0, 2.0)], 60.0))
@example(([Natural(5.0, 5.0, 1.0)] * 3, 60.0))
@example(([Natural(100.0, 104.0, 5.0), Natural(104.0, 108.0, 5.0)], 50.0))
def test_whatever_comes_in_the_promises_are_kept(lesson: tuple[list[Natural], float]) -> None:
    lines, length = lesson
    places = place(lines, length)
    assert len(places) == len(lines)
    for line, found in zip(lines, places, strict=True):
        assert LOWEST_RATE <= found.rate <= HIGHEST_RATE
        assert found.start >= max(0.0, line.source_start - LEAD) - 1e-9
        assert found.end == pytest.approx(found.start + line.duration / found.rate)
    for before, after in pairwise(places):
        assert after.start >= before.end + GAP - 1e-9


@given(lessons())
def test_overflow_is_what_does_not_fit_and_nothing_else(lesson: tuple[list[Natural], float]) -> None:
    lines, length = lesson
    places = place(lines, length)
    dues = [line.source_start for line in lines[1:]] + [length]
    for line, found, due in zip(lines, places, dues, strict=True):
        assert found.overflow == pytest.approx(max(0.0, found.end - max(due, line.source_end)), abs=1e-3)


@given(lessons())
def test_the_same_lines_are_placed_the_same(lesson: tuple[list[Natural], float]) -> None:
    assert place(*lesson) == place(*lesson)


@settings(max_examples=40)
@given(plausible_lessons(), st.integers(0, 2**32))
def test_no_other_way_that_keeps_the_promises_is_noticeably_better(lesson: tuple[list[Natural], float], seed: int) -> None:
    (lines, length), chance = lesson, random.Random(seed)
    places = place(lines, length)
    # What exactness costs: whole milliseconds of starts, which the lesson's end is charged dearly for, and rates in thousandths.
    allowed = price_of(lines, places, length) - 0.25 - 0.02 * len(lines)
    for _ in range(40):
        spread = chance.choice([0.005, 0.05, 0.5])
        others, free_from = [], 0.0
        for line, found in zip(lines, places, strict=True):
            rate = min(HIGHEST_RATE, max(LOWEST_RATE, found.rate + chance.gauss(0, spread / 5)))
            start = max(found.start + chance.gauss(0, spread), line.source_start - LEAD, free_from, 0.0)
            others.append(Place(start, rate, start + line.duration / rate, 0.0))
            free_from = others[-1].end + GAP
        assert price_of(lines, others, length) > allowed


def test_lines_that_fit_stay_where_the_lecturer_said_them_at_their_own_speed() -> None:
    lines = [Natural(1.0, 4.0, 2.8), Natural(5.0, 8.0, 3.0), Natural(9.0, 12.0, 2.0)]
    places = place(lines, 20.0)
    assert [(found.start, found.rate, found.overflow) for found in places] == [(1.0, 1.0, 0.0), (5.0, 1.0, 0.0), (9.0, 1.0, 0.0)]


def test_a_pause_is_borrowed_before_speech_is_sped_up() -> None:
    lines = [Natural(1.0, 4.0, 5.0), Natural(7.0, 10.0, 3.0)]  # two seconds too long, three seconds' pause
    first, second = place(lines, 20.0)
    assert (first.start, first.rate) == (1.0, 1.0)
    assert (second.start, second.rate) == (7.0, 1.0)
    assert first.overflow == 0.0


def test_speed_that_nobody_hears_is_used_before_the_next_line_drifts() -> None:
    lines = [Natural(0.5, 3.5, 3.25), Natural(3.6, 9.0, 5.0)]
    first, second = place(lines, 20.0)
    assert 1.0 < first.rate <= FREE_RATE
    assert abs(first.start - 0.5) + abs(second.start - 3.6) < 0.15


def test_where_there_are_no_pauses_the_speed_is_spread_over_the_passage() -> None:
    """Three lines a quarter too long and three with room to spare: no line is rushed, the short ones stay natural or give way."""
    lines = [Natural(3.0 * n, 3.0 * n + 3.0, 3.9 if n < 3 else 2.2) for n in range(6)]
    places = place(lines, 18.0)
    assert max(found.rate for found in places) <= ACCEPTABLE_RATE
    assert max(found.rate for found in places[:3]) - min(found.rate for found in places[:3]) < 0.12
    assert places[-1].rate == 1.0
    assert max(found.start - line.source_start for line, found in zip(lines, places, strict=True)) < 1.5


def test_a_single_overfull_line_pushes_its_neighbour_a_little_rather_than_being_rushed() -> None:
    lines = [Natural(0.5, 3.5, 4.2), Natural(3.6, 6.0, 2.0), Natural(8.0, 10.0, 2.0)]
    first, second, third = place(lines, 20.0)
    assert first.rate <= ACCEPTABLE_RATE
    assert 0.0 < second.start - 3.6 < 1.0
    assert (third.start, third.rate) == (8.0, 1.0)


def test_a_hopeless_lesson_is_spoken_as_fast_as_allowed_and_runs_over() -> None:
    lines = [Natural(2.0 * n, 2.0 * n + 2.0, 6.0) for n in range(10)]
    places = place(lines, 20.0)
    assert min(found.rate for found in places) > ACCEPTABLE_RATE
    assert places[-1].overflow > 10


def test_clips_beyond_all_measure_are_spoken_as_fast_as_allowed() -> None:
    """The solver gives up on clips ten thousand times as long as their places: its last numbers mean nothing."""
    chance = random.Random(5)
    for _ in range(30):
        lines, at = [], 0.0
        for _ in range(chance.randint(20, 60)):
            spoken = chance.uniform(0.0, 12.0)
            lines.append(Natural(at, at + spoken, max(1e-6, spoken * 10 ** chance.uniform(0, 4))))
            at += spoken
        places = place(lines, at)
        rushed = [found.rate for line, found in zip(lines, places, strict=True) if line.duration > 100]
        assert min(rushed, default=HIGHEST_RATE) >= ACCEPTABLE_RATE


@pytest.mark.parametrize("count", [1000, 5000])
def test_a_long_lesson_is_placed_as_one(count: int) -> None:
    chance = random.Random(count)
    lines, at = [], 0.0
    for _ in range(count):
        spoken = chance.uniform(1.0, 6.0)
        lines.append(Natural(at, at + spoken, spoken * chance.uniform(0.7, 1.3)))
        at += spoken + chance.choice([0.0, 0.3, 1.0])
    places = place(lines, at)
    assert all(after.start >= before.end + GAP - 1e-9 for before, after in pairwise(places))
    assert max(found.rate for found in places) <= HIGHEST_RATE
    assert max(abs(found.start - line.source_start) for line, found in zip(lines, places, strict=True)) < 3.0


@settings(max_examples=40)
@given(plausible_lessons())
def test_passages_are_placed_as_the_whole_would_be(lesson: tuple[list[Natural], float]) -> None:
    lines, length = lesson
    starts, durations = placement._solve(lines, length)
    whole = placement._exact(lines, starts, durations, length)
    assert price_of(lines, place(lines, length), length) <= price_of(lines, whole, length) + 0.01 * len(lines)


def test_a_changed_line_moves_nothing_beyond_the_next_pause() -> None:
    chance = random.Random(7)
    lines, at = [], 0.0
    for position in range(3000):
        spoken = chance.uniform(1.0, 6.0)
        lines.append(Natural(at, at + spoken, spoken * chance.uniform(0.7, 1.4)))
        at += spoken + (3.0 if position % 20 == 19 else chance.choice([0.0, 0.3]))
    before = place(lines, at)
    lines[1505] = lines[1505]._replace(duration=0.9 * lines[1505].duration)
    after = place(lines, at)
    changed = [position for position, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert 1505 in changed and min(changed) >= 1500 - 20 and max(changed) < 1520 + 20


def test_no_lines_are_no_places() -> None:
    assert place([], 10.0) == []


@pytest.mark.parametrize("duration", [0.0, -1.0, float("nan")])
def test_a_clip_without_length_is_refused(duration: float) -> None:
    with pytest.raises(ValueError, match="duration"):
        place([Natural(0.0, 1.0, duration)], 10.0)


def test_lines_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="order"):
        place([Natural(5.0, 6.0, 1.0), Natural(1.0, 2.0, 1.0)], 10.0)


def test_lines_that_fit_need_no_budget() -> None:
    lines = [Natural(0.0, 3.0, 3.0), Natural(3.5, 6.0, 2.9), Natural(10.0, 12.0, 9.0)]
    assert budgets(lines, [40, 40, 120], 20.0) == {}


def test_a_line_too_long_for_its_place_may_have_as_many_characters_as_its_own_voice_says_there() -> None:
    lines = [Natural(0.0, 3.0, 5.0), Natural(4.08, 6.0, 1.0)]  # four seconds to the next line
    assert budgets(lines, [100, 20], 20.0) == {0: round(100 * 4.0 * FREE_RATE / 5.0)}


def test_the_last_line_has_room_until_the_lesson_ends() -> None:
    line = Natural(10.0, 12.0, 6.0)
    assert budgets([line], [80], 20.0) == {}
    assert set(budgets([line], [80], 14.0)) == {0}


@given(lessons())
def test_a_budget_shortens_and_leaves_the_meaning(lesson: tuple[list[Natural], float]) -> None:
    lines, length = lesson
    characters = [max(1, round(15 * line.duration)) for line in lines]
    for position, limit in budgets(lines, characters, length).items():
        assert round(LEAST_KEPT * characters[position]) <= limit <= characters[position]
        room = max(lines[position + 1].source_start - GAP if position + 1 < len(lines) else length, lines[position].source_end)
        assert lines[position].duration / ACCEPTABLE_RATE > room - lines[position].source_start
