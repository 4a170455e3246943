"""What both benchmarks look at pods with, and how they tell what they measured."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from kubernetes_asyncio.config import load_kube_config

from hub_ext.kube.watch import PodWatch
from tests.support.cluster import condition

log = logging.getLogger("bench")


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    at = {f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (50, 99)}
    return {**at, "longest": ordered[-1]}


def told(seconds: Sequence[float]) -> str:
    return ", ".join(f"{name} {value * 1000:.0f} ms" for name, value in percentiles(seconds).items())


def is_ready(pod: Mapping[str, Any]) -> bool:
    return condition(dict(pod), "Ready") == "True"


@asynccontextmanager
async def pods_of(namespace: str, selector: str = "") -> AsyncIterator[PodWatch]:
    """The pods of a namespace as they are now."""
    # Where the file is, the client of kubernetes reads when it is imported; by then nobody has said so.
    await load_kube_config(config_file=os.environ["KUBECONFIG"])
    watch = PodWatch(namespace=namespace, log=log)
    watch.label_selector = selector
    await watch.start()
    await watch.seen()
    try:
        yield watch
    finally:
        await watch.stop()
