"""The part of Prefect's REST API that the platform uses, on loopback, in the shapes that the real server (3.8) has, and as moody as one.

What it shall do wrong is in `moves`: for the next requests whose path has a part, one each. `tests/deployments/test_django_prefect.py` asks
a real server the same things.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple
from uuid import uuid4

from tests.played_server import PlayedServer

DEPLOYMENT = str(uuid4())
LARGEST = 512 * 1024  # bytes of parameters


class Refuses(NamedTuple):
    status: int
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()


class LosesAnswer(NamedTuple):
    """Does what was asked, and closes without a byte."""


class Hangs(NamedTuple):
    """Does what was asked, and says nothing for longer than anybody waits."""


class Nonsense(NamedTuple):
    """Says something that isn't JSON, as a proxy's page."""


Move = Refuses | LosesAnswer | Hangs | Nonsense


class PlayedPrefect(PlayedServer):
    def __init__(self, auth: str = "") -> None:
        super().__init__()
        self.runs: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, list[dict[str, Any]]] = {}
        self.artifacts: dict[str, list[dict[str, Any]]] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self.moves: list[tuple[str, Move]] = []
        self.requests: list[str] = []
        self._auth, self._lock = auth, threading.Lock()

    @property
    def api(self) -> str:
        return f"{self.address}/api"

    # --- What a test says has happened

    def enters(self, run: object, type_: str, name: str = "", message: str = "", seconds: float = 0.0, **details: Any) -> None:
        """A run is in another state.

        Args:
            seconds: ago.
        """
        at = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
        found = self.runs[str(run)]
        found["state"] = {"type": type_, "name": name or type_.capitalize(), "timestamp": at, "message": message, "state_details": details}
        found["state_type"], found["state_name"] = type_, found["state"]["name"]

    def asks(self, run: object, lines: list[dict[str, Any]], files: dict[str, str] | None = None) -> None:
        """It waits for a review."""
        self.leaves(run, "review", lines)
        self.leaves(run, "review-files", [{"what": what, "address": address} for what, address in (files or {}).items()])
        until = (datetime.now(UTC) + timedelta(days=7)).isoformat()
        self.enters(
            run, "PAUSED", "Suspended", pause_reschedule=True, pause_timeout=until, run_input_keyset={"response": "r", "schema": "s"}
        )

    def leaves(self, run: object, key: str, content: list[dict[str, Any]] | str) -> None:
        """An artifact: a table, or text."""
        kind, data = ("markdown", content) if isinstance(content, str) else ("table", json.dumps(content))
        made = {"id": str(uuid4()), "key": key, "type": kind, "data": data, "flow_run_id": str(run)}
        self.artifacts.setdefault(str(run), []).insert(0, made)

    def works(self, run: object, *tasks: tuple[str, str, str], **shares: float) -> None:
        """Its task runs: name, type and name of the state; and how far some are, in percent."""
        self.tasks[str(run)] = [{"name": f"{name}-1a2", "state_type": type_, "state_name": state} for name, type_, state in tasks]
        for stage, share in shares.items():
            key = f"{stage.replace('_', '-')}-progress"
            made = {"id": str(uuid4()), "key": key, "type": "progress", "data": share, "flow_run_id": str(run)}
            self.artifacts.setdefault(str(run), []).insert(0, made)

    def results_in(self, run: object, **values: Any) -> None:
        """It is completed and left this."""
        self.leaves(run, "result", [{"name": name, "value": json.dumps(value)} for name, value in values.items()])
        self.enters(run, "COMPLETED")

    # --- HTTP

    def _answer(self, request: BaseHTTPRequestHandler, method: str) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        path = request.path.removeprefix("/api")
        with self._lock:
            self.requests.append(f"{method} {path}")
            move = next((move for part, move in self.moves if part in path), None)
            if move is not None:
                self.moves.remove(next(one for one in self.moves if one[0] in path))
            if isinstance(move, Refuses):
                status, said = move.status, move.body
            elif not self._lets_in(request):
                status, said = 401, {"exception_message": "Unauthorized"}
            else:
                status, said = self._do(method, path, json.loads(body) if body else {})
        if isinstance(move, Hangs):
            self._leaving.wait(60)
        if isinstance(move, LosesAnswer | Hangs):
            request.close_connection = True
            return
        text = b"<html>502 of a proxy</html>" if isinstance(move, Nonsense) else json.dumps(said).encode()
        request.send_response(status)
        for name, value in move.headers if isinstance(move, Refuses) else ():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    def _lets_in(self, request: BaseHTTPRequestHandler) -> bool:
        return not self._auth or request.headers.get("Authorization") == "Basic " + base64.b64encode(self._auth.encode()).decode()

    def _do(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if method == "GET" and path == "/deployments/name/dub-video/dub-video":
            return 200, {"id": DEPLOYMENT, "name": "dub-video"}
        if method == "POST" and path == f"/deployments/{DEPLOYMENT}/create_flow_run":
            return self._create(body)
        if found := re.fullmatch(r"/flow_runs/([0-9a-f-]{36})/(set_state|resume)", path):
            run = self.runs.get(found[1])
            if run is None:
                return 404, {"detail": "Flow run not found"}
            return self._set_state(run, body) if found[2] == "set_state" else self._resume(run, body)
        if path == "/flow_runs/filter":
            wanted = body["flow_runs"]["id"]["any_"]
            return 200, [run for run in self.runs.values() if run["id"] in wanted][: body["limit"]]
        if path == "/task_runs/filter":
            return 200, [task for run in body["flow_runs"]["id"]["any_"] for task in self.tasks.get(run, [])]
        if path == "/artifacts/filter":
            keys, runs = body["artifacts"]["key"]["any_"], body["artifacts"]["flow_run_id"]["any_"]
            return 200, [made for run in runs for made in self.artifacts.get(run, []) if made["key"] in keys]
        return 404, {"detail": "Not Found"}

    def _create(self, body: dict[str, Any]) -> tuple[int, Any]:
        for run in self.runs.values():
            if run["idempotency_key"] == body["idempotency_key"]:
                return 200, run
        if len(json.dumps(body["parameters"])) > LARGEST:
            return 422, {
                "exception_message": "Invalid request received.",
                "exception_detail": [{"msg": "Value error, Flow run parameters"}],
            }
        if not isinstance(body["parameters"].get("source"), str) or len(body["parameters"].get("target_language", "")) < 2:
            return 409, {
                "detail": "Error creating flow run: Validation failed for field 'source'. Failure reason: None is not of type 'string'"
            }
        made = str(uuid4())
        now = datetime.now(UTC).isoformat()
        self.runs[made] = {**body, "id": made, "created": now, "deployment_id": DEPLOYMENT, "estimated_run_time": 0.0}
        self.enters(made, "SCHEDULED")
        return 201, self.runs[made]

    def _set_state(self, run: dict[str, Any], body: dict[str, Any]) -> tuple[int, Any]:
        now = run["state"]["type"]
        if now in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            reason = f"This run is already in terminal state {now}."
            return 200, {"state": None, "status": "ABORT", "details": {"type": "abort_details", "reason": reason}}
        if now in ("SCHEDULED", "PAUSED"):  # nobody works on it
            self.enters(run["id"], "CANCELLED")
            return 201, {"state": run["state"], "status": "REJECT", "details": {"type": "reject_details", "reason": "no infrastructure"}}
        self.enters(run["id"], "CANCELLING")
        return 201, {"state": run["state"], "status": "ACCEPT", "details": {"type": "accept_details"}}

    def _resume(self, run: dict[str, Any], body: dict[str, Any]) -> tuple[int, Any]:
        if run["state"]["type"] != "PAUSED":
            details = {"type": "abort_details", "reason": "Cannot resume a flow run that is not paused."}
            return 200, {"state": None, "status": "ABORT", "details": details}
        if (body.get("run_input") or {}).get("decision") not in ("approve", "reject"):
            reason = "Reason: Validation failed for field 'decision'. Failure reason: 'maybe' is not one of ['approve', 'reject']"
            return 200, {"state": run["state"], "status": "REJECT", "details": {"type": "abort_details", "reason": reason}}
        self.answers[run["id"]] = body["run_input"]
        self.enters(run["id"], "SCHEDULED", "Resuming")
        return 201, {"state": run["state"], "status": "ACCEPT", "details": {"type": "accept_details"}}
