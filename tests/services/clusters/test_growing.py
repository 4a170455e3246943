"""What a Dask cluster holds follows its wish as far as the quota goes: start, grant, look, extend, end."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from hub_ext.core.decision import Admit, Code, Refuse, Wait
from hub_ext.core.errors import BadInput, StoreUnavailable
from hub_ext.core.people import Person
from hub_ext.quota.growing import LARGEST_WISH, Granted
from hub_ext.quota.growth import AT_ONCE
from hub_ext.quota.model import SCHEDULER, WORKER, Ask, Device, Node
from hub_ext.quota.service import Admission
from tests.services.clusters.gateway import (
    BOOKED,
    ENDING,
    OWNER,
    RELEASED,
    RESEARCHER,
    RUNNING,
    ask_for_cluster,
    cluster,
    gone,
    grant,
    start,
    start_cluster,
    states,
    ticket,
    told,
    unit,
)
from tests.services.desk.centre import HOUR, MINUTE, START, STUDENT, Centre
from tests.support.fakes import StoreAwayOnce

CAPS = """
version: 1
timezone: Asia/Seoul
gpu_classes: {h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}}
pools:
  univ:
    quota: {gpu.h200: {nominal: 100}}
    person: {dask-workers: 3}
    session: {min: 15m, max: 12h}
