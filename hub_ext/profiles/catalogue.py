"""The catalogue: every profile that the operator offers, in the order of the start page."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from hub_ext.core.errors import BadInput
from hub_ext.profiles.model import Profile


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Profiles in the order of the start page (`order`, then slug); made by `Catalogue.of`."""

    profiles: tuple[Profile, ...] = ()

    @classmethod
    def of(cls, profiles: Iterable[Profile]) -> Catalogue:
        """Raises BadInput where two profiles have the same slug."""
        ordered = tuple(sorted(profiles, key=lambda profile: (profile.order, profile.slug)))
        slugs = [profile.slug for profile in ordered]
        twice = next((slug for slug in slugs if slugs.count(slug) > 1), None)
        if twice is not None:
            raise BadInput(f"there are two profiles {twice!r}; a profile's name tells it from all others")
        return cls(ordered)

    @property
    def slugs(self) -> tuple[str, ...]:
        return tuple(profile.slug for profile in self.profiles)

    def get(self, slug: str) -> Profile | None:
        return next((profile for profile in self.profiles if profile.slug == slug), None)

    def only(self, slugs: Collection[str]) -> Catalogue:
        """The profiles among `slugs`, in the same order; slugs that the catalogue does not have are ignored."""
        return Catalogue(tuple(profile for profile in self.profiles if profile.slug in slugs))

    def __iter__(self) -> Iterator[Profile]:
        return iter(self.profiles)

    def __len__(self) -> int:
        return len(self.profiles)

    def __contains__(self, slug: object) -> bool:
        return any(profile.slug == slug for profile in self.profiles)
