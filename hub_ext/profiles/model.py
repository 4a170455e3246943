"""The frozen data of profiles: what an operator offers, and what a person chose of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hub_ext.core.amounts import Amounts

Words = Mapping[str, str]
"""A text by language: `en`, and where it was written `ko`."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice of an option. `amounts` replace the profile's for the resources it names."""

    name: str
    title: Words
    amounts: Amounts = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    default: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """Something to choose inside a profile; exactly one choice is the default."""

    name: str
    title: Words
    choices: tuple[Choice, ...]

    @property
    def default(self) -> Choice:
        return next(choice for choice in self.choices if choice.default)


@dataclass(frozen=True, slots=True)
class Audience:
    """Who sees a profile; an empty field does not restrict. `pools` count with everything below them."""

    roles: frozenset[str] = frozenset()
    pools: frozenset[str] = frozenset()


class Offered(Protocol):
    """What has a name and an audience: a profile of servers or of clusters."""

    @property
    def slug(self) -> str: ...
    @property
    def audience(self) -> Audience: ...


@dataclass(frozen=True, slots=True)
class Profile:
    """One card of the start page.

    `amounts` are in base units. `minutes` are the lengths offered (none: as long as the pool's sessions allow).
    `teaching` marks a profile that is meant for a course or workshop that is open now.
    """

    slug: str
    title: Words
    description: Words
    amounts: Amounts
    order: int = 100
    options: tuple[Option, ...] = ()
    minutes: tuple[int, ...] = ()
    default_minutes: int | None = None
    audience: Audience = Audience()
    teaching: bool = False
    image: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a person chose: a profile, one choice for each of its options, a pool and a length.

    `pool` None: the person's only (or first) pool. `minutes` None: the profile's default length.
    """

    profile: str
    choices: Mapping[str, str] = field(default_factory=dict)
    pool: str | None = None
    minutes: int | None = None
