"""The lessons of a course as runs of `dub-video`: in this process, or each a run of the deployment, on whatever worker takes it."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any, NamedTuple

import httpx
from prefect import get_client, get_run_logger, tags
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from dubbing.course import LessonState
from dubbing.errors import BadSetting, CoursedubError, PassingFault
from flows.dub_video import dub_video
from tasks.progress import TAG, StageLog, result_of, watched_by
from tasks.turns import Turns, taking_turns

DEPLOYMENT = "dub-video/dub-video"
_AT_A_TIME = 200  # runs that are asked for in one request
_STATES: dict[str, LessonState] = {"Rejected": "rejected", "Expired": "rejected"}  # by the names of states of runs that went well


class Ended(NamedTuple):
    """What became of a lesson's run."""

    state: LessonState
    why: str = ""
    result: Mapping[str, Any] | None = None  # as `dub_video` returns it


class LessonRuns(ABC):
    """Runs of one course, by numbers that the course gives them."""

    @abstractmethod
    def start(self, number: int, name: str, parameters: Mapping[str, Any]) -> str:
        """Begin to dub a lesson. Returns the id of its run, where there is one already.

        Raises:
            BadSetting: there is no deployment for it.
            PassingFault: nobody can be asked for it now.
        """

    @abstractmethod
    def ended(self, seconds: float) -> dict[int, Ended]:
        """Those that have ended since they were asked for last. Waits for one so long."""

    @abstractmethod
    def share(self, number: int) -> float:
        """How much of a lesson's work is done, about."""

    @abstractmethod
    def stop(self) -> None:
        """End those that are in work."""


class Here(LessonRuns):
    """In threads of this process, as sub-runs of the course's own run. Models take turns, so that each is loaded once."""

    def __init__(self, at_once: int) -> None:
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="lesson")
        self._turns = Turns()
        self._in_work: dict[Future[dict[str, Any]], int] = {}
        self._logs: dict[int, StageLog] = {}

    def start(self, number: int, name: str, parameters: Mapping[str, Any]) -> str:
        with watched_by(lambda event: None):
            log = self._logs[number] = StageLog()

        def lesson() -> dict[str, Any]:
            with tags(TAG), watched_by(log), taking_turns(self._turns):
                return dub_video(**parameters)  # what it returns as a state comes out as its data

        self._in_work[self._threads.submit(copy_context().run, lesson)] = number
        return ""

    def ended(self, seconds: float) -> dict[int, Ended]:
        done = wait(self._in_work, timeout=seconds, return_when="FIRST_COMPLETED").done
        return {self._in_work.pop(future): _outcome(future) for future in done}

    def share(self, number: int) -> float:
        return self._logs[number].share()

    def stop(self) -> None:
        for number in self._in_work.values():
            self._logs[number].stop()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _outcome(future: Future[dict[str, Any]]) -> Ended:
    try:
        result = future.result()
    except CoursedubError as error:
        return Ended("failed", str(error))
    except Exception as error:
        get_run_logger().exception("a lesson failed by a bug")
        return Ended("failed", f"a bug: {type(error).__name__}: {error}")
    return done(result)


def done(result: Mapping[str, Any]) -> Ended:
    """What a run that went well has done."""
    if review := result.get("review"):
        return Ended("in review" if review["state"] == "in review" else "rejected", review["why"], result)
    computed = any(stage["state"] == "computed" for stage in result["stages"])
    return Ended("dubbed" if computed else "unchanged", "", result)


class Deployed(LessonRuns):
    """Runs of the deployment, which show as sub-runs of the course's and outlive it."""

    def __init__(self, tags: list[str]) -> None:
        self._tags = tags
        self._in_work: dict[str, int] = {}

    def start(self, number: int, name: str, parameters: Mapping[str, Any]) -> str:
        try:
            run: Any = run_deployment(DEPLOYMENT, parameters=dict(parameters), flow_run_name=name, timeout=0, tags=self._tags)
        except ObjectNotFound:
            raise BadSetting(f"Prefect's server has no deployment {DEPLOYMENT}: `coursedub deploy` makes it") from None
        except httpx.HTTPError as error:
            raise PassingFault(f"Prefect's server can't be asked for a run: {error}") from error
        self._in_work[str(run.id)] = number
        return str(run.id)

    def ended(self, seconds: float) -> dict[int, Ended]:
        time.sleep(seconds)
        over: dict[int, Ended] = {}
        try:
            with get_client(sync_client=True) as client:
                ids = list(self._in_work)
                for first in range(0, len(ids), _AT_A_TIME):
                    some = FlowRunFilter(id=FlowRunFilterId(any_=ids[first : first + _AT_A_TIME]))
                    found = client.read_flow_runs(flow_run_filter=some, limit=_AT_A_TIME)
                    for deleted in set(ids[first : first + _AT_A_TIME]) - {str(run.id) for run in found}:
                        over[self._in_work.pop(deleted)] = Ended("failed", "its run was deleted in Prefect")
                    for run in found:
                        if ended := _ended(run):
                            over[self._in_work.pop(str(run.id))] = ended
        except httpx.HTTPError as error:
            get_run_logger().warning("Prefect's server can't be asked: %s", error)
        return over

    def share(self, number: int) -> float:
        return 0.0  # its own run shows how far it is

    def stop(self) -> None:
        with get_client(sync_client=True) as client:
            for run in self._in_work:
                client.set_flow_run_state(run, Cancelling())


def _ended(run: FlowRun) -> Ended | None:
    """What became of a run; None while it goes on."""
    state = run.state
    if state is None or not (state.is_final() or state.type == StateType.PAUSED):
        return None
    why = " ".join((state.message or "").split())
    if state.type == StateType.PAUSED:
        return Ended("in review", why)
    if state.type != StateType.COMPLETED:
        # "Flow run encountered an exception: BadInput: lesson.mp4: …" says the kind of error to those who read code.
        return Ended("failed", re.sub(r"^.*?exception: (?:[A-Z]\w+: )?", "", why) or str(state.name))
    if state.name in _STATES:
        return Ended(_STATES[state.name], why, result_of(run.id))
    result = result_of(run.id)
    return done(result) if result else Ended("dubbed", why)
