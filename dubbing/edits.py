"""A reviewer's changes: what an edit is, how edits change a lesson, and how they are read from the files of the lesson's folder.

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
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import pysubs2
from pydantic import Field

from dubbing.documents import EDITABLE, TWINS, changed_fields, field_digest, in_captions, lines_checksum, written_captions
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
        wanted = {word: respelt for word, respelt in _joined_say(self.say, self.say_in.get(line.id, {})).items() if respelt}
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
            say = _joined_say(say, edit.say or {})
            outcomes.append(Outcome(edit=edit.id, became="applied"))
            continue
        try:
            position = _position(edit, [line.utterance for line in lines])
            surprise = _surprise(edit, lines[position], corrected.get(edit.line, set()))
            now = lines[position].utterance.text if surprise else ""
            seen = list(lines)
            if surprise:
                seen[position] = _flagged(seen[position], f"{FLAG}the source line under it has changed, it was “{_short(surprise)}”")
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


def _position(edit: Edit, utterances: Sequence[Utterance]) -> int:
    """Where the edit's line is."""
    at = _found(edit.line, edit.start, edit.end, utterances)
    if at is None:
        raise _NoPlace(f"there is no line {edit.line} any more, and none at {edit.start:.1f} to {edit.end:.1f} s")
    return at


def _found(line: str, start: float, end: float, utterances: Sequence[Utterance]) -> int | None:
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
        line = line._replace(say=_joined_say(line.say, edit.say))
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
    text = _joint(source_language).join(part.utterance.text for part in parts if part.utterance.text)
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
        _joined_say(*(part.say for part in reversed(parts))),
        pending=any(part.pending for part in parts),
        given=silenced or any(part.given and part.translated.text for part in parts),
        before=_joined([_speaking(part) for part in parts], source_language, target_language) if silenced else None,
        known=frozenset({text}),
    )


def _said_together(parts: Sequence[TranslatedLine], line: str, language: str) -> TranslatedLine:
    text = _joint(language).join(part.text for part in parts if part.text)
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
        source = _joint(language).join(word.text.strip() for word in said)
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
            words.append(Word(text=token, start=time, end=end, confidence=sum(sure) / len(sure)))
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
            foreign = all(char.isalnum() and char < "\u0e00" for char in (before, after))
            joined = unicodedata.category(after)[0] == "M" or unicodedata.category(after) == "Cf" or before == "\u200d"
            if not foreign and not joined:
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


def _joint(language: str) -> str:
    return "" if base_language(language) in UNSPACED else " "


def _short(text: str) -> str:
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


def _joined_say(*all_say: Mapping[str, str]) -> dict[str, str]:
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
        raise BadInput(f"line {_short(edit.line)}: there is no such line; {hint}")
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
        checked[key] = _checked_text(where, f"the pronunciation of {_short(key)}", respelt, LONGEST_WORD)
    return checked


def _some(names: Iterable[str]) -> str:
    """A few names for a message."""
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:5]) + (f" and {len(unique) - 5} more" if len(unique) > 5 else "") if unique else "none"


# Reading what a person changed in the lesson's folder

TIMELINE = "timeline.json"
LARGEST_TIMELINE = 50_000_000  # bytes: a day of speech has a tenth of that
LARGEST_CAPTIONS = 20_000_000  # bytes: a day of word-level captions in ASS has about half
LONGEST_CAPTION_LINE = 20_000  # characters

NEAR = 0.5  # seconds by which a cue may lie off its line
ANCHOR_REACH = 5.0  # seconds by which unchanged cues may lie off their line
_BLIND_REACH = 1.0  # seconds, where only the digest of the delivered words is known
_CANDIDATES = 40  # cues or lines that are looked at on each side
_LONGEST_RUN = 500  # cues of a line


class CaptionFile(NamedTuple):
    """A caption file of the lesson's folder."""

    name: str  # for messages
    kind: Literal["srt", "vtt", "ass"]
    content: bytes


class _Cue(NamedTuple):
    number: int  # in the file, from 1
    start: float  # seconds
    end: float
    text: str
    bare: str


class _Delivered(NamedTuple):
    """A line of timeline.json and the line of the lesson that it is now."""

    entry: Mapping[str, Any]
    changed: frozenset[str]  # fields
    now: Utterance | None
    said: TranslatedLine | None


