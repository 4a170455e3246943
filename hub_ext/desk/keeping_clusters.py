"""Nothing of a Dask cluster goes on without its scheduler: no worker behind its end, no lease and no ticket after it.

The gateway ends what it runs; this sees to it in the ledger also where the gateway is away. Looked for in the clock's
picture, and looked at again where it is written.
"""

from __future__ import annotations

from collections.abc import Iterable

from hub_ext.core.clock import Instant
from hub_ext.quota.booking import loaded
from hub_ext.quota.cluster import ClusterLeases, by_cluster, of_a_cluster
from hub_ext.quota.codes import Ended
from hub_ext.quota.growth import end_cluster_in
from hub_ext.quota.model import Lease, LeaseState, Ticket
from hub_ext.quota.ports import Transaction


def due(leases: Iterable[Lease], tickets: Iterable[Ticket]) -> list[str]:
    """The clusters of which something has to end, or to end earlier."""
    waiting = [ticket for ticket in tickets if of_a_cluster(ticket.ask)]
    return [name for name, cluster in by_cluster(leases, waiting).items() if _is_due(cluster)]


def settle(txn: Transaction, names: Iterable[str], now: Instant, who: str) -> list[Lease]:
    """Do it; returns the leases that end now, or earlier than they would have."""
    names = sorted(set(names))
    changed: list[Lease] = []
    for name, cluster in by_cluster(txn.live_in_clusters(names), txn.cluster_tickets(names)).items():
        if not _is_due(cluster):
            continue
        if not cluster.is_up:
            changed += end_cluster_in(txn, name, now, who=who, why=Ended.CLUSTER_OVER.value)
            continue
        assert cluster.scheduler is not None
        end = cluster.scheduler.ends_at
        outliving = cluster.outliving
        ledger = txn.ledger(loaded(txn.policy, outliving), {lease.person for lease in outliving})
        why = Ended.CLUSTER_OVER.value
        cut = [ledger.notice(lease, end, now, who=who, why=why) for lease in outliving]
        txn.save(ledger, cut)
        changed += cut
    return changed


def _is_due(cluster: ClusterLeases) -> bool:
    if cluster.is_up:
        return bool(cluster.outliving)
    return cluster.ticket is not None or any(one.state is not LeaseState.ENDING for one in cluster.workers)
