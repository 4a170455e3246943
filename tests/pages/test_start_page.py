"""The start page's view model: each card's state, what is beneath it, and what is possible instead."""

from __future__ import annotations

from typing import Any

import pytest

from hub_ext.core.clock import HOUR
from hub_ext.core.decision import Code, Wait
from hub_ext.profiles.model import Choice, Option
from hub_ext.profiles.view import Instead, Kind, PoolChoice, Select
from tests.pages.made_up import (
    CPU,
    CUT,
    FREE_OF_CHARGE,
    FULL,
    NOW,
    NOW_BORROWED,
    NOW_GUARANTEED,
    POOLS,
    SEVERAL,
    SLICE,
    TEACHING,
    TITLES,
    TOO_BIG,
    WHOLE,
    hours,
    page,
    profile,
)


def labels(select: Select) -> list[str]:
    return [f"{choice.label} ({choice.state})" if choice.state else choice.label for choice in select.choices]


def test_a_card_that_may_start_now_says_its_price_and_its_end() -> None:
    (card,) = page([(SLICE, NOW_GUARANTEED)]).cards
    assert (card.state.kind, card.state.chip, card.state.button) == (Kind.NOW, "Now", "Start")
    assert card.sizes == "18 GB GPU · 8 CPU · 64 GB memory"
    assert card.state.price == "0.14 GPU-h/hour"
    assert card.state.until == "until 11:00", "two hours from nine"
    assert card.state.until_exact == "2027-03-02 11:00:00 KST"
    assert not card.state.sentence
    assert not card.state.cut
    assert card.instead is None


def test_a_borrowed_one_says_so_before_the_start() -> None:
    (card,) = page([(WHOLE, NOW_BORROWED)]).cards
    assert (card.state.kind, card.state.chip) == (Kind.BORROWED, "Now, borrowed")
    assert card.state.hint == "Borrowed from Seoul Hangang AI: it may be taken back, 10 min after a notice."
    assert card.startable


def test_a_wait_says_when_and_cannot_be_started() -> None:
    (card,) = page([(WHOLE, FULL)], "ko").cards
    assert (card.state.kind, card.state.chip, card.state.button) == (
        Kind.WAIT,
        "지금은 불가, 첫 종료 11:00",
        "지금은 불가",
    )
    assert card.state.sentence == "지금 서울 한강 AI에 빈자리가 없습니다: H200."
    assert not card.startable
    assert not card.state.price
    assert not card.state.until


def test_a_wait_for_hours_says_when_they_renew_and_one_without_a_time_says_nothing_of_it() -> None:
    (card,) = page(
        [(WHOLE, Wait(Code.BUDGET_SPENT, {"pool": "hangang-univ", "renews": NOW + 15 * HOUR}))]
    ).cards
    assert card.state.chip == "Not now, again from tomorrow 00:00"
    (card,) = page([(WHOLE, Wait(Code.STARTS_BUSY, {"starts": 64}))]).cards
    assert card.state.chip == "Not now"


def test_a_refusal_says_why_and_what_to_do() -> None:
    (card,) = page([(WHOLE, TOO_BIG)]).cards
    assert (card.state.kind, card.state.chip) == (Kind.REFUSED, "Not possible")
    assert card.state.sentence == "Your limit in Hangang University is 2 × H200; this needs 4 × H200."
    assert "raise your limit" in card.state.next_step


def test_free_of_charge_is_said() -> None:
    (card,) = page([(CPU, FREE_OF_CHARGE)]).cards
    assert card.state.price == "no GPU-hours"


def test_an_end_that_was_cut_is_the_same_for_every_longer_length() -> None:
    (card,) = page([(WHOLE, CUT)]).cards
    two_hours, eight_hours = card.states["hangang-univ", "120"], card.states["hangang-univ", "480"]
    assert two_hours.until == "until 11:00"
    assert not two_hours.cut
    assert eight_hours.until == "until 12:00"
    assert (
        eight_hours.cut
        == "Until 12:00, because the GPU-hours of Hangang University for this month are used up then."
    )


