"""Requests for hours: who may ask and answer, and the use cases, each one short transaction.

Whoever a budget binds may ask for hours beside it, and leads for the people and pools they answer for. Whoever leads
the pool that states the budget, or one above it, answers; operators too. Nobody answers what they asked for
themselves, nor what is for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hub_ext.core.clock import Instant
from hub_ext.core.people import Person
from hub_ext.desk.access import Access
from hub_ext.quota.budget import BudgetOf, binding
from hub_ext.quota.model import HoursRequest, Policy, RequestState
from hub_ext.quota.ports import Store, Transaction
from hub_ext.quota.requests import (
    Objected,
    Objection,
    Step,
    ask_for_hours,
    decline_request,
    grant_request,
    overdue,
    withdraw_request,
)
from hub_ext.quota.service import Admission, new_lease_id

MOST_COUNTED = 100
"""The badge says "99+" beyond."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody asks for: `units` beside this budget of the pool, of `person` where it is each person's."""

    pool: str
    budget: str
    units: int
    until: Instant
    why: str
    person: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer: granted (`units`, `until` None: as asked for), or declined with a reason."""

    granted: bool
    answer: str = ""
    units: int | None = None
    until: Instant | None = None


# -- who may ---------------------------------------------------------------------------------------------------------


def budgets_to_ask_for(policy: Policy, access: Access) -> list[BudgetOf]:
    """The budgets that bind this person where they are a member, and the pools' own that they lead; nearest first."""
    person = access.person
    found = [
        of
        for pool in person.pools
        if pool in policy.pools
        for of in binding(policy, policy.path(pool), person.name)
    ]
    leads = access.leads_in(policy)
    found += [
        BudgetOf(pool, budget)
        for pool in policy.pools
        if pool in leads
        for budget in policy.pools[pool].budgets
        if not budget.each_person
    ]
    return list(dict.fromkeys(found))


def may_ask(policy: Policy, access: Access, draft: Draft, about: Person | None) -> bool:
    """Whether they may ask for these hours; `about` is the person whose budget it is, if they are known."""
    if draft.person not in ("", access.person.name):
        return about is not None and access.leads(policy, draft.pool) and _is_in(policy, about, draft.pool)
    return any(
        (of.pool, of.budget.name, of.person) == (draft.pool, draft.budget, draft.person)
        for of in budgets_to_ask_for(policy, access)
    )


def may_answer(policy: Policy, access: Access, request: HoursRequest) -> bool:
    """Whether it is theirs to answer, now or ever: they lead its pool, and it is not their own."""
    return may_lead(policy, access, request) and access.person.name not in (request.made_by, request.person)


def may_lead(policy: Policy, access: Access, request: HoursRequest) -> bool:
    """A pool that was taken out of the policy is led by operators alone."""
    return access.leads(policy, request.pool) or (request.pool not in policy.pools and access.operates)


def may_read(policy: Policy, access: Access, request: HoursRequest) -> bool:
    own = access.person.name in (request.made_by, request.person)
    return own or may_lead(policy, access, request)


def _is_in(policy: Policy, person: Person, pool: str) -> bool:
    return any(pool in policy.path(own) for own in person.pools if own in policy.pools)


# -- what is done ----------------------------------------------------------------------------------------------------


