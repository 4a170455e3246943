"""Many at once: processes race for the last GPU, threads share one store, readers and writers meet."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Barrier
from typing import Any

import pytest

from hub_ext.core.decision import Admit
from hub_ext.quota.ledger import EntryKind
from hub_ext.quota.model import Ask
from hub_ext.quota.store import SqlStore
from tests.services.store.city import (
    NODES,
    START,
    all_entries,
    all_sums,
    book,
    check_laws,
    lease,
    new_store,
    path_and_person,
)
from tests.support.databases import Database

ATTEMPTS = 500
PATIENT = 60.0
"""Seconds to wait for a turn: a busy test machine is no failure."""
spawn = multiprocessing.get_context("spawn")


@contextmanager
def in_another_process(work: Any, *arguments: Any) -> Iterator[tuple[SpawnProcess, Connection]]:
    """Runs `work(pipe, *arguments)` in a new process; yields it with this side's end of the pipe."""
    here, there = spawn.Pipe()
    process = spawn.Process(target=work, args=(there, *arguments), daemon=True)
    process.start()
    there.close()
    try:
        yield process, here
    finally:
        process.kill()
        process.join()
        here.close()


def said(pipe: Connection) -> Any:
    assert pipe.poll(PATIENT), "the other process said nothing"
    return pipe.recv()


# -- the last GPU ---------------------------------------------------------------------------------------------------


def grab_again_and_again(pipe: Connection, database: Database, together: Barrier, name: str) -> None:
    """Ask for the one GPU at the same moment as the other; whoever got it gives it back before the next round."""
    store = new_store(database, wait=PATIENT)
    admitted = []
    for number in range(ATTEMPTS):
        ask = Ask(f"{name}-{number}", name, "seoul", {"gpu.h200": 1000}, minutes=60)
        together.wait(PATIENT)
        decision = book(store, ask, START + number)
        together.wait(PATIENT)
        if isinstance(decision, Admit):
            admitted.append(number)
            with store.booking() as transaction:
                held = transaction.lease(ask.id)
                assert held is not None
                ledger = path_and_person(transaction, held)
                transaction.save(ledger, [ledger.release(held, START + number)])
    store.close()
    pipe.send(admitted)


@pytest.mark.slow
def test_two_processes_never_both_take_the_last_gpu(database: Database) -> None:
    store = new_store(database, policy="one-gpu")
    before = all_sums(store)
    together = spawn.Barrier(2)
    with (
        in_another_process(grab_again_and_again, database, together, "a") as (_, first),
        in_another_process(grab_again_and_again, database, together, "b") as (_, second),
    ):
        won = [*said(first), *said(second)]
    assert sorted(won) == list(range(ATTEMPTS)), "in each round exactly one of the two got the GPU"

    with store.reading() as transaction:
        entries = [entry for _, entry in all_entries(transaction)]
    holder = None
    for entry in entries:
        if entry.kind is EntryKind.BOOKED:
            assert holder is None, f"{entry.lease} was booked while {holder} held the GPU"
            holder = entry.lease
        else:
            assert (entry.kind, entry.lease) == (EntryKind.RELEASED, holder)
            holder = None
    assert len(entries) == 2 * ATTEMPTS
    assert all_sums(store) == before
    check_laws(store)
    store.close()


# -- in the middle ------------------------------------------------------------------------------------------------


def book_half(pipe: Connection, database: Database, commit: bool) -> None:
    """Save a lease, then stop in the middle of the transaction, or right after it."""
    store = new_store(database, wait=PATIENT)
    with store.booking() as transaction:
        ledger = path_and_person(transaction, lease())
        transaction.save(ledger, [ledger.record(lease(), START)])
        if not commit:
            pipe.send("written")
            pipe.recv()
    pipe.send("written")
    pipe.recv()


@pytest.mark.parametrize(
    "commit", [pytest.param(False, id="in its middle"), pytest.param(True, id="after its end")]
)
def test_killed_with_a_booking(database: Database, commit: bool) -> None:
    store = new_store(database, policy="city", wait=PATIENT)
    before = all_sums(store)
    with in_another_process(book_half, database, commit) as (process, pipe):
        assert said(pipe) == "written"
        process.kill()
        process.join()
    with store.booking() as transaction:
        assert [found.id for found in transaction.live_leases()] == (["l1"] if commit else [])
        assert len(transaction.entries()) == int(commit)
    assert (all_sums(store) != before) is commit
    check_laws(store)
    assert isinstance(book(store, Ask("next", "student", "univ", {"gpu.h200": 1000}, minutes=60)), Admit)
    if database.kind == "sqlite":
        assert database.run("PRAGMA integrity_check") == [("ok",)]
    store.close()


# -- readers and threads --------------------------------------------------------------------------------------------


def test_a_reader_sees_one_state_and_keeps_nobody_waiting(store: SqlStore) -> None:
    with store.reading() as transaction:
        before = dict(transaction.ledger(None).sums.items())
        assert isinstance(book(store, Ask("l1", "student", "univ", {"gpu.h200": 1000}, minutes=60)), Admit)
        assert dict(transaction.ledger(None).sums.items()) == before
        assert transaction.live_leases() == []
    with store.reading() as transaction:
        assert len(transaction.live_leases()) == 1


def test_a_reader_does_not_wait_for_a_booking_and_sees_none_of_it(store: SqlStore) -> None:
    with store.booking() as booking:
        ledger = path_and_person(booking, lease())
        booking.save(ledger, [ledger.record(lease(), START)])
        with store.reading() as transaction:
            assert transaction.live_leases() == []


def test_threads_share_one_store(store: SqlStore) -> None:
    with store.booking() as transaction:
        transaction.put_nodes(NODES)
    together = threading.Barrier(8)

    def one_person(number: int) -> int:
        together.wait()
        admitted = 0
        for attempt in range(5):
            ask = Ask(
                f"{number}-{attempt}", f"p{number}", "industry", {"gpu.h200": 1000}, "dask-worker", minutes=60
            )
            admitted += isinstance(book(store, ask), Admit)
            with store.reading() as transaction:
                assert sum(one.amounts["gpu.h200"] for one in transaction.live_leases()) <= 6000
        return admitted

    with ThreadPoolExecutor(8) as threads:
        admitted = sum(threads.map(one_person, range(8)))
    with store.reading() as transaction:
        assert len(transaction.live_leases()) == admitted > 0
    check_laws(store)


def take(pipe: Connection, database: Database, holder: str) -> None:
    store = new_store(database, wait=PATIENT)
    pipe.send("ready")
    now = pipe.recv()
    while now is not None:
        with store.booking() as transaction:
            pipe.send(transaction.take_leadership("clock", holder, now, 10))
        now = pipe.recv()
    store.close()


def test_of_two_processes_one_leads(database: Database) -> None:
    with (
        in_another_process(take, database, "a") as (_, first),
        in_another_process(take, database, "b") as (_, second),
    ):
        for pipe in (first, second):
            said(pipe)
        for term in range(20):
            for pipe in (first, second):
                pipe.send(term * 10)
            assert sorted(said(pipe) for pipe in (first, second)) == [False, True]
        for pipe in (first, second):
            pipe.send(None)
