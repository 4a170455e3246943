"""What a pod says of its lease, and whether a finished pod keeps to it. Pods here are the API's JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hub_ext.core.amounts import MILLI, Amounts, is_gpu
from hub_ext.core.errors import BadInput
from hub_ext.kube.pods import ENDS_AT, GPU_COUNT, GPU_RESOURCE, KIND, LEASE, PERSON, POOL, SECTOR, sizes_of
from hub_ext.quota.model import Lease, Policy

Pod = Mapping[str, Any]


def labels_of(lease: Lease, policy: Policy, person: str) -> dict[str, str]:
    """By which pods are found and counted. `person` is the name as a label's value."""
    labels = {LEASE: lease.id, POOL: lease.pool, KIND: lease.kind, PERSON: person}
    sector = next(
        (name for name in lease.path if name in policy.pools and policy.pools[name].kind == "sector"), None
    )
    return labels | ({SECTOR: sector} if sector else {})


def annotations_of(lease: Lease, policy: Policy, facts: Mapping[str, Any]) -> dict[str, str]:
    """What an adoption needs to know, and what the cluster's own wall compares the pod with."""
    resource, count = gpus_of(lease.amounts, gpu_resources(policy))
    return {
        LEASE: json.dumps(facts, separators=(",", ":")),
        ENDS_AT: policy.local(lease.ends_at).isoformat(),
        GPU_RESOURCE: resource,
        GPU_COUNT: str(count),
    }


def gpu_resources(policy: Policy) -> dict[str, str]:
    """The Kubernetes resource of each GPU class."""
    return {name: gpu.resource for name, gpu in policy.gpu_classes.items()}


def gpus_of(amounts: Amounts, resources: Mapping[str, str]) -> tuple[str, int]:
    """The Kubernetes resource and how many; a server has one class of GPU. No GPU: ("", 0)."""
    for name, amount in amounts.items():
        if is_gpu(name) and amount:
            return resources.get(name.removeprefix("gpu."), name), -(-amount // MILLI)
    return "", 0


def complaints(pod: Pod, lease: Lease, policy: Policy, want_labels: Mapping[str, str]) -> list[str]:
    """What of a finished pod goes beyond its lease; empty for one that keeps to it.

    A site's own hook may change a pod after it was made; that must not become a way around the quota.
    """
    found = []
    labels = (pod.get("metadata") or {}).get("labels") or {}
    found += [
        f"the label {name} is not {value!r}"
        for name, value in want_labels.items()
        if labels.get(name) != value
    ]
    spec = pod.get("spec") or {}
    found += [
        f"it shares the node's {what}" for what in ("hostNetwork", "hostPID", "hostIPC") if spec.get(what)
    ]
    if spec.get("automountServiceAccountToken") is not False:
        found.append("it would carry a token for the cluster")
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    for container in containers:
        security = container.get("securityContext") or {}
        if security.get("privileged") or security.get("allowPrivilegeEscalation"):
            found.append(f"its container {container.get('name')} is privileged")
    return found + _sizes(pod, lease, gpu_resources(policy))


def _sizes(pod: Pod, lease: Lease, resources: Mapping[str, str]) -> list[str]:
    """GPUs exactly the lease's; CPU and memory at most, where the lease counts them."""
    names = {
        "cpu": "cpu",
        "memory": "memory",
        **{resource: f"gpu.{name}" for name, resource in resources.items()},
    }
    try:
        asked = [sizes_of(pod, names, field) for field in ("requests", "limits")]
    except BadInput as error:
        return [f"its sizes cannot be read ({error})"]
    found = []
    for resource in sorted({*names.values(), *lease.amounts}):
        leased = lease.amounts.get(resource, 0)
        sums = [sizes.get(resource, 0) for sizes in asked]
        if is_gpu(resource) and sums != [leased, leased]:
            found.append(f"it has {max(sums) / MILLI:g} of {resource}, and the lease {leased / MILLI:g}")
        elif not is_gpu(resource) and leased and max(sums) > leased:
            found.append(f"it has {max(sums)} of {resource}, and the lease {leased}")
    return found
