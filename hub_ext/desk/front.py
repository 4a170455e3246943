"""The way to the dashboards: a browser's requests and streams, passed on to the proxy that knows every scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Final

import aiohttp
import structlog
from fastapi import Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask
from yarl import URL

from hub_ext.desk.errors import Problem
from hub_ext.desk.front_rules import answered_on, asked_on, led_to, offered, page_headers

log = structlog.get_logger("hub_ext.desk")

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 60.0
"""How long a dashboard may say nothing to a request."""
LARGEST_MESSAGE: Final = 64 * 2**20
"""Bytes of one message of a stream: a first drawing of a large cluster has some."""
LOOK_SECONDS: Final = 30.0
"""How often an open stream looks whether its reader may still look, and whether there still is a cluster."""
PIECE: Final = 64 * 1024
_AWAY: Final = frozenset({502, 503, 504})
_SPOKEN_CODES: Final = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011})
GOING_AWAY, NOT_ALLOWED = 1001, 1008


class Front:
    """`proxy_url`: where the Dask proxy answers HTTP; empty where this hub has none."""

    def __init__(self, proxy_url: str) -> None:
        self.proxy_url = proxy_url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def fetch(self, request: Request, name: str, rest: str, query: str, base: str) -> Response:
        """The dashboard's answer, as it comes. Raises Problem where there is none."""
        # 1. What is asked, without who asks.
        url = self._url(name, rest, query)
        try:
            answer = await self._client().request(
                request.method, url, headers=asked_on(request.headers), allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _away(name, error) from error
        if answer.status in _AWAY:
            answer.close()
            raise _away(name, answer.status)
        # 2. What it answers, without what it would have the browser keep or do.
        headers = answered_on(answer.headers) | page_headers(request.headers.get("host", ""), base)
        if 300 <= answer.status < 400 and "location" in answer.headers:
            leads_to = led_to(answer.headers["location"], name, base)
            if leads_to is None:
                answer.close()
                raise _leads_away(name)
            headers["Location"] = leads_to
        closing = BackgroundTask(_close, answer)
        return StreamingResponse(_pieces(answer), answer.status, headers, background=closing)

    async def join(
        self,
        browser: WebSocket,
        name: str,
        rest: str,
        query: str,
        still_open: Callable[[], Awaitable[bool]],
    ) -> None:
        """Join a browser's stream with the dashboard's until either ends, or it may not be looked at any more."""
        protocols = offered(browser.scope.get("subprotocols", ()))
        try:
            dashboard = await self._client().ws_connect(
                self._url(name, rest, query), protocols=protocols, max_msg_size=LARGEST_MESSAGE
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.info("a dashboard does not take a stream", cluster=name, error=type(error).__name__)
            await browser.send_denial_response(Response(status_code=503))
            return
        try:
            chosen = dashboard.protocol if dashboard.protocol in protocols else None
            await browser.accept(subprotocol=chosen)
            code = await _first_end(
                _upwards(browser, dashboard), _downwards(browser, dashboard), _watch(still_open)
            )
            with suppress(RuntimeError, WebSocketDisconnect):  # it went first
                await browser.close(code)
        finally:
            await dashboard.close()

    def _url(self, name: str, rest: str, query: str) -> URL:
        if not self.proxy_url:
            raise Problem(
                503,
                "no-dashboards",
                lambda say: say("This hub shows no dashboards of clusters: no Dask proxy is set."),
            )
        return URL(f"{self.proxy_url}/clusters/{name}/{rest}{'?' if query else ''}{query}", encoded=True)

    def _client(self) -> aiohttp.ClientSession:
        """One for the process, made on its event loop. It keeps no cookie, and says nothing of itself."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_SECONDS, sock_read=ANSWER_SECONDS
                ),
                connector=aiohttp.TCPConnector(limit=0),
                skip_auto_headers=["User-Agent", "Accept", "Accept-Encoding"],
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


async def _pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for piece in answer.content.iter_chunked(PIECE):
        yield piece


async def _close(answer: aiohttp.ClientResponse) -> None:
    answer.close()


# -- streams ----------------------------------------------------------------------------------------------------------


async def _first_end(*ways: Awaitable[int]) -> int:
    """The code of the first way that ends; the others end with it."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()
    except (ConnectionError, aiohttp.ClientError, RuntimeError, WebSocketDisconnect):
        return GOING_AWAY  # a line that broke
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _upwards(browser: WebSocket, dashboard: aiohttp.ClientWebSocketResponse) -> int:
    """What the browser says, until it goes."""
    while True:
        message = await browser.receive()
        if message["type"] == "websocket.disconnect":
            await dashboard.close(code=_spoken(message.get("code")))
            return GOING_AWAY
        if message.get("bytes") is not None:
            await dashboard.send_bytes(message["bytes"])
        else:
            await dashboard.send_str(message.get("text") or "")


async def _downwards(browser: WebSocket, dashboard: aiohttp.ClientWebSocketResponse) -> int:
    """What the dashboard says, until it ends; the code that it ends with. Each message waits for the one before."""
    while True:
        message = await dashboard.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            await browser.send_text(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await browser.send_bytes(message.data)
        else:
            return _spoken(dashboard.close_code)


async def _watch(still_open: Callable[[], Awaitable[bool]]) -> int:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if not await still_open():
            return NOT_ALLOWED


def _spoken(code: int | None) -> int:
    """A code that may be sent: not those that only tell of a line that broke."""
    return code if code in _SPOKEN_CODES or (code is not None and 3000 <= code < 5000) else GOING_AWAY


# -- what is said of one that does not answer -----------------------------------------------------------------------------


def _away(name: str, why: object) -> Problem:
    log.info("a dashboard does not answer", cluster=name, why=str(why) or type(why).__name__)
    return Problem(
        503,
        "dashboard-away",
        lambda say: say("The dashboard of this cluster does not answer at this moment; it may be starting."),
        cluster=name,
    )


def _leads_away(name: str) -> Problem:
    return Problem(
        502,
        "dashboard-leads-away",
        lambda say: say(
            "The dashboard of this cluster leads to an address that is not its own; it is not opened."
        ),
        cluster=name,
    )
