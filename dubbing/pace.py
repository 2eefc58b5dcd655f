"""How fast a language is spoken, and by which voice: characters a second of natural speech. By it a line's room in time becomes a length.

Measured with Kokoro's default voices at natural speed on Article 1 of the Universal Declaration of Human Rights, its pauses included.
Languages that no voice here speaks are given by the same text's length against English: languages differ much in syllables a second and
little in what they tell a second (Coupé, Oh, Dediu and Pellegrino 2019, Science Advances 5(9)).
"""

from __future__ import annotations

from dubbing.languages import UNSPACED, base_language

MEASURED = {"en": 16.4, "es": 17.0, "fr": 19.0, "hi": 13.0, "it": 16.4, "ja": 5.5, "pt": 16.6, "zh": 5.2}
LENGTHS = {"ar": 0.66, "de": 0.96, "ko": 0.51, "nl": 1.10, "pl": 1.0, "ru": 0.94, "sv": 0.94, "tr": 0.94, "uk": 0.96}  # against English
# Kokoro's voices against the first of their language (tests/benchmarks/pace.py).
VOICES: dict[str, float] = {}
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
