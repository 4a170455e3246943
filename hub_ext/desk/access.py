"""Who may see and do what at the desk: their own things, the pools that a lead answers for, or everything.

Roles come from the table of people; what a token may is only ever less. What is not open to somebody looks to them as
if it were not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hub_ext.auth.roles import LEAD as LEAD_ROLE
from hub_ext.auth.roles import OPERATOR as OPERATOR_ROLE
from hub_ext.core.people import Person
from hub_ext.quota.model import Policy

READ: Final = "custom:desk:read"
LEAD: Final = "custom:desk:lead"
OPERATE: Final = "custom:desk:operate"
SCOPES: Final = {
    READ: "Use the desk for oneself: see and change one's own servers, tickets and requests",
    LEAD: "Lead pools at the desk: who uses what in them, grants of hours, reports",
    OPERATE: "Operate the centre at the desk: every pool, the log of decisions, the policy in force",
}
"""Every scope with what it is for, as the hub shows it. Each of the later ones includes those before it."""
_INCLUDED: Final = {READ: (), LEAD: (READ,), OPERATE: (READ, LEAD)}


def included_scopes(scope: str) -> tuple[str, ...]:
    """What a scope includes beside itself."""
    return _INCLUDED[scope]


@dataclass(frozen=True, slots=True)
class Access:
    """What one person may, with the scopes that they came with."""

    person: Person
    scopes: frozenset[str]

    def has(self, scope: str) -> bool:
        """Whether what they came with carries this scope."""
        return any(scope == held or scope in _INCLUDED.get(held, ()) for held in self.scopes)

    @property
    def operates(self) -> bool:
        return OPERATOR_ROLE in self.person.roles and self.has(OPERATE)

    def leads_in(self, policy: Policy) -> frozenset[str]:
        """The pools that they answer for: those they are a member of, and all below; an operator: all."""
        if not self.has(LEAD):
            return frozenset()
        if OPERATOR_ROLE in self.person.roles:
            return frozenset(policy.pools)
        if LEAD_ROLE not in self.person.roles:
            return frozenset()
        own = [pool for pool in self.person.pools if pool in policy.pools]
        return frozenset(name for pool in own for name in policy.subtree(pool))

    def leads(self, policy: Policy, pool: str) -> bool:
        return pool in self.leads_in(policy)

    def may_see_of(self, person: str) -> bool:
        """Whether what belongs to this person (a ticket, a lease) is theirs to see, whatever its pool."""
        return person == self.person.name or self.operates
