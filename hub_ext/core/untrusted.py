"""What came from outside (a form, a script, a scheduler): told again without harm, and refused in words.

Text that was sent appears shortened, and without anything that a page or a log could act on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeGuard

from hub_ext.core.errors import BadInput

LONGEST_ECHO: Final = 60
"""At most so many characters of what was sent are shown again."""

_MINUTES = re.compile(r"[0-9]{1,5}", re.ASCII)
_POOL = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", re.ASCII)
_HARMLESS: Final = frozenset(" ._-:/")


class BadSelection(BadInput):
    """What was sent names something that cannot be chosen.

    `field` is where ("" for the whole), `known` what there is to choose from.
    """

    def __init__(self, message: str, field: str = "", known: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.field = field
        self.known = tuple(known)


def bad_selection(what: str, field: str, known: Iterable[str] = (), instead: str = "") -> BadSelection:
    """The refusal of a choice: what is wrong, and what to choose instead."""
    names = tuple(known)
    sentence = f"{what}; {instead or 'choose one of: ' + ', '.join(names)}."
    return BadSelection(f"{sentence[:1].upper()}{sentence[1:]}", field, names)


def sent_object(options: object) -> dict[str, object]:
    """An object whose names are texts, without what is null: that counts as not sent. Raises BadSelection."""
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise bad_selection(
            f"the choices came as {kind_of(options)}", "", (), 'send an object such as {"profile": "NAME"}'
        )
    for name in options:
        if not isinstance(name, str):
            raise bad_selection(f"the choices hold {kind_of(name)} as a name", "", (), "names must be texts")
    return {name: value for name, value in options.items() if value is not None}


def whole_minutes(value: object) -> int:
    """Minutes from 1 to 99999, sent as a whole number or its digits; 0 for anything else."""
    # No bool, which is an int; no float, NaN among them.
    text = str(value) if type(value) is int and abs(value) < 10**5 else value
    return int(text) if isinstance(text, str) and _MINUTES.fullmatch(text) else 0


def is_pool_name(value: object) -> TypeGuard[str]:
    """Whether a pool can have this name."""
    return isinstance(value, str) and _POOL.fullmatch(value) is not None


def pool_name(value: object, field: str) -> str | None:
    """The name of a pool, None where none was sent. Raises BadSelection for what cannot be one."""
    if value is None or is_pool_name(value):
        return value
    raise bad_selection(
        f"{shown(value)} is no name of a pool", field, (), "write the pool's name as the start page shows it"
    )


def shown(value: object) -> str:
    """A value as it may stand in a sentence: texts and small numbers shortened, of all else the kind."""
    if isinstance(value, str):
        return f"'{echo(value)}'"
    small = isinstance(value, float) or (type(value) is int and abs(value) < 10**9)
    return str(value) if small else kind_of(value)


def echo(text: str) -> str:
    """At most `LONGEST_ECHO` characters; letters, digits and a few signs as they are, all others as a question mark."""
    kept = text if len(text) <= LONGEST_ECHO else f"{text[: LONGEST_ECHO - 1]}…"
    return "".join(c if c.isalnum() or c in _HARMLESS or c == "…" else "?" for c in kept)


def kind_of(value: object) -> str:
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
