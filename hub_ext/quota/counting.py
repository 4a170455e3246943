"""What a lease counts in: every sum but those of budgets. Pure, and kept apart from the life of a lease.

An ordinary lease counts at its pool, now and at every window's start before its end. A lease inside a reservation
that has begun does not count again what the reservation holds: the reservation counts as a whole, at its own pool, and
more only where what is inside is more (a fact that was booked as it stood).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hub_ext.core.amounts import Amounts
from hub_ext.core.clock import Instant
from hub_ext.quota.model import COUNTED_KINDS, SERVER, Ask, Lease, LeaseState, Policy, Reservation
from hub_ext.quota.sums import SumKey, Sums
from hub_ext.quota.tree import Tree


def is_guaranteed(tree: Tree, sums: Sums, wanted: Lease | Ask) -> bool:
    """Whether each resource still fits the nominal of its home pool (QUOTA.md §3), or is inside a reservation."""
    policy = tree.policy
    for resource, amount in wanted.amounts.items():
        home = policy.home(wanted.pool, resource)
        if home is None or not amount or window_of(policy, sums, wanted, wanted.pool, resource) is not None:
            continue
        if sums[SumKey("guaranteed", home, resource)] + amount > policy.nominal(home, resource):
            return False
    return True


def lender_of(tree: Tree, sums: Sums, wanted: Ask) -> str:
    """The pool that a borrowed lease is lent from: only what goes beyond its home's guarantee is borrowed."""
    borrowed = {
        resource: amount
        for resource, amount in wanted.amounts.items()
        if not is_guaranteed(tree, sums, replace(wanted, amounts={resource: amount}))
    }
    return tree.lender(sums, wanted.pool, borrowed or wanted.amounts)


def cap_keys(wanted: Lease | Ask) -> dict[str, int]:
    """What the lease counts against a person's caps: its resources, and one of its kind."""
    keys = {resource: amount for resource, amount in wanted.amounts.items() if amount}
    if wanted.kind in COUNTED_KINDS:
        keys[COUNTED_KINDS[wanted.kind]] = 1
    return keys


def charged_pool(policy: Policy, lease: Lease) -> str | None:
    """Where the lease's amounts count: its pool, or where that no longer exists, the nearest above that does."""
    return next((name for name in lease.path if name in policy.pools), None)


def counts_in(policy: Policy, lease: Lease, pool: str) -> bool:
    """Whether the lease counts against the caps that `pool` states."""
    charged = charged_pool(policy, lease)
    return charged is not None and pool in policy.path(charged) and lease.reservation is None


def window_of(
    policy: Policy, sums: Sums, wanted: Lease | Ask, pool: str, resource: str
) -> tuple[str, Instant] | None:
    """The pool and the end of the reservation that this resource is inside of; None where it counts by itself."""
    if wanted.reservation is None:
        return None
    for name in policy.path(pool):
        if end := sums[SumKey("window", name, resource, "", wanted.reservation)]:
            return name, end
    return None


def add_to_sums(tree: Tree, sums: Sums, lease: Lease) -> None:
    """Count a live lease in every sum but those of budgets."""
    count_room(tree, sums, lease)
    pool = charged_pool(tree.policy, lease)
    if pool is not None:
        _count_held(tree.policy, sums, lease, pool, 1)
    count_on_node(sums, lease)
    count_start(sums, lease)


def remove_from_sums(tree: Tree, sums: Sums, lease: Lease) -> None:
    """Undo `add_to_sums` (but for the count of starts, which ends when the lease runs)."""
    count_room(tree, sums, lease, sign=-1)
    pool = charged_pool(tree.policy, lease)
    if pool is not None:
        _count_held(tree.policy, sums, lease, pool, -1)
    count_on_node(sums, lease, sign=-1)


def count_room(tree: Tree, sums: Sums, lease: Lease, sign: int = 1) -> None:
    """In the pools and their guarantees: now, and at every window's start before the lease's end."""
    pool = charged_pool(tree.policy, lease)
    if pool is None:
        return
    outside = dict(lease.amounts)
    for resource, amount in lease.amounts.items():
        window = window_of(tree.policy, sums, lease, pool, resource)
        if window is not None:
            del outside[resource]
            count_reserved(tree, sums, window[0], resource, lease.reservation or "", inside=sign * amount)
    _count_used(tree, sums, pool, outside, sign)
    if lease.guaranteed:
        count_guaranteed(tree, sums, lease, sign)
    for start in sums.starts(tree.policy.root(pool)):
        if start < lease.ends_at:
            _count_at(tree, sums, lease, pool, start, sign)


def move_end(tree: Tree, sums: Sums, lease: Lease, ends_at: Instant) -> None:
    """Count the lease at the window starts that its end moves over: it ends at `ends_at` instead of when it says."""
    pool = charged_pool(tree.policy, lease)
    if pool is None or ends_at == lease.ends_at:
        return
    for start in sums.starts(tree.policy.root(pool)):
        if (start < ends_at) != (start < lease.ends_at):
            _count_at(tree, sums, lease, pool, start, 1 if start < ends_at else -1)


def count_at(tree: Tree, sums: Sums, lease: Lease, start: Instant) -> None:
    """Count a live lease at one window's start, if it ends after that."""
    pool = charged_pool(tree.policy, lease)
    if pool is not None and start < lease.ends_at:
        _count_at(tree, sums, lease, pool, start, 1)


