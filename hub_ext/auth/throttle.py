"""Slows down whoever guesses passwords: after some failed tries a name must wait, each time longer.

Nothing sleeps: a try that comes too early is refused at once, unread, with the seconds that are left. Names that
nobody has are counted just the same, so that waiting tells nothing about who exists.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from hub_ext.core.clock import HOUR, MINUTE, Clock, Instant, Seconds

FREE_TRIES: Final = 5
FIRST_WAIT: Final[Seconds] = 5
LONGEST_WAIT: Final[Seconds] = 5 * MINUTE
FORGOTTEN_AFTER: Final[Seconds] = HOUR
MOST_NAMES: Final = 10_000
"""More names than any centre's people fail at once; beyond that the name that failed longest ago is forgotten."""


@dataclass(slots=True)
class _Failures:
    count: int = 0
    latest: Instant = 0


class Throttle:
    """Counts failed tries by name. In one process, and forgotten with it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def wait(self, name: str) -> Seconds:
        """How long this name must wait before its next try; 0 when it may try now."""
        failures = self._failures.get(name)
        if failures is None or failures.count < FREE_TRIES:
            return 0
        wait = min(LONGEST_WAIT, FIRST_WAIT << min(failures.count - FREE_TRIES, 16))
        return max(0, failures.latest + wait - self._clock.now())

    def failed(self, name: str) -> None:
        """A try that was read and was wrong."""
        now = self._clock.now()
        failures = self._failures.setdefault(name, _Failures())
        if now - failures.latest >= FORGOTTEN_AFTER:
            failures.count = 0
        failures.count += 1
        failures.latest = now
        self._failures.move_to_end(name)
        while len(self._failures) > MOST_NAMES:
            self._failures.popitem(last=False)

    def succeeded(self, name: str) -> None:
        self._failures.pop(name, None)
