"""Those who wait: their turn comes, their server is started for them, and what others borrowed is taken back."""

from __future__ import annotations

from typing import Any

import pytest

from hub_ext.core.decision import Admit, Code, Wait
from hub_ext.core.errors import StoreUnavailable
from hub_ext.core.people import Person
from hub_ext.quota.ledger import EntryKind
from hub_ext.quota.model import Ask, LeaseState, Ticket
from hub_ext.quota.service import Answer, run
from tests.services.desk.centre import HOUR, MINUTE, START, STUDENT, Centre
from tests.support.fakes import RefusingHub, StoreAwayOnce

BOOKED, RUNNING, ENDING, RELEASED = (
    LeaseState.BOOKED,
    LeaseState.RUNNING,
    LeaseState.ENDING,
    LeaseState.RELEASED,
)
RESEARCHER, OWNER = Person("researcher", ("univ",)), Person("owner", ("lab",))
OPTIONS = {"profile": "h200", "gpus": "1", "minutes": 60}


def ask(centre: Centre, name: str, person: Person = STUDENT, *, gpus: int = 1, **more: Any) -> Answer:
    """As the gate asks; the person signed in before."""
    centre.admission.put_person(person)
    more = {"server": name, "minutes": 60} | more
    options = more.pop("options", OPTIONS)
    asked = Ask(name, person.name, person.pools[0], {"gpu.h200": gpus * 1000}, **more)
    return centre.admission.admit_now(person, asked, options)


def tickets(centre: Centre) -> list[Ticket]:
    with centre.store.reading() as txn:
        return txn.tickets()


def full(centre: Centre, minutes: int = 60) -> None:
    """All three GPUs are the student's."""
    for name in ("l1", "l2", "l3"):
        centre.start(name, minutes=minutes)


def starts(centre: Centre, name: str) -> None:
    """What the hub does once it is asked to start: the gate, then the process."""
    lease = centre.lease(name)
    answer = centre.admission.admit_now(
        Person(lease.person, (lease.pool,)),
        Ask(
            "of the hub", lease.person, lease.pool, lease.amounts, server=lease.server, profile=lease.profile
        ),
    )
    assert answer.lease is not None
    assert answer.lease.id == name, "it takes what was booked for it"
    process = centre.world.start(name, centre.clock.at)
    centre.hub.known[lease.person, lease.server] = None
    centre.hub.leases[lease.person, lease.server] = name
    centre.admission.change(name, run(process.handle, process.node))


# -- joining ----------------------------------------------------------------------------------------------------------


def test_a_wait_is_a_ticket_with_all_that_is_needed_later(centre_on_each: Centre) -> None:
    centre = centre_on_each
    full(centre)
    answer = ask(centre, "t1", RESEARCHER)
    assert isinstance(answer.decision, Wait)
    assert answer.ticket is not None
    assert (answer.ticket.id, answer.ticket.outlook.code, answer.ticket.options) == (
        "t1",
        "pool-full",
        OPTIONS,
    )
    assert tickets(centre) == [answer.ticket] or tickets(centre)[0].id == "t1"
    centre.tick()
    (ticket,) = tickets(centre)
    assert (ticket.outlook.place, ticket.outlook.eta is not None) == (1, True)


def test_asking_again_for_the_same_or_less_keeps_the_place_and_for_more_takes_a_new_one(
    centre: Centre,
) -> None:
    full(centre)
    ask(centre, "t1", RESEARCHER, server="x", gpus=2)
    centre.clock.at += MINUTE
    again = ask(centre, "t2", RESEARCHER, server="x", gpus=1)
    assert again.ticket is not None
    assert (again.ticket.id, again.ticket.made_at) == ("t1", START)
    assert again.ticket.ask.amounts == {"gpu.h200": 1000}
    more = ask(centre, "t3", RESEARCHER, server="x", gpus=3)
    assert more.ticket is not None
    assert (more.ticket.id, more.ticket.made_at) == ("t3", START + MINUTE)
    assert [ticket.id for ticket in tickets(centre)] == ["t3"]
    standing = centre.admission.standing_now("t1")
    assert standing.over is not None
    assert (standing.over.why, standing.successor) == ("replaced", "t3")


