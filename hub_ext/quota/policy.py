"""The decision: may this ask start now, wait, or never (QUOTA.md §4). Edit this file to change a rule.

A refusal is what waiting cannot cure. The checks are made in the order of `decide`; the first that objects wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hub_ext.core.amounts import Amounts, gpu_seconds, is_gpu
from hub_ext.core.clock import MINUTE, Instant
from hub_ext.core.decision import Admit, Code, Decision, Refuse, Wait
from hub_ext.core.people import Person
from hub_ext.quota.budget import Budgets, States
from hub_ext.quota.budgeted import bounded_by_budgets, extended_by_budgets, soft_warnings
from hub_ext.quota.counting import cap_keys, counts_in, is_guaranteed, lender_of
from hub_ext.quota.model import SERVER, Ask, Grant, Lease, LeaseState, Node, Policy, Reservation
from hub_ext.quota.reserved import (
    End as End,
)
from hub_ext.quota.reserved import (
    Place,
    before_windows,
    lease_window,
    not_begun,
    place_of,
    window_facts,
    within,
)
from hub_ext.quota.sums import SumKey, Sums
from hub_ext.quota.tree import Tree


@dataclass(frozen=True)
class Snapshot:
    """All that a decision looks at. Deciding changes none of it.

    `nodes` None means that no node limits anything. `own` holds the asking person's live leases, `reservations` all
    that are not over.
    """

    tree: Tree
    sums: Sums
    nodes: Sequence[Node] | None = None
    grants: Sequence[Grant] = ()
    people: Mapping[str, Person] = field(default_factory=dict)
    own: Sequence[Lease] = ()
    reservations: Sequence[Reservation] = ()
    budget_states: States | None = field(default=None, compare=False, repr=False)
    """What was found of budgets while nothing changed, for whoever decides many times."""

    @property
    def policy(self) -> Policy:
        return self.tree.policy

    @property
    def budgets(self) -> Budgets:
        return Budgets(self.policy, self.sums, self.grants, self.budget_states)


def decide(snapshot: Snapshot, ask: Ask, now: Instant) -> Decision:
    """Admit, wait or refuse; pure, and cheap however many leases there are."""
    # 1-2. What waiting cannot cure.
    refusal = not_a_member(snapshot, ask) or profile_not_allowed(snapshot, ask)
    if refusal:
        return refusal
    place = place_of(snapshot.tree, snapshot.sums, snapshot.reservations, ask, now)
    if place is None and ask.reservation is not None:
        ask = replace(ask, reservation=None)
    refusal = (
        too_big_for_pool(snapshot, ask, place)
        or too_big_for_person(snapshot, ask)
        or too_big_for_any_node(snapshot, ask)
    )
    if refusal:
        return refusal
    # 3. The person's own caps.
    wait: Wait | Refuse | None = person_at_cap(snapshot, ask)
    if wait:
        return wait
    # 4. Hours: which rate applies depends on how it would be admitted.
    guaranteed = place is not None or is_guaranteed(snapshot.tree, snapshot.sums, ask)
    cost = cost_of(snapshot.policy, ask, guaranteed=guaranteed)
    end = end_time(snapshot, ask, cost, now)
    if isinstance(end, Wait | Refuse):
        return end
    # 5. Windows that are reserved: the ask's own, and those of others. (What does not fit now is for check 6 to say.)
    full = pool_full(snapshot, ask, place)
    end = reserved_soon(snapshot, ask, place, end, now, fits_now=full is None)
    if isinstance(end, Wait):
        return end
    # 6-8. Room in the pools, on a node, and for one more start.
    wait = full or no_node_free(snapshot, ask) or starts_busy(snapshot, ask)
    if wait:
        return wait
    # 9. Tickets that wait before this ask are looked at by `plan`.
    return Admit(
        guaranteed=guaranteed,
        lender=None if guaranteed else lender_of(snapshot.tree, snapshot.sums, ask),
        ends_at=end.at,
        cost=cost,
        node=pick_node(snapshot, ask),
        facts={
            "pool": ask.pool,
            "cost": gpu_seconds(cost),
            "cut_by": end.cut_by,
            "soft": soft_warnings(snapshot.policy, snapshot.budgets, ask, now) if cost else [],
        }
        | ({"reservation": place.reservation.id} if place else {}),
    )


# -- 1, 2: refusals -------------------------------------------------------------------------------------------


def not_a_member(snapshot: Snapshot, ask: Ask) -> Refuse | None:
    person = snapshot.people.get(ask.person)
    if ask.pool in snapshot.policy.pools and person is not None and person.member_of(ask.pool):
        return None
    pools = [name for name in person.pools if name in snapshot.policy.pools] if person else []
    return Refuse(Code.NOT_A_MEMBER, {"person": ask.person, "pool": ask.pool, "pools": pools})


def profile_not_allowed(snapshot: Snapshot, ask: Ask) -> Refuse | None:
    if snapshot.people[ask.person].may_start(ask.profile):
        return None
    return Refuse(Code.PROFILE_NOT_ALLOWED, {"person": ask.person, "pool": ask.pool, "profile": ask.profile})


def too_big_for_pool(snapshot: Snapshot, ask: Ask, place: Place | None = None) -> Refuse | None:
    """Of a GPU class that the policy does not name, nobody can ever have any; inside a reservation, what that holds."""
    held = place.reservation.amounts if place else {}
    classes = snapshot.policy.gpu_classes
    unknown = [
        (resource, amount)
        for resource, amount in sorted(ask.amounts.items())
        if amount and is_gpu(resource) and resource.removeprefix("gpu.") not in classes
    ]
    for resource, amount in _limited(snapshot, ask) + unknown:
        potential = held.get(resource, snapshot.tree.potential(ask.pool, resource))
        if amount > potential:
            facts = {"pool": ask.pool, "resource": resource, "asked": amount, "potential": potential}
            return Refuse(Code.TOO_BIG_FOR_POOL, facts)
    return None


def too_big_for_person(snapshot: Snapshot, ask: Ask) -> Refuse | None:
    if ask.reservation is not None:
        return None
    for key, amount in cap_keys(ask).items():
        cap = snapshot.policy.cap(ask.pool, key)
        if cap is not None and amount > cap[1]:
            facts = {"person": ask.person, "pool": cap[0], "key": key, "asked": amount, "cap": cap[1]}
            return Refuse(Code.TOO_BIG_FOR_PERSON, facts)
    return None


def too_big_for_any_node(snapshot: Snapshot, ask: Ask) -> Refuse | None:
    if snapshot.nodes is None:
        return None
    if any(_open_to(ask, node) and _within(ask, node.capacity) for node in snapshot.nodes):
        return None
    nodes = [node for node in snapshot.nodes if _open_to(ask, node)]
    largest = {r: max((node.capacity.get(r, 0) for node in nodes), default=0) for r in ask.amounts}
    short = next((r for r, amount in sorted(ask.amounts.items()) if amount > largest[r]), None)
    facts = {"asked": dict(ask.amounts), "largest": largest, "resource": short}
    return Refuse(Code.TOO_BIG_FOR_ANY_NODE, facts)


def so_many_guaranteed(snapshot: Snapshot, ask: Ask, count: int, now: Instant) -> bool:
    """Whether so many of the same would be guaranteed, within the person's caps and hours; room is not looked at."""
    if any(held + count * amount > most for _, _, amount, held, most in _caps(snapshot, ask)):
        return False
    together = replace(ask, amounts={name: count * amount for name, amount in ask.amounts.items()})
    if not is_guaranteed(snapshot.tree, snapshot.sums, together):
        return False
    return isinstance(
        end_time(snapshot, ask, count * cost_of(snapshot.policy, ask, guaranteed=True), now), End
    )


