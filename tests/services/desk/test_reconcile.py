"""The clock makes leases agree with what runs: the table of `quota/reconcile.py`, row by row, through a real store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from structlog.testing import capture_logs

from hub_ext.desk.leading import LEADER_SECONDS
from hub_ext.desk.reconciling import MOST_TRIES, START_AGAIN_AFTER
from hub_ext.quota.ledger import EntryKind
from hub_ext.quota.model import LeaseState
from tests.services.desk.centre import GPU_SECOND, HOUR, MINUTE, START, Centre
from tests.support.fakes import LazyHub, ObedientWorld, RefusingHub, SilentHub, UndyingWorld, UnseenWorld

BOOKED, RUNNING, ENDING, RELEASED = (
    LeaseState.BOOKED,
    LeaseState.RUNNING,
    LeaseState.ENDING,
    LeaseState.RELEASED,
)


@dataclass
class Row:
    """A lease (None: the ledger has never heard of it), what runs, what the hub knows; what is wanted in the end.

    `want` is the state after each tick, the last one of which stays.
    """

    state: LeaseState | None
    runs: bool
    hub: str
    want: list[LeaseState | None]
    want_runs: bool
    want_reason: str | None = None


ROWS = {
    "booked, nothing runs yet, and the hub knows of it: it is waited for": Row(
        BOOKED, False, "knows", [BOOKED, BOOKED], False
    ),
    "booked, nothing runs, and the hub is silent: it is waited for": Row(
        BOOKED, False, "silent", [BOOKED, BOOKED], False
    ),
    "booked, nothing runs, and the hub knows nothing of it: it is to be started again": Row(
        BOOKED, False, "knows nothing", [BOOKED, BOOKED], False
    ),
    "booked and it runs: it runs since the process began": Row(
        BOOKED, True, "knows", [RUNNING, RUNNING], True
    ),
    "booked and it runs, and the hub is silent: likewise": Row(
        BOOKED, True, "silent", [RUNNING, RUNNING], True
    ),
    "booked and it runs, and the hub knows nothing of it: nobody can reach it": Row(
        BOOKED, True, "knows nothing", [ENDING, RELEASED], False, "orphan"
    ),
    "running": Row(RUNNING, True, "knows", [RUNNING, RUNNING], True),
    "running, and the hub is silent": Row(RUNNING, True, "silent", [RUNNING, RUNNING], True),
    "running, and the hub is stopping it": Row(RUNNING, True, "is stopping it", [RUNNING, RUNNING], True),
    "running, and the hub knows nothing of it: nobody can reach it": Row(
        RUNNING, True, "knows nothing", [ENDING, RELEASED], False, "orphan"
    ),
    "running by the ledger, but gone: it died, and the hub has one tick to say why": Row(
        RUNNING, False, "knows", [RUNNING, RELEASED], False, "died"
    ),
    "gone while the hub is silent: it died": Row(
        RUNNING, False, "silent", [RUNNING, RELEASED], False, "died"
    ),
    "gone and forgotten: it died": Row(RUNNING, False, "knows nothing", [RUNNING, RELEASED], False, "died"),
    "gone while the hub is stopping it: the hub says why": Row(
        RUNNING, False, "is stopping it", [RUNNING, RUNNING, RUNNING], False
    ),
    "ending and it runs still": Row(ENDING, True, "knows", [ENDING, ENDING], True, "stopped"),
    "ending and it runs, and the hub knows nothing of it": Row(
        ENDING, True, "knows nothing", [ENDING, RELEASED], False, "stopped"
    ),
    "ending and gone": Row(ENDING, False, "knows", [RELEASED], False, "stopped"),
    "ending and gone, and the hub is silent": Row(ENDING, False, "silent", [RELEASED], False, "stopped"),
    "ending and gone while the hub is stopping it: the hub releases it": Row(
        ENDING, False, "is stopping it", [ENDING, ENDING], False, "stopped"
    ),
    "released, but it runs: it is ended": Row(RELEASED, True, "knows", [RELEASED], False, "stopped"),
    "released, but it runs, and the hub is silent: it is ended": Row(
        RELEASED, True, "silent", [RELEASED], False, "stopped"
    ),
    "unknown to the ledger, known to the hub: adopted": Row(None, True, "knows", [RUNNING, RUNNING], True),
    "unknown to both: ended": Row(None, True, "knows nothing", [None, None], False),
    "unknown to the ledger while the hub is silent: left alone": Row(
        None, True, "silent", [None, None], True
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_each_row_of_the_table(centre: Centre, row: Row) -> None:
    as_found(centre, row)
    for want in row.want:
        centre.tick(1)
        found = [lease.state for lease in centre.leases()]
        assert found == ([] if want is None else [want])
    assert bool(centre.world.processes) == row.want_runs
    assert [lease.reason for lease in centre.leases()] == ([] if row.want[-1] is None else [row.want_reason])
    # Once it is as wanted, nothing changes any more.
    before = centre.everything()
    centre.tick()
    centre.tick()
    assert centre.everything() == before


def as_found(centre: Centre, row: Row) -> None:
    lazy, silent = LazyHub(centre.world), SilentHub(centre.world)
    if row.state is None:
        centre.hub.known["student", "l1"] = None
        centre.hub.leases["student", "l1"] = "l1"
        centre.world.start("l1", START, labels=labels())
    elif row.state is BOOKED:
        centre.book()
        centre.world.start("l1", START)
    else:
        centre.start()
    if row.state in (ENDING, RELEASED):
        centre.order_end()
    if row.state is RELEASED:
        centre.admission.release_now("l1")
    if not row.runs:
        centre.world.kill("l1")
    match row.hub:
        case "knows nothing":
            centre.forget("l1")
        case "is stopping it":
            centre.hub.known["student", "l1"] = "stop"
    lazy.known = centre.hub.known
    centre.clockwork.servers = silent if row.hub == "silent" else lazy


def labels(**changes: Any) -> dict[str, Any]:
    """What a server's process says of its lease."""
    plain = {
        "person": "student",
        "server": "l1",
        "pool": "univ",
        "profile": "h200",
        "amounts": {"gpu.h200": 1000},
        "ends_at": START + HOUR,
        "devices": ["GPU-1"],
    }
    return {name: value for name, value in (plain | changes).items() if value is not ...}


