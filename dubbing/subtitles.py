"""Captions: lines cut into cues that can be read in the time they are shown, and written as SRT, WebVTT and ASS.

The text is the truth and is shown whole; recognised or synthesised words only say when. A cue never has more than two lines, cues never
overlap, and nothing in a text is ever markup: not to a browser, not to a player that reads HTML in SRT, not to an ASS renderer.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pysubs2

from dubbing.languages import UNSPACED, base_language, name_of
from dubbing.lesson import Timeline, Transcript, Word

LINE_LENGTH = 42  # characters: what broadcasters and Netflix' timed text style guide use for Latin and Cyrillic
UNSPACED_LINE_LENGTH = 18  # characters of Chinese and Japanese are about twice as wide
LONGEST_LINE = 80  # characters: no setting may go beyond it
SHORTEST_LINE = 8
LINES = 2  # a cue

LEAST_DURATION = 0.8  # seconds: a shorter cue is seen but not read
LONGEST_EXTENSION = 1.0  # seconds that a cue may stay after its words, to be read
READING_SPEED = 17.0  # characters a second that an adult reads at ease
UNSPACED_READING_SPEED = 9.0

WORDS_AT_ONCE = 3  # of word-level captions
CHARACTERS_AT_ONCE = 24
UNSPACED_AT_ONCE = 8
WORD_PAUSE = 0.4  # seconds of silence that begin a new group of words

_TICK = 0.01  # seconds: ASS counts in hundredths; all three formats show the same times
_FLASH = 0.2  # seconds: where cues crowd, the later ones wait so that each is seen so long; where voices overlap, LEAST_DURATION
_CHAIN = 0.25  # seconds: a shorter gap flickers, so the earlier cue stays until the later one

_SENTENCE_ENDS = ".?!…。？！।؟"
_CLAUSE_ENDS = ",;:，；：、،؛—–"
_CLOSERS = "\"'»”’)]）」』"
_SHORT_WORD = 3  # letters: articles, prepositions, conjunctions; a line should not end with one

_COMFORTABLE = 0.75  # of a full cue, when there are several: leaves room to end each where a clause ends

_ZERO_WIDTH_JOINERS = "\u200c\u200d"  # Persian, Indic scripts and emoji are misspelt without them
_INVISIBLE = frozenset({"BN", "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})  # bidirectional classes of format characters
_BREAKS = re.compile(r"[^\S\u00a0\u2007\u202f]+")  # white space that lines may break at
_SKIN_TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
_STACKERS = "\u17d2\u1039"  # Khmer and Burmese signs that put the next letter under the last
_LEADING_VOWELS = "\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4"  # Thai and Lao vowels written before their consonant
_SYLLABLE_ENDS = "\u0f0b\u0f0d"  # Tibetan


class Cue(NamedTuple):
    """What is shown from `start` to `end` (seconds). `text` has one or two lines."""

    start: float
    end: float
    text: str


def cues_of_transcript(transcript: Transcript, duration: float | None = None, line_length: int | None = None) -> list[Cue]:
    """Captions in the lecturer's language, timed by the words.

    `duration` is the lesson's; without it no cue stays after the last utterance's end. `line_length` is in characters, by default
    `LINE_LENGTH`, or `UNSPACED_LINE_LENGTH` in languages without spaces.

    Raises:
        ValueError: `line_length` is out of bounds.
    """
    style = _style(transcript.language, line_length)
    spoken = sorted(transcript.utterances, key=lambda utterance: utterance.start)
    cues = [cue for one in spoken for cue in _cues(one.text, one.words, one.start, one.end, style)]
    last = max((utterance.end for utterance in spoken), default=0.0)
    return _settled(cues, last if duration is None else duration, style)


def cues_of_timeline(timeline: Timeline, words: Mapping[str, Sequence[Word]] | None = None, line_length: int | None = None) -> list[Cue]:
    """Captions in the target language, at the times where the lines were placed.

    A long line becomes several cues; they share its time by their characters, or begin and end with their words where `words` (by the
    line's id, in seconds of the lesson) has them. A line with empty text has no cue.

    Raises:
        ValueError: `line_length` is out of bounds.
    """
    style = _style(timeline.target_language, line_length)
    cues = [
        cue
        for line in sorted(timeline.lines, key=lambda line: line.start)
        for cue in _cues(line.text, (words or {}).get(line.id, ()), line.start, line.end, style)
    ]
    return _settled(cues, timeline.duration, style)


def cues_of_texts(texts: Iterable[tuple[float, float, str]], language: str, duration: float, line_length: int | None = None) -> list[Cue]:
    """Captions of texts of which only start, end and words are known: those of a published timeline.

    Raises:
        ValueError: `line_length` is out of bounds.
    """
    style = _style(language, line_length)
    cues = [cue for start, end, text in sorted(texts, key=lambda one: one[0]) for cue in _cues(text, (), start, end, style)]
    return _settled(cues, duration, style)


def word_cues(timeline: Timeline, words: Mapping[str, Sequence[Word]]) -> list[Cue]:
    """Word-level captions, as short videos and course players show them.

    One line that advances with the voice in groups of at most `WORDS_AT_ONCE` words and `CHARACTERS_AT_ONCE` characters (in languages
    without spaces `UNSPACED_AT_ONCE` characters). A group appears when its first word is said and stays until the next one, or
    until shortly after its last word before a pause. A new sentence, or a pause of `WORD_PAUSE`, begins a new group. The text is the
    line's own; `words` say when. A line that has none shares its time by characters.
    """
    style = _style(timeline.target_language, None)
    cues: list[Cue] = []
    for line in sorted(timeline.lines, key=lambda line: line.start):
        atoms = _atoms(line.text, style)
        spans = _spans(atoms, words.get(line.id, ()), line.start, line.end)
        for phrase in _phrases(atoms, spans):
            for group in _cut(phrase, _fit_at_once(phrase, style), CHARACTERS_AT_ONCE):
                cues.append(_cue(group, spans, _joined(group)))
    return _settled(cues, timeline.duration, style)


def write(cues: Sequence[Cue], language: str, folder: Path, stem: str) -> dict[str, Path]:
    """Write `stem.srt`, `stem.vtt` and `stem.ass` into the folder: UTF-8 without a mark, LF.

    No text is interpreted. WebVTT has escapes, so its text is exact. SRT and ASS have none that every player knows: there a character
    that would be read as markup is written as its full-width twin (`{` as `｛`), which every player shows.
    """
    shown = [cue._replace(text=text) for cue in cues if (text := _clean_lines(cue.text))]
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: folder / f"{stem}.{kind}" for kind in ("srt", "vtt", "ass")}
    for kind, content in (("srt", _srt(shown)), ("vtt", _vtt(shown)), ("ass", _ass(shown, language, stem))):
        paths[kind].write_bytes(content.encode())
    return paths


def clean(text: str) -> str:
    """The text without what can't be seen and can do harm: control characters, bidirectional overrides, zero-width spaces, half surrogates.

    White space becomes single spaces; no-break spaces stay.

    >>> clean("a\\u202eb\\x00\\n c")
    'ab c'
    """
    if text.isprintable() and "  " not in text and text == text.strip():
        return text  # as nearly every text is
    seen = "".join(" " if char.isspace() and not _is_no_break(char) else char for char in text if char.isspace() or _is_shown(char))
    seen = re.sub(" +", " ", seen).strip()
    return seen if any(char not in _ZERO_WIDTH_JOINERS and not unicodedata.category(char).startswith(("C", "Z")) for char in seen) else ""


def _is_no_break(char: str) -> bool:
    return char in "\u00a0\u2007\u202f"


def _is_shown(char: str) -> bool:
    category = unicodedata.category(char)
    if category in ("Cc", "Cs") or (category == "Cn" and (ord(char) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(char) <= 0xFDEF)):
        return False
    return category != "Cf" or char in _ZERO_WIDTH_JOINERS or unicodedata.bidirectional(char) not in _INVISIBLE


# Cutting: text into atoms that never break, atoms into cues, cues into lines


class _Style(NamedTuple):
    unspaced: bool
    line_length: int
    reading_speed: float


class _Atom(NamedTuple):
    """What no break may go through: a word, or a character of an unspaced script with its punctuation."""

    text: str
    spaced: bool  # a space stands before it
    first: int  # its characters' place among all the text's characters, white space not counted
    last: int

    roughness: int  # of a break after it: 0 a sentence ends, 1 a clause ends, 2 a word ends, 3 a short word ends that leans on the next


def _style(language: str, line_length: int | None) -> _Style:
    unspaced = base_language(language) in UNSPACED
    length = line_length or (UNSPACED_LINE_LENGTH if unspaced else LINE_LENGTH)
    if not SHORTEST_LINE <= length <= LONGEST_LINE:
        raise ValueError(f"a caption's line has {SHORTEST_LINE} to {LONGEST_LINE} characters, not {length}")
    return _Style(unspaced, length, UNSPACED_READING_SPEED if unspaced else READING_SPEED)


def _atoms(text: str, style: _Style) -> list[_Atom]:
    atoms: list[_Atom] = []
    for word in _BREAKS.split(clean(text)):
        pieces = list(_pieces(word, style))
        for position, piece in enumerate(pieces):
            first = atoms[-1].last if atoms else 0
            roughness = _roughness(piece, style, ends_word=position == len(pieces) - 1)
            atoms.append(_Atom(piece, position == 0 and bool(atoms), first, first + len("".join(piece.split())), roughness))
    return atoms


def _roughness(text: str, style: _Style, ends_word: bool) -> int:
    end = text.rstrip(_CLOSERS)[-1:]
    if end and end in _SENTENCE_ENDS:
        return 0
    if (end and end in _CLAUSE_ENDS) or (style.unspaced and ends_word):  # a space in Thai ends a clause
        return 1
    return 3 if len(text) <= _SHORT_WORD and not style.unspaced else 2


def _pieces(word: str, style: _Style) -> Iterable[str]:
    """The word, broken where it is longer than a line; in unspaced languages its characters."""
    for part in _characters(word) if style.unspaced else [word]:
        rest = part
        while len(rest) > style.line_length:
            cut = next((at for at in range(style.line_length, 1, -1) if not _is_joined(rest, at)), style.line_length)
            yield from filter(None, [rest[:cut].strip()])
            rest = rest[cut:]
        yield from filter(None, [rest.strip()])


def _is_joined(text: str, at: int) -> bool:
    """Whether the characters before and after this place are one on the screen."""
    before, after = text[at - 1], text[at]
    marks = unicodedata.category(after).startswith("M") or after in _ZERO_WIDTH_JOINERS or after in _SKIN_TONES
    return marks or before == "\u200d" or before in _STACKERS


def _characters(word: str) -> list[str]:
    """Characters of an unspaced script; foreign words whole, marks and closing signs with what is before them."""
    parts: list[str] = []
    start = 0
    for at in range(1, len(word)):
        before, after = word[at - 1], word[at]
        foreign = all(char.isalnum() and char < "\u0e00" for char in (before, after))
        closes = unicodedata.category(after) in ("Pe", "Pf", "Po") or after in "ーゝ々%"
        opens = unicodedata.category(before) in ("Ps", "Pi") or before in _LEADING_VOWELS
        syllable = "\u0f00" <= after <= "\u0fff" and before not in _SYLLABLE_ENDS
        if not (foreign or closes or opens or syllable or _is_joined(word, at)):
            parts.append(word[start:at])
            start = at
    return [*parts, word[start:]]


def _width(atoms: Sequence[_Atom]) -> int:
    return sum(len(atom.text) + atom.spaced for atom in atoms) - (atoms[0].spaced if atoms else 0)


def _joined(atoms: Sequence[_Atom]) -> str:
    return "".join(" " * atom.spaced + atom.text for atom in atoms).lstrip(" ")


_Fit = Callable[[int], int]  # the first atom of a cue -> the end of the longest cue that begins there


def _cut(atoms: Sequence[_Atom], reach: _Fit, longest: int) -> list[Sequence[_Atom]]:
    """The best division into cues: few, of similar lengths, ending where sentences and clauses end.

    Least cost by dynamic programming; `reach` says how many atoms fit, `longest` is a full cue's characters.
    """
    if not atoms or reach(0) == len(atoms):
        return [atoms] if atoms else []
    total = _width(atoms)
    ideal = total / math.ceil(total / (_COMFORTABLE * longest))
    places = list(itertools.accumulate((len(atom.text) + atom.spaced for atom in atoms), initial=0))
    cost = [0.0] + [math.inf] * len(atoms)
    came_from = [0] * (len(atoms) + 1)
    for start in range(len(atoms)):
        for end in range(start + 1, reach(start) + 1):
            width = places[end] - places[start] - atoms[start].spaced
            rough = (0.0, 0.2, 0.9, 1.2)[atoms[end - 1].roughness] if end < len(atoms) else 0.0
            price = cost[start] + 0.5 + ((width - ideal) / ideal) ** 2 + rough
            if price < cost[end]:
                cost[end], came_from[end] = price, start
    cues: list[Sequence[_Atom]] = []
    end = len(atoms)
    while end:
        cues.append(atoms[came_from[end] : end])
        end = came_from[end]
    return cues[::-1]


def _fit_in_lines(atoms: Sequence[_Atom], length: int) -> _Fit:
    """How far a cue of at most `LINES` lines goes."""
    line_ends: list[int] = []
    width, end = 0, 0
    for start, first in enumerate(atoms):
        end = max(end, start)
        while end < len(atoms) and (grown := width + len(atoms[end].text) + (atoms[end].spaced and end > start)) <= length:
            width, end = grown, end + 1
        line_ends.append(end)
        width -= len(first.text) + (start + 1 < end and atoms[start + 1].spaced)

    def reach(start: int) -> int:
        end = start
        for _ in range(LINES):
            end = line_ends[end] if end < len(atoms) else end
        return end

    return reach


def _fit_at_once(atoms: Sequence[_Atom], style: _Style) -> _Fit:
    most_atoms, most_characters = (len(atoms), UNSPACED_AT_ONCE) if style.unspaced else (WORDS_AT_ONCE, CHARACTERS_AT_ONCE)

    def reach(start: int) -> int:
        end = start + 1
        while end < min(len(atoms), start + most_atoms) and _width(atoms[start : end + 1]) <= most_characters:
            end += 1
        return end

    return reach


def _lines(atoms: Sequence[_Atom], length: int) -> str:
    """One line where it fits, else two: alike in length, broken at punctuation where there is some, the longer one below."""
    if _width(atoms) <= length:
        return _joined(atoms)

    def cost(at: int) -> float:
        above, below = _width(atoms[:at]), _width(atoms[at:])
        if max(above, below) > length:
            return math.inf
        return abs(above - below) / length + (0.0, 0.05, 0.5, 0.65)[atoms[at - 1].roughness] + (0.05 if above > below else 0.0)

    at = min(range(1, len(atoms)), key=cost)
    return f"{_joined(atoms[:at])}\n{_joined(atoms[at:])}"


def _phrases(atoms: Sequence[_Atom], spans: Sequence[tuple[float, float]]) -> list[list[_Atom]]:
    """Cut where a sentence ends or the voice pauses."""
    phrases: list[list[_Atom]] = []
    for before, atom in zip([None, *atoms], atoms, strict=False):
        if before is None or before.roughness == 0 or spans[atom.first][0] - spans[before.last - 1][1] >= WORD_PAUSE:
            phrases.append([])
        phrases[-1].append(atom)
    return phrases


# Times


def _cues(text: str, words: Sequence[Word], start: float, end: float, style: _Style) -> list[Cue]:
    """One line's cues, before they are settled among the others."""
    atoms = _atoms(text, style)
    spans = _spans(atoms, words, start, end)
    groups = _cut(atoms, _fit_in_lines(atoms, style.line_length), LINES * style.line_length)
    return [_cue(group, spans, _lines(group, style.line_length)) for group in groups]


def _cue(atoms: Sequence[_Atom], spans: Sequence[tuple[float, float]], text: str) -> Cue:
    return Cue(spans[atoms[0].first][0], spans[atoms[-1].last - 1][1], text)


def _spans(atoms: Sequence[_Atom], words: Sequence[Word], start: float, end: float) -> list[tuple[float, float]]:
    """When each of the text's characters is said: from the words where they agree with the text, evenly in between and without words."""
    text = "".join("".join(atom.text.split()) for atom in atoms)
    end = max(start, end)
    said: list[str] = []
    times: list[tuple[float, float]] = []
    earliest = start
    for word in words:
        characters = "".join(clean(word.text).split())
        begins = min(max(word.start, earliest), end)
        earliest = min(max(word.end, begins), end)
        said.append(characters)
        times.extend(_shares(begins, earliest, len(characters)))
    if not times:
        return _shares(start, end, len(text))
    spoken = "".join(said)
    anchors = [(0, 0), *_agreements(text, spoken), (len(text), len(spoken))]
    places = [
        spoken_from + (at - text_from) * (spoken_to - spoken_from) // (text_to - text_from)
        for (text_from, spoken_from), (text_to, spoken_to) in itertools.pairwise(anchors)
        for at in range(text_from, text_to)
    ]
    return [times[min(place, len(times) - 1)] for place in places]


def _shares(start: float, end: float, count: int) -> list[tuple[float, float]]:
    step = (end - start) / max(count, 1)
    return [(start + step * at, start + step * (at + 1)) for at in range(count)]


def _agreements(text: str, spoken: str) -> list[tuple[int, int]]:
    """Places where text and words say the same: a reviewer may have edited the one, an engine writes the other its own way."""
    ours, theirs = ([char.casefold() for char in one] for one in (text, spoken))
    if ours == theirs:
        return []
    blocks = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
    return [place for a, b, size in blocks if size >= 3 for place in ((a, b), (a + size, b + size))]


def _settled(cues: Sequence[Cue], duration: float, style: _Style) -> list[Cue]:
    """Cues in their order on the format's clock: none overlaps, none is empty, each stays long enough to be read where there is room."""
    if not cues or duration <= 0:
        return []
    per_second = max(1 / _TICK, len(cues) / duration)  # a finer clock only where there are more cues than ticks
    final = int(duration * per_second + 1e-6)
    ends = [min(round(cue.end * per_second), final) for cue in cues]

    starts: list[int] = []
    for position, (cue, end) in enumerate(zip(cues, ends, strict=True)):
        start = max(0, round(cue.start * per_second))
        if starts:
            seen = LEAST_DURATION if ends[position - 1] > start else _FLASH
            start = max(start, starts[-1] + max(1, min(round(seen * per_second), (end - starts[-1]) // 2)))
        starts.append(start)
    latest = final
    for position in reversed(range(len(starts))):
        latest = starts[position] = min(starts[position], latest - 1)

    settled: list[Cue] = []
    for position, (cue, start) in enumerate(zip(cues, starts, strict=True)):
        following = starts[position + 1] if position + 1 < len(starts) else final
        end = max(ends[position], start + 1)
        to_read = start + round(len(cue.text) / style.reading_speed * per_second)
        longest = end + round(LONGEST_EXTENSION * per_second)
        stays = max(end, start + round(LEAST_DURATION * per_second), min(to_read, longest))
        if position + 1 < len(starts) and following - stays < _CHAIN * per_second and following <= longest:
            stays = following
        settled.append(Cue(start / per_second, min(min(stays, following) / per_second, duration), cue.text))
    return settled


# Formats

_TWINS = str.maketrans("<>{}\\", "＜＞｛｝＼")
_ENTITY = re.compile(r"&(?=#?\w+;)")  # some players read HTML's entities in SRT
_CLOCK_TIME = re.compile(r"(?<=\d):(?=\d{1,2}(:\d{1,2})?[.,]\d)")  # two in a line are a cue's times to some readers


def _clean_lines(text: str) -> str:
    return "\n".join(filter(None, map(clean, text.split("\n"))))


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _srt(cues: Sequence[Cue]) -> str:
    subtitles = pysubs2.SSAFile()
    for cue in cues:
        text = _CLOCK_TIME.sub("：", _ENTITY.sub("＆", cue.text.translate(_TWINS)))
        subtitles.append(pysubs2.SSAEvent(_milliseconds(cue.start), _milliseconds(cue.end), text.replace("\n", r"\N")))
    return subtitles.to_string("srt")


def _vtt(cues: Sequence[Cue]) -> str:
    """Written here: pysubs2 reads ASS tags in the text, and escapes nothing."""
    blocks = ["WEBVTT\n"]
    for cue in cues:
        times = " --> ".join(pysubs2.formats.webvtt.WebVTTFormat.ms_to_timestamp(_milliseconds(time)) for time in (cue.start, cue.end))
        blocks.append(f"{times}\n{cue.text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')}\n")
    return "\n".join(blocks)


def _ass(cues: Sequence[Cue], language: str, stem: str) -> str:
    subtitles = pysubs2.SSAFile()
    subtitles.info.update(
        {
            "Title": f"{clean(stem)} ({name_of(language)}, {clean(language)})",
            "PlayResX": "1920",
            "PlayResY": "1080",
            "WrapStyle": "0",
            "ScaledBorderAndShadow": "yes",
        }
    )
    subtitles.styles["Default"] = pysubs2.SSAStyle(
        fontname="Arial",
        fontsize=60.0,
        primarycolor=pysubs2.Color(255, 255, 255),
        outlinecolor=pysubs2.Color(0, 0, 0),
        backcolor=pysubs2.Color(0, 0, 0, 128),
        outline=3.0,
        shadow=1.0,
        alignment=pysubs2.Alignment.BOTTOM_CENTER,
        marginl=120,
        marginr=120,
        marginv=60,
    )
    for cue in cues:
        text = cue.text.translate(_TWINS).replace("\n", r"\N")
        subtitles.append(pysubs2.SSAEvent(_milliseconds(cue.start), _milliseconds(cue.end), text))
    return subtitles.to_string("ass", header_notice="")
