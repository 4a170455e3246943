"""The pages *mine* and *centre* in a real Chromium: open to everybody (axe, keys, phone, dark), and live."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect

from hub_ext.core.clock import HOUR, MINUTE
from hub_ext.core.people import Person
from hub_ext.quota.model import Eta
from tests.desk.lively import NEIGHBOUR, OPERATOR_PERSON, POLICY, START, STUDENT, Lively, lively
from tests.support.axe import check_access
from tests.support.browser import chromium, needs_chromium, screenshot_path
from tests.support.databases import Database
from tests.support.hub import free_port, wait_for

pytestmark = [pytest.mark.browser, needs_chromium]

LANGUAGES = {"en": "en-US", "ko": "ko-KR"}
CENTRE = "/services/desk/centre"
OF_A_FAULT = re.compile("status of 422")
"""What Chromium says of a page that itself answers so."""
OF_AXE = re.compile("inline style|preload assets|status of 422")
"""axe styles what it measures and loads sheets anew, which the page itself may not."""
PAGES = {
    "mine": (STUDENT, "/services/desk/mine"),
    "centre": (OPERATOR_PERSON, CENTRE),
    "queue": (OPERATOR_PERSON, f"{CENTRE}/queue"),
    "decisions": (OPERATOR_PERSON, f"{CENTRE}/decisions"),
    "policy": (OPERATOR_PERSON, f"{CENTRE}/policy"),
    "what-if": (OPERATOR_PERSON, f"{CENTRE}/what-if?from=now"),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture
def centre(sqlite_database: Database) -> Iterator[Lively]:
    """With a notice, a line, a changed policy and a refusal."""
    made = lively(sqlite_database)
    made.load(POLICY.replace("gpu.h200: {nominal: 6}", "gpu.h200: {nominal: 6, lend: 6}"))
    made.take_back("idle", START + 10 * MINUTE, "theirs")
    made.wait("later", place=2, eta=Eta(START + HOUR, "expected"))
    made.wait("theirs", NEIGHBOUR, eta=Eta(START + 10 * MINUTE, "latest"))
    yield made
    made.store.close()


@contextmanager
def served(centre: Lively, person: Person) -> Iterator[str]:
    """The desk at an address of its own, where this person is signed in."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(centre.app(person), host="127.0.0.1", port=port, log_level="warning", ws="none")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started, "the desk listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def opened(
    browser: Browser,
    home: str,
    path: str,
    *,
    language: str = "en",
    width: int = 1200,
    scheme: str = "light",
    looked_over: bool = False,
) -> Iterator[Page]:
    """A page that complained about nothing when it is closed."""
    context = browser.new_context(
        base_url=home,
        viewport={"width": width, "height": 900},
        locale=LANGUAGES[language],
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on(
        "console",
        lambda told: complaints.append(told.text) if told.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((home, "data:"))
            else complaints.append(f"elsewhere: {request.url}")
        ),
    )
    try:
        page.goto(path)
        yield page
        expected = OF_AXE if looked_over else OF_A_FAULT
        assert [told for told in complaints if not expected.search(told)] == []
    finally:
        context.close()


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


# -- open to everybody ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_open_to_everybody(browser: Browser, centre: Lively, name: str) -> None:
    person, path = PAGES[name]
    looks = [("en", 1200, "light"), ("ko", 1200, "dark"), ("ko", 390, "light"), ("en", 390, "dark")]
    with served(centre, person) as home:
        for language, width, scheme in looks:
            with opened(
                browser, home, path, language=language, width=width, scheme=scheme, looked_over=True
            ) as page:
                page.screenshot(
                    path=screenshot_path(f"desk-{name}-{language}-{width}-{scheme}"), full_page=True
                )
                assert fits(page), (name, language, width)
                page.evaluate("document.querySelectorAll('main details').forEach(one => { one.open = true })")
                check_access(page)
                assert fits(page), (name, language, width, "all opened")


def test_an_empty_centre_and_a_newcomer_are_open_to_everybody(
    browser: Browser, sqlite_database: Database
) -> None:
    store = lively(sqlite_database)
    newcomer = Person("newcomer", ("lab",))
    with (
        served(store, newcomer) as home,
        opened(browser, home, "/services/desk/mine", language="ko", looked_over=True) as page,
    ):
        page.screenshot(path=screenshot_path("desk-mine-newcomer"), full_page=True)
        check_access(page)
    with served(store, OPERATOR_PERSON) as home:
        for address in ("/queue", "/decisions?person=nobody", "/what-if"):
            with opened(browser, home, CENTRE + address, looked_over=True) as page:
                check_access(page)
    store.store.close()


# -- the map ----------------------------------------------------------------------------------------------------------


