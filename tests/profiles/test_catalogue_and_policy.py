from __future__ import annotations

import pytest

from hub_ext.core.errors import BadInput
from hub_ext.core.people import Person
from hub_ext.profiles.catalogue import Catalogue
from hub_ext.profiles.model import Audience
from hub_ext.profiles.policy import may_start, pools_for, visible
from tests.profiles.examples import CATALOGUE, profile

PATHS = {
    "seoul": ("seoul",),
    "univ": ("univ", "seoul"),
    "course": ("course", "univ", "seoul"),
    "lab": ("lab", "univ", "seoul"),
    "city": ("city", "seoul"),
}


def path(pool: str) -> tuple[str, ...]:
    return PATHS[pool]


def test_profiles_stand_in_the_order_of_the_start_page_whatever_the_order_of_the_files() -> None:
    assert CATALOGUE.slugs == ("cpu", "h200", "h200-4")
    same_order = Catalogue.of([profile("b"), profile("a")])
    assert [p.slug for p in same_order] == ["a", "b"]


def test_a_profile_is_found_by_its_slug_alone() -> None:
    assert CATALOGUE.get("h200") is CATALOGUE.profiles[1]
    assert CATALOGUE.get("H200") is None
    assert "h200" in CATALOGUE
    assert 3 not in CATALOGUE


def test_only_keeps_the_order_and_ignores_what_is_not_there() -> None:
    assert CATALOGUE.only({"h200-4", "gone", "cpu"}).slugs == ("cpu", "h200-4")
    assert len(CATALOGUE.only([])) == 0


def test_two_profiles_of_one_name_are_refused() -> None:
    with pytest.raises(BadInput, match="two profiles 'a'"):
        Catalogue.of([profile("a", order=1), profile("a", order=2)])


def audience(roles: set[str] | None = None, pools: set[str] | None = None) -> Audience:
    return Audience(frozenset(roles or ()), frozenset(pools or ()))


STUDENT = Person("s", ("course",), frozenset({"student"}))
RESEARCHER = Person("r", ("city", "lab"), frozenset({"researcher", "instructor"}))


@pytest.mark.parametrize(
    ("meant", "person", "want_pools"),
    [
        pytest.param(audience(), STUDENT, ("course",), id="everybody sees a profile that restricts nothing"),
        pytest.param(audience({"student"}), STUDENT, ("course",), id="a role that the person has opens it"),
        pytest.param(audience({"lead"}), STUDENT, None, id="a role that the person lacks hides it"),
        pytest.param(
            audience({"lead", "instructor"}), RESEARCHER, ("city", "lab"), id="one of several roles is enough"
        ),
        pytest.param(
            audience(pools={"univ"}), STUDENT, ("course",), id="a pool counts with everything below it"
        ),
        pytest.param(
            audience(pools={"seoul"}), RESEARCHER, ("city", "lab"), id="the root counts with the whole tree"
        ),
        pytest.param(audience(pools={"univ"}), RESEARCHER, ("lab",), id="only from the pools that are meant"),
        pytest.param(audience(pools={"course"}), RESEARCHER, None, id="a pool beside mine hides it"),
        pytest.param(
            audience({"lead"}, {"univ"}),
            STUDENT,
            None,
            id="the pool alone is not enough where a role is named too",
        ),
        pytest.param(
            audience({"student"}, {"city"}),
            STUDENT,
            None,
            id="the role alone is not enough where a pool is named too",
        ),
        pytest.param(
            audience(),
            Person("p", ("gone",)),
            ("gone",),
            id="a pool that no longer exists does not hide what is for all",
        ),
        pytest.param(
            audience(pools={"gone"}),
            Person("p", ("gone",)),
            None,
            id="a pool that no longer exists opens nothing",
        ),
        pytest.param(audience(), Person("p"), (), id="without a pool it is seen and cannot be started"),
        pytest.param(
            audience(pools={"univ"}), Person("p"), None, id="without a pool nothing for a pool is seen"
        ),
    ],
)
@pytest.mark.parametrize("paths", [path, PATHS], ids=["by function", "by mapping"])
def test_who_sees_a_profile_and_from_where(
    meant: Audience, person: Person, want_pools: tuple[str, ...] | None, paths: object
) -> None:
    card = profile("card", audience=meant)
    assert visible(card, person, paths) is (want_pools is not None)  # type: ignore[arg-type]
    assert pools_for(card, person, paths) == (want_pools or ())  # type: ignore[arg-type]
    for pool in PATHS:
        assert may_start(card, person, pool, paths) is (pool in (want_pools or ()))  # type: ignore[arg-type]


def test_a_person_whose_profiles_are_stated_sees_those_alone() -> None:
    person = Person("p", ("univ",), profiles=frozenset({"a"}), any_profile=False)
    assert visible(profile("a"), person, path)
    assert not visible(profile("b"), person, path)
    assert not may_start(profile("b"), person, "univ", path)


def test_everybody_of_a_what_if_sees_what_is_for_a_pool_and_starts_it_from_there_only() -> None:
    person, card = Person("p", any_pool=True), profile("card", audience=audience(pools={"univ"}))
    assert visible(card, person, path)
    assert may_start(card, person, "lab", path)
    assert not may_start(card, person, "city", path)
