"""Reservations for programs: asked for, approved and given up by those who may, and told to nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from hub_ext.core.people import Person
from hub_ext.desk import reservations
from hub_ext.quota.document import parse_policy
from hub_ext.quota.ledger import EntryKind
from hub_ext.quota.store import SqlStore
from tests.desk.hours_centre import HOUR, NOW, POLICY, HoursCentre
from tests.services.hours.people import (
    CLASSMATE,
    COURSE_LEAD,
    FIRM_LEAD,
    OPERATOR,
    SECTOR_LEAD,
    STUDENT,
    UNIV_LEAD,
)
from tests.support.databases import Database

API = "/services/desk/api/v1/reservations"


@pytest.fixture
def centre(sqlite_database: Database) -> Iterator[HoursCentre]:
    made = HoursCentre(SqlStore(sqlite_database.engine(), load_policy=parse_policy))
    yield made
    made.store.close()


def local(at: int) -> str:
    return parse_policy(POLICY).local(at).isoformat()


def wish(begins: int = HOUR, hours: int = 2, gpus: float | str = 2, **more: Any) -> dict[str, Any]:
    window = {"start": local(NOW + begins), "end": local(NOW + begins + hours * HOUR)}
    return {"pool": "univ", "amounts": {"gpu.h200": gpus}, "title": "Workshop"} | window | more


def reserved(centre: HoursCentre, by: Person = UNIV_LEAD, **more: Any) -> dict[str, Any]:
    answer = centre.call(by).post(API, json=wish(**more))
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"{API}/{answer.json()['id']}"
    return dict(answer.json())


def told(centre: HoursCentre) -> list[str]:
    with centre.store.reading() as txn:
        return [entry.why for _, entry in txn.entries() if entry.kind is EntryKind.RESERVED]


def listed(centre: HoursCentre, by: Person, **query: Any) -> list[str]:
    answer = centre.call(by).get(API, params=query)
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["items"]]


def test_within_the_guarantee_it_counts_at_once(centre: HoursCentre) -> None:
    made = reserved(centre)
    assert (made["counts"], made["approver"], made["made_by"]) == (True, None, "univ-lead")
    assert (made["amounts"], made["start"]) == ({"gpu.h200": 2000}, local(NOW + HOUR))
    assert told(centre) == ["made"]
    assert centre.call(UNIV_LEAD).get(f"{API}/{made['id']}").json() == made
    later = wish(begins=2 * HOUR, gpus=6)
    refused = centre.call(UNIV_LEAD).post(API, json=later)
    assert (refused.status_code, refused.json()["code"]) == (409, "does-not-fit")
    assert refused.json()["facts"]["after"] == local(NOW + 3 * HOUR)
    assert listed(centre, UNIV_LEAD) == [made["id"]]


def test_beyond_the_guarantee_a_lead_of_the_pool_that_covers_it_agrees(centre: HoursCentre) -> None:
    made = reserved(centre, gpus=4)
    assert (made["counts"], made["approver"]) == (False, "sector")
    where = f"{API}/{made['id']}/approve"
    for person, status, code in (
        (UNIV_LEAD, 403, "not-yours-to-approve"),
        (FIRM_LEAD, 404, "not-found"),
        (STUDENT, 403, "not-open"),
    ):
        answer = centre.call(person).post(where)
        assert (answer.status_code, answer.json()["code"]) == (status, code), person
    assert centre.call(SECTOR_LEAD, reads=True).post(where).json()["code"] == "scope-missing"
    assert not centre.call(UNIV_LEAD).get(f"{API}/{made['id']}").json()["counts"]
    agreed = centre.call(SECTOR_LEAD).post(where)
    assert agreed.status_code == 200, agreed.text
    assert (agreed.json()["counts"], agreed.json()["approved_by"]) == (True, "sector-lead")
    assert agreed.json()["approver"] is None
    again = centre.call(SECTOR_LEAD).post(where)
    assert (again.status_code, again.json()["code"]) == (409, "counts-already")
    assert told(centre) == ["asked", "made"]


def test_who_agrees_and_whether_it_fits_is_looked_at_anew_when_it_is_approved(centre: HoursCentre) -> None:
    made = reserved(centre, gpus=4)
    kept = [made["id"], reserved(centre)["id"]]
    where = f"{API}/{made['id']}/approve"
    answer = centre.call(SECTOR_LEAD).post(where)
    assert (answer.status_code, answer.json()["facts"]) == (403, {"approver": "seoul"})
    kept.append(reserved(centre, FIRM_LEAD, pool="firm", gpus=3)["id"])
    answer = centre.call(OPERATOR).post(where)
    assert (answer.status_code, answer.json()["code"]) == (409, "does-not-fit")
    assert sorted(listed(centre, OPERATOR)) == sorted(kept)


def test_it_is_given_up_by_those_who_lead_its_pool(centre: HoursCentre) -> None:
    counts, waits = reserved(centre), reserved(centre, begins=5 * HOUR, gpus=4)
    for made in (counts, waits):
        where = f"{API}/{made['id']}"
        assert centre.call(FIRM_LEAD).delete(where).status_code == 404
        assert centre.call(STUDENT).delete(where).status_code == 403
        assert centre.call(SECTOR_LEAD).delete(where).status_code == 204
        assert centre.call(SECTOR_LEAD).delete(where).status_code == 404
    assert told(centre) == ["made", "asked", "cancelled", "withdrawn"]
    assert reserved(centre)["counts"]


def test_each_sees_those_of_the_pools_that_are_open_to_them(centre: HoursCentre) -> None:
    university, firm = reserved(centre)["id"], reserved(centre, FIRM_LEAD, pool="firm")["id"]
    assert listed(centre, OPERATOR) == sorted([university, firm])
    assert listed(centre, SECTOR_LEAD) == listed(centre, UNIV_LEAD) == listed(centre, STUDENT) == [university]
    assert listed(centre, FIRM_LEAD) == [firm]
    assert listed(centre, CLASSMATE) == listed(centre, COURSE_LEAD) == []
    assert listed(centre, UNIV_LEAD, pool="firm") == []
    shown = centre.call(STUDENT).get(f"{API}/{university}").json()
    assert (shown["title"], shown["made_by"], shown["approved_by"]) == ("Workshop", None, None)
    assert centre.call(STUDENT).get(f"{API}/{firm}").status_code == 404


def test_who_leads_no_pool_or_another_reserves_nothing(centre: HoursCentre) -> None:
    for person, status in ((STUDENT, 403), (FIRM_LEAD, 404), (COURSE_LEAD, 404)):
        assert centre.call(person).post(API, json=wish()).status_code == status
    assert centre.call(UNIV_LEAD).post(API, json=wish(pool="gone")).status_code == 404
    assert centre.call(UNIV_LEAD, reads=True).post(API, json=wish()).json()["code"] == "scope-missing"
    assert told(centre) == []


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"hours": 0}, 400),
        ({"hours": -1}, 400),
        ({"gpus": 0}, 400),
        ({"gpus": -1}, 400),
        ({"gpus": "many"}, 400),
        ({"gpus": "x" * 41}, 422),
        ({"amounts": {"gpu.b200": 1}}, 400),
        ({"amounts": {"disk": 1}}, 400),
        ({"amounts": {}}, 422),
        ({"begins": -HOUR}, 409),
        ({"begins": 400 * 24 * HOUR}, 409),
        ({"end": "tomorrow"}, 422),
        ({"approved": True}, 422),
    ],
)
def test_what_cannot_be_reserved_is_told(centre: HoursCentre, more: dict[str, Any], status: int) -> None:
    answer = centre.call(UNIV_LEAD).post(API, json=wish(**more))
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"code", "facts", "message"}
    assert told(centre) == []


def test_one_pool_keeps_only_so_many(centre: HoursCentre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "MOST_AHEAD", 1)
    reserved(centre)
    answer = centre.call(UNIV_LEAD).post(API, json=wish(begins=9 * HOUR))
    assert (answer.status_code, answer.json()["code"]) == (409, "too-many-reservations")
    assert reserved(centre, FIRM_LEAD, pool="firm")["counts"]


def test_times_without_an_offset_are_the_centres(centre: HoursCentre) -> None:
    start = parse_policy(POLICY).local(NOW + HOUR)
    plain = {"start": start.replace(tzinfo=None).isoformat(), "end": (start + timedelta(hours=1)).isoformat()}
    assert reserved(centre, **plain)["start"] == start.isoformat()


def test_a_long_list_comes_in_pages(centre: HoursCentre) -> None:
    made = [reserved(centre, begins=place * 3 * HOUR)["id"] for place in range(1, 6)]
    found: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        answer = centre.call(UNIV_LEAD).get(API, params=query).json()
        found, cursor = found + [one["id"] for one in answer["items"]], answer["next"]
    assert (found, cursor) == (made, None)
