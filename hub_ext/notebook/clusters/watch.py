"""Looks at the desk and at a running cluster again and again, beside the kernel and never in its way.

It runs on an event loop of its own thread, so that bars move while a cell computes, and it asks seldom: sizes every
quarter of a minute, a cluster's workers every two seconds, and less and less often where nothing answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from dask_gateway.client import ClusterStatus
from distributed.utils import LoopRunner

from hub_ext.notebook.clusters.cluster import Cluster
from hub_ext.notebook.clusters.desk import ClustersDesk, DeskAway, Refused
from hub_ext.notebook.clusters.model import ClusterState, Menu
from hub_ext.notebook.clusters.view import Worker, workers_of

__all__ = ["Seen", "Watch"]

MENU_SECONDS: Final = 15.0
MENU_SECONDS_WHILE_RUNNING: Final = 30.0
STATE_SECONDS: Final = 4.0
WORKERS_SECONDS: Final = 2.0
LONGEST_PAUSE: Final = 30.0
ANSWER_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen last. `workers` None: not seen yet, or out of reach. `over`: the cluster is no more."""

    menu: Menu | None = None
    away: bool = False
    refused: str = ""
    workers: tuple[Worker, ...] | None = None
    state: ClusterState | None = None
    over: bool = False


class Watch:
    """Calls `show` with what it sees, on its own thread, until it is closed."""

    def __init__(self, desk: ClustersDesk | None, language: str, show: Callable[[Seen], None]) -> None:
        self._desk = desk
        self._language = language
        self._show = show
        self._cluster: Cluster | None = None
        self._seen = Seen()
        self._menu_at = self._state_at = 0.0
        self._failures = 0
        self._runner = LoopRunner(asynchronous=False)
        self._runner.start()
        self._loop = self._runner.loop.asyncio_loop
        self._look_now = asyncio.Event()
        self._running: Future[None] | None = asyncio.run_coroutine_threadsafe(self._run(), self._loop)

    def follow(self, cluster: Cluster | None) -> None:
        """Watch this cluster from now on; None for none."""

        def change() -> None:
            self._cluster = cluster
            self._seen = replace(self._seen, workers=None, state=None, over=False)
            self._menu_at = self._state_at = 0.0
            self._look_now.set()

        self._loop.call_soon_threadsafe(change)

    def soon(self) -> None:
        """Look again at once: something was changed."""

        def change() -> None:
            self._state_at = 0.0
            self._look_now.set()

        if self._running is not None:
            self._loop.call_soon_threadsafe(change)

    def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            self._running = None
            self._runner.stop()

    # -- on its own thread ---------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
                self._show(self._seen)
            except Exception:
                _log.exception("The panel could not look at its cluster")
                self._failures += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), self._pause())
            self._look_now.clear()

    def _pause(self) -> float:
        calm = WORKERS_SECONDS if self._cluster is not None else MENU_SECONDS
        return min(LONGEST_PAUSE, calm * 2.0 ** min(self._failures, 10))

    async def _look(self) -> None:
        now, cluster = self._loop.time(), self._cluster
        every = MENU_SECONDS if cluster is None else MENU_SECONDS_WHILE_RUNNING
        if self._desk is not None and now - self._menu_at >= every - 0.5:
            self._menu_at = now
            await self._ask_for_the_menu(self._desk)
        if cluster is not None:
            await self._ask_for_workers(cluster)
            if self._desk is not None and not self._seen.over and now - self._state_at >= STATE_SECONDS - 0.5:
                self._state_at = now
                await self._ask_for_the_state(self._desk, cluster)

    async def _ask_for_the_menu(self, desk: ClustersDesk) -> None:
        try:
            menu = await desk.menu(self._language)
        except Refused as refusal:
            self._failures += 1
            self._seen = replace(self._seen, away=False, refused=str(refusal))
        except DeskAway:
            self._failures += 1
            self._seen = replace(self._seen, away=True)
        else:
            self._failures = 0
            self._seen = replace(self._seen, menu=menu, away=False, refused="")

    async def _ask_for_the_state(self, desk: ClustersDesk, cluster: Cluster) -> None:
        try:
            state = await desk.cluster(cluster.name, self._language)
        except (DeskAway, Refused):
            # The desk may not know a new cluster yet, or be away: the scheduler tells the rest.
            self._seen = replace(self._seen, state=None)
        else:
            self._seen = replace(self._seen, state=state)

    async def _ask_for_workers(self, cluster: Cluster) -> None:
        if cluster.status in ("closing", "closed"):
            self._seen = replace(self._seen, workers=None, over=True)
            return
        try:
            found = await self._at(cluster, cluster.workers())
        except (OSError, TimeoutError, RuntimeError):
            self._seen = replace(self._seen, workers=None, over=await self._is_over(cluster))
        else:
            self._seen = replace(self._seen, workers=workers_of(found))

    async def _is_over(self, cluster: Cluster) -> bool:
        """Whether the gateway says so; a scheduler that does not answer may only be busy."""
        try:
            report: Any = await self._at(cluster, cluster.gateway._cluster_report(cluster.name))
        except ValueError:
            return True  # the gateway knows no such cluster any more
        except Exception:
            return cluster.status in ("closing", "closed")
        return report.status not in (ClusterStatus.PENDING, ClusterStatus.RUNNING)

    async def _at(self, cluster: Cluster, work: Coroutine[Any, Any, T]) -> T:
        """Do it on the cluster's own event loop."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, cluster.loop.asyncio_loop)
        except RuntimeError:
            work.close()
            raise
        return await asyncio.wait_for(asyncio.wrap_future(future), ANSWER_SECONDS)
