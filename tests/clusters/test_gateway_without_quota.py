"""Without a quota the backend is dask-gateway's own for processes, as its tests and its users know it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from dask_gateway import Gateway, GatewayClusterError
from dask_gateway_server.app import DaskGateway
from traitlets.config import Config

from hub_ext.clusters.backend_local import GatedLocalBackend
from hub_ext.settings import free_ports


def configured(folder: Path, **cluster: Any) -> Config:
    address, http, tcp = (f"127.0.0.1:{port}" for port in free_ports(3))
    c = Config()
    c.DaskGateway.address = address
    c.DaskGateway.backend_class = GatedLocalBackend
    c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
    c.GatedLocalBackend.clusters_directory = str(folder)
    c.GatedLocalBackend.cluster_status_period = 0.2
    c.Proxy.address, c.Proxy.tcp_address = http, tcp
    c.ClusterConfig.scheduler_cmd = [sys.executable, "-m", "dask", "scheduler"]
    c.ClusterConfig.worker_cmd = [sys.executable, "-m", "dask", "worker"]
    c.ClusterConfig.update(cluster)
    return c


async def started(config: Config) -> DaskGateway:
    server = DaskGateway(config=config)
    server.load_config_file = lambda *_: None
    server.initialize([])
    await server.setup()
    return server


def client(config: Config) -> Gateway:
    # Straight to the server: its proxy may not have read its first routes yet.
    return Gateway(
        f"http://{config.DaskGateway.address}",
        proxy_address=f"gateway://{config.Proxy.tcp_address}",
        auth="basic",
        asynchronous=True,
    )


async def workers(cluster: Any, count: int) -> None:
    async with asyncio.timeout(60):
        while len(cluster.scheduler_info["workers"]) != count:  # noqa: ASYNC110  it is told by a comm
            await asyncio.sleep(0.05)


def test_it_starts_scales_and_ends_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chown(path: object, *_: object) -> None:
        raise AssertionError(f"nothing changes its owner, {path} least of all")

    monkeypatch.setattr(os, "chown", chown)

    async def story() -> None:
        config = configured(tmp_path)
        server = await started(config)
        try:
            async with client(config) as gateway, gateway.new_cluster() as cluster:
                await cluster.scale(2)
                await workers(cluster, 2)
                async with cluster.get_client(set_as_default=False) as dask:
                    assert await dask.submit(lambda n: n + 1, 1) == 2
                await cluster.scale(1)
                await workers(cluster, 1)
                record = server.backend.db.get_cluster(cluster.name)
                assert await server.backend.do_check_clusters([record]) == [True]
            async with asyncio.timeout(30):
                await record.shutdown
            assert await server.backend.do_check_clusters([record]) == [False]
        finally:
            await server.cleanup()

    asyncio.run(story())
    assert list(tmp_path.iterdir()) == [], "nothing of it is left"


def test_a_scheduler_that_does_not_start_is_told_and_cleared_away(tmp_path: Path) -> None:
    async def story() -> None:
        config = configured(tmp_path, scheduler_cmd=["false"])
        server = await started(config)
        try:
            async with client(config) as gateway:
                with pytest.raises(GatewayClusterError, match="failed to start"):
                    async with asyncio.timeout(30):
                        await gateway.new_cluster()
            assert not list(server.backend.db.active_clusters())
        finally:
            await server.cleanup()

    asyncio.run(story())
