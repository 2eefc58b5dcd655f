"""Servers of chat models on loopback, as Ollama and OpenAI document them, with a model that is played: it answers as it was told.

What is asked of a server is kept in `requests`. What `moves` holds is done for one request to the model each, in order; when nothing is
left the model translates: `said` gives a line's translation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

from tests.played_server import PlayedServer

DIGEST = "7cdf5a0187d5c58cc5d369b255592f7841d1c4696d45a8c8a9489440385b22f6"


class Says(NamedTuple):
    """An answer, whatever was asked: text, or what is written as JSON."""

    content: Any
    finished: str = "stop"  # why the model ended: "length" when it was cut off


class Refuses(NamedTuple):
    """A status that is no success, with the server's own words."""

    status: int
    error: Any
    headers: Mapping[str, str] = {}


class BreaksOff(NamedTuple):
    """A part of an answer, then the connection is cut (`error` empty) or an error is sent in its place."""

    content: str
    error: str = ""


class Hangs(NamedTuple):
    """Nothing is ever said."""


class GoesOn(NamedTuple):
    """An answer that never ends: a little of it is sent again and again."""

    part: bytes
    pause: float = 0.05  # seconds between two


class Page(NamedTuple):
    """What another server would say that happens to be at the address."""

    html: str


class Nonsense(NamedTuple):
    """Bytes that are no answer, with status 200."""

    body: bytes
    headers: Mapping[str, str] = {}


Move = Says | Refuses | BreaksOff | Hangs | Page | Nonsense | GoesOn


class ChatServer(PlayedServer):
    """One server."""

    def __init__(self, said: Callable[[str], str], *moves: Move, models: dict[str, str] | None = None, key: str = "") -> None:
        super().__init__()
        self.said, self.moves = said, list(moves)
        self.models = {"qwen2.5:14b": DIGEST} if models is None else models
        self.key = key
        self.requests: list[tuple[str, dict[str, Any]]] = []  # path, body

    def _answer(self, request: BaseHTTPRequestHandler, method: str) -> None:
        (self._get if method == "GET" else self._post)(request)

    def asked(self, path: str) -> list[dict[str, Any]]:
        return [body for asked, body in self.requests if asked == path]

    @property
    def lines_asked(self) -> list[list[str]]:
        """The numbers of the lines in each request to the model."""
        chats = [*self.asked("/api/chat"), *self.asked("/v1/chat/completions")]
        return [list(json.loads(body["messages"][-1]["content"])) for body in chats]

    def _get(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append((request.path, {}))
        if self.moves and isinstance(self.moves[0], Page):
            _send(request, 200, self.moves[0].html.encode(), "text/html")
        elif request.path == "/api/tags":
            listed = [{"name": tag, "model": tag, "digest": digest, "size": 8_988_124_069} for tag, digest in self.models.items()]
            _send_json(request, 200, {"models": listed})
        else:
            _send(request, 404, b"404 page not found", "text/plain")

    def _post(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        self.requests.append((request.path, body))
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            error: Any = {"message": "Incorrect API key provided", "type": "invalid_request_error", "code": "invalid_api_key"}
            _send_json(request, 401, {"error": error})
            return
        if request.path == "/api/generate":
            _send_json(request, 200, {"model": body["model"], "response": "", "done": True, "done_reason": "unload"})
            return
        if body["model"] not in self.models:
            error = f"model '{body['model']}' not found"
            if request.path != "/api/chat":
                message = f"The model `{body['model']}` does not exist"
                error = {"message": message, "type": "invalid_request_error", "code": "model_not_found"}
            _send_json(request, 404, {"error": error})
            return
        move = self.moves.pop(0) if self.moves else Says(self._translated(body))
        match move:
            case Refuses(status, error, headers):
                _send_json(request, status, {"error": error}, headers)
            case Hangs():
                self._leaving.wait(600)
                request.close_connection = True
            case Page(html):
                _send(request, 200, html.encode(), "text/html")
            case GoesOn(part, pause):
                self._go_on(request, part, pause)
            case Nonsense(content, headers):
                _send(request, 200, content, "application/json", headers)
            case Says(content, finished):
                text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
                if request.path == "/api/chat":
                    self._stream(request, body, [text[:7], text[7:]], finished)
                else:
                    _send_json(request, 200, _completion(body, text, finished))
            case BreaksOff(content, error):
                if request.path == "/api/chat":
                    self._stream(request, body, [content], None, error)
                else:
                    request.send_response(200)
                    request.send_header("Content-Type", "application/json")
                    request.send_header("Content-Length", "10000")
                    request.end_headers()
                    request.wfile.write(content.encode())
                    request.close_connection = True

    def _go_on(self, request: BaseHTTPRequestHandler, part: bytes, pause: float) -> None:
        request.close_connection = True
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        with suppress(OSError):  # it hangs up
            while not self._leaving.wait(pause):
                request.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")

    def _translated(self, body: dict[str, Any]) -> Any:
        lines = json.loads(body["messages"][-1]["content"])
        return {n: self.said(line) for n, line in lines.items()}

    def _stream(
        self, request: BaseHTTPRequestHandler, body: dict[str, Any], parts: Sequence[str], finished: str | None, error: str = ""
    ) -> None:
        """Ollama's stream: a JSON object a line, in chunks; the last says that it is done and why."""
        request.send_response(200)
        request.send_header("Content-Type", "application/x-ndjson")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        common = {"model": body["model"], "created_at": "2026-01-01T00:00:00Z"}
        objects: list[dict[str, Any]] = [{**common, "message": {"role": "assistant", "content": part}, "done": False} for part in parts]
        if finished:
            end = {"done": True, "done_reason": finished, "prompt_eval_count": 100, "eval_count": 20}
            objects.append({**common, "message": {"role": "assistant", "content": ""}, **end})
        elif error:
            objects.append({"error": error})
        for one in objects:
            line = json.dumps(one, ensure_ascii=False).encode() + b"\n"
            request.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        if finished or error:
            request.wfile.write(b"0\r\n\r\n")
        else:
            request.close_connection = True


def _completion(body: dict[str, Any], text: str, finished: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, "refusal": None}, "finish_reason": finished}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice], "usage": usage}


def _send_json(request: BaseHTTPRequestHandler, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
    _send(request, status, json.dumps(value, ensure_ascii=False).encode(), "application/json", headers or {})


def _send(request: BaseHTTPRequestHandler, status: int, content: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
    request.send_response(status)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(content)))
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(content)
