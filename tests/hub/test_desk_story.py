"""The desk's whole stories on a hub as `make hub` starts it, in real browsers: two people at once, one of them Korean.

Nothing is patched: notices, claims and hours are short because the policy file says so.
"""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, expect

from hub_ext.quota.ledger import Entry, EntryKind
from tests.support.browser import chromium, needs_chromium
from tests.support.desk import DESK, AtTheDesk, records
from tests.support.desk_story import CLAIM, NODE, NOTICE, PEOPLE, POOLS, SOFT, Seat, take_a_seat
from tests.support.hub import EmbeddedHub, wait_for
from tests.support.story import seconds_between

pytestmark = [pytest.mark.slow, pytest.mark.browser, needs_chromium]

H200 = {"profile": "h200"}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedHub]:
    one = EmbeddedHub(
        tmp_path_factory.mktemp("hub"),
        settings={"simulated_node": NODE},
        documents={"pools.yaml": POOLS, "identity.yaml": PEOPLE},
    )
    try:
        one.start()
        yield one
    finally:
        for name in ("hub", "desk"):
            print(f"--- {name}.log\n{one.log(name)[-6000:]}")
        one.stop()


@pytest.fixture
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture(autouse=True)
def nothing_is_left(hub: EmbeddedHub) -> Iterator[None]:
    """Nobody waits and nothing runs when the next story begins."""
    yield
    for name in ("founder", "student", "member"):
        person = AtTheDesk(hub, name)
        for ticket in person.calls("GET", "/tickets").json()["items"]:
            person.calls("DELETE", f"/tickets/{ticket['id']}")
        for server in person.servers():
            person.stop(server)
    wait_for(lambda: not hub.leases(), "nothing runs")


def entries_of(hub: EmbeddedHub, lease: str) -> list[Entry]:
    with records(hub) as store, store.reading() as txn:
        return [entry for _, entry in txn.entries(lease=lease)]


def steps_of(hub: EmbeddedHub, lease: str) -> list[tuple[str, str]]:
    """What the ledger tells of a lease and its ticket, without what is charged meanwhile."""
    told = [entry for entry in entries_of(hub, lease) if entry.kind is not EntryKind.ACCRUED]
    return [(entry.kind.value, entry.why) for entry in told]


def lease_of(hub: EmbeddedHub, person: str) -> dict[str, Any]:
    """Of their default server."""
    (lease,) = [one for one in hub.leases() if (one["person"], one["server"]) == (person, "")]
    return lease


def age(moment: str) -> float:
    """Seconds since then."""
    return time.time() - datetime.fromisoformat(moment).timestamp()


def hours_used(hub: EmbeddedHub, person: str) -> float:
    rows = csv.DictReader(io.StringIO(hub.command("usage", "--by", "person", "--format", "csv")))
    return sum(float(row["gpu_hours"]) for row in rows if row["person"] == person)


def hours_of(hub: EmbeddedHub, person: str, price: float) -> float:
    """What the seconds of all their leases come to."""
    leases = [one for one in hub.all_leases() if one["person"] == person and one["profile"] != "cpu-small"]
    assert all(one["released_at"] for one in leases)
    return sum(seconds_between(one["started_at"], one["released_at"]) for one in leases) * price / 3600


def in_the_waiting_room(seat: Seat) -> str:
    """The id of their ticket."""
    seat.page.wait_for_url(re.compile(f"{DESK}/tickets/[0-9a-f]+$"), timeout=30_000)
    return seat.page.url.rpartition("/")[2]


# -- 1. borrowed, and back ------------------------------------------------------------------------------------------------


