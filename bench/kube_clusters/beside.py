"""One cluster on the deployed hub, in turn with the same scheduler and workers as plain pods."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import statistics
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from distributed import Client
from distributed.versions import VersionMismatchWarning
from kubespawner.clients import shared_client

from bench.kube_clusters.pods import pods_of
from bench.kubernetes import RESTRICTED
from hub_ext.clusters.manifests import CLUSTER, LISTEN
from hub_ext.kube.pods import KIND
from hub_ext.kube.pods import PERSON as LABEL_OF_PERSON
from hub_ext.kube.watch import PodWatch
from hub_ext.quota.model import SCHEDULER, WORKER
from tests.support.cluster import NODE, Cluster
from tests.support.deployed import SYSTEM, USERS, DeployedHub
from tests.support.hub import Visitor, wait_for
from tests.support.manifests import Object
from tests.support.story import kernel, printed

PERSON = "lead"
"""Of the demo's people; no test uses this one."""
BEFORE = """
import json, time
from dask_gateway import Gateway
"""
ORDER = """
at = [time.perf_counter()]
gateway = Gateway()
cluster = gateway.new_cluster(profile="cpu")
at.append(time.perf_counter())
cluster.scale(%(workers)d)
at.append(time.perf_counter())
client = cluster.get_client()
client.wait_for_workers(%(workers)d, timeout=300)
at.append(time.perf_counter())
print(json.dumps([cluster.name, *(one - at[0] for one in at[1:])]))
"""
CLOSE = """
client.close()
cluster.close()
gateway.close()
"""
ROUND_SECONDS = 400
OURS, PLAIN, PATIENT = "ours", "plain pods", "plain pods, workers when the scheduler answers"
SET_BY_US = "DASK_"
NOT_PLAIN = ("--protocol", "--preload", "--dg-")
"""Options of our schedulers, each with a value."""
WRITTEN_BY_KUBERNETES = ("nodeName", "priority", "preemptionPolicy", "serviceAccount", "serviceAccountName")


@dataclass
class Parts:
    """Manifests of one scheduler and its workers, as plain pods."""

    scheduler: Object
    workers: list[Object]


def plain_parts(pods: Sequence[Object]) -> Parts:
    """The same images, sizes and commands, without all that is the gateway's."""
    by_kind: dict[str, list[Object]] = {SCHEDULER: [], WORKER: []}
    for pod in pods:
        kind = pod["metadata"]["labels"][KIND]
        by_kind[kind].append(plain_pod(pod, f"plain-{kind}-{len(by_kind[kind])}"))
    (scheduler,) = by_kind[SCHEDULER]
    container = scheduler["spec"]["containers"][0]
    command = container["command"]
    keep = [place for place, word in enumerate(command) if word.startswith(NOT_PLAIN)]
    dropped = {*keep, *(place + 1 for place in keep)}
    container["command"] = [word for place, word in enumerate(command) if place not in dropped]
    return Parts(scheduler, by_kind[WORKER])


def plain_pod(pod: Object, name: str) -> Object:
    spec = {key: value for key, value in pod["spec"].items() if key not in WRITTEN_BY_KUBERNETES}
    spec["volumes"] = [one for one in spec["volumes"] if "secret" not in one]
    volumes = {one["name"] for one in spec["volumes"]}
    (container,) = spec["containers"]
    spec["containers"] = [
        {
            **container,
            "env": [one for one in container["env"] if not one["name"].startswith(SET_BY_US)],
            "volumeMounts": [one for one in container["volumeMounts"] if one["name"] in volumes],
        }
    ]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def working_for(worker: Object, address: str) -> Object:
    """The worker's pod with the scheduler's address: `dask worker ADDRESS …`."""
    (container,) = worker["spec"]["containers"]
    command = list(container["command"])
    command[command.index("worker") + 1] = address
    return {**worker, "spec": {**worker["spec"], "containers": [{**container, "command": command}]}}


async def plain_round(pods: PodWatch, parts: Parts, *, patient: bool) -> float:
    """Seconds until all workers are connected."""
    api, namespace = shared_client("CoreV1Api"), pods.namespace
    began = time.perf_counter()
    await api.create_namespaced_pod(namespace, parts.scheduler)
    key = f"{namespace}/{parts.scheduler['metadata']['name']}"
    while not (host := pods.resources.get(key, {}).get("status", {}).get("podIP")):
        await pods.changed(key, 1)
    if patient:
        await answers(host)
    address = f"tcp://{host}:{LISTEN.scheduler}"
    for worker in parts.workers:
        await api.create_namespaced_pod(namespace, working_for(worker, address))
    await answers(host)
    client: Any = Client(address, asynchronous=True, timeout=60)  # type: ignore[no-untyped-call]
    async with client:
        await client.wait_for_workers(len(parts.workers), timeout=300)
        seconds = time.perf_counter() - began
    for name in [pod["metadata"]["name"] for pod in pods.resources.values()]:
        await api.delete_namespaced_pod(name, namespace, grace_period_seconds=1)
    while pods.resources:
        await pods.changed(next(iter(pods.resources)), 1)
    return seconds


