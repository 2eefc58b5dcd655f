"""Files: an uploaded lesson for the run that dubs it, and what a run has made for the person who may see it."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from django.core.signing import BadSignature, SignatureExpired
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.http import require_safe

from coursedub_django.files import byte_range, lesson_of_link
from coursedub_django.models import Lesson

_BLOCK = 1 << 18  # bytes


@require_safe
def upload(request: HttpRequest, token: str, name: str) -> HttpResponseBase:
    """An uploaded lesson, to whoever has the link that a run was given. A link to a file that was replaced is dead."""
    try:
        lesson_id, file = lesson_of_link(token)
    except SignatureExpired:
        return HttpResponse("this link is too old", status=410)
    except (BadSignature, ValueError, TypeError):
        return HttpResponse("there is no such file", status=404)
    lesson = Lesson.objects.filter(pk=lesson_id, file=file).first()
    if lesson is None:
        return HttpResponse("the file was replaced or removed", status=410)
    try:
        opened = lesson.file.open("rb")
    except OSError:
        return HttpResponse("there is no such file", status=404)
    return served(request, opened, name)


def served(request: HttpRequest, file: IO[bytes], name: str, as_attachment: bool = False) -> HttpResponseBase:
    """A file, or the part of it that is asked for: what a player needs to seek, and a download to go on."""
    size = os.fstat(file.fileno()).st_size if _has_descriptor(file) else getattr(file, "size", 0)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    wanted = byte_range(request.headers.get("Range", ""), size)
    response: HttpResponseBase
    if wanted is None:
        response = FileResponse(file, content_type=kind, filename=Path(name).name, as_attachment=as_attachment)
    elif wanted[0] >= size or wanted[0] > wanted[1]:
        file.close()
        response = HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    else:
        first, last = wanted
        response = StreamingHttpResponse(_part(file, first, last), status=206, content_type=kind)
        response.headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        response.headers["Content-Length"] = str(last - first + 1)
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["X-Content-Type-Options"] = "nosniff"
    # A lesson's page or subtitles could hold a script: it must not act as this site.
    response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src *"
    return response


def _has_descriptor(file: Any) -> bool:
    try:
        file.fileno()
    except (AttributeError, OSError):
        return False
    return True


def _part(file: IO[bytes], first: int, last: int) -> Iterator[bytes]:
    with file:
        file.seek(first)
        left = last - first + 1
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            left -= len(block)
            yield block
