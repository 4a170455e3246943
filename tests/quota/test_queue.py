"""Those who wait: their order, their places and times, holds, taking back, and what a claim is worth (QUOTA.md §5, §6)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.builders import ask, changes, decision, gpus, lease, played

ONE, TWO, FOUR = gpus(h200=1), gpus(h200=2), gpus(h200=4)


def quota(nominal: float, **more: float) -> dict[str, Any]:
    return {"gpu.h200": {"nominal": nominal, **more}}


def one_pool(nominal: float, **more: Any) -> dict[str, Any]:
    return {"univ": {"quota": quota(nominal), **more}}


def city(**quotas: float) -> dict[str, Any]:
    """Pools side by side under one root that has nothing of its own."""
    return {"seoul": {}} | {name: {"parent": "seoul", "quota": quota(n)} for name, n in quotas.items()}


def turns(outcome: Any) -> list[str]:
    """The asks that were admitted after waiting, in order."""
    return [name for name, change, _ in changes(outcome) if change == "admitted"]


def clock(entry: dict[str, Any], key: str = "at") -> str:
    return str(entry[key])[11:16]


def change(outcome: Any, name: str, what: str) -> dict[str, Any]:
    (found,) = [e for e in outcome.decisions if (e["id"], e.get("change")) == (name, what)]
    return found


# -- place and time -----------------------------------------------------------------------------------------------------


def test_who_waits_is_told_place_and_time_and_starts_when_their_turn_has_come() -> None:
    outcome = played(
        one_pool(1),
        ask("a", "univ", ONE, minutes=60),
        ask("b", "univ", ONE, at="+1m", minutes=60),
        {"at": "+6h", "tick": True},
        leases=[lease("l1", "univ", ONE, ends="+2h")],
    )
    for name, place, at in (("a", 1, "11:00"), ("b", 2, "12:00")):
        found = decision(outcome, name)
        assert (found["verdict"], found["code"], found["position"]) == ("wait", "pool-full", place)
        assert (clock(found["eta"]), found["eta"]["kind"]) == (at, "expected")
        assert clock(change(outcome, name, "admitted")) == at
    assert turns(outcome) == ["a", "b"]


def test_an_early_end_brings_everybody_forward() -> None:
    outcome = played(
        one_pool(1),
        ask("a", "univ", ONE, minutes=60),
        {"at": "+20m", "release": "l1"},
        leases=[lease("l1", "univ", ONE, ends="+2h")],
    )
    assert clock(change(outcome, "a", "admitted")) == "09:20"


def test_whoever_leaves_the_line_makes_room_in_it() -> None:
    outcome = played(
        one_pool(1),
        ask("a", "univ", ONE),
        ask("b", "univ", ONE, at="+1m"),
        {"at": "+2m", "cancel": "a"},
        ask("b", "univ", ONE, at="+3m"),
        {"at": "+4h", "tick": True},
        leases=[lease("l1", "univ", ONE, ends="+2h")],
    )
    assert outcome.decisions[2]["position"] == 1
    assert turns(outcome) == ["b"]


def test_a_time_that_follows_from_nothing_known_is_not_told() -> None:
    """What takes the room runs without our knowing of it: the machine is smaller than the quota says."""
    outcome = played(
        one_pool(4),
        ask("a", "univ", ONE, person="kim"),
        leases=[lease("l1", "univ", ONE, person="kim", ends="+2h", node="n1")],
        nodes=[{"name": "n1", "gpu.h200": 1}, {"name": "n2", "gpu.h200": 0}],
        people=[{"name": "kim", "pools": ["univ"]}],
    )
    assert clock(decision(outcome, "a")["eta"]) == "11:00"
    assert decision(outcome, "a")["code"] == "no-node-free"


def test_a_wait_for_hours_ends_with_the_period() -> None:
    outcome = played(
        one_pool(4, budgets=[{"hours": 2, "period": "day"}]),
        ask("a", "univ", ONE, minutes=60),
        {"at": "+16h", "tick": True},
        used_hours=[{"pool": "univ", "hours": 2, "period": "day"}],
    )
    assert decision(outcome, "a")["code"] == "budget-spent"
    assert decision(outcome, "a")["eta"] == {"at": "2027-03-03T00:00:00+09:00", "kind": "expected"}
    assert change(outcome, "a", "admitted")["at"] == "2027-03-03T00:00:00+09:00"


def test_a_wait_for_ones_own_cap_ends_with_ones_own_server() -> None:
    outcome = played(
        one_pool(4, person={"servers": 1}),
        ask("a", "univ", ONE, person="kim"),
        {"at": "+3h", "tick": True},
        leases=[lease("l1", "univ", ONE, person="kim", ends="+1h")],
    )
    assert decision(outcome, "a")["code"] == "person-at-cap"
    assert clock(decision(outcome, "a")["eta"]) == clock(change(outcome, "a", "admitted")) == "10:00"


# -- the order between pools ----------------------------------------------------------------------------------------------


def test_what_would_be_guaranteed_goes_first() -> None:
    """A pool within its quota before one beyond it, whoever came first."""
    outcome = played(
        city(own=2, guest=0, rest=0),
        ask("guest", "guest", ONE),
        ask("own", "own", ONE, at="+1m"),
        {"at": "+2m", "release": "l1"},
        leases=[lease("l1", "rest", ONE, borrowed=True), lease("l2", "own", ONE)],
        policy={"queue": {"patience": "4h"}},
    )
    assert decision(outcome, "own")["position"] == 1
    assert turns(outcome) == ["own"]


def test_the_pool_that_borrows_least_goes_first() -> None:
    outcome = played(
        city(big=4, a=0, b=0),
        ask("a2", "a", ONE),
        ask("b1", "b", ONE, at="+1m"),
        {"at": "+2m", "release": "l3"},
        leases=[lease("l1", "a", TWO), lease("l2", "b", ONE), lease("l3", "big", ONE)],
    )
    assert turns(outcome) == ["b1"]


def test_a_weight_is_what_a_pool_may_borrow_compared_to_others() -> None:
    pools = city(big=4, a=0, b=0)
    pools["a"]["weight"] = 3
    outcome = played(
        pools,
        ask("b1", "b", ONE),
        ask("a2", "a", ONE, at="+1m"),
        {"at": "+2m", "release": "l3"},
        leases=[lease("l1", "a", TWO), lease("l2", "b", ONE), lease("l3", "big", ONE)],
    )
    # (2 + 1) / 3 is less than (1 + 1) / 1.
    assert turns(outcome) == ["a2"]


def test_equal_shares_go_by_who_came_first() -> None:
    outcome = played(
        city(big=1, a=0, b=0),
        ask("b1", "b", ONE),
        ask("a1", "a", ONE, at="+1m"),
        {"at": "+2m", "release": "l1"},
        leases=[lease("l1", "big", ONE)],
    )
    assert turns(outcome) == ["b1"]


def test_a_pools_own_asks_are_one_more_child_of_it() -> None:
    """The institution's own people against its course: the course lives within its quota, the others beyond theirs."""
    pools = {
        "univ": {"quota": quota(1)},
        "course": {"parent": "univ", "quota": quota(1)},
    }
    outcome = played(
        pools,
        ask("own", "univ", ONE),
        ask("taught", "course", ONE, at="+1m"),
        {"at": "+2m", "release": "l1"},
        leases=[lease("l1", "univ", ONE), lease("l2", "univ", ONE)],
        policy={"queue": {"patience": "4h"}},
    )
    assert turns(outcome) == ["taught"]


