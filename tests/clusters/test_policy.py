from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.clusters.model import ClusterEnd, ClusterFacts
from hub_ext.clusters.policy import (
    HOURS_OVER,
    IDLE_MINUTES,
    IDLE_MINUTES_DEFAULT,
    NO_CLIENT,
    OWNER_GONE,
    RETIRE_SECONDS,
    heard,
    idle_seconds,
    most_of_device,
    retire_at,
    to_end,
    to_retire,
    why_to_stop,
    worker_memory,
)
from hub_ext.core.clock import HOUR, MINUTE
from hub_ext.quota.codes import Ended
from hub_ext.quota.model import Lease, LeaseState

START = 1_800_000_000
NOW = START + HOUR
WORKING = ClusterFacts(
    started_at=START,
    ends_at=START + 4 * HOUR,
    idle_minutes=20,
    last_active=NOW,
    last_client=NOW,
    owner_seen=NOW,
)


def lease(lease_id: str = "w1", ends_at: int = NOW + HOUR, **changes: object) -> Lease:
    values: dict[str, object] = {
        "person": "kim",
        "pool": "univ",
        "path": ("univ", "seoul"),
        "amounts": {"cpu": 2000, "memory": 8192},
        "kind": "dask-worker",
        "guaranteed": True,
        "lender": None,
        "cost": 0,
        "booked_at": START,
        "charged_until": START,
        "state": LeaseState.RUNNING,
        **changes,
    }
    return Lease(id=lease_id, ends_at=ends_at, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        pytest.param({}, None, id="it works, for somebody"),
        pytest.param({"ends_at": NOW + 1}, None, id="a second before its end"),
        pytest.param({"ends_at": NOW}, ClusterEnd.TIME, id="at its end"),
        pytest.param({"last_active": NOW - 20 * MINUTE + 1}, None, id="not idle for long enough"),
        pytest.param({"last_active": NOW - 20 * MINUTE}, ClusterEnd.IDLE, id="idle for as long as was chosen"),
        pytest.param({"last_active": NOW - 20 * MINUTE, "idle_minutes": 60}, None, id="a longer time was chosen"),
        pytest.param({"last_active": NOW - 20 * MINUTE, "idle_minutes": 0}, ClusterEnd.IDLE, id="no time is never for ever"),
        pytest.param({"last_active": NOW - HOUR, "idle_minutes": 9999}, ClusterEnd.IDLE, id="a time that is not offered is the longest that is"),
        pytest.param({"last_client": NOW - HOUR}, None, id="nobody is there, and it works still"),
        pytest.param({"last_client": NOW - HOUR, "last_active": NOW - NO_CLIENT + 1}, None, id="nobody is there, idle for a moment"),
        pytest.param({"last_client": NOW - HOUR, "last_active": NOW - NO_CLIENT}, ClusterEnd.NO_CLIENT, id="nobody is there, and nothing is done"),
        pytest.param({"last_client": NOW - NO_CLIENT, "last_active": NOW - 10 * MINUTE}, ClusterEnd.NO_CLIENT, id="they left five minutes ago"),
        pytest.param({"last_client": START, "last_active": START}, ClusterEnd.IDLE, id="a scheduler that never told anything"),
        pytest.param({"owner_seen": NOW - OWNER_GONE + 1}, None, id="the server may be started anew"),
        pytest.param({"owner_seen": NOW - OWNER_GONE}, ClusterEnd.OWNER_GONE, id="the owner's server is gone"),
        pytest.param({"owner_seen": None}, None, id="tied to no server"),
        pytest.param({"hours_over_since": NOW - HOURS_OVER + 1}, None, id="the hours were spent just now"),
        pytest.param({"hours_over_since": NOW - HOURS_OVER}, ClusterEnd.HOURS, id="without workers, and without hours for any"),
        pytest.param({"ends_at": NOW, "owner_seen": START, "last_active": START}, ClusterEnd.TIME, id="the end of the lease is named first"),
    ],
)  # fmt: skip
def test_why_a_cluster_is_stopped(changes: dict[str, object], want: ClusterEnd | None) -> None:
    assert why_to_stop(replace(WORKING, **changes), NOW) == want  # type: ignore[arg-type]


