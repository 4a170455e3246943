"""What the documents of servers and of clusters have in common: names, amounts, texts, variables, lengths, audiences.

Each is a pydantic type that refuses with a sentence of two halves: what is wrong; what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from hub_ext.core.amounts import parse_quantity
from hub_ext.core.errors import BadInput

SLUG: Final = r"^[a-z0-9]+(?:-[a-z0-9]+)*$"
"""No double hyphen: form fields are named `profile-option-{profile}--{option}`."""
_RESOURCE: Final = r"^(?:cpu|memory|gpu\.[A-Za-z0-9][-A-Za-z0-9_.]*)$"
_VARIABLE: Final = r"^[A-Za-z_][A-Za-z0-9_]*$"
_RESERVED_PREFIXES: Final = (
    *("JUPYTERHUB_", "JPY_", "HUB_EXT_", "KUBERNETES_", "LD_", "DYLD_"),
    *("CUDA_VISIBLE", "NVIDIA_VISIBLE", "NVIDIA_DRIVER", "NVIDIA_MIG"),
)
_RESERVED_VARIABLES: Final = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "TMPDIR", "IFS", "ENV", "BASH_ENV"),
        *("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP"),
        *("CPU_LIMIT", "CPU_GUARANTEE", "MEM_LIMIT", "MEM_GUARANTEE", "HANGANG_DATA"),
    }
)
"""What the hub, the spawner and the system set themselves: a profile that changed it could break or widen a server."""


def checked_slug(text: str) -> str:
    """A name of a profile, option or choice. Raises ValueError for what is none."""
    if len(text) > 40 or not re.fullmatch(SLUG[1:-1], text):
        raise ValueError(
            f"{_cut(text)} is not a name; use at most 40 small letters and digits, with single hyphens between them"
        )
    return text


def _resource(text: str) -> str:
    if not re.fullmatch(_RESOURCE[1:-1], text):
        raise ValueError(f"{_cut(text)} is not a resource; use cpu, memory or gpu.CLASS")
    return text


def _quantity(value: object) -> object:
    try:
        units = parse_quantity(value)
    except BadInput as error:
        raise ValueError(str(error)) from error
    if not units:
        raise ValueError("nothing of a resource is not an amount; leave the resource out")
    return value


def _variable(text: str) -> str:
    if len(text) > 128 or not re.fullmatch(_VARIABLE[1:-1], text):
        raise ValueError(f"{_cut(text)} is not the name of a variable; use letters, digits and _")
    if text in _RESERVED_VARIABLES or text.startswith(_RESERVED_PREFIXES):
        raise ValueError(f"{text} is set by the hub or the system; remove it or choose another name")
    return text


def _value(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f'{_cut(value)} is not a text; write it in quotes, for example "4"')
    if not value.isprintable() or len(value) > 4096:
        raise ValueError(
            "the text is longer than 4096 characters or has control characters; write plain text"
        )
    return value


def _words(text: str) -> str:
    if not text.strip() or not text.strip().isprintable():
        raise ValueError("the text is empty or has control characters; write one line of plain text")
    return text.strip()


def _image(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", text, re.ASCII):
        raise ValueError(f"{_cut(text)} is not the name of an image; write for example notebook:2026.11")
    return text


def _cut(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


_QUANTITY_SCHEMA = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}
Quantity = Annotated[object, BeforeValidator(_quantity), WithJsonSchema(_QUANTITY_SCHEMA)]
"""A Kubernetes quantity above zero, as it was written."""
Slug = Annotated[str, AfterValidator(checked_slug), WithJsonSchema({"type": "string", "pattern": SLUG})]
Resources = dict[
    Annotated[str, AfterValidator(_resource), WithJsonSchema({"type": "string", "pattern": _RESOURCE})],
    Quantity,
]
Environment = dict[
    Annotated[str, AfterValidator(_variable), WithJsonSchema({"type": "string", "pattern": _VARIABLE})],
    Annotated[str, BeforeValidator(_value)],
]
ImageName = Annotated[str, Field(max_length=255), AfterValidator(_image)]
Order = Annotated[int, Field(ge=0, le=9999, strict=True, description="Cards stand in this order.")]
_Title = Annotated[str, Field(max_length=80), AfterValidator(_words)]
_Text = Annotated[str, Field(max_length=400), AfterValidator(_words)]
_Length = Annotated[int, Field(ge=1, le=99999, strict=True)]


class Strict(BaseModel):
    """A part of a document in which nothing unknown may stand."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TitleDoc(Strict):
    """A short text by language."""

    en: _Title
    ko: _Title | None = None


class TextDoc(Strict):
    """One or two sentences by language."""

    en: _Text
    ko: _Text | None = None


class MinutesDoc(Strict):
    """The lengths offered, in minutes. Without them a server runs as long as the pool's sessions allow."""

    choices: list[_Length]
    default: _Length


class AudienceDoc(Strict):
    """Who sees the profile; what is left out does not restrict. A pool counts with everything below it."""

    roles: list[str] | None = None
    pools: list[str] | None = None


def schema_for_editors(model: type[BaseModel], title: str, roles: Collection[str]) -> dict[str, Any]:
    """The JSON Schema of a document's file, for editors."""
    schema: dict[str, Any] = _for_editors(model.model_json_schema(by_alias=True))
    if "AudienceDoc" in schema.get("$defs", {}):
        schema["$defs"]["AudienceDoc"]["properties"]["roles"]["items"] = {"enum": sorted(roles)}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **schema}


def _for_editors(schema: Any) -> Any:
    """Without titles made from field names, without null, and strict where names follow a pattern."""
    if isinstance(schema, list):
        return [_for_editors(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {
        key: _for_editors(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str)) and not (key == "default" and not value)
    }
    if "patternProperties" in result:
        result["additionalProperties"] = False
    kinds = [part for part in result.pop("anyOf", ()) if part != {"type": "null"}]
    return result | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})
