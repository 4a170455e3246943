"""The tree's arithmetic once more, word by word from QUOTA.md §3 and from nothing else: slow, recursive, without sums.

What is in use is given as own amounts by (pool, resource). Property tests compare the real thing with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import ceil

from hub_ext.quota.model import Lease, Policy

Own = Mapping[tuple[str, str], int]


def own_amounts(policy: Policy, leases: Iterable[Lease]) -> dict[tuple[str, str], int]:
    """What each pool's own leases hold; those of a pool that is gone count at the nearest one above that is not."""
    own: dict[tuple[str, str], int] = defaultdict(int)
    for lease in leases:
        if lease.live:
            for pool in lease.path:
                if pool in policy.pools:
                    for resource, amount in lease.amounts.items():
                        own[pool, resource] += amount
                    break
    return own


class NaiveTree:
    def __init__(self, policy: Policy, own: Own) -> None:
        self.policy = policy
        self.own = own

    def children(self, n: str) -> list[str]:
        return [name for name, pool in self.policy.pools.items() if pool.parent == n]

    def parent(self, n: str) -> str | None:
        return self.policy.pools[n].parent

    def nominal(self, n: str, r: str) -> int:
        quota = self.policy.pools[n].quota.get(r)
        return 0 if quota is None else quota.nominal

    def lend(self, n: str, r: str) -> int | None:
        quota = self.policy.pools[n].quota.get(r)
        return None if quota is None else quota.lend

    def borrow(self, n: str, r: str) -> int | None:
        quota = self.policy.pools[n].quota.get(r)
        return None if quota is None else quota.borrow

    def subtree(self, n: str, r: str) -> int:
        return self.nominal(n, r) + sum(self.subtree(c, r) - self.local(c, r) for c in self.children(n))

    def local(self, n: str, r: str) -> int:
        lend = self.lend(n, r)
        return 0 if lend is None else max(0, self.subtree(n, r) - lend)

    def used(self, n: str, r: str) -> int:
        return self.own.get((n, r), 0) + sum(
            max(0, self.used(c, r) - self.local(c, r)) for c in self.children(n)
        )

    def available(self, n: str, r: str) -> int:
        parent = self.parent(n)
        subtree, local, used, borrow = (
            self.subtree(n, r),
            self.local(n, r),
            self.used(n, r),
            self.borrow(n, r),
        )
        if parent is None:
            return subtree - used
        p = self.available(parent, r)
        if borrow is not None:
            p = min(p, (subtree - local) - max(0, used - local) + borrow)
        return max(0, local - used) + p

    def potential(self, n: str, r: str) -> int:
        return NaiveTree(self.policy, {}).available(n, r)

    def fits(self, n: str, r: str, v: int) -> bool:
        parent = self.parent(n)
        subtree, local, used, borrow = (
            self.subtree(n, r),
            self.local(n, r),
            self.used(n, r),
            self.borrow(n, r),
        )
        if parent is None:
            return v <= subtree - used
        rest = v - max(0, local - used)
        if rest <= 0:
            return True
        if borrow is not None and rest > (subtree - local) - max(0, used - local) + borrow:
            return False
        return self.fits(parent, r, rest)

    # -- whole trees ------------------------------------------------------------------------------------------

    def root(self, n: str) -> str:
        parent = self.parent(n)
        return n if parent is None else self.root(parent)

    def below(self, n: str) -> list[str]:
        return [n, *(name for child in self.children(n) for name in self.below(child))]

    def stated_below(self, n: str) -> set[str]:
        return {resource for name in self.below(n) for resource in self.policy.pools[name].quota}

    def home(self, n: str, r: str) -> str | None:
        at: str | None = n
        while at is not None:
            if r in self.policy.pools[at].quota:
                return at
            at = self.parent(at)
        return self.root(n) if r in self.stated_below(self.root(n)) else None

    def share(self, n: str) -> tuple[int | str, str | None]:
        """What is shown, and the dominant family."""
        parent = self.parent(n)
        if parent is None:
            return 0, None
        stated = self.stated_below(self.root(n))
        ratios: dict[str, Fraction] = {}
        borrows = False
        for family in ("cpu", "gpu", "memory"):
            of_family = [r for r in stated if r.split(".")[0] == family]
            over = sum(
                max(0, self.used(n, r) - self.subtree(n, r)) for r in of_family if r in self.stated_below(n)
            )
            lendable = sum(self.potential(parent, r) for r in of_family)
            borrows = borrows or over > 0
            ratios[family] = Fraction(1000 * over, lendable) if lendable else Fraction(0)
        most = max(ratios.values())
        dominant = (
            min((family for family, ratio in ratios.items() if ratio == most), default=None) if most else None
        )
        weight = Fraction(self.policy.pools[n].weight)
        if not weight:
            return ("inf" if borrows else 0), dominant
        return ceil(most / weight), dominant
