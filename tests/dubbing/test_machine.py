"""What is said of a machine: with everything there, with something missing, with something that misbehaves."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dubbing import encoders, machine, weights
from dubbing.machine import Finding

SMI = "NVIDIA GeForce RTX 4090, 24564, 1000, 570.133.20"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all there is of programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def put(folder: Path, name: str, says: str, code: int = 0, errors: str = "") -> None:
    """A program that says something and ends."""
    (folder / f".{name}.out").write_text(says)
    (folder / f".{name}.err").write_text(f"{errors}\n")
    program = folder / name
    program.write_text(
        f'#!/bin/sh\nwhile IFS= read -r line; do echo "$line"; done <{folder}/.{name}.out\n'
        f'while IFS= read -r line; do echo "$line" >&2; done <{folder}/.{name}.err\nexit {code}\n'
    )
    program.chmod(0o755)


@contextmanager
def answering(status: int, body: object) -> Iterator[str]:
    """A service at the address that answers all requests alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def by_name(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


# --- programs


def test_ffmpeg_of_this_machine_does_what_is_asked_of_it() -> None:
    found = by_name(machine.ffmpeg())
    assert [finding for finding in found.values() if finding.stands_in_the_way] == []
    assert found["filter rubberband"].state == "ok"
    assert found["encoder libx264"].detail == "encoded a clip", "no stage encodes a picture, and none is promised"


def test_without_ffmpeg_it_is_said_once_and_how_to_get_it(programs: Path) -> None:
    found = list(machine.ffmpeg())
    assert [(finding.name, finding.state, finding.mend) for finding in found] == [
        ("ffmpeg", "missing", "sudo apt-get install ffmpeg"),
        ("ffprobe", "missing", "sudo apt-get install ffmpeg"),
    ]


def test_an_ffmpeg_that_is_too_old_or_lacks_something_is_told(programs: Path) -> None:
    put(programs, "ffmpeg", "ffmpeg version 3.4.8-0ubuntu0.2 Copyright\n .. aresample  A->A  x\n A.... aac  x\n")
    put(programs, "ffprobe", "", code=127, errors="error while loading shared libraries: libavdevice.so.57")
    found = by_name(machine.ffmpeg())
    assert found["ffmpeg"].state == "broken" and "3.4.8" in found["ffmpeg"].detail
    assert found["ffprobe"].state == "broken" and "libavdevice" in found["ffprobe"].detail
    assert found["filters"].state == "missing" and "ebur128" in found["filters"].detail and "aresample" not in found["filters"].detail
    assert found["sound encoders"].detail == "this ffmpeg lacks pcm_f32le"
    assert not found["filter rubberband"].required and "atempo" in found["filter rubberband"].detail


@pytest.mark.parametrize("version", ["4.4.2-0ubuntu0.22.04.1", "6.1.1-3ubuntu5", "n7.1", "N-118000-g1234abcd", "2026-11-01-git-abc"])
def test_versions_of_ffmpeg_are_understood(programs: Path, version: str) -> None:
    put(programs, "ffmpeg", f"ffmpeg version {version} Copyright (c) 2000-2026\n")
    assert next(machine.ffmpeg()).state == "ok"


# --- encoders


def test_nvenc_counts_only_where_it_encodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """ffmpeg knows NVENC on machines without a GPU, too: being listed is nothing."""
    if machine.gpus()[0]:
        pytest.skip("this machine has a GPU")
    encoders.video_encoder.cache_clear()
    assert encoders.failure_of(encoders.NVENC)
    assert encoders.video_encoder() == encoders.X264


@pytest.mark.parametrize("code", [0, 1])
def test_the_encoder_is_found_once_a_process(programs: Path, code: int) -> None:
    put(
        programs,
        "ffmpeg",
        "",
        code=code,
        errors="[h264_nvenc @ 0x55] OpenEncodeSessionEx failed: out of memory (10)\nError initializing output stream",
    )
    encoders.video_encoder.cache_clear()
    try:
        if code:
            assert encoders.failure_of(encoders.NVENC) == "OpenEncodeSessionEx failed: out of memory (10)"
            with pytest.raises(encoders.BadSetting, match="no picture can be encoded"):
                encoders.video_encoder()
        else:
            assert encoders.video_encoder() == encoders.NVENC
            (programs / "ffmpeg").unlink()
            assert encoders.video_encoder() == encoders.NVENC
    finally:
        encoders.video_encoder.cache_clear()


def test_an_encoder_that_hangs_is_given_up(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (programs / "ffmpeg").write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    (programs / "ffmpeg").chmod(0o755)
    monkeypatch.setattr(encoders, "TRY_TIMEOUT", 0.5)
    assert "gave no picture" in (encoders.failure_of(encoders.NVENC) or "")


# --- the machine


def group(root: Path, path: str, limit: str, used: int, version: int) -> None:
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    folder = root / ("sys/fs/cgroup" if version == 2 else "sys/fs/cgroup/memory") / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, str(used)), strict=True):
        (folder / name).write_text(f"{value}\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:   12000000 kB\n")
    return tmp_path


