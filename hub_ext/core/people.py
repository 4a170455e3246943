"""Who asks: a person with exact pool memberships and roles."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Person:
    """A person as the quota sees them.

    `pools` is exact membership, not inherited. `any_pool` is the what-if's "everybody is a member everywhere".
    `profiles` are the names they may start; `any_profile` where none were stated.
    """

    name: str
    pools: tuple[str, ...] = ()
    roles: frozenset[str] = field(default_factory=frozenset)
    profiles: frozenset[str] = field(default_factory=frozenset)
    any_pool: bool = False
    any_profile: bool = True

    def member_of(self, pool: str) -> bool:
        return self.any_pool or pool in self.pools

    def may_start(self, profile: str | None) -> bool:
        return self.any_profile or profile is None or profile in self.profiles
