"""Who reaches whom, by real connections, where the cluster's network enforces NetworkPolicy.

Whether it does is found out with a policy that lets nothing in. The rules themselves are looked at in tests/deploy too.
"""

from __future__ import annotations

import pytest

from tests.support.cluster import Cluster, pod
from tests.support.hub import wait_for
from tests.support.manifests import Object, built, of_kind
from tests.support.wall import USERS

pytestmark = [pytest.mark.cluster, pytest.mark.networkpolicy]

PORT = 8888
ENFORCED_WITHIN = 20
"""Seconds after which a network that enforces policies at all has taken one up."""
NOT_ENFORCED = "this cluster's network does not enforce NetworkPolicy"


def listening(name: str, image: str, **labels: str) -> Object:
    """A pod that answers on the port of people's servers."""
    command = ["/busybox", "httpd", "-f", "-p", str(PORT)]
    return pod(name, image, metadata={"labels": {"app": name, **labels}}, container={"command": command})


def reaches(cluster: Cluster, namespace: str, source: str, address: str) -> bool:
    tried = ["/busybox", "nc", "-w", "2", address, str(PORT)]
    return cluster.attempt("exec", source, f"--namespace={namespace}", "--", *tried).returncode == 0


@pytest.fixture
def two_pods(cluster: Cluster, namespace: str, tools: str) -> tuple[str, str]:
    """The namespace of two pods that reach each other, and the address of `server`."""
    server = {"hangang-hub/kind": "server"}
    cluster.apply(listening("server", tools, **server), listening("neighbour", tools), namespace=namespace)
    address = str(cluster.wait_for_pod("server", namespace)["status"]["podIP"])
    cluster.wait_for_pod("neighbour", namespace)
    wait_for(lambda: reaches(cluster, namespace, "neighbour", address), "pods reach each other", 30)
    return namespace, address


def closed(cluster: Cluster, namespace: str, address: str) -> bool:
    """Whether the neighbour is cut off from the server soon."""
    try:
        wait_for(
            lambda: not reaches(cluster, namespace, "neighbour", address), "it is cut off", ENFORCED_WITHIN
        )
    except AssertionError:
        return False
    return True


def test_no_other_pod_reaches_a_persons_server(
    cluster: Cluster, two_pods: tuple[str, str], tools: str
) -> None:
    namespace, address = two_pods
    # 1. Does this network enforce anything at all?
    nothing_in = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "probe"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    cluster.apply(nothing_in, namespace=namespace)
    if not closed(cluster, namespace, address):
        pytest.skip(NOT_ENFORCED)
    cluster.delete("networkpolicy", "probe", namespace)
    wait_for(lambda: reaches(cluster, namespace, "neighbour", address), "the probe is lifted", 30)
    # 2. The policies of people's namespace, in this one.
    for policy in of_kind(built("local"), "NetworkPolicy"):
        if policy["metadata"]["namespace"] == USERS:
            del policy["metadata"]["namespace"]
            cluster.apply(policy, namespace=namespace)
    assert closed(cluster, namespace, address)
    # 3. And nobody does from another namespace.
    with cluster.namespace() as elsewhere:
        cluster.apply(listening("neighbour", tools), namespace=elsewhere)
        cluster.wait_for_pod("neighbour", elsewhere)
        assert not reaches(cluster, elsewhere, "neighbour", address)
