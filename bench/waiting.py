"""What open waiting pages cost a desk: `python -m bench.waiting [--pages N] [--seconds N] [--moves SHARE]`.

A real desk process (web server, sign-in by a hub that answers at once, records in SQLite), and so many browsers that each hold
the stream of a ticket of their own. Each second the places of a share of all tickets change, as they do where the line moves; the
browsers of those must be told. Measured is the desk's own processor time and memory, and how late a change arrives.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import uvicorn

from hub_ext.core.people import Person
from hub_ext.db.engine import make_engine
from hub_ext.db.upgrade import upgrade
from hub_ext.desk.hub_login import Identity
from hub_ext.quota.document import parse_policy
from hub_ext.quota.model import Ask, Outlook, Ticket
from hub_ext.quota.store import SqlStore
from tests.desk.in_process import EVERYTHING, NOW, DeskInProcess
from tests.support.databases import Database
from tests.support.hub import free_port

POOL = "hangang-univ"


def name_of(number: int) -> str:
    return f"person-{number:04}"


def ticket(number: int, place: int) -> Ticket:
    ask = Ask(f"t{number:04}", name_of(number), POOL, {"gpu.h200": 1000, "cpu": 16000}, profile="h200")
    facts = {"pool": POOL, "resource": "gpu.h200", "asked": 1000, "available": 0}
    return Ticket(ask, NOW - 60, Outlook("pool-full", facts, place=place))


def desk_on(path: str, pages: int) -> DeskInProcess:
    made = DeskInProcess.on(Database("sqlite", f"sqlite:///{path}", path))
    for number in range(pages):
        name = name_of(number)
        made.hub.identities[f"token-{name}"] = Identity(name, EVERYTHING, "s1")
    return made


def serve(path: str, pages: int, port: int) -> None:
    app = desk_on(path, pages).app
    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="warning")


class Browsers:
    """Each holds one stream; what arrives is noted with its time."""

    def __init__(self, desk: DeskInProcess, port: int) -> None:
        self.desk, self.port = desk, port
        self.arrived: dict[int, tuple[str, float]] = {}
        self.changed = asyncio.Event()

    async def hold(self, number: int) -> None:
        headers, csrf = self.desk.session(name_of(number))
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        head = [f"GET /services/desk/tickets/t{number:04}/events?_csrf={csrf} HTTP/1.1", "Host: desk"]
        head += [f"{name}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
        while line := await reader.readline():
            if line.startswith(b"data: "):
                self.arrived[number] = (json.loads(line[6:])["heading"], time.monotonic())
                self.changed.set()

    async def until(self, count: int) -> None:
        while len(self.arrived) < count:
            self.changed.clear()
            await self.changed.wait()


async def measure(arguments: argparse.Namespace, path: str) -> None:
    port, pages = free_port(), arguments.pages
    desk = desk_on(path, pages)
    store = SqlStore(make_engine(f"sqlite:///{path}"), load_policy=parse_policy)
    with store.booking() as txn:
        for number in range(pages):
            txn.put_person(Person(name_of(number), (POOL,), frozenset({"student"})))
        txn.put_tickets([ticket(number, number + 1) for number in range(pages)])
    child = _desk(path, pages, port)
    try:
        await _listening(port)
        process = psutil.Process(child.pid)
        browsers = Browsers(desk, port)
        began = time.monotonic()
        held = [asyncio.create_task(browsers.hold(number)) for number in range(pages)]
        await browsers.until(pages)
        print(f"{pages} pages open after {time.monotonic() - began:.1f} s")
        await _moves(arguments, store, browsers, process)
        for task in held:
            task.cancel()
    finally:
        child.terminate()
        child.wait(30)
        store.close()


async def _moves(
    arguments: argparse.Namespace, store: SqlStore, browsers: Browsers, process: psutil.Process
) -> None:
    pages, moved = arguments.pages, max(1, int(arguments.pages * arguments.moves))
    late: list[float] = []
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    for round_ in range(arguments.seconds):
        numbers = [(round_ * moved + offset) % pages for offset in range(moved)]
        outlooks = {
            f"t{number:04}": replace(ticket(number, 0).outlook, place=1000 + round_) for number in numbers
        }
        browsers.arrived.clear()
        with store.booking() as txn:
            txn.put_outlooks(outlooks)
        written = time.monotonic()
        await browsers.until(moved)
        late += [at - written for _, at in browsers.arrived.values()]
        await asyncio.sleep(max(0.0, began + round_ + 1 - time.monotonic()))
    seconds = time.monotonic() - began
    processor = (sum(process.cpu_times()[:2]) - before) / seconds
    memory = process.memory_info().rss / 2**20
    ordered: Sequence[float] = sorted(late)
    print(f"{moved} of {pages} places changed each second, for {seconds:.0f} s")
    print(f"processor {processor:.2f} cores, memory {memory:.0f} MiB")
    print(
        f"a change arrives after {statistics.median(ordered):.2f} s (median), "
        f"{ordered[int(len(ordered) * 0.95)]:.2f} s (p95)"
    )


def _desk(path: str, pages: int, port: int) -> subprocess.Popen[bytes]:
    serving = ["--serve", path, "--pages", str(pages), "--port", str(port)]
    return subprocess.Popen([sys.executable, "-m", "bench.waiting", *serving])


async def _listening(port: int) -> None:
    for _ in range(600):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    raise RuntimeError("the desk does not listen")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--moves", type=float, default=0.1)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.pages, arguments.port)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "hub.sqlite")
        upgrade(f"sqlite:///{path}")
        asyncio.run(measure(arguments, path))


if __name__ == "__main__":
    main()
