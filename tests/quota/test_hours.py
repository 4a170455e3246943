"""GPU-hours: what a start needs, what bounds its end, and what the wait or refusal says (QUOTA.md §4 check 4, §7)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from hub_ext.core.amounts import cost_per_second, gpu_seconds, hours_to_cost_units
from tests.support.builders import HOUR, ask, budget, changes, decision, gpus, lease, played, policy_text

MONTH = {"hours": 100, "period": "month"}
WEEK = {"hours": 100, "period": "week"}
DAY = {"hours": 100, "period": "day"}
EACH = {"hours": 100, "period": "week", "each": "person"}
APRIL, MONDAY, TOMORROW = (f"2027-{day}T00:00:00+09:00" for day in ("04-01", "03-08", "03-03"))


def pools(*budgets: dict[str, Any], nominal: float = 64, **more: Any) -> dict[str, Any]:
    """One pool, univ, with these budgets, under a centre without any."""
    univ = {"parent": "seoul", "quota": gpu_quota(nominal), "budgets": list(budgets)}
    return {"seoul": {}, "univ": univ, **more}


def gpu_quota(nominal: float) -> dict[str, Any]:
    return {"gpu.h200": {"nominal": nominal}}


def used(hours: float | str, pool: str = "univ", **more: Any) -> dict[str, Any]:
    return {"pool": pool, "hours": hours, **more}


def by(budget: dict[str, Any], pool: str = "univ", person: str | None = None) -> dict[str, Any]:
    """How a budget is named."""
    period = budget.get("period") or f"{budget['from']}/{budget['to']}"
    return {"kind": "budget", "pool": pool, "period": period, "budget_person": person}


# -- cost ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("milli", "hours", "rate", "wanted"),
    [
        pytest.param(1000, "1", "1", 1_000_000, id="one GPU for one second is a GPU-second"),
        pytest.param(1000, "0.143", "1", 143_000, id="a slice costs its part"),
        pytest.param(1000, "0.143", "0.5", 72_000, id="71.5 is rounded up"),
        pytest.param(1000, "0.001", "0.499", 0, id="0.499 is rounded down"),
        pytest.param(1000, "0.001", "0.5", 1000, id="one half is rounded up"),
        pytest.param(1000, "0.005", "0.5", 3000, id="2.5 is rounded up, not to the even number"),
        pytest.param(
            1, "0.143", "0.5", 72, id="the rate is rounded, not the product: a thousandth of a slice"
        ),
        pytest.param(300, "1", "0.5", 150_000, id="parts of a GPU"),
        pytest.param(1000, "0.0005", "1", 1000, id="half a thousandth is a whole one"),
        pytest.param(1000, "2.5", "1.1", 2_750_000, id="more than one hour each, at more than the full rate"),
        pytest.param(0, "1", "1", 0, id="none"),
    ],
)
def test_cost_is_rounded_half_up(milli: int, hours: str, rate: str, wanted: int) -> None:
    assert cost_per_second({"a": Decimal(hours)}, {"gpu.a": milli, "cpu": 9000}, Decimal(rate)) == wanted


def test_classes_are_rounded_each_for_itself() -> None:
    both = {"gpu.a": 1000, "gpu.b": 1000}
    assert cost_per_second({"a": Decimal("0.0005"), "b": Decimal("0.0005")}, both, Decimal(1)) == 2000


@pytest.mark.parametrize(
    ("units", "wanted"),
    [
        (0, 0),
        (10**6, 1),
        (1_500_000, 1.5),
        (1, 0.000001),
        (-1, -0.000001),
        (-(10**6), -1),
        (3_600_000_001, 3600.000001),
    ],
)
def test_cost_units_are_shown_in_gpu_seconds(units: int, wanted: float) -> None:
    assert gpu_seconds(units) == wanted
    assert isinstance(gpu_seconds(units), int) == (units % 10**6 == 0)


def test_hours_in_cost_units() -> None:
    assert hours_to_cost_units(Decimal("0.000001")) == 3600
    assert hours_to_cost_units(Decimal(2000)) == 7_200_000_000_000


# -- what a start needs ---------------------------------------------------------------------------------------------------

NEEDS = [
    pytest.param(
        [MONTH], [used(99.75)], {}, ("admit", None, {"cut_by": by(MONTH)}, "2027-03-02T09:15:00+09:00"),
        id="just enough for the shortest start: admitted for as long as it lasts",
    ),
    pytest.param(
        [MONTH], [used(99.75), used(0.0005)], {},
        ("wait", "budget-spent", by(MONTH) | {
            "limit": 360_000, "used": 359_101.8, "committed": 0, "left": 898.2, "needed": 900, "until": APRIL, "renews": APRIL,
        }, None),
        id="a little less: spent, with what is left and when it renews",
    ),
    pytest.param(
        [MONTH], [used(120)], {}, ("wait", "budget-spent", {"used": 120 * HOUR, "left": -20 * HOUR}, None),
        id="overdrawn by hand",
    ),
    pytest.param([MONTH], [used(96)], {}, ("admit", None, {"cut_by": by(MONTH)}, "2027-03-02T13:00:00+09:00"), id="until it is used up"),
    pytest.param([MONTH], [used(88)], {}, ("admit", None, {"cut_by": None}, "2027-03-02T21:00:00+09:00"), id="exactly enough for the whole"),
    pytest.param(
        [MONTH], [used(98)], {"amounts": gpus(h200=8)}, ("admit", None, {"cut_by": by(MONTH)}, "2027-03-02T09:15:00+09:00"),
        id="eight GPUs use it up eight times as fast",
    ),
    pytest.param([MONTH], [used(98)], {"amounts": gpus(h200=9)}, ("wait", "budget-spent", {"needed": 8100, "left": 7200}, None), id="nine too fast"),
    pytest.param([MONTH], [used(100)], {"amounts": {"cpu": 8}}, ("admit", None, {"cut_by": None}, "2027-03-02T21:00:00+09:00"), id="without GPUs nothing is limited"),
    pytest.param([MONTH | {"hours": 0}], [], {}, ("refuse", "budget-spent", {"renews": None, "limit": 0}, None), id="no hours in any period: refused"),
    pytest.param([MONTH], [used(99.9)], {"minutes": 1}, ("wait", "budget-spent", {"needed": 900}, None), id="fewer minutes than the least need as much as the least"),
    pytest.param(
        [WEEK, MONTH], [used(99, period="month"), used(98, period="week")], {},
        ("admit", None, {"cut_by": by(MONTH)}, "2027-03-02T10:00:00+09:00"),
        id="of several that bind, the one that is used up first is named",
    ),
    pytest.param(
        [WEEK, MONTH], [used(99, period="month"), used(99, period="week")], {},
        ("admit", None, {"cut_by": by(WEEK)}, "2027-03-02T10:00:00+09:00"),
        id="used up at the same time: the one stated first",
    ),
    pytest.param(
        [MONTH, WEEK, DAY], [used(100, period=period) for period in ("month", "week", "day")], {},
        ("wait", "budget-spent", by(MONTH) | {"renews": APRIL}, None),
        id="among waits, the last to renew is named",
    ),
    pytest.param(
        [DAY, MONTH], [used(100, period="day"), used(1, period="month")], {},
        ("wait", "budget-spent", by(DAY) | {"renews": TOMORROW}, None),
        id="one that is spent is enough",
    ),
    pytest.param(
        [DAY | {"hours": 0}, MONTH], [used(100, period="month")], {}, ("refuse", "budget-spent", by(DAY), None),
        id="what waiting cannot cure comes before what it can",
    ),
    pytest.param([DAY], [used(80)], {}, ("admit", None, {"cut_by": None}, "2027-03-02T21:00:00+09:00"), id="a budget that lasts to its period's end does not cut"),
]  # fmt: skip


@pytest.mark.parametrize(("budgets", "spent", "wish", "wanted"), NEEDS)
def test_need(
    budgets: Any, spent: Any, wish: dict[str, Any], wanted: tuple[str, str | None, dict[str, Any], str | None]
) -> None:
    outcome = played(pools(*budgets), ask("a", "univ", **{"amounts": gpus(h200=1)} | wish), used_hours=spent)
    check(decision(outcome, "a"), wanted)


def check(found: dict[str, Any], wanted: tuple[str, str | None, dict[str, Any], str | None]) -> None:
    verdict, code, facts, ends_at = wanted
    assert (found["verdict"], found["code"], found["ends_at"]) == (verdict, code, ends_at)
    assert {key: found["facts"].get(key, "missing") for key in facts} == facts


NEAR_THE_END = "2027-03-31T23:55:00+09:00"


@pytest.mark.parametrize(
    ("hours", "wanted"),
    [
        pytest.param(
            "99.916666", ("admit", None, {"cut_by": None}, "2027-04-01T11:55:00+09:00"),
            id="enough to the period's end: what runs on is for the next",
        ),
        pytest.param(
            "99.916945", ("wait", "budget-spent", {"needed": 300, "renews": APRIL}, None),
            id="one second less than to the period's end",
        ),
    ],
)  # fmt: skip
def test_near_the_end_of_a_period_less_is_needed(hours: str, wanted: Any) -> None:
    """Five minutes before the end, with 300 or 299 GPU-seconds left."""
    outcome = played(pools(MONTH), ask("a", "univ", gpus(h200=1)), used_hours=[used(hours)], now=NEAR_THE_END)
    check(decision(outcome, "a"), wanted)


def test_only_what_is_set_aside_is_in_the_way() -> None:
    """Short, not spent: what is left is set aside for the lease that runs; when it ends early, there is room."""
    outcome = played(
        pools(MONTH),
        ask("now", "univ", gpus(h200=1)),
        {"at": "+30m", "cancel": "now"},
        {"at": "+1h", "release": "l1"},
        ask("then", "univ", gpus(h200=1), at="+1h"),
        used_hours=[used(96)],
        leases=[lease("l1", "univ", gpus(h200=1))],
    )
    short = decision(outcome, "now")
    check(
        short,
        (
            "wait",
            "budget-short",
            by(MONTH) | {"used": 96 * HOUR, "committed": 4 * HOUR, "left": 0, "renews": APRIL},
            None,
        ),
    )
    check(decision(outcome, "then"), ("admit", None, {"cut_by": by(MONTH)}, "2027-03-02T13:00:00+09:00"))


def test_short_is_always_a_wait() -> None:
    outcome = played(
        pools({"hours": 4, "from": "2027-03-01", "to": "2027-03-31"}),
        ask("a", "univ", gpus(h200=1)),
        leases=[lease("l1", "univ", gpus(h200=1))],
    )
    check(decision(outcome, "a"), ("wait", "budget-short", {"renews": None, "left": 0}, None))


def test_a_borrowed_start_needs_less() -> None:
    outcome = played(
        pools(MONTH, nominal=0) | {"seoul": {"quota": gpu_quota(4)}},
        ask("a", "univ", gpus(h200=1)),
        used_hours=[used(99)],
    )
    found = decision(outcome, "a")
    assert found["facts"]["cost"] == 0.5
    check(found, ("admit", None, {"cut_by": by(MONTH)}, "2027-03-02T11:00:00+09:00"))


def test_a_rate_of_nothing_is_not_limited_by_hours() -> None:
    free = {"rates": {"borrowed": "0"}}
    outcome = played(
        pools(MONTH, nominal=0) | {"seoul": {"quota": gpu_quota(4)}},
        ask("a", "univ", gpus(h200=1)),
        used_hours=[used(200)],
        policy=free,
    )
    check(decision(outcome, "a"), ("admit", None, {"cut_by": None, "cost": 0}, "2027-03-02T21:00:00+09:00"))


# -- whose budget -----------------------------------------------------------------------------------------------------------


def test_each_person_has_their_own_in_the_whole_subtree() -> None:
    state = pools(EACH) | {"lab": {"parent": "univ"}, "industry": {"parent": "seoul", "quota": gpu_quota(64)}}
    outcome = played(
        state,
        ask("mine", "lab", gpus(h200=1), person="student"),
        ask("other", "lab", gpus(h200=1), person="teacher"),
        ask("elsewhere", "industry", gpus(h200=1), person="student"),
        ask("nobody", "lab", gpus(h200=1)),
        used_hours=[used(100, person="student")],
    )
    check(
        decision(outcome, "mine"),
        ("wait", "budget-spent", by(EACH, person="student") | {"renews": MONDAY}, None),
    )
    assert [decision(outcome, name)["verdict"] for name in ("other", "elsewhere", "nobody")] == ["admit"] * 3
    assert [(entry["person"], entry["used"], entry["committed"]) for entry in outcome.budgets] == [
        ("student", 100 * HOUR, 0),
        ("teacher", 0, 12 * HOUR),
    ]


def test_two_pools_state_each_persons_hours_and_count_for_themselves() -> None:
    """A lease in the lab counts in both; one in univ only in univ's."""
    state = pools(EACH | {"hours": 3}) | {"lab": {"parent": "univ", "budgets": [EACH | {"hours": 2}]}}
    leases = [
        lease("l1", "lab", gpus(h200=1), person="student", ends="+1h"),
        lease("l2", "univ", gpus(h200=1), person="student", ends="+1h"),
    ]
    outcome = played(
        state, ask("a", "lab", gpus(h200=1), person="student"), {"at": "+30m", "tick": True}, leases=leases
    )
    check(
        decision(outcome, "a"),
        ("admit", None, {"cut_by": by(EACH, "lab", "student")}, "2027-03-02T10:00:00+09:00"),
    )
    assert budget(outcome, "lab", "student") | {"limit": 0, "period": ""} == {
        "pool": "lab", "person": "student", "period": "", "limit": 0, "used": HOUR, "committed": HOUR, "left": 0,
    }  # fmt: skip
    assert (budget(outcome, "univ", "student")["used"], budget(outcome, "univ", "student")["left"]) == (
        1.5 * HOUR,
        0,
    )


