"""Jobs for the GPU server, in a real PostgreSQL: each in one pair of hands, none lost with the hands, none without somebody who waits."""

from __future__ import annotations

import threading

import pytest

from blocks.jobs import MOST_TIMES, Jobs
from blocks.leases import Leases
from dubbing.errors import LeasesDown, NoLease
from dubbing.power import Lease
from tests.postgres import let_pass

SERVER = "6f1de2a4-3c1b-4b0e-9d1f-0a1b2c3d4e5f"


@pytest.fixture
def jobs(database: str) -> Jobs:
    return Jobs(Leases(database, SERVER, patience=5))


def asked(jobs: Jobs, name: str) -> Lease:
    lease = jobs.leases.take(name, "dub", run=f"run of {name}")
    jobs.submit(lease, {"lesson": name})
    return lease


def test_jobs_are_taken_in_the_order_of_asking_and_told_of(jobs: Jobs) -> None:
    first, second = asked(jobs, "a"), asked(jobs, "b")
    jobs.submit(first, {"lesson": "asked twice"})
    job = jobs.take("worker")
    assert job and job.request == {"lesson": "a"} and job.lease.id == first.id
    jobs.tell(job, "worker", {"share": 0.5})
    standing, other = jobs.standing(first), jobs.standing(second)
    assert (standing.worker, standing.progress, standing.finished) == ("worker", {"share": 0.5}, False)
    assert (other.worker, other.others_work) == ("", True)
    jobs.finish(job, "worker", None)
    standing = jobs.standing(first)
    assert (standing.finished, standing.failure, standing.others_work) == (True, None, False)


def test_a_failure_is_told_to_who_asked(jobs: Jobs) -> None:
    lease = asked(jobs, "a")
    job = jobs.take("worker")
    assert job
    jobs.finish(job, "worker", {"kind": "NoSpeech", "message": "nobody speaks"})
    assert jobs.standing(lease).failure == {"kind": "NoSpeech", "message": "nobody speaks"}


def test_each_job_is_in_one_pair_of_hands(jobs: Jobs, database: str) -> None:
    for number in range(12):
        asked(jobs, str(number))
    taken: list[str] = []

    def work(worker: str) -> None:
        mine = Jobs(Leases(database, SERVER, patience=5))
        having = []
        while job := mine.take(worker, having):
            having.append(job)
            taken.append(job.request["lesson"])

    threads = [threading.Thread(target=work, args=(f"worker {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken, key=int) == [str(number) for number in range(12)]


def test_the_job_of_a_worker_that_fell_silent_is_the_next_ones(jobs: Jobs, database: str) -> None:
    lease = asked(jobs, "a")
    job = jobs.take("killed")
    assert job and jobs.take("next") is None
    let_pass(database, 61)
    assert not jobs.standing(lease).worker
    assert jobs.take("next")
    with pytest.raises(NoLease, match="another works on this job"):
        jobs.tell(job, "killed", {})
    jobs.finish(job, "killed", None)  # too late
    assert not jobs.standing(lease).finished


def test_an_answer_that_got_lost_is_given_again(jobs: Jobs) -> None:
    asked(jobs, "a")
    job = jobs.take("worker")
    assert job and jobs.take("worker", [job]) is None
    again = jobs.take("worker")
    assert again and again.lease.id == job.lease.id


def test_a_job_that_kills_its_workers_is_given_up(jobs: Jobs, database: str) -> None:
    lease = asked(jobs, "a")
    for number in range(MOST_TIMES):
        assert jobs.take(f"worker {number}")
        let_pass(database, 61)
    assert jobs.take("one more") is None
    failure = jobs.standing(lease).failure
    assert failure and failure["kind"] == "ServerNotReady" and "3 times" in failure["message"]


def test_who_stops_in_order_puts_back_what_it_has(jobs: Jobs) -> None:
    asked(jobs, "a")
    for number in range(MOST_TIMES + 1):
        job = jobs.take(f"worker {number}")
        assert job
        jobs.put_back(job, f"worker {number}")


def test_a_job_counts_as_long_as_somebody_waits_for_it(jobs: Jobs, database: str) -> None:
    lease = asked(jobs, "a")
    job = jobs.take("worker")
    assert job
    for _ in range(3):  # whoever works renews the lease
        let_pass(database, 200)
        jobs.tell(job, "worker", {})
    assert jobs.leases.give_back_of("run of a") == 1
    with pytest.raises(NoLease, match="has ended"):
        jobs.tell(job, "worker", {})
    asked(jobs, "b")
    let_pass(database, 301)
    assert jobs.take("worker") is None
    assert jobs.leases.facts().leases == () and lease.owner == "a"


def test_while_the_server_is_closed_nobody_works_on(jobs: Jobs) -> None:
    asked(jobs, "a")
    job = jobs.take("worker")
    assert job
    jobs.leases.order("forbid", "anna", "holidays")
    with pytest.raises(NoLease, match="holidays"):
        jobs.tell(job, "worker", {})


def test_jobs_of_servers_are_kept_apart(jobs: Jobs, database: str) -> None:
    asked(jobs, "a")
    assert Jobs(Leases(database, "another")).take("worker") is None


def test_a_lease_is_kept_while_it_is_held(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocks.leases.RENEW_EVERY", 0.05)
    with jobs.leases.holding("a", "dub") as held:
        before = held.lease.expires
        while held.lease.expires == before:
            held.check()
        jobs.leases.order("forbid", "anna")
        with pytest.raises(NoLease, match="forbidden by anna"):
            while True:
                held.check()
    assert jobs.leases.facts().leases == ()


def test_a_lease_that_cant_be_renewed_for_as_long_as_it_holds_is_lost(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocks.leases.RENEW_EVERY", 0.05)
    monkeypatch.setattr("blocks.leases.LEASE", 0.5)
    asked_for: list[Lease] = []

    def renew(lease: Lease) -> Lease:
        asked_for.append(lease)
        raise LeasesDown("database of leases: nobody answers")

    monkeypatch.setattr(jobs.leases, "renew", renew)
    with jobs.leases.holding("a", "dub") as held, pytest.raises(NoLease, match=r"the lease of a can't be renewed: .*nobody answers"):
        while True:
            held.check()
    assert len(asked_for) > 1, "a few lost renewals do no harm"
