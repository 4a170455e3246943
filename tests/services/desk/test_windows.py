"""Reservations in a real database: made, approved, begun and ended by the clock, and what they mean for a start."""

from __future__ import annotations

from typing import Any

import pytest

from hub_ext.core.decision import Admit, Wait
from hub_ext.core.errors import BadInput
from hub_ext.core.people import Person
from hub_ext.quota.calendar import Amber, Green, Red
from hub_ext.quota.ledger import EntryKind
from hub_ext.quota.model import Ask, Reservation
from hub_ext.quota.reserving import approve, ask_to_reserve, give_up
from hub_ext.quota.service import Answer, run
from tests.services.desk.centre import GPU_SECOND, HOUR, MINUTE, POLICY, START, Centre


def window(name: str = "w1", start: int = HOUR, end: int = 3 * HOUR, gpus: int = 2) -> Reservation:
    return Reservation(name, "univ", {"gpu.h200": gpus * 1000}, START + start, START + end, title="Workshop")


def reserved(centre: Centre, wanted: Reservation) -> Green | Amber | Red:
    with centre.store.booking() as txn:
        return ask_to_reserve(txn, wanted, centre.clock.at, who="lead")


def asks(
    centre: Centre, name: str, *, pool: str = "univ", gpus: int = 1, reservation: str | None = None
) -> Answer:
    person = Person(name, (pool,))
    wish = Ask(name, name, pool, {"gpu.h200": gpus * 1000}, server=name, reservation=reservation)
    return centre.admission.admit_now(person, wish)


def starts(centre: Centre, name: str, **more: Any) -> Answer:
    """Asks, and runs at once."""
    answer = asks(centre, name, **more)
    centre.hub.known[name, name] = None
    centre.hub.leases[name, name] = name
    process = centre.world.start(name, centre.clock.at)
    centre.admission.change(name, run(process.handle, process.node))
    return answer


def held(centre: Centre) -> int:
    with centre.store.reading() as txn:
        ledger = txn.ledger(None)
        return ledger.tree.used(ledger.sums, "univ", "gpu.h200")


def kept(centre: Centre) -> list[Reservation]:
    with centre.store.reading() as txn:
        return txn.reservations(centre.clock.at)


def test_a_start_before_a_window_ends_with_its_start(centre: Centre) -> None:
    assert isinstance(reserved(centre, window(gpus=3)), Amber)
    assert isinstance(reserved(centre, window("w2")), Green)
    answer = starts(centre, "a", gpus=2)
    assert isinstance(answer.decision, Admit)
    assert answer.decision.ends_at == START + HOUR
    assert answer.decision.facts["cut_by"]["reservation"] == "w2"
    centre.tick(50 * MINUTE)
    late = asks(centre, "b")
    assert isinstance(late.decision, Admit)  # the lab's GPU is nobody's then
    assert not late.decision.guaranteed
    assert isinstance(asks(centre, "c").decision, Wait)


def test_the_clock_lets_a_window_begin_shrink_and_end(centre: Centre) -> None:
    reserved(centre, window())
    centre.tick(HOUR - 1)
    assert held(centre) == 0
    centre.tick(1)
    assert held(centre) == 2000
    answer = starts(centre, "a", reservation="w1")
    assert isinstance(answer.decision, Admit)
    assert (answer.decision.guaranteed, answer.decision.ends_at) == (True, START + 3 * HOUR)
    assert answer.lease is not None
    assert answer.lease.reservation == "w1"
    assert held(centre) == 2000
    centre.tick(20 * MINUTE)
    assert held(centre) == 1000
    assert [one.shrunk_to for one in kept(centre)] == [{"gpu.h200": 1000}]
    centre.admission.release_now("a")
    assert held(centre) == 1000
    centre.tick(100 * MINUTE)
    assert held(centre) == 0
    told = [entry.why for entry in centre.entries(EntryKind.RESERVED)]
    assert told == ["made", "begun", "shrunk", "over"]


def test_what_nobody_used_is_charged_to_the_pool(centre: Centre) -> None:
    reserved(centre, window())
    centre.tick(HOUR)
    for _ in range(12):
        centre.tick(10 * MINUTE)
    # Nobody came: two GPUs for twenty minutes.
    assert centre.units_charged("w1/unused") == 2 * 20 * MINUTE * GPU_SECOND


