"""Starts servers through the hub's API, many at once and beside the clock's ticks: no tick waits for a slow hub.

What is booked is written down before; a start that is lost here is found again by reconcile, and one that is asked for
twice takes what is booked already.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from hub_ext.core.errors import HubError
from hub_ext.quota.model import Lease
from hub_ext.quota.ports import Servers

log = structlog.get_logger("hub_ext.clock")

STARTS_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Ordered:
    """What became of a start: `refusal` is why the hub did not take it, None where it did."""

    lease: Lease
    refusal: str | None


@dataclass
class Starts:
    """`may_act` is asked right before each start: whether this clock still leads, and the lease still waits for it."""

    servers: Servers
    may_act: Callable[[Lease], bool]
    _under_way: dict[str, Future[Ordered]] = field(default_factory=dict)
    _threads: ThreadPoolExecutor | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def order(self, lease: Lease, options: Mapping[str, Any]) -> None:
        """Nothing where that start is under way already."""
        with self._lock:
            if lease.id in self._under_way:
                return
            if self._threads is None:
                self._threads = ThreadPoolExecutor(STARTS_AT_ONCE, thread_name_prefix="starts")
            self._under_way[lease.id] = self._threads.submit(self._start, lease, options)

    def is_under_way(self, lease_id: str) -> bool:
        return lease_id in self._under_way

    def settle(self, seconds: float | None) -> None:
        """Wait for what is under way, at most so long (None: to the end)."""
        wait(list(self._under_way.values()), timeout=seconds)

    def finished(self) -> list[Ordered]:
        """What came of those that are over; each is told once."""
        with self._lock:
            done = [lease_id for lease_id, future in self._under_way.items() if future.done()]
            return [self._under_way.pop(lease_id).result() for lease_id in done]

    def close(self) -> None:
        """What has not begun is left to the next clock."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
            self._under_way.clear()

    def _start(self, lease: Lease, options: Mapping[str, Any]) -> Ordered:
        try:
            if self.may_act(lease):
                self.servers.start(lease.person, lease.server, options or None)
        except HubError as error:
            return Ordered(lease, str(error))
        except Exception as error:  # a mistake of ours, in one start only
            log.exception("a start failed by a mistake in the program", lease=lease.id)
            return Ordered(lease, repr(error))
        return Ordered(lease, None)
