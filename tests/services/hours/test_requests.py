"""Requests for hours, from the asking to the grant, on both databases."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from hub_ext.core.people import Person
from hub_ext.desk.access import READ
from hub_ext.desk.hours import HoursRequests, Verdict, budgets_to_ask_for
from hub_ext.quota.budget import BudgetOf
from hub_ext.quota.ledger import EntryKind
from hub_ext.quota.model import Grant, HoursRequest, RequestState
from hub_ext.quota.requests import LEAST_UNITS, LONGEST, MOST_OPEN, MOST_UNITS, Objected, Objection
from tests.services.desk.centre import START, Centre
from tests.services.hours.people import (
    APRIL,
    CLASSMATE,
    COURSE_LEAD,
    EVERYBODY,
    FIRM_LEAD,
    HOUR_UNITS,
    OPERATOR,
    POLICY,
    SECTOR_LEAD,
    STUDENT,
    UNIV_LEAD,
    access,
    draft,
)

DAY = 86400
GRANT = Verdict(granted=True)


@pytest.fixture
def centre(centre_on_each: Centre) -> Centre:
    centre_on_each.database.run("DELETE FROM requests")
    centre_on_each.load(POLICY)
    for person in EVERYBODY:
        centre_on_each.admission.put_person(person)
    return centre_on_each


@pytest.fixture
def hours(centre: Centre) -> HoursRequests:
    return HoursRequests(centre.admission)


def asked(hours: HoursRequests, person: Person = STUDENT, /, **more: object) -> HoursRequest:
    request = hours.ask_now(access(person), draft(**more))  # type: ignore[arg-type]
    assert isinstance(request, HoursRequest), request
    return request


def objected(outcome: HoursRequest | Objection | None) -> str:
    assert isinstance(outcome, Objection), outcome
    return outcome.code.value


def grants(centre: Centre) -> list[Grant]:
    with centre.store.reading() as txn:
        return txn.grants()


def stored(centre: Centre, request: HoursRequest) -> HoursRequest | None:
    with centre.store.reading() as txn:
        return txn.request(request.id)


def left_today(centre: Centre, person: str = "student") -> int:
    """Units that are left of this person's hours for the day."""
    with centre.store.reading() as txn:
        ledger = txn.ledger(["univ"], [person])
        state = ledger.budgets.state(BudgetOf("univ", txn.policy.pools["univ"].budgets[1], person), START)
    assert state is not None
    return state.left


# -- the whole way ----------------------------------------------------------------------------------------------------


def test_what_is_granted_can_be_used_at_once(centre: Centre, hours: HoursRequests) -> None:
    request = asked(hours)
    granted = hours.answer_now(access(UNIV_LEAD), request.id, GRANT)
    assert isinstance(granted, HoursRequest)
    assert granted.state is RequestState.GRANTED
    assert (granted.answered_by, granted.answered_at) == ("univ-lead", START)
    (grant,) = grants(centre)
    assert grant.id == granted.grant
    assert (grant.pool, grant.budget, grant.person) == ("univ", "day:person", "student")
    assert (grant.units, grant.until, grant.made_by) == (5 * HOUR_UNITS, APRIL, "univ-lead")
    assert left_today(centre) == (2 + 5) * HOUR_UNITS
    assert stored(centre, request) == granted


def test_every_step_is_in_the_ledger(centre: Centre, hours: HoursRequests) -> None:
    first, second, third = (
        asked(hours),
        asked(hours, UNIV_LEAD, budget="week", person=""),
        asked(hours, CLASSMATE, pool="course", person="classmate"),
    )
    hours.answer_now(access(UNIV_LEAD), first.id, replace(GRANT, answer="Good luck"))
    hours.answer_now(access(SECTOR_LEAD), second.id, Verdict(False, "The month is spent"))
    hours.withdraw_now(access(CLASSMATE), third.id)
    steps = [
        (entry.kind.value, entry.who, entry.why, entry.facts.get("state"), entry.facts["request"])
        for entry in centre.entries(EntryKind.REQUESTED, EntryKind.ANSWERED)
    ]
    assert steps == [
        ("requested", "student", "The thesis is due.", None, first.id),
        ("requested", "univ-lead", "The thesis is due.", None, second.id),
        ("requested", "classmate", "The thesis is due.", None, third.id),
        ("answered", "univ-lead", "Good luck", "granted", first.id),
        ("answered", "sector-lead", "The month is spent", "declined", second.id),
        ("answered", "classmate", "", "withdrawn", third.id),
    ]
    assert len(centre.entries(EntryKind.GRANTED)) == 1


