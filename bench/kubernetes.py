"""Starts on Kubernetes, beside plain KubeSpawner on the same cluster in the same run.

    python -m bench.kubernetes alternating   # one start after the other, ours and plain in turn
    python -m bench.kubernetes burst         # 300 people within ten seconds
    python -m bench.kubernetes restart       # a hub with 1,000 running servers is killed

Pods are pretended (kwok) and ready three seconds after they got a node; hub, proxy, database and control plane are
real. `alternating --real` starts real JupyterLab pods instead. Needs the cluster that `make cluster` makes.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.cluster import Cluster, find_cluster
from tests.support.crowd import Crowd, crowd
from tests.support.hub import wait_for
from tests.support.kube_hub import GATEWAY

READY_AFTER = 3.0
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
PLAIN = """
from kubespawner import KubeSpawner

# Plain KubeSpawner with the defaults of zero-to-jupyterhub, and the same pods.
c.JupyterHub.spawner_class = KubeSpawner
c.JupyterHub.concurrent_spawn_limit = 64
c.KubeSpawner.k8s_api_request_retry_timeout = 30
"""
REAL = """
c.KubeSpawner.node_selector = {}
c.KubeSpawner.port = 8888
"""


@dataclass
class Times:
    """Seconds from the click to a server that is ready."""

    seconds: list[float] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def line(self, less: float = 0.0) -> str:
        median = statistics.median(self.seconds) - less
        return f"median {median:.2f} s, p95 {self.quantile(0.95) - less:.2f} s, longest {max(self.seconds) - less:.2f} s"


@contextmanager
def hub_of(cluster: Cluster, people: int, *, plain: bool, real: bool = False) -> Iterator[Crowd]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        cluster.namespace(**RESTRICTED) as namespace,
        crowd(
            Path(folder), cluster, namespace, people, more=(PLAIN if plain else "") + (REAL if real else "")
        ) as one,
    ):
        yield one


@contextmanager
def pretended(cluster: Cluster, nodes: int) -> Iterator[None]:
    with cluster.pretended_nodes(nodes, "--gpus", "64"):
        cluster.program("pretended-pods", "--ready-after", str(READY_AFTER), "--address", GATEWAY)
        try:
            yield
        finally:
            cluster.program("pretended-pods")


# -- one after the other -------------------------------------------------------------------------------------------------


def alternating(cluster: Cluster, rounds: int, *, real: bool) -> None:
    times = {"ours": Times(), "plain KubeSpawner": Times()}
    with ExitStack() as stack:
        if not real:
            stack.enter_context(pretended(cluster, 1))
        hubs = {
            "ours": stack.enter_context(hub_of(cluster, 1, plain=False, real=real)),
            "plain KubeSpawner": stack.enter_context(hub_of(cluster, 1, plain=True, real=real)),
        }
        for round_number in range(rounds + 1):
            for name in random.sample(list(hubs), 2):
                seconds = one_start(hubs[name])
                if round_number:  # the first of each opens connections and warms caches
                    times[name].seconds.append(seconds)
    less = 0.0 if real else READY_AFTER
    what = "click to ready" if real else f"added to the {READY_AFTER:g} s that a pod takes"
    for name, found in times.items():
        print(f"{name}: {what}: {found.line(less)} ({len(found.seconds)} starts)")
    ratio = (statistics.median(times["ours"].seconds) - less) / (
        statistics.median(times["plain KubeSpawner"].seconds) - less
    )
    print(f"ratio of the medians, ours to plain: {ratio:.2f}")


def one_start(people: Crowd) -> float:
    """The hub answers a start by REST when the server is ready, or after ten seconds."""
    (name,) = people.names
    began = time.monotonic()
    answer = people.start(name)
    if answer.status_code != 201:
        people.wait_until_ready([name])
    seconds = time.monotonic() - began
    people.stop_all()
    return seconds


# -- all at once ---------------------------------------------------------------------------------------------------------


def burst(cluster: Cluster, people: int, within: float) -> None:
    for plain in (False, True):
        with pretended(cluster, 8), hub_of(cluster, people, plain=plain) as one:
            answers: Counter[int | str] = Counter()
            times = Times()
            process = psutil.Process(one.hub.child("hub").pid)
            before, cluster_before = cpu(process), cpu_of_parts(cluster)
            began = time.monotonic()
            threads = [
                threading.Thread(
                    target=arrive, args=(one, name, began + within * number / people, answers, times)
                )
                for number, name in enumerate(one.names)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            wait_for(lambda: one.ready() == set(one.names), "all are ready", 600, 0.25)
            last = time.monotonic() - began
            parts = {
                part: round(seconds - cluster_before[part], 1)
                for part, seconds in cpu_of_parts(cluster).items()
            }
            print(
                f"{'plain KubeSpawner, 64 starts at once' if plain else 'ours'}: {people} people in {within:g} s"
            )
            print(f"  the last is ready {last:.1f} s after the first click; click to ready: {times.line()}")
            print(
                f"  429 met by {answers['people with a 429']} people, {answers[429]} times in all; other answers: "
                f"{ {status: n for status, n in answers.items() if isinstance(status, int) and status != 429} }"
            )
            print(
                f"  hub: {(cpu(process) - before) / people:.3f} s of CPU for each start, {process.memory_info().rss / 2**20:.0f} MiB"
            )
            print(f"  control plane, s of CPU: {parts}")


def arrive(people: Crowd, name: str, at: float, answers: Counter[int | str], times: Times) -> None:
    """Click, and where that is answered with "too many", click again when one was told to."""
    time.sleep(max(0.0, at - time.monotonic()))
    began, met = time.monotonic(), False
    while True:
        answer = people.start(name)
        answers[answer.status_code] += 1
        if answer.status_code != 429:
            break
        met = True
        time.sleep(float(answer.headers.get("Retry-After", "30")))
    if met:
        answers["people with a 429"] += 1
    while answer.status_code == 202 and not is_ready(people, name):
        time.sleep(0.25)
    times.seconds.append(time.monotonic() - began)


def is_ready(people: Crowd, name: str) -> bool:
    servers = people.http.get(f"/users/{name}").json().get("servers", {})
    return bool(servers.get("", {}).get("ready"))


# -- a restart -----------------------------------------------------------------------------------------------------------


def restart(cluster: Cluster, people: int) -> None:
    for plain in (False, True):
        with pretended(cluster, -(-people // 60)), hub_of(cluster, people, plain=plain) as one:
            for first in range(0, people, 50):
                one.start_all(one.names[first : first + 50])
            one.wait_until_ready(one.names, 600)
            before = {pod["metadata"]["uid"] for pod in one.hub.pods()}
            killed = one.hub.child("hub").pid
            began = time.monotonic()
            os.kill(killed, signal.SIGKILL)
            wait_for(one.hub.answers, "the hub serves", 300, 0.1)
            serving = time.monotonic() - began
            wait_for(lambda: one.ready() == set(one.names), "all are ready again", 300, 0.5)
            all_again = time.monotonic() - began
            kept = before == {pod["metadata"]["uid"] for pod in one.hub.pods()}
            memory = psutil.Process(one.hub.child("hub").pid).memory_info().rss / 2**20
            print(
                f"{'plain KubeSpawner' if plain else 'ours'}: {people} running servers, hub killed -9: serves after "
                f"{serving:.1f} s, all servers known after {all_again:.1f} s, {memory:.0f} MiB; pods kept: {kept}"
            )


# -- what it cost ----------------------------------------------------------------------------------------------------------


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def cpu_of_parts(cluster: Cluster) -> dict[str, float]:
    wanted = ("kube-apiserver", "etcd", "kube-scheduler", "kube-controller-manager", "kwok")
    found = {}
    for name, pid in cluster.pids().items():
        if name in wanted:
            found[name] = cpu(psutil.Process(pid))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_subparsers(dest="what", required=True)
    one = what.add_parser("alternating")
    one.add_argument("--rounds", type=int, default=20)
    one.add_argument("--real", action="store_true", help="real JupyterLab pods")
    two = what.add_parser("burst")
    two.add_argument("--people", type=int, default=300)
    two.add_argument("--within", type=float, default=10)
    three = what.add_parser("restart")
    three.add_argument("--people", type=int, default=1000)
    given = parser.parse_args()
    cluster = find_cluster()
    if cluster is None:
        sys.exit("There is no cluster: `make cluster` makes one.")
    match given.what:
        case "alternating":
            alternating(cluster, given.rounds, real=given.real)
        case "burst":
            burst(cluster, given.people, given.within)
        case "restart":
            restart(cluster, given.people)


if __name__ == "__main__":
    main()