class _Wish(NamedTuple):
    """A text that a person gave a line, and the file where."""

    text: str
    file: str


def changes_in(
    timeline: bytes,
    target: Sequence[CaptionFile] = (),
    source: Sequence[CaptionFile] = (),
    *,
    transcript: Transcript,
    translation: Translation,
    voice: str,
    made: str,
    lesson: str = "",
) -> list[Edit]:
    """The edits that a person made in the files of the lesson's folder, at most one a line, in the order of the lines.

    What was delivered is told by timeline.json itself: its checksums say which fields are no longer as they were written. Captions have
    changed where a line's cues no longer say what was delivered. What the lesson says already is no edit.

    Args:
        timeline: content of timeline.json.
        target: caption files of the translation.
        source: caption files in the lecturer's language.
        transcript: as the run has it now, with the edits there are; likewise `translation`.
        voice: the run's.
        made: ISO 8601, UTC: when the edits are said to be made.
        lesson: sha256 of the recording, to refuse another lesson's folder; "" doesn't.

    Raises:
        BadInput: a file can't be read, or changes something that can't be changed there, or two files disagree; one line that names
            the file and the line.
    """
    document, changed = _document(timeline)
    for entry, fields in zip(document["lines"], changed, strict=True):
        if "" in fields:
            raise BadInput(
                f"{TIMELINE}: line {_short(entry['id'])}: only {', '.join(EDITABLE[:-1])} and {EDITABLE[-1]} can be changed here"
            )
    _check_lines(document, transcript)
    said = {line.id: line for line in translation.lines}
    known = {utterance.id: (utterance, said.get(utterance.id)) for utterance in transcript.utterances}
    delivered = []
    for entry, fields in zip(document["lines"], changed, strict=True):
        now = known.get(entry["id"])
        if now is None and (at := _found("", entry["source_start"], entry["source_end"], transcript.utterances)) is not None:
            now = known[transcript.utterances[at].id]
        delivered.append(_Delivered(entry, fields, *(now or (None, None))))
    texts = _caption_wishes(target, delivered, "translation", translation.language)
    source_texts = _caption_wishes(source, delivered, "source_text", transcript.language)
    edits = []
    for at, one in enumerate(delivered):
        wishes, source_wishes = texts.get(at, []), source_texts.get(at, [])
        if not (one.changed or wishes or source_wishes):
            continue
        _check_lesson(document, lesson, translation.language)
        if one.now is None or one.said is None:
            where = f"{TIMELINE}: line {_short(one.entry['id'])}"
            raise BadInput(
                f"{where}: it was changed, but the lesson has no such line any more; take the change back, then change the new line"
            )
        if edit := _edit_of(one, wishes, source_wishes, voice, made):
            edits.append(check_edit(edit, transcript))
    return edits


def _edit_of(one: _Delivered, texts: Sequence[_Wish], source_texts: Sequence[_Wish], voice: str, made: str) -> Edit | None:
    """What differs between a person's wishes and what the lesson says now."""
    assert one.now is not None and one.said is not None
    entry = one.entry
    changes: dict[str, Any] = {}
    text = _agreed(entry, "translation", texts)
    if text is not None and text != one.said.text:
        changes |= {"text": text} if text else {"silent": True}
    source_text = _agreed(entry, "source_text", source_texts)
    if source_text is not None and source_text != one.now.text:
        changes["new_source_text"] = source_text
    if "voice" in one.changed:
        wanted = clean(entry["voice"])
        if wanted != (one.said.voice or voice) and (wanted or one.said.voice):
            changes["voice"] = "" if wanted == voice else wanted
    if "say" in one.changed:
        old = _joined_say(one.said.say)
        new = _joined_say({clean(word): clean(respelt) for word, respelt in entry["say"].items()})
        kept = {word.casefold() for word in new}
        say = {word: respelt for word, respelt in new.items() if old.get(word) != respelt}
        say |= {word: "" for word in old if word.casefold() not in kept}
        if say:
            changes["say"] = say
    if not changes:
        return None
    return Edit(line=one.now.id, source_text=one.now.text, start=one.now.start, end=one.now.end, made=made, **changes)


