"""What monitoring reads of the desk, in Prometheus' words. `Metrics.exposition()` is what its address answers.

Counters come from the ledger's entries as the clock takes them in, whichever process wrote them. Only the desk whose
clock leads counts and shows; sums over all desks are right. `docs/operate/metrics.md` explains each.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from hub_ext.core.amounts import COST_UNITS_PER_GPU_HOUR, MILLI, is_gpu
from hub_ext.core.clock import Instant
from hub_ext.desk.picture import Picture
from hub_ext.quota.budget import Budgets, binding
from hub_ext.quota.counting import charged_pool
from hub_ext.quota.ledger import Entry, EntryKind
from hub_ext.quota.model import SCHEDULER, WORKER, LeaseState, Policy
from hub_ext.quota.sums import Sums
from hub_ext.quota.tree import tree_of

SHOW_AFTER: Final = 10
"""Seconds between two looks at the sums: monitoring asks no more often."""
TICK_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
_STATES: Final = {LeaseState.BOOKED: "starting", LeaseState.RUNNING: "running"}


class Metrics:
    """One registry per desk."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self._admissions = Counter(
            "hangang_admissions",
            "Asks that were answered: guaranteed, borrowed, wait or refuse, with the code of a wait or refusal",
            ["outcome", "code"],
            registry=registry,
        )
        self._ends = Counter(
            "hangang_leases_ended", "Leases that were released, by reason", ["reason"], registry=registry
        )
        self._notices = Counter(
            "hangang_notices", "Notices given to people who run something, by why", ["why"], registry=registry
        )
        self._corrections = Counter(
            "hangang_reconcile_corrections",
            "Times the leases had to be made to agree with what runs, by what was wrong",
            ["what"],
            registry=registry,
        )
        self._queue = Gauge("hangang_queue_tickets", "Asks that wait, by code", ["code"], registry=registry)
        self._oldest = Gauge(
            "hangang_queue_oldest_seconds", "How long the oldest ask has waited", registry=registry
        )
        self._gpus = Gauge(
            "hangang_gpus",
            "GPUs (or slices) in use by a pool's own leases: guaranteed or borrowed",
            ["pool", "gpu_class", "state"],
            registry=registry,
        )
        self._free = Gauge(
            "hangang_gpus_free",
            "GPUs (or slices) that a pool could still get now",
            ["pool", "gpu_class"],
            registry=registry,
        )
        self._hours = Gauge(
            "hangang_hours_left",
            "GPU-hours left in the running period of a pool's budget",
            ["pool", "period"],
            registry=registry,
        )
        self._clusters = Gauge(
            "hangang_clusters",
            "Dask clusters that hold a scheduler's lease, by pool",
            ["pool"],
            registry=registry,
        )
        self._workers = Gauge(
            "hangang_cluster_workers",
            "Workers of Dask clusters that hold a lease: starting, running or ending",
            ["pool", "state"],
            registry=registry,
        )
        self._wanted = Gauge(
            "hangang_cluster_workers_wanted",
            "Workers that Dask clusters wish for beyond those, and wait in line for",
            ["pool"],
            registry=registry,
        )
        self._leads = Gauge("hangang_clock_leads", "1 where this desk's clock leads", registry=registry)
        self._last_tick = Gauge(
            "hangang_clock_last_tick_timestamp_seconds",
            "When the last whole tick of the leading clock ended",
            registry=registry,
        )
        self._ticks = Histogram(
            "hangang_clock_tick_seconds",
            "How long a whole tick of the clock took",
            buckets=TICK_BUCKETS,
            registry=registry,
        )
        self._shown: Instant | None = None

    def exposition(self) -> tuple[bytes, str]:
        """The text of all metrics, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    # -- what the clock tells ---------------------------------------------------------------------------------------

    def count(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            match entry.kind:
                case EntryKind.BOOKED:
                    outcome = "guaranteed" if entry.facts.get("guaranteed") else "borrowed"
                    self._admissions.labels(outcome, "").inc()
                case EntryKind.DECIDED if entry.facts.get("verdict"):
                    self._admissions.labels(str(entry.facts["verdict"]), entry.why).inc()
                case EntryKind.NOTICED:
                    self._notices.labels(entry.why).inc()
                case EntryKind.RELEASED:
                    self._ends.labels(entry.why or "stopped").inc()
                case _:
                    pass

    def corrected(self, what: str) -> None:
        self._corrections.labels(what).inc()

    def ticked(self, seconds: float, now: Instant) -> None:
        self._leads.set(1)
        self._last_tick.set(now)
        self._ticks.observe(seconds)

    def follows(self) -> None:
        """Another desk's clock leads: what this one knew is not true any more."""
        self._leads.set(0)
        for gauge in (
            *(self._queue, self._gpus, self._free, self._hours),
            *(self._clusters, self._workers, self._wanted),
        ):
            gauge.clear()
        self._oldest.set(0)
        self._shown = None

    def show(self, picture: Picture, now: Instant) -> None:
        """How things stand, from the clock's picture."""
        if picture.policy is None or (self._shown is not None and 0 <= now - self._shown < SHOW_AFTER):
            return
        self._shown = now
        self._show_queue(picture, now)
        self._show_clusters(picture, picture.policy)
        sums = picture.sums()
        self._show_gpus(picture, picture.policy, sums)
        self._show_hours(picture, picture.policy, sums, now)

    def _show_queue(self, picture: Picture, now: Instant) -> None:
        self._queue.clear()
        for code, count in Tally(ticket.outlook.code for ticket in picture.tickets.values()).items():
            self._queue.labels(code).set(count)
        oldest = min((ticket.made_at for ticket in picture.tickets.values()), default=now)
        self._oldest.set(max(0, now - oldest))

    def _show_gpus(self, picture: Picture, policy: Policy, sums: Sums) -> None:
        used: Tally[tuple[str, str, str]] = Tally()
        for lease in picture.leases.values():
            pool = charged_pool(policy, lease)
            for resource, amount in lease.amounts.items():
                if pool is not None and is_gpu(resource):
                    state = "guaranteed" if lease.guaranteed else "borrowed"
                    used[pool, resource.removeprefix("gpu."), state] += amount
        self._gpus.clear()
        self._free.clear()
        tree = tree_of(policy)
        for pool in policy.pools:
            for resource in filter(is_gpu, policy.stated(pool)):
                name = resource.removeprefix("gpu.")
                for state in ("guaranteed", "borrowed"):
                    self._gpus.labels(pool, name, state).set(used[pool, name, state] / MILLI)
                self._free.labels(pool, name).set(max(0, tree.available(sums, pool, resource)) / MILLI)

    def _show_clusters(self, picture: Picture, policy: Policy) -> None:
        clusters: Tally[str] = Tally()
        workers: Tally[tuple[str, str]] = Tally()
        wanted: Tally[str] = Tally()
        for lease in picture.leases.values():
            pool = charged_pool(policy, lease)
            if pool is not None and lease.kind == SCHEDULER:
                clusters[pool] += 1
            elif pool is not None and lease.kind == WORKER:
                workers[pool, _STATES.get(lease.state, "ending")] += 1
        for ticket in picture.tickets.values():
            if ticket.ask.kind == WORKER:
                wanted[ticket.ask.pool] += ticket.wanted
        for gauge in (self._clusters, self._workers, self._wanted):
            gauge.clear()
        for pool in policy.pools:
            self._clusters.labels(pool).set(clusters[pool])
            for state in ("starting", "running", "ending"):
                self._workers.labels(pool, state).set(workers[pool, state])
            self._wanted.labels(pool).set(wanted[pool])

    def _show_hours(self, picture: Picture, policy: Policy, sums: Sums, now: Instant) -> None:
        self._hours.clear()
        budgets = Budgets(policy, sums, picture.grants)
        for pool in policy.pools:
            for of in binding(policy, [pool], ""):
                state = None if of.budget.each_person else budgets.state(of, now)
                if state is not None:
                    self._hours.labels(pool, str(of.budget.period)).set(state.left / COST_UNITS_PER_GPU_HOUR)
