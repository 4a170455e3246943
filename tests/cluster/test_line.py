"""More people at once than may start, or than there are GPUs: nobody is sent away, everybody is in line, nothing is lost.

Servers are pods on pretended nodes, ready three seconds after they got theirs; hub, proxy, desk and control plane are
real.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from hub_ext.quota.codes import TicketEnd
from hub_ext.quota.model import Ticket
from tests.support.cluster import Cluster
from tests.support.crowd import POLICY, Crowd, crowd
from tests.support.desk import records
from tests.support.hub import wait_for
from tests.support.kube_hub import GATEWAY

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PEOPLE = 120
STARTS = 8
"""Far fewer than start at once here, so that there is a line before every start."""


@pytest.fixture(scope="module")
def shared(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    with cluster.pretended_nodes(8, "--gpus", "16"):
        cluster.program("pretended-pods", "--ready-after", "3", "--address", GATEWAY)
        try:
            with (
                cluster.namespace(**{"pod-security.kubernetes.io/enforce": "restricted"}) as namespace,
                crowd(tmp_path_factory.mktemp("crowd"), cluster, namespace, PEOPLE, starts=STARTS) as people,
            ):
                yield people
        finally:
            cluster.program("pretended-pods")


@pytest.fixture
def people(shared: Crowd) -> Iterator[Crowd]:
    """A hub without servers and without a line, with a GPU for everybody."""
    there_are(shared, PEOPLE)
    yield shared
    shared.stop_all()


def there_are(people: Crowd, gpus: int) -> None:
    """The policy says so, and is in force."""
    text = POLICY % {"starts": STARTS, "gpus": gpus}
    (people.hub.folder / "pools.yaml").write_text(text)

    def in_force() -> bool:
        with records(people.hub) as store, store.reading() as txn:
            return txn.policy.pools["crowd"].quota["gpu.h200"].nominal == gpus * 1000

    wait_for(in_force, "the policy is in force")


def click(people: Crowd) -> None:
    """Everybody, at once, once. Returns when each is decided: has a lease, or a ticket."""
    for answer in people.click_all():
        # 202: a hub that has much to do answers before it is decided.
        assert answer.status_code in (201, 202, 409), "nobody is told to come again"
        if answer.status_code == 409:
            assert answer.headers["Retry-After"]
            assert "/services/desk/tickets/" in answer.headers["Location"]
    wait_for(
        lambda: {lease["person"] for lease in people.hub.leases()} | in_the_line(people) == set(people.names),
        "everybody has a lease or a ticket",
    )


def in_the_line(people: Crowd) -> set[str]:
    return {ticket.ask.person for ticket in people.waiting()}


def newest_entry(people: Crowd) -> int:
    with records(people.hub) as store, store.reading() as txn:
        return txn.newest_entry()


def turns(people: Crowd, after: int) -> set[str]:
    """The tickets whose turn came after that entry."""
    with records(people.hub) as store, store.reading() as txn:
        entries = txn.entries(after=after, limit=100_000)
    return {str(entry.lease) for _, entry in entries if entry.why == TicketEnd.TURN}


def in_line(people: Crowd, number: int) -> list[Ticket]:
    """All who wait, in their order, once so many have a place."""

    def placed() -> list[Ticket]:
        found = people.waiting()
        return found if len(found) == number and all(one.outlook.place for one in found) else []

    found = wait_for(placed, f"{number} are in line")
    return sorted(found, key=lambda one: one.outlook.place or 0)


def test_everybody_is_served_though_few_may_start_at_once(people: Crowd) -> None:
    before = newest_entry(people)
    click(people)
    # Nobody clicks again.
    people.wait_until_ready(people.names)
    wait_for(people.one_to_one, "leases and pods are one to one", 30)
    assert people.waiting() == []
    waited = turns(people, before)
    assert waited, "there was a line"
    assert waited <= {lease["id"] for lease in people.hub.leases()}, "whoever waited has what the ticket said"


def test_with_gpus_for_half_of_them_the_others_stand_in_line_with_place_and_reason(people: Crowd) -> None:
    half = PEOPLE // 2
    there_are(people, half)
    hub = people.hub.child("hub").pid
    click(people)
    tickets = in_line(people, PEOPLE - half)
    wait_for(lambda: len(people.ready()) == half, "half of them are served", 120)
    tickets = in_line(people, PEOPLE - half)
    assert [ticket.outlook.place for ticket in tickets] == list(range(1, PEOPLE - half + 1))
    assert {ticket.outlook.code for ticket in tickets} == {"pool-full"}
    assert (people.hub.child("hub").pid, people.hub.answers()) == (hub, True)
    # Some stop: those who are first in line are next, and the others move up.
    served = people.ready()
    for name in sorted(served)[:10]:
        people.stop(name)
    first = {ticket.ask.person for ticket in tickets[:10]}
    wait_for(lambda: people.ready() - served == first, "the first ten of the line are served", 60)
    moved = in_line(people, PEOPLE - half - 10)
    assert [ticket.id for ticket in moved] == [ticket.id for ticket in tickets[10:]]
    wait_for(people.one_to_one, "leases and pods are one to one", 30)


def test_hub_and_desk_are_killed_in_the_middle_of_it_and_everybody_is_served(people: Crowd) -> None:
    before = {name: people.hub.child(name).pid for name in ("hub", "desk")}
    click(people)
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    for name, pid in before.items():
        wait_for(lambda name=name, pid=pid: people.hub.child(name).pid != pid, f"the {name} is started again")
    # Nobody clicks again.
    people.wait_until_ready(people.names, 240)
    wait_for(people.one_to_one, "leases and pods are one to one", 60)
    assert len(people.hub.leases()) == PEOPLE
    assert people.waiting() == []
