"""A cluster of the gateway as a notebook holds it, and how one is ordered.

It is dask-gateway's own `GatewayCluster`, whose errors are told in words, which knows its state at the desk, and which
may also be closed from its own event loop (`Client.shutdown` does that, and would wait for itself for ever).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import aiohttp
import dask
from dask_gateway import Gateway, GatewayCluster, GatewayClusterError
from dask_gateway.client import GatewayServerError

from hub_ext.core.errors import HubError
from hub_ext.language import Speaker
from hub_ext.notebook.clusters.desk import ClustersDesk, DeskAway, Refused, desk_of
from hub_ext.notebook.clusters.model import ClusterState
from hub_ext.notebook.clusters.words import speaker

__all__ = [
    "Cluster",
    "ClusterError",
    "ClusterRefused",
    "FewerWorkers",
    "Order",
    "in_words",
    "open_gateway",
    "server_here",
]

LAST_WORDS: Final = 2000
"""Characters of a log that an error quotes."""
UNDO_SECONDS: Final = 20.0
"""How long somebody who interrupts waits for the order to be taken back."""


class ClusterError(HubError):
    """Something about a cluster went wrong; the text says what, and what to do."""


class ClusterRefused(ClusterError):
    """The quota or the gateway says no; the text says why, and what would be possible."""


class FewerWorkers(UserWarning):
    """There are fewer workers than were wished for, for now; the text says why."""


class _ClosedOnce(Gateway):
    """dask-gateway's client, which fails when it is closed a second time, as by the garbage collector."""

    def close(self) -> Any:
        if not self.asynchronous and not self._loop_runner.is_started():
            return None
        return super().close()


class Cluster(GatewayCluster):
    """A running cluster: `scale`, `adapt`, `close`, `dashboard_link`, `state()`.

    It ends when it is closed, and with the kernel that started it. Made by `clusters.start`.
    """

    desk: ClustersDesk | None
    say: Speaker

    def _init_internal(self, **options: Any) -> None:
        self.say, self.desk = speaker(), desk_of()
        try:
            super()._init_internal(**options)
        finally:
            if hasattr(self, "gateway"):
                self.gateway.__class__ = _ClosedOnce

    async def _start_async(self) -> None:
        speak(self.gateway, self.say)
        await super()._start_async()

    def scale(self, n: int, **options: Any) -> Any:
        """Wish for `n` workers. It grows as far as the quota has room; a FewerWorkers warning says why not further."""
        return self._tell("scale", count=n)

    def adapt(
        self, minimum: int | None = None, maximum: int | None = None, active: bool = True, **options: Any
    ) -> Any:
        """Let the number of workers follow the work, from `minimum` to `maximum`; warns as `scale` does."""
        return self._tell("adapt", minimum=minimum, maximum=maximum, active=active)

    def _tell(self, order: str, **body: Any) -> Any:
        if self.asynchronous:
            return self._wish_and_warn(order, **body)
        with in_words(self.say):
            told = self.gateway.sync(self.wish, order, **body)
        if told:
            # At the line that called `scale` or `adapt`.
            warnings.warn(FewerWorkers(told), stacklevel=3)
        return None

    async def _wish_and_warn(self, order: str, **body: Any) -> None:
        with in_words(self.say):
            told = await self.wish(order, **body)
        if told:
            warnings.warn(FewerWorkers(told), stacklevel=2)

    async def wish(self, order: str, **body: Any) -> str:
        """Wish, on the cluster's own event loop; why there are fewer for now, "" where there are not."""
        if self.status in ("closing", "closed"):
            raise ClusterError(self.say("No cluster runs here any more."))
        url = f"{self.gateway.address}/api/v1/clusters/{self.name}/{order}"
        response = await self.gateway._request("POST", url, json=body)
        try:
            answer = await response.json()
        except (ValueError, aiohttp.ClientError):
            return ""
        told = answer.get("msg") if isinstance(answer, dict) and not answer.get("ok", True) else None
        return told if isinstance(told, str) else ""

    def state(self) -> Any:
        """How the cluster stands (a `ClusterState`): workers, end, notice, and what more is waited for.

        An awaitable of it where the cluster is asynchronous. Raises ClusterError where the desk says nothing.
        """
        return self.gateway.sync(self.look)

    async def look(self) -> ClusterState:
        """As `state`, on the cluster's own event loop."""
        if self.desk is None:
            raise ClusterError(self.say("This notebook knows of no desk, which alone can tell that."))
        try:
            return await self.desk.cluster(self.name, self.say.language)
        except Refused as refusal:
            raise ClusterRefused(str(refusal)) from None
        except DeskAway:
            raise ClusterError(self.say("The desk does not answer. Try again in a minute.")) from None

    def logs(self) -> Any:
        """The ends of its logs, by who wrote them (`scheduler`, names of workers); an awaitable where it is one."""
        if self.asynchronous:
            return logs_of(self.gateway, self.name)
        with in_words(self.say):
            return self.gateway.sync(logs_of, self.gateway, self.name)

    async def workers(self) -> Mapping[str, Any]:
        """The workers that the scheduler has, by address, with their metrics; on the cluster's own event loop."""
        if self.scheduler_comm is None:
            return {}
        found = await self.scheduler_comm.identity(n_workers=-1)
        return cast("Mapping[str, Any]", found["workers"])

    def close(self, shutdown: bool | None = None) -> Any:
        """Stop the cluster; with `shutdown=False` only let go of it. An awaitable on its own event loop."""
        if not self.asynchronous and _running_loop() is self.loop.asyncio_loop:
            return self._stop_internal(shutdown=shutdown)
        return super().close(shutdown=shutdown)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


