"""What is done with jobs: start, follow, cancel, answer a review, publish, try again.

A job is in the database before Prefect hears of it, with the key under which its run is started. Whatever happens then, the key is used
again (`sync_jobs` sees to it), and Prefect has one run of it.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from coursedub_django import signals
from coursedub_django.conf import settings
from coursedub_django.files import source_for_run
from coursedub_django.models import Answer, Job, Lesson
from coursedub_django.prefect_api import Line, PrefectApi, PrefectError, Refused, Result, ReviewRequest, Run

log = logging.getLogger(__name__)

State, Publication = Job.State, Job.Publication
ANSWER_LIMIT = timedelta(minutes=2)  # after which an answer that was on its way counts as lost
AFTERWARDS = timedelta(hours=6)  # for which an ended run is still asked for what is missing of it
AHEAD = timedelta(minutes=1)  # that a webhook may be ahead of its run, or this site's clock of Prefect's
LONGEST_TEXT = 2000  # characters of an edited line
LONGEST_REASON = 2000
_BY_PREFECT = {
    "SCHEDULED": State.QUEUED,
    "PENDING": State.QUEUED,
    "RUNNING": State.RUNNING,
    "CANCELLING": State.RUNNING,
    "PAUSED": State.REVIEW,
    "COMPLETED": State.COMPLETED,
    "FAILED": State.FAILED,
    "CRASHED": State.CRASHED,
    "CANCELLED": State.CANCELLED,
}
_COMPLETED = {"Rejected": State.REJECTED, "Expired": State.EXPIRED}  # by the name of the state


class NotPossible(Exception):
    """A person asked for what can't be done now; `str()` says why."""


# --- Starting


@dataclass(frozen=True)
class Started:
    jobs: tuple[Job, ...] = ()
    there_already: tuple[Job, ...] = ()


def start(lessons: Iterable[Lesson], languages: Sequence[str], user: Any, review: str | None = None) -> Started:
    """A job for each lesson and language that isn't in work already.

    Args:
        languages: none: the course's.
        review: none: as settings say.
    """
    made, there = [], []
    for lesson in lessons:
        for language in languages or lesson.course.targets:
            job, is_new = _job_for(lesson, language, user, review or settings().review)
            (made if is_new else there).append(job)
    with PrefectApi.from_settings() as api:
        for job in made:
            submit(job, api)
    return Started(tuple(made), tuple(there))


def _job_for(lesson: Lesson, language: str, user: Any, review: str) -> tuple[Job, bool]:
    key = uuid.uuid4()
    try:
        with transaction.atomic():
            locked = Lesson.objects.select_for_update().select_related("course").get(pk=lesson.pk)
            active = locked.jobs.filter(target_language=language, state__in=Job.ACTIVE).first()
            if active:
                return active, False
            job = Job(id=key, lesson=locked, target_language=language, review=review, created_by=user, state_at=timezone.now())
            job.idempotency_key = f"coursedub-job-{key}"
            job.parameters, job.recording = parameters_of(job), locked.recording
            job.save(force_insert=True)
            return job, True
    except IntegrityError:  # where a lock means nothing, as with SQLite, the constraint decides
        return Job.objects.get(lesson=lesson, target_language=language, state__in=Job.ACTIVE), False


def parameters_of(job: Job) -> dict[str, Any]:
    """Of the deployment dub-video. What is empty is left to its defaults."""
    found, lesson, course = settings(), job.lesson, job.lesson.course
    wanted = {
        "source": source_for_run(lesson),
        "target_language": job.target_language,
        "source_language": lesson.source_language or course.source_language,
        "voice": lesson.voice or course.voice,
        "terms": lesson.terms or course.terms,
        "review": job.review,
        "review_days": found.review_days if job.review != Job.Review.NONE else None,
        "publish_to": found.publish_to,
        "webhook": found.webhook,
        "job": str(job.id),
        "title": lesson.title,
    }
    return {**found.parameters, **{name: value for name, value in wanted.items() if value not in ("", None)}}


