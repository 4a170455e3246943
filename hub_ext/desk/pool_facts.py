"""Reads what pools hold, use and have left: the page of a pool, and its part of the API. One transaction each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final

from hub_ext.core.clock import Instant
from hub_ext.desk.access import Access
from hub_ext.desk.hours import budgets_to_ask_for, may_answer
from hub_ext.desk.records_pool import Holding, holdings
from hub_ext.desk.usage import gpu_hours
from hub_ext.quota.budget import BudgetOf, BudgetState, local_date
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import Grant, HoursRequest, Policy, RequestState
from hub_ext.quota.numbers import pool_numbers
from hub_ext.quota.ports import Store
from hub_ext.quota.ports_hours import UsageScope
from hub_ext.quota.requests import overdue

SPANS: Final = (14, 30, 90)
"""So many days the hours can be looked at over; the first is what is shown."""
MOST_REQUESTS: Final = 50


@dataclass(frozen=True, slots=True)
class ResourceUse:
    """One resource of one pool with everything below it, in base units.

    `quota` is the pool's with all below it; None where none of them states the resource, so that what they use counts
    against the quota of a pool above, `home`. `borrowed` is used beyond the quota. `lent` is what others have of the
    idle rest: what the pool could not have at once, but only after a notice.
    """

    resource: str
    home: str | None
    quota: int | None
    used: int
    borrowed: int
    lent: int
    available: int


@dataclass(frozen=True, slots=True)
class PoolUse:
    pool: str
    depth: int
    resources: tuple[ResourceUse, ...]


@dataclass(frozen=True, slots=True)
class PotLeft:
    """A grant, and what is left of it in cost units."""

    grant: Grant
    left: int


@dataclass(frozen=True)
class PoolFacts:
    policy: Policy
    now: Instant
    pool: str
    led: tuple[str, ...]
    """Every pool that the reader leads, in the order of the policy."""
    first: date
    last: date
    tree: list[PoolUse] = field(default_factory=list)
    holdings: list[Holding] = field(default_factory=list)
    days: Mapping[date, int] = field(default_factory=dict)
    people: Mapping[str, int] = field(default_factory=dict)
    """Cost units, by local date and by person."""
    budgets: list[BudgetState] = field(default_factory=list)
    pots: list[PotLeft] = field(default_factory=list)
    requests: list[HoursRequest] = field(default_factory=list)
    """Those that wait for the reader's answer."""


def first_led(access: Access, policy: Policy) -> str | None:
    """The pool to begin with: the first they lead that no other pool of theirs stands above."""
    leads = access.leads_in(policy)
    return next(
        (name for name in policy.pools if name in leads and policy.pools[name].parent not in leads), None
    )


def span_of(text: str | None) -> int:
    return next((span for span in SPANS if str(span) == text), SPANS[0])


def read_pool(store: Store, access: Access, pool: str, clock_now: Instant, span: int) -> PoolFacts | None:
    """Everything below one pool, from one snapshot; None where it is not theirs to see, or not there."""
    with store.reading() as txn:
        policy = txn.policy
        leads = access.leads_in(policy)
        if pool not in leads:
            return None
        now = max(clock_now, txn.latest())
        # 1. The tree: sums of the pools alone, whoever runs there.
        below = policy.subtree(pool)
        ledger = txn.ledger({*below, *policy.path(pool)})
        # 2. What was used: the days, and by whom.
        last = local_date(now, policy.timezone)
        first = last - timedelta(days=span - 1)
        days, people = txn.units_by_day_and_person(UsageScope(first, last, pool=pool))
        # 3. Who asks.
        asked = txn.requests(pools=below, states=[RequestState.OPEN], limit=MOST_REQUESTS)
        return PoolFacts(
            policy=policy,
            now=now,
            pool=pool,
            led=tuple(name for name in policy.pools if name in leads),
            first=first,
            last=last,
            tree=[_use(ledger, name, len(policy.path(name)) - len(policy.path(pool))) for name in below],
            holdings=holdings(txn, below),
            days=days,
            people=people,
            budgets=_budgets(ledger, below, now),
            pots=_pots(ledger, below, now),
            requests=[one for one in asked if may_answer(policy, access, one) and not overdue(one, now)],
        )


