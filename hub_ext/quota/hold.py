"""What somebody in line holds against those behind: room that they will need at a known time (QUOTA.md §5). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hub_ext.core.clock import Instant
from hub_ext.core.decision import Admit
from hub_ext.quota.model import Ticket
from hub_ext.quota.stage import Room


@dataclass
class Hold:
    """The ticket starts at `eta` at the latest.

    `firm`: leases are being taken back for it, and what they free is kept from everybody. Else it was only patient: who
    came before it passes, and whoever would be guaranteed. `after` is the room at `eta`, without the ticket itself; `count`
    of what it asks for are kept there.
    """

    ticket: Ticket
    eta: Instant
    firm: bool
    after: Room
    count: int = 1

    def lets_pass(self, ticket: Ticket, decision: Admit) -> bool:
        """Whether the other ticket, if it starts now, is over by then, or there is room for both."""
        if ticket.id == self.ticket.id or decision.ends_at <= self.eta:
            return True
        if not self.firm and (decision.guaranteed or not self.came_before(ticket)):
            return True
        kept = self.after.keep(ticket.ask, on=decision.node)
        beside = self.after.count_fitting(self.ticket.ask, self.count) == self.count
        self.after.remove(kept)
        return beside

    def came_before(self, ticket: Ticket) -> bool:
        return (self.ticket.made_at, self.ticket.id) < (ticket.made_at, ticket.id)

    def copy(self) -> Hold:
        return Hold(self.ticket, self.eta, self.firm, self.after.copy_room(), self.count)