def test_what_is_borrowed_goes_back_to_its_owner_and_comes_to_the_borrower_again(
    hub: EmbeddedHub, browser: Browser
) -> None:
    founder = take_a_seat(browser, hub, "founder")
    student = take_a_seat(browser, hub, "student", "ko")

    # The founder is told before the start what borrowing means, and the notebook goes on saying it.
    founder.go("/hub/spawn")
    card = founder.page.locator("#card-h200")
    expect(card).to_contain_text("Now, borrowed")
    expect(card).to_contain_text("it may be taken back")
    founder.look("1-start", full=True)
    founder.start("h200")
    founder.in_the_lab()
    expect(founder.chip).to_have_text("◐Borrowed", timeout=30_000)
    expect(founder.bar).to_be_hidden()
    borrowed = lease_of(hub, "founder")
    assert (borrowed["guaranteed"], borrowed["lender"]) == (False, "seoul")
    kept = hub.state / "homes" / "founder" / "kept.txt"
    kept.write_text("what was saved")

    # The owner asks, and waits: place, reason, the latest time, and who holds what elsewhere only in sum.
    student.start("h200")
    ticket = in_the_waiting_room(student)
    room = student.page.locator("main")
    expect(room.locator("h1")).to_have_text("대기 1번째: H200 1개")
    expect(student.page.locator("#room-when")).to_contain_text("늦어도")
    expect(room).to_contain_text("내 몫을 빌려 쓰던 서버 1개에 종료를 알렸으며")
    expect(student.page.locator("#room-around")).to_contain_text("H200 1개 사용 중")
    expect(room).not_to_contain_text("founder")
    expect(student.page.locator("form.hg-card")).to_contain_text(["H200 조각 하나", "CPU 서버"])
    student.look("1-waiting-ko", full=True)
    ends_at = lease_of(hub, "founder")["ends_at"]
    noticed_at = next(one.at for one in entries_of(hub, borrowed["id"]) if one.kind is EntryKind.NOTICED)
    assert datetime.fromisoformat(ends_at).timestamp() - noticed_at == NOTICE

    # The notice comes into the open notebook by itself, counts down, and cannot be extended away.
    expect(founder.bar).to_be_visible(timeout=NOTICE * 1000)
    expect(founder.bar).to_contain_text("it is borrowed, and whoever it belongs to needs it back")
    assert 0 < founder.seconds_left() <= NOTICE
    founder.look("1-notice")
    founder.bar.get_by_role("button", name="Extend by").click()
    expect(founder.bar).to_contain_text("Others who came first")
    assert lease_of(hub, "founder")["ends_at"] == ends_at
    beside = founder.bar.get_by_role("link", name="Start a CPU server beside it").get_attribute("href")
    mine = founder.beside()
    mine.desk()
    expect(mine.page.locator(".hd-server .hg-note")).to_contain_text("whoever it belongs to needs it back")
    mine.look("1-notice-on-mine", full=True)

    # At the end the borrower's server stops; the owner's page goes to the running server by itself.
    student.in_the_lab()
    student.look("1-owner-served-ko")
    owners = lease_of(hub, "student")
    assert (owners["id"], owners["guaranteed"]) == (ticket, True)
    stopped = next(one for one in hub.all_leases() if one["id"] == borrowed["id"])
    assert stopped["reason"] == "taken-back"
    assert stopped["released_at"] >= ends_at, "never before the time that was told"
    assert kept.read_text() == "what was saved"

    # The borrower reads why, in the notebook that is still open, and is first in line.
    expect(founder.bar).to_contain_text("It has ended; your files are kept.", timeout=30_000)
    founder.look("1-taken-back-in-the-lab")
    expect(mine.page.locator("#mine-line")).to_contain_text("It was taken back from you", timeout=30_000)
    expect(mine.page.locator("#mine-line")).to_contain_text("place 1")
    mine.look("1-first-in-line", full=True)
    mine.page.goto(founder.lab)
    expect(mine.page.locator("main")).to_contain_text(
        "what it had borrowed was needed by those it belongs to"
    )
    mine.look("1-why-it-ended")
    mine.page.get_by_role("button", name="See my place in line").click()
    mine.page.get_by_role("button", name="Waiting page").click()
    again = in_the_waiting_room(mine)
    expect(mine.page.locator("main")).to_contain_text("so you are first again")

    # Meanwhile they go on with the same files on a server without a GPU, where the bar led.
    cpu = founder.beside()
    cpu.go(str(beside))
    cpu.page.locator("#card-cpu-small button[type=submit]").click()
    cpu.page.wait_for_url(re.compile("/user/founder/cpu/lab"), timeout=60_000)
    expect(cpu.page.locator(".jp-DirListing")).to_contain_text("kept.txt", timeout=30_000)
    expect(cpu.chip).to_be_hidden()
    cpu.look("1-cpu-server-beside-it")
    cpu.page.close()

    # The owner stops: the borrower has the server back, with what was saved.
    owner = student.beside()
    owner.desk()
    owner.page.once("dialog", lambda dialog: dialog.accept())
    owner.page.locator(".hd-server").get_by_role("button", name="종료").click()
    mine.in_the_lab()
    assert lease_of(hub, "founder")["id"] == again
    assert kept.read_text() == "what was saved"
    mine.look("1-back-again")

    # The ledger tells all of it in order, and the hours of both are right to the second.
    assert steps_of(hub, borrowed["id"]) == [
        ("booked", ""),
        ("running", ""),
        ("noticed", "taken-back"),
        ("ending", "taken-back"),
        ("released", "taken-back"),
        ("decided", "again"),
    ]
    waited = [("decided", "pool-full"), ("booked", ""), ("decided", "turn"), ("running", ""), ("claimed", "")]
    assert steps_of(hub, ticket) == [*waited, ("ending", "stopped"), ("released", "stopped")]
    assert steps_of(hub, again) == waited[1:]
    assert founder.complaints == student.complaints == []
    for lease in hub.leases():
        AtTheDesk(hub, lease["person"]).calls("DELETE", f"/leases/{lease['id']}")
    wait_for(lambda: not hub.leases(), "everything is over")
    assert hours_used(hub, "founder") == pytest.approx(hours_of(hub, "founder", 0.5), abs=2e-6)
    assert hours_used(hub, "student") == pytest.approx(hours_of(hub, "student", 1), abs=2e-6)


