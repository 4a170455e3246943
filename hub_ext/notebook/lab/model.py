"""What the desk says about the lease of this server, as frozen data; and how its answer is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hub_ext.core.clock import Instant, instant_of
from hub_ext.core.errors import BadInput, HubError

__all__ = ["BadAnswer", "Lease", "Notice", "lease_of"]

_LONGEST_TEXT = 2000
_OVER = ("ending", "released")


class BadAnswer(HubError):
    """The desk answered what nobody can read; the text says what."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Why the lease ends, when, and the whole in words; `why` is the desk's code."""

    why: str
    at: Instant
    sentence: str


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease of this server. `clock` is the time of day as its end time writes it: `18:40`."""

    id: str
    ends_at: Instant
    clock: str
    guaranteed: bool = True
    gpus: bool = False
    over: bool = False
    unclaimed: bool = True
    """False only where the desk says that somebody came already."""
    notice: Notice | None = None
    extend_until: Instant | None = None
    """The latest end that an extension could reach; None where the desk names none."""
    borrowed: str = ""
    """What borrowing means here, in words."""
    lines: tuple[str, ...] = ()
    """What else is to be known, each a line in words: cost, hours left."""


def lease_of(answer: object, server: str) -> Lease | None:
    """The lease of the server with that name in the desk's list; None where there is none.

    Raises BadAnswer where the list has another shape than it should have. Facts that are missing are left out.
    """
    if not isinstance(answer, Mapping) or not isinstance(answer.get("items"), list):
        raise BadAnswer("the desk's list of leases has no items")
    mine = [
        item
        for item in answer["items"]
        if isinstance(item, Mapping) and item.get("server", "") == server and _is_server(item)
    ]
    found = [_lease(item) for item in mine]
    return next((lease for lease in found if not lease.over), found[0] if found else None)


def _is_server(item: Mapping[str, Any]) -> bool:
    return item.get("kind", "server") == "server" and item.get("state") != "released"


def _lease(item: Mapping[str, Any]) -> Lease:
    name = item.get("id")
    if not isinstance(name, str) or not name:
        raise BadAnswer("a lease in the desk's list has no id")
    ends = _moment(item.get("ends_at"), "ends_at")
    if ends is None:
        raise BadAnswer(f"lease {name} has no end time")
    extend = item.get("extend")
    return Lease(
        id=name,
        ends_at=instant_of(ends),
        clock=f"{ends:%H:%M}",
        guaranteed=item.get("guaranteed") is not False,
        gpus=_holds_gpus(item.get("amounts")),
        over=item.get("state") in _OVER,
        unclaimed=item.get("unclaimed") is not False,
        notice=_notice(item.get("notice"), instant_of(ends)),
        extend_until=_instant(extend.get("until"), "extend.until") if isinstance(extend, Mapping) else None,
        borrowed=_text(item.get("borrowed")),
        lines=tuple(line for key in ("cost", "hours") if (line := _line(item.get(key)))),
    )


def _holds_gpus(amounts: object) -> bool:
    return isinstance(amounts, Mapping) and any(str(name).startswith("gpu.") for name in amounts)


def _notice(found: object, ends_at: Instant) -> Notice | None:
    if not isinstance(found, Mapping):
        return None
    at = _instant(found.get("at"), "notice.at")
    return Notice(
        why=str(found.get("why") or ""),
        at=ends_at if at is None else at,
        sentence=_text(found.get("sentence")),
    )


def _line(found: object) -> str:
    """A line in words, by itself or as the sentence of a group of facts."""
    return _text(found.get("sentence") if isinstance(found, Mapping) else found)


def _text(found: object) -> str:
    return found[:_LONGEST_TEXT] if isinstance(found, str) else ""


def _instant(found: object, name: str) -> Instant | None:
    moment = _moment(found, name)
    return None if moment is None else instant_of(moment)


def _moment(found: object, name: str) -> datetime | None:
    if found is None:
        return None
    try:
        moment = datetime.fromisoformat(found)  # type: ignore[arg-type]
        instant_of(moment)
    except (TypeError, ValueError, OverflowError, BadInput):
        raise BadAnswer(f"{name} is {found!r} and no time") from None
    return moment
