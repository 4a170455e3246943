"""What a Dask cluster holds of the quota: its scheduler's lease, its workers', and the ticket for the rest of its wish.

All leases of a cluster carry its name as their `server`; the scheduler's lease has it as its id, too. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hub_ext.core.clock import MINUTE, Instant, Seconds
from hub_ext.core.decision import Admit, Code, Refuse
from hub_ext.quota.model import SCHEDULER, SERVER, WORKER, Ask, Lease, LeaseState, Ticket

TOO_LATE: Final[Seconds] = MINUTE
"""So long before its end a cluster gets no more workers: they would have to retire at once."""


@dataclass(frozen=True, slots=True)
class ClusterLeases:
    """What a cluster holds: live leases, the oldest worker first, and the ticket under which the rest of its wish waits."""

    scheduler: Lease | None
    workers: tuple[Lease, ...]
    ticket: Ticket | None

    @property
    def is_up(self) -> bool:
        """Whether its scheduler has a lease that is not being ended."""
        return self.scheduler is not None and self.scheduler.state is not LeaseState.ENDING

    def grows(self, now: Instant) -> bool:
        """Whether a worker that is booked now would have any time in it."""
        return self.is_up and self.scheduler is not None and has_time_left(self.scheduler, now)

    def lacks(self, wish: int) -> int:
        """How many workers are missing; negative where there are more than wished for. What is ending does not count."""
        return wish - sum(lease.state is not LeaseState.ENDING for lease in self.workers)

    def unused(self, in_use: Collection[str]) -> list[Lease]:
        """Booked for workers that nobody has begun to start, the first to give back first: borrowed, then youngest."""
        free = [one for one in self.workers if never_ran(one) and one.id not in in_use]
        return sorted(free, key=lambda one: (one.guaranteed, -one.booked_at, one.id))

    @property
    def outliving(self) -> list[Lease]:
        """Workers that would end after their scheduler."""
        if self.scheduler is None:
            return []
        end = self.scheduler.ends_at
        return [one for one in self.workers if one.ends_at > end and one.state is not LeaseState.ENDING]


def by_cluster(leases: Iterable[Lease], tickets: Iterable[Ticket]) -> dict[str, ClusterLeases]:
    """The clusters that these leases and tickets belong to, by name."""
    schedulers: dict[str, Lease] = {}
    workers: dict[str, list[Lease]] = {}
    for lease in leases:
        if lease.kind == SCHEDULER:
            schedulers[lease.server] = lease
        elif lease.kind == WORKER:
            workers.setdefault(lease.server, []).append(lease)
    waiting = {ticket.ask.server: ticket for ticket in tickets if ticket.ask.kind == WORKER}
    return {
        name: ClusterLeases(
            schedulers.get(name),
            tuple(sorted(workers.get(name, ()), key=lambda lease: lease.age_order)),
            waiting.get(name),
        )
        for name in sorted({*schedulers, *workers, *waiting})
    }


def has_time_left(scheduler: Lease, now: Instant) -> bool:
    return scheduler.ends_at - now > TOO_LATE


def never_ran(lease: Lease) -> bool:
    return lease.state is LeaseState.BOOKED and lease.handle is None


def of_a_cluster(ask: Ask) -> bool:
    """Whether it is one more worker of a cluster that is named, and not several of something by themselves."""
    return ask.kind == WORKER and ask.server not in ("", ask.id)


def unit_ask(unit: Ask, name: str, scheduler: Lease, now: Instant, *, ask_id: str) -> Ask:
    """One more worker: never for longer than its cluster."""
    left = -(-(scheduler.ends_at - now) // MINUTE)
    minutes = left if unit.minutes is None else min(unit.minutes, left)
    return replace(unit, id=ask_id, kind=WORKER, server=name, minutes=max(1, minutes))


def within_cluster(decision: Admit, scheduler: Lease | None) -> Admit:
    """A worker's end is never behind its scheduler's."""
    if scheduler is None or decision.ends_at <= scheduler.ends_at:
        return decision
    return replace(decision, ends_at=scheduler.ends_at)


def over(name: str, pool: str) -> Refuse:
    """The answer to whoever asks for workers of a cluster that is not there any more."""
    return Refuse(Code.CLUSTER_OVER, {"pool": pool, "cluster": name})


def schedulers_of(leases: Sequence[Lease]) -> dict[str, Lease]:
    """By name, the schedulers of clusters that go on."""
    return {
        lease.server: lease
        for lease in leases
        if lease.kind == SCHEDULER and lease.state is not LeaseState.ENDING
    }


def is_part(lease: Lease) -> bool:
    """Whether it is a cluster's: the gateway starts and ends it, not the hub."""
    return lease.kind != SERVER
