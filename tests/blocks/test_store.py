"""The store: what can't be read is a miss, never an error and never a wrong result."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.store import Store, artifacts_in, file_digest
from dubbing.errors import BadSetting, BlobDamaged, StoreFailed
from dubbing.lesson import Artifact, plain


def blob(store: Store, content: bytes = b"some sound") -> tuple[Artifact, Path]:
    artifact = store.put_bytes(content, "audio/wav")
    return artifact, Path(store.folder) / artifact.address


def test_a_blob_lies_under_its_digest_and_comes_back(store: Store) -> None:
    artifact, path = blob(store)
    assert path.parts[-3:] == ("blobs", artifact.sha256[:2], artifact.sha256)
    assert store.read_bytes(artifact) == b"some sound"
    assert artifact.size == 10


def test_the_same_content_is_one_blob(store: Store) -> None:
    first, _ = blob(store)
    second, _ = blob(store)
    assert first == second
    assert len(list(Path(store.folder).glob("blobs/*/*"))) == 1


@pytest.mark.parametrize("damage", ["truncated", "flipped", "replaced", "deleted"])
def test_a_damaged_blob_is_named_and_taken_out(store: Store, damage: str) -> None:
    artifact, path = blob(store)
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes({"truncated": b"some", "flipped": b"some souNd", "replaced": b"other noise"}[damage])
    with pytest.raises(BlobDamaged):
        store.path_of(artifact)
    assert not path.exists()
    assert store.read_record("records/none") is None


def test_a_blob_that_changes_after_its_first_use_is_noticed(store: Store) -> None:
    artifact, path = blob(store)
    store.path_of(artifact)
    path.write_bytes(b"some souNd")
    os.utime(path, ns=(1, 1))
    with pytest.raises(BlobDamaged):
        store.path_of(artifact)


def test_putting_content_again_heals_a_damaged_blob(store: Store) -> None:
    artifact, path = blob(store)
    path.write_bytes(b"some souNd")
    blob(store)
    assert store.read_bytes(artifact) == b"some sound"


def test_a_record_comes_back_until_its_blob_is_known_to_be_gone(store: Store) -> None:
    artifact, path = blob(store)
    store.write_record("lines/x/v1/a", {"clip": plain(artifact), "n": 1})
    path.unlink()
    assert store.read_record("lines/x/v1/a") == {"clip": plain(artifact), "n": 1}
    assert store.missing([artifact]) == [artifact]
    with pytest.raises(BlobDamaged) as damaged:
        store.path_of(artifact)
    assert damaged.value.sha256s == (artifact.sha256,)
    assert store.read_record("lines/x/v1/a") is None
    blob(store)
    assert store.read_record("lines/x/v1/a") == {"clip": plain(artifact), "n": 1}


def test_all_blobs_that_are_gone_are_named_at_once(store: Store) -> None:
    artifacts = [store.put_bytes(bytes([number]), "audio/wav") for number in range(5)]
    for artifact in artifacts[1:4]:
        (Path(store.folder) / artifact.address).unlink()
    with pytest.raises(BlobDamaged) as damaged:
        store.fetch(artifacts)
    assert set(damaged.value.sha256s) == {artifact.sha256 for artifact in artifacts[1:4]}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_record_is_ever_believed(store: Store, position: int, bit: int) -> None:
    store.write_record("lines/x/v1/a", {"n": 123, "text": "привет"})
    path = Path(store.folder) / "lines/x/v1/a"
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(content)
    assert store.read_record("lines/x/v1/a") is None


def test_a_record_in_anothers_place_is_not_believed(store: Store) -> None:
    store.write_record("lines/x/v1/a", 1)
    path = Path(store.folder) / "lines/x/v1/a"
    (path.parent / "b").write_bytes(path.read_bytes())
    assert store.read_record("lines/x/v1/b") is None


def test_a_truncated_or_empty_record_is_a_miss(store: Store) -> None:
    store.write_record("lines/x/v1/a", {"n": 1})
    path = Path(store.folder) / "lines/x/v1/a"
    for length in range(len(path.read_bytes())):
        path.write_bytes(path.read_bytes()[:length])
        assert store.read_record("lines/x/v1/a") is None
        store.write_record("lines/x/v1/a", {"n": 1})


def test_names_outside_the_store_are_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="outside"):
        store.write_record("../outside", 1)
    assert store.read_record("../../etc/passwd") is None


def test_what_fails_half_way_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreFailed, match="no space left"):
        store.put_bytes(b"content", "audio/wav")
    with pytest.raises(StoreFailed, match="no space left"):
        store.write_record("lines/x/v1/a", 1)
    monkeypatch.undo()
    assert not [path for path in Path(store.folder).rglob("*") if path.is_file()]


def test_an_address_that_is_no_local_folder_is_refused() -> None:
    with pytest.raises(BadSetting, match="local"):
        Store(folder="memory://somewhere")


def test_artifacts_are_found_at_any_depth(store: Store) -> None:
    artifact, _ = blob(store)
    value = json.loads(json.dumps({"a": [{"b": plain(artifact)}], "c": 1}))
    assert list(artifacts_in(value)) == [artifact]


def test_a_file_digest_is_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    (tmp_path / "b").write_bytes(b"x" * 3_000_000)
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b")
