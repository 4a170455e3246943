"""More time for what runs: one lease, or a Dask cluster with all its workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hub_ext.core.clock import MINUTE, Instant
from hub_ext.core.decision import Code, Refuse, Wait
from hub_ext.core.errors import BadInput
from hub_ext.quota.booking import loaded
from hub_ext.quota.cluster import by_cluster
from hub_ext.quota.contention import WAITS_FOR_ROOM
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import WORKER, Lease, LeaseState, Policy
from hub_ext.quota.policy import End, Snapshot, decide_extension
from hub_ext.quota.ports import Transaction
from hub_ext.quota.queue import others_waiting_for

LONGEST_MINUTES: Final = 60 * 24 * 366
MAY_GO_ON: Final = (LeaseState.BOOKED, LeaseState.RUNNING)


@dataclass(frozen=True, slots=True)
class Extension:
    """A lease after somebody asked for more time: `objection` says why it got none, `cut_by` what cut it short."""

    lease: Lease
    policy: Policy
    at: Instant
    objection: Wait | Refuse | None = None
    cut_by: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ClusterExtension:
    """A cluster after somebody asked for more time.

    `objection` says why its scheduler, and so the cluster, got none; `cut_by` what cut it short. `workers` are those that
    go on, each until its own end; `workers_objection` is why one of them ends before the cluster.
    """

    scheduler: Lease
    workers: tuple[Lease, ...]
    policy: Policy
    at: Instant
    objection: Wait | Refuse | None = None
    cut_by: Mapping[str, Any] | None = None
    workers_objection: Wait | Refuse | None = None


def check_minutes(minutes: int) -> None:
    """Raises BadInput for minutes that are none."""
    if not 0 < minutes <= LONGEST_MINUTES:
        raise BadInput(f"{minutes} minutes cannot be added; write a number from 1 to {LONGEST_MINUTES}")


def extend_lease(
    txn: Transaction, lease_id: str, minutes: int, now: Instant, who: str, *, only_look: bool = False
) -> Extension | None:
    """As `Admission.extend`. A worker goes on no longer than its cluster."""
    lease = txn.lease(lease_id)
    if lease is None or lease.state not in MAY_GO_ON:
        return None
    ledger = txn.ledger(loaded(txn.policy, [lease]), [lease.person])
    latest = None
    if lease.kind == WORKER:
        scheduler = txn.lease(lease.server)
        latest = scheduler.ends_at if scheduler is not None else lease.ends_at
    extension = _extended(txn, ledger, lease, minutes, now, who, latest=latest)
    if extension.lease is not lease and not only_look:
        txn.save(ledger, [extension.lease])
    return extension


def extend_cluster(
    txn: Transaction, name: str, minutes: int, now: Instant, who: str, *, only_look: bool = False
) -> ClusterExtension | None:
    """As `Admission.extend_cluster`: the scheduler first, then each worker up to its new end."""
    cluster = by_cluster(txn.live_in_clusters([name]), ()).get(name)
    scheduler = cluster.scheduler if cluster is not None else None
    if cluster is None or scheduler is None or scheduler.state not in MAY_GO_ON:
        return None
    leases = [scheduler, *cluster.workers]
    ledger = txn.ledger(loaded(txn.policy, leases), {lease.person for lease in leases})
    first = _extended(txn, ledger, scheduler, minutes, now, who)
    end = first.lease.ends_at
    workers: list[Lease] = []
    workers_objection: Wait | Refuse | None = None
    for worker in cluster.workers:
        if worker.state not in MAY_GO_ON:
            continue
        if first.objection is None and worker.ends_at < end:
            more = -(-(end - worker.ends_at) // MINUTE)
            extension = _extended(txn, ledger, worker, more, now, who, latest=end)
            workers_objection = workers_objection or extension.objection
            worker = extension.lease
        workers.append(worker)
    if not only_look:
        before = {lease.id: lease for lease in leases}
        txn.save(ledger, [one for one in (first.lease, *workers) if one is not before[one.id]])
    return ClusterExtension(
        first.lease, tuple(workers), txn.policy, now, first.objection, first.cut_by, workers_objection
    )


def _extended(
    txn: Transaction,
    ledger: Ledger,
    lease: Lease,
    minutes: int,
    now: Instant,
    who: str,
    *,
    latest: Instant | None = None,
) -> Extension:
    """On the ledger, nothing is saved yet. `latest`: not beyond that."""
    policy = txn.policy
    if (objection := _wanted_by_others(txn, lease)) is not None:
        return Extension(lease, policy, now, objection)
    snapshot = Snapshot(
        ledger.tree, ledger.sums, txn.nodes(), ledger.grants, {}, [lease], txn.reservations(now)
    )
    found = decide_extension(snapshot, lease, minutes, now)
    if isinstance(found, Wait | Refuse):
        return Extension(lease, policy, now, found)
    if latest is not None and found.at > latest:
        found = End(max(latest, lease.ends_at), {"kind": "cluster", "pool": lease.pool})
    if found.at > lease.ends_at:
        lease = ledger.extend(lease, found.at, now, who=who)
    return Extension(lease, policy, now, cut_by=found.cut_by)


def _wanted_by_others(txn: Transaction, lease: Lease) -> Wait | None:
    if lease.noticed_for is not None:
        ticket = txn.ticket(lease.noticed_for)
        return Wait(Code.OTHERS_WAITING, {"pool": ticket.ask.pool if ticket is not None else lease.pool})
    return others_waiting_for(txn.policy, lease, txn.tickets(codes=WAITS_FOR_ROOM))
