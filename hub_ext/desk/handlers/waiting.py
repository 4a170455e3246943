"""The waiting room: the page of one ticket, what changes on it while it is open, and the ways out of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Annotated, Any, Final

import anyio
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.datastructures import FormData

from hub_ext.core.errors import HubError
from hub_ext.desk.auth import SignedIn, checked_form, session_of
from hub_ext.desk.clusters import is_of_cluster
from hub_ext.desk.desk import PREFIX, Desk, start_page, ticket_page
from hub_ext.desk.errors import Problem, not_found
from hub_ext.desk.live import Seen, Subscription, Watch
from hub_ext.desk.mine import titles_of
from hub_ext.desk.rendering import desk_of, render
from hub_ext.desk.starting import HubStarts
from hub_ext.desk.views_waiting import Instead, around_lines, in_line, instead_of, over_page
from hub_ext.desk.visitor import Visitor
from hub_ext.desk.waiting import Sight, Turn, read_sight
from hub_ext.quota.model import LeaseState, Ticket
from hub_ext.quota.service import Standing

router = APIRouter(prefix=f"{PREFIX}/tickets/{{ticket_id}}", include_in_schema=False)

HEARTBEAT_SECONDS: Final = 10
"""A page that hears nothing for twice as long opens the stream anew: a proxy may keep it open when the desk is gone."""
SEND_SECONDS: Final = 10
"""A page that takes nothing for so long is cut."""
STREAM_SECONDS: Final = 600
"""No stream lasts longer: the page opens the next one by itself."""
FAREWELL_SECONDS: Final = 2
"""What a stream has to end in when the desk does."""
SESSION_SECONDS: Final = 60.0
"""How often an open stream looks whether its reader is still signed in."""

Form = Annotated[FormData, Depends(checked_form)]


@router.get("")
async def waiting_room(request: Request, ticket_id: str, visitor: SignedIn) -> Response:
    """The page; where the turn has come, the way to the server; afterwards, what happened."""
    desk = desk_of(request)
    sight = await desk.admission.in_thread(read_sight, desk.store, desk.clock, ticket_id)
    if sight is None:
        return await _after(request, desk, ticket_id, visitor)
    if not visitor.access.may_see_of(sight.ticket.ask.person):
        raise not_found()
    if is_of_cluster(sight.ticket.ask.kind):  # it grows by itself: nothing is to be opened or started instead
        return RedirectResponse(f"{PREFIX}/mine#clusters-title", 303)
    return render(request, visitor, "waiting.html", **await _room(desk, sight, visitor))


@router.get("/around")
async def around_now(request: Request, ticket_id: str, visitor: SignedIn) -> Response:
    """The part of the page that is about others and about what would start now, for its script."""
    desk = desk_of(request)
    sight = await desk.admission.in_thread(read_sight, desk.store, desk.clock, ticket_id)
    if sight is None or not visitor.access.may_see_of(sight.ticket.ask.person):
        raise not_found()
    return render(request, visitor, "waiting_around.html", **await _room(desk, sight, visitor))


@router.get("/events")
async def events(request: Request, ticket_id: str, visitor: SignedIn) -> Response:
    """What changes about the ticket, as it changes (server-sent events)."""
    desk = desk_of(request)
    sight = await desk.admission.in_thread(read_sight, desk.store, desk.clock, ticket_id)
    if sight is not None and not visitor.access.may_see_of(sight.ticket.ask.person):
        raise not_found()
    if sight is None and (await _standing_of(desk, ticket_id, visitor)) is None:
        raise not_found()
    ending = anyio.Event()
    return EventSourceResponse(
        _stream(request, desk, sight, ticket_id, visitor, ending),
        ping=HEARTBEAT_SECONDS,
        ping_message_factory=_heartbeat,
        send_timeout=SEND_SECONDS,
        shutdown_event=ending,
        shutdown_grace_period=FAREWELL_SECONDS,
    )


@router.get("/go")
async def go(request: Request, ticket_id: str, visitor: SignedIn) -> Response:
    """To the server that was started for them: whoever comes here has come."""
    desk = desk_of(request)
    standing = await desk.admission.standing(ticket_id)
    lease = standing.lease
    if lease is None or not lease.live or lease.person != visitor.name:
        return RedirectResponse(ticket_page(ticket_id), 303)
    await desk.admission.claim(lease.id, visitor.name)
    return to_the_server(visitor.name, lease.server)


@router.post("/leave")
async def leave(request: Request, ticket_id: str, visitor: SignedIn, form: Form) -> Response:
    left = await desk_of(request).admission.leave(ticket_id, visitor.name)
    here = ticket_page(ticket_id)
    if left is None and await _standing_of(desk_of(request), ticket_id, visitor) is None:
        raise not_found()
    return RedirectResponse(here, 303)


@router.post("/instead")
async def start_instead(request: Request, ticket_id: str, visitor: SignedIn, form: Form) -> Response:
    """Start something else as the same server; that takes the ticket's place."""
    desk = desk_of(request)
    sight = await desk.admission.in_thread(read_sight, desk.store, desk.clock, ticket_id)
    if sight is None or sight.ticket.ask.person != visitor.name:
        raise not_found()
    server = sight.ticket.ask.server
    options = {name: value for name, value in form.items() if name != "_csrf" and isinstance(value, str)}
    started = await HubStarts(desk).start(visitor.person, server, options, instead_of=ticket_id)
    if started.objection is not None:
        raise Problem(
            409,
            started.objection.code.value,
            lambda say: say("This cannot be started any more at this moment. Your place in line is kept."),
            **started.objection.facts,
        )
    if started.ticket is not None:
        return RedirectResponse(ticket_page(started.ticket.id), 303)
    return to_the_server(visitor.name, server)


