"""`coursedub copy` and `coursedub clean` on a real lesson's store, on disk and in a bucket."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from blocks.s3_store import S3Store
from blocks.store import Store, open_store
from dubbing.errors import BadSetting
from tasks.clean import Policy, removals, remove
from tests.conftest import Bucket
from tests.flows.stand_in_runs import CALM, Done, Lab, Run, contents, in_bucket, local
from tests.seaweed import Seaweed

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def lab(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


def coursedub(notes: Path, *arguments: str | Path, **environment: str) -> Done:
    return Run(arguments, notes, CALM, environment).wait()


def listing(store: Store) -> dict[str, int]:
    return {found.name: found.size for found in store.files.found("") if not found.name.startswith(("claims/", "scratch/"))}


def test_a_store_goes_to_a_bucket_and_back(lab: Lab, tmp_path: Path, seaweed: Seaweed, bucket: Bucket) -> None:
    place = in_bucket(bucket, tmp_path / "working", seaweed.environment())
    there = coursedub(tmp_path / "1", "copy", lab.whole.folder, bucket.address, "--json", **place.environment)
    assert there.result["files"] == len(listing(lab.whole.store))
    assert listing(place.store) == listing(lab.whole.store)
    again = coursedub(tmp_path / "2", "copy", lab.whole.folder, bucket.address, "--json", **place.environment)
    assert (again.result["files"], again.result["skipped"]) == (0, there.result["files"])
    back = coursedub(tmp_path / "3", "copy", bucket.address, tmp_path / "back", "--json", **place.environment)
    assert back.result["files"] == there.result["files"]
    done = lab.dub(local(tmp_path / "back"), tmp_path / "output", tmp_path / "notes").wait()
    assert set(done.states().values()) == {"cached"}
    assert contents(tmp_path / "output") == lab.expected


def test_a_copy_leaves_out_what_is_damaged_and_names_it(lab: Lab, tmp_path: Path) -> None:
    place = lab.copy_of_whole(tmp_path / "store")
    blob = next(place.folder.glob("blobs/*/*"))
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    record = next(place.folder.glob("records/*/*/*"))
    record.write_bytes(record.read_bytes()[:-3])
    done = coursedub(tmp_path / "notes", "copy", place.folder, tmp_path / "copy", "--json")
    assert set(done.result["damaged"]) == {path.relative_to(place.folder).as_posix() for path in (blob, record)}
    assert len(done.errors.splitlines()) == 2
    assert len(listing(Store(folder=str(tmp_path / "copy")))) == len(listing(place.store)) - 2


def test_a_copy_never_writes_over_edits(lab: Lab, tmp_path: Path) -> None:
    line = json.loads((lab.folder / "expected" / "timeline.json").read_text())["lines"][0]["id"]
    origin, target = lab.copy_of_whole(tmp_path / "origin"), lab.copy_of_whole(tmp_path / "target")
    for place, text in ((origin, "From here."), (target, "From there.")):
        coursedub(tmp_path / "edit", "edit", lab.lesson, "--store", place.folder, "--line", line, "--text", text, "--json")
    done = coursedub(tmp_path / "copy", "copy", origin.folder, target.folder, "--json")
    assert done.result["kept"] == [f"edits/{lab.sha256}/en"]
    kept = coursedub(tmp_path / "look", "edit", lab.lesson, "--store", target.folder, "--json").result["edits"]
    assert [edit["text"] for edit in kept] == ["From there."]


def test_a_store_is_not_copied_into_itself_nor_from_nowhere(lab: Lab, tmp_path: Path) -> None:
    for origin, target in (
        (lab.whole.folder, f"{lab.whole.folder}/"),
        (lab.whole.folder, lab.whole.folder / "sub"),
        ("/no/such", tmp_path),
    ):
        done = coursedub(tmp_path / "notes", "copy", origin, target)
        assert (done.code, done.errors.count("\n")) == (21, 1)


def test_no_key_is_kept_or_printed(lab: Lab, tmp_path: Path, seaweed: Seaweed, bucket: Bucket) -> None:
    """Neither in the store, nor by Prefect, nor on the way."""
    place = in_bucket(bucket, tmp_path / "working", seaweed.environment())
    done = lab.dub(place, tmp_path / "output", tmp_path / "notes").wait()
    S3Store(folder=bucket.address, credentials=bucket.credentials).save("with-keys")
    assert done.code == 0
    secret = seaweed.secret_key.encode()
    kept = [path for folder in (tmp_path, Path(os.environ["PREFECT_HOME"])) for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in kept), "Prefect's database is among them"
    assert [path for path in kept if secret in path.read_bytes()] == []
    assert not [found.name for found in place.store.files.found("") if secret in place.store.files.read(found.name)]


def test_clean_says_what_would_go_and_then_does_it(lab: Lab, tmp_path: Path) -> None:
    place = lab.copy_of_whole(tmp_path / "store")
    before = listing(place.store)
    dry = coursedub(tmp_path / "1", "clean", "--store", place.folder, "--lesson", lab.lesson, "--dry-run", "--json").result
    assert listing(place.store) == before
    done = coursedub(tmp_path / "2", "clean", "--store", place.folder, "--lesson", lab.folder / "expected", "--json").result
    assert done["names"] == dry["names"]
    assert done["bytes"] == sum(before[name] for name in done["names"])
    left = listing(place.store)
    assert left.keys() == before.keys() - set(done["names"])
    assert all(name.startswith("figures/") for name in left), "of a store with one lesson nothing is left"
    again = lab.dub(place, tmp_path / "output", tmp_path / "notes").wait()
    assert set(again.states().values()) == {"computed"}
    assert contents(tmp_path / "output") == lab.expected


def test_a_lesson_that_is_kept_is_still_whole_after_cleaning(lab: Lab, tmp_path: Path) -> None:
    place = lab.copy_of_whole(tmp_path / "store")
    options = ["--audio-days", "0", "--video-days", "0", "--other-days", "0", "--megabytes", "0", "--keep", lab.lesson]
    assert coursedub(tmp_path / "clean", "clean", "--store", place.folder, *options, "--json").result["files"] == 0
    done = lab.dub(place, tmp_path / "output", tmp_path / "notes").wait()
    assert set(done.states().values()) == {"cached"}


def test_clean_in_a_bucket(lab: Lab, tmp_path: Path, seaweed: Seaweed, bucket: Bucket) -> None:
    place = in_bucket(bucket, tmp_path / "working", seaweed.environment())
    coursedub(tmp_path / "1", "copy", lab.whole.folder, bucket.address, "--json", **place.environment)
    cleaned = coursedub(tmp_path / "2", "clean", "--store", bucket.address, "--lesson", lab.sha256, "--json", **place.environment).result
    assert cleaned["files"] == len(listing(lab.whole.store)) - 1
    assert set(listing(place.store)) == {"figures/stages"}


def test_copies_of_a_buckets_files_go_from_the_disk_and_not_from_the_bucket(tmp_path: Path, bucket: Bucket) -> None:
    store = S3Store(folder=bucket.address, credentials=bucket.credentials, working_folder=str(tmp_path))
    artifact = store.put_bytes(b"some sound", "audio/wav")
    copy = tmp_path / artifact.address
    assert copy.exists()
    long_ago = time.time() - 8 * 86400
    os.utime(copy, (long_ago, long_ago))
    found = removals(store, Policy())
    assert [(removal.name, removal.kind) for removal in found] == [(artifact.address, "copy")]
    remove(store, found)
    assert not copy.exists()
    assert store.read_bytes(artifact) == b"some sound", "the bucket has it"


def test_cleaning_is_a_flow_too(lab: Lab, tmp_path: Path) -> None:
    from flows.clean_store import clean_store

    place = lab.copy_of_whole(tmp_path / "store")
    dry = clean_store(store=str(place.folder), lessons=[lab.sha256], dry_run=True)
    assert dry["files"] == len(listing(place.store)) - 1
    assert clean_store(store=str(place.folder), lessons=[lab.sha256])["files"] == dry["files"]
    assert set(listing(place.store)) == {"figures/stages"}


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("gs://bucket/x", "s3://"),
        ("coursedub-store/no-such", "no such block"),
        ("s3://", "bucket"),
    ],
)
def test_an_address_that_is_no_store_is_refused_in_one_line(address: str, reason: str) -> None:
    with pytest.raises(BadSetting, match=reason):
        open_store(address)


def test_a_store_is_a_block_that_prefect_keeps(bucket: Bucket, tmp_path: Path) -> None:
    S3Store(folder=bucket.address, credentials=bucket.credentials, working_folder=str(tmp_path), patience=5).save("course-results")
    store = open_store("coursedub-s3-store/course-results")
    artifact = store.put_bytes(b"some sound", "audio/wav")
    assert (
        S3Store(folder=bucket.address, credentials=bucket.credentials, working_folder=str(tmp_path / "b")).read_bytes(artifact)
        == b"some sound"
    )
    Store(folder=str(tmp_path / "local")).save("laptop")
    assert open_store("coursedub-store/laptop").where == str(tmp_path / "local")


def test_nothing_secret_is_shown(bucket: Bucket, tmp_path: Path) -> None:
    store = S3Store(folder=bucket.address, credentials=bucket.credentials, working_folder=str(tmp_path))
    assert bucket.credentials.aws_secret_access_key
    secret = bucket.credentials.aws_secret_access_key.get_secret_value()
    assert secret not in repr(store) + str(store) + store.where
