"""How long the desk's pages take in a large centre: `python -m bench.pages [--leases N] [--tickets N] [--rounds N]`.

The desk's application with a real ledger (SQLite, or PostgreSQL by `--database URL` with the hub's tables), asked in the same
process by somebody who is signed in already: server time without the network. The centre is that of `bench.clock`, and
has accrued for a while, so that the log is long.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import httpx
from fastapi import Request
from sqlalchemy import insert

from bench.clock import NOW, HandClock, Hub, fill
from hub_ext.auth.roles import OPERATOR
from hub_ext.core.people import Person
from hub_ext.db import tables
from hub_ext.db.engine import make_engine
from hub_ext.db.upgrade import upgrade
from hub_ext.desk.access import OPERATE, Access
from hub_ext.desk.app import create_app
from hub_ext.desk.auth import signed_in
from hub_ext.desk.desk import PREFIX, Desk
from hub_ext.desk.visitor import Visitor
from hub_ext.pages.words import speaker
from hub_ext.profiles.catalogue import Catalogue
from hub_ext.profiles.service import Profiles
from hub_ext.quota.document import parse_policy
from hub_ext.quota.service import Admission
from hub_ext.quota.store import SqlStore

ACCRUED = 300_000
"""Entries of hours that accrued, between which all others have to be found."""
PAGES = (
    "mine",
    "centre",
    "centre?page=20",
    "centre/queue",
    "centre/queue?page=30",
    "centre/decisions",
    "centre/decisions?person=person-7",
    "centre/decisions?person=nobody",
    "centre/policy",
    "centre/what-if",
)


class NoLogin:
    async def close(self) -> None:
        return None


def application(admission: Admission, hub: Hub, person: Person) -> Any:
    """The desk, in which this person is signed in."""
    desk = Desk(
        admission=admission,
        profiles=Profiles(admission, Catalogue.of([])),
        servers=cast(Any, hub),
        login=cast(Any, NoLogin()),
        key=b"benchmark of the pages, no secret",
    )
    app = create_app(desk)
    with admission.store.reading() as txn:
        policy = txn.policy

    def somebody(request: Request) -> Visitor:
        visitor = Visitor(
            person, Access(person, frozenset({OPERATE})), policy, speaker(policy, "ko"), "not checked here"
        )
        request.state.visitor = visitor
        return visitor

    somebody.__annotations__ = {"request": Request}
    app.dependency_overrides[signed_in] = somebody
    return app


def long_log(store: SqlStore, leases: int) -> None:
    """What running leases accrue every five minutes."""
    with store.booking() as txn:
        rows = [
            {
                "at": NOW - ACCRUED + number,
                "kind": "accrued",
                "lease": f"l{number % leases:05}",
                "pool": "pool-0-0",
                "person": f"person-{number % leases}",
                "who": "",
                "why": "",
                "facts": {"until": NOW - ACCRUED + number, "units": 300_000_000},
            }
            for number in range(ACCRUED)
        ]
        txn.connection.execute(insert(tables.entries), rows)


async def measure(app: Any, rounds: int) -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://desk", headers={"Accept": "text/html"}
    ) as client:
        for page in PAGES:
            took: list[float] = []
            used: list[float] = []
            size = 0
            for _ in range(rounds + 1):
                before, began = time.process_time(), time.perf_counter()
                answer = await client.get(f"{PREFIX}/{page}")
                took.append((time.perf_counter() - began) * 1000)
                used.append((time.process_time() - before) * 1000)
                if answer.status_code != 200:
                    raise SystemExit(f"{page}: {answer.status_code}")
                size = len(answer.content)
            took = sorted(took[1:])  # the first draws the template for the first time
            median, p95 = statistics.median(took), took[int(len(took) * 0.95)]
            cpu = statistics.median(used[1:])
            print(
                f"{page:36} median {median:5.0f} ms, p95 {p95:5.0f} ms; CPU {cpu:4.0f} ms; {size // 1024:4} KiB"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leases", type=int, default=5000)
    parser.add_argument("--tickets", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--database", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.database or f"sqlite:///{Path(folder) / 'ledger.sqlite'}"
        upgrade(url)
        store, hub = SqlStore(make_engine(url), load_policy=parse_policy), Hub()
        admission = Admission(store, HandClock(NOW))
        fill(admission, hub, given.leases, given.tickets)
        long_log(store, given.leases)
        with store.reading() as txn:
            busiest = txn.live_leases()[0].person
            pools = next(person.pools for person in txn.people() if person.name == busiest)
        operator = Person(busiest, pools, frozenset({OPERATOR}))
        asyncio.run(measure(application(admission, hub, operator), given.rounds))
        store.close()


if __name__ == "__main__":
    main()
