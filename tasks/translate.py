"""Stage 5: every line in the target language."""

from __future__ import annotations

from blocks.store import Store
from blocks.translation import Translator
from dubbing.errors import EngineRefused
from dubbing.lesson import Noun, Recording, Transcript, TranslatedLine, Translation
from dubbing.translating import Window
from tasks.lines import line_by_line
from tasks.stage import stage

VERSION = 1


class _Lines(Noun):
    """A window's answer, as it is cached."""

    lines: tuple[TranslatedLine, ...]


@stage(version=VERSION, returns=Translation, opens=("sound",), per_line=True)
def translate(store: Store, transcript: Transcript, sound: Recording | None, translator: Translator, target: str) -> Translation:
    """Translate window by window.

    Args:
        sound: what the translator hears; None when it only reads.

    Raises:
        EngineRefused: not one line could be translated.
    """

    def shaping(window: Window) -> dict[str, object]:
        times = [(line.start, line.end) for line in window.lines] if sound else None
        texts = [line.text for line in window.lines]
        return {"ids": ids_of(window), "texts": texts, "before": window.before, "after": window.after, "times": times}

    def ids_of(window: Window) -> list[str]:
        return [line.id for line in window.lines]

    def answer(window: Window) -> _Lines:
        recording = store.path_of(sound.media) if sound else None
        return _Lines(lines=tuple(translator.translate(window, transcript.language, target, recording)))

    answers = line_by_line(
        store,
        "translate",
        VERSION,
        translator.windows(transcript.utterances),
        ids_of,
        {"source": transcript.language, "target": target, "sound": sound and sound.media, "translator": translator},
        shaping,
        answer,
        _Lines,
    )
    lines = tuple(line for answer in answers for line in answer.lines)
    if not any(line.text for line in lines):
        raise EngineRefused(f"{translator.engine_name} translated none of the {len(lines)} lines into {target}")
    return Translation(language=target, lines=lines, engine=translator.engine_name)
