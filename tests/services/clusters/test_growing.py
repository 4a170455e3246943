"""What a Dask cluster holds follows its wish, on both databases."""

from __future__ import annotations

from collections.abc import Collection

from hub_ext.core.decision import Admit, Code, Refuse, Wait
from hub_ext.core.people import Person
from hub_ext.quota.growing import Granted
from hub_ext.quota.model import SCHEDULER, WORKER, Ask, Lease
from hub_ext.quota.service import run
from tests.services.desk.centre import HOUR, START, Centre

STUDENT = Person("student", ("univ",))
ONE_GPU = {"gpu.h200": 1000}


def start(
    centre: Centre, name: str = "c1", person: Person = STUDENT, pool: str = "univ", minutes: int = 240
) -> Lease:
    ask = Ask(name, person.name, pool, {"cpu": 1000}, kind=SCHEDULER, minutes=minutes, server=name)
    answer = centre.admission.start_cluster_now(person, ask)
    assert answer.lease is not None, answer.decision
    return answer.lease


def unit(person: Person = STUDENT, pool: str = "univ", gpus: int = 1, **more: object) -> Ask:
    return Ask("any", person.name, pool, {"gpu.h200": 1000 * gpus}, kind=WORKER, **more)  # type: ignore[arg-type]


def grant(
    centre: Centre, wish: int, name: str = "c1", in_use: Collection[str] = (), person: Person = STUDENT
) -> Granted:
    return centre.admission.grant_now(name, person, unit(person), wish, in_use)


def test_what_fits_is_booked_guaranteed_first_and_the_rest_waits(centre_on_each: Centre) -> None:
    centre = centre_on_each
    scheduler = start(centre)
    granted = grant(centre, 5)
    assert [lease.guaranteed for lease in granted.leases] == [True, True, False]
    assert {(one.kind, one.server) for one in granted.leases} == {(WORKER, "c1")}
    assert all(one.ends_at <= scheduler.ends_at for one in granted.leases)
    assert granted.ticket is not None and granted.ticket.wanted == 2
    assert isinstance(granted.objection, Wait) and granted.objection.code is Code.POOL_FULL
