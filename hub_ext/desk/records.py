"""What the desk's pages read beside the quota's own records: few columns, few rows, from the same snapshot.

No page reads a row for each lease or ticket of the centre: what is long is read in pages, by a place to go on from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Protocol, cast

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, or_, select

from hub_ext.core.amounts import Amounts
from hub_ext.core.clock import Instant
from hub_ext.db import tables
from hub_ext.quota.ledger import Entry, EntryKind
from hub_ext.quota.model import SERVER, Ask, LeaseState, Outlook, Ticket
from hub_ext.quota.ports import Transaction

LARGEST_PAGE: Final = 500


class _OnTables(Protocol):
    @property
    def connection(self) -> Connection: ...


@dataclass(frozen=True, slots=True)
class Held:
    """A live lease, as a cell of the map shows it."""

    id: str
    person: str
    pool: str
    kind: str
    amounts: Amounts
    guaranteed: bool
    lender: str | None
    state: LeaseState
    ends_at: Instant
    noticed_at: Instant | None
    node: str | None
    devices: tuple[str, ...] = ()
    server: str = ""


@dataclass(frozen=True, slots=True)
class Total:
    """So many live leases of one pool and size; `standing` is guaranteed, borrowed or ending."""

    pool: str
    amounts: Amounts
    standing: str
    count: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A ticket, as a line of the queue shows it."""

    id: str
    person: str
    pool: str
    made_at: Instant
    code: str
    facts: Mapping[str, Any]
    place: int | None
    eta_at: Instant | None
    eta_kind: str | None
    reclaims: int
    amounts: Amounts
    kind: str
    profile: str | None
    server: str
    wanted: int
    put_back: bool


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries: those that say all of this. `kinds` empty: everything but what running leases accrue."""

    person: str = ""
    pool: str = ""
    lease: str = ""
    code: str = ""
    kinds: tuple[EntryKind, ...] = ()
    since: Instant | None = None
    before: Instant | None = None


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row of a page; the next begins behind it."""

    at: Instant
    number: int

    def __str__(self) -> str:
        return f"{self.at}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """None for what is no place in a list."""
        at, _, number = text.partition("-")
        if at.isdecimal() and number.isdecimal() and len(text) <= 40 and text.isascii():
            return cls(min(int(at), 1 << 62), min(int(number), 1 << 62))
        return None


@dataclass(frozen=True, slots=True)
class Version:
    """A policy document that was in force from `at` on."""

    number: int
    at: Instant
    who: str


@dataclass(frozen=True, slots=True)
class DayOfUse:
    """What somebody's leases accrued on one local date: cost units, by how they were admitted."""

    day: date
    guaranteed: int = 0
    borrowed: int = 0

    @property
    def units(self) -> int:
        return self.guaranteed + self.borrowed


@dataclass(frozen=True, slots=True)
class QueueFilter:
    pool: tuple[str, ...] = ()
    person: str = ""
    code: str = ""


