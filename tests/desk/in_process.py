"""The desk as an application in this process: real records, a hub that says whose a token is, and streams read by hand."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from fastapi import FastAPI

from hub_ext.auth.roles import ROLES
from hub_ext.core.people import Person
from hub_ext.desk.access import SCOPES
from hub_ext.desk.app import create_app
from hub_ext.desk.auth import COOKIE, HUB_SESSION, Session, sealed
from hub_ext.desk.desk import Desk
from hub_ext.desk.hub_api import HubAway
from hub_ext.desk.hub_login import HubLogin, Identity
from hub_ext.profiles.catalogue import Catalogue
from hub_ext.profiles.loader import Known, load_profiles
from hub_ext.profiles.service import Profiles
from hub_ext.quota.document import parse_policy
from hub_ext.quota.service import Admission
from hub_ext.quota.store import SqlStore
from tests.support.databases import Database
from tests.support.fakes import HandClock, ObedientHub, ObedientWorld

ROOT = Path(__file__).resolve().parents[2]
POLICY = (ROOT / "policy" / "pools.yaml").read_text(encoding="utf-8")
NOW = 1_804_000_000
KEY = b"a key of tests, which signs what is kept in browsers"
EVERYTHING = frozenset({"access:services!service=desk", *SCOPES})
PEOPLE = (
    Person("student", ("hangang-univ",), frozenset({"student"})),
    Person("researcher", ("hangang-univ", "hangang-vision"), frozenset({"researcher"})),
    Person("lead", ("city-traffic",), frozenset({"lead"})),
    Person("operator", ("naru-robotics",), frozenset({"operator"})),
)


class KnowingHub(HubLogin):
    """Knows the token `token-NAME` of everybody; may be away, and forget a token."""

    def __init__(self) -> None:
        super().__init__("http://hub.invalid/hub/api", "service-desk", "t", "/services/desk/oauth_callback")
        self.identities = {f"token-{one.name}": Identity(one.name, EVERYTHING, "s1") for one in PEOPLE}
        self.away = False

    async def identity(self, token: str) -> Identity | None:
        if self.away:
            raise HubAway("The hub does not answer")
        return self.identities.get(token)


@contextmanager
def away(database: Database) -> Iterator[None]:
    """The file is somewhere else for a while."""
    path, elsewhere = Path(database.plain), Path(database.plain + ".away")
    path.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(path)


@dataclass
class DeskInProcess:
    desk: Desk
    hub: KnowingHub
    app: FastAPI

    @classmethod
    def on(cls, database: Database) -> DeskInProcess:
        store = SqlStore(database.engine(), load_policy=parse_policy)
        admission = Admission(store, HandClock(NOW))
        admission.load_policy(POLICY, parse_policy(POLICY), who="test")
        for person in PEOPLE:
            admission.put_person(person)
        catalogue = Catalogue.of(load_profiles(ROOT / "spawner_profiles", Known(None, tuple(ROLES))))
        hub = KnowingHub()
        desk = Desk(admission, Profiles(admission, catalogue), ObedientHub(ObedientWorld()), hub, KEY)
        return cls(desk, hub, create_app(desk))

    def session(self, name: str) -> tuple[dict[str, str], str]:
        """The headers of a browser where this person is signed in, and what its forms carry."""
        nonce = secrets.token_urlsafe(8)
        value = str(sealed(self.desk, "session").dumps([f"token-{name}", nonce]))
        headers = {"Cookie": f"{COOKIE}={value}; {HUB_SESSION}=s1", "Accept": "text/html"}
        return headers, Session(f"token-{name}", nonce).csrf(KEY)

    @asynccontextmanager
    async def browser(self, name: str = "", **headers: str) -> AsyncIterator[httpx.AsyncClient]:
        own = self.session(name)[0] if name else {"Accept": "text/html"}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://desk", headers=own | headers
        ) as client:
            yield client

    @asynccontextmanager
    async def stream(self, name: str, path: str, **headers: str) -> AsyncIterator[Stream]:
        own, csrf = self.session(name)
        stream = Stream(self.app, f"{path}?_csrf={csrf}", own | headers)
        stream.task = asyncio.create_task(stream.run())
        try:
            yield stream
        finally:
            stream.close()
            await asyncio.wait({stream.task}, timeout=10)
            stream.task.cancel()


@dataclass(eq=False)
class Stream:
    """One open stream, read by hand. `blocked`: it takes nothing more, as a browser that never reads."""

    app: FastAPI
    target: str
    headers: dict[str, str]
    blocked: bool = False
    status: int = 0
    task: asyncio.Task[None] = field(init=False)
    _chunks: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)
    _closed: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: bool = False

    async def run(self) -> None:
        parts = urlsplit(self.target)
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in self.headers.items()],
            "client": ("192.0.2.1", 1),
            "server": ("desk", 80),
        }
        try:
            await self.app(scope, self._receive, self._send)
        finally:
            await self._chunks.put(None)

    async def events(self) -> AsyncIterator[tuple[str, str]]:
        """(event, data) as they come; comments are passed over."""
        text = ""
        while (chunk := await asyncio.wait_for(self._chunks.get(), 20)) is not None:
            text += chunk.replace("\r\n", "\n")
            while "\n\n" in text:
                block, _, text = text.partition("\n\n")
                fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
                if "event" in fields:
                    yield fields["event"], fields.get("data", "")

    async def next(self) -> tuple[str, str]:
        return await anext(self.events())

    def close(self) -> None:
        """The browser goes away."""
        self._closed.set()

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._closed.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if self.blocked:
            await asyncio.Event().wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            await self._chunks.put(message.get("body", b"").decode())
