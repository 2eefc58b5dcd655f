"""Before translation, for models that read ahead: what the whole lesson is about, and its terms."""

from __future__ import annotations

from collections.abc import Sequence

from blocks.store import Store
from blocks.translation import Translator
from dubbing.lesson import Termbase, Transcript, Utterance
from dubbing.terms import MOST_TERMS, together
from tasks.lines import line_by_line
from tasks.stage import stage

VERSION = 1


@stage(version=VERSION, returns=Termbase)
def terms(store: Store, transcript: Transcript, translator: Translator, target: str) -> Termbase:
    """Read the transcript piece by piece, as much at once as the model's context holds, and put together what was found.

    A piece of which the model makes nothing gives nothing: a lesson can be translated without.
    """

    def texts_of(piece: Sequence[Utterance]) -> list[str]:
        return [line.text for line in piece]

    pieces = translator.pieces(transcript.utterances)
    read = line_by_line(
        store,
        "terms",
        VERSION,
        pieces,
        lambda piece: [line.id for line in piece],
        {"source": transcript.language, "target": target, "translator": translator},
        lambda piece: {"texts": texts_of(piece)},
        lambda piece: translator.read(piece, transcript.language, target),
        Termbase,
    )
    found = together(*(part.terms for part in read))[:MOST_TERMS]
    return Termbase(summary=translator.condense([part.summary for part in read if part.summary], target), terms=found)
