"""Lists of the API in pages: `?limit=&cursor=` → `{items, next}`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from hub_ext.core.clock import Instant

ItemT = TypeVar("ItemT")
LARGEST_LIMIT: Final = 200
LONGEST_CURSOR: Final = 300

Place = tuple[Instant, str]
"""When an item was made, and its id."""


def cursor_of(place: Place) -> str:
    return f"{place[0]}-{place[1]}"


def place_of(cursor: str) -> Place | None:
    """None for what is no place in a list."""
    at, dash, name = cursor.partition("-")
    if (
        not dash
        or not name
        or not name.isprintable()
        or not (at.isascii() and at.isdecimal())
        or len(cursor) > LONGEST_CURSOR
        or len(at) > 18
    ):
        return None
    return int(at), name


def one_page(
    items: Sequence[ItemT], place: Callable[[ItemT], Place], limit: int, after: Place | None
) -> tuple[list[ItemT], str | None]:
    """The items behind a place, oldest first, at most `limit`; and the cursor to go on from, None at the end."""
    ordered = sorted(items, key=place)
    left = ordered if after is None else [item for item in ordered if place(item) > after]
    page = left[:limit]
    return page, cursor_of(place(page[-1])) if len(left) > limit else None
