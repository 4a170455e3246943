"""The whole way on one machine: a hub that was started as people start it, its desk, and a notebook that asks it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.browser import chromium, needs_chromium, screenshot_path
from tests.support.hub import PASSWORD, EmbeddedHub, Visitor, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedHub]:
    one = EmbeddedHub(tmp_path_factory.mktemp("hub"))
    try:
        one.start()
        yield one
    finally:
        for name in ("hub", "desk"):
            print(f"--- {name}.log\n{one.log(name)[-4000:]}")
        one.stop()


@pytest.fixture
def student(hub: EmbeddedHub) -> Iterator[Visitor]:
    """With a server on a GPU that ends in a quarter of an hour."""
    student = Visitor(hub, "student")
    student.submit_form("h200", minutes="15")
    student.wait_until_ready()
    yield student
    student.stop()
    wait_for(lambda: not hub.leases(), "the lease is released")


def lease_of(student: Visitor, language: str = "en", **query: str) -> dict[str, Any]:
    # Cookies alone are enough to read; the first visit signs in at the server.
    answer = student.http.get(
        "/user/student/hangang/lease", params=query, headers={"Accept-Language": language}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def known(student: Visitor, language: str = "en") -> dict[str, Any]:
    def told() -> dict[str, Any] | None:
        found = lease_of(student, language, now="1")
        return found if found["left"] is not None else None

    return dict(wait_for(told, "what the desk says of the lease", 30))


def test_the_notebook_knows_its_own_lease_and_extends_it(hub: EmbeddedHub, student: Visitor) -> None:
    student.http.get("/user/student/lab")
    (lease,) = hub.leases()
    ends = datetime.fromisoformat(lease["ends_at"])

    english = known(student)
    assert english["mood"] in ("soon", "notice")
    assert 0 < english["left"] <= 15 * 60
    assert ends.strftime("%H:%M") in " ".join([english["sentence"], *english["details"]])
    assert any("GPU-h" in line for line in english["details"])
    korean = known(student, "ko")
    assert re.search("[가-힣]", korean["sentence"])

    answer = student.http.post(
        "/user/student/hangang/extend",
        json={"minutes": 30},
        headers={"X-XSRFToken": xsrf_of(student), "Referer": f"{hub.url}/user/student/lab"},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["done"] is True, answer.json()
    (lease,) = hub.leases()
    assert datetime.fromisoformat(lease["ends_at"]) == ends + timedelta(minutes=30)
    assert answer.json()["view"]["mood"] in ("quiet", "borrowed")


def xsrf_of(student: Visitor) -> str:
    jar = student.http.cookies.jar
    return next(str(one.value) for one in jar if one.name == "_xsrf" and one.path == "/user/student/")


@pytest.mark.browser
@needs_chromium
def test_a_person_extends_in_the_lab(hub: EmbeddedHub, student: Visitor) -> None:
    (lease,) = hub.leases()
    with chromium() as browser:
        page = browser.new_context(base_url=hub.url, locale="ko-KR").new_page()
        page.goto("/hub/login?next=/user/student/lab")
        page.fill("#username_input", "student")
        page.fill("#password_input", PASSWORD)
        page.click("#login_submit")
        bar = page.locator(".hangang-bar")
        expect(bar).to_be_visible(timeout=60_000)
        page.screenshot(path=screenshot_path("lab-with-the-desk-ko"))
        bar.get_by_role("button", name="연장").click()
        expect(bar).to_be_hidden(timeout=15_000)
    (longer,) = hub.leases()
    assert longer["ends_at"] > lease["ends_at"]
