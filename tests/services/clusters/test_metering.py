"""What clusters are charged is what ran, to the second: by worker, by day, and in every report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date

import pytest

from hub_ext.cli import usage_rows
from hub_ext.core.people import Person
from hub_ext.desk.access import LEAD, OPERATE, READ, Access
from hub_ext.desk.usage_report import By, all_pages, scope_for
from hub_ext.quota.model import WORKER, Lease, LeaseState
from tests.services.clusters.gateway import cluster, gone, grant, start, start_cluster
from tests.services.desk.centre import GPU_SECOND, HOUR, MINUTE, START, Centre

FIRST, SECOND = date(2027, 3, 2), date(2027, 3, 3)
MIDNIGHT = START + 15 * HOUR
"""Between the two days, in Seoul."""
STEP = 50
"""The clock looks so often here."""
OPERATOR = Access(Person("operator", ("univ",), frozenset({"operator"})), frozenset({READ, LEAD, OPERATE}))


@dataclass
class Evening:
    """A cluster from ten before midnight on, whose workers come and go; beside the ledger, what ran is counted by hand."""

    centre: Centre
    began: dict[str, int] = field(default_factory=dict)
    ran: Counter[tuple[str, date]] = field(default_factory=Counter)
    """Seconds by lease and day."""

    def until(self, then: int) -> None:
        while self.centre.clock.at < then:
            self.centre.tick(min(STEP, then - self.centre.clock.at))

    def wish(self, count: int) -> None:
        for lease in grant(self.centre, count, in_use=list(self.began)).leases:
            if lease.state is LeaseState.BOOKED:
                self.start(lease)

    def start(self, lease: Lease) -> None:
        start(self.centre, lease)
        self.began[lease.id] = self.centre.clock.at

    def stop(self, lease: Lease) -> None:
        """The gateway saw its process gone."""
        gone(self.centre, lease, "retired")
        self.count(lease.id)

    def count(self, lease_id: str) -> None:
        began, ended = self.began.pop(lease_id), self.centre.clock.at
        for day, since, until in ((FIRST, 0, MIDNIGHT), (SECOND, MIDNIGHT, MIDNIGHT + 24 * HOUR)):
            if (seconds := min(ended, until) - max(began, since)) > 0:
                self.ran[lease_id, day] += seconds

    def workers(self) -> list[Lease]:
        return [lease for lease in cluster(self.centre).workers if lease.id in self.began]


@pytest.fixture
def evening(centre: Centre) -> Evening:
    return an_evening(centre)


def an_evening(centre: Centre) -> Evening:
    """Two guaranteed workers and a borrowed one; one is replaced, one dies unseen by the gateway, one goes on to the end."""
    made = Evening(centre)
    made.centre.clock.at = MIDNIGHT - 10 * MINUTE
    scheduler = start_cluster(made.centre, minutes=40)
    made.began["c1"] = made.centre.clock.at
    made.until(made.centre.clock.at + 7)
    made.wish(3)
    made.until(MIDNIGHT - 111)
    made.stop(made.workers()[0])
    made.wish(2)
    made.until(MIDNIGHT + 13 * MINUTE + 1)
    made.wish(3)
    # Nothing runs yet for what is booked now, and nothing is charged for it.
    made.until(MIDNIGHT + 18 * MINUTE)
    dying = made.workers()[0]
    made.centre.world.kill(dying.id)
    made.count(dying.id)
    made.until(MIDNIGHT + 18 * MINUTE + 2 * STEP)
    made.until(scheduler.ends_at)
    for lease in [*made.workers(), scheduler]:
        made.stop(lease)
    made.centre.tick(STEP)
    assert made.centre.admission.clusters_now() == {}
    return made


def report(evening: Evening, by: By, first: date = FIRST, last: date = SECOND) -> list[dict[str, object]]:
    with evening.centre.store.reading() as txn:
        policy = txn.policy
    scope = scope_for(OPERATOR, policy, first, last)
    return [dict(row) for page in all_pages(evening.centre.store, scope, by, 2) for row in page]


def leases(evening: Evening) -> dict[str, Lease]:
    return {lease.id: lease for lease in evening.centre.leases()}


def late(evening: Evening) -> dict[str, int]:
    """How much later than it was gone the ledger says so: the clock sees what nobody tells it at its next look."""
    wanted: Counter[str] = Counter()
    for (lease, _), seconds in evening.ran.items():
        wanted[lease] += seconds
    charged = {name: evening.centre.seconds_charged(name) for name in leases(evening)}
    return {name: charged[name] - wanted[name] for name in charged if charged[name] != wanted[name]}


def test_each_worker_is_charged_for_the_seconds_that_it_ran(centre_on_each: Centre) -> None:
    evening = an_evening(centre_on_each)
    assert len(leases(evening)) >= 5
    off = late(evening)
    assert len(off) <= 1, "all but the one that died unseen, to the second"
    assert all(0 < seconds <= STEP for seconds in off.values())


def test_the_ledger_charges_the_rate_as_booked(evening: Evening) -> None:
    for name, lease in leases(evening).items():
        rate = 0 if lease.kind != WORKER else GPU_SECOND if lease.cost == GPU_SECOND else GPU_SECOND // 2
        assert evening.centre.units_charged(name) == evening.centre.seconds_charged(name) * rate
    assert {lease.cost for lease in leases(evening).values()} == {0, GPU_SECOND, GPU_SECOND // 2}


def test_days_are_parted_at_midnight(evening: Evening) -> None:
    unseen = late(evening)
    for day in (FIRST, SECOND):
        rows = {row["lease"]: row["seconds"] for row in report(evening, "lease", day, day)}
        for lease, of_day in evening.ran:
            if of_day == day and lease not in unseen:
                assert rows[lease] == evening.ran[lease, day]


def test_every_report_adds_up_to_the_same(evening: Evening) -> None:
    centre = evening.centre
    seconds = {name: centre.seconds_charged(name) for name in leases(evening)}
    hours = sum(centre.units_charged(name) for name in seconds) / GPU_SECOND / HOUR
    by_lease = report(evening, "lease")
    assert {row["lease"]: row["seconds"] for row in by_lease} == seconds
    assert {row["server"] for row in by_lease} == {"c1"}
    assert Counter(str(row["kind"]) for row in by_lease) == {
        "dask-scheduler": 1,
        "dask-worker": len(seconds) - 1,
    }
    for by in ("day", "person"):
        rows = report(evening, by)  # type: ignore[arg-type]
        assert sum(int(str(row["seconds"])) for row in rows) == sum(seconds.values())
        assert sum(float(str(row["gpu_hours"])) for row in rows) == pytest.approx(hours, abs=1e-3)
    with centre.store.reading() as txn:
        (row,) = usage_rows(txn.usage(FIRST, SECOND), txn.policy, "person")
        spent = {key.period: value for key, value in txn.ledger(None).sums.of_kind("spent")}
        committed = list(txn.ledger(None).sums.of_kind("committed"))
    assert row["leases"] == len(seconds)
    assert row["server_hours"] == pytest.approx(sum(seconds.values()) / HOUR, abs=1e-3)
    assert row["gpu_hours"] == pytest.approx(hours, abs=1e-3)
    # The budget of the pool was charged the same, and nothing is set aside any more.
    assert sum(spent.values()) == sum(centre.units_charged(name) for name in seconds)
    assert committed == []
