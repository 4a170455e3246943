"""What a person may start and how it stands now: the menu of the start page, and a selection turned into an ask."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from hub_ext.core.decision import Decision
from hub_ext.core.people import Person
from hub_ext.core.untrusted import BadSelection
from hub_ext.profiles.catalogue import Catalogue
from hub_ext.profiles.footprint import Footprint, footprint
from hub_ext.profiles.model import Profile, Selection
from hub_ext.profiles.policy import may_start, pools_for, visible
from hub_ext.profiles.selection import from_form, parse_selection, selection_to_options
from hub_ext.profiles.view import Combination
from hub_ext.quota.model import SERVER, Ask, Policy
from hub_ext.quota.service import Admission, Preview, new_lease_id

__all__ = [
    "BadSelection",
    "Chosen",
    "Menu",
    "Profiles",
    "combinations",
    "from_form",
    "may_start",
    "pools_for",
    "visible",
]


@dataclass(frozen=True)
class Menu:
    """Every size a person may start, each with what it would be answered; all numbers from one snapshot."""

    person: Person
    profiles: tuple[Profile, ...]
    preview: Preview
    decisions: Mapping[tuple[str, str, Combination], Decision] = field(default_factory=dict)
    """By profile, pool and combination of choices, for the longest time the profile offers."""
    hidden: tuple[Profile, ...] = ()
    """What the centre offers to others."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A selection that exists, as the quota is asked for it."""

    person: Person
    selection: Selection
    footprint: Footprint
    ask: Ask

    @property
    def options(self) -> dict[str, str | int]:
        """The selection in its saved form, to start the same again."""
        return selection_to_options(self.selection)


class Profiles:
    """The catalogue with the quota behind it."""

    def __init__(self, admission: Admission, catalogue: Catalogue) -> None:
        self.admission = admission
        self.catalogue = catalogue

    async def menu(self, name: str, *, first_ends: bool = True, instead_of: str | None = None) -> Menu:
        """The person's menu now; without `first_ends` for who only asks what would start. Raises StoreUnavailable.

        `instead_of` names a ticket of theirs that whatever they choose takes the place of.
        """
        return await self.admission.in_thread(self._menu, name, first_ends, instead_of)

    def _menu(self, name: str, first_ends: bool, instead_of: str | None) -> Menu:
        person, policy = self._person(name)
        shown = tuple(profile for profile in self.catalogue if visible(profile, person, policy.path))
        keys = {
            new_lease_id(): (profile, pool, combination)
            for profile in shown
            for pool in pools_for(profile, person, policy.path)
            for combination in combinations(profile)
        }
        asks = [self._ask(ask_id, person, *key) for ask_id, key in keys.items()]
        preview = self.admission.preview_now(person, asks, first_ends=first_ends, instead_of=instead_of)
        decisions = {
            (profile.slug, pool, combination): preview.decisions[ask_id]
            for ask_id, (profile, pool, combination) in keys.items()
        }
        hidden = tuple(profile for profile in self.catalogue if profile not in shown)
        return Menu(person, shown, preview, decisions, hidden)

    async def choose(self, name: str, server: str, options: object) -> Chosen:
        """What somebody asked for, checked against what exists. Raises BadSelection, StoreUnavailable."""
        return await self.admission.in_thread(self._choose, name, server, options)

    def _choose(self, name: str, server: str, options: object) -> Chosen:
        # 1. Who asks, as written down when they signed in.
        person, policy = self._person(name)
        # 2. What they chose, among what exists: whether they may is the quota's to say.
        seen = {profile.slug for profile in self.catalogue if visible(profile, person, policy.path)}
        named = options.get("profile") if isinstance(options, Mapping) else None
        selection = parse_selection(
            options, self.catalogue, seen | {slug for slug in self.catalogue.slugs if slug == named}
        )
        profile = self.catalogue.get(selection.profile)
        assert profile is not None
        # 3. From which pool: the one they named, else the first from which they may.
        pools = pools_for(profile, person, policy.path) or person.pools
        pool = selection.pool or next(iter(pools), "")
        # 4. What that takes.
        size = footprint(profile, selection)
        allowed = frozenset(p.slug for p in self.catalogue if may_start(p, person, pool, policy.path))
        person = replace(person, profiles=allowed, any_profile=False)
        ask = Ask(
            id=new_lease_id(),
            person=name,
            pool=pool,
            amounts=size.amounts,
            kind=SERVER,
            profile=profile.slug,
            minutes=size.minutes,
            server=server,
        )
        return Chosen(person, replace(selection, pool=pool), size, ask)

    def _ask(self, ask_id: str, person: Person, profile: Profile, pool: str, combination: Combination) -> Ask:
        choices = {option.name: choice for option, choice in zip(profile.options, combination, strict=True)}
        size = footprint(profile, Selection(profile.slug, choices, pool))
        return Ask(
            id=ask_id,
            person=person.name,
            pool=pool,
            amounts=size.amounts,
            profile=profile.slug,
            minutes=max(profile.minutes, default=None),
        )

    def _person(self, name: str) -> tuple[Person, Policy]:
        with self.admission.store.reading() as txn:
            return txn.person(name) or Person(name), txn.policy


def combinations(profile: Profile) -> Iterator[Combination]:
    """Every combination of the profile's choices, the defaults first."""
    choices = (
        sorted(
            (choice.name for choice in option.choices), key=lambda name: (name != option.default.name, name)
        )
        for option in profile.options
    )
    return itertools.product(*choices)
