"""Leases on the GPU server, in a real PostgreSQL: who holds, who is let in, and what survives a crash of either side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta

import psycopg
import pytest

from blocks.leases import Leases
from dubbing.errors import BadSetting, LeasesDown, NoLease
from dubbing.power import Decision, Limits, Look
from tests.conftest import ROOT
from tests.postgres import Postgres, let_pass

SERVER = "6f1de2a4-3c1b-4b0e-9d1f-0a1b2c3d4e5f"
NOTHING = Decision(None, "")
UP, OFF = Look("ACTIVE", "active"), Look("SHELVED_OFFLOADED", "shelved_offloaded", has_host=False)


@pytest.fixture
def leases(database: str) -> Leases:
    return Leases(database, SERVER, patience=5)


def note(leases: Leases, look: Look, decision: Decision = NOTHING) -> None:
    with leases.locked() as locked:
        assert locked
        locked.note(look, "up", decision, locked.facts(), price=2.0)


def ask(leases: Leases, step, outcome=None) -> None:  # type: ignore[no-untyped-def]
    with leases.locked() as locked:
        assert locked
        number = locked.asking(step, 2.0)
        if outcome:
            locked.answered(number, outcome, "")


def test_a_lease_holds_until_it_ends_unless_it_is_renewed(leases: Leases, database: str) -> None:
    kept, left = leases.take("kept", "dub"), leases.take("left", "dub")
    let_pass(database, 200)
    kept = leases.renew(kept)
    let_pass(database, 200)
    assert [lease.owner for lease in leases.facts().leases] == ["kept"]
    with pytest.raises(NoLease, match="left has ended"):
        leases.renew(left)
    leases.give_back(kept)
    leases.give_back(kept)
    assert leases.facts().leases == ()
    assert leases.facts().now - (leases.facts().needed_until or leases.facts().now) < timedelta(seconds=60)


@pytest.mark.parametrize(
    "address",
    [
        "postgres//leases:Se-cret@host/leases",
        "postgresql://leases:Se%cret-cret@host/leases",
        "postgresql://leases:Se cret-cret@host/leases",
        "postgresql://leases:Se@cret-cret@host/leases",
        "postgresql://leases:Se/cret-cret@host/leases",
        "host=127.0.0.1 passwort=Se-cret",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(address: str) -> None:
    leases = Leases(address, SERVER, patience=0)
    for call in (leases.facts, leases.seen, lambda: leases.take("a", "dub")):
        with pytest.raises(BadSetting, match="postgresql://user:password@host/name") as told:
            call()
        assert "cret" not in str(told.value) and told.value.__cause__ is None


def test_a_lease_is_no_longer_than_an_hour(leases: Leases) -> None:
    lease = leases.take("a", "dub", seconds=3600)
    for seconds in (0.0, -1.0, 3601.0):
        for call in (lambda seconds: leases.take("a", "dub", seconds), lambda seconds: leases.renew(lease, seconds)):
            with pytest.raises(BadSetting):
                call(seconds)


def test_servers_are_kept_apart(leases: Leases, database: str) -> None:
    leases.take("a", "dub")
    assert Leases(database, "another").facts().leases == ()


def test_while_a_person_forbids_it_leases_are_neither_given_nor_renewed(leases: Leases, database: str) -> None:
    lease = leases.take("a", "dub")
    leases.order("forbid", "anna", "holidays", hours=1)
    for call in (lambda: leases.take("b", "dub"), lambda: leases.renew(lease)):
        with pytest.raises(NoLease, match=r"forbidden by anna.*holidays"):
            call()
    assert [held.owner for held in leases.facts().leases] == ["a"]
    let_pass(database, 3601)
    leases.take("b", "dub")
    leases.order("forbid", "anna")
    leases.order("lift", "anna")
    leases.take("c", "dub")


def test_over_a_limit_no_lease_is_given(leases: Leases, database: str) -> None:
    note(leases, UP)
    let_pass(database, 3600)
    lease = Leases(database, SERVER, Limits(hours=1.1, cost=2.2)).take("a", "dub")
    for limits in (Limits(hours=0.9), Limits(cost=1.9)):
        for call in (lambda limited: limited.take("b", "dub"), lambda limited: limited.renew(lease)):
            with pytest.raises(NoLease, match="limit"):
                call(Leases(database, SERVER, limits))
    note(leases, OFF)
    let_pass(database, 24 * 3600)  # what was a day ago counts no more
    assert leases.facts().used == 0.0
    Leases(database, SERVER, Limits(hours=0.1)).take("b", "dub")


def test_who_took_a_lease_may_work_after_a_pass_that_found_it_up(leases: Leases, database: str) -> None:
    note(leases, UP)
    lease = leases.take("a", "dub")
    assert not leases.may_work(lease)  # the pass before may just have had it shelved
    note(leases, UP)
    assert leases.may_work(lease)
    note(leases, Look("ACTIVE", "active", "rebooting"))
    assert not leases.may_work(lease)
    note(leases, UP, Decision("shelve", ""))
    assert not leases.may_work(lease)
    note(leases, UP)
    let_pass(database, 301)
    assert not leases.may_work(lease)


def test_facts_that_were_read_before_a_lease_let_nobody_work(leases: Leases) -> None:
    with leases.locked() as locked:
        assert locked
        facts = locked.facts()
        lease = leases.take("a", "dub")
        locked.note(UP, "keep", Decision(None, ""), facts, 0.0)
    assert not leases.may_work(lease)


def test_an_unanswered_shelve_keeps_from_work_until_it_cannot_come_any_more(leases: Leases, database: str) -> None:
    lease = leases.take("a", "dub", seconds=3600)
    ask(leases, "shelve")
    note(leases, UP)
    assert not leases.may_work(lease)
    let_pass(database, 121)
    note(leases, UP)
    assert leases.may_work(lease)


def test_one_at_a_time_holds_the_lock(leases: Leases, database: str) -> None:
    with leases.locked() as first, Leases(database, SERVER).locked() as second, Leases(database, "another").locked() as other:
        assert first and other
        assert second is None
    with Leases(database, SERVER).locked() as third:
        assert third


def test_the_lock_of_a_holder_that_was_killed_is_free(leases: Leases, database: str) -> None:
    program = (
        "import sys, time\nfrom blocks.leases import Leases\n"
        f"with Leases({database!r}, {SERVER!r}).locked() as locked:\n"
        "    locked.asking('shelve', 1.0)\n    print('held', flush=True)\n    time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        with leases.locked() as locked:
            assert locked is None
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        for _ in range(600):  # the server notices when the connection is closed
            with leases.locked() as locked:
                if locked:
                    break
            threading.Event().wait(0.05)
        assert locked
    assert [(one.step, one.outcome) for one in leases.facts().tried] == [("shelve", None)]


def test_who_loses_the_connection_loses_the_right_to_act(leases: Leases, database: str) -> None:
    with leases.locked() as locked:
        assert locked
        with psycopg.connect(database) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        with pytest.raises(LeasesDown):
            locked.asking("shelve", 1.0)
    assert leases.facts().tried == ()


def test_a_restart_of_the_database_is_waited_for_and_loses_nothing(postgres: Postgres, database: str) -> None:
    leases = Leases(database, SERVER, patience=300)
    lease = leases.take("a", "dub", seconds=3600)
    postgres.stop()
    renewed: list[object] = []
    renewing = threading.Thread(target=lambda: renewed.append(leases.renew(lease, seconds=3600)))
    renewing.start()
    threading.Event().wait(0.7)
    postgres.start()
    renewing.join()
    assert len(renewed) == 1
    assert [held.owner for held in leases.facts().leases] == ["a"]


def test_a_database_that_is_away_for_good_is_one_line_without_the_password() -> None:
    with pytest.raises(LeasesDown) as failed:
        Leases("postgresql://me:hush@127.0.0.1:9/none", SERVER, patience=0).take("a", "dub")
    assert "hush" not in str(failed.value) and "\n" not in str(failed.value)


def test_many_make_the_tables_at_once(database: str) -> None:
    taken: list[object] = []
    threads = [threading.Thread(target=lambda: taken.append(Leases(database, SERVER).take("a", "dub"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(Leases(database, SERVER).facts().leases) == 8


def test_a_waking_is_recorded_from_request_to_shelved(leases: Leases, database: str) -> None:
    lease = leases.take("lesson 1", "dub", seconds=3600)
    ask(leases, "unshelve", "accepted")
    let_pass(database, 240)
    note(leases, UP)
    let_pass(database, 600)
    leases.give_back(lease)
    let_pass(database, 900)
    note(leases, OFF)
    note(leases, OFF)
    (waking,) = leases.wakings()
    assert waking.up and waking.down and not waking.failed and waking.price == 2.0
    assert (waking.up - waking.asked).total_seconds() == pytest.approx(240, abs=60)
    assert (waking.down - waking.asked).total_seconds() == pytest.approx(1740, abs=60)
    assert [need.owner for need in leases.needs()] == ["lesson 1"]
    assert leases.facts().cost == pytest.approx(1740 / 3600 * 2, abs=0.1)


def test_a_waking_that_never_came_up_says_so(leases: Leases) -> None:
    ask(leases, "unshelve", "accepted")
    with leases.locked() as locked:
        assert locked
        locked.note(OFF, "up", Decision(None, ""), locked.facts(), 2.0, failed="No valid host was found")
    assert [waking.failed for waking in leases.wakings()] == ["No valid host was found"]
    assert leases.facts().failed == "No valid host was found"


def test_an_unshelve_without_an_answer_counts_until_it_cannot_come_any_more(leases: Leases, database: str) -> None:
    ask(leases, "unshelve", "unknown")
    note(leases, OFF)
    assert leases.wakings()[0].down is None
    let_pass(database, 121)
    note(leases, OFF)
    assert leases.wakings()[0].down is not None


def test_one_who_holds_it_up_needs_it_until_the_order_ends(leases: Leases, database: str) -> None:
    leases.order("up", "anna", hours=2)
    let_pass(database, 3600)
    leases.order("lift", "ben")
    let_pass(database, 3600)
    (need,) = leases.needs()
    assert need.owner == "anna" and (need.end - need.start).total_seconds() == pytest.approx(3600, abs=60)
    assert leases.facts().needed_until == need.end