# -- starts that a hub was cut off in -----------------------------------------------------------------------------------


def cut_off(centre: Centre) -> None:
    centre.book()
    centre.forget("l1")


def test_a_start_that_a_hub_was_cut_off_in_is_started_again_by_the_hub(centre: Centre) -> None:
    cut_off(centre)
    centre.tick()
    assert centre.hub.started == [], "a hub that lives and gave up writes that down first"
    centre.tick(START_AGAIN_AFTER)
    assert centre.hub.started == [("student", "l1")]
    # What the hub then does: the new start takes what was booked.
    assert centre.book("l2", server="l1").id == "l1"
    centre.tick(START_AGAIN_AFTER)
    assert [(lease.id, lease.state, lease.reason) for lease in centre.leases()] == [("l1", BOOKED, None)]
    assert centre.hub.started == [("student", "l1")]


def test_a_start_that_the_hub_gave_up_meanwhile_is_not_started_again(centre: Centre) -> None:
    cut_off(centre)
    centre.tick()
    centre.admission.release_now("l1", "student", "start-failed")
    centre.tick(START_AGAIN_AFTER)
    assert centre.hub.started == []


def test_a_start_that_the_hub_does_not_take_again_is_given_up_and_was_free(centre: Centre) -> None:
    cut_off(centre)
    centre.clockwork.servers = hub = RefusingHub(centre.world)
    centre.tick()
    for _ in range(MOST_TRIES):
        assert centre.lease().state is BOOKED
        centre.tick(START_AGAIN_AFTER)
    assert (centre.lease().state, centre.lease().reason) == (RELEASED, "start-lost")
    assert hub.started == [("student", "l1")] * MOST_TRIES
    assert centre.seconds_charged() == 0


def test_a_cluster_that_knows_why_a_server_ended_is_believed(centre: Centre) -> None:
    centre.start()
    centre.world.kill("l1")
    centre.world.reasons["l1"] = "out-of-memory"
    centre.tick(10)
    centre.tick(1)
    assert (centre.lease().state, centre.lease().reason) == (RELEASED, "out-of-memory")


def test_a_pod_without_a_node_is_waited_for_and_costs_nothing(centre: Centre) -> None:
    centre.book()
    pod = centre.world.start("l1", None, node=None)
    centre.tick(60)
    assert centre.lease().state is BOOKED
    centre.world.kill("l1")
    centre.world.start("l1", START + 61, handle=pod.handle)
    centre.tick(60)
    assert (centre.lease().state, centre.lease().started_at) == (RUNNING, START + 61)


# -- starts -----------------------------------------------------------------------------------------------------------


