"""What stands for hundreds of schedulers, and for a hub that knows whose token is whose."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from kubernetes_asyncio.client import ApiException
from kubespawner.clients import shared_client

from bench.kube_clusters.centre import Centre
from bench.kube_clusters.pods import is_ready, pods_of
from hub_ext.clusters.manifests import CLUSTER, LISTEN
from hub_ext.clusters.policy import HEARTBEAT_SECONDS
from hub_ext.kube.pods import KIND
from hub_ext.kube.watch import PodWatch
from hub_ext.quota.model import WORKER
from tests.support.cluster_site import known
from tests.support.kube_hub import GATEWAY


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
