"""`hub-ext whois`: who somebody would be, and by which rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hub_ext.cli import main
from tests.cli.conftest import POLICY, Run
from tests.support.state import Files, new_files

IDENTITY = """
ask: {en: the desk}
tables: {domains: {univ.example: univ}}
people:
  op: {subject: s-op, pools: [univ], roles: [operator]}
rules:
  - name: domain
    when: [{claim: email, matches: "*@{domain}"}]
    gives: {pools: [{table: domains, of: "{domain}"}], roles: [student]}
  - name: teachers
    when: [{claim: groups, contains: teachers}]
    gives: {roles: [instructor]}
"""
MINJI: dict[str, Any] = {
    "iss": "https://id.example",
    "sub": "1",
    "preferred_username": "Minji",
    "email": "minji@univ.example",
}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return new_files(tmp_path, POLICY, identity=IDENTITY)


@pytest.fixture
def claims(tmp_path: Path, files: Files) -> Path:
    path = tmp_path / "claims.json"
    path.write_text(json.dumps(MINJI))
    return path


def test_claims_become_a_person_and_the_rules_are_told(run: Run, claims: Path) -> None:
    told = " ".join(run("whois", str(claims)).stdout.split())
    assert "name minji" in told
    assert "pools univ" in told
    assert "roles student" in told
    assert "administers no" in told
    assert "rule 'domain' holds: pool univ, role student" in told
    assert "rule 'teachers' does not hold: groups contains teachers" in told


def test_as_json(run: Run, claims: Path) -> None:
    found = json.loads(run("whois", str(claims), "--json").stdout)
    assert {key: found[key] for key in ("known", "name", "pools", "roles", "admin", "subject")} == {
        "known": True,
        "name": "minji",
        "pools": ["univ"],
        "roles": ["student"],
        "admin": False,
        "subject": "1",
    }
    assert [(one["rule"], one["holds"]) for one in found["rules"]] == [("domain", True), ("teachers", False)]


def test_who_is_not_let_in_is_told_why_and_the_command_fails(run: Run, claims: Path) -> None:
    claims.write_text(json.dumps(MINJI | {"email": "minji@elsewhere.example"}))
    done = run("whois", str(claims), code=1)
    told = " ".join(done.stdout.split())
    assert "not let in sign-in-no-pool" in told
    assert "rule 'domain' holds: role student; no entry for elsewhere.example" in told
    assert "email=minji@elsewhere.example" in done.stderr
    assert "Ask: the desk" in done.stderr
    found = json.loads(run("whois", str(claims), "--json", code=1).stdout)
    assert (found["known"], found["code"]) == (False, "sign-in-no-pool")


def test_somebody_named_by_hand_by_name_and_by_subject(run: Run, claims: Path) -> None:
    assert json.loads(run("whois", "op", "--json").stdout)["admin"] is True
    claims.write_text(json.dumps(MINJI | {"sub": "s-op"}))
    found = json.loads(run("whois", str(claims), "--json").stdout)
    assert (found["name"], found["people"]) == ("op", "op")
    assert "neither a file of claims nor a name" in run("whois", "nobody", code=1).stderr


@pytest.mark.parametrize(
    ("raw", "want"),
    [
        (b"{", "is no JSON"),
        (b"", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "is no JSON"),
    ],
    ids=["half", "empty", "no UTF-8", "very deep", "a very long number"],
)
def test_what_is_no_json_cannot_be_understood(run: Run, claims: Path, raw: bytes, want: str) -> None:
    claims.write_bytes(raw)
    assert want in run("whois", str(claims), code=2).stderr


def test_a_file_that_is_not_there_cannot_be_understood(run: Run, files: Files) -> None:
    assert "gone.json cannot be read" in run("whois", "gone.json", code=2).stderr


@pytest.mark.parametrize("raw", [b"[]", b"null", b"5", b"{}", b'{"iss": {}}'])
def test_json_that_is_no_claims_is_refused_with_a_sentence(run: Run, claims: Path, raw: bytes) -> None:
    claims.write_bytes(raw)
    assert "sign-in-claims-unusable" in run("whois", str(claims), code=1).stdout


def test_from_standard_input(files: Files) -> None:
    done = CliRunner().invoke(
        main,
        ["whois", "-", "--json"],
        input=json.dumps(MINJI),
        env={"HUB_SETTINGS": str(files.settings_file)},
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["name"] == "minji"


def test_check_counts_the_rules(run: Run, files: Files) -> None:
    assert "1 people, 2 rules." in run("check").stdout