def test_a_start_that_nothing_is_heard_of_for_five_minutes_is_lost_and_was_free(centre: Centre) -> None:
    centre.book()
    centre.clockwork.servers = SilentHub(centre.world)
    centre.tick(5 * MINUTE - 1)
    assert centre.lease().state is BOOKED
    centre.tick(1)
    assert (centre.lease().state, centre.lease().reason) == (RELEASED, "lost")
    assert centre.seconds_charged() == 0


def test_a_start_that_the_hub_could_not_write_down_runs_since_its_process_began(centre: Centre) -> None:
    centre.book()
    centre.world.start("l1", START + 3, handle="17@3", node="n2")
    centre.tick(70)
    lease = centre.lease()
    assert (lease.started_at, lease.handle, lease.seen_at) == (START + 3, "17@3", START + 3)
    centre.tick(70)
    assert centre.seconds_charged() == 137


@pytest.mark.parametrize(
    ("began", "want"),
    [
        pytest.param(
            START - 10, START, id="before its booking, by a clock that was set: it counts from the booking"
        ),
        pytest.param(START + 900, START + 60, id="in the future: it counts from now"),
    ],
)
def test_a_process_that_claims_to_have_begun(centre: Centre, began: int, want: int) -> None:
    centre.book()
    centre.world.start("l1", began)
    centre.tick(60)
    assert centre.lease().started_at == want


def test_what_is_started_between_the_look_at_the_ledger_and_the_look_at_the_world_is_left_alone(
    centre: Centre,
) -> None:
    centre.world.when_looked_at = lambda: (
        setattr(centre.world, "when_looked_at", lambda: None),
        centre.start(),
    )
    centre.tick()
    assert (centre.lease().state, centre.world.stopped) == (RUNNING, [])
    centre.tick()
    assert (centre.lease().state, centre.world.stopped) == (RUNNING, [])


def test_what_the_hub_ended_between_the_look_and_the_deed_keeps_the_hubs_reason(centre: Centre) -> None:
    centre.start()
    centre.world.kill("l1")
    centre.tick(1)

    def hub_writes() -> None:
        centre.world.when_looked_at = lambda: None
        centre.order_end(why="stopped")
        centre.admission.release_now("l1", "student", "stopped")

    centre.world.when_looked_at = hub_writes
    centre.tick(1)
    assert (centre.lease().state, centre.lease().reason) == (RELEASED, "stopped")
    assert len(centre.entries(EntryKind.RELEASED)) == 1


# -- ends --------------------------------------------------------------------------------------------------------------


def test_what_died_is_charged_until_it_was_first_seen_gone(centre: Centre) -> None:
    centre.start()
    centre.tick(30)
    centre.world.kill("l1")
    centre.tick(2)
    centre.tick(50)
    assert (centre.lease().reason, centre.lease().released_at) == ("died", START + 32)
    assert centre.units_charged() == 32 * GPU_SECOND


def test_what_died_while_nobody_watched_is_charged_until_it_was_last_seen(centre: Centre) -> None:
    centre.start()
    centre.tick(100)
    centre.world.kill("l1")
    centre.tick(HOUR)
    centre.tick(2)
    assert (centre.lease().reason, centre.lease().released_at) == ("died", START + 100)
    assert centre.units_charged() == 100 * GPU_SECOND


def test_a_world_that_cannot_be_seen_is_never_taken_for_an_empty_one(centre: Centre) -> None:
    centre.start()
    centre.book("l2")
    seen, centre.clockwork.world = centre.clockwork.world, UnseenWorld()
    for _ in range(4):
        centre.tick(HOUR)
    assert [lease.state for lease in centre.leases()] == [RUNNING, BOOKED]
    centre.clockwork.world = seen
    centre.world.start("l2", centre.clock.at)
    centre.tick(2)
    assert [lease.state for lease in centre.leases()] == [RUNNING, RUNNING]
    assert centre.seconds_charged() == 4 * HOUR + 2, "it did run all the time"


def test_a_process_that_cannot_be_ended_keeps_its_lease(centre: Centre) -> None:
    """As long as it runs it holds its GPU."""
    undying = UndyingWorld()
    centre.clockwork.world = centre.world = centre.hub.world = undying
    centre.start()
    centre.forget("l1")
    for _ in range(3):
        centre.tick(2)
    assert (centre.lease().state, centre.lease().reason) == (ENDING, "orphan")
    undying.kill("l1")
    centre.tick(2)
    assert centre.lease().state is RELEASED


