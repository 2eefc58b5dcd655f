"""Uploaded lessons, checked before they are kept, and links to the files that a run has made."""

from __future__ import annotations

import re
import uuid
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from django.core import signing
from django.core.exceptions import ValidationError
from django.core.files.base import File
from django.urls import reverse
from django.utils.translation import gettext as _

from coursedub_django.conf import settings

if TYPE_CHECKING:
    from coursedub_django.models import Lesson

# Endings of what a lesson may come in, and how such files begin.
KINDS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".mp3", ".m4a", ".wav", ".flac", ".ogg", ".opus")
_SALT = "coursedub.upload"
_LONGEST_NAME = 80  # characters of an uploaded file's name that are kept


def looks_like_media(head: bytes) -> bool:
    """Whether a file begins as recordings do (the first 12 bytes; MPEG transport streams by their sync byte).

    >>> looks_like_media(b"\\x00\\x00\\x00\\x20ftypisom"), looks_like_media(b"<html><script>")
    (True, False)
    """
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):  # ISO media, QuickTime
        return True
    if head[:4] in (b"\x1aE\xdf\xa3", b"OggS", b"fLaC", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3"):  # Matroska, Ogg, FLAC, MPEG
        return True
    if head[:4] == b"RIFF":
        return head[8:12] in (b"WAVE", b"AVI ")
    return head[:1] == b"G" or head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)  # MPEG-TS, MP3, ADTS


def check_upload(file: Any) -> None:
    """A validator of uploaded lessons: size, ending, and what the file begins with.

    Raises:
        ValidationError
    """
    limit = settings().max_megabytes
    if file.size > limit * 1e6:
        raise ValidationError(_("The file has %(size).0f MB; at most %(limit)g MB are taken.") % {"size": file.size / 1e6, "limit": limit})
    if file.size == 0:
        raise ValidationError(_("The file is empty."))
    if PurePosixPath(file.name).suffix.lower() not in KINDS:
        raise ValidationError(_("A lesson is a video or sound file: %(kinds)s.") % {"kinds": " ".join(kind[1:] for kind in KINDS)})
    opened: File[bytes] = file
    opened.seek(0)
    head = opened.read(12)
    opened.seek(0)
    if not looks_like_media(head):
        raise ValidationError(_("The file is named like a recording but isn't one."))


def upload_path(lesson: Any, name: str) -> str:
    """Where an upload is kept: in a folder that nobody can guess, under a name of letters, digits and dashes."""
    path = PurePosixPath(name.replace("\\", "/"))
    stem = re.sub(r"[^\w-]+", "-", path.stem)[:_LONGEST_NAME].strip("-_") or "lesson"
    return f"lessons/{uuid.uuid4().hex}/{stem}{path.suffix.lower()}"


def source_for_run(lesson: Lesson) -> str:
    """The lesson as a run takes it: its address, the path of the upload, or a signed link to it."""
    if lesson.source:
        return lesson.source
    found = settings()
    if found.uploads == "path":
        return lesson.file.path
    token = signing.dumps([lesson.pk, lesson.file.name], salt=_SALT)
    link = reverse("coursedub:upload", args=[token, PurePosixPath(lesson.file.name).name])
    return found.public_url.rstrip("/") + link


def lesson_of_link(token: str) -> tuple[int, str]:
    """Id of the lesson and name of its file.

    Raises:
        signing.BadSignature: forged or too old.
    """
    found = settings()
    days = found.upload_link_days + found.review_days  # a run that was under review fetches the lesson again
    lesson, name = signing.loads(token, salt=_SALT, max_age=days * 86400)
    return int(lesson), str(name)


class NoLink(Exception):
    """The file can't be shown; says why."""


def link_to(address: str, name: str = "") -> str:
    """A link to a file in the bucket that works for an hour (LINK_SECONDS).

    Args:
        address: s3://bucket/key, under BUCKET: what lies elsewhere is nobody's to see.
        name: under which a browser saves it; empty: it is shown.

    Raises:
        NoLink
    """
    found = settings()
    parts = urlsplit(address)
    home = urlsplit(found.bucket or found.publish_to)
    prefix = home.path.strip("/")
    key = parts.path.lstrip("/")
    inside = key.startswith(f"{prefix}/") if prefix else bool(key)
    if parts.scheme != "s3" or home.scheme != "s3" or parts.netloc != home.netloc or not inside or ".." in key.split("/"):
        raise NoLink(_("The file lies outside the bucket that lessons are published to."))
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise NoLink(_("Links to files in a bucket need the package boto3.")) from None
    wanted = {"Bucket": parts.netloc, "Key": key}
    if name:
        wanted["ResponseContentDisposition"] = f"attachment; filename*=UTF-8''{quote(name)}"
    try:
        client = boto3.client("s3", config=Config(signature_version="s3v4", s3={"addressing_style": "path"}), **found.s3)
        link: str = client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=found.link_seconds)
    except (BotoCoreError, ValueError) as error:
        raise NoLink(str(error)) from error
    return link


def local_file(address: str) -> Path:
    """A file on this machine, where runs and this site share a disk: inside FILES_ROOT only.

    Raises:
        NoLink
    """
    root = settings().files_root
    if not root:
        raise NoLink(_("The file lies on the machine that made it, and isn't published."))
    path = Path(address).resolve()
    if not path.is_relative_to(Path(root).resolve()) or not path.is_file():
        raise NoLink(_("There is no such file."))
    return path


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """First and last byte that a browser asks for when it seeks; None: all.

    >>> byte_range("bytes=100-", 1000), byte_range("bytes=-100", 1000), byte_range("bytes=0-1,5-9", 1000)
    ((100, 999), (900, 999), None)
    """
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", header)
    if not match or not any(match.groups()):
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size - 1
    first = int(match[1])
    return first, min(size - 1, int(match[2]) if match[2] else size - 1)
