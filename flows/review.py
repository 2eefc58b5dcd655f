"""A reviewer's part in a run of `dub_video`: the run asks, is suspended, and goes on with the answer.

A run of a deployment frees its worker while it waits: Prefect has a form for the answer, whose fields are `ReviewAnswer`, and its API takes
the same (`POST /flow_runs/{id}/resume`). A run without one ends, and `coursedub review` answers for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from prefect import suspend_flow_run
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.context import FlowRunContext
from prefect.input import RunInput
from pydantic import BaseModel, ConfigDict, Field

from blocks.store import Store
from dubbing.edits import Edits, Revision, new_edit, revised
from dubbing.errors import BadInput
from dubbing.languages import name_of
from tasks import approval
from tasks.announce import announce
from tasks.approval import Approval, ReviewWanted, Stage
from tasks.review import Review, now

DAYS = 7.0
LONGEST_REASON = 2000  # characters
MOST_EDITS = 10_000
_LATER = timedelta(days=2)  # than the run should have expired, Prefect itself fails it
NAMES: dict[Stage, str] = {"translation": "translation", "voiceover": "voice-over"}


class LineEdit(BaseModel):
    """One line as the reviewer wants it; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    line: str = Field(title="Line", description="Its id in the table.", max_length=40)
    text: str | None = Field(None, title="Translation", description='New words; "" says nothing.', max_length=5000)
    source_text: str | None = Field(None, title="What was said", description="The line is translated again.", max_length=5000)
    voice: str | None = Field(None, title="Voice", description='Of this line; "" for the lesson\'s again.', max_length=100)
    silent: bool | None = Field(None, title="Silent", description="Say and show nothing here.")
    say: dict[str, str] | None = Field(None, title="Pronunciations", description="Words, each with how it is spoken.")

    def changes(self) -> dict[str, Any]:
        """As `dubbing.edits.new_edit` takes them."""
        given = {"text": self.text, "new_source_text": self.source_text, "voice": self.voice, "silent": self.silent, "say": self.say}
        return {name: value for name, value in given.items() if value is not None}


class ReviewAnswer(RunInput):
    """Approve or reject what the run has come to; with changes to lines, those are made and the run goes on."""

    decision: Literal["approve", "reject"] = Field(title="Decision")
    reason: str = Field("", title="Reason", description="Of a rejection, for others to read.", max_length=LONGEST_REASON)
    reviewer: str = Field("", title="Reviewer", description="Who answers.", max_length=200)
    edits: list[LineEdit] = Field(default_factory=list, title="Changes to lines", max_length=MOST_EDITS)


class Rejected(Exception):
    """A reviewer rejected the lesson."""

    name = "Rejected"  # of the run's state
    state = "rejected"

    def __init__(self, stage: Stage, reviewer: str, reason: str) -> None:
        by = f" by {reviewer}" if reviewer else ""
        super().__init__(f"its {NAMES[stage]} was rejected{by}: {reason or 'no reason was given'}")
        self.stage = stage


class Waiting(Exception):
    """The run can't be suspended: whoever started it has it go on, when the review was answered."""

    name = "InReview"
    state = "in review"

    def __init__(self, stage: Stage) -> None:
        super().__init__(f"its {NAMES[stage]} waits for a reviewer")
        self.stage = stage


def settle(
    wanted: ReviewWanted,
    store: Store,
    reviewing: Review,
    check: Callable[[Revision], None],
    language: str,
    days: float,
    files: Callable[[], Sequence[Mapping[str, str]]],
) -> None:
    """Ask for an approval, and return when there is one. What the reviewer changed is kept by then, and the story is to be told again.

    Args:
        check: of the lines as they would be; what it raises is told to the reviewer, who is asked again.
        days: that an answer is waited for.
        files: puts there what is to be looked at; rows `what`, `address`.

    Raises:
        prefect.exceptions.Pause: the run is suspended now; it begins anew when it is resumed.
        Rejected
        Waiting: the run is none of a deployment.
    """
    context = FlowRunContext.get()
    assert context and context.flow_run
    run, suspends = str(context.flow_run.id), context.flow_run.deployment_id is not None
    lesson, stage = reviewing.lesson, wanted.stage
    # What a run that can be suspended asks is its own; without a deployment it is for the next run.
    place = run if suspends else ""
    kept = approval.read(store, lesson, language, stage, place)
    own = kept if kept and kept.run == run else None
    asked = own if own and own.decision is None else None  # it was resumed: there may be an answer
    question, trouble = own.question if own else 0, ""
    while True:
        if asked is None:
            question += 1
            asked = Approval(content=wanted.content, edits=wanted.edits, asked=now(), run=run, question=question)
            _ask(wanted, asked, reviewing, language, days, files(), trouble, suspends)
            if suspends or not (kept and kept.decision is None and kept.content == wanted.content):
                approval.write(store, lesson, language, stage, asked, place)
        if not suspends:
            raise Waiting(stage)
        request = _request(wanted, reviewing.name, language, _expires(asked, days), trouble)
        timeout = int((timedelta(days=days) + _LATER).total_seconds())
        answer = suspend_flow_run(ReviewAnswer.with_initial_data(request), timeout=timeout, key=f"{stage}-{question}")
        try:
            _take(answer, wanted, asked, store, reviewing, check, language)
            return
        except BadInput as wrong:
            asked, trouble = None, str(wrong)


