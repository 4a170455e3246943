"""The quota's use cases: admit, preview, and the life of a lease and a ticket, each one short transaction.

Everything that touches the database runs in a thread: no query blocks an event loop. `Admission` is what the
spawners, the clock, the pages and the command line call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TypeVar

from hub_ext.core.clock import Clock, Instant
from hub_ext.core.decision import Admit, Code, Decision, Wait
from hub_ext.core.people import Person
from hub_ext.quota.answers import Answer as Answer
from hub_ext.quota.answers import as_decision, asked_before
from hub_ext.quota.booking import (
    Options,
    book,
    decided,
    last_alive,
    loaded,
    new_id,
    path_of,
    release,
    ticket_over,
    with_devices,
)
from hub_ext.quota.budget import BudgetState, states_that_bind
from hub_ext.quota.codes import Ended, TicketEnd
from hub_ext.quota.contention import WAITS_FOR_ROOM, contenders, in_its_place, waits_in_its_booking
from hub_ext.quota.extending import Extension as Extension
from hub_ext.quota.extending import check_minutes, extend_lease
from hub_ext.quota.growing import ClusterLeases as ClusterLeases
from hub_ext.quota.growing import ClusterPreview as ClusterPreview
from hub_ext.quota.growing import Granted as Granted
from hub_ext.quota.growing import Growing
from hub_ext.quota.in_line import LeasesByEnd, decide_beside_others
from hub_ext.quota.ledger import Entry, EntryKind, Ledger
from hub_ext.quota.model import SERVER, Ask, Lease, LeaseState, Node, Outlook, Policy, Ticket
from hub_ext.quota.policy import Snapshot, decide, first_end_among
from hub_ext.quota.ports import Store, Transaction
from hub_ext.quota.record_keeping import Records

ResultT = TypeVar("ResultT")
Change = Callable[[Ledger, Lease, Instant], Lease]
"""One change of a lease through the ledger, at an instant."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What became of a ticket. While it waits there is a `ticket`; after its turn a `lease` of the same id.

    `over` is the entry that tells of its end, `successor` the ticket under which the person waits again.
    """

    ticket: Ticket | None = None
    lease: Lease | None = None
    over: Entry | None = None
    successor: str | None = None


@dataclass(frozen=True)
class Preview:
    """What each ask would be answered now, all from one snapshot."""

    at: Instant
    policy: Policy
    decisions: dict[str, Decision] = field(default_factory=dict)
    budgets: list[BudgetState] = field(default_factory=list)
    """Every budget that binds the person in the pools they belong to."""
    own: list[Lease] = field(default_factory=list)
    nodes: tuple[Node, ...] | None = None


def new_lease_id() -> str:
    return new_id()


class Admission(Growing, Records):
    """Books, ends and shows leases. One object per process; its methods may be called from any task or thread."""

    def __init__(self, store: Store, clock: Clock, *, threads: int = 4) -> None:
        self.store = store
        self.clock = clock
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="quota")

    async def in_thread(self, work: Callable[..., ResultT], *args: object) -> ResultT:
        """Run a blocking use case without blocking the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    # -- the way of one click -------------------------------------------------------------------------------

    async def admit(self, person: Person, ask: Ask, options: Options | None = None) -> Answer:
        """Decide; book what is admitted, and give a ticket to what has to wait, in one transaction.

        `options` is what the person chose, to start the server with when its turn comes. Raises StoreUnavailable with
        nothing booked.
        """
        return await self.in_thread(self.admit_now, person, ask, options)

    def admit_now(self, person: Person, ask: Ask, options: Options | None = None) -> Answer:
        with self.store.booking() as txn:
            now = self._now(txn)
            # 1. Asking twice is asking once.
            if (again := asked_before(txn, ask, now)) is not None:
                return again
            # 2. A new start of a server takes over what the server still holds, or was booked for it.
            own = txn.live_leases(person=ask.person)
            if ask.kind == SERVER:
                former = [held for held in own if (held.kind, held.server) == (SERVER, ask.server)]
                booked = next((held for held in former if waits_in_its_booking(held, ask)), None)
                if booked is not None:
                    return Answer(as_decision(booked), txn.policy, now, booked)
                for held in former:
                    release(txn, held, last_alive(held, now), now, why=Ended.TAKEN_OVER)
                own = [held for held in own if held not in former]
            # 3. Whoever asks again for the same server, or for less, keeps the place in line.
            replaced = _tickets_of(txn, ask)
            kept = [place for old in replaced if (place := in_its_place(old, ask, options or {})) is not None]
            ticket = kept[0] if kept else Ticket(ask, now, Outlook(""), options=dict(options or {}))
            # 4. Decide: alone where nobody waits for the same, else in the order of the line.
            ledger = txn.ledger(path_of(txn.policy, ask.pool), [ask.person])
            live = cache(txn.live_leases)  # not read where nobody asks
            decision, devices, outlook = decide_beside_others(txn, person, ticket, own, ledger, live, now)
            # 5. Book; or wait in line; or refuse. Each is written down: people ask later why.
            lease: Lease | None = None
            if isinstance(decision, Admit):
                lease = book(ledger, ticket.ask, decision, now, devices=devices, options=ticket.options)
            else:
                ledger.entries.append(decided(ticket.ask, decision, now))
            waiting = None if outlook is None else replace(ticket, outlook=outlook)
            _rewrite_tickets(txn, ledger, replaced, waiting, lease, now)
            txn.save(ledger, [lease] if lease else [])
            return Answer(decision, txn.policy, now, lease, waiting)

    async def preview(self, person: Person, asks: Sequence[Ask], *, instead_of: str | None = None) -> Preview:
        """What each ask would be answered, and the person's budgets, from one snapshot; nothing is booked."""
        return await self.in_thread(lambda: self.preview_now(person, asks, instead_of=instead_of))

    def preview_now(
        self,
        person: Person,
        asks: Sequence[Ask],
        *,
        first_ends: bool = True,
        instead_of: str | None = None,
    ) -> Preview:
        """`first_ends` False: a wait is told without the first end that could make room.
        `instead_of` names a ticket of theirs that each of the asks would take the place of.
        """
        with self.store.reading() as txn:
            now = self._now(txn)
            policy = txn.policy
            pools = {
                name
                for pool in {*person.pools, *(ask.pool for ask in asks)}
                for name in path_of(policy, pool)
            }
            ledger = txn.ledger(pools, [person.name])
            own = txn.live_leases(person=person.name)
            nodes = txn.nodes()
            snapshot = Snapshot(
                ledger.tree,
                ledger.sums,
                nodes,
                ledger.grants,
                {person.name: person},
                own,
                txn.reservations(now),
            )
            live, by_end = cache(txn.live_leases), LeasesByEnd(txn)
            decisions = {}

            @cache
            def waiting() -> list[Ticket]:
                return [one for one in txn.tickets(codes=WAITS_FOR_ROOM) if one.id != instead_of]

            for ask in asks:
                decision, _ = with_devices(decide(snapshot, ask, now), ask, nodes, live)
                if isinstance(decision, Admit) and contenders(policy, ask, decision, waiting(), now):
                    # The line decides, and may well admit it: said is what is sure.
                    decision = Wait(Code.OTHERS_WAITING, {"pool": ask.pool})
                decisions[ask.id] = first_end_among(decision, by_end, policy) if first_ends else decision
            paths = [path_of(policy, pool) for pool in person.pools]
            budgets = states_that_bind(ledger.budgets, policy, paths, person.name, now)
            return Preview(now, policy, decisions, budgets, own, nodes)

    # -- the life of a ticket ----------------------------------------------------------------------------------

    async def leave(self, ticket_id: str, person: str, *, who: str = "") -> Ticket | None:
        """The person leaves the line; None where they have no such ticket (any more)."""
        return await self.in_thread(self.leave_now, ticket_id, person, who)

    def leave_now(self, ticket_id: str, person: str, who: str = "") -> Ticket | None:
        with self.store.booking() as txn:
            ticket = txn.ticket(ticket_id)
            if ticket is None or ticket.ask.person != person:
                return None
            ledger = txn.ledger([])
            ledger.entries.append(ticket_over(ticket, TicketEnd.LEFT, self._now(txn), who=who or person))
            txn.drop_tickets([ticket_id])
            txn.save(ledger, [])
            return ticket

    async def standing(self, ticket_id: str) -> Standing:
        """What became of a ticket; all empty where there never was one."""
        return await self.in_thread(self.standing_now, ticket_id)

    def standing_now(self, ticket_id: str) -> Standing:
        with self.store.reading() as txn:
            ticket, lease = txn.ticket(ticket_id), txn.lease(ticket_id)
            if ticket is not None or (lease is not None and lease.live):
                return Standing(ticket, lease)
            told = [entry for _, entry in txn.entries(lease=ticket_id) if entry.kind is EntryKind.DECIDED]
            over = next((entry for entry in reversed(told) if _ends_a_ticket(entry)), None)
            successor = over.facts.get("ticket") if over is not None else None
            return Standing(None, lease, over, successor)

    # -- the life of a lease -----------------------------------------------------------------------------------

    async def running(self, lease_id: str, handle: str, node: str | None = None) -> Lease | None:
        """What the lease pays for runs since now."""
        return await self.in_thread(self.change, lease_id, run(handle, node))

    async def ending(self, lease_id: str, who: str, why: str) -> Lease | None:
        """A stop was ordered; the lease counts until what ran is seen gone."""
        return await self.in_thread(self.change, lease_id, end(who, why))

    async def claim(self, lease_id: str, who: str) -> Lease | None:
        """The person came to the server that was started for them."""
        return await self.in_thread(self.change, lease_id, claim(who))

    async def release(self, lease_id: str, *, who: str = "", why: str = "") -> Lease | None:
        """What the lease ran is gone now, or never ran."""
        return await self.in_thread(self.release_now, lease_id, who, why)

    def release_now(
        self, lease_id: str, who: str = "", why: str = "", at: Instant | None = None
    ) -> Lease | None:
        with self.store.booking() as txn:
            lease = txn.lease(lease_id)
            if lease is None or not lease.live:
                return lease
            now = self._now(txn)
            return release(txn, lease, now if at is None else at, now, who=who, why=why)

    def change(self, lease_id: str, change: Change, expected: LeaseState | None = None) -> Lease | None:
        """Put one change through the ledger; None where there is no such live lease (in the expected state)."""
        with self.store.booking() as txn:
            lease = txn.lease(lease_id)
            if lease is None or not lease.live or (expected is not None and lease.state is not expected):
                return None
            ledger = txn.ledger(loaded(txn.policy, [lease]), [lease.person])
            changed = change(ledger, lease, self._now(txn))
            txn.save(ledger, [changed])
            return changed

    async def extend(self, lease_id: str, minutes: int, who: str) -> Extension | None:
        """Let a lease go on for so many minutes more, as far as the quota allows and nobody waits for what it holds.

        None where there is no such lease, or it is ending. Raises BadInput for minutes that are none.
        """
        return await self.in_thread(self.extend_now, lease_id, minutes, who)

    def extend_now(
        self, lease_id: str, minutes: int, who: str, *, only_look: bool = False
    ) -> Extension | None:
        """With `only_look`, what it would come to; nothing is written."""
        check_minutes(minutes)
        with self.store.reading() if only_look else self.store.booking() as txn:
            return extend_lease(txn, lease_id, minutes, self._now(txn), who, only_look=only_look)

    async def find(self, lease_id: str) -> Lease | None:
        """The lease as it stands, also one that was released; None where there never was one."""
        return await self.in_thread(self.find_now, lease_id)

    def find_now(self, lease_id: str) -> Lease | None:
        with self.store.reading() as txn:
            return txn.lease(lease_id)


