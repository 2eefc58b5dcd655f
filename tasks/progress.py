"""What stages tell while they work: to a terminal, to the Prefect UI, to the record of the run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple
from uuid import UUID

from prefect import get_client
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.context import FlowRunContext, TaskRunContext

# Share of a lesson's time that each stage takes on two cores without a GPU (tests/benchmarks/lesson.py): to estimate what is left.
TIME_SHARES = {
    "ingest": 0.01,
    "extract_audio": 0.03,
    "separate": 0.12,
    "transcribe": 0.12,
    "translate": 0.26,
    "synthesize": 0.25,
    "fit": 0.02,
    "subtitles": 0.02,
    "mix": 0.04,
    "render": 0.02,
    "inspect": 0.11,
}

TAG = "coursedub"  # of our runs: automations that end those which nobody ends go by it
WHOLE = "whole"  # in a stage's place: all that a course's lessons are

_RESULT = "result"  # the artifact's key
ARTIFACT_EVERY = 2.0  # seconds between updates of a progress artifact


class Event(NamedTuple):
    """What a watcher is told."""

    stage: str
    kind: Literal["started", "waiting", "advanced", "finished", "failed"]  # waiting: another run computes it just now
    share: float = 0.0  # of the stage's work, 0 to 1
    state: Literal["computed", "cached", ""] = ""
    seconds: float = 0.0
    lines_computed: int | None = None
    lines_cached: int | None = None


Watcher = Callable[[Event], None]
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Tell `watcher` of every stage that runs inside the block, whatever thread it runs in. What the watcher raises stops the stage."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def tell(event: Event) -> None:
    watcher = _watcher.get()
    if watcher:
        watcher(event)


def advance_download(share: float) -> None:
    """A lesson's download is so far."""
    tell(Event("download", "advanced", share))


class Stopped(Exception):
    """The run that a stage belongs to has ended meanwhile."""


class StageLog:
    """A watcher that remembers what each stage did, and passes on what it is told."""

    def __init__(self) -> None:
        self._events: dict[str, Event] = {}
        self._shares: dict[str, float] = {}
        self._order: list[str] = []
        self._pass_on = _watcher.get()
        self._stopped = False

    def stop(self) -> None:
        """Stages that still work beside others end as soon as they tell how far they are."""
        self._stopped = True

    def __call__(self, event: Event) -> None:
        if self._stopped and event.kind in ("advanced", "waiting"):
            raise Stopped(event.stage)
        if event.kind == "started" and event.stage not in self._order:
            self._order.append(event.stage)
        self._shares[event.stage] = max(self._shares.get(event.stage, 0.0), event.share)
        if event.kind == "finished":
            self._events[event.stage] = _together(self._events[event.stage], event) if event.stage in self._events else event
        if self._pass_on:
            self._pass_on(event)

    def share(self) -> float:
        """How much of a lesson's work is done, about."""
        return sum(TIME_SHARES.get(stage, 0.0) * share for stage, share in self._shares.items())

    def outcomes(self) -> list[dict[str, Any]]:
        """For each stage, in order: name, state, seconds, and for stages that work line by line how many lines were computed and cached."""
        outcomes = []
        for name in self._order:
            if event := self._events.get(name):
                outcome: dict[str, Any] = {"name": name, "state": event.state, "seconds": round(event.seconds, 2)}
                if event.lines_computed is not None:
                    outcome |= {"lines_computed": event.lines_computed, "lines_cached": event.lines_cached or 0}
                outcomes.append(outcome)
        return outcomes


def _together(before: Event, after: Event) -> Event:
    """A stage that ran more than once in a run: cached if it was every time. A line that was computed twice counts once."""
    together = after._replace(
        state="cached" if before.state == after.state == "cached" else "computed", seconds=before.seconds + after.seconds
    )
    if after.lines_computed is None or before.lines_computed is None:
        return together
    lines = after.lines_computed + (after.lines_cached or 0)
    computed = min(lines, before.lines_computed + after.lines_computed)
    return together._replace(lines_computed=computed, lines_cached=lines - computed)


class Work:
    """A stage's body while it runs: how far it is, how many lines it computed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started = self.last_update = time.monotonic()
        self.artifact: Any = None
        self.lines_computed: int | None = None
        self.lines_cached: int | None = None

    def advance(self, share: float) -> None:
        tell(Event(self.name, "advanced", share))
        now = time.monotonic()
        if now - self.last_update >= ARTIFACT_EVERY and TaskRunContext.get():
            self.last_update = now
            left = (now - self.started) * (1 - share) / share if share > 0 else 0.0
            description = f"{self.name}: about {left:.0f} s left"
            if self.artifact is None:
                key = f"{self.name.replace('_', '-')}-progress"  # without a key the UI's page of artifacts leaves it out
                self.artifact = create_progress_artifact(progress=100 * share, key=key, description=description)
            else:
                update_progress_artifact(self.artifact, progress=100 * share, description=description)

    def count_lines(self, computed: int, cached: int) -> None:
        self.lines_computed = (self.lines_computed or 0) + computed
        self.lines_cached = (self.lines_cached or 0) + cached

    def finish(self) -> None:
        if self.artifact is not None:
            update_progress_artifact(self.artifact, progress=100.0, description=f"{self.name}: done")


_work: ContextVar[Work | None] = ContextVar("work", default=None)


@contextmanager
def working(work: Work) -> Iterator[None]:
    """The body of a stage runs inside this block."""
    token = _work.set(work)
    try:
        yield
    finally:
        _work.reset(token)


def work_in_hand() -> Work | None:
    return _work.get()


def advance(share: float) -> None:
    """Called by a stage's body: this share of the work is done. Also the place where a stage can be stopped."""
    work = _work.get()
    if work:
        work.advance(min(1.0, max(0.0, share)))


def publish_table(key: str, rows: Sequence[Mapping[Any, Any]], description: str) -> None:
    """A table in the Prefect UI, where there is one."""
    if TaskRunContext.get():
        create_table_artifact(
            table=[{name: _shown(value) for name, value in row.items()} for row in rows], key=key, description=description
        )


def publish_result(result: Mapping[str, Any]) -> None:
    """What a run returns, for who reads it through Prefect's API: a table of names and values, each value as JSON."""
    if FlowRunContext.get():
        rows = [{"name": name, "value": json.dumps(value, ensure_ascii=False)} for name, value in result.items()]
        create_table_artifact(table=rows, key=_RESULT, description="What the run returned")


def tables_of(run: UUID, key: str) -> list[list[dict[str, Any]]]:
    """Rows of each table that a run has published under this key, the newest first."""
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]), key=ArtifactFilterKey(any_=[key]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=of_run, sort=ArtifactSort.CREATED_DESC)
    return [json.loads(str(table.data)) for table in found]


def result_of(run: UUID) -> dict[str, Any] | None:
    """What `publish_result` published of a run last."""
    tables = tables_of(run, _RESULT)
    return {row["name"]: json.loads(row["value"]) for row in tables[0]} if tables else None


def _shown(value: Any) -> Any:
    """JSON has no NaN, which is how pandas says "nothing"."""
    return None if isinstance(value, float) and math.isnan(value) else value
