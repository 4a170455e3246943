"""The steps by which a Dask cluster's leases follow its wish, inside one booking transaction.

What it wishes for and does not hold waits under one elastic ticket: behind all servers, and without holding anything
against anybody.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from hub_ext.core.clock import MINUTE, Instant
from hub_ext.core.decision import Admit, Code, Decision, Refuse, Wait
from hub_ext.core.people import Person
from hub_ext.quota.booking import (
    book,
    decided,
    loaded,
    new_id,
    path_of,
    release_unused,
    ticket_over,
    with_devices_beside,
)
from hub_ext.quota.cluster import ClusterLeases, by_cluster, never_ran, over, unit_ask, within_cluster
from hub_ext.quota.codes import Ended, TicketEnd
from hub_ext.quota.contention import WAITS_FOR_ROOM, contenders
from hub_ext.quota.in_line import LeasesByEnd
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import (
    Ask,
    Lease,
    LeaseState,
    Node,
    Outlook,
    Reservation,
    Ticket,
)
from hub_ext.quota.policy import Snapshot, decide, first_end_among
from hub_ext.quota.ports import Transaction

HOURS: Final = frozenset({Code.BUDGET_SPENT, Code.BUDGET_SHORT})
AT_ONCE: Final = 32
"""So many workers are booked in one transaction: whoever starts a server meanwhile waits for no more than that."""


def read_cluster(txn: Transaction, name: str, person: str) -> tuple[ClusterLeases, list[Lease]]:
    """A person's cluster, and beside it all that they hold; empty where it is somebody else's."""
    own = txn.live_leases(person=person)
    leases = [lease for lease in own if lease.server == name]
    found = by_cluster(leases, (one for one in txn.tickets(person=person) if one.ask.server == name))
    return found.get(name, ClusterLeases(None, (), None)), own


def as_objection(ticket: Ticket) -> Wait:
    """Why a ticket waits, as it was written down last."""
    return Wait(Code(ticket.outlook.code), ticket.outlook.facts)


@dataclass
class Surroundings:
    """What the decisions of one booking look at beside the sums; read once, and only where it is asked for."""

    txn: Transaction
    now: Instant
    besides: str | None = None
    """The cluster's own ticket, which is no competitor."""

    @cached_property
    def nodes(self) -> tuple[Node, ...] | None:
        return self.txn.nodes()

    @cached_property
    def reservations(self) -> list[Reservation]:
        return self.txn.reservations(self.now)

    @cached_property
    def waiting(self) -> list[Ticket]:
        return [one for one in self.txn.tickets(codes=WAITS_FOR_ROOM) if one.id != self.besides]

    @cached_property
    def _taken(self) -> dict[str, frozenset[str]]:
        return {}

    def devices_taken(self, node: str) -> frozenset[str]:
        if node not in self._taken:
            self._taken[node] = frozenset(self.txn.devices_taken(node))
        return self._taken[node]


@dataclass
class Units:
    """Decides and books one worker after the other on one ledger; those within the guarantee come first by themselves.

    `objection`: why there was not one more.
    """

    around: Surroundings
    person: Person
    own: list[Lease]
    ledger: Ledger
    booked: list[Lease] = field(default_factory=list)
    objection: Wait | Refuse | None = None

    def decide(self, ask: Ask) -> tuple[Decision, tuple[str, ...]]:
        """With the devices of what is admitted. In front of others who wait for the same there is no going."""
        around, now = self.around, self.around.now
        snapshot = Snapshot(
            self.ledger.tree,
            self.ledger.sums,
            around.nodes,
            self.ledger.grants,
            {self.person.name: self.person},
            self.own,
            around.reservations,
        )
        decision = decide(snapshot, ask, now)
        if isinstance(decision, Admit) and contenders(self.ledger.policy, ask, decision, around.waiting, now):
            return Wait(Code.OTHERS_WAITING, {"pool": ask.pool}), ()
        return with_devices_beside(decision, ask, around.nodes, self._devices_taken)

    def book(self, unit: Ask, scheduler: Lease, count: int) -> None:
        """So many, or as many as there may be."""
        while len(self.booked) < count and self.objection is None:
            ask = unit_ask(unit, scheduler.server, scheduler, self.around.now, ask_id=new_id())
            decision, devices = self.decide(ask)
            if isinstance(decision, Admit):
                decision = within_cluster(decision, scheduler)
                lease = book(self.ledger, ask, decision, self.around.now, devices=devices)
                self.booked.append(lease)
                self.own.append(lease)
            else:
                self.objection = decision

    def _devices_taken(self, node: str) -> set[str]:
        mine = {device for lease in self.booked if lease.node == node for device in lease.devices}
        return mine | self.around.devices_taken(node)


