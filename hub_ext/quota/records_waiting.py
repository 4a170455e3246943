"""What waits and what is held, in the database: tickets, reservations, and what people used lately.

Beside `store`, which its transactions get these methods from; nothing here decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, select, update

from hub_ext.core.clock import Instant
from hub_ext.core.decision import plain
from hub_ext.db import tables
from hub_ext.quota.model import SERVER, WORKER, Ask, Eta, Lease, Outlook, Reservation, Ticket

MOST_IDS = 500
"""So many ids are named in one statement."""


class WaitingRows:
    """The part of a transaction that reads and writes who waits. See `hub_ext.quota.ports`."""

    _connection: Connection
    _must_write: Callable[[], None]
    _upsert: Callable[..., None]
    _leases: Callable[..., list[Lease]]

    # -- tickets --------------------------------------------------------------------------------------------

    def ticket(self, ticket_id: str) -> Ticket | None:
        found = self._tickets(tables.tickets.c.id == ticket_id)
        return found[0] if found else None

    def tickets(
        self,
        *,
        person: str | None = None,
        pools: Iterable[str] | None = None,
        codes: Iterable[str] | None = None,
    ) -> list[Ticket]:
        columns, conditions = tables.tickets.c, []
        if person is not None:
            conditions.append(columns.person == person)
        if pools is not None:
            conditions.append(columns.pool.in_(sorted(set(pools))))
        if codes is not None:
            conditions.append(columns.code.in_(sorted(set(codes))))
        return self._tickets(*conditions)

    def put_tickets(self, tickets: Iterable[Ticket]) -> None:
        self._must_write()
        self._upsert(tables.tickets, [_ticket_row(ticket) for ticket in tickets], key=("id",))

    def put_outlooks(self, outlooks: Mapping[str, Outlook]) -> None:
        self._must_write()
        rows = [{"ticket": ticket, **_outlook_row(outlook)} for ticket, outlook in outlooks.items()]
        if rows:
            statement = update(tables.tickets).where(tables.tickets.c.id == bindparam("ticket"))
            self._connection.execute(statement, rows)

    def drop_tickets(self, ticket_ids: Iterable[str]) -> None:
        self._must_write()
        for some in _in_portions(sorted(set(ticket_ids))):
            self._connection.execute(delete(tables.tickets).where(tables.tickets.c.id.in_(some)))

    def _tickets(self, *conditions: ColumnElement[bool]) -> list[Ticket]:
        columns = tables.tickets.c
        query = select(tables.tickets).where(*conditions).order_by(columns.made_at, columns.id)
        return [_ticket(row) for row in self._connection.execute(query).mappings()]

    def tickets_by_id(self, ticket_ids: Iterable[str]) -> list[Ticket]:
        found = []
        for some in _in_portions(sorted(set(ticket_ids))):
            found += self._tickets(tables.tickets.c.id.in_(some))
        return found

    def leases_by_id(self, lease_ids: Iterable[str]) -> list[Lease]:
        found = []
        for some in _in_portions(sorted(set(lease_ids))):
            found += self._leases(tables.leases.c.id.in_(some))
        return found

    def leases_in(self, reservation: str) -> list[Lease]:
        return [one for one in self._leases(tables.leases.c.reservation == reservation) if one.person]

    def live_leases_of(self, people: Iterable[str]) -> list[Lease]:
        found = []
        for some in _in_portions(sorted(set(people))):
            found += self._leases(tables.live, tables.leases.c.person.in_(some))
        return found

    # -- Dask clusters --------------------------------------------------------------------------------------

    def live_in_clusters(self, names: Iterable[str] | None = None) -> list[Lease]:
        columns = tables.leases.c
        conditions = [tables.live, columns.kind != SERVER]
        if names is None:
            return self._leases(*conditions)
        found: list[Lease] = []
        for some in _in_portions(sorted(set(names))):
            found += self._leases(*conditions, columns.server.in_(some))
        return found

    def cluster_tickets(self, names: Iterable[str] | None = None) -> list[Ticket]:
        ask = tables.tickets.c.ask
        conditions = [ask["kind"].as_string() == WORKER]
        if names is None:
            return self._tickets(*conditions)
        found: list[Ticket] = []
        for some in _in_portions(sorted(set(names))):
            found += self._tickets(*conditions, ask["server"].as_string().in_(some))
        return found

    def displaced_last(self, person: str, cluster: str) -> str | None:
        columns = tables.leases.c
        query = (
            select(columns.noticed_for)
            .where(tables.over, columns.person == person, columns.server == cluster)
            .where(columns.kind == WORKER, columns.noticed_for.is_not(None))
            .order_by(columns.released_at.desc())
            .limit(1)
        )
        return self._connection.scalar(query)

    def devices_taken(self, node: str) -> set[str]:
        columns = tables.leases.c
        rows = self._connection.scalars(select(columns.devices).where(tables.live, columns.node == node))
        return {device for devices in rows for device in devices}

    # -- reservations ---------------------------------------------------------------------------------------

    def reservations(self, now: Instant) -> list[Reservation]:
        columns = tables.reservations.c
        query = select(tables.reservations).where(columns.ends_at > now)
        query = query.order_by(columns.starts_at, columns.id)
        return [_reservation(row) for row in self._connection.execute(query).mappings()]

    def put_reservations(self, reservations: Iterable[Reservation]) -> None:
        self._must_write()
        rows = [_reservation_row(reservation) for reservation in reservations]
        self._upsert(tables.reservations, rows, key=("id",))

    def drop_reservations(self, ids: Iterable[str]) -> None:
        self._must_write()
        for some in _in_portions(sorted(set(ids))):
            self._connection.execute(delete(tables.reservations).where(tables.reservations.c.id.in_(some)))

    # -- what was used lately -------------------------------------------------------------------------------

    def used_since(self, first: date) -> list[tuple[str, str, date, int]]:
        days, leases = tables.usage_days.c, tables.leases.c
        query = (
            select(leases.pool, leases.person, days.day, func.sum(days.units))
            .join(tables.leases, leases.id == days.lease)
            .where(days.day >= first, days.units != 0)
            .group_by(leases.pool, leases.person, days.day)
        )
        return [(row[0], row[1], row[2], int(row[3])) for row in self._connection.execute(query)]

    # -- whether anything changed -----------------------------------------------------------------------------

    def newest_entry(self) -> int:
        return self._connection.scalar(select(func.max(tables.entries.c.id))) or 0


def _in_portions(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[first : first + MOST_IDS] for first in range(0, len(ids), MOST_IDS))


def _ticket_row(ticket: Ticket) -> dict[str, Any]:
    return {
        "id": ticket.id,
        "person": ticket.ask.person,
        "pool": ticket.ask.pool,
        "made_at": ticket.made_at,
        "ask": asdict(ticket.ask) | {"amounts": dict(ticket.ask.amounts)},
        "put_back": ticket.put_back,
        "displaced_by": ticket.displaced_by,
        "wanted": ticket.wanted,
        "booked": ticket.booked,
        "options": plain(ticket.options),
        **_outlook_row(ticket.outlook),
    }


def _outlook_row(outlook: Outlook) -> dict[str, Any]:
    return {
        "code": outlook.code,
        "facts": plain(outlook.facts),
        "place": outlook.place,
        "eta_at": outlook.eta.at if outlook.eta else None,
        "eta_kind": outlook.eta.kind if outlook.eta else None,
        "reclaims": list(outlook.reclaims),
    }


def _ticket(row: Mapping[Any, Any]) -> Ticket:
    eta = None if row["eta_at"] is None else Eta(row["eta_at"], row["eta_kind"])
    return Ticket(
        ask=Ask(**row["ask"]),
        made_at=row["made_at"],
        outlook=Outlook(row["code"], row["facts"], row["place"], eta, tuple(row["reclaims"])),
        put_back=row["put_back"],
        displaced_by=row["displaced_by"],
        wanted=row["wanted"],
        booked=row["booked"],
        options=row["options"],
    )


def _reservation_row(reservation: Reservation) -> dict[str, Any]:
    row = asdict(reservation)
    row["starts_at"], row["ends_at"] = row.pop("start"), row.pop("end")
    return row


def _reservation(row: Mapping[Any, Any]) -> Reservation:
    values = dict(row)
    values["start"], values["end"] = values.pop("starts_at"), values.pop("ends_at")
    return Reservation(**values)
