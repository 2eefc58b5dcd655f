"""The delivered file: whatever the recording's clocks are like, a flash and the beep that belongs to it stay together on both tracks; the
picture is the original's, bit for bit; and a player finds the new track, the old one, subtitles, chapters and titles where it looks.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from dubbing import audio, inspection, media, mixing, rendering
from dubbing.lesson import Artifact, Lesson
from dubbing.media import SAMPLE_RATE

ROOT = Path(__file__).parents[2]
TOGETHER = 0.020  # seconds
FIRST, LAST, LENGTH = 1.0, 3.6, 4.0  # seconds: a flash and a beep, a flash and a beep, the end
SRT = "1\n00:00:01,000 --> 00:00:02,000\n{}\n\n"

H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "25", "-pix_fmt", "yuv420p"]
AAC = ["-c:a", "aac", "-b:a", "128k"]
FAST_VPX = ["-deadline", "realtime", "-cpu-used", "8"]
UNEVEN = ",select='lt(mod(n*n\\,7)\\,4)+not(mod(n\\,10))'"  # frames that stay on for 20 to 80 ms


def make(path: Path, *arguments: str) -> Path:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments, f"file:{path}"], check=True, timeout=1000)
    return path


def picture(rate: int = 25, late: float = 0.0, length: float = LENGTH, then: str = "") -> list[str]:
    """Input arguments: black, with a flash of 0.2 s at both times of the recording; `late` seconds are missing at its start."""
    lit = "+".join(f"between(T,{at - late - 0.001},{at - late + 0.199})" for at in (FIRST, LAST))
    graph = f"nullsrc=s=64x48:r={rate}:d={length - late},geq=lum='255*gt({lit},0)':cb=128:cr=128{then}"
    return ["-itsoffset", str(late), "-f", "lavfi", "-i", graph]


def sound(rate: int = 48000, late: float = 0.0, length: float = LENGTH, layout: str = "stereo", then: str = "") -> list[str]:
    """Input arguments: silence, with a beep of 60 ms at both times."""
    beeps = "+".join(f"between(t,{at - late},{at - late + 0.06})" for at in (FIRST, LAST))
    channels = "|".join([f"if({beeps},0.5*sin(2*PI*1000*t),0)"] * {"mono": 1, "stereo": 2, "5.1": 6}[layout])
    return ["-itsoffset", str(late), "-f", "lavfi", "-i", f"aevalsrc='{channels}':s={rate}:d={length - late}:c={layout}{then}"]


def without_packets(first: int, last: int) -> list[str]:
    return ["-bsf:a", f"noise=drop='between(n\\,{first}\\,{last})'"]


CASES: dict[str, list[str]] = {
    "plain.mp4": [*picture(), *sound(), *H264, *AAC],
    "picture starts later.mp4": [*picture(late=0.52), *sound(), *H264, *AAC],
    "picture starts later.mkv": [*picture(late=0.52), *sound(), *H264, *AAC],
    "picture starts later.ts": [*picture(late=0.52), *sound(), *H264, *AAC],
    "sound starts later.mp4": [*picture(), *sound(late=0.7), *H264, *AAC],
    "sound starts later.mkv": [*picture(), *sound(late=0.7), *H264, "-c:a", "libopus"],
    "sound starts later.ts": [*picture(), *sound(late=0.7), *H264, *AAC],
    "starts after an hour.ts": [*picture(), *sound(), *H264, "-c:a", "mp2", "-output_ts_offset", "3600"],
    "program stream.mpg": [*picture(), *sound(late=0.7), "-c:v", "mpeg2video", "-c:a", "mp2"],
    "uneven frames.mp4": [*picture(50, then=UNEVEN), *sound(), "-vsync", "vfr", *H264, *AAC],
    "uneven frames.mkv": [*picture(50, then=UNEVEN), *sound(), "-vsync", "vfr", *H264, *AAC],
    "mono.mp4": [*picture(), *sound(layout="mono"), *H264, *AAC],
    "surround.mkv": [*picture(), *sound(layout="5.1"), *H264, "-c:a", "ac3"],
    "surround.ts": [*picture(), *sound(layout="5.1"), *H264, "-c:a", "ac3"],
    "44.1 kHz.mp4": [*picture(), *sound(44100), *H264, *AAC],
    "44.1 kHz mp3.mkv": [*picture(), *sound(44100), *H264, "-c:a", "libmp3lame"],
    "vp9 and opus.webm": [*picture(), *sound(), "-c:v", "libvpx-vp9", *FAST_VPX, "-c:a", "libopus"],
    "vp8 and vorbis.webm": [*picture(), *sound(), "-c:v", "libvpx", *FAST_VPX, "-c:a", "libvorbis"],
    "mpeg4 and mp3.avi": [*picture(), *sound(44100), "-c:v", "mpeg4", "-c:a", "libmp3lame"],
    "uncompressed sound.mov": [*picture(), *sound(), *H264, "-c:a", "pcm_s16le"],
    "windows media.wmv": [*picture(), *sound(), "-c:v", "wmv2", "-c:a", "wmav2"],
    "flash video.flv": [*picture(), *sound(44100), *H264, *AAC],
    "lossless sound.mp4": [*picture(), *sound(), *H264, "-c:a", "flac", "-strict", "-2"],
    "a second of sound missing.mkv": [*picture(), *sound(), *H264, *AAC, *without_packets(70, 120)],
    "a second of sound missing.mp4": [*picture(), *sound(), *H264, *AAC, *without_packets(70, 120)],
    "one packet of sound missing.mkv": [*picture(), *sound(), *H264, *AAC, *without_packets(100, 100)],
    "sound goes on.mp4": [*picture(length=3.9), *sound(length=5.5), *H264, *AAC],
    "picture goes on.mkv": [*picture(length=5.5), *sound(length=3.9), *H264, *AAC],
}
CUTS = {  # of a finished file, by copying its packets
    "begins inside a group of pictures.mp4": ["-ss", "0.5"],
    "times before zero.mp4": ["-output_ts_offset", "-0.3"],
    "fragments.mp4": ["-movflags", "frag_keyframe+empty_moov"],
}
REPACKAGED = re.compile(r"\.ts$")  # H.264 has start codes there and lengths in MP4: other bytes, the same pictures


class Dubbed(NamedTuple):
    original: Path
    lesson: Lesson
    file: Path


def dub(
    original: Path, folder: Path, mix: Path | None = None, subtitles: tuple[str, str] = (SRT.format("Hello"), SRT.format("Привет"))
) -> Dubbed:
    """The file as it is delivered when nobody speaks: the new track is the recording's sound at another loudness."""
    facts = media.probe(original, original.name)
    extent = media.measured_extent(original, facts, original.name)
    lesson = Lesson(
        media=Artifact(sha256="", size=0, media_type=""),
        container=facts.container,
        duration=round(extent.end, 6),
        picture=facts.picture,
        sound=facts.sound,
        has_chapters=facts.has_chapters,
    )
    audio.extract(original, lesson.sound, lesson.duration, folder / "sound.wav")
    mixing.mix(folder / "sound.wav", [], lesson.duration, folder / "mix.m4a", folder, voice_gain=0.0, loudness=-23.0)
    for name, text in zip(("target.srt", "source.srt"), subtitles, strict=True):
        (folder / name).write_text(text)
    tracks = rendering.Tracks(folder / "mix.m4a", folder / "target.srt", folder / "source.srt", "en", "ru")
    rendering.render(original, lesson, tracks, folder / "dubbed", rendering.container_for(lesson))
    return Dubbed(original, lesson, folder / "dubbed")


