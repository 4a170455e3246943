"""How a scenario is played: what happens when, in which order, and what the file's facts and events mean (QUOTA.md §10)."""

from __future__ import annotations

from typing import Any

import pytest

from hub_ext.core.errors import FaultyDocument
from tests.support.builders import (
    HOUR,
    ask,
    budget,
    changes,
    decision,
    decisions,
    gpus,
    lease,
    played,
    policy_text,
)

ONE = gpus(h200=1)


def quota(nominal: float, **more: Any) -> dict[str, Any]:
    return {"gpu.h200": {"nominal": nominal, **more}}


ROOM_FOR_ONE = {"univ": {"quota": quota(1)}}


def told(outcome: Any) -> list[tuple[str, str, str]]:
    """(time, id, what) of everything, in order."""
    return [
        (entry["at"][11:19], entry["id"], entry.get("verdict") or entry["change"])
        for entry in outcome.decisions
    ]


# -- order -------------------------------------------------------------------------------------------------------------


def test_an_end_comes_before_an_ask_at_the_same_instant() -> None:
    outcome = played(
        ROOM_FOR_ONE, ask("a", "univ", ONE, at="+1h"), leases=[lease("l1", "univ", ONE, ends="+1h")]
    )
    assert told(outcome) == [("10:00:00", "l1", "stopped"), ("10:00:00", "a", "admit")]


def test_one_second_earlier_it_waits() -> None:
    outcome = played(
        ROOM_FOR_ONE, ask("a", "univ", ONE, at="+59m59s"), leases=[lease("l1", "univ", ONE, ends="+1h")]
    )
    assert told(outcome) == [("09:59:59", "a", "wait")]


def test_what_is_due_between_events_happens_at_its_own_instant() -> None:
    outcome = played(
        ROOM_FOR_ONE,
        ask("a", "univ", ONE, minutes=30),
        ask("b", "univ", ONE, at="+30m1s", minutes=15),
        {"at": "+5h", "tick": True},
    )
    assert told(outcome) == [
        ("09:00:00", "a", "admit"),
        ("09:30:00", "a", "stopped"),
        ("09:30:01", "b", "admit"),
        ("09:45:01", "b", "stopped"),
    ]


def test_events_are_played_by_time_and_then_as_they_stand() -> None:
    outcome = played(
        ROOM_FOR_ONE,
        ask("late", "univ", ONE, at="+2h"),
        ask("second", "univ", ONE, at="+1h"),
        {"at": "+1h", "release": "second"},
        ask("third", "univ", ONE, at="+1h"),
        ask("first", "univ", ONE, minutes=15),
    )
    assert told(outcome) == [
        ("09:00:00", "first", "admit"),
        ("09:15:00", "first", "stopped"),
        ("10:00:00", "second", "admit"),
        ("10:00:00", "third", "admit"),
        ("11:00:00", "late", "wait"),
    ]


def test_ends_come_before_notices_and_notices_before_the_edge_of_the_next_ask() -> None:
    """At 10:00 "ends" ends, the hours are used up for "runs", and the ask finds both done."""
    state = {"univ": {"quota": quota(3), "budgets": [{"hours": 100, "period": "month"}]}}
    outcome = played(
        state,
        ask("a", "univ", ONE, at="+1h"),
        used_hours=[{"pool": "univ", "hours": 98}],
        leases=[lease("runs", "univ", ONE), lease("ends", "univ", ONE, ends="+1h")],
    )
    assert told(outcome) == [
        ("10:00:00", "ends", "stopped"),
        ("10:00:00", "runs", "noticed"),
        ("10:00:00", "a", "wait"),
    ]


def test_leases_that_end_together_end_by_id_and_then_what_they_held_is_given_on() -> None:
    leases = [
        lease("b", "univ", ONE, ends="+1h"),
        lease("a", "univ", ONE, ends="+1h"),
        lease("over-1", "univ", ONE, started="-50m"),
        lease("over-2", "univ", ONE, started="-40m"),
    ]
    outcome = played({"univ": {"quota": quota(2)}}, {"at": "+1h", "tick": True}, leases=leases)
    assert told(outcome) == [
        ("10:00:00", "a", "stopped"),
        ("10:00:00", "b", "stopped"),
        ("10:00:00", "over-1", "promoted"),
        ("10:00:00", "over-2", "promoted"),
    ]


