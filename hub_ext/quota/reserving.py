"""Making, approving and cancelling reservations in the database: decide and write in one transaction.

What is green counts at once. What is amber is kept, holds nothing, and counts once a lead of the pool it needs has
approved it; until then others may take the time. What is red is not kept.
"""

from __future__ import annotations

from dataclasses import replace

from hub_ext.core.clock import Instant
from hub_ext.core.errors import BadInput
from hub_ext.quota.calendar import Amber, Answer, Picture, Red, decide_reservation
from hub_ext.quota.model import Lease, Reservation
from hub_ext.quota.ports import Transaction
from hub_ext.quota.windows import account_id, accrue_unused, cancel, reserve, tell


def ask_to_reserve(txn: Transaction, wanted: Reservation, now: Instant, *, who: str) -> Answer:
    """Decide, and keep it unless it is red. Raises BadInput for a window that cannot be one, or an id in use."""
    if any(one.id == wanted.id for one in txn.reservations(now)):
        raise BadInput(f"There is a reservation {wanted.id} already; choose another id")
    wanted = replace(wanted, made_by=who, made_at=now, approved=False, approved_by="", shrunk_to=None)
    answer = answer_to(txn, wanted, now)
    if isinstance(answer, Red):
        return answer
    txn.put_reservations([wanted])
    if isinstance(answer, Amber):
        _tell(txn, wanted, now, "asked", who)
    else:
        _count(txn, replace(wanted, approved=True), answer, now, who)
    return answer


def approve(txn: Transaction, reservation_id: str, now: Instant, *, who: str) -> Answer:
    """Let a kept reservation count, if it still fits; the caller has seen to it that `who` may approve it.

    A red answer leaves it as it is. Raises BadInput where there is no such reservation to approve.
    """
    wanted = next((one for one in txn.reservations(now) if one.id == reservation_id), None)
    if wanted is None or wanted.approved:
        raise BadInput(f"There is no reservation {reservation_id} that waits to be approved")
    answer = answer_to(txn, wanted, now)
    if not isinstance(answer, Red):
        _count(txn, replace(wanted, approved=True, approved_by=who), answer, now, who)
    return answer


def give_up(txn: Transaction, reservation_id: str, now: Instant, *, who: str) -> None:
    """Hold nothing for it any more; what nobody used of it so far is charged, and borrowed leases may be promoted.

    Leases that had notice for it are left to the clock, which withdraws that. Raises BadInput where there is no such
    reservation.
    """
    known = next((one for one in txn.reservations(now) if one.id == reservation_id), None)
    if known is None:
        raise BadInput(f"There is no reservation {reservation_id} to cancel")
    if known.approved:
        ledger = txn.ledger(None)
        former = txn.lease(account_id(known))
        account = accrue_unused(ledger, known, former, txn.leases_in(known.id), now)
        cancel(ledger, known, txn.live_leases(), now, who=who)
        promoted = ledger.promote(txn.borrowed_leases(txn.policy.pools), now)
        txn.save(ledger, [*promoted, *([account] if account is not None and account != former else [])])
    else:
        _tell(txn, known, now, "withdrawn", who)
    txn.drop_reservations([reservation_id])


def answer_to(txn: Transaction, wanted: Reservation, now: Instant) -> Answer:
    """What it would be answered now. Raises BadInput for a window that cannot be one."""
    picture = Picture(txn.policy, txn.live_leases(), txn.reservations(now))
    try:
        return decide_reservation(picture, wanted, now)
    except ValueError as error:
        raise BadInput(f"This cannot be reserved: {error}") from error


def _tell(txn: Transaction, reservation: Reservation, now: Instant, what: str, who: str) -> None:
    ledger = txn.ledger([])
    tell(ledger, reservation, now, what, who=who)
    txn.save(ledger, [])


def _count(txn: Transaction, accepted: Reservation, answer: Answer, now: Instant, who: str) -> None:
    """Give the notices it needs, and count it from now on."""
    ledger = txn.ledger(None)
    leases = {lease.id: lease for lease in txn.live_leases()}
    taken: list[Lease] = []
    if not isinstance(answer, Red):
        taken = [
            ledger.take_back(leases[one.lease.id], one.ends_at, accepted.id, now, who=who)
            for one in answer.endings
        ]
    leases |= {lease.id: lease for lease in taken}
    others = [one for one in txn.reservations(now) if one.id != accepted.id]
    reserve(ledger, accepted, leases.values(), others, now, who=who)
    txn.put_reservations([accepted])
    txn.save(ledger, taken)
