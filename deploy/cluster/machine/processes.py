"""The cluster's processes: started so that they outlive `make`, and found again by labels in their environment.

Labels survive everything short of the process itself. Whoever is killed between starting a process and writing that
down loses nothing: the next look finds it. A pid alone is never trusted, since pids are used again: what is ended is
held by a descriptor of the very process whose labels were read.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from machine.places import LOGS, PROGRAMS, STATE

STATE_LABEL = "HANGANG_CLUSTER"
PART_LABEL = "HANGANG_CLUSTER_PART"
DIGEST_LABEL = "HANGANG_CLUSTER_DIGEST"
TERM_SECONDS = 10
KILL_SECONDS = 5


@dataclass(frozen=True)
class Process:
    pid: int
    part: str
    digest: str
    """Of the command and the configuration it was started with."""
    leads: bool
    """Whether it is the part itself; what the part started (a shim, a mount) carries the same labels."""


def start(part: str, digest: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Start a part in a session of its own; what it says goes to its log. Returns when others can find it."""
    labels = {STATE_LABEL: str(STATE), PART_LABEL: part, DIGEST_LABEL: digest}
    with (LOGS / f"{part}.log").open("ab") as log:
        process = subprocess.Popen(
            list(command),
            cwd=STATE,
            env={**plain_environment(), **environment, **labels},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # For a moment after the kernel has taken up the program, its environment still reads as empty.
    while _read(process.pid) is None and process.poll() is None:
        time.sleep(0.005)


def plain_environment() -> dict[str, str]:
    """Nothing of the caller's but what programs need: no proxies, no other cluster's KUBECONFIG."""
    paths = [str(PROGRAMS), "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    return {"PATH": ":".join(paths), "HOME": str(Path.home()), "LANG": "C.UTF-8"}


def running() -> dict[str, Process]:
    """The parts that run, by name."""
    return {process.part: process for process in labelled() if process.leads}


def labelled(state: str = str(STATE)) -> Iterator[Process]:
    """Everything that carries this cluster's label, or that of the cluster in another folder."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (found := _read(int(folder.name), state)):
            yield found


def stop(part: str) -> bool:
    """End the part, politely first; what it started is left alone. Whether there was one."""
    process = running().get(part)
    if process is None:
        return False
    for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        if _end(process, number, seconds):
            return True
    return True


def kill(part: str) -> bool:
    """End the part as a crash would. Whether there was one."""
    process = running().get(part)
    return process is not None and _end(process, signal.SIGKILL, KILL_SECONDS)


def end_all() -> None:
    """End everything that carries the label, at once."""
    deadline = time.monotonic() + KILL_SECONDS
    while (left := list(labelled())) and time.monotonic() < deadline:
        for process in left:
            _end(process, signal.SIGKILL, 0.5)


def _end(process: Process, number: signal.Signals, seconds: float) -> bool:
    """Send the signal if the pid still is that process; whether it has ended by then."""
    with _held(process.pid) as descriptor:
        if descriptor is None or _read(process.pid) != process:
            return True
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)
        ended, _, _ = select.select([descriptor], [], [], seconds)
        return bool(ended)


@contextmanager
def _held(pid: int) -> Iterator[int | None]:
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(pid: int, state: str = str(STATE)) -> Process | None:
    """The process if it carries the label and lives (a zombie has no environment)."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        environment = dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)
        if environment.get(STATE_LABEL) != state:
            return None
        leads = os.getsid(pid) == pid
    except (OSError, ValueError):
        return None
    return Process(pid, environment.get(PART_LABEL, ""), environment.get(DIGEST_LABEL, ""), leads)