class HoursRequests:
    """Opens, answers and shows requests. None stands for "there is no such request for them"."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    @property
    def _store(self) -> Store:
        return self._admission.store

    async def ask(self, access: Access, draft: Draft) -> HoursRequest | Objection:
        return await self._admission.in_thread(self.ask_now, access, draft)

    async def answer(
        self, access: Access, request_id: str, verdict: Verdict
    ) -> HoursRequest | Objection | None:
        return await self._admission.in_thread(self.answer_now, access, request_id, verdict)

    async def withdraw(self, access: Access, request_id: str) -> HoursRequest | Objection | None:
        return await self._admission.in_thread(self.withdraw_now, access, request_id)

    async def to_answer(self, access: Access) -> int:
        """How many requests wait for this person's answer: the number on the badge."""
        return await self._admission.in_thread(self.to_answer_now, access)

    def ask_now(self, access: Access, draft: Draft) -> HoursRequest | Objection:
        person = access.person
        with self._store.booking() as txn:
            # 1. A budget that is not theirs to ask for looks like one that is not there.
            about = txn.person(draft.person) if draft.person else None
            if not may_ask(txn.policy, access, draft, about):
                return Objection(Objected.NO_SUCH_BUDGET, {"pool": draft.pool, "budget": draft.budget})
            # 2. What stands against it.
            now = self._now(txn)
            request = HoursRequest(
                id=new_lease_id(),
                pool=draft.pool,
                budget=draft.budget,
                person=draft.person,
                units=draft.units,
                until=draft.until,
                why=draft.why,
                made_at=now,
                made_by=person.name,
            )
            mine = txn.requests(made_by=person.name, states=[RequestState.OPEN])
            asked = [one for one in mine if one.made_by == person.name]
            step = ask_for_hours(txn.policy, request, asked, now)
            # 3. Write it down.
            return step if isinstance(step, Objection) else self._write(txn, step)

    def answer_now(
        self, access: Access, request_id: str, verdict: Verdict
    ) -> HoursRequest | Objection | None:
        def step(txn: Transaction, request: HoursRequest, now: Instant) -> Step | Objection | None:
            if not may_lead(txn.policy, access, request):
                # Their own they see, and may not answer; others' they do not see.
                return Objection(Objected.OWN) if may_read(txn.policy, access, request) else None
            who = access.person.name
            if not verdict.granted:
                return decline_request(request, who=who, answer=verdict.answer, now=now)
            return grant_request(
                txn.policy,
                request,
                new_lease_id(),
                who=who,
                answer=verdict.answer,
                units=verdict.units,
                until=verdict.until,
                now=now,
            )

        return self._change(request_id, step)

    def withdraw_now(self, access: Access, request_id: str) -> HoursRequest | Objection | None:
        def step(txn: Transaction, request: HoursRequest, now: Instant) -> Step | Objection | None:
            if not may_read(txn.policy, access, request):
                return None
            return withdraw_request(request, who=access.person.name, now=now)

        return self._change(request_id, step)

    def to_answer_now(self, access: Access) -> int:
        with self._store.reading() as txn:
            return len(self._waiting(txn, access))

    def _waiting(self, txn: Transaction, access: Access) -> list[HoursRequest]:
        leads = access.leads_in(txn.policy)
        if not leads:
            return []
        now = self._now(txn)
        open_ones = txn.requests(pools=leads, states=[RequestState.OPEN], limit=MOST_COUNTED)
        return [one for one in open_ones if may_answer(txn.policy, access, one) and not overdue(one, now)]

    def _change(
        self,
        request_id: str,
        step: Callable[[Transaction, HoursRequest, Instant], Step | Objection | None],
    ) -> HoursRequest | Objection | None:
        """One step of a request. Two at once: the second finds it answered."""
        with self._store.booking() as txn:
            request = txn.request(request_id)
            if request is None:
                return None
            taken = step(txn, request, self._now(txn))
            return self._write(txn, taken) if isinstance(taken, Step) else taken

    def _write(self, txn: Transaction, step: Step) -> HoursRequest:
        pool, person = step.request.pool, step.request.person
        path = txn.policy.path(pool) if pool in txn.policy.pools else ()
        ledger = txn.ledger(path, [person] if person else [])
        ledger.entries.append(step.entry)
        if step.grant is not None:
            ledger.grant(step.grant)
        txn.put_request(step.request)
        txn.save(ledger, [])
        return step.request

    def _now(self, txn: Transaction) -> Instant:
        """Never before the newest entry of the ledger."""
        return max(self._admission.clock.now(), txn.latest())
