"""The example centre (`policy/`, `spawner_profiles/`) holds together and shows what there is to see."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from hub_ext.auth.document import load_identity
from hub_ext.auth.policy import person_of
from hub_ext.auth.roles import ROLES
from hub_ext.core.amounts import parse_amount
from hub_ext.core.clock import instant_of
from hub_ext.core.decision import Admit, Refuse, Wait
from hub_ext.core.people import Person
from hub_ext.profiles.catalogue import Catalogue
from hub_ext.profiles.footprint import footprint
from hub_ext.profiles.loader import Known, load_profiles
from hub_ext.profiles.model import Selection
from hub_ext.profiles.policy import pools_for, visible
from hub_ext.quota.document import load_policy
from hub_ext.quota.model import Ask, Node, Term
from hub_ext.quota.policy import Snapshot, decide
from hub_ext.quota.sums import Sums
from hub_ext.quota.tree import Tree
from tests.profiles.examples import ROOT

POLICY = load_policy(ROOT / "policy" / "pools.yaml")
IDENTITY = load_identity(ROOT / "policy" / "identity.yaml", POLICY.pools)
CATALOGUE = Catalogue.of(
    load_profiles(ROOT / "spawner_profiles", Known(POLICY.gpu_classes, ROLES, POLICY.pools))
)
NODE = Node("demo", {"gpu.h200": 8000, "gpu.h200-1g": 14000, "cpu": 128000, "memory": 2 * 1024 * 1024})
TODAY = instant_of(datetime(2026, 11, 23, 10, 0, tzinfo=ZoneInfo("Asia/Seoul")))


def someone(name: str) -> Person:
    person = person_of(IDENTITY, name)
    assert person is not None
    return person


def card(name: str, pool: str, slug: str, choices: dict[str, str] | None = None) -> str:
    """What the card says in an empty centre."""
    profile, person = CATALOGUE.get(slug), someone(name)
    assert profile is not None
    ask = Ask("a", name, pool, footprint(profile, Selection(slug, choices or {})).amounts, profile=slug)
    match decide(Snapshot(Tree(POLICY), Sums(), [NODE], people={name: person}), ask, TODAY):
        case Admit(guaranteed=guaranteed):
            return "now" if guaranteed else "now, borrowed"
        case Wait(code=code):
            return f"wait: {code}"
        case Refuse(code=code):
            return f"not possible: {code}"


@pytest.mark.parametrize(
    ("name", "pool", "want"),
    [
        pytest.param(
            "student",
            "hangang-univ",
            {
                "h200-slice": "now",
                "h200": "now, borrowed",
                "h200-4": "not possible: too-big-for-person",
                "cpu-small": "now",
                "cpu-large": "now",
                "teaching": "now",
            },
            id="a student sees all three kinds of card",
        ),
        pytest.param(
            "researcher",
            "hangang-vision",
            {
                "h200-slice": "now",
                "h200": "now",
                "h200-4": "now, borrowed",
                "cpu-small": "now",
                "cpu-large": "now",
            },
            id="in the lab's pool a whole GPU is the researcher's own",
        ),
        pytest.param(
            "researcher", "hangang-univ", {"h200": "now, borrowed"}, id="in the university's it is borrowed"
        ),
        pytest.param(
            "lead",
            "city-traffic",
            {"h200": "now", "h200-4": "now, borrowed"},
            id="the traffic office has its own GPU",
        ),
        pytest.param(
            "operator",
            "naru-robotics",
            {"h200": "now", "h200-4": "not possible: too-big-for-person"},
            id="a startup",
        ),
    ],
)
def test_what_the_cards_say_in_an_empty_centre(name: str, pool: str, want: dict[str, str]) -> None:
    assert {slug: card(name, pool, slug) for slug in want} == want


def test_the_bigger_choice_of_a_profile_is_decided_for_itself() -> None:
    assert card("student", "hangang-univ", "cpu-large", {"memory": "128gb"}) == "now"


def test_the_quotas_add_up_to_the_demo_machine() -> None:
    total = {
        resource: sum(POLICY.nominal(pool, resource) for pool in POLICY.pools)
        for resource in POLICY.stated("seoul")
    }
    assert total == dict(NODE.capacity)


def test_each_sector_adds_up_to_the_table_at_the_top_of_the_file() -> None:
    text = (ROOT / "policy" / "pools.yaml").read_text(encoding="utf-8")
    rows = {
        words[1]: words[2:]
        for line in text.splitlines()
        if (words := line.split())[:1] == ["#"] and len(words) == 6
    }
    for sector in POLICY.children("seoul"):
        for resource, written in zip(("gpu.h200", "gpu.h200-1g", "cpu", "memory"), rows[sector], strict=True):
            sums = sum(POLICY.nominal(pool, resource) for pool in POLICY.subtree(sector))
            assert sums == parse_amount(resource, written, rounding="down"), (sector, resource)


def test_the_demo_people_are_of_all_sectors_and_one_has_two_pools() -> None:
    people = [someone(name) for name in IDENTITY.people]
    assert {POLICY.path(pool)[-2] for person in people for pool in person.pools} == set(
        POLICY.children("seoul")
    )
    assert any(len(person.pools) > 1 for person in people)
    assert {role for person in people for role in person.roles} == set(ROLES)


def test_today_lies_inside_the_challenges_term() -> None:
    term = POLICY.pools["ai-50-challenge"].budgets[0].period
    assert isinstance(term, Term)
    assert term.first < POLICY.local(TODAY).date() < term.last


def test_everybody_sees_the_sizes_and_only_who_is_in_a_course_the_teaching_card() -> None:
    for name in IDENTITY.people:
        person = someone(name)
        seen = {profile.slug for profile in CATALOGUE if visible(profile, person, POLICY.path)}
        assert seen >= {"cpu-small", "cpu-large", "h200-slice", "h200", "h200-4"}
        assert ("teaching" in seen) is ("hangang-ai-course" in person.pools)
        for profile in CATALOGUE.only(seen):
            wanted = ("hangang-ai-course",) if profile.slug == "teaching" else person.pools
            assert pools_for(profile, person, POLICY.path) == wanted


@pytest.mark.parametrize(
    ("slug", "want"),
    [
        ("cpu-small", {"cpu": "2", "memory": "8Gi"}),
        ("cpu-large", {"cpu": "16", "memory": "64Gi"}),
        ("h200-slice", {"gpu.h200-1g": "1", "cpu": "8", "memory": "64Gi"}),
        ("teaching", {"gpu.h200-1g": "1", "cpu": "8", "memory": "64Gi"}),
        ("h200", {"gpu.h200": "1", "cpu": "16", "memory": "192Gi"}),
        ("h200-4", {"gpu.h200": "4", "cpu": "64", "memory": "768Gi"}),
    ],
)
def test_the_sizes(slug: str, want: dict[str, str]) -> None:
    profile = CATALOGUE.get(slug)
    assert profile is not None
    assert profile.amounts == {
        resource: parse_amount(resource, text, rounding="up") for resource, text in want.items()
    }
    assert (profile.minutes, profile.default_minutes) == ((60, 120, 240, 480), 120)
    assert profile.title["ko"]
    assert profile.description["ko"]
