"""A run that is only imagined: the story is told as ever, but each stage looks its record up instead of working.

What a stage would give that isn't cached is `UNKNOWN`, and so is everything that follows from it. Plain functions of a story that look into
results are marked `passes_unknown`. Nothing is computed and nothing is written.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, ParamSpec, TypeVar

from blocks.engine import Engine, engines_of
from dubbing.lesson import Artifact
from tasks.history import Run, StageEntry, engines_in

if TYPE_CHECKING:
    from blocks.store import Store
    from tasks.stage import Stage

State = Literal["cached", "to compute", "unknown"]
Value = TypeVar("Value")
Inputs = ParamSpec("Inputs")
_LONGEST_SHOWN = 60  # characters of a value in a reason


class _Unknown:
    """What isn't known before an earlier stage has run; nor is anything about it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __bool__(self) -> bool:
        raise TypeError("this function of the story looks into a result that a plan doesn't have: mark it `passes_unknown`")

    __iter__ = __len__ = __getitem__ = __bool__


UNKNOWN: Any = _Unknown()


def is_known(value: Any) -> bool:
    return value is not UNKNOWN


def passes_unknown(function: Callable[Inputs, Value]) -> Callable[Inputs, Value]:
    """A function of unknown arguments has an unknown value."""

    @functools.wraps(function)
    def maybe(*args: Inputs.args, **kwargs: Inputs.kwargs) -> Value:
        return UNKNOWN if any(value is UNKNOWN for value in (*args, *kwargs.values())) else function(*args, **kwargs)

    return maybe


class PlannedLine(NamedTuple):
    ids: tuple[str, ...]  # the lines that stand or fall together
    state: State
    why: str = ""


class PlannedStage(NamedTuple):
    stage: str
    state: State
    why: str = ""
    lines: tuple[PlannedLine, ...] | None = None  # None: not worked line by line, or not known
    engines: str = ""
    works_with: tuple[Engine, ...] = ()


class LinesPlanned(Exception):
    """A stage's body has come to its lines, and a plan wants no more of it."""


class Plan:
    """What a run would do."""

    def __init__(self, lesson: str, runs: Sequence[Run]) -> None:
        self.lesson = lesson  # sha256
        self.stages: list[PlannedStage] = []
        self.needed: list[Artifact] = []  # blobs that the stages to compute will open
        self._entries: dict[str, list[StageEntry]] = {}
        for run in runs:
            for entry in run.stages:
                self._entries.setdefault(entry.stage, []).append(entry)
        self._lines: tuple[PlannedLine, ...] | None = None

    def look_up(self, stage: Stage[Any], store: Store, inputs: Mapping[str, Any]) -> Any:
        """What a stage would give, or UNKNOWN."""
        works_with = tuple(engines_of(inputs))
        unknown = [name for name, value in inputs.items() if value is UNKNOWN]
        if unknown:
            why = f"waits for {', '.join(unknown)}"
            self.stages.append(PlannedStage(stage.name, "unknown", why, works_with=works_with))
            return UNKNOWN
        key, described = stage.key(inputs)
        value = store.read_result(key)
        if value is not None:
            self.stages.append(PlannedStage(stage.name, "cached"))
            return stage.returns.model_validate(value)
        self.needed += stage.opened(inputs)
        self._lines = None
        if stage.per_line:
            with suppress(LinesPlanned):
                stage.function(store, **inputs)
        why = self._why(stage.name, stage.version, key, described)
        self.stages.append(PlannedStage(stage.name, "to compute", why, self._lines, engines_in(described), works_with))
        return UNKNOWN

    def note_lines(self, lines: Iterable[PlannedLine], needed: Iterable[Artifact]) -> None:
        self._lines = tuple(lines)
        self.needed += needed

    def _why(self, stage: str, version: int, key: str, described: Mapping[str, Any]) -> str:
        """What differs from the nearest result that was once computed for this lesson."""
        known = self._entries.get(stage, [])
        if not known:
            return "never computed for this lesson"
        if any(entry.key == key for entry in known):
            return "computed before, but its record or what it points at is gone"
        differences = [_differences(entry, version, described) for entry in reversed(known)]
        nearest: list[str] = min(differences, key=len)  # of equals, the newest
        return "; ".join(nearest)


def _differences(entry: StageEntry, version: int, described: Mapping[str, Any]) -> list[str]:
    """In words, how inputs differ from those of an earlier computation."""
    changes = [] if entry.version == version else [f"stage version {entry.version} → {version}"]
    for name in sorted({*entry.inputs, *described}):
        before, now = entry.inputs.get(name, _NOTHING), described.get(name, _NOTHING)
        if before != now or type(before) is not type(now):
            changes.append(difference(name, before, now))
    return changes


_NOTHING = object()


def difference(name: str, before: Any, now: Any) -> str:
    """One changed input in words.

    >>> difference("loudness", -16.0, -20.0), difference("transcript", "#12", "#34"), difference("translator.seed", 0, 1)
    ('loudness -16.0 → -20.0', 'transcript changed', 'translator.seed 0 → 1')
    """
    if all(isinstance(value, str) and value.startswith("#") for value in (before, now)):
        return f"{name} changed"
    return f"{name} {_shown(before)} → {_shown(now)}"


def _shown(value: Any) -> str:
    if value is _NOTHING:
        return "nothing"
    if not isinstance(value, str):
        return "none" if value is None else str(value)
    if value.startswith("#"):
        return "other"
    return value if len(value) <= _LONGEST_SHOWN else f"{value[: _LONGEST_SHOWN - 1]}…"


_plan: ContextVar[Plan | None] = ContextVar("plan", default=None)


def plan_in_hand() -> Plan | None:
    return _plan.get()


@contextmanager
def imagined(plan: Plan) -> Iterator[None]:
    """Stages inside the block are looked up, not run."""
    token = _plan.set(plan)
    try:
        yield
    finally:
        _plan.reset(token)
