"""The desk as a process: its pages on the event loop, the clock in a thread beside them, both ended by SIGTERM."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Final

import structlog
import uvicorn
from fastapi import FastAPI

from hub_ext.desk.app import create_app
from hub_ext.desk.clockwork import Clockwork
from hub_ext.desk.desk import Desk

log = structlog.get_logger("hub_ext.desk")

END_SECONDS: Final = 5
"""How long answers under way are waited for at the end."""
CLOCK_SECONDS: Final = 10.0
"""How long the clock's last tick is waited for."""


def serve(desk: Desk, clockwork: Clockwork, host: str, port: int) -> None:
    """Until SIGTERM or SIGINT. Ends the process with a fault where the address is taken or the clock dies."""
    stop = threading.Event()
    server = uvicorn.Server(configured(create_app(desk, clockwork.metrics), host, port))
    died: list[BaseException] = []

    def keep_the_clock() -> None:
        try:
            clockwork.run(stop)
        except BaseException as error:  # a desk without its clock would look well and do nothing
            log.exception("the clock died; the desk ends, to be started again")
            died.append(error)
            server.should_exit = True

    # The server hands a signal on to these once its own end is done.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    clock = threading.Thread(target=keep_the_clock, name="clock", daemon=True)
    clock.start()
    try:
        server.run()
    finally:
        stop.set()
        clock.join(CLOCK_SECONDS)
    if died or not server.started:
        sys.exit(1)


def configured(app: FastAPI, host: str, port: int) -> uvicorn.Config:
    """How the desk is served."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        access_log=False,
        log_level="warning",
        proxy_headers=False,  # who asks is known by session or token, never by address
        server_header=False,
        ws="websockets-sansio",
        timeout_graceful_shutdown=END_SECONDS,
    )