def test_starting_something_else_under_the_same_name_gives_the_place_up(centre: Centre) -> None:
    full(centre)
    ask(centre, "t1", RESEARCHER, server="x")
    assert ask(centre, "c1", RESEARCHER, server="x", gpus=0).lease is not None
    assert tickets(centre) == []


def test_a_new_ask_does_not_pass_those_who_wait_for_the_same(centre: Centre) -> None:
    full(centre)
    ask(centre, "t1", RESEARCHER)
    centre.order_end("l1")
    centre.world.kill("l1")
    centre.admission.release_now("l1")
    second = ask(centre, "t2", STUDENT)
    assert isinstance(second.decision, Wait)
    preview = centre.admission.preview_now(
        STUDENT, [Ask("p", "student", "univ", {"gpu.h200": 1000}, minutes=60)]
    )
    assert preview.decisions["p"] == Wait(Code.OTHERS_WAITING, {"pool": "univ"})
    # What needs nothing of it starts at once.
    assert isinstance(ask(centre, "c1", gpus=0).decision, Admit)


# -- the turn -----------------------------------------------------------------------------------------------------------


def test_when_its_turn_comes_a_server_is_started_with_what_was_chosen(centre_on_each: Centre) -> None:
    centre = centre_on_each
    full(centre)
    ask(centre, "t1", RESEARCHER)
    centre.tick()
    assert centre.hub.started == []
    centre.world.kill("l2")
    centre.forget("l2")
    centre.admission.release_now("l2", "student", "stopped")
    centre.clockwork.serve_if_anything_is_new()
    lease = centre.lease("t1")
    assert (lease.state, lease.unclaimed, lease.person) == (BOOKED, True, "researcher")
    assert centre.hub.started == [("researcher", "t1")]
    assert centre.hub.options == [OPTIONS]
    assert tickets(centre) == []
    starts(centre, "t1")
    centre.tick(2)
    assert (centre.lease("t1").state, centre.hub.started) == (RUNNING, [("researcher", "t1")])
    standing = centre.admission.standing_now("t1")
    assert (standing.ticket, standing.lease) == (None, centre.lease("t1"))


def test_nothing_is_read_or_planned_while_nothing_was_written(
    centre: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(centre)
    ask(centre, "t1", RESEARCHER)
    centre.tick()
    monkeypatch.setattr(centre.clockwork, "serve_the_line", lambda: pytest.fail("nothing is new"))
    centre.clockwork.serve_if_anything_is_new()


def test_a_turn_that_the_database_did_not_take_comes_at_the_next_look(centre: Centre) -> None:
    full(centre)
    ask(centre, "t1", RESEARCHER)
    centre.tick()
    free(centre, "l1")
    with centre.store.reading() as txn:
        newest = txn.newest_entry()
    # The second transaction of a look is the one that books.
    centre.admission.store = StoreAwayOnce(centre.store, 2, at_the_end=True)  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable):
        centre.clockwork.serve_the_line()
    centre.admission.store = centre.store
    with centre.store.reading() as txn:
        assert txn.newest_entry() == newest
    centre.clockwork.serve_the_line()
    assert (centre.lease("t1").state, centre.hub.started) == (BOOKED, [("researcher", "t1")])


def free(centre: Centre, name: str) -> None:
    centre.world.kill(name)
    centre.forget(name)
    centre.admission.release_now(name, "student", "stopped")


@pytest.mark.parametrize(
    "after_the_write", [False, True], ids=["before the hub is asked", "after it was asked"]
)
def test_a_clock_that_is_killed_after_it_booked_a_turn_is_followed_by_one_that_starts_it_once(
    centre: Centre, after_the_write: bool
) -> None:
    full(centre)
    ask(centre, "t1", RESEARCHER)
    centre.tick()
    free(centre, "l1")

    class Killed(BaseException):
        pass

    def killed(lease: Any, options: Any) -> None:
        if after_the_write:
            centre.hub.start(lease.person, lease.server, options)
        raise Killed

    centre.clockwork._starts.order = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        centre.tick(2)
    assert centre.lease("t1").state is BOOKED
    if after_the_write:
        starts(centre, "t1")
    another = centre.another_clock()
    centre.clock.at += 11
    assert another.tick()
    centre.clock.at += 7
    assert another.tick()
    assert centre.hub.started == [("researcher", "t1")]
    assert centre.hub.options == [OPTIONS]
    assert len([lease for lease in centre.leases() if lease.live and lease.person == "researcher"]) == 1


