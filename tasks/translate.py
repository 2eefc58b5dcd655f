"""Stage 5: every line in the target language."""

from __future__ import annotations

from blocks.store import Store
from blocks.translation import Translator
from dubbing.errors import EngineRefused
from dubbing.lesson import Noun, Recording, Transcript, TranslatedLine, Translation
from dubbing.translating import Window
from tasks.stage import line_by_line, stage

VERSION = 1


class _Lines(Noun):
    """A window's answer, as it is cached."""

    lines: tuple[TranslatedLine, ...]


@stage(version=VERSION, returns=Translation, per_line=True)
def translate(store: Store, transcript: Transcript, sound: Recording, translator: Translator, target: str) -> Translation:
    """Translate window by window.

    Args:
        sound: what the translator hears, if it listens.

    Raises:
        EngineRefused: not one line could be translated.
    """
    recording = store.path_of(sound.media) if translator.listens else None
    heard = sound.media if translator.listens else None

    def inputs(window: Window) -> list[object]:
        words = [[line.text, line.start, line.end] if translator.listens else [line.text] for line in window.lines]
        ids = [line.id for line in window.lines]
        return [ids, words, window.before, window.after, transcript.language, target, heard, translator]

    answers = line_by_line(
        store,
        "translate",
        VERSION,
        translator.windows(transcript.utterances),
        inputs,
        lambda window: _Lines(lines=tuple(translator.translate(window, transcript.language, target, recording))),
        _Lines,
        lambda window: len(window.lines),
    )
    lines = tuple(line for answer in answers for line in answer.lines)
    if not any(line.text for line in lines):
        raise EngineRefused(f"{translator.engine_name} translated none of the {len(lines)} lines into {target}")
    return Translation(language=target, lines=lines, engine=translator.engine_name)
