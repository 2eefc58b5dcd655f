"""A reviewer's changes: what an edit is, how edits change a lesson, and which can be made. `dubbing.changes` reads them from a folder.

Edits are kept apart from what the engines made, and applied to it anew in every run, in the order in which they were made. So an edit
outlives a better recogniser, and to undo one is to leave it out. An edit finds its line by its id, and when the line has got another id by
the time where it lay. Lines that no edit touches stay as they are: what was computed for them is still valid.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field

from dubbing.documents import in_captions
from dubbing.errors import BadInput, BadSetting
from dubbing.languages import UNSPACED, base_language
from dubbing.lesson import Noun, Transcript, TranslatedLine, Translation, Utterance, Word, plain
from dubbing.subtitles import clean

OVERLAP = 0.8  # of both lines: with less in common it is another line
LONGEST_TEXT = 1000  # characters of a line: more than a minute of speech, and no line lasts so long
MOST_PARTS = 20  # of a split
LONGEST_WORD = 100  # characters of a word to pronounce, and of its respelling
MOST_WORDS = 200  # to pronounce, in one edit
LONGEST_VOICE = 100  # characters

_PAUSE_WORTH = 0.5  # of a second's pause to a split, in parts of a part's length that the cut may lie off
_SENTENCE_WORTH = 0.25  # of a sentence's or clause's end
_CLAUSE_ENDS = ".?!…。？！,;:，；：、—–"
_CLOSERS = "\"'»”’)]」』"
_JOINERS = "\u200c\u200d"
_QUOTED = 80  # characters of a source text in a flag

FLAG = "edit: "


class Edit(Noun):
    """What a person changed of one line, once. Each kind of change is optional; None leaves it as it is."""

    id: str = ""  # digest of all else
    line: str = ""  # the line's id; "": pronunciations for the whole lesson
    source_text: str = ""  # of the line when the edit was made
    start: float = 0.0  # seconds, of the source line
    end: float = 0.0
    text: str | None = None  # the translation; "": say nothing
    new_source_text: str | None = None  # the recognised words corrected; the line is translated again unless a person gives the translation
    voice: str | None = None  # "": the run's voice again
    silent: bool | None = None  # True: say and show nothing; False: speak again
    say: dict[str, str] | None = None  # how words are pronounced, respelt; an empty respelling takes an earlier one away
    merge: int | None = None  # joins so many following lines to this one
    split: tuple[str, ...] | None = None  # the translation in two or more parts, each a line
    made: str = ""  # ISO 8601, UTC

    def with_id(self) -> Edit:
        content = json.dumps(plain(self) | {"id": "edit"}, sort_keys=True)
        return self.model_copy(update={"id": hashlib.sha256(content.encode()).hexdigest()[:10]})


_CHANGES = ("text", "new_source_text", "voice", "silent", "say", "merge", "split")


class Edits(Noun):
    """All edits of one lesson in one language, in the order in which they were made. What is undone is kept, apart."""

    lesson: str  # sha256 of the recording
    language: str
    edits: tuple[Edit, ...] = ()
    undone: tuple[Edit, ...] = ()

    def with_(self, *edits: Edit) -> Edits:
        """These edits after the others. One that is there already is not made twice; one that was undone is taken back from there."""
        known = {edit.id for edit in self.edits}
        new = {edit.id: edit for edit in (edit if edit.id else edit.with_id() for edit in edits) if edit.id not in known}
        return self.model_copy(
            update={"edits": (*self.edits, *new.values()), "undone": tuple(edit for edit in self.undone if edit.id not in new)}
        )

    def without(self, *, edit: str | None = None, line: str | None = None) -> Edits:
        """Without one edit, or without all edits of one line ("": those of the whole lesson).

        Raises:
            BadInput: there is none.
        """
        gone = [one for one in self.edits if (edit is not None and one.id == edit) or (line is not None and one.line == line)]
        if not gone:
            what = f"edit {edit}: there is no such edit" if edit is not None else f"line {line or '(the whole lesson)'}: it has no edits"
            raise BadInput(f"{what}; edited lines are {_some([one.line for one in self.edits if one.line])}")
        return self._without(gone)

    def without_last(self) -> Edits:
        """Without the edit that was made last.

        Raises:
            BadInput: there is none.
        """
        if not self.edits:
            raise BadInput("there is no edit to undo")
        return self._without(self.edits[-1:])

    def without_all(self) -> Edits:
        """Without any edit."""
        return self._without(self.edits)

    def _without(self, gone: Sequence[Edit]) -> Edits:
        ids = {edit.id for edit in gone}
        kept = tuple(edit for edit in self.edits if edit.id not in ids)
        return self.model_copy(update={"edits": kept, "undone": (*self.undone, *gone)})


class Outcome(Noun):
    """What became of an edit."""

    edit: str  # its id
    became: Literal["applied", "applied to a changed line", "without a place"]
    lines: tuple[str, ...] = ()  # ids of the lines that it made or changed
    was: str = ""  # source text when the edit was made, when it is another one now
    now: str = ""
    reason: str = ""  # why it has no place


class Revision(Noun):
    """A lesson with its edits applied."""

    transcript: Transcript
    translation: Translation
    to_translate: tuple[str, ...] = ()  # ids of lines whose source text was changed and whose translation no person gave
    outcomes: tuple[Outcome, ...] = ()  # of each edit, in order
    say: Mapping[str, str] = Field(default_factory=dict)  # pronunciations for the whole lesson
    say_in: Mapping[str, Mapping[str, str]] = Field(
        default_factory=dict
    )  # pronunciations of single lines, by id; an empty one keeps the lesson's away

    def completed(self, lines: Iterable[TranslatedLine]) -> Translation:
        """The translation with these new lines in place of those `to_translate`; voices and pronunciations stay the persons' choice."""
        new = {line.id: line for line in lines}

        def filled(line: TranslatedLine) -> TranslatedLine:
            if line.id not in self.to_translate:
                return line
            if not (fresh := new.get(line.id)):
                return line.model_copy(update={"flags": (*line.flags, f"{FLAG}its translation is of the words before they were corrected")})
            ours = tuple(flag for flag in line.flags if flag.startswith(FLAG))
            return fresh.model_copy(update={"voice": line.voice, "flags": (*fresh.flags, *ours)})

        filled_in = _with_sound_references([filled(line) for line in self.translation.lines])
        return self.pronounced(self.translation.model_copy(update={"lines": tuple(filled_in)}))

    def pronounced(self, translation: Translation) -> Translation:
        """The translation with each line's `say` for the words that it has: to be called again when texts have changed."""
        lines = tuple(self._pronounced(line, translation.language) for line in translation.lines)
        return translation if lines == translation.lines else translation.model_copy(update={"lines": lines})

    def _pronounced(self, line: TranslatedLine, language: str) -> TranslatedLine:
        wanted = {word: respelt for word, respelt in joined_say(self.say, self.say_in.get(line.id, {})).items() if respelt}
        if wanted:
            used = {word for _, _, word in _places(line.text, wanted, language)}
            wanted = {word: respelt for word, respelt in wanted.items() if word in used}
        return line if wanted == line.say else line.model_copy(update={"say": wanted})


