"""The steps inside a booking transaction that admission and the clock share: book, release, join and leave the line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from hub_ext.core.clock import MINUTE, Instant
from hub_ext.core.decision import Admit, Code, Decision, Refuse, Wait, plain
from hub_ext.core.people import Person
from hub_ext.quota.budget import first_instant, local_date
from hub_ext.quota.codes import Ended, TicketEnd
from hub_ext.quota.devices import choose_devices
from hub_ext.quota.ledger import TAKEN_BACK, Entry, EntryKind, Ledger
from hub_ext.quota.model import SERVER, Ask, Lease, Node, Outlook, Policy, Ticket
from hub_ext.quota.ports import Transaction
from hub_ext.quota.queue import Recent, decayed, put_back

Options = Mapping[str, Any]
HALF_LIVES: Final = 10
"""What was used longer ago than so many half-lives counts less than a thousandth."""
NO_ROOM_AFTER_ALL: Final = frozenset({Ended.NO_ROOM.value, Ended.CLUSTER_AWAY.value})


def new_id() -> str:
    return uuid4().hex


# -- booking ------------------------------------------------------------------------------------------------------------


def book(
    ledger: Ledger,
    ask: Ask,
    decision: Admit,
    now: Instant,
    *,
    devices: Sequence[str] = (),
    options: Options | None = None,
    unclaimed: bool = False,
    who: str = "",
) -> Lease:
    """Make the lease; its entry also keeps what was chosen, to start the same again."""
    lease = ledger.book(ask, decision, now, who=who, devices=devices, unclaimed=unclaimed)
    if options:
        entry = ledger.entries[-1]
        ledger.entries[-1] = replace(entry, facts={**entry.facts, "options": plain(options)})
    return lease


def options_of(txn: Transaction, lease_id: str) -> Options:
    """What a lease's server was started with; empty where that was not written down."""
    first = txn.entries(lease=lease_id, limit=10)
    booked = next((entry for _, entry in first if entry.kind is EntryKind.BOOKED), None)
    return dict(booked.facts.get("options") or {}) if booked else {}


def with_devices(
    decision: Decision, ask: Ask, nodes: Sequence[Node] | None, live: Callable[[], Iterable[Lease]]
) -> tuple[Decision, tuple[str, ...]]:
    """The devices of an admitted ask; a wait where the machine has room by its numbers, but no device left."""

    def taken_on(node: str) -> set[str]:
        return {device for lease in live() if lease.node == node for device in lease.devices}

    return with_devices_beside(decision, ask, nodes, taken_on)


def with_devices_beside(
    decision: Decision,
    ask: Ask,
    nodes: Sequence[Node] | None,
    taken_on: Callable[[str], Collection[str]],
) -> tuple[Decision, tuple[str, ...]]:
    """As `with_devices`, where it is known which devices of a machine are taken."""
    admitted = decision.node if isinstance(decision, Admit) else None
    node = next((node for node in nodes or () if node.name == admitted), None)
    if node is None or not node.devices:
        return decision, ()
    devices = choose_devices(node, ask.amounts, taken_on(node.name))
    if devices is None:
        return Wait(Code.NO_NODE_FREE, {"pool": ask.pool, "asked": dict(ask.amounts), "nodes": 1}), ()
    return decision, devices


# -- releasing ----------------------------------------------------------------------------------------------------------


def release(
    txn: Transaction, lease: Lease, at: Instant, now: Instant, *, who: str = "", why: str = ""
) -> Lease:
    """Release, promote the borrowed leases that now fit a guarantee, and put back in line who was displaced."""
    candidates = txn.borrowed_leases(sharing_guarantee(txn.policy, lease))
    ledger = txn.ledger(
        loaded(txn.policy, [lease, *candidates]), {lease.person, *(c.person for c in candidates)}
    )
    released = ledger.release(lease, at, who=who, why=why)
    promoted = ledger.promote([c for c in candidates if c.id != lease.id], max(at, now))
    ticket = _again(txn, released, now) if why != Ended.TAKEN_OVER else None
    if ticket is not None:
        txn.put_tickets([ticket])
        ledger.entries.append(_told(ticket.ask, now, lease.id, TicketEnd.AGAIN, {"ticket": ticket.id}))
    txn.save(ledger, [released, *promoted])
    return released


def release_unused(
    txn: Transaction, leases: Sequence[Lease], now: Instant, *, who: str, why: str
) -> list[Lease]:
    """Release several bookings that never ran, of one person and one pool; nobody is put back in line for them."""
    if not leases:
        return []
    shared = set().union(*(sharing_guarantee(txn.policy, lease) for lease in leases))
    candidates = txn.borrowed_leases(shared)
    ledger = txn.ledger(
        loaded(txn.policy, [*leases, *candidates]), {one.person for one in (*leases, *candidates)}
    )
    released = [ledger.release(lease, now, who=who, why=why) for lease in leases]
    over = {lease.id for lease in leases}
    promoted = ledger.promote([one for one in candidates if one.id not in over], now)
    txn.save(ledger, [*released, *promoted])
    return released


