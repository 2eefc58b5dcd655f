"""The control plane's install.sh on a bare machine, and its systemd units. What comes from afar is played as for the GPU server."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control_plane import DEPLOYMENT, read_settings
from tests.deployments.bare_server import BareServer, Run, bare_server
from tests.deployments.test_control_plane import program
from tests.deployments.test_gpu_server import First, analyze, there

UNITS = DEPLOYMENT / "systemd"
SERVICES = sorted(path.stem for path in UNITS.glob("*.service"))


def install(server: BareServer, *options: str) -> Run:
    return server.enter("/played/checkout/deployments/control_plane/install.sh", *options)


def text(server: BareServer, name: str) -> str:
    return server.path(name).read_text()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[First]:
    with bare_server(tmp_path_factory.mktemp("machine")) as found:
        server = there(found)
        without_postgres(server)
        before = server.touched().keys()
        dry = install(server, "--dry-run")
        touched = server.touched().keys() - before
        yield First(server, dry, touched, install(server))


@pytest.fixture
def installed(first: First, tmp_path: Path) -> Iterator[BareServer]:
    """A machine that was set up, of the test's own."""
    with bare_server(tmp_path, origin=first.server) as server:
        yield there(server)


def without_postgres(server: BareServer) -> None:
    """None runs here, whatever this machine has; what it is asked is kept."""
    psql = server.path("/played/bin/psql")
    psql.write_text('#!/bin/sh\n[ -e /played/postgres ] || exit 2\n[ "$*" = "--quiet --command=" ] || { env; cat; } >>/played/postgres\n')
    psql.chmod(0o755)
    if not any(line.startswith("postgres:") for line in text(server, "/etc/passwd").splitlines()):
        server.enter("useradd", "--system", "postgres")


