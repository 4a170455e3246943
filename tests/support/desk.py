"""A person at the desk over HTTP, as a browser would; and tickets put straight into a hub's records."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx

from hub_ext.core.clock import SystemClock
from hub_ext.db.engine import make_engine
from hub_ext.quota.document import parse_policy
from hub_ext.quota.model import Ask, Eta, Outlook, Ticket
from hub_ext.quota.store import SqlStore
from tests.support.hub import EmbeddedHub, Visitor

DESK = "/services/desk"
API = f"{DESK}/api/v1"


class AtTheDesk(Visitor):
    """Signed in at the hub; the desk signs them in when they first come."""

    def page(self, path: str = "/mine", **kwargs: Any) -> httpx.Response:
        return self.http.get(f"{DESK}{path}", **kwargs)

    @property
    def csrf(self) -> str:
        found = re.search(r'name="hangang-csrf" content="([0-9a-f]+)"', self.page().text)
        assert found is not None, "no page of the desk"
        return found[1]

    def post(self, path: str, csrf: str | None = None, **fields: str) -> httpx.Response:
        """Send a form."""
        fields["_csrf"] = self.csrf if csrf is None else csrf
        return self.http.post(f"{DESK}{path}", data=fields)

    def calls(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """The desk's API with this person's session."""
        headers = {"X-CSRF-Token": self.csrf, **kwargs.pop("headers", {})}
        return self.http.request(method, f"{API}{path}", headers=headers, **kwargs)

    def token(self, *scopes: str) -> str:
        """A token of theirs with these scopes."""
        made = self.api("POST", f"/users/{self.name}/tokens", json={"scopes": list(scopes), "note": "test"})
        assert made.status_code == 201, made.text
        return str(made.json()["token"])


def with_token(hub: EmbeddedHub, token: str, method: str, path: str, **kwargs: Any) -> httpx.Response:
    """The desk's API as a program calls it."""
    headers = {"Authorization": f"token {token}", **kwargs.pop("headers", {})}
    return httpx.request(
        method, f"{hub.url}{API}{path}", headers=headers, trust_env=False, timeout=30, **kwargs
    )


@contextmanager
def records(hub: EmbeddedHub) -> Iterator[SqlStore]:
    """The hub's own records."""
    store = SqlStore(make_engine(f"sqlite:///{hub.state / 'ledger.sqlite'}"), load_policy=parse_policy)
    try:
        yield store
    finally:
        store.close()


def a_ticket(name: str = "t1", person: str = "student", **changes: Any) -> Ticket:
    """Somebody who waits for more than there is: the clock leaves it where it is."""
    now = SystemClock().now()
    ask = Ask(
        name,
        person,
        changes.pop("pool", "hangang-univ"),
        changes.pop("amounts", {"gpu.h200": 1000, "cpu": 16000, "memory": 192 * 1024}),
        profile="h200",
        server=changes.pop("server", "waits"),
    )
    outlook = Outlook("person-at-cap", {}, place=3, eta=Eta(now + 3600, "latest"))
    return replace(Ticket(ask, now - 60, outlook), **changes)