# Applying edits


class _Line(NamedTuple):
    """A line while edits are applied."""

    utterance: Utterance
    translated: TranslatedLine
    say: dict[str, str]
    pending: bool = False  # to be translated again
    given: bool = False  # a person gave the translation
    before: _Line | None = None  # as it was before it was silenced
    known: frozenset[str] = frozenset()  # source texts that it has had by persons' doing

    @property
    def id(self) -> str:
        return self.utterance.id


class _NoPlace(Exception):
    """The edit can't be applied, and why."""


def revised(transcript: Transcript, translation: Translation, edits: Edits) -> Revision:
    """Apply the edits in their order. Nothing is lost in silence: each edit has its outcome.

    Pronunciations of a line come before those of the whole lesson, whichever was made first.

    Args:
        transcript: as recognised.
        translation: of that transcript, a line an utterance.
    """
    if not edits.edits:
        return Revision(transcript=transcript, translation=translation)
    translated = {line.id: line for line in translation.lines}
    lines = [
        _Line(utterance, line, line.say, known=frozenset({utterance.text}))
        for utterance in transcript.utterances
        for line in [translated.get(utterance.id, TranslatedLine(id=utterance.id, text=""))]
    ]
    corrected: dict[str, set[str]] = {}
    for edit in (*edits.edits, *edits.undone):
        if edit.new_source_text is not None:
            corrected.setdefault(edit.line, set()).add(edit.new_source_text)
    say: dict[str, str] = {}
    outcomes = []
    for edit in edits.edits:
        if not edit.line:
            say = joined_say(say, edit.say or {})
            outcomes.append(Outcome(edit=edit.id, became="applied"))
            continue
        try:
            position = place_of(edit.line, edit.start, edit.end, [line.utterance for line in lines])
            if position is None:
                raise _NoPlace(f"there is no line {edit.line} any more, and none at {edit.start:.1f} to {edit.end:.1f} s")
            surprise = _surprise(edit, lines[position], corrected.get(edit.line, set()))
            now = lines[position].utterance.text if surprise else ""
            seen = list(lines)
            if surprise:
                seen[position] = _flagged(seen[position], f"{FLAG}the source line under it has changed, it was “{shortened(surprise)}”")
            lines, touched = _applied(edit, seen, position, transcript.language, translation.language)
        except _NoPlace as why:
            outcomes.append(Outcome(edit=edit.id, became="without a place", reason=str(why)))
        else:
            became: Literal["applied", "applied to a changed line"] = "applied to a changed line" if surprise else "applied"
            outcomes.append(Outcome(edit=edit.id, became=became, lines=touched, was=surprise, now=now))
    utterances = tuple(line.utterance for line in lines)
    revision = Revision(
        transcript=transcript if utterances == transcript.utterances else transcript.model_copy(update={"utterances": utterances}),
        translation=translation.model_copy(update={"lines": tuple(_with_sound_references([line.translated for line in lines]))}),
        to_translate=tuple(line.id for line in lines if line.pending and not line.given),
        outcomes=tuple(outcomes),
        say={word: respelt for word, respelt in say.items() if respelt},
        say_in={line.id: line.say for line in lines if line.say},
    )
    return revision.model_copy(update={"translation": revision.pronounced(revision.translation)})


