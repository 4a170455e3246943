"""What follows from what the ledger, the world and the hub each say; doing it twice changes nothing (QUOTA.md §9)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.core.errors import HubError
from hub_ext.quota.ledger import Ledger, refold
from hub_ext.quota.model import START_AGAIN_WITHIN, Ask, Lease, LeaseState
from hub_ext.quota.ports import Running
from hub_ext.quota.reconcile import (
    LOST_AFTER,
    WATCH_GAP,
    Adopt,
    Instruction,
    Release,
    Seen,
    SetRunning,
    StartAgain,
    StopRunning,
    reconcile,
)
from hub_ext.quota.sums import Sums
from tests.support.builders import a_policy
from tests.support.worlds import AnsweringHub, ObedientWorld, SilentHub, WorldThatEndsNothing, WorldUnseen

BOOKED_AT, NOW = 1_000_000, 1_000_100
POLICY = a_policy(
    {
        "univ": {
            "quota": {"gpu.h200": {"nominal": 1}},
            "person": {"servers": 1},
            "budgets": [{"hours": 10, "period": "day"}],
        }
    }
)
BOOKED, RUNNING, ENDING = LeaseState.BOOKED, LeaseState.RUNNING, LeaseState.ENDING
MINE = ("ha", "s")


def a_lease(state: LeaseState = RUNNING, **more: Any) -> Lease:
    """A lease of one GPU: booked, running since five seconds later as process p, or told to end."""
    booked = Lease(
        "l1",
        "ha",
        "univ",
        ("univ",),
        {"gpu.h200": 1000},
        "server",
        True,
        None,
        10**6,
        BOOKED_AT,
        BOOKED_AT + 7200,
        BOOKED_AT,
        server="s",
    )
    if state is not BOOKED:
        booked = replace(
            booked,
            state=state,
            started_at=BOOKED_AT + 5,
            charged_until=BOOKED_AT + 5,
            seen_at=NOW - 2,
            handle="p",
        )
    return replace(booked, **more)


def process(
    handle: str = "p",
    lease: str = "l1",
    *,
    main: bool = True,
    started_at: int | None = BOOKED_AT + 5,
    **labels: Any,
) -> Running:
    return Running(
        lease, handle, started_at, main, "n1", {"person": "ha", "server": "s", "pool": "univ", **labels}
    )


class Hub:
    """What was read of each, and one round of reconciling with it: the clock's steps, without a database."""

    def __init__(
        self, leases: list[Lease], world: ObedientWorld, hub: AnsweringHub, released: list[str] | None = None
    ) -> None:
        self.ledger = Ledger(POLICY, Sums())
        self.leases = {lease.id: self.ledger.record(lease, BOOKED_AT) for lease in leases}
        self.world, self.hub = world, hub
        self.released = set(released or ())

    def look(self, now: int) -> list[Instruction]:
        try:
            known = self.hub.active()
        except HubError:
            known = None
        live = [lease for lease in self.leases.values() if lease.live]
        over = self.released | {lease.id for lease in self.leases.values() if not lease.live}
        return reconcile(live, frozenset(over), self.world.running(), known, now)

    def reconcile(self, now: int = NOW) -> list[Instruction]:
        found = self.look(now)
        for instruction in found:
            self.enact(instruction, now)
        return found

    def enact(self, instruction: Instruction, now: int) -> None:
        match instruction:
            case SetRunning(lease, running, at):
                self.put(self.ledger.run(lease, at, handle=running.handle))
            case Release(lease, at, why):
                self.put(self.ledger.release(lease, at, why=why))
            case StopRunning(running):
                self.world.stop(running)
            case Adopt(running):
                labels = running.labels or {}
                ask = Ask(
                    running.lease, labels["person"], "univ", {"gpu.h200": 1000}, server=labels["server"]
                )
                self.put(
                    self.ledger.adopt(
                        ask,
                        now,
                        started_at=running.started_at or now,
                        ends_at=now + 60,
                        cost=10**6,
                        handle=running.handle,
                    )
                )
            case Seen(lease):
                self.put(replace(lease, seen_at=now))
            case StartAgain(lease):
                self.hub.start(lease.person, lease.server)

    def put(self, lease: Lease) -> None:
        self.leases[lease.id] = lease


UP, SPAWNING, STOPPING, UNKNOWN = {MINE: None}, {MINE: "spawn"}, {MINE: "stop"}, {}

