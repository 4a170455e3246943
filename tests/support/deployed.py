"""The hub that `make deploy` brought into the cluster, as people and operators meet it."""

from __future__ import annotations

import base64
import csv
import io
import json
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.cluster import Cluster, condition
from tests.support.desk import AtTheDesk
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

    def put_policy(self, text: str | None = None) -> None:
        """Returns when it is in force; None is the project's own."""
        text = text or (ROOT / "policy" / "pools.yaml").read_text(encoding="utf-8")
        where = f"--namespace={SYSTEM}"
        patch = json.dumps({"data": {"pools.yaml": text}})
        self.cluster.kubectl("patch", "configmap", "hub-policy", where, "--type=merge", f"--patch={patch}")
        # A pod that is touched gets the file at once, and not at the kubelet's next round.
        for part in ("desk", "hub"):
            label = f"--selector=app.kubernetes.io/name={part}"
            self.cluster.kubectl(
                "annotate", "pods", label, where, "--overwrite", f"tests/policy={secrets.token_hex(8)}"
            )

        def in_force() -> bool:
            ((newest,),) = self.sql("SELECT text FROM hub_ext.policies ORDER BY id DESC LIMIT 1")
            return newest.strip() == text.strip()

        wait_for(in_force, "the policy is in force", 90)

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

    def end_all(self) -> None:
        """Nothing runs."""
        for pod in self.pods():
            self.cluster.delete("pod", pod["metadata"]["name"], pod["metadata"]["namespace"])
        wait_for(lambda: not self.leases(), "no lease is left", 60)

    def come(self, name: str, *, language: str = "en") -> AtTheDesk:
        """Signed in with the demo's password."""
        person = AtTheDesk(self, language=language)  # type: ignore[arg-type]  # it needs no more than an address
        person.sign_in(name, self.password)
        person.name = name
        return person

    def lease_of(self, person: str, server: str = "") -> dict[str, Any]:
        (lease,) = [one for one in self.leases() if (one["person"], one["server"]) == (person, server)]
        return lease

    def sql(self, query: str) -> list[list[str]]:
        """The rows that the centre's database answers with, every value as text."""
        psql = "PGPASSWORD=$(cat /run/secrets/postgres/password) exec psql -h 127.0.0.1 -U hangang -d hangang"
        where = ("exec", "postgres-0", f"--namespace={SYSTEM}", "--", "sh", "-c")
        said = self.cluster.kubectl(*where, f'{psql} --csv --tuples-only -c "$0"', query)
        return list(csv.reader(io.StringIO(said)))

    def steps_of(self, lease: str) -> list[str]:
        """What the ledger tells of a lease and its ticket, without what is charged meanwhile."""
        known = f"lease = '{lease}' AND kind <> 'accrued'"
        return [kind for (kind,) in self.sql(f"SELECT kind FROM hub_ext.entries WHERE {known} ORDER BY id")]

    def leader(self) -> str:
        """The pod whose clock leads."""
        (row,) = self.sql("SELECT holder FROM hub_ext.leaders WHERE name = 'clock'")
        return row[0].rpartition(":")[0]

    def kill(self, pod: str, namespace: str = SYSTEM) -> None:
        """As a node that crashed would: without a word."""
        self.cluster.kubectl("delete", "pod", pod, f"--namespace={namespace}", "--grace-period=0", "--force")

    def kill_hub(self) -> None:
        """Returns when another hub serves."""
        names = [pod["metadata"]["name"] for pod in self.hubs()]
        for name in names:
            self.kill(name)
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

    def desks(self) -> list[Object]:
        """Those that are ready."""
        found = self.cluster.list("pods", SYSTEM, **{"app.kubernetes.io/name": "desk"})
        return [
            pod
            for pod in found
            if "deletionTimestamp" not in pod["metadata"] and condition(pod, "Ready") == "True"
        ]
