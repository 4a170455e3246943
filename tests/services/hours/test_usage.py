"""Reports of use: what each reader finds in them, page by page, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest

from hub_ext.core.people import Person
from hub_ext.desk.usage import FIELDS, LEASE_FIELDS, SACCT_FIELDS, names
from hub_ext.desk.usage_report import By, all_pages, read_page, sacct_pages, scope_for
from hub_ext.desk.windows import keep_windows
from hub_ext.quota.calendar import Green
from hub_ext.quota.codes import Ended
from hub_ext.quota.model import Reservation
from hub_ext.quota.reserving import ask_to_reserve
from tests.services.desk.centre import HOUR, START, Centre
from tests.services.hours.people import (
    CLASSMATE,
    COURSE_LEAD,
    EVERYBODY,
    FIRM_LEAD,
    OPERATOR,
    POLICY,
    SECTOR_LEAD,
    STUDENT,
    UNIV_LEAD,
    access,
)

FIRST, SECOND = date(2027, 3, 2), date(2027, 3, 3)
MIDNIGHT = START + 15 * HOUR
"""Between the two days, in Seoul."""
NOW = START + 20 * HOUR


@pytest.fixture
def centre(centre_on_each: Centre) -> Centre:
    """Two days of use: `a` over midnight by the student, `b` in the course, `c` at the firm (borrowed), `d` runs on."""
    made = centre_on_each
    made.load(POLICY.replace("hours: 2, period: day, each: person", "hours: 99, period: day, each: person"))
    for person in EVERYBODY:
        made.admission.put_person(person)
    made.clock.at = MIDNIGHT - HOUR
    made.start("a", person="student")
    made.clock.at = MIDNIGHT
    made.start("b", person="classmate", pool="course", minutes=60)
    made.start("c", person="firm-lead", pool="firm", minutes=120, server="lab")
    made.clock.at = MIDNIGHT + HOUR // 2
    made.admission.release_now("a", "student", Ended.PERSON.value)
    made.clock.at = MIDNIGHT + HOUR
    made.admission.release_now("b", "", Ended.TIME.value)
    made.admission.release_now("c", "", Ended.OUT_OF_MEMORY.value)
    made.clock.at = NOW
    made.start("d", person="student")
    return made


def rows(
    centre: Centre,
    by: By = "lease",
    reader: Person = OPERATOR,
    first: date = FIRST,
    last: date = SECOND,
    size: int = 1000,
    **narrowed: str,
) -> list[dict[str, object]]:
    with centre.store.reading() as txn:
        policy = txn.policy
    scope = scope_for(access(reader), policy, first, last, **narrowed)
    return [dict(row) for page in all_pages(centre.store, scope, by, size) for row in page]


def hours_by(found: list[dict[str, object]], key: str) -> dict[object, object]:
    return {row[key]: row["gpu_hours"] for row in found}


def test_a_lease_is_one_row_with_what_accounting_asks_for(centre: Centre) -> None:
    row = rows(centre)[0]
    assert list(row) == names("lease")
    want = {
        "lease": "a",
        "person": "student",
        "pool": "univ",
        "pool_path": "seoul/sector/univ",
        "kind": "server",
        "resource": "h200",
        "gpus": 1,
        "resources": "gpu.h200=1",
        "admitted": "guaranteed",
        "rate": 1.0,
        "gpu_hours_per_hour": 1,
        "booked": "2027-03-02T23:00:00+09:00",
        "start": "2027-03-02T23:00:00+09:00",
        "end": "2027-03-03T00:30:00+09:00",
        "state": "released",
        "reason": "stopped",
        "seconds": 5400,
        "gpu_hours": 1.5,
        "total_gpu_hours": 1.5,
    }
    assert {key: row[key] for key in want} == want
    assert isinstance(row["number"], int)


def test_a_row_says_what_was_charged_on_the_days_of_the_report_and_ever(centre: Centre) -> None:
    (row,) = rows(centre, last=FIRST)
    assert (row["lease"], row["gpu_hours"], row["total_gpu_hours"]) == ("a", 1.0, 1.5)
    assert (row["seconds"], row["total_seconds"]) == (3600, 5400)


def test_days_pools_and_people_add_up_to_the_same(centre: Centre) -> None:
    by_lease = rows(centre)
    assert hours_by(by_lease, "lease") == {"a": 1.5, "b": 1.0, "c": 1.0}
    by_day = rows(centre, "day")
    assert [(row["day"], row["pool_path"], row["person"], row["gpu_hours"]) for row in by_day] == [
        ("2027-03-02", "seoul/sector/univ", "student", 1.0),
        ("2027-03-03", "seoul/sector/univ/course", "classmate", 1.0),
        ("2027-03-03", "seoul/firm", "firm-lead", 1.0),
        ("2027-03-03", "seoul/sector/univ", "student", 0.5),
    ]
    assert hours_by(rows(centre, "person"), "person") == {"classmate": 1.0, "firm-lead": 1.0, "student": 1.5}
    pools = {"seoul": 3.5, "sector": 2.5, "univ": 2.5, "course": 1.0, "firm": 1.0}
    assert hours_by(rows(centre, "pool"), "pool") == pools
    assert list(pools) == [row["pool"] for row in rows(centre, "pool")]


@pytest.mark.parametrize(
    ("reader", "want"),
    [
        (STUDENT, {"a"}),
        (CLASSMATE, {"b"}),
        (UNIV_LEAD, {"a", "b"}),
        (SECTOR_LEAD, {"a", "b"}),
        (COURSE_LEAD, {"b"}),
        (FIRM_LEAD, {"c"}),
        (OPERATOR, {"a", "b", "c"}),
        (Person("stranger", ("firm",)), set()),
    ],
    ids=lambda value: value.name if isinstance(value, Person) else None,
)
def test_everybody_sees_their_own_and_leads_what_was_charged_to_theirs(
    centre: Centre, reader: Person, want: set[str]
) -> None:
    assert {row["lease"] for row in rows(centre, reader=reader)} == want
    seen_people = {"a": "student", "b": "classmate", "c": "firm-lead"}
    for by in ("day", "person"):
        assert {row["person"] for row in rows(centre, by, reader)} == {seen_people[name] for name in want}


def test_a_lead_gets_no_sum_of_a_pool_that_they_see_in_part(centre: Centre) -> None:
    assert hours_by(rows(centre, "pool", UNIV_LEAD), "pool") == {"univ": 2.5, "course": 1.0}


def test_to_ask_for_more_than_one_may_see_brings_no_more(centre: Centre) -> None:
    assert not rows(centre, reader=STUDENT, person="classmate")
    assert not rows(centre, reader=STUDENT, pool="firm")
    assert {row["lease"] for row in rows(centre, reader=STUDENT, pool="sector")} == {"a"}
    assert not rows(centre, reader=FIRM_LEAD, pool="univ", person="student")


def test_reports_can_be_narrowed(centre: Centre) -> None:
    assert {row["lease"] for row in rows(centre, pool="univ")} == {"a", "b"}
    assert {row["lease"] for row in rows(centre, pool="univ", person="classmate")} == {"b"}
    assert not rows(centre, pool="nowhere")
    assert not rows(centre, person="'; DROP TABLE leases; --")


@pytest.mark.parametrize("by", ["lease", "day", "person", "pool"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_pages_of_any_size_are_the_same_report(centre: Centre, by: By, size: int) -> None:
    assert rows(centre, by, size=size) == rows(centre, by)


@pytest.mark.parametrize("by", ["lease", "day", "person", "pool"])
@pytest.mark.parametrize(
    "cursor",
    ["x", "", "W10", "WzEsMiwzLDRd", "eyJhIjoxfQ", "WyJcdTAwMDAiLCJcdTAwMDAiLCJiIl0", "WzFlOTksICJiIl0"],
)
def test_a_forged_place_is_refused(centre: Centre, by: By, cursor: str) -> None:
    with centre.store.reading() as txn:
        scope = scope_for(access(OPERATOR), txn.policy, FIRST, SECOND)
    with pytest.raises(ValueError, match="no place in this list"):
        read_page(centre.store, scope, by, cursor=cursor, limit=10)


def test_hours_stay_where_they_were_charged_when_a_pool_moves(centre: Centre) -> None:
    before = rows(centre, "pool")
    centre.load(POLICY.replace("parent: univ", "parent: firm"))
    after = hours_by(rows(centre, "pool"), "pool")
    assert after == hours_by(before, "pool")
    assert {row["lease"] for row in rows(centre, reader=UNIV_LEAD)} == {"a", "b"}


# -- for Open XDMoD -------------------------------------------------------------------------------------------------------


def lines_for_xdmod(centre: Centre, reader: Person = OPERATOR, **days: date) -> Iterator[dict[str, str]]:
    with centre.store.reading() as txn:
        scope = scope_for(access(reader), txn.policy, days.get("first", FIRST), days.get("last", SECOND))
    for page in sacct_pages(centre.store, scope, 2):
        for line in page:
            values = line.split("|")
            assert len(values) == len(SACCT_FIELDS)
            yield dict(zip(SACCT_FIELDS, values, strict=True))


def test_what_ended_is_written_as_slurm_writes_jobs(centre: Centre) -> None:
    jobs = list(lines_for_xdmod(centre))
    assert [(job["user"], job["state"], job["exitcode"]) for job in jobs] == [
        ("student", "COMPLETED", "0:0"),
        ("classmate", "TIMEOUT", "0:0"),
        ("firm-lead", "OUT_OF_MEMORY", "1:0"),
    ]
    first = jobs[0]
    assert first["jobid"].isdecimal()
    assert len({job["jobid"] for job in jobs}) == 3
    want = {
        "account": "univ",
        "partition": "h200",
        "qos": "guaranteed",
        "start": "2027-03-02T14:00:00",
        "end": "2027-03-02T15:30:00",
        "elapsed": "01:30:00",
        "alloctres": "cpu=1,gres/gpu=1,gres/gpu:h200=1,mem=0M,node=1",
        "timelimit": "12:00:00",
    }
    assert {key: first[key] for key in want} == want


def test_a_job_is_in_the_report_of_the_day_on_which_it_ended(centre: Centre) -> None:
    assert not list(lines_for_xdmod(centre, first=FIRST, last=FIRST))
    assert len(list(lines_for_xdmod(centre, first=SECOND, last=SECOND))) == 3


def test_what_a_reservation_held_for_nobody_is_in_the_hours_and_no_job(centre: Centre) -> None:
    window = Reservation("w1", "univ", {"gpu.h200": 1000}, NOW + HOUR, NOW + 2 * HOUR)
    with centre.store.booking() as txn:
        assert isinstance(ask_to_reserve(txn, window, NOW, who="univ-lead"), Green)
    for _ in range(8):
        centre.clock.at += HOUR // 4
        with centre.store.booking() as txn:
            keep_windows(txn, centre.clock.at)
    (row,) = [row for row in rows(centre) if row["kind"] == "reservation"]
    assert (row["lease"], row["person"], row["pool"]) == ("w1/unused", "", "univ")
    assert row["gpu_hours"] == pytest.approx(1 / 3), "the twenty minutes after which it was given up"
    assert "" not in {job["user"] for job in lines_for_xdmod(centre)}


def test_every_reason_has_its_word_of_slurm(centre: Centre) -> None:
    words = {
        "BOOT_FAIL", "CANCELLED", "COMPLETED", "FAILED", "NODE_FAIL", "PREEMPTED", "TIMEOUT", "OUT_OF_MEMORY",
    }  # fmt: skip
    for number, reason in enumerate(Ended):
        name = f"r{number}"
        centre.start(name, person="operator", pool="firm", minutes=15)
        centre.admission.release_now(name, "", reason.value, centre.clock.at + 60)
        centre.clock.at += 60
    states = {job["state"] for job in lines_for_xdmod(centre) if job["user"] == "operator"}
    assert states <= words
    assert {"PREEMPTED", "NODE_FAIL", "FAILED", "TIMEOUT"} <= states


def test_a_name_cannot_break_a_line_for_slurm(centre: Centre) -> None:
    centre.admission.release_now("d", "student", "stopped", NOW + 1)
    centre.start("e", person="student", profile="a|b\nc")
    centre.admission.release_now("e", "student", "because | of\nthis", NOW + HOUR)
    last = list(lines_for_xdmod(centre))[-1]
    assert (last["jobname"], last["state"]) == ("a_b_c", "CANCELLED")


def test_fields_are_named_once() -> None:
    for by, fields in FIELDS.items():
        assert len({field.name for field in fields}) == len(fields), by
    assert LEASE_FIELDS[0].name == "lease"
