"""Chatterbox's real code, loaded from a folder and used as the service uses it, on the CPU, with weights that this test makes.

The weights are random, and the language model is smaller than the real one: what it says is noise. Everything else is as it will be: the
files' names and formats, how they are loaded, how a reference becomes a voice, tokens become sound, and what the package does on the way.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from chatterbox_service.app import create_app
from chatterbox_service.errors import ModelFailed, NoSpeech, OutOfMemory
from chatterbox_service.model import Chatterbox, Manner, Stopped, load
from chatterbox_service.references import References
from chatterbox_service.settings import Settings
from fastapi.testclient import TestClient

TOKENS = 12  # of speech that a piece may have here: half a second
TOKEN = 960  # samples that one gives: 25 a second at 24 kHz
MANNER = Manner(exaggeration=0.5, cfg_weight=0.4, temperature=0.8)
SMALL = {"intermediate_size": 128, "num_hidden_layers": 14}  # 14 layers: the package watches the thirteenth and fourteenth
LANGUAGES = ("en", "ru", "es", "zh")


def never() -> bool:
    return False


def recording(pitch: float = 150.0, seconds: float = 3.1) -> bytes:
    """A hum that changes as it goes."""
    time = np.arange(round(seconds * 24_000)) / 24_000
    hum = sum(np.sin(2 * np.pi * pitch * n * time + 3 * np.sin(time * n)) / n for n in range(1, 6))
    file = io.BytesIO()
    soundfile.write(file, (0.1 * hum).astype(np.float32), 24_000, format="WAV", subtype="FLOAT")
    return file.getvalue()


def write_tokenizer(path: Path) -> None:
    """Letters, one token each."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    special = ["[STOP]", "[UNK]", "[SPACE]", "[START]", *(f"[{code}]" for code in LANGUAGES), "[cj_h]", "[cj_q]", "[cj_.]"]
    letters = [chr(code) for code in (*range(33, 127), *range(0x430, 0x450))]
    tokenizer = Tokenizer(BPE({token: number for number, token in enumerate(special + letters)}, [], unk_token="[UNK]"))
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(path))


def write_weights(folder: Path, language_model: Mapping[str, int]) -> None:
    """A folder as the hub's: every file that `from_local` reads, and the two that it may lack.

    Args:
        language_model: what differs from the real one.
    """
    from chatterbox.models.s3gen import S3Gen
    from chatterbox.models.t3 import T3
    from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS
    from chatterbox.models.t3.modules.t3_config import T3Config
    from chatterbox.models.voice_encoder import VoiceEncoder
    from chatterbox.mtl_tts import ChatterboxMultilingualTTS
    from safetensors.torch import save_file

    LLAMA_CONFIGS["Llama_520M"] |= language_model
    torch.manual_seed(1)
    write_tokenizer(folder / "grapheme_mtl_merged_expanded_v1.json")
    save_file(T3(T3Config.multilingual()).state_dict(), folder / "t3_mtl23ls_v2.safetensors")
    torch.save(VoiceEncoder().state_dict(), folder / "ve.pt")
    torch.save(S3Gen().state_dict(), folder / "s3gen.pt")
    (folder / "Cangjie5_TC.json").write_text(json.dumps(["明\thq", "日\th", "曰\th"]), "utf-8")
    tts = ChatterboxMultilingualTTS.from_local(folder, "cpu")
    with torch.inference_mode():
        tts.prepare_conditionals(io.BytesIO(recording(pitch=90.0)))
    tts.conds.save(folder / "conds.pt")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder, SMALL)
    return folder


@pytest.fixture(scope="session")
def model(weights: Path) -> Chatterbox:
    """Loaded as the service does it. Then its decoder, which takes most of the time, is told to take one step instead of ten."""
    loaded = load(Settings(weights=weights, device="auto" if torch.cuda.is_available() else "cpu", max_speech_tokens=TOKENS))
    assert isinstance(loaded, Chatterbox)
    decoder = loaded._tts.s3gen
    decode = decoder.flow_inference
    decoder.flow_inference = lambda *tokens, **more: decode(*tokens, **(more | {"n_cfm_timesteps": 1}))
    return loaded


