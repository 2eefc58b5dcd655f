"""Runs of the whole program on stand-in engines (`tests.stand_ins`), each in a process of its own that can be killed, stopped and counted.

The processes are forked from one that has imported everything, so that a run takes a second or two; they share one Prefect server (the
fixture `prefect_server`). What a test wants to be otherwise than on a command line is in `Circumstances`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from blocks.s3_store import S3Store
from blocks.store import Store, file_digest
from tasks.history import runs_of
from tests.lessons import make_lesson
from tests.stand_ins import uses

if TYPE_CHECKING:
    from tests.conftest import Bucket

LESSON_SECONDS = 20.0
LINES_EVERY = 1.8  # seconds between two lines
LINES = 11
LONG_WORDED = "and then in so many words that it must be said shorter"  # the translator's style
LIMIT = 600.0  # seconds after which a run counts as stuck: it takes two, or twenty where machines are busy
# Stages that use engines line by line: what a kill may cost of each is the use in hand.
BY_LINE = ("translate", "shorten", "synthesize", "subtitles", "inspect")
_PRELOADED = ["tests.stand_ins", "flows.command_line", "flows.own_server", "flows.dub_video", "flows.edit_lesson", "flows.terminal"]
_PRELOADED += ["blocks.s3_store", "scipy.signal", "soxr", "pyloudnorm", "clarabel", "pysubs2", "matplotlib.figure"]
_PRELOADED += ["matplotlib.backends.backend_svg", "pandas", "jiwer", "num2words"]
_PREFECT = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
}

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(_PRELOADED)


@dataclass(frozen=True)
class Circumstances:
    """How a run differs from one that is started at a terminal."""

    die: str = ""  # "stage:kind:n": the process kills itself there
    seconds: float = 0.0  # that each use of an engine takes
    machine: str = ""  # name of another machine that it seems to run on
    lease: float | None = None  # seconds
    patience: float | None = None  # seconds that a bucket may be out of reach


CALM = Circumstances()


class Done(NamedTuple):
    """A run that ended."""

    code: int  # negative: the signal that killed it
    output: str
    errors: str

    @property
    def result(self) -> dict[str, Any]:
        assert self.code == 0, self.errors
        return dict(json.loads(self.output.splitlines()[-1]))

    def states(self) -> dict[str, str]:
        """computed or cached, by stage."""
        return {stage["name"]: stage["state"] for stage in self.result["stages"]}


class Run:
    """A process that does what a command line says."""

    def __init__(self, arguments: Iterable[str | Path], notes: Path, circumstances: Circumstances, environment: Mapping[str, str]) -> None:
        """
        Args:
            notes: folder for what the process prints, and for the log of uses that all runs with these notes share.
        """
        notes.mkdir(parents=True, exist_ok=True)
        self._printed = [notes / f"{time.monotonic_ns()}.{kind}" for kind in ("out", "err")]
        for path in self._printed:
            path.touch()  # it may be killed before it opens them
        environment = {
            **_PREFECT,
            "PREFECT_API_URL": os.environ["PREFECT_API_URL"],
            "PREFECT_HOME": os.environ["PREFECT_HOME"],
            "STAND_INS_LOG": str(notes / "uses"),
            "STAND_INS_DIE": circumstances.die,
            "STAND_INS_SECONDS": str(circumstances.seconds),
            "STAND_INS_LINES": str(LINES_EVERY),
            "STAND_INS_SETTINGS": json.dumps({"translator": {"style": LONG_WORDED}}),
            **environment,
        }
        command = [str(argument) for argument in arguments]
        self._process = _processes.Process(target=_run, args=(command, environment, circumstances, *self._printed), daemon=True)
        self._process.start()

    def wait(self, seconds: float = LIMIT) -> Done:
        """Raises AssertionError where the run is stuck."""
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            self.send(signal.SIGKILL)
            self._process.join()
        output, errors = (path.read_text() for path in self._printed)
        assert code is not None, f"stuck after {seconds} s: {errors}"
        return Done(code, output, errors)

    def is_running(self) -> bool:
        return bool(self._process.is_alive())

    def send(self, number: signal.Signals) -> None:
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, number)


def _run(command: list[str], environment: dict[str, str], circumstances: Circumstances, output: Path, errors: Path) -> None:
    """In the forked process."""
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.update(environment)

    from prefect.context import refresh_global_settings_context
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    import blocks.claims
    import blocks.s3_store
    import blocks.store
    from tests import stand_ins

    refresh_global_settings_context()
    if circumstances.machine:
        blocks.claims._machine = lambda: circumstances.machine  # type: ignore[assignment]
    if circumstances.lease is not None:
        use, lease = blocks.store.Store._use, circumstances.lease

        def use_with_lease(self: blocks.store.Store, *places: Any) -> None:
            self.lease = lease
            use(self, *places)

        blocks.store.Store._use = use_with_lease  # type: ignore[method-assign]
    if circumstances.patience is not None:
        files, patience = blocks.s3_store.S3Files, circumstances.patience
        blocks.s3_store.S3Files = lambda address, credentials, _: files(address, credentials, patience)  # type: ignore[misc, assignment]
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):  # the end of a run waits a second for its heart
        code = stand_ins.main(command)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing that pytest left in this process is run


class Place:
    """A store that runs work in, and what their environment says of it."""

    def __init__(self, store: Store, environment: Mapping[str, str] | None = None) -> None:
        self.store, self.environment = store, environment or {}

    @property
    def folder(self) -> Path:
        """Of a local store."""
        return Path(self.store.folder)

    def finished(self) -> dict[str, tuple[int, float]]:
        """The records of stages and lines, and when each was written: one that is written again is another."""
        found = [entry for part in ("records/", "lines/") for entry in self.store.files.found(part)]
        return {entry.name: (entry.size, entry.modified) for entry in found}

    def stages_found_cached(self, sha256: str) -> set[str]:
        """Records that the last run found cached."""
        last = max(runs_of(self.store, sha256), key=lambda run: run.started)
        return {entry.key for entry in last.stages if entry.state == "cached"}


class Lab:
    """A lesson, what becomes of it when nothing goes wrong, and what that takes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.lesson = make_lesson(folder / "lesson.mp4", LESSON_SECONDS)
        self.sha256 = file_digest(self.lesson)
        self.whole = local(folder / "whole")
        done = self.dub(self.whole, folder / "expected", folder / "notes").wait()
        assert done.code == 0, done.errors
        self.expected = contents(folder / "expected")
        self.uses = uses(folder / "notes" / "uses")
        assert len(self.uses) == len(set(self.uses))
        self.stages = [stage["name"] for stage in done.result["stages"]]
        timeline = json.loads((folder / "expected" / "timeline.json").read_text())
        self.lines = [line["id"] for line in timeline["lines"]]

    def dub(self, place: Place, output: Path, notes: Path, *options: str, circumstances: Circumstances = CALM) -> Run:
        command = ["dub", str(self.lesson), "--store", place.store.folder, "--output", str(output), "--json", "--captions", "words"]
        return Run([*command, *options], notes, circumstances, place.environment)

    def copy_of_whole(self, folder: Path) -> Place:
        """A local store in which the lesson is finished."""
        shutil.copytree(self.whole.folder, folder)
        return local(folder)