def test_scripts_pass_shellcheck() -> None:
    done = subprocess.run(
        [program("shellcheck"), "--external-sources", "install.sh"], cwd=DEPLOYMENT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_help_names_every_option_and_no_other_is_taken() -> None:
    script = DEPLOYMENT / "install.sh"
    options = set(re.findall(r"^\s+(--[a-z-]+)(?: \| -h)?\)", script.read_text(), re.MULTILINE))
    said = subprocess.run([script, "--help"], capture_output=True, text=True, check=True).stdout
    assert {"--dry-run", "--watchdog", "--help"} <= options and [option for option in options if option not in said] == []
    done = subprocess.run([script, "--fast"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_a_dry_run_changes_nothing(first: First) -> None:
    assert first.dry.code == 0, first.dry.errors
    assert first.touched_by_dry == set() and "nothing was changed" in first.dry.output


def test_a_first_run_sets_all_up_and_a_second_changes_nothing(first: First, installed: BareServer) -> None:
    assert first.wet.code == 0, first.wet.errors
    run = install(installed)
    assert run.code == 0 and "done, 0 changes" in run.output, run.output
    assert list(installed.touched()) == []
    done = installed.enter("/opt/coursedub/control/bin/python", "-c", "import something, dubbing, blocks, tasks, flows", PYTHONPATH="")
    assert done.code == 0, done.errors


def test_secrets_are_new_and_each_service_gets_its_own(installed: BareServer) -> None:
    made = read_settings(installed.path("/etc/coursedub/control.env"))
    assert len(made["LEASES_PASSWORD"]) == 48 and made["PREFECT_AUTH_STRING"].startswith("machines:")
    machines = read_settings(installed.path("/etc/coursedub/machines.env"))
    assert machines["PREFECT_API_AUTH_STRING"] == made["PREFECT_AUTH_STRING"] and made["LEASES_PASSWORD"] in machines["COURSEDUB_LEASES"]
    assert made["PREFECT_PASSWORD"] not in text(installed, "/etc/coursedub/machines.env"), "the worker can't reach Prefect's database"
    assert made["PREFECT_PASSWORD"] in text(installed, "/etc/coursedub/prefect-secrets.env")
    for name in ("control.env", "machines.env", "prefect-secrets.env", "proxy.env", "worker.env"):
        facts = installed.path(f"/etc/coursedub/{name}").stat()
        assert facts.st_uid == 0 and stat.S_IMODE(facts.st_mode) & 0o037 == 0, name
        if name not in ("machines.env", "worker.env"):
            assert facts.st_gid == 0, name


def test_what_is_made_of_the_secrets_follows_them(installed: BareServer) -> None:
    path = installed.path("/etc/coursedub/control.env")
    path.write_text(path.read_text().replace("COURSEDUB_TLS=", "COURSEDUB_TLS=internal").replace("dub.example.org", "dub.school.example"))
    made = [f"/etc/coursedub/{name}.env" for name in ("prefect-secrets", "machines", "proxy")]
    assert install(installed).changes[:3] == made
    proxy = read_settings(installed.path("/etc/coursedub/proxy.env"))
    assert (proxy["COURSEDUB_ADDRESS"], proxy["COURSEDUB_TLS"]) == ("dub.school.example", "internal")


def test_databases_are_made_when_postgresql_answers_and_again_for_new_passwords(installed: BareServer) -> None:
    installed.path("/played/postgres").touch(0o666)
    installed.path("/played/postgres").chmod(0o666)
    assert install(installed).changes == ["databases prefect and leases"]
    asked = text(installed, "/played/postgres")
    made = read_settings(installed.path("/etc/coursedub/control.env"))
    assert f"LEASES_PASSWORD={made['LEASES_PASSWORD']}" in asked and "CREATE DATABASE" in asked
    assert "done, 0 changes" in install(installed).output
    path = installed.path("/etc/coursedub/control.env")
    path.write_text(path.read_text().replace(made["LEASES_PASSWORD"], "another"))
    assert "databases prefect and leases" in install(installed).changes


def test_nothing_is_started_before_it_can_work(installed: BareServer) -> None:
    installed.path("/run/systemd/system").mkdir(parents=True)
    for file, name, value in (
        ("worker.env", "COURSEDUB_GPU_SERVER", "an-id"),
        ("control.env", "COURSEDUB_TLS", "internal"),
        ("control.env", "LEASES_ADDRESS", "10.0.0.2"),
    ):
        assert f"next: set {name} in /etc/coursedub/{file}" in install(installed).output
        assert not [call for call in installed.calls() if " start " in call]
        path = installed.path(f"/etc/coursedub/{file}")
        path.write_text(path.read_text().replace(f"{name}=\n", f"{name}={value}\n"))
    assert install(installed, "--no-start").code == 0
    assert not [call for call in installed.calls() if " start " in call]
    run = install(installed)
    assert run.code == 0, run.errors
    assert "@10.0.0.2/leases" in text(installed, "/etc/coursedub/deploy.env") and "@127.0.0.1/" in text(
        installed, "/etc/coursedub/machines.env"
    )
    started = [call.rpartition(" ")[2] for call in installed.calls() if " start " in call]
    assert started == ["coursedub-watchdog.timer", "coursedub-backup.timer", "coursedub-control-plane.target"]


def test_a_watchdog_alone_is_nothing_but_that(first: First, tmp_path: Path) -> None:
    with bare_server(tmp_path) as found:
        server = there(found)
        assert install(server, "--watchdog").code == 0
        assert sorted(path.name for path in server.path("/etc/systemd/system").glob("coursedub*")) == [
            "coursedub-watchdog.service",
            "coursedub-watchdog.timer",
        ]
        assert read_settings(server.path("/etc/coursedub/machines.env")) == {"COURSEDUB_LEASES": ""}
        assert not server.path("/etc/coursedub/control.env").exists()
        assert "postgresql" not in text(server, "/played/packages")
        assert "done, 0 changes" in install(server, "--watchdog").output


def test_coursedub_on_the_machine_runs_as_the_worker_with_its_settings(installed: BareServer) -> None:
    run = installed.enter("/usr/local/bin/coursedub", "environment", COURSEDUB_WEIGHTS="/tmp")
    assert run.code == 0, run.errors
    assert "'PREFECT_API_URL': 'http://127.0.0.1:4200/api'" in run.output and "'COURSEDUB_HOURS_A_DAY': '10'" in run.output


# --- the units


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for name in ["opt/coursedub/control/bin/coursedub", "opt/coursedub/control/bin/prefect", "opt/coursedub/bin/backup", "usr/bin/curl"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    shutil.copytree(UNITS, tmp_path / "etc/systemd/system", ignore=shutil.ignore_patterns("caddy.conf"))
    for folder in ("usr/lib/systemd/system", "lib/systemd/system"):
        if Path("/", folder).is_dir():
            shutil.copytree(Path("/", folder), tmp_path / folder, symlinks=True, dirs_exist_ok=True)
    names = [f"/etc/systemd/system/{path.name}" for path in sorted(UNITS.glob("coursedub*"))]
    done = analyze("verify", f"--root={tmp_path}", "--man=no", *names)
    if "--root" in done.stderr and "unrecognized" in done.stderr:
        pytest.skip("this systemd-analyze can't look into a folder")
    said = [line for line in done.stderr.splitlines() if "coursedub" in line]
    assert (done.returncode, said) == (0, [])


@pytest.mark.parametrize("service", SERVICES)
def test_services_are_exposed_to_little(service: str) -> None:
    done = analyze("security", "--offline=yes", "--threshold=30", UNITS / f"{service}.service")
    assert done.returncode == 0, done.stdout[-2000:]


def test_units_name_only_settings_and_programs_that_the_script_puts_there() -> None:
    script = (DEPLOYMENT / "install.sh").read_text()
    for path in [*UNITS.glob("*.service"), UNITS / "caddy.conf"]:
        unit = path.read_text()
        for settings in re.findall(r"^EnvironmentFile=/etc/coursedub/(.*)$", unit, re.MULTILINE):
            assert f"write_settings {settings} " in script, (path.name, settings)
        for name in re.findall(r"/opt/coursedub/bin/(\w+)", unit):
            assert f"$OPT/bin/{name}" in script, (path.name, name)


def test_units_and_containers_run_the_same(tmp_path: Path) -> None:
    """Commands, but for where they listen, and the settings that are not of a machine."""
    from tests.deployments.test_control_plane import compose

    started = {
        path.stem: match[1].replace("127.0.0.1", "0.0.0.0")
        for path in UNITS.glob("*.service")
        if (match := re.search(r"^ExecStart=/opt/coursedub/(?:control/)?bin/(.*)$", path.read_text(), re.MULTILINE))
    }
    services = compose()["services"]
    assert started["coursedub-prefect"] == " ".join(services["prefect"]["command"])
    assert started["coursedub-control-worker"] == " ".join(services["worker"]["command"])
    assert started["coursedub-deploy"] == " ".join(services["deploy"]["command"])
    assert started["coursedub-watchdog"] in services["watchdog"]["command"][-1]
    worker = (UNITS / "coursedub-control-worker.service").read_text()
    for name in ("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "PREFECT_WORKER_WEBSERVER_HOST", "PREFECT_WORKER_WEBSERVER_PORT"):
        assert f"{name}={services['worker']['environment'][name]}" in worker
    assert services["worker"]["stop_signal"] == "SIGINT" and "KillSignal=SIGINT" in worker


def test_the_watchdog_waits_for_nothing_else() -> None:
    unit = (UNITS / "coursedub-watchdog.service").read_text()
    assert not re.search(r"^(After|Requires|Wants|BindsTo|PartOf)=", unit, re.MULTILINE)
    assert "OnCalendar=minutely" in (UNITS / "coursedub-watchdog.timer").read_text()


def test_the_backup_leaves_postgresqls_shared_memory_alone() -> None:
    """systemd would remove what the user has of it when the unit ends, and the database is the same user's."""
    unit = (UNITS / "coursedub-backup.service").read_text()
    assert "User=postgres" in unit and "RemoveIPC=" not in unit


def test_an_update_restarts_what_runs_the_code_and_deploys_again(installed: BareServer) -> None:
    for file, name, value in (
        ("worker.env", "COURSEDUB_GPU_SERVER", "an-id"),
        ("control.env", "COURSEDUB_TLS", "internal"),
        ("control.env", "LEASES_ADDRESS", "10.0.0.2"),
    ):
        path = installed.path(f"/etc/coursedub/{file}")
        path.write_text(path.read_text().replace(f"{name}=\n", f"{name}={value}\n"))
    installed.path("/run/systemd/system").mkdir(parents=True)
    services = ["coursedub-control-worker", "coursedub-deploy", "coursedub-prefect"]
    timers = ["coursedub-watchdog.timer", "coursedub-backup.timer"]
    installed.path("/played/active").write_text("\n".join([*services, *timers, "caddy", "coursedub-control-plane.target"]) + "\n")
    assert install(installed).code == 0
    installed.calls()
    assert "done, 0 changes" in install(installed).output
    (installed.checkout / "flows" / "more.py").write_text("NEW = 1\n")
    assert install(installed).code == 0
    assert [call.rpartition(" ")[2] for call in installed.calls() if " restart " in call] == services


def test_the_proxys_secrets_do_not_reach_the_journal() -> None:
    unit = (UNITS / "caddy.conf").read_text()
    assert "ExecStart=\n" in unit and "--environ" not in unit
