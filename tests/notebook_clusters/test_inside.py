"""`local()`: a cluster inside one server takes what the server's lease has, and no more."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
from distributed import LocalCluster

from hub_ext.notebook import clusters
from hub_ext.notebook.clusters import inside
from hub_ext.notebook.clusters.inside import Room, options_for, room

GIB = 1024**3


@pytest.mark.parametrize(
    ("environment", "want"),
    [
        pytest.param(
            {"CPU_LIMIT": "8.0", "MEM_LIMIT": str(64 * GIB)}, Room(8, 64 * GIB), id="as the hub says it"
        ),
        pytest.param(
            {"CPU_LIMIT": "0.5", "MEM_LIMIT": str(GIB)}, Room(1, GIB), id="half a core is one thread"
        ),
        pytest.param(
            {"CPU_LIMIT": "2", "MEM_LIMIT": "1", "CUDA_VISIBLE_DEVICES": "MIG-1, MIG-2"},
            Room(2, 1, ("MIG-1", "MIG-2")),
            id="two slices",
        ),
        pytest.param(
            {"CPU_LIMIT": "2", "MEM_LIMIT": "1", "CUDA_VISIBLE_DEVICES": ""}, Room(2, 1), id="no device"
        ),
    ],
)
def test_what_a_server_has(environment: dict[str, str], want: Room) -> None:
    assert room(environment) == want


@pytest.mark.parametrize("text", ["", "many", "-1"])
def test_where_the_hub_says_nothing_it_is_what_the_machine_has(text: str) -> None:
    found = room({"CPU_LIMIT": text, "MEM_LIMIT": text})
    assert found.cores >= 1
    assert found.memory > GIB


@pytest.mark.parametrize("cores", [1, 2, 3, 6, 8, 16, 64])
@pytest.mark.parametrize("memory", [GIB // 2, 2 * GIB, 16 * GIB, 256 * GIB])
def test_workers_on_cores_stay_within_the_server(cores: int, memory: int) -> None:
    size = options_for(Room(cores, memory), gpu=False)
    assert size["n_workers"] >= 1
    assert size["n_workers"] * size["threads_per_worker"] <= cores
    assert size["n_workers"] * size["memory_limit"] <= memory * 0.75
    assert size["n_workers"] == 1 or size["memory_limit"] >= GIB


def test_workers_on_gpus_have_one_device_each() -> None:
    size = options_for(Room(16, 256 * GIB, ("GPU-a", "GPU-b")), gpu=True)
    assert size == {
        "CUDA_VISIBLE_DEVICES": ["GPU-a", "GPU-b"],
        "threads_per_worker": 1,
        "memory_limit": 96 * GIB,
        "enable_cudf_spill": True,
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("HANGANG_LANGUAGE", "en")
    monkeypatch.setenv("CPU_LIMIT", "2.0")
    monkeypatch.setenv("MEM_LIMIT", str(2 * GIB))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


@pytest.mark.slow
def test_a_cluster_on_cores_runs_and_computes(server: pytest.MonkeyPatch) -> None:
    with clusters.local(processes=False) as client:
        assert isinstance(client.cluster, LocalCluster)
        workers = client.scheduler_info()["workers"].values()
        assert sum(worker["nthreads"] for worker in workers) == 2
        assert sum(worker["memory_limit"] for worker in workers) <= 1.5 * GIB
        assert client.submit(sum, [1, 2]).result(30) == 3
        client.cluster.close()


def test_gpus_that_are_not_there_are_told(server: pytest.MonkeyPatch) -> None:
    with pytest.raises(clusters.ClusterError, match="this server has no GPU"):
        clusters.local(gpu=True)
    # As a simulated centre names devices that no driver knows.
    server.setenv("CUDA_VISIBLE_DEVICES", "GPU-simulated")
    with pytest.raises(clusters.ClusterError, match="CUDA finds no GPU, or cudf is not in this image"):
        clusters.local(gpu=True)
    server.setattr(inside, "why_not_cudf", lambda: "")
    with pytest.raises(clusters.ClusterError, match="dask-cuda is not in this image"):
        clusters.local(gpu=True)


def test_where_there_are_gpus_they_are_used(server: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class Gpus:
        def __init__(self, **options: Any) -> None:
            asked.append(options)

    module = types.ModuleType("dask_cuda")
    module.LocalCUDACluster = Gpus  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    server.setitem(sys.modules, "dask_cuda", module)
    server.setattr(inside, "why_not_cudf", lambda: "")
    server.setattr(inside, "Client", lambda cluster: cluster)
    server.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    assert isinstance(clusters.local(rmm_pool_size="4GB"), Gpus)
    assert asked[0]["CUDA_VISIBLE_DEVICES"] == ["MIG-a", "MIG-b"]
    assert asked[0]["rmm_pool_size"] == "4GB"
    assert asked[0]["enable_cudf_spill"] is True