# -- the order inside a pool ----------------------------------------------------------------------------------------------


def test_inside_a_pool_who_used_least_goes_first() -> None:
    outcome = played(
        one_pool(1),
        ask("a", "univ", ONE, person="kim"),
        ask("b", "univ", ONE, person="lee", at="+1m"),
        {"at": "+2m", "release": "l1"},
        leases=[lease("l1", "univ", ONE, person="park")],
        people=[
            {"name": "kim", "pools": ["univ"], "recent_hours": {"univ": 12}},
            {"name": "lee", "pools": ["univ"], "recent_hours": {"univ": 2}},
            {"name": "park", "pools": ["univ"]},
        ],
    )
    assert decision(outcome, "b")["position"] == 1
    assert turns(outcome) == ["b"]


@pytest.mark.parametrize(
    ("days", "first"),
    [(1, "fresh"), (30, "old")],
    ids=["a day later much use is still much", "a month later it is hardly anything"],
)
def test_use_counts_half_after_each_half_life(days: int, first: str) -> None:
    """Kim used 12 hours long ago, Lee 3 hours just before both ask."""
    at = f"+{days * 24}h"
    outcome = played(
        one_pool(1),
        {
            "at": f"+{days * 24 - 4}h",
            "ask": {"id": "lee", "person": "lee", "pool": "univ", "amounts": ONE, "minutes": 180},
        },
        ask("wall", "univ", ONE, person="park", at=f"+{days * 24 - 1}h", minutes=120),
        ask("old", "univ", ONE, person="kim", at=at),
        ask("fresh", "univ", ONE, person="lee", at=at),
        {"at": f"+{days * 24 + 2}h", "tick": True},
        people=[
            {"name": "kim", "pools": ["univ"], "recent_hours": {"univ": 12}},
            *({"name": name, "pools": ["univ"]} for name in ("lee", "park")),
        ],
    )
    assert turns(outcome)[0] == first


