"""The tree's arithmetic: what a pool holds, lends, borrows and may still take (QUOTA.md §3).

Follows Kueue's `pkg/cache/scheduler/resource_node.go` (KEP-79). All amounts are integers in base units.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from hub_ext.core.amounts import Amounts
from hub_ext.quota.model import Policy
from hub_ext.quota.sums import SumKey, Sums


def tree_of(policy: Policy) -> Tree:
    """The policy's tree, worked out once."""
    tree: Tree | None = policy.derived.get("tree")
    if tree is None:
        tree = policy.derived["tree"] = Tree(policy)
    return tree


class Tree:
    """The numbers that depend on the policy alone, and the functions that need the sums beside them."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.subtree = cache(self._subtree)
        self.local = cache(self._local)
        self.potential = cache(self._potential)

    def _subtree(self, pool: str, resource: str) -> int:
        """The quota of the pool and what its children lend upwards."""
        return self.policy.nominal(pool, resource) + sum(
            self.subtree(child, resource) - self.local(child, resource)
            for child in self.policy.children(pool)
        )

    def _local(self, pool: str, resource: str) -> int:
        """What the pool never lends upwards."""
        quota = self.policy.pools[pool].quota.get(resource)
        if quota is None or quota.lend is None:
            return 0
        return max(0, self.subtree(pool, resource) - quota.lend)

    def _potential(self, pool: str, resource: str) -> int:
        """`available` with nothing used: the most this pool could ever hold."""
        parent = self.policy.pools[pool].parent
        if parent is None:
            return self.subtree(pool, resource)
        most = self.local(pool, resource) + self.potential(parent, resource)
        borrow = self._borrow(pool, resource)
        return most if borrow is None else min(self.subtree(pool, resource) + borrow, most)

    def _borrow(self, pool: str, resource: str) -> int | None:
        quota = self.policy.pools[pool].quota.get(resource)
        return quota.borrow if quota else None

    def used(self, sums: Sums, pool: str, resource: str, when: str = "") -> int:
        """What is in use now, or (`when`, the instant as text) at a window's start to come."""
        return sums[SumKey("used", pool, resource, "", when)]

    def guaranteed(self, sums: Sums, pool: str, resource: str) -> int:
        """g(pool, resource): what guaranteed leases draw on this pool's own nominal."""
        return sums[SumKey("guaranteed", pool, resource)]

    def add(self, sums: Sums, pool: str, amounts: Amounts, when: str = "") -> None:
        """Add a lease's amounts at its pool; what is not kept locally passes upwards."""
        for key, amount in self.additions(sums, pool, amounts, when):
            sums.add(key, amount)

    def additions(self, sums: Sums, pool: str, amounts: Amounts, when: str = "") -> list[tuple[SumKey, int]]:
        """What adding a lease's amounts at its pool adds to which sums."""
        additions = []
        for resource, amount in self._limited(pool, amounts).items():
            rest = amount
            for name in self.policy.path(pool):
                key = SumKey("used", name, resource, "", when)
                additions.append((key, rest))
                rest -= max(0, self.local(name, resource) - sums[key])
                if rest <= 0:
                    break
        return additions

    def remove(self, sums: Sums, pool: str, amounts: Amounts, when: str = "") -> None:
        """Undo `add`."""
        for resource, amount in self._limited(pool, amounts).items():
            rest = amount
            for name in self.policy.path(pool):
                key = SumKey("used", name, resource, "", when)
                over = max(0, sums[key] - self.local(name, resource))
                sums.add(key, -rest)
                rest = min(rest, over)
                if rest <= 0:
                    break

    def available(self, sums: Sums, pool: str, resource: str, when: str = "") -> int:
        """What is reported as free for the pool; negative after a cut."""
        used = self.used(sums, pool, resource, when)
        subtree, local = self.subtree(pool, resource), self.local(pool, resource)
        parent = self.policy.pools[pool].parent
        if parent is None:
            return subtree - used
        from_parent = self.available(sums, parent, resource, when)
        borrow = self._borrow(pool, resource)
        if borrow is not None:
            from_parent = min(from_parent, (subtree - local) - max(0, used - local) + borrow)
        return max(0, local - used) + from_parent

    def fits(self, sums: Sums, pool: str, resource: str, amount: int, when: str = "") -> bool:
        """Whether the amount may be added; a parent in the red never eats what was never lent to it."""
        return self.short_at(sums, pool, resource, amount, when) is None

    def short_at(self, sums: Sums, pool: str, resource: str, amount: int, when: str = "") -> str | None:
        """The first pool upwards at which the amount does not fit, None where it fits."""
        if resource not in self.policy.stated(pool):
            return None
        rest = amount
        for name in self.policy.path(pool):
            used = self.used(sums, name, resource, when)
            subtree, local = self.subtree(name, resource), self.local(name, resource)
            if self.policy.pools[name].parent is None:
                return None if rest <= subtree - used else name
            rest -= max(0, local - used)
            if rest <= 0:
                return None
            borrow = self._borrow(name, resource)
            if borrow is not None and rest > (subtree - local) - max(0, used - local) + borrow:
                return name
        raise AssertionError("a path ends at a root")

    def lender(self, sums: Sums, pool: str, borrowed: Amounts) -> str:
        """The nearest pool upwards, `pool` included, that stays within its quota after booking; else the root."""
        added = dict(self.additions(sums, pool, borrowed))
        resources = self._limited(pool, borrowed)
        for name in self.policy.path(pool):
            keys = [SumKey("used", name, resource) for resource in resources]
            if all(sums[key] + added.get(key, 0) <= self.subtree(name, key.item) for key in keys):
                return name
        return self.policy.root(pool)

    def _limited(self, pool: str, amounts: Amounts) -> Mapping[str, int]:
        stated = self.policy.stated(pool)
        return {resource: amount for resource, amount in amounts.items() if amount and resource in stated}
