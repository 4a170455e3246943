"""A lively centre for the desk's pages: a real store with people, machines, leases and a history; and a visitor to look
at it, who is signed in already (the sign-in has tests of its own)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
from fastapi import FastAPI, Request

from hub_ext.auth.roles import OPERATOR
from hub_ext.clusters.model import ClusterCatalogue
from hub_ext.clusters.service import Clusters
from hub_ext.core.clock import HOUR, MINUTE
from hub_ext.core.people import Person
from hub_ext.desk.access import OPERATE, Access
from hub_ext.desk.app import create_app
from hub_ext.desk.auth import signed_in
from hub_ext.desk.desk import Desk, Site
from hub_ext.desk.hub_login import HubLogin
from hub_ext.desk.rendering import request_language
from hub_ext.desk.visitor import Visitor
from hub_ext.pages.words import speaker
from hub_ext.profiles.catalogue import Catalogue
from hub_ext.profiles.service import Profiles
from hub_ext.quota.document import parse_policy
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import Ask, Device, Eta, Lease, Node, Outlook, Ticket
from hub_ext.quota.service import Admission, end, run
from hub_ext.quota.store import SqlStore
from tests.support.builders import NOW, instant
from tests.support.databases import Database
from tests.support.fakes import HandClock

START = instant(NOW)
TOKEN = "the-token"
"""What their forms carry."""
TWO_DAYS_AGO = START - 48 * HOUR

POLICY = """\
version: 1
timezone: Asia/Seoul
gpu_classes:
  h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}
  h200-1g: {resource: nvidia.com/mig-1g.18gb, hours: "0.143", memory: 18Gi}
pools:
  seoul:
    title: {en: Seoul Hangang AI, ko: 서울 한강 AI}
    person: {servers: 3}
    session: {min: 15m, max: 12h, protected: 30m, notice: 10m, grace: 30m}
  univ:
    parent: seoul
    kind: institution
    title: {en: Hangang University, ko: 한강대학교}
    quota: {gpu.h200: {nominal: 2}, gpu.h200-1g: {nominal: 7}}
    person: {gpu.h200: 3, servers: 2}
    budgets: [{hours: 200, period: month, soft: 0.8}, {hours: 60, period: week, each: person}]
  lab:
    parent: seoul
    kind: institution
    title: {en: River Lab, ko: 강변 연구소}
    quota: {gpu.h200: {nominal: 6}}