def _agreed(entry: Mapping[str, Any], field: str, wishes: Sequence[_Wish]) -> str | None:
    """The one text that all files give the line; the first one's spelling of it."""
    if not wishes:
        return None
    for other in wishes[1:]:
        if in_captions(other.text) != in_captions(wishes[0].text):
            what = "translations" if field == "translation" else "source texts"
            raise BadInput(f"line {_short(entry['id'])}: {wishes[0].file} and {other.file} give it different {what}")
    return wishes[0].text


# timeline.json

_TEXT, _SECONDS, _WORDS = "text", "a number of seconds", "a mapping of words to respellings"
_FIELDS = dict.fromkeys(("id", "source_text", "translation", "voice", "engine", "checksum"), _TEXT)
_FIELDS |= dict.fromkeys(("source_start", "source_end", "start", "end"), _SECONDS) | {"say": _WORDS}


def _document(content: bytes) -> tuple[dict[str, Any], list[frozenset[str]]]:
    """The document, of which all that is read later has its type, and each line's `changed_fields`."""
    if len(content) > LARGEST_TIMELINE:
        raise BadInput(f"{TIMELINE}: {len(content) / 1e6:.0f} MB, the limit is {LARGEST_TIMELINE / 1e6:.0f} MB")
    try:
        document = json.loads(_decoded(content, TIMELINE), parse_constant=_refuse_constant)
        _check_types(document)
        return document, [frozenset(changed_fields(entry)) for entry in document["lines"]]
    except json.JSONDecodeError as error:
        raise BadInput(f"{TIMELINE}: no JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise BadInput(f"{TIMELINE}: nested too deeply") from None
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{TIMELINE}: no JSON that we write: {_short(str(error))}") from None


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _check_types(document: Any) -> None:
    if not isinstance(document, dict) or not isinstance(document.get("lines"), list):
        raise BadInput(f"{TIMELINE}: not a timeline that coursedub wrote: it has no lines")
    for field in ("lesson_sha256", "source_language", "target_language", "checksum"):
        if not isinstance(document.get(field), str):
            raise BadInput(f"{TIMELINE}: the field {field} is missing or no text; was it written by this version of coursedub?")
    for number, entry in enumerate(document["lines"], 1):
        if not isinstance(entry, dict):
            raise BadInput(f"{TIMELINE}: line number {number} is no line")
        name = _short(entry["id"]) if isinstance(entry.get("id"), str) else f"number {number}"
        for field, kind in _FIELDS.items():
            if field not in entry:
                raise BadInput(f"{TIMELINE}: line {name}: the field {field} is missing")
            if not _is_a(kind, entry[field]):
                raise BadInput(f"{TIMELINE}: line {name}: {field} must be {kind}")


def _is_a(kind: str, value: Any) -> bool:
    match value:
        case str():
            return kind == _TEXT
        case dict():
            return kind == _WORDS and all(isinstance(respelt, str) for respelt in value.values())
        case bool():
            return False
        case int() | float():
            return kind == _SECONDS and math.isfinite(value)
    return False


def _check_lines(document: Mapping[str, Any], transcript: Transcript) -> None:
    """The lines are those that were delivered."""
    ids = [entry["id"] for entry in document["lines"]]
    if len(set(ids)) < len(ids):
        doubled = Counter(ids).most_common(1)[0][0]
        raise BadInput(f"{TIMELINE}: line {_short(doubled)} is there more than once")
    if lines_checksum(document) == document["checksum"]:
        return
    there = [utterance.id for utterance in transcript.utterances]
    known, given = set(there), set(ids)
    if foreign := next((one for one in ids if one not in known), None):
        raise BadInput(f"{TIMELINE}: line {_short(foreign)}: there is no such line in this lesson")
    if missing := next((one for one in there if one not in given), None):
        raise BadInput(f'{TIMELINE}: line {missing} was removed; to silence it, leave it there and set its translation to ""')
    raise BadInput(f"{TIMELINE}: the languages, the lesson and the order of the lines can't be changed here")


def _check_lesson(document: Mapping[str, Any], lesson: str, language: str) -> None:
    if lesson and document["lesson_sha256"] and document["lesson_sha256"] != lesson:
        raise BadInput(f"{TIMELINE}: it was changed, but it is of another lesson")
    if document["target_language"] != language:
        raise BadInput(f"{TIMELINE}: it was changed, but its target_language is {_short(document['target_language'])}, not {language}")


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{name}: not UTF-8 text (byte {error.start})") from None


# Captions


def _caption_wishes(files: Sequence[CaptionFile], delivered: Sequence[_Delivered], field: str, language: str) -> dict[int, list[_Wish]]:
    """What persons gave lines, by the line's place: first timeline.json's, then each file's that isn't the delivered text."""
    wishes: dict[int, list[_Wish]] = {}
    for at, one in enumerate(delivered):
        if field in one.changed:
            wishes[at] = [_Wish(clean(one.entry[field]), TIMELINE)]
    for file in files:
        for at, text in _changed_captions(file, delivered, field, language).items():
            if not text and field == "source_text":
                where = f"{file.name}: line {_short(delivered[at].entry['id'])}"
                raise BadInput(f'{where}: its captions were removed; to silence it, set its translation to ""')
            wishes.setdefault(at, []).append(_Wish(text, file.name))
    return wishes


_NOTHING = field_digest("")


class _Span(NamedTuple):
    """Where a line's captions lie, and what they say when nobody has changed them."""

    at: int  # the line's place in the document
    start: float
    end: float
    digest: str  # of what was delivered, `in_captions`
    bare: str | None  # what was delivered, unless timeline.json says something else now

    @property
    def shown(self) -> bool:
        return self.digest != _NOTHING

    def begins_with(self, bare: str) -> bool:
        return self.bare is None or self.bare.startswith(bare)

    def says(self, bare: str) -> bool:
        return bare == self.bare if self.bare is not None else field_digest(bare) == self.digest


def _changed_captions(file: CaptionFile, delivered: Sequence[_Delivered], field: str, language: str) -> dict[int, str]:
    """Texts of the lines, by their place, whose cues say neither what was delivered nor what the lesson says now."""
    cues = _cues(file)
    spans = sorted((_span(at, one, field) for at, one in enumerate(delivered)), key=lambda span: span.start)
    if not cues and any(span.shown for span in spans):
        raise BadInput(f"{file.name}: there are no captions in it")
    changed = {}
    for span, own in zip(spans, _shared_out(cues, spans, file.name), strict=True):
        one = delivered[span.at]
        text = _joined_cues(own, language)
        now = _now(one, field)
        if span.says(bare := in_captions(text)) or (now is not None and bare == in_captions(now)):
            continue
        changed[span.at] = _with_plain_signs(text, str(one.entry[field]) if now is None or field not in one.changed else now)
    return changed


def _span(at: int, one: _Delivered, field: str) -> _Span:
    digest = written_captions(one.entry, field)
    # A line that wasn't shown has no place of its own in the new track: captions for it belong where the lecturer says it.
    placed = field == "translation" and digest != _NOTHING
    start, end = (one.entry[time] for time in (("start", "end") if placed else ("source_start", "source_end")))
    return _Span(at, start, max(start, end), digest, None if field in one.changed else in_captions(one.entry[field]))


def _now(one: _Delivered, field: str) -> str | None:
    if one.now is None or one.said is None:
        return None
    return one.said.text if field == "translation" else one.now.text


def _with_plain_signs(text: str, delivered: str) -> str:
    """Full-width twins as the plain signs that they stand for, where the delivered text had those."""
    return text.translate({ord(twin): sign for twin, sign in TWINS.items() if sign in delivered and twin not in delivered})


def _joined_cues(cues: Sequence[_Cue], language: str) -> str:
    joined = ""
    for line in (line for cue in sorted(cues, key=lambda cue: cue.start) for line in cue.text.split("\n")):
        if not (part := clean(line)):
            continue
        # Between two foreign words there is a space in any language.
        foreign = bool(joined) and all(char.isalnum() and char < "\u0e00" for char in (joined[-1], part[0]))
        joined += (" " if joined and (foreign or _joint(language)) else "") + part
    return joined


def _shared_out(cues: Sequence[_Cue], spans: Sequence[_Span], name: str) -> list[list[_Cue]]:
    """Each line's cues. Lines whose words are there unchanged are found by them; other cues belong to the line that they overlap most."""
    shares: list[list[_Cue]] = [[] for _ in spans]
    anchors = _as_delivered(cues, spans) or _anchors(cues, spans)
    for position, first, last in anchors:
        shares[position] = list(cues[first:last])
    anchored = {position for position, _, _ in anchors}
    starts = [span.start for span in spans]
    ahead = iter([*anchors, (len(spans), len(cues), len(cues))])
    before, after = -1, next(ahead)
    for at, cue in enumerate(cues):
        while at >= after[2] and after[0] < len(spans):
            before, after = after[0], next(ahead)
        if after[1] <= at < after[2]:
            continue
        middle = bisect_left(starts, cue.start)
        near = range(max(0, middle - _CANDIDATES), min(len(spans), middle + _CANDIDATES))
        between = [position for position in near if before < position < after[0] and position not in anchored and spans[position].shown]
        own = _nearest(cue, spans, between)
        if own is None:
            own = _nearest(cue, spans, near)
        if own is None:
            raise BadInput(f"{name}: cue {cue.number} (at {cue.start:.2f} s): there is no line at that time")
        shares[own].append(cue)
    return shares


def _nearest(cue: _Cue, spans: Sequence[_Span], among: Iterable[int]) -> int | None:
    """The line with which the cue overlaps most, or the nearest one that is near enough."""

    def in_common(position: int) -> float:
        return min(cue.end, spans[position].end) - max(cue.start, spans[position].start)

    best = max(among, key=lambda position: (in_common(position), spans[position].shown), default=None)
    return best if best is not None and in_common(best) >= -NEAR else None


_Anchor = tuple[int, int, int]  # a line's place, its first cue, the cue after its last


def _as_delivered(cues: Sequence[_Cue], spans: Sequence[_Span]) -> list[_Anchor]:
    """All lines with their cues, when no word has been changed; times don't matter."""
    anchors, at = [], 0
    for position, span in enumerate(spans):
        if span.shown:
            last = _end_of_run(cues, at, span)
            if last is None:
                return []
            anchors.append((position, at, last))
            at = last
    return anchors if at == len(cues) else []


def _anchors(cues: Sequence[_Cue], spans: Sequence[_Span]) -> list[_Anchor]:
    """Lines whose words are there unchanged, near their time, the nearest first, in one order with their cues."""
    starts = [cue.start for cue in cues]
    found = []
    for position, span in enumerate(spans):
        middle = bisect_left(starts, span.start)
        reach = ANCHOR_REACH if span.bare is not None else _BLIND_REACH
        earliest = max(middle - _CANDIDATES, bisect_left(starts, span.start - reach))
        latest = min(middle + _CANDIDATES, bisect_right(starts, span.start + reach))
        for first in range(earliest, latest):
            if span.shown and (last := _end_of_run(cues, first, span)) is not None:
                found.append((abs(starts[first] - span.start), position, first, last))
    anchors: list[_Anchor] = []
    for _, position, first, last in sorted(found):
        at = bisect_left(anchors, (position, first, last))
        fits_before = at == 0 or (anchors[at - 1][0] < position and anchors[at - 1][2] <= first)
        fits_after = at == len(anchors) or (anchors[at][0] > position and anchors[at][1] >= last)
        if fits_before and fits_after:
            insort(anchors, (position, first, last))
    return anchors


def _end_of_run(cues: Sequence[_Cue], first: int, span: _Span) -> int | None:
    """Where the cues end that begin here and say just what was delivered."""
    said = ""
    for at in range(first, min(first + _LONGEST_RUN, len(cues))):
        said += cues[at].bare
        if not span.begins_with(said) or cues[at].start > span.end + ANCHOR_REACH:
            return None
        if span.says(said):
            return at + 1
    return None


# Caption formats

_SRT_TAG = re.compile(r"</?(?:b|i|u|s|font)(?:\s[^<>]*)?>", re.IGNORECASE)
_VTT_TAG = re.compile(r"<[^<>]*>")
_OVERRIDE = re.compile(r"\{[^{}]*\}")
_DRAWING = re.compile(r"\\p[1-9]")
_VTT_TIMES = re.compile(r"\s*((?:\d{1,4}:)?\d{1,2}:\d{2}\.\d{1,3})\s+-->\s+((?:\d{1,4}:)?\d{1,2}:\d{2}\.\d{1,3})(?:\s.*)?")
_VTT_ENTITY = re.compile(r"&(amp|lt|gt|nbsp|lrm|rlm);")
_VTT_ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "nbsp": "\u00a0", "lrm": "", "rlm": ""}
_BACKSLASH = "\x1a"  # stands for one while pysubs2 reads SRT, where it is no sign of ASS


