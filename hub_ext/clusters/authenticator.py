"""Who asks the gateway: a person whom the hub knows by their token, as they stand in the table of people right now.

Nobody is remembered between two requests: whoever lost their place, their pools or their token has lost it at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import aiohttp
from aiohttp import web
from dask_gateway_server.auth import JupyterHubAuthenticator
from dask_gateway_server.models import User

from hub_ext.clusters.settings import SERVICE
from hub_ext.core.people import Person

HUB_SECONDS = 20
OWN_SERVER = "access:servers!server="
"""What the token of a server may, and no other one: it tells which server asks."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Asker(User):
    """A person, and the server that they ask from: "" is their default one, None any place outside of servers.

    `language` is the `Accept-Language` of their request.
    """

    def __init__(self, person: Person, server: str | None, language: str = "") -> None:
        super().__init__(person.name)
        self.person = person
        self.server = server
        self.language = language


@dataclass(frozen=True)
class People:
    """Looks somebody up by name among those who have signed in at the hub."""

    find: Callable[[str], Awaitable[Person | None]]


class PeopleAuthenticator(JupyterHubAuthenticator):
    """Asks the hub whose token it is, and the table of people who that is."""

    people: ClassVar[People | None] = None

    async def setup(self, app: web.Application) -> None:
        # A hub that does not answer must not hold requests for minutes.
        self.session: aiohttp.ClientSession = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=HUB_SECONDS), cookie_jar=aiohttp.DummyCookieJar()
        )

    def get_token(self, request: web.Request) -> str | None:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        token = token.strip()
        return (
            token
            if kind.lower() in ("jupyterhub", "token", "bearer") and token.isprintable() and token
            else None
        )

    async def authenticate_and_handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """No cookie is read or set: nobody is remembered."""
        request["user"] = await self.authenticate(request)
        return await handler(request)

    async def authenticate(self, request: web.Request) -> Asker:
        token = self.get_token(request)
        if token is None:
            raise _unauthorized(
                "There is no token; ask from a server of the hub, or with a token of your own."
            )
        told = await self._whose(token)
        if told.get("kind") != "user" or not isinstance(told.get("name"), str):
            raise _forbidden("Only people have clusters; this token is a service's.")
        scopes = [scope for scope in told.get("scopes") or () if isinstance(scope, str)]
        if not {"access:services", f"access:services!service={SERVICE}"}.intersection(scopes):
            raise _forbidden("This token may not ask for clusters; ask from a server of the hub.")
        people = self.people
        assert people is not None
        person = await people.find(told["name"])
        if person is None:
            raise _forbidden(f"{told['name']} is not known here yet; sign in at the hub first.")
        return Asker(person, server_of(scopes, person.name), request.headers.get("Accept-Language", ""))

    async def _whose(self, token: str) -> dict[str, Any]:
        """What the hub says of the token. Raises 401 where it knows none, 503 while it cannot be asked."""
        try:
            async with self.session.get(
                f"{self.jupyterhub_api_url}/user",
                headers={"Authorization": f"token {token}"},
                allow_redirects=False,
            ) as answer:
                if answer.status in (401, 403, 404):
                    raise _unauthorized("The hub does not know this token (any more).")
                if answer.status != 200:
                    raise _away()
                told = await answer.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.log.warning("The hub cannot be asked who somebody is: %r", error)
            raise _away() from None
        return told if isinstance(told, dict) else {}


def server_of(scopes: list[str], person: str) -> str | None:
    """Which of the person's servers has a token with these scopes; None for a token that is no server's."""
    prefix = f"{OWN_SERVER}{person}/"
    servers = {scope.removeprefix(prefix) for scope in scopes if scope.startswith(prefix)}
    return servers.pop() if len(servers) == 1 else None


def _unauthorized(reason: str) -> web.HTTPUnauthorized:
    return web.HTTPUnauthorized(reason=reason, headers={"WWW-Authenticate": "jupyterhub"})


def _forbidden(reason: str) -> web.HTTPForbidden:
    return web.HTTPForbidden(reason=reason)


def _away() -> web.HTTPServiceUnavailable:
    return web.HTTPServiceUnavailable(
        reason="The hub cannot be asked right now; clusters that run go on. Try again in a minute.",
        headers={"Retry-After": "10"},
    )