class Recovery(NamedTuple):
    """What it took to go on after a run was killed, or something was damaged."""

    recomputed: list[str]  # stages that the second run computed
    repeated: list[str]  # uses of engines that were begun twice
    seconds: float


def run_again(lab: Lab, place: Place, folder: Path, circumstances: Circumstances = CALM) -> Recovery:
    """The run after one that was killed or failed, with all that must be true of it."""
    before = place.finished()
    started = time.monotonic()
    done = lab.dub(place, folder / "output", folder / "notes", circumstances=circumstances).wait()
    seconds = time.monotonic() - started
    assert done.code == 0, done.errors
    assert contents(folder / "output") == lab.expected
    # What was finished is neither made nor written again.
    after = place.finished()
    assert {name: after.get(name) for name in before} == before
    stages = {name for name in before if name.startswith("records/")}
    assert stages <= place.stages_found_cached(lab.sha256)
    # Every engine did its work, and once.
    assert set(uses(folder / "notes" / "uses")) == set(lab.uses)
    repeated = used_again(folder / "notes")
    in_hand = Counter(use.split()[0] for use in repeated)
    assert not in_hand or max(in_hand.values()) == 1, repeated
    assert sum(in_hand[stage] for stage in BY_LINE) <= 1, repeated
    return Recovery([name for name, state in done.states().items() if state == "computed"], repeated, seconds)


def local(folder: Path) -> Place:
    return Place(Store(folder=str(folder)))


def in_bucket(bucket: Bucket, working: Path, environment: Mapping[str, str]) -> Place:
    """
    Args:
        environment: account and endpoint of the runs; the tests themselves look at the bucket without a proxy.
    """
    store = S3Store(folder=bucket.address, credentials=bucket.credentials, working_folder=str(working / "of-the-test"))
    return Place(store, {**environment, "COURSEDUB_WORKING_FOLDER": str(working)})


def contents(folder: Path) -> dict[str, str]:
    """Digest of each file in a folder."""
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}


def used_again(notes: Path) -> list[str]:
    """Uses of engines that runs began more than once, each as often as it was repeated."""
    counts = Counter(uses(notes / "uses"))
    return sorted((counts - Counter(set(counts))).elements())