# -- 3: the person's caps ---------------------------------------------------------------------------------------


def person_at_cap(snapshot: Snapshot, ask: Ask) -> Wait | None:
    """Names the person's own leases that could be stopped."""
    if ask.reservation is not None:
        return None
    policy = snapshot.policy
    for key, pool, amount, held, most in _caps(snapshot, ask):
        if held + amount > most:
            counted = [
                lease
                for lease in sorted(snapshot.own, key=lambda lease: (lease.ends_at, lease.id))
                if lease.person == ask.person and key in cap_keys(lease) and counts_in(policy, lease, pool)
            ]
            facts = {
                "person": ask.person,
                "pool": pool,
                "key": key,
                "asked": amount,
                "held": held,
                "cap": most,
                "leases": [lease.id for lease in counted],
                "servers": [lease.server for lease in counted],
                "first_end": policy.local(counted[0].ends_at) if counted else None,
            }
            return Wait(Code.PERSON_AT_CAP, facts)
    return None


def _caps(snapshot: Snapshot, ask: Ask) -> Iterator[tuple[str, str, int, int, int]]:
    """What limits the person: key, pool that states it, what is asked, what they hold, and the most they may."""
    for key, amount in cap_keys(ask).items():
        cap = snapshot.policy.cap(ask.pool, key)
        if cap is not None:
            pool, most = cap
            yield key, pool, amount, snapshot.sums[SumKey("held", pool, key, ask.person)], most


