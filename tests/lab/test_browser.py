"""JupyterLab in a real browser: the bar comes, counts down, extends, says why not, in both languages, and goes again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.axe import AXE, RULES
from tests.support.browser import chromium, needs_chromium, screenshot_path
from tests.support.hub import wait_for
from tests.support.notebook_desk import (
    BORROWED,
    TOKEN,
    Notebook,
    StandInDesk,
    ends_in,
    notebook,
    stand_in_desk,
)

pytestmark = [pytest.mark.browser, pytest.mark.slow, needs_chromium]

LANGUAGES = {"en": "en-US", "ko": "ko-KR"}
NOTICE = {
    "why": "taken-back",
    "for": "ticket-1",
    "sentence": {
        "en": "Borrowed: Han River Institute needs it back. Save your work.",
        "ko": "빌린 자원: 한강연구원이 다시 필요로 합니다. 작업을 저장해 주세요.",
    },
}
REFUSAL = {
    "en": "Not extended: 2 people of your institution are waiting.",
    "ko": "연장할 수 없습니다. 같은 기관에서 2명이 기다리고 있습니다.",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def desk() -> Iterator[StandInDesk]:
    with stand_in_desk() as found:
        yield found


@pytest.fixture(scope="module")
def lab(desk: StandInDesk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    with notebook(desk.url, tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture(autouse=True)
def calm(desk: StandInDesk) -> None:
    """The desk as it is before each story: a guaranteed lease with hours to go."""
    desk.fails, desk.ends_at, desk.guaranteed = "", ends_in(hours=4), True
    desk.notice = desk.extend = desk.refusal = None


AXE_ON_OURS = """
rules => axe.run(
  {include: [".hangang-bar", ".hangang-chip", ".hangang-unseen"].map(one => [one])},
  {runOnly: {type: "tag", values: rules}, resultTypes: ["violations"]},
)
"""


def violations(page: Page) -> list[str]:
    """What axe objects to in what is ours; the rest of the page is JupyterLab's."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found: dict[str, Any] = page.evaluate(AXE_ON_OURS, RULES)
    assert {rule["id"] for rule in found["passes"]} >= {"button-name", "link-name"}
    return [f"{one['id']}: {node['html']}" for one in found["violations"] for node in one["nodes"]]


CONTRASTS = """
nodes => nodes.map(node => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const over = ([r, g, b, a = 1], under) => [r, g, b].map((part, at) => part * a + under[at] * (1 - a));
  const layers = [];
  for (let at = node; at; at = at.parentElement) {
    layers.push(parse(getComputedStyle(at).backgroundColor));
  }
  const back = layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255]);
  const light = colour => colour
    .map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const pair = [light(over(parse(getComputedStyle(node).color), back)), light(back)].sort((a, b) => b - a);
  return [node.textContent, (pair[0] + 0.05) / (pair[1] + 0.05)];
})
"""
"""Of each node its text and WCAG's contrast ratio between it and what lies behind."""


class Open:
    """A lab in a window, and what the browser complained about."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda message: self.complaints.extend([message.text] if "hangang" in message.text else []),
        )

    @property
    def bar(self) -> Locator:
        return self.page.locator(".hangang-bar")

    @property
    def chip(self) -> Locator:
        return self.page.locator(".hangang-chip")

    def look_again(self) -> None:
        """As when somebody comes back to the tab."""
        self.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Looks again and again: the notebook's server asks the desk only every few seconds."""

        def met() -> Any:
            self.look_again()
            return condition()

        wait_for(met, what, 20, every=0.3)

    def left(self) -> int:
        """Seconds, as the bar says them."""
        minutes, seconds = re.search(r"(\d+):(\d\d)", self.bar.locator("[role=timer]").inner_text()).groups()  # type: ignore[union-attr]
        return int(minutes) * 60 + int(seconds)


@contextmanager
def opened(
    browser: Browser,
    lab: Notebook,
    language: str = "en",
    *,
    width: int = 1200,
    theme: str = "Light",
    **more: Any,
) -> Iterator[Open]:
    context = browser.new_context(
        viewport={"width": width, "height": 760}, locale=LANGUAGES[language], **more
    )
    try:
        page = context.new_page()
        # Not asked again in between, so that what is seen is what the story made of it.
        found = Open(page)
        set_theme(lab, theme)
        page.goto(f"{lab.url}lab?token={TOKEN}&reset")
        page.wait_for_selector("#jp-main-statusbar", state="attached")
        page.wait_for_selector(".jp-Launcher", state="attached")
        yield found
    finally:
        context.close()


