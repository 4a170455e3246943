"""What a scheduler says, whatever it is; and what follows for its workers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.clusters.lifecycle import (
    DIED,
    MOST_NAMES,
    STOPPED,
    TAKEN_BACK,
    Heartbeat,
    WorkerSeen,
    next_steps,
    read_heartbeat,
)
from hub_ext.clusters.policy import RETIRE_SECONDS
from hub_ext.core.errors import BadInput
from hub_ext.quota.model import Lease, LeaseState

NOW = 1_900_000_000
HONEST: dict[str, Any] = {
    "scheduler_address": "tls://127.0.0.1:41000",
    "dashboard_address": "http://127.0.0.1:41001",
    "api_address": "http://127.0.0.1:41002",
    "count": 3,
    "active_workers": ["a", "b"],
    "closing_workers": ["c"],
    "closed_workers": ["d"],
    "idle_seconds": 1.5,
    "clients": 2,
    "memory": {"process": 10, "managed": 4, "spilled": 0, "limit": 1 << 40, "more": "x"},
}


def test_an_honest_heartbeat_is_read_as_it_is() -> None:
    read = read_heartbeat(HONEST)
    assert read.count == 3
    assert (set(read.active), set(read.closing), set(read.closed)) == ({"a", "b"}, {"c"}, {"d"})
    assert (read.idle_seconds, read.clients) == (1.5, 2)
    assert read.memory == {"process": 10, "managed": 4, "spilled": 0, "limit": 1 << 40}


def test_a_scheduler_without_our_preload_is_understood() -> None:
    plain = {name: HONEST[name] for name in HONEST if name not in ("idle_seconds", "clients", "memory")}
    read = read_heartbeat(plain | {"dashboard_address": ""})
    assert (read.idle_seconds, read.clients, read.memory, read.dashboard_address) == (None, None, {}, "")


REFUSED: dict[str, dict[str, Any]] = {
    "a negative count": {"count": -1},
    "a count in words": {"count": "500"},
    "not a number": {"count": float("nan")},
    "endless": {"count": float("inf")},
    "half a worker": {"count": 2.5},
    "yes": {"count": True},
    "no count": {"count": None},
    "larger than any number of a database": {"count": 10**30},
    "workers as a text": {"active_workers": "abc"},
    "workers as an object": {"closed_workers": {"a": 1}},
    "more names than any cluster has": {"closing_workers": ["x"] * (MOST_NAMES + 1)},
    "idle since never": {"idle_seconds": float("nan")},
    "idle since tomorrow": {"idle_seconds": -1},
    "idle for ever": {"idle_seconds": float("inf")},
    "clients below none": {"clients": -3},
    "memory as a list": {"memory": [1]},
    "memory below nothing": {"memory": {"process": -1}},
    "a scheduler without encryption": {"scheduler_address": "tcp://127.0.0.1:1"},
    "a file": {"api_address": "file:///etc/passwd"},
    "an address with a path": {"api_address": "http://127.0.0.1:1/hub/api"},
    "an address with a name and password": {"api_address": "http://a:b@127.0.0.1:1"},
    "an address with a query": {"dashboard_address": "http://127.0.0.1:1?x"},
    "an address without a port": {"dashboard_address": "http://127.0.0.1"},
    "an address with a port that is none": {"dashboard_address": "http://127.0.0.1:99999"},
    "an address with a new line": {"api_address": "http://127.0.0.1:1\r\nHost: x"},
    "an address in brackets that is none": {"api_address": "http://[::1:80"},
    "no address": {"scheduler_address": ""},
    "an address that is a number": {"scheduler_address": 7},
}


@pytest.mark.parametrize("forged", REFUSED.values(), ids=REFUSED.keys())
def test_what_no_scheduler_of_ours_would_say_is_refused(forged: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        read_heartbeat(HONEST | forged)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*HONEST, "x"]), ANYTHING) | ANYTHING, st.integers(0, 9))
def test_whatever_comes_is_refused_or_becomes_a_message_within_bounds(said: object, most: int) -> None:
    try:
        read = read_heartbeat(HONEST | said if isinstance(said, dict) else said)
    except BadInput:
        return
    message = read.only({"a", "b"}, {"a"}, most)
    assert 0 <= message["count"] <= most  # type: ignore[operator]
    for name in ("active_workers", "closing_workers", "closed_workers"):
        assert set(message[name]) <= {"a", "b"}  # type: ignore[call-overload]
    json.dumps(message)


def test_workers_that_the_gateway_did_not_make_are_no_workers() -> None:
    read = read_heartbeat(HONEST | {"active_workers": ["mine", "theirs", 7, None, "x" * 100], "count": 500})
    message = read.only({"mine", "silent"}, {"silent"}, 2)
    assert message["count"] == 2
    # One that runs and that nothing is said of goes on: it is its process that tells.
    assert message["active_workers"] == ["mine", "silent"]


def test_a_worker_that_is_said_to_be_everything_at_once_is_the_last_of_it() -> None:
    said = read_heartbeat(
        HONEST | {"active_workers": ["a"], "closing_workers": ["a"], "closed_workers": ["a"]}
    )
    message = said.only({"a"}, {"a"}, 9)
    assert (message["active_workers"], message["closing_workers"], message["closed_workers"]) == (
        [],
        [],
        ["a"],
    )


def test_a_heartbeat_without_anything_is_one() -> None:
    assert Heartbeat("tls://h:1", "", "http://h:2", 0).only((), (), 5)["active_workers"] == []


# -- workers ---------------------------------------------------------------------------------------------------------------


def a_lease(name: str, **more: Any) -> Lease:
    lease = Lease(
        id=name,
        person="student",
        pool="univ",
        path=("univ",),
        amounts={"cpu": 1000},
        kind="dask-worker",
        guaranteed=True,
        lender=None,
        cost=0,
        booked_at=NOW - 100,
        ends_at=NOW + 3600,
        charged_until=NOW - 100,
        server="c1",
    )
    return replace(lease, **more)


def running(name: str, **more: Any) -> Lease:
    return a_lease(name, state=LeaseState.RUNNING, started_at=NOW - 90, handle=f"process of {name}", **more)


def test_each_booked_lease_gets_one_worker_and_no_more() -> None:
    leases = [a_lease("l2", booked_at=NOW - 5), a_lease("l1"), running("l3")]
    steps = next_steps([WorkerSeen("w3", "l3")], leases, NOW)
    assert [lease.id for lease in steps.start] == ["l1", "l2"]
    again = next_steps([WorkerSeen(f"w{i}", f"l{i}") for i in (1, 2, 3)], leases, NOW)
    assert (again.start, again.retire, again.stop, again.give_back) == ((), (), {}, ())


def test_a_lease_that_has_run_is_never_run_again() -> None:
    assert next_steps([], [running("l1")], NOW).start == ()


def test_no_worker_goes_on_without_its_lease() -> None:
    released = running("l2")
    released = replace(released, state=LeaseState.RELEASED)
    steps = next_steps([WorkerSeen("w1", "l1"), WorkerSeen("w2", "l2")], [released], NOW)
    assert steps.stop == {"w1": STOPPED, "w2": STOPPED}


def test_a_worker_that_died_is_ended_as_one() -> None:
    assert next_steps([WorkerSeen("w1", "l1", gone=True)], [running("l1")], NOW).stop == {"w1": DIED}


def test_a_worker_retires_before_its_end_is_asked_once_and_is_ended_then() -> None:
    lease = running("l1", ends_at=NOW + RETIRE_SECONDS + 1, noticed_at=NOW)
    worker = WorkerSeen("w1", "l1")
    assert next_steps([worker], [lease], NOW).retire == ()
    assert next_steps([worker], [lease], NOW + 1).retire == ("w1",)
    assert next_steps([replace(worker, told_to_retire=True)], [lease], NOW + 2).retire == ()
    steps = next_steps([replace(worker, told_to_retire=True)], [lease], lease.ends_at)
    assert (steps.stop, steps.retire) == ({"w1": "ended"}, ())


def test_what_is_taken_back_is_told_as_taken_back() -> None:
    lease = running("l1", ends_at=NOW, noticed_for="ticket", ends_unless_taken=NOW + 900)
    assert next_steps([WorkerSeen("w1", "l1")], [lease], NOW).stop == {"w1": TAKEN_BACK}


def test_an_order_to_end_counts_more_than_any_time() -> None:
    lease = running("l1", reason="stopped-by-operator")
    lease = replace(lease, state=LeaseState.ENDING)
    assert next_steps([WorkerSeen("w1", "l1")], [lease], NOW).stop == {"w1": "stopped-by-operator"}


def test_nothing_begins_under_a_lease_that_is_about_to_end() -> None:
    steps = next_steps([], [a_lease("l1", ends_at=NOW + RETIRE_SECONDS)], NOW)
    assert (steps.start, [lease.id for lease in steps.give_back]) == ((), ["l1"])
