"""A platform's webhook on loopback: it verifies what comes as the platform does, and misbehaves as it is told to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

from dubbing.signing import SIGNATURE, TIMESTAMP, verify
from tests.played_server import PlayedServer

SECRET = "a secret of both, and of nobody else"


class Come(NamedTuple):
    """A message that is signed as it should be."""

    event: str
    delivery: str
    body: dict[str, Any]


class Receiver(PlayedServer):
    def __init__(self) -> None:
        super().__init__()
        self.start_afresh()

    def start_afresh(self) -> None:
        self.come: list[Come] = []  # whatever was answered
        self.taken: list[Come] = []
        self.paths: list[str] = []
        self.answers: list[int | str] = []  # for the next ones: a status, or "silence"
        self.always: int | str = 200  # after these

    @property
    def url(self) -> str:
        return f"{self.address}/webhooks/coursedub"

    def events(self) -> Sequence[str]:
        return [one.event for one in self.taken]

    def _answer(self, request: BaseHTTPRequestHandler, method: str) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        self.paths.append(request.path)
        if request.headers.get(SIGNATURE):
            verify(SECRET, request.headers[TIMESTAMP], request.headers[SIGNATURE], body)
            come = Come(request.headers["X-Coursedub-Event"], request.headers["X-Coursedub-Delivery"], json.loads(body))
        else:  # of Prefect's own
            come = Come("notification", "", json.loads(body))
        self.come.append(come)
        answer = self.answers.pop(0) if self.answers else self.always
        if answer == "silence":
            self._leaving.wait(60)
            return
        if answer == 200:
            self.taken.append(come)
        with suppress(OSError):
            request.send_response(int(answer))
            request.send_header("Content-Length", "0")
            if 300 <= int(answer) < 400:
                request.send_header("Location", f"{self.address}/elsewhere")
            request.end_headers()
