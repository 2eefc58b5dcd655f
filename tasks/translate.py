"""Stage 5: every line in the target language."""

from __future__ import annotations

from collections.abc import Mapping

from blocks.store import Store
from blocks.translation import Translator
from dubbing.errors import EngineRefused
from dubbing.lesson import Noun, Recording, Transcript, TranslatedLine, Translation
from dubbing.translating import Window, neighbourhood
from tasks.stage import line_by_line, stage

VERSION = 1


class _Lines(Noun):
    """A window's answer, as it is cached."""

    lines: tuple[TranslatedLine, ...]


@stage(version=VERSION, returns=Translation, per_line=True)
def translate(
    store: Store, transcript: Transcript, sound: Recording, translator: Translator, target: str, budgets: Mapping[str, int]
) -> Translation:
    """Translate window by window, then say the lines with a budget again in fewer characters.

    Args:
        sound: what the translator hears, if it listens.
        budgets: greatest number of characters by line id, for lines that were too long to fit.

    Raises:
        EngineRefused: not one line could be translated.
    """
    recording = store.path_of(sound.media) if translator.listens else None
    heard = sound.media if translator.listens else None

    def inputs(window: Window, limits: Mapping[int, int]) -> list[object]:
        words = [[line.text, line.start, line.end] if translator.listens else [line.text] for line in window.lines]
        ids = [line.id for line in window.lines]
        limited = {str(n): limit for n, limit in limits.items()}
        return [ids, words, window.before, window.after, transcript.language, target, heard, translator, limited]

    answers = line_by_line(
        store,
        "translate",
        VERSION,
        translator.windows(transcript.utterances),
        lambda window: inputs(window, {}),
        lambda window: _Lines(lines=tuple(translator.translate(window, transcript.language, target, recording))),
        _Lines,
        lambda window: len(window.lines),
    )
    lines = {line.id: line for answer in answers for line in answer.lines}
    if budgets:
        shortened = line_by_line(
            store,
            "translate",
            VERSION,
            _alone(transcript, budgets),
            lambda item: inputs(item[0], {1: item[1]}),
            lambda item: _Lines(lines=tuple(translator.translate(item[0], transcript.language, target, recording, {1: item[1]}))),
            _Lines,
        )
        for answer in shortened:
            line = answer.lines[0]
            if line.text and len(line.text) < len(lines[line.id].text) and not line.flags:
                lines[line.id] = line
    if not any(line.text for line in lines.values()):
        raise EngineRefused(f"{translator.engine_name} translated none of the {len(lines)} lines into {target}")
    return Translation(
        language=target, lines=tuple(lines[utterance.id] for utterance in transcript.utterances), engine=translator.engine_name
    )


def _alone(transcript: Transcript, budgets: Mapping[str, int]) -> list[tuple[Window, int]]:
    """Each line that has a budget, as a window of its own with its neighbours."""
    utterances = transcript.utterances
    return [
        (neighbourhood(utterances, position, position + 1), budgets[utterance.id])
        for position, utterance in enumerate(utterances)
        if utterance.id in budgets
    ]
