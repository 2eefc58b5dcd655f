"""All of it on this machine:  python -m tests.stack            to click through, until Ctrl-C  (`make stack`)
                            python -m tests.stack --check    one lesson through the API, and what became of it  (`make test-stack`)

The control plane as its compose file has it (PostgreSQL, Prefect's server, the proxy, a worker), a bucket on SeaweedFS, and a GPU server:
a real Nova where the lab with one was lent with the checkout, else a played one, and a worker of the pool `gpu` that lives while Nova says
that the server is up. Engines are the embedded ones, all of them at work on the "GPU server" and nowhere else.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_SSL_CERT_FILE, PREFECT_API_URL, temporary_settings

from blocks.gpu_server import GpuServer
from blocks.profiles import Profile
from dubbing.errors import CloudDown
from tests.control_plane import USERS, ControlPlane, control_plane, missing
from tests.nova import OFFLOADED, Nova
from tests.nova_lab import Lab, nova_lab, why_not
from tests.prefect_stack import Worker
from tests.seaweed import Seaweed, program, seaweed

ROOT = Path(__file__).parents[1]
PROFILE = "stack"
GRACE = 0.5  # minutes: a person who looks doesn't want to wait for 15
LIMIT = 3600.0  # seconds after which something counts as stuck
ENVIRONMENT = ROOT / ".stack.env"
PLATFORM = "http://127.0.0.1:8000/dubbing/webhook/"  # of `make django`
SERVER = "coursedub-gpu-server/default"  # as `coursedub deploy` saves it


class Stack:
    """What is started; the GPU server follows Nova."""

    def __init__(self, plane: ControlPlane, bucket: Seaweed, nova: Lab | Nova, server: GpuServer, folder: Path) -> None:
        self.plane, self.bucket, self.nova, self.server, self.folder = plane, bucket, nova, server, folder
        self.moments: dict[str, float] = {}  # when something was seen for the first time since `forget`
        self._worker: Worker | None = None
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def forget(self) -> None:
        self.moments = {}

    def stop(self) -> None:
        self._leaving.set()
        self._thread.join()
        if self._worker:
            self._worker.kill_group()

    def _follow(self) -> None:
        """The machine itself: its worker starts with it, and is gone with it."""
        server = self.server.model_copy()  # with a connection of its own
        while not self._leaving.wait(0.5):
            try:
                look = server.look()
            except CloudDown:
                continue
            if look.is_up and self._worker is None:
                self.moments.setdefault("up", time.time())
                home = {"PREFECT_HOME": str(self.folder / "gpu"), "COURSEDUB_WORKING_FOLDER": str(self.folder / "gpu" / "disk")}
                self._worker = Worker(self.plane.api, "gpu", self.folder / "gpu", self.plane.outside(**home))
            elif self._worker and not look.is_up and look.task_state in ("", "shelving", "powering-off"):
                self.moments.setdefault("shelving", time.time())
                self._worker.lose_host()
                self._worker = None
            if look.is_down:
                self.moments.setdefault("down", time.time())
            else:
                self.moments.pop("down", None)

    def write_environment(self) -> None:
        """What `make django` takes: how the platform reaches Prefect and the bucket, and how it is reached."""
        settings = {
            **self.bucket.environment(),
            "PREFECT_API_URL": self.plane.api,
            "PREFECT_API_AUTH_STRING": f"platform:{USERS['platform']}",
            "PREFECT_API_SSL_CERT_FILE": str(self.plane.certificate),
            "COURSEDUB_PUBLISH_TO": "s3://lessons/published",
            "COURSEDUB_WEBHOOK": PLATFORM,
            "COURSEDUB_WEBHOOK_SECRETS": self.plane.environment("worker")["COURSEDUB_WEBHOOK_SECRET"],
        }
        ENVIRONMENT.touch(0o600)
        ENVIRONMENT.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items()))

    def worker_log(self) -> str:
        path = self.folder / "gpu" / "worker.log"
        return path.read_text(errors="replace") if path.exists() else ""


@contextmanager
def stack(log: Any = print) -> Iterator[Stack]:
    """
    Raises:
        RuntimeError: something doesn't start, or isn't installed.
    """
    if lacking := ", ".join(filter(None, [missing(), "" if program() else "weed"])):
        raise RuntimeError(f"not installed here: {lacking}; `make setup` does it")
    with ExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="coursedub-stack-", dir="/tmp", ignore_cleanup_errors=True)))
        folder.chmod(0o755)
        bucket = started.enter_context(seaweed())
        bucket.make_bucket("lessons")
        log("a bucket on SeaweedFS")
        nova, server = _nova(started, folder)
        log(f"a GPU server in {'a real' if isinstance(nova, Lab) else 'a played'} Nova")
        settings = {
            **bucket.environment(),
            **_openstack(server),
            "COURSEDUB_STORE": "s3://lessons/store",
            "COURSEDUB_GPU_SERVER": server.server_id,
            "COURSEDUB_COST_PER_HOUR": "3.6",
            "COURSEDUB_GRACE_MINUTES": str(GRACE),
            "COURSEDUB_HOURS_A_DAY": "10",
            "COURSEDUB_TIMEZONE": "Europe/Berlin",
            "COURSEDUB_WEBHOOK_SECRET": secrets.token_hex(16),
            "COURSEDUB_WORKING_FOLDER": str(folder / "control-disk"),
            "COURSEDUB_WEIGHTS": os.environ.get("COURSEDUB_WEIGHTS", str(Path.home() / ".cache" / "coursedub" / "weights")),
        }
        plane = started.enter_context(control_plane(**settings))
        log(f"PostgreSQL, Prefect's server and its proxy: {plane.api}")
        plane.run("worker", [str(Path(sys.executable).with_name("coursedub")), "deploy"])
        plane.start_worker()
        started.enter_context(_as_client_of(plane))
        Profile(all_on_gpu_server=True).save(PROFILE, overwrite=True)
        _prefer_profile(plane)
        log("deployments, and the worker of the pool control")
        made = Stack(plane, bucket, nova, server, folder)
        made.start()
        started.callback(made.stop)
        yield made


def _nova(started: ExitStack, folder: Path) -> tuple[Lab | Nova, GpuServer]:
    if not why_not(make=True):
        lab_folder = folder / "nova"
        lab_folder.mkdir()
        lab = started.enter_context(nova_lab(lab_folder))
        return lab, lab.server()
    played = started.enter_context(Nova(OFFLOADED))
    return played, GpuServer(**played.settings)


def _openstack(server: GpuServer) -> dict[str, str]:
    """As an operator would set it."""
    return {
        "OS_AUTH_TYPE": "v3applicationcredential",
        "OS_AUTH_URL": server.auth_url,
        "OS_APPLICATION_CREDENTIAL_ID": server.application_credential_id,
        "OS_APPLICATION_CREDENTIAL_SECRET": server.application_credential_secret.get_secret_value(),
        "OS_REGION_NAME": server.region,
    }


@contextmanager
def _as_client_of(plane: ControlPlane) -> Iterator[None]:
    settings = {PREFECT_API_URL: plane.api, PREFECT_API_AUTH_STRING: plane.key, PREFECT_API_SSL_CERT_FILE: str(plane.certificate)}
    with temporary_settings(settings):
        yield


def _prefer_profile(plane: ControlPlane) -> None:
    """The deployment's form starts from engines that work here."""
    with plane.client("anna") as client:
        deployment = client.get("/deployments/name/dub-video/dub-video").raise_for_status().json()
        parameters = {**deployment["parameters"], "profile": PROFILE}
        client.patch(f"/deployments/{deployment['id']}", json={"parameters": parameters}).raise_for_status()


