"""A small centre with short times, and people in it who use it in browsers of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.browser import screenshot_path
from tests.support.desk import DESK
from tests.support.hub import PASSWORD, EmbeddedHub, wait_for

NOTICE: Final = 30
"""Seconds between a notice and the end."""
CLAIM: Final = 20
"""Seconds for which a server waits for whoever it was started for."""

SOFT: Final = 6
"""Seconds of a slice from which on its hours, that last a minute, are told to be nearly used up."""

POOLS: Final = f"""
version: 1
timezone: Asia/Seoul
gpu_classes:
  h200: {{resource: nvidia.com/gpu, hours: "1", memory: 141Gi}}
  h200-1g: {{resource: nvidia.com/mig-1g.18gb, hours: "60", memory: 18Gi}}
rates: {{guaranteed: "1", borrowed: "0.5", reservation: "1"}}
queue: {{patience: 15m, claim: {CLAIM}s, half_life: 7d, starts: 64}}
pools:
  seoul:
    kind: centre
    title: {{en: Seoul Hangang AI, ko: 서울 한강 AI}}
    quota: {{cpu: {{nominal: 64}}, memory: {{nominal: 1Ti}}}}
    person: {{servers: 3}}
    session: {{min: 10s, max: 25m, protected: 5s, notice: {NOTICE}s, grace: 10s}}
  public-interest:
    parent: seoul
    kind: sector
    title: {{en: Public interest sector, ko: 공익 부문}}
  hangang-univ:
    parent: public-interest
    kind: institution
    title: {{en: Hangang University, ko: 한강대학교}}
    quota: {{gpu.h200: {{nominal: 1}}}}
  hangang-ai-course:
    parent: hangang-univ
    kind: course
    title: {{en: Introduction to AI (course), ko: 인공지능 입문(수업)}}
  hanbit-coop:
    parent: public-interest
    kind: institution
    title: {{en: Hanbit Cooperative (social enterprise), ko: 한빛협동조합(사회적기업)}}
    quota: {{gpu.h200-1g: {{nominal: 1}}}}
    budgets: [{{hours: 1, period: week, each: person, soft: 0.1}}]
  private:
    parent: seoul
    kind: sector
    title: {{en: Private sector, ko: 민간 부문}}
  naru-robotics:
    parent: private
    kind: institution
    title: {{en: Naru Robotics (startup), ko: 나루로보틱스(스타트업)}}
    quota: {{gpu.h200: {{nominal: 0}}}}
"""
"""One H200, which is the university's and which the startup may borrow; one slice, with hours that last a minute."""

PEOPLE: Final = """
version: 1
people:
  founder:
    title: {en: Founder, ko: 창업자}
    pools: [naru-robotics]
    roles: [researcher]
  student:
    title: {en: Student, ko: 학생}
    pools: [hangang-univ]
    roles: [student]
  member:
    title: {en: Member, ko: 조합원}
    pools: [hanbit-coop]
    roles: [researcher]
  lead:
    title: {en: Lead, ko: 책임자}
    pools: [public-interest]
    roles: [lead]
"""
NODE: Final = {"gpu.h200": 1, "gpu.h200-1g": 1, "cpu": 64, "memory": "1Ti"}
LOCALES: Final = {"en": "en-US", "ko": "ko-KR"}
HARMLESS: Final = re.compile(
    r"status of (40[349]|424|50[0-9])|ERR_|WebSocket|jupyter|lumino|deprecat", re.IGNORECASE
)
"""What a browser says of pages that answer so, of servers that end, and of the lab's own parts."""


@dataclass
class Seat:
    """One person's browser; `page` is the window they look at."""

    hub: EmbeddedHub
    name: str
    page: Page
    complaints: list[str]

    @property
    def lab(self) -> str:
        return f"{self.hub.url}/user/{self.name}/lab"

    def go(self, path: str) -> None:
        self.page.goto(f"{self.hub.url}{path}")

    def desk(self, path: str = "/mine") -> None:
        self.go(f"{DESK}{path}")

    def beside(self) -> Seat:
        """Another window of the same person."""
        return Seat(
            self.hub, self.name, _watched(self.page.context.new_page(), self.complaints), self.complaints
        )

    def look(self, picture: str, *, full: bool = False) -> None:
        self.page.screenshot(path=screenshot_path(f"story-{picture}"), full_page=full)

    # -- what they do ---------------------------------------------------------------------------------------------

    def start(self, profile: str) -> None:
        """By the form of the start page."""
        self.go("/hub/spawn")
        self.page.locator(f"#card-{profile} button[type=submit]").click()

    def in_the_lab(self) -> None:
        """Until JupyterLab stands in this window."""
        self.page.wait_for_url(re.compile(rf"/user/{self.name}/lab"), timeout=60_000)
        self.page.wait_for_selector("#jp-main-statusbar", state="attached", timeout=60_000)

    def come_back_until(self, condition: Callable[[], Any], what: str) -> None:
        """Go away from the window and come back, which asks the desk anew."""

        def met() -> Any:
            self.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            return condition()

        wait_for(met, what, 30, every=0.5)

    # -- what they see --------------------------------------------------------------------------------------------

    @property
    def bar(self) -> Locator:
        return self.page.locator(".hangang-bar")

    @property
    def chip(self) -> Locator:
        return self.page.locator(".hangang-chip")

    def seconds_left(self) -> int:
        """As the bar says them."""
        text = self.bar.locator("[role=timer]").inner_text()
        found = re.search(r"(\d+):(\d\d)", text)
        assert found is not None, text
        return int(found[1]) * 60 + int(found[2])


def take_a_seat(browser: Browser, hub: EmbeddedHub, name: str, language: str = "en", **more: Any) -> Seat:
    """A browser of one person who signs in."""
    context = browser.new_context(
        locale=LOCALES[language], **{"viewport": {"width": 1200, "height": 800}, **more}
    )
    context.set_default_timeout(30_000)
    complaints: list[str] = []
    seat = Seat(hub, name, _watched(context.new_page(), complaints), complaints)
    seat.go("/hub/login?next=/hub/home")
    seat.page.fill("#username_input", name)
    seat.page.fill("#password_input", PASSWORD)
    seat.page.click("#login_submit")
    expect(seat.page.locator("#hg-servers")).to_be_visible()
    return seat


def _watched(page: Page, complaints: list[str]) -> Page:
    def note(text: str) -> None:
        if not HARMLESS.search(text):
            complaints.append(text)

    page.on("pageerror", lambda error: note(str(error)))
    page.on("console", lambda message: note(message.text) if message.type == "error" else None)
    return page
