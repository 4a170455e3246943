"""Dask clusters: `python -m bench.clusters grant [--leases N] [--clusters N] [--rounds N] [--database URL]`.

`grant`: how long one cluster waits for its workers' leases, with as many others there. A real ledger (SQLite, or PostgreSQL by
`--database URL` with the hub's tables); the centre is nearly full, a part of the clusters waits for more. The gateway asks from
its event loop, as it does: one after the other, then several at once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.clock import INSTITUTIONS, NOW, SECTORS, HandClock, policy
from hub_ext.core.people import Person
from hub_ext.db.engine import make_engine
from hub_ext.db.upgrade import upgrade
from hub_ext.quota.document import parse_policy
from hub_ext.quota.growing import Granted
from hub_ext.quota.model import SCHEDULER, WORKER, Ask, Device, Lease, LeaseState, Node
from hub_ext.quota.service import Admission, run
from hub_ext.quota.store import SqlStore

PER_NODE = 8
BOUND = 0.050
"""Seconds: what the 99th of a hundred grants may take at most."""


@dataclass
class Owner:
    """Somebody with a cluster, and the leases under which its workers run."""

    name: str
    person: Person
    running: set[str] = field(default_factory=set)

    def unit(self) -> Ask:
        return Ask("", self.person.name, self.person.pools[0], {"gpu.h200": 1000, "cpu": 4000}, WORKER)


@dataclass
class Took:
    """By what was asked for: seconds of each grant, and of the processor meanwhile."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    processor: list[float] = field(default_factory=list)

    def note(self, what: str, seconds: float, processor: float) -> None:
        self.seconds.setdefault(what, []).append(seconds)
        self.processor.append(processor)

    def show(self) -> None:
        everything = [one for some in self.seconds.values() for one in some]
        for what, some in [*self.seconds.items(), ("all", everything)]:
            told = ", ".join(f"{name} {value * 1000:.1f} ms" for name, value in percentiles(some).items())
            print(f"  {what}: {len(some)} grants, {told}")
        told = ", ".join(
            f"{name} {value * 1000:.1f} ms" for name, value in percentiles(self.processor).items()
        )
        print(f"  processor of this process while a grant was waited for: {told}")


def percentiles(seconds: Sequence[float]) -> Mapping[str, float]:
    ordered = sorted(seconds)
    at = {f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (95, 99)}
    return {"median": statistics.median(ordered), **at, "longest": ordered[-1]}


def fill(admission: Admission, leases: int, clusters: int, *, devices: bool) -> list[Owner]:
    """So many clusters with a scheduler and workers each; what is left of the leases are servers."""
    dice = random.Random(7)
    room = (leases - clusters) * 21 // 20
    text = policy(room).replace("person: {servers: 9}", "person: {dask-workers: 64}")
    admission.load_policy(text, parse_policy(text), who="bench")
    pools = [f"pool-{sector}-{place}" for sector in range(SECTORS) for place in range(INSTITUTIONS)]
    owners = [Owner(f"c{n:04}", Person(f"person-{n}", (dice.choice(pools),))) for n in range(clusters)]
    nodes = [
        Node(
            f"n{number}",
            {"gpu.h200": PER_NODE * 1000, "cpu": 192_000},
            tuple(Device(f"GPU-{number}-{place}", "h200") for place in range(PER_NODE)) if devices else (),
        )
        for number in range(-(-room // PER_NODE))
    ]
    with admission.store.booking() as txn:
        txn.put_nodes(nodes)
        for owner in owners:
            txn.put_person(owner.person)
    for owner in owners:
        ask = Ask(
            owner.name, owner.person.name, owner.person.pools[0], {"cpu": 1000}, SCHEDULER, server=owner.name
        )
        answer = admission.start_cluster_now(owner.person, ask)
        assert answer.lease is not None, answer.decision
        take(admission, answer.lease)
    wanted = (leases - clusters) // clusters
    for owner in owners:
        granted = admission.grant_now(owner.name, owner.person, owner.unit(), wanted, ())
        start(admission, owner, granted)
    return owners


def take(admission: Admission, lease: Lease) -> None:
    admission.change(lease.id, run(f"h-{lease.id}", lease.node))


def start(admission: Admission, owner: Owner, granted: Granted) -> None:
    """The gateway starts a worker for each lease that is free."""
    for lease in granted.leases:
        if lease.state is LeaseState.BOOKED and lease.id not in owner.running:
            take(admission, lease)
            owner.running.add(lease.id)


async def ask(admission: Admission, owner: Owner, wish: int, took: Took, what: str) -> Granted:
    began, worked = time.perf_counter(), time.process_time()
    granted = await admission.grant(owner.name, owner.person, owner.unit(), wish, owner.running)
    took.note(what, time.perf_counter() - began, time.process_time() - worked)
    return granted


async def one_cluster(admission: Admission, owner: Owner, dice: random.Random, took: Took) -> None:
    """It wishes for more, asks again as it does every two seconds, and gives up what it did not use."""
    before = len(owner.running)
    wish = before + dice.choice([1, 2, 5])
    granted = await ask(admission, owner, wish, took, "more")
    await ask(admission, owner, wish, took, "the same again")
    await ask(admission, owner, before, took, "fewer" if len(granted.leases) > before else "fewer waited for")


async def measure(admission: Admission, owners: list[Owner], rounds: int, at_once: int) -> Took:
    took, dice = Took(), random.Random(11)
    turn = asyncio.Semaphore(at_once)

    async def one(owner: Owner) -> None:
        async with turn:
            await one_cluster(admission, owner, dice, took)

    for _ in range(rounds):
        await asyncio.gather(*(one(owner) for owner in dice.sample(owners, len(owners))))
    return took


def grant(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = given.database or f"sqlite:///{Path(folder) / 'ledger.sqlite'}"
        upgrade(url)
        store = SqlStore(make_engine(url), load_policy=parse_policy)
        admission = Admission(store, HandClock(NOW))
        owners = fill(admission, given.leases, given.clusters, devices=given.devices)
        with store.reading() as txn:
            live, waiting = len(txn.live_leases()), len(txn.tickets())
        print(f"{live} live leases, {len(owners)} clusters, {waiting} waiting; load {os.getloadavg()[0]:.1f}")
        for at_once in (1, given.at_once):
            print(f"{at_once} at a time (p99 is to be at most {BOUND * 1000:.0f} ms):")
            asyncio.run(measure(admission, owners, given.rounds, at_once)).show()
        print(f"load {os.getloadavg()[0]:.1f}")
        store.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(required=True)
    granting = kinds.add_parser("grant", help="how long one cluster waits for its workers' leases")
    granting.add_argument("--leases", type=int, default=1000)
    granting.add_argument("--clusters", type=int, default=200)
    granting.add_argument("--rounds", type=int, default=5)
    granting.add_argument("--at-once", type=int, default=4)
    granting.add_argument("--devices", action="store_true", help="machines that list their GPUs")
    granting.add_argument("--database", default="")
    granting.set_defaults(run=grant)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
