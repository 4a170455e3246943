"""Tickets, reservations and what was used lately are read back as they were written, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from hub_ext.core.clock import DAY, HOUR
from hub_ext.quota.ledger import Charge
from hub_ext.quota.model import Ask, Eta, Outlook, Reservation, Ticket
from hub_ext.quota.store import SqlStore
from tests.services.store.city import CITY, START, lease

POOL_FULL = Outlook("pool-full", {"pool": "univ", "resource": "gpu.h200"})


def ticket(name: str = "t1", *, outlook: Outlook = POOL_FULL, **changes: Any) -> Ticket:
    parts = {"person": "student", "pool": "univ", "amounts": {"gpu.h200": 1000}, "server": name}
    ask = Ask(name, **parts | changes.pop("ask", {}))
    return replace(Ticket(ask, START, outlook), **changes)


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(ticket(), id="a ticket with nothing but what it needs"),
        pytest.param(
            ticket(
                ask={
                    "person": "김하늘",
                    "minutes": 90,
                    "profile": "h200",
                    "reservation": "w1",
                    "kind": "dask-worker",
                },
                outlook=Outlook("no-node-free", {"nodes": 2}, 3, Eta(START + 60, "latest"), ("l2", "l1")),
                put_back=True,
                displaced_by="t0",
                wanted=4,
                booked=3,
                options={"profile": "h200", "gpus": "2", "minutes": 90},
            ),
            id="a ticket with everything",
        ),
    ],
)
def test_tickets(store: SqlStore, wanted: Ticket) -> None:
    with store.booking() as txn:
        txn.put_tickets([wanted])
    with store.reading() as txn:
        assert txn.ticket("t1") == wanted
        assert (
            txn.tickets() == txn.tickets(person=wanted.ask.person) == txn.tickets(pools=["univ"]) == [wanted]
        )
        assert txn.tickets(codes=[wanted.outlook.code, "other"]) == [wanted]
        assert txn.tickets_by_id(["t1", "t2"]) == [wanted]
        assert txn.tickets(person="nobody") == txn.tickets(pools=["seoul"]) == txn.tickets(codes=["x"]) == []


def test_tickets_come_in_the_order_in_which_they_were_made(store: SqlStore) -> None:
    with store.booking() as txn:
        txn.put_tickets([ticket("b"), ticket("a"), ticket("c", made_at=START - 1)])
    with store.reading() as txn:
        assert [one.id for one in txn.tickets()] == ["c", "a", "b"]


def test_facts_with_times_are_kept_as_text(store: SqlStore) -> None:
    with store.booking() as txn:
        txn.put_tickets([ticket(outlook=Outlook("budget-spent", {"renews": CITY.local(START)}))])
    with store.reading() as txn:
        found = txn.ticket("t1")
    assert found is not None
    assert found.outlook.facts == {"renews": "2027-03-01T09:00:00+09:00"}


def test_outlooks_change_alone_and_those_of_tickets_that_are_gone_are_left_out(store: SqlStore) -> None:
    better = Outlook("others-waiting", {"pool": "univ"}, 1, Eta(START + HOUR, "expected"))
    with store.booking() as txn:
        txn.put_tickets([ticket("t1"), ticket("t2", options={"profile": "a"})])
        txn.put_outlooks({"t2": better, "gone": better})
    with store.reading() as txn:
        assert txn.tickets() == [ticket("t1"), ticket("t2", options={"profile": "a"}, outlook=better)]


def test_any_number_of_tickets_is_dropped_at_once(store: SqlStore) -> None:
    with store.booking() as txn:
        txn.put_tickets(ticket(f"t{number}") for number in range(1200))
        txn.drop_tickets(f"t{number}" for number in range(1, 1200))
    with store.reading() as txn:
        assert [one.id for one in txn.tickets()] == ["t0"]


def test_reservations_that_are_not_over(store: SqlStore) -> None:
    over = Reservation("over", "univ", {"gpu.h200": 1000}, START - HOUR, START)
    runs = Reservation("runs", "univ", {"gpu.h200": 1000}, START - HOUR, START + 1, shrunk_to={"gpu.h200": 0})
    comes = Reservation(
        "comes", "univ", {}, START + HOUR, START + 2 * HOUR, False, None, "강의", "lead", START, ""
    )
    with store.booking() as txn:
        txn.put_reservations([comes, over, runs])
    with store.reading() as txn:
        assert txn.reservations(START) == [runs, comes]
    with store.booking() as txn:
        txn.put_reservations([replace(comes, approved=True, approved_by="head")])
        txn.drop_reservations(["runs"])
    with store.reading() as txn:
        assert txn.reservations(START) == [replace(comes, approved=True, approved_by="head")]


def test_what_was_used_since_a_day_by_pool_and_person(store: SqlStore) -> None:
    days = [date(2027, 3, 1), date(2027, 3, 2), date(2027, 3, 3)]
    with store.booking() as txn:
        ledger = txn.ledger([])
        ledger.charges += [
            *(Charge("l1", day, 10, 60) for day in days),
            Charge("l2", days[2], 5, 60),
            Charge("l3", days[2], 0, 60),
            Charge("l4", days[2], 7, 60),
        ]
        other = lease("l4", person="lead")
        txn.save(ledger, [lease("l1"), lease("l2"), lease("l3", pool="industry"), other])
    with store.reading() as txn:
        assert sorted(txn.used_since(days[1])) == [
            ("univ", "lead", days[2], 7),
            ("univ", "student", days[1], 10),
            ("univ", "student", days[2], 15),
        ]


def test_what_was_made_or_ended_shows_in_the_number_of_the_newest_entry(store: SqlStore) -> None:
    def newest() -> int:
        with store.reading() as txn:
            return txn.newest_entry()

    before = newest()
    with store.booking() as txn:
        ledger = txn.ledger(["univ", "public", "seoul"], ["student"])
        txn.save(ledger, [ledger.record(lease("l1"), START + DAY)])
    assert newest() > before
