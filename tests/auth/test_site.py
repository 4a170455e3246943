from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tornado.web import HTTPError

from hub_ext.auth.claims import Entry, Identity
from hub_ext.auth.site import person_at, writing_down
from hub_ext.core.errors import HubError
from hub_ext.core.people import Person

POOLS = ("univ", "lab", "city")
IDENTITY = Identity({"kim": Entry("kim", ("city",), frozenset({"lead"}), {})})


@pytest.mark.parametrize(
    ("name", "groups", "admin", "want"),
    [
        pytest.param("lee", ["univ"], False, Person("lee", ("univ",), frozenset({"student"})), id="a group that is a pool"),
        pytest.param(
            "lee", ["lab", "univ", "chess"], False, Person("lee", ("lab", "univ"), frozenset({"student"})), id="two pools in the order of the groups"
        ),
        pytest.param(
            "lee", ["univ", "instructor", "researcher"], False, Person("lee", ("univ",), frozenset({"instructor", "researcher"})), id="groups that are roles"
        ),
        pytest.param("lee", ["chess"], False, Person("lee", (), frozenset({"student"})), id="no pool at all"),
        pytest.param(
            "lee", ["univ", "operator"], False, Person("lee", ("univ",), frozenset({"student"})), id="a group makes nobody an operator"
        ),
        pytest.param(
            "lee", ["univ"], True, Person("lee", ("univ",), frozenset({"student", "operator"})), id="the site's administrator"
        ),
        pytest.param(
            "kim", ["univ"], True, Person("kim", ("city",), frozenset({"lead"})), id="whom the document names is who it says"
        ),
    ],
)  # fmt: skip
def test_groups_say_who_somebody_is(name: str, groups: list[str], admin: bool, want: Person) -> None:
    assert person_at(IDENTITY, POOLS, name, groups, admin=admin) == want


class Handler:
    """Knows one user already."""

    def find_user(self, name: str) -> Any:
        if name != "park":
            return None
        return SimpleNamespace(admin=True, groups=[SimpleNamespace(name="lab")])


async def pools() -> tuple[str, ...]:
    return POOLS


async def written(model: dict[str, Any], before: Any = None) -> tuple[list[Person], dict[str, Any]]:
    found: list[Person] = []

    async def write_down(person: Person) -> None:
        found.append(person)

    hook = writing_down(IDENTITY, pools, write_down, before)
    return found, await hook(None, Handler(), model)


async def test_who_signs_in_is_written_down_with_the_groups_of_this_sign_in() -> None:
    model = {"name": "park", "groups": ["univ"], "admin": False}
    found, given_back = await written(model)
    assert found == [Person("park", ("univ",), frozenset({"student"}))]
    assert given_back == model


async def test_a_sign_in_without_groups_leaves_those_that_the_hub_knows() -> None:
    found, _ = await written({"name": "park", "admin": None})
    assert found == [Person("park", ("lab",), frozenset({"student", "operator"}))]


async def test_somebody_new_without_groups_is_in_no_pool() -> None:
    found, _ = await written({"name": "choi"})
    assert found == [Person("choi", (), frozenset({"student"}))]


async def test_the_sites_own_hook_comes_first() -> None:
    async def adds_a_group(_: Any, __: Any, model: dict[str, Any]) -> dict[str, Any]:
        return {**model, "groups": ["city"]}

    found, _ = await written({"name": "choi"}, adds_a_group)
    assert found[0].pools == ("city",)


async def test_nobody_gets_in_whom_the_records_do_not_take() -> None:
    async def away(_: Person) -> None:
        raise HubError("the database is away")

    with pytest.raises(HTTPError, match="records of the centre") as raised:
        await writing_down(IDENTITY, pools, away)(None, Handler(), {"name": "choi"})
    assert raised.value.status_code == 503