# -- 4: hours -----------------------------------------------------------------------------------------------------


def cost_of(policy: Policy, ask: Ask, *, guaranteed: bool) -> int:
    """Millionths of a GPU-second per second."""
    return policy.cost(ask.amounts, policy.rates.guaranteed if guaranteed else policy.rates.borrowed)


def asked_end(policy: Policy, ask: Ask, now: Instant) -> End:
    """The asked minutes within the pool's session bounds; absent means the most."""
    session = policy.session(ask.pool)
    if ask.minutes is None:
        return End(now + session.max)
    asked = ask.minutes * MINUTE
    if asked > session.max:
        return End(now + session.max, _session_name(ask.pool))
    return End(now + max(session.min, asked))


def end_time(snapshot: Snapshot, ask: Ask, cost: int, now: Instant) -> End | Wait | Refuse:
    """When the lease would end by what was asked for and every budget on the path, or why it cannot start."""
    end = asked_end(snapshot.policy, ask, now)
    if not _has_gpu(ask.amounts):
        return end
    path = snapshot.policy.path(ask.pool)
    least = snapshot.policy.session(ask.pool).min
    return bounded_by_budgets(snapshot.policy, snapshot.budgets, path, ask.person, cost, now, end, least)


def _session_name(pool: str) -> dict[str, Any]:
    return {"kind": "session", "pool": pool}


# -- 5: windows that are reserved ---------------------------------------------------------------------------------


def reserved_soon(
    snapshot: Snapshot, ask: Ask, place: Place | None, end: End, now: Instant, *, fits_now: bool
) -> End | Wait:
    """Until when the ask may run beside reservations; a wait where its own has not begun, or too little is left."""
    if place is not None:
        if wait := not_begun(snapshot.policy, ask, place):
            return wait
        end = within(snapshot.policy, place.reservation, end)
    if not fits_now:
        return end
    least = snapshot.policy.session(ask.pool).min
    return before_windows(snapshot.tree, snapshot.sums, snapshot.reservations, ask, end, now, least)


# -- 6-8: room ------------------------------------------------------------------------------------------------------


def pool_full(snapshot: Snapshot, ask: Ask, place: Place | None = None) -> Wait | None:
    """No room in the pools; inside a reservation, not enough left of what it holds."""
    for resource, amount in _inside(ask, place):
        assert place is not None
        if amount > place.left[resource]:
            short: dict[str, Any] = {
                "pool": ask.pool,
                "short_at": place.reservation.pool,
                "resource": resource,
                "asked": amount,
                "available": place.left[resource],
            }
            return Wait(Code.POOL_FULL, short)
    for resource, amount in _limited(snapshot, ask):
        if place is not None and resource in place.reservation.amounts:
            continue
        short_at = snapshot.tree.short_at(snapshot.sums, ask.pool, resource, amount)
        if short_at is not None:
            facts = {
                "pool": ask.pool,
                "short_at": short_at,
                "resource": resource,
                "asked": amount,
                "available": snapshot.tree.available(snapshot.sums, ask.pool, resource),
            }
            return Wait(Code.POOL_FULL, facts)
    return None


def free_on(snapshot: Snapshot, node: Node) -> dict[str, int]:
    return {
        resource: capacity - snapshot.sums[SumKey("taken", "", resource, node.name)]
        for resource, capacity in node.capacity.items()
    }


def no_node_free(snapshot: Snapshot, ask: Ask) -> Wait | None:
    if snapshot.nodes is None or pick_node(snapshot, ask) is not None:
        return None
    return Wait(
        Code.NO_NODE_FREE, {"pool": ask.pool, "asked": dict(ask.amounts), "nodes": len(snapshot.nodes)}
    )


def pick_node(snapshot: Snapshot, ask: Ask) -> str | None:
    """The node with the fewest free GPUs that has the room, then by name."""
    fitting = []
    wanted = [(resource, amount) for resource, amount in ask.amounts.items() if amount]
    for node in snapshot.nodes or ():
        if not (node.ready and _open_to(ask, node) and _has_free(snapshot, node, wanted)):
            continue
        free = free_on(snapshot, node)
        fitting.append((sum(amount for resource, amount in free.items() if is_gpu(resource)), node.name))
    return min(fitting)[1] if fitting else None


def _has_free(snapshot: Snapshot, node: Node, wanted: Sequence[tuple[str, int]]) -> bool:
    for resource, amount in wanted:
        if amount > node.capacity.get(resource, 0) - snapshot.sums[SumKey("taken", "", resource, node.name)]:
            return False
    return True


