"""`make deploy` done again, and what a change restarts and what not, on the hub that it brought into the cluster."""

from __future__ import annotations

import json

import pytest

from deploy.deploy import renew_policy
from tests.support.cluster import Cluster
from tests.support.deployed import SYSTEM, USERS, DeployedHub
from tests.support.hub import wait_for
from tests.support.manifests import built, built_text, of_kind, only

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def hub(cluster: Cluster) -> DeployedHub:
    deployed = DeployedHub(cluster)
    deployed.deploy()
    return deployed


def running(cluster: Cluster) -> dict[str, int]:
    """The pods of the centre, and how often their containers were started again."""
    return {
        pod["metadata"]["uid"]: sum(one["restartCount"] for one in pod["status"]["containerStatuses"])
        for pod in cluster.list("pods", SYSTEM)
    }


def secrets(cluster: Cluster) -> dict[str, object]:
    return {one["metadata"]["name"]: one["data"] for one in cluster.list("secrets", SYSTEM)}


def test_done_again_it_restarts_nothing_and_keeps_the_secrets(hub: DeployedHub, cluster: Cluster) -> None:
    before, kept = running(cluster), secrets(cluster)
    assert {"hub", "postgres"} <= kept.keys()
    hub.deploy()
    assert running(cluster) == before
    assert secrets(cluster) == kept
    assert "Hangang Hub is ready" in hub.said
    assert "student" in hub.said
    assert hub.password in hub.said


def test_rights_that_are_no_more_given_are_taken_away(hub: DeployedHub, cluster: Cluster) -> None:
    left = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {
            "name": "of-an-earlier-version",
            "labels": {"app.kubernetes.io/part-of": "hangang-hub"},
        },
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}],
    }
    cluster.apply(left, namespace=USERS)
    hub.deploy()
    assert cluster.get("role", "of-an-earlier-version", USERS) is None
    assert "removed Role of-an-earlier-version" in hub.said
    assert cluster.get("role", "hub", USERS) is not None


def own_quota(hub: DeployedHub) -> int:
    """The milli-GPUs of the vision lab, by the policy in force."""
    pools = json.loads(hub.command("pools", "--json"))
    return int(pools["hangang-vision"]["resources"]["gpu.h200"]["nominal"])


def test_a_changed_policy_counts_soon_and_restarts_nothing(hub: DeployedHub, cluster: Cluster) -> None:
    before = running(cluster)
    policy = only(built("local"), "ConfigMap", "hub-policy")
    text = policy["data"]["pools.yaml"]
    assert own_quota(hub) == 2000
    start = text.index("  hangang-vision:")
    changed = text[:start] + text[start:].replace("gpu.h200: {nominal: 2}", "gpu.h200: {nominal: 1}", 1)
    assert changed != text
    try:
        cluster.apply({**policy, "data": {"pools.yaml": changed}}, namespace=SYSTEM)
        renew_policy(cluster.kubectl, "changed")
        wait_for(lambda: own_quota(hub) == 1000, "the changed policy is in force", 120, every=1)
    finally:
        hub.deploy()
    wait_for(lambda: own_quota(hub) == 2000, "the project's policy is in force again", 120, every=1)
    assert running(cluster) == before


def test_the_api_server_takes_every_object_of_a_centres_own_cluster(
    hub: DeployedHub, cluster: Cluster
) -> None:
    said = cluster.kubectl("apply", "--dry-run=server", "--filename=-", given=built_text("production"))
    assert len(said.splitlines()) == len(built("production"))
    assert "ingress.networking.k8s.io/hub" in said


def test_nothing_in_the_walls_expressions_is_in_doubt(hub: DeployedHub, cluster: Cluster) -> None:
    """The API server checks their types; a warning there is a rule that may fail when it is needed."""
    for policy in of_kind(built("local"), "ValidatingAdmissionPolicy"):
        name = policy["metadata"]["name"]

        def checked(name: str = name) -> object:
            found = cluster.get("validatingadmissionpolicy", name)
            status = (found or {}).get("status", {})
            return "typeChecking" in status and (found, status)

        found, status = wait_for(checked, f"the types of {name} are checked")
        assert status["observedGeneration"] == found["metadata"]["generation"]
        assert status["typeChecking"] == {}
