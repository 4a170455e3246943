"""dask-gateway's backend under the quota: every process of a cluster runs under a lease, and none without.

A cluster grows at one place only, `_check_cluster_scale`, which makes a worker for each lease that was booked and not
used. All that its scheduler says (`on_cluster_heartbeat`) is a wish, for which the quota is asked; what does not fit waits
in line and comes by itself. A loop compares leases with what runs: it starts what was booked, asks workers to retire
before their lease ends, ends them firmly when it does, and stops clusters that nobody uses.

The ledger decides and remembers; this class keeps nothing that a restart could lose.
"""

from __future__ import annotations

from dask_gateway_server.backends.base import PublicException
from dask_gateway_server.backends.db_base import (
    Cluster,
    JobStatus,
    Worker,
    clusters,
    timestamp,
)
from dask_gateway_server.options import Options

from hub_ext.clusters.authenticator import Asker
from hub_ext.clusters.holding import LEASE as LEASE
from hub_ext.clusters.holding import START_FAILED as START_FAILED
from hub_ext.clusters.holding import Quota
from hub_ext.clusters.lifecycle import STOPPED, Heartbeat, read_heartbeat
from hub_ext.clusters.looking import Looking
from hub_ext.clusters.offering import chosen_of, options_of
from hub_ext.clusters.record import keep
from hub_ext.clusters.service import ChosenCluster
from hub_ext.clusters.settings import SERVICE
from hub_ext.clusters.tables import fit_every_database
from hub_ext.clusters.words import one_line, speaker
from hub_ext.core.decision import Refuse, Wait
from hub_ext.core.errors import HubError
from hub_ext.quota.model import Lease, LeaseState

fit_every_database()