# -- the gateway ------------------------------------------------------------------------------------------------------


def open_gateway(say: Speaker, *, asynchronous: bool = False) -> Gateway:
    """The gateway that this server is told of. Raises ClusterError where it is told of none."""
    if dask.config.get("gateway.address", None) is None:
        raise ClusterError(
            say(
                "This notebook is told of no gateway for clusters. Use {command} inside this server, or ask an operator.",
                command="clusters.local()",
            )
        )
    try:
        return _ClosedOnce(asynchronous=asynchronous)
    except ValueError as problem:
        raise ClusterError(str(problem)) from None


def server_here(environment: Mapping[str, str] = os.environ) -> str | None:
    """The name of the server that a cluster ends with; None outside of any."""
    return environment.get("HANGANG_SERVER", environment.get("JUPYTERHUB_SERVER_NAME"))


def speak(gateway: Gateway, say: Speaker) -> None:
    """Let the gateway's answers be sentences in this language, before its first request, on its event loop."""
    if gateway._session is None:
        gateway._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.CookieJar(unsafe=True), headers={"Accept-Language": say.language}
        )


async def logs_of(gateway: Gateway, name: str) -> dict[str, str]:
    """The ends of a cluster's logs; raises as the gateway's client does."""
    response = await gateway._request("GET", f"{gateway.address}/api/v1/clusters/{name}/logs")
    answer = await response.json()
    found = answer.get("logs") if isinstance(answer, dict) else None
    return {str(who): str(text) for who, text in found.items()} if isinstance(found, dict) else {}


class Order:
    """A cluster that is ordered, and may be taken back at any moment without leaving anything behind."""

    def __init__(self, gateway: Gateway, options: Mapping[str, Any], say: Speaker) -> None:
        self._gateway = gateway
        self._options = options
        self._say = say
        self._sent: asyncio.Task[str] | None = None

    async def send(self) -> None:
        """Begin, on the gateway's event loop."""
        speak(self._gateway, self._say)
        self._sent = asyncio.ensure_future(self._gateway._submit(**self._options))

    async def name(self) -> str:
        """The new cluster's name. Raises as the gateway's client does; see `in_words`."""
        assert self._sent is not None
        return await asyncio.shield(self._sent)

    async def last_words(self) -> str:
        """What the cluster's processes wrote last, as a note to an error; "" where nothing is known. Never raises."""
        if self._sent is None or not self._sent.done() or self._sent.cancelled() or self._sent.exception():
            return ""
        try:
            found = await asyncio.wait_for(logs_of(self._gateway, self._sent.result()), UNDO_SECONDS)
        except Exception:
            return ""
        return "\n".join(
            f"{who}: {text.strip()[-LAST_WORDS:]}" for who, text in found.items() if text.strip()
        )

    async def take_back(self) -> None:
        """Stop what came of it, also where its name is not known yet. Never raises."""
        if self._sent is None:
            return
        with contextlib.suppress(Exception):
            name = await asyncio.wait_for(asyncio.shield(self._sent), UNDO_SECONDS)
            await self._gateway._stop_cluster(name)


@contextlib.contextmanager
def in_words(say: Speaker) -> Iterator[None]:
    """What the gateway's client raises, as errors that a person can act on."""
    try:
        yield
    except ValueError as refusal:
        raise ClusterRefused(str(refusal)) from None
    except GatewayClusterError:
        raise ClusterError(
            say(
                "The cluster did not start, or was stopped meanwhile. Try again; if it fails again, ask an operator."
            )
        ) from None
    except aiohttp.ClientResponseError as problem:
        if problem.status in (401, 403):
            raise ClusterRefused(
                say("The gateway does not know this server any more. Restart the server from the hub's page.")
            ) from None
        raise ClusterError(say("The gateway for clusters has a problem. Try again in a minute.")) from None
    except GatewayServerError:
        raise ClusterError(say("The gateway for clusters has a problem. Try again in a minute.")) from None
    except (aiohttp.ClientError, OSError, TimeoutError) as problem:
        raise ClusterError(
            say("The gateway for clusters does not answer. Try again in a minute.")
        ) from problem
