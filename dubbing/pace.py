"""How fast a language is spoken, and by which voice: characters a second of natural speech. By it a line's room in time becomes a length.

Measured with Kokoro's default voices at natural speed on Article 1 of the Universal Declaration of Human Rights, its pauses included.
Languages that no voice here speaks are given by the same text's length against English: languages differ much in syllables a second and
little in what they tell a second (Coupé, Oh, Dediu and Pellegrino 2019, Science Advances 5(9)).
"""

from __future__ import annotations

from dubbing.languages import UNSPACED, base_language

MEASURED = {"en": 16.4, "es": 17.0, "fr": 19.0, "hi": 13.0, "it": 16.4, "ja": 5.5, "pt": 16.6, "zh": 5.2}
LENGTHS = {"ar": 0.66, "de": 0.96, "ko": 0.51, "nl": 1.10, "pl": 1.0, "ru": 0.94, "sv": 0.94, "tr": 0.94, "uk": 0.96}  # against English
# fmt: off
# Kokoro's voices against the first of their language (tests/benchmarks/pace.py); who is missing is as fast.
VOICES = {
    "am_michael": 0.88, "af_alloy": 1.13, "af_bella": 0.96, "af_jessica": 1.14, "af_kore": 0.97, "af_nicole": 0.6, "af_nova": 1.14,
    "af_river": 1.19, "af_sarah": 1.02, "af_sky": 1.05, "am_adam": 1.04, "am_echo": 1.12, "am_eric": 1.18, "am_fenrir": 0.97,
    "am_liam": 1.13, "am_onyx": 1.13, "am_puck": 1.02, "am_santa": 0.96, "bf_alice": 1.05, "bf_emma": 1.08, "bf_isabella": 1.08,
    "bf_lily": 1.04, "bm_daniel": 1.13, "bm_fable": 1.11, "bm_george": 0.93, "bm_lewis": 0.94,
    "em_santa": 0.99,
    "hm_omega": 0.96, "hf_beta": 1.14, "hm_psi": 0.96,
    "im_nicola": 0.87,
    "pm_alex": 1.01, "pm_santa": 0.99,
    "jm_kumo": 0.93, "jf_gongitsune": 0.86, "jf_nezumi": 0.82, "jf_tebukuro": 0.85,
    "zm_yunjian": 1.27, "zf_xiaoni": 1.23, "zf_xiaoxiao": 1.21, "zf_xiaoyi": 1.24, "zm_yunxi": 1.31, "zm_yunxia": 1.15,
    "zm_yunyang": 1.34,
}
# fmt: on
USUAL = 15.5  # of alphabets
USUAL_UNSPACED = 5.0  # of scripts without spaces, about as Japanese and Chinese


def natural_pace(language: str, voice: str = "") -> float:
    """Characters a second, spaces and punctuation counted.

    >>> natural_pace("en-GB"), round(natural_pace("de"), 1), round(natural_pace("en", "am_michael"), 1)
    (16.4, 15.7, 14.4)
    """
    return _usual_pace(base_language(language)) * VOICES.get(voice, 1.0)


def _usual_pace(base: str) -> float:
    if base in MEASURED:
        return MEASURED[base]
    if base in LENGTHS:
        return LENGTHS[base] * MEASURED["en"]
    return USUAL_UNSPACED if base in UNSPACED else USUAL
