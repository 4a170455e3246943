"""Hard budget overruns: what to end, and when, once a budget has nothing left while leases still run.

At booking no budget can be overdrawn; a cut, a correction, a grant that expires, or leases that roll over into a
new period can do it later. Those leases get notice and `grace` from the moment the hours are used up (QUOTA.md §7).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hub_ext.core.clock import Instant
from hub_ext.quota.budget import BudgetOf, Budgets, BudgetState, binding
from hub_ext.quota.model import Lease


def overrun_due(budgets: Budgets, leases: Sequence[Lease], now: Instant) -> list[Instant]:
    """The instants after `now` at which budgets have to be looked at again."""
    dues: list[Instant] = [grant.until for grant in budgets.grants if grant.until > now]
    for state, running in _bound(budgets, leases, now):
        dues.append(state.window.end)
        if state.left < 0:
            rest = state.limit - state.used
            if rest > 0:
                dues.append(now + -(-rest // sum(lease.cost for lease in running)))
    return dues


def overrun_cuts(
    budgets: Budgets, leases: Sequence[Lease], now: Instant
) -> list[tuple[Lease, Instant, dict[str, Any]]]:
    """The leases that must end earlier than they may now: (lease, its new end, facts of the budget)."""
    cuts: dict[str, tuple[Lease, Instant, dict[str, Any]]] = {}
    for state, running in _bound(budgets, leases, now):
        if state.left >= 0 or state.used < state.limit:
            continue
        for lease in running:
            pool = next(name for name in lease.path if name in budgets.policy.pools)
            end = now + budgets.policy.session(pool).grace
            if end < lease.ends_at and lease.id not in cuts:
                cuts[lease.id] = (lease, end, _facts(state))
    return list(cuts.values())


def _bound(
    budgets: Budgets, leases: Sequence[Lease], now: Instant
) -> Iterator[tuple[BudgetState, list[Lease]]]:
    running: dict[tuple[str, str, str], tuple[BudgetOf, list[Lease]]] = {}
    for lease in leases:
        if lease.cost and lease.started_at is not None:
            for of in binding(budgets.policy, lease.path, lease.person):
                running.setdefault((of.pool, of.budget.name, of.person), (of, []))[1].append(lease)
    for of, bound in running.values():
        state = budgets.state(of, now)
        if state is not None:
            yield state, bound


def _facts(state: BudgetState) -> dict[str, Any]:
    return {
        "kind": "budget",
        "pool": state.of.pool,
        "period": str(state.of.budget.period),
        "budget_person": state.of.person or None,
    }
