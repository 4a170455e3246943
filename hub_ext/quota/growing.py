"""Dask clusters inside the quota: start one, let it grow and shrink by its wish, end it.

The mixin of `Admission` that the gateway, the desk and the clock call. A cluster's leases all carry its name as their
`server`: one of kind `dask-scheduler`, whose id is the name itself, and one of kind `dask-worker` for each worker.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from hub_ext.core.clock import Clock, Instant
from hub_ext.core.decision import Admit, Code, Decision, Refuse, Wait
from hub_ext.core.people import Person
from hub_ext.quota.answers import Answer, asked_before
from hub_ext.quota.booking import Options, book, decided, path_of
from hub_ext.quota.budget import BudgetState, states_that_bind
from hub_ext.quota.cluster import ClusterLeases as ClusterLeases
from hub_ext.quota.cluster import by_cluster, over
from hub_ext.quota.counting import cap_keys, counts_in
from hub_ext.quota.growth import (
    Growth,
    Surroundings,
    Units,
    as_many_as_possible,
    as_objection,
    end_cluster_in,
    read_cluster,
)
from hub_ext.quota.in_line import LeasesByEnd, decide_beside_others
from hub_ext.quota.model import SCHEDULER, Ask, Lease, Outlook, Policy, Ticket
from hub_ext.quota.policy import cost_of, first_end_among
from hub_ext.quota.ports import Store, Transaction

LARGEST_WISH: Final = 1000
"""No cluster waits for more workers than this, whatever its scheduler claims to need."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What a cluster holds after it was asked for."""

    policy: Policy
    at: Instant
    leases: tuple[Lease, ...]
    """Its live worker leases, the oldest first; those that are ending included."""
    ticket: Ticket | None = None
    """The rest of the wish waits in line."""
    objection: Wait | Refuse | None = None
    """Why there are not more now; None where the wish is met."""


@dataclass(frozen=True, slots=True)
class ClusterPreview:
    """What a cluster would get now; nothing is booked.

    `guaranteed` and `borrowed` count the workers that could start at once, at most as many as were asked about;
    `objection` says why not more. Costs are cost units (millionths of a GPU-second) per second of one worker.
    """

    policy: Policy
    at: Instant
    scheduler: Decision
    guaranteed: int
    borrowed: int
    objection: Wait | Refuse | None
    cost_guaranteed: int
    cost_borrowed: int
    budgets: tuple[BudgetState, ...]
    """Every budget that binds the person in the pool."""
    ends_at: Instant | None = None
    """When the first of these workers, or else the scheduler, would have to end."""


