"""A client for what the platform needs of Prefect's REST API: start a run, follow it, cancel it, answer its review, read its result.

Passing faults (no connection, time-outs, 5xx, 429) are tried again with back-off where that can't do anything twice. Whatever else goes
wrong is one of the `PrefectError`s, which say in a sentence what a person can do about it.

    with PrefectApi.from_settings() as api:
        run = api.create_run({"source": "…"}, idempotency_key="job 17", name="Lesson 1 → en")
        api.runs([run.id])[run.id].state.type
"""

from __future__ import annotations

import json
import random
import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
from django.utils.translation import gettext as _

from coursedub_django.conf import settings

PAGE = 200  # most things that Prefect's filters give at once
LONGEST_WAIT = 5.0  # seconds between two tries, whatever the server asks for: a person waits for the page
_PASSING = {408, 425, 429, 500, 502, 503, 504}

# About how long each stage takes, as a share of a lesson's time on a CPU, in the order of a run.
STAGES: Mapping[str, float] = {
    "ingest": 0.01,
    "extract_audio": 0.03,
    "separate": 0.12,
    "transcribe": 0.12,
    "translate": 0.26,
    "synthesize": 0.25,
    "fit": 0.02,
    "subtitles": 0.02,
    "mix": 0.04,
    "render": 0.02,
    "inspect": 0.11,
}
GPU_SERVER = "gpu_server"  # the task that waits while the GPU server works on all that is left
AFTERWARDS = ("publish", "kinescope")  # tasks after the stages, which take no share that is known


class PrefectError(Exception):
    """Something is wrong with a request to Prefect. `str()` is a sentence for a person; `detail` is what the server said."""

    passing = False  # worth another try later, as it is

    def __init__(self, detail: str = "") -> None:
        self.detail = " ".join(detail.split())[:500]
        super().__init__(self.detail)

    @property
    def sentence(self) -> str:
        return _("Prefect's server gave an answer that isn't understood.")

    def __str__(self) -> str:
        return f"{self.sentence} ({self.detail})" if self.detail else self.sentence


class Unreachable(PrefectError):
    """No connection, or no answer in time: whether the request was carried out isn't known."""

    passing = True

    @property
    def sentence(self) -> str:
        return _("Prefect's server can't be reached just now. It is tried again by itself.")


class ServerFault(PrefectError):
    """5xx, 429."""

    passing = True

    @property
    def sentence(self) -> str:
        return _("Prefect's server has a problem of its own just now. It is tried again by itself.")


class NotAllowed(PrefectError):
    """401, 403."""

    @property
    def sentence(self) -> str:
        return _("Prefect's server doesn't let this site in: an administrator has to check API_AUTH.")


class NotThere(PrefectError):
    """404."""

    @property
    def sentence(self) -> str:
        return _("Prefect's server doesn't know this. Was it deleted there, or is the deployment not made yet?")


class BadParameters(PrefectError):
    """409, 400: the deployment doesn't take these."""

    @property
    def sentence(self) -> str:
        return _("The lesson's settings were refused. Correct them, then try again.")


class BadRequest(PrefectError):
    """422, 413: too large, or not what this version of Prefect takes."""

    @property
    def sentence(self) -> str:
        return _("Prefect's server can't read the request: it is too large, or the versions don't fit each other.")


class Refused(PrefectError):
    """A change of a run's state that can't be made (any more)."""

    @property
    def sentence(self) -> str:
        return _("The run has moved on meanwhile, so this can't be done any more.")


class AnswerRefused(PrefectError):
    """The answer to a review isn't what the run waits for."""

    @property
    def sentence(self) -> str:
        return _("The run didn't take the answer. It still waits for one.")


_KINDS: Mapping[int, type[PrefectError]] = {
    **{400: BadParameters, 409: BadParameters, 401: NotAllowed, 403: NotAllowed, 404: NotThere, 413: BadRequest, 422: BadRequest}
}


@dataclass(frozen=True)
class State:
    type: str  # SCHEDULED, PENDING, RUNNING, PAUSED, CANCELLING, COMPLETED, FAILED, CRASHED, CANCELLED
    name: str
    at: datetime
    message: str = ""
    expires: datetime | None = None  # of a run that waits for input


@dataclass(frozen=True)
class Run:
    id: UUID
    state: State
    created: datetime
    seconds: float = 0.0  # that it has worked so far


