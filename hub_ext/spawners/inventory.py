"""What this machine has: CPUs, memory, and GPUs with their MIG slices from NVML."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from typing import Any

import psutil

from hub_ext.core.amounts import MIB, MILLI, is_gpu, parse_amount
from hub_ext.core.errors import BadInput
from hub_ext.quota.model import Device, GpuClass, Node


def this_machine(
    classes: Mapping[str, GpuClass],
    *,
    simulated_gpus: Mapping[str, int] | None = None,
    simulated_node: Mapping[str, object] | None = None,
) -> Node:
    """The machine as one node.

    `simulated_gpus` are added to what NVML finds; `simulated_node` replaces every size. Raises BadInput for a GPU
    class that the policy does not have.
    """
    name = socket.gethostname()
    if simulated_node is not None:
        _are_resources(simulated_node)
        capacity = {
            resource: parse_amount(resource, value, rounding="down")
            for resource, value in simulated_node.items()
        }
        gpus = {
            resource.removeprefix("gpu."): amount // MILLI
            for resource, amount in capacity.items()
            if is_gpu(resource)
        }
        _known(gpus, classes)
        return Node(name, capacity, _pretended(gpus), simulated=True)
    pretended = {gpu: count for gpu, count in (simulated_gpus or {}).items() if count}
    _known(pretended, classes)
    devices = (*real_devices(classes), *_pretended(pretended))
    capacity = {"cpu": (os.cpu_count() or 1) * MILLI, "memory": psutil.virtual_memory().total // MIB}
    for device in devices:
        capacity[f"gpu.{device.gpu_class}"] = capacity.get(f"gpu.{device.gpu_class}", 0) + MILLI
    return Node(name, capacity, devices, simulated=bool(pretended))


def real_devices(classes: Mapping[str, GpuClass]) -> tuple[Device, ...]:
    """The GPUs and MIG slices that NVML finds and the policy has a class for; none where there is no driver.

    A GPU belongs to the class whose memory is nearest (within an eighth); in MIG mode its slices do instead of it.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    devices: list[Device] = []
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                devices += [
                    device for part in _parts(pynvml, handle) if (device := _device(pynvml, part, classes))
                ]
            except pynvml.NVMLError:
                continue  # one that fell off the bus hides none of the others
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()
    return tuple(devices)


def _parts(pynvml: Any, handle: object) -> list[object]:
    """The GPU itself, or, in MIG mode, its slices: none where nobody made any, since it then runs nothing whole."""
    try:
        current, _pending = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError:
        return [handle]  # it knows no MIG
    if not current:
        return [handle]
    found = []
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            found.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
        except pynvml.NVMLError:
            continue  # this slot has no slice
    return found


def _device(pynvml: Any, part: object, classes: Mapping[str, GpuClass]) -> Device | None:
    gpu_class = _class_of(int(pynvml.nvmlDeviceGetMemoryInfo(part).total) // MIB, classes)
    if gpu_class is None:
        return None
    uuid = pynvml.nvmlDeviceGetUUID(part)
    return Device(uuid.decode() if isinstance(uuid, bytes) else uuid, gpu_class)


def _class_of(memory: int, classes: Mapping[str, GpuClass]) -> str | None:
    near = [
        (abs(gpu.memory - memory), name)
        for name, gpu in classes.items()
        if abs(gpu.memory - memory) * 8 <= gpu.memory
    ]
    return min(near)[1] if near else None


def _are_resources(names: Iterable[str]) -> None:
    """A misspelt size would be no size at all."""
    for name in names:
        if name not in ("cpu", "memory") and not is_gpu(name):
            raise BadInput(
                f"The settings simulate {name!r}, which is no resource; write cpu, memory, or gpu. and a class."
            )


def _known(gpus: Iterable[str], classes: Mapping[str, GpuClass]) -> None:
    for name in gpus:
        if name not in classes:
            known = ", ".join(classes) or "none"
            raise BadInput(
                f"The settings simulate GPUs of class {name!r}, which the policy does not have (known: {known})."
            )


def _pretended(gpus: Mapping[str, int]) -> tuple[Device, ...]:
    return tuple(
        Device(f"SIMULATED-{name}-{index}", name)
        for name, count in sorted(gpus.items())
        for index in range(count)
    )
