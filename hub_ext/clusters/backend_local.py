"""Clusters as processes on this machine: each under its lease, with its devices, its limits, and its owner's home.

Processes are known by the labels in their environment, as servers are: a gateway that was killed between starting one
and writing that down finds it again, and the clock sees it too. Everything runs as the user who runs the hub, as
servers do here: it isolates nobody.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import psutil
from dask_gateway_server.backends.db_base import Cluster, JobStatus, Worker
from dask_gateway_server.backends.local import UnsafeLocalBackend

from hub_ext.clusters.backend import QuotaBackend
from hub_ext.clusters.commands import (
    Credentials,
    Listen,
    scheduler_command,
    scheduler_environment,
    worker_command,
    worker_environment,
)
from hub_ext.clusters.holding import LEASE, START_FAILED
from hub_ext.clusters.lifecycle import Heartbeat
from hub_ext.clusters.model import ClusterProfile
from hub_ext.core.amounts import is_gpu
from hub_ext.core.clock import Instant
from hub_ext.quota.model import Lease, facts_of
from hub_ext.spawners.limits import Limits, entering
from hub_ext.spawners.processes import LocalWorld, handle_of, labels, process_of

ResultT = TypeVar("ResultT")
HANDLE: Final = "handle"
SIMULATED: Final = "SIMULATED-"
"""How the names of devices begin that this machine only pretends to have."""
INHERITED: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SSL_CERT_FILE", "HANGANG_DATA")
KEEP_LOGS_SECONDS: Final = 7 * 86400
"""Of clusters that failed: so that whoever asks why can be told."""
MOST_LOG: Final = 64 * 1024
"""So much of a log is read, from its end."""


@dataclass(frozen=True)
class Place:
    """Where a gateway runs clusters on this machine."""

    world: LocalWorld
    folder: Path
    """One folder for each cluster: certificates, logs, and what its workers spill."""
    home_of: Callable[[str], Path]
    """A person's home, the same as that of their servers."""
    limits: Limits
    environment: Mapping[str, str] = field(default_factory=dict)
    """What every server here gets."""


