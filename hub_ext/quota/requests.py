"""Requests for hours: what may be asked, and the one way a request ends (pure).

    open ──► granted (as asked for, or with fewer hours, or an earlier date)
         ├─► declined (with a reason)
         └─► withdrawn (by whoever asked)

A request moves once and never back; it has at most one grant. A grant stands until its date: it cannot be taken back
or shortened, since people plan, and start servers, by the hours they have. Every step is one entry of the ledger.
Who may ask and answer is the desk's to say (`desk/hours.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from hub_ext.core.amounts import COST_UNITS_PER_GPU_HOUR
from hub_ext.core.clock import DAY, Instant
from hub_ext.quota.ledger import Entry, EntryKind
from hub_ext.quota.model import Budget, Grant, HoursRequest, Policy, RequestState

MOST_UNITS: Final = 100_000 * COST_UNITS_PER_GPU_HOUR
"""No centre has more to give in one grant; more is a slip of the hand."""
LEAST_UNITS: Final = COST_UNITS_PER_GPU_HOUR // 100
"""A hundredth of a GPU-hour."""
LONGEST: Final = 732 * DAY
"""How far ahead a request may reach."""
LONGEST_TEXT: Final = 1000
"""Characters of a reason."""
MOST_OPEN: Final = 20
"""Requests one person may have open at a time."""


class Objected(StrEnum):
    """Why a request or an answer was not taken."""

    NO_SUCH_BUDGET = "no-such-budget"
    HOURS = "hours-out-of-range"
    DATE = "date-out-of-range"
    WHY_MISSING = "why-missing"
    TOO_LONG = "text-too-long"
    ALREADY_ASKED = "already-asked"
    TOO_MANY = "too-many-open"
    ANSWERED = "answered-already"
    OWN = "own-request"
    BUDGET_GONE = "budget-gone"
    OVERDUE = "date-passed"
    MORE_THAN_ASKED = "more-than-asked"
    LATER_THAN_ASKED = "later-than-asked"
    NOT_YOURS = "not-your-request"


@dataclass(frozen=True, slots=True)
class Objection:
    """What stands against it: a code, and the facts of its sentence."""

    code: Objected
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a request: how it stands then, the entry that tells, and the grant where it got one."""

    request: HoursRequest
    entry: Entry
    grant: Grant | None = None


def budget_asked(policy: Policy, request: HoursRequest) -> Budget | None:
    """The budget that the request stands beside; None where the policy has it no longer."""
    pool = policy.pools.get(request.pool)
    if pool is None:
        return None
    return next(
        (
            budget
            for budget in pool.budgets
            if budget.name == request.budget and budget.each_person == bool(request.person)
        ),
        None,
    )


def overdue(request: HoursRequest, now: Instant) -> bool:
    """Whether nobody answered before its date: hours until then would be none."""
    return request.state is RequestState.OPEN and request.until <= now


def ask_for_hours(
    policy: Policy, request: HoursRequest, open_ones: Sequence[HoursRequest], now: Instant
) -> Step | Objection:
    """Open a request; `open_ones` are what its maker has open already."""
    request = replace(request, why=readable(request.why))
    open_ones = [one for one in open_ones if not overdue(one, now)]
    objection = (
        _unknown_budget(policy, request)
        or _hours(request.units)
        or _date(request.until, now)
        or _reason(request.why)
        or _asked_before(request, open_ones)
    )
    if objection is not None:
        return objection
    facts = {"request": request.id, "budget": request.budget, "units": request.units, "until": request.until}
    entry = Entry(
        EntryKind.REQUESTED,
        now,
        pool=request.pool,
        person=request.person or None,
        who=request.made_by,
        why=request.why,
        facts=facts,
    )
    return Step(request, entry)


