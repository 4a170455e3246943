from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub_ext.auth.claims import Entry, Identity
from hub_ext.auth.document import load_identity, parse_identity
from hub_ext.auth.policy import administrators, is_administrator, names, person_of
from hub_ext.auth.roles import ROLES
from hub_ext.core.errors import FaultyDocument
from hub_ext.core.people import Person
from tests.auth.written import dump_identity

POOLS = ("univ", "lab", "city")
TEXT = """\
people:
  kim.minji:
    title: {en: Minji, ko: 민지}
    pools: [univ, lab]
    roles: [researcher, instructor]
  op:
    pools: [city]
    roles: [operator]
"""
IDENTITY = Identity(
    {
        "kim.minji": Entry(
            "kim.minji",
            ("univ", "lab"),
            frozenset({"researcher", "instructor"}),
            {"en": "Minji", "ko": "민지"},
        ),
        "op": Entry("op", ("city",), frozenset({"operator"})),
    }
)


def test_a_document_becomes_people() -> None:
    assert parse_identity(TEXT, POOLS) == IDENTITY


def test_a_person_has_exactly_the_pools_and_roles_of_the_document() -> None:
    want = Person("kim.minji", ("univ", "lab"), frozenset({"researcher", "instructor"}))
    assert person_of(IDENTITY, "kim.minji") == want
    assert not want.any_pool


@pytest.mark.parametrize("name", ["", "kim", "Kim.Minji", "kim.minji ", "kim.minji\n"])
def test_nobody_else_is_known(name: str) -> None:
    assert person_of(IDENTITY, name) is None


def test_operators_administer_the_hub_and_nobody_else() -> None:
    assert names(IDENTITY) == {"kim.minji", "op"}
    assert administrators(IDENTITY) == {"op"}
    assert not is_administrator(Person("x", roles=frozenset(set(ROLES) - {"operator"})))


def test_every_role_says_what_it_means() -> None:
    assert list(ROLES) == ["student", "researcher", "instructor", "lead", "operator"]
    assert all(ROLES.values())