def run(handle: str, node: str | None = None, *, at: Instant | None = None, who: str = "") -> Change:
    """What the lease pays for runs, since `at` or now."""

    def change(ledger: Ledger, lease: Lease, now: Instant) -> Lease:
        return ledger.run(lease, now if at is None else at, handle=handle, node=node, who=who)

    return change


def end(who: str, why: str) -> Change:
    """A stop was ordered."""

    def change(ledger: Ledger, lease: Lease, now: Instant) -> Lease:
        return ledger.end(lease, now, who=who, why=why)

    return change


def claim(who: str) -> Change:
    """The person came."""

    def change(ledger: Ledger, lease: Lease, now: Instant) -> Lease:
        return ledger.claim(lease, now, who=who)

    return change


# -- the steps of an admission ------------------------------------------------------------------------------------


def _tickets_of(txn: Transaction, ask: Ask) -> list[Ticket]:
    """The tickets that this ask takes the place of: its own, and any for the same server."""
    return [
        ticket
        for ticket in txn.tickets(person=ask.person)
        if ticket.id == ask.id or (ticket.ask.kind == ask.kind == SERVER and ticket.ask.server == ask.server)
    ]


def _rewrite_tickets(
    txn: Transaction,
    ledger: Ledger,
    former: Sequence[Ticket],
    waiting: Ticket | None,
    lease: Lease | None,
    now: Instant,
) -> None:
    """One ticket for one server of a person: the former ones are over, but for the one whose place is kept."""
    goes_on = {one.id for one in (waiting, lease) if one is not None}
    over = [ticket for ticket in former if waiting is None or ticket.id != waiting.id]
    ledger.entries += [
        ticket_over(
            ticket,
            TicketEnd.TURN if ticket.id in goes_on else TicketEnd.REPLACED,
            now,
            who=ticket.ask.person,
            successor=waiting.id if waiting is not None else None,
        )
        for ticket in over
    ]
    txn.drop_tickets([ticket.id for ticket in over])
    if waiting is not None:
        txn.put_tickets([waiting])


def _ends_a_ticket(entry: Entry) -> bool:
    return (
        bool(entry.facts.get("over"))
        or entry.why == TicketEnd.AGAIN
        or entry.facts.get("verdict") == "refuse"
    )
