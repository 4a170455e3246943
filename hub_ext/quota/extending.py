"""More time for what runs. (A Dask cluster as a whole is extended at the desk, `hub_ext/desk/clusters.py`.)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hub_ext.core.clock import Instant
from hub_ext.core.decision import Code, Refuse, Wait
from hub_ext.core.errors import BadInput
from hub_ext.quota.booking import loaded
from hub_ext.quota.contention import WAITS_FOR_ROOM
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


def check_minutes(minutes: int) -> None:
    """Raises BadInput for minutes that are none."""
    if not 0 < minutes <= LONGEST_MINUTES:
        raise BadInput(f"{minutes} minutes cannot be added; write a number from 1 to {LONGEST_MINUTES}")


def extend_lease(
    txn: Transaction, lease_id: str, minutes: int, now: Instant, who: str, *, only_look: bool = False
) -> Extension | None:
    """As `Admission.extend`. A worker goes on no longer than its cluster."""
    lease, policy = txn.lease(lease_id), txn.policy
    if lease is None or lease.state not in MAY_GO_ON:
        return None
    if (objection := _wanted_by_others(txn, lease)) is not None:
        return Extension(lease, policy, now, objection)
    ledger = txn.ledger(loaded(policy, [lease]), [lease.person])
    snapshot = Snapshot(
        ledger.tree, ledger.sums, txn.nodes(), ledger.grants, {}, [lease], txn.reservations(now)
    )
    found = decide_extension(snapshot, lease, minutes, now)
    if isinstance(found, Wait | Refuse):
        return Extension(lease, policy, now, found)
    end = _within_its_cluster(txn, lease, found)
    if end.at > lease.ends_at:
        lease = ledger.extend(lease, end.at, now, who=who)
        if not only_look:
            txn.save(ledger, [lease])
    return Extension(lease, policy, now, cut_by=end.cut_by)


def _within_its_cluster(txn: Transaction, lease: Lease, end: End) -> End:
    scheduler = txn.lease(lease.server) if lease.kind == WORKER else None
    if scheduler is None or end.at <= scheduler.ends_at:
        return end
    return End(max(scheduler.ends_at, lease.ends_at), {"kind": "cluster", "pool": lease.pool})


def _wanted_by_others(txn: Transaction, lease: Lease) -> Wait | None:
    if lease.noticed_for is not None:
        ticket = txn.ticket(lease.noticed_for)
        return Wait(Code.OTHERS_WAITING, {"pool": ticket.ask.pool if ticket is not None else lease.pool})
    return others_waiting_for(txn.policy, lease, txn.tickets(codes=WAITS_FOR_ROOM))
