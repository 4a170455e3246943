"""What somebody in line holds against those behind: room that they will need at a known time (QUOTA.md §5). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hub_ext.core.clock import Instant
from hub_ext.core.decision import Admit
from hub_ext.quota.model import Ask, Ticket
from hub_ext.quota.stage import Room


@dataclass
class Hold:
    """The ticket starts at `eta` at the latest.

    `firm`: leases are being taken back for it, and what they free is kept from everybody; else it was only patient, and
    an ask that would be guaranteed passes. `after` is the room at `eta`, without the ticket itself.
    """

    ticket: Ticket
    eta: Instant
    firm: bool
    after: Room

    def lets_pass(self, ask: Ask, decision: Admit) -> bool:
        """Whether the ask is over by then, or there is room for both."""
        if ask.id == self.ticket.id or decision.ends_at <= self.eta:
            return True
        if decision.guaranteed and not self.firm:
            return True
        room = self.after.copy_room()
        room.keep(ask, on=decision.node)
        return room.has_room(self.ticket.ask)

    def copy(self) -> Hold:
        return Hold(self.ticket, self.eta, self.firm, self.after.copy_room())
