"""`hub-ext …`: what each command prints and how it ends; a person never reads a stack trace."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hub_ext import cli
from hub_ext.core.people import Person
from hub_ext.db.engine import make_engine
from hub_ext.factory import Factory
from hub_ext.quota.model import Ask, Lease
from hub_ext.quota.service import Admission, run
from tests.cli.conftest import NOW, Run
from tests.services.store.city import check_laws
from tests.support.databases import Database, held_by_another
from tests.support.fakes import HandClock, ObedientWorld, UndyingWorld
from tests.support.state import ROOT, Files


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


@pytest.fixture
def factory(files: Files, run: Run) -> Iterator[Factory]:
    """The hub of the test's folder, its database made and its documents in force."""
    made = files.upgraded()
    yield made
    check_laws(made.store)
    made.store.close()


def ran(factory: Factory, name: str, begins: str, ends: str | None, **more: Any) -> Lease:
    """A server that ran from then to then (None: it still does)."""
    person, pool, gpus = more.pop("person", "student"), more.pop("pool", "univ"), more.pop("gpus", 1)
    more = {"minutes": 120} | more
    clock = HandClock(instant(begins))
    admission = Admission(factory.store, clock)
    answer = admission.admit_now(
        Person(person, (pool,)), Ask(name, person, pool, {"gpu.h200": gpus * 1000}, **more)
    )
    assert answer.lease is not None, answer.decision
    admission.change(name, run_at(clock.at))
    if ends is not None:
        clock.at = instant(ends)
        admission.release_now(name, "hub", "stopped")
    with factory.store.reading() as txn:
        found = txn.lease(name)
    assert found is not None
    return found


def run_at(at: int) -> Any:
    return run("7@7", "n1", at=at)


# -- check ----------------------------------------------------------------------------------------------------------------


def test_check_prints_what_each_pool_has_with_all_below_it(example: Files, run: Run) -> None:
    said = run("check").output
    assert said.rstrip().endswith("5 people.")
    assert "No faults: 13 pools, 6 profiles" in said
    rows = {tuple(line.split()) for line in said.splitlines()}
    assert ("seoul", "cpu", "0", "128") in rows
    assert ("hangang-univ", "gpu.h200", "0", "2") in rows, "its own, and with the vision lab's"
    assert ("public-interest", "cpu", "52", "52") in rows


def test_check_needs_no_database(files: Files, run: Run) -> None:
    run("check")
    assert not files.settings().state_dir.exists()


def test_check_tells_the_faults_of_profiles_and_identity_at_once(files: Files, run: Run) -> None:
    files.identity.write_text(files.identity.read_text().replace("roles: [student]", "roles: [pupil]"))
    (files.profiles / "gpu.yaml").write_text(
        (files.profiles / "gpu.yaml").read_text().replace("gpu.h200", "gpu.h900")
    )
    result = run("check", code=1)
    assert result.stdout == ""
    told = [line.rpartition("/")[2].split(":")[:2] for line in result.stderr.splitlines()]
    assert sorted(told) == [["gpu.yaml", "4"], ["identity.yaml", "3"]]


def test_check_tells_the_faults_of_policy_profiles_and_identity_at_once(files: Files, run: Run) -> None:
    files.policy.write_text(files.policy.read_text().replace("nominal: 2", "nominale: 2"))
    files.identity.write_text(files.identity.read_text().replace("roles: [student]", "roles: [pupil]"))
    profile = files.profiles / "gpu.yaml"
    profile.write_text(profile.read_text().replace("title:", "titel:"))
    told = {line.rpartition("/")[2].split(":")[0] for line in run("check", code=1).stderr.splitlines()}
    assert told == {"pools.yaml", "identity.yaml", "gpu.yaml"}


def test_check_tells_a_fault_in_the_settings(files: Files, run: Run) -> None:
    files.settings_file.write_text(files.settings_file.read_text() + "stat: .hub\n")
    assert "Did you mean 'state'?" in run("check", code=1).stderr


def test_a_settings_file_that_is_not_there_is_told(files: Files, run: Run) -> None:
    files.settings_file.unlink()
    assert "hub.yaml:1: the file cannot be read" in run("check", code=1).stderr


# -- the database ------------------------------------------------------------------------------------------------------------------


def test_db_upgrade_makes_the_tables_once(files: Files, run: Run) -> None:
    first = run("db", "upgrade").output
    assert first == "The database has schema version 0003.\n"
    path = files.settings().state_dir / "ledger.sqlite"
    before = path.read_bytes()
    assert run("db", "upgrade").output == first
    assert path.read_bytes() == before