TABLE = [
    # (the leases, what runs, what the hub knows (None: it does not answer), what follows as (kind, id or handle, when, why))
    pytest.param([a_lease(BOOKED)], [], SPAWNING, [], id="booked, not there yet, being started: wait"),
    pytest.param([a_lease(BOOKED)], [], None, [], id="booked, not there yet, no hub to ask: wait"),
    pytest.param(
        [a_lease(BOOKED, booked_at=NOW - LOST_AFTER)], [], None, [("release", "l1", NOW, "lost")],
        id="booked, not there for five minutes, no hub to ask: lost",
    ),
    pytest.param([a_lease(BOOKED, booked_at=NOW - LOST_AFTER + 1)], [], None, [], id="booked, not there for a second less: wait"),
    pytest.param([a_lease(BOOKED, booked_at=0)], [], SPAWNING, [], id="booked long ago, and the hub still starts it: wait"),
    pytest.param([a_lease(BOOKED)], [], UNKNOWN, [("start", "l1", None, None)], id="booked, and the hub knows of no start: it was cut off, and is started again"),
    pytest.param(
        [a_lease(BOOKED, booked_at=NOW - START_AGAIN_WITHIN)], [], UNKNOWN, [("release", "l1", NOW, "start-lost")],
        id="booked a quarter of an hour ago, and the hub knows of no start: lost, uncharged",
    ),
    pytest.param([a_lease(BOOKED)], [process()], SPAWNING, [("run", "l1", BOOKED_AT + 5, "p")], id="booked and there: it runs since the process began"),
    pytest.param([a_lease(BOOKED)], [process()], None, [("run", "l1", BOOKED_AT + 5, "p")], id="booked and there, no hub to ask: it runs"),
    pytest.param(
        [a_lease(BOOKED)], [process(started_at=BOOKED_AT - 50)], UP, [("run", "l1", BOOKED_AT, "p")], id="it cannot have run before it was booked"
    ),
    pytest.param([a_lease(BOOKED)], [process(started_at=NOW + 50)], UP, [("run", "l1", NOW, "p")], id="nor does it begin in the future"),
    pytest.param(
        [a_lease(BOOKED)], [process()], UNKNOWN, [("stop", "p", None, None), ("release", "l1", NOW, "orphan")],
        id="booked and there, and the hub does not know it: nobody can reach it",
    ),
    pytest.param([a_lease()], [process()], UP, [("seen", "l1", None, None)], id="running and there: seen"),
    pytest.param([a_lease()], [process()], None, [("seen", "l1", None, None)], id="running and there, no hub to ask: seen"),
    pytest.param([a_lease()], [process()], STOPPING, [("seen", "l1", None, None)], id="running, there, being stopped: seen"),
    pytest.param([a_lease(ENDING)], [process()], STOPPING, [("seen", "l1", None, None)], id="ending and still there: seen, and it counts"),
    pytest.param(
        [a_lease()], [process()], UNKNOWN, [("stop", "p", None, None), ("release", "l1", NOW, "orphan")],
        id="running and there, and the hub does not know it: nobody can reach it",
    ),
    pytest.param([a_lease()], [], STOPPING, [], id="running, gone, being stopped: the hub's own stop says why"),
    pytest.param([a_lease(ENDING)], [], STOPPING, [], id="ending, gone, being stopped: likewise"),
    pytest.param([a_lease()], [], UP, [("release", "l1", NOW, "died")], id="running and gone, and the hub thinks it is up: it died"),
    pytest.param([a_lease()], [], UNKNOWN, [("release", "l1", NOW, "died")], id="running and gone, and the hub knows that: it died"),
    pytest.param([a_lease()], [], None, [("release", "l1", NOW, "died")], id="running and gone, no hub to ask: it died"),
    pytest.param([a_lease(ENDING, reason="stopped")], [], UP, [("release", "l1", NOW, "stopped")], id="ending and gone: for the reason it was told to end"),
    pytest.param(
        [a_lease(seen_at=NOW - WATCH_GAP - 1)], [], UP, [("release", "l1", NOW - WATCH_GAP - 1, "died")],
        id="gone while nobody watched: charged until it was last seen",
    ),
    pytest.param([a_lease(seen_at=NOW - WATCH_GAP)], [], UP, [("release", "l1", NOW, "died")], id="gone between two looks: until now"),
    pytest.param(
        [a_lease(seen_at=None, started_at=BOOKED_AT + 20, charged_until=BOOKED_AT + 20)], [], UP, [("release", "l1", BOOKED_AT + 20, "died")],
        id="gone and never seen: nothing is charged",
    ),
    pytest.param(
        [a_lease()], [process("other")], UP, [("release", "l1", NOW, "died"), ("stop", "other", None, None)],
        id="another process under its label is not it: it died, and what is left is ended",
    ),
    pytest.param(
        [a_lease()], [process("kernel", main=False)], UP, [("release", "l1", NOW, "died"), ("stop", "kernel", None, None)],
        id="only what it left behind runs: it died, and that is ended",
    ),
    pytest.param([a_lease()], [process(), process("kernel", main=False)], UP, [("seen", "l1", None, None)], id="what runs beside it belongs to it"),
    pytest.param(
        [a_lease(BOOKED, kind="dask-worker", server="c")], [], UNKNOWN, [], id="a worker is not the hub's to know: wait",
    ),
    pytest.param(
        [a_lease(kind="dask-worker", server="c")], [process()], UNKNOWN, [("seen", "l1", None, None)], id="a worker that is there: seen",
    ),
    pytest.param(
        [a_lease(BOOKED, kind="dask-worker", booked_at=NOW - LOST_AFTER)], [], UP, [("release", "l1", NOW, "lost")], id="a worker that never came: lost",
    ),
    pytest.param([], [process("p", "old")], UP, [("stop", "p", None, None)], id="a lease that is over: what is left over is ended"),
    pytest.param([], [process("p", "old")], None, [("stop", "p", None, None)], id="a lease that is over, no hub to ask: likewise"),
    pytest.param([], [process("p", "new")], UP, [("adopt", "p", None, None)], id="no lease, and the hub knows the server: adopted"),
    pytest.param([], [process("p", "new")], UNKNOWN, [("stop", "p", None, None)], id="no lease, and nobody can reach it: ended"),
    pytest.param([], [process("p", "new")], None, [], id="no lease, no hub to ask: left alone until there is"),
    pytest.param([], [process("k", "new", main=False)], UP, [("stop", "k", None, None)], id="no lease, and only something left behind: ended"),
    pytest.param(
        [], [process("k", "new", main=False), process("p", "new"), process("k2", "new", main=False)], UP, [("adopt", "p", None, None)],
        id="no lease, a server with kernels: adopted as one",
    ),
    pytest.param(
        [], [process("p", "old"), process("k", "old", main=False)], UP, [("stop", "p", None, None)], id="what is left of one lease is ended as one",
    ),
    pytest.param([], [Running("new", "p", BOOKED_AT)], UP, [("stop", "p", None, None)], id="no lease and no labels: ended"),
]  # fmt: skip


