"""From recognised words to utterances: a recogniser's segments are not sentences, so lines are cut at sentence ends from the words' times.

A line that is translated and spoken alone must be a whole thought, short enough that its place in the picture means something, and long
enough that a voice gets into stride.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dubbing.languages import UNSPACED, base_language
from dubbing.lesson import Utterance, Word

LONGEST_LINE = 12.0  # seconds: a longer sentence is split, so that its translation can't drift far from the picture
LONG_PAUSE = 1.5  # seconds: silence that ends a line even where the recogniser heard no sentence end
SHORT_LINE = 1.0  # seconds: a shorter line joins a neighbour that is near
NEAR = 0.6  # seconds
LEAST_SPLIT = 2.0  # seconds: no part of a split sentence is shorter

_TAIL = 0.15  # seconds: a word that starts so near the end of a span of speech belongs to the next span
INITIAL_PAUSE = 0.5  # seconds: after a longer one a single letter was no initial

_SENTENCE_ENDS = ".?!…。？！"
_CLAUSE_ENDS = ",;:，；：、—–"
# What is written with a full stop before the name, or the number, that it belongs to.
_TITLES = frozenset("dr mr mrs ms prof st mt vs д-р проф акад ул sr sra srta dra mme mlle hr fr bzw z.b dott".split())
_BEFORE_NUMBERS = frozenset("fig figs eq no nos vol ch sec p pp рис табл гл стр nr núm pág".split())
_CLOSERS = "\"'»”’)]"


def utterances_from(words: Iterable[Word], language: str) -> tuple[Utterance, ...]:
    """Cut words into lines at sentence ends, long pauses and changes of speaker, split sentences that are too long, join lines that are too
    short.

    Every word is in exactly one line, in order. Lines don't overlap. A line is one speaker's: a word without a speaker goes with those
    before it.
    """
    lines: list[list[Word]] = []
    for sentence in _sentences(_in_order(words)):
        lines.extend(_split(sentence))
    joined: list[list[Word]] = []
    for line in lines:
        if joined and _belong_together(joined[-1], line):
            joined[-1] = joined[-1] + line
        else:
            joined.append(line)
    return tuple(_utterance(line, language) for line in joined)


def snapped_to_speech(words: Sequence[Word], spans: Sequence[tuple[float, float]]) -> list[Word]:
    """Words moved out of the pauses that a recogniser stretches them into: a sentence's first word often starts where the last one ended.

    Args:
        spans: where a voice activity detector heard speech, seconds, in order.
    """
    snapped = []
    for word in words:
        start, end = word.start, word.end
        inside = next((span for span in spans if span[0] <= start < span[1] - _TAIL), None)
        if inside is None:
            following = next((span for span in spans if span[0] >= start - _TAIL), None)
            if following and start < following[0] < end - _TAIL:
                start = following[0]
        holding = next((span for span in spans if span[0] <= start < span[1]), None)
        if holding and end > holding[1] > start + _TAIL:
            end = holding[1]
        snapped.append(word.model_copy(update={"start": start, "end": end}))
    return snapped


def _in_order(words: Iterable[Word]) -> list[Word]:
    """Words with times that never run backwards: recognisers give words of no length, and words that start before the last one ended."""
    ordered: list[Word] = []
    for word in words:
        if not word.text.strip():
            continue
        start = max(word.start, ordered[-1].end if ordered else 0.0)
        ordered.append(word.model_copy(update={"start": start, "end": max(word.end, start)}))
    return ordered


def _sentences(words: Sequence[Word]) -> list[list[Word]]:
    sentences: list[list[Word]] = [[]]
    speaker: str | None = None
    for position, word in enumerate(words):
        if sentences[-1] and (word.start - sentences[-1][-1].end >= LONG_PAUSE or _differ(speaker, word.speaker)):
            sentences.append([])
        speaker = word.speaker or speaker
        sentences[-1].append(word)
        if _ends_sentence(word, words[position + 1] if position + 1 < len(words) else None):
            sentences.append([])
    return [sentence for sentence in sentences if sentence]


def _ends_sentence(word: Word, following: Word | None) -> bool:
    text = word.text.strip().rstrip(_CLOSERS)
    if not text or text[-1] not in _SENTENCE_ENDS:
        return False
    if following is None or text[-1] not in ".…":
        return True
    body = text[:-1].lstrip("\"'«“([").rstrip(".")
    first = following.text.strip()[:1]
    if body.casefold() in _TITLES or (body.casefold() in _BEFORE_NUMBERS and first.isdigit()):
        return False
    if len(body) == 1 and body.isupper() and following.start - word.end < INITIAL_PAUSE:
        return False
    # "т. е.", "3.5": a full stop before a small letter or between digits ends nothing.
    return not (first.islower() or (first.isdigit() and text[:-1].isdigit() and following.start - word.end < 0.1))


def _split(sentence: list[Word]) -> list[list[Word]]:
    """Halve a sentence at its best inner boundary until every part is short enough."""
    if sentence[-1].end - sentence[0].start <= LONGEST_LINE or len(sentence) < 4:
        return [sentence]
    start, end = sentence[0].start, sentence[-1].end

    def worth(position: int) -> float:
        """How good a cut before this word is: pauses and clause ends draw it, the middle draws it."""
        before, after = sentence[position - 1], sentence[position]
        clause = 1.0 if before.text.rstrip(_CLOSERS)[-1:] in _CLAUSE_ENDS else 0.0
        centred = 1.0 - abs((before.end + after.start) / 2 - (start + end) / 2) / ((end - start) / 2)
        return clause + 2.0 * min(after.start - before.end, 1.0) + centred

    places = [
        position
        for position in range(1, len(sentence))
        if sentence[position - 1].end - start >= LEAST_SPLIT and end - sentence[position].start >= LEAST_SPLIT
    ]
    if not places:
        return [sentence]
    cut = max(places, key=worth)
    return _split(sentence[:cut]) + _split(sentence[cut:])


def _belong_together(line: list[Word], following: list[Word]) -> bool:
    gap = following[0].start - line[-1].end
    short = min(line[-1].end - line[0].start, following[-1].end - following[0].start) < SHORT_LINE
    # A line of no length has no place of its own, and the same words after it would have the same id.
    unplaced = line[-1].end - line[0].start < 0.001
    if unplaced:
        return gap < NEAR
    return short and gap < NEAR and following[-1].end - line[0].start <= LONGEST_LINE and not _differ(_speaker(line), _speaker(following))


def _differ(speaker: str | None, other: str | None) -> bool:
    """Whether two people are known to speak."""
    return None not in (speaker, other) and speaker != other


def _speaker(words: Sequence[Word]) -> str | None:
    """Who says most of it."""
    seconds: dict[str, float] = {}
    for word in words:
        if word.speaker is not None:
            seconds[word.speaker] = seconds.get(word.speaker, 0.0) + word.end - word.start
    return max(seconds, key=lambda speaker: seconds[speaker], default=None)


def _utterance(words: list[Word], language: str) -> Utterance:
    joint = "" if base_language(language) in UNSPACED else " "
    text = joint.join(word.text.strip() for word in words)
    return Utterance(
        id=Utterance.id_of(text, words[0].start),
        text=text,
        start=words[0].start,
        end=words[-1].end,
        confidence=sum(word.confidence for word in words) / len(words),
        speaker=_speaker(words),
        words=tuple(words),
    )
