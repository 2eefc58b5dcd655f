"""The delivered file: the picture's own packets, the new track, the original one, and soft subtitles in both languages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ffmpeg

from dubbing import media
from dubbing.languages import iso639_2, name_of
from dubbing.lesson import Lesson

ORIGINAL_KBPS = 160  # of the original track where its own codec can't be carried over
THUMBNAIL_SHARE = 0.1  # of the duration (FEATURES D10)
THUMBNAIL_EARLIEST = 1.0  # seconds
THUMBNAIL_WIDTH = 640  # pixels


class Tracks(NamedTuple):
    """What goes into the file besides the picture."""

    mix: Path  # AAC in MP4
    target_subtitles: Path  # SRT
    source_subtitles: Path
    target_language: str
    source_language: str


def container_for(lesson: Lesson) -> str:
    """MP4 where it can hold the picture as it is, else Matroska: the picture is never encoded again."""
    return "mp4" if lesson.picture is None or lesson.picture.codec in media.MP4_PICTURES else "matroska"


def render(
    original: Path, lesson: Lesson, tracks: Tracks, target: Path, container: str, progress: Callable[[float], None] | None = None
) -> None:
    """Write the dubbed file.

    Track order: picture, new track (default), original track, subtitles of the target, subtitles of the source. Metadata and chapters of
    the original survive; so do its start offsets: its streams keep their times, and the new track starts where the lesson does.
    """
    source = media.source(original)
    mp4 = container == "mp4"
    streams = [source[str(lesson.picture.stream)]] if lesson.picture else []
    streams.append(ffmpeg.input(media.address(tracks.mix))["a:0"])
    streams.append(source[str(lesson.sound.stream)])
    subtitles = [(tracks.target_subtitles, tracks.target_language), (tracks.source_subtitles, tracks.source_language)]
    # An SRT without a single cue is not a file that ffmpeg reads.
    subtitles = [(path, language) for path, language in subtitles if path.stat().st_size]
    streams += [ffmpeg.input(media.address(path), f="srt")["s:0"] for path, _ in subtitles]
    copied = not mp4 or lesson.sound.codec in media.MP4_SOUNDS
    options: dict[str, object] = {
        "c:v": "copy",
        "c:a:0": "copy",
        "c:a:1": "copy" if copied else "aac",
        "c:s": "mov_text" if mp4 else "srt",
        "map_metadata": 0,
        "map_chapters": 0,
        "disposition:a:0": "default",
        "disposition:a:1": 0,
        "strict": "experimental",  # lossless FLAC in MP4, to ffmpeg 5
        "fflags": "+bitexact",
        "flags:a": "+bitexact",
    }
    if not copied:
        options["b:a:1"] = f"{ORIGINAL_KBPS}k"
    first = len(streams) - len(subtitles) - 2  # index of the new track
    for position, language, title in (
        (first, tracks.target_language, name_of(tracks.target_language)),
        (first + 1, tracks.source_language, f"{name_of(tracks.source_language)} (original)"),
        *((first + 2 + place, language, name_of(language)) for place, (_, language) in enumerate(subtitles)),
    ):
        # ffmpeg-python gives each option once: a stream is named by its index for the language, by its type's count for the title.
        options[f"metadata:s:{position}"] = f"language={iso639_2(language)}"
        options[f"metadata:s:{_type_of(position - first)}"] = f"{'handler_name' if mp4 else 'title'}={title}"  # MP4 has no titles of tracks
    if mp4:
        options["movflags"] = "+faststart"
    if lesson.picture and lesson.picture.codec == "hevc" and mp4:
        options["tag:v"] = "hvc1"  # what Apple's players ask for; the packets stay the same
    media.run(
        ffmpeg.output(*streams, media.address(target), format=container, **options), target, seconds=lesson.duration, progress=progress
    )


def _type_of(position: int) -> str:
    """The specifier by type of the track at a place after the picture: two audio tracks, then subtitles."""
    return f"a:{position}" if position < 2 else f"s:{position - 2}"


def thumbnail(original: Path, lesson: Lesson, target: Path) -> None:
    """A JPEG of the picture at a tenth of the duration, never before the first second.

    Raises:
        FfmpegFailed: there is no frame there.
    """
    assert lesson.picture is not None
    at = min(max(THUMBNAIL_EARLIEST, THUMBNAIL_SHARE * lesson.duration), max(0.0, lesson.duration - 0.1))
    frame = ffmpeg.input(media.address(original), ss=at, protocol_whitelist="file", format_whitelist=media.CONTAINERS)
    frame = frame[str(lesson.picture.stream)].filter("scale", f"min({THUMBNAIL_WIDTH},iw)", -2)
    image = {"format": "image2", "vcodec": "mjpeg", "vframes": 1, "update": 1, "q:v": 3, "flags": "+bitexact"}
    media.run(frame.output(media.address(target), **image), target)


def original_sound(original: Path, lesson: Lesson, target: Path) -> None:
    """The original sound alone, as a browser plays it, for comparison beside the dubbed picture."""
    plays = lesson.sound.codec == "aac"
    codec = {"acodec": "copy"} if plays else {"acodec": "aac", "ac": 2, "b:a": f"{ORIGINAL_KBPS}k", "aac_coder": "fast"}
    stream = media.source(original)[str(lesson.sound.stream)]
    output = stream.output(media.address(target), format="mp4", movflags="+faststart", fflags="+bitexact", map_metadata=-1, **codec)
    media.run(output, target)
