"""Dask clusters on the deployed hub: from a kernel to pods under leases, through the gateway and the proxy in the cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.cluster_story import BORROWER, OWNER, nine_cpus, story
from tests.support.deployed import SYSTEM, USERS, DeployedHub
from tests.support.desk import AtTheDesk
from tests.support.hub import Visitor, wait_for
from tests.support.manifests import Object
from tests.support.story import kernel, printed

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

NAME = "app.kubernetes.io/name"
AWAY_SECONDS = 30
"""Longer than one request to the API server is waited for."""
MOST = 8
"""Workers that a person of the researcher's university may have."""

START = """
from hub_ext.notebook import clusters
client = clusters.start(workers=2, profile="cpu", minutes=60)
client.wait_for_workers(2, timeout=240)
print("cluster", client.cluster.name)
"""
COMPUTE = """
import dask.dataframe as dd
import pandas as pd
people = pd.DataFrame({"hour": [n % 24 for n in range(240_000)], "people": range(240_000)})
found = dd.from_pandas(people, npartitions=16).groupby("hour").people.sum().compute().sort_index()
assert found.equals(people.groupby("hour").people.sum().sort_index()), found
print("computed", len(found))
"""
GROW = """
import warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    client.cluster.scale(11)
client.wait_for_workers(8, timeout=400)
print("told", *(str(one.message) for one in told))
"""
SHRINK = """
import time
client.cluster.scale(1)
give_up = time.monotonic() + 240
while len(client.scheduler_info(n_workers=-1)["workers"]) > 1 and time.monotonic() < give_up:
    time.sleep(0.2)
print("workers", len(client.scheduler_info(n_workers=-1)["workers"]))
"""
CLOSE = """
client.cluster.close()
client.close()
"""


@pytest.fixture(autouse=True)
def nothing_runs(hub: DeployedHub) -> Iterator[None]:
    """Nothing was left here, and a test that fails leaves nothing to the next."""
    yield
    for pod in pods_of_clusters(hub):
        hub.cluster.delete("pod", pod["metadata"]["name"], USERS)
    hub.end_all()


def pods_of_clusters(hub: DeployedHub, kind: str = "") -> list[Object]:
    found = hub.cluster.list("pods", USERS, **{NAME: "dask"})
    return [pod for pod in found if kind in ("", pod["metadata"]["labels"]["hangang-hub/kind"])]


def leases_of(hub: DeployedHub, kind: str) -> list[dict[str, Any]]:
    return [lease for lease in hub.leases() if lease["kind"] == kind]


def secrets_of_clusters(hub: DeployedHub) -> list[str]:
    found = hub.cluster.list("secrets", USERS)
    names = (secret["metadata"]["name"] for secret in found)
    return [name for name in names if name.startswith("dask-")]


def seconds_of(lease: dict[str, Any]) -> float:
    ended, began = lease["released_at"], lease["started_at"]
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()


def a_server_of(hub: DeployedHub, name: str) -> AtTheDesk:
    visitor = hub.come(name)
    visitor.start({"profile": "cpu-small"})
    visitor.wait_until_ready(seconds=120)
    assert visitor.http.get(f"/user/{name}/lab").status_code == 200
    return visitor


