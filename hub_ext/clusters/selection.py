"""From what a client sent to a `ClusterSelection`, and back.

Whatever comes in is never trusted: any shape of JSON ends as a selection of things that exist, or as `BadSelection`
with a sentence that says what there is to choose from. The saved form is the gateway's options:
`{profile, pool, minutes, idle_minutes, image, environment, server}`, each of them optional.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from hub_ext.clusters.model import ClusterCatalogue, ClusterProfile, ClusterSelection
from hub_ext.clusters.policy import (
    IDLE_MINUTES,
    IDLE_MINUTES_DEFAULT,
    LONGEST_VALUE,
    MOST_VARIABLES,
    may_set,
)
from hub_ext.core.untrusted import (
    BadSelection,
    bad_selection,
    echo,
    kind_of,
    pool_name,
    sent_object,
    shown,
    whole_minutes,
)

PROFILE: Final = "profile"
POOL: Final = "pool"
MINUTES: Final = "minutes"
IDLE: Final = "idle_minutes"
IMAGE: Final = "image"
ENVIRONMENT: Final = "environment"
SERVER: Final = "server"
FIELDS: Final = (PROFILE, POOL, MINUTES, IDLE, IMAGE, ENVIRONMENT, SERVER)

LONGEST_SERVER: Final = 255

__all__ = ["FIELDS", "BadSelection", "parse_selection", "selection_to_options"]


def parse_selection(
    options: object, catalogue: ClusterCatalogue, visible_slugs: Collection[str]
) -> ClusterSelection:
    """What was chosen. Raises BadSelection for anything else.

    A value of null counts as not sent. Without a profile the first visible one is taken. What is not visible is
    refused in the same words as what does not exist. That the pool is one of the person's is the quota's to say.
    """
    # 1. An object whose names are texts, and no others than ours.
    sent = sent_object(options)
    for name in sent:
        if name not in FIELDS:
            raise bad_selection(
                f"{shown(name)} is nothing that can be chosen for a cluster", echo(name), FIELDS
            )
    # 2. Its profile, among those that this person sees.
    profile = _profile(sent.get(PROFILE), catalogue, visible_slugs)
    # 3. Where, for how long, and in what.
    return ClusterSelection(
        profile=profile.slug,
        pool=pool_name(sent.get(POOL), POOL),
        minutes=_minutes(sent.get(MINUTES), profile),
        idle_minutes=_idle(sent.get(IDLE)),
        image=_image(sent.get(IMAGE), profile),
        environment=_environment(sent.get(ENVIRONMENT)),
        server=_server(sent.get(SERVER)),
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


# -- the parts --------------------------------------------------------------------------------------------------------


def _profile(value: object, catalogue: ClusterCatalogue, visible: Collection[str]) -> ClusterProfile:
    open_to_them = [profile for profile in catalogue if profile.slug in visible]
    slugs = [profile.slug for profile in open_to_them]
    if not open_to_them:
        raise bad_selection("no cluster is open to you", PROFILE, (), "ask the lead of your institution")
    if value is None:
        return open_to_them[0]
    if not isinstance(value, str):
        raise bad_selection(f"the profile came as {kind_of(value)}", PROFILE, slugs)
    profile = catalogue.get(value)
    if profile is None or profile not in open_to_them:
        raise bad_selection(f"there is no cluster {shown(value)} for you", PROFILE, slugs)
    return profile


def _minutes(value: object, profile: ClusterProfile) -> int | None:
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


def _idle(value: object) -> int:
    if value is None:
        return IDLE_MINUTES_DEFAULT
    minutes = whole_minutes(value)
    if minutes not in IDLE_MINUTES:
        offered = [str(minutes) for minutes in IDLE_MINUTES]
        raise bad_selection(f"{shown(value)} is no choice for how long a cluster may idle", IDLE, offered)
    return minutes


def _image(value: object, profile: ClusterProfile) -> str | None:
    """The name of an image of the catalogue; never a reference of the person's own."""
    if value is None or value == "":
        return None
    names = [image.name for image in profile.images]
    if not isinstance(value, str) or value not in names:
        instead = "" if names else "leave it out: this cluster runs what your notebook runs"
        raise bad_selection(f"{shown(value)} is no image for {profile.slug}", IMAGE, names, instead)
    return value


def _environment(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        instead = 'send an object such as {"NAME": "value"}'
        raise bad_selection(f"the environment came as {kind_of(value)}", ENVIRONMENT, (), instead)
    if len(value) > MOST_VARIABLES:
        what = f"{len(value)} variables are too many"
        raise bad_selection(what, ENVIRONMENT, (), f"set at most {MOST_VARIABLES}")
    for name, text in value.items():
        if not isinstance(name, str) or not may_set(name):
            instead = "use letters, digits and _, and no name that the hub, Dask, CUDA or the system sets"
            raise bad_selection(f"the variable {shown(name)} cannot be set", ENVIRONMENT, (), instead)
        if not isinstance(text, str) or len(text) > LONGEST_VALUE or not text.isprintable():
            instead = f"write one line of at most {LONGEST_VALUE} characters, as a text"
            raise bad_selection(f"the value of {echo(name)} cannot be used", ENVIRONMENT, (), instead)
    return dict(value)


def _server(value: object) -> str | None:
    """The name of a server; that it is the person's own and runs is looked up when it is used."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > LONGEST_SERVER or "/" in value or not value.isprintable():
        instead = "leave it out, or send the name that HANGANG_SERVER holds"
        raise bad_selection(f"{shown(value)} is no name of a server", SERVER, (), instead)
    return value