def submit(job: Job, api: PrefectApi) -> None:
    """Have Prefect start it. A passing fault leaves it to the next pass of `sync_jobs`; other faults end it."""
    name = f"{job.lesson.title} → {job.target_language}"[:200]
    try:
        run = api.create_run(job.parameters, job.idempotency_key, name, tags=["django"])
    except PrefectError as error:
        if error.passing:
            Job.objects.filter(pk=job.pk, state=State.STARTING).update(error=str(error))
        else:
            _end_unstarted(job, str(error))
        log.warning("job %s: %s", job.pk, error)
        job.refresh_from_db()
        return
    with transaction.atomic():
        locked = Job.objects.select_for_update().get(pk=job.pk)
        if locked.run_id is None:
            locked.run_id, locked.error = run.id, ""
            locked.save(update_fields=["run_id", "error"])
            signals.send(signals.job_started, locked)
    learn(job.pk, run)
    job.refresh_from_db()


def _end_unstarted(job: Job, error: str) -> None:
    with transaction.atomic():
        locked = Job.objects.select_for_update().get(pk=job.pk)
        if locked.state == State.STARTING:
            locked.state, locked.error, locked.state_at = State.FAILED, error, timezone.now()
            locked.finished_at = locked.state_at
            locked.save(update_fields=["state", "error", "state_at", "finished_at"])
            signals.send(signals.job_failed, locked)


def try_again(job: Job, user: Any) -> Job:
    """A new job of the same lesson and language; what was done already is cached.

    Raises:
        NotPossible: it hasn't ended.
    """
    if job.is_active:
        raise NotPossible(_("It is still in work."))
    started = start([job.lesson], [job.target_language], user, job.review)
    return (*started.jobs, *started.there_already)[0]


# --- Following


def learn(job_id: UUID, run: Run) -> None:
    """What Prefect says of a job's run."""
    state = _COMPLETED.get(run.state.name) if run.state.type == "COMPLETED" else None
    became = state or _BY_PREFECT.get(run.state.type)
    if became is None:
        log.warning("run %s is in a state that isn't known: %s", run.id, run.state.type)
        return
    error = readable(run.state.message) if became in Job.FAILURES else ""
    until = _deadline(job_id, run) if became == State.REVIEW else None
    moved(job_id, run.id, became, run.state.at, error=error, until=until, is_current=True)


def _deadline(job_id: UUID, run: Run) -> datetime | None:
    """When the review expires, where no webhook has said so. Prefect's own time-out comes later."""
    job = Job.objects.get(pk=job_id)
    if job.review_deadline and job.state == State.REVIEW:
        return None
    days = job.parameters.get("review_days")
    return run.state.at + timedelta(days=days) if isinstance(days, int | float) else run.state.expires


def moved(
    job_id: UUID,
    run_id: UUID,
    state: str,
    at: datetime,
    error: str = "",
    addresses: Mapping[str, str] | None = None,
    cost: Any = None,
    until: datetime | None = None,
    reminder: int = 0,
    is_current: bool = False,
) -> bool:
    """News of a job. Returns whether it changed anything; what is late, of another run or impossible doesn't.

    Args:
        at: when it was so.
        until: when the review expires.
        reminder: how often somebody was reminded of it.
        is_current: it is so now, whenever it began: then it is late for a moment only, in which a webhook may be ahead of the run.
    """
    with transaction.atomic():
        job = Job.objects.select_for_update().get(pk=job_id)
        if job.run_id is None and job.state == State.STARTING:
            job.run_id = run_id  # a webhook was faster than Prefect's answer
            job.save(update_fields=["run_id"])
            signals.send(signals.job_started, job)
        if job.run_id != run_id:
            return False
        reminded = state == job.state == State.REVIEW and reminder > job.review_reminders
        if reminded:
            job.review_reminders = reminder
        elif state == job.state == State.REVIEW and until and until != job.review_deadline:
            job.review_deadline = until
            job.save(update_fields=["review_deadline"])
            return True
        elif not job.moves_to(state, timezone.now() if is_current and _has_rested(job) else at) or _is_taken(job, state):
            return False
        else:
            _enter(job, state, at, error)
            job.review_reminders = reminder
        if until:
            job.review_deadline = until
        if addresses:
            job.addresses = {**job.addresses, **addresses}
        if (paid := decimal(cost)) is not None:
            job.cost = paid
        job.save()
        if state == State.REVIEW:
            signals.send(signals.review_requested, job)
        elif state == State.COMPLETED:
            signals.send(signals.job_completed, job)
        elif state in Job.FAILURES:
            signals.send(signals.job_failed, job)
    return True


