"""Whatever happens, in whatever order: the leases are the fold of the entries, and the sums are those of a refold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from hub_ext.core.decision import Admit
from hub_ext.core.people import Person
from hub_ext.quota.budget import BudgetOf, window_at
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import Ask, Grant, Lease, LeaseState
from hub_ext.quota.policy import End, Snapshot, decide, decide_extension
from hub_ext.quota.store import SqlStore, SqlTransaction
from tests.services.store.city import (
    EVERYBODY,
    NODES,
    START,
    all_sums,
    check_laws,
    lease,
    new_store,
    path_and_person,
    put_in_force,
)
from tests.support.databases import Database

TABLES = (
    "usage_days",
    "leases",
    "entries",
    "sums",
    "grants",
    "policies",
    "people",
    "nodes",
    "reported",
    "leaders",
)
POOLS = ("univ", "public", "industry", "seoul")

people = st.sampled_from(EVERYBODY)
pools = st.sampled_from(POOLS)
gpus = st.integers(0, 3)
minutes = st.sampled_from([15, 61, 600, 2000])
seconds = st.sampled_from([0, 1, 299, 301, 3600, 20 * 3600, 9 * 86400])
which = st.integers(0, 5)

STEPS = st.one_of(
    st.tuples(st.just("book"), people, pools, gpus, minutes, st.sampled_from(["server", "dask-worker"])),
    st.tuples(st.just("record"), people, pools, gpus, minutes, st.booleans()),
    st.tuples(st.just("run"), which, st.sampled_from([None, "n1", "n2"])),
    st.tuples(st.just("accrue"), which),
    st.tuples(st.just("extend"), which, minutes),
    st.tuples(st.just("notice"), which, minutes),
    st.tuples(st.just("end"), which),
    st.tuples(st.just("release"), which),
    st.tuples(st.just("promote"), pools),
    st.tuples(st.just("grant"), which, seconds),
    st.tuples(st.just("correct"), which, st.integers(-(10**12), 10**12)),
    st.tuples(st.just("seen")),
    st.tuples(st.just("policy"), st.sampled_from(["city", "next"])),
    st.tuples(st.just("pass"), seconds),
)


@dataclass
class Life:
    """Takes one step after another, each in a transaction of its own that loads only what the step needs."""

    store: SqlStore
    now: int = START
    booked: int = 0
    done: list[str] = field(default_factory=list)

    def step(self, name: str, *values: Any) -> None:
        getattr(self, f"_{name}")(*values)

    def _pass(self, seconds: int) -> None:
        self.now += seconds

    def _policy(self, name: str) -> None:
        put_in_force(self.store, name, self.now)

    def _book(self, person: str, pool: str, gpus: int, minutes: int, kind: str) -> None:
        self.booked += 1
        with self.store.booking() as transaction:
            pool = pool if pool in transaction.policy.pools else "seoul"
            ask = Ask(
                f"l{self.booked}", person, pool, {"gpu.h200": gpus * 1000, "cpu": 3000}, kind, minutes=minutes
            )
            ledger = transaction.ledger(transaction.policy.path(pool), [person])
            snapshot = Snapshot(
                ledger.tree,
                ledger.sums,
                transaction.nodes(),
                ledger.grants,
                {person: Person(person, (pool,))},
            )
            decision = decide(snapshot, ask, self.now)
            if isinstance(decision, Admit):
                transaction.save(ledger, [ledger.book(ask, decision, self.now)])
                self.done.append("booked")

    def _record(self, person: str, pool: str, gpus: int, minutes: int, guaranteed: bool) -> None:
        """Above quota, without a look at any limit."""
        self.booked += 1
        with self.store.booking() as transaction:
            pool = pool if pool in transaction.policy.pools else "seoul"
            made = lease(
                f"l{self.booked}",
                person=person,
                pool=pool,
                path=transaction.policy.path(pool),
                amounts={"gpu.h200": gpus * 1000},
                guaranteed=guaranteed,
                lender=None if guaranteed else "seoul",
                cost=gpus * 500_000,
                booked_at=self.now,
                charged_until=self.now,
                ends_at=self.now + minutes * 60,
            )
            ledger = path_and_person(transaction, made)
            transaction.save(ledger, [ledger.record(made, self.now)])

    def _run(self, which: int, node: str | None) -> None:
        self._change(which, lambda ledger, held: ledger.run(held, self.now, handle="pid 1", node=node))

    def _accrue(self, which: int) -> None:
        self._change(which, lambda ledger, held: ledger.accrue(held, self.now))

    def _extend(self, which: int, minutes: int) -> None:
        def extend(ledger: Ledger, held: Lease) -> Lease:
            snapshot = Snapshot(ledger.tree, ledger.sums, NODES, ledger.grants)
            end = decide_extension(snapshot, held, minutes, self.now)
            return ledger.extend(held, end.at, self.now) if isinstance(end, End) else held

        self._change(which, extend)

    def _notice(self, which: int, minutes: int) -> None:
        self._change(
            which, lambda ledger, held: ledger.notice(held, self.now + minutes * 60, self.now, why="needed")
        )

    def _end(self, which: int) -> None:
        self._change(which, lambda ledger, held: ledger.end(held, self.now, why="over"))

    def _release(self, which: int) -> None:
        self._change(which, lambda ledger, held: ledger.release(held, self.now, why="gone"))

    def _promote(self, pool: str) -> None:
        with self.store.booking() as transaction:
            pool = pool if pool in transaction.policy.pools else "seoul"
            borrowed = transaction.borrowed_leases(transaction.policy.subtree(pool))
            paths = {name for held in borrowed for name in transaction.policy.path(held.pool)}
            ledger = transaction.ledger(paths, {held.person for held in borrowed})
            transaction.save(ledger, ledger.promote(borrowed, self.now))

    def _grant(self, which: int, seconds: int) -> None:
        self.booked += 1
        with self.store.booking() as transaction:
            of = self._budget(transaction, which)
            ledger = transaction.ledger([of.pool], [of.person] if of.person else [])
            until = self.now + seconds
            grant = Grant(
                f"g{self.booked}", of.pool, of.budget.name, of.person, 10**10, until, "more", self.now
            )
            ledger.grant(grant)
            transaction.save(ledger, [])

    def _correct(self, which: int, units: int) -> None:
        with self.store.booking() as transaction:
            of = self._budget(transaction, which)
            if window_at(of.budget, self.now, transaction.policy.timezone) is None:
                return
            ledger = transaction.ledger([of.pool], [of.person] if of.person else [])
            ledger.correct(of, units, self.now)
            transaction.save(ledger, [])

    def _seen(self) -> None:
        with self.store.booking() as transaction:
            transaction.seen([held.id for held in transaction.live_leases()], self.now)

    def _change(self, which: int, change: Callable[[Ledger, Lease], Lease]) -> None:
        with self.store.booking() as transaction:
            live = transaction.live_leases()
            if live:
                held = live[which % len(live)]
                ledger = path_and_person(transaction, held)
                transaction.save(ledger, [change(ledger, held)])

    def _budget(self, transaction: SqlTransaction, which: int) -> BudgetOf:
        found = [
            BudgetOf(pool.name, budget, person)
            for pool in transaction.policy.pools.values()
            for budget in pool.budgets
            for person in (EVERYBODY if budget.each_person else ("",))
        ]
        return found[which % len(found)]


@pytest.fixture
def wiped(database: Database) -> Iterator[Callable[[], SqlStore]]:
    """The store of an empty database with the policy `city` and two nodes, as often as it is asked for."""
    store = new_store(database)

    def wipe() -> SqlStore:
        database.run(*(f"DELETE FROM {table}" for table in TABLES))
        put_in_force(store, "city")
        with store.booking() as transaction:
            transaction.put_nodes(NODES)
        return store

    yield wipe
    store.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=5, max_size=25))
def test_any_sequence_of_steps_keeps_the_laws(
    wiped: Callable[[], SqlStore], steps: list[tuple[Any, ...]]
) -> None:
    life = Life(wiped())
    for step in steps:
        note(f"{life.now - START:>8} {step}")
        life.step(*step)
    check_laws(life.store)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS.filter(lambda step: step[0] not in ("grant", "correct", "policy")), max_size=15))
def test_when_all_leases_are_released_nothing_counts_as_used(
    wiped: Callable[[], SqlStore], steps: list[tuple[Any, ...]]
) -> None:
    life = Life(wiped())
    for step in steps:
        life.step(*step)
    for _ in range(life.booked):
        life.step("release", 0)
    check_laws(life.store)
    assert {key.kind for key in all_sums(life.store)} <= {"spent", "opened"}
    with life.store.reading() as transaction:
        assert transaction.live_leases() == []


def test_one_life_in_full(wiped: Callable[[], SqlStore]) -> None:
    """Each kind of step at least once, none of them without effect, and the laws after every one."""
    life = Life(wiped())
    for step in (
        ("book", "student", "univ", 2, 61, "server"),
        ("book", "researcher", "univ", 1, 61, "dask-worker"),
        ("record", "researcher", "industry", 3, 600, False),
        ("run", 0, "n1"),
        ("run", 1, "n2"),
        ("pass", 3600),
        ("accrue", 0),
        ("grant", 1, 9 * 86400),
        ("correct", 1, 72 * 10**9),
        ("extend", 0, 600),
        ("notice", 1, 15),
        ("policy", "next"),
        ("pass", 20 * 3600),
        ("accrue", 0),
        ("promote", "seoul"),
        ("seen",),
        ("end", 0),
        ("policy", "city"),
        ("release", 0),
        ("release", 0),
        ("release", 0),
    ):
        life.step(*step)
        check_laws(life.store)
    with life.store.reading() as transaction:
        kinds = {entry.kind.value for _, entry in transaction.entries()}
        assert kinds == {
            "booked", "running", "accrued", "granted", "corrected", "extended", "noticed", "promoted", "ending", "released",
        }  # fmt: skip
        assert {found.state for name in ("l1", "l2", "l3") if (found := transaction.lease(name))} == {
            LeaseState.RELEASED
        }
    assert life.done == ["booked", "booked"]