def test_a_length_beyond_what_was_decided_is_promised_at_the_latest_only() -> None:
    short = page([(WHOLE, NOW_GUARANTEED.__class__(True, None, NOW + 2 * HOUR, 143_000))]).cards[0]
    assert short.states["hangang-univ", "480"].until == "until 17:00 at the latest"
    assert short.states["hangang-univ", "60"].until == "until 10:00"


def test_a_pools_session_bounds_hold_for_every_length() -> None:
    pools = [PoolChoice("hangang-univ", TITLES["hangang-univ"], shortest=90 * 60, longest=4 * HOUR)]
    (card,) = page([(WHOLE, NOW_GUARANTEED)], pools=pools).cards
    assert card.states["hangang-univ", "60"].until == "until 10:30"
    assert card.states["hangang-univ", "480"].until == "until 13:00"


def test_a_profile_without_lengths_runs_as_long_as_its_pool_allows() -> None:
    endless = profile("endless", minutes=(), default_minutes=None)
    (card,) = page([(endless, NOW_GUARANTEED.__class__(True, None, NOW + 12 * HOUR, 0))]).cards
    assert card.selects[-1].chosen == ""
    assert labels(card.selects[-1]) == ["as long as allowed"]
    assert card.state.until == "until 21:00"


def test_fields_are_named_as_kubespawner_names_them() -> None:
    (card,) = page([(SEVERAL, NOW_GUARANTEED)]).cards
    assert [select.field for select in card.selects] == [
        "profile-option-several--pool",
        "profile-option-several--count",
        "profile-option-several--minutes",
    ]
    assert [select.chosen for select in card.selects] == ["hangang-univ", "four", "120"]


def test_each_choice_says_where_it_would_lead_when_they_differ() -> None:
    (card,) = page(
        [(SEVERAL, {("hangang-univ", ("four",)): TOO_BIG, ("hangang-univ", ("two",)): NOW_BORROWED})]
    ).cards
    assert labels(card.selects[1]) == ["four (Not possible)", "two"]
    assert labels(card.selects[2]) == ["1 h", "2 h", "8 h"], "no length changes anything: nothing is said"
    assert card.state.kind is Kind.REFUSED
    assert card.startable, "with another choice it may be started"
    assert card.instead == Instead("", "GPUs: two")
    assert card.all_sizes == {("four",): "564 GB GPU", ("two",): "282 GB GPU"}


def test_the_first_view_is_the_pool_where_the_card_stands_best() -> None:
    (card,) = page(
        [(WHOLE, {("hangang-univ", ()): FULL, ("hangang-vision", ()): NOW_BORROWED})], pools=POOLS
    ).cards
    assert card.selects[0].chosen == "hangang-vision"
    assert labels(card.selects[0]) == ["Hangang University (Not now)", "Vision lab"]
    assert card.state.kind is Kind.BORROWED


def test_a_card_is_shown_for_the_pools_it_was_decided_for_only() -> None:
    both = page([(WHOLE, NOW_GUARANTEED)], pools=POOLS).cards[0]
    assert len(both.selects[0].choices) == 2
    one = page([(WHOLE, NOW_GUARANTEED)], pools=POOLS[:1]).cards[0]
    assert len(one.selects[0].choices) == 1


@pytest.mark.parametrize(
    ("others", "want"),
    [
        ([(SLICE, NOW_GUARANTEED), (CPU, FREE_OF_CHARGE)], "One H200 slice"),
        ([(CPU, FREE_OF_CHARGE), (SLICE, FULL)], "CPU server"),
        ([(SLICE, FULL)], None),
    ],
    ids=["the largest that is no larger", "what is not free is no way out", "nothing is free"],
)
def test_what_is_possible_instead_is_the_best_that_is_now(others: list[Any], want: str | None) -> None:
    card = page([(WHOLE, FULL), *others]).cards[0]
    assert (card.instead.title if card.instead else None) == want


def test_something_larger_is_named_only_where_nothing_smaller_is_free() -> None:
    card = page([(CPU, FULL), (SLICE, NOW_GUARANTEED), (WHOLE, NOW_BORROWED)]).cards[0]
    assert card.instead == Instead("slice", "One H200 slice")


