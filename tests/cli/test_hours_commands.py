"""`hub-ext usage --by lease|day`, `--format sacct` and `hub-ext requests`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import datetime

import pytest

from hub_ext.core.amounts import COST_UNITS_PER_GPU_HOUR
from hub_ext.core.people import Person
from hub_ext.desk.access import LEAD, READ, Access
from hub_ext.desk.hours import Draft, HoursRequests, Verdict
from hub_ext.desk.usage import SACCT_FIELDS, names
from hub_ext.factory import Factory
from hub_ext.quota.model import Ask, HoursRequest
from hub_ext.quota.service import Admission
from hub_ext.quota.service import run as runs
from tests.cli.conftest import Run
from tests.support.fakes import HandClock
from tests.support.state import Files


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


@pytest.fixture
def used(files: Files, run: Run) -> Iterator[Factory]:
    """One server, over the end of March in Seoul."""
    made = files.upgraded()
    clock = HandClock(instant("2027-03-31T23:30+09:00"))
    admission = Admission(made.store, clock)
    ask = Ask("l1", "student", "univ", {"gpu.h200": 1000}, minutes=120)
    assert admission.admit_now(Person("student", ("univ",)), ask).lease is not None
    admission.change("l1", runs("process 1", at=clock.at))
    clock.at = instant("2027-04-01T00:30+09:00")
    admission.release_now("l1", "hub", "stopped")
    yield made
    made.store.close()


def test_a_row_for_each_lease(used: Factory, run: Run) -> None:
    (row,) = csv.DictReader(io.StringIO(run("usage", "--by", "lease", "--format", "csv").output))
    assert list(row) == names("lease")
    assert (row["lease"], row["gpu_hours"], row["total_gpu_hours"]) == ("l1", "0.5", "1.0")
    found = json.loads(run("usage", "--by", "lease", "--format", "json").output)
    assert (found["from"], found["by"], found["rows"][0]["pool_path"]) == (
        "2027-04-01",
        "lease",
        "seoul/univ",
    )
    head, line = run("usage", "--by", "lease").output.splitlines()
    assert head.split()[0] == "lease"
    assert line.startswith("l1")


def test_a_row_for_each_day_pool_and_person(used: Factory, run: Run) -> None:
    found = json.loads(run("usage", "--by", "day", "--from", "2027-03-01", "--format", "json").output)["rows"]
    assert [(row["day"], row["person"], row["gpu_hours"]) for row in found] == [
        ("2027-03-31", "student", 0.5),
        ("2027-04-01", "student", 0.5),
    ]


@pytest.mark.parametrize("by", ["lease", "day"])
def test_a_time_without_use(used: Factory, run: Run, by: str) -> None:
    quiet = ("--from", "2020-01-01", "--to", "2020-12-31", "--by", by)
    assert run("usage", *quiet).output == "Nothing ran in this time.\n"
    assert json.loads(run("usage", *quiet, "--format", "json").output)["rows"] == []
    assert run("usage", *quiet, "--format", "csv").output.strip() == ",".join(names(by))


def test_jobs_as_slurm_writes_them(used: Factory, run: Run) -> None:
    (line,) = run("usage", "--format", "sacct").output.splitlines()
    job = dict(zip(SACCT_FIELDS, line.split("|"), strict=True))
    assert (job["user"], job["elapsed"], job["end"]) == ("student", "01:00:00", "2027-03-31T15:30:00")
    assert (
        run("usage", "--format", "sacct", "--from", "0001-01-01", "--to", "9999-12-31").output == f"{line}\n"
    )


def test_who_asks_for_hours(used: Factory, run: Run) -> None:
    assert run("requests").output == "No request for hours waits for an answer.\n"
    assert run("requests", "--all").output == "Nobody has asked for hours.\n"
    with used.store.reading() as txn:
        policy = txn.policy
    pool, budget = next(
        (pool.name, budget)
        for pool in policy.pools.values()
        for budget in pool.budgets
        if not budget.each_person
    )
    lead = Person("lead", (pool,), frozenset({"lead"}))
    boss = Person("boss", (pool,), frozenset({"lead"}))
    hours = HoursRequests(used.admission)
    draft = Draft(
        pool, budget.name, 5 * COST_UNITS_PER_GPU_HOUR, instant("2027-05-01T00:00+09:00"), "Two\nlines"
    )
    asked = hours.ask_now(Access(lead, frozenset({READ, LEAD})), draft)
    assert isinstance(asked, HoursRequest), asked
    head, line = run("requests").output.splitlines()
    assert head.split()[:2] == ["made_at", "made_by"]
    assert line.endswith("Two lines")
    hours.answer_now(Access(boss, frozenset({READ, LEAD})), asked.id, Verdict(False, "No"))
    assert json.loads(run("requests", "--json").output) == []
    (told,) = json.loads(run("requests", "--json", "--all").output)
    assert (told["state"], told["answer"], told["hours"]) == ("declined", "No", 5.0)
