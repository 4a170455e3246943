"""Simulated hardware: the GPUs of the real node, and pretended nodes (kwok) on which pods run in name only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from machine import api
from machine.places import GPU_LABELS, GPUS, NODE

PRETENDED = "kwok.x-k8s.io/node"
PRETENDED_LABEL = "type=kwok"
DELAY = "pod-ready.stage.kwok.x-k8s.io/delay"

# What kwok writes as a pretended pod's status, in its template language.
_POD_STATUS = """{{ $now := Now }}
conditions:
{{ range list "Initialized" "Ready" "ContainersReady" }}
- {type: {{ . }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  started: true
  restartCount: 0
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ end }}
initContainerStatuses:
{{ range .spec.initContainers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  restartCount: 0
  state: {terminated: {exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}
{{ end }}
{{ range NodeIPsWith .spec.nodeName }}
hostIP: {{ . | Quote }}
{{ end }}
ADDRESS
phase: Running
startTime: {{ $now | Quote }}
"""
_OWN_ADDRESS = """{{ with PodIPsWith .spec.nodeName false ( or .metadata.uid "" ) .metadata.name .metadata.namespace }}
podIP: {{ index . 0 | Quote }}
podIPs: [{ip: {{ index . 0 | Quote }}}]
{{ end }}"""
_NODE_STATUS = """{{ $now := Now }}
conditions:
{{ range NodeConditions }}
- type: {{ .type | Quote }}
  status: {{ .status | Quote }}
  reason: {{ .reason | Quote }}
  message: {{ .message | Quote }}
  lastHeartbeatTime: {{ $now | Quote }}
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
"""


def stages(ready_after: float = 0, address: str = "") -> str:
    """The rules for kwok: nodes are ready, pods are ready `ready_after` seconds after they were bound, and go when told to.

    A pod's annotation `pod-ready.stage.kwok.x-k8s.io/delay` (such as "3s") says otherwise for this pod. With an
    address every pretended pod has that one: there one server may answer for all of them.
    """
    shown = f"podIP: {address}\npodIPs: [{{ip: {address}}}]" if address else _OWN_ADDRESS
    not_ready = {
        "key": '.status.conditions.[] | select( .type == "Ready" ) | .status',
        "operator": "NotIn",
        "values": ["True"],
    }
    stays = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}
    pending = {"key": ".status.phase", "operator": "In", "values": ["Pending"]}
    leaves = {"key": ".metadata.deletionTimestamp", "operator": "Exists"}
    delay = {
        "durationMilliseconds": int(ready_after * 1000),
        "durationFrom": {"expressionFrom": f'.metadata.annotations["{DELAY}"]'},
    }
    rules = [
        _stage("node-ready", "Node", [not_ready], {"statusTemplate": _NODE_STATUS}),
        _stage(
            "pod-ready",
            "Pod",
            [stays, pending, not_ready],
            {"statusTemplate": _POD_STATUS.replace("ADDRESS", shown)},
            delay,
        ),
        _stage("pod-delete", "Pod", [leaves], {"finalizers": {"empty": True}, "delete": True}),
    ]
    return "---\n".join(json.dumps(rule, indent=2) + "\n" for rule in rules)


def _stage(
    name: str,
    kind: str,
    when: list[dict[str, Any]],
    then: dict[str, Any],
    delay: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": when},
            **({"delay": delay} if delay else {}),
            "next": then,
        },
    }


def simulate_gpus() -> bool:
    """Give the real node its simulated GPUs if it lacks them; whether it did. Raises OSError, api.Refused.

    The kubelet forgets them when it starts anew. Once they are in the node's status, scheduler and kubelet count them
    like any others.
    """
    path = f"/api/v1/nodes/{NODE}"
    node = api.ask("GET", path)
    status, labels = node["status"], node["metadata"].get("labels", {})
    has_all = all(
        status.get(part, {}).get(name) == GPUS[name] for part in ("capacity", "allocatable") for name in GPUS
    )
    if has_all and GPU_LABELS.items() <= labels.items():
        return False
    api.ask("PATCH", path, {"metadata": {"labels": GPU_LABELS}}, api.MERGE_PATCH)
    api.ask("PATCH", f"{path}/status", {"status": {"capacity": GPUS, "allocatable": GPUS}}, api.MERGE_PATCH)
    return True


@dataclass(frozen=True)
class Pretended:
    """What a pretended node claims to have."""

    gpus: int = 8
    gpu_resource: str = "nvidia.com/gpu"
    cpu: str = "128"
    memory: str = "2Ti"
    pods: int = 250
    labels: Mapping[str, str] = field(default_factory=dict)

    def manifest(self, name: str) -> dict[str, Any]:
        size = {"cpu": self.cpu, "memory": self.memory, "pods": str(self.pods), "ephemeral-storage": "10Ti"}
        if self.gpus:
            size[self.gpu_resource] = str(self.gpus)
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "annotations": {PRETENDED: "fake"},
                "labels": {
                    "type": "kwok",
                    "kubernetes.io/hostname": name,
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": "amd64",
                    **(GPU_LABELS if self.gpus else {}),
                    **self.labels,
                },
            },
            "spec": {"taints": [{"key": PRETENDED, "value": "fake", "effect": "NoSchedule"}]},
            "status": {"capacity": size, "allocatable": size},
        }


def add_nodes(number: int, kind: Pretended) -> list[str]:
    """Add so many pretended nodes to those there are; their names. Raises OSError, api.Refused."""
    taken = {node["metadata"]["name"] for node in _pretended()}
    free = (
        name for name in (f"pretended-{index}" for index in range(len(taken) + number)) if name not in taken
    )
    names = [next(free) for _ in range(number)]
    for name in names:
        api.ask("POST", "/api/v1/nodes", kind.manifest(name))
    return names


def remove_nodes(chosen: Sequence[str] = ()) -> int:
    """Remove these pretended nodes (where none is named, all) and the pods on them; how many there were.

    Raises OSError, api.Refused.
    """
    names = {node["metadata"]["name"] for node in _pretended()}
    if chosen:
        names &= set(chosen)
    if names:
        for pod in api.ask("GET", "/api/v1/pods")["items"]:
            if pod["spec"].get("nodeName") in names:
                _delete(f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}")
    for name in names:
        _delete(f"/api/v1/nodes/{name}")
    return len(names)


def ready_nodes() -> set[str]:
    """The names of the nodes that are ready. Raises OSError, api.Refused."""
    return {
        node["metadata"]["name"]
        for node in api.ask("GET", "/api/v1/nodes")["items"]
        if any(
            one["type"] == "Ready" and one["status"] == "True" for one in node["status"].get("conditions", [])
        )
    }


def _pretended() -> Iterator[dict[str, Any]]:
    yield from api.ask("GET", f"/api/v1/nodes?labelSelector={PRETENDED_LABEL.replace('=', '%3D')}")["items"]


def _delete(path: str) -> None:
    try:
        api.ask("DELETE", path, {"gracePeriodSeconds": 0})
    except api.Refused as refused:
        if refused.status != 404:
            raise
