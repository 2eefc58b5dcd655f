"""Publishing into a bucket: a real S3 server, media types, nothing sent twice, and addresses for whoever has no account."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from blocks.store import Store
from dubbing.errors import BadSetting, StoreFailed
from tests.conftest import Bucket as Prefix
from tests.fault_proxy import Fault, FaultProxy
from tests.seaweed import Seaweed

pytest.importorskip("s3fs", reason="the extra s3 is not installed")

from blocks import s3_files
from blocks.publishing import Folder, Place, open_place, presigned
from blocks.s3_files import S3Files
from blocks.s3_publishing import Bucket, Publishing
from blocks.s3_store import S3Store

NAME = "uploads/renders/a.en.mp4"
SMALL, PARTS = 100_000, 20_000_000  # bytes; the latter goes up in parts


class There:
    """A place in a bucket behind a proxy, and a store in the same bucket."""

    def __init__(self, seaweed: Seaweed, bucket: Prefix, proxy: FaultProxy, folder: Path) -> None:
        self.proxy, self.seaweed = proxy, seaweed
        account = seaweed.credentials(proxy.endpoint)
        self.files = S3Files(f"{bucket.address}/published", account, patience=20)
        self.place = Bucket(self.files)
        self.store = S3Store(folder=f"{bucket.address}/store", credentials=account, working_folder=str(folder / "working"))
        self.foreign = Store(folder=str(folder / "store"))

    def puts(self) -> int:
        return self.proxy.count("PUT") + self.proxy.count("POST")


@pytest.fixture
def there(seaweed: Seaweed, bucket: Prefix, tmp_path: Path) -> There:
    with FaultProxy(seaweed.port) as proxy:
        yield There(seaweed, bucket, proxy, tmp_path)  # type: ignore[misc]


def in_file(folder: Path, content: bytes) -> Path:
    path = folder / uuid4().hex
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("size", [SMALL, PARTS])
def test_a_file_of_another_store_is_sent_once_and_says_what_it_is(there: There, size: int) -> None:
    artifact = there.foreign.put_bytes(os.urandom(size), "video/mp4")
    address = there.place.put_blob(there.foreign, artifact, NAME)
    assert address == f"{there.files.where}/{NAME}"
    told = there.files.told(NAME)
    assert told and told["ContentType"] == "video/mp4" and told["ContentLength"] == size
    assert there.files.read(NAME) == there.foreign.read_bytes(artifact)
    there.proxy.forget()
    there.place.put_blob(there.foreign, artifact, NAME)
    assert there.puts() == 0


@pytest.mark.parametrize("size", [SMALL, PARTS])
def test_a_file_of_a_store_in_the_same_account_is_copied_by_the_server(there: There, size: int) -> None:
    artifact = there.store.put_bytes(os.urandom(size), "video/mp4")
    there.proxy.forget()
    there.place.put_blob(there.store, artifact, NAME)
    assert there.puts() == 1, "one request, whatever the size"
    told = there.files.told(NAME)
    assert told and told["ContentType"] == "video/mp4"
    assert there.files.read(NAME) == there.store.read_bytes(artifact)


def test_what_the_server_does_not_want_to_copy_is_sent(there: There) -> None:
    artifact = there.store.put_bytes(b"a video", "video/mp4")
    first: list[str] = []

    def refuse_once(method: str, path: str) -> Fault:
        if method == "PUT" and not first:
            first.append(path)
            return Fault(status=501, code="NotImplemented")
        return Fault()

    there.proxy.fault = refuse_once
    there.place.put_blob(there.store, artifact, NAME)
    assert first and there.files.read(NAME) == b"a video"


def test_a_blob_that_is_damaged_in_the_bucket_is_not_published(there: There) -> None:
    """The server's copy is of what has the right size; what this machine opened when it delivered the lesson is sent otherwise."""
    artifact = there.store.put_bytes(b"a video", "video/mp4")
    there.store.files.write(artifact.address, b"half")
    there.place.put_blob(there.store, artifact, NAME)
    assert there.files.read(NAME) == b"a video"


