"""A small centre and its clock: a real store; time, world and hub moved by hand."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import event

from hub_ext.core.people import Person
from hub_ext.desk.clockwork import Clockwork
from hub_ext.quota.document import parse_policy
from hub_ext.quota.ledger import Entry, EntryKind
from hub_ext.quota.model import Ask, Lease
from hub_ext.quota.service import Admission, end, run
from hub_ext.quota.store import SqlStore
from tests.support.databases import Database
from tests.support.fakes import HandClock, ObedientHub, ObedientWorld

MINUTE, HOUR = 60, 3600
START = int(datetime.fromisoformat("2027-03-02T09:00:00+09:00").timestamp())
GPU_SECOND = 1000 * 1000
"""Cost units of one GPU for one second."""
TABLES = (
    *("entries", "leases", "usage_days", "sums", "grants", "policies", "people", "nodes", "leaders"),
    *("tickets", "reservations", "requests"),
)

STUDENT = Person("student", ("univ",))

POLICY = """
version: 1
timezone: Asia/Seoul
gpu_classes: {h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}}
pools:
  seoul:
    session: {min: 15m, max: 12h, protected: 30m, notice: 10m, grace: 30m}
  univ:
    parent: seoul
    quota: {gpu.h200: {nominal: 2}}
    budgets: [{hours: 100, period: day}]
  lab:
    parent: seoul
    quota: {gpu.h200: {nominal: 1}}
"""
"""`univ` owns two GPUs and may borrow the lab's."""


@dataclass
class Centre:
    store: SqlStore
    database: Database
    clock: HandClock
    admission: Admission
    world: ObedientWorld
    hub: ObedientHub
    clockwork: Clockwork

    # -- what people and the hub do ------------------------------------------------------------------------------

    def book(
        self, name: str = "l1", *, person: str = "student", server: str | None = None, **more: Any
    ) -> Lease:
        """The hub passed the gate, nothing runs yet. `gpus` (1), `pool` (univ), `minutes`."""
        server = name if server is None else server
        pool, gpus = more.pop("pool", "univ"), more.pop("gpus", 1)
        ask = Ask(name, person, pool, {"gpu.h200": gpus * 1000}, server=server, **more)
        answer = self.admission.admit_now(Person(person, (pool,)), ask)
        assert answer.lease is not None, answer.decision
        self.hub.known[person, server] = "spawn"
        self.hub.leases[person, server] = name
        return answer.lease

    def start(self, name: str = "l1", **more: Any) -> Lease:
        """The hub started a server and wrote it down."""
        lease = self.book(name, **more)
        process = self.world.start(name, self.clock.at)
        self.hub.known[lease.person, lease.server] = None
        started = self.admission.change(name, run(process.handle, process.node))
        assert started is not None
        return started

    def order_end(self, name: str = "l1", why: str = "stopped", who: str = "student") -> None:
        self.admission.change(name, end(who, why))

    def forget(self, name: str) -> None:
        """The hub no longer knows the server of this lease."""
        for server, lease in self.hub.leases.items():
            if lease == name:
                self.hub.known.pop(server, None)

    def load(self, text: str) -> None:
        self.admission.load_policy(text, parse_policy(text), who="operator")

    # -- time ---------------------------------------------------------------------------------------------------

    def tick(self, after: int = 0) -> bool:
        self.clock.at += after
        return self.clockwork.tick()

    def another_clock(self, name: str = "another", **more: Any) -> Clockwork:
        parts: dict[str, Any] = {"world": self.world, "servers": self.hub, "starts_seconds": None, **more}
        return Clockwork(self.admission, holder=name, **parts)

    # -- what there is --------------------------------------------------------------------------------------------

    def lease(self, name: str = "l1") -> Lease:
        with self.store.reading() as txn:
            found = txn.lease(name)
        assert found is not None
        return found

    def leases(self) -> list[Lease]:
        with self.store.reading() as txn:
            return txn.all_leases()

    def entries(self, *kinds: EntryKind, lease: str | None = None) -> list[Entry]:
        with self.store.reading() as txn:
            return [
                entry
                for _, entry in txn.entries(limit=100_000, lease=lease)
                if not kinds or entry.kind in kinds
            ]

    def seconds_charged(self, name: str = "l1") -> int:
        (seconds,) = self.database.run(f"SELECT sum(seconds) FROM usage_days WHERE lease = '{name}'")[0]
        return int(str(seconds or 0))

    def units_charged(self, name: str = "l1") -> int:
        with self.store.reading() as txn:
            return sum(units for lease, _, units in txn.charges() if lease.id == name)

    def everything(self) -> dict[str, list[tuple[object, ...]]]:
        """All tables, row by row."""
        return {table: sorted(self.database.run(f"SELECT * FROM {table}"), key=repr) for table in TABLES}


def new_store(database: Database) -> SqlStore:
    engine = database.engine()
    if database.kind == "sqlite":
        event.listen(engine, "connect", _do_not_wait_for_the_disk)
    return SqlStore(engine, load_policy=parse_policy)


def new_centre(database: Database, store: SqlStore) -> Centre:
    """A centre that begins with an empty ledger, whatever its database held."""
    database.run(*(f"DELETE FROM {table}" for table in ("usage_days", "reported", *TABLES)))
    clock, world = HandClock(START), ObedientWorld()
    hub = ObedientHub(world)
    admission = Admission(store, clock)
    clockwork = Clockwork(admission, world, hub, holder="first", starts_seconds=None)
    centre = Centre(store, database, clock, admission, world, hub, clockwork)
    centre.load(POLICY)
    return centre


class Copy:
    """What a centre was at one moment, to go on from there more than once (SQLite only)."""

    def __init__(self, centre: Centre, path: Path) -> None:
        self.centre, self.path = centre, path
        self._parts = deepcopy((centre.clock, centre.world, centre.hub))
        centre.database.run(f"VACUUM INTO '{path}'")

    def centre_anew(self) -> Centre:
        with (
            closing(sqlite3.connect(self.path)) as copied,
            closing(sqlite3.connect(self.centre.database.plain)) as now,
        ):
            copied.backup(now)
        clock, world, hub = deepcopy(self._parts)
        admission = Admission(self.centre.store, clock)
        clockwork = Clockwork(admission, world, hub, holder="first", starts_seconds=None)
        return Centre(self.centre.store, self.centre.database, clock, admission, world, hub, clockwork)


def _do_not_wait_for_the_disk(connection: sqlite3.Connection, _: object) -> None:
    """A lost test database is no loss."""
    connection.execute("PRAGMA synchronous = OFF")
