"""Which borrowed leases are taken back for an ask with a guarantee, and when they end (QUOTA.md §6). Pure.

Other pools before the asker's own; in them the pool with the highest share, from the root down and looked at again after
each pick; there the latest start, then the id. At last each that proves unnecessary is left in peace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from hub_ext.core.clock import Instant
from hub_ext.quota.counting import charged_pool
from hub_ext.quota.fairshare import own_share, share
from hub_ext.quota.model import Ask, Lease, LeaseState, Policy
from hub_ext.quota.stage import Room


def taken_at(policy: Policy, lease: Lease, now: Instant) -> Instant:
    """When a borrowed lease that gets notice now has to end: never within its protected time."""
    session = policy.session(charged_pool(policy, lease) or lease.path[-1])
    started = lease.started_at if lease.started_at is not None else lease.booked_at
    return min(lease.ends_at, max(now + session.notice, started + session.protected))


def may_be_taken(lease: Lease, *, never: str | None = None) -> bool:
    """`never`: the lease that displaced the asker before."""
    return (
        not lease.guaranteed
        and lease.noticed_for is None
        and lease.state in (LeaseState.BOOKED, LeaseState.RUNNING)
        and lease.id != never
    )


def reclaim_set(room: Room, ask: Ask, candidates: Iterable[Lease], most: int = 1) -> list[Lease] | None:
    """The leases after whose end the ask fits its quota and one machine, in the order of the picks: so many of the same, one
    beside the other, as can be, up to `most`.

    None where not even all of them make room for one.
    """
    room = room.copy_room()
    left = {lease.id: lease for lease in candidates}
    picked: list[Lease] = []
    kept: list[Lease] = []
    count = 0
    while count < most and (found := _for_one_more(room, ask, left)) is not None:
        count += 1
        picked += found
        if count < most:
            kept.append(room.keep(ask))
    if not count:
        return None
    for lease in kept:
        room.remove(lease)
    return needed(room, ask, picked, count)


def _for_one_more(room: Room, ask: Ask, left: dict[str, Lease]) -> list[Lease] | None:
    """Take those out of the room, and of what is left, after whose end the ask fits; None, and nothing, where it never does."""
    found: list[Lease] = []
    while not room.has_room(ask):
        lease = _next_victim(room, ask, left.values())
        if lease is None:
            for one in found:
                room.add(one)
                left[one.id] = one
            return None
        room.remove(lease)
        found.append(left.pop(lease.id))
    return found


def needed(room: Room, ask: Ask, removed: Sequence[Lease], count: int = 1) -> list[Lease]:
    """Those of the leases removed from the room without whose end so many of the ask would not fit; the last is asked first
    whether it may stay. Those that may are back in the room afterwards.
    """
    kept = list(removed)
    for lease in reversed(removed):
        room.add(lease)
        if room.count_fitting(ask, count) == count:
            kept.remove(lease)
        else:
            room.remove(lease)
    return kept


def _next_victim(room: Room, ask: Ask, candidates: Iterable[Lease]) -> Lease | None:
    policy = room.policy
    lacking = set(room.lacking(ask))
    by_pool: dict[str, list[Lease]] = {}
    for lease in candidates:
        pool = charged_pool(policy, lease)
        if pool is not None and _helps(room, ask, lease, pool, lacking):
            by_pool.setdefault(pool, []).append(lease)
    others = {pool: leases for pool, leases in by_pool.items() if pool != ask.pool}
    found = others or by_pool
    roots = sorted({policy.root(pool) for pool in found})
    return _pick(room, roots, found) if roots else None


def _helps(room: Room, ask: Ask, lease: Lease, pool: str, lacking: set[str]) -> bool:
    """Whether it holds something of what is short: in the ask's own tree, or else on a machine that could take it."""
    if lacking:
        return room.policy.root(pool) == room.policy.root(ask.pool) and any(
            lease.amounts.get(resource) for resource in lacking
        )
    if lease.node is None or not room.could_take(lease.node, ask):
        return False
    free = room.free(lease.node)
    return any(lease.amounts.get(r) for r, amount in ask.amounts.items() if amount > free.get(r, 0))


def _pick(
    room: Room, siblings: Sequence[str], found: dict[str, list[Lease]], above: str | None = None
) -> Lease:
    """Down the tree by highest share; among equal shares, and in the last pool, the latest start, then the id.

    The own leases of the pool `above` are one more of its children.
    """
    entries: list[tuple[tuple[bool, Fraction], Lease, str | None]] = []
    for name in siblings:
        below = [lease for pool in room.policy.subtree(name) for lease in found.get(pool, ())]
        if below:
            entries.append((share(room.tree, room.sums, name).order, min(below, key=_latest_first), name))
    if above is not None and (own := found.get(above)):
        order = own_share(room.tree, above, room.own_amounts(above)).order
        entries.append((order, min(own, key=_latest_first), None))
    highest = max(order for order, _, _ in entries)
    best = (entry for entry in entries if entry[0] == highest)
    _, lease, child = min(best, key=lambda entry: _latest_first(entry[1]))
    return lease if child is None else _pick(room, room.policy.children(child), found, above=child)


def _latest_first(lease: Lease) -> tuple[Instant, str]:
    started = lease.started_at if lease.started_at is not None else lease.booked_at
    return -started, lease.id
