"""How long a tick of the clock takes in a large centre: `python -m bench.clock [--leases N] [--tickets N] [--ticks N]`.

A real ledger (SQLite, or PostgreSQL by `--database URL` with the hub's tables); what runs, and the hub, answer from
memory. All GPUs are taken, a third of them borrowed; every ticket waits for some. In each measured tick `--churn` leases
end, so that as many tickets have their turn.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hub_ext.core.decision import Code, Wait
from hub_ext.core.people import Person
from hub_ext.db.engine import make_engine
from hub_ext.db.upgrade import upgrade
from hub_ext.desk.clockwork import Clockwork
from hub_ext.quota.booking import decided
from hub_ext.quota.document import parse_policy
from hub_ext.quota.model import Ask, Lease, LeaseState, Node, Outlook, Ticket
from hub_ext.quota.ports import Running
from hub_ext.quota.service import Admission, end, run
from hub_ext.quota.store import SqlStore

NOW = 1_803_945_600
SECTORS, INSTITUTIONS = 3, 8
HOURS = 3600


class HandClock:
    def __init__(self, at: int) -> None:
        self.at = at

    def now(self) -> int:
        return self.at


class Memory:
    """The world and the hub: everything that has a lease runs, and the hub knows it."""

    def __init__(self) -> None:
        self.processes: dict[str, Running] = {}
        self.known: dict[tuple[str, str], str | None] = {}
        self.started = 0

    def running(self) -> list[Running]:
        return list(self.processes.values())

    def ended(self) -> Mapping[str, str]:
        return {}

    def active(self) -> dict[tuple[str, str], str | None]:
        return dict(self.known)

    def start(self, person: str, server: str, options: Mapping[str, Any] | None = None) -> None:
        self.known[person, server] = "spawn"
        self.started += 1


class World:
    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def running(self) -> list[Running]:
        return self.memory.running()

    def ended(self) -> Mapping[str, str]:
        return {}

    def stop(self, running: Running) -> None:
        self.memory.processes.pop(running.lease, None)


class Hub(Memory):
    """The memory as the hub's API shows it."""

    def stop(self, person: str, server: str) -> bool:
        return self.known.pop((person, server), "none") != "none"


def policy(leases: int) -> str:
    """Three sectors of eight institutions with budgets; two thirds of all GPUs are the institutions' own."""
    each = leases * 2 // 3 // (SECTORS * INSTITUTIONS)
    lines = [
        "version: 1",
        "timezone: Asia/Seoul",
        'gpu_classes: {h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}}',
        "queue: {starts: 100000}",
        "pools:",
        f"  seoul: {{quota: {{gpu.h200: {{nominal: {leases - each * SECTORS * INSTITUTIONS}}}}}}}",
    ]
    for sector in range(SECTORS):
        lines.append(f"  sector-{sector}: {{parent: seoul, budgets: [{{hours: 90000000, period: month}}]}}")
        lines += [
            f"  pool-{sector}-{place}: {{parent: sector-{sector}, quota: {{gpu.h200: {{nominal: {each}}}}}, person: {{servers: 9}}, "
            "budgets: [{hours: 9000000, period: month}, {hours: 9000, period: week, each: person}]}"
            for place in range(INSTITUTIONS)
        ]
    return "\n".join(lines)


