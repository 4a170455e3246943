"""Clusters and the clock: they grow by themselves, lose what was borrowed by notice, and end with their schedulers."""

from __future__ import annotations

import pytest

from hub_ext.core.decision import Code, Wait
from hub_ext.desk.executor import WORKERS_AT_ONCE
from hub_ext.desk.stops import GATEWAY_SILENT
from hub_ext.quota.ledger import TAKEN_BACK, EntryKind
from hub_ext.quota.model import SCHEDULER, WORKER, Ask, Lease
from hub_ext.quota.ports import Running
from tests.services.clusters.gateway import (
    BOOKED,
    ENDING,
    OWNER,
    RELEASED,
    RESEARCHER,
    RUNNING,
    cluster,
    gone,
    grant,
    start,
    start_cluster,
    states,
    ticket,
    told,
)
from tests.services.desk.centre import HOUR, MINUTE, POLICY, START, Centre
from tests.support.fakes import SilentHub, UndyingWorld

LARGE = """
version: 1
timezone: Asia/Seoul
gpu_classes: {h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}}
pools: {univ: {quota: {gpu.h200: {nominal: 100}}}}
"""
BUDGET = "budgets: [{hours: 100, period: day}]"
ONE_WORKER_EACH = POLICY.replace(BUDGET, f"{BUDGET}\n    person: {{dask-workers: 1}}")
HOURS_FOR_ONE = POLICY.replace(BUDGET, "budgets: [{hours: 0.4, period: day}]")


def serve(centre: Centre) -> None:
    """What happens between two ticks."""
    centre.clockwork.serve_if_anything_is_new()


def three_workers(centre: Centre, **more: int) -> list[Lease]:
    """They run; the last one is borrowed from the lab."""
    start_cluster(centre, **more)
    leases = sorted(grant(centre, 3).leases, key=lambda lease: not lease.guaranteed)
    return [start(centre, lease) for lease in leases]


def owner_asks(centre: Centre, name: str = "t1") -> None:
    """The lab wants its GPU back."""
    centre.admission.put_person(OWNER)
    asked = Ask(name, "owner", "lab", {"gpu.h200": 1000}, server="x", minutes=60)
    answer = centre.admission.admit_now(OWNER, asked)
    assert isinstance(answer.decision, Wait)
    centre.clockwork.tick()


# -- growing ----------------------------------------------------------------------------------------------------------------


def test_when_room_appears_a_cluster_gets_it_without_asking_again(centre_on_each: Centre) -> None:
    centre = centre_on_each
    start_cluster(centre)
    centre.start("l1")
    centre.start("l2")
    grant(centre, 3)
    waiting = ticket(centre)
    assert states(centre) == [BOOKED]
    gone(centre, centre.lease("l1"))
    serve(centre)
    assert [lease.id for lease in cluster(centre).workers if lease.id.startswith(waiting.id)] == [
        f"{waiting.id}.1"
    ]
    assert (ticket(centre).id, ticket(centre).wanted) == (waiting.id, 1)
    gone(centre, centre.lease("l2"))
    serve(centre)
    assert {lease.id for lease in cluster(centre).workers} >= {f"{waiting.id}.1", f"{waiting.id}.2"}
    assert {(lease.kind, lease.server) for lease in cluster(centre).workers} == {(WORKER, "c1")}
    assert cluster(centre).ticket is None
    assert told(centre, waiting.id)[-1].why == "turn"
    assert centre.hub.started == [], "the hub has nothing to do with it"


def test_the_clock_gives_no_more_than_is_still_wished_for(centre: Centre) -> None:
    start_cluster(centre)
    for name in ("l1", "l2", "l3"):
        centre.start(name)
    grant(centre, 3)
    centre.clockwork.tick()
    grant(centre, 1)
    for name in ("l1", "l2", "l3"):
        gone(centre, centre.lease(name))
    serve(centre)
    assert states(centre) == [BOOKED]
    assert cluster(centre).ticket is None


