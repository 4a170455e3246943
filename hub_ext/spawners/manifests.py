"""Whether a finished pod keeps to its lease (what it says of it: `hub_ext.kube.leased`). Pods here are the API's JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hub_ext.core.amounts import MILLI, is_gpu
from hub_ext.core.errors import BadInput
from hub_ext.kube.leased import annotations_of as annotations_of
from hub_ext.kube.leased import gpu_resources
from hub_ext.kube.leased import gpus_of as gpus_of
from hub_ext.kube.leased import labels_of as labels_of
from hub_ext.kube.pods import sizes_of
from hub_ext.kube.site import VISIBLE_DEVICES
from hub_ext.quota.model import Lease, Policy

Pod = Mapping[str, Any]


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
    if spec.get("resourceClaims"):
        found.append("it takes devices by resource claims, which no lease counts")
    if spec.get("automountServiceAccountToken") is not False or any(_tokens(spec)):
        found.append("it would carry a token for the cluster")
    found += [
        f"its volume {volume.get('name')} is a folder of the node"
        for volume in spec.get("volumes") or ()
        if volume.get("hostPath") is not None
    ]
    for container in _containers(spec):
        security = container.get("securityContext") or {}
        if security.get("privileged") or security.get("allowPrivilegeEscalation"):
            found.append(f"its container {container.get('name')} is privileged")
        if any(_names_gpus(variable) for variable in container.get("env") or ()):
            found.append(f"its container {container.get('name')} names GPUs by {VISIBLE_DEVICES}")
    return found + _sizes(pod, lease, gpu_resources(policy))


def _containers(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]


def _names_gpus(variable: Mapping[str, Any]) -> bool:
    return variable.get("name") == VISIBLE_DEVICES and variable.get("value") not in ("void", "none")


def _tokens(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Tokens of the API server that come in as a volume."""
    for volume in spec.get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            if source.get("serviceAccountToken") is not None:
                yield source


def _sizes(pod: Pod, lease: Lease, resources: Mapping[str, str]) -> list[str]:
    """GPUs exactly the lease's, and no other device; CPU and memory at most, where the lease counts them."""
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
    return found + _other_devices(pod, names) + _without_limit(pod, lease)


def _other_devices(pod: Pod, names: Mapping[str, str]) -> list[str]:
    """As the cluster's own wall: whatever a device plugin offers has a domain in its name."""
    limits = [
        (container.get("resources") or {}).get("limits") or {}
        for container in _containers(pod.get("spec") or {})
    ]
    others = {name for one in limits for name in one if "/" in name and name not in names}
    return [f"it has {name}, which no lease counts" for name in sorted(others)]


def _without_limit(pod: Pod, lease: Lease) -> list[str]:
    """A container without a limit may use all that its node has."""
    spec = pod.get("spec") or {}
    whole = (spec.get("resources") or {}).get("limits") or {}
    return [
        f"its container {container.get('name')} has no limit of {resource}"
        for resource in ("cpu", "memory")
        if lease.amounts.get(resource) and resource not in whole
        for container in spec.get("containers") or ()
        if resource not in ((container.get("resources") or {}).get("limits") or {})
    ]