"""

STUDENT = Person("student", ("univ",), frozenset({"student"}))
NEIGHBOUR = Person("neighbour", ("lab",), frozenset({"researcher"}))
OPERATOR_PERSON = Person("operator", ("seoul",), frozenset({OPERATOR}))
PEOPLE = (STUDENT, NEIGHBOUR, OPERATOR_PERSON)

NODES = (
    Node("gpu-1", {"gpu.h200": 4000, "cpu": 64000, "memory": 1 << 20}),
    Node("gpu-2", {"gpu.h200": 4000, "cpu": 64000, "memory": 1 << 20}),
    Node("gpu-3", {"gpu.h200": 2000, "cpu": 64000, "memory": 1 << 20}, ready=False),
    Node(
        "slices",
        {"gpu.h200-1g": 7000, "cpu": 64000, "memory": 1 << 20},
        tuple(Device(f"MIG-{number}", "h200-1g") for number in range(7)),
    ),
)


@dataclass
class Servers:
    """The hub, as it answers: what it was asked to stop, and how it fails."""

    stopped: list[tuple[str, str]] = field(default_factory=list)
    knows: bool = True
    error: Exception | None = None

    def stop(self, person: str, server: str) -> bool:
        if self.error is not None:
            raise self.error
        self.stopped.append((person, server))
        return self.knows

    def active(self) -> dict[tuple[str, str], str | None]:
        return {}

    def start(self, person: str, server: str, options: Mapping[str, Any] | None = None) -> None:
        raise AssertionError("no page starts a server by itself")


@dataclass
class Lively:
    store: SqlStore
    database: Database
    clock: HandClock = field(default_factory=lambda: HandClock(START))
    servers: Servers = field(default_factory=Servers)
    login: Any = field(default_factory=lambda: _NoLogin())
    """The hub's sign-in."""
    clusters: ClusterCatalogue = field(default_factory=ClusterCatalogue)

    def __post_init__(self) -> None:
        self.admission = Admission(self.store, self.clock)
        self.load(POLICY)
        self.admission.put_nodes(NODES)
        for person in PEOPLE:
            self.admission.put_person(person)

    def load(self, text: str, who: str = "operator") -> None:
        self.admission.load_policy(text, parse_policy(text), who=who)

    # -- what happens ----------------------------------------------------------------------------------------

    def book(
        self,
        name: str,
        person: Person = STUDENT,
        *,
        pool: str | None = None,
        minutes: int | None = 240,
        starting: bool = False,
        **gpus: float,
    ) -> Lease:
        """A server that runs (or starts), booked as the hub books it."""
        amounts = {f"gpu.{cls.replace('_', '-')}": int(count * 1000) for cls, count in gpus.items()}
        amounts |= {"cpu": 8000, "memory": 65536}
        ask = Ask(name, person.name, pool or person.pools[0], amounts, minutes=minutes, server=name)
        answer = self.admission.admit_now(person, ask)
        assert answer.lease is not None, answer.decision
        if starting:
            return answer.lease
        lease = self.admission.change(name, run(f"process-{name}"))
        assert lease is not None
        return lease

    def ending(self, name: str) -> None:
        self.admission.change(name, end("student", "stopped"))

    def take_back(self, name: str, at: int, ticket: str) -> None:
        def change(ledger: Ledger, lease: Lease, now: int) -> Lease:
            return ledger.take_back(lease, at, ticket, now)

        self.admission.change(name, change)

    def accrue(self, name: str) -> None:
        self.admission.change(name, lambda ledger, lease, now: ledger.accrue(lease, now))

    def wait(
        self,
        name: str,
        person: Person = STUDENT,
        *,
        place: int | None = 1,
        eta: Eta | None = None,
        **more: Any,
    ) -> Ticket:
        """Somebody in line, as the clock wrote it down."""
        facts: dict[str, Any] = {
            "pool": person.pools[0],
            "resource": "gpu.h200",
            "asked": 1000,
            "available": 0,
        }
        if more.get("code") == "no-node-free":
            facts = {"pool": person.pools[0], "asked": {"gpu.h200": 1000}, "nodes": 3}
        ask = Ask(
            name, person.name, person.pools[0], {"gpu.h200": 1000, "cpu": 8000}, server=name, minutes=120
        )
        outlook = Outlook(more.pop("code", "pool-full"), facts, place, eta)
        ticket = Ticket(ask, more.pop("made_at", self.clock.at - 5 * MINUTE), outlook, **more)
        with self.store.booking() as txn:
            txn.put_tickets([ticket])
        return ticket

    # -- who looks ------------------------------------------------------------------------------------------------

    def desk(self) -> Desk:
        return Desk(
            admission=self.admission,
            profiles=Profiles(self.admission, Catalogue.of([])),
            servers=self.servers,
            login=cast(HubLogin, self.login),
            key=b"k" * 32,
            site=Site(simulated=True),
            clusters=Clusters(self.admission, self.clusters),
        )

    def app(self, person: Person | None = None) -> FastAPI:
        """The desk's application, in which this person is signed in (None: whoever comes has to)."""
        app = create_app(self.desk())
        if person is None:
            return app

        async def somebody(request: Request) -> Visitor:
            with self.store.reading() as txn:
                policy = txn.policy
            say = speaker(policy, request_language(request))
            visitor = Visitor(person, Access(person, frozenset({OPERATE})), policy, say, TOKEN)
            request.state.visitor = visitor
            return visitor

        app.dependency_overrides[signed_in] = somebody
        return app

    def visit(self, person: Person, language: str = "en") -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app(person)),
            base_url="http://desk",
            headers={"accept": "text/html", "accept-language": language},
            timeout=60,
        )

    def lease(self, name: str) -> Lease:
        found = self.admission.find_now(name)
        assert found is not None
        return found


class _NoLogin:
    """Nobody signs in here."""

    async def close(self) -> None:
        return None


def lively(database: Database) -> Lively:
    """The centre with something of everything in it."""
    store = SqlStore(database.engine(), load_policy=parse_policy)
    made = Lively(store, database)
    made.clock.at = TWO_DAYS_AGO
    made.book("yesterday", h200=1, minutes=720)
    made.clock.at += 3 * HOUR
    made.accrue("yesterday")
    made.admission.release_now("yesterday", "student", "stopped")
    made.clock.at = START - 2 * HOUR
    made.book("train", h200=2)
    made.book("slice", NEIGHBOUR, h200=1, minutes=720)
    made.book("more", NEIGHBOUR, h200=4, minutes=300)
    made.clock.at = START - HOUR
    made.book("idle", h200=1, minutes=480)
    made.clock.at = START
    return made
