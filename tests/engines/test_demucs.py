"""Demucs' own network and loading code, with a tiny network of random weights."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from blocks.demucs import DemucsSeparator
from dubbing import demucs, devices, weights
from dubbing.errors import BadSetting, WeightsRefused
from dubbing.media import SAMPLE_RATE
from dubbing.weights import WeightsFile

SEGMENT = 3  # seconds


def made(folder: Path, **more: object) -> Path:
    """A checkpoint as its authors publish them: a name with the beginning of its digest, and in it class, arguments and state."""
    import torch
    from demucs.htdemucs import HTDemucs

    torch.manual_seed(0)
    settings = {"channels": 8, "t_layers": 2, "t_heads": 2, "bottom_channels": 16, "segment": SEGMENT, "depth": 4} | more
    network = HTDemucs(sources=["drums", "bass", "other", "vocals"], **settings) if "sources" not in settings else HTDemucs(**settings)
    package = {
        "klass": HTDemucs,
        "args": network._init_args_kwargs[0],
        "kwargs": network._init_args_kwargs[1],
        "state": network.state_dict(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(package, folder / "made.th")
    digest = hashlib.sha256((folder / "made.th").read_bytes()).hexdigest()
    return (folder / "made.th").rename(folder / f"0123abcd-{digest[:8]}.th")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("htdemucs"))


@pytest.fixture
def separator(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DemucsSeparator]:
    """The block, with the catalogue's entry pinning our checkpoint."""
    content = checkpoint.read_bytes()
    file = WeightsFile(name=checkpoint.name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    entry = weights.find("htdemucs").model_copy(update={"files": (file,)})
    monkeypatch.setattr(weights, "catalogue", lambda: (entry,))
    monkeypatch.setenv("COURSEDUB_WEIGHTS_DIR_HTDEMUCS", str(checkpoint.parent))
    engine = DemucsSeparator(device="cpu", segment=SEGMENT)
    yield engine
    engine.close()


def sound(frames: int, channels: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return (0.1 * random.standard_normal((frames, channels))).astype(np.float32)


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


def test_the_streamed_voice_is_what_the_authors_own_overlapping_gives(checkpoint: Path) -> None:
    """But for the last segments, which end with the sound here, and lie in the middle of silence and sound there."""
    import torch
    from demucs.apply import apply_model

    network = demucs.load(checkpoint, "cpu")
    mix = sound(round(10.5 * demucs.MODEL_RATE), 2)
    segments = demucs._Segments(2, network, round(SEGMENT * demucs.MODEL_RATE), demucs.TRAINED, lambda message: None)
    ours = np.concatenate([*segments.push(mix), *segments.finish()])
    network._model.segment = SEGMENT
    with torch.no_grad():
        theirs = apply_model(network._model, torch.from_numpy(mix.T)[None], shifts=0, overlap=demucs.OVERLAP)[0, 3].numpy().T
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


def test_a_real_allocation_that_fails_is_recognised() -> None:
    import torch

    with pytest.raises(RuntimeError) as failed:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert devices.is_out_of_memory(failed.value)


def test_a_checkpoint_that_is_not_the_pinned_one_is_never_loaded(
    separator: DemucsSeparator, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / checkpoint.name).write_bytes(checkpoint.read_bytes()[:-1] + b"x")
    monkeypatch.setenv("COURSEDUB_WEIGHTS_DIR_HTDEMUCS", str(tmp_path))
    soundfile.write(tmp_path / "mix.wav", sound(1000, 2), SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(WeightsRefused, match="SHA-256"):
        separator.separate(tmp_path / "mix.wav", tmp_path / "v.wav", tmp_path / "b.wav", lambda share: None)


def test_another_network_is_refused(tmp_path: Path) -> None:
    other = made(tmp_path / "rate", samplerate=16_000)
    with pytest.raises(WeightsRefused, match=r"separates drums, bass, other, vocals at 16000 Hz"):
        demucs.load(other, "cpu")
    silent = made(tmp_path / "stems", sources=["drums", "other"])
    with pytest.raises(WeightsRefused, match=r"separates drums, other at"):
        demucs.load(silent, "cpu")


def test_a_device_that_is_not_there_is_refused(separator: DemucsSeparator, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    separator.device = "cuda"
    with pytest.raises(BadSetting, match=r"^device cuda: torch finds none here"):
        separator.separate(tmp_path / "mix.wav", tmp_path / "v.wav", tmp_path / "b.wav", lambda share: None)
