"""How long until a cluster of four CPU workers is ready: `python -m bench.cluster_start [--rounds N] [--workers N]`.

Our gateway (a lease for each process, TLS, its own preload, the ledger in SQLite) beside dask-gateway's own
`UnsafeLocalBackend` on the same machine, taking turns in one run. The time runs from the client's first request until
it sees the workers; the cluster is gone before the next one begins. Ours is to take at most 1.3 times as long.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dask.config
from dask_gateway import Gateway

from hub_ext.settings import free_ports
from tests.support.cluster_site import ClusterSite, cluster_site
from tests.support.hub import wait_for

BOUND = 1.3
UPSTREAM = """
import sys
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.DaskGateway.address = "127.0.0.1:{port}"
c.DaskGateway.log_level = "INFO"
c.Proxy.address = "127.0.0.1:{http}"
c.Proxy.tcp_address = "127.0.0.1:{tcp}"
c.UnsafeLocalBackend.clusters_directory = "{folder}"
c.UnsafeLocalBackend.cluster_heartbeat_period = 5
c.ClusterConfig.scheduler_cmd = [sys.executable, "-m", "dask", "scheduler"]
c.ClusterConfig.worker_cmd = [sys.executable, "-m", "dask", "worker"]
c.ClusterConfig.worker_cores = 1
c.ClusterConfig.worker_memory = "1 G"
"""


@contextmanager
def upstream(folder: Path) -> Iterator[Callable[[], Gateway]]:
    """dask-gateway as it is released, but for the commands that it does not know any more."""
    folder.mkdir()
    port, http, tcp = free_ports(3)
    config = folder / "config.py"
    config.write_text(UPSTREAM.format(port=port, http=http, tcp=tcp, folder=folder))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask_gateway_server", "--config", str(config)], stdout=log, stderr=log
        )

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{http}/api/health", timeout=2):
                return True
        except OSError:
            return False

    try:
        wait_for(answers, "dask-gateway answers")
        yield lambda: Gateway(
            f"http://127.0.0.1:{port}", proxy_address=f"gateway://127.0.0.1:{tcp}", auth="basic"
        )
    finally:
        process.terminate()
        process.wait(60)


def one_cluster(make: Callable[[], Gateway], workers: int, **options: str) -> tuple[float, float]:
    """Seconds until the scheduler answers, and until all workers do."""
    with make() as gateway:
        began = time.perf_counter()
        with gateway.new_cluster(**options) as cluster:
            up = time.perf_counter() - began
            cluster.scale(workers)
            with cluster.get_client() as client:
                client.wait_for_workers(workers, timeout=120)
                return up, time.perf_counter() - began


def nothing_left(site: ClusterSite) -> bool:
    return not site.running()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=4)
    given = parser.parse_args()
    took: dict[str, list[tuple[float, float]]] = {"upstream": [], "ours": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set({"gateway.cluster.options": {}}),
        cluster_site(Path(folder) / "ours") as site,
        upstream(Path(folder) / "upstream") as make,
    ):
        for turn in range(given.rounds + 1):
            for name in ("upstream", "ours") if turn % 2 else ("ours", "upstream"):
                if name == "ours":
                    one = one_cluster(site.client, given.workers, profile="cpu")
                    wait_for(lambda: nothing_left(site), "nothing of it is left")
                else:
                    one = one_cluster(make, given.workers)
                if turn:  # the first of each warms up
                    took[name].append(one)
    print(f"{given.workers} workers, {given.rounds} rounds; load {os.getloadavg()[0]:.1f}")
    for name, found in took.items():
        up, ready = (sorted(one[place] for one in found) for place in (0, 1))
        print(
            f"  {name}: scheduler {statistics.median(up):.2f} s, all workers median {statistics.median(ready):.2f} s, "
            f"fastest {ready[0]:.2f} s, slowest {ready[-1]:.2f} s"
        )
    ratio = statistics.median(one for _, one in took["ours"]) / statistics.median(
        one for _, one in took["upstream"]
    )
    print(f"  ours / upstream: {ratio:.2f} (at most {BOUND})")


if __name__ == "__main__":
    main()
