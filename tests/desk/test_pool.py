"""The page of a pool: its numbers, its people, and who is let in; and pools and budgets over the API."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from playwright.sync_api import expect

from hub_ext.core.people import Person
from hub_ext.desk.auth import COOKIE
from hub_ext.desk.desk import API, PREFIX
from hub_ext.desk.hours import Verdict
from hub_ext.desk.pool_facts import PoolFacts, read_pool
from hub_ext.desk.views_pool import PEOPLE_SHOWN, PoolPage, pool_page
from hub_ext.language import Speaker, gpu_names
from hub_ext.quota.model import Lease
from tests.desk.hours_centre import HOUR, NOW, POLICY, HoursCentre, hours_centre
from tests.services.hours.people import (
    CLASSMATE,
    COURSE_LEAD,
    FIRM_LEAD,
    HOUR_UNITS,
    OPERATOR,
    SECTOR_LEAD,
    STUDENT,
    UNIV_LEAD,
    access,
)
from tests.support.axe import check_access
from tests.support.browser import chromium, needs_chromium, screenshot_path
from tests.support.databases import Database

POOL = f"{PREFIX}/pool"


@pytest.fixture
def centre(sqlite_database: Database) -> Iterator[HoursCentre]:
    made = hours_centre(sqlite_database)
    yield made
    made.store.close()


@pytest.fixture
def centre_on_each(database: Database) -> Iterator[HoursCentre]:
    made = hours_centre(database)
    yield made
    made.store.close()


def facts_of(centre: HoursCentre, pool: str, reader: Person = OPERATOR, span: int = 14) -> PoolFacts:
    facts = read_pool(centre.store, access(reader), pool, centre.clock.at, span)
    assert facts is not None
    return facts


def page_of(centre: HoursCentre, pool: str, reader: Person = OPERATOR, **more: int) -> PoolPage:
    facts = facts_of(centre, pool, reader)
    say = Speaker("en", facts.policy.timezone, gpu_names(facts.policy.gpu_classes))
    return pool_page(facts, say, **more)


def uses(page: PoolPage) -> dict[str, dict[str, str]]:
    return {line.name: {one.resource: one.text for one in line.uses} for line in page.tree}


# -- numbers --------------------------------------------------------------------------------------------------------------


def test_use_is_told_against_the_guarantee_of_each_pool(centre_on_each: HoursCentre) -> None:
    assert uses(page_of(centre_on_each, "seoul")) == {
        "seoul": {"H200": "6 of 7 in use", "1/7 H200 (18 GB)": "1 of 7 in use", "CPU": "40 of 128 in use"},
        "sector": {
            "H200": "4 of 4 in use · 1 borrowed",
            "1/7 H200 (18 GB)": "1 of 7 in use",
            "CPU": "32 of 128 in use · 8 lent",  # to the firm, which states none
        },
        "univ": {
            "H200": "2 of 2 in use · 2 borrowed",
            "1/7 H200 (18 GB)": "1 of 7 in use",
            "CPU": "24 in use, of Public interest sector",
        },
        "course": {
            "1/7 H200 (18 GB)": "1 in use, of Hangang University",
            "CPU": "8 in use, of Public interest sector",
        },
        "firm": {"H200": "1 of 3 in use · 1 lent", "CPU": "8 in use, of Seoul Hangang AI"},
    }


def test_what_a_pool_could_have_only_after_a_notice_is_lent(centre_on_each: HoursCentre) -> None:
    """The firm owns three and uses one; the sector has one of the two idle ones."""
    (firm,) = page_of(centre_on_each, "firm").tree
    gpus = firm.uses[0]
    assert (gpus.text, gpus.detail) == ("1 of 3 in use · 1 lent", "1 more could be started now")
    assert dict(gpus.parts) == {"used": 333, "borrowed": 0, "lent": 333}
    centre_on_each.stop("large")
    (firm,) = page_of(centre_on_each, "firm").tree
    assert firm.uses[0].text == "1 of 3 in use"
    # At the root there is nobody to lend to.
    assert all("lent" not in use.text for use in page_of(centre_on_each, "seoul").tree[0].uses)


def test_the_parts_of_a_bar_never_say_more_than_there_is(centre: HoursCentre) -> None:
    for pool in ("seoul", "sector", "univ", "course", "firm"):
        for line in page_of(centre, pool).tree:
            for use in line.uses:
                assert sum(part for _, part in use.parts) <= 1000
                assert all(part >= 0 for _, part in use.parts)


def test_hours_by_day_and_by_person_add_up(centre_on_each: HoursCentre) -> None:
    facts = facts_of(centre_on_each, "sector", span=14)
    assert (facts.last, len({facts.first + timedelta(days=n) for n in range(14)})) == (date(2027, 3, 10), 14)
    by_day = {day.isoformat(): units / HOUR_UNITS for day, units in facts.days.items()}
    assert by_day == {
        "2027-03-01": 3,
        "2027-03-03": 4,
        "2027-03-05": 5,
        "2027-03-07": 8,
        "2027-03-09": 2,
    }
    assert facts.people == {"student": 22 * HOUR_UNITS}
    page = page_of(centre_on_each, "sector")
    assert len(page.chart.bars) == 14
    assert page.chart.summary == "22 GPU-h in the last 14 days"


def test_everybody_who_runs_or_used_something_is_named(centre_on_each: HoursCentre) -> None:
    people = page_of(centre_on_each, "univ").people
    assert [(line.name, line.running, line.borrowed, line.hours) for line in people] == [
        ("student", "1 server", "", "22"),
        ("classmate", "1 server", "", "0"),
        ("univ-lead", "1 server", "3 × H200 borrowed", "0"),
    ]
    assert people[0].share == 1000
    assert people[0].next_end == "17:00"


def test_a_long_list_of_people_goes_page_by_page(centre: HoursCentre) -> None:
    people = [Person(f"pupil-{number:03}", ("sector",)) for number in range(PEOPLE_SHOWN + 5)]
    for person in people:
        centre.admission.put_person(person)
    facts = facts_of(centre, "sector")
    one = facts.holdings[0]
    many = [type(one)(person.name, "sector", "server", {}, True, 1, NOW) for person in people]
    facts = PoolFacts(**{**facts.__dict__, "holdings": many, "people": {}})
    say = Speaker("en", facts.policy.timezone)
    pages = [pool_page(facts, say, number) for number in (1, 2, 3, -1)]
    assert [page.page for page in pages] == [1, 2, 2, 1]
    assert [len(page.people) for page in pages[:2]] == [PEOPLE_SHOWN, 5]
    assert len({line.name for page in pages[:2] for line in page.people}) == len(people)


def test_grants_tell_what_is_left_of_them(centre_on_each: HoursCentre) -> None:
    request = centre_on_each.asked(STUDENT, units=30 * HOUR_UNITS, until=NOW + 8 * 86400)
    centre_on_each.answered(request, UNIV_LEAD, Verdict(True, "For the finals"))

    # The student's own 20 hours of the week are used up, and two of the grant's besides.
    def accrue(ledger: Any, lease: Lease, now: int) -> Lease:
        return ledger.accrue(lease, now)

    centre_on_each.admission.change("thesis", accrue)
    with centre_on_each.store.reading() as txn:
        used = sum(row.units for row in txn.usage(date(2027, 3, 8), date(2027, 3, 10)))
    (line,) = page_of(centre_on_each, "univ").grants
    assert line.text == "30 of 30 GPU-h left"
    assert used < 20 * HOUR_UNITS
    centre_on_each.clock.at = NOW + 8 * HOUR
    centre_on_each.stop("large")
    centre_on_each.start("second", STUDENT, gpus=2, minutes=720)
    centre_on_each.clock.at += 12 * HOUR
    centre_on_each.stop("second")
    centre_on_each.stop("thesis")
    (line,) = page_of(centre_on_each, "univ").grants
    left = float(line.text.split()[0])
    with centre_on_each.store.reading() as txn:
        mine = [
            row for row in txn.usage(date(2027, 3, 8), date(2027, 3, 11)) if row.lease.person == "student"
        ]
    beyond = sum(row.units for row in mine) / HOUR_UNITS - 20
    assert 0 < beyond < 30
    assert left == int((30 - beyond) * 10) / 10


# -- who is let in ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/grants.csv"])
def test_a_student_is_told_that_it_is_not_open(centre: HoursCentre, path: str) -> None:
    for person in (STUDENT, CLASSMATE):
        answer = centre.visit(person).get(f"{POOL}{path}", params={"pool": "univ"})
        assert answer.status_code == 403
        for secret in ("univ-lead", "H200", "Hangang Univ", "thesis"):
            assert secret not in re.sub(
                r'<span class="hg-who">.*?</span>\s*<nav', "<nav", answer.text, flags=re.DOTALL
            )


@pytest.mark.parametrize("path", ["", "/grants.csv"])
@pytest.mark.parametrize(
    ("reader", "pool"),
    [
        (FIRM_LEAD, "univ"),
        (FIRM_LEAD, "seoul"),
        (COURSE_LEAD, "univ"),
        (UNIV_LEAD, "sector"),
        (UNIV_LEAD, "firm"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_another_pool_is_not_there(centre: HoursCentre, reader: Person, pool: str, path: str) -> None:
    browser = centre.visit(reader)
    there = browser.get(f"{POOL}{path}", params={"pool": pool})
    never = browser.get(f"{POOL}{path}", params={"pool": "no-such-pool"})
    assert there.status_code == never.status_code == 404
    same = [
        re.sub(r"(no-such-pool|" + pool + r")", "NAME", html.unescape(answer.text))
        for answer in (there, never)
    ]
    assert same[0] == same[1]


def test_a_lead_begins_with_the_highest_pool_that_they_lead(centre: HoursCentre) -> None:
    for reader, title in (
        (SECTOR_LEAD, "Public interest sector"),
        (COURSE_LEAD, "Introduction to AI (course)"),
    ):
        page = centre.visit(reader).get(POOL)
        assert f"<h1>{title}</h1>" in page.text
    assert 'value="firm"' not in centre.visit(SECTOR_LEAD).get(POOL).text


@pytest.mark.parametrize(
    "query",
    [
        {"days": "x"},
        {"days": "-1"},
        {"page": "x"},
        {"page": "9" * 400},
        {"page": "0"},
        {"page": "٣"},
        {"pool": ""},
    ],
    ids=str,
)
def test_odd_questions_get_the_page_all_the_same(centre: HoursCentre, query: dict[str, str]) -> None:
    assert centre.visit(UNIV_LEAD).get(POOL, params=query).status_code == 200


def test_a_pool_that_a_new_policy_takes_away_is_not_there(centre: HoursCentre) -> None:
    lead = centre.visit(COURSE_LEAD)
    assert lead.get(POOL).status_code == 200
    centre.load(POLICY[: POLICY.index("  course:")] + POLICY[POLICY.index("  firm:") :])
    assert lead.get(POOL, params={"pool": "course"}).status_code == 403  # they lead nothing any more


# -- the API ------------------------------------------------------------------------------------------------------------


def test_pools_over_the_api_are_those_of_the_reader(centre_on_each: HoursCentre) -> None:
    def names(person: Person) -> list[str]:
        return [one["name"] for one in centre_on_each.call(person).get(f"{API}/pools").json()["items"]]

    assert names(STUDENT) == ["univ"]
    assert names(UNIV_LEAD) == ["univ", "course"]
    assert names(OPERATOR) == ["seoul", "sector", "univ", "course", "firm"]
    univ = centre_on_each.call(STUDENT).get(f"{API}/pools/univ").json()
    assert (univ["leads"], univ["resources"]["gpu.h200"]["used"], univ["resources"]["gpu.h200"]["over"]) == (
        False,
        4000,
        2000,
    )
    for name in ("firm", "sector", "no-such-pool"):
        answer = centre_on_each.call(STUDENT).get(f"{API}/pools/{name}")
        assert (answer.status_code, answer.json()["code"], answer.json()["facts"]) == (404, "not-found", {})


def test_pools_come_in_pages(centre: HoursCentre) -> None:
    operator = centre.call(OPERATOR)
    first = operator.get(f"{API}/pools", params={"limit": 3}).json()
    second = operator.get(f"{API}/pools", params={"limit": 3, "cursor": first["next"]}).json()
    assert [one["name"] for one in (*first["items"], *second["items"])] == [
        "seoul",
        "sector",
        "univ",
        "course",
        "firm",
    ]
    assert second["next"] is None


def test_budgets_over_the_api_are_those_that_bind_the_reader(centre_on_each: HoursCentre) -> None:
    def budgets(person: Person) -> list[tuple[str, str, str | None]]:
        found = centre_on_each.call(person).get(f"{API}/budgets").json()["items"]
        return [(one["pool"], one["budget"], one["person"]) for one in found]

    assert budgets(STUDENT) == [
        ("univ", "week", None),
        ("univ", "week:person", "student"),
        ("sector", "month", None),
    ]
    assert budgets(FIRM_LEAD) == [("firm", "week", None)]
    own = centre_on_each.call(STUDENT).get(f"{API}/budgets", params={"pool": "univ"}).json()["items"][1]
    assert (own["limit"], own["used"], own["left"], own["starts"], own["renews"]) == (
        20,
        2,
        8,
        "2027-03-08T00:00:00+09:00",
        "2027-03-15T00:00:00+09:00",
    )


# -- in a browser ---------------------------------------------------------------------------------------------------------


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize(
    ("language", "width", "dark"),
    [("en", 1200, False), ("en", 390, True), ("ko", 1200, True), ("ko", 390, False)],
)
def test_the_page_is_there_for_everybody(centre: HoursCentre, language: str, width: int, dark: bool) -> None:
    centre.answered(centre.asked(STUDENT), UNIV_LEAD, Verdict(True))
    centre.asked(CLASSMATE, pool="course")
    with centre.serving() as url, chromium() as browser:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            extra_http_headers={"accept-language": language},
        )
        context.add_cookies([{"name": COOKIE, "value": centre.cookie(SECTOR_LEAD), "url": url}])
        page = context.new_page()
        wrong: list[str] = []
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto(f"{url}/pool")
        expect(page.locator(".hg-rail .hg-badge")).to_contain_text("1")
        assert not wrong
        check_access(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        name = f"pool-{language}-{width}{'-dark' if dark else ''}"
        page.screenshot(path=screenshot_path(name), full_page=True)
        # What axe and the screenshot put into the page is not the page's. To another pool by keyboard alone:
        wrong.clear()
        page.locator("#pool-choice").focus()
        page.locator("#pool-choice").select_option("univ")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_url("**pool=univ**")
        with page.expect_download() as downloading:
            page.locator("a[download][href*='by=lease']").click()
        assert downloading.value.suggested_filename.startswith("usage-lease-2027-02-25")
        assert not wrong
