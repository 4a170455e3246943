"""What a site says about people's pods: where GPUs are, what pods ask for, and where their files are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hub_ext.core.amounts import Amounts

HOME: Final = "/home/jovyan"
SCRATCH: Final = "/scratch"
SHARED: Final = "/shared"
PERSON_UID: Final = 1000
PERSON_GID: Final = 100
"""Of the images in `images/`."""
SHARED_MEMORY: Final = "shared-memory"
"""The volume at /dev/shm."""
VISIBLE_DEVICES: Final = "NVIDIA_VISIBLE_DEVICES"
"""By which NVIDIA's container runtime, unless it is told not to, hands out GPUs that nobody asked Kubernetes for."""
NO_DEVICES: Final = "void"
DISK, LEAST_DISK = "ephemeral-storage", "100Mi"


@dataclass(frozen=True, slots=True)
class Nodes:
    """Where pods of one GPU class run."""

    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class PodRules:
    """What a site says about its pods.

    `gpu_resources` gives the Kubernetes resource of each GPU class; `requests` replace what pods ask of Kubernetes
    for the resources it names (CPU and memory in base units), whatever they show.
    """

    image: str
    gpu_resources: Mapping[str, str] = field(default_factory=dict)
    gpu_nodes: Mapping[str, Nodes] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    requests: Amounts = field(default_factory=dict)
    disk: int | None = None
    """What a server may write outside its home, in MiB; None: as much as its node has."""
