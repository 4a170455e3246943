"""A cluster inside one server: as many workers as the server's lease has cores or GPUs, and no more.

It takes nothing from the quota beyond the server itself, and ends with the kernel.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import psutil
from distributed import Client, LocalCluster
from distributed.deploy.utils import nprocesses_nthreads

from hub_ext.language import Speaker
from hub_ext.notebook import why_not_cudf
from hub_ext.notebook.clusters.cluster import ClusterError
from hub_ext.notebook.clusters.words import speaker

__all__ = ["Room", "local", "options_for", "room"]

KERNEL_SHARE: Final = 0.25
"""Of the memory, for the notebook itself: it gathers results."""
LEAST_WORKER: Final = 1024**3
"""Bytes; with less a worker of Dask spills more than it computes."""


@dataclass(frozen=True, slots=True)
class Room:
    """What this server has: whole cores, bytes of memory, and its GPUs or slices by the names CUDA takes."""

    cores: int
    memory: int
    devices: tuple[str, ...] = ()


def room(environment: Mapping[str, str] = os.environ) -> Room:
    """As the lease says (`CPU_LIMIT`, `MEM_LIMIT`, `CUDA_VISIBLE_DEVICES`), else as the machine has it."""
    cores = _number(environment.get("CPU_LIMIT")) or len(os.sched_getaffinity(0))
    memory = _number(environment.get("MEM_LIMIT")) or psutil.virtual_memory().total
    devices = environment.get("CUDA_VISIBLE_DEVICES", "")
    return Room(
        max(1, int(cores)), int(memory), tuple(name for one in devices.split(",") if (name := one.strip()))
    )


def options_for(room: Room, *, gpu: bool) -> dict[str, Any]:
    """The size of the cluster that fits: with GPUs one worker for each, else few workers with a core per thread."""
    memory = int(room.memory * (1 - KERNEL_SHARE))
    if gpu:
        return {
            "CUDA_VISIBLE_DEVICES": list(room.devices),
            "threads_per_worker": 1,
            "memory_limit": memory // len(room.devices),
            "enable_cudf_spill": True,
        }
    workers, _ = nprocesses_nthreads(room.cores)
    workers = max(1, min(workers, memory // LEAST_WORKER))
    return {
        "n_workers": workers,
        "threads_per_worker": max(1, room.cores // workers),
        "memory_limit": memory // workers,
    }


def local(*, gpu: bool | None = None, **options: Any) -> Client:
    """A cluster inside this server, as a connected client; `client.cluster` is the cluster.

    Args:
        gpu: workers on this server's GPUs (`LocalCUDACluster`), or on its cores (`LocalCluster`); None for GPUs where
            there are some that Dask can use.
        options: anything that the cluster takes, in place of what was worked out here.

    Raises ClusterError where GPUs are asked for that cannot be used, with the reason.
    """
    here, say = room(), speaker()
    objection = _why_no_gpu(here, say) if gpu is not False else ""
    if gpu and objection:
        raise ClusterError(say("No cluster on GPUs here: {why}.", why=objection))
    on_gpus = gpu is not False and not objection
    sized = options_for(here, gpu=on_gpus) | {"dashboard_address": "127.0.0.1:0"} | options
    if on_gpus:
        from dask_cuda import LocalCUDACluster

        return Client(LocalCUDACluster(**sized))
    return Client(LocalCluster(**sized))


def _why_no_gpu(here: Room, say: Speaker) -> str:
    if not here.devices:
        return say("this server has no GPU")
    if why_not_cudf():
        return say("CUDA finds no GPU, or {library} is not in this image", library="cudf")
    if importlib.util.find_spec("dask_cuda") is None:
        return say("{library} is not in this image", library="dask-cuda")
    return ""


def _number(text: str | None) -> float:
    """0 for what is no positive number."""
    try:
        return max(0.0, float(text or 0))
    except ValueError:
        return 0.0
