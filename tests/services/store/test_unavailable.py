"""A database that does not take part: a sentence that says what to do, nothing half-booked, and it goes on once mended."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from hub_ext.core.decision import Admit
from hub_ext.core.errors import BadInput, SchemaMismatch, StoreUnavailable
from hub_ext.db.engine import make_engine
from hub_ext.db.upgrade import upgrade
from hub_ext.quota.ledger import Entry, EntryKind
from hub_ext.quota.model import Ask
from hub_ext.quota.store import SqlStore
from tests.services.store.city import (
    START,
    all_sums,
    book,
    check_laws,
    lease,
    load_policy,
    new_store,
    path_and_person,
)
from tests.support.databases import (
    Database,
    PostgresServer,
    closed_port,
    failing_with,
    held_by_another,
    tear_connections,
    without_room,
    write_protected,
)

ASK = Ask("a1", "student", "univ", {"gpu.h200": 1000}, minutes=60)
SHORT = 0.05


def assert_a_sentence(error: StoreUnavailable, *, secret: str = "secret") -> None:
    """Fit to be read by a person: whole sentences, no SQL, no password."""
    said = str(error)
    assert said.startswith("The database ")
    assert said.endswith(".")
    assert ".." not in said
    for word in ("SELECT", "INSERT", "BEGIN", "PRAGMA", "psycopg", "sqlite3", "sqlalche", secret):
        assert word not in said


def assert_nothing_booked(database: Database) -> None:
    store = new_store(database)
    with store.reading() as transaction:
        assert transaction.live_leases() == []
        assert transaction.entries() == []
    check_laws(store)
    store.close()


def book_and_then(store: SqlStore, happens: Callable[[], None], *, go_on: bool) -> None:
    """Something happens in the middle of a booking, after it was saved; with `go_on` the booking then reads more."""
    with store.booking() as transaction:
        ledger = path_and_person(transaction, lease())
        transaction.save(ledger, [ledger.record(lease(), START)])
        happens()
        if go_on:
            transaction.live_leases()


def assert_works(store: SqlStore) -> None:
    assert isinstance(book(store, ASK), Admit)
    check_laws(store)


# -- both databases ------------------------------------------------------------------------------------------------


def test_locked_a_booking_gives_up_and_a_reader_does_not_care(database: Database) -> None:
    new_store(database, policy="city").close()
    store = new_store(database, wait=SHORT)
    with held_by_another(database):
        with pytest.raises(StoreUnavailable, match=r"is busy.*Nothing was booked") as caught:
            book(store, ASK)
        assert_a_sentence(caught.value)
        with store.reading() as transaction:
            assert transaction.live_leases() == []
    assert_nothing_booked(database)
    assert_works(store)
    store.close()


def test_read_only(database: Database) -> None:
    new_store(database, policy="city").close()
    with write_protected(database) as url:
        store = SqlStore(make_engine(url, wait=SHORT), load_policy=load_policy)
        with pytest.raises(StoreUnavailable, match=r"is read-only. Nothing was booked") as caught:
            book(store, ASK)
        assert_a_sentence(caught.value)
        with store.reading() as transaction:
            assert transaction.live_leases() == []
        store.close()
    assert_nothing_booked(database)


def test_every_connection_in_use(database: Database) -> None:
    """A booking inside a booking would wait for itself; here by sixteen readers that do not end."""
    store = new_store(database, policy="city", wait=SHORT)
    open_ones = [store.reading() for _ in range(15)]
    for reader in open_ones:
        reader.__enter__()
    with pytest.raises(StoreUnavailable, match="no connection or memory left") as caught:
        book(store, ASK)
    assert_a_sentence(caught.value)
    for reader in open_ones:
        reader.__exit__(None, None, None)
    assert_works(store)
    store.close()


# -- SQLite ----------------------------------------------------------------------------------------------------------


def test_full_nothing_is_half_booked(sqlite_database: Database) -> None:
    new_store(sqlite_database, policy="city").close()
    engine = sqlite_database.engine()
    without_room(engine)
    store = SqlStore(engine, load_policy=load_policy)

    def book_more_than_fits() -> None:
        with store.booking() as transaction:
            ledger = path_and_person(transaction, lease())
            transaction.save(ledger, [ledger.record(lease(), START)])
            ledger.entries.extend(
                Entry(EntryKind.DECIDED, START, facts={"text": "x" * 1000, "number": number})
                for number in range(1000)
            )
            transaction.save(ledger, [])

    with pytest.raises(
        StoreUnavailable, match=r"has no room left on its disk\. Nothing was booked"
    ) as caught:
        book_more_than_fits()
    assert_a_sentence(caught.value)
    store.close()
    assert_nothing_booked(sqlite_database)
    assert_works(new_store(sqlite_database))


def remove(path: Path) -> None:
    path.unlink()


def remove_its_folder(path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()


def make_it_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def write_a_letter_instead(path: Path) -> None:
    path.write_text("Dear hub, I am not a database. " * 50)


def scramble_its_pages(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))


def cut_it_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:8192])


BROKEN_FILES = [
    pytest.param(remove, "the file or its folder is missing", id="a missing file"),
    pytest.param(remove_its_folder, "the file or its folder is missing", id="a missing folder"),
    pytest.param(make_it_a_folder, "the file or its folder is missing", id="a folder in its place"),
    pytest.param(write_a_letter_instead, "is damaged, or is not a database", id="a letter in its place"),
    pytest.param(scramble_its_pages, "is damaged, or is not a database", id="damaged pages"),
    pytest.param(cut_it_short, "is damaged, or is not a database", id="a file cut short"),
]


@pytest.mark.parametrize(("break_it", "want"), BROKEN_FILES)
def test_a_file_that_is_broken_and_then_restored(
    tmp_path: Path, break_it: Callable[[Path], None], want: str
) -> None:
    path, saved = tmp_path / "state" / "hub.sqlite", tmp_path / "saved.sqlite"
    path.parent.mkdir()
    upgrade(f"sqlite:///{path}")
    database = Database("sqlite", f"sqlite:///{path}", str(path))
    new_store(database, policy="city").close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM INTO ?", [str(saved)])
    break_it(path)

    store = new_store(database)
    for use in (lambda: book(store, ASK), lambda: all_sums(store)):
        with pytest.raises(StoreUnavailable, match=want) as caught:
            use()
        assert_a_sentence(caught.value)

    if path.is_dir():
        path.rmdir()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(saved.read_bytes())
    assert_works(store)
    store.close()


def test_a_file_removed_while_in_use(sqlite_database: Database) -> None:
    store = new_store(sqlite_database, policy="city")
    whole = Path(sqlite_database.plain)
    with closing(sqlite3.connect(whole)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = whole.read_bytes()
    whole.unlink()
    with pytest.raises(StoreUnavailable) as caught:
        book(store, ASK)
    assert_a_sentence(caught.value)
    whole.write_bytes(copy)
    assert_works(store)
    store.close()


# -- PostgreSQL ------------------------------------------------------------------------------------------------------


def test_away_says_so_without_the_password() -> None:
    url = f"postgresql://hub:secret@127.0.0.1:{closed_port()}/hub"
    store = SqlStore(make_engine(url, wait=SHORT), load_policy=load_policy)
    for use in (store.check_schema, lambda: book(store, ASK), lambda: all_sums(store)):
        with pytest.raises(
            StoreUnavailable, match=r"The database hub on 127.0.0.1 is away.*Nothing was booked"
        ) as caught:
            use()
        assert_a_sentence(caught.value)
    with pytest.raises(StoreUnavailable, match="is away"):
        upgrade(url)
    store.close()


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("postgres@", "nobody_we_know:secret@", id="an unknown user"),
        pytest.param("/hub_", "/no_such_hub_", id="an unknown database"),
    ],
)
def test_turned_away(postgresql_database: Database, old: str, new: str) -> None:
    store = SqlStore(make_engine(postgresql_database.url.replace(old, new)), load_policy=load_policy)
    with pytest.raises(
        StoreUnavailable, match="is away: it cannot be reached, or turned the connection down"
    ) as caught:
        book(store, ASK)
    assert_a_sentence(caught.value)
    store.close()


@pytest.mark.postgres
def test_torn_in_the_middle_nothing_is_booked_and_the_next_connects_anew(
    postgresql_database: Database,
) -> None:
    store = new_store(postgresql_database, policy="city")
    with pytest.raises(StoreUnavailable, match=r"is away.*Nothing was booked") as caught:
        book_and_then(store, lambda: tear_connections(postgresql_database), go_on=True)
    assert_a_sentence(caught.value)
    assert_nothing_booked(postgresql_database)
    assert_works(store)
    store.close()


@pytest.mark.postgres
def test_torn_at_the_commit_it_does_not_claim_to_know(postgresql_database: Database) -> None:
    store = new_store(postgresql_database, policy="city")
    with pytest.raises(StoreUnavailable, match="Whether this was booked is not known") as caught:
        book_and_then(store, lambda: tear_connections(postgresql_database), go_on=False)
    assert_a_sentence(caught.value)
    assert_nothing_booked(postgresql_database)
    assert_works(store)
    store.close()


@pytest.mark.postgres
def test_torn_between_two_bookings_nobody_notices(postgresql_database: Database) -> None:
    store = new_store(postgresql_database, policy="city")
    tear_connections(postgresql_database)
    assert_works(store)
    store.close()


@pytest.mark.postgres
@pytest.mark.slow
def test_a_server_that_loses_its_power_in_the_middle() -> None:
    server = PostgresServer.start()
    upgrade(server.database.url)
    store = new_store(server.database, policy="city")
    with pytest.raises(StoreUnavailable, match="is away") as caught:
        book_and_then(store, server.crash, go_on=True)
    assert_a_sentence(caught.value)
    with pytest.raises(StoreUnavailable, match="is away"):
        all_sums(store)
    server.start_again()
    assert_nothing_booked(server.database)
    assert_works(store)
    store.close()
    server.stop()


SQLSTATES: list[Any] = [
    pytest.param("53100", "has no room left on its disk", id="the disk is full"),
    pytest.param("53200", "no connection or memory left", id="out of memory"),
    pytest.param("53300", "no connection or memory left", id="too many connections"),
    pytest.param("40P01", "is busy", id="a deadlock"),
    pytest.param("55P03", "is busy", id="a lock that was waited for too long"),
    pytest.param("57014", "took too long to answer", id="a statement that took too long"),
    pytest.param("57P01", "is away", id="an operator who shuts down"),
    pytest.param("57P03", "is away", id="a server that is starting"),
    pytest.param("58030", "could not be read from or written to its disk", id="a disk that fails"),
    pytest.param("XX001", "is damaged", id="damaged data"),
    pytest.param("42501", "does not let this program's user do this", id="missing rights"),
    pytest.param("25006", "is read-only", id="a standby"),
]


@pytest.mark.postgres
@pytest.mark.parametrize(("sqlstate", "want"), SQLSTATES)
def test_what_the_server_says_is_put_into_words(
    postgresql_database: Database, sqlstate: str, want: str
) -> None:
    store = new_store(postgresql_database, policy="city")
    failing_with(postgresql_database, sqlstate)
    with pytest.raises(StoreUnavailable, match=f"{want}.*Nothing was booked") as caught:
        book(store, ASK)
    assert_a_sentence(caught.value)
    assert_nothing_booked(postgresql_database)
    store.close()


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("sqlstate", "raised"),
    [
        pytest.param("23514", DBAPIError, id="a broken constraint"),
        pytest.param("22003", DBAPIError, id="a number out of range"),
        pytest.param("42601", DBAPIError, id="a wrong statement"),
        pytest.param("42P01", SchemaMismatch, id="a missing table"),
    ],
)
def test_a_mistake_is_not_called_unavailable(
    postgresql_database: Database, sqlstate: str, raised: type[Exception]
) -> None:
    store = new_store(postgresql_database, policy="city")
    failing_with(postgresql_database, sqlstate)
    with pytest.raises(raised):
        book(store, ASK)
    assert_nothing_booked(postgresql_database)
    store.close()


@pytest.mark.postgres
def test_a_character_that_no_text_can_hold_is_the_callers_to_leave_out(postgresql_database: Database) -> None:
    store = new_store(postgresql_database, policy="city")
    with pytest.raises(BadInput, match="cannot be kept"), store.reading() as transaction:
        transaction.ticket("a\x00b")

    def write() -> None:
        with store.booking() as transaction:
            ledger = transaction.ledger([])
            ledger.entries.append(Entry(EntryKind.DECIDED, START, facts={"text": "a\x00b"}))
            transaction.save(ledger, [])

    with pytest.raises(BadInput, match="cannot be kept"):
        write()
    assert_works(store)
    store.close()
