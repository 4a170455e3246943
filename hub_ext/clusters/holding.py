"""What a cluster holds of the quota, seen from its gateway: asking for its wish, and giving back what it ran.

The ledger decides and remembers. Nothing here could be lost by a restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dask_gateway_server.backends.db_base import (
    Cluster,
    DBBackendBase,
    JobStatus,
    Worker,
)

from hub_ext.clusters.lifecycle import DIED, STOPPED, Steps, next_steps, why_over
from hub_ext.clusters.model import ClusterFacts
from hub_ext.clusters.policy import LOOK_SECONDS
from hub_ext.clusters.record import Kept, read
from hub_ext.clusters.service import Clusters
from hub_ext.clusters.settings import SERVICE
from hub_ext.clusters.standing import Standing
from hub_ext.clusters.words import Say, at_most, fewer_now
from hub_ext.core.decision import Refuse, Wait
from hub_ext.core.errors import HubError
from hub_ext.core.people import Person
from hub_ext.quota.model import SERVER, Lease, LeaseState, Policy
from hub_ext.quota.service import Admission

LEASE: Final = "lease"
"""In a worker's state: the lease that it runs under."""
WISH: Final = "wish"
"""In a cluster's state: how many workers its scheduler wishes for."""
START_FAILED: Final = "start-failed"
LOST: Final = "lost"


@dataclass(frozen=True)
class Quota:
    """What the backend asks before a cluster is, or grows."""

    admission: Admission
    clusters: Clusters
    say: Say

    async def known(self, name: str) -> Person | None:
        """As they stand in the table of people now; None for somebody who never signed in."""

        def find() -> Person | None:
            with self.admission.store.reading() as txn:
                return txn.person(name)

        return await self.admission.in_thread(find)

    async def person(self, name: str) -> Person:
        """Whoever is not known (any more) is a member of nothing."""
        return await self.known(name) or Person(name)

    async def servers_of(self, people: set[str]) -> set[tuple[str, str]]:
        """(person, server) of these people's servers that run or are being started."""

        def find() -> set[tuple[str, str]]:
            with self.admission.store.reading() as txn:
                live = txn.live_leases_of(people)
            return {
                (lease.person, lease.server)
                for lease in live
                if lease.kind == SERVER and lease.state is not LeaseState.ENDING
            }

        return await self.admission.in_thread(find)


