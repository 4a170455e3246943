"""Signing in through Keycloak in a real Chromium, with pictures under `reports/screenshots/`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.auth.conftest import MakeHub
from tests.support.browser import chromium, needs_chromium, screenshot_path
from tests.support.hub import EmbeddedHub
from tests.support.keycloak import PASSWORD, needs_java

pytestmark = [pytest.mark.keycloak, pytest.mark.browser, pytest.mark.slow, needs_java, needs_chromium]


@pytest.fixture(scope="module")
def hub(make_provider_hub: MakeHub) -> EmbeddedHub:
    return make_provider_hub(refresh="5m")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.mark.parametrize(
    ("locale", "width", "want_button", "want_header", "want_refusal"),
    [
        pytest.param("en-US", 1200, "Sign in with Hangang ID", "Hangang University", "no rule of this centre gives you a pool", id="in English on a desk"),
        pytest.param("ko-KR", 390, "로그인: 한강 아이디", "한강대학교", "자원 풀", id="in Korean on a phone"),
    ],
)  # fmt: skip
def test_there_and_back_and_out_again(
    browser: Browser,
    hub: EmbeddedHub,
    locale: str,
    width: int,
    want_button: str,
    want_header: str,
    want_refusal: str,
) -> None:
    page = browser.new_context(locale=locale, viewport={"width": width, "height": 900}).new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{hub.url}/hub/login?next=/hub/home")
    button = page.get_by_role("button", name=want_button)
    expect(button).to_be_visible()
    expect(page.locator("input[type=password]")).to_have_count(0)
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    page.screenshot(path=screenshot_path(f"provider-login-{locale}-{width}"), full_page=True)

    button.click()
    page.fill("#username", "haneul")
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")
    page.wait_for_url("**/hub/home")
    expect(page.locator("header")).to_contain_text(want_header)
    expect(page.locator("header")).to_contain_text("Haneul Lee")
    page.screenshot(path=screenshot_path(f"provider-home-{locale}-{width}"), full_page=True)

    page.goto(f"{hub.url}/hub/logout")
    page.wait_for_url("**/hub/login")
    page.get_by_role("button", name=want_button).click()
    page.fill("#username", "stranger")
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")
    page.wait_for_url("**/hub/oauth_callback**")
    expect(page.locator("main")).to_contain_text(want_refusal)
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    page.screenshot(path=screenshot_path(f"provider-refused-{locale}-{width}"), full_page=True)
    page.context.close()