def _use(ledger: Ledger, pool: str, depth: int) -> PoolUse:
    policy = ledger.policy
    numbers: dict[str, dict[str, int]] = pool_numbers(ledger, pool)["resources"]
    below = policy.subtree(pool)
    found = []
    for resource, held in numbers.items():
        stated = any(resource in policy.pools[name].quota for name in below)
        if not (stated or held["used"]):
            continue
        home = policy.home(pool, resource)
        if not stated:
            found.append(ResourceUse(resource, home, None, held["used"], 0, 0, held["available"]))
            continue
        idle = max(0, held["subtree"] - held["used"])
        found.append(
            ResourceUse(
                resource,
                home,
                held["subtree"],
                held["used"],
                held["over"],
                max(0, idle - max(0, held["available"])),
                held["available"],
            )
        )
    return PoolUse(pool, depth, tuple(found))


def _budgets(ledger: Ledger, pools: Sequence[str], now: Instant) -> list[BudgetState]:
    """The budgets that these pools themselves have; each person's are with the person."""
    states = (
        ledger.budgets.state(BudgetOf(pool, budget), now)
        for pool in pools
        for budget in ledger.policy.pools[pool].budgets
        if not budget.each_person
    )
    return [state for state in states if state is not None]


def _pots(ledger: Ledger, pools: Sequence[str], now: Instant) -> list[PotLeft]:
    """Grants that still stand, the first to end first."""
    found = [
        PotLeft(grant, max(0, grant.units - ledger.budgets.drawn(grant)))
        for grant in ledger.grants
        if grant.pool in pools and now < grant.until
    ]
    return sorted(found, key=lambda pot: (pot.grant.until, pot.grant.id))


# -- for programs -----------------------------------------------------------------------------------------------------


def pools_open_to(access: Access, policy: Policy) -> list[str]:
    """The pools that somebody may read: those they are a member of and those they lead, in the order of the policy."""
    open_ones = access.leads_in(policy) | set(access.person.pools)
    return [name for name in policy.pools if name in open_ones]


def read_pools(store: Store, access: Access, names: Sequence[str]) -> list[dict[str, Any]]:
    """These pools with their numbers; one that a new policy has no more is left out."""
    with store.reading() as txn:
        policy = txn.policy
        names = [name for name in names if name in policy.pools]
        ledger = txn.ledger({above for name in names for above in policy.path(name)})
        leads = access.leads_in(policy)
        return [
            {
                "name": name,
                "parent": policy.pools[name].parent,
                "kind": policy.pools[name].kind,
                "title": dict(policy.pools[name].title),
                "leads": name in leads,
                **pool_numbers(ledger, name),
            }
            for name in names
        ]


def read_budgets(store: Store, access: Access, clock_now: Instant) -> list[dict[str, Any]]:
    """The budgets that somebody may ask beside, as they stand, with their grants. In GPU-hours."""
    with store.reading() as txn:
        policy, now = txn.policy, max(clock_now, txn.latest())
        wanted = budgets_to_ask_for(policy, access)
        pools = {above for of in wanted for above in policy.path(of.pool)}
        ledger = txn.ledger(pools, [access.person.name])
        states = (ledger.budgets.state(of, now) for of in wanted)
        return [_budget_body(ledger, state, now) for state in states if state is not None]


def _budget_body(ledger: Ledger, state: BudgetState, now: Instant) -> dict[str, Any]:
    policy, of = ledger.policy, state.of
    return {
        "pool": of.pool,
        "budget": of.budget.name,
        "period": str(of.budget.period),
        "person": of.person or None,
        "limit": gpu_hours(state.limit),
        "used": gpu_hours(state.used),
        "committed": gpu_hours(state.committed),
        "left": gpu_hours(state.left),
        "soft": None if of.budget.soft is None else float(of.budget.soft),
        "soft_reached": state.soft_reached,
        "starts": policy.local(state.window.start).isoformat(),
        "renews": policy.local(state.window.end).isoformat(),
        "grants": [
            {
                "id": grant.id,
                "hours": gpu_hours(grant.units),
                "left": gpu_hours(max(0, grant.units - ledger.budgets.drawn(grant))),
                "until": policy.local(grant.until).isoformat(),
                "why": grant.why,
            }
            for grant in ledger.budgets.grants_of(of)
            if now < grant.until
        ],
    }
