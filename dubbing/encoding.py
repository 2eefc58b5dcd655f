"""AAC encoded in pieces that fit together: several at once, and a piece whose samples were encoded before is not encoded again.

A frame of AAC-LC stands for 1024 samples by the overlapping windows of itself and its neighbours, and takes nothing else from other frames.
So a piece is encoded with some frames of the sound before and after it, in which the encoder comes to the same choice of windows as in one
go, and these frames are left out where pieces are joined. Pieces are ADTS streams (ISO/IEC 14496-3, 1.A.3.2), which anything can play.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from dubbing.media import SAMPLE_RATE
from dubbing.processors import usable_processors

FRAME = 1024  # samples
PIECE = 1200  # frames: 25.6 s
_BEFORE = 64  # frames in which the encoder comes to the quantisation that fills its bit rate; for the windows 4 would do
_AFTER = 4  # frames: it looks ahead by one or two
_HEADER = 7  # bytes of an ADTS frame without checksum
_KBPS = 192  # in stereo; half for mono
# The coder "fast" takes a third of the default's time. Its stereo tools added peaks of 1.5 dB to the sample, so they are off.
_OPTIONS = MappingProxyType({"aac_coder": "fast", "aac_ms": "0", "aac_is": "0"})


class Piece(NamedTuple):
    """Encoded sound."""

    digest: str  # of the samples and of how they are encoded
    path: Path
    is_new: bool


def encode(
    read: Callable[[int, int], np.ndarray], samples: int, channels: int, folder: Path, kept: Callable[[str], Path | None]
) -> list[Piece]:
    """Encode a track of so many samples, 48 kHz.

    Args:
        read: gives samples `first` to `last` (exclusive), [frames, channels]; called from this thread only, with increasing positions.
        folder: where new pieces are written.
        kept: a piece that was encoded before, by digest.
    """
    frames = -(-samples // FRAME) + 1  # the first one is the encoder's delay
    threads = usable_processors()
    pieces: list[Piece] = []
    pending: list[Future[None]] = []
    with ThreadPoolExecutor(threads, thread_name_prefix="aac") as pool:
        try:
            for first in range(0, frames, PIECE):
                last = min(first + PIECE, frames)
                begin = max(0, first - _BEFORE)
                # Frame n stands for the samples from n-1 frames on.
                sound = read(begin * FRAME, min(samples, (last + _AFTER) * FRAME))
                digest = _digest(sound, first - begin, last - first)
                if path := kept(digest):
                    pieces.append(Piece(digest, path, False))
                    continue
                path = folder / f"{digest}.aac"
                if not any(piece.path == path for piece in pieces):  # silence is often the same
                    if len(pending) >= threads:
                        pending.pop(0).result()
                    pending.append(pool.submit(_encode_piece, sound, first - begin, last - first, path))
                pieces.append(Piece(digest, path, True))
            for future in pending:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return pieces


def join(pieces: Sequence[Path], samples: int, channels: int, target: Path) -> None:
    """Put pieces together as AAC in MP4, exactly `samples` long when played.

    Raises:
        OSError: the disk is full.
    """
    import av

    with target.open("wb") as file, av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as track:
        stream: Any = track.add_stream("aac", rate=SAMPLE_RATE)
        _set_up(stream.codec_context, channels)
        track.start_encoding()
        at = -FRAME
        for content in _frames(pieces):
            packet = av.Packet(content)
            packet.stream = stream
            packet.time_base = Fraction(1, SAMPLE_RATE)
            packet.pts = packet.dts = at
            packet.duration = min(FRAME, max(1, samples - at))
            packet.is_keyframe = True
            track.mux(packet)
            at += FRAME


def _digest(sound: np.ndarray, skipped: int, frames: int) -> str:
    import av

    told = f"aac {_KBPS} {sorted(_OPTIONS.items())} {av.library_versions} {sound.shape} {skipped} {frames}"
    return hashlib.sha256(told.encode() + b"\0" + np.ascontiguousarray(sound, dtype="<f4").tobytes()).hexdigest()


def _encode_piece(sound: np.ndarray, skipped: int, frames: int, path: Path) -> None:
    """Encode `frames` frames after the first `skipped` ones."""
    import av

    channels = sound.shape[1]
    content = io.BytesIO()
    with av.open(content, "w", format="adts") as piece:
        stream: Any = piece.add_stream("aac", rate=SAMPLE_RATE)
        _set_up(stream.codec_context, channels)
        for packet in islice(_packets(stream, sound, channels), skipped, skipped + frames):
            piece.mux(packet)
    path.write_bytes(content.getvalue())


def _packets(stream: Any, sound: np.ndarray, channels: int) -> Iterator[Any]:
    import av

    for first in range(0, len(sound), FRAME):
        block = np.ascontiguousarray(sound[first : first + FRAME].T, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=_layout(channels))
        frame.sample_rate, frame.pts = SAMPLE_RATE, first
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _set_up(encoder: Any, channels: int) -> None:
    import av

    encoder.layout = _layout(channels)
    encoder.format = "fltp"
    encoder.bit_rate = 1000 * _KBPS * channels // 2
    encoder.options = dict(_OPTIONS)  # it takes those out that it knows
    encoder.time_base = Fraction(1, SAMPLE_RATE)
    encoder.flags |= av.codec.context.Flags.bitexact


def _layout(channels: int) -> str:
    return "mono" if channels == 1 else "stereo"


def _frames(pieces: Sequence[Path]) -> Iterator[bytes]:
    """The frames of ADTS streams, without their headers."""
    for piece in pieces:
        content, at = piece.read_bytes(), 0
        while at < len(content):
            length = (content[at + 3] & 3) << 11 | content[at + 4] << 3 | content[at + 5] >> 5
            yield content[at + _HEADER : at + length]
            at += length
