"""What the GPU server is asked to compute: a queue of jobs, in the database of its leases.

A job belongs to the lease of who asks for it, and counts as long as that holds: whoever asks no more has no job. It is in the hands of one
worker at a time, who says again and again that it is alive; the job of one that fell silent is taken by the next.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from blocks.leases import HOLDING, Leases
from dubbing.errors import NoLease
from dubbing.power import Lease

if TYPE_CHECKING:
    import psycopg

SILENT = 60.0  # seconds without a word after which a worker counts as gone
MOST_TIMES = 3  # that a job is taken: one that kills whoever works on it must not do so for ever


class Job(NamedTuple):
    lease: Lease
    request: dict[str, Any]


class Standing(NamedTuple):
    """How a job stands."""

    worker: str  # whose hands it is in; empty: nobody's who is alive
    progress: dict[str, Any]  # as the worker told it last
    finished: bool
    failure: dict[str, Any] | None
    others_work: bool  # somebody alive works on jobs of this server, if not on this one


class Jobs:
    """The jobs of one server."""

    def __init__(self, leases: Leases) -> None:
        self.leases = leases
        self._here = {"server": leases.server, "silent": SILENT}

    # For who asks.

    def submit(self, lease: Lease, request: Mapping[str, Any]) -> None:
        self.leases.tried(
            lambda connection: connection.execute(
                "INSERT INTO coursedub.job (lease, server, request, asked) VALUES (%s, %s, %s, clock_timestamp()) ON CONFLICT DO NOTHING",
                (lease.id, self.leases.server, json.dumps(request)),
            )
        )

    def standing(self, lease: Lease) -> Standing:
        def standing(connection: psycopg.Connection[Any]) -> Standing:
            row = connection.execute(
                f"SELECT CASE WHEN {_IN_HAND} THEN worker ELSE '' END, coalesce(progress, '{{}}'), finished IS NOT NULL, failure, "
                f"EXISTS (SELECT 1 FROM coursedub.job WHERE server = %(server)s AND {_IN_HAND}) FROM coursedub.job WHERE lease = %(lease)s",
                {**self._here, "lease": lease.id},
            ).fetchone()
            assert row, "submitted before"
            return Standing(*row)

        return self.leases.tried(standing)

    # For who works.

    def take(self, worker: str, having: Iterable[Job] = ()) -> Job | None:
        """The job that waits for longest, which is the worker's from now on; None: none waits.

        Args:
            having: jobs that the worker knows to be its. One that it was given in an answer that got lost is given again.
        """
        known = [job.lease.id for job in having]

        def take(connection: psycopg.Connection[Any]) -> tuple[str, dict[str, Any], int] | None:
            row = connection.execute(
                "UPDATE coursedub.job SET worker = %(worker)s, alive = clock_timestamp(), taken = taken + 1 WHERE lease = ("
                "SELECT job.lease FROM coursedub.job JOIN coursedub.lease ON lease.id = job.lease WHERE job.server = %(server)s "
                f"AND finished IS NULL AND {HOLDING} AND (NOT coalesce({_IN_HAND}, false) OR worker = %(worker)s "
                "AND job.lease <> ALL(%(known)s::uuid[])) "
                "ORDER BY asked LIMIT 1 FOR UPDATE OF job SKIP LOCKED) RETURNING lease::text, request, taken",
                {**self._here, "worker": worker, "known": known},
            ).fetchone()
            return None if row is None else (row[0], row[1], row[2])

        while (taken := self.leases.tried(take)) is not None:
            lease = self.leases.lease(taken[0])
            if taken[2] <= MOST_TIMES:
                return Job(lease, taken[1])
            vanished = f"{MOST_TIMES} times the run that worked on it vanished: look at the GPU server's log"
            self.finish(Job(lease, taken[1]), worker, {"kind": "ServerNotReady", "message": f"GPU server: {vanished}"})
        return None

    def tell(self, job: Job, worker: str, progress: Mapping[str, Any]) -> None:
        """The worker is alive, and so far. The lease is renewed.

        Raises:
            NoLease: nobody waits for it any more, the server is closed, or the job is another's: stop working.
        """
        told = self.leases.tried(
            lambda connection: (
                connection.execute(
                    "UPDATE coursedub.job SET alive = clock_timestamp(), progress = %s "
                    "WHERE lease = %s AND worker = %s AND finished IS NULL",
                    (json.dumps(progress), job.lease.id, worker),
                ).rowcount
            )
        )
        if not told:
            raise NoLease(f"GPU server {self.leases.server}: another works on this job")
        self.leases.renew(job.lease)

    def finish(self, job: Job, worker: str, failure: Mapping[str, Any] | None) -> None:
        self.leases.tried(
            lambda connection: connection.execute(
                "UPDATE coursedub.job SET finished = clock_timestamp(), failure = %s WHERE lease = %s AND worker = %s AND finished IS NULL",
                (None if failure is None else json.dumps(failure), job.lease.id, worker),
            )
        )

    def put_back(self, job: Job, worker: str) -> None:
        """The worker stops before the job is done: another may take it at once."""
        self.leases.tried(
            lambda connection: connection.execute(
                "UPDATE coursedub.job SET worker = NULL, taken = taken - 1 WHERE lease = %s AND worker = %s AND finished IS NULL",
                (job.lease.id, worker),
            )
        )


_IN_HAND = "worker IS NOT NULL AND finished IS NULL AND alive > clock_timestamp() - make_interval(secs => %(silent)s)"
