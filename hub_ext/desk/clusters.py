"""Reads what is told about Dask clusters, and extends one: its scheduler and its workers together. One transaction each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hub_ext.core.clock import MINUTE, Instant
from hub_ext.core.decision import Refuse, Wait
from hub_ext.desk.leases import TitlesOf
from hub_ext.desk.paging import Place, one_page
from hub_ext.desk.records import Records
from hub_ext.quota.booking import loaded
from hub_ext.quota.cluster import ClusterLeases, by_cluster
from hub_ext.quota.contention import WAITS_FOR_ROOM
from hub_ext.quota.explain import Titles
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import SCHEDULER, WORKER, Lease, LeaseState, Policy, Reservation, Ticket
from hub_ext.quota.policy import End, Snapshot, decide_extension
from hub_ext.quota.ports import Store, Transaction
from hub_ext.quota.queue import others_waiting_for

Extension = End | Wait | Refuse


@dataclass(frozen=True)
class ClusterFacts:
    """What is told about one cluster. `whys`: by lease, why it was told to end, where it was not taken back.

    `extensions`: what extending it by so many minutes would come to; empty where that was not asked, or cannot be.
    """

    name: str
    leases: ClusterLeases
    policy: Policy
    now: Instant
    titles: Titles = field(default_factory=dict)
    whys: Mapping[str, str] = field(default_factory=dict)
    extensions: Sequence[tuple[int, Extension]] = ()

    @property
    def all(self) -> list[Lease]:
        """Its live leases, the scheduler's first."""
        scheduler = self.leases.scheduler
        return [*([] if scheduler is None else [scheduler]), *self.leases.workers]

    @property
    def of(self) -> tuple[str, str, str | None]:
        """Whose it is, in which pool, of which profile."""
        if self.all:
            return self.all[0].person, self.all[0].pool, self.all[0].profile
        assert self.leases.ticket is not None, "a cluster holds or waits for something"
        ask = self.leases.ticket.ask
        return ask.person, ask.pool, ask.profile


def clusters_in(leases: Iterable[Lease], tickets: Iterable[Ticket]) -> dict[str, ClusterLeases]:
    """The clusters among these, by name; a worker without a cluster's name belongs to none."""
    return {name: held for name, held in by_cluster(leases, tickets).items() if name}


def facts_of(
    txn: Transaction,
    clusters: Mapping[str, ClusterLeases],
    now: Instant,
    titles: Titles,
    minutes: Sequence[int] = (),
) -> list[ClusterFacts]:
    """The oldest first. `minutes`: the lengths by which each might be extended."""
    records = Records.of(txn)
    found = []
    for name, held in clusters.items():
        facts = ClusterFacts(name, held, txn.policy, now, titles)
        told = [one for one in facts.all if one.noticed_at is not None and one.noticed_for is None]
        extensions = _extensions(txn, held, minutes, now) if minutes else ()
        whys = {one.id: records.notice_of(one.id) for one in told}
        found.append(replace(facts, whys=whys, extensions=extensions))
    return sorted(found, key=_place)


def read_clusters(
    store: Store,
    clock_now: Instant,
    titles_of: TitlesOf,
    belongs: Callable[[Policy], Callable[[str, str], bool]],
    *,
    limit: int,
    after: Place | None,
) -> tuple[list[ClusterFacts], str | None]:
    """A page of the clusters of which `belongs` says so, by person and pool; and the cursor to go on from."""
    with store.reading() as txn:
        now, chosen = max(clock_now, txn.latest()), belongs(txn.policy)
        leases = [one for one in txn.live_in_clusters() if chosen(one.person, one.pool)]
        tickets = [one for one in txn.cluster_tickets() if chosen(one.ask.person, one.ask.pool)]
        found = facts_of(txn, clusters_in(leases, tickets), now, titles_of(txn.policy))
    return one_page(found, _place, limit, after)


def read_cluster(store: Store, clock_now: Instant, titles_of: TitlesOf, name: str) -> ClusterFacts | None:
    """One cluster that holds or waits for something; None where there is none of this name."""
    with store.reading() as txn:
        now = max(clock_now, txn.latest())
        held = clusters_in(txn.live_in_clusters([name]), txn.cluster_tickets([name])).get(name)
        if held is None:
            return None
        return facts_of(txn, {name: held}, now, titles_of(txn.policy))[0]


def _place(facts: ClusterFacts) -> Place:
    if facts.leases.ticket is not None and not facts.all:
        return facts.leases.ticket.made_at, facts.name
    return facts.all[0].booked_at, facts.name


