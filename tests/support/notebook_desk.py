"""A stand-in for the desk as a notebook's server sees it, named by how it fails; and a real JupyterLab beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import hub_ext.notebook
from tests.support.hub import free_port, wait_for

NOTEBOOK = Path(hub_ext.notebook.__file__).parent
SEOUL = ZoneInfo("Asia/Seoul")
LEASE = "lease-1"
TOKEN = "token-of-the-server"
PERSON = "student"

BORROWED = {
    "en": "Borrowed from Seoul: it may be taken back with 10 min notice.",
    "ko": "서울에서 빌린 자원: 10분 전에 알린 뒤 회수될 수 있습니다.",
}


def ends_in(**ahead: float) -> datetime:
    return datetime.now(SEOUL).replace(microsecond=0) + timedelta(**ahead)


@dataclass
class StandInDesk:
    """Answers for one lease. `fails` names how: gone, slow, failing, refusing, redirecting, nonsense, endless."""

    fails: str = ""
    ends_at: datetime = field(default_factory=lambda: ends_in(hours=4))
    guaranteed: bool = True
    unclaimed: bool = True
    leases: int = 1
    notice: dict[str, Any] | None = None
    extend: dict[str, Any] | None = None
    refusal: dict[str, str] | None = None
    """By language: why an extension is refused."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    closing: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def times_asked(self) -> int:
        return len(self.asked)

    def item(self, language: str) -> dict[str, Any]:
        notice = self.notice and {**self.notice, "sentence": self.notice["sentence"][language]}
        return {
            "id": LEASE,
            "kind": "server",
            "server": "",
            "state": "running",
            "amounts": {"gpu.h200": 1000, "cpu": 16000},
            "ends_at": self.ends_at.isoformat(),
            "guaranteed": self.guaranteed,
            "lender": None if self.guaranteed else "seoul",
            "unclaimed": self.unclaimed,
            "notice": notice,
            "extend": self.extend,
            "borrowed": "" if self.guaranteed else BORROWED[language],
            "cost": {"units_per_second": 500_000, "sentence": "0.5 GPU-h/hour"},
            "hours": {"sentence": "31.5 of 60 GPU-h left this week"},
        }

    def answer(self, method: str, path: str, language: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        if method == "GET" and path.startswith("/services/desk/api/v1/leases?server="):
            return 200, {"items": [self.item(language)] * self.leases, "next": None}
        if method == "POST" and path == f"/services/desk/api/v1/leases/{LEASE}/claim":
            self.claims.append(path)
            self.unclaimed = False
            return 200, self.item(language)
        if method == "POST" and path == f"/services/desk/api/v1/leases/{LEASE}/extend":
            if self.refusal is not None:
                return 409, {"code": "others-waiting", "facts": {}, "message": self.refusal[language]}
            self.ends_at += timedelta(minutes=body["minutes"])
            return 200, self.item(language)
        return 404, {"code": "not-found", "facts": {}, "message": "there is nothing here"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    desk: StandInDesk

    def do_GET(self) -> None:
        self._serve("GET", {})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._serve("POST", json.loads(self.rfile.read(length) or b"{}"))

    def _serve(self, method: str, body: Mapping[str, Any]) -> None:
        desk = self.desk
        desk.asked.append((method, self.path))
        desk.tokens.add(self.headers.get("Authorization", ""))
        self.close_connection = True
        match desk.fails:
            case "gone":
                return None
            case "slow":
                desk.closing.wait(60)
                return None
            case "failing":
                return self._send(500, b"<h1>Internal Server Error</h1>")
            case "refusing":
                return self._send(403, b'{"code": "forbidden", "facts": {}, "message": "not yours"}')
            case "redirecting":
                return self._send(302, b"", {"Location": "/stolen"})
            case "nonsense":
                return self._send(200, b'{"items": [{"id": 7}]}')
            case "endless":
                return self._endless()
        language = "ko" if self.headers.get("Accept-Language", "").startswith("ko") else "en"
        status, value = desk.answer(method, self.path, language, body)
        return self._send(status, json.dumps(value).encode())

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _endless(self) -> None:
        """A byte now and then, for ever."""
        self.send_response(200)
        self.end_headers()
        try:
            while not self.desk.closing.wait(0.2):
                self.wfile.write(b" ")
                self.wfile.flush()
        except OSError:
            return

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def stand_in_desk(**facts: Any) -> Iterator[StandInDesk]:
    desk = StandInDesk(**facts)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"desk": desk}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    desk.url = f"http://127.0.0.1:{server.server_port}/services/desk"
    try:
        yield desk
    finally:
        desk.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


# -- a notebook's server --------------------------------------------------------------------------------------------


@dataclass
class Notebook:
    """A running server of JupyterLab; its token lets in."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def ask(
        self,
        path: str,
        body: Mapping[str, Any] | bytes | None = None,
        *,
        method: str | None = None,
        token: str | None = TOKEN,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data=data, headers=dict(headers or {}), method=method
        )
        if token is not None:
            request.add_header("Authorization", f"token {token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def environment_for(desk: str, home: Path) -> dict[str, str]:
    """As a spawner gives it, without what this machine's own notebooks have."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "HANGANG"))}
    return kept | {
        "HOME": str(home),
        "JUPYTER_CONFIG_PATH": str(NOTEBOOK / "config"),
        "JUPYTER_PATH": str(NOTEBOOK / "lab"),
        "JUPYTERHUB_API_TOKEN": TOKEN,
        "JUPYTERHUB_SERVER_NAME": "",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_USER": PERSON,
        "HANGANG_DESK_URL": desk,
    }


Change = Callable[[dict[str, str]], object]


@contextmanager
def notebook(desk: str, home: Path, change: Change = bool) -> Iterator[Notebook]:
    """JupyterLab by itself, on a port of its own; what it writes is in `<home>/server.log`."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={home}"),
    ]
    environment = environment_for(desk, home)
    change(environment)
    with _running(command, environment, home, f"http://127.0.0.1:{port}/") as found:
        yield found


@contextmanager
def singleuser(desk: str, hub_port: int, home: Path) -> Iterator[Notebook]:
    """As a hub starts it, with a hub's API on `hub_port` that knows `TOKEN`."""
    base, hub, access = (
        f"/user/{PERSON}/",
        f"http://127.0.0.1:{hub_port}/hub/api",
        f"access:servers!server={PERSON}/",
    )
    url = f"http://127.0.0.1:{free_port()}{base}"
    environment = environment_for(desk, home) | {
        "JUPYTERHUB_API_URL": hub,
        "JUPYTERHUB_ACTIVITY_URL": f"{hub}/users/{PERSON}/activity",
        "JUPYTERHUB_CLIENT_ID": f"jupyterhub-user-{PERSON}",
        "JUPYTERHUB_HOST": "",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps([access]),
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{base}oauth_callback",
        "JUPYTERHUB_OAUTH_SCOPES": json.dumps([access]),
        "JUPYTERHUB_SERVICE_PREFIX": base,
        "JUPYTERHUB_SERVICE_URL": url,
        "JUPYTERHUB_USER": PERSON,
    }
    command = [str(Path(sys.executable).with_name("jupyterhub-singleuser")), "--allow-root"]
    with _running(command, environment, home, url) as found:
        yield found


@contextmanager
def _running(command: list[str], environment: dict[str, str], home: Path, url: str) -> Iterator[Notebook]:
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=home, stdout=output, stderr=output)
    found = Notebook(url, process, log)
    try:
        wait_for(lambda: _answers(found), "an answer from JupyterLab")
        yield found
    finally:
        process.kill()
        process.wait()


def _answers(server: Notebook) -> bool:
    if server.process.poll() is not None:
        raise AssertionError(f"JupyterLab ended:\n{server.log.read_text()}")
    try:
        # Without the token: nobody has come yet.
        return server.ask("api", token=None)[0] == 200
    except OSError:
        return False


def seconds_of(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began
