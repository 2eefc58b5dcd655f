"""Stage 4: what was said, line by line, with times."""

from __future__ import annotations

from blocks.store import Store
from blocks.transcription import Recogniser
from dubbing.errors import NoSpeech
from dubbing.languages import name_of
from dubbing.lesson import Recording, Transcript
from dubbing.segmentation import utterances_from
from tasks.progress import advance, publish_table
from tasks.stage import stage


@stage(version=3, returns=Transcript, opens=("sound",), unkeyed=("name",))
def transcribe(store: Store, sound: Recording, recogniser: Recogniser, language: str | None, name: str) -> Transcript:
    """Recognise the original mix (separated vocals are recognised worse) and cut it into utterances.

    Args:
        language: BCP 47 tag, or None to detect it.

    Raises:
        NoSpeech: nobody speaks in it.
    """
    path = store.path_of(sound.media)
    spoken = language or recogniser.detect_language(path)
    words = recogniser.transcribe(path, spoken, advance) if spoken else []
    if left_out := recogniser.left_out() if spoken else []:
        publish_table("left-out", [one._asdict() for one in left_out], f"What {recogniser.engine_name} wrote down though nobody said it")
    utterances = utterances_from(words, spoken)
    if not utterances:
        heard = f" in {name_of(language)}" if language else ""
        raise NoSpeech(
            f"{name}: no speech{heard} was found in it ({recogniser.engine_name} listened to {sound.duration:.0f} s): nothing to dub"
        )
    return Transcript(language=spoken, utterances=utterances, engine=recogniser.used())