def test_memory_is_what_the_machine_has(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/\n")
    assert machine.memory(root) == (16_000_000 * 1024, 12_000_000 * 1024)


@pytest.mark.parametrize(("version", "line"), [(2, "0::/service/run"), (1, "5:cpu,memory:/service/run")])
def test_memory_is_what_the_strictest_group_leaves(root: Path, version: int, line: str) -> None:
    (root / "proc/self/cgroup").write_text(f"7:pids:/else\n{line}\n")
    group(root, "service/run", "max" if version == 2 else "9223372036854771712", 5 << 30, version)
    group(root, "service", str(8 << 30), 6 << 30, version)
    assert machine.memory(root) == (8 << 30, 2 << 30)


def test_a_disk_is_judged_where_the_folder_would_be(tmp_path: Path) -> None:
    finding = machine.disk("weights", tmp_path / "not" / "yet" / "there")
    assert str(tmp_path) in finding.detail and "not/yet" not in finding.detail


def test_a_disk_that_is_full_is_told(tmp_path: Path) -> None:
    finding = machine.disk("weights", tmp_path, "export COURSEDUB_WEIGHTS=…", needed=1e18)
    assert (finding.state, finding.mend) == ("broken", "export COURSEDUB_WEIGHTS=…")


@pytest.mark.parametrize(
    ("says", "code", "state", "reason"),
    [
        (SMI, 0, "ok", "RTX 4090, 26 GB, 25 GB free, driver 570.133.20"),
        ("Tesla T4, odd, 15360, 0, 470.1", 0, "broken", "525 or later is needed"),
        ("NVIDIA T400, 2048, 0, 570.1", 0, "broken", "15 GB are needed"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", 9, "missing", "couldn't communicate"),
        ("No devices were found", 0, "missing", "sees no GPU"),
        ("NVIDIA H100, [N/A], [N/A], 570.1", 0, "missing", "sees no GPU"),
    ],
    ids=["fine", "old driver", "small", "no driver behind it", "none", "says nothing"],
)
def test_gpus_are_as_the_driver_says(programs: Path, says: str, code: int, state: str, reason: str) -> None:
    put(programs, "nvidia-smi", f"{says}\n", code)
    (finding,) = machine.gpu(required=True)
    assert finding.state == state and reason in finding.detail
    assert finding.stands_in_the_way == (state != "ok")


def test_without_a_driver_it_is_said_how_to_install_one_where_it_is_needed(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.platform, "freedesktop_os_release", lambda: {"ID": "ubuntu"})
    (needed,), (spare,) = machine.gpu(required=True), machine.gpu(required=False)
    assert needed.stands_in_the_way and "ubuntu-drivers install" in needed.mend
    assert not spare.stands_in_the_way and spare.mend == ""


# --- packages and weights


def test_extras_are_what_the_project_says_of_itself() -> None:
    found = by_name(machine.extras(["ollama"]))
    assert found["extra s3"].state == "ok" and "s3fs" in found["extra s3"].detail
    assert "extra ollama" not in found, "who needs it tells of it"


def test_an_extra_that_nobody_needs_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "version_of", lambda package: "")
    spare = by_name(machine.extras([]))["extra s3"]
    assert spare.state == "missing" and not spare.stands_in_the_way and spare.mend.endswith("-m pip install 'coursedub[s3]'")


def test_a_version_that_an_extra_does_not_take_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "version_of", lambda package: "0.1" if package == "whisperx" else "")
    (wrong,) = machine.wrong_versions("whisperx")
    assert wrong.startswith("whisperx is 0.1, wanted is >=")
    assert machine.wrong_versions("demucs") == [], "what is not installed has no version"


def test_this_program_is_called_as_it_can_be_called_here(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.sys, "executable", str(tmp_path / "python"))
    assert machine.own_command() == "coursedub"
    put(tmp_path, "coursedub", "")
    assert machine.own_command() == str(tmp_path / "coursedub"), "as in an environment that is not activated"
    put(programs, "coursedub", "")
    assert machine.own_command() == "coursedub"


