"""A hub on this machine whose servers are pods of a real cluster: hub, proxy and desk as the embedded hub has them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from hub_ext.settings import new_secrets
from tests.support.cluster import Cluster
from tests.support.hub import EmbeddedHub, free_port
from tests.support.manifests import Object

NOTEBOOK_IMAGE = "hangang/notebook:dev"
GATEWAY = "10.244.0.1"
"""This machine as pods see it."""


@dataclass
class KubeHub(EmbeddedHub):
    """`hub-ext up` with `run_on: kubernetes`, in a namespace of the cluster."""

    cluster: Cluster | None = None
    namespace: str = ""
    kubernetes: Mapping[str, Any] = field(default_factory=dict)
    """Over the settings below."""
    hub_port: int = field(default_factory=free_port)
    proxy_api_port: int = field(default_factory=free_port)
    desk_port: int = field(default_factory=free_port)

    @classmethod
    def make(cls, folder: Path, cluster: Cluster, namespace: str, **more: Any) -> KubeHub:
        hub = cls(folder, cluster=cluster, namespace=namespace, **more)
        hub.state.mkdir(parents=True, exist_ok=True)
        secrets = new_secrets() | {"hub_port": hub.hub_port, "proxy_api_port": hub.proxy_api_port}
        (hub.state / "secrets.json").write_text(json.dumps(secrets))
        kubernetes = {
            "namespace": namespace,
            "hub_url": f"http://{GATEWAY}:{hub.hub_port}",
            "hub_port": hub.hub_port,
            "proxy_api_url": f"http://127.0.0.1:{hub.proxy_api_port}",
            "desk_url": f"http://{GATEWAY}:{hub.desk_port}",
            "desk_port": hub.desk_port,
            "image": NOTEBOOK_IMAGE,
            "home": {"size": "1Gi"},
            "scratch": "1Gi",
            "priority_class": None,
            "requests": {"cpu": "20m", "memory": "128Mi"},
        }
        hub.settings = {
            "run_on": "kubernetes",
            "simulated_node": {"cpu": 128, "memory": "2Ti"},
            "kubernetes": kubernetes | dict(hub.kubernetes),
        } | dict(hub.settings)
        hub.environment = {"KUBECONFIG": str(cluster.kubeconfig), **hub.environment}
        return hub

    # -- what is in the cluster -------------------------------------------------------------------------------------

    def pods(self) -> list[Object]:
        """The servers' pods, those that are on their way out among them."""
        assert self.cluster is not None
        return self.cluster.list("pods", self.namespace, component="singleuser-server")

    def pod_of(self, person: str) -> Object | None:
        return next(
            (pod for pod in self.pods() if pod["metadata"]["labels"].get("hangang-hub/person") == person),
            None,
        )

    def leases_and_pods(self) -> tuple[set[str], set[str]]:
        """The ids of the live leases, and those that live pods carry."""
        leases = {lease["id"] for lease in self.leases()}
        pods = {
            pod["metadata"]["labels"]["hangang-hub/lease"]
            for pod in self.pods()
            if "deletionTimestamp" not in pod["metadata"]
        }
        return leases, pods

    def nodes_ready(self) -> dict[str, bool]:
        """What the clock has written down of the nodes."""
        with closing(sqlite3.connect(self.state / "ledger.sqlite")) as ledger:
            return {str(name): bool(ready) for name, ready in ledger.execute("SELECT name, ready FROM nodes")}

    def answers(self) -> bool:
        """Whether the hub itself is there."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.hub_port}/hub/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False
