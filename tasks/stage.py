"""What makes a function a stage: a Prefect task that is computed once for the same inputs, watched while it works.

    @stage(version=1, returns=Transcript)
    def transcribe(store: Store, sound: Recording, recogniser: Recogniser) -> Transcript: ...

    transcript = transcribe(store, sound=sound, recogniser=recogniser)            # waits
    pending = transcribe.submit(store, sound=sound, recogniser=recogniser)        # runs beside others; pending.result()

The cache key is the stage's name, its version and its inputs (`dubbing.keys`), except the store, which shapes nothing, and what the stage
declares `unkeyed`. Raise the version when the code changes what comes out: `tests/tasks/test_stage_versions.py` asks for a decision when
the code changes.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, Literal, NamedTuple, ParamSpec, TypeVar

from prefect import Task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.futures import PrefectFuture

from blocks.engine import Engine
from blocks.store import Store
from dubbing import weights
from dubbing.errors import PassingFault
from dubbing.keys import digest
from dubbing.lesson import Noun, plain

Result = TypeVar("Result", bound=Noun)
Item = TypeVar("Item")
Inputs = ParamSpec("Inputs")

RETRIES = 2  # of a stage that met a passing fault
RETRY_DELAYS = [2.0, 10.0]  # seconds; Prefect adds jitter
ARTIFACT_EVERY = 2.0  # seconds between updates of a progress artifact

STAGES: dict[str, Stage[Any]] = {}  # by name, in the order of definition


class Event(NamedTuple):
    """What a watcher is told."""

    stage: str
    kind: Literal["started", "advanced", "finished", "failed"]
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


class StageLog:
    """A watcher that remembers what each stage did, and passes on what it is told."""

    def __init__(self) -> None:
        self._events: dict[str, Event] = {}
        self._order: list[str] = []
        self._pass_on = _watcher.get()

    def __call__(self, event: Event) -> None:
        if event.kind == "started" and event.stage not in self._order:
            self._order.append(event.stage)
        if event.kind == "finished":
            self._events[event.stage] = _together(self._events[event.stage], event) if event.stage in self._events else event
        if self._pass_on:
            self._pass_on(event)

    def outcomes(self) -> list[dict[str, Any]]:
        """For each stage, in order: name, state, seconds, and for stages that work line by line how many lines were computed and cached."""
        outcomes = []
        for name in self._order:
            if event := self._events.get(name):
                outcome: dict[str, Any] = {"name": name, "state": event.state, "seconds": round(event.seconds, 2)}
                if STAGES[name].per_line:
                    outcome |= {"lines_computed": event.lines_computed or 0, "lines_cached": event.lines_cached or 0}
                outcomes.append(outcome)
        return outcomes


def _together(before: Event, after: Event) -> Event:
    """A stage that ran more than once in a run: cached if it was every time. A line that was computed twice counts once."""
    lines = (after.lines_computed or 0) + (after.lines_cached or 0)
    computed = min(lines, (before.lines_computed or 0) + (after.lines_computed or 0))
    return after._replace(
        state="cached" if before.state == after.state == "cached" else "computed",
        seconds=before.seconds + after.seconds,
        lines_computed=computed,
        lines_cached=lines - computed,
    )


def advance_download(share: float) -> None:
    """A lesson's download is so far."""
    _tell(Event("download", "advanced", share))


def _tell(event: Event) -> None:
    watcher = _watcher.get()
    if watcher:
        watcher(event)


