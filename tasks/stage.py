"""What makes a function a stage: a Prefect task that is computed once for the same inputs, watched while it works.

    @stage(version=1, returns=Transcript, opens=("sound",))
    def transcribe(store: Store, sound: Recording, recogniser: Recogniser) -> Transcript: ...

    transcript = transcribe(store, sound=sound, recogniser=recogniser)            # waits
    pending = transcribe.submit(store, sound=sound, recogniser=recogniser)        # runs beside others; pending.result()

The cache key is the stage's name, its version and its inputs (`dubbing.keys`), except the store, which shapes nothing, and what the stage
declares `unkeyed`. Raise the version when the code changes what comes out: `tests/tasks/test_stage_versions.py` asks for a decision when
the code changes. Several runs at once compute a stage once: a miss claims the record (`blocks.store`), the others wait and find it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, NamedTuple, TypeVar

from prefect import Task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.futures import PrefectFuture

from blocks.engine import Engine, engines_of, require_packages
from blocks.store import Store, artifacts_in
from dubbing import weights
from dubbing.errors import PassingFault, ServiceDown, StoreFailed
from dubbing.keys import described, digest, digest_of
from dubbing.lesson import Artifact, Noun, plain
from tasks.history import StageEntry, history_in_hand
from tasks.planning import plan_in_hand
from tasks.progress import Event, Work, tell, working
from tasks.turns import turn

Result = TypeVar("Result", bound=Noun)

RETRIES = 2  # of a stage that met a passing fault
RETRY_DELAYS = [2.0, 10.0]  # seconds; Prefect adds jitter

STAGES: dict[str, Stage[Any]] = {}  # by name, in the order of definition


class _Key(CachePolicy):
    """Complete keys: name, version, content of every input."""

    def __init__(self, stage: Stage[Any]) -> None:
        super().__init__()
        self.stage = stage

    def compute_key(self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **_: Any) -> str:
        key, inputs_described = self.stage.key(inputs["given"].inputs)
        call = _call.get()
        if call:
            call.key, call.inputs = key, inputs_described
        return key


class _Given:
    """A stage's inputs as Prefect carries them: unopened, since it would look into every word of a transcript several times."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        self.inputs = inputs


class _Call:
    """One use of a stage by a story."""

    def __init__(self, stage: Stage[Any], store: Store) -> None:
        self.stage, self.store = stage, store
        self.started = time.monotonic()
        self.ended: float | None = None  # when its body was done, whoever asks for the result when
        self.key = ""
        self.inputs: dict[str, Any] = {}
        self.work: Work | None = None


_call: ContextVar[_Call | None] = ContextVar("call", default=None)
_engines: ContextVar[tuple[tuple[Engine, ...], str]] = ContextVar("engines", default=((), ""))


@contextmanager
def working_with(engines: Iterable[Engine], profile: str) -> Iterator[None]:
    """Around a story, with all its engines and their profile's name. The first stage that has to be computed sees to it that
    the packages of all are installed; else each would do so for itself, after hours of others. What is cached needs none."""
    token = _engines.set((tuple(engines), profile))
    try:
        yield
    finally:
        _engines.reset(token)


class Pending(Generic[Result]):
    """A stage that runs beside others."""

    def __init__(self, call: _Call, future: PrefectFuture[Any]) -> None:
        self._call, self._future = call, future

    def result(self) -> Result:
        self._future.wait()
        return self._call.stage.concluded(self._call, self._future.state)


class Known(NamedTuple):
    """What a plan knows of a stage that would run beside others."""

    value: Any

    def result(self) -> Any:
        return self.value


