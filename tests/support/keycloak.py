"""A real Keycloak on loopback, and people who sign in to the hub through it over HTTP as a browser would.

It comes from Maven Central by Maven's own client, is kept under the home folder, and is built there once; a start then
takes about 15 s. Its realm (`tests/data/keycloak/realm.json`) has people of every sector.
"""

from __future__ import annotations

import fcntl
import html
import json
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.hub import EmbeddedHub, Visitor, free_port, wait_for

ROOT = Path(__file__).resolve().parents[2]
VERSION = "26.4.2"
ARTIFACT = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
CACHE = Path.home() / ".cache" / "hangang-keycloak" / VERSION
REALM = ROOT / "tests" / "data" / "keycloak" / "realm.json"
CLIENT, SECRET = "hangang-hub", "a-client-secret-for-tests"
ADMIN, PASSWORD = "admin", "a-password-for-tests"
READY_SECONDS = 180
# Half the start is spent compiling what runs only once.
ENVIRONMENT = {
    "JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx512m",
    "JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1",
    "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN,
    "KC_BOOTSTRAP_ADMIN_PASSWORD": PASSWORD,
}

needs_java = pytest.mark.skipif(
    shutil.which("java") is None or (shutil.which("mvn") is None and not CACHE.exists()),
    reason="no Java or no Maven on this machine: install the packages default-jre-headless and maven",
)


