"""What is written is read back as it was, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from hub_ext.core.errors import BadInput
from hub_ext.core.people import Person
from hub_ext.quota.budget import BudgetOf
from hub_ext.quota.ledger import Charge, Entry, EntryKind
from hub_ext.quota.model import Ask, Grant, Lease, LeaseState, Node
from hub_ext.quota.ports import UsageRow
from hub_ext.quota.store import SqlStore
from hub_ext.quota.sums import SumKey, Sums
from tests.services.store.city import (
    CITY,
    EVERYBODY,
    NEXT,
    NODES,
    POLICIES,
    START,
    all_sums,
    book,
    lease,
    load_policy,
    new_store,
    path_and_person,
    put_in_force,
)
from tests.support.databases import Database

LARGE = 2**62
WEEK = BudgetOf("univ", CITY.pools["univ"].budgets[1], "student")


def save(store: SqlStore, *leases: Lease) -> None:
    with store.booking() as transaction:
        transaction.save(transaction.ledger([]), leases)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="a lease with nothing but what it needs"),
        pytest.param({"amounts": {}}, id="a lease of nothing"),
        pytest.param({"person": "김하늘", "server": "실험 2", "profile": "gpu/큰 것"}, id="names in Korean"),
        pytest.param({"person": 'o\'brien; -- "%s" {0}', "why": None}, id="names that look like SQL"),
        pytest.param(
            {"cost": LARGE, "ends_at": LARGE, "amounts": {"memory": LARGE}}, id="numbers beyond 32 bits"
        ),
        pytest.param(
            {
                "guaranteed": False,
                "lender": "seoul",
                "state": LeaseState.RUNNING,
                "started_at": START + 1,
                "noticed_at": START + 2,
                "seen_at": START + 3,
                "profile": "rapids",
                "server": "second",
                "node": "n1",
                "devices": ("GPU-2", "GPU-1"),
                "handle": "pid 17",
                "reservation": "w1",
            },
            id="a lease with everything",
        ),
        pytest.param(
            {"state": LeaseState.RELEASED, "released_at": START + 9, "reason": "lost"},
            id="a lease that is over",
        ),
    ],
)
def test_leases(store: SqlStore, changes: dict[str, Any]) -> None:
    changes.pop("why", None)
    wanted = lease(**changes)
    save(store, wanted)
    with store.reading() as transaction:
        assert transaction.lease(wanted.id) == wanted
        assert transaction.lease("another") is None
        assert transaction.live_leases() == ([wanted] if wanted.live else [])


def test_live_leases_by_person_pool_and_label_oldest_booking_first(store: SqlStore) -> None:
    late = lease("a", booked_at=START + 5)
    early = lease("b", booked_at=START + 1)
    other = lease("0", person="researcher", pool="industry", path=("industry", "seoul"), guaranteed=False)
    gone = lease("d", state=LeaseState.RELEASED)
    save(store, late, early, other, gone)
    with store.reading() as transaction:
        assert transaction.live_leases() == [other, early, late]
        assert transaction.all_leases() == [other, gone, early, late]
        assert transaction.live_leases(person="student") == [early, late]
        assert transaction.live_leases(pools=["industry", "nowhere"]) == [other]
        assert transaction.live_leases(person="student", pools=["industry"]) == []
        assert transaction.live_leases(pools=[]) == []
        assert transaction.borrowed_leases(["industry", "univ"]) == [other]
        assert transaction.borrowed_leases(["univ"]) == []


def test_entries_keep_their_order_number_and_facts(store: SqlStore) -> None:
    facts = {"deep": {"list": [1, 2.5, None, True, "글"]}, "units": LARGE}
    wanted = [
        Entry(
            EntryKind.DECIDED, START + 9, lease="ask-7", pool="univ", person="student", who="hub", facts=facts
        ),
        Entry(EntryKind.DECIDED, START + 3, why="an older instant, written later"),
    ]
    with store.booking() as transaction:
        ledger = transaction.ledger([])
        ledger.entries.extend(wanted)
        transaction.save(ledger, [])
    with store.reading() as transaction:
        (first, _), (second, _) = found = transaction.entries()
        assert [entry for _, entry in found] == wanted
        assert first < second
        assert transaction.entries(after=first) == found[1:]
        assert transaction.entries(limit=1) == found[:1]
        assert transaction.entries(lease="ask-7") == found[:1]
        assert transaction.latest() == START + 9


def test_the_instant_of_the_newest_entry_is_zero_where_there_is_none(store: SqlStore) -> None:
    with store.reading() as transaction:
        assert transaction.latest() == 0


def test_charges_of_one_day_add_up(store: SqlStore) -> None:
    first, second = date(2027, 3, 1), date(2027, 3, 2)
    one, other = lease("l1"), lease("l2", person="researcher")
    save(store, one, other)
    for charges in (
        [Charge("l1", first, 10, 1), Charge("l1", first, 20, 2), Charge("l2", second, LARGE, 4)],
        [Charge("l1", first, 30, 3), Charge("l1", second, 1, 1)],
    ):
        with store.booking() as transaction:
            ledger = transaction.ledger([])
            ledger.charges.extend(charges)
            transaction.save(ledger, [])
    with store.reading() as transaction:
        want = [
            UsageRow(first, one, 60, 6),
            UsageRow(second, one, 1, 1),
            UsageRow(second, other, LARGE, 4),
        ]
        assert transaction.usage(first, second) == want
        assert transaction.usage(first, first) == want[:1]
        assert transaction.usage(date(2026, 1, 1), date(2026, 12, 31)) == []
        assert transaction.charges() == [(row.lease, row.day, row.units) for row in want]


def test_grants_are_stored_once_and_loaded_with_their_pools(store: SqlStore) -> None:
    one = Grant("g1", "univ", "week:person", "student", LARGE, START + 100, "마감", START, "lead")
    other = Grant("g2", "industry", "month", "", 5, START + 100, "", START + 1)
    with store.booking() as transaction:
        ledger = transaction.ledger(["univ", "industry"])
        ledger.grant(one)
        transaction.save(ledger, [])
        ledger.grant(other)
        transaction.save(ledger, [])
        transaction.save(ledger, [])
    with store.booking() as transaction:
        assert transaction.grants() == [one, other]
        assert transaction.ledger(["univ"]).grants == [one]
        assert transaction.ledger(None).grants == [one, other]
        assert [entry.kind for _, entry in transaction.entries()] == [EntryKind.GRANTED, EntryKind.GRANTED]
        transaction.save(transaction.ledger(None), [])
        assert transaction.grants() == [one, other]


def test_sums_are_replaced_and_zero_leaves_no_row(store: SqlStore) -> None:
    keys = [
        SumKey("used", "univ", "gpu.h200"),
        SumKey("spent", "univ", "week:person", "student", "2027-03-01"),
        SumKey("taken", "", "gpu.h200", "n1"),
        SumKey("starting"),
    ]
    for value in (7, -LARGE, LARGE, 0):
        with store.booking() as transaction:
            ledger = transaction.ledger(["univ"], ["student"])
            for key in keys:
                ledger.sums[key] = value
            transaction.save(ledger, [])
        assert {key: all_sums(store)[key] for key in keys} == dict.fromkeys(keys, value)
    assert not [key for key in all_sums(store) if key in keys]


def test_a_ledger_holds_its_pools_its_people_their_grants_the_nodes_and_the_starts(store: SqlStore) -> None:
    grant = Grant("g1", "univ", "week:person", "student", 5, START + 100, "", START)
    inside = {
        SumKey("used", "univ", "gpu.h200"): 1,
        SumKey("held", "univ", "servers", "student"): 2,
        SumKey("drawn", "univ", "week:person", "g1", "2027-03-01"): 3,
        SumKey("taken", "", "cpu", "n1"): 4,
        SumKey("starting"): 5,
    }
    outside = {SumKey("used", "industry", "cpu"): 6, SumKey("held", "univ", "servers", "researcher"): 7}
    with store.booking() as transaction:
        ledger = transaction.ledger(None)
        ledger.grant(grant)
        for key, value in (inside | outside).items():
            ledger.sums[key] = value
        transaction.save(ledger, [])
    with store.reading() as transaction:
        loaded = transaction.ledger(["univ"], ["student"]).sums
        assert {key: value for key, value in loaded.items() if key.kind != "opened"} == inside


def test_nodes_nobody_reported_limit_nothing_and_an_empty_report_is_one(store: SqlStore) -> None:
    reports: list[tuple[Node, ...]] = [NODES, NODES[1:], (replace(NODES[0], devices=()),), (), NODES]
    with store.reading() as transaction:
        assert transaction.nodes() is None
    for report in reports:
        with store.booking() as transaction:
            transaction.put_nodes(report[::-1])
            transaction.put_nodes(report)
        with store.reading() as transaction:
            assert transaction.nodes() == report


def test_people_are_replaced_by_name_and_keep_an_identity_that_is_not_given_anew(
    store: SqlStore, database: Database
) -> None:
    student = Person(
        "student", ("univ", "seoul"), frozenset({"lead", "user"}), frozenset({"small"}), any_profile=False
    )
    anybody = Person("anybody", any_pool=True)
    with store.booking() as transaction:
        transaction.put_person(student, issuer="https://id.city", subject="17", now=START)
        transaction.put_person(anybody)
        assert transaction.person("student") == student
        assert transaction.person("nobody") is None
        assert transaction.people() == [anybody, student]
        moved = replace(student, pools=("industry",))
        transaction.put_person(moved, now=START + 1)
        assert transaction.people() == [anybody, moved]
    assert database.run("SELECT issuer, subject, at FROM people WHERE name = 'student'") == [
        ("https://id.city", "17", START + 1)
    ]


def test_the_newest_policy_is_in_force_and_read_once(database: Database) -> None:
    read: list[str] = []

    def reader(text: str) -> Any:
        read.append(text)
        return load_policy(text)

    writer, store = new_store(database), SqlStore(database.engine(), load_policy=reader)
    for name in ("city", "next", "city"):
        put_in_force(writer, name)
        digests = set()
        for _ in range(3):
            with store.reading() as transaction:
                assert transaction.policy is POLICIES[name]
                digests.add(transaction.policy_digest)
        assert len(digests) == 1
    assert read == ["city", "next", "city"]
    writer.close()
    store.close()


def test_a_policy_is_in_force_within_the_transaction_that_puts_it_there(store: SqlStore) -> None:
    with store.booking() as transaction:
        before = transaction.policy_digest
        assert transaction.policy is CITY
        transaction.put_policy("next", NEXT, Sums(), now=START, who="operator")
        assert transaction.policy is NEXT
        assert transaction.ledger(None).policy is NEXT
        assert transaction.policy_digest != before


def test_a_policy_replaces_the_sums_but_those_that_stand_for_themselves(store: SqlStore) -> None:
    corrected = SumKey("corrected", "univ", "week:person", "student", "2027-03-01")
    used = SumKey("used", "univ", "gpu.h200")
    fresh = SumKey("used", "industry", "cpu")
    with store.booking() as transaction:
        ledger = transaction.ledger(None)
        ledger.sums[corrected], ledger.sums[used] = 5, 6
        transaction.save(ledger, [])
        transaction.put_policy("next", NEXT, Sums({fresh: 7}), now=START, who="operator")
    sums = all_sums(store)
    assert (sums[corrected], sums[used], sums[fresh]) == (5, 0, 7)


def test_without_a_policy_it_says_so(database: Database) -> None:
    store = new_store(database)
    with store.booking() as transaction:
        assert transaction.policy_digest == ""
        with pytest.raises(BadInput, match="no policy was put in force"):
            transaction.ledger([])
    store.close()


def test_seen_is_a_heartbeat_of_live_leases_without_an_entry(store: SqlStore) -> None:
    one, other, gone = lease("l1"), lease("l2"), lease("l3", state=LeaseState.RELEASED)
    save(store, one, other, gone)
    with store.booking() as transaction:
        before = transaction.entries()
        transaction.seen(["l1", "l3", "unknown"], START + 7)
        transaction.seen([], START + 8)
        seen = [found.seen_at for name in ("l1", "l2", "l3") if (found := transaction.lease(name))]
        assert seen == [START + 7, None, None]
        assert transaction.entries() == before


LEADERSHIP: list[Any] = [
    pytest.param(
        [("a", 0, True), ("b", 5, False), ("a", 8, True), ("b", 17, False)], id="who leads stays the leader"
    ),
    pytest.param(
        [("a", 0, True), ("b", 9, False), ("b", 10, True), ("a", 11, False)],
        id="another takes over when it ends",
    ),
    pytest.param(
        [("a", 7200, True), ("b", 7200 - 300, False), ("b", 0, True), ("a", 1, False)],
        id="a leader whose clock was hours ahead does not keep others out for hours",
    ),
]


@pytest.mark.parametrize("steps", LEADERSHIP)
def test_leadership(store: SqlStore, steps: list[tuple[str, int, bool]]) -> None:
    for holder, now, want in steps:
        with store.booking() as transaction:
            assert transaction.take_leadership("clock", holder, now, 10) is want


def test_leadership_is_left_by_its_holder_only_and_each_name_stands_alone(store: SqlStore) -> None:
    with store.booking() as transaction:
        assert transaction.take_leadership("clock", "a", 0, 10)
        assert transaction.take_leadership("reaper", "b", 0, 10)
        transaction.leave_leadership("clock", "b")
        assert not transaction.take_leadership("clock", "b", 1, 10)
        transaction.leave_leadership("clock", "a")
        assert transaction.take_leadership("clock", "b", 1, 10)


def test_booking_then_releasing_restores_every_sum(store: SqlStore) -> None:
    with store.booking() as transaction:
        transaction.put_nodes(NODES)
    before = all_sums(store)
    for person in EVERYBODY:
        book(store, Ask(person, person, "univ", {"gpu.h200": 2000, "cpu": 1000}, minutes=60))
    assert all_sums(store) != before
    for person in EVERYBODY:
        with store.booking() as transaction:
            held = transaction.lease(person)
            assert held is not None
            ledger = path_and_person(transaction, held)
            transaction.save(ledger, [ledger.release(held, START)])
    assert all_sums(store) == before


def test_a_correction_is_kept_with_its_entry(store: SqlStore) -> None:
    with store.booking() as transaction:
        ledger = transaction.ledger(["univ"], ["student"])
        ledger.correct(WEEK, -5, START, who="lead", why="a broken node")
        transaction.save(ledger, [])
    with store.reading() as transaction:
        (_, entry), *_ = transaction.entries()
        assert (entry.kind, entry.who, entry.why, entry.facts["units"]) == (
            "corrected",
            "lead",
            "a broken node",
            -5,
        )
        state = transaction.ledger(["univ"], ["student"]).budgets.state(WEEK, START)
        assert state is not None
        assert state.used == -5
