"""A reviewer's changes as a run meets them: those that are kept in the store, and those that lie in the lesson's folder since the last run.

Edits are kept under the recording's digest and the language, `edits/<sha256>/<language>`, apart from every cache. What a person changed in
the folder's `timeline.json` or captions is taken in before anything is computed, so that nothing is lost, whatever happens then.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from blocks.store import Store
from dubbing import edits as editing
from dubbing.edits import CaptionFile, Edits, Revision
from dubbing.errors import BadInput
from dubbing.lesson import Transcript, Translation, plain

TIMELINE = "timeline.json"
LARGEST_FILE = 50_000_000  # bytes of a text file in the folder
_KINDS: tuple[Literal["srt", "vtt", "ass"], ...] = ("srt", "vtt", "ass")


class Review:
    """The edits of one lesson in one language."""

    def __init__(self, store: Store, lesson: str, language: str, folder: Path, only_look: bool = False) -> None:
        """
        Args:
            lesson: sha256 of the recording.
            folder: where the lesson was delivered, if it was.
            only_look: for a plan: what is found in the folder is applied and not kept.
        """
        self._store, self._lesson, self._language, self.folder = store, lesson, language, folder
        self._only_look = only_look
        self._seen: dict[str, bytes] = {}

    def look(self) -> None:
        """Read the lesson's folder as it is now.

        Raises:
            BadInput: a file that can't be a lesson's timeline or captions.
        """
        self._seen = self._files()
        if TIMELINE in self._seen and is_unmarked(self._seen[TIMELINE]):
            self._seen = {}
        if TIMELINE in self._seen:
            timeline_of(self._seen[TIMELINE])

    def is_up_to_date(self) -> bool:
        """Whether the folder is still as it was looked at: what a person changes while a run goes on must not be written over."""
        return self._files() == self._seen

    def revised(self, transcript: Transcript, translation: Translation, voice: str) -> Revision:
        """The lines with all edits applied, those of the folder included, which are kept from now on.

        Args:
            voice: the run's.

        Raises:
            BadInput: a change in the folder can't be read or can't be made.
            StoreFailed: the edits can't be read or kept.
        """
        edits = self.read()
        edits = self._with_those_of_the_earlier_recording(edits)
        revision = editing.revised(transcript, translation, edits)
        changes = self._changes(revision, voice)
        if changes:
            edits = edits.with_(*changes) if self._only_look else self.change(lambda kept: kept.with_(*changes))
            revision = editing.revised(transcript, translation, edits)
        return revision

    def read(self) -> Edits:
        """The edits that are kept.

        Raises:
            StoreFailed: they are damaged or can't be reached.
        """
        return self._read(self._lesson)

    def change(self, function: Callable[[Edits], Edits]) -> Edits:
        """Change the edits that are kept, one person at a time."""
        name = _name(self._lesson, self._language)
        with self._store.claimed(name):
            changed = function(self.read())
            self._store.write_record(name, plain(changed))
        return changed

    def _read(self, lesson: str) -> Edits:
        kept = self._store.read_edits(_name(lesson, self._language))
        return Edits(lesson=lesson, language=self._language) if kept is None else Edits.model_validate(kept)

    def _with_those_of_the_earlier_recording(self, edits: Edits) -> Edits:
        """Where the folder holds another recording dubbed, as after a lesson was cut again, its edits count for this one too."""
        earlier = timeline_of(self._seen[TIMELINE])["lesson_sha256"] if TIMELINE in self._seen else None
        if not earlier or earlier == self._lesson:
            return edits
        known = {edit.id for edit in (*edits.edits, *edits.undone)}
        carried = [edit for edit in self._read(earlier).edits if edit.id not in known]
        if not carried:
            return edits
        return edits.with_(*carried) if self._only_look else self.change(lambda kept: kept.with_(*carried))

    def _changes(self, revision: Revision, voice: str) -> list[editing.Edit]:
        if TIMELINE not in self._seen:
            return []
        timeline = self._seen[TIMELINE]
        captions: dict[str, list[CaptionFile]] = {self._language: [], revision.transcript.language: []}
        for name, content in sorted(self._seen.items()):
            for language in captions:
                for kind in _KINDS:
                    if name.endswith(f".{language}.{kind}"):
                        captions[language].append(CaptionFile(name, kind, content))
        earlier = timeline_of(timeline)["lesson_sha256"]
        if earlier and earlier != self._lesson:
            return []
        return editing.changes_in(
            timeline,
            captions[self._language],
            captions[revision.transcript.language],
            transcript=revision.transcript,
            translation=revision.translation,
            voice=voice,
            made=now(),
            lesson=self._lesson,
        )

    def _files(self) -> dict[str, bytes]:
        """The folder's files that a person may change."""
        if not (self.folder / TIMELINE).is_file():
            return {}
        names = [TIMELINE, *(path.name for kind in _KINDS for path in self.folder.glob(f"*.{kind}"))]
        files = {}
        for name in sorted(names):
            path = self.folder / name
            try:
                if path.stat().st_size > LARGEST_FILE:
                    raise BadInput(f"{path}: more than {LARGEST_FILE / 1e6:g} MB can't be captions")
                files[name] = path.read_bytes()
            except OSError as error:
                raise BadInput(f"{path}: can't be read ({error.strerror})") from error
        return files


def timeline_of(content: bytes) -> dict[str, Any]:
    return editing._document(content)[0]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def as_rows(revision: Revision) -> list[dict[str, Any]]:
    """What became of each edit, for the report and for whoever started the run."""
    return [plain(outcome) for outcome in revision.outcomes]


def _name(lesson: str, language: str) -> str:
    return f"edits/{lesson}/{language}"