def _has_rested(job: Job) -> bool:
    return job.state == State.STARTING or timezone.now() - job.state_at > AHEAD


def _is_taken(job: Job, state: str) -> bool:
    """A crashed run that went on after all comes too late where the lesson was started anew."""
    if job.state != State.CRASHED:
        return False
    return Job.objects.filter(lesson=job.lesson_id, target_language=job.target_language, created_at__gt=job.created_at).exists()


def _enter(job: Job, state: str, at: datetime, error: str) -> None:
    job.state, job.state_at = state, max(at, job.state_at)
    job.answering_since = None
    if state != State.QUEUED and job.started_at is None:
        job.started_at = at
    if job.is_active:
        job.error = ""
    else:
        job.finished_at, job.error, job.eta = at, error, None
        if state == State.COMPLETED:
            job.share, job.stage = 1.0, ""
    if state == State.REVIEW:
        job.eta = None
    else:
        job.review_deadline = None


def sync(jobs: Iterable[Job], api: PrefectApi) -> int:
    """Bring jobs up to date by what Prefect says: repairs whatever a webhook should have told. Returns how many it looked at.

    Raises:
        PrefectError
    """
    given = list(jobs)
    now = timezone.now()
    for job in given:
        if job.state == State.STARTING and job.run_id is None:
            submit(job, api)
        if job.publication == Publication.PUBLISHING and job.publish_run_id is None:
            _submit_publication(job, api)
    wanted = [run for job in given for run in (job.run_id, job.publish_run_id) if run]
    runs = api.runs(wanted) if wanted else {}
    for job in given:
        if job.run_id:
            _sync_one(job, runs.get(job.run_id), api, now)
        if job.publication == Publication.PUBLISHING and job.publish_run_id:
            _sync_publication(job, runs.get(job.publish_run_id), api)
    Job.objects.filter(pk__in=[job.pk for job in given]).update(synced_at=now)
    return len(given)


def to_sync() -> Any:
    """Jobs that Prefect may know news of."""
    recent = timezone.now() - AFTERWARDS
    unfinished = Q(state__in=Job.ACTIVE) | Q(publication=Publication.PUBLISHING)
    incomplete = Q(state=State.COMPLETED, result={}, finished_at__gt=recent)
    perhaps = Q(state=State.CRASHED, finished_at__gt=recent)
    return Job.objects.filter(unfinished | incomplete | perhaps).select_related("lesson__course")


def _sync_one(job: Job, run: Run | None, api: PrefectApi, now: datetime) -> None:
    if run is None:
        assert job.run_id is not None
        if job.is_active:
            moved(job.pk, job.run_id, State.FAILED, now, error=_("Prefect no longer knows the run: it was deleted there."))
        return
    learn(job.pk, run)
    job.refresh_from_db()
    if job.state == State.RUNNING:
        progress = api.progress(run)
        eta = now + timedelta(seconds=progress.eta) if progress.eta is not None else None
        stages = [[stage.name, stage.state, round(stage.share, 3)] for stage in progress.stages]
        share = max(job.share, progress.share) if job.share < 1 else progress.share
        Job.objects.filter(pk=job.pk, state=State.RUNNING).update(share=share, eta=eta, stage=progress.stage, stages=stages)
    elif job.state == State.COMPLETED and not job.result and run.state.type == "COMPLETED":
        found = api.result(run.id) or Result()
        values = {**found.values, "seconds": round(run.seconds, 1)}  # the run's own are those since it was resumed
        changed: dict[str, Any] = {"result": values}
        if found.addresses:
            changed["addresses"] = dict(found.addresses)
        if (cost := _cost(values)) is not None:
            changed["cost"] = cost
        if there := viewed(values):
            changed["kinescope_id"], changed["kinescope_url"] = there
        Job.objects.filter(pk=job.pk).update(**changed)


