"""Time: whole seconds since 1970 (`Instant`), durations as people write them, and where "now" comes from."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, tzinfo
from typing import Protocol

from hub_ext.core.errors import BadInput

Instant = int
Seconds = int

MINUTE = 60
HOUR = 3600
DAY = 86400
LONGEST = 100 * 365 * DAY
"""No duration anybody states is longer, so that every time that is worked out has a date."""

_UNITS = {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_DURATION = re.compile(r"(?:\d{1,9}[smhdw])+", re.ASCII)
_PART = re.compile(r"(\d+)([smhdw])", re.ASCII)


class Clock(Protocol):
    """Where "now" comes from; tests and `simulate` bring their own."""

    def now(self) -> Instant: ...


class SystemClock:
    """The machine's clock, never running backwards within one process.

    A clock that is set back stands still here until it has caught up: nothing is charged twice and no end
    time moves.
    """

    def __init__(self) -> None:
        self._latest = 0

    def now(self) -> Instant:
        self._latest = max(self._latest, int(time.time()))
        return self._latest


def parse_duration(text: str) -> Seconds:
    """Seconds in a duration such as `5s`, `1h30m` or `7d`.

    Raises BadInput for anything else, a bare number included: its unit would be a guess.
    """
    if not isinstance(text, str) or not _DURATION.fullmatch(text.strip()):
        raise BadInput(f"{text!r} is not a duration; write for example 90s, 15m, 1h30m or 7d")
    seconds = sum(int(count) * _UNITS[unit] for count, unit in _PART.findall(text))
    if seconds > LONGEST:
        raise BadInput(f"{text!r} is longer than a hundred years; check the unit")
    return seconds


def format_duration(seconds: Seconds) -> str:
    """The shortest text that `parse_duration` reads back as the same number of seconds."""
    parts = []
    for unit, size in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def at(instant: Instant, zone: tzinfo = UTC) -> datetime:
    """The instant as an aware datetime in `zone`."""
    return datetime.fromtimestamp(instant, zone)


def instant_of(moment: datetime) -> Instant:
    """The whole second an aware datetime lies in. Raises BadInput for one without a time zone."""
    if moment.tzinfo is None:
        raise BadInput(f"{moment.isoformat()} has no time zone; write for example {moment.isoformat()}+09:00")
    return int(moment.timestamp() // 1)