def test_keys_go_from_gpu_to_gpu_and_each_says_whose_it_is(browser: Browser, centre: Lively) -> None:
    with served(centre, OPERATOR_PERSON) as home, opened(browser, home, CENTRE) as page:
        cells = page.locator("#centre-machines .hd-cells").first.locator(".hd-cell")
        said = page.locator("#hd-said")
        expect(said).to_be_hidden()
        cells.first.focus()
        expect(said).to_have_text(re.compile("^H200 1: guaranteed, "))
        page.keyboard.press("ArrowRight")
        expect(cells.nth(1)).to_be_focused()
        page.keyboard.press("End")
        expect(cells.last).to_be_focused()
        expect(said).to_have_text("H200 4: being ended, student (Hangang University), until 09:10")
        page.keyboard.press("Tab")  # on to what comes after this machine's cells
        expect(page.locator("#machine-gpu-1-who > summary")).to_be_focused()
        expect(said).to_be_hidden()
        page.keyboard.press("Shift+Tab")
        expect(cells.last).to_be_focused()
        page.keyboard.press("Home")
        expect(cells.first).to_be_focused()


# -- live -------------------------------------------------------------------------------------------------------------


def test_what_changes_is_seen_without_loading_and_without_losing_ones_place(
    browser: Browser, centre: Lively
) -> None:
    with served(centre, OPERATOR_PERSON) as home, opened(browser, home, CENTRE) as page:
        page.evaluate("window.loadedOnce = true")
        page.locator("#machine-gpu-1-who > summary").click()
        cell = page.locator("#centre-machines .hd-cells").first.locator(".hd-cell").nth(2)
        cell.focus()
        centre.admission.release_now("more", "neighbour", "stopped")
        expect(page.locator("#centre-head")).to_contain_text("3 leases", timeout=20_000)
        expect(
            page.locator("#machine-gpu-2 >> xpath=ancestor::article").locator(".hd-cell--free")
        ).to_have_count(4)
        expect(page.locator("#machine-gpu-1-who")).to_have_attribute("open", "")
        expect(page.locator("#centre-machines .hd-cells").first.locator(".hd-cell").nth(2)).to_be_focused()
        assert page.evaluate("window.loadedOnce") is True


def test_what_somebody_chose_stays_chosen_while_the_page_renews_itself(
    browser: Browser, centre: Lively
) -> None:
    with centre.store.booking() as txn:
        txn.drop_tickets(["later", "theirs"])
    with served(centre, STUDENT) as home, opened(browser, home, "/services/desk/mine") as page:
        chosen = page.locator("[name=minutes]")
        chosen.select_option(index=1)
        wanted = chosen.input_value()
        page.locator("h1").click()
        centre.admission.release_now("idle", "student", "ended")
        expect(page.locator("#mine-servers article")).to_have_count(1, timeout=20_000)
        expect(page.locator("[name=minutes]")).to_have_value(wanted)


def test_numbers_that_cannot_be_renewed_say_how_old_they_are(browser: Browser, centre: Lively) -> None:
    with served(centre, STUDENT) as home:
        context = browser.new_context(base_url=home, locale="en-US")
        page = context.new_page()
        page.goto("/services/desk/mine")
        age = page.locator("#mine-head [data-age]")
        expect(age).to_be_hidden()
        context.set_offline(True)
        expect(age).to_be_visible(timeout=30_000)
        expect(age).to_have_text(re.compile(r"These numbers are \d+ s old\."))
        context.set_offline(False)
        expect(age).to_be_hidden(timeout=60_000)
        context.close()


# -- forms ------------------------------------------------------------------------------------------------------------


def test_stop_asks_first(browser: Browser, centre: Lively) -> None:
    with served(centre, STUDENT) as home, opened(browser, home, "/services/desk/mine") as page:
        asked: list[str] = []
        page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        page.get_by_role("button", name="Stop").first.click()
        assert asked == ["Stop this server? What is not saved in it is lost; your files are kept."]
        assert centre.servers.stopped == []
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Stop").first.click()
        expect(page.get_by_role("status")).to_contain_text("The server is being stopped.")
        assert len(centre.servers.stopped) == 1


def test_a_what_if_is_filled_in_changed_and_played(browser: Browser, centre: Lively) -> None:
    with (
        served(centre, OPERATOR_PERSON) as home,
        opened(browser, home, f"{CENTRE}/what-if", looked_over=True) as page,
    ):
        page.get_by_role("button", name="Fill in the centre as it is now").click()
        scenario = page.get_by_label("Scenario", exact=True)
        expect(scenario).to_have_value(re.compile("what-if-1"))
        page.get_by_role("button", name="Play it", exact=True).click()
        expect(page.locator("#outcome")).to_contain_text("what-if-1", timeout=60_000)
        check_access(page)
        page.screenshot(path=screenshot_path("desk-what-if-played"), full_page=True)
        text = page.get_by_label("Scenario", exact=True).input_value()
        page.get_by_label("Scenario", exact=True).fill(text.replace("minutes: 120", "minuts: 120"))
        page.get_by_role("button", name="Play it and download").click()
        expect(page.get_by_role("alert")).to_contain_text("minuts", timeout=60_000)
