"""Files that a run is given: lessons, terms, manifests. On this machine, on the web, or in a bucket."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from blocks.store import Store
from dubbing import media, sources
from dubbing.errors import BadInput, BadSetting, DownloadFailed, SourceEmpty, SourceNotFound, SourceTooLarge, StoreFailed
from dubbing.media import Limits

if TYPE_CHECKING:
    from blocks.s3_files import S3Files


def local_copy(source: str, folder: Path, limits: Limits, store: Store, progress: Callable[[float], None] | None = None) -> Path:
    """A recording as a local file: itself, or downloaded into `folder`.

    Args:
        store: whose account counts for a recording in a bucket.

    Raises:
        BadInput, DownloadFailed: as the functions for each kind of source raise them.
    """
    if sources.is_in_bucket(source):
        return _from_bucket(source, folder, limits, store, progress)
    if sources.is_address(source):
        return sources.fetch(source, folder, limits, progress)
    return sources.local_path(source)


def content(source: str, limit: int, store: Store) -> bytes:
    """A small file.

    Args:
        limit: bytes.

    Raises:
        BadInput: it isn't there, or it is larger; the message names it.
        DownloadFailed
    """
    with tempfile.TemporaryDirectory() as folder:
        path = local_copy(source, Path(folder), Limits(limit / 1e6, 0), store)
        try:
            if path.stat().st_size > limit:
                raise SourceTooLarge(f"{source}: {path.stat().st_size / 1e6:.1f} MB, the limit is {limit / 1e6:g} MB")
            return path.read_bytes()
        except OSError as error:
            raise BadInput(f"{source}: {error.strerror or error}") from error


def names_in(folder: str, store: Store) -> list[str] | None:
    """Files in a folder, those in folders below it left out, or everything under a prefix of a bucket; None where it is no such thing.

    Raises:
        BadInput, DownloadFailed
    """
    if sources.is_in_bucket(folder):
        try:
            return [found.name for found in open_bucket(folder, store).found("")] or None
        except StoreFailed as error:
            raise DownloadFailed(f"{folder}: {error}") from error
    if sources.is_address(folder) or not sources.local_path(folder).is_dir():
        return None
    try:
        return [entry.name for entry in os.scandir(sources.local_path(folder)) if entry.is_file()]
    except OSError as error:
        raise BadInput(f"{folder}: {error.strerror or error}") from error


def open_bucket(address: str, store: Store) -> S3Files:
    """What lies under an address, with the account that the store has as a block, else with the environment's.

    Raises:
        BadInput: not an address in a bucket.
    """
    try:
        from blocks.s3_files import S3Files
        from blocks.s3_store import S3Store
    except ImportError:
        raise BadSetting(f"{address}: not installed here: s3fs, prefect-aws; pip install 'coursedub[s3]' does it") from None
    try:
        return S3Files(address, store.credentials if isinstance(store, S3Store) else None)
    except BadSetting as error:
        raise BadInput(f"{address}: {error}") from None


def _from_bucket(address: str, folder: Path, limits: Limits, store: Store, progress: Callable[[float], None] | None) -> Path:
    """A recording in a bucket as a local file.

    Raises:
        SourceNotFound, SourceEmpty, SourceTooLarge
        DownloadFailed: the bucket can't be reached, or doesn't let us in.
    """
    name, (parent, key) = sources.name_of(address), _split(address)
    bucket, target, done = open_bucket(parent, store), folder / "download", 0

    def came(count: int) -> None:
        nonlocal done
        done += count
        if done > limits.megabytes * 1e6:
            raise SourceTooLarge(f"{name}: more than {limits.megabytes:g} MB (setting max_megabytes)")
        if progress and size:
            progress(min(1.0, done / size))

    try:
        size = bucket.size(key)
        if size is None:
            raise SourceNotFound(f"{address}: there is no such object")
        media.check_size(size, name, limits)
        if size == 0:
            raise SourceEmpty(f"{name}: it has 0 bytes")
        bucket.download(key, target, came)
    except FileNotFoundError:
        raise SourceNotFound(f"{address}: there is no such object") from None
    except StoreFailed as error:
        raise DownloadFailed(f"{name}: {error}") from error
    return target


def _split(address: str) -> tuple[str, str]:
    """The folder and the name of an object.

    >>> _split("s3://bucket/course/1.mp4"), _split("S3://bucket/1.mp4")
    (('s3://bucket/course', '1.mp4'), ('s3://bucket', '1.mp4'))
    """
    bucket, _, key = address[len("s3://") :].partition("/")
    prefix, _, name = key.rpartition("/")
    if not bucket or not name:
        raise BadInput(f"{address}: a file in a bucket is s3://bucket/key")
    return (f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"), name