def _open_to(ask: Ask, node: Node) -> bool:
    return not node.only_gpus or any(is_gpu(resource) and amount for resource, amount in ask.amounts.items())


def starts_busy(snapshot: Snapshot, ask: Ask) -> Wait | None:
    limit = snapshot.policy.queue.starts
    starting = snapshot.sums[SumKey("starting")]
    if ask.kind != SERVER or starting < limit:
        return None
    return Wait(Code.STARTS_BUSY, {"pool": ask.pool, "starts": starting, "limit": limit})


# -- beside the checks ------------------------------------------------------------------------------------------


def decide_extension(snapshot: Snapshot, lease: Lease, minutes: int, now: Instant) -> End | Wait | Refuse:
    """Until when a running lease may go on: the hours check for the added time, up to now + session.max."""
    policy = snapshot.policy
    if lease.pool not in policy.pools:
        return Refuse(Code.NOT_A_MEMBER, {"person": lease.person, "pool": lease.pool, "pools": []})
    wished = lease.ends_at + minutes * MINUTE
    latest = now + policy.session(lease.pool).max
    end = End(wished) if wished <= latest else End(latest, _session_name(lease.pool))
    if end.at <= lease.ends_at:
        return replace(end, at=lease.ends_at)
    # What the lease itself has committed is its own to spend: look at the time after its end only.
    extended = (
        extended_by_budgets(policy, snapshot.budgets, lease, end, now) if _has_gpu(lease.amounts) else end
    )
    return _extended_beside_windows(snapshot, lease, extended) if isinstance(extended, End) else extended


def _extended_beside_windows(snapshot: Snapshot, lease: Lease, end: End) -> End | Wait:
    window = lease_window(snapshot.tree, snapshot.sums, lease)
    if window is not None and end.at > window[1]:
        facts = window_facts(snapshot.policy, snapshot.reservations, lease, window)
        if window[1] <= lease.ends_at:
            return Wait(Code.RESERVED_SOON, facts | {"pool": lease.pool, "resource": None})
        end = End(window[1], {"kind": "reservation"} | facts)
    return before_windows(
        snapshot.tree, snapshot.sums, snapshot.reservations, lease, end, lease.ends_at, least=1
    )


def first_end(decision: Decision, leases: Iterable[Lease], policy: Policy) -> Decision:
    """A wait for room, with the end of the first lease that holds some of what is asked for."""
    return first_end_among(decision, sorted(leases, key=lambda lease: lease.ends_at), policy)


def first_end_among(decision: Decision, by_end: Iterable[Lease], policy: Policy) -> Decision:
    """As `first_end`, of leases that come the first to end first; no more of them are looked at than are needed."""
    if not isinstance(decision, Wait) or decision.code not in (Code.POOL_FULL, Code.NO_NODE_FREE):
        return decision
    tree = set(policy.tree(str(decision.facts["pool"])))
    if decision.code is Code.POOL_FULL:
        wanted = {str(decision.facts["resource"])}
    else:
        wanted = {resource for resource, amount in decision.facts["asked"].items() if amount}
        if any(is_gpu(resource) for resource in wanted):
            wanted = {resource for resource in wanted if is_gpu(resource)}
    ends = (
        lease.ends_at
        for lease in by_end
        if lease.state is not LeaseState.RELEASED
        and any(lease.amounts.get(resource) for resource in wanted)
        and (decision.code is Code.NO_NODE_FREE or lease.path[-1] in tree)
    )
    at = next(ends, None)
    first = None if at is None else policy.local(at)
    return replace(decision, facts={**decision.facts, "first_end": first})


def _limited(snapshot: Snapshot, ask: Ask) -> list[tuple[str, int]]:
    """The asked resources that any pool of the tree states; the others only the nodes limit."""
    stated = snapshot.policy.stated(ask.pool)
    return [
        (resource, amount)
        for resource, amount in sorted(ask.amounts.items())
        if amount and resource in stated
    ]


def _inside(ask: Ask, place: Place | None) -> list[tuple[str, int]]:
    """What the ask takes of its reservation, once that has begun."""
    if place is None or not place.begun:
        return []
    return [(resource, amount) for resource, amount in sorted(ask.amounts.items()) if resource in place.left]


def _has_gpu(amounts: Amounts) -> bool:
    return any(is_gpu(resource) and amount for resource, amount in amounts.items())


def _within(ask: Ask, room: Mapping[str, int]) -> bool:
    return all(amount <= room.get(resource, 0) for resource, amount in ask.amounts.items() if amount)
