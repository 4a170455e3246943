"""The desk that `make deploy` brought: its pages through the proxy, a wait that ends by itself, and two clocks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.browser import chromium, needs_chromium, screenshot_path
from tests.support.deployed import DeployedHub
from tests.support.desk import DESK, AtTheDesk
from tests.support.hub import text_of, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SMALL, SLICE = {"profile": "cpu-small"}, {"profile": "h200-slice"}


@pytest.fixture(autouse=True)
def nothing_is_left(hub: DeployedHub) -> Iterator[None]:
    """Nobody waits and nothing runs when the next one begins."""
    hub.end_all()
    yield
    for (name,) in hub.sql("SELECT DISTINCT person FROM hub_ext.tickets"):
        person = hub.come(name)
        for ticket in tickets_of(person):
            person.calls("DELETE", f"/tickets/{ticket['id']}")
    hub.end_all()


def tickets_of(person: AtTheDesk) -> list[dict[str, Any]]:
    return list(person.calls("GET", "/tickets").json()["items"])


def at_their_cap(hub: DeployedHub, name: str = "student") -> AtTheDesk:
    """Two servers run: as many as one person of the university may have."""
    person = hub.come(name)
    # Pods that were deleted past the hub are missed by it some seconds later.
    wait_for(lambda: not person.servers(), f"the hub knows that {name} has no server", 60)
    for options, server in ((SMALL, ""), (SLICE, "second")):
        answer = person.start(options, server)
        assert answer.status_code in (201, 202), answer.text
    person.wait_until_ready(seconds=120)
    person.wait_until_ready("second", seconds=120)
    return person


# -- pages ---------------------------------------------------------------------------------------------------------------


def test_both_desks_answer_and_know_whoever_signed_in_at_one(hub: DeployedHub) -> None:
    assert len(hub.desks()) == 2
    student = hub.come("student")
    page = student.page("/mine")
    assert page.status_code == 200
    assert "My servers" in text_of(page.text)
    # The session counts at each of them: connections are spread over both.
    for _ in range(20):
        student.http.close()
        fresh = hub.come("student")
        fresh.http.cookies = student.http.cookies
        assert fresh.page("/mine").status_code == 200
        student = fresh
    # Not theirs is not told from not there.
    assert student.page("/centre").status_code in (403, 404)
    assert "hangang-node" not in student.page("/centre").text


def test_an_operator_sees_the_machine_and_what_runs_there(hub: DeployedHub) -> None:
    student, operator = hub.come("student"), hub.come("operator")
    student.start(SLICE)
    student.wait_until_ready(seconds=120)
    page = text_of(operator.page("/centre").text)
    assert "hangang-node" in page
    (machine,) = [
        one for one in operator.calls("GET", "/machines").json()["items"] if one["name"] == "hangang-node"
    ]
    assert "student" in json.dumps(machine)
    assert operator.page("/metrics").status_code == 401, "through the proxy for a token only"
    token = operator.token("access:services!service=desk", "custom:desk:operate")
    read = operator.page("/metrics", headers={"Authorization": f"token {token}"})
    assert "hangang_clock_leads" in read.text, read.text


# -- waiting -------------------------------------------------------------------------------------------------------------


def test_whoever_waits_has_a_ticket_and_the_server_starts_by_itself(hub: DeployedHub) -> None:
    student = at_their_cap(hub)
    answer = student.start(SLICE, "third")
    assert answer.status_code == 409, answer.text
    assert answer.headers["Retry-After"]
    ticket = answer.headers["Location"].rpartition("/")[2]
    (waits,) = wait_for(lambda: [one for one in tickets_of(student) if one["place"]], "it has a place")
    assert (waits["id"], waits["code"], waits["place"]) == (ticket, "person-at-cap", 1)
    room = student.http.get(answer.headers["Location"])
    assert room.status_code == 200
    assert waits["sentence"] in text_of(room.text)
    # Nobody else's.
    assert hub.come("researcher").http.get(answer.headers["Location"]).status_code == 404

    student.stop()
    student.wait_until_ready("third", seconds=120)
    lease = hub.lease_of("student", "third")
    assert lease["id"] == ticket
    mine = student.calls("GET", "/leases", params={"server": "third"}).json()["items"][0]
    assert mine["unclaimed"], "it was started for somebody who has not come yet"
    # The server itself says that they came.
    assert student.http.get("/user/student/third/lab").status_code == 200
    wait_for(
        lambda: not student.calls("GET", f"/leases/{ticket}").json()["unclaimed"],
        "the desk knows that they came",
    )


def test_a_server_knows_of_its_time_and_why_it_has_no_more(hub: DeployedHub) -> None:
    """From inside its pod, by the service's name."""
    researcher = hub.come("researcher")
    researcher.start({"profile": "h200-slice", "minutes": "60"})
    researcher.wait_until_ready(seconds=120)
    lease = hub.lease_of("researcher")
    base = "/user/researcher"
    assert researcher.http.get(f"{base}/lab").status_code == 200

    def told() -> dict[str, Any]:
        return dict(researcher.http.get(f"{base}/hangang/lease", params={"now": "1"}).json())

    view = wait_for(
        lambda: (found := told())["left"] is not None and found, "the desk tells the server's time"
    )
    assert 0 < view["left"] <= 3600
    assert view["mood"] == ("quiet" if lease["guaranteed"] else "borrowed")
    xsrf = next(c.value for c in researcher.http.cookies.jar if c.name == "_xsrf" and c.path == f"{base}/")
    extended = researcher.http.post(
        f"{base}/hangang/extend", json={"minutes": 30}, headers={"X-XSRFToken": str(xsrf)}
    ).json()
    assert extended["done"], extended
    assert extended["view"]["left"] > 3600
    after = hub.lease_of("researcher")
    assert (after["id"], after["ends_at"] > lease["ends_at"]) == (lease["id"], True)
    # And of the end, where it is near, with what can be done about it.
    assert told()["details"], "the end, what it costs, what is left"


