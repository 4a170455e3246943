"""Orders to stop what is over: through the hub; without it, when that has been in vain for long.

Workers and schedulers of Dask clusters are no business of the hub's: the gateway sees in the ledger that they are over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import structlog

from hub_ext.core.clock import MINUTE, Instant
from hub_ext.core.errors import HubError
from hub_ext.quota.cluster import is_part
from hub_ext.quota.model import Lease
from hub_ext.quota.ports import Servers, World

log = structlog.get_logger("hub_ext.clock")

HUB_SILENT: Final = 2 * MINUTE
"""What should have ended is ended without the hub once it has been silent, or has not managed it, for so long."""


GATEWAY_SILENT: Final = MINUTE
"""For so long the gateway may end by itself what is over of a cluster."""


@dataclass
class Order:
    """A stop that was ordered: since when, and when it was last given to somebody who took it."""

    since: Instant
    taken: Instant | None = None


@dataclass
class Stops:
    """`is_current` looks the lease up: between a look and now its server may have been started anew, under another.
    `say_once` tells what goes on failing, and `said_over` that it is over.
    """

    world: World
    servers: Servers
    is_current: Callable[[Lease], bool]
    say_once: Callable[[str, str], bool]
    said_over: Callable[[str], object]
    _orders: dict[str, Order] = field(default_factory=dict)

    def forget(self) -> None:
        self._orders.clear()

    def keep(self, ending: Iterable[str]) -> None:
        """Orders for other leases than these are over."""
        for over in self._orders.keys() - set(ending):
            del self._orders[over]
            self.said_over(over)

    def order(self, lease: Lease, now: Instant, silent: Instant | None) -> None:
        """`silent`: since when the hub cannot be asked; None where it can."""
        order = self._orders.setdefault(lease.id, Order(now))
        if order.taken is not None and now - order.taken < MINUTE:
            return
        if not self.is_current(lease):
            return
        if is_part(lease):
            if now - min(order.since, lease.ends_at) >= GATEWAY_SILENT:
                self._stop_without_hub(lease)
                order.taken = now
            return
        patient = now - (order.since if silent is None else min(order.since, silent)) < HUB_SILENT
        # A hub that is silent is not asked once more for each lease: every answer would be waited for in vain.
        if patient and (silent is not None or self._hub_took(lease, order, now)):
            return
        self._stop_without_hub(lease)
        order.taken = now

    def _hub_took(self, lease: Lease, order: Order, now: Instant) -> bool:
        """False where the hub knows of no such server; an order that it could not take stays for the next tick."""
        try:
            if not self.servers.stop(lease.person, lease.server):
                return False
            order.taken = now
        except HubError as error:
            self.say_once(lease.id, f"a server that is over cannot be stopped yet: {error}")
        return True

    def _stop_without_hub(self, lease: Lease) -> None:
        for running in self.world.running():
            if running.lease == lease.id:
                log.info("ended by the clock", lease=lease.id, person=lease.person, handle=running.handle)
                self.world.stop(running)
                return