@pytest.fixture(scope="session")
def hello(model: Chatterbox) -> np.ndarray:
    """What it says first."""
    return speak(model)


def speak(model: Chatterbox, text: str = "Hello.", language: str = "en", seed: int = 1, **more: Any) -> np.ndarray:
    return model.speak(text, language, more.get("conditionals"), more.get("manner", MANNER), seed, more.get("stop", never)).samples


def spies(model: Chatterbox) -> int:
    """What hangs on the attention layers."""
    return sum(len(layer.self_attn._forward_hooks) for layer in model._tts.t3.tfmr.layers)


def test_it_says_what_it_is(model: Chatterbox, weights: Path) -> None:
    assert model.sample_rate == 24_000 and model.has_own_voice and model.longest == TOKENS / 25
    fingerprint = json.loads(json.dumps(model.fingerprint()))
    assert fingerprint["packages"]["chatterbox-tts"] == "0.1.7" and len(fingerprint["weights"]) == 64
    assert str(weights) not in json.dumps(fingerprint)


def test_it_speaks_the_languages_that_it_can_spell(model: Chatterbox) -> None:
    languages = model.languages()
    assert len(languages) == 23 and {"en", "ru", "es", "zh"} <= set(languages)
    assert languages["ru"].note == "stress is guessed: russian_text_stresser is not installed" and languages["en"].note is None
    converter = model._tts.tokenizer.cangjie_converter
    assert converter("明") == "[cj_h][cj_q][cj_.]" and converter("曰") == "[cj_h][cj_1][cj_.]"
    known, converter.word2cj = converter.word2cj, {}
    assert "zh" not in model.languages(), "without the table no character is known to it"
    converter.word2cj = known


def test_the_same_seed_gives_the_same_samples_another_does_not(model: Chatterbox, hello: np.ndarray) -> None:
    assert hello.dtype == np.float32 and np.isfinite(hello).all() and 0 < len(hello) <= TOKENS * TOKEN
    assert not np.array_equal(speak(model, seed=2)[:1000], hello[:1000])
    assert np.array_equal(speak(model, seed=1), hello), "whatever was drawn before"


def test_a_clip_that_was_cut_off_is_known_from_one_that_came_to_its_end(model: Chatterbox, monkeypatch: pytest.MonkeyPatch) -> None:
    from chatterbox.models.t3.inference.alignment_stream_analyzer import AlignmentStreamAnalyzer as Spy

    def go_on(self: Any, logits: Any, next_token: Any = None) -> Any:
        logits[..., self.eos_idx] = -(2.0**15)
        return logits

    def end(self: Any, logits: Any, next_token: Any = None) -> Any:
        self.steps = getattr(self, "steps", 0) + 1
        return logits if self.steps < 6 else torch.full_like(logits, -(2.0**15)).index_fill_(-1, torch.tensor([self.eos_idx]), 2.0**15)

    monkeypatch.setattr(Spy, "step", go_on)
    assert not model.speak("Hello.", "en", None, MANNER, 1, never).complete
    monkeypatch.setattr(Spy, "step", end)
    ended = model.speak("Hello.", "en", None, MANNER, 1, never)
    assert ended.complete and len(ended.samples) <= 5 * TOKEN


