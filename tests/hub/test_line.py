"""Who has to wait, on a real hub with its desk: a 409 that leads to the ticket, and a server that starts by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import expect

from tests.support.browser import chromium, needs_chromium, screenshot_path
from tests.support.hub import PASSWORD, EmbeddedHub, Visitor, wait_for

TICKETS = "/services/desk/api/v1/tickets"
H200 = {"profile": "h200", "minutes": 60}


@pytest.fixture
def student(hub: EmbeddedHub) -> Iterator[Visitor]:
    """Two servers run, which is as many GPUs as a student may have."""
    visitor = Visitor(hub, "student")
    for name in ("one", "two"):
        assert visitor.start(H200, name).status_code in (201, 202)
    for name in ("one", "two"):
        visitor.wait_until_ready(name)
    yield visitor
    token = visitor.api("POST", "/users/student/tokens", json={}).json()["token"]
    asking = {"Authorization": f"token {token}"}
    for ticket in httpx.get(f"{hub.url}{TICKETS}", headers=asking).json()["items"]:
        left = httpx.delete(f"{hub.url}{TICKETS}/{ticket['id']}", headers=asking)
        assert left.status_code == 204, left.text
    hub.command("stop-servers")
    wait_for(lambda: not hub.leases(), "nothing runs")


def test_a_start_by_rest_gets_409_with_its_ticket_and_starts_by_itself(
    hub: EmbeddedHub, student: Visitor
) -> None:
    waits = student.start(H200, "three")
    assert waits.status_code == 409, waits.text
    assert int(waits.headers["Retry-After"]) > 0
    ticket = waits.headers["Location"]
    assert ticket.startswith("/services/desk/tickets/")
    assert "in line" in waits.json()["message"]
    # Asked once more, it is the same place.
    assert student.start(H200, "three").headers["Location"] == ticket
    page = student.http.get(ticket)
    assert page.status_code == 200
    assert len(hub.leases()) == 2
    student.stop("one")
    stopped = time.monotonic()
    student.wait_until_ready("three")
    assert time.monotonic() - stopped < 20
    (lease,) = [lease for lease in hub.leases() if lease["server"] == "three"]
    assert lease["id"] == ticket.rpartition("/")[2], "the lease has its ticket's id"
    # What was chosen came along.
    assert lease["profile"] == "h200"


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("script", [True, False], ids=["with script", "without script"])
def test_the_form_ends_on_the_waiting_page(hub: EmbeddedHub, student: Visitor, script: bool) -> None:
    name = f"four-{script}".lower()
    with chromium() as browser:
        page = browser.new_context(locale="ko-KR", java_script_enabled=script).new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{hub.url}/hub/login?next=/hub/spawn/student/{name}")
        page.fill("input[name=username]", "student")
        page.fill("input[name=password]", PASSWORD)
        page.press("input[name=password]", "Enter")
        page.wait_for_url(f"**/hub/spawn/student/{name}**")
        page.locator("#card-h200 button[type=submit]").click()
        page.wait_for_url("**/services/desk/**")
        page.wait_for_url("**/services/desk/tickets/**")
        page.screenshot(path=screenshot_path(f"waiting-after-the-form-{'script' if script else 'plain'}"))
        expect(page.locator("main")).to_be_visible()
