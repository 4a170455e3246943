"""What reservations mean for one ask: a place inside its own, and an end before those of others (QUOTA.md §4, §8). Pure.

An ask that names a reservation is decided by it from its start until it is over: it takes room that is held already.
Where the reservation is over, was given up to others, or is not for the ask's pool, the ordinary rules decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hub_ext.core.clock import Instant, Seconds
from hub_ext.core.decision import Code, Wait
from hub_ext.quota.counting import window_of
from hub_ext.quota.model import Ask, Lease, Policy, Reservation
from hub_ext.quota.sums import SumKey, Sums
from hub_ext.quota.tree import Tree

RESERVATION: Final = "reservation"
"""The kind of limit that cuts an end, as facts tell it."""


@dataclass(frozen=True, slots=True)
class End:
    """When a lease would end, and what cut it short of what was asked for (None: nothing did)."""

    at: Instant
    cut_by: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Place:
    """The reservation that decides about an ask, and what is left in it; `begun` False: it holds nothing yet."""

    reservation: Reservation
    begun: bool
    left: Mapping[str, int] = field(default_factory=dict)


def place_of(
    tree: Tree, sums: Sums, reservations: Sequence[Reservation], ask: Ask, now: Instant
) -> Place | None:
    """None where the ordinary rules decide; only an ask that names a reservation may have a place in one."""
    policy = tree.policy
    found = next((one for one in reservations if one.id == ask.reservation), None)
    if found is None or not found.approved or found.pool not in policy.path(ask.pool):
        return None
    if found.end - now < policy.session(ask.pool).min:
        return None
    keys = {resource: SumKey("window", found.pool, resource, "", found.id) for resource in found.amounts}
    if not any(sums[key] for key in keys.values()):
        return Place(found, begun=False)
    left = {
        resource: sums[key._replace(kind="reserved")] - sums[key._replace(kind="inside")]
        for resource, key in keys.items()
    }
    fits = all(amount <= left[resource] for resource, amount in ask.amounts.items() if resource in left)
    return Place(found, begun=True, left=left) if fits or found.shrunk_to is None else None


def not_begun(policy: Policy, ask: Ask, place: Place) -> Wait | None:
    """The ask's own reservation has yet to begin."""
    if place.begun:
        return None
    facts = _facts(policy, place.reservation, inside=True)
    return Wait(Code.RESERVED_SOON, facts | {"pool": ask.pool, "resource": None})


def within(policy: Policy, reservation: Reservation, end: End) -> End:
    """A lease inside a reservation ends with it at the latest."""
    if end.at <= reservation.end:
        return end
    return End(reservation.end, {"kind": RESERVATION} | _facts(policy, reservation, inside=True))


def before_windows(
    tree: Tree,
    sums: Sums,
    reservations: Sequence[Reservation],
    wanted: Ask | Lease,
    end: End,
    since: Instant,
    least: Seconds,
) -> End | Wait:
    """Cut `end` at the first window's start at or after `since` at which the quota would not hold the ask as well.

    A wait where less than `least` seconds from `since` are left. Use rises nowhere but at these starts, so that nothing
    else has to be looked at.
    """
    policy = tree.policy
    stated = policy.stated(wanted.pool)
    amounts = [
        (resource, amount)
        for resource, amount in sorted(wanted.amounts.items())
        if amount and resource in stated and window_of(policy, sums, wanted, wanted.pool, resource) is None
    ]
    for start in sums.starts(policy.root(wanted.pool)):
        if start >= end.at:
            break
        if isinstance(wanted, Lease) and start < since:
            continue  # the lease itself is counted there
        for resource, amount in amounts:
            if not tree.fits(sums, wanted.pool, resource, amount, str(start)):
                facts = _reserved_facts(policy, reservations, wanted.pool, resource, start)
                if start - since < least:
                    return Wait(Code.RESERVED_SOON, facts | {"pool": wanted.pool})
                return End(start, {"kind": RESERVATION} | facts)
    return end


def lease_window(tree: Tree, sums: Sums, lease: Lease) -> tuple[str, Instant] | None:
    """The pool and the end of the begun reservation that the lease is inside of."""
    windows = (
        window_of(tree.policy, sums, lease, lease.pool, resource)
        for resource, amount in lease.amounts.items()
        if amount
    )
    return next((window for window in windows if window is not None), None)


def window_facts(
    policy: Policy, reservations: Iterable[Reservation], lease: Lease, window: tuple[str, Instant]
) -> dict[str, Any]:
    """The facts of the reservation that a lease is inside of."""
    pool, end = window
    found = next((one for one in reservations if one.id == lease.reservation), None)
    if found is None:
        found = Reservation(lease.reservation or "", pool, lease.amounts, lease.booked_at, end)
    return _facts(policy, replace(found, end=end), inside=True)


def _reserved_facts(
    policy: Policy, reservations: Sequence[Reservation], pool: str, resource: str, start: Instant
) -> dict[str, Any]:
    """Of the reservations that begin then, the one that holds most of what is short."""
    root = policy.root(pool)
    found = [
        one
        for one in reservations
        if one.approved and one.start == start and one.pool in policy.pools and policy.root(one.pool) == root
    ]
    if not found:
        return {"resource": resource, "starts": policy.local(start), "ends": None, "inside": False}
    most = min(found, key=lambda one: (-one.amounts.get(resource, 0), one.id))
    return _facts(policy, most, inside=False) | {"resource": resource}


def _facts(policy: Policy, reservation: Reservation, *, inside: bool) -> dict[str, Any]:
    return {
        "reservation": reservation.id,
        "pool": reservation.pool,
        "reserved_for": reservation.pool,
        "starts": policy.local(reservation.start),
        "ends": policy.local(reservation.end),
        "inside": inside,
    }
