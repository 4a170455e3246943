"""A real embedded hub (hub, proxy, desk) on loopback, and a person who uses it over HTTP as a browser would."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from hub_ext.settings import free_ports

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "a-password-for-tests"
READY_SECONDS = 120


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60, every: float = 0.1) -> Any:
    """The condition's first true value; fails with `what` was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for: {what}")
        time.sleep(every)


def free_port() -> int:
    return free_ports(1)[0]


@dataclass
class EmbeddedHub:
    """`hub-ext up` with its own state folder; `settings` go into its hub.yaml over the project's."""

    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    documents: Mapping[str, str] = field(default_factory=dict)
    """Texts that replace the project's documents: `pools.yaml`, `identity.yaml`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def start(self) -> None:
        self._write_settings()
        out = (self.folder / "up.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hub_ext", "up"],
            cwd=ROOT,
            env=self.full_environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        out.close()
        before = self.output().count("is ready")
        wait_for(lambda: self._ready(before), "the hub is ready", READY_SECONDS)

    def stop(self, *, servers: bool = True) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
        if servers:
            self.command("stop-servers")

    def output(self) -> str:
        path = self.folder / "up.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def log(self, name: str) -> str:
        path = self.state / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def command(self, *arguments: str, check: bool = True) -> str:
        """Run `hub-ext …` against this hub's state; its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "hub_ext", *arguments],
            cwd=ROOT,
            env=self.full_environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        if check and done.returncode:
            raise AssertionError(
                f"hub-ext {' '.join(arguments)} ended {done.returncode}: {done.stderr}{done.stdout}"
            )
        return done.stdout

    def leases(self) -> list[dict[str, Any]]:
        return list(json.loads(self.command("leases", "--json")))

    def all_leases(self) -> list[dict[str, Any]]:
        return list(json.loads(self.command("leases", "--all", "--json")))

    def child(self, name: str) -> psutil.Process:
        """The running sibling (`hub`, `proxy`, `desk`)."""
        marks = {"hub": "jupyterhub", "proxy": "configurable-http-proxy", "desk": "desk"}
        assert self.process is not None

        def find() -> psutil.Process | None:
            for process in psutil.Process(self.process.pid).children():  # type: ignore[union-attr]
                try:
                    if any(marks[name] in part for part in process.cmdline()):
                        return process
                except psutil.Error:
                    continue
            return None

        return wait_for(find, f"{name} runs")

    def full_environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HUB_", "JUPYTER", "JPY_"))
        }
        return {
            **kept,
            "HUB_SETTINGS": str(self.folder / "hub.yaml"),
            "HUB_STATE": str(self.state),
            "HUB_PORT": str(self.port),
            "HUB_DEMO_PASSWORD": PASSWORD,
            **self.environment,
        }

    def _write_settings(self) -> None:
        import yaml

        settings: dict[str, Any] = yaml.safe_load((ROOT / "hub.yaml").read_text())
        settings |= {
            "profiles": str(ROOT / "spawner_profiles"),
            "sample_notebooks": str(ROOT / "sample_notebooks"),
        }
        for name, key in (("pools.yaml", "policy"), ("identity.yaml", "identity")):
            path = self.folder / name
            if not path.exists():
                path.write_text(self.documents.get(name) or (ROOT / "policy" / name).read_text())
            settings[key] = str(path)
        settings |= self.settings
        for name in ("jupyterhub_config.py", "node_modules"):
            if not (self.folder / name).exists():
                (self.folder / name).symlink_to(ROOT / name)
        (self.folder / "hub.yaml").write_text(
            yaml.safe_dump({k: v for k, v in settings.items() if v is not None})
        )

    def _ready(self, before: int) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the hub ended: {self.output()}\n{self.log('hub')[-3000:]}")
        return self.output().count("is ready") > before


class Visitor:
    """A person with a browser's cookies, signed in or not."""

    def __init__(self, hub: EmbeddedHub, name: str = "", *, language: str = "en") -> None:
        self.hub = hub
        self.name = name
        self.http = httpx.Client(
            base_url=hub.url,
            headers={"Accept-Language": language, "Accept": "text/html,*/*"},
            follow_redirects=True,
            timeout=90,
            trust_env=False,
        )
        if name:
            self.sign_in(name)

    def sign_in(self, name: str, password: str = PASSWORD) -> httpx.Response:
        self.http.get("/hub/login")
        return self.http.post(
            "/hub/login",
            data={"username": name, "password": password, "_xsrf": self.xsrf},
            params={"next": "/hub/home"},
        )

    @property
    def xsrf(self) -> str:
        found = [
            cookie.value
            for cookie in self.http.cookies.jar
            if cookie.name == "_xsrf" and cookie.path == "/hub/"
        ]
        return str(found[-1]) if found else ""

    def api(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """The hub's REST API with this person's cookies."""
        headers = {
            "X-XSRFToken": self.xsrf,
            "Referer": f"{self.hub.url}/hub/home",
            **kwargs.pop("headers", {}),
        }
        return self.http.request(method, f"/hub/api{path}", headers=headers, **kwargs)

    def start(self, options: object, server: str = "") -> httpx.Response:
        """Start a server by REST; any JSON may be sent."""
        path = f"/users/{self.name}/server" if not server else f"/users/{self.name}/servers/{server}"
        return self.api("POST", path, json=options)

    def submit_form(self, profile: str, server: str = "", **options: str) -> httpx.Response:
        """Start a server by the form, as the page's own script-less submit does."""
        data = {"profile": profile, "_xsrf": self.xsrf}
        data |= {f"profile-option-{profile}--{name}": value for name, value in options.items()}
        path = f"/hub/spawn/{self.name}/{server}" if server else "/hub/spawn"
        return self.http.post(path, data=data)

    def servers(self) -> dict[str, Any]:
        return dict(self.api("GET", f"/users/{self.name}").json()["servers"])

    def wait_until_ready(self, server: str = "", seconds: float = 60) -> dict[str, Any]:
        def ready() -> dict[str, Any] | None:
            found = self.servers().get(server)
            return found if found and found["ready"] else None

        return dict(wait_for(ready, f"server {server!r} of {self.name} is ready", seconds))

    def stop(self, server: str = "") -> None:
        path = f"/users/{self.name}/server" if not server else f"/users/{self.name}/servers/{server}"
        self.api("DELETE", path)
        wait_for(lambda: server not in self.servers(), f"server {server!r} of {self.name} is stopped")


def text_of(html: str) -> str:
    """What a person reads of a page, roughly."""
    without = re.sub(r"(?s)<(script|style).*?</\1>", " ", html)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", without))