def test_fewer_hours_and_an_earlier_date_may_be_granted(centre: Centre, hours: HoursRequests) -> None:
    request = asked(hours)
    verdict = Verdict(True, "Two hours for a start", 2 * HOUR_UNITS, START + DAY)
    granted = hours.answer_now(access(UNIV_LEAD), request.id, verdict)
    assert isinstance(granted, HoursRequest)
    # What was asked for stays to be read beside what was given.
    assert (granted.units, granted.until, granted.answer) == (5 * HOUR_UNITS, APRIL, "Two hours for a start")
    (grant,) = grants(centre)
    assert (grant.units, grant.until) == (2 * HOUR_UNITS, START + DAY)


def test_a_grant_ends_on_its_date(centre: Centre, hours: HoursRequests) -> None:
    request = asked(hours, until=START + 2 * 3600)
    hours.answer_now(access(UNIV_LEAD), request.id, GRANT)
    with centre.store.reading() as txn:
        budgets = txn.ledger(["univ"], ["student"]).budgets
        of = BudgetOf("univ", txn.policy.pools["univ"].budgets[1], "student")
        before, after = (budgets.state(of, START + 2 * 3600 + late) for late in (-1, 0))
    assert before is not None
    assert after is not None
    assert (before.left, after.left) == (7 * HOUR_UNITS, 2 * HOUR_UNITS)


# -- who may --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("person", "want"),
    [
        pytest.param(UNIV_LEAD, "granted", id="who leads the pool"),
        pytest.param(SECTOR_LEAD, "granted", id="who leads a pool above it"),
        pytest.param(OPERATOR, "granted", id="an operator"),
        pytest.param(STUDENT, "own-request", id="not whoever asked"),
        pytest.param(CLASSMATE, None, id="not another student, who sees nothing"),
        pytest.param(COURSE_LEAD, None, id="not who leads a pool below it"),
        pytest.param(FIRM_LEAD, None, id="not who leads another pool"),
        pytest.param(replace(UNIV_LEAD, roles=frozenset()), None, id="not a member who leads no more"),
    ],
)
def test_who_may_answer(centre: Centre, hours: HoursRequests, person: Person, want: str | None) -> None:
    request = asked(hours)
    outcome = hours.answer_now(access(person), request.id, GRANT)
    if want == "granted":
        assert isinstance(outcome, HoursRequest)
    else:
        assert (None if outcome is None else objected(outcome)) == want
        assert stored(centre, request) == request
        assert not grants(centre)


def test_nobody_answers_what_they_asked_for_or_what_is_for_them(hours: HoursRequests) -> None:
    own = asked(hours, UNIV_LEAD, budget="week", person="")
    assert objected(hours.answer_now(access(UNIV_LEAD), own.id, GRANT)) == "own-request"
    for_them = asked(hours, SECTOR_LEAD, person="univ-lead")
    assert objected(hours.answer_now(access(UNIV_LEAD), for_them.id, GRANT)) == "own-request"
    assert objected(hours.answer_now(access(SECTOR_LEAD), for_them.id, GRANT)) == "own-request"
    assert isinstance(hours.answer_now(access(OPERATOR), for_them.id, GRANT), HoursRequest)


def test_a_token_that_only_reads_answers_nothing(hours: HoursRequests) -> None:
    request = asked(hours)
    assert hours.answer_now(access(UNIV_LEAD, READ), request.id, GRANT) is None


@pytest.mark.parametrize(
    ("person", "more"),
    [
        pytest.param(STUDENT, {"pool": "firm", "budget": "week", "person": ""}, id="of another pool"),
        pytest.param(STUDENT, {"person": "classmate"}, id="for somebody else"),
        pytest.param(STUDENT, {"pool": "nowhere"}, id="of a pool that is not there"),
        pytest.param(STUDENT, {"budget": "year"}, id="beside a budget that is not there"),
        pytest.param(STUDENT, {"person": ""}, id="of everybody at once, beside a budget of each person"),
        pytest.param(STUDENT, {"budget": "week"}, id="for one person, beside the whole pool's budget"),
        pytest.param(FIRM_LEAD, {}, id="a lead for a person of another pool"),
        pytest.param(UNIV_LEAD, {"person": "nobody"}, id="a lead for a person whom nobody knows"),
        pytest.param(UNIV_LEAD, {"person": "firm-lead"}, id="a lead for a person who is in another pool"),
    ],
)
def test_hours_that_are_not_theirs_to_ask_for(
    hours: HoursRequests, person: Person, more: dict[str, str]
) -> None:
    assert objected(hours.ask_now(access(person), draft(**more))) == "no-such-budget"


