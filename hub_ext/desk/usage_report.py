"""Reports of use, read page by page: a report of any length holds one page in memory, and no transaction meanwhile."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Final, Literal, TypeVar

from hub_ext.desk.access import Access
from hub_ext.desk.usage import Row, day_row, lease_row, person_rows, pool_rows, sacct_line
from hub_ext.quota.budget import first_instant
from hub_ext.quota.model import Policy
from hub_ext.quota.ports import Store, Transaction
from hub_ext.quota.ports_hours import UsageScope
from hub_ext.quota.windows import UNUSED

PlaceT = TypeVar("PlaceT")
By = Literal["lease", "day", "pool", "person"]
LONGEST_DAYS: Final = 1830
"""Days of one report: five years."""
EXPORT_PAGE: Final = 2000
_EARLIEST: Final = date(1971, 1, 1)
_LATEST: Final = date(9000, 1, 1)
"""Nothing ended outside these; before year 1 and after 9999 there are no dates to ask for."""
CLUSTER: Final = "hangang"
"""What the centre is called where a tool of accounting wants a cluster's name."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and where to go on; None: that was the end."""

    rows: list[Row]
    further: str | None


def scope_for(
    access: Access,
    policy: Policy,
    first: date,
    last: date,
    *,
    person: str | None = None,
    pool: str | None = None,
) -> UsageScope:
    """What this person may see of it: their own, the pools they lead, or all."""
    if access.operates:
        return UsageScope(first, last, person, pool)
    leads = tuple(sorted(access.leads_in(policy)))
    return UsageScope(first, last, person, pool, seen_by=access.person.name, led=leads)


def read_page(store: Store, scope: UsageScope, by: By, *, cursor: str | None, limit: int) -> Page:
    """One page of the report. Raises ValueError for a cursor that is none of this report's."""
    with store.reading() as txn:
        match by:
            case "lease":
                return _lease_page(txn, scope, cursor, limit)
            case "day":
                return _day_page(txn, scope, cursor, limit)
            case "person":
                rows = person_rows(txn.usage_sums(scope, "person"))
            case "pool":
                # A sum over what one may see only in part would look like the whole.
                rows = pool_rows(txn.usage_sums(scope, "path"), txn.policy, scope.led or None)
        return _cut(rows, cursor, limit)


def all_pages(store: Store, scope: UsageScope, by: By, size: int = EXPORT_PAGE) -> Iterator[list[Row]]:
    """The whole report, a page at a time; each is read when it is asked for."""
    page = read_page(store, scope, by, cursor=None, limit=size)
    yield page.rows
    while page.further is not None:
        page = read_page(store, scope, by, cursor=page.further, limit=size)
        yield page.rows


def sacct_pages(store: Store, scope: UsageScope, size: int = EXPORT_PAGE) -> Iterator[list[str]]:
    """Every lease that ran and ended on the days of the report, once, as `sacct` writes jobs.

    Not what a reservation held and nobody used: whoever reads jobs multiplies their time with their GPUs, and would count
    what ran inside twice.
    """
    after = None
    with store.reading() as txn:
        zone = txn.policy.timezone
    first, last = (min(max(day, _EARLIEST), _LATEST) for day in (scope.first, scope.last))
    ended = first_instant(first, zone), first_instant(last + timedelta(days=1), zone)
    scope = replace(scope, ended=ended)
    while True:
        with store.reading() as txn:
            found = txn.lease_usage(scope, after=after, limit=size)
        yield [sacct_line(one, CLUSTER) for one in found if one.lease.kind != UNUSED]
        if len(found) < size:
            return
        after = (found[-1].lease.booked_at, found[-1].lease.id)


def _lease_page(txn: Transaction, scope: UsageScope, cursor: str | None, limit: int) -> Page:
    after = _read(cursor, lambda at, name: (_whole(at), str(name)))
    found = txn.lease_usage(scope, after=after, limit=limit + 1)
    shown = found[:limit]
    last = shown[-1].lease if len(found) > limit else None
    return Page(
        [lease_row(one, txn.policy) for one in shown],
        None if last is None else _written(last.booked_at, last.id),
    )


def _day_page(txn: Transaction, scope: UsageScope, cursor: str | None, limit: int) -> Page:
    after = _read(cursor, lambda day, pool, person: (date.fromisoformat(day), str(pool), str(person)))
    found = txn.day_usage(scope, after=after, limit=limit + 1)
    shown = found[:limit]
    last = shown[-1] if len(found) > limit else None
    return Page(
        [day_row(one, txn.policy) for one in shown],
        None if last is None else _written(last.day.isoformat(), last.pool, last.person),
    )


def _cut(rows: list[Row], cursor: str | None, limit: int) -> Page:
    start = _read(cursor, lambda place: (_whole(place),)) or (0,)
    shown = rows[start[0] : start[0] + limit]
    end = start[0] + len(shown)
    return Page(shown, _written(end) if end < len(rows) else None)


def _whole(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise ValueError(f"{value!r} is no number of ours")
    return value


def _written(*place: str | int) -> str:
    """A place in a list as text that says nothing to whoever carries it."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _read(cursor: str | None, place: Callable[..., PlaceT]) -> PlaceT | None:
    if cursor is None:
        return None
    try:
        values: Any = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if "\\x00" in repr(values):  # PostgreSQL takes no text with it
            raise ValueError("no text of ours")
        return place(*values)
    except (ValueError, TypeError, binascii.Error, OverflowError):
        raise ValueError(f"{cursor[:80]!r} is no place in this list") from None
