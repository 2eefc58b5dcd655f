"""The watchdog before a Nova that is played and a PostgreSQL that is real: with the database, without it, and when it is back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from blocks import leases as leases_module
from blocks.gpu_server import GpuServer
from blocks.keeper import Keeper
from blocks.leases import Leases
from blocks.watchdog import PERSON, keep
from dubbing.errors import BadSetting, CloudDown, LeasesDown, NoLease, PersonNeeded
from dubbing.watchdog import Notes
from flows import command_line
from tests.conftest import ROOT
from tests.nova import ACTIVE, OFFLOADED, SERVER, Nova, State
from tests.postgres import Postgres, let_pass


class World:
    """A server and its watchdog, and a clock that only the test moves on."""

    def __init__(self, nova: Nova, database: str, file: Path, **settings: Any) -> None:
        self.nova, self.database, self.file = nova, database, file
        self.settings = {**nova.settings, "database": database, "retries": 0, "price_per_hour": 2.0, **settings}
        self.now = datetime.now(UTC)
        self.database_there = True
        self._client: Any = None
        nova.clock = lambda: self.now.timestamp()

    @property
    def leases(self) -> Leases:
        """As those who work have them: without the watchdog's limits."""
        return Leases(self.database, SERVER)

    def later(self, minutes: float) -> None:
        self.now += timedelta(minutes=minutes)
        if self.database_there:
            let_pass(self.database, 60 * minutes)

    def keep(self) -> str:
        """What it says, or what it fails with."""
        server = GpuServer(**self.settings)
        server._client, self._client = self._client, None  # a token and what it takes to have one are no part of what is tested
        try:
            return keep(server, self.file, self.now)
        finally:
            self._client = server._client

    def watch(self, minutes: int, every: int = 1) -> list[str]:
        """A pass each minute, or every few, for so many minutes."""
        said = []
        for _ in range(0, minutes, every):
            try:
                said.append(self.keep())
            except LeasesDown as error:
                said.append(f"{error.exit_code}: {error}")
            self.later(every)
        return said


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is away isn't waited for: a test makes hundreds of passes without one."""
    monkeypatch.setattr(Leases.__init__, "__defaults__", (*(Leases.__init__.__defaults__ or ())[:-1], 0.0))
    assert Leases("", "")._patience == 0.0 and leases_module.PATIENCE == 30.0


@pytest.fixture
def nova() -> Iterator[Nova]:
    with Nova() as played:
        yield played


@pytest.fixture
def world(nova: Nova, database: str, tmp_path: Path) -> World:
    return World(nova, database, tmp_path / "state" / "notes.json")


@pytest.fixture
def lost(world: World, postgres: Postgres) -> Iterator[World]:
    """The database is lost, after a pass with it."""
    world.keep()
    postgres.stop()
    world.database_there = False
    yield world
    postgres.stop()
    postgres.start()


def test_it_shelves_what_nobody_needs_and_wakes_nothing(world: World, nova: Nova) -> None:
    world.watch(20)
    assert nova.actions == ["shelve"] and nova.state == OFFLOADED
    world.leases.take("lesson 1", "dub")
    assert "left to who needs it" in world.keep()
    assert nova.actions == ["shelve"]


def test_work_without_a_limit_is_left_alone(world: World, nova: Nova) -> None:
    lease = world.leases.take("lesson 1", "dub", 3600)
    for _ in range(6):
        world.watch(10, every=5)
        lease = world.leases.renew(lease, 3600)
    assert nova.actions == []


@pytest.mark.parametrize("limit", [{"hours_a_day": 2.0}, {"cost_a_day": 4.0}], ids=["hours", "cost"])
def test_over_a_limit_those_who_renew_for_ever_may_finish_and_it_goes_down(world: World, nova: Nova, limit: dict[str, float]) -> None:
    """They know of no limit: only the watchdog's settings have it."""
    world.settings |= limit
    lease = world.leases.take("lesson 1", "dub", 600)
    began, refused = world.now, None
    for _ in range(50):
        world.watch(4, every=4)
        try:
            lease = world.leases.renew(lease, 600)
        except NoLease as error:
            assert PERSON in str(error) and "limit" in str(error)
            refused = refused or world.now
    assert refused is not None and timedelta(minutes=119) <= refused - began <= timedelta(minutes=128)
    (shelved,) = [entry for entry in nova.log if entry.what == "shelve"]
    assert 60 <= shelved.at - refused.timestamp() <= 600 + 240, "not before the last lease has ended, and then at once"
    with pytest.raises(NoLease):
        world.leases.take("lesson 2", "dub")


def test_who_lifts_the_watchdogs_order_meets_it_again_within_a_minute(world: World) -> None:
    world.settings |= {"hours_a_day": 1.0}
    lease = world.leases.take("lesson 1", "dub", 3600)
    world.watch(65, every=5)
    world.leases.order("lift", "anna")
    world.watch(1)
    with pytest.raises(NoLease):
        world.leases.renew(lease)


