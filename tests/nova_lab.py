"""A real Nova and Keystone on loopback, with an emulated hypervisor, where the lab with them was lent with the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml

from blocks.gpu_server import GpuServer
from dubbing.power import Look
from tests.seaweed import free_ports

ROOT = Path(__file__).parents[1]
LAB = Path(os.environ.get("OPENSTACK_LAB") or ROOT.parent / "shared" / "lab" / "openstack") / "lab.sh"
VENV = Path(os.environ.get("LAB_VENV") or Path(tempfile.gettempdir()) / "coursedub-openstack-lab")  # kept: 450 MB, a minute to make
START_TIMEOUT = 900.0  # seconds: it installs itself when first used
CHANGE_TIMEOUT = 300.0  # seconds until what was asked of it is done: a few, where nobody else needs the machine
QUICK: dict[str, float] = {  # its knobs without faults
    **{"power_off_s": 0.0, "upload_s": 0.2, "destroy_s": 0.0, "spawn_s": 0.2, "http_delay_s": 0.0},
    **dict.fromkeys(("fail_spawn", "fail_snapshot", "http_503", "http_drop", "lose_reply"), 0),
}
_IMAGE = "155d900f-4e14-4e4c-a73d-069cbf4541e6"  # of Nova's own fixtures
_NETWORK = "3cb9bc59-5699-4588-a4b1-b87f96708bc6"


class Action(NamedTuple):
    """In Nova's own log."""

    what: str
    at: float  # seconds since 1970
    by: str  # the user's id
    failed: bool = False  # after it was taken


