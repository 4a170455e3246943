"""Hours and notices: charges what was seen alive, cuts what has used its hours up, and reminds of ends that are near.

Looked for in the clock's picture; written for those leases alone that are due, as they stand in the database then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from hub_ext.core.clock import MINUTE, Instant
from hub_ext.core.decision import Code
from hub_ext.desk.picture import Picture
from hub_ext.quota.booking import loaded
from hub_ext.quota.budget import Budgets, binding
from hub_ext.quota.counting import charged_pool
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import Lease, LeaseState, Policy
from hub_ext.quota.overrun import overrun_cuts
from hub_ext.quota.ports import Transaction

CHARGE_AFTER: Final = MINUTE
"""Running leases are charged about this often; the ledger's slices are never longer than five minutes."""
CHARGES_AT_ONCE: Final = 500
"""What was started together would else be charged together for ever, and make one tick in thirty a long one."""
ENDS_SOON: Final = "ends-soon"


def due_for_charge(picture: Picture) -> dict[str, Instant]:
    """When those were last seen that ran longest since they were charged, by lease."""
    due = []
    for lease in picture.leases.values():
        seen_at = picture.seen_at(lease)
        if (
            seen_at is not None
            and lease.started_at is not None
            and seen_at - lease.charged_until >= CHARGE_AFTER
        ):
            due.append((lease.charged_until, lease.id, seen_at))
    return {lease_id: seen_at for _, lease_id, seen_at in sorted(due)[:CHARGES_AT_ONCE]}


def charge(txn: Transaction, due: Mapping[str, Instant]) -> None:
    """Each up to when it was last seen."""
    leases = [
        replace(lease, seen_at=max(lease.seen_at or 0, due[lease.id]))
        for lease in txn.leases_by_id(due)
        if lease.live and lease.started_at is not None
    ]
    ledger = _ledger(txn, leases)
    txn.save(ledger, [ledger.accrue(lease, lease.seen_at or 0) for lease in leases])


def used_up(picture: Picture, now: Instant) -> list[Lease]:
    """Those whose budgets have nothing left."""
    assert picture.policy is not None
    running = [lease for lease in picture.leases.values() if lease.state is LeaseState.RUNNING]
    budgets = Budgets(picture.policy, picture.sums(), picture.grants)
    return [lease for lease, _ends_at, _facts in overrun_cuts(budgets, running, now)]


def ending_soon(picture: Picture, now: Instant) -> list[Lease]:
    """Whose end is near, and who were not told yet."""
    assert picture.policy is not None
    return [
        lease
        for lease in picture.leases.values()
        if lease.state is LeaseState.RUNNING and _ends_soon(picture.policy, lease, now)
    ]


def give_notice(txn: Transaction, due: Iterable[Lease], now: Instant, who: str) -> list[Lease]:
    """Tell them; returns those whose end moved."""
    leases = {
        lease.id: lease
        for lease in txn.leases_by_id(lease.id for lease in due)
        if lease.state is LeaseState.RUNNING
    }
    ledger = _ledger(txn, leases.values())
    cuts = overrun_cuts(ledger.budgets, list(leases.values()), now)
    cut = {
        lease.id: ledger.notice(lease, ends_at, now, who=who, why=Code.BUDGET_SPENT.value)
        for lease, ends_at, _facts in cuts
    }
    reminded = {
        lease.id: ledger.notice(
            lease,
            lease.ends_at,
            now,
            who=who,
            why=Code.BUDGET_SPENT.value if _hours_end(ledger.budgets, lease, now) else ENDS_SOON,
        )
        for lease in (leases | cut).values()
        if _ends_soon(txn.policy, lease, now)
    }
    txn.save(ledger, (cut | reminded).values())
    return list(cut.values())


def _ledger(txn: Transaction, leases: Iterable[Lease]) -> Ledger:
    found = list(leases)
    return txn.ledger(loaded(txn.policy, found), {lease.person for lease in found})


def _hours_end(budgets: Budgets, lease: Lease, now: Instant) -> bool:
    """Whether a budget has less for the lease after its end than a start needs: that is why it ends, and not later."""
    path = [name for name in lease.path if name in budgets.policy.pools]
    if not lease.cost or not path:
        return False
    least = budgets.policy.session(path[0]).min
    states = (budgets.state(of, now) for of in binding(budgets.policy, path, lease.person))
    return any(
        state is not None
        and lease.ends_at < state.window.end
        and state.lasts_until(lease.cost, max(now, lease.ends_at)) < lease.ends_at + least
        for state in states
    )


def _ends_soon(policy: Policy, lease: Lease, now: Instant) -> bool:
    """Once for each lease. The end itself does not move."""
    if lease.noticed_at is not None or lease.ends_at <= now:
        return False
    pool = charged_pool(policy, lease)
    return pool is not None and lease.ends_at <= now + policy.session(pool).notice
