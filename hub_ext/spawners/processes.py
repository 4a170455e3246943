"""The local world: the processes of servers on this machine, found by labels in their environment.

Labels survive everything short of the process itself: a hub that dies between starting a process and writing that
down loses nothing, the next look finds it.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from hub_ext.quota.ports import Running

STATE_LABEL = "HUB_EXT_STATE"
LEASE_LABEL = "HUB_EXT_LEASE"
FACTS_LABEL = "HUB_EXT_FACTS"
TERM_SECONDS = 8
KILL_SECONDS = 5
LOOK_SECONDS = 0.02


def labels(state: Path, lease: str, facts: Mapping[str, Any]) -> dict[str, str]:
    """The environment by which a process is known as ours, with what an adoption needs to know."""
    return {
        STATE_LABEL: str(state),
        LEASE_LABEL: lease,
        FACTS_LABEL: json.dumps(facts, separators=(",", ":")),
    }


def handle_of(process: psutil.Process) -> str:
    """Names one process for good: pids are used again, pids with their start time are not.

    The time counts from the machine's start, which is named as well: the time of day may be set at any moment, and
    then every process would seem to be another one. Raises psutil.NoSuchProcess.
    """
    return f"{process.pid}@{_began(process)}@{_machine_start()}"


def process_of(handle: str) -> psutil.Process | None:
    """The process the handle names; None when it is gone (a zombie is gone)."""
    try:
        process = psutil.Process(int(handle.partition("@")[0]))
        alive = handle_of(process) == handle and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError, OverflowError):
        return None
    return process if alive else None


def _began(process: psutil.Process) -> int:
    """In the kernel's ticks since the machine's start; elsewhere than on Linux, in hundredths of a second since 1970."""
    if not psutil.LINUX:
        return int(process.create_time() * 100)
    try:
        # The process may have any name, also one with spaces and brackets.
        after_name = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2]
    except OSError as error:
        raise psutil.NoSuchProcess(process.pid) from error
    return int(after_name.split()[19])


def _machine_start() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class LocalWorld:
    """What runs on this machine for the hub whose state lies in `state`."""

    def __init__(self, state: Path) -> None:
        self.state = str(state)
        self.node = socket.gethostname()

    def running(self) -> list[Running]:
        """Per lease the server's process (the oldest) as `main`, and beside it what else carries the label."""
        found: dict[str, list[tuple[int, int, Running]]] = {}
        for process, environment in self._labelled():
            lease = environment[LEASE_LABEL]
            try:
                started_at = int(process.create_time())
                running = Running(
                    lease, handle_of(process), started_at, False, self.node, read_facts(environment)
                )
                found.setdefault(lease, []).append((_began(process), process.pid, running))
            except psutil.Error:
                continue  # gone meanwhile
        return [
            replace(running, main=index == 0)
            for processes in found.values()
            for index, (_, _, running) in enumerate(sorted(processes, key=lambda one: one[:2]))
        ]

    def ended(self) -> Mapping[str, str]:
        """A process that is gone tells nothing."""
        return {}

    def stop(self, running: Running) -> None:
        """End everything that carries the lease's label: politely first, then for good."""
        self.stop_lease(running.lease)

    def stop_lease(self, lease: str) -> None:
        for end, patience in (("terminate", TERM_SECONDS), ("kill", KILL_SECONDS)):
            processes = [process for process, env in self._labelled() if env[LEASE_LABEL] == lease]
            for process in processes:
                with suppress(psutil.Error):  # gone meanwhile, or not ours to end
                    getattr(process, end)()
            _wait_for(processes, patience)
            if not self.runs(lease):
                return

    def runs(self, lease: str) -> bool:
        """Whether anything of the lease is left."""
        return any(environment[LEASE_LABEL] == lease for _, environment in self._labelled())

    def leases_of(self, person: str, server: str) -> set[str]:
        """The leases of which something runs for this server."""
        return {
            environment[LEASE_LABEL]
            for _, environment in self._labelled()
            if (facts := read_facts(environment)).get("person") == person and facts.get("server") == server
        }

    def _labelled(self) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
        for known in psutil.process_iter():
            try:
                environment = known.environ()
                lease = environment.get(LEASE_LABEL, "")
                # Whoever runs a process writes its labels: what is no text names no lease.
                if environment.get(STATE_LABEL) != self.state or not lease or not lease.isprintable():
                    continue
                # `process_iter` remembers processes by their pid alone, also when that was used again.
                process = psutil.Process(known.pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    yield process, environment
            except (psutil.Error, OSError):
                continue  # gone meanwhile, or not ours to read


def _wait_for(processes: list[psutil.Process], seconds: float) -> None:
    """Until all have ended or the time is over. A zombie has ended: when its parent takes notice is not waited for."""
    give_up = time.monotonic() + seconds
    while (processes := [one for one in processes if _runs(one)]) and time.monotonic() < give_up:
        time.sleep(LOOK_SECONDS)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def read_facts(environment: Mapping[str, str]) -> dict[str, Any]:
    """What the label says of the lease; empty when it cannot be read."""
    try:
        facts = json.loads(environment.get(FACTS_LABEL, "{}"))
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}
