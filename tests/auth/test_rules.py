"""Rules: what a provider claims, turned into a person or a refusal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.auth.claims import DEEPEST, MOST_VALUES, Identity, read_claims
from hub_ext.auth.document import load_identity, parse_identity
from hub_ext.auth.explain import explain
from hub_ext.auth.policy import Known, NotKnown, decide, is_administrator
from hub_ext.auth.roles import ROLES
from hub_ext.core.errors import Fault, FaultyDocument
from hub_ext.language import translator
from hub_ext.quota.document import load_policy
from tests.auth.written import dump_identity

ROOT = Path(__file__).resolve().parents[2]
POOLS = ("univ", "course", "lab", "city")
TEXT = """\
ask: {en: the desk, ko: 창구}
issuers: [https://id.example]
user_name: {claim: email, matches: "{name}@*"}
tables:
  domains:
    univ.example: univ
    city.example: city
  courses:
    AI101: course
    LAB: [lab, course]
  duties: {teacher: [instructor, researcher]}
people:
  op: {subject: s-op, pools: [city], roles: [operator]}
  demo: {pools: [univ], roles: [student]}
rules:
  - name: suspended
    when: [{claim: status, equals: suspended}]
    refuses: {en: You are suspended., ko: 정지되었습니다.}
  - name: domain
    when:
      - {claim: email_verified, equals: true}
      - {claim: email, matches: "*@{domain}"}
    gives: {pools: [{table: domains, of: "{domain}"}], roles: [student]}
  - name: courses
    when: [{claim: [https://x/courses], present: true}]
    gives: {pools: [{table: courses, of: [https://x/courses]}]}
  - name: duties
    when: [{claim: realm.roles, in: [teacher, lead]}]
    gives: {roles: [{table: duties, of: realm.roles}]}
"""
IDENTITY = parse_identity(TEXT, POOLS)
MINJI: dict[str, Any] = {
    "iss": "https://id.example",
    "sub": "s-1",
    "email": "Kim.Minji@univ.example",
    "email_verified": True,
    "name": "김민지",
}


def outcome(claims: object, identity: Identity = IDENTITY, known_as: str | None = None) -> tuple[Any, ...]:
    """(name, pools, roles), or the code of the refusal."""
    found = decide(identity, claims, known_as)
    if isinstance(found, NotKnown):
        return (found.code,)
    return (found.person.name, found.person.pools, sorted(found.person.roles))


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        pytest.param({}, ("kim.minji", ("univ",), ["student"]), id="one rule holds"),
        pytest.param({"https://x/courses": ["LAB", "AI101"]}, ("kim.minji", ("univ", "course", "lab"), ["student"]), id="what rules give adds up, in the order of the document"),
        pytest.param({"https://x/courses": "AI101"}, ("kim.minji", ("univ", "course"), ["student"]), id="one value counts as a list of one"),
        pytest.param({"https://x/courses": ["nonsense", None, {}, 7, "AI101"]}, ("kim.minji", ("univ", "course"), ["student"]), id="what no table has gives nothing"),
        pytest.param({"realm": {"roles": ["teacher", "other"]}}, ("kim.minji", ("univ",), ["instructor", "researcher", "student"]), id="roles by a table"),
        pytest.param({"realm": {"roles": ["lead"]}}, ("kim.minji", ("univ",), ["student"]), id="a rule that holds and gives nothing"),
        pytest.param({"realm": ["roles"]}, ("kim.minji", ("univ",), ["student"]), id="a list where an object was expected"),
        pytest.param({"status": "suspended"}, ("sign-in-refused",), id="a rule refuses"),
        pytest.param({"status": ["suspended", "x"]}, ("kim.minji", ("univ",), ["student"]), id="equals means this one value"),
        pytest.param({"email_verified": "true"}, ("sign-in-no-pool",), id="a text is not true"),
        pytest.param({"email_verified": 1}, ("sign-in-no-pool",), id="1 is not true"),
        pytest.param({"email": "kim@univ.example.evil"}, ("sign-in-no-pool",), id="a domain of somebody else"),
        pytest.param({"email": "kim@city"}, ("sign-in-no-pool",), id="a pool's own name gives nothing"),
        pytest.param({"email": ["kim@univ.example"]}, ("kim", ("univ",), ["student"]), id="a list of one names a person"),
        pytest.param({"email": ["kim@univ.example", "lee@city.example"]}, ("sign-in-no-user-name",), id="two names name nobody"),
        pytest.param({"email": None}, ("sign-in-no-user-name",), id="no name"),
        pytest.param({"email": "../op@univ.example"}, ("sign-in-no-user-name",), id="a path for a name"),
        pytest.param({"email": "민지@univ.example"}, ("sign-in-no-user-name",), id="Korean letters"),
        pytest.param({"email": "\u212aim@univ.example"}, ("sign-in-no-user-name",), id="a letter that becomes another one when made small"),
        pytest.param({"email": "op@univ.example"}, ("sign-in-name-taken",), id="the name of somebody named by hand"),
        pytest.param({"email": "demo@univ.example"}, ("sign-in-name-taken",), id="the name of a demo person"),
        pytest.param({"sub": "s-op"}, ("op", ("city",), ["operator"]), id="somebody named by hand, by their subject"),
        pytest.param({"sub": "s-op", "email": None}, ("op", ("city",), ["operator"]), id="by their subject whatever else is claimed"),
        pytest.param({"iss": "https://other.example"}, ("sign-in-other-issuer",), id="another issuer"),
        pytest.param({"iss": "https://other.example", "sub": "s-op"}, ("sign-in-other-issuer",), id="another issuer with a known subject"),
        pytest.param({"iss": None}, ("sign-in-claims-unusable",), id="no issuer"),
        pytest.param({"sub": ""}, ("sign-in-claims-unusable",), id="an empty subject"),
        pytest.param({"sub": 5}, ("sign-in-claims-unusable",), id="a subject that is no text"),
        pytest.param({"sub": "x" * 256}, ("sign-in-claims-unusable",), id="a very long subject"),
        pytest.param({"groups": ["g"] * MOST_VALUES}, ("sign-in-claims-unusable",), id="endless lists"),
    ],
)  # fmt: skip
def test_who_somebody_is(changes: dict[str, Any], want: tuple[Any, ...]) -> None:
    assert outcome(MINJI | changes) == want


def test_a_name_stays_theirs_whatever_the_provider_calls_them_later() -> None:
    assert outcome(MINJI | {"email": "lee.minji@univ.example"}, known_as="kim.minji") == outcome(MINJI)
    assert outcome(MINJI | {"sub": "s-op"}, known_as="kim.minji")[:2] == ("kim.minji", ("city",))
    assert outcome(MINJI, known_as="op") == ("sign-in-name-taken",), "named by hand since"


def test_how_each_rule_went_is_told() -> None:
    found = decide(IDENTITY, MINJI | {"https://x/courses": ["AI101", "GONE"], "email_verified": False})
    assert isinstance(found, NotKnown)
    assert found.code == "sign-in-no-role"
    assert [(one.rule, one.holds) for one in found.tried] == [
        ("suspended", False), ("domain", False), ("courses", True), ("duties", False)
    ]  # fmt: skip
    assert found.tried[1].failed == IDENTITY.rules[1].when[0]
    assert found.tried[2].without_entry == ("GONE",)


def test_the_title_is_the_name_that_is_claimed_or_the_documents() -> None:
    assert isinstance(found := decide(IDENTITY, MINJI), Known)
    assert found.title == {"en": "김민지"}
    for name in ("x" * 81, "a\nb", "", 5, None):
        assert isinstance(found := decide(IDENTITY, MINJI | {"name": name}), Known)
        assert found.title == {}


def test_only_what_the_document_asks_for_is_told_and_shortly() -> None:
    claims = MINJI | {
        "email_verified": False,
        "secret": "42",
        "status": "y" * 1000,
        "realm": {"roles": list("abcdefg")},
    }
    found = decide(IDENTITY, claims)
    assert isinstance(found, NotKnown)
    for language in ("en", "ko"):
        told = explain(found, IDENTITY, translator(language))
        assert "42" not in told
        assert "Kim.Minji@univ.example" in told
        assert "a, b, c, d, e, …" in told
        assert len(told) < 600
    assert "the desk" in explain(found, IDENTITY, translator("en"))
    assert "창구" in explain(found, IDENTITY, translator("ko"))
    assert "operators" in explain(found, replace(IDENTITY, ask={}), translator("en"))


def test_a_rule_that_refuses_has_the_last_word_and_its_own_words() -> None:
    found = decide(IDENTITY, MINJI | {"status": "suspended"})
    assert isinstance(found, NotKnown)
    assert explain(found, IDENTITY, translator("en")).startswith("You are suspended. ")
    assert explain(found, IDENTITY, translator("ko")).startswith("정지되었습니다. ")


# -- hostile claims ------------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["teacher", "suspended", "AI101", "kim@univ.example", "op@city.example", "roles"]),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=6), below, max_size=4),
    max_leaves=12,
)  # fmt: skip
CLAIMS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("iss", "sub", "email", "email_verified", "status", "https://x/courses", "realm", "name"), JSON
    ),
)


@given(JSON | CLAIMS | CLAIMS.map(lambda claims: MINJI | claims))
def test_whatever_is_claimed_somebody_is_known_or_refused_with_a_sentence(claims: object) -> None:
    found = decide(IDENTITY, claims)
    if isinstance(found, Known):
        assert found.person.pools
        assert set(found.person.pools) <= set(POOLS)
        assert found.person.roles
        assert found.person.roles <= set(ROLES)
        assert not is_administrator(found.person) or found.subject == "s-op"
        assert decide(IDENTITY, json.loads(json.dumps(claims))) == found, (
            "the same after a way over the network"
        )
    else:
        for language in ("en", "ko"):
            assert explain(found, IDENTITY, translator(language)).isprintable()


@given(st.permutations(["LAB", "AI101", "x", "y"]))
def test_the_order_in_which_a_provider_lists_things_decides_nothing(courses: list[str]) -> None:
    assert outcome(MINJI | {"https://x/courses": courses})[1] == ("univ", "course", "lab")


@pytest.mark.parametrize("depth", [DEEPEST + 1, 100_000])
def test_deep_nesting_is_refused_and_costs_no_stack(depth: int) -> None:
    deep: Any = "x"
    for _ in range(depth):
        deep = [deep]
    assert outcome(MINJI | {"realm": deep}) == ("sign-in-claims-unusable",)
    while isinstance(deep, list):  # taken apart by hand: the interpreter's own way down is deep as well
        deep = deep[0]


def test_numbers_too_long_to_write_are_no_trouble() -> None:
    claims = MINJI | {"email_verified": 10**5000, "https://x/courses": [10**5000, float("nan"), float("inf")]}
    found = decide(IDENTITY, claims)
    assert isinstance(found, NotKnown)
    assert "(a number)" in explain(found, IDENTITY, translator("en"))


def test_values_of_a_claim() -> None:
    claims = read_claims(MINJI | {"a": {"b": [1, "x", "", " ", None, {}, [], True]}, "e": {}})
    assert claims.values(("a", "b")) == (1, "x", True)
    assert claims.values(("a",)) == claims.values(("e",)) == claims.values(("a", "b", "c")) == ()


# -- the document ------------------------------------------------------------------------------------------------------------


def test_a_document_with_rules_written_and_read_back_is_the_same() -> None:
    text = yaml.safe_dump(dump_identity(IDENTITY), allow_unicode=True, sort_keys=False)
    assert parse_identity(text, POOLS) == IDENTITY


def lines(text: str) -> dict[str, int]:
    return {line.strip(): number for number, line in enumerate(text.splitlines(), 1)}


FAULTS = [
    pytest.param("univ.example: univ", "univ.example: mars", "tables.domains.univ.example: there is no pool 'mars'", "Use one of: city, course, lab, univ.", id="a table with an unknown pool"),
    pytest.param("duties: {teacher: [instructor, researcher]}", "duties: {teacher: root}", "there is no role 'root'", "Use one of: instructor", id="a table with an unknown role"),
    pytest.param("roles: [student]}\n  - name: courses", "roles: [root]}\n  - name: courses", "rules.1.gives.roles.0: there is no role 'root'", "Use one of", id="an unknown role"),
    pytest.param("when: [{claim: status, equals: suspended}]", "when: []", "rules.0.when: the list is empty", "{claim: sub, present: true} holds for everybody", id="no condition"),
    pytest.param("equals: suspended", "equals: ''", "is no value of a claim", "Write a text (in quotes)", id="an empty value"),
    pytest.param("equals: suspended", "equals: {a: b}", "is no value of a claim", "Write a text", id="a value that is an object"),
    pytest.param(", equals: suspended", "", "rules.0.when.0: there is no test", "one of equals, contains, in, matches, present", id="no test"),
    pytest.param("equals: suspended", "equals: suspended, present: true", "there are several tests: equals, present", "write several conditions", id="two tests"),
    pytest.param("equals: suspended", "like: suspended", "rules.0.when.0.like is not a known setting", "Known here", id="an unknown test"),
    pytest.param("claim: status", "claim: a..b", "'a..b' names no claim", "Write realm_access.roles", id="a claim with an empty step"),
    pytest.param("claim: status", "claim: []", "[] names no claim", "Write realm_access.roles", id="an empty list for a claim"),
    pytest.param('matches: "*@{domain}"', 'matches: "**"', "two wild cards touch", "Put a character between them", id="a bad pattern"),
    pytest.param('matches: "*@{domain}"', "matches: 5", "5 is no pattern", "Write for example", id="a pattern that is no text"),
    pytest.param('matches: "{name}@*"', 'matches: "*@*"', "user_name.matches: the pattern keeps not exactly one word", "Keep the part", id="a user name that keeps nothing"),
    pytest.param('of: "{domain}"', 'of: "{host}"', "no condition of this rule keeps {host}", "Kept are: {domain}.", id="a word that nothing keeps"),
    pytest.param("{table: domains, of", "{table: domain, of", "there is no table 'domain'", "Use one of: domains, courses, duties.", id="an unknown table"),
    pytest.param("{table: domains, of", "{tabel: domains, of", "tabel is not a known setting", "Did you mean 'table'?", id="a misspelt setting of a lookup"),
    pytest.param("{table: duties, of: realm.roles}", "{table: courses, of: realm.roles}", "the table 'courses' is used for pools and for roles", "Write two tables.", id="a table for two things"),
    pytest.param("roles: [{table: duties, of: realm.roles}]", "roles: [lead]", "tables.duties: no rule uses the table 'duties'", "Use it, or remove it.", id="a table that nothing uses"),
    pytest.param("gives: {roles: [{table: duties, of: realm.roles}]}", "gives: {}", "rules.3.gives: nothing is given", "Name pools, roles or both.", id="a rule that gives nothing"),
    pytest.param("refuses: {en: You are suspended., ko: 정지되었습니다.}", "gives: {roles: [lead]}\n    refuses: {en: No.}", "rules.0: a rule gives something or refuses", "Write one of them", id="gives and refuses"),
    pytest.param("    refuses: {en: You are suspended., ko: 정지되었습니다.}\n", "", "rules.0: a rule gives something or refuses", "Write one of them", id="neither gives nor refuses"),
    pytest.param("- name: courses", "- name: domain", "rules.2.name: there is another rule 'domain'", "Give each rule its own name.", id="two rules of one name"),
    pytest.param("demo: {pools", "demo: {subject: s-op, pools", "people.demo.subject: is the subject of 'op' already", "Give each person one entry.", id="a subject twice"),
    pytest.param("issuers: [https://id.example]", "issuer: https://id.example", "issuer is not a known setting", "Did you mean 'issuers'?", id="a misspelt setting"),
    pytest.param("LAB: [lab, course]", "LAB: []", "[] is no name", "Write one name or a list of them.", id="an entry that stands for nothing"),
    pytest.param("pools: [{table: courses, of: [https://x/courses]}]", "pools: [5]", "5 gives nothing", "Write a name, or {table: …, of: …}.", id="a number for a pool"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "want_what", "want_instead"), FAULTS)
def test_a_fault_is_named_with_its_line_and_what_to_write_instead(
    old: str, new: str, want_what: str, want_instead: str
) -> None:
    assert TEXT.count(old) == 1
    text = TEXT.replace(old, new)
    with pytest.raises(FaultyDocument) as caught:
        parse_identity(text, POOLS, "identity.yaml")
    found = [fault for fault in caught.value.faults if want_what in fault.what]
    assert len(found) == 1, caught.value
    assert want_instead in found[0].instead
    changed = TEXT[: TEXT.index(old)].count("\n") + 1
    assert found[0].file == "identity.yaml"
    if "no rule uses" not in want_what:
        assert abs(found[0].line - changed) <= 2, (found[0].line, changed)


@given(st.data())
def test_any_document_of_this_shape_is_an_identity_or_faults(data: st.DataObject) -> None:
    text = TEXT
    for _ in range(data.draw(st.integers(1, 3))):
        rows = text.splitlines()
        row = data.draw(st.integers(0, len(rows) - 1))
        change = data.draw(st.sampled_from(["drop", "twice", "indent", "empty", "list"]))
        line = rows[row]
        key = line.partition(":")[0]
        rows[row : row + 1] = {
            "drop": [], "twice": [line, line], "indent": ["  " + line], "empty": [key + ":"], "list": [key + ": [1]"]
        }[change]  # fmt: skip
        text = "\n".join(rows) + "\n"
    faults: list[Fault] = []
    try:
        decide(parse_identity(text, POOLS), MINJI)
    except FaultyDocument as error:
        faults = error.faults
    assert all(0 < fault.line <= text.count("\n") + 1 for fault in faults)


# -- the example that comes with the project --------------------------------------------------------------------------------------


def test_the_example_for_a_provider_has_no_fault_and_gives_what_it_says() -> None:
    pools = load_policy(ROOT / "policy" / "pools.yaml").pools
    identity = load_identity(ROOT / "policy" / "identity-oidc.yaml", set(pools))
    student = {
        "iss": "https://id.example", "sub": "1", "preferred_username": "haneul", "email": "haneul@univ.hangang.example",
        "email_verified": True, "affiliation": "student", "courses": ["AI101"],
    }  # fmt: skip
    assert outcome(student, identity) == ("haneul", ("hangang-univ", "hangang-ai-course"), ["student"])
    operator = student | {"realm_access": {"roles": ["operator"]}}
    assert outcome(operator, identity)[2] == ["operator", "student"]
    assert outcome(student | {"email_verified": False, "courses": []}, identity) == ("sign-in-no-pool",)
