"""The example project of deployments/django in this process, on a database of a test's own, and the people who use it."""

# ruff: noqa: E402  # Django is set up before its models are imported

from __future__ import annotations

import atexit
import hashlib
import hmac
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
APP = ROOT / "deployments" / "django"
SECRET = "the secret of the webhooks"
PASSWORD = "a long enough password"

sys.path[:0] = [str(APP), str(APP / "example")]
os.environ["DJANGO_DATA"] = tempfile.mkdtemp(prefix="coursedub-django-")
atexit.register(shutil.rmtree, os.environ["DJANGO_DATA"], ignore_errors=True)
os.environ["DJANGO_SETTINGS_MODULE"] = "platform_site.settings"
os.environ["COURSEDUB_WEBHOOK_SECRETS"] = SECRET

import django

django.setup()

from django.conf import settings

settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the others take their time on purpose

from coursedub_django.models import Answer, Course, Delivery, Job, Lesson
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import connections
from django.test import Client, override_settings
from django.test.utils import setup_test_environment, teardown_test_environment

MEDIA = b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00" + b"\x00" * 500  # how a file in MP4 begins


@contextmanager
def site(database: str) -> Iterator[None]:
    """The project with its tables made.

    Args:
        database: postgresql://…, or the path of an SQLite file.
    """
    from platform_site.settings import _database

    connections["default"].close()
    before = connections.settings["default"]
    given = {**connections.configure_settings({"default": _database(database)})["default"]}
    connections.settings["default"] = given
    del connections["default"]
    setup_test_environment(debug=False)
    try:
        call_command("migrate", verbosity=0)
        yield
    finally:
        teardown_test_environment()
        connections["default"].close()
        connections.settings["default"] = before
        del connections["default"]


def clear() -> None:
    """Nothing but the groups is left."""
    for model in (Delivery, Answer, Job, Lesson, Course, User):
        model.objects.all().delete()


def person(name: str, group: str = "") -> Any:
    """partner, reviewer, administrator, or nobody in particular."""
    made = User.objects.create_user(name, password=PASSWORD, is_staff=True)
    if group:
        made.groups.add(Group.objects.get(name=f"coursedub {group}"))
    return User.objects.get(pk=made.pk)  # without what it may do in its cache


def as_(user: Any) -> Client:
    client = Client(raise_request_exception=True)
    client.force_login(user)
    return client


def a_lesson(owner: Any, title: str = "Light", **more: Any) -> Any:
    course = Course.objects.create(owner=owner, title=f"Physics of {owner}", target_languages="en, es")
    return Lesson.objects.create(course=course, title=title, **{"source": "https://example.org/lesson.mp4", **more})


def coursedub(**changed: Any) -> Any:
    """Settings of the app, for the time of a test."""
    return override_settings(COURSEDUB={**settings.COURSEDUB, **changed})


def signed(event: Mapping[str, Any], secret: str = SECRET, at: float | None = None, delivery: str = "one") -> dict[str, Any]:
    """A webhook as the flow sends it, for `Client.post`."""
    body = json.dumps(event).encode()
    timestamp = str(int(time.time() if at is None else at))
    signature = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    headers = {"X-Coursedub-Timestamp": timestamp, "X-Coursedub-Signature": f"sha256={signature}", "X-Coursedub-Delivery": delivery}
    return {"data": body, "content_type": "application/json", "headers": headers}