def test_room_for_many_is_booked_in_portions(centre: Centre) -> None:
    """So that nobody who starts a server waits long for the database."""
    centre.load(LARGE)
    start_cluster(centre)
    centre.start("large", gpus=100)
    grant(centre, 80)
    centre.clockwork.tick()
    assert states(centre) == []
    gone(centre, centre.lease("large"))
    counts = []
    for _ in range(3):
        serve(centre)
        counts.append(len(states(centre)))
    assert counts == [WORKERS_AT_ONCE, 2 * WORKERS_AT_ONCE, 80]
    assert len({lease.id for lease in cluster(centre).workers}) == 80


def test_workers_that_start_keep_no_server_from_starting(centre: Centre) -> None:
    """`starts` is the hub's limit, and the hub starts no workers."""
    centre.load(LARGE + "queue: {starts: 1}\n")
    start_cluster(centre)
    grant(centre, 50)
    assert centre.book("l1").live
    with centre.store.reading() as txn:
        starting = [value for _, value in txn.ledger(None).sums.of_kind("starting")]
    assert starting == [1]


def test_a_cluster_never_holds_room_against_others(centre: Centre) -> None:
    """However long it waits: a later server of the same size goes first."""
    start_cluster(centre, minutes=600)
    for name in ("l1", "l2", "l3"):
        centre.start(name, minutes=600)
    grant(centre, 1)
    centre.clock.at += HOUR
    for name in ("l1", "l2", "l3"):
        centre.world.start(name, centre.clock.at)
    centre.clockwork.tick()
    assert ticket(centre).outlook.code == Code.POOL_FULL
    assert ticket(centre).outlook.eta is None or ticket(centre).outlook.eta.kind == "expected"
    gone(centre, centre.lease("l1"))
    centre.admission.put_person(RESEARCHER)
    later = Ask("later", "researcher", "univ", {"gpu.h200": 1000}, server="x", minutes=600)
    assert centre.admission.admit_now(RESEARCHER, later).lease is not None


def test_what_was_booked_and_never_taken_is_lost_after_a_while(centre: Centre) -> None:
    """The gateway may be away; what it wished for then is asked for anew when it is back."""
    start_cluster(centre)
    grant(centre, 2)
    centre.tick(4 * MINUTE)
    assert states(centre) == [BOOKED, BOOKED]
    centre.tick(2 * MINUTE)
    assert states(centre) == []
    assert {lease.reason for lease in centre.leases() if lease.kind == WORKER} == {"lost"}
    assert len(grant(centre, 2).leases) == 2


# -- notices --------------------------------------------------------------------------------------------------------------------


def test_what_was_borrowed_goes_back_by_notice_and_the_wish_waits_behind(centre_on_each: Centre) -> None:
    """Held to its end; the room is the asker's; the cluster waits for more without any notice to those who have it."""
    centre = centre_on_each
    *_, borrowed = three_workers(centre)
    centre.clock.at += HOUR
    for lease in cluster(centre).workers:
        centre.admission.change(lease.id, lambda ledger, one, now: ledger.accrue(one, now))
    owner_asks(centre)
    noticed = centre.lease(borrowed.id)
    assert (noticed.noticed_for, noticed.ends_at) == ("t1", centre.clock.at + 10 * MINUTE)
    assert waits_for(centre, 3) == 0, "it works until its end, and is still one of three"
    # It retires early: what it frees is the asker's, whose turn has come.
    gone(centre, noticed, "retired")
    granted = grant(centre, 3)
    assert granted.ticket is not None
    assert (granted.ticket.wanted, granted.ticket.displaced_by) == (1, "t1")
    assert isinstance(granted.objection, Wait)
    centre.clockwork.tick()
    assert centre.lease("t1").state is BOOKED
    start(centre, centre.lease("t1"))
    centre.hub.known["owner", "x"] = None
    before = {lease.id: lease.ends_at for lease in centre.leases()}
    for _ in range(3):
        centre.tick(MINUTE)
    assert ticket(centre).id == granted.ticket.id
    assert {lease.id: lease.ends_at for lease in centre.leases()} == before, "no ping-pong"