def test_used_hours_fill_exactly_one_budget() -> None:
    state = pools(WEEK, MONTH, EACH, {"hours": 10, "from": "2027-03-01", "to": "2027-06-30"}) | {
        "seoul": {"budgets": [MONTH]}
    }
    outcome = played(
        state,
        used_hours=[
            used(1, period="week"),
            used(2, period="month"),
            used(3, person="student"),
            used(4, period="term"),
            used(5, "seoul"),
            used(0.5, "seoul", period="month"),
        ],
    )
    assert [(b["pool"], b["person"], b["period"], b["used"] / HOUR) for b in outcome.budgets] == [
        ("seoul", None, "month", 5.5),
        ("univ", None, "week", 1),
        ("univ", None, "month", 2),
        ("univ", "student", "week", 3),
        ("univ", None, "2027-03-01/2027-06-30", 4),
    ]


def test_every_pool_above_is_charged_to_the_second() -> None:
    state = pools(MONTH) | {"seoul": {"budgets": [MONTH | {"hours": 1000}]}, "lab": {"parent": "univ"}}
    outcome = played(
        state,
        ask("a", "lab", gpus(h200="0.5"), minutes=60),
        {"at": "+10m7s", "tick": True},
        leases=[lease("l1", "lab", gpus(h200=2), ends="+1h"), lease("l2", "lab", {"cpu": 4})],
    )
    for pool, limit in (("univ", 100), ("seoul", 1000)):
        assert budget(outcome, pool) == {
            "pool": pool, "person": None, "period": "month", "limit": limit * HOUR,
            "used": 607 * 2.5, "committed": (3600 - 607) * 2.5, "left": limit * HOUR - 3600 * 2.5,
        }  # fmt: skip