async def test_a_cluster_from_a_kernel_within_the_quota(hub: DeployedHub) -> None:
    visitor = await asyncio.to_thread(a_server_of, hub, "researcher")
    async with kernel(visitor) as run:
        # 1. A cluster in one line, which computes what pandas does.
        name = printed(await run(START)).split("cluster ")[1].split()[0]
        assert "computed 24" in printed(await run(COMPUTE))
        (scheduler,) = leases_of(hub, "dask-scheduler")
        assert scheduler["id"] == name
        check_pods(hub, name)
        await asyncio.to_thread(check_dashboard, hub, visitor, name)
        # 2. It grows as far as the person may, and says why not further.
        told = printed(await run(GROW))
        assert "8" in told
        assert "told" in told
        assert len(told.split("told", 1)[1].strip()) > 20, "the reason is a sentence"
        assert len(leases_of(hub, "dask-worker")) == MOST
        # 3. A gateway that is killed costs nobody their cluster, nor their connection.
        kill_gateway(hub)
        assert "computed 24" in printed(await run(COMPUTE))
        # 4. Workers that are not wanted any more go, and their leases with them.
        assert "workers 1" in printed(await run(SHRINK))
        await asyncio.to_thread(wait_for, lambda: len(leases_of(hub, "dask-worker")) == 1, "leases went", 120)
        assert "computed 24" in printed(await run(COMPUTE))
        # 5. Nothing is left behind.
        await run(CLOSE)
    await asyncio.to_thread(wait_for, lambda: not pods_of_clusters(hub), "its pods are gone", 120)
    await asyncio.to_thread(wait_for, lambda: not secrets_of_clusters(hub), "its secret is gone", 120)
    await asyncio.to_thread(
        wait_for, lambda: {one["kind"] for one in hub.leases()} == {"server"}, "its leases are released", 120
    )
    # 6. The ledger knows every worker with the seconds that it ran.
    workers = [one for one in hub.all_leases() if one["kind"] == "dask-worker" and one["server"] == name]
    assert len(workers) == MOST
    assert all(seconds_of(one) > 0 for one in workers if one["started_at"])


@pytest.fixture
def little_room(hub: DeployedHub) -> Iterator[None]:
    hub.put_policy(nine_cpus())
    yield
    hub.put_policy()


@pytest.mark.usefixtures("little_room")
async def test_from_a_kernel_beyond_the_quota_and_back_by_notice(hub: DeployedHub) -> None:
    borrower = await asyncio.to_thread(a_server_of, hub, BORROWER)
    owner = await asyncio.to_thread(a_server_of, hub, OWNER)

    def running() -> dict[str, float]:
        """Containers, by what the kubelet says of them."""
        found = {}
        for pod in pods_of_clusters(hub):
            for container in pod["status"].get("containerStatuses", []):
                if (began := container["state"].get("running", {}).get("startedAt")) is not None:
                    lease = pod["metadata"]["labels"]["hangang-hub/lease"]
                    found[lease] = datetime.fromisoformat(began).timestamp()
        return found

    await story(hub, borrower, owner, running, slack=5)


def check_pods(hub: DeployedHub, name: str) -> None:
    """Each pod has a lease of its own, exactly its sizes, and no way to anything else."""
    pods = [pod for pod in pods_of_clusters(hub) if pod["metadata"]["labels"]["hangang-hub/cluster"] == name]
    assert sorted(pod["metadata"]["labels"]["hangang-hub/kind"] for pod in pods) == [
        "dask-scheduler",
        "dask-worker",
        "dask-worker",
    ]
    leases = {lease["id"]: lease for lease in hub.leases() if lease["server"] == name}
    assert {pod["metadata"]["labels"]["hangang-hub/lease"] for pod in pods} == set(leases)
    for pod in pods:
        lease = leases[pod["metadata"]["labels"]["hangang-hub/lease"]]
        (container,) = pod["spec"]["containers"]
        assert lease["handle"].endswith(pod["metadata"]["uid"])
        assert lease["node"] == pod["spec"]["nodeName"]
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert lease["state"] == "running"


def check_dashboard(hub: DeployedHub, owner: Visitor, name: str) -> None:
    """Its owner sees it at the desk, and nobody else."""
    address = f"/services/desk/clusters/{name}/status"
    shown = owner.http.get(address, follow_redirects=True)
    assert shown.status_code == 200
    assert "Dask" in shown.text
    assert hub.come("student").http.get(address, follow_redirects=True).status_code == 404


