"""Dask clusters from a notebook, inside the same quota as servers.

    from hub_ext.notebook import clusters

    client = clusters.start(workers=4, profile="cpu")     # a connected dask.distributed.Client
    client = await clusters.astart(workers=4)             # the same for async code
    client = clusters.connect()                           # to a cluster of yours that runs already
    clusters.panel()                                      # a panel to choose, watch, scale and stop
    client = clusters.local()                             # inside this server alone, sized to what it has

`client.cluster` scales, adapts, stops, tells its `state()` and has the `dashboard_link`. A cluster ends with the kernel
that started it.

| variable | what it says |
|---|---|
| `DASK_GATEWAY__…` | where the gateway is; the hub sets them, so that dask-gateway's own `Gateway()` works as well |
| `HANGANG_DESK_URL`, `JUPYTERHUB_API_TOKEN` | where the desk answers, which knows sizes, hours and reasons |
| `HANGANG_SERVER` | the server that a cluster ends with; without it `JUPYTERHUB_SERVER_NAME` |
| `HANGANG_LANGUAGE` | `ko` or `en`; without it JupyterLab's own choice, the browser's, `LANG` |
| `CPU_LIMIT`, `MEM_LIMIT`, `CUDA_VISIBLE_DEVICES` | what this server has |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub_ext.notebook.clusters.cluster import Cluster, ClusterError, ClusterRefused, FewerWorkers
from hub_ext.notebook.clusters.inside import local
from hub_ext.notebook.clusters.starting import astart, connect, start
from hub_ext.notebook.clusters.versions import DaskVersionWarning

if TYPE_CHECKING:
    from distributed import Client

    from hub_ext.notebook.clusters.widgets import Panel

__all__ = [
    "Cluster",
    "ClusterError",
    "ClusterRefused",
    "DaskVersionWarning",
    "FewerWorkers",
    "astart",
    "connect",
    "local",
    "panel",
    "start",
]


def panel(client: Client | None = None, *, language: str | None = None) -> Panel:
    """A panel to choose a cluster, to watch it, and to scale and stop it.

    `client` is one of `start`; without it the panel takes the cluster that this kernel runs already, or offers to start
    one. `panel().client` is the client then. `language` is `ko` or `en`, where the notebook's is not meant.
    """
    # Widgets only where somebody looks at them.
    from hub_ext.notebook.clusters.widgets import Panel

    return Panel(client, language=language)
