"""The page *mine*: what one person runs, waits for and has left; stop and extend servers and clusters, leave the line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import FormData

from hub_ext.desk.auth import SignedIn, checked_form
from hub_ext.desk.clusters import extend_cluster
from hub_ext.desk.desk import PREFIX
from hub_ext.desk.errors import not_found
from hub_ext.desk.front_rules import is_cluster
from hub_ext.desk.hub_api import HubAway
from hub_ext.desk.mine import mark_of_mine, read_mine, span_of, titles_at
from hub_ext.desk.rendering import desk_of, render
from hub_ext.desk.streaming import streamed_table
from hub_ext.desk.views_clusters import why_shorter
from hub_ext.desk.views_mine import SPANS, MineFacts, hours_table, mine_page, why_not
from hub_ext.desk.visitor import Visitor
from hub_ext.quota.codes import Ended
from hub_ext.quota.model import Lease

router = APIRouter(include_in_schema=False)
MINE = f"{PREFIX}/mine"
Form = Annotated[FormData, Depends(checked_form)]


@router.get(MINE)
async def mine(request: Request, visitor: SignedIn) -> Response:
    mark = await _mark(request, visitor)
    if request.headers.get("if-none-match") == mark:
        return Response(status_code=304, headers={"ETag": mark, "Cache-Control": "no-store"})
    done = {
        "stopping": visitor.say("The server is being stopped. Your files are kept."),
        "extended": visitor.say("The server runs longer now."),
        "cluster-stopping": visitor.say("The cluster is being stopped. Your notebook goes on."),
        "cluster-extended": visitor.say("The cluster runs longer now."),
        "left": visitor.say("You left the line."),
    }.get(request.query_params.get("done", ""), "")
    return await _page(request, visitor, done=done, headers={"ETag": mark})


@router.get(f"{MINE}/hours.csv")
async def hours(request: Request, visitor: SignedIn) -> Response:
    facts = await _facts(request, visitor)
    header, rows = hours_table(facts)
    return await streamed_table(desk_of(request).admission, header, [rows], name="my-gpu-hours")


@router.post(f"{MINE}/stop")
async def stop(request: Request, visitor: SignedIn, form: Form) -> Response:
    """Through the hub, which ends what runs and tells the ledger."""
    desk = desk_of(request)
    lease = await _own(request, visitor, form)
    try:
        known = await desk.admission.in_thread(desk.servers.stop, visitor.name, lease.server)
    except HubAway:
        alert = visitor.say(
            "The hub did not take the stop; the server may still be starting. Try again in a minute."
        )
        return await _page(request, visitor, alert=alert, status=503)
    if not known:
        alert = visitor.say("The hub knows no such server any more; it disappears here in some minutes.")
        return await _page(request, visitor, alert=alert, status=409)
    return RedirectResponse(f"{MINE}?done=stopping", 303)


@router.post(f"{MINE}/extend")
async def extend(request: Request, visitor: SignedIn, form: Form) -> Response:
    lease = await _own(request, visitor, form)
    extension = await desk_of(request).admission.extend(lease.id, _minutes(form), visitor.name)
    if extension is None:
        raise not_found()
    if extension.objection is not None:
        facts = await _facts(request, visitor)
        alert = why_not(facts, extension.objection, visitor.say)
        return await _page(request, visitor, alert=alert, status=409, facts=facts)
    return RedirectResponse(f"{MINE}?done=extended", 303)


@router.post(f"{MINE}/clusters/stop")
async def stop_cluster(request: Request, visitor: SignedIn, form: Form) -> Response:
    """The gateway ends what it runs, and the leases with it."""
    name = await _own_cluster(request, visitor, form)
    await desk_of(request).admission.end_cluster(name, visitor.name, Ended.PERSON.value)
    return RedirectResponse(f"{MINE}?done=cluster-stopping#clusters-title", 303)


@router.post(f"{MINE}/clusters/extend")
async def extend_own_cluster(request: Request, visitor: SignedIn, form: Form) -> Response:
    desk = desk_of(request)
    name = await _own_cluster(request, visitor, form)
    minutes = _minutes(form)
    done = await desk.admission.in_thread(
        extend_cluster, desk.store, desk.clock.now(), name, minutes, visitor.name
    )
    if done is None:
        raise not_found()
    extension, policy, now = done
    if extension.objection is not None:
        titles = titles_at(desk)(policy)
        alert = why_shorter(extension, visitor.say, titles=titles, now=now)
        return await _page(request, visitor, alert=alert, status=200 if extension.longer else 409)
    return RedirectResponse(f"{MINE}?done=cluster-extended#clusters-title", 303)


@router.post(f"{MINE}/leave")
async def leave(request: Request, visitor: SignedIn, form: Form) -> Response:
    left = await desk_of(request).admission.leave(str(form.get("ticket", "")), visitor.name)
    if left is None:
        alert = visitor.say("You are not in that line any more: your turn came, or you left it.")
        return await _page(request, visitor, alert=alert, status=409)
    return RedirectResponse(f"{MINE}?done=left", 303)


async def _own(request: Request, visitor: Visitor, form: FormData) -> Lease:
    """The live lease of theirs that the form names; anything else is not there."""
    lease = await desk_of(request).admission.find(str(form.get("lease", "")))
    if lease is None or not lease.live or lease.person != visitor.name:
        raise not_found()
    return lease


async def _own_cluster(request: Request, visitor: Visitor, form: FormData) -> str:
    """The name of a cluster of theirs that the form names; anything else is not there."""
    name = str(form.get("cluster", ""))
    held = (
        (await desk_of(request).admission.clusters([name], person=visitor.name)) if is_cluster(name) else {}
    )
    if name not in held:
        raise not_found()
    return name


def _minutes(form: FormData) -> int:
    given = str(form.get("minutes", ""))
    if not (given.isascii() and given.isdecimal() and 0 < len(given) <= 5 and int(given)):
        raise not_found()
    return int(given)


async def _mark(request: Request, visitor: Visitor) -> str:
    """For scripts that look whether anything is new; frozen sets have no order of their own, names of roles do."""
    desk, roles = desk_of(request), sorted(visitor.person.roles)
    person = replace(visitor.person, roles=frozenset(), profiles=frozenset())
    mark = await desk.admission.in_thread(
        mark_of_mine, desk.store, person, desk.clock.now(), *roles, visitor.language, request.url.query
    )
    return f'"{mark}"'


async def _facts(request: Request, visitor: Visitor) -> MineFacts:
    desk = desk_of(request)
    span = span_of(request.query_params.get("days"))
    return await desk.admission.in_thread(
        read_mine, desk.store, titles_at(desk), visitor.person, desk.clock.now(), span
    )


async def _page(
    request: Request,
    visitor: Visitor,
    *,
    done: str = "",
    alert: str = "",
    status: int = 200,
    facts: MineFacts | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    page = mine_page(facts or await _facts(request, visitor), visitor.say)
    return render(
        request,
        visitor,
        "mine.html",
        status=status,
        headers=headers,
        page=page,
        done=done,
        alert=alert,
        spans=SPANS,
        open_url=f"/user/{quote(visitor.name, safe='')}/",
    )