def test_tokens_that_are_no_sounds_are_left_out(model: Chatterbox, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = model._tts.t3.hp.stop_speech_token
    monkeypatch.setattr(model, "_sample", lambda **arguments: torch.tensor([[5, 8000, 6561, 7, 9, 11, 13, 6563, stop]]))
    clip = model.speak("Hello.", "en", None, MANNER, 1, never)
    # The package gives half a token's sound less where the recording behind the voice is no whole number of tokens long.
    assert clip.complete and len(clip.samples) in (5 * TOKEN, 5 * TOKEN - TOKEN // 2)
    monkeypatch.setattr(model, "_sample", lambda **arguments: torch.tensor([[stop]]))
    with pytest.raises(NoSpeech):
        speak(model)


def test_a_reference_gives_a_voice_that_can_be_used_again(model: Chatterbox, hello: np.ndarray) -> None:
    references = References(4, 2**24)
    low, high = (model.conditionals(references.add(recording(pitch=pitch)), 0.5) for pitch in (100.0, 250.0))
    first = speak(model, conditionals=low)
    other = speak(model, conditionals=high)
    assert not np.array_equal(first, other) and not np.array_equal(first, hello)
    assert np.array_equal(speak(model, conditionals=low), first), "another voice between leaves nothing behind"
    assert not low.t3.speaker_emb.requires_grad and low.t3.cond_prompt_speech_emb is None, "nothing is written into what is kept"


def test_it_stops_when_nobody_listens_and_speaks_on_for_the_next(model: Chatterbox, hello: np.ndarray) -> None:
    asked = 0

    def gone() -> bool:
        nonlocal asked
        asked += 1
        return asked > 4

    with pytest.raises(Stopped):
        speak(model, stop=gone)
    assert asked == 5, "between two tokens"
    assert np.array_equal(speak(model), hello)


def test_nothing_of_a_generation_stays_behind(model: Chatterbox, hello: np.ndarray) -> None:
    before = spies(model)
    speak(model)
    assert spies(model) == before
    assert model._tts.conds is model._own_conditionals


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of 79.18 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
    ids=["torch", "cuBLAS", "the driver", "cuDNN"],
)
def test_memory_that_ran_out_is_no_broken_gpu(model: Chatterbox, error: Exception) -> None:
    with pytest.raises(OutOfMemory), model._failures_named():
        raise error
    with pytest.raises(ModelFailed), model._failures_named():
        raise RuntimeError("CUDA error: device-side assert triggered")


def test_a_gpu_without_memory_refuses_and_speaks_when_it_has_some(model: Chatterbox, hello: np.ndarray) -> None:
    if model.device != "cuda":
        pytest.skip("torch finds no GPU here")
    taken = []
    torch.cuda.empty_cache()
    piece = torch.cuda.mem_get_info()[0]
    while piece >= 2**20:
        try:
            taken.append(torch.empty(piece, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            piece //= 2
    with pytest.raises(OutOfMemory):
        speak(model)
    del taken
    torch.cuda.empty_cache()
    assert np.array_equal(speak(model), hello)


def test_the_service_speaks_with_it(model: Chatterbox) -> None:
    file = recording()
    name = hashlib.sha256(file).hexdigest()
    with TestClient(create_app(Settings(), lambda: model)) as client:
        while (health := client.get("/health").json())["status"] == "loading":
            pass
        assert health["status"] == "healthy" and health["device"] == model.device, health
        assert client.put(f"/api/references/{name}", content=file).status_code == 201
        asked = {"text": "Hello there.", "language": "ru", "reference": name, "seed": 3, "exaggeration": 0.4}
        answer = client.post("/api/tts/generate", json=asked)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        samples, sample_rate = soundfile.read(io.BytesIO(base64.b64decode(body["audio_base64"])))
        assert sample_rate == 24_000 and len(samples) / 24_000 == pytest.approx(body["duration_seconds"], abs=0.001)
        del asked["reference"]
        sent = client.post(
            "/api/tts/generate-file", data={key: str(value) for key, value in asked.items()}, files={"reference_audio": file}
        )
        assert np.array_equal(soundfile.read(io.BytesIO(sent.content))[0], samples)
        assert 'chatterbox_voices_total{known="true"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize("missing", ["ve.pt", "grapheme_mtl_merged_expanded_v1.json"])
def test_a_missing_file_is_named(weights: Path, tmp_path: Path, missing: str) -> None:
    for path in weights.iterdir():
        if path.name != missing:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(ModelFailed, match=f"no {missing} in"):
        load(Settings(weights=tmp_path, device="cpu"))


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(weights: Path, device: str) -> None:
    if (torch.cuda if device == "cuda" else torch.backends.mps).is_available():
        pytest.skip(f"this machine has {device}")
    with pytest.raises(ModelFailed, match=f"device {device}: there is none"):
        load(Settings(weights=weights, device=device))
