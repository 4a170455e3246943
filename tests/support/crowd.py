"""Many people at once: a hub whose servers are pods on pretended nodes, with one stub server that answers for all.

What is measured and broken then is the hub and the control plane, not JupyterLab.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from hub_ext.core.clock import SystemClock
from hub_ext.core.people import Person
from hub_ext.factory import Factory
from hub_ext.quota.model import Ticket
from hub_ext.quota.service import Admission
from hub_ext.settings import load_settings
from tests.support.cluster import Cluster
from tests.support.desk import records
from tests.support.hub import wait_for
from tests.support.kube_hub import GATEWAY, KubeHub

TOKEN = "a-token-for-tests-that-may-do-everything"
POOL = "crowd"
PRETENDED = {"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}

POLICY = """
version: 1
timezone: Asia/Seoul
gpu_classes: {h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}}
queue: {starts: %(starts)d}
pools:
  crowd:
    quota: {gpu.h200: {nominal: %(gpus)d}}
"""
PROFILE = """
title: {en: One H200}
description: {en: A whole GPU.}
resources: {gpu.h200: 1, cpu: 1, memory: 1Gi}
"""
CONFIG = """
from hub_ext.bootstrap import configure
from hub_ext.settings import load_settings

configure(get_config(), load_settings())
c.JupyterHub.services.append({"name": "tester", "api_token": "%(token)s"})
c.JupyterHub.load_roles.append(
    {"name": "tester", "services": ["tester"], "scopes": ["admin:users", "admin:servers", "servers", "read:metrics"]}
)
# Pretended pods have no volumes, and one address at which the stub answers.
c.KubeSpawner.storage_pvc_ensure = False
c.KubeSpawner.volumes = {}
c.KubeSpawner.volume_mounts = {}
c.KubeSpawner.node_selector = {"type": "kwok"}
c.KubeSpawner.port = %(port)d
c.JupyterHub.authenticate_prometheus = False
%(more)s
"""


@dataclass
class Crowd:
    """A hub, and the people who may start one GPU server each."""

    hub: KubeHub
    names: list[str]
    http: httpx.Client

    def start(self, name: str, options: Mapping[str, Any] | None = None) -> httpx.Response:
        return self.http.post(f"/users/{name}/server", json=dict(options or {"profile": "gpu"}))

    def start_all(self, names: Sequence[str] | None = None, threads: int = 100) -> list[int]:
        """Everybody (of `names`) clicks once; the answers' status codes, 0 for none."""

        def click(name: str) -> int:
            try:
                return self.start(name).status_code
            except httpx.HTTPError:
                return 0

        with ThreadPoolExecutor(max_workers=threads) as pool:
            return list(pool.map(click, self.names if names is None else names))

    def click_all(self) -> list[httpx.Response]:
        """Everybody clicks once, all at the same moment; their answers."""
        with ThreadPoolExecutor(max_workers=len(self.names)) as pool:
            return list(pool.map(self.start, self.names))

    def stop(self, name: str) -> None:
        answer = self.http.delete(f"/users/{name}/server")
        assert answer.is_success, answer.text

    def leave(self, ticket: Ticket) -> None:
        """As its person would."""
        with records(self.hub) as store:
            Admission(store, SystemClock()).leave_now(ticket.id, ticket.ask.person)

    @contextmanager
    def starting(self, names: Sequence[str] | None = None) -> Iterator[None]:
        """Everybody clicks once, while something else is done; leaves when every click was answered or cut off."""
        clicks = threading.Thread(target=self.start_all, args=(names,))
        clicks.start()
        try:
            yield
        finally:
            clicks.join(300)

    def stop_all(self) -> None:
        """Until nobody has a server, nobody waits for one, and no pod is left."""

        def stop(name: str) -> None:
            self.http.delete(f"/users/{name}/server")

        def all_gone() -> bool:
            # Whoever waited may have been served meanwhile, and what still starts cannot be stopped yet.
            for ticket in self.waiting():
                self.leave(ticket)
            names = {lease["person"] for lease in self.hub.leases()}
            with ThreadPoolExecutor(max_workers=32) as pool:
                list(pool.map(stop, names))
            return not names and not self.waiting() and not self.hub.pods()

        wait_for(all_gone, "all servers are gone", 180, 0.5)

    def ready(self) -> set[str]:
        """Who has a server that is ready; empty while the hub is away."""
        found: set[str] = set()
        offset: int | None = 0
        headers = {"Accept": "application/jupyterhub-pagination+json"}
        while offset is not None:
            try:
                answer = self.http.get(
                    "/users", params={"state": "ready", "limit": 200, "offset": offset}, headers=headers
                )
            except httpx.HTTPError:
                return set()
            if answer.status_code != 200:
                return set()
            page = answer.json()
            found |= {user["name"] for user in page["items"]}
            following = page["_pagination"]["next"]
            offset = following["offset"] if following else None
        return found

    def waiting(self) -> list[Ticket]:
        """Who stands in line, as the clock wrote it down."""
        with records(self.hub) as store, store.reading() as txn:
            return list(txn.tickets())

    def one_to_one(self) -> bool:
        """Leases and live pods are the same things, and everybody has one."""
        leases, pods = self.hub.leases_and_pods()
        return leases == pods

    def wait_until_ready(self, names: Iterable[str], seconds: float = 120) -> None:
        wanted = set(names)
        try:
            wait_for(lambda: wanted <= self.ready(), "all have a server that is ready", seconds, 0.5)
        except AssertionError as error:
            raise AssertionError(f"{error}; missing: {sorted(wanted - self.ready())[:20]}") from None


