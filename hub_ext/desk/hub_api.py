"""The hub's REST API as the clock uses it: which servers it holds for running, and stopping one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from hub_ext.core.errors import HubError

PAGE = 200
"""Users per answer: the most the hub gives."""
LOOKS = 5
"""How often the list is read from its beginning when it changes while it is read."""

START_SECONDS = 2.0
"""How long the hub is waited for when it is to start a server: it goes on with it whoever waits."""

Known = dict[tuple[str, str], str | None]


class HubAway(HubError):
    """The hub did not answer, or not with what was asked for; nothing is concluded from that."""


class StillAnswering(HubAway):
    """The hub took the request, and is not done with it."""


@dataclass(frozen=True, slots=True)
class _Page:
    people: list[str]
    servers: Known
    following: int | None
    """Where the next page begins."""


class HubServers:
    """The hub's view of servers. One connection pool; bounded times."""

    def __init__(self, api_url: str, token: str, *, seconds: float = 10.0) -> None:
        headers = {
            "Authorization": f"token {token}",
            "Accept": "application/jupyterhub-pagination+json",
        }
        self._client = httpx.Client(
            base_url=api_url.rstrip("/"), headers=headers, timeout=seconds, trust_env=False
        )

    def active(self) -> Known:
        for _ in range(LOOKS):
            found = self._all_pages()
            if found is not None:
                return found
        raise HubAway("The hub's list of people changed each time while it was read")

    def stop(self, person: str, server: str) -> bool:
        return self._call("DELETE", self._server(person, server), missing_is_fine=True).is_success

    def start(self, person: str, server: str, options: Mapping[str, Any] | None = None) -> None:
        """The hub starts it with these options, or what was chosen last. One that takes its time has taken the request."""
        body = {"user_options": dict(options)} if options else None
        try:
            self._call("POST", self._server(person, server), body=body, seconds=START_SECONDS)
        except StillAnswering:
            return

    def close(self) -> None:
        self._client.close()

    @staticmethod
    def _server(person: str, server: str) -> str:
        return f"/users/{_segment(person)}/" + (f"servers/{_segment(server)}" if server else "server")

    def _all_pages(self) -> Known | None:
        """None where the list shifted between two pages: somebody would be missing, and lose a running server.

        Pages overlap by one person, who must be the same.
        """
        page = self._page(0)
        found = page.servers
        while page.following is not None:
            last = page.people[-1:]
            page = self._page(page.following - 1)
            if not last or page.people[:1] != last:
                return None
            found |= page.servers
        return found

    def _page(self, offset: int) -> _Page:
        params: dict[str, str | int] = {"state": "active", "limit": PAGE, "offset": offset}
        response = self._call("GET", "/users", params=params)
        try:
            answer = response.json()
            users = answer["items"]
            # Not `get`: an answer without servers (a token without the right to see them) is none.
            servers = {
                (str(user["name"]), str(name)): server.get("pending")
                for user in users
                for name, server in user["servers"].items()
            }
            following = answer["_pagination"]["next"]
            start = None if following is None else int(following["offset"])
            people = [str(user["name"]) for user in users]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HubAway("The hub's answer to GET /users cannot be read; is it a JupyterHub?") from error
        if start is not None and start <= offset + 1:
            raise HubAway("The hub's answer to GET /users has no end")
        return _Page(people, servers, start)

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        missing_is_fine: bool = False,
        seconds: float | None = None,
    ) -> httpx.Response:
        timeout = self._client.timeout if seconds is None else httpx.Timeout(seconds)
        try:
            response = self._client.request(method, path, params=params, json=body, timeout=timeout)
        except httpx.ReadTimeout as error:
            raise StillAnswering("The hub does not answer (ReadTimeout); is it running?") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise HubAway(f"The hub does not answer ({type(error).__name__}); is it running?") from error
        if not (response.is_success or (missing_is_fine and response.status_code == 404)):
            raise HubAway(f"The hub answered {response.status_code} to {method} {path}")
        return response


def _segment(name: str) -> str:
    """The name as one step of a path; `.` and `..` would else be taken for steps up."""
    return quote(name, safe="").replace(".", "%2E")
