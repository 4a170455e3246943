"""A copy of some of the cluster's objects, kept up to date for as long as the process lives.

KubeSpawner's reflector lists all objects anew at least every 30 s, gives up after some 50 s without an API server and
is then used on with what it last knew. This one goes on where the watch left off, never gives up, and knows whether
it sees: `in_sight` is False from the moment the API server is away until all objects were listed again.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from kubernetes_asyncio import watch as kubernetes_watch
from kubernetes_asyncio.client import ApiException
from kubespawner.reflector import ResourceReflector
from kubespawner.spawner import EventReflector, PodReflector

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
WATCH_SECONDS: Final = 240
"""The API server ends a watch after this long; it goes on where it was."""
SILENT_SECONDS: Final = 90
"""With bookmarks about every minute, a connection that is silent for longer is dead."""
MOST_GONE: Final = 2000
"""So many objects that no longer exist are remembered as they were seen last."""


class Watch(ResourceReflector):  # type: ignore[misc]  # an untyped class
    """Keeps `resources` as its base class does, for as long as it is not stopped."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.watch_task: asyncio.Task[None] | None = None
        self.in_sight = False
        self.gone: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        """Deleted objects by key, as they were seen last."""
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    # -- waiting for a change -------------------------------------------------------------------------------------

    async def changed(self, key: str, seconds: float) -> bool:
        """Whether the object changed, appeared or went within the time."""
        future = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(key, set())
        waiting.add(future)
        try:
            await asyncio.wait_for(future, seconds)
        except TimeoutError:
            return False
        finally:
            waiting.discard(future)
            if not waiting and self._waiting.get(key) is waiting:
                del self._waiting[key]
        return True

    async def seen(self) -> None:
        """Returns once all objects were listed since the last outage."""
        while not self.in_sight:
            await self.changed("", LONGEST_PAUSE)

    def _wake(self, keys: Iterable[str]) -> None:
        for key in keys:
            for future in self._waiting.pop(key, ()):
                if not future.done():
                    future.set_result(None)

    # -- keeping up -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to watch. Returns at once: an API server that is away now is waited for in the background."""
        if self.watch_task and not self.watch_task.done():
            raise RuntimeError(f"Task watching for {self.kind} is already running")
        # Whoever only looks must not wait for an API server that is away: `in_sight` tells.
        if not self.first_load_future.done():
            self.first_load_future.set_result(None)
        self.watch_task = asyncio.create_task(self._watch_and_update())

    async def stop(self) -> None:
        """Returns when the watch has ended; that it was cancelled is not the caller's affair."""
        self._stopping = True
        if self.watch_task:
            self.watch_task.cancel()
            await asyncio.wait([self.watch_task])
        self.watch_task = None

    async def _watch_and_update(self) -> None:
        pause, version, away_since = FIRST_PAUSE, "", 0.0
        while not self._stopping:
            began = time.monotonic()
            try:
                if not version:
                    before = dict(self.resources)
                    version = await self._list_and_update()
                    self._after_listing(before)
                    if away_since:
                        self.log.warning(
                            "%s are seen again after %.0f s", self.kind, time.monotonic() - away_since
                        )
                        away_since = 0.0
                version = await self._follow(version)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                version = ""
                # 410: too old to go on from; what is known holds until all is listed again.
                if not (isinstance(error, ApiException) and error.status == 410):
                    self.in_sight = False
                    if not away_since:
                        away_since = time.monotonic()
                        self.log.warning("%s cannot be seen for the moment: %s", self.kind, _told(error))
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            else:
                # What ends at once, time and again, must not become a storm of requests.
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)

    async def _list_and_update(self, resource_version: str | None = None) -> str:
        """As in the base class, without a stack trace for each failure."""
        kwargs: dict[str, Any] = {
            "label_selector": self.label_selector,
            "field_selector": self.field_selector,
            "_request_timeout": self.request_timeout,
            "_preload_content": False,
        }
        if not self.omit_namespace:
            kwargs["namespace"] = self.namespace
        response = await getattr(self.api, self.list_method_name)(**kwargs)
        answer = await response.json(content_type=None)
        if response.status != 200:
            message = answer.get("message") if isinstance(answer, dict) else None
            raise ApiException(status=response.status, reason=message or response.reason)
        self.resources = {_key(item): item for item in answer["items"]}
        return str(answer["metadata"]["resourceVersion"])

    def _after_listing(self, before: Mapping[str, Mapping[str, Any]]) -> None:
        for key, item in before.items():
            # A name may be used again while nobody looks; a uid is not.
            if key not in self.resources or _uid(self.resources[key]) != _uid(item):
                self._remember(key, item)
        self.in_sight = True
        self._wake(list(self._waiting))

    async def _follow(self, version: str) -> str:
        """One watch from `version` on; returns where it ended. Raises when the API server goes away."""
        arguments: dict[str, Any] = {
            "label_selector": self.label_selector,
            "field_selector": self.field_selector,
            "resource_version": version,
            "timeout_seconds": WATCH_SECONDS,
            "allow_watch_bookmarks": True,
            "_request_timeout": (10, SILENT_SECONDS),
        }
        if not self.omit_namespace:
            arguments["namespace"] = self.namespace
        stream = kubernetes_watch.Watch()
        try:
            async for event in stream.stream(self._watch, **arguments):
                item = event["raw_object"]
                version = item["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._apply(event["type"], item)
        finally:
            stream.stop()
            await stream.close()
        return version

    # No docstring: by it the client would make objects of what it reads, which would take most of the time.
    async def _watch(self, **arguments: Any) -> Any:
        response = await getattr(self.api, self.list_method_name)(**arguments)
        if response.status != 200:
            # The client would take an answer without a body for a watch that has ended.
            response.close()
            raise ApiException(status=response.status, reason=response.reason)
        return response

    def _apply(self, kind: str, item: dict[str, Any]) -> None:
        key = _key(item)
        if kind == "DELETED":
            self.resources.pop(key, None)
            self._remember(key, item)
        else:
            self.resources[key] = item
        self._wake([key])

    def _remember(self, key: str, item: Mapping[str, Any]) -> None:
        self.gone[key] = item
        self.gone.move_to_end(key)
        while len(self.gone) > MOST_GONE:
            self.gone.popitem(last=False)


class PodWatch(Watch, PodReflector):  # type: ignore[misc]
    """Pods."""


class EventWatch(Watch, EventReflector):  # type: ignore[misc]
    """Events, and which of them are about an object."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._about: dict[str, dict[str, Mapping[str, Any]]] = {}
        """By the name of what they are about, then by their own key: many starts look at once."""

    def about(self, name: str) -> list[Mapping[str, Any]]:
        """Oldest first."""
        found = self._about.get(name, {}).values()
        return sorted(found, key=lambda item: item.get("lastTimestamp") or item.get("eventTime") or "")

    def _after_listing(self, before: Mapping[str, Mapping[str, Any]]) -> None:
        self._about = {}
        for key, item in self.resources.items():
            self._about.setdefault(_object(item), {})[key] = item
        super()._after_listing(before)

    def _apply(self, kind: str, item: dict[str, Any]) -> None:
        key, name = _key(item), _object(item)
        if kind == "DELETED":
            kept = self._about.get(name, {})
            kept.pop(key, None)
            if not kept:
                self._about.pop(name, None)
        else:
            self._about.setdefault(name, {})[key] = item
        super()._apply(kind, item)

    def _remember(self, key: str, item: Mapping[str, Any]) -> None:
        """An event that is gone tells nothing any more."""


class NodeWatch(Watch):
    """The cluster's nodes."""

    kind = "nodes"
    list_method_name = "list_node"
    omit_namespace = True


def _key(item: Mapping[str, Any]) -> str:
    meta = item["metadata"]
    return f"{meta.get('namespace', '')}/{meta['name']}"


def _object(item: Mapping[str, Any]) -> str:
    return str((item.get("involvedObject") or {}).get("name", ""))


def _uid(item: Mapping[str, Any]) -> Any:
    return item["metadata"].get("uid")


def _told(error: Exception) -> str:
    if isinstance(error, ApiException):
        return f"the API server answers {error.status} {error.reason}"
    return f"the API server does not answer ({type(error).__name__} {error})".replace(" )", ")")
