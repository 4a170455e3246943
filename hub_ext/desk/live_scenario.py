"""The centre as it stands now as a scenario for `hub-ext simulate`: what the what-if form begins with. Pure.

Leases, machines, hours and tickets become what QUOTA's what-if file calls them. What is of a pool that the policy does
not have any more is left out; leases are told.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from hub_ext.core.amounts import COST_UNITS_PER_GPU_HOUR, Amounts, format_amount
from hub_ext.core.clock import Instant
from hub_ext.core.people import Person
from hub_ext.quota.budget import BudgetState
from hub_ext.quota.model import SERVER, Grant, Lease, Node, Policy, Reservation, Ticket

EXAMPLE: Final = "what-if-1"


@dataclass(frozen=True)
class Live:
    """One snapshot of everything."""

    policy: Policy
    text: str
    """The policy document, as the operator wrote it."""
    now: Instant
    people: Sequence[Person] = ()
    nodes: Sequence[Node] | None = None
    leases: Sequence[Lease] = ()
    tickets: Sequence[Ticket] = ()
    reservations: Sequence[Reservation] = ()
    budgets: Sequence[BudgetState] = ()
    grants: Sequence[tuple[Grant, int]] = ()
    """Each with what is left of it, in cost units."""
    recent: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By pool and person, decayed GPU-seconds."""


def live_scenario(live: Live) -> str:
    """The text of the scenario. Every line stands for one thing, so that it is easily changed."""
    return "\n".join(_lines(live)) + "\n"


def _lines(live: Live) -> Iterator[str]:
    policy = live.policy
    known = [lease for lease in live.leases if lease.pool in policy.pools]
    yield f"# The centre as it was at {policy.local(live.now):%Y-%m-%d %H:%M:%S %Z}. Change anything: nothing real is touched."
    yield f"now: {policy.local(live.now).isoformat()}"
    yield "policy:"
    yield from (f"  {line}".rstrip() for line in live.text.splitlines() if not _is_mark(line))
    yield from _section("people", _people(live), "Who is not listed here is a member of no pool.")
    if live.nodes is not None:
        nodes = [{"name": node.name, **_amounts(node.capacity)} for node in live.nodes if node.ready]
        yield from _section("nodes", nodes, "Machines that take servers now.", empty=True)
    left_out = len(live.leases) - len(known)
    note = f"Left out: {left_out} in pools that the policy does not name any more." if left_out else ""
    yield from _section("leases", (_lease(live, lease) for lease in known), note)
    reserved = [one for one in live.reservations if one.pool in policy.pools]
    yield from _section("reservations", (_reservation(policy, one) for one in reserved))
    yield from _section("used_hours", (_used(state) for state in live.budgets if state.used > 0))
    yield "events:"
    for grant, left in (pair for pair in live.grants if _has_its_budget(policy, pair[0])):
        yield f"  - {{at: +0m, grant: {_flow(_grant(policy, grant, left))}}}"
    for ticket in (one for one in live.tickets if one.ask.pool in policy.pools):
        yield f"  - {{at: +0m, ask: {_flow(_ask(ticket))}}}"
    yield "  # What would be, if … ? For example: somebody asks, and an hour goes by."
    yield from _example(live)
    yield "  - {at: +1h, tick: true}"


def _is_mark(line: str) -> bool:
    """Where a YAML document begins and ends: not inside another."""
    return line.startswith(("---", "...", "%"))


def _section(
    name: str, entries: Iterable[Mapping[str, object]], note: str = "", *, empty: bool = False
) -> Iterator[str]:
    lines = [f"  - {_flow(entry)}" for entry in entries]
    if lines:
        yield f"{name}:{f'  # {note}' if note else ''}"
        yield from lines
    elif empty:
        yield f"{name}: []"


