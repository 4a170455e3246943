"""What the cluster's nodes have for the leases: allocatable sizes, less what runs there without being ours.

Nodes and pods are the API's JSON as plain dictionaries; amounts are in base units (`hub_ext.core.amounts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from hub_ext.core.amounts import Amounts, parse_amount
from hub_ext.core.errors import BadInput
from hub_ext.kube.pods import is_over, lease_of, node_of, sizes_of

Toleration = Mapping[str, Any]

KEEPS_PODS_AWAY: Final = ("NoSchedule", "NoExecute")
COMES_AND_GOES: Final = "node.kubernetes.io/"
"""Taints that the cluster itself puts on a node in trouble: `ready` says that."""


@dataclass(frozen=True, slots=True)
class Machine:
    """`ready` False: it exists, and takes no new pod for the moment. `only_gpus`: its taints let none in without a GPU."""

    name: str
    capacity: Amounts
    ready: bool = True
    only_gpus: bool = False


def machines(
    nodes: Iterable[Mapping[str, Any]],
    pods: Iterable[Mapping[str, Any]],
    resources: Mapping[str, str],
    tolerations: Sequence[Toleration] = (),
    instead: Amounts | None = None,
    *,
    gpu_tolerations: Sequence[Toleration] = (),
    namespace: str | None = None,
) -> list[Machine]:
    """The nodes that may take our pods, by name.

    `tolerations` are those of all our pods, `gpu_tolerations` those that only pods with a GPU have besides. Our leases
    are those in `namespace` (None: in any); a label elsewhere says nothing.

    `resources` gives the quota's name of each Kubernetes resource (`nvidia.com/gpu` is `gpu.h200`); a class that
    two nodes have under one resource cannot be told apart. `pods` are all pods of the cluster: what is not ours
    takes room. `instead` replaces the sizes it names on each node that has any of them.
    """
    names = {"cpu": "cpu", "memory": "memory", **resources}
    foreign: dict[str, list[Mapping[str, Any]]] = {}
    for pod in pods:
        host = node_of(pod)
        ours = lease_of(pod) and namespace in (None, (pod.get("metadata") or {}).get("namespace"))
        if host is not None and not ours and not is_over(pod):
            foreign.setdefault(host, []).append(pod)
    found = []
    for node in nodes:
        name = str((node.get("metadata") or {}).get("name", ""))
        spec = node.get("spec") or {}
        taints = spec.get("taints") or ()
        if not _tolerated(taints, [*tolerations, *gpu_tolerations]):
            continue
        capacity = _allocatable(node, names)
        for pod in foreign.get(name, ()):
            for resource, amount in _taken(pod, names).items():
                if resource in capacity:
                    capacity[resource] = max(0, capacity[resource] - amount)
        capacity |= {resource: amount for resource, amount in (instead or {}).items() if resource in capacity}
        found.append(Machine(name, capacity, _ready(node), not _tolerated(taints, tolerations)))
    return sorted(found, key=lambda machine: machine.name)


def _ready(node: Mapping[str, Any]) -> bool:
    if (node.get("spec") or {}).get("unschedulable"):
        return False
    for condition in (node.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Ready":
            return bool(condition.get("status") == "True")
    return False


def _tolerated(taints: Iterable[Mapping[str, Any]], tolerations: Sequence[Toleration]) -> bool:
    return all(
        any(_tolerates(toleration, taint) for toleration in tolerations)
        for taint in taints
        if taint.get("effect") in KEEPS_PODS_AWAY and not str(taint.get("key", "")).startswith(COMES_AND_GOES)
    )


def _tolerates(toleration: Toleration, taint: Mapping[str, Any]) -> bool:
    """As `k8s.io/api/core/v1` `ToleratesTaint`: an empty effect or key means any."""
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint.get("key"))
    return toleration.get("key") == taint.get("key") and (toleration.get("value") or "") == (
        taint.get("value") or ""
    )


def _taken(pod: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, int]:
    try:
        return sizes_of(pod, names, "limits", "requests")
    except BadInput:
        return {}  # the API server takes no such pod


def _allocatable(node: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, int]:
    amounts = {}
    for resource, quantity in ((node.get("status") or {}).get("allocatable") or {}).items():
        if resource in names:
            # What one node says without sense must not hide the others.
            with suppress(BadInput):
                amounts[names[resource]] = parse_amount(names[resource], quantity, rounding="down")
    return amounts
