"""What somebody who asked is told: the decision, with the lease or the ticket that it made."""

from __future__ import annotations

from dataclasses import dataclass

from hub_ext.core.clock import Instant
from hub_ext.core.decision import Admit, Decision
from hub_ext.core.errors import BadInput
from hub_ext.quota.model import Ask, Lease, Policy, Ticket
from hub_ext.quota.ports import Transaction


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision, with the lease if it admitted, or the ticket if it has to wait."""

    decision: Decision
    policy: Policy
    at: Instant
    lease: Lease | None = None
    ticket: Ticket | None = None


def as_decision(lease: Lease) -> Admit:
    return Admit(lease.guaranteed, lease.lender, lease.ends_at, lease.cost, lease.node)


def asked_before(txn: Transaction, ask: Ask, now: Instant) -> Answer | None:
    """Asking twice is asking once. Raises BadInput for an ask that was admitted, and is over."""
    lease = txn.lease(ask.id)
    if lease is not None and not lease.live:
        raise BadInput(f"Ask {ask.id} was admitted before and is over; ask anew, with another id")
    if lease is not None:
        return Answer(as_decision(lease), txn.policy, now, lease)
    return None
