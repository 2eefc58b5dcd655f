"""Stage 1: take the recording into the store, after a look at all of it."""

from __future__ import annotations

from pathlib import Path

from blocks.store import Store
from dubbing import media
from dubbing.lesson import Lesson
from tasks.stage import stage


@stage(version=1, returns=Lesson, unkeyed=("path", "name"))
def ingest(store: Store, sha256: str, path: str, name: str) -> Lesson:
    """Check that the file is whole and keep a copy of it.

    Args:
        sha256: digest of the file's content, which is what the lesson is.
        path: where it lies now.
        name: what messages call it.
    """
    facts = media.probe(Path(path), name)
    extent = media.measured_extent(Path(path), facts, name)
    return Lesson(
        media=store.put_copy(Path(path), f"video/{facts.container.partition(',')[0]}" if facts.picture else "audio"),
        container=facts.container,
        duration=round(extent.end, 6),
        picture=facts.picture,
        sound=facts.sound,
        has_chapters=facts.has_chapters,
    )
