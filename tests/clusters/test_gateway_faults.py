"""What dies at an odd moment: gateway, proxy, scheduler, worker, hub. Nothing is lost, and nothing is there twice."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator

import httpx
import pytest
from distributed import Client

from hub_ext.quota.model import SERVER, LeaseState
from hub_ext.spawners.processes import process_of
from tests.support.cluster_site import ClusterSite, cluster_site, known
from tests.support.hub import wait_for


@pytest.fixture(scope="module")
def whole_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterSite]:
    with cluster_site(tmp_path_factory.mktemp("faults") / "site") as site, site.ticking():
        yield site


@pytest.fixture
def site(whole_site: ClusterSite) -> Iterator[ClusterSite]:
    yield whole_site
    for name in {lease.server for lease in whole_site.leases() if lease.kind == "dask-scheduler"}:
        whole_site.factory.admission.end_cluster_now(name, "test", "stopped")
    for lease in whole_site.leases():
        if lease.kind == SERVER:
            whole_site.factory.admission.release_now(lease.id, "test", "stopped")
    wait_for(lambda: not whole_site.leases() and not whole_site.running(), "nothing is left")


def test_the_gateway_killed_during_a_scale_up_loses_nothing_and_makes_nothing_twice(
    site: ClusterSite,
) -> None:
    with site.client() as gateway, gateway.new_cluster(profile="cpu") as cluster:
        cluster.scale(5)
        with cluster.get_client() as client:
            # Some have a lease only, some a record, some a process.
            wait_for(lambda: len(site.workers(cluster.name)) == 5, "five leases are booked", every=0.005)
            site.end("gateway", signal.SIGKILL)
            before = site.running()
            site.start("gateway")
            wait_for(lambda: len(site.running()) == 6, "the scheduler and five workers run")
            wait_for(site.one_to_one, "leases and processes are one to one")
            assert before.items() <= site.running().items(), "what ran before is the very same"
            client.wait_for_workers(5, timeout=30)
            assert client.submit(lambda n: n + 1, 1).result() == 2
            handles = [one.lease for one in site.world.running() if one.main]
            assert len(handles) == len(set(handles)) == 6


def test_clients_compute_on_while_the_gateway_is_away_and_the_proxy_finds_it_again(site: ClusterSite) -> None:
    with site.client() as gateway, gateway.new_cluster(profile="cpu") as cluster:
        cluster.scale(1)
        with cluster.get_client() as client:
            client.wait_for_workers(1, timeout=30)
            site.end("gateway", signal.SIGKILL)
            assert client.submit(lambda n: n + 1, 1).result() == 2, "through the proxy that goes on"
            # A new connection too: the proxy keeps the routes that it knew.
            with Client(cluster.scheduler_address, security=cluster.security) as other:
                assert other.submit(lambda n: n + 2, 1).result() == 3
            site.start("gateway")
            assert client.submit(lambda n: n + 3, 1).result() == 4
    # What is made after the restart gets its route as well: no number of a route is taken for an old one.
    with site.client() as gateway, gateway.new_cluster(profile="cpu") as cluster:
        cluster.scale(1)
        with cluster.get_client() as client:
            assert client.submit(lambda n: n + 4, 1).result(timeout=30) == 5


def test_a_proxy_that_was_started_anew_reads_its_routes(site: ClusterSite) -> None:
    with site.client() as gateway, gateway.new_cluster(profile="cpu") as cluster:
        cluster.scale(1)
        with cluster.get_client() as client:
            client.wait_for_workers(1, timeout=30)
            site.end("dask-proxy", signal.SIGKILL)
            site.start("dask-proxy")
            page = f"{site.factory.dask_proxy_url}/clusters/{cluster.name}/status"
            wait_for(lambda: _status(page) == 200, "the dashboard is there again")

            def computes() -> bool:
                with Client(cluster.scheduler_address, security=cluster.security, timeout=10) as other:
                    return bool(other.submit(lambda n: n + 1, 1).result(timeout=10) == 2)

            assert computes()
        assert len(site.workers(cluster.name)) == 1


def test_a_worker_that_is_killed_is_replaced_under_a_lease_of_its_own(site: ClusterSite) -> None:
    with site.client() as gateway, gateway.new_cluster(profile="cpu") as cluster:
        cluster.scale(2)
        with cluster.get_client() as client:
            client.wait_for_workers(2, timeout=30)
            wait_for(site.one_to_one, "both run")
            futures = client.map(lambda n: n * 2, range(20))
            client.gather(futures)
            victim = site.workers(cluster.name)[0]
            site.kill(victim.id)
            wait_for(lambda: not site.factory.admission.find_now(victim.id).live, "its lease is given back")  # type: ignore[union-attr]
            assert site.factory.admission.find_now(victim.id).reason == "died"  # type: ignore[union-attr]
            wait_for(
                lambda: len(site.workers(cluster.name)) == 2 and site.one_to_one(), "there are two again"
            )
            assert sum(client.gather(futures)) == sum(2 * n for n in range(20)), (
                "what was lost is computed anew"
            )


def test_without_its_scheduler_a_cluster_is_over(site: ClusterSite) -> None:
    with site.client() as gateway:
        cluster = gateway.new_cluster(profile="cpu", shutdown_on_close=False)
        cluster.scale(2)
        wait_for(lambda: len(site.running()) == 3 and site.one_to_one(), "all of it runs")
        site.kill(cluster.name)
        wait_for(lambda: not site.leases(cluster.name) and not site.running(), "nothing of it is left")
        assert site.factory.admission.find_now(cluster.name).reason == "died"  # type: ignore[union-attr]
        kept = site.request("GET", f"/clusters/{cluster.name}/logs").json()
        assert kept["failed"] is True
        assert "Scheduler at" in kept["logs"]["scheduler"]
        cluster.close(shutdown=False)


def test_a_scheduler_that_cannot_start_is_told_with_its_last_words(site: ClusterSite) -> None:
    made = site.request(
        "POST",
        "/clusters/",
        json={
            "cluster_options": {"profile": "cpu", "environment": {"OPENSSL_CONF": "/nowhere", "NO_SUCH": "x"}}
        },
    )
    assert made.status_code == 201, made.text
    name = made.json()["name"]
    scheduler = wait_for(lambda: site.running().get(name), "its scheduler is started", every=0.01)
    process = process_of(scheduler)
    assert process is not None
    process.kill()
    wait_for(lambda: not site.leases(name), "its lease is given back")
    lease = site.factory.admission.find_now(name)
    assert lease is not None
    assert lease.reason in ("start-failed", "died")
    kept = site.request("GET", f"/clusters/{name}/logs").json()
    assert kept["failed"] is True
    assert "scheduler" in kept["logs"]
    assert site.request("GET", f"/clusters/{name}/logs", "classmate-token").status_code == 404


def test_while_the_hub_is_away_clusters_go_on_and_nobody_is_let_in_unasked(site: ClusterSite) -> None:
    with site.client() as gateway, gateway.new_cluster(profile="cpu", shutdown_on_close=False) as cluster:
        cluster.scale(1)
        with cluster.get_client() as client:
            client.wait_for_workers(1, timeout=30)
            site.end_hub()
            try:
                away = site.request("POST", "/clusters/", json={})
                assert away.status_code == 503
                assert "try again" in away.json()["error"].lower()
                assert client.submit(lambda n: n + 1, 1).result() == 2
            finally:
                site.start_hub()
            assert site.request("GET", f"/clusters/{cluster.name}").status_code == 200
            assert len(site.workers(cluster.name)) == 1


def test_who_is_no_member_any_more_gets_nothing_more_and_what_runs_goes_on(site: ClusterSite) -> None:
    from hub_ext.core.people import Person

    with site.client("classmate-token") as gateway, gateway.new_cluster(profile="cpu") as cluster:
        cluster.scale(1)
        wait_for(lambda: len(site.running()) == 2, "it runs")
        site.factory.admission.put_person(Person("classmate", ()))
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                cluster.scale(3)
            assert any("1 of 3 workers" in str(one.message) for one in caught)
            assert len(site.workers(cluster.name)) == 1
            refused = site.request("POST", "/clusters/", "classmate-token", json={})
            assert refused.status_code == 422
        finally:
            site.factory.admission.put_person(Person("classmate", ("univ",)))


def test_when_the_owners_server_is_gone_the_cluster_is_too(site: ClusterSite) -> None:
    """The rule is looked at with its times in tests of the policy; here, that the gateway knows the server."""
    server = site.occupy("student", "univ", {"cpu": 500, "memory": 512}, server="work")
    site.tokens["server-token"] = known("student", "work")
    site.factory.admission.change(
        server.id, lambda ledger, lease, now: ledger.run(lease, now, handle="1@2@3")
    )
    made = site.request("POST", "/clusters/", "server-token", json={"cluster_options": {"server": "another"}})
    assert made.status_code == 201, made.text
    cluster = site.request("GET", f"/clusters/{made.json()['name']}").json()
    assert cluster["options"]["server"] == "work", "as the token says, whatever is sent"


def test_a_lease_that_is_ended_from_outside_ends_what_it_runs(site: ClusterSite) -> None:
    with site.client() as gateway, gateway.new_cluster(profile="cpu") as cluster:
        cluster.scale(2)
        wait_for(lambda: len(site.running()) == 3 and site.one_to_one(), "all of it runs")
        ended = site.workers(cluster.name)[0]
        site.factory.admission.change(
            ended.id, lambda ledger, lease, now: ledger.end(lease, now, who="operator", why="too hot")
        )
        wait_for(lambda: ended.id not in site.running(), "it is gone")
        found = wait_for(
            lambda: (one := site.factory.admission.find_now(ended.id)) and not one.live and one,
            "it is released",
        )
        assert (found.state, found.reason) == (LeaseState.RELEASED, "too hot")


def _status(url: str) -> int:
    try:
        return httpx.get(url, trust_env=False, follow_redirects=True).status_code
    except httpx.HTTPError:
        return 0
