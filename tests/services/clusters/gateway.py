"""What a gateway does with the quota, by hand: it starts clusters, runs their workers, and sees them gone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hub_ext.core.people import Person
from hub_ext.quota.growing import ClusterLeases, Granted
from hub_ext.quota.ledger import Entry, EntryKind
from hub_ext.quota.model import SCHEDULER, WORKER, Ask, Lease, LeaseState, Ticket
from hub_ext.quota.service import Answer, run
from tests.services.desk.centre import STUDENT, Centre

RESEARCHER, OWNER = Person("researcher", ("univ",)), Person("owner", ("lab",))
BOOKED, RUNNING, ENDING, RELEASED = (
    LeaseState.BOOKED,
    LeaseState.RUNNING,
    LeaseState.ENDING,
    LeaseState.RELEASED,
)


def ask_for_cluster(
    centre: Centre, name: str, person: Person = STUDENT, *, minutes: int | None = 240, **amounts: int
) -> Answer:
    """The person signed in before. `cpu` and others in base units."""
    centre.admission.put_person(person)
    amounts = amounts or {"cpu": 1000}
    ask = Ask(name, person.name, person.pools[0], amounts, kind=SCHEDULER, minutes=minutes, server=name)
    return centre.admission.start_cluster_now(person, ask)


def start_cluster(centre: Centre, name: str = "c1", person: Person = STUDENT, **more: Any) -> Lease:
    """Its scheduler runs."""
    answer = ask_for_cluster(centre, name, person, **more)
    assert answer.lease is not None, answer.decision
    return start(centre, answer.lease)


def unit(person: Person = STUDENT, gpus: int = 1, **more: Any) -> Ask:
    return Ask("unused", person.name, person.pools[0], {"gpu.h200": 1000 * gpus}, kind=WORKER, **more)


def grant(
    centre: Centre,
    wish: int,
    name: str = "c1",
    person: Person = STUDENT,
    *,
    in_use: Collection[str] = (),
    **more: Any,
) -> Granted:
    return centre.admission.grant_now(name, person, unit(person, **more), wish, in_use)


def start(centre: Centre, lease: Lease) -> Lease:
    """A process of it runs."""
    process = centre.world.start(lease.id, centre.clock.at)
    started = centre.admission.change(lease.id, run(process.handle, process.node))
    assert started is not None
    return started


def gone(centre: Centre, lease: Lease, why: str = "") -> None:
    """The gateway saw its process gone."""
    centre.world.kill(lease.id)
    centre.admission.release_now(lease.id, "gateway", why)


def cluster(centre: Centre, name: str = "c1") -> ClusterLeases:
    return centre.admission.clusters_now([name]).get(name, ClusterLeases(None, (), None))


def ticket(centre: Centre, name: str = "c1") -> Ticket:
    found = cluster(centre, name).ticket
    assert found is not None
    return found


def states(centre: Centre, name: str = "c1") -> list[LeaseState]:
    return [lease.state for lease in cluster(centre, name).workers]


def told(centre: Centre, about: str) -> list[Entry]:
    """The entries about a ticket."""
    return centre.entries(EntryKind.DECIDED, lease=about)
