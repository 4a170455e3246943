"""The ledger in a database: entries, leases, sums and what stands beside them, read and written, never judged.

`SqlStore` is the `Store` of `hub_ext.quota.ports`. A booking excludes every other booking, so that sums are written
as plain values: what was read is still true. `LoadedSums` sees to it that only what was read is ever written.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from hub_ext.core.clock import Instant
from hub_ext.core.errors import BadInput
from hub_ext.db import tables
from hub_ext.db.engine import booking, reading
from hub_ext.db.upgrade import check
from hub_ext.quota.ledger import Charge, Entry, EntryKind, Ledger, lease_facts, lease_of
from hub_ext.quota.model import Grant, Lease, Policy
from hub_ext.quota.ports import UsageRow
from hub_ext.quota.records_centre import CentreRows
from hub_ext.quota.records_hours import HoursRows
from hub_ext.quota.records_waiting import WaitingRows
from hub_ext.quota.sums import KEPT_BY_REFOLD, SumKey, Sums

TURN_SECONDS: Final = 1.0
FIRST_FEW: Final = 10
MANY: Final = 200
"""Mostly one of the first leases to end is what is looked for; where none is, all are looked at."""
ALWAYS_LOADED: Final = frozenset({"taken", "starting", "starts"})


class NotLoaded(LookupError):
    """A mistake in the program: a sum was used that its ledger was not loaded for, and would be written wrong."""


class LoadedSums(Sums):
    """The sums of some pools and people; any other key raises NotLoaded instead of counting as zero.

    `pools` None means everything. Iterating yields what was loaded.
    """

    def __init__(
        self, values: Mapping[SumKey, int], pools: Iterable[str] | None, people: Iterable[str] = ()
    ) -> None:
        super().__init__(values)
        self._pools = None if pools is None else frozenset(pools)
        self._people = frozenset(people) | {""}
        self.owner: object = None
        """The transaction that loaded them."""
        self.saves = 0
        """How often that had saved sums when these were current."""

    def __getitem__(self, key: SumKey) -> int:
        self._look(key)
        return super().__getitem__(key)

    def __setitem__(self, key: SumKey, value: int) -> None:
        self._look(key)
        super().__setitem__(key, value)

    def copy(self) -> LoadedSums:
        copied = LoadedSums(self._values, self._pools, self._people)
        copied.owner, copied.saves = self.owner, self.saves
        return copied

    def _look(self, key: SumKey) -> None:
        if self._pools is None or key.kind in ALWAYS_LOADED:
            return
        if key.pool not in self._pools:
            raise NotLoaded(
                f"{key}: the ledger was loaded for the pools {sorted(self._pools)}; name this one as well"
            )
        if key.kind != "drawn" and key.person not in self._people:
            people = sorted(self._people - {""})
            raise NotLoaded(f"{key}: the ledger was loaded for the people {people}; name this one as well")


class SqlStore:
    """The store of the quota on SQLite or PostgreSQL.

    `load_policy` reads the text of a policy document; it is asked only when the document in force has changed.
    Safe to share between threads.
    """

    def __init__(self, engine: Engine, *, load_policy: Callable[[str], Policy]) -> None:
        self._engine = engine
        self._load_policy = load_policy
        # Replaced as a whole: two threads may both read a new document, neither sees half of one.
        self._loaded: tuple[str, Policy] | None = None
        self._turn = threading.Lock()

    @contextmanager
    def booking(self) -> Iterator[SqlTransaction]:
        with self._in_turn(), booking(self._engine) as connection:
            yield SqlTransaction(connection, self._policy_of, may_write=True)

    @contextmanager
    def reading(self) -> Iterator[SqlTransaction]:
        with reading(self._engine) as connection:
            yield SqlTransaction(connection, self._policy_of, may_write=False)

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Let the threads of one process wait for each other here: SQLite's own way to wait is to sleep and try again, longer
        each time. Whoever waits in vain leaves it to the database.
        """
        is_mine = self._engine.dialect.name == "sqlite" and self._turn.acquire(timeout=TURN_SECONDS)
        try:
            yield
        finally:
            if is_mine:
                self._turn.release()

    def check_schema(self) -> None:
        check(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    def _policy_of(self, digest: str, read_text: Callable[[], str]) -> Policy:
        loaded = self._loaded
        if loaded is None or loaded[0] != digest:
            loaded = self._loaded = (digest, self._load_policy(read_text()))
        return loaded[1]


class SqlTransaction(HoursRows, WaitingRows, CentreRows):
    """The `Transaction` of one block; not for two threads, and not for use after its block."""

    def __init__(
        self,
        connection: Connection,
        policy_of: Callable[[str, Callable[[], str]], Policy],
        *,
        may_write: bool,
    ) -> None:
        self._connection = connection
        self._policy_of = policy_of
        self._may_write = may_write
        self._policy: Policy | None = None
        self._digest: str | None = None
        self._saves = 0
        self._stored_grants: set[str] = set()

    @property
    def connection(self) -> Connection:
        """For what the desk's pages read beside this, from the same snapshot."""
        return self._connection

    # -- the policy in force ------------------------------------------------------------------------------

    @property
    def policy(self) -> Policy:
        """Raises BadInput where no policy was ever put in force; `policy_digest` is empty then."""
        if self._policy is None:
            columns = tables.policies.c
            number, digest = self._newest_policy()
            if not number:
                raise BadInput("no policy was put in force in this database yet; load one first")
            text = select(columns.text).where(columns.id == number)
            self._policy = self._policy_of(digest, lambda: str(self._connection.execute(text).scalar_one()))
        return self._policy

    @property
    def policy_digest(self) -> str:
        if self._digest is None:
            _, self._digest = self._newest_policy()
        return self._digest

    def _newest_policy(self) -> tuple[int, str]:
        columns = tables.policies.c
        newest = select(columns.id, columns.digest).order_by(columns.id.desc()).limit(1)
        row = self._connection.execute(newest).first()
        return (row.id, row.digest) if row else (0, "")

    def put_policy(self, text: str, policy: Policy, sums: Sums, *, now: Instant, who: str) -> None:
        self._must_write()
        digest = hashlib.sha256(text.encode()).hexdigest()
        row = {"at": now, "who": who, "text": text, "digest": digest}
        self._connection.execute(insert(tables.policies), row)
        self._connection.execute(delete(tables.sums).where(tables.sums.c.kind.not_in(KEPT_BY_REFOLD)))
        self._write_sums(dict(sums.items()))
        self._saves += 1
        self._policy, self._digest = policy, digest

    # -- ledger and leases ----------------------------------------------------------------------------------

    def latest(self) -> Instant:
        return self._connection.scalar(select(func.max(tables.entries.c.at))) or 0

    def ledger(self, pools: Iterable[str] | None, people: Iterable[str] = ()) -> Ledger:
        names = None if pools is None else sorted(set(pools))
        persons = sorted(set(people))
        grants = self._grants(None if names is None else tables.grants.c.pool.in_(names))
        self._stored_grants |= {grant.id for grant in grants}
        columns = tables.sums.c
        query = select(
            columns.kind, columns.pool, columns.item, columns.person, columns.period, columns.value
        )
        if names is not None:
            # What a grant paid is kept under its id, where other sums have the person.
            whose = ["", *persons, *(grant.id for grant in grants)]
            query = query.where(
                or_(columns.pool == "", and_(columns.pool.in_(names), columns.person.in_(whose)))
            )
        values = {SumKey(*row[:5]): row[5] for row in self._connection.execute(query)}
        sums = LoadedSums(values, names, persons)
        sums.owner, sums.saves = self, self._saves
        return Ledger(self.policy, sums, grants)

    def save(self, ledger: Ledger, leases: Iterable[Lease]) -> None:
        """As the port says, and the ledger's lists are empty afterwards.

        Raises ValueError, before anything is written, for a ledger of another transaction, for one that was
        overtaken by the save of another, and for an entry whose lease is not among `leases`.
        """
        self._must_write()
        rows = {lease.id: lease for lease in leases}
        sums = self._own_sums(ledger)
        told = {
            entry.lease for entry in ledger.entries if entry.lease and entry.kind is not EntryKind.DECIDED
        }
        if unsaved := sorted(told - rows.keys()):
            raise ValueError(
                f"entries were written for leases that are not saved with them: {', '.join(unsaved)}"
            )
        changes = sums.take_changes()
        if changes:
            if sums.saves != self._saves:
                raise ValueError(
                    "sums were saved since this ledger was loaded; load it again before changing it"
                )
            sums.saves = self._saves = self._saves + 1

        self._write_sums(changes)
        self._upsert(tables.leases, [lease_facts(lease) for lease in rows.values()], key=("id",))
        self._insert(tables.entries, [_entry_row(entry) for entry in ledger.entries])
        self._add_charges(ledger.charges)
        new_grants = [grant for grant in ledger.grants if grant.id not in self._stored_grants]
        self._insert(tables.grants, [asdict(grant) for grant in new_grants])
        self._stored_grants |= {grant.id for grant in new_grants}
        ledger.entries.clear()
        ledger.charges.clear()

    def lease(self, lease_id: str) -> Lease | None:
        found = self._leases(tables.leases.c.id == lease_id)
        return found[0] if found else None

    def live_leases(self, *, person: str | None = None, pools: Iterable[str] | None = None) -> list[Lease]:
        conditions = [tables.live]
        if person is not None:
            conditions.append(tables.leases.c.person == person)
        if pools is not None:
            conditions.append(tables.leases.c.pool.in_(sorted(set(pools))))
        return self._leases(*conditions)

    def live_by_end(self, after: tuple[Instant, str] | None = None, limit: int | None = None) -> list[Lease]:
        limit = limit or (FIRST_FEW if after is None else MANY)
        columns = tables.leases.c
        query = select(tables.leases).where(tables.live).order_by(columns.ends_at, columns.id).limit(limit)
        if after is not None:
            query = query.where(tuple_(columns.ends_at, columns.id) > after)
        return [lease_of({**row}) for row in self._connection.execute(query).mappings()]

    def all_leases(self) -> list[Lease]:
        return self._leases()

    def borrowed_leases(self, pools: Iterable[str]) -> list[Lease]:
        return self._leases(tables.borrowed, tables.leases.c.pool.in_(sorted(set(pools))))

    def seen(self, lease_ids: Iterable[str], now: Instant) -> None:
        self._must_write()
        wanted = tables.live & tables.leases.c.id.in_(sorted(set(lease_ids)))
        self._connection.execute(update(tables.leases).where(wanted).values(seen_at=now))

    def grants(self) -> list[Grant]:
        return self._grants(None)

    def entries(
        self, *, after: int = 0, limit: int = 1000, lease: str | None = None
    ) -> list[tuple[int, Entry]]:
        query = (
            select(tables.entries)
            .where(tables.entries.c.id > after)
            .order_by(tables.entries.c.id)
            .limit(limit)
        )
        if lease is not None:
            query = query.where(tables.entries.c.lease == lease)
        return [_entry(row) for row in self._connection.execute(query).mappings()]

    # -- what was used --------------------------------------------------------------------------------------

    def charges(self) -> list[tuple[Lease, date, int]]:
        return [(row.lease, row.day, row.units) for row in self._usage(None)]

    def usage(self, first: date, last: date) -> list[UsageRow]:
        return self._usage(tables.usage_days.c.day.between(first, last))

    # -- inside -----------------------------------------------------------------------------------------------

    def _must_write(self) -> None:
        if not self._may_write:
            raise ValueError("a reading transaction writes nothing; write in `store.booking()`")

    def _own_sums(self, ledger: Ledger) -> LoadedSums:
        sums = ledger.sums
        if not isinstance(sums, LoadedSums):
            raise ValueError("only a ledger that `transaction.ledger()` loaded can be saved")
        if sums.owner is not self:
            raise ValueError("this ledger was loaded in another transaction; its sums may have changed since")
        return sums

    def _write_sums(self, values: Mapping[SumKey, int]) -> None:
        columns = tables.sums.c
        rows = [key._asdict() | {"value": value} for key, value in values.items() if value]
        self._upsert(tables.sums, rows, key=("pool", "person", "kind", "item", "period"))
        gone = [
            {f"old_{name}": part for name, part in key._asdict().items()}
            for key, value in values.items()
            if not value
        ]
        if gone:
            is_row = and_(*(columns[name] == bindparam(f"old_{name}") for name in SumKey._fields))
            self._connection.execute(delete(tables.sums).where(is_row), gone)

    def _add_charges(self, charges: Sequence[Charge]) -> None:
        days: dict[tuple[str, date], list[int]] = {}
        for charge in charges:
            day = days.setdefault((charge.lease, charge.day), [0, 0])
            day[0] += charge.units
            day[1] += charge.seconds
        rows = [
            {"lease": lease, "day": day, "units": units, "seconds": seconds}
            for (lease, day), (units, seconds) in days.items()
        ]
        self._upsert(tables.usage_days, rows, key=("lease", "day"), added=("units", "seconds"))

    def _insert(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            self._connection.execute(insert(table), rows)

    def _upsert(
        self,
        table: Table,
        rows: Sequence[Mapping[str, Any]],
        *,
        key: tuple[str, ...],
        added: tuple[str, ...] = (),
        kept: tuple[str, ...] = (),
    ) -> None:
        """Insert the rows, or replace those that are there: `added` columns add up, `kept` ones stay."""
        if rows:
            dialect = self._connection.dialect.name
            self._connection.execute(_upsert_into(table, dialect, key, added, kept), rows)

    def _insert_or(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        return _insert_into(table, self._connection.dialect.name)

    def _leases(self, *conditions: ColumnElement[bool]) -> list[Lease]:
        query = (
            select(tables.leases).where(*conditions).order_by(tables.leases.c.booked_at, tables.leases.c.id)
        )
        return [lease_of({**row}) for row in self._connection.execute(query).mappings()]

    def _grants(self, condition: ColumnElement[bool] | None) -> list[Grant]:
        query = select(tables.grants).order_by(tables.grants.c.made_at, tables.grants.c.id)
        if condition is not None:
            query = query.where(condition)
        return [Grant(**row) for row in self._connection.execute(query).mappings()]

    def _usage(self, condition: ColumnElement[bool] | None) -> list[UsageRow]:
        """By day, then lease. A lease is read once, however many days it ran."""
        days = tables.usage_days
        query = select(days).order_by(days.c.day, days.c.lease)
        whose = select(days.c.lease)
        if condition is not None:
            query, whose = query.where(condition), whose.where(condition)
        leases = {lease.id: lease for lease in self._leases(tables.leases.c.id.in_(whose))}
        return [
            UsageRow(row.day, leases[row.lease], row.units, row.seconds)
            for row in self._connection.execute(query)
        ]


def _insert_into(table: Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    """An insert that knows what to do about a row that is there already."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


@cache
def _upsert_into(
    table: Table, dialect: str, key: tuple[str, ...], added: tuple[str, ...], kept: tuple[str, ...]
) -> sqlite.Insert | postgresql.Insert:
    statement = _insert_into(table, dialect)
    changed = {
        column.name: column + statement.excluded[column.name]
        if column.name in added
        else statement.excluded[column.name]
        for column in table.columns
        if column.name not in key and column.name not in kept
    }
    if changed:
        return statement.on_conflict_do_update(index_elements=key, set_=changed)
    return statement.on_conflict_do_nothing(index_elements=key)


def _entry_row(entry: Entry) -> dict[str, Any]:
    return {
        "at": entry.at,
        "kind": entry.kind.value,
        "lease": entry.lease,
        "pool": entry.pool,
        "person": entry.person,
        "who": entry.who,
        "why": entry.why,
        "facts": dict(entry.facts),
    }


def _entry(row: Mapping[Any, Any]) -> tuple[int, Entry]:
    values = dict(row)
    number = values.pop("id")
    return number, Entry(**values | {"kind": EntryKind(values["kind"])})