def grant_request(
    policy: Policy,
    request: HoursRequest,
    grant_id: str,
    *,
    who: str,
    answer: str = "",
    units: int | None = None,
    until: Instant | None = None,
    now: Instant,
) -> Step | Objection:
    """Grant it: as asked for, or with fewer hours (`units`) or an earlier end (`until`); never with more."""
    units = request.units if units is None else units
    until = request.until if until is None else until
    answer = readable(answer)
    objection = _answerable(request, who)
    if objection is not None:
        return objection
    if overdue(request, now):
        return Objection(Objected.OVERDUE, {"until": request.until})
    if budget_asked(policy, request) is None:
        return Objection(Objected.BUDGET_GONE, {"pool": request.pool, "budget": request.budget})
    if units > request.units:
        return Objection(Objected.MORE_THAN_ASKED, {"units": units, "asked": request.units})
    if until > request.until:
        return Objection(Objected.LATER_THAN_ASKED, {"until": until, "asked": request.until})
    objection = _hours(units) or _date(until, now) or _length(answer)
    if objection is not None:
        return objection
    grant = Grant(
        grant_id, request.pool, request.budget, request.person, units, until, answer or request.why, now, who
    )
    return _answered(request, RequestState.GRANTED, who, answer, now, grant)


def decline_request(request: HoursRequest, *, who: str, answer: str, now: Instant) -> Step | Objection:
    """Decline it, with a reason that the person who asked will read."""
    answer = readable(answer)
    objection = _answerable(request, who) or _reason(answer)
    if objection is not None:
        return objection
    return _answered(request, RequestState.DECLINED, who, answer, now)


def withdraw_request(request: HoursRequest, *, who: str, now: Instant) -> Step | Objection:
    """Take it back, which only its maker can, and only while nobody answered."""
    if request.made_by != who:
        return Objection(Objected.NOT_YOURS)
    if (objection := _still_open(request)) is not None:
        return objection
    return _answered(request, RequestState.WITHDRAWN, who, "", now)


def _answered(
    request: HoursRequest,
    state: RequestState,
    who: str,
    answer: str,
    now: Instant,
    grant: Grant | None = None,
) -> Step:
    answered = replace(
        request,
        state=state,
        answered_at=now,
        answered_by=who,
        answer=answer,
        grant=grant.id if grant else None,
    )
    facts: dict[str, Any] = {"request": request.id, "state": state.value}
    if grant is not None:
        facts |= {"grant": grant.id, "units": grant.units, "until": grant.until}
    entry = Entry(
        EntryKind.ANSWERED,
        now,
        pool=request.pool,
        person=request.person or None,
        who=who,
        why=answer,
        facts=facts,
    )
    return Step(answered, entry, grant)


def readable(text: str) -> str:
    """The text without the characters that cannot be shown, nor stored by every database."""
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n").strip()


# -- what may stand against it ---------------------------------------------------------------------------------------


def _answerable(request: HoursRequest, who: str) -> Objection | None:
    if who in (request.made_by, request.person):
        return Objection(Objected.OWN)
    return _still_open(request)


def _still_open(request: HoursRequest) -> Objection | None:
    if request.state is RequestState.OPEN:
        return None
    facts = {"state": request.state.value, "by": request.answered_by, "at": request.answered_at}
    return Objection(Objected.ANSWERED, facts)


def _unknown_budget(policy: Policy, request: HoursRequest) -> Objection | None:
    if budget_asked(policy, request) is not None:
        return None
    return Objection(Objected.NO_SUCH_BUDGET, {"pool": request.pool, "budget": request.budget})


def _hours(units: int) -> Objection | None:
    if LEAST_UNITS <= units <= MOST_UNITS:
        return None
    return Objection(Objected.HOURS, {"least": LEAST_UNITS, "most": MOST_UNITS})


def _date(until: Instant, now: Instant) -> Objection | None:
    if now < until <= now + LONGEST:
        return None
    return Objection(Objected.DATE, {"last": now + LONGEST})


def _reason(text: str) -> Objection | None:
    return _length(text) if text else Objection(Objected.WHY_MISSING)


def _length(text: str) -> Objection | None:
    return Objection(Objected.TOO_LONG, {"most": LONGEST_TEXT}) if len(text) > LONGEST_TEXT else None


def _asked_before(request: HoursRequest, open_ones: Sequence[HoursRequest]) -> Objection | None:
    beside = (request.pool, request.budget, request.person)
    same = next((one for one in open_ones if (one.pool, one.budget, one.person) == beside), None)
    if same is not None:
        return Objection(Objected.ALREADY_ASKED, {"request": same.id, "at": same.made_at})
    if len(open_ones) >= MOST_OPEN:
        return Objection(Objected.TOO_MANY, {"most": MOST_OPEN})
    return None
