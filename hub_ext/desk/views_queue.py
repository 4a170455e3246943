"""The queue as data: every ticket in its order, with place, reason, age and expected turn. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from hub_ext.core.amounts import MILLI, is_gpu
from hub_ext.core.clock import Instant, Seconds
from hub_ext.core.decision import Code
from hub_ext.desk.clusters import is_of_cluster
from hub_ext.desk.records import QueueFilter, Waiting
from hub_ext.desk.tables_csv import Cell
from hub_ext.desk.views_parts import Chip, explained, short_name, waiting_chip
from hub_ext.language import Speaker
from hub_ext.quota.explain import Explanation, Titles
from hub_ext.quota.model import SERVER, Policy

TICKETS_A_PAGE: Final = 50


@dataclass(frozen=True)
class QueueFacts:
    policy: Policy
    as_of: Instant
    now: Instant
    tickets: Sequence[Waiting]
    count: int
    """All tickets that fit the filter."""
    which: QueueFilter
    pool: str = ""
    page: int = 1
    titles: Titles = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueueLine:
    ticket: str
    place: str
    person: str
    pool: str
    pool_title: str
    what: str
    code: str
    told: Explanation | None
    chip: Chip
    since: str
    since_exact: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueuePage:
    lines: tuple[QueueLine, ...]
    summary: str
    age: Seconds
    page: int
    pages: int
    codes: tuple[str, ...]
    pools: tuple[tuple[str, str], ...]


def queue_page(facts: QueueFacts, say: Speaker) -> QueuePage:
    return QueuePage(
        lines=tuple(_line(facts, ticket, say) for ticket in facts.tickets),
        summary=say.ngettext("{count} in line", "{count} in line", facts.count, count=facts.count),
        age=max(0, facts.now - facts.as_of),
        page=facts.page,
        pages=max(1, -(-facts.count // TICKETS_A_PAGE)),
        codes=tuple(code.value for code in Code),
        pools=pool_choices(facts.policy, say),
    )


def pool_choices(policy: Policy, say: Speaker) -> tuple[tuple[str, str], ...]:
    """Every pool with its title, children under their parents."""
    return tuple(
        (name, f"{'– ' * (len(policy.path(name)) - 1)}{say.text(pool.title, name)}")
        for name, pool in policy.pools.items()
    )


def _line(facts: QueueFacts, ticket: Waiting, say: Speaker) -> QueueLine:
    notes = []
    if ticket.put_back:
        notes.append(say("put back after a notice"))
    if ticket.reclaims:
        notes.append(
            say.ngettext(
                "{count} borrowed lease is taken back for it",
                "{count} borrowed leases are taken back for it",
                ticket.reclaims,
                count=ticket.reclaims,
            )
        )
    if is_of_cluster(ticket.kind) and ticket.server:
        notes.append(say("Dask cluster {name}", name=short_name(ticket.server)))
    if ticket.wanted > 1:
        notes.append(say("wants {count} of these", count=ticket.wanted))
    return QueueLine(
        ticket=ticket.id,
        place="" if ticket.place is None else str(ticket.place),
        person=ticket.person,
        pool=ticket.pool,
        pool_title=say.text(facts.titles.get(ticket.pool, {}), ticket.pool),
        what=say.amounts(ticket.amounts),
        code=ticket.code,
        told=explained(ticket.code, ticket.facts, say, titles=facts.titles, now=facts.now),
        chip=waiting_chip(ticket, facts.now, say),
        since=say.duration(max(0, facts.now - ticket.made_at)),
        since_exact=say.exact(ticket.made_at),
        notes=tuple(notes),
    )


QUEUE_COLUMNS: Final = (
    "place", "ticket", "person", "pool", "kind", "profile", "gpus", "gpu_class", "code", "waiting_since",
    "waiting_seconds", "expected_at", "expected_kind", "put_back", "taken_back_for_it", "wanted",
)  # fmt: skip


def queue_row(ticket: Waiting, policy: Policy, now: Instant) -> list[Cell]:
    """One ticket as a row of the download: raw names, ISO times."""
    gpus = {resource: amount for resource, amount in ticket.amounts.items() if is_gpu(resource) and amount}
    return [
        ticket.place,
        ticket.id,
        ticket.person,
        ticket.pool,
        ticket.kind or SERVER,
        ticket.profile,
        "+".join(f"{amount / MILLI:g}" for amount in gpus.values()),
        "+".join(resource.removeprefix("gpu.") for resource in gpus),
        ticket.code,
        policy.local(ticket.made_at).isoformat(),
        max(0, now - ticket.made_at),
        None if ticket.eta_at is None else policy.local(ticket.eta_at).isoformat(),
        ticket.eta_kind,
        "yes" if ticket.put_back else "no",
        ticket.reclaims,
        ticket.wanted,
    ]