def test_the_run_ends_with_the_last_event() -> None:
    outcome = played(
        ROOM_FOR_ONE, {"at": "+59m", "tick": True}, leases=[lease("l1", "univ", ONE, ends="+1h")]
    )
    assert told(outcome) == []
    assert outcome.pools["univ"]["resources"]["gpu.h200"]["used"] == 1000


def test_without_events_the_state_is_told_as_it_stands() -> None:
    outcome = played(ROOM_FOR_ONE, leases=[lease("l1", "univ", ONE)])
    assert (outcome.decisions, outcome.budgets) == ([], [])
    assert outcome.pools == {
        "univ": {
            "share": 0,
            "dominant": None,
            "resources": {
                "gpu.h200": {
                    "nominal": 1000, "subtree": 1000, "local": 0, "used": 1000, "g": 1000,
                    "available": 0, "potential": 1000, "over": 0,
                }
            },
        }
    }  # fmt: skip


def test_every_resource_stated_in_the_tree_is_told_for_every_pool_of_it() -> None:
    pools = {
        "a": {"quota": quota(1)},
        "b": {"parent": "a", "quota": {"cpu": {"nominal": 2}}},
        "alone": {"quota": {"memory": {"nominal": "1Gi"}}},
        "bare": {},
    }
    outcome = played(pools)
    assert {name: list(pool["resources"]) for name, pool in outcome.pools.items()} == {
        "a": ["cpu", "gpu.h200"], "b": ["cpu", "gpu.h200"], "alone": ["memory"], "bare": [],
    }  # fmt: skip


def test_an_answer_has_these_parts() -> None:
    outcome = played(ROOM_FOR_ONE, ask("a", "univ", ONE, minutes=60), {"at": "+2h", "tick": True})
    assert outcome.decisions == [
        {
            "id": "a", "at": "2027-03-02T09:00:00+09:00", "verdict": "admit", "code": None,
            "facts": {"pool": "univ", "cost": 1, "cut_by": None, "soft": []},
            "guaranteed": True, "lender": None, "ends_at": "2027-03-02T10:00:00+09:00",
            "position": None, "eta": None, "reclaims": [],
        },
        {
            "id": "a", "at": "2027-03-02T10:00:00+09:00", "change": "stopped", "code": None, "facts": {"cut_by": None},
            "ends_at": "2027-03-02T10:00:00+09:00",
        },
    ]  # fmt: skip


def test_times_are_told_with_the_policys_offset() -> None:
    outcome = played(
        ROOM_FOR_ONE,
        ask("a", "univ", ONE, minutes=60),
        now="2027-03-28T00:30:00Z",
        policy={"zone": "Europe/Berlin"},
    )
    assert (outcome.decisions[0]["at"], outcome.decisions[0]["ends_at"]) == (
        "2027-03-28T01:30:00+01:00",
        "2027-03-28T03:30:00+02:00",
    )


@pytest.mark.parametrize(
    ("at", "wanted"),
    [
        pytest.param("+90s", "09:01:30", id="seconds"),
        pytest.param("+1h30m", "10:30:00", id="several units"),
        pytest.param("1h", "10:00:00", id="without a sign"),
        pytest.param("2027-03-02T10:15:00+09:00", "10:15:00", id="absolute"),
        pytest.param("2027-03-02T02:15:00Z", "11:15:00", id="absolute, in another zone"),
        pytest.param("2027-03-02T12:00:00", "12:00:00", id="without a zone: the policy's"),
        pytest.param(0, "09:00:00", id="nothing"),
    ],
)
def test_times_of_events(at: Any, wanted: str) -> None:
    assert told(played(ROOM_FOR_ONE, ask("a", "univ", ONE, at=at))) == [(wanted, "a", "admit")]


# -- once -----------------------------------------------------------------------------------------------------------------


