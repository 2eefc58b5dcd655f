"""pyannote's own diarisation, on a pipeline in a folder as the hub's are: networks of random weights, one of which always hears a voice."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr, ValidationError

from blocks.whisperx import WhisperX
from dubbing import audio, media
from dubbing.lesson import Word
from dubbing.segmentation import utterances_from

SAMPLE = Path(__file__).parents[2] / "samples" / "lesson_ru.mp4"
SECONDS = 20
PIPELINE = """
dependencies:
  pyannote.audio: 4.0.0
pipeline:
  name: pyannote.audio.pipelines.SpeakerDiarization
  params:
    clustering: VBxClustering
    segmentation: $model/segmentation
    segmentation_batch_size: 8
    segmentation_step: 0.2
    embedding: $model/embedding
    embedding_batch_size: 8
    embedding_exclude_overlap: true
    plda: $model/plda
params:
  clustering: {threshold: 0.6, Fa: 0.07, Fb: 0.8}
  segmentation: {min_duration_off: 0.0}
"""


def save(folder: Path, network: Any) -> None:
    """As Lightning saves a network of pyannote's."""
    import lightning
    import torch

    checkpoint = {
        "state_dict": network.state_dict(),
        "hyper_parameters": dict(network.hparams),
        "pytorch-lightning_version": lightning.__version__,
    }
    network.on_save_checkpoint(checkpoint)
    folder.mkdir()
    torch.save(checkpoint, folder / "pytorch_model.bin")


@pytest.fixture(scope="module")
def diariser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding import WeSpeakerResNet34
    from pyannote.audio.models.segmentation import PyanNet

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("diariser")
    (folder / "config.yaml").write_text(PIPELINE)
    segmentation = PyanNet(lstm={"hidden_size": 8, "num_layers": 1}, linear={"hidden_size": 8, "num_layers": 1})
    segmentation.specifications = Specifications(
        problem=Problem.MONO_LABEL_CLASSIFICATION,
        resolution=Resolution.FRAME,
        duration=10.0,
        classes=["speaker#1", "speaker#2", "speaker#3"],
        powerset_max_classes=2,
        permutation_invariant=True,
    )
    segmentation.build()
    with torch.no_grad():
        segmentation.classifier.bias[1] += 10.0  # the first speaker, all the time
    save(folder / "segmentation", segmentation)
    embedding = WeSpeakerResNet34()
    embedding.specifications = Specifications(problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=5.0)
    save(folder / "embedding", embedding)
    random = np.random.default_rng(0)
    (folder / "plda").mkdir()
    lda = random.standard_normal((256, 128))
    np.savez(folder / "plda" / "xvec_transform.npz", mean1=np.zeros(256), mean2=np.zeros(128), lda=lda)
    tr = np.eye(128) + 0.01 * random.standard_normal((128, 128))
    np.savez(folder / "plda" / "plda.npz", mu=np.zeros(128), tr=tr, psi=random.uniform(0.5, 2.0, 128))
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    probed = media.probe(SAMPLE, SAMPLE.name)
    audio.extract(SAMPLE, probed.sound, SECONDS, folder / "lesson.wav")
    return folder / "lesson.wav"


@pytest.fixture
def engine(diariser: Path) -> Iterator[WhisperX]:
    made = WhisperX(
        model="whisper-base",
        compute_type="int8",
        aligned=False,
        device="cpu",
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


def test_nothing_is_reported_home() -> None:
    """pyannote would tell its makers how long the recording is and how many speak in it."""
    from pyannote.audio.telemetry.metrics import is_metrics_enabled

    assert not is_metrics_enabled()
