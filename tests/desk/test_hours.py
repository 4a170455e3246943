"""Requests for hours at the desk: the page, its forms, the API, and who is let in."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from hub_ext.core.people import Person
from hub_ext.desk.auth import COOKIE
from hub_ext.desk.desk import API, PREFIX
from hub_ext.desk.hours import Verdict
from hub_ext.quota.model import RequestState
from tests.desk.hours_centre import DAY, NOW, HoursCentre, form_of, hours_centre
from tests.services.hours.people import (
    CLASSMATE,
    FIRM_LEAD,
    HOUR_UNITS,
    OPERATOR,
    SECTOR_LEAD,
    STUDENT,
    UNIV_LEAD,
)
from tests.support.axe import check_access
from tests.support.browser import chromium, needs_chromium, screenshot_path
from tests.support.databases import Database

HOURS = f"{PREFIX}/hours"
ASKING = {"budget": "univ|week:person|student", "hours": "12.5", "until": "2027-03-24", "why": "The thesis"}


@pytest.fixture
def centre(sqlite_database: Database) -> Iterator[HoursCentre]:
    """On one kind of database: tests/services/hours is about both."""
    made = hours_centre(sqlite_database)
    yield made
    made.store.close()


def text_of(answer: Any) -> str:
    """What a page says, without its marks."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


# -- forms --------------------------------------------------------------------------------------------------------------


def test_somebody_asks_a_lead_shortens_and_the_hours_count(centre: HoursCentre) -> None:
    student, lead = centre.visit(STUDENT), centre.visit(UNIV_LEAD)
    sent = student.post(HOURS, data=form_of(centre, **ASKING))
    assert (sent.status_code, sent.headers["location"]) == (303, f"{HOURS}?done=asked")
    assert "Your request was sent" in text_of(student.get(sent.headers["location"]))
    page = lead.get(HOURS)
    assert "12.5 GPU-hours until Wed 24 Mar 2027" in text_of(page)
    assert "Hours of student: Hangang University" in text_of(page)
    (request_id,) = re.findall(r'data-request="([0-9a-f]+)"', page.text)
    answered = lead.post(
        f"{HOURS}/answer",
        data=form_of(
            centre,
            request=request_id,
            verdict="grant",
            hours="8",
            until="2027-03-20",
            answer="Eight, this time",
        ),
    )
    assert answered.headers["location"] == f"{HOURS}?done=granted"
    told = text_of(student.get(HOURS))
    assert "8 GPU-hours granted until Sat 20 Mar 2027; 8 left." in told
    assert "Eight, this time" in told
    with centre.store.reading() as txn:
        (grant,) = txn.grants()
        assert (grant.units, txn.policy.local(grant.until).isoformat()) == (
            8 * HOUR_UNITS,
            "2027-03-21T00:00:00+09:00",
        )


def test_a_request_that_is_not_taken_is_shown_again_with_the_reason(centre: HoursCentre) -> None:
    answer = centre.visit(STUDENT).post(HOURS, data=form_of(centre, **ASKING | {"hours": "many"}))
    assert answer.status_code == 422
    assert "Write how many GPU-hours: a number from 0.01 to 100000." in text_of(answer)
    assert 'value="many"' in answer.text
    assert ">The thesis</textarea>" in answer.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"hours": "1e999999"},
        {"hours": "-5"},
        {"hours": "NaN"},
        {"hours": "１２"},
        {"hours": "9" * 5000},
        {"hours": ""},
        {"until": "yesterday"},
        {"until": "9999-12-31"},
        {"until": "2027-03-09"},
        {"until": "99999-01-01"},
        {"why": ""},
        {"why": "x" * 1001},
        {"budget": ""},
        {"budget": "firm|week|"},
        {"budget": "univ|week:person|classmate"},
        {"budget": "|||||"},
    ],
    ids=str,
)
def test_bad_input_is_told_and_nothing_is_written(centre: HoursCentre, wrong: dict[str, str]) -> None:
    answer = centre.visit(STUDENT).post(HOURS, data=form_of(centre, **ASKING | wrong))
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    with centre.store.reading() as txn:
        assert not txn.requests()


def test_what_people_write_is_shown_as_text(centre: HoursCentre) -> None:
    centre.asked(STUDENT, why='<script>alert(1)</script> & "quotes" \'n so {{ 7*7 }}')
    page = centre.visit(UNIV_LEAD).get(HOURS).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;quotes&#34; &#39;n so {{ 7*7 }}" in page