def test_the_same_ask_twice_is_one_lease_and_one_answer() -> None:
    outcome = played(
        {"univ": {"quota": quota(4)}},
        ask("a", "univ", ONE),
        ask("a", "univ", gpus(h200=3), at="+1h", minutes=15),
    )
    first, second = decisions(outcome)
    assert second == first | {"at": "2027-03-02T10:00:00+09:00"}
    assert outcome.pools["univ"]["resources"]["gpu.h200"]["used"] == 1000


def test_it_stays_one_after_its_end() -> None:
    outcome = played(ROOM_FOR_ONE, ask("a", "univ", ONE, minutes=15), ask("a", "univ", ONE, at="+1h"))
    assert decisions(outcome)[1]["ends_at"] == "2027-03-02T09:15:00+09:00"
    assert outcome.pools["univ"]["resources"]["gpu.h200"]["used"] == 0


def test_an_ask_with_the_id_of_a_stated_lease_is_that_lease() -> None:
    outcome = played(ROOM_FOR_ONE, ask("l1", "univ", ONE), leases=[lease("l1", "univ", ONE)])
    found = decision(outcome, "l1")
    assert (found["verdict"], found["guaranteed"], found["ends_at"]) == (
        "admit",
        True,
        "2027-03-02T13:00:00+09:00",
    )
    assert outcome.pools["univ"]["resources"]["gpu.h200"]["used"] == 1000


def test_what_had_to_wait_may_be_asked_again() -> None:
    outcome = played(
        ROOM_FOR_ONE,
        ask("a", "univ", ONE),
        ask("a", "univ", ONE, at="+1h"),
        leases=[lease("l1", "univ", ONE, ends="+1h")],
    )
    assert told(outcome) == [
        ("09:00:00", "a", "wait"),
        ("10:00:00", "l1", "stopped"),
        ("10:00:00", "a", "admitted"),
        ("10:00:00", "a", "admit"),
    ]


def test_releasing_and_cancelling_twice_is_once() -> None:
    twice = [{"at": "+1h", "release": "l1"}, {"at": "+1h", "cancel": "l1"}, {"at": "+2h", "release": "l1"}]
    outcome = played(
        {"univ": {"quota": quota(4)}}, *twice, leases=[lease("l1", "univ", ONE), lease("l2", "univ", ONE)]
    )
    assert outcome.decisions == []
    assert outcome.pools["univ"]["resources"]["gpu.h200"]["used"] == 1000


def test_what_never_came_to_run_is_released_cancelled_and_extended_without_effect() -> None:
    nothing = [
        {"release": "late"},
        {"cancel": "late"},
        {"extend": {"id": "late", "minutes": 5}},
        {"extend": {"id": "refused", "minutes": 5}},
    ]
    outcome = played(
        ROOM_FOR_ONE,
        ask("refused", "univ", gpus(h200=2)),
        *({"at": "+1m"} | event for event in nothing),
        ask("late", "univ", ONE, at="+1h"),
    )
    assert told(outcome) == [("09:00:00", "refused", "refuse"), ("10:00:00", "late", "admit")]


@pytest.mark.parametrize(
    "event", [{"release": "nobody"}, {"cancel": "nobody"}, {"extend": {"id": "nobody", "minutes": 5}}]
)
def test_an_id_that_stands_nowhere_in_the_file_is_a_mistake(event: dict[str, Any]) -> None:
    with pytest.raises(FaultyDocument, match="there is no lease or ask 'nobody'"):
        played(ROOM_FOR_ONE, {"at": "+1h"} | event)


# -- several at once ---------------------------------------------------------------------------------------------------------