def set_theme(lab: Notebook, theme: str) -> None:
    raw = json.dumps({"theme": f"JupyterLab {theme}"})
    path = "lab/api/settings/@jupyterlab/apputils-extension:themes"
    assert lab.ask(path, {"raw": raw}, method="PUT")[0] == 204


def notice(desk: StandInDesk, **ahead: float) -> None:
    desk.ends_at, desk.guaranteed = ends_in(**ahead), False
    desk.notice = {**NOTICE, "at": desk.ends_at.isoformat()}


def test_nothing_is_shown_where_nothing_matters(browser: Browser, lab: Notebook) -> None:
    with opened(browser, lab) as seen:
        with seen.page.expect_response(re.compile("/hangang/lease")):
            seen.look_again()
        seen.until(lambda: seen.bar.is_hidden() and seen.chip.is_hidden(), "neither bar nor chip")
        assert seen.complaints == []


def test_a_borrowed_server_has_a_quiet_chip(browser: Browser, lab: Notebook, desk: StandInDesk) -> None:
    desk.guaranteed = False
    with opened(browser, lab) as seen:
        seen.until(seen.chip.is_visible, "the chip")
        expect(seen.chip).to_have_text("◐Borrowed")
        title = seen.chip.get_attribute("title") or ""
        assert BORROWED["en"] in title
        assert "31.5 of 60 GPU-h left this week" in title
        expect(seen.bar).to_be_hidden()
        seen.page.screenshot(path=screenshot_path("lab-borrowed"))


@pytest.mark.parametrize(
    ("language", "width", "theme"),
    [("en", 1200, "Light"), ("ko", 1200, "Dark"), ("ko", 390, "Light"), ("en", 390, "Dark")],
)
def test_a_notice_comes_into_the_notebook_that_is_open(
    browser: Browser, lab: Notebook, desk: StandInDesk, language: str, width: int, theme: str
) -> None:
    desk.guaranteed = False
    with opened(browser, lab, language, width=width, theme=theme) as seen:
        seen.until(
            lambda: seen.chip.is_visible() and seen.bar.is_hidden(), "a borrowed server without a notice"
        )

        notice(desk, minutes=10)

        seen.until(seen.bar.is_visible, "the bar")
        expect(seen.bar).to_contain_text(NOTICE["sentence"][language])
        expect(seen.page.locator("[role=alert].hangang-unseen")).to_have_text(NOTICE["sentence"][language])
        assert 540 < seen.left() <= 600
        before = seen.left()
        expect(seen.bar.locator("[role=timer]")).not_to_contain_text(f"{before // 60}:{before % 60:02}")
        assert seen.left() < before
        box, below = seen.bar.bounding_box(), seen.page.locator("#jp-main-statusbar").bounding_box()
        assert box is not None
        assert below is not None
        assert box["y"] + box["height"] <= below["y"] + 1, "the bar stands above the status line"
        inside = seen.bar.locator(".hangang-bar-inside").evaluate(
            "node => [node.scrollWidth, node.clientWidth, node.offsetHeight, node.offsetWidth]"
        )
        assert inside[0] <= inside[1], "nothing is cut off at the side"
        assert inside[2] <= box["height"], "nothing is cut off below"
        assert inside[3] <= width, "it fits where the lab itself does not"
        seen.page.screenshot(path=screenshot_path(f"lab-notice-{language}-{width}-{theme.lower()}"))
        assert violations(seen.page) == [], "WCAG AA"
        # axe leaves contrast open where the lab stacks its areas.
        texts = seen.page.locator(
            ".hangang-bar span, .hangang-bar button, .hangang-bar a, .hangang-chip span"
        )
        contrasts = texts.evaluate_all(CONTRASTS)
        assert len(contrasts) >= 6
        assert [pair for pair in contrasts if pair[1] < 4.5] == [], "WCAG AA"
        assert seen.complaints == []


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_server_that_ends_soon_is_extended_by_keyboard(
    browser: Browser, lab: Notebook, desk: StandInDesk, language: str
) -> None:
    desk.ends_at = ends_in(minutes=12)
    desk.extend = {"possible": True, "until": ends_in(minutes=12 + 45).isoformat(), "sentence": None}
    with opened(browser, lab, language) as seen:
        seen.until(seen.bar.is_visible, "the bar")
        button = seen.bar.get_by_role("button", name={"en": "Extend by", "ko": "연장"}[language])
        expect(button).to_contain_text("4")
        button.focus()
        button.press("Enter")
        # There is time again: the bar goes, and a message says until when.
        expect(seen.bar).to_be_hidden()
        expect(seen.page.locator(".Toastify__toast")).to_contain_text(f"{desk.ends_at:%H:%M}")
        expect(seen.page.locator(".Toastify__toast")).to_be_in_viewport(ratio=1)
        assert ends_in(minutes=55) < desk.ends_at < ends_in(minutes=58)
        seen.page.screenshot(path=screenshot_path(f"lab-extended-{language}"))
        assert seen.complaints == []


