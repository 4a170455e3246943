"""What the overlays bring into a cluster: each compared whole with its golden file, and what must hold whatever is in it."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub_ext.factory import load_documents
from hub_ext.settings import load_settings
from tests.support.manifests import OVERLAY_NAMES, OVERLAYS, ROOT, Object, built, of_kind, only

GOLDEN = ROOT / "tests" / "data" / "deploy"
DOCUMENTS = ("hub-settings", "hub-policy", "hub-identity", "hub-profiles", "hub-clusters")
EXAMPLES = ("hub-policy", "hub-identity", "hub-profiles", "hub-clusters")
"""ConfigMaps that hold the project's own examples, which change for reasons of their own."""

overlays = pytest.mark.parametrize("overlay", OVERLAY_NAMES)


@overlays
def test_an_overlay_is_as_its_golden_file_says(overlay: str, rewrite_golden: bool) -> None:
    path = GOLDEN / f"{overlay}.yaml"
    found = yaml.safe_dump_all(without_examples(built(overlay)), sort_keys=False, width=110)
    if rewrite_golden:
        path.write_text(found)
    assert found == path.read_text(), f"if this is meant: pytest --rewrite-golden {Path(__file__).name}"


def without_examples(objects: list[Object]) -> list[Object]:
    """Hashes by one name, and of the project's examples only which files there are."""
    text = yaml.safe_dump_all(objects, sort_keys=False)
    text = re.sub(rf"\b({'|'.join(DOCUMENTS)})-[a-z0-9]{{10}}\b", r"\1-HASH", text)
    objects = list(yaml.safe_load_all(text))
    for one in of_kind(objects, "ConfigMap"):
        if document_of(one) in EXAMPLES:
            one["data"] = dict.fromkeys(one["data"], "(the project's example)")
    return objects


def document_of(config_map: Object) -> str:
    """Its name without the hash."""
    name = str(config_map["metadata"]["name"])
    return next(document for document in DOCUMENTS if name == document or name.startswith(f"{document}-"))


# -- pods ----------------------------------------------------------------------------------------------------------


def workloads(objects: list[Object]) -> list[tuple[str, Any]]:
    """The name and pod template's spec of all that runs pods."""
    found = of_kind(objects, "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicaSet", "Pod")
    return [(one["metadata"]["name"], one["spec"]["template"]["spec"]) for one in found]


def containers(spec: Object) -> list[Object]:
    return [*spec["containers"], *spec.get("initContainers", [])]


@overlays
def test_every_pod_is_of_somebody_without_rights_on_its_node(overlay: str) -> None:
    for name, spec in workloads(built(overlay)):
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] >= 1000, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, (name, container["name"])


@overlays
def test_every_container_says_what_it_needs(overlay: str) -> None:
    for name, spec in workloads(built(overlay)):
        for container in containers(spec):
            resources = container["resources"]
            assert set(resources["requests"]) == {"cpu", "memory"}, (name, container["name"])
            assert "memory" in resources["limits"], (name, container["name"])


@overlays
def test_only_hub_desk_and_gateway_hold_a_token_of_the_api_server(overlay: str) -> None:
    holders = {
        name
        for name, spec in workloads(built(overlay))
        if spec.get("automountServiceAccountToken", True)
        and spec.get("serviceAccountName", "default") != "default"
    }
    without = {
        name for name, spec in workloads(built(overlay)) if spec.get("automountServiceAccountToken") is False
    }
    assert holders == {"hub", "desk", "gateway"}
    assert holders | without == {name for name, _ in workloads(built(overlay))}


@overlays
def test_no_variable_of_a_service_is_taken_for_a_setting(overlay: str) -> None:
    """The service named `hub` would set HUB_PORT=tcp://… in every pod beside it."""
    for name, spec in workloads(built(overlay)):
        assert spec["enableServiceLinks"] is False, name


@overlays
def test_hub_proxy_and_gateway_never_run_twice(overlay: str) -> None:
    for name in ("hub", "proxy", "gateway"):
        spec = only(built(overlay), "Deployment", name)["spec"]
        assert spec["replicas"] == 1
        assert spec["strategy"] == {"type": "Recreate"}


# -- documents -----------------------------------------------------------------------------------------------------


@overlays
def test_a_changed_policy_restarts_nothing_and_other_documents_do(overlay: str) -> None:
    maps = {document_of(one): one["metadata"]["name"] for one in of_kind(built(overlay), "ConfigMap")}
    assert set(maps) == set(DOCUMENTS)
    assert maps["hub-policy"] == "hub-policy"
    for document in set(DOCUMENTS) - {"hub-policy"}:
        assert re.fullmatch(rf"{document}-[a-z0-9]{{10}}", maps[document])
    for name, spec in workloads(built(overlay)):
        if name in ("hub", "desk", "gateway"):
            mounted = {volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume}
            assert mounted == set(maps.values()), name


