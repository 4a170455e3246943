"""Who sees a profile, and from which of their pools they may start it. Edit this file to change a rule.

A profile's audience names roles and pools. A field that is left out does not restrict; where both stand, both must
hold. A pool counts with everything below it: a profile for a university is also there for its courses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from hub_ext.core.people import Person
from hub_ext.profiles.model import Offered

PoolPath = Callable[[str], Iterable[str]] | Mapping[str, Iterable[str]]
"""For each pool, itself and every pool above it. A pool that it does not know (KeyError) opens nothing."""


def visible(profile: Offered, person: Person, path: PoolPath) -> bool:
    """Whether the profile stands on the person's start page."""
    if not person.may_start(profile.slug) or not _has_role(profile, person):
        return False
    return (
        not profile.audience.pools
        or person.any_pool
        or any(_open_to(profile, pool, path) for pool in person.pools)
    )


def may_start(profile: Offered, person: Person, pool: str, path: PoolPath) -> bool:
    """Whether the person may start the profile from this pool: they see it, and the pool is theirs and meant."""
    return visible(profile, person, path) and person.member_of(pool) and _open_to(profile, pool, path)


def pools_for(profile: Offered, person: Person, path: PoolPath) -> tuple[str, ...]:
    """The person's own pools from which they may start the profile, in the person's order."""
    return tuple(pool for pool in person.pools if may_start(profile, person, pool, path))


def _has_role(profile: Offered, person: Person) -> bool:
    return not profile.audience.roles or not profile.audience.roles.isdisjoint(person.roles)


def _open_to(profile: Offered, pool: str, path: PoolPath) -> bool:
    if not profile.audience.pools:
        return True
    try:
        above = path[pool] if isinstance(path, Mapping) else path(pool)
    except KeyError:
        return False
    return not profile.audience.pools.isdisjoint(above)
