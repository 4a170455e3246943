"""When the gateway ends what, to the second: a real ledger, a clock that is moved by hand, and nothing that runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from dask_gateway_server.backends.base import PublicException
from dask_gateway_server.backends.db_base import Cluster, JobStatus, Worker

from hub_ext.clusters import policy
from hub_ext.clusters.authenticator import Asker
from hub_ext.clusters.backend import QuotaBackend
from hub_ext.clusters.gateway import gateway
from hub_ext.clusters.holding import LEASE, Quota
from hub_ext.clusters.lifecycle import Heartbeat
from hub_ext.clusters.service import Clusters
from hub_ext.clusters.words import saying
from hub_ext.core.clock import MINUTE
from hub_ext.core.people import Person
from hub_ext.factory import Factory
from hub_ext.quota.model import SERVER, Ask, Lease
from hub_ext.quota.service import Admission, end, new_lease_id, run
from tests.support.cluster_site import CLUSTERS, IDENTITY, NODE
from tests.support.fakes import HandClock
from tests.support.state import new_files

NOW = 1_806_714_000
STUDENT = Person("student", ("univ",), frozenset({"student"}))
POLICY = """
version: 1
timezone: Asia/Seoul
gpu_classes: {h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}}
pools:
  seoul: {session: {min: 1m, max: 12h, protected: 0s, notice: 2m, grace: 1m}}
  univ:
    parent: seoul
    quota: {cpu: {nominal: 4}, memory: {nominal: 16Gi}, gpu.h200: {nominal: 1}}
    budgets: [{hours: 1, period: day}]
"""


class ObedientBackend(QuotaBackend):
    """Starts and ends what it is told to, at once; `dead` are the leases whose process has died."""

    dead: set[str]
    starts: list[str]
    messages: list[Mapping[str, object]]

    async def do_start_cluster(self, cluster: Cluster) -> AsyncIterator[dict[str, Any]]:
        lease = self._standing(cluster).scheduler
        assert lease is not None
        self.starts.append(lease.id)
        yield {**cluster.state, "handle": f"process of {lease.id}"}
        await self.mark_running(lease, f"process of {lease.id}")

    async def do_stop_cluster(self, cluster: Cluster) -> None:
        await self.give_back(cluster.name, self.why_stopped(cluster))

    async def do_start_worker(self, worker: Worker) -> AsyncIterator[dict[str, Any]]:
        lease = self.lease_of(worker)
        self.starts.append(lease.id)
        yield {**worker.state, "handle": f"process of {lease.id}"}
        await self.mark_running(lease, f"process of {lease.id}")

    async def do_stop_worker(self, worker: Worker) -> None:
        await self.give_back(worker.state[LEASE], self.why_ended(worker))

    async def which_are_gone(self, states: Mapping[str, Mapping[str, Any]]) -> set[str]:
        return self.dead & set(states)

    async def may_be_at(self, cluster: Cluster, heartbeat: Heartbeat) -> bool:
        return True

    async def _tell(self, cluster: Cluster, message: Mapping[str, object]) -> None:
        self.messages.append(message)


class Centre:
    """A ledger with the gateway's backend; each `backend()` is one that was started anew."""

    def __init__(self, folder: Path) -> None:
        files = new_files(
            folder,
            POLICY,
            identity=IDENTITY.replace("lab", "univ"),
            simulated_node=NODE,
            cluster_profiles="c",
        )
        (folder / "c").mkdir()
        for slug, text in CLUSTERS.items():
            (folder / "c" / f"{slug}.yaml").write_text(text)
        self.factory: Factory = files.upgraded()
        self.clock = HandClock(NOW)
        self.admission = Admission(self.factory.store, self.clock)
        self.admission.put_person(STUDENT)

    @asynccontextmanager
    async def backend(self) -> AsyncIterator[ObedientBackend]:
        def prepare(made: ObedientBackend) -> None:
            made.dead, made.starts, made.messages = set(), [], []
            made.look_seconds = 10**6

        quota = Quota(
            self.admission,
            Clusters(self.admission, self.factory.documents.clusters),
            saying(self.factory.documents.clusters),
        )
        made = gateway(self.factory.gateway_settings(), quota, ObedientBackend, prepare)
        await made.backend.setup(made.app)
        try:
            yield made.backend
        finally:
            await made.backend.cleanup()

    def leases(self, name: str) -> list[Lease]:
        with self.factory.store.reading() as txn:
            return [lease for lease in txn.live_leases() if lease.server == name]

    def reason(self, lease_id: str) -> str | None:
        lease = self.admission.find_now(lease_id)
        assert lease is not None
        return None if lease.live else lease.reason


