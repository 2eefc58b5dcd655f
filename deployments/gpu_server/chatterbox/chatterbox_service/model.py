"""The speech model: a small interface, and Chatterbox behind it. torch and the model's package are imported here only, on loading."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from chatterbox_service.errors import BadReference, ModelFailed, NoSpeech, OutOfMemory
from chatterbox_service.references import Reference
from chatterbox_service.settings import Settings

REPOSITORY = "ResembleAI/chatterbox"
WEIGHTS = ("ve.pt", "t3_mtl23ls_v2.safetensors", "s3gen.pt", "grapheme_mtl_merged_expanded_v1.json")
EXTRAS = ("conds.pt", "Cangjie5_TC.json")  # the model's own voice; how Chinese is spelt for it
TOKENS_PER_SECOND = 25  # of speech
# What CUDA's driver, cuBLAS and cuDNN say through torch, which has no class for it: nothing is broken, the next request may find room.
_OUT_OF_MEMORY = ("out of memory", "alloc_failed")
_SOUNDS = 6561  # speech tokens below this are sounds; of the others the vocoder knows nothing

_HELPERS = {  # packages that put into text what the model has to read there
    "ja": ("pykakasi", "kanji are not read"),
    "he": ("dicta_onnx", "vowels are guessed"),
    "ru": ("russian_text_stresser", "stress is guessed"),
}


class Manner(NamedTuple):
    """How it is said."""

    exaggeration: float
    cfg_weight: float
    temperature: float


class Clip(NamedTuple):
    samples: np.ndarray  # mono, float32
    complete: bool  # False: the model was cut off at its limit


class Language(NamedTuple):
    name: str
    note: str | None = None  # what it lacks here


class Stopped(Exception):
    """Nobody wants the speech any more."""


class SpeechModel(ABC):
    """What the service needs of a model. It is used by one thread only.

    To use another model: implement this, and give its loader to `create_app`.
    """

    device: str
    sample_rate: int
    longest: float  # seconds of speech that it gives at once
    has_own_voice: bool  # whether it speaks without a reference

    @abstractmethod
    def languages(self) -> Mapping[str, Language]:
        """Those that it speaks, by code."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """All that shapes its speech but the request, as plain JSON: results may be kept as long as it stays the same."""

    @abstractmethod
    def conditionals(self, reference: Reference, exaggeration: float) -> Any:
        """What it needs to know of a voice. Costly, and worth keeping."""

    @abstractmethod
    def speak(self, text: str, language: str, conditionals: Any | None, manner: Manner, seed: int, stop: Callable[[], bool]) -> Clip:
        """Speak one piece of text, in its own voice where no conditionals are given. Same arguments, same samples.

        Args:
            stop: asked again and again while it speaks.

        Raises:
            Stopped: `stop` said so.
            NoSpeech, OutOfMemory, ModelFailed
        """

    @abstractmethod
    def memory_used(self) -> float:
        """GB of its device's memory that it holds; 0 where it shares the machine's."""


class Chatterbox(SpeechModel):
    """Chatterbox multilingual."""

    def __init__(self, tts: Any, device: str, folder: Path, max_speech_tokens: int) -> None:
        import torch

        self._torch, self._tts = torch, tts
        self.device, self.sample_rate, self.longest = device, int(tts.sr), max_speech_tokens / TOKENS_PER_SECOND
        self._max_speech_tokens = max_speech_tokens
        self._own_conditionals = tts.conds
        self.has_own_voice = tts.conds is not None
        self._stop: Callable[[], bool] = lambda: False
        self._complete = True
        self._spell_chinese(folder)
        self._weights = _digest([folder / name for name in (*WEIGHTS, *EXTRAS) if (folder / name).exists()])
        # The package returns sound only. Whether it was cut off is seen where the tokens are made, and there it can be stopped.
        self._sample, tts.t3.inference = tts.t3.inference, self._watched_sample
        tts.t3.tfmr.register_forward_pre_hook(self._stop_if_asked)

    def languages(self) -> Mapping[str, Language]:
        found = {}
        for code, name in sorted(self._tts.get_supported_languages().items()):
            package, lack = _HELPERS.get(code, (None, None))
            helped = package is None or importlib.util.find_spec(package) is not None
            found[code] = Language(name, None if helped else f"{lack}: {package} is not installed")
        if not self._tts.tokenizer.cangjie_converter.word2cj:
            del found["zh"]  # without the table every character is unknown to it
        return found

    def fingerprint(self) -> dict[str, Any]:
        return {
            "model": "chatterbox-multilingual",
            "weights": self._weights,
            "packages": {name: version(name) for name in ("chatterbox-tts", "torch", "transformers", "s3tokenizer", "librosa")},
            "device": self.device,
            "max_speech_tokens": self._max_speech_tokens,
        }

    def conditionals(self, reference: Reference, exaggeration: float) -> Any:
        file = io.BytesIO()
        soundfile.write(file, reference.samples, self.sample_rate, format="WAV", subtype="FLOAT")
        file.seek(0)
        with self._failures_named(), self._torch.inference_mode():  # without it every voice would keep its whole computation in memory
            try:
                self._tts.prepare_conditionals(file, exaggeration=exaggeration)
                return self._tts.conds
            finally:
                self._tts.conds = self._own_conditionals

    def speak(self, text: str, language: str, conditionals: Any | None, manner: Manner, seed: int, stop: Callable[[], bool]) -> Clip:
        voice = conditionals or self._own_conditionals
        if voice is None:
            raise BadReference("these weights have no voice of their own: please send a reference")
        # A copy: the package writes into what it is given.
        self._tts.conds = type(voice)(replace(voice.t3), dict(voice.gen))
        self._stop = stop
        try:
            with self._failures_named(), self._torch.inference_mode():
                self._torch.manual_seed(seed)
                sound = self._tts.generate(
                    text,
                    language_id=language,
                    exaggeration=manner.exaggeration,
                    cfg_weight=manner.cfg_weight,
                    temperature=manner.temperature,
                )
        finally:
            self._tts.conds = self._own_conditionals
            self._stop = lambda: False
            self._remove_spies()
        samples = np.asarray(sound.cpu().numpy(), dtype=np.float32).reshape(-1)
        if not len(samples) or not np.isfinite(samples).all():
            raise NoSpeech("the model gave no sound for this text; another seed may")
        return Clip(samples, self._complete)

    def memory_used(self) -> float:
        if self.device == "cuda":
            return float(self._torch.cuda.memory_reserved()) / 2**30
        if self.device == "mps":
            return float(self._torch.mps.driver_allocated_memory()) / 2**30
        return 0.0

    def _watched_sample(self, **arguments: Any) -> Any:
        """The package's own sampling of speech tokens, [1, n]; ends at our limit, and says whether it came to an end by itself."""
        arguments["max_new_tokens"] = min(arguments.get("max_new_tokens") or self._max_speech_tokens, self._max_speech_tokens)
        tokens = self._sample(**arguments)[0]
        self._complete = bool((tokens == self._tts.t3.hp.stop_speech_token).any())
        sounds = tokens[tokens < _SOUNDS]  # any other would be looked up beyond a table's end, which on a GPU ends the process's use of it
        if not len(sounds):
            raise NoSpeech("the model gave no sound for this text; another seed may")
        return sounds.unsqueeze(0)

    def _stop_if_asked(self, module: Any, arguments: Any) -> None:
        if self._stop():
            raise Stopped

    def _remove_spies(self) -> None:
        """Take away what the package hangs on the attention layers at each generation and leaves there: it would slow each next one and
        keep its memory."""
        for layer in self._tts.t3.tfmr.layers:
            hooks = layer.self_attn._forward_hooks
            for key in [key for key, hook in hooks.items() if "AlignmentStreamAnalyzer" in getattr(hook, "__qualname__", "")]:
                del hooks[key]

    def _spell_chinese(self, folder: Path) -> None:
        """Read the table beside the weights: the package asks the hub for it, even where it is here."""
        converter, table = self._tts.tokenizer.cangjie_converter, folder / "Cangjie5_TC.json"
        if converter.word2cj or not table.exists():
            return
        for entry in json.loads(table.read_text("utf-8")):
            character, code = entry.split("\t")[:2]
            converter.word2cj[character] = code
            converter.cj2word.setdefault(code, []).append(character)

    def _failures_named(self) -> _FailuresNamed:
        return _FailuresNamed(self._torch)