def test_as_many_as_fit_are_admitted_guaranteed_ones_first() -> None:
    state = {"seoul": {"quota": quota(1)}, "univ": {"parent": "seoul", "quota": quota(2)}}
    outcome = played(
        state,
        ask("c", "univ", ONE, kind="dask-worker", count=5, minutes=60),
        ask("c", "univ", ONE, kind="dask-worker", count=5, at="+1m"),
        {"at": "+30m", "extend": {"id": "c", "minutes": 30}},
        {"at": "+2h", "tick": True},
    )
    first, again = decisions(outcome)
    assert (first["verdict"], first["guaranteed"], first["lender"]) == ("admit", False, "seoul")
    told_of_them = [first["facts"][key] for key in ("admitted", "wanted", "rest", "cost")]
    assert told_of_them == [3, 5, "pool-full", 2.5]
    assert again == first | {"at": "2027-03-02T09:01:00+09:00"}
    assert changes(outcome) == [
        *((f"c/{i}", what, None) for what in ("extended", "stopped") for i in (1, 2, 3)),
        ("c/4", "admitted", None),
        ("c/5", "admitted", None),
    ]


def test_all_are_released_together() -> None:
    outcome = played(
        {"univ": {"quota": quota(4)}}, ask("c", "univ", ONE, count=3), {"at": "+1h", "cancel": "c"}
    )
    assert outcome.pools["univ"]["resources"]["gpu.h200"]["used"] == 0
    assert decision(outcome, "c")["facts"]["admitted"] == 3


def test_none_of_several_waits_as_one() -> None:
    outcome = played(ROOM_FOR_ONE, ask("c", "univ", ONE, count=3), leases=[lease("l1", "univ", ONE)])
    assert (decision(outcome, "c")["verdict"], decision(outcome, "c")["code"]) == ("wait", "pool-full")


def test_the_name_of_a_part_is_taken() -> None:
    with pytest.raises(FaultyDocument, match="'c/2' is what a part of ask 'c' is called"):
        played(ROOM_FOR_ONE, ask("c", "univ", ONE, count=2), leases=[lease("c/2", "univ", ONE)])
    played(
        ROOM_FOR_ONE, ask("c", "univ", ONE), leases=[lease("c/1", "univ", ONE), lease("c/01", "univ", ONE)]
    )


# -- leases that stand as facts -----------------------------------------------------------------------------------------------


def test_facts_are_booked_over_quota_and_labelled_in_the_order_of_the_file() -> None:
    leases = [
        lease("young", "univ", gpus(h200=2), started="-1m"),
        lease("old", "univ", gpus(h200=2), started="-5h"),
        lease("small", "univ", ONE),
    ]
    outcome = played({"univ": {"quota": quota(3)}}, {"at": "+10m", "release": "young"}, leases=leases)
    numbers = outcome.pools["univ"]["resources"]["gpu.h200"]
    assert changes(outcome) == [("old", "promoted", None)]
    assert (numbers["used"], numbers["g"], numbers["available"], numbers["over"]) == (3000, 3000, 0, 0)


def test_a_fact_may_say_how_it_was_admitted() -> None:
    leases = [lease("l1", "univ", ONE, borrowed=True), lease("l2", "univ", gpus(h200=4), borrowed=False)]
    outcome = played(
        {"univ": {"quota": quota(3), "budgets": [{"hours": 100, "period": "month"}]}},
        {"at": "+1h", "tick": True},
        leases=leases,
    )
    numbers = outcome.pools["univ"]["resources"]["gpu.h200"]
    assert (numbers["used"], numbers["g"], numbers["available"]) == (5000, 4000, -2000)
    assert budget(outcome, "univ")["used"] == 4.5 * HOUR


def test_a_fact_accrues_from_now_and_ages_from_its_start() -> None:
    state = {"univ": {"quota": quota(1), "budgets": [{"hours": 100, "period": "month"}]}}
    leases = [
        lease("l1", "univ", ONE, started="-3h"),
        lease("later", "univ", ONE, started="-1h"),
        lease("earlier", "univ", ONE, started="-2h"),
    ]
    outcome = played(state, {"at": "+1h", "release": "l1"}, leases=leases)
    assert changes(outcome) == [("earlier", "promoted", None)]
    assert budget(outcome, "univ")["used"] == 2 * HOUR


