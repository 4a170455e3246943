"""A cluster's pods and the secret that its processes share, as the API's JSON. Pure: compared whole with golden files.

The scheduler's pod comes first and owns all the rest: with it the cluster's secret and its workers go, also while no
gateway runs. A pod holds exactly what its lease says (`hub_ext.spawners.manifests.complaints` finds nothing).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hub_ext.clusters.commands import (
    NO_DEVICE,
    Credentials,
    Listen,
    scheduler_command,
    scheduler_environment,
    worker_command,
    worker_environment,
)
from hub_ext.clusters.model import ClusterProfile
from hub_ext.core.amounts import Amounts, format_amount
from hub_ext.kube.leased import annotations_of, gpus_of, labels_of
from hub_ext.kube.pods import PREFIX
from hub_ext.kube.site import (
    DISK,
    HOME,
    LEAST_DISK,
    NO_DEVICES,
    PERSON_GID,
    PERSON_UID,
    SCRATCH,
    SHARED,
    SHARED_MEMORY,
    VISIBLE_DEVICES,
    Nodes,
    PodRules,
)
from hub_ext.quota.model import SCHEDULER, WORKER, Lease, Policy

Manifest = dict[str, Any]

CLUSTER: Final = f"{PREFIX}cluster"
"""The label with the cluster's name, on its pods and its secret."""
LISTEN: Final = Listen("0.0.0.0", scheduler=8786, dashboard=8787, api=8788)
"""Where a scheduler's pod listens."""
WORKER_PORT: Final = 8789
"""Where the workers of a cluster reach one another; nothing else reaches a worker but its scheduler."""
CREDENTIALS: Final = "/etc/hangang/cluster"
CERTIFICATE, KEY, TOKEN = "dask.crt", "dask.pem", "api-token"
READ_BY_GROUP: Final = 0o440
GRACE_SECONDS: Final = 30
"""For a worker to end what it holds; the gateway has it retire first."""

_ONE_DEVICE: Final = (
    'case "${NVIDIA_VISIBLE_DEVICES:-}" in '
    'GPU-*|MIG-*) export CUDA_VISIBLE_DEVICES="$NVIDIA_VISIBLE_DEVICES" ;; esac; exec "$@"'
)
"""The device plugin tells a container its device as a UUID. CUDA and NVML count slices differently, and only the UUID
means the same slice to both: without it a worker would take the memory of the whole GPU for its own."""


@dataclass(frozen=True, slots=True)
class ClusterSite:
    """What a site says about clusters' pods, beside what it says about all.

    `home` tells whether the volume with a person's files can be mounted on several nodes at once: where it cannot, a
    worker that mounted it would wait for ever on any other node than the server's.
    """

    namespace: str
    rules: PodRules
    api_url: str
    """How a scheduler reaches the gateway."""
    home: bool = False
    shared_claim: str | None = None
    scratch: str | None = "20Gi"
    priority_class: str | None = None
    image_pull_secrets: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Owner:
    """The scheduler's pod: the name and uid that the cluster gave it."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What all pods of one cluster have in common. `person` is the owner's name as a label's value."""

    name: str
    person: str
    profile: ClusterProfile
    image: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def secret(self) -> str:
        return f"dask-{self.name}"

    @property
    def scheduler(self) -> str:
        """The name of the scheduler's pod."""
        return f"dask-scheduler-{self.name}"

    def worker(self, name: str) -> str:
        """The name of a worker's pod. Not the whole of the cluster's name: it is the pod's host name too."""
        return f"dask-worker-{self.name[:8]}-{name}"


def scheduler_pod(
    site: ClusterSite, plan: ClusterPlan, lease: Lease, policy: Policy, facts: Mapping[str, Any]
) -> Manifest:
    """The scheduler's pod. It waits for the cluster's secret, which is made once the pod is there to own it."""
    pod = _pod(site, plan, lease, policy, facts)
    container = pod["spec"]["containers"][0]
    container |= {
        "name": "scheduler",
        "command": scheduler_command(LISTEN),
        "ports": [
            {"name": name, "containerPort": port}
            for name, port in (
                ("scheduler", LISTEN.scheduler),
                ("dashboard", LISTEN.dashboard),
                ("api", LISTEN.api),
            )
        ],
        "env": _variables(
            {
                **scheduler_environment(plan.profile, plan.environment, _credentials(site, plan)),
                **_data(site),
                VISIBLE_DEVICES: NO_DEVICES,
            }
        ),
    }
    pod["metadata"]["name"] = plan.scheduler
    return pod


def worker_pod(
    site: ClusterSite,
    plan: ClusterPlan,
    lease: Lease,
    policy: Policy,
    facts: Mapping[str, Any],
    *,
    name: str,
    scheduler_address: str,
    owner: Owner,
) -> Manifest:
    """The pod of the worker of this name. Raises BadInput for an address that no worker may connect to."""
    pod = _pod(site, plan, lease, policy, facts)
    directory = SCRATCH if site.scratch is not None else "/tmp"
    command = worker_command(plan.profile, name, scheduler_address, directory=directory, port=WORKER_PORT)
    device = None if plan.profile.gpu_class else NO_DEVICE
    environment = _data(site) | worker_environment(
        plan.profile, plan.environment, _credentials(site, plan), device
    )
    if plan.profile.gpu_class:
        command = ["sh", "-c", _ONE_DEVICE, "sh", *command]
    else:
        environment[VISIBLE_DEVICES] = NO_DEVICES
    pod["metadata"] |= {"name": plan.worker(name), "ownerReferences": [_owned_by(owner)]}
    pod["spec"]["containers"][0] |= {"name": "worker", "command": command, "env": _variables(environment)}
    return pod