# -- passing over, and patience --------------------------------------------------------------------------------------------

BIG_AND_SMALL = {"univ": {"quota": quota(4)}}


def test_who_cannot_go_is_passed_over() -> None:
    outcome = played(
        BIG_AND_SMALL,
        ask("big", "univ", FOUR),
        ask("small", "univ", ONE, at="+10m", minutes=60 * 12),
        leases=[lease("l1", "univ", ONE)],
    )
    assert decision(outcome, "small")["verdict"] == "admit"


def patient(*events: dict[str, Any], **more: Any) -> Any:
    """Somebody wants all four, and waits for the one that runs until 13:00; borrowed, since the root has nothing."""
    pools = city(lender=4, a=0, b=0)
    return played(
        pools, ask("big", "a", FOUR), *events, leases=[lease("l1", "b", ONE, borrowed=True)], **more
    )


def test_after_its_patience_the_first_holds_what_it_needs() -> None:
    outcome = patient(
        ask("early", "b", ONE, at="+14m", minutes=30),
        ask("late", "b", ONE, at="+20m", minutes=60 * 12),
        ask("big", "a", FOUR, at="+21m"),
    )
    assert decision(outcome, "early")["verdict"] == "admit"
    late = decision(outcome, "late")
    assert (late["verdict"], late["code"], late["position"]) == ("wait", "others-waiting", 2)
    again = outcome.decisions[-1]
    assert (again["id"], clock(again["eta"]), again["eta"]["kind"]) == ("big", "13:00", "latest")


def test_what_ends_in_time_passes_a_hold() -> None:
    outcome = patient(
        ask("short", "b", ONE, at="+20m", minutes=200), ask("long", "b", ONE, at="+20m", minutes=240)
    )
    assert decision(outcome, "short")["verdict"] == "admit"
    assert decision(outcome, "long")["code"] == "others-waiting"


def test_what_fits_beside_it_passes_a_hold() -> None:
    outcome = played(
        city(lender=6, a=0, b=0),
        ask("big", "a", FOUR),
        ask("beside", "b", TWO, at="+20m", minutes=600),
        ask("too-much", "b", ONE, at="+21m", minutes=600),
        leases=[lease("l1", "b", gpus(h200=3), borrowed=True)],
    )
    assert decision(outcome, "beside")["verdict"] == "admit"
    assert decision(outcome, "too-much")["code"] == "others-waiting"


def test_a_hold_never_stops_what_would_be_guaranteed() -> None:
    outcome = patient(ask("own", "lender", ONE, at="+20m", minutes=600))
    assert decision(outcome, "own")["verdict"] == "admit"
    assert decision(outcome, "own")["guaranteed"] is True


def test_who_waits_for_hours_or_a_cap_holds_nothing() -> None:
    outcome = played(
        one_pool(4, person={"servers": 1}),
        ask("second", "univ", FOUR, person="kim"),
        ask("other", "univ", gpus(h200=3), person="lee", at="+1h", minutes=600),
        leases=[lease("l1", "univ", ONE, person="kim")],
    )
    assert decision(outcome, "second")["code"] == "person-at-cap"
    assert decision(outcome, "other")["verdict"] == "admit"


def test_nobody_extends_what_somebody_waits_for() -> None:
    outcome = played(
        one_pool(1),
        ask("a", "univ", ONE),
        {"at": "+1m", "extend": {"id": "l1", "minutes": 60}},
        leases=[lease("l1", "univ", ONE, ends="+2h")],
    )
    assert changes(outcome) == [("l1", "extended", "others-waiting")]
    assert clock(change(outcome, "l1", "extended"), "ends_at") == "11:00"


# -- taking back -----------------------------------------------------------------------------------------------------------