class QuotaBackend(Looking):
    """Mix in before the backend that starts processes or pods. Inert while `quota` is None."""

    async def do_setup(self) -> None:
        await super().do_setup()
        self._resumed = {
            worker.name for one in self.db.name_to_cluster.values() for worker in one.workers.values()
        }
        self._resumed |= set(self.db.name_to_cluster)
        if self.quota is None:
            return
        # A proxy that outlived the gateway must not take new numbers for ones that it has seen, and must find
        # the routes of what runs at its first question.
        self.proxy._next_id = timestamp()
        self.proxy.offset, self.proxy.events = self.proxy._next_id - 1, []
        for cluster in list(self.db.active_clusters()):
            if cluster.status == JobStatus.RUNNING:
                await self._check_cluster_proxied(cluster)
        self.task_pool.spawn(self._look_loop())

    # -- what the class below it says of its processes or pods -------------------------------------------------------

    async def may_be_at(self, cluster: Cluster, heartbeat: Heartbeat) -> bool:
        """Whether these can be the addresses of the cluster's own scheduler."""
        raise NotImplementedError

    # -- a cluster begins --------------------------------------------------------------------------------------------

    async def start_cluster(self, user: Asker, cluster_options: object) -> str:
        if self.quota is None:
            return str(await super().start_cluster(user, cluster_options))
        # 1. What was chosen, of what exists; nothing that was sent is trusted.
        chosen = await self._choose(self.quota, user, cluster_options)
        # 2. The record first: what comes after is found again under its name, whoever is killed meanwhile.
        cluster = self.db.create_cluster(user.name, chosen.options, keep(chosen))
        self._booking.add(cluster.name)
        try:
            # 3. A place for the scheduler, or why there is none.
            lease = await self._book(self.quota, chosen.named(cluster.name), user.language)
        except BaseException:
            self._forget(cluster)
            raise
        finally:
            self._booking.discard(cluster.name)
        # 4. From here on it starts by itself.
        self.log.info("Cluster %s of %s is booked until %s", cluster.name, user.name, lease.ends_at)
        self._standing(cluster).take(lease, (), None)
        self.queue.put(cluster)
        return str(cluster.name)

    async def get_cluster_options(self, user: Asker) -> Options:
        """What `Gateway().cluster_options()` shows: the sizes that this person may start."""
        if self.quota is None:
            return await super().get_cluster_options(user)
        offers = (await self.quota.clusters.menu(user.name)).offers
        return options_of(list(dict.fromkeys(offer.profile.slug for offer in offers)))

    async def _choose(self, quota: Quota, user: Asker, options: object) -> ChosenCluster:
        if isinstance(options, dict):
            options = chosen_of(options)
            if user.server is not None:
                options["server"] = user.server  # as its token says, and not as it says itself
        try:
            return await quota.clusters.choose(user.name, options, speaker(None, user.language))
        except HubError as error:
            raise PublicException(one_line(str(error))) from None

    async def _book(self, quota: Quota, chosen: ChosenCluster, language: str) -> Lease:
        try:
            answer = await quota.admission.start_cluster(chosen.person, chosen.scheduler, chosen.options)
        except HubError as error:
            raise PublicException(one_line(str(error))) from None
        if answer.lease is None:
            assert isinstance(answer.decision, Wait | Refuse)
            told = quota.say(answer.decision, answer.policy, answer.at, language)
            raise PublicException(one_line(str(told)))
        return answer.lease

    def _forget(self, cluster: Cluster) -> None:
        """Of what was never booked, no record stays."""
        with self.db.db.begin() as connection:
            connection.execute(clusters.delete().where(clusters.c.id == cluster.id))
        self.db.id_to_cluster.pop(cluster.id, None)
        self.db.name_to_cluster.pop(cluster.name, None)
        theirs = self.db.username_to_clusters.get(cluster.username, {})
        theirs.pop(cluster.name, None)
        if not theirs:
            self.db.username_to_clusters.pop(cluster.username, None)
        self._standings.pop(cluster.name, None)

    async def _cluster_to_submitted(self, cluster: Cluster) -> None:
        if self.quota is not None:
            lease = await self.quota.admission.find(cluster.name)
            if lease is None or not lease.live or lease.state is LeaseState.ENDING:
                self.log.warning("Cluster %s has no lease (any more) and is not started", cluster.name)
                self.db.update_cluster(cluster, target=JobStatus.FAILED)
                self.queue.put(cluster)
                return
            self._standing(cluster).scheduler = lease
        await super()._cluster_to_submitted(cluster)

    # -- it grows and shrinks ------------------------------------------------------------------------------------------

    async def on_cluster_heartbeat(self, cluster_name: str, msg: object) -> None:
        if self.quota is None:
            await super().on_cluster_heartbeat(cluster_name, msg)
            return
        cluster = self.db.get_cluster(cluster_name)
        if cluster is None or cluster.target > JobStatus.RUNNING or cluster_name in self._booking:
            return
        # 1. What it can be believed to say.
        try:
            heartbeat = read_heartbeat(msg)
        except HubError as error:
            raise PublicException(f"This heartbeat is not understood: {error}.") from None
        if cluster.status < JobStatus.RUNNING and not await self.may_be_at(cluster, heartbeat):
            raise PublicException("These are no addresses of this cluster's scheduler.")
        standing = self._standing(cluster)
        standing.hear(heartbeat, self.quota.admission.clock.now())
        # 2. Its wish goes to the quota.
        await self.wish(cluster, heartbeat.count)
        # 3. dask-gateway sees workers that it made, and never more than there are leases.
        known, most = set(cluster.workers), min(standing.wish, standing.live)
        # A worker that its scheduler is silent about is no reason to end anything: its process tells.
        runs = {one.name for one in cluster.workers.values() if one.status == JobStatus.RUNNING}
        await super().on_cluster_heartbeat(cluster_name, heartbeat.only(known, runs, most))

    async def last_words(self, cluster: Cluster) -> dict[str, str]:
        """The ends of a cluster's logs, by what wrote them."""
        return {}

    async def _check_cluster_scale(self, cluster: Cluster) -> None:
        """The only place where workers are made: one for each lease that was booked for it."""
        if self.quota is None or cluster.worker_start_failure_count >= self.worker_start_failure_limit:
            await super()._check_cluster_scale(cluster)
            return
        standing = self._standing(cluster)
        async with standing.lock:
            room = cluster.count - len(cluster.active_workers())
            for lease in self._steps(cluster, standing, set()).start[: max(0, room)]:
                worker = self.db.create_worker(cluster)
                self.db.update_worker(worker, state={LEASE: lease.id})
                self.log.info("Worker %s of cluster %s gets lease %s", worker.name, cluster.name, lease.id)
                self.queue.put(worker)

    async def _worker_to_submitted(self, worker: Worker) -> None:
        """A worker without a lease is none: that is no failure of the cluster's."""
        if self.quota is not None:
            lease_id = worker.state.get(LEASE, "")
            lease = await self.quota.admission.find(lease_id) if lease_id else None
            if lease is None or lease.server != worker.cluster.name or lease.state in OVER:
                self.db.update_worker(
                    worker, status=JobStatus.STOPPED, target=JobStatus.STOPPED, stop_time=timestamp()
                )
                self.queue.put(worker.cluster)
                return
            self._standing(worker.cluster).leases[lease.id] = lease
        await super()._worker_to_submitted(worker)

    # -- its end -----------------------------------------------------------------------------------------------------------

    async def _cluster_to_closing(self, cluster: Cluster) -> None:
        await super()._cluster_to_closing(cluster)
        if self.quota is not None:
            await self._end_leases(cluster)

    async def _cluster_to_stopped(self, cluster: Cluster) -> None:
        await super()._cluster_to_stopped(cluster)
        if self.quota is not None:
            # What was booked for it in the last moment.
            await self._end_leases(cluster)
            self._standings.pop(cluster.name, None)

    async def _end_leases(self, cluster: Cluster) -> None:
        assert self.quota is not None
        why = self.why_stopped(cluster)
        who = cluster.username if why == STOPPED else SERVICE
        try:
            await self.quota.admission.end_cluster(cluster.name, who, why)
        except HubError as error:
            # Nothing is lost: what is seen gone is released, and what still runs is found by its lease.
            self.log.warning("The end of cluster %s is written down later: %s", cluster.name, error)


OVER = frozenset({LeaseState.ENDING, LeaseState.RELEASED})
