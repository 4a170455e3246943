"""Stand-ins for what a part of the hub talks to, named by how they behave and how they fail. All of them are here."""

# ruff: noqa: N802  NVML and http.server look their functions up by these names.

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hub_ext.core.errors import HubError, StoreUnavailable
from hub_ext.desk.hub_api import HubAway
from hub_ext.quota.ports import Running, Store, Transaction

# -- time ---------------------------------------------------------------------------------------------------------


class HandClock:
    """Moves only by hand, also backwards."""

    def __init__(self, at: int) -> None:
        self.at = at

    def now(self) -> int:
        return self.at


# -- the world: what runs ---------------------------------------------------------------------------------------------


class ObedientWorld:
    """Runs what it is told to; what is stopped, with everything that carries its label, is gone."""

    def __init__(self) -> None:
        self.processes: list[Running] = []
        self.stopped: list[str] = []
        self.reasons: dict[str, str] = {}
        """Why what a lease ran has ended, where the world tells."""
        self.when_looked_at: Callable[[], object] = lambda: None
        """What happens while somebody looks."""

    def start(self, lease: str, started_at: int | None, **more: Any) -> Running:
        more = {"handle": f"process of {lease}", "node": "n1"} | more
        process = Running(lease, started_at=started_at, **more)
        self.processes.append(process)
        return process

    def kill(self, lease: str, *, handle: str = "") -> None:
        self.processes = [
            one for one in self.processes if one.lease != lease or (handle and one.handle != handle)
        ]

    def ended_by_the_hub(self, lease: str) -> None:
        self.kill(lease)

    def running(self) -> list[Running]:
        self.when_looked_at()
        return list(self.processes)

    def ended(self) -> Mapping[str, str]:
        return dict(self.reasons)

    def stop(self, running: Running) -> None:
        self.stopped.append(running.lease)
        self.kill(running.lease)


class UnseenWorld(ObedientWorld):
    """Cannot be looked at, as a cluster whose API is away."""

    def running(self) -> list[Running]:
        raise HubError("what runs cannot be seen")


class UndyingWorld(ObedientWorld):
    """What is stopped, by whomever, goes on running, as a process that hangs in the kernel."""

    def ended_by_the_hub(self, lease: str) -> None:
        pass

    def stop(self, running: Running) -> None:
        self.stopped.append(running.lease)


class BrokenWorld(ObedientWorld):
    """Looking at it meets a mistake of the program."""

    def running(self) -> list[Running]:
        raise ZeroDivisionError("a mistake")


# -- the hub: which servers it knows ------------------------------------------------------------------------------------


class ObedientHub:
    """Knows its servers, and stops them when asked. What it stops ends in the world."""

    def __init__(self, world: ObedientWorld) -> None:
        self.world = world
        self.known: dict[tuple[str, str], str | None] = {}
        self.leases: dict[tuple[str, str], str] = {}
        self.asked: list[tuple[str, str]] = []
        self.started: list[tuple[str, str]] = []
        self.options: list[dict[str, Any]] = []
        """With what each of them was started."""
        self.looks = 0
        self.when_asked: Callable[[], object] = lambda: None
        """What happens while it stops a server."""

    def active(self) -> dict[tuple[str, str], str | None]:
        self.looks += 1
        return dict(self.known)

    def stop(self, person: str, server: str) -> bool:
        self.asked.append((person, server))
        self.when_asked()
        if (person, server) not in self.known:
            return False
        del self.known[person, server]
        self.world.ended_by_the_hub(self.leases[person, server])
        return True

    def start(self, person: str, server: str, options: Mapping[str, Any] | None = None) -> None:
        self.started.append((person, server))
        self.options.append(dict(options or {}))


class RefusingHub(ObedientHub):
    """Starts nothing that it is asked to."""

    def start(self, person: str, server: str, options: Mapping[str, Any] | None = None) -> None:
        self.started.append((person, server))
        raise HubAway("the hub answered 403")


class SilentHub(ObedientHub):
    """Does not answer."""

    def active(self) -> dict[tuple[str, str], str | None]:
        self.looks += 1
        raise HubAway("the hub does not answer")

    def stop(self, person: str, server: str) -> bool:
        self.asked.append((person, server))
        raise HubAway("the hub does not answer")


class FailingHub(ObedientHub):
    """Answers, but every stop ends in a fault of its own."""

    def stop(self, person: str, server: str) -> bool:
        self.asked.append((person, server))
        raise HubAway("the hub answered 500")


class LazyHub(ObedientHub):
    """Takes every order to stop a server, and does nothing."""

    def stop(self, person: str, server: str) -> bool:
        self.asked.append((person, server))
        return True


class ForgetfulHub(ObedientHub):
    """Lists its servers, but knows of none when asked to stop one."""

    def stop(self, person: str, server: str) -> bool:
        self.asked.append((person, server))
        return False


# -- the database ----------------------------------------------------------------------------------------------------------


