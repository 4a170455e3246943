"""dask-labextension's sidebar makes clusters of the gateway: its own manager, our configuration, a real gateway."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import dask
import pytest
import yaml

import hub_ext.notebook
from tests.support.gateway import RealGateway

CONFIG = Path(hub_ext.notebook.__file__).parent / "config" / "dask"
SETTINGS = yaml.safe_load((CONFIG / "hangang.yaml").read_text())


@pytest.fixture
async def manager(notebook: RealGateway) -> AsyncIterator[object]:
    from dask_labextension.manager import DaskClusterManager

    with dask.config.set(SETTINGS):
        async with DaskClusterManager() as found:
            yield found


@pytest.mark.slow
async def test_the_sidebar_starts_scales_adapts_and_stops(manager: object, notebook: RealGateway) -> None:
    # 1. A new one has the default size, and ends with this server.
    model = await manager.start_cluster(configuration={})  # type: ignore[attr-defined]
    cluster = model["id"]
    assert list(notebook.running()) == [model["scheduler_address"].rpartition("/")[2]]
    assert model["dashboard_link"].startswith("/services/desk/clusters/")
    assert notebook.asked()[-1]["server"] == "work"
    # 2. Upstream an adaptive cluster of a gateway raises here and is forgotten while it runs.
    model = manager.adapt_cluster(cluster, 0, 3)  # type: ignore[attr-defined]
    assert model["adapt"] == {"minimum": 0, "maximum": 3}
    assert manager.get_cluster(cluster)["adapt"] == {"minimum": 0, "maximum": 3}  # type: ignore[attr-defined]
    model = await manager.scale_cluster(cluster, 1)  # type: ignore[attr-defined]
    assert "adapt" not in model
    # 3. And none is left.
    await manager.close_cluster(cluster)  # type: ignore[attr-defined]
    assert manager.list_clusters() == []  # type: ignore[attr-defined]
    assert not notebook.running()


@pytest.mark.slow
async def test_one_that_adapts_from_the_start_does(manager: object, notebook: RealGateway) -> None:
    configuration = {"adapt": {"minimum": 1, "maximum": 2}}
    model = await manager.start_cluster(configuration=configuration)  # type: ignore[attr-defined]
    assert model["adapt"] == configuration["adapt"]
    seen = manager._clusters[model["id"]]  # type: ignore[attr-defined]
    async with asyncio.timeout(90):
        while not await seen.workers():  # noqa: ASYNC110 (the scheduler tells nobody)
            await asyncio.sleep(0.2)


def test_a_server_finds_the_configuration_and_a_persons_own_wins(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.yaml").write_text("labextension: {default: {workers: 7}}\n")
    program = "import json, dask, dask_labextension; print(json.dumps(dask.config.get('labextension'), default=str))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "DASK_ROOT_CONFIG": str(CONFIG), "DASK_CONFIG": str(own), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["factory"]["module"] == "hub_ext.notebook.clusters.labextension"
    assert found["factory"]["class"] == "SidebarCluster"
    assert found["default"]["workers"] == 7