class Stage(Generic[Result]):
    """A cached Prefect task that returns a noun."""

    def __init__(
        self,
        function: Callable[..., Result],
        version: int,
        returns: type[Result],
        opens: Iterable[str],
        per_line: bool,
        unkeyed: Iterable[str],
    ) -> None:
        self.name = function.__name__
        self.version = version
        self.function = function
        self.returns = returns
        self.opens = tuple(opens)
        self.per_line = per_line
        self.unkeyed = frozenset(unkeyed) | {"store"}

        def body(store: Store, given: _Given) -> dict[str, Any]:
            inputs = given.inputs
            call, work = _call.get(), Work(self.name)
            try:
                if call:
                    call.work = work
                    store.raise_failure(call.key)
                with working(work):
                    require_packages(*_engines.get())
                    _have_engines(engines_of(inputs))
                    store.fetch(self.opened(inputs))
                    with turn(self.name, ", ".join(engine.engine_name for engine in engines_of(inputs))):
                        result = plain(self._computed(store, inputs))
                    work.finish()
            except BaseException:
                if call:
                    store.release(call.key)
                raise
            if call:
                call.ended = time.monotonic()
            return result

        self.task: Task[..., Any] = Task(
            fn=body,
            name=self.name,
            description=(function.__doc__ or "").strip(),
            cache_policy=_Key(self),
            persist_result=True,
            result_serializer="json",
            cache_result_in_memory=False,
            retries=RETRIES,
            retry_delay_seconds=RETRY_DELAYS,
            retry_jitter_factor=0.5,
            retry_condition_fn=_may_pass,
        )

    def key(self, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The name of the record for these inputs, and the inputs in plain words (`dubbing.keys.described`) as "input" or "input.part"."""
        kept = {name: value for name, value in inputs.items() if name not in self.unkeyed}
        digests = {name: digest_of(value) for name, value in kept.items()}
        key = f"records/{self.name}/v{self.version}/{digest('stage', self.name, self.version, digests)}"
        words = {f"{name}.{part}" if part else name: value for name in kept for part, value in described(kept[name]).items()}
        return key, words

    def _computed(self, store: Store, inputs: Mapping[str, Any]) -> Result:
        try:
            return self.function(store, **inputs)
        except Exception:
            # A clean-up beside this run may have taken a file that was being read: what that looks like depends on the reader.
            gone = store.vanished(artifacts_in(inputs))
            if not gone:
                raise
            store.fetch(gone)  # says which have to be made again; those of a bucket are brought again
            return self.function(store, **inputs)

    def opened(self, inputs: Mapping[str, Any]) -> list[Artifact]:
        """The blobs that the stage opens whatever its lines are."""
        found: list[Artifact] = []
        for path in self.opens:
            name, *parts = path.split(".")
            found += artifacts_in([functools.reduce(getattr, parts, inputs[name])])
        return found

    def __call__(self, store: Store, **inputs: Any) -> Result:
        if plan := plan_in_hand():
            return plan.look_up(self, store, inputs)
        call = self._begin(store)
        token = _call.set(call)
        try:
            state = self._on(store)(store=store, given=_Given(inputs), return_state=True)
        finally:
            _call.reset(token)
        return self.concluded(call, state)

    def submit(self, store: Store, **inputs: Any) -> Pending[Result] | Known:
        if plan := plan_in_hand():
            return Known(plan.look_up(self, store, inputs))
        call = self._begin(store)
        token = _call.set(call)  # the task runs in a copy of this context
        try:
            return Pending(call, self._on(store).submit(store=store, given=_Given(inputs)))
        finally:
            _call.reset(token)

    def _begin(self, store: Store) -> _Call:
        tell(Event(self.name, "started"))
        return _Call(self, store)

    def _on(self, store: Store) -> Task[..., Any]:
        """The task with its results in the store. `with_options` takes only blocks that a server knows; ours needs no server."""
        task = self.task.with_options()
        task.result_storage = store
        return task

    def concluded(self, call: _Call, state: Any) -> Result:
        """The noun that a finished task run stands for."""
        seconds = (call.ended or time.monotonic()) - call.started
        try:
            value = state.result()
            if state.name != "Cached":
                call.store.raise_failure(call.key)  # the result is here, but could not be kept
        except BaseException:
            tell(Event(self.name, "failed", seconds=seconds))
            raise
        result = self.returns.model_validate(value)
        computed: int | None
        cached: int | None
        if state.name == "Cached":
            outcome: Any = "cached"
            computed, cached = (0, len(getattr(result, "lines", ()))) if self.per_line else (None, None)
        else:
            outcome = "computed"
            computed, cached = (call.work.lines_computed, call.work.lines_cached) if call.work and self.per_line else (None, None)
        tell(Event(self.name, "finished", 1.0, outcome, seconds, computed, cached))
        history = history_in_hand()
        if history:
            history.note(StageEntry(self.name, self.version, call.key, call.inputs, outcome, round(seconds, 3), computed, cached))
        return result


def stage(
    *, version: int, returns: type[Result], opens: Iterable[str] = (), per_line: bool = False, unkeyed: Iterable[str] = ()
) -> Callable[[Callable[..., Result]], Stage[Result]]:
    """Make a function a stage.

    Args:
        version: of the code; part of the key.
        returns: the noun that it returns.
        opens: inputs, or "input.field", whose blobs its body opens: they are fetched before, and a missing one is noticed before any work.
            Blobs of single lines are fetched by `tasks.lines`.
        per_line: whether its work is reported line by line (`tasks.lines`), and its result has `lines`.
        unkeyed: inputs that can't change the result: a file's path beside its digest, a name for messages.
    """

    def made(function: Callable[..., Result]) -> Stage[Result]:
        made_stage = Stage(function, version, returns, opens, per_line, unkeyed)
        STAGES[made_stage.name] = made_stage
        return made_stage

    return made


def tell_waiting(record: str) -> None:
    """Another run computes this record just now."""
    tell(Event(record.split("/")[1], "waiting"))


def _have_engines(engines: Iterable[Engine]) -> None:
    """Have what the stage's engines need here, and say how far the download of weights is: a gigabyte takes a while.

    Raises:
        BadSetting: a package is not installed.
    """
    for engine in engines:
        engine.require_packages()
        for name in engine.weights_names():
            weights.folder_of(name, lambda done, total, name=name: tell(Event(f"weights {name}", "advanced", done / total)))  # type: ignore[misc]


def _may_pass(task: Any, run: Any, state: Any) -> bool:
    try:
        state.result()
    except (StoreFailed, ServiceDown):
        return False  # it was waited for already
    except PassingFault:
        return True
    except BaseException:
        return False
    return False
