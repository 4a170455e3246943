"""A small city for tests of the store: its policies by name (which stand for their texts), leases, and its laws."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from hub_ext.core.decision import Admit, Decision
from hub_ext.core.people import Person
from hub_ext.db.engine import WAIT
from hub_ext.quota.counting import charged_pool
from hub_ext.quota.ledger import Entry, Ledger, fold, refold
from hub_ext.quota.model import Ask, Budget, Device, GpuClass, Lease, Node, Period, Policy, Pool, Quota, Term
from hub_ext.quota.policy import Snapshot, decide
from hub_ext.quota.store import SqlStore, SqlTransaction
from hub_ext.quota.sums import Sums
from hub_ext.quota.windows import has_begun
from tests.support.databases import Database

START = int(datetime(2027, 3, 1, 0, 0, tzinfo=UTC).timestamp())
EVERYBODY = ("student", "researcher")
NODES = (
    Node("n1", {"gpu.h200": 8000, "cpu": 128_000}, (Device("GPU-1", "h200"), Device("GPU-2", "h200"))),
    Node("n2", {"gpu.h200": 4000}, simulated=True),
)


def _policy(*pools: Pool, zone: str = "Asia/Seoul") -> Policy:
    h200 = GpuClass("h200", "nvidia.com/gpu", Decimal(1), 144_384)
    return Policy(ZoneInfo(zone), {"h200": h200}, {pool.name: pool for pool in pools})


CITY = _policy(
    Pool("seoul", budgets=(Budget(Decimal(5000), Period.QUARTER),)),
    Pool("public", "seoul", quota={"gpu.h200": Quota(4000, borrow=2000, lend=3000), "cpu": Quota(64_000)}),
    Pool(
        "univ",
        "public",
        quota={"gpu.h200": Quota(2000)},
        person={"gpu.h200": 3000, "servers": 3},
        budgets=(
            Budget(Decimal(20), Period.DAY, carry=Decimal(5)),
            Budget(Decimal(30), Period.WEEK, each_person=True),
        ),
    ),
    Pool("industry", "seoul", quota={"gpu.h200": Quota(3000, lend=2000)}, person={"servers": 1}),
)
NEXT = _policy(
    Pool("seoul"),
    Pool("public", "seoul", quota={"gpu.h200": Quota(1000)}, person={"dask-workers": 2}),
    Pool(
        "univ",
        "seoul",
        quota={"gpu.h200": Quota(5000)},
        person={"servers": 1},
        budgets=(
            Budget(Decimal(100), Term(date(2027, 2, 1), date(2027, 6, 30))),
            Budget(Decimal(9), Period.DAY),
        ),
    ),
)
ONE_GPU = _policy(
    Pool("seoul", quota={"gpu.h200": Quota(1000)}, budgets=(Budget(Decimal(1000), Period.MONTH),))
)

POLICIES = {"city": CITY, "next": NEXT, "one-gpu": ONE_GPU}


def load_policy(text: str) -> Policy:
    """Stands in for the reader of policy documents: here the text is the name."""
    return POLICIES[text]


def new_store(database: Database, *, policy: str | None = None, wait: float = WAIT) -> SqlStore:
    store = SqlStore(database.engine(wait), load_policy=load_policy)
    if policy is not None:
        put_in_force(store, policy)
    return store


def put_in_force(store: SqlStore, name: str, now: int = START) -> None:
    with store.booking() as transaction:
        sums = refolded(transaction, POLICIES[name], since=now)
        transaction.put_policy(name, POLICIES[name], sums, now=now, who="operator")


def lease(name: str = "l1", **changes: Any) -> Lease:
    plain = Lease(
        id=name,
        person="student",
        pool="univ",
        path=("univ", "public", "seoul"),
        amounts={"gpu.h200": 1000, "cpu": 4000},
        kind="server",
        guaranteed=True,
        lender=None,
        cost=1_000_000,
        booked_at=START,
        ends_at=START + 3600,
        charged_until=START,
    )
    return replace(plain, **changes)


def book(store: SqlStore, ask: Ask, now: int = START) -> Decision:
    """Read the sums, decide, book: one transaction, as the service does it."""
    with store.booking() as transaction:
        ledger = transaction.ledger(transaction.policy.path(ask.pool), [ask.person])
        people = {ask.person: Person(ask.person, (ask.pool,))}
        own = transaction.live_leases(person=ask.person)
        snapshot = Snapshot(ledger.tree, ledger.sums, transaction.nodes(), ledger.grants, people, own)
        decision = decide(snapshot, ask, now)
        if isinstance(decision, Admit):
            transaction.save(ledger, [ledger.book(ask, decision, now)])
    return decision


def path_and_person(transaction: SqlTransaction, lease: Lease) -> Ledger:
    """The ledger that a change of this lease needs: its path when it was booked, and where it counts now."""
    pool = charged_pool(transaction.policy, lease)
    return transaction.ledger({*lease.path, *(transaction.policy.path(pool) if pool else ())}, [lease.person])


def all_entries(transaction: SqlTransaction) -> list[tuple[int, Entry]]:
    return transaction.entries(limit=1_000_000)


def all_sums(store: SqlStore) -> Sums:
    with store.reading() as transaction:
        return transaction.ledger(None).sums.copy()


def refolded(transaction: SqlTransaction, policy: Policy, since: int | None = None) -> Sums:
    """The sums afresh, under this policy, from what the database holds."""
    kept = transaction.ledger(None).sums if transaction.policy_digest else Sums()
    leases = transaction.live_leases()
    latest = transaction.latest()
    known = [one for one in transaction.reservations(0) if one.end > latest or has_begun(kept, one)]
    return refold(policy, leases, transaction.charges(), kept, transaction.grants(), since, known)


def check_laws(store: SqlStore) -> None:
    """The leases are the fold of all entries, and the sums are those of a refold."""
    with store.reading() as transaction:
        entries = [entry for _, entry in all_entries(transaction)]
        assert _unseen(transaction.all_leases()) == _unseen(fold({}, entries).values())
        assert transaction.ledger(None).sums == refolded(transaction, transaction.policy)


def _unseen(leases: Iterable[Lease]) -> dict[str, Lease]:
    """When a lease was last seen alive is a heartbeat, not an entry."""
    return {lease.id: replace(lease, seen_at=None) for lease in leases}
