"""Reads what the page of requests for hours shows, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from hub_ext.core.clock import Instant
from hub_ext.desk.access import Access
from hub_ext.desk.hours import budgets_to_ask_for, may_answer
from hub_ext.quota.budget import BudgetOf, BudgetState
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import Grant, HoursRequest, Policy, RequestState
from hub_ext.quota.ports import Store
from hub_ext.quota.ports_hours import Place
from hub_ext.quota.requests import budget_asked, overdue

SHOWN: Final = 25
"""Requests on one page of a list."""
MOST_OPEN_SHOWN: Final = 200


@dataclass(frozen=True)
class HoursFacts:
    """`mine` and `answered` are the newest first, `to_answer` the oldest; `states` and `left` are by request and grant."""

    access: Access
    policy: Policy
    now: Instant
    choices: list[BudgetState] = field(default_factory=list)
    """The budgets that they may ask beside, where one runs now."""
    mine: list[HoursRequest] = field(default_factory=list)
    to_answer: list[HoursRequest] = field(default_factory=list)
    answered: list[HoursRequest] = field(default_factory=list)
    further: Place | None = None
    """Where `answered` goes on."""
    states: Mapping[str, BudgetState] = field(default_factory=dict)
    """The budget that each open request stands beside, as it is now."""
    grants: Mapping[str, tuple[Grant, int]] = field(default_factory=dict)
    """The grants of the requests that are shown, each with what is left of it."""
    leads: bool = False


def read_hours(store: Store, access: Access, clock_now: Instant, before: Place | None = None) -> HoursFacts:
    """Everything from one snapshot. Raises StoreUnavailable."""
    with store.reading() as txn:
        policy = txn.policy
        now = max(clock_now, txn.latest())
        person = access.person.name
        leads = access.leads_in(policy)
        # 1. The requests: one's own, and those of the pools that one leads.
        mine = txn.requests(made_by=person, limit=SHOWN)
        open_ones: list[HoursRequest] = []
        closed: list[HoursRequest] = []
        if leads:
            # An operator sees those of pools that are gone as well.
            pools = None if access.operates else leads
            open_ones = txn.requests(pools=pools, states=[RequestState.OPEN], limit=MOST_OPEN_SHOWN)
            others = [state for state in RequestState if state is not RequestState.OPEN]
            closed = txn.requests(pools=pools, states=others, before=before, limit=SHOWN + 1)
        to_answer = [one for one in reversed(open_ones) if may_answer(policy, access, one)]
        # 2. The budgets beside them.
        shown = closed[:SHOWN]
        choices = budgets_to_ask_for(policy, access)
        people = {person, *(one.person for one in (*mine, *to_answer, *shown))} - {""}
        ledger = txn.ledger(_with_all_above(policy, choices, (*mine, *to_answer, *shown)), people)
        last = shown[-1] if len(closed) > SHOWN else None
        return HoursFacts(
            access=access,
            policy=policy,
            now=now,
            choices=[state for of in choices if (state := ledger.budgets.state(of, now)) is not None],
            mine=mine,
            to_answer=to_answer,
            answered=shown,
            further=None if last is None else (last.made_at, last.id),
            states=_states(ledger, (*mine, *to_answer), now),
            grants=_grants(ledger, (*mine, *shown)),
            leads=bool(leads),
        )


def is_open(request: HoursRequest, now: Instant) -> bool:
    return request.state is RequestState.OPEN and not overdue(request, now)


def _with_all_above(
    policy: Policy, choices: Iterable[BudgetOf], requests: Iterable[HoursRequest]
) -> set[str]:
    named = {*(of.pool for of in choices), *(one.pool for one in requests)}
    return {above for pool in named if pool in policy.pools for above in policy.path(pool)}


def _states(ledger: Ledger, requests: Iterable[HoursRequest], now: Instant) -> dict[str, BudgetState]:
    found = {}
    for request in requests:
        budget = budget_asked(ledger.policy, request)
        if budget is not None and request.state is RequestState.OPEN:
            state = ledger.budgets.state(BudgetOf(request.pool, budget, request.person), now)
            if state is not None:
                found[request.id] = state
    return found


def _grants(ledger: Ledger, requests: Iterable[HoursRequest]) -> dict[str, tuple[Grant, int]]:
    wanted = {request.grant for request in requests if request.grant is not None}
    return {
        grant.id: (grant, max(0, grant.units - ledger.budgets.drawn(grant)))
        for grant in ledger.grants
        if grant.id in wanted
    }
