"""Starts whose turn comes within seconds wait for it where they are.

A start that is turned away at the gate has cost JupyterHub nearly as much as one that goes on: it has made a token, an
OAuth client and a row for the server, and does so again when the turn comes. So those who only wait because many
start at this moment are not sent to the waiting page at once. They stand in the line like everybody else; all of them
together cost one look at the records every quarter of a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from hub_ext.core.errors import HubError
from hub_ext.quota.model import Lease

LOOK_SECONDS: Final = 0.25

Look = Callable[[list[str]], Awaitable[Iterable[Lease]]]
"""The live leases among these ids."""


@dataclass
class Turns:
    """One for all starts of a hub. A ticket and its later lease have one id."""

    look: Look
    _waiting: dict[str, asyncio.Future[Lease]] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._waiting)

    async def lease_of(self, ticket: str, seconds: float) -> Lease | None:
        """The lease that was booked for the ticket within so many seconds, else None."""
        turn = self._waiting.setdefault(ticket, asyncio.get_running_loop().create_future())
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep_looking())
        try:
            return await asyncio.wait_for(asyncio.shield(turn), seconds)
        except TimeoutError:
            return None
        finally:
            self._waiting.pop(ticket, None)

    async def _keep_looking(self) -> None:
        """As long as anybody waits. Records that are away are looked at again."""
        while self._waiting:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(HubError):
                for lease in await self.look(list(self._waiting)):
                    turn = self._waiting.get(lease.id)
                    if turn is not None and not turn.done():
                        turn.set_result(lease)
