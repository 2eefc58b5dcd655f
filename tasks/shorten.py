"""Between fit and another round of speech: lines that are too long for their place, said in fewer words."""

from __future__ import annotations

from collections.abc import Mapping

from blocks.store import Store
from blocks.translation import Translator
from dubbing.lesson import Termbase, Transcript, TranslatedLine, Translation
from dubbing.problems import named_in, names_in
from dubbing.terms import occurring
from dubbing.translating import Window, neighbourhood
from tasks.lines import line_by_line
from tasks.stage import stage

VERSION = 3


@stage(version=VERSION, returns=Translation, per_line=True)
def shorten(
    store: Store,
    transcript: Transcript,
    translation: Translation,
    translator: Translator,
    termbase: Termbase,
    budgets: Mapping[str, int],
) -> Translation:
    """Say each line that has a budget in fewer words: in a wording that there is already, else translated again, alone with its neighbours.
    A wording that isn't shorter, or isn't sound, is left aside.

    Args:
        termbase: of the lesson; a line's own terms alone count in its record.
        budgets: greatest number of characters by line id.
    """
    utterances = transcript.utterances
    ready = {
        line.id: max(fitting, key=len)
        for line in translation.lines
        if (fitting := [wording for wording in line.variants if len(wording) <= budgets.get(line.id, 0)])
    }
    positions = [at for at, utterance in enumerate(utterances) if utterance.id in budgets and utterance.id not in ready]

    names = names_in(line.text for line in utterances)

    def window_of(position: int) -> Window:
        line = utterances[position]
        own_terms = occurring(termbase.terms, line.text, transcript.language)
        return neighbourhood(utterances, position, position + 1)._replace(
            terms=own_terms,
            summary=termbase.summary,
            names=frozenset(named_in(line.text, names)),
            budgets={1: budgets[line.id]},
            strict=True,
        )

    def shaping(position: int) -> dict[str, object]:
        return {**window_of(position).shaping(), "id": utterances[position].id}

    def reword(position: int) -> TranslatedLine:
        return translator.translate(window_of(position), transcript.language, translation.language)[0]

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
    translator.rest()
    reworded = {line.id: line for line in results}

    def better(line: TranslatedLine) -> TranslatedLine:
        if line.id in ready:
            return line.model_copy(update={"text": ready[line.id]})
        new = reworded.get(line.id)
        return new if new and new.text and not new.flags and len(new.text) < len(line.text) else line

    return translation.model_copy(update={"lines": tuple(better(line) for line in translation.lines)})