# -- 2. hours that run out, and come back -------------------------------------------------------------------------------


def test_hours_run_out_with_a_warning_and_a_notice_and_a_grant_brings_them_back(
    hub: EmbeddedHub, browser: Browser
) -> None:
    member = take_a_seat(browser, hub, "member", "ko")
    lead = take_a_seat(browser, hub, "lead")

    # A first server uses some of the hours: from the soft limit on, the start page and the desk warn.
    member.start("h200-slice")
    member.in_the_lab()
    started_at = lease_of(hub, "member")["started_at"]
    wait_for(lambda: age(started_at) > SOFT + 1, "a tenth of the hours to be used")
    mine = member.beside()
    mine.desk()
    mine.page.once("dialog", lambda dialog: dialog.accept())
    mine.page.locator(".hd-server").get_by_role("button", name="종료").click()
    expect(mine.page.locator("#mine-servers")).to_contain_text("실행 중인 서버가 없습니다", timeout=30_000)
    expect(mine.page.locator("#mine-budgets")).to_contain_text("거의 소진됨")
    member.go("/hub/spawn")
    expect(member.page.locator(".hg-hours")).to_contain_text("거의 소진됨")
    expect(member.page.locator("#card-h200-slice")).to_contain_text("GPU시간을 모두 쓰게 됩니다")
    member.look("2-soft-warning-ko", full=True)

    # The second is told when they are used up, in the notebook and at the desk, and stops then.
    member.start("h200-slice")
    member.in_the_lab()
    lease = lease_of(hub, "member")
    bar = member.bar
    expect(bar).to_contain_text("그때 GPU 시간을 다 씁니다", timeout=60_000)
    member.look("2-notice-ko")
    expect(mine.page.locator(".hd-server .hg-note")).to_contain_text(
        "그때 GPU 시간을 다 씁니다", timeout=15_000
    )
    expect(mine.page.locator(".hd-server")).to_contain_text("지금은 연장할 수 없습니다")
    mine.look("2-notice-on-mine-ko", full=True)
    expect(mine.page.locator("#mine-servers")).to_contain_text("실행 중인 서버가 없습니다", timeout=60_000)
    ended = next(one for one in hub.all_leases() if one["id"] == lease["id"])
    assert (ended["reason"], ended["ends_at"]) == ("budget-spent", lease["ends_at"]), "no later than was said"
    assert 0 <= seconds_between(ended["ends_at"], ended["released_at"]) < 15
    member.page.goto(member.lab)
    expect(member.page.locator("main")).to_contain_text("GPU시간이 모두 소진되어 서버가 종료되었습니다")
    expect(member.page.get_by_role("button", name="시간 더 요청하기")).to_be_visible()
    member.look("2-why-it-ended-ko")

    # The start page says that they are spent, when new ones come, and whom to ask; who waits may ask from there.
    member.go("/hub/spawn")
    card = member.page.locator("#card-h200-slice")
    expect(card).to_contain_text("이번 주 GPU시간을 모두 썼습니다")
    expect(card).to_contain_text("00:00부터 쓸 수 있습니다")
    expect(card).to_contain_text("한빛협동조합(사회적기업)의 담당자에게 요청해 주세요")
    member.look("2-spent-ko", full=True)
    card.get_by_role("button", name="대기열에 서기").click()
    ticket = in_the_waiting_room(member)
    expect(member.page.locator("main")).to_contain_text("이번 주 GPU시간을 모두 썼습니다")
    member.look("2-waiting-ko", full=True)
    mine.page.goto(member.page.url)
    mine.page.get_by_role("link", name="시간 더 요청하기").click()
    mine.page.fill("#ask-hours", "0.9")
    mine.page.fill("#ask-why", "심사용 실험이 오늘까지입니다.")
    mine.page.get_by_role("button", name="요청 보내기").click()
    expect(mine.page.locator("#hours-own")).to_contain_text("답변 대기")

    # The lead sees it, and grants less; the server starts by itself.
    lead.desk()
    expect(lead.page.locator(".hg-rail .hg-badge")).to_contain_text("1")
    lead.page.locator(".hg-rail").get_by_role("link", name="Hours").click()
    request = lead.page.locator("#hours-answer .hd-server")
    expect(request).to_contain_text("심사용 실험이 오늘까지입니다.")
    lead.look("2-to-answer", full=True)
    request.get_by_label("GPU-hours").fill("0.5")
    request.get_by_label("A word to them").fill("Good luck with it.")
    request.get_by_role("button", name="Grant").click()
    expect(lead.page.locator("main")).to_contain_text("The hours are granted")
    member.in_the_lab()
    granted = lease_of(hub, "member")
    assert granted["id"] == ticket
    assert 10 <= seconds_between(granted["booked_at"], granted["ends_at"]) <= 30, (
        "half an hour lasts 30 s here"
    )
    mine.page.reload()
    expect(mine.page.locator("#hours-own")).to_contain_text("Good luck with it.")
    mine.look("2-granted-ko", full=True)
    AtTheDesk(hub, "member").calls("DELETE", f"/leases/{ticket}")
    wait_for(lambda: not hub.leases(), "it is over")
    assert hours_used(hub, "member") == pytest.approx(hours_of(hub, "member", 60), abs=2e-4)
    assert member.complaints == lead.complaints == []


