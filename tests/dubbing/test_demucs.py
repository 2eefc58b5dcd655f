"""Separation in overlapping segments, with networks that are played: lengths, seams, memory that runs out. The real network's code runs in
`tests/engines`."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from dubbing import demucs
from dubbing.errors import BadInput
from dubbing.media import SAMPLE_RATE

SEGMENT = 2.0  # seconds


def everything(segment: np.ndarray) -> np.ndarray:
    return segment


def half(segment: np.ndarray) -> np.ndarray:
    return segment / 2


class Small:
    """A device that has room for segments of so many seconds, and tells in whose words it has none for more."""

    def __init__(self, seconds: float, error: Callable[[], Exception] = MemoryError) -> None:
        self.frames = round(seconds * demucs.MODEL_RATE)
        self.error = error
        self.tried: list[int] = []

    def __call__(self, segment: np.ndarray) -> np.ndarray:
        self.tried.append(len(segment))
        if len(segment) > self.frames:
            raise self.error()
        return segment


def tones(frames: int, *frequencies: float, channels: int = 2) -> np.ndarray:
    time = np.arange(frames) / SAMPLE_RATE
    sound = sum(np.sin(2 * np.pi * frequency * time) for frequency in frequencies)
    return np.repeat(np.asarray(0.2 * sound, np.float32)[:, None], channels, axis=1)


def in_blocks(sound: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (sound[start : start + size] for start in range(0, len(sound), size))


def voice_in(sound: np.ndarray, network: demucs.Network, size: int = 480_000, segment: float = SEGMENT, **more: object) -> np.ndarray:
    channels = sound.shape[1]
    return np.concatenate([np.zeros((0, channels)), *demucs.voice_in(in_blocks(sound, size), channels, network, segment, **more)])  # type: ignore[arg-type]


def decibels(error: np.ndarray, reference: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(error**2) / np.mean(reference**2)))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [0, 1, 7, 1000, 95_999, 96_000, 96_001, 100_003, 700_001])
def test_as_many_samples_come_out_as_go_in(frames: int, channels: int) -> None:
    voice = voice_in(tones(frames, 440, channels=channels), everything)
    assert voice.shape == (frames, channels)
    assert np.isfinite(voice).all()


@settings(max_examples=30)
@given(st.integers(0, 400_000), st.integers(1000, 300_000), st.floats(1.0, 3.0))
def test_any_length_in_blocks_of_any_size_comes_out_as_it_went_in(frames: int, size: int, segment: float) -> None:
    sound = tones(frames, 440, 1234)
    voice = voice_in(sound, everything, size, segment)
    assert voice.shape == sound.shape
    inner = slice(2000, -2000)  # a resampler has no sound before the first sample to go by
    if frames > 10_000:
        assert decibels((voice - sound)[inner], sound[inner]) < -80


def test_segments_pass_into_each_other_without_a_seam() -> None:
    """Every other segment is silent: the worst that two neighbours can disagree. The level glides, it doesn't jump."""
    calls = 0

    def alternating(segment: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return segment * (calls % 2)

    voice = voice_in(tones(20 * SAMPLE_RATE, 1000), alternating)
    hundredth = SAMPLE_RATE // 100
    level = np.abs(voice[: len(voice) // hundredth * hundredth, 0]).reshape(-1, hundredth).max(axis=1)[20:-20]
    assert calls > 10
    assert level.max() > 0.19 and level.min() < 0.01
    assert np.abs(np.diff(level)).max() < 0.2 / (demucs.OVERLAP * SEGMENT * 100) * 3


def test_what_counts_is_the_middle_of_a_segment() -> None:
    """A network that is wrong at the very ends of what it sees is not heard there, where a neighbour sees more."""

    def wrong_at_the_ends(segment: np.ndarray) -> np.ndarray:
        voice = segment.copy()
        voice[:50], voice[-50:] = 1.0, -1.0
        return voice

    sound = tones(10 * SAMPLE_RATE, 440)
    voice = voice_in(sound, wrong_at_the_ends)
    inner = slice(SAMPLE_RATE, -SAMPLE_RATE)
    assert np.abs((voice - sound)[inner]).max() < 0.01


def test_the_last_segment_has_the_sound_before_it_to_go_by() -> None:
    seen: list[np.ndarray] = []

    def watching(segment: np.ndarray) -> np.ndarray:
        seen.append(segment)
        return segment

    voice_in(tones(round(3.1 * SAMPLE_RATE), 440), watching)
    assert {len(segment) for segment in seen} == {round(SEGMENT * demucs.MODEL_RATE)}
    assert all(np.abs(segment[:1000]).max() > 0.1 for segment in seen)


def test_sound_shorter_than_a_segment_lies_in_the_middle_of_silence() -> None:
    seen: list[np.ndarray] = []

    def watching(segment: np.ndarray) -> np.ndarray:
        seen.append(segment)
        return segment

    sound = tones(SAMPLE_RATE // 2, 440)
    voice = voice_in(sound, watching)
    [segment] = seen
    loud = np.flatnonzero(np.abs(segment[:, 0]) > 0.01)
    assert abs(loud[0] - (len(segment) - 1 - loud[-1])) < 500
    assert decibels((voice - sound)[1000:-1000], sound) < -60


def test_the_network_sees_sound_of_an_even_level(tmp_path: Path) -> None:
    """Mean 0 and deviation 1, as it was trained, whatever the recording's."""
    deviations: list[float] = []

    def watching(segment: np.ndarray) -> np.ndarray:
        deviations.append(float(segment.mean(axis=1).std()))
        return segment

    sound = 0.001 * tones(8 * SAMPLE_RATE, 440) + np.float32(0.01)
    soundfile.write(tmp_path / "source.wav", sound, SAMPLE_RATE, subtype="FLOAT")
    level = demucs.level_of(tmp_path / "source.wav")
    assert level.mean == pytest.approx(0.01, rel=1e-3)
    voice = voice_in(sound, watching, level=level)
    assert deviations == pytest.approx([1.0] * len(deviations), rel=0.1)
    inner = slice(2000, -2000)
    assert decibels((voice - (sound - np.float32(level.mean)))[inner], sound[inner]) < -60


@pytest.mark.parametrize(
    "error",
    [
        MemoryError,
        lambda: RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB"),
        lambda: RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB, other allocations: 1.2 GB, max allowed: 18.1 GB)."),
    ],
    ids=["Python", "CUDA", "MPS"],
)
@pytest.mark.parametrize("seconds", [0.6, 5.0, 11.0])
def test_segments_are_halved_where_memory_runs_out(error: Callable[[], Exception], seconds: float) -> None:
    told: list[str] = []
    network = Small(2.5, error)
    sound = tones(round(seconds * SAMPLE_RATE), 440, 3000)
    voice = voice_in(sound, network, segment=8.0, warn=told.append)
    inner = slice(2000, -2000)
    assert voice.shape == sound.shape
    assert decibels((voice - sound)[inner], sound[inner]) < -60
    assert network.tried[:3] == [round(8.0 * demucs.MODEL_RATE) // halved for halved in (1, 2, 4)]
    assert set(network.tried[3:]) <= {round(2.0 * demucs.MODEL_RATE)}
    assert told == [
        "demucs: out of memory with segments of 8.0 s; going on with 4.0 s",
        "demucs: out of memory with segments of 4.0 s; going on with 2.0 s",
    ]


def test_memory_that_runs_out_in_the_middle_leaves_no_gap() -> None:
    class Shrinking(Small):
        def __call__(self, segment: np.ndarray) -> np.ndarray:
            if len(self.tried) == 3:
                self.frames = round(1.2 * demucs.MODEL_RATE)
            return super().__call__(segment)

    sound = tones(12 * SAMPLE_RATE, 440, 3000)
    network = Shrinking(100)
    voice = voice_in(sound, network)
    inner = slice(2000, -2000)
    assert decibels((voice - sound)[inner], sound[inner]) < -60
    assert len(set(network.tried)) == 2


def test_below_the_shortest_segment_there_is_nothing_to_halve() -> None:
    with pytest.raises(MemoryError):
        voice_in(tones(5 * SAMPLE_RATE, 440), Small(0.1))


def test_any_other_failure_is_not_taken_for_it() -> None:
    network = Small(0.1, lambda: RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(RuntimeError, match="assert"):
        voice_in(tones(5 * SAMPLE_RATE, 440), network)
    assert len(network.tried) == 1


# Files


def test_voice_and_background_add_up_to_the_source(tmp_path: Path) -> None:
    sound = tones(7 * SAMPLE_RATE + 1, 300, 5000)
    soundfile.write(tmp_path / "source.wav", sound, SAMPLE_RATE, subtype="FLOAT")
    progress: list[float] = []
    demucs.separate(tmp_path / "source.wav", tmp_path / "voice.wav", tmp_path / "background.wav", half, SEGMENT, progress.append)
    voice, background = (soundfile.read(tmp_path / name, dtype="float32")[0] for name in ("voice.wav", "background.wav"))
    assert voice.shape == background.shape == sound.shape
    np.testing.assert_allclose(voice + background, sound, atol=1e-6)
    np.testing.assert_allclose(voice[2000:-2000], sound[2000:-2000] / 2, atol=1e-3)
    assert progress == sorted(progress) and progress[-1] == 1


def test_another_sample_rate_is_refused_and_a_failure_leaves_no_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tones(1000, 440), 44_100, subtype="FLOAT")
    with pytest.raises(BadInput, match=r"a\.wav: separation takes 48000 Hz"):
        demucs.separate(tmp_path / "a.wav", tmp_path / "v.wav", tmp_path / "b.wav", everything, SEGMENT, lambda _: None)
    soundfile.write(tmp_path / "a.wav", tones(9000, 440), SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(MemoryError):
        demucs.separate(tmp_path / "a.wav", tmp_path / "v.wav", tmp_path / "b.wav", Small(0.0), SEGMENT, lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_the_network_is_loaded_for_the_processors_that_may_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Model:
        sources, samplerate, audio_channels, segment = ("vocals",), demucs.MODEL_RATE, 2, 7.8

        def to(self, device: str) -> Model:
            return self

        def eval(self) -> Model:
            return self

    set_to: list[int] = []
    monkeypatch.setitem(sys.modules, "demucs", ModuleType("demucs"))
    monkeypatch.setitem(sys.modules, "demucs.pretrained", SimpleNamespace(get_model=lambda name, repo: Model()))
    monkeypatch.setitem(sys.modules, "demucs.repo", SimpleNamespace(ModelLoadingError=RuntimeError))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=set_to.append))
    monkeypatch.setattr(demucs.devices, "usable_processors", lambda: 3)
    demucs.load(tmp_path / "made.th", "cpu")
    demucs.load(tmp_path / "made.th", "cpu", 1)
    assert set_to == [3, 1]


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    minute = tones(60 * SAMPLE_RATE, 300, channels=1)
    peaks = []
    for minutes in (1, 4):
        with soundfile.SoundFile(tmp_path / "source.wav", "w", SAMPLE_RATE, 1, "FLOAT") as file:
            for _ in range(minutes):
                file.write(minute)
        tracemalloc.start()
        try:
            demucs.separate(tmp_path / "source.wav", tmp_path / "v.wav", tmp_path / "b.wav", half, 7.8, lambda _: None)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
