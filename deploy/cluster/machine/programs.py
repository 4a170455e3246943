"""The cluster's programs, built from the Go modules that their makers publish, and kept in a cache outside the tree.

No prebuilt Kubernetes is downloaded: `go/` holds one small module for each program, whose go.mod and go.sum fix every
version. A program is built again when its module or its flags change. The first time takes about ten minutes on two
cores, later times nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from machine.places import CACHE, MODULES, PROGRAMS, Problem

OWN_PACKAGE = (".",)
CONTAINERD = "github.com/containerd/containerd/v2"
KUBERNETES_VERSION = "1.37.2"


@dataclass(frozen=True)
class Module:
    """One folder of `go/` and the programs it makes."""

    name: str
    packages: tuple[str, ...] = OWN_PACKAGE
    variables: tuple[str, ...] = ()
    """What the linker writes into the program, mostly its version."""
    tags: str = ""
    also_named: tuple[str, ...] = ()
    """Links to the program, which acts by the name it is called with."""

    @property
    def folder(self) -> Path:
        return MODULES / self.name

    @property
    def flags(self) -> list[str]:
        variables = [part for one in self.variables for part in ("-X", one)]
        return [
            "-trimpath",
            *(["-tags", self.tags] if self.tags else []),
            "-ldflags",
            " ".join(["-s", "-w", *variables]),
        ]

    @property
    def built(self) -> Path:
        """The folder of what is built from exactly this source with exactly these flags."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.iterdir()):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        digest.update("\0".join([*self.packages, *self.flags]).encode())
        return CACHE / f"{self.name}-{digest.hexdigest()[:16]}"


_VERSION = "k8s.io/component-base/version"
_MAJOR, _MINOR, _ = KUBERNETES_VERSION.split(".")
ALL = (
    Module("pause"),
    Module("local-disk"),
    Module("etcd"),
    Module("coredns"),
    Module("kwok", ("sigs.k8s.io/kwok/cmd/kwok",), ("sigs.k8s.io/kwok/pkg/consts.Version=v0.8.0",)),
    Module(
        "containerd",
        tuple(f"{CONTAINERD}/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
        (f"{CONTAINERD}/version.Version=v2.4.2",),
        "no_btrfs no_devmapper no_zfs no_aufs",
    ),
    Module(
        "kubernetes",
        variables=(
            f"{_VERSION}.gitVersion=v{KUBERNETES_VERSION}",
            f"{_VERSION}.gitMajor={_MAJOR}",
            f"{_VERSION}.gitMinor={_MINOR}",
        ),
        also_named=(
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-proxy",
            "kubelet",
            "kubectl",
        ),
    ),
)


def build_missing() -> None:
    """Build what the cache lacks. Raises Problem when Go is missing or a build fails."""
    for module in ALL:
        if not module.built.exists():
            with _turn(module):
                if not module.built.exists():
                    _build(module)


def link() -> None:
    """Make PROGRAMS hold a link to every program."""
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    for module in ALL:
        for path in module.built.iterdir():
            _link(PROGRAMS / path.name, path)
        for name in module.also_named:
            _link(PROGRAMS / name, module.built / module.name)


def find_go() -> str:
    """Go's own program. Raises Problem."""
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if found is None:
        raise Problem(
            "Kubernetes is built from source here, and Go is missing. Install Go 1.26.6 or newer "
            "(go.dev/doc/install), so that `go` is on the path or in /usr/local/go/bin."
        )
    return found


def _build(module: Module) -> None:
    go = find_go()
    print(f"Building {module.name}; once for this version.", flush=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{module.name}-", dir=CACHE))
    try:
        done = subprocess.run(
            [
                "nice",
                "-n",
                "5",
                go,
                "build",
                "-mod=readonly",
                *module.flags,
                "-o",
                f"{unfinished}/",
                *module.packages,
            ],
            cwd=module.folder,
            env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local"},
        )
        if done.returncode:
            raise Problem(
                f"{module.name} could not be built: what Go says stands above. It needs the Go module proxy "
                f"(`{go} env GOPROXY`) and Go 1.26.6 or newer (`{go} version`)."
            )
        unfinished.chmod(0o755)
        unfinished.rename(module.built)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _turn(module: Module) -> Iterator[None]:
    """One builds, others wait and find it built. The lock ends with its holder, whatever ends that."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{module.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _link(link_path: Path, target: Path) -> None:
    if link_path.is_symlink() and link_path.readlink() == target:
        return
    beside = link_path.with_name(f".{link_path.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(link_path)
