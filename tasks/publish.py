"""After delivery: the lesson where its viewers are. Not stages: what is published is what the store holds, and is known there by content.

Each file is whole or not there, and a lesson published again replaces its own files and no other's (`dubbing.publishing`).
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from blocks.kinescope import Kinescope, Published
from blocks.publishing import Place
from blocks.store import Store
from dubbing.lesson import Artifact, Source
from dubbing.publishing import lesson_id, place_of
from dubbing.wording import Wording
from tasks.announce import announce
from tasks.deliver import Made, documents, files_of
from tasks.progress import Work, advance, working


class Going(NamedTuple):
    """A file on its way."""

    what: str
    name: str  # where it will be
    content: Artifact | bytes

    @property
    def size(self) -> int:
        return self.content.size if isinstance(self.content, Artifact) else len(self.content)


def published(made: Made) -> list[Artifact]:
    """The blobs that a publication is made of, beside those of the lesson's folder."""
    return [made.mix.media]


def publish(store: Store, place: Place, made: Made, lesson: Source, words: Wording) -> dict[str, str]:
    """Copy a lesson's files to a place, the new track first, which is told of as soon as it is there.

    Returns:
        Addresses by what they are: `voice`, `video`, `srt_en`, …, `thumbnail`, `timeline`, `report`, `page`.

    Raises:
        StoreFailed: the place can't be reached or written.
        BlobDamaged
    """
    return copy_files(store, place, going(store, made, lesson, words), _tell_of_voice)


def going(store: Store, made: Made, lesson: Source, words: Wording) -> list[Going]:
    """What is copied where, in this order: the report is there when all that it shows is."""
    called = lesson_id(lesson.name, lesson.sha256, made.timeline.target_language)
    names, artifacts = files_of(made, called)
    names |= {"voice": f"{called}.m4a", "timeline": "timeline.json", "report": "report.json", "page": "index.html"}
    artifacts = {"voice": made.mix.media, **artifacts}
    places = {what: place for what, name in names.items() if (place := place_of(what, name, called))}
    beside = posixpath.dirname(places["page"])
    linked = {what: posixpath.relpath(place, beside) for what, place in places.items()}
    texts, _ = documents(store, made, lesson.name, lesson.sha256, linked, words)
    return [
        *(Going(what, places[what], artifact) for what, artifact in artifacts.items() if what in places),
        *(Going(what, places[what], text.encode()) for what, text in texts.items()),
    ]


_REVIEWED = ("video", "original_audio", "timeline", "page")


def publish_for_review(store: Store, place: Place, made: Made, lesson: Source, words: Wording) -> dict[str, str]:
    """What a reviewer looks at and listens to, in a place of its own: nothing is where finished lessons are before it is approved.

    Returns:
        Addresses by what they are.
    """
    called = lesson_id(lesson.name, lesson.sha256, made.timeline.target_language)
    names, artifacts = files_of(made, called)
    names |= {"timeline": "timeline.json", "page": "index.html"}
    texts, _ = documents(store, made, lesson.name, lesson.sha256, {what: names[what] for what in _REVIEWED}, words)
    files = []
    for what in _REVIEWED:
        content = artifacts[what] if what in artifacts else texts[what].encode()
        files.append(Going(what, f"uploads/reviews/{called}/{names[what]}", content))
    return copy_files(store, place, files, lambda what, address: None)


@task(name="publish", cache_policy=NO_CACHE, persist_result=False)
def copy_files(store: Store, place: Place, files: list[Going], copied: Callable[[str, str], None]) -> dict[str, str]:
    """
    Args:
        copied: called with what a file is and its address, once it is there.
    """
    addresses: dict[str, str] = {}
    total, done = sum(file.size for file in files) or 1, 0
    work = Work("publish")
    with working(work), store.scratch() as scratch:
        for file in files:
            advance(done / total)
            if isinstance(file.content, Artifact):
                addresses[file.what] = place.put_blob(store, file.content, file.name)
            else:
                (scratch / "text").write_bytes(file.content)
                addresses[file.what] = place.put(scratch / "text", file.name, hashlib.sha256(file.content).hexdigest())
            done += file.size
            copied(file.what, addresses[file.what])
        work.finish()
    return addresses


def publish_to_kinescope(store: Store, kinescope: Kinescope, made: Made, title: str) -> dict[str, Any]:
    """Have the finished lesson at Kinescope, with subtitles in both languages.

    Raises:
        as `Kinescope.publish` does.
    """
    subtitles = {files.language: files.vtt for files in (made.subtitles.target, made.subtitles.source)}
    return dict(upload_to_kinescope(store, kinescope, made.render.media, title, subtitles)._asdict())


@task(name="kinescope", cache_policy=NO_CACHE, persist_result=False)
def upload_to_kinescope(store: Store, kinescope: Kinescope, video: Artifact, title: str, subtitles: Mapping[str, Artifact]) -> Published:
    work = Work("kinescope")
    try:
        with working(work):
            done = kinescope.publish(store, video, title, subtitles, advance)
            work.finish()
    finally:
        kinescope.close()
    for why in done.refused:
        get_run_logger().warning("kinescope: %s", why)
    return done


def _tell_of_voice(what: str, address: str) -> None:
    if what == "voice":
        announce("voiceover_uploaded", voice_url=address)


def completed(
    addresses: Mapping[str, str], target_language: str, kinescope: Mapping[str, Any] | None, cost: float | None
) -> dict[str, Any]:
    """What whoever waits for a lesson is told when it is done."""
    return {
        "voice_url": addresses.get("voice"),
        "subtitles_url": addresses.get(f"srt_{target_language}"),
        "video_url": addresses.get("video"),
        "thumbnail_url": addresses.get("thumbnail"),
        "report_url": addresses.get("page"),
        "kinescope_id": kinescope["video"] if kinescope else None,
        "kinescope_url": kinescope["address"] if kinescope else None,
        "cost": cost,
    }
