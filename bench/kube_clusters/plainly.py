"""The same pods, made by a small program."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from kubespawner.clients import shared_client

from bench.kube_clusters.beside import WRITTEN_BY_KUBERNETES
from bench.kube_clusters.pods import is_ready, pods_of
from bench.kubernetes import cpu_of_parts
from hub_ext.clusters.manifests import CLUSTER
from hub_ext.kube.pods import KIND
from tests.support.cluster import Cluster
from tests.support.manifests import Object


def groups_of(pods: Mapping[str, Object]) -> list[list[Object]]:
    """By cluster, the scheduler first, as they can be made again."""
    groups: dict[str, list[Object]] = {}
    for pod in pods.values():
        labels = pod["metadata"]["labels"]
        spec = {key: value for key, value in pod["spec"].items() if key not in WRITTEN_BY_KUBERNETES}
        kept = {
            "name": pod["metadata"]["name"],
            "labels": labels,
            "annotations": pod["metadata"].get("annotations"),
        }
        again = {"apiVersion": "v1", "kind": "Pod", "metadata": kept, "spec": spec}
        groups.setdefault(labels[CLUSTER], []).append(again)
    return [sorted(group, key=lambda pod: str(pod["metadata"]["labels"][KIND])) for group in groups.values()]


def secret_like(name: str) -> Object:
    """As large as the one of a cluster."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": {"dask.crt": "x" * 700, "dask.pem": "x" * 300, "api-token": "x" * 32},
    }


async def make_plainly(namespace: str, groups: Sequence[Sequence[Object]], at_once: int) -> dict[str, Any]:
    """Scheduler and secret of each cluster, and once it is ready its workers. What it took until all were there."""
    turn, failed = asyncio.Semaphore(at_once), Counter[str]()
    async with pods_of(namespace) as pods:
        api = shared_client("CoreV1Api")

        async def do(what: Callable[[str, Object], Awaitable[Any]], manifest: Object) -> None:
            async with turn:
                try:
                    await what(namespace, manifest)
                except Exception as error:
                    failed[type(error).__name__] += 1

        async def one(scheduler: Object, *workers: Object) -> None:
            name = scheduler["metadata"]["name"]
            await do(api.create_namespaced_pod, scheduler)
            await do(api.create_namespaced_secret, secret_like(name))
            key = f"{namespace}/{name}"
            while not is_ready(pods.resources.get(key, {"status": {}})):
                await pods.changed(key, 5)
            await asyncio.gather(*(do(api.create_namespaced_pod, worker) for worker in workers))

        began, worked = time.monotonic(), time.process_time()
        await asyncio.gather(*(one(*group) for group in groups))
        found = {"pods": time.monotonic() - began, "cpu": time.process_time() - worked, "failed": failed}
        await api.api_client.close()
    return found


def plain(
    cluster: Cluster, namespace: str, groups: Sequence[Sequence[Object]], patience: float
) -> dict[str, Any]:
    """In a process of its own, as the gateway is."""
    before = cpu_of_parts(cluster)
    command = [sys.executable, "-m", "bench.kube_clusters", "plainly", namespace]
    done = subprocess.run(
        command, input=json.dumps(groups), capture_output=True, text=True, timeout=patience, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    found["control plane"] = {name: round(s - before[name], 2) for name, s in cpu_of_parts(cluster).items()}
    return found
