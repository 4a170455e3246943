"""The page of requests for hours as data. Pure: all texts are in one language already; the template only escapes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from hub_ext.core.clock import DAY
from hub_ext.desk.hours_facts import HoursFacts, is_open
from hub_ext.desk.views_parts import BudgetLine, Chip, budget_line
from hub_ext.desk.words_hours import day_before, hours_number, last_day
from hub_ext.language import Speaker
from hub_ext.quota.budget import BudgetState
from hub_ext.quota.explain import Titles
from hub_ext.quota.model import HoursRequest, Policy, RequestState
from hub_ext.quota.requests import LONGEST, overdue

SOON: Final = 14 * DAY
"""How far ahead the form's date is at first."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A budget to ask beside: `value` is what the form sends."""

    value: str
    label: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class RequestLine:
    id: str
    title: str
    """Whose hours these are."""
    what: str
    chip: Chip
    asked: str
    asked_exact: str
    why: str
    answered: str = ""
    answer: str = ""
    granted: str = ""
    """What was given, and what is left of it."""
    withdrawable: bool = False
    budget: BudgetLine | None = None
    """The hours it is for, as they stand now."""
    hours: str = ""
    last: str = ""
    """What the form of an answer begins with: a number, and a date as browsers write it."""
    grantable: bool = True


@dataclass(frozen=True, slots=True)
class HoursPage:
    choices: tuple[Choice, ...]
    mine: tuple[RequestLine, ...]
    to_answer: tuple[RequestLine, ...]
    answered: tuple[RequestLine, ...]
    waiting: int
    leads: bool
    first_day: str
    proposed_day: str
    last_day: str


@dataclass(frozen=True, slots=True)
class Written:
    """What somebody wrote into a form that was not taken, to be shown to them again."""

    budget: str = ""
    hours: str = ""
    until: str = ""
    why: str = ""


def titles_of_pools(policy: Policy) -> Titles:
    return {name: pool.title for name, pool in policy.pools.items()}


def hours_page(facts: HoursFacts, say: Speaker, written: Written | None = None) -> HoursPage:
    titles = titles_of_pools(facts.policy)
    written = written or Written()
    zone_now = facts.policy.local(facts.now).date()
    return HoursPage(
        choices=tuple(
            _choice(state, titles, written, say)
            for state in sorted(facts.choices, key=lambda state: not state.of.person)  # one's own first
        ),
        mine=tuple(_line(facts, one, titles, say) for one in facts.mine),
        to_answer=tuple(_line(facts, one, titles, say) for one in facts.to_answer),
        answered=tuple(_line(facts, one, titles, say) for one in facts.answered),
        waiting=sum(is_open(one, facts.now) for one in facts.to_answer),
        leads=facts.leads,
        first_day=zone_now.isoformat(),
        proposed_day=(zone_now + timedelta(seconds=SOON)).isoformat(),
        last_day=day_before(facts.now + LONGEST, facts.policy).isoformat(),
    )


def budget_value(pool: str, budget: str, person: str) -> str:
    """How a form names a budget; `budget_of_value` reads it."""
    return f"{pool}|{budget}|{person}"


def budget_of_value(value: str) -> tuple[str, str, str]:
    pool, _, rest = value.partition("|")
    budget, _, person = rest.partition("|")
    return pool, budget, person


def whose(pool: str, person: str, facts_person: str, titles: Titles, say: Speaker) -> str:
    """Whose hours these are: `Your hours: Hangang University`, `Hours of student: …`, `Hours of all: …`."""
    title = say.text(titles.get(pool, {}), pool)
    if not person:
        return say("Hours of everybody together: {pool}", pool=title)
    if person == facts_person:
        return say("Your hours: {pool}", pool=title)
    return say("Hours of {person}: {pool}", person=person, pool=title)


def _choice(state: BudgetState, titles: Titles, written: Written, say: Speaker) -> Choice:
    value = budget_value(state.of.pool, state.of.budget.name, state.of.person)
    title = whose(state.of.pool, state.of.person, state.of.person, titles, say)
    left = say.left_of(state.left, state.limit, str(state.of.budget.period))
    return Choice(value, f"{title} ({left})", written.budget == value)


def _line(facts: HoursFacts, request: HoursRequest, titles: Titles, say: Speaker) -> RequestLine:
    me = facts.access.person.name
    state = facts.states.get(request.id)
    return RequestLine(
        id=request.id,
        title=whose(request.pool, request.person, me, titles, say),
        what=say(
            "{hours} GPU-hours until {date}",
            hours=hours_number(request.units),
            date=last_day(request.until, say),
        ),
        chip=_chip(facts, request, say),
        asked=say("asked by {who}, {time}", who=request.made_by, time=say.moment(request.made_at, facts.now)),
        asked_exact=say.exact(request.made_at),
        why=request.why,
        answered=_answered(facts, request, say),
        answer=request.answer,
        granted=_granted(facts, request, say),
        withdrawable=request.state is RequestState.OPEN and request.made_by == me,
        budget=None if state is None else _as_it_stands(state, titles, facts, say),
        hours=hours_number(request.units),
        last=day_before(request.until, facts.policy).isoformat(),
        grantable=is_open(request, facts.now) and state is not None,
    )


def _as_it_stands(state: BudgetState, titles: Titles, facts: HoursFacts, say: Speaker) -> BudgetLine:
    return replace(budget_line(state, titles, facts.now, say), title=say("As it stands now"))


def _chip(facts: HoursFacts, request: HoursRequest, say: Speaker) -> Chip:
    match request.state:
        case RequestState.OPEN:
            if overdue(request, facts.now):
                return Chip("refused", say("Its date has passed"))
            return Chip("wait", say("Waits for an answer"))
        case RequestState.GRANTED:
            return Chip("now", say("Granted"))
        case RequestState.DECLINED:
            return Chip("refused", say("Declined"))
        case RequestState.WITHDRAWN:
            return Chip("refused", say("Withdrawn"))


def _answered(facts: HoursFacts, request: HoursRequest, say: Speaker) -> str:
    if request.answered_at is None or request.state is RequestState.WITHDRAWN:
        return ""
    time = say.moment(request.answered_at, facts.now)
    return say("answered by {who}, {time}", who=request.answered_by, time=time)


def _granted(facts: HoursFacts, request: HoursRequest, say: Speaker) -> str:
    known = facts.grants.get(request.grant or "")
    if known is None:
        return ""
    grant, left = known
    if grant.until <= facts.now:
        return say(
            "{hours} GPU-hours were granted; they ended on {date}.",
            hours=hours_number(grant.units),
            date=last_day(grant.until, say),
        )
    return say(
        "{hours} GPU-hours granted until {date}; {left} left.",
        hours=hours_number(grant.units),
        date=last_day(grant.until, say),
        left=say.hours(left),
    )
