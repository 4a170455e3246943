"""Signing in and out, where the desk begins, and whether it is alive."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from hub_ext.desk.auth import (
    CALLBACK,
    begun_here,
    end_session,
    forget_begun,
    keep_session,
    session_of,
)
from hub_ext.desk.desk import HUB, PREFIX
from hub_ext.desk.errors import Problem
from hub_ext.desk.hub_login import CodeRefused
from hub_ext.desk.rendering import desk_of

router = APIRouter(include_in_schema=False)


@router.get(f"{PREFIX}/health")
async def health() -> JSONResponse:
    """That the process answers; what it needs may still be away, which its pages then say."""
    return JSONResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})


@router.get(PREFIX)
@router.get(f"{PREFIX}/")
async def start() -> Response:
    return RedirectResponse(f"{PREFIX}/mine", 302)


@router.get(CALLBACK)
async def come_back(request: Request, code: str = "", state: str = "", error: str = "") -> Response:
    """Where the hub sends the browser back to."""
    # 1. Only what began in this very browser goes on; whatever else is in the address is anybody's words.
    begun = begun_here(request, state)
    if begun is None:
        raise _not_begun()
    if error or not code:
        raise Problem(
            403, "sign-in-ended", lambda say: say("The hub did not sign you in here. Sign in again.")
        )
    verifier, here = begun
    # 2. The code is good once, with the verifier that only this browser has.
    desk = desk_of(request)
    try:
        token = await desk.login.token_for(code, verifier)
    except CodeRefused:
        raise _not_begun() from None
    if await desk.login.identity(token) is None:
        raise _not_begun()
    # 3. Signed in: back to the page that was asked for.
    response = RedirectResponse(here, 302, {"Cache-Control": "no-store"})
    keep_session(request, response, token)
    forget_begun(request, response)
    return response


@router.get(f"{PREFIX}/logout")
async def sign_out(request: Request) -> Response:
    """Here and at the hub."""
    session = session_of(request)
    if session is not None:
        desk_of(request).login.forget(session.token)
    response = RedirectResponse(f"{HUB}logout", 302, {"Cache-Control": "no-store"})
    end_session(response)
    return response


def _not_begun() -> Problem:
    return Problem(
        400,
        "sign-in-not-begun",
        lambda say: say("This sign-in did not begin in this browser, or took too long. Sign in again."),
    )
