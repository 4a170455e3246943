"""Who may see and do what: roles open, scopes narrow, and lists come in pages. Laws and tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.core.people import Person
from hub_ext.desk.access import LEAD, OPERATE, READ, SCOPES, Access, included_scopes
from hub_ext.desk.paging import cursor_of, one_page, place_of
from hub_ext.quota.document import parse_policy
from tests.desk.in_process import POLICY as TEXT

POLICY = parse_policy(TEXT)
ROLES = ("student", "researcher", "instructor", "lead", "operator")
people = st.builds(
    lambda pools, roles: Person("kim", tuple(pools), frozenset(roles)),
    st.lists(st.sampled_from([*POLICY.pools, "gone"]), unique=True, max_size=3),
    st.sets(st.sampled_from(ROLES)),
)
scopes = st.frozensets(st.sampled_from([*SCOPES, "access:services", "self"]))


def lead(*pools: str, scope: str = LEAD) -> Access:
    return Access(Person("kim", pools, frozenset({"lead"})), frozenset({scope}))


def test_a_lead_answers_for_their_pools_and_all_below() -> None:
    assert lead("public").leads_in(POLICY) == frozenset(POLICY.subtree("public"))
    assert lead("city-traffic").leads_in(POLICY) == {"city-traffic"}
    assert lead("seoul").leads_in(POLICY) == frozenset(POLICY.pools)
    assert lead("gone").leads_in(POLICY) == frozenset(), "a pool that the policy has no more"


@pytest.mark.parametrize("role", ["student", "researcher", "instructor"])
def test_membership_alone_leads_nothing(role: str) -> None:
    access = Access(Person("kim", ("seoul",), frozenset({role})), frozenset(SCOPES))
    assert access.leads_in(POLICY) == frozenset()
    assert not access.operates


def test_an_operator_answers_for_everything_with_the_scope_for_it() -> None:
    person = Person("kim", ("naru-robotics",), frozenset({"operator"}))
    assert Access(person, frozenset({OPERATE})).operates
    assert not Access(person, frozenset({LEAD})).operates
    assert Access(person, frozenset({LEAD})).leads_in(POLICY) == frozenset(POLICY.pools)
    assert Access(person, frozenset({READ})).leads_in(POLICY) == frozenset()


@given(people, scopes, scopes)
def test_fewer_scopes_never_open_more(person: Person, few: frozenset[str], more: frozenset[str]) -> None:
    less, all_of_it = Access(person, few), Access(person, few | more)
    assert less.leads_in(POLICY) <= all_of_it.leads_in(POLICY)
    assert less.operates <= all_of_it.operates
    for other in ("kim", "lee"):
        assert less.may_see_of(other) <= all_of_it.may_see_of(other)


@given(people, scopes)
def test_no_scope_is_a_role(person: Person, held: frozenset[str]) -> None:
    access = Access(person, held)
    assert not access.operates or "operator" in person.roles
    assert not access.leads_in(POLICY) or person.roles & {"lead", "operator"}
    assert access.may_see_of(person.name)


def test_the_larger_scopes_include_the_smaller() -> None:
    for scope in SCOPES:
        held = Access(Person("kim"), frozenset({scope}))
        assert {one for one in SCOPES if held.has(one)} == {scope, *included_scopes(scope)}


# -- pages of lists ---------------------------------------------------------------------------------------------------

places = st.tuples(st.integers(0, 2**40), st.text("0123456789abcdef-", min_size=1, max_size=32))


@given(st.lists(places, unique=True), st.integers(1, 7))
def test_pages_together_are_the_list_once_in_order(items: list[tuple[int, str]], limit: int) -> None:
    found: list[tuple[int, str]] = []
    after = None
    while True:
        page, following = one_page(items, lambda item: item, limit, after)
        assert len(page) <= limit
        found += page
        if following is None:
            break
        after = place_of(following)
        assert after is not None
    assert found == sorted(items)


@given(places)
def test_a_cursor_leads_back_to_its_place(place: tuple[int, str]) -> None:
    assert place_of(cursor_of(place)) == place


@given(st.text())
def test_any_text_is_a_place_or_none(text: str) -> None:
    place = place_of(text)
    assert place is None or cursor_of(place) == text or text.startswith("0")
