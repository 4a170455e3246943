"""Starts on Kubernetes, beside plain KubeSpawner on the same cluster in the same run.

    python -m bench.kubernetes alternating   # one start after the other, ours and plain in turn
    python -m bench.kubernetes burst         # 300 people within ten seconds
    python -m bench.kubernetes short         # the same, with GPUs for half of them
    python -m bench.kubernetes killed        # the same, and hub and desk are killed in the middle of it
    python -m bench.kubernetes restart       # a hub with 1,000 running servers is killed

Pods are pretended (kwok) and ready three seconds after they got a node; hub, proxy, database and control plane are
real. `alternating --real` starts real JupyterLab pods instead. Needs the cluster that `make cluster` makes.
"""

from __future__ import annotations

import argparse
import json
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

import httpx
import psutil

from hub_ext.quota.model import Ticket
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
def hub_of(
    cluster: Cluster,
    people: int,
    *,
    plain: bool,
    real: bool = False,
    starts: int = 1000,
    gpus: int | None = None,
) -> Iterator[Crowd]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        cluster.namespace(**RESTRICTED) as namespace,
        crowd(
            Path(folder),
            cluster,
            namespace,
            people,
            starts=starts,
            gpus=gpus,
            more=(PLAIN if plain else "") + (REAL if real else ""),
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


@dataclass
class Burst:
    """What people met: the answers to their clicks, and when each one's server was ready."""

    people: Crowd
    began: float = 0.0
    answers: Counter[int | str] = field(default_factory=Counter)
    clicked: dict[str, float] = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)
    """Seconds since the first click."""
    over: threading.Event = field(default_factory=threading.Event)

    def click_to_ready(self) -> Times:
        return Times([at - self.clicked[name] for name, at in self.ready.items()])

    def click(self, name: str, at: float) -> None:
        """At this second. Who is told to come again does so when told to; who finds nobody there, after a second."""
        time.sleep(max(0.0, self.began + at - time.monotonic()))
        self.clicked[name] = time.monotonic() - self.began
        met = False
        while not self.over.is_set() and name not in self.ready:
            try:
                answer = self.people.start(name)
            except httpx.HTTPError:
                self.answers["no answer"] += 1
                self.over.wait(1)
                continue
            self.answers[answer.status_code] += 1
            if answer.status_code not in (429, 503):
                break
            met |= answer.status_code == 429
            self.over.wait(float(answer.headers.get("Retry-After", "30")))
        self.answers["people with a 429"] += met

    def watch(self) -> None:
        """By the proxy's routes, which the hub makes when a server answers: the hub itself is not kept busy by us."""
        hub = self.people.hub
        token = json.loads((hub.state / "secrets.json").read_text())["proxy_token"]
        with httpx.Client(
            base_url=f"http://127.0.0.1:{hub.proxy_api_port}",
            headers={"Authorization": f"token {token}"},
            trust_env=False,
        ) as proxy:
            while not self.over.wait(0.25):
                routes = proxy.get("/api/routes").json()
                now = time.monotonic() - self.began
                for name in self.people.names:
                    if f"/user/{name}" in routes:
                        self.ready.setdefault(name, now)


@contextmanager
def arriving(people: Crowd, within: float) -> Iterator[Burst]:
    """Everybody clicks, one after the other within so many seconds; leaves when each was answered."""
    found = Burst(people, time.monotonic())
    clicks = [
        threading.Thread(target=found.click, args=(name, within * number / len(people.names)))
        for number, name in enumerate(people.names)
    ]
    watch = threading.Thread(target=found.watch)
    for thread in (*clicks, watch):
        thread.start()
    try:
        yield found
        for thread in clicks:
            thread.join(600)
    finally:
        found.over.set()
        watch.join()


def burst(cluster: Cluster, people: int, within: float, *, beside: bool) -> None:
    for plain in (False, True) if beside else (False,):
        with pretended(cluster, 8), hub_of(cluster, people, plain=plain, starts=64) as one:
            hub, desk = psutil.Process(one.hub.child("hub").pid), psutil.Process(one.hub.child("desk").pid)
            before, desk_before, cluster_before = cpu(hub), cpu(desk), cpu_of_parts(cluster)
            with arriving(one, within) as found:
                wait_for(lambda: len(found.ready) == people, "all are ready", 600, 0.25)
            print(
                f"{'plain KubeSpawner' if plain else 'ours'}, 64 starts at once: {people} people in {within:g} s"
            )
            tell(found)
            print(
                f"  hub: {(cpu(hub) - before) / people:.3f} s of CPU for each start, {memory(hub):.0f} MiB; "
                f"desk: {(cpu(desk) - desk_before) / people:.3f} s, {memory(desk):.0f} MiB"
            )
            parts = cpu_of_parts(cluster)
            print(
                f"  control plane, s of CPU: { {name: round(s - cluster_before[name], 1) for name, s in parts.items()} }"
            )