def test_a_start_that_the_hub_keeps_refusing_is_given_up_and_costs_nothing(centre: Centre) -> None:
    centre.hub = centre.clockwork.servers = RefusingHub(centre.world)
    centre.hub.known, centre.hub.leases = {}, {}
    full(centre)
    ask(centre, "t1", RESEARCHER)
    centre.tick()
    free(centre, "l1")
    for _ in range(12):
        centre.tick(4)
    lease = centre.lease("t1")
    assert (lease.state, lease.reason, centre.units_charged("t1")) == (RELEASED, "start-lost", 0)


def test_a_start_that_finds_no_room_after_all_is_first_in_line_again(centre: Centre) -> None:
    full(centre)
    ask(centre, "t1", RESEARCHER)
    ask(centre, "t2", OWNER, gpus=1)
    centre.tick()
    free(centre, "l1")
    centre.tick(2)
    booked = next(lease for lease in centre.leases() if lease.state is BOOKED)
    # The gate gives the start up: the cluster had no node for it.
    centre.order_end(booked.id, "no-room", booked.person)
    centre.admission.release_now(booked.id, booked.person, "no-room")
    again = next(ticket for ticket in tickets(centre) if ticket.put_back)
    assert (again.ask.person, again.ask.minutes, again.options) == (booked.person, 60, OPTIONS)
    assert centre.units_charged(booked.id) == 0
    standing = centre.admission.standing_now(booked.id)
    assert standing.successor == again.id


# -- who does not come -----------------------------------------------------------------------------------------------------


def turn_came(centre: Centre) -> None:
    full(centre, minutes=300)
    ask(centre, "t1", RESEARCHER, minutes=300)
    centre.tick()
    free(centre, "l1")
    centre.tick(2)
    starts(centre, "t1")
    centre.tick(2)


def test_a_server_that_nobody_comes_to_is_stopped_ten_minutes_after_it_is_ready(centre: Centre) -> None:
    turn_came(centre)
    centre.hub.known["researcher", "t1"] = "spawn"
    centre.tick(11 * MINUTE)
    centre.hub.known["researcher", "t1"] = None
    centre.tick(2)
    centre.tick(10 * MINUTE - 1)
    assert centre.lease("t1").state is RUNNING
    centre.tick(1)
    centre.tick(2)
    assert (centre.lease("t1").state, centre.lease("t1").reason) == (RELEASED, "unclaimed")
    assert tickets(centre) == [], "who did not come is not put back"


def test_a_server_that_its_owner_came_to_goes_on(centre: Centre) -> None:
    turn_came(centre)
    assert centre.admission.change(
        "t1", lambda ledger, lease, now: ledger.claim(lease, now, who="researcher")
    )
    centre.tick(11 * MINUTE)
    assert (centre.lease("t1").state, centre.lease("t1").unclaimed) == (RUNNING, False)


# -- taking back -----------------------------------------------------------------------------------------------------------


