"""Copies of the quota's state on which plans are tried out. Pure.

`Room` answers the question that is asked most often: have quota and one machine the room? `Stage` beside that decides and
books as the ledger does. Neither changes what it was made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from hub_ext.core.amounts import Amounts, is_gpu
from hub_ext.core.clock import DAY, Instant
from hub_ext.core.decision import Admit, Decision
from hub_ext.core.people import Person
from hub_ext.quota.budget import States
from hub_ext.quota.counting import add_to_sums, charged_pool, is_guaranteed, remove_from_sums
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import Ask, Grant, Lease, Node, Reservation
from hub_ext.quota.policy import Snapshot, decide, so_many_guaranteed
from hub_ext.quota.sums import SumKey, Sums
from hub_ext.quota.tree import Tree

Shape = tuple[str, tuple[tuple[str, int], ...]]
"""Pool and amounts of an ask: two of one shape find the same room."""


def shape_of(ask: Ask) -> Shape:
    return ask.pool, tuple(sorted((name, amount) for name, amount in ask.amounts.items() if amount))


class Room:
    """What is used of the pools and free on the machines."""

    def __init__(self, tree: Tree, sums: Sums, nodes: Sequence[Node] | None) -> None:
        self.tree = tree
        self.policy = tree.policy
        self.sums = sums
        self.nodes = {node.name: node for node in nodes or () if node.ready}
        self._free: dict[str, dict[str, int]] | None = None
        if nodes is not None:
            self._free = {name: dict(node.capacity) for name, node in self.nodes.items()}
            for key, taken in sums.of_kind("taken"):
                if key.item in self._free.get(key.person, ()):
                    self._free[key.person][key.item] -= taken
        self._with_gpus = {name for name, free in (self._free or {}).items() if _any_gpu(free)}
        """The machines that have any GPU free: in a full centre few, and most asks are for GPUs."""
        self._own: dict[str, dict[str, int]] = {}

    def copy_room(self) -> Room:
        copied = Room.__new__(Room)
        copied.tree, copied.policy, copied.nodes = self.tree, self.policy, self.nodes
        copied.sums = self.sums.copy()
        copied._free = None if self._free is None else {name: dict(free) for name, free in self._free.items()}
        copied._with_gpus = set(self._with_gpus)
        copied._own = {pool: dict(own) for pool, own in self._own.items()}
        return copied

    # -- looking -------------------------------------------------------------------------------------------------

    def guaranteed(self, ask: Ask) -> bool:
        return is_guaranteed(self.tree, self.sums, ask)

    def own_amounts(self, pool: str) -> Amounts:
        """What the leases of the pool itself hold, without those of pools below it."""
        return self._own.get(pool, {})

    def lacking(self, ask: Ask) -> list[str]:
        """The asked resources for which the quota has no room."""
        return [
            resource
            for resource, amount in ask.amounts.items()
            if amount and self.tree.short_at(self.sums, ask.pool, resource, amount) is not None
        ]

    def has_room(self, ask: Ask) -> bool:
        return not self.lacking(ask) and self.has_machine(ask)

    def count_fitting(self, ask: Ask, most: int) -> int:
        """For how many of the same there is room, one beside the other; `most` is as far as it is counted."""
        count, kept = 0, list[Lease]()
        while count < most and self.has_room(ask):
            count += 1
            if count < most:
                kept.append(self.keep(ask))
        for lease in kept:
            self.remove(lease)
        return count

    def has_machine(self, ask: Ask) -> bool:
        return self._free is None or self._fitting(ask) is not None

    def fits_on(self, node: str, ask: Ask) -> bool:
        return (
            node in self.nodes
            and _within(ask.amounts, self.free(node))
            and _open_to(ask.amounts, self.nodes[node])
        )

    def free(self, node: str) -> Mapping[str, int]:
        return (self._free or {}).get(node, {})

    def could_take(self, node: str, ask: Ask) -> bool:
        """Whether the machine, empty, has what is asked for."""
        found = self.nodes.get(node)
        return found is not None and _within(ask.amounts, found.capacity) and _open_to(ask.amounts, found)

    # -- changing ------------------------------------------------------------------------------------------------

    def add(self, lease: Lease) -> None:
        add_to_sums(self.tree, self.sums, lease)
        self._count(lease, 1)

    def remove(self, lease: Lease) -> None:
        remove_from_sums(self.tree, self.sums, lease)
        self._count(lease, -1)

    def keep(self, ask: Ask, on: str | None = None) -> Lease:
        """Count the ask as if it ran: on a machine, or else on the one with the fewest free GPUs that has the room.

        Returns what is counted; to `remove` it undoes that.
        """
        node = on if on is not None or self._free is None else self._fitting(ask, best=True)
        guaranteed = self.guaranteed(ask)
        path = self.policy.path(ask.pool)
        kept = Lease(ask.id, "", ask.pool, path, ask.amounts, "kept", guaranteed, None, 0, 0, 0, 0, node=node)
        self.add(kept)
        return kept

    def promise(self, ask: Ask, times: int = 1) -> None:
        """Set aside the guarantee that somebody whose turn is promised will draw on; undone by a negative number."""
        for resource, amount in ask.amounts.items():
            home = self.policy.home(ask.pool, resource)
            if home is not None and amount:
                self.sums.add(SumKey("guaranteed", home, resource), times * amount)

    # -- inside --------------------------------------------------------------------------------------------------

    def _fitting(self, ask: Ask, *, best: bool = False) -> str | None:
        """A machine with the room, or the one with the fewest free GPUs that has it."""
        found: list[tuple[int, str]] = []
        for name in self._places(ask):
            if not best:
                return name
            free = self.free(name)
            found.append((sum(free[resource] for resource in free if is_gpu(resource)), name))
        return min(found)[1] if found else None

    def _places(self, ask: Ask) -> Iterator[str]:
        """The machines with the room, in no order."""
        for name in self._with_gpus if _any_gpu(ask.amounts) else (self._free or {}):
            if self.fits_on(name, ask):
                yield name

    def _count(self, lease: Lease, sign: int) -> None:
        """In what is kept beside the sums: what a pool's own leases hold, and what is free on machines."""
        pool = charged_pool(self.policy, lease)
        if pool is not None:
            own = self._own.setdefault(pool, {})
            for resource, amount in lease.amounts.items():
                own[resource] = own.get(resource, 0) + sign * amount
        free = (self._free or {}).get(lease.node or "")
        if free is not None:
            for resource, amount in lease.amounts.items():
                if resource in free:
                    free[resource] -= sign * amount
            assert lease.node is not None
            if _any_gpu(free):
                self._with_gpus.add(lease.node)
            else:
                self._with_gpus.discard(lease.node)


