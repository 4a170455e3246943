"""How one running cluster stands, as its gateway remembers it between two looks. A restart rebuilds all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from hub_ext.clusters.lifecycle import Heartbeat, WorkerSeen
from hub_ext.clusters.model import ClusterFacts
from hub_ext.clusters.policy import heard
from hub_ext.clusters.record import Kept
from hub_ext.core.clock import Instant
from hub_ext.core.decision import Code, Refuse, Wait
from hub_ext.quota.model import Lease, LeaseState, Policy, Ticket

ASK_AGAIN: int = 10
"""So often it is asked again for what cannot wait in line."""
TELL_AGAIN: int = 15
"""So often a worker is asked again to retire: its scheduler may have been busy."""
NO_HOURS = frozenset({Code.BUDGET_SPENT.value, Code.BUDGET_SHORT.value})


@dataclass
class Standing:
    """`lock` is held while the cluster's leases are asked for or handed out: one at a time."""

    kept: Kept
    facts: ClusterFacts
    wish: int
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    scheduler: Lease | None = None
    leases: dict[str, Lease] = field(default_factory=dict)
    """The workers' live leases, by id."""
    ticket: Ticket | None = None
    policy: Policy | None = None
    objection: Wait | Refuse | None = None
    """Why it did not get all that it wished for when it was asked last."""
    asked_at: Instant = 0
    heartbeat: Heartbeat | None = None
    told: dict[str, Instant] = field(default_factory=dict)
    """By worker, when it was asked to retire."""
    telling: bool = False
    why: str | None = None
    """Why it is being stopped."""
    revision: int = 0
    """Counts what was taken in: a look at the ledger that began before the last one knows too little."""

    @property
    def live(self) -> int:
        return len(self.leases)

    @property
    def counted(self) -> int:
        """The workers that it has or gets: what is being ended does not count."""
        return sum(lease.state is not LeaseState.ENDING for lease in self.leases.values())

    def take(self, scheduler: Lease | None, workers: Iterable[Lease], ticket: Ticket | None) -> None:
        """What the ledger says that it holds."""
        self.revision += 1
        self.scheduler, self.ticket = scheduler, ticket
        self.leases = {lease.id: lease for lease in workers if lease.live}
        if scheduler is not None:
            self.facts = replace(self.facts, ends_at=scheduler.ends_at)

    def hear(self, heartbeat: Heartbeat, now: Instant) -> None:
        self.heartbeat = heartbeat
        self.facts = heard(self.facts, now, idle=heartbeat.idle_seconds, clients=heartbeat.clients)

    def is_settled(self, taken: Iterable[str], now: Instant) -> bool:
        """Whether the ledger has nothing to decide: the wish is met, or all that is missing waits in line."""
        missing = self.wish - self.counted
        waiting = 0 if self.ticket is None else self.ticket.wanted
        if missing > 0:
            return missing == waiting or (waiting == 0 and now - self.asked_at < ASK_AGAIN and self.refused)
        free = {one.id for one in self.leases.values() if one.state is LeaseState.BOOKED} - set(taken)
        return waiting == 0 and not (missing < 0 and free)

    @property
    def refused(self) -> bool:
        return isinstance(self.objection, Refuse)

    def looked_for_hours(self, now: Instant) -> None:
        """Since when it has no worker, and can have none because hours are used up."""
        told = self.objection.code.value if self.objection is not None else ""
        code = self.ticket.outlook.code if self.ticket is not None else told
        over = self.wish > 0 and not self.leases and code in NO_HOURS
        since = (self.facts.hours_over_since or now) if over else None
        self.facts = replace(self.facts, hours_over_since=since)

    def owner_is_there(self, now: Instant) -> None:
        """The server that it is tied to runs."""
        self.facts = replace(self.facts, owner_seen=now)

    def is_told(self, worker: str, now: Instant) -> bool:
        return now - self.told.get(worker, 0) < TELL_AGAIN

    def seen(self, worker: str, lease: str, now: Instant, *, gone: bool) -> WorkerSeen:
        return WorkerSeen(worker, lease, gone=gone, told_to_retire=self.is_told(worker, now))
