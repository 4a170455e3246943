"""The pages *centre*, for operators: the map of GPUs, the queue, the log of decisions, the policy, and what-if."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import FormData

from hub_ext.desk.auth import checked_form, signed_in_operator
from hub_ext.desk.centre import (
    all_entries,
    all_waiting,
    read_centre,
    read_live,
    read_log,
    read_machines,
    read_policy,
    read_queue,
)
from hub_ext.desk.desk import PREFIX
from hub_ext.desk.errors import not_found
from hub_ext.desk.live_scenario import live_scenario
from hub_ext.desk.records import Cursor
from hub_ext.desk.rendering import desk_of, render
from hub_ext.desk.streaming import streamed_table
from hub_ext.desk.views_centre import MACHINE_COLUMNS, centre_page, machine_rows
from hub_ext.desk.views_decisions import LOG_COLUMNS, Asked, log_page, log_row
from hub_ext.desk.views_policy import policy_page
from hub_ext.desk.views_queue import QUEUE_COLUMNS, queue_page, queue_row
from hub_ext.desk.views_what_if import what_if_page
from hub_ext.desk.visitor import Visitor
from hub_ext.desk.what_if import LONGEST_TEXT, Answer, Busy, TookTooLong, player_of

CENTRE: Final = f"{PREFIX}/centre"
COMMAND: Final = "hub-ext simulate"
CHECK: Final = "hub-ext check"
router = APIRouter(include_in_schema=False)
Operator = Annotated[Visitor, Depends(signed_in_operator)]
Form = Annotated[FormData, Depends(checked_form)]


# -- the map ----------------------------------------------------------------------------------------------------------


@router.get(CENTRE)
async def centre(request: Request, visitor: Operator) -> Response:
    desk, query = desk_of(request), request.query_params
    facts = await desk.admission.in_thread(
        read_centre,
        desk.store,
        desk.profiles.catalogue,
        desk.clock.now(),
        query.get("class", ""),
        _page_number(query.get("page")),
    )
    page = centre_page(facts, visitor.say)
    return _render(request, visitor, "centre.html", page=page, gpu_class=facts.gpu_class)


@router.get(f"{CENTRE}/machines.csv")
async def machines(request: Request, visitor: Operator) -> Response:
    desk = desk_of(request)
    policy, found = await desk.admission.in_thread(read_machines, desk.store)
    gpu_class = request.query_params.get("class", "")
    gpu_class = gpu_class if gpu_class in policy.gpu_classes else ""
    rows = machine_rows(found, policy, gpu_class)
    return await streamed_table(desk.admission, MACHINE_COLUMNS, [rows], name="machines")


# -- the queue --------------------------------------------------------------------------------------------------------


@router.get(f"{CENTRE}/queue")
async def queue(request: Request, visitor: Operator) -> Response:
    desk, query = desk_of(request), request.query_params
    which = _queue_query(request)
    facts = await desk.admission.in_thread(
        read_queue,
        desk.store,
        desk.profiles.catalogue,
        desk.clock.now(),
        *which,
        _page_number(query.get("page")),
    )
    return _render(
        request,
        visitor,
        "centre_queue.html",
        page=queue_page(facts, visitor.say),
        which=facts.which,
        pool=facts.pool,
    )


@router.get(f"{CENTRE}/queue.csv")
async def queue_csv(request: Request, visitor: Operator) -> Response:
    desk = desk_of(request)
    policy, now, tickets = await desk.admission.in_thread(
        all_waiting, desk.store, desk.clock.now(), *_queue_query(request)
    )
    rows = (queue_row(ticket, policy, now) for ticket in tickets)
    return await streamed_table(desk.admission, QUEUE_COLUMNS, [rows], name="queue")


# -- the log of decisions ---------------------------------------------------------------------------------------------


@router.get(f"{CENTRE}/decisions")
async def decisions(request: Request, visitor: Operator) -> Response:
    desk, query = desk_of(request), request.query_params
    facts = await desk.admission.in_thread(
        read_log,
        desk.store,
        desk.profiles.catalogue,
        desk.clock.now(),
        Asked.of(query),
        Cursor.parse(query.get("after", "")),
    )
    return _render(request, visitor, "centre_decisions.html", page=log_page(facts, visitor.say))


@router.get(f"{CENTRE}/decisions.csv")
async def decisions_csv(request: Request, visitor: Operator) -> Response:
    desk, asked = desk_of(request), Asked.of(request.query_params)
    pages = (
        [log_row(number, entry, policy) for number, entry in entries]
        for policy, entries in all_entries(desk.store, asked)
    )
    return await streamed_table(desk.admission, LOG_COLUMNS, pages, name="decisions")


# -- the policy -------------------------------------------------------------------------------------------------------


@router.get(f"{CENTRE}/policy")
async def policy(request: Request, visitor: Operator) -> Response:
    desk, given = desk_of(request), request.query_params.get("version")
    number = None if given is None else _page_number(given)
    facts = await desk.admission.in_thread(read_policy, desk.store, desk.clock.now(), number)
    if facts is None:
        raise not_found()
    page = await desk.admission.in_thread(policy_page, facts, visitor.say)
    return _render(request, visitor, "centre_policy.html", page=page, command=CHECK)


@router.get(f"{CENTRE}/policy.yaml")
async def policy_text(request: Request, visitor: Operator) -> Response:
    desk, given = desk_of(request), request.query_params.get("version")
    number = None if given is None else _page_number(given)
    facts = await desk.admission.in_thread(read_policy, desk.store, desk.clock.now(), number)
    if facts is None:
        raise not_found()
    name = f"pools-{facts.shown.number}.yaml"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(facts.text, media_type="application/yaml; charset=utf-8", headers=headers)


# -- what-if ----------------------------------------------------------------------------------------------------------


@router.get(f"{CENTRE}/what-if")
async def what_if(request: Request, visitor: Operator) -> Response:
    desk, text = desk_of(request), ""
    if request.query_params.get("from") == "now":
        live = await desk.admission.in_thread(read_live, desk.store, desk.clock.now())
        text = await desk.admission.in_thread(live_scenario, live)
    return _what_if(request, visitor, text, None)


@router.post(f"{CENTRE}/what-if")
async def play(request: Request, visitor: Operator, form: Form) -> Response:
    """The answer as a page, or as the JSON that `hub-ext simulate` writes."""
    text = str(form.get("scenario", "")).replace("\r\n", "\n")
    try:
        answer = await player_of(request.app.state).answer(text)
    except Busy:
        alert = visitor.say("Another scenario is being played. Try again in some seconds.")
        return _what_if(request, visitor, text, None, alert=alert, status=503)
    except TookTooLong:
        alert = visitor.say(
            "This scenario took too long or too much memory, and was given up. Leave out leases or events, or play it "
            "with {command} on a machine of your own.",
            command=COMMAND,
        )
        return _what_if(request, visitor, text, None, alert=alert, status=422)
    if form.get("as") == "json" and answer.outcome is not None:
        headers = {"Content-Disposition": 'attachment; filename="what-if.json"'}
        return JSONResponse(dict(answer.outcome), headers=headers | {"Cache-Control": "no-store"})
    return _what_if(request, visitor, text, answer, status=422 if answer.faults else 200)


def _what_if(
    request: Request,
    visitor: Visitor,
    text: str,
    answer: Answer | None,
    *,
    alert: str = "",
    status: int = 200,
) -> Response:
    page = what_if_page(text, answer, visitor.say)
    return _render(
        request,
        visitor,
        "centre_what_if.html",
        status=status,
        page=page,
        alert=alert,
        longest=LONGEST_TEXT,
        command=COMMAND,
    )


# -- parts ------------------------------------------------------------------------------------------------------------


def _render(request: Request, visitor: Visitor, template: str, **context: Any) -> Response:
    say = visitor.say
    tabs = [
        (CENTRE, say("GPUs")),
        (f"{CENTRE}/queue", say("Queue")),
        (f"{CENTRE}/decisions", say("Decisions")),
        (f"{CENTRE}/policy", say("Policy")),
        (f"{CENTRE}/what-if", say("What if …?")),
    ]
    return render(request, visitor, template, tabs=tabs, centre=CENTRE, query=request.url.query, **context)


def _queue_query(request: Request) -> tuple[str, str, str]:
    query = request.query_params
    pool, person, code = (query.get(name, "").strip()[:200] for name in ("pool", "person", "code"))
    return pool, person, code


def _page_number(text: str | None) -> int:
    """A number from 1 on; anything else is the first."""
    given = (text or "").strip()
    return max(1, int(given)) if given.isascii() and given.isdecimal() and len(given) <= 9 else 1