def to_the_server(person: str, server: str) -> Response:
    return RedirectResponse(start_page(person, server), 303)


# -- the page ---------------------------------------------------------------------------------------------------------


async def _room(desk: Desk, sight: Sight, visitor: Visitor) -> dict[str, Any]:
    ticket, policy, say = sight.ticket, sight.policy, visitor.say
    titles = titles_of(policy, desk.profiles.catalogue)
    mine = ticket.ask.person == visitor.name
    instead: tuple[Instead, ...] = ()
    if mine and not ticket.elastic:
        menu = await desk.profiles.menu(visitor.name, first_ends=False, instead_of=ticket.id)
        instead = instead_of(ticket, menu.profiles, menu.decisions, menu.preview.policy, say)
    return {
        "ticket": ticket,
        "mine": mine,
        "line": in_line(ticket, say, titles=titles, now=sight.at),
        "around": around_lines(sight.around, ticket.ask.pool, say, titles=titles, now=sight.at),
        "instead": instead,
        "claim": say.duration(policy.queue.claim),
        "since": say.moment(ticket.made_at, sight.at),
        "since_exact": say.exact(ticket.made_at),
        "pool": say.text(titles.get(ticket.ask.pool, {}), ticket.ask.pool),
    }


async def _after(request: Request, desk: Desk, ticket_id: str, visitor: Visitor) -> Response:
    """A ticket that waits no more."""
    standing = await _standing_of(desk, ticket_id, visitor)
    if standing is None:
        raise not_found()
    if standing.successor is not None:
        return RedirectResponse(ticket_page(standing.successor), 303)
    lease, say = standing.lease, visitor.say
    if lease is not None and lease.live:
        return render(request, visitor, "waiting_turn.html", ticket_id=ticket_id, lease=lease)
    titles = titles_of(visitor.policy, desk.profiles.catalogue)
    page = over_page(standing.over, lease, say, titles=titles, now=desk.clock.now())
    return render(request, visitor, "waiting_over.html", page=page)


async def _standing_of(desk: Desk, ticket_id: str, visitor: Visitor) -> Standing | None:
    """What became of a ticket; None where there never was one, or it is not theirs to see."""
    standing = await desk.admission.standing(ticket_id)
    people = {
        *([standing.ticket.ask.person] if standing.ticket is not None else []),
        *([standing.lease.person] if standing.lease is not None else []),
        *([standing.over.person] if standing.over is not None else []),
    }
    if not people or not all(person and visitor.access.may_see_of(person) for person in people):
        return None
    return standing


# -- live -------------------------------------------------------------------------------------------------------------


async def _stream(
    request: Request,
    desk: Desk,
    sight: Sight | None,
    ticket_id: str,
    visitor: Visitor,
    ending: anyio.Event,
) -> AsyncIterator[ServerSentEvent]:
    """Ends with the wait, with the desk (`ending`), or after `STREAM_SECONDS`; the page then goes on or comes back."""
    if sight is None:
        yield ServerSentEvent(event="over", data="{}")
        return
    watch: Watch = request.app.state.watch
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + STREAM_SECONDS
    ended = asyncio.ensure_future(ending.wait())
    try:
        async with watch.subscribe(ticket_id) as page:
            yield ServerSentEvent(comment="open", retry=2000)
            while (left := ends_at - loop.time()) > 0 and not ended.done():
                seen = await _first(page, ended, min(left, SESSION_SECONDS))
                if seen is not None:
                    yield _event(seen, sight.ticket, visitor, desk)
                    if isinstance(seen.known, Turn):
                        return
                elif not ended.done() and not await _still_signed_in(request, desk):
                    yield ServerSentEvent(event="signed-out", data="{}")
                    return
    finally:
        ended.cancel()


async def _first(page: Subscription, ended: asyncio.Future[None], seconds: float) -> Seen | None:
    """What is seen next; None where the desk ends before, or nothing comes for so long."""
    following = asyncio.ensure_future(page.following())
    try:
        either: set[asyncio.Future[Any]] = {following, ended}
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return following.result() if following.done() else None
    finally:
        following.cancel()


def _heartbeat() -> ServerSentEvent:
    """An event and no comment, so that the page's script hears it."""
    return ServerSentEvent(event="beat", data="{}")


def _event(seen: Seen, ticket: Ticket, visitor: Visitor, desk: Desk) -> ServerSentEvent:
    if seen.look is None or seen.known is None:
        return ServerSentEvent(event="away", data="{}")
    if isinstance(seen.known, Turn):
        turn = seen.known.state in (LeaseState.BOOKED, LeaseState.RUNNING)
        return ServerSentEvent(event="turn" if turn else "over", data="{}")
    titles = titles_of(seen.look.policy, desk.profiles.catalogue)
    line = in_line(replace(ticket, outlook=seen.known), visitor.say, titles=titles, now=seen.look.at)
    return ServerSentEvent(event="line", data=json.dumps(asdict(line), ensure_ascii=False))


async def _still_signed_in(request: Request, desk: Desk) -> bool:
    """As far as the hub can be asked: while it is away nobody is sent off."""
    session = session_of(request)
    if session is None:
        return False
    try:
        return await desk.login.identity(session.token) is not None
    except HubError:
        return True
