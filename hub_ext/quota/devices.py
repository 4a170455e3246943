"""Which GPUs or MIG slices of one machine a lease gets, so that no two leases share one."""

from __future__ import annotations

from collections.abc import Collection

from hub_ext.core.amounts import MILLI, Amounts, is_gpu
from hub_ext.quota.model import Node


def choose_devices(node: Node, amounts: Amounts, taken: Collection[str]) -> tuple[str, ...] | None:
    """Free devices of the node for these amounts (a part of a GPU takes a whole one); None if there are too few.

    Empty for a node that lists no devices: there something else hands them out.
    """
    if not node.devices:
        return ()
    chosen: list[str] = []
    for resource, amount in sorted(amounts.items()):
        if not is_gpu(resource) or not amount:
            continue
        count = -(-amount // MILLI)
        free = [d.id for d in node.devices if f"gpu.{d.gpu_class}" == resource and d.id not in taken]
        if len(free) < count:
            return None
        chosen += free[:count]
    return tuple(chosen)
