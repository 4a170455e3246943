"""What happens while a scenario is played, in the words of `hub-ext simulate`: JSON values, in order. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hub_ext.core.clock import Instant
from hub_ext.core.decision import Admit, Refuse, plain, verdict
from hub_ext.quota.model import Lease, Outlook, Policy, Ticket


@dataclass
class Transcript:
    """`now` and `policy` are those of the moment that is played."""

    policy: Policy
    now: Instant = 0
    decisions: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, ask_id: str, decision: Admit | Refuse) -> None:
        """An ask was admitted or refused."""
        admit = decision if isinstance(decision, Admit) else None
        code = None if isinstance(decision, Admit) else decision.code.value
        self.tell(
            ask_id,
            verdict(decision),
            code,
            decision.facts,
            guaranteed=admit.guaranteed if admit else None,
            lender=admit.lender if admit else None,
            ends_at=self.iso(admit.ends_at) if admit else None,
        )

    def answer_waiting(self, ask_id: str, outlook: Outlook) -> None:
        """An ask has to wait, and how it stands."""
        eta = None if outlook.eta is None else {"at": self.iso(outlook.eta.at), "kind": outlook.eta.kind}
        self.tell(
            ask_id,
            "wait",
            outlook.code,
            outlook.facts,
            position=outlook.place,
            eta=eta,
            reclaims=list(outlook.reclaims),
        )

    def tell(
        self, ask_id: str, verdict: str, code: str | None, facts: Mapping[str, Any], **more: object
    ) -> None:
        """An answer, with null for all that `more` does not say."""
        nothing: dict[str, object] = {
            "guaranteed": None,
            "lender": None,
            "ends_at": None,
            "position": None,
            "eta": None,
            "reclaims": [],
        }
        entry = {
            "id": ask_id,
            "at": self.iso(self.now),
            "verdict": verdict,
            "code": code,
            "facts": plain(facts),
        }
        self.decisions.append(entry | nothing | more)

    def change(self, lease: Lease, change: str, code: str | None, facts: Mapping[str, Any]) -> None:
        """Something happened to a lease after its ask was answered."""
        self._later(lease.id, change, code, facts, self.iso(lease.ends_at))

    def expired(self, ticket: Ticket, decision: Refuse) -> None:
        """Somebody waits no more: waiting could not cure it."""
        self._later(ticket.id, "expired", decision.code.value, decision.facts, None)

    def iso(self, instant: Instant) -> str:
        return self.policy.local(instant).isoformat()

    def _later(
        self, name: str, change: str, code: str | None, facts: Mapping[str, Any], ends_at: str | None
    ) -> None:
        self.decisions.append(
            {
                "id": name,
                "at": self.iso(self.now),
                "change": change,
                "code": code,
                "facts": plain(facts),
                "ends_at": ends_at,
            }
        )
