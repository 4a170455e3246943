"""From what a browser or a script sent to a `Selection`, and back.

Whatever comes in is never trusted: any shape of JSON ends as a selection of things that exist, or as `BadSelection`
with a sentence that says what there is to choose from. The saved form is KubeSpawner's:
`{profile: SLUG, OPTION: CHOICE, ..., minutes: N, pool: POOL}`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from hub_ext.core.untrusted import (
    LONGEST_ECHO,
    BadSelection,
    bad_selection,
    echo,
    kind_of,
    pool_name,
    sent_object,
    shown,
    whole_minutes,
)
from hub_ext.profiles.catalogue import Catalogue
from hub_ext.profiles.model import Option, Profile, Selection

PROFILE: Final = "profile"
MINUTES: Final = "minutes"
POOL: Final = "pool"
RESERVED: Final = (PROFILE, MINUTES, POOL)
"""Names that an option of a profile cannot have: they stand beside the options in the saved form."""

__all__ = [
    "LONGEST_ECHO",
    "BadSelection",
    "field_name",
    "from_form",
    "parse_selection",
    "selection_to_options",
]


def parse_selection(options: object, catalogue: Catalogue, visible_slugs: Collection[str]) -> Selection:
    """What was chosen, with a choice for each option of the profile. Raises BadSelection for anything else.

    A value of null counts as not sent. Without a profile the only visible one is taken. What is not visible is
    refused in the same words as what does not exist. That the pool is one of the person's is the quota's to say.
    """
    # 1. An object whose names are texts.
    sent = sent_object(options)
    # 2. Its profile, among those that this person sees.
    profile = _profile(sent.pop(PROFILE, None), catalogue.only(visible_slugs))
    # 3. How long, and from which pool.
    minutes = _minutes(sent.pop(MINUTES, None), profile)
    pool = pool_name(sent.pop(POOL, None), POOL)
    # 4. One choice for each option, and nothing else.
    choices = {option.name: _choice(option, sent.pop(option.name, None)) for option in profile.options}
    for name in sent:
        names = [*(option.name for option in profile.options), MINUTES, POOL]
        raise bad_selection(
            f"{shown(name)} is nothing that can be chosen for {profile.slug}", echo(name), names
        )
    return Selection(profile=profile.slug, choices=choices, pool=pool, minutes=minutes)


def selection_to_options(selection: Selection) -> dict[str, str | int]:
    """The saved form, which `parse_selection` reads back as the same selection."""
    options: dict[str, str | int] = {PROFILE: selection.profile, **selection.choices}
    if selection.minutes is not None:
        options[MINUTES] = selection.minutes
    if selection.pool is not None:
        options[POOL] = selection.pool
    return options


def from_form(formdata: Mapping[str, Sequence[str]]) -> dict[str, object]:
    """The form's fields in the saved form, still unchecked.

    Fields are `profile` and, as KubeSpawner names them, `profile-option-{profile}--{option}`, also for minutes and
    pool. Fields of other profiles are left out: the page sends those of every card. An empty field counts as not
    sent.
    """
    profile = _first(formdata.get(PROFILE))
    if profile is None:
        return {}
    prefix = field_name(profile, "")
    options: dict[str, object] = {PROFILE: profile}
    for name, values in formdata.items():
        value = _first(values)
        if name.startswith(prefix) and value is not None:
            # A field `...--profile` must not replace the profile itself: it is refused as unknown.
            option = name.removeprefix(prefix)
            options[name if option == PROFILE else option] = value
    return options


def field_name(profile: str, option: str) -> str:
    """The form's field for an option of a profile, or for its minutes or pool."""
    return f"profile-option-{profile}--{option}"


# -- the parts --------------------------------------------------------------------------------------------------------


def _profile(value: object, visible: Catalogue) -> Profile:
    if not visible.profiles:
        raise bad_selection("no profile is open to you", PROFILE, (), "ask the lead of your institution")
    if value is None:
        if len(visible) == 1:
            return visible.profiles[0]
        raise bad_selection("no profile was chosen", PROFILE, visible.slugs)
    if not isinstance(value, str):
        raise bad_selection(f"the profile came as {kind_of(value)}", PROFILE, visible.slugs)
    profile = visible.get(value)
    if profile is None:
        raise bad_selection(f"there is no profile {shown(value)} for you", PROFILE, visible.slugs)
    return profile


def _choice(option: Option, value: object) -> str:
    if value is None:
        return option.default.name
    names = [choice.name for choice in option.choices]
    if not isinstance(value, str) or value not in names:
        raise bad_selection(f"{shown(value)} is no choice for {option.name}", option.name, names)
    return value


def _minutes(value: object, profile: Profile) -> int | None:
    """Any length up to the longest that the profile offers: a shorter one does nobody harm."""
    if value is None:
        return None
    offered = [str(minutes) for minutes in profile.minutes]
    minutes = whole_minutes(value)
    if minutes < 1:
        instead = (
            "" if offered else "write whole minutes from 1 to 99999, or none for as long as your pool allows"
        )
        raise bad_selection(f"{shown(value)} is no length in whole minutes", MINUTES, offered, instead)
    if profile.minutes and minutes > max(profile.minutes):
        raise bad_selection(f"{minutes} minutes are more than {profile.slug} offers", MINUTES, offered)
    return minutes


def _first(values: Sequence[str] | None) -> str | None:
    """The first value of a form's field, None where it is missing or empty; a file's field is no text."""
    value = values[0] if values else None
    return value if isinstance(value, str) and value else None