def place_of(line: str, start: float, end: float, utterances: Sequence[Utterance]) -> int | None:
    """Which line is the one with this id or, when none has it, the one that lies where that lay."""
    for position, utterance in enumerate(utterances):
        if utterance.id == line:
            return position
    shares = [_share_in_common(start, end, utterance) for utterance in utterances]
    best = max(range(len(shares)), key=shares.__getitem__, default=None)
    return best if best is not None and shares[best] >= OVERLAP else None


def _share_in_common(start: float, end: float, utterance: Utterance) -> float:
    longer = max(end - start, utterance.end - utterance.start)
    return (min(end, utterance.end) - max(start, utterance.start)) / longer if longer > 0 else 0.0


def _surprise(edit: Edit, line: _Line, corrected: set[str]) -> str:
    """The source text that the person saw, when what is there now is neither that nor a person's own doing."""
    seen = edit.source_text
    if seen == line.utterance.text:
        return ""
    return "" if edit.line == line.id and (seen in line.known or seen in corrected) else seen


def _flagged(line: _Line, flag: str) -> _Line:
    flags = line.translated.flags
    return line if flag in flags else line._replace(translated=line.translated.model_copy(update={"flags": (*flags, flag)}))


def _applied(
    edit: Edit, before: Sequence[_Line], position: int, source_language: str, target_language: str
) -> tuple[list[_Line], tuple[str, ...]]:
    """The lines with one edit applied, and the ids of those that it made or changed."""
    lines = list(before)
    if edit.merge is not None:
        lines = _merged(lines, position, edit.merge, source_language, target_language)
    line = lines[position]
    if edit.new_source_text is not None:
        line = _corrected(line, edit.new_source_text, source_language)
    if edit.text is not None:
        line = _with_text(line, edit.text)
    if edit.silent is not None:
        line = _silenced(line) if edit.silent else _speaking(line)
    if edit.voice is not None:
        line = line._replace(translated=line.translated.model_copy(update={"voice": edit.voice or None}))
    if edit.say is not None:
        line = line._replace(say=joined_say(line.say, edit.say))
    lines[position] = line
    parts = [line]
    if edit.split is not None:
        parts = _split(line, edit.split, source_language)
        lines[position : position + 1] = parts
        lines = [_said_instead(other, {line.id}, (parts[0] if at < position else parts[-1]).id) for at, other in enumerate(lines)]
    if len({one.id for one in lines}) < len(lines):
        raise _NoPlace("the lines that it makes are the same words at the same time: nothing would tell them apart")
    return lines, tuple(part.id for part in parts)


