"""Loudness and true peak of a stream of blocks, and a limiter that keeps the true peak under a ceiling.

Loudness after ITU-R BS.1770-5 (K weighting, 400 ms blocks every 100 ms, gates at -70 LUFS and 10 LU below the mean), as EBU R128 uses
it. `pyloudnorm` computes the same from an array in memory; a lesson of hours doesn't fit there, so the filters run block by block with
their state kept. The tests hold both against each other and against ffmpeg's meter.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from dubbing.media import SAMPLE_RATE

_ABSOLUTE_GATE = -70.0  # LUFS
_RELATIVE_GATE = -10.0  # LU below the mean of what passed the absolute gate
_STEP = SAMPLE_RATE // 10  # samples: 100 ms, the hop of the 400 ms blocks
_OVERSAMPLING = 4  # BS.1770-5 annex 2, at 48 kHz
_TAPS = 32 * _OVERSAMPLING + 1  # of the interpolation filter
_PIECE = 2400  # samples: 50 ms that are interpolated or passed over together
_LOOKAHEAD = 240  # samples: 5 ms in which the limiter turns down before a peak
CONTEXT = 2048  # samples on each side of a block that its gain depends on: twice the look-ahead and the interpolator's length, with room

# BS.1770-5, table 1 and 2: the pre-filter (head) and the high-pass (RLB) at 48 kHz.
_K_WEIGHTING = np.array(
    [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585],
        [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621],
    ]
)


class LoudnessMeter:
    """Integrated loudness of what was fed to it.

    >>> meter = LoudnessMeter(channels=1)
    >>> tone = np.sin(2 * np.pi * 997 * np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE)
    >>> meter.add(tone[:, None])
    >>> round(meter.integrated(), 1)  # BS.1770-5: a full-scale 997 Hz sine in one channel reads -3.01 LKFS
    -3.0
    """

    def __init__(self, channels: int) -> None:
        self._state = np.zeros((len(_K_WEIGHTING), 2, channels))
        self._rest = np.zeros((0, channels))
        self._energies: list[np.ndarray] = []  # mean square of each 100 ms, summed over channels

    def add(self, samples: np.ndarray) -> None:
        """Take the next samples, [frames, channels] at 48 kHz."""
        from scipy import signal  # imported where it is used: it takes a second, and a cached run never gets here

        if not len(samples):
            return
        weighted, self._state = signal.sosfilt(_K_WEIGHTING, samples, axis=0, zi=self._state)
        weighted = np.concatenate([self._rest, weighted])
        whole = len(weighted) // _STEP * _STEP
        self._rest = weighted[whole:]
        if whole:
            self._energies.append(np.square(weighted[:whole]).reshape(whole // _STEP, -1).sum(axis=1) / _STEP)

    def integrated(self) -> float | None:
        """LUFS, or None when nothing passed the gates (silence, or less than 400 ms)."""
        steps = np.concatenate(self._energies) if self._energies else np.zeros(0)
        if len(steps) < 4:
            return None
        energies = np.convolve(steps, np.full(4, 0.25), mode="valid")
        gated = energies[energies > _energy(_ABSOLUTE_GATE)]
        if not len(gated):
            return None
        gated = gated[gated > _energy(_level(float(gated.mean())) + _RELATIVE_GATE)]
        return _level(float(gated.mean())) if len(gated) else None


def _level(energy: float) -> float:
    return -0.691 + 10 * math.log10(energy)


def _energy(level: float) -> float:
    return 10 ** ((level + 0.691) / 10)


def decibels(ratio: float) -> float:
    return 20 * math.log10(ratio) if ratio > 0 else -math.inf


def ratio(decibel: float) -> float:
    return 10 ** (decibel / 20)


@cache
def _interpolator() -> np.ndarray:
    """A 4-fold interpolation filter: a Kaiser-windowed sinc, 32 taps a phase; flat to 20 kHz within 0.1 dB."""
    from scipy import signal

    return np.asarray(_OVERSAMPLING * signal.firwin(_TAPS, 1 / _OVERSAMPLING, window=("kaiser", 7.0)))


def true_peaks(samples: np.ndarray) -> np.ndarray:
    """For each sample of [frames, channels] the largest absolute value up to the next one over all channels, 4 times oversampled."""
    from scipy import signal

    frames = len(samples)
    delay = (_TAPS - 1) // 2
    up = signal.upfirdn(_interpolator(), samples, up=_OVERSAMPLING, axis=0)[delay : delay + frames * _OVERSAMPLING]
    loudest = np.zeros(frames)
    for channel in range(up.shape[1]):
        for phase in range(_OVERSAMPLING):  # many times faster than numpy's maximum along axes as short as these
            np.maximum(loudest, np.abs(up[phase::_OVERSAMPLING, channel]), out=loudest)
    return loudest


def peaks_near(samples: np.ndarray, ceiling: float) -> np.ndarray:
    """`true_peaks` where they can reach the ceiling, 0 elsewhere. Interpolation exceeds samples by a few decibels: 6 dB under is safe."""
    peaks = np.zeros(len(samples))
    for first in range(0, len(samples), _PIECE):
        begin, end = max(0, first - _TAPS), first + _PIECE + _TAPS
        piece = samples[begin:end]
        if float(np.abs(piece).max()) >= ceiling / 2:
            peaks[first : first + _PIECE] = true_peaks(piece)[first - begin : first - begin + _PIECE]
    return peaks


def limiter_gains(samples: np.ndarray, ceiling: float) -> np.ndarray | None:
    """Gains, [frames], that keep the true peak of [frames, channels] under `ceiling` (a ratio); None when it is under it anyway.

    A peak is met by the lowest gain it needs, held for the look-ahead on both sides and smoothed over it, so that the gain is never above
    what any peak needs. A gain depends on `CONTEXT` samples on each side and nothing else: blocks that overlap by it join without a seam.
    """
    from scipy import ndimage

    needed = ceiling / np.maximum(peaks_near(samples, ceiling), ceiling)
    if float(needed.min()) >= 1.0:
        return None
    held = ndimage.minimum_filter1d(needed, 2 * _LOOKAHEAD + 1, mode="nearest")
    return ndimage.uniform_filter1d(held, 2 * _LOOKAHEAD + 1, mode="nearest")
