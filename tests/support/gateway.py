"""A real dask-gateway as a process, with its own backend for one machine: real schedulers, workers and proxy, no quota."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub_ext.settings import free_ports
from tests.support.dask_parts import environment
from tests.support.hub import wait_for

CONFIG = """
import sys
from pathlib import Path
from aiohttp import web
from dask_gateway_server.backends.local import UnsafeLocalBackend
from dask_gateway_server.options import Integer, Mapping, Options, String

TOOLS = Path(sys.executable).parent

class WithLogs(UnsafeLocalBackend):
    # The schedulers and the ends of logs are those of this project's gateway. With dask-gateway's own preload a `scale`
    # that comes while an `adapt` takes effect is never answered.

    def get_scheduler_command(self, cluster):
        command = super().get_scheduler_command(cluster)
        command[command.index("dask_gateway.scheduler_preload")] = "hub_ext.notebook.scheduler_preload"
        return command

    async def setup(self, app):
        await super().setup(app)
        app.add_routes([web.get("/api/v1/clusters/{{name}}/logs", self.logs)])

    async def logs(self, request):
        return web.json_response({{"logs": {{"scheduler": "No module named 'of_mine'"}}}})

c.DaskGateway.backend_class = WithLogs
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.DaskGateway.address = "127.0.0.1:{port}"
c.Proxy.address = "127.0.0.1:{http}"
c.Proxy.tcp_address = "127.0.0.1:{tcp}"
c.UnsafeLocalBackend.clusters_directory = "{folder}"
c.UnsafeLocalBackend.cluster_heartbeat_period = 1
c.ClusterConfig.scheduler_cmd = [str(TOOLS / "dask"), "scheduler"]
c.ClusterConfig.worker_cmd = [str(TOOLS / "dask"), "worker", "--no-nanny", "--no-dashboard"]
c.ClusterConfig.worker_memory = "400 M"
c.ClusterConfig.worker_cores = 1

def as_asked(options):
    if options.profile == "refused":
        raise ValueError(
            "Your limit is 2 GPUs; start 2 workers or fewer."
        )
    with open("{folder}/asked.jsonl", "a") as file:
        import json
        file.write(json.dumps(dict(options)) + "\\n")
    if options.profile == "without-room":
        return {{"cluster_max_workers": 0, "environment": options.environment}}
    if options.profile == "no-scheduler":
        return {{"scheduler_cmd": ["false"]}}
    return {{"cluster_max_workers": 8, "environment": options.environment}}

c.Backend.cluster_options = Options(
    String("profile", default="cpu"),
    String("pool", default=""),
    String("server", default=""),
    Integer("minutes", default=0),
    Integer("idle_minutes", default=0),
    Mapping("environment", default={{}}),
    handler=as_asked,
)
"""


@dataclass
class RealGateway:
    """`environment` is what makes a notebook find it."""

    port: int
    http: int
    tcp: int
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DASK_GATEWAY__ADDRESS": f"http://127.0.0.1:{self.port}",
            "DASK_GATEWAY__PROXY_ADDRESS": f"gateway://127.0.0.1:{self.tcp}",
            "DASK_GATEWAY__PUBLIC_ADDRESS": "/services/desk",
            "DASK_GATEWAY__AUTH__TYPE": "basic",
            "LOGNAME": "tester",
        }

    @property
    def settings(self) -> dict[str, Any]:
        """The same for `dask.config.set`."""
        return {
            "gateway.address": f"http://127.0.0.1:{self.port}",
            "gateway.proxy-address": f"gateway://127.0.0.1:{self.tcp}",
            "gateway.public-address": "/services/desk",
            "gateway.auth.type": "basic",
        }

    def asked(self) -> list[dict[str, Any]]:
        """The options of every cluster that was ordered."""
        path = self.folder / "asked.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def running(self) -> dict[str, Any]:
        """The clusters that are not over, by name."""
        found: dict[str, Any] = json.loads(self._ask("GET", ""))
        return found

    def stop(self, name: str) -> None:
        """As somebody else does."""
        self._ask("DELETE", name)

    def _ask(self, method: str, name: str) -> bytes:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v1/clusters/{name}", method=method
        )
        request.add_header("Authorization", f"Basic {base64.b64encode(b'tester:').decode()}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            body: bytes = answer.read()
        return body


@contextmanager
def real_gateway(folder: Path) -> Iterator[RealGateway]:
    folder.mkdir(parents=True, exist_ok=True)
    gateway = RealGateway(*free_ports(3), folder=folder)
    config = folder / "gateway_config.py"
    config.write_text(CONFIG.format(port=gateway.port, http=gateway.http, tcp=gateway.tcp, folder=folder))
    log = folder / "gateway.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask_gateway_server", "--config", str(config)],
            cwd=folder,
            env=environment() | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=output,
            stderr=output,
        )

    def answers() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"the gateway ended:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/api/health", timeout=5):
                return True
        except OSError:
            return False

    try:
        wait_for(answers, "an answer from the gateway")
        yield gateway
    finally:
        # It stops its clusters and its proxy.
        process.terminate()
        process.wait(30)
