"""What a machine has of what the pipeline needs: programs, processors, memory, disk, the GPU, packages, and the services beside it.

Every look gives `Finding`s: what is there, or why not, and the command that mends it. Looking changes nothing and installs nothing; no
finding holds a password, and an address is named without the one that may be in it.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import httpx
from packaging.requirements import Requirement

from dubbing import encoders, weights
from dubbing.errors import CoursedubError
from dubbing.processors import memory_limits, usable_processors
from dubbing.services import ollama_tag

State = Literal["ok", "missing", "broken"]

PROJECT = "coursedub"
PYTHON = (3, 11)  # the version that the lock and the tests are for; 3.12 is taken too
FFMPEG = 4  # the major version from which on all that we ask of it is there
# Filters that every lesson goes through, and those whose absence costs something.
FILTERS = ("aresample", "apad", "atrim", "atempo", "ebur128", "scale")
USEFUL_FILTERS = {
    "rubberband": "speech is stretched with atempo, which sounds rougher",
    "loudnorm": "the loudness of other material can't be levelled in one pass",
    "ass": "subtitles can't be drawn into the picture, only added as tracks",
}
SOUND_ENCODERS = ("aac", "pcm_f32le")
PROCESSORS = 2
MEMORY = {
    "cpu": 4e9,
    "gpu": 16e9,
}  # bytes in all: a lesson peaks at 3.6 GB with the embedded engines; on the GPU server three programs share
DISK = 20e9  # bytes: three hours of lesson as voice and background, 48 kHz float, are 8 GB, beside the video, twice
TEMPORARY_DISK = 2e9  # bytes: large files are made where the store is; programs keep a little beside
GPU_MEMORY = 15e9  # bytes: what is sold as 16 GB. The translator's 9 GB are the most that is held at once
DRIVER = 525  # of NVIDIA: the first that runs CUDA 12
# What deployments/gpu_server/install.sh leaves: a cure is told only on a machine that has what it names.
UNITS = Path("/etc/systemd/system")
SETTINGS = Path("/etc/coursedub")
WRAPPER = Path("/usr/local/bin/coursedub")
INSTALL = "sudo deployments/gpu_server/install.sh"
PROGRAM_TIMEOUT = 30.0  # seconds
SERVICE_TIMEOUT = 10.0


class Finding(NamedTuple):
    """One thing that was looked at."""

    topic: str  # what it belongs to: a heading
    name: str
    state: State
    detail: str  # what is there, or why it can't be used; one line
    mend: str = ""  # command that mends it
    required: bool = True

    @property
    def stands_in_the_way(self) -> bool:
        return self.required and self.state != "ok"


# --- Cures


def is_gpu_server() -> bool:
    """Whether install.sh has set this machine up."""
    return SETTINGS.is_dir() and WRAPPER.is_file()


def own_command() -> str:
    """How this program is called here."""
    if is_gpu_server():
        return f"sudo {PROJECT}"
    beside = Path(sys.executable).with_name(PROJECT)
    return PROJECT if shutil.which(PROJECT) or not beside.is_file() else str(beside)


def install(extra: str) -> str:
    """Brings an extra of this project. The GPU server's environment is what its lock says: there it is made anew."""
    return INSTALL if is_gpu_server() else f"{sys.executable} -m pip install '{PROJECT}[{extra}]'"


def set_here(otherwise: str) -> str:
    """Where settings are made: on the GPU server in the file that the worker reads."""
    return f"sudoedit {SETTINGS / 'worker.env'}" if is_gpu_server() else otherwise


def restart(service: str, otherwise: str) -> str:
    """Restarts a service of the GPU server's; what to do otherwise, where systemd knows none of that name."""
    return f"sudo systemctl restart {service}" if (UNITS / f"{service}.service").is_file() else otherwise


# --- Python and its packages


def python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < PYTHON or sys.version_info[:2] >= (3, 13):
        return Finding(
            "Python", "Python", "broken", f"{found}, and 3.11 or 3.12 is needed", "sudo apt-get install python3.11-venv && make setup"
        )
    return Finding("Python", "Python", "ok", f"{found}, {sys.executable}")


