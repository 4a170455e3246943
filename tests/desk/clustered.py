"""The lively centre with Dask clusters in it: started, granted and running as the gateway would have them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import httpx

from hub_ext.auth.roles import LEAD
from hub_ext.clusters.model import ClusterCatalogue, ClusterProfile
from hub_ext.core.people import Person
from hub_ext.desk.hub_login import Identity
from hub_ext.quota.document import parse_policy
from hub_ext.quota.growing import Granted
from hub_ext.quota.model import SCHEDULER, WORKER, Ask, Lease
from hub_ext.quota.service import run
from hub_ext.quota.store import SqlStore
from tests.desk.in_process import EVERYTHING, KnowingHub
from tests.desk.lively import NEIGHBOUR, OPERATOR_PERSON, STUDENT, Lively
from tests.support.databases import Database

CLUSTER = "c0ffee00c0ffee00c0ffee00c0ffee00"
ANOTHER = "decade00decade00decade00decade00"
LEAD_PERSON = Person("lead", ("univ",), frozenset({LEAD}))
API = "/services/desk/api/v1"


CATALOGUE = ClusterCatalogue.of(
    ClusterProfile(
        slug=slug,
        title=title,
        description={},
        worker=worker,
        scheduler={"cpu": 1000, "memory": memory},
        threads=1,
        order=order,
        most_workers=most,
        minutes=(60, 120, 240, 480),
        default_minutes=120,
    )
    for order, slug, title, worker, memory, most in (
        (1, "cpu", {"en": "CPU workers", "ko": "CPU 워커"}, {"cpu": 2000, "memory": 8192}, 2048, 16),
        (
            2,
            "slice",
            {"en": "GPU slice workers", "ko": "GPU 조각 워커"},
            {"gpu.h200-1g": 1000, "cpu": 4000, "memory": 32768},
            4096,
            8,
        ),
        (
            3,
            "gpu",
            {"en": "GPU workers", "ko": "GPU 워커"},
            {"gpu.h200": 1000, "cpu": 8000, "memory": 98304},
            8192,
            8,
        ),
    )
)


@dataclass
class Clustered(Lively):
    clusters: ClusterCatalogue = field(default=CATALOGUE)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.admission.put_person(LEAD_PERSON)
        self.login = KnowingHub()
        people = (STUDENT, NEIGHBOUR, OPERATOR_PERSON, LEAD_PERSON)
        self.login.identities = {f"token-{one.name}": Identity(one.name, EVERYTHING, "s1") for one in people}

    def start_cluster(
        self, name: str = CLUSTER, person: Person = STUDENT, *, profile: str = "slice", minutes: int = 120
    ) -> Lease:
        """Its scheduler runs."""
        scheduler, _ = self._asks(name, person, profile, minutes)
        answer = self.admission.start_cluster_now(person, scheduler)
        assert answer.lease is not None, answer.decision
        lease = self.admission.change(name, run(f"scheduler-{name}"))
        assert lease is not None
        return lease

    def grow(
        self,
        wish: int,
        name: str = CLUSTER,
        person: Person = STUDENT,
        *,
        profile: str = "slice",
        minutes: int = 120,
        running: bool = True,
    ) -> Granted:
        """The workers that it is granted run (or start)."""
        _, unit = self._asks(name, person, profile, minutes)
        granted = self.admission.grant_now(name, person, unit, wish, ())
        for lease in granted.leases if running else ():
            self.admission.change(lease.id, run(f"worker-{lease.id}"))
        return granted

    def workers(self, name: str = CLUSTER) -> list[Lease]:
        return list(self.admission.clusters_now([name])[name].workers)

    def program(self, person: Person, language: str = "en") -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app()),
            base_url=f"http://desk{API}",
            headers={"authorization": f"token token-{person.name}", "accept-language": language},
        )

    def _asks(self, name: str, person: Person, profile: str, minutes: int) -> tuple[Ask, Ask]:
        """What the scheduler takes, and what each worker does."""
        size = self.clusters.get(profile)
        assert size is not None
        scheduler = Ask(
            name, person.name, person.pools[0], size.scheduler, SCHEDULER, profile, minutes, server=name
        )
        return scheduler, replace(scheduler, kind=WORKER, amounts=size.worker)


def clustered(database: Database) -> Clustered:
    return Clustered(SqlStore(database.engine(), load_policy=parse_policy), database)
