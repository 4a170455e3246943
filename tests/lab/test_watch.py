"""What is known of the lease: asked for seldom, kept while the desk is away, by the desk's clock."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from hub_ext.core.errors import HubError
from hub_ext.notebook.lab.desk import DeskAway, Told
from hub_ext.notebook.lab.model import Lease, Notice
from hub_ext.notebook.lab.watch import BORROWED_SECONDS, CALM_SECONDS, FRESH_SECONDS, PAUSES, LeaseWatch
from tests.support.fakes import HandClock

WRONG_CLOCK, DESK_TIME = 1_000_000_000, 1_800_000_000
LEASE = Lease("l1", DESK_TIME + 3600, "18:40")


class CountingDesk:
    """`answer` is given, or raised, after `gate` opens."""

    def __init__(self) -> None:
        self.answer: Told | HubError = Told(LEASE, DESK_TIME)
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def lease(self, language: str) -> Told:
        self.asked.append(language)
        await self.gate.wait()
        if isinstance(self.answer, HubError):
            raise self.answer
        return self.answer


class Steady:
    def __init__(self) -> None:
        self.at = 50.0

    def __call__(self) -> float:
        return self.at


def watch_of(desk: CountingDesk) -> tuple[LeaseWatch, Steady]:
    steady = Steady()
    return LeaseWatch(desk, HandClock(WRONG_CLOCK), steady=steady), steady  # type: ignore[arg-type]


async def test_many_tabs_ask_once() -> None:
    desk = CountingDesk()
    watch, steady = watch_of(desk)
    desk.gate.clear()
    looks = [asyncio.create_task(watch.look("en")) for _ in range(50)]
    await asyncio.sleep(0)
    desk.gate.set()
    assert {known.lease for known in await asyncio.gather(*looks)} == {LEASE}
    steady.at += FRESH_SECONDS - 0.1
    await watch.look("en", anew=True)
    assert desk.asked == ["en"]
    steady.at += 0.1
    await watch.look("en", anew=True)
    assert desk.asked == ["en", "en"]


@pytest.mark.parametrize(
    ("lease", "seconds"),
    [
        pytest.param(LEASE, CALM_SECONDS, id="guaranteed, long to go"),
        pytest.param(replace(LEASE, guaranteed=False), BORROWED_SECONDS, id="borrowed, long to go"),
        pytest.param(replace(LEASE, ends_at=DESK_TIME + 29 * 60), FRESH_SECONDS, id="not long to go"),
        pytest.param(replace(LEASE, over=True), FRESH_SECONDS, id="being ended"),
        pytest.param(
            replace(LEASE, notice=Notice("taken-back", LEASE.ends_at, "")), FRESH_SECONDS, id="a notice"
        ),
        pytest.param(None, FRESH_SECONDS, id="no lease"),
    ],
)
async def test_an_answer_serves_as_long_as_nothing_can_come_in_between(
    lease: Lease | None, seconds: float
) -> None:
    desk = CountingDesk()
    desk.answer = Told(lease, DESK_TIME)
    watch, steady = watch_of(desk)
    await watch.look("en")
    steady.at += seconds - 0.1
    await watch.look("en")
    assert len(desk.asked) == 1
    steady.at += 0.1
    await watch.look("en")
    assert len(desk.asked) == 2


async def test_each_language_has_its_own_sentences() -> None:
    desk = CountingDesk()
    watch, _ = watch_of(desk)
    await asyncio.gather(watch.look("en"), watch.look("ko"), watch.look("ko"))
    assert sorted(desk.asked) == ["en", "ko"]


async def test_whoever_goes_away_takes_the_answer_from_nobody() -> None:
    desk = CountingDesk()
    watch, _ = watch_of(desk)
    desk.gate.clear()
    first, second = asyncio.create_task(watch.look("en")), asyncio.create_task(watch.look("en"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    desk.gate.set()
    assert (await second).lease == LEASE
    assert desk.asked == ["en"]


async def test_the_time_is_the_desks_carried_on() -> None:
    desk = CountingDesk()
    watch, steady = watch_of(desk)
    assert (await watch.look("en")).now == DESK_TIME
    steady.at += 2
    assert (await watch.look("en")).now == DESK_TIME + 2


async def test_a_desk_that_says_no_time_leaves_it_to_this_machine() -> None:
    desk = CountingDesk()
    desk.answer = Told(LEASE, None)
    watch, _ = watch_of(desk)
    assert (await watch.look("en")).now == WRONG_CLOCK


async def test_while_the_desk_is_away_the_last_answer_stays_and_it_is_asked_ever_more_seldom() -> None:
    desk = CountingDesk()
    watch, steady = watch_of(desk)
    await watch.look("en")
    desk.answer = DeskAway("gone")
    steady.at += CALM_SECONDS
    for pause in (*PAUSES, PAUSES[-1]):
        before = len(desk.asked)
        known = await watch.look("en")
        assert (known.lease, known.away, known.told_at) == (LEASE, True, DESK_TIME)
        assert known.now == DESK_TIME + int(steady.at - 50)
        assert len(desk.asked) == before + 1
        steady.at += pause - 0.01
        await watch.look("en")
        assert len(desk.asked) == before + 1
        steady.at += 0.01
    desk.answer = Told(None, DESK_TIME + 500)
    known = await watch.look("en")
    assert (known.lease, known.away, known.now) == (None, False, DESK_TIME + 500)


async def test_a_desk_that_never_answered_is_known_to_be_away() -> None:
    desk = CountingDesk()
    desk.answer = DeskAway("gone")
    watch, _ = watch_of(desk)
    known = await watch.look("en")
    assert (known.lease, known.told_at, known.away) == (None, None, True)


async def test_after_a_change_the_desk_is_asked_at_once() -> None:
    desk = CountingDesk()
    watch, _ = watch_of(desk)
    await watch.look("en")
    watch.forget()
    await watch.look("en")
    assert len(desk.asked) == 2


async def test_the_last_lease_is_known_without_asking() -> None:
    desk = CountingDesk()
    watch, steady = watch_of(desk)
    assert watch.last() is None
    await watch.look("en")
    steady.at += 1
    longer = replace(LEASE, ends_at=LEASE.ends_at + 60)
    desk.answer = Told(longer, DESK_TIME + 1)
    await watch.look("ko")
    assert watch.last() == longer
    assert len(desk.asked) == 2
