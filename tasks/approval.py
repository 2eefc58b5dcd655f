"""A person's approval that a run waits for, kept in the store: `reviews/<sha256 of the recording>/<language>/<stage>`, and beside it what
each run has asked.

What is kept here is the truth about a review; that a run is suspended meanwhile is only how it is woken. An approval holds for what was
shown: when any of it changes later, by another engine or an edit, it is asked for again. A rejection ends the run that asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from blocks.store import Store
from dubbing.documents import timeline_document
from dubbing.edits import Edits, Revision
from dubbing.keys import digest
from dubbing.lesson import Artifact, LineChecks, Noun, Timeline, plain

Stage = Literal["translation", "voiceover"]


class Approval(Noun):
    """How a review stands."""

    content: str  # digest of what was shown
    edits: str  # digest of the edits that there were when it was shown
    asked: str  # ISO 8601, UTC
    run: str = ""  # of Prefect, that asked
    question: int = 1  # how many times that run has asked
    decision: Literal["approve", "reject"] | None = None
    approved: str = ""  # digest of what is approved; "" for what comes out with the edits `approved_edits`
    approved_edits: str = ""
    reason: str = ""
    reviewer: str = ""
    answered: str = ""


class ReviewWanted(Exception):
    """The story goes on when a person has approved what it has come to."""

    def __init__(self, stage: Stage, content: str, edits: str, rows: list[dict[str, Any]]) -> None:
        super().__init__(stage)
        self.stage, self.content, self.edits = stage, content, edits
        self.rows = rows  # of the table that a reviewer sees, a line each


def read(store: Store, lesson: str, language: str, stage: Stage, run: str = "") -> Approval | None:
    """
    Args:
        lesson: sha256 of the recording.
        run: of Prefect, for what that one asked: others may ask for the same lesson at once. "": what was decided last.

    Raises:
        StoreFailed
    """
    kept = store.read_record(_name(lesson, language, stage, run))
    return None if kept is None else Approval.model_validate(kept)


def write(store: Store, lesson: str, language: str, stage: Stage, approval: Approval, run: str = "") -> None:
    store.write_record(_name(lesson, language, stage, run), plain(approval))


def check(
    store: Store, lesson: str, language: str, stage: Stage, content: str, edits: Edits, rows: list[dict[str, Any]], only_look: bool = False
) -> None:
    """Go on if this was approved.

    Args:
        content: digest of what a reviewer would be shown.

    Raises:
        ReviewWanted
    """
    kept, now = read(store, lesson, language, stage), digest_of_edits(edits)
    if kept and kept.decision == "approve":
        if kept.approved == content:
            return
        if not kept.approved and kept.approved_edits == now:
            if not only_look:
                write(store, lesson, language, stage, kept.model_copy(update={"approved": content}))
            return
    raise ReviewWanted(stage, content, now, rows)


def digest_of_edits(edits: Edits) -> str:
    return digest(*[edit.id for edit in edits.edits])


def translation_shown(revision: Revision) -> tuple[str, list[dict[str, Any]]]:
    """What a reviewer of a translation sees: its digest, and the lines."""
    said = {line.id: line for line in revision.translation.lines}
    rows = []
    for line in revision.transcript.utterances:
        translated = said.get(line.id)
        rows.append(
            {
                "id": line.id,
                "start": round(line.start, 2),
                "end": round(line.end, 2),
                "speaker": line.speaker or "",
                "source": line.text,
                "translation": translated.text if translated else "",
                "voice": (translated.voice if translated else None) or "",
                "edited": bool(translated and translated.edited),
                "flags": "; ".join(translated.flags) if translated else "not translated",
            }
        )
    shown = digest("translation", revision.transcript.language, revision.translation.language, [list(row.values()) for row in rows])
    return shown, [_with_silence(row) for row in rows]


def voiceover_shown(timeline: Timeline, checks: Sequence[LineChecks], video: Artifact) -> tuple[str, list[dict[str, Any]]]:
    """What a reviewer of a voice-over sees and hears: its digest, and the lines."""
    lines: list[Mapping[str, Any]] = timeline_document("", timeline, tuple(checks))["lines"]
    rows = [
        {
            "id": line["id"],
            "start": line["start"],
            "end": line["end"],
            "speaker": line.get("speaker") or "",
            "source": line["source_text"],
            "translation": line["translation"],
            "voice": line.get("voice") or "",
            "rate": line.get("rate"),
            "heard": (line.get("checks") or {}).get("heard", ""),
            "edited": bool(line.get("edited")),
            "flags": "; ".join(line["flags"]),
        }
        for line in lines
    ]
    return digest("voiceover", video.sha256), [_with_silence(row) for row in rows]


def _with_silence(row: dict[str, Any]) -> dict[str, Any]:
    """Whether nothing is said there by a person's wish, as its words and who they are of say already."""
    return {**row, "silent": row["edited"] and not row["translation"]}


def _name(lesson: str, language: str, stage: Stage, run: str) -> str:
    return f"reviews/{lesson}/{language}/{stage}{f'-{run}' if run else ''}"
