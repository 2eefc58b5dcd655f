"""What is missing on this machine, and whether the GPU server can serve: `coursedub doctor`.

The looks themselves are in `dubbing/machine.py`; here they are chosen by profile, and those are added that need an engine, the store or
Prefect. Nothing is computed or fetched. In the store one small file is written, read and removed again.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import httpx
from prefect.settings import PREFECT_API_URL
from rich.console import Console
from rich.table import Table
from rich.text import Text

from blocks.engine import Engine
from blocks.profiles import Engines, name_of_profile, profile_named
from blocks.store import default_store, open_store
from dubbing import machine, weights
from dubbing.errors import BadSetting, CoursedubError
from dubbing.machine import Finding, State
from dubbing.places import user_cache
from dubbing.services import CHATTERBOX, OLLAMA_MODEL, OLLAMA_PORT, ollama_address, plain_address

WORKER = "http://127.0.0.1:8002"  # the health check of the GPU server's Prefect worker: systemd/coursedub-worker.service
WORKER_NAME = f"gpu-{socket.gethostname()}"
POOL = "gpu"
_START_WORKER = f"prefect worker start --pool {POOL} --type process --name {WORKER_NAME} --with-healthcheck"
STORE_PATIENCE = 10.0  # seconds that a bucket may be out of reach
PAUSE = 2.0  # seconds between two looks while waiting for a server that can serve

_ANOTHER_STORE = "export COURSEDUB_STORE=…"
_BLOCKS = ("coursedub-store/", "coursedub-s3-store/")  # how the address of a store begins that is a block in Prefect
_KEYS = "export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… AWS_ENDPOINT_URL=…"
_MARKS: dict[State, tuple[str, str]] = {"ok": ("✓", "green"), "missing": ("✗", "red"), "broken": ("✗", "red")}
_WIDE = 160  # characters of a report where nobody's terminal says otherwise


class Addresses(NamedTuple):
    """Where the services of the GPU server are."""

    chatterbox: str = CHATTERBOX
    ollama: str = f"http://127.0.0.1:{OLLAMA_PORT}"
    ollama_model: str = OLLAMA_MODEL
    worker: str = WORKER

    @classmethod
    def from_environment(cls) -> Addresses:
        """As the GPU server's /etc/coursedub/worker.env has them.

        Raises:
            BadSetting: what is there is no address.
        """
        try:
            chatterbox = plain_address("COURSEDUB_CHATTERBOX", os.environ.get("COURSEDUB_CHATTERBOX") or CHATTERBOX)
            ollama = ollama_address()
        except ValueError as error:
            raise BadSetting(str(error)) from None
        return cls(
            chatterbox,
            ollama,
            os.environ.get("COURSEDUB_OLLAMA_MODEL") or OLLAMA_MODEL,
            os.environ.get("COURSEDUB_WORKER") or WORKER,
        )


def doctor(profile: str | None, store: str | None, addresses: Addresses) -> Iterator[Finding]:
    """All findings for a machine that shall run the engines of this profile (`blocks.profiles`), in the order that they are told in.

    Raises:
        BadSetting: there is no such profile.
    """
    engines = profile_named(profile).engines()
    chosen, on_gpu = engines.each(), _want_gpu(engines)
    yield machine.python()
    yield from machine.extras({engine.extra for engine in chosen} | ({"s3"} if _in_bucket(store or default_store()) else set()))
    yield from machine.ffmpeg()
    yield from machine.capacity("gpu" if on_gpu else "cpu")
    yield _temporary_disk()
    yield machine.disk("weights", weights.cache_folder(), "export COURSEDUB_WEIGHTS=…")
    yield from _store_disk(store)
    yield from machine.gpu(required=on_gpu)
    if on_gpu:
        yield from _torch()
    yield from _packages(chosen)
    yield from machine.weights_here((entry.name for entry in weights.catalogue()), engines.weights_names())
    yield from _store(store)
    yield from _prefect(required=on_gpu)
    named = {engine.engine_name for engine in chosen}
    yield machine.ollama(addresses.ollama, addresses.ollama_model, required="ollama" in named)
    yield machine.chatterbox(addresses.chatterbox, on_gpu, required="chatterbox" in named)


def can_serve(profile: str | None, store: str | None, addresses: Addresses, without_worker: bool) -> Iterator[Finding]:
    """What has to be so for the GPU server to take a lesson now.

    Args:
        profile: of the lesson; None is COURSEDUB_PROFILE, else `gpu`.
        without_worker: for what starts the worker when all else is ready.

    Raises:
        BadSetting: there is no such profile.
    """
    engines = profile_named(name_of_profile(profile, otherwise="gpu")).engines()
    yield from machine.gpu(required=True)
    yield from _torch()
    yield from _packages(engines.each())
    yield machine.weights_present(engines.weights_names())
    yield _temporary_disk()
    yield machine.disk("files in work", user_cache())
    yield from _store(store)
    yield machine.ollama(addresses.ollama, addresses.ollama_model)
    yield machine.chatterbox(addresses.chatterbox, on_gpu=True)
    if not without_worker:
        yield machine.worker(addresses.worker, _START_WORKER)
    yield from _prefect(required=True, worker="" if without_worker else WORKER_NAME)


def waited(look: Callable[[], Iterable[Finding]], seconds: float) -> list[Finding]:
    """The findings, as soon as nothing stands in the way, or as they are after so many seconds."""
    until = time.monotonic() + seconds
    while True:
        findings = list(look())
        if not any(finding.stands_in_the_way for finding in findings) or time.monotonic() >= until:
            return findings
        time.sleep(PAUSE)


def as_json(findings: Iterable[Finding], verdict: str) -> dict[str, object]:
    """For machines: the verdict under the name that is asked for, and every finding."""
    findings = list(findings)
    return {
        verdict: not any(finding.stands_in_the_way for finding in findings),
        "host": socket.gethostname(),
        "findings": [finding._asdict() for finding in findings],
    }


def show(findings: Iterable[Finding], good: str, bad: str) -> bool:
    """Tell a person, each finding as soon as it is there. Returns whether nothing stands in the way."""
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else _WIDE)
    topic, in_the_way, spare = "", 0, 0
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            console.print(Text(f"\n{topic}", "bold"))
        console.print(_line(finding))
        in_the_way += finding.stands_in_the_way
        spare += finding.state != "ok" and not finding.required
    verdict = (
        Text(f"\n✗ {bad}: {in_the_way} thing{'' if in_the_way == 1 else 's'} to mend", "bold red")
        if in_the_way
        else Text(f"\n✓ {good}", "bold green")
    )
    if spare:
        verdict.append(f" ({spare} more that this profile can do without)", "not bold default dim")
    console.print(verdict)
    return not in_the_way


def _line(finding: Finding) -> Table:
    mark, colour = _MARKS[finding.state] if finding.required or finding.state == "ok" else ("–", "yellow")
    row = Table.grid(padding=(0, 1))
    row.add_column(width=3, justify="right")
    row.add_column(width=26, overflow="fold")
    row.add_column(width=7)
    row.add_column(overflow="fold")
    said = Text(finding.detail)
    if finding.mend:
        said.append(f"\n→ {finding.mend}", "cyan")
    row.add_row(Text(mark, colour), Text(finding.name), Text(finding.state, colour), said)
    return row


# --- What needs more than a look at the machine


def _want_gpu(engines: Engines) -> bool:
    """Whether one of them computes on a GPU here: it is told to, or takes what there is and is made for one, as all on torch are."""
    devices = [(getattr(engine, "device", "cpu"), "torch" in engine.packages) for engine in engines.each()]
    return ("auto", True) in devices or any(device == "cuda" for device, _ in devices)


def _torch() -> Iterator[Finding]:
    """torch on the GPU; where one of both is missing that is told already."""
    if machine.version_of("torch") and machine.gpus()[0]:
        yield machine.torch()


def _packages(engines: Iterable[Engine]) -> Iterator[Finding]:
    """The packages of each engine that needs any."""
    for engine in engines:
        packages = (*engine.packages, *engine.packages_without_effect)
        if not packages:
            continue
        lacking = [package for package in packages if not machine.version_of(package)]
        wrong = machine.wrong_versions(engine.extra)
        if lacking or wrong:
            detail = "; ".join([f"not installed: {', '.join(lacking)}"] * bool(lacking) + wrong)
            mend = machine.install(engine.extra) if engine.extra else "make setup"
            yield Finding("Engines", engine.engine_name, "missing" if lacking else "broken", detail, mend)
        else:
            versions = ", ".join(f"{package} {machine.version_of(package)}" for package in packages)
            yield Finding("Engines", engine.engine_name, "ok", versions)


def _temporary_disk() -> Finding:
    return machine.disk("temporary files", Path(tempfile.gettempdir()), "export TMPDIR=…", machine.TEMPORARY_DISK)


def _in_bucket(address: str) -> bool:
    return address.startswith(("s3://", "coursedub-s3-store/"))


def _store_disk(address: str | None) -> Iterator[Finding]:
    """Room for a store on this machine; a block's is where its files are worked on, which only opening it tells."""
    address = address or default_store()
    if "://" not in address and not address.startswith(_BLOCKS):
        yield machine.disk("the store", Path(address).expanduser(), _ANOTHER_STORE)


