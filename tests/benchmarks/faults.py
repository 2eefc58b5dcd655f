"""A campaign of faults:  python -m tests.benchmarks.faults [runs]

The whole program on engines that take next to no time (`tests.stand_ins`), killed, damaged and cut off at random, on a disk and in a bucket
behind a proxy, and then run again. Each point must end with the folder of an uninterrupted run, byte for byte, with everything that was
finished found again; what doesn't is printed and counted. The same number of runs makes the same choices.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from tests.conftest import Bucket  # first: it keeps Prefect to itself

# isort: split

from blocks.copying import copy_store
from blocks.files import Files
from flows.own_server import server
from tests.fault_proxy import PASS, REFUSE, SLOW_DOWN, Fault, FaultProxy
from tests.flows.stand_in_runs import BY_LINE, CALM, Circumstances, Lab, Place, Recovery, contents, in_bucket, local, run_again
from tests.seaweed import Seaweed, seaweed
from tests.stand_ins import uses

RUNS = 60
AT_ONCE = 2
KINDS = ["records/", "lines/", "packs/", "lessons/", "figures/", "blobs/"]


class Point(NamedTuple):
    """One try."""

    number: int
    lab: Lab
    folder: Path
    place: Place
    proxy: FaultProxy | None  # before a bucket
    chance: random.Random


def killed_at_an_event(point: Point) -> Recovery:
    kind = point.chance.choice(["started", "advanced", "finished"])
    die = f"{point.chance.choice(point.lab.stages)}:{kind}:{point.chance.randint(1, 12) if kind == 'advanced' else 1}"
    point.lab.dub(point.place, point.folder / "output", point.folder / "notes", circumstances=Circumstances(die=die)).wait()
    return run_again(point.lab, point.place, point.folder)


def killed_at_a_moment(point: Point) -> Recovery:
    run = point.lab.dub(point.place, point.folder / "output", point.folder / "notes", circumstances=Circumstances(seconds=0.03))
    time.sleep(point.chance.uniform(0.2, 7))
    run.send(signal.SIGKILL)
    run.wait()
    return run_again(point.lab, point.place, point.folder)


def damaged(point: Point) -> Recovery:
    """A tenth to all of the files of some kinds."""
    copy_store(point.lab.whole.store, point.place.store, lambda done, total: None)
    chosen = [kind for kind in KINDS if point.chance.random() < 0.5]
    share = point.chance.choice([0.1, 0.5, 1.0])
    files = point.place.store.files
    for name in [found.name for kind in chosen for found in files.found(kind)]:
        if point.chance.random() < share:
            damage(files, name, point.chance)
    return _ended_well(point)


def damage(files: Files, name: str, chance: random.Random) -> None:
    content = bytearray(files.read(name))
    way = chance.choice(["truncated", "flipped", "deleted", "replaced"])
    if way == "deleted" or not content:
        files.remove(name)
    elif way == "truncated":
        files.write(name, bytes(content[: chance.randrange(len(content))]))
    elif way == "flipped":
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        files.write(name, bytes(content))
    else:
        others = [found.name for found in files.found(name.rpartition("/")[0] + "/") if found.name != name]
        files.write(name, files.read(chance.choice(others)) if others else b"another")


def bad_connection(point: Point) -> Recovery:
    assert point.proxy
    share = point.chance.uniform(0.02, 0.33)
    place = point.chance.random()
    fault = point.chance.choice(
        [
            SLOW_DOWN,
            REFUSE,
            Fault(status=500),
            Fault(delay=0.2),
            Fault(lose_answer=True),
            Fault(cut_answer=place),
            Fault(cut_request=place),
            Fault(flip_request=place),
            Fault(flip_answer=place),
        ]
    )
    point.proxy.fault = lambda method, path: fault if point.chance.random() < share else PASS
    return _ended_well(point)


def store_away_for_seconds(point: Point) -> Recovery:
    assert point.proxy
    run = point.lab.dub(point.place, point.folder / "output", point.folder / "notes", circumstances=Circumstances(seconds=0.03))
    for _ in range(2):
        time.sleep(point.chance.uniform(0, 3))
        point.proxy.down()
        time.sleep(point.chance.uniform(0, 3))
        point.proxy.up()
    assert run.wait().code == 0
    return _ended_well(point)


def store_away_for_good(point: Point) -> Recovery:
    assert point.proxy
    proxy, last = point.proxy, point.chance.randrange(400)
    proxy.fault = lambda method, path: PASS if len(proxy.requests) < last else REFUSE
    run = point.lab.dub(point.place, point.folder / "output", point.folder / "notes", circumstances=Circumstances(patience=1))
    done = run.wait(60)
    assert done.code in (0, 33) and (done.code == 0 or len(done.errors.splitlines()) == 1), done.errors
    proxy.fault = PASS
    return run_again(point.lab, point.place, point.folder)


def _ended_well(point: Point, circumstances: Circumstances = CALM) -> Recovery:
    started = time.monotonic()
    done = point.lab.dub(point.place, point.folder / "output", point.folder / "notes", circumstances=circumstances).wait()
    seconds = time.monotonic() - started
    assert done.code == 0, done.errors
    assert contents(point.folder / "output") == point.lab.expected, "another result"
    counts = Counter(uses(point.folder / "notes" / "uses"))
    repeated = sorted((counts - Counter(set(counts))).elements())
    return Recovery([name for name, state in done.states().items() if state == "computed"], repeated, seconds)


ANYWHERE: list[Callable[[Point], Recovery]] = [killed_at_an_event, killed_at_a_moment, damaged]
BUCKET_ONLY: list[Callable[[Point], Recovery]] = [bad_connection, store_away_for_seconds, store_away_for_good]


class Campaign:
    def __init__(self, lab: Lab, folder: Path, bucket_server: Seaweed, bucket: str) -> None:
        self.lab, self.folder, self.bucket_server, self.bucket = lab, folder, bucket_server, bucket
        self.recoveries: dict[tuple[str, str], list[Recovery | str]] = defaultdict(list)

    def tried(self, number: int) -> None:
        folder = self.folder / str(number)
        tries = [(fault, "disk") for fault in ANYWHERE] + [(fault, "bucket") for fault in ANYWHERE + BUCKET_ONLY]
        fault, where = tries[number % len(tries)]
        chance = random.Random(number)
        with FaultProxy(self.bucket_server.port) as proxy:
            if where == "disk":
                point = Point(number, self.lab, folder, local(folder / "store"), None, chance)
            else:
                environment = {**self.bucket_server.environment(), "AWS_ENDPOINT_URL": proxy.endpoint}
                bucket = Bucket(f"s3://{self.bucket}/{uuid4().hex[:12]}", self.bucket_server.credentials())
                point = Point(number, self.lab, folder, in_bucket(bucket, folder / "working", environment), proxy, chance)
            try:
                outcome: Recovery | str = fault(point)
            except Exception:
                outcome = traceback.format_exc()
                print(f"\n{fault.__name__}, {where}, point {number}:\n{outcome}", flush=True)
        self.recoveries[fault.__name__.replace("_", " "), where].append(outcome)
        print(".", end="", flush=True)

    def table(self) -> str:
        rows = [("fault", "store", "tried", "right", "stages made, most", "uses repeated, most", "of lines, most", "longest, s")]
        for (fault, where), outcomes in sorted(self.recoveries.items()):
            good = [outcome for outcome in outcomes if isinstance(outcome, Recovery)]
            lines = [sum(use.split()[0] in BY_LINE for use in recovery.repeated) for recovery in good]
            figures = [
                len(outcomes),
                len(good),
                max((len(recovery.recomputed) for recovery in good), default=0),
                max((len(recovery.repeated) for recovery in good), default=0),
                max(lines, default=0),
            ]
            rows.append((fault, where, *map(str, figures), f"{max((recovery.seconds for recovery in good), default=0):.1f}"))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="coursedub-faults-") as name, server() as prefect_server, seaweed() as bucket_server:
        prefect_server.ready()
        bucket_server.make_bucket("faults")
        folder = Path(name)
        campaign = Campaign(Lab(folder / "lab"), folder, bucket_server, "faults")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(campaign.tried, range(count)))
        print(f"\n{campaign.table()}\n{count} points in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
