"""What a pod says of its lease, and each way in which a site's own hook could take it beyond its lease."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from hub_ext.kube.pods import facts_of, lease_of
from hub_ext.quota.document import mapping_document, policy_of
from hub_ext.quota.model import Lease
from hub_ext.spawners.manifests import annotations_of, complaints, gpus_of, labels_of

GIB = 1024
POLICY = policy_of(
    mapping_document(
        {
            "version": 1,
            "timezone": "Asia/Seoul",
            "gpu_classes": {
                "h200": {"resource": "nvidia.com/gpu", "hours": "1"},
                "h200-1g": {"resource": "nvidia.com/mig-1g.18gb", "hours": "0.15"},
            },
            "pools": {
                "seoul": {"kind": "centre", "quota": {"gpu.h200": {"nominal": 8}}},
                "universities": {"parent": "seoul", "kind": "sector"},
                "hangang-univ": {"parent": "universities", "kind": "institution"},
            },
        },
        "policy",
    )
)
LEASE = Lease(
    id="0123456789abcdef0123456789abcdef",
    person="Kim@hangang.example",
    pool="hangang-univ",
    path=("hangang-univ", "universities", "seoul"),
    amounts={"gpu.h200": 1000, "cpu": 16000, "memory": 192 * GIB},
    kind="server",
    guaranteed=True,
    lender=None,
    cost=0,
    booked_at=1_804_000_000,
    ends_at=1_804_007_200,
    charged_until=1_804_000_000,
    profile="h200",
)
LABELS = labels_of(LEASE, POLICY, "kim-hangang-example---0a1b2c3d")
SMALL = Lease(
    **{name: getattr(LEASE, name) for name in LEASE.__slots__} | {"amounts": {"cpu": 2000, "memory": 8 * GIB}}
)
"""The lease of a server without GPUs."""


def pod(lease: Lease = LEASE) -> dict[str, Any]:
    """One that keeps to its lease."""
    limits = {"cpu": "16", "memory": "192Gi", "nvidia.com/gpu": "1"}
    if lease is SMALL:
        limits = {"cpu": "2", "memory": "8Gi"}
    return {
        "metadata": {"name": "jupyter-kim", "labels": {**LABELS, "component": "singleuser-server"}},
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "notebook",
                    "env": [{"name": "HANGANG_GPUS", "value": "simulated"}],
                    "resources": {"limits": limits, "requests": dict(limits)},
                    "securityContext": {"allowPrivilegeEscalation": False},
                }
            ],
            "volumes": [
                {"name": "home", "persistentVolumeClaim": {"claimName": "home-kim"}},
                {"name": "facts", "projected": {"sources": [{"configMap": {"name": "facts"}}]}},
            ],
        },
    }


# -- what it says -----------------------------------------------------------------------------------------------------


def test_a_pod_is_found_and_counted_by_its_labels() -> None:
    assert LABELS == {
        "hangang-hub/lease": "0123456789abcdef0123456789abcdef",
        "hangang-hub/pool": "hangang-univ",
        "hangang-hub/sector": "universities",
        "hangang-hub/kind": "server",
        "hangang-hub/person": "kim-hangang-example---0a1b2c3d",
    }


def test_a_lease_outside_every_sector_has_no_label_of_one() -> None:
    moved = Lease(**{name: getattr(LEASE, name) for name in LEASE.__slots__} | {"path": ("gone", "seoul")})
    assert "hangang-hub/sector" not in labels_of(moved, POLICY, "kim")


def test_annotations_are_what_the_wall_compares_and_an_adoption_reads() -> None:
    facts = {"person": "Kim@hangang.example", "amounts": dict(LEASE.amounts), "이름": "한강"}
    annotations = annotations_of(LEASE, POLICY, facts)
    assert annotations == {
        "hangang-hub/lease": json.dumps(facts, separators=(",", ":")),
        "hangang-hub/ends-at": "2027-03-03T02:06:40+09:00",
        "hangang-hub/gpu-resource": "nvidia.com/gpu",
        "hangang-hub/gpu-count": "1",
    }
    read_back = {"metadata": {"labels": LABELS, "annotations": annotations}}
    assert facts_of(read_back) == facts
    assert lease_of(read_back) == LEASE.id


@pytest.mark.parametrize(
    ("amounts", "want"),
    [
        pytest.param({"cpu": 2000}, ("", 0), id="no GPU"),
        pytest.param({"gpu.h200": 0, "cpu": 2000}, ("", 0), id="none of a class that it names"),
        pytest.param({"cpu": 1, "gpu.h200-1g": 2000}, ("nvidia.com/mig-1g.18gb", 2), id="two slices"),
        pytest.param({"gpu.h200": 1001}, ("nvidia.com/gpu", 2), id="a part of a GPU is a whole one"),
    ],
)
def test_gpus_as_kubernetes_counts_them(amounts: dict[str, int], want: tuple[str, int]) -> None:
    assert gpus_of(amounts, {"h200": "nvidia.com/gpu", "h200-1g": "nvidia.com/mig-1g.18gb"}) == want


# -- beyond the lease ---------------------------------------------------------------------------------------------------

Hook = Callable[[dict[str, Any]], object]


def notebook(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["containers"][0]
    return found


def sizes(spec: dict[str, Any], **quantities: str | None) -> None:
    """Set or take out limits and requests of the notebook's container."""
    for name, quantity in quantities.items():
        resource = {"gpu": "nvidia.com/gpu", "slice": "nvidia.com/mig-1g.18gb"}.get(name, name)
        for field in ("limits", "requests"):
            notebook(spec)["resources"][field].pop(resource, None)
            if quantity is not None:
                notebook(spec)["resources"][field][resource] = quantity


