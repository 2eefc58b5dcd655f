"""Placing clips on the timeline: one convex problem for the whole lesson.

What listeners mind most is rushed speech, then overlap, then drift. So overlap is forbidden outright, speed is bounded, and between
drift and speed a quadratic program decides for all lines at once: a line that is too long borrows the pause after it, pushes its
neighbours a little, and is sped up only where that would push a whole passage. Greedy placement, line by line, can't see that.

With start s, placed duration d, natural duration n and source start a for each line, minimise

    sum (s - a)^2  +  e (1 - d/n)^2  +  k1 t1 + k2 t2  +  K o

subject to  t1 >= 1 - 1.10 d/n,  t2 >= 1 - 1.20 d/n,  t1, t2, o >= 0   (speed beyond what is free, and beyond what is acceptable)
            n/1.30 <= d <= n/0.95,   s >= a - LEAD,   s + d + GAP <= next s,   last s + d <= lesson + o

It is always feasible, since starts may be late without bound and the lesson's end is soft. Solved by Clarabel (an interior-point method for
conic programs with quadratic objective), which is deterministic.

The problem falls apart at every pause that no line before it can reach. Each passage between two such pauses is solved by itself: the same
optimum, and a line that is changed moves nothing beyond its own passage, not even by the solver's tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

FREE_RATE = 1.10  # nobody hears it
ACCEPTABLE_RATE = 1.20
HIGHEST_RATE = 1.30
LOWEST_RATE = 0.95

GAP = 0.08  # seconds of silence kept between two lines
LEAD = 0.2  # seconds a line may start before the lecturer does: earlier looks wrong
LATE_DRIFT = 1.0  # seconds: beyond it a line is flagged
LEAST_KEPT = 0.6  # of a line's characters when it is said shorter

# Prices against one second of drift of one line (cost 1). A speed of 1.20 is worth about one second's drift of a neighbour.
_NATURAL = 0.05
_BEYOND_FREE = 8.0
_BEYOND_ACCEPTABLE = 24.0
_OVERRUN = 100.0
_RATE_STEP = 0.001  # rates are rounded up to it, so that a stretched clip can be cached by its rate


class Natural(NamedTuple):
    """A line before it is placed."""

    source_start: float
    source_end: float
    duration: float  # of the clip at natural speed


class Place(NamedTuple):
    start: float
    rate: float
    end: float
    overflow: float  # seconds by which it ends after the next line's source start, or the lesson; 0 when it fits


def place(lines: Sequence[Natural], lesson_duration: float) -> list[Place]:
    """Starts and rates for all lines, in order.

    Guarantees, whatever the input: no overlap, `LOWEST_RATE <= rate <= HIGHEST_RATE`, nothing starts before 0 or more than `LEAD` early.

    Raises:
        ValueError: a duration is not positive, or the source starts are out of order.
    """
    if any(not line.duration > 0 for line in lines):
        raise ValueError("every clip needs a duration above 0")
    if any(after.source_start < before.source_start for before, after in pairwise(lines)):
        raise ValueError("lines must be in the order of their source starts")
    starts: list[float] = []
    durations: list[float] = []
    for passage in _passages(lines):
        is_last = len(starts) + len(passage) == len(lines)
        some = _placed(passage, lesson_duration if is_last else None)
        starts += some[0]
        durations += some[1]
    return _exact(lines, starts, durations, lesson_duration)


def _passages(lines: Sequence[Natural]) -> Iterator[Sequence[Natural]]:
    """Runs of lines that can't influence each other. At natural speed, each as soon as the one before has ended, no line is earlier than in
    the optimum: where such a line doesn't reach the earliest start of the next, the two are never in each other's way."""
    begin, end = 0, -math.inf
    for position, line in enumerate(lines):
        if position > begin and end + GAP <= line.source_start - LEAD:
            yield lines[begin:position]
            begin, end = position, -math.inf
        end = max(line.source_start, end + GAP) + line.duration
    if lines:
        yield lines[begin:]


def _placed(passage: Sequence[Natural], lesson_duration: float | None) -> tuple[list[float], list[float]]:
    """Starts and durations. Mostly every line fits as it is, which costs nothing, so nothing is better."""
    source, natural = [line.source_start for line in passage], [line.duration for line in passage]
    due = [*source[1:], math.inf if lesson_duration is None else lesson_duration + GAP]
    if all(start + length + GAP <= next_start for start, length, next_start in zip(source, natural, due, strict=True)):
        return source, natural
    return _solve(passage, source[-1] + sum(natural) + GAP * len(natural) if lesson_duration is None else lesson_duration)


def _solve(lines: Sequence[Natural], lesson_duration: float) -> tuple[list[float], list[float]]:
    """The quadratic program of the module's docstring. Variables in the order s, d/n, t1, t2, o."""
    import clarabel  # imported here: a cached run never needs a solver
    import numpy as np
    from scipy import sparse

    count = len(lines)
    source = np.array([line.source_start for line in lines])
    natural = np.array([line.duration for line in lines])
    identity, zero = sparse.identity(count, format="csc"), sparse.csc_matrix((count, count))
    column = sparse.csc_matrix((count, 1))
    variables = 4 * count + 1

    quadratic = sparse.block_diag([2 * identity, 2 * _NATURAL * identity, zero, zero, sparse.csc_matrix((1, 1))], format="csc")
    linear = np.concatenate(
        [-2 * source, np.full(count, -2 * _NATURAL), np.full(count, _BEYOND_FREE), np.full(count, _BEYOND_ACCEPTABLE), [_OVERRUN]]
    )

    def row(*blocks: sparse.spmatrix) -> sparse.spmatrix:
        return sparse.hstack(blocks, format="csc")

    # Every constraint as  A x + slack = b  with slack >= 0.
    after = sparse.diags([np.ones(count - 1), -np.ones(count - 1)], [0, 1], shape=(count - 1, count), format="csc")
    take = sparse.diags([natural[:-1]], [0], shape=(count - 1, count), format="csc")
    none = sparse.csc_matrix((count - 1, count))
    last = sparse.csc_matrix(([1.0], ([0], [count - 1])), shape=(1, count))
    empty = sparse.csc_matrix((1, count))
    constraints = sparse.vstack(
        [
            row(zero, -FREE_RATE * identity, -identity, zero, column),
            row(zero, -ACCEPTABLE_RATE * identity, zero, -identity, column),
            row(zero, zero, -identity, zero, column),
            row(zero, zero, zero, -identity, column),
            row(zero, -identity, zero, zero, column),
            row(zero, identity, zero, zero, column),
            row(-identity, zero, zero, zero, column),
            row(after, take, none, none, sparse.csc_matrix((count - 1, 1))),
            row(last, last * natural[-1], empty, empty, sparse.csc_matrix([[-1.0]])),
            sparse.csc_matrix(([-1.0], ([0], [variables - 1])), shape=(1, variables)),
        ],
        format="csc",
    )
    bounds = np.concatenate(
        [
            np.full(count, -1.0),
            np.full(count, -1.0),
            np.zeros(count),
            np.zeros(count),
            np.full(count, -1 / HIGHEST_RATE),
            np.full(count, 1 / LOWEST_RATE),
            -np.maximum(source - LEAD, 0.0),
            np.full(count - 1, -GAP),
            [lesson_duration],
            [0.0],
        ]
    )
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    solver = clarabel.DefaultSolver(quadratic, linear, constraints, bounds, [clarabel.NonnegativeConeT(len(bounds))], settings)
    answer = solver.solve()
    if answer.status not in (clarabel.SolverStatus.Solved, clarabel.SolverStatus.AlmostSolved):
        # Seen only where clips are thousands of times as long as their places. Nothing there can fit: the least bad is as fast as allowed.
        return source.tolist(), (natural / HIGHEST_RATE).tolist()
    solution = np.array(answer.x)
    return solution[:count].tolist(), (solution[count : 2 * count] * natural).tolist()


