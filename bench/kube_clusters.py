"""Dask clusters on Kubernetes, beside plain pods on the same cluster in the same run.

    python -m bench.kube_clusters beside   # a cluster of four CPU workers on the deployed hub: how long until all are connected
    python -m bench.kube_clusters many     # 200 clusters of five workers on pretended nodes: what the gateway takes

`beside` orders from a kernel of a real server through the gateway, as dask-gateway's own client does, in turn with the same
scheduler and workers as plain pods: no gateway, quota, proxy or encryption, and a client outside of the cluster. Once their
workers are made as soon as the scheduler has an address (the least that can be), once when it answers, as every gateway does.
Needs the hub that `make deploy` brings, and nobody who tests it meanwhile: the tests of clusters end all that runs there.

`many` runs gateway, clock and proxy as processes outside of the cluster, with a real ledger. Pods are pretended (kwok) and
ready three seconds after they got a node; a stub sends what their schedulers would send, each with its cluster's own token,
and says whose token is whose. In the end one person after the other asks for one worker more, while the pods of those before
start. Beside it the very same pods are made by a small program with as many requests at once, which waits for each scheduler
too. Both speak to the API server as administrators, whose requests it never makes wait. Needs the cluster of `make cluster`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import logging
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import httpx
import psutil
import pytest
import yaml
from aiohttp import web
from distributed import Client
from distributed.versions import VersionMismatchWarning
from kubernetes_asyncio.client import ApiException
from kubernetes_asyncio.config import load_kube_config
from kubespawner.clients import shared_client
from sqlalchemy import Engine, func, select

from bench.kubernetes import READY_AFTER, RESTRICTED, cpu, cpu_of_parts, memory
from hub_ext.clusters.manifests import CLUSTER, LISTEN
from hub_ext.clusters.policy import HEARTBEAT_SECONDS
from hub_ext.core.people import Person
from hub_ext.db.engine import make_engine, reading
from hub_ext.db.tables import leases, live
from hub_ext.db.upgrade import make_schema, upgrade
from hub_ext.factory import Factory
from hub_ext.kube.pods import KIND
from hub_ext.kube.pods import PERSON as LABEL_OF_PERSON
from hub_ext.kube.watch import PodWatch
from hub_ext.quota.model import SCHEDULER, WORKER
from hub_ext.settings import GATEWAY_SCHEMA, free_ports
from tests.support.cluster import NODE, Cluster, condition, find_cluster
from tests.support.cluster_site import known
from tests.support.crowd import PRETENDED
from tests.support.databases import new_postgresql
from tests.support.deployed import SYSTEM, USERS, DeployedHub
from tests.support.hub import Visitor, wait_for
from tests.support.kube_hub import GATEWAY
from tests.support.manifests import Object
from tests.support.state import Files, new_files
from tests.support.story import kernel, printed

ResultT = TypeVar("ResultT")
log = logging.getLogger("bench")


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    at = {f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (50, 99)}
    return {**at, "longest": ordered[-1]}


def told(seconds: Sequence[float]) -> str:
    return ", ".join(f"{name} {value * 1000:.0f} ms" for name, value in percentiles(seconds).items())


def is_ready(pod: Mapping[str, Any]) -> bool:
    return condition(dict(pod), "Ready") == "True"


@asynccontextmanager
async def pods_of(namespace: str, selector: str = "") -> AsyncIterator[PodWatch]:
    """The pods of a namespace as they are now."""
    # Where the file is, the client of kubernetes reads when it is imported; by then nobody has said so.
    await load_kube_config(config_file=os.environ["KUBECONFIG"])
    watch = PodWatch(namespace=namespace, log=log)
    watch.label_selector = selector
    await watch.start()
    await watch.seen()
    try:
        yield watch
    finally:
        await watch.stop()


# -- one cluster, beside plain pods ------------------------------------------------------------------------------------------

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


# -- many clusters: the centre that they run in ------------------------------------------------------------------------------

AT_ONCE = 20
"""So many requests at a time: as many as dask-gateway's backend makes."""
POOLS = 10
POLICY = """
version: 1
timezone: Asia/Seoul
gpu_classes: {h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}}
pools:
"""
POOL = "  %(name)s: {quota: {cpu: {nominal: %(cpu)d}, memory: {nominal: %(memory)dGi}}}\n"
PROFILE = """
title: {en: CPU workers}
description: {en: For tables.}
worker: {cpu: %(cpu)d, memory: 1Gi}
scheduler: {cpu: %(cpu)d, memory: 1Gi}
most_workers: %(most)d
minutes: {choices: [240], default: 240}
"""
NAMES = re.compile(r"[0-9a-f]{8,}(-[0-9a-f]{8,})?")
PROCESSES = ("clock", "dask-proxy", "gateway")