def test_a_limit_is_watched_over_without_a_minute_between_two_orders(world: World, nova: Nova) -> None:
    world.settings |= {"hours_a_day": 1.0}
    world.leases.order("up", "anna", hours=20)
    world.watch(65, every=5)
    for _ in range(30):
        world.watch(5, every=5)
        with pytest.raises(NoLease):
            world.leases.take("lesson", "dub")
    assert nova.actions == ["shelve"]


def test_what_a_person_forbids_for_good_stays_so(world: World) -> None:
    world.settings |= {"hours_a_day": 1.0}
    world.leases.take("lesson 1", "dub", 3600)
    world.watch(50, every=5)
    world.leases.order("forbid", "anna")
    world.watch(30, every=5)
    order = world.leases.facts().order
    assert order and order.person == "anna" and order.until is None


def test_history_that_was_lost_takes_back_no_limit(world: World, postgres: Postgres) -> None:
    """As after a restored backup: the notes know what the database doesn't."""
    world.settings |= {"hours_a_day": 1.0}
    world.leases.take("lesson 1", "dub", 3600)
    world.watch(56, every=4)
    postgres.clear()
    world.leases.take("lesson 1", "dub", 3600)
    world.watch(12, every=4)
    with pytest.raises(NoLease, match="limit is 1"):
        world.leases.take("lesson 2", "dub")


def test_a_restart_of_the_database_costs_no_work(lost: World, postgres: Postgres, nova: Nova) -> None:
    said = lost.watch(40, every=4)
    assert all(line.startswith("36: ") and "in which a lease may hold" in line for line in said)
    postgres.start()
    lost.database_there = True
    lease = lost.leases.take("lesson 1", "dub", 3600)
    for _ in range(3):
        lost.watch(30, every=5)
        lease = lost.leases.renew(lease, 3600)
    assert nova.actions == []


def test_a_database_that_stays_lost_ends_the_cost_when_no_lease_can_hold(lost: World, nova: Nova) -> None:
    lost.watch(75)
    assert nova.actions == []
    said = lost.watch(10)
    assert nova.actions == ["shelve"] and nova.state == OFFLOADED
    assert "shelve: accepted" in said[0] and "as it shall be" in said[-1]
    lost.watch(10)
    assert nova.actions == ["shelve"]


def test_each_further_waking_without_the_database_ends_too(lost: World, nova: Nova) -> None:
    lost.watch(75, every=5)
    lost.watch(10)
    nova.becomes(ACTIVE)
    lost.watch(75, every=5)
    assert nova.actions == ["shelve"]
    lost.watch(10)
    assert nova.actions == ["shelve", "shelve"] and nova.state == OFFLOADED


def test_faults_of_the_cloud_meanwhile_are_lived_through(lost: World, nova: Nova) -> None:
    lost.watch(74)
    nova.faults = [("GET", "503")]
    with pytest.raises(CloudDown):
        lost.keep()
    lost.later(1)
    nova.faults = [("POST", "reply lost")]
    assert "unknown" in lost.watch(1)[0]
    lost.watch(10)
    assert nova.actions == ["shelve"] and nova.state == OFFLOADED


def test_a_shelve_that_fails_is_tried_again_at_longer_and_longer_intervals(lost: World, nova: Nova) -> None:
    nova.place.snapshots_work = False
    lost.watch(75, every=5)
    lost.watch(60)
    times = [entry.at for entry in nova.log if entry.what == "shelve"]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(times) >= 4 and gaps == sorted(gaps) and gaps[-1] >= 480
    nova.place.snapshots_work = True
    lost.watch(30)
    assert nova.state == OFFLOADED


def test_where_the_database_refuses_only_the_watchdog_others_go_on_working(world: World, nova: Nova) -> None:
    lease = world.leases.take("lesson 1", "dub", 3600)
    world.keep()
    world.settings |= {"database": world.database.replace("coursedub@", "nobody-we-know@")}
    for _ in range(4):
        assert "others may reach the leases" in world.watch(30, every=5)[-1]
        lease = world.leases.renew(lease, 3600)
    assert nova.actions == []
    world.settings |= {"hours_a_day": 2.5}  # and an hour
    world.watch(85, every=5)
    assert nova.actions == []
    world.watch(10)
    assert nova.actions == ["shelve"]


def test_what_needs_a_person_is_said_with_and_without_the_database(lost: World, postgres: Postgres, nova: Nova) -> None:
    nova.becomes(State("error", host=False))
    lost.watch(75, every=5)
    with pytest.raises(PersonNeeded):
        lost.keep()
    postgres.start()
    with pytest.raises(PersonNeeded):
        lost.keep()


def test_damaged_notes_are_begun_anew(lost: World, nova: Nova) -> None:
    lost.watch(75, every=5)
    lost.file.write_text('{"up": "always"')
    lost.watch(5)
    assert nova.actions == []
    assert Notes.model_validate_json(lost.file.read_bytes()).lost_for() == 240


