"""What open waiting pages are told, without a browser: one look for all, the newest state, and pages that never read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from hub_ext.core.errors import StoreUnavailable
from hub_ext.desk.live import Watch
from hub_ext.desk.waiting import Known, Look, Turn
from hub_ext.quota.model import LeaseState, Outlook, Policy

NOW = 1_800_000_000


class Records:
    """Tickets as the database would show them; counts how often it is asked, and may fail."""

    def __init__(self) -> None:
        self.tickets: dict[str, Known] = {}
        self.asked: list[list[str]] = []
        self.fault: Exception | None = None
        self.looked = asyncio.Condition()

    def __call__(self, ids: list[str]) -> Look:
        self.asked.append(list(ids))
        if self.fault is not None:
            raise self.fault
        return Look(
            {name: self.tickets[name] for name in ids if name in self.tickets},
            Policy(ZoneInfo("Asia/Seoul"), {}, {}),
            NOW,
        )

    async def in_thread(self, work: Callable[[list[str]], Look], ids: list[str]) -> Look:
        try:
            return work(ids)
        finally:
            async with self.looked:
                self.looked.notify_all()

    async def looks(self, count: int = 1) -> None:
        """Until so many looks more were taken."""
        until = len(self.asked) + count
        async with self.looked:
            await self.looked.wait_for(lambda: len(self.asked) >= until)


@pytest.fixture
async def records() -> Records:
    return Records()


@pytest.fixture
async def watch(records: Records) -> AsyncIterator[Watch]:
    made = Watch(records, records.in_thread, seconds=0)
    yield made
    await made.close()


def place(number: int) -> Outlook:
    return Outlook("pool-full", {}, place=number)


@asynccontextmanager
async def many(watch: Watch, ticket: str, count: int) -> AsyncIterator[list[Any]]:
    if not count:
        yield []
        return
    async with watch.subscribe(ticket) as one, many(watch, ticket, count - 1) as others:
        yield [one, *others]


async def test_a_page_is_told_what_is_and_then_what_changes(watch: Watch, records: Records) -> None:
    records.tickets["t1"] = place(3)
    async with watch.subscribe("t1") as page:
        assert (await page.following()).known == place(3)
        await records.looks(3)
        waiting = asyncio.ensure_future(page.following())
        await records.looks(2)
        assert not waiting.done(), "the same again is no news"
        records.tickets["t1"] = place(2)
        assert (await waiting).known == place(2)
        records.tickets["t1"] = Turn(LeaseState.BOOKED)
        assert (await page.following()).known == Turn(LeaseState.BOOKED)


async def test_one_look_serves_all_pages(watch: Watch, records: Records) -> None:
    records.tickets = {"t1": place(1), "t2": place(2)}
    async with many(watch, "t1", 100) as first, many(watch, "t2", 100) as second:
        assert watch.open_pages == 200
        for page in (*first, *second):
            await page.following()
        assert all(sorted(ids) == ["t1", "t2"] for ids in records.asked[1:])
        assert len(records.asked) <= 3


async def test_who_reads_slowly_gets_the_newest_and_nothing_between(watch: Watch, records: Records) -> None:
    async with watch.subscribe("t1") as page:
        for number in range(50, 0, -1):
            records.tickets["t1"] = place(number)
            await records.looks(2)
        assert (await page.following()).known == place(1)
        waiting = asyncio.ensure_future(page.following())
        await records.looks(2)
        assert not waiting.done(), "nothing was kept of the others"
        waiting.cancel()


async def test_nobody_looks_while_no_page_is_open(watch: Watch, records: Records) -> None:
    records.tickets["t1"] = place(1)
    async with watch.subscribe("t1") as page:
        await page.following()
    assert watch.open_pages == 0
    for _ in range(10):
        await asyncio.sleep(0)
    before = len(records.asked)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(records.asked) == before
    async with watch.subscribe("t1") as page:
        assert (await page.following()).known == place(1), "and the next page begins anew"


async def test_pages_hear_that_the_records_are_away_and_that_they_are_back(
    watch: Watch, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub_ext.desk.live.FAILED_SECONDS", 0)
    records.tickets["t1"] = place(1)
    async with watch.subscribe("t1") as page:
        assert (await page.following()).known == place(1)
        records.fault = StoreUnavailable("away")
        away = await page.following()
        assert (away.known, away.look) == (None, None)
        records.fault = None
        assert (await page.following()).known == place(1), "told again, though nothing changed"


async def test_a_mistake_in_one_look_ends_no_page(
    watch: Watch, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub_ext.desk.live.FAILED_SECONDS", 0)

    records.tickets["t1"] = place(2)
    async with watch.subscribe("t1") as page:
        await page.following()
        records.fault = RuntimeError("a mistake of ours")
        assert (await page.following()).known is None
        records.fault = None
        assert (await page.following()).known == place(2)