@dataclass
class Size:
    """So many clusters of so many workers; `spare` are the workers of each that may come beside. `cpu` is of one pod."""

    clusters: int
    workers: int
    cpu: int
    spare: int = 1

    @property
    def pods(self) -> int:
        return self.clusters * (1 + self.workers)

    @property
    def nodes(self) -> int:
        return -(-self.most_pods // 240)

    @property
    def most_pods(self) -> int:
        return self.clusters * (1 + self.workers + self.spare)

    @property
    def people(self) -> list[str]:
        return [f"person-{number}" for number in range(self.clusters)]

    @staticmethod
    def pool_of(person: str) -> str:
        return f"pool-{int(person.rpartition('-')[2]) % POOLS}"


@dataclass
class Centre:
    """A gateway with its clock and its proxy as processes."""

    files: Files
    factory: Factory
    namespace: str
    hub_port: int
    gateway_port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @cached_property
    def engine(self) -> Engine:
        return make_engine(self.factory.settings.ledger_url)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}/api"

    def process(self, name: str) -> psutil.Process:
        return psutil.Process(self.processes[name].pid)

    def start(self, name: str) -> None:
        with (self.files.folder / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "hub_ext", name],
                cwd=self.files.folder,
                env={**os.environ, **self.files.environment, "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, name: str) -> str:
        return (self.files.folder / f"{name}.log").read_text(errors="replace")

    def answers(self) -> bool:
        assert self.processes["gateway"].poll() is None, self.log("gateway")[-4000:]
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health", trust_env=False).status_code == 200
        return False

    def knows_nodes(self, number: int) -> bool:
        with self.factory.store.reading() as txn:
            return sum(node.ready for node in txn.nodes() or ()) > number

    def leases(self) -> int:
        with reading(self.engine) as connection:
            return connection.scalar(select(func.count()).select_from(leases).where(live)) or 0

    def warnings(self) -> Counter[str]:
        """What the gateway complained of, without names."""
        lines = (line for line in self.log("gateway").splitlines() if line.startswith(("[W", "[E", "[C")))
        return Counter(NAMES.sub("…", line.partition("]")[2].strip())[:80] for line in lines)


@contextmanager
def ledger(kind: str) -> Iterator[str | None]:
    """The address of a database of this run; None for SQLite files in the centre's folder."""
    if kind == "sqlite":
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(new_postgresql())
        except pytest.skip.Exception as why:
            sys.exit(f"{why}; --database sqlite does without it")
        # What was booked survives a power cut, as at a site.
        made.run("ALTER SYSTEM SET fsync = on", "SELECT pg_reload_conf()")
        yield made.url


@contextmanager
def centre(folder: Path, namespace: str, size: Size, database: str | None) -> Iterator[Centre]:
    hub, gateway, http, tcp = free_ports(4)
    per_pool = -(-size.clusters // POOLS) * (1 + size.workers + size.spare)
    quota = {"cpu": per_pool * size.cpu, "memory": per_pool}
    identity = {"people": {name: {"pools": [size.pool_of(name)], "roles": ["lead"]} for name in size.people}}
    files = new_files(
        folder,
        POLICY + "".join(POOL % {"name": f"pool-{number}", **quota} for number in range(POOLS)),
        identity=yaml.safe_dump(identity),
        run_on="kubernetes",
        cluster_profiles="clusters",
        kubernetes={
            "namespace": namespace,
            "hub_url": f"http://127.0.0.1:{hub}",
            "gateway_url": f"http://127.0.0.1:{gateway}",
            "gateway_port": gateway,
            "dask_proxy_port": http,
            "dask_port": tcp,
            "tolerations": [PRETENDED],
            "priority_class": None,
        },
        **({} if database is None else {"database_url": database}),
    )
    (folder / "clusters").mkdir()
    (folder / "clusters" / "cpu.yaml").write_text(
        PROFILE % {"cpu": size.cpu, "most": size.workers + size.spare}
    )
    factory = Factory(files.settings())
    factory.settings.state_dir.mkdir(parents=True, exist_ok=True)
    upgrade(factory.settings.ledger_url)
    if database is not None:
        make_schema(factory.settings.ledger_url, GATEWAY_SCHEMA)
    factory.put_in_force(factory.documents, who="bench")
    for name in size.people:
        factory.admission.put_person(Person(name, (size.pool_of(name),), frozenset({"lead"})))
    made = Centre(files, factory, namespace, hub, gateway)
    try:
        for name in PROCESSES:
            made.start(name)
        wait_for(made.answers, "the gateway answers")
        wait_for(lambda: made.knows_nodes(size.nodes), "the clock has counted the nodes")
        yield made
    except BaseException:
        print(f"--- gateway.log\n{made.log('gateway')[-6000:]}\n--- clock.log\n{made.log('clock')[-3000:]}")
        raise
    finally:
        for process in made.processes.values():
            process.terminate()
        for process in made.processes.values():
            process.wait(60)
        made.engine.dispose()
        factory.store.close()


@contextmanager
def empty_nodes(cluster: Cluster, size: Size) -> Iterator[None]:
    """Pretended nodes with room for all pods, which have one address at which the stub answers."""
    sizes = ("--gpus", "0", "--cpu", str(size.cpu * 250), "--memory", "2Ti")
    with cluster.pretended_nodes(size.nodes, *sizes):
        cluster.program("pretended-pods", "--ready-after", str(READY_AFTER), "--address", GATEWAY)
        try:
            yield
        finally:
            cluster.program("pretended-pods")


# -- the stub: schedulers, and a hub that knows whose token is whose ----------------------------------------------------------


@dataclass
class Scheduler:
    """What one scheduler would say and do (`hub_ext.notebook.scheduler_preload.Service`)."""

    name: str
    token: str
    count: int = 0
    active: set[str] = field(default_factory=set)
    closing: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    due: asyncio.Event = field(default_factory=asyncio.Event)

    def message(self) -> dict[str, Any]:
        return {
            "scheduler_address": f"tls://{GATEWAY}:{LISTEN.scheduler}",
            "dashboard_address": f"http://{GATEWAY}:{LISTEN.dashboard}",
            "api_address": f"http://{GATEWAY}:{LISTEN.api}",
            "count": self.count,
            "active_workers": list(self.active - self.closing),
            "closing_workers": list(self.closing),
            "closed_workers": list(self.closed),
            "idle_seconds": 0.0,
            "clients": 1,
            "memory": {"process": 2**28, "managed": 2**20, "spilled": 0, "limit": len(self.active) * 2**30},
        }

    def let_go(self) -> None:
        """Of those beyond the wish."""
        surplus = len(self.active - self.closing) - self.count
        self.closing.update(sorted(self.active - self.closing)[: max(0, surplus)])

    def have(self, ready: set[str], there: set[str]) -> None:
        """These workers' pods are ready, those are there at all."""
        gone = self.active - there
        new = ready - self.active - self.closed
        if gone or new:
            self.active = (self.active | new) - gone
            self.closing -= gone
            self.closed |= gone
            self.due.set()

    def emptied(self) -> None:
        """Whoever was told to go is gone."""
        self.closed |= self.closing
        self.active -= self.closing
        self.closing = set()
        self.due.set()


@dataclass
class Stub:
    """All schedulers, and the hub."""

    centre: Centre
    pods: PodWatch
    session: aiohttp.ClientSession
    people: Mapping[str, Mapping[str, Any]]
    schedulers: dict[str, Scheduler] = field(default_factory=dict)
    beats: list[float] = field(default_factory=list)
    """Seconds that each heartbeat took."""
    failed: Counter[str] = field(default_factory=Counter)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    # -- what it answers -------------------------------------------------------------------------------------------

    async def whose(self, request: web.Request) -> web.Response:
        found = self.people.get(request.headers.get("Authorization", "").removeprefix("token "))
        return web.json_response(found or {}, status=200 if found else 403)

    async def servers(self, _: web.Request) -> web.Response:
        return web.json_response({"items": [], "_pagination": {"next": None}})

    async def order(self, request: web.Request) -> web.Response:
        token, body = request.headers.get("Authorization", "").removeprefix("token "), await request.json()
        found = next((one for one in self.schedulers.values() if one.token == token), None)
        if found is None or body.get("op") != "scale":
            self.failed[f"order {body.get('op')} not understood"] += 1
            return web.Response(status=422)
        found.count = body["count"]
        found.due.set()
        return web.Response()

    # -- what it does ----------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Begin as a scheduler whose pod is ready, and take workers whose pods are."""
        while True:
            ready: dict[str, set[str]] = {}
            there: dict[str, set[str]] = {}
            new = []
            for pod in list(self.pods.resources.values()):
                labels = pod["metadata"]["labels"]
                name, up = labels[CLUSTER], is_ready(pod)
                if labels[KIND] == WORKER:
                    command = pod["spec"]["containers"][0]["command"]
                    worker = command[command.index("--name") + 1]
                    there.setdefault(name, set()).add(worker)
                    if up:
                        ready.setdefault(name, set()).add(worker)
                elif up and name not in self.schedulers:
                    new.append(name)
            await asyncio.gather(*(self.begin(name) for name in new))
            for name, one in self.schedulers.items():
                one.have(ready.get(name, set()), there.get(name, set()))
            await asyncio.sleep(0.25)

    async def begin(self, name: str) -> None:
        """With the cluster's own token, which its pod would read from the secret beside it."""
        api, selector = shared_client("CoreV1Api"), f"{CLUSTER}={name}"
        try:
            found = await api.list_namespaced_secret(self.centre.namespace, label_selector=selector)
        except (ApiException, aiohttp.ClientError):
            return  # an API server that is away is asked again at the next look
        if not found.items:
            return  # its pod waits for it, and so does this one
        token = base64.b64decode(found.items[0].data["api-token"]).decode()
        one = self.schedulers[name] = Scheduler(name, token)
        task = asyncio.ensure_future(self.beat(one))
        self.tasks.add(task)

    async def beat(self, one: Scheduler) -> None:
        pause = 1.0  # a pod that has just begun may not be seen by the gateway yet
        while True:
            one.due.clear()
            one.let_go()
            if await self.tell(one):
                pause = HEARTBEAT_SECONDS
            if one.closing:
                await asyncio.sleep(1)
                one.emptied()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(one.due.wait(), pause)

    async def tell(self, one: Scheduler) -> bool:
        """Whether the gateway took it."""
        began = time.perf_counter()
        try:
            async with self.session.post(
                f"{self.centre.url}/v1/clusters/{one.name}/heartbeat",
                json=one.message(),
                headers={"Authorization": f"token {one.token}"},
            ) as answer:
                self.beats.append(time.perf_counter() - began)
                if answer.status == 200:
                    return True
                self.failed[f"heartbeat {answer.status} {answer.reason}"] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failed[f"heartbeat {type(error).__name__}"] += 1
        return False


@asynccontextmanager
async def stub(made: Centre, people: Sequence[str]) -> AsyncIterator[Stub]:
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        pods_of(made.namespace, CLUSTER) as pods,
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session,
    ):
        one = Stub(made, pods, session, {f"{name}-token": known(name) for name in people})
        hub, schedulers = web.Application(), web.Application()
        hub.add_routes([web.get("/hub/api/user", one.whose), web.get("/hub/api/users", one.servers)])
        schedulers.add_routes([web.post("/api/comm", one.order)])
        runners = [web.AppRunner(app, access_log=None) for app in (hub, schedulers)]
        try:
            for runner, host, port in zip(
                runners, ("127.0.0.1", GATEWAY), (made.hub_port, LISTEN.api), strict=True
            ):
                await runner.setup()
                await web.TCPSite(runner, host, port, backlog=1024).start()
            looking = asyncio.ensure_future(one.look())
            one.tasks.add(looking)
            yield one
        finally:
            if looking.done() and (error := looking.exception()) is not None:
                print(f"the stub ended by itself: {error!r}")
            for task in one.tasks:
                task.cancel()
            await asyncio.gather(*one.tasks, return_exceptions=True)
            for runner in runners:
                await runner.cleanup()
            await shared_client("CoreV1Api").api_client.close()


# -- the people, and what is measured ----------------------------------------------------------------------------------------


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


# -- the same pods, made plainly ---------------------------------------------------------------------------------------------


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_subparsers(dest="what", required=True, metavar="beside|many")
    one = what.add_parser("beside", help="one cluster, beside plain pods")
    one.add_argument("--rounds", type=int, default=5)
    one.add_argument("--workers", type=int, default=4)
    two = what.add_parser("many", help="many clusters on pretended nodes")
    two.add_argument("--clusters", type=int, default=200)
    two.add_argument("--workers", type=int, default=5)
    two.add_argument("--steady", type=float, default=60, metavar="SECONDS", help="how long nothing happens")
    two.add_argument("--grants", type=int, default=200, help="how many clusters get one worker more")
    two.add_argument("--patience", type=float, default=900, metavar="SECONDS", help="of each wait")
    two.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    # What `many` starts beside itself.
    what.add_parser("plainly").add_argument("namespace")
    given = parser.parse_args()
    # What was made goes also when this is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    cluster = find_cluster()
    if cluster is None:
        sys.exit("There is no cluster: `make cluster` makes one.")
    os.environ["KUBECONFIG"] = str(cluster.kubeconfig)
    if given.what == "beside":
        asyncio.run(beside(cluster, given.rounds, given.workers))
    elif given.what == "many":
        many(cluster, given)
    else:
        found = asyncio.run(make_plainly(given.namespace, json.load(sys.stdin), AT_ONCE))
        print(json.dumps(found))


if __name__ == "__main__":
    main()
