"""`coursedub deploy`: what a Prefect server is given, that it is given once, and that what an operator changed stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed

from blocks.gpu_server import GpuServer
from blocks.s3_store import S3Store
from dubbing.errors import BadSetting
from flows.command_line import main
from flows.deploy import Did, deploy
from tasks.alerts import LIMIT_REACHED, NOT_WOKEN, PERSON_NEEDED, alert, over
from tasks.announce import Teller, announce, announcing
from tests.prefect_stack import PrefectServer, prefect_server, until
from tests.receiver import Receiver

SERVER = "0f7ddbd2-1f4f-4d4f-9d4c-1c54a4b4a001"
DEPLOYMENTS = (
    "dub-video/dub-video",
    "dub-course/dub-course",
    "plan/plan",
    "clean-store/clean",
    "keep-gpu-server/keep-gpu-server",
    "compute-stages/gpu",
    "deliver-webhook/deliver-webhook",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with prefect_server(f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('prefect') / 'prefect.db'}") as started:
        yield started


@pytest.fixture
def client(server: PrefectServer) -> Iterator[SyncPrefectClient]:
    """Of a server on which there is nothing of ours."""
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            client.delete_deployment(deployment.id)
        for pool in client.read_work_pools():
            client.delete_work_pool(pool.name)
        for automation in client.read_automations():
            client.delete_automation(automation.id)
        for document in client.read_block_documents():
            client.delete_block_document(document.id)
        yield client


@pytest.fixture
def deployed(server: PrefectServer) -> Iterator[SyncPrefectClient]:
    """Of a server on which everything was made, for tests that only look."""
    with get_client(sync_client=True) as client:
        if len(client.read_deployments()) < len(DEPLOYMENTS):
            did()
        yield client


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket, a GPU server, and credentials for both."""
    for name, value in {
        "COURSEDUB_STORE": "s3://lessons/cache",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret of the bucket",
        "AWS_ENDPOINT_URL": "https://s3.example.org",
        "AWS_REGION": "eu-1",
        "COURSEDUB_GPU_SERVER": SERVER,
        "COURSEDUB_LEASES": "postgresql://coursedub:secret@leases/coursedub",
        "COURSEDUB_COST_PER_HOUR": "0.79",
        "COURSEDUB_TIMEZONE": "Europe/Berlin",
        "OS_AUTH_URL": "https://keystone.example.org/v3",
        "OS_APPLICATION_CREDENTIAL_ID": "credential",
        "OS_APPLICATION_CREDENTIAL_SECRET": "secret of the cloud",
    }.items():
        monkeypatch.setenv(name, value)


def did(**options: Any) -> dict[str, Did]:
    return {one.what: one for one in deploy(**options)}


def changes(**options: Any) -> dict[str, str]:
    return {what: one.did for what, one in did(**options).items() if one.did in ("made", "changed")}


def environment_of(client: SyncPrefectClient, pool: str) -> dict[str, str]:
    return dict(client.read_work_pool(pool).base_job_template["variables"]["properties"]["env"]["default"])


