"""Stage 8: the finished track."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from blocks.store import Store
from dubbing import mixing
from dubbing.errors import BlobDamaged
from dubbing.lesson import Artifact, Mix, Stems, plain
from dubbing.media import SAMPLE_RATE
from tasks.lines import Pack, pack_of
from tasks.progress import advance
from tasks.stage import stage

VERSION = 3


@stage(version=VERSION, returns=Mix, opens=("stems.background", "voices"))
def mix(store: Store, stems: Stems, voices: Sequence[tuple[float, Artifact]], duration: float, loudness: float, ducking: float) -> Mix:
    """Lay the clips over the ducked background, as loud against it as the lecturer was, and bring the whole to a loudness.

    The encoded pieces are kept: after an edit those around the changed line are encoded and no others.

    Args:
        voices: start in seconds and fitted clip of each spoken line, in order.
        duration: seconds; longer than the lesson when the last line runs over its end.
        loudness: LUFS of the result.
        ducking: dB the background goes down under speech.
    """
    clips = [mixing.Placed(round(start * SAMPLE_RATE), store.path_of(clip)) for start, clip in voices]
    spoken, lecturer = mixing.voice_loudness(clips), stems.vocals.loudness
    voice_gain = 0.0 if spoken is None or lecturer is None else mixing.in_steps(lecturer - spoken)
    voice_gain = max(-mixing.LARGEST_VOICE_GAIN, min(mixing.LARGEST_VOICE_GAIN, voice_gain))
    pack = Pack(store, pack_of("mix", VERSION, {"background": stems.background.media, "loudness": loudness, "ducking": ducking}))

    def kept(digest: str) -> Path | None:
        piece = pack.record(digest)
        with suppress(BlobDamaged, FileNotFoundError):
            if piece:  # a copy: it is not read before all are encoded, and a clean-up may come first
                return Path(shutil.copyfile(store.path_of(Artifact.model_validate(piece)), folder / f"{digest}.kept"))
        return None

    with store.scratch() as folder:
        mixed = mixing.mix(
            store.path_of(stems.background.media),
            clips,
            duration,
            folder / "mix.m4a",
            folder,
            voice_gain=voice_gain,
            loudness=loudness,
            ducking=ducking,
            kept=kept,
            progress=advance,
        )
        new = {piece.digest: store.put_file(piece.path, "audio/aac") for piece in mixed.pieces.values() if piece.is_new}
        pack.write({digest: ((), {}, plain(new[digest]) if digest in new else pack.record(digest)) for digest in mixed.pieces})
        return Mix(
            media=store.put_file(folder / "mix.m4a", "audio/mp4"),
            duration=duration,
            channels=stems.background.channels,
            gain=round(mixed.gain, 3),
            limited=round(mixed.limited, 3),
        )
