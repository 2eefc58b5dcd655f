"""Faults, with counts: whatever is killed, damaged, full or out of reach, the result is right, and what was finished is not made again.

The whole program runs on engines that take no time (`tests.stand_ins`); what they were used for is counted over all runs of a test.
"""

from __future__ import annotations

import itertools
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from blocks.copying import copy_store
from blocks.files import Files, LocalFiles
from dubbing.errors import StoreFailed
from tests.conftest import Bucket, SmallDisk
from tests.fault_proxy import PASS, REFUSE, SILENT, SLOW_DOWN, Fault, FaultProxy
from tests.flows.stand_in_runs import CALM, Circumstances, Done, Lab, Place, contents, in_bucket, local, run_again
from tests.seaweed import Seaweed
from tests.stand_ins import uses

pytestmark = pytest.mark.usefixtures("prefect_server")

STAGES = ["ingest", "extract_audio", "separate", "transcribe", "translate", "synthesize", "fit", "shorten"]
STAGES += ["subtitles", "mix", "render", "inspect"]


EVERYTHING = {"separate": 1, "transcribe": 1, "translate": 2, "synthesize": 22, "shorten": 11, "subtitles": 11, "inspect": 11}

Damage = Callable[[bytes, bytes], bytes | None]  # a file's content and that of another of its kind -> what is there then, None: nothing
DAMAGES: list[Damage] = [
    lambda content, another: content[: len(content) // 2],
    lambda content, another: b"",
    lambda content, another: content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 4]) + content[len(content) // 2 + 1 :],
    lambda content, another: None,
    lambda content, another: another if another != content else b"another",
]


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


def ended_for_want_of_the_store(done: Done, place: Place) -> None:
    assert done.code == StoreFailed.exit_code, (done.code, done.errors)
    assert len(done.errors.splitlines()) == 1 and place.store.where in done.errors, done.errors


# --- killed


def test_the_lesson_uses_every_stage(lab: Lab) -> None:
    assert lab.stages == STAGES
    assert Counter(use.split()[0] for use in lab.uses) == EVERYTHING


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

# What has to be computed again, in uses of engines, where all files of these kinds are damaged.
AGAIN = {
    "records": {"separate": 1, "transcribe": 1},
    "lines": {},
    "packs": {},
    "lines packs": {},
    "records lines packs": EVERYTHING,
    "lessons figures": {},
    "blobs": {"separate": 1, "synthesize": 11},
    "records lines packs lessons figures blobs": EVERYTHING,
}


def damage(files: Files, kinds: str, damages: Sequence[Damage] = DAMAGES) -> None:
    """Damage every file, the first in the first way, the second in the second, and so on."""
    for kind in kinds.split():
        names = sorted(found.name for found in files.found(f"{kind}/"))
        contents = files.each(files.read, names)
        ways = itertools.islice(itertools.cycle(damages), len(names))
        changed = files.each(lambda way: way[0](way[1], way[2]), zip(ways, contents, [*contents[1:], contents[0]], strict=True))
        files.each(lambda file: files.remove(file[0]) if file[1] is None else files.write(*file), zip(names, changed, strict=True))


def made_again(lab: Lab, place: Place, folder: Path, circumstances: Circumstances = CALM) -> dict[str, int]:
    """What a run that ends well used the engines for."""
    done = lab.dub(place, folder / "output", folder / "notes", circumstances=circumstances).wait()
    assert done.code == 0, done.errors
    assert contents(folder / "output") == lab.expected
    return dict(Counter(use.split()[0] for use in uses(folder / "notes" / "uses")))


@pytest.mark.parametrize("kinds", AGAIN)
def test_damaged_files_are_made_again_and_nothing_else(lab: Lab, tmp_path: Path, kinds: str) -> None:
    place = lab.copy_of_whole(tmp_path / "store")
    damage(place.store.files, kinds)
    assert made_again(lab, place, tmp_path) == AGAIN[kinds]
    assert made_again(lab, place, tmp_path / "healed") == {}
    shutil.rmtree(tmp_path / "store")


@pytest.mark.parametrize("kinds", ["records", "records lines packs", "blobs"])
def test_folders_that_stand_where_files_belong_are_damage_too(lab: Lab, tmp_path: Path, kinds: str) -> None:
    place = lab.copy_of_whole(tmp_path / "store")
    for path in [path for kind in kinds.split() for path in (place.folder / kind).rglob("*") if path.is_file()]:
        path.unlink()
        path.mkdir()
        (path / "inside").touch()
    assert made_again(lab, place, tmp_path) == AGAIN[kinds]
    shutil.rmtree(tmp_path / "store")


@pytest.fixture
def whole_in_bucket(lab: Lab, bucket: Bucket, seaweed: Seaweed, tmp_path: Path) -> Place:
    """A bucket in which the lesson is finished, and an empty working folder."""
    place = in_bucket(bucket, tmp_path / "working", seaweed.environment())
    copy_store(lab.whole.store, place.store, lambda done, total: None)
    return place