def _corrected(line: _Line, text: str, language: str) -> _Line:
    if text == line.utterance.text:
        return line
    utterance = line.utterance.model_copy(update={"text": text, "words": _words_of(line.utterance, text, language)})
    return line._replace(utterance=utterance, pending=True, known=line.known | {text})


def _with_text(line: _Line, text: str) -> _Line:
    if not text:
        return _silenced(line)
    return line._replace(translated=_in_persons_words(line.translated, text), pending=False, given=True, before=None)


def _in_persons_words(translated: TranslatedLine, text: str) -> TranslatedLine:
    return translated.model_copy(update={"text": text, "edited": True, "said_with": None, "flags": _own_flags(translated.flags)})


def _own_flags(flags: Iterable[str]) -> tuple[str, ...]:
    return tuple(flag for flag in flags if not flag.startswith("translation:"))


def _silenced(line: _Line) -> _Line:
    """A line that says nothing, by a person's wish. It isn't translated again for that: there is nothing to say."""
    return line._replace(translated=_in_persons_words(line.translated, ""), given=True, before=line.before or line)


def _speaking(line: _Line) -> _Line:
    """What it said before it was silenced, when it was."""
    if line.before is None:
        return line
    was = line.before.translated
    restored = {
        "text": was.text,
        "said_with": was.said_with,
        "edited": was.edited,
        "flags": tuple(dict.fromkeys((*was.flags, *line.translated.flags))),
    }
    return line._replace(translated=line.translated.model_copy(update=restored), given=line.before.given, before=None)


def _merged(lines: Sequence[_Line], position: int, following: int, source_language: str, target_language: str) -> list[_Line]:
    parts = lines[position : position + following + 1]
    if following < 1 or len(parts) <= following:
        raise _NoPlace(f"it joins {following} following lines, and there are {len(parts) - 1}")
    line = _joined(parts, source_language, target_language)
    if line.pending and line.given:
        line = _flagged(line, f"{FLAG}a part of its translation is of the words before they were corrected")
    ids = {part.id for part in parts}
    others = [*lines[:position], line, *lines[position + following + 1 :]]
    return [_said_instead(other, ids, line.id) for other in others]


def _said_instead(line: _Line, carriers: set[str], carrier: str) -> _Line:
    """The line, said with another one than those."""
    if line.translated.said_with not in carriers:
        return line
    return line._replace(translated=line.translated.model_copy(update={"said_with": carrier}))


def _joined(parts: Sequence[_Line], source_language: str, target_language: str) -> _Line:
    first = parts[0].utterance
    text = joint(source_language).join(part.utterance.text for part in parts if part.utterance.text)
    words = [part.utterance.words or _words_of(part.utterance, part.utterance.text, source_language) for part in parts]
    weights = [len(said) or 1 for said in words]
    utterance = first.model_copy(
        update={
            "id": Utterance.id_of(text, first.start),
            "text": text,
            "end": parts[-1].utterance.end,
            "confidence": sum(part.utterance.confidence * weight for part, weight in zip(parts, weights, strict=True)) / sum(weights),
            "words": tuple(itertools.chain.from_iterable(words)) if any(part.utterance.words for part in parts) else (),
        }
    )
    translated = _said_together([part.translated for part in parts], utterance.id, target_language)
    silenced = not translated.text and any(part.before for part in parts)
    return _Line(
        utterance,
        translated,
        joined_say(*(part.say for part in reversed(parts))),
        pending=any(part.pending for part in parts),
        given=silenced or any(part.given and part.translated.text for part in parts),
        before=_joined([_speaking(part) for part in parts], source_language, target_language) if silenced else None,
        known=frozenset({text}),
    )


def _said_together(parts: Sequence[TranslatedLine], line: str, language: str) -> TranslatedLine:
    text = joint(language).join(part.text for part in parts if part.text)
    ids = {part.id for part in parts}
    carriers = [part.said_with for part in parts if part.said_with and part.said_with not in ids]
    return TranslatedLine(
        id=line,
        text=text,
        said_with=carriers[0] if carriers and not text else None,
        flags=tuple(dict.fromkeys(flag for part in parts for flag in part.flags)),
        attempts=max(part.attempts for part in parts),
        voice=next((part.voice for part in parts if part.voice), None),
        edited=True,
    )