def test_the_second_of_two_answers_is_told_what_the_first_was(centre: HoursCentre) -> None:
    request = centre.asked(STUDENT)
    centre.answered(request, SECTOR_LEAD, Verdict(True))
    answer = centre.visit(UNIV_LEAD).post(
        f"{HOURS}/answer", data=form_of(centre, request=request.id, verdict="decline", answer="No")
    )
    assert answer.status_code == 409
    assert "This request was answered already: granted by sector-lead, 09:00." in text_of(answer)
    assert centre.stored(request.id).state is RequestState.GRANTED


def test_declining_needs_a_reason(centre: HoursCentre) -> None:
    request = centre.asked(STUDENT)
    lead = centre.visit(UNIV_LEAD)
    answer = lead.post(f"{HOURS}/answer", data=form_of(centre, request=request.id, verdict="decline"))
    assert (answer.status_code, centre.stored(request.id).state) == (422, RequestState.OPEN)
    given = form_of(centre, request=request.id, verdict="decline", answer="Use a slice")
    assert lead.post(f"{HOURS}/answer", data=given).status_code == 303
    assert "Use a slice" in text_of(centre.visit(STUDENT).get(HOURS))


def test_whoever_asked_withdraws(centre: HoursCentre) -> None:
    request = centre.asked(STUDENT)
    done = centre.visit(STUDENT).post(f"{HOURS}/withdraw", data=form_of(centre, request=request.id))
    assert done.headers["location"] == f"{HOURS}?done=withdrawn"
    assert centre.stored(request.id).state is RequestState.WITHDRAWN


# -- who is let in --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/answer", "/withdraw"])
@pytest.mark.parametrize("token", ["", "0" * 64, None])
def test_a_form_that_is_not_ours_changes_nothing(centre: HoursCentre, path: str, token: str | None) -> None:
    request = centre.asked(STUDENT)
    fields = {**ASKING, "request": request.id, "verdict": "grant"}
    if token is not None:
        fields["_csrf"] = token
    for person in (STUDENT, UNIV_LEAD):
        assert centre.visit(person).post(f"{HOURS}{path}", data=fields).status_code == 403
    assert centre.stored(request.id) == request


def test_others_requests_are_not_there(centre: HoursCentre) -> None:
    request = centre.asked(STUDENT, why="A secret of the lab")
    for person in (CLASSMATE, FIRM_LEAD):
        browser, program = centre.visit(person), centre.call(person)
        assert "A secret" not in browser.get(HOURS).text
        assert "A secret" not in browser.get(f"{HOURS}/requests.csv").text
        given = form_of(centre, request=request.id, verdict="grant", answer="yes")
        there = [browser.post(f"{HOURS}/{step}", data=given) for step in ("answer", "withdraw")]
        there += [
            program.get(f"{API}/requests/{request.id}"),
            program.post(f"{API}/requests/{request.id}/answer", json={"granted": True}),
            program.delete(f"{API}/requests/{request.id}"),
        ]
        # Word for word as for a request that never was.
        given["request"] = "f" * 32
        never = [browser.post(f"{HOURS}/{step}", data=given) for step in ("answer", "withdraw")]
        never += [
            program.get(f"{API}/requests/{'f' * 32}"),
            program.post(f"{API}/requests/{'f' * 32}/answer", json={"granted": True}),
            program.delete(f"{API}/requests/{'f' * 32}"),
        ]
        assert [answer.status_code for answer in there] == [404] * 5
        assert [text_of(answer) for answer in there] == [text_of(answer) for answer in never]
        assert program.get(f"{API}/requests").json() == {"items": [], "next": None}
    assert centre.stored(request.id) == request


def test_the_page_of_answers_is_for_leads(centre: HoursCentre) -> None:
    assert "Waiting for your answer" not in text_of(centre.visit(STUDENT).get(HOURS))
    assert "Waiting for your answer" in text_of(centre.visit(UNIV_LEAD).get(HOURS))


def test_the_badge_counts_for_a_script_of_our_own(centre: HoursCentre) -> None:
    centre.asked(STUDENT)
    lead = centre.visit(UNIV_LEAD)
    assert lead.get(f"{HOURS}/count").json() == {"to_answer": 1}
    foreign = {"sec-fetch-mode": "cors", "accept": "application/json"}
    assert lead.get(f"{HOURS}/count", headers=foreign).status_code == 403
    assert lead.get(f"{HOURS}/count", headers=foreign | {"X-CSRF-Token": centre.csrf}).status_code == 200