def test_a_server_keeps_the_kernels_it_started_and_what_it_leaves_behind_is_ended(centre: Centre) -> None:
    centre.start()
    centre.world.start("l1", START + 1, handle="a kernel", main=False)
    centre.tick(2)
    assert centre.world.stopped == []
    # The server is gone: now its oldest kernel is the oldest process of the lease, which makes it no server.
    centre.world.processes = []
    centre.world.start("l1", START + 1, handle="a kernel")
    centre.tick(2)
    centre.tick(2)
    assert (centre.world.processes, centre.lease().reason) == ([], "died")


# -- adoption -------------------------------------------------------------------------------------------------------------


def unknown(centre: Centre, lease: str = "l1", **changes: Any) -> None:
    """A server that the hub knows, and the ledger does not (it was restored from an old copy)."""
    facts = labels(server=lease, **changes)
    centre.world.start(lease, centre.clock.at - 100, labels=facts, handle=f"{lease}@1", node="n1")
    centre.hub.known[str(facts.get("person")), lease] = None
    centre.hub.leases[str(facts.get("person")), lease] = lease


def test_a_server_that_the_ledger_does_not_know_is_adopted_as_it_stands(centre_on_each: Centre) -> None:
    centre = centre_on_each
    centre.clock.at += 500
    unknown(centre)
    centre.tick()
    lease = centre.lease()
    assert (lease.state, lease.person, lease.server, lease.pool, lease.profile) == (
        RUNNING,
        "student",
        "l1",
        "univ",
        "h200",
    )
    assert (lease.path, dict(lease.amounts), lease.devices) == (
        ("univ", "seoul"),
        {"gpu.h200": 1000},
        ("GPU-1",),
    )
    assert (lease.handle, lease.node, lease.ends_at) == ("l1@1", "n1", START + HOUR)
    assert (lease.started_at, lease.charged_until) == (START + 400, START + 500)
    centre.tick(120)
    assert centre.seconds_charged() == 120, "it accrues from its adoption: what was before, nobody knows"


