"""The windows of reservations, as the clock keeps them: what begins, shrinks or is over, and hours that nobody used.

What a window gives up is its pool's again: borrowed leases that now fit the guarantee are promoted.
"""

from __future__ import annotations

from hub_ext.core.clock import DAY, Instant
from hub_ext.quota.ports import Transaction
from hub_ext.quota.windows import account_id, accrue_unused, turn_windows

LOOKED_BACK = DAY
"""So long after its end the last hours of a reservation are still charged, if no clock ran then."""


def keep_windows(txn: Transaction, now: Instant) -> None:
    """Doing it twice changes nothing."""
    ledger, known = txn.ledger(None), txn.reservations(now - LOOKED_BACK)
    live = txn.live_leases()
    shrunk = {one.id: one for one in turn_windows(ledger, known, live, now)}
    txn.put_reservations(shrunk.values())
    promoted = (
        ledger.promote((lease for lease in live if not lease.guaranteed), now) if ledger.entries else []
    )
    accounts = []
    for reservation in known:
        current = shrunk.get(reservation.id, reservation)
        before = txn.lease(account_id(reservation))
        account = accrue_unused(ledger, current, before, txn.leases_in(reservation.id), now)
        if account is not None and account != before:
            accounts.append(account)
    txn.save(ledger, [*accounts, *promoted])
