"""The centre while a scenario is played: its ledger, its leases, and what a decision looks at. Pure.

Leases are charged where that can change anything: when they end, at the edges of periods and grants, and when a budget
is used up; in between, a decision looks at sums to which is added what has accrued since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hub_ext.core.clock import Instant
from hub_ext.core.people import Person
from hub_ext.quota.budget import Budgets, binding, window_at
from hub_ext.quota.counting import charged_pool
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import Lease, Node, Policy, Reservation
from hub_ext.quota.policy import Snapshot
from hub_ext.quota.sums import Sums
from hub_ext.quota.transcript import Transcript


@dataclass
class PlayedState:
    ledger: Ledger
    transcript: Transcript
    since: Instant
    nodes: Sequence[Node] | None = None
    people: Mapping[str, Person] | None = None
    """None: everybody is a member everywhere."""
    leases: dict[str, Lease] = field(default_factory=dict)
    live: dict[str, Lease] = field(default_factory=dict)
    """Those of them that are not released."""
    inside: dict[str, dict[str, Lease]] = field(default_factory=dict)
    """By reservation: every lease that ever ran inside it."""
    reservations: dict[str, Reservation] = field(default_factory=dict)
    """Those that count and are not over."""
    cuts: dict[str, Any] = field(default_factory=dict)
    """By lease: what cut its end short."""
    plan_is_due: bool = False
    """Something happened since those who wait were last looked at."""
    look_at: Instant = 0
    """When budgets have to be looked at next: until then none can be overdrawn that is not now."""

    @property
    def now(self) -> Instant:
        return self.transcript.now

    @property
    def policy(self) -> Policy:
        return self.ledger.policy

    def _put(self, lease: Lease) -> None:
        self.leases[lease.id] = lease
        if lease.live:
            self.live[lease.id] = lease
        else:
            self.live.pop(lease.id, None)
        if lease.reservation is not None:
            self.inside.setdefault(lease.reservation, {})[lease.id] = lease

    def _release(self, leases: Sequence[Lease], why: str) -> None:
        """All of them, and only then what that causes: none is promoted that ends now as well."""
        freed: set[tuple[str, str]] = set()
        self.plan_is_due = self.plan_is_due or bool(leases)
        for lease in leases:
            self._put(self.ledger.release(lease, self.now, why=why))
            freed |= self._homes(lease)
        if freed:
            borrowed = (lease for lease in self.live.values() if not lease.guaranteed)
            self._promote([lease for lease in borrowed if not freed.isdisjoint(self._homes(lease))])

    def _homes(self, lease: Lease) -> set[tuple[str, str]]:
        """The guarantees that the lease draws on, or would if it were not borrowed."""
        pool = charged_pool(self.policy, lease)
        homes = ((self.policy.home(pool, resource) if pool else None, resource) for resource in lease.amounts)
        return {(home, resource) for home, resource in homes if home is not None and lease.amounts[resource]}

    def _promote(self, borrowed: Sequence[Lease]) -> None:
        for lease in self.ledger.promote(borrowed, self.now):
            self._put(lease)
            self.transcript.change(lease, "promoted", None, {})

    def _snapshot(self, person: str, pool: str) -> Snapshot:
        people = self.people
        if people is None:
            people = {person: Person(person, any_pool=True)}
        own = [lease for lease in self.live.values() if lease.person == person]
        sums = self._with_accrued(person, pool) if pool in self.policy.pools else self.ledger.sums
        reservations = tuple(self.reservations.values())
        return Snapshot(self.ledger.tree, sums, self.nodes, self.ledger.grants, people, own, reservations)

    def _with_accrued(self, person: str, pool: str) -> Sums:
        """The sums as if every lease had been charged just now, in the budgets that bind this person in this pool."""
        refs = binding(self.policy, self.policy.path(pool), person)
        sums = self.ledger.sums.copy() if refs else self.ledger.sums
        budgets = Budgets(self.policy, sums, self.ledger.grants)
        for of in refs:
            window = window_at(of.budget, self.now, self.policy.timezone)
            accrued = sum(
                lease.cost * (self.now - max(lease.charged_until, window.start if window else self.now))
                for lease in self.live.values()
                if lease.cost and of.pool in lease.path and of.person in ("", lease.person)
            )
            if window is not None and accrued:
                # Since everything was charged last, no period or grant has ended: what accrued can go in at once.
                budgets.charge(of, self.now - 1, accrued)
                sums.add(of.key("committed", window), -accrued)
        return sums
