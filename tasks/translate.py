"""Stage 5: every line in the target language.

Lines are asked for in windows and kept one by one. A line's record is found by languages, translator and the lesson's summary, and by what
is the line's own: its words, the terms and names in it, its limit of characters where time is short, and either neighbour's words. The rest
of its window is context that helps and does not count: where a line changed, came or went, the lines beside it keep their translation and
are context for the new one, and the same words in other company are translated for themselves. The summary is of what was recognised, which
a reviewer's edits leave as it is (their lines go through `retranslate`). Whether a word is a name the whole lesson tells: a line is made
again where that changes for a word of its own. What an engine hears is the context of its window, and all of it counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from blocks.store import Store
from blocks.translation import Translator
from dubbing.errors import EngineRefused
from dubbing.lesson import Recording, Termbase, Transcript, TranslatedLine, Translation
from dubbing.problems import named_in, names_in
from dubbing.terms import occurring
from dubbing.translating import Window, budgets
from tasks.lines import line_by_line
from tasks.stage import stage

VERSION = 3


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
        termbase: of the lesson; a line's own terms and the summary count in its record.
        pace: of the speech engine in the target language, characters a second.
        duration: of the lesson, seconds.

    Raises:
        EngineRefused: not one line could be translated.
    """
    utterances = transcript.utterances
    limits = budgets(utterances, pace, duration, target) if translator.heeds_budgets else {}
    terms_of = [list(occurring(termbase.terms, line.text, transcript.language)) for line in utterances]
    names = names_in(line.text for line in utterances)
    names_of = [named_in(line.text, names) for line in utterances]
    window_of: dict[int, tuple[int, Window]] = {}  # by a line's place: the place of its window's first line, and the window
    for window in translator.windows(utterances):
        first = len(window_of)
        window_of |= {first + at: (first, window) for at in range(len(window.lines))}

    def own(at: int) -> dict[str, object]:
        return {
            "text": utterances[at].text,
            "terms": terms_of[at],
            "names": names_of[at],
            "limit": limits.get(utterances[at].id),
        }

    def neighbour(at: int) -> str | None:
        return utterances[at].text if 0 <= at < len(utterances) else None

    def heard(at: int) -> dict[str, object]:
        first, window = window_of[at]
        lines = [[line.text, line.start, line.end] for line in window.lines]
        return {"lines": lines, "before": window.before, "after": window.after, "place": at - first}

    def translated(missing: Mapping[str, int]) -> Iterator[dict[str, TranslatedLine]]:
        addresses = {at: address for address, at in missing.items()}
        for first in dict.fromkeys(window_of[at][0] for at in addresses):
            window = window_of[first][1]
            places = [at for at in range(first, first + len(window.lines)) if at in addresses]
            recording = store.path_of(sound.media) if sound else None
            asked = window._replace(
                terms=tuple(dict.fromkeys(term for at in places for term in terms_of[at])),
                summary=termbase.summary,
                names=frozenset(name for at in places for name in names_of[at]),
                budgets={at - first + 1: limits[utterances[at].id] for at in places if utterances[at].id in limits},
                known={n: "" for n in range(1, len(window.lines) + 1) if first + n - 1 not in addresses},
            )
            lines = translator.translate(asked, transcript.language, target, recording)
            yield {addresses[at]: line for at, line in zip(places, lines, strict=True)}

    lines = line_by_line(
        store,
        "translate",
        VERSION,
        range(len(utterances)),
        lambda at: [utterances[at].id],
        {
            "source": transcript.language,
            "target": target,
            "sound": sound and sound.media,
            "translator": translator,
            "summary": termbase.summary,
        },
        heard if sound else lambda at: {**own(at), "before": neighbour(at - 1)},
        None,
        TranslatedLine,
        also=None if sound else lambda at: {**own(at), "after": neighbour(at + 1)},
        compute_all=translated,
    )
    translator.rest()
    # The same words in the same company are one record: each line gets it under its own id.
    identified = tuple(line.model_copy(update={"id": utterance.id}) for line, utterance in zip(lines, utterances, strict=True))
    if not any(line.text for line in identified):
        raise EngineRefused(f"{translator.engine_name} translated none of the {len(identified)} lines into {target}")
    return Translation(language=target, lines=identified, engine=translator.engine_name)
