"""The clock charges what was seen alive, gives notice, and never twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub_ext.core.decision import Code
from hub_ext.desk.accounts import ENDS_SOON
from hub_ext.quota.budget import LONGEST_SLICE, local_date
from hub_ext.quota.ledger import EntryKind
from hub_ext.quota.model import LeaseState
from hub_ext.quota.service import run
from tests.services.desk.centre import GPU_SECOND, HOUR, MINUTE, POLICY, START, STUDENT, Centre

TIGHT = POLICY.replace("hours: 100, period: day", "hours: 1, period: day")
"""The same with one GPU-hour a day."""
MIDNIGHT = int(datetime.fromisoformat("2027-03-03T00:00:00+09:00").timestamp())


# -- what ran ---------------------------------------------------------------------------------------------------------


def test_a_minute_is_charged_at_a_time_up_to_the_last_instant_it_was_seen(centre: Centre) -> None:
    centre.start()
    for after, want in ((59, 0), (1, 60), (59, 60), (3, 122)):
        centre.tick(after)
        assert centre.seconds_charged() == want
    seen, centre.clockwork.servers = centre.lease().seen_at, centre.hub
    assert seen == START + 122


def test_what_was_not_seen_is_not_charged_until_it_is_seen_again(centre: Centre) -> None:
    """The clock was away for an hour, and so was nobody's server."""
    centre.start()
    centre.tick(60)
    centre.tick(HOUR)
    assert centre.seconds_charged() == HOUR + 60
    slices = [entry.facts["units"] // GPU_SECOND for entry in centre.entries(EntryKind.ACCRUED)]
    assert slices == [60] + 12 * [300]


def test_a_ledger_is_charged_the_booked_cost_of_every_pool_above_and_the_person(centre: Centre) -> None:
    for name in ("l1", "l2"):
        centre.start(name)
    borrowed = centre.start("l3")
    assert (borrowed.guaranteed, borrowed.cost) == (False, GPU_SECOND // 2)
    centre.tick(600)
    assert [centre.units_charged(name) for name in ("l1", "l2", "l3")] == [
        600 * GPU_SECOND,
        600 * GPU_SECOND,
        300 * GPU_SECOND,
    ]
    budgets = centre.admission.preview_now(STUDENT, []).budgets
    assert [(state.of.pool, state.used) for state in budgets] == [("univ", 1500 * GPU_SECOND)]


def test_each_local_day_keeps_what_ran_on_it(centre: Centre) -> None:
    centre.clock.at = MIDNIGHT - 130
    centre.start()
    centre.tick(100)
    centre.tick(100)
    with centre.store.reading() as txn:
        rows = txn.usage(date(2027, 3, 1), date(2027, 3, 9))
    assert [(row.day, row.seconds) for row in rows] == [(date(2027, 3, 2), 130), (date(2027, 3, 3), 70)]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    begins=st.integers(MIDNIGHT - 2 * HOUR, MIDNIGHT),
    pauses=st.lists(st.sampled_from([0, 1, 2, 59, 60, 61, 299, 301, 3700]), min_size=1, max_size=8),
    dies=st.booleans(),
)
def test_whenever_the_clock_ticks_every_second_that_was_seen_is_charged_once(
    make_centre: Callable[[], Centre], begins: int, pauses: list[int], dies: bool
) -> None:
    centre = make_centre()
    centre.clock.at = begins
    centre.start()
    for pause in pauses:
        centre.tick(pause)
    if dies:
        centre.world.kill("l1")
        centre.tick(2)
        centre.tick(2)
        lease = centre.lease()
        assert lease.state is LeaseState.RELEASED
        assert begins + sum(pauses) <= lease.released_at <= begins + sum(pauses) + 2  # type: ignore[operator]
        assert centre.seconds_charged() == lease.released_at - begins  # type: ignore[operator]
    else:
        lease = centre.lease()
        assert centre.seconds_charged() == lease.charged_until - begins
        assert 0 <= sum(pauses) - centre.seconds_charged() < MINUTE
    zone = centre.admission.preview_now(STUDENT, []).policy.timezone
    until = begins
    for entry in centre.entries(EntryKind.ACCRUED):
        assert 0 < entry.at - until <= LONGEST_SLICE
        assert local_date(until, zone) == local_date(entry.at - 1, zone), "no slice lies in two days"
        until = entry.at


def test_an_ending_lease_is_charged_until_it_is_gone(centre: Centre) -> None:
    centre.start()
    centre.order_end()
    centre.hub.known["student", "l1"] = "stop"
    centre.tick(90)
    assert centre.seconds_charged() == 90
    centre.world.kill("l1")
    centre.hub.known["student", "l1"] = None
    centre.tick(20)
    assert (centre.lease().state, centre.seconds_charged()) == (LeaseState.RELEASED, 110)


def test_a_tick_done_twice_changes_nothing_in_any_table(centre_on_each: Centre) -> None:
    """In the middle of everything that can be going on."""
    centre = centre_on_each
    centre.start("running")
    centre.start("soon over", minutes=15)
    centre.start("ending")
    centre.order_end("ending", "an operator's word")
    centre.book("booked", pool="lab", gpus=0)
    centre.start("gone", pool="lab", gpus=0)
    centre.world.kill("gone")
    centre.world.start("left over", START, labels={})
    centre.tick(14 * MINUTE)
    centre.tick()
    before = centre.everything()
    asked = list(centre.hub.asked)
    for _ in range(3):
        centre.tick()
    assert centre.everything() == before
    assert centre.hub.asked == asked


# -- notices ---------------------------------------------------------------------------------------------------------------


def test_the_end_is_announced_once_ten_minutes_before_and_does_not_move(centre: Centre) -> None:
    lease = centre.start(minutes=60)
    centre.clock.at = lease.ends_at - 10 * MINUTE - 1
    centre.tick()
    assert centre.entries(EntryKind.NOTICED) == []
    for _ in range(5):
        centre.tick(1)
    (notice,) = centre.entries(EntryKind.NOTICED)
    assert (notice.why, notice.who, notice.at) == (ENDS_SOON, "clock", lease.ends_at - 10 * MINUTE)
    assert (centre.lease().ends_at, centre.lease().noticed_at) == (lease.ends_at, notice.at)


@pytest.mark.parametrize("slow", [0, 20], ids=["at once", "after a start that took its time"])
def test_a_server_that_its_hours_end_is_told_so_and_ends_for_that(centre: Centre, slow: int) -> None:
    centre.load(TIGHT)
    lease = centre.book("l1", minutes=90)
    assert lease.ends_at == START + HOUR, "the day has one GPU-hour"
    centre.clock.at += slow  # what is left over is too little for anything
    process = centre.world.start("l1", centre.clock.at)
    centre.hub.known["student", "l1"] = None
    centre.admission.change("l1", run(process.handle, process.node))
    centre.clock.at = START + 50 * MINUTE
    centre.tick()
    (notice,) = centre.entries(EntryKind.NOTICED)
    assert (notice.why, centre.lease().ends_at) == (Code.BUDGET_SPENT, lease.ends_at)
    centre.tick(10 * MINUTE)
    assert (centre.lease().state, centre.lease().reason) == (LeaseState.ENDING, "budget-spent")


def test_an_extended_lease_is_reminded_again(centre: Centre) -> None:
    lease = centre.start(minutes=15)
    centre.tick(5 * MINUTE)
    centre.admission.change("l1", lambda ledger, lease, now: ledger.extend(lease, lease.ends_at + HOUR, now))
    centre.tick(MINUTE)
    assert len(centre.entries(EntryKind.NOTICED)) == 1
    centre.clock.at = lease.ends_at + HOUR - MINUTE
    centre.tick()
    assert len(centre.entries(EntryKind.NOTICED)) == 2


def test_a_server_shorter_than_its_notice_is_reminded_at_once_and_an_ending_one_never(centre: Centre) -> None:
    centre.load(POLICY.replace("min: 15m", "min: 5s"))
    centre.start("short", minutes=1)
    centre.start("ending", minutes=1)
    centre.order_end("ending")
    centre.hub.known["student", "ending"] = "stop"
    centre.tick(1)
    assert [entry.lease for entry in centre.entries(EntryKind.NOTICED)] == ["short"]


def test_hours_that_are_used_up_end_a_server_after_a_notice_and_the_grace(centre: Centre) -> None:
    """A cut of the budget: nothing is ended at once, and what it is ended for is written down."""
    centre.start()
    centre.tick(2 * HOUR)
    centre.load(TIGHT)
    centre.tick(2)
    cut_at = START + 2 * HOUR + 2
    (notice,) = centre.entries(EntryKind.NOTICED)
    assert (notice.why, notice.at) == (Code.BUDGET_SPENT, cut_at)
    assert centre.lease().ends_at == cut_at + 30 * MINUTE
    for _ in range(3):
        centre.tick(9 * MINUTE)
    assert len(centre.entries(EntryKind.NOTICED)) == 1, "told once, and no reminder on top"
    assert centre.lease().state is LeaseState.RUNNING
    centre.tick(3 * MINUTE)
    assert (centre.lease().state, centre.lease().reason) == (LeaseState.ENDING, "budget-spent")
    assert centre.hub.asked == [("student", "l1")]
    centre.tick(2)
    assert (centre.lease().state, centre.lease().reason) == (LeaseState.RELEASED, "budget-spent")


def test_a_server_that_is_ending_anyway_gets_no_notice_of_hours_used_up(centre: Centre) -> None:
    centre.start()
    centre.tick(2 * HOUR)
    centre.order_end()
    centre.hub.known["student", "l1"] = "stop"
    centre.load(TIGHT)
    centre.tick(2)
    assert centre.entries(EntryKind.NOTICED) == []


def test_servers_without_gpus_end_for_no_budget(centre: Centre) -> None:
    centre.start("cpu", gpus=0)
    centre.start("gpu")
    centre.tick(2 * HOUR)
    centre.load(TIGHT)
    centre.tick(2)
    assert [entry.lease for entry in centre.entries(EntryKind.NOTICED)] == ["gpu"]


@pytest.mark.parametrize(
    ("extended", "want"),
    [
        pytest.param(False, "budget-spent", id="still without hours: for that"),
        pytest.param(True, "ended", id="given more time since: because its time is over"),
    ],
)
def test_the_reason_is_what_last_moved_the_end_however_long_its_history(
    centre: Centre, extended: bool, want: str
) -> None:
    centre.start()
    centre.tick(2 * HOUR)
    centre.load(TIGHT)
    centre.tick(2)
    with centre.store.booking() as txn:
        ledger = txn.ledger(None)
        ledger.longest_slice = 1  # a long life: more than a thousand entries
        txn.save(ledger, [ledger.accrue(centre.lease(), centre.clock.at + 1200)])
    centre.clock.at += 1200
    if extended:
        centre.load(POLICY)
        centre.admission.change("l1", lambda ledger, lease, now: ledger.extend(lease, now + HOUR, now))
    centre.clock.at = centre.lease().ends_at
    centre.tick()
    assert (centre.lease().state, centre.lease().reason) == (LeaseState.ENDING, want)
