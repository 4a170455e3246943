"""Reservations while a scenario is played: asked for, begun, shrunk and over, and what they cost unused. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hub_ext.core.clock import Instant
from hub_ext.quota.budget import LONGEST_SLICE, binding
from hub_ext.quota.calendar import Amber, Picture, Red, decide_reservation
from hub_ext.quota.ledger import TAKEN_BACK
from hub_ext.quota.model import Reservation
from hub_ext.quota.played_state import PlayedState
from hub_ext.quota.windows import account_id, accrue_unused, cancel, next_edge, reserve, turn_windows


@dataclass
class PlayedWindows(PlayedState):
    turned_at: Instant = -1
    """When windows were looked at last."""

    def _reserve(self, wanted: Reservation) -> None:
        """Count it where it fits within the guarantee of its pool, or was approved; take back what is in its way."""
        if wanted.id in self.reservations:
            raise ValueError(f"there is a reservation {wanted.id!r} already; give it another id")
        picture = Picture(self.policy, tuple(self.live.values()), tuple(self.reservations.values()))
        answer = decide_reservation(picture, wanted, self.now)
        if isinstance(answer, Red):
            times = {"before": answer.before, "after": answer.after}
            nearest = {key: None if at is None else self.policy.local(at) for key, at in times.items()}
            self.transcript.tell(wanted.id, "refuse", "red", {"pool": wanted.pool, **nearest})
            return
        facts: dict[str, Any] = {"pool": wanted.pool}
        ends = {
            "ends_at": self.transcript.iso(wanted.end),
            "reclaims": [one.lease.id for one in answer.endings],
        }
        if isinstance(answer, Amber):
            facts["approver"] = answer.approver
        if isinstance(answer, Amber) and not wanted.approved:
            self.transcript.tell(wanted.id, "wait", "amber", facts, **ends)
            return
        self.transcript.tell(wanted.id, "admit", None, facts, guaranteed=True, **ends)
        for one in answer.endings:
            taken = self.ledger.take_back(self.live[one.lease.id], one.ends_at, wanted.id, self.now)
            self._put(taken)
            self.transcript.change(taken, "noticed", TAKEN_BACK, {"reservation": wanted.id})
        self._count_reservation(replace(wanted, approved=True))

    def _count_reservation(self, reservation: Reservation) -> None:
        others = tuple(self.reservations.values())
        reserve(self.ledger, reservation, self.live.values(), others, self.now)
        self.reservations[reservation.id] = reservation
        self.turned_at = -1

    def _cancel(self, reservation_id: str) -> None:
        self._accrue_unused()
        cancel(self.ledger, self.reservations.pop(reservation_id), list(self.live.values()), self.now)
        self._promote([lease for lease in self.live.values() if not lease.guaranteed])

    def _turn_windows(self) -> bool:
        """Windows that begin, shrink to what is in use, or are over."""
        edge = next_edge(self.reservations.values(), self.turned_at)
        if edge is None or edge > self.now:
            return False
        self.turned_at = self.now
        self._accrue_unused()
        charged = len(self.ledger.entries)
        for shrunk in turn_windows(
            self.ledger, self.reservations.values(), list(self.live.values()), self.now
        ):
            self.reservations[shrunk.id] = shrunk
        self.reservations = {name: one for name, one in self.reservations.items() if one.end > self.now}
        if charged == len(self.ledger.entries):
            return False
        self.plan_is_due = True
        self.look_at = self.now
        self._promote([lease for lease in self.live.values() if not lease.guaranteed])
        return True

    def _accrue(self) -> None:
        for lease in list(self.live.values()):
            self._put(self.ledger.accrue(lease, self.now))
        self._accrue_unused()

    def _accrue_unused(self) -> None:
        """Charge what is held and not in use to the pools it is held for."""
        for reservation in self.reservations.values():
            account = self.leases.get(account_id(reservation))
            inside = [
                lease
                for lease in self.inside.get(reservation.id, {}).values()
                if account is None or lease.id != account.id
            ]
            account = accrue_unused(
                self.ledger,
                reservation,
                account,
                inside,
                self.now,
                since=self.since,
            )
            if account is not None:
                self._put(account)

    def _unused_due(self) -> list[Instant]:
        """What nobody uses draws on budgets, too: look at them after every slice of it."""
        bound = (
            one
            for one in self.reservations.values()
            if one.start <= self.now < one.end and binding(self.policy, self.policy.path(one.pool), "")
        )
        return [self.now + LONGEST_SLICE] if any(True for _ in bound) else []