def as_many_as_possible(units: Units, unit: Ask, scheduler: Lease, count: int, wanted: int) -> Units:
    """Book so many workers of those that are wanted, from where `units` begins. Where hours are short they are shared: more
    workers for a shorter time, the same for each and no shorter than a session may be.
    """
    first = _again(units)
    first.book(unit, scheduler, count)
    if first.objection is None or first.objection.code not in HOURS or not first.booked:
        return first
    least = units.ledger.policy.session(unit.pool).min
    many = _again(units)
    many.book(replace(unit, minutes=-(-least // MINUTE)), scheduler, count)
    if len(many.booked) <= len(first.booked):
        return first
    seconds = sum(lease.ends_at - units.around.now for lease in first.booked)
    # Those that come with the next portions share as well.
    sharing = len(many.booked) if many.objection else max(count, min(wanted, seconds // max(1, least)))
    shared = _again(units)
    shared.book(replace(unit, minutes=max(least, seconds // sharing) // MINUTE), scheduler, count)
    return max(shared, many, first, key=lambda one: len(one.booked))


def _again(units: Units) -> Units:
    """The same beginning, on a ledger of its own; one of them is saved."""
    ledger = Ledger(units.ledger.policy, units.ledger.sums.copy(), units.ledger.grants)
    return Units(units.around, units.person, list(units.own), ledger)


@dataclass
class Growth:
    """One cluster's step towards its wish. `objection`: why it is not met; `again`: there may be more to book."""

    txn: Transaction
    name: str
    person: Person
    unit: Ask
    wish: int
    in_use: Collection[str]
    now: Instant
    objection: Wait | Refuse | None = None
    again: bool = False

    def step(self) -> ClusterLeases:
        # 1. What it holds, and whether it is still there.
        cluster, own = read_cluster(self.txn, self.name, self.person.name)
        if not cluster.grows(self.now):
            return self._wind_up(cluster)
        # 2. Fewer wished for than there are: what nobody has begun to use goes back.
        lacks = cluster.lacks(self.wish)
        if lacks < 0:
            cluster = self._give_back(cluster, -lacks, Ended.NOT_NEEDED)
        if lacks <= 0:
            return self._without_ticket(cluster, TicketEnd.NOT_NEEDED)
        # 3. More: what fits is booked, the rest waits in line.
        return self._grow(cluster, own, lacks)

    def _grow(self, cluster: ClusterLeases, own: list[Lease], lacks: int) -> ClusterLeases:
        assert cluster.scheduler is not None
        ledger = self.txn.ledger(path_of(self.txn.policy, self.unit.pool), [self.person.name])
        around = Surroundings(self.txn, self.now, cluster.ticket.id if cluster.ticket else None)
        units = as_many_as_possible(
            Units(around, self.person, own, ledger),
            self.unit,
            cluster.scheduler,
            min(lacks, AT_ONCE),
            lacks,
        )
        self.objection = units.objection
        lacks -= len(units.booked)
        self.again = lacks > 0 and self.objection is None
        ticket = self._rest(cluster, units.ledger, lacks)
        self.txn.save(units.ledger, units.booked)
        workers = sorted((*cluster.workers, *units.booked), key=lambda lease: lease.age_order)
        return replace(cluster, workers=tuple(workers), ticket=ticket)

    def _rest(self, cluster: ClusterLeases, ledger: Ledger, lacks: int) -> Ticket | None:
        """What is missing waits, in the place that the cluster had; nothing waits for what waiting cannot cure."""
        former, objection = cluster.ticket, self.objection
        if not lacks or isinstance(objection, Refuse):
            if former is not None:
                why, facts = TicketEnd.TURN.value, {}
                if isinstance(objection, Refuse):
                    why, facts = objection.code.value, {"verdict": "refuse", **objection.facts}
                ledger.entries.append(ticket_over(former, why, self.now, who=self.person.name, facts=facts))
                self.txn.drop_tickets([former.id])
            return None
        if objection is None:  # the next portion follows at once
            return None if former is None else self._wait(cluster, ledger, lacks, as_objection(former))
        told = first_end_among(objection, LeasesByEnd(self.txn), self.txn.policy)
        assert isinstance(told, Wait)
        self.objection = told
        return self._wait(cluster, ledger, lacks, told)

    def _wait(self, cluster: ClusterLeases, ledger: Ledger, wanted: int, told: Wait) -> Ticket:
        assert cluster.scheduler is not None
        ticket = cluster.ticket
        ask_id = new_id() if ticket is None else ticket.id
        ask = unit_ask(self.unit, self.name, cluster.scheduler, self.now, ask_id=ask_id)
        if ticket is None:
            outlook = Outlook(told.code.value, told.facts)
            ticket = Ticket(ask, self.now, outlook, displaced_by=self._displaced_by(cluster))
        ticket = replace(ticket, ask=ask, wanted=wanted)
        entry = decided(ask, told, self.now)
        ledger.entries.append(replace(entry, facts={**entry.facts, "wanted": wanted}))
        self.txn.put_tickets([ticket])
        return ticket

    def _displaced_by(self, cluster: ClusterLeases) -> str | None:
        """For whom a worker was taken back last: what asks in its place never takes from them."""
        ending = [one.noticed_for for one in cluster.workers if one.state is LeaseState.ENDING]
        found = next((noticed for noticed in reversed(ending) if noticed is not None), None)
        return found or self.txn.displaced_last(self.person.name, self.name)

    def _wind_up(self, cluster: ClusterLeases) -> ClusterLeases:
        unused = len(cluster.unused(self.in_use))
        cluster = self._give_back(cluster, unused, Ended.CLUSTER_OVER)
        if cluster.lacks(self.wish) > 0:
            self.objection = over(self.name, self.unit.pool)
        return self._without_ticket(cluster, TicketEnd.CLUSTER_OVER)

    def _give_back(self, cluster: ClusterLeases, most: int, why: Ended) -> ClusterLeases:
        unused = cluster.unused(self.in_use)[:most]
        release_unused(self.txn, unused, self.now, who=self.person.name, why=why.value)
        # Read again: what was given back may have made others of them guaranteed.
        return read_cluster(self.txn, self.name, self.person.name)[0] if unused else cluster

    def _without_ticket(self, cluster: ClusterLeases, why: TicketEnd) -> ClusterLeases:
        drop_ticket(self.txn, cluster.ticket, self.now, why, who=self.person.name)
        return replace(cluster, ticket=None)


def drop_ticket(txn: Transaction, ticket: Ticket | None, now: Instant, why: TicketEnd, *, who: str) -> None:
    if ticket is not None:
        ledger = txn.ledger([])
        ledger.entries.append(ticket_over(ticket, why, now, who=who))
        txn.drop_tickets([ticket.id])
        txn.save(ledger, [])


def end_cluster_in(txn: Transaction, name: str, now: Instant, *, who: str, why: str) -> list[Lease]:
    """End what a cluster holds; returns the leases that were not ending yet."""
    leases = [one for one in txn.live_in_clusters([name]) if one.state is not LeaseState.ENDING]
    unused = [one.id for one in leases if never_ran(one)]
    release_unused(txn, [one for one in leases if one.id in unused], now, who=who, why=why)
    # Read again: what was given back may have made others of them guaranteed.
    ran = txn.leases_by_id(one.id for one in leases if one.id not in unused)
    ledger = txn.ledger(loaded(txn.policy, ran), {one.person for one in ran})
    txn.save(ledger, [ledger.end(one, now, who=who, why=why) for one in ran])
    for ticket in txn.cluster_tickets([name]):
        drop_ticket(txn, ticket, now, TicketEnd.CLUSTER_OVER, who=who)
    return leases
