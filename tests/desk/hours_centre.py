"""A centre whose people ask for hours, and visitors to its desk who come in by the real door: a session's cookie or a token.

Only the hub behind the door is a stand-in: it knows whose token is whose.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from itsdangerous import URLSafeTimedSerializer
from starlette.testclient import TestClient

from hub_ext.core.people import Person
from hub_ext.desk.access import LEAD, OPERATE, READ
from hub_ext.desk.app import create_app
from hub_ext.desk.auth import COOKIE, Session, sealed
from hub_ext.desk.desk import PREFIX, Desk
from hub_ext.desk.hours import Draft, HoursRequests, Verdict
from hub_ext.desk.hub_login import HubLogin, Identity
from hub_ext.profiles.catalogue import Catalogue
from hub_ext.profiles.service import Profiles
from hub_ext.quota.codes import Ended
from hub_ext.quota.document import parse_policy
from hub_ext.quota.model import Ask, HoursRequest
from hub_ext.quota.service import Admission, run
from hub_ext.quota.store import SqlStore
from tests.services.hours.people import (
    CLASSMATE,
    EVERYBODY,
    FIRM_LEAD,
    HOUR_UNITS,
    SECTOR_LEAD,
    STUDENT,
    UNIV_LEAD,
    access,
    instant,
)
from tests.support.databases import Database
from tests.support.fakes import HandClock

NOW = instant("2027-03-10T09:00:00+09:00")
HOUR, DAY = 3600, 86400
KEY = b"a key of this test alone, 32 long"
NONCE = "nonce"

POLICY = """
version: 1
timezone: Asia/Seoul
gpu_classes:
  h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}
  h200-1g: {resource: nvidia.com/mig-1g.18gb, hours: "0.143", memory: 18Gi}
pools:
  seoul: {title: {en: Seoul Hangang AI, ko: 서울 한강 AI}, session: {min: 15m, max: 12h}}
  sector:
    parent: seoul
    title: {en: Public interest sector, ko: 공익 부문}
    quota: {gpu.h200: {nominal: 2}, cpu: {nominal: 128}}
    budgets: [{hours: 900, period: month, soft: 0.8}]
  univ:
    parent: sector
    title: {en: Hangang University, ko: 한강대학교}
    quota: {gpu.h200: {nominal: 2}, gpu.h200-1g: {nominal: 7}}
    budgets: [{hours: 50, period: week, soft: 0.8}, {hours: 20, period: week, each: person}]
  course:
    parent: univ
    title: {en: Introduction to AI (course), ko: 인공지능 입문(수업)}
    budgets: [{hours: 5, period: week, each: person}]
  firm:
    parent: seoul
    title: {en: Naru Robotics, ko: 나루로보틱스}
    quota: {gpu.h200: {nominal: 3}}
    budgets: [{hours: 40, period: week}]
