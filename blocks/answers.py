"""Answers of services over HTTP, of which nothing is believed before it is read."""

from __future__ import annotations

import httpx

# What reading an answer raises that makes no sense: bytes that can't be unpacked, no JSON, JSON without end, JSON of another shape.
NONSENSE = (httpx.DecodingError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