def test_the_soft_limit_warns_and_lets_start() -> None:
    state = pools(MONTH | {"soft": 0.8}, WEEK | {"soft": 0.9})
    spent = [used(80, period="month"), used(80, period="week")]
    outcome = played(state, ask("a", "univ", gpus(h200=1)), ask("cpu", "univ", {"cpu": 1}), used_hours=spent)
    assert decision(outcome, "a")["facts"]["soft"] == [by(MONTH)]
    assert decision(outcome, "cpu")["facts"]["soft"] == []


# -- terms --------------------------------------------------------------------------------------------------------------------

SPRING = {"hours": 100, "from": "2027-03-02", "to": "2027-03-05"}
SUMMER = {"hours": 100, "from": "2027-03-10", "to": "2027-03-12"}
TERM_FACTS = {"limit": 0, "used": 0, "committed": 0, "left": 0, "needed": None, "until": None}


@pytest.mark.parametrize(
    ("now", "wanted"),
    [
        pytest.param(
            "2027-03-01T23:59:59+09:00",
            ("wait", "budget-spent", by(SPRING) | TERM_FACTS | {"renews": "2027-03-02T00:00:00+09:00"}, None),
            id="before the first: wait until it begins",
        ),
        pytest.param("2027-03-02T00:00:00+09:00", ("admit", None, {"cut_by": None}, "2027-03-02T12:00:00+09:00"), id="from its first instant"),
        pytest.param(
            "2027-03-05T20:00:00+09:00", ("admit", None, {"cut_by": by(SPRING)}, "2027-03-06T00:00:00+09:00"),
            id="its last day belongs to it, and every lease ends with it",
        ),
        pytest.param(
            "2027-03-05T23:59:50+09:00", ("admit", None, {"cut_by": by(SPRING)}, "2027-03-06T00:00:00+09:00"),
            id="ten seconds are left of it",
        ),
        pytest.param(
            "2027-03-06T00:00:00+09:00",
            ("wait", "budget-spent", by(SUMMER) | TERM_FACTS | {"renews": "2027-03-10T00:00:00+09:00"}, None),
            id="between two: wait until the next begins",
        ),
        pytest.param("2027-03-13T00:00:00+09:00", ("refuse", "budget-spent", by(SUMMER) | TERM_FACTS | {"renews": None}, None), id="after the last: refused"),
    ],
)  # fmt: skip
def test_terms(now: str, wanted: Any) -> None:
    outcome = played(
        pools(SUMMER, SPRING), ask("a", "univ", gpus(h200=1)), ask("cpu", "univ", {"cpu": 1}), now=now
    )
    check(decision(outcome, "a"), wanted)
    assert decision(outcome, "cpu")["verdict"] == "admit"


