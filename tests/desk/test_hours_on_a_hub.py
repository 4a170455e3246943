"""Requests for hours on a real hub, with its own people, sessions and tokens."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hub_ext.desk.usage import names
from tests.support.desk import API, DESK, AtTheDesk, with_token
from tests.support.hub import EmbeddedHub, text_of

NEW = {"pool": "hangang-univ", "period": "week", "person": "student", "hours": 30, "why": "The thesis"}


@pytest.fixture
def student(hub: EmbeddedHub) -> AtTheDesk:
    return AtTheDesk(hub, "student")


@pytest.fixture
def lead(hub: EmbeddedHub) -> AtTheDesk:
    """Leads the city's traffic office, and nothing else."""
    return AtTheDesk(hub, "lead")


@pytest.fixture
def operator(hub: EmbeddedHub) -> AtTheDesk:
    return AtTheDesk(hub, "operator")


def until(person: AtTheDesk) -> str:
    """A day that the form itself proposes."""
    found = re.search(r'id="ask-until"[^>]* value="([0-9-]+)"', person.page("/hours").text)
    assert found is not None
    return found[1]


def own_week(person: AtTheDesk) -> dict[str, Any]:
    budgets = person.calls("GET", "/budgets").json()["items"]
    (found,) = [one for one in budgets if one["person"] == person.name and one["pool"] == "hangang-univ"]
    return dict(found)


def test_hours_that_are_granted_are_on_the_start_page(
    hub: EmbeddedHub, student: AtTheDesk, lead: AtTheDesk, operator: AtTheDesk
) -> None:
    before = own_week(student)["limit"]
    day = until(student)
    form = {
        "budget": "hangang-univ|week:person|student",
        "hours": "30",
        "until": day,
        "why": "The thesis is due",
    }
    sent = student.post("/hours", **form)
    assert "Your request was sent" in text_of(sent.text)
    # Who leads another pool sees nothing of it; the operator does, and grants less.
    assert "The thesis" not in lead.page("/hours").text
    page = operator.page("/hours").text
    assert "The thesis is due" in page
    assert operator.page("/hours/count").json()["to_answer"] == 1
    (request,) = set(re.findall(r'data-request="([0-9a-f]{32})"', page))
    refused = lead.post("/hours/answer", request=request, verdict="grant")
    assert refused.status_code == 404
    done = operator.post(
        "/hours/answer", request=request, verdict="grant", hours="20", until=day, answer="Go"
    )
    assert "The hours are granted" in text_of(done.text)
    assert own_week(student)["limit"] == before + 20
    told = text_of(student.page("/hours").text)
    assert "20 GPU-hours granted until" in told
    start = student.http.get("/hub/spawn").text
    assert f"of {before + 20:g} GPU-h" in text_of(start)
    assert f'href="{DESK}/hours#ask"' in start


def test_tokens_carry_no_more_than_their_scopes(
    hub: EmbeddedHub, student: AtTheDesk, operator: AtTheDesk
) -> None:
    body = NEW | {"pool": "hangang-univ", "until": until(student)}
    own = student.token("custom:desk:read", "access:services!service=desk")
    made = with_token(hub, own, "POST", "/requests", json=body)
    assert made.status_code == 201, made.text
    path = f"/requests/{made.json()['id']}"
    reads = operator.token("custom:desk:read", "access:services!service=desk")
    operates = operator.token("custom:desk:operate", "access:services!service=desk")
    answer = {"granted": False, "answer": "No"}
    assert with_token(hub, reads, "GET", path).status_code == 404
    assert with_token(hub, reads, "POST", f"{path}/answer", json=answer).status_code == 404
    assert with_token(hub, own, "POST", f"{path}/answer", json=answer).status_code == 403
    done = with_token(hub, operates, "POST", f"{path}/answer", json=answer)
    assert (done.status_code, done.json()["state"]) == (200, "declined")
    for token, status in (("forged", 401), (own, 200)):
        assert with_token(hub, token, "GET", "/usage").status_code == status


def test_a_student_has_no_page_of_a_pool(student: AtTheDesk, lead: AtTheDesk) -> None:
    for query in ("", "?pool=hangang-univ", "?pool=city-traffic"):
        assert student.page(f"/pool{query}").status_code == 403
        assert student.page(f"/pool/grants.csv{query}").status_code == 403
    assert lead.page("/pool").status_code == 200
    assert "City Traffic Office" in lead.page("/pool").text
    other = lead.page("/pool?pool=hangang-univ")
    assert other.status_code == 404
    assert "Hangang University" not in other.text


def test_a_browser_downloads_what_a_token_gets(hub: EmbeddedHub, student: AtTheDesk) -> None:
    token = student.token("custom:desk:read", "access:services!service=desk")
    assert student.page("/mine").status_code == 200  # signed in at the desk as well
    path = "/usage?format=csv&by=day"
    by_token = with_token(hub, token, "GET", path)
    by_browser = student.http.get(f"{API}{path}", headers={"Sec-Fetch-Mode": "navigate"})
    assert by_token.text.splitlines()[0] == ",".join(names("day"))
    assert (by_browser.status_code, by_browser.text) == (200, by_token.text)
    by_a_foreign_script = student.http.get(f"{API}{path}", headers={"Sec-Fetch-Mode": "cors"})
    assert by_a_foreign_script.status_code == 403
