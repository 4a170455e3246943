"""How reservations live in the ledger: made, begun, shrunk to what is in use, over; and what they cost unused. Pure.

A reservation counts in `used` at every window's start inside it from the day it is made, and as use of its pool from
the moment it begins. `turn_windows` does all that is due, in the order of time; the clock and `simulate` call it. What it
changes is in the sums alone: no lease changes when a window begins or ends.

All functions here need a ledger that was loaded for every pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from hub_ext.core.clock import MINUTE, Instant, Seconds
from hub_ext.quota.budget import binding, local_date, slices
from hub_ext.quota.counting import (
    active,
    charged_pool,
    count_ahead,
    count_at,
    count_reserved,
    count_room,
    drop_start,
    holds,
    open_window,
    start_key,
)
from hub_ext.quota.ledger import Charge, Entry, EntryKind, Ledger, lease_facts
from hub_ext.quota.model import Lease, LeaseState, Policy, Reservation
from hub_ext.quota.sums import SumKey, Sums

SHRINKS_AFTER: Final[Seconds] = 20 * MINUTE
"""Whoever has not come by then has left the room to others."""
UNUSED: Final = "reservation"
"""The kind of the account under which the unused part of a reservation is charged."""


def has_begun(sums: Sums, reservation: Reservation) -> bool:
    """Whether the ledger counts it as use by now."""
    return any(
        sums[SumKey("window", reservation.pool, resource, "", reservation.id)]
        for resource in reservation.amounts
    )


def is_inside(policy: Policy, lease: Lease, reservation: Reservation) -> bool:
    """Whether the lease was admitted to the reservation, and still belongs to its pool."""
    pool = charged_pool(policy, lease) if lease.reservation == reservation.id else None
    return pool is not None and reservation.pool in policy.path(pool)


def next_edge(reservations: Iterable[Reservation], now: Instant) -> Instant | None:
    """The next instant after `now` at which `turn_windows` has something to do."""
    edges = (
        edge
        for reservation in reservations
        if reservation.approved
        for edge in (reservation.start, _shrinks_at(reservation), reservation.end)
        if edge > now
    )
    return min(edges, default=None)


# -- making and ending one ---------------------------------------------------------------------------------------


def reserve(
    ledger: Ledger,
    reservation: Reservation,
    leases: Iterable[Lease],
    others: Iterable[Reservation],
    now: Instant,
    *,
    who: str = "",
) -> None:
    """Count an accepted reservation from now on. `leases`: all live ones; `others`: all reservations not over.

    The notices it needs are given beforehand (`Ledger.take_back`). Raises ValueError for a pool the policy lacks.
    """
    policy, sums = ledger.policy, ledger.sums
    if reservation.pool not in policy.pools:
        raise ValueError(f"there is no pool {reservation.pool!r} to reserve for")
    root = policy.root(reservation.pool)
    key = start_key(root, reservation.start)
    if not sums[key]:
        for lease in leases:
            pool = charged_pool(policy, lease)
            if lease.live and pool is not None and policy.root(pool) == root:
                count_at(ledger.tree, sums, lease, reservation.start)
        for other in others:
            in_tree = other.pool in policy.pools and policy.root(other.pool) == root
            if other.id != reservation.id and in_tree and active(other, reservation.start):
                ledger.tree.add(sums, other.pool, holds(other), str(reservation.start))
    sums.add(key, 1)
    count_ahead(ledger.tree, sums, reservation, reservation.amounts)
    tell(ledger, reservation, now, "made", who=who)


def cancel(
    ledger: Ledger, reservation: Reservation, leases: Iterable[Lease], now: Instant, *, who: str = ""
) -> None:
    """Hold nothing for it any more; what runs inside it goes on as an ordinary lease."""
    policy, sums = ledger.policy, ledger.sums
    if reservation.pool not in policy.pools:
        return
    count_ahead(ledger.tree, sums, reservation, holds(reservation), sign=-1)
    if has_begun(sums, reservation):
        _close(ledger, reservation.pool, reservation.id, leases)
    else:
        drop_start(policy, sums, policy.root(reservation.pool), reservation.start)
    tell(ledger, reservation, now, "cancelled", who=who)


def turn_windows(
    ledger: Ledger, reservations: Iterable[Reservation], leases: Sequence[Lease], now: Instant
) -> list[Reservation]:
    """All that is due by now: ends first, then what shrinks, then what begins. Returns the reservations that shrank.

    `reservations`: those that may count and were not over when the clock last looked; `leases`: all live ones. Doing it
    twice changes nothing.
    """
    shrunk = []
    known = {one.id: one for one in reservations if one.approved and one.pool in ledger.policy.pools}
    for _, order, name in sorted(_due(ledger.sums, known, now)):
        if order == _END:
            pool, reservation_id = name
            _close(ledger, pool, reservation_id, leases)
            over = known.get(reservation_id) or Reservation(reservation_id, pool, {}, now, now)
            tell(ledger, over, now, "over")
        elif order == _SHRINK:
            shrunk.append(_shrink(ledger, known[name[1]], now))
            known[name[1]] = shrunk[-1]
        else:
            _begin(ledger, known[name[1]], leases)
            tell(ledger, known[name[1]], now, "begun")
    for key, _ in [item for item in ledger.sums.of_kind("starts") if int(item[0].period) <= now]:
        drop_start(ledger.policy, ledger.sums, key.item, int(key.period), all_of_them=True)
    return shrunk


# -- what is not used ------------------------------------------------------------------------------------------------


def account_id(reservation: Reservation) -> str:
    """The lease that the unused part is charged to: one that never holds anything itself."""
    return f"{reservation.id}/unused"


def accrue_unused(
    ledger: Ledger,
    reservation: Reservation,
    account: Lease | None,
    inside: Sequence[Lease],
    until: Instant,
    *,
    since: Instant = 0,
) -> Lease | None:
    """Charge what nobody used up to `until` to the pool and those above it, at the rate of reservations, in slices.

    `account` is the lease of `account_id` (None: it is made); `inside` are all leases that ran inside the reservation
    since it was last charged, those that are over included; a new account is charged from `since` on. Returns the account to keep; None where nothing is due.
    """
    until = min(until, reservation.end)
    if not reservation.approved or until <= reservation.start or reservation.pool not in ledger.policy.pools:
        return account
    if account is None:
        account = _account(ledger, reservation, max(reservation.start, since), until)
    refs = binding(ledger.policy, account.path, "")
    edges = sorted({grant.until for ref in refs for grant in ledger.budgets.grants_of(ref)})
    for start, end, cost in unused(ledger.policy, reservation, inside, account.charged_until, until):
        for first, last in slices(ledger.policy, start, end, edges, ledger.longest_slice) if cost else ():
            units = cost * (last - first)
            for ref in refs:
                ledger.budgets.charge(ref, first, units)
            day = local_date(first, ledger.policy.timezone)
            ledger.charges.append(Charge(account.id, day, units, last - first))
    if account.charged_until < until:
        entry = Entry(EntryKind.ACCRUED, until, facts={"until": until})
        account = ledger.write(account, entry)
    return account


def unused(
    policy: Policy, reservation: Reservation, inside: Iterable[Lease], since: Instant, until: Instant
) -> Iterator[tuple[Instant, Instant, int]]:
    """(start, end, cost per second) of what is held and not in use, in pieces in which nothing changes."""
    running = [
        lease for lease in inside if lease.started_at is not None and is_inside(policy, lease, reservation)
    ]
    edges = {since, until, _shrinks_at(reservation)}
    for lease in running:
        edges |= {lease.started_at or since, until if lease.released_at is None else lease.released_at}
    times = sorted(edge for edge in edges if since <= edge <= until)
    for start, end in pairwise(times):
        held = holds(reservation) if start >= _shrinks_at(reservation) else reservation.amounts
        used = _in_use(running, start)
        idle = {resource: max(0, amount - used.get(resource, 0)) for resource, amount in held.items()}
        yield start, end, policy.cost(idle, policy.rates.reservation)


def _in_use(leases: Iterable[Lease], at: Instant) -> Mapping[str, int]:
    used: dict[str, int] = {}
    for lease in leases:
        if (lease.started_at or 0) <= at and (lease.released_at is None or at < lease.released_at):
            for resource, amount in lease.amounts.items():
                used[resource] = used.get(resource, 0) + amount
    return used


def _account(ledger: Ledger, reservation: Reservation, since: Instant, now: Instant) -> Lease:
    """Over before it began: it takes part in nothing but the accounts."""
    account = Lease(
        id=account_id(reservation),
        person="",
        pool=reservation.pool,
        path=ledger.policy.path(reservation.pool),
        amounts=dict(reservation.amounts),
        kind=UNUSED,
        guaranteed=True,
        lender=None,
        cost=ledger.policy.cost(reservation.amounts, ledger.policy.rates.reservation),
        booked_at=reservation.start,
        ends_at=reservation.end,
        charged_until=since,
        state=LeaseState.RELEASED,
        started_at=reservation.start,
        released_at=reservation.end,
        reservation=reservation.id,
    )
    return ledger.write(None, Entry(EntryKind.BOOKED, now, facts=lease_facts(account)), account)


# -- inside ------------------------------------------------------------------------------------------------------------

_END, _SHRINK, _BEGIN = range(3)


def _due(
    sums: Sums, known: Mapping[str, Reservation], now: Instant
) -> set[tuple[Instant, int, tuple[str, str]]]:
    """(when, what, (pool, reservation)). Ends are found in the sums, so that none is lost that nobody lists any more."""
    begun = {(key.pool, key.period): end for key, end in sums.of_kind("window")}
    due = {(end, _END, name) for name, end in begun.items() if end <= now}
    for one in known.values():
        name = (one.pool, one.id)
        if name not in begun and active(one, now):
            due.add((one.start, _BEGIN, name))
        shrinks = _shrinks_at(one)
        if one.shrunk_to is None and shrinks <= now and shrinks < one.end and one.end > now:
            due.add((shrinks, _SHRINK, name))
    return due


def _begin(ledger: Ledger, reservation: Reservation, leases: Iterable[Lease]) -> None:
    inside = [lease for lease in leases if lease.live and is_inside(ledger.policy, lease, reservation)]
    for lease in inside:
        count_room(ledger.tree, ledger.sums, lease, sign=-1)
    open_window(ledger.tree, ledger.sums, reservation)
    for lease in inside:
        count_room(ledger.tree, ledger.sums, lease)
    drop_start(ledger.policy, ledger.sums, ledger.policy.root(reservation.pool), reservation.start)


def _close(ledger: Ledger, pool: str, reservation_id: str, leases: Iterable[Lease]) -> None:
    """What still runs inside counts by itself from now on."""
    sums = ledger.sums
    keys = [key for key, _ in sums.of_kind("window") if (key.pool, key.period) == (pool, reservation_id)]
    inside = [
        lease
        for lease in leases
        if lease.live
        and lease.reservation == reservation_id
        and (charged := charged_pool(ledger.policy, lease)) is not None
        and pool in ledger.policy.path(charged)
    ]
    for lease in inside:
        count_room(ledger.tree, sums, lease, sign=-1)
    for key in keys:
        count_reserved(ledger.tree, sums, pool, key.item, reservation_id, reserved=0)
        sums[key] = 0
    for lease in inside:
        count_room(ledger.tree, sums, lease)


def _shrink(ledger: Ledger, reservation: Reservation, now: Instant) -> Reservation:
    sums, pool = ledger.sums, reservation.pool
    inside = {
        resource: min(amount, sums[SumKey("inside", pool, resource, "", reservation.id)])
        for resource, amount in reservation.amounts.items()
    }
    given_up = {resource: amount - inside[resource] for resource, amount in reservation.amounts.items()}
    count_ahead(ledger.tree, sums, reservation, given_up, sign=-1)
    for resource, amount in inside.items():
        count_reserved(ledger.tree, sums, pool, resource, reservation.id, reserved=amount)
    shrunk = replace(reservation, shrunk_to=inside)
    tell(ledger, shrunk, now, "shrunk")
    return shrunk


def _shrinks_at(reservation: Reservation) -> Instant:
    return reservation.start + SHRINKS_AFTER


def tell(ledger: Ledger, reservation: Reservation, now: Instant, what: str, *, who: str = "") -> None:
    """Write down a step of its life."""
    facts = {
        "reservation": reservation.id,
        "amounts": dict(holds(reservation)),
        "start": reservation.start,
        "end": reservation.end,
    }
    ledger.entries.append(
        Entry(EntryKind.RESERVED, now, pool=reservation.pool, who=who, why=what, facts=facts)
    )