"""
LARGE = CAPS.replace("    person: {dask-workers: 3}\n", "")
FEW_HOURS = LARGE + "    budgets: [{hours: 10, period: day}]\n"


def waits(granted: Granted) -> tuple[Code | None, int]:
    """Why there are not more, and for how many more it waits."""
    code = granted.objection.code if granted.objection is not None else None
    return code, granted.ticket.wanted if granted.ticket is not None else 0


# -- the scheduler --------------------------------------------------------------------------------------------------------


def test_a_cluster_begins_with_its_scheduler_under_its_own_name(centre_on_each: Centre) -> None:
    lease = start_cluster(centre_on_each, "c1", minutes=120)
    assert (lease.id, lease.server, lease.kind, lease.ends_at) == ("c1", "c1", SCHEDULER, START + 2 * HOUR)
    again = ask_for_cluster(centre_on_each, "c1", minutes=120)
    assert again.lease is not None, "asked twice, it is the same"
    assert centre_on_each.leases() == [lease]


def test_nobody_waits_in_line_for_a_cluster(centre: Centre) -> None:
    for name in ("l1", "l2", "l3"):
        centre.start(name)
    answer = ask_for_cluster(centre, "c1", **{"gpu.h200": 1000})
    assert isinstance(answer.decision, Wait)
    assert (answer.decision.code, answer.lease, answer.ticket) == (Code.POOL_FULL, None, None)
    assert answer.decision.facts["first_end"] is not None, "and is told when there may be room"
    with centre.store.reading() as txn:
        assert txn.tickets() == []
    stranger = ask_for_cluster(centre, "c2", Person("stranger", ("lab",)), minutes=60)
    assert stranger.lease is not None


def test_a_cluster_that_was_ended_is_not_started_again_under_its_name(centre: Centre) -> None:
    start_cluster(centre)
    centre.admission.release_now("c1")
    with pytest.raises(BadInput, match="is over"):
        ask_for_cluster(centre, "c1")


def test_a_scheduler_has_the_name_of_its_cluster(centre: Centre) -> None:
    with pytest.raises(ValueError, match="its name"):
        centre.admission.start_cluster_now(STUDENT, Ask("x", "student", "univ", {}, SCHEDULER, server="c1"))


def test_a_scheduler_does_not_take_what_somebody_waits_for(centre: Centre) -> None:
    for name in ("l1", "l2", "l3"):
        centre.start(name)
    centre.admission.put_person(RESEARCHER)
    centre.admission.admit_now(RESEARCHER, Ask("t1", "researcher", "univ", {"gpu.h200": 1000}, server="x"))
    gone(centre, centre.lease("l1"))
    answer = ask_for_cluster(centre, "c1", **{"gpu.h200": 1000})
    assert isinstance(answer.decision, Wait)
    assert answer.ticket is None


# -- growing ----------------------------------------------------------------------------------------------------------------


def test_what_fits_is_booked_guaranteed_first_and_the_rest_waits(centre_on_each: Centre) -> None:
    centre = centre_on_each
    scheduler = start_cluster(centre)
    granted = grant(centre, 5)
    assert sorted(lease.guaranteed for lease in granted.leases) == [False, True, True]
    assert {(one.kind, one.server, one.state) for one in granted.leases} == {(WORKER, "c1", BOOKED)}
    assert all(one.ends_at == scheduler.ends_at for one in granted.leases)
    assert waits(granted) == (Code.POOL_FULL, 2)
    assert ticket(centre).ask.server == "c1"
    assert cluster(centre).workers == granted.leases
    assert told(centre, ticket(centre).id)[-1].facts["wanted"] == 2


def test_a_wish_that_is_met_leaves_nothing_waiting(centre: Centre) -> None:
    start_cluster(centre)
    assert waits(grant(centre, 3)) == (None, 0)
    assert waits(grant(centre, 0)) == (None, 0)


def test_asking_again_with_the_same_wish_writes_nothing(centre_on_each: Centre) -> None:
    start_cluster(centre_on_each)
    for wish in (2, 5, 500):
        first = grant(centre_on_each, wish)
        before = centre_on_each.everything()
        centre_on_each.clock.at += 2
        again = grant(centre_on_each, wish)
        assert centre_on_each.everything() == before
        assert (again.leases, waits(again)) == (first.leases, waits(first))


def test_the_ticket_keeps_its_place_when_the_wish_changes(centre_on_each: Centre) -> None:
    start_cluster(centre_on_each)
    grant(centre_on_each, 5)
    first = ticket(centre_on_each)
    centre_on_each.clock.at += 10 * MINUTE
    assert waits(grant(centre_on_each, 9)) == (Code.POOL_FULL, 6)
    assert (ticket(centre_on_each).id, ticket(centre_on_each).made_at) == (first.id, START)
    assert waits(grant(centre_on_each, 4)) == (Code.POOL_FULL, 1)
    assert ticket(centre_on_each).id == first.id
    assert waits(grant(centre_on_each, 3)) == (None, 0)
    assert told(centre_on_each, first.id)[-1].why == "not-needed"
    centre_on_each.clock.at += MINUTE
    grant(centre_on_each, 4)
    assert ticket(centre_on_each).id != first.id, "whoever gave up the place waits anew"


@pytest.mark.parametrize("wish", [-1, -(10**9)])
def test_a_wish_below_nothing_is_none(centre: Centre, wish: int) -> None:
    start_cluster(centre)
    grant(centre, 2)
    assert grant(centre, wish).leases == ()


def test_a_forged_wish_gets_what_the_quota_has_and_waits_for_a_bounded_number(centre: Centre) -> None:
    centre.load(CAPS)
    start_cluster(centre)
    granted = grant(centre, 10**12)
    assert len(granted.leases) == 3
    assert waits(granted) == (Code.PERSON_AT_CAP, LARGEST_WISH - 3)


def test_more_than_one_portion_is_booked_for_one_wish(centre_on_each: Centre) -> None:
    centre_on_each.load(LARGE)
    start_cluster(centre_on_each)
    granted = grant(centre_on_each, AT_ONCE + 5)
    assert (len(granted.leases), waits(granted)) == (AT_ONCE + 5, (None, 0))
    assert waits(grant(centre_on_each, 2 * AT_ONCE)) == (None, 0)


def test_a_cap_counts_the_workers_of_all_clusters_of_a_person(centre: Centre) -> None:
    centre.load(CAPS)
    start_cluster(centre, "c1")
    start_cluster(centre, "c2")
    assert len(grant(centre, 2, "c1").leases) == 2
    second = grant(centre, 2, "c2")
    assert (len(second.leases), waits(second)) == (1, (Code.PERSON_AT_CAP, 1))


def test_what_waiting_cannot_cure_gets_no_ticket(centre: Centre) -> None:
    start_cluster(centre)
    grant(centre, 5)
    first = ticket(centre)
    too_big = centre.admission.grant_now("c1", STUDENT, unit(gpus=4), 5, ())
    assert isinstance(too_big.objection, Refuse)
    assert (too_big.objection.code, too_big.ticket) == (Code.TOO_BIG_FOR_POOL, None)
    assert cluster(centre).ticket is None
    assert told(centre, first.id)[-1].why == "too-big-for-pool"
    before = centre.everything()
    assert centre.admission.grant_now("c1", STUDENT, unit(gpus=4), 5, ()).objection == too_big.objection
    assert centre.everything() == before, "and asking again writes nothing"


def test_somebody_else_gets_nothing_by_the_name_of_a_cluster(centre: Centre) -> None:
    start_cluster(centre)
    grant(centre, 1)
    stolen = grant(centre, 3, "c1", RESEARCHER)
    assert (stolen.leases, waits(stolen)) == ((), (Code.CLUSTER_OVER, 0))
    assert len(cluster(centre).workers) == 1


def test_a_cluster_without_a_scheduler_gets_nothing(centre: Centre) -> None:
    assert waits(grant(centre, 3, "never")) == (Code.CLUSTER_OVER, 0)
    scheduler = start_cluster(centre)
    grant(centre, 5)
    centre.order_end("c1")
    over = grant(centre, 5)
    assert (over.leases, waits(over)) == ((), (Code.CLUSTER_OVER, 0))
    gone(centre, scheduler)
    assert waits(grant(centre, 5)) == (Code.CLUSTER_OVER, 0)
    assert waits(grant(centre, 0)) == (None, 0)


def test_no_worker_outlives_its_cluster(centre: Centre) -> None:
    scheduler = start_cluster(centre, minutes=60)
    centre.clock.at += 50 * MINUTE
    granted = grant(centre, 2, minutes=600)
    assert {lease.ends_at for lease in granted.leases} == {scheduler.ends_at}
    assert {lease.ends_at for lease in grant(centre, 3, minutes=1).leases} == {scheduler.ends_at}


def test_in_its_last_minute_a_cluster_grows_no_more(centre: Centre) -> None:
    scheduler = start_cluster(centre, minutes=60)
    grant(centre, 5)
    centre.clock.at = scheduler.ends_at - MINUTE
    over = grant(centre, 9)
    assert waits(over) == (Code.CLUSTER_OVER, 0)
    assert cluster(centre).workers == (), "nobody has begun to start them"
    centre.clock.at = scheduler.ends_at + HOUR
    assert waits(grant(centre, 9)) == (Code.CLUSTER_OVER, 0)


def test_workers_have_devices_of_their_own(centre_on_each: Centre) -> None:
    devices = tuple(Device(f"GPU-{number}", "h200") for number in range(3))
    centre_on_each.admission.put_nodes([Node("n1", {"gpu.h200": 3000, "cpu": 64_000}, devices)])
    start_cluster(centre_on_each)
    held = [lease.devices for lease in grant(centre_on_each, 3).leases]
    assert sorted(held) == [("GPU-0",), ("GPU-1",), ("GPU-2",)]


def test_nothing_is_granted_while_the_database_is_away(centre: Centre) -> None:
    start_cluster(centre)
    before = centre.everything()
    for number in (1, 2):
        away = Admission(StoreAwayOnce(centre.store, number, at_the_end=True), centre.clock)
        with pytest.raises(StoreUnavailable):
            away.grant_now("c1", STUDENT, unit(), 3, ())
        assert centre.everything() == before


# -- who comes first ----------------------------------------------------------------------------------------------------------


def test_a_cluster_does_not_pass_a_server_that_waits_for_the_same(centre: Centre) -> None:
    """Also where it would be guaranteed: what grows by itself comes after servers."""
    start_cluster(centre)
    for name in ("l1", "l2", "l3"):
        centre.start(name, minutes=60)
    centre.admission.put_person(RESEARCHER)
    asked = Ask("t1", "researcher", "univ", {"gpu.h200": 1000}, server="x", minutes=60)
    assert centre.admission.admit_now(RESEARCHER, asked).ticket is not None
    gone(centre, centre.lease("l1"))
    granted = grant(centre, 1)
    assert (granted.leases, waits(granted)) == ((), (Code.OTHERS_WAITING, 1))
    centre.clockwork.tick()
    assert centre.lease("t1").live
    assert cluster(centre).workers == ()


def test_a_cluster_does_not_pass_a_server_that_would_only_borrow(centre: Centre) -> None:
    """Asked alone or in line, the order is the same: servers first."""
    start_cluster(centre)
    for name in ("l1", "l2"):
        centre.start(name, minutes=60)
    centre.start("l3", person="owner", pool="lab", minutes=60)
    centre.admission.put_person(OWNER)
    asked = Ask("t1", "owner", "lab", {"gpu.h200": 1000}, server="x", minutes=60)
    assert centre.admission.admit_now(OWNER, asked).ticket is not None
    gone(centre, centre.lease("l1"))
    assert waits(grant(centre, 1)) == (Code.OTHERS_WAITING, 1)
    centre.clockwork.tick()
    assert (centre.lease("t1").live, cluster(centre).workers) == (True, ())


def test_a_server_passes_clusters_that_wait(centre: Centre) -> None:
    start_cluster(centre)
    grant(centre, 5)
    gone(centre, start(centre, cluster(centre).workers[0]))
    centre.admission.put_person(RESEARCHER)
    asked = Ask("s1", "researcher", "univ", {"gpu.h200": 1000}, server="x", minutes=60)
    assert isinstance(centre.admission.admit_now(RESEARCHER, asked).decision, Admit)


def test_a_second_cluster_does_not_pass_the_first_one_that_waits(centre: Centre) -> None:
    start_cluster(centre, "c1")
    start_cluster(centre, "c2", RESEARCHER)
    grant(centre, 4, "c1")
    gone(centre, start(centre, cluster(centre, "c1").workers[0]))
    later = grant(centre, 1, "c2", RESEARCHER)
    assert (later.leases, waits(later)) == ((), (Code.OTHERS_WAITING, 1))


def test_of_two_clusters_that_race_for_the_last_one_exactly_one_gets_it(centre_on_each: Centre) -> None:
    centre = centre_on_each
    centre.start("l1")
    centre.start("l2")
    people = {f"p{number}": Person(f"p{number}", ("univ",)) for number in range(6)}
    for name, person in people.items():
        start_cluster(centre, name, person)
    together = threading.Barrier(len(people))
    results: dict[str, Granted] = {}

    def race(name: str, person: Person) -> None:
        together.wait()
        results[name] = grant(centre, 1, name, person)

    threads = [threading.Thread(target=race, args=one) for one in people.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(one.leases) for one in results.values()) == [0, 0, 0, 0, 0, 1]
    assert sorted(waits(one)[1] for one in results.values()) == [0, 1, 1, 1, 1, 1]


# -- shrinking ------------------------------------------------------------------------------------------------------------------


def test_what_is_booked_and_not_in_use_goes_back_borrowed_first(centre_on_each: Centre) -> None:
    centre = centre_on_each
    start_cluster(centre)
    first, second, borrowed = sorted(grant(centre, 3).leases, key=lambda one: (not one.guaranteed, one.id))
    assert grant(centre, 2, in_use=[second.id]).leases == (first, second)
    assert (centre.lease(borrowed.id).state, centre.lease(borrowed.id).reason) == (RELEASED, "not-needed")
    assert grant(centre, 1, in_use=[first.id, second.id]).leases == (first, second), "what is used stays"
    assert grant(centre, 0, in_use=[second.id]).leases == (second,)
    assert centre.units_charged(first.id) == 0


def test_what_runs_is_never_given_back_here(centre: Centre) -> None:
    start_cluster(centre)
    leases = [start(centre, lease) for lease in grant(centre, 2).leases]
    assert grant(centre, 0).leases == tuple(leases)


def test_what_a_cluster_gives_back_makes_the_borrowed_of_others_guaranteed(centre: Centre) -> None:
    start_cluster(centre, "c1")
    start_cluster(centre, "c2", RESEARCHER)
    grant(centre, 2, "c1")
    (borrowed,) = grant(centre, 1, "c2", RESEARCHER).leases
    assert not borrowed.guaranteed
    grant(centre, 1, "c1")
    assert centre.lease(borrowed.id).guaranteed


def test_a_worker_that_is_ending_is_replaced_once_there_is_room(centre: Centre) -> None:
    start_cluster(centre)
    first, *_ = [start(centre, lease) for lease in grant(centre, 3).leases]
    centre.order_end(first.id)
    assert waits(grant(centre, 3)) == (Code.POOL_FULL, 1), "what is ending still holds its GPU"
    gone(centre, first)
    centre.clockwork.tick()
    assert sorted(states(centre)) == [BOOKED, RUNNING, RUNNING]
    assert cluster(centre).ticket is None


# -- hours ----------------------------------------------------------------------------------------------------------------------


def test_short_hours_are_shared_among_all_workers(centre_on_each: Centre) -> None:
    """Ten hours: four workers for two and a half each, not one for ten."""
    centre_on_each.load(FEW_HOURS)
    start_cluster(centre_on_each, minutes=720)
    granted = grant(centre_on_each, 4, minutes=720)
    assert [lease.ends_at for lease in granted.leases] == [START + 150 * MINUTE] * 4
    assert waits(granted) == (None, 0)


def test_no_worker_gets_less_than_a_session(centre: Centre) -> None:
    centre.load(FEW_HOURS)
    start_cluster(centre, minutes=720)
    granted = grant(centre, 100, minutes=720)
    ends = [lease.ends_at for lease in granted.leases]
    assert ends == [START + 15 * MINUTE] * 40, "forty quarters of an hour are ten hours"
    assert waits(granted) == (Code.BUDGET_SHORT, 60)


def test_hours_that_last_are_not_shared(centre: Centre) -> None:
    centre.load(FEW_HOURS)
    start_cluster(centre, minutes=120)
    assert [one.ends_at for one in grant(centre, 5).leases] == [START + 120 * MINUTE] * 5


# -- what there would be ----------------------------------------------------------------------------------------------------------


def preview(centre: Centre, most: int, person: Person = STUDENT, **more: Any) -> Any:
    centre.admission.put_person(person)
    scheduler = Ask("p", person.name, person.pools[0], {"cpu": 1000}, SCHEDULER, server="p", minutes=240)
    return centre.admission.preview_clusters_now([(person, scheduler, unit(person, **more), most)])[0]


def test_a_preview_says_what_there_would_be_and_books_nothing(centre_on_each: Centre) -> None:
    start_cluster(centre_on_each)
    before = centre_on_each.everything()
    found = preview(centre_on_each, 10)
    assert (found.guaranteed, found.borrowed, found.objection.code) == (2, 1, Code.POOL_FULL)
    assert isinstance(found.scheduler, Admit)
    assert (found.cost_guaranteed, found.cost_borrowed) == (1_000_000, 500_000)
    assert [state.of.pool for state in found.budgets] == ["univ"]
    assert centre_on_each.everything() == before


def test_a_preview_of_more_than_the_person_may_have_does_not_say_that_they_have_it(
    centre_on_each: Centre,
) -> None:
    centre_on_each.load(CAPS)
    start_cluster(centre_on_each)
    grant(centre_on_each, 1)
    found = preview(centre_on_each, 10)
    assert (found.guaranteed + found.borrowed, found.objection.code) == (2, Code.PERSON_AT_CAP)
    facts = found.objection.facts
    assert (facts["cap"], facts["held"], facts["asked"]) == (3, 1, 3)
    assert facts["servers"] == ["c1"]
    centre_on_each.admission.end_cluster_now("c1", "student", "stopped")
    found = preview(centre_on_each, 10)
    facts = found.objection.facts
    assert (facts["held"], facts["asked"], facts["leases"], facts["first_end"]) == (0, 4, [], None)


def test_a_preview_asks_for_no_more_than_was_asked_about(centre: Centre) -> None:
    found = preview(centre, 2)
    assert (found.guaranteed, found.borrowed, found.objection) == (2, 0, None)


@pytest.mark.parametrize("held", range(4))
def test_what_the_preview_shows_is_what_is_granted(centre: Centre, held: int) -> None:
    for number in range(held):
        centre.start(f"l{number}")
    found = preview(centre, 5)
    start_cluster(centre, "p")
    granted = grant(centre, 5, "p")
    assert [found.guaranteed, found.borrowed] == [
        sum(lease.guaranteed for lease in granted.leases),
        sum(not lease.guaranteed for lease in granted.leases),
    ]
    assert (found.objection is None) == (granted.objection is None)


@pytest.mark.parametrize("others", range(4))
def test_what_a_running_cluster_is_told_that_it_would_get_is_what_it_gets(
    centre_on_each: Centre, others: int
) -> None:
    centre = centre_on_each
    for number in range(others):
        centre.start(f"l{number}")
    start_cluster(centre, "p")
    held = grant(centre, 1, "p").leases
    before = centre.everything()
    found = centre.admission.preview_growth_now("p", STUDENT, unit(STUDENT), 4)
    assert centre.everything() == before
    granted = grant(centre, len(held) + 4, "p")
    assert len(found.leases) == len(granted.leases) - len(held)
    assert found.objection == granted.objection


def test_a_cluster_that_is_over_would_get_nothing_more(centre: Centre) -> None:
    found = centre.admission.preview_growth_now("p", STUDENT, unit(STUDENT), 4)
    assert found.leases == ()
    assert found.objection is not None
    assert found.objection.code is Code.CLUSTER_OVER


def test_a_cluster_that_cannot_start_has_no_workers(centre: Centre) -> None:
    found = preview(centre, 5, Person("stranger", ("nowhere",)))
    assert isinstance(found.scheduler, Refuse)
    assert (found.guaranteed, found.borrowed, found.objection) == (0, 0, found.scheduler)


# -- looking ------------------------------------------------------------------------------------------------------------------------


def test_clusters_are_shown_by_name_with_all_that_is_theirs(centre_on_each: Centre) -> None:
    centre = centre_on_each
    start_cluster(centre, "c1")
    start_cluster(centre, "c2", OWNER)
    centre.start("l1")
    grant(centre, 3, "c1")
    grant(centre, 1, "c2", OWNER)
    both = centre.admission.clusters_now()
    assert {name: (len(one.workers), one.ticket is not None) for name, one in both.items()} == {
        "c1": (2, True),
        "c2": (0, True),
    }
    assert list(centre.admission.clusters_now(["c2", "c3"])) == ["c2"]
    assert list(centre.admission.clusters_now(person="student")) == ["c1"]
    assert centre.admission.clusters_now([]) == {}
    assert asyncio.run(centre.admission.clusters(["c1"])) == {"c1": both["c1"]}


# -- more time ------------------------------------------------------------------------------------------------------------------------


def test_a_worker_alone_goes_on_no_longer_than_its_cluster(centre: Centre) -> None:
    scheduler = start_cluster(centre, minutes=60)
    (lease,) = grant(centre, 1, minutes=20).leases
    start(centre, lease)
    found = centre.admission.extend_now(lease.id, 600, "student")
    assert found is not None
    assert found.lease.ends_at == scheduler.ends_at
    assert found.cut_by == {"kind": "cluster", "pool": "univ"}


# -- the end ----------------------------------------------------------------------------------------------------------------------------


def test_after_its_end_nothing_is_left_of_a_cluster(centre_on_each: Centre) -> None:
    centre = centre_on_each
    scheduler = start_cluster(centre)
    first, second, third = grant(centre, 6).leases
    start(centre, first)
    waiting = ticket(centre)
    centre.admission.end_cluster_now("c1", "student", "stopped")
    assert [centre.lease(one.id).state for one in (scheduler, first, second, third)] == [
        ENDING,
        ENDING,
        RELEASED,
        RELEASED,
    ]
    assert cluster(centre).ticket is None
    assert told(centre, waiting.id)[-1].why == "cluster-over"
    for lease in (scheduler, first):
        gone(centre, lease)
    assert centre.admission.clusters_now() == {}
    assert {lease.reason for lease in centre.leases()} == {"stopped"}
    before = centre.everything()
    centre.admission.end_cluster_now("c1", "student", "stopped")
    assert centre.everything() == before, "ended twice is ended once"


def test_the_end_of_one_cluster_is_no_other_ones(centre: Centre) -> None:
    start_cluster(centre, "c1")
    start_cluster(centre, "c2", RESEARCHER)
    centre.start("l1")
    grant(centre, 1, "c2", RESEARCHER)
    centre.admission.end_cluster_now("c1", "student", "stopped")
    assert len(cluster(centre, "c2").workers) == 1
    assert centre.lease("l1").state is RUNNING
