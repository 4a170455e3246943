"""Whole pods and the secret of a cluster, compared with golden files; and what must hold whatever those say."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub_ext.clusters.manifests import (
    CLUSTER,
    ClusterPlan,
    ClusterSite,
    Owner,
    scheduler_pod,
    secret,
    worker_pod,
)
from hub_ext.clusters.model import ClusterProfile
from hub_ext.core.errors import BadInput
from hub_ext.kube.leased import labels_of
from hub_ext.kube.pods import facts_of, lease_of
from hub_ext.kube.site import Nodes, PodRules
from hub_ext.quota.document import mapping_document, policy_of
from hub_ext.quota.model import SCHEDULER, WORKER, Lease
from hub_ext.spawners.manifests import complaints
from tests.clusters.examples import CPU, GPU, SLICE

GOLDEN = Path(__file__).parents[1] / "data" / "clusters"
POLICY = policy_of(
    mapping_document(
        {
            "version": 1,
            "timezone": "Asia/Seoul",
            "gpu_classes": {
                "h200": {"resource": "nvidia.com/gpu", "hours": "1"},
                "h200-1g": {"resource": "nvidia.com/mig-1g.18gb", "hours": "0.143"},
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
CLUSTER_NAME = "0123456789abcdef0123456789abcdef"
WORKER_NAME = "fedcba9876543210fedcba9876543210"
PERSON = "kim-hangang-example---b7922c41"
ADDRESS = "tls://10.1.2.3:8786"
OWNER = Owner(f"dask-scheduler-{CLUSTER_NAME}", "6f1c1f0e-0000-4000-8000-0123456789ab")
FOR_GPUS = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
RULES = PodRules(
    image="hangang/notebook:dev",
    gpu_resources={name: gpu.resource for name, gpu in POLICY.gpu_classes.items()},
    gpu_nodes={"h200-1g": Nodes({"example.com/gpu": "h200-slices"}, [FOR_GPUS])},
    disk=30720,
)
SITE = ClusterSite(
    namespace="hangang-users",
    rules=RULES,
    api_url="http://gateway.hangang-system.svc:8000/api",
    home=True,
    shared_claim="city-data",
    priority_class="hangang-servers",
    image_pull_secrets=["registry"],
)
TRIED_OUT = ClusterSite(
    namespace="hangang-users",
    rules=replace(RULES, requests={"cpu": 100, "memory": 256}, disk=None),
    api_url=SITE.api_url,
    scratch=None,
)
FACTS = {"person": "kim@hangang.example", "kind": "dask-worker", "pool": "hangang-univ"}


def plan(profile: ClusterProfile, **environment: str) -> ClusterPlan:
    return ClusterPlan(CLUSTER_NAME, PERSON, profile, "hangang/notebook-rapids:26.10", environment)


def lease(profile: ClusterProfile, kind: str) -> Lease:
    return Lease(
        id=CLUSTER_NAME if kind == SCHEDULER else "aaaabbbbccccddddaaaabbbbccccdddd.3",
        person="kim@hangang.example",
        pool="hangang-univ",
        path=("hangang-univ", "universities", "seoul"),
        amounts=profile.scheduler if kind == SCHEDULER else profile.worker,
        kind=kind,
        guaranteed=True,
        lender=None,
        cost=0,
        booked_at=1_803_945_600,
        ends_at=1_803_949_200,
        charged_until=1_803_945_600,
        server=CLUSTER_NAME,
    )


def the_scheduler(
    site: ClusterSite = SITE, profile: ClusterProfile = CPU, **environment: str
) -> dict[str, Any]:
    return scheduler_pod(site, plan(profile, **environment), lease(profile, SCHEDULER), POLICY, FACTS)


def a_worker(site: ClusterSite = SITE, profile: ClusterProfile = CPU, **environment: str) -> dict[str, Any]:
    return worker_pod(
        site,
        plan(profile, **environment),
        lease(profile, WORKER),
        POLICY,
        FACTS,
        name=WORKER_NAME,
        scheduler_address=ADDRESS,
        owner=OWNER,
    )


CASES: dict[str, dict[str, Any]] = {
    "scheduler-slice": the_scheduler(SITE, SLICE, LANG="ko_KR.UTF-8"),
    "worker-slice": a_worker(SITE, SLICE, LANG="ko_KR.UTF-8"),
    "worker-cpu-tried-out": a_worker(TRIED_OUT, CPU),
    "secret": secret(SITE, plan(CPU), certificate="CERT", key="KEY", token="TOKEN", owner=OWNER),
}
PODS = {
    f"{kind} of {profile.slug} in {where}": (made(site, profile), lease(profile, held))
    for kind, made, held in (("scheduler", the_scheduler, SCHEDULER), ("worker", a_worker, WORKER))
    for profile in (CPU, SLICE, GPU)
    for where, site in (("production", SITE), ("trial", TRIED_OUT))
}


@pytest.mark.parametrize(("name", "found"), CASES.items(), ids=CASES)
def test_the_whole_object(name: str, found: dict[str, Any], rewrite_golden: bool) -> None:
    path = GOLDEN / f"{name}.yaml"
    if rewrite_golden:
        path.write_text(yaml.safe_dump(found, allow_unicode=True, width=200), encoding="utf-8")
    assert found == yaml.safe_load(path.read_text(encoding="utf-8"))


# -- what must hold whatever the golden files say -----------------------------------------------------------------


@pytest.mark.parametrize(("pod", "held"), PODS.values(), ids=PODS)
def test_a_pod_keeps_to_its_lease_as_a_servers_does(pod: dict[str, Any], held: Lease) -> None:
    assert complaints(pod, held, POLICY, labels_of(held, POLICY, PERSON)) == []
    assert lease_of(pod) == held.id
    assert facts_of(pod) == FACTS
    assert pod["metadata"]["labels"][CLUSTER] == CLUSTER_NAME


@pytest.mark.parametrize(("pod", "held"), PODS.values(), ids=PODS)
def test_a_pod_is_restricted(pod: dict[str, Any], held: Lease) -> None:
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in spec
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container["securityContext"]
    assert security["runAsNonRoot"] is spec["securityContext"]["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["allowPrivilegeEscalation"] is False
    assert not any("hostPath" in volume for volume in spec["volumes"])
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}


@pytest.mark.parametrize(("pod", "held"), PODS.values(), ids=PODS)
def test_names_are_ones_that_kubernetes_takes(pod: dict[str, Any], held: Lease) -> None:
    assert len(pod["metadata"]["name"]) <= 63
    assert all(len(value) <= 63 for value in pod["metadata"]["labels"].values())


def test_only_the_scheduler_sees_the_token() -> None:
    def keys(pod: dict[str, Any]) -> set[str]:
        (volume,) = (one for one in pod["spec"]["volumes"] if one["name"] == "credentials")
        return {item["key"] for item in volume["secret"]["items"]}

    assert keys(the_scheduler()) == {"dask.crt", "dask.pem", "api-token"}
    assert keys(a_worker()) == {"dask.crt", "dask.pem"}
    assert "TOKEN" not in str(the_scheduler()).replace("API_TOKEN", "")


def test_with_the_schedulers_pod_all_the_rest_goes() -> None:
    for thing in (a_worker(), CASES["secret"]):
        assert thing["metadata"]["ownerReferences"] == [
            {"apiVersion": "v1", "kind": "Pod", "name": the_scheduler()["metadata"]["name"], "uid": OWNER.uid}
        ]
    assert "ownerReferences" not in the_scheduler()["metadata"]


def test_a_home_that_one_node_alone_can_mount_is_left_out() -> None:
    for made in (the_scheduler, a_worker):
        with_home, without = (made(replace(SITE, home=home)) for home in (True, False))
        assert any(volume["name"] == "home" for volume in with_home["spec"]["volumes"])
        assert not any(volume["name"] == "home" for volume in without["spec"]["volumes"])


def test_a_worker_is_not_made_for_an_address_that_is_none() -> None:
    with pytest.raises(BadInput):
        worker_pod(
            SITE,
            plan(CPU),
            lease(CPU, WORKER),
            POLICY,
            FACTS,
            name=WORKER_NAME,
            scheduler_address="--preload=evil",
            owner=OWNER,
        )


@pytest.mark.parametrize(
    ("told", "want"),
    [
        pytest.param({"NVIDIA_VISIBLE_DEVICES": "MIG-41b3359c"}, "MIG-41b3359c", id="a slice"),
        pytest.param({"NVIDIA_VISIBLE_DEVICES": "GPU-84fd49f2"}, "GPU-84fd49f2", id="a whole GPU"),
        pytest.param({"NVIDIA_VISIBLE_DEVICES": "/var/run/nvidia-container-devices"}, "none", id="told in another way"),
        pytest.param({"NVIDIA_VISIBLE_DEVICES": "void"}, "none", id="by the container device interface"),
        pytest.param({}, "none", id="told nothing"),
        pytest.param({"NVIDIA_VISIBLE_DEVICES": "GPU-1; touch evil"}, "GPU-1; touch evil", id="never run as a command"),
    ],
)  # fmt: skip
def test_a_worker_in_a_pod_takes_the_device_that_the_plugin_names(
    told: dict[str, str], want: str, tmp_path: Path
) -> None:
    shell = a_worker(SITE, SLICE)["spec"]["containers"][0]["command"][:4]
    done = subprocess.run(
        [*shell, "sh", "-c", 'printf %s "${CUDA_VISIBLE_DEVICES-none}"'],
        env={"PATH": os.environ["PATH"], **told},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == want
    assert list(tmp_path.iterdir()) == []
