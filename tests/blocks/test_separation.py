"""Separation as a listener hears it: the voice without the music, the music without the voice. With the real weights."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

from blocks.separation import SEPARATORS, Separator, SpleeterSeparator
from dubbing import weights
from dubbing.media import SAMPLE_RATE

LECTURE = Path(__file__).parents[3] / "shared" / "media" / "lecture_ru.mp4"
SECONDS = 20


def chords(frames: int) -> np.ndarray:
    """A slow progression on something like a piano, a little different left and right."""
    progression = [(220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (196.0, 246.9, 293.7), (164.8, 196.0, 246.9)]
    length = 2 * SAMPLE_RATE
    time = np.arange(length) / SAMPLE_RATE
    bars = []
    for chord in progression:
        sides = [
            sum(np.sin(2 * np.pi * note * harmonic * tuning * time) / harmonic**1.2 for note in chord for harmonic in range(1, 9))
            for tuning in (0.999, 1.001)
        ]
        bars.append(np.stack(sides, axis=1) * np.exp(-time)[:, None])
    return np.resize(np.concatenate(bars), (frames, 2)).astype(np.float32)


def si_sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio, dB."""
    found, wanted = estimate.ravel().astype(float), reference.ravel().astype(float)
    target = (found @ wanted) / (wanted @ wanted) * wanted
    return float(10 * np.log10((target @ target) / ((found - target) @ (found - target))))


def mixed(speech: np.ndarray, music: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both together at the same power, and the music as loud as it is in there."""
    music = music * np.float32(np.sqrt(np.mean(speech**2) / np.mean(music**2)))
    return speech + music, music


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    if not LECTURE.is_file():
        pytest.skip(f"no real speech: {LECTURE} is not there")
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-ss",
        "5",
        "-t",
        str(SECONDS),
        "-i",
        str(LECTURE),
        "-f",
        "f32le",
        "-ac",
        "2",
        "-ar",
        str(SAMPLE_RATE),
        "-",
    ]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.float32).reshape(-1, 2)


@pytest.fixture(scope="module", params=sorted(SEPARATORS))
def separator(request: pytest.FixtureRequest) -> Iterator[Separator]:
    engine = SEPARATORS[request.param]()
    for name in engine.weights_names():
        if request.param == "demucs" and not (weights.is_present(name) and find_spec("demucs")):
            pytest.skip("the weights of Demucs, or its packages, are not on this machine; its code runs in `make test-engines`")
    yield engine
    engine.close()


def separated(separator: Separator, folder: Path, mix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    soundfile.write(folder / "mix.wav", mix, SAMPLE_RATE, subtype="FLOAT")
    progress: list[float] = []
    separator.separate(folder / "mix.wav", folder / "vocals.wav", folder / "background.wav", progress.append)
    assert progress[-1] == 1
    vocals, background = (soundfile.read(folder / name, dtype="float32", always_2d=True)[0] for name in ("vocals.wav", "background.wav"))
    assert len(vocals) == len(background) == len(mix)
    np.testing.assert_allclose(vocals + background, mix.reshape(len(mix), -1), atol=1e-5)
    return vocals, background


def test_the_voice_is_found_under_music_as_loud_as_itself(separator: Separator, speech: np.ndarray, tmp_path: Path) -> None:
    mix, music = mixed(speech, chords(len(speech)))
    vocals, background = separated(separator, tmp_path, mix)
    assert si_sdr(vocals, speech) > 6
    assert si_sdr(vocals, speech) > si_sdr(mix, speech) + 5
    assert si_sdr(background, music) > 6
    assert si_sdr(background, music) > si_sdr(mix, music) + 5


def test_mono_works_as_well(separator: Separator, speech: np.ndarray, tmp_path: Path) -> None:
    one = speech.mean(axis=1, keepdims=True)
    mix, _ = mixed(one, chords(len(one)).mean(axis=1, keepdims=True))
    vocals, _ = separated(separator, tmp_path, mix)
    assert vocals.shape == mix.shape
    assert si_sdr(vocals, one) > 6


def test_where_nobody_speaks_the_music_stays_as_it_is(separator: Separator, tmp_path: Path) -> None:
    music = chords(SECONDS * SAMPLE_RATE) * np.float32(0.05)
    vocals, _ = separated(separator, tmp_path, music)
    assert np.mean(vocals**2) < 1e-4 * np.mean(music**2)


def test_where_a_segment_begins_is_not_heard(separator: Separator, speech: np.ndarray, tmp_path: Path) -> None:
    """The same sound three and a bit seconds later lies otherwise in the segments: the voice is as good, and nearly the same."""
    mix, _ = mixed(speech, chords(len(speech)))
    vocals, _ = separated(separator, tmp_path, mix)
    silence = np.zeros((round(3.3 * SAMPLE_RATE), 2), np.float32)
    later = separated(separator, tmp_path, np.concatenate([silence, mix]))[0][len(silence) :]
    assert abs(si_sdr(later, speech) - si_sdr(vocals, speech)) < 1
    assert si_sdr(later, vocals) > 18


@pytest.mark.parametrize("frames", [1, 1023, 48_001])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_length_comes_out_as_it_went_in(separator: Separator, tmp_path: Path, frames: int, channels: int) -> None:
    separated(separator, tmp_path, np.random.default_rng(0).normal(scale=0.1, size=(frames, channels)).astype(np.float32))


def test_a_closed_separator_works_again(tmp_path: Path) -> None:
    separator = SpleeterSeparator(threads=1)
    sound = chords(SAMPLE_RATE)
    before, _ = separated(separator, tmp_path, sound)
    separator.close()
    after, _ = separated(separator, tmp_path, sound)
    np.testing.assert_array_equal(before, after)


def test_the_number_of_threads_is_no_part_of_the_fingerprint() -> None:
    assert SpleeterSeparator(threads=1).fingerprint() == SpleeterSeparator(threads=2).fingerprint()
    assert SpleeterSeparator().fingerprint()["weights"].keys() == {"spleeter-2stems"}