def test_a_new_content_replaces_the_old_whole_or_not_at_all(there: There, tmp_path: Path) -> None:
    there.place.put(in_file(tmp_path, b"old"), NAME, "0" * 64)
    there.proxy.fault = lambda method, path: Fault(cut_request=0.5) if method == "PUT" else Fault()
    there.files.patience = 0.2
    with pytest.raises(StoreFailed):
        there.place.put(in_file(tmp_path, b"new" * 1000), NAME, "1" * 64)
    there.proxy.fault = Fault()
    assert there.files.read(NAME) == b"old"
    there.place.put(in_file(tmp_path, b"new" * 1000), NAME, "1" * 64)
    assert there.files.read(NAME) == b"new" * 1000


def test_a_presigned_address_is_read_by_anybody_and_holds_for_a_while(there: There, tmp_path: Path) -> None:
    address = there.place.put(in_file(tmp_path, b"a video"), NAME, "0" * 64)
    link = there.place.presigned(address, 3600)
    answer = httpx.get(link)
    assert answer.content == b"a video" and answer.headers["content-type"] == "video/mp4"
    assert "X-Amz-Expires=3600" in link and there.seaweed.secret_key not in link
    assert httpx.get(link.partition("?")[0]).status_code == 403
    assert httpx.get(link.replace("a.en.mp4", "b.en.mp4")).status_code == 403, "it is for this file alone"
    assert httpx.put(link, content=b"another").status_code == 403


def test_the_command_presigns_with_what_the_environment_says(
    there: There, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.command_line import main

    address = there.place.put(in_file(tmp_path, b"a video"), NAME, "0" * 64)
    for name, value in there.seaweed.environment().items():
        monkeypatch.setenv(name, value)
    assert main(["presign", address, "--seconds", "60"]) == 0
    link = capsys.readouterr().out.strip()
    assert "X-Amz-Expires=60" in link and httpx.get(link).content == b"a video"
    assert urlsplit(presigned(address)).query.count("X-Amz-Expires=3600") == 1


@pytest.mark.parametrize("seconds", [0, -1, 7 * 86400 + 1])
def test_a_time_out_of_range_is_refused(seconds: int) -> None:
    with pytest.raises(BadSetting, match="presigned for"):
        presigned("s3://bucket/key", seconds)


@pytest.mark.parametrize("address", ["/lessons/a.mp4", "https://bucket/key", "s3://bucket"])
def test_what_is_no_object_is_not_presigned(address: str) -> None:
    with pytest.raises(BadSetting, match="no address of an object"):
        presigned(address)


def test_another_bucket_s_object_is_not_presigned(there: There) -> None:
    with pytest.raises(BadSetting, match="not in"):
        there.place.presigned("s3://another/uploads/a.mp4", 60)


def test_without_credentials_nothing_is_presigned(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreFailed, match="no credentials"):
        presigned("s3://bucket/key")


@pytest.mark.parametrize("reference, kind", [("published", Folder), ("s3://bucket/prefix", Bucket)], ids=["folder", "bucket"])
def test_a_place_is_what_its_address_says(reference: str, kind: type[Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert type(open_place(reference)) is kind


def test_a_name_leads_out_of_no_place(tmp_path: Path, there: There) -> None:
    for place in (Folder(str(tmp_path / "place")), there.place):
        with pytest.raises(ValueError, match="outside"):
            place.put(in_file(tmp_path, b""), "../elsewhere", "0" * 64)


def test_a_block_keeps_its_keys_to_itself(there: There) -> None:
    block = Publishing(folder="s3://bucket", credentials=there.seaweed.credentials())
    assert there.seaweed.secret_key not in repr(block) + block.model_dump_json()
    assert s3_files.S3Files("s3://bucket", block.credentials).where == "s3://bucket"