def _split(line: _Line, texts: Sequence[str], language: str) -> list[_Line]:
    """A line for each part; the source is cut between words."""
    utterance = line.utterance
    words = utterance.words
    if in_captions("".join(word.text for word in words)) != in_captions(utterance.text):
        words = _words_of(utterance, utterance.text, language)
    if len(words) < len(texts):
        raise _NoPlace(f"it has {len(texts)} parts, and the source line has {len(words)} words")
    cuts = [0, *_cuts(words, texts), len(words)]
    lines = []
    start = utterance.start
    for at, ((first, last), text) in enumerate(zip(itertools.pairwise(cuts), texts, strict=True)):
        said = words[first:last]
        source = joint(language).join(word.text.strip() for word in said)
        end = utterance.end if at == len(texts) - 1 else min(max(said[-1].end, start), utterance.end)
        part = utterance.model_copy(
            update={
                "id": Utterance.id_of(source, start),
                "text": source,
                "start": start,
                "end": end,
                "confidence": sum(word.confidence for word in said) / len(said),
                "words": tuple(said) if utterance.words else (),
            }
        )
        translated = _in_persons_words(line.translated, text).model_copy(update={"id": part.id})
        lines.append(
            line._replace(utterance=part, translated=translated, pending=False, given=True, before=None, known=frozenset({source}))
        )
        start = min(max(words[last].start, end), utterance.end) if last < len(words) else end
    return lines


def _cuts(words: Sequence[Word], texts: Sequence[str]) -> list[int]:
    """Before which words to cut: near each part's share of the characters, at pauses and at the ends of clauses. Dynamic programming."""
    places = list(itertools.accumulate((len(word.text.strip()) for word in words), initial=0))
    shares = list(itertools.accumulate(max(len(text), 1) for text in texts))
    scale = (places[-1] or 1) / shares[-1]
    ordinary = (places[-1] or 1) / len(texts)

    def cost(part: int, cut: int) -> float:
        before, after = words[cut - 1], words[cut]
        pause = min(max(after.start - before.end, 0.0), 1.0)
        clause = before.text.rstrip(_CLOSERS)[-1:]
        ends = _SENTENCE_WORTH if clause and clause in _CLAUSE_ENDS else 0.0
        return abs(places[cut] - shares[part] * scale) / ordinary - _PAUSE_WORTH * pause - ends

    best = [0.0] + [math.inf] * (len(words) - 1)  # by cut: the cost of the parts up to there
    came_from: list[list[int]] = []
    for part in range(len(texts) - 1):
        least, at = math.inf, 0
        costs, origins = [math.inf], [0]
        for cut in range(1, len(words)):
            if best[cut - 1] < least:
                least, at = best[cut - 1], cut - 1
            costs.append(least + cost(part, cut))
            origins.append(at)
        best = costs
        came_from.append(origins)
    # Each part to come needs a word: the last cut is the cheapest one from which all earlier parts have theirs.
    cut = min(range(1, len(words)), key=best.__getitem__)
    cuts = [cut]
    for origins in reversed(came_from[1:]):
        cut = origins[cut]
        cuts.append(cut)
    return cuts[::-1]


def _words_of(utterance: Utterance, text: str, language: str) -> tuple[Word, ...]:
    """The text as words with times: from the utterance's words where they are the same, evenly in between."""
    new = _tokens(text, language)
    old = list(utterance.words)
    words: list[Word] = []
    blocks = difflib.SequenceMatcher(None, [word.text.strip() for word in old], new, autojunk=False).get_matching_blocks()
    old_at, new_at, time = 0, 0, utterance.start
    for block in blocks:
        until = old[block.a].start if block.a < len(old) else utterance.end
        until = min(max(until, time), max(utterance.end, time))
        between = new[new_at : block.b]
        total = sum(map(len, between))
        sure = [word.confidence for word in old[old_at : block.a]] or [utterance.confidence]
        for token in between:
            end = min(time + (until - time) * len(token) / total, until)
            total -= len(token)
            words.append(Word(text=token, start=time, end=end, confidence=sum(sure) / len(sure), speaker=utterance.speaker))
            time = end
        words.extend(old[block.a : block.a + block.size])
        if block.size:
            time = max(time, old[block.a + block.size - 1].end)
        old_at, new_at = block.a + block.size, block.b + block.size
    return tuple(words)