def test_what_is_adopted_is_labelled_by_what_is_free_also_above_quota(centre: Centre) -> None:
    for number in range(5):
        unknown(centre, f"l{number}")
    centre.tick()
    found = [(lease.guaranteed, lease.lender, lease.cost) for lease in centre.leases()]
    # Two are the university's own, the third is the lab's, and the rest is beyond all there is.
    assert found == [
        (True, None, GPU_SECOND),
        (True, None, GPU_SECOND),
        (False, "seoul", GPU_SECOND // 2),
        (False, "seoul", GPU_SECOND // 2),
        (False, "seoul", GPU_SECOND // 2),
    ]


def test_adopting_twice_is_adopting_once(centre: Centre) -> None:
    unknown(centre)
    other = centre.another_clock()
    assert centre.clockwork._still_leads()
    centre.clockwork._adopt(centre.world.processes[0])
    before = centre.everything()
    centre.clockwork._adopt(centre.world.processes[0])
    centre.clock.at += LEADER_SECONDS
    assert other._still_leads()
    other._adopt(centre.world.processes[0])
    assert centre.everything() | {"leaders": []} == before | {"leaders": []}


def test_an_adopted_server_keeps_its_kernels(centre: Centre) -> None:
    unknown(centre)
    centre.world.start("l1", centre.clock.at, labels=labels(), handle="a kernel", main=False)
    centre.tick()
    centre.tick()
    assert (centre.lease().state, centre.world.stopped, len(centre.world.processes)) == (RUNNING, [], 2)


def test_while_the_hub_is_silent_an_unknown_server_keeps_its_kernels_too(centre: Centre) -> None:
    unknown(centre)
    centre.world.start("l1", centre.clock.at, labels=labels(), handle="a kernel", main=False)
    centre.clockwork.servers = SilentHub(centre.world)
    centre.tick()
    assert (centre.world.stopped, len(centre.world.processes)) == ([], 2)


FAULTY: dict[str, dict[str, Any]] = {
    "without a pool": {"pool": ...},
    "of a pool that is gone": {"pool": "former"},
    "with a list for a pool": {"pool": ["univ"]},
    "without amounts": {"amounts": ...},
    "with a list of amounts": {"amounts": ["gpu.h200"]},
    "with an amount that is a text": {"amounts": {"gpu.h200": "1000"}},
    "with an amount that is a fraction": {"amounts": {"gpu.h200": 0.5}},
    "with an amount that is true": {"amounts": {"gpu.h200": True}},
    "with an amount below zero": {"amounts": {"gpu.h200": -1000}},
    "with an amount beyond all centres": {"amounts": {"gpu.h200": 10**20}},
    "of a GPU class that nobody has": {"amounts": {"gpu.h900": 1000}},
    "of a resource that nobody has": {"amounts": {"rockets": 1}},
    "of a profile that cannot be written down": {"profile": "\udcff"},
    "of a profile that is a number": {"profile": 7},
}


@pytest.mark.parametrize("changes", FAULTY.values(), ids=FAULTY.keys())
def test_labels_that_cannot_be_believed_are_told_once_and_harm_nothing(
    centre: Centre, changes: dict[str, Any]
) -> None:
    """Whoever runs a process writes its environment."""
    centre.start("honest")
    unknown(centre, "l1", **changes)
    with capture_logs() as logs:
        centre.tick(70)
        centre.tick(70)
    told = [entry["event"] for entry in logs]
    assert [line.partition(":")[0] for line in told] == ["lease l1 runs and cannot be adopted"]
    assert [lease.id for lease in centre.leases()] == ["honest"]
    assert centre.seconds_charged("honest") == 140, "everything else goes on"


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        pytest.param({"ends_at": ...}, START + 12 * HOUR, id="no end: the longest time of its pool"),
        pytest.param({"ends_at": 10**30}, START + 12 * HOUR, id="an end after all time: likewise"),
        pytest.param({"ends_at": True}, START + 12 * HOUR, id="an end that is no number: likewise"),
        pytest.param({"ends_at": -(10**30)}, START - 100, id="an end before all time: it is over"),
    ],
)
def test_an_adopted_server_ends_in_time(centre: Centre, changes: dict[str, Any], want: int) -> None:
    unknown(centre, **changes)
    centre.tick()
    assert centre.lease().ends_at == want
    assert centre.lease().state is (RUNNING if want > START else ENDING)


def test_labels_of_devices_that_are_no_list_of_names_name_none(centre: Centre) -> None:
    unknown(centre, devices="GPU-1")
    unknown(centre, "l2", devices=["GPU-2", 3, None, "\udcff"])
    centre.tick()
    assert [lease.devices for lease in centre.leases()] == [(), ("GPU-2",)]


def test_another_persons_lease_is_not_taken_by_a_label(centre: Centre) -> None:
    """A process that carries the id of a lease, but is not the one that was written down for it."""
    centre.start()
    centre.tick(1)
    centre.world.start("l1", START + 1, handle="an impostor", main=False)
    centre.tick(1)
    assert (centre.lease().handle, centre.lease().state) == ("process of l1", RUNNING)


def test_a_quiet_centre_asks_the_hub_nothing(centre: Centre) -> None:
    for _ in range(3):
        centre.tick(2)
    assert centre.hub.looks == 0
    assert isinstance(centre.world, ObedientWorld)


def test_a_lease_is_not_released_before_what_its_server_left_behind_is_gone(centre: Centre) -> None:
    """A kernel may hold the GPU longer than its server."""
    undying = UndyingWorld()
    centre.clockwork.world = centre.world = centre.hub.world = undying
    centre.start()
    centre.order_end()
    undying.processes = []
    undying.start("l1", START, handle="a kernel")
    centre.tick(10)
    centre.tick(10)
    assert (centre.lease().state, undying.stopped) == (ENDING, ["l1", "l1"])
    undying.kill("l1")
    centre.tick(10)
    assert (centre.lease().state, centre.lease().released_at) == (RELEASED, START + 10)


@pytest.mark.parametrize(
    ("answers_after", "want_looks"),
    [
        pytest.param(0.1, 4, id="a hub that answers at once is asked at every tick"),
        pytest.param(
            0.26, 2, id="a busy one has its rest: five seconds for an answer that took a quarter of one"
        ),
        pytest.param(9.0, 2, id="but is asked again after six, however busy it is"),
    ],
)
def test_a_busy_hub_is_asked_less_often_what_runs(
    centre: Centre, monkeypatch: pytest.MonkeyPatch, answers_after: float, want_looks: int
) -> None:
    now = 1000.0
    monkeypatch.setattr("hub_ext.desk.reconciling.monotonic", lambda: now)
    active = centre.hub.active

    def slowly() -> Any:
        nonlocal now
        now += answers_after
        return active()

    monkeypatch.setattr(centre.hub, "active", slowly)
    centre.book("l1")
    for _ in range(4):
        centre.tick()
        now += 2
    assert centre.hub.looks == want_looks
