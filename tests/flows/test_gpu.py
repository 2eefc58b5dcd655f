"""A person and the GPU server: the verbs of `coursedub gpu`, and the flow on a schedule. Nova is played, PostgreSQL is real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.gpu_server import GpuServer, open_gpu_server
from blocks.leases import Leases
from dubbing.errors import BadSetting, CloudDown, LeasesDown, NoLease, PassingFault, PersonNeeded, ServerNotReady
from flows import command_line
from tasks import alerts
from tests.conftest import ROOT
from tests.nova import ACTIVE, OFFLOADED, SERVER, Nova, State
from tests.postgres import let_pass


@pytest.fixture
def nova(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nova]:
    with Nova() as played:
        settings = {**played.settings, "database": database, "price_per_hour": 3, "poll": 0}
        for module in ("blocks.gpu_server", "flows.keep_gpu_server"):
            monkeypatch.setattr(f"{module}.open_gpu_server", lambda name: GpuServer(**settings))
        yield played


@pytest.fixture
def leases(database: str) -> Leases:
    return Leases(database, SERVER)


def coursedub(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert command_line.main(["gpu", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])  # type: ignore[no-any-return]


def test_up_wakes_it_and_holds_it_for_an_hour(nova: Nova, database: str, capsys: pytest.CaptureFixture[str]) -> None:
    nova.becomes(OFFLOADED)
    now = coursedub(capsys, "up", "--reason", "a look at the logs")
    assert nova.state == ACTIVE and now["state"] == "ACTIVE" and now["wanted"] == "up"
    assert now["order"]["kind"] == "up" and now["order"]["reason"] == "a look at the logs"
    let_pass(database, 3601)
    now = coursedub(capsys, "status")
    assert now["order"] is None and now["wanted"] == "keep" and 1.0 <= now["hours_in_24"] < 1.1 and 3.0 <= now["cost_in_24"] < 3.3


def test_down_shelves_it_at_once(nova: Nova, capsys: pytest.CaptureFixture[str]) -> None:
    assert coursedub(capsys, "down")["state"] == "SHELVED_OFFLOADED"
    assert nova.actions == ["shelve"]


def test_down_takes_it_from_nobody(nova: Nova, leases: Leases, capsys: pytest.CaptureFixture[str]) -> None:
    leases.take("lesson 1", "dub lesson 1")
    now = coursedub(capsys, "down")
    assert now["state"] == "ACTIVE" and not nova.actions
    assert [(one["owner"], one["reason"]) for one in now["leases"]] == [("lesson 1", "dub lesson 1")]


def test_hold_forbids_it_until_that_is_lifted(nova: Nova, leases: Leases, capsys: pytest.CaptureFixture[str]) -> None:
    assert "forbidden" in coursedub(capsys, "hold", "forbid")["closed"]
    with pytest.raises(NoLease):
        leases.take("lesson 1", "dub")
    assert command_line.main(["gpu", "up"]) == NoLease.exit_code
    assert "forbidden by" in capsys.readouterr().err
    assert "forbidden" in coursedub(capsys, "down")["closed"], "who only wants it down doesn't lift that"
    assert coursedub(capsys, "hold", "lift")["closed"] == ""
    leases.take("lesson 1", "dub")


def test_history_says_for_whom_and_what_it_cost(nova: Nova, leases: Leases, database: str, capsys: pytest.CaptureFixture[str]) -> None:
    nova.becomes(OFFLOADED)
    coursedub(capsys, "up")
    lease = leases.take("lesson 1", "dub", seconds=3600)
    coursedub(capsys, "hold", "lift")
    let_pass(database, 1800)
    leases.give_back(lease)
    let_pass(database, 900)
    coursedub(capsys, "down")
    past = coursedub(capsys, "history")
    (waking,) = past["wakings"]
    assert waking["for"]["lesson 1"]["cost"] == pytest.approx(1.5, abs=0.1)
    assert waking["idle"]["cost"] == pytest.approx(0.75, abs=0.1) == past["idle_cost"]
    assert past["cost"] == pytest.approx(past["idle_cost"] + sum(past["cost_by_owner"].values()), abs=0.001)
    assert waking["up"] and waking["to"]
    assert command_line.main(["gpu", "history"]) == 0
    assert "lesson 1" in capsys.readouterr().out


def test_status_tells_what_is_known_when_the_cloud_is_away(nova: Nova, capsys: pytest.CaptureFixture[str]) -> None:
    nova.faults = [("GET", "503")] * 9
    now = coursedub(capsys, "status")
    assert now["state"] is None and "503" in now["tell"]
    nova.faults.clear()
    assert command_line.main(["gpu", "status"]) == 0
    assert "ACTIVE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("state", "arguments", "error"),
    [
        (State("error", host=False), ["up"], PersonNeeded),
        (State("deleted", host=False), ["up"], PersonNeeded),
        (OFFLOADED, ["up", "--within", "0"], ServerNotReady),
    ],
)
def test_each_failure_has_its_exit_code(
    nova: Nova, capsys: pytest.CaptureFixture[str], state: State, arguments: list[str], error: type[PersonNeeded | ServerNotReady]
) -> None:
    nova.becomes(state)
    nova.place.capacity = False
    assert command_line.main(["gpu", *arguments]) == error.exit_code
    assert "coursedub: GPU server: " in capsys.readouterr().err


def test_without_a_server_or_a_database_the_setting_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("COURSEDUB_GPU_SERVER", "COURSEDUB_LEASES"):
        monkeypatch.delenv(name, raising=False)
    assert command_line.main(["gpu", "status"]) == BadSetting.exit_code
    assert "COURSEDUB_GPU_SERVER" in capsys.readouterr().err
    assert command_line.main(["gpu", "status", "--server", SERVER]) == BadSetting.exit_code
    assert "COURSEDUB_LEASES" in capsys.readouterr().err
    monkeypatch.setenv("COURSEDUB_LEASES", "postgresql://me:hush@127.0.0.1:9/none")
    monkeypatch.setattr("blocks.gpu_server.Leases", lambda database, server, limits: Leases(database, server, limits, patience=0))
    assert command_line.main(["gpu", "status", "--server", SERVER]) == LeasesDown.exit_code
    assert "hush" not in capsys.readouterr().err


def test_a_block_is_not_to_be_had_while_prefect_is_down(capsys: pytest.CaptureFixture[str]) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert command_line.main(["gpu", "status", "--server", "ours"]) == PassingFault.exit_code
    assert "a server's id in the cloud needs no Prefect" in capsys.readouterr().err


def test_no_order_is_for_ages_and_no_history_from_before_there_was_one(nova: Nova, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["gpu", "hold", "forbid", "--hours", "1e9"]) == BadSetting.exit_code
    assert "8784 at most" in capsys.readouterr().err
    assert coursedub(capsys, "history", "--days", "1e9")["wakings"] == [] == coursedub(capsys, "history", "--days", "999999")["wakings"]


def test_bad_settings_name_the_field() -> None:
    for settings, field in (
        ({"server_id": "gpu"}, "server_id"),
        ({"server_id": SERVER, "auth_url": "https://cloud.example/v3"}, "application_credential_id"),
    ):
        with pytest.raises(BadSetting, match=field):
            GpuServer(**settings)


def test_secrets_are_not_shown() -> None:
    server = GpuServer(server_id=SERVER, auth_url="a", application_credential_id="b", application_credential_secret="hush", database="hush")
    assert "hush" not in repr(server) and "hush" not in str(server.model_dump(mode="json"))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """What somebody is told of the server, by the event's name."""
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(alerts, "emit_event", lambda event, resource, payload: told.append((event, payload["tell"])))
    yield told
    for event in alerts.ALERTS:
        alerts.over(event, SERVER)


