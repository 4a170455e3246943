"""An API server of a few objects on loopback that lists, watches and deletes, and fails as a real one does."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from aiohttp import web

Object = dict[str, Any]


class FakeApiServer:
    """Holds `pods`, `nodes` and `events`. Everything here may be called from any thread.

    How it fails: `away` (no connection at all), `answering` (a status to everything), `broken_watches` (lists, but
    watches get a status without a body), `forget` (410 for whoever wants to go on from before), `end_watches`.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        """`list pods`, `watch nodes`, `delete a` … in order."""
        self.deleted: list[tuple[str, str, str]] = []
        """Namespace, name and the uid that was asked for."""
        self.delete_status = 200
        self._objects: dict[str, dict[str, Object]] = {"pods": {}, "nodes": {}, "events": {}}
        self._history: list[tuple[int, str, str, Object]] = []
        self._version, self._oldest = 1, 0
        self._status, self._watch_status = 200, 200
        self._watchers: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-api-server", daemon=True)
        self._thread.start()
        with socket.create_server(("127.0.0.1", 0)) as one:
            self.port = int(one.getsockname()[1])
        self._do(self._open())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._do(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    # -- objects ---------------------------------------------------------------------------------------------------

    def put(self, kind: str, given: Object) -> None:
        """Make or change an object; watchers hear of it."""
        self._do(self._change(kind, given))

    def remove(self, kind: str, name: str, namespace: str = "hangang-users") -> None:
        key = name if kind == "nodes" else f"{namespace}/{name}"
        self._do(self._change(kind, self._objects[kind][key], gone=True))

    def bookmark(self) -> None:
        """Tell every watcher how far the world is, as a real one does every minute; nothing else happened."""
        self._do(self._bookmark())

    def count(self, what: str) -> int:
        return self.asked.count(what)

    # -- failures --------------------------------------------------------------------------------------------------

    @contextmanager
    def away(self) -> Iterator[None]:
        self._do(self._shut())
        try:
            yield
        finally:
            self._do(self._open())

    @contextmanager
    def answering(self, status: int) -> Iterator[None]:
        self._status = status
        self.end_watches()
        try:
            yield
        finally:
            self._status = 200

    @contextmanager
    def broken_watches(self, status: int) -> Iterator[None]:
        self._watch_status = status
        self.end_watches()
        try:
            yield
        finally:
            self._watch_status = 200

    def forget(self) -> None:
        """What happened until now is too old to go on from."""
        self._oldest = self._version
        self._history.clear()

    def end_watches(self) -> None:
        """In order, as after their time."""
        self._do(self._end_watches())

    # -- inside ------------------------------------------------------------------------------------------------------

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _open(self) -> None:
        self._changed = asyncio.Condition()
        app = web.Application()
        app.router.add_get("/api/v1/{kind:pods|nodes|events}", self._get)
        app.router.add_get("/api/v1/namespaces/{namespace}/{kind:pods|events}", self._get)
        app.router.add_delete("/api/v1/namespaces/{namespace}/pods/{name}", self._delete)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def _shut(self) -> None:
        for connection in list(self._runner.server.connections if self._runner.server else ()):
            if connection.transport is not None:
                connection.transport.abort()
        await self._end_watches()
        await self._runner.cleanup()

    async def _end_watches(self) -> None:
        for task in list(self._watchers):
            task.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await task

    async def _change(self, kind: str, given: Object, gone: bool = False) -> None:
        self._version += 1
        stored = json.loads(json.dumps(given))
        meta = stored["metadata"]
        if kind != "nodes":
            meta.setdefault("namespace", "hangang-users")
        meta["resourceVersion"] = str(self._version)
        key = meta["name"] if kind == "nodes" else f"{meta['namespace']}/{meta['name']}"
        change = "DELETED" if gone else "MODIFIED" if key in self._objects[kind] else "ADDED"
        if gone:
            del self._objects[kind][key]
        else:
            self._objects[kind][key] = stored
        await self._tell(kind, change, stored)

    async def _bookmark(self) -> None:
        self._version += 1
        for kind in self._objects:
            await self._tell(kind, "BOOKMARK", {"metadata": {"resourceVersion": str(self._version)}})

    async def _tell(self, kind: str, change: str, about: Object) -> None:
        async with self._changed:
            self._history.append((self._version, kind, change, about))
            self._changed.notify_all()

    def _matches(self, namespace: str | None, about: Object) -> bool:
        return namespace is None or about["metadata"].get("namespace", namespace) == namespace

    async def _get(self, request: web.Request) -> web.StreamResponse:
        kind, namespace = request.match_info["kind"], request.match_info.get("namespace")
        watches = request.query.get("watch") in ("true", "True", "1")
        self.asked.append(f"{'watch' if watches else 'list'} {kind}")
        if self._status != 200:
            return _failure(self._status)
        if watches:
            return await self._serve_watch(request, kind, namespace)
        items = [one for one in self._objects[kind].values() if self._matches(namespace, one)]
        return web.json_response(
            {"kind": "List", "metadata": {"resourceVersion": str(self._version)}, "items": items}
        )

    async def _serve_watch(
        self, request: web.Request, kind: str, namespace: str | None
    ) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if self._watch_status != 200:
            return web.Response(status=self._watch_status)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if since < self._oldest:
            status = {"code": 410, "reason": "Expired", "message": f"too old resource version: {since}"}
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            return response
        writer = asyncio.create_task(self._write(response, kind, namespace, since))
        self._watchers.add(writer)
        try:
            await asyncio.wait([writer])
        finally:
            self._watchers.discard(writer)
            writer.cancel()
        return response

    async def _write(
        self, response: web.StreamResponse, kind: str, namespace: str | None, since: int
    ) -> None:
        while True:
            async with self._changed:
                news = [one for one in self._history if one[0] > since and one[1] == kind]
                if not news:
                    await self._changed.wait()
                    continue
            for version, _, change, about in news:
                since = version
                if self._matches(namespace, about):
                    line = json.dumps({"type": change, "object": about}).encode()
                    await response.write(line + b"\n")

    async def _delete(self, request: web.Request) -> web.Response:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        self.asked.append(f"delete {name}")
        if self._status != 200 or self.delete_status != 200:
            return _failure(self._status if self._status != 200 else self.delete_status)
        body = await request.json() if request.can_read_body else {}
        wanted = str(((body or {}).get("preconditions") or {}).get("uid") or "")
        self.deleted.append((namespace, name, wanted))
        found = self._objects["pods"].get(f"{namespace}/{name}")
        if found is None:
            return _failure(404)
        if wanted and wanted != found["metadata"].get("uid"):
            return _failure(409)
        await self._change("pods", found, gone=True)
        return web.json_response({"metadata": found["metadata"]})


def _failure(status: int) -> web.Response:
    body = {
        "kind": "Status",
        "status": "Failure",
        "code": status,
        "reason": "Made",
        "message": "made to fail",
    }
    return web.json_response(body, status=status)
