"""Reviews that nobody has answered: whoever is told is reminded once a day, and a run that waited too long ends as "Expired".

Runs on a schedule, since a suspended run has no process that could look at the clock.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import httpx
from prefect import flow, get_client, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Completed

from dubbing.errors import BadSetting, PassingFault
from flows.dub_video import teller_of
from flows.review import DAYS, NAMES
from tasks.announce import announce_now
from tasks.progress import TAG

REMIND_EVERY = timedelta(days=1)
_AT_A_TIME = 200
_REMINDED = "reminded-"  # a run's tag says how often: others can see it

Did = Literal["waits", "reminded", "expired"]


@flow(name="tend-reviews")
def tend_reviews() -> dict[str, Did]:
    """Remind, and end what has expired. Returns what was done, by run."""
    log: Any = get_run_logger()
    done: dict[str, Did] = {}
    try:
        with get_client(sync_client=True) as client:
            for run in waiting(client):
                done[str(run.id)] = did = _tend(client, run, datetime.now(UTC), log)
                if did != "waits":
                    log.info("%s: %s", run.name, did)
    except httpx.HTTPError as error:
        raise PassingFault(f"Prefect's server can't be asked: {error}") from error
    return done


def waiting(client: SyncPrefectClient) -> list[FlowRun]:
    """Our runs that are suspended for a review."""
    paused = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))
    ours = FlowRunFilter(tags=FlowRunFilterTags(all_=[TAG]), state=paused)
    found: list[FlowRun] = []
    while some := client.read_flow_runs(flow_run_filter=ours, limit=_AT_A_TIME, offset=len(found)):
        found += some
    return [run for run in found if run.state and run.state.name == "Suspended" and "review" in run.parameters]


def _tend(client: SyncPrefectClient, run: FlowRun, now: datetime, log: Any = logging) -> Did:
    assert run.state and run.state.timestamp
    asked = run.state.timestamp
    given = run.parameters
    expires = asked + timedelta(days=float(given.get("review_days") or DAYS))
    stage = given["review"]
    about = (given.get("job"), str(run.id), given["source"], given.get("target_language") or "en")
    try:
        teller = teller_of(given.get("webhook"), *about)
    except BadSetting as gone:  # of this run, which expires all the same; others are reminded
        log.warning("%s: %s", run.name, gone)
        teller = teller_of(None, *about)
    if now >= expires:
        why = f"nobody reviewed its {NAMES[stage]} until {expires:%Y-%m-%d %H:%M} UTC"
        if not client.read_flow_run(run.id).state.is_paused():  # type: ignore[union-attr]  # an answer has come this moment
            return "waits"
        client.set_flow_run_state(run.id, Completed(name="Expired", message=f"{teller.lesson}: {why}"))
        announce_now(teller, "video_failed", "expired", error=why, state="Expired")
        return "expired"
    times = (now - asked) // REMIND_EVERY
    tag = f"{_REMINDED}{times}"
    if times == 0 or tag in run.tags:
        return "waits"
    others = [other for other in run.tags if not other.startswith(_REMINDED)]
    client.update_flow_run(run.id, tags=[*others, tag])
    which = f"{run.state.state_details.pause_key} {times}"
    announce_now(teller, "review_requested", which, stage=stage, reminder=times, expires=expires.strftime("%Y-%m-%dT%H:%M:%SZ"))
    return "reminded"