class Lab:
    def __init__(self, folder: Path, keystone: int, nova: int, settings: dict[str, str]) -> None:
        self.folder, self.keystone, self.nova = folder, keystone, nova
        self.environment = {**os.environ, "LAB": str(folder), "KS_PORT": str(keystone), "NOVA_PORT": str(nova), "SEED_ARGS": "--rules"}
        self.environment |= {"LAB_VENV": str(VENV), **settings}
        self._made: dict[str, str] = {}  # of a server that took the place of the first
        self._client: GpuServer | None = None

    def run(self, verb: str) -> subprocess.CompletedProcess[str]:
        # Its servers inherit what it was given: a pipe would stay open as long as they live.
        with (self.folder / "said").open("w+") as said:
            done = subprocess.run([LAB, verb], env=self.environment, stdout=said, stderr=said, timeout=START_TIMEOUT, check=False)
            said.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, said.read(), "")

    def set(self, **knobs: float) -> None:
        httpx.post(f"http://127.0.0.1:{self.nova}/lab/knobs", json=knobs, timeout=60, trust_env=False).raise_for_status()

    # As its owner, or as the cloud's administrator, where the credential isn't allowed to.

    @cached_property
    def admin(self) -> Any:
        return self._connected("admin", "labpass")

    @cached_property
    def owner(self) -> Any:
        return self._connected("owner", "ownerpass")

    def _connected(self, user: str, password: str) -> Any:
        import openstack

        auth = {"auth_url": f"http://127.0.0.1:{self.keystone}/v3", "username": user, "password": password, "project_name": "lab"}
        auth |= {"user_domain_name": "Default", "project_domain_name": "Default"}
        return openstack.connect(load_yaml_config=False, load_envvars=False, auth=auth, region_name="RegionOne")

    @property
    def server_id(self) -> str:
        return self._made.get("server_id") or str(json.loads((self.folder / "seed.json").read_text())["server"])

    @property
    def settings(self) -> dict[str, Any]:
        """Of a `GpuServer`, with the credential that may touch this one server only."""
        cloud = yaml.safe_load((self.folder / "clouds.yaml").read_text())["clouds"]["lab"]
        secret = yaml.safe_load((self.folder / "secure.yaml").read_text())["clouds"]["lab"]["auth"]
        return {"server_id": self.server_id, "region": cloud["region_name"], **cloud["auth"], **secret, **self._made}

    def server(self, **settings: Any) -> GpuServer:
        return GpuServer(**{**self.settings, **settings})

    def create_server(self, name: str = "gpu-worker") -> Any:
        """One of the flavor of which the place has room for one. It is being built."""
        flavor = next(one for one in self.admin.compute.flavors() if one.name == "gpu.rtx4090")
        self.admin.compute.update_quota_set(self.owner.current_project_id, cores=-1, ram=-1)
        return self.owner.compute.create_server(name=name, flavor_id=flavor.id, image_id=_IMAGE, networks=[{"uuid": _NETWORK}])

    def replace_server(self) -> None:
        """A new one, which is being built, instead of all there are."""
        self.clear()
        self._client = None
        self._made["server_id"] = server = self.create_server().id
        path = f"/v2.1/servers/{server}"
        allowed = [("GET", path), ("POST", f"{path}/action"), ("GET", f"{path}/os-instance-actions")]
        allowed += [("GET", f"{path}/os-instance-actions/**"), ("GET", "/v2.1"), ("GET", "/v2.1/")]
        rules = [{"service": "compute", "method": method, "path": where} for method, where in allowed]
        credential = self.owner.identity.create_application_credential(
            self.owner.current_user_id, server, roles=[{"name": "member"}], access_rules=rules
        )
        self._made |= {"application_credential_id": credential.id, "application_credential_secret": credential.secret}

    def clear(self) -> None:
        """No server at all."""
        compute = self.owner.compute
        for server in list(self.admin.compute.servers()):
            self.admin.compute.unlock_server(server)
            compute.delete_server(server)
        self.wait(lambda: not list(self.owner.compute.servers()))

    def look(self) -> Look:
        """Between two tests, and before what is tested begins."""
        if self._client is None:
            self._client = self.server()
        return self._client.look()

    def begins(self) -> None:
        """No fault, and a server that is up."""
        self.set(**QUICK)
        self.wait(lambda: self.look().state != "shelved")  # Nova's own timer is on its way
        look = self.look()
        if look.state == "shelved_offloaded" and not look.task_state and not look.locked:
            self.admin.compute.unshelve_server(self.server_id)
            self.settles()
            look = self.look()
        if not look.is_up or look.locked:
            self.replace_server()
            self.settles()

    def settles(self) -> None:
        """Nothing is under way."""
        self.wait(lambda: not (look := self.look()).task_state and look.state != "building")

    def wait(self, until: Callable[[], object]) -> None:
        """
        Raises:
            TimeoutError
        """
        end = time.monotonic() + CHANGE_TIMEOUT
        while not until():
            if time.monotonic() > end:
                raise TimeoutError(f"the lab with a real Nova didn't get there in {CHANGE_TIMEOUT:g} s")
            time.sleep(0.1)

    def log(self, server: GpuServer) -> list[Action]:
        """Nova's own log of what was done to the server, oldest first. What it refused isn't in it."""
        listed = server._get(f"/servers/{server.server_id}/os-instance-actions", "2.51").json()["instanceActions"]
        actions = [
            Action(
                one["action"],
                datetime.fromisoformat(one["start_time"]).replace(tzinfo=UTC).timestamp(),
                one["user_id"],
                one["message"] is not None,
            )
            for one in listed
        ]
        return sorted(actions, key=lambda action: action.at)

    def actions(self, server: GpuServer) -> list[str]:
        """What its owner did, and who acts with a credential of the owner's, from its creation to its end."""
        ours = [action.what for action in self.log(server) if action.by == self.owner.current_user_id]
        return [what for what in ours if what not in ("create", "delete")]


def why_not(make: bool) -> str:
    """Why there is no lab here; empty: there is one.

    Args:
        make: its environment may be made, which takes a minute and 450 MB.
    """
    if not LAB.exists():
        return "the lab with a real Nova is not lent with this checkout"
    if not (VENV / "bin" / "openstack-lab-ready").exists() and not make:
        return f"the lab with a real Nova has no environment yet: OPENSTACK_LAB={LAB.parent} makes it (450 MB)"
    return ""


@contextmanager
def nova_lab(folder: Path, **settings: str) -> Iterator[Lab]:
    """
    Args:
        settings: of its environment: LAB_OFFLOAD_TIME, LAB_TOKEN_TTL (seconds).

    Raises:
        RuntimeError: it did not start.
    """
    lab = Lab(folder, *free_ports(2), settings)
    # Its servers would outlive a process that is killed: this one waits until its input is closed, whichever way.
    ends = subprocess.Popen(["sh", "-c", 'read _; exec "$0" down', LAB], env=lab.environment, stdin=subprocess.PIPE, start_new_session=True)
    assert ends.stdin
    try:
        try:
            started = lab.run("up")
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"the lab with a real Nova did not start in {START_TIMEOUT:g} s") from error
        if started.returncode:
            raise RuntimeError(f"the lab with a real Nova did not start: {started.stdout.strip()[-300:]}")
        yield lab
    finally:
        ends.stdin.close()
        ends.wait()
