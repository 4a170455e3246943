"""The pages *mine* and *centre* on a real hub, with real servers: what the forms do is done, and who may see it."""

from __future__ import annotations

import csv
import io
import re
from datetime import datetime

import pytest
from playwright.sync_api import expect

from tests.support.browser import chromium, needs_chromium, screenshot_path
from tests.support.desk import AtTheDesk
from tests.support.hub import PASSWORD, EmbeddedHub, text_of, wait_for

CENTRE_PAGES = (
    "",
    "/queue",
    "/queue.csv",
    "/decisions",
    "/decisions.csv",
    "/machines.csv",
    "/policy",
    "/what-if",
)


def ends_at(hub: EmbeddedHub, person: str) -> datetime:
    (lease,) = [lease for lease in hub.leases() if lease["person"] == person]
    return datetime.fromisoformat(lease["ends_at"])


def test_a_server_is_seen_extended_and_stopped_from_the_page(hub: EmbeddedHub) -> None:
    student = AtTheDesk(hub, "student")
    assert "No server of yours runs" in text_of(student.page().text)

    student.start({"profile": "h200-slice", "minutes": 60})
    student.wait_until_ready()
    page = student.page().text
    shown = text_of(page)
    assert "Your server" in shown
    assert "1/7 H200 (18 GB)" in shown
    assert 'href="/user/student/"' in page

    (lease,) = {*re.findall(r'name="lease" value="(\w+)"', page)}
    before = ends_at(hub, "student")
    answer = student.post("/mine/extend", lease=lease, minutes="30")
    assert "The server runs longer now." in text_of(answer.text)
    assert (ends_at(hub, "student") - before).total_seconds() == 30 * 60

    answer = student.post("/mine/stop", lease=lease)
    assert "The server is being stopped." in text_of(answer.text)
    wait_for(lambda: not student.servers(), "the hub knows of no server")
    wait_for(lambda: not hub.leases(), "the lease is released")
    assert "No server of yours runs" in text_of(student.page().text)


def test_an_operator_sees_whose_slice_it_is_and_why_it_ended(hub: EmbeddedHub) -> None:
    student, operator = AtTheDesk(hub, "student"), AtTheDesk(hub, "operator")
    student.start({"profile": "h200-slice", "minutes": 60})
    student.wait_until_ready()
    cells = re.findall(
        r'class="hd-cell hd-cell--(?:guaranteed|borrowed)" title="([^"]*)"', operator.page("/centre").text
    )
    assert len(cells) == 1
    assert "student (Hangang University)" in cells[0]

    student.stop()
    wait_for(lambda: not hub.leases(), "the lease is released")
    rows = list(csv.DictReader(io.StringIO(operator.page("/centre/decisions.csv?person=student").text[1:])))
    assert rows[0]["kind"] == "released"
    assert {"booked", "running"} <= {row["kind"] for row in rows}
    log = text_of(operator.page("/centre/decisions?person=student&kind=released").text)
    assert "stopped" in log


def test_what_if_plays_this_very_hub(hub: EmbeddedHub) -> None:
    operator = AtTheDesk(hub, "operator")
    page = operator.page("/centre/what-if?from=now").text
    found = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.DOTALL)
    assert found is not None
    scenario = found[1].replace("&#34;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    answer = operator.post("/centre/what-if", scenario=scenario)
    assert answer.status_code == 200, text_of(answer.text)
    assert "what-if-1" in text_of(answer.text)


def test_the_centre_is_closed_to_everybody_else(hub: EmbeddedHub) -> None:
    for name in ("student", "lead"):
        person = AtTheDesk(hub, name)
        for page in CENTRE_PAGES:
            answer = person.page(f"/centre{page}")
            assert answer.status_code == 403, (name, page)
        assert "/services/desk/centre" not in person.page().text
        assert person.post("/centre/what-if", scenario="now: [").status_code == 403


@pytest.mark.browser
@needs_chromium
def test_a_page_that_is_open_follows_what_happens_and_acts(hub: EmbeddedHub) -> None:
    """In a real browser, signed in by the real door: a server comes up on the page, runs longer, and goes."""
    student = AtTheDesk(hub, "student")
    with chromium() as browser:
        page = browser.new_page(base_url=hub.url, locale="ko-KR", viewport={"width": 390, "height": 844})
        page.set_default_timeout(30_000)
        page.goto("/services/desk/mine")
        page.fill("input[name=username]", "student")
        page.fill("input[name=password]", PASSWORD)
        page.press("input[name=password]", "Enter")
        page.wait_for_url("**/services/desk/mine")
        expect(page.locator("#mine-servers")).to_contain_text("실행 중인 서버가 없습니다")
        page.evaluate("window.loadedOnce = true")

        student.start({"profile": "h200-slice", "minutes": 60})
        student.wait_until_ready()
        server = page.locator("#mine-servers article")
        expect(server).to_contain_text("실행 중", timeout=30_000)
        assert page.evaluate("window.loadedOnce") is True
        page.screenshot(path=screenshot_path("desk-mine-on-a-hub-ko-390"), full_page=True)

        before = ends_at(hub, "student")
        server.get_by_role("button", name="연장").click()
        expect(page.get_by_role("status")).to_contain_text("서버 사용 시간이 늘었습니다.")
        assert ends_at(hub, "student") > before

        page.once("dialog", lambda dialog: dialog.accept())
        server.get_by_role("button", name=re.compile("종료|중지")).click()
        expect(page.get_by_role("status")).to_contain_text("서버를 멈추고 있습니다.")
        expect(page.locator("#mine-servers")).to_contain_text("실행 중인 서버가 없습니다", timeout=60_000)
        browser.close()
    wait_for(lambda: not hub.leases(), "the lease is released")