def short(cluster: Cluster, people: int, within: float) -> None:
    """GPUs for half of them."""
    with pretended(cluster, 8), hub_of(cluster, people, plain=False, starts=64, gpus=people // 2) as one:
        hub = one.hub.child("hub")
        with arriving(one, within) as found:
            wait_for(lambda: len(found.ready) == people // 2, "half are ready", 600, 0.25)
        tickets = wait_for(lambda: in_line(one, people - people // 2), "the others are in line", 60)
        print(f"GPUs for {people // 2} of {people} people in {within:g} s")
        tell(found)
        print(
            f"  in line: {len(tickets)}, reasons {dict(Counter(ticket.outlook.code for ticket in tickets))}, "
            f"places {min(map(place_of, tickets))} to {max(map(place_of, tickets))}, "
            f"with a time: {sum(1 for ticket in tickets if ticket.outlook.eta)}; "
            f"the same hub runs: {hub.is_running() and one.hub.answers()}"
        )
        freed = time.monotonic()
        gone = sorted(found.ready)[:20]
        for name in gone:
            one.http.delete(f"/users/{name}/server")
        wait_for(lambda: len(one.ready() - set(found.ready)) == len(gone), "the next are served", 120, 0.25)
        print(f"  {len(gone)} stop: as many of the line have a server after {time.monotonic() - freed:.1f} s")


def in_line(people: Crowd, number: int) -> list[Ticket]:
    """All of them, once each has a place; else nothing."""
    found = people.waiting()
    return found if len(found) == number and all(ticket.outlook.place for ticket in found) else []


def place_of(ticket: Ticket) -> int:
    return ticket.outlook.place or 0


def killed(cluster: Cluster, people: int, within: float) -> None:
    """Hub and desk are killed in the middle of it."""
    with pretended(cluster, 8), hub_of(cluster, people, plain=False, starts=64) as one:
        with arriving(one, within) as found:
            time.sleep(within / 2)
            for name in ("hub", "desk"):
                os.kill(one.hub.child(name).pid, signal.SIGKILL)
            at = time.monotonic()
            wait_for(one.hub.answers, "the hub serves", 120, 0.1)
            away = time.monotonic() - at
            wait_for(lambda: len(found.ready) == people, "all are ready", 600, 0.25)
        print(f"hub and desk killed -9 after {within / 2:g} s of {people} people in {within:g} s")
        print(
            f"  the hub serves again after {away:.1f} s; leases and pods are one to one: {one.one_to_one()}"
        )
        tell(found)


def tell(found: Burst) -> None:
    statuses = {status: n for status, n in found.answers.items() if status not in (429, "people with a 429")}
    print(
        f"  the last is ready {max(found.ready.values()):.1f} s after the first click; click to ready: {found.click_to_ready().line()}"
    )
    print(
        f"  429 met by {found.answers['people with a 429']} people, {found.answers[429]} times in all; "
        f"other answers: {statuses}"
    )


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


def memory(process: psutil.Process) -> float:
    """MiB."""
    return float(process.memory_info().rss) / 2**20


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
    bursts = [
        what.add_parser(name, help=text)
        for name, text in (
            ("burst", "many people within seconds"),
            ("short", "with GPUs for half of them"),
            ("killed", "hub and desk are killed in the middle of it"),
        )
    ]
    for parser_of_burst in bursts:
        parser_of_burst.add_argument("--people", type=int, default=300)
        parser_of_burst.add_argument("--within", type=float, default=10)
    bursts[0].add_argument("--alone", action="store_true", help="without plain KubeSpawner beside it")
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
            burst(cluster, given.people, given.within, beside=not given.alone)
        case "short":
            short(cluster, given.people, given.within)
        case "killed":
            killed(cluster, given.people, given.within)
        case "restart":
            restart(cluster, given.people)


if __name__ == "__main__":
    main()
