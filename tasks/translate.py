"""Stage 5: every line in the target language.

Lines are asked for and kept in windows of whole sentences: a window's record is found by all that shapes its request, so that a run that
was killed goes on with the very same requests. What changes a single line later is translated by itself: a corrected source line by
`retranslate`, one that is too long for its place by `shorten`.
"""

from __future__ import annotations

from blocks.store import Store
from blocks.translation import Translator
from dubbing.errors import EngineRefused
from dubbing.lesson import Noun, Recording, Termbase, Transcript, TranslatedLine, Translation
from dubbing.problems import named_in, names_in
from dubbing.terms import occurring
from dubbing.translating import Window, budgets
from tasks.lines import line_by_line
from tasks.stage import stage

VERSION = 3


class _Lines(Noun):
    """A window's answer, as it is cached."""

    lines: tuple[TranslatedLine, ...]


@stage(version=VERSION, returns=Translation, opens=("sound",), per_line=True)
def translate(
    store: Store,
    transcript: Transcript,
    sound: Recording | None,
    translator: Translator,
    target: str,
    termbase: Termbase,
    pace: float,
    duration: float,
) -> Translation:
    """Translate window by window.

    Args:
        sound: what the translator hears; None when it only reads.
        termbase: of the lesson; of its terms those that occur in a window count in its record.
        pace: of the voice, characters a second.
        duration: of the lesson, seconds.

    Raises:
        EngineRefused: not one line could be translated.
    """
    utterances = transcript.utterances
    limits = budgets(utterances, pace, duration, target) if translator.heeds_budgets else {}
    names = names_in(line.text for line in utterances)

    def told(window: Window) -> Window:
        texts = "\n".join(line.text for line in window.lines)
        return window._replace(
            terms=tuple(occurring(termbase.terms, texts, transcript.language)),
            summary=termbase.summary,
            names=frozenset(named_in(texts, names)),
            budgets={n: limits[line.id] for n, line in enumerate(window.lines, 1) if line.id in limits},
        )

    def shaping(window: Window) -> dict[str, object]:
        return {**window.shaping(), "times": [(line.start, line.end) for line in window.lines] if sound else None}

    def translated(window: Window) -> _Lines:
        recording = store.path_of(sound.media) if sound else None
        return _Lines(lines=tuple(translator.translate(window, transcript.language, target, recording)))

    windows = [told(window) for window in translator.windows(utterances)]
    answers = line_by_line(
        store,
        "translate",
        VERSION,
        windows,
        lambda window: [line.id for line in window.lines],
        {"source": transcript.language, "target": target, "sound": sound and sound.media, "translator": translator},
        shaping,
        translated,
        _Lines,
    )
    translator.rest()
    # The same words in the same company are one record: each line gets it under its own id.
    lines = tuple(
        line.model_copy(update={"id": utterance.id})
        for window, answer in zip(windows, answers, strict=True)
        for line, utterance in zip(answer.lines, window.lines, strict=True)
    )
    if not any(line.text for line in lines):
        raise EngineRefused(f"{translator.engine_name} translated none of the {len(lines)} lines into {target}")
    return Translation(language=target, lines=lines, engine=translator.engine_name)
