"""pyannote's own diarisation, on a pipeline in a folder as the hub's are: networks of random weights, one of which always hears a voice.
On the CPU and on a GPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import SecretStr, ValidationError

from blocks.whisperx import WhisperX
from dubbing import audio, media
from dubbing.lesson import Word
from dubbing.segmentation import utterances_from
from tests.engines import checkpoints
from tests.engines.checkpoints import PYANNET
from tests.engines.conftest import SmallGpu, free

SAMPLE = Path(__file__).parents[2] / "samples" / "lesson_ru.mp4"
SECONDS = 20


@pytest.fixture(scope="module")
def diariser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diariser")
    checkpoints.diariser(folder, batch=8, step=0.2, **PYANNET)
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    probed = media.probe(SAMPLE, SAMPLE.name)
    audio.extract(SAMPLE, probed.sound, SECONDS, folder / "lesson.wav")
    return folder / "lesson.wav"


@pytest.fixture
def engine(diariser: Path, device: Literal["cpu", "cuda"]) -> Iterator[WhisperX]:
    made = WhisperX(
        model="whisper-base",
        compute_type="int8",
        aligned=False,
        device=device,
        diarised=True,
        diariser=str(diariser),
        hugging_face_token=SecretStr("hf_never_needed"),
    )
    yield made
    made.close()


def transcribed(engine: WhisperX, sound: Path) -> list[Word]:
    shares: list[float] = []
    words = engine.transcribe(sound, "ru", shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0
    return words


def test_one_voice_is_one_speaker(engine: WhisperX, sound: Path) -> None:
    words = transcribed(engine, sound)
    assert len(words) > 10
    assert {word.speaker for word in words} == {"speaker 1"}
    assert {line.speaker for line in utterances_from(words, "ru")} == {"speaker 1"}


def test_the_number_of_speakers_may_be_given(engine: WhisperX, sound: Path) -> None:
    engine.min_speakers = engine.max_speakers = 2
    turns = engine._turns(sound, lambda share: None)
    assert len({turn.speaker for turn in turns}) == 2
    assert all(0.0 <= turn.start < turn.end <= SECONDS + 1 for turn in turns)
    assert {word.speaker for word in transcribed(engine, sound)} <= {"speaker 1", "speaker 2"}
    with pytest.raises(ValidationError, match="min_speakers 3: must not be greater than max_speakers 2"):
        WhisperX(min_speakers=3, max_speakers=2)


def test_smaller_batches_where_memory_runs_out(
    engine: WhisperX, sound: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The pipeline's own code, with a device that has room for two at a time and says so in torch's words."""
    import torch
    from pyannote.audio.pipelines import SpeakerDiarization

    tried: list[tuple[int, int]] = []
    apply = SpeakerDiarization.apply

    def small(self: Any, file: Any, **more: Any) -> Any:
        tried.append((self.segmentation_batch_size, self.embedding_batch_size))
        if max(tried[-1]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB")
        return apply(self, file, **more)

    monkeypatch.setattr(SpeakerDiarization, "apply", small)
    monkeypatch.setattr("dubbing.devices.for_torch", lambda wanted: "meta")  # anything but the CPU, where nothing is left to fall back to
    monkeypatch.setattr(SpeakerDiarization, "to", lambda self, device: self)
    with caplog.at_level(logging.WARNING):
        turns = engine._turns(sound, lambda share: None)
    assert tried == [(8, 8), (4, 4), (2, 2)]
    assert turns
    assert "out of memory with speakers in batches of 8; going on with 4" in caplog.text


def diarisation(diariser: Path, device: Literal["auto", "cpu"]) -> WhisperX:
    return WhisperX(
        model="whisper-base", aligned=False, device=device, diarised=True, diariser=str(diariser), min_speakers=2, max_speakers=2
    )


def test_a_gpu_hears_the_same_turns_as_the_cpu(diariser: Path, gpu: str, sound: Path) -> None:
    ours, theirs = (diarisation(diariser, device)._turns(sound, lambda share: None) for device in ("auto", "cpu"))
    assert [turn.speaker for turn in ours] == [turn.speaker for turn in theirs]
    np.testing.assert_allclose([turn[:2] for turn in ours], [turn[:2] for turn in theirs], atol=0.05)


def test_with_ever_less_memory_a_gpu_hears_the_same_turns_and_at_last_the_cpu_does(
    diariser: Path, gpu: str, small_gpu: SmallGpu, sound: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usual, told = diarisation(diariser, "auto")._turns(sound, lambda share: None), ""
    for megabytes in range(400, -1, -50):
        engine = diarisation(diariser, "auto")
        with small_gpu(megabytes << 20), caplog.at_level(logging.WARNING):
            found = engine._turns(sound, lambda share: None)
            engine.close()
        np.testing.assert_allclose([turn[:2] for turn in found], [turn[:2] for turn in usual], atol=0.05)
        told += caplog.text
        caplog.clear()
    assert "out of memory with speakers in batches of 8; going on with 4" in told
    assert "out of memory while hearing speakers on cuda; going on on the CPU" in told


def test_a_gpu_s_memory_is_free_again_when_the_engine_is_closed(diariser: Path, gpu: str, sound: Path) -> None:
    left = []
    for _ in range(3):
        engine = diarisation(diariser, "auto")
        engine._turns(sound, lambda share: None)
        in_use = free()
        engine.close()
        left.append(free())
        assert left[-1] > in_use
    assert left[2] == left[1]  # what CUDA's own libraries take when they are first used stays


def test_nothing_is_reported_home() -> None:
    """pyannote would tell its makers how long the recording is and how many speak in it."""
    from pyannote.audio.telemetry.metrics import is_metrics_enabled

    assert not is_metrics_enabled()
