"""dask-gateway's backend under the quota: every process of a cluster runs under a lease, and none without.

A cluster grows at one place only, `_check_cluster_scale`, which makes a worker for each lease that was booked and not
used. All that its scheduler says (`on_cluster_heartbeat`) is a wish, for which the quota is asked; what does not fit waits
in line and comes by itself. A loop compares leases with what runs: it starts what was booked, asks workers to retire
before their lease ends, ends them firmly when it does, and stops clusters that nobody uses.

The ledger decides and remembers; this class keeps nothing that a restart could lose.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from dask_gateway_server.backends.base import PublicException
from dask_gateway_server.backends.db_base import (
    Cluster,
    DBBackendBase,
    JobStatus,
    Worker,
    clusters,
    timestamp,
)
from dask_gateway_server.models import ClusterStatus

from hub_ext.clusters.authenticator import Asker
from hub_ext.clusters.lifecycle import DIED, STOPPED, Heartbeat, Steps, next_steps, read_heartbeat, why_over
from hub_ext.clusters.model import ClusterFacts
from hub_ext.clusters.policy import LOOK_SECONDS, why_to_stop
from hub_ext.clusters.record import Kept, keep, read
from hub_ext.clusters.service import ChosenCluster, Clusters
from hub_ext.clusters.settings import SERVICE
from hub_ext.clusters.standing import Standing
from hub_ext.clusters.words import Say, at_most, fewer_now, one_line, speaker
from hub_ext.core.clock import Instant
from hub_ext.core.decision import Refuse, Wait
from hub_ext.core.errors import BadInput, HubError
from hub_ext.core.people import Person
from hub_ext.quota.model import SERVER, Lease, LeaseState
from hub_ext.quota.service import Admission, new_lease_id

LEASE: Final = "lease"
"""In a worker's state: the lease that it runs under."""
WISH: Final = "wish"
"""In a cluster's state: how many workers its scheduler wishes for."""
OWNERS_SECONDS: Final = 10
TELL_SECONDS: Final = 10
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


class QuotaBackend(DBBackendBase):
    """Mix in before the backend that starts processes or pods. Inert while `quota` is None."""

    quota: Quota | None = None
    look_seconds: float = LOOK_SECONDS

    async def do_setup(self) -> None:
        await super().do_setup()
        self._standings: dict[str, Standing] = {}
        self._booking: set[str] = set()
        self._resumed = {
            worker.name for one in self.db.name_to_cluster.values() for worker in one.workers.values()
        }
        self._resumed |= set(self.db.name_to_cluster)
        self._owners_at, self._orphans = 0.0, set[str]()
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

    async def which_are_gone(self, states: Mapping[str, Mapping[str, Any]]) -> set[str]:
        """Of these (state by lease), those whose process or pod is seen gone. Raises HubError while nothing is seen."""
        raise NotImplementedError

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

    async def _choose(self, quota: Quota, user: Asker, options: object) -> ChosenCluster:
        if isinstance(options, dict) and user.server is not None:
            options = {**options, "server": user.server}  # as its token says, and not as it says itself
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
            raise PublicException(one_line(quota.say(answer.decision, answer.policy, answer.at, language)))
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
        why = self._why_no_more(self.quota, standing, count, language)
        return fewer_now(
            has, count, why, comes=standing.ticket is not None, policy=standing.policy, language=language
        )

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
            kept = standing.kept
            found = await self.quota.admission.preview_cluster(
                person, kept.scheduler(new_lease_id()), kept.unit(cluster.name), more
            )
            standing.policy, standing.objection = found.policy, found.objection
        has = standing.counted + (found.guaranteed + found.borrowed if found is not None else 0)
        if has >= most:
            return None
        why = self._why_no_more(self.quota, standing, most, language)
        return fewer_now(has, most, why, comes=found is not None, policy=standing.policy, language=language)

    def _why_no_more(self, quota: Quota, standing: Standing, count: int, language: str) -> str:
        if standing.objection is not None and standing.policy is not None:
            return quota.say(standing.objection, standing.policy, quota.admission.clock.now(), language)
        return at_most(standing.kept.most_workers, standing.policy, language) if count > standing.wish else ""

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

    def lease_of(self, worker: Worker) -> Lease:
        """The lease that a worker is being started under."""
        return self._standing(worker.cluster).leases[worker.state[LEASE]]

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
        for name in held.keys() - active.keys() - self._booking:
            await self._end_without_record(quota, name)
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

    def _running_states(self, cluster: Cluster) -> dict[str, Mapping[str, Any]]:
        """What runs of it, by lease: what is only being started has the time that it is given."""
        states: dict[str, Mapping[str, Any]] = {}
        if cluster.status == JobStatus.RUNNING:
            states[cluster.name] = cluster.state
        for worker in cluster.active_workers():
            if worker.status == JobStatus.RUNNING:
                states[worker.state.get(LEASE, "")] = worker.state
        return states

    def _taken(self, cluster: Cluster) -> set[str]:
        """The leases that a worker was made for, and that is not seen gone."""
        return {
            worker.state[LEASE]
            for worker in cluster.workers.values()
            if worker.status < JobStatus.STOPPED and LEASE in worker.state
        }

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

    # -- small things --------------------------------------------------------------------------------------------------------

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


OVER = frozenset({LeaseState.ENDING, LeaseState.RELEASED})


def _why(cluster: Cluster) -> str:
    if cluster.target == JobStatus.STOPPED:
        return STOPPED
    return DIED if cluster.scheduler_address else START_FAILED


def facts_of(lease: Lease) -> dict[str, Any]:
    """What something that runs says of its lease, for a ledger that lost it."""
    return {
        "person": lease.person,
        "kind": lease.kind,
        "server": lease.server,
        "pool": lease.pool,
        "profile": lease.profile,
        "amounts": dict(lease.amounts),
        "ends_at": lease.ends_at,
        "devices": list(lease.devices),
    }
