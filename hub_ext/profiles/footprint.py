"""What a selection takes: the profile's amounts and environment, with those of the chosen options over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hub_ext.core.amounts import Amounts
from hub_ext.core.errors import BadInput
from hub_ext.profiles.model import Choice, Profile, Selection


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a server of this selection needs.

    `amounts` are in base units, none of them zero. `minutes` None: as long as the pool's sessions allow.
    """

    amounts: Amounts
    environment: Mapping[str, str] = field(default_factory=dict)
    minutes: int | None = None


def footprint(profile: Profile, selection: Selection) -> Footprint:
    """The profile's footprint with the selection's choices; a choice replaces what it names, nothing else.

    Raises BadInput for a selection of another profile, or one whose choices the profile no longer has (a selection
    saved before the profiles changed).
    """
    if selection.profile != profile.slug:
        raise BadInput(f"the selection is of {selection.profile!r}, not of {profile.slug!r}; choose again")
    amounts, environment = dict(profile.amounts), dict(profile.environment)
    for choice in chosen(profile, selection):
        amounts |= choice.amounts
        environment |= choice.environment
    return Footprint(
        amounts={resource: amount for resource, amount in amounts.items() if amount},
        environment=environment,
        minutes=profile.default_minutes if selection.minutes is None else selection.minutes,
    )


def chosen(profile: Profile, selection: Selection) -> tuple[Choice, ...]:
    """One choice for each of the profile's options, in their order: the selection's, else the default.

    Raises BadInput for an option or a choice that the profile does not have.
    """
    options = {option.name: option for option in profile.options}
    for name in selection.choices:
        if name not in options:
            raise BadInput(f"{profile.slug} no longer has the option {name!r}; choose again")
    return tuple(
        _choice(profile, name, selection.choices[name]) if name in selection.choices else option.default
        for name, option in options.items()
    )


def _choice(profile: Profile, option_name: str, choice_name: str) -> Choice:
    option = next(option for option in profile.options if option.name == option_name)
    for choice in option.choices:
        if choice.name == choice_name:
            return choice
    raise BadInput(f"{profile.slug} no longer has {choice_name!r} for {option_name}; choose again")
