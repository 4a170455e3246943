"""The tables are made and checked: by migrations that agree with `hub_ext.db.tables`, by one process at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select, text

from hub_ext.core.errors import BadInput, SchemaMismatch, StoreUnavailable
from hub_ext.db import tables
from hub_ext.db.engine import make_engine, reading
from hub_ext.db.tables import REVISION, metadata
from hub_ext.db.upgrade import MIGRATIONS, check, upgrade
from hub_ext.quota.store import SqlStore
from tests.services.store.city import lease, load_policy, new_store, put_in_force
from tests.services.store.test_races import in_another_process, said
from tests.support.databases import Database


def test_this_program_knows_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [REVISION]


def test_migrating_an_empty_database_makes_exactly_the_tables(empty_database: Database) -> None:
    assert upgrade(empty_database.url) == REVISION
    engine = empty_database.engine()
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


INDEXES = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
    "postgresql": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
}


def test_migrating_makes_the_same_partial_indexes_as_the_tables(database: Database, tmp_path: Path) -> None:
    """Alembic's comparison does not look at the conditions of indexes."""
    engine = database.engine()

    def indexes() -> dict[object, str]:
        found = {name: str(sql) for name, sql in database.run(INDEXES[database.kind])}
        return {name: " ".join(sql.split()) for name, sql in found.items() if name != "alembic_version_pkc"}

    migrated = indexes()
    metadata.drop_all(engine)
    metadata.create_all(engine)
    assert indexes() == migrated
    assert len([sql for sql in migrated.values() if "WHERE" in sql]) == 6
    engine.dispose()


@pytest.mark.parametrize(
    ("conditions", "first", "index"),
    [
        pytest.param([tables.live], "booked_at", "leases_live", id="all"),
        pytest.param([tables.live], "ends_at", "leases_live_by_end", id="the first to end"),
        pytest.param(
            [tables.live, tables.leases.c.person == "a"],
            "booked_at",
            "leases_live_by_person",
            id="a person's",
        ),
        pytest.param(
            [tables.borrowed, tables.leases.c.pool.in_(["a"])],
            "booked_at",
            "leases_borrowed_by_pool",
            id="those to take back",
        ),
    ],
)
def test_live_leases_are_found_by_an_index(
    database: Database, conditions: list[Any], first: str, index: str
) -> None:
    engine = database.engine()
    query = select(tables.leases).where(*conditions).order_by(tables.leases.c[first], tables.leases.c.id)
    plain = str(query.compile(engine, compile_kwargs={"literal_binds": True}))
    explain = "EXPLAIN QUERY PLAN" if database.kind == "sqlite" else "SET enable_seqscan = off; EXPLAIN"
    with engine.connect() as connection:
        for statement in explain.split(";")[:-1]:
            connection.exec_driver_sql(statement)
        plan = str(connection.exec_driver_sql(f"{explain.split(';')[-1]} {plain}").all())
    # On an empty table PostgreSQL may take another of them; that it can use one is what counts.
    assert (index if database.kind == "sqlite" else "leases_") in plan, plan
    engine.dispose()


def test_upgrading_again_changes_nothing(database: Database) -> None:
    store = new_store(database, policy="city")
    with store.booking() as transaction:
        transaction.save(transaction.ledger([]), [lease()])
    assert upgrade(database.url) == upgrade(database.engine()) == REVISION
    store.check_schema()
    with store.reading() as transaction:
        assert transaction.live_leases() == [lease()]
    store.close()


def upgrade_at_once(pipe: Connection, url: str) -> None:
    pipe.send("ready")
    pipe.recv()
    pipe.send(upgrade(url))


def test_many_processes_may_upgrade_at_once(empty_database: Database) -> None:
    def four(rest: int, pipes: list[Connection]) -> None:
        if rest:
            with in_another_process(upgrade_at_once, empty_database.url) as (_, pipe):
                four(rest - 1, [*pipes, pipe])
            return
        assert [said(pipe) for pipe in pipes] == ["ready"] * 4
        for pipe in pipes:
            pipe.send("go")
        assert [said(pipe) for pipe in pipes] == [REVISION] * 4

    four(4, [])
    engine = empty_database.engine()
    check(engine)
    engine.dispose()