def keycloak_home() -> Path:
    """Where Keycloak is installed; the first call fetches and builds it. Safe when two processes come at once."""
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with (CACHE.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not CACHE.exists():
            with tempfile.TemporaryDirectory(dir=CACHE.parent, prefix="new-") as folder:
                _install(Path(folder)).rename(CACHE)
    return CACHE


def _install(folder: Path) -> Path:
    _run("mvn", "-B", "-q", COPY, f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={folder}")
    with zipfile.ZipFile(next(folder.glob("*.zip"))) as archive:
        archive.extractall(folder)
    home = folder / f"keycloak-{VERSION}"
    (home / "bin" / "kc.sh").chmod(0o755)
    # In memory: every start is a fresh one, and several may run beside each other.
    _run(str(home / "bin" / "kc.sh"), "build", "--db=dev-mem")
    return home


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=540,
    )
    if done.returncode:
        raise AssertionError(f"{' '.join(command)} ended {done.returncode}: {done.stdout}{done.stderr}")


class Keycloak:
    """One that runs. `settings` is what a hub needs to sign people in through it."""

    def __init__(self, folder: Path, *, host: str = "127.0.0.1") -> None:
        self.log = folder / "keycloak.log"
        self.host, self.port = host, free_port()
        self.url = f"http://{host}:{self.port}"
        self.issuer = f"{self.url}/realms/hangang"
        self.process: subprocess.Popen[bytes] | None = None
        self._http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def start(self) -> None:
        """Also after `stop`: everything is as in the beginning then, with other subjects."""
        home = keycloak_home()
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [
                    str(home / "bin" / "kc.sh"),
                    "start",
                    "--optimized",
                    "--cache=local",
                    "--http-enabled=true",
                    f"--http-host={self.host}",
                    f"--http-port={self.port}",
                    f"--hostname={self.url}",
                ],
                env={**os.environ, **ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for(self._answers, "Keycloak answers", READY_SECONDS, every=0.3)
        made = self._http.post("/admin/realms", json=json.loads(REALM.read_text()), headers=self._headers())
        assert made.status_code == 201, made.text

    def stop(self) -> None:
        if self.process is None:
            return
        try:
            started = [
                *psutil.Process(self.process.pid).children(recursive=True),
                psutil.Process(self.process.pid),
            ]
        except psutil.NoSuchProcess:
            started = []
        for one in started:
            one.terminate()
        _, alive = psutil.wait_procs(started, timeout=20)
        for one in alive:
            one.kill()
        self.process.wait(20)
        self.process = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Away, as a provider whose machine hangs or was cut off; nothing of it is lost."""
        assert self.process is not None
        found = [
            *psutil.Process(self.process.pid).children(recursive=True),
            psutil.Process(self.process.pid),
        ]
        for one in found:
            one.suspend()
        try:
            yield
        finally:
            for one in found:
                one.resume()

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"Keycloak ended: {self.log.read_text(errors='replace')[-3000:]}")
        try:
            return self._http.get("/realms/master/.well-known/openid-configuration").status_code == 200
        except httpx.HTTPError:
            return False

    # -- what its administrators do --------------------------------------------------------------------------------------

    def _headers(self) -> dict[str, str]:
        answer = self._http.post(
            "/realms/master/protocol/openid-connect/token",
            data={
                "grant_type": "password",
                "client_id": "admin-cli",
                "username": ADMIN,
                "password": PASSWORD,
            },
        )
        assert answer.status_code == 200, answer.text
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def admin(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Keycloak's administration API, below the realm."""
        answer = self._http.request(method, f"/admin/realms/hangang{path}", headers=self._headers(), **kwargs)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    def settings(self, hub: EmbeddedHub, **changes: Any) -> dict[str, Any]:
        """`oidc:` for this hub, to which Keycloak sends people back from now on."""
        (client,) = self.admin("GET", "/clients", params={"clientId": CLIENT}).json()
        client["redirectUris"] = [*client["redirectUris"], f"{hub.url}/*"]
        self.admin("PUT", f"/clients/{client['id']}", json=client)
        return {
            "issuer": self.issuer,
            "client_id": CLIENT,
            "client_secret": SECRET,
            "allow_http": True,
            "title": {"en": "Hangang ID", "ko": "한강 아이디"},
            **changes,
        }

    def user(self, name: str) -> dict[str, Any]:
        (found,) = self.admin("GET", "/users", params={"username": name, "exact": "true"}).json()
        return dict(found)

    def change(self, name: str, **changes: Any) -> None:
        user = self.user(name)
        self.admin("PUT", f"/users/{user['id']}", json=user | changes)

    def replace(self, name: str) -> None:
        """The person is deleted, and the name given to somebody new with the same affiliation."""
        user = self.user(name)
        self.admin("DELETE", f"/users/{user['id']}")
        kept = {
            key: user[key]
            for key in ("username", "email", "firstName", "lastName", "attributes")
            if key in user
        }
        password = [{"type": "password", "value": PASSWORD, "temporary": False}]
        self.admin(
            "POST", "/users", json=kept | {"enabled": True, "emailVerified": True, "credentials": password}
        )

    def join(self, name: str, group: str) -> None:
        found = self.admin("GET", f"/group-by-path{group}").json()
        self.admin("PUT", f"/users/{self.user(name)['id']}/groups/{found['id']}")


class Guest(Visitor):
    """A person with a browser's cookies who signs in through Keycloak."""

    def __init__(self, hub: EmbeddedHub, name: str, *, language: str = "en") -> None:
        super().__init__(hub, language=language)
        self.name = name
        self.http.event_hooks = {"response": [self._trust_loopback]}

    def _trust_loopback(self, response: httpx.Response) -> None:
        """On loopback browsers send cookies that want an encrypted connection over an open one too."""
        for cookie in self.http.cookies.jar:
            cookie.secure = False

    def come(self, next_url: str = "/hub/home", password: str = PASSWORD) -> httpx.Response:
        """To the hub, on to Keycloak, its form, and back; what the hub answers in the end."""
        answer = self.http.get("/hub/oauth_login", params={"next": next_url})
        if 'id="kc-form-login"' not in answer.text:
            return answer  # Keycloak knew them already, or the hub sent nobody there
        return self.fill_in(answer, password)

    def fill_in(self, page: httpx.Response, password: str = PASSWORD) -> httpx.Response:
        found = re.search(r'<form id="kc-form-login"[^>]*action="([^"]+)"', page.text)
        assert found, page.text
        return self.http.post(
            html.unescape(found[1]), data={"username": self.name, "password": password, "credentialId": ""}
        )