def test_a_term_that_is_used_up_waits_for_the_next_and_the_last_refuses() -> None:
    wish = ask("a", "univ", gpus(h200=1))
    spent = [used(100, period="term")]
    outcome = played(pools(SPRING), wish, used_hours=spent)
    check(
        decision(outcome, "a"),
        ("refuse", "budget-spent", {"renews": None, "left": 0, "until": "2027-03-06T00:00:00+09:00"}, None),
    )
    outcome = played(pools(SPRING, SUMMER), wish, used_hours=[used(100, period="2027-03-02/2027-03-05")])
    check(
        decision(outcome, "a"),
        ("wait", "budget-spent", by(SPRING) | {"renews": "2027-03-10T00:00:00+09:00"}, None),
    )


def test_terms_bind_gpus_even_where_they_cost_nothing() -> None:
    state = pools(SPRING, nominal=0) | {"seoul": {"quota": gpu_quota(4)}}
    free = {"rates": {"borrowed": "0"}}
    inside = played(state, ask("a", "univ", gpus(h200=1)), now="2027-03-05T20:00:00+09:00", policy=free)
    check(
        decision(inside, "a"), ("admit", None, {"cut_by": by(SPRING), "cost": 0}, "2027-03-06T00:00:00+09:00")
    )
    after = played(state, ask("a", "univ", gpus(h200=1)), now="2027-03-06T00:00:00+09:00", policy=free)
    check(decision(after, "a"), ("refuse", "budget-spent", {}, None))


def test_terms_of_pools_above_bind_too_and_the_last_to_begin_is_named() -> None:
    state = pools(SUMMER) | {"seoul": {"budgets": [{"hours": 9, "from": "2027-03-08", "to": "2027-03-31"}]}}
    outcome = played(state, ask("a", "univ", gpus(h200=1)))
    check(
        decision(outcome, "a"),
        ("wait", "budget-spent", by(SUMMER) | {"renews": "2027-03-10T00:00:00+09:00"}, None),
    )


def test_a_spent_budget_that_renews_later_than_a_term_begins_is_named() -> None:
    state = pools(SUMMER) | {"seoul": {"budgets": [MONTH]}}
    outcome = played(state, ask("a", "univ", gpus(h200=1)), used_hours=[used(100, "seoul")])
    check(decision(outcome, "a"), ("wait", "budget-spent", by(MONTH, "seoul") | {"renews": APRIL}, None))


def test_no_hours_above_is_told_before_a_term_that_has_not_begun() -> None:
    state = pools(SUMMER) | {"seoul": {"budgets": [MONTH | {"hours": 0}]}}
    check(
        decision(played(state, ask("a", "univ", gpus(h200=1))), "a"),
        ("refuse", "budget-spent", by(MONTH, "seoul"), None),
    )


# -- periods roll over ----------------------------------------------------------------------------------------------------------


def test_the_rest_of_a_lease_is_the_next_periods_first_commitment() -> None:
    """Twelve hours from nine in the evening: three in this day, nine in the next, whose hours are three."""
    state = pools(DAY | {"hours": 12})
    outcome = played(
        state,
        ask("a", "univ", gpus(h200=1)),
        {"at": "+2h59m59s", "tick": True},
        ask("b", "univ", gpus(h200=1), at="+3h"),
        now="2027-03-02T21:00:00+09:00",
    )
    check(decision(outcome, "a"), ("admit", None, {"cut_by": None}, "2027-03-03T09:00:00+09:00"))
    check(decision(outcome, "b"), ("admit", None, {"cut_by": by(DAY)}, "2027-03-03T03:00:00+09:00"))
    assert budget(outcome, "univ") | {"period": ""} == {
        "pool": "univ", "person": None, "period": "", "limit": 12 * HOUR, "used": 0, "committed": 12 * HOUR, "left": 0,
    }  # fmt: skip


