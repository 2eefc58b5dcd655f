"""A Nova, and the Keystone before it, that are played over HTTP: states, conflicts and faults as observed on a real one, without its times.

Whatever is under way goes on by one state at each look at the server. What it accepted is in `log`, by a clock that the test has.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal, NamedTuple

from tests.played_server import PlayedServer

SERVER = "6f1de2a4-3c1b-4b0e-9d1f-0a1b2c3d4e5f"
SECRET = "played-secret"

Fault = Literal[
    "503",  # not carried out
    "500 but done",  # carried out, and then something went wrong
    "dropped",  # the connection is cut before it is carried out
    "reply lost",  # … and after
    "late",  # the connection is cut, and it is carried out when `arrive` is called
    "silent",  # no answer until the test ends; not carried out
    "expired",  # the token is over: 401, not carried out
    "not Nova",  # a page of a proxy's
]

_STATUS = {
    **{"active": "ACTIVE", "stopped": "SHUTOFF", "paused": "PAUSED", "suspended": "SUSPENDED", "rescued": "RESCUE", "building": "BUILD"},
    **{"shelved": "SHELVED", "shelved_offloaded": "SHELVED_OFFLOADED", "error": "ERROR", "resized": "VERIFY_RESIZE"},
}
_POWER = {"active": 1, "rescued": 1, "paused": 3, "suspended": 7, "stopped": 4}


class State(NamedTuple):
    vm: str
    task: str | None = None
    power: int | None = None  # None: as the state has it
    host: bool = True


class Entry(NamedTuple):
    """In the log."""

    at: float
    what: str  # an action that was accepted, or "up", "down"


ACTIVE, OFFLOADED = State("active"), State("shelved_offloaded", host=False)
_SHELVING = [
    State("active", "shelving"),
    State("active", "shelving_image_pending_upload"),
    State("active", "shelving_image_uploading", 4),
]
_OFFLOADING = [State("shelved", "shelving_offloading"), OFFLOADED]
_STARTING = [State("active", "spawning"), ACTIVE]
_FROM: dict[str, tuple[str, ...]] = {  # vm states that an action is allowed in: nova/compute/api.py
    "shelve": ("active", "stopped", "paused", "suspended"),
    "unshelve": ("shelved", "shelved_offloaded"),
    "shelveOffload": ("shelved",),
    "os-start": ("stopped",),
    "os-stop": ("active", "error"),
    "unpause": ("paused",),
    "resume": ("suspended",),
    "unrescue": ("rescued",),
    "reboot": ("active", "stopped", "paused", "suspended", "error"),
}


@dataclass
class Place:
    """What the cloud has and allows."""

    capacity: bool = True
    snapshots_work: bool = True
    offloads_at_once: bool = True
    tenant_may_offload: bool = False
    locked: bool = False
    shows_details: bool = False  # of what failed, to others than its administrators


class Nova(PlayedServer):
    """One server in a cloud."""

    def __init__(self, state: State = ACTIVE, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.state, self.clock = state, clock
        self.place = Place()
        self.faults: list[tuple[str, Fault]] = []  # method and what becomes of the next such request
        self.log: list[Entry] = []
        self.requests: list[tuple[str, str]] = []
        self.handled = threading.Event()  # a fault was met
        self._coming: list[State] = [*_STARTING] if state.vm == "building" or state.task in ("spawning", "unshelving") else []
        if state.task and state.task.startswith("shelving"):
            self._coming = [*_SHELVING, *_OFFLOADING]
        self._late: list[str] = []
        self._actions: list[dict[str, Any]] = []
        self._tokens: set[str] = set()
        self._lock = threading.RLock()

    @property
    def settings(self) -> dict[str, Any]:
        """Of a `GpuServer` that asks it."""
        return {
            **{"server_id": SERVER, "auth_url": f"{self.address}/v3", "application_credential_id": "played", "region": "Played"},
            **{"application_credential_secret": SECRET, "retry_delay": 0.0},
        }

    @property
    def actions(self) -> list[str]:
        """Those that it accepted."""
        return [entry.what for entry in self.log if entry.what in _FROM]

    def becomes(self, state: State) -> None:
        with self._lock:
            self._coming.clear()
            self._change(state)

    def finish(self) -> None:
        """Let what is under way come to its end."""
        with self._lock:
            while self._coming:
                self._change(self._coming.pop(0))

    def arrive(self) -> None:
        """Requests that were on their way arrive."""
        with self._lock:
            late, self._late = self._late, []
            for action in late:
                self._act(action)

    def _change(self, state: State) -> None:
        before = self.state
        self.state = state
        for name in ("up", "down"):
            is_so = (state == ACTIVE) if name == "up" else (state == OFFLOADED)
            was_so = (before == ACTIVE) if name == "up" else (before == OFFLOADED)
            if is_so and not was_so:
                self.log.append(Entry(self.clock(), name))

    def _answer(self, request: BaseHTTPRequestHandler, method: str) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        path = request.path.partition("?")[0]
        with self._lock:
            self.requests.append((method, path))
            about_server = path.startswith("/v2.1/servers/")
            fault: Fault | None = None
            if about_server and self.faults and self.faults[0][0] == method:
                fault = self.faults.pop(0)[1]
            if fault is None and not about_server:
                status, answer, headers = self._keystone(path, body)
            elif about_server and fault != "expired" and request.headers.get("X-Auth-Token") not in self._tokens:
                status, answer, headers = 401, {"error": {"code": 401, "message": "The request you have made requires authentication."}}, {}
            else:
                status, answer, headers = self._faulty(fault, method, path, body)
        if fault:
            self.handled.set()
        if fault == "silent":
            self._leaving.wait(600)
        if fault in ("dropped", "reply lost", "late", "silent"):
            request.close_connection = True
            return
        content = b"<html>Bad gateway</html>" if fault == "not Nova" else b"" if answer is None else json.dumps(answer).encode()
        try:
            request.send_response(status)
            request.send_header("Content-Type", "text/html" if fault == "not Nova" else "application/json")
            request.send_header("Content-Length", str(len(content)))
            for name, value in headers.items():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(content)
        except OSError:  # nobody waits for it any more
            request.close_connection = True

    def _faulty(self, fault: Fault | None, method: str, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if fault == "503":
            return 503, {}, {"Retry-After": "1"}
        if fault == "expired":
            self._tokens.clear()
            return 401, {"error": {"code": 401, "message": "The request you have made requires authentication."}}, {}
        if fault == "late" and method == "POST":
            self._late.append(next(iter(json.loads(body))))
        if fault in ("dropped", "silent", "late", "not Nova"):
            return 200, None, {}
        status, answer = self._nova(method, path, body)
        if fault == "500 but done":
            return 500, {"computeFault": {"code": 500, "message": "Unexpected API Error."}}, {}
        return status, answer, {}

    def _keystone(self, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if path == "/v3/auth/tokens":
            given = json.loads(body)["auth"]["identity"]["application_credential"]
            if given != {"id": "played", "secret": SECRET}:
                return 401, {"error": {"code": 401, "message": "The request you have made requires authentication."}}, {}
            token = f"token-{len(self.requests)}"
            self._tokens.add(token)
            compute = {"id": "c", "interface": "public", "region": "Played", "region_id": "Played", "url": f"{self.address}/v2.1"}
            identity = {"id": "i", "interface": "public", "region": "Played", "region_id": "Played", "url": f"{self.address}/v3"}
            catalog = [
                {"id": "n", "type": "compute", "name": "nova", "endpoints": [compute]},
                {"id": "k", "type": "identity", "name": "keystone", "endpoints": [identity]},
            ]
            described = {
                "methods": ["application_credential"],
                "user": {"id": "u", "name": "owner", "domain": {"id": "default", "name": "Default"}},
                "project": {"id": "p", "name": "lab", "domain": {"id": "default", "name": "Default"}},
                "roles": [{"id": "r", "name": "member"}],
                "catalog": catalog,
                "issued_at": "2026-01-01T00:00:00.000000Z",
                "expires_at": "2099-01-01T00:00:00.000000Z",
            }
            return 201, {"token": described}, {"X-Subject-Token": token}
        if path.rstrip("/") == "/v2.1":
            links = [{"rel": "self", "href": f"{self.address}/v2.1/"}]
            return 200, {"version": {"id": "v2.1", "status": "CURRENT", "version": "2.96", "min_version": "2.1", "links": links}}, {}
        return 404, {"error": {"code": 404, "message": f"Could not find {path}"}}, {}

    def _nova(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if not path.startswith(f"/v2.1/servers/{SERVER}") or self.state.vm == "deleted":
            return 404, {"itemNotFound": {"code": 404, "message": f"Instance {path.split('/')[3]} could not be found."}}
        rest = path.removeprefix(f"/v2.1/servers/{SERVER}")
        if method == "POST" and rest == "/action":
            return self._act(next(iter(json.loads(body))))
        if rest == "/os-instance-actions":
            return 200, {"instanceActions": [{key: one[key] for key in one if key != "events"} for one in reversed(self._actions)]}
        if rest.startswith("/os-instance-actions/"):
            found = [one for one in self._actions if one["request_id"] == rest.rpartition("/")[2]]
            return (200, {"instanceAction": found[0]}) if found else (404, {"itemNotFound": {"code": 404, "message": "no such action"}})
        if rest == "":
            if self._coming:
                self._change(self._coming.pop(0))
            return 200, {"server": self._shown()}
        return 404, {"itemNotFound": {"code": 404, "message": rest}}

    def _shown(self) -> dict[str, Any]:
        state = self.state
        power = state.power if state.power is not None else _POWER.get(state.vm, 4 if state.host else 0)
        fault = {"fault": {"code": 500, "message": "played fault", "created": "2026-01-01T00:00:00Z"}} if state.vm == "error" else {}
        return {
            "id": SERVER,
            "name": "gpu",
            "status": "HARD_REBOOT" if state.task == "reboot_started_hard" else _STATUS[state.vm],
            "hostId": "h" * 56 if state.host else "",
            "locked": self.place.locked,
            "OS-EXT-STS:vm_state": state.vm,
            "OS-EXT-STS:task_state": state.task,
            "OS-EXT-STS:power_state": power,
            **fault,
        }

    def _act(self, action: str) -> tuple[int, Any]:
        if action == "shelveOffload" and not self.place.tenant_may_offload:
            message = "Policy doesn't allow os_compute_api:os-shelve:shelve_offload to be performed."
            return 403, {"forbidden": {"code": 403, "message": message}}
        state = self.state
        busy = state.task is not None or self.place.locked or state.vm not in _FROM[action]
        if busy or (action == "os-stop" and not state.host):
            what = "is locked" if self.place.locked else f"while it is in vm_state {state.vm}, task_state {state.task}"
            return 409, {"conflictingRequest": {"code": 409, "message": f"Cannot '{action}' instance {SERVER} {what}"}}
        self.log.append(Entry(self.clock(), action))
        number = f"req-{len(self._actions)}"
        events: list[dict[str, Any]] = []
        self._actions.append(
            {"action": action, "request_id": number, "start_time": f"2026-01-01T00:00:{len(self._actions):06}", "events": events}
        )
        if action == "shelve":
            offloading = _OFFLOADING if self.place.offloads_at_once else [State("shelved")]
            self._coming = [*_SHELVING[1:], *(offloading if self.place.snapshots_work else [State("active")])]
            self._change(_SHELVING[0]._replace(vm=state.vm))
        elif action == "unshelve":
            if not self.place.capacity:
                details = {"details": "No valid host was found."} if self.place.shows_details else {}
                events.append({"event": "schedule_instances", "result": "Error", **details})
            self._coming = [state._replace(task="spawning"), ACTIVE] if self.place.capacity else [state]
            self._change(state._replace(task="unshelving"))
        elif action == "shelveOffload":
            self._coming = [OFFLOADED]
            self._change(state._replace(task="shelving_offloading"))
        elif action == "os-stop":
            self._coming = [State("stopped")]
            self._change(state._replace(task="powering-off"))
        else:
            self._coming = [ACTIVE]
            self._change(state._replace(task="reboot_started_hard" if action == "reboot" else "powering-on"))
        return 202, None
