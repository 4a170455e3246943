"""Reservations: which windows can be had, what they mean for asks beside and inside them, and what they cost."""

from __future__ import annotations

from typing import Any

import pytest

from hub_ext.core.errors import FaultyDocument
from hub_ext.quota.calendar import Amber, Green, Picture, Red, decide_reservation
from hub_ext.quota.model import Lease, Reservation
from tests.support.builders import (
    HOUR,
    NOW,
    a_policy,
    ask,
    budget,
    changes,
    decision,
    decisions,
    gpus,
    instant,
    lease,
    played,
)

# univ may have its own 4, 2 of public's own and 1 that institute lends, and 2 that public borrows: 9 in all
CITY: dict[str, Any] = {
    "seoul": {"kind": "centre", "quota": {"cpu": {"nominal": 100}}},
    "public": {"parent": "seoul", "quota": {"gpu.h200": {"nominal": 2, "borrow": 2}}},
    "univ": {"parent": "public", "quota": {"gpu.h200": {"nominal": 4}}, "person": {"gpu.h200": 1}},
    "lab": {"parent": "univ"},
    "institute": {"parent": "public", "quota": {"gpu.h200": {"nominal": 2, "lend": 1}}},
    "industry": {"parent": "seoul", "quota": {"gpu.h200": {"nominal": 3}}},
    "island": {"quota": {"gpu.h200": {"nominal": 1}}},
}
POLICY = a_policy(CITY)
T = instant(NOW)


def window(
    name: str, start: float, end: float, count: float = 4, pool: str = "univ", **more: Any
) -> Reservation:
    """From and to in hours from now."""
    amounts = {"gpu.h200": int(1000 * count)}
    return Reservation(name, pool, amounts, T + int(HOUR * start), T + int(HOUR * end), **more)


def runs(
    name: str,
    ends: float,
    count: float = 1,
    pool: str = "univ",
    *,
    guaranteed: bool = True,
    started: float = -1,
    **more: Any,
) -> Lease:
    return Lease(
        id=name,
        person="p",
        pool=pool,
        path=POLICY.path(pool),
        amounts={"gpu.h200": int(1000 * count)},
        kind="server",
        guaranteed=guaranteed,
        lender=None,
        cost=1,
        booked_at=T + int(HOUR * started),
        started_at=T + int(HOUR * started),
        ends_at=T + int(HOUR * ends),
        charged_until=T,
        **more,
    )


def borrows(name: str, ends: float, count: float = 1, pool: str = "industry", **more: Any) -> Lease:
    return runs(name, ends, count, pool, guaranteed=False, **more)


def told(answer: Green | Amber | Red) -> tuple[Any, ...]:
    """In hours from now."""

    def hours(at: int | None) -> float | None:
        return None if at is None else (at - T) / HOUR

    match answer:
        case Green(endings):
            return "green", {one.lease.id: hours(one.ends_at) for one in endings}
        case Amber(approver, endings):
            return "amber", approver, {one.lease.id: hours(one.ends_at) for one in endings}
        case Red(before, after):
            return "red", hours(before), hours(after)


