"""What a pod says of its lease: the labels by which it is found and counted, the annotations that the wall compares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from hub_ext.core.amounts import MILLI, Amounts, is_gpu
from hub_ext.core.clock import Instant
from hub_ext.kube.pods import ENDS_AT, GPU_COUNT, GPU_RESOURCE, KIND, LEASE, PERSON, POOL, SECTOR


class LeaseLike(Protocol):
    """What of a lease a pod tells."""

    @property
    def id(self) -> str: ...
    @property
    def pool(self) -> str: ...
    @property
    def path(self) -> tuple[str, ...]: ...
    @property
    def kind(self) -> str: ...
    @property
    def amounts(self) -> Amounts: ...
    @property
    def ends_at(self) -> Instant: ...


class PoolLike(Protocol):
    @property
    def kind(self) -> str: ...


class GpuClassLike(Protocol):
    @property
    def resource(self) -> str: ...


class PolicyLike(Protocol):
    """What of the policy that takes: which pools are sectors, the Kubernetes resource of each GPU class, local time."""

    @property
    def pools(self) -> Mapping[str, PoolLike]: ...
    @property
    def gpu_classes(self) -> Mapping[str, GpuClassLike]: ...
    def local(self, instant: Instant) -> datetime: ...


def labels_of(lease: LeaseLike, policy: PolicyLike, person: str) -> dict[str, str]:
    """By which pods are found and counted. `person` is the name as a label's value."""
    labels = {LEASE: lease.id, POOL: lease.pool, KIND: lease.kind, PERSON: person}
    sector = next(
        (name for name in lease.path if name in policy.pools and policy.pools[name].kind == "sector"), None
    )
    return labels | ({SECTOR: sector} if sector else {})


def annotations_of(lease: LeaseLike, policy: PolicyLike, facts: Mapping[str, Any]) -> dict[str, str]:
    """What an adoption needs to know, and what the cluster's own wall compares the pod with."""
    resource, count = gpus_of(lease.amounts, gpu_resources(policy))
    return {
        LEASE: json.dumps(facts, separators=(",", ":")),
        ENDS_AT: policy.local(lease.ends_at).isoformat(),
        GPU_RESOURCE: resource,
        GPU_COUNT: str(count),
    }


def gpu_resources(policy: PolicyLike) -> dict[str, str]:
    """The Kubernetes resource of each GPU class."""
    return {name: gpu.resource for name, gpu in policy.gpu_classes.items()}


def gpus_of(amounts: Amounts, resources: Mapping[str, str]) -> tuple[str, int]:
    """The Kubernetes resource and how many; a pod has one class of GPU. No GPU: ("", 0)."""
    for name, amount in amounts.items():
        if is_gpu(name) and amount:
            return resources.get(name.removeprefix("gpu."), name), -(-amount // MILLI)
    return "", 0
