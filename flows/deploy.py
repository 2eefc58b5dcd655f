"""Set Prefect's server up: types of blocks, saved blocks, pools, automations, and the deployments of `prefect.yaml`. `coursedub deploy`.

It may be run any time, and is after every update of the project. What the code says follows the code: types of blocks, and of each
deployment where the flow is, its description and its form. All else is an operator's once it is made: limits, schedules, default
parameters, saved blocks, automations. What is missing is made; what is there and differs is told and stays.
"""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import UUID

import httpx
import yaml
from prefect import Flow
from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL
from prefect.utilities.callables import parameter_schema
from prefect.utilities.templating import apply_values
from prefect.workers.process import ProcessWorker
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from blocks.gpu_server import GpuServer
from blocks.kinescope import Kinescope
from blocks.profiles import ENGINES, Profile
from blocks.store import Store
from blocks.webhook import Webhook
from dubbing.errors import BadSetting, PassingFault
from dubbing.machine import shown
from tasks.alerts import LIMIT_REACHED, NOT_WOKEN, PERSON_NEEDED
from tasks.progress import TAG

DEPLOYMENTS = Path(__file__).with_name("prefect.yaml")
SAVED = "default"  # name of the blocks that are made of what the environment says
HEARTBEAT = 30  # seconds between two signs of life of a run: the least that Prefect knows
HEARTBEAT_LOST = timedelta(seconds=90)  # so two may be missed
PENDING_AT_MOST = timedelta(minutes=15)  # a process is there in seconds; one that never was sends no heartbeat
FAILURES, FAILURES_WITHIN = 3, timedelta(hours=1)  # runs that failed in a time: one alone is seen by whoever started it
GPU_RUNS = 1  # at once: a model takes most of a GPU's memory
LESSONS = 3  # at once on the control machine
COURSES = 3
WEBHOOKS = 3  # tries at once: each is over in seconds
PASSES = 2  # of the keeper at once: one of the schedule, and a person's order, which may take as long as the server does to come up
_NEED_GPU_SERVER = ("keep-gpu-server",)  # would fail each minute where none is set
_ENDED = ("Completed", "Failed", "Cancelled", "Crashed")
_RESTS = ("Scheduled", "Late", "AwaitingRetry", "AwaitingConcurrencySlot", "Paused", "Suspended")  # no process, and rightly so


class Did(NamedTuple):
    """What became of one thing."""

    what: str
    did: Literal["made", "changed", "kept", "left out", "unchanged"]
    detail: str = ""


class Queue(NamedTuple):
    name: str
    description: str
    limit: int
    priority: int  # 1 is the highest


class Pool(NamedTuple):
    name: str
    description: str
    limit: int | None = None  # runs at once
    queues: tuple[Queue, ...] = ()


POOLS = (
    Pool(
        "control",
        "The machine that is always up: it plans, wakes the GPU server, delivers, cleans up.",
        queues=(
            Queue("keeper", "Passes of keep-gpu-server, before all else.", PASSES, 1),
            Queue("webhooks", "Webhooks that the platform did not take.", WEBHOOKS, 5),
            Queue("lessons", "Lessons in work.", LESSONS, 10),
            Queue("courses", "Courses, each of which waits for its lessons.", COURSES, 20),
        ),
    ),
    Pool("gpu", "The GPU server, while it is up: its worker does the stages that need a GPU.", GPU_RUNS),
)


