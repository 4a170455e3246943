"""Memory and CPU limits of local servers, by control groups where this system lets us; else none, and we say so.

Only groups of our own are made or removed; every existing one stays as it is. Both hierarchies are known: version 2,
and version 1 with its separate `memory` and `cpu` trees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hub_ext.core.amounts import MIB, Amounts

CGROUPS = Path("/sys/fs/cgroup")
PERIOD = 100_000
"""The period of CPU limits in microseconds."""
LEAST_QUOTA = 1_000
"""Of each period, in microseconds: the kernel refuses less."""


@dataclass(frozen=True)
class Limits:
    """How limits are applied here: `trees` are the folders under which each lease gets its own group.

    Empty: a server may use all of the machine.
    """

    version: int = 2
    trees: tuple[Path, ...] = ()

    @property
    def applied(self) -> bool:
        return bool(self.trees)

    def prepare(self, lease: str, amounts: Amounts) -> tuple[Path, ...]:
        """Make the lease's groups with its limits. Raises OSError where the system refuses after all."""
        folders = tuple(tree / lease for tree in self.trees)
        for folder in folders:
            folder.mkdir(exist_ok=True)
            for file, value in self._values(folder.parent, amounts):
                (folder / file).write_text(value)
        return folders

    def remove(self, lease: str) -> None:
        """Remove the lease's groups once nothing runs in them."""
        for tree in self.trees:
            _remove(tree / lease)

    def _values(self, tree: Path, amounts: Amounts) -> list[tuple[str, str]]:
        memory, cpu = amounts.get("memory"), amounts.get("cpu")
        values = []
        if memory and self.version == 2:
            values.append(("memory.max", str(memory * MIB)))
        elif memory and tree.parent.name == "memory":
            values.append(("memory.limit_in_bytes", str(memory * MIB)))
        if cpu and self.version == 2:
            values.append(("cpu.max", f"{_cpu_quota(cpu)} {PERIOD}"))
        elif cpu and tree.parent.name == "cpu":
            values += [("cpu.cfs_period_us", str(PERIOD)), ("cpu.cfs_quota_us", str(_cpu_quota(cpu)))]
        return values


def _cpu_quota(cpu: int) -> int:
    return max(LEAST_QUOTA, cpu * PERIOD // 1000)


def entering(folders: tuple[Path, ...]) -> Callable[[], None]:
    """To be called in the child between fork and exec: puts it into the groups."""

    def enter() -> None:
        for folder in folders:
            (folder / "cgroup.procs").write_text("0")

    return enter


def find_limits(state: Path, *, root: Path = CGROUPS) -> Limits:
    """What this system allows to the user we run as. Where it allows nothing, nothing is left behind."""
    ours = f"hangang-hub-{hashlib.sha256(str(state).encode()).hexdigest()[:8]}"
    limits = _version_2(root, ours) or _version_1(root, ours) or Limits()
    for tree in limits.trees:
        for former in [entry for entry in tree.iterdir() if entry.is_dir()]:
            _remove(former)  # of a server that ended while no hub ran
    return limits


def _version_2(root: Path, ours: str) -> Limits | None:
    tree = root / ours
    try:
        if not {"cpu", "memory"} <= set((root / "cgroup.controllers").read_text().split()):
            return None
        (root / "cgroup.subtree_control").write_text("+cpu +memory")
        tree.mkdir(exist_ok=True)
        (tree / "cgroup.subtree_control").write_text("+cpu +memory")
    except OSError:
        _remove(tree)
        return None
    return Limits(2, (tree,))


def _version_1(root: Path, ours: str) -> Limits | None:
    trees = (root / "memory" / ours, root / "cpu" / ours)
    try:
        for tree, needed in zip(trees, ("memory.limit_in_bytes", "cpu.cfs_quota_us"), strict=True):
            if not (tree.parent / "cgroup.procs").exists():
                raise FileNotFoundError(tree.parent)
            tree.mkdir(exist_ok=True)
            if not (tree / needed).exists():
                raise FileNotFoundError(tree / needed)
    except OSError:
        for tree in trees:
            _remove(tree)
        return None
    return Limits(1, trees)


def _remove(group: Path) -> None:
    """A group in which something runs, or with groups below it, stays."""
    with suppress(OSError):
        group.rmdir()
