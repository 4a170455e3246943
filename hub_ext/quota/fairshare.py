"""How far a pool lives beyond its quota, as one number: Kueue's dominant resource share (KEP-1714)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from hub_ext.core.amounts import Amounts, family
from hub_ext.quota.model import Policy
from hub_ext.quota.sums import SumKey, Sums
from hub_ext.quota.tree import Tree, tree_of


@dataclass(frozen=True, slots=True)
class Share:
    """`value` None means infinite (a pool of weight 0 that borrows); `dominant` the resource family, if any."""

    value: Fraction | None
    dominant: str | None

    @property
    def shown(self) -> int | str:
        """The ceiling, or `"inf"`."""
        return "inf" if self.value is None else math.ceil(self.value)

    @property
    def order(self) -> tuple[bool, Fraction]:
        """The lowest share first, infinite ones last."""
        return self.value is None, self.value or Fraction(0)


NOTHING = Share(Fraction(0), None)


def share(tree: Tree, sums: Sums, pool: str, added: Mapping[SumKey, int] | None = None) -> Share:
    """Thousandths of what is lendable that the pool borrows, by its dominant family, over its weight.

    `added` is counted as used as well: what the pool's share would be.
    """
    parent = tree.policy.pools[pool].parent
    if parent is None:
        return NOTHING
    added = added or {}
    over: dict[str, int] = {}
    for resource in _shares_of(tree.policy).stated_in(pool):
        used = tree.used(sums, pool, resource) + added.get(SumKey("used", pool, resource), 0)
        beyond = used - tree.subtree(pool, resource)
        if beyond > 0:
            over[family(resource)] = over.get(family(resource), 0) + beyond
    return _dominant(over, _shares_of(tree.policy).lendable(parent), Fraction(tree.policy.pools[pool].weight))


def own_share(tree: Tree, pool: str, own: Amounts) -> Share:
    """The share of a pool's own leases among its children: as if they were a child of weight 1 with its nominal."""
    over: dict[str, int] = {}
    for resource, used in own.items():
        if resource in tree.policy.pools[pool].quota:
            beyond = used - tree.policy.nominal(pool, resource)
            if beyond > 0:
                over[family(resource)] = over.get(family(resource), 0) + beyond
    return _dominant(over, _shares_of(tree.policy).lendable(pool), Fraction(1))


def _dominant(over: Mapping[str, int], lendable: Mapping[str, int], weight: Fraction) -> Share:
    best, dominant = Fraction(0), None
    for name in sorted(over):
        if lendable.get(name):
            ratio = Fraction(1000 * over[name], lendable[name])
            if ratio > best:
                best, dominant = ratio, name
    if weight == 0:
        return Share(None, dominant) if over else NOTHING
    return Share(best / weight, dominant) if over else NOTHING


class _Shares:
    """What shares need of a policy, worked out once."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.stated_in = cache(self._stated_in)
        self.lendable = cache(self._lendable)

    def _stated_in(self, pool: str) -> tuple[str, ...]:
        """The resources that the pool or anything below it states."""
        found = {resource for name in self.policy.subtree(pool) for resource in self.policy.pools[name].quota}
        return tuple(sorted(found))

    def _lendable(self, parent: str) -> Mapping[str, int]:
        """By family: the potential of the parent, over all resources stated anywhere in the tree."""
        lendable: dict[str, int] = {}
        for resource in self.policy.stated(parent):
            name = family(resource)
            lendable[name] = lendable.get(name, 0) + tree_of(self.policy).potential(parent, resource)
        return lendable


def _shares_of(policy: Policy) -> _Shares:
    shares: _Shares | None = policy.derived.get("shares")
    if shares is None:
        shares = policy.derived["shares"] = _Shares(policy)
    return shares