def test_an_ask_exactly_at_the_edge_belongs_to_the_new_period() -> None:
    """Windows that touch do not overlap: [start, end)."""
    outcome = played(
        pools(DAY | {"hours": 1}),
        ask("before", "univ", gpus(h200=1), at="+59m59s"),
        {"at": "+59m59s", "cancel": "before"},
        ask("at", "univ", gpus(h200=1), at="+1h"),
        used_hours=[used(1)],
        now="2027-03-02T23:00:00+09:00",
    )
    check(decision(outcome, "before"), ("wait", "budget-spent", {"until": TOMORROW, "needed": 1}, None))
    check(decision(outcome, "at"), ("admit", None, {"cut_by": by(DAY)}, "2027-03-03T01:00:00+09:00"))


def test_a_lease_that_ends_at_the_edge_is_nothing_to_the_next_period() -> None:
    outcome = played(
        pools(DAY | {"hours": 3}),
        ask("a", "univ", gpus(h200=1), minutes=180),
        {"at": "+3h", "tick": True},
        now="2027-03-02T21:00:00+09:00",
    )
    assert changes(outcome) == [("a", "stopped", None)]
    assert budget(outcome, "univ")["left"] == 3 * HOUR
    assert budget(outcome, "univ")["used"] == 0


# -- carrying over ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("carry", "spent", "wanted"),
    [
        pytest.param(20, 0, 120, id="all unused: the cap"),
        pytest.param(20, 90, 110, id="less unused than the cap: what was unused"),
        pytest.param(20, 100, 100, id="nothing unused, nothing carried"),
        pytest.param(20, 130, 100, id="overdrawn: nothing is carried, and nothing is taken away"),
        pytest.param(0, 0, 100, id="a cap of nothing"),
        pytest.param(1000, 40, 160, id="a cap above the hours: never more than what was left"),
        pytest.param(None, 0, 100, id="no carry"),
    ],
)
def test_carry_is_the_lesser_of_unused_and_cap(carry: float | None, spent: float, wanted: float) -> None:
    state = pools(MONTH | ({} if carry is None else {"carry": carry}))
    outcome = played(state, {"at": "2027-04-01T00:00:00+09:00", "tick": True}, used_hours=[used(spent)])
    assert budget(outcome, "univ")["limit"] == wanted * HOUR


def test_spent_hours_are_never_refunded() -> None:
    """What was carried in is used up like the rest: 100 and 20, of which 115 are used, leave 5."""
    outcome = played(
        pools(MONTH | {"carry": 20}, nominal=200),
        ask("a", "univ", gpus(h200=115), at="2027-04-01T00:00:00+09:00", minutes=60),
        {"at": "2027-04-30T00:00:00+09:00", "tick": True},
        {"at": "2027-05-01T00:00:00+09:00", "tick": True},
    )
    assert decision(outcome, "a")["facts"]["cut_by"] is None
    assert budget(outcome, "univ")["limit"] == 105 * HOUR


def test_carry_goes_on_while_it_is_not_used() -> None:
    """Ten hours stay unused in March; April and May are used up to the last hour of their own, ten stay carried."""
    events = [
        ask(f"a{month}", "univ", gpus(h200=100), at=f"2027-{month}-01T00:00:00+09:00", minutes=60)
        for month in ("04", "05")
    ]
    outcome = played(
        pools(MONTH | {"carry": 20}, nominal=200),
        *events,
        {"at": "2027-06-01T00:00:00+09:00", "tick": True},
        used_hours=[used(90)],
    )
    assert [found["verdict"] for found in outcome.decisions if "verdict" in found] == ["admit", "admit"]
    assert budget(outcome, "univ")["limit"] == 110 * HOUR


def test_each_persons_carry_is_their_own() -> None:
    outcome = played(
        pools(EACH | {"carry": 20}),
        ask("a", "univ", gpus(h200=1), at="2027-03-08T00:00:00+09:00", person="student", minutes=15),
        ask("b", "univ", gpus(h200=1), at="2027-03-08T00:00:00+09:00", person="teacher", minutes=15),
        used_hours=[used(95, person="student")],
    )
    assert [budget(outcome, "univ", who)["limit"] / HOUR for who in ("student", "teacher")] == [105, 120]


def test_before_the_budget_began_nothing_was_left() -> None:
    outcome = played(pools(MONTH | {"carry": 20}), {"at": "+1h", "tick": True})
    assert budget(outcome, "univ")["limit"] == 100 * HOUR


def changed(at: str, *budgets: dict[str, Any]) -> dict[str, Any]:
    return {"at": at, "policy": policy_text(pools(*budgets))}


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        pytest.param(MONTH | {"carry": 50}, MONTH | {"hours": 200, "carry": 50}, (210, 250), id="raised: spent hours of March do not come back"),
        pytest.param(MONTH | {"carry": 50}, MONTH | {"hours": 40, "carry": 50}, (50, 90), id="cut: what was carried stays"),
        pytest.param(MONTH | {"carry": 5}, MONTH | {"carry": 50}, (105, 150), id="a higher cap counts from the next edge on"),
        pytest.param(MONTH, MONTH | {"carry": 50}, (100, 150), id="so does a carry that there was not"),
        pytest.param(MONTH | {"carry": 50}, MONTH, (110, 100), id="one that is taken away stays until the edge"),
    ],
)  # fmt: skip
def test_what_a_period_carried_in_stays_when_the_policy_changes(
    before: Any, after: Any, wanted: tuple[int, int]
) -> None:
    """90 of March's hours are used. The policy changes in the middle of April."""
    in_april = changed("2027-04-15T00:00:00+09:00", after)
    outcome = played(pools(before), in_april, used_hours=[used(90)])
    assert budget(outcome, "univ")["limit"] == wanted[0] * HOUR
    in_may = {"at": "2027-05-01T00:00:00+09:00", "tick": True}
    outcome = played(
        pools(before), in_april, changed("2027-04-20T00:00:00+09:00", after), in_may, used_hours=[used(90)]
    )
    assert budget(outcome, "univ")["limit"] == wanted[1] * HOUR


