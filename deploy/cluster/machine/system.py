"""What the cluster changes in the machine itself, and how each of it is taken back.

Before the first change the old values are written down. Nothing here touches what the cluster did not make.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from machine.certificates import replace_file
from machine.places import BEFORE, BRIDGE, GATEWAY_IN_PODS, MARK, PRETENDED_PODS, RUN, STATE, Problem

CONTROL_GROUPS = Path("/sys/fs/cgroup")
PODS_GROUP = "kubepods"
TABLE = "hangang-cluster"
# The kernel takes it as one change, however often it is told.
FENCE = f"""
add table inet {TABLE}
add chain inet {TABLE} forward {{ type filter hook forward priority 0; policy accept; }}
flush chain inet {TABLE} forward
add rule inet {TABLE} forward iifname {BRIDGE} oifname != {BRIDGE} reject
"""
# Settings of the kernel that the kubelet, or the network of the pods, sets.
KERNEL = (
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
FOLDERS = (
    "/var/log/containers",
    "/var/lib/cni/results",
    "/var/lib/cni",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet",
)
"""Made by the parts where no setting moves them elsewhere; those that were there before are kept."""
TOOLS = {
    "runc": "runc",
    "ip": "iproute2",
    "nft": "nftables",
    "conntrack": "conntrack",
    "openssl": "openssl",
    "mount": "mount",
}
NETWORK_PROGRAMS = ("bridge", "host-local", "loopback")


def require_tools(network_programs: Path) -> None:
    """Raises Problem, naming the packages that bring what is missing."""
    if os.geteuid() != 0:
        raise Problem("A cluster on this machine needs root: it makes networks, mounts and control groups.")
    packages = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if not all((network_programs / name).exists() for name in NETWORK_PROGRAMS):
        packages.append("containernetworking-plugins")
    if packages:
        raise Problem(f"Programs are missing. On Debian and Ubuntu: apt install {' '.join(packages)}")


def remember() -> None:
    """Write down how the machine was, once. Raises Problem when another kubelet's pods are there."""
    if BEFORE.exists():
        return
    if any(True for _ in _pod_groups()):
        raise Problem(f"Another kubelet runs pods on this machine (control groups named {PODS_GROUP} exist).")
    if Path(f"/sys/class/net/{BRIDGE}").exists():
        raise Problem(f"Something else on this machine has a network bridge named {BRIDGE}.")
    kernel = {
        name: Path("/proc/sys", name).read_text().strip()
        for name in KERNEL
        if Path("/proc/sys", name).exists()
    }
    folders = [folder for folder in FOLDERS if Path(folder).exists()]
    replace_file(BEFORE, json.dumps({"kernel": kernel, "folders": folders}, indent=2) + "\n")


def remembered() -> bool:
    """Whether the machine may have been changed: nothing was before it was written down how it was."""
    return BEFORE.exists()


def make_network() -> None:
    """The bridge of the pods with the machine's address on it; the parts that serve the cluster listen there."""
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "address", "replace", GATEWAY_IN_PODS, "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")
    _run("ip", "route", "replace", "unreachable", PRETENDED_PODS)
    # Whatever pods send elsewhere than to each other and to the machine is refused at once.
    _run("nft", "--file", "-", given=FENCE)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def end_containers() -> None:
    """End every process of every pod: those in the pods' control groups, which the kubelet made."""
    deadline = time.monotonic() + 10
    while (pids := _pids_in_pods()) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def take_back() -> None:
    """Undo everything but the files; the parts have ended by now. What is gone already is no error. Only where it is
    written down how the machine was.
    """
    _unmount()
    _remove_groups()
    _quietly("ip", "link", "delete", BRIDGE)
    _quietly("ip", "route", "delete", "unreachable", PRETENDED_PODS)
    for family, table in (("ip", "kube-proxy"), ("ip6", "kube-proxy"), ("inet", TABLE)):
        _quietly("nft", "delete", "table", family, table)
    before = json.loads(BEFORE.read_text())
    for name, value in before["kernel"].items():
        with suppress(OSError):
            Path("/proc/sys", name).write_text(value)
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{STATE}/"):
            link.unlink()
    for kept in Path("/var/lib/cni/results").glob("hangang-*"):
        kept.unlink()
    Path("/var/lib/kubelet/device-plugins/kubelet.sock").unlink(missing_ok=True)
    for folder in FOLDERS:
        if folder not in before["folders"]:
            _remove_empty(Path(folder))


def remove_files(*, owned: bool) -> None:
    """The state's folder, if it bears our mark, and the sockets, if they are its. Nothing is mounted below them any more.
    Raises Problem.
    """
    still = list(_mounts())
    if still:
        raise Problem(
            f"Still mounted, so nothing was removed: {', '.join(still)}. Run `make cluster-down` again."
        )
    folders = [STATE] if owned or MARK.exists() else []
    for folder in [*folders, RUN] if owned else folders:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            raise Problem(f"{folder} could not be removed whole. Run `make cluster-down` again.")


def _pod_groups() -> Iterator[Path]:
    """The pods' top control groups: one in each hierarchy of the first version, one in all in the second."""
    for folder in (CONTROL_GROUPS, *CONTROL_GROUPS.iterdir()):
        if (folder / PODS_GROUP).is_dir() and not folder.is_symlink():
            yield folder / PODS_GROUP


def _pids_in_pods() -> set[int]:
    pids: set[int] = set()
    for group in _pod_groups():
        for path in group.rglob("cgroup.procs"):
            with suppress(OSError):
                pids |= {int(line) for line in path.read_text().split()}
    return pids - {0}


def _remove_groups() -> None:
    for group in _pod_groups():
        # The deepest first; a group goes when its last process has been buried.
        for folder in sorted(
            (path for path in group.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts)
        ):
            _remove_group(folder)
        _remove_group(group)


def _remove_group(folder: Path) -> None:
    deadline = time.monotonic() + 2
    while folder.exists():
        try:
            folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)


def _mounts() -> Iterator[str]:
    """What is mounted below our folders, the latest first."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        # Spaces in paths are written as \\040.
        place = line.split()[4].encode().decode("unicode_escape")
        if place.startswith((f"{STATE}/", f"{RUN}/")):
            yield place


def _unmount() -> None:
    for place in _mounts():
        _quietly("umount", "--lazy", place)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _run(*command: str, given: str = "") -> None:
    done = subprocess.run(command, input=given, capture_output=True, text=True)
    if done.returncode:
        raise Problem(f"{' '.join(command)}: {done.stderr.strip()}")


def _quietly(*command: str) -> None:
    subprocess.run(command, capture_output=True)