class Holding(DBBackendBase):
    """The part of the backend that keeps a cluster's leases. Inert while `quota` is None."""

    quota: Quota | None = None

    async def do_setup(self) -> None:
        await super().do_setup()
        self._standings: dict[str, Standing] = {}
        self._booking: set[str] = set()

    # -- what it wishes for, and gets ------------------------------------------------------------------------------

    async def wish(self, cluster: Cluster, count: int) -> Standing:
        """Ask the quota for so many workers, where that is not what it was asked for before. The answer is what
        stands then. Without the database everything stays as it is.
        """
        standing = self._standing(cluster)
        count = min(count, standing.kept.most_workers)
        if count != standing.wish or WISH not in cluster.state:
            standing.wish, standing.asked_at = count, 0
            self.db.update_cluster(cluster, state={**cluster.state, WISH: count})
        await self._ask(cluster, standing)
        return standing

    async def _ask(self, cluster: Cluster, standing: Standing) -> None:
        quota = self.quota
        assert quota is not None
        async with standing.lock:
            now = quota.admission.clock.now()
            if standing.is_settled(self._taken(cluster), now):
                return
            try:
                person = await quota.person(cluster.username)
                granted = await quota.admission.grant(
                    cluster.name,
                    person,
                    standing.kept.unit(cluster.name),
                    standing.wish,
                    self._taken(cluster),
                )
            except HubError as error:
                self.log.warning("No more workers for cluster %s for now: %s", cluster.name, error)
                return
            standing.take(standing.scheduler, granted.leases, granted.ticket)
            standing.policy, standing.asked_at, standing.objection = (
                granted.policy,
                granted.at,
                granted.objection,
            )
        self._count(cluster, standing)

    def _count(self, cluster: Cluster, standing: Standing) -> None:
        """How many workers dask-gateway may make: what is wished for, as far as there are leases."""
        count = min(standing.wish, standing.live)
        if count != cluster.count:
            self.db.update_cluster(cluster, count=count)
        if count > len(cluster.active_workers()):
            self.queue.put(cluster)

    async def why_fewer(self, name: str, count: int, language: str) -> str | None:
        """Why a cluster that was asked to have so many workers does not have them all now; None where it does."""
        cluster = self.db.get_cluster(name)
        if self.quota is None or cluster is None:
            return None
        standing = await self.wish(cluster, count)
        has = min(count, standing.counted)
        if has >= count:
            return None
        objection, rules, comes = standing.objection, standing.policy, standing.ticket is not None
        why = self._why_no_more(self.quota, count, standing, objection, rules, language, comes=comes)
        return fewer_now(has, count, why, comes=comes, policy=rules, language=language)

    async def why_not_up_to(self, name: str, maximum: int | None, language: str) -> str | None:
        """Why a cluster that may grow by itself could not grow to so many workers now; None where it could."""
        cluster = self.db.get_cluster(name)
        if self.quota is None or cluster is None:
            return None
        standing = self._standing(cluster)
        most = standing.kept.most_workers if maximum is None else maximum
        more = min(most, standing.kept.most_workers) - standing.counted
        found = None
        if more > 0:
            person = await self.quota.person(cluster.username)
            unit = standing.kept.unit(cluster.name)
            found = await self.quota.admission.preview_growth(cluster.name, person, unit, more)
        has = standing.counted + (len(found.leases) if found is not None else 0)
        if has >= most:
            return None
        objection, rules = (None, standing.policy) if found is None else (found.objection, found.policy)
        comes = isinstance(objection, Wait)
        why = self._why_no_more(self.quota, most, standing, objection, rules, language, comes=comes)
        return fewer_now(has, most, why, comes=comes, policy=rules, language=language)

    def _why_no_more(
        self,
        quota: Quota,
        count: int,
        standing: Standing,
        objection: Wait | Refuse | None,
        rules: Policy | None,
        language: str,
        *,
        comes: bool,
    ) -> str:
        """The quota's reason; where it has none, the profile may have no more, or the database is away. Where the others
        come by themselves there is nothing to do about it.
        """
        if objection is not None and rules is not None:
            told = quota.say(objection, rules, quota.admission.clock.now(), language)
            return told.sentence if comes else str(told)
        most = standing.kept.most_workers
        return at_most(most, rules, language) if count > most else ""

    # -- the leases ------------------------------------------------------------------------------------------------

    def lease_of(self, worker: Worker) -> Lease:
        """The lease that a worker is being started under."""
        return self._standing(worker.cluster).leases[worker.state[LEASE]]

    def _steps(self, cluster: Cluster, standing: Standing, gone: set[str]) -> Steps:
        assert self.quota is not None
        now = self.quota.admission.clock.now()
        seen = [
            standing.seen(worker.name, lease, now, gone=lease in gone)
            for worker in cluster.active_workers()
            if (lease := worker.state.get(LEASE, ""))
        ]
        return next_steps(seen, self._not_stopping(cluster, standing), now)

    def _not_stopping(self, cluster: Cluster, standing: Standing) -> list[Lease]:
        """The leases but those under which a worker is just being ended."""
        ending = {
            worker.state.get(LEASE)
            for worker in cluster.workers.values()
            if not worker.is_active() and worker.status < JobStatus.STOPPED
        }
        return [lease for lease in standing.leases.values() if lease.id not in ending]

    def _taken(self, cluster: Cluster) -> set[str]:
        """The leases that a worker was made for, and that is not seen gone."""
        return {
            worker.state[LEASE]
            for worker in cluster.workers.values()
            if worker.status < JobStatus.STOPPED and LEASE in worker.state
        }

    async def give_back(self, lease_id: str, why: str) -> None:
        """What the lease ran is seen gone. A database that is away is told by the clock."""
        if self.quota is None:
            return
        try:
            await self.quota.admission.release(lease_id, who=SERVICE, why=why)
        except HubError as error:
            self.log.warning("Lease %s is given back later: %s", lease_id, error)

    async def mark_running(self, lease: Lease, handle: str) -> None:
        """From now on it is paid for. A database that is away is told by the clock, which sees the process or pod."""
        assert self.quota is not None
        try:
            await self.quota.admission.running(lease.id, handle, lease.node)
        except HubError as error:
            self.log.warning("That lease %s runs is written down later: %s", lease.id, error)

    def why_stopped(self, cluster: Cluster) -> str:
        """Why a cluster that is being ended is."""
        standing = self._standings.get(cluster.name)
        return standing.why if standing is not None and standing.why else _why(cluster)

    def why_ended(self, worker: Worker) -> str:
        """Why a worker that is being ended is."""
        if why := worker.state.get("why"):
            return str(why)
        standing = self._standings.get(worker.cluster.name)
        if standing is not None and worker.name in standing.told and worker.state[LEASE] in standing.leases:
            return why_over(standing.leases[worker.state[LEASE]])  # it went as it was asked to
        return STOPPED if worker.close_expected or worker.target == JobStatus.STOPPED else DIED

    def _standing(self, cluster: Cluster) -> Standing:
        standing = self._standings.get(cluster.name)
        if standing is None:
            kept, now = self._kept(cluster), self.quota.admission.clock.now()  # type: ignore[union-attr]
            tied = kept.selection.server is not None
            # After a restart every time begins anew: nobody is stopped for what was not seen.
            facts = ClusterFacts(
                started_at=now,
                ends_at=now + LOOK_SECONDS,
                idle_minutes=kept.selection.idle_minutes,
                last_active=now,
                last_client=now,
                owner_seen=now if tied else None,
            )
            standing = Standing(kept, facts, wish=int(cluster.state.get(WISH, cluster.count)))
            self._standings[cluster.name] = standing
        return standing

    def _kept(self, cluster: Cluster) -> Kept:
        return read(cluster.config)


def _why(cluster: Cluster) -> str:
    if cluster.target == JobStatus.STOPPED:
        return STOPPED
    return DIED if cluster.scheduler_address else START_FAILED