def test_what_each_person_carried_in_stays_as_well() -> None:
    before, after = EACH | {"carry": 50}, EACH | {"hours": 200, "carry": 50}
    outcome = played(
        pools(before),
        changed("2027-03-10T00:00:00+09:00", after),
        *(
            ask(f"a-{who}", "univ", gpus(h200=1), at="2027-03-10T00:00:00+09:00", person=who)
            for who in ("student", "teacher")
        ),
        used_hours=[used(90, person="student")],
    )
    assert [budget(outcome, "univ", who)["limit"] / HOUR for who in ("student", "teacher")] == [210, 250]


# -- grants --------------------------------------------------------------------------------------------------------------------


def grant(hours: float, until: str, at: str = "+0m", pool: str = "univ", **more: Any) -> dict[str, Any]:
    return {"at": at, "grant": {"pool": pool, "hours": hours, "until": until, "why": "deadline", **more}}


def test_a_grant_is_drawn_after_the_periods_hours() -> None:
    outcome = played(
        pools(MONTH),
        grant(10, "+30d"),
        ask("a", "univ", gpus(h200=1)),
        {"at": "+3h", "tick": True},
        used_hours=[used(98)],
    )
    check(decision(outcome, "a"), ("admit", None, {"cut_by": None}, "2027-03-02T21:00:00+09:00"))
    assert budget(outcome, "univ") | {"period": ""} == {
        "pool": "univ", "person": None, "period": "",
        "limit": 110 * HOUR, "used": 101 * HOUR, "committed": 9 * HOUR, "left": 0,
    }  # fmt: skip


def test_a_grant_helps_until_it_runs_out() -> None:
    outcome = played(pools(MONTH), grant(50, "+3h"), ask("a", "univ", gpus(h200=1)), used_hours=[used(99)])
    check(decision(outcome, "a"), ("admit", None, {"cut_by": by(MONTH)}, "2027-03-02T12:00:00+09:00"))


def test_the_earliest_to_run_out_is_drawn_first() -> None:
    """Three hours run on the grant until +3h; four more on the other, whichever was made first."""
    for order in (("+3h", "+30d"), ("+30d", "+3h")):
        hours = {"+3h": 50, "+30d": 4}
        grants = [grant(hours[until], until) for until in order]
        outcome = played(
            pools(MONTH),
            *grants,
            ask("a", "univ", gpus(h200=1)),
            {"at": "+5h", "tick": True},
            used_hours=[used(100)],
        )
        check(decision(outcome, "a"), ("admit", None, {"cut_by": by(MONTH)}, "2027-03-02T16:00:00+09:00"))
        # What the first paid stays counted; what was left in it is gone.
        assert (budget(outcome, "univ")["limit"], budget(outcome, "univ")["left"]) == (107 * HOUR, 0)


def test_a_grant_that_has_run_out_helps_no_more() -> None:
    outcome = played(
        pools(MONTH),
        grant(50, "+1h"),
        ask("before", "univ", gpus(h200=1), at="+50m"),
        ask("after", "univ", gpus(h200=1), at="+1h"),
        used_hours=[used(100)],
    )
    check(decision(outcome, "before"), ("wait", "budget-spent", {"left": 50 * HOUR}, None))
    check(decision(outcome, "after"), ("wait", "budget-spent", {"left": 0, "limit": 100 * HOUR}, None))


def test_what_was_used_before_a_grant_is_not_for_it_to_pay() -> None:
    outcome = played(
        pools(MONTH),
        grant(10, "+30d", at="+1h"),
        used_hours=[used(103)],
        leases=[lease("l1", "univ", gpus(h200=1), ends="+15m")],
    )
    assert budget(outcome, "univ")["limit"] == 110 * HOUR
    assert budget(outcome, "univ")["left"] == (110 - 103.25) * HOUR
    outcome = played(
        pools(MONTH),
        grant(10, "+30d", at="+1h"),
        {"at": "2027-04-01T00:00:00+09:00", "tick": True},
        used_hours=[used(103)],
    )
    assert budget(outcome, "univ")["limit"] == 110 * HOUR  # nothing was drawn, and it still stands in April


def test_a_grant_that_crosses_the_edge_brings_its_rest_along() -> None:
    outcome = played(
        pools(MONTH),
        grant(10, "+60d"),
        ask("a", "univ", gpus(h200=1), minutes=240),
        {"at": "2027-04-01T00:00:00+09:00", "tick": True},
        used_hours=[used(97)],
    )
    assert budget(outcome, "univ")["limit"] == 109 * HOUR


def test_grants_are_not_carried_over() -> None:
    """Of 100 and 50 granted 120 are used: 100 of them the period's own, so that nothing is left to carry."""
    outcome = played(
        pools(MONTH | {"carry": 60}),
        grant(50, "+20d"),
        ask("a", "univ", gpus(h200=20), minutes=60),
        {"at": "2027-04-01T00:00:00+09:00", "tick": True},
        used_hours=[used(100)],
    )
    assert decision(outcome, "a")["verdict"] == "admit"
    assert budget(outcome, "univ")["limit"] == 100 * HOUR
    outcome = played(
        pools(MONTH | {"carry": 60}),
        grant(50, "+20d"),
        {"at": "2027-04-01T00:00:00+09:00", "tick": True},
        used_hours=[used(70)],
    )
    assert budget(outcome, "univ")["limit"] == 130 * HOUR


def test_budgets_above_still_bind() -> None:
    state = pools(MONTH) | {"seoul": {"budgets": [MONTH]}}
    outcome = played(
        state, grant(50, "+30d"), ask("a", "univ", gpus(h200=1)), used_hours=[used(100), used(100, "seoul")]
    )
    check(decision(outcome, "a"), ("wait", "budget-spent", by(MONTH, "seoul"), None))


