"""Measuring the delivered file: loudness, true peak, length, levels. What was made counts, not what was planned."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import ffmpeg
import numpy as np

from dubbing import audio, media
from dubbing.loudness import decibels
from dubbing.media import SAMPLE_RATE

LEVEL_POINTS = 1200  # of a level curve, whatever the lesson's length
QUIET = -70.0  # dBFS, the floor of a level curve


class Measured(NamedTuple):
    """Of the first audio track."""

    integrated_loudness: float  # LUFS
    true_peak: float  # dBTP
    duration: float  # seconds that a player plays, without the padding of the last AAC frame


def measure(path: Path, decoded: Path) -> Measured:
    """Decode the delivered file's first audio track to a WAV and measure it with ffmpeg's EBU R128 meter: not the one it was mixed by."""
    stream = ffmpeg.input(media.address(path), protocol_whitelist="file")["a:0"]
    measured = stream.filter("aresample", SAMPLE_RATE).filter("ebur128", peak="true", framelog="verbose")
    said = media.run(measured.output(media.address(decoded), format="wav", acodec="pcm_f32le", rf64="auto", fflags="+bitexact"), decoded)
    summary = said[said.rindex("Summary:") :]
    loudness, peak = re.search(r"I:\s*(-?[\d.]+|-inf) LUFS", summary), re.search(r"Peak:\s*(-?[\d.]+|-inf) dBFS", summary)
    if not loudness or not peak:
        raise media.FfmpegFailed("ebur128 printed no summary")
    return Measured(float(loudness[1]), float(peak[1]), _track_duration(path))


def levels(recording: Path, points: int = LEVEL_POINTS) -> np.ndarray:
    """RMS level in dBFS of evenly spaced pieces of a recording."""
    frames = audio.frames_of(recording)
    edges = np.linspace(0, frames, min(points, max(1, frames // 480)) + 1).astype(np.int64)
    energies = np.zeros(len(edges) - 1)
    first = 0
    for block in audio.blocks(recording):
        # Energy up to each edge inside this block, by a running sum.
        running = np.concatenate([[0.0], np.cumsum(np.square(block.astype(np.float64)).mean(axis=1))])
        inside = np.clip(edges - first, 0, len(block))
        energies += running[inside[1:]] - running[inside[:-1]]
        first += len(block)
    means = energies / np.maximum(1, np.diff(edges))
    return np.array([max(QUIET, decibels(float(np.sqrt(mean)))) for mean in means])


def _track_duration(path: Path) -> float:
    track = next(track for track in tracks(path) if track["codec_type"] == "audio")
    tags = track.get("tags")
    if "duration" in track:
        return float(str(track["duration"]))
    hours, minutes, seconds = str(tags["DURATION"]).split(":") if isinstance(tags, dict) else ("0", "0", "0")  # Matroska
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def packet_digest(path: Path, stream: str) -> str:
    """SHA-256 over the packets' payloads of one stream ("v:0"), to see that a copied stream is the same bit for bit."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-protocol_whitelist", "file", "-i", media.address(path)]
    command += ["-map", f"0:{stream}", "-c", "copy", "-f", "streamhash", "-hash", "sha256", "pipe:1"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return said.rpartition("=")[2].strip()


def tracks(path: Path) -> list[dict[str, object]]:
    """ffprobe's account of the streams."""
    command = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", media.address(path)]
    found: list[dict[str, object]] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["streams"]
    return found