@overlays
@pytest.mark.parametrize(
    ("document", "folder"), [("hub-profiles", "spawner_profiles"), ("hub-clusters", "cluster_profiles")]
)
def test_every_profile_of_the_project_is_there(overlay: str, document: str, folder: str) -> None:
    [profiles] = [one for one in of_kind(built(overlay), "ConfigMap") if document_of(one) == document]
    want = {path.name: path.read_text() for path in (ROOT / folder).glob("*.yaml")}
    assert profiles["data"] == want


@overlays
def test_every_profile_of_clusters_of_the_project_is_there(overlay: str) -> None:
    [profiles] = [one for one in of_kind(built(overlay), "ConfigMap") if document_of(one) == "hub-clusters"]
    want = {path.name: path.read_text() for path in (ROOT / "cluster_profiles").glob("*.yaml")}
    assert profiles["data"] == want


@overlays
def test_the_hub_understands_its_settings_and_documents(overlay: str, tmp_path: Path) -> None:
    """Laid out as the pods mount them."""
    mounts = {
        "hub-settings": ".",
        "hub-policy": "policy",
        "hub-identity": "identity",
        "hub-profiles": "spawner_profiles",
        "hub-clusters": "cluster_profiles",
    }
    for one in of_kind(built(overlay), "ConfigMap"):
        folder = tmp_path / mounts[document_of(one)]
        folder.mkdir(exist_ok=True)
        for name, text in one["data"].items():
            (folder / name).write_text(text)
    settings = load_settings(tmp_path / "hub.yaml", environment={})
    assert settings.run_on == "kubernetes"
    assert settings.kubernetes.namespace == "hangang-users"
    documents = load_documents(settings)
    assert documents.catalogue
    assert documents.clusters
    assert set(settings.kubernetes.gpu_nodes) <= set(documents.policy.gpu_classes)
    # A simulated size is for a trial: nobody's real centre.
    assert settings.simulated == (overlay == "local")


@overlays
def test_mounts_are_where_the_settings_look(overlay: str) -> None:
    settings = yaml.safe_load((OVERLAYS / overlay / "hub.yaml").read_text())
    named = {
        settings["policy"].split("/")[0],
        settings["identity"].split("/")[0],
        settings["profiles"],
        settings["cluster_profiles"],
        settings["secrets_file"].split("/")[0],
    }
    for name, spec in workloads(built(overlay)):
        if name in ("hub", "desk", "gateway"):
            for container in containers(spec):
                paths = {mount["mountPath"] for mount in container["volumeMounts"]}
                assert {f"/etc/hangang/{folder}" for folder in named} <= paths
                assert "/etc/hangang/hub.yaml" in paths


@overlays
def test_no_secret_is_in_a_file(overlay: str) -> None:
    assert of_kind(built(overlay), "Secret") == []
    for name, spec in workloads(built(overlay)):
        for container in containers(spec):
            for variable in container.get("env", []):
                if re.search(r"TOKEN|SECRET|DATABASE_URL|PASSWORD(?!_FILE)", variable["name"]):
                    assert set(variable) == {"name", "valueFrom"}, (name, variable["name"])


def test_production_has_the_sites_values_in_every_place() -> None:
    text = yaml.safe_dump_all(built("production"))
    lines = (OVERLAYS / "production" / "site.env").read_text().splitlines()
    site = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    for name, value in site.items():
        assert not re.search(rf"(^|[\s/]){name}\b", text), name
        assert value in text, name
    assert "hangang/hub:dev" not in text
    assert "hangang/proxy:dev" not in text
    assert "local-config" not in text


# -- services ------------------------------------------------------------------------------------------------------


@overlays
def test_each_service_finds_the_pods_it_is_named_for(overlay: str) -> None:
    want = {
        ("hub", 8081, "hub"),
        ("desk", 8085, "desk"),
        ("proxy-api", 8001, "proxy"),
        ("proxy-public", 80, "proxy"),
        ("gateway", 8000, "gateway"),
        ("dask-proxy", 8001, "dask-proxy"),
        ("dask-proxy", 8786, "dask-proxy"),
    }
    if overlay == "local":
        want.add(("postgres", 5432, "postgres"))
    found = set()
    for service in of_kind(built(overlay), "Service"):
        for one in of_kind(built(overlay), "Deployment", "StatefulSet"):
            template = one["spec"]["template"]
            if service["spec"]["selector"].items() <= template["metadata"]["labels"].items():
                ports = {p["name"] for c in template["spec"]["containers"] for p in c.get("ports", [])}
                for port in service["spec"]["ports"]:
                    assert port["targetPort"] in ports
                    found.add((service["metadata"]["name"], port["port"], one["metadata"]["name"]))
    assert found == want


# -- rights --------------------------------------------------------------------------------------------------------


