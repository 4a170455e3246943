"""Laws of the line, service and clock together, under any sequence of asks, ends, kills and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub_ext.core.people import Person
from hub_ext.desk.picture import Picture
from hub_ext.quota.model import Ask, Lease, LeaseState, Outlook, Ticket
from hub_ext.quota.service import run
from tests.services.desk.centre import POLICY, Centre
from tests.services.store.city import check_laws

PEOPLE = [Person("student", ("univ",)), Person("researcher", ("univ",)), Person("owner", ("lab",))]
OTHER_POLICY = POLICY.replace("nominal: 2", "nominal: 1").replace('nominal: 1}}\n"', 'nominal: 2}}\n"')

asks = st.tuples(
    st.just("ask"),
    st.integers(0, 2),
    st.sampled_from(["a", "b"]),
    st.integers(0, 3),
    st.sampled_from([15, 60, 600]),
)
events = st.one_of(
    asks,
    st.tuples(st.just("end"), st.integers(0, 5)),
    st.tuples(st.just("no-room"), st.integers(0, 5)),
    st.tuples(st.just("leave"), st.integers(0, 5)),
    st.tuples(st.just("claim"), st.integers(0, 5)),
    st.tuples(st.just("extend"), st.integers(0, 5)),
    st.tuples(st.just("pass"), st.sampled_from([1, 2, 61, 601, 1000, 3600])),
    st.just(("look",)),
    st.just(("kill the clock",)),
    st.just(("policy",)),
)


@dataclass
class Morning:
    """Does one thing after the other; the hub starts at once what it is asked to."""

    centre: Centre
    number: int = 0
    kept: Picture = field(default_factory=Picture)
    other: bool = False

    def do(self, event: tuple[Any, ...]) -> None:
        what, *more = event
        getattr(self, "do_" + what.replace(" ", "_").replace("-", "_"))(*more)
        self.obey()

    def do_ask(self, who: int, server: str, gpus: int, minutes: int) -> None:
        person, self.number = PEOPLE[who], self.number + 1
        running = {
            (lease.person, lease.server) for lease in self.live() if lease.state is not LeaseState.BOOKED
        }
        if (person.name, server) in running:
            return  # the hub starts nothing that runs
        self.centre.admission.admit_now(
            person,
            Ask(
                f"a{self.number}",
                person.name,
                person.pools[0],
                {"gpu.h200": gpus * 1000},
                minutes=minutes,
                server=server,
            ),
            {"profile": f"with {gpus}"},
        )

    def do_end(self, index: int) -> None:
        if lease := self.pick(LeaseState.RUNNING, index):
            self.centre.order_end(lease.id, "stopped", lease.person)
            self.gone(lease)
            self.centre.admission.release_now(lease.id, lease.person, "stopped")

    def do_no_room(self, index: int) -> None:
        if lease := self.pick(LeaseState.BOOKED, index):
            self.centre.order_end(lease.id, "no-room", lease.person)
            self.gone(lease)
            self.centre.admission.release_now(lease.id, lease.person, "no-room")

    def do_leave(self, index: int) -> None:
        with self.centre.store.reading() as txn:
            tickets = txn.tickets()
        if tickets:
            ticket = tickets[index % len(tickets)]
            self.centre.admission.leave_now(ticket.id, ticket.ask.person)

    def do_claim(self, index: int) -> None:
        if lease := self.pick(LeaseState.RUNNING, index):
            self.centre.admission.change(lease.id, lambda ledger, one, now: ledger.claim(one, now))

    def do_extend(self, index: int) -> None:
        if lease := self.pick(LeaseState.RUNNING, index):
            extension = self.centre.admission.extend_now(lease.id, 45, lease.person)
            assert extension is not None
            assert lease.noticed_for is None or extension.objection is not None

    def do_pass(self, seconds: int) -> None:
        self.centre.tick(seconds)

    def do_look(self) -> None:
        self.centre.clockwork.serve_if_anything_is_new()

    def do_kill_the_clock(self) -> None:
        self.centre.clockwork = self.centre.another_clock(f"clock {self.number}")
        self.centre.clock.at += 11

    def do_policy(self) -> None:
        self.other = not self.other
        self.centre.load(OTHER_POLICY if self.other else POLICY)

    # -- the hub and the world ------------------------------------------------------------------------------------

    def obey(self) -> None:
        """What is booked starts, once the hub was asked to: by the person at the gate, or by the clock."""
        for lease in self.live():
            if lease.state is LeaseState.BOOKED and self.number % 2:
                process = self.centre.world.start(lease.id, self.centre.clock.at)
                self.centre.hub.known[lease.person, lease.server] = None
                self.centre.hub.leases[lease.person, lease.server] = lease.id
                self.centre.admission.change(lease.id, run(process.handle, process.node))

    def gone(self, lease: Lease) -> None:
        self.centre.world.kill(lease.id)
        self.centre.hub.known.pop((lease.person, lease.server), None)

    def live(self) -> list[Lease]:
        with self.centre.store.reading() as txn:
            return txn.live_leases()

    def pick(self, state: LeaseState, index: int) -> Lease | None:
        found = [lease for lease in self.live() if lease.state is state]
        return found[index % len(found)] if found else None

    # -- the laws ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        with self.centre.store.reading() as txn:
            leases, tickets = txn.live_leases(), txn.tickets()
            self.kept.refresh(txn, self.centre.clock.at)
            fresh = Picture()
            fresh.refresh(txn, self.centre.clock.at)
        servers = Counter((lease.person, lease.server) for lease in leases)
        assert max(servers.values(), default=0) <= 1, "two leases for one server"
        waits = Counter((ticket.ask.person, ticket.ask.server) for ticket in tickets)
        assert max(waits.values(), default=0) <= 1, "two tickets for one server"
        assert not servers.keys() & waits.keys(), "one server both runs and waits"
        assert not any(lease.guaranteed and lease.noticed_for for lease in leases)
        assert unseen(self.kept.leases) == unseen(fresh.leases)
        assert unlooked(self.kept.tickets) == unlooked(fresh.tickets)
        assert self.kept.sums() == fresh.sums()
        check_laws(self.centre.store)


def unseen(leases: dict[str, Lease]) -> dict[str, Lease]:
    """When a server was last seen alive is written without an entry."""
    return {name: replace(lease, seen_at=None) for name, lease in leases.items()}


def unlooked(tickets: dict[str, Ticket]) -> dict[str, Ticket]:
    """How a ticket stands is written without an entry as well: by the clock, which knows it then."""
    return {name: replace(ticket, outlook=Outlook("")) for name, ticket in tickets.items()}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(events, min_size=4, max_size=25))
def test_whatever_happens_sums_are_right_and_no_server_is_there_twice(
    make_centre: Callable[[], Centre], happens: list[tuple[Any, ...]]
) -> None:
    centre = make_centre()
    for person in PEOPLE:
        centre.admission.put_person(person)
    morning = Morning(centre)
    for event in happens:
        morning.do(event)
        morning.check()
    # Left alone, everything comes to rest, and a tick more does nothing.
    for _ in range(3):
        centre.tick(2)
    before = [replace(lease, seen_at=None) for lease in centre.leases()]
    centre.tick(0)
    assert [replace(lease, seen_at=None) for lease in centre.leases()] == before
