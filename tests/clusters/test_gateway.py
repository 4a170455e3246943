"""Clusters under the quota, on the real gateway with its proxy: real schedulers, workers and clients."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator

import dask.dataframe as dd
import pandas as pd
import pytest
from dask_gateway import GatewayCluster, GatewayWarning
from distributed import Client

from hub_ext.quota.model import SERVER, Lease, LeaseState
from tests.support.cluster_site import ClusterSite, cluster_site
from tests.support.hub import wait_for


@pytest.fixture(scope="module")
def whole_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterSite]:
    with cluster_site(tmp_path_factory.mktemp("gateway") / "site") as site:
        yield site


@pytest.fixture
def ticking(site: ClusterSite) -> Iterator[None]:
    """With the clock, which serves the line."""
    with site.ticking():
        yield


@pytest.fixture
def site(whole_site: ClusterSite) -> Iterator[ClusterSite]:
    """Nothing runs before a test, and nothing is left after it."""
    yield whole_site
    for name in {lease.server for lease in whole_site.leases() if lease.kind == "dask-scheduler"}:
        whole_site.factory.admission.end_cluster_now(name, "test", "stopped")
    for lease in whole_site.leases():
        if lease.kind == SERVER:
            whole_site.factory.admission.release_now(lease.id, "test", "stopped")
    wait_for(lambda: not whole_site.leases() and not whole_site.running(), "nothing is left")


def told(cluster: GatewayCluster, workers: int) -> str:
    """What the person is told who asks for so many."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cluster.scale(workers)
    return " ".join(str(one.message) for one in caught if issubclass(one.category, GatewayWarning))


def ready(client: Client) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])


def test_a_cluster_starts_computes_and_leaves_nothing(site: ClusterSite) -> None:
    with site.client() as gateway, gateway.new_cluster(profile="cpu", shutdown_on_close=True) as cluster:
        assert cluster.dashboard_link == f"/services/desk/clusters/{cluster.name}/status"
        assert told(cluster, 2) == ""
        with cluster.get_client() as client:
            client.wait_for_workers(2, timeout=30)
            table = dd.from_pandas(pd.DataFrame({"line": [1, 2] * 500, "people": range(1000)}), npartitions=8)
            sums = table.groupby("line").people.sum().compute()
            assert sums.to_dict() == {1: 249_500, 2: 250_000}
        leases = site.leases(cluster.name)
        assert sorted(lease.kind for lease in leases) == ["dask-scheduler", "dask-worker", "dask-worker"]
        wait_for(site.one_to_one, "leases and processes are one to one")
        assert all(lease.state is LeaseState.RUNNING and lease.guaranteed for lease in leases)
        scheduler = next(lease for lease in leases if lease.kind == "dask-scheduler")
        assert scheduler.id == cluster.name
        assert all(lease.ends_at <= scheduler.ends_at for lease in leases)
    wait_for(lambda: not site.leases(cluster.name) and not site.running(), "nothing of it is left")
    over = [lease for lease in site.all_leases() if lease.server == cluster.name]
    assert {lease.reason for lease in over} == {"stopped"}
    folder = site.factory.settings.state_dir / "clusters" / cluster.name
    wait_for(lambda: not folder.exists(), "its folder is gone")


def take_back(site: ClusterSite, lease: Lease, *, seconds: int) -> Lease:
    """Notice that the lease ends so soon, for somebody else."""
    with site.factory.store.booking() as txn:
        found, now = txn.lease(lease.id), site.factory.admission.clock.now()
        assert found is not None
        ledger = txn.ledger(found.path, [found.person])
        noticed = ledger.take_back(found, now + seconds, "somebody", now, who="clock")
        txn.save(ledger, [noticed])
    return noticed


def gone(site: ClusterSite, lease: Lease) -> Lease:
    """The lease, once it is released."""

    def released() -> Lease | None:
        found = site.factory.admission.find_now(lease.id)
        return found if found is not None and not found.live else None

    over: Lease = wait_for(released, "the lease is released")
    assert over.released_at is not None
    return over


@pytest.mark.usefixtures("ticking")
def test_who_asks_for_more_than_there_is_gets_what_fits_is_told_why_and_grows_when_there_is_room(
    site: ClusterSite,
) -> None:
    # Of the eight CPUs a scheduler has half of one, and somebody else five.
    other = site.occupy("lead", "lab", {"cpu": 5000, "memory": 1024})
    with site.client() as gateway, gateway.new_cluster(profile="cpu") as cluster:
        words = told(cluster, 6)
        assert words.startswith("2 of 6 workers can run now. ")
        assert words.endswith("The others start by themselves as soon as there is room.")
        assert "seoul" in words
        with cluster.get_client() as client:
            client.wait_for_workers(2, timeout=30)
            assert len(site.workers(cluster.name)) == 2
            site.factory.admission.release_now(other.id, "lead", "stopped")
            freed = time.monotonic()
            wait_for(lambda: len(site.workers(cluster.name)) == 6, "six workers have a lease")
            client.wait_for_workers(6, timeout=20)
            assert time.monotonic() - freed < 10, "with the time that four workers need to come up"
            wait_for(site.one_to_one, "leases and processes are one to one")


def test_fewer_are_asked_for_and_the_rest_is_given_back_with_its_data_kept(site: ClusterSite) -> None:
    with site.client() as gateway, gateway.new_cluster(profile="cpu") as cluster:
        cluster.scale(3)
        with cluster.get_client() as client:
            client.wait_for_workers(3, timeout=30)
            kept = client.map(lambda n: n * n, range(60))
            client.gather(kept)
            cluster.scale(1)
            wait_for(lambda: len(site.workers(cluster.name)) == 1, "one lease is left")
            assert sum(client.gather(kept)) == sum(n * n for n in range(60))
            assert {future.status for future in kept} == {"finished"}, "nothing was computed anew"
        wait_for(site.one_to_one, "leases and processes are one to one")


