"""Telling the platform what becomes of a lesson (`dubbing.webhooks`), beside the work: it is never held up, and never fails, for that.

What a run can't deliver itself at the first try is left to runs of the deployment `deliver-webhook`. Without one, or without anybody to ask
for one, the run tries again while it lasts, and then gives up with a warning.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import httpx
from prefect import get_client, get_run_logger
from prefect.events import emit_event
from prefect.exceptions import MissingContextError, ObjectNotFound
from prefect.states import Scheduled

from blocks.webhook import Undelivered, Webhook
from dubbing.webhooks import RETRIES, Event, Message, message

DEPLOYMENT = "deliver-webhook/deliver-webhook"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between tries of a run that nobody helps
AT_THE_END = 20.0  # seconds that the end of a run may wait for what is on its way
_IN_A_HOOK = 3  # tries

Outcome = Literal["delivered", "handed over", "given up", "not wanted"]


class Teller(NamedTuple):
    """Who is told, and of whom."""

    webhook: Webhook | None
    reference: str  # by which other machines find the webhook
    job: str
    run: str
    lesson: str
    target_language: str

    def message(self, event: Event, which: str, facts: Mapping[str, Any]) -> Message:
        return message(
            event, job=self.job, run=self.run, lesson=self.lesson, target_language=self.target_language, which=which, facts=facts
        )

    def wants(self, event: Event) -> bool:
        return self.webhook is not None and event in self.webhook.events


class Announcer:
    """The messages of one run, delivered in order by a thread of their own."""

    def __init__(self, teller: Teller) -> None:
        self.teller = teller
        self.outcomes: dict[str, Outcome] = {}  # by event
        self._log = _logger()
        self._messages: queue.Queue[Message | None] = queue.Queue()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def tell(self, event: Event, which: str = "", **facts: Any) -> None:
        """
        Args:
            which: of several of this event in the run.
        """
        _emit(self.teller, event, facts)
        if not self.teller.wants(event):
            self.outcomes[event] = "not wanted"
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._deliver, name="webhooks", daemon=True)
            self._thread.start()
        self._messages.put(self.teller.message(event, which, facts))

    def close(self) -> None:
        """What is on its way gets a last try."""
        self._ending.set()
        if self._thread is not None:
            self._messages.put(None)
            self._thread.join(AT_THE_END)

    def _deliver(self) -> None:
        while (one := self._messages.get()) is not None:
            try:
                self.outcomes[one.event] = self._delivered(one)
            except Exception:  # whatever it is, it is not the lesson's fault
                self._log.exception("webhook: %s could not be told", one.event)
                self.outcomes[one.event] = "given up"

    def _delivered(self, one: Message) -> Outcome:
        assert self.teller.webhook is not None
        pause, last = FIRST_PAUSE, False
        while True:
            try:
                self.teller.webhook.send(one)
                return "delivered"
            except Undelivered as why:
                if left_to_a_run(self.teller.reference, one, attempt=1):
                    self._log.info("%s; %s tells it later", why, DEPLOYMENT)
                    return "handed over"
                if last:
                    self._log.warning("%s: %s is not told", why, one.event)
                    return "given up"
            last = self._ending.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


_announcer: ContextVar[Announcer | None] = ContextVar("announcer", default=None)


@contextmanager
def announcing(teller: Teller) -> Iterator[Announcer]:
    """Around a run, which tells with `announce`."""
    announcer = Announcer(teller)
    token = _announcer.set(announcer)
    try:
        yield announcer
    finally:
        _announcer.reset(token)
        announcer.close()


def announce(event: Event, which: str = "", **facts: Any) -> None:
    """Tell, where there is somebody to tell; returns at once.

    That a review is asked for is also an event of Prefect's, `coursedub.lesson.review_requested`.

    Args:
        which: of several of this event in the run: the stage that waits for a review, and which reminder it is.
        facts: what the message says beside job, run, lesson, language and time.
    """
    announcer = _announcer.get()
    if announcer:
        announcer.tell(event, which, **facts)


def announce_now(teller: Teller, event: Event, which: str = "", **facts: Any) -> Outcome:
    """The same of a run that has no process, or has ended: from its hooks, or from another run."""
    _emit(teller, event, facts)
    if not teller.wants(event):
        return "not wanted"
    assert teller.webhook is not None
    one = teller.message(event, which, facts)
    for attempt in range(_IN_A_HOOK):
        if attempt:
            time.sleep(FIRST_PAUSE * 2**attempt)
        try:
            teller.webhook.send(one)
            return "delivered"
        except Undelivered as why:
            if left_to_a_run(teller.reference, one, attempt=1):
                return "handed over"
            _logger().warning("%s", why)
    return "given up"


def left_to_a_run(reference: str, one: Message, attempt: int) -> bool:
    """Have a run of the deployment make this try (counted from 1), after the pause that belongs to it. Returns whether it will.

    Left twice, it is one run. What is known by an address alone has its secret here and nowhere else, and is left to nobody.
    """
    if "://" in reference:
        return False
    at = datetime.now(UTC) + timedelta(seconds=RETRIES[attempt - 1])
    parameters = {"webhook": reference, "event": one.event, "delivery": one.delivery, "body": one.body, "attempt": attempt}
    try:
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
            client.create_flow_run_from_deployment(
                deployment.id,
                name=f"{one.event} {one.delivery[:8]} {attempt}",
                parameters=parameters,
                state=Scheduled(scheduled_time=at),
                idempotency_key=f"{one.delivery} {attempt}",
            )
    except (ObjectNotFound, httpx.HTTPError, RuntimeError):
        return False
    return True


def _emit(teller: Teller, event: Event, facts: Mapping[str, Any]) -> None:
    """For automations: that a review is asked for, and how often it was before. Of what else there is Prefect has events of its own."""
    if event != "review_requested":
        return
    resource = {
        "prefect.resource.id": f"coursedub.run.{teller.run}",
        "prefect.resource.name": teller.lesson,
        "coursedub.reminder": str(facts.get("reminder", 0)),
    }
    with suppress(Exception):  # of a server that is away
        emit_event(f"coursedub.lesson.{event}", resource, payload={"job_id": teller.job, "lesson": teller.lesson, **facts})


def _logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("coursedub.webhooks")