def count_reserved(
    tree: Tree,
    sums: Sums,
    pool: str,
    resource: str,
    reservation: str,
    *,
    reserved: int | None = None,
    inside: int = 0,
) -> None:
    """Let a begun reservation hold `reserved` from now on, or `inside` more be inside it; it counts as the larger."""
    reserved_key = SumKey("reserved", pool, resource, "", reservation)
    inside_key = reserved_key._replace(kind="inside")
    before = max(sums[reserved_key], sums[inside_key])
    if reserved is not None:
        sums[reserved_key] = reserved
    sums.add(inside_key, inside)
    more = max(sums[reserved_key], sums[inside_key]) - before
    if more:
        _count_used(tree, sums, pool, {resource: abs(more)}, 1 if more > 0 else -1)
        home = tree.policy.home(pool, resource)
        if home is not None:
            sums.add(SumKey("guaranteed", home, resource), more)


def count_guaranteed(tree: Tree, sums: Sums, lease: Lease, sign: int = 1) -> None:
    """What a guaranteed lease draws on guarantees; a reservation draws for what is inside it."""
    pool = charged_pool(tree.policy, lease)
    for resource, amount in lease.amounts.items():
        home = tree.policy.home(pool, resource) if pool else None
        if (
            pool is not None
            and home is not None
            and window_of(tree.policy, sums, lease, pool, resource) is None
        ):
            sums.add(SumKey("guaranteed", home, resource), sign * amount)


def count_on_node(sums: Sums, lease: Lease, sign: int = 1) -> None:
    if lease.node is not None:
        for resource, amount in lease.amounts.items():
            sums.add(SumKey("taken", "", resource, lease.node), sign * amount)


def count_start(sums: Sums, lease: Lease, sign: int = 1) -> None:
    if lease.state is LeaseState.BOOKED and lease.kind == SERVER:
        sums.add(SumKey("starting"), sign)


# -- reservations -----------------------------------------------------------------------------------------------


def active(reservation: Reservation, now: Instant) -> bool:
    """Whether it holds anything now: from its start on, and no longer at its end."""
    return reservation.approved and reservation.start <= now < reservation.end


def holds(reservation: Reservation) -> Amounts:
    """The whole, or what it shrank to."""
    return reservation.amounts if reservation.shrunk_to is None else reservation.shrunk_to


def lay_out(tree: Tree, sums: Sums, reservations: Iterable[Reservation], before: Sums) -> None:
    """Count reservations in sums that hold no lease yet; those that had begun `before` are counted as begun."""
    known = [one for one in reservations if one.approved and one.pool in tree.policy.pools]
    ids_begun = {key.period for key, _ in before.of_kind("window")}
    for reservation in known:
        if reservation.id in ids_begun:
            open_window(tree, sums, reservation)
        else:
            sums.add(start_key(tree.policy.root(reservation.pool), reservation.start), 1)
    for reservation in known:
        count_ahead(tree, sums, reservation, holds(reservation))


def open_window(tree: Tree, sums: Sums, reservation: Reservation) -> None:
    """It has begun: from now on it counts as use of its pool."""
    held = holds(reservation)
    for resource, amount in reservation.amounts.items():
        if amount:
            sums[SumKey("window", reservation.pool, resource, "", reservation.id)] = reservation.end
            reserved = held.get(resource, 0)
            count_reserved(tree, sums, reservation.pool, resource, reservation.id, reserved=reserved)


def count_ahead(tree: Tree, sums: Sums, reservation: Reservation, amounts: Amounts, sign: int = 1) -> None:
    """At every start to come inside the window."""
    change = tree.add if sign > 0 else tree.remove
    for start in sums.starts(tree.policy.root(reservation.pool)):
        if reservation.start <= start < reservation.end:
            change(sums, reservation.pool, amounts, str(start))


def drop_start(policy: Policy, sums: Sums, root: str, start: Instant, *, all_of_them: bool = False) -> None:
    """One reservation fewer begins then; with the last one, nobody asks any more what is in use then."""
    key = start_key(root, start)
    if sums[key] > 1 and not all_of_them:
        sums.add(key, -1)
        return
    sums[key] = 0
    tree = set(policy.tree(root))
    for used in [used for used, _ in sums.of_kind("used") if used.period == str(start) and used.pool in tree]:
        sums[used] = 0


def start_key(root: str, start: Instant) -> SumKey:
    return SumKey("starts", "", root, "", str(start))


# -- inside -------------------------------------------------------------------------------------------------------


def _count_at(tree: Tree, sums: Sums, lease: Lease, pool: str, start: Instant, sign: int) -> None:
    """What is inside a reservation counts by itself only once that is over."""
    amounts = {}
    for resource, amount in lease.amounts.items():
        window = window_of(tree.policy, sums, lease, pool, resource)
        if window is None or window[1] <= start:
            amounts[resource] = amount
    _count_used(tree, sums, pool, amounts, sign, str(start))


def _count_used(tree: Tree, sums: Sums, pool: str, amounts: Amounts, sign: int, when: str = "") -> None:
    change = tree.add if sign > 0 else tree.remove
    change(sums, pool, amounts, when)


def _count_held(policy: Policy, sums: Sums, lease: Lease, pool: str, sign: int) -> None:
    """Every pool on the path that states a cap counts its own subtree."""
    if lease.reservation is not None or not lease.person:
        return
    for key, amount in cap_keys(lease).items():
        for name in policy.path(pool):
            if key in policy.pools[name].person:
                sums.add(SumKey("held", name, key, lease.person), sign * amount)
