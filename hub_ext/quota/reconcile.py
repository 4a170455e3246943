"""What has to change so that the leases say what really runs (QUOTA.md §9). Doing it twice changes nothing.

| lease | runs | the hub knows the server | what follows |
|---|---|---|---|
| booked | no | yes, or cannot be asked | wait; `lost` after five minutes without a hub |
| booked | no | no | a hub was cut off in the start: started again; after 15 min, or where it cannot, released uncharged |
| booked | made, without a node yet | yes | wait |
| booked | yes | yes | it runs since the process began, or the pod got its node |
| running or ending | yes | yes | seen |
| any | yes | no | nobody can reach it: ended, released |
| running or ending | no | being stopped | the hub's own stop says why |
| running or ending | no | otherwise | it died: released |
| released | yes | | left over: ended |
| none | yes | yes | adopted as it stands, also above quota |

Of Dask clusters the hub knows nothing: a scheduler that runs without a lease is adopted, a worker where its scheduler is
there; a booking of which nothing came is `lost` after five minutes.

A world that cannot be seen is never taken for an empty one: the caller then does not reconcile at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hub_ext.core.clock import MINUTE, Instant
from hub_ext.quota.cluster import schedulers_of
from hub_ext.quota.model import SCHEDULER, SERVER, START_AGAIN_WITHIN, WORKER, Lease, LeaseState
from hub_ext.quota.ports import Running

LOST_AFTER = 5 * MINUTE
WATCH_GAP = 60
"""A lease not seen for longer than this was not watched: it is charged until it was last seen alive."""

ServersKnown = Mapping[tuple[str, str], str | None]


@dataclass(frozen=True, slots=True)
class SetRunning:
    """The lease's process or pod runs since `at`."""

    lease: Lease
    running: Running
    at: Instant


@dataclass(frozen=True, slots=True)
class Seen:
    lease: Lease


@dataclass(frozen=True, slots=True)
class StartAgain:
    """A hub that is gone booked the lease, and came no further."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Release:
    """What the lease ran is gone since `at`."""

    lease: Lease
    at: Instant
    why: str


@dataclass(frozen=True, slots=True)
class StopRunning:
    """Something runs that no lease stands for."""

    running: Running


@dataclass(frozen=True, slots=True)
class Adopt:
    """Something runs with our labels that the ledger has never heard of."""

    running: Running


Instruction = SetRunning | Seen | StartAgain | Release | StopRunning | Adopt


def reconcile(
    leases: Sequence[Lease],
    released: frozenset[str],
    world: Sequence[Running],
    known: ServersKnown | None,
    now: Instant,
    ended: Mapping[str, str] | None = None,
) -> list[Instruction]:
    """The instructions that make leases and world agree.

    `leases` are the live ones, read before the world was looked at; `released` the ids, among those that run, of
    leases already released; `known` the hub's servers, None while the hub cannot be asked; `ended` why what a lease
    ran was seen to end, where that can be told.
    """
    main = _mains(leases, world)
    instructions: list[Instruction] = []
    for lease in leases:
        running = main.get(lease.id)
        if running is None:
            instructions += _gone(lease, known, now, (ended or {}).get(lease.id))
        elif known is not None and lease.kind == SERVER and (lease.person, lease.server) not in known:
            instructions += [StopRunning(running), Release(lease, now, "orphan")]
        elif lease.state is LeaseState.BOOKED:
            if running.started_at is not None:
                began = max(lease.booked_at, min(now, running.started_at))
                instructions.append(SetRunning(lease, running, began))
        else:
            instructions.append(Seen(lease))
    live = {lease.id for lease in leases}
    unknown = [running for running in world if running.lease not in live]
    clusters = schedulers_of(leases).keys() | _schedulers_in(unknown, released)
    instructions += _without_lease(unknown, released, known, clusters)
    without_main = live - main.keys()
    left_behind = {running.lease: running for running in world if running.lease in without_main}
    return instructions + [StopRunning(running) for running in left_behind.values()]


def _mains(leases: Sequence[Lease], world: Sequence[Running]) -> dict[str, Running]:
    """What each lease itself runs: once its handle is written down, nothing else counts as it."""
    handles = {lease.id: lease.handle for lease in leases}
    return {
        running.lease: running
        for running in world
        if running.main and running.lease in handles and handles[running.lease] in (None, running.handle)
    }


def _gone(lease: Lease, known: ServersKnown | None, now: Instant, why: str | None) -> list[Instruction]:
    server = (lease.person, lease.server)
    if lease.kind != SERVER:
        known = None  # the hub knows nothing of clusters
    if lease.state is LeaseState.BOOKED:
        if known is not None and server not in known:
            forgotten = now - lease.booked_at >= START_AGAIN_WITHIN
            return [Release(lease, now, "start-lost") if forgotten else StartAgain(lease)]
        if known is None and now - lease.booked_at >= LOST_AFTER:
            return [Release(lease, now, "lost")]
        return []
    if known is not None and known.get(server) == "stop":
        return []
    last = max(lease.seen_at or 0, lease.started_at or 0, lease.charged_until)
    at = now if now - last <= WATCH_GAP else last
    return [Release(lease, at, lease.reason or why or "died")]


def _schedulers_in(running: Sequence[Running], released: frozenset[str]) -> set[str]:
    """The clusters whose schedulers run and are going to be adopted."""
    return {
        one.lease
        for one in running
        if one.main and one.lease not in released and (one.labels or {}).get("kind") == SCHEDULER
    }


def _without_lease(
    running: Sequence[Running],
    released: frozenset[str],
    known: ServersKnown | None,
    clusters: Collection[str],
) -> list[Instruction]:
    """Whatever carries a lease's label is ended together: one instruction for each lease, by its main process."""
    instructions: list[Instruction] = []
    chosen = {one.lease: one for one in sorted(running, key=lambda one: one.main)}
    for one in chosen.values():
        labels = one.labels or {}
        if one.lease in released or not one.main:
            instructions.append(StopRunning(one))
        elif labels.get("kind") in (SCHEDULER, WORKER):
            is_reachable = labels.get("server", "") in clusters
            instructions.append(Adopt(one) if is_reachable else StopRunning(one))
        elif known is not None:
            reachable = (labels.get("person", ""), labels.get("server", "")) in known
            instructions.append(Adopt(one) if reachable else StopRunning(one))
    return instructions