def deploy(gpu_runs: int | None = None) -> Iterator[Did]:
    """Make what is missing. Tells of each thing as soon as it is done.

    Args:
        gpu_runs: how many runs the pool `gpu` takes at once; None leaves it as it is, 1 at first.

    Raises:
        BadSetting: no server is set, it doesn't let us in, or it refuses what the environment or `prefect.yaml` says.
        PassingFault: it can't be reached.
    """
    address = PREFECT_API_URL.value()
    if not address:
        raise BadSetting("deploy: no Prefect server is set (PREFECT_API_URL=http://…:4200/api)")
    where = f"Prefect's server at {shown(address)}"
    try:
        with get_client(sync_client=True) as client:
            if failure := client.api_healthcheck():
                raise PassingFault(f"{where} can't be reached: {failure}")
            yield from _block_types(client)
            saved: dict[str, str] = {}
            yield from _saved_blocks(client, saved)
            for pool in POOLS:
                yield from _pool(client, pool, saved, gpu_runs if pool.name == "gpu" else None)
            for automation in (*automations(), *notifications(client)):
                yield _automation(client, automation)
            for config in deployments():
                yield _deployment(client, config, saved)
    except PrefectHTTPStatusError as error:
        if error.response.status_code in (401, 403):
            raise BadSetting(f"{where} doesn't let us in (PREFECT_API_AUTH_STRING, PREFECT_API_KEY)") from error
        raise
    except httpx.TransportError as error:
        raise PassingFault(f"{where} can't be reached: {error}") from error


# --- Blocks


def block_types() -> list[type[Block]]:
    """Every block that an operator may save."""
    kinds: list[type[Block]] = [Store, Profile, GpuServer, Kinescope, Webhook, *dict.fromkeys(ENGINES)]
    try:
        from blocks.s3_publishing import Publishing
        from blocks.s3_store import S3Store
    except ImportError:  # the extra s3 is not installed
        return kinds
    return [S3Store, Publishing, *kinds]


def _block_types(client: SyncPrefectClient) -> Iterator[Did]:
    """With a description and a form that are the code's."""
    for kind in block_types():
        name = f"block type {kind.get_block_type_name()}"
        before = _registered(client, kind)
        kind.register_type_and_schema(_sync=True)  # type: ignore[call-arg]
        after = _registered(client, kind)
        yield Did(name, "made" if before is None else "unchanged" if before == after else "changed")


def _registered(client: SyncPrefectClient, kind: type[Block]) -> tuple[Any, ...] | None:
    try:
        known = client.read_block_type_by_slug(kind.get_block_type_slug())
    except ObjectNotFound:
        return None
    schema = client.get_most_recent_block_schema_for_block_type(known.id)
    return known.updated, schema and schema.id


def _saved_blocks(client: SyncPrefectClient, saved: dict[str, str]) -> Iterator[Did]:
    """What the environment says of the store and of the GPU server, as blocks, for the machines that it says nothing of.

    Args:
        saved: gets the setting that names each block, for the environment of the pools.
    """
    for setting, slugs, block in (
        ("COURSEDUB_STORE", ("coursedub-s3-store",), _store_block),
        ("COURSEDUB_GPU_SERVER", ("coursedub-gpu-server",), _gpu_server_block),
    ):
        said = os.environ.get(setting, "")
        slug, _, name = said.partition("/")
        if slug in slugs and name:  # one that an operator saved
            saved[setting] = said
            continue
        document = f"{slugs[0]}/{SAVED}"
        try:
            client.read_block_document_by_name(SAVED, slugs[0])
        except ObjectNotFound:
            try:
                made = block(said)
            except ValidationError as error:
                raise BadSetting(f"{setting}: {error.errors(include_input=False)[0]['msg']}") from None
            if made is None:
                yield Did(f"block {document}", "left out", f"{setting} is {'a folder of this machine' if said else 'not set'}")
                continue
            made.save(SAVED, _sync=True)  # type: ignore[call-arg]  # Prefect's own way to have it waited for
            yield Did(f"block {document}", "made", f"from {setting} and what goes with it")
        else:
            yield Did(f"block {document}", "unchanged")
        saved[setting] = document


def _store_block(address: str) -> Any:
    """The bucket that COURSEDUB_STORE names, with the keys that are set. A folder is of one machine."""
    if not address.startswith("s3://"):
        return None
    try:
        from prefect_aws import AwsClientParameters, AwsCredentials

        from blocks.s3_store import S3Store
    except ImportError:
        raise BadSetting("COURSEDUB_STORE: not installed here: s3fs, prefect-aws; pip install 'coursedub[s3]' does it") from None
    environment = os.environ
    credentials = None
    if key := environment.get("AWS_ACCESS_KEY_ID"):
        credentials = AwsCredentials(
            aws_access_key_id=key,
            aws_secret_access_key=environment.get("AWS_SECRET_ACCESS_KEY"),
            aws_session_token=environment.get("AWS_SESSION_TOKEN"),
            region_name=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION"),
            aws_client_parameters=AwsClientParameters(
                endpoint_url=environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
            ),
        )
    return S3Store(folder=address, credentials=credentials)


