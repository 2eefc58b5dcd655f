"""AAC in pieces: joined they sound as if encoded in one go, and what was encoded before is taken as it is."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dubbing import encoding
from dubbing.encoding import FRAME, Piece, encode, join
from dubbing.media import SAMPLE_RATE
from tests.conftest import SmallDisk

RANDOM = np.random.default_rng(5)


def sound(seconds: float, channels: int = 1) -> np.ndarray:
    """A buzz in syllables with clicks in it, which make an encoder change its windows."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    buzz = 0.2 * np.sin(2 * np.pi * 150 * times) ** 15 * np.abs(np.sin(2 * np.pi * 2 * times))
    samples = np.stack([buzz, -buzz][:channels], axis=1) + RANDOM.normal(0, 0.002, (len(times), channels))
    samples[RANDOM.integers(0, len(times), len(times) // 8000)] += 0.5
    return samples.astype(np.float32)


def track(samples: np.ndarray, folder: Path, kept: dict[str, Path] | None = None) -> tuple[list[Piece], np.ndarray]:
    """Its pieces, and what a player plays."""
    folder.mkdir(exist_ok=True)
    channels = samples.shape[1]
    pieces = encode(lambda first, last: samples[first:last], len(samples), channels, folder, (kept or {}).get)
    join([piece.path for piece in pieces], len(samples), channels, folder / "track.m4a")
    return pieces, played(folder / "track.m4a", channels)


def played(path: Path, channels: int) -> np.ndarray:
    done = subprocess.run(["ffmpeg", "-v", "error", "-i", str(path), "-f", "f32le", "pipe:1"], capture_output=True, check=True)
    assert not done.stderr, done.stderr
    return np.frombuffer(done.stdout, "<f4").reshape(-1, channels)


def frame_errors(heard: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Root mean square of the difference, frame by frame."""
    frames = len(samples) // FRAME
    difference = (heard[: frames * FRAME] - samples[: frames * FRAME]).reshape(frames, -1)
    return np.asarray(np.sqrt(np.square(difference).mean(axis=1)))


@pytest.mark.parametrize("channels", [1, 2])
def test_a_join_is_no_worse_than_any_other_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    """Were the windows on both sides of a join not made for each other, a frame would be heard with its own mirror image in it."""
    monkeypatch.setattr(encoding, "PIECE", 50)
    samples = sound(20.0, channels)
    pieces, heard = track(samples, tmp_path / "pieces")
    monkeypatch.setattr(encoding, "PIECE", 10**6)
    [_], whole = track(samples, tmp_path / "whole")
    errors, errors_in_one_go = frame_errors(heard, samples), frame_errors(whole, samples)
    joins = np.array([first - 1 + near for first in range(50, 50 * (len(pieces) - 1), 50) for near in (-1, 0, 1)])
    elsewhere = np.setdiff1d(np.arange(len(errors)), joins)
    assert len(joins) > 40
    assert errors[joins].mean() <= 1.2 * errors[elsewhere].mean()
    assert errors[joins].max() <= 1.2 * errors[elsewhere].max()
    assert errors.mean() <= 1.6 * errors_in_one_go.mean()  # pieces of one second; the real ones are of 26


@settings(max_examples=15)
@given(st.integers(1, 5 * SAMPLE_RATE), st.integers(1, 2))
def test_a_track_is_as_long_as_its_samples(tmp_path_factory: pytest.TempPathFactory, length: int, channels: int) -> None:
    folder = tmp_path_factory.mktemp("track")
    samples = sound(5.0, channels)[:length]
    track(samples, folder)
    facts = ["-show_entries", "stream=duration_ts,start_pts,time_base", "-of", "csv=p=0"]
    shown = subprocess.run(["ffprobe", "-v", "error", *facts, str(folder / "track.m4a")], capture_output=True, text=True, check=True).stdout
    time_base, start, duration = shown.strip().split(",")
    assert time_base == f"1/{SAMPLE_RATE}" and start == "0"
    assert int(duration) == pytest.approx(length, abs=SAMPLE_RATE // 1000)  # MP4 tells it in milliseconds


def test_what_was_encoded_before_is_taken_and_the_track_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "PIECE", 50)
    samples = sound(12.0)
    first, _ = track(samples, tmp_path / "first")
    kept = {piece.digest: piece.path for piece in first}
    second, _ = track(samples, tmp_path / "second", kept)
    assert all(piece.is_new for piece in first) and not any(piece.is_new for piece in second)
    assert (tmp_path / "second" / "track.m4a").read_bytes() == (tmp_path / "first" / "track.m4a").read_bytes()


def test_a_change_costs_the_pieces_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece depends on a little more sound than it holds."""
    monkeypatch.setattr(encoding, "PIECE", 100)
    samples = sound(20.0)
    kept = {piece.digest: piece.path for piece in track(samples, tmp_path / "first")[0]}
    changed = samples.copy()
    changed[int(450.5 * FRAME) : int(452.5 * FRAME)] *= 0.5
    pieces, heard = track(changed, tmp_path / "second", kept)
    assert [number for number, piece in enumerate(pieces) if piece.is_new] == [4, 5]
    monkeypatch.setattr(encoding, "PIECE", 100)
    _, anew = track(changed, tmp_path / "anew")
    assert np.array_equal(heard, anew)


def test_a_track_tells_nothing_of_when_it_was_made(tmp_path: Path) -> None:
    samples = sound(2.0)
    for folder in ("first", "second"):
        track(samples, tmp_path / folder)
    assert (tmp_path / "first" / "track.m4a").read_bytes() == (tmp_path / "second" / "track.m4a").read_bytes()
    assert b"Lavf" not in (tmp_path / "first" / "track.m4a").read_bytes()


def test_a_read_that_fails_fails_the_track(tmp_path: Path) -> None:
    def read(first: int, last: int) -> np.ndarray:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        encode(read, SAMPLE_RATE, 1, tmp_path, lambda digest: None)


@pytest.mark.parametrize("kilobytes", [8, 100, 180])
def test_a_track_that_did_not_fit_is_none(small_disk: SmallDisk, tmp_path: Path, kilobytes: int) -> None:
    samples = RANDOM.normal(0, 0.1, (8 * SAMPLE_RATE, 2)).astype(np.float32)
    pieces = encode(lambda first, last: samples[first:last], len(samples), 2, tmp_path, lambda digest: None)
    small_disk.resize(kilobytes)
    with pytest.raises(OSError, match="No space left on device"):
        join([piece.path for piece in pieces], len(samples), 2, small_disk.folder / "track.m4a")


def test_every_piece_is_encoded_in_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of them is the first, and however often: an encoder takes the options that it is given out of what it is given."""
    samples = sound(6.0)
    monkeypatch.setattr(encoding, "PIECE", 50)
    many = track(samples, tmp_path / "many")[0]
    again = track(samples, tmp_path / "again")[0]
    assert [piece.digest for piece in many] == [piece.digest for piece in again]
    assert [piece.path.read_bytes() for piece in many] == [piece.path.read_bytes() for piece in again]
    assert encoding._OPTIONS["aac_coder"] == "fast"
