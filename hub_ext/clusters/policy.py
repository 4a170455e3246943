"""The rules of clusters: when one is stopped, when workers retire, what may be asked. Edit this file to change a rule."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from hub_ext.clusters.model import ClusterEnd, ClusterFacts
from hub_ext.core.clock import MINUTE, Instant, Seconds
from hub_ext.quota.model import Lease, LeaseState

# -- times ------------------------------------------------------------------------------------------------------------

IDLE_MINUTES: Final = (10, 20, 30, 60)
"""How long a cluster may do nothing before it is stopped: what a person may choose. Never without an end."""
IDLE_MINUTES_DEFAULT: Final = 20
NO_CLIENT: Final[Seconds] = 5 * MINUTE
"""A cluster that nobody is connected to and that does nothing is stopped after so long, whatever was chosen."""
OWNER_GONE: Final[Seconds] = 2 * MINUTE
"""So long after the owner's server ended: long enough for a server that is started anew."""
HOURS_OVER: Final[Seconds] = 10 * MINUTE
"""A scheduler whose workers ended with the budget, and that can get none, is stopped after so long."""
RETIRE_SECONDS: Final[Seconds] = 60
"""So long before its lease ends a worker is asked to hand over its data and go."""
FIRM_SECONDS: Final[Seconds] = 60
"""So long after a lease's end the gateway has to end what it runs; after that the clock does."""

HEARTBEAT_SECONDS: Final[Seconds] = 15
"""How often a scheduler tells how it is; what it wants, and a worker that is lost, it tells at once."""
HEARTBEAT_TIMEOUT: Final[Seconds] = 300
"""A scheduler that tells nothing for so long is taken for dead: a busy one may be late by minutes."""
START_SECONDS: Final[Seconds] = 600
"""How long a scheduler or worker may take to come up; a large image is loaded once on each machine."""
DEATH_SECONDS: Final[Seconds] = 60
"""A worker that finds no scheduler for so long ends by itself."""
ADAPT_SECONDS: Final[Seconds] = 3
"""How often an adaptive cluster works out how many workers it wants."""
LOOK_SECONDS: Final[Seconds] = 2
"""How often the gateway compares leases with what runs, and asks again for what is missing."""

# -- sizes ------------------------------------------------------------------------------------------------------------

MOST_WORKERS: Final = 256
"""No profile may offer more workers in one cluster."""
HEADROOM: Final = 16
LEAST_HEADROOM: Final = 256
"""A worker is told to keep to its lease's memory less one sixteenth, at least so many MiB. See `worker_memory`."""
DEVICE_SHARE: Final = (7, 8)
"""RMM's pool takes at most so much of the device: CUDA's context and its libraries need the rest."""

MOST_VARIABLES: Final = 32
LONGEST_VALUE: Final = 1024
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_SET_BY_US: Final = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "IFS", "ENV", "BASH_ENV", "TMPDIR"),
        *("CPU_LIMIT", "CPU_GUARANTEE", "MEM_LIMIT", "MEM_GUARANTEE", "CUDF_SPILL", "RAPIDS_NO_INITIALIZE"),
    }
)
_SET_BY_US_PREFIXES: Final = (
    *("LD_", "DYLD_", "GLIBC_", "PYTHON", "DASK_", "CUDA_VISIBLE_", "NVIDIA_", "KUBERNETES_"),
    *("HUB_", "HANGANG_", "JUPYTERHUB_", "JPY_"),
)


def may_set(variable: str) -> bool:
    """Whether a person may set this variable of their cluster's processes."""
    return (
        _VARIABLE.fullmatch(variable) is not None
        and variable.upper() not in _SET_BY_US
        and not variable.upper().startswith(_SET_BY_US_PREFIXES)
    )


def worker_memory(memory: int) -> int:
    """What a worker is told to keep to, of its lease's memory (both MiB).

    Dask watches the worker's own process, pauses it at 80 % and restarts it at 95 % of this number. Beside it the
    process that watches over it (about 100 MiB), shared memory and files in the page cache count towards the
    lease: without the difference the kernel would end the worker before Dask could spill or restart it.
    """
    return max(1, memory - max(LEAST_HEADROOM, memory // HEADROOM))


def most_of_device(memory: int) -> int:
    """How much of a device's memory RMM's pool may take at most (both MiB)."""
    share, whole = DEVICE_SHARE
    return memory * share // whole


# -- the reaper -------------------------------------------------------------------------------------------------------


def why_to_stop(facts: ClusterFacts, now: Instant) -> ClusterEnd | None:
    """Why the cluster is to be stopped now; None while it may go on."""
    if now >= facts.ends_at:
        return ClusterEnd.TIME
    if facts.owner_seen is not None and now - facts.owner_seen >= OWNER_GONE:
        return ClusterEnd.OWNER_GONE
    if facts.hours_over_since is not None and now - facts.hours_over_since >= HOURS_OVER:
        return ClusterEnd.HOURS
    if now - facts.last_active >= idle_seconds(facts.idle_minutes):
        return ClusterEnd.IDLE
    # What still computes for somebody who left (dask's fire-and-forget) is not idle: its work is not lost.
    if now - max(facts.last_client, facts.last_active) >= NO_CLIENT:
        return ClusterEnd.NO_CLIENT
    return None


def idle_seconds(minutes: int) -> Seconds:
    """The idle time in force: one that is not offered counts as the next that is, none as the default."""
    if minutes <= 0:
        return IDLE_MINUTES_DEFAULT * MINUTE
    return min((offered for offered in IDLE_MINUTES if offered >= minutes), default=IDLE_MINUTES[-1]) * MINUTE


def heard(facts: ClusterFacts, now: Instant, *, idle: float | None, clients: int | None) -> ClusterFacts:
    """The facts after the scheduler told how long it has been idle (seconds) and how many clients it has.

    What it did not tell is None and moves nothing. No value moves a time past now, or backwards.
    """
    active, client = facts.last_active, facts.last_client
    if idle is not None and idle >= 0:
        active = max(active, now - int(min(idle, now)))
    if clients is not None and clients > 0:
        client = max(client, now)
    return replace(facts, last_active=active, last_client=client)


# -- workers that go --------------------------------------------------------------------------------------------------


def retire_at(lease: Lease, now: Instant) -> Instant:
    """When the worker of this lease is asked to hand over its data and go, at the earliest now."""
    return max(now, lease.ends_at - RETIRE_SECONDS)


def to_retire(leases: Iterable[Lease], now: Instant) -> tuple[Lease, ...]:
    """The leases whose workers are to retire now, the first to end first."""
    due = (lease for lease in leases if lease.live and retire_at(lease, now) <= now)
    return tuple(sorted(due, key=lambda lease: (lease.ends_at, lease.id)))


def to_end(leases: Iterable[Lease], now: Instant) -> tuple[Lease, ...]:
    """The leases whose workers are ended now, whatever they do: over, or ordered to end."""
    due = (
        lease for lease in leases if lease.live and (lease.state is LeaseState.ENDING or lease.ends_at <= now)
    )
    return tuple(sorted(due, key=lambda lease: (lease.ends_at, lease.id)))
