"""Several runs at once, on one machine and on several: everything is computed once, all succeed, and one that is killed holds nobody up.

The first half runs the whole program on engines that take no time (`tests.stand_ins`); the second tries the claims alone, on a local disk
and in a bucket.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from blocks import claims
from blocks.claims import Claims
from blocks.files import Files, LocalFiles
from blocks.s3_files import S3Files
from tests.conftest import Bucket
from tests.flows.stand_in_runs import Circumstances, Lab, Place, Run, contents, in_bucket, local, used_again
from tests.seaweed import Seaweed
from tests.stand_ins import uses

WORKING = 0.03  # seconds that each use of an engine takes, so that runs overlap
LEASE = 3.0  # seconds
# Seconds beyond a lease within which another has finished its run, on a busy machine too: a lease that never ends is what fails.
DELAY = 90.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Place]]:
    """The same store as several runs see it: `disk` from one machine, `bucket` from machines with working folders of their own."""
    if request.param == "disk":
        yield [local(tmp_path / "store")] * 3
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        return
    bucket: Bucket = request.getfixturevalue("bucket")
    seaweed: Seaweed = request.getfixturevalue("seaweed")
    yield [in_bucket(bucket, tmp_path / f"working-{number}", seaweed.environment()) for number in range(3)]


everywhere = pytest.mark.parametrize("places", ["disk", "bucket"], indirect=True)
on_a_disk = pytest.mark.parametrize("places", ["disk"], indirect=True)


class Runs:
    """Runs at once on one store, counted together."""

    def __init__(self, lab: Lab, places: list[Place], folder: Path) -> None:
        self.lab, self.places, self.folder = lab, places, folder
        self.machines = len({id(place) for place in places}) > 1

    def start(self, number: int, *options: str, seconds: float = WORKING) -> Run:
        machine = f"machine {number}" if self.machines else "machine"
        circumstances = Circumstances(seconds=seconds, machine=machine, lease=LEASE, patience=10)
        return self.lab.dub(
            self.places[number], self.folder / f"output-{number}", self.folder / "notes", *options, circumstances=circumstances
        )

    def succeeded(self, number: int, run: Run) -> None:
        done = run.wait()
        assert done.code == 0, done.errors
        assert contents(self.folder / f"output-{number}") == self.lab.expected

    def uses(self) -> list[str]:
        return uses(self.folder / "notes" / "uses")

    def wait_for(self, use: str) -> None:
        """Until an engine is used so."""
        until = time.monotonic() + 600
        while not any(seen.startswith(use) for seen in self.uses()):
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.fixture
def runs(lab: Lab, places: list[Place], tmp_path: Path) -> Runs:
    return Runs(lab, places, tmp_path)


@everywhere
@pytest.mark.parametrize("count", [2, 3])
def test_runs_of_one_lesson_compute_everything_once(runs: Runs, count: int) -> None:
    started = [runs.start(number) for number in range(count)]
    for number, run in enumerate(started):
        runs.succeeded(number, run)
    assert sorted(runs.uses()) == sorted(runs.lab.uses)


@everywhere
def test_one_that_comes_later_computes_nothing_that_another_has_in_hand(runs: Runs) -> None:
    first = runs.start(0)
    runs.wait_for("synthesize")
    second = runs.start(1)
    runs.succeeded(0, first)
    runs.succeeded(1, second)
    assert sorted(runs.uses()) == sorted(runs.lab.uses)


@everywhere
def test_runs_with_other_voices_share_all_that_comes_before(runs: Runs) -> None:
    first, second = runs.start(0), runs.start(1, "--voice", "viktor")
    runs.succeeded(0, first)
    done = second.wait()
    assert done.code == 0, done.errors
    assert contents(runs.folder / "output-1") != runs.lab.expected
    # The clips, and what is made of them, are the voice's own; how they are worded depends on their length, the same for both voices.
    counts = Counter(use.split()[0] for use in runs.uses())
    assert counts == {"separate": 1, "transcribe": 1, "translate": 2, "synthesize": 44, "shorten": 11, "subtitles": 22, "inspect": 22}


@everywhere
def test_runs_into_two_languages_hear_the_lesson_once(runs: Runs) -> None:
    first, second = runs.start(0), runs.start(1, "--to", "es")
    runs.succeeded(0, first)
    done = second.wait()
    assert done.code == 0, done.errors
    counts = Counter(use.split()[0] for use in runs.uses())
    assert (counts["separate"], counts["transcribe"], counts["translate"]) == (1, 1, 4)


@everywhere
@pytest.mark.parametrize("stage", ["separate", "synthesize"])
def test_a_killed_run_delays_the_other_by_a_lease_at_most(runs: Runs, stage: str) -> None:
    holder = runs.start(0)
    runs.wait_for(stage)
    holder.send(signal.SIGSTOP)  # so that it is in the midst of the stage when the other comes
    waiter = runs.start(1)
    time.sleep(1.5)  # it waits by now
    holder.send(signal.SIGKILL)
    killed = time.monotonic()
    runs.succeeded(1, waiter)
    assert time.monotonic() - killed < (LEASE if runs.machines else 0) + DELAY
    repeated = Counter(use.split()[0] for use in used_again(runs.folder / "notes"))
    assert set(repeated.values()) <= {1} and len(repeated) <= 2, repeated  # what the killed one had in hand


@everywhere
def test_a_run_that_stood_still_beyond_its_lease_ends_well(runs: Runs) -> None:
    holder = runs.start(0)
    runs.wait_for("synthesize")
    holder.send(signal.SIGSTOP)
    waiter = runs.start(1)
    runs.succeeded(1, waiter)
    holder.send(signal.SIGCONT)
    runs.succeeded(0, holder)


@on_a_disk
def test_a_run_that_is_stopped_for_less_than_its_lease_keeps_what_it_holds(runs: Runs) -> None:
    holder, waiter = runs.start(0, seconds=0.1), runs.start(1)
    runs.wait_for("synthesize")
    for _ in range(3):
        holder.send(signal.SIGSTOP)
        time.sleep(LEASE / 3)
        holder.send(signal.SIGCONT)
        time.sleep(LEASE / 3)
    runs.succeeded(0, holder)
    runs.succeeded(1, waiter)
    assert sorted(runs.uses()) == sorted(runs.lab.uses)


@on_a_disk
def test_an_edit_that_is_made_between_two_runs_costs_one_line(runs: Runs) -> None:
    runs.succeeded(0, runs.start(0, seconds=0))
    line = runs.lab.lines[3]
    command = ["edit", str(runs.lab.lesson), "--line", line, "--text", "Something else.", "--store", runs.places[0].store.folder]
    edited = Run(command, runs.folder / "notes", Circumstances(), {}).wait()
    assert edited.code == 0, edited.errors
    before = len(runs.uses())
    for run in [runs.start(number) for number in (1, 2)]:
        done = run.wait()
        assert done.code == 0, done.errors
    assert contents(runs.folder / "output-1") == contents(runs.folder / "output-2") != runs.lab.expected
    assert sorted(use.split()[0] for use in runs.uses()[before:]) == ["inspect", "subtitles", "synthesize"]


# --- claims alone


@pytest.fixture(params=["disk", "bucket"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "disk":
        return LocalFiles(tmp_path / "store")
    bucket: Bucket = request.getfixturevalue("bucket")
    return S3Files(bucket.address, bucket.credentials, patience=10)


FOLDER_OF_KEY = hashlib.sha256(b"key").hexdigest()[:32]


def never() -> bool:
    return False


class Looks:
    """Counts the times that somebody who waits looks again."""

    IN_A_LEASE = 12  # at most, of a second or less: the pauses grow to a quarter of it, halved at most by chance

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def claims_on(files: Files) -> list[str]:
    return [found.name for found in files.found("claims/")]


def count_up(files: Files, times: int) -> None:
    """Read, wait, write: two who do it at once lose a count."""
    own = Claims(files)
    for _ in range(times):
        assert own.acquire("counter", never)
        number = int(files.read("counter"))
        time.sleep(0.002)
        files.write("counter", str(number + 1).encode())
        own.release("counter")


def test_threads_with_claims_of_their_own_take_turns(files: Files) -> None:
    files.write("counter", b"0")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: count_up(files, 4), range(6)))
    assert files.read("counter") == b"24"
    assert not claims_on(files)


def test_processes_take_turns(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path / "store")
    files.write("counter", b"0")
    processes = [multiprocessing.get_context("forkserver").Process(target=count_up, args=(files, 10)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(1000)
        assert process.exitcode == 0
    assert files.read("counter") == b"40"


def test_who_holds_a_key_has_it_until_it_is_released(files: Files) -> None:
    first, second = Claims(files), Claims(files)
    assert first.acquire("key", never) and first.acquire("key", never)
    assert not second.acquire("key", lambda: True)  # waits, and finds the work done
    assert second.acquire("another key", never)
    second.release("another key")
    held = threading.Event()
    waiter = threading.Thread(target=lambda: second.acquire("key", never) and held.set())
    waiter.start()
    assert not held.wait(0.5)
    first.release("key")
    assert held.wait(300)
    waiter.join()
    assert second.holds("key") and not first.holds("key")
    second.release_all()
    assert not claims_on(files)


def test_a_claim_is_not_kept_where_the_work_was_done_just_before(files: Files) -> None:
    own = Claims(files)
    assert not own.acquire("key", lambda: True)
    assert not own.holds("key") and not claims_on(files)


def test_what_the_waiting_hook_raises_ends_the_wait(files: Files) -> None:
    first, second = Claims(files), Claims(files)
    first.acquire("key", never)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        second.acquire("key", never, stop)
    assert len(claims_on(files)) == 1  # the holder's


def test_a_holder_that_works_on_is_not_taken_for_dead(files: Files) -> None:
    first, second = Claims(files, lease=2.0), Claims(files, lease=2.0)
    first.acquire("key", never)
    until = time.monotonic() + 5
    assert not second.acquire("key", lambda: time.monotonic() > until)
    assert first.holds("key") and len(claims_on(files)) == 1


@pytest.mark.parametrize(
    "garbage", [b"", b"\xff\xfe", b"[]", b"3", b"{}", b'{"machine": null, "process": "x", "born": []}', b"x" * 100_000], ids=len
)
def test_garbage_in_a_claim_counts_until_its_lease_ends(files: Files, garbage: bytes) -> None:
    files.write(f"claims/{FOLDER_OF_KEY}/garbage", garbage)
    started = time.monotonic()
    own, looks = Claims(files, lease=0.5), Looks()
    assert own.acquire("key", never, looks)
    assert time.monotonic() - started >= 0.5
    assert looks.count <= Looks.IN_A_LEASE
    assert len(claims_on(files)) == 1
    own.release("key")


def test_a_process_of_this_machine_that_is_dead_is_known_at_once(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as dead:
        dead.setattr(claims, "_birth", lambda number: "long ago")
        files.write(f"claims/{FOLDER_OF_KEY}/dead", claims._claim(0))
    looks = Looks()
    assert Claims(files, lease=1000).acquire("key", never, looks)
    assert looks.count == 0
    assert len(claims_on(files)) == 1


def test_a_process_of_another_machine_that_is_dead_is_known_after_a_lease(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(claims, "_machine", lambda: "another")
        files.write(f"claims/{FOLDER_OF_KEY}/dead", claims._claim(0))
    started, looks = time.monotonic(), Looks()
    assert Claims(files, lease=1.0).acquire("key", never, looks)
    assert time.monotonic() - started >= 1.0
    assert looks.count <= Looks.IN_A_LEASE