def told(found: list[Instruction]) -> list[tuple[str, str, int | None, str | None]]:
    result: list[tuple[str, str, int | None, str | None]] = []
    for one in found:
        match one:
            case SetRunning(lease, running, at):
                result.append(("run", lease.id, at, running.handle))
            case Seen(lease):
                result.append(("seen", lease.id, None, None))
            case Release(lease, at, why):
                result.append(("release", lease.id, at, why))
            case StopRunning(running):
                result.append(("stop", running.handle, None, None))
            case StartAgain(lease):
                result.append(("start", lease.id, None, None))
            case Adopt(running):
                result.append(("adopt", running.handle, None, None))
    return result


def hub_that(known: dict[tuple[str, str], str | None] | None) -> AnsweringHub:
    return SilentHub() if known is None else AnsweringHub(dict(known))


@pytest.mark.parametrize(("leases", "processes", "known", "wanted"), TABLE)
def test_what_follows(leases: list[Lease], processes: list[Running], known: Any, wanted: Any) -> None:
    hub = Hub(leases, ObedientWorld(processes), hub_that(known), released=["old"])
    assert told(hub.reconcile()) == wanted


@pytest.mark.parametrize(("leases", "processes", "known", "wanted"), TABLE)
def test_twice_changes_nothing(
    leases: list[Lease], processes: list[Running], known: Any, wanted: Any
) -> None:
    """The second time, everything that is there is seen, and that is all."""
    hub = Hub(leases, ObedientWorld(processes), hub_that(known), released=["old"])
    hub.reconcile()
    state, processes_after, sums = dict(hub.leases), hub.world.running(), hub.ledger.sums.copy()
    assert {one[0] for one in told(hub.reconcile())} <= {"seen"}
    assert hub.world.running() == processes_after
    assert hub.ledger.sums == sums
    assert {name: replace(lease, seen_at=None) for name, lease in hub.leases.items()} == {
        name: replace(lease, seen_at=None) for name, lease in state.items()
    }


@pytest.mark.parametrize(("leases", "processes", "known", "wanted"), TABLE)
def test_what_will_not_end_is_told_again_and_the_ledger_stays_as_it_is(
    leases: list[Lease], processes: list[Running], known: Any, wanted: Any
) -> None:
    hub = Hub(leases, WorldThatEndsNothing(processes), hub_that(known), released=["old"])
    hub.reconcile()
    state = hub.ledger.sums.copy()
    for _ in range(3):
        assert {one[0] for one in told(hub.reconcile())} <= {"seen", "stop"}
        assert hub.ledger.sums == state


