"""The lecturer's pitch, to choose a voice of the same register."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

LOWEST, HIGHEST = 60.0, 400.0  # Hz of a speaking voice
_FRAME = 0.06  # seconds: at least three periods of the lowest pitch
_PERIODICITY = 0.6  # normalised autocorrelation above which a frame is voiced (Boersma 1993 uses 0.45 on windowed frames)
_AS_PERIODIC = 0.9  # of the best lag's strength: two and three periods repeat as well as one does, and noise may prefer them
_LOUD = 0.3  # of the loud frames' level: quieter ones are room and music


def median_pitch(chunks: Iterable[np.ndarray], sample_rate: int) -> float | None:
    """Median fundamental frequency in Hz over the voiced frames of mono chunks, or None when there are too few to tell."""
    pitches: list[float] = []
    frame = round(_FRAME * sample_rate)
    shortest, longest = round(sample_rate / HIGHEST), round(sample_rate / LOWEST)
    for chunk in chunks:
        frames = chunk[: len(chunk) // frame * frame].reshape(-1, frame).astype(np.float64)
        if not len(frames):
            continue
        levels = np.sqrt(np.square(frames).mean(axis=1))
        frames = frames[levels > max(_LOUD * float(np.percentile(levels, 90)), 1e-4)]
        frames = frames - frames.mean(axis=1, keepdims=True)
        spectra = np.abs(np.fft.rfft(frames, 2 * frame, axis=1)) ** 2
        correlation = np.fft.irfft(spectra, axis=1)[:, :longest]
        # A frame's autocorrelation falls off with the lag because less of it overlaps: undo that.
        correlation = correlation / (correlation[:, :1] + 1e-12) / (1 - np.arange(longest) / frame)
        lags = _first_periods(correlation, shortest)
        strength = correlation[np.arange(len(lags)), lags]
        pitches.extend((sample_rate / lags[strength > _PERIODICITY]).tolist())
    return float(np.median(pitches)) if len(pitches) >= 20 else None


def _first_periods(correlation: np.ndarray, shortest: int) -> np.ndarray:
    """For each frame the first peak that is about as strong as the strongest: the period, not a multiple of it."""
    inner = correlation[:, shortest:-1]
    peaks = (inner >= correlation[:, shortest - 1 : -2]) & (inner >= correlation[:, shortest + 1 :])
    strongest = np.where(peaks, inner, -np.inf).max(axis=1, keepdims=True)
    return np.asarray((peaks & (inner >= _AS_PERIODIC * strongest)).argmax(axis=1) + shortest)
