"""What a person changed in the files of a lesson's folder, read as edits.

`timeline.json` itself tells what was delivered: its checksums (`dubbing.documents`) say which fields are no longer as they were written.
Captions have no checksums: each cue is given to the line whose words or time it has, and a line has changed where its cues no longer say
what was delivered. Only words count: a reviewer's program may lay the files out anew, move cues, or save them in another encoding.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import pysubs2

from dubbing.documents import EDITABLE, TWINS, changed_fields, field_digest, in_captions, lines_checksum, written_captions
from dubbing.edits import Edit, check_edit, in_one_word, joined_say, joint, place_of, shortened
from dubbing.errors import BadInput
from dubbing.lesson import Transcript, TranslatedLine, Translation, Utterance
from dubbing.subtitles import clean

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
                f"{TIMELINE}: line {shortened(entry['id'])}: only {', '.join(EDITABLE[:-1])} and {EDITABLE[-1]} can be changed here"
            )
    _check_lines(document, transcript)
    said = {line.id: line for line in translation.lines}
    known = {utterance.id: (utterance, said.get(utterance.id)) for utterance in transcript.utterances}
    delivered = []
    for entry, fields in zip(document["lines"], changed, strict=True):
        now = known.get(entry["id"])
        if now is None and (at := place_of("", entry["source_start"], entry["source_end"], transcript.utterances)) is not None:
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
            where = f"{TIMELINE}: line {shortened(one.entry['id'])}"
            raise BadInput(
                f"{where}: it was changed, but the lesson has no such line any more; take the change back, then change the new line"
            )
        if edit := _edit_of(one, wishes, source_wishes, voice, made):
            edits.append(_as_seen(check_edit(edit, transcript), one))
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
        old = joined_say(one.said.say)
        new = joined_say({clean(word): clean(respelt) for word, respelt in entry["say"].items()})
        kept = {word.casefold() for word in new}
        say = {word: respelt for word, respelt in new.items() if old.get(word) != respelt}
        say |= {word: "" for word in old if word.casefold() not in kept}
        if say:
            changes["say"] = say
    if not changes:
        return None
    return Edit(line=one.now.id, source_text=one.now.text, start=one.now.start, end=one.now.end, made=made, **changes)


def _as_seen(edit: Edit, one: _Delivered) -> Edit:
    """The edit under the line that the person saw, which has been recognised otherwise since."""
    entry = one.entry
    if entry["id"] == edit.line or "source_text" in one.changed:
        return edit
    seen = {"line": entry["id"], "source_text": entry["source_text"], "start": entry["source_start"], "end": entry["source_end"]}
    return edit.model_copy(update=seen).with_id()


def _agreed(entry: Mapping[str, Any], field: str, wishes: Sequence[_Wish]) -> str | None:
    """The one text that all files give the line; the first one's spelling of it."""
    if not wishes:
        return None
    for other in wishes[1:]:
        if in_captions(other.text) != in_captions(wishes[0].text):
            what = "translations" if field == "translation" else "source texts"
            raise BadInput(f"line {shortened(entry['id'])}: {wishes[0].file} and {other.file} give it different {what}")
    return wishes[0].text


# timeline.json

_TEXT, _SECONDS, _WORDS = "text", "a number of seconds", "a mapping of words to respellings"
_FIELDS = dict.fromkeys(("id", "source_text", "translation", "voice", "engine", "checksum"), _TEXT)
_FIELDS |= dict.fromkeys(("source_start", "source_end", "start", "end"), _SECONDS) | {"say": _WORDS}


def timeline_of(content: bytes) -> dict[str, Any]:
    """The document that a timeline.json holds.

    Raises:
        BadInput: it isn't one that coursedub wrote, whatever a person changed in it.
    """
    return _document(content)[0]


