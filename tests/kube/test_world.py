"""The world of pods for the clock: what runs, why it ended, stopping it, and the nodes, from an API server that fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hub_ext.core.errors import HubError
from hub_ext.quota.model import Node
from hub_ext.quota.ports import Running
from hub_ext.spawners import cluster as module
from hub_ext.spawners.cluster import Cluster, ClusterUnseen
from tests.support.api_server import FakeApiServer
from tests.support.builders import a_policy
from tests.support.hub import wait_for

DATA = Path(__file__).parents[1] / "data" / "pods"
LEASE = "0123456789abcdef0123456789abcdef"
POLICY = a_policy({"centre": {"quota": {"gpu.h200": {"nominal": 8}}}})


def pod(name: str = "jupyter-kim", real: str = "running", lease: str = LEASE, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / f"{real}.json").read_text(encoding="utf-8"))
    found["metadata"] |= {"name": name, "uid": f"uid-of-{name}", **more}
    found["metadata"]["labels"] = {"hangang-hub/lease": lease} if lease else {}
    found["metadata"]["annotations"] = {"hangang-hub/lease": '{"person":"kim"}'}
    return found


def node(name: str = "n1", **allocatable: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "status": {
            "allocatable": {"cpu": "8", "memory": "1Gi", "example.com/h200": "8", **allocatable},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


@pytest.fixture
def make_world(
    api_server: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Cluster]]:
    # The client is led to the fake already.
    monkeypatch.setattr(module, "load_config", lambda: None)
    monkeypatch.setattr(module, "FIRST_LOOK_SECONDS", 2.0)
    made: list[Cluster] = []

    def make(**more: Any) -> Cluster:
        made.append(Cluster("hangang-users", **more))
        return made[-1]

    yield make
    for world in made:
        if world._loop is not None:
            asyncio.run_coroutine_threadsafe(_end(), world._loop).result(10)
            world._loop.call_soon_threadsafe(world._loop.stop)


async def _end() -> None:
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


# -- what runs --------------------------------------------------------------------------------------------------------


def test_what_runs_is_what_carries_our_label_in_our_namespace_and_is_not_over(
    api_server: FakeApiServer, make_world: Any
) -> None:
    api_server.put("pods", pod())
    api_server.put("pods", pod("placed-nowhere", "unschedulable", "2" * 32))
    api_server.put("pods", pod("leaving", "leaving", "3" * 32))
    api_server.put("pods", pod("over", "crashed", "4" * 32))
    api_server.put("pods", pod("not-ours", lease=""))
    api_server.put("pods", pod("elsewhere", lease="5" * 32, namespace="other"))
    running = {one.lease: one for one in make_world().running()}
    assert running.keys() == {LEASE, "2" * 32, "3" * 32}
    found = running[LEASE]
    assert found == Running(
        LEASE,
        "hangang-users/jupyter-kim@uid-of-jupyter-kim",
        found.started_at,
        True,
        "hangang-node",
        {"person": "kim"},
    )
    assert found.started_at is not None
    assert (running["2" * 32].started_at, running["2" * 32].node) == (None, None)


def test_pods_without_a_lease_among_ours_are_strangers(api_server: FakeApiServer, make_world: Any) -> None:
    api_server.put("pods", pod())
    api_server.put("pods", pod("made-by-hand", lease=""))
    api_server.put("pods", pod("over", "completed", ""))
    api_server.put("pods", pod("elsewhere", lease="", namespace="other"))
    assert make_world().strangers() == ["hangang-users/made-by-hand"]


def test_a_world_that_was_never_seen_is_not_empty(api_server: FakeApiServer, make_world: Any) -> None:
    with api_server.answering(503):
        world = make_world()
        for look in (world.running, lambda: world.nodes(POLICY)):
            with pytest.raises(ClusterUnseen, match="cannot be seen"):
                look()
    wait_for(lambda: _seen(world) is not None, "the world is seen", 10)
    assert _seen(world) == []


def test_a_world_that_is_out_of_sight_is_not_what_it_was(api_server: FakeApiServer, make_world: Any) -> None:
    api_server.put("pods", pod())
    world = make_world()
    assert len(world.running()) == 1
    with api_server.away():
        wait_for(lambda: _seen(world) is None, "the outage is noticed", 10)
        with pytest.raises(ClusterUnseen):
            world.nodes(POLICY)
        api_server.remove("pods", "jupyter-kim")
    wait_for(lambda: _seen(world) == [], "what it hid is found out", 10)
    assert world.ended() == {LEASE: "deleted"}


def _seen(world: Cluster) -> list[Running] | None:
    try:
        return world.running()
    except ClusterUnseen:
        return None


# -- why it ended -------------------------------------------------------------------------------------------------------


def test_reasons_are_told_of_pods_that_are_over_and_of_those_that_are_gone(
    api_server: FakeApiServer, make_world: Any
) -> None:
    api_server.put("pods", pod("over", "out-of-memory", "1" * 32))
    api_server.put("pods", pod("deleted", "running", "2" * 32))
    api_server.put("pods", pod("not-ours", "crashed", ""))
    api_server.put("pods", pod("elsewhere", "crashed", "3" * 32, namespace="other"))
    api_server.put("pods", pod("runs", "running", "4" * 32))
    world = make_world()
    assert world.ended() == {"1" * 32: "out-of-memory"}
    api_server.remove("pods", "deleted")
    wait_for(lambda: len(world.ended()) == 2, "the deletion is seen", 10)
    assert world.ended() == {"1" * 32: "out-of-memory", "2" * 32: "deleted"}


def test_what_a_pod_said_last_is_why_it_ended(api_server: FakeApiServer, make_world: Any) -> None:
    api_server.put("pods", pod())
    world = make_world()
    world.running()
    api_server.put("pods", pod(real="drained"))
    api_server.remove("pods", "jupyter-kim")
    wait_for(world.ended, "the end is seen", 10)
    assert world.ended() == {LEASE: "evicted"}


# -- stopping it ----------------------------------------------------------------------------------------------------------


def test_the_very_pod_is_stopped(api_server: FakeApiServer, make_world: Any) -> None:
    api_server.put("pods", pod())
    world = make_world()
    (running,) = world.running()
    world.stop(running)
    assert api_server.deleted == [("hangang-users", "jupyter-kim", "uid-of-jupyter-kim")]
    wait_for(lambda: world.running() == [], "it is gone", 10)


def test_another_pod_of_the_same_name_is_left_alone(api_server: FakeApiServer, make_world: Any) -> None:
    api_server.put("pods", pod())
    world = make_world()
    (running,) = world.running()
    api_server.remove("pods", "jupyter-kim")
    api_server.put("pods", pod(uid="of-the-next"))
    wait_for(lambda: [one.handle[-11:] for one in world.running()] == ["of-the-next"], "the next is seen", 10)
    world.stop(running)
    assert len(world.running()) == 1


def test_what_is_gone_already_is_stopped(api_server: FakeApiServer, make_world: Any) -> None:
    world = make_world()
    world.running()
    world.stop(Running(LEASE, "hangang-users/jupyter-kim@1", 0))
    assert api_server.deleted == [("hangang-users", "jupyter-kim", "1")]


def test_a_stop_that_is_refused_says_of_what(api_server: FakeApiServer, make_world: Any) -> None:
    world = make_world()
    world.running()
    api_server.delete_status = 403
    with pytest.raises(
        HubError, match="Pod hangang-users/jupyter-kim cannot be ended: the API server answers 403"
    ):
        world.stop(Running(LEASE, "hangang-users/jupyter-kim@1", 0))


def test_a_stop_without_an_answer_is_no_stop(api_server: FakeApiServer, make_world: Any) -> None:
    world = make_world()
    world.running()
    with api_server.away(), pytest.raises(ClusterUnseen, match="no answer"):
        world.stop(Running(LEASE, "hangang-users/jupyter-kim@1", 0))


# -- nodes ----------------------------------------------------------------------------------------------------------------


def test_nodes_are_the_policys_terms_less_what_others_take(
    api_server: FakeApiServer, make_world: Any
) -> None:
    foreign = pod("database", lease="", namespace="other")
    foreign["spec"] = {
        "nodeName": "n1",
        "containers": [{"name": "db", "resources": {"requests": {"cpu": "2"}}}],
    }
    api_server.put("pods", foreign)
    api_server.put("pods", pod())
    api_server.put("nodes", node())
    api_server.put("nodes", node("n2", cpu="4"))
    assert make_world().nodes(POLICY) == [
        Node("n1", {"cpu": 6000, "memory": 1024, "gpu.h200": 8000}),
        Node("n2", {"cpu": 4000, "memory": 1024, "gpu.h200": 8000}),
    ]


def test_nodes_that_our_pods_do_not_tolerate_are_not_counted(
    api_server: FakeApiServer, make_world: Any
) -> None:
    tainted = node() | {"spec": {"taints": [{"key": "gpus", "effect": "NoSchedule"}]}}
    api_server.put("nodes", tainted)
    assert make_world().nodes(POLICY) == []
    tolerant = make_world(tolerations=[{"key": "gpus", "operator": "Exists"}], instead={"cpu": 128_000})
    assert tolerant.nodes(POLICY) == [Node("n1", {"cpu": 128_000, "memory": 1024, "gpu.h200": 8000})]


def test_a_node_that_goes_is_gone_and_one_in_trouble_is_not_ready(
    api_server: FakeApiServer, make_world: Any
) -> None:
    api_server.put("nodes", node())
    api_server.put("nodes", node("n2"))
    world = make_world()
    assert [one.ready for one in world.nodes(POLICY)] == [True, True]
    silent = node("n2")
    silent["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
    api_server.put("nodes", silent)
    api_server.remove("nodes", "n1")
    wait_for(
        lambda: [(one.name, one.ready) for one in world.nodes(POLICY)] == [("n2", False)], "it is seen", 10
    )
