"""Who is let in, and as whom. Edit this file to change a rule."""

from __future__ import annotations

from hub_ext.auth.claims import Identity
from hub_ext.auth.roles import OPERATOR
from hub_ext.core.people import Person


def person_of(identity: Identity, name: str) -> Person | None:
    """The person with this user name, with their pools and roles; None for somebody the document does not name."""
    entry = identity.people.get(name)
    return None if entry is None else Person(entry.name, pools=entry.pools, roles=entry.roles)


def is_administrator(person: Person) -> bool:
    """Whether the hub lets the person administer it: everybody's servers, all users."""
    return OPERATOR in person.roles


def names(identity: Identity) -> frozenset[str]:
    """Who may sign in."""
    return frozenset(identity.people)


def administrators(identity: Identity) -> frozenset[str]:
    """Whom the hub lets administer it."""
    return frozenset(
        name for name in identity.people if (p := person_of(identity, name)) and is_administrator(p)
    )