def test_a_fact_that_is_over_already_is_stopped_at_once() -> None:
    outcome = played(
        ROOM_FOR_ONE, ask("a", "univ", ONE), leases=[lease("l1", "univ", ONE, started="-2h", ends="-1h")]
    )
    assert told(outcome) == [("09:00:00", "l1", "stopped"), ("09:00:00", "a", "admit")]
    assert outcome.decisions[0]["ends_at"] == "2027-03-02T08:00:00+09:00"


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("started", "+1m", "the lease starts after `now`"),
        ("node", "nowhere", "there is no node 'nowhere'"),
        ("pool", "nowhere", "there is no pool 'nowhere'"),
        ("amounts", {"gpu.none": 1}, "'gpu.none' is not a resource of the policy"),
    ],
)
def test_facts_that_cannot_be(part: str, value: Any, message: str) -> None:
    with pytest.raises(FaultyDocument, match=message):
        played(ROOM_FOR_ONE, leases=[lease("l1", "univ", ONE) | {part: value}])


def test_a_fact_of_a_later_policy_is_a_mistake() -> None:
    later = {"at": "+1h", "policy": policy_text({"univ": {}, "lab": {}}, classes={"h200": "1", "new": "1"})}
    for wrong, message in (
        ({"pool": "lab"}, "no pool 'lab' yet"),
        ({"amounts": gpus(new=1)}, "no GPU class 'new' yet"),
    ):
        with pytest.raises(FaultyDocument, match=message):
            played(ROOM_FOR_ONE, later, leases=[lease("l1", "univ", ONE) | wrong])


# -- promotion -----------------------------------------------------------------------------------------------------------------

TWO_HOMES = {
    "seoul": {"quota": quota(2)},
    "univ": {"parent": "seoul", "quota": quota(2)},
    "lab": {"parent": "univ"},
    "industry": {"parent": "seoul", "quota": quota(2)},
}


def test_the_oldest_borrowed_lease_becomes_guaranteed_first() -> None:
    leases = [
        lease("l1", "univ", gpus(h200=2)),
        lease("younger", "univ", ONE, started="-10m"),
        lease("older", "lab", ONE, started="-20m"),
        lease("as-old", "univ", ONE, started="-20m"),
    ]
    outcome = played(TWO_HOMES, {"at": "+1m", "release": "l1"}, leases=leases)
    assert changes(outcome) == [("as-old", "promoted", None), ("older", "promoted", None)]


def test_an_older_larger_one_that_does_not_fit_is_passed_over() -> None:
    leases = [
        lease("l1", "univ", ONE, started="-3h"),
        lease("l2", "univ", ONE, started="-3h"),
        lease("large", "univ", gpus(h200=2), started="-2h"),
        lease("small", "univ", ONE, started="-1h"),
    ]
    outcome = played(TWO_HOMES, {"at": "+1m", "release": "l1"}, {"at": "+2m", "release": "l2"}, leases=leases)
    assert changes(outcome) == [("small", "promoted", None)]
    assert outcome.pools["univ"]["resources"]["gpu.h200"]["g"] == 1000


def test_only_leases_of_the_home_of_what_was_released_are_looked_at() -> None:
    leases = [
        lease("l1", "univ", ONE),
        lease("l2", "industry", ONE),
        lease("said", "lab", ONE, borrowed=True),
    ]
    outcome = played(TWO_HOMES, {"at": "+1m", "release": "l2"}, {"at": "+2m", "release": "l1"}, leases=leases)
    assert [(entry["id"], entry["at"][14:16]) for entry in outcome.decisions] == [("said", "02")]


def test_a_promoted_lease_keeps_its_rate_and_loses_its_lender() -> None:
    state = TWO_HOMES | {"univ": TWO_HOMES["univ"] | {"budgets": [{"hours": 100, "period": "month"}]}}
    outcome = played(
        state,
        ask("a", "lab", ONE),
        {"at": "+1h", "release": "l1"},
        {"at": "+2h", "tick": True},
        leases=[lease("l1", "univ", gpus(h200=2))],
    )
    assert (decision(outcome, "a")["guaranteed"], decision(outcome, "a")["lender"]) == (False, "seoul")
    assert changes(outcome) == [("a", "promoted", None)]
    assert (
        budget(outcome, "univ")["used"] == 2 * HOUR + HOUR
    )  # two GPUs for one hour, one at half the rate for two


