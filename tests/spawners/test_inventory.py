"""What a machine has: by NVML (a stand-in, and the real one where there is a GPU), or as the settings pretend."""

from __future__ import annotations

import socket
import sys
from decimal import Decimal

import psutil
import pytest

from hub_ext.core.errors import BadInput
from hub_ext.quota.model import Device, GpuClass
from hub_ext.spawners.inventory import real_devices, this_machine
from tests.support.fakes import FakeNvml, Gpu, NvmlOfBytes, NvmlWithoutDriver

GIB = 1024
CLASSES = {
    "h200": GpuClass("h200", "nvidia.com/gpu", Decimal(1), 141 * GIB),
    "h200-1g": GpuClass("h200-1g", "nvidia.com/mig-1g.18gb", Decimal("0.143"), 18 * GIB),
    "a100": GpuClass("a100", "nvidia.com/gpu", Decimal("0.5"), 80 * GIB),
}
H200, SLICE, A100 = 143_771, 16_384, 81_920
"""MiB as drivers report them: less than what is on the box."""


def having(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml) -> FakeNvml:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


def found(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu) -> list[tuple[str, str]]:
    nvml = having(monkeypatch, FakeNvml(*gpus))
    devices = real_devices(CLASSES)
    assert nvml.open == 0, "NVML was closed again"
    return [(device.id, device.gpu_class) for device in devices]


CASES = {
    "no GPU": ([], []),
    "GPUs of two classes": (
        [Gpu("GPU-1", H200), Gpu("GPU-2", A100)],
        [("GPU-1", "h200"), ("GPU-2", "a100")],
    ),
    "a GPU that knows no MIG": ([Gpu("GPU-1", H200, knows_mig=False)], [("GPU-1", "h200")]),
    "a GPU in slices: they stand instead of it": (
        [Gpu("GPU-1", H200, [Gpu("MIG-1", SLICE), None, Gpu("MIG-2", SLICE), None]), Gpu("GPU-2", H200)],
        [("MIG-1", "h200-1g"), ("MIG-2", "h200-1g"), ("GPU-2", "h200")],
    ),
    "a GPU that is to be sliced and is not yet: it runs nothing": (
        [Gpu("GPU-1", H200, [None] * 7), Gpu("GPU-2", H200, [])],
        [],
    ),
    "a slice that the policy has no class for": (
        [Gpu("GPU-1", H200, [Gpu("MIG-1", 35 * GIB), Gpu("MIG-2", SLICE)])],
        [("MIG-2", "h200-1g")],
    ),
    "a GPU that the policy has no class for": (
        [Gpu("GPU-1", 24 * GIB), Gpu("GPU-2", H200)],
        [("GPU-2", "h200")],
    ),
    "a GPU that fell off the bus: the others count": (
        [Gpu("GPU-1", H200, fallen_off_the_bus=True), Gpu("GPU-2", H200)],
        [("GPU-2", "h200")],
    ),
}


@pytest.mark.parametrize(("gpus", "want"), CASES.values(), ids=CASES.keys())
def test_devices(monkeypatch: pytest.MonkeyPatch, gpus: list[Gpu], want: list[tuple[str, str]]) -> None:
    assert found(monkeypatch, *gpus) == want


@pytest.mark.parametrize(
    ("mebibytes", "want"),
    [
        pytest.param(70 * GIB, "a100", id="an eighth less than the class"),
        pytest.param(70 * GIB - 1, None, id="a little less than that"),
        pytest.param(90 * GIB, "a100", id="an eighth more"),
        pytest.param(90 * GIB + 1, None, id="a little more than that"),
        pytest.param(0, None, id="none"),
    ],
)
def test_a_gpu_is_of_the_class_whose_memory_is_within_an_eighth(
    monkeypatch: pytest.MonkeyPatch, mebibytes: int, want: str | None
) -> None:
    assert found(monkeypatch, Gpu("GPU-1", mebibytes)) == ([("GPU-1", want)] if want else [])


def test_of_two_classes_that_fit_the_nearest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, FakeNvml(Gpu("GPU-1", 76 * GIB), Gpu("GPU-2", 79 * GIB)))
    classes = CLASSES | {"odd": GpuClass("odd", "x", Decimal(1), 75 * GIB)}
    assert [device.gpu_class for device in real_devices(classes)] == ["odd", "a100"]


def test_without_a_driver_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, NvmlWithoutDriver(Gpu("GPU-1", H200)))
    assert real_devices(CLASSES) == ()


def test_names_that_are_bytes_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, NvmlOfBytes(Gpu("GPU-1", H200)))
    assert real_devices(CLASSES) == (Device("GPU-1", "h200"),)


# -- the whole machine ---------------------------------------------------------------------------------------------------


