"""An ask in the order of the line: what the clock's `plan` would do with it, were it a ticket already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hub_ext.core.clock import Instant
from hub_ext.core.decision import Admit, Refuse
from hub_ext.core.people import Person
from hub_ext.quota.booking import people_of, recent_use
from hub_ext.quota.model import Lease, Outlook, Ticket
from hub_ext.quota.plan import Scene, plan
from hub_ext.quota.policy import Snapshot
from hub_ext.quota.ports import Transaction


def decide_in_line(
    txn: Transaction, person: Person, ticket: Ticket, leases: Sequence[Lease], now: Instant
) -> Admit | Refuse | Outlook:
    """Whether its turn is now; an outlook where others come before it. What is due for the others is the clock's to do."""
    others = [one for one in txn.tickets() if one.id != ticket.id]
    people: Mapping[str, Person] = people_of(txn, others) | {person.name: person}
    ledger = txn.ledger(None)
    reservations = txn.reservations(now)
    snapshot = Snapshot(
        ledger.tree, ledger.sums, txn.nodes(), ledger.grants, people, reservations=reservations
    )
    scene = Scene(snapshot, leases, [*others, ticket], recent_use(txn, now), reservations)
    found = plan(scene, now, times_of=(ticket.id,))
    for turn in found.turns:
        if turn.ticket.id == ticket.id:
            return turn.decision
    for dropped in found.dropped:
        if dropped.ticket.id == ticket.id:
            return dropped.decision
    return found.outlooks[ticket.id]
