"""A reviewer's change to one line of a dubbed lesson, by command: kept beside the lesson's results, made by the next run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from blocks.profiles import made
from blocks.speech import SPEECH_ENGINES
from blocks.store import Store, file_digest, open_store
from dubbing import media, sources
from dubbing.changes import LARGEST_TIMELINE, TIMELINE, timeline_of
from dubbing.edits import Edits, Revision, new_edit, place_of, revised
from dubbing.errors import BadInput
from dubbing.lesson import Transcript, Translation, plain
from tasks.history import runs_of
from tasks.review import Review, now


class Dubbed(NamedTuple):
    """A lesson that was dubbed before."""

    sha256: str  # of the recording
    language: str
    transcript: Transcript  # as recognised
    translation: Translation  # as the machine settled on it
    spoken_by: tuple[str, ...]  # names of speech engines

    def with_(self, edits: Edits) -> Revision:
        """The lines as they are with these edits, whether a run has made them yet or not."""
        return revised(self.transcript, self.translation, edits)


def edit_lesson(
    lesson: str, language: str | None = None, store: str | None = None, line: str = "", undo: str | None = None, **changes: Any
) -> dict[str, Any]:
    """Keep a change of one line, or take changes back. Without either, what there is.

    Args:
        lesson: the recording, or the folder that it was dubbed into.
        language: that it was dubbed into; by default a folder's own, else English.
        line: id, as timeline.json has it; empty for pronunciations in all lines.
        undo: "last", "all", the id of an edit, or of a line.
        changes: as `dubbing.edits.new_edit` takes them.

    Raises:
        BadInput: the lesson was never dubbed into the language, there is no such line or edit, or the change can't be made.
    """
    results = open_store(store)
    try:
        dubbed = find_dubbed(results, lesson, language)
        review = Review(results, dubbed.sha256, dubbed.language, Path())
        if undo is not None:
            edits = review.change(lambda kept: _undone(kept, undo, dubbed.with_(kept).transcript))
        elif changes:
            if changes.get("voice"):
                _check_voice(dubbed, changes["voice"])
            edits = review.change(lambda kept: _with_change(dubbed, kept, line, changes))
        else:
            edits = review.read()
    finally:
        results.close()
    revision = dubbed.with_(edits)
    said = {one.id: one for one in revision.translation.lines}
    return {
        "lesson": dubbed.sha256,
        "target_language": dubbed.language,
        "edits": [plain(edit) for edit in edits.edits],
        "undone": [plain(edit) for edit in edits.undone],
        "lines": [
            {"id": one.id, "start": round(one.start, 3), "source_text": one.text, "text": said[one.id].text, "edited": said[one.id].edited}
            for one in revision.transcript.utterances
        ],
    }


def _check_voice(dubbed: Dubbed, voice: str) -> None:
    """
    Raises:
        BadSetting: no engine that spoke the lesson has the voice.
    """
    engines = [made("speech", SPEECH_ENGINES[name]) for name in dubbed.spoken_by if name in SPEECH_ENGINES] or [SPEECH_ENGINES["kokoro"]()]
    if not any(voice in engine.voices(dubbed.language) for engine in engines):
        engines[0].check(dubbed.language, voice)


def _with_change(dubbed: Dubbed, kept: Edits, line: str, changes: Mapping[str, Any]) -> Edits:
    """The edits with one more, which must have a place among the lines as those before it leave them.

    Raises:
        BadInput
    """
    edit = new_edit(dubbed.with_(kept).transcript, line, now(), **changes)
    edits = kept.with_(edit)
    outcome = next(outcome for outcome in dubbed.with_(edits).outcomes if outcome.edit == edit.id)
    if outcome.became == "without a place":
        raise BadInput(f"line {line}: it can't be changed so: {outcome.reason}")
    return edits


def find_dubbed(store: Store, lesson: str, language: str | None) -> Dubbed:
    """The newest result for a recording, or for the folder it was dubbed into.

    Raises:
        BadInput: there is none.
    """
    sha256, of_folder = recording_of(lesson)
    if language and of_folder and language != of_folder:
        raise BadInput(f"{lesson}: the lesson was dubbed into {of_folder} here, not into {language}")
    language = language or of_folder or "en"
    for run in reversed(runs_of(store, sha256)):
        if run.target_language != language or run.state != "completed":
            continue
        keys = {entry.stage: entry.key for entry in run.stages}  # of a stage that ran more than once, the last
        recognised = store.read_result(keys["transcribe"])
        settled = store.read_result(keys.get("shorten", keys["translate"]))
        if recognised is not None and settled is not None:
            spoken = (store.read_result(keys["synthesize"]) if "synthesize" in keys else None) or {"lines": ()}
            engines = tuple(dict.fromkeys(clip["engine"] for clip in spoken["lines"]))
            return Dubbed(sha256, language, Transcript.model_validate(recognised), Translation.model_validate(settled), engines)
    raise BadInput(f"{sources.name_of(lesson)}: it was not dubbed into {language} with the store {store.where}: dub it first")


def recording_of(lesson: str) -> tuple[str, str | None]:
    """SHA-256 of a recording and, of a folder that it was dubbed into, the language.

    Raises:
        BadInput
    """
    if sources.is_address(lesson):
        raise BadInput(f"{lesson}: give the folder that the lesson was dubbed into")
    path = sources.local_path(lesson)
    if not path.is_dir():
        media.check_readable(path, sources.name_of(lesson))
        return file_digest(path), None
    document = path / TIMELINE
    if not document.is_file():
        raise BadInput(f"{path}: no lesson was dubbed into this folder (it has no {TIMELINE})")
    if document.stat().st_size > LARGEST_TIMELINE:
        raise BadInput(f"{document}: more than {LARGEST_TIMELINE / 1e6:g} MB can't be a timeline")
    content = timeline_of(document.read_bytes())
    return content["lesson_sha256"], content["target_language"]


def _undone(edits: Edits, what: str, transcript: Transcript) -> Edits:
    """Without the edits that are meant; those of a line are also those that were made under another id it had."""
    if what == "all" and edits.edits:
        return edits.without_all()
    if what in ("last", "all"):
        return edits.without_last()
    if any(edit.id == what for edit in edits.edits):
        return edits.without(edit=what)
    there = transcript.utterances
    places = {edit.id: place_of(edit.line, edit.start, edit.end, there) for edit in edits.edits if edit.line}
    of_line = [name for name, at in places.items() if at is not None and there[at].id == what]
    gone = [edit.id for edit in edits.edits if edit.line == what or edit.id in of_line]
    for name in gone:
        edits = edits.without(edit=name)
    return edits if gone else edits.without(line=what)
