"""Things that break while many people start: nothing is lost, and every lease stays one to one with a pod.

Servers are pods on pretended nodes, ready three seconds after they got theirs; hub, proxy, desk and control plane are
real.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.support.browser import chromium, needs_chromium, screenshot_path
from tests.support.cluster import Cluster
from tests.support.crowd import POLICY, PRETENDED, Crowd, crowd
from tests.support.hub import PASSWORD, wait_for
from tests.support.kube_hub import GATEWAY
from tests.support.manifests import Object
from tests.support.storm import storm

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PEOPLE = 100
AWAY_SECONDS = 90


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[list[str]]:
    with cluster.pretended_nodes(8, "--gpus", "16") as names:
        cluster.program("pretended-pods", "--ready-after", "3", "--address", GATEWAY)
        try:
            yield list(names)
        finally:
            cluster.program("pretended-pods")


@pytest.fixture(scope="module")
def shared(cluster: Cluster, nodes: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    with (
        cluster.namespace(**{"pod-security.kubernetes.io/enforce": "restricted"}) as namespace,
        crowd(tmp_path_factory.mktemp("crowd"), cluster, namespace, PEOPLE) as people,
    ):
        yield people


@pytest.fixture
def people(shared: Crowd) -> Iterator[Crowd]:
    """A hub without servers."""
    yield shared
    shared.stop_all()


def kill_hub(people: Crowd) -> None:
    before = people.hub.child("hub").pid
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: people.hub.child("hub").pid != before, "the hub is started again")


def booked(people: Crowd) -> int:
    """Live leases, as the database has them."""
    return len(people.hub.leases())


def uids(people: Crowd) -> set[str]:
    return {pod["metadata"]["uid"] for pod in people.hub.pods()}


@pytest.mark.parametrize("when", ["in the middle of booking", "with pods that wait to be ready"])
def test_a_hub_that_is_killed_while_a_hundred_start_leaves_nobody_without_a_server(
    people: Crowd, when: str
) -> None:
    with people.starting():
        enough = 20 if when == "in the middle of booking" else PEOPLE
        wait_for(lambda: booked(people) >= enough, "starts are under way", 60, 0.05)
        kill_hub(people)
    # Nobody clicks again.
    people.wait_until_ready(people.names)
    wait_for(people.one_to_one, "leases and pods are one to one", 30)
    assert len(people.hub.leases()) == PEOPLE


@pytest.mark.browser
@needs_chromium
def test_a_page_that_shows_the_progress_goes_to_the_server_though_the_hub_was_killed(
    people: Crowd, cluster: Cluster
) -> None:
    cluster.program("pretended-pods", "--ready-after", "30", "--address", GATEWAY)
    try:
        with chromium() as browser:
            page = browser.new_context(locale="ko-KR").new_page()
            page.goto(f"{people.hub.url}/hub/login?next=/hub/spawn")
            page.fill("input[name=username]", people.names[0])
            page.fill("input[name=password]", PASSWORD)
            page.press("input[name=password]", "Enter")
            page.wait_for_url("**/hub/spawn")
            page.locator("#card-gpu button[type=submit]").click()
            page.wait_for_url("**/hub/spawn-pending/**")
            expect(page.locator("#progress-log li").last).to_have_text("서버의 컨테이너를 만드는 중입니다")
            page.screenshot(path=screenshot_path("cluster-progress-ko"))
            before = uids(people)
            kill_hub(people)
            page.wait_for_url(f"**/user/{people.names[0]}/**", timeout=120_000)
            assert uids(people) == before, "it is the pod that was under way"
    finally:
        cluster.program("pretended-pods", "--ready-after", "3", "--address", GATEWAY)


def test_a_hub_that_starts_while_the_api_server_is_away_loses_nobody(people: Crowd, cluster: Cluster) -> None:
    names = people.names[:20]
    people.start_all(names)
    people.wait_until_ready(names)
    before = uids(people)
    with cluster.without("kube-apiserver"):
        kill_hub(people)
        wait_for(people.hub.answers, "the hub serves without the cluster", 60)
    people.wait_until_ready(names)
    assert uids(people) == before, "the same pods still run"
    wait_for(people.one_to_one, "leases and pods are one to one", 30)


def test_an_api_server_that_is_away_for_long_costs_nobody_a_server_or_a_start(
    people: Crowd, cluster: Cluster
) -> None:
    running, waiting = people.names[:20], people.names[20:50]
    people.start_all(running)
    people.wait_until_ready(running)
    before = uids(people)
    with people.starting(waiting), cluster.without("kube-apiserver"):
        back = time.monotonic() + AWAY_SECONDS
        while time.monotonic() < back:
            # Whoever has a server keeps it, whatever the hub cannot see.
            assert set(running) <= people.ready()
            time.sleep(1)
    people.wait_until_ready([*running, *waiting])
    assert before <= uids(people)
    wait_for(people.one_to_one, "leases and pods are one to one", 60)


def test_a_node_that_is_taken_away_ends_its_servers_and_says_so(
    people: Crowd, cluster: Cluster, nodes: list[str]
) -> None:
    names = people.names[:40]
    people.start_all(names)
    people.wait_until_ready(names)
    where = {
        pod["metadata"]["labels"]["hangang-hub/lease"]: pod["spec"]["nodeName"] for pod in people.hub.pods()
    }
    lost = min(set(where.values()))
    node = cluster.get("node", lost)
    assert node is not None
    try:
        cluster.delete("node", lost)
        wait_for(
            lambda: booked(people) == sum(1 for one in where.values() if one != lost),
            "its leases are over",
            180,
        )
        wait_for(people.one_to_one, "leases and pods are one to one", 60)
        reasons = {
            lease["id"]: lease["reason"]
            for lease in people.hub.all_leases()
            if where.get(lease["id"]) == lost
        }
        assert set(reasons.values()) == {"node-lost"}
    finally:
        put_back(cluster, node)


def put_back(cluster: Cluster, node: Object) -> None:
    meta = node["metadata"]
    kept = {"name": meta["name"], "labels": meta["labels"], "annotations": meta["annotations"]}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Node", "metadata": kept, "spec": {"taints": node["spec"]["taints"]}}
    )
    status = {"capacity": node["status"]["capacity"], "allocatable": node["status"]["allocatable"]}
    patch = json.dumps({"status": status})
    cluster.kubectl("patch", "node", meta["name"], "--subresource=status", "--type=merge", f"--patch={patch}")


def test_a_policy_that_is_edited_under_load_is_one_policy_at_a_time(people: Crowd) -> None:
    path = people.hub.folder / "pools.yaml"
    with people.starting():
        for gpus in (120, 150, 130, PEOPLE):
            path.write_text(POLICY % {"starts": 1000, "gpus": gpus})
            wait_for(lambda: f"nominal: {gpus}" in in_force(people), "the clock has put it in force", 60)  # noqa: B023
    people.wait_until_ready(people.names)
    wait_for(people.one_to_one, "leases and pods are one to one", 30)


def in_force(people: Crowd) -> str:
    from sqlalchemy import create_engine, text

    engine = create_engine(f"sqlite:///{people.hub.state / 'ledger.sqlite'}")
    with engine.connect() as connection:
        found = connection.execute(text("SELECT text FROM policies ORDER BY id DESC LIMIT 1")).scalar()
    engine.dispose()
    return str(found)


def test_pods_that_somebody_made_by_hand(people: Crowd, cluster: Cluster) -> None:
    namespace = people.hub.namespace
    stranger = by_hand("stranger", {})
    forged = by_hand("forged", {"component": "singleuser-server", "hangang-hub/lease": "f" * 32})
    cluster.apply(stranger, forged, namespace=namespace)
    # One that claims a lease that nobody booked ends; one that claims nothing is not ours to end.
    wait_for(lambda: cluster.get("pod", "forged", namespace) is None, "the forged one is ended", 60)
    assert cluster.get("pod", "stranger", namespace) is not None
    assert people.hub.leases() == []
    assert "stranger" in people.hub.log("desk"), "operators are told"
    cluster.delete("pod", "stranger", namespace)


def by_hand(name: str, labels: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "tolerations": [PRETENDED],
            "nodeSelector": {"type": "kwok"},
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "notebook",
                    "image": "hangang/pause:dev",
                    "resources": {"limits": {"nvidia.com/gpu": "1"}},
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }


def test_a_storm_of_failures_of_the_api_server_costs_nobody_a_start(
    cluster: Cluster, nodes: list[str], tmp_path: Path
) -> None:
    with (
        cluster.namespace(**{"pod-security.kubernetes.io/enforce": "restricted"}) as namespace,
        storm(tmp_path, cluster.kubeconfig) as weather,
        crowd(
            tmp_path, cluster, namespace, 40, environment={"KUBECONFIG": str(weather.kubeconfig)}
        ) as people,
    ):
        weather.share = 0.4
        people.start_all()
        people.wait_until_ready(people.names)
        weather.share = 0.0
        assert {status for method, status in weather.failed if method == "POST"} == {409, 429, 500}
        wait_for(people.one_to_one, "leases and pods are one to one", 30)
        assert len(people.hub.leases()) == len(people.names)
        weather.share = 0.4
        people.stop_all()