def _ask(
    wanted: ReviewWanted,
    asked: Approval,
    reviewing: Review,
    language: str,
    days: float,
    files: Sequence[Mapping[str, str]],
    trouble: str,
    suspends: bool,
) -> None:
    """Tell whoever is told, and show the lines in Prefect's UI, where the answer will be given."""
    there, expires = {file["what"]: file["address"] for file in files}, _expires(asked, days)
    announce(
        "review_requested",
        f"{wanted.stage} {asked.question}",
        stage=wanted.stage,
        lines_url=there.get("timeline"),
        video_url=there.get("video"),
        expires=expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        reminder=0,
    )
    if suspends:
        about = f"{reviewing.name} into {name_of(language)}: {NAMES[wanted.stage]}"
        create_table_artifact(table=wanted.rows, key="review", description=about)
        create_table_artifact(table=[*map(dict, files)], key="review-files", description="What to look at and listen to")
        request = _request(wanted, reviewing.name, language, expires, trouble)
        create_markdown_artifact(request, key="review-request", description="What is asked of a reviewer")


def _expires(asked: Approval, days: float) -> datetime:
    return datetime.fromisoformat(asked.asked) + timedelta(days=days)


def _request(wanted: ReviewWanted, name: str, language: str, expires: datetime, trouble: str) -> str:
    flagged = sum(bool(row["flags"]) for row in wanted.rows)
    flags = f", {flagged} of them flagged" if flagged else ""
    # A file's name is no markup.
    shown = "".join(f"\\{c}" if c in "\\`*_{}[]()<>#+-.!|" else c for c in name)
    said = f"**{trouble}**\n\n" if trouble else ""
    return (
        f"{said}Please review the {NAMES[wanted.stage]} of {shown} into {name_of(language)}: {len(wanted.rows)} lines{flags}. They are in "
        "the run's artifact *review*, what to listen to is in *review-files*. Approve or reject until "
        f"{expires:%Y-%m-%d %H:%M} UTC; lines that you change are made anew, and no others."
    )


def _take(
    answer: ReviewAnswer,
    wanted: ReviewWanted,
    asked: Approval,
    store: Store,
    reviewing: Review,
    check: Callable[[Revision], None],
    language: str,
) -> None:
    """Keep the edits and the decision.

    Raises:
        Rejected
        BadInput: an edit can't be made, or what is to be approved is no longer what was shown. Nothing was kept of the former.
    """
    stage, lesson = wanted.stage, reviewing.lesson
    answered = {"reason": answer.reason, "reviewer": answer.reviewer, "answered": now()}
    if answer.decision == "reject":
        for place in ("", asked.run):
            approval.write(store, lesson, language, stage, asked.model_copy(update={"decision": "reject", **answered}), place)
        raise Rejected(stage, answer.reviewer, answer.reason)
    if answer.edits:
        reviewing.change(lambda edits: _with_edits(edits, answer.edits, reviewing, check))
    if asked.content != wanted.content:
        raise BadInput("The lesson has changed since it was shown; your changes are kept, please look again.")
    approved = (
        {"approved": "", "approved_edits": approval.digest_of_edits(reviewing.read())} if answer.edits else {"approved": wanted.content}
    )
    for place in ("", asked.run):
        approval.write(store, lesson, language, stage, asked.model_copy(update={"decision": "approve", **approved, **answered}), place)


def _with_edits(edits: Edits, lines: Sequence[LineEdit], reviewing: Review, check: Callable[[Revision], None]) -> Edits:
    """The edits with these, each checked on the lines as those before leave them."""
    transcript, translation = reviewing.settled
    for line in lines:
        if changes := line.changes():
            there = revised(transcript, translation, edits)
            said = {one.id: one for one in there.translation.lines}
            if line.line in said and all(getattr(said[line.line], name, None) == value for name, value in changes.items()):
                continue  # as it is already
            edits = edits.with_(new_edit(there.transcript, line.line, now(), **changes))
    check(revised(transcript, translation, edits))
    return edits


def answered_by_hand(
    store: Store, lesson: str, language: str, decision: Literal["approve", "reject"], reason: str, reviewer: str, reviewing: Review
) -> Approval:
    """The answer to what the last run without a deployment asked.

    Raises:
        BadInput: nothing is asked.
    """
    for stage in ("voiceover", "translation"):
        kept = approval.read(store, lesson, language, stage)
        if kept and (kept.decision is None or kept.decision == "reject"):
            edits = approval.digest_of_edits(reviewing.read())
            approved = {"approved": kept.content} if edits == kept.edits else {"approved": "", "approved_edits": edits}
            said = {"reason": reason, "reviewer": reviewer, "answered": now(), **(approved if decision == "approve" else {})}
            answer = kept.model_copy(update={"decision": decision, **said})
            approval.write(store, lesson, language, stage, answer)
            return answer
    raise BadInput("no review of this lesson waits for an answer: `coursedub dub --review translation` or `voiceover` asks for one")