def _cost(values: Mapping[str, Any]) -> Decimal | None:
    spent = values.get("gpu_server")
    of_server = spent.get("cost") if isinstance(spent, dict) else None
    return decimal(values.get("cost") if values.get("cost") is not None else of_server)


def viewed(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """Id and address of the video at Kinescope, by a run's result.

    >>> viewed({"kinescope": {"video": "a1", "address": "https://kinescope.io/a1"}}), viewed({})
    (('a1', 'https://kinescope.io/a1'), None)
    """
    found = values.get("kinescope")
    if not isinstance(found, dict) or not found.get("video"):
        return None
    address = str(found.get("address") or "")
    return str(found["video"])[:100], address[:500] if address.startswith(("https://", "http://")) else ""


def decimal(value: Any) -> Decimal | None:
    """
    >>> decimal(1.25), decimal("nan"), decimal(None), decimal({})
    (Decimal('1.2500'), None, None, None)
    """
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return round(found, 4) if found.is_finite() and 0 <= found < 10**8 else None


def refresh(jobs: Iterable[Job], older_than: float = 3.0) -> str:
    """Sync those that Prefect wasn't asked about lately, for a page that is open. Returns why that couldn't be done, or ""."""
    before = timezone.now() - timedelta(seconds=older_than)
    stale = [
        job for job in jobs if job.is_active or job.publication == Publication.PUBLISHING or (job.state == "completed" and not job.result)
    ]
    # One page at a time asks.
    mine = [job for job in stale if _claimed(job, before)]
    if not mine:
        return ""
    try:
        with PrefectApi.from_settings() as api:
            sync(mine, api)
    except PrefectError as error:
        return str(error)
    return ""


def _claimed(job: Job, before: datetime) -> bool:
    unasked = Q(synced_at__isnull=True) | Q(synced_at__lt=before)
    return bool(Job.objects.filter(unasked, pk=job.pk).update(synced_at=timezone.now()))


def cancel(job: Job) -> None:
    """
    Raises:
        NotPossible: it has ended.
        PrefectError
    """
    if not job.is_active:
        raise NotPossible(_("It has ended already."))
    with PrefectApi.from_settings() as api:
        if job.run_id is None:
            submit(job, api)  # it may have been started by a request whose answer was lost
            if job.run_id is None:
                if not job.is_active:
                    return
                raise NotPossible(job.error)
        try:
            api.cancel(job.run_id)
        except Refused as error:
            sync([job], api)
            raise NotPossible(str(error)) from error
        sync([job], api)


# --- Review


def review_request(job: Job) -> ReviewRequest:
    """
    Raises:
        NotPossible: the run asks nothing.
        PrefectError
    """
    if job.state != State.REVIEW or job.run_id is None:
        raise NotPossible(_("This job doesn't wait for a review."))
    with PrefectApi.from_settings() as api:
        found = api.review_request(job.run_id)
    if found is None:
        raise NotPossible(_("The run hasn't said yet what is to be reviewed. Try again in a moment."))
    return found


def checked_edits(given: Any, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """A reviewer's changes, as they came from a browser: only what differs from the lines is left.

    Raises:
        NotPossible: they aren't changes of these lines.
    """
    known = {line.id: line for line in lines}
    if not isinstance(given, list) or len(given) > len(known):
        raise NotPossible(_("The changes can't be read. Load the page again."))
    edits: dict[str, dict[str, Any]] = {}
    for one in given:
        line = known.get(one.get("line")) if isinstance(one, dict) and isinstance(one.get("line"), str) else None
        if line is None or line.id in edits:
            raise NotPossible(_("The lines have changed meanwhile. Load the page again."))
        edit: dict[str, Any] = {"line": line.id}
        text, voice, silent = one.get("text"), one.get("voice"), one.get("silent")
        if isinstance(text, str) and (wanted := " ".join(text.split())) != line.translation:
            if not wanted:
                raise NotPossible(_("A line is empty. To leave it unspoken, tick “silent”."))
            if len(wanted) > LONGEST_TEXT or not wanted.isprintable():
                raise NotPossible(_("A line has at most %d characters, all of them visible.") % LONGEST_TEXT)
            edit["text"] = wanted
        if isinstance(voice, str) and (name := voice.strip()) != line.voice:  # "": the lesson's again
            if len(name) > 100 or not re.fullmatch(r"[\w .:/+-]*", name):
                raise NotPossible(_("There can't be a voice of this name: %s") % name[:100])
            edit["voice"] = name
        if isinstance(silent, bool) and silent != line.silent:
            edit["silent"] = silent
        if silent and "text" in edit:
            del edit["text"]  # nobody will say it
        if len(edit) > 1:
            edits[line.id] = edit
    return list(edits.values())


def answer(job: Job, user: Any, decision: str, request: str, edits: Any = (), reason: str = "") -> None:
    """Approve, with or without changes, or reject with a reason. The first who answers counts.

    Args:
        request: id of what the reviewer has looked at.

    Raises:
        NotPossible: it was answered already, it has expired, or the changes are of other lines.
        PrefectError
    """
    if decision not in Answer.Decision.values:
        raise NotPossible(_("Approve or reject."))
    reason = reason.strip()[:LONGEST_REASON]
    if decision == Answer.Decision.REJECT and not reason:
        raise NotPossible(_("Say why you reject it: somebody has to make it better."))
    asked = review_request(job)
    if asked.id != request:
        raise NotPossible(_("The lines have changed meanwhile. Load the page again."))
    changes = checked_edits(list(edits), asked.lines) if decision == Answer.Decision.APPROVE else []
    now = timezone.now()
    free = Q(answering_since__isnull=True) | Q(answering_since__lt=now - ANSWER_LIMIT)
    if not Job.objects.filter(free, pk=job.pk, state=State.REVIEW).update(answering_since=now):
        raise NotPossible(_("Somebody else has answered this review already."))
    said = {"decision": decision, "reason": reason, "edits": changes, "reviewer": str(user.get_username())}
    try:
        with PrefectApi.from_settings() as api:
            assert job.run_id is not None
            api.answer_review(job.run_id, said)
            with transaction.atomic():
                Answer.objects.update_or_create(
                    job=job, request=request, defaults={"decision": decision, "reason": reason, "edits": changes, "reviewer": user}
                )
            _go_on(job)
    except Refused as error:
        with PrefectApi.from_settings() as api:
            sync([job], api)
        raise NotPossible(_("The review was answered already, or it has expired.")) from error
    finally:
        Job.objects.filter(pk=job.pk, answering_since=now).update(answering_since=None)
    job.refresh_from_db()


def _go_on(job: Job) -> None:
    """It waits for its turn again, unless news of it were faster."""
    now = timezone.now()
    Job.objects.filter(pk=job.pk, state=State.REVIEW).update(
        state=State.QUEUED, state_at=now, review_deadline=None, review_reminders=0, answering_since=None
    )


# --- Publishing


def publish(job: Job, user: Any) -> None:
    """Have it uploaded to Kinescope, where that is set, and say that it is published.

    The upload is another run with the same parameters: all is cached, and what a reviewer has approved is what is published.

    Raises:
        NotPossible: it isn't done, or is published already.
    """
    found = settings()
    with transaction.atomic():
        locked = Job.objects.select_for_update().get(pk=job.pk)
        if not locked.is_publishable:
            raise NotPossible(_("Only what is done and not published yet can be published."))
        if locked.recording != locked.lesson.recording:
            raise NotPossible(_("The lesson's recording was replaced since it was dubbed. Dub it again first."))
        locked.published_by, locked.publication_error = user, ""
        if locked.kinescope_id or not found.kinescope:
            _published(locked)
        else:
            locked.publication, locked.publish_run_id = Publication.PUBLISHING, None
            locked.publish_key = f"coursedub-publish-{uuid.uuid4()}"
            locked.save()
    job.refresh_from_db()
    if job.publication == Publication.PUBLISHING:
        with PrefectApi.from_settings() as api:
            _submit_publication(job, api)


def _submit_publication(job: Job, api: PrefectApi) -> None:
    # A link to an upload is made anew: the first may be too old.
    parameters = {**job.parameters, "source": source_for_run(job.lesson), "kinescope": settings().kinescope}
    try:
        run = api.create_run(parameters, job.publish_key, f"{job.lesson.title} → {job.target_language} → Kinescope"[:200], tags=["django"])
    except PrefectError as error:
        state = Publication.PUBLISHING if error.passing else Publication.FAILED
        Job.objects.filter(pk=job.pk, publication=Publication.PUBLISHING).update(publication=state, publication_error=str(error))
    else:
        Job.objects.filter(pk=job.pk, publish_run_id__isnull=True).update(publish_run_id=run.id, publication_error="")
    job.refresh_from_db()


def _published(job: Job) -> None:
    job.publication, job.published_at, job.publication_error = Publication.PUBLISHED, timezone.now(), ""
    job.save()
    signals.send(signals.lesson_published, job)


def publication_ended(job_id: UUID, run_id: UUID, there: tuple[str, str] | None, why: str = "") -> None:
    """
    Args:
        run_id: that should have published it; of another, earlier one it is no news.
        there: id and address at Kinescope.
        why: it failed.
    """
    with transaction.atomic():
        job = Job.objects.select_for_update().get(pk=job_id)
        if job.publication != Publication.PUBLISHING or job.publish_run_id != run_id:
            return
        if there:
            job.kinescope_id, job.kinescope_url = there
            _published(job)
        else:
            job.publication, job.publication_error = Publication.FAILED, why
            job.save(update_fields=["publication", "publication_error"])


def _sync_publication(job: Job, run: Run | None, api: PrefectApi) -> None:
    assert job.publish_run_id is not None
    there, why = None, ""
    if run is None:
        why = _("Prefect no longer knows the run: it was deleted there.")
    elif run.state.type == "COMPLETED" and run.state.name not in _COMPLETED:
        found = api.result(run.id)
        there = viewed(found.values) if found else None
        why = _("The run has ended without a Kinescope id.")
    elif run.state.type == "PAUSED":
        api.cancel(run.id)
        why = _("The lesson has changed since it was approved. Dub it again, and have it reviewed.")
    elif run.state.type in ("FAILED", "CRASHED", "CANCELLED", "COMPLETED"):
        why = readable(run.state.message) or run.state.name
    else:
        return
    publication_ended(job.pk, job.publish_run_id, there, why)


# --- Errors in words


def readable(message: str) -> str:
    """What Prefect says of a failed run, without what only programmers need.

    >>> readable("Flow run encountered an exception: NoSpeech: lesson.mp4: nobody speaks in it")
    'lesson.mp4: nobody speaks in it'
    """
    text = " ".join(message.split())
    text = re.sub(r"^(Flow|Task) run encountered an exception:? ?", "", text)
    return re.sub(r"^(?:[a-z_]\w*\.)*[A-Z]\w*: ", "", text)[:1000]
