"""A flow that asks for a review and publishes as `flows.dub_video` does, in a few seconds and with nothing dubbed: what the platform sees
of a run, for tests of the platform alone.

What was approved is kept beside the files (in $STAND_IN_FILES), so that the next run of the same lesson doesn't ask again.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import httpx
from prefect import flow, suspend_flow_run, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.input import RunInput
from prefect.states import Completed
from pydantic import BaseModel, Field

LINES = [
    ("a1", 0.5, 3.1, "Сегодня поговорим о свете.", "Today we will talk about light.", ""),
    ("b2", 3.6, 7.4, "Свет кажется белым, но в нём все цвета сразу.", "Light seems white, but it has all the colours at once.", ""),
    ("c3", 8.0, 11.9, "Призма разводит их в стороны.", "The prism breeds them to the sides.", "rate 1.24; heard otherwise"),
    ("d4", 12.4, 16.0, "Так Ньютон открыл спектр.", "That is how Newton discovered the spectrum.", ""),
    ("e5", 16.6, 21.2, "Красный преломляется слабее всех, фиолетовый сильнее.", "Red is bent least, violet most.", "drift 0.8 s"),
    ("f6", 22.0, 25.5, "Попробуйте сами: нужен только стакан воды.", "Try it yourself: all you need is a glass of water.", ""),
]
STAGES = ("ingest", "extract_audio", "separate", "transcribe", "translate", "synthesize", "fit")


class LineEdit(BaseModel):
    line: str
    text: str | None = None
    voice: str | None = None
    silent: bool | None = None


class ReviewAnswer(RunInput):
    decision: Literal["approve", "reject"]
    reason: str = ""
    edits: list[LineEdit] = Field(default_factory=list)
    reviewer: str = ""


@task
def worked(stage: str, seconds: float) -> None:
    made = create_progress_artifact(progress=0.0, key=f"{stage.replace('_', '-')}-progress", description=stage)
    for part in range(1, 5):
        time.sleep(seconds / 4)
        update_progress_artifact(made, progress=25.0 * part)


@flow(name="dub-video", persist_result=True)
def dub_video(
    source: str,
    target_language: str = "en",
    review: Literal["none", "translation", "voiceover"] = "none",
    review_days: float = 7,
    publish_to: str | None = None,
    kinescope: str | None = None,
    job: str = "",
    title: str = "",
) -> Any:
    folder = Path(os.environ["STAND_IN_FILES"])
    seconds = float(os.environ.get("STAND_IN_SECONDS", "0.4"))
    video = fetched(source, folder)
    approved = video.with_suffix(".approved.json")
    if not approved.exists():
        for stage in STAGES:
            worked.with_options(name=stage)(stage, seconds)
        if review != "none":
            answer = asked(video, folder, review, timedelta(days=review_days))
            if answer.decision == "reject":
                return Completed(name="Rejected", message=answer.reason)
            approved.write_text(json.dumps([edit.model_dump(exclude_none=True) for edit in answer.edits]))
    for stage in ("mix", "render", "inspect"):
        worked.with_options(name=stage)(stage, seconds)
    result = {
        **{"addresses": {"video": str(video), "voice": str(sound_of(video))}, "cost": 0.42, "seconds": 83.0, "lines": len(LINES)},
        **{"lines_flagged": 2, "word_error_rate": 0.013, "edits": json.loads(approved.read_text()) if approved.exists() else []},
        **({"kinescope": {"video": f"stand-in-{video.stem[:8]}", "address": "https://kinescope.io/stand-in"}} if kinescope else {}),
    }
    create_table_artifact(table=[{"name": name, "value": json.dumps(value)} for name, value in result.items()], key="result")
    return result


def asked(video: Path, folder: Path, review: str, timeout: timedelta) -> ReviewAnswer:
    names = ("id", "start", "end", "source", "translation", "flags")
    create_table_artifact(table=[{**dict(zip(names, line, strict=True)), "speaker": ""} for line in LINES], key="review")
    files = {"original_audio": sound_of(video), **({"video": video} if review == "voiceover" else {})}
    create_table_artifact(table=[{"what": what, "address": str(path)} for what, path in files.items()], key="review-files")
    return suspend_flow_run(wait_for_input=ReviewAnswer, timeout=timeout.total_seconds(), key="review")  # type: ignore[return-value]


def fetched(source: str, folder: Path) -> Path:
    content = httpx.get(source, follow_redirects=True, timeout=60).raise_for_status().content
    video = folder / f"{hashlib.sha256(content).hexdigest()}.mp4"
    video.write_bytes(content)
    return video


def sound_of(video: Path) -> Path:
    sound = video.with_suffix(".m4a")
    if not sound.exists():
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", video, "-vn", "-c:a", "aac", "-b:a", "64k", sound], check=True)
    return sound
