"""The gateway's loop: compares leases with what runs, every other second.

It starts what was booked, asks workers to retire before their lease ends, ends them firmly when it does, and stops
clusters that nobody uses. Done twice, a look changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from dask_gateway_server.backends.base import PublicException
from dask_gateway_server.backends.db_base import (
    Cluster,
    JobStatus,
)
from dask_gateway_server.models import ClusterStatus

from hub_ext.clusters.holding import LEASE, LOST, Holding, Quota
from hub_ext.clusters.lifecycle import DIED, why_over
from hub_ext.clusters.policy import LOOK_SECONDS, why_to_stop
from hub_ext.clusters.settings import SERVICE
from hub_ext.clusters.standing import Standing
from hub_ext.core.clock import Instant
from hub_ext.core.errors import BadInput, HubError
from hub_ext.quota.model import LeaseState

OWNERS_SECONDS: Final = 10
"""How often it is looked which servers still run that clusters are tied to."""
TELL_SECONDS: Final = 10
"""How long a scheduler may take to answer."""


class Looking(Holding):
    """The part of the backend that looks by itself."""

    look_seconds: float = LOOK_SECONDS

    async def do_setup(self) -> None:
        await super().do_setup()
        self._owners_at = 0.0
        self._without_record, self._orphans = set[str](), set[str]()

    async def which_are_gone(self, states: Mapping[str, Mapping[str, Any]]) -> set[str]:
        """Of these (state by lease), those whose process or pod is seen gone. Raises HubError while nothing is seen."""
        raise NotImplementedError

    # -- the loop --------------------------------------------------------------------------------------------------------

    async def _look_loop(self) -> None:
        while True:
            await asyncio.sleep(self.look_seconds)
            try:
                await self.look()
            except HubError as error:
                self.log.warning("Leases cannot be compared with what runs for now: %s", error)
            except Exception:
                self.log.exception("This is a mistake in the program")

    async def look(self) -> None:
        """Compare leases with what runs, once. Done twice, it changes nothing."""
        quota = self.quota
        assert quota is not None
        before = {name: standing.revision for name, standing in self._standings.items()}
        held = await quota.admission.clusters()
        active = {one.name: one for one in list(self.db.active_clusters()) if one.name not in self._booking}
        standings = {
            name: one for name, cluster in active.items() if (one := self._readable(cluster)) is not None
        }
        await self._look_for_owners(quota, {name: active[name] for name in standings}, standings)
        states: dict[str, Mapping[str, Any]] = {}
        for name in standings:
            states |= self._running_states(active[name])
        gone = await self.which_are_gone(states)
        for name, standing in standings.items():
            # What was asked for meanwhile is newer than this look; what is being asked for right now, too.
            if before.get(name) == standing.revision and not standing.lock.locked():
                if (found := held.get(name)) is not None:
                    standing.take(found.scheduler, found.workers, found.ticket)
                else:
                    standing.take(None, (), None)
                await self._look_at(quota, active[name], standing, gone)
        # One that is being stopped gives its leases back right after: what is left at the next look is left for good.
        without = held.keys() - active.keys() - self._booking
        for name in without & self._without_record:
            await self._end_without_record(quota, name)
        self._without_record = without
        for name in self._standings.keys() - self.db.name_to_cluster.keys():
            del self._standings[name]

    def _readable(self, cluster: Cluster) -> Standing | None:
        """A record that cannot be read is of no use to anybody: its cluster is ended."""
        try:
            return self._standing(cluster)
        except BadInput as error:
            self.log.error("Cluster %s is ended: %s", cluster.name, error)
            self.db.update_cluster(cluster, target=JobStatus.FAILED)
            self.queue.put(cluster)
            return None

    async def _look_at(self, quota: Quota, cluster: Cluster, standing: Standing, gone: set[str]) -> None:
        now = quota.admission.clock.now()
        standing.looked_for_hours(now)
        # 1. Without its scheduler, or a lease for it, a cluster is over.
        if (why := self._why_over(cluster, standing, now, gone)) is not None:
            self.log.info("Cluster %s of %s is stopped: %s", cluster.name, cluster.username, why)
            standing.why = why
            await self.stop_cluster(cluster.name, failed=why == DIED)
            return
        # 2. Workers whose lease is over, or who died.
        steps = self._steps(cluster, standing, gone)
        if steps.stop:
            self._stop_workers(cluster, steps.stop)
        for lease in steps.give_back:
            await self.give_back(lease.id, why_over(lease))
        # 3. Workers whose lease is over soon hand over their data and go.
        if steps.retire and cluster.status == JobStatus.RUNNING and not standing.telling:
            standing.telling = True
            self.task_pool.spawn(self._retire(cluster, standing, steps.retire, now))
        # 4. What was booked meanwhile is started; what is missing is asked for.
        self._count(cluster, standing)
        if cluster.status == JobStatus.RUNNING:
            await self._ask(cluster, standing)

    def _why_over(self, cluster: Cluster, standing: Standing, now: Instant, gone: set[str]) -> str | None:
        lease = standing.scheduler
        if lease is None:
            return LOST
        if lease.state is LeaseState.ENDING or lease.ends_at <= now:
            return why_over(lease)
        if cluster.name in gone:
            return DIED
        if cluster.status != JobStatus.RUNNING:
            return None
        end = why_to_stop(standing.facts, now)
        return None if end is None else end.value

    def _running_states(self, cluster: Cluster) -> dict[str, Mapping[str, Any]]:
        """What runs of it, by lease: what is only being started has the time that it is given."""
        states: dict[str, Mapping[str, Any]] = {}
        if cluster.status == JobStatus.RUNNING:
            states[cluster.name] = cluster.state
        for worker in cluster.active_workers():
            if worker.status == JobStatus.RUNNING:
                states[worker.state.get(LEASE, "")] = worker.state
        return states

    def _stop_workers(self, cluster: Cluster, stop: Mapping[str, str]) -> None:
        updates = []
        for name, why in stop.items():
            worker = cluster.workers[name]
            self.log.info("Worker %s of cluster %s is ended: %s", name, cluster.name, why)
            target = JobStatus.FAILED if why == DIED else JobStatus.STOPPED
            updates.append(
                (
                    worker,
                    {"target": target, "close_expected": why != DIED, "state": {**worker.state, "why": why}},
                )
            )
        # One statement for all of them takes only what all of them change.
        self.db.update_workers(updates)
        for worker, _ in updates:
            self.queue.put(worker)

    async def _look_for_owners(
        self, quota: Quota, active: Mapping[str, Cluster], standings: Mapping[str, Standing]
    ) -> None:
        """Which of the servers still run that clusters are tied to."""
        if time.monotonic() - self._owners_at < OWNERS_SECONDS:
            return
        tied = {
            name: (cluster.username, server)
            for name, cluster in active.items()
            if (server := standings[name].kept.selection.server) is not None
        }
        there = await quota.servers_of({person for person, _ in tied.values()}) if tied else set()
        self._owners_at, now = time.monotonic(), quota.admission.clock.now()
        for name, owner in tied.items():
            if owner in there:
                standings[name].owner_is_there(now)

    async def _end_without_record(self, quota: Quota, name: str) -> None:
        """Leases of a cluster that is over here, or that was never known: nothing will end them but this."""
        record = self.db.get_cluster(name)
        if name in self._orphans or (record is not None and record.status < JobStatus.STOPPED):
            return
        self.log.warning("Cluster %s has leases and does not run; they are ended", name)
        await quota.admission.end_cluster(name, SERVICE, LOST)
        self._orphans.add(name)

    # -- messages to a scheduler -------------------------------------------------------------------------------------------

    async def _retire(
        self, cluster: Cluster, standing: Standing, names: tuple[str, ...], now: Instant
    ) -> None:
        try:
            await self._tell(cluster, {"op": "retire", "names": list(names)})
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            # Its end comes either way.
            self.log.warning("Cluster %s was not told that workers are to retire: %r", cluster.name, error)
        else:
            self.log.info("Cluster %s was told to retire %d workers", cluster.name, len(names))
            standing.told |= dict.fromkeys(names, now)
        finally:
            standing.telling = False

    async def _tell(self, cluster: Cluster, message: Mapping[str, object]) -> None:
        """Never led on to another address, and never for long: whoever listens there is the person's own."""
        async with self.session.post(
            f"{cluster.api_address}/api/comm",
            json=message,
            headers={"Authorization": f"token {cluster.token}"},
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=TELL_SECONDS),
        ) as answer:
            if answer.status != 200:
                raise ValueError(f"the scheduler answered {answer.status}")

    async def forward_message_to_scheduler(self, cluster: Any, msg: Mapping[str, object]) -> None:
        """What a person asks of their scheduler. One that is busy is no reason to end it."""
        if self.quota is None:
            await super().forward_message_to_scheduler(cluster, msg)
            return
        if cluster.status != ClusterStatus.RUNNING:
            raise PublicException(f"Cluster {cluster.name} does not run.")
        try:
            await self._tell(cluster, msg)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.log.warning("Cluster %s did not take %s: %r", cluster.name, msg.get("op"), error)
            raise PublicException(
                f"The scheduler of cluster {cluster.name} does not answer right now; try again in a moment."
            ) from None
