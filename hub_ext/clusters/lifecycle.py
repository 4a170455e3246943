"""The life of a cluster's workers: what a scheduler's heartbeat says, and what has to be done next. Pure.

A scheduler is its owner's own process. Whatever it says is a wish or a claim: it is read into a `Heartbeat` of
bounded size or refused, and no claim opens a place that the ledger has not booked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from hub_ext.clusters.model import ClusterEnd
from hub_ext.clusters.policy import to_end, to_retire
from hub_ext.core.clock import Instant
from hub_ext.core.errors import BadInput
from hub_ext.quota.model import Lease, LeaseState

MOST_NAMES: Final = 20_000
"""Of one list of workers; a scheduler's own message is far below the megabyte that the gateway reads."""
LONGEST_NAME: Final = 64
LARGEST: Final = 2**63 - 1
MEMORY: Final = ("process", "managed", "spilled", "limit")
_HOST: Final = re.compile(r"[A-Za-z0-9.:-]{1,253}", re.ASCII)

DIED: Final = "died"
STOPPED: Final = "stopped"
TAKEN_BACK: Final = "taken-back"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a scheduler says, as far as it can be one: the addresses it is at, how many workers it wishes for, and the
    names of those that work, leave, and are gone. What an older scheduler does not tell is None or empty.
    """

    scheduler_address: str
    dashboard_address: str
    api_address: str
    count: int
    active: frozenset[str] = frozenset()
    closing: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()
    idle_seconds: float | None = None
    clients: int | None = None
    memory: Mapping[str, int] = field(default_factory=dict)
    """Bytes of all workers together: `process`, `managed`, `spilled`, `limit`."""

    def only(self, known: Collection[str], running: Collection[str], most: int) -> dict[str, object]:
        """The message that the gateway works with: workers that it made, and no more than `most` of them.

        A worker that runs and that nothing is said of counts as at work.
        """
        leaving = self.closing - self.closed
        silent = set(running) - self.active - self.closing - self.closed
        return {
            "scheduler_address": self.scheduler_address,
            "dashboard_address": self.dashboard_address,
            "api_address": self.api_address,
            "count": min(self.count, most),
            "active_workers": sorted(((self.active - leaving - self.closed) & set(known)) | silent),
            "closing_workers": sorted(leaving.intersection(known)),
            "closed_workers": sorted(self.closed.intersection(known)),
        }


def read_heartbeat(message: object) -> Heartbeat:
    """Raises BadInput for anything that no scheduler of ours would send."""
    if not isinstance(message, Mapping):
        raise BadInput("a heartbeat is an object")
    return Heartbeat(
        scheduler_address=_address(message, "scheduler_address", ("tls",)),
        dashboard_address=_address(message, "dashboard_address", ("http",), may_be_empty=True),
        api_address=_address(message, "api_address", ("http",)),
        count=_count(message.get("count")),
        active=_names(message, "active_workers"),
        closing=_names(message, "closing_workers"),
        closed=_names(message, "closed_workers"),
        idle_seconds=_seconds(message.get("idle_seconds")),
        clients=None if message.get("clients") is None else _count(message["clients"], "clients"),
        memory=_memory(message.get("memory")),
    )


def _count(value: object, name: str = "count") -> int:
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise BadInput(f"{name} is a whole number, never below zero")
    return value


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= LARGEST or not math.isfinite(value):  # type: ignore[operator, arg-type]
        raise BadInput("idle_seconds is a number of seconds, never below zero")
    return float(value)  # type: ignore[arg-type]


def _names(message: Mapping[object, object], name: str) -> frozenset[str]:
    value = message.get(name)
    if not isinstance(value, list) or len(value) > MOST_NAMES:
        raise BadInput(f"{name} is a list of at most {MOST_NAMES} names")
    # A client may add workers of its own under any name, a number too; none of ours has such a one.
    return frozenset(one for one in value if isinstance(one, str) and len(one) <= LONGEST_NAME)


def _memory(value: object) -> dict[str, int]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadInput("memory is an object")
    return {name: _count(value[name], f"memory.{name}") for name in MEMORY if value.get(name) is not None}


def _address(
    message: Mapping[object, object], name: str, schemes: tuple[str, ...], *, may_be_empty: bool = False
) -> str:
    value = message.get(name)
    if may_be_empty and value == "":
        return ""
    if isinstance(value, str) and len(value) <= 255 and value.isascii() and value.isprintable():
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            port, parts = None, urlsplit("")
        plain = port is not None and parts.hostname is not None and _HOST.fullmatch(parts.hostname)
        if (
            plain
            and value == f"{parts.scheme}://{parts.netloc}"
            and parts.scheme in schemes
            and "@" not in value
        ):
            return value
    raise BadInput(f"{name} is an address such as {schemes[0]}://10.0.0.7:8786")


# -- what is to be done with the workers ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker that was made and is not to be stopped yet. `gone`: what ran under its lease is seen gone."""

    name: str
    lease: str
    gone: bool = False
    told_to_retire: bool = False


@dataclass(frozen=True, slots=True)
class Steps:
    """What follows: who is asked to retire; who is ended, by name, and why; the leases that nothing runs for, and
    those among them that end too soon to begin anything.
    """

    retire: tuple[str, ...] = ()
    stop: Mapping[str, str] = field(default_factory=dict)
    start: tuple[Lease, ...] = ()
    give_back: tuple[Lease, ...] = ()


def next_steps(workers: Iterable[WorkerSeen], leases: Iterable[Lease], now: Instant) -> Steps:
    """Compare a cluster's workers with its live leases. Nothing is started, and nothing goes on, without a lease."""
    by_id = {lease.id: lease for lease in leases if lease.live}
    over = {lease.id: lease for lease in to_end(by_id.values(), now)}
    retiring = {lease.id for lease in to_retire(by_id.values(), now)}
    workers = list(workers)
    stop: dict[str, str] = {}
    for worker in workers:
        lease = by_id.get(worker.lease)
        if lease is None:
            stop[worker.name] = STOPPED
        elif lease.id in over:
            stop[worker.name] = why_over(lease)
        elif worker.gone:
            stop[worker.name] = DIED
    retire = tuple(
        worker.name
        for worker in workers
        if worker.lease in retiring and worker.name not in stop and not worker.told_to_retire
    )
    free = unused(by_id.values(), {worker.lease for worker in workers})
    return Steps(
        retire,
        stop,
        start=tuple(lease for lease in free if lease.id not in retiring),
        give_back=tuple(lease for lease in free if lease.id in retiring),
    )


def unused(leases: Iterable[Lease], taken: Collection[str]) -> list[Lease]:
    """The leases that no worker was made for yet, the first to be booked first. What has run once is never run again."""
    free = (lease for lease in leases if lease.state is LeaseState.BOOKED and lease.id not in taken)
    return sorted(free, key=lambda lease: (lease.booked_at, lease.id))


def why_over(lease: Lease) -> str:
    """Why a lease that is over ended, as the ledger writes it."""
    if lease.reason:
        return lease.reason
    unless = lease.ends_unless_taken
    if lease.noticed_for is not None and unless is not None and lease.ends_at < unless:
        return TAKEN_BACK
    return ClusterEnd.TIME.value
