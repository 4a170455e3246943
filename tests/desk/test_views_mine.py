"""The page *mine* as data: what is said of each server, place in line, hour and limit."""

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from hub_ext.core.amounts import COST_UNITS_PER_GPU_HOUR
from hub_ext.core.clock import HOUR, MINUTE
from hub_ext.core.decision import Code, Wait
from hub_ext.desk.records import DayOfUse, Waiting
from hub_ext.desk.views_mine import Cap, MineFacts, MinePage, hours_table, mine_page
from hub_ext.pages.words import speaker
from hub_ext.quota.budget import BudgetOf, BudgetState, Window
from hub_ext.quota.document import parse_policy
from hub_ext.quota.model import Budget, Lease, LeaseState, Period
from hub_ext.quota.policy import End
from tests.desk.lively import POLICY, START, STUDENT

CENTRE = parse_policy(POLICY)
TITLES = {name: pool.title for name, pool in CENTRE.pools.items()}
UNIT = COST_UNITS_PER_GPU_HOUR

RUNNING = Lease(
    id="l1",
    person="student",
    pool="univ",
    path=("univ", "seoul"),
    amounts={"gpu.h200": 1000, "cpu": 8000},
    kind="server",
    guaranteed=True,
    lender=None,
    cost=10**6,
    booked_at=START - HOUR,
    started_at=START - HOUR,
    ends_at=START + 3 * HOUR,
    charged_until=START,
    state=LeaseState.RUNNING,
)
TICKET = Waiting(
    id="t1",
    person="student",
    pool="univ",
    made_at=START - 5 * MINUTE,
    code="pool-full",
    facts={"pool": "univ", "resource": "gpu.h200", "asked": 1000, "available": 0},
    place=3,
    eta_at=None,
    eta_kind=None,
    reclaims=0,
    amounts={"gpu.h200": 1000},
    kind="server",
    profile=None,
    server="",
    wanted=1,
    put_back=False,
)


def page(language: Any = "en", **facts: Any) -> MinePage:
    first = facts.pop("first", date(2027, 2, 17))
    last = facts.pop("last", date(2027, 3, 2))
    made = MineFacts(
        STUDENT, CENTRE, START, facts.pop("now", START), titles=TITLES, first=first, last=last, **facts
    )
    return mine_page(made, speaker(CENTRE, language))


# -- servers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "want_kind", "want_chip"),
    [
        pytest.param({}, "now", "Running", id="a guaranteed server runs"),
        pytest.param(
            {"guaranteed": False, "lender": "lab"},
            "borrowed",
            "Running, borrowed",
            id="a borrowed one says so",
        ),
        pytest.param({"noticed_at": START}, "borrowed", "Ends soon", id="one with a notice ends soon"),
        pytest.param({"state": LeaseState.BOOKED, "started_at": None}, "wait", "Starting", id="it starts"),
        pytest.param({"state": LeaseState.ENDING}, "refused", "Stopping", id="it stops"),
    ],
)
def test_a_server_says_how_it_stands(changes: dict[str, Any], want_kind: str, want_chip: str) -> None:
    (line,) = page(leases=[replace(RUNNING, **changes)]).servers
    assert (line.chip.kind, line.chip.text) == (want_kind, want_chip)
    assert line.openable is (replace(RUNNING, **changes).state is LeaseState.RUNNING)


def test_a_server_says_until_when_what_it_is_and_what_it_costs() -> None:
    (line,) = page(leases=[RUNNING]).servers
    assert line.until == "until 12:00 (3 h left)"
    assert line.until_exact == "2027-03-02 12:00:00 KST"
    assert line.what == "1 × H200 · 8 CPU"
    assert line.where == "Hangang University"
    assert line.price == "1 GPU-h/hour"
    assert line.gone == 250


def test_a_borrowed_server_says_what_that_means_before_it_is_taken_back() -> None:
    (line,) = page(leases=[replace(RUNNING, guaranteed=False, lender="lab")]).servers
    assert "River Lab" in line.hint
    assert "10 min" in line.hint
    assert not line.notice


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        pytest.param(
            {"noticed_at": START, "noticed_for": "t9", "guaranteed": False, "ends_at": START + 10 * MINUTE},
            "Ends at 09:10: it is borrowed",
            id="taken back for somebody",
        ),
        pytest.param(
            {"noticed_at": START, "ends_at": START + 10 * MINUTE},
            "Ends at 09:10. Save your work, or let it run longer.",
            id="its time is nearly over",
        ),
        pytest.param({"unclaimed": True}, "Its turn came", id="started while they were away"),
    ],
)
def test_a_notice_says_why_and_when(changes: dict[str, Any], want: str) -> None:
    (line,) = page(leases=[replace(RUNNING, **changes)]).servers
    assert line.notice.startswith(want)


