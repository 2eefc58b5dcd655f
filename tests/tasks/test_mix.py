"""The stage that mixes: what of the encoded track is kept, and what of it is used again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blocks.store import Store
from dubbing import audio, encoding
from dubbing.lesson import Artifact, Mix, Recording, Stems
from tasks.mix import mix

RATE = 48_000
SECONDS = 24.0
RANDOM = np.random.default_rng(3)


def stored(store: Store, samples: np.ndarray) -> Artifact:
    with store.scratch() as folder:
        audio.write_clip(folder / "sound.wav", samples, RATE)
        return store.put_file(folder / "sound.wav", audio.WAV)


def recording(store: Store, samples: np.ndarray) -> Recording:
    return Recording(media=stored(store, samples), duration=len(samples) / RATE, channels=1, loudness=-25.0)


def tone(frequency: float) -> np.ndarray:
    return 0.2 * np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE)


class Lab:
    """A lesson with a line every two seconds."""

    def __init__(self, store: Store) -> None:
        self.store = store
        noise = recording(store, RANDOM.normal(0, 0.002, round(SECONDS * RATE)))
        self.stems = Stems(vocals=noise, background=noise, pitch=None)
        self.tones = [200.0 + 10 * line for line in range(11)]

    def mix(self, tones: list[float] | None = None) -> Mix:
        voices = [(2.0 * line + 0.5, stored(self.store, tone(frequency))) for line, frequency in enumerate(tones or self.tones)]
        return mix.function(self.store, stems=self.stems, voices=voices, duration=SECONDS, loudness=-20.0, ducking=6.0)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Pieces of about two seconds, as they are encoded."""
    pieces: list[Path] = []
    encode = encoding._encode_piece

    def noted(sound: np.ndarray, skipped: int, frames: int, path: Path) -> None:
        pieces.append(path)
        encode(sound, skipped, frames, path)

    monkeypatch.setattr(encoding, "PIECE", 100)
    monkeypatch.setattr(encoding, "_encode_piece", noted)
    return pieces


@pytest.fixture
def lab(store: Store) -> Lab:
    return Lab(store)


def changed(lab: Lab) -> list[float]:
    return [*lab.tones[:5], 255.0, *lab.tones[6:]]


def test_a_changed_line_costs_the_pieces_around_it(lab: Lab, encoded: list[Path], tmp_path: Path) -> None:
    lab.mix()
    passes = len(encoded) // 12
    encoded.clear()
    edited = lab.mix(changed(lab))
    assert passes <= len(encoded) <= 3 * passes
    anew = Lab(Store(folder=str(tmp_path / "anew")))
    anew.stems = lab.stems.model_copy(update={"background": recording(anew.store, samples_of(lab)), "vocals": lab.stems.vocals})
    assert anew.mix(changed(lab)).media == edited.media


def samples_of(lab: Lab) -> np.ndarray:
    return np.concatenate([block[:, 0] for block in audio.blocks(lab.store.path_of(lab.stems.background.media))])


@pytest.mark.parametrize("fault", ["deleted", "cut", "flipped"])
def test_a_kept_piece_that_is_damaged_is_encoded_again(lab: Lab, encoded: list[Path], fault: str) -> None:
    whole = lab.mix()
    # The pieces are the only blobs of their kind.
    blobs = [path for path in (Path(lab.store.folder) / "blobs").rglob("*") if path.is_file() and path.read_bytes()[:2] == b"\xff\xf1"]
    assert len(blobs) == len(encoded) >= 12
    for blob in blobs[:4]:
        content = bytearray(blob.read_bytes())
        if fault == "deleted":
            blob.unlink()
        else:
            content[len(content) // 2] ^= 1
            blob.write_bytes(content[:100] if fault == "cut" else content)
    encoded.clear()
    again = Store(folder=lab.store.folder)
    lab.store = again
    assert lab.mix() == whole
    assert len(encoded) == 4


def test_pieces_that_are_cleaned_away_while_they_are_used_do_no_harm(
    lab: Lab, encoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = lab.mix()
    join = encoding.join

    def cleaned(*arguments: Any) -> None:
        for path in (Path(lab.store.folder) / "blobs").rglob("*"):
            if path.is_file() and path.read_bytes()[:2] == b"\xff\xf1":
                path.unlink()
        join(*arguments)

    monkeypatch.setattr(encoding, "join", cleaned)
    assert lab.mix() == whole