def test_a_lead_asks_for_their_people_and_for_the_pools_below(hours: HoursRequests) -> None:
    assert asked(hours, UNIV_LEAD, pool="course", person="classmate").person == "classmate"
    assert asked(hours, SECTOR_LEAD, budget="week", person="").pool == "univ"


def test_the_budgets_to_choose_from_are_those_that_bind_and_those_that_one_leads(centre: Centre) -> None:
    with centre.store.reading() as txn:
        policy = txn.policy

    def names(person: Person) -> list[tuple[str, str, str]]:
        return [(of.pool, of.budget.name, of.person) for of in budgets_to_ask_for(policy, access(person))]

    assert names(STUDENT) == [
        ("univ", "week", ""),
        ("univ", "day:person", "student"),
        ("sector", "month", ""),
    ]
    assert names(SECTOR_LEAD) == [("sector", "month", ""), ("univ", "week", "")]


# -- what stands against it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "want"),
    [
        ({"units": LEAST_UNITS - 1}, "hours-out-of-range"),
        ({"units": -5 * HOUR_UNITS}, "hours-out-of-range"),
        ({"units": MOST_UNITS + 1}, "hours-out-of-range"),
        ({"until": START}, "date-out-of-range"),
        ({"until": START + LONGEST + 1}, "date-out-of-range"),
        ({"why": " \n\x00\t "}, "why-missing"),
        ({"why": "x" * 1001}, "text-too-long"),
    ],
)
def test_what_cannot_be_asked(hours: HoursRequests, more: dict[str, object], want: str) -> None:
    assert objected(hours.ask_now(access(STUDENT), draft(**more))) == want  # type: ignore[arg-type]


def test_any_text_is_kept_as_it_can_be_read(centre: Centre, hours: HoursRequests) -> None:
    request = asked(hours, why=" 논문\x00 마감 '; DROP TABLE requests; -- \n <b>both lines</b> ")
    found = stored(centre, request)
    assert found is not None
    assert found.why == "논문 마감 '; DROP TABLE requests; -- \n <b>both lines</b>"


def test_one_request_beside_one_budget_at_a_time(hours: HoursRequests) -> None:
    request = asked(hours)
    assert objected(hours.ask_now(access(STUDENT), draft())) == "already-asked"
    hours.withdraw_now(access(STUDENT), request.id)
    assert asked(hours).id != request.id


def test_so_many_requests_and_no_more(centre: Centre, hours: HoursRequests) -> None:
    people = [Person(f"pupil-{number}", ("univ",)) for number in range(MOST_OPEN + 1)]
    for person in people:
        centre.admission.put_person(person)
    for person in people[:-1]:
        asked(hours, UNIV_LEAD, person=person.name)
    last = draft(person=people[-1].name)
    assert objected(hours.ask_now(access(UNIV_LEAD), last)) == "too-many-open"


@pytest.mark.parametrize(
    ("verdict", "want"),
    [
        (Verdict(True, units=5 * HOUR_UNITS + 1), "more-than-asked"),
        (Verdict(True, until=APRIL + 1), "later-than-asked"),
        (Verdict(True, units=0), "hours-out-of-range"),
        (Verdict(True, until=START), "date-out-of-range"),
        (Verdict(True, "x" * 1001), "text-too-long"),
        (Verdict(False, "  "), "why-missing"),
    ],
)
def test_answers_that_are_not_taken(
    centre: Centre, hours: HoursRequests, verdict: Verdict, want: str
) -> None:
    request = asked(hours)
    assert objected(hours.answer_now(access(UNIV_LEAD), request.id, verdict)) == want
    assert stored(centre, request) == request


def test_after_its_date_a_request_can_be_declined_and_not_granted(
    centre: Centre, hours: HoursRequests
) -> None:
    request = asked(hours, until=START + DAY)
    centre.clock.at = START + DAY
    assert hours.to_answer_now(access(UNIV_LEAD)) == 0
    assert objected(hours.answer_now(access(UNIV_LEAD), request.id, GRANT)) == "date-passed"
    # It does not stand in the way of asking anew.
    assert asked(hours).id != request.id
    declined = hours.answer_now(access(UNIV_LEAD), request.id, Verdict(False, "Too late, sorry"))
    assert isinstance(declined, HoursRequest)
    assert declined.state is RequestState.DECLINED


