"""Requests for hours: one's own, and those that wait for one's answer; ask, withdraw, grant, shorten, decline."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.datastructures import FormData

from hub_ext.desk.auth import SignedIn, checked_form
from hub_ext.desk.desk import PREFIX
from hub_ext.desk.errors import not_found
from hub_ext.desk.hours import Draft, HoursRequests, Verdict
from hub_ext.desk.hours_facts import read_hours
from hub_ext.desk.hours_report import REQUEST_FIELDS, all_requests
from hub_ext.desk.paging import cursor_of, place_of
from hub_ext.desk.rendering import desk_of, render
from hub_ext.desk.streaming import streamed_table
from hub_ext.desk.views_hours import Written, budget_of_value, hours_page, titles_of_pools
from hub_ext.desk.visitor import Visitor
from hub_ext.desk.words_hours import end_of, objection_sentence, objection_status, units_of
from hub_ext.quota.model import HoursRequest
from hub_ext.quota.requests import Objection

router = APIRouter(include_in_schema=False)
HOURS = f"{PREFIX}/hours"
Form = Annotated[FormData, Depends(checked_form)]


@router.get(HOURS)
async def hours(request: Request, visitor: SignedIn) -> Response:
    done = {
        "asked": visitor.say("Your request was sent. Whoever leads the pool, or one above it, answers."),
        "granted": visitor.say("The hours are granted; they count from now on."),
        "declined": visitor.say("The request is declined; whoever asked reads your reason."),
        "withdrawn": visitor.say("Your request is withdrawn."),
    }.get(request.query_params.get("done", ""), "")
    return await _page(request, visitor, done=done)


@router.get(f"{HOURS}/count")
async def count(request: Request, visitor: SignedIn) -> JSONResponse:
    """How many requests wait for this person's answer: the number beside the link."""
    waiting = await HoursRequests(desk_of(request).admission).to_answer(visitor.access)
    return JSONResponse({"to_answer": waiting}, headers={"Cache-Control": "no-store"})


@router.get(f"{HOURS}/requests.csv")
async def table(request: Request, visitor: SignedIn) -> Response:
    """Every request that the reader may see, as a file to keep."""
    desk = desk_of(request)
    pages = all_requests(desk.store, visitor.access)
    return await streamed_table(desk.admission, REQUEST_FIELDS, pages, name="requests-for-hours")


@router.post(HOURS)
async def ask(request: Request, visitor: SignedIn, form: Form) -> Response:
    written = Written(_text(form, "budget"), _text(form, "hours"), _text(form, "until"), _text(form, "why"))
    pool, budget, person = budget_of_value(written.budget)
    draft = Draft(
        pool=pool,
        budget=budget,
        units=units_of(written.hours),
        until=end_of(written.until, visitor.policy),
        why=written.why,
        person=person,
    )
    outcome = await HoursRequests(desk_of(request).admission).ask(visitor.access, draft)
    if isinstance(outcome, Objection):
        return await _objected(request, visitor, outcome, written=written)
    return RedirectResponse(f"{HOURS}?done=asked", 303)


@router.post(f"{HOURS}/answer")
async def answer(request: Request, visitor: SignedIn, form: Form) -> Response:
    granted = _text(form, "verdict") == "grant"
    hours_given, until = _text(form, "hours"), _text(form, "until")
    verdict = Verdict(
        granted=granted,
        answer=_text(form, "answer"),
        units=units_of(hours_given) if hours_given.strip() else None,
        until=end_of(until, visitor.policy) if until.strip() else None,
    )
    requests = HoursRequests(desk_of(request).admission)
    outcome = await requests.answer(visitor.access, _text(form, "request"), verdict)
    return await _done(request, visitor, outcome, "granted" if granted else "declined")


@router.post(f"{HOURS}/withdraw")
async def withdraw(request: Request, visitor: SignedIn, form: Form) -> Response:
    requests = HoursRequests(desk_of(request).admission)
    outcome = await requests.withdraw(visitor.access, _text(form, "request"))
    return await _done(request, visitor, outcome, "withdrawn")


async def _done(
    request: Request, visitor: Visitor, outcome: HoursRequest | Objection | None, done: str
) -> Response:
    if outcome is None:
        raise not_found()
    if isinstance(outcome, Objection):
        return await _objected(request, visitor, outcome)
    return RedirectResponse(f"{HOURS}?done={done}", 303)


async def _objected(
    request: Request, visitor: Visitor, objection: Objection, *, written: Written | None = None
) -> Response:
    sentence = objection_sentence(
        objection, visitor.say, titles_of_pools(visitor.policy), desk_of(request).clock.now()
    )
    status = objection_status(objection)
    return await _page(request, visitor, alert=sentence, status=status, written=written)


async def _page(
    request: Request,
    visitor: Visitor,
    *,
    done: str = "",
    alert: str = "",
    status: int = 200,
    written: Written | None = None,
) -> Response:
    desk = desk_of(request)
    before = place_of(request.query_params.get("before", ""))
    facts = await desk.admission.in_thread(read_hours, desk.store, visitor.access, desk.clock.now(), before)
    return render(
        request,
        visitor,
        "hours.html",
        status=status,
        page=hours_page(facts, visitor.say, written),
        written=written or Written(),
        alert=alert,
        done=done,
        older=f"{HOURS}?before={cursor_of(facts.further)}#answered-title" if facts.further else "",
        newer=f"{HOURS}#answered-title" if before else "",
    )


def _text(form: FormData, name: str) -> str:
    """A text field as it was sent; empty where there is none."""
    value = form.get(name)
    return value if isinstance(value, str) else ""
