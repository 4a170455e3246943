"""Reservations at the desk: who may ask, approve and give up, and the use cases, each one short transaction.

Leads reserve for the pools they answer for. What needs more than the pool's own guarantee waits until a lead of the
pool that covers it, or of one above it, has agreed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hub_ext.core.amounts import Amounts
from hub_ext.core.clock import DAY, Instant
from hub_ext.desk.access import Access
from hub_ext.desk.pool_facts import pools_open_to
from hub_ext.quota.booking import new_id
from hub_ext.quota.calendar import Amber, Answer, Red
from hub_ext.quota.model import Policy, Reservation
from hub_ext.quota.ports import Store, Transaction
from hub_ext.quota.reserving import answer_to, approve, ask_to_reserve, give_up
from hub_ext.quota.service import Admission

MOST_AHEAD = 100
"""So many reservations of one pool may be kept: every admission looks at each start ahead of it."""
LONGEST_AHEAD = 366 * DAY


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody asks to hold for a pool in [start, end)."""

    pool: str
    amounts: Amounts
    start: Instant
    end: Instant
    title: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """A reservation that is kept, and how it stands: while it waits, `answer` is what it would be answered now."""

    reservation: Reservation
    answer: Answer | None = None

    @property
    def approver(self) -> str | None:
        """The pool whose leads, or those above it, have to agree."""
        waits = isinstance(self.answer, Amber) and not self.reservation.approved
        return self.answer.approver if waits and isinstance(self.answer, Amber) else None


@dataclass(frozen=True, slots=True)
class TooMany:
    """The pool keeps as many as one may."""

    pool: str


@dataclass(frozen=True, slots=True)
class TooFar:
    """It ends later than anybody may plan."""

    latest: Instant


@dataclass(frozen=True, slots=True)
class NotTheirs:
    """They see it, and it is for others to approve."""

    approver: str


@dataclass(frozen=True, slots=True)
class Counts:
    """There is nothing to approve: it counts already."""


Objection = Red | TooMany | TooFar | NotTheirs | Counts


class Reservations:
    """Makes, approves, gives up and shows reservations. None stands for "there is no such thing for them"."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    @property
    def _store(self) -> Store:
        return self._admission.store

    def seen(self, access: Access, pool: str | None = None) -> tuple[Policy, list[Reservation]]:
        """Those that are not over of the pools that are open to them, the first to begin first."""
        with self._store.reading() as txn:
            policy = txn.policy
            found = [one for one in self._open(txn, access) if pool is None or one.pool == pool]
            return policy, found

    def one(self, access: Access, reservation_id: str) -> Standing | None:
        with self._store.reading() as txn:
            found = self._find(txn, access, reservation_id)
            return None if found is None else self._standing(txn, found)

    def ask(self, access: Access, draft: Draft) -> Standing | Objection | None:
        """Raises BadInput for a window that cannot be one."""
        with self._store.booking() as txn:
            # 1. A pool that they do not answer for looks like one that is not there.
            if not access.leads(txn.policy, draft.pool):
                return None
            # 2. What stands against it.
            now = self._now(txn)
            if draft.end > now + LONGEST_AHEAD:
                return TooFar(now + LONGEST_AHEAD)
            if sum(one.pool == draft.pool for one in txn.reservations(now)) >= MOST_AHEAD:
                return TooMany(draft.pool)
            # 3. Decide, and keep it unless it does not fit.
            wanted = Reservation(
                new_id(), draft.pool, draft.amounts, draft.start, draft.end, title=draft.title
            )
            answer = ask_to_reserve(txn, wanted, now, who=access.person.name)
            return answer if isinstance(answer, Red) else Standing(self._kept(txn, wanted.id), answer)

    def approve(self, access: Access, reservation_id: str) -> Standing | Objection | None:
        with self._store.booking() as txn:
            found = self._find(txn, access, reservation_id)
            if found is None:
                return None
            if found.approved:
                return Counts()
            # What it needs may have changed since it was asked for: a lead of what it needs now agrees.
            now = self._now(txn)
            answer = answer_to(txn, found, now)
            if isinstance(answer, Red):
                return answer
            approver = answer.approver if isinstance(answer, Amber) else found.pool
            if not access.leads(txn.policy, approver):
                return NotTheirs(approver)
            approve(txn, reservation_id, now, who=access.person.name)
            return Standing(self._kept(txn, reservation_id), answer)

    def give_up(self, access: Access, reservation_id: str) -> bool | None:
        """False where they see it, and it is for those who lead its pool to give up."""
        with self._store.booking() as txn:
            found = self._find(txn, access, reservation_id)
            if found is None:
                return None
            if found.pool in txn.policy.pools and not access.leads(txn.policy, found.pool):
                return False
            give_up(txn, reservation_id, self._now(txn), who=access.person.name)
            return True

    # -- parts ------------------------------------------------------------------------------------------------------

    def _open(self, txn: Transaction, access: Access) -> Sequence[Reservation]:
        pools = set(pools_open_to(access, txn.policy))
        return [
            one
            for one in txn.reservations(self._now(txn))
            if one.pool in pools or (access.operates and one.pool not in txn.policy.pools)
        ]

    def _find(self, txn: Transaction, access: Access, reservation_id: str) -> Reservation | None:
        return next((one for one in self._open(txn, access) if one.id == reservation_id), None)

    def _standing(self, txn: Transaction, found: Reservation) -> Standing:
        if found.approved or found.pool not in txn.policy.pools:
            return Standing(found)
        return Standing(found, answer_to(txn, found, self._now(txn)))

    def _kept(self, txn: Transaction, reservation_id: str) -> Reservation:
        return next(one for one in txn.reservations(self._now(txn)) if one.id == reservation_id)

    def _now(self, txn: Transaction) -> Instant:
        """Never before the newest entry of the ledger."""
        return max(self._admission.clock.now(), txn.latest())
