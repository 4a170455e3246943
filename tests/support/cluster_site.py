"""The gateway of a test's own: the real one with its proxy, as processes, on a ledger in SQLite; and a hub that only
knows whose token is whose.

Schedulers and workers are real ones; the clock ticks when the test says so, or all the time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dask.config
import httpx
import yaml
from dask_gateway import Gateway
from dask_gateway.auth import JupyterHubAuth

from hub_ext.core.people import Person
from hub_ext.desk.clockwork import Clockwork
from hub_ext.factory import Factory
from hub_ext.quota.model import SERVER, Ask, Lease
from hub_ext.quota.service import new_lease_id
from hub_ext.spawners.processes import LocalWorld, process_of
from tests.support.fakes import ObedientWorld, SilentHub
from tests.support.hub import wait_for
from tests.support.state import Files, new_files

POLICY = """
version: 1
timezone: Asia/Seoul
gpu_classes: {h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}}
pools:
  seoul: {session: {min: 1m, max: 12h, protected: 0s, notice: 2m, grace: 1m}}
  univ:
    parent: seoul
    quota: {cpu: {nominal: 4}, memory: {nominal: 16Gi}, gpu.h200: {nominal: 1}}
  lab:
    parent: seoul
    quota: {cpu: {nominal: 4}, memory: {nominal: 16Gi}, gpu.h200: {nominal: 1}}
    person: {dask-workers: 3}
"""
IDENTITY = """
people:
  student: {pools: [univ], roles: [student]}
  classmate: {pools: [univ], roles: [student]}
  lead: {pools: [lab], roles: [lead]}
"""
CLUSTERS = {
    "cpu": """
title: {en: CPU workers, ko: CPU 작업자}
description: {en: For tests., ko: 시험용입니다.}
worker: {cpu: 1, memory: 1Gi}
scheduler: {cpu: 500m, memory: 1Gi}
most_workers: 20
minutes: {choices: [30, 120], default: 120}
""",
    "gpus": """
