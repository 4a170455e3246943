"""The dashboards of Dask clusters, for whoever owns the cluster and for operators; to all others there are none.

| address | who |
|---|---|
| `/clusters/{name}/{path}` | a browser that is signed in: it is given a pass, and led to the next; a program with a token: the answer |
| `/clusters/{name}/-/{pass}/{path}` | the page and its parts, which have no cookies; opened as a page by whoever is signed in only |
"""

from __future__ import annotations

from typing import Final

import structlog
from fastapi import APIRouter, Request, Response, WebSocket
from fastapi.responses import RedirectResponse
from starlette.requests import HTTPConnection

from hub_ext.core.errors import HubError
from hub_ext.desk.access import READ
from hub_ext.desk.auth import SignInNeeded, caller_by, caller_with, session_of, signed_in
from hub_ext.desk.desk import Desk
from hub_ext.desk.errors import Problem, not_found
from hub_ext.desk.front import Front
from hub_ext.desk.front_rules import CLUSTERS, base_of, is_cluster, page_of, query_of, rest_of
from hub_ext.desk.passes import Passes
from hub_ext.desk.rendering import desk_of
from hub_ext.desk.visitor import Caller
from hub_ext.quota.model import SCHEDULER, Lease

log = structlog.get_logger("hub_ext.desk")

router = APIRouter(prefix=CLUSTERS, include_in_schema=False)
READS: Final = ["GET", "HEAD"]
"""A dashboard only shows; whatever else its scheduler takes does not come through here."""
_PART: Final = "/{name}/-/{given}/{path:path}"


@router.api_route(_PART, methods=READS)
async def part(request: Request, name: str, given: str) -> Response:
    """The page itself and whatever it loads."""
    base = base_of(name, given)
    rest, query = _asked(request, name, base)
    if request.headers.get("sec-fetch-dest") == "serviceworker":
        raise not_found()  # it would answer for the front, without its policy
    if (
        request.headers.get("sec-fetch-mode") == "navigate"
        and request.headers.get("sec-fetch-dest") != "iframe"
    ):
        # An address that was passed on opens nothing for somebody else.
        await _open_to(await signed_in(request), desk_of(request), name)
    if not await _passes(request, name, given):
        if request.headers.get("sec-fetch-mode") != "navigate":
            raise not_found()
        return RedirectResponse(_with(page_of(name, rest), query), 302, {"Cache-Control": "no-store"})
    return await _front(request).fetch(request, name, rest, query, base)


@router.websocket(_PART)
async def stream(browser: WebSocket, name: str, given: str) -> None:
    """What draws the page anew."""
    rest = rest_of(browser.scope["raw_path"], base_of(name, given)) if is_cluster(name) else None
    query = query_of(browser.scope["query_string"])
    try:
        known = rest is not None and query is not None and await _passes(browser, name, given)
    except HubError:
        await browser.send_denial_response(Response(status_code=503))
        return
    if not known or rest is None or query is None:
        await browser.send_denial_response(Response(status_code=404))
        return

    async def still_open() -> bool:
        try:
            return await _passes(browser, name, given)
        except HubError:
            return True  # nobody can be asked at this moment

    await _front(browser).join(browser, name, rest, query, still_open)


@router.api_route("/{name}", methods=READS)
@router.api_route("/{name}/{path:path}", methods=READS)
async def dashboard(request: Request, name: str) -> Response:
    """Where links to a dashboard lead."""
    bare = f"{CLUSTERS}/{name}"
    if request.scope["raw_path"].decode("latin-1").rstrip("/") == bare:
        if not is_cluster(name):
            raise not_found()
        return RedirectResponse(page_of(name), 302)
    rest, query = _asked(request, name, f"{bare}/")
    if "authorization" in request.headers:
        await _open_to(await caller_with(request, READ), desk_of(request), name)
        return await _front(request).fetch(request, name, rest, query, f"{bare}/")
    visitor, desk = await signed_in(request), desk_of(request)
    lease = await _open_to(visitor, desk, name)
    if lease.person != visitor.name:
        log.info("an operator looks at a dashboard", who=visitor.name, cluster=name, owner=lease.person)
    session = session_of(request)
    assert session is not None
    given = Passes(desk.key).give(name, session.token, desk.clock.now())
    return RedirectResponse(_with(base_of(name, given) + rest, query), 302, {"Cache-Control": "no-store"})


def _asked(request: Request, name: str, base: str) -> tuple[str, str]:
    """The page and the query that are asked for. Raises Problem for an address that no dashboard has."""
    rest = rest_of(request.scope["raw_path"], base) if is_cluster(name) else None
    query = query_of(request.scope["query_string"])
    if rest is None or query is None:
        raise not_found()
    return rest, query


async def _open_to(caller: Caller, desk: Desk, name: str) -> Lease:
    """The lease of the scheduler that shows it. Raises Problem where that does not run, or is not theirs to see."""
    lease = await desk.admission.find(name)
    if lease is None or not lease.live or lease.kind != SCHEDULER:
        raise not_found()
    if not caller.access.may_see_of(lease.person):
        raise not_found()
    return lease


async def _passes(connection: HTTPConnection, name: str, given: str) -> bool:
    """Whether this pass (still) opens this dashboard. Raises HubError where that cannot be asked."""
    desk: Desk = connection.app.state.desk
    token = Passes(desk.key).token_in(given, name, desk.clock.now()) if is_cluster(name) else None
    if token is None:
        return False
    try:
        await _open_to(await caller_by(connection, token), desk, name)
    except (SignInNeeded, Problem):
        return False
    return True


def _with(address: str, query: str) -> str:
    return f"{address}?{query}" if query else address


def _front(connection: HTTPConnection) -> Front:
    front: Front = connection.app.state.front
    return front
