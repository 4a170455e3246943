"""From what a browser or a script sent to a `Selection`, and back.

Whatever comes in is never trusted: any shape of JSON ends as a selection of things that exist, or as `BadSelection`
with a sentence that says what there is to choose from. The saved form is KubeSpawner's:
`{profile: SLUG, OPTION: CHOICE, ..., minutes: N, pool: POOL}`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from hub_ext.core.errors import BadInput
from hub_ext.profiles.catalogue import Catalogue
from hub_ext.profiles.model import Option, Profile, Selection

PROFILE: Final = "profile"
MINUTES: Final = "minutes"
POOL: Final = "pool"
RESERVED: Final = (PROFILE, MINUTES, POOL)
"""Names that an option of a profile cannot have: they stand beside the options in the saved form."""

LONGEST_ECHO: Final = 60
"""At most so many characters of what was sent are shown again."""

_MINUTES = re.compile(r"[0-9]{1,5}", re.ASCII)
_POOL = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", re.ASCII)
_HARMLESS: Final = frozenset(" ._-:/")


class BadSelection(BadInput):
    """What was sent names something that cannot be chosen.

    `field` is where (`profile`, an option's name, `minutes`, `pool`; "" for the whole), `known` what there is to
    choose from. Text that was sent appears shortened and without anything that a page or a log could act on.
    """

    def __init__(self, message: str, field: str = "", known: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.field = field
        self.known = tuple(known)


def parse_selection(options: object, catalogue: Catalogue, visible_slugs: Collection[str]) -> Selection:
    """What was chosen, with a choice for each option of the profile. Raises BadSelection for anything else.

    A value of null counts as not sent. Without a profile the only visible one is taken. What is not visible is
    refused in the same words as what does not exist. That the pool is one of the person's is the quota's to say.
    """
    # 1. An object whose names are texts.
    sent = _object(options)
    # 2. Its profile, among those that this person sees.
    profile = _profile(sent.pop(PROFILE, None), catalogue.only(visible_slugs))
    # 3. How long, and from which pool.
    minutes = _minutes(sent.pop(MINUTES, None), profile)
    pool = _pool(sent.pop(POOL, None))
    # 4. One choice for each option, and nothing else.
    choices = {option.name: _choice(option, sent.pop(option.name, None)) for option in profile.options}
    for name in sent:
        names = [*(option.name for option in profile.options), MINUTES, POOL]
        raise _bad(f"{_shown(name)} is nothing that can be chosen for {profile.slug}", _echo(name), names)
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


def _object(options: object) -> dict[str, object]:
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise _bad(
            f"the choices came as {_kind(options)}", "", (), 'send an object such as {"profile": "NAME"}'
        )
    for name in options:
        if not isinstance(name, str):
            raise _bad(f"the choices hold {_kind(name)} as a name", "", (), "names must be texts")
    return {name: value for name, value in options.items() if value is not None}


def _profile(value: object, visible: Catalogue) -> Profile:
    if not visible.profiles:
        raise _bad("no profile is open to you", PROFILE, (), "ask the lead of your institution")
    if value is None:
        if len(visible) == 1:
            return visible.profiles[0]
        raise _bad("no profile was chosen", PROFILE, visible.slugs)
    if not isinstance(value, str):
        raise _bad(f"the profile came as {_kind(value)}", PROFILE, visible.slugs)
    profile = visible.get(value)
    if profile is None:
        raise _bad(f"there is no profile {_shown(value)} for you", PROFILE, visible.slugs)
    return profile


def _choice(option: Option, value: object) -> str:
    if value is None:
        return option.default.name
    names = [choice.name for choice in option.choices]
    if not isinstance(value, str) or value not in names:
        raise _bad(f"{_shown(value)} is no choice for {option.name}", option.name, names)
    return value


def _minutes(value: object, profile: Profile) -> int | None:
    """Any length up to the longest that the profile offers: a shorter one does nobody harm."""
    if value is None:
        return None
    offered = [str(minutes) for minutes in profile.minutes]
    # No bool, which is an int; no float, NaN among them.
    text = str(value) if type(value) is int and abs(value) < 10**5 else value
    minutes = int(text) if isinstance(text, str) and _MINUTES.fullmatch(text) else 0
    if minutes < 1:
        instead = (
            "" if offered else "write whole minutes from 1 to 99999, or none for as long as your pool allows"
        )
        raise _bad(f"{_shown(value)} is no length in whole minutes", MINUTES, offered, instead)
    if profile.minutes and minutes > max(profile.minutes):
        raise _bad(f"{minutes} minutes are more than {profile.slug} offers", MINUTES, offered)
    return minutes


def _pool(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _POOL.fullmatch(value):
        raise _bad(
            f"{_shown(value)} is no name of a pool",
            POOL,
            (),
            "write the pool's name as the start page shows it",
        )
    return value


# -- sentences --------------------------------------------------------------------------------------------------------


def _bad(what: str, field: str, known: Iterable[str], instead: str = "") -> BadSelection:
    names = tuple(known)
    sentence = f"{what}; {instead or 'choose one of: ' + ', '.join(names)}."
    return BadSelection(f"{sentence[:1].upper()}{sentence[1:]}", field, names)


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f"'{_echo(value)}'"
    small = isinstance(value, float) or (type(value) is int and abs(value) < 10**9)
    return str(value) if small else _kind(value)


def _echo(text: str) -> str:
    """At most `LONGEST_ECHO` characters; letters, digits and a few signs as they are, all others as a question mark."""
    kept = text if len(text) <= LONGEST_ECHO else f"{text[: LONGEST_ECHO - 1]}…"
    return "".join(c if c.isalnum() or c in _HARMLESS or c == "…" else "?" for c in kept)


def _kind(value: object) -> str:
    """What a value is, in words; the value itself may be of any size."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case Mapping():
            return "an object"
        case Sequence():
            return "a list"
        case _:
            return "something else"


def _first(values: Sequence[str] | None) -> str | None:
    """The first value of a form's field, None where it is missing or empty; a file's field is no text."""
    value = values[0] if values else None
    return value if isinstance(value, str) and value else None
