"""What runs did and what it took, kept in the store: for the plan of the next run, for the clean-up, for an operator.

`lessons/<sha256 of the recording>/<run>` says of one run which records it used, with what inputs, computed or cached, in how many seconds.
The same run again writes the same file with a newer time. `figures` keeps a moving average of what each stage takes with each engine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple

from blocks.store import Store
from dubbing.errors import StoreFailed
from dubbing.keys import digest
from dubbing.lesson import Source

FIGURES = "figures/stages"
_NEWEST_COUNTS = 0.3  # of an average, for the newest value: machines and models change
_LEAST_MEASURED = 0.05  # seconds: shorter ones say nothing about the work


class StageEntry(NamedTuple):
    """One stage of a run."""

    stage: str
    version: int
    key: str  # name of its record
    inputs: dict[str, Any]  # as `dubbing.keys.described` gives them, "input.part" each
    state: str  # computed or cached
    seconds: float
    lines_computed: int | None
    lines_cached: int | None

    @property
    def engines(self) -> str:
        """What the stage works with: a stage's time means something for these only."""
        return engines_in(self.inputs)


def engines_in(inputs: dict[str, Any]) -> str:
    return ", ".join(str(value) for name, value in sorted(inputs.items()) if name.count(".") == 1 and name.endswith(".engine"))


class Run(NamedTuple):
    """A run as it is kept."""

    name: str  # of the lesson
    sha256: str
    duration: float  # of the lesson, seconds
    target_language: str
    output: str  # the folder that was written
    started: float  # seconds since 1970
    seconds: float
    state: str  # completed or failed
    stages: list[StageEntry]


class History:
    """The run in hand, as it is written down."""

    def __init__(self, lesson: Source, target_language: str, output: str) -> None:
        self.lesson, self.target_language, self.output = lesson, target_language, output
        self.started = time.time()
        self.stages: dict[tuple[str, str], StageEntry] = {}

    def note(self, entry: StageEntry) -> None:
        """A stage is finished. One that was computed stays so when a replay finds it cached."""
        before = self.stages.get((entry.stage, entry.key))
        if before is None or entry.state == "computed":
            self.stages[entry.stage, entry.key] = entry

    def save(self, store: Store, state: str) -> None:
        run = Run(
            self.lesson.name,
            self.lesson.sha256,
            self.lesson.duration,
            self.target_language,
            self.output,
            self.started,
            time.time() - self.started,
            state,
            list(self.stages.values()),
        )
        name = digest("run", run.target_language, sorted(key for _, key in self.stages))[:24]
        store.write_record(f"lessons/{run.sha256}/{name}", {**run._asdict(), "stages": [entry._asdict() for entry in run.stages]})
        if any(entry.state == "computed" for entry in run.stages):
            store.write_record(FIGURES, _averaged(store.read_record(FIGURES) or {}, run))


_history: ContextVar[History | None] = ContextVar("history", default=None)


def history_in_hand() -> History | None:
    return _history.get()


@contextmanager
def written_down(store: Store, lesson: Source, target_language: str, output: str) -> Iterator[History]:
    """What the stages inside the block do is kept in the store when it ends, however it ends.

    Raises:
        StoreFailed: it can't be kept.
    """
    history = History(lesson, target_language, output)
    token = _history.set(history)
    try:
        yield history
    except BaseException:
        if history.stages:
            with suppress(StoreFailed):  # the failure that ended the run says more
                history.save(store, "failed")
        raise
    finally:
        _history.reset(token)
    history.save(store, "completed")


def runs_of(store: Store, sha256: str) -> list[Run]:
    """All runs of a recording that are known, the oldest first."""
    return read_runs(store, [found.name for found in store.files.found(f"lessons/{sha256}/")])


def read_runs(store: Store, names: list[str]) -> list[Run]:
    """The runs of these names that can be read, the oldest first."""
    runs = []
    for record in store.read_records(names):
        try:
            runs.append(Run(**{**record, "stages": [StageEntry(**entry) for entry in record["stages"]]}))  # type: ignore[dict-item, index]
        except (TypeError, KeyError):  # damaged, or of another version of this code
            continue
    return sorted(runs, key=lambda run: run.started)


def _averaged(figures: dict[str, Any], run: Run) -> dict[str, Any]:
    """Seconds a line, besides the lines, and a second of lesson, by stage and engines, with this run's counted in."""
    for entry in run.stages:
        if entry.state != "computed" or entry.seconds < _LEAST_MEASURED:
            continue
        figure = figures.setdefault(entry.stage, {}).setdefault(entry.engines, {"runs": 0})
        values = {}
        if entry.lines_computed is not None:
            # A run that computes a few lines of many shows what the stage takes besides its lines.
            if entry.lines_computed <= (entry.lines_cached or 0):
                values["fixed"] = max(0.0, entry.seconds - figure.get("a_line", 0.0) * entry.lines_computed)
            else:
                values["a_line"] = max(0.0, entry.seconds - figure.get("fixed", 0.0)) / entry.lines_computed
        elif run.duration:
            values["a_second"] = entry.seconds / run.duration
        for name, value in values.items():
            weight = max(_NEWEST_COUNTS, 1 / (figure["runs"] + 1))
            figure[name] = value if name not in figure else (1 - weight) * figure[name] + weight * value
        figure["runs"] += 1
    return figures
