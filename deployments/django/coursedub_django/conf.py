"""What the host project sets: the dictionary COURSEDUB in its settings, read into a frozen record (README.md has the table)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

Gate = Literal["none", "translation", "voiceover"]


@dataclass(frozen=True)
class Settings:
    # Prefect
    api_url: str  # http(s)://…/api
    api_auth: str = ""  # user:password
    api_ca: str = ""  # file with the authority of the server's certificate; empty: the usual ones
    deployment: str = "dub-video/dub-video"
    parameters: Mapping[str, Any] = field(default_factory=dict)  # of every run: profile, gpu_server, store, …
    timeout: float = 10.0  # seconds for one request
    tries: int = 3  # of a request that met a passing fault
    # what is asked for
    languages: tuple[str, ...] = ("en", "es", "fr", "it", "pt", "hi", "ja", "zh")  # that may be dubbed into
    voices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # language -> voices that the review page suggests
    review: Gate = "voiceover"  # of a new job, unless the administrator says otherwise
    review_days: int = 7  # until an unanswered review expires
    currency: str = "€"
    # files
    publish_to: str = ""  # what dub_video's parameter `publish_to` takes: s3://bucket/prefix, a saved block, a folder
    bucket: str = ""  # s3://bucket/prefix whose files may be shown; when empty PUBLISH_TO, where that is one
    files_root: str = ""  # folder on this machine whose files may be shown; for set-ups without a bucket
    s3: Mapping[str, Any] = field(default_factory=dict)  # endpoint_url, region_name, aws_access_key_id, aws_secret_access_key
    link_seconds: int = 3600  # that a link to a file works
    uploads: Literal["link", "path"] = "link"  # how a run gets an uploaded lesson: from this site, or from a disk that it shares
    public_url: str = ""  # of this site as runs reach it, for links
    upload_link_days: int = 7  # that a run may wait in the queue, beside the days of its review
    max_megabytes: float = 500.0  # of a lesson
    partner_sources: tuple[str, ...] = ("https://",)  # how the address of a partner's recording must begin: runs fetch it with their rights
    # publishing
    kinescope: str = ""  # what dub_video's parameter `kinescope` takes: a saved block, a project's id
    # webhooks
    webhook: str = ""  # what dub_video's parameter `webhook` takes: a saved block, the address of this site's webhook
    webhook_secrets: tuple[str, ...] = ()  # any of them may sign, so that they can be changed without a gap
    webhook_window: float = 300.0  # seconds that a delivery's time may be off


def settings() -> Settings:
    """
    Raises:
        ImproperlyConfigured: one line that names the setting.
    """
    given = getattr(django_settings, "COURSEDUB", None)
    if not isinstance(given, Mapping) or "API_URL" not in given:
        raise ImproperlyConfigured("COURSEDUB: set it to a dictionary with at least API_URL, the address of Prefect's API")
    known = {one.name.upper(): one for one in fields(Settings)}
    if unknown := sorted(set(given) - set(known)):
        raise ImproperlyConfigured(f"COURSEDUB: unknown settings {', '.join(map(str, unknown))}")
    values = {known[name].name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    found = Settings(**values)
    _check(found)
    return found


def _check(found: Settings) -> None:
    for name in ("api_url", "public_url"):
        value = getattr(found, name)
        if (value or name == "api_url") and urlsplit(value).scheme not in ("http", "https"):
            raise ImproperlyConfigured(f"COURSEDUB {name.upper()}: not an http(s) address: {value!r}")
    if isinstance(found.partner_sources, str) or not all("://" in one for one in found.partner_sources):
        raise ImproperlyConfigured("COURSEDUB PARTNER_SOURCES: a list of beginnings of addresses, https://example.org/ say")
    if isinstance(found.webhook_secrets, str):
        raise ImproperlyConfigured("COURSEDUB WEBHOOK_SECRETS: a list of secrets, not one string")
    if any(len(secret) < 16 for secret in found.webhook_secrets):
        raise ImproperlyConfigured("COURSEDUB WEBHOOK_SECRETS: a secret has at least 16 characters")
    if found.review not in get_args(Gate):
        raise ImproperlyConfigured(f"COURSEDUB REVIEW: one of {', '.join(get_args(Gate))}")
    if found.uploads not in ("link", "path"):
        raise ImproperlyConfigured("COURSEDUB UPLOADS: link or path")
    if found.uploads == "link" and not found.public_url:
        raise ImproperlyConfigured("COURSEDUB PUBLIC_URL: needed for links to uploaded lessons; or set UPLOADS to path")
    if found.bucket and not found.bucket.startswith("s3://"):
        raise ImproperlyConfigured("COURSEDUB BUCKET: s3://bucket/prefix")
    if found.files_root and not Path(found.files_root).is_absolute():
        raise ImproperlyConfigured("COURSEDUB FILES_ROOT: an absolute path")
    if found.tries < 1 or found.timeout <= 0 or found.max_megabytes <= 0:
        raise ImproperlyConfigured("COURSEDUB TRIES, TIMEOUT, MAX_MEGABYTES: greater than 0")