def test_a_grant_of_one_person_is_theirs() -> None:
    outcome = played(
        pools(EACH, MONTH),
        grant(10, "+3d", person="student"),
        ask("mine", "univ", gpus(h200=1), person="student"),
        ask("other", "univ", gpus(h200=1), person="teacher"),
        used_hours=[used(100, person="student"), used(100, person="teacher")],
    )
    assert [decision(outcome, name)["verdict"] for name in ("mine", "other")] == ["admit", "wait"]


def test_a_grant_alone_lets_start_where_the_period_has_no_hours() -> None:
    outcome = played(pools(MONTH | {"hours": 0}), grant(2, "+30d"), ask("a", "univ", gpus(h200=1)))
    check(decision(outcome, "a"), ("admit", None, {"cut_by": by(MONTH)}, "2027-03-02T11:00:00+09:00"))


def test_a_grant_ends_an_overrun_before_it_stops_anything() -> None:
    """Used up at +1h with grace until +1h30m; the grant comes after the notice: the end stays, until it is extended."""
    outcome = played(
        pools(MONTH),
        grant(50, "+30d", at="+30m"),
        {"at": "+4h", "tick": True},
        used_hours=[used(99)],
        leases=[lease("l1", "univ", gpus(h200=1))],
    )
    assert changes(outcome) == [("l1", "stopped", None)]
    outcome = played(
        pools(MONTH),
        grant(50, "+30d", at="+70m"),
        {"at": "+75m", "extend": {"id": "l1", "minutes": 60}},
        {"at": "+4h", "tick": True},
        used_hours=[used(99)],
        leases=[lease("l1", "univ", gpus(h200=1))],
    )
    assert changes(outcome) == [
        ("l1", "noticed", "budget-spent"),
        ("l1", "extended", None),
        ("l1", "stopped", None),
    ]
    assert outcome.decisions[-1]["at"] == "2027-03-02T11:30:00+09:00"


# -- overruns --------------------------------------------------------------------------------------------------------------------


def test_hours_that_are_used_up_by_hand_give_notice_and_grace() -> None:
    outcome = played(
        pools(MONTH) | {"lab": {"parent": "univ", "session": {"grace": "5m"}}},
        {"at": "+6h", "tick": True},
        used_hours=[used(99)],
        leases=[
            lease("l1", "univ", gpus(h200=1)),
            lease("l2", "lab", gpus(h200=1)),
            lease("short", "univ", gpus(h200=1), ends="+40m"),
            lease("cpu", "univ", {"cpu": 1}),
        ],
    )
    # Three GPUs use up one hour in 20 minutes; "short" ends within the grace anyway.
    noticed = {
        "code": "budget-spent",
        "facts": by(MONTH),
        "at": "2027-03-02T09:20:00+09:00",
        "change": "noticed",
    }
    stopped = {"code": "budget-spent", "facts": {"cut_by": by(MONTH)}, "change": "stopped"}
    in_time = {"code": None, "facts": {"cut_by": None}, "change": "stopped"}
    assert outcome.decisions == [
        noticed | {"id": "l1", "ends_at": "2027-03-02T09:50:00+09:00"},
        noticed | {"id": "l2", "ends_at": "2027-03-02T09:25:00+09:00"},
        stopped | {"id": "l2", "at": "2027-03-02T09:25:00+09:00", "ends_at": "2027-03-02T09:25:00+09:00"},
        in_time | {"id": "short", "at": "2027-03-02T09:40:00+09:00", "ends_at": "2027-03-02T09:40:00+09:00"},
        stopped | {"id": "l1", "at": "2027-03-02T09:50:00+09:00", "ends_at": "2027-03-02T09:50:00+09:00"},
        in_time | {"id": "cpu", "at": "2027-03-02T13:00:00+09:00", "ends_at": "2027-03-02T13:00:00+09:00"},
    ]
    # Overdrawn by the grace: 5 min of l2, 20 of short, 30 of l1.
    assert budget(outcome, "univ")["used"] == 100 * HOUR + 55 * 60


def test_a_cut_of_hours_gives_notice_and_grace() -> None:
    outcome = played(
        pools(MONTH),
        ask("a", "univ", gpus(h200=1)),
        changed("+2h", MONTH | {"hours": 1}),
        ask("b", "univ", gpus(h200=1), at="+2h"),
        {"at": "+3h", "tick": True},
    )
    assert changes(outcome) == [("a", "noticed", "budget-spent"), ("a", "stopped", "budget-spent")]
    assert [entry["at"][11:16] for entry in outcome.decisions if "change" in entry] == ["11:00", "11:30"]
    check(decision(outcome, "b"), ("wait", "budget-spent", {"limit": HOUR, "used": 2 * HOUR}, None))


def test_without_grace_it_stops_at_once() -> None:
    state = pools(MONTH)
    state["univ"] |= {"session": {"grace": "0s"}}
    outcome = played(
        state, {"at": "+3h", "tick": True}, used_hours=[used(99)], leases=[lease("l1", "univ", gpus(h200=1))]
    )
    assert [(entry["change"], entry["at"][11:16]) for entry in outcome.decisions] == [
        ("noticed", "10:00"),
        ("stopped", "10:00"),
    ]


