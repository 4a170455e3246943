"""Connections to the hub's own database: SQLite on one machine, PostgreSQL in production.

| | SQLite | PostgreSQL |
|---|---|---|
| `booking` | `BEGIN IMMEDIATE`: one writer at a time | an advisory lock as the first statement, READ COMMITTED |
| `reading` | a deferred `BEGIN` on a write-ahead log: one snapshot | REPEATABLE READ READ ONLY: one snapshot |
| a booking that waits longer than `wait` | raises StoreUnavailable | raises StoreUnavailable |

Threads may share an engine, not a connection.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from hub_ext.core.errors import BadInput
from hub_ext.db.failures import NOTHING, UNKNOWN, put_into_words, sqlite_path

WAIT: Final = 5.0
"""Seconds a transaction waits for others before it gives up."""
STATEMENT_TIMEOUT: Final = 60
"""Seconds one statement may run on PostgreSQL, and a transaction may idle while it holds the lock."""
BOOKING_LOCK: Final = 0x48414E47414E47
"""The advisory lock of all bookings of one PostgreSQL database."""

_HOW_TO_BEGIN = "hub_ext_begin"


def make_engine(url: str | URL, *, wait: float = WAIT, create: bool = False) -> Engine:
    """An engine for `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/NAME[?schema=NAME]`.

    Connects only when first used. A missing SQLite file is made only with `create`. Raises BadInput for any
    other address.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise BadInput(
            "the database's address cannot be read; write for example sqlite:///hub.sqlite or "
            "postgresql://user@host/hub"
        ) from error
    match parsed.get_backend_name():
        case "sqlite":
            return _sqlite_engine(parsed, wait, create)
        case "postgresql" | "postgres":
            return _postgresql_engine(parsed, wait)
        case other:
            raise BadInput(
                f"{other!r} is not a database the hub can use; write for example sqlite:///hub.sqlite or "
                "postgresql://user@host/hub"
            )


def beside(url: str, schema: str) -> str:
    """The address of tables that are not ours, in a schema of their own of the same PostgreSQL database."""
    plain = make_url(url).set(drivername="postgresql+psycopg").difference_update_query(["schema", "options"])
    query = {"options": f"-csearch_path={schema}"}
    return plain.update_query_dict(query).render_as_string(hide_password=False)


@contextmanager
def booking(engine: Engine, *, wait: float | None = None) -> Iterator[Connection]:
    """A transaction that excludes every other booking; all of it is written at the end, or nothing.

    `wait` is for PostgreSQL how many seconds it waits for others, where that is not what the engine was made with.
    """
    with put_into_words(engine), engine.connect() as connection:
        connection = connection.execution_options(**{_HOW_TO_BEGIN: "BEGIN IMMEDIATE"})
        with connection.begin() as transaction:
            if connection.dialect.name == "postgresql":
                if wait is not None:
                    connection.execute(select(func.set_config("lock_timeout", f"{int(wait * 1000)}ms", True)))
                connection.execute(select(func.pg_advisory_xact_lock(BOOKING_LOCK)))
            yield connection
            # A connection that breaks here may have broken after the commit.
            with put_into_words(
                engine, outcome=UNKNOWN if connection.dialect.name == "postgresql" else NOTHING
            ):
                transaction.commit()


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent snapshot, which waits for nobody and keeps nobody waiting."""
    with put_into_words(engine), engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection = connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        with connection.begin() as transaction:
            yield connection
            transaction.rollback()


def _sqlite_engine(url: URL, wait: float, create: bool) -> Engine:
    name = url.database or ""
    if name in ("", ":memory:", "file::memory:") or url.query.get("mode") == "memory":
        raise BadInput(
            "a database in memory would be shared with nobody and forgotten; give it a file: sqlite:///PATH"
        )
    if name.startswith("file:"):
        options = "&".join(f"{key}={value}" for key, value in url.query.items() if key != "uri")
        address = f"{name}?{options}" if options else name
    else:
        address = f"file:{quote(name)}?mode={'rwc' if create else 'rw'}"

    def connect() -> sqlite3.Connection:
        # No isolation level: the driver begins nothing by itself, `_begin` does.
        connection = sqlite3.connect(
            address, uri=True, timeout=wait, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            # FULL: what was committed survives a power cut, also with a write-ahead log.
            connection.execute("PRAGMA synchronous = FULL")
            if create:
                _write_ahead(connection, wait)
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine(
        url.set(drivername="sqlite+pysqlite"),
        creator=connect,
        hide_parameters=True,
        pool_timeout=max(wait, 1),
    )
    path = sqlite_path(engine)

    @event.listens_for(engine, "connect")
    def _remember_the_file(_: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info["file"] = _file_at(path)

    # SQLite goes on with a file that was removed or replaced; what it then writes nobody will find.
    @event.listens_for(engine, "checkout")
    def _same_file(_: DBAPIConnection, record: ConnectionPoolEntry, __: PoolProxiedConnection) -> None:
        if record.info["file"] != _file_at(path):
            raise DisconnectionError(f"{path} is another file now")

    # SQLAlchemy's documented way to begin for SQLite ("Enabling Non-Legacy SQLite Transactional Modes").
    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(_HOW_TO_BEGIN, "BEGIN"))

    return engine


def _file_at(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _write_ahead(connection: sqlite3.Connection, wait: float) -> None:
    """Turn the write-ahead log on, which the file remembers.

    Two processes that turn it on at once may be told "locked" at once, whatever the timeout: so try again.
    """
    give_up = time.monotonic() + wait
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.01)


def _postgresql_engine(url: URL, wait: float) -> Engine:
    schema = url.query.get("schema")
    settings = {
        "lock_timeout": f"{int(wait * 1000)}ms",
        "statement_timeout": f"{STATEMENT_TIMEOUT}s",
        "idle_in_transaction_session_timeout": f"{STATEMENT_TIMEOUT}s",
        "default_transaction_isolation": r"read\ committed",
    }
    if isinstance(schema, str):
        if not schema.isidentifier():
            raise BadInput(f"{schema!r} cannot name a schema; use letters, digits and underscores")
        settings["search_path"] = schema
    given = url.query.get("options", "")
    options = [given] if isinstance(given, str) and given else []
    options += [f"-c {key}={value}" for key, value in settings.items()]
    arguments: dict[str, Any] = {
        "connect_timeout": max(2, int(wait)),
        "options": " ".join(options),
        # A machine that went away without a word is noticed within these times.
        "keepalives_idle": 30,
        "tcp_user_timeout": 15_000,
        "application_name": "hub_ext",
    }
    return create_engine(
        url.set(drivername="postgresql+psycopg").difference_update_query(["schema", "options"]),
        connect_args=arguments,
        pool_pre_ping=True,
        pool_timeout=max(wait, 1),
        hide_parameters=True,
    )