class Stage(Room):
    """Room, and all else that a decision looks at: people, hours, and who holds what."""

    def __init__(
        self,
        tree: Tree,
        sums: Sums,
        nodes: Sequence[Node] | None,
        leases: Iterable[Lease],
        grants: Sequence[Grant] = (),
        people: Mapping[str, Person] | None = None,
        reservations: Sequence[Reservation] = (),
    ) -> None:
        # Plain sums: what a store loads looks at every key whether it was loaded.
        super().__init__(tree, Sums(dict(sums.items())), nodes)
        self.all_nodes = nodes
        self.people = people or {}
        self.reservations = reservations
        self.leases: dict[str, Lease] = {}
        self._of: dict[str, dict[str, Lease]] = {}
        self._ledger = Ledger(self.policy, self.sums, grants, longest_slice=DAY)
        self._budget_states: States = {}
        """How budgets stand, worked out once for everybody they bind, until something is booked or charged."""
        for lease in leases:
            self._put(lease)
            pool = charged_pool(self.policy, lease)
            if pool is not None:
                own = self._own.setdefault(pool, {})
                for resource, amount in lease.amounts.items():
                    own[resource] = own.get(resource, 0) + amount

    @classmethod
    def of(cls, snapshot: Snapshot, leases: Iterable[Lease]) -> Stage:
        return cls(
            snapshot.tree,
            snapshot.sums,
            snapshot.nodes,
            leases,
            snapshot.grants,
            snapshot.people,
            snapshot.reservations,
        )

    def copy(self) -> Stage:
        return Stage(
            self.tree,
            self.sums,
            self.all_nodes,
            self.leases.values(),
            self._ledger.grants,
            self.people,
            self.reservations,
        )

    def decide(self, ask: Ask, now: Instant) -> Decision:
        # What has the room is known here already; where nothing has, a decision looks at all, to say why.
        fitting = [self.nodes[name] for name in self._places(ask)]
        return decide(self._snapshot(ask, fitting or self.all_nodes), ask, now)

    def count_guaranteed(self, ask: Ask, most: int, now: Instant) -> int:
        """How many of the same would be guaranteed to the person, whether there is room for them now or not."""
        snapshot, least = self._snapshot(ask, None), 0
        while least < most:
            middle = (least + most + 1) // 2
            if so_many_guaranteed(snapshot, ask, middle, now):
                least = middle
            else:
                most = middle - 1
        return least

    def _snapshot(self, ask: Ask, nodes: Sequence[Node] | None) -> Snapshot:
        return Snapshot(
            self.tree,
            self.sums,
            nodes,
            self._ledger.grants,
            self.people,
            tuple(self._of.get(ask.person, {}).values()),
            self.reservations,
            self._budget_states,
        )

    def book(self, ask: Ask, decision: Admit, now: Instant, *, running: bool = False) -> Lease:
        """`running`: it counts as started at once."""
        lease = self._ledger.book(ask, decision, now)
        self._count(lease, 1)
        if running:
            lease = self._ledger.run(lease, now)
        self._put(lease)
        self._forget()
        return lease

    def release(self, lease: Lease, at: Instant) -> None:
        """What it ran is gone, and its hours are charged."""
        current = self.leases.pop(lease.id, None)
        if current is not None:
            del self._of[lease.person][lease.id]
            self._ledger.release(current, at)
            self._count(current, -1)
            self._forget()

    def count_all_as_started(self) -> None:
        """How many are being started says nothing about later."""
        self.sums[SumKey("starting")] = 0

    def _put(self, lease: Lease) -> None:
        self.leases[lease.id] = lease
        self._of.setdefault(lease.person, {})[lease.id] = lease

    def _forget(self) -> None:
        """Nothing here is ever written down; and hours are no longer what they were."""
        self._budget_states.clear()
        self._ledger.entries.clear()
        self._ledger.charges.clear()


def _any_gpu(amounts: Amounts) -> bool:
    return any(amount > 0 and is_gpu(resource) for resource, amount in amounts.items())


def _within(amounts: Amounts, room: Mapping[str, int]) -> bool:
    return all(amount <= room.get(resource, 0) for resource, amount in amounts.items() if amount)


def _open_to(amounts: Amounts, node: Node) -> bool:
    return not node.only_gpus or _any_gpu(amounts)