def extras(but: Iterable[str]) -> Iterator[Finding]:
    """The optional parts of this project that nobody asked for; whoever needs the others tells of them."""
    declared = _extras()
    if declared is None:
        yield Finding("Python", PROJECT, "missing", "the project is not installed in this environment", "make setup")
        return
    for extra in sorted({*declared} - {*but}):
        lacks = [text for need in declared[extra] if (text := _lack(need))]
        detail = ", ".join(lacks) or ", ".join(f"{need.name} {version_of(need.name)}" for need in declared[extra])
        yield Finding("Python", f"extra {extra}", "missing" if lacks else "ok", detail, install(extra) if lacks else "", False)


def wrong_versions(extra: str) -> list[str]:
    """Of what is installed for an extra, what is not of a version that it asks for."""
    needs = (_extras() or {}).get(extra, [])
    return [text for need in needs if version_of(need.name) and (text := _lack(need))]


def version_of(package: str) -> str:
    """Of an installed package; empty where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _extras() -> dict[str, list[Requirement]] | None:
    """What each extra needs, by the installed project's own account. None where it isn't installed."""
    try:
        needs = [Requirement(line) for line in metadata.requires(PROJECT) or []]
        names = metadata.metadata(PROJECT).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return None
    optional = [need for need in needs if need.marker and not need.marker.evaluate({"extra": ""})]
    return {name: [need for need in optional if need.marker and need.marker.evaluate({"extra": name})] for name in names}


def _lack(need: Requirement) -> str | None:
    found = version_of(need.name)
    if not found:
        return f"{need.name} is not installed"
    return None if need.specifier.contains(found, prereleases=True) else f"{need.name} is {found}, wanted is {need.specifier}"


# --- Programs


def ffmpeg() -> Iterator[Finding]:
    """ffmpeg and ffprobe, the filters and encoders that are asked of them."""
    mend = "sudo apt-get install ffmpeg"
    for program in ("ffmpeg", "ffprobe"):
        said, reason = _output(program, "-version")
        if not said:
            yield Finding("Sound and picture", program, "missing" if not shutil.which(program) else "broken", reason, mend)
            continue
        version = said.split()[2] if said.startswith(f"{program} version ") else "unknown"
        number = re.match(r"n?(\d+)\.", version)  # a build of a day has a date or a hash instead, and is new enough
        if number and int(number[1]) < FFMPEG:
            yield Finding("Sound and picture", program, "broken", f"{version}, and {FFMPEG} or later is needed", mend)
        else:
            yield Finding("Sound and picture", program, "ok", version)
    listed, _ = _output("ffmpeg", "-hide_banner", "-filters")
    filters = {line.split()[1] for line in listed.splitlines() if len(line.split()) > 2}
    lacking = [name for name in FILTERS if name not in filters]
    if listed:
        detail = f"this ffmpeg lacks {', '.join(lacking)}" if lacking else ", ".join(FILTERS)
        yield Finding("Sound and picture", "filters", "missing" if lacking else "ok", detail, mend if lacking else "")
        for name, cost in USEFUL_FILTERS.items():
            found = name in filters
            detail = "there" if found else f"this ffmpeg lacks it: {cost}"
            yield Finding(
                "Sound and picture", f"filter {name}", "ok" if found else "missing", detail, "" if found else mend, required=False
            )
        coders, _ = _output("ffmpeg", "-hide_banner", "-encoders")
        known = {line.split()[1] for line in coders.splitlines() if len(line.split()) > 2}
        lacking = [name for name in SOUND_ENCODERS if name not in known]
        detail = f"this ffmpeg lacks {', '.join(lacking)}" if lacking else ", ".join(SOUND_ENCODERS)
        yield Finding("Sound and picture", "sound encoders", "missing" if lacking else "ok", detail, mend if lacking else "")
        yield from _picture_encoders(mend)


def _picture_encoders(mend: str) -> Iterator[Finding]:
    """Each is tried with a small clip. One of them has to work."""
    no_nvenc, no_x264 = encoders.failure_of(encoders.NVENC), encoders.failure_of(encoders.X264)
    detail = no_nvenc or "encoded a clip"
    yield Finding("Sound and picture", f"encoder {encoders.NVENC}", "missing" if no_nvenc else "ok", detail, required=False)
    detail = no_x264 or "encoded a clip"
    yield Finding(
        *("Sound and picture", f"encoder {encoders.X264}", "missing" if no_x264 else "ok", detail, mend if no_x264 else ""),
        required=no_nvenc is not None,
    )


def _output(program: str, *arguments: str) -> tuple[str, str]:
    """What a program says, or nothing and why."""
    try:
        done = subprocess.run([program, *arguments], capture_output=True, timeout=PROGRAM_TIMEOUT, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        return "", "not installed"
    except OSError as error:
        return "", f"can't be run ({error.strerror})"
    except subprocess.TimeoutExpired:
        return "", f"gave no answer in {PROGRAM_TIMEOUT:.0f} s"
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        lines = (done.stderr.decode("utf-8", "replace") + said).strip().splitlines()
        return "", lines[-1].strip() if lines else f"ended with {done.returncode} and said nothing"
    return said, ""


# --- The machine


class Memory(NamedTuple):
    total: int  # bytes that this process may have with all others under the same limit
    free: int


def memory(root: Path = Path("/")) -> Memory:
    """The machine's memory, or the smallest limit of the control groups that this process is in.

    Args:
        root: where /proc and /sys are.
    """
    known = dict(re.findall(r"^(\w+):\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE))
    total, free = int(known["MemTotal"]) * 1024, int(known["MemAvailable"]) * 1024
    for limit, used, cache in memory_limits(root):
        total, free = min(total, limit), min(free, max(0, limit - max(0, used - cache)))
    return Memory(total, free)


def capacity(profile: str) -> Iterator[Finding]:
    """Processors and memory."""
    processors = usable_processors()
    enough = processors >= PROCESSORS
    detail = f"{processors} that may be used" + ("" if enough else f", and {PROCESSORS} are needed")
    yield Finding("Machine", "processors", "ok" if enough else "broken", detail, required=False)
    found, needed = memory(), MEMORY[profile]
    detail = f"{found.total / 1e9:.1f} GB, {found.free / 1e9:.1f} GB free"
    if found.total < needed:
        yield Finding("Machine", "memory", "broken", f"{detail}, and {needed / 1e9:.0f} GB are needed")
    else:
        yield Finding("Machine", "memory", "ok", detail)


def disk(name: str, folder: Path, mend: str = "", needed: float = DISK) -> Finding:
    """Room where the pipeline writes; of a folder that isn't there yet, where it would be."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding("Machine", f"disk for {name}", "broken", f"{there}: {error.strerror}")
    detail = f"{free / 1e9:.0f} GB free at {there}"
    if free < needed:
        return Finding("Machine", f"disk for {name}", "broken", f"{detail}, and {needed / 1e9:.0f} GB are needed", mend)
    return Finding("Machine", f"disk for {name}", "ok", detail)