@overlays
def test_rights_are_listed_one_by_one_and_none_reads_secrets_or_enters_pods(overlay: str) -> None:
    granted = [
        (resource, verb)
        for role in of_kind(built(overlay), "Role", "ClusterRole")
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]
    assert {resource for resource, _ in granted} == {
        "pods",
        "persistentvolumeclaims",
        "events",
        "nodes",
        "secrets",
    }
    # The gateway makes a cluster's certificate known to the cluster's own pods.
    assert {verb for resource, verb in granted if resource == "secrets"} == {"create", "delete"}
    assert {verb for _, verb in granted} <= {"get", "list", "watch", "create", "delete"}
    assert ("persistentvolumeclaims", "delete") not in granted


@overlays
def test_rights_over_pods_end_at_the_namespace_of_people(overlay: str) -> None:
    for role in of_kind(built(overlay), "Role", "RoleBinding"):
        assert role["metadata"]["namespace"] == "hangang-users"
    # Beyond it there is only the desk's look at what takes room on the nodes.
    (inventory,) = of_kind(built(overlay), "ClusterRole")
    assert inventory["rules"] == [
        {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "list", "watch"]}
    ]
    (binding,) = of_kind(built(overlay), "ClusterRoleBinding")
    assert [subject["name"] for subject in binding["subjects"]] == ["desk"]


# -- the wall and the network --------------------------------------------------------------------------------------


@overlays
def test_both_namespaces_hold_pods_to_the_strictest_standard(overlay: str) -> None:
    for namespace in ("hangang-system", "hangang-users"):
        labels = only(built(overlay), "Namespace", namespace)["metadata"]["labels"]
        for mode in ("enforce", "warn", "audit"):
            assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"


@overlays
def test_the_wall_refuses_when_it_cannot_judge(overlay: str) -> None:
    policies = of_kind(built(overlay), "ValidatingAdmissionPolicy")
    bindings = of_kind(built(overlay), "ValidatingAdmissionPolicyBinding")
    assert {one["spec"]["failurePolicy"] for one in policies} == {"Fail"}
    assert {one["spec"]["policyName"] for one in bindings} == {one["metadata"]["name"] for one in policies}
    for one in bindings:
        assert one["spec"]["validationActions"] == ["Deny"]
        assert one["spec"]["matchResources"]["namespaceSelector"] == {
            "matchLabels": {"kubernetes.io/metadata.name": "hangang-users"}
        }
    for one in policies:
        for rule in one["spec"]["validations"]:
            assert rule["message"].endswith("."), "a refusal is a sentence"


@overlays
def test_nothing_comes_in_unless_a_policy_lets_it(overlay: str) -> None:
    for namespace in ("hangang-system", "hangang-users"):
        closed = [
            one
            for one in of_kind(built(overlay), "NetworkPolicy")
            if one["metadata"]["namespace"] == namespace
            and one["spec"]["podSelector"] == {}
            and "Ingress" in one["spec"]["policyTypes"]
            and not one["spec"].get("ingress")
        ]
        assert len(closed) == 1, namespace


@pytest.mark.parametrize(
    ("address", "want_open"),
    [
        pytest.param("169.254.169.254", False, id="where a cloud tells a machine its credentials"),
        pytest.param("10.96.0.1", False, id="the API server's service"),
        pytest.param("10.244.0.17", False, id="another pod"),
        pytest.param("192.168.1.10", False, id="a machine in the city's own network"),
        pytest.param("172.31.0.5", False, id="a node in a private network"),
        pytest.param("100.64.3.4", False, id="a carrier's private network"),
        pytest.param("fd00::1", False, id="a private address of version 6"),
        pytest.param("fe80::1", False, id="a neighbour of version 6"),
        pytest.param("93.184.215.14", True, id="a web server"),
        pytest.param("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True, id="a web server of version 6"),
    ],
)
def test_servers_reach_the_internet_and_nothing_private(address: str, want_open: bool) -> None:
    blocks = [
        to["ipBlock"]
        for one in of_kind(built("local"), "NetworkPolicy")
        if one["metadata"]["namespace"] == "hangang-users"
        for rule in one["spec"].get("egress", [])
        for to in rule["to"]
        if "ipBlock" in to
    ]
    asked = ipaddress.ip_address(address)

    def within(network: str) -> bool:
        return asked in ipaddress.ip_network(network)

    opened = any(
        within(block["cidr"]) and not any(within(one) for one in block["except"]) for block in blocks
    )
    assert opened == want_open


def test_the_database_of_a_trial_is_reached_by_hub_desk_and_gateway_only() -> None:
    policy = only(built("local"), "NetworkPolicy", "postgres")["spec"]
    [rule] = policy["ingress"]
    [peer] = rule["from"]
    assert peer["podSelector"]["matchExpressions"][0]["values"] == ["hub", "desk", "gateway"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy
