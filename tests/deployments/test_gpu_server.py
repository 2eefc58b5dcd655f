"""install.sh on a bare server, its systemd units, and the word that a server can serve."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deployments.bare_server import GPU_SERVER, OLLAMA, BareServer, Run, bare_server, ollama_archive, pin_ollama

UNITS = GPU_SERVER / "systemd"
SCRIPTS = ("install.sh", "versions.sh", "drain", "coursedub", "../installing.sh")
SETTINGS = ("services.env", "worker.env", "chatterbox.env")


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[BareServer]:
    with bare_server(tmp_path) as server:
        yield there(server)


class First(NamedTuple):
    """The first runs on a bare server."""

    server: BareServer
    dry: Run
    touched_by_dry: set[str]
    wet: Run


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[First]:
    with bare_server(tmp_path_factory.mktemp("server")) as found:
        server = there(found)
        before = server.touched().keys()
        dry = server.install("--dry-run")
        touched = server.touched().keys() - before
        asked = server.calls()
        assert not any("install" in call for call in asked), asked
        wet = server.install()
        assert wet.code == 0, wet.errors
        server.calls()
        yield First(server, dry, touched, wet)


@pytest.fixture
def installed(first: First, tmp_path: Path) -> Iterator[BareServer]:
    """A server that was set up, of the test's own."""
    with bare_server(tmp_path, origin=first.server) as server:
        yield there(server)


def there(server: BareServer | None) -> BareServer:
    if server is None:
        pytest.skip("a bare server needs root, and a file system that can be layered")
    if 'ID=debian\nVERSION_ID="12"' not in os_release(server) and 'ID=ubuntu\nVERSION_ID="2' not in os_release(server):
        pytest.skip("the script refuses this distribution")
    return server


def os_release(server: BareServer) -> str:
    lines = server.path("/etc/os-release").read_text().splitlines()
    return "\n".join(sorted(line for line in lines if line.startswith(("ID=", "VERSION_ID="))))


def text(server: BareServer, name: str) -> str:
    return server.path(name).read_text()


# --- the script


def test_scripts_pass_shellcheck() -> None:
    program = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("shellcheck is not installed: `make setup` does it")
    done = subprocess.run([program, "--external-sources", *SCRIPTS], cwd=GPU_SERVER, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_help_names_every_option() -> None:
    script = (GPU_SERVER / "install.sh").read_text()
    options = set(re.findall(r"^\s+(--[a-z-]+)(?: \| -h)?\)", script, re.MULTILINE))
    said = subprocess.run([GPU_SERVER / "install.sh", "--help"], capture_output=True, text=True, check=True).stdout
    assert {"--dry-run", "--model", "--help"} <= options
    assert [option for option in options if option not in said] == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--fast"], "no such option"),
        (["--model"], "a name is needed"),
        (["--model", "../../etc/passwd"], "no name of a model"),
        (["--model", "a b; reboot"], "no name of a model"),
    ],
)
def test_wrong_usage_is_refused_in_one_line(options: list[str], reason: str) -> None:
    done = subprocess.run([GPU_SERVER / "install.sh", *options], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert reason in done.stderr


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("/etc/os-release", 'ID=fedora\nVERSION_ID="41"\n', "this is fedora 41, and Ubuntu 22.04 or 24.04 is needed"),
        ("/played/bin/uname", "#!/bin/sh\necho Linux aarch64\n", "Linux on x86_64 is needed"),
        ("/played/checkout/deployments/gpu_server/versions.sh", "DISK_GB=999999\n", "GB are needed"),
        ("/played/bin/id", "#!/bin/sh\necho 1000\n", "as root"),
    ],
)
def test_a_server_that_will_not_do_is_refused_before_anything_is_changed(bare: BareServer, file: str, content: str, reason: str) -> None:
    path = bare.path(file)
    path.unlink(missing_ok=True)
    path.write_text(content)
    path.chmod(0o755)
    before = bare.touched().keys()
    run = bare.install()
    assert (run.code, run.output, run.errors.count("\n")) == (1, "", 1)
    assert reason in run.errors
    assert bare.touched().keys() == before


def test_a_checkout_that_lacks_a_lock_is_refused(bare: BareServer) -> None:
    (bare.checkout / "deployments/gpu_server/tools.lock").unlink()
    run = bare.install()
    assert run.code == 1 and "tools.lock" in run.errors


def test_a_dry_run_says_what_would_be_changed_and_changes_nothing(first: First) -> None:
    assert first.dry.code == 0, first.dry.errors
    assert first.touched_by_dry == set()
    assert first.dry.changes == [*first.wet.changes, first.dry.changes[-1]], "it told each step that then was taken, and that nothing was"
    assert "nothing was changed" in first.dry.changes[-1]


# --- what it leaves


def test_a_second_run_changes_nothing(installed: BareServer) -> None:
    run = installed.install()
    assert run.code == 0 and "done, 0 changes" in run.output
    assert list(installed.touched()) == [], "nothing was made, removed, or as much as opened for writing"


def test_both_environments_hold_their_locks_and_their_project(installed: BareServer) -> None:
    for name, imports in (("pipeline", "something, dubbing, blocks, tasks, flows"), ("chatterbox", "huggingface_hub, chatterbox_service")):
        run = installed.enter(
            f"/opt/coursedub/{name}/bin/python", "-c", f"import sys, {imports}; print(sys.version_info[:2])", PYTHONPATH=""
        )
        assert (run.code, run.output.strip()) == (0, "(3, 11)"), run.errors
    assert installed.enter("/opt/coursedub/pipeline/bin/python", "-c", "import huggingface_hub").code == 1, "they share nothing"
    assert sorted(path.name for path in installed.checkout.iterdir()) == [
        "LICENSE",
        "blocks",
        "deployments",
        "dubbing",
        "flows",
        "pyproject.toml",
        "tasks",
    ], "building left nothing in the checkout"


def test_each_service_has_a_user_of_its_own_and_settings_that_no_other_may_read(installed: BareServer) -> None:
    users = {line.split(":")[0]: line.split(":") for line in text(installed, "/etc/passwd").splitlines()}
    for name in ("coursedub", "coursedub-chatterbox", "coursedub-ollama"):
        assert users[name][5:] == [f"/var/lib/{name}", "/usr/sbin/nologin"]
        facts = installed.path(f"/var/lib/{name}").stat()
        assert (facts.st_mode & 0o777, facts.st_uid) == (0o750, int(users[name][2]))
    owners = {"services.env": "coursedub", "worker.env": "coursedub", "chatterbox.env": "coursedub-chatterbox"}
    for name, owner in owners.items():
        facts = installed.path(f"/etc/coursedub/{name}").stat()
        assert (facts.st_mode & 0o777, facts.st_uid, facts.st_gid) == (0o640, 0, int(users[owner][3])), name


def test_nothing_that_a_service_runs_may_be_written_by_a_service(first: First) -> None:
    places = ("/opt/", "/usr/local/", "/etc/systemd/")
    found = {name: facts for name, facts in first.server.touched().items() if name.startswith(places)}
    assert len(found) > 1000, "the environments are among them"
    assert [name for name, facts in found.items() if facts.st_uid or (facts.st_mode & 0o022 and not stat.S_ISLNK(facts.st_mode))] == []


def test_models_and_weights_are_their_services_own(installed: BareServer) -> None:
    for name, user in {
        "/var/lib/coursedub/weights/htdemucs": "coursedub",
        "/var/lib/coursedub-chatterbox/weights/two.pt": "coursedub-chatterbox",
        "/var/lib/coursedub-ollama/models/manifests/registry.ollama.ai/library/qwen2.5/14b": "coursedub-ollama",
    }.items():
        line = next(line for line in text(installed, "/etc/passwd").splitlines() if line.startswith(f"{user}:"))
        assert installed.path(name).stat().st_uid == int(line.split(":")[2]), name
    assert not Path("/proc", text(installed, "/var/lib/coursedub-ollama/serving").strip()).exists(), "Ollama ran for the fetching alone"


def test_the_weights_of_the_gpu_profile_are_fetched_and_no_others(installed: BareServer) -> None:
    folder = installed.path("/var/lib/coursedub/weights")
    assert sorted(path.name for path in folder.iterdir()) == ["htdemucs", "kokoro", "whisper-large-v3"]
    (folder / "htdemucs").unlink()
    assert installed.install().changes == ["the pipeline's weights"]
    assert "done, 0 changes" in installed.install().output


def test_units_are_enabled_and_the_journal_has_limits(installed: BareServer) -> None:
    assert installed.path("/etc/systemd/system/multi-user.target.wants/coursedub.target").is_symlink()
    for unit in UNITS.glob("coursedub*"):
        assert text(installed, f"/etc/systemd/system/{unit.name}") == unit.read_text()
    assert "SystemMaxUse" in text(installed, "/etc/systemd/journald.conf.d/coursedub.conf")
    assert "RestartMaxDelaySec" in text(installed, "/etc/systemd/system/coursedub-worker.service.d/back-off.conf"), "systemd 255 knows it"


def test_older_systemd_is_not_told_what_it_does_not_know(installed: BareServer) -> None:
    systemctl = installed.path("/played/bin/systemctl")
    systemctl.write_text(systemctl.read_text().replace("systemd 255 (255.4)", "systemd 249 (249.11)"))
    for folder in installed.path("/etc/systemd/system").glob("coursedub-*.d"):
        shutil.rmtree(folder)
    assert "done, 0 changes" in installed.install().output


def test_without_models_they_are_left_to_another_run(installed: BareServer) -> None:
    for folder in ("/var/lib/coursedub/weights", "/var/lib/coursedub-ollama/models", "/var/lib/coursedub-chatterbox/weights"):
        shutil.rmtree(installed.path(folder))
    assert installed.install("--without-models").changes == []
    assert installed.install().changes == ["Ollama's model qwen2.5:14b", "the pipeline's weights", "Chatterbox's weights"]


def test_coursedub_on_the_server_runs_as_the_worker_with_its_settings(installed: BareServer) -> None:
    path = installed.path("/etc/coursedub/worker.env")
    path.write_text(path.read_text() + 'COURSEDUB_STORE="s3://a bucket/$HOME`id`"\n#OLLAMA_HOST=commented\n')
    run = installed.enter("/usr/local/bin/coursedub", "environment")
    assert run.code == 0, run.errors
    user, environment = run.output.split(" ", 1)
    assert f"coursedub:x:{user}:" in text(installed, "/etc/passwd")
    assert "'COURSEDUB_STORE': 's3://a bucket/$HOME`id`'" in environment
    assert "'COURSEDUB_PROFILE': 'gpu'" in environment, "a lesson that names no engines gets this server's"
    assert "'OLLAMA_HOST': '127.0.0.1:11434'" in environment and "'HOME': '/var/lib/coursedub'" in environment


# --- settings


def test_settings_that_a_person_changed_stay(installed: BareServer) -> None:
    path = installed.path("/etc/coursedub/worker.env")
    theirs = path.read_text().replace("PREFECT_API_URL=", "PREFECT_API_URL=https://prefect.example.org/api")
    path.write_text(theirs)
    os.chmod(path, 0o644)
    run = installed.install()
    assert run.code == 0, run.errors
    assert path.read_text() == theirs
    assert path.stat().st_mode & 0o777 == 0o640, "a file with secrets is closed again"
    assert "worker.env was changed" not in run.output, "what the script would write is what it wrote: no news"
    script = installed.checkout / "deployments/gpu_server/install.sh"
    original = script.read_text()
    script.write_text(original.replace("#HF_TOKEN=", "#HF_TOKEN=\n#NEW_SETTING="))
    run = installed.install()
    assert path.read_text() == theirs
    assert "/etc/coursedub/worker.env was changed by hand and stays; the new one is /etc/coursedub/worker.env.new" in run.changes
    assert "NEW_SETTING" in text(installed, "/etc/coursedub/worker.env.new")
    assert "done, 0 changes" in installed.install().output


def test_settings_that_nobody_changed_follow_the_script(installed: BareServer) -> None:
    script = installed.checkout / "deployments/gpu_server/install.sh"
    original = script.read_text()
    script.write_text(original.replace("#CHATTERBOX_MAX_WAITING=16", "#CHATTERBOX_MAX_WAITING=32"))
    assert installed.install().changes[:1] == ["/etc/coursedub/chatterbox.env"]
    assert "=32" in text(installed, "/etc/coursedub/chatterbox.env")


def test_another_model_is_fetched_and_told_to_all(installed: BareServer) -> None:
    run = installed.install("--model", "qwen2.5:32b")
    assert run.code == 0 and "Ollama's model qwen2.5:32b" in run.changes
    assert "COURSEDUB_OLLAMA_MODEL=qwen2.5:32b" in text(installed, "/etc/coursedub/services.env")
    assert "done, 0 changes" in installed.install().output, "it stays the model without being named again"