@contextmanager
def crowd(
    folder: Path,
    cluster: Cluster,
    namespace: str,
    people: int,
    *,
    starts: int = 1000,
    gpus: int | None = None,
    more: str = "",
    kubernetes: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Crowd]:
    """A running hub with its people signed in once, and the stub; all of it goes afterwards, with its pods."""
    with stub_server() as port:
        (folder / "profiles").mkdir()
        (folder / "profiles" / "gpu.yaml").write_text(PROFILE)
        values = {"token": TOKEN, "port": port, "more": more}
        (folder / "jupyterhub_config.py").write_text(CONFIG % values)
        names = [f"person-{number}" for number in range(people)]
        identity = {
            "version": 1,
            "people": {name: {"pools": [POOL], "roles": ["researcher"]} for name in names},
        }
        hub = KubeHub.make(
            folder,
            cluster,
            namespace,
            documents={
                "pools.yaml": POLICY % {"starts": starts, "gpus": people if gpus is None else gpus},
                "identity.yaml": yaml.safe_dump(identity),
            },
            kubernetes={
                "tolerations": [PRETENDED],
                "scratch": None,
                "start_seconds": 300,
                **(kubernetes or {}),
            },
            environment=environment or {},
            settings={"profiles": str(folder / "profiles"), "simulated_node": None},
        )
        try:
            hub.start()
            _sign_in_once(hub, names)
            client = httpx.Client(
                base_url=f"http://127.0.0.1:{hub.hub_port}/hub/api",
                headers={"Authorization": f"token {TOKEN}"},
                timeout=120,
                # Each of them has a browser of their own.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
                trust_env=False,
            )
            with client:
                for first in range(0, people, 100):
                    added = client.post("/users", json={"usernames": names[first : first + 100]})
                    assert added.status_code in (201, 409), added.text
                yield Crowd(hub, names, client)
        finally:
            for name in ("hub", "desk"):
                print(f"--- {name}.log\n{hub.log(name)[-4000:]}")
            hub.stop(servers=False)
            cluster.attempt(
                "delete", "pods", "--all", f"--namespace={namespace}", "--grace-period=0", "--force"
            )


def _sign_in_once(hub: KubeHub, names: list[str]) -> None:
    """What signing in would write down of each."""
    factory = Factory(load_settings(hub.folder / "hub.yaml", {"HUB_STATE": str(hub.state)}))
    for name in names:
        factory.admission.put_person(Person(name, (POOL,), frozenset({"researcher"})))
    with factory.store.reading() as txn:
        assert {person.name for person in txn.people()} >= set(names)
    wait_for(lambda: _nodes(factory), "the clock has counted the nodes")
    factory.store.close()


def _nodes(factory: Factory) -> bool:
    with factory.store.reading() as txn:
        return any("gpu.h200" in node.capacity and node.ready for node in txn.nodes() or ())


@contextmanager
def stub_server() -> Iterator[int]:
    """Answers every request as a single-user server that is up, on the address of all pretended pods; its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                if line in (b"\r\n", b"\n"):
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nX-JupyterHub-Version: 6.1.1\r\n"
                        b"Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
                    )
                    await writer.drain()
                    break
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = asyncio.run_coroutine_threadsafe(
        asyncio.start_server(answer, GATEWAY, 0, backlog=4096), loop
    ).result(10)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