def test_leases_that_roll_over_use_up_the_next_period() -> None:
    """Two leases run on into a day whose two hours they use up in one: notice then, grace after it."""
    outcome = played(
        pools(DAY | {"hours": 2}),
        ask("a", "univ", gpus(h200=1), minutes=300),
        ask("b", "univ", gpus(h200=1), minutes=300),
        {"at": "+6h", "tick": True},
        now="2027-03-02T23:00:00+09:00",
    )
    assert [(entry["id"], entry["change"], entry["at"][11:16]) for entry in outcome.decisions[2:]] == [
        ("a", "noticed", "01:00"),
        ("b", "noticed", "01:00"),
        ("a", "stopped", "01:30"),
        ("b", "stopped", "01:30"),
    ]


def test_a_release_before_the_hours_are_used_up_saves_the_others() -> None:
    outcome = played(
        pools(MONTH),
        {"at": "+10m", "release": "l2"},
        {"at": "+6h", "tick": True},
        used_hours=[used(95.5)],
        leases=[lease("l1", "univ", gpus(h200=1)), lease("l2", "univ", gpus(h200=1))],
    )
    assert changes(outcome) == [("l1", "stopped", None)]


# -- more time --------------------------------------------------------------------------------------------------------------------


def extend(name: str, minutes: int, at: str = "+0m") -> dict[str, Any]:
    return {"at": at, "extend": {"id": name, "minutes": minutes}}


@pytest.mark.parametrize(
    ("budgets", "spent", "minutes", "wanted"),
    [
        pytest.param([], [], 60, ("2027-03-02T14:00:00+09:00", None, {"cut_by": None}), id="as asked"),
        pytest.param(
            [], [], 481, ("2027-03-02T21:00:00+09:00", None, {"cut_by": {"kind": "session", "pool": "univ"}}),
            id="up to now and the longest session",
        ),
        pytest.param([MONTH], [used(95)], 60, ("2027-03-02T14:00:00+09:00", None, {"cut_by": None}), id="exactly what is left beside its own"),
        pytest.param([MONTH], [used(95)], 61, ("2027-03-02T14:00:00+09:00", None, {"cut_by": by(MONTH)}), id="no more than what is left"),
        pytest.param(
            [MONTH], [used(96)], 60,
            ("2027-03-02T13:00:00+09:00", "budget-short", {"left": 0, "needed": HOUR, "renews": APRIL}),
            id="its own rest is all there is",
        ),
        pytest.param(
            [DAY, MONTH], [used(96, period="month"), used(96, period="day")], 60,
            ("2027-03-02T13:00:00+09:00", "budget-short", by(MONTH)),
            id="of several, the last to renew is named",
        ),
        pytest.param(
            [SPRING], [], 24 * 60, ("2027-03-02T21:00:00+09:00", None, {"cut_by": {"kind": "session", "pool": "univ"}}),
            id="the session is shorter than the term",
        ),
        pytest.param(
            [SPRING | {"to": "2027-03-02"}], [], 24 * 60, ("2027-03-02T21:00:00+09:00", None, {}), id="the session ends before the term",
        ),
    ],
)  # fmt: skip
def test_extend(
    budgets: Any, spent: Any, minutes: int, wanted: tuple[str, str | None, dict[str, Any]]
) -> None:
    outcome = played(
        pools(*budgets), extend("l1", minutes), used_hours=spent, leases=[lease("l1", "univ", gpus(h200=1))]
    )
    (found,) = outcome.decisions
    assert (found["change"], found["ends_at"], found["code"]) == ("extended", wanted[0], wanted[1])
    assert {key: found["facts"].get(key, "missing") for key in wanted[2]} == wanted[2]


@pytest.mark.parametrize(
    ("ends", "wanted"),
    [
        pytest.param("+30m", ("2027-03-03T00:00:00+09:00", None), id="up to the term's end"),
        pytest.param("+3h", ("2027-03-03T00:00:00+09:00", "budget-spent"), id="not beyond it"),
    ],
)
def test_no_time_is_added_beyond_a_term(ends: str, wanted: tuple[str, str | None]) -> None:
    outcome = played(
        pools(SPRING | {"to": "2027-03-02"}),
        extend("l1", 600),
        leases=[lease("l1", "univ", gpus(h200=1), ends=ends)],
        now="2027-03-02T21:00:00+09:00",
    )
    assert (outcome.decisions[0]["ends_at"], outcome.decisions[0]["code"]) == wanted


def test_time_is_committed_when_it_is_added() -> None:
    outcome = played(
        pools(MONTH),
        extend("l1", 120, at="+1h"),
        {"at": "+90m", "tick": True},
        used_hours=[used(10)],
        leases=[lease("l1", "univ", gpus(h200=2))],
    )
    assert budget(outcome, "univ")["used"] == 13 * HOUR
    assert budget(outcome, "univ")["committed"] == 9 * HOUR
    assert budget(outcome, "univ")["left"] == 78 * HOUR


def test_beyond_the_period_only_the_next_one_pays() -> None:
    """A lease that already runs into the next day asks nothing more of this one."""
    outcome = played(
        pools(DAY | {"hours": 4}),
        ask("a", "univ", gpus(h200=1), minutes=240),
        extend("a", 120, at="+30m"),
        now="2027-03-02T22:00:00+09:00",
        used_hours=[used(2)],
    )
    assert [(entry["ends_at"][11:16], entry["code"]) for entry in outcome.decisions] == [
        ("02:00", None),
        ("04:00", None),
    ]


def test_a_lease_that_is_over_is_not_extended() -> None:
    outcome = played(
        pools(),
        {"at": "+1h", "release": "l1"},
        extend("l1", 60, at="+2h"),
        leases=[lease("l1", "univ", gpus(h200=1))],
    )
    (found,) = outcome.decisions
    assert (found["change"], found["code"], found["ends_at"]) == (
        "extended",
        "lease-over",
        "2027-03-02T13:00:00+09:00",
    )
