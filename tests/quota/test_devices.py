"""Which GPUs of a machine a lease gets: no two leases share one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.quota.devices import choose_devices
from hub_ext.quota.model import Device, Node

CLASSES = {"A0": "a", "A1": "a", "B0": "b", "A2": "a", "B1": "b"}
NODE = Node(
    "n1",
    {"gpu.a": 3000, "gpu.b": 2000, "cpu": 8000},
    tuple(Device(name, gpu) for name, gpu in CLASSES.items()),
)


@pytest.mark.parametrize(
    ("amounts", "taken", "wanted"),
    [
        pytest.param({"gpu.a": 1000}, (), ("A0",), id="the first of its class"),
        pytest.param(
            {"gpu.a": 2000}, ("A1",), ("A0", "A2"), id="those that are free, in the machine's order"
        ),
        pytest.param({"gpu.a": 1, "cpu": 4000}, (), ("A0",), id="a part takes a whole one"),
        pytest.param({"gpu.a": 1001}, (), ("A0", "A1"), id="one and a part take two"),
        pytest.param({"gpu.b": 1000, "gpu.a": 1000}, ("A0",), ("A1", "B0"), id="of each class"),
        pytest.param({"gpu.a": 2000}, ("A0", "A2"), None, id="too few are free"),
        pytest.param({"gpu.a": 4000}, (), None, id="too few at all"),
        pytest.param({"gpu.c": 1000}, (), None, id="none of that class"),
        pytest.param({"cpu": 4000}, ("A0",), (), id="without GPUs none"),
        pytest.param({"gpu.a": 0}, (), (), id="none asked for"),
    ],
)
def test_devices(amounts: dict[str, int], taken: tuple[str, ...], wanted: tuple[str, ...] | None) -> None:
    assert choose_devices(NODE, amounts, taken) == wanted


def test_a_machine_that_lists_none_hands_out_none() -> None:
    assert choose_devices(Node("n1", {"gpu.a": 3000}), {"gpu.a": 1000}, ()) == ()


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["gpu.a", "gpu.b"]), st.integers(0, 2500), max_size=2), max_size=6
    )
)
def test_no_device_is_given_twice(wishes: list[dict[str, int]]) -> None:
    taken: list[str] = []
    for wish in wishes:
        chosen = choose_devices(NODE, wish, taken)
        if chosen is not None:
            assert not set(chosen) & set(taken)
            assert [CLASSES[name] for name in chosen] == [
                gpu for gpu in "ab" for _ in range(-(-wish.get(f"gpu.{gpu}", 0) // 1000))
            ]
            taken += chosen