def test_a_machine_with_what_it_really_has(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, FakeNvml(Gpu("GPU-1", H200), Gpu("GPU-2", H200), Gpu("GPU-3", 24 * GIB)))
    node = this_machine(CLASSES)
    assert (node.name, node.simulated) == (socket.gethostname(), False)
    assert node.devices == (Device("GPU-1", "h200"), Device("GPU-2", "h200"))
    assert node.capacity["gpu.h200"] == 2000
    assert node.capacity["memory"] == psutil.virtual_memory().total >> 20
    assert node.capacity["cpu"] >= 1000
    assert set(node.capacity) == {"cpu", "memory", "gpu.h200"}


def test_simulated_gpus_stand_beside_the_real_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, FakeNvml(Gpu("GPU-1", H200)))
    node = this_machine(CLASSES, simulated_gpus={"h200": 1, "a100": 2, "h200-1g": 0})
    assert node.simulated
    assert [device.id for device in node.devices] == [
        "GPU-1",
        "SIMULATED-a100-0",
        "SIMULATED-a100-1",
        "SIMULATED-h200-0",
    ]
    assert (node.capacity["gpu.h200"], node.capacity["gpu.a100"]) == (2000, 2000)
    assert "gpu.h200-1g" not in node.capacity


def test_no_simulated_gpus_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, NvmlWithoutDriver())
    node = this_machine(CLASSES, simulated_gpus={"h200": 0})
    assert (node.simulated, node.devices) == (False, ())


def test_a_simulated_node_replaces_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, FakeNvml(Gpu("GPU-1", H200)))
    node = this_machine(
        CLASSES,
        simulated_gpus={"a100": 2},
        simulated_node={"gpu.h200": 2, "gpu.h200-1g": "1", "cpu": "128", "memory": "2Ti"},
    )
    assert node.simulated
    assert node.capacity == {"gpu.h200": 2000, "gpu.h200-1g": 1000, "cpu": 128_000, "memory": 2 << 20}
    assert [device.id for device in node.devices] == [
        "SIMULATED-h200-0",
        "SIMULATED-h200-1",
        "SIMULATED-h200-1g-0",
    ]


FAULTY = {
    "a simulated GPU of an unknown class": (
        {"simulated_gpus": {"h900": 1}},
        "'h900'.*known: h200, h200-1g, a100",
    ),
    "a simulated node with an unknown class": ({"simulated_node": {"gpu.h900": 1}}, "'h900'"),
    "a simulated node of minus one": ({"simulated_node": {"cpu": -1}}, "-1 is not an amount"),
    "a simulated node of words": ({"simulated_node": {"memory": "much"}}, "'much' is not an amount"),
    "a simulated node of the universe": (
        {"simulated_node": {"memory": "999999Ei"}},
        "more than any centre has",
    ),
    "a simulated node with a misspelt size": (
        {"simulated_node": {"cpus": 8}},
        "'cpus', which is no resource",
    ),
}


@pytest.mark.parametrize(("settings", "said"), FAULTY.values(), ids=FAULTY.keys())
def test_settings_that_cannot_be_are_refused(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, dict[str, object]], said: str
) -> None:
    having(monkeypatch, NvmlWithoutDriver())
    with pytest.raises(BadInput, match=said):
        this_machine(CLASSES, **settings)  # type: ignore[arg-type]


def test_an_unknown_class_of_which_there_are_none_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, NvmlWithoutDriver())
    assert not this_machine(CLASSES, simulated_gpus={"h900": 0}).simulated


@pytest.mark.gpu
def test_the_gpus_of_this_very_machine() -> None:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        pytest.skip(f"this machine has no NVIDIA GPU: {error}")
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        memory = [int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) >> 20 for handle in handles]
        sliced = any(_is_sliced(pynvml, handle) for handle in handles)
    finally:
        pynvml.nvmlShutdown()
    classes = {f"gpu{size}": GpuClass(f"gpu{size}", "nvidia.com/gpu", Decimal(1), size) for size in memory}
    devices = real_devices(classes)
    if not sliced:
        assert [device.gpu_class for device in devices] == [f"gpu{size}" for size in memory]
    assert len({device.id for device in devices}) == len(devices)
    assert all(device.id.startswith(("GPU-", "MIG-")) for device in devices)
    node = this_machine(classes)
    assert sum(amount for name, amount in node.capacity.items() if name.startswith("gpu.")) == 1000 * len(
        devices
    )


def _is_sliced(pynvml: object, handle: object) -> bool:
    try:
        return bool(pynvml.nvmlDeviceGetMigMode(handle)[0])  # type: ignore[attr-defined]
    except pynvml.NVMLError:  # type: ignore[attr-defined]
        return False
