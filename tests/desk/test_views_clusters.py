"""A cluster in words: its state, its workers, what ends when, and more time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hub_ext.core.clock import HOUR, MINUTE
from hub_ext.core.decision import Code, Wait
from hub_ext.desk.clusters import ClusterExtension, ClusterFacts
from hub_ext.desk.views_clusters import ClusterLine, cluster_line, counted, notice_of, state_of, why_shorter
from hub_ext.pages.words import speaker
from hub_ext.quota.cluster import ClusterLeases
from hub_ext.quota.document import parse_policy
from hub_ext.quota.model import SCHEDULER, WORKER, Ask, Eta, Lease, LeaseState, Outlook, Ticket
from hub_ext.quota.policy import End
from tests.desk.lively import POLICY, START

CENTRE = parse_policy(POLICY)
EN, KO = speaker(CENTRE, "en"), speaker(CENTRE, "ko")
NAME = "c0ffee00c0ffee00c0ffee00c0ffee00"
TITLES = {name: pool.title for name, pool in CENTRE.pools.items()} | {
    "gpu": {"en": "GPU workers", "ko": "GPU 워커"}
}
SOON = 15 * MINUTE

RUNNING = Lease(
    id=NAME,
    person="student",
    pool="univ",
    path=("univ", "seoul"),
    amounts={"cpu": 1000, "memory": 2048},
    kind=SCHEDULER,
    guaranteed=True,
    lender=None,
    cost=0,
    booked_at=START - HOUR,
    started_at=START - HOUR,
    ends_at=START + 3 * HOUR,
    charged_until=START,
    state=LeaseState.RUNNING,
    profile="gpu",
    server=NAME,
)
WORKING = replace(RUNNING, id="w1", kind=WORKER, amounts={"gpu.h200": 1000}, cost=10**6)
BORROWED = replace(WORKING, id="w2", guaranteed=False, lender="lab", cost=500_000)
TICKET = Ticket(
    Ask("t1", "student", "univ", {"gpu.h200": 1000}, WORKER, "gpu", server=NAME),
    START - MINUTE,
    Outlook(
        "pool-full",
        {"pool": "univ", "resource": "gpu.h200", "asked": 1000, "available": 0},
        place=2,
        eta=Eta(START + HOUR, "expected"),
    ),
    wanted=4,
)


def facts(
    *workers: Lease, scheduler: Lease | None = RUNNING, ticket: Ticket | None = None, **more: Any
) -> ClusterFacts:
    return ClusterFacts(NAME, ClusterLeases(scheduler, workers, ticket), CENTRE, START, TITLES, **more)


def line(*workers: Lease, say: Any = EN, **more: Any) -> ClusterLine:
    return cluster_line(facts(*workers, **more), say, soon=SOON)


@pytest.mark.parametrize(
    ("scheduler", "workers", "state", "chip"),
    [
        pytest.param(
            replace(RUNNING, state=LeaseState.BOOKED, started_at=None),
            (),
            "starting",
            "Starting",
            id="booked",
        ),
        pytest.param(RUNNING, (), "running", "Running", id="without a worker"),
        pytest.param(RUNNING, (WORKING, BORROWED), "running", "Running, borrowed", id="some are borrowed"),
        pytest.param(
            replace(RUNNING, noticed_at=START), (WORKING,), "running", "Ends soon", id="told to end"
        ),
        pytest.param(
            replace(RUNNING, state=LeaseState.ENDING), (WORKING,), "ending", "Stopping", id="ending"
        ),
        pytest.param(None, (WORKING,), "ending", "Stopping", id="its scheduler is gone"),
    ],
)
def test_how_it_stands(scheduler: Lease | None, workers: tuple[Lease, ...], state: str, chip: str) -> None:
    shown = line(*workers, scheduler=scheduler)
    assert state_of(facts(*workers, scheduler=scheduler)) == state
    assert shown.chip.text == chip
    assert bool(shown.dashboard) == (state == "running")
    assert shown.stoppable == (state != "ending")


def test_its_workers_are_counted_once_each() -> None:
    starting = replace(WORKING, id="w3", state=LeaseState.BOOKED, started_at=None)
    ending = replace(WORKING, id="w4", state=LeaseState.ENDING)
    found = counted(facts(WORKING, BORROWED, starting, ending, ticket=TICKET))
    assert (found.live, found.running, found.starting, found.ending) == (4, 2, 1, 1)
    assert (found.guaranteed, found.borrowed, found.wanted) == (3, 1, 4)
    shown = line(WORKING, BORROWED, starting, ending, ticket=TICKET)
    assert shown.workers == "2 running · 1 starting · 1 being ended · 1 borrowed"
    assert shown.parts == (("used", 125), ("borrowed", 125), ("lent", 125))
    assert line().workers == "No worker yet"


def test_what_it_takes_is_all_of_it() -> None:
    shown = line(WORKING, BORROWED)
    assert shown.what == "2 Dask workers · 2 × H200 · 1 CPU · 2 GB"
    assert (shown.price, shown.until) == ("1.5 GPU-h/hour", "until 12:00 (3 h left)")
    assert (shown.title, shown.short) == ("GPU workers", "c0ffee00")
    assert line(say=KO).title == "GPU 워커"


@pytest.mark.parametrize(
    ("say", "want"),
    [
        (EN, "4 more workers wait in line, place 2, expected 10:00"),
        (KO, "워커 4개가 더 대기 중, 2번째, 10:00 예상"),
    ],
)
def test_what_it_waits_for(say: Any, want: str) -> None:
    shown = line(WORKING, ticket=TICKET, say=say)
    assert shown.waits == want
    assert shown.told is not None
    assert shown.told.next_step == "", "there is nothing that they could do"


# -- what ends --------------------------------------------------------------------------------------------------------

TAKEN = replace(BORROWED, noticed_at=START - MINUTE, noticed_for="t9", ends_at=START + 9 * MINUTE)
SPENT = replace(WORKING, id="w5", noticed_at=START, ends_at=START + 5 * MINUTE)


@pytest.mark.parametrize(
    ("workers", "more", "want"),
    [
        pytest.param((WORKING,), {}, None, id="nothing"),
        pytest.param(
            (TAKEN, replace(TAKEN, id="w6")), {}, ("taken-back", 9, 2, False), id="two are taken back"
        ),
        pytest.param(
            (TAKEN, replace(TAKEN, id="w6", ends_at=START + 30 * MINUTE)),
            {},
            ("taken-back", 9, 1, False),
            id="the first of two",
        ),
        pytest.param((SPENT, TAKEN), {}, ("taken-back", 9, 1, False), id="what is taken back comes first"),
        pytest.param(
            (SPENT,), {"whys": {"w5": "budget-spent"}}, ("budget-spent", 5, 1, False), id="hours are used up"
        ),
        pytest.param((SPENT,), {"whys": {"w5": "ends-soon"}}, ("ends-soon", 5, 1, False), id="its time ends"),
        pytest.param(
            (SPENT,),
            {"scheduler": replace(RUNNING, noticed_at=START, ends_at=START + 10 * MINUTE)},
            ("ends-soon", 10, 1, True),
            id="the whole cluster",
        ),
        pytest.param((replace(TAKEN, state=LeaseState.ENDING),), {}, None, id="one that is ending already"),
    ],
)
def test_what_is_told_to_end(
    workers: tuple[Lease, ...], more: dict[str, Any], want: tuple[str, int, int, bool] | None
) -> None:
    for say in (EN, KO):
        found = notice_of(facts(*workers, **more), say)
        told = (
            None if found is None else (found.why, (found.ends_at - START) // 60, found.workers, found.whole)
        )
        assert told == want
        if found is not None:
            assert say.moment(found.ends_at, START) in found.message


def test_only_the_end_of_the_cluster_is_an_alarm() -> None:
    assert not line(TAKEN).soon
    assert line(TAKEN).notice.startswith("1 worker ends at 09:09: it is borrowed")
    ends = replace(RUNNING, noticed_at=START, ends_at=START + 10 * MINUTE)
    assert line(WORKING, scheduler=ends).soon
    assert not line(WORKING, scheduler=replace(ends, ends_at=START + HOUR)).soon


# -- more time --------------------------------------------------------------------------------------------------------


def test_each_end_is_offered_once_and_only_what_is_worth_it() -> None:
    extensions = [
        (30, End(START + 3 * HOUR + 30 * MINUTE)),
        (60, End(START + 4 * HOUR)),
        (120, End(START + 4 * HOUR)),
    ]
    shown = line(WORKING, extensions=extensions)
    assert [(one.minutes, one.label) for one in shown.longer] == [
        (30, "until 12:30 (+30 min)"),
        (60, "until 13:00 (+1 h)"),
    ]
    assert line(WORKING, extensions=[(30, End(START + 3 * HOUR))]).why_not_longer.startswith(
        "It ends as late"
    )
    waits = Wait(Code.OTHERS_WAITING, {"pool": "univ"})
    assert line(WORKING, extensions=[(30, waits)]).why_not_longer.startswith("Others who came first")
    ending = replace(RUNNING, state=LeaseState.ENDING)
    assert line(WORKING, scheduler=ending, extensions=extensions).longer == ()


def test_workers_that_got_no_more_time_are_told() -> None:
    waits = Wait(Code.OTHERS_WAITING, {"pool": "univ"})

    def told(extension: ClusterExtension) -> str:
        return why_shorter(extension, EN, titles=TITLES, now=START)

    assert told(ClusterExtension(START, True)) == ""
    assert told(ClusterExtension(START, False, objection=waits)).startswith("Others who came first")
    some = told(ClusterExtension(START, True, 2, waits))
    assert some.startswith("The cluster runs longer; 2 of its workers do not. Others who came first")
