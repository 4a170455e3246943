"""A proxy before the API server that lets a share of the requests fail, as an API server in trouble does."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web

STATUSES = (409, 429, 500)


@dataclass
class Storm:
    """`share` of all requests that are no watch fail: half of them before they reach the API server, half after, so
    that what was asked for is done and the answer is lost.
    """

    kubeconfig: Path
    share: float = 0.0
    random: random.Random = field(default_factory=lambda: random.Random(7))
    failed: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How many of each (method, status)."""


@contextmanager
def storm(folder: Path, kubeconfig: Path) -> Iterator[Storm]:
    """A running proxy, and the kubeconfig that leads through it."""
    given = yaml.safe_load(kubeconfig.read_text())
    cluster, user = given["clusters"][0]["cluster"], given["users"][0]["user"]
    through = Storm(folder / "through-the-storm")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner, port = asyncio.run_coroutine_threadsafe(
        _serve(through, cluster, user, kubeconfig.parent), loop
    ).result(20)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "storm", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "storm", "user": {}}],
        "contexts": [{"name": "storm", "context": {"cluster": "storm", "user": "storm"}}],
        "current-context": "storm",
    }
    through.kubeconfig.write_text(json.dumps(config))
    try:
        yield through
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


async def _serve(
    through: Storm, cluster: dict[str, Any], user: dict[str, Any], folder: Path
) -> tuple[web.AppRunner, int]:
    trust = ssl.create_default_context(cadata=_text(cluster, "certificate-authority", folder))
    headers = {}
    if "token" in user:
        headers["Authorization"] = f"Bearer {user['token']}"
    else:
        _load_certificate(trust, user, folder, through.kubeconfig.parent)
    session = ClientSession(
        connector=TCPConnector(ssl=trust, limit=0), headers=headers, timeout=ClientTimeout(total=None)
    )

    async def handle(request: web.Request) -> web.StreamResponse:
        watches = request.query.get("watch") in ("true", "True", "1")
        fails = not watches and through.random.random() < through.share
        status = through.random.choice(STATUSES)
        if fails and through.random.random() < 0.5:
            return _failure(through, request, status)
        body = await request.read()
        kept = {name: value for name, value in request.headers.items() if name in ("Content-Type", "Accept")}
        try:
            async with session.request(
                request.method, cluster["server"] + request.path_qs, data=body, headers=kept
            ) as answer:
                if fails:
                    await answer.read()
                    return _failure(through, request, status)
                response = web.StreamResponse(
                    status=answer.status, headers={"Content-Type": answer.content_type}
                )
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                return response
        except (ClientError, ConnectionError):
            return web.Response(status=502)

    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", handle)

    async def close(_: web.Application) -> None:
        await session.close()

    app.on_cleanup.append(close)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, int(runner.addresses[0][1])


def _failure(through: Storm, request: web.Request, status: int) -> web.Response:
    through.failed[request.method, status] += 1
    return web.json_response(
        {"kind": "Status", "status": "Failure", "code": status, "message": "a storm"}, status=status
    )


def _text(part: dict[str, Any], name: str, folder: Path) -> str:
    import base64

    if f"{name}-data" in part:
        return base64.b64decode(part[f"{name}-data"]).decode()
    return (folder / part[name]).read_text()


def _load_certificate(trust: ssl.SSLContext, user: dict[str, Any], folder: Path, keep: Path) -> None:
    """The standard library reads a client's certificate from files only."""
    certificate, key = keep / "client.crt", keep / "client.key"
    certificate.write_text(_text(user, "client-certificate", folder))
    key.write_text(_text(user, "client-key", folder))
    key.chmod(0o600)
    trust.load_cert_chain(certificate, key)