def flashes(path: Path) -> list[float]:
    """When the picture turns white, by the frames' own timestamps."""
    command = ["ffmpeg", "-v", "error", "-copyts", "-i", f"file:{path}", "-map", "0:v:0", "-vsync", "passthrough"]
    command += ["-vf", "format=gray,signalstats,metadata=print:key=lavfi.signalstats.YAVG:file=-", "-f", "null", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    times = [float(time) for time in re.findall(r"pts_time:(\S+)", said)]
    lit = [float(level) > 100 for level in re.findall(r"YAVG=(\S+)", said)]
    return [time for time, now, before in zip(times, lit, [False, *lit], strict=False) if now and not before]


def beeps(path: Path, track: int) -> list[float]:
    """When the sound begins, by the timestamps of the decoded frames that the samples are in."""
    command = ["ffmpeg", "-hide_banner", "-copyts", "-i", f"file:{path}", "-map", f"0:a:{track}", "-af", "ashowinfo"]
    done = subprocess.run([*command, "-f", "f32le", "-ac", "1", "pipe:1"], capture_output=True, check=True)
    frames = re.findall(r"pts_time:(\S+).*?rate:(\d+) nb_samples:(\d+)", done.stderr.decode())
    times = np.concatenate([float(start) + np.arange(int(length)) / int(rate) for start, rate, length in frames])
    rate = int(frames[0][1])
    level = np.abs(np.frombuffer(done.stdout, "<f4"))
    assert len(level) == len(times)
    level = np.convolve(level, np.full(rate // 1000, 1000 / rate), "same")  # over a millisecond
    loud = times[level > 0.3 * np.sort(level)[-rate // 20]]  # against the loudest 50 ms
    return [float(time) for time, before in zip(loud, [-np.inf, *loud], strict=False) if time - before > 0.3]


def assert_together(dubbed: Dubbed) -> None:
    shown, played = flashes(dubbed.original), beeps(dubbed.original, 0)
    assert len(shown) == len(played) == 2, "the recording itself is not what the test means"
    apart = np.subtract(played, shown)  # encoders of recordings are off by some milliseconds themselves
    shown = flashes(dubbed.file)
    assert len(shown) == 2
    for track in (0, 1):
        assert np.subtract(beeps(dubbed.file, track), shown) == pytest.approx(apart, abs=TOGETHER), f"audio track {track}"


def frame_hashes(path: Path) -> list[str]:
    command = ["ffmpeg", "-v", "error", "-i", f"file:{path}", "-map", "0:v:0", "-vsync", "passthrough", "-f", "framehash", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.rpartition(",")[2].strip() for line in said.splitlines() if not line.startswith("#")]


def assert_same_picture(dubbed: Dubbed) -> None:
    if REPACKAGED.search(dubbed.original.name):
        assert frame_hashes(dubbed.file) == frame_hashes(dubbed.original)
    else:
        assert inspection.packet_digest(dubbed.file, "v:0") == inspection.packet_digest(dubbed.original, "v:0")


def shown(path: Path) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", "-show_format", "-show_streams", "-show_chapters", "-of", "json", f"file:{path}"]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


@pytest.mark.parametrize("name", CASES)
def test_picture_and_sound_stay_together_and_the_picture_stays_as_it_is(name: str, tmp_path: Path) -> None:
    dubbed = dub(make(tmp_path / name, *CASES[name]), tmp_path)
    assert_together(dubbed)
    assert_same_picture(dubbed)


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_recording_stays_together(name: str, tmp_path: Path) -> None:
    whole = make(tmp_path / "whole.mp4", *CASES["plain.mp4"])
    cut = [*CUTS[name][:2], "-i", str(whole)] if CUTS[name][0] == "-ss" else ["-i", str(whole), *CUTS[name]]
    dubbed = dub(make(tmp_path / name, *cut, "-c", "copy"), tmp_path)
    assert_together(dubbed)
    assert_same_picture(dubbed)


def test_a_track_that_nobody_uses_does_not_move_the_others(tmp_path: Path) -> None:
    """A commentary that starts first sets the file's start; MPEG streams are read from the start of the tracks in use."""
    inputs = [*picture(late=0.52), *sound(late=0.7), "-f", "lavfi", "-i", f"sine=d={LENGTH}"]
    chosen = ["-map", "0:v", "-map", "1:a", "-map", "2:a"]
    for name in ("commentary.ts", "commentary.mkv"):
        dubbed = dub(make(tmp_path / name, *inputs, *chosen, *H264, *AAC), tmp_path)
        assert dubbed.lesson.sound.stream == 1
        assert_together(dubbed)


def test_sound_with_a_clock_of_its_own_stays_together(tmp_path: Path) -> None:
    """A microphone that runs a thousandth slow: after 40 s it is 40 ms behind, unless timestamps count."""
    beats = "if(lt(mod(t,2),0.06),sin(2*PI*1000*t),0)"
    for rate in (48000, 44100):
        path = make(
            tmp_path / f"{rate}.mkv", "-f", "lavfi", "-i", f"aevalsrc='{beats}':s={rate}:d=40", "-af", "asetpts=PTS*1.001", "-c:a", "flac"
        )
        audio.extract(path, media.probe(path, "").sound, 40.0, tmp_path / "sound.wav")
        level = np.abs(np.concatenate(list(audio.blocks(tmp_path / "sound.wav")))[:, 0])
        loud = np.flatnonzero(level > 0.1) / SAMPLE_RATE
        starts = [time for time, before in zip(loud, [-np.inf, *loud], strict=False) if time - before > 0.3]
        assert starts == pytest.approx([2.002 * beat for beat in range(20)], abs=0.005)


# --- what a player finds


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Dubbed:
    """A lesson with chapters and titles, dubbed."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "titles.txt").write_text(
        ";FFMETADATA1\ntitle=Радуга = \\; 1\nartist=A. Lecturer\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=2000\ntitle=Свет\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=2000\nEND=4000\ntitle=Drops\n"
    )
    titled = ["-i", str(folder / "titles.txt"), "-map_metadata", "2", "-map", "0:v", "-map", "1:a"]
    return dub(make(folder / "full.mp4", *picture(), *sound(), *titled, *H264, *AAC, "-metadata:s:a", "language=rus"), folder)


def test_the_new_track_comes_first_and_plays_by_default(full: Dubbed) -> None:
    streams = shown(full.file)["streams"]
    kinds = [(stream["codec_type"], stream["tags"].get("language")) for stream in streams]
    assert kinds[1:5] == [("audio", "eng"), ("audio", "rus"), ("subtitle", "eng"), ("subtitle", "rus")]
    assert kinds[0][0] == "video"
    assert [stream["disposition"]["default"] for stream in streams[1:3]] == [1, 0]


def test_the_original_sound_is_carried_over_untouched(full: Dubbed) -> None:
    assert inspection.packet_digest(full.file, "a:1") == inspection.packet_digest(full.original, "a:0")


def test_chapters_and_titles_survive(full: Dubbed) -> None:
    found = shown(full.file)
    assert [(chapter["start_time"], chapter["tags"]["title"]) for chapter in found["chapters"]] == [
        ("0.000000", "Свет"),
        ("2.000000", "Drops"),
    ]
    assert (found["format"]["tags"]["title"], found["format"]["tags"]["artist"]) == ("Радуга = ; 1", "A. Lecturer")


@pytest.mark.parametrize(("track", "text"), [(0, "Hello"), (1, "Привет")])
def test_subtitles_are_soft_tracks_in_both_languages(full: Dubbed, track: int, text: str) -> None:
    command = ["ffmpeg", "-v", "error", "-i", str(full.file), "-map", f"0:s:{track}", "-f", "srt", "-"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == SRT.format(text)


def test_playing_can_start_before_all_is_loaded(full: Dubbed) -> None:
    content = full.file.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_a_picture_that_mp4_does_not_hold_is_delivered_in_matroska(tmp_path: Path) -> None:
    dubbed = dub(make(tmp_path / "vp8.webm", *CASES["vp8 and vorbis.webm"]), tmp_path)
    found = shown(dubbed.file)
    assert found["format"]["format_name"] == "matroska,webm"
    languages = [(stream["codec_name"], stream["tags"].get("language")) for stream in found["streams"]]
    assert languages == [("vp8", None), ("aac", "eng"), ("vorbis", "rus"), ("subrip", "eng"), ("subrip", "rus")]


def test_a_lesson_without_a_picture_is_dubbed_too(tmp_path: Path) -> None:
    """An MP3 with a cover, called .mp4: its picture is not one that plays."""
    cover = make(tmp_path / "cover.png", "-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1")
    options = ["-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic", "-c:a", "libmp3lame", "-f", "mp3"]
    dubbed = dub(make(tmp_path / "cover.mp4", *sound(), "-i", str(cover), *options), tmp_path)
    assert dubbed.lesson.picture is None
    assert [stream["codec_type"] for stream in shown(dubbed.file)["streams"]] == ["audio", "audio", "subtitle", "subtitle"]
    assert beeps(dubbed.file, 0) == pytest.approx([FIRST, LAST], abs=TOGETHER)
    assert beeps(dubbed.file, 1) == pytest.approx([FIRST, LAST], abs=TOGETHER)


def test_a_lesson_in_which_nobody_has_subtitles_is_delivered_without(tmp_path: Path) -> None:
    dubbed = dub(make(tmp_path / "plain.mp4", *CASES["plain.mp4"]), tmp_path, subtitles=("", ""))
    assert [stream["codec_type"] for stream in shown(dubbed.file)["streams"]] == ["video", "audio", "audio"]


def test_the_thumbnail_shows_the_lesson_and_the_original_sound_plays_alone(full: Dubbed, tmp_path: Path) -> None:
    rendering.thumbnail(full.original, full.lesson, tmp_path / "thumbnail.jpg")
    found = shown(tmp_path / "thumbnail.jpg")["streams"][0]
    assert (found["codec_name"], found["width"], found["height"]) == ("mjpeg", 64, 48)
    rendering.original_sound(full.original, full.lesson, tmp_path / "original.m4a")
    assert beeps(tmp_path / "original.m4a", 0) == pytest.approx([FIRST, LAST], abs=TOGETHER)


def test_rendering_does_not_hold_the_file_in_memory(tmp_path: Path) -> None:
    """The packets between two subtitles, or after the last one, are not waited with."""
    heavy = ["-f", "lavfi", "-i", "testsrc=s=640x360:r=10:d=40", "-f", "lavfi", "-i", "sine=d=40"]  # 138 MB
    dubbed_by = f"""
import resource, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from dubbing import media, rendering
from dubbing.lesson import Artifact, Lesson
folder = Path({str(tmp_path)!r})
facts = media.probe(folder / "heavy.mkv", "heavy")
lesson = Lesson(media=Artifact(sha256="", size=0, media_type=""), container="", duration=40.0, picture=facts.picture, sound=facts.sound,
                has_chapters=False)
tracks = rendering.Tracks(folder / "mix.m4a", folder / "cue.srt", folder / "cue.srt", "en", "ru")
rendering.render(folder / "heavy.mkv", lesson, tracks, folder / "dubbed", "matroska")
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""
    make(tmp_path / "heavy.mkv", *heavy, "-c:v", "rawvideo", "-pix_fmt", "yuv420p", "-c:a", "aac")
    make(tmp_path / "mix.m4a", "-f", "lavfi", "-i", "sine=d=40", "-c:a", "aac")
    (tmp_path / "cue.srt").write_text(SRT.format("Hello"))
    said = subprocess.run([sys.executable, "-c", dubbed_by], capture_output=True, text=True, check=True, timeout=1000).stdout
    assert int(said) < 120, f"{said.strip()} MB, for a file of 138 MB of which ffmpeg holds ten seconds, 35 MB"