@pytest.mark.browser
@needs_chromium
def test_in_a_browser_the_waiting_page_leads_to_the_server(hub: DeployedHub) -> None:
    student = at_their_cap(hub)
    with chromium() as browser:
        page = browser.new_context(locale="ko-KR").new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{hub.url}/hub/login?next=/hub/spawn/student/third")
        page.fill("input[name=username]", "student")
        page.fill("input[name=password]", hub.password)
        page.press("input[name=password]", "Enter")
        page.locator("#card-h200-slice button[type=submit]").click()
        page.wait_for_url(re.compile(f"{DESK}/tickets/[0-9a-f]+$"))
        expect(page.locator("main h1")).to_contain_text("대기")
        page.screenshot(path=screenshot_path("cluster-waiting-ko"), full_page=True)
        student.stop("second")
        page.wait_for_url(re.compile("/user/student/third/"), timeout=120_000)
        page.wait_for_selector("#jp-main-dock-panel")
        page.screenshot(path=screenshot_path("cluster-its-turn-ko"))


# -- two clocks ----------------------------------------------------------------------------------------------------------


def test_the_leading_desk_is_killed_and_the_other_goes_on_with_everything_once(hub: DeployedHub) -> None:
    student = at_their_cap(hub)
    answer = student.start(SLICE, "third")
    assert answer.status_code == 409, answer.text
    ticket = answer.headers["Location"].rpartition("/")[2]
    first = hub.leader()
    hub.kill(first)
    # The room is made while nobody leads.
    student.stop()
    wait_for(lambda: hub.leader() not in ("", first), "another clock leads", 60)
    student.wait_until_ready("third", seconds=120)
    assert hub.lease_of("student", "third")["id"] == ticket
    assert hub.leader() != first
    steps = hub.steps_of(ticket)
    assert [steps.count(kind) for kind in ("booked", "running", "released")] == [1, 1, 0], steps
    carried = [pod["metadata"]["labels"]["hangang-hub/lease"] for pod in hub.pods()]
    assert sorted(carried) == sorted(lease["id"] for lease in hub.leases()), "one pod for each lease"
    wait_for(lambda: len(hub.desks()) == 2, "there are two again", 120)
