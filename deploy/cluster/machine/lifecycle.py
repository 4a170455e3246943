"""How the cluster comes up and goes: read `up` and `down` first.

Both may be killed at any step and run again. They find what runs by its labels, and each step looks before it acts.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from machine import api, certificates, images, nodes, processes, programs, system
from machine.certificates import replace_file
from machine.components import CONTAINER_NETWORK_PROGRAMS, Component, all_components
from machine.places import (
    CLUSTER,
    CONFIGS,
    KUBECONFIG,
    LOCK,
    LOGS,
    LONGEST_STATE,
    MARK,
    NODE,
    OWNER,
    PROGRAMS,
    RUN,
    STAGES,
    STATE,
    STOPPED,
    VOLUMES,
    Problem,
)

READY_SECONDS = 120
LOOK_SECONDS = 0.1
KEEP_SECONDS = 1.0
PARTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "containerd",
    "kubelet",
    "kube-proxy",
    "coredns",
    "local-disk",
    "kwok",
    "keeper",
)
"""In the order in which they start."""
OBJECTS = CLUSTER / "objects.json"


def up() -> None:
    """Bring up what is missing; a healthy cluster is left as it is. Raises Problem."""
    began = time.monotonic()
    # 1. What it takes: root, the system's programs, and ours, built if need be.
    system.require_tools(CONTAINER_NETWORK_PROGRAMS)
    if len(str(STATE)) > LONGEST_STATE:
        raise Problem(
            f"The path of {STATE} is too long for the sockets below it: {LONGEST_STATE} letters are the most."
        )
    programs.build_missing()
    clear_abandoned()
    with _turn():
        # 2. This machine is ours, and we know how it was.
        _claim()
        system.remember()
        programs.link()
        certificates.make_missing()
        certificates.write_kubeconfigs()
        system.make_network()
        # 3. The parts, each as soon as what it needs from the start serves.
        changed = [part.name for part in all_components() if _ensure(part)]
        # 4. That a pod could start now.
        _wait("the node is ready", lambda: NODE in nodes.ready_nodes(), "kubelet")
        nodes.simulate_gpus()
    if changed:
        print(f"The cluster is up after {time.monotonic() - began:.0f} s; started: {', '.join(changed)}.")
    else:
        print("The cluster is up; nothing had to be done.")


def down() -> None:
    """End and remove everything that `up` made on this machine, but not the cache of built programs. Raises Problem."""
    if not STATE.exists() and not any(processes.labelled()) and not _owned():
        print("There is no cluster to take down.")
        return
    if os.geteuid() != 0:
        raise Problem("Taking the cluster down needs root, as bringing it up does.")
    with _turn():
        # 1. Nobody starts pods any more; then the pods end, and those who held them. What they know is lost anyhow,
        #    so nobody is given time to write it down.
        processes.kill("kubelet")
        processes.kill("containerd")
        # Nothing of the machine was changed before it was written down how it was, and by whom.
        changed = _owned() and system.remembered()
        if changed:
            system.end_containers()
        processes.end_all()
        # 2. What is left in the kernel, and at last the files.
        if changed:
            system.take_back()
        system.remove_files(owned=_owned())
        LOCK.unlink(missing_ok=True)
    print("The cluster is down. Its built programs are kept for the next time.")


def check_foreign(kubeconfig: str) -> None:
    """A person's own cluster is used as it is: only see that it answers. Raises Problem."""
    kubectl = PROGRAMS / "kubectl" if (PROGRAMS / "kubectl").exists() else Path("kubectl")
    try:
        done = subprocess.run([str(kubectl), "get", "nodes"], capture_output=True, text=True)
    except FileNotFoundError:
        raise Problem(
            f"KUBECONFIG is set ({kubeconfig}), and there is no kubectl to ask that cluster with."
        ) from None
    if done.returncode:
        raise Problem(
            f"KUBECONFIG is set ({kubeconfig}), but that cluster does not answer: {done.stderr.strip()}"
        )
    print(
        f"KUBECONFIG is set ({kubeconfig}): using that cluster, which answers. Nothing was started or written."
    )
    print(done.stdout, end="")


def stop(name: str, at_once: bool = False) -> None:
    """End one part, politely or as if it had crashed; nobody starts it again but `start` and `up`. Raises Problem."""
    _known(name)
    with _turn():
        (STOPPED / name).touch()
        ended = processes.kill(name) if at_once else processes.stop(name)
        print(f"{name} has ended." if ended else f"{name} was not running.")


def start(name: str) -> None:
    """Start one part unless it runs, and wait until it serves. Raises Problem."""
    with _turn():
        print(f"{name} has started." if _ensure(_known(name)) else f"{name} was running.")


def keep() -> None:
    """For ever: start again what ended by itself, and set again what a restarted kubelet forgets.

    A scheduler, for one, ends itself when it finds that a binding whose answer was lost went through after all.
    """
    trouble = ""
    while True:
        try:
            with _turn():
                for part in _ended():
                    _ensure(part)
                    print(f"{part.name} had ended; it serves again", flush=True)
            if nodes.simulate_gpus():
                print("the node has its simulated GPUs again", flush=True)
            trouble = ""
        except (OSError, api.Refused, Problem) as error:
            if trouble != str(error):
                print(f"not all can be kept as it was: {error}", flush=True)
            trouble = str(error)
        time.sleep(KEEP_SECONDS)