def test_weights_are_told_missing_wrong_or_verified_and_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSEDUB_WEIGHTS", str(tmp_path))
    entry = next(entry for entry in weights.catalogue() if entry.size < 200e6)
    (missing,) = machine.weights_here([entry.name], [entry.name])
    assert missing.stands_in_the_way and missing.mend == f"{machine.own_command()} weights fetch {entry.name}"
    assert list(tmp_path.iterdir()) == [], "looking fetched nothing"
    (tmp_path / entry.name).mkdir()
    for file in entry.files:
        with (tmp_path / entry.name / file.name).open("wb") as out:
            out.truncate(file.size)
    (wrong,) = machine.weights_here([entry.name], [])
    assert wrong.state == "broken" and "SHA-256" in wrong.detail and not wrong.stands_in_the_way
    assert all((tmp_path / entry.name / file.name).exists() for file in entry.files), "looking removed nothing"


# --- services


HEALTHY = {"status": "healthy", "model_loaded": True, "device": "cuda", "vram_used_gb": 3.2}


@pytest.mark.parametrize(
    ("status", "body", "state", "reason"),
    [
        (200, HEALTHY, "ok", "healthy on cuda"),
        (200, HEALTHY | {"device": "cpu"}, "broken", "speaks on the processor"),
        (200, {"status": "loading", "model_loaded": False, "device": None}, "broken", "is being loaded"),
        (200, {"status": "failed", "model_loaded": False, "reason": "no ve.pt\nin the folder"}, "broken", "no ve.pt in the folder"),
        (200, {"hello": "world"}, "broken", "not the Chatterbox service"),
        (200, [1], "broken", "not the Chatterbox service"),
        (502, b"<html>", "missing", "no JSON"),
    ],
    ids=["healthy", "on the processor", "loading", "failed", "another service", "a list", "a proxy"],
)
def test_chatterbox_is_as_healthy_as_it_says(status: int, body: object, state: str, reason: str) -> None:
    with answering(status, body) as address:
        finding = machine.chatterbox(address, on_gpu=True)
    assert (finding.state, reason in finding.detail) == (state, True), finding


def test_chatterbox_on_a_processor_is_enough_where_no_gpu_is_asked_for() -> None:
    with answering(200, HEALTHY | {"device": "cpu"}) as address:
        assert machine.chatterbox(address, on_gpu=False).state == "ok"


@pytest.mark.parametrize(
    ("model", "names", "state"),
    [
        ("qwen2.5:14b", ["llama3:latest", "qwen2.5:14b"], "ok"),
        ("llama3", ["llama3:latest"], "ok"),
        ("qwen2.5:14b", ["qwen2.5:7b"], "missing"),
        ("qwen2.5:14b", [], "missing"),
    ],
)
def test_ollama_has_the_model_or_says_how_to_get_it(programs: Path, model: str, names: list[str], state: str) -> None:
    put(programs, "ollama", "")
    with answering(200, {"models": [{"name": name} for name in names]}) as address:
        finding = machine.ollama(address, model)
    assert finding.state == state
    assert finding.mend == ("" if state == "ok" else f"ollama pull {model}")


def test_where_ollama_is_elsewhere_its_model_is_asked_for_from_here(programs: Path) -> None:
    with answering(200, {"models": []}) as address:
        assert machine.ollama(address, "llama3").mend == f"""curl {address}/api/pull -d '{{"model": "llama3:latest"}}'"""
    assert machine.ollama(address, "llama3").mend == "export OLLAMA_HOST=…"


def test_what_is_not_ollama_is_told() -> None:
    with answering(200, {"models": "none"}) as address:
        assert machine.ollama(address, "m").state == "broken"


def test_a_worker_that_does_not_ask_for_work_is_broken() -> None:
    with answering(503, {"message": "Worker may be unresponsive at this time"}) as address:
        assert machine.worker(address).state == "broken"
    with answering(200, {"message": "OK"}) as address:
        assert machine.worker(address).state == "ok"
    assert machine.worker(address).state == "missing", "nobody answers there any more"


def test_no_finding_holds_a_password() -> None:
    for finding in (
        machine.ollama("http://anna:secret@127.0.0.1:9", "m"),
        machine.chatterbox("http://anna:secret@127.0.0.1:9", on_gpu=True),
        machine.worker("http://anna:secret@127.0.0.1:9"),
    ):
        assert "secret" not in " ".join(map(str, finding)) and "127.0.0.1:9" in finding.detail


def test_an_address_that_is_none_is_a_finding_too() -> None:
    for address in ("", "nonsense", "http://[", "http://127.0.0.1:99999", f"http://127.0.0.1:{os.getpid() % 10}x"):
        assert machine.ollama(address, "m").state == "missing", address