def test_a_model_that_there_is_none_of_is_told_in_one_line(installed: BareServer) -> None:
    run = installed.install("--model", "nobody")
    assert (run.code, run.errors.count("\n")) == (1, 1)
    assert "could not fetch nobody: Error: file does not exist" in run.errors
    assert not Path("/proc", text(installed, "/var/lib/coursedub-ollama/serving").strip()).exists()


# --- faults


def test_after_a_failure_the_next_run_goes_on(bare: BareServer) -> None:
    bare.path("/played/apt-fails").touch()
    run = bare.install()
    assert run.code == 1 and "apt-get could not install ffmpeg zstd" in run.errors
    bare.path("/played/apt-fails").unlink()
    wheels, away = bare.path("/played/wheels"), bare.path("/played/away")
    wheels.rename(away)
    run = bare.install()
    assert run.code == 1 and "pip could not install" in run.errors
    assert not bare.path("/opt/coursedub/pipeline").exists(), "half an environment is never led to"
    away.rename(wheels)
    run = bare.install()
    assert run.code == 0, run.errors
    assert run.changes[0].startswith("environment pipeline")
    assert "done, 0 changes" in bare.install().output


def test_a_package_that_is_not_the_locked_one_is_refused(bare: BareServer) -> None:
    wheel = next(bare.path("/played/wheels").glob("something-*"))
    wheel.write_bytes(wheel.read_bytes() + b"x")
    run = bare.install()
    assert run.code == 1
    assert not bare.path("/opt/coursedub/pipeline").exists()


@pytest.fixture
def without_ollama(installed: BareServer) -> BareServer:
    installed.path("/opt/coursedub/ollama").unlink()
    shutil.rmtree(installed.path("/opt/coursedub/ollama-1.0"))
    return installed


def test_ollama_goes_on_where_its_download_broke_off(without_ollama: BareServer) -> None:
    archives, kept = without_ollama.archives, without_ollama.path("/var/cache/coursedub")
    archives.break_after = 100_000
    run = without_ollama.install()
    assert run.code == 1 and "run this again to continue" in run.errors
    assert (kept / "ollama-1.0.tar.zst").stat().st_size >= 100_000
    archives.break_after = None
    archives.asked.clear()
    assert without_ollama.install().changes == ["Ollama 1.0", "/opt/coursedub/ollama"]
    assert archives.asked[0].startswith("bytes=") and archives.asked[0] != "bytes=0-"
    assert list(kept.iterdir()) == []


def test_ollama_that_is_not_the_pinned_one_is_not_installed(without_ollama: BareServer) -> None:
    pin_ollama(without_ollama, "1.0", sha256="0" * 64)
    run = without_ollama.install()
    assert run.code == 1 and "is not what versions.sh has pinned" in run.errors
    assert list(without_ollama.path("/opt/coursedub").glob("ollama*")) == []
    assert list(without_ollama.path("/var/cache/coursedub").iterdir()) == []


def test_two_at_once_do_not_meet(installed: BareServer) -> None:
    holder = subprocess.Popen(["chroot", installed.root, "flock", "/var/lib", "sleep", "600"])
    try:
        while subprocess.run(["chroot", installed.root, "flock", "--nonblock", "/var/lib", "true"], check=False).returncode == 0:
            pass
        run = installed.install()
    finally:
        holder.kill()
        holder.wait()
    assert (run.code, run.output) == (1, "") and "another run is under way" in run.errors


def test_where_the_distribution_has_no_python_3_11_uv_brings_it(bare: BareServer) -> None:
    hidden = bare.path("/played/bin/python3.11")
    hidden.write_text("#!/bin/sh\nexit 1\n")  # as a release candidate, which is refused
    hidden.chmod(0o755)
    run = bare.install("--without-models")
    assert run.code == 0, run.errors
    assert "Python 3.11.18" in run.changes
    home = bare.enter("cat", "/opt/coursedub/pipeline/pyvenv.cfg").output
    assert "home = /opt/coursedub/python/cpython-3.11.18-linux-x86_64-gnu/bin" in home
    assert "done, 0 changes" in bare.install("--without-models").output


# --- updates