def _ended() -> Iterator[Component]:
    """The parts that ended by themselves, as far as those that they need were not stopped on purpose."""
    found = processes.running()
    for part in all_components():
        if (STOPPED / part.name).exists():
            return
        if part.name not in found:
            yield part


def pretended_pods(ready_after: float, address: str) -> None:
    """Say how pods on pretended nodes behave from now on. Raises Problem."""
    with _turn():
        replace_file(STAGES, nodes.stages(ready_after, address))
        _ensure(_known("kwok"))


def status() -> bool:
    """Print each part with its pid; whether all run and serve."""
    if not PROGRAMS.exists():
        print("no cluster: `make cluster` makes one")
        return False
    found = processes.running()
    healthy = True
    for part in all_components():
        process = found.get(part.name)
        serves = process is not None and part.serves()
        healthy = healthy and serves
        state = "serves" if serves else "does not answer" if process else "is not running"
        print(f"{part.name:24} {process.pid if process else '-':>8}  {state}")
    return healthy


def _known(name: str) -> Component:
    if not PROGRAMS.exists():
        raise Problem("no cluster: `make cluster` makes one")
    return next(part for part in all_components() if part.name == name)


def _ensure(part: Component) -> bool:
    """The part runs as it is configured now, and serves; whether it had to be started."""
    (STOPPED / part.name).unlink(missing_ok=True)
    process = processes.running().get(part.name)
    fresh = process is None or process.digest != part.digest
    if fresh:
        processes.stop(part.name)
        part.write_files()
        processes.start(part.name, part.digest, part.command, part.environment)
    try:
        _wait(f"{part.name} serves", part.serves, part.name)
    except Problem:
        if fresh:
            raise
        # It runs and does not answer: it hangs. Once more from the start.
        processes.stop(part.name)
        processes.start(part.name, part.digest, part.command, part.environment)
        _wait(f"{part.name} serves", part.serves, part.name)
        return True
    # What other parts wait for.
    if part.name == "kube-apiserver":
        _apply_objects()
    if part.name == "containerd":
        images.load_pause()
    return fresh


def _wait(what: str, condition: Callable[[], bool], part: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        with suppress(OSError, api.Refused):
            if condition():
                return
        if part not in processes.running():
            raise Problem(
                f"{part} ended by itself. Its last words, from {LOGS / part}.log:\n{_last_words(part)}"
            )
        if time.monotonic() > deadline:
            raise Problem(
                f"Waited {READY_SECONDS} s in vain until {what}. See {LOGS / part}.log:\n{_last_words(part)}"
            )
        time.sleep(LOOK_SECONDS)


def _last_words(part: str) -> str:
    log = LOGS / f"{part}.log"
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""


def _apply_objects() -> None:
    """What the cluster itself holds, as `objects.json` says; what is there already stays as it is."""
    digest = OBJECTS.read_text()
    applied = STATE / "objects.json"
    if applied.exists() and applied.read_text() == digest:
        return
    command = [
        str(PROGRAMS / "kubectl"),
        "--kubeconfig",
        str(KUBECONFIG),
        "apply",
        "--server-side",
        "--force-conflicts",
    ]
    done = subprocess.run([*command, "--filename", str(OBJECTS)], capture_output=True, text=True)
    if done.returncode:
        raise Problem(f"The cluster's own objects could not be made: {done.stderr.strip()}")
    replace_file(applied, digest)


def clear_abandoned() -> None:
    """What another checkout's cluster left behind goes first, as its own `down` would have it, once nothing of it runs.
    Raises Problem.
    """
    owner = OWNER.read_text() if OWNER.exists() else ""
    if not owner or owner == str(STATE) or any(processes.labelled(owner)):
        return
    print(f"Removing what is left of a cluster of which nothing runs any more ({owner}).")
    done = subprocess.run(
        [sys.executable, str(CLUSTER / "cluster.py"), "down"],
        env={**os.environ, "HANGANG_CLUSTER_FOLDER": owner},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Problem(f"What is left of the cluster in {owner} cannot be removed: {done.stderr.strip()}")


def _claim() -> None:
    """Make this checkout the one whose cluster runs on this machine. Raises Problem."""
    for folder in (RUN, STATE, CONFIGS, LOGS, VOLUMES, STOPPED):
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    owner = OWNER.read_text() if OWNER.exists() else ""
    if owner and owner != str(STATE):
        raise Problem(
            f"Another checkout's cluster is on this machine ({owner}), and there is room for one. Use it by "
            f"KUBECONFIG={owner}/kubeconfig, or take it down: HANGANG_CLUSTER_FOLDER={owner} make cluster-down"
        )
    replace_file(OWNER, str(STATE))
    replace_file(MARK, "Made by `make cluster`; `make cluster-down` removes this folder.\n")


def _owned() -> bool:
    return OWNER.exists() and OWNER.read_text() == str(STATE)


@contextmanager
def _turn() -> Iterator[None]:
    """One at a time on this machine. The lock ends with its holder, whatever ends that."""
    while True:
        with LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # `down` removes the file at its end: then this is not the one that others lock.
            try:
                if os.fstat(lock.fileno()).st_ino != LOCK.stat().st_ino:
                    continue
            except FileNotFoundError:
                continue
            yield
            return