class _Work:
    """A stage's body while it runs: how far it is, how many lines it computed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started = self.last_update = time.monotonic()
        self.artifact: Any = None
        self.lines_computed: int | None = None
        self.lines_cached: int | None = None

    def advance(self, share: float) -> None:
        _tell(Event(self.name, "advanced", share))
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

    def finish(self) -> None:
        if self.artifact is not None:
            update_progress_artifact(self.artifact, progress=100.0, description=f"{self.name}: done")


_work: ContextVar[_Work | None] = ContextVar("work", default=None)


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


def _shown(value: Any) -> Any:
    """JSON has no NaN, which is how pandas says "nothing"."""
    return None if isinstance(value, float) and math.isnan(value) else value


class _Key(CachePolicy):
    """Complete keys: name, version, content of every input."""

    def __init__(self, name: str, version: int, unkeyed: frozenset[str]) -> None:
        super().__init__()
        self.name, self.version, self.unkeyed = name, version, unkeyed

    def compute_key(self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **_: Any) -> str:
        kept = {name: value for name, value in inputs.items() if name not in self.unkeyed}
        return f"records/{self.name}/v{self.version}/{digest('stage', self.name, self.version, kept)}"


class Pending(Generic[Result]):
    """A stage that runs beside others."""

    def __init__(self, stage: Stage[Result], future: PrefectFuture[Any], started: float) -> None:
        self._stage, self._future, self._started = stage, future, started

    def result(self) -> Result:
        self._future.wait()
        return self._stage.concluded(self._future.state, self._started)


class Stage(Generic[Result]):
    """A cached Prefect task that returns a noun."""

    def __init__(
        self, function: Callable[..., Result], version: int, returns: type[Result], per_line: bool, unkeyed: Iterable[str]
    ) -> None:
        self.name = function.__name__
        self.version = version
        self.function = function
        self.returns = returns
        self.per_line = per_line
        self._last_work: _Work | None = None  # of the body that ran last: a flow runs a stage of one lesson one at a time

        @functools.wraps(function)
        def body(*args: Any, **kwargs: Any) -> dict[str, Any]:
            work = _Work(self.name)
            token = _work.set(work)
            try:
                _fetch_weights([*args, *kwargs.values()])
                result = plain(function(*args, **kwargs))
                work.finish()
            finally:
                _work.reset(token)
            self._last_work = work
            return result

        self.task: Task[..., Any] = Task(
            fn=body,
            name=self.name,
            description=(function.__doc__ or "").strip(),
            cache_policy=_Key(self.name, version, frozenset(unkeyed) | {"store"}),
            persist_result=True,
            result_serializer="json",
            cache_result_in_memory=False,
            retries=RETRIES,
            retry_delay_seconds=RETRY_DELAYS,
            retry_jitter_factor=0.5,
            retry_condition_fn=_may_pass,
        )

    def __call__(self, store: Store, **inputs: Any) -> Result:
        started = time.monotonic()
        _tell(Event(self.name, "started"))
        state = self._on(store)(store=store, return_state=True, **inputs)
        return self.concluded(state, started)

    def submit(self, store: Store, **inputs: Any) -> Pending[Result]:
        started = time.monotonic()
        _tell(Event(self.name, "started"))
        return Pending(self, self._on(store).submit(store=store, **inputs), started)

    def _on(self, store: Store) -> Task[..., Any]:
        """The task with its results in the store. `with_options` takes only blocks that a server knows; ours needs no server."""
        task = self.task.with_options()
        task.result_storage = store
        return task

    def concluded(self, state: Any, started: float) -> Result:
        """The noun that a finished task run stands for."""
        seconds = time.monotonic() - started
        try:
            value = state.result()
        except BaseException:
            _tell(Event(self.name, "failed", seconds=seconds))
            raise
        result = self.returns.model_validate(value)
        if state.name == "Cached":
            lines = len(getattr(result, "lines", ())) if self.per_line else None
            _tell(Event(self.name, "finished", 1.0, "cached", seconds, 0 if self.per_line else None, lines))
        else:
            work = self._last_work
            computed, cached = (work.lines_computed, work.lines_cached) if work else (None, None)
            _tell(Event(self.name, "finished", 1.0, "computed", seconds, computed, cached))
        return result


def stage(
    *, version: int, returns: type[Result], per_line: bool = False, unkeyed: Iterable[str] = ()
) -> Callable[[Callable[..., Result]], Stage[Result]]:
    """Make a function a stage.

    Args:
        version: of the code; part of the key.
        returns: the noun that it returns.
        per_line: whether its work is cached line by line inside (`line_by_line`), and its result has `lines`.
        unkeyed: inputs that can't change the result: a file's path beside its digest, a name for messages.
    """

    def made(function: Callable[..., Result]) -> Stage[Result]:
        made_stage = Stage(function, version, returns, per_line, unkeyed)
        STAGES[made_stage.name] = made_stage
        return made_stage

    return made


def line_by_line(
    store: Store,
    name: str,
    version: int,
    items: Sequence[Item],
    inputs_of: Callable[[Item], Any],
    compute: Callable[[Item], Result],
    returns: type[Result],
    lines_of: Callable[[Item], int] = lambda _: 1,
) -> list[Result]:
    """The results for all items, each computed once for the same inputs and kept as soon as it is made.

    Inside one task run: a task run a line would cost more than most lines (see the notes on Prefect in the README). A killed run loses the
    item in hand and nothing else.

    Args:
        inputs_of: everything that shapes an item's result, as `dubbing.keys` takes it.
        lines_of: how many lines an item stands for, for the counts that are reported.
    """
    addresses = [f"lines/{name}/v{version}/{digest('line', name, version, inputs_of(item))}" for item in items]
    records = [store.read_record(address) for address in addresses]
    done = [None if record is None else returns.model_validate(record) for record in records]
    missing = [position for position, result in enumerate(done) if result is None]
    total = sum(lines_of(items[position]) for position in missing)
    computed = 0
    made: dict[str, Result] = {}  # the same line twice in a lesson is made once
    for position in missing:
        advance(computed / total)
        address = addresses[position]
        if address not in made:
            made[address] = compute(items[position])
            store.write_record(address, plain(made[address]))
        done[position] = made[address]
        computed += lines_of(items[position])
    work = _work.get()
    if work:
        cached = sum(lines_of(item) for item in items) - total
        work.lines_computed = (work.lines_computed or 0) + computed
        work.lines_cached = (work.lines_cached or 0) + cached
    return [result for result in done if result is not None]


def _fetch_weights(inputs: Iterable[Any]) -> None:
    """Have the weights of the stage's engines here, and say how far their download is: a gigabyte takes a while."""
    for engine in inputs:
        if isinstance(engine, Engine):
            for name in engine.weights_names():
                weights.folder_of(name, lambda done, total, name=name: _tell(Event(f"weights {name}", "advanced", done / total)))  # type: ignore[misc]


def _may_pass(task: Any, run: Any, state: Any) -> bool:
    try:
        state.result()
    except PassingFault:
        return True
    except BaseException:
        return False
    return False
