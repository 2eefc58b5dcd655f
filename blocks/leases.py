"""Who needs the GPU server, what persons ordered, and what became of it, in PostgreSQL: where a crash of no other machine loses it.

All times are the database's, so that clocks of other machines count for nothing. Whoever acts on the server holds its lock, an advisory
one of the session, which ends with its holder's connection; behind a pooler it must be a session of its own (PgBouncer: `session` mode).
Every write that may be tried again after a lost answer is one that changes nothing the second time.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from dubbing.errors import BadSetting, LeasesDown, NoLease
from dubbing.power import (
    MAY_STILL_COME,
    NO_LIMITS,
    Decision,
    Facts,
    Lease,
    Limits,
    Look,
    Need,
    Order,
    OrderKind,
    Outcome,
    Step,
    Tried,
    Waking,
    closed_because,
    serves,
)

if TYPE_CHECKING:
    import psycopg

Result = TypeVar("Result")
logger = logging.getLogger("coursedub.leases")

LEASE = 300.0  # seconds
RENEW_EVERY = 60.0  # seconds: a few lost renewals do no harm
LONGEST_LEASE = 3600.0  # what a limit may be exceeded by
LONGEST_ORDER = 24 * 366.0  # hours
PATIENCE = 30.0  # seconds that the database may be away: a restart of it takes some
_PAUSE = 0.5
_CONNECT_TIMEOUT = 10  # seconds
_CONNECTION = {
    "connect_timeout": _CONNECT_TIMEOUT,
    "application_name": "coursedub",
    # A holder whose machine is lost must not keep the lock: the server asks after 30 s of silence, and gives up 30 s later. One that
    # stands still for two minutes loses it too; no pass takes as long.
    "options": "-c statement_timeout=20s -c idle_session_timeout=120s -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 "
    "-c tcp_keepalives_count=3 -c timezone=UTC",
}

_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS coursedub;
CREATE TABLE IF NOT EXISTS coursedub.server (
    name text PRIMARY KEY,
    state text NOT NULL,           -- as Nova showed it last
    wanted text NOT NULL,
    why text NOT NULL,
    tell text NOT NULL,            -- what a person must hear, or empty
    seen timestamptz NOT NULL,
    since timestamptz NOT NULL,    -- when this state was first seen
    reached timestamptz,           -- when it was last as it was wanted
    serves timestamptz             -- when a pass last found that it is up and stays so
);
CREATE TABLE IF NOT EXISTS coursedub.lease (
    id uuid PRIMARY KEY,
    server text NOT NULL,
    owner text NOT NULL,
    reason text NOT NULL,
    run text NOT NULL,             -- of Prefect, that took it; empty: somebody else did
    taken timestamptz NOT NULL,
    renewed timestamptz NOT NULL,
    expires timestamptz NOT NULL,
    ended timestamptz              -- when it was given back
);
CREATE INDEX IF NOT EXISTS lease_server ON coursedub.lease (server, expires);
CREATE INDEX IF NOT EXISTS lease_run ON coursedub.lease (run) WHERE ended IS NULL;
CREATE TABLE IF NOT EXISTS coursedub.job (  -- see blocks/jobs.py
    lease uuid PRIMARY KEY REFERENCES coursedub.lease,
    server text NOT NULL,
    request jsonb NOT NULL,
    asked timestamptz NOT NULL,
    worker text,                   -- whose hands it is in
    taken integer NOT NULL DEFAULT 0,  -- how often it was taken into hands
    alive timestamptz,             -- when these last moved
    progress jsonb,
    finished timestamptz,
    failure jsonb                  -- null: there is none
);
CREATE INDEX IF NOT EXISTS job_server ON coursedub.job (server, asked) WHERE finished IS NULL;
CREATE TABLE IF NOT EXISTS coursedub.server_order (
    id uuid PRIMARY KEY,
    server text NOT NULL,
    kind text NOT NULL,
    person text NOT NULL,
    reason text NOT NULL,
    given timestamptz NOT NULL,
    until timestamptz
);
CREATE INDEX IF NOT EXISTS server_order_server ON coursedub.server_order (server, given);
CREATE TABLE IF NOT EXISTS coursedub.step (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server text NOT NULL,
    step text NOT NULL,
    asked timestamptz NOT NULL,
    outcome text,                  -- null: whoever asked was cut off before it could say
    detail text NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS step_server ON coursedub.step (server, asked);
CREATE TABLE IF NOT EXISTS coursedub.waking (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server text NOT NULL,
    asked timestamptz NOT NULL,
    up timestamptz,
    down timestamptz,
    price double precision NOT NULL,  -- an hour
    failed text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX IF NOT EXISTS waking_open ON coursedub.waking (server) WHERE down IS NULL;
CREATE INDEX IF NOT EXISTS waking_server ON coursedub.waking (server, asked);
"""
HOLDING = "ended IS NULL AND expires > clock_timestamp()"


