"""Where a lesson comes from: a local file or an http(s) address, found, fetched and checked before any work."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from dubbing import media
from dubbing.errors import BadInput, DownloadFailed, SourceEmpty, SourceNotFound, SourceTooLarge
from dubbing.media import Limits

DOWNLOAD_IDLE = 30.0  # seconds without a byte before a download is given up
_BLOCK = 1 << 18  # bytes
_ATTEMPTS = 3
_LONGEST_NAME = 100  # characters of a lesson's name used for folders and files


def is_address(source: str) -> bool:
    return re.match(r"https?://", source, re.IGNORECASE) is not None


def name_of(source: str) -> str:
    """What a person calls the source: the file's name.

    >>> name_of("https://example.org/a/lesson%201.mp4?token=x"), name_of("/data/lesson.mp4")
    ('lesson 1.mp4', 'lesson.mp4')
    """
    path = unquote(urlsplit(source).path) if is_address(source) else source
    return Path(path).name or "lesson"


def file_stem(name: str) -> str:
    """A lesson's name as it is safe in a file name: no separators, no control characters, no leading dots or dashes, not too long.

    >>> file_stem("-rf ../a\\nb.mp4"), file_stem("...")
    ('rf .. a b', 'lesson')
    """
    stem = Path(name).stem if not name.startswith("...") else ""
    stem = "".join(c if c.isprintable() and c not in '/\\\\:*?"<>|%' else " " for c in stem)
    stem = " ".join(stem.split()).lstrip(".- ")[:_LONGEST_NAME].rstrip(". ")
    while len(stem.encode()) > 2 * _LONGEST_NAME:  # file systems count bytes
        stem = stem[:-1]
    return stem or "lesson"


def fetch(address: str, folder: Path, limits: Limits, progress: Callable[[float], None] | None = None) -> Path:
    """Download a lesson into `folder`, going on where a broken-off attempt stopped.

    Raises:
        SourceNotFound: the server says that it isn't there, or that we may not have it.
        SourceTooLarge: announced or real size over the limit; nothing more is read.
        DownloadFailed: the server can't be reached or breaks off again and again.
    """
    name, target = name_of(address), folder / "download"
    reason = ""
    with httpx.Client(follow_redirects=True, timeout=DOWNLOAD_IDLE, max_redirects=5) as client:
        for _ in range(_ATTEMPTS):
            try:
                _continue(client, address, name, target, limits, progress)
                return target
            except httpx.HTTPError as error:
                reason = str(error) or type(error).__name__
            except httpx.InvalidURL as error:
                raise BadInput(f"{address}: not an address ({error})") from error
    raise DownloadFailed(f"{name}: the download failed {_ATTEMPTS} times ({reason})")


def _continue(
    client: httpx.Client, address: str, name: str, target: Path, limits: Limits, progress: Callable[[float], None] | None
) -> None:
    done = target.stat().st_size if target.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    with client.stream("GET", address, headers=headers) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and done:
            return  # everything is here already
        if 400 <= answer.status_code < 500 and answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
            raise SourceNotFound(f"{name}: the server answered {answer.status_code} {answer.reason_phrase}")
        answer.raise_for_status()
        if answer.status_code != httpx.codes.PARTIAL_CONTENT:
            done = 0
        announced = int(answer.headers.get("Content-Length") or 0)
        media.check_size(done + announced, name, limits)
        with target.open("ab" if done else "wb") as file:
            for block in answer.iter_bytes(_BLOCK):
                file.write(block)
                done += len(block)
                if done > limits.megabytes * 1e6:
                    raise SourceTooLarge(f"{name}: more than {limits.megabytes:g} MB (setting max_megabytes)")
                if progress and announced:
                    progress(min(1.0, done / max(announced, done)))
    if done == 0:
        raise SourceEmpty(f"{name}: the server sent 0 bytes")
