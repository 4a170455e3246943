"""What `hub-ext simulate`, the pages and the API tell of pools and budgets, as numbers. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hub_ext.core.amounts import gpu_seconds
from hub_ext.core.clock import Instant
from hub_ext.quota.budget import BudgetOf, BudgetState
from hub_ext.quota.fairshare import share
from hub_ext.quota.ledger import Ledger


def pool_numbers(ledger: Ledger, pool: str) -> dict[str, Any]:
    """The pool's share and, for every resource stated in its tree, all numbers in base units."""
    tree, sums, policy = ledger.tree, ledger.sums, ledger.policy
    numbers = {}
    for resource in policy.stated(pool):
        used, subtree = tree.used(sums, pool, resource), tree.subtree(pool, resource)
        numbers[resource] = {
            "nominal": policy.nominal(pool, resource),
            "subtree": subtree,
            "local": tree.local(pool, resource),
            "used": used,
            "g": tree.guaranteed(sums, pool, resource),
            "available": tree.available(sums, pool, resource),
            "potential": tree.potential(pool, resource),
            "over": max(0, used - subtree),
        }
    its_share = share(tree, sums, pool)
    return {"share": its_share.shown, "dominant": its_share.dominant, "resources": numbers}


def budget_states(ledger: Ledger, now: Instant) -> Iterator[BudgetState]:
    """Every running period of a pool's budget, and of each person's that was ever touched."""
    people: dict[tuple[str, str], set[str]] = {}
    for key in ledger.sums:
        if key.kind in ("spent", "committed", "corrected") and key.person:
            people.setdefault((key.pool, key.item), set()).add(key.person)
    for grant in ledger.grants:
        if grant.person:
            people.setdefault((grant.pool, grant.budget), set()).add(grant.person)
    for pool in ledger.policy.pools.values():
        for budget in pool.budgets:
            names = sorted(people.get((pool.name, budget.name), ())) if budget.each_person else [""]
            for name in names:
                state = ledger.budgets.state(BudgetOf(pool.name, budget, name), now)
                if state is not None:
                    yield state


def budget_numbers(ledger: Ledger, now: Instant) -> list[dict[str, Any]]:
    """The budgets in GPU-seconds."""
    return [
        {
            "pool": state.of.pool,
            "person": state.of.person or None,
            "period": str(state.of.budget.period),
            "limit": gpu_seconds(state.limit),
            "used": gpu_seconds(state.used),
            "committed": gpu_seconds(state.committed),
            "left": gpu_seconds(state.left),
        }
        for state in budget_states(ledger, now)
    ]
