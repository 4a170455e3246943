"""The waiting room in a real Chromium on a real hub, with two people: in line, live, served, and the other ways out."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.support.axe import check_access
from tests.support.browser import chromium, needs_chromium, screenshot_path
from tests.support.desk import DESK, AtTheDesk, with_token
from tests.support.hub import PASSWORD, EmbeddedHub, text_of, wait_for

pytestmark = [pytest.mark.browser, needs_chromium]

TWO_GPUS = {"simulated_node": {"gpu.h200": 2, "gpu.h200-1g": 14, "cpu": 128, "memory": "2Ti"}}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedHub]:
    one = EmbeddedHub(tmp_path_factory.mktemp("hub"), settings=TWO_GPUS)
    try:
        one.start()
        yield one
    finally:
        for name in ("hub", "desk"):
            print(f"--- {name}.log\n{one.log(name)[-6000:]}")
        one.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture
def researcher(hub: EmbeddedHub) -> Iterator[AtTheDesk]:
    """Holds both GPUs; nobody waits, and nobody else runs anything, when the next test begins."""
    person = AtTheDesk(hub, "researcher")
    for server in {"first", "second"} - set(person.servers()):
        assert person.start({"profile": "h200"}, server).status_code in (201, 202)
    yield person
    student = AtTheDesk(hub, "student")
    for one in (student, person):
        for ticket in one.calls("GET", "/tickets").json()["items"]:
            one.calls("DELETE", f"/tickets/{ticket['id']}")
    for server in list(student.servers()):
        student.stop(server)
    wait_for(lambda: {one["person"] for one in hub.leases()} <= {"researcher"}, "the student's are over")


def a_context(browser: Browser, **more: object) -> BrowserContext:
    options = {"locale": "en-US", "viewport": {"width": 1200, "height": 900}} | more
    context = browser.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(30_000)
    return context


def signed_in(context: BrowserContext, hub: EmbeddedHub, name: str) -> Page:
    page = context.new_page()
    page.goto(f"{hub.url}/hub/login?next=/hub/home")
    page.fill("input[name=username]", name)
    page.fill("input[name=password]", PASSWORD)
    page.press("input[name=password]", "Enter")
    page.wait_for_url("**/hub/home")
    return page


def waits(person: AtTheDesk, server: str = "") -> str:
    """The address of the room of a start that has to wait."""
    answer = person.start({"profile": "h200"}, server)
    assert answer.status_code == 409, answer.text
    return str(answer.headers["location"])


def test_from_the_start_page_into_the_room_and_on_to_the_server_without_a_click(
    browser: Browser, hub: EmbeddedHub, researcher: AtTheDesk
) -> None:
    page = signed_in(a_context(browser), hub, "student")
    page.goto(f"{hub.url}/hub/spawn")
    page.locator("#card-h200").get_by_role("button", name="Wait in line").click()
    page.wait_for_url(re.compile(f"{DESK}/tickets/"))
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    expect(page.locator("h1")).to_have_text("You are number 1 in line for: 1 × H200")
    expect(page.locator("#room-around")).to_contain_text("researcher")
    expect(page.locator("#room-around")).to_contain_text("2 × H200 in use")
    page.screenshot(path=screenshot_path("waiting-room"), full_page=True)

    # Somebody else behind them, who used more of late.
    other = signed_in(a_context(browser), hub, "researcher")
    other.goto(f"{hub.url}{waits(researcher, 'third')}")
    expect(other.locator("h1")).to_have_text("You are number 2 in line for: 1 × H200")
    other.evaluate("window.stillTheSamePage = true")

    # One of the two GPUs becomes free: the server starts by itself, and the page goes to it.
    researcher.stop("first")
    page.wait_for_url(re.compile("/user/student/"), timeout=60_000)
    assert [lease["person"] for lease in hub.leases()].count("student") == 1
    (api,) = AtTheDesk(hub, "student").calls("GET", "/leases").json()["items"]
    assert api["unclaimed"] is False, "whoever came has come"

    # And whoever was behind moves up, without a reload.
    expect(other.locator("h1")).to_have_text("You are number 1 in line for: 1 × H200")
    assert other.evaluate("window.stillTheSamePage")
    assert faults == []
    for one in (page, other):
        one.context.close()


def test_the_room_can_be_left(browser: Browser, hub: EmbeddedHub, researcher: AtTheDesk) -> None:
    page = signed_in(a_context(browser), hub, "student")
    room = waits(AtTheDesk(hub, "student"))
    page.goto(f"{hub.url}{room}")
    page.get_by_role("button", name="Leave the line").click()
    expect(page.locator("h1")).to_have_text("You left the line")
    check_access(page)
    assert AtTheDesk(hub, "student").calls("GET", "/tickets").json()["items"] == []
    page.context.close()


def test_leaving_the_page_keeps_the_place(browser: Browser, hub: EmbeddedHub, researcher: AtTheDesk) -> None:
    page = signed_in(a_context(browser), hub, "student")
    student = AtTheDesk(hub, "student")
    room = waits(student)
    page.goto(f"{hub.url}{room}")
    page.context.close()
    researcher.stop("first")
    wait_for(lambda: "" in student.servers(), "the server starts with nobody looking")
    lease = student.calls("GET", "/leases", params={"server": ""}).json()["items"][0]
    assert lease["unclaimed"] is True
    went = student.http.get(f"{room}/go")
    assert went.url.path.startswith(("/hub/spawn-pending/student", "/user/student"))
    assert student.calls("GET", f"/leases/{lease['id']}").json()["unclaimed"] is False


def test_something_smaller_is_started_instead(
    browser: Browser, hub: EmbeddedHub, researcher: AtTheDesk
) -> None:
    page = signed_in(a_context(browser), hub, "student")
    room = waits(AtTheDesk(hub, "student"))
    page.goto(f"{hub.url}{room}")
    card = page.locator("form.hg-card", has_text="One H200 slice")
    expect(card).to_contain_text("Now")
    card.get_by_role("button", name="Start this instead").click()
    page.wait_for_url(re.compile("/user/student/"), timeout=60_000)
    mine = [lease["profile"] for lease in hub.leases() if lease["person"] == "student"]
    assert mine == ["h200-slice"]
    page.goto(f"{hub.url}{room}")
    expect(page.locator("h1")).to_have_text("You asked for something else instead")
    page.context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("locale", "heading"), [("ko-KR", "대기"), ("en-US", "in line")])
def test_the_room_on_a_phone_in_both_languages_and_by_night(
    browser: Browser, hub: EmbeddedHub, researcher: AtTheDesk, locale: str, heading: str, theme: str
) -> None:
    context = a_context(browser, locale=locale, viewport={"width": 390, "height": 800}, color_scheme=theme)
    page = signed_in(context, hub, "student")
    page.goto(f"{hub.url}{waits(AtTheDesk(hub, 'student'))}")
    expect(page.locator("h1")).to_contain_text(heading)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=screenshot_path(f"waiting-room-{locale[:2]}-{theme}-phone"), full_page=True)
    check_access(page)
    context.close()


def test_the_room_by_keyboard_alone(browser: Browser, hub: EmbeddedHub, researcher: AtTheDesk) -> None:
    page = signed_in(a_context(browser), hub, "student")
    page.goto(f"{hub.url}{waits(AtTheDesk(hub, 'student'))}")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the content")
    page.keyboard.press("Enter")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.locator(":focus").inner_text() == "Leave the line":
            break
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("You left the line")
    page.context.close()


def test_without_script_the_room_looks_again_by_itself(
    browser: Browser, hub: EmbeddedHub, researcher: AtTheDesk
) -> None:
    student = AtTheDesk(hub, "student")
    room = waits(student)
    page = student.http.get(room)
    assert '<noscript><meta http-equiv="refresh" content="15"></noscript>' in page.text
    assert "in line" in text_of(page.text)


def test_another_persons_room_is_not_there(hub: EmbeddedHub, researcher: AtTheDesk) -> None:
    """Nothing tells it from one that never was: not the page, not its stream, not the API, not a form."""
    student = AtTheDesk(hub, "student")
    room = waits(student)
    name = room.rsplit("/", 1)[1]
    for path in ("", "/events", "/around", "/leave", "/instead", "/go"):
        theirs, nobodys = f"/tickets/{name}{path}", f"/tickets/{'0' * 32}{path}"
        if path in ("/leave", "/instead"):
            found, missing = researcher.post(theirs), researcher.post(nobodys)
        else:
            headers = {"X-CSRF-Token": researcher.csrf}
            found, missing = (researcher.page(one, headers=headers) for one in (theirs, nobodys))
        assert (found.status_code, missing.status_code) == (404, 404), path
        assert found.text.replace(name, "") == missing.text.replace("0" * 32, ""), path
    for method in ("GET", "DELETE"):
        found = researcher.calls(method, f"/tickets/{name}")
        assert (found.status_code, found.json()["code"]) == (404, "not-found")
    assert student.calls("GET", f"/tickets/{name}").json()["state"] == "waiting", "and the place is kept"


# -- the API ----------------------------------------------------------------------------------------------------------


def test_a_start_by_the_api_answers_with_a_ticket_that_becomes_a_lease(
    hub: EmbeddedHub, researcher: AtTheDesk
) -> None:
    student = AtTheDesk(hub, "student")
    token = student.token("access:services!service=desk", "custom:desk:read")
    made = with_token(hub, token, "POST", "/servers", json={"profile": "h200", "server": "by-api"})
    assert made.status_code == 202, made.text
    ticket = made.json()["ticket"]
    assert made.headers["location"] == f"{DESK}/api/v1/tickets/{ticket['id']}"
    assert (ticket["state"], ticket["server"], ticket["profile"]) == ("waiting", "by-api", "h200")
    assert ticket["page"] == f"{DESK}/tickets/{ticket['id']}"

    def now() -> dict[str, object]:
        return dict(with_token(hub, token, "GET", f"/tickets/{ticket['id']}").json())

    wait_for(lambda: now().get("place") == 1, "the clock gave it a place")
    researcher.stop("first")
    wait_for(lambda: now()["state"] == "turn", "its turn came")
    leases = with_token(hub, token, "GET", "/leases", params={"server": "by-api"}).json()
    (lease,) = leases["items"]
    assert (lease["id"], lease["unclaimed"], lease["state"] in ("booked", "running")) == (
        ticket["id"],
        True,
        True,
    )
    wait_for(lambda: student.servers().get("by-api", {}).get("ready"), "it runs")
    claimed = with_token(hub, token, "POST", f"/leases/{lease['id']}/claim")
    assert claimed.json()["unclaimed"] is False
    stopped = with_token(hub, token, "DELETE", f"/leases/{lease['id']}")
    assert stopped.status_code == 202
    wait_for(lambda: "by-api" not in student.servers(), "it is stopped")
    assert now()["state"] in ("turn", "over")


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        pytest.param({"profile": "nothing"}, 400, "bad-input", id="a profile that does not exist"),
        pytest.param({}, 422, "bad-input", id="no profile"),
        pytest.param({"profile": "h200", "minutes": 0}, 422, "bad-input", id="no time"),
        pytest.param({"profile": "h200", "more": 1}, 422, "bad-input", id="a field that does not exist"),
        pytest.param({"profile": "h200", "server": "x" * 300}, 422, "bad-input", id="a name without end"),
        pytest.param({"profile": "h200", "pool": "city-traffic"}, 409, "not-a-member", id="another's pool"),
        pytest.param({"profile": "h200-4"}, 409, "too-big-for-person", id="more than a person may have"),
        pytest.param({"profile": "h200", "server": "../x"}, 409, None, id="a name that leads elsewhere"),
        pytest.param([], 422, "bad-input", id="no object"),
    ],
)
def test_a_start_that_cannot_be_says_why_with_a_code(
    hub: EmbeddedHub, researcher: AtTheDesk, sent: object, status: int, code: str | None
) -> None:
    answer = AtTheDesk(hub, "student").calls("POST", "/servers", json=sent)
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"code", "facts", "message"}
    assert body["message"]
    assert code is None or body["code"] == code