def test_each_resource_must_fit_its_own_home() -> None:
    state = {"seoul": {"quota": {"cpu": {"nominal": 8}}}, "univ": {"parent": "seoul", "quota": quota(1)}}
    leases = [
        lease("l1", "univ", ONE),
        lease("cpus", "seoul", {"cpu": 8}),
        lease("both", "univ", ONE | {"cpu": 4}),
    ]
    outcome = played(state, {"at": "+1m", "release": "l1"}, {"at": "+2m", "release": "cpus"}, leases=leases)
    assert [(entry["id"], entry["at"][14:16]) for entry in outcome.decisions] == [("both", "02")]


# -- a new policy ------------------------------------------------------------------------------------------------------------------


def changed(pools: dict[str, Any], at: str = "+1h", **more: Any) -> dict[str, Any]:
    return {"at": at, "policy": policy_text(pools, **more)}


def test_a_cut_ends_nothing_and_admits_nothing() -> None:
    outcome = played(
        {"univ": {"quota": quota(4)}},
        changed({"univ": {"quota": quota(1)}}),
        ask("a", "univ", ONE, at="+1h"),
        leases=[lease("l1", "univ", gpus(h200=3))],
    )
    numbers = outcome.pools["univ"]["resources"]["gpu.h200"]
    assert told(outcome) == [("10:00:00", "a", "wait")]
    assert (numbers["used"], numbers["g"], numbers["available"], numbers["over"]) == (3000, 3000, -2000, 2000)


def test_a_guaranteed_lease_stays_guaranteed_and_room_comes_back_with_the_quota() -> None:
    state = {"seoul": {"quota": quota(4)}, "univ": {"parent": "seoul", "quota": quota(2)}}
    less = state | {"univ": {"parent": "seoul", "quota": quota(1)}}
    outcome = played(
        state,
        changed(less),
        ask("a", "univ", ONE, at="+1h"),
        changed(state, at="+2h"),
        leases=[lease("l1", "univ", gpus(h200=2))],
    )
    assert decision(outcome, "a")["guaranteed"] is False
    assert changes(outcome) == []
    assert outcome.pools["univ"]["resources"]["gpu.h200"]["g"] == 2000


def test_a_higher_quota_makes_borrowed_leases_guaranteed() -> None:
    more = TWO_HOMES | {"univ": {"parent": "seoul", "quota": quota(4)}}
    leases = [lease(f"l{i}", "univ", ONE, started=f"-{9 - i}h") for i in range(5)]
    outcome = played(TWO_HOMES, changed(more), leases=leases)
    assert changes(outcome) == [("l2", "promoted", None), ("l3", "promoted", None)]


def test_leases_of_a_pool_that_is_gone_count_in_the_nearest_one_above() -> None:
    without = {name: pool for name, pool in TWO_HOMES.items() if name not in ("lab", "univ")}
    outcome = played(
        TWO_HOMES,
        changed(without),
        ask("a", "lab", ONE, at="+1h"),
        {"at": "+2h", "release": "l1"},
        {"at": "+2h", "extend": {"id": "l2", "minutes": 5}},
        {"at": "+3h", "tick": True},
        leases=[lease("l1", "lab", gpus(h200=2)), lease("l2", "lab", ONE)],
    )
    assert decision(outcome, "a")["code"] == "not-a-member"
    assert changes(outcome) == [("l2", "extended", "not-a-member")]
    assert outcome.pools["seoul"]["resources"]["gpu.h200"] | {"potential": 0, "local": 0} == {
        "nominal": 2000, "subtree": 4000, "local": 0, "used": 1000, "g": 0, "available": 3000, "potential": 0, "over": 0,
    }  # fmt: skip


def test_leases_of_a_tree_that_is_gone_count_nowhere_and_end_in_time() -> None:
    outcome = played(
        ROOM_FOR_ONE,
        changed({"other": {"quota": quota(1)}}),
        {"at": "+6h", "tick": True},
        leases=[lease("l1", "univ", ONE)],
    )
    assert told(outcome) == [("13:00:00", "l1", "stopped")]


