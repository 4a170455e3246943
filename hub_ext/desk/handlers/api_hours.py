"""`/api/v1/requests`: requests for hours, for programs."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field

from hub_ext.core.amounts import hours_to_cost_units
from hub_ext.core.clock import Instant, instant_of
from hub_ext.desk.access import READ
from hub_ext.desk.auth import calls
from hub_ext.desk.desk import API, Desk
from hub_ext.desk.errors import Problem, not_found
from hub_ext.desk.handlers.api_leases import checked_cursor
from hub_ext.desk.hours import Draft, HoursRequests, Verdict, may_read
from hub_ext.desk.hours_report import request_rows, requests_seen
from hub_ext.desk.paging import LARGEST_LIMIT, LONGEST_CURSOR, cursor_of
from hub_ext.desk.rendering import desk_of
from hub_ext.desk.views_hours import titles_of_pools
from hub_ext.desk.visitor import Caller
from hub_ext.desk.words_hours import end_of, objection_sentence, objection_status
from hub_ext.quota.ledger import find_budget
from hub_ext.quota.model import HoursRequest, Policy, RequestState
from hub_ext.quota.requests import Objection

router = APIRouter(prefix=API, tags=["requests for hours"])
Reader = Annotated[Caller, Depends(calls(READ))]
RequestId = Annotated[str, Path(pattern=r"^[0-9a-f]{1,64}$")]

Hours = Annotated[Decimal, Field(gt=0, le=1_000_000, description="GPU-hours")]
Text = Annotated[str, Field(max_length=10_000)]
Until = date | datetime
"""A day, included as a whole; or an instant with its offset."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewRequest(_Body):
    pool: Annotated[str, Field(max_length=255)]
    period: Annotated[
        str | None,
        Field(
            max_length=64,
            description="Which budget, where the pool has several: day … year, or term, or FROM/TO",
        ),
    ] = None
    person: Annotated[
        str | None, Field(max_length=255, description="Whose, where the budget is each person's")
    ] = None
    hours: Hours
    until: Until
    why: Text


class NewAnswer(_Body):
    granted: bool
    hours: Annotated[Hours | None, Field(description="Fewer than were asked for; absent: as many")] = None
    until: Annotated[Until | None, Field(description="Earlier than was asked for; absent: until then")] = None
    answer: Annotated[Text, Field(description="Needed where it is declined")] = ""


class HoursRequestBody(BaseModel):
    id: str
    pool: str
    budget: str
    person: str | None
    hours: float
    until: datetime
    why: str
    made_at: datetime
    made_by: str
    state: RequestState
    answered_at: datetime | None
    answered_by: str | None
    answer: str
    granted_hours: float | None
    granted_until: datetime | None
    grant: str | None


class RequestPage(BaseModel):
    items: list[HoursRequestBody]
    next: str | None


@router.get("/requests", response_model=RequestPage, summary="Requests that you may see, the newest first")
async def list_requests(
    request: Request,
    caller: Reader,
    state: Annotated[list[RequestState] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=LARGEST_LIMIT)] = 50,
    cursor: Annotated[str | None, Query(max_length=LONGEST_CURSOR)] = None,
) -> Any:
    """Your own, those for you, and, for leads, those of the pools they lead."""
    before = checked_cursor(cursor)

    def read() -> dict[str, Any]:
        with desk_of(request).store.reading() as txn:
            found = requests_seen(txn, caller.access, states=state, before=before, limit=limit + 1)
            shown = found[:limit]
            further = cursor_of((shown[-1].made_at, shown[-1].id)) if len(found) > limit else None
            return {"items": request_rows(txn, shown), "next": further}

    return await desk_of(request).admission.in_thread(read)


@router.post(
    "/requests",
    response_model=HoursRequestBody,
    status_code=status.HTTP_201_CREATED,
    summary="Ask for hours beside a budget",
)
async def ask(request: Request, response: Response, caller: Reader, body: NewRequest) -> Any:
    policy = caller.policy
    draft = Draft(
        pool=body.pool,
        budget=_budget(policy, body),
        units=hours_to_cost_units(body.hours),
        until=_instant(body.until, policy),
        why=body.why,
        person=body.person or "",
    )
    outcome = await HoursRequests(desk_of(request).admission).ask(caller.access, draft)
    shown = await _shown(request, caller, outcome)
    response.headers["Location"] = f"{API}/requests/{shown['id']}"
    return shown


@router.get("/requests/{request_id}", response_model=HoursRequestBody, summary="One request")
async def read_request(request: Request, caller: Reader, request_id: RequestId) -> Any:
    def read() -> dict[str, Any] | None:
        with desk_of(request).store.reading() as txn:
            found = txn.request(request_id)
            if found is None or not may_read(txn.policy, caller.access, found):
                return None
            return request_rows(txn, [found])[0]

    shown = await desk_of(request).admission.in_thread(read)
    if shown is None:
        raise not_found()
    return shown


@router.post(
    "/requests/{request_id}/answer",
    response_model=HoursRequestBody,
    summary="Grant, shorten or decline a request",
)
async def answer(request: Request, caller: Reader, request_id: RequestId, body: NewAnswer) -> Any:
    """For whoever leads its pool, or one above it. Of two answers at once one counts; the other gets 409."""
    verdict = Verdict(
        granted=body.granted,
        answer=body.answer,
        units=None if body.hours is None else hours_to_cost_units(body.hours),
        until=None if body.until is None else _instant(body.until, caller.policy),
    )
    requests = HoursRequests(desk_of(request).admission)
    return await _shown(request, caller, await requests.answer(caller.access, request_id, verdict))


@router.delete(
    "/requests/{request_id}", response_model=HoursRequestBody, summary="Withdraw a request of your own"
)
async def withdraw(request: Request, caller: Reader, request_id: RequestId) -> Any:
    """It stays to be read, as withdrawn."""
    requests = HoursRequests(desk_of(request).admission)
    return await _shown(request, caller, await requests.withdraw(caller.access, request_id))


async def _shown(
    request: Request, caller: Caller, outcome: HoursRequest | Objection | None
) -> dict[str, Any]:
    desk = desk_of(request)
    if outcome is None:
        raise not_found()
    if isinstance(outcome, Objection):
        raise _problem(outcome, caller, desk)

    def read() -> dict[str, Any]:
        with desk.store.reading() as txn:
            return request_rows(txn, [outcome])[0]

    return await desk.admission.in_thread(read)


def _problem(objection: Objection, caller: Caller, desk: Desk) -> Problem:
    titles, now = titles_of_pools(caller.policy), desk.clock.now()
    times = {"at", "until", "last"}
    facts = {
        name: caller.policy.local(value).isoformat() if name in times and isinstance(value, int) else value
        for name, value in objection.facts.items()
    }
    return Problem(
        objection_status(objection),
        objection.code.value,
        lambda say: objection_sentence(objection, say, titles, now),
        **facts,
    )


def _budget(policy: Policy, body: NewRequest) -> str:
    """The budget's name; one that is not there where none is meant: whoever may not see it is told no more."""
    try:
        return find_budget(policy, body.pool, body.period, body.person).budget.name
    except ValueError:
        return ""


def _instant(until: Until, policy: Policy) -> Instant:
    if isinstance(until, datetime):
        return instant_of(until if until.tzinfo else until.replace(tzinfo=policy.timezone))
    return end_of(until.isoformat(), policy)