def test_an_sqlite_file_is_its_owners_alone_and_writes_ahead(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    upgrade(f"sqlite:///{path}")
    assert path.stat().st_mode & 0o777 == 0o600
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.parametrize(
    ("pragma", "want"),
    [
        pytest.param("foreign_keys", 1, id="rows refer to rows that exist"),
        pytest.param("synchronous", 2, id="a commit survives a power cut"),
        pytest.param("busy_timeout", 5000, id="a booking waits five seconds for others"),
    ],
)
def test_every_sqlite_connection_is_set_up(sqlite_database: Database, pragma: str, want: int) -> None:
    engine = sqlite_database.engine()
    with reading(engine) as one, reading(engine) as other:
        assert [c.execute(text(f"PRAGMA {pragma}")).scalar() for c in (one, other)] == [want, want]
    engine.dispose()


@pytest.mark.postgres
def test_a_postgresql_schema_may_be_named_and_is_made(postgresql_database: Database) -> None:
    url = f"{postgresql_database.url}&schema=hangang"
    upgrade(url)
    engine = make_engine(url)
    check(engine)
    assert "leases" in inspect(engine).get_table_names(schema="hangang")
    store = SqlStore(engine, load_policy=load_policy)
    put_in_force(store, "city")
    assert postgresql_database.run("SELECT count(*) FROM hangang.policies") == [(1,)]
    assert postgresql_database.run("SELECT count(*) FROM public.policies") == [(0,)]
    store.close()


# -- another schema -----------------------------------------------------------------------------------------------


def no_tables(database: Database) -> None:
    engine = database.engine()
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
    engine.dispose()


def version(number: str) -> Callable[[Database], None]:
    def set_it(database: Database) -> None:
        database.run(f"UPDATE alembic_version SET version_num = '{number}'")

    return set_it


MISMATCHES = [
    pytest.param(no_tables, "has no tables yet", id="a database without tables"),
    pytest.param(version("0000"), "has schema version 0000, and this program needs", id="an older database"),
    pytest.param(
        version("9999"), "has schema version 9999, and this program knows only", id="a newer database"
    ),
]


@pytest.mark.parametrize(("make_it_differ", "want"), MISMATCHES)
def test_another_schema_is_refused(
    database: Database, make_it_differ: Callable[[Database], None], want: str
) -> None:
    make_it_differ(database)
    store = new_store(database)
    with pytest.raises(SchemaMismatch, match=want) as caught:
        store.check_schema()
    assert "`hub-ext db upgrade`" in str(caught.value)
    store.close()


def test_an_empty_database_or_missing_file_is_refused_and_none_is_made(empty_database: Database) -> None:
    store = new_store(empty_database)
    with pytest.raises(SchemaMismatch, match=r"has no tables yet.*`hub-ext db upgrade`"):
        store.check_schema()
    if empty_database.kind == "sqlite":
        assert not Path(empty_database.plain).exists()
    store.close()


def test_an_upgrade_leaves_a_newer_database_alone(database: Database) -> None:
    version("9999")(database)
    with pytest.raises(SchemaMismatch, match="a newer program ran `hub-ext db upgrade`"):
        upgrade(database.url)
    assert database.run("SELECT version_num FROM alembic_version") == [("9999",)]


def test_tables_that_are_not_there_are_a_mismatch(database: Database) -> None:
    store = new_store(database, policy="city")
    database.run("DROP TABLE usage_days", "DROP TABLE leases")
    with (
        pytest.raises(SchemaMismatch, match="lacks tables or columns") as caught,
        store.reading() as transaction,
    ):
        transaction.live_leases()
    assert "SELECT" not in str(caught.value)
    store.close()


def test_a_folder_that_is_not_there_cannot_hold_a_database(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="folder is missing"):
        upgrade(f"sqlite:///{tmp_path / 'nowhere' / 'hub.sqlite'}")


@pytest.mark.parametrize(
    ("url", "want"),
    [
        pytest.param("sqlite://", "in memory", id="SQLite in memory"),
        pytest.param("sqlite:///:memory:", "in memory", id="SQLite in memory by name"),
        pytest.param(
            "mysql://hub:secret@db/hub", "'mysql' is not a database the hub can use", id="another kind"
        ),
        pytest.param("not an address: secret", "cannot be read", id="no URL"),
        pytest.param("postgresql://hub:secret@db:port/hub", "cannot be read", id="a port that is no number"),
        pytest.param(
            "postgresql://hub:secret@db/hub?schema=a;b", "cannot name a schema", id="a schema that is no name"
        ),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(url: str, want: str) -> None:
    with pytest.raises(BadInput, match=want) as caught:
        make_engine(url)
    assert "secret" not in str(caught.value)
