"""What is taken and what is refused: each file gets its own kind of error in one line that names it, or the work is done; and no file can
make ffmpeg open another.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dubbing import audio, media
from dubbing.errors import (
    BadInput,
    NoSound,
    NotMedia,
    SourceEmpty,
    SourceNotFound,
    SourceTooLarge,
    SourceTooLong,
    SourceTruncated,
)
from dubbing.media import Limits
from tests.conftest import SmallDisk

ROOT = Path(__file__).parents[2]
PICTURE = ["-f", "lavfi", "-i", "testsrc=s=64x48:r=25:d=8"]
SOUND = ["-f", "lavfi", "-i", "sine=440:r=48000:d=8"]
H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "25"]


def make(path: Path, *arguments: str) -> Path:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments, "-fs", "20M", f"file:{path}"], check=True, timeout=1000)
    return path


def look(path: Path) -> media.Extent:
    """Everything that is checked before any work."""
    name = path.name
    media.check_readable(path, name)
    media.check_size(path.stat().st_size, name, Limits())
    facts = media.probe(path, name)
    media.check_duration(facts.duration, name, Limits())
    return media.measured_extent(path, facts, name)


def refused(path: Path, kind: type[BadInput]) -> str:
    """The message: of that kind exactly, in one line that names the file."""
    with pytest.raises(BadInput) as caught:
        look(path)
    assert type(caught.value) is kind, repr(caught.value)
    message = str(caught.value)
    assert "\n" not in message and message.isprintable()
    assert message.startswith(path.name[:20])
    return message


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Whole recordings of eight seconds, made when they are asked for."""
    folder = tmp_path_factory.mktemp("whole")
    options = {
        "lesson.mp4": [*PICTURE, *SOUND, *H264, "-c:a", "aac"],
        "faststart.mp4": [*PICTURE, *SOUND, *H264, "-c:a", "aac", "-movflags", "+faststart"],
        "lesson.mkv": [*PICTURE, *SOUND, *H264, "-c:a", "aac"],
        "lesson.webm": [*PICTURE, *SOUND, "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"],
        "lesson.ts": [*PICTURE, *SOUND, *H264, "-c:a", "aac"],
        "lesson.avi": [*PICTURE, *SOUND, "-c:v", "mpeg4", "-c:a", "libmp3lame"],
        "lesson.mp3": SOUND,
        "lesson.wav": SOUND,
        "lesson.flac": SOUND,
        "lesson.m4a": SOUND,
        "lesson.aac": SOUND,
    }

    def made(name: str) -> Path:
        path = folder / name
        return path if path.exists() else make(path, *options[name])

    return made


def cut(path: Path, share: float, folder: Path) -> Path:
    content = path.read_bytes()
    target = folder / path.name
    target.write_bytes(content[: int(len(content) * share)])
    return target


# --- the limits


def test_limits_are_named_with_the_setting_that_moves_them() -> None:
    with pytest.raises(SourceTooLarge, match=r"^a\.mp4: 501 MB, and the limit is 500 MB \(setting max_megabytes\)$"):
        media.check_size(501_000_000, "a.mp4", Limits())
    with pytest.raises(SourceTooLong, match=r"^a\.mp4: 7\.00 hours long, and the limit is 6 hours \(setting max_hours\)$"):
        media.check_duration(7 * 3600, "a.mp4", Limits())
    media.check_size(501_000_000, "a.mp4", Limits(megabytes=501))
    media.check_duration(7 * 3600, "a.mp4", Limits(hours=7))


# --- whole and truncated


@pytest.mark.parametrize("name", ["lesson.mp4", "faststart.mp4", "lesson.mkv", "lesson.webm", "lesson.ts", "lesson.avi", "lesson.mp3"])
def test_a_whole_file_is_as_long_as_it_is(name: str, whole: Callable[[str], Path]) -> None:
    assert look(whole(name)).end == pytest.approx(8.0, abs=0.1)


@pytest.mark.parametrize("share", [0.5, 0.85])
@pytest.mark.parametrize(
    "name", ["lesson.mp4", "faststart.mp4", "lesson.mkv", "lesson.webm", "lesson.avi", "lesson.mp3", "lesson.wav", "lesson.flac"]
)
def test_a_file_that_is_cut_off_is_refused(name: str, share: float, whole: Callable[[str], Path], tmp_path: Path) -> None:
    assert "cut off" in refused(cut(whole(name), share, tmp_path), SourceTruncated)


@pytest.mark.parametrize("name", ["lesson.ts", "lesson.aac"])
def test_a_stream_that_is_cut_off_is_a_shorter_one(name: str, whole: Callable[[str], Path], tmp_path: Path) -> None:
    """Formats for broadcast declare no end: what is there is whole."""
    assert look(cut(whole(name), 0.5, tmp_path)).end == pytest.approx(4.0, abs=0.4)