class Gpu(NamedTuple):
    name: str
    memory: int  # bytes in all
    free: int
    driver: str


def gpus() -> tuple[list[Gpu], str]:
    """What NVIDIA's driver says of the GPUs, or why there are none."""
    fields = "name,memory.total,memory.used,driver_version"
    said, reason = _output("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits")
    found = []
    for line in said.splitlines():
        parts = [part.strip() for part in line.rsplit(",", 3)]
        if len(parts) == 4 and parts[1].isdecimal() and parts[2].isdecimal():
            total, used = (int(part) * 2**20 for part in parts[1:3])
            found.append(Gpu(parts[0], total, total - used, parts[3]))
    if not found:
        return [], "NVIDIA's driver is not installed (no nvidia-smi)" if reason == "not installed" else reason or "the driver sees no GPU"
    return found, ""


def gpu(required: bool) -> Iterator[Finding]:
    """The GPUs and their driver; required where the profile is for them."""
    install = _driver_from()
    found, reason = gpus()
    if not found:
        yield Finding("Machine", "GPU", "missing", reason, install if required else "", required)
    for one in found:
        detail = f"{one.name}, {one.memory / 1e9:.0f} GB, {one.free / 1e9:.0f} GB free, driver {one.driver}"
        major = one.driver.partition(".")[0]
        if major.isdecimal() and int(major) < DRIVER:
            yield Finding("Machine", "GPU", "broken", f"{detail}: {DRIVER} or later is needed", install, required)
        elif one.memory < GPU_MEMORY:
            yield Finding("Machine", "GPU", "broken", f"{detail}: {GPU_MEMORY / 1e9:.0f} GB are needed", "", required)
        else:
            yield Finding("Machine", "GPU", "ok", detail, "", required)


