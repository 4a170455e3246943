"""The shape of a cluster profile's file, and of the list of images beside them; the editors' schemas made from both.

What depends on other files (GPU classes, images, roles, pools) or on other parts of the same file is `loader`'s to check.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, RootModel

from hub_ext.clusters.policy import MOST_WORKERS
from hub_ext.document_fields import (
    AudienceDoc,
    Environment,
    ImageName,
    MinutesDoc,
    Order,
    Quantity,
    Resources,
    Slug,
    Strict,
    TextDoc,
    TitleDoc,
    schema_for_editors,
)

MOST_THREADS: Final = 256
_DIGEST = re.compile(r"[^@]+@sha256:[0-9a-f]{64}", re.ASCII)
_TAG = re.compile(r"[^@]+:(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})", re.ASCII)


def _pinned(text: str) -> str:
    """An image that is the same on every node and tomorrow: a client and its workers must speak one version of Dask."""
    if _DIGEST.fullmatch(text):
        return text
    tagged = _TAG.fullmatch(text)
    if tagged is None or tagged["tag"] == "latest":
        raise ValueError(
            "the image is not the same tomorrow; give it a tag other than latest, or better a digest: "
            "NAME@sha256:DIGEST"
        )
    return text


class RmmDoc(Strict):
    """Memory that RMM takes of the device: at the start, and at most."""

    pool: Quantity
    maximum: Quantity


class ClusterProfileDoc(Strict):
    """A size of Dask cluster. The file's name is its name."""

    title: TitleDoc
    description: TextDoc
    order: Order = 100
    worker: Annotated[Resources, Field(description="What each worker gets; at most one GPU, or one slice.")]
    threads: (
        Annotated[
            int, Field(ge=1, le=MOST_THREADS, strict=True, description="By default its cores; 1 with a GPU.")
        ]
        | None
    ) = None
    scheduler: Annotated[
        Resources, Field(description="What the scheduler gets; no GPU. It counts towards the quota as well.")
    ]
    rmm: RmmDoc | None = None
    environment: Environment = Field(default_factory=dict)
    images: Annotated[
        list[Slug],
        Field(description="Names from images.yaml, to choose in place of the notebook's own image."),
    ] = Field(default_factory=list)
    most_workers: Annotated[int, Field(ge=1, le=MOST_WORKERS, strict=True)] = 8
    minutes: MinutesDoc | None = None
    audience: AudienceDoc = Field(default=AudienceDoc(), alias="for")


class ImageDoc(Strict):
    """An image with Dask of the notebook's version."""

    title: TitleDoc
    image: Annotated[ImageName, AfterValidator(_pinned)]


class ImagesDoc(RootModel[dict[Slug, ImageDoc]]):
    """The images that clusters may run in place of the notebook's own, by name."""


def json_schema(roles: Collection[str]) -> dict[str, Any]:
    """The JSON Schema of a cluster profile's file; `cluster_profiles/schema.json` holds it."""
    return schema_for_editors(ClusterProfileDoc, "A cluster profile of Hangang Hub", roles)


def images_schema() -> dict[str, Any]:
    """The JSON Schema of `images.yaml`; `cluster_profiles/images.schema.json` holds it."""
    return schema_for_editors(ImagesDoc, "Images for clusters of Hangang Hub", ())
