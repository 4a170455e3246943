"""Bring the database to this program's schema, and tell whether it has it.

Only `hub-ext db upgrade` migrates; every other process looks with `check` and refuses to start on another schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, func, inspect, select, text
from sqlalchemy.schema import CreateSchema

from hub_ext.core.errors import SchemaMismatch, StoreUnavailable
from hub_ext.db.engine import booking, make_engine, reading
from hub_ext.db.failures import MISSING, NOTHING, place, sqlite_path
from hub_ext.db.tables import REVISION

MIGRATIONS = Path(__file__).parent / "migrations"
PATIENCE = 60.0
"""Seconds an upgrade waits for another one, and for bookings under way."""


def upgrade(database: str | URL | Engine) -> str:
    """Make or migrate the tables and return the schema version; what is up to date is left alone.

    Safe to run twice at once: the second waits, then finds nothing left to do. All of it is one transaction, which
    excludes bookings. Raises SchemaMismatch for a database that a newer program has migrated.
    """
    with _patient_engine(database) as engine, booking(engine, wait=PATIENCE) as connection:
        if engine.dialect.name == "postgresql":
            _prepare_postgresql(connection)
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        before = _revision(connection)
        try:
            command.upgrade(config, REVISION)
        except CommandError as error:
            raise _mismatch(engine, before) from error
    return REVISION


def make_schema(url: str, name: str) -> None:
    """Make a PostgreSQL schema for tables that are not ours, where it is missing. On SQLite there is nothing to do."""
    engine = make_engine(url)
    try:
        if engine.dialect.name == "postgresql":
            with booking(engine) as connection:
                connection.execute(CreateSchema(name, if_not_exists=True))
    finally:
        engine.dispose()


def check(engine: Engine) -> None:
    """Raises SchemaMismatch unless the database has exactly this program's schema version."""
    if engine.dialect.name == "sqlite" and not sqlite_path(engine).exists():
        raise _mismatch(engine, None)
    with reading(engine) as connection:
        found = _revision(connection)
    if found != REVISION:
        raise _mismatch(engine, found)


def _mismatch(engine: Engine, found: str | None) -> SchemaMismatch:
    if found is None:
        return SchemaMismatch(f"{place(engine)} has no tables yet. Make them: `hub-ext db upgrade`.")
    if found < REVISION:
        return SchemaMismatch(
            f"{place(engine)} has schema version {found}, and this program needs {REVISION}. "
            "Stop the hub, save a copy of the database, and run `hub-ext db upgrade`."
        )
    return SchemaMismatch(
        f"{place(engine)} has schema version {found}, and this program knows only {REVISION}: a newer program ran "
        "`hub-ext db upgrade` on it. Run that program, or restore the copy from before."
    )


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


@contextmanager
def _patient_engine(database: str | URL | Engine) -> Iterator[Engine]:
    """An engine that may make the file, and waits longer than the hub does."""
    if isinstance(database, Engine) and database.dialect.name != "sqlite":
        yield database
        return
    engine = make_engine(
        database.url if isinstance(database, Engine) else database, wait=PATIENCE, create=True
    )
    try:
        if engine.dialect.name == "sqlite":
            _prepare_file(engine)
        yield engine
    finally:
        engine.dispose()


def _prepare_file(engine: Engine) -> None:
    """Who runs what and when is nobody else's business on this machine: only the owner may read the file."""
    try:
        sqlite_path(engine).touch(mode=0o600)
    except OSError as error:
        what, instead = MISSING
        raise StoreUnavailable(f"{place(engine)} {what}. {NOTHING}. {instead}.") from error


def _prepare_postgresql(connection: Connection) -> None:
    """A migration may rewrite large tables, and may be what makes the schema."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    if connection.scalar(select(func.current_schema())) is None:
        schema = connection.scalar(select(func.current_setting("search_path")))
        connection.execute(CreateSchema(str(schema), if_not_exists=True))
