"""What the HTTP servers that tests play have in common: a port of their own, a thread a request, and an end that waits for nobody."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class PlayedServer(ABC):
    """One server in a thread of this process. Use as a context manager."""

    def __init__(self) -> None:
        self._leaving = threading.Event()  # set: whoever keeps a client waiting stops

    @abstractmethod
    def _answer(self, request: BaseHTTPRequestHandler, method: str) -> None:
        """Answer a request."""

    def __enter__(self) -> Self:
        played = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                played._answer(self, "GET")

            def do_POST(self) -> None:
                played._answer(self, "POST")

            def do_PATCH(self) -> None:
                played._answer(self, "PATCH")

            def do_DELETE(self) -> None:
                played._answer(self, "DELETE")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._http.shutdown()
        self._http.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"
