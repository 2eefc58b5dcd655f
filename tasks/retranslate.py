"""After a person corrected what was recognised: those lines alone, translated again."""

from __future__ import annotations

from collections.abc import Sequence

from blocks.store import Store
from blocks.translation import Translator
from dubbing.lesson import Recording, Termbase, Transcript, TranslatedLine, Translation
from dubbing.problems import named_in, names_in
from dubbing.terms import occurring
from dubbing.translating import Window, neighbourhood
from tasks.lines import line_by_line
from tasks.stage import stage

VERSION = 3


@stage(version=VERSION, returns=Translation, opens=("sound",), per_line=True)
def retranslate(
    store: Store,
    transcript: Transcript,
    sound: Recording | None,
    translator: Translator,
    target: str,
    termbase: Termbase,
    lines: Sequence[str],
) -> Translation:
    """Translate some lines, each alone with its neighbours; only these are returned.

    Args:
        sound: what the translator hears; None when it only reads.
        termbase: of the lesson; a line's own terms alone count in its record.
        lines: their ids.
    """
    utterances = transcript.utterances
    positions = [position for position, utterance in enumerate(utterances) if utterance.id in lines]

    names = names_in(line.text for line in utterances)

    def window_of(position: int) -> Window:
        text = utterances[position].text
        return neighbourhood(utterances, position, position + 1)._replace(
            terms=occurring(termbase.terms, text, transcript.language),
            summary=termbase.summary,
            names=frozenset(named_in(text, names)),
        )

    def shaping(position: int) -> dict[str, object]:
        line = utterances[position]
        return {**window_of(position).shaping(), "id": line.id, "time": (line.start, line.end)}

    def translated(position: int) -> TranslatedLine:
        recording = store.path_of(sound.media) if sound else None
        return translator.translate(window_of(position), transcript.language, target, recording)[0]

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
    translator.rest()
    return Translation(language=target, lines=tuple(results), engine=translator.engine_name)