def waits_for(centre: Centre, wish: int) -> int:
    granted = grant(centre, wish)
    return granted.ticket.wanted if granted.ticket else 0


def test_a_worker_that_stays_to_its_end_is_ended_as_taken_back(centre: Centre) -> None:
    *_, borrowed = three_workers(centre)
    owner_asks(centre)
    centre.tick(30 * MINUTE)
    assert (centre.lease(borrowed.id).state, centre.lease(borrowed.id).reason) == (ENDING, TAKEN_BACK)
    gone(centre, borrowed)
    with centre.store.reading() as txn:
        assert [one for one in txn.tickets() if one.put_back] == [], "the wish asks again, nobody is put back"
    centre.clockwork.tick()
    assert centre.lease("t1").live
    assert waits_for(centre, 3) == 1
    assert ticket(centre).displaced_by == "t1"


def test_room_that_is_taken_back_for_a_worker_is_not_passed_on(centre: Centre) -> None:
    """A server that would only borrow does not take what others lose for a cluster with a guarantee."""
    centre.start("l1", person="owner", pool="lab")
    centre.start("l2", person="owner", pool="lab")
    centre.start("l3", person="owner", pool="lab")
    start_cluster(centre)
    grant(centre, 1)
    centre.clockwork.tick()
    (taken,) = [lease for lease in centre.leases() if lease.noticed_for is not None]
    assert ticket(centre).outlook.reclaims == (taken.id,)
    gone(centre, taken)
    centre.admission.put_person(OWNER)
    other = centre.admission.admit_now(OWNER, Ask("t9", "owner", "lab", {"gpu.h200": 1000}, server="y"))
    assert isinstance(other.decision, Wait)
    centre.clockwork.tick()
    assert states(centre) == [BOOKED]


def full_of_others(centre: Centre) -> None:
    """All three GPUs are the lab's: two of them borrowed from the university."""
    centre.admission.put_person(OWNER)
    for name in ("l1", "l2", "l3"):
        centre.start(name, person="owner", pool="lab")


def noticed(centre: Centre) -> list[Lease]:
    return [lease for lease in centre.leases() if lease.live and lease.noticed_for is not None]


def test_all_that_is_taken_back_for_a_cluster_has_its_notice_at_once(centre_on_each: Centre) -> None:
    centre = centre_on_each
    full_of_others(centre)
    start_cluster(centre)
    grant(centre, 3)
    centre.clockwork.tick()
    first, second = noticed(centre)
    assert first.ends_at == second.ends_at
    assert set(ticket(centre).outlook.reclaims) == {first.id, second.id}, "the third would only be borrowed"
    # What the one frees is taken, what the other will free stays the cluster's.
    gone(centre, first)
    centre.clockwork.tick()
    assert states(centre) == [BOOKED]
    assert [one.id for one in noticed(centre)] == [second.id]
    gone(centre, second)
    other = centre.admission.admit_now(OWNER, Ask("t9", "owner", "lab", {"gpu.h200": 1000}, server="y"))
    assert isinstance(other.decision, Wait)
    centre.clockwork.tick()
    assert states(centre) == [BOOKED, BOOKED]
    assert [lease.guaranteed for lease in cluster(centre).workers] == [True, True]
    assert ticket(centre).wanted == 1
    centre.tick(MINUTE)
    assert noticed(centre) == []


def test_who_wishes_for_fewer_gives_up_what_was_taken_back_for_the_others(centre: Centre) -> None:
    full_of_others(centre)
    start_cluster(centre)
    grant(centre, 2)
    centre.clockwork.tick()
    assert len(noticed(centre)) == 2
    grant(centre, 1)
    centre.clockwork.tick()
    assert len(noticed(centre)) == 1
    grant(centre, 0)
    centre.clockwork.tick()
    assert noticed(centre) == []


def test_no_more_is_taken_back_than_the_person_may_have(centre: Centre) -> None:
    centre.load(ONE_WORKER_EACH)
    full_of_others(centre)
    start_cluster(centre)
    grant(centre, 2)
    centre.clockwork.tick()
    (taken,) = noticed(centre)
    gone(centre, taken)
    for _ in range(3):
        centre.tick(MINUTE)
    assert states(centre) == [BOOKED]
    assert noticed(centre) == []