# -- 3. an owner who changes their mind ----------------------------------------------------------------------------------


def test_an_owner_who_leaves_the_line_leaves_the_borrower_alone(hub: EmbeddedHub, browser: Browser) -> None:
    founder = take_a_seat(browser, hub, "founder", "ko", color_scheme="dark")
    student = take_a_seat(
        browser, hub, "student", viewport={"width": 390, "height": 800}, color_scheme="dark"
    )
    founder.start("h200")
    founder.in_the_lab()
    before = lease_of(hub, "founder")
    student.start("h200")
    ticket = in_the_waiting_room(student)
    expect(student.page.locator("main")).to_contain_text("was told to end, and makes room for you")
    student.look("3-waiting-phone-dark", full=True)
    founder.come_back_until(lambda: founder.bar.is_visible(), "the bar")
    expect(founder.bar).to_contain_text("빌린 자원")
    founder.look("3-notice-ko-dark")
    student.page.get_by_role("button", name="Leave the line").click()
    expect(student.page.locator("h1")).to_have_text("You left the line")
    student.look("3-left-phone-dark", full=True)
    founder.come_back_until(lambda: founder.bar.is_hidden(), "no bar")
    expect(founder.chip).to_be_visible()
    mine = founder.beside()
    mine.desk()
    expect(mine.page.locator(".hd-server")).to_contain_text("실행 중(빌림)")
    expect(mine.page.locator(".hd-server .hg-note")).to_have_count(0)
    after = lease_of(hub, "founder")
    assert (after["id"], after["ends_at"]) == (before["id"], before["ends_at"])
    assert [kind for kind, _ in steps_of(hub, before["id"])][-2:] == ["noticed", "withdrawn"]
    assert steps_of(hub, ticket)[-1][1] == "left"


