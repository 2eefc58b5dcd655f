"""Kinescope on loopback, as its OpenAPI document and its clients have it, with a real Tus server for large files (`tuspyserver`).

What it shall do wrong is in `moves`: for the next requests to a path, one each.
"""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4

import httpx
import uvicorn
from fastapi import FastAPI
from tuspyserver import create_tus_router

from tests.fault_proxy import FaultProxy
from tests.played_server import PlayedServer

TOKEN = "0f9c1a52-5f5c-4b35-a5a0-0c7d5b8e9d11"
PROJECT = "5a676eb1-ffc1-4924-95fc-73b811fa139a"


class Refuses(NamedTuple):
    status: int
    code: int = 0
    message: str = ""
    headers: Mapping[str, str] = {}


class LosesAnswer(NamedTuple):
    """Does what was asked, and closes without a byte."""


class Cuts(NamedTuple):
    """Takes so many bytes of the body, and closes."""

    after: int


class Nonsense(NamedTuple):
    """Does what was asked, and says something else."""


Move = Refuses | LosesAnswer | Cuts | Nonsense
INTERNAL_ERROR = Refuses(500, 500500, "internal server error")


class Video:
    def __init__(self, title: str, description: str, parent: str) -> None:
        self.id = str(uuid4())
        self.title, self.description, self.parent = title, description, parent
        self.endpoint = ""
        self.file: bytes | None = None  # what has arrived, when all has
        self.looks = 0  # at it since
        self.status = ""  # where it is not what follows from the rest
        self.tracks: dict[str, dict[str, Any]] = {}


