"""The mix: the background is kept and goes down under speech, the delivered track has the loudness that was asked for and no peak over
-1 dBTP, and neither blocks nor length can be noticed.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from dubbing import audio, inspection, mixing
from dubbing.loudness import ratio
from dubbing.media import SAMPLE_RATE
from dubbing.mixing import ATTACK, DUCKING, HIGHEST_TRUE_PEAK, RELEASE, Placed, ducking_envelope, mix
from tests.conftest import SmallDisk

ROOT = Path(__file__).parents[2]
RANDOM = np.random.default_rng(7)


def wav(path: Path, samples: np.ndarray) -> Path:
    with audio.writer(path, 1 if samples.ndim == 1 else samples.shape[1]) as file:
        file.write(samples.astype(np.float32))
    return path


def tone(frequency: float, seconds: float, level: float = 0.1) -> np.ndarray:
    return np.asarray(level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE))


def speech(seconds: float, level: float = 0.1) -> np.ndarray:
    """A buzz in syllables: peaks 16 dB over its loudness, as voices have."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return np.asarray(level * np.sin(2 * np.pi * 150 * times) ** 15 * np.abs(np.sin(2 * np.pi * 2 * times)))


def decoded(track: Path) -> np.ndarray:
    """The track as a player plays it."""
    command = ["ffmpeg", "-v", "error", "-i", str(track), "-f", "f32le", "-ar", str(SAMPLE_RATE), "pipe:1"]
    content = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(content, "<f4").reshape(-1, int(inspection.tracks(track)[0]["channels"]))  # type: ignore[call-overload]


def strength(samples: np.ndarray, frequency: float, start: float, end: float) -> float:
    """Amplitude of one frequency in a span of the first channel."""
    span = samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE), 0]
    return float(2 * np.abs(np.mean(span * np.exp(-2j * np.pi * frequency * np.arange(len(span)) / SAMPLE_RATE))))


# --- ducking