class StoreAwayOnce:
    """One transaction, the `number`-th from now, finds the database gone: before its block, or at its end."""

    def __init__(self, store: Store, number: int, *, at_the_end: bool = False) -> None:
        self.store, self.number, self.at_the_end = store, number, at_the_end
        self.count = 0

    @contextmanager
    def booking(self) -> Iterator[Transaction]:
        with self._counted(), self.store.booking() as txn:
            yield txn
            self._fail(self.at_the_end)

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        with self._counted(), self.store.reading() as txn:
            yield txn
            self._fail(self.at_the_end)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.count += 1
        self._fail(not self.at_the_end)
        yield

    def _fail(self, now: bool) -> None:
        if now and self.count == self.number:
            raise StoreUnavailable("The database is away. Nothing was booked. Try again.")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


# -- the hub's REST API, over HTTP --------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What the server answers to one request. `hangs`: nothing, until the test is over."""

    status: int = 200
    body: bytes | Mapping[str, Any] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False


class ScriptedServer:
    """A real HTTP server on loopback. `answer(method, path)` says what it answers; `requests` is what it was asked."""

    def __init__(self, answer: Callable[[str, str], Answer]) -> None:
        self.answer = answer
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        self.over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                scripted.requests.append((self.command, self.path, dict(self.headers)))
                answer = scripted.answer(self.command, self.path)
                if answer.hangs:
                    scripted.over.wait(30)
                    return
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.do_GET()

            def do_DELETE(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                """Not into the output of the tests."""

        return Handler


# -- the machine ---------------------------------------------------------------------------------------------------------------


class NvmlError(Exception):
    """What NVML's functions raise."""


@dataclass
class Gpu:
    """One GPU as NVML shows it; `slices` None where it is not in MIG mode (a slot without a slice is None)."""

    uuid: str
    mebibytes: int
    slices: list[Gpu | None] | None = None
    knows_mig: bool = True
    fallen_off_the_bus: bool = False


class FakeNvml:
    """`pynvml` on a machine with these GPUs. Counts that each start is followed by one end."""

    NVMLError = NvmlError

    def __init__(self, *gpus: Gpu) -> None:
        self.gpus = gpus
        self.open = 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:
        if self.gpus[index].fallen_off_the_bus:
            raise NvmlError("GPU is lost")
        return self.gpus[index]

    def nvmlDeviceGetMigMode(self, gpu: Gpu) -> list[int]:
        if not gpu.knows_mig:
            raise NvmlError("Not Supported")
        return [int(gpu.slices is not None)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: Gpu) -> int:
        return len(gpu.slices or [])

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: Gpu, index: int) -> Gpu:
        found = (gpu.slices or [])[index]
        if found is None:
            raise NvmlError("Not Found")
        return found

    def nvmlDeviceGetMemoryInfo(self, gpu: Gpu) -> SimpleNamespace:
        return SimpleNamespace(total=gpu.mebibytes << 20)

    def nvmlDeviceGetUUID(self, gpu: Gpu) -> str | bytes:
        return gpu.uuid


class NvmlWithoutDriver(FakeNvml):
    """The library is installed, the driver is not."""

    def nvmlInit(self) -> None:
        raise NvmlError("Driver Not Loaded")


class NvmlOfBytes(FakeNvml):
    """Older releases give names as bytes."""

    def nvmlDeviceGetUUID(self, gpu: Gpu) -> bytes:
        return gpu.uuid.encode()


class FakeControlGroups:
    """A folder that behaves as the kernel's: a new group has its files at once, and is removed with them.

    A group in `busy` holds a process and cannot be removed; files in `refused` cannot be written.
    """

    def __init__(self, root: Path, files: Mapping[str, tuple[str, ...]]) -> None:
        self.root, self.files = root, files
        self.busy: set[Path] = set()
        self.refused: set[str] = set()
        self._mkdir, self._rmdir, self._write = Path.mkdir, Path.rmdir, Path.write_text

    def install(self, monkeypatch: Any) -> None:
        groups = self

        def mkdir(path: Path, *args: Any, **kwargs: Any) -> None:
            groups._mkdir(path, *args, **kwargs)
            hierarchy = path.relative_to(groups.root).parts[0] if groups.inside(path) else ""
            for name in groups.files.get(hierarchy, groups.files.get("", ())) if hierarchy else ():
                (path / name).touch()

        def rmdir(path: Path) -> None:
            if groups.inside(path) and path.is_dir():
                if path in groups.busy or any(one.is_dir() for one in path.iterdir()):
                    raise OSError(16, "Device or resource busy", str(path))
                for one in path.iterdir():
                    one.unlink()
            groups._rmdir(path)

        def write_text(path: Path, *args: Any, **kwargs: Any) -> int:
            if groups.inside(path) and (path.name in groups.refused or not path.exists()):
                raise PermissionError(13, "Permission denied", str(path))
            return groups._write(path, *args, **kwargs)

        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setattr(Path, "rmdir", rmdir)
        monkeypatch.setattr(Path, "write_text", write_text)

    def inside(self, path: Path) -> bool:
        return self.root in path.parents