def _cues(file: CaptionFile) -> list[_Cue]:
    """The file's cues that show something, in the order of their times.

    Raises:
        BadInput: it is no such file.
    """
    if len(file.content) > LARGEST_CAPTIONS:
        raise BadInput(f"{file.name}: {len(file.content) / 1e6:.0f} MB, the limit is {LARGEST_CAPTIONS / 1e6:.0f} MB")
    text = re.sub(r"\r\n?", "\n", _decoded(file.content, file.name))
    if max(map(len, text.split("\n"))) > LONGEST_CAPTION_LINE:
        raise BadInput(f"{file.name}: a line has more than {LONGEST_CAPTION_LINE} characters")
    try:
        events = {"srt": _srt_events, "vtt": _vtt_events, "ass": _ass_events}[file.kind](text)
    except Exception as error:  # pysubs2 raises what its parts happen to raise
        raise BadInput(f"{file.name}: not {file.kind.upper()} captions: {_short(str(error))}") from None
    cues = [
        _Cue(number, start, max(start, end), shown, bare)
        for number, (start, end, shown) in enumerate(events, 1)
        if (bare := in_captions(" ".join(shown.split("\n"))))
    ]
    return sorted(cues, key=lambda cue: cue.start)


_Event = tuple[float, float, str]  # start and end in seconds, text without markup


