"""What nodes have for the leases: sizes, what is not ours on them, and which nodes take our pods at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.kube.nodes import Machine, machines
from hub_ext.kube.pods import LEASE

GIB = 1024
RESOURCES = {"nvidia.com/gpu": "gpu.h200", "nvidia.com/mig-1g.18gb": "gpu.h200-1g"}
FOR_GPUS = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def node(name: str = "n1", *, ready: str | None = "True", **more: Any) -> dict[str, Any]:
    allocatable = {"cpu": "8", "memory": "64Gi", "pods": "110"} | more.pop("allocatable", {})
    conditions = [{"type": "MemoryPressure", "status": "False"}]
    if ready is not None:
        conditions.append({"type": "Ready", "status": ready})
    return {
        "metadata": {"name": name},
        "spec": more,
        "status": {"allocatable": allocatable, "conditions": conditions},
    }


def pod(
    *containers: Mapping[str, Any], host: str | None = "n1", lease: str = "", **more: Any
) -> dict[str, Any]:
    """`containers` are their limits."""
    return {
        "metadata": {"labels": {LEASE: lease} if lease else {}},
        "spec": {
            "nodeName": host,
            "containers": [
                {"name": str(i), "resources": {"limits": one}} for i, one in enumerate(containers)
            ],
            **more.pop("spec", {}),
        },
        "status": {"phase": more.pop("phase", "Running")},
    }


def one(found: list[Machine]) -> Machine:
    (machine,) = found
    return machine


# -- which nodes ------------------------------------------------------------------------------------------------------

TAINTS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], bool]] = {
    "a taint that keeps pods away": ({"key": "nvidia.com/gpu", "effect": "NoSchedule"}, [], False),
    "one that ends them": ({"key": "only-us", "effect": "NoExecute"}, [], False),
    "one that is only a wish": ({"key": "busy", "effect": "PreferNoSchedule"}, [], True),
    "one that the toleration names": ({"key": "nvidia.com/gpu", "effect": "NoSchedule"}, [FOR_GPUS], True),
    "another effect than is tolerated": ({"key": "nvidia.com/gpu", "effect": "NoExecute"}, [FOR_GPUS], False),
    "any effect": (
        {"key": "nvidia.com/gpu", "effect": "NoExecute"},
        [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        True,
    ),
    "any key": ({"key": "whatever", "effect": "NoSchedule"}, [{"operator": "Exists"}], True),
    "the same value": (
        {"key": "pool", "value": "gpu", "effect": "NoSchedule"},
        [{"key": "pool", "value": "gpu"}],
        True,
    ),
    "another value": (
        {"key": "pool", "value": "gpu", "effect": "NoSchedule"},
        [{"key": "pool", "operator": "Equal", "value": "cpu"}],
        False,
    ),
    "no value on either side": (
        {"key": "pool", "effect": "NoSchedule"},
        [{"key": "pool", "operator": "Equal", "value": ""}],
        True,
    ),
    "the cluster's own word of a node in trouble": (
        {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
        [],
        True,
    ),
}


@pytest.mark.parametrize(("taint", "tolerations", "want"), TAINTS.values(), ids=TAINTS)
def test_a_node_counts_where_its_taints_are_tolerated(
    taint: dict[str, Any], tolerations: list[dict[str, Any]], want: bool
) -> None:
    found = machines([node(taints=[taint])], [], RESOURCES, tolerations)
    assert [machine.name for machine in found] == (["n1"] if want else [])


def test_a_node_that_only_pods_with_a_gpu_tolerate_is_for_them_alone() -> None:
    nodes = [node("gpus", taints=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]), node("plain")]
    found = machines(nodes, [], RESOURCES, gpu_tolerations=[FOR_GPUS])
    assert [(machine.name, machine.only_gpus) for machine in found] == [("gpus", True), ("plain", False)]


def test_a_lease_in_another_namespace_is_not_ours_and_takes_room() -> None:
    elsewhere = pod({"cpu": "2"}, lease="a" * 32)
    elsewhere["metadata"]["namespace"] = "elsewhere"
    ours = pod({"cpu": "2"}, lease="b" * 32)
    ours["metadata"]["namespace"] = "users"
    found = one(machines([node()], [elsewhere, ours], RESOURCES, namespace="users"))
    assert found.capacity["cpu"] == 6000


def test_every_taint_must_be_tolerated() -> None:
    taints = [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}, {"key": "other", "effect": "NoSchedule"}]
    assert machines([node(taints=taints)], [], RESOURCES, [FOR_GPUS]) == []


@pytest.mark.parametrize(
    ("given_node", "want"),
    [
        pytest.param(node(), True, id="it is ready"),
        pytest.param(node(unschedulable=True), False, id="it is cordoned"),
        pytest.param(node(ready="False"), False, id="its kubelet says it is not"),
        pytest.param(node(ready="Unknown"), False, id="its kubelet is silent"),
        pytest.param(node(ready=None), False, id="nobody has said yet"),
        pytest.param({"metadata": {"name": "n1"}}, False, id="it was registered a moment ago"),
    ],
)
def test_a_node_in_trouble_exists_and_takes_nothing_new(given_node: dict[str, Any], want: bool) -> None:
    assert one(machines([given_node], [], RESOURCES)).ready is want


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_sizes_are_the_allocatable_ones_in_base_units_by_the_quotas_names() -> None:
    both = {"nvidia.com/gpu": "7", "nvidia.com/mig-1g.18gb": "14", "nvidia.com/mig-2g.35gb": "3"}
    found = one(machines([node(allocatable={"cpu": "127500m", **both})], [], RESOURCES))
    assert found.capacity == {"cpu": 127500, "memory": 64 * GIB, "gpu.h200": 7000, "gpu.h200-1g": 14000}


def test_nodes_come_by_name() -> None:
    names = [machine.name for machine in machines([node("b"), node("a"), node("c")], [], RESOURCES)]
    assert names == ["a", "b", "c"]


ROOM: dict[str, tuple[dict[str, Any], int, int]] = {
    "what is not ours takes room": (pod({"cpu": "2", "nvidia.com/gpu": "3"}), 6000, 5000),
    "what is ours is in the ledger": (pod({"cpu": "2", "nvidia.com/gpu": "3"}, lease="1" * 32), 8000, 8000),
    "what has ended takes none": (pod({"cpu": "2", "nvidia.com/gpu": "3"}, phase="Succeeded"), 8000, 8000),
    "what has no node takes none": (pod({"cpu": "2", "nvidia.com/gpu": "3"}, host=None), 8000, 8000),
    "what is elsewhere takes none": (pod({"cpu": "2", "nvidia.com/gpu": "3"}, host="n2"), 8000, 8000),
    "its containers are summed": (pod({"nvidia.com/gpu": "1"}, {"nvidia.com/gpu": "2"}), 8000, 5000),
    "it takes more than there is": (pod({"cpu": "900", "nvidia.com/gpu": "900"}), 0, 0),
    "a quantity that is none is passed over": (pod({"cpu": "many", "nvidia.com/gpu": "1"}), 8000, 8000),
    "what it asks for counts before what it may use": (
        pod(
            {"cpu": "4"},
            spec={"containers": [{"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "4"}}}]},
        ),
        7000,
        8000,
    ),
}


@pytest.mark.parametrize(("given_pod", "cpu", "gpu"), ROOM.values(), ids=ROOM)
def test_other_pods_take_room(given_pod: dict[str, Any], cpu: int, gpu: int) -> None:
    found = one(machines([node(allocatable={"nvidia.com/gpu": "8"})], [given_pod], RESOURCES))
    assert (found.capacity["cpu"], found.capacity["gpu.h200"]) == (cpu, gpu)


def test_simulated_sizes_replace_those_of_nodes_that_have_any() -> None:
    nodes = [node("gpu", allocatable={"nvidia.com/gpu": "2"}), node("plain")]
    instead = {"cpu": 128_000, "gpu.h200": 8000}
    capacities = {
        machine.name: machine.capacity for machine in machines(nodes, [], RESOURCES, instead=instead)
    }
    assert capacities == {
        "gpu": {"cpu": 128_000, "memory": 64 * GIB, "gpu.h200": 8000},
        "plain": {"cpu": 128_000, "memory": 64 * GIB},
    }


def test_what_one_node_says_without_sense_hides_neither_the_rest_of_it_nor_other_nodes() -> None:
    odd = {"cpu": "-1", "memory": "1e99", "nvidia.com/gpu": "4"}
    found = machines([node("odd", allocatable=odd), node("sound")], [], RESOURCES)
    assert [(machine.name, sorted(machine.capacity)) for machine in found] == [
        ("odd", ["gpu.h200"]),
        ("sound", ["cpu", "memory"]),
    ]


@given(st.text(max_size=8) | st.integers() | st.none() | st.floats() | st.booleans())
def test_no_quantity_makes_a_node_unreadable_or_negative(quantity: object) -> None:
    given_node = node(allocatable={"cpu": quantity, "nvidia.com/gpu": quantity})
    found = one(machines([given_node], [pod({"cpu": "1"})], RESOURCES))
    assert all(amount >= 0 for amount in found.capacity.values())
