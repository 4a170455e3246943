"""Reads what the waiting room shows: one ticket, and who holds what it waits for, from one snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, func, select

from hub_ext.core.amounts import is_gpu
from hub_ext.core.clock import Clock, Instant
from hub_ext.db import tables
from hub_ext.desk.records import Records
from hub_ext.desk.views_waiting import Around, Holder
from hub_ext.quota.model import Ask, Eta, LeaseState, Outlook, Policy, Ticket
from hub_ext.quota.ports import Store, Transaction

MOST_HOLDERS: Final = 12
"""So many of the own pool's leases are named; the rest is counted."""
AT_ONCE: Final = 500
"""Tickets that one query asks for."""


@dataclass(frozen=True, slots=True)
class Sight:
    """A ticket that waits, as it stands. `at` is when that was read."""

    ticket: Ticket
    policy: Policy
    around: Around
    at: Instant


@dataclass(frozen=True, slots=True)
class Turn:
    """What became of a ticket that waits no more: the state of its lease (None: it never got one)."""

    state: LeaseState | None


Known = Outlook | Turn
"""How a ticket stands: in line, or not any more."""


@dataclass(frozen=True, slots=True)
class Look:
    """Many tickets at one moment, by id."""

    found: Mapping[str, Known]
    policy: Policy
    at: Instant


def read_sight(store: Store, clock: Clock, ticket_id: str) -> Sight | None:
    """None where no such ticket waits. Raises StoreUnavailable."""
    with store.reading() as txn:
        ticket = txn.ticket(ticket_id)
        if ticket is None:
            return None
        now = max(clock.now(), txn.latest())
        return Sight(ticket, txn.policy, around(txn, ticket.ask), now)


def resource_waited_for(ask: Ask) -> str:
    """What is told about others: the GPU that is asked for, else CPU."""
    gpus = [resource for resource, amount in ask.amounts.items() if is_gpu(resource) and amount]
    return min(gpus, default="cpu")


def around(txn: Transaction, ask: Ask) -> Around:
    """Who holds the resource in the ask's pool, by name; elsewhere only how much, and when the next ends."""
    resource = resource_waited_for(ask)
    columns = tables.leases.c
    amount = columns.amounts[resource].as_integer()
    connection = Records.of(txn).connection
    holding: ColumnElement[bool] = tables.live & (amount > 0)
    rows = connection.execute(
        select(columns.person, amount, columns.ends_at, columns.guaranteed)
        .where(holding, columns.pool == ask.pool)
        .order_by(columns.ends_at, columns.id)
    ).all()
    total, following = connection.execute(
        select(func.coalesce(func.sum(amount), 0), func.min(columns.ends_at)).where(
            holding, columns.pool != ask.pool
        )
    ).one()
    return Around(
        resource=resource,
        holders=tuple(Holder(*row) for row in rows[:MOST_HOLDERS]),
        own=sum(row[1] for row in rows),
        unnamed=max(0, len(rows) - MOST_HOLDERS),
        elsewhere=int(total),
        next_elsewhere=following,
    )


def look(store: Store, clock: Clock, ids: Iterable[str]) -> Look:
    """How these tickets stand: few columns, one query for many. Raises StoreUnavailable."""
    wanted = sorted(set(ids))
    found: dict[str, Known] = {}
    with store.reading() as txn:
        records = Records.of(txn)
        for first in range(0, len(wanted), AT_ONCE):
            batch = wanted[first : first + AT_ONCE]
            found |= _outlooks(records, batch)
            found |= _turns(records, [one for one in batch if one not in found])
        return Look(found, txn.policy, max(clock.now(), txn.latest()))


def _outlooks(records: Records, ids: list[str]) -> Mapping[str, Known]:
    columns = tables.tickets.c
    rows = records.connection.execute(
        select(
            columns.id,
            columns.code,
            columns.facts,
            columns.place,
            columns.eta_at,
            columns.eta_kind,
            columns.reclaims,
        ).where(columns.id.in_(ids))
    )
    return {
        name: Outlook(code, facts, place, None if at is None else Eta(at, kind), tuple(reclaims))
        for name, code, facts, place, at, kind, reclaims in rows
    }


def _turns(records: Records, ids: list[str]) -> Mapping[str, Known]:
    if not ids:
        return {}
    columns = tables.leases.c
    rows = records.connection.execute(select(columns.id, columns.state).where(columns.id.in_(ids)))
    states = {name: LeaseState(state) for name, state in rows}
    return {name: Turn(states.get(name)) for name in ids}
