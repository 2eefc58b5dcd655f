"""The Chatterbox service as it is started on the GPU server: `python -m chatterbox_service`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx

from tests.deployments.small_service import PATIENCE, until

FOLDER = Path(__file__).parents[2] / "deployments" / "gpu_server" / "chatterbox"


def test_it_answers_at_once_says_what_it_lacks_and_ends_when_told_to(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"CHATTERBOX_PORT": str(port), "CHATTERBOX_WEIGHTS": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-m", "chatterbox_service"], cwd=FOLDER, env=os.environ | settings, stderr=subprocess.PIPE)

    def health() -> str:
        assert process.poll() is None
        try:
            return str(httpx.get(f"http://127.0.0.1:{port}/health").json()["status"])
        except httpx.TransportError:
            return "not there"

    try:
        until(lambda: health() == "failed")
        reason = httpx.get(f"http://127.0.0.1:{port}/health").json()["reason"]
        assert reason.startswith("weights: no ve.pt, t3_mtl23ls_v2.safetensors, s3gen.pt, grapheme_mtl_merged_expanded_v1.json in")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()


def test_a_port_that_is_taken_is_a_failure() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = {"CHATTERBOX_PORT": str(taken.getsockname()[1]), "CHATTERBOX_WEIGHTS": "/nowhere"}
        done = subprocess.run(
            [sys.executable, "-m", "chatterbox_service"], cwd=FOLDER, env=os.environ | settings, capture_output=True, check=False
        )
    assert done.returncode != 0 and b"address already in use" in done.stderr


def test_importing_the_service_loads_nothing_heavy() -> None:
    heavy = ["torch", "chatterbox", "soxr", "pynvml"]
    program = f"import sys, chatterbox_service.app\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=FOLDER, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
