"""Where results are kept: one Prefect block on a local folder, or on a bucket (`blocks.s3_store`) with the same layout.

- `blobs/ab/<sha256>`: files by content, immutable, written whole or not at all, hashed when read.
- `records/<stage>/v<version>/<key>` and `lines/<stage>/v<version>/<key>`: small JSON that points at blobs. A record carries a checksum over
  its name and content, so a truncated, altered or misplaced record can't be read.
- `packs/`: the line records that a lesson's stage used last, in one file: a shortcut past a thousand small reads. The mix's encoded pieces
  have no other record: without their pack they are encoded again.
- `lessons/`, `figures`: what runs did and what they took. `edits/`: what reviewers changed: the one thing here that no rerun brings back.
- `claims/`: who computes what just now (`blocks.claims`). `scratch/`: work in hand.

What can't be read is a cache miss, never an error and never a wrong result. A record is believed without a look at its blobs: a blob counts
when it is opened. One that turns out missing or damaged raises `BlobDamaged`, after which records that point at it are misses too, so that
a replay makes exactly what is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.filesystems import WritableFileSystem
from pydantic import BaseModel, Field, PrivateAttr

from blocks.claims import LEASE, Claims
from blocks.files import Files, LocalFiles
from dubbing.errors import BadSetting, BlobDamaged, StoreFailed
from dubbing.lesson import Artifact
from dubbing.places import user_cache

_COPY_BLOCK = 1 << 20  # bytes
_LOOKS = 2  # at a bucket's file before it counts as damaged: a bit may have been flipped on the way


class Store(WritableFileSystem):
    """A folder of blobs and records. Also a Prefect result storage: stages' results are records like any other."""

    _block_type_name = "Coursedub store"
    _block_type_slug = "coursedub-store"

    folder: str = Field(description="A local folder. Made when it is not there.")
    lease: float = Field(default=LEASE, gt=0, description="Seconds that a run which vanished from another machine may delay the others.")

    _files: Files = PrivateAttr()
    _disk: LocalFiles = PrivateAttr()  # where blobs are opened: the store itself, or a bucket's working folder
    _claims: Claims = PrivateAttr()
    _checked: dict[str, tuple[int, int]] = PrivateAttr(default_factory=dict)  # digest -> size and mtime when it was hashed
    _gone: set[str] = PrivateAttr(default_factory=set)  # digests of blobs that were found missing or damaged
    _read_ahead: dict[str, bytes] = PrivateAttr(default_factory=dict)  # records that Prefect asks for twice
    _failures: dict[str, Exception] = PrivateAttr(default_factory=dict)  # of Prefect's reads and writes, which it keeps to itself
    _waiting: Callable[[str], None] | None = PrivateAttr(default=None)  # no function: pydantic would make it a method, for good

    def block_initialization(self) -> None:
        if "://" in self.folder:
            raise BadSetting(f"store {self.folder}: this block is for local folders; a bucket is s3://…")
        self._use(disk := LocalFiles(Path(os.path.abspath(os.path.expanduser(self.folder)))), disk)

    def _use(self, files: Files, disk: LocalFiles) -> None:
        self._files, self._disk = files, disk
        _disks.add(disk.root)
        self._claims = Claims(files, self.lease)

    @property
    def files(self) -> Files:
        """All files, for what looks at the store as a whole: copying, cleaning, checking."""
        return self._files

    @property
    def working_files(self) -> Files | None:
        """Of a bucket, the copies on this machine's disk, which can go any time; None where blobs are opened in the store itself."""
        return None if self._files is self._disk else self._disk

    @property
    def where(self) -> str:
        return self._files.where

    def while_waiting(self, tell: Callable[[str], None]) -> None:
        """`tell` is called with a record's name again and again while another run computes it. What it raises ends the wait."""
        self._waiting = tell

    def close(self) -> None:
        """Give back what this process holds of the store."""
        self._claims.release_all()

    # --- blobs

    def put_file(self, path: Path, media_type: str) -> Artifact:
        """Take a finished file into the store. The file itself may be moved away.

        Raises:
            StoreFailed: the disk is full, the folder can't be written, the bucket can't be reached.
        """
        artifact = Artifact(sha256=file_digest(path), size=path.stat().st_size, media_type=media_type)
        if self._files is self._disk:
            if self._is_sound_here(artifact):
                path.unlink()
            else:
                self._disk.move_in(path, artifact.address)
        else:
            if self._files.size(artifact.address) != artifact.size or artifact.sha256 in self._gone:
                self._files.upload(path, artifact.address)
            self._disk.move_in(path, artifact.address)
        self._gone.discard(artifact.sha256)
        return artifact

    def put_bytes(self, content: bytes, media_type: str) -> Artifact:
        with self.scratch() as folder:
            (folder / "content").write_bytes(content)
            return self.put_file(folder / "content", media_type)

    def put_copy(self, path: Path, media_type: str) -> Artifact:
        """Like `put_file` for a file that stays where it is."""
        with self.scratch() as folder:
            shutil.copyfile(path, folder / "copy")
            return self.put_file(folder / "copy", media_type)

    def path_of(self, artifact: Artifact) -> Path:
        """A local path with the blob's content, hashed on its first use by this process and whenever the file has changed since.

        Raises:
            BlobDamaged: the blob is gone or is not what its digest says. It has been removed, so that whoever made it makes it again.
            StoreFailed
        """
        if not self._is_sound_here(artifact):
            self._bring(artifact)
        return self._disk.path(artifact.address)

    def read_bytes(self, artifact: Artifact) -> bytes:
        return self.path_of(artifact).read_bytes()

    def fetch(self, artifacts: Iterable[Artifact]) -> None:
        """Have all these blobs on the local disk, several on their way at once.

        Raises:
            BlobDamaged: naming all that are gone or damaged.
            StoreFailed
        """
        lost = [sha256 for lost in self._files.each(self._lost, dict.fromkeys(artifacts)) for sha256 in lost]
        if lost:
            raise BlobDamaged(lost, "can't be read")

    def _lost(self, artifact: Artifact) -> list[str]:
        try:
            self.path_of(artifact)
        except BlobDamaged as damaged:
            return list(damaged.sha256s)
        return []

    def vanished(self, artifacts: Iterable[Artifact]) -> list[Artifact]:
        """Those of the blobs whose files this process was given, and that are no longer on the disk."""
        opened = [artifact for artifact in dict.fromkeys(artifacts) if artifact.sha256 in self._checked]
        return [artifact for artifact in opened if self._disk.size(artifact.address) is None]

    def missing(self, artifacts: Iterable[Artifact]) -> list[Artifact]:
        """Those of the blobs that are not there with their size. Reads and writes nothing."""
        wanted = list(dict.fromkeys(artifacts))
        sizes = self._files.each(lambda artifact: self._files.size(artifact.address), wanted)
        return [artifact for artifact, size in zip(wanted, sizes, strict=True) if size != artifact.size]

    def distrust(self, sha256s: Iterable[str]) -> None:
        """Take records that point at these blobs for misses from now on."""
        self._gone |= set(sha256s)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A temporary folder on the disk where blobs lie, so that what is finished in it can be moved into place at once."""
        with self._disk.errors():
            (self._disk.root / "scratch").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._disk.root / "scratch", prefix=f"{os.getpid()}-") as folder:
                try:
                    yield Path(folder)
                except Exception as error:
                    # Libraries and programs that write here have words of their own for a full disk, or none.
                    if isinstance(error, OSError | StoreFailed) or shutil.disk_usage(folder).free > _COPY_BLOCK:
                        raise
                    raise StoreFailed(f"store {self._disk.where}: no space left on the disk") from error

    def _is_sound_here(self, artifact: Artifact) -> bool:
        """Whether the disk has the blob; what is there and isn't the blob is removed."""
        path = self._disk.path(artifact.address)
        try:
            facts = path.stat()
        except OSError:
            return False
        if not stat.S_ISREG(facts.st_mode):
            self._gone.add(artifact.sha256)
            return False
        state = (facts.st_size, facts.st_mtime_ns)
        if self._checked.get(artifact.sha256) != state:
            if facts.st_size != artifact.size or file_digest(path) != artifact.sha256:
                path.unlink(missing_ok=True)
                self._gone.add(artifact.sha256)
                return False
            self._checked[artifact.sha256] = state
        return True

    def _bring(self, artifact: Artifact) -> None:
        """Copy a blob from the bucket to the disk."""
        lost = artifact.sha256 in self._gone
        self._gone.add(artifact.sha256)
        if self._files is self._disk:
            raise BlobDamaged([artifact.sha256], "is not what its digest says" if lost else "is missing")
        temporary = self._disk.temporary()
        try:
            for _ in range(_LOOKS):
                with self._disk.errors():
                    try:
                        self._files.download(artifact.address, temporary)
                    except FileNotFoundError:
                        raise BlobDamaged([artifact.sha256], "is missing") from None
                if temporary.stat().st_size == artifact.size and file_digest(temporary) == artifact.sha256:
                    self._disk.move_in(temporary, artifact.address)
                    self._gone.discard(artifact.sha256)
                    return
            self._files.remove(artifact.address)
            raise BlobDamaged([artifact.sha256], "is not what its digest says")
        finally:
            temporary.unlink(missing_ok=True)

    # --- records

    def read_record(self, name: str) -> Any | None:
        """The record's JSON value, or None when there is none that can be trusted.

        Raises:
            StoreFailed
        """
        try:
            value = json.loads(self._read_checked(name))
        except (OSError, ValueError):
            return None
        return value if self._is_whole(value) else None

    def read_records(self, names: Iterable[str]) -> list[Any | None]:
        """`read_record` for many, several on their way at once."""
        return self._files.each(self.read_record, names)

    def write_record(self, name: str, value: Any) -> None:
        self._write_checked(name, json.dumps(value, ensure_ascii=False).encode())

    def read_result(self, name: str) -> Any | None:
        """The JSON value that a stage returned under this key, or None."""
        try:
            value = json.loads(json.loads(self._read_checked(name))["result"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return value if self._is_whole(value) else None

    def read_edits(self, name: str) -> Any | None:
        """A document that no rerun can bring back: None only when there is none.

        Raises:
            StoreFailed: it is there and damaged.
        """
        try:
            return json.loads(self._read_checked(name))
        except FileNotFoundError:
            return None
        except ValueError:
            raise StoreFailed(f"store {self.where}: {name} is damaged: put a copy back, or remove it to go on without its edits") from None

    @contextmanager
    def claimed(self, name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold a name while others, here and on other machines, wait for it. `waiting` is called while another holds it."""
        self._claims.acquire(name, lambda: False, waiting)
        try:
            yield
        finally:
            self._claims.release(name)

    # Prefect asks these two for the results of stages, and keeps exceptions to itself: one from `read_path` is a cache miss to it, one from
    # `write_path` is only logged. A miss claims the record, so that others wait for it; `release` gives it back where it isn't written.

    def read_path(self, path: str, _sync: bool = True) -> bytes:  # type: ignore[override]  # Prefect calls it with _sync=True
        ahead = self._read_ahead.pop(path, None)
        if ahead is not None:
            return ahead
        try:
            content = self._read_whole(path)
            if content is None and not self._claims.acquire(path, lambda: self._read_whole(path) is not None, lambda: self._wait_for(path)):
                content = self._read_whole(path)
        except Exception as failure:
            self._failures[path] = failure
            raise
        if content is None:
            raise FileNotFoundError(path)
        self._read_ahead[path] = content
        return content

    def write_path(self, path: str, content: bytes, _sync: bool = True) -> None:  # type: ignore[override]
        try:
            self._write_checked(path, content)
        except Exception as failure:
            self._failures[path] = failure
            raise
        finally:
            self._claims.release(path)

    def release(self, path: str) -> None:
        """The record's claim, if it is held, is given up."""
        self._claims.release(path)

    def raise_failure(self, path: str) -> None:
        """Raise what a read or a write of this record met that Prefect kept to itself: mostly `StoreFailed`."""
        failure = self._failures.pop(path, None)
        if failure:
            raise failure

    def _wait_for(self, path: str) -> None:
        if self._waiting:
            self._waiting(path)

    def _resolve_path(self, path: str) -> None:
        """Prefect would make record names absolute with this; ours are relative to the store."""

    def _read_whole(self, name: str) -> bytes | None:
        try:
            content = self._read_checked(name)
            return content if self._is_whole(json.loads(json.loads(content)["result"])) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def is_whole_record(self, name: str, stored: bytes) -> bool:
        """Whether a record's file holds what was written under this name."""
        checksum, _, content = stored.partition(b"\n")
        return checksum.decode("ascii", "replace") == _record_checksum(name, content)

    def _read_checked(self, name: str) -> bytes:
        for _ in range(1 if self._files is self._disk else _LOOKS):
            stored = self._files.read(name)
            if self.is_whole_record(name, stored):
                return stored.partition(b"\n")[2]
        raise ValueError(f"{name}: damaged")

    def _write_checked(self, name: str, content: bytes) -> None:
        self._files.write(name, _record_checksum(name, content).encode() + b"\n" + content)

    def _is_whole(self, value: Any) -> bool:
        """Whether no blob that the value points at is known to be gone."""
        return not self._gone or self._gone.isdisjoint(artifact.sha256 for artifact in artifacts_in(value))


def artifacts_in(value: Any) -> Iterator[Artifact]:
    """Every artifact inside nouns or nested JSON values."""
    if isinstance(value, Artifact):
        yield value
        return
    if isinstance(value, BaseModel):
        value = [item for _, item in value]
    elif isinstance(value, dict):
        if value.keys() == Artifact.model_fields.keys():
            yield Artifact.model_validate(value)
            return
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            if isinstance(item, list | tuple | dict | BaseModel):
                yield from artifacts_in(item)


def file_digest(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_COPY_BLOCK):
            hasher.update(block)
            if progress:
                progress(len(block))
    return hasher.hexdigest()


def open_store(address: str | None) -> Store:
    """The store at a local folder, at `s3://bucket/prefix` with what the environment says, or as a block saved in Prefect (`slug/name`).

    None is COURSEDUB_STORE, else a folder in the user's cache.

    Raises:
        BadSetting
    """
    address = address or default_store()
    if address.startswith("s3://"):
        from blocks.s3_store import S3Store  # its libraries take a while to import

        return S3Store(folder=address)
    slug, _, name = address.partition("/")
    if slug in ("coursedub-store", "coursedub-s3-store") and name:
        from blocks.s3_store import S3Store

        try:
            block: Any = (Store if slug == "coursedub-store" else S3Store).load(name)
            assert isinstance(block, Store)
            return block
        except ValueError as error:
            raise BadSetting(f"store {address}: Prefect has no such block") from error
    if "://" in address:
        raise BadSetting(f"store {address}: a store is a local folder or s3://bucket/prefix")
    return Store(folder=address)


def remove_scratch() -> None:
    """Remove what this process has in hand, just before it ends without waiting for its threads."""
    for root in _disks:
        for path in (root / "scratch").glob(f"{os.getpid()}-*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


_disks: set[Path] = set()  # of the stores that this process has opened


def default_store() -> str:
    """COURSEDUB_STORE, else a folder in the user's cache."""
    return os.environ.get("COURSEDUB_STORE") or str(user_cache() / "store")


def _record_checksum(name: str, content: bytes) -> str:
    return hashlib.sha256(b"record\0" + name.encode() + b"\0" + content).hexdigest()