@given(st.integers(), st.integers(0, 10**7))
def test_nothing_idles_for_more_than_an_hour_whatever_was_chosen(minutes: int, idle: int) -> None:
    assert 0 < idle_seconds(minutes) <= HOUR
    facts = replace(WORKING, idle_minutes=minutes, last_active=NOW - HOUR - idle)
    assert why_to_stop(facts, NOW) is not None


def test_what_is_offered_is_what_counts() -> None:
    assert [idle_seconds(minutes) for minutes in IDLE_MINUTES] == [
        minutes * MINUTE for minutes in IDLE_MINUTES
    ]
    assert 0 not in IDLE_MINUTES
    assert IDLE_MINUTES_DEFAULT in IDLE_MINUTES


# -- what a scheduler tells ---------------------------------------------------------------------------------------


def test_a_scheduler_that_works_for_a_client_moves_both_times() -> None:
    old = replace(WORKING, last_active=START, last_client=START)
    told = heard(old, NOW, idle=0, clients=1)
    assert (told.last_active, told.last_client) == (NOW, NOW)


def test_a_scheduler_tells_for_how_long_it_has_been_idle() -> None:
    told = heard(replace(WORKING, last_active=START), NOW, idle=90.5, clients=0)
    assert (told.last_active, told.last_client) == (NOW - 90, WORKING.last_client)


def test_what_is_not_told_moves_nothing() -> None:
    old = replace(WORKING, last_active=START, last_client=START)
    assert heard(old, NOW, idle=None, clients=None) == old


@given(st.none() | st.floats(min_value=-(10**9), max_value=10**18), st.none() | st.integers(-5, 10**12))
def test_no_value_moves_a_time_past_now_or_backwards(idle: float | None, clients: int | None) -> None:
    old = replace(WORKING, last_active=START, last_client=START)
    told = heard(old, NOW, idle=idle, clients=clients)
    assert START <= told.last_active <= NOW
    assert START <= told.last_client <= NOW


# -- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "want"), [(1024, 768), (4096, 3840), (8192, 7680), (98304, 92160), (200, 1)]
)
def test_a_worker_keeps_below_what_its_lease_has(memory: int, want: int) -> None:
    assert worker_memory(memory) == want


@given(st.integers(1024, 10**7))
def test_what_is_left_is_enough_for_the_process_that_watches(memory: int) -> None:
    assert 256 <= memory - worker_memory(memory) <= max(256, memory // 16)


def test_a_pool_leaves_the_driver_some_of_the_device() -> None:
    assert most_of_device(141 * 1024) == 126336
    assert most_of_device(18 * 1024) == 16128


# -- workers that go ----------------------------------------------------------------------------------------------


def test_a_worker_retires_a_minute_before_its_lease_ends() -> None:
    assert retire_at(lease(ends_at=NOW + HOUR), NOW) == NOW + HOUR - RETIRE_SECONDS


def test_with_less_time_it_retires_at_once() -> None:
    assert retire_at(lease(ends_at=NOW + 20), NOW) == NOW


def test_those_whose_time_has_come_the_first_to_end_first() -> None:
    leases = [
        lease("later", NOW + RETIRE_SECONDS + 1),
        lease("second", NOW + RETIRE_SECONDS),
        lease("first", NOW + 5),
        lease("over", NOW - 5),
        lease("gone", NOW + 5, state=LeaseState.RELEASED),
    ]
    assert [one.id for one in to_retire(leases, NOW)] == ["over", "first", "second"]


def test_firmly_ended_is_what_is_over_or_was_ordered_to_end() -> None:
    leases = [
        lease("runs", NOW + 1),
        lease("ordered", NOW + HOUR, state=LeaseState.ENDING),
        lease("over", NOW),
        lease("gone", NOW, state=LeaseState.RELEASED),
    ]
    assert [one.id for one in to_end(leases, NOW)] == ["over", "ordered"]


def test_the_ledger_and_its_words_know_why_we_stop_a_cluster() -> None:
    assert {end.value for end in ClusterEnd} <= {end.value for end in Ended}
