"""The hub as the desk's sign-in: codes for tokens, and who stands behind a token (OAuth 2.0 with PKCE, RFC 7636).

What the hub said of a token counts for half a minute; while the hub is away, what it said last counts for some more.
"""

from __future__ import annotations

import hashlib
import time
from base64 import urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlencode

import httpx

from hub_ext.core.errors import HubError
from hub_ext.desk.hub_api import HubAway

FRESH_SECONDS = 30.0
KEPT_SECONDS = 300.0
MOST_KEPT = 20_000
LONGEST_TOKEN = 512


class CodeRefused(HubError):
    """The hub gave no token for a code: it was used before, is too old, or another's."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose a token is, what it may, and the session of the hub it was made in (empty outside a browser)."""

    name: str
    scopes: frozenset[str]
    session: str = ""
    service: bool = False
    """Whether it is a service's token: nobody's who could have a server."""


@dataclass
class HubLogin:
    """`api_url` is how the desk reaches the hub's API; `authorize_url` how browsers reach its page."""

    api_url: str
    client_id: str
    token: str
    redirect_uri: str
    authorize_url: str = "/hub/api/oauth2/authorize"
    now: Callable[[], float] = time.monotonic
    client: httpx.AsyncClient = field(
        default_factory=lambda: httpx.AsyncClient(timeout=10.0, trust_env=False)
    )
    _kept: OrderedDict[str, tuple[Identity, float]] = field(default_factory=OrderedDict)

    def address(self, state: str, verifier: str) -> str:
        """Where a browser goes to sign in."""
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "response_type": "code",
            "state": state,
            "code_challenge": urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        return f"{self.authorize_url}?{urlencode(query)}"

    async def token_for(self, code: str, verifier: str) -> str:
        """The token for a code, which can be had once. Raises CodeRefused, HubAway."""
        form = {
            "client_id": self.client_id,
            "client_secret": self.token,
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": verifier,
        }
        response = await self._ask("POST", "/oauth2/token", data=form)
        try:
            if response.is_success:
                return str(response.json()["access_token"])
        except (ValueError, KeyError, TypeError) as error:
            raise HubAway("The hub's answer to a code cannot be read; is it a JupyterHub?") from error
        if response.status_code < 500:
            raise CodeRefused("The hub did not take the code")
        raise HubAway(f"The hub answered {response.status_code} to a code")

    async def identity(self, token: str) -> Identity | None:
        """Whose token it is; None where the hub does not know it. Raises HubAway where that cannot be asked."""
        if not token or len(token) > LONGEST_TOKEN or not token.isascii() or not token.isprintable():
            return None
        key = hashlib.sha256(token.encode()).hexdigest()
        kept = self._kept.get(key)
        if kept is not None and self.now() - kept[1] < FRESH_SECONDS:
            return kept[0]
        try:
            found = await self._whose(token)
        except HubAway:
            if kept is not None and self.now() - kept[1] < KEPT_SECONDS:
                return kept[0]
            raise
        self._keep(key, found)
        return found

    def forget(self, token: str) -> None:
        self._kept.pop(hashlib.sha256(token.encode()).hexdigest(), None)

    async def close(self) -> None:
        await self.client.aclose()

    def _keep(self, key: str, found: Identity | None) -> None:
        if found is None:
            self._kept.pop(key, None)
            return
        self._kept[key] = (found, self.now())
        self._kept.move_to_end(key)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)

    async def _whose(self, token: str) -> Identity | None:
        response = await self._ask("GET", "/user", headers={"Authorization": f"token {token}"})
        if response.status_code in (401, 403, 404):
            return None
        try:
            model = response.json()
            return Identity(
                str(model["name"]),
                frozenset(str(scope) for scope in model["scopes"]),
                str(model.get("session_id") or ""),
                model.get("kind") == "service",
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HubAway(f"The hub's answer ({response.status_code}) to GET /user cannot be read") from error

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        data: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        try:
            return await self.client.request(method, f"{self.api_url}{path}", data=data, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise HubAway(f"The hub does not answer ({type(error).__name__}); is it running?") from error