def test_a_long_list_of_answers_goes_page_by_page(centre: HoursCentre) -> None:
    for number in range(30):
        request = centre.asked(STUDENT, why=f"Reason number {number:02}")
        centre.clock.at += 1
        centre.answered(request, UNIV_LEAD, Verdict(False, "No"))
    lead = centre.visit(UNIV_LEAD)
    first = lead.get(HOURS)
    (older,) = re.findall(r'href="([^"]+)" rel="next"', first.text)
    second = lead.get(html.unescape(older))
    seen = [re.findall(r"Reason number (\d\d)", page.text) for page in (first, second)]
    assert seen == [[f"{n:02}" for n in range(29, 4, -1)], [f"{n:02}" for n in range(4, -1, -1)]]
    rows = lead.get(f"{HOURS}/requests.csv").text.splitlines()
    assert len(rows) == 31


@pytest.mark.parametrize("place", ["x", "-", "9-", "9-'; DROP", "1e9-a", "\x00-a", "9" * 500 + "-a"])
def test_a_forged_place_is_the_beginning(centre: HoursCentre, place: str) -> None:
    assert centre.visit(UNIV_LEAD).get(HOURS, params={"before": place}).status_code == 200


def test_a_formula_in_a_reason_is_no_formula_in_the_file(centre: HoursCentre) -> None:
    centre.asked(STUDENT, why="=HYPERLINK(A1)")
    assert ",'=HYPERLINK(A1)," in centre.visit(UNIV_LEAD).get(f"{HOURS}/requests.csv").text


# -- the API ------------------------------------------------------------------------------------------------------------

NEW = {
    "pool": "univ",
    "period": "week",
    "person": "student",
    "hours": "12.5",
    "until": "2027-03-24",
    "why": "The thesis",
}


def test_the_api_tells_the_same_from_the_asking_to_the_grant(centre: HoursCentre) -> None:
    student, lead = centre.call(STUDENT), centre.call(UNIV_LEAD)
    made = student.post(f"{API}/requests", json=NEW)
    assert made.status_code == 201
    body = made.json()
    assert made.headers["location"] == f"{API}/requests/{body['id']}"
    want = {
        "pool": "univ",
        "budget": "week:person",
        "person": "student",
        "hours": 12.5,
        "until": "2027-03-25T00:00:00+09:00",
        "made_by": "student",
        "state": "open",
        "granted_hours": None,
    }
    assert {key: body[key] for key in want} == want
    answered = lead.post(f"{API}/requests/{body['id']}/answer", json={"granted": True, "hours": 8})
    assert answered.status_code == 200
    assert answered.json()["granted_hours"] == 8
    assert student.get(f"{API}/requests/{body['id']}").json() == answered.json()
    assert student.get(f"{API}/requests", params={"state": "granted"}).json()["items"] == [answered.json()]
    assert student.get(f"{API}/requests", params={"state": "open"}).json()["items"] == []
    late = lead.post(f"{API}/requests/{body['id']}/answer", json={"granted": False, "answer": "no"})
    assert late.status_code == 409
    assert late.json()["code"] == "answered-already"
    assert late.json()["facts"] == {"state": "granted", "by": "univ-lead", "at": "2027-03-10T09:00:00+09:00"}
    grants = [one["grants"] for one in student.get(f"{API}/budgets").json()["items"] if one["person"]]
    assert [(grant["hours"], grant["left"]) for (grant,) in grants] == [(8, 8)]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"hours": 0}, "bad-input"),
        ({"hours": "NaN"}, "bad-input"),
        ({"hours": "1e400"}, "bad-input"),
        ({"hours": 200_000}, "hours-out-of-range"),
        ({"until": "soon"}, "bad-input"),
        ({"until": "2020-01-01"}, "date-out-of-range"),
        ({"until": "9999-12-31"}, "date-out-of-range"),
        ({"until": "2027-03-10T08:59:59+09:00"}, "date-out-of-range"),
        ({"why": " "}, "why-missing"),
        ({"pool": "firm", "period": "week", "person": None}, "no-such-budget"),
        ({"pool": "nowhere"}, "no-such-budget"),
        ({"person": "classmate"}, "no-such-budget"),
        ({"other": 1}, "bad-input"),
    ],
    ids=str,
)
def test_what_the_api_does_not_take(centre: HoursCentre, wrong: dict[str, Any], code: str) -> None:
    answer = centre.call(STUDENT).post(f"{API}/requests", json=NEW | wrong)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert set(answer.json()) == {"code", "facts", "message"}


