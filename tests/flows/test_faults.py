"""Faults, with counts: whatever is killed, damaged, full or out of reach, the result is right, and what was finished is not made again.

The whole program runs on engines that take no time (`tests.stand_ins`); what they were used for is counted over all runs of a test.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from blocks.store import Store
from dubbing.errors import StoreFailed
from tests.conftest import Bucket
from tests.fault_proxy import PASS, SILENT, SLOW_DOWN, Fault, FaultProxy
from tests.flows.stand_in_runs import CALM, LIMIT, Circumstances, Done, Lab, Place, contents, in_bucket, local, run_again
from tests.seaweed import Seaweed
from tests.stand_ins import uses

pytestmark = pytest.mark.usefixtures("prefect_server")

STAGES = ["ingest", "extract_audio", "separate", "transcribe", "translate", "synthesize", "fit", "shorten"]
STAGES += ["subtitles", "mix", "render", "inspect"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    yield local(tmp_path / "store")
    shutil.rmtree(tmp_path / "store", ignore_errors=True)


def killed(lab: Lab, place: Place, folder: Path, die: str) -> None:
    done = lab.dub(place, folder / "output", folder / "notes", circumstances=Circumstances(die=die)).wait()
    assert done.code == -signal.SIGKILL, done


def failed(done: Done, store: str) -> None:
    """The run said in one line that this store can't be used."""
    assert done.code == StoreFailed.exit_code, (done.code, done.errors)
    assert len(done.errors.splitlines()) == 1 and store in done.errors, done.errors


# --- killed


def test_the_lesson_uses_every_stage(lab: Lab) -> None:
    assert lab.stages == STAGES
    assert Counter(use.split()[0] for use in lab.uses) == {
        **{"separate": 1, "transcribe": 1, "translate": 2, "synthesize": 22, "shorten": 11, "subtitles": 11, "inspect": 11}
    }


@pytest.mark.parametrize("stage", STAGES)
def test_killed_as_a_stage_starts(lab: Lab, place: Place, tmp_path: Path, stage: str) -> None:
    killed(lab, place, tmp_path, f"{stage}:started:1")
    assert not run_again(lab, place, tmp_path).repeated or stage == "transcribe"  # beside which the voice is taken apart


@pytest.mark.parametrize("die", ["separate:advanced:1", "synthesize:advanced:6", "fit:advanced:7", "inspect:advanced:4"])
def test_killed_in_the_middle_of_a_stage(lab: Lab, place: Place, tmp_path: Path, die: str) -> None:
    killed(lab, place, tmp_path, die)
    recovery = run_again(lab, place, tmp_path)
    assert die.partition(":")[0] in recovery.recomputed


@pytest.mark.parametrize("stage", ["separate", "synthesize", "inspect"])
def test_killed_as_a_stage_finished(lab: Lab, place: Place, tmp_path: Path, stage: str) -> None:
    killed(lab, place, tmp_path, f"{stage}:finished:1")
    assert not [use for use in run_again(lab, place, tmp_path).repeated if use.startswith(stage)]


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_a_random_moment(lab: Lab, place: Place, tmp_path: Path, seed: int) -> None:
    run = lab.dub(place, tmp_path / "output", tmp_path / "notes", circumstances=Circumstances(seconds=0.05))
    time.sleep(random.Random(seed).uniform(0.5, 5))
    run.send(signal.SIGKILL)
    assert run.wait().code == -signal.SIGKILL
    run_again(lab, place, tmp_path)


def test_killed_again_and_again(lab: Lab, place: Place, tmp_path: Path) -> None:
    """Every run gets one line further than the one before."""
    for number in range(1, 4):
        before = Counter(uses(tmp_path / "notes" / "uses"))
        killed(lab, place, tmp_path, "synthesize:advanced:3")
        made = Counter(uses(tmp_path / "notes" / "uses")) - before
        assert sum(use.startswith("synthesize") for use in made.elements()) == 2, (number, made)
    assert run_again(lab, place, tmp_path).repeated == []


@pytest.mark.parametrize("die", ["transcribe:finished:1", "synthesize:advanced:6"])
def test_killed_with_a_bucket(lab: Lab, bucket: Bucket, seaweed: Seaweed, tmp_path: Path, die: str) -> None:
    place = in_bucket(bucket, tmp_path / "working", seaweed.environment())
    killed(lab, place, tmp_path, die)
    shutil.rmtree(tmp_path / "working")
    run_again(lab, place, tmp_path)


# --- damaged


def truncated(path: Path, others: list[bytes]) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path, others: list[bytes]) -> None:
    path.write_bytes(b"")


def flipped(path: Path, others: list[bytes]) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def deleted(path: Path, others: list[bytes]) -> None:
    path.unlink()


def replaced(path: Path, others: list[bytes]) -> None:
    content = path.read_bytes()
    path.write_bytes(next((other for other in others if other != content), b"another"))


def blocked(path: Path, others: list[bytes]) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").touch()


Damage = Callable[[Path, list[bytes]], None]
DAMAGES: list[Damage] = [truncated, emptied, flipped, deleted, replaced, blocked]
KINDS = ["records", "lines", "packs", "records lines packs", "lessons figures", "blobs", "records lines packs lessons figures blobs"]


def damage(store: Path, kinds: str, how: Damage) -> int:
    files = [path for kind in kinds.split() for path in sorted((store / kind).rglob("*")) if path.is_file()]
    by_kind = {path.parts[len(store.parts)]: [other.read_bytes() for other in files[:2]] for path in files}
    for path in files:
        how(path, by_kind[path.parts[len(store.parts)]])
    return len(files)


# What has to be computed again, in uses of engines, where all of a kind are damaged.
AGAIN = {
    "records": {"separate": 1, "transcribe": 1},
    "lines": {},
    "packs": {},
    "records lines packs": {
        "separate": 1,
        "transcribe": 1,
        "translate": 2,
        "synthesize": 22,
        "shorten": 11,
        "subtitles": 11,
        "inspect": 11,
    },
    "lessons figures": {},
    "blobs": {"separate": 1, "synthesize": 11},
}


@pytest.mark.parametrize("how", DAMAGES, ids=lambda how: how.__name__)
def test_damaged_files_are_made_again_and_nothing_else(lab: Lab, tmp_path: Path, how: Damage) -> None:
    def one(kinds: str) -> tuple[str, dict[str, int]]:
        folder = tmp_path / kinds
        place = lab.copy_of_whole(folder / "store")
        assert damage(place.folder, kinds, how)
        done = lab.dub(place, folder / "output", folder / "notes").wait()
        assert done.code == 0, (kinds, done.errors)
        assert contents(folder / "output") == lab.expected, kinds
        shutil.rmtree(folder / "store")
        return kinds, dict(Counter(use.split()[0] for use in uses(folder / "notes" / "uses")))

    with ThreadPoolExecutor(2) as pool:
        for kinds, made in pool.map(one, KINDS):
            assert kinds not in AGAIN or made == AGAIN[kinds]
