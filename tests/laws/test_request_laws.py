"""The life of a request for hours, whatever people do to it, in whatever order."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hub_ext.core.amounts import COST_UNITS_PER_GPU_HOUR
from hub_ext.quota.ledger import Entry, EntryKind, fold
from hub_ext.quota.model import Grant, HoursRequest, RequestState
from hub_ext.quota.requests import (
    Objection,
    Step,
    ask_for_hours,
    decline_request,
    grant_request,
    withdraw_request,
)
from tests.support.builders import NOW, a_policy, instant

START = instant(NOW)
PEOPLE = ("student", "lead", "other-lead", "operator")
WITH = a_policy(
    {
        "univ": {
            "quota": {"gpu.h200": {"nominal": 4}},
            "budgets": [{"hours": 10, "period": "week", "each": "person"}],
        }
    }
)
WITHOUT = a_policy({"univ": {"quota": {"gpu.h200": {"nominal": 4}}}})

units = st.integers(-10, 20).map(lambda hours: hours * COST_UNITS_PER_GPU_HOUR)
moments = st.integers(-2, 40).map(lambda days: START + days * 86400)
texts = st.sampled_from(["", " ", "because", "x" * 1001])
who = st.sampled_from(PEOPLE)
actions = st.one_of(
    st.tuples(st.just("grant"), who, texts, st.none() | units, st.none() | moments),
    st.tuples(st.just("decline"), who, texts),
    st.tuples(st.just("withdraw"), who),
    st.tuples(st.just("policy")),
    st.tuples(st.just("wait"), st.integers(0, 20)),
)
requests = st.builds(
    HoursRequest,
    id=st.just("r1"),
    pool=st.sampled_from(["univ", "univ", "univ", "gone"]),
    budget=st.just("week:person"),
    person=st.sampled_from(["student", "student", "student", ""]),
    units=units,
    until=moments,
    why=texts,
    made_at=st.just(START),
    made_by=st.sampled_from(["student", "lead"]),
)


@given(requests, st.lists(actions, max_size=12))
def test_a_request_moves_once_and_never_back(request: HoursRequest, steps: list[tuple[object, ...]]) -> None:
    policy, now = WITH, START
    opened = ask_for_hours(policy, request, [], now)
    if isinstance(opened, Objection):
        return
    asked = opened.request
    assert asked.state is RequestState.OPEN
    states, grants, entries = [asked.state], list[Grant](), [opened.entry]
    for name, *arguments in steps:
        outcome: Step | Objection
        match name, arguments:
            case "wait", [int(days)]:
                now += days * 86400
                continue
            case "policy", _:
                policy = WITHOUT if policy is WITH else WITH
                continue
            case "grant", [str(person), str(text), amount, until]:
                outcome = grant_request(
                    policy,
                    asked,
                    f"g{len(entries)}",
                    who=person,
                    answer=text,
                    units=amount if isinstance(amount, int) else None,
                    until=until if isinstance(until, int) else None,
                    now=now,
                )
            case "decline", [str(person), str(text)]:
                outcome = decline_request(asked, who=person, answer=text, now=now)
            case "withdraw", [str(person)]:
                outcome = withdraw_request(asked, who=person, now=now)
            case _:
                raise AssertionError(name)
        if isinstance(outcome, Objection):
            continue
        # Only its maker withdraws, and nobody answers what is their own or for them.
        theirs = outcome.request.answered_by in (asked.made_by, asked.person)
        withdrawn = outcome.request.state is RequestState.WITHDRAWN
        assert outcome.request.answered_by == asked.made_by if withdrawn else not theirs
        # What was asked for stays as it was.
        was = replace(
            outcome.request, state=RequestState.OPEN, answered_at=None, answered_by="", answer="", grant=None
        )
        assert was == opened.request
        if outcome.grant is not None:
            assert 0 < outcome.grant.units <= asked.units
            assert now < outcome.grant.until <= asked.until
            assert policy is WITH
            grants.append(outcome.grant)
        asked = outcome.request
        states.append(asked.state)
        entries.append(outcome.entry)
    assert len(states) <= 2
    assert states[1:] != [RequestState.OPEN]
    assert [grant.id for grant in grants] == ([asked.grant] if asked.grant else [])
    assert bool(grants) == (asked.state is RequestState.GRANTED)
    assert [entry.kind for entry in entries] == [EntryKind.REQUESTED, EntryKind.ANSWERED][: len(states)]
    _no_lease_is_touched(entries)


def _no_lease_is_touched(entries: list[Entry]) -> None:
    assert fold({}, entries) == {}


@given(requests)
def test_a_refused_asking_says_what_stands_against_it(request: HoursRequest) -> None:
    outcome = ask_for_hours(WITH, request, [], START)
    usable = (
        request.pool == "univ"
        and request.person == "student"
        and request.units > 0
        and request.until > START
        and request.why == "because"
    )
    assert isinstance(outcome, Step) == usable
