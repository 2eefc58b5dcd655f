"""What is found wrong with a clip by its samples alone."""

from __future__ import annotations

import numpy as np
import pytest

from blocks.speech_engine import BROKEN, SILENT, doubts_of

RATE = 24_000
TEXT = "This is a sentence of some length, which is said in a lesson."
TIME = np.arange(4 * RATE) / RATE


def voiced(level: float) -> np.ndarray:
    """Harmonics of 120 Hz in syllables, about as speech has them."""
    sound = sum(np.sin(2 * np.pi * 120 * n * TIME + n * n) / n for n in range(1, 30)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * TIME))
    return (level * sound / np.abs(sound).max()).astype(np.float32)


def spoilt(at: float) -> np.ndarray:
    samples = voiced(0.5)
    samples[1000] = at
    return samples


@pytest.mark.parametrize("level", [0.05, 0.5, 0.95])
def test_nothing_is_wrong_with_speech(level: float) -> None:
    assert doubts_of(TEXT, voiced(level), RATE) == ()


@pytest.mark.parametrize("sample", [np.nan, np.inf, -np.inf], ids=["NaN", "inf", "-inf"])
def test_samples_that_are_no_numbers_are_no_speech(sample: float) -> None:
    assert doubts_of(TEXT, spoilt(sample), RATE) == (BROKEN,)


@pytest.mark.parametrize("level", [0.0, 0.5, -1.0])
def test_what_does_not_vary_is_silent(level: float) -> None:
    samples = np.full(4 * RATE, level, dtype=np.float32)
    samples[::2] += 0.001
    assert doubts_of(TEXT, samples, RATE) == (SILENT,)


def test_nothing_at_all_is_silent() -> None:
    assert doubts_of(TEXT, np.zeros(0, dtype=np.float32), RATE) == (SILENT,)


def test_white_noise_is_doubted() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * RATE).astype(np.float32)
    assert doubts_of(TEXT, noise, RATE) == ("it is noise",)


@pytest.mark.parametrize("top", [1.0, 0.85, 0.75])
def test_a_flat_top_is_doubted_though_it_was_turned_down(top: float) -> None:
    [doubt] = doubts_of(TEXT, np.clip(voiced(1.5), -1, 1) * top, RATE)
    assert doubt.endswith("of the samples are clipped")