@pytest.mark.parametrize(
    ("longer", "want"),
    [
        pytest.param(0, "Ends at 09:10: its GPU-hours are used up then.", id="nothing is left"),
        pytest.param(5, "Ends at 09:10: its GPU-hours are used up then.", id="what its start took longer"),
        pytest.param(
            HOUR, "Ends at 09:10. Save your work, or let it run longer.", id="more was granted since"
        ),
    ],
)
def test_a_server_whose_hours_are_used_up_says_so_while_that_is_so(longer: int, want: str) -> None:
    ending = replace(RUNNING, noticed_at=START, ends_at=START + 10 * MINUTE)
    extensions = {"l1": [(30, End(ending.ends_at + longer))]}
    (line,) = page(leases=[ending], notices={"l1": "budget-spent"}, extensions=extensions).servers
    assert line.notice.startswith(want)


def test_whoever_waits_is_not_told_to_try_again_later() -> None:
    (line,) = page(tickets=[TICKET]).tickets
    assert line.told is not None
    assert (bool(line.told.sentence), line.told.next_step) == (True, "")


def test_what_ends_within_minutes_stands_first_and_alarms() -> None:
    ending = replace(RUNNING, id="l2", server="b", noticed_at=START, ends_at=START + 10 * MINUTE)
    later = replace(RUNNING, id="l3", server="c", noticed_at=START, ends_at=START + 2 * HOUR)
    lines = page(leases=[RUNNING, later, ending]).servers
    assert [(line.lease, line.soon) for line in lines] == [("l2", True), ("l1", False), ("l3", False)]


def test_extensions_are_offered_once_for_each_end() -> None:
    outcomes = [
        (30, End(RUNNING.ends_at + 30 * MINUTE)),
        (60, End(RUNNING.ends_at + 45 * MINUTE, {"kind": "session", "pool": "univ"})),
        (120, End(RUNNING.ends_at + 45 * MINUTE, {"kind": "session", "pool": "univ"})),
    ]
    (line,) = page(leases=[RUNNING], extensions={"l1": outcomes}).servers
    assert [(choice.minutes, choice.label) for choice in line.longer] == [
        (30, "until 12:30 (+30 min)"),
        (60, "until 12:45 (+45 min)"),
    ]
    assert line.why_not_longer == ""


@pytest.mark.parametrize(
    ("changes", "outcomes", "want"),
    [
        pytest.param(
            {}, [(30, End(RUNNING.ends_at))], "as late as a server here may run", id="at the longest already"
        ),
        pytest.param(
            {},
            [(30, End(RUNNING.ends_at + 20))],
            "as late as a server here may run",
            id="less than a minute longer",
        ),
        pytest.param(
            {},
            [(30, End(RUNNING.ends_at + 20, {"kind": "budget", "pool": "univ"}))],
            "Its GPU-hours are used up then.",
            id="less than a minute of hours is left",
        ),
        pytest.param(
            {},
            [(30, Wait(Code.OTHERS_WAITING, {"pool": "univ"}))],
            "Others who came first",
            id="others wait for it",
        ),
        pytest.param(
            {"noticed_at": START, "noticed_for": "t9"},
            [(30, End(RUNNING.ends_at + HOUR))],
            "Somebody whose share it is waits",
            id="it is being taken back",
        ),
    ],
)
def test_where_no_extension_is_possible_it_says_why(
    changes: dict[str, Any], outcomes: list[Any], want: str
) -> None:
    (line,) = page(leases=[replace(RUNNING, **changes)], extensions={"l1": outcomes}).servers
    assert line.longer == ()
    assert want in line.why_not_longer


# -- tickets and clusters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        pytest.param({"eta_at": START + HOUR, "eta_kind": "latest"}, "Wait, by 10:00", id="promised"),
        pytest.param({"eta_at": START + HOUR, "eta_kind": "expected"}, "Wait, expected 10:00", id="expected"),
        pytest.param({}, "Wait (place 3)", id="only its place is known"),
        pytest.param({"place": None}, "Wait", id="nothing is known yet"),
    ],
)
def test_a_ticket_says_what_is_known_of_its_turn(changes: dict[str, Any], want: str) -> None:
    (line,) = page(tickets=[replace(TICKET, **changes)]).tickets
    assert line.chip.text == want


def test_a_ticket_says_why_it_waits() -> None:
    (line,) = page(tickets=[TICKET]).tickets
    assert line.told is not None
    assert "Hangang University" in line.told.sentence
    assert line.since == "in line since 08:55, place 3"


def test_a_ticket_that_nobody_looked_at_yet_is_shown_without_a_reason() -> None:
    (line,) = page(tickets=[replace(TICKET, code="", place=None)]).tickets
    assert line.told is None
    assert line.since == "in line since 08:55"


