"""After a person corrected what was recognised: those lines alone, translated again."""

from __future__ import annotations

from collections.abc import Sequence

from blocks.store import Store
from blocks.translation import Translator
from dubbing.lesson import Recording, Transcript, TranslatedLine, Translation, Utterance
from dubbing.translating import neighbourhood
from tasks.lines import line_by_line
from tasks.stage import stage

VERSION = 1


@stage(version=VERSION, returns=Translation, opens=("sound",), per_line=True)
def retranslate(
    store: Store, transcript: Transcript, sound: Recording | None, translator: Translator, target: str, lines: Sequence[str]
) -> Translation:
    """Translate some lines, each alone with its neighbours; only these are returned.

    Args:
        sound: what the translator hears; None when it only reads.
        lines: their ids.
    """
    utterances = transcript.utterances
    positions = [position for position, utterance in enumerate(utterances) if utterance.id in lines]

    def shaping(position: int) -> dict[str, object]:
        window = neighbourhood(utterances, position, position + 1)
        return {"line": _without_words(window.lines[0]), "before": window.before, "after": window.after}

    def translated(position: int) -> TranslatedLine:
        window = neighbourhood(utterances, position, position + 1)
        recording = store.path_of(sound.media) if sound else None
        return translator.translate(window, transcript.language, target, recording)[0]

    results = line_by_line(
        store,
        "retranslate",
        VERSION,
        positions,
        lambda position: [utterances[position].id],
        {"source": transcript.language, "target": target, "sound": sound and sound.media, "translator": translator},
        shaping,
        translated,
        TranslatedLine,
    )
    return Translation(language=target, lines=tuple(results), engine=translator.engine_name)


def _without_words(utterance: Utterance) -> Utterance:
    return utterance.model_copy(update={"words": ()})
