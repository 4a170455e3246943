"""What dask-labextension's sidebar makes clusters of: ours, with an `adapt` that it can use.

The extension calls `adapt` without awaiting it and reads the least and most workers from what it returns; of a
gateway's asynchronous cluster it would get a coroutine, fail, and forget the cluster that runs.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from hub_ext.notebook.clusters.cluster import Cluster, server_here

__all__ = ["Adapts", "SidebarCluster"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Adapts:
    """From how many to how many workers; None is no bound."""

    minimum: int | None
    maximum: int | None


class SidebarCluster(Cluster):
    """A cluster of the sidebar; it ends when it is shut down there, or with the server."""

    def __init__(self, **options: Any) -> None:
        server = server_here()
        super().__init__(**({} if server is None else {"server": server}) | options)
        self._telling: set[asyncio.Task[Any]] = set()

    def adapt(
        self, minimum: int | None = None, maximum: int | None = None, active: bool = True, **options: Any
    ) -> Any:
        told = super().adapt(minimum=minimum, maximum=maximum, active=active, **options)
        if self.asynchronous:
            task = asyncio.ensure_future(told)
            self._telling.add(task)
            task.add_done_callback(self._told)
        return Adapts(minimum, maximum)

    def _told(self, task: asyncio.Task[Any]) -> None:
        self._telling.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            _log.warning("Cluster %s was not told to adapt: %s", self.name, problem)
