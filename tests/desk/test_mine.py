"""The page *mine* on a real store: it shows what is theirs, and its forms do what they say, to nobody else's."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hub_ext.core.clock import HOUR, MINUTE
from hub_ext.desk.hub_api import HubAway
from tests.desk.lively import NEIGHBOUR, POLICY, START, STUDENT, TOKEN, Lively, lively
from tests.support.databases import Database

MINE = "/services/desk/mine"


@pytest.fixture
def centre(sqlite_database: Database) -> Iterator[Lively]:
    made = lively(sqlite_database)
    yield made
    made.store.close()


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


# -- what is shown ----------------------------------------------------------------------------------------------------


async def test_it_shows_servers_line_hours_and_limits_of_that_person_alone(centre: Lively) -> None:
    centre.wait("later")
    async with centre.visit(STUDENT) as student:
        answer = await student.get(MINE)
    assert answer.status_code == 200
    shown = text_of(answer.text)
    for want in (
        "2 servers · 1 in line · 2.5 GPU-h/hour",
        "until 11:00 (2 h left)",
        "Running, borrowed",
        "in line since 08:55, place 1",
        "left this week",
        "2 of 2 (full)",
        "3 GPU-h in the last 14 days",
    ):
        assert want in shown
    assert "slice" not in shown  # the neighbour's


async def test_who_has_nothing_reads_what_this_is_and_where_to_begin(centre: Lively) -> None:
    nobody = STUDENT.__class__("newcomer", ("lab",))
    centre.admission.put_person(nobody)
    async with centre.visit(nobody) as newcomer:
        page = (await newcomer.get(MINE)).text
    for want in ("No server of yours runs", "No cluster of yours runs", 'href="/hub/spawn"'):
        assert want in page


async def test_thirty_days_may_be_looked_at_and_nothing_else(centre: Lively) -> None:
    async with centre.visit(STUDENT) as student:
        assert "in the last 30 days" in (await student.get(f"{MINE}?days=30")).text
        for given in ("9999999", "-1", "x", ""):
            assert "in the last 14 days" in (await student.get(f"{MINE}?days={given}")).text


async def test_the_download_holds_the_days_that_the_chart_shows(centre: Lively) -> None:
    async with centre.visit(STUDENT) as student:
        answer = await student.get(f"{MINE}/hours.csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="my-gpu-hours.csv"'
    header, *rows = answer.text.removeprefix("\ufeff").split()
    assert header == "day,guaranteed_gpu_hours,borrowed_gpu_hours"
    assert len(rows) == 14
    assert "2027-02-28,3.0000,0.0000" in rows


async def test_a_page_that_looks_again_gets_nothing_until_something_changes(centre: Lively) -> None:
    """Neither less nor more: each change of what is shown is seen, and only then is the page made again."""
    centre.wait("later", place=2)

    def nothing() -> None:
        return None

    def a_minute_passes() -> None:
        centre.clock.at += MINUTE

    changes = [
        (nothing, 304),
        (a_minute_passes, 200),
        (lambda: centre.wait("later", place=1), 200),  # it moved up, which no entry tells
        (lambda: centre.accrue("train"), 200),
        (nothing, 304),
        (lambda: centre.admission.release_now("idle", "student", "stopped"), 200),
        (lambda: centre.load(POLICY.replace("servers: 2", "servers: 1")), 200),
        (nothing, 304),
    ]
    async with centre.visit(STUDENT) as student:
        first = await student.get(MINE)
        mark = first.headers["etag"]
        for number, (change, want) in enumerate(changes):
            change()
            answer = await student.get(MINE, headers={"If-None-Match": mark})
            assert answer.status_code == want, number
            mark = answer.headers["etag"]
        other = await student.get(f"{MINE}?days=30", headers={"If-None-Match": mark})
        assert other.status_code == 200
        korean = await student.get(MINE, headers={"If-None-Match": mark, "Accept-Language": "ko"})
        assert korean.status_code == 200


async def test_a_server_whose_turn_came_is_opened_by_way_of_its_ticket(centre: Lively) -> None:
    centre.admission.change("train", lambda ledger, lease, now: replace(lease, unclaimed=True))
    async with centre.visit(STUDENT) as student:
        page = (await student.get(MINE)).text
    assert 'href="/services/desk/tickets/train/go"' in page
    assert 'href="/user/student/idle"' in page


# -- stop -------------------------------------------------------------------------------------------------------------


async def test_stop_goes_through_the_hub(centre: Lively) -> None:
    async with centre.visit(STUDENT) as student:
        answer = await student.post(f"{MINE}/stop", data={"_csrf": TOKEN, "lease": "train"})
        assert (answer.status_code, answer.headers["location"]) == (303, f"{MINE}?done=stopping")
        assert "The server is being stopped." in (await student.get(answer.headers["location"])).text
    assert centre.servers.stopped == [("student", "train")]


@pytest.mark.parametrize("lease", ["slice", "yesterday", "nothing", ""])
async def test_what_is_not_theirs_or_over_is_not_there(centre: Lively, lease: str) -> None:
    async with centre.visit(STUDENT) as student:
        for what in ("stop", "extend"):
            answer = await student.post(
                f"{MINE}/{what}", data={"_csrf": TOKEN, "lease": lease, "minutes": "30"}
            )
            assert answer.status_code == 404
            assert "neighbour" not in answer.text
    assert centre.servers.stopped == []
    assert centre.lease("slice").ends_at == START + 10 * HOUR


async def test_a_form_that_is_not_ours_changes_nothing(centre: Lively) -> None:
    async with centre.visit(STUDENT) as student:
        for form in ({"lease": "train"}, {"lease": "train", "_csrf": "another"}):
            for what in ("stop", "extend", "leave"):
                assert (await student.post(f"{MINE}/{what}", data=form)).status_code == 403
    assert centre.servers.stopped == []


async def test_a_hub_that_does_not_take_the_stop_is_told(centre: Lively) -> None:
    centre.servers.error = HubAway("The hub answered 400")
    async with centre.visit(STUDENT) as student:
        answer = await student.post(f"{MINE}/stop", data={"_csrf": TOKEN, "lease": "train"})
    assert answer.status_code == 503
    assert "Try again in a minute." in answer.text


async def test_a_server_that_the_hub_does_not_know_is_told(centre: Lively) -> None:
    centre.servers.knows = False
    async with centre.visit(STUDENT) as student:
        answer = await student.post(f"{MINE}/stop", data={"_csrf": TOKEN, "lease": "train"})
    assert answer.status_code == 409
    assert "The hub knows no such server any more" in answer.text


# -- extend -----------------------------------------------------------------------------------------------------------


async def test_extend_moves_the_end(centre: Lively) -> None:
    before = centre.lease("train").ends_at
    async with centre.visit(STUDENT) as student:
        answer = await student.post(
            f"{MINE}/extend", data={"_csrf": TOKEN, "lease": "train", "minutes": "60"}
        )
        assert (answer.status_code, answer.headers["location"]) == (303, f"{MINE}?done=extended")
    assert centre.lease("train").ends_at == before + 60 * MINUTE


async def test_what_is_offered_is_what_is_given(centre: Lively) -> None:
    """Every length that the page offers ends when it said."""
    async with centre.visit(STUDENT) as student:
        page = (await student.get(MINE)).text
        offered = re.findall(
            r'<option value="(\d+)">until ([\d:]+|tomorrow [\d:]+) ', page.partition("idle")[0]
        )
        assert offered
        minutes, time = offered[-1]
        await student.post(f"{MINE}/extend", data={"_csrf": TOKEN, "lease": "train", "minutes": minutes})
        assert f"until {time} (" in (await student.get(MINE)).text


async def test_while_somebody_waits_for_it_nothing_is_offered_and_nothing_given(centre: Lively) -> None:
    centre.wait("theirs", NEIGHBOUR)
    before = centre.lease("idle").ends_at
    async with centre.visit(STUDENT) as student:
        page = (await student.get(MINE)).text
        after_idle = page[page.index('id="server-idle"') :].partition("</article>")[0]
        assert "Longer is not possible now:" in after_idle
        assert "/mine/extend" not in after_idle
        answer = await student.post(f"{MINE}/extend", data={"_csrf": TOKEN, "lease": "idle", "minutes": "60"})
    assert answer.status_code == 409
    assert "Others who came first are waiting for this." in answer.text
    assert centre.lease("idle").ends_at == before


@pytest.mark.parametrize("minutes", ["", "0", "-5", "1e3", "999999", "６０"])
async def test_minutes_that_are_none_are_refused(centre: Lively, minutes: str) -> None:
    before = centre.lease("train").ends_at
    async with centre.visit(STUDENT) as student:
        answer = await student.post(
            f"{MINE}/extend", data={"_csrf": TOKEN, "lease": "train", "minutes": minutes}
        )
    assert answer.status_code == 404
    assert centre.lease("train").ends_at == before


# -- leave ------------------------------------------------------------------------------------------------------------


async def test_who_leaves_the_line_is_out_of_it(centre: Lively) -> None:
    centre.wait("later")
    async with centre.visit(STUDENT) as student:
        answer = await student.post(f"{MINE}/leave", data={"_csrf": TOKEN, "ticket": "later"})
        assert answer.status_code == 303
        again = await student.post(f"{MINE}/leave", data={"_csrf": TOKEN, "ticket": "later"})
        assert again.status_code == 409
    with centre.store.reading() as txn:
        assert txn.tickets() == []


async def test_nobody_takes_another_out_of_the_line(centre: Lively) -> None:
    centre.wait("theirs", NEIGHBOUR)
    async with centre.visit(STUDENT) as student:
        answer = await student.post(f"{MINE}/leave", data={"_csrf": TOKEN, "ticket": "theirs"})
    assert answer.status_code == 409
    with centre.store.reading() as txn:
        assert [ticket.id for ticket in txn.tickets()] == ["theirs"]


async def test_what_people_type_is_never_markup(centre: Lively) -> None:
    hostile = "<script>alert(1)</script>"
    centre.admission.release_now("idle", "student", "stopped")
    centre.book(hostile)
    async with centre.visit(STUDENT) as student:
        page = (await student.get(MINE)).text
    assert hostile not in page
    assert "&lt;script&gt;" in page


def test_templates_have_no_script_or_style_in_them() -> None:
    folder = Path(__file__).parents[2] / "hub_ext" / "desk" / "templates"
    for path in folder.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)|\bon\w+=|\bstyle=", text), (
            path.name
        )
