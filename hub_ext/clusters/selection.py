"""From what a client sent to a `ClusterSelection`, and back.

Whatever comes in is never trusted: any shape of JSON ends as a selection of things that exist, or as `BadSelection`
with a sentence that says what there is to choose from, in the language of `say`. The saved form is the gateway's
options: `{profile, pool, minutes, idle_minutes, image, environment, server}`, each of them optional.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from hub_ext.clusters.model import ClusterCatalogue, ClusterProfile, ClusterSelection
from hub_ext.clusters.policy import (
    IDLE_MINUTES,
    IDLE_MINUTES_DEFAULT,
    LONGEST_VALUE,
    MOST_VARIABLES,
    may_set,
)
from hub_ext.core.untrusted import BadSelection, echo, is_pool_name, whole_minutes

PROFILE: Final = "profile"
POOL: Final = "pool"
MINUTES: Final = "minutes"
IDLE: Final = "idle_minutes"
IMAGE: Final = "image"
ENVIRONMENT: Final = "environment"
SERVER: Final = "server"
FIELDS: Final = (PROFILE, POOL, MINUTES, IDLE, IMAGE, ENVIRONMENT, SERVER)

LONGEST_SERVER: Final = 255

__all__ = [
    "FIELDS",
    "BadSelection",
    "Say",
    "in_english",
    "parse_selection",
    "refused",
    "selection_to_options",
]


class Say(Protocol):
    """One language."""

    def __call__(self, message: str, /, **values: object) -> str: ...


def in_english(message: str, /, **values: object) -> str:
    """For a program that reads no other language."""
    return message.format(**values)


def parse_selection(
    options: object, catalogue: ClusterCatalogue, visible_slugs: Collection[str], say: Say = in_english
) -> ClusterSelection:
    """What was chosen. Raises BadSelection for anything else.

    A value of null counts as not sent. Without a profile the first visible one is taken. What is not visible is
    refused in the same words as what does not exist. That the pool is one of the person's is the quota's to say.
    """
    # 1. An object whose names are texts, and no others than ours.
    sent = _object(options, say)
    for name in sent:
        if name not in FIELDS:
            what = say("{name} is nothing that can be chosen for a cluster.", name=told(name))
            raise refused(what, say, field=echo(name), known=FIELDS)
    # 2. Its profile, among those that this person sees.
    profile = _profile(sent.get(PROFILE), catalogue, visible_slugs, say)
    # 3. Where, for how long, and in what.
    return ClusterSelection(
        profile=profile.slug,
        pool=_pool(sent.get(POOL), say),
        minutes=_minutes(sent.get(MINUTES), profile, say),
        idle_minutes=_idle(sent.get(IDLE), say),
        image=_image(sent.get(IMAGE), profile, say),
        environment=_environment(sent.get(ENVIRONMENT), say),
        server=_server(sent.get(SERVER), say),
    )


def selection_to_options(selection: ClusterSelection) -> dict[str, Any]:
    """The saved form, which `parse_selection` reads back as the same selection."""
    options: dict[str, Any] = {
        PROFILE: selection.profile,
        POOL: selection.pool,
        MINUTES: selection.minutes,
        IDLE: selection.idle_minutes,
        IMAGE: selection.image,
        ENVIRONMENT: dict(selection.environment) or None,
        SERVER: selection.server,
    }
    return {name: value for name, value in options.items() if value is not None}


def refused(what: str, say: Say, *, field: str, known: Sequence[str] = (), instead: str = "") -> BadSelection:
    """The refusal of a choice: what is wrong, and what to do instead; by default one of the `known`."""
    step = instead or say("Choose one of: {names}.", names=", ".join(known))
    return BadSelection(f"{what} {step}", field, known)


def told(value: object) -> str:
    """A value as it may stand in a sentence of any language: as JSON writes it, and shortened."""
    match value:
        case str():
            return f"'{echo(value)}'"
        case bool():
            return "true" if value else "false"
        case float():
            return str(value)
        case int():
            return str(value) if abs(value) < 10**9 else "…"
        case Mapping():
            return "{…}"
        case list() | tuple():
            return "[…]"
        case _:
            return "…"


# -- the parts --------------------------------------------------------------------------------------------------------


def _object(options: object, say: Say) -> dict[str, object]:
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise refused(
            say("The choices must be an object whose names are texts."),
            say,
            field="",
            instead=say("Send for example {example}.", example='{"profile": "cpu"}'),
        )
    return {name: value for name, value in options.items() if value is not None}


def _profile(
    value: object, catalogue: ClusterCatalogue, visible: Collection[str], say: Say
) -> ClusterProfile:
    open_to_them = [profile for profile in catalogue if profile.slug in visible]
    if not open_to_them:
        ask = say("Ask the lead of your institution.")
        raise refused(say("No cluster is open to you."), say, field=PROFILE, instead=ask)
    if value is None:
        return open_to_them[0]
    profile = catalogue.get(value) if isinstance(value, str) else None
    if profile is None or profile not in open_to_them:
        what = say("There is no cluster {name} for you.", name=told(value))
        raise refused(what, say, field=PROFILE, known=[one.slug for one in open_to_them])
    return profile


def _pool(value: object, say: Say) -> str | None:
    if value is None or is_pool_name(value):
        return value
    what = say("{value} is no name of a pool.", value=told(value))
    raise refused(what, say, field=POOL, instead=say("Write the pool's name as the menu shows it."))


def _minutes(value: object, profile: ClusterProfile, say: Say) -> int | None:
    """Any length up to the longest that the profile offers: a shorter one does nobody harm."""
    if value is None:
        return None
    offered = [str(minutes) for minutes in profile.minutes]
    minutes = whole_minutes(value)
    if minutes < 1:
        what = say("{value} is no length in whole minutes.", value=told(value))
        free = say("Write whole minutes from 1 to 99999, or none for as long as your pool allows.")
        raise refused(what, say, field=MINUTES, known=offered, instead="" if offered else free)
    if profile.minutes and minutes > max(profile.minutes):
        what = say("{minutes} minutes are more than {profile} offers.", minutes=minutes, profile=profile.slug)
        raise refused(what, say, field=MINUTES, known=offered)
    return minutes


def _idle(value: object, say: Say) -> int:
    if value is None:
        return IDLE_MINUTES_DEFAULT
    minutes = whole_minutes(value)
    if minutes not in IDLE_MINUTES:
        what = say("{value} is no choice of minutes that a cluster may idle.", value=told(value))
        raise refused(what, say, field=IDLE, known=[str(minutes) for minutes in IDLE_MINUTES])
    return minutes


def _image(value: object, profile: ClusterProfile, say: Say) -> str | None:
    """The name of an image of the catalogue; never a reference of the person's own."""
    if value is None or value == "":
        return None
    names = [image.name for image in profile.images]
    if not isinstance(value, str) or value not in names:
        what = say("{value} is no image for {profile}.", value=told(value), profile=profile.slug)
        own = say("Leave it out: the cluster runs what your notebook runs.")
        raise refused(what, say, field=IMAGE, known=names, instead="" if names else own)
    return value


