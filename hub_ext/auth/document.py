"""Reads the identity document (`policy/identity.yaml`): who is known, in which pools, in which roles.

Every fault is named with its line and what to write instead; a document with a fault changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from hub_ext.auth.claims import Entry, Identity
from hub_ext.auth.roles import ROLES
from hub_ext.core.errors import Fault, FaultyDocument
from hub_ext.documents import Document, Place, parse_document, read_document, validate

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?", re.ASCII)
"""What the hub, a path of its pages, and a label of a pod all take as it stands."""


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        shown = repr(text) if len(text) <= 40 else f"{text[:40]!r}…"
        raise ValueError(
            f"{shown} is no user name; use at most 63 small letters, digits and . _ - inside, as in kim.minji"
        )
    return text


def _words(text: str) -> str:
    if not text.strip() or not text.strip().isprintable():
        raise ValueError("the text is empty or has control characters; write one line of plain text")
    return text.strip()


def _not_yet(value: object) -> object:
    raise ValueError(
        "rules that turn an identity provider's claims into pools and roles are not supported yet; "
        "remove them and name each person under people"
    )


_Name = Annotated[str, AfterValidator(_name)]
_Words = Annotated[str, Field(max_length=80), AfterValidator(_words)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _PersonDoc(_Strict):
    """One person."""

    title: dict[Literal["en", "ko"], _Words] = Field(default_factory=dict)
    pools: list[str]
    roles: list[str]


class _IdentityDoc(_Strict):
    """The people of a centre by user name, with their pools and roles."""

    version: Literal[1] = 1
    people: dict[_Name, _PersonDoc]
    rules: Annotated[object, BeforeValidator(_not_yet)] = None


def load_identity(path: Path, pools: Collection[str] | None) -> Identity:
    """Read an identity file. Raises FaultyDocument with every fault.

    `pools` are the policy's; None accepts any, for a check without the policy at hand.
    """
    return identity_of(read_document(path), pools)


def parse_identity(text: str, pools: Collection[str] | None, file: str = "identity") -> Identity:
    """Read an identity document from text. Raises FaultyDocument with every fault."""
    return identity_of(parse_document(text, file), pools)


def identity_of(document: Document, pools: Collection[str] | None) -> Identity:
    """The identity of a parsed document. Raises FaultyDocument with every fault."""
    if document.data is None:
        raise FaultyDocument(
            [document.fault((), "the file is empty", "Write people: with at least one person.")]
        )
    doc = validate(_IdentityDoc, document)
    faults = []
    if not doc.people:
        faults.append(
            document.fault(("people",), "people: nobody could sign in", "Name at least one person.")
        )
    for name, person in doc.people.items():
        place = ("people", name)
        faults += _list_faults(document, (*place, "pools"), "pool", person.pools, pools)
        faults += _list_faults(document, (*place, "roles"), "role", person.roles, ROLES)
    if faults:
        raise FaultyDocument(faults)
    return Identity(
        {
            name: Entry(
                name,
                tuple(person.pools),
                frozenset(person.roles),
                {str(k): v for k, v in person.title.items()},
            )
            for name, person in doc.people.items()
        }
    )


def dump_identity(identity: Identity) -> dict[str, Any]:
    """The identity as plain data that `identity_of` reads back as the same."""
    return {
        "version": 1,
        "people": {
            name: {"title": dict(entry.title), "pools": list(entry.pools), "roles": sorted(entry.roles)}
            for name, entry in identity.people.items()
        },
    }


def _list_faults(
    document: Document, place: Place, kind: str, names: Iterable[str], known: Collection[str] | None
) -> Iterable[Fault]:
    dotted = ".".join(str(step) for step in place)
    seen: set[str] = set()
    for index, name in enumerate(names):
        if known is not None and name not in known:
            what = f"{dotted}: there is no {kind} {name!r}"
            yield document.fault((*place, index), what, f"Use one of: {', '.join(sorted(known))}.")
        if name in seen:
            yield document.fault(
                (*place, index), f"{dotted}: {name!r} stands here twice", "Keep one of the two."
            )
        seen.add(name)
    if not seen:
        yield document.fault(place, f"{dotted}: the list is empty", f"Name at least one {kind}.")