LENT = city(owner=2, guest=0)


def borrowed(name: str, amounts: dict[str, Any] = ONE, started: str = "-2h", **more: Any) -> dict[str, Any]:
    return lease(name, "guest", amounts, started=started, **more)


def test_an_owner_takes_back_what_was_borrowed_and_the_borrower_is_first_again() -> None:
    outcome = played(
        LENT,
        ask("own", "owner", ONE, minutes=60),
        ask("third", "guest", ONE, at="+1m"),
        {"at": "+4h", "tick": True},
        leases=[borrowed("b1"), borrowed("b2", started="-1h")],
    )
    own = decision(outcome, "own")
    assert (own["verdict"], own["code"], own["reclaims"]) == ("wait", "pool-full", ["b2"])
    assert own["eta"] == {"at": "2027-03-02T09:10:00+09:00", "kind": "latest"}
    assert clock(change(outcome, "b2", "noticed"), "ends_at") == "09:10"
    assert changes(outcome)[:4] == [
        ("b2", "noticed", "taken-back"),
        ("b2", "stopped", "taken-back"),
        ("own", "admitted", None),
        ("own", "stopped", None),
    ]
    assert turns(outcome) == ["own", "b2", "third"]
    assert clock(change(outcome, "b2", "admitted")) == "10:10"


def test_what_only_just_began_is_protected() -> None:
    outcome = played(LENT, ask("own", "owner", ONE), leases=[borrowed("b1", TWO, started="-5m")])
    assert clock(change(outcome, "b1", "noticed"), "ends_at") == "09:25"


def test_what_ends_sooner_ends_then() -> None:
    outcome = played(LENT, ask("own", "owner", ONE), leases=[borrowed("b1", TWO, ends="+4m")])
    assert clock(change(outcome, "b1", "noticed"), "ends_at") == "09:04"


def test_no_more_is_taken_back_than_is_needed() -> None:
    """The latest start first, until there is room; then the small one that proves unnecessary stays."""
    outcome = played(
        city(owner=4, guest=0),
        ask("own", "owner", TWO),
        leases=[borrowed("small", ONE, started="-1h"), borrowed("large", gpus(h200=3), started="-2h")],
    )
    assert decision(outcome, "own")["reclaims"] == ["large"]


def test_other_pools_give_back_before_the_askers_own() -> None:
    outcome = played(
        city(owner=2, guest=0),
        ask("own", "owner", ONE),
        leases=[
            lease("mine", "owner", ONE, started="-1h", borrowed=True),
            borrowed("theirs", started="-3h"),
        ],
    )
    assert decision(outcome, "own")["reclaims"] == ["theirs"]


def test_the_pool_that_borrows_most_gives_back_first() -> None:
    outcome = played(
        city(owner=3, little=0, much=0),
        ask("own", "owner", ONE),
        leases=[
            lease("l1", "little", ONE, started="-1h"),
            lease("m1", "much", ONE, started="-3h"),
            lease("m2", "much", ONE, started="-2h"),
        ],
    )
    assert decision(outcome, "own")["reclaims"] == ["m2"]


def test_one_machine_has_to_have_the_room() -> None:
    """The quota has room for two; each of the machines has one free."""
    outcome = played(
        city(owner=4, guest=0),
        ask("own", "owner", TWO),
        leases=[borrowed("b1", node="n1"), borrowed("b2", node="n2", started="-1h")],
        nodes=[{"name": "n1", "gpu.h200": 2}, {"name": "n2", "gpu.h200": 2}],
    )
    assert decision(outcome, "own")["code"] == "no-node-free"
    assert decision(outcome, "own")["reclaims"] == ["b2"]


def test_what_is_freed_is_kept_for_whom_it_was_taken_back() -> None:
    outcome = played(
        city(owner=2, guest=0, other=0),
        ask("own", "owner", TWO),
        {"at": "+5m", "release": "b1"},
        ask("quick", "other", ONE, at="+6m", minutes=600),
        {"at": "+11m", "tick": True},
        leases=[borrowed("b1"), borrowed("b2")],
    )
    assert decision(outcome, "quick")["code"] == "others-waiting"
    assert turns(outcome) == ["own"]