@dataclass(frozen=True)
class StageProgress:
    name: str
    state: str  # waiting, running, done, cached, failed
    share: float  # 0 to 1


@dataclass(frozen=True)
class Progress:
    share: float  # of the whole, 0 to 1
    eta: float | None  # seconds left; None: nobody can tell yet
    stage: str  # in hand, or "" before the first
    stages: tuple[StageProgress, ...] = ()


@dataclass(frozen=True)
class Line:
    """A line as a reviewer sees it."""

    id: str
    start: float  # seconds in the recording
    end: float
    source: str
    translation: str
    speaker: str = ""
    flags: tuple[str, ...] = ()
    voice: str = ""
    silent: bool = False
    heard: str = ""  # when the voice-over was listened to again


@dataclass(frozen=True)
class ReviewRequest:
    id: str  # of this request; another one of the same run has another
    lines: tuple[Line, ...]
    files: Mapping[str, str]  # original_audio, video, page, timeline, or none of them -> address
    trouble: str = ""  # why the answer before this request could not be followed


@dataclass(frozen=True)
class Result:
    addresses: Mapping[str, str] = field(default_factory=dict)  # what -> address
    values: Mapping[str, Any] = field(default_factory=dict)  # cost, seconds, flags, lines, word_error_rate, kinescope_id, …