def test_subtitles_that_go_on_longer_do_not_make_a_file_cut_off(tmp_path: Path) -> None:
    (tmp_path / "late.srt").write_text("1\n00:00:01,000 --> 00:00:20,000\nHello\n\n")
    path = make(tmp_path / "subtitled.mkv", *SOUND, "-i", str(tmp_path / "late.srt"))
    assert media.probe(path, "").duration == pytest.approx(20.0, abs=0.1)
    assert look(path).end == pytest.approx(8.0, abs=0.1)


def test_a_length_that_is_only_guessed_refuses_nothing(tmp_path: Path) -> None:
    """An MP3 without an index whose start is silent: ffprobe guesses its length from the first packets' size."""
    swelling = "aevalsrc='if(gt(t,10),random(0)*0.9,0)':s=44100:d=20"
    path = make(tmp_path / "variable.mp3", "-f", "lavfi", "-i", swelling, "-q:a", "2", "-write_xing", "0")
    assert look(path).end == pytest.approx(20.0, abs=0.1)
    assert media.probe(path, "").duration == pytest.approx(20.0, abs=0.1)


# --- empty, silent, without picture, without sound


def test_a_file_without_bytes_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert "0 bytes" in refused(tmp_path / "empty.mp4", SourceEmpty)


def test_a_file_without_playing_time_is_empty(tmp_path: Path, whole: Callable[[str], Path]) -> None:
    with audio.writer(tmp_path / "nothing.wav", 1) as file:
        file.write(np.zeros(0, dtype=np.float32))
    assert "0 seconds" in refused(tmp_path / "nothing.wav", SourceEmpty)
    (tmp_path / "header.mkv").write_bytes(whole("lesson.mkv").read_bytes()[:900])
    assert "0 seconds" in refused(tmp_path / "header.mkv", SourceEmpty)


def test_a_picture_alone_has_nothing_to_dub(tmp_path: Path) -> None:
    assert "no sound" in refused(make(tmp_path / "mute.mp4", *PICTURE, *H264), NoSound)


@pytest.mark.parametrize("name", ["lesson.mp3", "lesson.wav", "lesson.flac", "lesson.m4a", "lesson.aac"])
def test_sound_alone_is_a_lesson(name: str, whole: Callable[[str], Path]) -> None:
    facts = media.probe(whole(name), name)
    assert facts.picture is None
    assert look(whole(name)).end == pytest.approx(8.0, abs=0.1)


# --- mislabelled


OTHERS: dict[str, bytes] = {
    "text": b"hello " * 1000,
    "web page": b"<!DOCTYPE html><html><body>Not found</body></html>\n" * 50,
    "document": b"%PDF-1.4\n" + b"1 0 obj\n" * 200,
    "drawing": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "subtitles": b"1\n00:00:01,000 --> 00:00:02,000\nHello\n\n",
    "captions": b"WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n",
    "manifest": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
    "zeros": bytes(100_000),
}


@pytest.mark.parametrize("ending", ["mp4", "mp3", "mkv", "ts"])
@pytest.mark.parametrize("what", OTHERS)
def test_what_is_no_recording_is_not_taken_for_one(what: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"{what}.{ending}"
    path.write_bytes(OTHERS[what])
    refused(path, NotMedia)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "bmp"])
def test_a_still_picture_is_not_a_lesson(kind: str, tmp_path: Path) -> None:
    still = make(tmp_path / f"still.{kind}", "-f", "lavfi", "-i", "testsrc=s=64x48", "-frames:v", "1")
    refused(shutil.copy(still, tmp_path / "still.mp4"), NotMedia)


def test_an_archive_is_not_a_lesson(tmp_path: Path, whole: Callable[[str], Path]) -> None:
    with zipfile.ZipFile(tmp_path / "archive.mp4", "w") as archive:
        archive.write(whole("lesson.mp4"), "lesson.mp4")
    refused(tmp_path / "archive.mp4", NotMedia)


def _playlist(file: Path) -> str:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:8\n#EXTINF:8,\n{file}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    "written",
    [
        _playlist,
        lambda file: _playlist(f"file://{file}"),
        lambda file: f"ffconcat version 1.0\nfile '{file}'\n",
        lambda file: f"ffconcat version 1.0\nfile '{file.name}'\n",
        lambda file: f"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\na=control:{file}\n",
        lambda file: f'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{file}</BaseURL></MPD>',
    ],
    ids=["playlist", "playlist of addresses", "script", "script beside", "session", "manifest"],
)
def test_no_file_makes_ffmpeg_open_another(written: Callable[[Path], str], tmp_path: Path, whole: Callable[[str], Path]) -> None:
    """The other file is a pipe: opening it would wait for a writer, and the time-out would say so."""
    shutil.copy(whole("lesson.ts"), tmp_path / "other.ts")
    for other in (tmp_path / "other.ts", tmp_path / "pipe.ts"):
        if other.name == "pipe.ts":
            os.mkfifo(other)
        for name in ("lesson.mp4", "lesson.m3u8", "lesson.ffconcat"):
            (tmp_path / name).write_text(written(other))
            message = refused(tmp_path / name, NotMedia)
            assert "found nothing in" not in message


