"""Reports of use at the desk: who gets which rows, in which form, and what a bad question is told."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from hub_ext.core.errors import StoreUnavailable
from hub_ext.core.people import Person
from hub_ext.desk.desk import API
from hub_ext.desk.usage import FIELDS, SACCT_FIELDS, names
from hub_ext.desk.usage_report import all_pages
from hub_ext.quota.ports_hours import LeaseUsage, UsageScope
from hub_ext.quota.store import SqlTransaction
from tests.desk.hours_centre import HoursCentre, hours_centre
from tests.services.hours.people import CLASSMATE, FIRM_LEAD, OPERATOR, STUDENT, UNIV_LEAD
from tests.support.databases import Database
from tests.support.state import ROOT

USAGE = f"{API}/usage"
MARCH = {"from": "2027-03-01", "to": "2027-03-10"}


@pytest.fixture
def centre(sqlite_database: Database) -> Iterator[HoursCentre]:
    """On one kind of database: tests/services/hours is about both."""
    made = hours_centre(sqlite_database)
    yield made
    made.store.close()


def rows(client: TestClient, **parameters: Any) -> list[dict[str, str]]:
    answer = client.get(USAGE, params=MARCH | {"format": "csv"} | parameters)
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def test_a_spreadsheet_gets_a_file_with_every_lease(centre: HoursCentre) -> None:
    answer = centre.call(OPERATOR).get(USAGE, params=MARCH | {"format": "csv", "mark": True})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert (
        answer.headers["content-disposition"]
        == 'attachment; filename="usage-lease-2027-03-01-2027-03-10.csv"'
    )
    assert answer.text.startswith("\ufeff" + ",".join(names("lease")) + "\r\n")
    found = rows(centre.call(OPERATOR))
    assert [row["lease"] for row in found] == ["run-9", "run-7", "run-5", "run-3", "run-1"]
    assert [float(row["gpu_hours"]) for row in found] == [3, 4, 5, 8, 2]
    assert {(row["person"], row["pool_path"], row["resource"]) for row in found} == {
        ("student", "seoul/sector/univ", "h200")
    }


@pytest.mark.parametrize(
    ("reader", "want"),
    [(STUDENT, 5), (UNIV_LEAD, 5), (OPERATOR, 5), (CLASSMATE, 0), (FIRM_LEAD, 0)],
    ids=lambda value: value.name if isinstance(value, Person) else "",
)
@pytest.mark.parametrize("form", ["csv", "jsonl", "sacct", "json"])
def test_nobody_gets_rows_that_are_not_theirs(
    centre: HoursCentre, reader: Person, want: int, form: str
) -> None:
    answer = centre.call(reader).get(USAGE, params=MARCH | {"format": form, "pool": "univ"})
    assert answer.status_code == 200
    found = {
        "csv": lambda: answer.text.splitlines()[1:],
        "jsonl": lambda: [json.loads(line) for line in answer.text.splitlines()],
        "sacct": lambda: answer.text.splitlines(),
        "json": lambda: answer.json()["items"],
    }[form]()
    assert len(found) == want
    assert "student" in answer.text or not want


def test_a_leads_token_that_only_reads_gets_their_own_alone(centre: HoursCentre) -> None:
    assert len(rows(centre.call(UNIV_LEAD))) == 5
    assert rows(centre.call(UNIV_LEAD, reads=True)) == []


def test_json_comes_in_pages_that_make_up_the_file(centre: HoursCentre) -> None:
    client = centre.call(OPERATOR)
    for by in ("lease", "day", "person", "pool"):
        found: list[dict[str, Any]] = []
        parameters: dict[str, Any] = MARCH | {"by": by, "limit": 2}
        while True:
            page = client.get(USAGE, params=parameters).json()
            assert (page["schema"], page["by"], page["from"], page["timezone"]) == (
                "hangang-usage-1",
                by,
                "2027-03-01",
                "Asia/Seoul",
            )
            found += page["items"]
            if page["next"] is None:
                break
            parameters["cursor"] = page["next"]
        in_file = rows(client, by=by)
        assert [{key: "" if v is None else str(v) for key, v in row.items()} for row in found] == in_file
        assert found


def test_open_xdmod_gets_what_slurm_would_write(centre: HoursCentre) -> None:
    answer = centre.call(OPERATOR).get(USAGE, params=MARCH | {"format": "sacct"})
    first = dict(zip(SACCT_FIELDS, answer.text.splitlines()[0].split("|"), strict=True))
    assert (first["user"], first["account"], first["state"], first["elapsed"]) == (
        "student",
        "univ",
        "COMPLETED",
        "03:00:00",
    )


@pytest.mark.parametrize(
    ("wrong", "status", "code"),
    [
        ({"from": "2027-03-05", "to": "2027-03-01"}, 400, "dates-reversed"),
        ({"from": "2020-01-01"}, 400, "too-many-days"),
        ({"from": "0001-01-01", "to": "0001-01-02"}, 200, None),
        ({"from": "yesterday"}, 422, "bad-input"),
        ({"by": "hour"}, 422, "bad-input"),
        ({"format": "xml"}, 422, "bad-input"),
        ({"limit": 0}, 422, "bad-input"),
        ({"limit": 1001}, 422, "bad-input"),
        ({"cursor": "forged"}, 400, "bad-cursor"),
        ({"pool": "a\x00b"}, 422, "bad-input"),
        ({"person": ""}, 422, "bad-input"),
        ({"person": "' OR 1=1 --"}, 200, None),
    ],
    ids=str,
)
def test_what_the_report_is_asked_wrongly(
    centre: HoursCentre, wrong: dict[str, Any], status: int, code: str | None
) -> None:
    answer = centre.call(OPERATOR).get(USAGE, params=MARCH | wrong)
    assert answer.status_code == status, answer.text
    if code is None:
        assert answer.json()["items"] == []
    else:
        assert (answer.json()["code"], set(answer.json())) == (code, {"code", "facts", "message"})


@pytest.mark.parametrize("form", ["json", "csv", "jsonl", "sacct"])
@pytest.mark.parametrize("days", [("0001-01-01", "0001-01-31"), ("9999-12-01", "9999-12-31")])
def test_the_ends_of_the_calendar_are_days_as_well(
    centre: HoursCentre, form: str, days: tuple[str, str]
) -> None:
    first, last = days
    answer = centre.call(OPERATOR).get(USAGE, params={"from": first, "to": last, "format": form})
    assert answer.status_code == 200
    assert "run-9" not in answer.text


def test_without_dates_it_is_this_month_until_today(centre: HoursCentre) -> None:
    page = centre.call(STUDENT).get(USAGE).json()
    assert (page["from"], page["to"]) == ("2027-03-01", "2027-03-10")


def test_a_database_that_is_away_is_told_before_the_file_begins(
    centre: HoursCentre, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> list[LeaseUsage]:
        raise StoreUnavailable("The database is away.")

    monkeypatch.setattr(SqlTransaction, "lease_usage", away)
    answer = centre.call(OPERATOR).get(USAGE, params=MARCH | {"format": "csv"})
    assert (answer.status_code, answer.json()["code"]) == (503, "records-away")


def test_a_report_is_read_a_page_at_a_time(centre: HoursCentre, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page by its own short transaction, none larger than a page, whatever the length of the file."""
    limits: list[int] = []
    read = SqlTransaction.lease_usage

    def counted(self: SqlTransaction, scope: UsageScope, **more: Any) -> list[LeaseUsage]:
        limits.append(more["limit"])
        return read(self, scope, **more)

    monkeypatch.setattr(SqlTransaction, "lease_usage", counted)
    monkeypatch.setattr("hub_ext.desk.handlers.api_usage.all_pages", _small_pages)
    assert [row["lease"] for row in rows(centre.call(OPERATOR))] == [
        "run-9",
        "run-7",
        "run-5",
        "run-3",
        "run-1",
    ]
    assert limits == [3, 3, 3]


def _small_pages(*arguments: Any) -> Any:
    return all_pages(*arguments, 2)


def test_the_api_tells_of_itself(centre: HoursCentre) -> None:
    paths = centre.call(STUDENT).get(f"{API}/openapi.json").json()["paths"]
    for path, methods in {
        "/usage": {"get"},
        "/requests": {"get", "post"},
        "/requests/{request_id}": {"get", "delete"},
        "/requests/{request_id}/answer": {"post"},
        "/pools": {"get"},
        "/pools/{name}": {"get"},
        "/budgets": {"get"},
    }.items():
        assert set(paths[f"{API}{path}"]) == methods


def test_the_manual_names_every_field_as_it_is() -> None:
    manual = (ROOT / "docs" / "operate" / "accounting.md").read_text(encoding="utf-8")
    for fields in FIELDS.values():
        for field in fields:
            assert f"| `{field.name}` | {field.unit} | {field.meaning} |" in manual
