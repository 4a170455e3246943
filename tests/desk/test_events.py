"""The stream behind an open waiting room: what it says, to whom, and how it ends whatever the browser does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from hub_ext.desk.live import Watch
from hub_ext.quota.model import Eta, Outlook, Ticket
from tests.desk.in_process import DeskInProcess, away
from tests.support.databases import Database
from tests.support.desk import a_ticket

ROOM = "/services/desk/tickets/t1"
EVENTS = f"{ROOM}/events"


@pytest.fixture
async def here(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DeskInProcess]:
    monkeypatch.setattr("hub_ext.desk.live.FAILED_SECONDS", 0.02)
    made = DeskInProcess.on(sqlite_database)
    watch = Watch(made.app.state.watch._look, made.desk.admission.in_thread, seconds=0.02)
    made.app.state.watch = watch
    put(made, waiting(made))
    yield made
    await watch.close()
    made.desk.store.close()


def waiting(here: DeskInProcess) -> Ticket:
    now = here.desk.clock.now()
    outlook = Outlook("person-at-cap", {}, place=3, eta=Eta(now + 3600, "latest"))
    return replace(a_ticket(), made_at=now - 60, outlook=outlook)


def put(here: DeskInProcess, ticket: Ticket) -> None:
    with here.desk.store.booking() as txn:
        txn.put_tickets([ticket])


async def until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"waited in vain for: {what}")


def open_pages(here: DeskInProcess) -> int:
    watch: Watch = here.app.state.watch
    return watch.open_pages


async def test_the_place_is_told_and_then_every_change_of_it(here: DeskInProcess) -> None:
    async with here.stream("student", EVENTS) as stream:
        event, data = await stream.next()
        assert (event, json.loads(data)["heading"]) == ("line", "You are number 3 in line for: 1 × H200")
        assert json.loads(data)["when"].startswith("at the latest ")
        ticket = waiting(here)
        put(here, replace(ticket, outlook=replace(ticket.outlook, place=2, eta=None)))
        event, data = await stream.next()
        assert (event, json.loads(data)["heading"]) == ("line", "You are number 2 in line for: 1 × H200")
        assert json.loads(data)["when"] == "no time is known yet"


async def test_it_speaks_the_language_of_the_page(here: DeskInProcess) -> None:
    async with here.stream("student", EVENTS, **{"Accept-Language": "ko"}) as stream:
        _, data = await stream.next()
        assert "대기 3번째" in json.loads(data)["heading"]


async def test_who_left_the_line_is_told_that_it_is_over(here: DeskInProcess) -> None:
    async with here.stream("student", EVENTS) as stream:
        await stream.next()
        await here.desk.admission.leave("t1", "student")
        assert (await stream.next())[0] == "over"
        await asyncio.wait_for(stream.task, 10)


async def test_while_the_records_are_away_the_page_is_told_so_and_then_goes_on(
    here: DeskInProcess, sqlite_database: Database
) -> None:
    async with here.stream("student", EVENTS) as stream:
        await stream.next()
        with away(sqlite_database):
            assert (await stream.next())[0] == "away"
        event, data = await stream.next()
        assert (event, json.loads(data)["heading"]) == ("line", "You are number 3 in line for: 1 × H200")


async def test_a_browser_that_never_reads_is_cut_and_forgotten(
    here: DeskInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub_ext.desk.handlers.waiting.SEND_SECONDS", 0.05)
    async with here.stream("student", EVENTS) as reads, here.stream("student", EVENTS) as never:
        await reads.next()
        await never.next()
        assert open_pages(here) == 2
        never.blocked = True
        ticket = waiting(here)
        put(here, replace(ticket, outlook=replace(ticket.outlook, place=2)))
        assert "number 2" in (await reads.next())[1], "the others are told all the same"
        await until(lambda: open_pages(here) == 1, "it is cut")
        await asyncio.wait({never.task}, timeout=10)
        assert never.task.done()


async def test_a_browser_that_goes_away_is_forgotten(here: DeskInProcess) -> None:
    async with here.stream("student", EVENTS) as stream:
        await stream.next()
        assert open_pages(here) == 1
        stream.close()
        await until(lambda: open_pages(here) == 0, "it is forgotten")


async def test_a_stream_without_news_is_heard_to_be_alive(
    here: DeskInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the page's script, too: a proxy may keep the stream of a desk open that was killed."""
    monkeypatch.setattr("hub_ext.desk.handlers.waiting.HEARTBEAT_SECONDS", 0.02)
    async with here.stream("student", EVENTS) as stream:
        assert (await stream.next())[0] == "line"
        assert await stream.next() == ("beat", "{}")
        assert await stream.next() == ("beat", "{}")


async def test_no_stream_lasts_for_ever(here: DeskInProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub_ext.desk.handlers.waiting.STREAM_SECONDS", 0.2)
    async with here.stream("student", EVENTS) as stream:
        await stream.next()
        await asyncio.wait_for(stream.task, 10)
        assert open_pages(here) == 0


async def test_who_signs_out_elsewhere_hears_no_more(
    here: DeskInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub_ext.desk.handlers.waiting.SESSION_SECONDS", 0.05)
    async with here.stream("student", EVENTS) as stream:
        await stream.next()
        here.hub.away = True
        await until(lambda: open_pages(here) == 1, "a hub that is away sends nobody off")
        here.hub.away = False
        del here.hub.identities["token-student"]
        assert (await stream.next())[0] == "signed-out"
        await asyncio.wait_for(stream.task, 10)


async def test_the_stream_of_another_persons_ticket_is_not_there(here: DeskInProcess) -> None:
    for name in ("researcher", "lead"):
        async with here.stream(name, EVENTS) as stream:
            await asyncio.wait_for(stream.task, 10)
            assert stream.status == 404
    assert open_pages(here) == 0


async def test_an_operator_may_look_on(here: DeskInProcess) -> None:
    async with here.stream("operator", EVENTS) as stream:
        assert (await stream.next())[0] == "line"


async def test_a_stream_without_the_sessions_token_says_nothing(here: DeskInProcess) -> None:
    """`EventSource` of a page that is not ours, at the same address."""
    headers, _ = here.session("student")
    script = {"Sec-Fetch-Mode": "cors", "Accept": "text/event-stream"}
    async with here.browser() as browser:
        answer = await browser.get(EVENTS, headers=headers | script)
    assert (answer.status_code, answer.json()["code"]) == (403, "not-our-page")
