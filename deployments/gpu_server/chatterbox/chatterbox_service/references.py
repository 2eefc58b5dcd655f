"""Recordings that give the model a voice: decoded, checked, remembered.

A reference is named by the SHA-256 of the file that was sent, so that a client can ask for a voice again without sending it again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
from typing import NamedTuple

import numpy as np
import soundfile

from chatterbox_service.bounded import Bounded
from chatterbox_service.errors import BadReference, BodyTooLarge, UnknownReference

SAMPLE_RATE = 24_000  # Hz, what the model's voice is made of

SHORTEST, LONGEST = 3.0, 30.0  # seconds of speech: the model hears the first 10 for its timbre, and all for the speaker
LONGEST_FILE = 120.0  # seconds with the silence around it: a small file can unpack to hours
LOWEST_RATE, HIGHEST_RATE = 16_000, 192_000  # Hz: less lacks what tells voices apart
MOST_CHANNELS = 8
FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "AIFF")

QUIETEST = -45.0  # dBFS, mean of the speech: below, the recording's noise is cloned with the voice
FULL_SCALE = 0.999  # a sample as loud as this was cut off
MOST_CLIPPED = 0.001  # of the samples: more is heard as distortion, and cloned

_WINDOW = 0.02  # seconds over which the level is taken
_SILENCE = 40.0  # dB below the loudest window: silence at the ends


class Reference(NamedTuple):
    name: str  # SHA-256 of the file, in hexadecimal
    samples: np.ndarray  # mono, float32, 24 kHz, without silence at the ends

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / SAMPLE_RATE


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_digest(name: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", name) is not None


class References:
    """Those sent lately."""

    def __init__(self, limit: int, max_bytes: int) -> None:
        self.max_bytes = max_bytes  # of a file
        self._known: Bounded[str, Reference] = Bounded(limit)

    def find(self, name: str) -> Reference:
        """
        Raises:
            UnknownReference: it was never sent, or so long ago that it was forgotten.
        """
        if not is_digest(name):
            raise BadReference("reference: the SHA-256 of a recording, 64 hexadecimal digits in small letters, is expected")
        known = self._known.get(name)
        if known is None:
            raise UnknownReference("unknown reference: please send it again")
        return known

    def add(self, data: bytes) -> Reference:
        """A recording as a file's bytes.

        Raises:
            BadReference, BodyTooLarge
        """
        if len(data) > self.max_bytes:
            raise BodyTooLarge(f"reference audio: {len(data)} bytes, at most {self.max_bytes}")
        name = digest_of(data)
        known = self._known.get(name)
        if known is None:
            known = Reference(name, checked(data))
            self._known.put(name, known)
        return known

    def add_base64(self, text: str) -> Reference:
        """
        Raises:
            BadReference, BodyTooLarge
        """
        if len(text) > 4 * (self.max_bytes // 3 + 1):
            raise BodyTooLarge(f"reference audio: more than {self.max_bytes} bytes")
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise BadReference("reference audio: not base64") from None
        return self.add(data)


def checked(data: bytes) -> np.ndarray:
    """The speech in a recording: mono, float32, 24 kHz, without the silence around it.

    Raises:
        BadReference: it is damaged, or no voice could be cloned from it.
    """
    samples, sample_rate = _decoded(data)
    if not np.isfinite(samples).all():
        raise BadReference("reference audio: damaged, not all of its samples are numbers")
    clipped = float((np.abs(samples) >= FULL_SCALE).any(axis=1).mean())
    if clipped > MOST_CLIPPED:
        raise BadReference(f"reference audio: clipped, {clipped:.1%} of its samples are at full scale, at most {MOST_CLIPPED:.1%} may be")
    speech = _trimmed(_at_model_rate(samples.mean(axis=1), sample_rate))
    duration = len(speech) / SAMPLE_RATE
    if not duration:
        raise BadReference("reference audio: silent")
    if duration < SHORTEST:
        raise BadReference(f"reference audio: {duration:.1f} s of speech, at least {SHORTEST:g} s are needed")
    if duration > LONGEST:
        raise BadReference(f"reference audio: {duration:.1f} s of speech, at most {LONGEST:g} s")
    level = 10 * float(np.log10(np.square(speech, dtype=np.float64).mean()))
    if level < QUIETEST:
        raise BadReference(f"reference audio: too quiet, {level:.0f} dBFS, at least {QUIETEST:.0f} dBFS are needed")
    return speech


def _decoded(data: bytes) -> tuple[np.ndarray, int]:
    """Samples [frames, channels] and their rate."""
    if not data:
        raise BadReference("reference audio: empty")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.format not in FORMATS:
                raise BadReference(f"reference audio: {file.format}, which is none of {', '.join(FORMATS)}")
            if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
                raise BadReference(f"reference audio: {file.samplerate} Hz, from {LOWEST_RATE} to {HIGHEST_RATE} Hz are possible")
            if file.channels > MOST_CHANNELS:
                raise BadReference(f"reference audio: {file.channels} channels, at most {MOST_CHANNELS}")
            most = round(LONGEST_FILE * file.samplerate)
            samples = file.read(min(most + 1, max(file.frames, 0)), dtype="float32", always_2d=True)
            sample_rate = int(file.samplerate)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        raise BadReference(f"reference audio: damaged, or no sound file that can be read: {error}") from None
    if len(samples) > most:
        raise BadReference(f"reference audio: longer than {LONGEST_FILE:g} s")
    if not len(samples):
        raise BadReference("reference audio: no sound in it")
    return samples, sample_rate


def _at_model_rate(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    if sample_rate == SAMPLE_RATE:
        return samples
    import soxr  # imported where it is used

    return np.asarray(soxr.resample(samples, sample_rate, SAMPLE_RATE), dtype=np.float32)


def _trimmed(samples: np.ndarray) -> np.ndarray:
    """Without the silence at its ends: nothing, if all is silence."""
    step = round(_WINDOW * SAMPLE_RATE)
    count = len(samples) // step
    energies = np.square(samples[: count * step], dtype=np.float64).reshape(count, step).mean(axis=1)
    loudest = float(energies.max(initial=0.0))
    loud = np.flatnonzero(energies > max(loudest * 10 ** (-_SILENCE / 10), 1e-10))
    if not len(loud):
        return samples[:0]
    return np.ascontiguousarray(samples[loud[0] * step : (loud[-1] + 1) * step])
