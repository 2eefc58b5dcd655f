"""Where a lesson comes from: a local file, an http(s) address or an object in a bucket, found, fetched and checked before any work."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from dubbing import media
from dubbing.errors import BadInput, DownloadFailed, SourceEmpty, SourceNotFound, SourceTooLarge
from dubbing.media import Limits

DOWNLOAD_IDLE = 30.0  # seconds without a byte before an attempt is given up
SLOWEST = 1000.0  # bytes a second over that time: a server that sends a byte now and then is idle too
PAUSES = (1.0, 5.0)  # seconds before the second and the third attempt
_PASSING = {httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_EARLY, httpx.codes.TOO_MANY_REQUESTS}  # of the answers that blame us
_LONGEST_NAME = 100  # characters of a lesson's name used for folders and files


def is_address(source: str) -> bool:
    """Whether it lies on the web or in a bucket; else it is a local path."""
    return re.match(r"(https?|s3)://", source, re.IGNORECASE) is not None


def is_in_bucket(source: str) -> bool:
    return source.lower().startswith("s3://")


def name_of(source: str) -> str:
    """What a person calls the source: the file's name.

    >>> name_of("https://example.org/a/lesson%201.mp4?token=x"), name_of("/data/lesson.mp4")
    ('lesson 1.mp4', 'lesson.mp4')
    """
    # A key in a bucket is a name as it stands, whatever signs are in it.
    path = unquote(_address_path(source)) if is_address(source) and not is_in_bucket(source) else source
    name = Path(path).name or "lesson"
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # a name in another encoding can't be written to JSON


def _address_path(address: str) -> str:
    try:
        return urlsplit(address).path
    except ValueError:  # "http://[::1/lesson.mp4"
        return address


def local_path(source: str) -> Path:
    """The path that a person means. "~" is the home folder of a user that exists, else a character like any other.

    Raises:
        BadInput: the name's bytes are not UTF-8, so no record of the run could hold it.

    >>> local_path("~draft.mp4")
    PosixPath('~draft.mp4')
    """
    try:
        source.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{name_of(source)}: the file's name is not valid UTF-8: rename it") from None
    try:
        return Path(source).expanduser()
    except RuntimeError:  # there is no such user
        return Path(source)


def file_stem(name: str) -> str:
    """A lesson's name as it is safe in a file name: no separators, no control characters, no leading dots or dashes, not too long.

    >>> file_stem("-rf a\\nb.mp4"), file_stem("...")
    ('rf a b', 'lesson')
    """
    return safe_name(Path(name).stem if not name.startswith("...") else "")


def safe_name(stem: str) -> str:
    """A title as it is safe in a file name, as `file_stem` has it.

    >>> safe_name("1. Light: waves, part 2.5"), safe_name("")
    ('1. Light waves, part 2.5', 'lesson')
    """
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
        for pause in (0.0, *PAUSES):
            time.sleep(pause)
            try:
                _continue(client, address, name, target, limits, progress)
                return target
            except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
                raise BadInput(f"{address}: not an address of a file on the web ({error})") from error
            except httpx.HTTPStatusError as error:
                reason = f"the server answered {error.response.status_code} {error.response.reason_phrase}".rstrip()
            except httpx.HTTPError as error:
                reason = str(error) or type(error).__name__
    raise DownloadFailed(f"{name}: the download failed {1 + len(PAUSES)} times ({reason})")


def _continue(
    client: httpx.Client, address: str, name: str, target: Path, limits: Limits, progress: Callable[[float], None] | None
) -> None:
    """One attempt. Goes on where the last one stopped if the server can, else begins again."""
    done = target.stat().st_size if target.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    with client.stream("GET", address, headers=headers) as answer:
        whole = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and done:
            if whole and whole[2] == str(done):
                return  # everything is here already
            target.unlink()
            raise httpx.RemoteProtocolError("the file changed between two attempts")
        if 400 <= answer.status_code < 500 and answer.status_code not in _PASSING:
            raise SourceNotFound(f"{name}: the server answered {answer.status_code} {answer.reason_phrase}".rstrip())
        answer.raise_for_status()
        if answer.status_code == httpx.codes.PARTIAL_CONTENT and not (whole and whole[1] == str(done)):
            target.unlink(missing_ok=True)
            raise httpx.RemoteProtocolError("the server sent another part of the file than was asked for")
        if answer.status_code != httpx.codes.PARTIAL_CONTENT:
            done = 0
        announced = int(answer.headers.get("Content-Length") or 0)
        media.check_size(done + announced, name, limits)
        expected = done + announced
        looked, had = time.monotonic(), done
        with target.open("ab" if done else "wb") as file:
            for block in answer.iter_bytes():
                file.write(block)
                done += len(block)
                if done > limits.megabytes * 1e6:
                    raise SourceTooLarge(f"{name}: more than {limits.megabytes:g} MB (setting max_megabytes)")
                if time.monotonic() - looked > DOWNLOAD_IDLE:
                    if done - had < SLOWEST * DOWNLOAD_IDLE:
                        raise httpx.ReadTimeout(f"only {done - had} bytes came in {DOWNLOAD_IDLE:.0f} s")
                    looked, had = time.monotonic(), done
                if progress and announced:
                    progress(min(1.0, done / expected))
    if done == 0:
        raise SourceEmpty(f"{name}: the server sent 0 bytes")