def _environment(value: object, say: Say) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        example = say("Send for example {example}.", example='{"NAME": "value"}')
        what = say("The environment must be an object.")
        raise refused(what, say, field=ENVIRONMENT, instead=example)
    if len(value) > MOST_VARIABLES:
        what = say("{count} variables are too many.", count=len(value))
        raise refused(what, say, field=ENVIRONMENT, instead=say("Set at most {most}.", most=MOST_VARIABLES))
    for name, text in value.items():
        if not isinstance(name, str) or not may_set(name):
            what = say("The variable {name} cannot be set.", name=told(name))
            ours = say("Use letters, digits and _, and no name that the hub, Dask, CUDA or the system sets.")
            raise refused(what, say, field=ENVIRONMENT, instead=ours)
        if not isinstance(text, str) or len(text) > LONGEST_VALUE or not text.isprintable():
            what = say("The value of {name} cannot be used.", name=echo(name))
            line = say("Write one line of at most {most} characters, as a text.", most=LONGEST_VALUE)
            raise refused(what, say, field=ENVIRONMENT, instead=line)
    return dict(value)


def _server(value: object, say: Say) -> str | None:
    """The name of a server; that it is the person's own and runs is looked up when it is used."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > LONGEST_SERVER or "/" in value or not value.isprintable():
        what = say("{value} is no name of a server.", value=told(value))
        own = say("Leave it out, or send the name that HANGANG_SERVER holds.")
        raise refused(what, say, field=SERVER, instead=own)
    return value
