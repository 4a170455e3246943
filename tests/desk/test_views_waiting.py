"""The waiting room in words: tables of tickets and what is read of them, in both languages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from hub_ext.auth.roles import ROLES
from hub_ext.core.clock import HOUR, MINUTE
from hub_ext.core.decision import Admit, Code, Decision, Wait
from hub_ext.desk.views_waiting import (
    Around,
    Holder,
    around_lines,
    in_line,
    instead_of,
    over_page,
)
from hub_ext.language import Speaker, gpu_names
from hub_ext.profiles.loader import Known, load_profiles
from hub_ext.profiles.model import Profile
from hub_ext.quota.codes import Ended, TicketEnd
from hub_ext.quota.document import parse_policy
from hub_ext.quota.ledger import Entry, EntryKind
from hub_ext.quota.model import Ask, Eta, Lease, LeaseState, Outlook, Ticket
from tests.desk.in_process import POLICY as TEXT
from tests.desk.in_process import ROOT

POLICY = parse_policy(TEXT)
ZONE = ZoneInfo("Asia/Seoul")
NOW = 1_804_000_000
TITLES = {name: pool.title for name, pool in POLICY.pools.items()}
EN, KO = (Speaker(language, ZONE, gpu_names(POLICY.gpu_classes)) for language in ("en", "ko"))
ONE_GPU = {"gpu.h200": 1000, "cpu": 16000, "memory": 192 * 1024}


def clock(at: int) -> str:
    return EN.moment(at, NOW)


def ticket(amounts: dict[str, int] | None = None, pool: str = "hangang-univ", **outlook: Any) -> Ticket:
    ask = Ask("t1", "student", pool, ONE_GPU if amounts is None else amounts, profile="h200", minutes=120)
    return Ticket(ask, NOW - 10 * MINUTE, Outlook(outlook.pop("code", "pool-full"), **outlook))


def told(one: Ticket, say: Speaker = EN) -> Any:
    return in_line(one, say, titles=TITLES, now=NOW)


@pytest.mark.parametrize(
    ("one", "want_en", "want_ko"),
    [
        pytest.param(
            ticket(place=3),
            "You are number 3 in line for: 1 × H200",
            "대기 3번째: H200 1개",
            id="a place",
        ),
        pytest.param(
            ticket(place=None), "You wait for: 1 × H200", "대기 중: H200 1개", id="not looked at yet"
        ),
        pytest.param(
            ticket({"gpu.h200-1g": 1000, "cpu": 8000}, place=1),
            "You are number 1 in line for: 1/7 H200 (18 GB)",
            "대기 1번째: H200 1/7 (18 GB)",
            id="a slice",
        ),
        pytest.param(
            ticket({"cpu": 16000, "memory": 1024}, place=1),
            "You are number 1 in line for: 16 CPU · 1 GB",
            "대기 1번째: CPU 16개 · 1 GB",
            id="no GPU: all of it",
        ),
    ],
)
def test_the_heading_says_the_place_and_what_for(one: Ticket, want_en: str, want_ko: str) -> None:
    assert (told(one).heading, told(one, KO).heading) == (want_en, want_ko)


def test_a_promise_and_an_expectation_are_told_apart_and_nothing_is_guessed() -> None:
    at = NOW + HOUR
    assert told(ticket(eta=Eta(at, "latest"))).when == f"at the latest {clock(at)}"
    assert told(ticket(eta=Eta(at, "expected"))).when == f"expected {clock(at)}"
    assert told(ticket()).when == "no time is known yet"
    assert told(ticket(eta=Eta(at, "latest")), KO).when == f"늦어도 {KO.moment(at, NOW)}"


@pytest.mark.parametrize(
    ("eta", "want"),
    [
        pytest.param(None, None, id="no time is known"),
        pytest.param(NOW + 10 * MINUTE, 500, id="half of the time"),
        pytest.param(NOW, 1000, id="due"),
        pytest.param(NOW - MINUTE, 1000, id="overdue"),
        pytest.param(NOW - HOUR, None, id="before it began"),
    ],
)
def test_the_bar_is_the_share_of_the_wait_that_is_over(eta: int | None, want: int | None) -> None:
    one = ticket(eta=None if eta is None else Eta(eta, "expected"))
    assert told(one).progress == want


def test_every_code_of_a_wait_has_a_sentence_in_both_languages() -> None:
    for code in Code:
        one = ticket(code=code.value, facts={"pool": "hangang-univ", "asked": ONE_GPU})
        assert told(one).sentence, code
        assert told(one, KO).sentence != told(one).sentence, code


def test_only_what_somebody_can_do_about_it_is_proposed_to_who_is_in_line() -> None:
    at_cap = ticket(
        code="person-at-cap", facts={"pool": "seoul", "key": "servers", "cap": 3, "held": 3, "asked": 1}
    )
    assert "Stop one of your" in told(at_cap).next_step
    full = ticket(code="pool-full", facts={"pool": "hangang-univ", "resource": "gpu.h200"})
    assert told(full).next_step == "", "trying again is no advice for those who wait"


def test_how_many_make_room_is_told() -> None:
    assert told(ticket()).taken_back == ""
    assert told(ticket(reclaims=("l1",))).taken_back.startswith("1 server that borrowed")
    assert told(ticket(reclaims=("l1", "l2"))).taken_back.startswith("2 servers that borrowed")


def test_the_own_pool_is_told_by_person_and_elsewhere_only_in_sum() -> None:
    around = Around(
        "gpu.h200",
        (Holder("researcher", 1000, NOW + HOUR, True), Holder("instructor", 2000, NOW + 2 * HOUR, False)),
        own=4000,
        unnamed=1,
        elsewhere=5000,
        next_elsewhere=NOW + 3 * HOUR,
    )
    lines = around_lines(around, "hangang-univ", EN, titles=TITLES, now=NOW)
    assert lines.own_title == "Who holds it in Hangang University"
    assert lines.own == f"4 × H200 in use, the next ends {clock(NOW + HOUR)}"
    assert [(line.who, line.what, line.borrowed) for line in lines.holders] == [
        ("researcher", "1 × H200", ""),
        ("instructor", "2 × H200", "borrowed"),
    ]
    assert lines.unnamed == "and 1 more"
    assert lines.elsewhere == f"5 × H200 in use, the next ends {clock(NOW + 3 * HOUR)}"


def test_nobody_holds_it() -> None:
    lines = around_lines(Around("gpu.h200"), "hangang-univ", EN, titles=TITLES, now=NOW)
    assert (lines.own, lines.elsewhere, lines.holders, lines.unnamed) == ("none", "none", (), "")


# -- something else instead -------------------------------------------------------------------------------------------

PROFILES: tuple[Profile, ...] = load_profiles(ROOT / "spawner_profiles", Known(None, tuple(ROLES)))
NOW_GUARANTEED = Admit(True, None, NOW + 2 * HOUR, 1)
NOW_BORROWED = Admit(False, "city-traffic", NOW + 2 * HOUR, 1)
NOT_NOW = Wait(Code.POOL_FULL, {})


def decisions(**by_profile: Decision) -> dict[tuple[str, str, tuple[str, ...]], Decision]:
    """`h200__hangang_univ=…`: by profile and pool, for the default choices."""
    found = {}
    for name, decision in by_profile.items():
        slug, _, pool = (part.replace("_", "-") for part in name.partition("__"))
        profile = next(one for one in PROFILES if one.slug == slug)
        found[slug, pool or "hangang-univ", tuple(option.default.name for option in profile.options)] = (
            decision
        )
    return found


def offered(**by_profile: Decision) -> list[tuple[str, str]]:
    one = ticket(dict(next(p for p in PROFILES if p.slug == "h200").amounts))
    return [
        (instead.fields["profile"], instead.fields["pool"])
        for instead in instead_of(one, PROFILES, decisions(**by_profile), POLICY, EN)
    ]


def test_offered_are_the_same_elsewhere_the_next_smaller_gpu_and_a_server_without() -> None:
    assert offered(
        h200=NOT_NOW,
        h200__hangang_vision=NOW_BORROWED,
        h200_4=NOW_GUARANTEED,
        h200_slice=NOW_GUARANTEED,
        cpu_small=NOW_GUARANTEED,
        cpu_large=NOW_GUARANTEED,
    ) == [("h200", "hangang-vision"), ("h200-slice", "hangang-univ"), ("cpu-large", "hangang-univ")]


def test_nothing_is_offered_that_would_not_start_now() -> None:
    assert offered(h200=NOT_NOW, h200_slice=NOT_NOW, cpu_small=NOT_NOW) == []
    assert offered(h200_4=NOW_GUARANTEED) == [], "nor anything larger"


def test_borrowed_says_so_and_keeps_the_length_where_the_profile_has_it() -> None:
    one = replace(ticket(), ask=replace(ticket().ask, minutes=60))
    (slice_,) = instead_of(one, PROFILES, decisions(h200_slice=NOW_BORROWED), POLICY, EN)
    assert slice_.kind == "borrowed"
    assert "may be taken back" in slice_.hint
    profile = next(p for p in PROFILES if p.slug == "h200-slice")
    want = 60 if 60 in profile.minutes else profile.default_minutes
    assert slice_.fields.get("minutes") == (None if want is None else str(want))


# -- afterwards -------------------------------------------------------------------------------------------------------


def ended(why: str, **facts: Any) -> Entry:
    return Entry(EntryKind.DECIDED, NOW, lease="t1", person="student", why=why, facts={"over": True, **facts})


@pytest.mark.parametrize(
    ("over", "want"),
    [
        pytest.param(ended(TicketEnd.LEFT), "You left the line", id="left"),
        pytest.param(ended(TicketEnd.REPLACED), "You asked for something else instead", id="replaced"),
        pytest.param(ended("not-a-member"), "This cannot be started any more", id="refused"),
        pytest.param(ended("something new"), "This cannot be started any more", id="unknown"),
    ],
)
def test_a_ticket_that_is_over_says_why(over: Entry, want: str) -> None:
    page = over_page(over, None, EN, titles=TITLES, now=NOW)
    assert page.heading == want
    assert page.told.sentence
    in_korean = over_page(over, None, KO, titles=TITLES, now=NOW)
    assert in_korean.told.sentence != page.told.sentence


def test_a_server_that_has_ended_says_how() -> None:
    lease = Lease(
        "t1", "student", "hangang-univ", ("hangang-univ",), ONE_GPU, "server", True, None, 1,
        NOW - HOUR, NOW, NOW, LeaseState.RELEASED, reason=Ended.UNCLAIMED,
    )  # fmt: skip
    page = over_page(None, lease, EN, titles=TITLES, now=NOW)
    assert page.heading == "This server has ended"
    assert page.told.sentence
