"""After a person corrected what was recognised: those lines alone, translated again."""

from __future__ import annotations

from collections.abc import Sequence

from blocks.store import Store
from blocks.translation import Translator
from dubbing.lesson import Recording, Termbase, Transcript, TranslatedLine, Translation, Utterance
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
        termbase: of the lesson; a line's own terms and the summary count in its record.
        lines: their ids.
    """
    utterances = transcript.utterances
    positions = [position for position, utterance in enumerate(utterances) if utterance.id in lines]

    names = names_in(line.text for line in utterances)

    def window_of(position: int) -> Window:
        text = utterances[position].text
        own_terms, own_names = occurring(termbase.terms, text, transcript.language), frozenset(named_in(text, names))
        return neighbourhood(utterances, position, position + 1)._replace(terms=own_terms, summary=termbase.summary, names=own_names)

    def shaping(position: int) -> dict[str, object]:
        window = window_of(position)
        line = _without_words(window.lines[0])
        own_names = named_in(line.text, names)
        return {"line": line, "before": window.before, "after": window.after, "terms": list(window.terms), "names": own_names}

    def translated(position: int) -> TranslatedLine:
        recording = store.path_of(sound.media) if sound else None
        return translator.translate(window_of(position), transcript.language, target, recording)[0]

    results = line_by_line(
        store,
        "retranslate",
        VERSION,
        positions,
        lambda position: [utterances[position].id],
        {
            "source": transcript.language,
            "target": target,
            "sound": sound and sound.media,
            "translator": translator,
            "summary": termbase.summary,
        },
        shaping,
        translated,
        TranslatedLine,
    )
    translator.rest()
    return Translation(language=target, lines=tuple(results), engine=translator.engine_name)


def _without_words(utterance: Utterance) -> Utterance:
    return utterance.model_copy(update={"words": ()})
