"""Media files through ffmpeg and ffprobe: what a file is, whether it is whole, and the graphs that read and write it.

File names are hostile: they are always passed as `file:` addresses in argument lists, ffmpeg may open nothing but local files, and only
containers that hold their own media are read (no playlists, no concatenation scripts, no image sequences).
"""

from __future__ import annotations

import errno
import json
import re
import stat
import struct
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ffmpeg

from dubbing.errors import (
    BadSetting,
    NoSound,
    NotMedia,
    SourceEmpty,
    SourceNotFound,
    SourceTooLarge,
    SourceTooLong,
    SourceTruncated,
)
from dubbing.lesson import Picture, Sound

SAMPLE_RATE = 48_000  # Hz, of everything between extraction and delivery

# ffmpeg's names of the demuxers that we allow.
CONTAINERS = "aac,ac3,aiff,amr,asf,avi,caf,flac,flv,m4v,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,mpegvideo,mxf,ogg,w64,wav,wv"
# Picture codecs that MP4 can hold and players of MP4 expect. Anything else is delivered in Matroska, so that the picture is still copied.
MP4_PICTURES = frozenset({"h264", "hevc", "mpeg4", "av1", "vp9", "mjpeg", "mpeg2video", "mpeg1video"})
MP4_SOUNDS = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})

SHORTEST = 0.02  # seconds of sound: one packet of it
SAID_LINES = 200  # that are kept of ffmpeg's words: on a damaged file it has some for every packet
ROOM = 64 * 1024  # bytes that a disk must have left after a file: less than one write of ffmpeg's wouldn't show that one failed
PROBE_TIMEOUT = 60.0  # seconds: ffprobe reads a few megabytes
TRUNCATION_TOLERANCE = 1.0  # seconds that may be missing at the end against what the container declares
TRUNCATION_SHARE = 0.002  # and the share of the duration that may: writers round, and count a last frame that isn't there
# ffmpeg would move time zero of MPEG streams to the first stream in use: the sound alone would start elsewhere than sound and picture
# together. It does so only where the offset is exactly the container's start, so a microsecond keeps zero where `Facts.start` is.
KEEP_START = "0.000001"  # seconds


class Limits(NamedTuple):
    """What a source may be. Settings of the run, with these defaults (FEATURES: limits)."""

    megabytes: float = 500.0
    hours: float = 6.0


class Facts(NamedTuple):
    """What ffprobe says of a source."""

    container: str
    duration: float  # as declared; measured where the container declares none, or ffprobe would guess from the bit rate
    start: float  # the container's own start, which ffmpeg subtracts from every stream's times
    picture: Picture | None
    sound: Sound
    has_chapters: bool


def address(path: Path) -> str:
    """A path as ffmpeg can't misread it: "-i.mp4" is no option, "concat:a|b" no protocol, "%03d.png" no pattern.

    >>> address(Path("/tmp/-i.mp4"))
    'file:/tmp/-i.mp4'
    """
    return f"file:{path.absolute()}"


