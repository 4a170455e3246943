"""The pages in a real browser, on a real embedded hub: nothing is blocked, nothing overflows, keys are enough."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.hub import PASSWORD, EmbeddedHub

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LANGUAGES = {"en": "en-US", "ko": "ko-KR"}
PAGES = ("login", "home", "spawn", "token", "nowhere")
EXPECTED = re.compile(r"Failed to load resource.*status of (403|404|409|424)")
"""What Chromium says of a page that itself answers with such a status."""


class Seen:
    """What the browser complained about, and where it went."""

    def __init__(self, page: Page, home: str) -> None:
        self.complaints: list[str] = []
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._went(request.url, home))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not EXPECTED.search(text):
            self.complaints.append(text)

    def _went(self, address: str, home: str) -> None:
        if not address.startswith((home, "data:")):
            self.complaints.append(f"loads from elsewhere: {address}")


Open = Callable[..., tuple[Page, Seen]]


@pytest.fixture
def open_page(browser: Browser, hub: EmbeddedHub) -> Iterator[Open]:
    contexts = []

    def one(
        language: str = "en", *, width: int = 1200, scheme: str = "light", script: bool = True
    ) -> tuple[Page, Seen]:
        context = browser.new_context(
            base_url=hub.url,
            viewport={"width": width, "height": 900},
            locale=LANGUAGES[language],
            color_scheme=scheme,  # type: ignore[arg-type]
            java_script_enabled=script,
        )
        contexts.append(context)
        page = context.new_page()
        return page, Seen(page, hub.url)

    yield one
    for context in contexts:
        context.close()


def sign_in(page: Page, name: str = "student") -> None:
    page.goto("/hub/login?next=/hub/home")
    page.fill("#username_input", name)
    page.fill("#password_input", PASSWORD)
    page.click("#login_submit")
    page.wait_for_url("**/hub/home")


@pytest.mark.parametrize(("language", "width", "scheme"), [("en", 1200, "light"), ("ko", 390, "dark")])
def test_every_page_is_drawn_whole(
    open_page: Open, language: str, width: int, scheme: str, tmp_path: Path
) -> None:
    page, seen = open_page(language, width=width, scheme=scheme)
    sign_in(page)
    for name in PAGES:
        page.goto(f"/hub/{name}")
        assert page.locator("html").get_attribute("lang") == language, name
        assert page.locator("html").get_attribute("data-bs-theme") == scheme, name
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{name} scrolls sideways by {wider} px"
        expect(page.get_by_text({"en": "Simulated GPUs", "ko": "모의 GPU"}[language])).to_be_visible()
        loaded = page.evaluate(
            "document.fonts.ready.then(() => document.fonts.check('16px \"Pretendard Variable\"'))"
        )
        assert loaded, name
    assert seen.complaints == []


def test_the_switch_of_language_is_remembered(open_page: Open) -> None:
    page, _ = open_page("ko")
    page.goto("/hub/login")
    expect(page.get_by_role("heading", name="로그인", exact=True)).to_be_visible()
    page.click(".hg-languages a[lang=en]")
    expect(page.get_by_role("heading", name="Sign in", exact=True)).to_be_visible()
    assert page.url.endswith("/hub/login")
    sign_in(page)
    page.goto("/hub/spawn")
    expect(page.get_by_role("heading", name="Start a server")).to_be_visible()


def test_a_card_follows_what_is_chosen_on_it(open_page: Open) -> None:
    page, seen = open_page()
    sign_in(page)
    page.goto("/hub/spawn")
    card = page.locator('[data-card="h200-slice"]')
    until = card.locator('[data-part="until"]')
    before = until.inner_text()
    card.locator('[name="profile-option-h200-slice--minutes"]').select_option("60")
    assert until.inner_text() != before
    memory = page.locator('[data-card="cpu-large"]')
    memory.locator('[name="profile-option-cpu-large--memory"]').select_option("128gb")
    expect(memory.locator('[data-part="sizes"]')).to_have_text("16 CPU · 128 GB memory")
    refused = page.locator('[data-card="h200-4"]')
    expect(refused.get_by_role("button")).to_be_disabled()
    expect(refused.locator('[data-part="sentence"]')).to_contain_text("2 × H200")
    assert seen.complaints == []


def test_a_server_is_started_and_the_start_cancelled_with_keys_alone(open_page: Open) -> None:
    page, seen = open_page()
    sign_in(page)
    page.goto("/hub/spawn")
    wanted = 'button[name="profile"][value="cpu-small"]'
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(f"document.activeElement.matches('{wanted}')"):
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is seen"
    page.keyboard.press("Enter")
    page.wait_for_url("**/hub/spawn-pending/**")
    expect(page.locator("#progress-message")).not_to_be_empty()
    page.locator("#stop-server-btn").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/hub/home", timeout=60_000)
    assert seen.complaints == []


def test_a_refusal_is_told_above_the_cards_and_read_out(open_page: Open) -> None:
    page, _ = open_page("ko")
    sign_in(page)
    page.goto("/hub/spawn")
    page.evaluate("document.querySelector('button[value=\"h200-4\"]').disabled = false")
    page.click('button[value="h200-4"]')
    told = page.get_by_role("alert")
    expect(told).to_contain_text("한강대학교의 1인 한도를 넘습니다")
    expect(told).not_to_contain_text("SpawnException")
    expect(page.locator(".hg-card")).not_to_have_count(0)


def test_without_script_the_page_still_starts_servers(open_page: Open) -> None:
    page, _ = open_page(script=False)
    sign_in(page)
    page.goto("/hub/spawn")
    button = page.locator('button[value="h200-slice"]')
    expect(button).to_be_enabled()
    expect(page.locator('button[value="h200-4"]')).to_be_disabled()
    expect(page.locator('[data-card="h200-slice"] select')).to_have_count(1)