title: {en: GPU workers, ko: GPU 작업자}
description: {en: For tests., ko: 시험용입니다.}
order: 20
worker: {gpu.h200: 1, cpu: 500m, memory: 1Gi}
scheduler: {cpu: 100m, memory: 1Gi}
most_workers: 4
minutes: {choices: [30, 120], default: 120}
""",
}
NODE = {"gpu.h200": 2, "cpu": 64, "memory": "256Gi"}
SCOPES = ["access:services!service=desk", "access:services!service=dask-gateway", "read:users!user"]


class WhoIsWho(BaseHTTPRequestHandler):
    """Answers `/hub/api/user` as the hub does."""

    known: Mapping[str, Mapping[str, Any]]

    def do_GET(self) -> None:
        token = self.headers.get("Authorization", "").removeprefix("token ")
        found = self.known.get(token)
        body = json.dumps(found or {"status": 403, "message": "Forbidden"}).encode()
        self.send_response(200 if found else 403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def known(
    name: str, server: str | None = None, scopes: list[str] = SCOPES, kind: str = "user"
) -> dict[str, Any]:
    own = [] if server is None else [f"access:servers!server={name}/{server}"]
    return {"name": name, "kind": kind, "scopes": [*scopes, *own]}


@dataclass
class ClusterSite:
    """`tokens` is what the hub knows."""

    files: Files
    factory: Factory
    tokens: dict[str, dict[str, Any]]
    environment: Mapping[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _hub: ThreadingHTTPServer | None = None

    # -- its processes -----------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """`gateway` or `dask-proxy`; returns once it answers."""
        with (self.files.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "hub_ext", name],
                cwd=self.files.folder,
                env={**os.environ, **self.files.environment, "NO_COLOR": "1", **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if name == "gateway":
            wait_for(self.answers, "the gateway answers")

    def answers(self) -> bool:
        process = self.processes["gateway"]
        assert process.poll() is None, self.log("gateway")[-4000:]
        try:
            return httpx.get(f"{self.url}/api/health", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def end(self, name: str, number: int = signal.SIGTERM) -> None:
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(60)

    def start_hub(self) -> None:
        handler = type("Hub", (WhoIsWho,), {"known": self.tokens})
        self._hub = ThreadingHTTPServer(("127.0.0.1", self.factory.secrets.hub_port), handler)
        threading.Thread(target=self._hub.serve_forever, daemon=True).start()

    def end_hub(self) -> None:
        if self._hub is not None:
            self._hub.shutdown()
            self._hub.server_close()
            self._hub = None

    def log(self, name: str) -> str:
        return (self.files.folder / f"{name}.log").read_text(errors="replace")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.factory.secrets.gateway_port}"

    # -- a person with their token -------------------------------------------------------------------------------

    def client(self, token: str = "student-token") -> Gateway:
        return Gateway(
            address=self.url,
            proxy_address=f"gateway://127.0.0.1:{self.factory.secrets.dask_tcp_port}",
            public_address="/services/desk",
            auth=JupyterHubAuth(api_token=token),
        )

    def request(self, method: str, path: str, token: str = "student-token", **more: Any) -> httpx.Response:
        headers = {"Authorization": f"jupyterhub {token}", **more.pop("headers", {})}
        return httpx.request(
            method, f"{self.url}/api/v1{path}", headers=headers, trust_env=False, timeout=60, **more
        )

    # -- the ledger and what runs ----------------------------------------------------------------------------------

    def leases(self, cluster: str | None = None) -> list[Lease]:
        with self.factory.store.reading() as txn:
            live = txn.live_leases()
        return [lease for lease in live if cluster is None or lease.server == cluster]

    def workers(self, cluster: str) -> list[Lease]:
        return [lease for lease in self.leases(cluster) if lease.kind == "dask-worker"]

    def all_leases(self) -> list[Lease]:
        with self.factory.store.reading() as txn:
            return txn.all_leases()

    def occupy(self, person: str, pool: str, amounts: Mapping[str, int], server: str = "") -> Lease:
        """A server that holds so much; nothing runs for it."""
        ask = Ask(new_lease_id(), person, pool, amounts, kind=SERVER, server=server)
        answer = self.factory.admission.admit_now(Person(person, (pool,)), ask)
        assert answer.lease is not None, answer.decision
        return answer.lease

    @cached_property
    def world(self) -> LocalWorld:
        return self.factory.world

    def running(self) -> dict[str, str]:
        """Lease -> handle of every main process."""
        return {one.lease: one.handle for one in self.world.running() if one.main}

    def one_to_one(self) -> bool:
        """Leases and processes are the same things."""
        return {lease.id: lease.handle for lease in self.leases() if lease.kind != SERVER} == self.running()

    def kill(self, lease: str) -> None:
        """Everything of it, at once and without a word."""
        for one in self.world.running():
            if one.lease == lease and (process := process_of(one.handle)) is not None:
                process.kill()

    @cached_property
    def clock(self) -> Clockwork:
        """Beside a hub that does not say which servers it has: those of these tests are leases only."""
        return Clockwork(self.factory.admission, self.world, SilentHub(ObedientWorld()))

    @contextmanager
    def ticking(self) -> Iterator[None]:
        """The clock runs beside, as the desk's does."""
        stop = threading.Event()
        thread = threading.Thread(target=self.clock.run, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)


@contextmanager
def cluster_site(
    folder: Path,
    *,
    policy: str = POLICY,
    identity: str = IDENTITY,
    clusters: Mapping[str, str] = CLUSTERS,
    environment: Mapping[str, str] | None = None,
) -> Iterator[ClusterSite]:
    """The site with its gateway and proxy; ends all that runs of it."""
    files = new_files(
        folder, policy, identity=identity, simulated_node=NODE, cluster_profiles="clusters", log_level="INFO"
    )
    (folder / "clusters").mkdir()
    for slug, text in clusters.items():
        (folder / "clusters" / f"{slug}.yaml").write_text(text)
    factory = files.upgraded()
    people = yaml.safe_load(identity)["people"]
    for name, entry in people.items():
        factory.admission.put_person(Person(name, tuple(entry["pools"]), frozenset(entry["roles"])))
    site = ClusterSite(files, factory, {f"{name}-token": known(name) for name in people}, environment or {})
    site.start_hub()
    try:
        site.start("dask-proxy")
        site.start("gateway")
        with dask.config.set({"gateway.cluster.options": {}}):
            yield site
    finally:
        for name in list(site.processes):
            site.end(name)
        site.end_hub()
        for lease in {one.lease for one in site.world.running()}:
            site.world.stop_lease(lease)
        print(
            f"--- gateway.log\n{site.log('gateway')[-8000:]}\n--- dask-proxy.log\n{site.log('dask-proxy')[-2000:]}"
        )
        shutil.rmtree(files.settings().state_dir / "clusters", ignore_errors=True)
