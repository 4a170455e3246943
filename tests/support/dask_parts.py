"""Real schedulers and workers of Dask as processes, and a stand-in for the gateway that hears their heartbeats."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.support.hub import wait_for

DASK = str(Path(sys.executable).with_name("dask"))
TOKEN = "token-of-the-cluster"
CLUSTER = "0123456789abcdef0123456789abcdef"

Heartbeat = dict[str, Any]


@dataclass
class StandInGateway:
    """Keeps every heartbeat. `fails` answers each with an error."""

    heartbeats: list[Heartbeat] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    fails: bool = False
    url: str = ""

    @property
    def last(self) -> Heartbeat:
        return self.heartbeats[-1]

    def until(self, condition: Callable[[Heartbeat], Any], what: str, seconds: float = 30) -> Heartbeat:
        """The first heartbeat from now on, the last one included, for which the condition holds."""
        start = max(0, len(self.heartbeats) - 1)

        def found() -> Heartbeat | None:
            return next((one for one in self.heartbeats[start:] if condition(one)), None)

        return wait_for(found, what, seconds)  # type: ignore[no-any-return]


class _Handler(BaseHTTPRequestHandler):
    gateway: StandInGateway

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        gateway = self.gateway
        known = self.path == f"/api/v1/clusters/{CLUSTER}/heartbeat" and not gateway.fails
        if known:
            gateway.tokens.add(self.headers["Authorization"])
            gateway.heartbeats.append(body)
        self.send_response(204 if known else 500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def stand_in_gateway() -> Iterator[StandInGateway]:
    gateway = StandInGateway()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"gateway": gateway}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    gateway.url = f"http://127.0.0.1:{server.server_port}/api"
    try:
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Cluster:
    """A scheduler with our preload; its workers are started one by one."""

    gateway: StandInGateway
    folder: Path
    scheduler: subprocess.Popen[bytes]
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return str(self.gateway.last["scheduler_address"])

    def add(self, *names: str) -> None:
        """Start workers of one thread and 400 MB, and wait until they are there."""
        for name in names:
            command = [
                *(DASK, "worker", self.address, "--name", name, "--nthreads", "1", "--memory-limit", "400MB"),
                *("--no-nanny", "--no-dashboard", "--local-directory", str(self.folder / name)),
            ]
            with (self.folder / f"{name}.log").open("wb") as log:
                self.workers[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment())
        self.gateway.until(
            lambda one: {*names} <= {*one["active_workers"]}, f"workers {', '.join(names)}", 60
        )

    def order(self, body: Any, *, token: str = TOKEN) -> tuple[int, Any]:
        """What the gateway says to the scheduler."""
        request = Request(
            f"{self.gateway.last['api_address']}/api/comm",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"token {token}", "Content-Type": "application/json"},
        )
        try:
            with urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except HTTPError as error:
            return error.code, error.reason


def environment() -> dict[str, str]:
    """Without what this machine's own Dask is set to."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DASK")}


@contextmanager
def scheduler(gateway: StandInGateway, folder: Path, *options: str) -> Iterator[Cluster]:
    """A scheduler that the gateway heard from; it and its workers are gone in the end."""
    known = {
        "DASK_GATEWAY_API_URL": gateway.url,
        "DASK_GATEWAY_API_TOKEN": TOKEN,
        "DASK_GATEWAY_CLUSTER_NAME": CLUSTER,
        "DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "1000",
    }
    command = [
        *(DASK, "scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"),
        *("--preload", "hub_ext.notebook.scheduler_preload", "--dg-api-address", "127.0.0.1:0", *options),
    ]
    with (folder / "scheduler.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment() | known)
    cluster = Cluster(gateway, folder, process)
    try:
        wait_for(lambda: gateway.heartbeats or _ended(process, folder), "a heartbeat", 60)
        yield cluster
    finally:
        for one in (*cluster.workers.values(), process):
            one.kill()
            one.wait()


def _ended(process: subprocess.Popen[bytes], folder: Path) -> None:
    if process.poll() is not None:
        raise AssertionError(f"the scheduler ended:\n{(folder / 'scheduler.log').read_text()}")
