"""The desk's API as this server uses it: its own lease, the claim of it, and its extension.

Every request is bounded in time and size, follows no redirect (the token goes nowhere else) and runs on the server's
event loop without holding it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from tornado.httpclient import HTTPError, HTTPRequest, HTTPResponse
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from hub_ext.core.clock import Instant, instant_of
from hub_ext.core.errors import BadInput, HubError
from hub_ext.notebook.lab.model import BadAnswer, Lease, lease_of

__all__ = ["CONNECT_SECONDS", "REQUEST_SECONDS", "Desk", "DeskAway", "Refused", "Told", "answered"]

CONNECT_SECONDS = 2.0
REQUEST_SECONDS = 5.0
LARGEST_ANSWER = 1_000_000
"""Bytes; a list of one person's leases has a few thousand."""


class DeskAway(HubError):
    """The desk gave no answer that can be used: gone, slow, failing, or something else listens there."""


class Refused(HubError):
    """The desk answered and said no; the text is its sentence, in the language asked for."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Told:
    """A lease as the desk told it, None where this server has none; `at` is the desk's own time."""

    lease: Lease | None
    at: Instant | None


class Desk:
    """The desk at `url`, asked with the token of the server with the name `server`."""

    def __init__(
        self,
        url: str,
        token: str,
        server: str,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        self.server = server
        self._api = f"{url.rstrip('/')}/api/v1"
        self._token = token
        self._connect_seconds = connect_seconds
        self._request_seconds = request_seconds
        self._client: SimpleAsyncHTTPClient | None = None

    async def lease(self, language: str) -> Told:
        """Raises DeskAway; Refused where the token may not read its own lease."""
        response = await self._fetch("GET", f"leases?server={quote(self.server, safe='')}", language)
        try:
            return Told(lease_of(answered(response), self.server), _date(response))
        except BadAnswer as problem:
            raise DeskAway(str(problem)) from None

    async def claim(self, lease: str) -> None:
        """Somebody came. Raises DeskAway, Refused."""
        await self._fetch("POST", f"leases/{quote(lease, safe='')}/claim", "en", {})

    async def extend(self, lease: str, minutes: int, language: str) -> None:
        """Raises DeskAway; Refused with the reason why not."""
        await self._fetch("POST", f"leases/{quote(lease, safe='')}/extend", language, {"minutes": minutes})

    async def _fetch(
        self, method: str, path: str, language: str, body: Mapping[str, Any] | None = None
    ) -> HTTPResponse:
        # The client belongs to a running loop, so it is made with the first request.
        if self._client is None:
            self._client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=LARGEST_ANSWER)
        headers = {
            "Authorization": f"token {self._token}",
            "Accept": "application/json",
            "Accept-Language": language,
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = HTTPRequest(
            f"{self._api}/{path}",
            method=method,
            headers=headers,
            body=None if body is None else json.dumps(body),
            connect_timeout=self._connect_seconds,
            request_timeout=self._request_seconds,
            follow_redirects=False,
        )
        try:
            response = await self._client.fetch(request, raise_error=False)
        except (HTTPError, OSError, ValueError) as problem:
            raise DeskAway(f"the desk does not answer: {problem}") from None
        if 200 <= response.code < 300:
            return response
        if 400 <= response.code < 500 and response.code not in (408, 429):
            raise Refused(response.code, _message(response))
        raise DeskAway(f"the desk answered {response.code} to {method} {path.partition('?')[0]}")


def answered(response: HTTPResponse) -> Any:
    """What the answer says. Raises BadAnswer where it is no JSON."""
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        raise BadAnswer("the desk answered something that is no JSON") from None


def _message(response: HTTPResponse) -> str:
    """The sentence of the desk's error body {code, facts, message}."""
    try:
        found = answered(response)
    except BadAnswer:
        return ""
    message = found.get("message") if isinstance(found, Mapping) else None
    return message[:1000] if isinstance(message, str) else ""


def _date(response: HTTPResponse) -> Instant | None:
    try:
        return instant_of(parsedate_to_datetime(response.headers["Date"]))
    except (KeyError, ValueError, TypeError, OverflowError, BadInput):
        return None