# -- extending --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClusterExtension:
    """A cluster after somebody asked for more time: until when its scheduler runs, and how many of its workers do.

    `objection` says why it got none, or why some of its workers did not.
    """

    ends_at: Instant
    longer: bool
    shorter: int = 0
    """Workers that end before the scheduler."""
    objection: Wait | Refuse | None = None


def extend_cluster(
    store: Store, clock_now: Instant, name: str, minutes: int, who: str
) -> tuple[ClusterExtension, Policy, Instant] | None:
    """Let a cluster go on for so many minutes more; None where it does not run.

    The scheduler as far as the quota allows, then each worker as far, the oldest first, and never beyond the scheduler.
    """
    with store.booking() as txn:
        now = max(clock_now, txn.latest())
        held = clusters_in(txn.live_in_clusters([name]), ()).get(name)
        if held is None or not held.is_up or held.scheduler is None:
            return None
        scheduler = held.scheduler
        extending = _Extending.of(txn, held, now)
        first = extending.outcome(scheduler, minutes)
        if not isinstance(first, End):
            return ClusterExtension(scheduler.ends_at, False, objection=first), txn.policy, now
        longer = extending.extended(scheduler, first.at, who)
        objection: Wait | Refuse | None = None
        changed, workers = [longer], []
        for worker in _going_on(held.workers):
            left = (longer.ends_at - worker.ends_at) // MINUTE
            outcome = extending.outcome(worker, left) if left > 0 else End(worker.ends_at)
            if isinstance(outcome, End):
                after = extending.extended(worker, min(outcome.at, longer.ends_at), who)
                changed.append(after)
                workers.append(after)
            else:
                objection = objection or outcome
                workers.append(worker)
        txn.save(extending.ledger, changed)
        return (
            ClusterExtension(
                longer.ends_at,
                longer.ends_at > scheduler.ends_at,
                sum(longer.ends_at - one.ends_at >= MINUTE for one in workers),
                objection,
            ),
            txn.policy,
            now,
        )


def _extensions(
    txn: Transaction, held: ClusterLeases, minutes: Sequence[int], now: Instant
) -> list[tuple[int, Extension]]:
    """What each length would come to: for the scheduler, and for the first of its workers, whose hours run out first."""
    scheduler = held.scheduler
    if scheduler is None or scheduler.state is not LeaseState.RUNNING:
        return []
    extending = _Extending.of(txn, held, now)
    worker = next(iter(_going_on(held.workers)), None)
    found: list[tuple[int, Extension]] = []
    for each in minutes:
        outcome = extending.outcome(scheduler, each)
        if worker is not None and isinstance(outcome, End):
            left = (outcome.at - worker.ends_at) // MINUTE
            of_worker = extending.outcome(worker, left) if left > 0 else outcome
            if not isinstance(of_worker, End):
                outcome = of_worker
            elif of_worker.at + MINUTE <= outcome.at:
                outcome = replace(of_worker, at=max(of_worker.at, scheduler.ends_at))
        found.append((each, outcome))
    return found


def _going_on(workers: Iterable[Lease]) -> list[Lease]:
    """Those that nobody takes back, and that are not ending."""
    return [one for one in workers if one.state is not LeaseState.ENDING and one.noticed_for is None]


@dataclass
class _Extending:
    txn: Transaction
    ledger: Ledger
    now: Instant
    reservations: Sequence[Reservation]
    waiting: Collection[Ticket]
    own: Sequence[Lease]

    @classmethod
    def of(cls, txn: Transaction, held: ClusterLeases, now: Instant) -> _Extending:
        scheduler = held.scheduler
        own = [*([] if scheduler is None else [scheduler]), *held.workers]
        ledger = txn.ledger(loaded(txn.policy, own), {one.person for one in own})
        return cls(txn, ledger, now, txn.reservations(now), Records.of(txn).waited_for(WAITS_FOR_ROOM), own)

    def outcome(self, lease: Lease, minutes: int) -> Extension:
        """As `Admission.extend` answers for a server."""
        objection = others_waiting_for(self.ledger.policy, lease, self.waiting)
        if objection is not None:
            return objection
        snapshot = Snapshot(
            self.ledger.tree,
            self.ledger.sums,
            self.txn.nodes(),
            self.ledger.grants,
            own=self.own,
            reservations=self.reservations,
        )
        return decide_extension(snapshot, lease, minutes, self.now)

    def extended(self, lease: Lease, ends_at: Instant, who: str) -> Lease:
        return lease if ends_at <= lease.ends_at else self.ledger.extend(lease, ends_at, self.now, who=who)


def is_of_cluster(kind: str) -> bool:
    """Whether a lease or ticket of this kind is told as part of its cluster."""
    return kind in (SCHEDULER, WORKER)