def _gpu_server_block(server: str) -> GpuServer | None:
    """The server that COURSEDUB_GPU_SERVER names by its id, with the credentials that are set: an application credential, or a cloud of
    clouds.yaml, which then has to be on the machines."""
    try:
        UUID(server)
    except ValueError:
        return None
    environment = os.environ
    settings = {
        "auth_url": "OS_AUTH_URL",
        "application_credential_id": "OS_APPLICATION_CREDENTIAL_ID",
        "application_credential_secret": "OS_APPLICATION_CREDENTIAL_SECRET",
    }
    credential = {name: environment.get(variable, "") for name, variable in settings.items()}
    given: dict[str, Any] = credential if all(credential.values()) else {"cloud": environment.get("OS_CLOUD", "")}
    if region := environment.get("OS_REGION_NAME"):
        given["region"] = region
    if interface := environment.get("OS_INTERFACE"):
        given["interface"] = interface
    return GpuServer(server_id=server, **given)


# --- Pools


def _pool(client: SyncPrefectClient, pool: Pool, saved: dict[str, str], limit: int | None) -> Iterator[Did]:
    name = f"pool {pool.name}"
    try:
        known = client.read_work_pool(pool.name)
    except ObjectNotFound:
        template, _ = _with_defaults(ProcessWorker.get_default_base_job_template(), saved)
        client.create_work_pool(
            WorkPoolCreate(
                name=pool.name,
                type=ProcessWorker.type,
                description=pool.description,
                base_job_template=template,
                concurrency_limit=limit or pool.limit,
            )
        )
        yield Did(name, "made", f"runs at once: {limit or pool.limit or 'no limit'}")
    else:
        yield _updated_pool(client, pool, known, saved, limit)
    for queue in pool.queues:
        name = f"queue {pool.name}/{queue.name}"
        try:
            client.read_work_queue_by_name(queue.name, pool.name)
            yield Did(name, "unchanged")
        except ObjectNotFound:
            client.create_work_queue(
                queue.name,
                description=queue.description,
                concurrency_limit=queue.limit,
                priority=queue.priority,
                work_pool_name=pool.name,
            )
            yield Did(name, "made", f"runs at once: {queue.limit}")


def _updated_pool(client: SyncPrefectClient, pool: Pool, known: WorkPool, saved: dict[str, str], limit: int | None) -> Did:
    """A pool that is there, with what it lacks."""
    name = f"pool {pool.name}"
    changes: dict[str, Any] = {}
    details: list[str] = []
    if known.type != ProcessWorker.type:
        return Did(name, "kept", f"of type {known.type}")
    # A pool that was made without one is given the usual one by its first worker.
    template, added = _with_defaults(known.base_job_template or ProcessWorker.get_default_base_job_template(), saved)
    if added:
        changes["base_job_template"] = template
        details.append(f"added: {', '.join(added)}")
    wanted = limit or (pool.limit if known.concurrency_limit is None else None)
    if wanted and wanted != known.concurrency_limit:
        changes["concurrency_limit"] = wanted
        details.append(f"runs at once: {wanted}")
    if changes:
        client.update_work_pool(pool.name, WorkPoolUpdate(**changes))
        return Did(name, "changed", "; ".join(details))
    if pool.limit and known.concurrency_limit != pool.limit:
        return Did(name, "kept", f"runs at once: {known.concurrency_limit}, {pool.limit} by default")
    return Did(name, "unchanged")


def _with_defaults(template: dict[str, Any], saved: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """A pool's template in which runs send heartbeats, know the saved blocks, and work in the folder that their worker was started in:
    else that would be a temporary one, and a lesson without a folder of its own would go with it. Also tells what had to be added."""
    variables = template.get("variables", {}).get("properties", {})
    if "env" not in variables or "working_dir" not in variables:
        return template, []  # an operator's own
    environment = variables["env"].get("default") or {}
    wanted = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT), **saved}
    lacking = {name: value for name, value in wanted.items() if name not in environment}
    changed = {"env": variables["env"] | {"default": environment | lacking}}
    added = list(lacking)
    if not variables["working_dir"].get("default"):
        changed["working_dir"] = variables["working_dir"] | {"default": "."}
        added.append("working_dir")
    whole = template["variables"] | {"properties": variables | changed}
    return template | {"variables": whole}, added


