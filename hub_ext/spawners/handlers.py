"""Starts are decided before JupyterHub prepares them.

`User.spawn` makes a row for the server, a token and an OAuth client, in several commits, before it calls the spawner's
`start`, and takes all of it back for whom the gate then turns away; at their turn it does so again. So the two
handlers through which a server is started, the page and the REST API, pass the gate first. It stays the spawner's:
`start` looks again at what was booked, and where these handlers are not in place it decides alone.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar, Final, cast

from jupyterhub import apihandlers, handlers
from jupyterhub.apihandlers.users import UserServerAPIHandler
from jupyterhub.auth import Authenticator
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.pages import SpawnHandler
from jupyterhub.metrics import SERVER_SPAWN_DURATION_SECONDS, ServerSpawnStatus
from jupyterhub.spawner import SpawnException
from tornado.web import HTTPError

from hub_ext.spawners.gate import GateMixin

Route = tuple[str, type[Any]]
Start = asyncio.Future[None]
WAITS: Final = 409


class DecidesFirst(BaseHandler):
    """Mix in before a handler of JupyterHub that starts servers."""

    deciding: ClassVar[dict[tuple[str, str], asyncio.Event]] = {}
    """By person and server, the starts that are being decided: set as soon as that is done."""
    tells: ClassVar[bool] = False
    """Whether who asked is always told at once that they wait, so that no later page has to."""

    async def spawn_single_user(
        self, user: Any, server_name: str = "", display_name: str = "", options: Any = None
    ) -> None:
        """As JupyterHub's, and raises as it does; whoever is turned away has cost it nothing but the question."""
        spawner = user.get_or_create_spawner(server_name, display_name, replace_failed=True)
        if not isinstance(spawner, GateMixin) or spawner.gate is None:
            await super().spawn_single_user(user, server_name, display_name, options)
            return
        # 1. As JupyterHub does it first, and once in a request.
        if self.authenticator.refresh_pre_spawn and await self.refresh_auth(user, force=True) is None:
            raise HTTPError(403, "auth has expired for %s, login again", user.name)
        # 2. The decision. Another start came first: JupyterHub says so.
        start = None if spawner.active else await self._decide(spawner, options)
        # 3. The start, which finds what was booked.
        try:
            await super().spawn_single_user(user, server_name, display_name, options)
        except Exception as error:
            if start is not None:
                await spawner.give_back_unused()
                _fail(start, error)
            raise
        if start is not None:
            _follow(start, spawner._spawn_future)

    async def _decide(self, spawner: GateMixin, options: Any) -> Start:
        """Raises what the gate raises, with everything as after a start that failed."""
        self.extra_error_html = self.spawn_home_error
        began, handler = time.perf_counter(), spawner.handler
        # Pages and other requests that look meanwhile see a start that is under way; what comes of it is its result.
        start: Start = asyncio.get_running_loop().create_future()
        key = (spawner.user.name, spawner.name)
        spawner.handler, spawner._spawn_future, spawner._spawn_pending = self, start, True
        decided = self.deciding[key] = asyncio.Event()
        try:
            await spawner.decide_first(options)
        except Exception as error:
            if isinstance(error, SpawnException):
                SERVER_SPAWN_DURATION_SECONDS.labels(
                    status=ServerSpawnStatus.failure, reason=error.reason
                ).observe(time.perf_counter() - began)
                if self.tells and error.status_code == WAITS:
                    # Else JupyterHub makes a new spawner for the next start.
                    spawner._spawn_future = None
            _fail(start, error)
            raise
        finally:
            del self.deciding[key]
            decided.set()
            spawner.handler, spawner._spawn_pending = handler, False
        return start


class DecidingSpawnHandler(DecidesFirst, SpawnHandler):
    """The start page: its form, and a start by the options in its address."""


class DecidingServerAPIHandler(DecidesFirst, UserServerAPIHandler):
    """The REST API of a server."""

    tells = True

    async def post(self, user_name: str, server_name: str = "") -> None:
        """A start that meets one that is being decided waits for that decision.

        Told instead that a start is under way, the clock would wait for one that is just being turned away.
        """
        while (other := self.deciding.get((user_name, server_name))) is not None:
            await other.wait()
        await super().post(user_name, server_name)


def spawn_handlers() -> list[Route]:
    """Each where JupyterHub has its own."""
    ours: dict[type[Any], type[Any]] = {
        SpawnHandler: DecidingSpawnHandler,
        UserServerAPIHandler: DecidingServerAPIHandler,
    }
    routes = (*handlers.default_handlers, *apihandlers.default_handlers)
    return [(path, ours[handler]) for path, handler, *_ in routes if handler in ours]


def deciding_first(authenticator: type[Authenticator]) -> type[Authenticator]:
    """The same sign-in, on a hub whose starts are decided first.

    JupyterHub asks its authenticator for handlers before it registers its own, and the site's others after those. The
    site's configuration holds on: traits are read by the names of all classes above.
    """

    def get_handlers(self: Any, app: Any) -> list[Route]:
        return [*authenticator.get_handlers(self, app), *spawn_handlers()]

    body = {"__module__": authenticator.__module__, "get_handlers": get_handlers}
    return cast("type[Authenticator]", type(f"{authenticator.__name__}DecidingFirst", (authenticator,), body))


def _follow(start: Start, other: asyncio.Future[Any] | None) -> None:
    """`other` is JupyterHub's own future of the start, None once that is over."""
    if other is None or start.done():
        _end(start)
    elif other.done():
        _copy(other, start)
    else:
        other.add_done_callback(lambda done: _copy(done, start))


def _copy(done: asyncio.Future[Any], start: Start) -> None:
    error = None if done.cancelled() else done.exception()
    if error is None:
        _end(start)
    else:
        _fail(start, error)


def _end(start: Start) -> None:
    if not start.done():
        start.set_result(None)


def _fail(start: Start, error: BaseException) -> None:
    if not start.done():
        start.set_exception(error)
        # Whoever looks at the page learns of it; that nobody does is no mistake.
        start.exception()