def test_an_update_goes_into_a_new_environment_and_restarts_what_it_concerns(installed: BareServer) -> None:
    settings = installed.path("/etc/coursedub/worker.env")
    settings.write_text(settings.read_text().replace("PREFECT_API_URL=", "PREFECT_API_URL=https://prefect.example.org/api"))
    installed.path("/run/systemd/system").mkdir(parents=True)
    installed.path("/played/active").write_text("coursedub.target\ncoursedub-worker\ncoursedub-chatterbox\ncoursedub-ollama\n")
    assert installed.install().changes[:1] == ["settings for the services"]
    restarted = [f"systemctl restart --no-block coursedub-{name}" for name in ("chatterbox", "ollama", "worker")]
    assert [call for call in installed.calls() if " restart " in call] == restarted
    assert "done, 0 changes" in installed.install().output
    settings.write_text(settings.read_text() + "COURSEDUB_STORE=s3://bucket/x\n")
    assert installed.install().changes[:2] == ["settings for the services", "restart coursedub-worker"], "those of the worker alone"
    assert "done, 0 changes" in installed.install().output
    installed.calls()
    old = os.readlink(installed.path("/opt/coursedub/pipeline"))
    lock = installed.checkout / "deployments/gpu_server/pipeline.lock"
    lock.write_text("# newer\n" + lock.read_text())
    run = installed.install()
    assert run.code == 0, run.errors
    assert os.readlink(installed.path("/opt/coursedub/pipeline")) != old
    assert not installed.path(old).exists(), "no process uses it"
    assert "systemctl restart --no-block coursedub-worker" in installed.calls()
    (installed.checkout / "deployments/gpu_server/chatterbox/chatterbox_service/more.py").write_text("NEW = 1\n")
    run = installed.install()
    assert [call for call in installed.calls() if " restart " in call] == ["systemctl restart --no-block coursedub-chatterbox"]
    assert installed.enter("/opt/coursedub/chatterbox/bin/python", "-c", "import chatterbox_service.more").code == 0
    archive = ollama_archive(OLLAMA + "# newer\n")
    installed.archives.content = archive
    pin_ollama(installed, "2.0")
    assert installed.install().code == 0
    assert [call for call in installed.calls() if " restart " in call] == ["systemctl restart --no-block coursedub-ollama"]
    assert [path.name for path in installed.path("/opt/coursedub").glob("ollama-*")] == ["ollama-2.0"]


def test_an_environment_in_use_stays_until_nobody_uses_it(installed: BareServer) -> None:
    old = os.readlink(installed.path("/opt/coursedub/ollama"))
    program = installed.path(f"{old}/bin/ollama")
    shutil.copy2(shutil.which("sleep") or "", program)  # one that the kernel maps from there, as it does Ollama's
    lesson = subprocess.Popen(["chroot", installed.root, f"{old}/bin/ollama", "600"])
    try:
        installed.archives.content = ollama_archive(OLLAMA + "# newer\n")
        pin_ollama(installed, "2.0")
        assert installed.install().code == 0
        assert program.exists()
    finally:
        lesson.kill()
        lesson.wait()
    assert installed.install().changes == [f"remove {old}, which nothing uses any more"]
    assert not program.exists()


def test_nothing_is_started_before_prefects_server_is_named(installed: BareServer) -> None:
    installed.path("/run/systemd/system").mkdir(parents=True)
    run = installed.install()
    assert run.code == 0 and "set PREFECT_API_URL in /etc/coursedub/worker.env" in run.output
    assert not [call for call in installed.calls() if " start " in call]
    settings = installed.path("/etc/coursedub/worker.env")
    settings.write_text(settings.read_text().replace("PREFECT_API_URL=", "PREFECT_API_URL=https://prefect.example.org/api"))
    assert installed.install("--no-start").code == 0
    assert not [call for call in installed.calls() if " start " in call]
    assert installed.install().code == 0
    assert "systemctl start --no-block coursedub.target" in installed.calls()


# --- the units


def unit_files() -> list[Path]:
    return sorted([*UNITS.glob("*.service"), *UNITS.glob("*.target")])