def _flow(value: object) -> str:
    """YAML's flow style; every text is quoted as in JSON, which is YAML as well."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_flow(item) for item in value)}]"
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return json.dumps(value, ensure_ascii=True)


def _people(live: Live) -> Iterator[dict[str, object]]:
    """Those who run or wait for something."""
    there = {lease.person for lease in live.leases} | {ticket.ask.person for ticket in live.tickets}
    for person in live.people:
        if person.name not in there:
            continue
        entry: dict[str, object] = {
            "name": person.name,
            "pools": [pool for pool in person.pools if pool in live.policy.pools],
        }
        if person.roles:
            entry["roles"] = sorted(person.roles)
        recent = {
            pool: _hours(seconds * (COST_UNITS_PER_GPU_HOUR // 3600))
            for (pool, name), seconds in live.recent.items()
            if name == person.name and pool in live.policy.pools and seconds > 0
        }
        yield entry | ({"recent_hours": recent} if recent else {})


def _lease(live: Live, lease: Lease) -> dict[str, object]:
    policy = live.policy
    started = lease.started_at if lease.started_at is not None else lease.booked_at
    entry: dict[str, object] = {
        "id": lease.id,
        "person": lease.person,
        "pool": lease.pool,
        "amounts": _amounts(lease.amounts),
        "started": policy.local(min(started, live.now)).isoformat(),
        "ends": policy.local(lease.ends_at).isoformat(),
    }
    if not lease.person:
        del entry["person"]
    if lease.node is not None and lease.node in {node.name for node in live.nodes or () if node.ready}:
        entry["node"] = lease.node
    if lease.kind != SERVER:
        entry["kind"] = lease.kind
    entry["borrowed"] = not lease.guaranteed
    if lease.reservation is not None and lease.reservation in {one.id for one in live.reservations}:
        entry["reservation"] = lease.reservation
    return entry


def _has_its_budget(policy: Policy, grant: Grant) -> bool:
    pool = policy.pools.get(grant.pool)
    return pool is not None and any(budget.name == grant.budget for budget in pool.budgets)


def _reservation(policy: Policy, one: Reservation) -> dict[str, object]:
    return {
        "id": one.id,
        "pool": one.pool,
        "amounts": _amounts(one.amounts),
        "from": policy.local(one.start).isoformat(),
        "to": policy.local(one.end).isoformat(),
    }


def _used(state: BudgetState) -> dict[str, object]:
    entry: dict[str, object] = {
        "pool": state.of.pool,
        "hours": _hours(state.used),
        "period": str(state.of.budget.period),
    }
    return entry | ({"person": state.of.person} if state.of.person else {})


def _grant(policy: Policy, grant: Grant, left: int) -> dict[str, object]:
    period, _, each = grant.budget.partition(":")
    entry: dict[str, object] = {
        "pool": grant.pool,
        "hours": _hours(left),
        "until": policy.local(grant.until).isoformat(),
        "why": grant.why,
        "period": period,
    }
    return entry | ({"person": grant.person} if each else {})


def _ask(ticket: Ticket) -> dict[str, object]:
    ask = ticket.ask
    entry: dict[str, object] = {
        "id": ask.id,
        "person": ask.person,
        "pool": ask.pool,
        "amounts": _amounts(ask.amounts),
    }
    if ask.minutes is not None:
        entry["minutes"] = ask.minutes
    if ask.kind != SERVER:
        entry["kind"] = ask.kind
    if ticket.wanted > 1:
        entry["count"] = ticket.wanted
    return entry


def _example(live: Live) -> Iterator[str]:
    """An ask of somebody who is there, for one GPU of the first class, or for a core."""
    pool = next((lease.pool for lease in live.leases if lease.pool in live.policy.pools), None)
    pool = pool or next((ticket.ask.pool for ticket in live.tickets), None) or next(iter(live.policy.pools))
    person = next((lease.person for lease in live.leases if lease.pool == pool and lease.person), None)
    amounts = {f"gpu.{next(iter(live.policy.gpu_classes))}": "1"} if live.policy.gpu_classes else {"cpu": "1"}
    ask: dict[str, object] = {"id": EXAMPLE, "pool": pool, "amounts": amounts, "minutes": 120}
    if person is not None:
        ask = {"id": EXAMPLE, "person": person, "pool": pool, "amounts": amounts, "minutes": 120}
    yield f"  - {{at: +1m, ask: {_flow(ask)}}}"


def _amounts(amounts: Amounts) -> dict[str, str]:
    return {resource: format_amount(resource, amount) for resource, amount in amounts.items() if amount}


def _hours(units: int) -> Decimal:
    """To a millionth of an hour, rounded down."""
    return Decimal(units * 1_000_000 // COST_UNITS_PER_GPU_HOUR) / 1_000_000
