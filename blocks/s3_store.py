"""A store in a bucket: the same layout as a local folder, so that one can be copied into the other file by file."""

from __future__ import annotations

import os
from pathlib import Path

from prefect_aws import AwsCredentials
from pydantic import Field

from blocks.files import LocalFiles
from blocks.s3_files import PATIENCE, S3Files
from blocks.store import Store
from dubbing.errors import BadSetting
from dubbing.places import user_cache


class S3Store(Store):
    """Blobs and records in a bucket of Amazon S3 or a server like it. Files are worked on in a local folder, which may be emptied any
    time."""

    _block_type_name = "Coursedub S3 store"
    _block_type_slug = "coursedub-s3-store"

    folder: str = Field(description="s3://bucket/prefix")
    credentials: AwsCredentials | None = Field(
        default=None, description="Keys, region and endpoint; from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …) when empty."
    )
    working_folder: str = Field(
        default="", description="Local folder for the files in hand; COURSEDUB_WORKING_FOLDER, else one in the user's cache, when empty."
    )
    patience: float = Field(default=PATIENCE, ge=0, description="Seconds that a bucket may be out of reach before a run gives up.")

    def block_initialization(self) -> None:
        if not self.folder.startswith("s3://"):
            raise BadSetting(f"store {self.folder}: a bucket is s3://bucket/prefix")
        working = self.working_folder or os.environ.get("COURSEDUB_WORKING_FOLDER") or user_cache() / "working"
        disk = LocalFiles(Path(os.path.abspath(os.path.expanduser(working))))
        self._use(S3Files(self.folder, self.credentials, self.patience), disk)
