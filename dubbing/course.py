"""A course while it is dubbed: how each lesson stands, as a table and as a page."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from dubbing.report import clock, template
from dubbing.wording import ENGLISH, Wording

LessonState = Literal["waiting", "in work", "dubbed", "unchanged", "in review", "rejected", "failed", "not started"]
STATES: dict[LessonState, str] = {
    "waiting": "has not begun",
    "in work": "is being dubbed",
    "dubbed": "something was computed",
    "unchanged": "all of it was there already",
    "in review": "waits for a reviewer",
    "rejected": "a reviewer rejected it, or nobody answered in time",
    "failed": "see why",
    "not started": "the window had closed",
}
OVER: tuple[LessonState, ...] = ("dubbed", "unchanged", "rejected", "failed")


class LessonOfCourse(NamedTuple):
    """How a lesson stands, in one language."""

    row: int  # of the manifest
    title: str
    language: str
    state: LessonState = "waiting"
    share: float = 0.0  # of its work, while it is in work
    duration: float | None = None  # of the lesson, seconds
    seconds: float | None = None  # that it took
    cost: float | None = None  # of the GPU server
    lines: int | None = None
    flagged: int | None = None  # lines
    word_error_rate: float | None = None
    why: str = ""
    folder: str = ""
    page: str = ""  # name of the file in the folder
    video: str = ""  # likewise
    address: str = ""  # of the published video
    run: str = ""  # of Prefect


def table(lessons: Sequence[LessonOfCourse], words: Wording = ENGLISH) -> list[dict[str, Any]]:
    """Rows for Prefect's UI, and for the page."""
    return [
        {
            "row": lesson.row,
            "lesson": lesson.title,
            "into": lesson.language,
            "state": words(lesson.state) + (f" {lesson.share:.0%}" if lesson.state == "in work" else ""),
            "duration": "" if lesson.duration is None else clock(lesson.duration),
            "took": "" if lesson.seconds is None else clock(lesson.seconds),
            "cost": "" if lesson.cost is None else round(lesson.cost, 4),
            "flagged": "" if lesson.lines is None else words("{n} of {all}", n=lesson.flagged, all=lesson.lines),
            "wrong words": "" if lesson.word_error_rate is None else f"{words.number(100 * lesson.word_error_rate, '.1f')}%",
            "result": lesson.address or (os.path.join(lesson.folder, lesson.video) if lesson.video else ""),
            "why": words.told(lesson.why),
        }
        for lesson in lessons
    ]


def summary(lessons: Sequence[LessonOfCourse], words: Wording = ENGLISH) -> str:
    """How many lessons stand how, in words.

    >>> summary([LessonOfCourse(2, "a", "en", "dubbed"), LessonOfCourse(3, "b", "en", "failed"), LessonOfCourse(4, "c", "en", "dubbed")])
    '3 lessons: 2 dubbed, 1 failed'
    """
    counts = Counter(lesson.state for lesson in lessons)
    states = ", ".join(words("{n} {state}", n=counts[state], state=words(state)) for state in STATES if counts[state])
    return words("{n} {n:lesson|lessons}: {states}", n=len(lessons), states=states)


def page(name: str, lessons: Sequence[LessonOfCourse], folder: Path, terms: Sequence[str], ended: bool, words: Wording = ENGLISH) -> str:
    """`index.html` of a course's folder, which links to the lessons' own.

    Args:
        folder: that the page will be in.
        terms: languages for which a file of terms lies beside it, terms.LANGUAGE.csv.
        ended: else the page loads itself anew now and then.
        words: of whoever reads it.
    """

    def link(lesson: LessonOfCourse, file: str) -> str:
        return quote(os.path.relpath(os.path.join(lesson.folder, file), folder)) if file else ""

    over = [lesson for lesson in lessons if lesson.state in OVER]
    costs = [lesson.cost for lesson in lessons if lesson.cost is not None]
    return template("course.html.j2").render(
        words=words,
        name=name,
        ended=ended,
        terms=[(language, words.name_of(language)) for language in terms],
        summary=summary(lessons, words),
        done=len(over) / len(lessons),
        hours=clock(sum(lesson.duration or 0.0 for lesson in lessons)),
        cost=None if not costs else sum(costs),
        flagged=sum(lesson.flagged or 0 for lesson in lessons),
        states={state: words(about) for state, about in STATES.items()},
        rows=[
            (lesson, row, words.name_of(lesson.language), link(lesson, lesson.page), link(lesson, lesson.video))
            for lesson, row in zip(lessons, table(lessons, words), strict=True)
        ],
    )
