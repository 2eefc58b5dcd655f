"""Where runs tell what became of a job. Nothing is believed that isn't signed, fresh and new.

`X-Coursedub-Signature: sha256=<hex of HMAC-SHA256(secret, timestamp + "." + body)>`. A delivery counts once, by id and by signature: the
id is not signed, so a copy under another one is known by the latter. Whoever sends again what was taken already is told so, with 200.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.http import HttpRequest, JsonResponse
from django.utils.dateparse import parse_datetime
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from coursedub_django.conf import settings
from coursedub_django.jobs import State, moved, publication_ended, readable, viewed
from coursedub_django.models import Delivery, Job

log = logging.getLogger(__name__)

LARGEST = 64 * 1024  # bytes of a body
_FILES = {"voice_url": "voice", "subtitles_url": "srt", "video_url": "video", "thumbnail_url": "thumbnail", "report_url": "page"}
_FAILED = {"Crashed": State.CRASHED, "Cancelled": State.CANCELLED, "Rejected": State.REJECTED, "Expired": State.EXPIRED}


class _Refusal(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class _TakenAlready(Exception):
    pass


@csrf_exempt
@require_POST
def webhook(request: HttpRequest) -> JsonResponse:
    try:
        body = _read(request)
        signature = _verified(request, body)
        event = _parsed(body)
        delivery = request.headers.get("X-Coursedub-Delivery", "")
        if not 0 < len(delivery) <= 100 or not delivery.isprintable():
            raise _Refusal(400, "no X-Coursedub-Delivery")
        with transaction.atomic():
            job = _job(event)
            _note(Delivery(id=delivery, signature=signature, event=event["event"][:50], job=job, body=event))
            _apply(job, event)
    except _Refusal as refusal:
        log.warning("webhook refused: %s", refusal)
        return JsonResponse({"error": str(refusal)}, status=refusal.status)
    except _TakenAlready:
        return JsonResponse({"taken": False, "why": "it was taken already"})
    return JsonResponse({"taken": True})


def _read(request: HttpRequest) -> bytes:
    length = request.headers.get("Content-Length", "")
    if not length.isdecimal():
        raise _Refusal(411, "no Content-Length")
    if int(length) > LARGEST:
        raise _Refusal(413, f"more than {LARGEST} bytes")
    return request.body


def _verified(request: HttpRequest, body: bytes) -> str:
    """Returns the signature."""
    found = settings()
    timestamp = request.headers.get("X-Coursedub-Timestamp", "")
    scheme, _equals, given = request.headers.get("X-Coursedub-Signature", "").partition("=")
    if scheme != "sha256" or not timestamp.isascii() or not timestamp.isdecimal() or len(timestamp) > 15:
        raise _Refusal(403, "not signed")
    message = timestamp.encode() + b"." + body
    right = [hmac.new(secret.encode(), message, hashlib.sha256).hexdigest() for secret in found.webhook_secrets]
    if not any([hmac.compare_digest(one.encode(), given.encode(errors="replace")) for one in right]):  # a list: all are compared
        raise _Refusal(403, "the signature is wrong")
    if abs(time.time() - int(timestamp)) > found.webhook_window:
        raise _Refusal(403, "too old, or the clocks differ")
    return given


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        event = json.loads(body)
    except ValueError:
        raise _Refusal(400, "not JSON") from None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise _Refusal(400, "no event")
    return event


def _job(event: Mapping[str, Any]) -> Job:
    try:
        job = Job.objects.select_for_update().get(pk=UUID(str(event.get("job_id"))))
        UUID(str(event.get("run_id")))
    except (ValueError, Job.DoesNotExist):
        raise _Refusal(404, "there is no such job") from None
    return job


def _note(delivery: Delivery) -> None:
    try:
        with transaction.atomic():
            delivery.save(force_insert=True)
    except IntegrityError as error:
        raise _TakenAlready from error


def _apply(job: Job, event: Mapping[str, Any]) -> None:
    """Of an earlier run than the job's own nothing is taken over."""
    kind, run = event["event"], UUID(str(event["run_id"]))
    there = viewed({"kinescope": {"video": event.get("kinescope_id"), "address": event.get("kinescope_url")}})
    if run == job.publish_run_id:
        if there or kind == "video_failed":
            publication_ended(job.pk, run, there, readable(str(event.get("error") or "")))
        return
    # Whole seconds: what happens within one must not be older than itself.
    at = (_time(event.get("timestamp")) or datetime.now(UTC)) + timedelta(seconds=0.999)
    addresses = {what: value for name, what in _FILES.items() if isinstance(value := event.get(name), str)}
    if kind == "video_completed":
        moved(job.pk, run, State.COMPLETED, at, addresses=addresses, cost=event.get("cost"))
    elif kind == "video_failed":
        moved(job.pk, run, _FAILED.get(str(event.get("state")), State.FAILED), at, error=readable(str(event.get("error") or "")))
    elif kind == "review_requested":
        reminder = event.get("reminder")
        reminders = reminder if isinstance(reminder, int) and 0 <= reminder < 1000 else 0
        moved(job.pk, run, State.REVIEW, at, until=_time(event.get("expires")), reminder=reminders)
    elif kind == "voiceover_uploaded" and job.run_id == run and job.is_active:
        Job.objects.filter(pk=job.pk).update(addresses={**job.addresses, **addresses})


def _time(value: Any) -> datetime | None:
    """Of ISO 8601 or seconds since 1970."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        found = parse_datetime(value) if isinstance(value, str) else None
        return found and (found if found.tzinfo else found.replace(tzinfo=UTC))
    except (ValueError, OverflowError, OSError):
        return None
