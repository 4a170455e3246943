"""Servers as processes on this machine: one process, home and port per person, GPUs by the lease's devices.

It isolates nobody: all servers run as the user who runs the hub. That is for demos, workstations and tests; people
who do not trust each other belong on Kubernetes.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import psutil
from jupyterhub.spawner import SimpleLocalProcessSpawner
from jupyterhub.utils import random_port
from traitlets import Unicode, default

from hub_ext.core.amounts import MIB, MILLI
from hub_ext.quota.model import facts_of
from hub_ext.spawners.gate import GateMixin
from hub_ext.spawners.homes import home_of
from hub_ext.spawners.limits import Limits, entering
from hub_ext.spawners.processes import LocalWorld, handle_of, labels, process_of


class GatedLocalSpawner(GateMixin, SimpleLocalProcessSpawner):
    """A local process per server, started only with a lease."""

    world: ClassVar[LocalWorld | None] = None
    limits: ClassVar[Limits] = Limits()
    homes: ClassVar[Path] = Path(".hub/homes")
    furnish: ClassVar[Callable[[Path], object] | None] = None
    """Puts into a home what every home gets, such as the sample notebooks."""
    shared_environment: ClassVar[dict[str, str]] = {}

    handle = Unicode("", help="Names the running process.")

    # -- the start -----------------------------------------------------------------------------------------------

    async def start(self) -> Any:
        # 1. What an earlier start of this server left behind must not hold its GPUs.
        await self._end_leftovers()
        # 2. The port is chosen anew: another process may have taken the last one.
        self.port = random_port()
        return await super().start()

    async def pass_gate(self) -> None:
        await super().pass_gate()
        await self.in_thread(self._prepare_home)

    async def mark_running(self) -> None:
        # Written down before anything else can fail: a hub that is killed now finds the process again.
        self.handle = handle_of(psutil.Process(self.pid))
        self.write_down()
        await super().mark_running()

    def handle_and_node(self) -> tuple[str, str | None]:
        return self.handle, self.lease.node if self.lease else None

    def _prepare_home(self) -> None:
        home = Path(self.home_dir)
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
        furnish = type(self).furnish
        if furnish is not None:
            try:
                furnish(home)
            except OSError as error:
                self.log.warning("Sample notebooks could not be put into %s: %s", home, error)

    async def _end_leftovers(self) -> None:
        world = self.world
        if world is None or self.gate is None:
            return
        for lease in await self.in_thread(world.leases_of, self.user.name, self.name):
            self.log.warning("Ending what is left of lease %s before %s starts anew", lease, self._log_name)
            await self.in_thread(world.stop_lease, lease)

    # -- what the process gets ---------------------------------------------------------------------------------------

    @default("home_dir")
    def _home_of_the_person(self) -> str:
        return str(home_of(self.homes, self.user.name))

    def get_args(self) -> list[str]:
        args = list(super().get_args())
        if os.geteuid() == 0:
            args.append("--allow-root")
        return args

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        env = super().user_env(env)
        env["SHELL"] = shutil.which("bash") or "/bin/sh"
        # Terminals find the same Python and Jupyter as kernels do.
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH") or os.defpath])
        env |= self.shared_environment
        # Which of their servers this is, for what is tied to it.
        env["HANGANG_SERVER"] = self.name
        lease, chosen = self.lease, self.chosen
        if lease is None or chosen is None:
            return env
        env |= dict(chosen.footprint.environment)
        env["CUDA_VISIBLE_DEVICES"] = ",".join(lease.devices)
        if memory := lease.amounts.get("memory"):
            env["MEM_LIMIT"] = str(memory * MIB)
        if cpu := lease.amounts.get("cpu"):
            env["CPU_LIMIT"] = str(cpu / MILLI)
        assert self.world is not None
        return env | labels(Path(self.world.state), lease.id, facts_of(lease))

    def make_preexec_fn(self, name: str) -> Callable[[], None]:
        enter_home = super().make_preexec_fn(name)
        folders: tuple[Path, ...] = ()
        if self.lease is not None and self.limits.applied:
            try:
                folders = self.limits.prepare(self.lease.id, self.lease.amounts)
            except OSError as error:
                self.log.warning("No memory and CPU limits for %s: %s", self._log_name, error)
        enter_limits = entering(folders)

        def before_exec() -> None:
            enter_limits()
            enter_home()

        return before_exec

    # -- the world ------------------------------------------------------------------------------------------------------

    async def poll(self) -> int | None:
        """None while the process runs. After a restart of the hub only the very process counts that was started."""
        if self.proc is None and self.handle and process_of(self.handle) is None:
            self.pid = 0
            return 0
        status: int | None = await super().poll()
        if status is not None and self.gate is not None:
            self._undecided |= self._asked_before_the_restart()
        return status

    async def get_url(self) -> str:
        """Where the server listens, also when the hub was killed before it could write that down."""
        return f"http://{self.ip or '127.0.0.1'}:{self.port}"

    async def is_gone(self) -> bool:
        """Also ends what the server left behind (kernels, terminals)."""
        world, lease_id = self.world, self.lease_id
        if world is None:
            return True
        await self.in_thread(world.stop_lease, lease_id)
        self.limits.remove(lease_id)
        return not await self.in_thread(world.runs, lease_id)

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        if self.pid:
            state |= {"handle": self.handle, "port": self.port}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.handle = str(state.get("handle") or "")
        self.port = int(state.get("port") or 0)

    def clear_state(self) -> None:
        super().clear_state()
        self.handle = ""