def _store(address: str | None) -> Iterator[Finding]:
    """Whether the store can be reached and written."""
    address = address or default_store()
    where = machine.shown(address) if "://" in address else address
    mend = machine.set_here(_KEYS if where.startswith("s3://") else _ANOTHER_STORE)
    in_prefect = where.startswith(_BLOCKS)
    if in_prefect and not PREFECT_API_URL.value():
        yield Finding(
            "Services",
            "store",
            "missing",
            f"{where} is a block in Prefect, and PREFECT_API_URL is not set",
            machine.set_here("export PREFECT_API_URL=…"),
        )
        return
    try:
        store = open_store(address)
        if store.working_files is not None:
            from blocks.s3_store import S3Store

            assert isinstance(store, S3Store)
            folders = {"folder": store.folder, "working_folder": store.working_folder}
            store = S3Store(**folders, credentials=store.credentials, patience=min(store.patience, STORE_PATIENCE))
        else:
            folder = Path(store.where)
            if not folder.exists():  # it is made when first used
                there = next(path for path in folder.parents if path.exists())
                writable = os.access(there, os.W_OK | os.X_OK)
                detail = f"{folder}, made when first used" if writable else f"{folder} can't be made: {there} may not be written"
                yield Finding("Services", "store", "ok" if writable else "broken", detail, "" if writable else _ANOTHER_STORE)
                return
        name, content = f"scratch/doctor-{uuid4().hex}", os.urandom(16)
        try:
            store.files.write(name, content)
            whole = store.files.read(name) == content
        finally:
            with suppress(CoursedubError):
                store.files.remove(name)
    except FileNotFoundError:
        yield Finding("Services", "store", "broken", f"{where}: a file that was just written is not there", mend)
    except CoursedubError as error:
        yield Finding("Services", "store", "broken", str(error), mend)
    except (httpx.HTTPError, RuntimeError):
        if not in_prefect:
            raise
        yield Finding("Services", "store", "missing", f"{where}: Prefect's server, which keeps it, can't be reached", mend)
    except ImportError as error:
        yield Finding("Services", "store", "missing", f"{where}: {error.name} is not installed", machine.install("s3"))
    else:
        state: State = "ok" if whole else "broken"
        yield Finding("Services", "store", state, f"{where}, written and read" if whole else f"{where} gives back other bytes than it took")