def test_content_counts_and_not_the_name(tmp_path: Path, whole: Callable[[str], Path]) -> None:
    assert look(Path(shutil.copy(whole("lesson.mkv"), tmp_path / "matroska.mp4"))).picture_end > 7.9
    cover = make(tmp_path / "cover.png", "-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1")
    options = ["-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic"]
    make(tmp_path / "covered.mp3", *SOUND, "-i", str(cover), *options)
    renamed = Path(shutil.copy(tmp_path / "covered.mp3", tmp_path / "covered.mp4"))
    assert look(renamed).end == pytest.approx(8.0, abs=0.1)
    assert media.probe(renamed, "").picture is None


# --- hostile names, and what is not a file


HOSTILE = [
    "-i.mp4",
    "a\nb.mp4",
    "\"quo'ted.mp4",
    "%03d.mp4",
    "concat:a|b.mp4",
    "http:x.mp4",
    "file:x.mp4",
    "cache:x.mp4",
    ";rm -rf .mp4",
    "$(id).mp4",
    "[1].mp4",
    "*.mp4",
    "C:\\x.mp4",
    "..mp4",
    ".mp4",
    " .mp4",
    "~nobody.mp4",
    "\x1b[31mred.mp4",
    "\N{GRINNING FACE}.mp4",
    "a\N{RIGHT-TO-LEFT OVERRIDE}4pm.mp4",
    "x" * 246 + ".mp4",
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_name_is_only_a_name(name: str, tmp_path: Path, whole: Callable[[str], Path]) -> None:
    """The file is opened, whatever its name would mean to ffmpeg or a shell; and written, too."""
    path = tmp_path / name
    shutil.copy(whole("lesson.m4a"), path)
    assert look(path).end == pytest.approx(8.0, abs=0.1)
    audio.extract(path, media.probe(path, "").sound, 0.5, tmp_path / f"{name[:100]}.wav")
    assert audio.frames_of(tmp_path / f"{name[:100]}.wav") == 24_000
    path.write_bytes(OTHERS["text"])
    with pytest.raises(NotMedia) as caught:
        look(path)
    assert str(caught.value).isprintable()


def test_what_is_not_a_file_is_said_not_to_be(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "dangling.mp4").symlink_to("nowhere")
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    (tmp_path / "endless.mp4").symlink_to("/dev/zero")
    (tmp_path / "file").touch()
    for name in (
        "folder.mp4",
        "pipe.mp4",
        "dangling.mp4",
        "circle.mp4",
        "endless.mp4",
        "missing.mp4",
        "x" * 300,
        "file/below.mp4",
        "null\0",
    ):
        path = tmp_path / name
        with pytest.raises(SourceNotFound) as caught:
            look(path)
        assert str(caught.value).isprintable()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"x")
    (tmp_path / "secret.mp4").chmod(0)
    assert "permission" in refused(tmp_path / "secret.mp4", SourceNotFound)


def test_what_ffmpeg_says_is_kept_in_bounds(tmp_path: Path, whole: Callable[[str], Path]) -> None:
    """A damaged file has it say something of every packet."""
    content = bytearray(whole("lesson.ts").read_bytes())
    for at in range(5000, len(content), 300):
        content[at] ^= 0xFF
    (tmp_path / "damaged.ts").write_bytes(content)
    written = tmp_path / "out.wav"
    graph = media.source(tmp_path / "damaged.ts").output(media.address(written))
    assert len(media.run(graph, written).splitlines()) <= media.SAID_LINES


def test_the_command_line_says_it_in_one_line_and_leaves_nothing(tmp_path: Path, whole: Callable[[str], Path]) -> None:
    path = cut(whole("faststart.mp4"), 0.5, tmp_path).rename(tmp_path / "-i \n%03d.mp4")
    command = [sys.executable, "-m", "flows.command_line", "dub", str(path), "--from", "ru", "--store", str(tmp_path / "store")]
    done = subprocess.run([*command, "--output", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True, timeout=1000)
    assert done.returncode == SourceTruncated.exit_code
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("coursedub: -i \N{REPLACEMENT CHARACTER}%03d.mp4: the file is cut off")
    assert not (tmp_path / "out").exists()
    assert not [file for file in (tmp_path / "store").rglob("*") if file.is_file() and file.stat().st_size > 1000]


@pytest.mark.parametrize("missing", [1, 8, 20])
@pytest.mark.parametrize("name", ["lesson.mp4", "lesson.mkv", "sound.wav"])
def test_a_file_that_did_not_fit_is_none(small_disk: SmallDisk, whole: Callable[[str], Path], name: str, missing: int) -> None:
    """Whatever is missing, in kilobytes: ffmpeg itself may say that all went well."""
    target = small_disk.folder / name
    codec = {"movflags": "+faststart"} if name.endswith("mp4") else {}
    graph = media.source(whole("lesson.mp4")).output(media.address(target), **codec)
    small_disk.resize(50 * 1024)
    media.run(graph, target)
    kilobytes = target.stat().st_size / 1024
    target.unlink()
    small_disk.resize(max(4, kilobytes - missing))
    with pytest.raises(OSError, match="No space left on device"):
        media.run(graph, target)
