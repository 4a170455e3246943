"""A database that goes away at any moment of a tick: the ticks after it do what is left, and nothing twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from hub_ext.quota.document import parse_policy
from hub_ext.quota.model import LeaseState
from hub_ext.quota.store import SqlStore
from tests.services.desk.centre import MINUTE, POLICY, START, Centre, Copy
from tests.support.databases import held_by_another
from tests.support.fakes import StoreAwayOnce


def busy_morning(centre: Centre) -> None:
    """Something of everything a tick may have to do."""
    centre.load(
        POLICY
        + "  guests: {parent: seoul, quota: {gpu.h200: {nominal: 9}}, budgets: [{hours: 99, period: day}]}"
    )
    for name in ("goes on", "died", "over", "ending", "forgotten"):
        centre.start(name, pool="guests", minutes=15 if name == "over" else None)
    centre.book("starting", pool="guests")
    centre.book("lost", pool="guests")
    centre.tick(14 * MINUTE)
    centre.clock.at += MINUTE
    centre.world.start("starting", centre.clock.at - 20)
    centre.world.start(
        "unknown", centre.clock.at, labels={"person": "student", "server": "u", "pool": "univ", "amounts": {}}
    )
    centre.hub.known["student", "u"] = None
    centre.hub.leases["student", "u"] = "unknown"
    centre.world.start("left over", START, labels={})
    centre.world.kill("died")
    centre.forget("lost")
    centre.forget("forgotten")
    centre.order_end("ending")


def settle(centre: Centre) -> None:
    for _ in range(4):
        centre.tick()


def what_there_is(centre: Centre) -> dict[str, Any]:
    """All that counts: entries have other numbers, and may stand in another order."""
    return {
        "leases": {lease.id: replace(lease, seen_at=None) for lease in centre.leases()},
        "charged": {
            lease.id: (centre.units_charged(lease.id), centre.seconds_charged(lease.id))
            for lease in centre.leases()
        },
        "sums": sorted(centre.database.run("SELECT * FROM sums"), key=repr),
        "runs": sorted(process.lease for process in centre.world.processes),
        "entries": sorted((entry.kind.value, entry.lease or "", entry.why) for entry in centre.entries()),
    }


@pytest.mark.parametrize("at_the_end", [False, True], ids=["before a transaction", "at its end"])
def test_whichever_transaction_fails_the_result_is_the_same(
    centre: Centre, at_the_end: bool, tmp_path: Path
) -> None:
    busy_morning(centre)
    before = Copy(centre, tmp_path / "before.sqlite")
    settle(centre)
    want = what_there_is(centre)
    states = {name: lease.state.value for name, lease in want["leases"].items()}
    assert states == {
        "goes on": "running",
        "died": "released",
        "over": "released",
        "ending": "released",
        "forgotten": "released",
        "starting": "running",
        "lost": "released",
        "unknown": "running",
    }

    number = failed = 1
    while failed:
        centre = before.centre_anew()
        failing = StoreAwayOnce(centre.store, number, at_the_end=at_the_end)
        centre.admission.store = failing  # type: ignore[assignment]
        centre.tick()
        failed = failing.count >= number
        centre.admission.store = centre.store
        settle(centre)
        assert what_there_is(centre) == want, f"transaction {number} of the tick failed"
        number += 1
    assert number > 15, "the tick had that many transactions"


def test_a_clock_stands_still_while_the_database_is_busy_says_so_once_and_goes_on(
    centre_on_each: Centre,
) -> None:
    centre = centre_on_each
    centre.start()
    impatient = SqlStore(centre.database.engine(wait=0.02), load_policy=parse_policy)
    centre.admission.store = impatient
    with held_by_another(centre.database), capture_logs() as logs:
        assert not centre.tick(60)
        assert not centre.tick(60)
    (entry,) = logs
    assert entry["event"].startswith("the clock stands still: The database")
    assert centre.tick(60)
    assert (centre.lease().state, centre.seconds_charged()) == (LeaseState.RUNNING, 180)
    impatient.close()
    centre.admission.store = centre.store
