"""Stage 2: the lesson's sound as 48 kHz float."""

from __future__ import annotations

from blocks.store import Store
from dubbing import audio
from dubbing.errors import NotMedia, SilentSource
from dubbing.lesson import Lesson, Recording
from dubbing.loudness import LoudnessMeter, decibels
from dubbing.media import FfmpegFailed
from tasks.progress import advance
from tasks.stage import stage

SILENCE = -70.0  # dBFS: a recording whose peak is under it is digital silence with dither


@stage(version=2, returns=Recording, opens=("lesson",), unkeyed=("name",))
def extract_audio(store: Store, lesson: Lesson, name: str) -> Recording:
    """Decode the sound, exactly as long as the lesson, starting where the lesson starts.

    Raises:
        SilentSource: there is nothing in it.
        NotMedia: it can't be decoded.
    """
    with store.scratch() as folder:
        path = folder / "sound.wav"
        try:
            audio.extract(store.path_of(lesson.media), lesson.sound, lesson.duration, path, lambda share: advance(0.8 * share))
        except FfmpegFailed as error:
            raise NotMedia(f"{name}: the sound can't be decoded ({error})") from error
        channels = min(lesson.sound.channels, 2)
        meter, peak = LoudnessMeter(channels), 0.0
        for block in audio.blocks(path):
            meter.add(block)
            peak = max(peak, float(abs(block).max(initial=0.0)))
        if decibels(peak) < SILENCE:
            raise SilentSource(f"{name}: the sound is silent from beginning to end (peak {decibels(peak):.0f} dBFS)")
        return Recording(media=store.put_file(path, audio.WAV), duration=lesson.duration, channels=channels, loudness=meter.integrated())