class PlayedKinescope(PlayedServer):
    """API and uploader in one."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.videos: dict[str, Video] = {}
        self.moves: list[tuple[str, str, Move]] = []  # method, part of the path
        self.requests: list[tuple[str, str]] = []
        self.looks_until_done = 2
        self.ends_in = "done"
        self.search_lags = 0  # searches that don't find the newest yet
        self.raw_titles = False  # takes a header's title for Latin-1
        self._folder = folder
        self._lock = threading.Lock()
        app = FastAPI()
        app.include_router(create_tus_router(prefix="files", files_dir=str(folder)))
        self._tus = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", timeout_graceful_shutdown=1))

    def __enter__(self) -> PlayedKinescope:
        thread = threading.Thread(target=self._tus.run, daemon=True)
        thread.start()
        while not self._tus.started:
            assert thread.is_alive()
            self._leaving.wait(0.01)
        self.tus = FaultProxy(self._tus.servers[0].sockets[0].getsockname()[1])
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        self.tus.down()
        self._tus.should_exit = True
        super().__exit__(*error)

    def start_afresh(self) -> None:
        self.__dict__ |= {"videos": {}, "moves": [], "requests": [], "looks_until_done": 2, "ends_in": "done", "search_lags": 0}
        self.raw_titles = False
        self.tus.up()
        self.tus.next()
        self.tus.forget()

    def count(self, method: str, part: str) -> int:
        return sum(seen == method and part in path for seen, path in self.requests)

    @property
    def only(self) -> Video:
        (video,) = self.videos.values()
        return video

    # --- requests

    def _answer(self, request: BaseHTTPRequestHandler, method: str) -> None:
        with suppress(OSError):
            self._handle(request, method)

    def _handle(self, request: BaseHTTPRequestHandler, method: str) -> None:
        path = request.path
        with self._lock:
            self.requests.append((method, path))
            move = next((entry for entry in self.moves if entry[0] == method and entry[1] in path), None)
            if move:
                self.moves.remove(move)
        fault = move[2] if move else None
        length = int(request.headers.get("Content-Length") or 0)
        if isinstance(fault, Cuts):
            request.rfile.read(min(fault.after, length))
            self._close(request)
            return
        body = request.rfile.read(length)
        if len(body) < length:  # whoever sent it is gone
            request.close_connection = True
            return
        if isinstance(fault, Refuses):
            self._say(request, fault.status, _error(fault.code, fault.message), fault.headers)
            return
        with self._lock:
            status, answer = self._done(request, method, urlsplit(path), body)
        if isinstance(fault, LosesAnswer):
            self._close(request)
        elif isinstance(fault, Nonsense):
            self._say(request, 200, "<html>", {})
        else:
            self._say(request, status, answer, {})

    def _done(self, request: BaseHTTPRequestHandler, method: str, address: Any, body: bytes) -> tuple[int, Any]:
        given = request.headers.get("Authorization")
        if given is None:
            return 400, _error(100101, "authorization header not found")
        if given != f"Bearer {TOKEN}":
            return 401, _error(100102, "unauthorized")
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        if parts[0] == "v2":
            return self._uploaded(request, parts[1], body)
        if parts[:2] != ["v1", "videos"]:
            return 404, _error(404404, "no such entity")
        if len(parts) == 2:
            return 200, self._listed(parse_qs(address.query))
        video = self.videos.get(parts[2])
        if video is None:
            return 404, _error(404404, "no such entity")
        if len(parts) == 3:
            if method == "PATCH":
                video.title = json.loads(body).get("title", video.title)
            return 200, {"data": self._facts(video, looks=method == "GET")}
        return self._tracks(request, method, video, parts[4:], body)

    def _uploaded(self, request: BaseHTTPRequestHandler, what: str, body: bytes) -> tuple[int, Any]:
        headers = request.headers
        if what == "video":
            encoding = "latin-1" if self.raw_titles else "utf-8"
            title = headers["X-Video-Title"].encode("latin-1").decode(encoding)
            video = Video(title, headers.get("X-Video-Description", ""), headers["X-Parent-ID"])
            video.file = body
        else:
            wanted = json.loads(body)
            video = Video(wanted["title"], wanted.get("description", ""), wanted["parent_id"])
            created = httpx.post(
                f"{self.tus.endpoint}/files/",
                headers={
                    "Tus-Resumable": "1.0.0",
                    "Upload-Length": str(wanted["filesize"]),
                    "Upload-Metadata": f"filename {b64encode(wanted['filename'].encode()).decode()},filetype dmlkZW8vbXA0",
                },
                timeout=60,
            )
            created.raise_for_status()
            video.endpoint = f"{self.tus.endpoint}{urlsplit(created.headers['location']).path}"
        if video.parent != PROJECT:
            return 404, _error(404404, "no such entity")
        self.videos[video.id] = video
        return 200, {"data": {"id": video.id, **({"endpoint": video.endpoint} if video.endpoint else {})}}

    def _listed(self, query: dict[str, list[str]]) -> Any:
        wanted = query.get("q", [""])[0]
        found = [video for video in self.videos.values() if wanted in video.title or wanted in video.description]
        if wanted and self.search_lags:
            self.search_lags -= 1
            found = []
        page = {"page": 1, "per_page": 100, "total": len(found)}
        return {"meta": {"pagination": page}, "data": [self._facts(video, looks=False) for video in found]}

    def _facts(self, video: Video, looks: bool) -> dict[str, Any]:
        self._arrived(video)
        if video.file is not None and looks:
            video.looks += 1
        done = video.looks > self.looks_until_done
        status = video.status or ("uploading" if video.file is None else self.ends_in if done else "processing")
        return {
            "id": video.id,
            "project_id": video.parent,
            "folder_id": None,
            "title": video.title,
            "description": video.description,
            "status": status,
            "progress": min(100, 50 * video.looks),
            "play_link": f"https://kinescope.example/{video.id}",
        }

    def _arrived(self, video: Video) -> None:
        if video.endpoint and video.file is None:
            name = video.endpoint.rpartition("/")[2]
            info = json.loads((self._folder / f"{name}.info").read_text())
            there = (self._folder / name).read_bytes()
            if len(there) == info["size"]:
                video.file = there

    def _tracks(self, request: BaseHTTPRequestHandler, method: str, video: Video, rest: list[str], body: bytes) -> tuple[int, Any]:
        if method == "POST":
            head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
            fields = {
                part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
                for part in message_from_bytes(head + body).walk()
            }
            track = {
                "id": str(uuid4()),
                "video_id": video.id,
                "language": _text(fields["language"]),
                "description": _text(fields["description"]),
            }
            video.tracks[track["id"]] = {**track, "content": fields["file"]}
            return 200, {"data": track}
        if method == "DELETE":
            if rest[0] not in video.tracks:
                return 404, _error(404404, "no such entity")
            del video.tracks[rest[0]]
            return 200, {"data": {"success": True}}
        return 200, {"data": [{name: value for name, value in track.items() if name != "content"} for track in video.tracks.values()]}

    def _say(self, request: BaseHTTPRequestHandler, status: int, answer: Any, headers: Mapping[str, str]) -> None:
        content = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        request.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)

    def _close(self, request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        request.connection.shutdown(2)


def _error(code: int, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "detail": ""}}


def _text(value: Any) -> str:
    return bytes(value).decode()
