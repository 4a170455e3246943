"""The local world: the processes of servers on this machine, found by labels in their environment.

Labels survive everything short of the process itself: a hub that dies between starting a process and writing that
down loses nothing, the next look finds it.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from hub_ext.quota.ports import Running

STATE_LABEL = "HUB_EXT_STATE"
LEASE_LABEL = "HUB_EXT_LEASE"
FACTS_LABEL = "HUB_EXT_FACTS"
TERM_SECONDS = 8
KILL_SECONDS = 5


def labels(state: Path, lease: str, facts: Mapping[str, Any]) -> dict[str, str]:
    """The environment by which a process is known as ours, with what an adoption needs to know."""
    return {STATE_LABEL: str(state), LEASE_LABEL: lease, FACTS_LABEL: json.dumps(facts, separators=(",", ":"))}


def handle_of(process: psutil.Process) -> str:
    """Names one process for good: pids are used again, pids with their start time are not."""
    return f"{process.pid}@{process.create_time():.2f}"


def process_of(handle: str) -> psutil.Process | None:
    """The process the handle names; None when it is gone (a zombie is gone)."""
    try:
        process = psutil.Process(int(handle.partition("@")[0]))
        alive = handle_of(process) == handle and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return None
    return process if alive else None


class LocalWorld:
    """What runs on this machine for the hub whose state lies in `state`."""

    def __init__(self, state: Path) -> None:
        self.state = str(state)
        self.node = socket.gethostname()

    def running(self) -> list[Running]:
        """Per lease the server's process (the oldest) as `main`, and beside it what else carries the label."""
        found: dict[str, list[psutil.Process]] = {}
        for process, environment in self._labelled():
            found.setdefault(environment[LEASE_LABEL], []).append(process)
        result = []
        for lease, processes in found.items():
            for index, process in enumerate(sorted(processes, key=lambda one: (one.create_time(), one.pid))):
                running = self._running(lease, process, main=index == 0)
                if running is not None:
                    result.append(running)
        return result

    def stop(self, running: Running) -> None:
        """End everything that carries the lease's label: politely first, then for good."""
        self.stop_lease(running.lease)

    def stop_lease(self, lease: str) -> None:
        for end, patience in (("terminate", TERM_SECONDS), ("kill", KILL_SECONDS)):
            processes = [process for process, env in self._labelled() if env[LEASE_LABEL] == lease]
            for process in processes:
                try:
                    getattr(process, end)()
                except psutil.NoSuchProcess:
                    continue
            _, alive = psutil.wait_procs(processes, timeout=patience)
            if not alive and not self.runs(lease):
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
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                if environment.get(STATE_LABEL) != self.state or LEASE_LABEL not in environment:
                    continue
                if process.status() != psutil.STATUS_ZOMBIE:
                    yield process, environment
            except (psutil.Error, OSError):
                continue  # gone meanwhile, or not ours to read

    def _running(self, lease: str, process: psutil.Process, *, main: bool) -> Running | None:
        try:
            facts = read_facts(process.environ())
            return Running(lease, handle_of(process), int(process.create_time()), main, self.node, facts)
        except (psutil.Error, OSError):
            return None


def read_facts(environment: Mapping[str, str]) -> dict[str, Any]:
    """What the label says of the lease; empty when it cannot be read."""
    try:
        facts = json.loads(environment.get(FACTS_LABEL, "{}"))
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}