class _FailuresNamed:
    """Turns torch's failures into the service's."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, self._torch.OutOfMemoryError) or (
            isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)
        ):
            self._torch.cuda.empty_cache()
            raise OutOfMemory("the GPU's memory is full", retry_after=10) from error
        if isinstance(error, RuntimeError) and ("CUDA error" in str(error) or "device-side assert" in str(error)):
            raise ModelFailed(f"the GPU failed: {str(error).splitlines()[0]}") from error


def load(settings: Settings) -> SpeechModel:
    """The model, ready to speak.

    Raises:
        ModelFailed: what it needs is not here.
    """
    # Read when the packages are imported: nothing is reported home, no progress bars in the log, nothing fetched for weights that are here.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    if settings.weights is not None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        if missing := [name for name in WEIGHTS if not (settings.weights / name).is_file()]:
            raise ModelFailed(f"weights: no {', '.join(missing)} in {settings.weights}")

    import torch
    from chatterbox.mtl_tts import ChatterboxMultilingualTTS
    from huggingface_hub import snapshot_download

    device = _device(settings.device, torch)
    folder = settings.weights or Path(snapshot_download(REPOSITORY, revision=settings.revision, allow_patterns=[*WEIGHTS, *EXTRAS]))
    torch.backends.cudnn.deterministic = True  # same seed, same samples
    _forget_a_word_cutter_that_cannot_be_made()
    return Chatterbox(ChatterboxMultilingualTTS.from_local(folder, device), device, folder, settings.max_speech_tokens)


def _device(wanted: str, torch: Any) -> str:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, usable in there.items() if usable)
    if not there[wanted]:
        raise ModelFailed(f"device {wanted}: there is none, or torch can't use it")
    return wanted


def _forget_a_word_cutter_that_cannot_be_made() -> None:
    """spacy-pkuseg fetches its weights when it is first made. Where it can't, the package would not load at all; without it, it does."""
    try:
        from spacy_pkuseg import pkuseg

        pkuseg()
    except Exception:  # whatever a download fails with
        sys.modules["spacy_pkuseg"] = None  # type: ignore[assignment]  # the next import of it fails as if it weren't installed


def _digest(files: list[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
