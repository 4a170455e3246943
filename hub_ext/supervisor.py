"""Runs hub, proxy, desk and the gateway of Dask clusters side by side on one machine, and starts again whichever dies.

They are siblings, not children of the hub: any of them may be killed and started alone, and servers outlive them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx
import psutil

from hub_ext.core.errors import BadInput
from hub_ext.desk.desk import PREFIX
from hub_ext.factory import Factory
from hub_ext.settings import Settings
from hub_ext.spawners.processes import handle_of, process_of

READY_SECONDS = 120
LONGEST_PAUSE = 10.0
END_SECONDS = 15.0


@dataclass
class Child:
    """One sibling: how to start it, and what runs."""

    name: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    start_at: float = 0.0
    started_at: float = 0.0


class Supervisor:
    """`tell` prints a line to the person who started it."""

    def __init__(self, factory: Factory, tell: Callable[[str], None]) -> None:
        self.factory = factory
        self.settings = factory.settings
        self.tell = tell
        self.state = self.settings.state_dir
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe()

    def run(self) -> None:
        """Until SIGINT or SIGTERM. Raises BadInput when this hub runs already or its port is taken."""
        with self._only_one():
            self._end_former()
            self._port_is_free()
            children = self._children()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, self._stop)
            signal.signal(signal.SIGCHLD, lambda *_: None)
            os.set_blocking(self._wake_read, False)
            os.set_blocking(self._wake_write, False)
            signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
            try:
                self._watch(children)
            finally:
                self._end(children)

    # -- the siblings ------------------------------------------------------------------------------------------

    def _children(self) -> list[Child]:
        secrets, settings = self.factory.secrets, self.settings
        root = settings.root
        bin_dir = Path(sys.executable).parent
        proxy = [
            str(bin_dir / "node"),
            str(root / "node_modules/configurable-http-proxy/bin/configurable-http-proxy"),
            "--ip=127.0.0.1",
            f"--port={settings.port}",
            "--api-ip=127.0.0.1",
            f"--api-port={secrets.proxy_api_port}",
            f"--default-target=http://127.0.0.1:{secrets.hub_port}",
            f"--error-target=http://127.0.0.1:{secrets.hub_port}/hub/error",
            "--log-level=warn",
        ]
        hub = [sys.executable, "-m", "jupyterhub", "-f", str(root / "jupyterhub_config.py")]
        desk = [sys.executable, "-m", "hub_ext", "desk"]
        return [
            Child("proxy", proxy, {"CONFIGPROXY_AUTH_TOKEN": secrets.proxy_token}),
            Child("hub", hub),
            Child("desk", desk),
            *self._clusters(),
        ]

    def _clusters(self) -> list[Child]:
        """The gateway of Dask clusters, and the proxy before their schedulers: pods have theirs in the cluster."""
        if self.settings.on_kubernetes:
            return []
        command = [sys.executable, "-m", "hub_ext"]
        # Its lines are read in a file.
        gateway = Child("gateway", [*command, "gateway"], {"NO_COLOR": "1"})
        return [gateway, Child("dask-proxy", [*command, "dask-proxy"])]

    def _start(self, child: Child) -> None:
        log = self._log(child.name)
        environment = {**os.environ, **self._shared_environment(), **child.environment}
        child.process = subprocess.Popen(
            child.command,
            cwd=self.settings.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        child.started_at = time.monotonic()
        self._write_down()

    def _shared_environment(self) -> dict[str, str]:
        """Siblings read the same settings, whatever the folder they run in."""
        shared = {"HUB_STATE": str(self.state), "HUB_PORT": str(self.settings.port)}
        if self.settings.demo_password:
            shared["HUB_DEMO_PASSWORD"] = self.settings.demo_password
        if self.settings.data:
            shared["HANGANG_DATA"] = str((self.settings.root / self.settings.data).absolute())
        return shared

    def _watch(self, children: list[Child]) -> None:
        self._watched = children
        for child in children:
            self._start(child)
        ready = False
        give_up = time.monotonic() + READY_SECONDS
        while not self._stopping:
            if not ready and self._answers():
                ready = True
                self._welcome()
            if not ready and time.monotonic() > give_up:
                raise BadInput(f"The hub did not answer within {READY_SECONDS} s; see {self.state / 'logs'}")
            self._restart_dead(children, ready=ready)
            self._wait(0.2 if not ready else 1.0)

    def _restart_dead(self, children: list[Child], *, ready: bool) -> None:
        now = time.monotonic()
        for child in children:
            process = child.process
            if process is not None and process.poll() is not None:
                if now - child.started_at > 60:
                    child.failures = 0
                if not ready and child.name == "hub" and child.failures >= 2:
                    raise BadInput(f"The hub does not start:\n{self._last_lines(child.name)}")
                pause = min(LONGEST_PAUSE, 0.5 * 2**child.failures) if child.failures else 0.0
                self.tell(f"{child.name} ended ({process.returncode}); it is started again.")
                child.process, child.start_at, child.failures = None, now + pause, child.failures + 1
            if child.process is None and now >= child.start_at:
                self._start(child)

    def _end(self, children: list[Child]) -> None:
        self.tell("\nStopping.")
        # The hub first: it must not take servers that end now for crashes.
        for child in sorted(children, key=lambda child: child.name != "hub"):
            if child.process is not None and child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + END_SECONDS
        for child in children:
            if child.process is not None:
                try:
                    child.process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    child.process.kill()
                    child.process.wait()
        (self.state / "processes.json").unlink(missing_ok=True)
        servers = {running.lease for running in self.factory.world.running()}
        if servers:
            self.tell(
                f"{len(servers)} process(es) of servers and clusters keep running and are found again by the next `make hub`. "
                "To end them: .venv/bin/hub-ext stop-servers"
            )

    # -- what is told ------------------------------------------------------------------------------------------

    def _welcome(self) -> None:
        documents, secrets = self.factory.documents, self.factory.secrets
        people = ", ".join(documents.identity.people)
        self.tell(f"\nHangang Hub is ready:  http://127.0.0.1:{self.settings.port}\n")
        if self.settings.oidc is None:
            self.tell(f"  Sign in as   {people}")
            self.tell(f"  Password     {secrets.demo_password}")
        else:
            self.tell(f"  Sign in      through {self.settings.oidc.issuer}")
        self.tell(f"  State, logs  {self.state}\n")
        if self.settings.on_kubernetes:
            self.tell(f"  Servers are pods in the namespace {self.settings.kubernetes.namespace}.")
            self.tell("  Ctrl-C stops it.\n")
            return
        if self.factory.node(documents.policy).simulated:
            self.tell("  GPUs here are simulated: decisions are real, the devices are not.")
        self.tell("  This hub listens on this machine only. It isolates nobody: all servers run as you.")
        if os.geteuid() == 0:
            self.tell(
                "  Warning: you are root, and so is every server (--allow-root). Use it for trials only."
            )
        self.tell("  Ctrl-C stops it.\n")

    def _answers(self) -> bool:
        """Hub and desk themselves first: the proxy complains loudly while nothing is behind it."""
        secrets, port = self.factory.secrets, self.settings.port
        addresses = [
            f"http://127.0.0.1:{secrets.hub_port}/hub/health",
            f"{self.factory.desk_url}{PREFIX}/health",
            f"http://127.0.0.1:{port}/hub/health",
            f"http://127.0.0.1:{port}{PREFIX}/health",
        ]
        if not self.settings.on_kubernetes:
            # Through its own proxy, which has read its routes then.
            addresses.append(f"{self.factory.dask_proxy_url}/api/health")
        try:
            return all(
                httpx.get(address, timeout=2, trust_env=False).status_code == 200 for address in addresses
            )
        except httpx.HTTPError:
            return False

    def _last_lines(self, name: str, count: int = 15) -> str:
        try:
            lines = (self.state / "logs" / f"{name}.log").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-count:])

    # -- small things ------------------------------------------------------------------------------------------

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _wait(self, seconds: float) -> None:
        """Until a signal (a child that died among them) or the time is over."""
        select.select([self._wake_read], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _only_one(self) -> IO[str]:
        self.state.mkdir(parents=True, exist_ok=True)
        lock = (self.state / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(
                f"A hub with its state in {self.state} runs already. Stop it, or start a second one beside it: "
                "HUB_STATE=.hub2 make hub PORT=8010"
            ) from None
        return lock

    def _end_former(self) -> None:
        """A supervisor that was killed leaves its siblings: end those very processes, and no others."""
        try:
            handles = json.loads((self.state / "processes.json").read_text())
        except (OSError, ValueError):
            return
        former = [process for handle in handles if (process := process_of(str(handle))) is not None]
        for process in former:
            process.terminate()
        _, alive = psutil.wait_procs(former, timeout=END_SECONDS)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=END_SECONDS)

    def _write_down(self) -> None:
        handles = []
        for child in self._watched:
            if child.process is not None:
                try:
                    handles.append(handle_of(psutil.Process(child.process.pid)))
                except psutil.NoSuchProcess:
                    continue
        new = self.state / "processes.json.new"
        new.write_text(json.dumps(handles))
        new.replace(self.state / "processes.json")

    def _port_is_free(self) -> None:
        secrets = self.factory.secrets
        kept = [secrets.hub_port, secrets.proxy_api_port, self.factory.desk_address()[1]]
        if not self.settings.on_kubernetes:
            kept += [secrets.gateway_port, secrets.dask_http_port, secrets.dask_tcp_port]
        for port, what in (
            (self.settings.port, "Choose another: make hub PORT=8010"),
            *(
                (port, f"Stop what uses it, or remove {self.state / 'secrets.json'} to choose anew.")
                for port in kept
            ),
        ):
            try:
                socket.create_server(("127.0.0.1", port)).close()
            except OSError as error:
                raise BadInput(f"Port {port} cannot be used ({error.strerror}). {what}") from None

    def _log(self, name: str) -> IO[bytes]:
        folder = self.state / "logs"
        folder.mkdir(exist_ok=True)
        return (folder / f"{name}.log").open("ab")


def prepare(settings: Settings) -> Factory:
    """Everything that must be right before anything is started: documents, database, policy."""
    from hub_ext.db.upgrade import upgrade

    factory = Factory(settings)
    documents = factory.documents
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    upgrade(settings.ledger_url)
    factory.put_in_force(documents, who="hub")
    return factory
