"""Stage 1: take the recording into the store, after a look at all of it."""

from __future__ import annotations

from pathlib import Path

from blocks.store import Store
from dubbing import media
from dubbing.errors import BadInput
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
    kind = f"video/{facts.container.partition(',')[0]}" if facts.picture else "audio"
    kept = store.put_copy(Path(path), kind)
    if kept.sha256 != sha256:
        raise BadInput(f"{name}: the file changed while it was read: try again when it is complete")
    return Lesson(
        media=kept,
        container=facts.container,
        duration=round(extent.end, 6),
        picture=facts.picture,
        sound=facts.sound,
        has_chapters=facts.has_chapters,
    )
