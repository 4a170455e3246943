"""Requests for hours and reports of use, in the database: the queries of `ports_hours.HoursRecords`.

Mixed into the store's transaction. Every list is read a page at a time by its order, not by an offset, so that a page
costs the same wherever it lies, and rows that are added meanwhile move none to another page.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import date
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Date,
    Text,
    and_,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, array
from sqlalchemy.sql.expression import type_coerce

from hub_ext.db import tables
from hub_ext.quota.ledger import EntryKind, lease_of
from hub_ext.quota.model import HoursRequest, RequestState
from hub_ext.quota.ports_hours import DayPlace, DayUsage, LeaseUsage, Place, UsageScope, UsageSum

_leases = tables.leases.c
_days = tables.usage_days.c
_requests = tables.requests.c
_entries = tables.entries.c


class HoursRows:
    """The part of a transaction that knows requests for hours and reports of use."""

    _connection: Connection

    def _must_write(self) -> None:
        raise NotImplementedError

    # -- requests ---------------------------------------------------------------------------------------------

    def request(self, request_id: str) -> HoursRequest | None:
        query = select(tables.requests).where(_requests.id == request_id)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else _request({**row})

    def requests(
        self,
        *,
        pools: Collection[str] | None = None,
        made_by: str | None = None,
        states: Collection[RequestState] | None = None,
        before: Place | None = None,
        limit: int = 1000,
    ) -> list[HoursRequest]:
        query = select(tables.requests).order_by(_requests.made_at.desc(), _requests.id.desc()).limit(limit)
        whose: list[ColumnElement[bool]] = []
        if pools is not None:
            whose.append(_requests.pool.in_(sorted(pools)))
        if made_by is not None:
            whose += [_requests.made_by == made_by, _requests.person == made_by]
        if whose:
            query = query.where(or_(*whose))
        if states is not None:
            query = query.where(_requests.state.in_(sorted(state.value for state in states)))
        if before is not None:
            query = query.where(tuple_(_requests.made_at, _requests.id) < before)
        return [_request({**row}) for row in self._connection.execute(query).mappings()]

    def put_request(self, request: HoursRequest) -> None:
        self._must_write()
        values = _request_row(request)
        known = update(tables.requests).where(_requests.id == request.id).values(values)
        if not self._connection.execute(known).rowcount:
            self._connection.execute(insert(tables.requests).values(values))

    # -- use --------------------------------------------------------------------------------------------------

    def lease_usage(
        self, scope: UsageScope, *, after: Place | None = None, limit: int = 1000
    ) -> list[LeaseUsage]:
        charged = _days.day.between(scope.first, scope.last)
        own_days = _days.lease == _leases.id

        def summed(column: ColumnElement[int], *conditions: ColumnElement[bool]) -> ColumnElement[int]:
            return select(func.coalesce(func.sum(column), 0)).where(own_days, *conditions).scalar_subquery()

        number = (
            select(func.min(_entries.id))
            .where(_entries.lease == _leases.id, _entries.kind == EntryKind.BOOKED.value)
            .scalar_subquery()
        )
        query = (
            select(
                tables.leases,
                number.label("number"),
                summed(_days.units, charged).label("units"),
                summed(_days.seconds, charged).label("seconds"),
                summed(_days.units).label("all_units"),
                summed(_days.seconds).label("all_seconds"),
            )
            .where(*self._in_scope(scope))
            .order_by(_leases.booked_at, _leases.id)
            .limit(limit)
        )
        if scope.ended is not None:
            start, end = scope.ended
            ran = _leases.started_at.is_not(None)
            query = query.where(ran, _leases.released_at >= start, _leases.released_at < end)
        else:
            query = query.where(exists().where(own_days, charged))
        if after is not None:
            query = query.where(tuple_(_leases.booked_at, _leases.id) > after)
        sums = ("number", "units", "seconds", "all_units", "all_seconds")
        found = []
        for row in self._connection.execute(query).mappings():
            facts = {key: value for key, value in row.items() if key not in sums}
            found.append(LeaseUsage(lease_of(facts), *(int(row[name] or 0) for name in sums)))
        return found

    def day_usage(
        self, scope: UsageScope, *, after: DayPlace | None = None, limit: int = 1000
    ) -> list[DayUsage]:
        order = (_days.day, _leases.pool, _leases.person)
        query = (
            select(
                *order,
                func.sum(_days.units).label("units"),
                func.sum(_days.seconds).label("seconds"),
                func.count().label("leases"),
            )
            .join_from(tables.usage_days, tables.leases)
            .where(_days.day.between(scope.first, scope.last), *self._in_scope(scope))
            .group_by(*order)
            .order_by(*order)
            .limit(limit)
        )
        if after is not None:
            query = query.where(_beyond(order, after))
        return [
            DayUsage(
                row.day,
                row.pool,
                row.person,
                int(row.units),
                int(row.seconds),
                int(row.leases),
            )
            for row in self._connection.execute(query)
        ]

    def usage_sums(self, scope: UsageScope, by: Literal["day", "person", "path"]) -> list[UsageSum]:
        key: ColumnElement[Any] = {"day": _days.day, "person": _leases.person, "path": _leases.path}[by]
        query = (
            select(
                key.label("key"),
                func.sum(_days.units).label("units"),
                func.sum(_days.seconds).label("seconds"),
                func.count(func.distinct(_days.lease)).label("leases"),
            )
            .join_from(tables.usage_days, tables.leases)
            .where(_days.day.between(scope.first, scope.last), *self._in_scope(scope))
            .group_by(key)
        )
        found = [
            UsageSum(_key(row.key), int(row.units), int(row.seconds), int(row.leases))
            for row in self._connection.execute(query)
        ]
        # Not by the database, which may sort by a language.
        return sorted(found, key=lambda one: one.key)

    def units_by_day_and_person(self, scope: UsageScope) -> tuple[dict[date, int], dict[str, int]]:
        used = (
            select(_days.day, _leases.person, _days.units)
            .join_from(tables.usage_days, tables.leases)
            .where(_days.day.between(scope.first, scope.last), *self._in_scope(scope))
            .cte("used")  # read twice, worked out once
        )
        total, nobody, no_day = func.sum(used.c.units), literal(None, Text()), literal(None, Date())
        query = union_all(
            select(used.c.day, nobody.label("person"), total.label("units")).group_by(used.c.day),
            select(no_day, used.c.person, total).group_by(used.c.person),
        )
        days: dict[date, int] = {}
        people: dict[str, int] = {}
        for row in self._connection.execute(query):
            if row.day is not None:
                days[row.day] = int(row.units)
            else:
                people[row.person] = int(row.units)
        return days, people

    def _in_scope(self, scope: UsageScope) -> list[ColumnElement[bool]]:
        conditions: list[ColumnElement[bool]] = []
        if scope.person is not None:
            conditions.append(_leases.person == scope.person)
        if scope.pool is not None:
            conditions.append(self._charged_to([scope.pool]))
        if scope.seen_by is not None:
            conditions.append(or_(_leases.person == scope.seen_by, self._charged_to(scope.led)))
        return conditions

    def _charged_to(self, pools: Iterable[str]) -> ColumnElement[bool]:
        """One of these pools stood above the lease (or was its own) when it was booked."""
        names = sorted(pools)
        if not names:
            return _leases.id.is_(None)  # none: an id is never null
        if self._connection.dialect.name == "postgresql":
            held: ColumnElement[bool] = type_coerce(_leases.path, JSONB).has_any(array(names))
            return held
        above = func.json_each(_leases.path).table_valued("value")
        return exists().select_from(above).where(above.c.value.in_(names))


def _key(value: date | str | list[str]) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else (str(value),)


def _beyond(order: tuple[Any, Any, Any], after: tuple[date, str, str]) -> ColumnElement[bool]:
    """Later in the order than `after`, compared column by column (a bound date has no row comparison on SQLite)."""
    first, second, third = order
    return or_(
        first > after[0],
        and_(first == after[0], second > after[1]),
        and_(first == after[0], second == after[1], third > after[2]),
    )


def _request(row: dict[str, Any]) -> HoursRequest:
    return HoursRequest(**row | {"state": RequestState(row["state"])})


def _request_row(request: HoursRequest) -> dict[str, Any]:
    return {column.name: getattr(request, column.name) for column in tables.requests.columns} | {
        "state": request.state.value
    }