def test_without_a_good_token_there_is_nothing(centre: HoursCentre) -> None:
    request = centre.asked(STUDENT)
    program = centre.call(UNIV_LEAD)
    for header in ("Bearer forged", "token ", "Basic dTpw", "Bearer token-of-nobody"):
        program.headers["authorization"] = header
        for answer in (
            program.get(f"{API}/requests"),
            program.get(f"{API}/usage"),
            program.get(f"{API}/pools"),
            program.post(f"{API}/requests/{request.id}/answer", json={"granted": True}),
        ):
            assert answer.status_code in (401, 403)
            assert set(answer.json()) == {"code", "facts", "message"}
    assert centre.stored(request.id) == request


def test_a_leads_token_that_only_reads_sees_and_answers_as_a_member(centre: HoursCentre) -> None:
    request = centre.asked(STUDENT)
    program = centre.call(UNIV_LEAD, reads=True)
    assert program.get(f"{API}/requests").json()["items"] == []
    answer = program.post(f"{API}/requests/{request.id}/answer", json={"granted": True})
    assert answer.status_code == 404


def test_the_api_goes_page_by_page(centre: HoursCentre) -> None:
    made = []
    for _ in range(5):
        made.append(centre.asked(STUDENT).id)
        centre.call(STUDENT).delete(f"{API}/requests/{made[-1]}")
        centre.clock.at += 1
    seen, cursor = [], None
    while True:
        page = centre.call(OPERATOR).get(
            f"{API}/requests", params={"limit": 2} | ({"cursor": cursor} if cursor else {})
        )
        seen += [one["id"] for one in page.json()["items"]]
        cursor = page.json()["next"]
        if cursor is None:
            break
    assert seen == list(reversed(made))
    forged = centre.call(OPERATOR).get(f"{API}/requests", params={"cursor": "x'--"})
    assert (forged.status_code, forged.json()["code"]) == (400, "bad-cursor")


# -- in a browser ---------------------------------------------------------------------------------------------------------


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("language", ["en", "ko"])
def test_two_people_at_once_by_keyboard(centre: HoursCentre, language: str) -> None:
    centre.asked(UNIV_LEAD, budget="week", person="")
    with centre.serving() as url, chromium() as browser:

        def comes(person: Person, *, width: int = 1200, dark: bool = False) -> Page:
            context = browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme="dark" if dark else "light",
                extra_http_headers={"accept-language": language},
            )
            context.add_cookies([{"name": COOKIE, "value": centre.cookie(person), "url": url}])
            page = context.new_page()
            page.goto(f"{url}/hours")
            return page

        student, lead = comes(STUDENT, width=390, dark=True), comes(UNIV_LEAD)
        check_access(student)
        student.locator("#ask-hours").fill("6")
        student.locator("#ask-why").fill("마지막 실험 Last experiment")
        student.locator("#ask-why").press("Tab")
        student.keyboard.press("Enter")
        expect(student.get_by_role("status")).to_be_visible()
        assert student.evaluate("document.documentElement.scrollWidth <= innerWidth")
        student.screenshot(path=screenshot_path(f"hours-asked-{language}-phone-dark"), full_page=True)

        lead.reload()
        expect(lead.locator(".hg-rail .hg-badge")).to_contain_text("1")
        check_access(lead)
        lead.screenshot(path=screenshot_path(f"hours-to-answer-{language}"), full_page=True)
        field = lead.locator("#request-1-hours")
        field.focus()
        field.fill("4")
        field.press("Enter")
        expect(lead.get_by_role("status")).to_be_visible()
        expect(lead.locator(".hg-rail .hg-badge")).to_be_hidden()
        # The asker's page tells by itself.
        own = student.locator("#hours-own")
        expect(own).to_contain_text("univ-lead", timeout=20_000)
        check_access(student)
    with centre.store.reading() as txn:
        assert [(grant.person, grant.units) for grant in txn.grants()] == [("student", 4 * HOUR_UNITS)]


def test_the_date_in_the_form_is_a_local_one(centre: HoursCentre) -> None:
    centre.clock.at = NOW + 14 * 3600 + 3000  # 23:50 in Seoul, still the day before in London
    page = centre.visit(STUDENT).get(HOURS).text
    assert 'min="2027-03-10"' in page
    centre.clock.at += DAY // 24
    assert 'min="2027-03-11"' in centre.visit(STUDENT).get(HOURS).text
