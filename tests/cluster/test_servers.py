"""Real servers on a real node, with the hub outside the cluster, so that a node in trouble is not the hub's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import NODE, Cluster, condition
from tests.support.hub import Visitor, wait_for
from tests.support.kube_hub import KubeHub

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

AWAY_SECONDS = 90


@pytest.fixture
def hub(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[KubeHub]:
    one = KubeHub.make(tmp_path, cluster, namespace)
    try:
        one.start()
        yield one
    finally:
        for name in ("hub", "desk"):
            print(f"--- {name}.log\n{one.log(name)[-5000:]}")
        one.stop(servers=False)


def ready(cluster: Cluster) -> bool:
    node = cluster.get("node", NODE)
    return node is not None and condition(node, "Ready") == "True"


def test_a_kubelet_that_is_away_for_long_ends_no_server(hub: KubeHub, cluster: Cluster) -> None:
    student = Visitor(hub, "student")
    student.start({"profile": "h200-slice"})
    student.wait_until_ready(seconds=120)
    (pod,) = hub.pods()
    (lease,) = hub.leases()
    address = f"http://{pod['status']['podIP']}:8888/user/student/api"
    with cluster.without("kubelet"):
        back = time.monotonic() + AWAY_SECONDS
        wait_for(lambda: not ready(cluster), "the cluster takes the node for lost", AWAY_SECONDS, 1)
        # Nothing new is sent there, and nobody is told that it never could be.
        instructor = Visitor(hub, "instructor")
        wait_for(lambda: not hub.nodes_ready()[NODE], "the clock has seen it", 30)
        refused = instructor.start({"profile": "h200-slice"})
        assert refused.status_code == 409, refused.text
        while time.monotonic() < back:
            assert httpx.get(address, timeout=5).status_code == 200, "the server runs on"
            assert student.servers()[""]["ready"], "and the hub keeps it"
            time.sleep(1)
    wait_for(lambda: ready(cluster), "the node is back", 120, 1)
    assert [one["id"] for one in hub.leases() if one["person"] == "student"] == [lease["id"]]
    wait_for(lambda: hub.nodes_ready()[NODE], "the clock has seen it", 30)
    assert instructor.start({"profile": "h200-slice"}).status_code in (201, 202)
    instructor.wait_until_ready(seconds=120)
    leases, pods = hub.leases_and_pods()
    assert leases == pods
    student.stop()
    instructor.stop()
