"""The shape of a profile's file: what may stand where, and the editors' schema made from it.

What depends on other files (GPU classes, roles, pools) or on other parts of the same file is `loader`'s to check.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

from hub_ext.document_fields import (
    SLUG,
    AudienceDoc,
    Environment,
    ImageName,
    MinutesDoc,
    Order,
    Resources,
    Slug,
    Strict,
    TextDoc,
    TitleDoc,
    checked_slug,
    schema_for_editors,
)
from hub_ext.profiles.selection import RESERVED


def _option_name(text: str) -> str:
    if text in RESERVED:
        raise ValueError(f"{text!r} is what every profile has already; give the option another name")
    return checked_slug(text)


_OptionName = Annotated[
    str, AfterValidator(_option_name), WithJsonSchema({"type": "string", "pattern": SLUG})
]


class ChoiceDoc(Strict):
    """One choice. Its resources replace the profile's, each for itself; its environment is added."""

    title: TitleDoc
    resources: Resources = Field(default_factory=dict)
    environment: Environment = Field(default_factory=dict)
    default: Annotated[bool, Field(strict=True)] = False


class OptionDoc(Strict):
    """Something to choose inside the profile. One choice is the default."""

    title: TitleDoc
    choices: dict[Slug, ChoiceDoc]


class ProfileDoc(Strict):
    """A profile of Hangang Hub: one card of the start page. The file's name is the profile's name."""

    title: TitleDoc
    description: TextDoc
    order: Order = 100
    resources: Annotated[
        Resources,
        Field(description="Kubernetes quantities: cpu: 2, memory: 8Gi, gpu.h200: 1. Asks round up."),
    ]
    options: dict[_OptionName, OptionDoc] = Field(default_factory=dict)
    minutes: MinutesDoc | None = None
    audience: AudienceDoc = Field(default=AudienceDoc(), alias="for")
    teaching: Annotated[
        bool, Field(strict=True, description="For a course or workshop that is open now.")
    ] = False
    image: ImageName | None = None
    environment: Environment = Field(default_factory=dict)


def json_schema(roles: Collection[str]) -> dict[str, Any]:
    """The JSON Schema of a profile's file, for editors; `spawner_profiles/schema.json` holds it."""
    return schema_for_editors(ProfileDoc, "A profile of Hangang Hub", roles)
