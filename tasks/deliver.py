"""After the stages: the lesson's folder, for people and players. Not a stage: it makes nothing new, it copies what the store holds."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from blocks.store import Store
from dubbing import report, sources
from dubbing.documents import as_json, report_document, timeline_document
from dubbing.edits import Revision
from dubbing.errors import BadSetting
from dubbing.lesson import Artifact, Inspection, Lesson, Mix, Render, Subtitles, Termbase, Timeline
from dubbing.terms import as_table
from dubbing.wording import Wording
from tasks.review import as_rows

_ENDINGS = {"mp4": "mp4", "matroska": "mkv"}


class Made(NamedTuple):
    """All that a run made of a lesson."""

    lesson: Lesson
    timeline: Timeline
    subtitles: Subtitles
    render: Render
    inspection: Inspection
    engines: Mapping[str, str]
    revision: Revision
    termbase: Termbase
    lecturer_voice: str  # of who speaks most; "" for a clone
    mix: Mix


class Delivered(NamedTuple):
    """A lesson's folder as it was written."""

    files: dict[str, str]  # names in the folder by what they are
    summary: dict[str, Any]  # what is in report.json


def delivered(made: Made) -> list[Artifact]:
    """The blobs that a lesson's folder is made of."""
    return [*files_of(made, "")[1].values(), *made.inspection.plots.values()]


def deliver(store: Store, made: Made, name: str, sha256: str, folder: Path, words: Wording) -> Delivered:
    """Write the lesson's folder. Each file is complete or not there.

    Args:
        sha256: of the recording.
        words: of the page.

    Raises:
        BadSetting: the folder can't be written.
        BlobDamaged: something in the store has to be made again.
    """
    names, artifacts = files_of(made, sources.file_stem(name))
    names |= {"timeline": "timeline.json", "report": "report.json", "page": "index.html"}
    if made.termbase.terms:
        names["terms"] = "terms.csv"

    texts, summary = documents(store, made, name, sha256, names, words)
    if made.termbase.terms:
        texts["terms"] = as_table(made.termbase.terms)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for what, artifact in artifacts.items():
            _copy(store.path_of(artifact), folder / names[what])
        for what, text in texts.items():
            write_whole(io.BytesIO(text.encode()), folder / names[what])
    except OSError as error:
        raise BadSetting(f"output folder {folder}: {error.strerror or error}") from error
    return Delivered(names, summary)


def documents(
    store: Store, made: Made, name: str, sha256: str, names: Mapping[str, str], words: Wording
) -> tuple[dict[str, str], dict[str, Any]]:
    """Timeline, report and page of a lesson, and what is in the report.

    Args:
        names: of the files that the page shows and links, relative to it.

    Raises:
        BlobDamaged, StoreFailed
    """
    timeline = timeline_document(name, made.timeline, made.inspection.lines, sha256)
    summary = report_document(name, made.lesson, made.timeline, made.inspection, made.render, made.engines)
    summary["edits"] = as_rows(made.revision)
    summary["about"] = made.termbase.summary
    plots = {plot: store.read_bytes(artifact).decode() for plot, artifact in made.inspection.plots.items()}
    shown = dict(names) if made.lesson.picture else {**names, "audio_only": "yes"}
    texts = {"timeline": as_json(timeline), "report": as_json(summary), "page": report.page(timeline, summary, shown, plots, words)}
    return texts, summary


def files_of(made: Made, stem: str) -> tuple[dict[str, str], dict[str, Artifact]]:
    """Names in the folder, and blobs, by what they are."""
    target, source = made.timeline.target_language, made.timeline.source_language
    names = {"video": f"{stem}.{target}.{_ENDINGS[made.render.container]}"}
    artifacts: dict[str, Artifact] = {"video": made.render.media}
    for files in (made.subtitles.target, made.subtitles.source):
        for kind in ("srt", "vtt", "ass"):
            names[f"{kind}_{files.language}"] = f"{stem}.{files.language}.{kind}"
            artifacts[f"{kind}_{files.language}"] = getattr(files, kind)
    names["original_audio"], artifacts["original_audio"] = f"{stem}.{source}.m4a", made.render.original_sound
    if made.render.thumbnail:
        names["thumbnail"], artifacts["thumbnail"] = f"{stem}.jpg", made.render.thumbnail
    names["table"], artifacts["table"] = "lines.csv", made.inspection.table
    return names, artifacts


def _copy(path: Path, target: Path) -> None:
    with path.open("rb") as original:
        write_whole(original, target)


def write_whole(content: IO[bytes], target: Path) -> None:
    """Write beside the target, then move into its place: whoever looks sees the old file or the new one."""
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".partial-")
    try:
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)