async def answers(host: str) -> None:
    """Returns when the scheduler listens."""
    give_up = time.monotonic() + 300
    while time.monotonic() < give_up:
        with contextlib.suppress(OSError, TimeoutError):
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, LISTEN.scheduler), 1)
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise TimeoutError(f"The scheduler at {host} does not answer")


def attached(cluster: Cluster) -> DeployedHub:
    """The hub that runs, at the address that its deployment gave it."""
    service, node = cluster.get("service", "proxy-public", SYSTEM), cluster.get("node", NODE)
    if service is None or node is None or "nodePort" not in service["spec"]["ports"][0]:
        sys.exit("There is no hub in the cluster: `make deploy` brings one.")
    host = next(one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP")
    return DeployedHub(cluster, url=f"http://{host}:{service['spec']['ports'][0]['nodePort']}")


def pods_of_cluster(cluster: Cluster, name: str) -> list[Object]:
    return cluster.list("pods", USERS, **{CLUSTER: name})


def gone(cluster: Cluster, name: str) -> None:
    wait_for(lambda: not pods_of_cluster(cluster, name), "its pods are gone", 120)


def last_line(outputs: list[tuple[str, str]]) -> list[Any]:
    """What a cell printed as JSON, after what libraries may have said."""
    return list(json.loads(printed(outputs).splitlines()[-1]))


def pods_of_person(cluster: Cluster) -> list[Object]:
    return cluster.list("pods", USERS, **{LABEL_OF_PERSON: PERSON})


def leave_nothing(cluster: Cluster, visitor: Visitor) -> None:
    """Also where the hub, or for a while the API server, does not answer."""
    with contextlib.suppress(AssertionError, httpx.HTTPError):
        visitor.stop()
    for pod in pods_of_person(cluster):
        cluster.delete("pod", pod["metadata"]["name"], USERS)


async def beside(cluster: Cluster, rounds: int, workers: int) -> None:
    # This Python is not that of the images.
    warnings.filterwarnings("ignore", category=VersionMismatchWarning)
    hub = attached(cluster)
    visitor = await asyncio.to_thread(hub.come, PERSON)
    if visitor.servers() or pods_of_person(cluster):
        sys.exit(f"{PERSON} has a server or cluster already, which somebody else may be using.")
    took: dict[str, list[list[float]]] = {OURS: [], PLAIN: [], PATIENT: []}
    with cluster.namespace(**RESTRICTED) as namespace:
        try:
            visitor.start({"profile": "cpu-small"})
            await asyncio.to_thread(visitor.wait_until_ready, "", 180)
            assert visitor.http.get(f"/user/{PERSON}/lab").status_code == 200
            async with kernel(visitor) as run, pods_of(namespace) as pods:
                await run(BEFORE)
                parts = None
                for turn in range(rounds + 1):
                    # The first of each warms up, and shows what the pods look like.
                    for name in random.sample(list(took), len(took)) if turn else list(took):
                        if name == OURS:
                            ordered, *one = last_line(await run(ORDER % {"workers": workers}))
                            parts = parts or plain_parts(pods_of_cluster(cluster, ordered))
                            await run(CLOSE)
                            await asyncio.to_thread(gone, cluster, ordered)
                        else:
                            assert parts is not None
                            async with asyncio.timeout(ROUND_SECONDS):
                                one = [await plain_round(pods, parts, patient=name == PATIENT)]
                        if turn:
                            took[name].append(one)
        finally:
            await asyncio.to_thread(leave_nothing, cluster, visitor)
            await shared_client("CoreV1Api").api_client.close()
    show_beside(took, workers, rounds)


def show_beside(took: Mapping[str, Sequence[Sequence[float]]], workers: int, rounds: int) -> None:
    print(f"{workers} CPU workers connected, {rounds} rounds; load {os.getloadavg()[0]:.1f}")
    medians, found = {}, {}
    for name, times in took.items():
        seconds = sorted(one[-1] for one in times)
        medians[name] = statistics.median(seconds)
        found[name] = {"median": medians[name], "fastest": seconds[0], "slowest": seconds[-1]}
        print(
            f"  {name}: median {medians[name]:.1f} s, fastest {seconds[0]:.1f} s, slowest {seconds[-1]:.1f} s"
        )
    scheduler, booked, connected = (
        statistics.median(one[place] - (one[place - 1] if place else 0) for one in took[OURS])
        for place in range(3)
    )
    print(
        f"  ours in parts (medians): until the scheduler runs {scheduler:.1f} s, until the workers are booked "
        f"{booked:.2f} s, until they are connected {connected:.1f} s"
    )
    ratios = {name: medians[OURS] / medians[name] for name in (PLAIN, PATIENT)}
    for name, ratio in ratios.items():
        print(f"  ours / {name}: {ratio:.2f}")
    parts = {"scheduler": scheduler, "booked": booked, "connected": connected}
    print(json.dumps({"seconds": found, "ours in parts": parts, "ratio": ratios}))
