"""What the page of a pool reads beside the quota's own records: groups of leases, never one row for each."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import Text, cast, func, select

from hub_ext.core.amounts import Amounts
from hub_ext.core.clock import Instant
from hub_ext.db import tables
from hub_ext.desk.records import Records
from hub_ext.quota.ports import Transaction


@dataclass(frozen=True, slots=True)
class Holding:
    """Live leases of one person in one pool that are alike; `next_end` is when the first of them ends."""

    person: str
    pool: str
    kind: str
    amounts: Amounts
    guaranteed: bool
    count: int
    next_end: Instant


def holdings(txn: Transaction, pools: Collection[str]) -> list[Holding]:
    """Who holds what in these pools."""
    columns = tables.leases.c
    alike = (columns.person, columns.pool, columns.kind, cast(columns.amounts, Text), columns.guaranteed)
    query = (
        select(*alike, func.count(), func.min(columns.ends_at))
        .where(tables.live, columns.pool.in_(sorted(pools)))
        .group_by(*alike)
    )
    return [
        Holding(person, pool, kind, _amounts(amounts), guaranteed, count, next_end)
        for person, pool, kind, amounts, guaranteed, count, next_end in Records.of(txn).connection.execute(
            query
        )
    ]


@lru_cache(maxsize=1024)
def _amounts(text: str) -> Amounts:
    """There are few sizes, however many leases: each is read once."""
    amounts: Amounts = json.loads(text)
    return amounts