def services() -> list[str]:
    return ["coursedub-chatterbox", "coursedub-ollama", "coursedub-worker"]


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    """Also that what they run is where the script puts it: the programs are there, as on a server, and nothing else."""
    installed = "pipeline/bin/coursedub pipeline/bin/prefect chatterbox/bin/python ollama/bin/ollama bin/drain"
    for program in [f"opt/coursedub/{name}" for name in installed.split()] + ["usr/bin/curl"]:
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    shutil.copytree(UNITS, tmp_path / "etc/systemd/system")
    for folder in ("usr/lib/systemd/system", "lib/systemd/system"):
        if Path("/", folder).is_dir():
            shutil.copytree(Path("/", folder), tmp_path / folder, symlinks=True, dirs_exist_ok=True)
    done = analyze("verify", f"--root={tmp_path}", "--man=no", *[f"/etc/systemd/system/{path.name}" for path in unit_files()])
    if "--root" in done.stderr and "unrecognized" in done.stderr:
        pytest.skip("this systemd-analyze can't look into a folder")
    said = [line for line in done.stderr.splitlines() if "coursedub" in line]
    assert (done.returncode, said) == (0, [])


@pytest.mark.parametrize("service", services())
def test_services_are_exposed_to_little(service: str) -> None:
    done = analyze("security", "--offline=yes", "--threshold=25", UNITS / f"{service}.service")
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("service", services())
def test_what_the_work_needs_is_not_forbidden(service: str) -> None:
    unit = (UNITS / f"{service}.service").read_text()
    assert "DeviceAllow=char-nvidia* rw" in unit
    assert "PrivateDevices=yes" not in unit
    assert "MemoryDenyWriteExecute=yes" not in unit, "CUDA compiles as it runs"
    assert "ProcSubset=pid" not in unit, "the driver's facts are in /proc/driver/nvidia"


def test_units_name_only_users_folders_and_settings_that_the_script_makes() -> None:
    script = (GPU_SERVER / "install.sh").read_text()
    for path in unit_files():
        unit = path.read_text()
        for user in re.findall(r"^(?:User|Group|StateDirectory)=(.*)$", unit, re.MULTILINE):
            assert re.search(rf"for name in .*\b{user}\b", script), (path.name, user)
        for settings in re.findall(r"^EnvironmentFile=/etc/coursedub/(.*)$", unit, re.MULTILINE):
            assert f"write_settings {settings} " in script, (path.name, settings)


def test_the_worker_is_last_to_start_and_its_lesson_is_not_cut_short() -> None:
    unit = (UNITS / "coursedub-worker.service").read_text()
    after = re.search(r"^After=(.*)$", unit, re.MULTILINE)
    assert after and {"coursedub-ollama.service", "coursedub-chatterbox.service", "coursedub-gpu.service"} <= set(after[1].split())
    assert "prefect worker start --pool gpu --type process --limit 1" in unit
    assert "KillSignal=SIGINT" in unit and "KillMode=mixed" in unit and "ExecStop=/opt/coursedub/bin/drain" in unit
    target = (UNITS / "coursedub.target").read_text()
    assert [unit for unit in unit_files() if unit.suffix == ".service" and unit.name not in target] == []


# --- the locks


def test_the_pipelines_lock_has_all_that_the_project_and_its_extras_ask_for() -> None:
    """`make -C deployments/gpu_server lock` writes it anew when pyproject.toml has changed."""
    project = tomllib.loads((GPU_SERVER.parents[1] / "pyproject.toml").read_text())
    asked = [*project["project"]["dependencies"], *itertools.chain(*project["project"]["optional-dependencies"].values())]
    asked += [*project["dependency-groups"]["build"], "pip"]
    lock = (GPU_SERVER / "pipeline.lock").read_text()
    locked = {canonicalize_name(name): version for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock, re.MULTILINE)}
    assert [need for need in map(Requirement, asked) if not need.specifier.contains(locked.get(canonicalize_name(need.name), "0"))] == []
    assert all("--hash=sha256:" in pin for pin in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:])


def test_what_is_fetched_from_elsewhere_is_pinned() -> None:
    versions = dict(re.findall(r"^([A-Z0-9_]+)=(\S+)", (GPU_SERVER / "versions.sh").read_text(), re.MULTILINE))
    assert re.fullmatch(r"[0-9a-f]{64}", versions["OLLAMA_SHA256"])
    assert "v$OLLAMA_VERSION/" in versions["OLLAMA_ARCHIVE"] and versions["OLLAMA_ARCHIVE"].startswith("https://")
    assert re.fullmatch(r"3\.11\.\d+", versions["PYTHON_VERSION"])
    assert re.search(r"^uv==\S+ \\\n    --hash=sha256:[0-9a-f]{64}$", (GPU_SERVER / "tools.lock").read_text(), re.MULTILINE)
