"""Stage 3: the voice apart from music and room."""

from __future__ import annotations

from pathlib import Path

from blocks.separation import Separator
from blocks.store import Store
from dubbing import audio
from dubbing.lesson import Recording, Stems
from dubbing.loudness import LoudnessMeter
from dubbing.pitch import median_pitch
from tasks.progress import advance
from tasks.stage import stage

PITCH_RATE = 16_000  # Hz
PITCH_CHUNK = 120.0  # seconds


@stage(version=1, returns=Stems, opens=("sound",))
def separate(store: Store, sound: Recording, separator: Separator) -> Stems:
    """Take the recording apart into vocals and background, which add up to it."""
    with store.scratch() as folder:
        vocals, background = folder / "vocals.wav", folder / "background.wav"
        separator.separate(store.path_of(sound.media), vocals, background, lambda share: advance(0.9 * share))
        pitch = median_pitch((chunk for _, chunk in audio.chunks_at_silences(vocals, PITCH_RATE, PITCH_CHUNK)), PITCH_RATE)
        return Stems(
            vocals=_recording(store, vocals, sound),
            background=_recording(store, background, sound),
            pitch=None if pitch is None else round(pitch, 1),
        )


def _recording(store: Store, path: Path, sound: Recording) -> Recording:
    meter = LoudnessMeter(sound.channels)
    for block in audio.blocks(path):
        meter.add(block)
    return sound.model_copy(update={"media": store.put_file(path, audio.WAV), "loudness": meter.integrated()})
