"""Reads what the page *mine* shows, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial
from hashlib import sha256

from hub_ext.clusters.model import ClusterProfile
from hub_ext.core.clock import MINUTE, Instant
from hub_ext.core.people import Person
from hub_ext.desk.clusters import clusters_in, facts_of
from hub_ext.desk.desk import Desk
from hub_ext.desk.leases import TitlesOf, extensions_of
from hub_ext.desk.records import Records
from hub_ext.desk.views_mine import EXTENSIONS, SPANS, Cap, MineFacts
from hub_ext.profiles.catalogue import Catalogue
from hub_ext.quota.booking import path_of
from hub_ext.quota.budget import first_instant, local_date, states_that_bind
from hub_ext.quota.explain import Titles
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import Lease, Policy
from hub_ext.quota.ports import Store
from hub_ext.quota.sums import SumKey


def span_of(text: str | None) -> int:
    """The days to look back over: one of `SPANS`."""
    return next((span for span in SPANS if str(span) == text), SPANS[0])


def titles_of(policy: Policy, catalogue: Catalogue, clusters: Iterable[ClusterProfile] = ()) -> Titles:
    """What people call pools and profiles (those of clusters too), by name."""
    return (
        {profile.slug: profile.title for profile in catalogue}
        | {profile.slug: profile.title for profile in clusters}
        | {name: pool.title for name, pool in policy.pools.items()}
    )


def titles_at(desk: Desk) -> TitlesOf:
    """The same, of all that this desk knows."""
    return partial(titles_of, catalogue=desk.profiles.catalogue, clusters=desk.cluster_catalogue)


def read_mine(store: Store, titles_of: TitlesOf, person: Person, clock_now: Instant, span: int) -> MineFacts:
    """Everything of one person, from one snapshot. Raises StoreUnavailable."""
    with store.reading() as txn:
        # 1. Now is never before what was written last.
        now = max(clock_now, txn.latest())
        policy = txn.policy
        # 2. What they run, and the sums of every pool that has a say in it.
        leases = txn.live_leases(person=person.name)
        pools = {name for pool in _pools(policy, person, leases) for name in policy.path(pool)}
        ledger = txn.ledger(pools, [person.name])
        # 3. What waits, and what they used.
        records = Records.of(txn)
        titles = titles_of(policy)
        last = local_date(now, policy.timezone)
        first = last - timedelta(days=span - 1)
        return MineFacts(
            person=person,
            policy=policy,
            as_of=now,
            now=now,
            leases=leases,
            extensions=extensions_of(txn, ledger, leases, now, lambda _: EXTENSIONS),
            notices={lease.id: records.notice_of(lease.id) for lease in leases if _told_to_end(lease)},
            tickets=records.waiting_of(person.name),
            clusters=facts_of(
                txn, clusters_in(leases, txn.tickets(person=person.name)), now, titles, EXTENSIONS
            ),
            budgets=states_that_bind(
                ledger.budgets, policy, [path_of(policy, pool) for pool in person.pools], person.name, now
            ),
            caps=_caps(ledger, person),
            days=records.use_of(person.name, first, last, first_instant(first, policy.timezone)),
            first=first,
            last=last,
            titles=titles,
        )


def mark_of_mine(store: Store, person: Person, clock_now: Instant, *about: str) -> str:
    """Another text whenever the page could show something else: what a page that renews itself asks for, cheaply.

    Every change of a lease, sum or ticket writes an entry; how a ticket stands does not, and time passes by the minute.
    """
    with store.reading() as txn:
        outlooks = [
            (one.id, one.code, one.place, one.eta_at, one.eta_kind)
            for one in Records.of(txn).waiting_of(person.name)
        ]
        seen = (txn.newest_entry(), txn.policy_digest, clock_now // MINUTE, person, outlooks, about)
    return sha256(repr(seen).encode()).hexdigest()[:32]


def _pools(policy: Policy, person: Person, leases: Sequence[Lease]) -> set[str]:
    """The pools that the person belongs to, and those that their leases are charged to."""
    named = {*person.pools, *(pool for lease in leases for pool in lease.path)}
    return {pool for pool in named if pool in policy.pools}


def _told_to_end(lease: Lease) -> bool:
    return lease.noticed_at is not None and lease.noticed_for is None


def _caps(ledger: Ledger, person: Person) -> list[Cap]:
    """For each of their pools and each thing counted, the nearest cap upwards: servers first."""
    policy = ledger.policy
    found: dict[tuple[str, str], Cap] = {}
    for pool in person.pools:
        if pool not in policy.pools:
            continue
        for key in sorted({key for name in policy.path(pool) for key in policy.pools[name].person}):
            cap = policy.cap(pool, key)
            if cap is not None:
                held = ledger.sums[SumKey("held", cap[0], key, person.name)]
                found[cap[0], key] = Cap(cap[0], key, held, cap[1])
    return sorted(found.values(), key=lambda cap: (cap.key != "servers", cap.key.startswith("dask"), cap.key))