# --- A lesson through the API


def check(made: Stack, lesson: Path, say: Any = print) -> dict[str, Any]:
    """Dub a lesson as the platform would, twice, and see the server woken, shelved, and left alone.

    Raises:
        AssertionError
    """
    _order_down(made)
    _until(lambda: "down" in made.moments, "the server isn't down at the start")
    before = _actions(made)
    made.forget()
    asked = time.time()
    run = _dub(made, lesson)
    state = _end_of(made, run)
    assert state["type"] == "COMPLETED", f"{state}\n{made.worker_log()[-3000:]}\n{made.plane.log('worker')[-3000:]}"
    done = time.time()
    report = json.loads((made.folder / "dubbed" / "report.json").read_text())
    say(f"dubbed {done - asked:.0f} s after it was asked for; {made.moments['up'] - asked:.0f} s until the server was up")
    _until(lambda: "down" in made.moments, "it isn't shelved")
    down = made.moments["down"]
    actions = _actions(made)[len(before) :]
    say(f"shelved {down - done:.0f} s after it was done ({60 * GRACE:.0f} s of grace); Nova was asked to {', '.join(actions)}")
    assert actions == ["unshelve", "shelve"], actions
    state = _end_of(made, _dub(made, lesson))
    assert state["type"] == "COMPLETED", state
    assert _actions(made)[len(before) :] == actions, "a lesson that is finished wakes nobody"
    say("the same again: all cached, the server stays shelved")
    return {
        "until_up": round(made.moments["up"] - asked, 1),
        "until_done": round(done - asked, 1),
        "until_shelved": round(down - done, 1),
        "actions": actions,
        "word_error_rate": report.get("word_error_rate"),
    }


