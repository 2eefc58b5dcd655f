"""Stage 10: the file that is delivered."""

from __future__ import annotations

from blocks.store import Store
from dubbing import rendering
from dubbing.lesson import Artifact, Lesson, Mix, Render, Subtitles
from dubbing.media import FfmpegFailed
from tasks.progress import advance
from tasks.stage import stage


@stage(version=2, returns=Render, opens=("lesson", "mix", "subtitles.target.srt", "subtitles.source.srt"))
def render(store: Store, lesson: Lesson, mix: Mix, subtitles: Subtitles) -> Render:
    """Put picture, tracks and subtitles together. A thumbnail that can't be made is noted and missed by nobody."""
    original, container = store.path_of(lesson.media), rendering.container_for(lesson)
    notes: list[str] = []
    if container != "mp4" and lesson.picture:
        notes.append(f"the picture's codec {lesson.picture.codec} doesn't go into MP4: delivered in Matroska, the picture untouched")
    with store.scratch() as folder:
        tracks = rendering.Tracks(
            store.path_of(mix.media),
            store.path_of(subtitles.target.srt),
            store.path_of(subtitles.source.srt),
            subtitles.target.language,
            subtitles.source.language,
        )
        rendering.render(original, lesson, tracks, folder / "dubbed", container, lambda share: advance(0.9 * share))
        rendering.original_sound(original, lesson, folder / "original.m4a")
        thumbnail: Artifact | None = None
        if lesson.picture:
            try:
                rendering.thumbnail(original, lesson, folder / "thumbnail.jpg")
                thumbnail = store.put_file(folder / "thumbnail.jpg", "image/jpeg")
            except (FfmpegFailed, FileNotFoundError) as error:
                notes.append(f"no thumbnail: {error}")
        kind = "video" if lesson.picture else "audio"
        return Render(
            media=store.put_file(folder / "dubbed", f"{kind}/{container}"),
            container=container,
            original_sound=store.put_file(folder / "original.m4a", "audio/mp4"),
            thumbnail=thumbnail,
            notes=tuple(notes),
        )