def test_notes_that_cannot_be_kept_are_told_after_the_pass(world: World, nova: Nova, tmp_path: Path) -> None:
    world.leases.order("down", "anna", hours=1)
    (tmp_path / "no folder").touch()
    world.file = tmp_path / "no folder" / "notes.json"
    with pytest.raises(BadSetting, match=r"notes\.json"):
        world.keep()
    assert nova.actions == ["shelve"]


def test_two_at_once_do_not_meet(world: World, nova: Nova) -> None:
    world.keep()
    keeper = Keeper(GpuServer(**world.settings))
    with keeper.leases.locked() as locked:
        assert locked is not None
        assert world.keep() == "another keeper makes a pass just now"
    holder = subprocess.Popen(["flock", f"{world.file}.lock", "sleep", "600"])
    try:
        until = time.monotonic() + 60
        while world.keep() != "another watchdog makes a pass just now":
            assert time.monotonic() < until
    finally:
        holder.kill()
        holder.wait()


# --- the command


def environment(nova: Nova, database: str, folder: Path, **more: str) -> dict[str, str]:
    """All that it needs, and no Prefect server."""
    cloud = {
        **{"OS_AUTH_TYPE": "v3applicationcredential", "OS_AUTH_URL": nova.settings["auth_url"], "OS_REGION_NAME": "Played"},
        **{"OS_APPLICATION_CREDENTIAL_ID": "played", "OS_APPLICATION_CREDENTIAL_SECRET": nova.settings["application_credential_secret"]},
    }
    ours = {"COURSEDUB_GPU_SERVER": SERVER, "COURSEDUB_LEASES": database, "XDG_STATE_HOME": str(folder), "PYTHONPATH": str(ROOT)}
    dead = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "COURSEDUB_", "PREFECT_"))}
    return {**clean, **cloud, **ours, **dead, **more}


def coursedub(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.command_line", "gpu", *arguments], env=env, capture_output=True, text=True, check=False
    )


def test_the_command_needs_the_environment_alone(nova: Nova, database: str, tmp_path: Path) -> None:
    env = environment(nova, database, tmp_path, COURSEDUB_GRACE_MINUTES="0")
    done = coursedub("keep", env=env)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
    assert done.stdout.startswith(f"GPU server {SERVER}: idle since") and "ACTIVE: shelve" in done.stdout
    assert nova.actions == ["shelve"]
    notes = Notes.model_validate_json((tmp_path / "coursedub" / f"watchdog-{SERVER}.json").read_bytes())
    assert notes.passed is not None and len(notes.up) == 1


def test_the_command_says_with_its_exit_code_that_the_leases_are_out_of_reach(
    nova: Nova, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment(nova, f"postgresql://coursedub:hush@/postgres?host={tmp_path}", tmp_path).items():
        monkeypatch.setenv(name, value)
    assert command_line.main(["gpu", "keep"]) == LeasesDown.exit_code
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert "in which a lease may hold" in said.err and "hush" not in said.err


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("COURSEDUB_GPU_SERVER", "lecture-hall", "needs its id"),
        ("COURSEDUB_GPU_SERVER", "", "COURSEDUB_GPU_SERVER"),
        ("COURSEDUB_LEASES", "", "COURSEDUB_LEASES"),
        ("COURSEDUB_HOURS_A_DAY", "25", "COURSEDUB_HOURS_A_DAY=25"),
        ("COURSEDUB_HOURS_A_DAY", "0", "COURSEDUB_HOURS_A_DAY=0"),
        ("COURSEDUB_COST_A_DAY", "nan", "COURSEDUB_COST_A_DAY=nan"),
        ("COURSEDUB_COST_PER_HOUR", "-1", "COURSEDUB_COST_PER_HOUR=-1"),
        ("COURSEDUB_GRACE_MINUTES", "inf", "COURSEDUB_GRACE_MINUTES=inf"),
    ],
)
def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, said: str
) -> None:
    monkeypatch.setenv("COURSEDUB_GPU_SERVER", SERVER)
    monkeypatch.setenv("COURSEDUB_LEASES", "postgresql://nobody@127.0.0.1:9/none")
    monkeypatch.setenv(name, value)
    assert command_line.main(["gpu", "keep"]) == BadSetting.exit_code
    assert said in capsys.readouterr().err


def test_limits_and_grace_come_from_the_environment_where_a_block_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HOURS_A_DAY": "8", "COST_A_DAY": "20.5", "GRACE_MINUTES": "0", "COST_PER_HOUR": "2.5"}.items():
        monkeypatch.setenv(f"COURSEDUB_{name}", value)
    server = GpuServer(server_id=SERVER)
    assert (server.limits.hours, server.limits.cost, server.limits.grace, server.price_per_hour) == (8.0, 20.5, 0.0, 2.5)
    assert GpuServer(server_id=SERVER, hours_a_day=4).limits.hours == 4