def _driver_from() -> str:
    """Installs NVIDIA's driver, by the distribution's own way."""
    try:
        distribution = platform.freedesktop_os_release().get("ID", "")
    except OSError:
        distribution = ""
    if distribution == "debian":
        return "sudo apt-get install nvidia-driver && sudo reboot"  # of its section non-free
    if distribution == "ubuntu":
        return "sudo apt-get install ubuntu-drivers-common && sudo ubuntu-drivers install --gpgpu && sudo reboot"
    return ""


def torch() -> Finding:
    """Whether torch, which is installed, can compute on the GPU, which the driver's word alone doesn't promise."""
    again = INSTALL if is_gpu_server() else f"{sys.executable} -m pip install --force-reinstall torch"
    look = "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())"
    said, reason = _output(sys.executable, "-c", look)  # in a process of its own: what it takes of the GPU goes with it
    if not said:
        return Finding("Machine", "torch", "broken", reason, again)
    version, cuda, available = said.split()
    if available != "True":
        alone = cuda == "None"
        why = "it is built for the processor alone" if alone else f"CUDA {cuda} is not available to it"
        return Finding("Machine", "torch", "broken", f"{version}: {why}", again if alone else _driver_from())
    return Finding("Machine", "torch", "ok", f"{version}, CUDA {cuda}")


# --- Weights


def weights_here(names: Iterable[str], required: Iterable[str]) -> Iterator[Finding]:
    """Whether the weights are there and the pinned ones."""
    required = set(required)
    for name in names:
        entry = weights.find(name)
        fetch = f"{own_command()} weights fetch {name}"
        if not weights.is_present(name):
            detail = f"{entry.size / 1e6:.0f} MB, fetched when first used"
            yield Finding("Weights", name, "missing", detail, fetch, name in required)
            continue
        try:
            folder = weights.verify(name)
        except CoursedubError as error:
            yield Finding("Weights", name, "broken", str(error), fetch, name in required)
        except OSError as error:
            yield Finding("Weights", name, "broken", f"{error.filename}: {error.strerror}", "", name in required)
        else:
            yield Finding("Weights", name, "ok", f"verified, {folder}", "", name in required)


def weights_present(names: Iterable[str]) -> Finding:
    """Whether these weights are there, by their sizes alone: reading gigabytes takes long, and who loads them verifies them."""
    names = list(names)
    if lacking := [name for name in names if not weights.is_present(name)]:
        fetch = f"{own_command()} weights fetch {' '.join(lacking)}"
        return Finding("Weights", "weights", "missing", f"not here, or cut off: {', '.join(lacking)}", fetch)
    return Finding("Weights", "weights", "ok", ", ".join(names) or "none are needed")


# --- Services


