"""Does in the ledger what a plan says, in one booking transaction; what has to follow in the world comes after it.

A plan was made from a picture that may be a moment old. So each of its parts is looked at again here: a turn is decided
once more, and what changed meanwhile is left for the next plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from hub_ext.core.clock import Instant
from hub_ext.core.decision import Admit, Refuse, plain
from hub_ext.core.people import Person
from hub_ext.quota.booking import (
    Options,
    book,
    got_some,
    loaded,
    path_of,
    people_of,
    ticket_over,
    with_devices,
)
from hub_ext.quota.cluster import has_time_left, of_a_cluster, schedulers_of, within_cluster
from hub_ext.quota.codes import TicketEnd
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import SERVER, WORKER, Ask, Lease, LeaseState, Node, Outlook, Reservation, Ticket
from hub_ext.quota.plan import Plan, Turn
from hub_ext.quota.policy import Snapshot, decide
from hub_ext.quota.ports import Transaction

WORKERS_AT_ONCE: Final = 32
"""So many workers of clusters are booked in one transaction; the others follow at the next look."""


@dataclass
class Enacted:
    """What was written: the servers to start now, with what was chosen, and how tickets stand."""

    starts: list[tuple[Lease, Options]] = field(default_factory=list)
    noticed: list[Lease] = field(default_factory=list)
    withdrawn: list[Lease] = field(default_factory=list)
    dropped: list[Ticket] = field(default_factory=list)
    outlooks: dict[str, Outlook] = field(default_factory=dict)


def anything_to_do(plan: Plan, tickets: dict[str, Ticket]) -> bool:
    return bool(
        plan.turns or plan.dropped or plan.notices or plan.withdrawn or changed_outlooks(plan, tickets)
    )


def changed_outlooks(plan: Plan, tickets: dict[str, Ticket]) -> dict[str, Outlook]:
    """Those that are not written down yet."""
    changed = {}
    for ticket_id, outlook in plan.outlooks.items():
        before = tickets[ticket_id].outlook if ticket_id in tickets else None
        if before is None or not _same(before, outlook):
            changed[ticket_id] = replace(outlook, facts=plain(outlook.facts))
    return changed


def with_former_times(plan: Plan, tickets: dict[str, Ticket], near: int) -> Plan:
    """A plan that looked for no times, with those that were expected before.

    Of whoever stands further behind than `near`, and waits for what they waited for, nothing is told anew: that their
    place moved by a few.
    """
    outlooks = {}
    for ticket_id, outlook in plan.outlooks.items():
        former = tickets[ticket_id].outlook if ticket_id in tickets else None
        if former is not None and _still_far(former, outlook, near):
            outlook = former
        elif former is not None and outlook.eta is None and former.eta and former.eta.kind == "expected":
            outlook = replace(outlook, eta=former.eta)
        outlooks[ticket_id] = outlook
    return replace(plan, outlooks=outlooks)


def _still_far(former: Outlook, outlook: Outlook, near: int) -> bool:
    return (
        former.place is not None
        and outlook.place is not None
        and min(former.place, outlook.place) > near
        and outlook.eta is None
        and (former.code, former.reclaims) == (outlook.code, outlook.reclaims)
    )


def _same(before: Outlook, outlook: Outlook) -> bool:
    """What is read from the database has its times as text."""
    return (
        (before.code, before.place, before.eta, before.reclaims)
        == (outlook.code, outlook.place, outlook.eta, outlook.reclaims)
    ) and (before.facts is outlook.facts or before.facts == plain(outlook.facts))


def enact(txn: Transaction, plan: Plan, tickets: dict[str, Ticket], now: Instant, who: str) -> Enacted:
    """`tickets` as the plan saw them."""
    return _Enacting(txn, plan, tickets, now, who).enact()


class _Enacting:
    def __init__(
        self, txn: Transaction, plan: Plan, tickets: dict[str, Ticket], now: Instant, who: str
    ) -> None:
        self.txn, self.plan, self.now, self.who = txn, plan, now, who
        self.seen = tickets
        touched = [turn.ticket for turn in plan.turns] + [dropped.ticket for dropped in plan.dropped]
        self.waiting = {ticket.id: ticket for ticket in txn.tickets_by_id(one.id for one in touched)}
        people = {turn.ticket.ask.person for turn in plan.turns}
        self.own: dict[str, list[Lease]] = {name: [] for name in people}
        for lease in txn.live_leases_of(people):
            self.own[lease.person].append(lease)
        moved = [notice.lease.id for notice in plan.notices] + [lease.id for lease in plan.withdrawn]
        self.moved = {lease.id: lease for lease in txn.leases_by_id(moved) if lease.live}
        self.ledger = self._load(people)
        self.saved: dict[str, Lease] = {}
        self.booked: list[Lease] = []
        self.workers = 0
        self.grown: dict[str, Ticket] = {}
        """Tickets that got some of what they want, and wait on."""
        self.done = Enacted()

    def _load(self, people: set[str]) -> Ledger:
        pools = {name for turn in self.plan.turns for name in path_of(self.txn.policy, turn.ticket.ask.pool)}
        moved = self.moved.values()
        return self.txn.ledger(
            pools | loaded(self.txn.policy, moved), people | {lease.person for lease in moved}
        )

    def enact(self) -> Enacted:
        # 1. What waiting cannot cure any more.
        for dropped in self.plan.dropped:
            if (ticket := self.waiting.get(dropped.ticket.id)) is not None:
                self._drop(ticket, dropped.decision)
        # 2. Whose turn has come, in their order.
        people = people_of(self.txn, [turn.ticket for turn in self.plan.turns])
        for turn in self.plan.turns:
            self._book(turn, people)
        self.txn.put_tickets(self.grown.values())
        self.ledger.entries += [got_some(ticket, self.now, who=self.who) for ticket in self.grown.values()]
        # 3. Notices, and those that nobody needs any more.
        for notice in self.plan.notices:
            self._take_back(notice.lease.id, notice.ends_at, notice.ticket)
        for lease in self.plan.withdrawn:
            self._withdraw(lease.id)
        # 4. How the others stand.
        over = {ticket.id for ticket in self.done.dropped}
        booked = {lease.id for lease, _ in self.done.starts}
        changed = changed_outlooks(self.plan, self.seen)
        self.done.outlooks = {key: look for key, look in changed.items() if key not in over | booked}
        self.txn.put_outlooks(self.done.outlooks)
        self.txn.save(self.ledger, self.saved.values())
        return self.done

    # -- the parts ----------------------------------------------------------------------------------------------------

    def _drop(self, ticket: Ticket, decision: Refuse) -> None:
        facts = {"verdict": "refuse", **decision.facts}
        self.ledger.entries.append(
            ticket_over(ticket, decision.code.value, self.now, who=self.who, facts=facts)
        )
        self.txn.drop_tickets([ticket.id])
        self.done.dropped.append(ticket)

    def _book(self, turn: Turn, people: dict[str, Person]) -> None:
        ticket, ask = self.waiting.get(turn.ticket.id), turn.ask
        if ticket is None or ticket.ask != turn.ticket.ask:
            return
        own = self.own[ask.person]
        if any(held.id == ask.id or _of_one_server(held, ask) for held in own):
            return  # two leases for one server there never are
        scheduler = schedulers_of(own).get(ask.server)
        if of_a_cluster(ask) and not self._may_grow(scheduler):
            return
        snapshot = Snapshot(
            self.ledger.tree,
            self.ledger.sums,
            self.nodes,
            self.ledger.grants,
            people,
            own,
            self.reservations,
        )
        decision, devices = with_devices(decide(snapshot, ask, self.now), ask, self.nodes, self._live)
        if not isinstance(decision, Admit):
            return
        ends_at = min(decision.ends_at, max(self.now, turn.decision.ends_at))
        lease = book(
            self.ledger,
            ask,
            within_cluster(replace(decision, ends_at=ends_at), scheduler),
            self.now,
            devices=devices,
            options=ticket.options,
            unclaimed=ask.kind == SERVER,
            who=self.who,
        )
        own.append(lease)
        self.booked.append(lease)
        self.saved[lease.id] = lease
        self._count_down(ticket)
        self.workers += ask.kind == WORKER
        if ask.kind == SERVER:
            self.done.starts.append((lease, ticket.options))

    def _may_grow(self, scheduler: Lease | None) -> bool:
        enough = self.workers >= WORKERS_AT_ONCE
        return not enough and scheduler is not None and has_time_left(scheduler, self.now)

    def _count_down(self, ticket: Ticket) -> None:
        if ticket.wanted > 1:
            left = replace(ticket, wanted=ticket.wanted - 1, booked=ticket.booked + 1)
            self.waiting[ticket.id] = left
            self.grown[ticket.id] = left
            return
        self.grown.pop(ticket.id, None)
        del self.waiting[ticket.id]
        self.ledger.entries.append(ticket_over(ticket, TicketEnd.TURN, self.now, who=self.who))
        self.txn.drop_tickets([ticket.id])

    def _take_back(self, lease_id: str, ends_at: Instant, ticket: str) -> None:
        lease = self.moved.get(lease_id)
        may_be = (
            lease is not None
            and not lease.guaranteed
            and lease.noticed_for is None
            and lease.state in (LeaseState.BOOKED, LeaseState.RUNNING)
        )
        if lease is None or not may_be or self.txn.ticket(ticket) is None:
            return
        noticed = self.ledger.take_back(lease, max(ends_at, self.now), ticket, self.now, who=self.who)
        self.saved[lease_id] = noticed
        self.done.noticed.append(noticed)

    def _withdraw(self, lease_id: str) -> None:
        lease = self.moved.get(lease_id)
        if lease is None or lease.noticed_for is None or lease.state is LeaseState.ENDING:
            return
        withdrawn = self.ledger.withdraw(lease, self.now, who=self.who)
        if withdrawn is not lease:
            self.saved[lease_id] = withdrawn
            self.done.withdrawn.append(withdrawn)

    # -- read once, and only where it is asked for ----------------------------------------------------------------------

    @cached_property
    def nodes(self) -> tuple[Node, ...] | None:
        return self.txn.nodes()

    @cached_property
    def reservations(self) -> list[Reservation]:
        return self.txn.reservations(self.now)

    @cached_property
    def _all_live(self) -> list[Lease]:
        return self.txn.live_leases()

    def _live(self) -> list[Lease]:
        return [*self._all_live, *self.booked]


def _of_one_server(held: Lease, ask: Ask) -> bool:
    return held.kind == ask.kind == SERVER and held.server == ask.server