@pytest.mark.usefixtures("prefect_server")
class TestTheFlow:
    def test_on_a_schedule_it_shelves_what_nobody_needs_and_wakes_nothing(self, nova: Nova, leases: Leases, database: str) -> None:
        from flows.keep_gpu_server import keep_gpu_server

        for _ in range(3):
            keep_gpu_server()
        assert not nova.actions
        let_pass(database, 16 * 60)
        for _ in range(8):
            now = keep_gpu_server()
        assert nova.actions == ["shelve"] and now["state"] == "SHELVED_OFFLOADED"
        leases.take("lesson 1", "dub")
        keep_gpu_server()
        assert nova.actions == ["shelve"]

    def test_an_order_is_carried_out_and_the_history_is_an_artifact(self, nova: Nova) -> None:
        from prefect.client.orchestration import get_client

        from flows.keep_gpu_server import keep_gpu_server

        nova.becomes(OFFLOADED)
        assert keep_gpu_server(order="up", hours=2, person="anna")["state"] == "ACTIVE"
        with get_client(sync_client=True) as client:
            artifacts = [one for one in client.read_artifacts() if one.key == "gpu-server-history" and one.created]
        artifact = max(artifacts, key=lambda one: one.created)
        assert "anna" in str(artifact.data) and "still up" in str(artifact.data)

    def test_a_server_saved_as_a_block_is_opened_by_name(self, database: str) -> None:
        settings: dict[str, Any] = {"server_id": SERVER, "auth_url": "https://cloud.example/v3", "application_credential_id": "a"}
        saved = GpuServer(**settings, application_credential_secret="hush", database=database, hours_a_day=8)
        saved.save("lecture-hall", overwrite=True)
        for name in ("lecture-hall", "coursedub-gpu-server/lecture-hall"):
            opened = open_gpu_server(name)
            assert opened.application_credential_secret.get_secret_value() == "hush"
            assert opened.leases().facts().leases == () and opened.limits.hours == 8
        with pytest.raises(BadSetting, match="no such block"):
            open_gpu_server("another")

    def test_a_machine_may_have_a_way_of_its_own_to_the_leases(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        GpuServer(server_id=SERVER, database="postgresql://from.elsewhere/leases").save("elsewhere", overwrite=True)
        monkeypatch.setenv("COURSEDUB_LEASES", database)
        assert open_gpu_server("elsewhere").leases().facts().leases == ()

    def test_what_needs_a_person_fails_the_run_and_is_told_once(self, nova: Nova, told: list[tuple[str, str]]) -> None:
        from flows.keep_gpu_server import keep_gpu_server

        nova.becomes(State("error", host=False))
        for _ in range(2):
            with pytest.raises(PersonNeeded):
                keep_gpu_server()
        ((event, text),) = told
        assert event == alerts.PERSON_NEEDED and "ERROR" in text
        nova.becomes(ACTIVE)
        keep_gpu_server()
        nova.becomes(State("error", host=False))
        with pytest.raises(PersonNeeded):
            keep_gpu_server()
        assert len(told) == 2, "it was well in between"

    def test_a_limit_that_is_reached_is_told_and_a_person_s_order_is_not(
        self, nova: Nova, leases: Leases, database: str, monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, str]]
    ) -> None:
        from flows.keep_gpu_server import keep_gpu_server

        keep_gpu_server(order="forbid", person="anna")
        keep_gpu_server(order="lift", person="anna")
        assert not told
        server = GpuServer(**nova.settings, database=database, price_per_hour=3, poll=0, hours_a_day=1)
        monkeypatch.setattr("flows.keep_gpu_server.open_gpu_server", lambda name: server.model_copy())
        nova.becomes(ACTIVE)
        leases.take("lesson 1", "dub")
        keep_gpu_server()
        let_pass(database, 3700)
        for _ in range(2):
            keep_gpu_server()
        (text,) = [text for event, text in told if event == alerts.LIMIT_REACHED]
        assert "the limit is 1" in text

    def test_a_cloud_that_is_away_fails_the_run_and_the_next_goes_on(self, nova: Nova) -> None:
        from flows.keep_gpu_server import keep_gpu_server

        nova.faults = [("GET", "503")] * 4
        with pytest.raises(CloudDown):
            keep_gpu_server()
        assert keep_gpu_server()["state"] == "ACTIVE"


def test_help_needs_no_package_of_the_cloud() -> None:
    program = (
        "import sys\nsys.modules.update(openstack=None, psycopg=None)\nfrom flows.command_line import main\nimport flows.gpu\n"
        f"sys.exit(main(['gpu', 'status', '--server', '{SERVER}']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=_with_leases())
    assert done.returncode == BadSetting.exit_code and "coursedub[gpu-server]" in done.stderr


def _with_leases() -> dict[str, str]:
    return {**os.environ, "COURSEDUB_LEASES": "postgresql://nobody@127.0.0.1:9/none", "PYTHONPATH": str(ROOT)}
