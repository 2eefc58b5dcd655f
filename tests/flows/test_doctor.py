"""`coursedub doctor`: what it looks at for which profile, what it says, and that it leaves everything as it was."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from blocks.chatterbox import Chatterbox
from blocks.demucs import DemucsSeparator
from blocks.profiles import PROFILES, Profile
from blocks.separation import SpleeterSeparator
from blocks.store import Store
from dubbing import machine, weights
from dubbing.errors import BadSetting
from dubbing.machine import Finding
from flows import command_line, doctor
from flows.doctor import Addresses
from tests.conftest import Bucket
from tests.dubbing.test_machine import HEALTHY, answering, put
from tests.seaweed import Seaweed

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither store, weights nor services of this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("COURSEDUB_STORE", "COURSEDUB_WEIGHTS", "COURSEDUB_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("COURSEDUB_CHATTERBOX", "OLLAMA_HOST", "COURSEDUB_WORKER"):
        monkeypatch.setenv(name, NOWHERE)


@pytest.fixture
def gpu_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What install.sh leaves, as far as doctor looks at it."""
    folder = tmp_path / "server"
    for name in ("coursedub/worker.env", "units/coursedub-ollama.service", "units/coursedub-chatterbox.service", "bin/coursedub"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    monkeypatch.setattr(machine, "SETTINGS", folder / "coursedub")
    monkeypatch.setattr(machine, "UNITS", folder / "units")
    monkeypatch.setattr(machine, "WRAPPER", folder / "bin" / "coursedub")
    return folder


@pytest.fixture
def no_server() -> Iterator[None]:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


def told(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    code = command_line.main(["doctor", "--json", *options])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def named(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(finding for finding in report["findings"] if finding["name"] == name)


# --- the verb


def test_each_finding_has_a_state_a_reason_and_what_mends_it(no_server: None, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = told(capsys)
    assert (code, report["ok"]) == (1, False), "the weights are missing"
    assert {finding["state"] for finding in report["findings"]} <= {"ok", "missing", "broken"}
    for finding in report["findings"]:
        assert finding["detail"] and "\n" not in finding["detail"]
        assert (finding["mend"] != "") >= (finding["state"] == "missing" and finding["required"]), finding
    in_the_way = {finding["name"] for finding in report["findings"] if finding["required"] and finding["state"] != "ok"}
    assert {"whisper-base", "spleeter-2stems", "kokoro-82m-int8"} <= in_the_way
    assert named(report, "whisper-base")["mend"] == f"{machine.own_command()} weights fetch whisper-base"


def test_it_changes_nothing(no_server: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys)
    told(capsys, "--profile", "gpu")
    assert list(tmp_path.iterdir()) == []


def test_nothing_in_the_way_is_exit_code_0(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    spare = Finding("Machine", "GPU", "missing", "none", "", required=False)
    monkeypatch.setattr(doctor, "doctor", lambda *_: iter([Finding("Python", "Python", "ok", "3.11"), spare]))
    code, report = told(capsys)
    assert (code, report["ok"]) == (0, True)
    assert command_line.main(["doctor"]) == 0
    assert "can do without" in capsys.readouterr().out


def test_a_person_reads_what_is_wrong_and_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Finding("Weights", "whisper-[base]", "broken", "not the pinned ones", "coursedub weights fetch whisper-base")
    monkeypatch.setattr(doctor, "doctor", lambda *_: iter([Finding("Python", "Python", "ok", "3.11"), broken]))
    assert command_line.main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert re.search(r"✗ whisper-\[base\] +broken +not the pinned ones", shown)
    assert "→ coursedub weights fetch whisper-base" in shown
    assert "1 thing to mend" in shown


def test_the_gpu_profile_asks_for_the_gpu_its_engines_and_its_services(no_server: None, capsys: pytest.CaptureFixture[str]) -> None:
    _, cpu = told(capsys)
    _, gpu = told(capsys, "--profile", "gpu")
    for name in ("GPU", "Ollama", "Chatterbox"):
        assert (named(cpu, name)["required"], named(gpu, name)["required"]) == (False, True)
    assert "demucs" in named(gpu, "demucs")["detail"] and "whisperx" in named(gpu, "whisperx")["detail"]
    assert named(cpu, "faster-whisper")["topic"] == named(gpu, "whisperx")["topic"] == "Engines"
    assert named(gpu, "Prefect")["state"] == "missing" and "PREFECT_API_URL" in named(gpu, "Prefect")["detail"]


def test_without_a_profile_it_is_the_one_that_runs_have(
    no_server: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COURSEDUB_PROFILE", "gpu")
    assert named(told(capsys)[1], "GPU")["required"]
    assert not named(told(capsys, "--profile", "cpu")[1], "GPU")["required"]


def test_what_a_saved_profile_requires_follows_from_its_engines(prefect_server: None, capsys: pytest.CaptureFixture[str]) -> None:
    DemucsSeparator(device="cpu").save("slow", overwrite=True)
    for name, profile, wanted in (
        ("spoken", Profile(speech="chatterbox"), {"Chatterbox"}),
        ("translated", Profile(translator="ollama", separator="coursedub-demucs/slow"), {"Ollama", "htdemucs"}),
        ("parted", Profile(separator="demucs"), {"GPU", "htdemucs"}),
    ):
        profile.save(name, overwrite=True)
        report = told(capsys, "--profile", name)[1]
        required = {key for key in ("GPU", "Ollama", "Chatterbox", "htdemucs") if named(report, key)["required"]}
        assert required == wanted, name


def test_a_profile_that_there_is_none_of_is_refused_in_one_line(prefect_server: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["doctor", "--profile", "nobodys"]) == BadSetting.exit_code
    with temporary_settings({PREFECT_API_URL: f"{NOWHERE}/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        assert command_line.main(["doctor", "--profile", "nobodys"]) == BadSetting.exit_code
    unknown, unreachable = capsys.readouterr().err.splitlines()
    assert "Prefect has no such block" in unknown and "can't be reached" in unreachable


class Odd(SpleeterSeparator):
    """An engine that needs the extra s3."""

    _block_type_slug = "coursedub-odd"
    engine_name = "odd"
    packages = ("s3fs",)
    extra = "s3"


def test_an_engine_whose_package_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "version_of", lambda package: "")
    (finding,) = doctor._packages([Odd()])
    assert finding.mend == f"{sys.executable} -m pip install 'coursedub[s3]'"
    assert finding.detail == "not installed: s3fs"


def test_an_engine_whose_package_is_of_the_wrong_version_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "wrong_versions", lambda extra: [f"{extra} is 1, wanted is >=2"])
    (finding,) = doctor._packages([Odd()])
    assert (finding.state, finding.detail) == ("broken", "s3 is 1, wanted is >=2")


def test_a_service_has_no_row_that_can_not_fail() -> None:
    assert list(doctor._packages([Chatterbox()])) == []


def test_what_is_missing_is_told_once(
    no_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A package that an engine needs is neither told again as an extra nor as torch; what has no GPU needs no word on torch."""
    version_of = machine.version_of
    monkeypatch.setattr(machine, "version_of", lambda name: "" if name in ("demucs", "whisperx", "torch", "s3fs") else version_of(name))
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for module in ("blocks.s3_store", "blocks.s3_files"):  # other tests have imported them
        monkeypatch.delitem(sys.modules, module, raising=False)
    put(tmp_path, "nvidia-smi", "NVIDIA GeForce RTX 4090, 24564, 1000, 570.133.20\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    report = told(capsys, "--profile", "gpu", "--store", "s3://bucket/x")[1]
    names = {finding["name"] for finding in report["findings"]}
    assert {"demucs", "whisperx", "GPU"} <= names
    assert not {"extra demucs", "extra whisperx", "extra s3", "torch"} & names
    store = named(report, "store")
    assert (store["state"], store["mend"]) == ("missing", f"{sys.executable} -m pip install 'coursedub[s3]'")


def test_cures_are_those_of_the_machine(no_server: None, gpu_server: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = {name: named(told(capsys, "--profile", "gpu")[1], name)["mend"] for name in ("Prefect", "Ollama", "Chatterbox", "htdemucs")}
    assert there == {
        "Prefect": f"sudoedit {gpu_server}/coursedub/worker.env",
        "Ollama": "sudo systemctl restart coursedub-ollama",
        "Chatterbox": "sudo systemctl restart coursedub-chatterbox",
        "htdemucs": "sudo coursedub weights fetch htdemucs",
    }


def test_no_cure_names_what_this_machine_lacks(no_server: None, capsys: pytest.CaptureFixture[str]) -> None:
    if machine.is_gpu_server():
        pytest.skip("this is the GPU server")
    report = told(capsys, "--profile", "gpu")[1]
    served = told(capsys, "--can-serve")[1]
    cures = [finding["mend"] for finding in report["findings"] + served["findings"]]
    assert any("PREFECT_API_URL" in cure for cure in cures)
    assert [cure for cure in cures if "systemctl" in cure or "sudoedit" in cure or cure.startswith(("sudo coursedub", "nvidia-smi"))] == []


@pytest.mark.parametrize("options", [["--wait", "5"], ["--without-worker"]])
def test_options_of_can_serve_are_refused_without_it(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["doctor", *options]) == BadSetting.exit_code
    assert "--can-serve" in capsys.readouterr().err


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "anna:very-secret")
    with temporary_settings({PREFECT_API_URL: "http://anna:very-secret@127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        told_to_machine = told(capsys, "--profile", "gpu", "--store", "s3://anna:very-secret@bucket/x")[1]
        command_line.main(["doctor", "--can-serve"])
    assert "very-secret" not in json.dumps(told_to_machine) + capsys.readouterr().out


@pytest.mark.parametrize("variable", ["OLLAMA_HOST", "COURSEDUB_CHATTERBOX"])
@pytest.mark.parametrize("options", [[], ["--profile", "gpu"], ["--can-serve"]], ids=["cpu", "gpu", "can serve"])
def test_an_address_with_a_secret_in_it_is_refused_by_its_variable(
    variable: str, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "http://anna:very-secret@127.0.0.1:9")
    assert command_line.main(["doctor", *options]) == BadSetting.exit_code
    said = capsys.readouterr()
    assert variable in said.err and len(said.err.splitlines()) == 1 and "very-secret" not in said.out + said.err


# --- the store


def store_finding(address: str) -> Finding:
    return next(finding for finding in doctor._store(address) if finding.name == "store")


def test_a_store_that_is_used_is_written_and_read_and_left_as_it_was(store: Store) -> None:
    store.put_bytes(b"some sound", "audio/wav")
    before = sorted(found.name for found in store.files.found(""))
    assert store_finding(store.where).state == "ok"
    assert sorted(found.name for found in store.files.found("")) == before


def test_a_store_that_is_none_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for address in (str(tmp_path / "file"), "gs://bucket/x", "s3://"):
        finding = store_finding(address)
        assert finding.state == "broken" and finding.mend, address


def test_a_store_that_is_a_block_needs_prefects_server(no_server: None) -> None:
    assert store_finding("coursedub-store/no-such").state == "missing"
    with temporary_settings({PREFECT_API_URL: f"{NOWHERE}/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        finding = store_finding("coursedub-s3-store/no-such")
    assert finding.state == "missing" and "can't be reached" in finding.detail


def test_a_store_that_is_no_block_of_that_server_is_broken(prefect_server: None) -> None:
    finding = store_finding("coursedub-store/no-such")
    assert finding.state == "broken" and "no such block" in finding.detail


def test_a_bucket_is_written_read_and_left_as_it_was(bucket: Bucket, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    finding = store_finding(bucket.address)
    assert finding.state == "ok", finding
    from blocks.s3_store import S3Store

    assert list(S3Store(folder=bucket.address, credentials=bucket.credentials).files.found("")) == []
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    refused = store_finding(bucket.address)
    assert refused.state == "broken" and seaweed.secret_key not in str(refused)


# --- Prefect


def prefect(required: bool = True) -> dict[str, Finding]:
    return {finding.name: finding for finding in doctor._prefect(required)}


def test_prefects_server_and_the_pool_of_the_gpu_server(prefect_server: None) -> None:
    found = prefect()
    assert found["Prefect"].state == "ok"
    assert found["pool gpu"].state == "missing" and found["pool gpu"].mend == "coursedub deploy"
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="gpu", type="process"))
    try:
        assert prefect()["pool gpu"].state == "ok"
    finally:
        with get_client(sync_client=True) as client:
            client.delete_work_pool("gpu")


def test_without_a_server_a_run_starts_its_own(no_server: None) -> None:
    assert prefect(required=False)["Prefect"].state == "ok"
    assert prefect()["Prefect"].stands_in_the_way


@pytest.mark.parametrize(("status", "state", "reason"), [(401, "broken", "refuses"), (404, "broken", "404"), (500, "broken", "500")])
def test_a_server_that_does_not_let_us_in_is_told(status: int, state: str, reason: str) -> None:
    with (
        answering(status, {"exception_message": "Unauthorized"}) as address,
        temporary_settings({PREFECT_API_URL: f"{address}/api", PREFECT_CLIENT_MAX_RETRIES: 0}),
    ):
        finding = prefect()["Prefect"]
    assert (finding.state, reason in finding.detail) == (state, True), finding


def test_a_server_that_is_not_there_is_told() -> None:
    with temporary_settings({PREFECT_API_URL: f"{NOWHERE}/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        assert "nothing answers" in prefect()["Prefect"].detail


# --- whether the server can serve


CUDA = "2.8.0 12.8 True"


def install_played(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Packages, a torch that sees CUDA, and files as large as the weights of the GPU profile."""
    patch.setattr(machine, "version_of", lambda package: "3.9")
    patch.setattr(machine, "wrong_versions", lambda extra: [])
    play_torch(patch, CUDA)
    patch.setenv("COURSEDUB_WEIGHTS", str(folder / "weights"))
    for name in PROFILES["gpu"].engines().weights_names():
        for file in weights.find(name).files:
            path = folder / "weights" / name / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as out:
                out.truncate(file.size)  # takes no room


def play_torch(patch: pytest.MonkeyPatch, says: str) -> None:
    output = machine._output
    patch.setattr(machine, "_output", lambda program, *words: (says, "") if program == sys.executable else output(program, *words))


def faults(folder: Path) -> dict[str, Callable[[pytest.MonkeyPatch], None]]:
    """By the one finding that tells of it, what a server that looked well can lack."""

    def lose_package(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(machine, "version_of", lambda package: "" if package == "demucs" else "3.9")

    return {
        "torch": lambda patch: play_torch(patch, "2.8.0 None False"),
        "demucs": lose_package,
        "weights": lambda patch: patch.setenv("COURSEDUB_WEIGHTS", str(folder / "none")),
        "store": lambda patch: patch.setenv("COURSEDUB_STORE", str(folder / "nvidia-smi")),
        "Ollama": lambda patch: patch.setenv("COURSEDUB_OLLAMA_MODEL", "another"),
    }


def test_weights_count_as_there_when_every_file_is_as_large_as_it_should_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_played(monkeypatch, tmp_path)
    names = PROFILES["gpu"].engines().weights_names()
    assert machine.weights_present(names).state == "ok"
    file = next((tmp_path / "weights" / "whisper-large-v3").glob("*.bin"))
    with file.open("r+b") as out:
        out.truncate(1000)
    found = machine.weights_present(names)
    assert found.state == "missing" and found.mend.endswith("weights fetch whisper-large-v3")


def test_a_server_can_serve_when_nothing_is_missing_and_says_what_is(
    prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "nvidia-smi", "NVIDIA GeForce RTX 4090, 24564, 1000, 570.133.20\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    install_played(monkeypatch, tmp_path)
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="gpu", type="process"))
    try:
        with (
            answering(200, HEALTHY) as chatterbox,
            answering(200, {"models": [{"name": "qwen2.5:14b"}]}) as ollama,
            answering(200, {"message": "OK"}) as worker,
        ):
            monkeypatch.setenv("COURSEDUB_CHATTERBOX", chatterbox)
            monkeypatch.setenv("OLLAMA_HOST", ollama.removeprefix("http://"))  # as Ollama itself has it
            monkeypatch.setenv("COURSEDUB_WORKER", worker)
            assert named(told(capsys, "--can-serve")[1], "worker in pool gpu")["state"] == "missing"
            with get_client(sync_client=True) as client:
                client.send_worker_heartbeat("gpu", doctor.WORKER_NAME, heartbeat_interval_seconds=3600.0)
            code, report = told(capsys, "--can-serve", "--wait", "600")
            assert (code, report["can_serve"]) == (0, True), report
            monkeypatch.setenv("COURSEDUB_WORKER", NOWHERE)
            code, report = told(capsys, "--can-serve")
            assert (code, report["can_serve"], named(report, "worker")["state"]) == (1, False, "missing")
            assert told(capsys, "--can-serve", "--without-worker")[0] == 0
            for name, damage in faults(tmp_path).items():
                with monkeypatch.context() as patch:
                    damage(patch)
                    code, report = told(capsys, "--can-serve", "--without-worker")
                in_the_way = [finding["name"] for finding in report["findings"] if finding["required"] and finding["state"] != "ok"]
                assert (code, in_the_way) == (1, [name])
            assert told(capsys, "--can-serve", "--without-worker")[0] == 0
    finally:
        with get_client(sync_client=True) as client:
            client.delete_work_pool("gpu")


def test_waiting_ends_as_soon_as_nothing_is_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PAUSE", 0.0)
    looks = iter([[Finding("a", "b", "missing", "")], [Finding("a", "b", "broken", "")], [Finding("a", "b", "ok", "")]])
    assert [finding.state for finding in doctor.waited(lambda: next(looks), 600)] == ["ok"]
    assert next(looks, None) is None


def test_waiting_ends_with_what_is_still_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PAUSE", 0.0)
    assert [finding.state for finding in doctor.waited(lambda: [Finding("a", "b", "broken", "")], 0.01)] == ["broken"]


def test_addresses_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "10.0.0.1:11434")
    monkeypatch.setenv("COURSEDUB_OLLAMA_MODEL", "llama3")
    assert Addresses.from_environment()[1:3] == ("http://10.0.0.1:11434", "llama3")
    for name in ("COURSEDUB_CHATTERBOX", "OLLAMA_HOST", "COURSEDUB_WORKER", "COURSEDUB_OLLAMA_MODEL"):
        monkeypatch.delenv(name)
    assert Addresses.from_environment() == Addresses()