def test_the_whole_way_of_what_was_borrowed(centre_on_each: Centre) -> None:
    """Borrowed, asked back, noticed, ended; its owner's server starts by itself, and the borrower is first in line."""
    centre = centre_on_each
    for name in ("l1", "l2", "l3"):
        asked = ask(centre, name, STUDENT, minutes=600)
        assert asked.lease is not None
        centre.hub.known["student", name] = "spawn"
        starts(centre, name)
    borrowed = next(lease.id for lease in centre.leases() if not lease.guaranteed)
    centre.tick(40 * MINUTE)
    assert ask(centre, "owner", OWNER).ticket is not None
    centre.clockwork.serve_if_anything_is_new()
    noticed = centre.lease(borrowed)
    assert (noticed.noticed_for, noticed.ends_at) == ("owner", centre.clock.at + 10 * MINUTE)
    (ticket,) = tickets(centre)
    assert (ticket.outlook.reclaims, ticket.outlook.eta.kind if ticket.outlook.eta else None) == (
        (borrowed,),
        "latest",
    )
    # What is taken back cannot be extended.
    extension = centre.admission.extend_now(borrowed, 60, "student")
    assert extension is not None
    assert extension.objection == Wait(Code.OTHERS_WAITING, {"pool": "lab"})
    centre.tick(10 * MINUTE)
    for _ in range(3):
        centre.tick(2)
    assert (centre.lease(borrowed).state, centre.lease(borrowed).reason) == (RELEASED, "taken-back")
    owner = centre.lease("owner")
    assert (owner.state, owner.guaranteed) == (BOOKED, True)
    assert ("owner", "owner") in centre.hub.started
    (back,) = tickets(centre)
    assert (back.ask.person, back.put_back, back.displaced_by, back.options) == (
        "student",
        True,
        "owner",
        OPTIONS,
    )
    assert back.outlook.place == 1
    assert centre.admission.standing_now(borrowed).successor == back.id


def test_when_its_asker_leaves_a_notice_is_withdrawn(centre: Centre) -> None:
    for name in ("l1", "l2", "l3"):
        ask(centre, name, STUDENT, minutes=600)
        centre.hub.known["student", name] = "spawn"
        starts(centre, name)
    borrowed = next(lease for lease in centre.leases() if not lease.guaranteed)
    centre.tick(40 * MINUTE)
    ask(centre, "owner", OWNER)
    centre.tick(2)
    assert centre.lease(borrowed.id).noticed_for == "owner"
    assert centre.admission.leave_now("owner", "student") is None, "it is not the student's"
    assert centre.admission.leave_now("owner", "owner") is not None
    centre.clockwork.serve_if_anything_is_new()
    lease = centre.lease(borrowed.id)
    assert (lease.noticed_for, lease.ends_at) == (None, borrowed.ends_at)


def test_what_waiting_cannot_cure_any_more_is_dropped_with_its_reason(centre: Centre) -> None:
    full(centre)
    ask(centre, "t1", RESEARCHER)
    centre.tick()
    centre.admission.put_person(Person("researcher", ("lab",)))
    centre.tick(2 * MINUTE)
    assert tickets(centre) == []
    standing = centre.admission.standing_now("t1")
    assert standing.over is not None
    assert (standing.over.why, standing.over.facts["facts"]["pool"]) == ("not-a-member", "univ")


# -- extending ---------------------------------------------------------------------------------------------------------------


def test_more_time_as_far_as_nobody_waits_for_it(centre: Centre) -> None:
    full(centre)
    extension = centre.admission.extend_now("l1", 30, "student")
    assert extension is not None
    assert (extension.objection, centre.lease("l1").ends_at) == (None, START + 90 * MINUTE)
    look = centre.admission.extend_now("l1", 30, "student", only_look=True)
    assert look is not None
    assert (look.lease.ends_at, centre.lease("l1").ends_at) == (START + 120 * MINUTE, START + 90 * MINUTE)
    ask(centre, "t1", RESEARCHER)
    refused = centre.admission.extend_now("l1", 30, "student")
    assert refused is not None
    assert refused.objection == Wait(Code.OTHERS_WAITING, {"pool": "univ"})
    assert centre.lease("l1").ends_at == START + 90 * MINUTE
    assert [entry.kind for entry in centre.entries(lease="l1")].count(EntryKind.EXTENDED) == 1
    assert centre.admission.extend_now("no such lease", 30, "student") is None


def test_a_longest_time_cuts_what_is_added(centre: Centre) -> None:
    centre.start("l1", minutes=60)
    extension = centre.admission.extend_now("l1", 24 * 60, "student")
    assert extension is not None
    assert (extension.lease.ends_at, extension.cut_by) == (
        START + 12 * HOUR,
        {"kind": "session", "pool": "univ"},
    )
