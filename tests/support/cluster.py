"""A real Kubernetes as tests see it: kubectl, waiting, namespaces of one test, and taking parts of it away."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub import ROOT, wait_for
from tests.support.manifests import Object, find_kubectl

OURS = ROOT / ".cluster" / "kubeconfig"
PROGRAM = ROOT / "deploy" / "cluster" / "cluster.py"
NODE = "hangang-node"
PAUSE_IMAGE = "hangang/pause:dev"
"""Does nothing until it is told to end. On other clusters than ours it must be loaded first."""


@dataclass(frozen=True)
class Cluster:
    """The cluster that a kubeconfig leads to, as its administrator."""

    kubeconfig: Path

    @property
    def ours(self) -> bool:
        """Whether `make cluster` of this checkout made it, so that its parts can be stopped."""
        return self.kubeconfig == OURS

    # -- asking and telling ----------------------------------------------------------------------------------------

    def attempt(
        self, *arguments: str, given: str = "", seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Kubectl, whether it succeeds or not."""
        command = [*find_kubectl(), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds)

    def kubectl(self, *arguments: str, given: str = "", seconds: float = 120) -> str:
        done = self.attempt(*arguments, given=given, seconds=seconds)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def apply(self, *objects: Object, namespace: str = "default") -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", f"--namespace={namespace}", "--filename=-", given=json.dumps(listed))

    def get(self, kind: str, name: str, namespace: str = "default") -> Object | None:
        """The object, or None where there is none of this name."""
        said = self.kubectl(
            "get", kind, name, f"--namespace={namespace}", "--ignore-not-found", "--output=json"
        )
        return dict(json.loads(said)) if said.strip() else None

    def list(self, kind: str, namespace: str = "", **labels: str) -> list[Object]:
        """The objects of a kind with these labels; of all namespaces where none is named."""
        where = f"--namespace={namespace}" if namespace else "--all-namespaces"
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        said = self.kubectl("get", kind, where, f"--selector={selector}", "--output=json")
        return list(json.loads(said)["items"])

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        """Returns when it is gone."""
        self.kubectl("delete", kind, name, f"--namespace={namespace}", "--ignore-not-found", "--wait=true")

    def logs(self, pod: str, namespace: str = "default") -> str:
        return self.kubectl("logs", pod, f"--namespace={namespace}")

    # -- waiting ---------------------------------------------------------------------------------------------------

    def wait_for_pod(
        self, name: str, namespace: str = "default", *phases: str, seconds: float = 60
    ) -> Object:
        """The pod once it is in one of the phases, or, where none is named, once it is ready."""
        last: list[Object | None] = [None]

        def reached() -> Object | None:
            pod = last[0] = self.get("pod", name, namespace)
            if pod is None:
                return None
            if phases:
                found = pod["status"].get("phase")
                assert found in phases or found not in ("Succeeded", "Failed"), (
                    f"pod {name} has ended: {found}"
                )
                return pod if found in phases else None
            return pod if condition(pod, "Ready") == "True" else None

        try:
            return dict(wait_for(reached, f"pod {name} is {' or '.join(phases) or 'ready'}", seconds))
        except AssertionError as error:
            events = self.attempt("describe", "pod", name, f"--namespace={namespace}").stdout
            raise AssertionError(f"{error}; last seen: {(last[0] or {}).get('status')}\n{events}") from None

    def why_pending(self, name: str, namespace: str = "default", seconds: float = 30) -> str:
        """What the scheduler says about a pod that finds no node."""

        def said() -> str:
            pod = self.get("pod", name, namespace) or {"status": {}}
            for one in pod["status"].get("conditions", []):
                if one["type"] == "PodScheduled" and one["status"] == "False":
                    return str(one.get("message", ""))
            return ""

        return str(wait_for(said, f"the scheduler says why pod {name} has no node", seconds))

    def free(self, resource: str, node: str = NODE) -> int:
        """How many of a counted resource (GPUs) the node's pods have left over."""
        found = self.get("node", node)
        assert found is not None, f"there is no node {node}"
        used = sum(
            int(container.get("resources", {}).get("limits", {}).get(resource, 0))
            for pod in self.list("pods")
            if pod["spec"].get("nodeName") == node and pod["status"]["phase"] in ("Pending", "Running")
            for container in pod["spec"]["containers"]
        )
        return int(found["status"]["allocatable"].get(resource, 0)) - used

    # -- namespaces, and parts taken away --------------------------------------------------------------------------

    @contextmanager
    def namespace(self, **labels: str) -> Iterator[str]:
        """A fresh namespace that goes afterwards with all that is in it."""
        name = f"test-{secrets.token_hex(4)}"
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        # Pods are refused until their account is there.
        wait_for(lambda: self.get("serviceaccount", "default", name), f"namespace {name} has its account")
        try:
            yield name
        finally:
            self.kubectl("delete", "pods", "--all", f"--namespace={name}", "--grace-period=1")
            self.kubectl("delete", "namespace", name, "--wait=false")

    def program(self, *arguments: str, seconds: float = 300) -> str:
        """`cluster.py …`, which only the cluster that `make cluster` made obeys; what it printed."""
        if not self.ours:
            pytest.skip("only the cluster that `make cluster` makes can be handled so")
        environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        done = subprocess.run(
            [sys.executable, str(PROGRAM), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        # `status` also fails when it has said that a part is away.
        said = done.stdout if arguments == ("status",) else ""
        assert done.returncode == 0 or said, f"cluster.py {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    @contextmanager
    def without(self, part: str, *, crash: bool = True) -> Iterator[None]:
        """One part (`kube-apiserver`, `kubelet`, …) is away, and serves again afterwards."""
        self.program("stop", part, *(["--kill"] if crash else []))
        try:
            yield
        finally:
            self.program("start", part)

    @contextmanager
    def pretended_nodes(self, number: int, *options: str) -> Iterator[Sequence[str]]:
        """Nodes on which pods run in name only, and which go afterwards; options as of `cluster.py add-nodes`."""
        names = self.program("add-nodes", str(number), *options).split()
        try:
            yield names
        finally:
            self.program("remove-nodes", *names)

    def pids(self) -> dict[str, int]:
        """The parts that run."""
        rows = (line.split() for line in self.program("status").splitlines())
        return {row[0]: int(row[1]) for row in rows if row[1].isdigit()}


def find_cluster() -> Cluster | None:
    """The cluster that KUBECONFIG names, or else the one that `make cluster` made."""
    named = os.environ.get("KUBECONFIG")
    if named:
        return Cluster(Path(named).resolve())
    return Cluster(OURS) if OURS.exists() else None


def condition(found: Object, kind: str) -> str:
    """The status of one of the object's conditions: "True", "False", or "" where it has none such."""
    conditions = found["status"].get("conditions", [])
    return next((str(one["status"]) for one in conditions if one["type"] == kind), "")


def pod(name: str, image: str = PAUSE_IMAGE, **spec: Any) -> Object:
    """A pod that Pod Security `restricted` lets in, as an ordinary person's; `spec` adds to it."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **spec.pop("container", {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **spec.pop("metadata", {})},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 100,
                "fsGroup": 100,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            **spec,
        },
    }


def with_limits(**limits: str | int) -> dict[str, Any]:
    """For `pod(container=…)`: what the container may use, such as GPUs."""
    return {"resources": {"limits": {name: str(number) for name, number in limits.items()}}}