def awaited(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run_it(*arguments: Any, **named: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **named), 60))

    return run_it


async def settled(backend: ObedientBackend) -> None:
    """Until dask-gateway has done all that was queued."""
    while backend.queue._dirty or backend.queue._processing or backend.queue._queue:  # noqa: ASYNC110  it tells nobody
        await asyncio.sleep(0.005)


async def begun(backend: ObedientBackend, server: str | None = None, **options: Any) -> str:
    name = await backend.start_cluster(Asker(STUDENT, server), {"profile": "cpu", **options})
    await settled(backend)
    await beat(backend, name)
    await settled(backend)
    assert backend.db.get_cluster(name).status == JobStatus.RUNNING
    return name


async def beat(backend: ObedientBackend, name: str, count: int = 0, **more: Any) -> None:
    """The scheduler says how it is: all that was started is at work, unless it is said otherwise."""
    cluster = backend.db.get_cluster(name)
    message = {
        "scheduler_address": "tls://127.0.0.1:1",
        "dashboard_address": "",
        "api_address": "http://127.0.0.1:2",
        "count": count,
        "active_workers": [one.name for one in cluster.active_workers() if one.status > JobStatus.CREATED],
        "closing_workers": [],
        "closed_workers": [],
        "idle_seconds": 0.0,
        "clients": 1,
    }
    await backend.on_cluster_heartbeat(name, message | more)
    await settled(backend)


async def look(backend: ObedientBackend) -> None:
    await backend.look()
    await settled(backend)


@pytest.fixture
def centre(tmp_path: Path) -> Centre:
    return Centre(tmp_path / "centre")


# -- the reaper ------------------------------------------------------------------------------------------------------------


@awaited
async def test_an_idle_cluster_is_ended_after_its_time_and_not_before(centre: Centre) -> None:
    async with centre.backend() as backend:
        name = await begun(backend, idle_minutes=10)
        for minute in range(10):
            centre.clock.at = NOW + minute * MINUTE
            await beat(backend, name, idle_seconds=minute * 60.0)
            await look(backend)
            assert centre.leases(name)
        centre.clock.at = NOW + 10 * MINUTE
        await beat(backend, name, idle_seconds=600.0)
        await look(backend)
        assert centre.reason(name) == "cluster-idle"


@awaited
async def test_a_cluster_that_works_goes_on_and_one_that_nobody_is_connected_to_does_not(
    centre: Centre,
) -> None:
    async with centre.backend() as backend:
        name = await begun(backend)
        for minute in range(1, 60):
            centre.clock.at = NOW + minute * MINUTE
            await beat(backend, name, clients=0)
            await look(backend)
        assert centre.leases(name), "it computes for somebody who left"
        last = centre.clock.at
        centre.clock.at = last + policy.NO_CLIENT - 1
        await beat(backend, name, clients=0, idle_seconds=float(policy.NO_CLIENT - 1))
        await look(backend)
        assert centre.leases(name)
        centre.clock.at = last + policy.NO_CLIENT
        await beat(backend, name, clients=0, idle_seconds=float(policy.NO_CLIENT))
        await look(backend)
        assert centre.reason(name) == "cluster-no-client"


@awaited
async def test_a_scheduler_that_lies_about_its_idleness_has_its_leases_end_all_the_same(
    centre: Centre,
) -> None:
    async with centre.backend() as backend:
        name = await begun(backend, minutes=30)
        centre.clock.at = NOW + 30 * MINUTE
        await beat(backend, name, idle_seconds=0.0, clients=10**9)
        await look(backend)
        assert centre.reason(name) == "ended"


@awaited
async def test_a_restart_of_the_gateway_lets_every_time_begin_anew(centre: Centre) -> None:
    async with centre.backend() as backend:
        name = await begun(backend, idle_minutes=10)
        await beat(backend, name, 2)
        assert len(centre.leases(name)) == 3
    centre.clock.at = NOW + 20 * MINUTE
    async with centre.backend() as backend:
        await settled(backend)
        for _ in range(3):
            await look(backend)
        assert len(centre.leases(name)) == 3
        assert backend.starts == [], "what runs is not started again"
        await beat(backend, name, 2, idle_seconds=1200.0)
        await look(backend)
        assert centre.leases(name), "what it was idle before nobody saw"
        centre.clock.at += 10 * MINUTE
        await beat(backend, name, 2, idle_seconds=1800.0)
        await look(backend)
        assert centre.reason(name) == "cluster-idle"


