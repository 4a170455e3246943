"""The hub's REST API as the clock uses it: which servers it holds for running, and stopping one."""

from __future__ import annotations

from urllib.parse import quote

import httpx

from hub_ext.core.errors import HubError

PAGE = 200
"""Users per answer: the most the hub gives."""


class HubAway(HubError):
    """The hub did not answer; nothing is concluded from that."""


class HubServers:
    """The hub's view of servers. One connection pool; bounded times."""

    def __init__(self, api_url: str, token: str, *, seconds: float = 10.0) -> None:
        headers = {
            "Authorization": f"token {token}",
            "Accept": "application/jupyterhub-pagination+json",
        }
        self._client = httpx.Client(base_url=api_url.rstrip("/"), headers=headers, timeout=seconds, trust_env=False)

    def active(self) -> dict[tuple[str, str], str | None]:
        found: dict[tuple[str, str], str | None] = {}
        offset: int | None = 0
        while offset is not None:
            answer = self._call("GET", "/users", params={"state": "active", "limit": PAGE, "offset": offset}).json()
            for user in answer["items"]:
                for name, server in (user.get("servers") or {}).items():
                    found[(user["name"], name)] = server.get("pending")
            following = answer["_pagination"].get("next")
            offset = following["offset"] if following else None
        return found

    def stop(self, person: str, server: str) -> bool:
        path = f"/users/{quote(person, safe='')}/server"
        if server:
            path = f"/users/{quote(person, safe='')}/servers/{quote(server, safe='')}"
        return self._call("DELETE", path, missing_is_fine=True).status_code < 400

    def close(self) -> None:
        self._client.close()

    def _call(
        self, method: str, path: str, *, params: dict[str, str | int] | None = None, missing_is_fine: bool = False
    ) -> httpx.Response:
        try:
            response = self._client.request(method, path, params=params)
        except httpx.HTTPError as error:
            raise HubAway(f"The hub does not answer ({type(error).__name__}); is it running?") from error
        if response.status_code >= 500 or (response.status_code >= 400 and not missing_is_fine):
            raise HubAway(f"The hub answered {response.status_code} to {method} {path}")
        return response