def _again(txn: Transaction, lease: Lease, now: Instant) -> Ticket | None:
    """First in line again: who was displaced by a notice, and whose start found no room after all."""
    if lease.kind != SERVER or lease.pool not in txn.policy.pools:
        return None
    found: Ticket | None = None
    if lease.reason == TAKEN_BACK:
        found = put_back(txn.policy, lease, new_id(), now)
    elif lease.reason in NO_ROOM_AFTER_ALL and lease.started_at is None:
        found = _not_placed(lease)
    if found is None or _asked_anew(txn, lease):
        return None
    return replace(found, options=options_of(txn, lease.id))


def _not_placed(lease: Lease) -> Ticket:
    ask = Ask(
        id=new_id(),
        person=lease.person,
        pool=lease.pool,
        amounts=lease.amounts,
        kind=lease.kind,
        profile=lease.profile,
        minutes=max(1, (lease.ends_at - lease.booked_at) // MINUTE),
        reservation=lease.reservation,
        server=lease.server,
    )
    outlook = Outlook(Code.NO_NODE_FREE.value, {"pool": lease.pool, "asked": dict(lease.amounts)})
    return Ticket(ask, lease.booked_at, outlook, put_back=True)


def _asked_anew(txn: Transaction, lease: Lease) -> bool:
    """Whether the person has decided otherwise about this server meanwhile."""
    held = txn.live_leases(person=lease.person)
    return any(
        (other.kind, other.server) == (SERVER, lease.server) and other.id != lease.id for other in held
    ) or any(ticket.ask.server == lease.server for ticket in txn.tickets(person=lease.person))


def last_alive(lease: Lease, now: Instant) -> Instant:
    return now if lease.started_at is None else max(lease.seen_at or 0, lease.charged_until)


# -- the line ---------------------------------------------------------------------------------------------------------------


def decided(ask: Ask, decision: Wait | Refuse, now: Instant) -> Entry:
    """A wait or refusal, told under the ask's id: people ask later why."""
    verdict = "wait" if isinstance(decision, Wait) else "refuse"
    facts = {"verdict": verdict, "facts": plain(decision.facts)}
    return _told(ask, now, ask.id, decision.code.value, facts, who=ask.person)


def got_some(ticket: Ticket, now: Instant, *, who: str = "") -> Entry:
    """A ticket that wants several got some of them and waits on, told under its id."""
    facts = {"wanted": ticket.wanted, "booked": ticket.booked}
    return _told(ticket.ask, now, ticket.id, TicketEnd.TURN, facts, who=who)


def ticket_over(
    ticket: Ticket,
    why: str,
    now: Instant,
    *,
    who: str = "",
    facts: Mapping[str, Any] | None = None,
    successor: str | None = None,
) -> Entry:
    """A ticket's end, told under its id; `successor` is the ticket under which the person waits on."""
    ended: dict[str, Any] = {"over": True, "facts": plain(facts or {})}
    if successor is not None:
        ended["ticket"] = successor
    return _told(ticket.ask, now, ticket.id, why, ended, who=who)


def _told(ask: Ask, now: Instant, lease: str, why: str, facts: Mapping[str, Any], *, who: str = "") -> Entry:
    about = {"ask": ask.id, "profile": ask.profile, "server": ask.server, **facts}
    return Entry(
        EntryKind.DECIDED,
        now,
        lease=lease,
        pool=ask.pool,
        person=ask.person,
        who=who,
        why=str(why),
        facts=about,
    )


def recent_use(txn: Transaction, now: Instant) -> Recent:
    """Decayed GPU-seconds by (pool, person), from the days on which they accrued."""
    policy = txn.policy
    half_life = policy.queue.half_life
    first = local_date(now - HALF_LIVES * half_life, policy.timezone) - timedelta(days=1)
    charges = [
        (pool, person, first_instant(day, policy.timezone), units)
        for pool, person, day, units in txn.used_since(first)
    ]
    return decayed(charges, now, half_life)


def people_of(txn: Transaction, tickets: Iterable[Ticket]) -> dict[str, Person]:
    """Who waits, as written down when they signed in last."""
    wanted = {ticket.ask.person for ticket in tickets}
    if len(wanted) > 50:
        return {person.name: person for person in txn.people() if person.name in wanted}
    return {name: person for name in wanted if (person := txn.person(name)) is not None}


# -- which sums ---------------------------------------------------------------------------------------------------------------


def path_of(policy: Policy, pool: str) -> tuple[str, ...]:
    return policy.path(pool) if pool in policy.pools else ()


def loaded(policy: Policy, leases: Iterable[Lease]) -> set[str]:
    """The pools whose sums a change of these leases reads or writes: where they were booked, and where they count."""
    pools: set[str] = set()
    for lease in leases:
        pools |= set(lease.path)
        for name in lease.path:
            pools |= set(path_of(policy, name))
    return pools


def sharing_guarantee(policy: Policy, lease: Lease) -> set[str]:
    """The pools whose asks draw on a guarantee that this lease may free."""
    pool = next((name for name in lease.path if name in policy.pools), None)
    if pool is None or not lease.guaranteed:
        return set()
    homes = {policy.home(pool, resource) for resource in lease.amounts}
    return {name for home in homes if home is not None for name in policy.subtree(home)}
