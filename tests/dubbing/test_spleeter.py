"""Spleeter's network and the streaming around it, most of it with masks that need no weights."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dubbing import spleeter, weights
from dubbing.errors import BadInput, WeightsRefused
from dubbing.media import SAMPLE_RATE


def everything(magnitudes: np.ndarray) -> np.ndarray:
    return np.ones_like(magnitudes)


def nothing(magnitudes: np.ndarray) -> np.ndarray:
    return np.zeros_like(magnitudes)


def below_two_kilohertz(magnitudes: np.ndarray) -> np.ndarray:
    """A mask that depends on the frequency only: the same whatever segment a frame is in."""
    mask = np.zeros_like(magnitudes)
    mask[..., : 2000 * spleeter.FRAME // spleeter.MODEL_RATE] = 1
    return mask


def tones(frames: int, *frequencies: float, channels: int = 2) -> np.ndarray:
    time = np.arange(frames) / SAMPLE_RATE
    sound = sum(np.sin(2 * np.pi * frequency * time) for frequency in frequencies)
    return np.repeat(np.asarray(0.2 * sound, np.float32)[:, None], channels, axis=1)


def in_blocks(sound: np.ndarray, size: int = 480_000) -> Iterator[np.ndarray]:
    return (sound[start : start + size] for start in range(0, len(sound), size))


def voice_in(sound: np.ndarray, mask: spleeter.Mask, size: int = 480_000) -> np.ndarray:
    return np.concatenate([np.zeros((0, sound.shape[1])), *spleeter.voice_in(in_blocks(sound, size), sound.shape[1], mask)])


def decibels(error: np.ndarray, reference: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(error**2) / np.mean(reference**2)))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [0, 1, 7, 1000, 4095, 4096, 4097, 100_003, 700_001])
def test_as_many_samples_come_out_as_go_in(frames: int, channels: int) -> None:
    voice = voice_in(tones(frames, 440, channels=channels), everything)
    assert voice.shape == (frames, channels)
    assert np.isfinite(voice).all()


def test_a_mask_of_ones_gives_the_sound_back_sample_for_sample() -> None:
    sound = tones(25 * SAMPLE_RATE + 11, 110, 997, 7001)
    voice = voice_in(sound, everything)
    inner = slice(2000, -2000)  # a resampler has no sound before the first sample to go by
    assert decibels((voice - sound)[inner], sound[inner]) < -80


def test_a_mask_of_zeros_gives_silence() -> None:
    assert np.abs(voice_in(tones(100_000, 440), nothing)).max() == 0


def test_frequencies_are_masked_where_they_are() -> None:
    low, high = tones(20 * SAMPLE_RATE, 300), tones(20 * SAMPLE_RATE, 5000)
    voice = voice_in(low + high, below_two_kilohertz)
    inner = slice(5000, -5000)
    assert decibels((voice - low)[inner], low[inner]) < -60


@pytest.mark.parametrize("size", [1, 999, 48_000, 10_000_000])
def test_the_size_of_the_blocks_read_makes_no_difference(size: int) -> None:
    sound = tones(3 * SAMPLE_RATE if size > 1 else 5000, 300, 5000)
    np.testing.assert_allclose(voice_in(sound, below_two_kilohertz, size), voice_in(sound, below_two_kilohertz), atol=1e-6)


def test_segments_pass_into_each_other_without_a_seam() -> None:
    """Every other segment's mask is zero: the worst that two neighbours can disagree. The level glides, it doesn't jump."""
    calls = 0

    def alternating(magnitudes: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return np.full_like(magnitudes, calls % 2)

    voice = voice_in(tones(40 * SAMPLE_RATE, 1000), alternating)
    hundredth = SAMPLE_RATE // 100
    level = np.abs(voice[: len(voice) // hundredth * hundredth, 0]).reshape(-1, hundredth).max(axis=1)[20:-20]
    assert calls >= 3
    assert level.max() > 0.19
    assert level.min() < 0.01
    fade = spleeter.FADE * spleeter.HOP / spleeter.MODEL_RATE
    assert np.abs(np.diff(level)).max() < 0.2 / (fade * 100) * 2


def test_what_lies_above_the_network_s_range_goes_where_the_octave_below_goes() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=0.1, size=(5 * SAMPLE_RATE, 2)).astype(np.float32)
    mask = np.zeros((2, spleeter.SEGMENT, spleeter.BINS), np.float32)
    mask[..., spleeter.BINS // 2 :] = 0.25
    voice = voice_in(noise, lambda _: mask)

    def power_above(sound: np.ndarray, frequency: float) -> float:
        spectrum = np.abs(np.fft.rfft(sound[:, 0])) ** 2
        return float(spectrum[round(frequency * len(sound) / SAMPLE_RATE) : round(20_000 * len(sound) / SAMPLE_RATE)].sum())

    assert power_above(voice, 11_100) / power_above(noise, 11_100) == pytest.approx(0.25**2, rel=0.02)


# Files


def written(path: Path, sound: np.ndarray, rate: int = SAMPLE_RATE, container: str = "WAV") -> Path:
    soundfile.write(path, sound, rate, subtype="FLOAT", format=container)
    return path


@pytest.mark.parametrize("container", ["WAV", "RF64"])
def test_voice_and_background_add_up_to_the_source(tmp_path: Path, container: str) -> None:
    sound = tones(15 * SAMPLE_RATE + 1, 300, 5000)
    source = written(tmp_path / "source.wav", sound, container=container)
    progress: list[float] = []
    spleeter.separate(source, tmp_path / "voice.wav", tmp_path / "background.wav", below_two_kilohertz, progress.append)
    voice, rate = soundfile.read(tmp_path / "voice.wav", dtype="float32")
    background, _ = soundfile.read(tmp_path / "background.wav", dtype="float32")
    assert rate == SAMPLE_RATE
    assert soundfile.info(tmp_path / "voice.wav").subtype == "FLOAT"
    assert voice.shape == background.shape == sound.shape
    np.testing.assert_allclose(voice + background, sound, atol=1e-6)
    assert progress == sorted(progress)
    assert progress[-1] == 1


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    source = written(tmp_path / "source.wav", tones(50_000, 300, 5000))
    for name in "ab":
        spleeter.separate(source, tmp_path / f"{name}v.wav", tmp_path / f"{name}b.wav", below_two_kilohertz, lambda _: None)
    assert (tmp_path / "av.wav").read_bytes() == (tmp_path / "bv.wav").read_bytes()
    assert (tmp_path / "ab.wav").read_bytes() == (tmp_path / "bb.wav").read_bytes()
    assert b"PEAK" not in (tmp_path / "av.wav").read_bytes()[:4096]  # a chunk with the time of writing, in plain float WAV


def test_another_sample_rate_or_more_channels_are_refused(tmp_path: Path) -> None:
    for name, source in {
        "rate": written(tmp_path / "rate.wav", tones(1000, 440), 44_100),
        "channels": written(tmp_path / "channels.wav", tones(1000, 440, channels=6)),
    }.items():
        with pytest.raises(BadInput, match=f"{name}.wav: separation takes"):
            spleeter.separate(source, tmp_path / "v.wav", tmp_path / "b.wav", everything, lambda _: None)


def test_a_failure_leaves_no_half_written_file(tmp_path: Path) -> None:
    def failing(magnitudes: np.ndarray) -> np.ndarray:
        raise MemoryError

    source = written(tmp_path / "source.wav", tones(50_000, 440))
    with pytest.raises(MemoryError):
        spleeter.separate(source, tmp_path / "v.wav", tmp_path / "b.wav", failing, lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["source.wav"]


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    minute = tones(60 * SAMPLE_RATE, 300, 5000, channels=1)
    peaks = []
    for minutes in (1, 5):
        source = tmp_path / "source.wav"
        with soundfile.SoundFile(source, "w", SAMPLE_RATE, 1, "FLOAT") as file:
            for _ in range(minutes):
                file.write(minute)
        tracemalloc.start()
        try:
            spleeter.separate(source, tmp_path / "v.wav", tmp_path / "b.wav", below_two_kilohertz, lambda _: None)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


# Checkpoints


def checkpoint(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        out.writestr(f"{path.stem}/data.pkl", pickled)
        out.writestr(f"{path.stem}/version", "3\n")
    return path


def as_written_by_torch(arrays: dict[str, np.ndarray]) -> bytes:
    """Protocol 2, with the names that numpy had before its version 2."""
    return pickle.dumps(arrays, protocol=2).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def test_arrays_come_out_as_they_went_in(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {
        "weight": random.normal(size=(4, 3, 5, 5)).astype(np.float32),
        "by columns": np.asfortranarray(random.normal(size=(3, 7)).astype(np.float32)),
        "bias": random.normal(size=4).astype(np.float32),
    }
    read = spleeter.read_checkpoint(checkpoint(tmp_path / "a.ckpt", as_written_by_torch(arrays)))
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


class _Runs:
    def __init__(self, function: object, *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize("protocol", range(6))
def test_a_checkpoint_that_runs_a_command_is_refused(tmp_path: Path, protocol: int) -> None:
    ran = tmp_path / "ran"
    evil = checkpoint(tmp_path / "evil.ckpt", pickle.dumps({"weight": _Runs(os.system, f"touch {ran}")}, protocol))
    with pytest.raises(WeightsRefused, match=r"evil\.ckpt: the pickle asks for \w+\.system"):
        spleeter.read_checkpoint(evil)
    assert not ran.exists()


@pytest.mark.parametrize("function", [eval, getattr, np.load, np.frombuffer, pickle.loads, io.open, bytearray])
def test_a_checkpoint_that_names_any_other_function_is_refused(tmp_path: Path, function: object) -> None:
    with pytest.raises(WeightsRefused, match="the pickle asks for"):
        spleeter.read_checkpoint(checkpoint(tmp_path / "evil.ckpt", pickle.dumps(_Runs(function, "x"), 2)))


@pytest.mark.parametrize(
    "pickled",
    [b"", b"\x80\x02", b"not a pickle", pickle.dumps([1, 2], 2), pickle.dumps({"a": 1}, 2), as_written_by_torch({"a": np.arange(3)})],
    ids=["empty", "cut off", "text", "a list", "a number", "integers"],
)
def test_anything_but_float_arrays_is_refused(tmp_path: Path, pickled: bytes) -> None:
    with pytest.raises(WeightsRefused, match=r"a\.ckpt"):
        spleeter.read_checkpoint(checkpoint(tmp_path / "a.ckpt", pickled))


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"\x80\x02}.")
    with pytest.raises(WeightsRefused, match=r"a\.ckpt"):
        spleeter.read_checkpoint(tmp_path / "a.ckpt")


def test_a_checkpoint_of_another_network_is_refused() -> None:
    with pytest.raises(WeightsRefused, match=r"voice has no tensor down1_conv\.1\.weight"):
        spleeter.build_model({}, {})


# The network


def test_the_two_shares_are_of_one_whole() -> None:
    """With the stems exchanged, the share of the one is what is left by the other."""
    folder = weights.folder_of("spleeter-2stems")
    magnitudes = np.abs(np.random.default_rng(0).normal(size=(2, spleeter.SEGMENT, spleeter.BINS))).astype(np.float32)
    voice, accompaniment = (spleeter.read_checkpoint(folder / name) for name in spleeter.CHECKPOINTS)
    shares = []
    for stems in ((voice, accompaniment), (accompaniment, voice)):
        import onnxruntime

        session = onnxruntime.InferenceSession(spleeter.build_model(*stems), providers=["CPUExecutionProvider"])
        shares.append(session.run(None, {"magnitudes": magnitudes[None]})[0][0])
    assert shares[0].min() >= 0
    assert shares[0].max() <= 1
    np.testing.assert_allclose(shares[0] + shares[1], 1, atol=1e-5)