NOTHING: dict[str, float] = {}
ANSWERS = [
    pytest.param(window("w", 1, 2), [], [], ("green", NOTHING), id="all of its own guarantee is green"),
    pytest.param(
        window("w", 1, 2, 4.5), [], [], ("amber", "public", NOTHING), id="more than its own needs the pool above"
    ),
    pytest.param(
        window("w", 1, 2, 8), [], [], ("amber", "seoul", NOTHING),
        id="more than the pool above has, lent parts of children counted, needs the pool above that",
    ),
    pytest.param(
        window("w", 1, 2, 9.5), [], [], ("red", None, None), id="more than the limit of borrowing allows never fits"
    ),
    pytest.param(
        window("w", 1, 2, 2, "institute"), [], [], ("green", NOTHING), id="what is never lent is one's own to reserve"
    ),
    pytest.param(
        window("w", 1, 2, 11, "public"), [], [], ("red", None, None), id="what a child never lends is never had by others"
    ),
    pytest.param(
        window("w", 1, 2, 4, "lab"), [], [], ("green", NOTHING), id="a pool below reserves of the guarantee above it"
    ),
    pytest.param(
        window("w", 1, 2, 3, "lab"), [window("v", 1, 2, 2)], [], ("amber", "public", NOTHING),
        id="pools below one guarantee share it",
    ),
    pytest.param(
        window("w", 2, 3), [window("v", 1, 2), window("x", 3, 4)], [], ("green", NOTHING),
        id="windows that touch do not overlap",
    ),
    pytest.param(
        window("w", 1.5, 2.5, 8), [window("v", 1, 2)], [], ("red", 0, 2), id="one that overlaps is told the times beside it"
    ),
    pytest.param(
        window("w", 1, 4, 8), [window("v", 2, 3)], [], ("red", None, 3),
        id="a window that begins inside it counts, and there is no time before it in the past",
    ),
    pytest.param(
        window("w", 3, 5, 8), [window("v", 4, 6), window("x", 6, 7)], [], ("red", 2, 7),
        id="the nearest times pass over windows that leave too little between them",
    ),
    pytest.param(
        window("w", 1, 2, 4), [window("v", 1, 2, 4, approved=False)], [], ("green", NOTHING),
        id="what nobody approved yet holds nothing",
    ),
    pytest.param(
        window("w", 1, 2, 8), [window("v", 0, 3, 4, shrunk_to={"gpu.h200": 0})], [], ("amber", "seoul", NOTHING),
        id="what shrank to nothing is free again",
    ),
    pytest.param(
        window("w", 1, 2, 1, "island"), [window("v", 1, 2)], [], ("green", NOTHING), id="other trees are not asked"
    ),
    pytest.param(
        window("w", 1, 2), [], [runs("l", 1, 4)], ("green", NOTHING), id="a lease that ends at its start is not in the way"
    ),
    pytest.param(
        window("w", 1, 2, 9), [], [runs("l", 1.5, 1)], ("red", None, 1.5),
        id="a guaranteed lease that runs into it is never ended for it",
    ),
    pytest.param(
        window("w", 1, 2, 4), [], [runs("l", 1.5, 1)], ("amber", "public", NOTHING),
        id="beside a guaranteed lease of the same pool the guarantee is not enough",
    ),
    pytest.param(
        window("w", 1, 2), [], [borrows("b", 1.5, 7)], ("green", {"b": 1}),
        id="what is borrowed ends at its start, not before",
    ),
    pytest.param(
        window("w", 1, 2), [], [borrows("b", 1.5, 3)], ("green", NOTHING), id="what is borrowed and not in the way goes on"
    ),
    pytest.param(
        window("w", 1, 2), [], [borrows("b", 1.5, 2, "univ"), borrows("c", 1.5, 6)], ("green", {"c": 1}),
        id="others give back before its own pool does",
    ),
    pytest.param(
        window("w", 1, 2), [], [borrows("b", 1.5, 4, started=-2), borrows("c", 1.5, 3)], ("green", {"c": 1}),
        id="whoever began last gives back first",
    ),
    pytest.param(
        window("w", 0.1, 2), [], [borrows("b", 1.5, 7)], ("red", None, 10 / 60),
        id="too soon for the notice, it fits when that is over",
    ),
    pytest.param(
        window("w", 10 / 60, 2), [], [borrows("b", 1.5, 7)], ("green", {"b": 10 / 60}),
        id="it may begin the moment the notice is over",
    ),
    pytest.param(
        window("w", 0.25, 2), [], [borrows("b", 1.5, 7, started=-0.1)], ("red", None, 0.4),
        id="nobody is ended within their protected time",
    ),
    pytest.param(
        window("w", 1, 4, 5), [window("v", 2, 3, 1)], [borrows("b", 5, 3, "industry")], ("amber", "public", NOTHING),
        id="two windows and a borrowed lease that all fit",
    ),
    pytest.param(
        window("w", 1, 2, 4), [window("v", 0, 3, 4, pool="univ")], [runs("l", 3, 4, reservation="v")],
        ("amber", "seoul", NOTHING), id="what runs inside a reservation is not counted twice",
    ),
    pytest.param(window("w", -1, 2), [], [], ("red", None, 0), id="a window that has begun is told now at the earliest"),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "others", "leases", "want"), ANSWERS)
def test_answer(
    wanted: Reservation, others: list[Reservation], leases: list[Lease], want: tuple[Any, ...]
) -> None:
    assert told(decide_reservation(Picture(POLICY, leases, others), wanted, T)) == want


