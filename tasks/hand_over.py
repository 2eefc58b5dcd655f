"""What only the GPU server can do of a run that lives elsewhere: it is woken, given the job, and waited for.

The run holds a lease for as long. The stages' results come through the store that both see; here is only waiting, and seeing to it that
there is something to wait for: the server up, and a run of the deployment `compute-stages/gpu` which works.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from blocks.engine import NOT_INSTALLED, installed_version
from blocks.gpu_server import GpuServer
from blocks.jobs import Jobs, Standing
from blocks.keeper import Keeper, Pass
from blocks.leases import Holding, Leases
from blocks.profiles import ENGINES
from blocks.store import Store
from dubbing.errors import BadSetting, LeasesDown, PassingFault, PersonNeeded, ServerNotReady, same_failure
from dubbing.lesson import Source
from dubbing.power import Lease, shares
from tasks.alerts import NOT_WOKEN, alert, over
from tasks.progress import Event, Work, publish_table, tables_of, tell, working

DEPLOYMENT = "compute-stages/gpu"
_COST = "gpu-server-cost"  # the artifact's key
_NEWEST = 50  # runs that are looked at
_ALIVE = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]


class Spent(NamedTuple):
    """What a lesson took of the GPU server."""

    seconds: float  # that it held a lease while the server cost
    cost: float  # its share, where others held one too


@task(name="gpu_server", cache_policy=NO_CACHE, persist_result=False)
def hand_over(server: GpuServer, lesson: Source, request: Mapping[str, Any], target: str, run: str) -> Spent:
    """Have the GPU server compute what a request says, and wait until it has.

    Args:
        request: as `flows.compute_stages` takes it.
        run: of Prefect, that the lease belongs to.

    Raises:
        NoLease, ServerNotReady, PersonNeeded, CloudDown, LeasesDown
        CoursedubError: as the GPU server met it.
    """
    leases = server.leases()
    jobs, keeper = Jobs(leases), Keeper(server, leases)
    work = Work("gpu_server")
    with working(work), leases.holding(lesson.name, f"dub into {target}", run) as held:
        jobs.submit(held.lease, request)
        _wake(keeper, held)
        over(NOT_WOKEN, server.server_id)
        standing = _done(server, jobs, keeper, held, work)
        try:
            spent = _spent(leases, held.lease)
        except LeasesDown as away:  # the work is done all the same
            get_run_logger().warning("what it cost is not known: %s", away)
            spent = Spent(0.0, 0.0)
        row = {"lesson": lesson.name, "into": target, "seconds": spent.seconds, "cost": spent.cost}
        publish_table(_COST, [row], f"{lesson.name}: what it took of the GPU server")
        work.finish()
    if standing.failure:
        raise same_failure(standing.failure["kind"], standing.failure["message"])
    return spent


def _wake(keeper: Keeper, held: Holding) -> bool:
    """Returns whether it was up already."""
    log = get_run_logger()
    said, passes = "", 0

    def watch(made: Pass) -> None:
        nonlocal said, passes
        passes += 1
        held.check()
        tell(Event("gpu_server", "waiting"))
        if made.decision.why != said and not made.decision.settled:
            said = made.decision.why
            log.info("%s", said)

    try:
        keeper.drive("up", lease=held.lease, watch=watch)
    except (ServerNotReady, PersonNeeded) as error:
        alert(NOT_WOKEN, keeper.server.server_id, str(error))
        raise
    return passes == 1


def _done(server: GpuServer, jobs: Jobs, keeper: Keeper, held: Holding, work: Work) -> Standing:
    """Wait until the job is done; should the server or the worker go away meanwhile, have them back."""
    idle_since = time.monotonic()
    while True:
        held.check()
        try:
            standing = jobs.standing(held.lease)
        except LeasesDown as away:  # who works goes on without it
            get_run_logger().warning("%s", away)
            idle_since = time.monotonic()
            continue
        if standing.finished:
            return standing
        if standing.worker or standing.others_work:
            idle_since = time.monotonic()
            _show(standing, work)
        else:
            tell(Event("gpu_server", "waiting"))
            if not _wake(keeper, held):
                idle_since = time.monotonic()
            try:
                _see_to_a_run(server)
            except PassingFault as away:  # Prefect's server is restarted, say
                get_run_logger().warning("%s", away)
            if (waited := time.monotonic() - idle_since) > 60 * server.serve_within_minutes:
                raise ServerNotReady(
                    f"GPU server: it is up, and for {waited:.0f} s nothing there took the job: {_how_the_pool_stands()}; "
                    "`coursedub doctor --can-serve` on it tells more"
                )
        time.sleep(server.poll)


def _show(standing: Standing, work: Work) -> None:
    if standing.progress.get("now"):
        work.advance(standing.progress["share"])


def _see_to_a_run(server: GpuServer) -> None:
    """Unless one waits or works, start a run of the deployment for this server.

    Raises:
        BadSetting: there is no such deployment.
        PassingFault: Prefect's server can't be reached.
    """
    try:
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
            newest = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id])),
                sort=FlowRunSort.EXPECTED_START_TIME_DESC,
                limit=_NEWEST,
            )
            runs = [run for run in newest if run.parameters.get("gpu_server") == server.reference]
            if not any(run.state_type in _ALIVE for run in runs):
                # Two who ask at once mean the same run: the one after the last.
                after = f"{server.reference} after {runs[0].id if runs else 'none'}"
                client.create_flow_run_from_deployment(deployment.id, parameters={"gpu_server": server.reference}, idempotency_key=after)
    except ObjectNotFound:
        raise BadSetting(f"Prefect's server has no deployment {DEPLOYMENT}: `coursedub deploy` makes it") from None
    except httpx.HTTPError as error:
        raise PassingFault(f"Prefect's server can't be asked: {error}") from error


def _how_the_pool_stands() -> str:
    """In words, for whoever wonders why nothing works."""
    try:
        with get_client(sync_client=True) as client:
            pool = client.read_deployment_by_name(DEPLOYMENT).work_pool_name or ""
            workers = client.read_workers_for_work_pool(pool)
    except (httpx.HTTPError, ObjectNotFound) as error:
        return f"Prefect says nothing of its pool ({error})"
    seen = [worker for worker in workers if worker.last_heartbeat_time]
    if not seen:
        return f"no worker of the pool {pool} was ever seen"
    last = max(seen, key=lambda worker: worker.last_heartbeat_time or 0)
    status = last.status.value if last.status else "unknown"
    return f"worker {last.name} of the pool {pool} is {status}, seen last at {last.last_heartbeat_time}"


def spent_before(run: str) -> list[Spent]:
    """What a run took before it was suspended, a visit each: its artifacts tell."""
    return [Spent(row["seconds"], row["cost"]) for rows in tables_of(UUID(run), _COST) for row in rows]


def _spent(leases: Leases, lease: Lease) -> Spent:
    now = leases.facts().now
    needs = [need._replace(owner=need.lease) for need in leases.needs(lease.taken)]  # lessons may have the same name
    seconds = cost = 0.0
    for waking in leases.wakings(lease.taken):
        start, end = max(waking.asked, lease.taken), min(waking.down or now, now)
        if start < end:
            seconds += (end - start).total_seconds()
            cost += shares(start, end, needs).get(lease.id, 0.0) * waking.price / 3600
    return Spent(round(seconds, 1), round(cost, 4))


# What the machine that computes has installed, by which others find in the cache what it made.


def note_packages(store: Store, server: str) -> None:
    packages = {package for engine in ENGINES for package in engine.packages}
    versions = {package: found for package in sorted(packages) if (found := installed_version(package)) != NOT_INSTALLED}
    if store.read_record(_packages_of(server)) != versions:
        store.write_record(_packages_of(server), versions)


def noted_packages(store: Store, server: str) -> dict[str, str]:
    """Versions by package; none where the server has never worked with this store."""
    return store.read_record(_packages_of(server)) or {}


def _packages_of(server: str) -> str:
    return f"figures/packages_{server.replace('-', '')}"