@pytest.mark.parametrize(("leases", "processes", "known", "wanted"), TABLE)
def test_afterwards_ledger_world_and_hub_agree(
    leases: list[Lease], processes: list[Running], known: Any, wanted: Any
) -> None:
    hub = Hub(leases, ObedientWorld(processes), hub_that(known), released=["old"])
    hub.reconcile()
    runs = {one.lease for one in hub.world.running()}
    started = {lease.id for lease in hub.leases.values() if lease.live and lease.started_at is not None}
    if known is not None and known.get(MINE) != "stop":
        assert started == runs
    assert (
        refold(POLICY, [lease for lease in hub.leases.values() if lease.live], _charges(hub), hub.ledger.sums)
        == hub.ledger.sums
    )


def _charges(hub: Hub) -> list[Any]:
    return [(hub.leases[charge.lease], charge.day, charge.units) for charge in hub.ledger.charges]


def test_what_is_made_and_has_no_node_yet_is_waited_for() -> None:
    hub = Hub([a_lease(BOOKED)], ObedientWorld([process(started_at=None)]), hub_that(SPAWNING))
    assert hub.reconcile() == []
    assert hub.leases["l1"].state is BOOKED


def test_a_world_that_cannot_be_seen_is_not_an_empty_one() -> None:
    hub = Hub([a_lease()], WorldUnseen(), AnsweringHub({MINE: None}))
    with pytest.raises(HubError, match="cannot be seen"):
        hub.reconcile()
    assert hub.leases["l1"].live


def test_a_lost_start_is_not_charged_and_frees_everything() -> None:
    hub = Hub([a_lease(BOOKED, booked_at=NOW - START_AGAIN_WITHIN)], ObedientWorld(), AnsweringHub())
    hub.reconcile()
    assert hub.leases["l1"].reason == "start-lost"
    assert hub.ledger.sums == Sums()


def test_one_that_died_while_nobody_watched_is_charged_until_it_was_last_seen() -> None:
    hub = Hub([a_lease(seen_at=NOW)], ObedientWorld(), SilentHub())
    hub.reconcile(NOW + 3600)
    assert (hub.leases["l1"].released_at, hub.leases["l1"].reason) == (NOW, "died")
    assert sum(charge.seconds for charge in hub.ledger.charges) == NOW - (BOOKED_AT + 5)


def test_what_is_adopted_counts_even_above_quota() -> None:
    taken = replace(a_lease(), id="l2", server="t", handle="q")
    world = ObedientWorld([process("q", "l2", server="t"), process("p", "new")])
    hub = Hub([taken], world, AnsweringHub({MINE: None, ("ha", "t"): None}))
    hub.reconcile()
    adopted = hub.leases["new"]
    assert (adopted.guaranteed, adopted.lender, adopted.charged_until, adopted.started_at) == (
        False,
        "univ",
        NOW,
        BOOKED_AT + 5,
    )
    assert hub.ledger.tree.used(hub.ledger.sums, "univ", "gpu.h200") == 2000
    hub.world.stop(world.processes[0])
    hub.reconcile(NOW + 2)
    assert hub.ledger.tree.used(hub.ledger.sums, "univ", "gpu.h200") == 1000


processes = st.builds(
    process,
    st.sampled_from(["p", "q", "k"]),
    st.sampled_from(["l1", "l2", "old", "new"]),
    main=st.booleans(),
    started_at=st.sampled_from([0, BOOKED_AT, NOW + 9]),
    server=st.sampled_from(["s", "t"]),
)


@given(
    states=st.tuples(*[st.sampled_from([None, BOOKED, RUNNING, ENDING])] * 2),
    found=st.lists(processes, max_size=5, unique_by=lambda one: (one.lease, one.handle)),
    known=st.none()
    | st.dictionaries(st.sampled_from([MINE, ("ha", "t")]), st.sampled_from([None, "spawn", "stop"])),
)
def test_whatever_is_there_a_second_time_changes_nothing(
    states: Any, found: list[Running], known: Any
) -> None:
    leases = [
        replace(a_lease(state), id=f"l{i + 1}", server="st"[i])
        for i, state in enumerate(states)
        if state is not None
    ]
    one_main = {one.lease: one.handle for one in found if one.main}
    found = [replace(one, main=one_main.get(one.lease) == one.handle) for one in found]
    hub = Hub(leases, ObedientWorld(found), hub_that(known), released=["old"])
    hub.reconcile()
    sums, world = hub.ledger.sums.copy(), hub.world.running()
    assert {one[0] for one in told(hub.reconcile())} <= {"seen"}
    assert (hub.ledger.sums, hub.world.running()) == (sums, world)
