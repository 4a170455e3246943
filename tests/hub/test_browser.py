"""The whole story in a real Chromium, with pictures of every step kept under `reports/screenshots/`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import chromium, needs_chromium, screenshot_path
from tests.support.hub import PASSWORD, EmbeddedHub, wait_for
from tests.support.story import run_notebook_in

pytestmark = [pytest.mark.browser, needs_chromium]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture(autouse=True)
def nothing_runs_after(hub: EmbeddedHub) -> Iterator[None]:
    """A test that fails leaves no server to the next."""
    yield
    if hub.leases():
        hub.command("stop-servers")


def signed_in(
    browser: Browser, hub: EmbeddedHub, name: str, *, locale: str = "en-US", width: int = 1200
) -> Page:
    page = browser.new_context(locale=locale, viewport={"width": width, "height": 900}).new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{hub.url}/hub/login?next=/hub/home")
    page.fill("input[name=username]", name)
    page.fill("input[name=password]", PASSWORD)
    page.press("input[name=password]", "Enter")
    page.wait_for_url("**/hub/home")
    return page


def stop_server(page: Page, hub: EmbeddedHub) -> None:
    """By the button on the home page."""
    page.goto(f"{hub.url}/hub/home")
    page.wait_for_load_state("networkidle")
    page.get_by_role("button", name="Stop").click()
    wait_for(lambda: not hub.leases(), "the lease is released")


def test_a_student_signs_in_starts_a_slice_runs_the_notebook_and_stops(
    browser: Browser, hub: EmbeddedHub
) -> None:
    page = signed_in(browser, hub, "student")
    page.goto(f"{hub.url}/hub/spawn")
    slice_card = page.locator("#card-h200-slice")
    expect(slice_card).to_contain_text("Now")
    expect(page.locator("#card-h200-4")).to_contain_text("Not possible")
    expect(page.locator("body")).to_contain_text("Simulated")
    page.screenshot(path=screenshot_path("start"), full_page=True)

    slice_card.get_by_role("button", name="Start").click()
    page.wait_for_url(re.compile("/user/student/lab"))
    page.wait_for_selector("#jp-main-dock-panel")
    (lease,) = hub.leases()
    assert lease["profile"] == "h200-slice"

    run_notebook_in(page, f"{hub.url}/user/student", "notebook")

    page.goto(f"{hub.url}/hub/home")
    page.screenshot(path=screenshot_path("home"), full_page=True)
    stop_server(page, hub)
    assert "student" in hub.command("usage", "--by", "person")
    page.context.close()


def test_the_start_page_works_by_keyboard_alone(browser: Browser, hub: EmbeddedHub) -> None:
    page = signed_in(browser, hub, "lead")
    page.goto(f"{hub.url}/hub/spawn")
    for _ in range(40):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "() => { const e = document.activeElement; return [e.tagName, e.name || '', e.value || ''].join(' ') }"
        )
        if focused == "BUTTON profile cpu-small":
            break
    else:
        raise AssertionError("Tab never reached the start button of the small CPU server")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/user/lead/lab"))
    stop_server(page, hub)
    page.context.close()


@pytest.mark.parametrize("width", [1200, 390], ids=["on a desk", "on a phone"])
def test_in_korean_the_page_is_korean_and_fits_the_window(
    browser: Browser, hub: EmbeddedHub, width: int
) -> None:
    page = signed_in(browser, hub, "researcher", locale="ko-KR", width=width)
    page.goto(f"{hub.url}/hub/spawn")
    expect(page.locator("h1")).to_have_text("서버 시작")
    assert page.evaluate("() => document.documentElement.lang") == "ko"
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    page.screenshot(path=screenshot_path(f"start-ko-{width}"), full_page=True)
    page.context.close()


def test_a_refused_start_shows_the_sentence_and_what_is_possible_instead(
    browser: Browser, hub: EmbeddedHub
) -> None:
    page = signed_in(browser, hub, "student")
    page.goto(f"{hub.url}/hub/spawn?opt-profile=h200-4")
    refusal = page.get_by_role("alert")
    expect(refusal).to_contain_text("H200")
    expect(refusal).to_contain_text("Possible now")
    page.screenshot(path=screenshot_path("refused"), full_page=True)
    page.context.close()


def test_no_page_loads_anything_from_elsewhere(browser: Browser, hub: EmbeddedHub) -> None:
    page = signed_in(browser, hub, "student")
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    for path in ("/hub/home", "/hub/spawn", "/hub/token"):
        page.goto(f"{hub.url}{path}")
        page.wait_for_load_state("networkidle")
    assert {url for url in asked if not url.startswith((hub.url, "data:"))} == set()
    assert faults == []
    page.context.close()
