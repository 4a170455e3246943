"""Who asks: a browser's session through the hub's sign-in, or a token; and that a form came from our own page.

A session is a signed cookie with the hub's token in it, bound to the hub's own session: signing out of the hub signs
out here. What a person may comes fresh from the table of people at each request.

| handlers of | depend on |
|---|---|
| pages | `signed_in`, `signed_in_lead`, `signed_in_operator` |
| forms | those, and `checked_form` |
| the API | `calls(READ)`, `calls(LEAD)`, `calls(OPERATE)` |
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request, Response, Security
from fastapi.responses import RedirectResponse
from fastapi.security import APIKeyCookie, HTTPBearer
from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.datastructures import FormData
from starlette.requests import HTTPConnection

from hub_ext.desk.access import LEAD, OPERATE, READ, SCOPES, Access
from hub_ext.desk.desk import PREFIX, Desk
from hub_ext.desk.errors import Problem, answer, not_open, wants_page
from hub_ext.desk.hub_login import Identity
from hub_ext.desk.rendering import desk_of, request_language
from hub_ext.desk.visitor import Caller, Visitor
from hub_ext.pages.words import speaker

SERVICE: Final = "desk"
COOKIE: Final = "hangang-desk"
STATE_COOKIE: Final = "hangang-desk-state-"
STATE_SECONDS: Final = 600
CALLBACK: Final = f"{PREFIX}/oauth_callback"
LONGEST_ADDRESS: Final = 1000
LARGEST_FIELD: Final = 8 * 1024 * 1024
"""Bytes of one field as it is sent: a scenario of the whole centre."""
HUB_SESSION: Final = "jupyterhub-session-id"
SESSION_SECONDS: Final = 14 * 86400
MAY_COME_IN: Final = frozenset({"access:services", f"access:services!service={SERVICE}"})
_BY_TOKEN: Final = HTTPBearer(
    scheme_name="token", description="A token of the hub; it carries the scope.", auto_error=False
)
_BY_COOKIE: Final = APIKeyCookie(
    name=COOKIE,
    scheme_name="session",
    description="A browser that is signed in; scripts also send X-CSRF-Token, as a page of the desk names it.",
    auto_error=False,
)
"""How the API describes what `calls` looks at."""
_AUTHORIZATION = re.compile(r"(?:token|bearer)\s+(\S+)", re.IGNORECASE)
_STATE = re.compile(r"[\w-]{10,64}", re.ASCII)
_CHANGES_NOTHING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class SignInNeeded(Exception):
    """Nobody is signed in: a browser goes to the hub and comes back."""


@dataclass(frozen=True, slots=True)
class Session:
    """What the cookie holds."""

    token: str
    nonce: str

    def csrf(self, key: bytes) -> str:
        """Known to who can read our pages with this session's cookie, and to nobody else."""
        return hmac.new(key, f"csrf:{self.nonce}".encode(), hashlib.sha256).hexdigest()


def sealed(desk: Desk, purpose: str) -> URLSafeTimedSerializer:
    """Signs what is kept in browsers: nobody else's and nothing older is taken."""
    return URLSafeTimedSerializer(desk.key, salt=f"hangang-desk-{purpose}")


def keep_session(request: Request, response: Response, token: str) -> None:
    value = sealed(desk_of(request), "session").dumps([token, secrets.token_urlsafe(16)])
    response.set_cookie(
        COOKIE,
        str(value),
        max_age=SESSION_SECONDS,
        path=PREFIX,
        httponly=True,
        samesite="lax",
        secure=is_secure(request),
    )


def end_session(response: Response) -> None:
    response.delete_cookie(COOKIE, path=PREFIX)


def session_of(request: Request) -> Session | None:
    """What the browser brought, where it is ours; nothing is asked of the hub."""
    value = request.cookies.get(COOKIE)
    if not value:
        return None
    try:
        token, nonce = sealed(desk_of(request), "session").loads(value, max_age=SESSION_SECONDS)
    except (BadData, ValueError, TypeError):
        return None
    return Session(token, nonce) if isinstance(token, str) and isinstance(nonce, str) else None