def secret(
    site: ClusterSite, plan: ClusterPlan, *, certificate: str, key: str, token: str, owner: Owner
) -> Manifest:
    """What makes the cluster's processes known to each other, and its scheduler to the gateway."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": plan.secret,
            "namespace": site.namespace,
            "labels": {CLUSTER: plan.name},
            "ownerReferences": [_owned_by(owner)],
        },
        "type": "Opaque",
        "immutable": True,
        "stringData": {CERTIFICATE: certificate, KEY: key, TOKEN: token},
    }


# -- what scheduler and workers have in common ---------------------------------------------------------------------------


def _pod(
    site: ClusterSite, plan: ClusterPlan, lease: Lease, policy: Policy, facts: Mapping[str, Any]
) -> Manifest:
    rules = site.rules
    volumes = _volumes(site, plan, lease)
    selector, tolerations = _where(lease.amounts, rules)
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": PERSON_GID,
            # Else every start would walk through all files of a home.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "image": plan.image,
                "imagePullPolicy": "IfNotPresent",
                "workingDir": HOME,
                "resources": _resources(lease.amounts, rules),
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": PERSON_UID,
                    "runAsGroup": PERSON_GID,
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [mount for _, mount in volumes],
            }
        ],
        "volumes": [volume for volume, _ in volumes],
    }
    if selector:
        spec["nodeSelector"] = selector
    if tolerations:
        spec["tolerations"] = tolerations
    if site.priority_class is not None:
        spec["priorityClassName"] = site.priority_class
    if site.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in site.image_pull_secrets]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": site.namespace,
            "labels": {
                **labels_of(lease, policy, plan.person),
                CLUSTER: plan.name,
                "app.kubernetes.io/name": "dask",
                "app.kubernetes.io/component": lease.kind,
                "app.kubernetes.io/managed-by": "hangang-hub",
            },
            "annotations": annotations_of(lease, policy, facts),
        },
        "spec": spec,
    }


def _volumes(
    site: ClusterSite, plan: ClusterPlan, lease: Lease
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each volume with its mount. A worker has no use for the token with which the scheduler speaks to the gateway."""
    files = (CERTIFICATE, KEY, TOKEN) if lease.kind == SCHEDULER else (CERTIFICATE, KEY)
    found: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (
            {
                "name": "credentials",
                "secret": {
                    "secretName": plan.secret,
                    "defaultMode": READ_BY_GROUP,
                    "items": [{"key": name, "path": name} for name in files],
                },
            },
            {"name": "credentials", "mountPath": CREDENTIALS, "readOnly": True},
        )
    ]
    if site.home:
        claim: dict[str, Any] = {"claimName": f"home-{plan.person}"}
        found.append(
            (
                {"name": "home", "persistentVolumeClaim": claim},
                {"name": "home", "mountPath": HOME, "subPath": "home"},
            )
        )
    if site.scratch is not None:
        found.append(
            (
                {"name": "scratch", "emptyDir": {"sizeLimit": site.scratch}},
                {"name": "scratch", "mountPath": SCRATCH},
            )
        )
    if site.shared_claim is not None:
        claim = {"claimName": site.shared_claim, "readOnly": True}
        found.append(
            (
                {"name": "shared", "persistentVolumeClaim": claim},
                {"name": "shared", "mountPath": SHARED, "readOnly": True},
            )
        )
    if lease.kind == WORKER:
        # Kubernetes' own 64 MiB are too little for CUDA, NCCL and data loaders. What is used counts as memory.
        size = f"{lease.amounts['memory'] // 2}Mi"
        found.append(
            (
                {"name": SHARED_MEMORY, "emptyDir": {"medium": "Memory", "sizeLimit": size}},
                {"name": SHARED_MEMORY, "mountPath": "/dev/shm"},
            )
        )
    return found


def _resources(amounts: Amounts, rules: PodRules) -> dict[str, dict[str, str]]:
    """The lease's sizes as limits; what is asked of Kubernetes is less only where a site is tried out."""
    asked = {name: min(amounts[name], rules.requests.get(name, amounts[name])) for name in ("cpu", "memory")}
    limits = {name: format_amount(name, amounts[name]) for name in ("cpu", "memory")}
    requests = {name: format_amount(name, amount) for name, amount in asked.items()}
    resource, count = gpus_of(amounts, rules.gpu_resources)
    if count:
        limits[resource] = requests[resource] = str(count)
    if rules.disk is not None:
        limits[DISK], requests[DISK] = f"{rules.disk}Mi", LEAST_DISK
    return {"limits": limits, "requests": requests}


def _where(amounts: Amounts, rules: PodRules) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """The nodes that have the lease's device, and what has to be borne with there."""
    gpu_class = next(
        (name.removeprefix("gpu.") for name, amount in amounts.items() if name.startswith("gpu.") and amount),
        "",
    )
    nodes = rules.gpu_nodes.get(gpu_class, Nodes())
    tolerations = [dict(one) for one in rules.tolerations]
    tolerations += [dict(one) for one in nodes.tolerations if dict(one) not in tolerations]
    return dict(nodes.node_selector), tolerations


def _credentials(site: ClusterSite, plan: ClusterPlan) -> Credentials:
    return Credentials(
        cluster=plan.name,
        api_url=site.api_url,
        token=f"{CREDENTIALS}/{TOKEN}",
        certificate=f"{CREDENTIALS}/{CERTIFICATE}",
        key=f"{CREDENTIALS}/{KEY}",
    )


def _data(site: ClusterSite) -> dict[str, str]:
    """Where the centre's data is, as for servers."""
    return {} if site.shared_claim is None else {"HANGANG_DATA": SHARED}


def _variables(environment: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": environment[name]} for name in sorted(environment)]


def _owned_by(owner: Owner) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "name": owner.name, "uid": owner.uid}
