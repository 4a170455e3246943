"""Whether an ask may be answered alone, or only in the order of the line: cheap, before any plan is made. Pure.

An ask that finds room by itself may take it at once where nobody before it could use the same room. Where somebody
could, the line decides (`plan`); what this says too often only costs a plan, what it overlooked would be unfair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from hub_ext.core.amounts import is_gpu
from hub_ext.core.clock import Instant
from hub_ext.core.decision import Admit, Code
from hub_ext.quota.model import SERVER, Ask, Lease, LeaseState, Policy, Ticket

WAITS_FOR_ROOM: Final = frozenset(
    code.value for code in (Code.POOL_FULL, Code.NO_NODE_FREE, Code.STARTS_BUSY, Code.OTHERS_WAITING)
)
"""Codes of tickets that freed room could serve; a cap, a budget or a window is nobody else's business."""


def contenders(
    policy: Policy, ask: Ask, decision: Admit, tickets: Iterable[Ticket], now: Instant
) -> list[Ticket]:
    """The tickets that wait for something this ask would take, and that it may not simply pass."""
    return [
        ticket for ticket in tickets if ticket.id != ask.id and _contends(policy, ask, decision, ticket, now)
    ]


def _contends(policy: Policy, ask: Ask, decision: Admit, ticket: Ticket, now: Instant) -> bool:
    if ticket.outlook.code not in WAITS_FOR_ROOM or ticket.ask.pool not in policy.pools:
        return False
    taken_back = bool(ticket.outlook.reclaims)
    if ticket.elastic and ask.kind == SERVER and not taken_back:
        return False  # after all servers, but what is taken back for it is its own
    if ticket.outlook.code == Code.STARTS_BUSY.value:
        return True
    wanted = _taken(ask)
    shared = wanted & _taken(ticket.ask)
    holds = taken_back or (not ticket.elastic and now - ticket.made_at >= policy.queue.patience)
    if not holds:
        shared &= _short(ticket)
    if not shared:
        return False
    if not decision.guaranteed or taken_back or (ask.kind != SERVER and not ticket.elastic):
        return True
    # A guaranteed ask comes before all that would only borrow; another of its own home may come before it.
    return any(policy.home(ask.pool, r) == policy.home(ticket.ask.pool, r) for r in shared)


def _short(ticket: Ticket) -> set[str]:
    """What the ticket was short of at the last look; all it wants where that was not told."""
    wanted = _taken(ticket.ask)
    resource = ticket.outlook.facts.get("resource")
    if resource in wanted:
        return {str(resource)}
    return {name for name in wanted if is_gpu(name)} or wanted


def _taken(ask: Ask) -> set[str]:
    return {resource for resource, amount in ask.amounts.items() if amount}


# -- one server, asked for again -------------------------------------------------------------------------------------


def waits_in_its_booking(held: Lease, ask: Ask) -> bool:
    """Whether the lease was booked for this very start: its turn came, or a hub was cut off in it."""
    return (
        held.state is LeaseState.BOOKED
        and held.handle is None
        and (held.pool, held.profile, held.reservation) == (ask.pool, ask.profile, ask.reservation)
        and _same(held.amounts, ask.amounts)
    )


def in_its_place(former: Ticket, ask: Ask, options: Mapping[str, Any]) -> Ticket | None:
    """The former ticket of the same server with what is asked for now, where that takes no more: it keeps its place.

    None where it takes more, or is another pool's: that waits anew.
    """
    old = former.ask
    if (old.pool, old.reservation) != (ask.pool, ask.reservation):
        return None
    if any(amount > old.amounts.get(resource, 0) for resource, amount in ask.amounts.items()):
        return None
    return replace(former, ask=replace(ask, id=former.id), options=dict(options))


def _same(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return all(one.get(name, 0) == other.get(name, 0) for name in {*one, *other})
