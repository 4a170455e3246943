"""The pages *mine* and *centre* on a real hub, with real servers: what the forms do is done, and who may see it."""

from __future__ import annotations

import csv
import io
import re
from datetime import datetime

from tests.support.desk import AtTheDesk
from tests.support.hub import EmbeddedHub, text_of, wait_for

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
