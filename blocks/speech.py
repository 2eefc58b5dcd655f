"""Voices: the engines that speak. What they have in common, and how to add one, is in `blocks.speech_engine`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field, PrivateAttr

from blocks.chatterbox import Chatterbox
from blocks.engine import LocalEngine
from blocks.speech_chain import SpeechChain
from blocks.speech_engine import LOW_VOICE, Speech, SpeechEngine
from dubbing import weights
from dubbing.errors import EngineRefused
from dubbing.languages import base_language, name_of
from dubbing.processors import usable_processors

__all__ = ["KOKORO_VOICES", "LOW_VOICE", "SPEECH_ENGINES", "Chatterbox", "Kokoro", "Speech", "SpeechChain", "SpeechEngine"]


class _KokoroLanguage(NamedTuple):
    prefix: str  # of the voices' names
    phonemes: str  # who turns text into phonemes: a voice of eSpeak NG, or "misaki" for the scripts it doesn't read well
    best: tuple[str, ...]  # female, male: graded best in the model's own list of voices


class Kokoro(SpeechEngine, LocalEngine):
    """Kokoro-82M on ONNX Runtime: 54 voices in eight languages. It does not clone."""

    _block_type_name = "Coursedub Kokoro"
    _block_type_slug = "coursedub-kokoro"
    engine_name: ClassVar[str] = "kokoro"
    packages: ClassVar[tuple[str, ...]] = (
        *("kokoro-onnx", "onnxruntime", "espeakng-loader", "phonemizer"),
        *("misaki", "pyopenjtalk-plus", "jieba", "pypinyin", "cn2an"),  # these read Japanese and Chinese
    )
    settings_without_effect: ClassVar[frozenset[str]] = frozenset({"threads", "keep_loaded_for"})

    _LANGUAGES: ClassVar[Mapping[str, _KokoroLanguage]] = {
        "en": _KokoroLanguage("a", "en-us", ("af_heart", "am_michael")),
        "en-US": _KokoroLanguage("a", "en-us", ("af_heart", "am_michael")),
        "en-GB": _KokoroLanguage("b", "en-gb", ("bf_emma", "bm_george")),
        "es": _KokoroLanguage("e", "es", ("ef_dora", "em_alex")),
        "fr": _KokoroLanguage("f", "fr-fr", ("ff_siwis",)),
        "hi": _KokoroLanguage("h", "hi", ("hf_alpha", "hm_omega")),
        "it": _KokoroLanguage("i", "it", ("if_sara", "im_nicola")),
        "pt": _KokoroLanguage("p", "pt-br", ("pf_dora", "pm_alex")),
        "pt-BR": _KokoroLanguage("p", "pt-br", ("pf_dora", "pm_alex")),
        "ja": _KokoroLanguage("j", "misaki", ("jf_alpha", "jm_kumo")),
        "zh": _KokoroLanguage("z", "misaki", ("zf_xiaobei", "zm_yunjian")),
    }

    speed: float = Field(default=1.0, ge=0.5, le=2.0, description="Of the voice itself; fitting to the picture comes on top.")
    threads: int = Field(default=0, ge=0, description="0: all processors this process may use.")

    _readers: dict[str, Any] = PrivateAttr(default_factory=dict)

    def weights_names(self) -> tuple[str, ...]:
        return ("kokoro-82m-int8", "kokoro-voices")

    def close(self) -> None:
        super().close()
        self._readers.clear()

    def languages(self) -> list[str]:
        return list(self._LANGUAGES)

    def _language(self, tag: str) -> _KokoroLanguage | None:
        exact = {known.lower(): language for known, language in self._LANGUAGES.items()}
        return exact.get(tag.lower()) or exact.get(base_language(tag))

    def voices(self, language: str) -> list[str]:
        spoken = self._language(language)
        if spoken is None:
            return []
        # English voices of the other side of the ocean can be asked for too.
        prefixes = ("a", "b") if base_language(language) == "en" else (spoken.prefix,)
        others = [name for name in KOKORO_VOICES if name[0] in prefixes and name not in spoken.best]
        return [*spoken.best, *others]

    def suited(self, language: str, pitch: float | None) -> list[str]:
        voices = self.voices(language)
        if pitch is None:
            return voices
        register = "m" if pitch < LOW_VOICE else "f"  # the second letter of a voice's name
        return sorted(voices, key=lambda name: name[1] != register)  # a stable order: the best of the register stays first

    def synthesize(self, text: str, language: str, voice: str, seed: int) -> Speech:
        spoken = self._language(language)
        assert spoken is not None
        if not any(c.isalnum() for c in text):
            raise EngineRefused(f"kokoro: nothing to say in {text!r}")
        if spoken.phonemes == "misaki":
            text, phonemes = self._read(text, base_language(language)), True
        else:
            phonemes = False
        # An English voice keeps its own accent whatever the tag says.
        accent = {"a": "en-us", "b": "en-gb"}.get(voice[0], spoken.phonemes if not phonemes else "en-us")
        try:
            with self._model() as model:
                samples, sample_rate = model.create(text, voice=voice, speed=self.speed, lang=accent, is_phonemes=phonemes, trim=True)
        except ValueError as error:  # letters of a script that has no sounds in this language
            raise EngineRefused(f"kokoro can't say {text!r} in {name_of(language)}: {error}") from error
        return Speech(np.asarray(samples, dtype=np.float32).reshape(-1), int(sample_rate))

    def pace(self, language: str, voice: str) -> float:
        return super().pace(language, voice) * self.speed

    def _model(self) -> AbstractContextManager[Any]:
        size = sum(weights.find(name).size for name in self.weights_names())
        return self.loaded(self._load, of=("threads",), device="cpu", size=size)

    def _load(self) -> Any:
        import kokoro_onnx
        import onnxruntime

        logging.getLogger("phonemizer").setLevel(logging.ERROR)  # it warns of every clitic that is said with its neighbour

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or usable_processors()
        options.inter_op_num_threads = 1
        [file] = weights.folder_of("kokoro-82m-int8").glob("*.onnx")
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        return kokoro_onnx.Kokoro.from_session(session, str(weights.folder_of("kokoro-voices") / "voices.npz"))

    def _read(self, text: str, language: str) -> str:
        """Phonemes of Japanese or Chinese."""
        if language not in self._readers:
            if language == "ja":
                from misaki.ja import JAG2P

                self._readers[language] = JAG2P(version="pyopenjtalk")
            else:
                from misaki.zh import ZHG2P

                self._readers[language] = ZHG2P()
        return str(self._readers[language](text)[0])


KOKORO_VOICES = tuple(
    [
        "af_alloy",
        "af_aoede",
        "af_bella",
        "af_heart",
        "af_jessica",
        "af_kore",
        "af_nicole",
        "af_nova",
        "af_river",
        "af_sarah",
        "af_sky",
        "am_adam",
        "am_echo",
        "am_eric",
        "am_fenrir",
        "am_liam",
        "am_michael",
        "am_onyx",
        "am_puck",
        "am_santa",
        "bf_alice",
        "bf_emma",
        "bf_isabella",
        "bf_lily",
        "bm_daniel",
        "bm_fable",
        "bm_george",
        "bm_lewis",
        "ef_dora",
        "em_alex",
        "em_santa",
        "ff_siwis",
        "hf_alpha",
        "hf_beta",
        "hm_omega",
        "hm_psi",
        "if_sara",
        "im_nicola",
        "jf_alpha",
        "jf_gongitsune",
        "jf_nezumi",
        "jf_tebukuro",
        "jm_kumo",
        "pf_dora",
        "pm_alex",
        "pm_santa",
        "zf_xiaobei",
        "zf_xiaoni",
        "zf_xiaoxiao",
        "zf_xiaoyi",
        "zm_yunjian",
        "zm_yunxi",
        "zm_yunxia",
        "zm_yunyang",
    ]
)

SPEECH_ENGINES: dict[str, type[SpeechEngine]] = {engine.engine_name: engine for engine in (Kokoro, Chatterbox, SpeechChain)}
