"""The desk as a web application: pages, API, static files, and what holds for every answer."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from fastapi import APIRouter, FastAPI

from hub_ext.desk import handlers
from hub_ext.desk.auth import SignInNeeded, sign_in_first
from hub_ext.desk.desk import API, Desk
from hub_ext.desk.errors import ErrorBody, add_error_handlers
from hub_ext.desk.front import Front
from hub_ext.desk.live import Watch
from hub_ext.desk.metrics import Metrics
from hub_ext.desk.security import LimitedBodies, SecurityHeaders
from hub_ext.desk.static_files import add_static_files
from hub_ext.desk.waiting import look

API_VERSION: Final = "1.0"
"""Of what programs see: the first number is the one in their address."""


def create_app(desk: Desk, metrics: Metrics | None = None) -> FastAPI:
    """The application. Every module of `handlers` brings its own `router`. `metrics` are those of the clock beside it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await app.state.watch.close()
        await app.state.front.close()
        await desk.login.close()

    app = FastAPI(
        title="Hangang Hub desk",
        description="What the desk's pages show and do, for programs.",
        version=API_VERSION,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses={422: {"model": ErrorBody}, "4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}},
        redirect_slashes=False,
    )
    app.state.desk = desk
    app.state.metrics = metrics or Metrics()
    app.state.watch = Watch(partial(look, desk.store, desk.clock), desk.admission.in_thread)
    app.state.front = Front(desk.dask_proxy_url)
    for module in sorted(pkgutil.iter_modules(handlers.__path__), key=lambda one: one.name):
        found = importlib.import_module(f"{handlers.__name__}.{module.name}")
        router = getattr(found, "router", None)
        if isinstance(router, APIRouter):
            app.include_router(router)
    add_static_files(app)
    add_error_handlers(app)
    app.add_exception_handler(SignInNeeded, sign_in_first)
    app.add_middleware(LimitedBodies)
    app.add_middleware(SecurityHeaders)
    return app
