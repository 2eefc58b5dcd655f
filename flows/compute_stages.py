"""Work for the GPU server: the stages of lessons whose runs live elsewhere, until nobody asks for more.

A run of `dub-video` that can't compute a stage where it is leaves a job (`blocks/jobs.py`) and waits. Here jobs are taken, several lessons
at once, and each one's story is told as `dub-video` would; its results are in the store that both see. The lessons' models take turns
(`tasks/turns.py`), so that stages come grouped by model, and stages that need none go on beside them.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger, tags
from prefect.context import FlowRunContext
from pydantic import Field

from blocks.gpu_server import open_gpu_server
from blocks.jobs import Job, Jobs
from blocks.leases import LEASE
from blocks.profiles import Engines, profile_named
from blocks.store import open_store
from dubbing.errors import CoursedubError, LeasesDown, NoLease
from dubbing.lesson import Source, Term
from flows.dub_video import Wishes, computed_whole, story
from tasks.approval import ReviewWanted
from tasks.deliver import delivered
from tasks.hand_over import note_packages
from tasks.history import written_down
from tasks.progress import TAG, Event, StageLog, watched_by
from tasks.review import Review
from tasks.stage import tell_waiting, working_with
from tasks.turns import Turns, taking_turns

AT_ONCE = 3  # lessons: more than one, so that the GPU works while another lesson is mixed
TELL_EVERY = 5.0  # seconds


@flow(name="compute-stages")
def compute_stages(
    gpu_server: Annotated[
        str | None,
        Field(
            title="GPU server",
            description="Whose jobs: a saved block's name, or the server's id in its cloud; COURSEDUB_GPU_SERVER when empty.",
        ),
    ] = None,
    at_once: Annotated[int, Field(ge=1, le=16, title="Lessons at once", description="That are worked on at a time.")] = AT_ONCE,
) -> dict[str, Any]:
    """Work on jobs until none is left. Returns what became of each."""
    server = open_gpu_server(gpu_server)
    context = FlowRunContext.get()
    assert context and context.flow_run
    work = _Work(Jobs(server.leases()), str(context.flow_run.id), server.server_id)
    try:
        work.until_none_is_left(at_once)
    finally:
        work.stop()
        server.close()
    return {"lessons": work.outcomes}


class _Lesson:
    """One that is in hand."""

    def __init__(self, job: Job, server: str, engines: Engines, turns: Turns) -> None:
        self.job = job
        self.source = Source.model_validate(job.request["lesson"])
        wishes = job.request["wishes"]
        self.wishes = Wishes(**{**wishes, "terms": tuple(Term.model_validate(term) for term in wishes["terms"])})
        self._server, self._engines, self._turns = server, engines, turns
        self._last: Event | None = None
        self.given_up: NoLease | None = None
        self.told = time.monotonic()  # when its lease was renewed last
        with watched_by(self._note):
            self.log = StageLog()

    def _note(self, event: Event) -> None:
        self._last = event

    def progress(self) -> dict[str, Any]:
        last = self._last
        now = None if last is None else {"stage": last.stage, "kind": last.kind, "share": round(last.share, 3)}
        return {"now": now, "share": round(self.log.share(), 3), "stages": self.log.outcomes()}

    def compute(self) -> None:
        """In a thread, as a sub-run of its own."""
        name = f"{self.source.name} into {self.wishes.target_language}"

        @flow(name="compute-lesson", flow_run_name=name.replace("{", "(").replace("}", ")"), validate_parameters=False)
        def compute_lesson(lesson: str, target_language: str) -> list[dict[str, Any]]:
            self._compute()
            return self.log.outcomes()

        with tags(TAG):
            compute_lesson(self.source.name, self.wishes.target_language)

    def _compute(self) -> None:
        store = open_store(self.job.request["store"])
        store.while_waiting(tell_waiting)
        lesson, wishes = self.source, self.wishes
        try:
            note_packages(store, self._server)
            with (
                watched_by(self.log),
                taking_turns(self._turns),
                tempfile.TemporaryDirectory() as nothing,
                working_with(self._engines.each(), self.job.request["profile"]),
                written_down(store, lesson, wishes.target_language, ""),
            ):
                # A reviewer's changes are in the store: whoever asks has put them there.
                reviewing = Review(store, lesson.sha256, wishes.target_language, Path(nothing), name=lesson.name)
                with suppress(ReviewWanted):  # who asked for the lesson sees to that
                    computed_whole(store, lambda: store.fetch(delivered(story(store, lesson, self._engines, wishes, reviewing))))
        finally:
            store.close()


class _Work:
    """All lessons in hand, and what they share."""

    def __init__(self, jobs: Jobs, worker: str, server: str) -> None:
        self._jobs, self._worker, self._server = jobs, worker, server
        self._turns = Turns()
        self._engines: dict[str, Engines] = {}
        self._in_hand: dict[Future[None], _Lesson] = {}
        self._log = get_run_logger()
        self.outcomes: list[dict[str, Any]] = []

    def until_none_is_left(self, at_once: int) -> None:
        with_threads = ThreadPoolExecutor(at_once, thread_name_prefix="lesson")
        try:
            while True:
                while len(self._in_hand) < at_once and (job := self._next()):
                    self._begin(job, with_threads)
                if not self._in_hand:
                    return
                done = wait(self._in_hand, timeout=TELL_EVERY, return_when=FIRST_COMPLETED).done
                for future in done:
                    self._end(future)
                for lesson in self._in_hand.values():
                    self._tell(lesson)
        finally:
            for lesson in self._in_hand.values():
                lesson.log.stop()
            with_threads.shutdown(wait=False, cancel_futures=True)

    def stop(self) -> None:
        for lesson in self._in_hand.values():
            with suppress(LeasesDown):
                self._jobs.put_back(lesson.job, self._worker)
        for engines in self._engines.values():
            engines.close()

    def _next(self) -> Job | None:
        try:
            return self._jobs.take(self._worker, [lesson.job for lesson in self._in_hand.values()])
        except LeasesDown as away:
            self._log.warning("%s", away)
            return None

    def _begin(self, job: Job, threads: ThreadPoolExecutor) -> None:
        try:
            lesson = _Lesson(job, self._server, self._engines_of(job), self._turns)
        except CoursedubError as error:
            self._finish(job, error)
            return
        self._log.info("%s into %s", lesson.source.name, lesson.wishes.target_language)
        self._in_hand[threads.submit(copy_context().run, lesson.compute)] = lesson

    def _engines_of(self, job: Job) -> Engines:
        """The same for all lessons that want the same, so that they share what is loaded."""
        profile, instead = job.request["profile"], job.request["engines"]
        name = str([profile, *sorted(instead.items())])
        if name not in self._engines:
            self._engines[name] = profile_named(profile, **instead).engines()
        return self._engines[name]

    def _tell(self, lesson: _Lesson) -> None:
        try:
            self._jobs.tell(lesson.job, self._worker, lesson.progress())
            lesson.told = time.monotonic()
        except NoLease as lost:
            self._give_up(lesson, lost)
        except LeasesDown as away:
            self._log.warning("%s", away)
            if time.monotonic() - lesson.told > LEASE:  # it may have ended by now, and nobody can tell
                self._give_up(lesson, NoLease(f"its lease can't be renewed: {away}"))

    def _give_up(self, lesson: _Lesson, why: NoLease) -> None:
        if lesson.given_up is None:
            self._log.warning("%s: given up: %s", lesson.source.name, why)
            lesson.given_up = why
            lesson.log.stop()

    def _end(self, future: Future[None]) -> None:
        lesson = self._in_hand.pop(future)
        error = future.exception()
        self._finish(lesson.job, lesson.given_up or error)
        outcome = "done" if error is None else str(lesson.given_up or error)
        self._log.info("%s: %s", lesson.source.name, outcome)
        self.outcomes.append({"lesson": lesson.source.name, "target_language": lesson.wishes.target_language, "outcome": outcome})

    def _finish(self, job: Job, error: BaseException | None) -> None:
        failure = None if error is None else {"kind": type(error).__name__, "message": str(error) or type(error).__name__}
        until = time.monotonic() + LEASE  # after that nobody waits for it
        while True:
            try:
                self._jobs.finish(job, self._worker, failure)
                return
            except LeasesDown as away:
                self._log.warning("%s", away)
                if time.monotonic() > until:
                    raise
