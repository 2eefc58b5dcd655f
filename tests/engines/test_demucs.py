"""Demucs' own network and loading code, with a tiny network of random weights, on the CPU and on a GPU."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import soundfile

from blocks.demucs import DemucsSeparator
from dubbing import demucs, devices, weights
from dubbing.errors import BadSetting, WeightsRefused
from dubbing.media import SAMPLE_RATE
from dubbing.weights import WeightsFile
from tests.engines import checkpoints
from tests.engines.checkpoints import DEMUCS, SEGMENT
from tests.engines.conftest import SmallGpu, free


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.demucs(tmp_path_factory.mktemp("htdemucs"), **DEMUCS)


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a checkpoint the one that the catalogue pins."""

    def pin(checkpoint: Path) -> None:
        content = checkpoint.read_bytes()
        file = WeightsFile(name=checkpoint.name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        entry = weights.find("htdemucs").model_copy(update={"files": (file,)})
        monkeypatch.setattr(weights, "catalogue", lambda: (entry,))
        monkeypatch.setenv("COURSEDUB_WEIGHTS_DIR_HTDEMUCS", str(checkpoint.parent))

    return pin


@pytest.fixture
def separator(checkpoint: Path, pinned: Callable[[Path], None], device: Literal["cpu", "cuda"]) -> Iterator[DemucsSeparator]:
    """The block, with our checkpoint."""
    pinned(checkpoint)
    engine = DemucsSeparator(device=device, segment=SEGMENT)
    yield engine
    engine.close()


def sound(frames: int, channels: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return (0.1 * random.standard_normal((frames, channels))).astype(np.float32)


def voice_by(engine: DemucsSeparator, mix: np.ndarray, folder: Path) -> np.ndarray:
    soundfile.write(folder / "mix.wav", mix, SAMPLE_RATE, subtype="FLOAT")
    engine.separate(folder / "mix.wav", folder / "v.wav", folder / "b.wav", lambda share: None)
    return soundfile.read(folder / "v.wav", dtype="float32", always_2d=True)[0]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [1000, 5 * SAMPLE_RATE + 1])
def test_voice_and_background_add_up_to_the_source(separator: DemucsSeparator, tmp_path: Path, frames: int, channels: int) -> None:
    mix = sound(frames, channels)
    soundfile.write(tmp_path / "mix.wav", mix, SAMPLE_RATE, subtype="FLOAT")
    progress: list[float] = []
    separator.separate(tmp_path / "mix.wav", tmp_path / "v.wav", tmp_path / "b.wav", progress.append)
    vocals, background = (soundfile.read(tmp_path / name, dtype="float32", always_2d=True)[0] for name in ("v.wav", "b.wav"))
    assert vocals.shape == background.shape == mix.shape
    assert np.abs(vocals).max() > 1e-6
    np.testing.assert_allclose(vocals + background, mix, atol=1e-6)
    assert progress[-1] == 1


def test_the_streamed_voice_is_what_the_authors_own_overlapping_gives(checkpoint: Path, device: str) -> None:
    """But for the last segments, which end with the sound here, and lie in the middle of silence and sound there."""
    import torch
    from demucs.apply import apply_model

    network = demucs.load(checkpoint, device)
    mix = sound(round(10.5 * demucs.MODEL_RATE), 2)
    segments = demucs._Segments(2, network, round(SEGMENT * demucs.MODEL_RATE), demucs.TRAINED, lambda message: None)
    ours = np.concatenate([*segments.push(mix), *segments.finish()])
    network._model.segment = SEGMENT
    with torch.no_grad():
        theirs = apply_model(network._model, torch.from_numpy(mix.T)[None], shifts=0, overlap=demucs.OVERLAP, device=device)
        theirs = theirs[0, 3].cpu().numpy().T
    inner = round((10.5 - 2 * SEGMENT) * demucs.MODEL_RATE)
    np.testing.assert_allclose(ours[:inner], theirs[:inner], atol=1e-5)
    assert ours.shape == theirs.shape


def test_segments_are_halved_where_memory_runs_out_and_the_network_takes_them(
    separator: DemucsSeparator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The real network on segments shorter than it was trained on; the error is torch's own class, with its text."""
    import torch

    lengths: list[int] = []
    call = demucs.LoadedNetwork.__call__

    def small(self: demucs.LoadedNetwork, segment: np.ndarray) -> np.ndarray:
        lengths.append(len(segment))
        if len(segment) > 2 * demucs.MODEL_RATE:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB")
        return call(self, segment)

    monkeypatch.setattr(demucs.LoadedNetwork, "__call__", small)
    mix = sound(6 * SAMPLE_RATE, 2)
    soundfile.write(tmp_path / "mix.wav", mix, SAMPLE_RATE, subtype="FLOAT")
    with caplog.at_level(logging.WARNING):
        separator.separate(tmp_path / "mix.wav", tmp_path / "v.wav", tmp_path / "b.wav", lambda share: None)
    assert set(lengths) == {3 * demucs.MODEL_RATE, 3 * demucs.MODEL_RATE // 2}
    assert "out of memory with segments of 3.0 s; going on with 1.5 s" in caplog.text
    assert soundfile.info(tmp_path / "v.wav").frames == len(mix)


def test_a_real_allocation_that_fails_is_recognised(device: str) -> None:
    import torch

    with pytest.raises(RuntimeError) as failed:
        torch.empty(1 << 50, dtype=torch.uint8, device=device)
    assert devices.is_out_of_memory(failed.value)


def test_a_gpu_gives_what_the_cpu_gives(checkpoint: Path, pinned: Callable[[Path], None], gpu: str, tmp_path: Path) -> None:
    """To -90 dB of it, whatever was set or ran before in this process."""
    import torch

    pinned(checkpoint)
    mix, voices = sound(10 * SAMPLE_RATE, 2), []
    for wanted, reduced in (("cpu", True), ("auto", False), ("auto", True)):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = reduced
        separator = DemucsSeparator(device=wanted, segment=SEGMENT)
        voices.append(voice_by(separator, mix, tmp_path))
        separator.close()
    for voice in voices[1:]:
        assert np.linalg.norm(voice - voices[0]) < 3e-5 * np.linalg.norm(voices[0])


def test_segments_are_halved_where_a_gpu_s_memory_really_runs_out(
    pinned: Callable[[Path], None], gpu: str, small_gpu: SmallGpu, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    pinned(checkpoints.demucs(tmp_path / "wide", **DEMUCS | {"channels": 48}))
    mix, peaks = sound(8 * SAMPLE_RATE, 2), []
    separator = DemucsSeparator(device="auto", segment=SEGMENT)
    for segment in (SEGMENT, SEGMENT / 2):
        separator.segment = segment
        torch.cuda.reset_peak_memory_stats()
        in_half = voice_by(separator, mix, tmp_path)
        peaks.append(torch.cuda.max_memory_allocated())
        separator.close()
        devices.release(gpu)
    assert peaks[1] < peaks[0]
    separator.segment = SEGMENT
    with small_gpu(sum(peaks) // 2), caplog.at_level(logging.WARNING):
        found = voice_by(separator, mix, tmp_path)
        separator.close()
    assert "out of memory with segments of 3.0 s; going on with 1.5 s" in caplog.text
    np.testing.assert_allclose(found, in_half, atol=1e-5)


def test_a_gpu_s_memory_is_free_again_when_the_engine_is_closed(pinned: Callable[[Path], None], gpu: str, tmp_path: Path) -> None:
    pinned(checkpoints.demucs(tmp_path / "wide", **DEMUCS | {"channels": 48}))
    separator = DemucsSeparator(device=gpu, segment=SEGMENT)
    voice_by(separator, sound(4 * SAMPLE_RATE, 2), tmp_path)  # CUDA's own libraries are loaded with the first use, and stay
    separator.close()
    before = free()
    voice_by(separator, sound(4 * SAMPLE_RATE, 2), tmp_path)
    assert free() < before
    separator.close()
    assert free() == before


def test_a_checkpoint_that_is_not_the_pinned_one_is_never_loaded(
    separator: DemucsSeparator, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / checkpoint.name).write_bytes(checkpoint.read_bytes()[:-1] + b"x")
    monkeypatch.setenv("COURSEDUB_WEIGHTS_DIR_HTDEMUCS", str(tmp_path))
    soundfile.write(tmp_path / "mix.wav", sound(1000, 2), SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(WeightsRefused, match="SHA-256"):
        separator.separate(tmp_path / "mix.wav", tmp_path / "v.wav", tmp_path / "b.wav", lambda share: None)


def test_another_network_is_refused(tmp_path: Path) -> None:
    other = checkpoints.demucs(tmp_path / "rate", **DEMUCS, samplerate=16_000)
    with pytest.raises(WeightsRefused, match=r"separates drums, bass, other, vocals at 16000 Hz"):
        demucs.load(other, "cpu")
    silent = checkpoints.demucs(tmp_path / "stems", **DEMUCS, sources=["drums", "other"])
    with pytest.raises(WeightsRefused, match=r"separates drums, other at"):
        demucs.load(silent, "cpu")


def test_a_device_that_is_not_there_is_refused(separator: DemucsSeparator, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    separator.device = "cuda"
    with pytest.raises(BadSetting, match=r"^device cuda: torch finds none here"):
        separator.separate(tmp_path / "mix.wav", tmp_path / "v.wav", tmp_path / "b.wav", lambda share: None)
