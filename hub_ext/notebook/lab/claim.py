"""Says to the desk, once, that somebody came to this server.

A server that was started for somebody who waited ends after some minutes unless they come. Any authenticated request
counts, a script's as well as the lab's; so what is watched is the identity provider, which every such request passes.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any

from hub_ext.core.errors import HubError
from hub_ext.notebook.lab.desk import Desk, Refused

__all__ = ["Claim", "watch_identities"]

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
STEADY_PAUSE = 30.0
TRIES = 60
"""With the pauses about half an hour; by then the claim is made, or has long run out."""

_log = logging.getLogger(__name__)


class Claim:
    """Made with the first `somebody_came`, and tried until the desk has taken or refused it."""

    def __init__(
        self,
        desk: Desk,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self._desk = desk
        self._sleep = sleep
        self._pauses = pauses
        self._task: asyncio.Task[None] | None = None

    def somebody_came(self) -> None:
        """Returns at once; called with every authenticated request."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._until_taken())

    async def settled(self) -> None:
        """Waits for the end of a claim that was begun."""
        if self._task is not None:
            await self._task

    async def _until_taken(self) -> None:
        for pause in self._waits():
            try:
                if await self._made():
                    return
            except HubError as problem:
                _log.warning("This server is not claimed yet: %s", problem)
            await self._sleep(pause)
        _log.warning("This server could not be claimed; it may be stopped as if nobody had come")

    async def _made(self) -> bool:
        """False where there is nothing to claim yet. Raises HubError where it is not known."""
        lease = (await self._desk.lease("en")).lease
        if lease is None or not lease.unclaimed:
            return lease is not None
        try:
            await self._desk.claim(lease.id)
        except Refused as answer:
            # It ended, or it needs no claim; anything else may yet be mended.
            if answer.status not in (404, 409, 410):
                raise
        return True

    def _waits(self) -> Iterator[float]:
        waits = chain(self._pauses, repeat(STEADY_PAUSE))
        return (next(waits) for _ in range(TRIES))


def watch_identities(provider: Any, somebody_came: Callable[[], None]) -> None:
    """Call `somebody_came` whenever the identity provider knows who is asking."""
    original = provider.get_user

    @functools.wraps(original)
    async def get_user(handler: Any) -> Any:
        user = original(handler)
        if inspect.isawaitable(user):
            user = await user
        if user is not None:
            somebody_came()
        return user

    provider.get_user = get_user
