"""A reviewer's changes as a run meets them: those that are kept in the store, and those that lie in the lesson's folder since the last run.

Edits are kept under the recording's digest and the language, `edits/<sha256>/<language>`, apart from every cache. What a person changed in
the folder's `timeline.json` or captions is kept before what follows from it is computed, long before the folder is written anew: nothing is
lost, whatever happens then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from blocks.store import Store
from dubbing import sources
from dubbing.changes import LARGEST_TIMELINE, TIMELINE, CaptionFile, changes_in, is_unmarked, timeline_of
from dubbing.edits import Edit, Edits, Revision, revised
from dubbing.errors import BadInput
from dubbing.lesson import Transcript, Translation, plain

_KINDS: tuple[Literal["srt", "vtt", "ass"], ...] = ("srt", "vtt", "ass")


class Review:
    """The edits of one lesson in one language."""

    def __init__(self, store: Store, lesson: str, language: str, folder: Path, only_look: bool = False, name: str = "") -> None:
        """
        Args:
            lesson: sha256 of the recording.
            folder: where the lesson was delivered, if it was.
            only_look: for a plan: what is found in the folder is applied and not kept.
            name: of the recording: a folder of the same name holds an earlier recording of this lesson, any other one is another lesson.
                "" is any name.
        """
        self._store, self.lesson, self._language, self.folder = store, lesson, language, folder
        self.only_look, self.name = only_look, name
        self._settled: tuple[Transcript, Translation] | None = None
        self._seen: dict[str, bytes] = {}
        self._delivered: dict[str, Any] | None = None  # the folder's timeline, when changes to it can be told

    def look(self) -> None:
        """Read the lesson's folder as it is now.

        Raises:
            BadInput: a file that can't be a lesson's timeline or captions.
        """
        self._seen = self._files()
        timeline = self._seen.get(TIMELINE)
        self._delivered = None if timeline is None or is_unmarked(timeline) else timeline_of(timeline)

    def is_up_to_date(self) -> bool:
        """Whether the folder is still as it was looked at: what a person changes while a run goes on must not be written over."""
        return self._files() == self._seen

    def revised(
        self, transcript: Transcript, translation: Translation, voice: str, check: Callable[[Revision], None] = lambda revision: None
    ) -> Revision:
        """The lines with all edits applied, those of the folder included, which are kept from now on.

        Args:
            voice: the run's.
            check: of the folder's changes, before they are kept: what it raises leaves them in the folder alone.

        Raises:
            BadInput: a change in the folder can't be read or can't be made.
            StoreFailed: the edits can't be read or kept.
        """
        self._settled = transcript, translation
        edits = self._with(self.read(), self._of_the_earlier_recording())
        revision = revised(transcript, translation, edits)
        changes = self._changes(revision, voice)
        if changes:
            revision = revised(transcript, translation, edits.with_(*changes))
            check(revision)
            revision = revised(transcript, translation, self._with(edits, changes))
        return revision

    @property
    def settled(self) -> tuple[Transcript, Translation]:
        """The machine's lines that edits were applied to last."""
        assert self._settled is not None, "nothing was revised yet"
        return self._settled

    def read(self) -> Edits:
        """The edits that are kept.

        Raises:
            StoreFailed: they are damaged or can't be reached.
        """
        return self._read(self.lesson)

    def change(self, function: Callable[[Edits], Edits]) -> Edits:
        """Change the edits that are kept, one person at a time."""
        name = _edits_of(self.lesson, self._language)
        with self._store.claimed(name):
            changed = function(self.read())
            self._store.write_record(name, plain(changed))
        return changed

    def _with(self, edits: Edits, more: Sequence[Edit]) -> Edits:
        """The edits with more, which are kept from now on."""
        known = {edit.id for edit in (*edits.edits, *edits.undone)}
        new = [edit for edit in more if edit.id not in known]
        if not new:
            return edits
        return edits.with_(*new) if self.only_look else self.change(lambda kept: kept.with_(*new))

    def _read(self, lesson: str) -> Edits:
        kept = self._store.read_edits(_edits_of(lesson, self._language))
        return Edits(lesson=lesson, language=self._language) if kept is None else Edits.model_validate(kept)

    def _of_the_earlier_recording(self) -> Sequence[Edit]:
        """Where the folder holds another recording of the lesson dubbed, as after it was cut again, its edits count for this one too."""
        return self._read(self._delivered["lesson_sha256"]).edits if self._delivered and self._is_earlier() else ()

    def _is_earlier(self) -> bool:
        assert self._delivered is not None
        return self._delivered["lesson_sha256"] not in ("", self.lesson) and self.name in ("", self._delivered["lesson"])

    def _changes(self, revision: Revision, voice: str) -> list[Edit]:
        if self._delivered is None:
            return []
        return changes_in(
            self._seen[TIMELINE],
            self._captions(self._language),
            self._captions(revision.transcript.language),
            transcript=revision.transcript,
            translation=revision.translation,
            voice=voice,
            made=now(),
            lesson="" if self._is_earlier() else self.lesson,
        )

    def _captions(self, language: str) -> list[CaptionFile]:
        assert self._delivered is not None
        names = {kind: f"{sources.file_stem(self._delivered['lesson'])}.{language}.{kind}" for kind in _KINDS}
        return [CaptionFile(name, kind, self._seen[name]) for kind, name in names.items() if name in self._seen]

    def _files(self) -> dict[str, bytes]:
        """The folder's files that a person may change, and others of their kinds."""
        if not (self.folder / TIMELINE).is_file():
            return {}
        names = [TIMELINE, *(path.name for kind in _KINDS for path in self.folder.glob(f"*.{kind}"))]
        files = {}
        for name in sorted(names):
            path = self.folder / name
            try:
                if path.stat().st_size > LARGEST_TIMELINE:
                    raise BadInput(f"{path}: more than {LARGEST_TIMELINE / 1e6:g} MB can't be captions")
                files[name] = path.read_bytes()
            except OSError as error:
                raise BadInput(f"{path}: can't be read ({error.strerror})") from error
        return files


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def as_rows(revision: Revision) -> list[dict[str, Any]]:
    """What became of each edit, for the report and for whoever started the run."""
    return [plain(outcome) for outcome in revision.outcomes]


def _edits_of(lesson: str, language: str) -> str:
    return f"edits/{lesson}/{language}"
