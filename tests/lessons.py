"""Lessons made by the tests: a picture that changes and a sound that isn't silent, in a second."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_lesson(path: Path, seconds: float, tone: int = 300, rate: int = 10) -> Path:
    """An MP4 of that length. Another tone is another lesson."""
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", f"testsrc=size=160x90:rate={rate}:duration={seconds}"]
    command += ["-f", "lavfi", "-i", f"sine=frequency={tone}:sample_rate=48000:duration={seconds}"]
    command += ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "96k", "-shortest", str(path)]
    subprocess.run(command, check=True)
    return path
