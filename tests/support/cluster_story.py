"""The story of one cluster, the same wherever the hub runs: from a kernel, beyond the quota, and back by notice.

A centre of nine CPUs: five are the researcher's university's, four the city's. A server takes two, a scheduler one, a
worker two.
"""

from __future__ import annotations

import asyncio
import csv
import io
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from tests.support.hub import ROOT, Visitor, wait_for
from tests.support.story import kernel, printed

BORROWER, OWNER = "researcher", "lead"
"""Of the university, and of the city's traffic office."""
GROWS_WITHIN: Final = 5
"""Seconds in which a cluster that waits for room takes it."""

START = """
from hub_ext.notebook import clusters
client = clusters.start(workers=1, profile="cpu", minutes=60)
print("cluster", client.cluster.name)
"""
COMPUTE = """
import dask.dataframe as dd
import pandas as pd
people = pd.DataFrame({"hour": [n % 24 for n in range(24_000)], "people": range(24_000)})
kept = client.persist(dd.from_pandas(people, npartitions=16))
want = people.groupby("hour").people.sum().sort_index()
assert kept.groupby("hour").people.sum().compute().sort_index().equals(want)
print("computed", len(want))
"""
ADAPT = """
import warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    client.cluster.adapt(minimum=3, maximum=12)
print("told", *(f"{one.category.__name__}: {one.message}" for one in told))
client.wait_for_workers(2, timeout=240)
print("workers", len(client.scheduler_info(n_workers=-1)["workers"]))
"""
ALL_THREE = """
client.wait_for_workers(3, timeout=240)
print("workers", len(client.scheduler_info(n_workers=-1)["workers"]))
"""
COMPUTING = """
from distributed import Event
def square(number):
    Event("go on").wait()
    return number * number
numbers = client.map(square, range(40))
"""
RESULTS = """
Event("go on").set()
assert client.gather(numbers) == [number * number for number in range(40)]
assert kept.groupby("hour").people.sum().compute().sort_index().equals(want)
print("nothing is lost")
"""
CLOSE = """
client.cluster.close()
client.close()
"""


def nine_cpus() -> str:
    """The project's policy with so few CPUs, and short times."""
    text = (ROOT / "policy" / "pools.yaml").read_text(encoding="utf-8")
    changes = {
        r"(?m)^(      cpu: \{nominal: )40\}": r"\g<1>4}",
        r"(?m)^(      cpu: \{nominal: )52\}": r"\g<1>5}",
        r"(?m)^(      cpu: \{nominal: )36\}": r"\g<1>0}",
        r"session: \{min: 15m, max: 12h, protected: 30m, notice: 10m, grace: 30m\}": (
            "session: {min: 1m, max: 12h, protected: 0s, notice: 66s, grace: 1m}"
        ),
    }
    for old, new in changes.items():
        text, times = re.subn(old, new, text)
        assert times == 1, f"the policy has {times} times: {old}"
    return text


class Place(Protocol):
    """A hub, wherever it runs."""

    def leases(self) -> list[dict[str, Any]]: ...

    def all_leases(self) -> list[dict[str, Any]]: ...

    def command(self, *arguments: str) -> str: ...


@dataclass
class Watch:
    """When each lease's process or container ran, as the machine itself tells it: seconds since the epoch."""

    running: Callable[[], Mapping[str, float]]
    """By lease: since when what runs now has been running."""
    began: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        now = time.time()
        found = self.running()
        self.began |= found
        for lease in self.began.keys() - found.keys():
            self.ended.setdefault(lease, now)

    def keep_looking(self) -> None:
        while not self._over.wait(0.25):
            self.look()

    def stop(self) -> None:
        self._over.set()


@contextmanager
def watching(running: Callable[[], Mapping[str, float]]) -> Iterator[Watch]:
    watch = Watch(running)
    thread = threading.Thread(target=watch.keep_looking, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.stop()
        thread.join(30)


def of_cluster(hub: Place, name: str, kind: str = "dask-worker") -> list[dict[str, Any]]:
    return [lease for lease in hub.leases() if (lease["server"], lease["kind"]) == (name, kind)]


async def story(
    hub: Place, borrower: Visitor, owner: Visitor, running: Callable[[], Mapping[str, float]], slack: float
) -> None:
    """Both have a server. `slack` is by how many seconds the ledger may differ from what ran."""
    with watching(running) as watch:
        async with kernel(borrower) as run:
            # 1. A cluster in one line, which computes on a dataframe.
            name = printed(await run(START)).split("cluster ")[1].split()[0]
            assert "computed 24" in printed(await run(COMPUTE))
            # 2. It adapts beyond what there is room for: what fits, and why not more.
            told = printed(await run(ADAPT))
            assert re.search(
                r"told FewerWorkers: 2 of 12 workers can run now\. .+ start by themselves", told
            ), told
            assert "workers 2" in told
            # 3. Somebody stops: the third worker comes by itself.
            await asyncio.to_thread(owner.stop)
            assert "workers 3" in printed(await run(ALL_THREE))
            workers = of_cluster(hub, name)
            freed = max(at(one, "released_at") for one in hub.all_leases() if one["person"] == OWNER)
            assert 0 <= max(at(one, "booked_at") for one in workers) - freed <= GROWS_WITHIN
            assert [lease["guaranteed"] for lease in workers].count(False) == 2
            # 4. While all of them compute, the owner comes back for what is theirs: one worker hands over its data and
            #    goes before the notice is over, and the server starts by itself.
            await run(COMPUTING)
            waits = await asyncio.to_thread(owner.start, {"profile": "cpu-small"})
            assert waits.status_code == 409, waits.text
            await asyncio.to_thread(owner.wait_until_ready, seconds=120)
            assert len(of_cluster(hub, name)) == 2
            assert "nothing is lost" in printed(await run(RESULTS))
            # 5. Its end.
            await run(CLOSE)
        await asyncio.to_thread(
            wait_for,
            lambda: not [one for one in hub.leases() if one["server"] == name],
            "all is given back",
            120,
        )
        over = [lease for lease in hub.all_leases() if lease["server"] == name]
        await asyncio.to_thread(
            wait_for, lambda: watch.ended.keys() >= {one["id"] for one in over}, "all of it is gone"
        )
    # 6. What the ledger says is what ran, to the second and worker by worker.
    assert sorted(one["kind"] for one in over) == ["dask-scheduler", *["dask-worker"] * 3]
    assert sorted(one["reason"] for one in over) == ["stopped", "stopped", "stopped", "taken-back"]
    usage = csv.DictReader(io.StringIO(hub.command("usage", "--by", "lease", "--format", "csv")))
    charged = {row["lease"]: float(row["total_seconds"]) for row in usage}
    for lease in over:
        ran = watch.ended[lease["id"]] - watch.began[lease["id"]]
        assert abs(charged[lease["id"]] - ran) <= slack, (lease, ran, charged[lease["id"]])


def at(lease: Mapping[str, Any], what: str) -> float:
    return datetime.fromisoformat(lease[what]).timestamp()
