"""The edges of periods: first instants of local dates, in zones where a day is not always 24 hours long (QUOTA.md §7)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.quota.budget import first_instant, local_date, slices, window_at, windows_between
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import Budget, Lease, LeaseState, Period, Policy, Pool, Term
from hub_ext.quota.sums import Sums
from tests.support.builders import HOUR, ask, budget, decision, gpus, lease, played

SEOUL, BERLIN, NEW_YORK, SAO_PAULO, HAVANA, ST_JOHNS, APIA, LORD_HOWE = map(
    ZoneInfo,
    (
        "Asia/Seoul", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "America/Havana", "America/St_Johns",
        "Pacific/Apia", "Australia/Lord_Howe",
    ),
)  # fmt: skip
ZONES = st.sampled_from(sorted(available_timezones() - {"localtime", "Factory"})).map(ZoneInfo)
INSTANTS = st.integers(0, int(datetime(2037, 12, 31, tzinfo=UTC).timestamp()))


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("zone", "day", "start", "hours"),
    [
        pytest.param(SEOUL, "2027-03-02", "2027-03-01T15:00", 24, id="Seoul: every day alike"),
        pytest.param(SEOUL, "1988-05-08", "1988-05-07T15:00", 23, id="Seoul, when it had summer time"),
        pytest.param(BERLIN, "2027-03-28", "2027-03-27T23:00", 23, id="Berlin: an hour is skipped in the night"),
        pytest.param(BERLIN, "2027-10-31", "2027-10-30T22:00", 25, id="Berlin: an hour comes twice"),
        pytest.param(NEW_YORK, "2027-11-07", "2027-11-07T04:00", 25, id="New York: an hour comes twice"),
        pytest.param(SAO_PAULO, "2018-11-04", "2018-11-04T03:00", 23, id="São Paulo: midnight is skipped"),
        pytest.param(SAO_PAULO, "2018-02-17", "2018-02-17T02:00", 25, id="São Paulo: the hour before midnight comes twice"),
        pytest.param(HAVANA, "2027-11-07", "2027-11-07T04:00", 25, id="Havana: the hour after midnight comes twice, the first counts"),
        pytest.param(ST_JOHNS, "2006-10-29", "2006-10-29T02:30", 25, id="St. John's: a minute after midnight it is yesterday again"),
        pytest.param(APIA, "2011-12-30", "2011-12-30T10:00", 0, id="Apia: a day that was left out"),
        pytest.param(APIA, "2011-12-31", "2011-12-30T10:00", 24, id="Apia: the day after it"),
        pytest.param(LORD_HOWE, "2027-10-03", "2027-10-02T13:30", 23.5, id="Lord Howe: half an hour is skipped"),
    ],
)  # fmt: skip
def test_days(zone: ZoneInfo, day: str, start: str, hours: float) -> None:
    first = date.fromisoformat(day)
    begins, ends = first_instant(first, zone), first_instant(first + timedelta(days=1), zone)
    assert begins == utc(start)
    assert ends - begins == hours * 3600
    if hours:
        assert local_date(begins, zone) == local_date(ends - 1, zone) == first
        assert window_at(Budget(Decimal(1), Period.DAY), ends - 1, zone) is not None
    assert local_date(begins - 1, zone) < first


TUESDAY = utc("2027-03-02T00:00")


@pytest.mark.parametrize(
    ("period", "first", "after"),
    [
        pytest.param(Period.DAY, "2027-03-02", "2027-03-03", id="a day"),
        pytest.param(Period.WEEK, "2027-03-01", "2027-03-08", id="a week begins on Monday"),
        pytest.param(Period.MONTH, "2027-03-01", "2027-04-01", id="a month"),
        pytest.param(Period.QUARTER, "2027-01-01", "2027-04-01", id="a quarter"),
        pytest.param(Period.YEAR, "2027-01-01", "2028-01-01", id="a year"),
        pytest.param(
            Term(date(2027, 2, 28), date(2027, 3, 2)),
            "2027-02-28",
            "2027-03-03",
            id="a term, its last day included",
        ),
    ],
)
def test_windows(period: Period | Term, first: str, after: str) -> None:
    window = window_at(Budget(Decimal(1), period), TUESDAY, SEOUL)
    assert window is not None
    wanted = [first_instant(date.fromisoformat(day), SEOUL) for day in (first, after)]
    assert [window.start, window.end, window.label] == [*wanted, first]


@pytest.mark.parametrize(
    ("period", "day", "first", "after"),
    [
        (Period.QUARTER, "2027-12-31", "2027-10-01", "2028-01-01"),
        (Period.MONTH, "2028-02-29", "2028-02-01", "2028-03-01"),
        (Period.WEEK, "2027-01-01", "2026-12-28", "2027-01-04"),
        (Period.YEAR, "2028-12-31", "2028-01-01", "2029-01-01"),
        (Period.MONTH, "2027-12-31", "2027-12-01", "2028-01-01"),
    ],
)
def test_windows_at_the_turn(period: Period, day: str, first: str, after: str) -> None:
    last = first_instant(date.fromisoformat(day) + timedelta(days=1), SEOUL) - 1
    window = window_at(Budget(Decimal(1), period), last, SEOUL)
    assert window is not None
    assert (window.label, local_date(window.end, SEOUL).isoformat()) == (first, after)


@given(zone=ZONES, instant=INSTANTS, period=st.sampled_from(Period))
def test_every_instant_lies_in_one_period_of_every_zone(zone: ZoneInfo, instant: int, period: Period) -> None:
    one = Budget(Decimal(1), period)
    window = window_at(one, instant, zone)
    assert window is not None
    assert window.start <= instant < window.end
    assert window.label == local_date(window.start, zone).isoformat()
    for edge in (window.start, window.end - 1):
        assert window_at(one, edge, zone) == window
    before, after = window_at(one, window.start - 1, zone), window_at(one, window.end, zone)
    assert before is not None
    assert after is not None
    assert (before.end, after.start) == (window.start, window.end)


@given(zone=ZONES, instant=INSTANTS, length=st.integers(0, 60 * 86400), period=st.sampled_from(Period))
def test_periods_cover_a_stretch_of_time_without_gaps(
    zone: ZoneInfo, instant: int, length: int, period: Period
) -> None:
    found = list(windows_between(Budget(Decimal(1), period), instant, instant + length, zone))
    assert bool(found) == bool(length)
    for one, other in pairwise(found):
        assert one.end == other.start
    if found:
        assert found[0].start <= instant < found[0].end
        assert found[-1].start < instant + length <= found[-1].end


@given(
    zone=ZONES,
    instant=INSTANTS,
    length=st.integers(0, 4 * 86400),
    longest=st.sampled_from([300, 3600, 86400]),
)
def test_slices_cover_the_time_and_none_crosses_midnight_or_an_edge(
    zone: ZoneInfo, instant: int, length: int, longest: int
) -> None:
    policy = Policy(zone, {}, {"p": Pool("p")})
    edges = [instant + length // 3, instant - 5]
    found = list(slices(policy, instant, instant + length, edges, longest))
    assert sum(stop - start for start, stop in found) == length
    for start, stop in found:
        assert 0 < stop - start <= longest
        assert local_date(start, zone) == local_date(stop - 1, zone)
        assert not start < edges[0] < stop
    assert all(one[1] == other[0] for one, other in pairwise(found))


@pytest.mark.parametrize(
    ("zone", "now", "hours"),
    [
        pytest.param("Europe/Berlin", "2027-03-28T00:00:00+01:00", 23, id="a day of 23 hours"),
        pytest.param("Europe/Berlin", "2027-10-31T00:00:00+02:00", 25, id="a day of 25 hours"),
        pytest.param("America/Sao_Paulo", "2018-11-04T01:00:00-02:00", 23, id="a day that begins at one"),
    ],
)
def test_a_days_hours_are_elapsed_ones(zone: str, now: str, hours: int) -> None:
    """With an hour for each hour of the day, a lease of one GPU runs all day and one second of the next."""
    pools = {
        "univ": {
            "quota": {"gpu.h200": {"nominal": 4}},
            "budgets": [{"hours": hours, "period": "day"}],
            "session": {"max": "48h"},
        }
    }
    outcome = played(
        pools,
        ask("a", "univ", gpus(h200=1)),
        {"at": f"+{hours}h", "tick": True},
        {"at": f"+{hours}h1s", "tick": True},
        now=now,
        policy={"zone": zone},
    )
    assert decision(outcome, "a")["facts"]["cut_by"] is None
    assert budget(outcome, "univ")["used"] == 1
    outcome = played(
        pools,
        {"at": f"+{hours - 1}h59m59s", "tick": True},
        leases=[lease("l1", "univ", gpus(h200=1), ends="+48h")],
        now=now,
        policy={"zone": zone},
    )
    assert budget(outcome, "univ")["used"] == hours * HOUR - 1


def test_what_was_reported_for_a_day_never_changes() -> None:
    """A lease over the night of a clock change: each local date gets its own seconds, whenever it is charged."""
    policy = Policy(BERLIN, {}, {"p": Pool("p", budgets=(Budget(Decimal(9), Period.DAY),))})
    start = utc("2027-10-30T20:00")
    made = Lease(
        "l",
        "p",
        "p",
        ("p",),
        {},
        "server",
        True,
        None,
        1,
        start,
        start + 40 * 3600,
        start,
        LeaseState.RUNNING,
        start,
    )

    def charged(steps: list[int]) -> dict[str, int]:
        ledger = Ledger(policy, Sums())
        running = ledger.record(made, start)
        for step in steps:
            running = ledger.accrue(running, step)
        ledger.release(running, start + 40 * 3600)
        days: dict[str, int] = {}
        for charge in ledger.charges:
            days[charge.day.isoformat()] = days.get(charge.day.isoformat(), 0) + charge.seconds
        spent = {key.period: value for key, value in ledger.sums.of_kind("spent")}
        assert spent == days
        return days

    wanted = {"2027-10-30": 2 * 3600, "2027-10-31": 25 * 3600, "2027-11-01": 13 * 3600}
    assert charged([]) == wanted
    assert charged([start + 7201, start + 30 * 3600, start + 30 * 3600]) == wanted