def borrows(centre: Centre, name: str = "b") -> None:
    """While a window holds the pool's own GPUs; only the lab's is left."""
    assert starts(centre, name).lease is not None
    assert not centre.lease(name).guaranteed


def test_what_a_window_gives_up_makes_borrowed_servers_guaranteed(centre: Centre) -> None:
    reserved(centre, window())
    centre.tick(HOUR)
    borrows(centre)
    centre.tick(20 * MINUTE)
    assert centre.lease("b").guaranteed
    assert [entry.lease for entry in centre.entries(EntryKind.PROMOTED)] == ["b"]
    centre.tick(MINUTE)
    assert len(centre.entries(EntryKind.PROMOTED)) == 1


def test_a_window_that_is_given_up_is_charged_until_then_and_makes_room(centre: Centre) -> None:
    reserved(centre, window())
    centre.tick(HOUR)
    borrows(centre)
    centre.clock.at += 5 * MINUTE
    with centre.store.booking() as txn:
        give_up(txn, "w1", centre.clock.at, who="lead")
    assert held(centre) == 1000
    assert centre.lease("b").guaranteed
    centre.tick(10 * MINUTE)
    assert centre.units_charged("w1/unused") == 2 * 5 * MINUTE * GPU_SECOND


def test_a_clock_that_was_away_all_the_while_leaves_nothing_held(centre: Centre) -> None:
    reserved(centre, window())
    centre.tick(HOUR)
    assert held(centre) == 2000
    centre.clock.at += 5 * HOUR
    assert centre.another_clock("next").tick()
    assert held(centre) == 0


def test_what_is_borrowed_ends_when_the_window_begins(centre: Centre) -> None:
    centre.start("b", person="borrower", pool="lab", gpus=3, minutes=600)
    answer = reserved(centre, window())
    assert isinstance(answer, Green)
    assert [one.lease.id for one in answer.endings] == ["b"]
    lease = centre.lease("b")
    assert (lease.ends_at, lease.noticed_for, lease.ends_unless_taken) == (
        START + HOUR,
        "w1",
        START + 10 * HOUR,
    )
    centre.tick(MINUTE)
    assert centre.lease("b").noticed_for == "w1"  # the clock knows what the notice is for
    with centre.store.booking() as txn:
        give_up(txn, "w1", centre.clock.at, who="lead")
    centre.tick(MINUTE)
    assert centre.lease("b").ends_at == START + 10 * HOUR


def test_amber_holds_nothing_until_it_is_approved_and_red_is_not_kept(centre: Centre) -> None:
    answer = reserved(centre, window(gpus=3))
    assert answer == Amber("seoul")
    assert asks(centre, "a", gpus=3).decision != Wait
    assert isinstance(reserved(centre, window("w9", gpus=4)), Red)
    assert [one.id for one in kept(centre)] == ["w1"]
    centre.admission.release_now("a")
    with centre.store.booking() as txn:
        assert approve(txn, "w1", centre.clock.at, who="head") == Amber("seoul")
    assert [(one.approved, one.approved_by) for one in kept(centre)] == [(True, "head")]
    answer = asks(centre, "b")
    assert isinstance(answer.decision, Admit)
    assert answer.decision.ends_at == START + HOUR


def test_a_policy_that_is_loaded_keeps_what_is_reserved(centre: Centre) -> None:
    reserved(centre, window())
    reserved(centre, window("w2", 4 * HOUR, 5 * HOUR))
    centre.tick(HOUR)
    asks(centre, "a", reservation="w1")
    centre.load(POLICY.replace("nominal: 1}", "nominal: 2}"))
    assert held(centre) == 2000
    centre.tick(3 * HOUR)
    assert held(centre) == 2000


@pytest.mark.parametrize("name", ["w1", "gone"])
def test_what_cannot_be_done_to_a_reservation_is_told(centre: Centre, name: str) -> None:
    reserved(centre, window())
    with centre.store.booking() as txn:
        with pytest.raises(BadInput, match=f"no reservation {name} that waits"):
            approve(txn, name, centre.clock.at, who="head")
        with pytest.raises(BadInput, match="no reservation gone to cancel"):
            give_up(txn, "gone", centre.clock.at, who="head")
        with pytest.raises(BadInput, match="already"):
            ask_to_reserve(txn, window(), centre.clock.at, who="lead")
        with pytest.raises(BadInput, match="end after its start"):
            ask_to_reserve(txn, window("w3", 2, 1), centre.clock.at, who="lead")
