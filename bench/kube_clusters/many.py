"""Hundreds of clusters on pretended nodes: what the gateway takes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from bench.kube_clusters.centre import AT_ONCE, Centre, Size, centre, empty_nodes, ledger
from bench.kube_clusters.plainly import groups_of, plain
from bench.kube_clusters.pods import percentiles, told
from bench.kube_clusters.stub import Stub, stub
from bench.kubernetes import RESTRICTED, cpu, cpu_of_parts, memory
from hub_ext.clusters.manifests import LISTEN
from tests.support.cluster import NODE, Cluster
from tests.support.hub import wait_for
from tests.support.kube_hub import GATEWAY

ResultT = TypeVar("ResultT")


@dataclass
class Cost:
    """Seconds of the processor since it was made, by process."""

    before: Mapping[str, float]
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, made: Centre, cluster: Cluster) -> Cost:
        return cls(cls._now(made, cluster))

    @staticmethod
    def _now(made: Centre, cluster: Cluster) -> dict[str, float]:
        return {name: cpu(made.process(name)) for name in ("gateway", "clock")} | cpu_of_parts(cluster)

    def until_now(self, made: Centre, cluster: Cluster) -> dict[str, float]:
        return {
            name: round(seconds - self.before[name], 2) for name, seconds in self._now(made, cluster).items()
        }


async def again(attempt: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """The first result that is not empty; one attempt a second."""
    while True:
        if found := await attempt():
            return found
        await asyncio.sleep(1)


@dataclass
class People:
    """Each with a cluster, who ask as dask-gateway's client does."""

    one: Stub
    failed: Counter[str] = field(default_factory=Counter)
    clusters: dict[str, str] = field(default_factory=dict)

    async def ask(self, person: str, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The answer; empty where there was none, or none that is a success."""
        headers = {"Authorization": f"jupyterhub {person}-token"}
        url, what = f"{self.one.centre.url}/v1/clusters/{path}", f"{method} {path.partition('/')[2]}".strip()
        try:
            async with self.one.session.request(method, url, json=body, headers=headers) as answer:
                if answer.status >= 400:
                    self.failed[f"{what} {answer.status} {answer.reason}"] += 1
                    return {}
                return dict(await answer.json()) if answer.status != 204 else {}
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failed[f"{what} {type(error).__name__}"] += 1
            return {}

    async def order(self, person: str, workers: int) -> None:
        """Whoever is refused, or whose cluster fails, orders again."""
        await again(lambda: self.is_there(person))
        await self.scale(person, workers)

    async def is_there(self, person: str) -> bool:
        made = await self.ask(person, "POST", "", {"cluster_options": {"profile": "cpu"}})
        if not made:
            return False
        name = self.clusters[person] = made["name"]
        while True:
            status = (await self.ask(person, "GET", f"{name}?wait")).get("status", "")
            if status in ("STOPPED", "FAILED"):
                self.failed[f"a cluster {status.lower()}"] += 1
                return False
            if status == "RUNNING":
                return True
            if not status:
                await asyncio.sleep(1)

    async def scale(self, person: str, workers: int) -> float:
        """Seconds until the gateway answered, which it does when the workers are booked."""
        began = time.perf_counter()
        path = f"{self.clusters[person]}/scale"
        answer = await again(lambda: self.ask(person, "POST", path, {"count": workers}))
        if not answer["ok"]:
            self.failed["fewer workers than asked for"] += 1
        return time.perf_counter() - began

    async def stop(self, person: str) -> None:
        await self.ask(person, "DELETE", self.clusters[person])


async def until(reached: Callable[[], Awaitable[bool]], what: str, seconds: float) -> float:
    """When it was, by the clock of `time.monotonic`."""
    give_up = time.monotonic() + seconds
    while not await reached():
        if time.monotonic() > give_up:
            raise AssertionError(f"waited {seconds:.0f} s in vain for: {what}")
        await asyncio.sleep(0.1)
    return time.monotonic()


async def ours(cluster: Cluster, made: Centre, size: Size, given: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    gateway = made.process("gateway")
    async with stub(made, size.people) as one:
        people = People(one)

        async def leased() -> bool:
            return await asyncio.to_thread(made.leases) >= size.pods

        async def there() -> bool:
            return len(one.pods.resources) >= size.pods

        async def at_work() -> bool:
            return sum(len(scheduler.active) for scheduler in one.schedulers.values()) >= (
                size.clusters * size.workers
            )

        # 1. Everybody orders at once.
        empty, cost = memory(gateway), await asyncio.to_thread(Cost.of, made, cluster)
        orders = asyncio.gather(*(people.order(person, size.workers) for person in size.people))
        waits = (
            until(leased, "all are leased", given.patience),
            until(there, "all pods are there", given.patience),
        )
        times = [at - cost.began for at in await asyncio.gather(*waits)]
        found["leased"], found["pods"] = times
        found["cpu"] = await asyncio.to_thread(cost.until_now, made, cluster)
        await orders
        found["at work"] = await until(at_work, "all are at work", given.patience) - cost.began
        found["heartbeats, growing"] = percentiles(one.beats)
        # 2. Nothing happens but heartbeats.
        await asyncio.sleep(5)
        cost = await asyncio.to_thread(Cost.of, made, cluster)
        beats = len(one.beats)
        await asyncio.sleep(given.steady)
        passed = time.monotonic() - cost.began
        spent = await asyncio.to_thread(cost.until_now, made, cluster)
        steady = {name: round(seconds / passed, 3) for name, seconds in spent.items()}
        found["steady, cores"] = steady
        found["heartbeats, steady"] = percentiles(one.beats[beats:])
        found["heartbeats a second"] = (len(one.beats) - beats) / passed
        found["memory"] = {"before": empty, "with all": memory(gateway)}
        # 3. One more for each, and back, one after the other.
        chosen = random.Random(7).sample(sorted(people.clusters), min(given.grants, len(people.clusters)))
        found["grants"] = [await people.scale(person, size.workers + 1) for person in chosen]
        size_now = size.pods + len(chosen)

        async def one_more() -> bool:
            return len(one.pods.resources) >= size_now

        async def one_less() -> bool:
            return len(one.pods.resources) == size.pods

        await until(one_more, "the workers asked for beside are there", given.patience)
        await asyncio.gather(*(people.scale(person, size.workers) for person in chosen))
        await until(one_less, "they are gone again", given.patience)
        found["manifests"] = {key: dict(pod) for key, pod in one.pods.resources.items()}

        # 4. Everybody stops at once.
        async def nothing_left() -> bool:
            return not one.pods.resources and await asyncio.to_thread(made.leases) == 0

        began = time.monotonic()
        await asyncio.gather(*(people.stop(person) for person in people.clusters))
        found["ended"] = await until(nothing_left, "nothing is left", given.patience) - began
        found["failed"] = dict(people.failed + one.failed)
        found["warnings"] = dict(made.warnings())
    return found


def all_pods_go(cluster: Cluster, namespace: str) -> None:
    """By one request for all of them."""
    cluster.attempt("delete", "--raw", f"/api/v1/namespaces/{namespace}/pods", seconds=300)
    wait_for(lambda: not cluster.list("pods", namespace), "all pods are gone", 300, 1)


def many(cluster: Cluster, given: argparse.Namespace) -> None:
    if not cluster.ours:
        sys.exit("Pretended nodes are only in the cluster that `make cluster` makes.")
    with contextlib.closing(socket.socket()) as probe:
        if probe.connect_ex((GATEWAY, LISTEN.api)) == 0:
            sys.exit(f"Something listens at {GATEWAY}:{LISTEN.api} already.")
    node = cluster.get("node", NODE)
    assert node is not None
    # As much as the real node has: none of these pods ever goes there.
    size = Size(given.clusters, given.workers, int(node["status"]["allocatable"]["cpu"]))
    print(
        f"{size.clusters} clusters of {size.workers} workers, {size.pods} pods; load {os.getloadavg()[0]:.1f}"
    )
    with (
        empty_nodes(cluster, size),
        cluster.namespace(**RESTRICTED) as one,
        cluster.namespace(**RESTRICTED) as two,
    ):
        try:
            with (
                tempfile.TemporaryDirectory(prefix="bench-") as folder,
                ledger(given.database) as url,
                centre(Path(folder) / "centre", one, size, url) as made,
            ):
                gated = asyncio.run(ours(cluster, made, size, given))
            beside_it = plain(cluster, two, groups_of(gated.pop("manifests")), given.patience)
        finally:
            for namespace in (one, two):
                all_pods_go(cluster, namespace)
    show_many(gated, beside_it, size, given)


def show_many(
    gated: dict[str, Any], beside_it: Mapping[str, Any], size: Size, given: argparse.Namespace
) -> None:
    grants, steady, mib = gated.pop("grants"), gated["steady, cores"], gated["memory"]
    control_plane = {name: s for name, s in gated["cpu"].items() if name not in ("gateway", "clock")}
    print(f"ours, with a ledger in {given.database}:")
    print(
        f"  all {size.pods} leased after {gated['leased']:.1f} s, all pods there after {gated['pods']:.1f} s,"
    )
    print(f"  all workers at work after {gated['at work']:.1f} s; all ended within {gated['ended']:.1f} s")
    print(
        f"  gateway: {gated['cpu']['gateway']:.1f} s of CPU, {mib['with all']:.0f} MiB "
        f"({mib['before']:.0f} before); clock: {gated['cpu']['clock']:.1f} s"
    )
    print(f"  control plane, s of CPU: {control_plane}")
    print(
        f"  a steady {given.steady:g} s: gateway {steady['gateway']:.3f} cores, clock {steady['clock']:.3f}, "
        f"API server {steady.get('kube-apiserver', 0):.3f}; {gated['heartbeats a second']:.1f} heartbeats a second"
    )
    for name in ("growing", "steady"):
        at = {key: f"{value * 1000:.0f} ms" for key, value in gated[f"heartbeats, {name}"].items()}
        print(f"  a heartbeat is answered, {name}: {at}")
    print(f"  one worker more is booked and answered, {len(grants)} times: {told(grants)}")
    print(f"  failed: {gated['failed'] or 'nothing'}; warnings of the gateway: {gated['warnings'] or 'none'}")
    print(f"plain, {AT_ONCE} requests at once:")
    print(f"  all pods there after {beside_it['pods']:.1f} s, {beside_it['cpu']:.1f} s of CPU")
    print(
        f"  control plane, s of CPU: {beside_it['control plane']}; failed: {beside_it['failed'] or 'nothing'}"
    )
    ratio = {
        "time": gated["pods"] / beside_it["pods"],
        "cpu": gated["cpu"]["gateway"] / beside_it["cpu"],
        "cpu of the control plane": sum(control_plane.values()) / sum(beside_it["control plane"].values()),
    }
    print(f"ratio, ours to plain: { {name: round(value, 2) for name, value in ratio.items()} }")
    print(f"load {os.getloadavg()[0]:.1f}")
    print(json.dumps({"ours": gated | {"grants": percentiles(grants)}, "plain": beside_it, "ratio": ratio}))
