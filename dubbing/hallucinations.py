"""What recognisers write down though nobody says it.

Whisper learned from subtitles of the web. Where it hears nothing that it knows it writes what stood in them at such places (credits, thanks
for watching), or goes round in circles. Each guard here is a rule that can be told in a sentence, and what it leaves out is told too. To
leave out what a lecturer says costs more than to leave something in: a reviewer sees words that are too many, never those that are missing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

LOW = -1.0  # mean log-probability of a token below which Whisper itself tries again (openai/whisper, transcribe.py)
HOPELESS = -2.0  # a token in seven: nothing that makes sense was ever seen there
HARDLY_SPOKEN = 0.5  # share of a text's time in which speech is heard: with less, doubtful text is left out
NOT_SPOKEN = 0.1  # with less, any text
LOOP_TOKENS = 8  # a loop is at least so long,
LOOP_TIMES = 4  # and says a phrase at least so often,
LONG_PHRASE = 4  # or three times, where the phrase has at least so many tokens
SHORT_WORD = 5  # letters: numbers read aloud and short words may be repeated on purpose, if anybody could say them so fast:
FASTEST = {" ": 5.0, "": 10.0}  # words and, in languages without spaces, characters a second; fast talkers say 4 and 8
LONGEST_PHRASE = 30  # tokens
SENTENCE_ENDS = ".?!…。？！"

LONGEST_CREDIT = 12  # words

PAUSE = 1.0  # seconds on both sides in which nobody speaks: what stands between two stands alone

# Names of subtitlers and of their sites: never said in a lesson.
_SUBTITLERS = re.compile(r"amara org|dimatorzok|untertitel\w* im auftrag des|altyazi m k|字幕志愿者|明镜与点点|明鏡與點點|打赏支持")
# Whole credits. A lesson on cinema may have such sentences, so that they are left out only where they stand alone.
_CREDITS = re.compile(
    r"(субтитр\w* (сделал|создавал|подогнал|добавил|предоставил|делал)\w*|редактор субтитров \w|корректор \w)( \w+){1,2}"
    r"( корректор( \w+){1,3})?"
    r"|subtitles? (by|created by|provided by) (?!(the way|now|default|hand|far|then|themselves|itself)\b).*"
    r"|caption(ed|ing|s) (by|provided by|sponsored by|made possible by)\b.*"
    r"|untertitel\w* (der|von|des)\b.*|sous titr\w+ (par|realis\w+ par|fait par)\b.*|subtitul\w+ (por|realizad\w+ por)\b.*"
    r"|legendas pela\b.*|sottotitoli (a cura|creati|e revisione)\b.*|napisy (stworzone|przez)\b.*|ondertitel\w* (ingediend|door)\b.*"
    r"|字幕(由|by|制作).*|자막 제공.*"
)
# Said at the end of many a video, and written under even more: left out only where it is doubtful that anybody said it.
_GOODBYES = re.compile(
    r"(thanks|thank you)( so much| very much)? for (watching|listening|viewing)|(please )?(like and )?subscribe\b.*"
    r"|see you in the next video|продолжение следует|спасибо за (просмотр|внимание)|подписывайтесь\b.*|до новых встреч"
    r"|gracias por (ver|mirar).*|suscribete\b.*|merci d avoir regarde.*|vielen dank (fur s|furs|fur das) zuschauen"
    r"|bis zum nachsten mal|obrigad[oa] por assistir.*|grazie per la visione|izlediginiz icin tesekkur\w*"
    r"|ご視聴ありがとうございました|チャンネル登録.*|谢谢观看|谢谢大家|感谢观看|请订阅.*|시청해 ?주셔서 감사합니다|구독.*"
)


class Segment(NamedTuple):
    """A stretch of recognised text."""

    tokens: Sequence[str]  # words; characters in languages without spaces
    start: float  # seconds
    end: float
    log_probability: float | None  # mean over the recogniser's tokens; None where it gives none
    joint: str = " "  # what is written between two tokens


class Garbage(NamedTuple):
    """Tokens `first` to `last` (exclusive) of a segment, and why they are left out."""

    segment: int
    first: int
    last: int
    why: str


class LeftOut(NamedTuple):
    """What a person is told of it."""

    start: float
    end: float
    text: str
    why: str


def garbage_in(segments: Sequence[Segment], speech: Sequence[tuple[float, float]]) -> list[Garbage]:
    """What to leave out, in order; no token twice.

    Args:
        speech: where a voice activity detector of its own heard speech, seconds.
    """
    found: list[Garbage] = []
    for number, segment in enumerate(segments):
        if why := _why_all(segment, speech):
            found.append(Garbage(number, 0, len(segment.tokens), why))
        else:
            found += _credits(number, segments, speech)
    taken = {(one.segment, token) for one in found for token in range(one.first, one.last)}
    found += _loops(segments, speech, taken)
    return sorted(found)


def kept(tokens: Sequence[str], garbage: Sequence[Garbage], segment: int) -> list[int]:
    """Positions of a segment's tokens that stay."""
    gone = {token for one in garbage if one.segment == segment for token in range(one.first, one.last)}
    return [position for position in range(len(tokens)) if position not in gone]


def told(segments: Sequence[Segment], garbage: Sequence[Garbage]) -> list[LeftOut]:
    """What was left out, for a person."""
    left_out = []
    for one in garbage:
        segment = segments[one.segment]
        left_out.append(LeftOut(segment.start, segment.end, segment.joint.join(segment.tokens[one.first : one.last]), one.why))
    return left_out