def _exact(lines: Sequence[Natural], starts: list[float], durations: list[float], lesson_duration: float) -> list[Place]:
    """The solver's answer made exact: its tolerance (1e-8) must not become an overlap of one sample."""
    places: list[Place] = []
    free_from = 0.0
    for position, line in enumerate(lines):
        rate = math.ceil(round(line.duration / durations[position] / _RATE_STEP, 3)) * _RATE_STEP
        rate = round(min(max(rate, LOWEST_RATE), HIGHEST_RATE), 3)
        if abs(rate - 1.0) <= 2 * _RATE_STEP:
            rate = 1.0 if rate <= 1.0 or _fits_naturally(position, lines, starts) else rate
        start = max(round(starts[position], 3), _millisecond_from(max(line.source_start - LEAD, free_from, 0.0)))
        end = start + line.duration / rate
        due = lines[position + 1].source_start if position + 1 < len(lines) else lesson_duration
        places.append(Place(start=start, rate=rate, end=end, overflow=max(0.0, round(end - max(due, line.source_end), 3))))
        free_from = end + GAP
    return places


def _millisecond_from(seconds: float) -> float:
    """The first whole millisecond that is not before: a bound that is rounded down would be too early."""
    return math.ceil(seconds * 1000 - 1e-6) / 1000


def _fits_naturally(position: int, lines: Sequence[Natural], starts: list[float]) -> bool:
    if position + 1 == len(lines):
        return True
    return starts[position] + lines[position].duration + GAP <= starts[position + 1] + 0.02


def budgets(lines: Sequence[Natural], characters: Sequence[int], lesson_duration: float) -> dict[int, int]:
    """Positions of the lines that don't fit, and how many characters each may have to fit at an acceptable rate.

    A line doesn't fit when even at `ACCEPTABLE_RATE` it reaches into the next one. Its budget follows from its own clip: so many characters
    took so many seconds. At least `LEAST_KEPT` of its length stays, since more can't be taken out of a sentence without taking its meaning.
    """
    limits = {}
    for position, line in enumerate(lines):
        due = lines[position + 1].source_start - GAP if position + 1 < len(lines) else lesson_duration
        room = max(due, line.source_end) - line.source_start
        if line.duration > room * ACCEPTABLE_RATE:
            wanted = characters[position] * room * FREE_RATE / line.duration
            limits[position] = round(max(wanted, LEAST_KEPT * characters[position]))
    return limits
