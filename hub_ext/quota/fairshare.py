"""How far a pool lives beyond its quota, as one number: Kueue's dominant resource share (KEP-1714)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from hub_ext.core.amounts import family
from hub_ext.quota.sums import Sums
from hub_ext.quota.tree import Tree


@dataclass(frozen=True, slots=True)
class Share:
    """`value` None means infinite (a pool of weight 0 that borrows); `dominant` the resource family, if any."""

    value: Fraction | None
    dominant: str | None

    @property
    def shown(self) -> int | str:
        """The ceiling, or `"inf"`."""
        return "inf" if self.value is None else math.ceil(self.value)


def share(tree: Tree, sums: Sums, pool: str) -> Share:
    """Thousandths of what is lendable that the pool borrows, by its dominant family, over its weight."""
    policy = tree.policy
    parent = policy.pools[pool].parent
    if parent is None:
        return Share(Fraction(0), None)
    own = {resource for name in policy.subtree(pool) for resource in policy.pools[name].quota}
    borrowed: dict[str, int] = {}
    lendable: dict[str, int] = {}
    for resource in policy.stated(pool):
        name = family(resource)
        lendable[name] = lendable.get(name, 0) + tree.potential(parent, resource)
        if resource in own:
            over = max(0, tree.used(sums, pool, resource) - tree.subtree(pool, resource))
            borrowed[name] = borrowed.get(name, 0) + over
    best, dominant = Fraction(0), None
    for name in sorted(borrowed):
        if borrowed[name] and lendable[name]:
            ratio = Fraction(1000 * borrowed[name], lendable[name])
            if ratio > best:
                best, dominant = ratio, name
    weight = Fraction(policy.pools[pool].weight)
    if weight == 0:
        return Share(None, dominant) if any(borrowed.values()) else Share(Fraction(0), None)
    return Share(best / weight, dominant)
