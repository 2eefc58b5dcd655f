"""Checkpoints of random weights, as the published ones are written: tiny for tests, as large as the real ones for figures.

A network of random weights knows nothing, and costs what a trained one of its size does.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from blocks.recogniser import RATE
from dubbing import weights

SEGMENT = 3  # seconds that the tiny Demucs looks at
DEMUCS = {"channels": 8, "t_layers": 2, "t_heads": 2, "bottom_channels": 16, "segment": SEGMENT, "depth": 4}
HTDEMUCS = {"bottom_channels": 512, "segment": 39 / 5}  # the rest are the class's own defaults

LETTERS = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
WAV2VEC2 = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
WAV2VEC2_LARGE = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096, "conv_bias": True,
    "feat_extract_norm": "layer", "do_stable_layer_norm": True,
}  # fmt: skip

PIPELINE = """
dependencies:
  pyannote.audio: 4.0.0
pipeline:
  name: pyannote.audio.pipelines.SpeakerDiarization
  params:
    clustering: VBxClustering
    segmentation: $model/segmentation
    segmentation_batch_size: {batch}
    segmentation_step: {step}
    embedding: $model/embedding
    embedding_batch_size: {batch}
    embedding_exclude_overlap: true
    plda: $model/plda
params:
  clustering: {{threshold: 0.6, Fa: 0.07, Fb: 0.8}}
  segmentation: {{min_duration_off: 0.0}}
"""
PYANNET = {"lstm": {"hidden_size": 8, "num_layers": 1}, "linear": {"hidden_size": 8, "num_layers": 1}}
PYANNET_3 = {"lstm": {"hidden_size": 128, "num_layers": 4}, "linear": {"hidden_size": 128, "num_layers": 2}}

WHISPER_LARGE = {
    "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120, "decoder_layers": 32,
    "decoder_attention_heads": 20, "decoder_ffn_dim": 5120, "num_mel_bins": 128,
}  # fmt: skip


def demucs(folder: Path, **settings: object) -> Path:
    """A name with the beginning of its digest, and in it class, arguments and state."""
    import torch
    from demucs.htdemucs import HTDemucs

    torch.manual_seed(0)
    network = HTDemucs(**{"sources": ["drums", "bass", "other", "vocals"], **settings})
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


def aligner(folder: Path, **settings: Any) -> None:
    """A wav2vec2 that knows the Russian letters, saved as the hub's are."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Processor

    vocabulary = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "|", *LETTERS])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), unk_token="[UNK]", pad_token="[PAD]", word_delimiter_token="|")
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(sampling_rate=RATE), tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(vocabulary), pad_token_id=0, **settings)).save_pretrained(folder)


def diariser(folder: Path, batch: int, step: float, **settings: Any) -> None:
    """A pipeline of pyannote's in a folder as the hub's are. Its segmentation hears one voice all the time."""
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding import WeSpeakerResNet34
    from pyannote.audio.models.segmentation import PyanNet

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(PIPELINE.format(batch=batch, step=step))
    segmentation = PyanNet(**settings)
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
        segmentation.classifier.bias[1] += 10.0
    _save(folder / "segmentation", segmentation)
    embedding = WeSpeakerResNet34()
    embedding.specifications = Specifications(problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=5.0)
    _save(folder / "embedding", embedding)
    random = np.random.default_rng(0)
    (folder / "plda").mkdir()
    lda = random.standard_normal((256, 128))
    np.savez(folder / "plda" / "xvec_transform.npz", mean1=np.zeros(256), mean2=np.zeros(128), lda=lda)
    tr = np.eye(128) + 0.01 * random.standard_normal((128, 128))
    np.savez(folder / "plda" / "plda.npz", mu=np.zeros(128), tr=tr, psi=random.uniform(0.5, 2.0, 128))


def _save(folder: Path, network: Any) -> None:
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


def whisper(folder: Path, **settings: Any) -> None:
    """A Whisper for CTranslate2 in 16-bit floats, with the words of the catalogue's Whisper base."""
    import torch
    from ctranslate2.converters.transformers import WhisperLoader
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    base = weights.folder_of("whisper-base")
    vocabulary = (base / "vocabulary.txt").read_text("utf-8").split("\n")[:-1]
    with torch.device("meta"):
        network = WhisperForConditionalGeneration(WhisperConfig(vocab_size=len(vocabulary), **settings))
    network = network.half().to_empty(device="cpu").requires_grad_(False)
    random = 0.02 * torch.randn(1 << 20, generator=torch.manual_seed(0)).half()
    for name, weight in network.named_parameters():
        if "layer_norm" in name:
            weight.fill_(float(name.endswith("weight")))
        else:  # the same numbers over and over: making a billion others would take longer than the rest
            weight.copy_(random.repeat(-(-weight.numel() // len(random)))[: weight.numel()].view(weight.shape))
    network.tie_weights()
    spec = WhisperLoader().get_model_spec(network)
    spec.register_vocabulary(vocabulary)
    for name, value in json.loads((base / "config.json").read_text()).items():
        setattr(spec.config, name, value)
    heads = network.config.decoder_attention_heads
    spec.config.alignment_heads = [[network.config.decoder_layers - 1, head] for head in range(heads)]
    spec.validate()
    spec.optimize(quantization="float16")
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    shutil.copy(base / "tokenizer.json", folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": network.config.num_mel_bins}))