def test_everything_is_made_once(client: SyncPrefectClient, capsys: pytest.CaptureFixture[str]) -> None:
    first = did()
    assert {"pool gpu", "pool control", "queue control/lessons", "queue control/keeper"} <= set(first)
    assert {f"deployment {name}" for name in DEPLOYMENTS} <= set(first)
    assert not [one for one in first.values() if one.did in ("kept", "left out")]
    assert client.read_work_pool("gpu").concurrency_limit == 1
    assert client.read_work_pool("control").concurrency_limit is None, "the keeper of the GPU server shall never wait for lessons"
    for pool in ("gpu", "control"):
        assert environment_of(client, pool) == {
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "COURSEDUB_STORE": "coursedub-s3-store/default",
            "COURSEDUB_GPU_SERVER": "coursedub-gpu-server/default",
        }
    for name in ("dub-video/dub-video", "plan/plan"):
        assert client.read_deployment_by_name(name).parameters == {"gpu_server": "coursedub-gpu-server/default", "profile": "gpu"}
    (nightly,) = client.read_deployment_by_name("clean-store/clean").schedules
    assert isinstance(nightly.schedule, CronSchedule) and nightly.schedule.timezone == "Europe/Berlin" and nightly.active
    assert {automation.name for automation in client.read_automations()} == {
        "coursedub: heartbeat lost",
        "coursedub: never started",
        "coursedub: late passes",
    }

    capsys.readouterr()
    assert main(["deploy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["changes"] == 0
    assert main(["deploy"]) == 0
    assert capsys.readouterr().out == f"Nothing to do: {len(first)} things are there already.\n"


def test_saved_blocks_have_what_the_environment_says(client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch) -> None:
    did()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "COURSEDUB_LEASES", "COURSEDUB_COST_PER_HOUR"):
        monkeypatch.delenv(name)
    store: Any = S3Store.load("default")
    assert store.folder == "s3://lessons/cache"
    assert store.credentials.aws_secret_access_key.get_secret_value() == "secret of the bucket"
    assert store.credentials.aws_client_parameters.endpoint_url == "https://s3.example.org"
    gpu: Any = GpuServer.load("default")
    assert (gpu.server_id, gpu.price_per_hour, gpu.auth_url) == (SERVER, 0.79, "https://keystone.example.org/v3")
    assert gpu.application_credential_secret.get_secret_value() == "secret of the cloud"
    assert gpu.database.get_secret_value().startswith("postgresql://")
    shown = json.dumps([document.data for document in client.read_block_documents(include_secrets=False)])
    assert SERVER in shown and "secret of" not in shown and ":secret@" not in shown


def test_what_an_operator_changed_stays(client: SyncPrefectClient) -> None:
    did()
    client.update_work_pool("gpu", WorkPoolUpdate(concurrency_limit=2))
    template = client.read_work_pool("control").base_job_template
    template["variables"]["properties"]["env"]["default"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] = "40"
    client.update_work_pool("control", WorkPoolUpdate(base_job_template=template))
    clean = client.read_deployment_by_name("clean-store/clean")
    (nightly,) = clean.schedules
    client.update_deployment_schedule(clean.id, nightly.id, active=False, schedule=CronSchedule(cron="30 2 * * *", timezone="Asia/Tokyo"))
    client.update_deployment(clean.id, DeploymentUpdate(parameters={"audio_days": 3}, paused=True))
    (lost,) = client.read_automations_by_name("coursedub: heartbeat lost")
    client.pause_automation(lost.id)
    store: Any = S3Store.load("default")
    store.folder = "s3://elsewhere/cache"
    store.save("default", overwrite=True)

    second = did()
    assert not [one for one in second.values() if one.did in ("made", "changed")]
    kept = {what: one.detail for what, one in second.items() if one.did == "kept"}
    assert set(kept) == {"pool gpu", "deployment clean-store/clean", "automation coursedub: heartbeat lost"}
    assert all(word in kept["deployment clean-store/clean"] for word in ("schedules", "parameters", "paused"))
    assert client.read_work_pool("gpu").concurrency_limit == 2
    assert environment_of(client, "control")["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "40"
    clean = client.read_deployment_by_name("clean-store/clean")
    (nightly,) = clean.schedules
    assert isinstance(nightly.schedule, CronSchedule)
    assert (nightly.schedule.cron, nightly.schedule.timezone, nightly.active) == ("30 2 * * *", "Asia/Tokyo", False)
    assert (clean.parameters, clean.paused) == ({"audio_days": 3}, True)
    assert not client.read_automations_by_name("coursedub: heartbeat lost")[0].enabled
    assert S3Store.load("default").folder == "s3://elsewhere/cache"  # type: ignore[union-attr]


def test_what_the_code_says_follows_the_code(client: SyncPrefectClient) -> None:
    did()
    before = client.read_deployment_by_name("clean-store/clean")
    (nightly,) = before.schedules
    client.update_deployment_schedule(before.id, nightly.id, schedule=CronSchedule(cron="30 2 * * *", timezone="UTC"))
    old = DeploymentUpdate(description="of an older version", entrypoint="old.module.flow", parameter_openapi_schema={}, tags=["mine"])
    client.update_deployment(before.id, old)
    assert changes() == {"deployment clean-store/clean": "changed"}
    after = client.read_deployment_by_name("clean-store/clean")
    assert (after.description, after.entrypoint) == (before.description, before.entrypoint)
    assert after.parameter_openapi_schema == before.parameter_openapi_schema
    assert sorted(after.tags) == ["coursedub", "mine"], "without the tag nobody would notice that its runs have died"
    (nightly,) = after.schedules
    assert isinstance(nightly.schedule, CronSchedule) and nightly.schedule.cron == "30 2 * * *"
    assert not changes()


def test_a_pool_made_by_hand_gets_what_it_lacks(client: SyncPrefectClient) -> None:
    client.create_work_pool(WorkPoolCreate(name="gpu", type="process"))
    assert did()["pool gpu"].did == "changed"
    assert client.read_work_pool("gpu").concurrency_limit == 1
    assert environment_of(client, "gpu")["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


def test_more_runs_at_once_on_the_gpu_where_that_is_asked_for(client: SyncPrefectClient) -> None:
    did(gpu_runs=2)
    assert client.read_work_pool("gpu").concurrency_limit == 2
    assert not changes()
    assert changes(gpu_runs=3) == {"pool gpu": "changed"}
    assert client.read_work_pool("gpu").concurrency_limit == 3


def test_courses_are_dubbed_at_night_once_there_is_one(client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch) -> None:
    did()
    course = client.read_deployment_by_name("dub-course/dub-course")
    assert not course.schedules[0].active and "manifest" not in course.parameters, "its runs would lack what they need"
    monkeypatch.setenv("COURSEDUB_COURSE", "s3://lessons/physics.csv")
    assert changes() == {"deployment dub-course/dub-course": "changed"}
    course = client.read_deployment_by_name("dub-course/dub-course")
    (nightly,) = course.schedules
    assert isinstance(nightly.schedule, CronSchedule)
    assert (nightly.active, nightly.schedule.cron, nightly.schedule.timezone) == (True, "0 1 * * *", "Europe/Berlin")
    assert (course.parameters["manifest"], course.parameters["until"]) == ("s3://lessons/physics.csv", "06:00")
    client.update_deployment_schedule(course.id, nightly.id, active=False)
    assert not changes() and not client.read_deployment_by_name("dub-course/dub-course").schedules[0].active, "an operator's choice"


def test_without_a_bucket_and_a_gpu_server_what_needs_them_is_left_out(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COURSEDUB_STORE", str(tmp_path))
    monkeypatch.delenv("COURSEDUB_GPU_SERVER")
    left_out = {what for what, one in did().items() if one.did == "left out"}
    assert left_out == {
        "block coursedub-s3-store/default",
        "block coursedub-gpu-server/default",
        "deployment keep-gpu-server/keep-gpu-server",
    }
    assert environment_of(client, "control") == {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}, "a folder is of one machine"
    assert not changes()
    monkeypatch.setenv("COURSEDUB_GPU_SERVER", SERVER)
    assert changes() == {
        "deployment dub-video/dub-video": "changed",
        "deployment dub-course/dub-course": "changed",
        "deployment plan/plan": "changed",
        "block coursedub-gpu-server/default": "made",
        "deployment keep-gpu-server/keep-gpu-server": "made",
        "pool control": "changed",
        "pool gpu": "changed",
    }


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_field_of_a_form_has_a_title_and_says_what_it_is(deployed: SyncPrefectClient, name: str) -> None:
    deployment = deployed.read_deployment_by_name(name)
    assert deployment.description and "coursedub" in deployment.tags and deployment.enforce_parameter_schema
    fields = deployment.parameter_openapi_schema["properties"]
    assert sorted(field["position"] for field in fields.values()) == list(range(len(fields)))
    for parameter, field in fields.items():
        assert field["title"] != parameter and field["description"], parameter


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"source": ""},
        {"source": 5},
        {"source": None},
        {"target_language": "into English"},
        {"target_language": None},
        {"captions": "letters"},
        {"loudness": "loud"},
        {"ducking": 61},
        {"ducking": -1},
        {"seed": -1},
        {"seed": 1.5},
        {"max_megabytes": 0},
        {"max_hours": "six"},
        {"voise": "af_heart"},
    ],
    ids=lambda bad: ",".join(f"{name}={value}" for name, value in bad.items()) or "nothing",
)
def test_bad_parameters_are_refused_by_the_api(deployed: SyncPrefectClient, server: PrefectServer, bad: dict[str, Any]) -> None:
    deployment = deployed.read_deployment_by_name("dub-video/dub-video")
    parameters = {"source": "https://example.org/lesson.mp4", **bad} if bad else {}
    address = f"{server.api}/deployments/{deployment.id}/create_flow_run"
    refused = httpx.post(address, json={"parameters": parameters}, timeout=60)
    assert 400 <= refused.status_code < 500, refused.text


def test_good_parameters_are_taken_by_the_api(deployed: SyncPrefectClient) -> None:
    deployment = deployed.read_deployment_by_name("dub-video/dub-video")
    # The client asks again where the server's small database is busy.
    run = deployed.create_flow_run_from_deployment(
        deployment.id, parameters={"source": "lesson.mp4", "loudness": -20, "voice": None, "report_language": None}
    )
    assert run.parameters["loudness"] == -20


def test_a_time_zone_that_there_isnt_is_refused(client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("COURSEDUB_TIMEZONE", "Europe/Nowhere")
    assert main(["deploy"]) == 21
    assert "COURSEDUB_TIMEZONE=Europe/Nowhere" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with temporary_settings({PREFECT_API_URL: None}):
        assert main(["deploy"]) == 21
        assert "PREFECT_API_URL" in capsys.readouterr().err
    with temporary_settings({PREFECT_API_URL: "http://anna:secret@127.0.0.1:9/api"}):
        assert main(["deploy"]) == 30
        said = capsys.readouterr().err
        assert "can't be reached" in said and "secret" not in said and said.count("\n") == 1


# --- who is told


def test_a_notification_block_that_is_not_there_is_said(client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSEDUB_NOTIFY", "slack-webhook/ours")
    with pytest.raises(BadSetting, match="COURSEDUB_NOTIFY: slack-webhook/ours: Prefect has no such block"):
        did()


def test_somebody_is_told_of_what_needs_a_person(client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a notification block of Prefect's, on a real server with all its services."""
    with Receiver() as chat:
        said = {"subject": "{{subject}}", "body": "{{body}}"}
        for name in ("ours", "theirs"):
            CustomWebhookNotificationBlock(name=name, url=f"{chat.address}/{name}", json_data=said).save(name)
        monkeypatch.setenv("COURSEDUB_NOTIFY", "custom-webhook/ours, custom-webhook/theirs")
        made = did()
        assert sum(what.startswith("automation coursedub: ") and what.endswith("by custom-webhook/theirs") for what in made) == 5
        lesson = client.read_deployment_by_name("dub-video/dub-video")
        for number in range(3):
            assert not chat.come, "two runs that failed are nobody's business"
            run = client.create_flow_run_from_deployment(lesson.id, parameters={"source": f"{number}.mp4"}, name=f"lesson {number}")
            client.set_flow_run_state(run.id, Failed(message="StoreFailed: the bucket is away"), force=True)
        until(lambda: len(chat.come) == 2)
        assert set(chat.paths) == {"/ours", "/theirs"}
        assert chat.come[0].body["subject"] == "coursedub: runs fail"
        assert chat.come[0].body["body"].strip() == "dub-video lesson 2: Failed: StoreFailed: the bucket is away"

        chat.start_afresh()
        teller = Teller(None, "", "job 7", "run 7", "lesson.mp4", "en")
        with announcing(teller):
            announce("review_requested", "translation", stage="translation", reminder=0)
            assert alert(PERSON_NEEDED, SERVER, "it is in ERROR for 5 minutes")
            assert not alert(PERSON_NEEDED, SERVER, "it is in ERROR for 6 minutes"), "told already"
            assert alert(NOT_WOKEN, SERVER, "not up within 1200 s")
            assert alert(LIMIT_REACHED, SERVER, "it cost 20.00 in the last 24 hours, the limit is 20")
            announce("review_requested", "translation 1", stage="translation", reminder=1)
        until(lambda: len(chat.come) >= 8)
        assert sorted((one.body["subject"], one.body["body"]) for one in chat.come) == sorted(
            2
            * [
                ("coursedub: the GPU server needs a person", "it is in ERROR for 5 minutes"),
                ("coursedub: the GPU server can't be woken", "not up within 1200 s"),
                ("coursedub: the GPU server's limit is reached", "it cost 20.00 in the last 24 hours, the limit is 20"),
                ("coursedub: a review is not answered", "lesson.mp4 waits for a review (translation), asked for the 2. time"),
            ]
        )
        over(PERSON_NEEDED, SERVER)
        assert alert(PERSON_NEEDED, SERVER, "it is in ERROR for 1 minutes"), "it was over, and is so again"