def _dub(made: Stack, lesson: Path) -> str:
    """Start it. Returns the run's id."""
    with made.plane.client("platform") as client:
        deployment = client.get("/deployments/name/dub-video/dub-video").raise_for_status().json()
        parameters = {"source": str(lesson), "output": str(made.folder / "dubbed")}
        made_run = client.post(f"/deployments/{deployment['id']}/create_flow_run", json={"parameters": parameters})
        return str(made_run.raise_for_status().json()["id"])


def _end_of(made: Stack, run: str) -> Mapping[str, Any]:
    state: Mapping[str, Any] = {}

    def ended() -> bool:
        nonlocal state
        with made.plane.client("platform") as client:
            state = client.get(f"/flow_runs/{run}").raise_for_status().json()["state"]
        return state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

    _until(ended, f"run {run} doesn't end", every=1.0)
    return state


def _order_down(made: Stack) -> None:
    """A person has it shelved, as through the UI's form."""
    with made.plane.client("anna") as client:
        deployment = client.get("/deployments/name/keep-gpu-server/keep-gpu-server").raise_for_status().json()
        order = {"parameters": {"order": "down", "person": "anna", "reason": "to begin with"}}
        client.post(f"/deployments/{deployment['id']}/create_flow_run", json=order).raise_for_status()


def _actions(made: Stack) -> list[str]:
    """What Nova was asked to do, by its own log."""
    done = made.nova.actions(made.server) if isinstance(made.nova, Lab) else made.nova.actions
    return [action for action in done if action in ("shelve", "unshelve")]


def _until(true: Any, what: str, every: float = 0.5) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"stuck: {what}")
        time.sleep(every)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="dub a lesson through the API, say what was seen, and end")
    parser.add_argument("--lesson", type=Path, default=ROOT / "samples" / "lesson_ru.mp4")
    options = parser.parse_args()
    try:
        with stack(lambda said: print(f"stack: {said}", flush=True)) as made:
            if options.check:
                print(json.dumps(check(made, options.lesson.absolute(), lambda said: print(f"stack: {said}", flush=True))))
                return
            page = made.plane.api.removesuffix("/api")
            made.write_environment()
            name, password = next(iter(USERS.items()))
            print(f"\nPrefect's UI: {page}  as {name!r} with the password {password!r} (its certificate is of an authority of its own)")
            print(f"Start dub-video with the source {options.lesson.absolute()}, or `make django` beside it. Ctrl-C ends.\n", flush=True)
            try:
                threading.Event().wait()
            finally:
                ENVIRONMENT.unlink(missing_ok=True)
    except (RuntimeError, httpx.HTTPError) as error:
        sys.exit(f"stack: {error}")
    except KeyboardInterrupt:
        print("stack: ended")


if __name__ == "__main__":
    main()