class Seen(NamedTuple):
    """What the last pass saw of a server."""

    state: str
    wanted: str
    why: str
    tell: str
    seen: datetime
    since: datetime
    serves: datetime | None


class Holding:
    """A lease in the hands of somebody who works."""

    def __init__(self, leases: Leases, lease: Lease) -> None:
        self.lease = lease
        self._leases = leases
        self._lost: NoLease | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """
        Raises:
            NoLease: it could not be renewed: stop working.
        """
        if self._lost:
            raise self._lost

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(PATIENCE)

    def _keep(self) -> None:
        renewed = time.monotonic()
        while not self._stopped.wait(RENEW_EVERY):
            try:
                self.lease = self._leases.renew(self.lease)
                renewed = time.monotonic()
            except NoLease as lost:
                self._lost = lost
                return
            except LeasesDown as away:
                logger.warning("%s", away)
                if time.monotonic() - renewed > LEASE:  # it may have ended by now, and nobody can tell
                    self._lost = NoLease(f"GPU server {self._leases.server}: the lease of {self.lease.owner} can't be renewed: {away}")
                    return


class Leases:
    """The leases on one server, and its history."""

    def __init__(self, database: str, server: str, limits: Limits = NO_LIMITS, patience: float = PATIENCE) -> None:
        """
        Args:
            database: postgresql://user:password@host/name
            server: a name for it, the same for all who share it.
            limits: over which no lease is given or renewed.
            patience: seconds that the database may be out of reach before a call gives up.
        """
        self.server = server
        self._database, self._limits, self._patience = database, limits, patience
        self._made = False

    # Leases: for those who work.

    def take(self, owner: str, reason: str, seconds: float = LEASE, run: str = "") -> Lease:
        """
        Args:
            run: of Prefect, on whose end the lease can be ended without knowing it.

        Raises:
            NoLease: the server is closed.
        """
        _check_length(seconds)
        new = uuid.uuid4()

        def take(connection: psycopg.Connection[Any]) -> Lease:
            self._alone(connection)
            if closed := closed_because(self._facts(connection), self._limits):
                raise NoLease(f"GPU server {self.server}: {closed}")
            connection.execute(
                "INSERT INTO coursedub.lease SELECT %s, %s, %s, %s, %s, now, now, now + make_interval(secs => %s) "
                "FROM clock_timestamp() AS now ON CONFLICT DO NOTHING",
                (new, self.server, owner, reason, run, seconds),
            )
            return self._lease(connection, str(new))

        return self.tried(take)

    def renew(self, lease: Lease, seconds: float = LEASE) -> Lease:
        """
        Raises:
            NoLease: it has ended, or the server is closed: who holds it must stop until it ends.
        """
        _check_length(seconds)

        def renew(connection: psycopg.Connection[Any]) -> Lease:
            self._alone(connection)
            if closed := closed_because(self._facts(connection), self._limits):
                raise NoLease(f"GPU server {self.server}: {closed}")
            renewed = connection.execute(
                "UPDATE coursedub.lease SET renewed = clock_timestamp(), expires = clock_timestamp() + make_interval(secs => %s) "
                f"WHERE id = %s AND {HOLDING}",
                (seconds, lease.id),
            )
            if not renewed.rowcount:
                raise NoLease(f"GPU server {self.server}: the lease of {lease.owner} has ended")
            return self._lease(connection, lease.id)

        return self.tried(renew)

    def give_back(self, lease: Lease) -> None:
        self.tried(
            lambda connection: connection.execute(
                f"UPDATE coursedub.lease SET ended = clock_timestamp() WHERE id = %s AND {HOLDING}", (lease.id,)
            )
        )

    def give_back_of(self, run: str) -> int:
        """End what a run of Prefect holds, whatever became of it. Returns how many leases that were."""
        return self.tried(
            lambda connection: (
                connection.execute(
                    f"UPDATE coursedub.lease SET ended = clock_timestamp() WHERE server = %s AND run = %s AND {HOLDING}",
                    (self.server, run),
                ).rowcount
            )
        )

    @contextmanager
    def holding(self, owner: str, reason: str, run: str = "") -> Iterator[Holding]:
        """A lease that is renewed inside the block, in a thread of its own, and given back at its end.

        Raises:
            NoLease
        """
        held = Holding(self, self.take(owner, reason, run=run))
        try:
            yield held
        finally:
            held.stop()
            with suppress(LeasesDown):  # then it ends by itself
                self.give_back(held.lease)

    def may_work(self, lease: Lease) -> bool:
        """Whether the lease holds, and a pass since it was taken found the server up. What a pass before it found may be over: that one
        may just have asked to shelve it."""

        def may_work(connection: psycopg.Connection[Any]) -> bool:
            return bool(
                connection.execute(
                    "SELECT 1 FROM coursedub.lease, coursedub.server WHERE id = %s AND name = server AND serves > taken "
                    f"AND serves = seen AND {HOLDING}",
                    (lease.id,),
                ).fetchone()
            )

        return self.tried(may_work)

    # Orders: for persons.

    def order(self, kind: OrderKind, person: str, reason: str = "", hours: float | None = None) -> Order:
        """
        Args:
            hours: how long it holds; None: until another one.

        Returns:
            The order that holds: who only wants it down doesn't take back what forbids it.

        Raises:
            NoLease: it shall be held up, and is closed.
            BadSetting
        """
        if hours is not None and not 0 <= hours <= LONGEST_ORDER:
            raise BadSetting(f"order for {hours:g} hours: {LONGEST_ORDER:g} at most")
        new = uuid.uuid4()

        def order(connection: psycopg.Connection[Any]) -> Order:
            self._alone(connection)
            facts = self._facts(connection)
            if kind == "up" and (closed := closed_because(facts, self._limits)):
                raise NoLease(f"GPU server {self.server}: {closed}")
            if kind == "down" and facts.order and facts.order.kind == "forbid" and facts.order.holds_at(facts.now):
                return facts.order
            connection.execute(
                "INSERT INTO coursedub.server_order SELECT %s, %s, %s, %s, %s, now, now + make_interval(secs => %s) "
                "FROM clock_timestamp() AS now ON CONFLICT DO NOTHING",
                (new, self.server, kind, person, reason, None if hours is None else hours * 3600),
            )
            row = connection.execute(
                "SELECT kind, person, reason, given, until FROM coursedub.server_order WHERE id = %s", (new,)
            ).fetchone()
            assert row
            return Order(*row)

        return self.tried(order)

    # The server's lock, and what whoever holds it notes.

    @contextmanager
    def locked(self) -> Iterator[Locked | None]:
        """The server's lock inside a `with` block; None: another has it.

        Raises:
            LeasesDown
        """
        connection = self.tried(self._connected, opened=False)
        import psycopg

        try:
            held = self._asked(
                lambda: connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (f"keeper {self.server}",)).fetchone()
            )
            yield Locked(self, connection) if held and held[0] else None
        finally:
            with suppress(psycopg.Error):  # without a connection there is no lock either
                connection.execute("SELECT pg_advisory_unlock_all()")  # closing alone frees it a moment later
            connection.close()

    def answers(self) -> bool:
        """Whether a database is there that takes connections, be it only to refuse ours."""
        import psycopg
        from psycopg.conninfo import make_conninfo

        asked = make_conninfo(self._database, connect_timeout=_CONNECT_TIMEOUT)
        return psycopg.pq.PGconn.ping(asked.encode()) == psycopg.pq.Ping.OK

    def facts(self) -> Facts:
        return self.tried(self._facts)

    def seen(self) -> Seen | None:
        """None: no pass was ever made."""

        def seen(connection: psycopg.Connection[Any]) -> Seen | None:
            row = connection.execute(
                "SELECT state, wanted, why, tell, seen, since, serves FROM coursedub.server WHERE name = %s", (self.server,)
            ).fetchone()
            return Seen(*row) if row else None

        return self.tried(seen)

    def wakings(self, since: datetime | None = None) -> list[Waking]:
        """Those that had not ended at `since`, oldest first."""

        def wakings(connection: psycopg.Connection[Any]) -> list[Waking]:
            rows = connection.execute(
                "SELECT asked, up, down, price, failed FROM coursedub.waking WHERE server = %s AND coalesce(down, 'infinity') > %s "
                "ORDER BY asked",
                (self.server, since or "-infinity"),
            ).fetchall()
            return [Waking(*row) for row in rows]

        return self.tried(wakings)

    def needs(self, since: datetime | None = None) -> list[Need]:
        """Who needed it, when: by lease, or as one who held it up."""

        def needs(connection: psycopg.Connection[Any]) -> list[Need]:
            rows = connection.execute(
                "SELECT owner, taken, least(ended, expires, clock_timestamp()), id::text FROM coursedub.lease "
                "WHERE server = %(server)s AND expires > %(since)s "
                f"UNION ALL SELECT person, given, least(ends, clock_timestamp()), '' FROM ({_HOLDS}) AS holds WHERE ends > %(since)s",
                {"server": self.server, "since": since or "-infinity"},
            ).fetchall()
            return sorted((Need(*row) for row in rows), key=lambda need: need.start)

        return self.tried(needs)

    def _facts(self, connection: psycopg.Connection[Any]) -> Facts:
        here = {"server": self.server}
        row = connection.execute("SELECT clock_timestamp()").fetchone()
        assert row
        now: datetime = row[0]
        leases = connection.execute(
            f"SELECT id::text, owner, reason, taken, expires FROM coursedub.lease WHERE server = %(server)s AND {HOLDING} ORDER BY taken",
            here,
        ).fetchall()
        order = connection.execute(
            "SELECT kind, person, reason, given, until FROM coursedub.server_order WHERE server = %(server)s ORDER BY given DESC LIMIT 1",
            here,
        ).fetchone()
        needed = connection.execute(
            "SELECT max(until) FROM (SELECT least(ended, expires) AS until FROM coursedub.lease WHERE server = %(server)s "
            f"UNION ALL SELECT ends FROM ({_HOLDS}) AS holds) AS needs WHERE until <= clock_timestamp()",
            here,
        ).fetchone()
        wakings = connection.execute(
            "SELECT asked, down, extract(epoch FROM coalesce(down, clock_timestamp()) "
            "- greatest(asked, clock_timestamp() - interval '24 hours'))::float8, price FROM coursedub.waking "
            "WHERE server = %(server)s AND coalesce(down, 'infinity') > clock_timestamp() - interval '24 hours'",
            here,
        ).fetchall()
        tried = connection.execute(
            "SELECT step, asked, outcome FROM (SELECT * FROM coursedub.step WHERE server = %(server)s "
            "AND asked > clock_timestamp() - interval '24 hours' ORDER BY id DESC LIMIT 200) AS newest ORDER BY id",
            here,
        ).fetchall()
        newest = connection.execute(
            "SELECT failed FROM coursedub.waking WHERE server = %(server)s ORDER BY id DESC LIMIT 1", here
        ).fetchone()
        seen = connection.execute("SELECT since, reached FROM coursedub.server WHERE name = %(server)s", here).fetchone()
        return Facts(
            now=now,
            leases=tuple(Lease(*row) for row in leases),
            order=Order(*order) if order else None,
            needed_until=needed[0] if needed else None,
            up_since=next((asked for asked, down, *_ in wakings if down is None), None),
            used=sum(seconds for *_, seconds, _ in wakings),
            cost=sum(seconds / 3600 * price for *_, seconds, price in wakings),
            tried=tuple(Tried(*row) for row in tried),
            failed=newest[0] if newest else "",
            state_since=seen[0] if seen else None,
            reached=seen[1] if seen else None,
        )

    def lease(self, lease: str) -> Lease:
        return self.tried(lambda connection: self._lease(connection, lease))

    def _lease(self, connection: psycopg.Connection[Any], lease: str) -> Lease:
        row = connection.execute(
            "SELECT id::text, owner, reason, taken, expires, ended FROM coursedub.lease WHERE id = %s", (lease,)
        ).fetchone()
        assert row
        return Lease(*row)

    def _alone(self, connection: psycopg.Connection[Any]) -> None:
        """Nobody else changes leases or orders until the transaction ends: what closes the server counts for all that come after it."""
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"leases {self.server}",))

    # Connections.

    def _connected(self) -> psycopg.Connection[Any]:
        import psycopg

        return psycopg.connect(self._database, autocommit=True, **_CONNECTION)  # type: ignore[arg-type]

    def _check_database(self) -> None:
        """What is no address of a database is refused in words of our own: those of psycopg repeat it, with the password.

        Raises:
            BadSetting
        """
        import psycopg
        from psycopg.conninfo import conninfo_to_dict

        try:
            said = conninfo_to_dict(self._database)
        except psycopg.ProgrammingError:
            said = {"host": "@"}
        if "@" in str(said.get("host", "")) or not str(said.get("port", "0")).replace(",", "").isdigit():
            raise BadSetting(
                "GPU server: what is set as the database of leases is no postgresql://user:password@host/name; "
                "in the password %, @, / and spaces are written %25, %40, %2F and %20"
            )

    def tried(self, work: Callable[..., Result], opened: bool = True) -> Result:
        """What some work gives, in a transaction of its own; tried again while the database can't be reached.

        Args:
            opened: whether the work takes a connection.
        """
        try:
            import psycopg
        except ImportError:
            raise BadSetting("GPU server: not installed here: psycopg; pip install 'coursedub[gpu-server]' does it") from None
        self._check_database()
        until = time.monotonic() + self._patience
        while True:
            try:
                if not self._made:
                    with self._connected() as connection:
                        self._make(connection)
                if not opened:
                    return work()
                with self._connected() as connection, connection.transaction():
                    return work(connection)
            except psycopg.OperationalError as error:
                if time.monotonic() > until or isinstance(error, psycopg.errors.InvalidPassword):
                    raise LeasesDown(f"database of leases: {_first_line(error)}") from error
                time.sleep(_PAUSE)
            except psycopg.Error as error:
                raise LeasesDown(f"database of leases: {_first_line(error)}") from error

    def _asked(self, query: Callable[[], Result]) -> Result:
        """The answer to a query of the lock's connection, which isn't tried again: with the connection the lock is gone."""
        import psycopg

        try:
            return query()
        except psycopg.Error as error:
            raise LeasesDown(f"database of leases: {_first_line(error)}") from error

    def _make(self, connection: psycopg.Connection[Any]) -> None:
        """The tables, unless they are there."""
        row = connection.execute("SELECT to_regclass('coursedub.waking_server')").fetchone()
        if not row or row[0] is None:
            with connection.transaction():  # two who make them at once would be in each other's way
                connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('coursedub schema', 0))")
                connection.execute(_SCHEMA)
        self._made = True