def shown(address: str) -> str:
    """An address without the name and the password that may be in it.

    >>> shown("https://anna:secret@example.org:4200/api?key=x")
    'https://example.org:4200/api'
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        return "an address that is none"
    where = f"{parts.netloc.rpartition('@')[2]}{parts.path}"
    return f"{parts.scheme}://{where}" if parts.scheme else where


class _Unreachable(Exception):
    """A service gave no answer that can be read; the message says why."""


def _ask(address: str) -> tuple[int, Any]:
    """Status and JSON answer of a service on this machine or beside it."""
    try:
        with httpx.Client(timeout=SERVICE_TIMEOUT, trust_env=False) as client:
            answer = client.get(address)
    except httpx.TimeoutException:
        raise _Unreachable(f"{shown(address)} gave no answer in {SERVICE_TIMEOUT:.0f} s") from None
    except (httpx.TransportError, httpx.InvalidURL):
        raise _Unreachable(f"nothing answers at {shown(address)}") from None
    try:
        return answer.status_code, answer.json()
    except ValueError:
        raise _Unreachable(f"{shown(address)} answers {answer.status_code}, and no JSON") from None


def chatterbox(address: str, on_gpu: bool, required: bool = True) -> Finding:
    """Whether the Chatterbox service at this address can speak."""
    name, again = "Chatterbox", restart("coursedub-chatterbox", "export COURSEDUB_CHATTERBOX=…") if required else ""
    try:
        status, health = _ask(f"{address.rstrip('/')}/health")
    except _Unreachable as error:
        return Finding("Services", name, "missing", str(error), again, required)
    if status != 200 or not isinstance(health, dict) or "status" not in health:
        return Finding("Services", name, "broken", f"what answers at {shown(address)} is not the Chatterbox service", again, required)
    if health["status"] == "loading":
        return Finding(
            "Services",
            name,
            "broken",
            "the model is being loaded",
            f"{own_command()} doctor --can-serve --wait 300" if is_gpu_server() else "",
            required,
        )
    if health["status"] != "healthy" or not health.get("model_loaded"):
        reason = " ".join(str(health.get("reason") or "the model is not loaded").split())
        return Finding("Services", name, "broken", reason, again, required)
    if on_gpu and health.get("device") == "cpu":
        return Finding("Services", name, "broken", "it speaks on the processor: the GPU was not there when it started", again, required)
    return Finding("Services", name, "ok", f"healthy on {health.get('device')}, {shown(address)}", "", required)


def ollama(address: str, model: str, required: bool = True) -> Finding:
    """Whether Ollama is there and has the model."""
    here = "ollama serve" if shutil.which("ollama") else "export OLLAMA_HOST=…"
    again = restart("coursedub-ollama", here) if required else ""
    try:
        status, tags = _ask(f"{address.rstrip('/')}/api/tags")
    except _Unreachable as error:
        return Finding("Services", "Ollama", "missing", str(error), again, required)
    if status != 200 or not isinstance(tags, dict) or not isinstance(tags.get("models"), list):
        return Finding("Services", "Ollama", "broken", f"what answers at {shown(address)} is not Ollama", again, required)
    wanted = ollama_tag(model)
    if wanted not in {entry.get("name") for entry in tags["models"] if isinstance(entry, dict)}:
        # The GPU server's own reaches nothing but that machine: the script fetches for it.
        pull = f"ollama pull {wanted}" if shutil.which("ollama") else f'curl {shown(address)}/api/pull -d \'{{"model": "{wanted}"}}\''
        fetch = f"{INSTALL} --model {wanted}" if (UNITS / "coursedub-ollama.service").is_file() else pull
        return Finding("Services", "Ollama", "missing", f"{shown(address)} has no model {wanted}", fetch, required)
    return Finding("Services", "Ollama", "ok", f"{wanted}, {shown(address)}", "", required)


def worker(address: str, start: str = "") -> Finding:
    """Whether the Prefect worker of this machine lives and asks for work (its own health check, `--with-healthcheck`).

    Args:
        start: command that starts it where it is no service.
    """
    again = restart("coursedub-worker", start)
    try:
        status, _ = _ask(f"{address.rstrip('/')}/health")
    except _Unreachable as error:
        return Finding("Services", "worker", "missing", str(error), again)
    if status != 200:
        return Finding("Services", "worker", "broken", f"it has not asked for work for a while ({shown(address)} answers {status})", again)
    return Finding("Services", "worker", "ok", f"asks for work, {shown(address)}")
