"""Laws of Dask clusters, quota and clock together, under any sequence of wishes, ends, servers and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub_ext.core.people import Person
from hub_ext.desk.clusters import extend_cluster
from hub_ext.desk.picture import Picture
from hub_ext.quota.cluster import ClusterLeases, never_ran, of_a_cluster
from hub_ext.quota.growing import Granted
from hub_ext.quota.model import SCHEDULER, SERVER, WORKER, Ask, Lease, LeaseState, Outlook, Ticket
from hub_ext.quota.service import run
from tests.services.desk.centre import Centre
from tests.services.store.city import check_laws

POLICY = """
version: 1
timezone: Asia/Seoul
gpu_classes: {h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}}
queue: {patience: 15m}
pools:
  seoul:
    session: {min: 15m, max: 12h, protected: 30m, notice: 10m, grace: 30m}
  univ:
    parent: seoul
    quota: {gpu.h200: {nominal: 3}, cpu: {nominal: 2}}
    budgets: [{hours: 60, period: day}]
    person: {dask-workers: 4}
  lab:
    parent: seoul
    quota: {gpu.h200: {nominal: 2}, cpu: {nominal: 1}}
"""
GPUS, CORES, CAP = 5000, 3000, 4
PEOPLE = [Person("student", ("univ",)), Person("researcher", ("univ",)), Person("owner", ("lab",))]
CLUSTERS = {"c1": PEOPLE[0], "c2": PEOPLE[0], "c3": PEOPLE[1], "c4": PEOPLE[2]}

names = st.sampled_from(sorted(CLUSTERS))
index = st.integers(0, 9)
events = st.one_of(
    st.tuples(st.just("start"), names, st.sampled_from([15, 60, 600])),
    st.tuples(st.just("wish"), names, st.one_of(st.integers(-1, 6), st.just(10**9)), st.booleans()),
    st.tuples(st.just("wish"), names, st.integers(1, 6), st.booleans()),
    st.tuples(st.just("run"), index),
    st.tuples(st.just("die"), index),
    st.tuples(st.just("end"), names),
    st.tuples(st.just("extend"), names, st.sampled_from([1, 45, 600])),
    st.tuples(st.just("server"), st.integers(0, 2), st.sampled_from(["a", "b"]), st.integers(0, 3)),
    st.tuples(st.just("stop"), index),
    st.tuples(st.just("pass"), st.sampled_from([1, 2, 61, 601, 1000, 3600])),
    st.just(("look",)),
)


@dataclass
class Day:
    """Does one thing after the other."""

    centre: Centre
    number: int = 0
    kept: Picture = field(default_factory=Picture)
    wishes: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    """By cluster: no more workers than this are explained by its last wish and what it held then."""
    ids: dict[str, str] = field(default_factory=dict)

    def do(self, event: tuple[Any, ...]) -> None:
        self.number += 1
        getattr(self, f"do_{event[0]}")(*event[1:])

    # -- clusters ---------------------------------------------------------------------------------------------------

    def do_start(self, slot: str, minutes: int) -> None:
        if slot in self.ids and self.cluster(slot).scheduler is not None:
            return
        name, person = f"{slot}-{self.number}", CLUSTERS[slot]
        ask = Ask(name, person.name, person.pools[0], {"cpu": 1000}, SCHEDULER, minutes=minutes, server=name)
        lease = self.centre.admission.start_cluster_now(person, ask).lease
        if lease is not None:
            self.ids[slot], self.most[slot] = name, 0
            self.start(lease)

    def do_wish(self, slot: str, wish: int, in_use: bool) -> None:
        if slot not in self.ids:
            return
        used = [lease.id for lease in self.cluster(slot).workers] if in_use else []
        granted = self.grant(slot, wish, used)
        working = [lease for lease in granted.leases if lease.state is not LeaseState.ENDING]
        self.most[slot] = max(wish, len(working))
        if len(working) > wish:
            assert all(lease.id in used or not never_ran(lease) for lease in working), "unused goes back"
        waits = granted.ticket.wanted if granted.ticket is not None else 0
        if self.cluster(slot).is_up and wish <= 1000:
            assert len(working) + waits >= wish or granted.objection is not None
        assert (granted.objection is None) == (len(working) >= wish)
        before = self.centre.everything()
        again = self.grant(slot, wish, used)
        assert self.centre.everything() == before, "asked twice, granted once"
        assert again.leases == granted.leases

    def grant(self, slot: str, wish: int, used: list[str]) -> Granted:
        person = CLUSTERS[slot]
        unit = Ask("", person.name, person.pools[0], {"gpu.h200": 1000}, WORKER)
        return self.centre.admission.grant_now(self.ids[slot], person, unit, wish, used)

    def do_run(self, index: int) -> None:
        booked = [lease for lease in self.live() if lease.state is LeaseState.BOOKED]
        if booked:
            self.start(booked[index % len(booked)])

    def do_die(self, index: int) -> None:
        """A worker or a scheduler is gone, and the gateway saw it."""
        running = [lease for lease in self.live() if lease.kind != SERVER and lease.started_at is not None]
        if running:
            lease = running[index % len(running)]
            self.centre.world.kill(lease.id)
            self.centre.admission.release_now(lease.id, "gateway", "died")

    def do_end(self, slot: str) -> None:
        if slot in self.ids:
            self.centre.admission.end_cluster_now(self.ids[slot], "student", "stopped")
            cluster = self.cluster(slot)
            assert cluster.ticket is None
            assert {lease.state for lease in cluster.workers} <= {LeaseState.ENDING}
            self.most[slot] = 0

    def do_extend(self, slot: str, minutes: int) -> None:
        if slot in self.ids:
            extend_cluster(self.centre.store, self.centre.clock.at, self.ids[slot], minutes, "student")

    def cluster(self, slot: str) -> ClusterLeases:
        name = self.ids[slot]
        return self.centre.admission.clusters_now([name]).get(name, ClusterLeases(None, (), None))

    # -- servers, and time --------------------------------------------------------------------------------------------

    def do_server(self, who: int, server: str, gpus: int) -> None:
        person = PEOPLE[who]
        if any((one.kind, one.person, one.server) == (SERVER, person.name, server) for one in self.live()):
            return
        amounts = {"gpu.h200": gpus * 1000}
        ask = Ask(f"s{self.number}", person.name, person.pools[0], amounts, minutes=60, server=server)
        self.centre.admission.admit_now(person, ask)

    def do_stop(self, index: int) -> None:
        servers = [lease for lease in self.live() if lease.kind == SERVER]
        if servers:
            lease = servers[index % len(servers)]
            self.centre.world.kill(lease.id)
            self.centre.hub.known.pop((lease.person, lease.server), None)
            self.centre.admission.release_now(lease.id, lease.person, "stopped")

    def do_pass(self, seconds: int) -> None:
        self.centre.tick(seconds)

    def do_look(self) -> None:
        self.centre.clockwork.serve_if_anything_is_new()

    def start(self, lease: Lease) -> None:
        process = self.centre.world.start(lease.id, self.centre.clock.at)
        if lease.kind == SERVER:
            self.centre.hub.known[lease.person, lease.server] = None
            self.centre.hub.leases[lease.person, lease.server] = lease.id
        self.centre.admission.change(lease.id, run(process.handle, process.node))

    def live(self) -> list[Lease]:
        with self.centre.store.reading() as txn:
            return txn.live_leases()

    # -- the laws -------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        with self.centre.store.reading() as txn:
            leases, tickets = txn.live_leases(), txn.tickets()
            self.kept.refresh(txn, self.centre.clock.at)
            fresh = Picture()
            fresh.refresh(txn, self.centre.clock.at)
        self.check_quota(leases)
        self.check_tickets(tickets)
        assert not any(lease.guaranteed and lease.noticed_for for lease in leases)
        for slot, name in self.ids.items():
            cluster = self.cluster(slot)
            assert cluster.outliving == []
            working = [lease for lease in cluster.workers if lease.state is not LeaseState.ENDING]
            assert len(working) <= self.most[slot], "the clock gives no more than was wished for"
            assert len({lease.id for lease in leases if lease.id == name}) <= 1
        assert unseen(self.kept.leases) == unseen(fresh.leases)
        assert unlooked(self.kept.tickets) == unlooked(fresh.tickets)
        assert self.kept.sums() == fresh.sums()
        check_laws(self.centre.store)

    def check_quota(self, leases: list[Lease]) -> None:
        held: Counter[str] = Counter()
        for lease in leases:
            held.update(lease.amounts)
        assert held["gpu.h200"] <= GPUS
        assert held["cpu"] <= CORES
        workers = Counter(lease.person for lease in leases if lease.kind == WORKER and lease.pool == "univ")
        assert max(workers.values(), default=0) <= CAP

    def check_tickets(self, tickets: list[Ticket]) -> None:
        grows = [ticket for ticket in tickets if of_a_cluster(ticket.ask)]
        counted = Counter(ticket.ask.server for ticket in grows)
        assert max(counted.values(), default=0) <= 1, "two tickets for one cluster"
        assert not any(ticket.ask.kind == SCHEDULER for ticket in tickets)
        for ticket in grows:
            assert ticket.wanted >= 1
            eta = ticket.outlook.eta
            assert eta is None or eta.kind != "latest" or ticket.outlook.reclaims, "it holds by patience"


def unseen(leases: dict[str, Lease]) -> dict[str, Lease]:
    """When something was last seen alive is written without an entry."""
    return {name: replace(lease, seen_at=None) for name, lease in leases.items()}


def unlooked(tickets: dict[str, Ticket]) -> dict[str, Ticket]:
    """How a ticket stands is written without an entry as well: by the clock, which knows it then."""
    return {name: replace(ticket, outlook=Outlook("")) for name, ticket in tickets.items()}


def a_day(centre: Centre) -> Day:
    centre.load(POLICY)
    for person in PEOPLE:
        centre.admission.put_person(person)
    return Day(centre)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(events, min_size=4, max_size=25))
def test_no_sequence_of_wishes_gets_more_than_the_quota_has(
    make_centre: Callable[[], Centre], happens: list[tuple[Any, ...]]
) -> None:
    day = a_day(make_centre())
    for event in happens:
        day.do(event)
        day.check()
    # When every cluster was ended, and what ran is gone, nothing of them is left.
    for slot in list(day.ids):
        day.do_end(slot)
    day.centre.world.processes.clear()
    for _ in range(3):
        day.centre.tick(2)
    assert day.centre.admission.clusters_now() == {}
    day.check()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(events, min_size=4, max_size=25))
def test_left_alone_everything_comes_to_rest(
    make_centre: Callable[[], Centre], happens: list[tuple[Any, ...]]
) -> None:
    day = a_day(make_centre())
    for event in happens:
        day.do(event)
    for _ in range(4):
        day.centre.tick(2)
        for lease in day.live():
            if lease.state is LeaseState.BOOKED:
                day.start(lease)
    before = [replace(lease, seen_at=None) for lease in day.centre.leases()]
    day.centre.tick(0)
    assert [replace(lease, seen_at=None) for lease in day.centre.leases()] == before