def another(**more: Any) -> dict[str, Any]:
    return {
        "name": "other",
        "resources": {"limits": {"cpu": "0", "memory": "0", **more.pop("limits", {})}},
        **more,
    }


ONE_GPU = {"nvidia.com/gpu": "1"}
KEPT: dict[str, Hook] = {
    "nothing": lambda spec: None,
    "less CPU and memory": lambda spec: sizes(spec, cpu="100m", memory="256Mi"),
    "smaller requests than limits": lambda spec: notebook(spec)["resources"]["requests"].update(cpu="100m"),
    "another container within the same sum": lambda spec: (
        sizes(spec, cpu="15", memory="191Gi"),
        spec["containers"].append(another(limits={"cpu": "1", "memory": "1Gi"})),
    ),
    "an init container that is over before": lambda spec: spec.update(
        initContainers=[another(limits={"cpu": "16", "memory": "1Gi"})]
    ),
    "no devices by the runtime's variable": lambda spec: notebook(spec)["env"].append(
        {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
    ),
    "a node selector, a toleration and a volume": lambda spec: spec.update(
        nodeSelector={"disk": "fast"},
        tolerations=[{"operator": "Exists"}],
        volumes=[{"name": "more", "emptyDir": {}}],
    ),
    "limits of the pod as a whole": lambda spec: (
        notebook(spec)["resources"]["limits"].pop("memory"),
        notebook(spec)["resources"]["requests"].pop("memory"),
        spec.update(resources={"limits": {"memory": "192Gi"}}),
    ),
}
BEYOND: dict[str, tuple[Hook, str]] = {
    "one more GPU": (lambda spec: sizes(spec, gpu="2"), "it has 2 of gpu.h200, and the lease 1"),
    "no GPU, though one is paid for": (lambda spec: sizes(spec, gpu=None), "it has 0 of gpu.h200"),
    "a slice beside the GPU": (
        lambda spec: sizes(spec, slice="1"),
        "it has 1 of gpu.h200-1g, and the lease 0",
    ),
    "a slice in place of the GPU": (lambda spec: sizes(spec, gpu=None, slice="1"), "gpu.h200-1g"),
    "a GPU in another container": (
        lambda spec: spec["containers"].append(another(limits=ONE_GPU)),
        "it has 2 of gpu.h200",
    ),
    "a GPU in a container that starts before and stays": (
        lambda spec: spec.update(initContainers=[another(limits=ONE_GPU, restartPolicy="Always")]),
        "it has 2 of gpu.h200",
    ),
    "two GPUs while it starts": (
        lambda spec: spec.update(initContainers=[another(limits={"nvidia.com/gpu": "2"})]),
        "it has 2 of gpu.h200",
    ),
    "a GPU of a class that the policy does not name": (
        lambda spec: sizes(spec, **{"nvidia.com/mig-7g.141gb": "1"}),
        "it has nvidia.com/mig-7g.141gb, which no lease counts",
    ),
    "devices by a resource claim": (
        lambda spec: spec.update(resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "gpus"}]),
        "resource claims",
    ),
    "all GPUs by the runtime's variable": (
        lambda spec: notebook(spec)["env"].append({"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}),
        "names GPUs by NVIDIA_VISIBLE_DEVICES",
    ),
    "GPUs by the runtime's variable from elsewhere": (
        lambda spec: notebook(spec)["env"].append(
            {"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "y"}}}
        ),
        "names GPUs by NVIDIA_VISIBLE_DEVICES",
    ),
    "more CPU": (lambda spec: sizes(spec, cpu="16001m"), "it has 16001 of cpu, and the lease 16000"),
    "more memory": (lambda spec: sizes(spec, memory="193Gi"), "of memory"),
    "more memory in requests alone": (
        lambda spec: notebook(spec)["resources"]["requests"].update(memory="1Ti"),
        "of memory",
    ),
    "more memory with another container": (
        lambda spec: spec["containers"].append(another(limits={"memory": "1Mi"})),
        "of memory",
    ),
    "more memory of the pod as a whole": (
        lambda spec: spec.update(resources={"limits": {"memory": "193Gi"}}),
        "of memory",
    ),
    "no limit of memory": (lambda spec: sizes(spec, memory=None), "notebook has no limit of memory"),
    "another container without limits": (
        lambda spec: spec["containers"].append({"name": "other"}),
        "other has no limit of cpu",
    ),
    "a size that is none": (lambda spec: sizes(spec, cpu="lots"), "its sizes cannot be read"),
    "the node's network": (lambda spec: spec.update(hostNetwork=True), "shares the node's hostNetwork"),
    "the node's processes": (lambda spec: spec.update(hostPID=True), "shares the node's hostPID"),
    "the node's memory": (lambda spec: spec.update(hostIPC=True), "shares the node's hostIPC"),
    "a folder of the node": (
        lambda spec: spec["volumes"].append({"name": "dev", "hostPath": {"path": "/dev"}}),
        "its volume dev is a folder of the node",
    ),
    "a token by default": (lambda spec: spec.pop("automountServiceAccountToken"), "a token for the cluster"),
    "a token": (lambda spec: spec.update(automountServiceAccountToken=True), "a token for the cluster"),
    "a token by a volume": (
        lambda spec: spec["volumes"].append(
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
        ),
        "a token for the cluster",
    ),
    "privilege": (
        lambda spec: notebook(spec).update(securityContext={"privileged": True}),
        "notebook is privileged",
    ),
    "privilege by a setuid program": (
        lambda spec: notebook(spec).update(securityContext={"allowPrivilegeEscalation": True}),
        "notebook is privileged",
    ),
    "privilege before it starts": (
        lambda spec: spec.update(initContainers=[another(securityContext={"privileged": True})]),
        "other is privileged",
    ),
}


@pytest.mark.parametrize("hook", KEPT.values(), ids=KEPT)
def test_a_pod_that_keeps_to_its_lease_is_made(hook: Hook) -> None:
    changed = pod()
    hook(changed["spec"])
    assert complaints(changed, LEASE, POLICY, LABELS) == []


@pytest.mark.parametrize(("hook", "want"), BEYOND.values(), ids=BEYOND)
def test_a_pod_that_goes_beyond_its_lease_is_not(hook: Hook, want: str) -> None:
    changed = pod()
    hook(changed["spec"])
    assert want in "; ".join(complaints(changed, LEASE, POLICY, LABELS))


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("value", ["forged", None], ids=["another", "none"])
def test_a_pod_with_another_label_than_its_leases_is_not_made(label: str, value: str | None) -> None:
    changed = pod()
    changed["metadata"]["labels"] |= {label: value} if value else {}
    if value is None:
        del changed["metadata"]["labels"][label]
    assert complaints(changed, LEASE, POLICY, LABELS) == [f"the label {label} is not {LABELS[label]!r}"]


def test_a_server_without_gpus_gets_none() -> None:
    assert complaints(pod(SMALL), SMALL, POLICY, LABELS) == []
    changed = pod(SMALL)
    sizes(changed["spec"], gpu="1")
    assert complaints(changed, SMALL, POLICY, LABELS) == ["it has 1 of gpu.h200, and the lease 0"]


def test_all_complaints_are_told_at_once() -> None:
    changed = pod()
    for hook, _ in (BEYOND["more CPU"], BEYOND["a folder of the node"], BEYOND["one more GPU"]):
        hook(changed["spec"])
    assert len(complaints(changed, LEASE, POLICY, LABELS)) == 3


@pytest.mark.parametrize("part", ["metadata", "spec"])
def test_a_pod_without_its_parts_is_refused_in_words(part: str) -> None:
    assert complaints({**pod(), part: None}, LEASE, POLICY, LABELS)


def test_looking_changes_nothing() -> None:
    given = pod()
    before = deepcopy(given)
    complaints(given, LEASE, POLICY, LABELS)
    assert given == before