@st.composite
def placed(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Clips in order, without overlap; many close together or touching."""
    at, clips = 0, []
    for gap, length in draw(st.lists(st.tuples(st.integers(0, 60_000) | st.just(0), st.integers(1, 100_000)), max_size=12)):
        clips.append((at + gap, at + gap + length))
        at += gap + length
    return clips


def gains(clips: list[tuple[int, int]], ducking: float, at: np.ndarray) -> np.ndarray:
    return np.interp(at, *ducking_envelope(clips, ducking))


@given(placed(), st.floats(0, 60))
def test_the_background_is_down_during_all_speech(clips: list[tuple[int, int]], ducking: float) -> None:
    for start, end in clips:
        inside = np.unique(np.linspace(start, end - 1, 20).round())
        assert gains(clips, ducking, inside) == pytest.approx(-ducking, abs=1e-9)


@given(placed(), st.floats(0, 60))
def test_the_background_is_at_its_level_away_from_speech(clips: list[tuple[int, int]], ducking: float) -> None:
    """Outside of every line's attack and release, and of gaps too short for both."""
    at = np.arange(0, (clips[-1][1] if clips else 0) + 2 * SAMPLE_RATE, 997)
    away = np.ones(len(at), dtype=bool)
    for start, end in clips:
        away &= (at < start - ATTACK * SAMPLE_RATE) | (at > end + RELEASE * SAMPLE_RATE)
    assert gains(clips, ducking, at[away]) == pytest.approx(0.0, abs=1e-9)


@given(placed(), st.floats(0.1, 60))
def test_the_background_never_jumps(clips: list[tuple[int, int]], ducking: float) -> None:
    """Between any two samples it moves no faster than the attack; where the lesson begins with speech, it begins down."""
    at, levels = ducking_envelope(clips, ducking)
    assert (np.diff(at) >= 0).all()
    assert ((levels <= 0) & (levels >= -ducking)).all()
    fastest = ducking / (ATTACK * SAMPLE_RATE)
    steps = np.arange(0, (clips[-1][1] if clips else 0) + SAMPLE_RATE, 101)
    assert np.abs(np.diff(gains(clips, ducking, steps))).max(initial=0.0) <= 101 * fastest + 1e-9


@given(placed())
def test_between_lines_that_are_close_the_background_stays_down(clips: list[tuple[int, int]]) -> None:
    for (_, end), (start, _) in itertools.pairwise(clips):
        if start - end < (ATTACK + RELEASE) * SAMPLE_RATE:
            assert gains(clips, 6.0, np.linspace(end, start, 9)) == pytest.approx(-6.0, abs=1e-9)


# --- the mix


def test_the_background_is_kept_and_goes_down_under_speech(tmp_path: Path) -> None:
    background = wav(tmp_path / "background.wav", np.stack([tone(500, 25), tone(700, 25)], axis=1))
    clip = wav(tmp_path / "clip.wav", tone(1500, 3, 0.2))
    mixed = mix(background, [Placed(9 * SAMPLE_RATE, clip)], 25.0, tmp_path / "mix.m4a", tmp_path, voice_gain=0.0, loudness=-20.0)
    heard = decoded(tmp_path / "mix.m4a") / ratio(mixed.gain)
    assert strength(heard, 500, 1, 8) == pytest.approx(0.1, rel=0.03)
    assert strength(heard, 500, 9.5, 11.5) == pytest.approx(0.1 * ratio(-DUCKING), rel=0.03)
    assert strength(heard, 500, 13, 24) == pytest.approx(0.1, rel=0.03)
    assert strength(heard, 1500, 9.5, 11.5) == pytest.approx(0.2, rel=0.03)
    assert strength(heard, 1500, 13, 24) < 1e-3
    assert strength(heard[:, ::-1], 700, 1, 8) == pytest.approx(0.1, rel=0.03)


@pytest.mark.parametrize("start", [1.5, 9.97, 10.0])
def test_a_clip_begins_where_it_was_placed(tmp_path: Path, start: float) -> None:
    """Also across the edge of a block, in the file as it is delivered."""
    background = wav(tmp_path / "background.wav", np.zeros(12 * SAMPLE_RATE))
    clip = wav(tmp_path / "clip.wav", tone(1000, 0.5, 0.3))
    mix(background, [Placed(round(start * SAMPLE_RATE), clip)], 12.0, tmp_path / "mix.m4a", tmp_path, voice_gain=0.0, loudness=-20.0)
    loud = np.flatnonzero(np.abs(decoded(tmp_path / "mix.m4a")[:, 0]) > 0.05)
    assert loud[0] / SAMPLE_RATE == pytest.approx(start, abs=0.005)
    assert loud[-1] / SAMPLE_RATE == pytest.approx(start + 0.5, abs=0.005)


def test_the_track_is_as_long_as_was_asked_for(tmp_path: Path) -> None:
    background = wav(tmp_path / "background.wav", tone(500, 3))
    clip = wav(tmp_path / "clip.wav", tone(1000, 2))
    for duration in (1.3, 3.0, 4.5):
        clips = [Placed(round((duration - 1) * SAMPLE_RATE), clip)]
        mix(background, clips, duration, tmp_path / "mix.m4a", tmp_path, voice_gain=0.0, loudness=-20.0)
        assert inspection.measure(tmp_path / "mix.m4a", tmp_path / "decoded.wav").duration == pytest.approx(duration, abs=0.001)


BACKGROUNDS = {
    "a voice": speech(20),
    "a quiet voice": speech(20, 0.003),
    "a voice over music": np.stack([speech(20) + tone(330, 20, 0.01), speech(20) + tone(440, 20, 0.01)], axis=1),
    "a voice with a bang": speech(20, 0.02) + np.where(np.arange(20 * SAMPLE_RATE) // 40 == 10_000, 0.9, 0.0),
    "white noise": RANDOM.normal(0, 0.05, (20 * SAMPLE_RATE, 2)),
    "already clipped": np.clip(20 * speech(20), -1, 1),
    "tones between samples": 0.3 * np.sin(np.pi / 2 * np.arange(20 * SAMPLE_RATE) + np.pi / 4),
    "most of it silent": np.concatenate([speech(3), np.zeros(17 * SAMPLE_RATE)]),
}


@pytest.mark.parametrize("loudness", [-16.0, -23.0])
@pytest.mark.parametrize("name", BACKGROUNDS)
def test_the_delivered_track_has_its_loudness_and_no_peak_over_the_limit(name: str, loudness: float, tmp_path: Path) -> None:
    """By another meter than the one it was mixed by, from the encoded file."""
    background = wav(tmp_path / "background.wav", BACKGROUNDS[name])
    mix(background, [], 20.0, tmp_path / "mix.m4a", tmp_path, voice_gain=0.0, loudness=loudness)
    measured = inspection.measure(tmp_path / "mix.m4a", tmp_path / "decoded.wav")
    assert measured.integrated_loudness == pytest.approx(loudness, abs=0.5)
    assert measured.true_peak <= HIGHEST_TRUE_PEAK


def test_what_can_not_be_that_loud_is_not_crushed(tmp_path: Path) -> None:
    """Clicks in silence can't be raised to a loudness: the limiter takes what the gain gives. The peak holds, the gain stops."""
    clicks = np.where(np.arange(20 * SAMPLE_RATE) % SAMPLE_RATE == 100, 0.5, 0.0)
    background = wav(tmp_path / "background.wav", clicks)
    mixed = mix(background, [], 20.0, tmp_path / "mix.m4a", tmp_path, voice_gain=0.0, loudness=-16.0)
    assert inspection.measure(tmp_path / "mix.m4a", tmp_path / "decoded.wav").true_peak <= HIGHEST_TRUE_PEAK
    assert mixed.limited < 45  # and not by as much again with each pass


def test_silence_stays_silence(tmp_path: Path) -> None:
    background = wav(tmp_path / "background.wav", np.zeros((2 * SAMPLE_RATE, 2)))
    mixed = mix(background, [], 2.0, tmp_path / "mix.m4a", tmp_path, voice_gain=0.0, loudness=-16.0)
    assert (mixed.gain, mixed.loudness) == (0.0, None)
    assert not decoded(tmp_path / "mix.m4a").any()


@pytest.mark.parametrize("kilobytes", [8, 200, 320, 350, 356])
def test_a_track_that_did_not_fit_is_none(small_disk: SmallDisk, tmp_path: Path, kilobytes: int) -> None:
    """356 of its 360 kB: ffmpeg itself says that all went well."""
    background = wav(tmp_path / "background.wav", 0.1 * RANDOM.standard_normal((15 * SAMPLE_RATE, 2)))
    small_disk.resize(kilobytes)
    with pytest.raises(OSError, match="No space left on device"):
        mix(background, [], 15.0, small_disk.folder / "track.mp4", tmp_path, voice_gain=0.0, loudness=-16.0)


def test_blocks_can_not_be_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one block or in many, with clips across their edges and the limiter at work: the same samples go to the encoder."""
    background = wav(tmp_path / "background.wav", RANDOM.normal(0, 0.01, (7 * SAMPLE_RATE, 2)))
    clips = [Placed(round(at * SAMPLE_RATE), wav(tmp_path / f"{at}.wav", speech(0.7, 3.0))) for at in (0.6, 1.9, 2.65, 5.8)]
    made = []
    for seconds in (10, 1):
        monkeypatch.setattr(mixing, "BLOCK_SECONDS", seconds)
        monkeypatch.setattr(audio.blocks, "__defaults__", (seconds,))
        mixed = mix(background, clips, 7.0, tmp_path / "mix.m4a", tmp_path, voice_gain=0.0, loudness=-10.0)
        assert mixed.limited > 1
        made.append(decoded(tmp_path / "mix.m4a"))
    assert made[1] == pytest.approx(made[0], abs=2e-3)  # an encoder turns a difference in the last bit into some more


MEMORY = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
from dubbing import audio, mixing
from dubbing.lesson import Sound
folder, minutes = Path(sys.argv[2]), int(sys.argv[3])
clip = folder / "clip.wav"
audio.write_clip(clip, 0.1 * np.sin(np.arange(96000) / 20).astype(np.float32), 48000)
sound = Sound(stream=0, codec="pcm_s16le", channels=2, sample_rate=44100, start=0.0)
audio.extract(folder / f"{minutes}.wav", sound, minutes * 60.0, folder / "sound.wav")
clips = [mixing.Placed(second * 48000, clip) for second in range(0, minutes * 60 - 3, 4)]
mixing.mix(folder / "sound.wav", clips, minutes * 60.0, folder / "mix.m4a", folder, voice_gain=0.0, loudness=-16.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    """Sound taken out and mixed, of one minute and of four: as floats, three minutes more are 69 MB."""
    used = {}
    for minutes in (1, 4):
        source = f"sine=r=44100:d={minutes * 60}"
        subprocess.run(
            ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-ac", "2", str(tmp_path / f"{minutes}.wav")], check=True, timeout=1000
        )
        command = [sys.executable, "-c", MEMORY, str(ROOT), str(tmp_path), str(minutes)]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1000).stdout
        used[minutes] = [int(megabytes) for megabytes in said.split()]
    assert used[4][0] < used[1][0] + 20, used
    assert used[4][1] < used[1][1] + 20, used


@settings(max_examples=10)
@given(st.lists(st.floats(0.02, 0.5), min_size=1, max_size=4))
def test_the_loudness_of_voices_is_that_of_all_clips_together(tmp_path_factory: pytest.TempPathFactory, levels: list[float]) -> None:
    folder = tmp_path_factory.mktemp("clips")
    clips = [Placed(0, wav(folder / f"{number}.wav", tone(997, 1.0, level))) for number, level in enumerate(levels)]
    found = mixing.voice_loudness(clips)
    whole, _ = soundfile.read(wav(folder / "all.wav", np.concatenate([tone(997, 1.0, level) for level in levels])))
    from dubbing.loudness import LoudnessMeter

    meter = LoudnessMeter(1)
    meter.add(whole[:, None])
    assert found == pytest.approx(meter.integrated(), abs=0.01)