class Growing:
    """The part of `Admission` that keeps the leases of Dask clusters."""

    store: Store
    clock: Clock
    in_thread: Callable[..., Any]
    _now: Callable[[Transaction], Instant]

    async def start_cluster(self, person: Person, ask: Ask, options: Options | None = None) -> Answer:
        """Book a cluster's scheduler: `ask` is of kind `dask-scheduler`, its id and server the cluster's name.

        Nobody waits in line for a cluster: what cannot start now is told why, and gets no ticket. Asking twice is asking
        once. Raises StoreUnavailable with nothing booked.
        """
        answer: Answer = await self.in_thread(self.start_cluster_now, person, ask, options)
        return answer

    def start_cluster_now(self, person: Person, ask: Ask, options: Options | None = None) -> Answer:
        if ask.kind != SCHEDULER or ask.id != ask.server:
            raise ValueError(f"the scheduler of a cluster has its name for id and server, not {ask}")
        with self.store.booking() as txn:
            now = self._now(txn)
            if (again := asked_before(txn, ask, now)) is not None:
                return again
            own = txn.live_leases(person=ask.person)
            ledger = txn.ledger(path_of(txn.policy, ask.pool), [ask.person])
            alone = Ticket(ask, now, Outlook(""))
            live = cache(txn.live_leases)
            decision, devices, _ = decide_beside_others(txn, person, alone, own, ledger, live, now)
            lease: Lease | None = None
            if isinstance(decision, Admit):
                lease = book(ledger, ask, decision, now, devices=devices, options=options)
            else:
                ledger.entries.append(decided(ask, decision, now))
            txn.save(ledger, [lease] if lease else [])
            return Answer(decision, txn.policy, now, lease)

    async def grant(
        self, name: str, person: Person, unit: Ask, wish: int, in_use: Collection[str]
    ) -> Granted:
        """Let a cluster hold as many worker leases as it wishes for, as far as the quota goes.

        `unit` is what one worker takes (kind `dask-worker`; its id is not used), `in_use` the leases under which workers
        run or are being started: those are never given back here. What fits is booked, guaranteed ones first; the rest
        waits in the cluster's one elastic ticket, which keeps its place when the wish changes; what was booked beyond the
        wish, and is not in use, goes back. No worker outlives its scheduler. Asking again with the same wish only reads,
        unless there is something to do. For one cluster, ask one at a time. Raises StoreUnavailable.
        """
        granted: Granted = await self.in_thread(self.grant_now, name, person, unit, wish, in_use)
        return granted

    def grant_now(self, name: str, person: Person, unit: Ask, wish: int, in_use: Collection[str]) -> Granted:
        wish, in_use = max(0, min(wish, LARGEST_WISH)), frozenset(in_use)
        with self.store.reading() as txn:
            standing = _as_it_stands(txn, name, person, unit, wish, in_use, self._now(txn))
        if standing is not None:
            return standing
        while True:
            with self.store.booking() as txn:
                growth = Growth(txn, name, person, unit, wish, in_use, self._now(txn))
                cluster = growth.step()
                policy = txn.policy
            if not growth.again:
                return Granted(policy, growth.now, cluster.workers, cluster.ticket, growth.objection)

    async def clusters(
        self, names: Collection[str] | None = None, *, person: str | None = None
    ) -> dict[str, ClusterLeases]:
        """What (these) clusters hold, by name, from one snapshot; those that hold nothing and wait for nothing are left
        out. `person`: only theirs.
        """
        found: dict[str, ClusterLeases] = await self.in_thread(
            lambda: self.clusters_now(names, person=person)
        )
        return found

    def clusters_now(
        self, names: Collection[str] | None = None, *, person: str | None = None
    ) -> dict[str, ClusterLeases]:
        with self.store.reading() as txn:
            leases, tickets = txn.live_in_clusters(names), txn.cluster_tickets(names)
        return by_cluster(
            (lease for lease in leases if person in (None, lease.person)),
            (ticket for ticket in tickets if person in (None, ticket.ask.person)),
        )

    async def end_cluster(self, name: str, who: str, why: str) -> None:
        """All its leases are ending, and released when what they ran is gone; those that never ran are released at once.
        Nothing of it waits in line any more.
        """
        await self.in_thread(self.end_cluster_now, name, who, why)

    def end_cluster_now(self, name: str, who: str, why: str) -> None:
        with self.store.booking() as txn:
            end_cluster_in(txn, name, self._now(txn), who=who, why=why)

    async def preview_growth(self, name: str, person: Person, unit: Ask, more: int) -> Granted:
        """Which workers a running cluster would get beside those that it holds; nothing is booked."""
        found: Granted = await self.in_thread(self.preview_growth_now, name, person, unit, more)
        return found

    def preview_growth_now(self, name: str, person: Person, unit: Ask, more: int) -> Granted:
        with self.store.reading() as txn:
            return _preview_growth(txn, name, person, unit, min(more, LARGEST_WISH), self._now(txn))

    def preview_clusters_now(self, asks: Sequence[tuple[Person, Ask, Ask, int]]) -> list[ClusterPreview]:
        """What new clusters would get now, each as if it were started alone, from one snapshot; nothing is booked."""
        with self.store.reading() as txn:
            now = self._now(txn)
            return [
                _preview(txn, person, scheduler, unit, min(most, LARGEST_WISH), now)
                for person, scheduler, unit, most in asks
            ]


