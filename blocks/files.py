"""Where bytes lie: named files in a local folder or in a bucket, each written whole or not at all. What they mean is the store's business.

Names are relative, with "/" between the parts. Every operation waits out faults that pass (a server that is down for seconds, "slow down",
cut connections) for `PATIENCE` seconds, and then raises `StoreFailed`.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from dubbing.errors import StoreFailed

AT_ONCE = 16  # small requests to a bucket that run beside each other
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
_UNUSABLE = {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EROFS, errno.EIO, errno.ELOOP}

Value = TypeVar("Value")
Argument = TypeVar("Argument")


class Found(NamedTuple):
    """A file in a listing."""

    name: str
    size: int  # bytes
    modified: float  # seconds since 1970, by the clock of whoever keeps it


class Files(ABC):
    """Named files, read and written whole."""

    where: str  # as messages name it

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A small file's content.

        Raises:
            FileNotFoundError: there is none of that name.
            StoreFailed: it can't be reached.
        """

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a small file over what was there. Whoever reads it sees the old content or the new.

        Raises:
            StoreFailed
        """

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes, or None when there is no file of that name.

        Raises:
            StoreFailed
        """

    @abstractmethod
    def upload(self, path: Path, name: str) -> None:
        """Copy a local file of any size in, a part at a time, each part with a checksum that the other side verifies.

        Raises:
            StoreFailed
        """

    @abstractmethod
    def download(self, name: str, path: Path, progress: Callable[[int], None] | None = None) -> None:
        """Copy a file of any size to a local path, a part at a time. `path` may be half-written when this raises.

        Raises:
            FileNotFoundError, StoreFailed
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            StoreFailed
        """

    @abstractmethod
    def found(self, prefix: str) -> Iterator[Found]:
        """All files whose names start with `prefix`, which ends with "/" or is empty.

        Raises:
            StoreFailed
        """

    def each(self, operation: Callable[[Argument], Value], arguments: Iterable[Argument]) -> list[Value]:
        """`operation` for all arguments, in order."""
        return [operation(argument) for argument in arguments]


class LocalFiles(Files):
    """A folder on a disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = str(root)

    def path(self, name: str) -> Path:
        """Raises ValueError for a name that leads out of the folder."""
        path = Path(os.path.normpath(self.root / name))
        if not path.is_relative_to(self.root):
            raise ValueError(f"{name}: outside the store")
        return path

    def read(self, name: str) -> bytes:
        path = self.path(name)
        with self.errors():
            try:
                return path.read_bytes()
            except (IsADirectoryError, NotADirectoryError):
                raise FileNotFoundError(name) from None

    def write(self, name: str, content: bytes) -> None:
        target = self.path(name)
        with self.errors():
            temporary = self.temporary()
            try:
                temporary.write_bytes(content)
                self._into_place(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    def size(self, name: str) -> int | None:
        try:
            facts = self.path(name).stat()
        except OSError:
            return None
        return facts.st_size

    def upload(self, path: Path, name: str) -> None:
        with self.errors():
            temporary = self.temporary()
            try:
                shutil.copyfile(path, temporary)
                self._into_place(temporary, self.path(name))
            finally:
                temporary.unlink(missing_ok=True)

    def move_in(self, path: Path, name: str) -> None:
        """Like `upload`, for a file that is not needed where it is: a rename on the same disk."""
        target = self.path(name)
        with self.errors():
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.stat().st_dev == target.parent.stat().st_dev:
                self._into_place(path, target)
            else:
                self.upload(path, name)
                path.unlink()

    def download(self, name: str, path: Path, progress: Callable[[int], None] | None = None) -> None:
        with self.errors(), self.path(name).open("rb") as original, path.open("wb") as copy:
            while block := original.read(1 << 20):
                copy.write(block)
                if progress:
                    progress(len(block))

    def remove(self, name: str) -> None:
        path = self.path(name)
        with self.errors():
            path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()  # an empty folder holds nothing

    def found(self, prefix: str) -> Iterator[Found]:
        for folder, _, names in os.walk(self.path(prefix)):
            for name in sorted(names):
                path = Path(folder, name)
                try:
                    facts = path.lstat()
                except FileNotFoundError:
                    continue
                yield Found(path.relative_to(self.root).as_posix(), facts.st_size, facts.st_mtime)

    def temporary(self) -> Path:
        """A new empty file on the same disk, to be moved into place."""
        (self.root / "scratch").mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.root / "scratch", prefix=f"{os.getpid()}-")
        os.close(handle)
        return Path(name)

    def _into_place(self, path: Path, target: Path) -> None:
        with path.open("rb") as file:
            os.fsync(file.fileno())
        while True:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.replace(path, target)
                return
            except FileNotFoundError:  # someone removed the folder's last file, and the folder with it
                if not path.exists():
                    raise
            except IsADirectoryError:  # damage like any other; what is in it may be somebody's, so it is kept aside
                os.replace(target, tempfile.mkdtemp(dir=self.root / "scratch", prefix=f"{target.name[:16]}-"))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What the disk refuses, in words."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL_DISK:
                raise StoreFailed(f"store {self.where}: no space left on the disk") from error
            if error.errno in _UNUSABLE:
                raise StoreFailed(f"store {self.where}: can't be used ({error.strerror})") from error
            raise


class RemoteFiles(Files):
    """Base of the files that a server keeps: a request takes a while, so many run at once."""

    def each(self, operation: Callable[[Argument], Value], arguments: Iterable[Argument]) -> list[Value]:
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="store") as pool:
            return list(pool.map(operation, arguments))
