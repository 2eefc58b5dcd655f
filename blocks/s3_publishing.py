"""Publishing into a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.blocks.core import Block
from prefect_aws import AwsCredentials
from pydantic import Field

from blocks.publishing import LONGEST_PRESIGNED, PRESIGNED, Folder, Place
from blocks.s3_files import S3Files
from blocks.store import Store
from dubbing.errors import BadSetting
from dubbing.lesson import Artifact
from dubbing.publishing import media_type_of

_SHA256 = "coursedub-sha256"  # by which an object says what it is


class Bucket(Place):
    """Objects with their media types. One that is there already with the same content stays as it is, and what the store has in the same
    account is copied by the server."""

    def __init__(self, files: S3Files, presigned_seconds: int = PRESIGNED) -> None:
        self._files, self.where, self.presigned_seconds = files, files.where, presigned_seconds

    def put(self, path: Path, name: str, sha256: str) -> str:
        told = _told(name, sha256)
        if not self._has(name, path.stat().st_size, told):
            self._files.publish(path, name, **told)
        return f"{self.where}/{name}"

    def put_blob(self, store: Store, artifact: Artifact, name: str) -> str:
        told = _told(name, artifact.sha256)
        origin = store.files
        if not self._has(name, artifact.size, told) and not (
            isinstance(origin, S3Files) and self._files.copied(origin, artifact.address, name, artifact.size, **told)
        ):
            self._files.publish(store.path_of(artifact), name, **told)
        return f"{self.where}/{name}"

    def presigned(self, address: str, seconds: int) -> str:
        if not address.startswith(f"{self.where}/"):
            raise BadSetting(f"{address}: not in {self.where}")
        return self._files.presigned(address.removeprefix(f"{self.where}/"), seconds)

    def _has(self, name: str, size: int, told: dict[str, Any]) -> bool:
        there = self._files.told(name)
        return bool(
            there
            and there["ContentLength"] == size
            and there.get("ContentType") == told["ContentType"]
            and there.get("Metadata", {}).get(_SHA256) == told["Metadata"][_SHA256]
        )


class Publishing(Block):
    """A bucket that the files of finished lessons are published to. The same lesson made anew replaces its own there, and no other's."""

    _block_type_name = "Coursedub publishing"
    _block_type_slug = "coursedub-publishing"

    folder: str = Field(description="s3://bucket or s3://bucket/prefix, under which uploads/… is written; or a local folder.")
    credentials: AwsCredentials | None = Field(
        default=None, description="Keys, region and endpoint; from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …) when empty."
    )
    presigned_seconds: int = Field(
        default=PRESIGNED, ge=1, le=LONGEST_PRESIGNED, description="How long an address holds that is made for whoever has no account."
    )

    def place(self) -> Place:
        """
        Raises:
            BadSetting: no such address.
        """
        if not self.folder.startswith("s3://"):
            return Folder(self.folder)
        return Bucket(S3Files(self.folder, self.credentials), self.presigned_seconds)


def _told(name: str, sha256: str) -> dict[str, Any]:
    return {"ContentType": media_type_of(name), "Metadata": {_SHA256: sha256}}
