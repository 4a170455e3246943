"""What open waiting pages are told: one look at the database each second, however many pages there are.

A page gets what changed about its own ticket, in its own language. It holds the newest state only: whoever reads
slowly misses what lies between and costs no memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from hub_ext.core.errors import HubError
from hub_ext.desk.waiting import Known, Look

log = structlog.get_logger("hub_ext.desk")

LOOK_SECONDS: Final = 1.0
FAILED_SECONDS: Final = 3.0
"""How long after a look that failed the next one comes."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A ticket at a look; `known` None while the records cannot be reached."""

    known: Known | None
    look: Look | None


@dataclass(eq=False)
class Subscription:
    """One open page."""

    ticket: str
    _newest: Seen | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def following(self) -> Seen:
        """The newest state, once there is one that was not given out yet."""
        await self._changed.wait()
        self._changed.clear()
        assert self._newest is not None
        return self._newest

    def put(self, seen: Seen) -> None:
        if self._newest is None or self._newest.known != seen.known:
            self._newest = seen
            self._changed.set()


class Watch:
    """The one look for all open pages of a process. `look` reads the database, in a thread."""

    def __init__(
        self,
        look: Callable[[list[str]], Look],
        in_thread: Callable[[Callable[[list[str]], Look], list[str]], Awaitable[Look]],
        *,
        seconds: float = LOOK_SECONDS,
    ) -> None:
        self._look, self._in_thread, self._seconds = look, in_thread, seconds
        self._pages: dict[str, set[Subscription]] = {}
        self._task: asyncio.Task[None] | None = None
        self._away = False

    @property
    def open_pages(self) -> int:
        return sum(len(pages) for pages in self._pages.values())

    @asynccontextmanager
    async def subscribe(self, ticket: str) -> AsyncIterator[Subscription]:
        subscription = Subscription(ticket)
        self._pages.setdefault(ticket, set()).add(subscription)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            yield subscription
        finally:
            pages = self._pages[ticket]
            pages.discard(subscription)
            if not pages:
                del self._pages[ticket]

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """Until no page is open."""
        while self._pages:
            pause = self._seconds
            try:
                self._tell(await self._in_thread(self._look, list(self._pages)))
                self._away = False
            except HubError as error:
                pause = max(pause, FAILED_SECONDS)
                self._say_away(error)
                self._tell(None)
            except Exception:  # a mistake of ours: no page may hang for it
                pause = max(pause, FAILED_SECONDS)
                log.exception("the waiting pages could not be told")
                self._tell(None)
            await asyncio.sleep(pause)

    def _tell(self, look: Look | None) -> None:
        for ticket, pages in self._pages.items():
            known = None if look is None else look.found.get(ticket)
            # A page that opened while the look was under way is told at the next.
            if look is not None and known is None:
                continue
            for page in pages:
                page.put(Seen(known, look))

    def _say_away(self, error: HubError) -> None:
        if not self._away:
            log.warning("the waiting pages cannot be told", error=str(error))
        self._away = True
