"""Where results are kept: one Prefect block on `fsspec`.

Two kinds of things lie in a store, and only these two:

- `blobs/ab/<sha256>`: files by content, immutable, written whole or not at all, hashed when read.
- `records/<stage>/v<version>/<key>` and `lines/<stage>/v<version>/<key>`: small JSON that points at blobs. A record carries a checksum over
  its name and content, so a truncated, altered or misplaced record can't be read, and a record one of whose blobs is gone can't either.

What can't be read is a cache miss, never an error and never a wrong result.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem as LocalFiles
from prefect.filesystems import WritableFileSystem
from pydantic import Field, PrivateAttr

from dubbing.errors import BadSetting, BlobDamaged, StoreFailed
from dubbing.lesson import Artifact

_COPY_BLOCK = 1 << 20  # bytes
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}


class Store(WritableFileSystem):
    """A folder of blobs and records. Also a Prefect result storage: stages' results are records like any other."""

    _block_type_name = "Coursedub store"
    _block_type_slug = "coursedub-store"

    folder: str = Field(description="A local folder. Made when it is not there.")

    _root: Path = PrivateAttr()
    _checked: dict[str, tuple[int, int]] = PrivateAttr(default_factory=dict)  # digest -> size and mtime when it was hashed

    def block_initialization(self) -> None:
        files, root = fsspec.core.url_to_fs(os.path.expanduser(self.folder))
        if not isinstance(files, LocalFiles):
            raise BadSetting(f"store {self.folder}: only local folders can be used as a store so far")
        self._root = Path(root)

    # --- blobs

    def put_file(self, path: Path, media_type: str) -> Artifact:
        """Take a finished file into the store. The file itself may be moved away.

        Raises:
            StoreFailed: the disk is full or the folder can't be written.
        """
        artifact = Artifact(sha256=file_digest(path), size=path.stat().st_size, media_type=media_type)
        target = self._root / artifact.address
        if self._is_sound(artifact):
            path.unlink()
            return artifact
        with _store_errors(self.folder):
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.stat().st_dev != target.parent.stat().st_dev:
                path = Path(shutil.copyfile(path, self._scratch_name()))
            _flush_to_disk(path)
            os.replace(path, target)
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
        """
        path = self._root / artifact.address
        try:
            facts = path.stat()
        except FileNotFoundError:
            raise BlobDamaged(artifact.sha256, "is missing") from None
        state = (facts.st_size, facts.st_mtime_ns)
        if not stat.S_ISREG(facts.st_mode):
            raise BlobDamaged(artifact.sha256, "is not a file")
        if self._checked.get(artifact.sha256) != state:
            if file_digest(path) != artifact.sha256:
                path.unlink(missing_ok=True)
                raise BlobDamaged(artifact.sha256, "is not what its digest says")
            self._checked[artifact.sha256] = state
        return path

    def read_bytes(self, artifact: Artifact) -> bytes:
        return self.path_of(artifact).read_bytes()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A temporary folder on the store's own disk, so that what is finished in it can be moved into place at once."""
        with _store_errors(self.folder):
            (self._root / "scratch").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._root / "scratch", prefix=f"{os.getpid()}-") as folder:
                yield Path(folder)

    def _is_sound(self, artifact: Artifact) -> bool:
        try:
            self.path_of(artifact)
        except BlobDamaged:
            return False
        return True

    def _scratch_name(self) -> Path:
        (self._root / "scratch").mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._root / "scratch")
        os.close(handle)
        return Path(name)

    # --- records

    def read_record(self, name: str) -> Any | None:
        """The record's JSON value, or None when there is none that can be trusted."""
        try:
            value = json.loads(self._read_checked(name))
        except (OSError, ValueError):
            return None
        return value if self._blobs_exist(value) else None

    def write_record(self, name: str, value: Any) -> None:
        self._write_checked(name, json.dumps(value, ensure_ascii=False).encode())

    # Prefect asks these two for the results of stages. An exception from `read_path` is a cache miss to it.

    def read_path(self, path: str, _sync: bool = True) -> bytes:  # type: ignore[override]  # Prefect calls it with _sync=True
        content = self._read_checked(path)
        if not self._blobs_exist(json.loads(json.loads(content)["result"])):
            raise ValueError(f"{path}: a blob it points at is missing")
        return content

    def write_path(self, path: str, content: bytes, _sync: bool = True) -> None:  # type: ignore[override]
        self._write_checked(path, content)

    def _resolve_path(self, path: str) -> None:
        """Prefect would make record names absolute with this; ours are relative to the store."""

    def _read_checked(self, name: str) -> bytes:
        stored = self._record_path(name).read_bytes()
        checksum, _, content = stored.partition(b"\n")
        if checksum.decode("ascii", "replace") != _record_checksum(name, content):
            raise ValueError(f"{name}: damaged")
        return content

    def _write_checked(self, name: str, content: bytes) -> None:
        target = self._record_path(name)
        with _store_errors(self.folder):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._scratch_name()
            try:
                temporary.write_bytes(_record_checksum(name, content).encode() + b"\n" + content)
                _flush_to_disk(temporary)
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    def _record_path(self, name: str) -> Path:
        path = (self._root / name).resolve()
        if not path.is_relative_to(self._root.resolve()):
            raise ValueError(f"{name}: outside the store")
        return path

    def _blobs_exist(self, value: Any) -> bool:
        """Whether every artifact in the value lies in the store with its size. Its hash is checked when it is read."""
        return all(self._has_size(artifact) for artifact in artifacts_in(value))

    def _has_size(self, artifact: Artifact) -> bool:
        try:
            return (self._root / artifact.address).stat().st_size == artifact.size
        except OSError:
            return False


def artifacts_in(value: Any) -> Iterator[Artifact]:
    """Every artifact inside nested JSON values."""
    if isinstance(value, dict):
        if value.keys() == Artifact.model_fields.keys():
            yield Artifact.model_validate(value)
            return
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
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


def _record_checksum(name: str, content: bytes) -> str:
    return hashlib.sha256(b"record\0" + name.encode() + b"\0" + content).hexdigest()


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _store_errors(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL_DISK:
            raise StoreFailed(f"store {folder}: no space left on the disk") from error
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError) or error.errno == errno.EROFS:
            raise StoreFailed(f"store {folder}: can't be written ({error.strerror})") from error
        raise