def probe(path: Path, name: str) -> Facts:
    """Read what the file is. `name` is what error messages call it.

    Raises:
        SourceNotFound, SourceEmpty, NotMedia, NoSound
    """
    check_readable(path, name)
    command = ["ffprobe", "-v", "repeat+warning", "-protocol_whitelist", "file", "-format_whitelist", CONTAINERS]
    command += ["-show_format", "-show_streams", "-show_chapters", "-of", "json", address(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROBE_TIMEOUT, check=False)
    except FileNotFoundError as error:
        raise BadSetting("ffprobe is not installed: install ffmpeg") from error
    except subprocess.TimeoutExpired as error:
        raise NotMedia(f"{name}: can't be read: ffprobe found nothing in {PROBE_TIMEOUT:.0f} s") from error
    if done.returncode and b"moov atom not found" in done.stderr and _starts_as_mp4(path):
        raise SourceTruncated(f"{name}: the file is cut off, or its recording never ended: its index (moov) is missing")
    if done.returncode:
        other = re.search(rb"\[(\w+?)(?:_pipe)? @ \w+\] Format not on whitelist", done.stderr)
        reason = f"its content is {other[1].decode()}" if other else _last_line(done.stderr).rpartition(": ")[2]
        raise NotMedia(f"{name}: not a media file that can be read ({reason})")
    facts = _facts(json.loads(done.stdout), name)
    if not facts.duration or b"Estimating duration from bitrate" in done.stderr:
        ends = _measured_ends(path, facts.start)
        facts = facts._replace(duration=max(ends.values(), default=0.0))
    return facts


def _starts_as_mp4(path: Path) -> bool:
    """Whether the first box is one that MP4 and MOV files start with: another file that is only called .mp4 is not a cut MP4."""
    with path.open("rb") as file:
        return file.read(8)[4:] in {b"ftyp", b"mdat", b"moov", b"wide", b"free", b"skip"}


def check_readable(path: Path, name: str) -> None:
    """Raises: SourceNotFound, SourceEmpty."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # before it is opened: a pipe would wait for its writer
            raise SourceNotFound(f"{name}: not a file but a folder" if path.is_dir() else f"{name}: not a file")
        with path.open("rb"):
            pass
    except PermissionError:
        raise SourceNotFound(f"{name}: may not be read (no permission)") from None
    except FileNotFoundError:
        raise SourceNotFound(f"{name}: no such file") from None
    except OSError as error:  # a name that is too long, a file where a folder should be, a circle of links
        raise SourceNotFound(f"{name}: can't be opened ({error.strerror})") from None
    except ValueError:  # a null character
        raise SourceNotFound(f"{name}: no such file") from None
    if found.st_size == 0:
        raise SourceEmpty(f"{name}: the file is empty (0 bytes)")


def check_size(size: int, name: str, limits: Limits) -> None:
    if size > limits.megabytes * 1e6:
        raise SourceTooLarge(f"{name}: {size / 1e6:.0f} MB, and the limit is {limits.megabytes:g} MB (setting max_megabytes)")


def check_duration(duration: float, name: str, limits: Limits) -> None:
    if duration > limits.hours * 3600:
        raise SourceTooLong(f"{name}: {duration / 3600:.2f} hours long, and the limit is {limits.hours:g} hours (setting max_hours)")


def _facts(probed: dict[str, Any], name: str) -> Facts:
    container = probed["format"]["format_name"]
    streams = probed.get("streams", [])
    start = float(probed["format"].get("start_time") or 0.0)
    sounds = [s for s in streams if s["codec_type"] == "audio" and s.get("codec_name", "unknown") != "unknown" and s.get("channels")]
    pictures = [s for s in streams if s["codec_type"] == "video" and not s.get("disposition", {}).get("attached_pic")]
    if not sounds:
        if pictures:
            raise NoSound(f"{name}: there is a picture but no sound, so there is nothing to dub")
        raise NotMedia(f"{name}: neither picture nor sound in it ({container})")
    default = next((s for s in sounds if s.get("disposition", {}).get("default")), sounds[0])
    sound = Sound(
        stream=default["index"],
        codec=default["codec_name"],
        channels=int(default["channels"]),
        sample_rate=int(default["sample_rate"]),
        start=_seconds(default, "start_time", start) - start,
    )
    picture = None
    if pictures:
        first = pictures[0]
        picture = Picture(
            stream=first["index"],
            codec=first.get("codec_name", "unknown"),
            width=int(first.get("width", 0)),
            height=int(first.get("height", 0)),
            start=_seconds(first, "start_time", start) - start,
        )
    duration = float(probed["format"].get("duration") or 0.0)
    return Facts(container, duration, start, picture, sound, bool(probed.get("chapters")))


def _seconds(stream: dict[str, Any], field: str, default: float) -> float:
    try:
        return float(stream[field])
    except (KeyError, ValueError):
        return default


class Extent(NamedTuple):
    """Where the packets really are, in seconds from the container's start."""

    sound_end: float
    picture_end: float

    @property
    def end(self) -> float:
        return max(self.sound_end, self.picture_end)


def measured_extent(path: Path, facts: Facts, name: str) -> Extent:
    """Walk all packets (no decoding: as fast as the disk) and see where they end.

    Raises:
        SourceEmpty: there is no playing time in it.
        SourceTruncated: the packets end well before the container says.
    """
    missing = _missing_bytes(path)
    if missing > 0:
        raise SourceTruncated(f"{name}: the file is cut off: {missing} bytes that it declares are not there")
    ends = _measured_ends(path, facts.start)
    extent = Extent(ends.get(facts.sound.stream, 0.0), ends.get(facts.picture.stream, 0.0) if facts.picture else 0.0)
    if extent.sound_end <= SHORTEST:
        raise SourceEmpty(f"{name}: 0 seconds of sound in it")
    there = max(ends.values())  # of all streams: subtitles may go on after the sound
    if facts.duration - there > max(TRUNCATION_TOLERANCE, TRUNCATION_SHARE * facts.duration):
        raise SourceTruncated(f"{name}: the file is cut off: it declares {facts.duration:.1f} s, and {there:.1f} s of it are there")
    return extent


def _missing_bytes(path: Path) -> int:
    """What an AVI or WAV lacks at its end by its own account: their duration can't tell, ffmpeg computes it from what is there."""
    with path.open("rb") as file:
        kind, declared = struct.unpack("<4sI", file.read(8).ljust(8, b"\0"))
    if kind != b"RIFF" or declared in {0, 0xFFFFFFFF}:  # nobody came back to write the size: a recording that was piped or interrupted
        return 0
    return int(declared + 8 - path.stat().st_size)


def _measured_ends(path: Path, start: float) -> dict[int, float]:
    """Where each stream's last packet ends, by the stream's index, in seconds from `start`."""
    ends: dict[int, float] = {}
    command = ["ffprobe", "-v", "error", "-protocol_whitelist", "file", "-format_whitelist", CONTAINERS]
    command += ["-show_entries", "packet=stream_index,pts_time,duration_time", "-of", "csv=p=0", address(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            fields = line.rstrip("\n,").split(",")
            try:
                stream, time = int(fields[0]), float(fields[1])
                length = float(fields[2]) if len(fields) > 2 else 0.0
            except (ValueError, IndexError):
                continue
            ends[stream] = max(ends.get(stream, 0.0), time + length - start)
    return ends


def source(path: Path) -> Any:
    """The file as input of an ffmpeg graph."""
    return ffmpeg.input(address(path), protocol_whitelist="file", format_whitelist=CONTAINERS, itsoffset=KEEP_START)


class FfmpegFailed(Exception):
    """ffmpeg gave up: a defect in the file that probing didn't show, or one of ours."""


def run(graph: Any, target: Path, *, seconds: float | None = None, progress: Callable[[float], None] | None = None) -> str:
    """Run an ffmpeg graph that writes `target` to its end. Returns the end of what ffmpeg said on standard error.

    Args:
        seconds: length of the output, to turn ffmpeg's position into a share for `progress`.

    Raises:
        FfmpegFailed: with ffmpeg's last line.
        OSError: the disk is full.
    """
    command = ffmpeg.compile(graph, overwrite_output=True)
    command[1:1] = ["-hide_banner", "-nostdin", "-loglevel", "repeat+info", "-nostats", "-progress", "pipe:1"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    assert process.stdout is not None and process.stderr is not None
    said: deque[str] = deque(maxlen=SAID_LINES)
    try:
        reader = threading.Thread(target=lambda: said.extend(process.stderr), daemon=True)  # type: ignore[arg-type]
        reader.start()
        for line in process.stdout:
            if progress and seconds and (at := re.fullmatch(r"out_time_us=(\d+)\s*", line)):
                progress(min(1.0, int(at[1]) / 1e6 / seconds))
        process.wait()
        reader.join()
    except BaseException:
        process.kill()
        process.wait()
        raise
    output = "".join(said)
    check_written(target, output, process.returncode)
    return output


def check_written(target: Path, said: str, code: int) -> None:
    """What an ffmpeg that has ended left: its output, or an exception as of `run`.

    It may say that all went well where the disk was full before the last of the file (seen in ffmpeg 5.1: up to 90 kB), so whether
    there still is room tells whether there was.
    """
    if code and "No space left on device" in said:
        raise OSError(errno.ENOSPC, "No space left on device")  # the store names the disk
    if code:
        raise FfmpegFailed(_last_line(said.encode()))
    with tempfile.TemporaryFile(dir=target.parent) as file:
        file.write(bytes(ROOM))


def _last_line(output: bytes) -> str:
    lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    # ffprobe's line starts with the file's address: the message names the file already.
    return re.sub(r"^\S*file:.*?: ", "", lines[-1]) if lines else "ffmpeg gave no reason"