def test_after_a_cut_nothing_fits_where_the_tree_is_in_the_red() -> None:
    cut = a_policy({**CITY, "industry": {"parent": "seoul", "quota": {"gpu.h200": {"nominal": 0}}}})
    leases = [runs("l", 5, 7, "industry")]
    wanted = window("w", 1, 2, 2)
    assert told(decide_reservation(Picture(cut, leases), wanted, T)) == ("red", None, 5)
    kept = window("k", 1, 2, 1, "institute")
    assert told(decide_reservation(Picture(cut, leases), kept, T)) == ("green", NOTHING)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (window("w", 2, 2), "end after its start"),
        (window("w", 1, 2, 0), "hold something"),
        (window("w", 1, 2, 1, "gone"), "no pool 'gone'"),
    ],
    ids=["without length", "of nothing", "for a pool that is not there"],
)
def test_what_cannot_be_a_reservation_is_told(wanted: Reservation, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decide_reservation(Picture(POLICY), wanted, T)


# -- beside and inside -------------------------------------------------------------------------------------------------


def reserved(
    name: str, start: str, end: str, count: float | str = 4, pool: str = "univ", **more: Any
) -> dict[str, Any]:
    return {"id": name, "pool": pool, "amounts": gpus(h200=count), "from": start, "to": end} | more


def student(name: str, count: float | str = 1, at: str = "+0m", **more: Any) -> dict[str, Any]:
    return ask(name, "univ", gpus(h200=count), at, **({"person": name} | more))


def clock(time: str) -> str:
    return f"2027-03-02T{time}:00+09:00"


FULL = {"univ": {"quota": {"gpu.h200": {"nominal": 4}}, "person": {"gpu.h200": 1}}}
"""One pool, whose reservations are all in the way."""


def answered(wish: dict[str, Any], *windows: dict[str, Any], **parts: Any) -> dict[str, Any]:
    outcome = played(parts.pop("pools", FULL), wish, reservations=list(windows), **parts)
    return decision(outcome, wish["ask"]["id"])


def test_an_end_is_cut_at_the_start_of_a_window() -> None:
    found = answered(student("a"), reserved("w1", "+1h", "+3h"))
    assert (found["verdict"], found["ends_at"]) == ("admit", clock("10:00"))
    assert found["facts"]["cut_by"] == {
        "kind": "reservation",
        "reservation": "w1",
        "pool": "univ",
        "reserved_for": "univ",
        "resource": "gpu.h200",
        "starts": clock("10:00"),
        "ends": clock("12:00"),
        "inside": False,
    }


def test_beside_a_window_that_leaves_room_nothing_is_cut() -> None:
    found = answered(student("a"), reserved("w1", "+1h", "+3h", 3))
    assert (found["ends_at"], found["facts"]["cut_by"]) == (clock("21:00"), None)


def test_an_ask_that_ends_as_the_window_begins_is_not_cut() -> None:
    found = answered(student("a", minutes=60), reserved("w1", "+1h", "+3h"))
    assert (found["ends_at"], found["facts"]["cut_by"]) == (clock("10:00"), None)


def test_a_window_inside_a_lease_cuts_it_where_a_later_one_would_not() -> None:
    windows = [reserved("w1", "+1h", "+2h", 3), reserved("w2", "+3h", "+4h", 4)]
    assert answered(student("a", minutes=300), *windows)["ends_at"] == clock("12:00")


def test_too_little_time_before_a_window_is_a_wait_that_ends_with_it() -> None:
    outcome = played(
        FULL, student("a"), {"at": "+5h", "tick": True}, reservations=[reserved("w1", "+14m", "+3h")]
    )
    found = decision(outcome, "a")
    assert (found["verdict"], found["code"]) == ("wait", "reserved-soon")
    facts = {key: found["facts"][key] for key in ("pool", "resource", "starts", "ends", "reservation")}
    assert facts == {
        "pool": "univ",
        "resource": "gpu.h200",
        "starts": clock("09:14"),
        "ends": clock("12:00"),
        "reservation": "w1",
    }
    # Nobody came to the window: after 20 minutes its room is everybody's.
    assert changes(outcome, "a") == [("a", "admitted", None)]
    (admitted,) = [one for one in outcome.decisions if one.get("change") == "admitted"]
    assert admitted["at"] == clock("09:34")


def test_exactly_the_shortest_time_before_a_window_is_enough() -> None:
    assert answered(student("a"), reserved("w1", "+15m", "+3h"))["ends_at"] == clock("09:15")


def test_what_has_no_room_now_is_told_so_before_any_window() -> None:
    parts = {"leases": [lease("l1", "univ", gpus(h200=4))]}
    assert answered(student("a"), reserved("w1", "+5m", "+3h", 1), **parts)["code"] == "pool-full"


def test_windows_of_other_pools_count_as_far_as_they_borrow() -> None:
    wide = {**CITY, "industry": {"parent": "seoul", "quota": {"gpu.h200": {"nominal": 3, "lend": 1}}}}
    found = answered(ask("a", "industry", gpus(h200=2)), reserved("w1", "+1h", "+3h", 8), pools=wide)
    assert found["ends_at"] == clock("21:00")  # never lent
    found = answered(ask("a", "industry", gpus(h200=3)), reserved("w1", "+1h", "+3h", 9), pools=wide)
    assert found["ends_at"] == clock("10:00")


def test_before_its_window_an_ask_waits_for_it_and_starts_with_it() -> None:
    outcome = played(
        FULL,
        student("a", reservation="w1"),
        {"at": "+4h", "tick": True},
        reservations=[reserved("w1", "+1h", "+3h")],
    )
    found = decision(outcome, "a")
    assert (found["code"], found["facts"]["inside"]) == ("reserved-soon", True)
    admitted, stopped = (one for one in outcome.decisions if "change" in one)
    assert (admitted["change"], admitted["at"], admitted["ends_at"]) == (
        "admitted",
        clock("10:00"),
        clock("12:00"),
    )
    assert admitted["facts"]["cut_by"]["inside"] is True
    assert (stopped["change"], stopped["at"]) == ("stopped", clock("12:00"))


def test_inside_its_window_a_lease_is_guaranteed_and_free_of_caps_and_counts_once() -> None:
    outcome = played(
        FULL,
        student("a", 2, reservation="w1"),
        student("b", 2, "+1m", reservation="w1"),
        student("c", 1, "+2m", reservation="w1"),
        student("d", 1, "+3m"),
        reservations=[reserved("w1", "+0m", "+3h")],
    )
    for name in ("a", "b"):
        found = decision(outcome, name)
        assert (found["verdict"], found["guaranteed"], found["facts"]["reservation"]) == ("admit", True, "w1")
    full = decision(outcome, "c")
    assert (full["code"], full["facts"]["available"], full["facts"]["short_at"]) == ("pool-full", 0, "univ")
    assert decision(outcome, "d")["code"] == "pool-full"
    numbers = outcome.pools["univ"]["resources"]["gpu.h200"]
    assert (numbers["used"], numbers["g"]) == (4000, 4000)


def test_more_than_the_reservation_holds_is_never_had_inside_it() -> None:
    found = answered(student("a", 3, reservation="w1"), reserved("w1", "+0m", "+3h", 2))
    assert (found["verdict"], found["code"], found["facts"]["potential"]) == (
        "refuse",
        "too-big-for-pool",
        2000,
    )


def test_what_a_reservation_does_not_hold_is_had_by_the_ordinary_rules() -> None:
    pools = {"univ": {"quota": {"gpu.h200": {"nominal": 4}, "cpu": {"nominal": 8}}}}
    wish = {
        "id": "a",
        "person": "a",
        "pool": "univ",
        "amounts": {**gpus(h200=1), "cpu": 9},
        "reservation": "w1",
    }
    outcome = played(
        pools,
        {"at": "+0m", "ask": wish},
        {"at": "+1m", "ask": wish | {"id": "b", "amounts": {**gpus(h200=1), "cpu": 6}}},
        {"at": "+2m", "ask": wish | {"id": "c", "amounts": {**gpus(h200=1), "cpu": 6}}},
        reservations=[reserved("w1", "+0m", "+3h")],
    )
    assert [decision(outcome, name)["code"] for name in "abc"] == ["too-big-for-pool", None, "pool-full"]
    used = {name: numbers["used"] for name, numbers in outcome.pools["univ"]["resources"].items()}
    assert used == {"gpu.h200": 4000, "cpu": 6000}


def test_whoever_comes_after_it_shrank_is_decided_like_everybody() -> None:
    outcome = played(
        FULL,
        student("a", 1, "+10m", reservation="w1"),
        student("b", 1, "+25m", reservation="w1"),
        student("c", 2, "+26m", reservation="w1"),
        reservations=[reserved("w1", "+0m", "+3h")],
    )
    found = decision(outcome, "b")
    assert (found["verdict"], "reservation" in found["facts"], found["ends_at"]) == (
        "admit",
        False,
        clock("21:25"),
    )
    assert decision(outcome, "c")["code"] == "too-big-for-person"
    assert outcome.pools["univ"]["resources"]["gpu.h200"]["used"] == 2000


def test_a_reservation_that_is_over_or_another_pools_gives_no_rights() -> None:
    pools = {"seoul": {}, "univ": {"parent": "seoul"} | FULL["univ"], "lab": {"parent": "seoul"}}
    outcome = played(
        pools,
        student("a", 2, "+2h", reservation="w1"),
        ask("b", "lab", gpus(h200=4), "+10m", reservation="w1"),
        reservations=[reserved("w1", "+0m", "+1h")],
    )
    assert decision(outcome, "a")["code"] == "too-big-for-person"
    assert decision(outcome, "b")["code"] == "pool-full"


def test_a_lease_is_extended_up_to_a_window_and_not_into_it() -> None:
    outcome = played(
        FULL,
        student("a", minutes=60),
        {"at": "+10m", "extend": {"id": "a", "minutes": 90}},
        {"at": "+20m", "extend": {"id": "a", "minutes": 30}},
        reservations=[reserved("w1", "+2h", "+3h")],
    )
    assert changes(outcome) == [("a", "extended", None), ("a", "extended", "reserved-soon")]
    extended = outcome.decisions[1]
    assert (extended["ends_at"], extended["facts"]["cut_by"]["kind"]) == (clock("11:00"), "reservation")


def test_inside_a_window_a_lease_is_extended_to_its_end() -> None:
    outcome = played(
        FULL,
        student("a", minutes=60, reservation="w1"),
        {"at": "+10m", "extend": {"id": "a", "minutes": 180}},
        {"at": "+20m", "extend": {"id": "a", "minutes": 30}},
        reservations=[reserved("w1", "+0m", "+2h")],
    )
    assert changes(outcome) == [("a", "extended", None), ("a", "extended", "reserved-soon")]
    assert outcome.decisions[1]["ends_at"] == clock("11:00")


def test_what_runs_on_after_its_window_counts_by_itself_from_then_on() -> None:
    outcome = played(
        FULL,
        student("a", 1, person="a"),
        {"at": "+2h30m", "tick": True},
        reservations=[reserved("w1", "+0m", "+2h", 2), reserved("w2", "+3h", "+4h", 2)],
        leases=[lease("l1", "univ", gpus(h200=2), ends="+5h", reservation="w1")],
    )
    assert decision(outcome, "a")["ends_at"] == clock("12:00")
    assert outcome.pools["univ"]["resources"]["gpu.h200"]["used"] == 3000


# -- asking for one -----------------------------------------------------------------------------------------------------


def test_what_is_borrowed_is_given_back_in_time_for_a_window_and_comes_again() -> None:
    outcome = played(
        CITY,
        {"at": "+10m", "reserve": reserved("w1", "+2h", "+4h")},
        {"at": "+5h", "tick": True},
        leases=[lease("b", "industry", gpus(h200=11), borrowed=True, ends="+6h")],
    )
    (made,) = decisions(outcome)
    assert (made["verdict"], made["code"], made["reclaims"]) == ("admit", None, ["b"])
    assert changes(outcome, "b")[:2] == [("b", "noticed", "taken-back"), ("b", "stopped", "taken-back")]
    noticed, stopped = (one for one in outcome.decisions if one.get("change") in ("noticed", "stopped"))
    assert (noticed["ends_at"], stopped["at"]) == (clock("11:00"), clock("11:00"))


def test_amber_counts_once_it_is_approved() -> None:
    big = reserved("w1", "+1h", "+2h", 5)
    outcome = played(
        CITY, {"at": "+0m", "reserve": big}, {"at": "+1m", "reserve": big | {"id": "w2", "approved": True}},
        ask("a", "public", gpus(h200=5), "+2m"),
    )  # fmt: skip
    first, second, third = decisions(outcome)
    assert (first["verdict"], first["code"], first["facts"]["approver"]) == ("wait", "amber", "public")
    assert (second["verdict"], second["code"]) == ("admit", None)
    assert third["ends_at"] == clock("10:00")


def test_red_tells_the_nearest_times() -> None:
    outcome = played(
        FULL,
        {"at": "+0m", "reserve": reserved("w2", "+2h", "+4h", 1)},
        reservations=[reserved("w1", "+3h", "+5h")],
    )
    (found,) = decisions(outcome)
    assert (found["verdict"], found["code"]) == ("refuse", "red")
    assert (found["facts"]["before"], found["facts"]["after"]) == (clock("10:00"), clock("14:00"))


def test_a_cancelled_reservation_holds_nothing() -> None:
    outcome = played(
        FULL,
        {"at": "+1m", "cancel": "w1"},
        student("a", 1, "+2m"),
        student("b", 1, "+2m"),
        reservations=[reserved("w1", "+1h", "+3h"), reserved("w2", "+2h", "+3h")],
    )
    assert [decision(outcome, name)["ends_at"] for name in "ab"] == [clock("11:00")] * 2


# -- hours -----------------------------------------------------------------------------------------------------------------


def with_hours(**more: Any) -> dict[str, Any]:
    return {"univ": FULL["univ"] | {"budgets": [{"hours": 100, "period": "month"}]} | more}


def test_what_nobody_uses_is_the_pools_to_pay_until_it_shrinks() -> None:
    outcome = played(
        with_hours(),
        student("a", 1, "+10m", reservation="w1", minutes=60),
        {"at": "+4h", "tick": True},
        reservations=[reserved("w1", "+0m", "+2h")],
        policy={"rates": {"reservation": "0.5"}},
    )
    unused = (10 * 4 + 10 * 3) * 60 * 0.5 + 50 * 60 * 0  # then it holds what is in use
    after = 50 * 60 * 1 * 0.5  # the lease inside ends an hour after it began, the window goes on
    assert budget(outcome, "univ")["used"] == unused + after + HOUR


def test_a_reservation_over_the_turn_of_a_month_is_charged_to_both() -> None:
    """The clocks of Berlin go forward that night: elapsed hours count."""
    pools = with_hours(budgets=[{"hours": 100, "period": "day"}])
    outcome = played(
        pools,
        {"at": "2027-03-28T04:00:00+02:00", "tick": True},
        now="2027-03-27T23:30:00+01:00",
        policy={"zone": "Europe/Berlin"},
        reservations=[reserved("w1", "+0m", "2027-03-28T03:30:00+02:00", 1)],
        leases=[lease("l1", "univ", gpus(h200=1), reservation="w1", started="-1m", ends="+3h")],
    )
    # Three hours in all: one half before midnight; what runs inside is what is charged.
    assert budget(outcome, "univ")["used"] == 2.5 * HOUR


def test_a_reservation_of_which_nothing_is_left_to_pay_still_stands() -> None:
    outcome = played(
        with_hours(budgets=[{"hours": 1, "period": "month"}]),
        student("a", 1, "+19m", reservation="w1"),
        {"at": "+1h", "tick": True},
        reservations=[reserved("w1", "+0m", "+2h")],
    )
    found = decision(outcome, "a")
    assert (found["verdict"], found["code"]) == ("wait", "budget-spent")
    # Four GPUs for twenty minutes, more than the hour there was: told, and never more than that.
    assert budget(outcome, "univ")["used"] == 4 * 20 * 60


# -- the file -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"reservations": [reserved("w", "+2h", "+1h")]}, "ends before it begins"),
        ({"reservations": [reserved("w", "+1h", "+2h", 0)]}, "holds nothing"),
        ({"reservations": [reserved("w", "+1h", "+2h", 1, "gone")]}, "no pool 'gone'"),
        ({"reservations": [reserved("w", "+1h", "+2h"), reserved("w", "+3h", "+4h")]}, "stands here twice"),
        ({"leases": [lease("l", "univ", gpus(h200=1), reservation="w")]}, "no reservation 'w'"),
        ({"events": [student("a", reservation="w")]}, "no reservation 'w'"),
    ],
    ids=["ends first", "of nothing", "of no pool", "twice", "a lease in none", "an ask in none"],
)
def test_faults_of_reservations_are_told_with_their_place(parts: dict[str, Any], says: str) -> None:
    events = parts.pop("events", []) if "events" in parts else []
    with pytest.raises(FaultyDocument, match=says):
        played(FULL, *events, **parts)
