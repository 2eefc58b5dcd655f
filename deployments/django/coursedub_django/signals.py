"""What the host project may listen to. Each comes after the change is in the database, with the job as `job`; the sender is its class.

A receiver that fails is logged and stops nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction
from django.dispatch import Signal

if TYPE_CHECKING:
    from coursedub_django.models import Job

job_started = Signal()
review_requested = Signal()  # also for each reminder: job.review_reminders
job_completed = Signal()
job_failed = Signal()  # failed, crashed, cancelled, rejected or expired: job.state tells
lesson_published = Signal()


def send(signal: Signal, job: Job) -> None:
    transaction.on_commit(lambda: signal.send_robust(sender=type(job), job=job))
