"""The hub that `make deploy` brought into the cluster, as people and operators meet it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.cluster import Cluster
from tests.support.hub import ROOT, wait_for
from tests.support.manifests import Object

SYSTEM, USERS = "hangang-system", "hangang-users"


@dataclass
class DeployedHub:
    """`url` is the address that the deployment printed."""

    cluster: Cluster
    url: str = ""
    said: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def deploy(self, *arguments: str) -> None:
        """What `make deploy` runs; again and again, where need be."""
        done = subprocess.run(
            [sys.executable, str(ROOT / "deploy" / "deploy.py"), *arguments],
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.said = done.stdout
        self.url = next(word for word in done.stdout.split() if word.startswith("http")).rstrip("/.,")

    @property
    def password(self) -> str:
        secret = self.cluster.get("secret", "hub", SYSTEM)
        assert secret is not None
        kept = json.loads(base64.b64decode(secret["data"]["secrets.json"]))
        return str(kept["demo_password"])

    def command(self, *arguments: str) -> str:
        """`hub-ext …` inside the hub's pod."""
        where = ("exec", "deployment/hub", f"--namespace={SYSTEM}", "--container=hub", "--")
        return self.cluster.kubectl(*where, "hub-ext", *arguments)

    def leases(self) -> list[dict[str, Any]]:
        return list(json.loads(self.command("leases", "--json")))

    def all_leases(self) -> list[dict[str, Any]]:
        return list(json.loads(self.command("leases", "--all", "--json")))

    def pods(self) -> list[Object]:
        return self.cluster.list("pods", USERS, component="singleuser-server")

    def kill_hub(self) -> None:
        """As a node that crashed would: without a word. Returns when another hub serves."""
        names = [pod["metadata"]["name"] for pod in self.hubs()]
        for name in names:
            self.cluster.kubectl(
                "delete", "pod", name, f"--namespace={SYSTEM}", "--grace-period=0", "--force"
            )
        wait_for(
            lambda: [
                pod
                for pod in self.hubs()
                if pod["metadata"]["name"] not in names
                and all(one["ready"] for one in pod["status"].get("containerStatuses", [{"ready": False}]))
            ],
            "another hub serves",
            180,
        )

    def hubs(self) -> list[Object]:
        return self.cluster.list("pods", SYSTEM, **{"app.kubernetes.io/name": "hub"})
