"""What hours mean for one ask or lease: until when they last, and why they let nothing start (QUOTA.md §4, §7). Pure.

Every budget on the path binds: each bounds the end, the earliest wins and is named; among waits the last to renew is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hub_ext.core.amounts import gpu_seconds
from hub_ext.core.clock import Instant
from hub_ext.core.decision import Code, Refuse, Wait
from hub_ext.quota.budget import BudgetOf, Budgets, BudgetState, binding, first_instant, window_at
from hub_ext.quota.model import Ask, Lease, Period, Policy, Term
from hub_ext.quota.reserved import End


def bounded_by_budgets(
    policy: Policy,
    budgets: Budgets,
    path: Sequence[str],
    person: str,
    cost: int,
    now: Instant,
    end: End,
    least: int,
) -> End | Wait | Refuse:
    """Cut `end` by every budget; an objection where one does not even last `least` seconds (or to its period's end).

    A budget that lasts to the end of its period does not cut: what runs on is the next period's first
    commitment. A term does, there is no next.
    """
    objections = outside_terms(policy, path, person, now)
    for of in binding(policy, path, person):
        state = budgets.state(of, now)
        if state is None:
            continue
        need = min(least, state.window.end - now)
        lasts = state.lasts_until(cost, now)
        if lasts < now + need:
            spent = state.lasts_until(cost, now, beside_commitments=False) < now + need
            objections.append(_used_up(policy, state, spent=spent, needed=cost * need, now=now))
        else:
            end = _cut(end, state, lasts)
    return worst(objections) or end


def extended_by_budgets(
    policy: Policy, budgets: Budgets, lease: Lease, end: End, now: Instant
) -> End | Wait | Refuse:
    path = [
        name for name in lease.path if name in policy.pools
    ]  # where it is charged, also after a pool moved
    wished = end.at
    objections = outside_terms(policy, path, lease.person, now)
    for of in binding(policy, path, lease.person):
        state = budgets.state(of, now)
        is_term = isinstance(of.budget.period, Term)
        if state is None or (lease.ends_at >= state.window.end and not is_term):
            continue
        lasts = min(state.window.end, state.lasts_until(lease.cost, max(now, lease.ends_at)))
        if lasts <= lease.ends_at:
            needed = lease.cost * (wished - lease.ends_at)
            spent = state.limit <= state.used or (is_term and lease.ends_at >= state.window.end)
            objections.append(_used_up(policy, state, spent=spent, needed=needed, now=now))
        else:
            end = _cut(end, state, lasts)
    return worst(objections) or end


def soft_warnings(policy: Policy, budgets: Budgets, ask: Ask, now: Instant) -> list[dict[str, Any]]:
    """The budgets on the path that are past their soft limit."""
    states = (budgets.state(of, now) for of in binding(policy, policy.path(ask.pool), ask.person))
    return [_budget_name(state.of) for state in states if state is not None and state.soft_reached]


def budget_facts(policy: Policy, state: BudgetState) -> dict[str, Any]:
    """A budget in GPU-seconds."""
    return _budget_name(state.of) | {
        "limit": gpu_seconds(state.limit),
        "used": gpu_seconds(state.used),
        "committed": gpu_seconds(state.committed),
        "left": gpu_seconds(state.left),
        "until": policy.local(state.window.end),
    }


def _cut(end: End, state: BudgetState, lasts: Instant) -> End:
    is_term = isinstance(state.of.budget.period, Term)
    if lasts < min(end.at, state.window.end) or (is_term and state.window.end < end.at):
        return End(min(lasts, state.window.end), _budget_name(state.of))
    return end


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a budget lets nothing start, and when that is over."""

    renews: Instant
    decision: Wait | Refuse


def worst(objections: Sequence[Objection]) -> Wait | Refuse | None:
    """What waiting cannot cure, before all; else the wait that is over last. The nearest pool, where they are equal."""
    refusals = [objection.decision for objection in objections if isinstance(objection.decision, Refuse)]
    if refusals or not objections:
        return refusals[0] if refusals else None
    return max(objections, key=lambda objection: objection.renews).decision


def outside_terms(policy: Policy, path: Sequence[str], person: str, now: Instant) -> list[Objection]:
    """A pool with term budgets runs GPU leases only inside one of them."""
    objections = []
    for pool in path:
        terms = [of for of in binding(policy, [pool], person) if isinstance(of.budget.period, Term)]
        if not terms or any(window_at(of.budget, now, policy.timezone) for of in terms):
            continue
        start = _next_term(policy, pool, now)
        by_start = sorted(terms, key=lambda of: _term_start(policy, of.budget.period) or 0)
        named = next((of for of in by_start if _term_start(policy, of.budget.period) == start), by_start[-1])
        facts = _budget_name(named) | {
            "limit": 0,
            "used": 0,
            "committed": 0,
            "left": 0,
            "needed": None,
            "until": None,
            "renews": policy.local(start) if start is not None else None,
        }
        decision = Refuse(Code.BUDGET_SPENT, facts) if start is None else Wait(Code.BUDGET_SPENT, facts)
        objections.append(Objection(now if start is None else start, decision))
    return objections


def _used_up(policy: Policy, state: BudgetState, *, spent: bool, needed: int, now: Instant) -> Objection:
    """`spent`: nothing is left; otherwise only what is set aside for running leases is in the way."""
    renews = _renews(policy, state.of, state.window.end, now)
    facts = budget_facts(policy, state) | {
        "needed": gpu_seconds(needed),
        "renews": policy.local(renews) if renews is not None else None,
    }
    if spent and renews is None:
        return Objection(state.window.end, Refuse(Code.BUDGET_SPENT, facts))
    wait = Wait(Code.BUDGET_SPENT if spent else Code.BUDGET_SHORT, facts)
    return Objection(state.window.end if renews is None else renews, wait)


def _budget_name(of: BudgetOf) -> dict[str, Any]:
    return {
        "kind": "budget",
        "pool": of.pool,
        "period": str(of.budget.period),
        "budget_person": of.person or None,
    }


def _renews(policy: Policy, of: BudgetOf, window_end: Instant, now: Instant) -> Instant | None:
    """When the next period with hours begins; None where there is none."""
    if not isinstance(of.budget.period, Term):
        return window_end if of.budget.hours > 0 else None
    return _next_term(policy, of.pool, now)


def _next_term(policy: Policy, pool: str, now: Instant) -> Instant | None:
    starts = [_term_start(policy, budget.period) for budget in policy.pools[pool].budgets]
    return min((start for start in starts if start is not None and start > now), default=None)


def _term_start(policy: Policy, period: Period | Term) -> Instant | None:
    return first_instant(period.first, policy.timezone) if isinstance(period, Term) else None
