"""Who a request comes from, once that is known."""

from __future__ import annotations

from dataclasses import dataclass

from hub_ext.core.people import Person
from hub_ext.desk.access import Access
from hub_ext.language import Language, Speaker
from hub_ext.quota.model import Policy


@dataclass(frozen=True, slots=True)
class Caller:
    """A person, with what they may, the policy in force, and the language that the request asks for."""

    person: Person
    access: Access
    policy: Policy
    say: Speaker

    @property
    def name(self) -> str:
        return self.person.name

    @property
    def language(self) -> Language:
        return self.say.language

    @property
    def operates(self) -> bool:
        return self.access.operates

    @property
    def leads(self) -> frozenset[str]:
        """The pools that they answer for."""
        return self.access.leads_in(self.policy)


@dataclass(frozen=True, slots=True)
class Visitor(Caller):
    """A person at a browser. `csrf` goes into every form, and as X-CSRF-Token along with every script's request."""

    csrf: str