# -- 4. a turn that nobody takes -----------------------------------------------------------------------------------------


def test_a_server_that_nobody_comes_to_goes_to_the_next_and_its_page_says_so(
    hub: EmbeddedHub, browser: Browser
) -> None:
    founder = take_a_seat(browser, hub, "founder", viewport={"width": 390, "height": 800})
    student = AtTheDesk(hub, "student")
    assert student.start(H200).status_code in (201, 202)
    student.wait_until_ready()
    founder.start("h200")
    ticket = in_the_waiting_room(founder)
    room = founder.page.url
    founder.desk()  # they leave the page, and keep their place
    student.stop()
    line = founder.page.locator("#mine-servers")
    expect(line).to_contain_text("Its turn came and it was started for you", timeout=30_000)
    founder.look("4-its-turn-came-phone", full=True)
    lease = lease_of(hub, "founder")
    assert lease["id"] == ticket
    # Looking at it from afar is not coming: it waits for as long as was said, and not longer.
    expect(line).to_contain_text("No server of yours runs", timeout=(CLAIM + 30) * 1000)
    (ended,) = [one for one in hub.all_leases() if one["id"] == ticket]
    assert ended["reason"] == "unclaimed"
    assert CLAIM <= seconds_between(ended["started_at"], ended["released_at"]) < CLAIM + 20
    founder.page.goto(room)
    expect(founder.page.locator("main")).to_contain_text("ended because nobody came to it")
    founder.look("4-nobody-came-phone", full=True)
    assert student.start(H200, "next").status_code in (201, 202), "it is there for the next"


# -- 5. in the middle of it all, the desk and the hub are killed ---------------------------------------------------------


def test_desk_and_hub_are_killed_in_the_middle_and_all_goes_on(hub: EmbeddedHub, browser: Browser) -> None:
    founder = AtTheDesk(hub, "founder")
    assert founder.start(H200).status_code in (201, 202)
    founder.wait_until_ready()
    borrowed = lease_of(hub, "founder")
    student = take_a_seat(browser, hub, "student", "ko")
    student.start("h200")
    ticket = in_the_waiting_room(student)
    student.page.evaluate("window.stillTheSamePage = true")
    ends_at = wait_for(lambda: _noticed(hub, borrowed), "the notice")

    _kill(hub, "desk")
    assert _noticed(hub, borrowed) == ends_at
    wait_for(lambda: _answers(student), "the desk answers again")
    _kill(hub, "hub")
    assert student.page.evaluate("window.stillTheSamePage"), "the page stayed where it was"

    student.in_the_lab()
    assert lease_of(hub, "student")["id"] == ticket
    taken = next(one for one in hub.all_leases() if one["id"] == borrowed["id"])
    assert (taken["reason"], taken["ends_at"]) == ("taken-back", ends_at)
    # Nothing happened twice: one notice, one end, and one ticket of who is first again.
    steps = steps_of(hub, borrowed["id"])
    assert [kind for kind, _ in steps if kind in ("noticed", "released")] == ["noticed", "released"]
    (waits,) = founder.calls("GET", "/tickets").json()["items"]
    assert (waits["put_back"], waits["place"]) == (True, 1)


def _noticed(hub: EmbeddedHub, lease: dict[str, Any]) -> str:
    """When it ends, once it was told to."""
    now = lease_of(hub, lease["person"])
    return str(now["ends_at"]) if now["ends_at"] < lease["ends_at"] else ""


def _kill(hub: EmbeddedHub, name: str) -> None:
    process = hub.child(name)
    process.kill()
    with suppress(psutil.NoSuchProcess):
        process.wait(10)


def _answers(seat: Seat) -> bool:
    return seat.page.request.get(f"{seat.hub.url}{DESK}/health").status == 200