def kill_gateway(hub: DeployedHub) -> None:
    """Returns when another one serves."""
    before = gateways(hub)
    for pod in before:
        hub.kill(pod)

    def another() -> bool:
        ready = [
            pod["metadata"]["name"]
            for pod in hub.cluster.list("pods", SYSTEM, **{NAME: "gateway"})
            for condition in pod["status"].get("conditions", [])
            if (condition["type"], condition["status"]) == ("Ready", "True")
        ]
        return bool(set(ready) - set(before))

    wait_for(another, "another gateway serves", 120)


def gateways(hub: DeployedHub) -> list[str]:
    return [pod["metadata"]["name"] for pod in hub.cluster.list("pods", SYSTEM, **{NAME: "gateway"})]


async def test_a_worker_that_dies_is_replaced_and_a_result_is_not_lost(hub: DeployedHub) -> None:
    visitor = await asyncio.to_thread(a_server_of, hub, "researcher")
    async with kernel(visitor) as run:
        name = printed(await run(START)).split("cluster ")[1].split()[0]
        await run("from distributed import wait\nkept = client.submit(sum, range(1000))\nwait(kept)")
        (first, *_) = pods_of_clusters(hub, "dask-worker")
        lost = first["metadata"]["labels"]["hangang-hub/lease"]
        hub.cluster.delete("pod", first["metadata"]["name"], USERS)
        await asyncio.to_thread(
            wait_for,
            lambda: (
                lost not in {one["id"] for one in hub.leases()}
                and len([one for one in leases_of(hub, "dask-worker") if one["state"] == "running"]) == 2
            ),
            "another worker takes its place",
            240,
        )
        assert "computed 24" in printed(await run(COMPUTE))
        assert json.loads(printed(await run("print(kept.result())"))) == 499500
        # The kernel ends without a word: its cluster ends with it.
    await asyncio.to_thread(
        wait_for,
        lambda: not [one for one in hub.leases() if one["server"] == name],
        "its cluster ends with the kernel",
        180,
    )


async def test_a_cluster_that_starts_while_the_api_server_is_away_starts(
    hub: DeployedHub, cluster: Cluster
) -> None:
    visitor = await asyncio.to_thread(a_server_of, hub, "researcher")
    async with kernel(visitor) as run:
        with cluster.without("kube-apiserver"):
            starting = asyncio.create_task(run(START))
            # What can be seen of it then: the desk reads the ledger.
            await asyncio.to_thread(
                wait_for, lambda: visitor.calls("GET", "/clusters").json()["items"], "it is booked"
            )
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(starting), AWAY_SECONDS)
        name = printed(await starting).split("cluster ")[1].split()[0]
        assert "computed 24" in printed(await run(COMPUTE))
        check_pods(hub, name)
        await run(CLOSE)
    await asyncio.to_thread(wait_for, lambda: not pods_of_clusters(hub), "its pods are gone", 120)


async def test_a_scheduler_that_is_killed_ends_its_cluster_alone_and_another_may_follow(
    hub: DeployedHub,
) -> None:
    visitor = await asyncio.to_thread(a_server_of, hub, "researcher")
    async with kernel(visitor) as run:
        name = printed(await run(START)).split("cluster ")[1].split()[0]
        (scheduler,) = pods_of_clusters(hub, "dask-scheduler")
        await asyncio.to_thread(hub.kill, scheduler["metadata"]["name"], USERS)
        await asyncio.to_thread(
            wait_for, lambda: not [one for one in hub.leases() if one["server"] == name], "it is over", 120
        )
        await asyncio.to_thread(wait_for, lambda: not pods_of_clusters(hub), "its workers went with it", 120)
        over = [one for one in hub.all_leases() if one["server"] == name]
        assert {one["reason"] for one in over} <= {"died", "deleted", "cluster-over"}, over
        # The server and its kernel go on, and the next cluster is as good.
        assert "cluster" in printed(await run(START))
        assert "computed 24" in printed(await run(COMPUTE))
        await run(CLOSE)
    await asyncio.to_thread(wait_for, lambda: not pods_of_clusters(hub), "its pods are gone", 120)