@dataclass(frozen=True)
class Records:
    """Reads in one transaction."""

    connection: Connection

    @classmethod
    def of(cls, txn: Transaction) -> Records:
        return cls(cast(_OnTables, txn).connection)

    # -- leases -----------------------------------------------------------------------------------------------

    def held_on(self, nodes: Iterable[str]) -> list[Held]:
        """Live leases on these machines."""
        return self._held(tables.leases.c.node.in_(sorted(set(nodes))))

    def held_nowhere(self, limit: int) -> list[Held]:
        """Live leases whose machine is not known (yet)."""
        return self._held(tables.leases.c.node.is_(None), limit=limit)

    def totals(self) -> list[Total]:
        """How many live leases there are of each pool, size and standing: few rows, however many leases."""
        columns = tables.leases.c
        ending = or_(columns.noticed_at.is_not(None), columns.state == LeaseState.ENDING.value)
        standing = case((ending, "ending"), (columns.guaranteed, "guaranteed"), else_="borrowed")
        query = (
            select(columns.pool, columns.amounts, standing, func.count())
            .where(tables.live)
            .group_by(columns.pool, columns.amounts, standing)
        )
        return [Total(*row) for row in self.connection.execute(query)]

    def _held(self, condition: ColumnElement[bool], limit: int | None = None) -> list[Held]:
        columns = tables.leases.c
        wanted = [
            columns[name]
            for name in (
                "id", "person", "pool", "kind", "amounts", "guaranteed", "lender", "state", "ends_at", "noticed_at",
                "node", "devices", "server",
            )
        ]  # fmt: skip
        query = select(*wanted).where(tables.live, condition).order_by(columns.booked_at, columns.id)
        rows = self.connection.execute(query if limit is None else query.limit(limit)).mappings()
        return [
            Held(**{**row, "state": LeaseState(row["state"]), "devices": tuple(row["devices"])})
            for row in rows
        ]

    def use_of(self, person: str, first: date, last: date, since: Instant) -> dict[date, DayOfUse]:
        """By local date, what this person's leases accrued; `since` is the first instant of `first`."""
        days, leases = tables.usage_days, tables.leases.c
        found: dict[date, DayOfUse] = {}
        lately = and_(tables.over, leases.released_at >= since)
        for which in (tables.live, lately):
            query = (
                select(
                    days.c.day,
                    func.sum(case((leases.guaranteed, days.c.units), else_=0)),
                    func.sum(case((leases.guaranteed, 0), else_=days.c.units)),
                )
                .join(tables.leases, leases.id == days.c.lease)
                .where(leases.person == person, which, days.c.day.between(first, last))
                .group_by(days.c.day)
            )
            for day, guaranteed, borrowed in self.connection.execute(query):
                before = found.get(day, DayOfUse(day))
                found[day] = DayOfUse(
                    day, before.guaranteed + int(guaranteed), before.borrowed + int(borrowed)
                )
        return found

    # -- tickets ----------------------------------------------------------------------------------------------

    def count_waiting(self, which: QueueFilter | None = None) -> int:
        query = select(func.count()).select_from(tables.tickets)
        return int(self.connection.scalar(_queue(query, which or QueueFilter())) or 0)

    def waiting(self, which: QueueFilter, *, offset: int, limit: int) -> list[Waiting]:
        """Tickets by their place in line; those without a place behind, by age."""
        columns = tables.tickets.c
        query = _queue(select(tables.tickets), which).order_by(
            columns.place.is_(None), columns.place, columns.made_at, columns.id
        )
        rows = self.connection.execute(query.offset(offset).limit(limit))
        return [_waiting(row._mapping) for row in rows]

    def waiting_of(self, person: str) -> list[Waiting]:
        columns = tables.tickets.c
        query = select(tables.tickets).where(columns.person == person).order_by(columns.made_at, columns.id)
        return [_waiting(row._mapping) for row in self.connection.execute(query)]

    def waited_for(self, codes: Iterable[str]) -> list[Ticket]:
        """What is waited for: one ticket for each pool, code and size of servers, however many wait for the same."""
        columns = tables.tickets.c
        amounts, kind = columns.ask["amounts"], columns.ask["kind"].as_string()
        query = (
            select(columns.pool, columns.code, amounts, kind)
            .where(columns.code.in_(sorted(set(codes))))
            .distinct()
        )
        return [
            Ticket(Ask("", "", pool, size or {}, kind=kind or SERVER), 0, Outlook(code))
            for pool, code, size, kind in self.connection.execute(query)
        ]

    # -- the ledger -------------------------------------------------------------------------------------------

    def entries(self, which: EntryFilter, *, after: Cursor | None, limit: int) -> list[tuple[int, Entry]]:
        """Entries from the newest on, each with its number."""
        columns = tables.entries.c
        query = select(tables.entries).where(*_entries(which))
        if after is not None:
            query = query.where(
                or_(columns.at < after.at, and_(columns.at == after.at, columns.id < after.number))
            )
        query = query.order_by(columns.at.desc(), columns.id.desc()).limit(limit)
        return [_entry(row._mapping) for row in self.connection.execute(query)]

    def notice_of(self, lease: str) -> str:
        """Why a lease was told to end, the last time it was."""
        told = self.entries(EntryFilter(lease=lease, kinds=(EntryKind.NOTICED,)), after=None, limit=1)
        return told[0][1].why if told else ""

    # -- the policy -------------------------------------------------------------------------------------------

    def versions(self, limit: int, *, before: int | None = None) -> list[Version]:
        """The documents that were in force (before that one), the newest first."""
        columns = tables.policies.c
        query = select(columns.id, columns.at, columns.who).order_by(columns.id.desc()).limit(limit)
        if before is not None:
            query = query.where(columns.id < before)
        return [Version(*row) for row in self.connection.execute(query)]

    def version(self, number: int) -> Version | None:
        columns = tables.policies.c
        query = select(columns.id, columns.at, columns.who).where(columns.id == number)
        row = self.connection.execute(query).first()
        return None if row is None else Version(*row)

    def text_of(self, number: int) -> str | None:
        columns = tables.policies.c
        text: str | None = self.connection.scalar(select(columns.text).where(columns.id == number))
        return text

    def before(self, number: int) -> int | None:
        """The number of the document that was in force before this one."""
        columns = tables.policies.c
        found: int | None = self.connection.scalar(select(func.max(columns.id)).where(columns.id < number))
        return found


def _queue(query: Select[Any], which: QueueFilter) -> Select[Any]:
    columns = tables.tickets.c
    if which.pool:
        query = query.where(columns.pool.in_(which.pool))
    if which.person:
        query = query.where(columns.person == which.person)
    if which.code:
        query = query.where(columns.code == which.code)
    return query


def _entries(which: EntryFilter) -> Sequence[ColumnElement[bool]]:
    columns = tables.entries.c
    conditions: list[ColumnElement[bool]] = []
    if EntryKind.ACCRUED not in which.kinds:
        conditions.append(tables.told)
    if which.kinds:
        conditions.append(columns.kind.in_([kind.value for kind in which.kinds]))
    for column, value in (
        (columns.person, which.person),
        (columns.pool, which.pool),
        (columns.lease, which.lease),
        (columns.why, which.code),
    ):
        if value:
            conditions.append(column == value)
    if which.since is not None:
        conditions.append(columns.at >= which.since)
    if which.before is not None:
        conditions.append(columns.at < which.before)
    return conditions


def _waiting(row: Mapping[Any, Any]) -> Waiting:
    ask = row["ask"]
    return Waiting(
        id=row["id"],
        person=row["person"],
        pool=row["pool"],
        made_at=row["made_at"],
        code=row["code"],
        facts=row["facts"],
        place=row["place"],
        eta_at=row["eta_at"],
        eta_kind=row["eta_kind"],
        reclaims=len(row["reclaims"]),
        amounts=ask.get("amounts", {}),
        kind=ask.get("kind", "server"),
        profile=ask.get("profile"),
        server=ask.get("server", ""),
        wanted=row["wanted"],
        put_back=row["put_back"],
    )


def _entry(row: Mapping[Any, Any]) -> tuple[int, Entry]:
    values = dict(row)
    number = values.pop("id")
    return number, Entry(**values | {"kind": EntryKind(values["kind"])})
