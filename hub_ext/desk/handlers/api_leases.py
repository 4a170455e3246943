"""`/api/v1/leases`: what a person runs; extend, stop and claim it. What a notebook knows of its own server, too."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from hub_ext.desk.access import READ
from hub_ext.desk.auth import calls
from hub_ext.desk.desk import API, Desk
from hub_ext.desk.errors import Problem, bad_cursor, not_found
from hub_ext.desk.leases import read_lease, read_leases
from hub_ext.desk.mine import titles_at
from hub_ext.desk.paging import LARGEST_LIMIT, LONGEST_CURSOR, Place, place_of
from hub_ext.desk.rendering import desk_of
from hub_ext.desk.views_lease import LeaseBody, lease_body
from hub_ext.desk.visitor import Caller
from hub_ext.quota.explain import explain
from hub_ext.quota.model import SERVER, Lease

router = APIRouter(prefix=f"{API}/leases", tags=["leases"])
Reader = Annotated[Caller, Depends(calls(READ))]
LeaseId = Annotated[str, Path(min_length=1, max_length=64)]
LONGEST_MINUTES: Final = 60 * 24 * 366


class LeasePage(BaseModel):
    items: list[LeaseBody]
    next: str | None


class ExtendBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    minutes: Annotated[int, Field(ge=1, le=LONGEST_MINUTES, description="To add, as far as the quota allows")]


@router.get("", summary="What the caller runs")
async def leases(
    request: Request,
    caller: Reader,
    server: Annotated[
        str | None, Query(max_length=255, description="Only the server of this name; empty: the default one")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=LARGEST_LIMIT)] = 50,
    cursor: Annotated[str | None, Query(max_length=LONGEST_CURSOR)] = None,
) -> LeasePage:
    desk = desk_of(request)
    after = checked_cursor(cursor)
    read = partial(read_leases, server=server, limit=limit, after=after)
    found, following = await desk.admission.in_thread(
        read, desk.store, caller.person, desk.clock.now(), titles_at(desk)
    )
    return LeasePage(items=[lease_body(facts, caller.say) for facts in found], next=following)


@router.get("/{lease_id}", summary="One lease of the caller's")
async def lease(request: Request, caller: Reader, lease_id: LeaseId) -> LeaseBody:
    desk = desk_of(request)
    await _own(desk, caller, lease_id)
    return await _body(desk, caller, lease_id)


@router.post("/{lease_id}/extend", summary="Let it run longer, as far as the quota allows")
async def extend(request: Request, caller: Reader, lease_id: LeaseId, wish: ExtendBody) -> LeaseBody:
    desk = desk_of(request)
    await _own(desk, caller, lease_id)
    extension = await desk.admission.extend(lease_id, wish.minutes, caller.name)
    if extension is None:
        raise not_found()
    objection = extension.objection
    if objection is not None:
        titles = titles_at(desk)(extension.policy)
        told = explain(objection.code, objection.facts, caller.say, titles=titles, now=extension.at)
        raise Problem(409, objection.code.value, str(told), **objection.facts)
    return await _body(desk, caller, lease_id)


@router.post("/{lease_id}/claim", summary="The person came to the server that was started for them")
async def claim(request: Request, caller: Reader, lease_id: LeaseId) -> LeaseBody:
    desk = desk_of(request)
    await _own(desk, caller, lease_id)
    if await desk.admission.claim(lease_id, caller.name) is None:
        raise not_found()
    return await _body(desk, caller, lease_id)


@router.delete("/{lease_id}", status_code=202, summary="Stop what it runs; it counts until that is gone")
async def stop(request: Request, caller: Reader, lease_id: LeaseId) -> Response:
    desk = desk_of(request)
    lease = await _own(desk, caller, lease_id)
    if lease.kind != SERVER:
        raise Problem(409, "not-a-server", lambda say: say("This is stopped where it was started."))
    if not await desk.admission.in_thread(desk.servers.stop, caller.name, lease.server):
        # The hub knows of none: whatever is left of it the clock ends.
        await desk.admission.ending(lease_id, caller.name, "person")
    return Response(status_code=202)


def checked_cursor(cursor: str | None) -> Place | None:
    """Raises Problem for what is no place in a list."""
    place = None if cursor is None else place_of(cursor)
    if cursor is not None and place is None:
        raise bad_cursor()
    return place


async def _own(desk: Desk, caller: Caller, lease_id: str) -> Lease:
    """A live lease of theirs; another's is as if it were not there."""
    lease = await desk.admission.find(lease_id)
    if lease is None or lease.person != caller.name or not lease.live:
        raise not_found()
    return lease


async def _body(desk: Desk, caller: Caller, lease_id: str) -> LeaseBody:
    found = await desk.admission.in_thread(
        read_lease, desk.store, caller.person, desk.clock.now(), titles_at(desk), lease_id
    )
    if found is None:
        raise not_found()
    return lease_body(found, caller.say)
