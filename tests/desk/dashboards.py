"""Dashboards for tests: a stand-in for the Dask proxy with schedulers behind it, and the desk served before it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import uvicorn
from aiohttp import WSMsgType, web
from fastapi import FastAPI

from hub_ext.desk.app import create_app
from hub_ext.desk.serve import configured
from hub_ext.quota.model import SCHEDULER, Ask
from hub_ext.quota.service import run
from tests.desk.in_process import PEOPLE, DeskInProcess
from tests.support.databases import Database
from tests.support.hub import free_port, wait_for

CLUSTER = "0123456789abcdef0123456789abcdef"
ANOTHER = "fedcba9876543210fedcba9876543210"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(eq=False)
class Schedulers:
    """What the Dask proxy leads to; keeps what it was sent. `pages` says what stands at an address below a cluster's."""

    pages: dict[str, Answer] = field(default_factory=dict)
    asked: list[web.Request] = field(default_factory=list)
    streams: list[web.WebSocketResponse] = field(default_factory=list)
    closed_with: list[int | None] = field(default_factory=list)
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator[Schedulers]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        runner = asyncio.run_coroutine_threadsafe(self._start(), loop).result(20)
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(20)
            loop.close()

    async def _start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        return runner

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        page = self.pages.get(request.path.removeprefix(f"/clusters/{CLUSTER}/"))
        if page is not None:
            return await page(request)
        if request.headers.get("upgrade", "").lower() == "websocket":
            return await self._echo(request)
        return web.Response(text=f"page {request.raw_path}", content_type="text/html")

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        """As Bokeh speaks: one protocol of several, texts and bytes; `leave` ends it from this side."""
        stream = web.WebSocketResponse(protocols=("bokeh",), max_msg_size=0)
        await stream.prepare(request)
        self.streams.append(stream)
        async for message in stream:
            if message.type is WSMsgType.TEXT and message.data == "leave":
                await stream.close(code=4321)
            elif message.type is WSMsgType.TEXT:
                await stream.send_str(f"heard {message.data}")
            else:
                await stream.send_bytes(message.data[::-1])
        self.closed_with.append(stream.close_code)
        return stream


def with_dashboards(database: Database, proxy_url: str) -> DeskInProcess:
    """A desk before that proxy, with one cluster of the researcher's."""
    plain = DeskInProcess.on(database)
    desk = replace(plain.desk, dask_proxy_url=proxy_url)
    book_scheduler(desk.admission.admit_now, CLUSTER)
    desk.admission.change(CLUSTER, run("process-1"))
    return DeskInProcess(desk, plain.hub, create_app(desk))


def book_scheduler(admit: Callable[..., object], name: str, person: str = "researcher") -> None:
    owner = next(one for one in PEOPLE if one.name == person)
    ask = Ask(
        name,
        person,
        owner.pools[0],
        {"cpu": 1000, "memory": 2048},
        SCHEDULER,
        "cpu",
        minutes=240,
        server=name,
    )
    admit(owner, ask)


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The desk at an address of its own, as its process serves it."""
    port = free_port()
    server = uvicorn.Server(configured(app, "127.0.0.1", port))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started, "the desk listens")
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