@pytest.mark.usefixtures("ticking")
def test_an_adaptive_cluster_cannot_outgrow_the_quota(site: ClusterSite) -> None:
    with site.client("lead-token") as gateway, gateway.new_cluster(profile="cpu") as cluster:
        with pytest.warns(GatewayWarning, match=r"3 of 12 workers can run now\. .*3"):
            cluster.adapt(minimum=0, maximum=12)
        with cluster.get_client() as client:
            work = client.map(lambda n: __import__("time").sleep(0.3) or n, range(120))
            wait_for(lambda: len(site.workers(cluster.name)) == 3, "as many as the person may have")
            client.wait_for_workers(3, timeout=30)
            assert sum(client.gather(work)) == sum(range(120))
            assert len(site.workers(cluster.name)) <= 3
            del work
            wait_for(lambda: not site.workers(cluster.name), "without work there are no workers")


@pytest.mark.usefixtures("ticking")
def test_two_clusters_race_for_the_last_gpu(site: ClusterSite) -> None:
    with site.client() as one, site.client("classmate-token") as two:
        first, second = one.new_cluster(profile="gpus"), two.new_cluster(profile="gpus")
        # One GPU is theirs, the other is the lab's.
        site.occupy("lead", "lab", {"gpu.h200": 1000, "cpu": 100, "memory": 100})
        for cluster in (first, second):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cluster.scale(1)
        held = [lease for name in (first.name, second.name) for lease in site.workers(name)]
        assert [len(lease.devices) for lease in held] == [1]
        wait_for(site.one_to_one, "exactly one worker runs")
        with site.factory.store.reading() as txn:
            assert len(txn.cluster_tickets(None)) == 1, "the other one waits"
        # The one that has it gives it up: the other gets it.
        winner, loser = (first, second) if held[0].server == first.name else (second, first)
        winner.close(shutdown=True)
        wait_for(lambda: len(site.workers(loser.name)) == 1, "the other one gets it")
        with loser.get_client() as client:
            client.wait_for_workers(1, timeout=30)
            seen = client.submit(lambda: __import__("os").environ["CUDA_VISIBLE_DEVICES"]).result()
            assert seen == site.workers(loser.name)[0].devices[0]
        loser.close(shutdown=True)


def test_a_worker_whose_lease_ends_hands_over_its_data_and_goes(site: ClusterSite) -> None:
    """A notice shortens a borrowed worker's lease: what it computed is not lost, and the rest of the cluster goes on."""
    with site.client() as gateway, gateway.new_cluster(profile="cpu") as cluster:
        cluster.scale(2)
        with cluster.get_client() as client:
            client.wait_for_workers(2, timeout=30)
            wait_for(site.one_to_one, "both run")
            kept = client.map(lambda n: n + 1, range(40))
            client.gather(kept)
            leaving = site.workers(cluster.name)[0]
            noticed = take_back(site, leaving, seconds=50)
            wait_for(lambda: leaving.id not in site.running(), "it has left, before its end", 30)
            assert ready(client) >= 1
            assert sum(client.gather(kept)) == sum(range(1, 41))
            assert {future.status for future in kept} == {"finished"}, "nothing was computed anew"
            over = gone(site, leaving)
            assert over.reason == "taken-back"
            assert over.released_at < noticed.ends_at, "nobody waited for its end"
            # Its place is asked for again: there is room.
            wait_for(lambda: len(site.workers(cluster.name)) == 2, "another one came in its place")


def test_a_worker_that_cannot_go_is_ended_at_its_end(site: ClusterSite) -> None:
    with site.client() as gateway, gateway.new_cluster(profile="cpu") as cluster:
        cluster.scale(1)
        with cluster.get_client() as client:
            client.wait_for_workers(1, timeout=30)
            wait_for(site.one_to_one, "it runs")
            # The only copy of something that nobody else can hold.
            only = client.submit(lambda: "here")
            assert only.result() == "here"
            leaving = site.workers(cluster.name)[0]
            noticed = take_back(site, leaving, seconds=6)
            wait_for(lambda: leaving.id not in site.running(), "it is gone", 30)
            over = gone(site, leaving)
            assert over.reason == "taken-back"
            assert noticed.ends_at <= over.released_at <= noticed.ends_at + 10
            wait_for(lambda: len(site.workers(cluster.name)) == 1, "another one came in its place")
            # It is computed anew there.
            assert only.result(timeout=30) == "here"


def test_the_ledger_has_the_seconds_that_workers_ran(site: ClusterSite) -> None:
    before = time.time()
    with site.client() as gateway, gateway.new_cluster(profile="cpu") as cluster:
        cluster.scale(2)
        wait_for(lambda: len(site.running()) == 3, "three processes run")
        began = time.time()
        wait_for(lambda: time.time() - began > 3, "they run for a while")
        ended = time.time()
    after = wait_for(lambda: not site.running() and time.time(), "nothing runs")
    wait_for(lambda: not site.leases(cluster.name), "all is given back")
    over = [lease for lease in site.all_leases() if lease.server == cluster.name]
    assert len(over) == 3
    for lease in over:
        assert lease.started_at is not None
        assert lease.released_at is not None
        ran = lease.released_at - lease.started_at
        assert ended - began - 1 <= ran <= after - before + 1
        assert lease.charged_until == lease.released_at