# -- hours and limits -------------------------------------------------------------------------------------------------


def a_budget(used: int, committed: int = 0, *, soft: str | None = "0.8", person: str = "") -> BudgetState:
    budget = Budget(Decimal(100), Period.WEEK, Decimal(soft) if soft else None, each_person=bool(person))
    window = Window(START - HOUR, START + 24 * HOUR, "2027-03-01")
    limit, of = 100 * UNIT, BudgetOf("univ", budget, person)
    return BudgetState(of, window, limit, used * UNIT, committed * UNIT, limit - used * UNIT)


@pytest.mark.parametrize(
    ("used", "committed", "want_text", "want_warning"),
    [
        pytest.param(10, 5, "85 of 100 GPU-h left this week", "", id="plenty"),
        pytest.param(80, 0, "20 of 100 GPU-h left this week", "Nearly used up", id="at the soft limit"),
        pytest.param(50, 50, "0 of 100 GPU-h left this week", "All set aside", id="only commitments fill it"),
        pytest.param(104, 0, "0 of 100 GPU-h left this week", "Used up", id="overdrawn by a slice"),
    ],
)
def test_a_budget_says_what_is_left(used: int, committed: int, want_text: str, want_warning: str) -> None:
    (line,) = page(budgets=[a_budget(used, committed)]).budgets
    assert (line.text, line.warning) == (want_text, want_warning)
    assert line.used + line.committed <= 1000
    assert line.soft == 800


def test_ones_own_budget_stands_before_the_pools() -> None:
    lines = page(budgets=[a_budget(1), a_budget(2, person="student")]).budgets
    assert [line.title for line in lines] == ["Your hours: Hangang University", "Hangang University"]


@pytest.mark.parametrize(
    ("cap", "want"),
    [
        (Cap("univ", "servers", 2, 2), ("servers", "2 of 2", 1000, True)),
        (Cap("univ", "gpu.h200", 500, 2000), ("H200", "0.5 of 2", 250, False)),
        (Cap("univ", "memory", 65536, 262144), ("memory", "64 GB of 256 GB", 250, False)),
        (Cap("univ", "dask-workers", 0, 8), ("Dask workers", "0 of 8", 0, False)),
        (Cap("univ", "servers", 3, 2), ("servers", "3 of 2", 1000, True)),
        (Cap("univ", "servers", 0, 0), ("servers", "0 of 0", 0, True)),
    ],
)
def test_a_cap_says_how_much_of_it_is_held(cap: Cap, want: tuple[str, str, int, bool]) -> None:
    (line,) = page(caps=[cap]).caps
    assert (line.title, line.text, line.held, line.full) == want


def test_every_day_of_the_span_has_a_bar_and_a_row() -> None:
    day = date(2027, 2, 28)
    facts: dict[str, Any] = {"days": {day: DayOfUse(day, 2 * UNIT, UNIT // 2)}, "last": date(2027, 3, 2)}
    for span in (14, 30):
        first = date(2027, 3, 2) - timedelta(days=span - 1)
        made = page(**facts, first=first)
        assert made.span == span
        assert len(made.chart.bars) == span
        (bar,) = [bar for bar in made.chart.bars if any(bar.values)]
        assert bar.values == (Decimal(2), Decimal("0.5"))
        assert bar.told == "Sun 28 Feb: 2.5 GPU-h, 0.5 of them borrowed"
        header, rows = hours_table(
            MineFacts(STUDENT, CENTRE, START, START, days=facts["days"], first=first, last=facts["last"])
        )
        assert len(rows) == span
        assert dict(zip(header, rows[-3], strict=True)) == {
            "day": "2027-02-28",
            "guaranteed_gpu_hours": Decimal("2.0000"),
            "borrowed_gpu_hours": Decimal("0.5000"),
        }


# -- the first answer -------------------------------------------------------------------------------------------------


def test_the_first_line_says_what_runs_waits_and_costs() -> None:
    assert page(leases=[RUNNING], tickets=[TICKET]).summary == "1 server · 1 in line · 1 GPU-h/hour"
    assert page().summary == ""


def test_in_korean_no_english_word_of_ours_is_left() -> None:
    made = page("ko", leases=[RUNNING], tickets=[TICKET], budgets=[a_budget(90)])
    (server,), (ticket,), (budget,) = made.servers, made.tickets, made.budgets
    assert server.chip.text == "실행 중"
    assert ticket.chip.text == "대기(3번째)"
    assert server.where == "한강대학교"
    assert "left" not in budget.text


def test_numbers_know_how_old_they_are() -> None:
    assert page(now=START + 7).age == 7
