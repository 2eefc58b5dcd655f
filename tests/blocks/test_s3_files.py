"""Files in a bucket: the same contract as files in a folder, on a real S3 server, on good days and on bad ones."""

from __future__ import annotations

import copy
import gc
import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from blocks.files import Files, LocalFiles
from dubbing.errors import BadSetting, StoreFailed
from tests.fault_proxy import PASS, REFUSE, SERVER_ERROR, SILENT, SLOW_DOWN, Fault, FaultProxy
from tests.seaweed import Seaweed

pytest.importorskip("s3fs", reason="the extra s3 is not installed")

from blocks import s3_files
from blocks.s3_files import S3Files

MB = 1_000_000  # bytes
LARGE = 40 * MB  # five parts
MEDIUM = 12 * MB  # three of the smallest parts
ONE_PART = 2 * MB  # below the size from which a file is sent in parts


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_files, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(s3_files, "LONGEST_WAIT", 0.5)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_files, "SINGLE", 3 * MB)
    monkeypatch.setattr(s3_files, "PART", 5 << 20)


@dataclass
class Place:
    """Files in a bucket of their own, behind a proxy."""

    files: S3Files
    proxy: FaultProxy
    with_patience: Callable[[float], S3Files]


@pytest.fixture(scope="module")
def proxy(seaweed: Seaweed) -> Iterator[FaultProxy]:
    with FaultProxy(seaweed.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def connected(seaweed: Seaweed, bucket_name: str, proxy: FaultProxy) -> S3Files:
    return S3Files(f"s3://{bucket_name}/", seaweed.credentials(proxy.endpoint))


@pytest.fixture
def place(seaweed: Seaweed, bucket, connected: S3Files, proxy: FaultProxy) -> Iterator[Place]:  # type: ignore[no-untyped-def]
    files = copy.copy(connected)  # with its connections, which take longer to set up than most tests
    files.prefix = bucket.address.split("/", 3)[3] + "/"
    files.where = bucket.address
    proxy.forget()
    yield Place(files, proxy, lambda seconds: S3Files(bucket.address, seaweed.credentials(proxy.endpoint), patience=seconds))
    proxy.fault = PASS
    proxy.next()
    proxy.up()


@pytest.fixture(params=["folder", "bucket"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "folder":
        return LocalFiles(tmp_path / "files")
    where: Place = request.getfixturevalue("place")
    return where.files


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large"
    path.write_bytes(os.urandom(LARGE))
    return path


@pytest.fixture(scope="session")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("medium") / "medium"
    path.write_bytes(os.urandom(MEDIUM))
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small"
    path.write_bytes(os.urandom(ONE_PART))
    return path


# --- the contract, in a folder and in a bucket


def test_what_is_written_is_read(files: Files) -> None:
    files.write("records/a/b", b"first")
    files.write("records/a/b", b"second")
    assert files.read("records/a/b") == b"second"
    assert files.size("records/a/b") == 6


def test_nothing_is_there_until_it_is_written(files: Files, tmp_path: Path) -> None:
    assert files.size("nothing") is None
    files.remove("nothing")
    assert list(files.found("")) == []
    assert list(files.found("no/such/folder/")) == []
    with pytest.raises(FileNotFoundError):
        files.read("nothing")
    with pytest.raises(FileNotFoundError):
        files.download("nothing", tmp_path / "copy")


def test_what_is_removed_is_gone(files: Files) -> None:
    files.write("a", b"1")
    files.remove("a")
    assert files.size("a") is None
    with pytest.raises(FileNotFoundError):
        files.read("a")


def test_a_folder_is_no_file(files: Files) -> None:
    files.write("a/b", b"1")
    with pytest.raises(FileNotFoundError):
        files.read("a")


def test_files_are_found_by_prefix_with_sizes_and_times(files: Files) -> None:
    before = time.time()
    for name in ("blobs/aa/1", "blobs/ab/2", "blobs-not/3", "records/4"):
        files.write(name, name.encode())
    found = {entry.name: entry for entry in files.found("blobs/")}
    assert found.keys() == {"blobs/aa/1", "blobs/ab/2"}
    assert found["blobs/aa/1"].size == len("blobs/aa/1")
    assert abs(found["blobs/aa/1"].modified - before) < 30
    assert {entry.name for entry in files.found("")} >= {"blobs/aa/1", "blobs/ab/2", "blobs-not/3", "records/4"}


@pytest.mark.parametrize("size", [0, 1, ONE_PART, LARGE])
def test_files_of_any_size_go_in_and_out_unchanged(files: Files, large: Path, tmp_path: Path, size: int) -> None:
    original = tmp_path / "original"
    original.write_bytes(large.read_bytes()[:size])
    files.upload(original, "blobs/x")
    assert files.size("blobs/x") == size
    told: list[int] = []
    files.download("blobs/x", tmp_path / "copy", told.append)
    assert (tmp_path / "copy").read_bytes() == original.read_bytes()
    assert sum(told) == size and all(told)


def test_an_upload_leaves_the_original_and_replaces_what_was_there(files: Files, small: Path) -> None:
    files.write("x", b"old")
    files.upload(small, "x")
    assert small.exists()
    assert files.read("x") == small.read_bytes()


@pytest.mark.parametrize("name", ["../x", "a/../../b", "..", "/etc/passwd", "a/../../prefix2/b"])
def test_a_name_that_leads_out_is_refused(files: Files, name: str, small: Path, tmp_path: Path) -> None:
    for operation in (
        lambda: files.read(name),
        lambda: files.write(name, b""),
        lambda: files.size(name),
        lambda: files.remove(name),
        lambda: files.upload(small, name),
        lambda: files.download(name, tmp_path / "copy"),
        lambda: list(files.found(name + "/")),
    ):
        with pytest.raises(ValueError, match="outside the store"):
            operation()


def test_any_other_name_is_a_name(files: Files) -> None:
    names = ["with space", "%2e%2e/%2F", "a+b", "what?x=1&y=2#z", "ü/日本/e\u0301", "a\nb", "..a/b..", "~'\"<&>*;=@,:$"]
    for name in names:
        files.write("names/" + name, name.encode())
    assert {entry.name for entry in files.found("names/")} == {"names/" + name for name in names}
    for name in names:
        assert files.read("names/" + name) == name.encode()
        files.remove("names/" + name)
        assert files.size("names/" + name) is None


def test_many_threads_work_at_once(files: Files) -> None:
    names = [f"many/{number}" for number in range(60)]
    files.each(lambda name: files.write(name, name.encode()), names)
    assert files.each(files.read, names) == [name.encode() for name in names]
    assert len(list(files.found("many/"))) == 60


# --- what it costs


def test_a_small_operation_is_one_request(place: Place, small: Path, tmp_path: Path) -> None:
    files, proxy = place.files, place.proxy
    files.write("warm", b"up")
    for operation, method in (
        (lambda: files.write("a", b"1"), "PUT"),
        (lambda: files.read("a"), "GET"),
        (lambda: files.size("a"), "HEAD"),
        (lambda: files.size("none"), "HEAD"),
        (lambda: list(files.found("")), "GET"),
        (lambda: files.upload(small, "b"), "PUT"),
        (lambda: files.download("b", tmp_path / "copy"), "GET"),
        (lambda: files.remove("a"), "DELETE"),
    ):
        proxy.forget()
        operation()
        assert [seen for seen, _ in proxy.requests] == [method]


def test_a_listing_is_one_request_for_as_many_files_as_fit_in_an_answer(place: Place, bucket, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(s3_files, "LISTED", 20)
    direct = S3Files(bucket.address, bucket.credentials)
    names = {f"records/{number:04}" for number in range(41)}
    direct.each(lambda name: direct.write(name, b""), names)
    assert {entry.name for entry in place.files.found("records/")} == names
    assert place.proxy.count("GET") == 3


def test_a_large_file_is_sent_a_few_parts_at_a_time(place: Place, large: Path) -> None:
    files = place.files
    files.write("warm", b"up")
    place.proxy.fault = Fault(delay=0.1)
    at_once = []
    for name in ("x", "y", "z"):
        place.proxy.forget()
        tracemalloc.start()
        files.upload(large, name)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert place.proxy.count("PUT", "partNumber=") == 5
        assert peak < s3_files.PART
        at_once.append(place.proxy.most_at_once)
    assert min(at_once) == s3_files.PARTS_AT_ONCE, "the proxy may count one that is answered already"


def test_a_large_file_is_fetched_in_little_memory(place: Place, large: Path, tmp_path: Path) -> None:
    place.files.upload(large, "x")
    tracemalloc.start()
    place.files.download("x", tmp_path / "copy")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * MB


# --- bad days that end

PASSING = {
    "refused": REFUSE,
    "slow down": SLOW_DOWN,
    "server error": SERVER_ERROR,
    "too many requests": Fault(status=429, code="TooManyRequests"),
    "time-out": Fault(status=400, code="RequestTimeout"),
    "answer lost": Fault(lose_answer=True),
    "answer cut": Fault(cut_answer=0.5),
    "request cut": Fault(cut_request=0.5),
    "request damaged": Fault(flip_request=0.5),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_small_operations_outlast_two_faults(place: Place, fault: Fault) -> None:
    files, proxy = place.files, place.proxy
    proxy.next(fault, fault)
    files.write("a/b", b"content" * 100)
    proxy.next(fault, fault)
    assert files.read("a/b") == b"content" * 100
    if fault.status != 400:  # an answer to HEAD has no words, and this number alone does not say that it passes
        proxy.next(fault, fault)
    assert files.size("a/b") == 700
    proxy.next(fault, fault)
    assert [entry.name for entry in files.found("a/")] == ["a/b"]
    proxy.next(fault, fault)
    files.remove("a/b")
    proxy.next()
    assert files.size("a/b") is None


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_transfers_outlast_a_fault(place: Place, small: Path, tmp_path: Path, fault: Fault) -> None:
    place.proxy.next(fault)
    place.files.upload(small, "x")
    place.proxy.next(fault)
    place.files.download("x", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == small.read_bytes()


@pytest.mark.parametrize("fault", [REFUSE, SERVER_ERROR, Fault(lose_answer=True), Fault(cut_request=0.5), Fault(flip_request=0.5)])
def test_only_the_part_that_failed_is_sent_again(place: Place, medium: Path, small_parts: None, tmp_path: Path, fault: Fault) -> None:
    second = iter([fault])
    place.proxy.fault = lambda method, path: next(second, PASS) if "partNumber=2" in path else PASS
    place.files.upload(medium, "x")
    assert place.proxy.count("PUT", "partNumber=2") == 2
    assert place.proxy.count("PUT", "partNumber=") == 4
    place.files.download("x", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == medium.read_bytes()


def test_a_damaged_body_is_refused_by_the_server_and_sent_again(place: Place, small: Path) -> None:
    place.proxy.next(Fault(flip_request=0.5))
    place.files.upload(small, "x")
    assert place.proxy.count("PUT") == 2
    assert place.files.read("x") == small.read_bytes()


def test_the_answer_that_completes_an_upload_may_be_lost(place: Place, medium: Path, small_parts: None) -> None:
    once = iter([Fault(lose_answer=True)])
    place.proxy.fault = lambda method, path: next(once, PASS) if method == "POST" and "uploadId=" in path else PASS
    place.files.upload(medium, "x")
    assert place.files.size("x") == MEDIUM


def test_a_download_goes_on_where_it_was_cut(place: Place, medium: Path, small_parts: None, tmp_path: Path) -> None:
    place.files.upload(medium, "x")
    place.proxy.forget()
    place.proxy.next(Fault(cut_answer=0.5), Fault(cut_answer=MB), Fault(cut_answer=0), SLOW_DOWN)
    told: list[int] = []
    place.files.download("x", tmp_path / "copy", told.append)
    assert (tmp_path / "copy").read_bytes() == medium.read_bytes()
    assert sum(told) == MEDIUM
    assert place.proxy.count("GET") == 5
    assert place.proxy.bytes_answered < 1.3 * MEDIUM  # what was in buffers at a cut comes again


def test_a_file_that_changes_while_it_is_fetched_is_fetched_anew(place: Place, medium: Path, small: Path, tmp_path: Path) -> None:
    place.files.upload(medium, "x")
    place.proxy.next(Fault(cut_answer=0.5))
    replaced: list[int] = []

    def replace(count: int) -> None:
        if not replaced:
            replaced.append(count)
            place.files.upload(small, "x")

    place.files.download("x", tmp_path / "copy", replace)
    assert (tmp_path / "copy").read_bytes() == small.read_bytes()


def test_many_at_once_outlast_a_server_that_is_down(place: Place) -> None:
    place.files.write("warm", b"up")
    place.proxy.down()
    up = threading.Timer(1.0, place.proxy.up)
    up.start()
    place.files.each(lambda name: place.files.write(name, name.encode()), [str(number) for number in range(20)])
    assert len(list(place.files.found(""))) == 21


def test_a_server_that_is_killed_during_an_upload_and_comes_back(place: Place, seaweed: Seaweed, large: Path, tmp_path: Path) -> None:
    place.proxy.fault = Fault(delay=0.3)
    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(place.with_patience(30).upload, large, "x")
        while place.proxy.count("PUT", "partNumber=") < 5:
            time.sleep(0.01)
        seaweed.stop()
        time.sleep(0.5)
        assert not upload.done()
        seaweed.start()
        upload.result()
    place.proxy.fault = PASS
    place.files.download("x", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()


# --- bad days that don't

LASTING = {"refused": REFUSE, "server error": SERVER_ERROR, "no answer": SILENT, "answer cut": Fault(cut_answer=0.5)}


@pytest.mark.parametrize("fault", LASTING.values(), ids=LASTING)
def test_patience_ends(place: Place, fault: Fault) -> None:
    files = place.with_patience(3)
    place.files.write("a", b"content" * 100)
    place.proxy.forget()
    place.proxy.fault = fault
    started = time.monotonic()
    with pytest.raises(StoreFailed, match=r"store s3://bucket-.*: can't be reached") as failure:
        files.read("a")
    assert time.monotonic() - started > 3
    assert 1 < place.proxy.count("GET") < 100
    assert "\n" not in str(failure.value) and "127.0.0.1" not in str(failure.value)


def test_a_failed_upload_leaves_no_parts(place: Place, medium: Path, small_parts: None) -> None:
    files = place.with_patience(5)
    place.proxy.fault = lambda method, path: SLOW_DOWN if "partNumber=2" in path else PASS
    with pytest.raises(StoreFailed, match=r"can't be reached \(it answers 503 SlowDown\)"):
        files.upload(medium, "x")
    assert place.proxy.requests[-1][0] == "DELETE"
    assert place.files.size("x") is None


def test_a_body_that_is_always_damaged_is_never_stored(place: Place, small: Path) -> None:
    files = place.with_patience(0.6)
    place.proxy.fault = Fault(flip_request=0.5)
    with pytest.raises(StoreFailed):
        files.upload(small, "x")
    place.proxy.fault = PASS
    assert files.size("x") is None


def test_a_refusal_is_told_at_once(place: Place) -> None:
    for status, code, words in (
        (403, "AccessDenied", "access denied: check the credentials"),
        (403, "RequestTimeTooSkewed", "the clock of this machine is wrong"),
        (301, "PermanentRedirect", "the bucket is in another region"),
        (400, "Whatever", r"the server refuses \(400 Whatever\)"),
    ):
        place.proxy.forget()
        place.proxy.fault = Fault(status=status, code=code)
        with pytest.raises(StoreFailed, match=words):
            place.files.write("a", b"")
        assert place.proxy.count("PUT") == 1


def operations(files: Files, path: Path) -> list[Callable[[], object]]:
    return [
        lambda: files.read("x"),
        lambda: files.write("x", b""),
        lambda: files.upload(path, "x"),
        lambda: files.download("x", path.with_name("copy")),
        lambda: files.remove("x"),
        lambda: list(files.found("")),
    ]


def test_wrong_credentials_are_told_at_once(seaweed: Seaweed, bucket, large: Path) -> None:  # type: ignore[no-untyped-def]
    for field in ("aws_secret_access_key", "aws_access_key_id"):
        files = S3Files(bucket.address, bucket.credentials.model_copy(update={field: type(getattr(bucket.credentials, field))("wrong")}))
        for operation in operations(files, large):
            with pytest.raises(StoreFailed, match="access denied: check the credentials") as failure:
                operation()
            assert seaweed.secret_key not in str(failure.value)


def test_a_bucket_that_is_not_there_is_told_at_once(bucket, large: Path) -> None:  # type: ignore[no-untyped-def]
    for operation in operations(S3Files("s3://not-there/prefix", bucket.credentials), large):
        with pytest.raises(StoreFailed, match="store s3://not-there/prefix: there is no bucket of that name"):
            operation()


def test_no_credentials_and_bad_settings_are_told_at_once(bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StoreFailed, match="not a valid name of a bucket"):
        S3Files("s3://No Bucket", bucket.credentials).read("x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(StoreFailed, match="the endpoint is not a valid URL"):
        S3Files(bucket.address, None).read("x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreFailed, match="no credentials"):
        S3Files(bucket.address, None).read("x")


@pytest.mark.parametrize(
    "address", ["bucket/prefix", "s3://", "s3:///prefix", "s3://key:secret@bucket/prefix", "https://bucket", "s3://bucket/../x"]
)
def test_what_is_no_address_is_a_bad_setting(address: str) -> None:
    with pytest.raises(BadSetting) as failure:
        S3Files(address, None)
    assert "secret" not in str(failure.value)


# --- where it is used


def test_addresses_are_tolerant_of_slashes(bucket) -> None:  # type: ignore[no-untyped-def]
    name = bucket.address.split("/")[2]
    S3Files(f"s3://{name}/", bucket.credentials).write("prefix/a", b"1")
    assert S3Files(f"s3://{name}/prefix//", bucket.credentials).read("a") == b"1"
    assert S3Files(f"s3://{name}", bucket.credentials).where == f"s3://{name}"
    assert [entry.name for entry in S3Files(f"s3://{name}/prefix", bucket.credentials).found("")] == ["a"]


def test_the_environment_has_the_account(seaweed: Seaweed, bucket, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    files = S3Files(bucket.address, None)
    files.write("a", b"1")
    assert files.read("a") == b"1"


def test_a_forked_process_has_connections_of_its_own(place: Place) -> None:
    place.files.write("parent", b"1")
    child = os.fork()
    if not child:
        try:
            place.files.write("child", place.files.read("parent"))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert place.files.read("child") == b"1"


def test_nothing_is_said_on_standard_error(
    place: Place, small: Path, medium: Path, small_parts: None, capfd: pytest.CaptureFixture[str]
) -> None:
    files = place.with_patience(0.1)
    place.files.write("x", b"content" * 1000)
    for fault in (REFUSE, SILENT, Fault(cut_request=0.5), Fault(lose_answer=True), Fault(cut_answer=0.5)):
        place.proxy.fault = fault
        for operation in (lambda: files.upload(medium, "z"), lambda: files.upload(small, "y"), lambda: files.read("x")):
            with suppress(StoreFailed):
                operation()
    gc.collect()
    assert capfd.readouterr().err == ""