class Locked:
    """What the holder of a server's lock may do. All of it is asked over the connection that holds the lock, so that with the lock ends
    the right to act: a pass whose connection was cut stops at its next question."""

    def __init__(self, leases: Leases, connection: psycopg.Connection[Any]) -> None:
        self._leases, self._connection = leases, connection
        self._server = leases.server

    def facts(self) -> Facts:
        """A lease that was taken before `now` of these facts is among them."""

        def facts(connection: psycopg.Connection[Any]) -> Facts:
            self._leases._alone(connection)
            return self._leases._facts(connection)

        return self._do(facts)

    def asking(self, step: Step, price: float) -> int:
        """Note that a step is about to be asked of Nova, which may be the last that is heard of the asker. Returns its number."""

        def asking(connection: psycopg.Connection[Any]) -> int:
            if step == "unshelve":
                self._wake(connection, price)
            row = connection.execute(
                "INSERT INTO coursedub.step (server, step, asked) VALUES (%s, %s, clock_timestamp()) RETURNING id", (self._server, step)
            ).fetchone()
            assert row
            return int(row[0])

        return self._do(asking)

    def answered(self, number: int, outcome: Outcome, detail: str) -> None:
        self._do(
            lambda connection: connection.execute(
                "UPDATE coursedub.step SET outcome = %s, detail = %s WHERE id = %s", (outcome, detail, number)
            )
        )

    def note(self, look: Look, wanted: str, decision: Decision, facts: Facts, price: float, failed: str = "") -> None:
        """Keep what was seen, and the wakings with it.

        Args:
            failed: why the waking that ends here never came up, if it is known.
        """
        up = serves(look, facts) and decision.step is None

        def note(connection: psycopg.Connection[Any]) -> None:
            connection.execute(
                "INSERT INTO coursedub.server SELECT %(server)s, %(state)s, %(wanted)s, %(why)s, %(tell)s, now, now, "
                "CASE WHEN %(settled)s THEN now END, CASE WHEN %(up)s THEN now END FROM (SELECT %(now)s::timestamptz AS now) AS seen "
                "ON CONFLICT (name) DO UPDATE SET state = excluded.state, wanted = excluded.wanted, why = excluded.why, "
                "tell = excluded.tell, seen = excluded.seen, "
                "since = CASE WHEN server.state = excluded.state THEN server.since ELSE excluded.since END, "
                "reached = coalesce(excluded.reached, server.reached), serves = coalesce(excluded.serves, server.serves)",
                {
                    **{"server": self._server, "state": str(look), "wanted": wanted, "why": decision.why, "tell": decision.tell},
                    **{"settled": decision.settled, "up": up, "now": facts.now},
                },
            )
            if decision.step == "unshelve":
                return  # its waking has begun
            if look.is_down:
                # An unshelve without an answer may still be carried out: then the waking goes on.
                connection.execute(
                    "UPDATE coursedub.waking SET down = clock_timestamp(), failed = CASE WHEN up IS NULL AND EXISTS (SELECT 1 FROM "
                    "coursedub.step AS asked WHERE asked.server = %(server)s AND step = 'unshelve' AND asked.asked >= waking.asked) "
                    "THEN %(failed)s ELSE '' END WHERE server = %(server)s AND down IS NULL AND NOT EXISTS (SELECT 1 FROM coursedub.step "
                    "AS asked WHERE asked.server = %(server)s AND step = 'unshelve' AND coalesce(outcome, 'unknown') = 'unknown' "
                    "AND asked.asked > clock_timestamp() - make_interval(secs => %(may_still_come)s))",
                    {"server": self._server, "failed": failed or "it never came up", "may_still_come": MAY_STILL_COME},
                )
            else:
                self._wake(connection, price, facts.now)  # before the step that this pass asked for
            if look.is_up:
                connection.execute(
                    "UPDATE coursedub.waking SET up = clock_timestamp() WHERE server = %s AND down IS NULL AND up IS NULL", (self._server,)
                )

        self._do(note)

    def _wake(self, connection: psycopg.Connection[Any], price: float, since: datetime | None = None) -> None:
        connection.execute(
            "INSERT INTO coursedub.waking (server, asked, price) VALUES (%s, coalesce(%s, clock_timestamp()), %s) "
            "ON CONFLICT (server) WHERE down IS NULL DO NOTHING",
            (self._server, since, price),
        )

    def _do(self, work: Callable[[psycopg.Connection[Any]], Result]) -> Result:
        def do() -> Result:
            with self._connection.transaction():
                return work(self._connection)

        return self._leases._asked(do)


# Orders to keep it up, each until its own end or that of the next order.
_HOLDS = """
    SELECT kind, person, given, least(until, next, 'infinity') AS ends FROM (
        SELECT *, lead(given) OVER (ORDER BY given) AS next FROM coursedub.server_order WHERE server = %(server)s
    ) AS orders WHERE kind = 'up'
"""


def _check_length(seconds: float) -> None:
    if not 0 < seconds <= LONGEST_LEASE:
        raise BadSetting(f"lease of {seconds:g} s: above 0, {LONGEST_LEASE:g} at most")


def _first_line(error: Exception) -> str:
    """Of what PostgreSQL says, without the connection's string, which psycopg never repeats."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