def fill(admission: Admission, hub: Memory, leases: int, tickets: int) -> None:
    """As after a busy morning: what runs, and who waits."""
    dice = random.Random(7)
    text = policy(leases)
    admission.load_policy(text, parse_policy(text), who="bench")
    pools = [f"pool-{sector}-{place}" for sector in range(SECTORS) for place in range(INSTITUTIONS)]
    people = [
        Person(f"person-{number}", (dice.choice(pools),))
        for number in range(max(1, (leases + tickets) * 3 // 4))
    ]
    with admission.store.booking() as txn:
        per_node = 8
        txn.put_nodes([Node(f"n{n}", {"gpu.h200": per_node * 1000}) for n in range(-(-leases // per_node))])
        for person in people:
            txn.put_person(person)
        ledger = txn.ledger(None)
        booked: list[Lease] = []
        for number in range(leases):
            person = dice.choice(people)
            ask = Ask(f"l{number:05}", person.name, person.pools[0], {"gpu.h200": 1000}, server=f"s{number}")
            guaranteed = ledger.would_be_guaranteed(ask)
            began = NOW - dice.randrange(30 * 60, 5 * HOURS)
            lease = ledger.adopt(
                ask,
                NOW,
                started_at=began,
                ends_at=NOW + dice.randrange(HOURS, 7 * HOURS),
                cost=1_000_000 if guaranteed else 500_000,
                handle=f"h{number}",
                node=f"n{number // per_node}",
                guaranteed=guaranteed,
            )
            booked.append(lease)
            hub.processes[lease.id] = Running(lease.id, f"h{number}", began, node=lease.node)
            hub.known[person.name, ask.server] = None
        made = []
        for number in range(tickets):
            person = dice.choice(people)
            gpus = dice.choice([1, 1, 1, 2, 4])
            ask = Ask(
                f"t{number:05}",
                person.name,
                person.pools[0],
                {"gpu.h200": gpus * 1000},
                minutes=120,
                server=f"t{number}",
            )
            wait = Wait(Code.POOL_FULL, {"pool": ask.pool, "resource": "gpu.h200"})
            ledger.entries.append(decided(ask, wait, NOW))
            made.append(
                Ticket(
                    ask,
                    NOW - dice.randrange(3 * HOURS),
                    Outlook(wait.code.value, wait.facts),
                    options={"profile": "h200"},
                )
            )
        txn.put_tickets(made)
        txn.save(ledger, booked)


def churn(admission: Admission, hub: Memory, count: int) -> None:
    """So many servers end, and those that were started meanwhile run."""
    with admission.store.reading() as txn:
        live = txn.live_leases()
    for lease in [lease for lease in live if lease.state is LeaseState.BOOKED]:
        hub.processes[lease.id] = Running(lease.id, f"h-{lease.id}", admission.clock.now(), node=lease.node)
        hub.known[lease.person, lease.server] = None
        admission.change(lease.id, run(f"h-{lease.id}", lease.node))
    for lease in [lease for lease in live if lease.state is LeaseState.RUNNING][:count]:
        hub.processes.pop(lease.id, None)
        hub.known.pop((lease.person, lease.server), None)
        admission.change(lease.id, end("person", "stopped"))
        admission.release_now(lease.id, "person", "stopped")


def measure(url: str, leases: int, tickets: int, ticks: int, churned: int, *, profile: bool) -> None:
    store = SqlStore(make_engine(url), load_policy=parse_policy)
    clock, hub = HandClock(NOW), Hub()
    admission = Admission(store, clock)
    fill(admission, hub, leases, tickets)
    clockwork = Clockwork(admission, World(hub), hub, holder="bench", starts_seconds=None)
    began = time.perf_counter()
    clockwork.tick()
    print(f"first tick (everything is read, every ticket looked at): {time.perf_counter() - began:.2f} s")
    for _ in range(2):
        clock.at += 2
        clockwork.tick()
    for name, count in (("nothing happens", 0), (f"{churned} end, as many start", churned)):
        took = []
        for _ in range(ticks):
            churn(admission, hub, count)
            clock.at += 2
            before = time.process_time()
            if profile:
                took.append(_profiled(clockwork))
            else:
                began = time.perf_counter()
                clockwork.tick()
                took.append((time.perf_counter() - began, time.process_time() - before))
        walls, cpus = zip(*took, strict=True)
        print(
            f"{name}: median {statistics.median(walls) * 1000:.0f} ms, longest {max(walls) * 1000:.0f} ms"
            f" (CPU {statistics.median(cpus) * 1000:.0f} ms); {hub.started} started so far"
        )
    store.close()


def _profiled(clockwork: Clockwork) -> tuple[float, float]:
    import cProfile
    import pstats

    profiler = cProfile.Profile()
    began = time.perf_counter()
    profiler.runcall(clockwork.tick)
    took = time.perf_counter() - began
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(35)
    return took, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leases", type=int, default=5000)
    parser.add_argument("--tickets", type=int, default=2000)
    parser.add_argument("--ticks", type=int, default=20)
    parser.add_argument("--churn", type=int, default=5)
    parser.add_argument("--database", default="")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.database or f"sqlite:///{Path(folder) / 'ledger.sqlite'}"
        upgrade(url)
        measure(url, given.leases, given.tickets, given.ticks, given.churn, profile=given.profile)


if __name__ == "__main__":
    main()
