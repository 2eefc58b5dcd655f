"""What dubbing a lesson costs and gives:  python -m tests.benchmarks.lesson samples/lesson_ru.mp4 [more lessons]

For each lesson, in a store of its own: seconds a stage and in all, as a multiple of its length, peak memory, seconds of a second run
with a temporary server and against a running one; loudness and true peak of the delivered file, largest drift and rate, and the word error
rate of the whole new track transcribed again (with its background, as delivered) against what it should say. An empty flow of twelve tasks
is timed beside it, since machines differ.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from blocks.transcription import FasterWhisper
from dubbing import inspection, verification

EMPTY_FLOW = """
from prefect import flow, task
@task
def nothing(n): return n
@flow
def empty():
    for n in range(12): nothing(n)
empty()
"""


def timed(command: list[str], **environment: str) -> tuple[float, float, str]:
    """Seconds, peak resident memory in MB of the largest process, and standard output."""
    started = time.monotonic()
    done = subprocess.run(
        ["/usr/bin/env", "time", "-f", "peak %M", *command] if _has_time() else command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    if done.returncode:
        sys.exit(done.stderr)
    peak = re.search(r"peak (\d+)", done.stderr)
    return time.monotonic() - started, int(peak[1]) / 1024 if peak else float("nan"), done.stdout


def _has_time() -> bool:
    return Path("/usr/bin/time").exists()


def dub(lesson: Path, folder: Path, **environment: str) -> tuple[float, float, dict[str, Any]]:
    command = [sys.executable, "-m", "flows.command_line", "dub", str(lesson), "--json"]
    seconds, peak, out = timed([*command, "--output", str(folder / "out"), "--store", str(folder / "store")], **environment)
    return seconds, peak, json.loads(out.splitlines()[-1])


def measure(lesson: Path) -> None:
    from flows.own_server import server

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds, peak, first = dub(lesson, folder)
        again, _, second = dub(lesson, folder)
        assert all(stage["state"] == "cached" for stage in second["stages"])
        empty, _, _ = timed([sys.executable, "-c", EMPTY_FLOW], PREFECT_LOGGING_LEVEL="CRITICAL")
        with server() as running:
            running.ready()
            served, _, _ = dub(lesson, folder)
        report = json.loads((folder / "out" / "report.json").read_text())
        timeline = json.loads((folder / "out" / "timeline.json").read_text())
        video = folder / "out" / first["files"]["video"]
        measured = inspection.measure(video, folder / "decoded.wav")
        words = FasterWhisper().transcribe(folder / "decoded.wav", timeline["target_language"], lambda _: None)
        meant = " ".join(line["translation"] for line in timeline["lines"])
        errors = verification.word_errors(meant, " ".join(word.text for word in words), timeline["target_language"])
    length = report["lesson"]["duration"]
    print(f"\n{lesson.name}: {length:.1f} s, {len(timeline['lines'])} lines, {report['lines_flagged']} flagged")
    for stage in first["stages"]:
        print(f"  {stage['name']:14}{stage['seconds']:7.2f} s")
    print(f"  in all        {seconds:7.1f} s = {seconds / length:.2f} times the lesson, of which the flow {first['seconds']:.1f} s")
    print(f"  peak memory   {peak:7.0f} MB")
    print(
        f"  second run    {again:7.1f} s with a temporary server ({second['seconds']:.2f} s the flow), {served:.1f} s against a running one"
    )
    print(f"  empty flow    {empty:7.1f} s of 12 tasks with Prefect's own temporary server")
    print(f"  loudness      {measured.integrated_loudness:7.1f} LUFS, true peak {measured.true_peak:.1f} dBTP")
    print(f"  largest drift {report['file']['largest_drift']:7.2f} s, largest rate {report['file']['largest_rate']:.2f}")
    clip_by_clip = 100 * report["file"]["word_error_rate"]
    print(f"  word errors   {100 * errors.rate:7.1f} % of {errors.words} on the delivered track, {clip_by_clip:.1f} % clip by clip")


if __name__ == "__main__":
    for argument in sys.argv[1:] or ["samples/lesson_ru.mp4"]:
        measure(Path(argument))
