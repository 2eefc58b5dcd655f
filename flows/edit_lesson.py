"""A reviewer's change to one line of a dubbed lesson, by command: kept beside the lesson's results, made by the next run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from blocks.store import Store, file_digest, open_store
from dubbing import media, sources
from dubbing.changes import LARGEST_TIMELINE, TIMELINE, timeline_of
from dubbing.edits import Edits, new_edit, place_of
from dubbing.errors import BadInput
from dubbing.lesson import Timeline, Transcript, Utterance, plain
from flows.dub_video import engines_for
from tasks.history import runs_of
from tasks.review import Review, now


class Dubbed(NamedTuple):
    """A lesson that was dubbed before."""

    sha256: str  # of the recording
    language: str
    timeline: Timeline

    @property
    def transcript(self) -> Transcript:
        """The lines as they are now, edits included, without the words' times."""
        utterances = tuple(
            Utterance(id=line.id, text=line.source_text, start=line.source_start, end=line.source_end, confidence=1.0, speaker=line.speaker)
            for line in self.timeline.lines
        )
        return Transcript(language=self.timeline.source_language, utterances=utterances, engine="")


def edit_lesson(
    lesson: str, language: str = "en", store: str | None = None, line: str = "", undo: str | None = None, **changes: Any
) -> dict[str, Any]:
    """Keep a change of one line, or take changes back. Without either, what there is.

    Args:
        lesson: the recording, or the folder that it was dubbed into.
        language: that it was dubbed into; a folder knows its own.
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
            edits = review.change(lambda kept: _undone(kept, undo, dubbed.transcript))
        elif changes:
            if changes.get("voice"):
                engines_for("llama").speech.check(dubbed.language, changes["voice"])
            edit = new_edit(dubbed.transcript, line, now(), **changes)
            edits = review.change(lambda kept: kept.with_(edit))
        else:
            edits = review.read()
    finally:
        results.close()
    return {
        "lesson": dubbed.sha256,
        "target_language": dubbed.language,
        "edits": [plain(edit) for edit in edits.edits],
        "undone": [plain(edit) for edit in edits.undone],
        "lines": [
            {"id": one.id, "start": round(one.source_start, 3), "source_text": one.source_text, "text": one.text, "edited": one.edited}
            for one in dubbed.timeline.lines
        ],
    }


def find_dubbed(store: Store, lesson: str, language: str) -> Dubbed:
    """The newest result for a recording, or for the folder it was dubbed into.

    Raises:
        BadInput: there is none.
    """
    sha256, of_folder = recording_of(lesson)
    language = of_folder or language
    for run in reversed(runs_of(store, sha256)):
        for entry in reversed(run.stages):
            if entry.stage == "fit" and run.target_language == language and run.state == "completed":
                value = store.read_result(entry.key)
                if value is not None:
                    return Dubbed(sha256, language, Timeline.model_validate(value))
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
    if what == "all":
        return edits.without_all()
    if what == "last":
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