def test_no_more_is_taken_back_than_there_are_hours_for(centre: Centre) -> None:
    centre.load(HOURS_FOR_ONE)
    full_of_others(centre)
    start_cluster(centre)
    grant(centre, 2)
    centre.clockwork.tick()
    assert len(noticed(centre)) == 1


# -- ends -----------------------------------------------------------------------------------------------------------------------


def test_when_the_scheduler_is_gone_its_workers_end_and_nothing_waits(centre_on_each: Centre) -> None:
    centre = centre_on_each
    first, second, third = three_workers(centre)
    grant(centre, 6)
    waiting = ticket(centre)
    centre.world.kill("c1")
    centre.tick(2)
    centre.tick(2)
    assert centre.lease("c1").state is RELEASED
    assert [centre.lease(one.id).state for one in (first, second, third)] == [ENDING] * 3
    assert centre.lease(first.id).reason == "cluster-over"
    assert cluster(centre).ticket is None
    assert told(centre, waiting.id)[-1].why == "cluster-over"
    assert centre.hub.asked == [], "the hub is not asked about clusters"
    assert centre.world.stopped == []
    # The gateway does not end them.
    centre.tick(GATEWAY_SILENT)
    assert sorted(centre.world.stopped) == sorted(one.id for one in (first, second, third))
    centre.tick(2)
    assert centre.admission.clusters_now() == {}


def test_at_its_end_a_cluster_is_the_gateways_to_end_for_a_minute(centre: Centre) -> None:
    leases = three_workers(centre, minutes=60)
    centre.tick(HOUR)
    assert {centre.lease(lease.id).state for lease in leases} == {ENDING}
    assert centre.lease("c1").reason == "ended"
    centre.tick(GATEWAY_SILENT - 1)
    assert (centre.world.stopped, centre.hub.asked) == ([], [])
    centre.tick(1)
    assert sorted(centre.world.stopped) == sorted([*(lease.id for lease in leases), "c1"])
    centre.tick(2)
    assert centre.admission.clusters_now() == {}


def test_a_cluster_that_the_desk_ends_is_the_gateways_to_end_for_a_minute(centre: Centre) -> None:
    first, *_ = three_workers(centre)
    centre.admission.end_cluster_now("c1", "student", "stopped")
    centre.tick(2)
    centre.tick(GATEWAY_SILENT - 1)
    assert centre.world.stopped == []
    centre.tick(1)
    assert len(centre.world.stopped) == 4
    assert centre.lease(first.id).reason == "stopped"


def test_without_the_hub_clusters_end_all_the_same(centre: Centre) -> None:
    three_workers(centre, minutes=60)
    hub = SilentHub(centre.world)
    centre.clockwork = centre.another_clock(servers=hub)
    centre.tick(HOUR + MINUTE)
    centre.tick(GATEWAY_SILENT)
    centre.tick(2)
    assert centre.admission.clusters_now() == {}
    assert hub.asked == []


def test_what_does_not_end_is_told_to_again_and_still_counts(centre: Centre) -> None:
    world = UndyingWorld()
    centre.world = world
    centre.clockwork = centre.another_clock(world=world)
    three_workers(centre, minutes=60)
    centre.tick(HOUR + MINUTE)
    first = list(world.stopped)
    assert len(first) == 4
    centre.tick(30)
    assert world.stopped == first
    centre.tick(MINUTE)
    assert len(world.stopped) == 8
    assert states(centre) == [ENDING] * 3


def test_a_booking_that_waits_for_a_machine_ends_at_its_end(centre: Centre) -> None:
    start_cluster(centre, minutes=60)
    (lease,) = grant(centre, 1, minutes=20).leases
    centre.world.start(lease.id, None)
    centre.tick(20 * MINUTE)
    assert centre.lease(lease.id).state is ENDING
    centre.tick(GATEWAY_SILENT)
    centre.tick(2)
    assert centre.lease(lease.id).state is RELEASED
    assert centre.units_charged(lease.id) == 0


