"""Answers of services over HTTP, of which nothing is believed before it is read: neither that they end, nor that they make sense."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import Any

import httpx

LARGEST = 64_000_000  # bytes of an answer: a minute of sound as 32-bit floats at 48 kHz takes 16 MB in base64, text far less

# What reading an answer raises that makes no sense: bytes that can't be unpacked, no JSON, JSON without end, JSON of another shape.
NONSENSE = (httpx.DecodingError, ValueError, LookupError, TypeError, AttributeError, RecursionError)

# To be sent: an answer that is packed all the same is refused, since what a few bytes unpack to has no bounds.
HEADERS = {"Accept-Encoding": "identity"}


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the answer asks to be waited, given as such or as a date (RFC 9110, 10.2.3). 0 where it doesn't say.

    >>> retry_after({"retry-after": "120"}), retry_after({"retry-after": "soon"})
    (120.0, 0.0)
    """
    said = headers.get("retry-after", "").strip()
    if said.isdecimal():
        return float(said)
    try:
        date = parsedate_to_datetime(said)
    except (ValueError, IndexError, TypeError, OverflowError):
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def bounds(library: ModuleType = httpx) -> dict[str, list[Callable[..., Any]]]:
    """Event hooks for a client: an answer's body ends within the request's time-out and at `LARGEST`.

    The client's own time-out is for each read. Here the time counts from the request on, however little comes at a time. What is too late
    raises the library's `ReadTimeout`, and what is too large or packed its `DecodingError`.

    Args:
        library: the client's: httpx, or one with the same names.
    """

    def begin(request: httpx.Request) -> None:
        request.extensions["until"] = time.monotonic() + request.extensions["timeout"]["read"]

    def bound(response: httpx.Response) -> None:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise library.DecodingError("packed, which was not asked for", request=response.request)
        response.stream = Bounded(response.stream, response.request)

    class Bounded(library.SyncByteStream):  # type: ignore[name-defined]
        """A body that ends."""

        def __init__(self, body: Any, request: httpx.Request) -> None:
            self._body, self._request = body, request

        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for part in self._body:
                size += len(part)
                if time.monotonic() > self._request.extensions["until"]:
                    raise library.ReadTimeout("the answer goes on and on", request=self._request)
                if size > LARGEST:
                    raise library.DecodingError(f"more than {LARGEST} bytes", request=self._request)
                yield part

        def close(self) -> None:
            self._body.close()

    return {"request": [begin], "response": [bound]}