@awaited
async def test_a_cluster_ends_with_its_owners_server(centre: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub_ext.clusters.looking.OWNERS_SECONDS", -1)
    ask = Ask(new_lease_id(), "student", "univ", {"cpu": 1000, "memory": 1024}, kind=SERVER, server="work")
    server = centre.admission.admit_now(STUDENT, ask).lease
    assert server is not None
    centre.admission.change(server.id, run("process of it"))
    async with centre.backend() as backend:
        name = await begun(backend, server="work")
        other = await begun(backend)
        centre.clock.at = NOW + 10
        await look(backend)
        centre.admission.release_now(server.id, "student", "stopped")
        for later in (30, policy.OWNER_GONE + 9):
            centre.clock.at = NOW + later
            await beat(backend, name)
            await beat(backend, other)
            await look(backend)
            assert centre.leases(name), "it may only be started anew"
        centre.clock.at = NOW + policy.OWNER_GONE + 10
        await look(backend)
        assert centre.reason(name) == "cluster-owner-gone"
        assert centre.leases(other), "this one is tied to none"


@awaited
async def test_without_hours_a_cluster_without_workers_is_ended(centre: Centre) -> None:
    async with centre.backend() as backend:
        name = await begun(backend, profile="gpus")
        await beat(backend, name, 1)
        (worker,) = [lease for lease in centre.leases(name) if lease.kind == "dask-worker"]
        assert worker.ends_at == NOW + 3600, "the hours of a day"
        centre.clock.at = NOW + 3600
        await beat(backend, name, 1)
        await look(backend)
        assert centre.reason(worker.id) == "ended"
        for _ in range(2):
            await look(backend)  # asks for another one, and sees that there is none
        assert [lease.kind for lease in centre.leases(name)] == ["dask-scheduler"]
        since = centre.clock.at
        for later, alive in ((policy.HOURS_OVER - 1, True), (policy.HOURS_OVER, False)):
            centre.clock.at = since + later
            await beat(backend, name, 1)
            await look(backend)
            assert bool(centre.leases(name)) is alive
        assert centre.reason(name) == "budget-spent"


# -- leases and records ------------------------------------------------------------------------------------------------------


@awaited
async def test_a_worker_is_asked_to_retire_once_and_ended_at_its_end(centre: Centre) -> None:
    async with centre.backend() as backend:
        name = await begun(backend, minutes=30)
        await beat(backend, name, 2)
        names = sorted(worker.name for worker in backend.db.get_cluster(name).active_workers())
        centre.clock.at = NOW + 30 * MINUTE - policy.RETIRE_SECONDS
        for _ in range(3):
            await beat(backend, name, 2)
            await look(backend)
        (order,) = backend.messages
        assert (order["op"], sorted(order["names"])) == ("retire", names)  # type: ignore[call-overload]
        assert len(centre.leases(name)) == 3, "nothing new is begun for the last minute, and nothing ends"
        centre.clock.at = NOW + 30 * MINUTE
        await look(backend)
        assert centre.leases(name) == []


@awaited
async def test_nothing_is_started_for_a_lease_that_was_ended_meanwhile(centre: Centre) -> None:
    async with centre.backend() as backend:
        name = await begun(backend)
        cluster = backend.db.get_cluster(name)
        worker = backend.db.create_worker(cluster)
        backend.db.update_worker(worker, state={LEASE: "no such lease"})
        backend.queue.put(worker)
        bare = backend.db.create_worker(cluster)
        backend.queue.put(bare)
        await settled(backend)
        assert (worker.status, bare.status) == (JobStatus.STOPPED, JobStatus.STOPPED)
        assert cluster.worker_start_failure_count == 0, "that is no failure"
        assert backend.starts == [name]


@awaited
async def test_a_worker_that_dies_costs_its_own_lease_and_another_one_comes(centre: Centre) -> None:
    async with centre.backend() as backend:
        name = await begun(backend)
        await beat(backend, name, 2)
        await beat(backend, name, 2)
        first = [lease.id for lease in centre.leases(name) if lease.kind == "dask-worker"]
        backend.dead.add(first[0])
        await look(backend)
        await look(backend)
        await look(backend)
        assert centre.reason(first[0]) == "died"
        now = [lease.id for lease in centre.leases(name) if lease.kind == "dask-worker"]
        assert len(now) == 2
        assert first[1] in now
        assert sorted(backend.starts) == sorted([name, *first, *(set(now) - {first[1]})])


@awaited
async def test_a_scheduler_that_died_takes_its_cluster_with_it(centre: Centre) -> None:
    async with centre.backend() as backend:
        name = await begun(backend)
        await beat(backend, name, 2)
        backend.dead.add(name)
        await look(backend)
        assert centre.leases(name) == []
        assert centre.reason(name) == "died"
        assert backend.db.get_cluster(name).status == JobStatus.FAILED


@awaited
async def test_an_operators_end_is_carried_out(centre: Centre) -> None:
    async with centre.backend() as backend:
        name = await begun(backend)
        await beat(backend, name, 1)
        centre.admission.change(name, end("operator", "too hot"))
        await look(backend)
        assert centre.leases(name) == []
        assert centre.reason(name) == "too hot"


@awaited
async def test_leases_of_a_cluster_that_has_no_record_are_ended(centre: Centre) -> None:
    """The gateway's own database was lost, or is another one."""
    async with centre.backend() as backend:
        name = await begun(backend)
    (centre.factory.settings.state_dir / "gateway.sqlite").unlink()
    async with centre.backend() as backend:
        # One look might have come while a cluster was being stopped.
        await look(backend)
        assert {lease.state.value for lease in centre.leases(name)} == {"running"}
        await look(backend)
        assert {lease.state.value for lease in centre.leases(name)} == {"ending"}


@awaited
async def test_a_record_that_cannot_be_read_ends_its_own_cluster_only(centre: Centre) -> None:
    async with centre.backend() as backend:
        name, other = await begun(backend), await begun(backend)
        cluster = backend.db.get_cluster(name)
        backend.db.update_cluster(cluster, config={"version": 99})
    async with centre.backend() as backend:
        await settled(backend)
        await look(backend)
        await look(backend)
        assert centre.leases(other)
        assert backend.db.get_cluster(name).status == JobStatus.FAILED
        assert all(lease.state.value == "ending" for lease in centre.leases(name))


@awaited
async def test_what_is_refused_has_no_record_and_what_is_asked_twice_has_two(centre: Centre) -> None:
    async with centre.backend() as backend:
        with pytest.raises(PublicException, match="h200"):
            await backend.start_cluster(Asker(STUDENT, None), {"profile": "h200"})
        assert backend.db.name_to_cluster == {}
        assert await begun(backend) != await begun(backend)
        # Four CPUs in all, half of one for each scheduler.
        while len(backend.db.name_to_cluster) < 8:
            await begun(backend)
        with pytest.raises(PublicException) as refused:
            await backend.start_cluster(Asker(STUDENT, None), {"profile": "cpu"})
        assert "\n" not in str(refused.value)
        with centre.factory.store.reading() as txn:
            live = {lease.server for lease in txn.live_leases()}
        assert live == set(backend.db.name_to_cluster)


@awaited
async def test_while_the_database_is_away_everything_stays_as_it_is(centre: Centre) -> None:
    async with centre.backend() as backend:
        name = await begun(backend)
        await beat(backend, name, 1)
        quota = backend.quota
        assert quota is not None
        backend.quota = replace(quota, admission=Admission(AwayStore(), centre.clock))  # type: ignore[arg-type]
        await beat(backend, name, 3)
        with pytest.raises(Exception, match="away"):
            await backend.look()
        with pytest.raises(PublicException, match="away"):
            await backend.start_cluster(Asker(STUDENT, None), {"profile": "cpu"})
        assert len(backend.db.get_cluster(name).active_workers()) == 1
        assert list(backend.db.name_to_cluster) == [name]
        backend.quota = quota
        await beat(backend, name, 3)
        await look(backend)
        assert len(centre.leases(name)) == 4, "the wish was kept"


class AwayStore:
    """A database that does not take part."""

    def booking(self) -> Any:
        from hub_ext.core.errors import StoreUnavailable

        raise StoreUnavailable("the database is away")

    reading = booking
