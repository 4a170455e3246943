"""The order in which those who wait are looked at (QUOTA.md §5), and what belongs to a ticket's life. Pure.

Between pools, from the root down: siblings are compared by their best candidate: those that would be guaranteed first,
then the lowest share with the candidate counted, then ticket time, then id. A pool's own asks are one more child of it.
Inside one pool: those put back by a notice first, then the person's decayed hours, then time, then id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from hub_ext.core.amounts import COST_UNITS_PER_GPU_SECOND
from hub_ext.core.clock import MINUTE, Instant, Seconds
from hub_ext.core.decision import Code, Wait
from hub_ext.quota.counting import charged_pool
from hub_ext.quota.fairshare import own_share, share
from hub_ext.quota.model import Ask, Lease, Outlook, Policy, Ticket
from hub_ext.quota.stage import Shape, Stage, shape_of

ROOM = frozenset({Code.POOL_FULL.value, Code.NO_NODE_FREE.value})
"""A ticket that waits for one of these waits for others to end."""
WAITS_FOR_OTHERS = ROOM | {Code.OTHERS_WAITING.value}

Recent = Mapping[tuple[str, str], int]
"""(pool, person): decayed GPU-seconds."""
Rank = tuple[bool, bool, bool, Fraction, Instant, str]
"""What siblings are compared by, the lowest first."""


def decayed(charges: Iterable[tuple[str, str, Instant, int]], now: Instant, half_life: Seconds) -> Recent:
    """GPU-seconds by (pool, person): each charge (pool, person, when, cost units) counts half after each half-life."""
    sums: dict[tuple[str, str], float] = {}
    for pool, person, at, units in charges:
        age = max(0, now - at)
        sums[pool, person] = sums.get((pool, person), 0.0) + units * 0.5 ** (age / half_life)
    return {key: int(units // COST_UNITS_PER_GPU_SECOND) for key, units in sums.items()}


def put_back(policy: Policy, lease: Lease, ticket_id: str, now: Instant) -> Ticket | None:
    """The ticket of whoever was displaced by a notice, for the time that was taken from them; None where none was."""
    unless = lease.ends_unless_taken
    left = 0 if unless is None else unless - max(now, lease.ends_at)
    if lease.noticed_for is None or left <= 0 or lease.pool not in policy.pools:
        return None
    minutes = -(-max(left, policy.session(lease.pool).min) // MINUTE)
    ask = Ask(
        id=ticket_id,
        person=lease.person,
        pool=lease.pool,
        amounts=lease.amounts,
        kind=lease.kind,
        profile=lease.profile,
        minutes=minutes,
        server=lease.server,
    )
    outlook = Outlook(Code.OTHERS_WAITING.value, {"pool": lease.pool})
    return Ticket(ask, now, outlook, put_back=True, displaced_by=lease.noticed_for)


def others_waiting_for(policy: Policy, lease: Lease, tickets: Iterable[Ticket]) -> Wait | None:
    """Why a lease may not go on beyond its end: somebody waits for what it holds (QUOTA.md §7).

    That is any ticket of the same home, and, where the lease is borrowed, any that it could serve; what grows by itself
    keeps nobody from going on. What is taken back goes back in any case.
    """
    pool = charged_pool(policy, lease)
    if pool is None:
        return None
    if lease.noticed_for is not None:
        return Wait(Code.OTHERS_WAITING, {"pool": pool})
    held = {resource for resource, amount in lease.amounts.items() if amount}
    for ticket in tickets:
        ask = ticket.ask
        if ticket.elastic or ticket.outlook.code not in WAITS_FOR_OTHERS or ask.pool not in policy.pools:
            continue
        wanted = held & {resource for resource, amount in ask.amounts.items() if amount}
        same_home = any(policy.home(pool, r) == policy.home(ask.pool, r) is not None for r in wanted)
        could_serve = bool(wanted) and not lease.guaranteed and policy.root(pool) == policy.root(ask.pool)
        if same_home or could_serve:
            return Wait(Code.OTHERS_WAITING, {"pool": ask.pool})
    return None


@dataclass
class Line:
    """Those who wait, taken one by one in their order; the order follows what is booked on the stage meanwhile."""

    stage: Stage
    recent: Recent
    promised: set[str] = field(default_factory=set)
    """The tickets for which a guarantee is set aside already."""
    _pools: dict[str, list[Ticket]] = field(default_factory=dict)
    """By pool: the tickets in the order inside it, the last one first in line."""
    _roots: list[str] = field(default_factory=list)
    _best: dict[str, tuple[Rank, Ticket] | None] = field(default_factory=dict)
    """By pool: the best candidate in its subtree, until something changes there."""
    _guaranteed: dict[Shape, bool] = field(default_factory=dict)
    _shares: dict[tuple[str, bool, Shape], tuple[bool, Fraction]] = field(default_factory=dict)

    @classmethod
    def of(cls, stage: Stage, tickets: Iterable[Ticket], recent: Recent) -> Line:
        line = cls(stage, recent)
        for ticket in sorted(tickets, key=line._order_inside, reverse=True):
            line._pools.setdefault(ticket.ask.pool, []).append(ticket)
        line._roots = sorted({stage.policy.root(pool) for pool in line._pools})
        return line

    def pop(self) -> Ticket | None:
        """The next in line; None where nobody is left."""
        found = [best for root in self._roots if (best := self._best_in(root)) is not None]
        if not found:
            return None
        ticket = min(found, key=lambda best: best[0])[1]
        self._pools[ticket.ask.pool].pop()
        for name in self.stage.policy.path(ticket.ask.pool):
            self._best.pop(name, None)
        return ticket

    def put(self, ticket: Ticket) -> None:
        """Back at the head of its pool's own line."""
        self._pools.setdefault(ticket.ask.pool, []).append(ticket)
        self.changed()

    def changed(self) -> None:
        """Something was booked or promised: shares are no longer what they were."""
        self._best.clear()
        self._guaranteed.clear()
        self._shares.clear()

    def _order_inside(self, ticket: Ticket) -> tuple[bool, bool, int, Instant, str]:
        used = self.recent.get((ticket.ask.pool, ticket.ask.person), 0)
        return ticket.elastic, not ticket.put_back, used, ticket.made_at, ticket.id

    def _best_in(self, pool: str) -> tuple[Rank, Ticket] | None:
        """The best candidate at or below the pool, with its rank among the pool's siblings."""
        if pool in self._best:
            return self._best[pool]
        children = self.stage.policy.children(pool)
        below = [found for child in children if (found := self._best_in(child)) is not None]
        if self._pools.get(pool):
            below.append(self._own_best(pool))
        ticket = min(below, key=lambda candidate: candidate[0])[1] if below else None
        best = None if ticket is None else (self._rank(pool, ticket), ticket)
        self._best[pool] = best
        return best

    def _own_best(self, pool: str) -> tuple[Rank, Ticket]:
        ticket = self._pools[pool][-1]
        return self._ranked(pool, ticket, own=True), ticket

    def _rank(self, pool: str, ticket: Ticket) -> Rank:
        return self._ranked(pool, ticket, own=False)

    def _ranked(self, pool: str, ticket: Ticket, *, own: bool) -> Rank:
        """Among siblings: as the pool with everything below it, or as the pool's own asks alone."""
        shape = shape_of(ticket.ask)
        if shape not in self._guaranteed:
            self._guaranteed[shape] = self.stage.guaranteed(ticket.ask)
        key = (pool, own, shape)
        if key not in self._shares:
            self._shares[key] = self._own_share(pool, ticket) if own else self._share(pool, ticket)
        infinite, value = self._shares[key]
        guaranteed = ticket.id in self.promised or self._guaranteed[shape]
        # Servers before what grows by itself; what would be guaranteed before the rest.
        return ticket.elastic, not guaranteed, infinite, value, ticket.made_at, ticket.id

    def _own_share(self, pool: str, ticket: Ticket) -> tuple[bool, Fraction]:
        own = dict(self.stage.own_amounts(pool))
        for resource, amount in ticket.ask.amounts.items():
            own[resource] = own.get(resource, 0) + amount
        return own_share(self.stage.tree, pool, own).order

    def _share(self, pool: str, ticket: Ticket) -> tuple[bool, Fraction]:
        tree, sums = self.stage.tree, self.stage.sums
        return share(tree, sums, pool, dict(tree.additions(sums, ticket.ask.pool, ticket.ask.amounts))).order
