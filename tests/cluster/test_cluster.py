"""The cluster that `make cluster` makes: pods really run, GPUs are counted, names resolve, volumes are written, and it
comes through the loss of each of its parts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.support.cluster import NODE, OURS, PROGRAM, Cluster, condition, pod, with_limits
from tests.support.hub import wait_for
from tests.support.manifests import Object

pytestmark = pytest.mark.cluster

GREET = "/busybox nc -ll -p 8080 -e /busybox echo good day"
GPU, SLICE = "nvidia.com/gpu", "nvidia.com/mig-1g.18gb"


def shell(name: str, tools: str, script: str, **spec: object) -> Object:
    """A pod that runs a script and ends."""
    return pod(name, tools, container={"command": ["/busybox", "sh", "-ec", script]}, **spec)


def address_of(service: str, namespace: str) -> str:
    """For a script: asks the name service. (The image's other tools need libraries to do so by themselves.)"""
    ask = f"/busybox nslookup -type=a {service}.{namespace}.svc.cluster.local"
    return f"{ask} | /busybox awk '/^Address: [0-9.]+$/ {{ print $2 }}'"


# -- what pods find ------------------------------------------------------------------------------------------------


def test_a_pod_runs(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod("one"), namespace=namespace)

    running = cluster.wait_for_pod("one", namespace)

    assert running["spec"]["nodeName"]
    assert running["status"]["podIP"]


@pytest.mark.parametrize("resource", [GPU, SLICE])
def test_the_scheduler_counts_gpus_and_lets_the_next_pod_wait(
    cluster: Cluster, namespace: str, resource: str
) -> None:
    left = cluster.free(resource)
    assert left > 0, "other pods hold all of them"
    cluster.apply(pod("all", container=with_limits(**{resource: left})), namespace=namespace)
    cluster.wait_for_pod("all", namespace)

    cluster.apply(pod("next", container=with_limits(**{resource: 1})), namespace=namespace)

    assert f"Insufficient {resource}" in cluster.why_pending("next", namespace)
    cluster.delete("pod", "all", namespace)
    cluster.wait_for_pod("next", namespace)


def test_a_pod_finds_another_by_the_name_of_a_service(cluster: Cluster, namespace: str, tools: str) -> None:
    server = shell("server", tools, f"exec {GREET}")
    server["metadata"]["labels"] = {"app": "server"}
    server["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "greeter"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    cluster.apply(server, service, namespace=namespace)
    cluster.wait_for_pod("server", namespace)

    visit = f"/busybox nc -w 10 $({address_of('greeter', namespace)}) 80 < /dev/null"
    cluster.apply(shell("visitor", tools, visit), namespace=namespace)

    cluster.wait_for_pod("visitor", namespace, "Succeeded")
    assert cluster.logs("visitor", namespace) == "good day\n"


def test_a_name_outside_is_nobodys(cluster: Cluster, namespace: str, tools: str) -> None:
    ask = "/busybox nslookup -type=a www.example.org || true"
    cluster.apply(shell("curious", tools, ask), namespace=namespace)

    cluster.wait_for_pod("curious", namespace, "Succeeded")
    assert "www.example.org: NXDOMAIN" in cluster.logs("curious", namespace)


def test_a_pod_reaches_itself_through_its_service(cluster: Cluster, namespace: str, tools: str) -> None:
    script = (
        f"{GREET} & address=$({address_of('itself', namespace)}); n=0; "
        "until /busybox nc -w 2 $address 80 < /dev/null; do n=$((n+1)); [ $n -lt 20 ]; /busybox sleep 1; done"
    )
    one = shell("itself", tools, script)
    one["metadata"]["labels"] = {"app": "itself"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "itself"},
        "spec": {"selector": {"app": "itself"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    cluster.apply(service, one, namespace=namespace)

    cluster.wait_for_pod("itself", namespace, "Succeeded")
    assert cluster.logs("itself", namespace) == "good day\n"


def test_nothing_leads_from_a_pod_to_the_outside(cluster: Cluster, namespace: str, tools: str) -> None:
    # An address that is nobody's: the machine refuses before anything could be asked there.
    cluster.apply(
        shell("curious", tools, "/busybox nc -w 20 203.0.113.1 80 < /dev/null"), namespace=namespace
    )

    cluster.wait_for_pod("curious", namespace, "Failed")

    assert "refused" in cluster.logs("curious", namespace)


def test_an_image_that_was_not_loaded_is_missing_and_nobody_outside_is_asked(
    cluster: Cluster, namespace: str
) -> None:
    if not cluster.ours:
        pytest.skip("only the cluster that `make cluster` makes asks no registry")
    cluster.apply(pod("unknown", "hangang/unknown:dev"), namespace=namespace)

    def refusal() -> str:
        found = cluster.get("pod", "unknown", namespace)
        assert found is not None
        for one in found["status"].get("containerStatuses", []):
            waiting = one["state"].get("waiting", {})
            if waiting.get("reason") in ("ErrImagePull", "ImagePullBackOff"):
                return str(waiting["message"])
        return ""

    message = wait_for(refusal, "the image is found missing")
    assert "127.0.0.1:1" in message


# -- volumes -------------------------------------------------------------------------------------------------------


def claim(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def at_home(name: str, tools: str, script: str) -> Object:
    one = shell(
        name, tools, script, volumes=[{"name": "home", "persistentVolumeClaim": {"claimName": "home"}}]
    )
    one["spec"]["containers"][0]["volumeMounts"] = [
        {"name": "home", "mountPath": "/home/jovyan", "subPath": "home"}
    ]
    return one


def test_a_claim_is_written_by_an_ordinary_person_and_read_by_the_next_pod(
    cluster: Cluster, namespace: str, tools: str
) -> None:
    cluster.apply(claim("home"), namespace=namespace)
    write = "/busybox id -u; echo kept > /home/jovyan/note; /busybox mkdir /home/jovyan/work"
    cluster.apply(at_home("writer", tools, write), namespace=namespace)
    cluster.wait_for_pod("writer", namespace, "Succeeded")
    assert cluster.logs("writer", namespace) == "1000\n"

    cluster.apply(at_home("reader", tools, "/busybox cat /home/jovyan/note"), namespace=namespace)

    cluster.wait_for_pod("reader", namespace, "Succeeded")
    assert cluster.logs("reader", namespace) == "kept\n"


def test_a_volume_goes_with_its_claim(cluster: Cluster, namespace: str, tools: str) -> None:
    cluster.apply(
        claim("home"), at_home("writer", tools, "echo gone > /home/jovyan/note"), namespace=namespace
    )
    cluster.wait_for_pod("writer", namespace, "Succeeded")
    bound = cluster.get("pvc", "home", namespace)
    assert bound is not None
    volume = bound["spec"]["volumeName"]
    cluster.delete("pod", "writer", namespace)

    cluster.delete("pvc", "home", namespace)

    wait_for(lambda: cluster.get("pv", volume) is None, "the volume is removed")
    if cluster.ours:
        assert not (OURS.parent / "volumes" / volume).exists()


# -- pretended nodes -----------------------------------------------------------------------------------------------


def on_pretended(name: str, nodes: Sequence[str], **more: object) -> Object:
    """A pod that may run on these pretended nodes only; others may be there for somebody else."""
    one_of = {"key": "kubernetes.io/hostname", "operator": "In", "values": list(nodes)}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [one_of]}]}
    return pod(
        name,
        affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
        tolerations=[{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
        **more,
    )


def test_pods_on_pretended_nodes_are_ready_in_name_and_their_gpus_count(
    cluster: Cluster, namespace: str
) -> None:
    with cluster.pretended_nodes(2, "--gpus", "4") as names:
        wanted = [
            on_pretended(f"pod-{number}", names, container=with_limits(**{GPU: 4})) for number in (1, 2, 3)
        ]
        cluster.apply(*wanted, namespace=namespace)

        def ready() -> list[Object]:
            return [one for one in cluster.list("pods", namespace) if condition(one, "Ready") == "True"]

        wait_for(lambda: len(ready()) == 2, "two of the three pods have a node each")

        assert {one["spec"]["nodeName"] for one in ready()} == set(names)
        assert len({one["status"]["podIP"] for one in ready()}) == 2


def test_a_pretended_pod_is_ready_as_late_as_it_asks(cluster: Cluster, namespace: str) -> None:
    asks = {"annotations": {"pod-ready.stage.kwok.x-k8s.io/delay": "3s"}}
    with cluster.pretended_nodes(1) as names:
        cluster.apply(on_pretended("late", names, metadata=asks), namespace=namespace)

        late = cluster.wait_for_pod("late", namespace)

    assert moment(late, "Ready") - moment(late, "PodScheduled") >= timedelta(seconds=2)


def moment(found: Object, kind: str) -> datetime:
    """When the condition changed last; in whole seconds, as Kubernetes writes it."""
    at = next(one["lastTransitionTime"] for one in found["status"]["conditions"] if one["type"] == kind)
    return datetime.fromisoformat(at)


def test_pods_go_with_a_pretended_node(cluster: Cluster, namespace: str) -> None:
    with cluster.pretended_nodes(1) as names:
        cluster.apply(on_pretended("one", names), namespace=namespace)
        cluster.wait_for_pod("one", namespace)

    wait_for(lambda: cluster.get("pod", "one", namespace) is None, "the pod is gone")


# -- the loss of parts ---------------------------------------------------------------------------------------------


def container_id(cluster: Cluster, name: str, namespace: str) -> str:
    return str(cluster.wait_for_pod(name, namespace)["status"]["containerStatuses"][0]["containerID"])


def test_up_leaves_a_healthy_cluster_as_it_is(cluster: Cluster) -> None:
    before = cluster.pids()
    assert len(before) >= 10

    assert "nothing had to be done" in cluster.program("up")

    assert cluster.pids() == before


@pytest.mark.parametrize(
    "part",
    ["etcd", "kube-apiserver", "kube-controller-manager", "containerd", "kubelet", "kube-proxy", "coredns"],
)
def test_up_brings_back_a_part_that_crashed_and_pods_live_on(
    cluster: Cluster, namespace: str, part: str
) -> None:
    cluster.apply(pod("steady"), namespace=namespace)
    before, container = cluster.pids(), container_id(cluster, "steady", namespace)
    cluster.program("stop", part, "--kill")
    assert part not in cluster.pids()

    assert part in cluster.program("up")

    after = cluster.pids()
    assert {name for name in before if before[name] != after[name]} == {part}
    assert container_id(cluster, "steady", namespace) == container
    cluster.apply(pod("new"), namespace=namespace)
    cluster.wait_for_pod("new", namespace)


@pytest.mark.parametrize("part", ["etcd", "kube-scheduler", "coredns"])
def test_a_part_that_ends_by_itself_is_started_again(cluster: Cluster, namespace: str, part: str) -> None:
    before = cluster.pids()
    os.kill(before[part], signal.SIGKILL)

    wait_for(lambda: cluster.pids().get(part, before[part]) != before[part], f"{part} runs again", 60)

    wait_for(lambda: "does not" not in cluster.program("status"), "all serve", 60)
    assert {name for name, pid in cluster.pids().items() if before[name] != pid} == {part}
    cluster.apply(pod("new"), namespace=namespace)
    cluster.wait_for_pod("new", namespace)


def test_a_restarted_kubelet_keeps_pods_and_gets_its_gpus_again(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod("steady", container=with_limits(**{GPU: 1})), namespace=namespace)
    container = container_id(cluster, "steady", namespace)

    with cluster.without("kubelet"):
        pass

    def gpus() -> bool:
        found = cluster.get("node", NODE)
        return found is not None and found["status"]["allocatable"].get(GPU) == "8"

    wait_for(gpus, "the node has its GPUs again")
    wait_for(
        lambda: condition(cluster.get("node", NODE) or {"status": {}}, "Ready") == "True", "the node is ready"
    )
    assert container_id(cluster, "steady", namespace) == container


def test_the_cluster_remembers_while_its_api_is_away(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod("steady"), namespace=namespace)
    container = container_id(cluster, "steady", namespace)

    with cluster.without("kube-apiserver"):
        away = cluster.attempt("get", "nodes", "--request-timeout=5s")
        assert away.returncode != 0
        assert "refused" in away.stderr

    assert container_id(cluster, "steady", namespace) == container


def test_up_killed_half_way_is_finished_by_the_next(cluster: Cluster) -> None:
    before = cluster.pids()
    parts = ["coredns", "kube-proxy", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"]
    for part in parts:
        cluster.program("stop", part, "--kill")
    environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    log = OURS.parent / "logs" / "kube-apiserver.log"
    written = log.stat().st_size
    halfway = subprocess.Popen([sys.executable, str(PROGRAM), "up"], env=environment)
    try:
        wait_for(lambda: log.stat().st_size > written, "the API server has started", every=0.01)
    finally:
        halfway.send_signal(signal.SIGKILL)
        halfway.wait()

    assert "is up" in cluster.program("up")

    after = cluster.pids()
    assert after.keys() == before.keys()
    assert {name for name in before if before[name] != after[name]} == set(parts)


def test_a_cluster_of_ones_own_is_only_looked_at(cluster: Cluster, tmp_path: Path) -> None:
    if not cluster.ours:
        pytest.skip("only the cluster that `make cluster` makes can be handled so")
    copy = tmp_path / "kubeconfig"
    copy.write_bytes(cluster.kubeconfig.read_bytes())
    before = cluster.pids()

    done = subprocess.run(
        [sys.executable, str(PROGRAM), "up"],
        env={**os.environ, "KUBECONFIG": str(copy)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert "Nothing was started or written." in done.stdout
    assert cluster.pids() == before
