"""`/api/v1/tickets`: what a person waits for, what became of it, and leaving the line."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel

from hub_ext.desk.access import READ
from hub_ext.desk.auth import calls
from hub_ext.desk.desk import API, Desk, ticket_page
from hub_ext.desk.errors import not_found
from hub_ext.desk.handlers.api_leases import checked_cursor
from hub_ext.desk.mine import titles_at
from hub_ext.desk.paging import LARGEST_LIMIT, LONGEST_CURSOR, Place, one_page
from hub_ext.desk.rendering import desk_of
from hub_ext.desk.views_lease import TicketBody, ticket_body
from hub_ext.desk.views_waiting import over_page
from hub_ext.desk.visitor import Caller
from hub_ext.quota.model import Ticket
from hub_ext.quota.service import Standing

router = APIRouter(prefix=f"{API}/tickets", tags=["tickets"])
Reader = Annotated[Caller, Depends(calls(READ))]
TicketId = Annotated[str, Path(min_length=1, max_length=64)]


class TicketPage(BaseModel):
    items: list[TicketBody]
    next: str | None


@router.get("", summary="What the caller waits for")
async def tickets(
    request: Request,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=LARGEST_LIMIT)] = 50,
    cursor: Annotated[str | None, Query(max_length=LONGEST_CURSOR)] = None,
) -> TicketPage:
    desk = desk_of(request)
    after = checked_cursor(cursor)
    found, following = await desk.admission.in_thread(_page, desk, caller.name, limit, after)
    return TicketPage(items=[waiting_body(desk, caller, ticket) for ticket in found], next=following)


@router.get("/{ticket_id}", summary="How a ticket stands, or what became of it")
async def ticket(request: Request, caller: Reader, ticket_id: TicketId) -> TicketBody:
    desk = desk_of(request)
    standing = await desk.admission.standing(ticket_id)
    if standing.ticket is not None:
        if not caller.access.may_see_of(standing.ticket.ask.person):
            raise not_found()
        return waiting_body(desk, caller, standing.ticket)
    return _after(desk, caller, ticket_id, standing)


@router.delete("/{ticket_id}", status_code=204, summary="Leave the line")
async def leave(request: Request, caller: Reader, ticket_id: TicketId) -> Response:
    if await desk_of(request).admission.leave(ticket_id, caller.name) is None:
        raise not_found()
    return Response(status_code=204)


def waiting_body(desk: Desk, caller: Caller, ticket: Ticket) -> TicketBody:
    titles = titles_at(desk)(caller.policy)
    return ticket_body(ticket, caller.say, titles=titles, now=desk.clock.now(), page=ticket_page(ticket.id))


def _page(desk: Desk, person: str, limit: int, after: Place | None) -> tuple[list[Ticket], str | None]:
    with desk.store.reading() as txn:
        found = txn.tickets(person=person)
    return one_page(found, lambda one: (one.made_at, one.id), limit, after)


def _after(desk: Desk, caller: Caller, ticket_id: str, standing: Standing) -> TicketBody:
    lease, over = standing.lease, standing.over
    person = lease.person if lease is not None else over.person if over is not None else None
    if not person or not caller.access.may_see_of(person):
        raise not_found()
    titles = titles_at(desk)(caller.policy)
    if lease is not None and lease.live:
        return TicketBody(
            id=ticket_id,
            state="turn",
            server=lease.server,
            pool=lease.pool,
            profile=lease.profile,
            amounts=dict(lease.amounts),
            lease=lease.id,
            page=ticket_page(ticket_id),
        )
    told = over_page(over, lease, caller.say, titles=titles, now=desk.clock.now()).told
    facts = over.facts if over is not None else {}
    return TicketBody(
        id=ticket_id,
        state="over",
        server=lease.server if lease is not None else str(facts.get("server") or ""),
        pool=lease.pool if lease is not None else (over.pool or "" if over is not None else ""),
        profile=lease.profile if lease is not None else facts.get("profile"),
        amounts=dict(lease.amounts) if lease is not None else {},
        sentence=str(told),
        why=lease.reason if lease is not None else (over.why if over is not None else None),
        successor=standing.successor,
        page=ticket_page(ticket_id),
    )