# --- Automations


def automations() -> list[AutomationCore]:
    """What ends runs that nobody is left to end: without a worker and a process no hook runs, and the run would stay as it is, in its
    pool's slot. They go by a tag, since a heartbeat's event tells neither pool nor queue."""
    over = {*_ENDED, *_RESTS}
    lost, pending = HEARTBEAT_LOST.total_seconds(), PENDING_AT_MOST.total_seconds() / 60
    return [
        _crashed_unless(
            "coursedub: heartbeat lost",
            f"A run that sent no heartbeat for {lost:.0f} s has crashed: its machine is gone, or was switched off.",
            after={"heartbeat"},
            expect={"heartbeat"} | over,
            within=HEARTBEAT_LOST,
            message=f"No heartbeat for {lost:.0f} s",
        ),
        _crashed_unless(
            "coursedub: never started",
            f"A run that a worker took and that didn't begin within {pending:.0f} minutes has crashed: its worker is gone.",
            after={"Pending", "Submitting", "InfrastructurePending"},
            expect={"Running", "Retrying"} | over,
            within=PENDING_AT_MOST,
            message=f"Not begun within {pending:.0f} minutes",
        ),
        AutomationCore(
            name="coursedub: late passes",
            description="A pass of keep-gpu-server that its schedule made and that is late is left out: the next one does the same. Else "
            "hundreds would wait for a worker that was down for a night.",
            tags=[TAG],
            trigger=EventTrigger(
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related=[
                    {"prefect.resource.role": "flow", "prefect.resource.name": "keep-gpu-server"},
                    {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.auto-scheduled"},
                ],
                for_each={"prefect.resource.id"},
                expect={"prefect.flow-run.Late"},
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=[ChangeFlowRunState(state=StateType.CANCELLED, name="Skipped", message="Late: the next pass does the same")],
        ),
    ]


def notifications(client: SyncPrefectClient) -> list[AutomationCore]:
    """Who is told of what needs a person: by each of the notification blocks that COURSEDUB_NOTIFY names, with commas between.

    Raises:
        BadSetting: there is no such block.
    """
    named = [name.strip() for name in os.environ.get("COURSEDUB_NOTIFY", "").split(",") if name.strip()]
    ours = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
    gpu_server = {"prefect.resource.id": "coursedub.gpu-server.*"}
    tell = "{{ event.payload.tell }}"
    made = []
    for name in named:
        made += [
            _told_by(
                client,
                name,
                "runs fail",
                "{{ flow.name }} {{ flow_run.name }}: {{ flow_run.state.name }}: {{ flow_run.state.message }} {{ flow_run|ui_url or '' }}",
                EventTrigger(
                    match={"prefect.resource.id": "prefect.flow-run.*"},
                    match_related=ours,
                    expect={f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")},
                    posture=Posture.Reactive,
                    threshold=FAILURES,
                    within=FAILURES_WITHIN,
                ),
            ),
            _told_by(client, name, "the GPU server needs a person", tell, _on(PERSON_NEEDED, gpu_server)),
            _told_by(client, name, "the GPU server can't be woken", tell, _on(NOT_WOKEN, gpu_server)),
            _told_by(client, name, "the GPU server's limit is reached", tell, _on(LIMIT_REACHED, gpu_server)),
            _told_by(
                client,
                name,
                "a review is not answered",
                "{{ event.payload.lesson }} waits for a review ({{ event.payload.stage }}), asked for the "
                "{{ event.payload.reminder + 1 }}. time",
                _on("coursedub.lesson.review_requested", {"prefect.resource.id": "coursedub.run.*", "coursedub.reminder": "!0"}),
            ),
        ]
    return made


def _told_by(client: SyncPrefectClient, name: str, what: str, body: str, trigger: EventTrigger) -> AutomationCore:
    slug, _, block = name.partition("/")
    try:
        document = client.read_block_document_by_name(block, slug)
    except ObjectNotFound:
        raise BadSetting(f"COURSEDUB_NOTIFY: {name}: Prefect has no such block (slack-webhook/ours, say)") from None
    return AutomationCore(
        name=f"coursedub: {what}, by {name}",
        description=f"Tells by the block {name} that {what}.",
        tags=[TAG],
        trigger=trigger,
        actions=[SendNotification(block_document_id=document.id, subject=f"coursedub: {what}", body=body)],
    )


def _on(event: str, resource: dict[str, str]) -> EventTrigger:
    """Each time."""
    return EventTrigger(match=resource, for_each={"prefect.resource.id"}, expect={event}, posture=Posture.Reactive, threshold=1)


def _crashed_unless(name: str, description: str, *, after: set[str], expect: set[str], within: timedelta, message: str) -> AutomationCore:
    """A run of ours has crashed when after one of these events none of those comes in time."""
    return AutomationCore(
        name=name,
        description=description,
        tags=[TAG],
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"},
            for_each={"prefect.resource.id"},
            after={f"prefect.flow-run.{event}" for event in after},
            expect={f"prefect.flow-run.{event}" for event in expect},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
    )


def _automation(client: SyncPrefectClient, automation: AutomationCore) -> Did:
    name = f"automation {automation.name}"
    found = client.read_automations_by_name(automation.name)
    if not found:
        client.create_automation(automation)
        return Did(name, "made")
    core = AutomationCore.model_validate(found[0].model_dump(exclude={"id"}))
    return Did(name, "unchanged") if _as_made(core) == _as_made(automation) else Did(name, "kept", "an operator changed it")


def _as_made(automation: AutomationCore) -> dict[str, Any]:
    """What of an automation an operator may change."""
    return {
        "enabled": automation.enabled,
        "trigger": automation.trigger.model_dump(exclude={"id"}),
        "actions": [action.model_dump() for action in automation.actions],
    }


# --- Deployments


def deployments() -> list[dict[str, Any]]:
    """Those of `prefect.yaml`, with what the environment says in their places.

    Raises:
        BadSetting: COURSEDUB_TIMEZONE is no time zone.
    """
    os.environ.setdefault("COURSEDUB_TIMEZONE", "UTC")
    os.environ.setdefault("COURSEDUB_COURSE", "")
    filled: Any = apply_values(yaml.safe_load(DEPLOYMENTS.read_text()), {}, remove_notset=False)
    return list(filled["deployments"])


def _deployment(client: SyncPrefectClient, config: dict[str, Any], saved: dict[str, str]) -> Did:
    flow: Flow[..., Any] = load_flow_from_entrypoint(config["entrypoint"], use_placeholder_flow=False)
    name = f"deployment {flow.name}/{config['name']}"
    if config["name"] in _NEED_GPU_SERVER and "COURSEDUB_GPU_SERVER" not in saved:
        return Did(name, "left out", "COURSEDUB_GPU_SERVER is not set")
    of_the_code = {
        "entrypoint": config["entrypoint"],
        "description": config["description"].strip(),
        "parameter_openapi_schema": form(flow),
        "pull_steps": [],
        "enforce_parameter_schema": True,
    }
    pool = config["work_pool"]
    given = {parameter: value for parameter, value in config.get("parameters", {}).items() if value}
    # A schedule that lacks what its runs need rests until somebody gives it.
    required = set(form(flow).get("required", ()))
    lacks = required - given.keys()
    of_the_operator = {
        "schedules": [_schedule(schedule | ({"active": False} if lacks else {})) for schedule in config.get("schedules", ())],
        "parameters": given | _of_gpu_server(flow, saved),
        "job_variables": pool.get("job_variables", {}),
        "work_pool_name": pool["name"],
        "work_queue_name": pool.get("work_queue_name", "default"),
        "tags": config["tags"],
        "paused": False,
    }
    try:
        known = client.read_deployment_by_name(f"{flow.name}/{config['name']}")
    except ObjectNotFound:
        flow_id = client.create_flow_from_name(flow.name)
        client.create_deployment(flow_id, config["name"], **of_the_code, **of_the_operator)
        return Did(name, "made", _when(of_the_operator["schedules"]))
    there = known.model_dump(mode="json")
    changes = {field: value for field, value in of_the_code.items() if (there[field] or []) != (value or [])}
    needed = {parameter: given[parameter] for parameter in required & given.keys()}
    if lacking := {name: value for name, value in (needed | _of_gpu_server(flow, saved)).items() if name not in known.parameters}:
        changes["parameters"] = known.parameters | lacking
    if TAG not in known.tags:
        changes["tags"] = [*known.tags, TAG]  # without it nobody notices that its runs have died
    if changes:
        client.update_deployment(known.id, DeploymentUpdate(**changes))
        if required & changes.get("parameters", {}).keys() - known.parameters.keys():
            for schedule in known.schedules:
                client.update_deployment_schedule(known.id, schedule.id, active=True)
        return Did(name, "changed", ", ".join(changes))
    kept = _kept(known, of_the_operator)
    return Did(name, "kept", f"as changed: {', '.join(kept)}") if kept else Did(name, "unchanged")


def _of_gpu_server(flow: Flow[..., Any], saved: dict[str, str]) -> dict[str, str]:
    """Default parameters of a lesson's flow, where there is a GPU server: it does what its profile has for it."""
    server = saved.get("COURSEDUB_GPU_SERVER")
    takes = inspect.signature(flow.fn).parameters
    return {"gpu_server": server, "profile": "gpu"} if server and "gpu_server" in takes and "profile" in takes else {}


def _schedule(config: dict[str, Any]) -> DeploymentScheduleCreate:
    timezone = config.get("timezone", "UTC")
    try:
        cron = CronSchedule(cron=config["cron"], timezone=timezone)
    except ValidationError:
        raise BadSetting(f"COURSEDUB_TIMEZONE={timezone}: no time zone is called that (Europe/Berlin, say)") from None
    return DeploymentScheduleCreate(schedule=cron, slug=config["slug"], active=config["active"])


def _when(schedules: list[DeploymentScheduleCreate]) -> str:
    crons = [schedule.schedule for schedule in schedules if isinstance(schedule.schedule, CronSchedule)]
    return "; ".join(f"{cron.cron} {cron.timezone}" for cron in crons)


def _kept(known: DeploymentResponse, wanted: dict[str, Any]) -> list[str]:
    """What an operator has otherwise."""
    there = {name: getattr(known, name) for name in wanted} | {"tags": sorted(known.tags)}
    wanted = wanted | {"tags": sorted(wanted["tags"])}
    for both in (there, wanted):
        both["schedules"] = [(one.slug, one.active, one.schedule.model_dump(mode="json"), one.parameters) for one in both["schedules"]]
    return [name for name in wanted if there[name] != wanted[name]]


def form(flow: Flow[..., Any]) -> dict[str, Any]:
    """What Prefect validates a flow's parameters by and makes its form of: Prefect's own schema, with the titles, descriptions and
    patterns of the parameters' `Field`s, which that leaves out.

    What may be None is a plain field that may stay empty: where a property is neither required nor has a default, the server takes null.
    """
    schema = parameter_schema(flow).model_dump(exclude_unset=True)
    for name, parameter in inspect.signature(flow.fn, eval_str=True).parameters.items():
        shown_as = schema["properties"][name]
        kinds = [kind for kind in shown_as.get("anyOf", ()) if kind != {"type": "null"}]
        if len(kinds) == 1 and shown_as["default"] is None:
            del shown_as["anyOf"], shown_as["default"]
            shown_as |= kinds[0]
            if "enum" in shown_as:  # whose values are all that is taken
                shown_as["enum"] = [*shown_as["enum"], None]
        for field in typing.get_args(parameter.annotation)[1:]:
            if isinstance(field, FieldInfo):
                extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
                said = {"title": field.title, "description": field.description, **extra}
                shown_as |= {key: value for key, value in said.items() if value is not None}
    return schema | {"additionalProperties": False}  # a name that is misspelt is refused, not left out
