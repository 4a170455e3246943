"""What is claimed about people, as frozen data: today by the identity document alone.

What an identity provider claims (issuer, subject, groups), and the rules that turn it into pools and roles, will
stand here beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Entry:
    """One person of the identity document. `pools` is exact membership; the first is the one they start from."""

    name: str
    pools: tuple[str, ...]
    roles: frozenset[str]
    title: Mapping[str, str] = field(default_factory=dict)
    """What they are called on pages, by language (`en`, `ko`)."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity document: who is known, by user name, in the order of the file."""

    people: Mapping[str, Entry] = field(default_factory=dict)