def test_db_upgrade_where_it_may_not_write_says_so(files: Files, run: Run) -> None:
    (files.folder / "state").write_text("a file in its place")
    said = run("db", "upgrade", code=1).stderr
    assert "state" in said
    assert len(said.splitlines()) == 1


COMMANDS = [
    ("pools",),
    ("pools", "--json"),
    ("leases",),
    ("leases", "--all", "--json"),
    ("release", "l1", "--why", "maintenance"),
    ("usage",),
    ("usage", "--format", "csv"),
    ("usage", "--by", "lease", "--format", "csv"),
    ("usage", "--format", "sacct"),
    ("grant", "guests", "5", "--why", "deadline", "--until", "2027-05-01"),
]
ids = pytest.mark.parametrize("command", COMMANDS, ids=" ".join)


@ids
def test_without_a_database_each_command_names_the_one_that_makes_it(
    files: Files, run: Run, command: tuple[str, ...]
) -> None:
    result = run(*command, code=1)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "`hub-ext db upgrade`" in line


@pytest.mark.parametrize(
    "content", [b"", b"a letter, and no database\n" * 99], ids=["an empty file", "another file"]
)
def test_a_file_that_is_no_database_is_told_in_one_sentence(files: Files, run: Run, content: bytes) -> None:
    state = files.settings().state_dir
    state.mkdir()
    (state / "ledger.sqlite").write_bytes(content)
    (line,) = run("leases", code=1).stderr.splitlines()
    assert line.startswith("The database file ")


@ids
def test_a_database_without_a_policy_is_told_in_one_sentence(
    files: Files, run: Run, command: tuple[str, ...]
) -> None:
    run("db", "upgrade")
    result = run(*command, code=1)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "no policy was put in force" in line or "no lease that begins with 'l1'" in line