@pytest.mark.parametrize(
    ("text", "want_line", "want_what", "want_instead"),
    [
        pytest.param("", 1, "the file is empty", "Write people:", id="an empty file"),
        pytest.param("people: {}\n", 1, "people: nobody could sign in", "Name at least one person under people, or write rules.", id="no people"),
        pytest.param("version: 1\n", 1, "nobody could sign in", "Name at least one person under people, or write rules.", id="people missing"),
        pytest.param("rules: []\n", 1, "rules: nobody could sign in", "Name at least one person under people, or write rules.", id="no rules"),
        pytest.param("version: 2\n" + TEXT, 1, "version: input should be 1", "Found 2.", id="another version"),
        pytest.param(TEXT.replace("[univ, lab]", "[univ, mars]"), 4, "people.kim.minji.pools: there is no pool 'mars'", "Use one of: city, lab, univ.", id="an unknown pool"),
        pytest.param(TEXT.replace("[univ, lab]", "[lab, lab]"), 4, "people.kim.minji.pools: 'lab' stands here twice", "Keep one", id="a pool twice"),
        pytest.param(TEXT.replace("[univ, lab]", "[]"), 4, "people.kim.minji.pools: the list is empty", "Name at least one pool.", id="a person without a pool"),
        pytest.param(TEXT.replace("    pools: [univ, lab]\n", ""), 2, "people.kim.minji.pools is missing", "Add 'pools'.", id="pools missing"),
        pytest.param(TEXT.replace("[univ, lab]", "univ"), 4, "people.kim.minji.pools: input should be a valid list", "Found 'univ'.", id="a pool that is no list"),
        pytest.param(TEXT.replace("[operator]", "[root]"), 8, "people.op.roles: there is no role 'root'", "Use one of: instructor, lead, operator, researcher, student.", id="an unknown role"),
        pytest.param(TEXT.replace("[operator]", "[]"), 8, "people.op.roles: the list is empty", "Name at least one role.", id="a person without a role"),
        pytest.param(TEXT.replace("    roles: [operator]\n", ""), 6, "people.op.roles is missing", "Add 'roles'.", id="roles missing"),
        pytest.param(TEXT.replace("  op:", "  Op:"), 6, "people.Op: 'Op' is no user name", "Use at most 63 small letters", id="a capital letter"),
        pytest.param(TEXT.replace("  op:", "  o/p:"), 6, "'o/p' is no user name", "Use at most", id="a slash"),
        pytest.param(TEXT.replace("  op:", "  ..:"), 6, "'..' is no user name", "Use at most", id="a path upwards"),
        pytest.param(TEXT.replace("  op:", "  .op:"), 6, "'.op' is no user name", "Use at most", id="a dot before it"),
        pytest.param(TEXT.replace("  op:", "  민지:"), 6, "is no user name", "Use at most", id="Korean letters"),
        pytest.param(TEXT.replace("  op:", f"  {'a' * 64}:"), 6, "is no user name", "Use at most", id="a name too long"),
        pytest.param(TEXT.replace("  op:", '  "op\\n":'), 6, "is no user name", "Use at most", id="a line break after it"),
        pytest.param(TEXT.replace("  op:", "  kim.minji:"), 6, "'kim.minji' stands here twice", "Keep one", id="a person twice"),
        pytest.param(TEXT.replace("  op:", "  yes:"), 6, "True cannot be a name", "Quote it", id="a name that YAML reads as true"),
        pytest.param(TEXT.replace("    pools: [city]", "    pool: [city]"), 7, "people.op.pool is not a known setting", "Did you mean 'pools'?", id="a misspelt setting"),
        pytest.param(TEXT.replace("en: Minji", "en: ' '"), 3, "people.kim.minji.title.en: the text is empty", "Write one line", id="an empty title"),
        pytest.param("people: [kim]\n", 1, "people: input should be a valid dictionary", "Found ['kim'].", id="people in a list"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_line_and_what_to_write_instead(
    text: str, want_line: int, want_what: str, want_instead: str
) -> None:
    with pytest.raises(FaultyDocument) as caught:
        parse_identity(text, POOLS, "identity.yaml")
    found = [fault for fault in caught.value.faults if want_what in fault.what]
    assert len(found) == 1, caught.value
    assert (found[0].file, found[0].line) == ("identity.yaml", want_line)
    assert want_instead in found[0].instead


def test_every_fault_is_named_at_once() -> None:
    text = TEXT.replace("[univ, lab]", "[mars, moon]").replace("[operator]", "[root]")
    with pytest.raises(FaultyDocument) as caught:
        parse_identity(text, POOLS)
    assert [fault.line for fault in caught.value.faults] == [4, 4, 8]


def test_without_the_policy_at_hand_any_pool_is_accepted() -> None:
    assert parse_identity(TEXT.replace("univ", "mars"), None).people["kim.minji"].pools == ("mars", "lab")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FaultyDocument, match="the file cannot be read"):
        load_identity(tmp_path / "identity.yaml", POOLS)


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?", fullmatch=True)
LISTS = st.lists(st.sampled_from(POOLS), min_size=1, unique=True).map(tuple)
SOME_ROLES = st.sets(st.sampled_from(sorted(ROLES)), min_size=1).map(frozenset)
TITLES = st.dictionaries(
    st.sampled_from(["en", "ko"]), st.from_regex(r"[A-Za-z가-힣][A-Za-z가-힣 ]{0,20}[a-z]", fullmatch=True)
)


@given(st.dictionaries(NAMES, st.tuples(LISTS, SOME_ROLES, TITLES), min_size=1, max_size=5))
def test_a_document_written_and_read_back_is_the_same(
    people: dict[str, tuple[tuple[str, ...], frozenset[str], dict[str, str]]],
) -> None:
    identity = Identity(
        {name: Entry(name, pools, roles, title) for name, (pools, roles, title) in people.items()}
    )
    text = yaml.safe_dump(dump_identity(identity), allow_unicode=True, sort_keys=False)
    assert parse_identity(text, POOLS) == identity


PIECES = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "\n",
        "  ",
        "&a",
        "*a",
        "!!int ",
        "? ",
        "<<: ",
        "|",
        "'",
        "#",
        "%",
        "---\n",
    ]
) | st.text(max_size=4)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_an_identity_or_faults(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(["", TEXT]))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        text = (
            text[:start]
            + "".join(data.draw(st.lists(PIECES, max_size=4)))
            + text[data.draw(st.integers(start, len(text))) :]
        )
    try:
        identity = parse_identity(text, POOLS)
    except FaultyDocument:
        return
    assert all(person_of(identity, name) for name in identity.people)
    assert all(
        set(entry.pools) <= set(POOLS) and entry.roles <= set(ROLES) for entry in identity.people.values()
    )