"""


class Hub:
    """Knows whose token is whose; `token-of-NAME` has every scope, `token-of-NAME-that-reads` only one."""

    async def identity(self, token: str) -> Identity | None:
        name = token.removeprefix("token-of-").removesuffix("-that-reads")
        if not token.startswith("token-of-"):
            return None
        scopes = {READ} if token.endswith("-that-reads") else {READ, LEAD, OPERATE}
        return Identity(name, frozenset(scopes | {"access:services!service=desk"}))

    def forget(self, token: str) -> None:
        return None

    async def close(self) -> None:
        return None


@dataclass
class HoursCentre:
    store: SqlStore
    clock: HandClock = field(default_factory=lambda: HandClock(NOW))

    def __post_init__(self) -> None:
        self.admission = Admission(self.store, self.clock)
        self.hours = HoursRequests(self.admission)
        self.load(POLICY)
        for person in EVERYBODY:
            self.admission.put_person(person)
        self.desk = Desk(
            admission=self.admission,
            profiles=Profiles(self.admission, Catalogue.of([])),
            servers=cast(Any, None),
            login=cast(HubLogin, Hub()),
            key=KEY,
        )

    def load(self, text: str) -> None:
        self.admission.load_policy(text, parse_policy(text), who="operator")

    # -- what happens -----------------------------------------------------------------------------------------

    def start(
        self, name: str, person: Person, *, gpus: int = 1, minutes: int = 600, cls: str = "h200"
    ) -> None:
        amounts = {f"gpu.{cls}": gpus * 1000, "cpu": 8000, "memory": 65536}
        ask = Ask(name, person.name, person.pools[0], amounts, minutes=minutes, server=name, profile="large")
        answer = self.admission.admit_now(person, ask)
        assert answer.lease is not None, answer.decision
        self.admission.change(name, run(f"process of {name}", "n1"))

    def stop(self, name: str, why: str = Ended.PERSON.value) -> None:
        self.admission.release_now(name, "", why)

    def asked(self, person: Person, /, **more: Any) -> HoursRequest:
        values: dict[str, Any] = {
            "pool": "univ",
            "budget": "week:person",
            "person": person.name,
            "units": 12 * HOUR_UNITS,
            "until": NOW + 14 * DAY,
            "why": "The thesis is due on the 20th.",
        }
        outcome = self.hours.ask_now(access(person), Draft(**values | more))
        assert isinstance(outcome, HoursRequest), outcome
        return outcome

    def answered(self, request: HoursRequest, by: Person, verdict: Verdict) -> HoursRequest:
        outcome = self.hours.answer_now(access(by), request.id, verdict)
        assert isinstance(outcome, HoursRequest), outcome
        return outcome

    def stored(self, request_id: str) -> HoursRequest:
        with self.store.reading() as txn:
            found = txn.request(request_id)
        assert found is not None
        return found

    # -- who comes to the desk ----------------------------------------------------------------------------------

    def app(self) -> FastAPI:
        return create_app(self.desk)

    def cookie(self, person: Person) -> str:
        """A session of this person's, as the desk itself would have set it."""
        serializer: URLSafeTimedSerializer = sealed(self.desk, "session")
        return str(serializer.dumps([f"token-of-{person.name}", NONCE]))

    @property
    def csrf(self) -> str:
        return Session("", NONCE).csrf(KEY)

    def visit(self, person: Person, language: str = "en") -> TestClient:
        """A browser in which this person is signed in."""
        return TestClient(
            self.app(),
            headers={"accept": "text/html", "accept-language": language},
            cookies={COOKIE: self.cookie(person)},
            follow_redirects=False,
        )

    def call(self, person: Person, *, reads: bool = False) -> TestClient:
        """A program with this person's token."""
        token = f"token-of-{person.name}{'-that-reads' if reads else ''}"
        return TestClient(self.app(), headers={"authorization": f"Bearer {token}"}, follow_redirects=False)

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The desk at an address, for a real browser."""
        config = uvicorn.Config(self.app(), host="127.0.0.1", port=0, log_level="error", lifespan="on")
        server = uvicorn.Server(config)
        started = threading.Event()
        startup = server.startup

        async def tell(*arguments: Any, **named: Any) -> None:
            await startup(*arguments, **named)
            started.set()

        server.startup = tell  # type: ignore[method-assign]
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            assert started.wait(20), "the desk did not start"
            port = server.servers[0].sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}{PREFIX}"
        finally:
            server.should_exit = True
            thread.join(20)


def form_of(centre: HoursCentre, **fields: str) -> dict[str, str]:
    return {"_csrf": centre.csrf, **fields}


def hours_centre(database: Database) -> HoursCentre:
    """A centre with a week of use behind it: the university borrows from the firm, and people ask for hours."""
    centre = HoursCentre(SqlStore(database.engine(), load_policy=parse_policy))
    for day, gpus, hours in ((9, 1, 3), (7, 2, 2), (5, 1, 5), (3, 2, 4), (1, 1, 2)):
        centre.clock.at = NOW - day * DAY
        centre.start(f"run-{day}", STUDENT, gpus=gpus)
        centre.clock.at += hours * HOUR
        centre.stop(f"run-{day}")
    centre.clock.at = NOW - 2 * HOUR
    centre.start("thesis", STUDENT, gpus=1)
    centre.start("slice", CLASSMATE, cls="h200-1g")
    centre.start("large", UNIV_LEAD, gpus=3)
    centre.start("lent", SECTOR_LEAD, gpus=1)
    centre.clock.at = NOW - HOUR
    centre.start("robot", FIRM_LEAD, gpus=1)
    centre.clock.at = NOW
    return centre