def _tokens(text: str, language: str) -> list[str]:
    """Words; in languages without spaces characters with their marks, foreign words whole."""
    if base_language(language) not in UNSPACED:
        return text.split()
    tokens: list[str] = []
    for word in text.split():
        start = 0
        for at in range(1, len(word)):
            before, after = word[at - 1], word[at]
            joined = unicodedata.category(after)[0] == "M" or unicodedata.category(after) == "Cf" or before == "\u200d"
            if not joined and not in_one_word(before, after):
                tokens.append(word[start:at])
                start = at
        tokens.append(word[start:])
    return tokens


def _with_sound_references(lines: Sequence[TranslatedLine]) -> list[TranslatedLine]:
    """A line is said with another only while it has no words and the other has some."""
    spoken = {line.id for line in lines if line.text}

    def sound(line: TranslatedLine) -> TranslatedLine:
        if line.said_with is None or (not line.text and line.said_with in spoken):
            return line
        flags = line.flags if line.text else (*line.flags, f"{FLAG}the line whose words said this one too says nothing now")
        return line.model_copy(update={"said_with": None, "flags": flags})

    return [sound(line) for line in lines]


def joint(language: str) -> str:
    """What stands between two words."""
    return "" if base_language(language) in UNSPACED else " "


def in_one_word(before: str, after: str) -> bool:
    """Whether two characters next to each other belong to one word even in a language without spaces: a foreign word."""
    return all(char.isalnum() and char < "\u0e00" for char in (before, after))


def shortened(text: str) -> str:
    """As much of a text as a message has room for."""
    return text if len(text) <= _QUOTED else text[: _QUOTED - 1] + "…"


# Pronunciation


def spoken_text(text: str, say: Mapping[str, str], language: str) -> str:
    """The text as a voice is given it: words replaced by their respellings.

    Whole words, in capitals or not, the longest first; in languages without spaces wherever the characters are.

    >>> spoken_text("NGINX isn't nginxes.", {"nginx": "engine X"}, "en")
    "engine X isn't nginxes."
    """
    parts, last = [], 0
    for start, end, word in _places(text, say, language):
        parts += [text[last:start], say[word]]
        last = end
    return "".join([*parts, text[last:]])


def _places(text: str, say: Mapping[str, str], language: str) -> list[tuple[int, int, str]]:
    """Where words are that are respelt: start, end, the word as `say` has it. None overlap."""
    unspaced = base_language(language) in UNSPACED
    found = []
    for word, respelt in say.items():
        if not word or not respelt:
            continue
        # Within a look-ahead, so that places overlap: the first may turn out to be no whole word.
        for match in re.finditer(f"(?=({re.escape(word)}))", text, re.IGNORECASE):
            start, end = match.span(1)
            if unspaced or not (_is_in_word(text, start) or _is_in_word(text, end)):
                found.append((start, -end, word))
    places, last = [], 0
    for start, minus_end, word in sorted(found):
        if start >= last:
            last = -minus_end
            places.append((start, last, word))
    return places


def _is_in_word(text: str, at: int) -> bool:
    """Whether a word goes through here."""
    return 0 < at < len(text) and _is_letter(text[at - 1]) and _is_letter(text[at])


def _is_letter(char: str) -> bool:
    return char.isalnum() or char == "_" or unicodedata.category(char).startswith("M") or char in _JOINERS


def joined_say(*all_say: Mapping[str, str]) -> dict[str, str]:
    """Later pronunciations of a word in place of earlier ones, however it is written."""
    by_word: dict[str, tuple[str, str]] = {}
    for say in all_say:
        for word, respelt in say.items():
            by_word[word.casefold()] = (word, respelt)
    return dict(by_word.values())


# Making edits


def new_edit(transcript: Transcript, line: str, made: str, **changes: Any) -> Edit:
    """An edit of a line as the lesson is now, checked.

    Args:
        transcript: as it is now, with the edits there are.
        line: id; "" for pronunciations in the whole lesson.
        made: ISO 8601, UTC.
        changes: `text`, `new_source_text`, `voice`, `silent`, `say`, `merge`, `split`.

    Raises:
        BadInput: no such line, or nothing that could be changed so (`check_edit`).
    """
    found = next((utterance for utterance in transcript.utterances if utterance.id == line), None) if line else None
    under = {} if found is None else {"source_text": found.text, "start": found.start, "end": found.end}
    return check_edit(Edit(line=line, made=made, **under, **changes), transcript)


