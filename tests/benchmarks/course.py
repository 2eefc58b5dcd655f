"""What a course costs the second time:  python -m tests.benchmarks.course [lessons] [lines a lesson]

A course of 20 lessons of 30 lines each (a minute; the engines are stood in for and take no time, so what is left is ours):
dubbed first; again, with nothing changed; again, with one lesson recorded anew and one line of another edited. Seconds, lessons by what
became of them, and uses of engines.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.lessons import make_lesson
from tests.stand_ins import uses

LINE_EVERY = 2.0  # seconds


def run(folder: Path, *arguments: str | Path) -> tuple[float, list[dict[str, Any]]]:
    """Seconds, and how the lessons stand."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"STAND_INS_LINES": str(LINE_EVERY), "STAND_INS_LOG": str(folder / "uses")}
    command = [sys.executable, "-m", "tests.stand_ins", *map(str, arguments), "--store", str(folder / "store"), "--json"]
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(done.stderr)
    return seconds, json.loads(done.stdout.splitlines()[-1]).get("lessons", [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="?", type=int, default=20)
    parser.add_argument("lines", nargs="?", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        course = folder / "physics"
        course.mkdir()
        for number in range(1, options.lessons + 1):
            make_lesson(course / f"{number}.mp4", options.lines * LINE_EVERY + 1, tone=200 + 10 * number, rate=1)

        def show(what: str) -> None:
            (folder / "uses").unlink(missing_ok=True)
            seconds, lessons = run(folder, "course", course)
            states = ", ".join(f"{count} {state}" for state, count in Counter(lesson["state"] for lesson in lessons).items())
            by_stage = Counter(use.split()[0] for use in uses(folder / "uses"))
            print(f"{what:34} {seconds:7.1f} s   {states:28} {dict(by_stage)}", flush=True)

        show("first")
        show("again")
        line = json.loads((folder / "physics.dubbed" / "2.en" / "timeline.json").read_text())["lines"][5]["id"]
        run(folder, "edit", course / "2.mp4", "--line", line, "--text", "Something else here.")
        make_lesson(course / "1.mp4", options.lines * LINE_EVERY + 1, tone=999, rate=1)
        show("one lesson and one line changed")


if __name__ == "__main__":
    main()
