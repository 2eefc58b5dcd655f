"""Where the lessons' files go for the platform: a bucket (`blocks.s3_publishing`), or a folder on a laptop, with the same layout
(`dubbing.publishing`)."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

from blocks.files import LocalFiles
from blocks.store import Store, file_digest
from dubbing.errors import BadSetting
from dubbing.lesson import Artifact
from dubbing.publishing import address_in

PRESIGNED = 3600  # seconds that a presigned address holds
LONGEST_PRESIGNED = 7 * 86400  # seconds: S3 takes no more
_SLUG = "coursedub-publishing"


class Place(ABC):
    """Files for whoever plays them. Each is whole or not there."""

    where: str
    presigned_seconds = PRESIGNED

    @abstractmethod
    def put(self, path: Path, name: str, sha256: str) -> str:
        """Have a file there, over what was there under this name. Returns its address.

        Raises:
            StoreFailed: it can't be reached or written.
        """

    def put_blob(self, store: Store, artifact: Artifact, name: str) -> str:
        """The same with a file of the store.

        Raises:
            BlobDamaged, StoreFailed
        """
        return self.put(store.path_of(artifact), name, artifact.sha256)

    @abstractmethod
    def presigned(self, address: str, seconds: int) -> str:
        """An address at which anybody may read a published file for so long.

        Raises:
            BadSetting: the address is none of this place's.
            StoreFailed: there are no credentials.
        """


class Folder(Place):
    """A folder of this machine."""

    def __init__(self, folder: str) -> None:
        self.where = os.path.abspath(os.path.expanduser(folder))
        self._files = LocalFiles(Path(self.where))

    def put(self, path: Path, name: str, sha256: str) -> str:
        there = self._files.path(name)
        if not (there.is_file() and file_digest(there) == sha256):
            self._files.upload(path, name)
            with suppress(OSError):
                (self._files.root / "scratch").rmdir()  # in which it was written
        return str(there)

    def presigned(self, address: str, seconds: int) -> str:
        raise BadSetting(f"{address}: only what is in a bucket (s3://…) can be presigned")


def open_place(reference: str, store: Store | None = None) -> Place:
    """The place at a local folder, at `s3://bucket/prefix`, or as a block saved in Prefect.

    Args:
        store: whose account counts for an address in a bucket, if it has one as a block; else it is the environment's.

    Raises:
        BadSetting
    """
    slug, _, name = reference.partition("/")
    try:
        if reference.startswith("s3://"):
            from blocks.s3_publishing import Publishing

            return Publishing(folder=reference, credentials=getattr(store, "credentials", None)).place()
        if slug == _SLUG and name:
            from blocks.s3_publishing import Publishing

            loaded: Any = Publishing.load(name)
            assert isinstance(loaded, Publishing)
            return loaded.place()
    except ImportError as error:
        raise BadSetting(f"publish to {reference}: not installed here: s3fs, prefect-aws; pip install 'coursedub[s3]' does it") from error
    except ValueError as error:
        raise BadSetting(f"publish to {reference}: Prefect has no such block") from error
    if "://" in reference:
        raise BadSetting(f"publish_to: a folder, s3://bucket/prefix, or {_SLUG}/NAME is expected")
    return Folder(reference)


def presigned(address: str, seconds: int | None = None, block: str | None = None) -> str:
    """An address at which anybody may read a published object for a while.

    Args:
        address: s3://bucket/key, as a run gave it.
        seconds: as the block says when None, without one an hour.
        block: a saved block with the account; None: what the environment says.

    Raises:
        BadSetting, StoreFailed
    """
    if seconds is not None and not 1 <= seconds <= LONGEST_PRESIGNED:
        raise BadSetting(f"presigned for {seconds} s: from 1 to {LONGEST_PRESIGNED} s")
    parts = address_in(address)
    if parts is None:
        raise BadSetting(f"{address}: no address of an object (s3://bucket/key)")
    place = open_place(block or f"s3://{parts.bucket}")
    return place.presigned(address, seconds or place.presigned_seconds)