def test_workers_end_with_a_scheduler_whose_end_moved(centre: Centre) -> None:
    first, *_ = three_workers(centre)
    centre.admission.change("c1", lambda ledger, one, now: ledger.notice(one, START + HOUR, now, why="x"))
    centre.tick(2)
    assert {lease.ends_at for lease in cluster(centre).workers} == {START + HOUR}
    assert [entry.why for entry in centre.entries(EntryKind.NOTICED, lease=first.id)] == ["cluster-over"]
    before = centre.everything()
    centre.clockwork.keep_clusters()
    assert centre.everything() == before


def test_a_borrowed_scheduler_that_is_taken_back_takes_its_workers_with_it(centre: Centre) -> None:
    centre.load(
        LARGE.replace(
            "pools: {univ: {quota: {gpu.h200: {nominal: 100}}}}",
            "pools: {city: {}, univ: {parent: city, quota: {gpu.h200: {nominal: 4}, cpu: {nominal: 0}}}, "
            "lab: {parent: city, quota: {cpu: {nominal: 1}}}}",
        )
    )
    assert not start_cluster(centre).guaranteed
    grant(centre, 2)
    centre.admission.put_person(OWNER)
    asked = Ask("t1", "owner", "lab", {"cpu": 1000}, server="x", minutes=60)
    assert isinstance(centre.admission.admit_now(OWNER, asked).decision, Wait)
    serve(centre)
    end = centre.lease("c1").ends_at
    assert end == START + 30 * MINUTE
    assert {lease.ends_at for lease in cluster(centre).workers} == {end}


# -- what the ledger does not know ------------------------------------------------------------------------------------------------


def labels(kind: str, server: str = "c9", **more: object) -> dict[str, object]:
    facts = {"person": "student", "pool": "univ", "server": server, "kind": kind, "amounts": {"cpu": 1000}}
    return facts | more


def runs(centre: Centre, lease: str, kind: str, **more: object) -> None:
    process = Running(lease, f"process of {lease}", centre.clock.at, node="n1", labels=labels(kind, **more))
    centre.world.processes.append(process)


def test_a_cluster_that_runs_without_leases_is_adopted_with_its_workers(centre: Centre) -> None:
    runs(centre, "w1", WORKER, amounts={"gpu.h200": 1000}, ends_at=START + 10 * HOUR)
    runs(centre, "c9", SCHEDULER, ends_at=START + 2 * HOUR)
    centre.tick(2)
    found = cluster(centre, "c9")
    assert found.scheduler is not None
    assert (found.scheduler.kind, found.scheduler.state) == (SCHEDULER, RUNNING)
    assert [(lease.id, lease.kind, lease.guaranteed) for lease in found.workers] == [("w1", WORKER, True)]
    assert found.workers[0].ends_at == found.scheduler.ends_at == START + 2 * HOUR
    assert centre.world.stopped == []


def test_a_worker_without_lease_and_scheduler_is_ended(centre: Centre) -> None:
    runs(centre, "w1", WORKER)
    centre.tick(2)
    assert (centre.leases(), centre.world.stopped) == ([], ["w1"])


def test_clusters_are_adopted_also_while_the_hub_is_away(centre: Centre) -> None:
    centre.clockwork = centre.another_clock(servers=SilentHub(centre.world))
    runs(centre, "c9", SCHEDULER)
    centre.tick(12)
    assert cluster(centre, "c9").scheduler is not None


@pytest.mark.parametrize(
    ("kind", "more"),
    [(SCHEDULER, {"server": "c9"}), (SCHEDULER, {"amounts": {"gpu.none": 5}}), ("browser", {})],
    ids=["a scheduler of another name", "what is no resource", "what is no kind"],
)
def test_labels_that_make_no_sense_are_not_believed(
    centre: Centre, kind: str, more: dict[str, object]
) -> None:
    runs(centre, "c8" if "server" in more else "c9", kind, **more)
    centre.hub.known["student", "c9"] = None
    centre.tick(2)
    assert centre.leases() == []