def _as_it_stands(
    txn: Transaction, name: str, person: Person, unit: Ask, wish: int, in_use: Collection[str], now: Instant
) -> Granted | None:
    """What is granted already; None where something has to be written for it."""
    cluster, _ = read_cluster(txn, name, person.name)
    ticket, lacks, policy = cluster.ticket, cluster.lacks(wish), txn.policy
    if not cluster.grows(now):
        why = over(name, unit.pool) if lacks > 0 else None
        idle = ticket is None and not cluster.unused(in_use)
        return Granted(policy, now, cluster.workers, None, why) if idle else None
    if lacks <= 0:
        idle = ticket is None and not (lacks < 0 and cluster.unused(in_use))
        return Granted(policy, now, cluster.workers) if idle else None
    if ticket is not None:
        same = (ticket.ask.pool, dict(ticket.ask.amounts), ticket.wanted) == (
            unit.pool,
            dict(unit.amounts),
            lacks,
        )
        return Granted(policy, now, cluster.workers, ticket, as_objection(ticket)) if same else None
    return None


def _preview(
    txn: Transaction, person: Person, scheduler: Ask, unit: Ask, most: int, now: Instant
) -> ClusterPreview:
    policy, own = txn.policy, txn.live_leases(person=person.name)
    pools = {*path_of(policy, scheduler.pool), *path_of(policy, unit.pool)}
    ledger = txn.ledger(pools, [person.name])
    budgets = states_that_bind(ledger.budgets, policy, [path_of(policy, unit.pool)], person.name, now)
    held = list(own)
    units = Units(Surroundings(txn, now), person, own, ledger)
    first, devices = units.decide(scheduler)
    if isinstance(first, Admit):
        lease = book(ledger, scheduler, first, now, devices=devices)
        units.own.append(lease)
        units = as_many_as_possible(units, unit, lease, most, most)
        objection = units.objection
    else:
        objection = first
    objection = _told(txn, objection, held, units.own)
    booked = units.booked
    guaranteed = sum(one.guaranteed for one in booked)
    in_pool = unit.pool in policy.pools
    return ClusterPreview(
        policy,
        now,
        first,
        guaranteed,
        len(booked) - guaranteed,
        objection,
        cost_of(policy, unit, guaranteed=True) if in_pool else 0,
        cost_of(policy, unit, guaranteed=False) if in_pool else 0,
        tuple(budgets),
        min((one.ends_at for one in booked), default=first.ends_at if isinstance(first, Admit) else None),
    )


def _preview_growth(
    txn: Transaction, name: str, person: Person, unit: Ask, more: int, now: Instant
) -> Granted:
    policy = txn.policy
    cluster, own = read_cluster(txn, name, person.name)
    if cluster.scheduler is None or not cluster.grows(now):
        return Granted(policy, now, (), None, over(name, unit.pool))
    around = Surroundings(txn, now, cluster.ticket.id if cluster.ticket else None)
    ledger = txn.ledger(path_of(policy, unit.pool), [person.name])
    held = list(own)
    units = as_many_as_possible(Units(around, person, own, ledger), unit, cluster.scheduler, more, more)
    return Granted(policy, now, tuple(units.booked), None, _told(txn, units.objection, held, units.own))


def _told(
    txn: Transaction, objection: Wait | Refuse | None, held: Collection[Lease], beside: Collection[Lease]
) -> Wait | Refuse | None:
    """Why there would be no more. `beside`: with what was only looked at, which nobody holds."""
    if objection is None:
        return None
    told = first_end_among(objection, LeasesByEnd(txn), txn.policy)
    assert not isinstance(told, Admit)
    if told.code is not Code.PERSON_AT_CAP:
        return told
    # All of it together would be too many, and none of it is there to be stopped.
    facts, ids = dict(told.facts), {lease.id for lease in held}
    looked_at = sum(
        cap_keys(lease).get(facts["key"], 0)
        for lease in beside
        if lease.id not in ids and counts_in(txn.policy, lease, facts["pool"])
    )
    there = {lease.id: lease for lease in held if lease.id in facts["leases"]}
    ends = [lease.ends_at for lease in there.values()]
    return Wait(
        told.code,
        facts
        | {
            "asked": facts["asked"] + looked_at,
            "held": facts["held"] - looked_at,
            "leases": [one for one in facts["leases"] if one in there],
            "servers": [there[one].server for one in facts["leases"] if one in there],
            "first_end": txn.policy.local(min(ends)) if ends else None,
        },
    )
