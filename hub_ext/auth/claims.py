"""What is claimed about people, and the rules about it, as frozen data.

| word | |
|---|---|
| claims | what an identity provider says of somebody who signed in there: a JSON object, of which nothing is trusted |
| issuer, subject | who says it, and the provider's own lasting name of the person: both together are the person |
| rule | conditions on claims, and the pools and roles that it gives where all of them hold |
| table | which text of a claim stands for which pools (or roles); a claim's text never names a pool by itself |
| entry | one person of the identity document, named by hand |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hub_ext.auth.patterns import Pattern

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?", re.ASCII)
"""What the hub, a path of its pages, and a label of a pod all take as it stands."""

MOST_VALUES: Final = 5_000
"""More than any provider says of one person; counted over everything that is claimed."""
DEEPEST: Final = 20
LONGEST_IDENTIFIER: Final = 255
"""Of a subject (OpenID Connect Core, section 2); issuers are held to it too."""

Value = str | bool | int | float
ClaimPath = tuple[str, ...]
"""Where a claim stands: `("realm_access", "roles")`."""
Words = Mapping[str, str]
"""A text by language (`en`, `ko`)."""


def is_user_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


class UnusableClaims(ValueError):
    """Claims that say nothing about anybody; the text says why, in a few words."""


@dataclass(frozen=True, slots=True)
class Claims:
    """Made by `read_claims`, so that issuer, subject and size are in order."""

    issuer: str
    subject: str
    data: Mapping[str, Any]

    def values(self, path: ClaimPath) -> tuple[Value, ...]:
        """The claim's values: those of a list, or the one it is. Empty texts, null and objects are no values."""
        found: Any = self.data
        for step in path:
            if not isinstance(found, Mapping) or step not in found:
                return ()
            found = found[step]
        several = found if isinstance(found, list | tuple) else [found]
        return tuple(one for one in several if _is_value(one))


def _is_value(found: object) -> bool:
    return isinstance(found, bool | int | float) or (isinstance(found, str) and bool(found.strip()))


def read_claims(data: object) -> Claims:
    """Claims as a provider sent them. Raises UnusableClaims for anything that is none."""
    if not isinstance(data, Mapping):
        raise UnusableClaims("they are no JSON object")
    if _is_too_large(data):
        raise UnusableClaims("they are too many or nested too deeply")
    return Claims(_identifier(data, "iss"), _identifier(data, "sub"), data)


def _identifier(data: Mapping[str, Any], claim: str) -> str:
    text = data.get(claim)
    if not isinstance(text, str) or not text or not text.isprintable() or len(text) > LONGEST_IDENTIFIER:
        raise UnusableClaims(f"{claim} is no text of 1 to {LONGEST_IDENTIFIER} characters")
    return text


def _is_too_large(data: object) -> bool:
    """Looks level by level, so that depth costs no stack."""
    level, count = [data], 0
    for _ in range(DEEPEST):
        below: list[object] = []
        for one in level:
            below += (
                one.values() if isinstance(one, Mapping) else one if isinstance(one, list | tuple) else ()
            )
            if count + len(below) > MOST_VALUES:
                return True
        if not below:
            return False
        count += len(below)
        level = below
    return True


# -- rules ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Equals:
    """The claim has this one value and no other."""

    value: Value


@dataclass(frozen=True, slots=True)
class Contains:
    """One of the claim's values is one of these."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Matches:
    """One of the claim's texts fits the pattern; the words it keeps are the first fitting text's."""

    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Present:
    """The claim has a value, or, where it is not `wanted`, none."""

    wanted: bool


@dataclass(frozen=True, slots=True)
class Condition:
    claim: ClaimPath
    test: Equals | Contains | Matches | Present


@dataclass(frozen=True, slots=True)
class Table:
    """Which pools (or roles) a text stands for, in the order of the document."""

    name: str
    entries: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a table has for a claim's values, or for the word that a condition of the same rule kept."""

    table: Table
    of: ClaimPath | str


Given = tuple[str | Lookup, ...]
"""Names as they stand, and names looked up in tables."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Where all conditions hold it gives its pools and roles, or, with `refuses`, keeps the person out."""

    name: str
    when: tuple[Condition, ...]
    pools: Given = ()
    roles: Given = ()
    refuses: Words | None = None
    """What the person is told."""


@dataclass(frozen=True, slots=True)
class UserName:
    """Which claim names a person in the hub; with a pattern, the one word that it keeps."""

    claim: ClaimPath = ("preferred_username",)
    pattern: Pattern | None = None


# -- the document ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One person of the identity document. `pools` is exact membership; the first is the one they start from."""

    name: str
    pools: tuple[str, ...]
    roles: frozenset[str]
    title: Words = field(default_factory=dict)
    """What they are called on pages, by language (`en`, `ko`)."""
    subject: str = ""
    """The provider's name of this person; without one the entry is for the demo's sign-in alone."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity document: who is known by user name, and by which rules; both in the order of the file."""

    people: Mapping[str, Entry] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    user_name: UserName = UserName()
    issuers: tuple[str, ...] = ()
    """Whose claims count; empty: whose the hub's settings name."""
    ask: Words = field(default_factory=dict)
    """Whom somebody asks who is refused."""

    @property
    def knows_claims(self) -> bool:
        """Whether anybody could be let in by what a provider claims."""
        return bool(self.rules) or any(entry.subject for entry in self.people.values())
