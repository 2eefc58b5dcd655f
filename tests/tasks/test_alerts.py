"""What somebody is told of the GPU server, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from prefect.logging import disable_run_logger

from dubbing.errors import CoursedubError, NoLease, PersonNeeded, ServerNotReady
from tasks import alerts
from tasks.alerts import LIMIT_REACHED, NOT_WOKEN, PERSON_NEEDED, alert, over
from tasks.hand_over import _wake


@pytest.fixture
def server(prefect_server: None) -> str:
    return str(uuid4())


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(alerts, "emit_event", lambda event, resource, payload: told.append((event, payload["tell"])))
    yield told


def test_what_lasts_is_told_when_it_begins_and_when_it_is_something_else(server: str, told: list[tuple[str, str]]) -> None:
    for text in ("in ERROR for 5 min", "in ERROR for 6 min", "PAUSED for 1 min", "PAUSED for 2 min"):
        alert(PERSON_NEEDED, server, text)
    alert(LIMIT_REACHED, server, "over")
    alert(PERSON_NEEDED, str(uuid4()), "in ERROR for 5 min")
    assert [text for _, text in told] == ["in ERROR for 5 min", "PAUSED for 1 min", "over", "in ERROR for 5 min"]


def test_what_was_over_is_new(server: str, told: list[tuple[str, str]]) -> None:
    alert(PERSON_NEEDED, server, "in ERROR")
    over(PERSON_NEEDED, server)
    over(PERSON_NEEDED, server)
    alert(PERSON_NEEDED, server, "in ERROR")
    assert len(told) == 2


def test_what_lasts_for_a_day_is_told_again(server: str, told: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    alert(PERSON_NEEDED, server, "in ERROR")
    monkeypatch.setattr(alerts, "AGAIN", timedelta(0))
    alert(PERSON_NEEDED, server, "in ERROR")
    assert len(told) == 2


def test_where_nobody_remembers_it_is_told_rather_twice_than_never(
    server: str, told: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise httpx.ConnectError("away")

    monkeypatch.setattr(alerts.Variable, "get", away)
    monkeypatch.setattr(alerts.Variable, "set", away)
    assert alert(NOT_WOKEN, server, "not up") and alert(NOT_WOKEN, server, "not up")


@pytest.mark.parametrize(
    "error, tells",
    [(ServerNotReady("not up"), True), (PersonNeeded("in ERROR"), True), (NoLease("forbidden"), False)],
    ids=["not ready", "needs a person", "closed"],
)
def test_a_server_that_a_lesson_can_not_wake_is_told_of(
    server: str, told: list[tuple[str, str]], error: CoursedubError, tells: bool
) -> None:
    def drive(*_: object, **__: object) -> None:
        raise error

    keeper = SimpleNamespace(drive=drive, server=SimpleNamespace(server_id=server))
    with disable_run_logger(), pytest.raises(type(error)):
        _wake(keeper, SimpleNamespace(lease=None))  # type: ignore[arg-type]
    assert told == ([(NOT_WOKEN, str(error))] if tells else [])
