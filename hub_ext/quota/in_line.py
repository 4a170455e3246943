"""An ask beside those who wait: decided alone, or by what the clock's `plan` would do with it, were it a ticket already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from hub_ext.core.clock import Instant
from hub_ext.core.decision import Admit, Code, Decision, Refuse, Wait
from hub_ext.core.people import Person
from hub_ext.quota.booking import people_of, recent_use, with_devices
from hub_ext.quota.contention import WAITS_FOR_ROOM, contenders
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import SERVER, Ask, Lease, Outlook, Ticket
from hub_ext.quota.plan import Scene, plan
from hub_ext.quota.policy import Snapshot, decide, first_end_among
from hub_ext.quota.ports import Transaction
from hub_ext.quota.sums import SumKey


def decide_beside_others(
    txn: Transaction,
    person: Person,
    ticket: Ticket,
    own: Sequence[Lease],
    ledger: Ledger,
    live: Callable[[], Sequence[Lease]],
    now: Instant,
) -> tuple[Decision, tuple[str, ...], Outlook | None]:
    """The decision with devices, and how the ticket stands where it has to wait: alone where nobody waits for the same,
    else in the order of the line.
    """
    ask, policy, nodes = ticket.ask, txn.policy, txn.nodes()
    snapshot = Snapshot(
        ledger.tree, ledger.sums, nodes, ledger.grants, {person.name: person}, own, txn.reservations(now)
    )
    decision = decide(snapshot, ask, now)
    if isinstance(decision, Admit):
        waiting = txn.tickets(codes=WAITS_FOR_ROOM)
        others = contenders(policy, ask, decision, waiting, now)
        if ask.kind == SERVER and any(one.outlook.code == Code.STARTS_BUSY for one in others):
            # In a rush the clock books for all who wait at once, several times a second: to play the whole line here
            # for each that joins would cost more than their starts.
            return _joins_the_rush(snapshot, ask)
        if others:
            in_line = decide_in_line(txn, person, ticket, live(), now)
            if isinstance(in_line, Outlook):
                return Wait(Code(in_line.code), in_line.facts), (), in_line
            if isinstance(in_line, Refuse):
                return in_line, (), None
    decision, devices = with_devices(decision, ask, nodes, live)
    if isinstance(decision, Wait):
        decision = first_end_among(decision, LeasesByEnd(txn), policy)
        assert isinstance(decision, Wait)
        return decision, (), Outlook(decision.code.value, decision.facts)
    return decision, devices, None


def _joins_the_rush(snapshot: Snapshot, ask: Ask) -> tuple[Wait, tuple[str, ...], Outlook]:
    starts, limit = snapshot.sums[SumKey("starting")], snapshot.policy.queue.starts
    found = Wait(Code.STARTS_BUSY, {"pool": ask.pool, "starts": starts, "limit": limit})
    return found, (), Outlook(found.code.value, found.facts)


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


class LeasesByEnd:
    """The live leases, the first to end first: read as far as anybody looks, and each once."""

    def __init__(self, txn: Transaction) -> None:
        self._txn = txn
        self._read: list[Lease] = []
        self._whole = False

    def __iter__(self) -> Iterator[Lease]:
        place = 0
        while place < len(self._read) or self._read_on():
            yield self._read[place]
            place += 1

    def _read_on(self) -> bool:
        if self._whole:
            return False
        after = (self._read[-1].ends_at, self._read[-1].id) if self._read else None
        further = self._txn.live_by_end(after)
        self._read += further
        self._whole = not further
        return bool(further)