def is_secure(request: Request) -> bool:
    """Whether the browser speaks https, as the proxies before us say."""
    forwarded = request.headers.get("x-forwarded-proto", request.url.scheme)
    return forwarded.split(",")[0].strip() == "https"


# -- to the hub and back ----------------------------------------------------------------------------------------------


def to_the_hub(request: Request) -> Response:
    """Away to the hub's sign-in, from where the browser comes back to the page that it asked for.

    What is needed at the return is signed and kept in the browser: any desk may answer it.
    """
    desk = desk_of(request)
    state, verifier = secrets.token_urlsafe(16), secrets.token_urlsafe(48)
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if len(here) > LONGEST_ADDRESS:
        here = f"{PREFIX}/"
    response = RedirectResponse(desk.login.address(state, verifier), 302, {"Cache-Control": "no-store"})
    response.set_cookie(
        f"{STATE_COOKIE}{state}",
        str(sealed(desk, "state").dumps([state, verifier, here])),
        max_age=STATE_SECONDS,
        path=CALLBACK,
        httponly=True,
        samesite="lax",
        secure=is_secure(request),
    )
    return response


def begun_here(request: Request, state: str) -> tuple[str, str] | None:
    """The verifier and the page to go back to, where this very browser began this sign-in."""
    if not _STATE.fullmatch(state):
        return None
    try:
        kept, verifier, here = sealed(desk_of(request), "state").loads(
            request.cookies.get(f"{STATE_COOKIE}{state}", ""), max_age=STATE_SECONDS
        )
    except (BadData, ValueError, TypeError):
        return None
    return (verifier, here) if kept == state else None


def forget_begun(request: Request, response: Response) -> None:
    """Every sign-in that began in this browser is done with."""
    for name in request.cookies:
        if name.startswith(STATE_COOKIE):
            response.delete_cookie(name, path=CALLBACK)


# -- pages ------------------------------------------------------------------------------------------------------------


async def signed_in(request: Request) -> Visitor:
    """Whoever is signed in, with what they may now. Raises SignInNeeded, Problem."""
    session, identity = await _session_and_identity(request)
    if request.method in _CHANGES_NOTHING and not _is_our_page_or_navigation(request, session):
        raise Problem(
            403, "not-our-page", lambda say: say("This request did not come from a page of the desk.")
        )
    caller = await _caller(request, identity)
    if not caller.access.has(READ):
        raise not_open()
    csrf = session.csrf(desk_of(request).key)
    visitor = Visitor(caller.person, caller.access, caller.policy, caller.say, csrf)
    request.state.visitor = visitor
    return visitor


SignedIn = Annotated[Visitor, Depends(signed_in)]


async def signed_in_lead(visitor: SignedIn) -> Visitor:
    """Somebody who answers for a pool at least."""
    if not visitor.leads:
        raise not_open()
    return visitor


async def signed_in_operator(visitor: SignedIn) -> Visitor:
    if not visitor.operates:
        raise not_open()
    return visitor


async def checked_form(request: Request, visitor: SignedIn) -> FormData:
    """The form that one of our own pages sent, for this very session."""
    form = await request.form(max_files=0, max_fields=200, max_part_size=LARGEST_FIELD)
    given = form.get("_csrf")
    if not isinstance(given, str) or not _same(given, visitor.csrf):
        raise _forged()
    return form


# -- the API ----------------------------------------------------------------------------------------------------------


def calls(scope: str) -> Callable[..., Awaitable[Caller]]:
    """The dependency of an operation that needs a scope; the API's description names it."""
    if scope not in SCOPES:
        raise ValueError(f"{scope!r} is no scope of the desk")

    async def caller(
        request: Request,
        _token: object = Security(_BY_TOKEN, scopes=[scope]),
        _session: object = Security(_BY_COOKIE, scopes=[scope]),
    ) -> Caller:
        return await caller_with(request, scope)

    return caller