@contextmanager
def locked(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("hub_ext.factory.make_engine", partial(make_engine, wait=0.02))
    monkeypatch.setattr("hub_ext.db.upgrade.PATIENCE", 0.02)
    url = factory.settings.ledger_url
    with held_by_another(Database("sqlite", url, url.removeprefix("sqlite:///"))):
        yield


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("release", "l1", "--why", "maintenance"), id="release"),
        pytest.param(("grant", "guests", "5", "--why", "deadline", "--until", "2027-05-01"), id="grant"),
        pytest.param(("db", "upgrade"), id="db upgrade"),
    ],
)
def test_while_the_database_is_locked_a_change_is_refused_in_one_sentence(
    factory: Factory, run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    ran(factory, "l1", "2027-04-03T09:00+09:00", None)
    with locked(factory, monkeypatch):
        (line,) = run(*command, code=1).stderr.splitlines()
    assert "is busy" in line
    assert "Nothing was booked" in line


@pytest.mark.parametrize("command", [("pools",), ("leases",), ("usage",)], ids=" ".join)
def test_while_the_database_is_locked_one_may_look(
    factory: Factory, run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    with locked(factory, monkeypatch):
        run(*command)


# -- pools and leases ------------------------------------------------------------------------------------------------------------


def test_pools(factory: Factory, run: Run) -> None:
    ran(factory, "l1", "2027-04-03T09:00+09:00", None, gpus=3)
    numbers = json.loads(run("pools", "--json").output)
    assert list(numbers) == ["seoul", "univ", "lab", "guests"]
    assert numbers["univ"]["resources"]["gpu.h200"] == {
        "nominal": 2000,
        "subtree": 3000,
        "local": 0,
        "used": 3000,
        "g": 0,
        "available": 1000,
        "potential": 4000,
        "over": 0,
    }
    rows = [line.split() for line in run("pools").output.splitlines()]
    assert rows[0] == ["pool", "share", "resource", "quota", "used", "guaranteed", "available"]
    assert ["univ", "0", "gpu.h200", "3", "3", "0", "1"] in rows


def test_leases(factory: Factory, run: Run) -> None:
    assert run("leases").output == "No lease: nothing runs.\n"
    assert run("leases", "--json").output == "[]\n"
    ran(factory, "over", "2027-04-01T09:00+09:00", "2027-04-01T10:00+09:00", server="second", profile="gpu")
    ran(factory, "goes on", "2027-04-03T09:00+09:00", None, gpus=3, minutes=60)

    (lease,) = json.loads(run("leases", "--json").output)
    assert (lease["id"], lease["state"], lease["guaranteed"], lease["lender"]) == (
        "goes on",
        "running",
        False,
        "univ",
    )
    assert (lease["started_at"], lease["ends_at"]) == (
        "2027-04-03T09:00:00+09:00",
        "2027-04-03T10:00:00+09:00",
    )
    both = json.loads(run("leases", "--all", "--json").output)
    assert [(one["id"], one["reason"], one["released_at"]) for one in both] == [
        ("over", "stopped", "2027-04-01T10:00:00+09:00"),
        ("goes on", None, None),
    ]

    shown = run("leases").output
    assert "over" not in shown
    assert "h200=3" in shown
    assert "borrowed from univ" in shown
    assert "2027-04-03 10:00" in shown
    assert "released: stopped" in run("leases", "--all").output


# -- release ------------------------------------------------------------------------------------------------------------------------


def test_release_marks_a_lease_as_ending_with_who_and_why(factory: Factory, run: Run) -> None:
    ran(factory, "abc1", "2027-04-03T09:00+09:00", None)
    said = run("release", "abc1", "--why", "maintenance of the node").output
    assert said == "Lease abc1 of student is ending: maintenance of the node. The clock stops what it runs.\n"
    with factory.store.reading() as txn:
        lease, entries = txn.lease("abc1"), [entry for _, entry in txn.entries(lease="abc1")]
    assert lease is not None
    assert (lease.state.value, lease.reason) == ("ending", "maintenance of the node")
    assert (entries[-1].kind.value, entries[-1].why) == ("ending", "maintenance of the node")
    assert entries[-1].who == cli._who()
    run("release", "abc1", "--why", "again")
    assert json.loads(run("leases", "--json").output)[0]["reason"] == "maintenance of the node"


def test_release_gives_back_at_once_what_never_ran(factory: Factory, run: Run) -> None:
    admission = Admission(factory.store, HandClock(NOW))
    admission.admit_now(Person("student", ("univ",)), Ask("abc1", "student", "univ", {"gpu.h200": 1000}))
    run("release", "abc1", "--why", "a start that hangs")
    (lease,) = json.loads(run("leases", "--all", "--json").output)
    assert (lease["state"], lease["reason"]) == ("released", "a start that hangs")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        pytest.param("ab", "more than one lease begins with 'ab'", id="the beginning of two"),
        pytest.param("x", "there is no lease that begins with 'x'", id="of none"),
        pytest.param("", "there is no lease that begins with ''", id="of all"),
        pytest.param("old", "Lease old was released already: stopped", id="one that is over"),
    ],
)
def test_release_says_what_it_cannot_find(factory: Factory, run: Run, name: str, said: str) -> None:
    ran(factory, "old", "2027-04-01T09:00+09:00", "2027-04-01T10:00+09:00")
    for number in (1, 2):
        ran(factory, f"abc{number}", "2027-04-03T09:00+09:00", None, server=str(number))
    assert said in run("release", name, "--why", "maintenance", code=1).stderr
    assert {one["state"] for one in json.loads(run("leases", "--json").output)} == {"running"}


def test_release_by_the_beginning_of_its_id(factory: Factory, run: Run) -> None:
    for name in ("abc1", "abd2"):
        ran(factory, name, "2027-04-03T09:00+09:00", None, server=name)
    assert "Lease abd2 of student" in run("release", "abd", "--why", "maintenance").output


def test_release_needs_a_reason(factory: Factory, run: Run) -> None:
    assert "--why" in run("release", "abc1", code=2).stderr