def test_a_pool_that_moves_takes_its_leases_along_and_its_hours_stay() -> None:
    month = {"budgets": [{"hours": 100, "period": "month"}]}
    before = {
        "a": month | {"quota": quota(1)},
        "b": month | {"quota": quota(1)},
        "lab": {"parent": "a", "quota": quota(2)},
    }
    after = before | {"lab": {"parent": "b", "quota": quota(2)}}
    outcome = played(
        before,
        changed(after),
        ask("new", "lab", ONE, at="+1h"),
        {"at": "+2h", "tick": True},
        leases=[lease("l1", "lab", ONE)],
    )
    assert {name: pool["resources"]["gpu.h200"]["used"] for name, pool in outcome.pools.items()} == {
        "a": 0,
        "b": 2000,
        "lab": 2000,
    }
    assert (budget(outcome, "a")["used"], budget(outcome, "b")["used"]) == (2 * HOUR, HOUR)


def test_more_time_is_asked_of_the_budgets_a_lease_is_charged_to() -> None:
    before = {
        "a": {"quota": quota(4)},
        "b": {"quota": quota(4), "budgets": [{"hours": 0, "period": "month"}]},
        "lab": {"parent": "a"},
    }
    moved = before | {"lab": {"parent": "b"}}
    outcome = played(
        before,
        changed(moved),
        {"at": "+2h", "extend": {"id": "l1", "minutes": 60}},
        changed(moved | {"a": before["a"] | {"budgets": [{"hours": 4, "period": "month"}]}}, at="+3h"),
        {"at": "+3h", "extend": {"id": "l1", "minutes": 60}},
        leases=[lease("l1", "lab", ONE)],
    )
    assert [(entry["change"], entry["code"], entry["ends_at"][11:16]) for entry in outcome.decisions] == [
        ("extended", None, "14:00"),
        ("extended", "budget-short", "14:00"),
    ]


def test_a_gpu_class_that_the_policy_in_force_does_not_name_is_too_much() -> None:
    later = changed(ROOM_FOR_ONE, classes={"h200": "1", "b300": "2"})
    gone = changed({"univ": {}}, at="+3h", classes={"b300": "2"})
    outcome = played(
        ROOM_FOR_ONE,
        ask("early", "univ", gpus(b300=1)),
        later,
        ask("there", "univ", gpus(b300=1), at="+2h", minutes=15),
        gone,
        ask("late", "univ", ONE, at="+3h"),
        {"at": "+6h", "tick": True},
        leases=[lease("l1", "univ", ONE)],
    )
    early, there, late = (decision(outcome, name) for name in ("early", "there", "late"))
    assert (early["code"], early["facts"]["resource"], early["facts"]["potential"]) == (
        "too-big-for-pool",
        "gpu.b300",
        0,
    )
    assert (there["verdict"], there["facts"]["cost"]) == ("admit", 2)
    assert (late["verdict"], late["code"]) == ("refuse", "too-big-for-pool")
    assert changes(outcome) == [("there", "stopped", None), ("l1", "stopped", None)]


def test_a_new_budget_counts_what_was_used_in_its_period_before() -> None:
    outcome = played(
        ROOM_FOR_ONE,
        changed({"univ": {"quota": quota(1), "budgets": [{"hours": 10, "period": "day"}]}}),
        {"at": "+2h", "tick": True},
        leases=[lease("l1", "univ", ONE)],
    )
    assert (budget(outcome, "univ")["used"], budget(outcome, "univ")["committed"]) == (2 * HOUR, 2 * HOUR)


def test_a_new_rate_is_for_new_leases() -> None:
    outcome = played(
        ROOM_FOR_ONE | {"univ": {"quota": quota(4)}},
        ask("a", "univ", ONE),
        changed({"univ": {"quota": quota(4)}}, rates={"guaranteed": "2"}),
        ask("b", "univ", ONE, at="+1h"),
        changed({"univ": {"quota": quota(4), "budgets": [{"hours": 99, "period": "day"}]}}, at="+2h"),
    )
    assert [decision(outcome, name)["facts"]["cost"] for name in ("a", "b")] == [1, 2]
    assert budget(outcome, "univ")["used"] == 4 * HOUR