def spoken_share(start: float, end: float, speech: Sequence[tuple[float, float]]) -> float:
    """How much of a span lies in speech, 0 to 1. A span of no length lies in it or doesn't."""
    if end <= start:
        return float(any(first <= start <= last for first, last in speech))
    return sum(max(0.0, min(end, last) - max(start, first)) for first, last in speech) / (end - start)


def _why_all(segment: Segment, speech: Sequence[tuple[float, float]]) -> str | None:
    share = spoken_share(segment.start, segment.end, speech)
    if share < NOT_SPOKEN:
        return "nobody speaks there"
    if segment.log_probability is not None:
        if segment.log_probability < HOPELESS:
            return f"the recogniser guessed (log-probability {segment.log_probability:.1f})"
        if segment.log_probability < LOW and share < HARDLY_SPOKEN:
            return f"hardly anybody speaks there, and the recogniser guessed (log-probability {segment.log_probability:.1f})"
    return None


def _credits(number: int, segments: Sequence[Segment], speech: Sequence[tuple[float, float]]) -> list[Garbage]:
    found = []
    segment = segments[number]
    doubtful = _doubtful(segment, speech)
    for first, last in _sentences(segment):
        text = _plain(segment.joint.join(segment.tokens[first:last]))
        alone = doubtful or _at_the_end(number, last, segments) or (last - first == len(segment.tokens) and _in_a_pause(number, segments))
        if _SUBTITLERS.search(text) or (alone and len(text.split()) <= LONGEST_CREDIT and _CREDITS.fullmatch(text)):
            found.append(Garbage(number, first, last, "credits of subtitles"))
        elif doubtful and _GOODBYES.fullmatch(text):
            found.append(Garbage(number, first, last, "a goodbye that hardly anybody says there"))
    return found


def _doubtful(segment: Segment, speech: Sequence[tuple[float, float]]) -> bool:
    """Whether hardly anybody speaks there, or the recogniser was not sure."""
    return spoken_share(segment.start, segment.end, speech) < HARDLY_SPOKEN or (segment.log_probability or 0.0) < LOW


def _at_the_end(number: int, last: int, segments: Sequence[Segment]) -> bool:
    return last == len(segments[number].tokens) and not any(segment.tokens for segment in segments[number + 1 :])


def _in_a_pause(number: int, segments: Sequence[Segment]) -> bool:
    before = segments[number - 1].end if number else float("-inf")
    after = segments[number + 1].start if number + 1 < len(segments) else float("inf")
    return segments[number].start - before >= PAUSE and after - segments[number].end >= PAUSE


def _sentences(segment: Segment) -> list[tuple[int, int]]:
    """Where sentences begin and end. A full stop after a single letter ("А. Семкин") ends none, nor does one between letters."""
    tokens, marks = segment.tokens, SENTENCE_ENDS if segment.joint else SENTENCE_ENDS.replace(".", "")

    def ends(token: str) -> bool:
        return bool(token) and token[-1] in marks and len(token.rstrip(marks)) != 1

    after = [position + 1 for position, token in enumerate(tokens) if ends(token.strip()) or position == len(tokens) - 1]
    return list(zip([0, *after], after, strict=False))


def _loops(segments: Sequence[Segment], speech: Sequence[tuple[float, float]], taken: set[tuple[int, int]]) -> list[Garbage]:
    """A phrase said again and again, across segments too: all but the first time. Numbers and short words a lecturer may repeat."""
    places = [
        (number, position)
        for number, segment in enumerate(segments)
        for position, token in enumerate(segment.tokens)
        if (number, position) not in taken and _plain(token)
    ]
    words = [_plain(segments[number].tokens[position]) for number, position in places]
    found: list[Garbage] = []
    at = 0
    while at < len(words):
        length, times = _loop_at(words, at)
        if times < 2:
            at += 1
            continue
        first, last = at + length, at + length * times
        inside = [segments[number] for number in dict.fromkeys(number for number, _ in places[at:last])]
        if _may_be_repeated(words[at:first], inside[0].joint) and not any(_doubtful(one, speech) or _too_fast(one) for one in inside):
            at = last
            continue
        why = f"said {times} times in a row"
        for number in dict.fromkeys(places[place][0] for place in range(first, last)):
            positions = [places[place][1] for place in range(first, last) if places[place][0] == number]
            found.append(Garbage(number, positions[0], positions[-1] + 1, why))
        at = last
    return found


def _may_be_repeated(phrase: Sequence[str], joint: str) -> bool:
    """Whether people say it many times in a row: zeros of a number, "ha ha", "one two one two"."""
    short = len(phrase) < LONG_PHRASE and all(word.isnumeric() or (joint and len(word) <= SHORT_WORD) for word in phrase)
    return len(phrase) == 1 or short


def _too_fast(segment: Segment) -> bool:
    return len(segment.tokens) > FASTEST.get(segment.joint, FASTEST[" "]) * (segment.end - segment.start)


def _loop_at(words: Sequence[str], at: int) -> tuple[int, int]:
    """Length in tokens of the phrase that begins here and repeats itself, and how often it is said; (0, 0) where none does."""
    for length in range(1, min(LONGEST_PHRASE, (len(words) - at) // 2) + 1):
        times = 1
        while words[at + length * times : at + length * (times + 1)] == words[at : at + length]:
            times += 1
        least = LOOP_TIMES if length < LONG_PHRASE else 3
        if times >= least and times * length >= LOOP_TOKENS:
            return length, times
    return 0, 0


def _plain(text: str) -> str:
    """Letters and digits alone, small, without accents (й and が stay), single spaces."""
    apart = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).casefold())
    bare = "".join(c for c in apart if unicodedata.category(c) != "Mn" or c in "\u0306\u3099\u309a")
    return " ".join(re.sub(r"[\W_]+", " ", unicodedata.normalize("NFC", bare).replace("ı", "i")).split())