async def caller_with(request: Request, scope: str) -> Caller:
    """Who calls, with a token or as a browser; both need the scope, and the role that stands behind it."""
    given = request.headers.get("authorization")
    identity = await (_by_token(request, given) if given is not None else _by_cookie(request))
    found = await _caller(request, identity)
    if not found.access.has(scope):
        raise Problem(
            403,
            "scope-missing",
            lambda say: say("This needs a token with the scope {scope}.", scope=scope),
            scope=scope,
        )
    if (scope == OPERATE and not found.operates) or (scope == LEAD and not found.leads):
        raise not_open()
    return found


async def caller_by(connection: HTTPConnection, token: str) -> Caller:
    """Who has this session's token, where nothing else came along. Raises SignInNeeded, Problem, HubError."""
    identity = await desk_of(connection).login.identity(token)
    if identity is None:
        raise SignInNeeded
    caller = await _caller(connection, identity)
    if not caller.access.has(READ):
        raise not_open()
    return caller


async def token_identity(request: Request) -> Identity:
    """Whose token the request came with; for what is open to services too."""
    return await _by_token(request, request.headers.get("authorization", ""))


async def _by_token(request: Request, given: str) -> Identity:
    match = _AUTHORIZATION.fullmatch(given.strip())
    identity = await desk_of(request).login.identity(match[1]) if match else None
    if identity is None:
        raise Problem(
            401, "token-unknown", lambda say: say("The hub does not know this token, or it has run out.")
        )
    return identity


async def _by_cookie(request: Request) -> Identity:
    """A browser's script: it must show that it read one of our pages, also where it changes nothing."""
    try:
        session, identity = await _session_and_identity(request)
    except SignInNeeded:
        raise not_signed_in() from None
    navigates = request.method in _CHANGES_NOTHING and _navigates(request)
    if not navigates and not _has_csrf(request, session):
        raise _forged()
    return identity


# -- both -------------------------------------------------------------------------------------------------------------


def not_signed_in() -> Problem:
    return Problem(
        401, "not-signed-in", lambda say: say("Nobody is signed in here, or the session is over. Sign in.")
    )


def _forged() -> Problem:
    return Problem(
        403,
        "form-not-ours",
        lambda say: say(
            "This form is too old or not one of ours. Go back, load the page anew and try again."
        ),
    )


async def _session_and_identity(request: Request) -> tuple[Session, Identity]:
    session = session_of(request)
    if session is None:
        raise SignInNeeded
    identity = await desk_of(request).login.identity(session.token)
    # The hub's cookie goes when its session ends, also where the hub has not been asked again yet.
    if identity is None or (identity.session and identity.session != request.cookies.get(HUB_SESSION)):
        raise SignInNeeded
    return session, identity


async def _caller(request: HTTPConnection, identity: Identity) -> Caller:
    if not identity.scopes & MAY_COME_IN:
        raise not_open()
    desk = desk_of(request)
    policy, person = await desk.admission.in_thread(desk.policy_and_person, identity.name)
    if identity.service or person is None:
        raise Problem(
            403,
            "person-unknown",
            lambda say: say("The desk knows nobody of this name: sign in at the hub once."),
        )
    return Caller(person, Access(person, identity.scopes), policy, speaker(policy, request_language(request)))


def _is_our_page_or_navigation(request: Request, session: Session) -> bool:
    """Another program at the hub's address (somebody's server) could else read our pages by script."""
    return _navigates(request) or _has_csrf(request, session)


def _navigates(request: Request) -> bool:
    """Whether the browser shows the answer as a page; browsers of before 2023 do not tell."""
    return request.headers.get("sec-fetch-mode", "navigate") == "navigate"


def _has_csrf(request: Request, session: Session) -> bool:
    """In the header, or in the address where a browser sets no headers (EventSource)."""
    given = request.headers.get("x-csrf-token") or request.query_params.get("_csrf", "")
    return _same(given, session.csrf(desk_of(request).key))


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


async def sign_in_first(request: Request, error: Exception) -> Response:
    """A page leads to the hub's sign-in; scripts, forms and streams are told."""
    if request.method == "GET" and wants_page(request) and _navigates(request):
        return to_the_hub(request)
    return await answer(request, not_signed_in())
