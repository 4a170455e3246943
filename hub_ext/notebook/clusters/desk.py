"""The desk's API as a notebook's clusters use it: sizes, how a cluster stands, its end and its extension."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import quote

from hub_ext.notebook.clusters.model import BadAnswer, ClusterState, Menu, menu_of, state_of
from hub_ext.notebook.lab.desk import Desk, DeskAway, Refused, answered

__all__ = ["ClustersDesk", "DeskAway", "Refused", "desk_of"]


class ClustersDesk(Desk):
    """Every method raises DeskAway where nothing usable was answered, and Refused with the desk's reason."""

    async def menu(self, language: str) -> Menu:
        response = await self._fetch("GET", "cluster-profiles", language)
        try:
            return menu_of(answered(response), language)
        except BadAnswer as problem:
            raise DeskAway(str(problem)) from None

    async def cluster(self, name: str, language: str) -> ClusterState:
        response = await self._fetch("GET", f"clusters/{quote(name, safe='')}", language)
        try:
            return state_of(answered(response), language)
        except BadAnswer as problem:
            raise DeskAway(str(problem)) from None

    async def end(self, name: str, language: str) -> None:
        await self._fetch("DELETE", f"clusters/{quote(name, safe='')}", language)

    async def extend_cluster(self, name: str, minutes: int, language: str) -> None:
        path = f"clusters/{quote(name, safe='')}/extend"
        await self._fetch("POST", path, language, {"minutes": minutes})


def desk_of(environment: Mapping[str, str] = os.environ) -> ClustersDesk | None:
    """The desk of this notebook, which asks on the event loop of its first request; None where none is known."""
    url, token = environment.get("HANGANG_DESK_URL", ""), environment.get("JUPYTERHUB_API_TOKEN", "")
    if not url.startswith(("http://", "https://")) or not token:
        return None
    return ClustersDesk(url, token, environment.get("JUPYTERHUB_SERVER_NAME", ""))
