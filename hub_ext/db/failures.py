"""What a database's errors mean to the person who meets them.

Only errors that say "the database did not take part", or "no text can hold this", are put into words here. A broken
constraint or a wrong statement is a mistake of ours and stays what it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from hub_ext.core.errors import BadInput, HubError, SchemaMismatch, StoreUnavailable

NOTHING = "Nothing was booked"
UNKNOWN = "Whether this was booked is not known; asking again with the same id books it only once"

BUSY = (
    "is busy: other processes kept it locked for too long",
    "Try again in a moment; if it goes on, look for a process that hangs",
)
READ_ONLY = "is read-only", "Let this program's user write to it, or name the database that takes writes"
MOVED = "was moved or removed while in use", "Put the file back, or restart the hub"
FULL = "has no room left on its disk", "Make room, then try again"
MISSING = (
    "cannot be opened: the file or its folder is missing, or may not be read",
    "Check the path and its rights; `hub-ext db upgrade` makes a new database",
)
DAMAGED = "is damaged, or is not a database of the hub", "Stop the hub and restore the last good copy"
UNREADABLE = (
    "could not be read from or written to its disk",
    "Look at the machine's log, mend the disk, then try again",
)
AWAY = (
    "is away: it cannot be reached, or turned the connection down",
    "Check that the server runs, and the address, name and password this program was given; then try again",
)
OVERLOADED = (
    "has no connection or memory left for this",
    "Try again in a moment; if it goes on, raise the server's limits",
)
TOO_SLOW = (
    "took too long to answer and was interrupted",
    "Try again in a moment; if it goes on, look at the server's load",
)
FORBIDDEN = (
    "does not let this program's user do this",
    "Give the user of the hub all rights on its own schema",
)

_SQLITE = {
    sqlite3.SQLITE_BUSY: BUSY,
    sqlite3.SQLITE_LOCKED: BUSY,
    sqlite3.SQLITE_PROTOCOL: BUSY,
    sqlite3.SQLITE_READONLY: READ_ONLY,
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_CANTOPEN: MISSING,
    sqlite3.SQLITE_PERM: MISSING,
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
    sqlite3.SQLITE_IOERR: UNREADABLE,
    sqlite3.SQLITE_NOMEM: OVERLOADED,
}

# By SQLSTATE; of two that fit the longer one counts.
_POSTGRESQL = {
    "08": AWAY,
    "25006": READ_ONLY,
    "25P03": TOO_SLOW,
    "28": AWAY,
    "3D000": AWAY,
    "40001": BUSY,
    "40P01": BUSY,
    "42501": FORBIDDEN,
    "53": OVERLOADED,
    "53100": FULL,
    "53300": OVERLOADED,
    "55P03": BUSY,
    "57014": TOO_SLOW,
    "57P": AWAY,
    "58": UNREADABLE,
    "F0": UNREADABLE,
    "XX001": DAMAGED,
    "XX002": DAMAGED,
}
_WRONG_TABLES = ("42P01", "42703")
_NO_TEXT = (None, "22021", "22P05")
"""Of a psycopg.DataError: characters that PostgreSQL keeps in no text; the driver itself says so without a state."""


@contextmanager
def put_into_words(engine: Engine, *, outcome: str = NOTHING) -> Iterator[None]:
    """Raise StoreUnavailable, SchemaMismatch or BadInput for errors of the database that mean so; pass on all others.

    The sentence holds neither SQL nor a password; the database's own words are its `__cause__`.
    """
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        failure = failure_of(engine, error, outcome)
        if failure is None:
            raise
        raise failure from error


def failure_of(engine: Engine, error: DBAPIError | PoolTimeout, outcome: str = NOTHING) -> HubError | None:
    """The error in words; None for a mistake of ours."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    if isinstance(error, PoolTimeout):
        words: tuple[str, str] | None = OVERLOADED
    elif isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code == sqlite3.SQLITE_ERROR and str(cause).startswith(("no such table", "no such column")):
            return wrong_tables(engine)
        words = MOVED if code == sqlite3.SQLITE_READONLY_DBMOVED else _SQLITE.get(code & 0xFF)
        if words is not None and words is not BUSY:
            # Whoever mends the file may put another in its place: hold on to no connection to this one.
            engine.dispose()
    elif isinstance(cause, psycopg.Error):
        if cause.sqlstate in _WRONG_TABLES:
            return wrong_tables(engine)
        if isinstance(cause, psycopg.DataError) and cause.sqlstate in _NO_TEXT:
            return BadInput(
                "A text that was given holds a character that cannot be kept; leave out NUL and the like."
            )
        words = _of_postgresql(cause, lost=isinstance(error, DBAPIError) and error.connection_invalidated)
    else:
        words = None
    if words is None:
        return None
    what, instead = words
    return StoreUnavailable(f"{place(engine)} {what}. {outcome}. {instead}.")


def _of_postgresql(cause: psycopg.Error, *, lost: bool) -> tuple[str, str] | None:
    state = cause.sqlstate
    if state is None:
        # The driver itself gave up: no connection could be made, or it broke.
        return AWAY if lost or isinstance(cause, psycopg.OperationalError) else None
    for length in (5, 3, 2):
        if state[:length] in _POSTGRESQL:
            return _POSTGRESQL[state[:length]]
    return AWAY if lost else None


def wrong_tables(engine: Engine) -> SchemaMismatch:
    return SchemaMismatch(
        f"{place(engine)} lacks tables or columns that this program needs. {NOTHING}. "
        "Stop the hub and run `hub-ext db upgrade`."
    )


def place(engine: Engine) -> str:
    """The database as an operator knows it, without user and password."""
    url = engine.url
    if url.get_backend_name() == "sqlite":
        return f"The database file {sqlite_path(engine)}"
    host = url.host or url.query.get("host") or "this machine"
    return f"The database {url.database} on {host}"


def sqlite_path(engine: Engine) -> Path:
    name = engine.url.database or ""
    return Path(name.removeprefix("file:").partition("?")[0])
