"""Mistakes of the program are told at once, before they could write a wrong row."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.exc import IntegrityError

from hub_ext.quota.ledger import Charge, Ledger
from hub_ext.quota.model import Grant
from hub_ext.quota.store import LoadedSums, NotLoaded, SqlStore
from hub_ext.quota.sums import SumKey, Sums
from tests.services.store.city import CITY, START, all_sums, lease, path_and_person

LOADED = [
    pytest.param(SumKey("used", "univ", "cpu"), id="a pool that was named"),
    pytest.param(SumKey("held", "univ", "servers", "student"), id="a person who was named"),
    pytest.param(
        SumKey("drawn", "univ", "month", "any grant", "2027-03-01"), id="what a grant of a named pool paid"
    ),
    pytest.param(SumKey("taken", "", "cpu", "any node"), id="any node"),
    pytest.param(SumKey("starting"), id="the starts"),
]
NOT_LOADED = [
    pytest.param(SumKey("used", "public", "cpu"), id="a pool that was not named"),
    pytest.param(SumKey("drawn", "public", "month", "any grant", "2027-03-01"), id="a grant of such a pool"),
    pytest.param(SumKey("held", "univ", "servers", "researcher"), id="a person who was not named"),
    pytest.param(
        SumKey("spent", "univ", "week:person", "researcher", "2027-03-01"), id="such a person's hours"
    ),
]


@pytest.mark.parametrize("key", LOADED)
def test_what_was_loaded_counts(key: SumKey) -> None:
    sums = LoadedSums({}, ["univ"], ["student"])
    sums.add(key, 3)
    assert sums[key] == 3
    assert sums.copy()[key] == 3


@pytest.mark.parametrize("key", NOT_LOADED)
def test_what_was_not_loaded_is_neither_read_nor_set(key: SumKey) -> None:
    for sums in (LoadedSums({}, ["univ"], ["student"]), LoadedSums({}, ["univ"], ["student"]).copy()):
        with pytest.raises(NotLoaded, match="name this one as well"):
            sums[key]
        with pytest.raises(NotLoaded):
            sums[key] = 1
    assert LoadedSums({}, None)[key] == 0


def test_a_lease_whose_path_was_not_loaded_cannot_be_released(store: SqlStore) -> None:
    with store.booking() as transaction:
        ledger = path_and_person(transaction, lease())
        transaction.save(ledger, [ledger.record(lease(), START)])
    before = all_sums(store)
    with pytest.raises(NotLoaded, match="seoul"), store.booking() as transaction:
        transaction.ledger(["univ"], ["student"]).release(lease(), START)
    with pytest.raises(NotLoaded, match="student"), store.booking() as transaction:
        transaction.ledger(CITY.path("univ"), ["researcher"]).release(lease(), START)
    assert all_sums(store) == before


def test_saving_twice_writes_once(store: SqlStore) -> None:
    with store.booking() as transaction:
        ledger = path_and_person(transaction, lease())
        held = ledger.run(ledger.record(lease(), START), START)
        held = ledger.accrue(held, START + 60)
        for _ in range(3):
            transaction.save(ledger, [held])
        assert ledger.entries == []
        assert ledger.charges == []
        assert len(transaction.entries()) == 3
        assert [units for *_, units in transaction.charges()] == [60 * held.cost]
        held = ledger.accrue(held, START + 120)
        transaction.save(ledger, [held])
        assert len(transaction.entries()) == 4
        assert [units for *_, units in transaction.charges()] == [120 * held.cost]


def test_an_entry_is_not_saved_without_its_lease(store: SqlStore) -> None:
    with store.booking() as transaction:
        ledger = path_and_person(transaction, lease())
        ledger.record(lease(), START)
        with pytest.raises(ValueError, match="not saved with them: l1"):
            transaction.save(ledger, [])


def test_a_ledger_is_not_saved_in_another_transaction(store: SqlStore) -> None:
    with store.reading() as transaction:
        stale = transaction.ledger(None)
    with pytest.raises(ValueError, match="another transaction"), store.booking() as transaction:
        transaction.save(stale, [])
    with pytest.raises(ValueError, match="loaded can be saved"), store.booking() as transaction:
        transaction.save(Ledger(CITY, Sums()), [])


def test_a_ledger_that_another_overtook_is_not_saved(store: SqlStore) -> None:
    with store.booking() as transaction:
        one, other = transaction.ledger(None), transaction.ledger(None)
        transaction.save(one, [one.record(lease("l1"), START)])
        late = other.record(lease("l2"), START)
        with pytest.raises(ValueError, match="load it again"):
            transaction.save(other, [late])
        transaction.put_policy("city", CITY, Sums(), now=START, who="operator")
        late = one.record(lease("l3"), START)
        with pytest.raises(ValueError, match="load it again"):
            transaction.save(one, [late])
        assert [found.id for found in transaction.live_leases()] == ["l1"]


def test_reading_writes_nothing(store: SqlStore) -> None:
    with store.reading() as transaction:
        ledger = transaction.ledger(None)
        ledger.record(lease(), START)
        for write in (
            lambda: transaction.save(ledger, [lease()]),
            lambda: transaction.seen(["l1"], START),
            lambda: transaction.put_nodes([]),
            lambda: transaction.put_policy("city", CITY, Sums(), now=START, who=""),
            lambda: transaction.take_leadership("clock", "a", 0, 1),
        ):
            with pytest.raises(ValueError, match="writes nothing"):
                write()


def test_an_error_in_the_block_books_nothing(store: SqlStore) -> None:
    before = all_sums(store)

    def fail_after_saving() -> None:
        with store.booking() as transaction:
            ledger = path_and_person(transaction, lease())
            transaction.save(ledger, [ledger.record(lease(), START)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_saving()
    assert all_sums(store) == before
    with store.reading() as transaction:
        assert transaction.entries() == []
        assert transaction.lease("l1") is None


def test_a_broken_constraint_is_a_mistake_and_stays_one(store: SqlStore) -> None:
    def grant_to(pool: str) -> None:
        with store.booking() as transaction:
            ledger = transaction.ledger([pool])
            ledger.grant(Grant("g1", pool, "month", "", 5, START, "", START))
            transaction.save(ledger, [])

    def charge_a_lease_never_booked() -> None:
        with store.booking() as transaction:
            ledger = transaction.ledger([])
            ledger.charges.append(Charge("never booked", CITY.local(START).date(), 1, 1))
            transaction.save(ledger, [])

    grant_to("univ")
    mistakes: list[Callable[[], None]] = [lambda: grant_to("industry"), charge_a_lease_never_booked]
    for mistake in mistakes:
        with pytest.raises(IntegrityError):
            mistake()