def test_the_first_answer_is_how_much_can_be_started() -> None:
    assert page([(SLICE, NOW_GUARANTEED), (WHOLE, FULL)]).summary == "1 of these 2 can be started now."
    assert (
        page([(SLICE, NOW_GUARANTEED), (WHOLE, NOW_BORROWED)]).summary == "All of these can be started now."
    )
    assert page([(SLICE, FULL), (WHOLE, FULL)], "ko").summary.startswith(
        "지금 시작할 수 있는 서버가 없습니다."
    )


def test_hours_stand_mine_first_with_a_bar_that_never_overflows() -> None:
    institution = hours(mine=False, period="month", used=70 * 3_600_000_000, soft_reached=True)
    lines = page([(SLICE, NOW_GUARANTEED)], hours=[institution, hours()]).hours
    assert [line.title for line in lines] == ["Your hours", "Hangang University"]
    assert lines[0].text == "31.5 of 60 GPU-h left this week"
    assert lines[0].detail == "used 12.5, set aside for running servers 16, left 31.5"
    assert (lines[0].used, lines[0].committed) == (208, 266)
    assert (lines[1].used, lines[1].committed, lines[1].warning) == (1000, 0, "Nearly used up")


def test_hours_of_two_institutions_are_told_apart() -> None:
    other = hours(title=TITLES["hangang-vision"], pool="hangang-vision")
    titles = [line.title for line in page([(SLICE, NOW_GUARANTEED)], hours=[hours(), other]).hours]
    assert titles == ["Your hours: Hangang University", "Your hours: Vision lab"]


def test_a_budget_of_no_hours_is_no_division_by_zero() -> None:
    (line,) = page([(SLICE, NOW_GUARANTEED)], hours=[hours(limit=0, used=0, committed=0)]).hours
    assert (line.text, line.used) == ("0 of 0 GPU-h left this week", 0)


def test_what_is_not_offered_is_named_with_why() -> None:
    shown = page([(SLICE, NOW_GUARANTEED)], hidden=[TEACHING, WHOLE])
    assert shown.hidden == (
        ("Teaching", "no course is open now"),
        ("One H200", "for other roles or institutions"),
    )


def test_nothing_to_start_teaches_what_to_do() -> None:
    no_pool = page([], pools=())
    assert no_pool.empty is not None
    assert no_pool.empty[0] == "You do not belong to an institution yet."
    no_profile = page([])
    assert no_profile.empty is not None
    assert no_profile.empty[0] == "Nothing is offered to you here yet."
    assert page([(SLICE, FULL)]).empty is None


def test_a_named_server_and_limits_that_only_count_are_said() -> None:
    shown = page([(SLICE, NOW_GUARANTEED)], server="evaluation", limits_enforced=False)
    assert shown.heading == "Start the server evaluation"
    assert shown.notes == ("CPU and memory are counted here, but not held to what was chosen.",)


def test_the_page_says_how_old_its_numbers_are() -> None:
    assert page([(SLICE, NOW_GUARANTEED)], as_of=NOW - 42).age == 42
    assert page([(SLICE, NOW_GUARANTEED)], as_of=NOW + 5).age == 0, "a clock that was set back"


def test_every_combination_of_two_options_is_there() -> None:
    second = Option(
        "image",
        {"en": "Image"},
        (Choice("plain", {"en": "plain"}, default=True), Choice("rapids", {"en": "RAPIDS"})),
    )
    two = profile("two", options=(SEVERAL.options[0], second))
    decided = {
        ("hangang-univ", (count, image)): NOW_GUARANTEED
        for count in ("four", "two")
        for image in ("plain", "rapids")
    }
    from hub_ext.profiles.start import start_page
    from hub_ext.profiles.view import StartFacts
    from tests.pages.made_up import Explains, speaker

    facts = StartFacts(POOLS[:1], [two], {("two", *key): value for key, value in decided.items()}, NOW, NOW)
    (card,) = start_page(facts, speaker("en"), Explains(speaker("en"))).cards
    assert len(card.states) == 2 * 2 * 3