def test_somebody_without_a_name_may_release_too(
    factory: Factory, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that runs under a number nobody knows."""
    ran(factory, "abc1", "2027-04-03T09:00+09:00", None)
    monkeypatch.setattr("os.getuid", lambda: 987_654)
    run("release", "abc1", "--why", "maintenance")
    with factory.store.reading() as txn:
        assert txn.entries(lease="abc1")[-1][1].who == "uid 987654"


# -- stop-servers ----------------------------------------------------------------------------------------------------------------------


def with_world(monkeypatch: pytest.MonkeyPatch, world: ObedientWorld) -> ObedientWorld:
    def stop_lease(lease: str) -> None:
        for running in world.running():
            if running.lease == lease:
                world.stop(running)

    world.stop_lease = stop_lease  # type: ignore[attr-defined]
    monkeypatch.setattr("hub_ext.factory.LocalWorld", lambda state: world)
    return world


def test_stop_servers_ends_all_of_them_and_their_leases(
    factory: Factory, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = with_world(monkeypatch, ObedientWorld())
    assert run("stop-servers").output == "0 server(s) ended.\n"
    for number in range(2):
        ran(factory, f"l{number}", "2027-04-03T09:00+09:00", None, server=str(number))
        world.start(f"l{number}", NOW)
    world.start("unknown to the ledger", NOW)
    world.start("l1", NOW, handle="a kernel", main=False)
    assert run("stop-servers", "--why", "the machine is moved").output == "3 server(s) ended.\n"
    assert world.processes == []
    found = json.loads(run("leases", "--all", "--json").output)
    assert [(one["state"], one["reason"]) for one in found] == [("released", "the machine is moved")] * 2


def test_stop_servers_ends_them_also_while_the_database_is_locked_and_then_says_so(
    factory: Factory, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = with_world(monkeypatch, ObedientWorld())
    for number in range(2):
        ran(factory, f"l{number}", "2027-04-03T09:00+09:00", None, server=str(number))
        world.start(f"l{number}", NOW)
    with locked(factory, monkeypatch):
        result = run("stop-servers", code=1)
    assert world.processes == []
    assert result.stdout == "2 server(s) ended.\n"
    assert "is busy" in result.stderr


def test_stop_servers_releases_nothing_that_it_could_not_end(
    factory: Factory, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = with_world(monkeypatch, UndyingWorld())
    ran(factory, "l1", "2027-04-03T09:00+09:00", None)
    world.start("l1", NOW)
    result = run("stop-servers", code=1)
    assert result.stdout == "0 server(s) ended.\n"
    assert result.stderr == "Still running, and not ours to end: l1.\n"
    assert json.loads(run("leases", "--json").output)[0]["state"] == "running"


# -- usage -------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def used(factory: Factory) -> Factory:
    """Over the end of March in Seoul: half an hour before midnight, half an hour after."""
    ran(factory, "l1", "2027-03-31T23:30+09:00", "2027-04-01T00:30+09:00")
    ran(factory, "l2", "2027-04-02T09:00+09:00", "2027-04-02T11:00+09:00", pool="lab", gpus=1, person="lead")
    ran(
        factory,
        "l3",
        "2027-04-02T12:00+09:00",
        "2027-04-02T13:00+09:00",
        pool="guests",
        gpus=2,
        person="lead",
    )
    return factory


def rows_of(run: Run, *arguments: str) -> list[dict[str, Any]]:
    return list(json.loads(run("usage", "--format", "json", *arguments).output)["rows"])


def test_usage_by_pool_counts_each_pool_with_all_below_it(used: Factory, run: Run) -> None:
    found = {row["pool"]: (row["gpu_hours"], row["server_hours"], row["leases"]) for row in rows_of(run)}
    # Two GPUs of the guests are half borrowed: the whole server then costs half.
    assert found == {
        "seoul": (3.5, 3.5, 3),
        "univ": (2.5, 2.5, 2),
        "lab": (2.0, 2.0, 1),
        "guests": (1.0, 1.0, 1),
    }
    assert [row["pool"] for row in rows_of(run)] == ["seoul", "univ", "lab", "guests"]


def test_usage_by_person_and_pool(used: Factory, run: Run) -> None:
    assert rows_of(run, "--by", "person", "--from", "2027-03-01") == [
        {"person": "lead", "pool": "guests", "gpu_hours": 1.0, "server_hours": 1.0, "leases": 1},
        {"person": "lead", "pool": "lab", "gpu_hours": 2.0, "server_hours": 2.0, "leases": 1},
        {"person": "student", "pool": "univ", "gpu_hours": 1.0, "server_hours": 1.0, "leases": 1},
    ]


@pytest.mark.parametrize("by", ["pool", "person"])
def test_usage_as_csv_and_as_a_table_says_the_same_as_json(used: Factory, run: Run, by: str) -> None:
    want = [{key: str(value) for key, value in row.items()} for row in rows_of(run, "--by", by)]
    assert list(csv.DictReader(io.StringIO(run("usage", "--by", by, "--format", "csv").output))) == want
    title, _, names, *table = run("usage", "--by", by).output.splitlines()
    assert title == "2027-04-01 to 2027-04-03, both included (Asia/Seoul)"
    assert [dict(zip(names.split(), line.split(), strict=True)) for line in table] == want


@pytest.mark.parametrize(
    ("dates", "want"),
    [
        pytest.param(("--from", "2027-03-31", "--to", "2027-03-31"), 0.5, id="the last of March"),
        pytest.param(("--from", "2027-04-01", "--to", "2027-04-01"), 0.5, id="the first of April"),
        pytest.param(("--from", "2027-03-31", "--to", "2027-04-01"), 1.0, id="both"),
        pytest.param((), 3.5, id="this month until today"),
        pytest.param(("--from", "2027-03-01"), 4.0, id="until today"),
        pytest.param(("--to", "2027-04-01"), 0.5, id="since the first of this month"),
        pytest.param(("--from", "0001-01-01", "--to", "9999-12-31"), 4.0, id="all time"),
    ],
)
def test_usage_counts_whole_days_of_the_policys_time_zone_both_included(
    used: Factory, run: Run, dates: tuple[str, ...], want: float
) -> None:
    assert rows_of(run, *dates)[0]["gpu_hours"] == want


def test_today_is_today_in_the_policys_time_zone(used: Factory, run: Run, clock: HandClock) -> None:
    clock.at = instant("2027-04-30T23:59:59+09:00")
    assert json.loads(run("usage", "--format", "json").output)["to"] == "2027-04-30"
    clock.at += 1  # still the 30th of April in UTC
    found = json.loads(run("usage", "--format", "json").output)
    assert (found["from"], found["to"], found["rows"]) == ("2027-05-01", "2027-05-01", [])


def test_a_time_in_which_nothing_ran(used: Factory, run: Run) -> None:
    quiet = ("--from", "2020-01-01", "--to", "2020-12-31")
    assert run("usage", *quiet).output.splitlines()[-1] == "Nothing ran in this time."
    assert run("usage", *quiet, "--format", "csv").output == "pool,gpu_hours,server_hours,leases\n"


@pytest.mark.parametrize(
    "date", ["yesterday", "2027-02-30", "2027-13-01", "31.3.2027", "", "2027-03-31T00:00"]
)
@pytest.mark.parametrize("option", ["--from", "--to"])
def test_what_is_no_date_is_not_understood(files: Files, run: Run, option: str, date: str) -> None:
    assert "is not a date; write for example 2027-03-02" in run("usage", option, date, code=2).stderr


@pytest.mark.parametrize(
    "dates",
    [
        pytest.param(("--from", "2027-03-02", "--to", "2027-03-01"), id="both given"),
        pytest.param(("--from", "2027-04-04"), id="from tomorrow"),
        pytest.param(("--to", "2027-03-31"), id="to before this month"),
    ],
)
def test_a_time_that_ends_before_it_begins_is_refused(
    used: Factory, run: Run, dates: tuple[str, ...]
) -> None:
    assert "lies before --from" in run("usage", *dates, code=1).stderr


# -- grant ------------------------------------------------------------------------------------------------------------------------------------


def grant(
    run: Run, pool: str = "guests", hours: str = "5", *more: str, until: str = "2027-04-30", code: int = 0
) -> Any:
    return run("grant", *more, "--why", "a deadline", "--until", until, "--", pool, hours, code=code)


def test_a_grant_is_written_down_with_who_and_why(factory: Factory, run: Run) -> None:
    assert grant(run).output == "Granted 5 GPU-h to guests, budget month, until 2027-05-01 00:00.\n"
    with factory.store.reading() as txn:
        (made,) = txn.grants()
        state = txn.ledger(None).entries
        (_, entry), *_ = txn.entries()
    assert (made.pool, made.budget, made.person, made.units, made.why) == (
        "guests",
        "month",
        "",
        5 * 3600 * 10**6,
        "a deadline",
    )
    assert made.until == instant("2027-05-01T00:00+09:00"), "the last day counts as a whole"
    assert (entry.kind.value, entry.who, state) == ("granted", cli._who(), [])


@pytest.mark.parametrize(
    ("until", "want"),
    [
        pytest.param("2027-04-30", "2027-05-01T00:00+09:00", id="a date: with that day"),
        pytest.param("20270430", "2027-05-01T00:00+09:00", id="a date written closely: likewise"),
        pytest.param(
            "2027-04-30T12:00", "2027-04-30T12:00+09:00", id="a time: as it is in the policy's zone"
        ),
        pytest.param("2027-04-30T12:00+00:00", "2027-04-30T21:00+09:00", id="a time with its zone"),
        pytest.param("2027-04-30T12:00:30Z", "2027-04-30T21:00:30+09:00", id="to the second"),
        pytest.param("2027-04-03", "2027-04-04T00:00+09:00", id="today"),
    ],
)
def test_until_when_a_grant_counts(factory: Factory, run: Run, until: str, want: str) -> None:
    grant(run, until=until)
    with factory.store.reading() as txn:
        assert [made.until for made in txn.grants()] == [instant(want)]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "for an unknown pool": (
        {"pool": "gests"},
        "there is no pool 'gests'; the policy has seoul, univ, lab, guests",
    ),
    "for a pool without a budget": ({"pool": "lab"}, "pool 'lab' has no budget"),
    "where several budgets stand": (
        {"pool": "univ"},
        "has the budgets month, week, week (each person); name one by its period",
    ),
    "for a period that the pool does not have": ({"more": ("--period", "year")}, "no budget of it matches"),
    "for a person where the budget is the pool's": (
        {"more": ("--person", "student")},
        "no budget of it matches",
    ),
    "that has run out already": (
        {"until": "2027-04-02"},
        "would have run out already; give a later date with --until",
    ),
    "that runs out now": ({"until": "2027-04-03T10:00"}, "would have run out already"),
    "until the year one": ({"until": "0001-01-01"}, "would have run out already"),
    "until the end of all time": ({"until": "9999-12-31"}, "is not a date"),
    "until soon": ({"until": "soon"}, "'soon' is not a date; write for example 2027-03-31"),
    "until a day that is none": ({"until": "2027-02-30"}, "is not a date"),
    "until nothing": ({"until": ""}, "is not a date"),
    **{
        f"of {hours} hours": ({"hours": hours}, "cannot be granted")
        for hours in ("NaN", "sNaN", "Infinity", "-Infinity", "-5", "0", "0.0", "1e-30", "1e10", "1e999999")
    },
    **{
        f"of {hours!r} hours": ({"hours": hours}, "is not a number of hours")
        for hours in ("five", "", "5h", "1,5", "0x10")
    },
}


@pytest.mark.parametrize(("asked", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_a_grant_is_refused(factory: Factory, run: Run, asked: dict[str, Any], said: str) -> None:
    asked = {"pool": "guests", "hours": "5", "more": (), **asked}
    result = grant(run, asked.pop("pool"), asked.pop("hours"), *asked.pop("more"), code=1, **asked)
    assert said in result.stderr
    assert result.stdout == ""
    with factory.store.reading() as txn:
        assert (txn.grants(), txn.entries()) == ([], [])


@pytest.mark.parametrize(
    ("more", "budget", "person"),
    [
        pytest.param(("--period", "month"), "month", "", id="the month's"),
        pytest.param(("--period", "week"), "week", "", id="the week's"),
        pytest.param(("--period", "week", "--person", "student"), "week:person", "student", id="a person's"),
        pytest.param(("--person", "student"), "week:person", "student", id="the only one of each person"),
    ],
)
def test_where_several_budgets_stand_one_is_named(
    factory: Factory, run: Run, more: tuple[str, ...], budget: str, person: str
) -> None:
    said = grant(run, "univ", "12.5", *more).output
    assert f"Granted 12.5 GPU-h to {'student in ' if person else ''}univ, budget {budget}, until" in said
    with factory.store.reading() as txn:
        (made,) = txn.grants()
    assert (made.budget, made.person, made.units) == (budget, person, 45_000 * 10**6)


# -- the rest -----------------------------------------------------------------------------------------------------------------------------------


def test_a_reader_that_has_read_enough_ends_the_command_quietly(example: Files) -> None:
    """As in `hub-ext check | head -0`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hub_ext", "check"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **example.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 1


def test_the_help_names_every_command(run: Run) -> None:
    said = run("--help").output
    for name in (
        "up",
        "clock",
        "check",
        "pools",
        "leases",
        "release",
        "stop-servers",
        "usage",
        "requests",
        "simulate",
        "grant",
        "db",
    ):
        assert f"\n  {name} " in said


def test_an_unknown_command_is_not_understood(run: Run) -> None:
    assert "No such command" in run("relase", code=2).stderr


def test_the_state_folder_is_where_the_environment_says(
    files: Files, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUB_STATE", str(tmp_path / "another"))
    run("db", "upgrade")
    assert (tmp_path / "another/ledger.sqlite").exists()
    assert not (tmp_path / "state").exists()