class PrefectApi:
    def __init__(
        self,
        address: str,
        auth: str = "",
        ca: str = "",
        deployment: str = "dub-video/dub-video",
        timeout: float = 10.0,
        tries: int = 3,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            address: of the API, with /api.
            auth: user:password.
            ca: file with the authority that the server's certificate is from.
            deployment: flow/deployment that dubs a lesson.
            timeout: seconds for one try.
            wait: between two tries.
        """
        user, _colon, password = auth.partition(":")
        self._deployment_id = ""
        self._deployment, self._tries, self._wait = deployment, tries, wait
        # Certificates are read where there are some to check: that takes longer than a request.
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca) if ca else address.startswith("https:")
        self._client = httpx.Client(base_url=address.rstrip("/"), auth=(user, password) if auth else None, timeout=timeout, verify=verify)

    @classmethod
    def from_settings(cls) -> PrefectApi:
        found = settings()
        return cls(found.api_url, found.api_auth, found.api_ca, found.deployment, found.timeout, found.tries)

    def __enter__(self) -> PrefectApi:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    # --- What changes something

    def create_run(self, parameters: Mapping[str, Any], idempotency_key: str, name: str, tags: Sequence[str] = ()) -> Run:
        """Start a run of the deployment, or find the one that the same key has started."""
        if not self._deployment_id:
            self._deployment_id = str(self._object(self._ask("GET", f"/deployments/name/{self._deployment}")).get("id"))
        body = {"parameters": dict(parameters), "idempotency_key": idempotency_key, "name": name, "tags": list(tags)}
        return _run(self._object(self._ask("POST", f"/deployments/{self._deployment_id}/create_flow_run", body)))

    def cancel(self, run: UUID) -> None:
        """Have it end. A run that nobody works on is cancelled at once, the others in a few seconds.

        Raises:
            Refused: it has ended.
        """
        state = {"type": "CANCELLING", "name": "Cancelling"}
        answer = self._object(self._ask("POST", f"/flow_runs/{run}/set_state", {"state": state}))
        became = (answer.get("state") or {}).get("type")
        if answer.get("status") != "ACCEPT" and became not in ("CANCELLED", "CANCELLING"):
            raise Refused(_reason(answer))

    def answer_review(self, run: UUID, answer: Mapping[str, Any]) -> None:
        """Hand a run that waits for one its reviewer's answer. Tried once only: the second would come too late.

        Raises:
            Refused: it doesn't wait (any more).
            AnswerRefused: it waits for something else.
        """
        said = self._object(self._ask("POST", f"/flow_runs/{run}/resume", {"run_input": dict(answer)}, again=False))
        if said.get("status") == "REJECT":
            raise AnswerRefused(_reason(said))
        if said.get("status") != "ACCEPT":
            raise Refused(_reason(said))

    # --- What reads

    def runs(self, ids: Iterable[UUID]) -> dict[UUID, Run]:
        """Those of them that Prefect knows."""
        wanted = [str(one) for one in ids]
        found: dict[UUID, Run] = {}
        for position in range(0, len(wanted), PAGE):
            some = {"flow_runs": {"id": {"any_": wanted[position : position + PAGE]}}, "limit": PAGE}
            found |= {run.id: run for run in map(_run, self._list(self._ask("POST", "/flow_runs/filter", some)))}
        return found

    def progress(self, run: Run) -> Progress:
        """Of its stages, as far as they have begun."""
        mine = {"flow_runs": {"id": {"any_": [str(run.id)]}}, "limit": PAGE, "sort": "EXPECTED_START_TIME_ASC"}
        tasks = self._list(self._ask("POST", "/task_runs/filter", mine))
        keys = [f"{stage.replace('_', '-')}-progress" for stage in (*STAGES, GPU_SERVER, *AFTERWARDS)] + [f"{GPU_SERVER}-progress"]
        artifacts = self._artifacts(run.id, keys)
        return progress_of(tasks, artifacts, run.seconds)

    def review_request(self, run: UUID) -> ReviewRequest | None:
        """What a reviewer is asked; None: nothing yet."""
        newest: dict[str, dict[str, Any]] = {}
        for artifact in self._artifacts(run, ["review", "review-files", "review-request"]):
            newest.setdefault(str(artifact.get("key")), artifact)
        if "review" not in newest:
            return None
        lines = tuple(_line(row) for row in _table(newest["review"]))
        files = {str(row.get("what")): str(row.get("address")) for row in _table(newest.get("review-files", {})) if row.get("address")}
        return ReviewRequest(str(newest["review"].get("id")), lines, files, _trouble(newest.get("review-request", {})))

    def result(self, run: UUID) -> Result | None:
        """Of a run that is completed; None: it left none."""
        for artifact in self._artifacts(run, ["result"]):
            values: dict[str, Any] = {}
            for row in _table(artifact):
                value = row.get("value")
                try:
                    values[str(row.get("name"))] = json.loads(value) if isinstance(value, str) else value
                except ValueError:
                    values[str(row.get("name"))] = value
            given = values.pop("addresses", None)
            addresses = {str(what): str(address) for what, address in given.items() if address} if isinstance(given, dict) else {}
            return Result(addresses, values)
        return None

    # --- How it asks

    def _artifacts(self, run: UUID, keys: Sequence[str]) -> list[dict[str, Any]]:
        """Newest first."""
        wanted = {"flow_run_id": {"any_": [str(run)]}, "key": {"any_": list(keys)}}
        return self._list(self._ask("POST", "/artifacts/filter", {"artifacts": wanted, "sort": "CREATED_DESC", "limit": PAGE}))

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, again: bool = True) -> Any:
        """
        Args:
            again: it may be asked more than once. Where not, it still is when no connection was made.
        """
        for left in reversed(range(self._tries)):
            asked_to_wait = 0.0
            try:
                answer = self._client.request(method, path, json=body)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                fault: PrefectError = Unreachable(str(error))
                repeatable = True
            except httpx.HTTPError as error:
                fault = Unreachable(str(error) or type(error).__name__)
                repeatable = again
            else:
                if answer.is_success:
                    return _json(answer)
                fault = _fault(answer)
                repeatable = fault.passing and again
                asked_to_wait = _seconds(answer.headers.get("Retry-After", ""))
            if not left or not repeatable:
                raise fault
            back_off = 0.3 * 2 ** (self._tries - 1 - left) * random.uniform(0.75, 1.25)
            self._wait(min(LONGEST_WAIT, max(asked_to_wait, back_off)))
        raise AssertionError("tries is at least 1")

    def _object(self, found: Any) -> dict[str, Any]:
        if not isinstance(found, dict):
            raise PrefectError("not an object")
        return found

    def _list(self, found: Any) -> list[dict[str, Any]]:
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise PrefectError("not a list of objects")
        return found


def progress_of(tasks: Sequence[Mapping[str, Any]], artifacts: Sequence[Mapping[str, Any]], seconds: float) -> Progress:
    """
    Args:
        tasks: task runs in the order in which they were begun; of a stage that ran twice the last one counts.
        artifacts: progress artifacts, newest first.
        seconds: that the run has worked.
    """
    order = [*STAGES, GPU_SERVER, *AFTERWARDS]
    told: dict[str, float] = {}
    for artifact in artifacts:
        stage = str(artifact.get("key", "")).removesuffix("-progress").replace("-", "_")
        data = artifact.get("data")
        if isinstance(data, int | float):
            told.setdefault(stage, min(1.0, max(0.0, data / 100)))
    stages: dict[str, StageProgress] = {}
    for task in tasks:
        name = str(task.get("name", "")).rpartition("-")[0] or str(task.get("name", ""))
        if name not in order:
            continue
        type_, state_name = task.get("state_type"), task.get("state_name")
        if type_ == "COMPLETED":
            stages[name] = StageProgress(name, "cached" if state_name == "Cached" else "done", 1.0)
        elif type_ == "RUNNING":
            stages[name] = StageProgress(name, "running", told.get(name, 0.0))
        elif type_ in ("FAILED", "CRASHED"):
            stages[name] = StageProgress(name, "failed", told.get(name, 0.0))
        else:
            stages.setdefault(name, StageProgress(name, "waiting", 0.0))
    shares = {stage: weight * stages[stage].share for stage, weight in STAGES.items() if stage in stages}
    share = sum(shares.values())
    cached = sum(weight for stage, weight in STAGES.items() if stage in stages and stages[stage].state == "cached")
    away = stages.get(GPU_SERVER)
    if away and away.state == "running":
        share += (1 - share) * away.share
    worked = share - cached
    eta = seconds / worked * (1 - share) if worked > 0.03 and seconds > 0 else None
    running = [stage for stage in stages.values() if stage.state == "running"]
    begun = running or [stage for stage in stages.values() if stage.state != "waiting"]
    waiting = [StageProgress(name, "waiting", 0.0) for name in STAGES if name not in stages]
    shown = sorted([*stages.values(), *waiting], key=lambda stage: order.index(stage.name))
    return Progress(min(1.0, share), eta, begun[-1].name if begun else "", tuple(shown))


def _run(found: Mapping[str, Any]) -> Run:
    try:
        given = found["state"] or {"type": "PENDING", "name": "Pending", "timestamp": found["created"]}
        timeout = (given.get("state_details") or {}).get("pause_timeout")
        state = State(
            str(given["type"]),
            str(given.get("name") or given["type"]),
            datetime.fromisoformat(given["timestamp"]),
            str(given.get("message") or ""),
            datetime.fromisoformat(timeout) if timeout and given["type"] == "PAUSED" else None,
        )
        return Run(UUID(found["id"]), state, datetime.fromisoformat(found["created"]), float(found.get("estimated_run_time") or 0.0))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PrefectError(f"a run without {error}") from error


def _line(row: Mapping[str, Any]) -> Line:
    flags = row.get("flags") or ()
    given = flags.split(";") if isinstance(flags, str) else flags
    try:
        return Line(
            id=str(row["id"]),
            start=float(row.get("start") or 0.0),
            end=float(row.get("end") or 0.0),
            source=str(row.get("source") or ""),
            translation=str(row.get("translation") or ""),
            speaker=str(row.get("speaker") or ""),
            flags=tuple(text for flag in given if (text := str(flag).strip())),
            voice=str(row.get("voice") or ""),
            silent=bool(row.get("silent")),
            heard=str(row.get("heard") or ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PrefectError(f"a line to review without {error}") from error


def _table(artifact: Mapping[str, Any]) -> list[dict[str, Any]]:
    data = artifact.get("data")
    try:
        rows = json.loads(data) if isinstance(data, str) else data
    except ValueError as error:
        raise PrefectError(f"artifact {artifact.get('key')}: {error}") from error
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _trouble(request: Mapping[str, Any]) -> str:
    """What a request says in bold before everything else."""
    found = re.match(r"\*\*(.+?)\*\*\n", str(request.get("data") or ""), re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise PrefectError(f"{answer.status_code} without JSON") from error


def _fault(answer: httpx.Response) -> PrefectError:
    try:
        said = answer.json()
        detail = said.get("detail") or said.get("exception_message") or said if isinstance(said, dict) else said
    except ValueError:
        detail = answer.text
    text = f"{answer.status_code} {detail if isinstance(detail, str) else json.dumps(detail, ensure_ascii=False)}"
    status = answer.status_code
    if status in _PASSING or status >= 500:
        return ServerFault(text)
    return _KINDS.get(status, PrefectError)(text)


def _reason(answer: Mapping[str, Any]) -> str:
    details = answer.get("details")
    return str(details.get("reason") or "") if isinstance(details, dict) else ""


def _seconds(header: str) -> float:
    return float(header) if header.isdecimal() else 0.0