@pytest.mark.parametrize("kinds", ["records", "lines packs", "blobs"])
def test_damage_in_a_bucket_is_made_again_and_nothing_else(lab: Lab, whole_in_bucket: Place, tmp_path: Path, kinds: str) -> None:
    damage(whole_in_bucket.store.files, kinds)
    assert made_again(lab, whole_in_bucket, tmp_path) == AGAIN[kinds]
    shutil.rmtree(tmp_path / "working")
    assert made_again(lab, whole_in_bucket, tmp_path / "healed") == {}


def test_a_damaged_working_folder_is_filled_from_the_bucket(lab: Lab, whole_in_bucket: Place, tmp_path: Path) -> None:
    assert made_again(lab, whole_in_bucket, tmp_path) == {}
    damage(LocalFiles(tmp_path / "working"), "blobs")
    assert made_again(lab, whole_in_bucket, tmp_path / "healed") == {}


# --- full


@pytest.mark.parametrize("megabytes", [0.1, 2, 12])
def test_a_full_disk_ends_the_run_in_one_line_and_what_was_kept_is_right(
    lab: Lab, small_disk: SmallDisk, tmp_path: Path, megabytes: float
) -> None:
    small_disk.resize(1024 * megabytes)
    place = local(small_disk.folder / "store")
    ended_for_want_of_the_store(lab.dub(place, tmp_path / "output", tmp_path / "notes").wait(), place)
    small_disk.resize(200 * 1024)
    run_again(lab, place, tmp_path)


# --- out of reach


@pytest.fixture
def proxy(seaweed: Seaweed) -> Iterator[FaultProxy]:
    with FaultProxy(seaweed.port) as proxy:
        yield proxy


@pytest.fixture
def behind(proxy: FaultProxy, bucket: Bucket, seaweed: Seaweed, tmp_path: Path) -> Place:
    """A bucket behind the proxy."""
    return in_bucket(bucket, tmp_path / "working", {**seaweed.environment(), "AWS_ENDPOINT_URL": proxy.endpoint})


def test_a_store_that_is_down_for_seconds_delays_the_run(lab: Lab, behind: Place, proxy: FaultProxy, tmp_path: Path) -> None:
    run = lab.dub(behind, tmp_path / "output", tmp_path / "notes", circumstances=Circumstances(seconds=0.05, patience=30))
    for _ in range(2):
        time.sleep(1.5)
        proxy.down()
        time.sleep(1.5)
        proxy.up()
    done = run.wait()
    assert done.code == 0, done.errors
    assert contents(tmp_path / "output") == lab.expected
    assert sorted(uses(tmp_path / "notes" / "uses")) == sorted(lab.uses)


@pytest.mark.parametrize("requests", [0, 40, 150])
def test_a_store_that_stays_away_ends_the_run_in_one_line(
    lab: Lab, behind: Place, proxy: FaultProxy, tmp_path: Path, requests: int
) -> None:
    proxy.fault = lambda method, path: PASS if len(proxy.requests) <= requests else REFUSE
    run = lab.dub(behind, tmp_path / "output", tmp_path / "notes", circumstances=Circumstances(patience=1))
    ended_for_want_of_the_store(run.wait(), behind)
    proxy.fault = PASS
    run_again(lab, behind, tmp_path)


FAULTS = {
    "slow down": lambda number: SLOW_DOWN if number % 3 == 0 else PASS,
    "slow": lambda number: Fault(delay=0.3) if number % 10 == 0 else PASS,
    "silent": lambda number: SILENT if number == 50 else PASS,
    "answers lost": lambda number: Fault(lose_answer=True) if number % 10 == 0 else PASS,
    "answers cut": lambda number: Fault(cut_answer=0.6) if number % 10 == 0 else PASS,
    "requests cut": lambda number: Fault(cut_request=0.6) if number % 10 == 0 else PASS,
    "bits of requests flipped": lambda number: Fault(flip_request=0.5) if number % 10 == 0 else PASS,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_that_pass_cost_no_work(lab: Lab, behind: Place, proxy: FaultProxy, tmp_path: Path, fault: str) -> None:
    proxy.fault = lambda method, path: FAULTS[fault](len(proxy.requests))
    assert made_again(lab, behind, tmp_path, Circumstances(patience=4)) == EVERYTHING


def test_bits_that_flip_on_the_way_never_make_a_wrong_result(lab: Lab, behind: Place, proxy: FaultProxy, tmp_path: Path) -> None:
    """What comes damaged counts as damaged, and is made again."""
    proxy.fault = lambda method, path: Fault(flip_answer=0.5) if len(proxy.requests) % 4 == 0 else PASS
    made_again(lab, behind, tmp_path)
    shutil.rmtree(tmp_path / "working")
    made_again(lab, behind, tmp_path / "again")
