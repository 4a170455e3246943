"""Runs inside a cluster's scheduler: `dask scheduler --preload hub_ext.notebook.scheduler_preload`.

It is dask-gateway's own preload with the same options, and beside what that does:

- `POST /api/comm {"op": "retire", "names": […]}` empties the named workers and closes them. Their data moves to the
  others and what they were computing is computed elsewhere. The number of workers that is wished for stays as it is:
  what was taken back is asked for again and comes when there is room. Answers `{"retiring": […]}`, the names that
  are on their way out, without waiting for them; asked again it does nothing twice. A worker whose data nobody else
  can hold stays and shows as active again.
- Heartbeats say more: `idle_seconds` (since anything was computed or about to be), `clients` (connected ones, a
  task's own client not counted) and `memory` (bytes of all workers: `process`, `managed`, `spilled`, `limit`).
- A worker that comes or goes is told within a second; data that moves, for whatever reason, holds up no heartbeat.

It imports what a scheduler has anyway, so that it costs a cluster's start nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Iterable
from time import monotonic
from typing import Any, Final

import click
from dask_gateway import scheduler_preload as upstream
from distributed.metrics import time
from distributed.scheduler import Scheduler, WorkerState
from tornado import web

from hub_ext.notebook import tls as tls

__all__ = ["dask_setup"]

MOST_NAMES: Final = 10_000
"""In one order to retire; more is no order of a gateway."""
MOST_CLOSED: Final = 1_000
"""Names of closed workers that are told again and again, for a gateway that lost the last of them by a restart."""
SOON: Final = 1.0
"""Seconds in which workers that come and go are gathered for one heartbeat."""
NOT_A_PERSON: Final = ("Client-worker-", "fire-and-forget")
"""Clients of tasks, and the one that stands for results nobody waits for."""

logger = logging.getLogger(upstream.__name__)


class CommHandler(upstream.CommHandler):
    """Orders of the gateway, whoever has its token."""

    @web.authenticated
    async def post(self) -> None:
        message = self.json_data
        if not isinstance(message, dict):
            raise web.HTTPError(422, reason="the body must be a JSON object")
        if message.get("op") != "retire":
            await super().post()
            return
        names = message.get("names")
        if not isinstance(names, list) or len(names) > MOST_NAMES:
            raise web.HTTPError(422, reason=f"names must be a list of at most {MOST_NAMES}")
        if not all(isinstance(name, str) for name in names):
            raise web.HTTPError(422, reason="names must be texts")
        self.write({"retiring": self.gateway_service.retire(names)})


class Waiter:
    """Between two heartbeats. Whoever interrupts while one is on its way gets another one after it."""

    def __init__(self) -> None:
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._due.wait(), seconds)
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def interrupt(self) -> None:
        self._due.set()

    def interrupt_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SOON, self._due.set)


class Plugin(upstream.GatewayPlugin):
    """Keeps workers that leave already out of the choice of those that could leave."""

    def valid_workers_downscaling(
        self, scheduler: Scheduler, workers: list[WorkerState]
    ) -> list[WorkerState]:
        return [worker for worker in workers if worker.name not in self.service.closing_workers]


class Service(upstream.GatewaySchedulerService):
    """What of a scheduler belongs to its gateway: the wish for workers, heartbeats, and orders."""

    def __init__(self, scheduler: Scheduler, **options: Any) -> None:
        super().__init__(scheduler, **options)
        for name, plugin in list(scheduler.plugins.items()):
            if isinstance(plugin, upstream.GatewayPlugin):
                scheduler.remove_plugin(name)
        scheduler.add_plugin(Plugin(self))
        self.app = web.Application(
            [("/api/comm", CommHandler), ("/api/health", upstream.HealthHandler)],
            gateway_service=self,
            auth_token=self.gateway.token,
        )
        self.waiter = Waiter()
        self._one_heartbeat = asyncio.Lock()
        self._retirements: set[asyncio.Task[None]] = set()
        self._active_on = self._looked_on = monotonic()
        self._transitions = scheduler.transition_counter

    def stop(self) -> None:
        super().stop()
        for task in self._retirements:
            task.cancel()

    # -- workers that come and leave -----------------------------------------------------------------------

    def worker_added(self, worker_address: str) -> None:
        super().worker_added(worker_address)
        self.waiter.interrupt_soon()

    def worker_removed(self, worker_address: str) -> None:
        super().worker_removed(worker_address)
        self.waiter.interrupt_soon()

    def retire(self, names: Iterable[str]) -> list[str]:
        """Begin to empty and close these workers; return the names of all that are leaving now."""
        leaving = self.active_workers.intersection(names) - self.closing_workers
        if leaving:
            logger.info("Retiring %d of %d workers", len(leaving), len(self.active_workers))
            # At once, so that nobody chooses them a second time.
            self.closing_workers.update(leaving)
            task = asyncio.ensure_future(self._empty_and_close(leaving))
            self._retirements.add(task)
            task.add_done_callback(self._retirements.discard)
        return sorted(self.closing_workers)

    async def _empty_and_close(self, names: set[str]) -> None:
        try:
            # The gateway first: a worker that closes before it is announced counts as one that failed.
            await self._announce()
            await self.scheduler.retire_workers(names=list(names), remove=True, close_workers=True)
        except Exception as problem:
            logger.warning("Workers could not be retired: %s", problem, exc_info=problem)
        finally:
            stayed = names & self.active_workers
            self.closing_workers.difference_update(names)
        if stayed:
            logger.warning("%d workers stay: nobody else can hold their data", len(stayed))
        await self.waiter.interrupt()

    async def _announce(self) -> None:
        try:
            await self.heartbeat()
        except Exception as problem:
            logger.warning("Failed to send heartbeat: %s", problem)

    # -- heartbeats ----------------------------------------------------------------------------------------

    async def heartbeat(self) -> None:
        """Tell the gateway how things stand. Raises what the request raises."""
        self._let_go_beyond_the_wish()
        async with self._one_heartbeat:
            message = self.message()
            await self.gateway.heartbeat(message)
        if len(self.closed_workers) > MOST_CLOSED:
            self.closed_workers.difference_update(message["closed_workers"])

    def message(self) -> dict[str, Any]:
        return {
            "scheduler_address": self.scheduler.address,
            "dashboard_address": self.dashboard_address,
            "api_address": self.api_address,
            "count": self.count,
            "active_workers": list(self.active_workers - self.closing_workers),
            "closing_workers": list(self.closing_workers),
            "closed_workers": list(self.closed_workers),
            "idle_seconds": self.idle_seconds(),
            "clients": sum(not name.startswith(NOT_A_PERSON) for name in self.scheduler.clients),
            "memory": self.memory(),
        }

    def _let_go_beyond_the_wish(self) -> None:
        surplus = len(self.active_workers - self.closing_workers) - self.count
        if surplus > 0:
            self.retire(self.scheduler.workers_to_close(n=surplus, attribute="name"))

    def idle_seconds(self) -> float:
        """Seconds since the scheduler last had anything to do."""
        now, scheduler = monotonic(), self.scheduler
        if (
            scheduler.queued
            or scheduler.unrunnable
            or scheduler._active_graph_updates > 0
            or any(worker.processing for worker in scheduler.workers.values())
        ):
            self._active_on = now
        elif scheduler.transition_counter != self._transitions:
            # It worked since the last look; the log may say when it stopped.
            log = scheduler.transition_log
            since = max(0.0, time() - log[-1][-1]) if log else 0.0
            self._active_on = now - min(since, now - self._looked_on)
        self._looked_on, self._transitions = now, scheduler.transition_counter
        return now - self._active_on

    def memory(self) -> dict[str, int]:
        """Bytes of all workers together."""
        held = self.scheduler.memory
        return {
            "process": held.process,
            "managed": held.managed,
            "spilled": held.spilled,
            "limit": sum(worker.memory_limit or 0 for worker in self.scheduler.workers.values()),
        }


def start(
    scheduler: Scheduler,
    dg_adaptive_period: float,
    dg_heartbeat_period: float,
    dg_idle_timeout: float,
    dg_api_address: str,
) -> None:
    """Start the service beside the scheduler, or end the process where that cannot be."""
    try:
        host, port = dg_api_address.split(":")
        service = Service(
            scheduler,
            gateway=upstream.make_gateway_client(),
            adaptive_period=dg_adaptive_period,
            heartbeat_period=dg_heartbeat_period,
            idle_timeout=dg_idle_timeout,
        )
        service.listen((host, int(port)))
    except Exception:
        logger.exception("The gateway's service cannot start (api address %r)", dg_api_address)
        sys.exit(1)
    scheduler.services["gateway"] = service


dask_setup = click.Command("dask_setup", callback=start, params=upstream.dask_setup.params)
"""Called by distributed once the scheduler listens, with the options that dask-gateway's own preload takes."""