def _prefect(required: bool, worker: str = "") -> Iterator[Finding]:
    """Whether Prefect's server takes this machine's word, has the pool that the GPU server works for, and in it the worker of this name."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import WorkerStatus
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    address = PREFECT_API_URL.value()
    if not address:
        if required:
            yield Finding("Services", "Prefect", "missing", "PREFECT_API_URL is not set", machine.set_here("export PREFECT_API_URL=…"))
        else:
            yield Finding("Services", "Prefect", "ok", "no server is set (PREFECT_API_URL): each run starts one of its own", "", False)
        return
    where, mend = machine.shown(address), machine.set_here("prefect config set PREFECT_API_URL=…")
    try:
        with get_client(sync_client=True) as client:
            if failure := client.api_healthcheck():
                raise failure
            version = client.api_version()
            yield Finding("Services", "Prefect", "ok", f"{version}, {where}", "", required)
            if not required:
                return
            pool = client.read_work_pool(POOL)
            yield Finding("Services", f"pool {POOL}", "ok", f"of type {pool.type}" + (", paused" if pool.is_paused else ""))
            # A worker's own health check is content while it starts; the server knows whether it has reached it.
            if worker:
                online = {known.name for known in client.read_workers_for_work_pool(POOL) if known.status == WorkerStatus.ONLINE}
                detail = f"{worker} is {'online' if worker in online else 'not online there'}"
                again = "" if worker in online else machine.restart("coursedub-worker", _START_WORKER)
                yield Finding("Services", f"worker in pool {POOL}", "ok" if worker in online else "missing", detail, again)
    except ObjectNotFound:
        yield Finding("Services", f"pool {POOL}", "missing", f"{where} has none", "coursedub deploy")
    except PrefectHTTPStatusError as error:
        status = error.response.status_code
        why = "refuses what it was told (PREFECT_API_AUTH_STRING, PREFECT_API_KEY)" if status in (401, 403) else f"answers {status}"
        yield Finding("Services", "Prefect", "broken", f"{where} {why}", mend, required)
    except (httpx.HTTPError, httpx.InvalidURL, OSError):
        yield Finding("Services", "Prefect", "missing", f"nothing answers at {where}", mend, required)
