"""What a run costs as lessons grow:  python -m tests.benchmarks.scale [lines …] [--s3]

For lessons of 100, 1000 and 5000 lines (a line every 2 s; the engines are stood in for and take no time, so what is left is ours):
seconds and peak memory of a cold run, a cached run and one after one line was edited, on a local store and, with --s3, on a SeaweedFS
server on this machine with the number of requests made to it. An empty flow of as many tasks is timed beside them, in the same way, since
machines differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.fault_proxy import FaultProxy
from tests.lessons import make_lesson
from tests.seaweed import seaweed

LINE_EVERY = 2.0  # seconds
EMPTY_FLOW = """
import os
os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
from flows.own_server import server
with server() as own:
    from prefect import flow, task
    own.ready()
    @task
    def nothing(n): return n
    @flow
    def empty():
        for n in range(13): nothing(n)
    empty()
os._exit(0)  # as `coursedub` does: Prefect would wait for a server that has ended
"""


class Cost(NamedTuple):
    seconds: float
    megabytes: float  # peak resident memory of the largest process
    requests: int = 0


def cost(command: list[str], environment: Mapping[str, str], proxy: FaultProxy | None = None) -> tuple[Cost, str]:
    """Run a command; what it cost and what it printed."""
    if proxy:
        proxy.forget()
    started = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        # With compiled modules beside the sources, as `make` leaves them: else each start compiles all that it imports.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        process = subprocess.Popen(command, stdout=out, stderr=errors, env={**inherited, **environment})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        out.seek(0)
        errors.seek(0)
        if status:
            sys.exit(errors.read().decode())
        return Cost(seconds, usage.ru_maxrss / 1024, len(proxy.requests) if proxy else 0), out.read().decode()


def runs(lines: int, folder: Path, store: str, environment: Mapping[str, str], proxy: FaultProxy | None) -> list[tuple[str, Cost, str]]:
    """Cold, cached and one-line-edited."""
    lesson = make_lesson(folder / "lesson.mp4", lines * LINE_EVERY + 1, rate=1)
    environment = {**environment, "STAND_INS_LINES": str(LINE_EVERY)}
    program = [sys.executable, "-m", "tests.stand_ins"]
    dub = [*program, "dub", str(lesson), "--store", store, "--output", str(folder / "out"), "--json", "--max-megabytes", "5000"]
    results = []
    for name in ("cold", "cached", "one line edited"):
        if name == "one line edited":
            line = json.loads((folder / "out" / "timeline.json").read_text())["lines"][lines // 2]["id"]
            edit = [*program, "edit", str(lesson), "--store", store, "--line", line, "--text", "Something else here."]
            cost(edit, environment)
        spent, printed = cost(dub, environment, proxy)
        stages = json.loads(printed.splitlines()[-1])["stages"]
        slowest = sorted(stages, key=lambda stage: -stage["seconds"])[:4]
        results.append((name, spent, ", ".join(f"{stage['name']} {stage['seconds']:.1f}" for stage in slowest)))
    return results


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("lines", type=int, nargs="*", default=[100, 1000, 5000])
    parser.add_argument("--s3", action="store_true")
    options = parser.parse_args()
    empty = min(cost([sys.executable, "-c", EMPTY_FLOW], {})[0].seconds for _ in range(2))
    print(f"an empty flow of 13 tasks, server and imports included: {empty:.1f} s")
    print(f"{'store':6} {'lines':>6} {'run':16} {'seconds':>8} {'- empty':>8} {'MB':>6} {'requests':>9}  slowest stages")
    with ExitStack() as stack:
        server = stack.enter_context(seaweed()) if options.s3 else None
        if server:
            server.make_bucket("bench")
        for lines in options.lines:
            for kind in ("local", "s3") if server else ("local",):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                environment: dict[str, str] = {}
                proxy = None
                store = str(folder / "store")
                if kind == "s3" and server:
                    proxy = stack.enter_context(FaultProxy(server.port))
                    environment = {**server.environment(), "AWS_ENDPOINT_URL": proxy.endpoint, "AWS_ENDPOINT_URL_S3": proxy.endpoint}
                    environment["COURSEDUB_WORKING_FOLDER"] = str(folder / "working")
                    store = f"s3://bench/{lines}"
                for name, spent, slowest in runs(lines, folder, store, environment, proxy):
                    figures = f"{spent.seconds:8.1f} {spent.seconds - empty:8.1f} {spent.megabytes:6.0f} {spent.requests:9}"
                    print(f"{kind:6} {lines:6} {name:16} {figures}  {slowest}", flush=True)


if __name__ == "__main__":
    main()