def check_edit(edit: Edit, transcript: Transcript) -> Edit:
    """The edit, its texts cleaned of what can't be seen and can do harm, under its id.

    Raises:
        BadInput: there is no such line.
        BadSetting: the change is empty, too long, or can't be made.
    """
    where = f"line {edit.line}" if edit.line else "the whole lesson"
    given = {change for change in _CHANGES if getattr(edit, change) is not None}
    if not given:
        raise BadSetting(f"{where}: the edit changes nothing")
    if not edit.line and given != {"say"}:
        raise BadSetting(f"{where}: only pronunciations can be set for all lines")
    position = _checked_position(edit, transcript) if edit.line else 0
    if edit.merge is not None:
        _check_merge(where, edit.merge, len(transcript.utterances) - position - 1)
    if edit.silent and {"text", "split"} & given:
        raise BadSetting(f"{where}: a silent line can't be given a text at once")
    if edit.split is not None and {"text", "merge"} & given:
        raise BadSetting(f"{where}: split it alone; its parts are its text")
    changes: dict[str, Any] = {}
    if edit.text is not None:
        changes["text"] = _checked_text(where, "the translation", edit.text)
    if edit.new_source_text is not None:
        changes["new_source_text"] = _checked_text(where, "the source text", edit.new_source_text)
        if not changes["new_source_text"]:
            raise BadSetting(f'{where}: the source text is empty; to silence the line set its translation to ""')
    if edit.voice is not None:
        changes["voice"] = _checked_text(where, "the voice", edit.voice, LONGEST_VOICE)
    if edit.say is not None:
        changes["say"] = _checked_say(where, edit.say)
    if edit.split is not None:
        source = changes.get("new_source_text", transcript.utterances[position].text)
        changes["split"] = _checked_parts(where, edit.split, len(_tokens(source, transcript.language)))
    return edit.model_copy(update=changes).with_id()


def _checked_position(edit: Edit, transcript: Transcript) -> int:
    ids = [utterance.id for utterance in transcript.utterances]
    if edit.line not in ids:
        near = difflib.get_close_matches(edit.line[:100], ids, n=3, cutoff=0.5)
        hint = f"the nearest are {', '.join(near)}" if near else "ids are in timeline.json and lines.csv"
        raise BadInput(f"line {shortened(edit.line)}: there is no such line; {hint}")
    return ids.index(edit.line)


def _check_merge(where: str, following: int, there: int) -> None:
    if not 1 <= following <= there:
        reason = f"{there} lines follow it" if there else "it is the last line"
        raise BadSetting(f"{where}: it can't be joined with the {following} following lines: {reason}")


def _checked_text(where: str, what: str, text: str, limit: int = LONGEST_TEXT) -> str:
    cleaned = clean(text)
    if len(cleaned) > limit:
        raise BadSetting(f"{where}: {what} has {len(cleaned)} characters, the limit is {limit}")
    return cleaned


def _checked_parts(where: str, parts: Sequence[str], words: int) -> tuple[str, ...]:
    if not 2 <= len(parts) <= MOST_PARTS:
        raise BadSetting(f"{where}: it is split in {len(parts)} parts, there must be 2 to {MOST_PARTS}")
    cleaned = tuple(_checked_text(where, f"part {number}", part) for number, part in enumerate(parts, 1))
    if not all(cleaned):
        raise BadSetting(f"{where}: part {cleaned.index('') + 1} of the split is empty")
    if words < len(cleaned):
        raise BadSetting(f"{where}: it is split in {len(cleaned)} parts, and its source has {words} words")
    return cleaned


def _checked_say(where: str, say: Mapping[str, str]) -> dict[str, str]:
    if len(say) > MOST_WORDS:
        raise BadSetting(f"{where}: {len(say)} pronunciations, the limit is {MOST_WORDS}")
    if not say:
        raise BadSetting(f"{where}: the edit changes nothing")
    checked = {}
    for word, respelt in say.items():
        key = _checked_text(where, "a word to pronounce", word, LONGEST_WORD)
        if not key:
            raise BadSetting(f"{where}: a word to pronounce is empty")
        checked[key] = _checked_text(where, f"the pronunciation of {shortened(key)}", respelt, LONGEST_WORD)
    return checked


def _some(names: Iterable[str]) -> str:
    """A few names for a message."""
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:5]) + (f" and {len(unique) - 5} more" if len(unique) > 5 else "") if unique else "none"
