"""The median pitch of a voice: right to a semitone or not told at all."""

from __future__ import annotations

import numpy as np
import pytest

from dubbing.pitch import median_pitch

RATE = 16_000
SEMITONE = 2 ** (1 / 12)


def voice(pitch: float, *, seconds: float = 6.0, noise: float = 0.0, rate: int = RATE, loudness: float = 0.3) -> np.ndarray:
    """Something like vowels: a buzz whose pitch moves a little, under a formant, in syllables of a fifth of a second."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.04 * np.sin(2 * np.pi * 0.7 * time))) / rate
    buzz = sum(np.sin(k * phase) / (1 + ((k * pitch - 500) / 400) ** 2) for k in range(1, int(4000 / pitch)))
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * time) * 3, 0, 1)
    sound = buzz * syllables
    sound = loudness * sound / np.abs(sound).max()
    return (sound + noise * np.random.default_rng(1).standard_normal(len(time))).astype(np.float32)


@pytest.mark.parametrize("rate", [16_000, 48_000])
@pytest.mark.parametrize("noise", [0.0, 0.005, 0.03])
@pytest.mark.parametrize("pitch", [85.0, 110.0, 165.0, 210.0, 250.0])
def test_a_voice_is_told_to_a_semitone_in_a_quiet_room_and_a_noisy_one(pitch: float, noise: float, rate: int) -> None:
    found = median_pitch([voice(pitch, noise=noise, rate=rate)], rate)
    assert found is not None
    assert 1 / SEMITONE < found / pitch < SEMITONE


def test_how_loud_the_voice_is_does_not_matter() -> None:
    loud, soft = (median_pitch([voice(110.0, loudness=loudness)], RATE) for loudness in (0.9, 0.01))
    assert loud == pytest.approx(soft, rel=0.01)


def test_a_constant_offset_is_not_a_pitch() -> None:
    assert median_pitch([voice(210.0) + np.float32(0.2)], RATE) == pytest.approx(210.0, rel=0.06)


def test_chunks_are_taken_together() -> None:
    sound = voice(110.0, seconds=8.0)
    assert median_pitch(np.split(sound, 4), RATE) == pytest.approx(110.0, rel=0.06)


def test_of_two_voices_the_one_that_speaks_more_is_told() -> None:
    assert median_pitch([voice(110.0, seconds=12.0), voice(210.0, seconds=3.0)], RATE) == pytest.approx(110.0, rel=0.06)


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [np.zeros(0, np.float32)],
        [np.zeros(RATE * 5, np.float32)],
        [np.full(RATE * 5, 0.5, np.float32)],
        [(0.1 * np.random.default_rng(2).standard_normal(RATE * 5)).astype(np.float32)],
        [voice(110.0, seconds=0.5)],
        [voice(110.0)[:10]],
    ],
    ids=["nothing", "empty", "silence", "an offset", "noise", "too short", "ten samples"],
)
def test_without_a_voice_nothing_is_told(chunks: list[np.ndarray]) -> None:
    assert median_pitch(chunks, RATE) is None