def _srt_events(text: str) -> list[_Event]:
    # Blank lines in a row cost pysubs2 time. A last line of digits is the next cue's number to it: give it one.
    text = re.sub(r"\n(?:[ \t]*\n)+", "\n\n", text.replace(_BACKSLASH, "").replace("\\", _BACKSLASH)) + "\n\n0\n"
    events = pysubs2.SSAFile.from_string(text, "srt", keep_html_tags=True)
    if not events and text.strip() != "0":
        raise ValueError("there are no cues in it")
    return [(event.start / 1000, event.end / 1000, _from_srt(event.text)) for event in events]


def _from_srt(text: str) -> str:
    shown = text.replace(r"\N", "\n").replace(_BACKSLASH, "\\")
    return _SRT_TAG.sub("", re.sub(r"\{\\[^{}]*\}", "", shown))


def _vtt_events(text: str) -> list[_Event]:
    """Read here: pysubs2 takes notes, cue names and lines of digits for other things than they are."""
    if not text.startswith("WEBVTT"):
        raise ValueError("it doesn't begin with WEBVTT")
    events: list[tuple[float, float, list[str]]] = []
    inside = False
    for line in text.split("\n"):
        if "-->" in line:
            times = _VTT_TIMES.fullmatch(line)
            if times is None:
                raise ValueError(f"no times: {_short(line)}")
            events.append((_vtt_seconds(times[1]), _vtt_seconds(times[2]), []))
            inside = True
        elif not line.strip():
            inside = False
        elif inside:
            events[-1][2].append(line)
    return [
        (start, end, _VTT_ENTITY.sub(lambda entity: _VTT_ENTITIES[entity[1]], _VTT_TAG.sub("", "\n".join(lines))))
        for start, end, lines in events
    ]


def _vtt_seconds(time: str) -> float:
    seconds = 0.0
    for part in time.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def _ass_events(text: str) -> list[_Event]:
    if "[Events]" not in text and text.strip():
        raise ValueError("there is no [Events] section in it")
    # Only what is shown is read: a broken style or a font inside the file is no reason to refuse it.
    spoken = [line for line in text.split("\n") if line.lstrip().startswith("Dialogue:")]
    events = pysubs2.SSAFile.from_string("\n".join(["[Events]", *spoken]), "ass")
    return [(event.start / 1000, event.end / 1000, _from_ass(event.text)) for event in events]


def _from_ass(text: str) -> str:
    if any(_DRAWING.search(override) for override in _OVERRIDE.findall(text)):
        return ""
    return _OVERRIDE.sub("", text).replace(r"\h", " ").replace(r"\n", "\n").replace(r"\N", "\n")