def is_unmarked(content: bytes) -> bool:
    """Whether an earlier version of coursedub wrote this timeline.json, without checksums: what a person changed in it can't be told."""
    try:
        document = json.loads(_decoded(content, TIMELINE))
    except (BadInput, ValueError, RecursionError):
        return False
    if not isinstance(document, dict) or not isinstance(document.get("lines"), list):
        return False
    return not any("checksum" in part for part in (document, *document["lines"]) if isinstance(part, dict))


@lru_cache(maxsize=1)  # it is looked at before the work and read after it; nobody changes it
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
        raise BadInput(f"{TIMELINE}: no JSON that we write: {shortened(str(error))}") from None


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _check_types(document: Any) -> None:
    if not isinstance(document, dict) or not isinstance(document.get("lines"), list):
        raise BadInput(f"{TIMELINE}: not a timeline that coursedub wrote: it has no lines")
    for field in ("lesson", "lesson_sha256", "source_language", "target_language", "checksum"):
        if not isinstance(document.get(field), str):
            raise BadInput(f"{TIMELINE}: the field {field} is missing or no text; was it written by this version of coursedub?")
    for number, entry in enumerate(document["lines"], 1):
        if not isinstance(entry, dict):
            raise BadInput(f"{TIMELINE}: line number {number} is no line")
        name = shortened(entry["id"]) if isinstance(entry.get("id"), str) else f"number {number}"
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
        raise BadInput(f"{TIMELINE}: line {shortened(doubled)} is there more than once")
    if lines_checksum(document) == document["checksum"]:
        return
    there = [utterance.id for utterance in transcript.utterances]
    known, given = set(there), set(ids)
    if foreign := next((one for one in ids if one not in known), None):
        raise BadInput(f"{TIMELINE}: line {shortened(foreign)}: there is no such line in this lesson")
    if missing := next((one for one in there if one not in given), None):
        raise BadInput(f'{TIMELINE}: line {missing} was removed; to silence it, leave it there and set its translation to ""')
    raise BadInput(f"{TIMELINE}: the languages, the lesson and the order of the lines can't be changed here")


def _check_lesson(document: Mapping[str, Any], lesson: str, language: str) -> None:
    if lesson and document["lesson_sha256"] and document["lesson_sha256"] != lesson:
        raise BadInput(f"{TIMELINE}: it was changed, but it is of another lesson")
    if document["target_language"] != language:
        raise BadInput(f"{TIMELINE}: it was changed, but its target_language is {shortened(document['target_language'])}, not {language}")


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{name}: not UTF-8 text (byte {error.start}): save it as UTF-8, or remove it to have it written anew") from None


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
                where = f"{file.name}: line {shortened(delivered[at].entry['id'])}"
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
        apart = joined and (joint(language) or in_one_word(joined[-1], part[0]))
        joined += (" " if apart else "") + part
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
_ASS_FIELDS = 10  # of a dialogue line; the second and third are its times, the last its text
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
        raise BadInput(f"{file.name}: not {file.kind.upper()} captions: {shortened(str(error))}") from None
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
                raise ValueError(f"no times: {shortened(line)}")
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
    # Only what is shown is read: a broken style, margin or font inside the file is no reason to refuse it.
    spoken = [line.split(",", _ASS_FIELDS - 1) for line in text.split("\n") if line.lstrip().startswith("Dialogue:")]
    if broken := next((fields for fields in spoken if len(fields) < _ASS_FIELDS), None):
        raise ValueError(f"{len(broken)} of {_ASS_FIELDS} fields: {shortened(','.join(broken))}")
    plain = [f"Dialogue: 0,{fields[1]},{fields[2]},Default,,0,0,0,,{fields[-1]}" for fields in spoken]
    events = pysubs2.SSAFile.from_string("\n".join(["[Events]", *plain]), "ass")
    return [(event.start / 1000, event.end / 1000, _from_ass(event.text)) for event in events]


def _from_ass(text: str) -> str:
    if any(_DRAWING.search(override) for override in _OVERRIDE.findall(text)):
        return ""
    return _OVERRIDE.sub("", text).replace(r"\h", " ").replace(r"\n", "\n").replace(r"\N", "\n")
