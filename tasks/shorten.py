"""Between fit and another round of speech: lines that are too long for their place, said in fewer words."""

from __future__ import annotations

from collections.abc import Mapping

from blocks.store import Store
from blocks.translation import Translator
from dubbing.lesson import Transcript, TranslatedLine, Translation
from dubbing.translating import neighbourhood
from tasks.lines import line_by_line
from tasks.stage import stage

VERSION = 1


@stage(version=VERSION, returns=Translation, per_line=True)
def shorten(
    store: Store, transcript: Transcript, translation: Translation, translator: Translator, budgets: Mapping[str, int]
) -> Translation:
    """Translate each line that has a budget again, alone with its neighbours. A wording that isn't shorter, or isn't sound, is left aside.

    Args:
        budgets: greatest number of characters by line id.
    """
    utterances = transcript.utterances
    positions = [position for position, utterance in enumerate(utterances) if utterance.id in budgets]

    def shaping(position: int) -> dict[str, object]:
        window, limit = neighbourhood(utterances, position, position + 1), budgets[utterances[position].id]
        return {"id": window.lines[0].id, "text": window.lines[0].text, "before": window.before, "after": window.after, "limit": limit}

    def reword(position: int) -> TranslatedLine:
        window, limit = neighbourhood(utterances, position, position + 1), budgets[utterances[position].id]
        return translator.translate(window, transcript.language, translation.language, None, {1: limit})[0]

    results = line_by_line(
        store,
        "shorten",
        VERSION,
        positions,
        lambda position: [utterances[position].id],
        {"source": transcript.language, "target": translation.language, "translator": translator},
        shaping,
        reword,
        TranslatedLine,
    )
    reworded = {line.id: line for line in results}

    def better(line: TranslatedLine) -> TranslatedLine:
        new = reworded.get(line.id)
        return new if new and new.text and not new.flags and len(new.text) < len(line.text) else line

    return translation.model_copy(update={"lines": tuple(better(line) for line in translation.lines)})