def test_a_budget_that_vanished_gets_no_grant(centre: Centre, hours: HoursRequests) -> None:
    request = asked(hours)
    centre.load(POLICY.replace(", {hours: 2, period: day, each: person}", ""))
    assert objected(hours.answer_now(access(UNIV_LEAD), request.id, GRANT)) == "budget-gone"
    declined = hours.answer_now(access(UNIV_LEAD), request.id, Verdict(False, "There is no daily limit now"))
    assert isinstance(declined, HoursRequest)


def test_a_request_of_a_pool_that_vanished_is_left_to_operators(centre: Centre, hours: HoursRequests) -> None:
    request = asked(hours, CLASSMATE, pool="course", person="classmate")
    centre.load(POLICY[: POLICY.index("  course:")] + POLICY[POLICY.index("  firm:") :])
    assert hours.answer_now(access(UNIV_LEAD), request.id, GRANT) is None
    assert objected(hours.answer_now(access(OPERATOR), request.id, GRANT)) == "budget-gone"
    assert isinstance(hours.withdraw_now(access(CLASSMATE), request.id), HoursRequest)


# -- two at once --------------------------------------------------------------------------------------------------------


def test_of_two_answers_at_once_one_counts(centre: Centre, hours: HoursRequests) -> None:
    request = asked(hours)
    outcomes: list[HoursRequest | Objection | None] = []
    together = threading.Barrier(3)

    def answer(person: Person, verdict: Verdict) -> None:
        together.wait(10)
        outcomes.append(hours.answer_now(access(person), request.id, verdict))

    threads = [
        threading.Thread(target=answer, args=arguments)
        for arguments in (
            (UNIV_LEAD, GRANT),
            (SECTOR_LEAD, GRANT),
            (OPERATOR, Verdict(False, "No")),
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    taken = [one for one in outcomes if isinstance(one, HoursRequest)]
    late = [one for one in outcomes if isinstance(one, Objection)]
    assert (len(taken), len(late)) == (1, 2)
    for one in late:
        assert one.code is Objected.ANSWERED
        assert one.facts == {"state": taken[0].state.value, "by": taken[0].answered_by, "at": START}
    assert len(grants(centre)) == (1 if taken[0].state is RequestState.GRANTED else 0)
    assert len(centre.entries(EntryKind.ANSWERED)) == 1


def test_only_whoever_asked_withdraws(hours: HoursRequests) -> None:
    request = asked(hours)
    assert objected(hours.withdraw_now(access(UNIV_LEAD), request.id)) == "not-your-request"
    assert hours.withdraw_now(access(FIRM_LEAD), request.id) is None
    assert hours.withdraw_now(access(STUDENT), "no-such-id") is None
    withdrawn = hours.withdraw_now(access(STUDENT), request.id)
    assert isinstance(withdrawn, HoursRequest)
    assert objected(hours.withdraw_now(access(STUDENT), request.id)) == "answered-already"
    assert objected(hours.answer_now(access(UNIV_LEAD), request.id, GRANT)) == "answered-already"


# -- lists --------------------------------------------------------------------------------------------------------------


def test_the_badge_counts_what_waits_for_ones_own_answer(hours: HoursRequests) -> None:
    asked(hours)
    asked(hours, UNIV_LEAD, budget="week", person="")
    asked(hours, FIRM_LEAD, pool="firm", budget="week", person="")
    counts = {person.name: hours.to_answer_now(access(person)) for person in EVERYBODY}
    assert counts == {
        "student": 0,
        "classmate": 0,
        "univ-lead": 1,
        "sector-lead": 2,
        "course-lead": 0,
        "firm-lead": 0,
        "operator": 3,
    }


def test_lists_go_page_by_page_newest_first(centre: Centre, hours: HoursRequests) -> None:
    made = []
    for _ in range(5):
        made.append(asked(hours))
        hours.withdraw_now(access(STUDENT), made[-1].id)
        centre.clock.at += 1
    seen: list[str] = []
    before = None
    with centre.store.reading() as txn:
        while page := txn.requests(made_by="student", before=before, limit=2):
            seen += [one.id for one in page]
            before = (page[-1].made_at, page[-1].id)
    assert seen == [one.id for one in reversed(made)]


def test_what_is_for_somebody_is_theirs_to_see(centre: Centre, hours: HoursRequests) -> None:
    request = asked(hours, UNIV_LEAD)
    with centre.store.reading() as txn:
        assert [one.id for one in txn.requests(made_by="student")] == [request.id]
        assert not txn.requests(made_by="classmate")
        assert not txn.requests(pools=["univ"], states=[RequestState.GRANTED])