@pytest.mark.parametrize("language", ["en", "ko"])
def test_it_says_why_a_server_is_not_extended(
    browser: Browser, lab: Notebook, desk: StandInDesk, language: str
) -> None:
    notice(desk, minutes=9)
    desk.refusal = REFUSAL
    before = desk.ends_at
    with opened(browser, lab, language) as seen:
        seen.until(seen.bar.is_visible, "the bar")
        seen.bar.get_by_role("button").click()
        expect(seen.bar).to_contain_text(REFUSAL[language])
        expect(seen.page.locator("[role=status].hangang-unseen")).to_have_text(REFUSAL[language])
        expect(seen.bar).to_contain_text(NOTICE["sentence"][language])
        assert desk.ends_at == before
        seen.page.screenshot(path=screenshot_path(f"lab-refused-{language}"))


def test_the_way_to_all_servers_leads_to_the_desk(browser: Browser, lab: Notebook, desk: StandInDesk) -> None:
    notice(desk, minutes=9)
    with opened(browser, lab) as seen:
        seen.until(seen.bar.is_visible, "the bar")
        link = seen.bar.get_by_role("link", name="My servers")
        expect(link).to_have_attribute("href", "/services/desk/mine")
        expect(link).to_have_attribute("target", "_blank")
        second = seen.bar.get_by_role("link", name="Start a CPU server beside it")
        expect(second).to_have_attribute("href", "/hub/spawn/student/cpu")


def test_a_notice_that_is_withdrawn_goes_again(browser: Browser, lab: Notebook, desk: StandInDesk) -> None:
    notice(desk, minutes=9)
    with opened(browser, lab) as seen:
        seen.until(seen.bar.is_visible, "the bar")
        desk.notice, desk.ends_at = None, ends_in(hours=3)
        seen.until(seen.bar.is_hidden, "no bar")
        expect(seen.chip).to_be_visible()


@pytest.mark.parametrize("fails", ["gone", "slow", "failing"])
def test_the_last_notice_stays_and_counts_down_while_the_desk_is_away(
    browser: Browser, lab: Notebook, desk: StandInDesk, fails: str
) -> None:
    notice(desk, minutes=9)
    with opened(browser, lab) as seen:
        seen.until(seen.bar.is_visible, "the bar")
        desk.fails = fails
        first = seen.left()
        seen.until(lambda: seen.left() < first, "a second less")
        seen.bar.get_by_role("button").click()
        expect(seen.bar).to_contain_text("The desk did not answer in time", timeout=15_000)
        expect(seen.bar).to_contain_text(NOTICE["sentence"]["en"])
        assert seen.left() < first


def test_a_hidden_tab_asks_nobody(browser: Browser, lab: Notebook, desk: StandInDesk) -> None:
    notice(desk, minutes=9)
    with opened(browser, lab) as seen:
        seen.until(seen.bar.is_visible, "the bar")
        seen.page.clock.install()
        asked: list[str] = []
        seen.page.on("request", lambda request: asked.append(request.url))
        seen.page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
        seen.look_again()
        seen.page.clock.run_for(120_000)
        assert [url for url in asked if "/hangang/" in url][1:] == [], "one look at most was on its way"
        seen.page.evaluate("Object.defineProperty(document, 'hidden', {value: false, configurable: true})")
        with seen.page.expect_request(re.compile("/hangang/lease")):
            seen.look_again()
