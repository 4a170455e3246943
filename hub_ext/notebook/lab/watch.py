"""What is known of this server's lease: asked for at most every few seconds, however many tabs look.

While the end is far away it is asked for more seldom still: a notice comes minutes ahead, and a centre has thousands
of open notebooks. Whoever comes back to a tab gets a fresh answer all the same.

While the desk is away the last answer stays, with the time it was told at, and the desk is asked ever more seldom.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from hub_ext.core.clock import MINUTE, Clock, Instant
from hub_ext.core.errors import HubError
from hub_ext.notebook.lab.desk import Desk, Told
from hub_ext.notebook.lab.model import Lease

__all__ = ["BORROWED_SECONDS", "CALM_SECONDS", "FRESH_SECONDS", "Known", "LeaseWatch"]

FRESH_SECONDS = 3.0
CALM_SECONDS = 60.0
"""As long as this an answer serves while a guaranteed server has long to go; a borrowed one's shorter."""
BORROWED_SECONDS = 20.0
FAR = 30 * MINUTE
PAUSES = (3.0, 6.0, 12.0, 24.0, 30.0)
"""Seconds until the desk is asked again after it failed once, twice, …"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """The last thing the desk said. `now` is its time, carried on by this machine's steady clock."""

    lease: Lease | None
    now: Instant
    told_at: Instant | None
    """None: it never said anything yet."""
    away: bool


@dataclass(slots=True)
class _Entry:
    """Of one language: sentences come from the desk."""

    told: Told | None = None
    told_on: float = 0.0
    next_try: float = 0.0
    calm_until: float = 0.0
    failures: int = 0
    asking: asyncio.Task[None] | None = None


class LeaseWatch:
    def __init__(self, desk: Desk, clock: Clock, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._desk = desk
        self._clock = clock
        self._steady = steady
        self._entries: dict[str, _Entry] = {}

    async def look(self, language: str, *, anew: bool = False) -> Known:
        """What is known; `anew` asks also where the last answer would serve a while longer. Never raises."""
        entry = self._entries.setdefault(language, _Entry())
        due = entry.next_try if anew else max(entry.next_try, entry.calm_until)
        if entry.asking is None and self._steady() >= due:
            entry.asking = asyncio.create_task(self._ask(entry, language))
        if entry.asking is not None:
            # Whoever goes away meanwhile takes the answer from nobody else.
            await asyncio.shield(entry.asking)
        return self._known(entry)

    def last(self) -> Lease | None:
        """The lease as it was told last, in whatever language; asks nobody."""
        told = [entry for entry in self._entries.values() if entry.told is not None]
        newest = max(told, key=lambda entry: entry.told_on, default=None)
        return None if newest is None or newest.told is None else newest.told.lease

    def forget(self) -> None:
        """The next look asks the desk; what it says may have changed."""
        for entry in self._entries.values():
            entry.next_try = entry.calm_until = 0.0

    async def _ask(self, entry: _Entry, language: str) -> None:
        try:
            told = await self._desk.lease(language)
        except HubError as problem:
            entry.failures += 1
            entry.calm_until = 0.0
            entry.next_try = self._steady() + PAUSES[min(entry.failures, len(PAUSES)) - 1]
            if entry.failures == 1:
                _log.warning("The time left for this server is not known anew: %s", problem)
        else:
            if entry.failures:
                _log.info("The desk answers again")
            entry.failures = 0
            entry.told, entry.told_on = told, self._steady()
            entry.next_try = entry.told_on + FRESH_SECONDS
            entry.calm_until = entry.told_on + self._serves(told)
        finally:
            entry.asking = None

    def _serves(self, told: Told) -> float:
        """Seconds for which an answer is good enough."""
        now = self._clock.now() if told.at is None else told.at
        lease = told.lease
        if lease is None or lease.over or lease.notice is not None or lease.ends_at - now < FAR:
            return FRESH_SECONDS
        return CALM_SECONDS if lease.guaranteed else BORROWED_SECONDS

    def _known(self, entry: _Entry) -> Known:
        if entry.told is None:
            return Known(None, self._clock.now(), None, away=entry.failures > 0)
        age = int(self._steady() - entry.told_on)
        # By the desk's clock: this machine's may be wrong by minutes.
        told_at = entry.told.at if entry.told.at is not None else self._clock.now() - age
        return Known(entry.told.lease, told_at + age, told_at, away=entry.failures > 0)