class GatedLocalBackend(QuotaBackend, UnsafeLocalBackend):
    """Processes under leases. Without a quota it is dask-gateway's own backend of that kind."""

    place: Place | None = None

    async def do_setup(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="clusters")
        await super().do_setup()
        if self.place is not None and self.quota is not None:
            now = self.quota.admission.clock.now()
            await self._in_thread(_tidy, self.place.folder, set(self.db.name_to_cluster), now)

    async def do_cleanup(self) -> None:
        await super().do_cleanup()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- a cluster -----------------------------------------------------------------------------------------------

    async def do_start_cluster(self, cluster: Cluster) -> AsyncIterator[dict[str, Any]]:
        if self.quota is None or self.place is None:
            async for state in super().do_start_cluster(cluster):
                yield state
            return
        workdir = self.setup_working_directory(cluster)
        state = {**cluster.state, "workdir": workdir}
        yield state
        lease = self._standing(cluster).scheduler
        assert lease is not None
        kept = self._kept(cluster)
        profile = _shown(kept.profile, lease)
        environment = scheduler_environment(
            profile, kept.selection.environment, self._credentials(cluster, workdir)
        )
        command = scheduler_command(Listen(self.default_host), _program())
        handle = await self._start(cluster, workdir, lease, "scheduler", command, environment, cluster.name)
        yield {**state, HANDLE: handle, "pid": int(handle.partition("@")[0])}
        await self.mark_running(lease, handle)

    async def do_stop_cluster(self, cluster: Cluster) -> None:
        if self.quota is None or self.place is None:
            await super().do_stop_cluster(cluster)
            return
        await self._end(cluster.name, self.why_stopped(cluster))
        workdir = cluster.state.get("workdir")
        if workdir is not None:
            await self._in_thread(_clear, Path(workdir), cluster.target == JobStatus.FAILED)

    # -- a worker ------------------------------------------------------------------------------------------------

    async def do_start_worker(self, worker: Worker) -> AsyncIterator[dict[str, Any]]:
        if self.quota is None or self.place is None:
            async for state in super().do_start_worker(worker):
                yield state
            return
        cluster, lease = worker.cluster, self.lease_of(worker)
        kept, workdir = self._kept(cluster), cluster.state["workdir"]
        profile = _shown(kept.profile, lease)
        command = worker_command(
            profile,
            worker.name,
            cluster.scheduler_address,
            directory=str(Path(workdir, "spilled")),
            host=self.default_host,
            program=_program(),
        )
        environment = worker_environment(
            profile,
            kept.selection.environment,
            self._credentials(cluster, workdir),
            ",".join(lease.devices) if profile.gpu_class else "",
        )
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(lease.devices)
        handle = await self._start(
            cluster, workdir, lease, f"worker-{worker.name}", command, environment, worker.name
        )
        yield {**worker.state, HANDLE: handle, "pid": int(handle.partition("@")[0])}
        await self.mark_running(lease, handle)

    async def do_stop_worker(self, worker: Worker) -> None:
        if self.quota is None or self.place is None:
            await super().do_stop_worker(worker)
        elif LEASE in worker.state:
            started = HANDLE in worker.state
            await self._end(worker.state[LEASE], self.why_ended(worker) if started else START_FAILED)

    # -- what is seen of them --------------------------------------------------------------------------------------

    async def do_check_clusters(self, clusters: Sequence[Cluster]) -> list[bool]:
        if self.quota is None:
            return list(await super().do_check_clusters(clusters))
        return [_runs_still(cluster.state) for cluster in clusters]

    async def do_check_workers(self, workers: Sequence[Worker]) -> list[bool]:
        if self.quota is None:
            return list(await super().do_check_workers(workers))
        return [_runs_still(worker.state) for worker in workers]

    async def which_are_gone(self, states: Mapping[str, Mapping[str, Any]]) -> set[str]:
        def look() -> set[str]:
            return {lease for lease, state in states.items() if not _runs_still(state)}

        return await self._in_thread(look)

    async def may_be_at(self, cluster: Cluster, heartbeat: Heartbeat) -> bool:
        """Whether it is its own process that listens there: no other service of this machine is ever reached in its
        name.
        """
        told = (heartbeat.scheduler_address, heartbeat.api_address, heartbeat.dashboard_address)
        addresses = [urlsplit(address) for address in told if address]
        if any(address.hostname != self.default_host for address in addresses):
            return False
        ports = await self._in_thread(_ports_of, str(cluster.state.get(HANDLE, "")))
        return {address.port for address in addresses} <= ports

    # -- processes -------------------------------------------------------------------------------------------------

    async def _start(
        self,
        cluster: Cluster,
        workdir: str,
        lease: Lease,
        what: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        record: str,
    ) -> str:
        """Start a process under its lease; returns its handle. What a gateway before this one started is taken over."""
        place = self.place
        assert place is not None
        if record in self._resumed:
            self._resumed.discard(record)
            if (handle := await self._in_thread(_found, place.world, lease.id)) is not None:
                return handle
        home = place.home_of(cluster.username)
        folders = await self._in_thread(self._prepare, home, lease)
        log = os.open(Path(workdir, "logs", f"{what}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        enter = entering(folders)
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}

        def before_exec() -> None:
            enter()
            os.chdir(home)

        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                preexec_fn=before_exec,
                start_new_session=True,
                env={
                    **inherited,
                    **place.environment,
                    **environment,
                    "PATH": os.pathsep.join(
                        [str(Path(sys.executable).parent), os.environ.get("PATH") or os.defpath]
                    ),
                    "HOME": str(home),
                    "USER": cluster.username,
                    **labels(Path(place.world.state), lease.id, facts_of(lease)),
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
            )
        finally:
            os.close(log)
        return handle_of(psutil.Process(process.pid))

    def _prepare(self, home: Path, lease: Lease) -> tuple[Path, ...]:
        assert self.place is not None
        home.mkdir(parents=True, exist_ok=True)
        try:
            return self.place.limits.prepare(lease.id, lease.amounts) if self.place.limits.applied else ()
        except OSError as error:
            self.log.warning("No memory and CPU limits for lease %s: %s", lease.id, error)
            return ()

    async def _end(self, lease_id: str, why: str) -> None:
        """End all that carries the lease's label, and give the lease back once that is seen gone."""
        place = self.place
        assert place is not None
        await self._in_thread(place.world.stop_lease, lease_id)
        if await self._in_thread(place.world.runs, lease_id):
            self.log.warning("What lease %s runs cannot be ended; it stays booked", lease_id)
            return
        place.limits.remove(lease_id)
        await self.give_back(lease_id, why)

    async def _in_thread(self, work: Callable[..., ResultT], *arguments: object) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    # -- folders -----------------------------------------------------------------------------------------------------

    def setup_working_directory(self, cluster: Cluster) -> str:
        """The cluster's folder with its certificate and key; made again, it is the same."""
        if self.place is not None:
            workdir = self.place.folder / cluster.name
        elif self.clusters_directory:
            workdir = Path(self.clusters_directory, cluster.name)
        else:
            workdir = Path(tempfile.mkdtemp(prefix="dask", suffix=cluster.name))
        for folder in (workdir, workdir / ".certs", workdir / "logs"):
            folder.mkdir(0o700, parents=True, exist_ok=True)
        for path, content in zip(
            self._get_tls_paths(str(workdir)), (cluster.tls_cert, cluster.tls_key), strict=True
        ):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
        return str(workdir)

    def _credentials(self, cluster: Cluster, workdir: str) -> Credentials:
        certificate, key = self._get_tls_paths(workdir)
        return Credentials(cluster.name, self.api_url, cluster.token, certificate, key)

    async def last_words(self, cluster: Cluster) -> dict[str, str]:
        """The ends of a cluster's logs, by what wrote them."""
        workdir = cluster.state.get("workdir")
        return await self._in_thread(_last_words, Path(workdir)) if workdir else {}


def _program() -> list[str]:
    """This very Python's dask, whatever the path holds."""
    return [sys.executable, "-m", "dask"]


def _shown(profile: ClusterProfile, lease: Lease) -> ClusterProfile:
    """Where devices are only pretended there is nothing that CUDA could start on."""
    if not any(device.startswith(SIMULATED) for device in lease.devices):
        return profile
    worker = {name: amount for name, amount in profile.worker.items() if not is_gpu(name)}
    return replace(profile, worker=worker, rmm=None)


def _runs_still(state: Mapping[str, Any]) -> bool:
    return process_of(str(state.get(HANDLE, ""))) is not None


def _found(world: LocalWorld, lease_id: str) -> str | None:
    """The process that runs under a lease already."""
    return next((one.handle for one in world.running() if one.lease == lease_id and one.main), None)


def _ports_of(handle: str) -> set[int]:
    """Where the process and those that it started listen."""
    process = process_of(handle)
    if process is None:
        return set()
    with suppress(psutil.Error):
        return {
            connection.laddr.port
            for one in (process, *process.children(recursive=True))
            for connection in one.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
    return set()


def _clear(workdir: Path, failed: bool) -> None:
    """Nothing stays of a cluster but the logs of one that failed."""
    if not failed:
        shutil.rmtree(workdir, ignore_errors=True)
        return
    for entry in workdir.iterdir() if workdir.is_dir() else ():
        if entry.name != "logs":
            shutil.rmtree(entry, ignore_errors=True)


def _tidy(folder: Path, known: set[str], now: Instant) -> None:
    """Remove the folders of clusters that are long over."""
    folder.mkdir(0o700, parents=True, exist_ok=True)
    for old in folder.iterdir():
        with suppress(OSError):
            if old.name not in known and now - old.stat().st_mtime > KEEP_LOGS_SECONDS:
                shutil.rmtree(old)


def _last_words(workdir: Path) -> dict[str, str]:
    found = {}
    for path in sorted(workdir.glob("logs/*.log")):
        with suppress(OSError), path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - MOST_LOG))
            found[path.stem] = file.read(MOST_LOG).decode("utf-8", "replace")
    return found
