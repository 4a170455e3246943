"""Leases for programs: a person's own, each with its notice, its hours, and how long it may go on; read at one look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from hub_ext.core.people import Person
from hub_ext.quota.document import parse_policy
from hub_ext.quota.ports import Transaction
from hub_ext.quota.store import SqlStore
from tests.desk.hours_centre import HOUR, NOW, POLICY, HoursCentre
from tests.services.hours.people import FIRM_LEAD, OPERATOR, STUDENT
from tests.support.databases import Database

API = "/services/desk/api/v1/leases"
BOTH = Person("both", ("univ", "firm"), frozenset({"researcher"}))


@pytest.fixture
def centre(sqlite_database: Database) -> Iterator[HoursCentre]:
    made = HoursCentre(SqlStore(sqlite_database.engine(), load_policy=parse_policy))
    made.admission.put_person(BOTH)
    yield made
    made.store.close()


def listed(centre: HoursCentre, person: Person, **query: Any) -> list[dict[str, Any]]:
    answer = centre.call(person).get(API, params=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def test_each_sees_their_own_and_nobody_elses(centre: HoursCentre) -> None:
    centre.start("mine", STUDENT)
    centre.start("theirs", FIRM_LEAD)
    assert [one["id"] for one in listed(centre, STUDENT)] == ["mine"]
    assert listed(centre, OPERATOR) == []
    assert centre.call(STUDENT).get(f"{API}/mine").json() == listed(centre, STUDENT)[0]
    for person in (STUDENT, OPERATOR):
        assert centre.call(person).get(f"{API}/theirs").status_code == 404
        assert centre.call(person).post(f"{API}/theirs/extend", json={"minutes": 5}).status_code == 404
        assert centre.call(person).delete(f"{API}/theirs").status_code == 404


def test_the_hours_are_those_that_the_lease_takes_and_not_of_another_pool(centre: HoursCentre) -> None:
    """The firm has fewer hours left than the university; they are not this server's."""
    centre.start("firms", FIRM_LEAD, gpus=3, minutes=700)
    centre.start("in-univ", BOTH, minutes=60)
    (lease,) = listed(centre, BOTH)
    assert lease["hours"]["pool"] in ("univ", "sector")
    centre.stop("in-univ")
    centre.start("by-cpu", BOTH, gpus=0)
    (lease,) = listed(centre, BOTH)
    assert lease["hours"] is None


def test_how_long_it_may_go_on_is_what_extending_comes_to(centre: HoursCentre) -> None:
    centre.start("a", STUDENT, minutes=60)
    (before,) = listed(centre, STUDENT)
    assert before["extend"]["possible"]
    until = parse_policy(POLICY).local(NOW + 12 * HOUR).isoformat()
    assert before["extend"]["until"] == until
    after = centre.call(STUDENT).post(f"{API}/a/extend", json={"minutes": 60 * 24}).json()
    assert (after["ends_at"], after["extend"]["possible"]) == (until, False)


def test_a_list_is_read_at_one_look_and_comes_in_pages(
    centre: HoursCentre, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"s{number}" for number in range(5)]
    for name in names:
        centre.start(name, STUDENT, gpus=0)
        centre.clock.at += 1
    assert [one["id"] for one in listed(centre, STUDENT, server="s3")] == ["s3"]
    looks = 0
    reading = SqlStore.reading

    def counted(store: SqlStore) -> AbstractContextManager[Transaction]:
        nonlocal looks
        looks += 1
        return reading(store)

    monkeypatch.setattr(SqlStore, "reading", counted)
    client = centre.call(STUDENT)
    found: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    for _ in range(3):
        page = client.get(API, params=query).json()
        found += [one["id"] for one in page["items"]]
        query["cursor"] = page["next"]
    assert (found, query["cursor"]) == (names, None)
    assert looks == 2 * 3, "who asks, and the list"