def test_when_the_asker_leaves_the_notice_is_withdrawn() -> None:
    outcome = played(
        LENT,
        ask("own", "owner", ONE),
        {"at": "+5m", "cancel": "own"},
        {"at": "+1h", "tick": True},
        leases=[borrowed("b1", TWO)],
    )
    assert changes(outcome) == [("b1", "noticed", "taken-back"), ("b1", "withdrawn", None)]
    assert clock(change(outcome, "b1", "withdrawn"), "ends_at") == "13:00"


def test_when_room_comes_otherwise_the_notice_is_withdrawn() -> None:
    outcome = played(
        LENT,
        ask("own", "owner", ONE),
        {"at": "+5m", "release": "b1"},
        leases=[borrowed("b1"), borrowed("b2", started="-1h")],
    )
    assert changes(outcome) == [
        ("b2", "noticed", "taken-back"),
        ("b2", "withdrawn", None),
        ("own", "admitted", None),
    ]


def test_only_what_would_be_guaranteed_takes_back() -> None:
    outcome = played(city(owner=2, guest=0, other=0), ask("a", "other", ONE), leases=[borrowed("b1", TWO)])
    assert decision(outcome, "a")["reclaims"] == []
    assert changes(outcome) == []


def test_two_who_may_take_back_do_not_count_on_the_same() -> None:
    """Both would be guaranteed, each alone; together they need all that was borrowed."""
    outcome = played(
        LENT,
        ask("a", "owner", ONE),
        ask("b", "owner", ONE, at="+1m"),
        ask("c", "owner", ONE, at="+2m"),
        {"at": "+15m", "tick": True},
        leases=[borrowed("b1"), borrowed("b2", started="-1h")],
    )
    assert decision(outcome, "a")["reclaims"] == ["b2"]
    assert decision(outcome, "b")["reclaims"] == ["b1"]
    assert decision(outcome, "c")["reclaims"] == []
    assert turns(outcome) == ["a", "b"]


def test_whoever_was_displaced_does_not_displace_in_turn() -> None:
    """The guest's pool gets a quota of its own meanwhile: back in line, it would be guaranteed."""
    later = {"version": 1, "gpu_classes": {"h200": {"resource": "example.com/h200"}}}
    outcome = played(
        city(owner=1, guest=0),
        ask("own", "owner", ONE, minutes=300),
        {
            "at": "+11m",
            "policy": later
            | {
                "pools": {
                    "seoul": {},
                    "owner": {"parent": "seoul"},
                    "guest": {"parent": "seoul", "quota": quota(1)},
                }
            },
        },
        {"at": "+2h", "tick": True},
        leases=[borrowed("b1")],
    )
    assert [(name, what) for name, what, _ in changes(outcome)] == [
        ("b1", "noticed"),
        ("b1", "stopped"),
        ("own", "admitted"),
    ]


# -- claims ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shows_up", "wanted"),
    [
        (None, [("a", "admitted"), ("a", "stopped"), ("b", "admitted")]),
        (9, [("a", "admitted"), ("a", "stopped"), ("b", "admitted")]),
        (10, [("a", "admitted"), ("a", "expired"), ("b", "admitted")]),
        ("never", [("a", "admitted"), ("a", "expired"), ("b", "admitted")]),
    ],
    ids=["comes at once", "comes in time", "comes too late", "never comes"],
)
def test_a_server_waits_ten_minutes_for_whoever_waited_for_it(
    shows_up: int | str | None, wanted: list[tuple[str, str]]
) -> None:
    outcome = played(
        one_pool(1),
        ask("a", "univ", ONE, minutes=60, **({} if shows_up is None else {"shows_up": shows_up})),
        ask("b", "univ", ONE, at="+1m", minutes=600),
        {"at": "+4h", "tick": True},
        leases=[lease("l1", "univ", ONE, ends="+1h")],
    )
    assert [entry[:2] for entry in changes(outcome)][1:] == wanted
    at = "10:10" if ("a", "expired") in wanted else "11:00"
    assert clock(change(outcome, "b", "admitted")) == at


# -- several at once ---------------------------------------------------------------------------------------------------------


def test_what_grows_by_itself_comes_after_servers() -> None:
    outcome = played(
        one_pool(2),
        ask("workers", "univ", ONE, kind="dask-worker", count=2),
        ask("server", "univ", ONE, at="+1m"),
        {"at": "+2m", "release": "l1"},
        {"at": "+3m", "release": "l2"},
        leases=[lease("l1", "univ", ONE), lease("l2", "univ", ONE)],
    )
    assert turns(outcome) == ["server", "workers/1"]
