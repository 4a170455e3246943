"""`/api/v1/servers`: start a server, or wait in line for it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from hub_ext.desk.access import READ
from hub_ext.desk.auth import calls
from hub_ext.desk.desk import API, start_page
from hub_ext.desk.errors import Problem
from hub_ext.desk.handlers.api_tickets import waiting_body
from hub_ext.desk.mine import titles_of
from hub_ext.desk.rendering import desk_of
from hub_ext.desk.starting import HubStarts
from hub_ext.desk.views_lease import TicketBody
from hub_ext.desk.visitor import Caller
from hub_ext.quota.explain import explain

router = APIRouter(prefix=f"{API}/servers", tags=["servers"])
Reader = Annotated[Caller, Depends(calls(READ))]
Name = Annotated[str, Field(min_length=1, max_length=255)]


class NewServer(BaseModel):
    """What the start page's form sends: a profile, with a choice for each of its options."""

    model_config = ConfigDict(extra="forbid")

    server: Annotated[str, Field(max_length=255, description="Its name; empty for the default server")] = ""
    profile: Name
    pool: Annotated[Name | None, Field(description="Whose share; absent: the first from which it may")] = None
    minutes: Annotated[int | None, Field(ge=1, le=99999)] = None
    options: Annotated[dict[Name, Name], Field(max_length=50)] = {}

    def as_options(self) -> dict[str, Any]:
        chosen: dict[str, Any] = {**self.options, "profile": self.profile}
        return chosen | {
            name: value
            for name, value in (("pool", self.pool), ("minutes", self.minutes))
            if value is not None
        }


class StartedBody(BaseModel):
    """Either the lease under which it starts, or the ticket under which it waits."""

    lease: str | None = None
    ticket: TicketBody | None = None
    page: str = Field(description="Where a person sees it go on")


@router.post(
    "",
    status_code=202,
    summary="Start a server; where it has to wait, the answer is a ticket",
    responses={
        202: {"headers": {"Location": {"description": "The lease or ticket", "schema": {"type": "string"}}}}
    },
)
async def start(request: Request, response: Response, caller: Reader, wanted: NewServer) -> StartedBody:
    desk = desk_of(request)
    started = await HubStarts(desk).start(caller.person, wanted.server, wanted.as_options())
    if started.objection is not None:
        titles = titles_of(caller.policy, desk.profiles.catalogue)
        told = explain(
            started.objection.code, started.objection.facts, caller.say, titles=titles, now=desk.clock.now()
        )
        raise Problem(409, started.objection.code.value, str(told), **started.objection.facts)
    if started.ticket is not None:
        ticket = waiting_body(desk, caller, started.ticket)
        response.headers["Location"] = f"{API}/tickets/{ticket.id}"
        return StartedBody(ticket=ticket, page=ticket.page)
    assert started.lease is not None
    response.headers["Location"] = f"{API}/leases/{started.lease.id}"
    return StartedBody(lease=started.lease.id, page=start_page(caller.name, wanted.server))
