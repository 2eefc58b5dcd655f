"""A real Nova and Keystone on loopback, with an emulated hypervisor, where the lab with them was lent with the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from blocks.gpu_server import GpuServer
from tests.seaweed import free_ports

ROOT = Path(__file__).parents[1]
LAB = Path(os.environ.get("OPENSTACK_LAB") or ROOT.parent / "shared" / "lab" / "openstack") / "lab.sh"
VENV = Path(os.environ.get("LAB_VENV") or Path(tempfile.gettempdir()) / "coursedub-openstack-lab")  # kept: 450 MB, a minute to make
START_TIMEOUT = 900.0  # seconds: it installs itself when first used


class Lab:
    def __init__(self, folder: Path, keystone: int, nova: int) -> None:
        self.folder, self.nova = folder, nova
        self.environment = {**os.environ, "LAB": str(folder), "KS_PORT": str(keystone), "NOVA_PORT": str(nova), "SEED_ARGS": "--rules"}
        self.environment["LAB_VENV"] = str(VENV)

    def run(self, verb: str) -> subprocess.CompletedProcess[str]:
        # Its servers inherit what it was given: a pipe would stay open as long as they live.
        with (self.folder / "said").open("w+") as said:
            done = subprocess.run([LAB, verb], env=self.environment, stdout=said, stderr=said, timeout=START_TIMEOUT, check=False)
            said.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, said.read(), "")

    def set(self, **knobs: float) -> None:
        httpx.post(f"http://127.0.0.1:{self.nova}/lab/knobs", json=knobs, timeout=60, trust_env=False).raise_for_status()

    def server(self, **settings: Any) -> GpuServer:
        """Through the credential that may touch this one server only."""
        cloud = yaml.safe_load((self.folder / "clouds.yaml").read_text())["clouds"]["lab"]
        secret = yaml.safe_load((self.folder / "secure.yaml").read_text())["clouds"]["lab"]["auth"]
        given: dict[str, Any] = {
            "server_id": json.loads((self.folder / "seed.json").read_text())["server"],
            "region": cloud["region_name"],
            **cloud["auth"],
            **secret,
        }
        return GpuServer(**{**given, **settings})

    def actions(self, server: GpuServer) -> list[str]:
        """Nova's own log of what was done to the server, oldest first."""
        listed = server._get(f"/servers/{server.server_id}/os-instance-actions", "2.51").json()["instanceActions"]
        return [action["action"] for action in sorted(listed, key=lambda action: action["start_time"])]


def why_not(make: bool) -> str:
    """Why there is no lab here; empty: there is one.

    Args:
        make: its environment may be made, which takes a minute and 450 MB.
    """
    if not LAB.exists():
        return "the lab with a real Nova is not lent with this checkout"
    if not VENV.exists() and not make:
        return f"the lab with a real Nova has no environment yet: OPENSTACK_LAB={LAB.parent} makes it (450 MB)"
    return ""


@contextmanager
def nova_lab(folder: Path) -> Iterator[Lab]:
    """
    Raises:
        RuntimeError: it did not start.
    """
    lab = Lab(folder, *free_ports(2))
    try:
        try:
            started = lab.run("up")
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"the lab with a real Nova did not start in {START_TIMEOUT:g} s") from error
        if started.returncode:
            raise RuntimeError(f"the lab with a real Nova did not start: {started.stdout.strip()[-300:]}")
        yield lab
    finally:
        lab.run("down")
